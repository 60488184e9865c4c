//! The minimal futex mutex, and how all locks are timed.

use super::trips::{futex_wait, futex_wake};
use crate::Result;
use crate::stage::Stage;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// What is locked and unlocked: by a minimal futex mutex (Drepper's second one), shmkit's, or anybody's.
pub trait Locks {
    /// Runs `inside` with the lock held.
    ///
    /// # Errors
    /// The contestant's own.
    fn with(&self, inside: impl FnOnce()) -> Result;
}

/// 0 free, 1 held, 2 held and waited for.
pub struct FutexMutex<'a>(pub &'a AtomicU32);

impl Locks for FutexMutex<'_> {
    #[inline]
    fn with(&self, inside: impl FnOnce()) -> Result {
        if self.0.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.lock_slow();
        }
        inside();
        if self.0.swap(0, Ordering::Release) == 2 {
            futex_wake(self.0);
        }
        Ok(())
    }
}

impl FutexMutex<'_> {
    #[cold]
    fn lock_slow(&self) {
        for _ in 0..100 {
            if self.0.load(Ordering::Relaxed) == 0
                && self.0.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return;
            }
            spin_loop();
        }
        while self.0.swap(2, Ordering::Acquire) != 0 {
            futex_wait(self.0, 2);
        }
    }
}

/// The counter that locks guard: a plain number on a cache line of its own, so that a lock that does not lock is found out.
fn counter(stage: &Stage) -> *mut u64 {
    stage.scratch().wrapping_add(4096).cast()
}

/// Locks and unlocks without a rival: nanoseconds for both.
///
/// # Errors
/// The contestant's.
pub fn uncontended(stage: &Stage, lock: &impl Locks) -> Result {
    let counter = counter(stage);
    // SAFETY: scratch memory, under the lock.
    let inside = || unsafe { counter.write_volatile(counter.read_volatile() + 1) };
    for _ in 0..1000 {
        lock.with(inside)?;
    }
    let start = Instant::now();
    for _ in 0..stage.n {
        lock.with(inside)?;
    }
    stage.publish(start.elapsed().as_nanos() as f64 / stage.n as f64);
    // SAFETY: as above.
    if unsafe { counter.read_volatile() } != stage.n + 1000 {
        return Err("the lock did not lock".into());
    }
    Ok(())
}

/// The variable that tells the processes of a measurement how long the gap is: the same for all contestants of a run.
pub(crate) const GAP: &str = "SHMKIT_BENCH_GAP";

/// What a process does between two uses of a lock: so many steps, without a clock.
#[inline]
fn gap(steps: u64) {
    for step in 0..steps {
        std::hint::black_box(step);
    }
}

/// How many steps of the gap take 100 ns on this machine, by the clock. The fastest of many trials counts: what disturbs one makes
/// it slower.
pub fn gap_steps() -> u64 {
    const STEPS: u64 = 10_000;
    let trial = || {
        let start = Instant::now();
        gap(std::hint::black_box(STEPS));
        start.elapsed().as_nanos() as f64
    };
    let least = (0..500).map(|_| trial()).fold(f64::INFINITY, f64::min).max(1.0);
    (100.0 * STEPS as f64 / least).round() as u64
}

/// Both processes lock, count and unlock, with a gap of work in between: millions of locks a second, of both together.
///
/// # Errors
/// The contestant's, and if the count is wrong.
pub fn contended(stage: &Stage, lock: &impl Locks) -> Result {
    let counter = counter(stage);
    let steps = std::env::var(GAP).ok().and_then(|steps| steps.parse().ok()).unwrap_or_else(gap_steps);
    // SAFETY: scratch memory, under the lock.
    let inside = || unsafe { counter.write_volatile(counter.read_volatile() + 1) };
    for count in [1000, stage.n] {
        stage.barrier()?;
        let start = Instant::now();
        for _ in 0..count {
            lock.with(inside)?;
            gap(steps);
        }
        stage.barrier()?;
        let elapsed = start.elapsed();
        // SAFETY: behind the barrier nobody writes.
        if stage.role == 0 {
            stage.publish((stage.roles as u64 * count) as f64 / elapsed.as_secs_f64() / 1e6);
        }
    }
    // SAFETY: behind the barrier nobody writes.
    let found = unsafe { counter.read_volatile() };
    let expected = stage.roles as u64 * (1000 + stage.n);
    if found != expected {
        return Err(format!("the lock did not lock: counted {found} instead of {expected}").into());
    }
    stage.barrier()
}

fn futex_mutex(stage: &Stage) -> FutexMutex<'_> {
    // SAFETY: scratch memory, zeroed and aligned.
    FutexMutex(unsafe { &*stage.scratch().cast::<AtomicU32>() })
}

/// The minimal futex mutex without a rival.
///
/// # Errors
/// None but the stage's.
pub fn futex_mutex_uncontended(stage: &Stage) -> Result {
    uncontended(stage, &futex_mutex(stage))
}

/// The minimal futex mutex, two processes.
///
/// # Errors
/// None but the stage's.
pub fn futex_mutex_contended(stage: &Stage) -> Result {
    contended(stage, &futex_mutex(stage))
}
