//! Runs the contestants of a figure in turn, again and again, each time in new processes.

use crate::Result;
use crate::contest::{Amount, Contestant, Figure};
use crate::drivers::latencies;
use crate::stage::{self, Stage};
use hdrhistogram::Histogram;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A measurement that takes longer has hung.
const LONGEST: Duration = Duration::from_secs(90);

/// How thoroughly to measure.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Times that all contestants of a figure run, one after the other.
    pub rounds: usize,
    /// What each of these runs should take.
    pub duration: Duration,
    /// The most operations of one run.
    pub most: u64,
}

impl Effort {
    /// What `--smoke` does: each contestant once, to see whether it works.
    pub const SMOKE: Effort = Effort { rounds: 1, duration: Duration::from_millis(1), most: 1000 };
    /// What `--quick` does.
    pub const QUICK: Effort = Effort { rounds: 10, duration: Duration::from_millis(12), most: 2_000_000 };
    /// What is done otherwise.
    pub const FULL: Effort = Effort { rounds: 15, duration: Duration::from_millis(100), most: 20_000_000 };
}

/// What a contestant gave.
pub struct Samples {
    /// One value a round.
    pub values: Vec<f64>,
    /// Single latencies of all rounds, in nanoseconds, where the figure has them.
    pub latencies: Option<Histogram<u64>>,
    /// Why it has no values.
    pub failure: Option<String>,
}

impl Samples {
    /// None yet.
    pub fn new() -> Samples {
        Samples { values: Vec::new(), latencies: None, failure: None }
    }

    /// Takes all values away: who gave a wrong result once is not to be believed about the other times.
    pub fn fail(&mut self, why: String) {
        *self = Samples { failure: Some(why), ..Samples::new() };
    }
}

/// Starts this program again as one process of a contestant.
pub struct Launcher {
    /// Words before the harness's own: the subcommand of a program that has others, too.
    pub prefix: Vec<String>,
    /// Steps of the gap between two uses of a lock, from [`crate::limits::gap_steps`].
    pub gap: u64,
}

/// The process group of the measurement that runs, 0 between two: its processes, and those they start themselves.
static GROUP: AtomicI32 = AtomicI32::new(0);

/// Kills all that the measurement in hand has started. Async-signal-safe.
fn kill_group() {
    let group = GROUP.load(Ordering::SeqCst);
    if group > 0 {
        // SAFETY: no preconditions.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
}

/// Takes the measurement in hand along when the harness is told to end: it is in a group of its own, so the terminal does not
/// tell it.
pub fn end_with_the_measurement() {
    extern "C" fn ended(signal: i32) {
        kill_group();
        // SAFETY: both calls may be made in a handler; the default action ends this process.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let handler: extern "C" fn(i32) = ended;
        // SAFETY: the handler makes async-signal-safe calls only.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// The first of the words that make a process a contestant's.
pub const STAGE: &str = "--stage";

static NUMBER: AtomicU64 = AtomicU64::new(0);

impl Launcher {
    /// Starts a process in a group, or in a new one of its own where there is none yet.
    fn start(&self, words: &[String], errors: &OwnedFd, group: Option<u32>) -> Result<Child> {
        let cpus: Vec<String> = stage::cpus().iter().map(usize::to_string).collect();
        Ok(Command::new(std::env::current_exe()?)
            .args(&self.prefix)
            .arg(STAGE)
            .args(words)
            .env("SHMKIT_BENCH_CPUS", cpus.join(","))
            .env(crate::limits::GAP, self.gap.to_string())
            .process_group(group.map_or(0, |group| group as i32))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors.try_clone()?)
            .spawn()?)
    }

    /// One measurement of `n` operations.
    fn measure(
        &self,
        figure: &Figure,
        contestant: &Contestant,
        n: u64,
    ) -> std::result::Result<(f64, Vec<(u64, u64)>), String> {
        let text = |error: crate::Error| error.to_string();
        let memory = stage::memory().map_err(text)?;
        let name = format!("bench-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let roles = contestant.processes;
        let stage = Stage::attach(memory.as_raw_fd(), roles, roles, n, name.clone()).map_err(text)?;
        let mut errors = tempfile().map_err(text)?;
        let log: OwnedFd = errors.try_clone().map_err(|error| error.to_string())?.into();
        let mut children = Vec::new();
        let mut group = None;
        for role in 0..roles {
            let words = [
                figure.name.clone(),
                contestant.label.to_owned(),
                memory.as_raw_fd().to_string(),
                role.to_string(),
                n.to_string(),
                name.clone(),
            ];
            match self.start(&words, &log, group) {
                Ok(child) => {
                    if group.is_none() {
                        GROUP.store(child.id() as i32, Ordering::SeqCst);
                    }
                    group.get_or_insert(child.id());
                    children.push(child);
                }
                Err(error) => stage.fail(&error.to_string()),
            }
        }
        let start = Instant::now();
        let mut failed = false;
        let mut pause = Duration::from_micros(200);
        while !children.is_empty() {
            children.retain_mut(|child| match child.try_wait() {
                Ok(None) => true,
                Ok(Some(status)) => {
                    if !status.success() {
                        failed = true;
                        stage.fail(&format!("a process of it ended with {status}"));
                    }
                    false
                }
                Err(_) => false,
            });
            let late = start.elapsed() > LONGEST;
            // Who is left once another one has failed finds out at the next barrier; who waits in a call does not.
            if late || failed && start.elapsed() > Duration::from_secs(2) {
                stage.fail("it hung");
                kill_group();
                for child in &mut children {
                    let _ = child.wait();
                }
                children.clear();
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(2));
        }
        let outcome = stage.outcome();
        if outcome.is_err() {
            // Who failed may have left processes of its own behind.
            kill_group();
        }
        GROUP.store(0, Ordering::SeqCst);
        clean_up(&name);
        outcome.map_err(|why| {
            let mut said = String::new();
            let _ = errors.seek(SeekFrom::Start(0)).and_then(|_| errors.read_to_string(&mut said));
            match said.lines().rfind(|line| !line.trim().is_empty()) {
                Some(line) if !why.contains(line) => format!("{why} ({line})"),
                _ => why,
            }
        })
    }

    /// All contestants of a figure: A B C, A B C, … in new processes each time.
    pub fn run(&self, figure: &Figure, effort: Effort, mut progress: impl FnMut(&str)) -> Vec<Samples> {
        let mut samples: Vec<Samples> = figure.contestants.iter().map(|_| Samples::new()).collect();
        let mut amounts = vec![0; samples.len()];
        for (place, contestant) in figure.contestants.iter().enumerate() {
            progress(contestant.label);
            amounts[place] = match contestant.amount {
                // To see whether it works a few are enough.
                Amount::Fixed(operations) => operations.min(effort.most),
                Amount::Fitting => match self.fitting(figure, contestant, effort) {
                    Ok(amount) => amount,
                    Err(why) => {
                        samples[place].fail(why);
                        0
                    }
                },
            };
        }
        for round in 0..effort.rounds {
            for (place, contestant) in figure.contestants.iter().enumerate() {
                if samples[place].failure.is_some() {
                    continue;
                }
                progress(&format!("{} {}/{}", contestant.label, round + 1, effort.rounds));
                match self.measure(figure, contestant, amounts[place]) {
                    Ok((value, pairs)) => {
                        samples[place].values.push(value);
                        if !pairs.is_empty() {
                            let all = samples[place].latencies.get_or_insert_with(latencies);
                            for (latency, count) in pairs {
                                let _ = all.record_n(latency, count);
                            }
                        }
                    }
                    Err(why) => samples[place].fail(why),
                }
            }
        }
        samples
    }

    /// How many operations take about as long as they should: two trials, since the first one is short and cold.
    fn fitting(&self, figure: &Figure, contestant: &Contestant, effort: Effort) -> std::result::Result<u64, String> {
        let mut amount = 64;
        for _ in 0..2 {
            let (value, _) = self.measure(figure, contestant, amount)?;
            let each = figure.unit.nanoseconds(value).max(0.1);
            let most = (effort.duration.as_nanos() as f64 / each) as u64;
            // The first trial's estimate may be far off, upwards above all.
            amount = most.clamp(16, effort.most);
        }
        // A multiple of what four processes and batches need.
        Ok(amount.next_multiple_of(64))
    }
}

/// A file for what children say on stderr.
fn tempfile() -> Result<std::fs::File> {
    let path =
        std::env::temp_dir().join(format!("shmkit-bench-{}-{}", std::process::id(), NUMBER.load(Ordering::Relaxed)));
    let mut file = std::fs::File::options().read(true).append(true).create_new(true).open(&path)?;
    file.flush()?;
    std::fs::remove_file(path)?;
    Ok(file)
}

/// Takes away what a contestant that was killed, or one that never cleans up, has left under the measurement's name.
fn clean_up(name: &str) {
    for directory in ["/dev/shm", "/tmp"] {
        let Ok(entries) = std::fs::read_dir(directory) else { continue };
        for entry in entries.flatten() {
            let found = entry.file_name();
            // A name ends where the next character is no digit: bench-7-1 is not bench-7-12.
            let mine = found.to_str().and_then(|found| found.split_once(name));
            if mine.is_some_and(|(_, rest)| !rest.starts_with(|next: char| next.is_ascii_digit())) {
                // A directory, where a peer makes one.
                let path = entry.path();
                let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
            }
        }
    }
}
