//! [`Value`]: one plain-data value, read without a lock and never seen half written.
//!
//! ```text
//! body    header | lock | word | …            up to 8 bytes: the value is the first bytes of `word`
//!         header | lock | 2·seq + writing | … | copy 0 | copy 1        larger; the current copy is seq & 1
//!
//! write   under the lock: s = word / 2; word = 2s + 1 (release); release fence; copy (s + 1) & 1 = value; word = 2s + 2 (release)
//! read    w1 = word (acquire); value = copy (w1 / 2) & 1; acquire fence; w2 = word; accepted iff w2 - (w1 & !1) ≤ 2
//! ```
//! The writer never touches the current copy, so a dead writer leaves nothing to repair: the next one computes the same `s` and
//! overwrites the same copy. Model: `value` (`tests/models`).
//!
//! # Crash behaviour
//!
//! | killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | before the lock is taken | the old value | nobody needs to | nothing |
//! | with the lock, before the value is published, be it half copied | the old value, from readers at once; writers wait | recovery, or a waiting writer within one slice (50 ms), frees the lock | the new value |
//! | with the lock, after the value is published | the new value, likewise | likewise | nothing |
//! | with a guard, whatever was done through it | the old value, likewise | likewise | what the guard had not published |
//! | reading | nothing | nobody needs to | nothing |
//! | in an atomic operation | the old value or the new one | nobody needs to | nothing |

use super::copies::Copies;
use super::guard::{Locked, enter};
use super::number::{Integer, Number};
use super::words;
use crate::element::Element;
use crate::error::Result;
use crate::kinds::Kind;
use crate::segment::claim;
use crate::segment::object::{BodyId, ElementType, HEADER, Object, Shared, create, handle_as_value};
use crate::segment::wait::Deadline;
use crate::segment::{At, Segment, atomic, session};
use shmkit_layouts::kinds::KIND_VALUE;
use shmkit_layouts::objects::ValueBody;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// What recovery does with values: the lock of a dead writer is handed on. The value needs nothing.
pub(crate) const KIND: Kind = Kind {
    recover: |attachment, body, dead| {
        if let Ok(value) = attachment.pointer::<ValueBody>(body.offset + HEADER, "value") {
            claim::recover_word(atomic!(value, lock), |owner| owner == dead.token());
        }
    },
    ..Kind::plain(KIND_VALUE)
};

/// Bytes from the start of a value's own struct to its copies.
const COPIES: u64 = size_of::<ValueBody>() as u64;

/// Reads that writers may spoil before the reader asks them to wait.
const TRIES: u32 = 256;

/// A plain-data value shared by threads and processes.
///
/// [`Value::get`] takes no lock and gives a value that somebody has stored, never parts of two. Writers take turns:
/// [`Value::set`], [`Value::update`], and [`Value::lock`], which is Python's `get_lock`. Numbers also have atomic operations, as
/// [`Value::fetch_add`], which take no lock and do not look at it: use either those or the lock, since a guard that publishes
/// what it computed overwrites what an atomic operation did meanwhile.
///
/// Nobody is told that a writer died: it changed the value or it did not.
///
/// Crash behaviour: see the table at the head of the module `data::value` in the sources and in `docs/reliability.md`.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let position = shmkit::Value::new([0.0f64; 3])?;
/// position.set([1.0, 2.0, 3.0])?;
/// position.lock()?[2] += 1.0;
/// position.update(|xyz| xyz[0] = -xyz[0])?;
/// assert_eq!(position.get()?, [-1.0, 2.0, 4.0]);
///
/// let hits = shmkit::Value::new(0u64)?;
/// hits.fetch_add(2);
/// assert_eq!(hits.get()?, 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Value<T: Element> {
    object: Object,
    body: *const ValueBody,
    /// Two copies of `COPY` bytes each; not used by values of up to 8 bytes.
    copies: *const AtomicU64,
    _type: PhantomData<T>,
}

// SAFETY: the pointers are into the mapping, which `object` keeps; only atomics are reached through them.
unsafe impl<T: Element + Send> Send for Value<T> {}
// SAFETY: as above.
unsafe impl<T: Element + Send> Sync for Value<T> {}

/// What a value starts with.
#[derive(Debug, Clone, Copy)]
pub struct ValueOptions<T> {
    initial: T,
}

impl<T: Element> Shared for Value<T> {
    type Options = ValueOptions<T>;

    fn kind() -> u32 {
        KIND_VALUE
    }
    fn element() -> Option<ElementType> {
        Some(ElementType::of::<T>())
    }
    fn size(_: &ValueOptions<T>) -> Result<u64> {
        Ok(COPIES + if Value::<T>::SMALL { 0 } else { 2 * Value::<T>::WORDS as u64 * 8 })
    }
    fn build(options: &ValueOptions<T>, start: *mut u8, _: BodyId) -> Result<()> {
        let offset = if Value::<T>::SMALL { std::mem::offset_of!(ValueBody, word) } else { COPIES as usize };
        // SAFETY: the body has room for it and nobody else reaches it yet; the place is 8-byte aligned.
        unsafe { words::copy_in(start.add(offset).cast(), &options.initial) };
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let body = object.body::<ValueBody>()?;
        let copies = match Value::<T>::SMALL {
            true => std::ptr::null(),
            false => object.part::<AtomicU64>(COPIES, 2 * Value::<T>::WORDS as u64)?,
        };
        Ok(Value { object, body, copies, _type: PhantomData })
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

handle_as_value!(Value<T: Element>);

impl<T: Element> Value<T> {
    /// Whether the value lies in the word itself.
    const SMALL: bool = size_of::<T>() <= 8;
    /// Words of one copy.
    const WORDS: usize = Copies::words::<T>();

    /// A new one in the session segment.
    ///
    /// # Errors
    /// `OutOfMemory`, `TooManyObjects`.
    pub fn new(initial: T) -> Result<Value<T>> {
        Value::new_in(&session()?, initial)
    }

    /// A new one in `segment`.
    ///
    /// # Errors
    /// As [`Value::new`].
    pub fn new_in(segment: &Segment, initial: T) -> Result<Value<T>> {
        create(segment, None, &ValueOptions { initial }, false)
    }

    fn lock_word(&self) -> &AtomicU32 {
        atomic!(self.body, lock)
    }

    fn word(&self) -> &AtomicU64 {
        atomic!(self.body, word)
    }

    fn pair(&self) -> Copies<'_> {
        // SAFETY: `attach` has checked both copies.
        unsafe { Copies::new(self.word(), self.copies) }
    }

    /// The value: one that somebody has stored, never parts of two. Takes no lock: a stopped or dead writer is not waited for.
    ///
    /// # Errors
    /// Only of a value larger than 8 bytes, and only if writers spoil one read after the other, so that this reader has to ask
    /// for their lock: what [`Value::set`] gives.
    #[inline]
    pub fn get(&self) -> Result<T> {
        if Value::<T>::SMALL {
            return Ok(self.read_word());
        }
        for _ in 0..TRIES {
            if let Some(value) = self.pair().read() {
                return Ok(value);
            }
            std::hint::spin_loop();
        }
        self.read_locked()
    }

    #[cold]
    fn read_locked(&self) -> Result<T> {
        enter(&self.object, self.lock_word(), "value")?;
        let value = self.pair().current();
        claim::unlock(self.object.attachment(), self.lock_word(), "value")?;
        Ok(value)
    }

    fn read_word(&self) -> T {
        if words::is_atomic::<T>() {
            // Acquire pairs with the release of every store. SAFETY: inside the body, at a multiple of 8.
            return unsafe { words::load(self.word().as_ptr().cast(), Ordering::Acquire) };
        }
        let bytes = self.word().load(Ordering::Acquire).to_ne_bytes();
        let mut value = T::zeroed();
        bytemuck::bytes_of_mut(&mut value).copy_from_slice(&bytes[..size_of::<T>()]);
        value
    }

    /// Publishes a value, under the lock.
    fn write(&self, value: &T) {
        failpoint!("value.locked");
        if !Value::<T>::SMALL {
            self.pair().write(value);
        } else if words::is_atomic::<T>() {
            // Release pairs with the acquire in `read_word`. SAFETY: inside the body, at a multiple of 8.
            unsafe { words::store(self.word().as_ptr().cast(), *value, Ordering::Release) };
        } else {
            let mut bytes = [0; 8];
            bytes[..size_of::<T>()].copy_from_slice(bytemuck::bytes_of(value));
            self.word().store(u64::from_ne_bytes(bytes), Ordering::Release);
        }
        failpoint!("value.published");
    }

    /// Stores a value. Waits for whoever has the lock.
    ///
    /// # Errors
    /// `Deadlock` if this thread has the lock: store through the guard. `Poisoned` and `Corrupt` only if a peer made the lock so.
    pub fn set(&self, value: T) -> Result<()> {
        enter(&self.object, self.lock_word(), "value")?;
        self.write(&value);
        claim::unlock(self.object.attachment(), self.lock_word(), "value")?;
        failpoint!("value.unlocked");
        Ok(())
    }

    /// Changes the value under the lock, and gives what `change` gives. If `change` panics, the value stays as it was.
    ///
    /// # Errors
    /// As [`Value::set`].
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R> {
        let mut guard = self.lock()?;
        Ok(change(&mut guard))
    }

    /// Keeps other writers out: Python's `get_lock`. The guard has its own copy of the value; what was changed there is
    /// published, all at once, when the guard is dropped. Not re-entrant.
    ///
    /// The atomic operations and [`Value::get`] go on meanwhile.
    ///
    /// # Errors
    /// As [`Value::set`]. Never `OwnerDied`: a dead writer leaves the old value or the new one.
    pub fn lock(&self) -> Result<ValueGuard<'_, T>> {
        Locked::lock(&self.object, self.lock_word(), "value", Deadline::NEVER).map(|(locked, _)| self.guard(locked))
    }

    /// As [`Value::lock`], waiting at most for `timeout`.
    ///
    /// # Errors
    /// As [`Value::lock`], and `TimedOut`, which names the holder.
    pub fn lock_timeout(&self, timeout: Duration) -> Result<ValueGuard<'_, T>> {
        let deadline = Deadline::after(timeout);
        Locked::lock(&self.object, self.lock_word(), "value", deadline).map(|(locked, _)| self.guard(locked))
    }

    /// As [`Value::lock`], if nobody has the lock.
    ///
    /// # Errors
    /// As [`Value::lock`], and `WouldBlock`, which names the holder.
    pub fn try_lock(&self) -> Result<ValueGuard<'_, T>> {
        Locked::try_lock(&self.object, self.lock_word(), "value").map(|(locked, _)| self.guard(locked))
    }

    fn guard<'a>(&'a self, locked: Locked<'a>) -> ValueGuard<'a, T> {
        let copy = if Value::<T>::SMALL { self.read_word() } else { self.pair().current() };
        ValueGuard { value: self, copy, changed: false, panicking: std::thread::panicking(), _locked: locked }
    }

    /// Where a value of up to 8 bytes lies: the raw form, for foreign code and for atomics of one's own. It does not compile for
    /// larger values, whose place changes with each write; a raw larger value is an [`crate::Array`] of one element.
    ///
    /// The pointer is valid while a handle to the value lives, and a multiple of 8. Others read and write there by atomic
    /// instructions of `T`'s size, in this and in other processes: whoever uses the pointer must do so too.
    pub fn as_ptr(&self) -> *mut T {
        const { assert!(size_of::<T>() <= 8, "a larger value has no fixed place: use an Array of one element") };
        self.word().as_ptr().cast()
    }

    /// Its segment.
    pub fn segment(&self) -> Segment {
        self.object.segment()
    }
}

macro_rules! atomics {
    ($($(#[$doc:meta])* $name:ident $method:ident;)*) => {$(
        $(#[$doc])* #[doc = " Gives the value before. Atomic; takes no lock."]
        #[inline]
        pub fn $name(&self, other: T) -> T {
            // SAFETY: the value of a number lies at the start of the word, inside the checked body, at a multiple of 8.
            unsafe { T::$method(self.word().as_ptr().cast(), other) }
        }
    )*};
}

impl<T: Number> Value<T> {
    /// The value. Atomic.
    #[inline]
    pub fn load(&self) -> T {
        self.read_word()
    }

    /// Stores a value. Atomic; takes no lock.
    #[inline]
    pub fn store(&self, value: T) {
        // Release pairs with the acquire in `read_word`. SAFETY: inside the body, at a multiple of 8.
        unsafe { words::store(self.word().as_ptr().cast(), value, Ordering::Release) };
    }

    /// Stores `new` if the value is `current`, bit by bit. Gives the value before: as `Ok` if it was, as `Err` if not. Atomic;
    /// takes no lock.
    ///
    /// # Errors
    /// The value there is, if it is not `current`.
    #[inline]
    pub fn compare_exchange(&self, current: T, new: T) -> Result<T, T> {
        // SAFETY: the value of a number lies at the start of the word, inside the checked body, at a multiple of 8.
        unsafe { T::compare_exchange(self.word().as_ptr().cast(), current, new) }
    }

    atomics! {
        /// Stores a value.
        swap swap;
        /// Adds. Integers wrap around.
        fetch_add add;
        /// Subtracts. Integers wrap around.
        fetch_sub sub;
        /// Stores the greater of the two.
        fetch_max max;
        /// Stores the lesser of the two.
        fetch_min min;
    }
}

impl<T: Integer> Value<T> {
    atomics! {
        /// Bitwise "and".
        fetch_and and;
        /// Bitwise "or".
        fetch_or or;
        /// Bitwise "exclusive or".
        fetch_xor xor;
    }
}

/// The writers' lock of a [`Value`] and a copy of it to work on. What was changed is published when the guard is dropped, unless
/// by a panic.
pub struct ValueGuard<'a, T: Element> {
    value: &'a Value<T>,
    copy: T,
    changed: bool,
    /// Whether the thread was unwinding already when it took the lock.
    panicking: bool,
    _locked: Locked<'a>,
}

impl<T: Element> ValueGuard<'_, T> {
    /// Publishes what was changed so far.
    pub fn publish(&mut self) {
        if std::mem::take(&mut self.changed) {
            self.value.write(&self.copy);
        }
    }
}

impl<T: Element> Deref for ValueGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.copy
    }
}

impl<T: Element> DerefMut for ValueGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.changed = true;
        &mut self.copy
    }
}

impl<T: Element> Drop for ValueGuard<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() == self.panicking {
            self.publish();
        }
    }
}

impl<T: Element + fmt::Debug> fmt::Debug for ValueGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Element> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value").field("element", &T::NAME).finish_non_exhaustive()
    }
}

impl Segment {
    /// The value `name`, all zeros unless told otherwise.
    pub fn value<'a, T: Element>(&'a self, name: &'a str) -> At<'a, Value<T>> {
        At { segment: self, name, options: ValueOptions { initial: T::zeroed() } }
    }
}

impl<T: Element> At<'_, Value<T>> {
    /// What it starts with.
    #[must_use]
    pub fn initial(mut self, initial: T) -> Self {
        self.options.initial = initial;
        self
    }
}
