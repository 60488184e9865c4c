//! [`Barrier`]: a number of parties that wait until all of them have come.
//!
//! ```text
//! body   state | event | parties | time-out | arrivals[parties]
//! state     u64  round:32 | owner:12 | phase:4 {FILLING, ACTION, DRAINING, RESETTING, BROKEN}      BROKEN: owner is the cause
//! arrival   u64  round:32 | token:32       token 0: left, or never claimed, in that round
//!
//! arrive    FILLING r: CAS an arrival {0, not r} → {me, r}: its index is what `wait` gives; then the state is still r, or out again
//! trip      all arrivals are of r: CAS FILLING → DRAINING; with an action → ACTION by me, run it, → DRAINING
//! leave     arrival → {0, r}; the last one, or whoever notices: DRAINING → FILLING r+1
//! break     FILLING or ACTION → BROKEN: by a time-out, an interrupt, abort, a failed action, recovery
//! reset     whoever waits is sent away: → RESETTING; when all have left → FILLING r+1
//! ```
//! A word can be claimed once in a round, so a round that was passed was passed by exactly `parties`, and nobody begins the
//! next one before all have left.
//!
//! # Crash behaviour
//!
//! | killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | before its arrival | parties that wait | nobody can know: they wait for somebody, or their time-out | nothing |
//! | having arrived, while others are missing | an arrival of a dead participant | recovery, or a waiter at the end of its slice, breaks the barrier | the round: all get `BrokenBarrier` |
//! | the last to arrive, before the trip | the same | the same | the same |
//! | running the action | ACTION by a dead participant | the same | the same |
//! | after the trip, before the wake | DRAINING and sleepers | recovery wakes all | nothing: the others have passed |
//! | having passed, before it has left | an arrival of a dead participant; newcomers wait | recovery clears it, the next round begins | nothing |
//! | having left, as the last one | DRAINING without arrivals | the next one who comes begins the next round | nothing |
//! | resetting | RESETTING or the old state | as for DRAINING; or nobody needs to | nothing |

use super::parties::Parties;
use crate::error::{Result, SegmentError, SyncError, corrupt};
use crate::segment::object::{BodyId, Object, Shared, create, handle_as_value};
use crate::segment::wait::{self, Deadline};
use crate::segment::{At, Segment, atomic, fetch, session};
use shmkit_layouts::kinds::KIND_BARRIER;
use shmkit_layouts::objects::*;
use shmkit_layouts::words::{BarrierState, Token};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The most parties there can be.
const MOST: u32 = 1 << 16;

/// A barrier: each of its parties, threads or processes, waits until all have come. It can be used again and again.
///
/// # Crash behaviour
/// A party that is killed while it waits breaks the barrier, and all get [`SyncError::BrokenBarrier`](crate::SyncError) instead
/// of waiting for ever. One that dies before it comes is missed only by a time-out, as in Python.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let barrier = shmkit::Barrier::new(3)?;
/// let mut places: Vec<u32> = std::thread::scope(|scope| {
///     let parties: Vec<_> = (0..3).map(|_| scope.spawn(|| barrier.wait())).collect();
///     parties.into_iter().map(|party| party.join().unwrap()).collect::<Result<_, _>>()
/// })?;
/// places.sort();
/// assert_eq!(places, [0, 1, 2]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Barrier {
    object: Object,
    parties: Parties,
    timeout: Option<Duration>,
}

// SAFETY: the pointer is into the mapping, which `object` keeps; only atomics are reached through it.
unsafe impl Send for Barrier {}
// SAFETY: as above.
unsafe impl Sync for Barrier {}

/// What a barrier is made of.
#[derive(Debug, Clone, Copy)]
pub struct BarrierOptions {
    parties: u32,
    timeout: Option<Duration>,
}

impl Shared for Barrier {
    type Options = BarrierOptions;

    fn kind() -> u32 {
        KIND_BARRIER
    }
    fn size(options: &BarrierOptions) -> Result<u64> {
        if !(1..=MOST).contains(&options.parties) {
            let (found, why) = (u64::from(options.parties), "it must be 1 to 2^16");
            return Err(SegmentError::InvalidSize { what: "the number of parties", found, why }.into());
        }
        Ok(size_of::<BarrierBody>() as u64 + u64::from(options.parties) * 8)
    }
    fn build(options: &BarrierOptions, start: *mut u8, _: BodyId) -> Result<()> {
        let body = start.cast::<BarrierBody>();
        let timeout = options.timeout.map_or(0, |timeout| timeout.as_nanos().clamp(1, u128::from(u64::MAX)) as u64);
        // SAFETY: the body has room for it, is 64-byte aligned, and nobody else reaches it yet.
        unsafe {
            (&raw mut (*body).parties).write(options.parties);
            (&raw mut (*body).timeout_ns).write(timeout);
        }
        // Arrivals that are zero have left round 0.
        let state = BarrierState { phase: BARRIER_FILLING, owner: 0, round: 1 };
        atomic!(body, state).store(state.pack(), Ordering::Relaxed);
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let body = object.body::<BarrierBody>()?;
        let (count, timeout) = (fetch!(body, parties), fetch!(body, timeout_ns));
        if !(1..=MOST).contains(&count) {
            return Err(corrupt("parties of a barrier", object.offset(), u64::from(count)));
        }
        object.part::<AtomicU64>(size_of::<BarrierBody>() as u64, u64::from(count))?;
        let parties = Parties::new(body, count, object.offset());
        Ok(Barrier { object, parties, timeout: (timeout > 0).then(|| Duration::from_nanos(timeout)) })
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

handle_as_value!(Barrier);

/// One who has arrived. Leaves when dropped; before that, breaks the round unless it has been passed.
struct Member<'a> {
    parties: &'a Parties,
    token: Token,
    round: u32,
    index: u32,
    breaks: Option<u32>,
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        if let Some(cause) = self.breaks {
            self.parties.break_round(self.round, cause);
        }
        self.parties.leave(self.token, self.round, self.index);
    }
}

impl Barrier {
    /// A new one in the session segment, for `parties` parties.
    ///
    /// # Errors
    /// `InvalidSize` for 0 and above 2^16; `OutOfMemory`; `TooManyObjects`.
    pub fn new(parties: u32) -> Result<Barrier> {
        Barrier::new_in(&session()?, parties)
    }

    /// A new one in `segment`, for `parties` parties.
    ///
    /// # Errors
    /// As [`Barrier::new`].
    pub fn new_in(segment: &Segment, parties: u32) -> Result<Barrier> {
        create(segment, None, &BarrierOptions { parties, timeout: None }, false)
    }

    /// Waits until all parties have come; gives each of them another number, from 0 on.
    ///
    /// # Errors
    /// `BrokenBarrier` when a party's time is up, it is aborted or reset, its action fails, or a party dies; `Interrupted`,
    /// which breaks it, too; `TimedOut`, which does not, when parties of the round before have not left in time.
    pub fn wait(&self) -> Result<u32> {
        self.wait_until(self.default_deadline(), None::<fn() -> Result<()>>)
    }

    /// As [`Barrier::wait`], at most for `timeout`. When the time is up, the barrier is broken for all.
    ///
    /// # Errors
    /// As [`Barrier::wait`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<u32> {
        self.wait_until(Deadline::after(timeout), None::<fn() -> Result<()>>)
    }

    /// As [`Barrier::wait`]; the last one who comes runs its action before all go on. If that fails or panics, the barrier is
    /// broken.
    ///
    /// # Errors
    /// As [`Barrier::wait`], and for the one who ran it what the action gave.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> shmkit::Result<()> {
    /// let barrier = shmkit::Barrier::new(1)?;
    /// let mut sum = 0;
    /// barrier.wait_with(|| {
    ///     sum += 1;
    ///     Ok(())
    /// })?;
    /// assert_eq!(sum, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_with(&self, action: impl FnOnce() -> Result<()>) -> Result<u32> {
        self.wait_until(self.default_deadline(), Some(action))
    }

    /// As [`Barrier::wait_with`], at most for `timeout`.
    ///
    /// # Errors
    /// As [`Barrier::wait_with`].
    pub fn wait_with_timeout(&self, action: impl FnOnce() -> Result<()>, timeout: Duration) -> Result<u32> {
        self.wait_until(Deadline::after(timeout), Some(action))
    }

    fn default_deadline(&self) -> Deadline {
        self.timeout.map_or(Deadline::NEVER, Deadline::after)
    }

    fn wait_until(&self, deadline: Deadline, action: Option<impl FnOnce() -> Result<()>>) -> Result<u32> {
        let (parties, attachment) = (&self.parties, self.object.attachment());
        let token = attachment.token()?;
        let event = atomic!(parties.body, event);
        let Some((round, index)) = wait::wait(attachment, event, deadline, || parties.arrive(token))? else {
            return Err(SyncError::TimedOut { what: "barrier", waited: deadline.waited(), holder: None }.into());
        };
        let mut member = Member { parties, token, round, index, breaks: Some(BROKEN_ACTION) };
        if parties.arrived(round) == parties.count() {
            failpoint!("barrier.complete");
            self.trip(round, action)?;
        }
        member.breaks = Some(BROKEN_TIME_OUT);
        if wait::wait(attachment, event, deadline, || parties.outcome(round))?.is_none() {
            parties.break_round(round, BROKEN_TIME_OUT);
            parties.outcome(round)?;
        }
        member.breaks = None;
        failpoint!("barrier.passed");
        Ok(index)
    }

    /// All have come: lets them go on, unless another one who saw it does, or it is broken.
    fn trip(&self, round: u32, action: Option<impl FnOnce() -> Result<()>>) -> Result<()> {
        let parties = &self.parties;
        let state = parties.state();
        if state != (BarrierState { phase: BARRIER_FILLING, owner: 0, round }) {
            return Ok(());
        }
        let Some(action) = action else {
            parties.change(state, BARRIER_DRAINING, 0);
            return Ok(());
        };
        let me = self.object.attachment().token()?.slot();
        if parties.change(state, BARRIER_ACTION, me) {
            failpoint!("barrier.action");
            action()?;
            failpoint!("barrier.acted");
            parties.change(BarrierState { phase: BARRIER_ACTION, owner: me, round }, BARRIER_DRAINING, 0);
        }
        Ok(())
    }

    /// Breaks it: who waits, and who comes until it is reset, gets `BrokenBarrier`.
    pub fn abort(&self) {
        loop {
            let state = self.parties.state();
            if state.phase >= BARRIER_BROKEN || self.parties.change(state, BARRIER_BROKEN, BROKEN_ABORT) {
                return;
            }
        }
    }

    /// Makes it as new: who waits is sent away with `BrokenBarrier`, and it is whole again once they have left.
    pub fn reset(&self) {
        loop {
            let state = self.parties.state();
            let is_used = match state.phase {
                BARRIER_FILLING => self.parties.arrived(state.round) > 0,
                BARRIER_ACTION | BARRIER_BROKEN => true,
                _ => false,
            };
            if !is_used || self.parties.change(state, BARRIER_RESETTING, 0) {
                failpoint!("barrier.reset");
                self.parties.settle();
                return;
            }
        }
    }

    /// How many parties there are.
    pub fn parties(&self) -> u32 {
        self.parties.count()
    }

    /// How many wait at this instant for others to come.
    pub fn n_waiting(&self) -> u32 {
        let state = self.parties.state();
        if state.phase == BARRIER_FILLING { self.parties.arrived(state.round) } else { 0 }
    }

    /// Whether it is broken.
    pub fn is_broken(&self) -> bool {
        self.parties.state().phase == BARRIER_BROKEN
    }
}

impl std::fmt::Debug for Barrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = if self.is_broken() { ", broken" } else { "" };
        write!(f, "Barrier({} of {}{state})", self.n_waiting(), self.parties())
    }
}

impl Segment {
    /// The barrier `name`, for one party unless told otherwise.
    pub fn barrier<'a>(&'a self, name: &'a str) -> At<'a, Barrier> {
        At { segment: self, name, options: BarrierOptions { parties: 1, timeout: None } }
    }
}

impl At<'_, Barrier> {
    /// How many parties there are.
    #[must_use]
    pub fn parties(mut self, parties: u32) -> Self {
        self.options.parties = parties;
        self
    }

    /// How long [`Barrier::wait`] waits in all processes; for ever unless told otherwise.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }
}
