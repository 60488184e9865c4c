//! What recovery takes: one death after another, counted from the moment in which the kernel has let go of the victim's
//! memory. Nobody else works meanwhile.
//!
//! | who dies | who waits | who notices |
//! |---|---|---|
//! | a child of a live launcher, with a lock | for the lock | the launcher, by the child's descriptor |
//! | a stranger, with a lock | for the lock | who waits, at the end of a slice of his sleep |
//! | a stranger, between setting an event and waking whoever waits for it | for the event | who waits, at the end of a longer slice |

use super::ledger::nanoseconds;
use crate::random::Random;
use crate::step::{Stop, Tracee, forked};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use shmkit::{Event, LockError, Mutex, Process, Queue, Segment};
use std::fmt;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write, pipe};
use std::path::Path;
use std::time::{Duration, Instant};

/// A row of measured times.
#[derive(Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// One more.
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    fn quantile(&self, part: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let index = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
        sorted.get(index).copied().unwrap_or_default()
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [half, most, all] = [0.5, 0.99, 1.0].map(|part| milliseconds(self.quantile(part)));
        write!(f, "n {:>5}  p50 {half:>8.2} ms  p99 {most:>8.2} ms  max {all:>8.2} ms", self.0.len())
    }
}

/// What the processes of a round have in common.
struct Place {
    segment: Segment,
    asks: Queue<u64>,
    answers: Queue<u64>,
    mutex: Mutex<u64>,
    held: Event,
    event: Event,
}

const END: u64 = 0;
const LOCK: u64 = 1;
const WAIT: u64 = 2;

impl Place {
    fn at(segment: Segment) -> shmkit::Result<Place> {
        Ok(Place {
            asks: segment.queue("asks").capacity(4).open_or_create()?,
            answers: segment.queue("answers").capacity(4).open_or_create()?,
            mutex: segment.mutex("mutex").open_or_create()?,
            held: segment.event("held").open_or_create()?,
            event: segment.event("event").open_or_create()?,
            segment,
        })
    }

    fn open(name: &str) -> shmkit::Result<Place> {
        Place::at(Segment::open(name)?)
    }

    /// Has the waiter wait, and gives it the time to fall asleep.
    fn ask(&self, what: u64, patience: Duration) -> shmkit::Result<()> {
        self.asks.put(what)?;
        self.answers.get()?;
        std::thread::sleep(patience);
        Ok(())
    }

    /// From the moment in which the kernel has let go of `pid` until the waiter goes on.
    fn time(&self, pid: u32) -> shmkit::Result<Duration> {
        let until = Instant::now() + Duration::from_secs(30);
        while self.segment.participants().contains(&pid) && Instant::now() < until {
            std::hint::spin_loop();
        }
        let released = nanoseconds();
        Ok(Duration::from_nanos(self.answers.get()?.saturating_sub(released)))
    }
}

/// Who waits, round after round.
fn waiter(name: String) -> shmkit::Result<()> {
    let place = Place::open(&name)?;
    loop {
        let what = place.asks.get()?;
        if what == END {
            return Ok(());
        }
        place.answers.put(0)?;
        if what == LOCK {
            let taken = place.mutex.lock();
            let time = nanoseconds();
            match taken {
                Ok(guard) => drop(guard),
                Err(LockError::Failed(error)) => return Err(error),
                Err(dead) => drop(dead.repair(|_| ())?),
            }
            place.answers.put(time)?;
        } else {
            place.event.wait()?;
            let time = nanoseconds();
            place.event.clear();
            place.answers.put(time)?;
        }
    }
}

/// Who dies with the lock.
fn holder(name: String) -> shmkit::Result<()> {
    let place = Place::open(&name)?;
    std::mem::forget(place.mutex.lock().map_err(shmkit::Error::from)?);
    place.held.set();
    loop {
        nix::unistd::pause();
    }
}

fn children(rounds: u32, name: &str) -> shmkit::Result<Times> {
    let place = Place::at(Segment::builder().max_size(1 << 20).max_participants(16).create(name)?)?;
    let waits = Process::new(waiter).args((name.to_owned(),)).daemon(true).start()?;
    let mut times = Times::default();
    for _ in 0..rounds {
        let child = Process::new(holder).args((name.to_owned(),)).daemon(true).start()?;
        place.held.wait()?;
        place.held.clear();
        place.ask(LOCK, Duration::from_millis(5))?;
        child.kill()?;
        times.add(place.time(child.pid())?);
        child.join()?;
    }
    place.asks.put(END)?;
    waits.join()?;
    Ok(times)
}

fn holders(rounds: u32, place: &Place, name: &str, random: &mut Random) -> shmkit::Result<Times> {
    let mut times = Times::default();
    for _ in 0..rounds {
        let victim = forked(|| i32::from(holder(name.to_owned()).is_err()));
        place.held.wait()?;
        place.held.clear();
        // Anywhere in the slices of its sleep.
        place.ask(LOCK, Duration::from_millis(5 + random.next() % 200))?;
        let _ = kill(victim, Signal::SIGKILL);
        times.add(place.time(victim.as_raw() as u32)?);
        let _ = waitpid(victim, None);
    }
    Ok(times)
}

/// Kills between the store that others see and the wake that follows: as the tracer sees it from outside.
fn publishers(rounds: u32, place: &Place, name: &str, random: &mut Random) -> shmkit::Result<Times> {
    let mut times = Times::default();
    for _ in 0..rounds {
        let mut victim = Tracee::fork(|| {
            let Ok(place) = Place::open(name) else { return 1 };
            crate::step::begin();
            place.event.set();
            crate::step::end();
            0
        });
        let until = Instant::now() + Duration::from_secs(30);
        if victim.run(until) != Stop::Begin {
            return Err(shmkit::Error::Other("the victim does not begin".to_owned()));
        }
        place.ask(WAIT, Duration::from_millis(5 + random.next() % 2500))?;
        while !place.event.is_set() && victim.step(until) == Stop::Step {}
        victim.kill();
        times.add(place.time(victim.pid())?);
    }
    Ok(times)
}

/// How long the kernel needs to let go of a process of so many MiB; `None` if it dumps no core.
fn release(place: &Place, name: &str, size: usize, dumps: bool, directory: &Path) -> shmkit::Result<Option<Duration>> {
    let victim = forked(|| {
        let Ok(_place) = Place::open(name) else { return 1 };
        if dumps {
            let is_allowed = setrlimit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY).is_ok();
            if !is_allowed || std::env::set_current_dir(directory).is_err() {
                return 1;
            }
        }
        let mut memory = vec![0u8; size << 20];
        for (number, page) in memory.chunks_mut(4096).enumerate() {
            page[0] = number as u8 | 1;
        }
        std::hint::black_box(&memory);
        _place.held.set();
        loop {
            nix::unistd::pause();
        }
    });
    place.held.wait_timeout(Duration::from_secs(20))?;
    place.held.clear();
    let start = Instant::now();
    let _ = kill(victim, if dumps { Signal::SIGQUIT } else { Signal::SIGKILL });
    let pid = victim.as_raw() as u32;
    while place.segment.participants().contains(&pid) && start.elapsed() < Duration::from_secs(60) {
        std::hint::spin_loop();
    }
    let took = start.elapsed();
    let status = waitpid(victim, None);
    let did_dump = matches!(status, Ok(nix::sys::wait::WaitStatus::Signaled(_, _, true)));
    Ok((did_dump == dumps).then_some(took))
}

fn curve(place: &Place, name: &str, out: &mut PipeWriter) -> shmkit::Result<()> {
    let directory = std::env::temp_dir().join(name);
    let _ = std::fs::create_dir(&directory);
    for dumps in [false, true] {
        for size in [1, 16, 64, 256, 1024, 2048] {
            let mut times = Times::default();
            for _ in 0..if dumps { 2 } else { 10 } {
                times.0.extend(release(place, name, size, dumps, &directory)?);
                for core in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
                    let _ = std::fs::remove_file(core.path());
                }
            }
            let core = if dumps { "with a core dump" } else { "killed" };
            let _ = match times.0.is_empty() {
                true => writeln!(out, "release of {size:>5} MiB, {core:16}: none"),
                false => writeln!(out, "release of {size:>5} MiB, {core:16}: {times}"),
            };
        }
    }
    let _ = std::fs::remove_dir_all(&directory);
    Ok(())
}

/// The process that measures the deaths of strangers: it must have one thread, and so is forked before the director has more.
#[derive(Debug)]
pub struct Strangers {
    pid: Pid,
    go: PipeWriter,
    said: PipeReader,
}

/// Forks it. It begins when it is asked to report.
pub fn strangers(rounds: u32, prefix: &str, seed: u64) -> Strangers {
    let (go_reader, go) = pipe().expect("a pipe");
    let (said, mut out) = pipe().expect("a pipe");
    let name = format!("{prefix}strangers");
    let pid = forked(|| {
        let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
        let mut line = String::new();
        if !BufReader::new(&go_reader).read_line(&mut line).is_ok_and(|len| len > 0) {
            return 0;
        }
        let mut random = Random::new(seed);
        let mut measure = |out: &mut PipeWriter| -> shmkit::Result<()> {
            let waits = forked(|| {
                let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
                // Until there is a segment.
                while Segment::open(&name).is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                i32::from(waiter(name.clone()).is_err())
            });
            let place = Place::at(Segment::builder().max_size(1 << 20).max_participants(16).create(&name)?)?;
            let times = holders(rounds, &place, &name, &mut random)?;
            let _ =
                writeln!(out, "a stranger with a lock, who waits goes on after:         {}", line_of(&times, 150.0));
            let times = publishers(rounds.div_ceil(8), &place, &name, &mut random)?;
            let _ =
                writeln!(out, "a stranger between publish and wake, who waits goes on:  {}", line_of(&times, 1100.0));
            curve(&place, &name, out)?;
            place.asks.put(END)?;
            let _ = waitpid(waits, None);
            Ok(())
        };
        if let Err(error) = measure(&mut out) {
            let _ = writeln!(out, "FAULT {error}");
        }
        0
    });
    Strangers { pid, go, said }
}

/// The times, and whether they are what is wanted.
fn line_of(times: &Times, wanted: f64) -> String {
    let is_so = milliseconds(times.quantile(0.99)) < wanted;
    format!("{times}   wanted < {wanted} ms: {}", if is_so { "holds" } else { "DOES NOT HOLD" })
}

/// Measures, and prints.
pub fn report(strangers: Strangers, rounds: u32, prefix: &str) {
    match children(rounds, &format!("{prefix}children")) {
        Ok(times) => {
            println!("soak: a launcher's child with a lock, who waits goes on after: {}", line_of(&times, 5.0));
        }
        Err(error) => println!("FAULT {error}"),
    }
    let Strangers { pid, mut go, said } = strangers;
    let _ = go.write_all(b"go\n");
    for line in BufReader::new(said).lines().map_while(Result::ok) {
        println!("soak: {line}");
    }
    let _ = waitpid(pid, None);
}
