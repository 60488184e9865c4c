//! What recovery takes: one death after another, counted from the moment in which the kernel has let go of the victim's
//! memory. Nobody else works meanwhile, but that strangers die in a few crews at once, each in a segment of its own: most of the
//! time they wait for the victim's hour.
//!
//! | who dies | who waits | who notices |
//! |---|---|---|
//! | a child of a live launcher, with a lock | for the lock | the launcher, by the child's descriptor |
//! | a stranger, with a lock | for the lock | who waits, at the end of a slice of his sleep |
//! | a stranger, between setting an event and waking whoever waits for it | for the event | who waits, at the end of a longer slice |
//!
//! A target that is missed, like anything that fails, makes the soak fail. Where the machine had other things to do, it measured
//! those: then a missed target is told and not counted.

use super::ledger::nanoseconds;
use crate::random::{Random, mix};
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

    /// Whether 99 of 100 took less than so many milliseconds.
    pub fn is_within(&self, wanted: f64) -> bool {
        !self.0.is_empty() && milliseconds(self.quantile(0.99)) < wanted
    }

    /// This row, and whether it is what is wanted. What is missed does not count where the machine had other things to do: less than
    /// half of its time was `idle`.
    fn judge(&self, wanted: f64, idle: f64) -> (String, bool) {
        let counts = idle >= 0.5;
        let said = match (self.is_within(wanted), counts) {
            (true, _) => "holds".to_owned(),
            (false, true) => "DOES NOT HOLD".to_owned(),
            (false, false) => format!("does not hold; not counted, with {:.0} % of the CPUs' time free", idle * 100.0),
        };
        (format!("{self}   wanted p99 < {wanted} ms: {said}"), self.is_within(wanted) || !counts)
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

/// The part of the CPUs' time that was free since then.
#[derive(Debug)]
struct Idle {
    free: u64,
    all: u64,
}

impl Idle {
    /// From now on.
    fn start() -> Idle {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = stat.lines().next().unwrap_or_default();
        let times: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        // Idle, and idle because a disk is waited for.
        Idle { free: times.iter().skip(3).take(2).sum(), all: times.iter().take(8).sum() }
    }

    /// 0 to 1; where the system says nothing, 1.
    fn part(&self) -> f64 {
        let now = Idle::start();
        let all = now.all.saturating_sub(self.all);
        if all == 0 { 1.0 } else { now.free.saturating_sub(self.free) as f64 / all as f64 }
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

/// Crews that measure at once.
const CREWS: u32 = 8;

/// Measures a row of deaths of one kind in a segment.
type Row = fn(u32, &Place, &str, &mut Random) -> shmkit::Result<Times>;

/// A row that several crews share.
fn by_crews(rounds: u32, name: &str, seed: u64, row: Row) -> shmkit::Result<Times> {
    let (reader, writer) = pipe()?;
    let crew = |number: u32| {
        let (name, rounds) = (format!("{name}{number}"), rounds.div_ceil(CREWS));
        let mut out = &writer;
        forked(|| {
            let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            let said = match crew(rounds, &name, row, &mut Random::new(mix(&[seed, u64::from(number)]))) {
                Ok(times) => times.0.iter().map(|time| format!("{}\n", time.as_nanos())).collect(),
                Err(error) => format!("{error}\n"),
            };
            i32::from(out.write_all(said.as_bytes()).is_err())
        })
    };
    let crews: Vec<Pid> = (0..CREWS).map(crew).collect();
    drop(writer);
    let mut times = Times::default();
    for line in BufReader::new(reader).lines() {
        let line = line?;
        times.add(Duration::from_nanos(line.parse().map_err(|_| shmkit::Error::Other(line))?));
    }
    for crew in crews {
        let _ = waitpid(crew, None);
    }
    if times.0.len() < rounds as usize {
        return Err(shmkit::Error::Other(format!("{} deaths of {rounds} were measured", times.0.len())));
    }
    Ok(times)
}

fn crew(rounds: u32, name: &str, row: Row, random: &mut Random) -> shmkit::Result<Times> {
    let waits = forked(|| {
        let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
        // Until there is a segment.
        while Segment::open(name).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
        i32::from(waiter(name.to_owned()).is_err())
    });
    let place = Place::at(Segment::builder().max_size(1 << 20).max_participants(16).create(name)?)?;
    let times = row(rounds, &place, name, random)?;
    place.asks.put(END)?;
    let _ = waitpid(waits, None);
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
        let measure = |out: &mut PipeWriter| -> shmkit::Result<bool> {
            let rows: [(&str, &str, f64, Row); 2] = [
                ("with a lock, who waits goes on after:         ", "holders", 150.0, holders),
                ("between publish and wake, who waits goes on:  ", "publishers", 1100.0, publishers),
            ];
            let mut is_well = true;
            for (what, kind, wanted, row) in rows {
                let idle = Idle::start();
                let times = by_crews(rounds, &format!("{name}-{kind}-"), mix(&[seed, wanted as u64]), row)?;
                let (line, holds) = times.judge(wanted, idle.part());
                is_well &= holds;
                writeln!(out, "a stranger {what}{line}")?;
            }
            let place = Place::at(Segment::builder().max_size(1 << 20).max_participants(16).create(&name)?)?;
            curve(&place, &name, out)?;
            Ok(is_well)
        };
        match measure(&mut out) {
            Ok(is_well) => i32::from(!is_well),
            Err(error) => {
                let _ = writeln!(out, "FAULT {error}");
                1
            }
        }
    });
    Strangers { pid, go, said }
}

/// Measures, and prints; whether all went well and is as fast as wanted.
pub fn report(strangers: Strangers, rounds: u32, prefix: &str) -> bool {
    let idle = Idle::start();
    let is_well = match children(rounds, &format!("{prefix}children")) {
        Ok(times) => {
            let (line, holds) = times.judge(5.0, idle.part());
            println!("soak: a launcher's child with a lock, who waits goes on after: {line}");
            holds
        }
        Err(error) => {
            println!("FAULT {error}");
            false
        }
    };
    let Strangers { pid, mut go, said } = strangers;
    let _ = go.write_all(b"go\n");
    for line in BufReader::new(said).lines().map_while(Result::ok) {
        println!("soak: {line}");
    }
    is_well & matches!(waitpid(pid, None), Ok(nix::sys::wait::WaitStatus::Exited(_, 0)))
}
