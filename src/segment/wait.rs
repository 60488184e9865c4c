//! Waiting: one eventcount for every object, `{waiting:1, fenced:1, proven:1, sequence:29}` in a shared futex word.
//!
//! ```text
//! wait      spin a bounded time, then: attempt; mark the word as waited on and fenced; barrier; attempt; sleep while the word
//!           is unchanged; mark it AGAIN after every return, before the next attempt
//! barrier   the mark found the word proven: a fence; otherwise membarrier(2), and mark the word as proven if it is unchanged
//! publish   change the state; compiler fence; the word is neither waited on nor fenced: nothing. Otherwise one CAS,
//!           which is a fence: waited on: {sequence + 1, not waited on}, wake one; only fenced: not fenced, not proven
//! relay     who took something after a sleep wakes one more; who leaves without taking after a sleep does too
//! ```
//! The barrier is asymmetric: publishers pay a compiler fence, sleepers pay `membarrier(2)`, which costs as much as the sleep
//! itself. So who sleeps again and again pays once: until a publisher finds nobody asleep, all pay a fence instead. A sleep never
//! relies on the wake-up alone: it is sliced, and after each slice the registry is searched for dead participants, whose
//! recovery wakes everybody. Before each sleep the program may end the wait ([`interrupt`]). Models: `mc_ec`, protocol 1, and
//! `fences` (`tests/models`).

use super::{Attachment, interrupt};
use crate::error::Result;
use crate::sys::atomic::{AtomicU32, Ordering, fence};
use crate::sys::{fork, futex, membarrier, proc};
use shmkit_layouts::words::{EVENT_FENCED, EVENT_PROVEN, EVENT_WAITING};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32 as PrivateU32;
use std::time::{Duration, Instant};

/// The first slice of a sleep; it doubles up to [`LONGEST_SLICE`].
pub(crate) const FIRST_SLICE: Duration = Duration::from_millis(50);
/// The longest time a lost wake-up can cost.
pub(crate) const LONGEST_SLICE: Duration = Duration::from_secs(1);
/// Slice where the kernel refuses the sleeper's barrier.
const SHORT_SLICE: Duration = Duration::from_millis(1);
/// How long one spins before one sleeps, in nanoseconds: about what waking a sleeper costs.
static SPIN: PrivateU32 = PrivateU32::new(20_000);
/// The part of the word that counts wake-ups.
const SEQUENCE: u32 = EVENT_PROVEN - 1;
/// Looks at the state before the first one at the clock.
const CLOSE_LOOKS: u32 = 16;

/// Until when one waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    start: Option<Instant>,
    timeout: Option<Duration>,
}

impl Deadline {
    /// No end.
    pub(crate) const NEVER: Deadline = Deadline { start: None, timeout: None };

    /// `timeout` from now.
    pub(crate) fn after(timeout: Duration) -> Deadline {
        Deadline { start: Some(Instant::now()), timeout: Some(timeout) }
    }

    /// Time left; `None` if there is no end.
    pub(crate) fn left(&self) -> Option<Duration> {
        let (start, timeout) = (self.start?, self.timeout?);
        Some(timeout.saturating_sub(start.elapsed()))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.left() == Some(Duration::ZERO)
    }

    /// For how long one has waited at the end.
    pub(crate) fn waited(&self) -> Duration {
        self.timeout.unwrap_or_default()
    }
}

/// Sets how long this process watches what it waits for before it sleeps: 20 µs unless told otherwise, 4 s at most.
///
/// Zero means to sleep at once: for programs with more busy threads than CPUs, or where power counts more than latency.
///
/// # Examples
/// ```
/// shmkit::set_spin_time(std::time::Duration::ZERO);
/// ```
pub fn set_spin_time(time: Duration) {
    SPIN.store(u32::try_from(time.as_nanos()).unwrap_or(u32::MAX), Ordering::Relaxed);
}

fn spin_time() -> Duration {
    Duration::from_nanos(u64::from(SPIN.load(Ordering::Relaxed)))
}

/// What spinning is good for, by the CPUs this process may use.
#[derive(Clone, Copy)]
enum Spins {
    /// Nothing: the machine has one CPU.
    Never,
    /// On one of several CPUs: something if the other side runs on another one.
    IfItHelps,
    /// Usually something.
    Always,
}

/// Spins in a row that gave nothing, of a process on one of several CPUs.
static IN_VAIN: PrivateU32 = PrivateU32::new(0);

/// After so many spins in vain only every 64th time is tried: the other side seems to run on the same CPU.
const FEW: u32 = 4;

/// Whether to spin this time.
fn spins() -> bool {
    if SPIN.load(Ordering::Relaxed) == 0 {
        return false;
    }
    static SPINS: OnceLock<Spins> = OnceLock::new();
    // Without a fork in the middle: the child would wait for the end of it for ever.
    let spins = *SPINS.get().unwrap_or_else(|| {
        let _no_fork = fork::hold_off();
        SPINS.get_or_init(how_it_spins)
    });
    match spins {
        Spins::Never => false,
        Spins::Always => true,
        // Relaxed, and no read-modify-write, which every contended lock would pay: a statistic.
        Spins::IfItHelps => {
            let in_vain = IN_VAIN.load(Ordering::Relaxed);
            IN_VAIN.store(in_vain.wrapping_add(1), Ordering::Relaxed);
            in_vain < FEW || in_vain.is_multiple_of(64)
        }
    }
}

fn how_it_spins() -> Spins {
    let usable = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
    match usable {
        1 if proc::cpus().is_some_and(|cpus| cpus > 1) => Spins::IfItHelps,
        1 => Spins::Never,
        _ => Spins::Always,
    }
}

/// What a spin gave: it helped.
fn helped<R>(taken: R) -> Result<Option<R>> {
    if IN_VAIN.load(Ordering::Relaxed) != 0 {
        IN_VAIN.store(0, Ordering::Relaxed);
    }
    Ok(Some(taken))
}

/// Looks whether `attempt` gives something, for a bounded time and closely: for attempts that only read until they can take.
pub(crate) fn watch<R>(deadline: &Deadline, mut attempt: impl FnMut() -> Result<Option<R>>) -> Result<Option<R>> {
    if !spins() || deadline.is_over() {
        return Ok(None);
    }
    // A pause (25 ns) between the looks: without it a reader tears the line away from who writes the next element to it. The
    // clock, which costs as much, comes later.
    for _ in 0..CLOSE_LOOKS {
        std::hint::spin_loop();
        if let Some(taken) = attempt()? {
            return helped(taken);
        }
    }
    let start = Instant::now();
    loop {
        for _ in 0..8 {
            std::hint::spin_loop();
            if let Some(taken) = attempt()? {
                return helped(taken);
            }
        }
        if start.elapsed() >= spin_time() {
            return Ok(None);
        }
    }
}

/// Waits on `event` until `attempt` gives something; `Ok(None)` when the time is up.
///
/// `attempt` must look at the state with acquire loads; it is called at least once.
pub(crate) fn wait<R>(
    attachment: &Attachment,
    event: &AtomicU32,
    deadline: Deadline,
    attempt: impl FnMut() -> Result<Option<R>>,
) -> Result<Option<R>> {
    wait_while(attachment, event, deadline, || true, attempt)
}

/// As [`wait`]; who took something after a sleep wakes another one only where `more_remains`, which must look with acquire
/// loads: for many that wait for single units, of whom one is enough.
pub(crate) fn wait_while<R>(
    attachment: &Attachment,
    event: &AtomicU32,
    deadline: Deadline,
    more_remains: impl Fn() -> bool,
    mut attempt: impl FnMut() -> Result<Option<R>>,
) -> Result<Option<R>> {
    if let Some(taken) = attempt()? {
        return Ok(Some(taken));
    }
    if deadline.is_over() {
        return Ok(None);
    }
    if let Some(taken) = watch(&deadline, &mut attempt)? {
        return Ok(Some(taken));
    }
    sleep(attachment, event, deadline, more_remains, attempt)
}

#[cold]
fn sleep<R>(
    attachment: &Attachment,
    event: &AtomicU32,
    deadline: Deadline,
    more_remains: impl Fn() -> bool,
    mut attempt: impl FnMut() -> Result<Option<R>>,
) -> Result<Option<R>> {
    let mut slept = false;
    let mut longest = FIRST_SLICE;
    // Of the last look for the dead: signals and wake-ups for others may keep each single sleep short.
    let mut looked = Instant::now();
    loop {
        let (marked, is_ordered) = order(event, mark(event));
        let slice = if is_ordered { longest } else { SHORT_SLICE };
        let left = deadline.left().unwrap_or(slice);
        let over = match attempt() {
            Ok(None) if left.is_zero() => Some(Ok(None)),
            Ok(None) => interrupt::check().err().map(Err),
            taken => Some(taken),
        };
        if let Some(outcome) = over {
            // Where something was taken, more may remain (the barrier above comes before that look, too); where nothing was, the
            // wake-up of the last sleep is another's.
            if slept && (!matches!(outcome, Ok(Some(_))) || more_remains()) {
                futex::wake(event, 1);
            }
            return outcome;
        }
        futex::wait(event, marked, slice.min(left));
        slept = true;
        if looked.elapsed() >= slice.min(left) {
            attachment.recover_dead();
            looked = Instant::now();
            longest = (longest * 2).min(LONGEST_SLICE);
        }
    }
}

/// Tells one sleeper that the state changed.
#[inline]
pub(crate) fn publish_one(event: &AtomicU32) {
    publish(event, 1);
}

/// Tells every sleeper that the state changed: where not every waiter can use every unit.
#[inline]
pub(crate) fn publish_all(event: &AtomicU32) {
    publish(event, i32::MAX as u32);
}

#[inline]
fn publish(event: &AtomicU32, count: u32) {
    membarrier::publisher();
    let word = event.load(Ordering::Relaxed);
    if word & (EVENT_WAITING | EVENT_FENCED) != 0 {
        wake(event, word, count);
    }
}

#[cold]
fn wake(event: &AtomicU32, word: u32, count: u32) {
    if take_mark(event, word) {
        futex::wake(event, count);
    }
}

/// Wakes everybody whether marked or not: recovery, which cannot know what the dead one left undone.
pub(crate) fn wake_everybody(event: &AtomicU32) {
    // As in `publish`: what the caller changed, or found that the dead one had changed, is there before the look at the mark.
    membarrier::publisher();
    take_mark(event, event.load(Ordering::Relaxed));
    futex::wake(event, i32::MAX as u32);
}

/// Marks the word as waited on, and gives what it is now. A publisher that found the mark cleared it: it is set again before each
/// look at the state, or the next publisher would see nobody.
pub(crate) fn mark(event: &AtomicU32) -> u32 {
    // SeqCst pairs with the looks of `publish`: the mark is in place before the look at the state that follows `order`.
    event.fetch_or(EVENT_WAITING | EVENT_FENCED, Ordering::SeqCst) | EVENT_WAITING | EVENT_FENCED
}

/// Orders a mark before the look at the state that follows, against every publisher. Gives the word to sleep on, and whether it
/// could be done: if not, the sleep must be short.
pub(crate) fn order(event: &AtomicU32, marked: u32) -> (u32, bool) {
    if marked & EVENT_PROVEN != 0 {
        // Every publisher fences before it looks: since whoever set this had his barrier. Pairs with the CAS in `take_mark`.
        fence(Ordering::SeqCst);
        return (marked, true);
    }
    if !membarrier::sleeper() {
        return (marked, false);
    }
    // A publisher that looks from now on sees `fenced`. Unchanged, so it was so all the time; changed, nobody will sleep on it.
    // Release: whoever finds it is behind the barrier.
    match event.compare_exchange(marked, marked | EVENT_PROVEN, Ordering::SeqCst, Ordering::Relaxed) {
        Ok(_) => (marked | EVENT_PROVEN, true),
        Err(_) => (marked, true),
    }
}

/// The slow half of a publisher: takes away the mark of those who sleep, and says whether there was one; where there is none, that
/// publishers fence.
fn take_mark(event: &AtomicU32, mut word: u32) -> bool {
    loop {
        let is_waited_on = word & EVENT_WAITING != 0;
        let next = match word & EVENT_FENCED != 0 {
            _ if is_waited_on => word & (EVENT_FENCED | EVENT_PROVEN) | word.wrapping_add(1) & SEQUENCE,
            true => word & SEQUENCE,
            false => return false,
        };
        // This is the fence, also where it fails: the change of the state comes before it, and a mark that comes after it is
        // followed by a look that sees the change. Pairs with `mark` and `order`.
        match event.compare_exchange_weak(word, next, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => return is_waited_on,
            Err(now) => word = now,
        }
    }
}
