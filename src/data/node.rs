//! Keys and values as bytes, and the nodes they lie in.
//!
//! ```text
//! node   word | value_tag, key_tag, key_len, value_len | number of its anchor, if it has one | key, padded | value, padded
//! ```
//! What serde makes of a key or value is what a queue makes of a message: plain scalars, text and bytes can be read in every
//! language. Two keys are the same if their tags and bytes are.

use super::arena::{Arena, Block, Prepared, Words, Writing};
use crate::channel::codec;
use crate::error::{DataError, Result};
use crate::segment::Attachment;
use crate::segment::object::{noting, take_refusal};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shmkit_layouts::containers::NodeHeader;
use shmkit_layouts::words::{CELL_BLOCK, Cell, NodeInfo, Piece};
use std::sync::atomic::Ordering;

/// Bytes of a node before its contents.
const HEADER: u64 = size_of::<NodeHeader>() as u64;
/// Words that are kept on the stack.
const INLINE: usize = 16;

/// Bytes as words, padded with zeros.
pub(super) struct Bytes {
    inline: [u64; INLINE],
    /// All of them, once they are more than fit `inline`.
    spilled: Vec<u64>,
    len: usize,
}

impl Bytes {
    #[inline]
    fn new() -> Bytes {
        Bytes { inline: [0; INLINE], spilled: Vec::new(), len: 0 }
    }

    #[inline]
    pub(super) fn words(&self) -> &[u64] {
        let count = self.len.div_ceil(8);
        if count <= INLINE { &self.inline[..count] } else { &self.spilled[..count] }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(self.words())[..self.len]
    }

    /// What lies in shared words. The length was checked against them.
    #[inline]
    fn copy(words: Words<'_>, len: usize) -> Bytes {
        let mut bytes = Bytes::new();
        bytes.len = len;
        let count = len.div_ceil(8);
        if count <= INLINE {
            words.copy_to(&mut bytes.inline[..count]);
        } else {
            bytes.spilled = vec![0; count];
            words.copy_to(&mut bytes.spilled);
        }
        bytes
    }
}

/// Takes serialised bytes.
struct Sink<'a>(&'a mut Bytes);

impl postcard::ser_flavors::Flavor for Sink<'_> {
    type Output = ();

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        let bytes = &mut *self.0;
        let end = bytes.len + data.len();
        if end > INLINE * 8 {
            if bytes.spilled.is_empty() {
                bytes.spilled.extend_from_slice(&bytes.inline);
            }
            bytes.spilled.resize(end.div_ceil(8), 0);
            bytemuck::cast_slice_mut(&mut bytes.spilled)[bytes.len..end].copy_from_slice(data);
        } else {
            bytemuck::cast_slice_mut(&mut bytes.inline)[bytes.len..end].copy_from_slice(data);
        }
        bytes.len = end;
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

#[cold]
fn codec(action: &'static str, why: String) -> crate::Error {
    // A handle's own reason, where it was one that could not be written or read.
    take_refusal().unwrap_or_else(|| DataError::Codec { action, why }.into())
}

/// A key, serialised.
pub(super) struct Key {
    pub(super) tag: u32,
    pub(super) bytes: Bytes,
}

impl Key {
    #[inline]
    pub(super) fn new<Q: Serialize + ?Sized>(key: &Q) -> Result<Key> {
        let mut bytes = Bytes::new();
        let tag = match codec::encode(key, Sink(&mut bytes)) {
            Ok((tag, _)) => tag,
            Err(why) => return Err(codec("write the key", why)),
        };
        if bytes.len as u64 > NodeInfo::MAX_KEY {
            let (what, size, maximum) = ("key", bytes.len as u64, NodeInfo::MAX_KEY);
            return Err(DataError::TooLarge { what, size, maximum }.into());
        }
        Ok(Key { tag, bytes })
    }

    /// No key: of a value in a list.
    pub(super) fn none() -> Key {
        Key { tag: 0, bytes: Bytes::new() }
    }

    /// The hash of tag and bytes: 32 bits of [`hash`].
    #[inline]
    pub(super) fn hash(&self, seed: u64) -> u32 {
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
pub(super) struct Value {
    pub(super) tag: u32,
    pub(super) bytes: Bytes,
    /// The objects whose handles are in it. The caller's own handles keep them alive until the node does.
    handles: Vec<(crate::segment::ObjectId, u32)>,
}

impl Value {
    #[inline]
    pub(super) fn new<W: Serialize + ?Sized>(attachment: &Attachment, value: &W) -> Result<Value> {
        let mut bytes = Bytes::new();
        let (encoded, handles) = noting(attachment, || codec::encode(value, Sink(&mut bytes)));
        let tag = match encoded {
            Ok((tag, _)) => tag,
            Err(why) => return Err(codec("write the value", why)),
        };
        if bytes.len as u64 > u64::from(u32::MAX) {
            let (what, size, maximum) = ("value", bytes.len as u64, u64::from(u32::MAX));
            return Err(DataError::TooLarge { what, size, maximum }.into());
        }
        Ok(Value { tag, bytes, handles })
    }
}

/// Everything a new node is to hold.
pub(super) struct Contents<'c> {
    pub(super) key: &'c Key,
    pub(super) value: &'c Value,
}

impl Contents<'_> {
    #[inline]
    fn size(&self) -> u64 {
        let anchor = u64::from(!self.value.handles.is_empty());
        HEADER + (anchor + self.key.bytes.words().len() as u64 + self.value.bytes.words().len() as u64) * 8
    }

    #[inline]
    fn write(&self, block: &Block<'_>) -> Option<()> {
        let info = NodeInfo {
            value_len: self.value.bytes.len as u32,
            key_len: self.key.bytes.len as u32,
            key_tag: self.key.tag,
            value_tag: self.value.tag,
        };
        // Relaxed throughout: the swing publishes it.
        block.second().store(info.pack(), Ordering::Relaxed);
        let start = HEADER + 8 * u64::from(!self.value.handles.is_empty());
        let (key, value) = (self.key.bytes.words(), self.value.bytes.words());
        block.words(start, key.len() as u64)?.fill(key);
        block.words(start + 8 * key.len() as u64, value.len() as u64)?.fill(value);
        Some(())
    }

    /// Large contents are written before the lock is taken.
    #[inline]
    pub(super) fn prepare<'a>(&self, arena: &Arena<'a>) -> Result<Option<Prepared<'a>>> {
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
    pub(super) fn place<'a>(&self, writing: &mut Writing<'a>, prepared: Option<Prepared<'a>>) -> Result<u64> {
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
    pub(super) fn place_in<'a>(&self, writing: &mut Writing<'a>, note: &std::sync::atomic::AtomicU64) -> Result<u64> {
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

/// A node as it is found: checked against the heap's bounds, but possibly stale.
pub(super) struct Node<'a> {
    info: NodeInfo,
    is_anchored: bool,
    key: Words<'a>,
    value: Words<'a>,
}

impl<'a> Node<'a> {
    /// The node in a block, if it is one.
    #[inline]
    pub(super) fn at(block: &Block<'a>) -> Option<Node<'a>> {
        let info = NodeInfo::unpack(block.second().load(Ordering::Relaxed));
        let is_anchored = Piece::unpack(block.word().load(Ordering::Relaxed)).anchored != 0;
        let start = HEADER + 8 * u64::from(is_anchored);
        let key_words = u64::from(info.key_len.div_ceil(8));
        let key = block.words(start, key_words)?;
        let value = block.words(start + 8 * key_words, u64::from(info.value_len.div_ceil(8)))?;
        Some(Node { info, is_anchored, key, value })
    }

    #[inline]
    pub(super) fn has_key(&self, key: &Key) -> bool {
        self.info.key_len as usize == key.bytes.len && self.info.key_tag == key.tag && self.key.are(key.bytes.words())
    }

    #[inline]
    pub(super) fn has_value(&self, value: &Value) -> bool {
        self.info.value_len as usize == value.bytes.len
            && self.info.value_tag == value.tag
            && self.value.are(value.bytes.words())
    }

    #[inline]
    pub(super) fn value(&self) -> Copied {
        let bytes = Bytes::copy(self.value, self.info.value_len as usize);
        Copied { tag: self.info.value_tag, bytes, has_handles: self.is_anchored }
    }

    pub(super) fn key(&self) -> Copied {
        let bytes = Bytes::copy(self.key, self.info.key_len as usize);
        Copied { tag: self.info.key_tag, bytes, has_handles: false }
    }
}

/// A key or value that was copied out of its node.
pub(super) struct Copied {
    tag: u32,
    bytes: Bytes,
    /// It names objects: decoding it adopts them, and that fails once its node is gone.
    pub(super) has_handles: bool,
}

impl Copied {
    #[inline]
    pub(super) fn to_value<T: DeserializeOwned>(&self) -> Result<T> {
        codec::decode(self.tag, self.bytes.bytes()).map_err(|why| codec("read the value", why))
    }

    pub(super) fn to_key<T: DeserializeOwned>(&self) -> Result<T> {
        codec::decode(self.tag, self.bytes.bytes()).map_err(|why| codec("read the key", why))
    }

    /// The key's hash, for tables that are checked.
    pub(super) fn hash(&self, seed: u64) -> u32 {
        hash(seed, self.tag, self.bytes.words(), self.bytes.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_spill_where_they_are_too_many() {
        for len in [0, 1, 7, 8, 127, 128, 129, 1000] {
            let text: String = ('a'..='z').cycle().take(len).collect();
            let key = Key::new(&text).unwrap();
            assert_eq!(key.bytes.bytes(), text.as_bytes());
            assert_eq!(key.bytes.words().len(), len.div_ceil(8));
            let numbers: Vec<u16> = (0..len as u16).collect();
            let key = Key::new(&numbers).unwrap();
            assert_eq!(codec::decode::<Vec<u16>>(key.tag, key.bytes.bytes()).unwrap(), numbers);
        }
    }

    #[test]
    fn the_hash_spreads_small_numbers_over_all_its_bits() {
        for bit in 0..32 {
            let ones = (0..1000u64).filter(|&n| Key::new(&n).unwrap().hash(7) >> bit & 1 == 1).count();
            assert!((400..600).contains(&ones), "bit {bit}: {ones} of 1000");
        }
    }

    #[test]
    fn what_is_written_in_another_type_is_another_key() {
        let of = |key: Key| key.hash(1);
        assert_ne!(of(Key::new("1").unwrap()), of(Key::new(&1).unwrap()));
        assert_eq!(of(Key::new(&1u8).unwrap()), of(Key::new(&1i64).unwrap()), "all integers are i64");
    }
}
