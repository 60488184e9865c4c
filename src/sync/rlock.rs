//! [`RLock`]: a robust lock that its owner, one thread of one process, may take again.
//!
//! ```text
//! body   word: as a mutex, names the process | depth: times beyond the first | thread: token:32, ordinal:32 above it
//! ```
//! The word is the claim. `thread` tells the owner's own threads apart: it is written after the claim and cleared before
//! the release, and counts only while its token is the word's, so what a dead process left there names nobody. Ordinals of
//! threads are never used twice in a process.
//!
//! # Crash behaviour
//!
//! | killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | after the claim, before `thread` is written | a dead owner | as [`super::Mutex`] | nothing |
//! | holding it, at any depth | a dead owner | as [`super::Mutex`]: the next owner is told, at depth 0 | what was half done |
//! | in release, `thread` cleared, word not yet | a dead owner | as [`super::Mutex`] | nothing |

use super::mutex::{Held, LockError, Unlocked, guarded};
use crate::error::{Error, Result, SyncError};
use crate::kinds::Kind;
use crate::segment::claim::{self, Acquired};
use crate::segment::object::{BodyId, HEADER, Object, Shared, create, handle_as_value};
use crate::segment::wait::Deadline;
use crate::segment::{At, Segment, atomic, session};
use shmkit_layouts::kinds::KIND_RLOCK;
use shmkit_layouts::objects::RLockBody;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What recovery does with re-entrant locks.
pub(crate) const KIND: Kind = Kind {
    recover: |attachment, body, dead| {
        if let Ok(lock) = attachment.pointer::<RLockBody>(body.offset + HEADER, "rlock") {
            claim::recover_word(atomic!(lock, word), |owner| owner == dead.token());
        }
    },
    ..Kind::plain(KIND_RLOCK)
};

/// A re-entrant robust lock: Python's `RLock`. Its owner is one thread of one process, and must release it as often as it
/// took it.
///
/// Crash behaviour: as [`crate::Mutex`]; the next owner starts at depth 1 whatever the dead one's was.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let lock = shmkit::RLock::new()?;
/// let outer = lock.lock()?;
/// let inner = lock.lock()?;
/// assert_eq!(lock.depth()?, 2);
/// drop((inner, outer));
/// assert!(!lock.is_locked());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RLock {
    object: Object,
    body: *const RLockBody,
}

// SAFETY: the pointer is into the mapping, which `object` keeps; only atomics are reached through it.
unsafe impl Send for RLock {}
// SAFETY: as above.
unsafe impl Sync for RLock {}

/// A re-entrant lock has nothing to choose.
#[derive(Debug, Clone, Copy, Default)]
pub struct RLockOptions {}

impl Shared for RLock {
    type Options = RLockOptions;

    fn kind() -> u32 {
        KIND_RLOCK
    }
    fn size(_: &RLockOptions) -> Result<u64> {
        Ok(size_of::<RLockBody>() as u64)
    }
    fn build(_: &RLockOptions, _: *mut u8, _: BodyId) -> Result<()> {
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let body = object.body()?;
        Ok(RLock { object, body })
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

handle_as_value!(RLock);

/// This thread's number in its process: from 1 on, never used twice.
pub(super) fn ordinal() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    thread_local! {
        static MINE: u32 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    MINE.with(|mine| *mine)
}

impl RLock {
    /// A new one in the session segment.
    ///
    /// # Errors
    /// `OutOfMemory`, `TooManyObjects`.
    pub fn new() -> Result<RLock> {
        RLock::new_in(&session()?)
    }

    /// A new one in `segment`.
    ///
    /// # Errors
    /// As [`RLock::new`].
    pub fn new_in(segment: &Segment) -> Result<RLock> {
        create(segment, None, &RLockOptions {}, false)
    }

    pub(super) fn lock_word(&self) -> &AtomicU32 {
        atomic!(self.body, word)
    }

    /// What `thread` holds while this thread is the owner.
    fn me(&self) -> Result<u64> {
        Ok(u64::from(self.object.attachment().token()?.0) | u64::from(ordinal()) << 32)
    }

    /// Whether this thread holds it.
    ///
    /// # Errors
    /// When the segment cannot be joined again after a fork.
    pub fn is_mine(&self) -> Result<bool> {
        // Relaxed: only this thread writes this value, and clears it before it releases the word.
        Ok(atomic!(self.body, thread).load(Ordering::Relaxed) == self.me()?
            && claim::is_mine(self.object.attachment(), self.lock_word())?)
    }

    /// How often this thread holds it; 0 if another one does, or nobody.
    ///
    /// # Errors
    /// As [`RLock::is_mine`].
    pub fn depth(&self) -> Result<u32> {
        Ok(if self.is_mine()? { atomic!(self.body, depth).load(Ordering::Relaxed).saturating_add(1) } else { 0 })
    }

    /// Once more by the owner: true if this thread is it.
    fn enter_again(&self) -> Result<bool> {
        if !self.is_mine()? {
            return Ok(false);
        }
        let depth = atomic!(self.body, depth);
        // Relaxed: written by the owner only; the release of the word publishes it.
        match depth.load(Ordering::Relaxed).checked_add(1) {
            Some(deeper) => depth.store(deeper, Ordering::Relaxed),
            None => {
                return Err(SyncError::TooManyPermits { maximum: u32::MAX, asked: 1 << 32 }.into());
            }
        }
        failpoint!("rlock.again");
        Ok(true)
    }

    fn entered(&self) -> Result<()> {
        failpoint!("rlock.claimed");
        // What a dead owner left is not this owner's depth.
        atomic!(self.body, depth).store(0, Ordering::Relaxed);
        atomic!(self.body, thread).store(self.me()?, Ordering::Relaxed);
        Ok(())
    }

    fn acquire_until(&self, deadline: Option<Deadline>) -> Result<Option<Acquired>> {
        if self.enter_again()? {
            return Ok(Some(Acquired::Clean));
        }
        let attachment = self.object.attachment();
        let how = match deadline {
            Some(deadline) => Some(claim::lock(attachment, self.lock_word(), deadline, "rlock")?),
            None => claim::try_lock(attachment, self.lock_word())?,
        };
        if how.is_some() {
            self.entered()?;
        }
        Ok(how)
    }

    fn guard(&self, how: Acquired) -> (RLockGuard<'_>, Acquired) {
        (RLockGuard { lock: self, poison: false, _not_send: std::marker::PhantomData }, how)
    }

    /// Waits for the lock, or takes it once more.
    ///
    /// # Errors
    /// `OwnerDied` with the guard: repair what the lock stands for; `Poisoned`.
    pub fn lock(&self) -> Result<RLockGuard<'_>, LockError<RLockGuard<'_>>> {
        guarded(self.lock_until(Deadline::NEVER))
    }

    /// As [`RLock::lock`], at most for `timeout`.
    ///
    /// # Errors
    /// As [`RLock::lock`], and `TimedOut`, which names the holder.
    pub fn lock_timeout(&self, timeout: Duration) -> Result<RLockGuard<'_>, LockError<RLockGuard<'_>>> {
        guarded(self.lock_until(Deadline::after(timeout)))
    }

    fn lock_until(&self, deadline: Deadline) -> Result<(RLockGuard<'_>, Acquired)> {
        let how = self.acquire_until(Some(deadline))?.unwrap_or(Acquired::Clean);
        Ok(self.guard(how))
    }

    /// Takes the lock if nobody else has it.
    ///
    /// # Errors
    /// As [`RLock::lock`], and `WouldBlock`, which names the holder.
    pub fn try_lock(&self) -> Result<RLockGuard<'_>, LockError<RLockGuard<'_>>> {
        guarded(match self.acquire_until(None) {
            Ok(Some(how)) => Ok(self.guard(how)),
            Ok(None) => Err(Held::would_block(&self.object, self.lock_word(), "rlock")),
            Err(error) => Err(error),
        })
    }

    /// Waits for the lock without a guard: [`RLock::release`] follows. A lock whose owner died is taken as it is.
    ///
    /// # Errors
    /// `Poisoned`.
    pub fn acquire(&self) -> Result<()> {
        self.acquire_until(Some(Deadline::NEVER)).map(drop)
    }

    /// As [`RLock::acquire`], at most for `timeout`: false when the time is up.
    ///
    /// # Errors
    /// `Poisoned`.
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<bool> {
        match self.acquire_until(Some(Deadline::after(timeout))) {
            Ok(_) => Ok(true),
            Err(Error::Sync(SyncError::TimedOut { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Releases it once.
    ///
    /// # Errors
    /// `NotOwner` if this thread does not hold it.
    pub fn release(&self) -> Result<()> {
        self.leave(false, false)
    }

    /// Releases it whatever its depth for a wait at a condition; gives the depth beyond the first.
    pub(super) fn suspend(&self) -> Result<u32> {
        // Relaxed: the owner's own.
        let depth = atomic!(self.body, depth).swap(0, Ordering::Relaxed);
        self.leave(false, false).map(|()| depth)
    }

    /// Takes it again at that depth after a wait at a condition.
    pub(super) fn resume(&self, depth: u32) -> Result<Acquired> {
        let how = claim::lock(self.object.attachment(), self.lock_word(), Deadline::NEVER, "rlock")?;
        self.entered()?;
        atomic!(self.body, depth).store(depth, Ordering::Relaxed);
        Ok(how)
    }

    fn leave(&self, poison: bool, abandon: bool) -> Result<()> {
        if !self.is_mine()? {
            return Err(SyncError::NotOwner { what: "rlock", by: "this thread" }.into());
        }
        let depth = atomic!(self.body, depth);
        let now = depth.load(Ordering::Relaxed);
        if now > 0 && !poison {
            depth.store(now - 1, Ordering::Relaxed);
            return Ok(());
        }
        depth.store(0, Ordering::Relaxed);
        atomic!(self.body, thread).store(0, Ordering::Relaxed);
        failpoint!("rlock.cleared");
        let attachment = self.object.attachment();
        match (poison, abandon) {
            (true, _) => claim::poison(attachment, self.lock_word(), "rlock"),
            (_, true) => claim::abandon(attachment, self.lock_word(), "rlock"),
            _ => claim::unlock(attachment, self.lock_word(), "rlock"),
        }
    }

    /// Whether somebody holds it at this instant.
    pub fn is_locked(&self) -> bool {
        claim::is_locked(self.lock_word())
    }
}

/// A held re-entrant lock. Released once when dropped.
pub struct RLockGuard<'a> {
    lock: &'a RLock,
    poison: bool,
    // The owner is a thread.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Unlocked for RLockGuard<'_> {
    fn poison(&mut self) {
        self.poison = true;
    }
}

impl Drop for RLockGuard<'_> {
    fn drop(&mut self) {
        // An error says that somebody released it behind this guard's back: there is nothing left to release.
        let _ = self.lock.leave(self.poison, std::thread::panicking());
    }
}

impl std::fmt::Debug for RLockGuard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RLockGuard")
    }
}

impl std::fmt::Debug for RLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RLock").field("locked", &self.is_locked()).finish_non_exhaustive()
    }
}

impl Segment {
    /// The re-entrant lock `name`.
    pub fn rlock<'a>(&'a self, name: &'a str) -> At<'a, RLock> {
        At { segment: self, name, options: RLockOptions {} }
    }
}
