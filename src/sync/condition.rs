//! [`Condition`]: waiting, with a lock given up meanwhile, until another one notifies.
//!
//! ```text
//! body   own lock, as an RLock | tickets | more | which lock, if not its own | waiter records
//!
//! wait     with the lock: CAS a record 0 → {WAITING, me}; take a ticket; release the lock, whatever its depth; wait on the
//!          record's own event until it is NOTIFIED; lock again, at the old depth; record → 0
//!          time-out: CAS WAITING → 0; who fails was notified
//! notify   with the lock: the records with the lowest tickets, of the living: CAS WAITING → NOTIFIED; publish their event
//! death    NOTIFIED: another one is notified instead, then → 0; WAITING: → 0
//! ```
//! A notification is not used up before its receiver has the lock again, so no death can swallow it. Nobody waits for the
//! ones he notified.
//!
//! # Crash behaviour
//!
//! | killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | about to wait, before the lock is released | a dead owner of the lock, and its record | recovery: the lock as [`super::Mutex`], the record is freed | what was half done: the next owner is told |
//! | waiting | a record of a dead participant, which `notify` passes over | recovery frees it | nothing |
//! | notified, before it has the lock again | a record NOTIFIED of a dead participant | recovery notifies another one, then frees it | nothing |
//! | notified, with the lock | a dead owner of the lock | as above; another one is notified, too, if the record was not freed yet | nothing |
//! | notifying, some marked | those are NOTIFIED, the one not woken sleeps | recovery wakes all; the sleeper looks again at the end of its slice | notifications not yet given; the next owner of the lock is told |
//! | adding a chunk of records | an extent HELD, or a chunk that is named | recovery frees it, or commits it | nothing |
//! | recovering, between the new notification and the end of the old one | two NOTIFIED for one | the next recoverer notifies once more | nothing: one wakes for nothing |

use super::mutex::{Lock, LockError, LockGuard, Unlocked};
use super::rlock::{RLock, RLockGuard, ordinal};
use super::waiters::{INLINE, Waiters};
use crate::error::{Error, Result, SyncError, corrupt};
use crate::segment::claim::Acquired;
use crate::segment::interrupt::shielded;
use crate::segment::object::{self, BodyId, Object, Shared, create, open_by_id};
use crate::segment::wait::{self, Deadline};
use crate::segment::{At, Segment, fetch, session};
use serde::{Deserialize, Serialize};
use shmkit_layouts::kinds::{KIND_CONDITION, KIND_LOCK, KIND_RLOCK};
use shmkit_layouts::objects::{ConditionBody, ConditionWaiter};
use std::sync::Arc;
use std::time::Duration;

/// A condition: Python's `Condition`. It has a re-entrant lock of its own, or is used with a [`Lock`] or [`RLock`] of the user.
///
/// Waiting is first come, first notified. `notify` marks those who are to go on and returns at once; it never waits for them, so
/// nobody's death or stop can hold it up.
///
/// # Crash behaviour
/// One who is killed while it waits is passed over; one who is killed after it was notified, before it has the lock again,
/// leaves the notification to another one. If somebody is killed holding the lock, its next owner is told.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let ready = shmkit::Condition::new()?;
/// let value = shmkit::Value::new(0u64)?;
/// std::thread::scope(|scope| -> shmkit::Result<()> {
///     scope.spawn(|| {
///         let _guard = ready.lock().unwrap();
///         value.set(7).unwrap();
///         ready.notify(1).unwrap();
///     });
///     let _guard = ready.lock()?;
///     ready.wait_for(|| value.get().is_ok_and(|value| value == 7))?;
///     assert_eq!(value.get()?, 7);
///     Ok(())
/// })
/// # }
/// ```
#[derive(Clone)]
pub struct Condition {
    object: Object,
    body: *const ConditionBody,
    inline: u32,
    lock: Mutual,
}

// SAFETY: the pointer is into the mapping, which `object` keeps; only atomics are reached through it.
unsafe impl Send for Condition {}
// SAFETY: as above.
unsafe impl Sync for Condition {}

/// The lock of a condition.
#[derive(Clone)]
enum Mutual {
    /// The condition's own, which is part of its body.
    Own(RLock),
    /// The user's.
    Foreign(Foreign),
}

/// A lock of the user. As a value, it keeps the lock alive on the way of a condition.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Foreign {
    Lock(Lock),
    RLock(RLock),
}

impl Foreign {
    fn object(&self) -> &Object {
        match self {
            Foreign::Lock(lock) => lock.object(),
            Foreign::RLock(lock) => lock.object(),
        }
    }
}

/// What a condition is made of.
#[derive(Debug, Clone, Default)]
pub struct ConditionOptions {
    lock: Option<Foreign>,
    /// The lock lies in another segment.
    is_elsewhere: bool,
}

impl ConditionOptions {
    fn new(lock: Foreign, segment: &Segment) -> ConditionOptions {
        let is_elsewhere = !Arc::ptr_eq(&lock.object().reference.attachment, segment.attachment());
        ConditionOptions { lock: Some(lock), is_elsewhere }
    }
}

impl Shared for Condition {
    type Options = ConditionOptions;

    fn kind() -> u32 {
        KIND_CONDITION
    }
    fn size(options: &ConditionOptions) -> Result<u64> {
        if options.is_elsewhere {
            return Err(SyncError::OtherSegment.into());
        }
        Ok(size_of::<ConditionBody>() as u64 + u64::from(INLINE) * size_of::<ConditionWaiter>() as u64)
    }
    fn build(options: &ConditionOptions, start: *mut u8, _: BodyId) -> Result<()> {
        let body = start.cast::<ConditionBody>();
        let (kind, id) = match &options.lock {
            None => (0, None),
            Some(lock @ Foreign::Lock(_)) => (KIND_LOCK, Some(lock.object().reference.id)),
            Some(lock @ Foreign::RLock(_)) => (KIND_RLOCK, Some(lock.object().reference.id)),
        };
        // SAFETY: the body has room for it, is 64-byte aligned, and nobody else reaches it yet.
        unsafe {
            (&raw mut (*body).waiters).write(INLINE);
            (&raw mut (*body).lock_kind).write(kind);
            (&raw mut (*body).lock_index).write(id.map_or(0, |id| id.index));
            (&raw mut (*body).lock_generation).write(id.map_or(0, |id| id.generation));
        }
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let body = object.body::<ConditionBody>()?;
        let inline = fetch!(body, waiters);
        object.part::<ConditionWaiter>(size_of::<ConditionBody>() as u64, u64::from(inline))?;
        let (index, generation) = (fetch!(body, lock_index), fetch!(body, lock_generation));
        let lock = match fetch!(body, lock_kind) {
            0 => Mutual::Own(RLock::attach(object.clone())?),
            KIND_LOCK => Mutual::Foreign(Foreign::Lock(open_by_id(&object.segment(), index, generation)?)),
            KIND_RLOCK => Mutual::Foreign(Foreign::RLock(open_by_id(&object.segment(), index, generation)?)),
            other => return Err(corrupt("lock of a condition", object.offset(), u64::from(other))),
        };
        Ok(Condition { object, body, inline, lock })
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

/// A condition alone, without what keeps its lock alive.
struct Alone<T>(T);

impl Serialize for Alone<&Object> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        object::serialize(self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Alone<Condition> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        object::deserialize(deserializer).map(Alone)
    }
}

impl Serialize for Condition {
    /// Only as an argument of a process or inside a message: something must keep the object alive on the way.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        (Alone(&self.object), self.lock.foreign()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let (Alone(condition), _) = <(Alone<Condition>, Option<Foreign>)>::deserialize(deserializer)?;
        Ok(condition)
    }
}

impl Mutual {
    fn foreign(&self) -> Option<&Foreign> {
        match self {
            Mutual::Own(_) => None,
            Mutual::Foreign(lock) => Some(lock),
        }
    }

    /// The lock, if it is a re-entrant one; the plain one otherwise.
    fn reentrant(&self) -> std::result::Result<&RLock, &Lock> {
        match self {
            Mutual::Own(lock) | Mutual::Foreign(Foreign::RLock(lock)) => Ok(lock),
            Mutual::Foreign(Foreign::Lock(lock)) => Err(lock),
        }
    }

    fn is_mine(&self) -> Result<bool> {
        match self.reentrant() {
            Ok(lock) => lock.is_mine(),
            Err(lock) => lock.is_mine(),
        }
    }

    /// Releases it, whatever its depth, which it gives.
    fn suspend(&self) -> Result<u32> {
        match self.reentrant() {
            Ok(lock) => lock.suspend(),
            Err(lock) => lock.suspend().map(|()| 0),
        }
    }

    /// Takes it again, at that depth.
    fn resume(&self, depth: u32) -> Result<Acquired> {
        shielded(|| match self.reentrant() {
            Ok(lock) => lock.resume(depth),
            Err(lock) => lock.resume(),
        })
    }
}

impl Condition {
    /// A new one in the session segment, with a re-entrant lock of its own.
    ///
    /// # Errors
    /// `OutOfMemory`, `TooManyObjects`.
    pub fn new() -> Result<Condition> {
        Condition::new_in(&session()?)
    }

    /// A new one in `segment`, with a re-entrant lock of its own.
    ///
    /// # Errors
    /// As [`Condition::new`].
    pub fn new_in(segment: &Segment) -> Result<Condition> {
        create(segment, None, &ConditionOptions::default(), false)
    }

    /// A new one for `lock`, in its segment. Several conditions can share a lock.
    ///
    /// # Errors
    /// As [`Condition::new`].
    pub fn with_lock(lock: &Lock) -> Result<Condition> {
        Condition::with(Foreign::Lock(lock.clone()))
    }

    /// A new one for the re-entrant `lock`, in its segment.
    ///
    /// # Errors
    /// As [`Condition::new`].
    pub fn with_rlock(lock: &RLock) -> Result<Condition> {
        Condition::with(Foreign::RLock(lock.clone()))
    }

    fn with(lock: Foreign) -> Result<Condition> {
        let segment = lock.object().segment();
        create(&segment, None, &ConditionOptions::new(lock, &segment), false)
    }

    fn waiters(&self) -> Waiters<'_> {
        Waiters::new(self.object.attachment(), self.body, self.inline)
    }

    // ---- the lock -----------------------------------------------------------------------------------------------------

    /// Waits for the condition's lock.
    ///
    /// # Errors
    /// As [`RLock::lock`].
    pub fn lock(&self) -> Result<ConditionGuard<'_>, LockError<ConditionGuard<'_>>> {
        match self.lock.reentrant() {
            Ok(lock) => lock.lock().map(ConditionGuard::reentrant).map_err(|e| e.map(ConditionGuard::reentrant)),
            Err(lock) => lock.lock().map(ConditionGuard::plain).map_err(|e| e.map(ConditionGuard::plain)),
        }
    }

    /// As [`Condition::lock`], at most for `timeout`.
    ///
    /// # Errors
    /// As [`RLock::lock_timeout`].
    pub fn lock_timeout(&self, timeout: Duration) -> Result<ConditionGuard<'_>, LockError<ConditionGuard<'_>>> {
        match self.lock.reentrant() {
            Ok(lock) => {
                let taken = lock.lock_timeout(timeout);
                taken.map(ConditionGuard::reentrant).map_err(|e| e.map(ConditionGuard::reentrant))
            }
            Err(lock) => {
                let taken = lock.lock_timeout(timeout);
                taken.map(ConditionGuard::plain).map_err(|e| e.map(ConditionGuard::plain))
            }
        }
    }

    /// Waits for the lock without a guard: [`Condition::release`] follows. A lock whose owner died is taken as it is.
    ///
    /// # Errors
    /// As [`RLock::acquire`].
    pub fn acquire(&self) -> Result<()> {
        match self.lock.reentrant() {
            Ok(lock) => lock.acquire(),
            Err(lock) => lock.acquire(),
        }
    }

    /// As [`Condition::acquire`], at most for `timeout`: false when the time is up.
    ///
    /// # Errors
    /// As [`RLock::acquire`].
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<bool> {
        match self.lock.reentrant() {
            Ok(lock) => lock.acquire_timeout(timeout),
            Err(lock) => lock.acquire_timeout(timeout),
        }
    }

    /// Releases the lock once.
    ///
    /// # Errors
    /// `NotOwner`, as the lock says.
    pub fn release(&self) -> Result<()> {
        match self.lock.reentrant() {
            Ok(lock) => lock.release(),
            Err(lock) => lock.release(),
        }
    }

    /// Whether this thread (for a [`Lock`]: this process) holds the lock.
    ///
    /// # Errors
    /// When the segment cannot be joined again after a fork.
    pub fn is_mine(&self) -> Result<bool> {
        self.lock.is_mine()
    }

    fn check_mine(&self) -> Result<()> {
        if self.lock.is_mine()? {
            return Ok(());
        }
        Err(SyncError::NotOwner { what: "lock of the condition", by: "this thread" }.into())
    }

    // ---- waiting ------------------------------------------------------------------------------------------------------

    /// Gives up the lock, however often this thread has taken it, waits until it is notified, and takes the lock again as often.
    ///
    /// What it waits for may have changed again before it has the lock: look at it, in a loop, or use
    /// [`Condition::wait_for`].
    ///
    /// # Errors
    /// `NotOwner` without the lock. `OwnerDied` if somebody died holding the lock meanwhile, `Interrupted`: the lock is held
    /// again. `Poisoned`: it is not.
    pub fn wait(&self) -> Result<()> {
        self.wait_until(Deadline::NEVER).map(drop)
    }

    /// As [`Condition::wait`], at most for `timeout`: false when the time is up. Taking the lock again may take longer.
    ///
    /// # Errors
    /// As [`Condition::wait`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        self.wait_until(Deadline::after(timeout))
    }

    /// Waits until `is_so` gives `true`, which is asked with the lock held, now and after each notification.
    ///
    /// # Errors
    /// As [`Condition::wait`].
    pub fn wait_for(&self, is_so: impl FnMut() -> bool) -> Result<()> {
        self.wait_for_until(is_so, Deadline::NEVER).map(drop)
    }

    /// As [`Condition::wait_for`], at most for `timeout`. Gives what `is_so` gave the last time.
    ///
    /// # Errors
    /// As [`Condition::wait`].
    pub fn wait_for_timeout(&self, is_so: impl FnMut() -> bool, timeout: Duration) -> Result<bool> {
        self.wait_for_until(is_so, Deadline::after(timeout))
    }

    fn wait_for_until(&self, mut is_so: impl FnMut() -> bool, deadline: Deadline) -> Result<bool> {
        self.check_mine()?;
        while !is_so() {
            if deadline.is_over() {
                return Ok(false);
            }
            self.wait_until(deadline)?;
        }
        Ok(true)
    }

    fn wait_until(&self, deadline: Deadline) -> Result<bool> {
        self.check_mine()?;
        let waiting = self.waiters().enter(ordinal())?;
        failpoint!("condition.ticket");
        let depth = self.lock.suspend().inspect_err(|_| {
            waiting.withdraw();
        })?;
        failpoint!("condition.released");
        let waited = wait::wait(self.object.attachment(), waiting.event(), deadline, || waiting.look());
        // Who cannot withdraw was notified, whatever ended the wait.
        let outcome = match waited {
            Ok(Some(())) => Ok(true),
            Ok(None) => Ok(!waiting.withdraw()),
            Err(error) => {
                if waiting.withdraw() || !matches!(error, Error::Sync(SyncError::Interrupted)) {
                    Err(error)
                } else {
                    Ok(true)
                }
            }
        };
        failpoint!("condition.awake");
        let resumed = self.lock.resume(depth);
        failpoint!("condition.resumed");
        if resumed.is_err() && matches!(outcome, Ok(true)) {
            // A poisoned lock: once that is mended, another one can use the notification.
            self.waiters().notify(1);
        }
        waiting.free();
        failpoint!("condition.freed");
        match resumed? {
            Acquired::Clean => outcome,
            Acquired::OwnerDied => Err(SyncError::OwnerDied.into()),
        }
    }

    /// Notifies up to `most` of those who wait, the ones who have waited longest; gives how many it was. Never waits: they go on
    /// when they get the lock.
    ///
    /// # Errors
    /// `NotOwner` without the lock.
    pub fn notify(&self, most: usize) -> Result<usize> {
        self.check_mine()?;
        let notified = self.waiters().notify(most);
        failpoint!("condition.notified");
        Ok(notified)
    }

    /// Notifies all who wait; gives how many it was.
    ///
    /// # Errors
    /// As [`Condition::notify`].
    pub fn notify_all(&self) -> Result<usize> {
        self.notify(usize::MAX)
    }

    /// How many wait at this instant and are not notified yet. The dead do until they are recovered.
    pub fn waiting(&self) -> usize {
        self.waiters().waiting()
    }
}

/// The held lock of a condition. Released once when dropped.
pub struct ConditionGuard<'a> {
    held: HeldLock<'a>,
}

enum HeldLock<'a> {
    Plain(LockGuard<'a>),
    Reentrant(RLockGuard<'a>),
}

impl<'a> ConditionGuard<'a> {
    fn plain(guard: LockGuard<'a>) -> ConditionGuard<'a> {
        ConditionGuard { held: HeldLock::Plain(guard) }
    }

    fn reentrant(guard: RLockGuard<'a>) -> ConditionGuard<'a> {
        ConditionGuard { held: HeldLock::Reentrant(guard) }
    }
}

impl Unlocked for ConditionGuard<'_> {
    fn poison(&mut self) {
        match &mut self.held {
            HeldLock::Plain(guard) => guard.poison(),
            HeldLock::Reentrant(guard) => guard.poison(),
        }
    }
}

impl std::fmt::Debug for ConditionGuard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConditionGuard")
    }
}

impl std::fmt::Debug for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.lock {
            Mutual::Own(_) => "own lock",
            Mutual::Foreign(Foreign::Lock(_)) => "Lock",
            Mutual::Foreign(Foreign::RLock(_)) => "RLock",
        };
        write!(f, "Condition({kind}, {} waiting)", self.waiting())
    }
}

impl Segment {
    /// The condition `name`, with a lock of its own unless told otherwise.
    pub fn condition<'a>(&'a self, name: &'a str) -> At<'a, Condition> {
        At { segment: self, name, options: ConditionOptions::default() }
    }
}

impl At<'_, Condition> {
    /// The lock it is used with, which must lie in the same segment. Give that a name, too: the condition does not keep it alive for
    /// those who open the condition later.
    #[must_use]
    pub fn lock(mut self, lock: &Lock) -> Self {
        self.options = ConditionOptions::new(Foreign::Lock(lock.clone()), self.segment);
        self
    }

    /// The re-entrant lock it is used with: as [`At::lock`].
    #[must_use]
    pub fn rlock(mut self, lock: &RLock) -> Self {
        self.options = ConditionOptions::new(Foreign::RLock(lock.clone()), self.segment);
        self
    }
}
