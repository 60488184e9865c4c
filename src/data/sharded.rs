//! [`ShardedDict`]: a dict in parts, each with its own writers' lock.
//!
//! ```text
//! body   header | shards, seed | dict | dict | …             each a dict's own struct and its arena, 1216 bytes
//! ```
//! A key belongs to the part that another hash chooses. Everything else is [`super::dict`]'s, the crash behaviour too, part by
//! part.

use super::arena::Arena;
use super::dict::core::Core;
use super::dict::recovery::{ARENA, Dicts, kind};
use super::dict::{self, Elements, random_word};
use super::node::{Copied, Key, Value};
use crate::error::{Result, SegmentError, corrupt};
use crate::kinds::Kind;
use crate::segment::object::{BodyId, HEADER, Object, Shared, create, handle_as_value};
use crate::segment::{At, Attachment, Extent, Segment, fetch, session};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shmkit_layouts::containers::{ArenaBody, DictBody, ShardedBody};
use shmkit_layouts::kinds::KIND_SHARDED_DICT;
use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;

/// Parts, unless told otherwise.
const DEFAULT_SHARDS: u32 = 16;
const MOST_SHARDS: u32 = 256;
/// Bytes from the start of the own struct to the first part.
const FIRST: u64 = size_of::<ShardedBody>() as u64;

struct Parts;

impl Dicts for Parts {
    const WHAT: &'static str = "sharded dict";

    fn places(attachment: &Attachment, body: &Extent) -> Vec<u64> {
        let shards = attachment.pointer::<ShardedBody>(body.offset + HEADER, Self::WHAT);
        let shards = shards.map_or(0, |body| fetch!(body, shards));
        (0..shards.min(MOST_SHARDS)).map(place).collect()
    }
}

/// Where a part is, in bytes from the start of the own struct.
fn place(shard: u32) -> u64 {
    FIRST + u64::from(shard) * dict::SIZE
}

/// What recovery does with sharded dicts.
pub(crate) const KIND: Kind = kind::<Parts>(KIND_SHARDED_DICT);

/// A dict for many writers: its keys are spread over parts that have a lock each. Otherwise as [`crate::Dict`], but its elements
/// are in no order, and what concerns all of them is not done at one instant.
///
/// Crash behaviour: as [`crate::Dict`].
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let counts = shmkit::ShardedDict::<String, u64>::new()?;
/// for word in ["to", "be", "or", "not", "to", "be"] {
///     counts.update(word, |count| *count.get_or_insert(0) += 1)?;
/// }
/// assert_eq!(counts.len(), 4);
/// assert_eq!(counts.get("be")?, Some(2));
/// # Ok(())
/// # }
/// ```
pub struct ShardedDict<K, V> {
    object: Object,
    body: *const ShardedBody,
    shards: u32,
    seed: u64,
    _elements: Elements<K, V>,
}

// SAFETY: the pointer is into the mapping, which `object` keeps; only atomics are reached through it.
unsafe impl<K, V> Send for ShardedDict<K, V> {}
// SAFETY: as above.
unsafe impl<K, V> Sync for ShardedDict<K, V> {}

/// What can be chosen of a sharded dict at its creation.
#[derive(Debug, Clone, Copy)]
pub struct ShardedOptions {
    shards: u32,
    quota: u64,
}

impl Default for ShardedOptions {
    fn default() -> ShardedOptions {
        ShardedOptions { shards: DEFAULT_SHARDS, quota: 0 }
    }
}

/// A part's quota: the parts have the same each.
fn quota_of_part(bytes: u64, shards: u32) -> u64 {
    bytes.div_ceil(u64::from(shards.max(1)))
}

impl<K, V> Shared for ShardedDict<K, V> {
    type Options = ShardedOptions;

    fn kind() -> u32 {
        KIND_SHARDED_DICT
    }
    fn label() -> Option<&'static str> {
        Some(std::any::type_name::<(K, V)>())
    }
    fn size(options: &ShardedOptions) -> Result<u64> {
        if !options.shards.is_power_of_two() || options.shards > MOST_SHARDS {
            let (what, found) = ("the shards of a dict", u64::from(options.shards));
            let why = "they must be a power of two, at most 256";
            return Err(SegmentError::InvalidSize { what, found, why }.into());
        }
        Ok(place(options.shards))
    }
    fn build(options: &ShardedOptions, start: *mut u8, _: BodyId) -> Result<()> {
        let body = start.cast::<ShardedBody>();
        // SAFETY: the body has room for the struct and all parts, zero, at multiples of 64, and nobody else reaches it yet.
        unsafe {
            (&raw mut (*body).shards).write(options.shards);
            (&raw mut (*body).seed).write(random_word());
            let part = dict::ContainerOptions { quota: quota_of_part(options.quota, options.shards) };
            for shard in 0..options.shards {
                dict::build(&part, start.add(place(shard) as usize));
            }
        }
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let body = object.body::<ShardedBody>()?;
        let (shards, seed) = (fetch!(body, shards), fetch!(body, seed));
        if !shards.is_power_of_two() || shards > MOST_SHARDS {
            return Err(corrupt("shards of a dict", object.offset(), u64::from(shards)));
        }
        object.part::<u8>(0, place(shards))?;
        Ok(ShardedDict { object, body, shards, seed, _elements: PhantomData })
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

handle_as_value!(ShardedDict<K, V>);

impl<K, V> ShardedDict<K, V> {
    /// A new one in the session segment, of 16 parts.
    ///
    /// # Errors
    /// `OutOfMemory`, `TooManyObjects`.
    pub fn new() -> Result<ShardedDict<K, V>> {
        ShardedDict::new_in(&session()?)
    }

    /// A new one in `segment`, of 16 parts.
    ///
    /// # Errors
    /// As [`ShardedDict::new`].
    pub fn new_in(segment: &Segment) -> Result<ShardedDict<K, V>> {
        create(segment, None, &ShardedOptions::default(), false)
    }

    fn core(&self, shard: u32) -> Core<'_> {
        let object = self.object.reference.id.index;
        let start = self.body.cast::<u8>().wrapping_add(place(shard) as usize);
        let (attachment, part) = (self.object.attachment(), (shard, self.shards));
        let body = start.wrapping_add(ARENA as usize).cast::<ArenaBody>();
        let arena = Arena { attachment, body, object, part, what: "sharded dict" };
        Core { arena, body: start.cast::<DictBody>() }
    }

    fn cores(&self) -> impl Iterator<Item = Core<'_>> {
        (0..self.shards).map(|shard| self.core(shard))
    }

    /// The part a key belongs to.
    fn core_of(&self, key: &Key) -> Core<'_> {
        self.core(key.hash(self.seed) & (self.shards - 1))
    }

    /// Elements: those of each part at one instant.
    pub fn len(&self) -> usize {
        self.cores().fold(0, |sum, core| sum.saturating_add(core.arena.length() as usize))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes everything, part by part.
    ///
    /// # Errors
    /// As [`ShardedDict::insert`].
    pub fn clear(&self) -> Result<()> {
        self.cores().try_for_each(|core| core.clear())
    }

    /// Bytes of the segment's memory it has, the part included that is free for more elements.
    pub fn memory(&self) -> u64 {
        self.cores().map(|core| core.arena.bytes()).fold(place(self.shards), u64::saturating_add)
    }

    /// The most bytes it may take from now on, each of its parts the same share of them; 0 for no limit.
    pub fn set_quota(&self, bytes: u64) {
        let part = quota_of_part(bytes, self.shards);
        self.cores().for_each(|core| core.arena.set_quota(part));
    }

    /// Its segment.
    pub fn segment(&self) -> Segment {
        self.object.segment()
    }

    /// Whether there is a value for `key`. Takes no lock.
    ///
    /// # Errors
    /// As [`ShardedDict::get`].
    pub fn contains<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
    {
        let key = Key::of(key)?;
        self.core_of(&key).contains(&key)
    }

    /// Puts `value` for `key`. True if there was none.
    ///
    /// # Errors
    /// As [`crate::Dict::insert`].
    pub fn insert<Q: Serialize + ?Sized, W: Serialize + ?Sized>(&self, key: &Q, value: &W) -> Result<bool>
    where
        K: Borrow<Q>,
        V: Borrow<W>,
    {
        // One by one: not moved once they are made.
        let mut encoded = Key::none();
        let mut written = Value::none();
        encoded.write(key)?;
        written.write(self.object.attachment(), value)?;
        self.core_of(&encoded).insert(&encoded, &written)
    }

    /// Removes the value for `key`. True if there was one.
    ///
    /// # Errors
    /// As [`ShardedDict::insert`].
    pub fn remove<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
    {
        let key = Key::of(key)?;
        self.core_of(&key).remove(&key)
    }

    /// Puts or removes (`None`) a value, if the present one is `expected` (`None`: if there is none). True if it did.
    ///
    /// # Errors
    /// As [`ShardedDict::insert`].
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
        let key = Key::of(key)?;
        let value = |value: Option<&W>| value.map(|value| Value::of(self.object.attachment(), value)).transpose();
        self.core_of(&key).compare_and_set(&key, value(expected)?.as_ref(), value(new)?.as_ref())
    }

    /// Puts every element of `items`.
    ///
    /// # Errors
    /// As [`ShardedDict::insert`]; those before the one that failed are there.
    pub fn merge(&self, items: impl IntoIterator<Item = (K, V)>) -> Result<()>
    where
        K: Serialize,
        V: Serialize,
    {
        for (key, value) in items {
            let (key, value) = (Key::of(&key)?, Value::of(self.object.attachment(), &value)?);
            self.core_of(&key).insert(&key, &value)?;
        }
        Ok(())
    }
}

impl<K, V: DeserializeOwned> ShardedDict<K, V> {
    /// The value for `key`, or `None`. Takes no lock.
    ///
    /// # Errors
    /// As [`crate::Dict::get`].
    pub fn get<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
    {
        let mut encoded = Key::none();
        encoded.write(key)?;
        self.core_of(&encoded).get(&encoded)
    }

    /// Puts `value` for `key` and gives what was there.
    ///
    /// # Errors
    /// As [`ShardedDict::insert`] and [`ShardedDict::get`].
    pub fn swap<Q: Serialize + ?Sized, W: Serialize + ?Sized>(&self, key: &Q, value: &W) -> Result<Option<V>>
    where
        K: Borrow<Q>,
        V: Borrow<W>,
    {
        let key = Key::of(key)?;
        self.core_of(&key).swap(&key, &Value::of(self.object.attachment(), value)?)
    }

    /// Removes the value for `key` and gives it.
    ///
    /// # Errors
    /// As [`ShardedDict::insert`] and [`ShardedDict::get`].
    pub fn pop<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
    {
        let key = Key::of(key)?;
        self.core_of(&key).pop(&key)
    }

    /// The value for `key`; if there is none, `default` is put there: Python's `setdefault`.
    ///
    /// # Errors
    /// As [`ShardedDict::insert`] and [`ShardedDict::get`].
    pub fn set_default<Q: Serialize + ?Sized>(&self, key: &Q, default: V) -> Result<V>
    where
        K: Borrow<Q>,
        V: Serialize,
    {
        self.get_or_insert_with(key, || default)
    }

    /// The value for `key`; if there is none, what `make` gives is put there. `make` runs under the lock of the key's part.
    ///
    /// # Errors
    /// As [`ShardedDict::insert`] and [`ShardedDict::get`].
    pub fn get_or_insert_with<Q: Serialize + ?Sized>(&self, key: &Q, make: impl FnOnce() -> V) -> Result<V>
    where
        K: Borrow<Q>,
        V: Serialize,
    {
        let key = Key::of(key)?;
        self.core_of(&key).get_or_insert_with(&key, make)
    }

    /// Changes the value for `key` under the lock of its part: `change` finds it, or `None`, and what it leaves there is put, `None`
    /// removed. Gives what `change` gives. If `change` panics, nothing has changed.
    ///
    /// # Errors
    /// As [`ShardedDict::insert`] and [`ShardedDict::get`].
    pub fn update<Q: Serialize + ?Sized, R>(&self, key: &Q, change: impl FnOnce(&mut Option<V>) -> R) -> Result<R>
    where
        K: Borrow<Q>,
        V: Serialize,
    {
        let key = Key::of(key)?;
        self.core_of(&key).update(&key, change)
    }

    fn snapshot<R>(&self, mut element: impl FnMut(&Copied, &Copied) -> Result<R>) -> Result<Vec<R>> {
        let mut all = Vec::new();
        self.cores().try_for_each(|core| core.snapshot(&mut all, &mut element))?;
        Ok(all)
    }

    /// All values, in no order: those of each part at one instant.
    ///
    /// # Errors
    /// As [`ShardedDict::insert`] and [`ShardedDict::get`].
    pub fn values(&self) -> Result<Vec<V>> {
        self.snapshot(|_, value| value.to_value())
    }
}

impl<K: DeserializeOwned, V: DeserializeOwned> ShardedDict<K, V> {
    /// All keys, in no order: those of each part at one instant.
    ///
    /// # Errors
    /// As [`ShardedDict::insert`] and [`ShardedDict::get`].
    pub fn keys(&self) -> Result<Vec<K>> {
        self.snapshot(|key, _| key.to_key())
    }

    /// All keys and values, in no order: those of each part at one instant.
    ///
    /// # Errors
    /// As [`ShardedDict::insert`] and [`ShardedDict::get`].
    pub fn items(&self) -> Result<Vec<(K, V)>> {
        self.snapshot(|key, value| Ok((key.to_key()?, value.to_value()?)))
    }

    /// Removes some element and gives it; `None` if every part was empty when it was looked at.
    ///
    /// # Errors
    /// As [`ShardedDict::insert`] and [`ShardedDict::get`].
    pub fn pop_item(&self) -> Result<Option<(K, V)>> {
        for core in self.cores().filter(|core| core.arena.length() != 0) {
            if let Some(item) = core.pop_item()? {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }
}

impl<K, V> Clone for ShardedDict<K, V> {
    fn clone(&self) -> Self {
        ShardedDict { object: self.object.clone(), ..*self }
    }
}

impl<K, V> fmt::Debug for ShardedDict<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardedDict").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Segment {
    /// The sharded dict `name`, of 16 parts unless told otherwise.
    pub fn sharded_dict<'a, K, V>(&'a self, name: &'a str) -> At<'a, ShardedDict<K, V>> {
        At { segment: self, name, options: ShardedOptions::default() }
    }
}

impl<K, V> At<'_, ShardedDict<K, V>> {
    /// Parts: a power of two, at most 256. As many as there are processes that write, or a few more.
    #[must_use]
    pub fn shards(mut self, shards: u32) -> Self {
        self.options.shards = shards;
        self
    }

    /// The most bytes of the segment's memory it may take, each of its parts the same share of them; no limit unless told otherwise.
    #[must_use]
    pub fn quota(mut self, bytes: u64) -> Self {
        self.options.quota = bytes;
        self
    }
}
