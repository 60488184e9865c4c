//! One who works in a soak: at random, until told to end, or killed.

use super::ledger::{Ledger, Seat, now};
use super::objects::Objects;
use super::operations::NAMES;
use crate::operation::Check;
use crate::random::Random;
use nix::sys::signal::Signal;
use shmkit::Segment;
use std::os::unix::process::CommandExt;
use std::sync::atomic::Ordering;

/// Where it finds the ledger, and the segment.
pub const LEDGER: &str = "SHMKIT_SOAK_LEDGER";
pub const SEGMENT: &str = "SHMKIT_SOAK_SEGMENT";
/// When nobody has seen the director for so long, everybody ends.
const ORPHANED: u64 = 20_000;

/// A variable of the environment that the director sets.
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// The life of one who is to live until the end; `seed` is where his work follows from.
pub fn live(seed: u64) -> shmkit::Result<()> {
    let ledger = Ledger::open(&variable(LEDGER));
    // Without a seat there are enough already.
    if let Some(index) = ledger.sit(std::process::id()) {
        work(ledger, &ledger.seats[index], seed, u64::MAX);
        ledger.seats[index].pid.store(0, Ordering::SeqCst);
    }
    Ok(())
}

/// One who goes on as a program that was executed anew.
pub fn go_on(index: usize, seed: u64) {
    let ledger = Ledger::open(&variable(LEDGER));
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    work(ledger, &ledger.seats[index], seed, u64::MAX);
    ledger.seats[index].pid.store(0, Ordering::SeqCst);
}

/// At most so many operations.
fn work(ledger: &'static Ledger, seat: &Seat, seed: u64, most: u64) {
    let mut random = Random::new(seed);
    let mut left = most;
    while left > 0 && !is_over(ledger) {
        if let Err(fault) = attached(ledger, seat, &mut random, &mut left) {
            let operation = NAMES.get(seat.operation.load(Ordering::SeqCst) as usize).unwrap_or(&"attach");
            ledger.fault(&format!("{:?}: {operation}: {}", fault.wrong, fault.what));
            return;
        }
        ledger.attaches.fetch_add(1, Ordering::Relaxed);
    }
}

fn is_over(ledger: &Ledger) -> bool {
    let seen = ledger.director.load(Ordering::SeqCst);
    ledger.quit.load(Ordering::SeqCst) != 0 || now() > seen + ORPHANED
}

/// Attaches, works for some time, and leaves.
fn attached(ledger: &'static Ledger, seat: &Seat, random: &mut Random, left: &mut u64) -> Check {
    seat.operation.store(u32::MAX, Ordering::SeqCst);
    seat.beat.store(now(), Ordering::SeqCst);
    let objects = Objects::open(Segment::open(&variable(SEGMENT))?)?;
    let id = u64::from(std::process::id());
    for _ in 0..100 + random.next() % 3000 {
        if *left == 0 || is_over(ledger) {
            break;
        }
        *left -= 1;
        let chance = random.next();
        if chance.is_multiple_of(2000) {
            fork(ledger, random.next());
        } else if chance % 4000 == 1 && *left > 1_000_000 {
            execute(ledger, seat, random.next());
        }
        let operation = (chance >> 32) as usize % NAMES.len();
        seat.operation.store(operation as u32, Ordering::SeqCst);
        seat.beat.store(now(), Ordering::SeqCst);
        objects.operate(operation, random.next(), id, ledger, seat)?;
        ledger.operations.fetch_add(1, Ordering::Relaxed);
    }
    seat.operation.store(u32::MAX, Ordering::SeqCst);
    drop(objects);
    Ok(())
}

/// A copy of this process, which lies attached and is not, works for a while.
fn fork(ledger: &'static Ledger, seed: u64) {
    ledger.forks.fetch_add(1, Ordering::Relaxed);
    // Nobody waits for it: who ends first is reaped by whoever comes after this process.
    // SAFETY: the action is one of the two constants.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    crate::step::forked(|| {
        if let Some(index) = ledger.sit(std::process::id()) {
            work(ledger, &ledger.seats[index], seed, 300);
            ledger.seats[index].pid.store(0, Ordering::SeqCst);
        }
        0
    });
}

/// Becomes the same program anew, in the middle of everything.
fn execute(ledger: &Ledger, seat: &Seat, seed: u64) {
    let Some(index) = ledger.seats.iter().position(|other| std::ptr::eq(other, seat)) else { return };
    ledger.execs.fetch_add(1, Ordering::Relaxed);
    let words = [super::AGAIN.to_owned(), index.to_string(), seed.to_string()];
    let error = std::process::Command::new("/proc/self/exe").args(words).exec();
    ledger.fault(&format!("the program cannot be executed: {error}"));
}
