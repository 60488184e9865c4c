//! `soak`: a dozen processes at random work on every kind of object, killed, stopped and started at random.
//!
//! * `objects`, `operations`: what is done, and what each checks. `worker`: one who does it. `ledger`: what is known of everybody.
//! * `nursery`: forks those who are not the launcher's children. `measure`: how long recovery takes, one death after another.
//! * `tasks`: a pool of the director's, whose workers are killed as well.
//! * here: the director, who is the launcher of the others, kills and stops them, and looks at what is left.
//!
//! ```text
//! director ── launches ── workers: children of a live launcher
//!     └── nursery ── forks ── workers: strangers; each forks for a while, executes its program anew, leaves and comes back
//! ```
//! Whatever is wrong makes it fail, and so does a time that is longer than wanted (see `measure`).
//!
//! A message must be received exactly once, or again and flagged; those a killed receiver may have taken without having said so
//! are counted.

mod ledger;
mod measure;
mod nursery;
mod objects;
mod operations;
mod tasks;
mod worker;

use crate::grid::raw;
use crate::janitor::Janitor;
use crate::operation::Check;
use crate::random::Random;
use ledger::{Ledger, SEATS, now};
use measure::Times;
use nursery::Nursery;
use objects::Objects;
use operations::NAMES;
use shmkit::{Process, Segment};
use std::collections::HashMap;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tasks::Tasks;

/// The command of who goes on after executing the program anew.
pub const AGAIN: &str = "soak-again";
/// Who has not been seen for so long, and is not stopped, hangs.
const HANGS: u64 = 15_000;

struct Wanted {
    minutes: f64,
    seed: u64,
    workers: usize,
    rounds: u32,
}

fn wanted(words: &[&str]) -> Result<Wanted, String> {
    let mut wanted = Wanted { minutes: 1.0, seed: ledger::nanoseconds() % 1_000_000, workers: 12, rounds: 400 };
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        let text = words.next().copied().ok_or(format!("{word} wants a number"))?;
        let number = text.parse::<f64>().map_err(|_| format!("{word}: {text:?} is no number"))?;
        match word {
            "--minutes" => wanted.minutes = number,
            "--seed" => wanted.seed = number as u64,
            "--workers" => wanted.workers = (number as usize).clamp(2, SEATS / 2),
            "--rounds" => wanted.rounds = number as u32,
            _ => return Err(format!("{word:?} is no option of soak")),
        }
    }
    Ok(wanted)
}

/// Who goes on after executing the program anew.
pub fn again(words: &[&str]) -> Result<ExitCode, String> {
    let number = |index: usize| words.get(index).and_then(|text| text.parse().ok()).ok_or("who executes it knows why");
    worker::go_on(number(0)? as usize, number(1)?);
    Ok(ExitCode::SUCCESS)
}

/// Runs the soak.
pub fn main(words: &[&str]) -> Result<ExitCode, String> {
    let Wanted { minutes, seed, workers, rounds } = wanted(words)?;
    println!("soak: {workers} processes, {minutes} minutes, seed {seed}");
    let prefix = format!("torture-{:07}-", std::process::id());
    let janitor = Janitor::start(&prefix);
    let (ledger, path) = Ledger::create();
    let name = format!("{prefix}soak");
    // SAFETY: this process has one thread.
    unsafe {
        std::env::set_var(worker::LEDGER, path);
        std::env::set_var(worker::SEGMENT, &name);
    }
    // Both before this process has more threads.
    let nursery = Nursery::fork();
    let strangers = measure::strangers(rounds, &prefix, seed);
    let soak = || -> Check<Soak> {
        let segment = Segment::builder().max_size(64 << 20).max_participants(SEATS as u32 + 4).create(&name)?;
        let mut soak = Soak::new(ledger, nursery, Objects::create(segment)?, Tasks::start()?, seed);
        soak.run(workers, Duration::from_secs_f64(minutes * 60.0))?;
        Ok(soak)
    };
    let outcome = soak();
    let mut is_well = true;
    match outcome {
        Ok(mut soak) => {
            let finished = soak.finish();
            soak.report();
            is_well &= finished.is_ok();
            if let Err(fault) = finished {
                println!("FAULT {:?}: {}", fault.wrong, fault.what);
            }
        }
        Err(fault) => {
            is_well = false;
            println!("FAULT {:?}: {}", fault.wrong, fault.what);
        }
    }
    let (faults, texts) = ledger.faults();
    texts.iter().for_each(|text| println!("FAULT {text}"));
    let is_timely = rounds == 0 || measure::report(strangers, rounds, &prefix);
    janitor.finish();
    println!(
        "soak: seed {seed}, {faults} faults of those at work, the rest {}, what was measured {}",
        if is_well { "sound" } else { "not" },
        if is_timely { "as wanted" } else { "not" }
    );
    Ok(if is_well && is_timely && faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Soak {
    ledger: &'static Ledger,
    nursery: Nursery,
    segment: Segment,
    objects: Option<Objects>,
    tasks: Tasks,
    random: Random,
    children: HashMap<u32, Process>,
    stopped: Vec<(usize, u32, u64)>,
    kills: u64,
    stops: u64,
    /// Messages that the dead may have taken.
    taken: u64,
    repairs: Times,
    /// While others were stopped.
    hindered: Times,
    took: Duration,
}

/// A process by a descriptor: nobody else's process can get its number meanwhile.
fn descriptor(pid: u32) -> Option<OwnedFd> {
    // SAFETY: the call takes two numbers; the result is checked.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    // SAFETY: a fresh descriptor that nobody else has.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn signal(process: &OwnedFd, signal: i32) -> bool {
    let fd = process.as_raw_fd();
    // SAFETY: a descriptor that is open, a number, no further information.
    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<libc::siginfo_t>(), 0) == 0 }
}

fn has_ended(process: &OwnedFd) -> bool {
    let mut poll = libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one initialised element.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 }
}

impl Soak {
    fn new(ledger: &'static Ledger, nursery: Nursery, objects: Objects, tasks: Tasks, seed: u64) -> Soak {
        Soak {
            ledger,
            nursery,
            segment: objects.segment.clone(),
            objects: Some(objects),
            tasks,
            random: Random::new(seed),
            children: HashMap::new(),
            stopped: Vec::new(),
            kills: 0,
            stops: 0,
            taken: 0,
            repairs: Times::default(),
            hindered: Times::default(),
            took: Duration::ZERO,
        }
    }

    /// Those at work: seat and process id.
    fn seated(&self) -> Vec<(usize, u32)> {
        let pid = |index: usize| self.ledger.seats[index].pid.load(Ordering::SeqCst);
        (0..SEATS).map(|index| (index, pid(index))).filter(|&(_, pid)| pid != 0).collect()
    }

    fn run(&mut self, workers: usize, time: Duration) -> Check {
        let start = Instant::now();
        let mut born = 0;
        let mut next_birth = Instant::now();
        while start.elapsed() < time && self.ledger.faults().0 < 10 {
            self.ledger.director.store(now(), Ordering::SeqCst);
            self.look()?;
            let seated = self.seated();
            if seated.len() < workers && Instant::now() >= next_birth {
                let seed = self.random.next();
                if born % 2 == 0 {
                    let child = Process::new(worker::live).args((seed,)).start()?;
                    self.children.insert(child.pid(), child);
                } else {
                    self.nursery.bear(seed);
                }
                born += 1;
                // It takes a moment until it sits.
                next_birth = Instant::now() + Duration::from_millis(3);
            }
            if seated.len() * 2 > workers {
                let (index, pid) = seated[self.random.next() as usize % seated.len()];
                if self.random.once_in(5) {
                    self.stop(index, pid);
                } else {
                    self.kill(index, pid);
                }
            }
            self.tasks.go_on(&mut self.random)?;
            self.let_on();
            std::thread::sleep(Duration::from_micros(500 + self.random.next() % 4000));
        }
        self.took = start.elapsed();
        Ok(())
    }

    /// Whoever has ended by another hand leaves his seat; whoever hangs is found.
    fn look(&mut self) -> Check {
        for (index, pid) in self.seated() {
            let seat = &self.ledger.seats[index];
            let is_gone = descriptor(pid).is_none_or(|process| has_ended(&process));
            if is_gone && seat.pid.load(Ordering::SeqCst) == pid {
                self.leave(index, pid);
                continue;
            }
            let is_stopped = self.stopped.iter().any(|&(_, stopped, _)| stopped == pid);
            let beat = seat.beat.load(Ordering::SeqCst);
            if !is_gone && !is_stopped && now() > beat + HANGS {
                let operation = NAMES.get(seat.operation.load(Ordering::SeqCst) as usize).unwrap_or(&"attach or leave");
                let place = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
                return crate::operation::hang(format!("{pid} in {operation}, at {place}"));
            }
        }
        self.children.retain(|_, child| child.is_alive());
        Ok(())
    }

    /// A seat is free; what its process may have taken is gone.
    fn leave(&mut self, index: usize, pid: u32) {
        let seat = &self.ledger.seats[index];
        self.taken += u64::from(seat.receiving.load(Ordering::SeqCst));
        let _ = seat.pid.compare_exchange(pid, 0, Ordering::SeqCst, Ordering::SeqCst);
    }

    fn kill(&mut self, index: usize, pid: u32) {
        let Some(process) = descriptor(pid) else { return };
        if self.ledger.seats[index].pid.load(Ordering::SeqCst) != pid || !signal(&process, libc::SIGKILL) {
            return;
        }
        self.kills += 1;
        while !has_ended(&process) {
            std::hint::spin_loop();
        }
        self.leave(index, pid);
        self.stopped.retain(|&(_, stopped, _)| stopped != pid);
        if self.children.contains_key(&pid) {
            self.await_repair(pid);
        }
    }

    /// Measures how long a child of this launcher is not repaired after the kernel has let go of its memory.
    fn await_repair(&mut self, pid: u32) {
        let is_left = |segment: &Segment| raw::slots_of(segment, pid).is_ok_and(|slots| slots > 0);
        if !is_left(&self.segment) {
            return;
        }
        let until = Instant::now() + Duration::from_secs(5);
        // Who holds the recovery lock may be among the stopped.
        let mut is_quiet = self.stopped.is_empty();
        while self.segment.participants().contains(&pid) && Instant::now() < until {
            self.let_on();
        }
        let start = Instant::now();
        while is_left(&self.segment) && Instant::now() < until {
            is_quiet &= self.stopped.is_empty();
            self.let_on();
        }
        let times = if is_quiet { &mut self.repairs } else { &mut self.hindered };
        times.add(start.elapsed());
    }

    fn stop(&mut self, index: usize, pid: u32) {
        let Some(process) = descriptor(pid) else { return };
        if self.ledger.seats[index].pid.load(Ordering::SeqCst) == pid && signal(&process, libc::SIGSTOP) {
            self.stops += 1;
            self.stopped.push((index, pid, now() + self.random.next() % 200));
        }
    }

    /// Lets those on whose time has come.
    fn let_on(&mut self) {
        let time = now();
        let ledger = self.ledger;
        self.stopped.retain(|&(index, pid, until)| {
            if time < until {
                return true;
            }
            // It has not been able to say that it lives.
            ledger.seats[index].beat.store(now(), Ordering::SeqCst);
            if let Some(process) = descriptor(pid) {
                signal(&process, libc::SIGCONT);
            }
            false
        });
    }

    /// Everybody ends, and everything must be there.
    fn finish(&mut self) -> Check {
        self.stopped.iter_mut().for_each(|stopped| stopped.2 = 0);
        self.let_on();
        self.ledger.quit.store(1, Ordering::SeqCst);
        self.tasks.finish()?;
        let until = Instant::now() + Duration::from_secs(20);
        while !self.seated().is_empty() && Instant::now() < until {
            self.ledger.director.store(now(), Ordering::SeqCst);
            self.look()?;
            std::thread::sleep(Duration::from_millis(2));
        }
        if let Some(&(index, pid)) = self.seated().first() {
            let operation = self.ledger.seats[index].operation.load(Ordering::SeqCst) as usize;
            let operation = NAMES.get(operation).unwrap_or(&"attach or leave");
            return crate::operation::hang(format!("{pid} does not come to its end, in {operation}"));
        }
        for child in std::mem::take(&mut self.children).into_values() {
            child.join_timeout(Duration::from_secs(10))?;
        }
        let segment = self.segment.clone();
        while segment.participants().len() > 1 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        segment.recover();
        if let Some(objects) = self.objects.take() {
            objects.audit(self.ledger)?;
        }
        segment.verify()?;
        if (raw::slots_in_use(&segment)?, segment.participants().len()) != (1, 1) {
            return crate::operation::leaked(format!(
                "{} participants after all have left",
                segment.participants().len()
            ));
        }
        let (_, _, missing) = self.ledger.messages();
        if missing.len() as u64 > self.taken {
            let some = &missing[..missing.len().min(5)];
            return crate::operation::lost(format!(
                "{} messages, {some:?}; the dead may have had {}",
                missing.len(),
                self.taken
            ));
        }
        for name in segment.objects().into_iter().filter_map(|object| object.name) {
            segment.remove(&name)?;
        }
        match segment.memory()?.0 {
            0 => Ok(()),
            left => crate::operation::leaked(format!("{left} bytes of the heap are in use when every object is gone")),
        }
    }

    fn report(&self) {
        let Ledger { operations, forks, execs, attaches, .. } = self.ledger;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::SeqCst);
        let seconds = self.took.as_secs_f64();
        println!(
            "soak: {} kills ({:.1}/s), {} stops, {} forks, {} execs, {} attaches, {} operations ({:.0}/s)",
            self.kills,
            self.kills as f64 / seconds,
            self.stops,
            count(forks),
            count(execs),
            count(attaches),
            count(operations),
            count(operations) as f64 / seconds
        );
        let (sent, received, missing) = self.ledger.messages();
        println!(
            "soak: {sent} messages sent, {received} received, {} with a receiver who died ({} at most)",
            missing.len(),
            self.taken
        );
        self.tasks.report();
        // Told and not counted: the launcher waits for a CPU behind those at work.
        let holds = if self.repairs.is_within(5.0) { "holds here, too" } else { "does not hold here; not counted" };
        println!(
            "soak: children of the launcher repaired, under this load:      {}   wanted p99 < 5 ms with a CPU free: {holds}",
            self.repairs
        );
        println!("soak: the same while others are stopped, with a lock perhaps:  {}", self.hindered);
    }
}
