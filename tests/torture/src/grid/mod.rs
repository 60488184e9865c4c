//! `kill-grid`: every operation, killed after every one of its instructions.
//!
//! * `plan`: which runs there are. `run`: one of them. `helper`: the second survivor. `raw`: what only bytes tell.
//! * `belongings`: what is somebody's, so that nobody robs him. `image`: the bytes of a segment.
//! * `shard`: a process that does them, one on each CPU.
//! * here: the command line, the supervision of the shards, the closing line.
//!
//! A harness that hangs is itself a finding: the supervisor, which touches no segment, notices that a shard makes no
//! progress, kills it with everybody it has forked, counts a hang, and starts another that goes on behind that run. Whatever
//! ends the grid, the [`Janitor`](crate::janitor) takes away what it leaves in /dev/shm.

pub mod belongings;
mod helper;
mod image;
mod plan;
pub mod raw;
mod run;
mod shard;

use crate::board::{FAMILIES, OPERATIONS, SHARDS, board};
use crate::janitor::Janitor;
use crate::operation::{ActInfo, BOUND, Family, Fault, PATIENCE, WRONGS, Wrong};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, setpgid};
use plan::Extent;
use run::Operation;
use shard::Grid;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What the command line asks for.
struct Wanted {
    extent: Extent,
    seed: u64,
    only: Vec<String>,
    from: Option<String>,
    /// The first and the last instruction.
    instructions: Option<(u32, u32)>,
    jobs: usize,
    /// The first fault ends it.
    until_fault: bool,
}

fn wanted(words: &[&str]) -> Result<Wanted, String> {
    let seed =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let (seed, extent) = (seed % 1_000_000, Extent::QUICK);
    let mut wanted =
        Wanted { extent, seed, only: Vec::new(), from: None, instructions: None, jobs, until_fault: false };
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        let mut next = || words.next().copied().ok_or(format!("{word} wants something behind it"));
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{word}: {text:?} is no number"));
        match word {
            "--quick" => wanted.extent = Extent { time: wanted.extent.time, ..Extent::QUICK },
            "--full" => wanted.extent = Extent::FULL,
            "--news" => wanted.extent = Extent::NEWS,
            "--until-fault" => (wanted.extent, wanted.until_fault) = (Extent::NEWS, true),
            "--seconds" => wanted.extent.time = Duration::from_secs(number(next()?)?),
            "--seed" => wanted.seed = number(next()?)?,
            "--jobs" => wanted.jobs = number(next()?)? as usize,
            "--from" => wanted.from = Some(next()?.to_owned()),
            "--only" => wanted.only.push(next()?.to_owned()),
            "--n" => {
                let text = next()?;
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                wanted.instructions = Some((number(first)? as u32, number(last)? as u32));
            }
            _ => return Err(format!("{word:?} is no option of kill-grid")),
        }
    }
    if wanted.instructions.is_some() && wanted.only.len() != 1 {
        return Err("--n wants one --only OPERATION".to_owned());
    }
    Ok(wanted)
}

/// The name of an operation, without spaces.
fn name(family: &dyn Family, act: &ActInfo, is_recovery: bool) -> String {
    let prefix = if is_recovery { "recover/" } else { "" };
    format!("{prefix}{}/{}", family.name(), act.name).replace(' ', "-")
}

/// Every operation there is: each act, and the repair of a death in it.
fn operations(families: &[Box<dyn Family>]) -> Vec<Operation> {
    let mut operations = Vec::new();
    for is_recovery in [false, true] {
        for (family, subject) in families.iter().enumerate() {
            for (act, info) in subject.acts().iter().enumerate() {
                if is_recovery && (info.starts.is_some() || info.has_children) {
                    continue;
                }
                let name = name(&**subject, info, is_recovery);
                operations.push(Operation { name, family, act, is_recovery });
            }
        }
    }
    operations
}

/// Runs the grid.
pub fn main(words: &[&str]) -> Result<ExitCode, String> {
    let Wanted { extent, seed, only, from, instructions, jobs, until_fault } = wanted(words)?;
    let families = crate::subjects::all();
    let mut operations = operations(&families);
    if !only.is_empty() {
        let is_within = |operation: &Operation, name: &String| {
            operation.name.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if let Some(name) = only.iter().find(|name| !operations.iter().any(|operation| is_within(operation, name))) {
            return Err(format!("there is no operation {name:?}"));
        }
        operations.retain(|operation| only.iter().any(|name| is_within(operation, name)));
    }
    if let Some(name) = from {
        let Some(first) = operations.iter().position(|operation| operation.name == name) else {
            return Err(format!("there is no operation {name:?}"));
        };
        operations.drain(..first);
    }
    assert!(operations.len() <= OPERATIONS && families.len() <= FAMILIES, "the board is too small");
    println!("kill-grid: {} operations, seed {seed}", operations.len());
    let prefix = format!("torture-{:07}-", std::process::id());
    let janitor = Janitor::start(&prefix);
    let start = Instant::now();
    let jobs = jobs.clamp(1, SHARDS).min(operations.len());
    let board = board();
    let only = instructions;
    let jobs = jobs as u32;
    let grid = Grid { families, operations, extent, seed, jobs, only, until_fault, board, prefix, start };
    supervise(&grid, jobs as usize);
    janitor.finish();
    Ok(close(&grid, start.elapsed()))
}

/// Prints and counts a fault of operation `index`.
fn report(grid: &Grid, index: usize, fault: &Fault, (count, seed): (u32, u64), how: &str, most: u32) {
    let wrongs = &grid.board.tallies[index].wrongs;
    let before: u32 = wrongs.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    let kind = WRONGS.iter().position(|&(wrong, _)| wrong == fault.wrong).unwrap_or(0);
    wrongs[kind].fetch_add(1, Ordering::Relaxed);
    if before < most {
        let name = &grid.operations[index].name;
        println!(
            "FAULT {:?}: {how}: {}\n      cargo xtask kill-grid --only {name} --n {count} --seed {seed}",
            fault.wrong, fault.what
        );
    }
}

/// How often a long grid says how far it is.
const TELL: Duration = Duration::from_secs(30);

/// How often a shard may end in the same run.
const MOST_ENDS: u32 = 3;

struct Watched {
    pid: Pid,
    beat: u64,
    since: Instant,
    /// How often it has ended, and in which run of which task.
    ends: u32,
    ended_at: (u32, u32),
}

fn launch(grid: &Grid, index: usize, resume: Option<(u32, u32)>) -> Watched {
    let pid = crate::step::forked(|| {
        let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
        let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
        shard::live(grid, index, resume);
        0
    });
    let _ = setpgid(pid, pid);
    let beat = grid.board.shards[index].beat.load(Ordering::Relaxed);
    Watched { pid, beat, since: Instant::now(), ends: 0, ended_at: (0, 0) }
}

/// Runs `jobs` shards to their end.
fn supervise(grid: &Grid, jobs: usize) {
    let mut told = Instant::now();
    let mut shards: Vec<Option<Watched>> = (0..jobs).map(|index| Some(launch(grid, index, None))).collect();
    while shards.iter().any(Option::is_some) {
        std::thread::sleep(Duration::from_millis(50));
        if grid.extent.passes == 1 && told.elapsed() > TELL {
            told = Instant::now();
            let tallies = &grid.board.tallies[..grid.operations.len()];
            let printed = tallies.iter().filter(|tally| tally.is_printed.load(Ordering::Relaxed) == 1).count();
            let kills: u64 = tallies.iter().map(|tally| tally.kills.load(Ordering::Relaxed)).sum();
            let seconds = grid.start.elapsed().as_secs();
            eprintln!("kill-grid: {printed} of {} operations, {kills} kills, {seconds} s", tallies.len());
        }
        for (index, shard) in shards.iter_mut().enumerate() {
            let Some(watched) = shard else { continue };
            let progress = &grid.board.shards[index];
            let beat = progress.beat.load(Ordering::Relaxed);
            if beat != watched.beat {
                (watched.beat, watched.since) = (beat, Instant::now());
            }
            let fault = match waitpid(watched.pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) if watched.since.elapsed() < 3 * PATIENCE => continue,
                Ok(WaitStatus::StillAlive) => {
                    let _ = killpg(watched.pid, Signal::SIGKILL);
                    let _ = waitpid(watched.pid, None);
                    Fault { wrong: Wrong::Hang, what: "the harness, a survivor, hangs".to_owned() }
                }
                Ok(WaitStatus::Exited(_, 0)) => {
                    *shard = None;
                    continue;
                }
                other => {
                    let _ = killpg(watched.pid, Signal::SIGKILL);
                    Fault { wrong: Wrong::Corrupt, what: format!("the harness, a survivor, ended: {other:?}") }
                }
            };
            let (task, run) = (progress.task.load(Ordering::Relaxed), progress.run.load(Ordering::Relaxed));
            let place = (progress.count.load(Ordering::Relaxed), progress.seed.load(Ordering::Relaxed));
            let operation = grid.of_task(task as usize).0;
            report(grid, operation, &fault, place, &format!("in run {run}"), u32::MAX);
            // Where it ends in the same run again and again, it does not come past that.
            let ends = if watched.ended_at == (task, run) { watched.ends + 1 } else { 1 };
            *shard = (ends < MOST_ENDS).then(|| Watched {
                ends,
                ended_at: (task, run),
                ..launch(grid, index, Some((task, run)))
            });
        }
    }
}

fn close(grid: &Grid, took: Duration) -> ExitCode {
    let tallies = &grid.board.tallies[..grid.operations.len()];
    let kills: u64 = tallies.iter().map(|tally| tally.kills.load(Ordering::Relaxed)).sum();
    let wrong = |kind: usize| -> u32 { tallies.iter().map(|tally| tally.wrongs[kind].load(Ordering::Relaxed)).sum() };
    let counts: Vec<String> =
        WRONGS.iter().enumerate().map(|(kind, &(_, name))| format!("{} {name}", wrong(kind))).collect();
    (0..tallies.len()).for_each(|index| grid.print(index));
    let reached = tallies.iter().filter(|tally| tally.kills.load(Ordering::Relaxed) > 0).count();
    let longest = tallies.iter().map(|tally| tally.longest.load(Ordering::Relaxed)).max().unwrap_or(0);
    println!("kill-grid: no survivor took longer than {longest} ms, {} are allowed", BOUND.as_millis());
    if reached < tallies.len() {
        println!("kill-grid: only {reached} of {} operations were reached", tallies.len());
    }
    let passes = grid.board.passes.load(Ordering::Relaxed);
    println!("kill-grid: seed {}, {passes} of {} passes, {:.0} s", grid.seed, grid.extent.passes, took.as_secs_f64());
    println!("kill-grid: {reached} operations, {kills} kills, {}", counts.join(", "));
    if reached == tallies.len() && (0..WRONGS.len()).all(|kind| wrong(kind) == 0) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
