//! `kill-grid`: every operation, killed after every one of its instructions.
//!
//! * `plan`: which runs there are. `run`: one of them. `helper`: the second survivor. `raw`: what only bytes tell.
//! * `shard`: a process that does them, one on each CPU.
//! * here: the command line, the supervision of the shards, the closing line.
//!
//! A harness that hangs is itself a finding: the supervisor, which touches no segment, notices that a shard makes no
//! progress, kills it with everybody it has forked, counts a hang, and starts another that goes on behind that run.

mod helper;
mod plan;
mod raw;
mod run;
mod shard;

use crate::board::{Board, OPERATIONS, SHARDS, board};
use crate::operation::{Fault, WRONGS, Wrong};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, setpgid};
use plan::Extent;
use run::{Operation, PATIENCE};
use shard::Grid;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What the command line asks for.
struct Wanted {
    extent: Extent,
    seed: u64,
    only: Option<String>,
    jobs: usize,
}

fn wanted(words: &[&str]) -> Result<Wanted, String> {
    let seed =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut wanted = Wanted { extent: Extent::QUICK, seed: seed % 1_000_000, only: None, jobs };
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        let mut number = || words.next().and_then(|text| text.parse().ok()).ok_or(format!("{word} wants a number"));
        match word {
            "--quick" => wanted.extent = Extent::QUICK,
            "--full" => wanted.extent = Extent::FULL,
            "--seed" => wanted.seed = number()?,
            "--jobs" => wanted.jobs = number()? as usize,
            "--only" => wanted.only = Some((*words.next().ok_or("--only wants OP[:n[-m][:seed]]")?).to_owned()),
            _ => return Err(format!("{word:?} is no option of kill-grid")),
        }
    }
    Ok(wanted)
}

/// Every operation there is: each act, and the repair of a death in it.
fn operations(families: &[Box<dyn crate::operation::Family>]) -> Vec<Operation> {
    let mut operations = Vec::new();
    for is_recovery in [false, true] {
        for (family, subject) in families.iter().enumerate() {
            for (act, info) in subject.acts().iter().enumerate() {
                let prefix = if is_recovery { "recover/" } else { "" };
                let name = format!("{prefix}{}/{}", subject.name(), info.name);
                operations.push(Operation { name, family, act, is_recovery });
            }
        }
    }
    operations
}

/// Runs the grid.
pub fn main(words: &[&str]) -> Result<ExitCode, String> {
    let Wanted { extent, mut seed, only, jobs } = wanted(words)?;
    let families = crate::subjects::all();
    let mut operations = operations(&families);
    let mut count = None;
    if let Some(only) = only {
        let mut parts = only.splitn(3, ':');
        let name = parts.next().unwrap_or_default();
        if let Some(text) = parts.next() {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no instruction"));
            count = Some((number(first)?, number(last)?));
        }
        if let Some(text) = parts.next() {
            seed = text.parse().map_err(|_| format!("{text:?} is no seed"))?;
        }
        let within = |operation: &Operation| operation.name == name || operation.name.starts_with(&format!("{name}/"));
        operations.retain(within);
        if operations.is_empty() {
            return Err(format!("there is no operation {name:?}"));
        }
    }
    assert!(operations.len() <= OPERATIONS, "the board is too small");
    println!("kill-grid: {} operations, seed {seed}", operations.len());
    let prefix = format!("torture-{:07}-", std::process::id());
    let grid = Grid { families, operations, extent, seed, only: count, board: board(), prefix };
    let start = Instant::now();
    supervise(&grid, jobs.clamp(1, SHARDS).min(grid.operations.len()));
    clean(&grid.prefix);
    Ok(close(&grid, start.elapsed()))
}

/// Prints and counts a fault of operation `index`.
fn report(board: &Board, index: usize, fault: &Fault, only: &str, how: &str, most: u32) {
    let wrongs = &board.tallies[index].wrongs;
    let before: u32 = wrongs.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    let kind = WRONGS.iter().position(|&(wrong, _)| wrong == fault.wrong).unwrap_or(0);
    wrongs[kind].fetch_add(1, Ordering::Relaxed);
    if before < most {
        println!("FAULT {:?}: {}: {}\n      cargo xtask kill-grid --only {only}", fault.wrong, how, fault.what);
    }
}

struct Watched {
    pid: Pid,
    beat: u64,
    since: Instant,
}

fn launch(grid: &Grid, index: usize, resume: Option<(u32, u32)>) -> Watched {
    let pid = crate::step::forked(|| {
        let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
        let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
        shard::live(grid, index, resume);
        0
    });
    let _ = setpgid(pid, pid);
    Watched { pid, beat: grid.board.shards[index].beat.load(Ordering::Relaxed), since: Instant::now() }
}

/// Runs `jobs` shards to their end.
fn supervise(grid: &Grid, jobs: usize) {
    let mut shards: Vec<Option<Watched>> = (0..jobs).map(|index| Some(launch(grid, index, None))).collect();
    while shards.iter().any(Option::is_some) {
        std::thread::sleep(Duration::from_millis(50));
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
            let (operation, run) = (progress.operation.load(Ordering::Relaxed), progress.run.load(Ordering::Relaxed));
            let (count, seed) = (progress.count.load(Ordering::Relaxed), progress.seed.load(Ordering::Relaxed));
            let only = format!("{}:{count}:{seed}", grid.operations[operation as usize].name);
            report(grid.board, operation as usize, &fault, &only, &format!("in run {run}"), u32::MAX);
            *shard = Some(launch(grid, index, Some((operation, run))));
        }
    }
}

/// Takes away what killed shards have left.
fn clean(prefix: &str) {
    let Ok(directory) = std::fs::read_dir("/dev/shm") else { return };
    for entry in directory.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&format!("shmkit.{prefix}")) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn close(grid: &Grid, took: Duration) -> ExitCode {
    let tallies = &grid.board.tallies[..grid.operations.len()];
    let kills: u64 = tallies.iter().map(|tally| tally.kills.load(Ordering::Relaxed)).sum();
    let wrong = |kind: usize| -> u32 { tallies.iter().map(|tally| tally.wrongs[kind].load(Ordering::Relaxed)).sum() };
    let counts: Vec<String> =
        WRONGS.iter().enumerate().map(|(kind, &(_, name))| format!("{} {name}", wrong(kind))).collect();
    println!("kill-grid: seed {}, {:.0} s", grid.seed, took.as_secs_f64());
    println!("kill-grid: {} operations, {kills} kills, {}", tallies.len(), counts.join(", "));
    if (0..WRONGS.len()).all(|kind| wrong(kind) == 0) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
