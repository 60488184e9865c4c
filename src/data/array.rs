//! [`Array`]: many plain-data elements and the robust lock that guards them.
//!
//! ```text
//! body    header | lock | dirty | len | … | elements at byte 192
//!
//! change  lock; dirty = 1; elements; dirty = 0; unlock           one element of 1, 2, 4 or 8 bytes: without `dirty`
//! death   the lock passes on as in `mutex`; the next taker is told that its owner died if `dirty` is set
//! ```
//! Every safe access is made under the lock, since a guard gives ordinary references to the elements. Whoever can do without,
//! because each process has its own range or because atomic instructions are enough, says so with the `unsafe` views.
//!
//! # Crash behaviour
//!
//! | killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | in `get`, `read`, or with a guard it only read through | the elements as they are | recovery, or a waiter within one slice (50 ms), frees the lock | nothing |
//! | in `set` or an atomic operation on one element of 1, 2, 4 or 8 bytes | the old element or the new one | likewise | nothing |
//! | in `set` of another element, in `write` or `fill`, or with a guard it wrote through | "owner died" from every operation, until a guard's taker has repaired it | that taker | what the dead one had half done |
//! | after `dirty` is cleared, before the unlock | the new elements | recovery, or a waiter | nothing |
//! | as the taker, before its repair is done | "owner died" again | the next taker | nothing |

use super::guard::{Locked, enter};
use super::number::{Integer, Number};
use super::words;
use crate::element::Element;
use crate::error::{Result, SegmentError, SyncError, corrupt};
use crate::kinds::Kind;
use crate::segment::claim::{self, Acquired};
use crate::segment::object::{BodyId, ElementType, HEADER, Object, Shared, create, handle_as_value};
use crate::segment::wait::Deadline;
use crate::segment::{At, Segment, atomic, fetch, session};
use crate::sync::LockError;
use crate::sync::mutex::{Unlocked, guarded};
use shmkit_layouts::kinds::KIND_ARRAY;
use shmkit_layouts::objects::ArrayBody;
use std::fmt;
use std::ops::{Bound, Deref, DerefMut, Range, RangeBounds};
use std::sync::atomic::{AtomicU32, Ordering, compiler_fence};
use std::time::Duration;

/// What recovery does with arrays: the lock of a dead owner is handed on.
pub(crate) const KIND: Kind = Kind {
    recover: |attachment, body, dead| {
        if let Ok(array) = attachment.pointer::<ArrayBody>(body.offset + HEADER, "array") {
            claim::recover_word(atomic!(array, lock), |owner| owner == dead.token());
        }
    },
    ..Kind::plain(KIND_ARRAY)
};

/// Bytes from the start of an array's own struct to its elements.
const ELEMENTS: u64 = size_of::<ArrayBody>() as u64;

/// The largest alignment the elements' place has.
const ALIGNMENT: usize = 64;

/// A fixed number of plain-data elements, shared by threads and processes: Python's `Array`.
///
/// Every operation takes the array's lock; [`Array::lock`] keeps it, and its guard is a slice. For the raw forms, where the
/// caller answers for who touches what, see [`Array::range`], [`Array::atomics`] and [`Array::as_ptr`].
///
/// If a process is killed while elements may be half written, every operation fails with `OwnerDied` until somebody takes the
/// lock and repairs them.
///
/// Crash behaviour: see the table at the head of the module `data::array` in the sources and in `docs/reliability.md`.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let array = shmkit::Array::<f64>::new(8)?;
/// array.set(0, 1.5)?;
/// array.write(1, &[2.0, 2.5])?;
/// for element in array.lock()?.iter_mut() {
///     *element *= 2.0;
/// }
/// assert_eq!(array.read(..4)?, [3.0, 4.0, 5.0, 0.0]);
/// assert!(array.get(8).is_err());
///
/// let counts = shmkit::Array::from_slice(&[0u32; 4])?;
/// assert_eq!(counts.fetch_add(2, 7)?, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Array<T: Element> {
    object: Object,
    body: *const ArrayBody,
    pub(super) elements: *mut T,
    len: usize,
}

// SAFETY: the pointers are into the mapping, which `object` keeps; the elements are reached only under the lock, or by those
// who answer for it.
unsafe impl<T: Element + Send> Send for Array<T> {}
// SAFETY: as above.
unsafe impl<T: Element + Send> Sync for Array<T> {}

/// What an array starts with.
#[derive(Debug, Clone)]
pub struct ArrayOptions<T> {
    len: usize,
    initial: Vec<T>,
}

impl<T: Element> Shared for Array<T> {
    type Options = ArrayOptions<T>;

    fn kind() -> u32 {
        KIND_ARRAY
    }
    fn element() -> Option<ElementType> {
        Some(ElementType::of::<T>())
    }
    fn size(options: &ArrayOptions<T>) -> Result<u64> {
        if align_of::<T>() > ALIGNMENT {
            let why = "elements are aligned to 64 bytes at most";
            let found = align_of::<T>() as u64;
            return Err(SegmentError::InvalidSize { what: "an element's alignment", found, why }.into());
        }
        let size = (options.len as u64).checked_mul(size_of::<T>() as u64).and_then(|size| size.checked_add(ELEMENTS));
        let why = "its size in bytes is more than there can be";
        let found = options.len as u64;
        size.ok_or_else(|| SegmentError::InvalidSize { what: "an array's length", found, why }.into())
    }
    fn zeroed(options: &ArrayOptions<T>) -> u64 {
        if options.initial.len() < options.len { u64::MAX } else { ELEMENTS }
    }
    fn build(options: &ArrayOptions<T>, start: *mut u8, _: BodyId) -> Result<()> {
        let body = start.cast::<ArrayBody>();
        // SAFETY: the body has room for the struct and `len` elements, is 64-byte aligned, and nobody else reaches it yet.
        unsafe {
            (&raw mut (*body).len).write(options.len as u64);
            let elements = start.add(ELEMENTS as usize).cast::<T>();
            elements.copy_from_nonoverlapping(options.initial.as_ptr(), options.initial.len().min(options.len));
        }
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let body = object.body::<ArrayBody>()?;
        let len = fetch!(body, len);
        let elements = object.part::<T>(ELEMENTS, len)?.cast_mut();
        match usize::try_from(len) {
            Ok(len) => Ok(Array { object, body, elements, len }),
            Err(_) => Err(corrupt("array's length", object.offset(), len)),
        }
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

handle_as_value!(Array<T: Element>);

impl<T: Element> Array<T> {
    /// A new one of `len` elements in the session segment, all zeros.
    ///
    /// # Errors
    /// `OutOfMemory`, `TooManyObjects`.
    pub fn new(len: usize) -> Result<Array<T>> {
        Array::new_in(&session()?, len)
    }

    /// A new one of `len` elements in `segment`, all zeros.
    ///
    /// # Errors
    /// As [`Array::new`].
    pub fn new_in(segment: &Segment, len: usize) -> Result<Array<T>> {
        create(segment, None, &ArrayOptions { len, initial: Vec::new() }, false)
    }

    /// A new one in the session segment that starts as a copy of `initial`.
    ///
    /// # Errors
    /// As [`Array::new`].
    pub fn from_slice(initial: &[T]) -> Result<Array<T>> {
        Array::from_slice_in(&session()?, initial)
    }

    /// A new one in `segment` that starts as a copy of `initial`.
    ///
    /// # Errors
    /// As [`Array::new`].
    pub fn from_slice_in(segment: &Segment, initial: &[T]) -> Result<Array<T>> {
        let array = Array::<T>::new_in(segment, initial.len())?;
        // SAFETY: `initial.len()` elements; the array has no name and its handle has not left this function: nobody else has it.
        unsafe { array.elements.copy_from_nonoverlapping(initial.as_ptr(), initial.len()) };
        Ok(array)
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn word(&self) -> &AtomicU32 {
        atomic!(self.body, lock)
    }

    fn dirty(&self) -> &AtomicU32 {
        atomic!(self.body, dirty)
    }

    pub(super) fn index(&self, index: usize) -> Result<*mut T> {
        if index >= self.len {
            return Err(SegmentError::OutOfRange { index: index as u64, len: self.len as u64 }.into());
        }
        Ok(self.elements.wrapping_add(index))
    }

    pub(super) fn bounds(&self, range: impl RangeBounds<usize>) -> Result<Range<usize>> {
        let out = |index: usize| Err(SegmentError::OutOfRange { index: index as u64, len: self.len as u64 }.into());
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) if last >= self.len => return out(last),
            Bound::Included(&last) => last + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.len,
        };
        if end > self.len || start > end {
            return out(start.max(end));
        }
        Ok(start..end)
    }

    /// After the lock was taken: whether a dead owner left elements half written.
    fn is_half_written(&self, how: Acquired) -> bool {
        // Relaxed: the lock has ordered it behind its last owner.
        let dirty = self.dirty().load(Ordering::Relaxed) != 0;
        if dirty && how == Acquired::Clean {
            // Left by one whose lock was taken away by force: whoever did that vouched for the elements.
            self.dirty().store(0, Ordering::Relaxed);
        }
        dirty && how == Acquired::OwnerDied
    }

    /// Runs `work`, which runs no code of the user's, under the lock.
    fn locked<R>(&self, work: impl FnOnce() -> R) -> Result<R> {
        let how = enter(&self.object, self.word(), "array")?;
        let attachment = self.object.attachment();
        if self.is_half_written(how) {
            // The next who takes a guard has to know, too.
            claim::abandon(attachment, self.word(), "array")?;
            return Err(SyncError::OwnerDied.into());
        }
        failpoint!("array.locked");
        let result = work();
        failpoint!("array.before_unlock");
        claim::unlock(attachment, self.word(), "array")?;
        Ok(result)
    }

    /// As [`Array::locked`], for work that shows half done.
    fn locked_dirty<R>(&self, work: impl FnOnce() -> R) -> Result<R> {
        self.locked(|| {
            self.dirty().store(1, Ordering::Relaxed);
            // A kill falls between two instructions: what counts is that the mark comes before the first element.
            compiler_fence(Ordering::SeqCst);
            failpoint!("array.dirty");
            let result = work();
            failpoint!("array.written");
            // Release: after the last element.
            self.dirty().store(0, Ordering::Release);
            result
        })
    }

    /// Element `index`.
    ///
    /// # Errors
    /// `OutOfRange`; `OwnerDied` if elements may be half written: take the lock and repair them; `Poisoned`; `Deadlock` if this
    /// thread has the lock.
    pub fn get(&self, index: usize) -> Result<T> {
        let element = self.index(index)?;
        // SAFETY: inside the array; aligned (`attach`); under the lock nobody writes it.
        self.locked(|| unsafe { element.read() })
    }

    /// Stores an element. One of 1, 2, 4 or 8 bytes is stored by one instruction.
    ///
    /// # Errors
    /// As [`Array::get`].
    pub fn set(&self, index: usize, value: T) -> Result<()> {
        let element = self.index(index)?;
        if words::is_atomic::<T>() {
            // Relaxed: ordered by the lock. SAFETY: inside the array, at a multiple of its size.
            return self.locked(|| unsafe { words::store(element, value, Ordering::Relaxed) });
        }
        // SAFETY: inside the array; aligned (`attach`); under the lock nobody else touches it.
        self.locked_dirty(|| unsafe { element.write(value) })
    }

    /// The elements of `range`, as they are at one instant.
    ///
    /// # Errors
    /// As [`Array::get`].
    pub fn read(&self, range: impl RangeBounds<usize>) -> Result<Vec<T>> {
        let range = self.bounds(range)?;
        let mut copy = Vec::new();
        let len = range.len() as u64 * size_of::<T>() as u64;
        if copy.try_reserve_exact(range.len()).is_err() {
            let hint = "this process cannot allocate a copy of that many elements: read them in parts";
            return Err(SegmentError::OutOfMemory { needed: len, free: 0, hint }.into());
        }
        self.locked(|| {
            // SAFETY: the range is inside the array and the vector has room for it; under the lock nobody writes; any bytes are
            // a T (`Pod`).
            unsafe {
                self.elements.add(range.start).copy_to_nonoverlapping(copy.as_mut_ptr(), range.len());
                copy.set_len(range.len());
            }
        })?;
        Ok(copy)
    }

    /// Fills `copy` with the elements from `offset` on, as they are at one instant.
    ///
    /// # Errors
    /// As [`Array::get`].
    pub fn read_into(&self, offset: usize, copy: &mut [T]) -> Result<()> {
        let range = self.bounds(offset..offset.saturating_add(copy.len()))?;
        // SAFETY: the range is inside the array; under the lock nobody writes it.
        self.locked(|| unsafe { self.elements.add(range.start).copy_to_nonoverlapping(copy.as_mut_ptr(), copy.len()) })
    }

    /// Stores `values` from `offset` on.
    ///
    /// # Errors
    /// As [`Array::get`].
    pub fn write(&self, offset: usize, values: &[T]) -> Result<()> {
        let range = self.bounds(offset..offset.saturating_add(values.len()))?;
        self.locked_dirty(|| {
            let to = self.elements.wrapping_add(range.start);
            #[cfg(feature = "failpoints")]
            {
                // SAFETY: half of what follows.
                unsafe { to.copy_from_nonoverlapping(values.as_ptr(), values.len() / 2) };
                failpoint!("array.half");
            }
            // SAFETY: the range is inside the array; under the lock nobody else touches it.
            unsafe { to.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        })
    }

    /// Stores `value` in every element.
    ///
    /// # Errors
    /// As [`Array::get`], but for `OutOfRange`.
    pub fn fill(&self, value: T) -> Result<()> {
        self.locked_dirty(|| {
            for index in 0..self.len {
                // SAFETY: inside the array; aligned (`attach`); under the lock nobody else touches it.
                unsafe { self.elements.add(index).write(value) };
            }
        })
    }

    /// All elements, as they are at one instant.
    ///
    /// # Errors
    /// As [`Array::read`].
    pub fn to_vec(&self) -> Result<Vec<T>> {
        self.read(..)
    }

    /// The elements, as they are now, one after the other. The lock is not held while one iterates.
    ///
    /// # Errors
    /// As [`Array::read`].
    pub fn iter(&self) -> Result<std::vec::IntoIter<T>> {
        Ok(self.to_vec()?.into_iter())
    }

    /// Waits for the lock. The guard is a slice of all elements. Not re-entrant.
    ///
    /// # Errors
    /// `OwnerDied`, with the guard to repair what may be half written; `Poisoned`; `Deadlock` if this thread has it already.
    pub fn lock(&self) -> Result<ArrayGuard<'_, T>, LockError<ArrayGuard<'_, T>>> {
        self.guarded(Locked::lock(&self.object, self.word(), "array", Deadline::NEVER))
    }

    /// As [`Array::lock`], waiting at most for `timeout`.
    ///
    /// # Errors
    /// As [`Array::lock`], and `TimedOut`, which names the holder.
    pub fn lock_timeout(&self, timeout: Duration) -> Result<ArrayGuard<'_, T>, LockError<ArrayGuard<'_, T>>> {
        self.guarded(Locked::lock(&self.object, self.word(), "array", Deadline::after(timeout)))
    }

    /// As [`Array::lock`], if nobody has the lock.
    ///
    /// # Errors
    /// As [`Array::lock`], and `WouldBlock`, which names the holder.
    pub fn try_lock(&self) -> Result<ArrayGuard<'_, T>, LockError<ArrayGuard<'_, T>>> {
        self.guarded(Locked::try_lock(&self.object, self.word(), "array"))
    }

    fn guarded<'a>(
        &'a self,
        taken: Result<(Locked<'a>, Acquired)>,
    ) -> Result<ArrayGuard<'a, T>, LockError<ArrayGuard<'a, T>>> {
        guarded(taken.map(|(locked, how)| {
            let half = self.is_half_written(how);
            let how = if half { Acquired::OwnerDied } else { Acquired::Clean };
            (ArrayGuard { array: self, dirty: half, panicking: std::thread::panicking(), locked }, how)
        }))
    }

    /// Makes a poisoned array usable again: whoever calls this vouches for the elements.
    pub fn clear_poison(&self) {
        claim::clear_poison(self.word());
    }

    /// Where the elements lie: the raw form, for foreign code. Valid while a handle to the array lives.
    ///
    /// Whoever writes through it, or reads what others write, must keep others out by the lock or by agreement, or use atomic
    /// instructions as [`Array::atomics`] does.
    pub fn as_ptr(&self) -> *mut T {
        self.elements
    }

    /// Its segment.
    pub fn segment(&self) -> Segment {
        self.object.segment()
    }
}

macro_rules! under_the_lock {
    ($($(#[$doc:meta])* $name:ident $method:ident;)*) => {$(
        $(#[$doc])* #[doc = " Gives the element before.\n\n# Errors\nAs [`Array::get`]."]
        pub fn $name(&self, index: usize, other: T) -> Result<T> {
            let element = self.index(index)?;
            // SAFETY: inside the array; at a multiple of its size.
            self.locked(|| unsafe { T::$method(element, other) })
        }
    )*};
}

impl<T: Number> Array<T> {
    under_the_lock! {
        /// Stores an element.
        swap swap;
        /// Adds to an element. Integers wrap around.
        fetch_add add;
        /// Subtracts from an element. Integers wrap around.
        fetch_sub sub;
        /// Stores the greater of the two.
        fetch_max max;
        /// Stores the lesser of the two.
        fetch_min min;
    }

    /// Stores `new` in an element if it is `current`, bit by bit. Gives the element before: as `Ok` if it was, as `Err` if not.
    ///
    /// # Errors
    /// As [`Array::get`].
    pub fn compare_exchange(&self, index: usize, current: T, new: T) -> Result<Result<T, T>> {
        let element = self.index(index)?;
        // SAFETY: inside the array; at a multiple of its size.
        self.locked(|| unsafe { T::compare_exchange(element, current, new) })
    }
}

impl<T: Integer> Array<T> {
    under_the_lock! {
        /// Bitwise "and" of an element.
        fetch_and and;
        /// Bitwise "or" of an element.
        fetch_or or;
        /// Bitwise "exclusive or" of an element.
        fetch_xor xor;
    }
}

/// The lock of an [`Array`], and its elements as a slice. Released when dropped; dropped by a panic, it leaves the lock to the
/// next taker as a dead owner does.
pub struct ArrayGuard<'a, T: Element> {
    array: &'a Array<T>,
    /// Elements may be half written: by this guard, or by a dead owner before it.
    dirty: bool,
    /// Whether the thread was unwinding already when it took the lock.
    panicking: bool,
    locked: Locked<'a>,
}

impl<T: Element> Unlocked for ArrayGuard<'_, T> {
    fn poison(&mut self) {
        self.locked.poison();
    }
}

impl<T: Element> Deref for ArrayGuard<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: checked by `attach`; any bytes are a T (`Pod`); under the lock nobody else writes.
        unsafe { std::slice::from_raw_parts(self.array.elements, self.array.len) }
    }
}

impl<T: Element> DerefMut for ArrayGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        if !self.dirty {
            self.dirty = true;
            self.array.dirty().store(1, Ordering::Relaxed);
            // A kill falls between two instructions: what counts is that the mark comes before the first element.
            compiler_fence(Ordering::SeqCst);
        }
        // SAFETY: checked by `attach`; any bytes are a T (`Pod`); under the lock nobody else touches them.
        unsafe { std::slice::from_raw_parts_mut(self.array.elements, self.array.len) }
    }
}

impl<T: Element> Drop for ArrayGuard<'_, T> {
    fn drop(&mut self) {
        failpoint!("array.guard_dropped");
        if self.dirty && !self.locked.is_poison() && std::thread::panicking() == self.panicking {
            // Release: after the last element.
            self.array.dirty().store(0, Ordering::Release);
        }
    }
}

impl<T: Element + fmt::Debug> fmt::Debug for ArrayGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Element> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Array").field("element", &T::NAME).field("len", &self.len).finish_non_exhaustive()
    }
}

impl Segment {
    /// The array `name`, without elements unless told how many.
    pub fn array<'a, T: Element>(&'a self, name: &'a str) -> At<'a, Array<T>> {
        At { segment: self, name, options: ArrayOptions { len: 0, initial: Vec::new() } }
    }
}

impl<T: Element> At<'_, Array<T>> {
    /// How many elements it has, all zeros.
    #[must_use]
    pub fn len(mut self, len: usize) -> Self {
        self.options.len = len;
        self
    }

    /// The elements it starts with, and as many.
    #[must_use]
    pub fn initial(mut self, initial: &[T]) -> Self {
        self.options = ArrayOptions { len: initial.len(), initial: initial.to_vec() };
        self
    }
}
