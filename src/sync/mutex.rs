//! [`Mutex`]: a robust lock with the data it guards; [`Lock`]: one without data.
//!
//! ```text
//! body   header | word: contended:1 | recover:1 | generation:18 | slot:12 | … | data at byte 192
//! ```
//!
//! # Crash behaviour
//!
//! | killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | before the acquiring CAS | nothing | nobody needs to | nothing |
//! | holding it | the word names a dead participant | recovery, or a waiter within one slice (50 ms), hands it on as "owner died" | what the owner had half done: the next owner is told and repairs it |
//! | in unlock, after the CAS, before the wake | a free lock with a sleeper | the sleeper, at the end of its slice | 50 ms |
//! | asleep in lock | a mark that somebody waits | nobody needs to: one wake without a sleeper | nothing |
//! | as the next owner, before the repair | the word names a dead participant, recover set | as above, again | nothing |

use crate::element::Element;
use crate::error::{Error, Result, SyncError};
use crate::kinds::Kind;
use crate::segment::claim::{self, Acquired};
use crate::segment::object::{BodyId, ElementType, HEADER, Object, Shared, create, handle_as_value};
use crate::segment::wait::Deadline;
use crate::segment::{At, Attachment, Dead, Extent, Segment, SharedObject, atomic, session};
use shmkit_layouts::kinds::{KIND_LOCK, KIND_MUTEX};
use shmkit_layouts::objects::MutexBody;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// What recovery does with mutexes.
pub(crate) const KIND: Kind = Kind { recover, ..Kind::plain(KIND_MUTEX) };

/// What recovery does with locks.
pub(crate) const LOCK: Kind = Kind { recover, ..Kind::plain(KIND_LOCK) };

fn recover(attachment: &Attachment, body: &Extent, dead: Dead) {
    if let Ok(lock) = attachment.pointer::<MutexBody>(body.offset + HEADER, "lock") {
        claim::recover_word(atomic!(lock, word), |owner| owner == dead.token());
    }
}

/// Bytes from the start of a mutex's own struct to its data.
pub(crate) const DATA: u64 = size_of::<MutexBody>() as u64;

/// Why a lock could not be had as usual. `G` is the guard: when the last owner died, one has the lock all the same.
pub enum LockError<G: Unlocked> {
    /// The last owner died or panicked while it held the lock. The lock is held; repair what it guards.
    OwnerDied(Recovered<G>),
    /// It was not to be had: time-out, poisoned, corrupt.
    Failed(Error),
}

impl<G: Unlocked> LockError<G> {
    /// Repairs what the lock guards and gives the guard; for a lock that could not be had, the error.
    ///
    /// `repair` should be idempotent: this process may die in it, and the next one repairs again.
    ///
    /// # Errors
    /// What `Failed` holds.
    pub fn repair(self, repair: impl FnOnce(&mut G)) -> Result<G> {
        match self {
            LockError::OwnerDied(recovered) => Ok(recovered.repair(repair)),
            LockError::Failed(error) => Err(error),
        }
    }

    /// The same with another guard in it.
    pub(super) fn map<H: Unlocked>(self, wrap: impl FnOnce(G) -> H) -> LockError<H> {
        match self {
            LockError::OwnerDied(mut recovered) => {
                LockError::OwnerDied(Recovered { guard: recovered.guard.take().map(wrap) })
            }
            LockError::Failed(error) => LockError::Failed(error),
        }
    }

    /// Whether the lock is held although its last owner died.
    pub fn is_owner_died(&self) -> bool {
        matches!(self, LockError::OwnerDied(_))
    }
}

impl<G: Unlocked> fmt::Debug for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::OwnerDied(_) => f.write_str("OwnerDied"),
            LockError::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
        }
    }
}

impl<G: Unlocked> fmt::Display for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::OwnerDied(_) => SyncError::OwnerDied.fmt(f),
            LockError::Failed(error) => error.fmt(f),
        }
    }
}

impl<G: Unlocked> std::error::Error for LockError<G> {}

impl<G: Unlocked> From<LockError<G>> for Error {
    /// For `?`: a lock whose owner died becomes an error, and, since nobody repaired it, poisoned.
    fn from(error: LockError<G>) -> Error {
        match error {
            LockError::OwnerDied(_) => SyncError::OwnerDied.into(),
            LockError::Failed(error) => error,
        }
    }
}

/// A guard that can poison its lock instead of releasing it.
pub trait Unlocked {
    /// Leaves the lock poisoned.
    #[doc(hidden)]
    fn poison(&mut self);
}

/// The guard of a lock whose last owner died. Dropped without a repair, it poisons the lock.
pub struct Recovered<G: Unlocked> {
    guard: Option<G>,
}

impl<G: Unlocked> Recovered<G> {
    pub(crate) fn new(guard: G) -> Recovered<G> {
        Recovered { guard: Some(guard) }
    }

    /// Repairs what the lock guards and gives the ordinary guard.
    pub fn repair(mut self, repair: impl FnOnce(&mut G)) -> G {
        let mut guard = self.guard.take().expect("taken once, by value");
        repair(&mut guard);
        guard
    }
}

impl<G: Unlocked> Drop for Recovered<G> {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            guard.poison();
        }
    }
}

/// A robust lock word that a guard releases: the shared part of every guard, those of values and arrays too.
pub(crate) struct Held<'a> {
    object: &'a Object,
    word: &'a AtomicU32,
    what: &'static str,
    /// The lock is left poisoned instead of free.
    pub(crate) poison: bool,
    /// The lock is left as by a dead owner: the next one is told.
    pub(super) abandon: bool,
    // A guard is released by the process that took it; the thread does not matter, but `Send` would let it outlive a scope
    // that a panic leaves.
    _not_send: PhantomData<*const ()>,
}

impl<'a> Held<'a> {
    /// Waits for the lock.
    #[inline]
    pub(crate) fn lock(
        object: &'a Object,
        word: &'a AtomicU32,
        what: &'static str,
        deadline: Deadline,
    ) -> Result<(Self, Acquired)> {
        failpoint!("lock.before");
        let how = claim::lock(object.attachment(), word, deadline, what)?;
        failpoint!("lock.after");
        Ok((Held::taken(object, word, what), how))
    }

    /// Takes the lock if it is free: the short way of [`Held::lock`].
    #[inline(always)]
    pub(crate) fn lock_free(object: &'a Object, word: &'a AtomicU32, what: &'static str) -> Option<Self> {
        failpoint!("lock.before");
        if !claim::lock_free(object.attachment(), word) {
            return None;
        }
        failpoint!("lock.after");
        Some(Held::taken(object, word, what))
    }

    /// Takes the lock if nobody has it; the error names who has.
    pub(crate) fn try_lock(object: &'a Object, word: &'a AtomicU32, what: &'static str) -> Result<(Self, Acquired)> {
        match claim::try_lock(object.attachment(), word)? {
            Some(how) => Ok((Held::taken(object, word, what), how)),
            None => Err(Held::would_block(object, word, what)),
        }
    }

    /// A lock that this process has just taken.
    #[inline]
    pub(super) fn taken(object: &'a Object, word: &'a AtomicU32, what: &'static str) -> Self {
        Held { object, word, what, poison: false, abandon: false, _not_send: PhantomData }
    }

    /// The error that names who has the lock.
    pub(super) fn would_block(object: &Object, word: &AtomicU32, what: &'static str) -> Error {
        SyncError::WouldBlock { what, holder: object.attachment().holder(claim::owner(word)) }.into()
    }
}

/// What a release is beside one compare-and-swap: a poisoned lock, an abandoned one, a waiter. It takes the parts of a guard and
/// not the guard: one whose address nobody is given needs no memory.
#[cold]
#[inline(never)]
fn release_slow(attachment: &Attachment, word: &AtomicU32, what: &'static str, poison: bool, abandon: bool) {
    let _ = if poison {
        claim::poison(attachment, word, what)
    } else if abandon {
        claim::abandon(attachment, word, what)
    } else {
        claim::unlock(attachment, word, what)
    };
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        failpoint!("unlock.before");
        // An unwinding thread leaves the data as a killed process does: the next owner is told.
        let abandon = self.abandon || std::thread::panicking();
        let attachment = self.object.attachment();
        if self.poison || abandon || !claim::unlock_unwaited(attachment, self.word) {
            release_slow(attachment, self.word, self.what, self.poison, abandon);
        }
        failpoint!("unlock.after");
    }
}

/// What `lock` returns: the guard, or the guard to be repaired.
#[inline]
pub(crate) fn guarded<G: Unlocked>(taken: Result<(G, Acquired)>) -> Result<G, LockError<G>> {
    match taken {
        Ok((guard, Acquired::Clean)) => Ok(guard),
        Ok((guard, Acquired::OwnerDied)) => Err(LockError::OwnerDied(Recovered::new(guard))),
        Err(error) => Err(LockError::Failed(error)),
    }
}

// ---- Mutex -----------------------------------------------------------------------------------------------------------

/// A robust mutex and the data it guards, shared by threads and processes.
///
/// If its owner is killed, the next taker gets the lock and is told, by [`LockError::OwnerDied`], that the data may be half
/// changed. It is not re-entrant; see [`crate::RLock`].
///
/// Crash behaviour: see the table at the head of the module `sync::mutex` in the sources and in `docs/reliability.md`.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let total = shmkit::Mutex::new(0u64)?;
/// match total.lock() {
///     Ok(mut total) => *total += 1,
///     Err(dead) => *dead.repair(|total| **total = 0)? += 1,
/// }
/// assert_eq!(*total.lock()?, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Mutex<T: Element> {
    object: Object,
    body: *const MutexBody,
    data: *mut T,
}

// SAFETY: the pointers are into the mapping, which `object` keeps; the data is reached only under the lock.
unsafe impl<T: Element + Send> Send for Mutex<T> {}
// SAFETY: as above.
unsafe impl<T: Element + Send> Sync for Mutex<T> {}

/// What a mutex starts with.
#[derive(Debug, Clone, Copy)]
pub struct MutexOptions<T> {
    initial: T,
}

impl<T: Element> Shared for Mutex<T> {
    type Options = MutexOptions<T>;

    fn kind() -> u32 {
        KIND_MUTEX
    }
    fn element() -> Option<ElementType> {
        Some(ElementType::of::<T>())
    }
    fn size(_: &MutexOptions<T>) -> Result<u64> {
        Ok(DATA + size_of::<T>() as u64)
    }
    fn build(options: &MutexOptions<T>, start: *mut u8, _: BodyId) -> Result<()> {
        // SAFETY: the body has room for it and nobody else reaches it; the place is 64-byte aligned.
        unsafe { start.add(DATA as usize).cast::<T>().write_unaligned(options.initial) };
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let body = object.body::<MutexBody>()?;
        let data = object.part::<T>(DATA, 1)?.cast_mut();
        Ok(Mutex { object, body, data })
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

handle_as_value!(Mutex<T: Element>);

impl<T: Element> Mutex<T> {
    /// A new one in the session segment.
    ///
    /// # Errors
    /// `OutOfMemory`, `TooManyObjects`.
    pub fn new(initial: T) -> Result<Mutex<T>> {
        Mutex::new_in(&session()?, initial)
    }

    /// A new one in `segment`.
    ///
    /// # Errors
    /// As [`Mutex::new`].
    pub fn new_in(segment: &Segment, initial: T) -> Result<Mutex<T>> {
        create(segment, None, &MutexOptions { initial }, false)
    }

    #[inline]
    pub(super) fn lock_word(&self) -> &AtomicU32 {
        atomic!(self.body, word)
    }

    #[inline]
    fn guard<'a>(&'a self, (held, how): (Held<'a>, Acquired)) -> (MutexGuard<'a, T>, Acquired) {
        (MutexGuard { held, data: self.data, _type: PhantomData }, how)
    }

    /// Waits for the lock.
    ///
    /// # Errors
    /// `OwnerDied` with the guard to repair; `Poisoned`.
    #[inline]
    pub fn lock(&self) -> Result<MutexGuard<'_, T>, LockError<MutexGuard<'_, T>>> {
        match Held::lock_free(&self.object, self.lock_word(), "mutex") {
            Some(held) => Ok(MutexGuard { held, data: self.data, _type: PhantomData }),
            None => self.lock_until(Deadline::NEVER),
        }
    }

    #[cold]
    #[inline(never)]
    fn lock_until(&self, deadline: Deadline) -> Result<MutexGuard<'_, T>, LockError<MutexGuard<'_, T>>> {
        guarded(Held::lock(&self.object, self.lock_word(), "mutex", deadline).map(|held| self.guard(held)))
    }

    /// Waits for the lock, at most for `timeout`.
    ///
    /// # Errors
    /// As [`Mutex::lock`], and `TimedOut`, which names the holder.
    pub fn lock_timeout(&self, timeout: Duration) -> Result<MutexGuard<'_, T>, LockError<MutexGuard<'_, T>>> {
        self.lock_until(Deadline::after(timeout))
    }

    /// Takes the lock if nobody has it.
    ///
    /// # Errors
    /// As [`Mutex::lock`], and `WouldBlock`, which names the holder.
    pub fn try_lock(&self) -> Result<MutexGuard<'_, T>, LockError<MutexGuard<'_, T>>> {
        guarded(Held::try_lock(&self.object, self.lock_word(), "mutex").map(|held| self.guard(held)))
    }

    /// Makes a poisoned mutex usable again: whoever calls this vouches for the data.
    pub fn clear_poison(&self) {
        claim::clear_poison(self.lock_word());
    }

    /// Its segment.
    pub fn segment(&self) -> Segment {
        self.object.segment()
    }
}

/// Exclusive access to a mutex's data. Released when dropped; dropped by a panic, it leaves the lock to the next taker as a
/// dead owner does.
pub struct MutexGuard<'a, T: Element> {
    held: Held<'a>,
    data: *mut T,
    _type: PhantomData<&'a mut T>,
}

impl<T: Element> Unlocked for MutexGuard<'_, T> {
    fn poison(&mut self) {
        self.held.poison = true;
    }
}

impl<T: Element> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is held, so nobody writes; any bytes are a T (`Pod`); aligned and inside the mapping (`attach`).
        unsafe { &*self.data }
    }
}

impl<T: Element> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held exclusively; any bytes are a T (`Pod`); aligned and inside the mapping (`attach`).
        unsafe { &mut *self.data }
    }
}

impl<T: Element + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Element> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").field("element", &T::NAME).finish_non_exhaustive()
    }
}

// ---- Lock ------------------------------------------------------------------------------------------------------------

/// A robust lock without data: Python's `Lock`. Not re-entrant; any process may release it.
///
/// Crash behaviour: as [`Mutex`].
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let lock = shmkit::Lock::new()?;
/// {
///     let _guard = lock.lock()?;
///     assert!(lock.is_locked());
/// }
/// assert!(lock.acquire_timeout(std::time::Duration::from_secs(1))?);
/// lock.release()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Lock {
    object: Object,
    body: *const MutexBody,
}

// SAFETY: the pointer is into the mapping, which `object` keeps; only atomics are reached through it.
unsafe impl Send for Lock {}
// SAFETY: as above.
unsafe impl Sync for Lock {}

/// A lock has nothing to choose.
#[derive(Debug, Clone, Copy, Default)]
pub struct LockOptions {}

impl Shared for Lock {
    type Options = LockOptions;

    fn kind() -> u32 {
        KIND_LOCK
    }
    fn size(_: &LockOptions) -> Result<u64> {
        Ok(DATA)
    }
    fn build(_: &LockOptions, _: *mut u8, _: BodyId) -> Result<()> {
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let body = object.body()?;
        Ok(Lock { object, body })
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

handle_as_value!(Lock);

impl Lock {
    /// A new one in the session segment.
    ///
    /// # Errors
    /// `OutOfMemory`, `TooManyObjects`.
    pub fn new() -> Result<Lock> {
        Lock::new_in(&session()?)
    }

    /// A new one in `segment`.
    ///
    /// # Errors
    /// As [`Lock::new`].
    pub fn new_in(segment: &Segment) -> Result<Lock> {
        create(segment, None, &LockOptions {}, false)
    }

    pub(super) fn lock_word(&self) -> &AtomicU32 {
        atomic!(self.body, word)
    }

    /// Waits for the lock.
    ///
    /// # Errors
    /// `OwnerDied` with the guard: repair what the lock stands for; `Poisoned`.
    pub fn lock(&self) -> Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        let held = Held::lock(&self.object, self.lock_word(), "lock", Deadline::NEVER);
        guarded(held.map(|(held, how)| (LockGuard { held }, how)))
    }

    /// Waits for the lock, at most for `timeout`.
    ///
    /// # Errors
    /// As [`Lock::lock`], and `TimedOut`, which names the holder.
    pub fn lock_timeout(&self, timeout: Duration) -> Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        let held = Held::lock(&self.object, self.lock_word(), "lock", Deadline::after(timeout));
        guarded(held.map(|(held, how)| (LockGuard { held }, how)))
    }

    /// Takes the lock if nobody has it.
    ///
    /// # Errors
    /// As [`Lock::lock`], and `WouldBlock`, which names the holder.
    pub fn try_lock(&self) -> Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        let held = Held::try_lock(&self.object, self.lock_word(), "lock");
        guarded(held.map(|(held, how)| (LockGuard { held }, how)))
    }

    /// Waits for the lock without a guard: somebody calls [`Lock::release`]. A lock whose owner died is taken as it is.
    ///
    /// # Errors
    /// `Poisoned`.
    pub fn acquire(&self) -> Result<()> {
        claim::lock(self.object.attachment(), self.lock_word(), Deadline::NEVER, "lock").map(drop)
    }

    /// As [`Lock::acquire`], at most for `timeout`: false when the time is up.
    ///
    /// # Errors
    /// `Poisoned`.
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<bool> {
        match claim::lock(self.object.attachment(), self.lock_word(), Deadline::after(timeout), "lock") {
            Ok(_) => Ok(true),
            Err(Error::Sync(SyncError::TimedOut { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Releases the lock, whoever holds it: as in Python, any thread of any process may.
    ///
    /// # Errors
    /// `NotOwner` if it is not locked.
    pub fn release(&self) -> Result<()> {
        if claim::unlock(self.object.attachment(), self.lock_word(), "lock").is_ok()
            || claim::force_unlock(self.lock_word())
        {
            return Ok(());
        }
        Err(SyncError::NotOwner { what: "lock", by: "anybody" }.into())
    }

    /// Releases it for a wait at a condition.
    pub(super) fn suspend(&self) -> Result<()> {
        claim::unlock(self.object.attachment(), self.lock_word(), "lock")
    }

    /// Takes it again after a wait at a condition.
    pub(super) fn resume(&self) -> Result<Acquired> {
        claim::lock(self.object.attachment(), self.lock_word(), Deadline::NEVER, "lock")
    }

    /// Whether somebody holds it at this instant.
    pub fn is_locked(&self) -> bool {
        claim::is_locked(self.lock_word())
    }

    /// Whether this process holds it.
    ///
    /// # Errors
    /// When the segment cannot be joined again after a fork.
    pub fn is_mine(&self) -> Result<bool> {
        claim::is_mine(self.object.attachment(), self.lock_word())
    }
}

/// A held lock. Released when dropped.
pub struct LockGuard<'a> {
    held: Held<'a>,
}

impl Unlocked for LockGuard<'_> {
    fn poison(&mut self) {
        self.held.poison = true;
    }
}

impl fmt::Debug for LockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockGuard")
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("locked", &self.is_locked()).finish_non_exhaustive()
    }
}

impl Segment {
    /// The lock `name`.
    pub fn lock<'a>(&'a self, name: &'a str) -> At<'a, Lock> {
        At { segment: self, name, options: LockOptions {} }
    }

    /// The mutex `name`, all zeros unless told otherwise.
    pub fn mutex<'a, T: Element>(&'a self, name: &'a str) -> At<'a, Mutex<T>> {
        At { segment: self, name, options: MutexOptions { initial: T::zeroed() } }
    }
}

impl<T: Element> At<'_, Mutex<T>> {
    /// The value it starts with.
    #[must_use]
    pub fn initial(mut self, initial: T) -> Self {
        self.options.initial = initial;
        self
    }
}

const _: () = {
    const fn is_shared<T: SharedObject>() {}
    is_shared::<Lock>();
};
