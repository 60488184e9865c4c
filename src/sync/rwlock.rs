//! [`RwLock`]: many readers or one writer, robust on both sides.
//!
//! ```text
//! body   word, the writer's lock word | released, drained: wait words | high | data at byte 192 | readers[slots]
//! reader u64  token:32 | count:32, on a line of its own: how many readers the process in that slot has
//!
//! read    word = 0: my count + 1; word = 0 still: in. Else: my count - 1, publish drained; wait on released
//! write   lock word; then wait on drained until no count of a living participant is left      new readers wait meanwhile
//! unread  my count - 1; publish drained          unwrite   unlock word; publish released to all
//! death   of a reader: its count → 0; of a writer: word → NOBODY|recover, and who finds that, reader or writer, takes the
//!         word and is told
//! ```
//! The count is raised before the word is read again, and the word is taken before the counts are read, all sequentially
//! consistent: a reader and a writer cannot both miss each other. `high` bounds the search for counts; it only grows.
//!
//! # Crash behaviour
//!
//! | killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | a reader, its count raised, in or not | a count of a dead participant | recovery, or the waiting writer at the end of its slice | nothing |
//! | a reader, its count lowered, before the wake | a writer that sleeps | the sleeper, at the end of its slice | 50 ms |
//! | a writer, waiting for readers to leave | a word that names a dead participant | recovery hands it on as "owner died" | nothing: the data is whole, but nobody can know |
//! | a writer, inside | the same | the same; a reader that finds it gets the write guard to repair the data | what was half done: the next one is told |
//! | a writer, the word unlocked, before the wake | readers that sleep | the sleepers, at the end of their slice | at most 1 s |
//! | a writer, becoming a reader | word and count of a dead participant | recovery: as inside | nothing, but the next one is told |

use super::mutex::{LockError, Recovered, Unlocked};
use super::readers::{Entry, Gate, Writing};
use crate::element::Element;
use crate::error::{Result, SyncError};
use crate::segment::claim::{self, Acquired};
use crate::segment::object::{BodyId, ElementType, Object, Shared, create, handle_as_value};
use crate::segment::wait::Deadline;
use crate::segment::{At, Segment, session};
use shmkit_layouts::kinds::KIND_RWLOCK;
use shmkit_layouts::objects::{ReaderCount, RwLockBody};
use shmkit_layouts::words::Token;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// A robust lock that many readers or one writer hold, and the data it guards.
///
/// Writers go first: once one waits, new readers wait for it, too. So a thread that reads must not ask to read again before it has
/// dropped its guard. Reading costs an addition on a cache line that only this process's readers write; writing looks at every
/// process that has ever read. The lock takes 64 bytes for each process that can be attached to its segment.
///
/// # Crash behaviour
/// The death of a reader is no harm: its share vanishes. If a writer is killed or panics, whoever comes next, reader or
/// writer, gets [`LockError::OwnerDied`] with the write guard: the data may be half changed; repair it, and
/// [`RwLockWriteGuard::downgrade`] if it was to be read. Dropped without a repair, it is poisoned for all.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let table = shmkit::RwLock::new([0u32; 8])?;
/// table.write()?[3] = 7;
/// let (one, two) = (table.read()?, table.read()?);
/// assert_eq!(one[3] + two[3], 14);
/// assert!(table.try_write().is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RwLock<T: Element> {
    gate: Gate,
    data: *mut T,
}

// SAFETY: the pointers are into the mapping, which the gate's object keeps; the data is reached only under the lock.
unsafe impl<T: Element + Send> Send for RwLock<T> {}
// SAFETY: as above; readers in several threads share the data.
unsafe impl<T: Element + Send + Sync> Sync for RwLock<T> {}

/// What a lock for readers and writers starts with.
#[derive(Debug, Clone, Copy)]
pub struct RwLockOptions<T> {
    initial: T,
    slots: u32,
}

const DATA: u64 = size_of::<RwLockBody>() as u64;

fn readers_offset<T>() -> Option<u64> {
    (size_of::<T>() as u64).checked_add(DATA)?.checked_next_multiple_of(align_of::<ReaderCount>() as u64)
}

impl<T: Element> Shared for RwLock<T> {
    type Options = RwLockOptions<T>;

    fn kind() -> u32 {
        KIND_RWLOCK
    }
    fn element() -> Option<ElementType> {
        Some(ElementType::of::<T>())
    }
    fn size(options: &RwLockOptions<T>) -> Result<u64> {
        let counts = u64::from(options.slots) * size_of::<ReaderCount>() as u64;
        Ok(readers_offset::<T>().and_then(|offset| offset.checked_add(counts)).unwrap_or(u64::MAX))
    }
    fn build(options: &RwLockOptions<T>, start: *mut u8, _: BodyId) -> Result<()> {
        let body = start.cast::<RwLockBody>();
        // SAFETY: the body has room for all of it, is 64-byte aligned, and nobody else reaches it yet.
        unsafe {
            (&raw mut (*body).readers_offset).write(readers_offset::<T>().unwrap_or(u64::MAX));
            (&raw mut (*body).readers).write(options.slots);
            start.add(DATA as usize).cast::<T>().write_unaligned(options.initial);
        }
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let data = object.part::<T>(DATA, 1)?.cast_mut();
        let gate = Gate::attach(object, DATA + size_of::<T>() as u64)?;
        Ok(RwLock { gate, data })
    }
    fn object(&self) -> &Object {
        &self.gate.object
    }
}

handle_as_value!(RwLock<T: Element>);

/// What `read` gives: the guard, or the write guard of a lock whose writer died.
type Read<'a, T> = Result<RwLockReadGuard<'a, T>, LockError<RwLockWriteGuard<'a, T>>>;
/// What `write` gives.
type Write<'a, T> = Result<RwLockWriteGuard<'a, T>, LockError<RwLockWriteGuard<'a, T>>>;

impl<T: Element> RwLock<T> {
    /// A new one in the session segment.
    ///
    /// # Errors
    /// `OutOfMemory`, `TooManyObjects`.
    pub fn new(initial: T) -> Result<RwLock<T>> {
        RwLock::new_in(&session()?, initial)
    }

    /// A new one in `segment`.
    ///
    /// # Errors
    /// As [`RwLock::new`].
    pub fn new_in(segment: &Segment, initial: T) -> Result<RwLock<T>> {
        create(segment, None, &RwLockOptions { initial, slots: slots(segment) }, false)
    }

    fn reading(&self, token: Token) -> RwLockReadGuard<'_, T> {
        RwLockReadGuard { lock: self, token, _not_send: PhantomData }
    }

    fn writing<'a>(&'a self, writing: Writing<'a>) -> RwLockWriteGuard<'a, T> {
        RwLockWriteGuard { writing, lock: self, _type: PhantomData }
    }

    fn read_with<'a>(&'a self, entry: Result<Entry<'a>>) -> Read<'a, T> {
        match entry {
            Ok(Entry::Shared(token)) => Ok(self.reading(token)),
            Ok(Entry::Exclusive(writing)) => Err(LockError::OwnerDied(Recovered::new(self.writing(writing)))),
            Err(error) => Err(LockError::Failed(error)),
        }
    }

    fn write_with<'a>(&'a self, taken: Result<(Writing<'a>, Acquired)>) -> Write<'a, T> {
        match taken {
            Ok((writing, Acquired::Clean)) => Ok(self.writing(writing)),
            Ok((writing, Acquired::OwnerDied)) => Err(LockError::OwnerDied(Recovered::new(self.writing(writing)))),
            Err(error) => Err(LockError::Failed(error)),
        }
    }

    /// Waits until no writer has it or waits for it, and reads.
    ///
    /// # Errors
    /// `OwnerDied` with the *write* guard, to repair the data; `Poisoned`; `Interrupted`.
    pub fn read(&self) -> Result<RwLockReadGuard<'_, T>, LockError<RwLockWriteGuard<'_, T>>> {
        self.read_with(self.gate.read(Deadline::NEVER))
    }

    /// As [`RwLock::read`], at most for `timeout`.
    ///
    /// # Errors
    /// As [`RwLock::read`], and `TimedOut`, which names the writer.
    pub fn read_timeout(
        &self,
        timeout: Duration,
    ) -> Result<RwLockReadGuard<'_, T>, LockError<RwLockWriteGuard<'_, T>>> {
        self.read_with(self.gate.read(Deadline::after(timeout)))
    }

    /// Reads if no writer has it or waits for it.
    ///
    /// # Errors
    /// As [`RwLock::read`], and `WouldBlock`, which names the writer.
    pub fn try_read(&self) -> Result<RwLockReadGuard<'_, T>, LockError<RwLockWriteGuard<'_, T>>> {
        self.read_with(self.gate.read(Deadline::after(Duration::ZERO)).map_err(would_block))
    }

    /// Waits until nobody has it, and writes. Who asks to read from now on waits.
    ///
    /// # Errors
    /// `OwnerDied` with the guard to repair; `Poisoned`; `Interrupted`.
    pub fn write(&self) -> Result<RwLockWriteGuard<'_, T>, LockError<RwLockWriteGuard<'_, T>>> {
        self.write_with(self.gate.write(Deadline::NEVER))
    }

    /// As [`RwLock::write`], at most for `timeout`.
    ///
    /// # Errors
    /// As [`RwLock::write`], and `TimedOut`, which names the writer, or one of the processes that read.
    pub fn write_timeout(
        &self,
        timeout: Duration,
    ) -> Result<RwLockWriteGuard<'_, T>, LockError<RwLockWriteGuard<'_, T>>> {
        self.write_with(self.gate.write(Deadline::after(timeout)))
    }

    /// Writes if nobody has it.
    ///
    /// # Errors
    /// As [`RwLock::write`], and `WouldBlock`, which names a holder.
    pub fn try_write(&self) -> Result<RwLockWriteGuard<'_, T>, LockError<RwLockWriteGuard<'_, T>>> {
        self.write_with(self.gate.try_write())
    }

    /// How many readers there are at this instant, in all processes. Those of the dead count until they are recovered.
    pub fn readers(&self) -> u64 {
        self.gate.readers()
    }

    /// Whether a writer has it, or waits for the readers to leave, at this instant.
    pub fn is_write_locked(&self) -> bool {
        claim::is_locked(self.gate.word())
    }

    /// Makes a poisoned lock usable again: whoever calls this vouches for the data.
    pub fn clear_poison(&self) {
        claim::clear_poison(self.gate.word());
        crate::segment::wait::publish_all(self.gate.released());
    }
}

fn would_block(error: crate::Error) -> crate::Error {
    match error {
        crate::Error::Sync(SyncError::TimedOut { what, holder, .. }) => SyncError::WouldBlock { what, holder }.into(),
        other => other,
    }
}

/// Shared access to the data. It ends when the guard is dropped.
pub struct RwLockReadGuard<'a, T: Element> {
    lock: &'a RwLock<T>,
    /// The process that entered.
    token: Token,
    _not_send: PhantomData<*const ()>,
}

impl<T: Element> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: a reader is inside, so nobody writes; any bytes are a T (`Pod`); aligned and inside the mapping (`attach`).
        unsafe { &*self.lock.data }
    }
}

impl<T: Element> Drop for RwLockReadGuard<'_, T> {
    fn drop(&mut self) {
        self.lock.gate.exit(self.token);
    }
}

/// Exclusive access to the data. It ends when the guard is dropped; dropped by a panic, it leaves the lock to the next one as a
/// dead writer does.
pub struct RwLockWriteGuard<'a, T: Element> {
    writing: Writing<'a>,
    lock: &'a RwLock<T>,
    _type: PhantomData<&'a mut T>,
}

impl<'a, T: Element> RwLockWriteGuard<'a, T> {
    /// Becomes a reader without letting another writer in between.
    ///
    /// # Errors
    /// `Corrupt`. The lock is released then.
    pub fn downgrade(self) -> Result<RwLockReadGuard<'a, T>> {
        let token = self.lock.gate.enter()?;
        let reading = self.lock.reading(token);
        failpoint!("rwlock.downgraded");
        drop(self);
        Ok(reading)
    }
}

impl<T: Element> Unlocked for RwLockWriteGuard<'_, T> {
    fn poison(&mut self) {
        self.writing.held.poison = true;
    }
}

impl<T: Element> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is held exclusively; any bytes are a T (`Pod`); aligned and inside the mapping (`attach`).
        unsafe { &*self.lock.data }
    }
}

impl<T: Element> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { &mut *self.lock.data }
    }
}

impl<T: Element + fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Element + fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Element> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("RwLock");
        shown.field("readers", &self.readers()).field("write_locked", &self.is_write_locked()).finish_non_exhaustive()
    }
}

fn slots(segment: &Segment) -> u32 {
    segment.attachment().geometry.max_participants
}

impl Segment {
    /// The lock for readers and writers `name`, all zeros unless told otherwise.
    pub fn rwlock<'a, T: Element>(&'a self, name: &'a str) -> At<'a, RwLock<T>> {
        At { segment: self, name, options: RwLockOptions { initial: T::zeroed(), slots: slots(self) } }
    }
}

impl<T: Element> At<'_, RwLock<T>> {
    /// The value it starts with.
    #[must_use]
    pub fn initial(mut self, initial: T) -> Self {
        self.options.initial = initial;
        self
    }
}
