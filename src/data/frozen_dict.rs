//! [`FrozenDict`]: a dict that is built once and never changes.
//!
//! ```text
//! body     header | len, tag = TAG_BYTES | the image
//! image    slots | entries | seed | index slot … | place of a record …(one for each entry, in order) | record …
//! record   info: key and value, their tags and lengths | key, padded | value, padded
//! ```
//! Index slots, hash and records are as in a [`crate::Dict`]. The body's kind and layout are a frozen value's.

use super::dict::Elements;
use super::frozen::FrozenBytes;
use super::node::{Key, Value, decode};
use crate::error::{DataError, Result, corrupt};
use crate::segment::Segment;
use crate::segment::object::{Object, Shared, serialize as serialize_handle};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shmkit_layouts::objects::{TAG_BYTES, TAG_UTF8};
use shmkit_layouts::words::{IndexSlot, NodeInfo};
use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::marker::PhantomData;

/// Words of an image before its index.
const HEADER: usize = 3;
/// The seed: frozen dicts are built from what their builder trusts.
const SEED: u64 = 0x5348_4D4B_4954_0001;

/// A dict that is built once, and read in place by any number of processes.
///
/// It is trusted not to change: a process that writes to it breaks the rules of the layout. Of equal keys the last one counts, at
/// the place of the first.
///
/// Crash behaviour: as [`crate::FrozenBytes`].
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let capitals = shmkit::FrozenDict::<String, String>::new([("Norway", "Oslo"), ("Japan", "Tokyo")])?;
/// assert_eq!(capitals.get_str("Japan")?, Some("Tokyo"));
/// assert_eq!(capitals.get("Norway")?, Some("Oslo".to_owned()));
/// assert_eq!(capitals.get("Atlantis")?, None);
/// # Ok(())
/// # }
/// ```
pub struct FrozenDict<K, V> {
    image: FrozenBytes,
    slots: usize,
    entries: usize,
    seed: u64,
    _elements: Elements<K, V>,
}

/// A record's parts.
struct Record<'a> {
    info: NodeInfo,
    key: &'a [u8],
    value: &'a [u8],
}

impl<K, V> FrozenDict<K, V> {
    /// A new one in the session segment.
    ///
    /// # Errors
    /// `Codec` if serde cannot write a key or value; `TooLarge`; `OutOfMemory`; `TooManyObjects`.
    pub fn new<Q: Serialize, W: Serialize>(items: impl IntoIterator<Item = (Q, W)>) -> Result<FrozenDict<K, V>> {
        FrozenDict::new_in(&crate::session()?, items)
    }

    /// A new one in `segment`.
    ///
    /// # Errors
    /// As [`FrozenDict::new`].
    pub fn new_in<Q: Serialize, W: Serialize>(
        segment: &Segment,
        items: impl IntoIterator<Item = (Q, W)>,
    ) -> Result<FrozenDict<K, V>> {
        FrozenDict::of(FrozenBytes::new_in(segment, bytemuck::cast_slice(&image(items)?))?)
    }

    /// A new one of that name in `segment`.
    ///
    /// # Errors
    /// As [`FrozenDict::new`], and `ObjectExists`.
    pub fn create<Q: Serialize, W: Serialize>(
        segment: &Segment,
        name: &str,
        items: impl IntoIterator<Item = (Q, W)>,
    ) -> Result<FrozenDict<K, V>> {
        FrozenDict::of(segment.frozen_bytes(name, bytemuck::cast_slice(&image(items)?)).create()?)
    }

    /// The one of that name in `segment`.
    ///
    /// # Errors
    /// `ObjectNotFound`, `WrongKind`, `Corrupt`.
    pub fn open(segment: &Segment, name: &str) -> Result<FrozenDict<K, V>> {
        FrozenDict::of(segment.frozen_bytes(name, &[]).open()?)
    }

    fn of(image: FrozenBytes) -> Result<FrozenDict<K, V>> {
        let mut dict = FrozenDict { image, slots: 0, entries: 0, seed: 0, _elements: PhantomData };
        let wrong = corrupt("frozen dict", dict.image.object().offset(), dict.image.len() as u64);
        let Some(&[slots, entries, seed, ..]) = dict.words() else { return Err(wrong) };
        let room = (dict.words().map_or(0, <[u64]>::len) - HEADER) as u64;
        if !slots.is_power_of_two() || slots > room || entries > room - slots || entries >= slots {
            return Err(wrong);
        }
        (dict.slots, dict.entries, dict.seed) = (slots as usize, entries as usize, seed);
        Ok(dict)
    }

    /// The image as words: it starts at a multiple of 64.
    fn words(&self) -> Option<&[u64]> {
        bytemuck::try_cast_slice(&self.image).ok()
    }

    fn record(&self, entry: usize) -> Option<Record<'_>> {
        let words = self.words()?;
        if entry >= self.entries {
            return None;
        }
        let place = usize::try_from(*words.get(HEADER + self.slots + entry)?).ok()?;
        let info = NodeInfo::unpack(*words.get(place)?);
        let (key, value) = (info.key_len as usize, info.value_len as usize);
        let contents: &[u8] = bytemuck::cast_slice(&words[place + 1..]);
        let start = key.next_multiple_of(8);
        Some(Record { info, key: contents.get(..key)?, value: contents.get(start..start.checked_add(value)?)? })
    }

    fn wrong(&self) -> crate::Error {
        corrupt("frozen dict", self.image.object().offset(), self.image.len() as u64)
    }

    fn find(&self, key: &Key) -> Result<Option<Record<'_>>> {
        let hash = key.hash(self.seed);
        let words = self.words().ok_or_else(|| self.wrong())?;
        let mask = self.slots - 1;
        for step in 0..self.slots {
            let at = (hash as usize).wrapping_add(step) & mask;
            let slot = words.get(HEADER + at).ok_or_else(|| self.wrong())?;
            let Some(slot) = IndexSlot::unpack(*slot) else { return Ok(None) };
            if slot.hash == hash {
                let record = self.record(slot.entry as usize).ok_or_else(|| self.wrong())?;
                if record.info.key_tag == key.tag && record.key == key.bytes() {
                    return Ok(Some(record));
                }
            }
        }
        Ok(None)
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Whether there is a value for `key`.
    ///
    /// # Errors
    /// `Codec` if serde cannot write the key; `Corrupt`.
    pub fn contains<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
    {
        Ok(self.find(&Key::of(key)?)?.is_some())
    }

    /// The bytes of the value for `key` where they lie, of one that is text or bytes: what serde makes of a `String` or of
    /// `serde_bytes`.
    ///
    /// # Errors
    /// `Codec` if serde cannot write the key or the value is neither; `Corrupt`.
    pub fn get_bytes<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<&[u8]>>
    where
        K: Borrow<Q>,
    {
        match self.find(&Key::of(key)?)? {
            Some(record) if matches!(record.info.value_tag, TAG_BYTES | TAG_UTF8) => Ok(Some(record.value)),
            Some(record) => {
                Err(unreadable(format!("a value of tag {} is neither text nor bytes", record.info.value_tag)))
            }
            None => Ok(None),
        }
    }

    /// The text of the value for `key` where it lies.
    ///
    /// # Errors
    /// As [`FrozenDict::get_bytes`].
    pub fn get_str<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<&str>>
    where
        K: Borrow<Q>,
    {
        let text = self.get_bytes(key)?.map(std::str::from_utf8).transpose();
        text.map_err(|error| unreadable(error.to_string()))
    }

    /// Its segment.
    pub fn segment(&self) -> Segment {
        self.image.segment()
    }
}

fn unreadable(why: String) -> crate::Error {
    DataError::Codec { action: "read the value", why }.into()
}

impl<K, V: DeserializeOwned> FrozenDict<K, V> {
    /// The value for `key`, or `None`.
    ///
    /// # Errors
    /// `Codec` if serde cannot write the key or read the value; `Corrupt`.
    pub fn get<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
    {
        self.find(&Key::of(key)?)?.map(|record| decode(record.info.value_tag, record.value)).transpose()
    }

    /// The keys and values, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = Result<(K, V)>> + '_
    where
        K: DeserializeOwned,
    {
        (0..self.entries).map(|entry| {
            let record = self.record(entry).ok_or_else(|| self.wrong())?;
            Ok((decode(record.info.key_tag, record.key)?, decode(record.info.value_tag, record.value)?))
        })
    }
}

/// The image of a dict with these elements.
fn image<Q: Serialize, W: Serialize>(items: impl IntoIterator<Item = (Q, W)>) -> Result<Vec<u64>> {
    let mut entries: Vec<(Key, Value, u32)> = Vec::new();
    let mut places = HashMap::<(u32, Vec<u8>), usize>::new();
    for (key, value) in items {
        let (key, value) = (Key::of(&key)?, Value::frozen(&value)?);
        // By the bytes, not by the padded words: those of keys of different lengths may be equal.
        match places.entry((key.tag, key.bytes().to_vec())) {
            Entry::Occupied(place) => entries[*place.get()].1 = value,
            Entry::Vacant(place) => {
                place.insert(entries.len());
                let hash = key.hash(SEED);
                entries.push((key, value, hash));
            }
        }
    }
    let slots = (entries.len() * 3 / 2 + 2).next_power_of_two();
    let mut image = vec![slots as u64, entries.len() as u64, SEED];
    image.resize(HEADER + slots + entries.len(), 0);
    for (number, (key, value, hash)) in entries.iter().enumerate() {
        let mut at = *hash as usize & (slots - 1);
        while image[HEADER + at] != 0 {
            at = (at + 1) & (slots - 1);
        }
        image[HEADER + at] = IndexSlot { entry: number as u32, hash: *hash }.pack();
        image[HEADER + slots + number] = image.len() as u64;
        image.push(value.info(Some(key)).pack());
        image.extend_from_slice(key.words());
        image.extend_from_slice(value.words());
    }
    Ok(image)
}

impl<K, V> Clone for FrozenDict<K, V> {
    fn clone(&self) -> Self {
        FrozenDict { image: self.image.clone(), ..*self }
    }
}

impl<K, V> fmt::Debug for FrozenDict<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrozenDict").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<K, V> Serialize for FrozenDict<K, V> {
    /// Only as an argument of a process or inside a message: something must keep the object alive on the way.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let object: &Object = self.image.object();
        serialize_handle(object, serializer)
    }
}

impl<'de, K, V> serde::Deserialize<'de> for FrozenDict<K, V> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        FrozenDict::of(FrozenBytes::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
