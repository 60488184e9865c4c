//! [`Dict`]: a dict that processes share, read without a lock.
//!
//! * `core`: the algorithm. `table`: the index and the entries. `ops`: what users do. `recovery`: what is done about the dead.
//! * The blocks and the journal are [`super::arena`]'s, the keys and values `super::node`'s.
//!
//! # Crash behaviour
//!
//! | a writer is killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | waiting for the lock, or serialising | nothing; a large value's extent HELD | the sweep of the heap | its change |
//! | with the lock, before the entry is stored | the dict as it was; perhaps an index slot with an empty entry | the next writer, or recovery: the slot is cleared, the new node freed | its change |
//! | putting a number where one was: that is one store into the node | the old one or the new one | nobody needs to; the lock passes on | nothing |
//! | after the entry was stored | the change | likewise: the old node is freed | nothing |
//! | in a closure of the user's, in `update` and the like | the dict as it was | nobody needs to; the lock passes on | its change |
//! | while a larger table is built, or between two parts of that | the dict as it is | likewise: that table is freed and begun again, and built faster the fuller the dict is; a writer that finds the dict full builds the rest at once | nothing |
//! | after the root was stored | the same dict in its new table | likewise: the old table is freed | nothing |
//! | in `clear`, after the root was stored | an empty dict | likewise: its memory is freed | nothing |
//! | in `merge` | the elements merged so far | as above | the rest |
//! | a reader, anywhere | nothing | nobody needs to | nothing |
//!
//! Readers never wait for a dead or stopped writer, but for one whose tries writers have spoiled 128 times in a row: it takes their
//! lock. Writers wait for a stopped one, and 50 ms at most for a dead one.

pub(crate) mod core;
mod iter;
mod ops;
pub(crate) mod recovery;
mod table;

pub use iter::DictIter;

use self::core::Core;
use self::recovery::{ARENA, Dicts, kind};
use super::arena::Arena;
use super::node::{Copied, Key, Value};
use crate::error::Result;
use crate::kinds::Kind;
use crate::segment::object::{BodyId, Object, Shared, create, handle_as_value};
use crate::segment::{At, Attachment, Extent, Segment, random, session};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shmkit_layouts::containers::{ArenaBody, DictBody};
use shmkit_layouts::kinds::KIND_DICT;
use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::Ordering;

/// The types of a dict's keys and values.
pub(super) type Elements<K, V> = PhantomData<fn(K, V) -> (K, V)>;

struct One;

impl Dicts for One {
    const WHAT: &'static str = "dict";

    fn places(_: &Attachment, _: &Extent) -> Vec<u64> {
        vec![0]
    }
}

/// What recovery does with dicts.
pub(crate) const KIND: Kind = kind::<One>(KIND_DICT);

/// Bytes of one dict: its own struct and its arena.
pub(super) const SIZE: u64 = ARENA + size_of::<ArenaBody>() as u64;

/// A dict shared by threads and processes: Python's `Manager().dict()`, without the manager.
///
/// Keys and values are serde values of any size; plain numbers, truth values, text and byte strings can be read in every
/// language. Two keys are the same if they are serialised to the same bytes (all integers are one type); floating-point keys
/// are compared bit by bit. Values may hold handles of other shared objects, of other dicts too: those live as long as the value
/// does. (A dict that holds its own handle, by whatever way, is never freed before its segment.)
///
/// Elements are in the order of their insertion; a value that is replaced keeps its place. Reading takes no lock and never waits
/// for a stopped or dead writer, unless writers have spoiled 128 tries in a row: then it takes their lock. Writers take turns.
/// Nobody is told that a writer died: it made its change or it did not.
///
/// A handle: cloning it is cheap.
///
/// Crash behaviour: see the table at the head of the module `data::dict` in the sources and in `docs/reliability.md`.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let ages = shmkit::Dict::<String, u32>::new()?;
/// ages.insert("Ada", &36)?;
/// ages.insert("Grace", &85)?;
/// assert_eq!(ages.get("Ada")?, Some(36));
/// ages.update("Ada", |age| *age.get_or_insert(0) += 1)?;
/// assert!(ages.compare_and_set("Grace", Some(&85), Some(&86))?);
/// assert_eq!(ages.items()?, [("Ada".to_owned(), 37), ("Grace".to_owned(), 86)]);
/// assert!(ages.remove("Ada")? && !ages.contains("Ada")?);
/// # Ok(())
/// # }
/// ```
pub struct Dict<K, V> {
    object: Object,
    body: *const DictBody,
    arena: *const ArenaBody,
    _elements: Elements<K, V>,
}

// SAFETY: the pointers are into the mapping, which `object` keeps; only atomics and the constant seed are reached through them.
unsafe impl<K, V> Send for Dict<K, V> {}
// SAFETY: as above.
unsafe impl<K, V> Sync for Dict<K, V> {}

/// What can be chosen of a dict, list or namespace at its creation.
#[derive(Debug, Clone, Copy, Default)]
pub struct ContainerOptions {
    pub(super) quota: u64,
}

impl ContainerOptions {
    /// Writes what is not zero in a new arena.
    ///
    /// # Safety
    /// `arena` is one, zero, and nobody else's.
    pub(super) unsafe fn build(&self, arena: *mut ArenaBody) {
        // SAFETY: the caller vouches for the pointer; the references are to atomics only.
        let (generation, quota) = unsafe { (&(*arena).generation, &(*arena).quota) };
        // Blocks of different containers, one after the other in the same memory, have different generations.
        generation.store(random_word(), Ordering::Relaxed);
        quota.store(self.quota, Ordering::Relaxed);
    }
}

/// 64 random bits.
pub(super) fn random_word() -> u64 {
    let mut bytes = [0; 8];
    random(&mut bytes);
    u64::from_ne_bytes(bytes)
}

/// Builds one dict in zeros.
///
/// # Safety
/// `start` has room for `SIZE` bytes, is a multiple of 64, and nobody else's.
pub(super) unsafe fn build(options: &ContainerOptions, start: *mut u8) {
    // SAFETY: the caller vouches for the place.
    unsafe {
        (&raw mut (*start.cast::<DictBody>()).seed).write(random_word());
        options.build(start.add(ARENA as usize).cast());
    }
}

impl<K, V> Shared for Dict<K, V> {
    type Options = ContainerOptions;

    fn kind() -> u32 {
        KIND_DICT
    }
    fn label() -> Option<&'static str> {
        Some(std::any::type_name::<(K, V)>())
    }
    fn size(_: &ContainerOptions) -> Result<u64> {
        Ok(SIZE)
    }
    fn build(options: &ContainerOptions, start: *mut u8, _: BodyId) -> Result<()> {
        // SAFETY: a body starts 128 bytes after a multiple of 256, has `SIZE` bytes, zero, and nobody else reaches it yet.
        unsafe { build(options, start) };
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let (body, arena) = (object.body()?, object.part(ARENA, 1)?);
        Ok(Dict { object, body, arena, _elements: PhantomData })
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

handle_as_value!(Dict<K, V>);

impl<K, V> Dict<K, V> {
    /// A new one in the session segment.
    ///
    /// # Errors
    /// `OutOfMemory`, `TooManyObjects`.
    pub fn new() -> Result<Dict<K, V>> {
        Dict::new_in(&session()?)
    }

    /// A new one in `segment`.
    ///
    /// # Errors
    /// As [`Dict::new`].
    pub fn new_in(segment: &Segment) -> Result<Dict<K, V>> {
        create(segment, None, &ContainerOptions::default(), false)
    }

    #[inline]
    fn core(&self) -> Core<'_> {
        let object = self.object.reference.id.index;
        let arena =
            Arena { attachment: self.object.attachment(), body: self.arena, object, part: (0, 1), what: "dict" };
        Core { arena, body: self.body }
    }

    /// Elements at this instant.
    pub fn len(&self) -> usize {
        self.core().arena.length() as usize
    }

    /// Whether there are none at this instant.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes everything.
    ///
    /// # Errors
    /// As [`Dict::insert`].
    pub fn clear(&self) -> Result<()> {
        self.core().clear()
    }

    /// Bytes of the segment's memory it has, the part included that is free for more elements.
    pub fn memory(&self) -> u64 {
        self.core().arena.bytes().saturating_add(SIZE)
    }

    /// The most bytes it may take from now on; 0 for no limit.
    pub fn set_quota(&self, bytes: u64) {
        self.core().arena.set_quota(bytes);
    }

    /// Its segment.
    pub fn segment(&self) -> Segment {
        self.object.segment()
    }
}

impl<K, V> Dict<K, V> {
    /// Whether there is a value for `key`. Takes no lock.
    ///
    /// # Errors
    /// As [`Dict::get`].
    pub fn contains<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
    {
        self.core().contains(&Key::of(key)?)
    }

    /// Puts `value` for `key`. True if there was none.
    ///
    /// # Errors
    /// `Codec` if serde cannot write key or value; `TooLarge`; `OutOfMemory`, and then nothing has changed; `Deadlock` if this
    /// thread is in a closure under the dict's lock; `Corrupt`.
    pub fn insert<Q: Serialize + ?Sized, W: Serialize + ?Sized>(&self, key: &Q, value: &W) -> Result<bool>
    where
        K: Borrow<Q>,
        V: Borrow<W>,
    {
        // One by one: not moved once they are made.
        let core = self.core();
        let mut encoded = Key::none();
        let mut written = Value::none();
        encoded.write(key)?;
        written.write(core.arena.attachment, value)?;
        core.insert(&encoded, &written)
    }

    /// Removes the value for `key`. True if there was one.
    ///
    /// # Errors
    /// As [`Dict::insert`].
    pub fn remove<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
    {
        self.core().remove(&Key::of(key)?)
    }

    /// Puts or removes (`None`) a value, if the present one is `expected` (`None`: if there is none). Values are compared as they
    /// are serialised. True if it did.
    ///
    /// # Errors
    /// As [`Dict::insert`].
    pub fn compare_and_set<Q: Serialize + ?Sized, W: Serialize + ?Sized>(
        &self,
        key: &Q,
        expected: Option<&W>,
        new: Option<&W>,
    ) -> Result<bool>
    where
        K: Borrow<Q>,
        V: Borrow<W>,
    {
        let core = self.core();
        let value = |value: Option<&W>| value.map(|value| Value::of(core.arena.attachment, value)).transpose();
        core.compare_and_set(&Key::of(key)?, value(expected)?.as_ref(), value(new)?.as_ref())
    }

    /// Puts every element of `items`, one after the other, and nobody's between them: Python's `update`.
    ///
    /// # Errors
    /// As [`Dict::insert`]; those before the one that failed are there.
    pub fn merge(&self, items: impl IntoIterator<Item = (K, V)>) -> Result<()>
    where
        K: Serialize,
        V: Serialize,
    {
        let core = self.core();
        // Before the lock: iterators and `Serialize` may run anything.
        let items =
            items.into_iter().map(|(key, value)| Ok((Key::of(&key)?, Value::of(core.arena.attachment, &value)?)));
        core.merge(&items.collect::<Result<Vec<_>>>()?)
    }
}

impl<K, V: DeserializeOwned> Dict<K, V> {
    /// The value for `key`, or `None`. Takes no lock.
    ///
    /// # Errors
    /// `Codec` if serde cannot write the key or read the value; `Corrupt`. Only if writers spoil one try after the other, so that
    /// this reader has to ask for their lock: as [`Dict::insert`].
    #[inline]
    pub fn get<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
    {
        let mut encoded = Key::none();
        encoded.write(key)?;
        self.core().get(&encoded)
    }

    /// Puts `value` for `key` and gives what was there.
    ///
    /// # Errors
    /// As [`Dict::insert`] and [`Dict::get`].
    pub fn swap<Q: Serialize + ?Sized, W: Serialize + ?Sized>(&self, key: &Q, value: &W) -> Result<Option<V>>
    where
        K: Borrow<Q>,
        V: Borrow<W>,
    {
        let core = self.core();
        core.swap(&Key::of(key)?, &Value::of(core.arena.attachment, value)?)
    }

    /// Removes the value for `key` and gives it.
    ///
    /// # Errors
    /// As [`Dict::insert`] and [`Dict::get`].
    pub fn pop<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
    {
        self.core().pop(&Key::of(key)?)
    }

    /// The value for `key`; if there is none, `default` is put there: Python's `setdefault`.
    ///
    /// # Errors
    /// As [`Dict::insert`] and [`Dict::get`].
    pub fn set_default<Q: Serialize + ?Sized>(&self, key: &Q, default: V) -> Result<V>
    where
        K: Borrow<Q>,
        V: Serialize,
    {
        self.get_or_insert_with(key, || default)
    }

    /// The value for `key`; if there is none, what `make` gives is put there. `make` runs under the dict's lock, at most once, and of
    /// several that ask at once only one makes.
    ///
    /// # Errors
    /// As [`Dict::insert`] and [`Dict::get`]; `make` gets `Deadlock` from operations of this dict that take the lock.
    pub fn get_or_insert_with<Q: Serialize + ?Sized>(&self, key: &Q, make: impl FnOnce() -> V) -> Result<V>
    where
        K: Borrow<Q>,
        V: Serialize,
    {
        self.core().get_or_insert_with(&Key::of(key)?, make)
    }

    /// Changes the value for `key` under the dict's lock: `change` finds it, or `None`, and what it leaves there is put, `None`
    /// removed. Gives what `change` gives. If `change` panics, nothing has changed.
    ///
    /// # Errors
    /// As [`Dict::insert`] and [`Dict::get`]; `change` gets `Deadlock` from operations of this dict that take the lock.
    pub fn update<Q: Serialize + ?Sized, R>(&self, key: &Q, change: impl FnOnce(&mut Option<V>) -> R) -> Result<R>
    where
        K: Borrow<Q>,
        V: Serialize,
    {
        self.core().update(&Key::of(key)?, change)
    }

    /// All values at one instant, in order. Takes the lock.
    ///
    /// # Errors
    /// As [`Dict::insert`] and [`Dict::get`].
    pub fn values(&self) -> Result<Vec<V>> {
        self.snapshot(|_, value| value.to_value())
    }

    fn snapshot<R>(&self, element: impl FnMut(&Copied, &Copied) -> Result<R>) -> Result<Vec<R>> {
        let mut all = Vec::new();
        self.core().snapshot(&mut all, element)?;
        Ok(all)
    }
}

impl<K: DeserializeOwned, V: DeserializeOwned> Dict<K, V> {
    /// All keys at one instant, in order. Takes the lock.
    ///
    /// # Errors
    /// As [`Dict::insert`] and [`Dict::get`].
    pub fn keys(&self) -> Result<Vec<K>> {
        self.snapshot(|key, _| key.to_key())
    }

    /// All keys and values at one instant, in order: to iterate over a snapshot. Takes the lock.
    ///
    /// # Errors
    /// As [`Dict::insert`] and [`Dict::get`].
    pub fn items(&self) -> Result<Vec<(K, V)>> {
        self.snapshot(|key, value| Ok((key.to_key()?, value.to_value()?)))
    }

    /// The keys and values as they are when one gets to them, in order. Takes no lock. Once elements were added or removed
    /// meanwhile, the next one is `SizeChanged`, and the last.
    pub fn iter(&self) -> DictIter<'_, K, V> {
        DictIter::new(self.core())
    }

    /// Removes the element that was inserted last, and gives it: Python's `popitem`.
    ///
    /// # Errors
    /// As [`Dict::insert`] and [`Dict::get`].
    pub fn pop_item(&self) -> Result<Option<(K, V)>> {
        self.core().pop_item()
    }
}

impl<'a, K: DeserializeOwned, V: DeserializeOwned> IntoIterator for &'a Dict<K, V> {
    type Item = Result<(K, V)>;
    type IntoIter = DictIter<'a, K, V>;

    fn into_iter(self) -> DictIter<'a, K, V> {
        self.iter()
    }
}

impl<K, V> Clone for Dict<K, V> {
    fn clone(&self) -> Self {
        Dict { object: self.object.clone(), body: self.body, arena: self.arena, _elements: PhantomData }
    }
}

impl<K, V> fmt::Debug for Dict<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dict").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Segment {
    /// The dict `name`.
    pub fn dict<'a, K, V>(&'a self, name: &'a str) -> At<'a, Dict<K, V>> {
        At { segment: self, name, options: ContainerOptions::default() }
    }
}

impl<K, V> At<'_, Dict<K, V>> {
    /// The most bytes of the segment's memory it may take; no limit unless told otherwise.
    #[must_use]
    pub fn quota(mut self, bytes: u64) -> Self {
        self.options.quota = bytes;
        self
    }
}
