//! One cache line, and one futex, back and forth between two processes; and copies of memory.

use crate::Result;
use crate::drivers::latencies;
use crate::payload::Payload;
use crate::stage::{Line, Stage};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

// ---- one cache line --------------------------------------------------------------------------------------------------

/// A number that goes from one CPU to the other and back, each way in a cache line of its own.
///
/// # Errors
/// None but the stage's.
pub fn line(stage: &Stage) -> Result {
    // SAFETY: scratch memory, zeroed, aligned, and used as this by both roles.
    let lines = unsafe { &*stage.scratch().cast::<[Line<AtomicU64>; 2]>() };
    let (there, back) = (&lines[0].0, &lines[1].0);
    let n = stage.n + 100;
    stage.barrier()?;
    if stage.role == 1 {
        for number in 1..=2 * n {
            while there.load(Ordering::Acquire) != number {}
            back.store(number, Ordering::Release);
        }
        return stage.barrier();
    }
    let trip = |number| {
        there.store(number, Ordering::Release);
        while back.load(Ordering::Acquire) != number {}
    };
    (1..=100).for_each(trip);
    let start = Instant::now();
    (101..=n).for_each(trip);
    stage.publish(start.elapsed().as_nanos() as f64 / stage.n as f64);
    let mut histogram = latencies();
    for number in n + 1..=2 * n {
        let start = Instant::now();
        trip(number);
        let _ = histogram.record(start.elapsed().as_nanos() as u64);
    }
    stage.publish_latencies(&histogram);
    stage.barrier()
}

// ---- futex -----------------------------------------------------------------------------------------------------------

pub(super) fn futex_wait(word: &AtomicU32, expected: u32) {
    // SAFETY: the word is shared memory; no time-out is given.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, 0) };
}

/// As [`futex_wait`], for 50 ms at most.
fn futex_wait_in_slices(word: &AtomicU32, expected: u32) {
    let slice = libc::timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    // SAFETY: the word is shared memory; the time-out is this function's.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, &raw const slice) };
}

pub(super) fn futex_wake(word: &AtomicU32) {
    // SAFETY: the word is shared memory.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}

/// Two processes that sleep for each other in turn.
///
/// # Errors
/// None but the stage's.
pub fn futex(stage: &Stage) -> Result {
    sleep_in_turn(stage, futex_wait)
}

fn sleep_in_turn(stage: &Stage, wait: fn(&AtomicU32, u32)) -> Result {
    // SAFETY: scratch memory, zeroed, aligned, and used as this by both roles.
    let words = unsafe { &*stage.scratch().cast::<[Line<AtomicU32>; 2]>() };
    let (mine, other) = (&words[stage.role].0, &words[1 - stage.role].0);
    let await_number = |number| {
        loop {
            let seen = mine.load(Ordering::Acquire);
            if seen == number {
                return;
            }
            wait(mine, seen);
        }
    };
    let send = |number| {
        other.store(number, Ordering::SeqCst);
        futex_wake(other);
    };
    let n = stage.n as u32;
    stage.barrier()?;
    if stage.role == 1 {
        for number in 1..=2 * n {
            await_number(number);
            send(number);
        }
        return stage.barrier();
    }
    let start = Instant::now();
    for number in 1..=n {
        send(number);
        await_number(number);
    }
    stage.publish(start.elapsed().as_nanos() as f64 / stage.n as f64);
    let mut histogram = latencies();
    for number in n + 1..=2 * n {
        let start = Instant::now();
        send(number);
        await_number(number);
        let _ = histogram.record(start.elapsed().as_nanos() as u64);
    }
    stage.publish_latencies(&histogram);
    stage.barrier()
}

/// As [`futex`], with sleeps that end after 50 ms: what whoever must find out about deaths does.
///
/// # Errors
/// None but the stage's.
pub fn futex_in_slices(stage: &Stage) -> Result {
    sleep_in_turn(stage, futex_wait_in_slices)
}

// ---- memory ----------------------------------------------------------------------------------------------------------

/// Copies of one buffer to another in one process, which lie in its cache where they fit: publishes gigabytes a second.
///
/// # Errors
/// If the copy differs.
pub fn memcpy<P: Payload>(stage: &Stage) -> Result {
    let mut source = crate::payload::zeroed::<P>();
    let mut target = crate::payload::zeroed::<P>();
    source.fill(7);
    let start = Instant::now();
    for _ in 0..stage.n {
        // The compiler is to know neither what is copied nor that nobody looks.
        std::hint::black_box(&mut *target).clone_from(std::hint::black_box(&*source));
    }
    let elapsed = start.elapsed();
    if target.digest() != P::expected(7) {
        return Err("the copy differs".into());
    }
    stage.publish((stage.n as usize * size_of::<P>()) as f64 / elapsed.as_nanos() as f64);
    Ok(())
}
