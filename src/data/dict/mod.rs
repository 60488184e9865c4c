//! [`Dict`]: a dict that processes share, read without a lock.
//!
//! * `core`: the algorithm. `table`: the index and the entries. `recovery`: what is done about the dead.
//! * The blocks and the journal are [`super::arena`]'s, the keys and values `super::node`'s.
//!
//! # Crash behaviour
//!
//! | a writer is killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | waiting for the lock, or serialising | nothing; a large value's extent HELD | the sweep of the heap | its change |
//! | with the lock, before the entry is stored | the dict as it was; perhaps an index slot with an empty entry | the next writer, or recovery: the slot is cleared, the new node freed | its change |
//! | after the entry was stored | the change | likewise: the old node is freed | nothing |
//! | in a closure of the user's, in `update` and the like | the dict as it was | nobody needs to; the lock passes on | its change |
//! | while a larger table is built, or between two parts of that | the dict as it is | likewise: that table is freed and begun again | nothing |
//! | after the root was stored | the same dict in its new table | likewise: the old table is freed | nothing |
//! | in `clear`, after the root was stored | an empty dict | likewise: its memory is freed | nothing |
//! | in `merge` | the elements merged so far | as above | the rest |
//! | a reader, anywhere | nothing | nobody needs to | nothing |
//!
//! Readers never wait for a dead or stopped writer. Writers wait for a stopped one, and 50 ms at most for a dead one.

pub(crate) mod core;
mod iter;
pub(crate) mod recovery;
mod table;

pub use iter::DictIter;

use self::core::{Core, Place};
use self::recovery::{ARENA, Dicts, kind};
use super::arena::{Arena, Writing};
use super::node::{Contents, Copied, Key, Value};
use crate::Error;
use crate::error::{Result, SegmentError};
use crate::kinds::Kind;
use crate::segment::object::{BodyId, Object, Shared, create, handle_as_value};
use crate::segment::{At, Attachment, Extent, Segment, atomic, random, session};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shmkit_layouts::containers::{ArenaBody, DictBody};
use shmkit_layouts::kinds::KIND_DICT;
use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::Ordering;

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

/// How often a value with handles is read whose objects are gone, before the writers are asked to wait.
const HANDLE_TRIES: u32 = 16;

/// A dict shared by threads and processes: Python's `Manager().dict()`, without the manager.
///
/// Keys and values are serde values of any size; plain numbers, truth values, text and byte strings can be read in every
/// language. Two keys are the same if they are serialised to the same bytes (all integers are one type); floating-point keys
/// are compared bit by bit. Values may hold handles of other shared objects, of other dicts too: those live as long as the value
/// does. (A dict that holds its own handle, by whatever way, is never freed before its segment.)
///
/// Elements are in the order of their insertion; a value that is replaced keeps its place. Reading takes no lock and never waits
/// for a stopped or dead writer; writers take turns. Nobody is told that a writer died: it made its change or it did not.
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
    _elements: PhantomData<fn(K, V) -> (K, V)>,
}

// SAFETY: the pointers are into the mapping, which `object` keeps; only atomics and the constant seed are reached through them.
unsafe impl<K, V> Send for Dict<K, V> {}
// SAFETY: as above.
unsafe impl<K, V> Sync for Dict<K, V> {}

/// What can be chosen of a dict or list at its creation.
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
        atomic!(self.arena, bytes).load(Ordering::Relaxed) + SIZE
    }

    /// The most bytes it may take from now on; 0 for no limit.
    pub fn set_quota(&self, bytes: u64) {
        atomic!(self.arena, quota).store(bytes, Ordering::Relaxed);
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
        let mut encoded = Key::none();
        encoded.write(key)?;
        Ok(self.core().find(&encoded, |_| ())?.is_some())
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
        let (core, mut encoded, mut written) = (self.core(), Key::none(), Value::none());
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
        let (core, key) = (self.core(), encode(key)?);
        let hash = core.hash(&key);
        let mut writing = core.lock()?;
        let place = core.place(&writing, &key, hash)?;
        core.delete(&mut writing, &place, hash)
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
        let (core, key) = (self.core(), encode(key)?);
        let value = |value: Option<&W>| value.map(|value| write(core.arena.attachment, value)).transpose();
        let (expected, new) = (value(expected)?, value(new)?);
        let hash = core.hash(&key);
        let mut writing = core.lock()?;
        let place = core.place(&writing, &key, hash)?;
        let is_expected = match (&place, &expected) {
            (Place::Taken { node, .. }, Some(expected)) => node.has_value(expected),
            (Place::Vacant { .. }, None) => true,
            _ => false,
        };
        if is_expected {
            match &new {
                Some(value) => drop(core.put(&mut writing, place, hash, &Contents { key: &key, value }, None)?),
                None => drop(core.delete(&mut writing, &place, hash)?),
            }
        }
        Ok(is_expected)
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
        let encoded = items.into_iter().map(|(key, value)| Ok((encode(&key)?, write(core.arena.attachment, &value)?)));
        // Before the lock: iterators and `Serialize` may run anything.
        let encoded: Vec<(Key, Value)> = encoded.collect::<Result<_>>()?;
        let mut writing = core.lock()?;
        for (key, value) in &encoded {
            let hash = core.hash(key);
            let place = core.place(&writing, key, hash)?;
            core.put(&mut writing, place, hash, &Contents { key, value }, None)?;
        }
        Ok(())
    }
}

fn encode<Q: Serialize + ?Sized>(key: &Q) -> Result<Key> {
    let mut encoded = Key::none();
    encoded.write(key)?;
    Ok(encoded)
}

fn write<W: Serialize + ?Sized>(attachment: &Attachment, value: &W) -> Result<Value> {
    let mut written = Value::none();
    written.write(attachment, value)?;
    Ok(written)
}

/// Decodes the value at a place, under the lock: no node with handles goes away meanwhile.
fn decoded<V: DeserializeOwned>(writing: &mut Writing<'_>, place: &Place<'_>) -> Result<Option<V>> {
    let mut value = Copied::none();
    if !place.copy_value(&mut value) {
        return Ok(None);
    }
    writing.call(|_| value.to_value()).map(Some)
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
        let (core, mut encoded, mut value) = (self.core(), Key::none(), Copied::none());
        encoded.write(key)?;
        match core.find(&encoded, |node| node.copy_value(&mut value))? {
            None => Ok(None),
            Some(()) if value.has_handles => self.get_handles(&encoded, value),
            Some(()) => value.to_value().map(Some),
        }
    }

    /// A value with handles: between the copy and the decoding its node, and with it the objects, may have gone.
    #[cold]
    fn get_handles(&self, key: &Key, mut value: Copied) -> Result<Option<V>> {
        let core = self.core();
        for _ in 0..HANDLE_TRIES {
            match value.to_value() {
                Err(Error::Segment(SegmentError::Gone)) => {}
                decoded => return decoded.map(Some),
            }
            if core.find(key, |node| node.copy_value(&mut value))?.is_none() {
                return Ok(None);
            }
        }
        let mut writing = core.lock()?;
        let place = core.place(&writing, key, core.hash(key))?;
        decoded(&mut writing, &place)
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
        let (core, key) = (self.core(), encode(key)?);
        let (hash, value) = (core.hash(&key), write(core.arena.attachment, value)?);
        let contents = Contents { key: &key, value: &value };
        let prepared = contents.prepare(&core.arena)?;
        let mut writing = core.lock()?;
        let place = core.place(&writing, &key, hash)?;
        let old = decoded(&mut writing, &place)?;
        core.put(&mut writing, place, hash, &contents, prepared)?;
        Ok(old)
    }

    /// Removes the value for `key` and gives it.
    ///
    /// # Errors
    /// As [`Dict::insert`] and [`Dict::get`].
    pub fn pop<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
    {
        let (core, key) = (self.core(), encode(key)?);
        let hash = core.hash(&key);
        let mut writing = core.lock()?;
        let place = core.place(&writing, &key, hash)?;
        let old = decoded(&mut writing, &place)?;
        core.delete(&mut writing, &place, hash)?;
        Ok(old)
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
        if let Some(value) = self.get(key)? {
            return Ok(value);
        }
        let (core, key) = (self.core(), encode(key)?);
        let hash = core.hash(&key);
        let mut writing = core.lock()?;
        let place = core.place(&writing, &key, hash)?;
        if let Some(value) = decoded(&mut writing, &place)? {
            return Ok(value);
        }
        let (made, value) = writing.call(|writing| {
            let made = make();
            write(writing.arena.attachment, &made).map(|value| (made, value))
        })?;
        core.put(&mut writing, place, hash, &Contents { key: &key, value: &value }, None)?;
        Ok(made)
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
        let (core, key) = (self.core(), encode(key)?);
        let hash = core.hash(&key);
        let mut writing = core.lock()?;
        let place = core.place(&writing, &key, hash)?;
        let mut value = decoded(&mut writing, &place)?;
        let (result, value) = writing.call(|writing| {
            let result = change(&mut value);
            let encoded = value.as_ref().map(|value| write(writing.arena.attachment, value)).transpose();
            encoded.map(|encoded| (result, encoded))
        })?;
        match &value {
            Some(value) => drop(core.put(&mut writing, place, hash, &Contents { key: &key, value }, None)?),
            None => drop(core.delete(&mut writing, &place, hash)?),
        }
        Ok(result)
    }

    /// All values at one instant, in order. Takes the lock.
    ///
    /// # Errors
    /// As [`Dict::insert`] and [`Dict::get`].
    pub fn values(&self) -> Result<Vec<V>> {
        self.snapshot(|_, value| value.to_value())
    }

    fn snapshot<R>(&self, mut element: impl FnMut(&Copied, &Copied) -> Result<R>) -> Result<Vec<R>> {
        let core = self.core();
        let mut writing = core.lock()?;
        let (mut key, mut value) = (Copied::none(), Copied::none());
        let mut all = Vec::with_capacity((writing.length() as usize).min(1 << 20));
        writing.call(|writing| {
            core.for_each(writing, |_, _, node| {
                node.copy_key(&mut key);
                node.copy_value(&mut value);
                all.push(element(&key, &value)?);
                Ok(())
            })
        })?;
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
        let core = self.core();
        let mut writing = core.lock()?;
        let Some((place, hash)) = core.last(&writing)? else { return Ok(None) };
        let Place::Taken { node, .. } = &place else { return Ok(None) };
        let (mut key, mut value) = (Copied::none(), Copied::none());
        node.copy_key(&mut key);
        node.copy_value(&mut value);
        let item = writing.call(|_| Ok::<_, Error>((key.to_key()?, value.to_value()?)))?;
        core.delete(&mut writing, &place, hash)?;
        Ok(Some(item))
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
