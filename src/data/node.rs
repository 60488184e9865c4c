//! Keys and values as bytes, and the nodes they lie in.
//!
//! ```text
//! node   word | value_tag, key_tag, key_len, value_len | number of its anchor, if it has one | key, padded | value, padded
//! ```
//! What serde makes of a key or value is what a queue makes of a message: plain scalars, text and bytes can be read in every
//! language. Two keys are the same if their tags and bytes are.

use super::arena::{Arena, Block, Prepared, Words, Writing};
use crate::channel::codec::{self, Inner};
use crate::error::{DataError, Result};
use crate::segment::Attachment;
use crate::segment::object::{noting, take_refusal};
use crate::sys::atomic::{AtomicU64, Ordering};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shmkit_layouts::containers::NodeHeader;
use shmkit_layouts::objects::{TAG_F64, TAG_I64};
use shmkit_layouts::words::{CELL_BLOCK, Cell, NodeInfo, Piece, Small};
use std::mem::MaybeUninit;

/// Bytes of a node before its contents.
const HEADER: u64 = size_of::<NodeHeader>() as u64;
/// Words that are kept on the stack.
const INLINE: usize = 16;

/// Bytes as words, padded with zeros. Not moved while they are used: they are written where they stay.
pub(crate) struct Bytes {
    /// The words, as far as they were written, if they fit.
    inline: [MaybeUninit<u64>; INLINE],
    /// All of them, once they are more.
    spilled: Vec<u64>,
    len: usize,
}

impl Bytes {
    #[inline]
    pub(crate) fn new() -> Bytes {
        Bytes { inline: [const { MaybeUninit::uninit() }; INLINE], spilled: Vec::new(), len: 0 }
    }

    #[inline]
    pub(crate) fn words(&self) -> &[u64] {
        let count = self.len.div_ceil(8);
        if count > INLINE {
            return &self.spilled;
        }
        // SAFETY: `len` bytes were written, and the rest of the last word by `pad` or as part of that word.
        unsafe { std::slice::from_raw_parts(self.inline.as_ptr().cast(), count) }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(self.words())[..self.len]
    }

    /// Appends bytes; [`Bytes::pad`] must follow the last of them.
    #[inline(always)]
    fn extend(&mut self, data: &[u8]) {
        let end = self.len + data.len();
        if end > INLINE * 8 {
            return self.spill(data);
        }
        // SAFETY: `end` is inside the array, which does not overlap `data`.
        unsafe {
            let start = self.inline.as_mut_ptr().cast::<u8>().add(self.len);
            std::ptr::copy_nonoverlapping(data.as_ptr(), start, data.len());
        }
        self.len = end;
    }

    #[cold]
    fn spill(&mut self, data: &[u8]) {
        if self.spilled.is_empty() {
            self.pad();
            let written = self.words().to_vec();
            self.spilled = written;
        }
        let end = self.len + data.len();
        self.spilled.resize(end.div_ceil(8), 0);
        bytemuck::cast_slice_mut(&mut self.spilled)[self.len..end].copy_from_slice(data);
        self.len = end;
    }

    /// Zeros up to the end of the last word.
    #[inline]
    fn pad(&mut self) {
        let part = self.len % 8;
        if part != 0 && self.len < INLINE * 8 {
            // SAFETY: the word of the last byte is inside the array.
            unsafe { self.inline.as_mut_ptr().cast::<u8>().add(self.len).write_bytes(0, 8 - part) };
        }
    }

    /// Takes what lies in shared words. The length was checked against them.
    #[inline]
    fn copy(&mut self, words: Words<'_>, len: usize) {
        self.len = len;
        let count = len.div_ceil(8);
        if count > INLINE {
            self.spilled.resize(count, 0);
            words.copy_to(self.spilled.as_mut_ptr(), count);
        } else {
            words.copy_to(self.inline.as_mut_ptr().cast(), count);
        }
    }
}

/// Takes serialised bytes.
struct Sink<'a>(&'a mut Bytes);

#[inline]
fn sink(bytes: &mut Bytes) -> Inner<Sink<'_>> {
    Inner { output: Sink(bytes) }
}

impl postcard::ser_flavors::Flavor for Sink<'_> {
    type Output = ();

    #[inline(always)]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend(data);
        Ok(())
    }
    #[inline]
    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.extend(&[data]);
        Ok(())
    }
    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cold]
fn codec(action: &'static str, why: String) -> crate::Error {
    // A handle's own reason, where it was one that could not be written or read.
    take_refusal().unwrap_or_else(|| DataError::Codec { action, why }.into())
}

/// A key, serialised.
pub(crate) struct Key {
    pub(crate) tag: u32,
    pub(crate) bytes: Bytes,
}

impl Key {
    /// A key that is not written yet.
    #[inline]
    pub(crate) fn none() -> Key {
        Key { tag: 0, bytes: Bytes::new() }
    }

    /// A key, serialised.
    pub(crate) fn of<Q: Serialize + ?Sized>(key: &Q) -> Result<Key> {
        let mut encoded = Key::none();
        encoded.write(key)?;
        Ok(encoded)
    }

    /// Serialises `key` here.
    #[inline]
    pub(crate) fn write<Q: Serialize + ?Sized>(&mut self, key: &Q) -> Result<()> {
        match codec::encode(key, &mut sink(&mut self.bytes)) {
            Ok(tag) => self.tag = tag,
            Err(why) => return Err(codec("write the key", why)),
        }
        self.bytes.pad();
        if self.bytes.len as u64 > NodeInfo::MAX_KEY {
            let (what, size, maximum) = ("key", self.bytes.len as u64, NodeInfo::MAX_KEY);
            return Err(DataError::TooLarge { what, size, maximum }.into());
        }
        Ok(())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.bytes()
    }

    pub(crate) fn words(&self) -> &[u64] {
        self.bytes.words()
    }

    /// The hash of tag and bytes: 32 bits of [`hash`].
    #[inline]
    pub(crate) fn hash(&self, seed: u64) -> u32 {
        hash(seed, self.tag, self.bytes.words(), self.bytes.len)
    }
}

const FIRST: u64 = 0x9E37_79B9_7F4A_7C15;
const SECOND: u64 = 0xD6E8_FEB8_6659_FD93;

/// The product's halves, folded.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// The hash of a key: one folded multiplication for each word (as `wyhash`), seeded with 64 random bits a dict.
#[inline]
fn hash(seed: u64, tag: u32, words: &[u64], len: usize) -> u32 {
    let mut state = seed ^ u64::from(tag).wrapping_mul(FIRST);
    for &word in words {
        state = fold(state ^ word, FIRST);
    }
    fold(state ^ len as u64, SECOND) as u32
}

/// A value, serialised.
pub(crate) struct Value {
    pub(crate) tag: u32,
    pub(crate) bytes: Bytes,
    /// The objects whose handles are in it. The caller's own handles keep them alive until the node does.
    handles: Vec<(crate::segment::ObjectId, u32)>,
}

impl Value {
    #[inline]
    pub(crate) fn none() -> Value {
        Value { tag: 0, bytes: Bytes::new(), handles: Vec::new() }
    }

    /// A value, serialised for a container in the segment of `attachment`.
    pub(crate) fn of<W: Serialize + ?Sized>(attachment: &Attachment, value: &W) -> Result<Value> {
        let mut written = Value::none();
        written.write(attachment, value)?;
        Ok(written)
    }

    /// A value, serialised for a place that keeps nothing alive: handles are refused.
    pub(crate) fn frozen<W: Serialize + ?Sized>(value: &W) -> Result<Value> {
        let mut written = Value::none();
        let tag = codec::encode(value, &mut sink(&mut written.bytes));
        written.finish(tag)?;
        Ok(written)
    }

    pub(crate) fn words(&self) -> &[u64] {
        self.bytes.words()
    }

    /// What a node with this value for `key` says of them.
    #[inline]
    pub(crate) fn info(&self, key: Option<&Key>) -> NodeInfo {
        NodeInfo {
            value_len: self.bytes.len as u32,
            key_len: key.map_or(0, |key| key.bytes.len as u32),
            key_tag: key.map_or(0, |key| key.tag),
            value_tag: self.tag,
        }
    }

    /// The value as the element of a list that needs no node.
    #[inline]
    pub(crate) fn small(&self) -> Option<u64> {
        let len = self.bytes.len;
        if len > 8 || !self.handles.is_empty() {
            return None;
        }
        small(self.tag, len, self.words().first().map_or(0, |&word| word))
    }

    #[inline]
    fn finish(&mut self, tag: std::result::Result<u32, String>) -> Result<()> {
        match tag {
            Ok(tag) => self.tag = tag,
            Err(why) => return Err(codec("write the value", why)),
        }
        self.bytes.pad();
        if self.bytes.len as u64 > u64::from(u32::MAX) {
            let (what, size, maximum) = ("value", self.bytes.len as u64, u64::from(u32::MAX));
            return Err(DataError::TooLarge { what, size, maximum }.into());
        }
        Ok(())
    }

    /// Serialises `value` here, for a container in the segment of `attachment`.
    #[inline]
    pub(crate) fn write<W: Serialize + ?Sized>(&mut self, attachment: &Attachment, value: &W) -> Result<()> {
        let bytes = &mut self.bytes;
        // What needs no drop has no handle, or a reference to one: that is refused here, and noted at the second try.
        if !std::mem::needs_drop::<W>() {
            if let Ok(tag) = codec::encode(value, &mut sink(bytes)) {
                return self.finish(Ok(tag));
            }
            let _ = take_refusal();
            *bytes = Bytes::new();
        }
        let tag = noting(attachment, &mut self.handles, || codec::encode(value, &mut sink(bytes)));
        self.finish(tag)
    }
}

/// A serialised value of at most 8 bytes as the element of a list that needs no node.
#[inline]
fn small(tag: u32, len: usize, word: u64) -> Option<u64> {
    let small = |data, len| Some(Small { data, len: len as u32, tag }.pack());
    match (tag, len) {
        (TAG_I64, 8) if sign_extended(word) == word => small(word, 7),
        (TAG_F64, 8) if word & 0xFF == 0 => small(word >> 8, 7),
        (TAG_I64 | TAG_F64, _) | (_, 8) => None,
        _ => small(word, len),
    }
}

/// Tag, bytes and length of what lies in a list's slot.
#[inline]
fn unpack_small(word: u64) -> (u32, u64, usize) {
    let Small { data, len, tag } = Small::unpack(word);
    match tag {
        TAG_I64 => (tag, sign_extended(data), 8),
        TAG_F64 => (tag, data << 8, 8),
        _ => (tag, data & !(u64::MAX << (8 * len)), len as usize),
    }
}

/// Reads what lies in a list's slot.
#[inline]
pub(crate) fn decode_small<T: DeserializeOwned>(word: u64) -> Result<T> {
    let (tag, word, len) = unpack_small(word);
    decode(tag, &word.to_ne_bytes()[..len])
}

/// The same as [`small`], of a value that is not serialised yet, if it is seen at once that it may be one and has no handle.
#[inline]
pub(crate) fn small_of<W: Serialize + ?Sized>(value: &W) -> Option<u64> {
    // What needs no drop has no handle, or a reference to one: that is refused here, and noted later.
    if std::mem::needs_drop::<W>() || size_of_val(value) > 8 {
        return None;
    }
    let mut few = Inner { output: Few { bytes: [0; 8], len: 0 } };
    match (codec::encode(value, &mut few), few.output) {
        (Ok(tag), few) if few.len <= 8 => small(tag, few.len, u64::from_ne_bytes(few.bytes)),
        (Ok(_), _) => None,
        (Err(_), _) => {
            let _ = take_refusal();
            None
        }
    }
}

/// Takes a few serialised bytes; more of them are only counted.
struct Few {
    bytes: [u8; 8],
    len: usize,
}

impl postcard::ser_flavors::Flavor for Few {
    type Output = ();

    #[inline(always)]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        let end = self.len + data.len();
        if let Some(place) = self.bytes.get_mut(self.len..end) {
            place.copy_from_slice(data);
        }
        self.len = end;
        Ok(())
    }
    #[inline]
    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.try_extend(&[data])
    }
    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// A number of seven bytes, with its sign, in eight.
#[inline]
fn sign_extended(word: u64) -> u64 {
    (((word << 8) as i64) >> 8) as u64
}

/// Everything a new node is to hold.
pub(crate) struct Contents<'c> {
    /// None in a list.
    pub(crate) key: Option<&'c Key>,
    pub(crate) value: &'c Value,
}

impl Contents<'_> {
    #[inline]
    fn size(&self) -> u64 {
        let anchor = u64::from(!self.value.handles.is_empty());
        HEADER + (anchor + self.key_words().len() as u64 + self.value.bytes.words().len() as u64) * 8
    }

    #[inline]
    fn key_words(&self) -> &[u64] {
        self.key.map_or(&[], Key::words)
    }

    #[inline]
    fn write(&self, block: &Block<'_>) -> Option<()> {
        // Relaxed throughout: the swing publishes it.
        block.second().store(self.value.info(self.key).pack(), Ordering::Relaxed);
        let start = HEADER + 8 * u64::from(!self.value.handles.is_empty());
        let (key, value) = (self.key_words(), self.value.bytes.words());
        block.words(start, key.len() as u64)?.fill(key);
        block.words(start + 8 * key.len() as u64, value.len() as u64)?.fill(value);
        Some(())
    }

    /// Large contents are written before the lock is taken.
    #[inline]
    pub(crate) fn prepare<'a>(&self, arena: &Arena<'a>) -> Result<Option<Prepared<'a>>> {
        let size = self.size();
        if size <= 4096 { Ok(None) } else { self.prepare_large(arena, size) }
    }

    #[cold]
    fn prepare_large<'a>(&self, arena: &Arena<'a>, size: u64) -> Result<Option<Prepared<'a>>> {
        let prepared = Prepared::new(arena.attachment, size)?;
        if let Some(block) = prepared.as_ref().and_then(Prepared::block) {
            self.write(&block);
        }
        Ok(prepared)
    }

    /// A new node with these contents: its link. Freed unless there is a commit.
    #[inline]
    pub(crate) fn place<'a>(&self, writing: &mut Writing<'a>, prepared: Option<Prepared<'a>>) -> Result<u64> {
        let (block, link) = match prepared {
            Some(prepared) => writing.take_prepared(prepared)?,
            None => {
                let (block, link) = writing.allocate(self.size())?;
                self.write(&block).ok_or_else(|| writing.corrupt(link))?;
                (block, link)
            }
        };
        failpoint!("node.filled");
        self.keep_alive(writing, &block)?;
        Ok(link)
    }

    /// As [`Contents::place`], noted in a link of a record.
    pub(crate) fn place_in<'a>(&self, writing: &mut Writing<'a>, note: &AtomicU64) -> Result<u64> {
        let (block, link) = writing.allocate_in(self.size(), note)?;
        self.write(&block).ok_or_else(|| writing.corrupt(link))?;
        failpoint!("node.filled");
        self.keep_alive(writing, &block)?;
        Ok(link)
    }

    #[inline]
    fn keep_alive<'a>(&self, writing: &mut Writing<'a>, block: &Block<'a>) -> Result<()> {
        if self.value.handles.is_empty() { Ok(()) } else { self.anchor(writing, block) }
    }

    #[cold]
    fn anchor<'a>(&self, writing: &mut Writing<'a>, block: &Block<'a>) -> Result<()> {
        let (id, generation) = writing.anchor(block)?;
        let object = writing.arena.object;
        for &(referent, role) in &self.value.handles {
            let cell = Cell { kind: CELL_BLOCK, role, object, id, generation };
            writing.arena.attachment.add_reference(referent, cell)?;
            failpoint!("node.handle");
        }
        Ok(())
    }
}

/// Reads a key or value that lies somewhere else.
#[inline]
pub(crate) fn decode<T: DeserializeOwned>(tag: u32, bytes: &[u8]) -> Result<T> {
    codec::decode(tag, bytes, |why| codec("read the value", why))
}

/// A node as it is found: checked against the heap's bounds, but possibly stale.
pub(crate) struct Node<'a> {
    info: NodeInfo,
    is_anchored: bool,
    key: Words<'a>,
    value: Words<'a>,
}

impl<'a> Node<'a> {
    /// The node in a block, if it is one.
    #[inline]
    pub(crate) fn at(block: &Block<'a>) -> Option<Node<'a>> {
        let info = NodeInfo::unpack(block.second().load(Ordering::Relaxed));
        let is_anchored = Piece::unpack(block.word().load(Ordering::Relaxed)).anchored != 0;
        let start = HEADER + 8 * u64::from(is_anchored);
        let key_words = u64::from(info.key_len.div_ceil(8));
        let key = block.words(start, key_words)?;
        let value = block.words(start + 8 * key_words, u64::from(info.value_len.div_ceil(8)))?;
        Some(Node { info, is_anchored, key, value })
    }

    /// The value of a node without a key, copied; `None` if it cannot be one.
    #[inline]
    pub(crate) fn copy_value_at(block: &Block<'a>, to: &mut Copied) -> Option<()> {
        let info = NodeInfo::unpack(block.second().load(Ordering::Relaxed));
        let is_anchored = Piece::unpack(block.word().load(Ordering::Relaxed)).anchored != 0;
        let start = HEADER + 8 * u64::from(is_anchored);
        let words = block.words(start, u64::from(info.value_len.div_ceil(8)))?;
        to.tag = info.value_tag;
        to.has_handles = is_anchored;
        to.bytes.copy(words, info.value_len as usize);
        Some(())
    }

    #[inline]
    pub(crate) fn has_key(&self, key: &Key) -> bool {
        self.info.key_len as usize == key.bytes.len && self.info.key_tag == key.tag && self.key.are(key.bytes.words())
    }

    #[inline]
    pub(crate) fn has_value(&self, value: &Value) -> bool {
        self.info.value_len as usize == value.bytes.len
            && self.info.value_tag == value.tag
            && self.value.are(value.bytes.words())
    }

    /// The word in which the value lies, and what it becomes with another one: where both are that word and nothing else.
    #[inline]
    pub(crate) fn only_word(&self, value: &Value) -> Option<(&'a AtomicU64, u64)> {
        let is_alike = self.info.value_tag == value.tag && self.info.value_len as usize == value.bytes.len;
        match value.bytes.words() {
            &[word] if is_alike && !self.is_anchored && value.handles.is_empty() => Some((self.value.get(0)?, word)),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn copy_value(&self, to: &mut Copied) {
        to.tag = self.info.value_tag;
        to.has_handles = self.is_anchored;
        to.bytes.copy(self.value, self.info.value_len as usize);
    }

    #[inline]
    pub(crate) fn copy_key(&self, to: &mut Copied) {
        to.tag = self.info.key_tag;
        to.has_handles = false;
        to.bytes.copy(self.key, self.info.key_len as usize);
    }

    /// The key's hash, for tables that are checked.
    pub(crate) fn hash(&self, seed: u64) -> u32 {
        let mut key = Copied::none();
        self.copy_key(&mut key);
        hash(seed, key.tag, key.bytes.words(), key.bytes.len)
    }
}

/// A key or value that was copied out of its node.
pub(crate) struct Copied {
    tag: u32,
    /// It names objects: decoding it adopts them, and that fails once its node is gone.
    pub(crate) has_handles: bool,
    bytes: Bytes,
}

impl Copied {
    #[inline]
    pub(crate) fn none() -> Copied {
        Copied { tag: 0, has_handles: false, bytes: Bytes::new() }
    }

    /// Takes what lies in a list's slot.
    #[inline]
    pub(crate) fn copy_small(&mut self, word: u64) {
        let (tag, word, len) = unpack_small(word);
        (self.tag, self.has_handles) = (tag, false);
        self.bytes.inline[0].write(word);
        self.bytes.len = len;
    }

    /// Whether it is that value.
    #[inline]
    pub(crate) fn is(&self, value: &Value) -> bool {
        self.tag == value.tag && self.bytes.bytes() == value.bytes.bytes()
    }

    #[inline]
    pub(crate) fn to_value<T: DeserializeOwned>(&self) -> Result<T> {
        decode(self.tag, self.bytes.bytes())
    }

    pub(crate) fn to_key<T: DeserializeOwned>(&self) -> Result<T> {
        codec::decode(self.tag, self.bytes.bytes(), |why| codec("read the key", why))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn key<Q: Serialize + ?Sized>(value: &Q) -> Key {
        let mut key = Key::none();
        key.write(value).unwrap();
        key
    }

    #[test]
    fn bytes_spill_where_they_are_too_many() {
        for len in [0, 1, 7, 8, 127, 128, 129, 1000] {
            let text: String = ('a'..='z').cycle().take(len).collect();
            let written = key(&text);
            assert_eq!(written.bytes.bytes(), text.as_bytes());
            assert_eq!(written.bytes.words().len(), len.div_ceil(8));
            let last = written.bytes.words().last().map_or(0, |last| last.to_ne_bytes()[7]);
            assert_eq!(last == 0, len % 8 != 0 || len == 0, "{len}: padded with zeros");
            let numbers: Vec<u16> = (0..len as u16).collect();
            let written = key(&numbers);
            assert_eq!(decode::<Vec<u16>>(written.tag, written.bytes.bytes()).unwrap(), numbers);
        }
    }

    #[test]
    fn what_is_small_comes_back() {
        fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: T, is_small: bool) {
            let mut written = Value::none();
            let tag = codec::encode(&value, &mut sink(&mut written.bytes));
            written.finish(tag).unwrap();
            let small = written.small();
            assert_eq!(small.is_some(), is_small, "{value:?}");
            if let Some(word) = small {
                let mut copied = Copied::none();
                copied.copy_small(word);
                assert!(copied.is(&written), "{value:?}");
                assert_eq!(copied.to_value::<T>().unwrap(), value);
            }
            // At once, or not at all.
            assert!(small_of(&value).is_none_or(|word| small == Some(word)), "{value:?}");
        }
        let limit = 1i64 << 55;
        for number in [0, 1, -1, 255, -256, limit - 1, -limit] {
            check(number, true);
        }
        for number in [limit, -limit - 1, i64::MAX, i64::MIN] {
            check(number, false);
        }
        for (number, is_small) in [(0.0, true), (-1.5, true), (f64::INFINITY, true), (0.1, false), (f64::MAX, false)] {
            check(number, is_small);
        }
        for (text, is_small) in
            [("", true), ("a", true), ("sevens!", true), ("eight...", false), ("more than that", false)]
        {
            check(text.to_owned(), is_small);
        }
        check(true, true);
        check((), true);
        check(Some(3u8), true);
        check((1u8, 2u16, 3u8), true);
        check(u64::MAX, false);
        assert_eq!(small_of("sevens!"), Value::frozen("sevens!").unwrap().small());
        assert!(small_of("sevens!").is_some() && small_of("eight...").is_none() && small_of(&3u64).is_some());
        check(vec![9u8; 6], true);
        check(vec![9u8; 7], false);
    }

    #[test]
    fn the_hash_spreads_small_numbers_over_all_its_bits() {
        for bit in 0..32 {
            let ones = (0..1000u64).filter(|n| key(n).hash(7) >> bit & 1 == 1).count();
            assert!((400..600).contains(&ones), "bit {bit}: {ones} of 1000");
        }
    }

    #[test]
    fn what_is_written_in_another_type_is_another_key() {
        assert_ne!(key("1").hash(1), key(&1).hash(1));
        assert_eq!(key(&1u8).hash(1), key(&1i64).hash(1), "all integers are i64");
    }
}
