//! A list's directory and its chunks.
//!
//! ```text
//! directory   header | link of a chunk … | index of its first element …           ascending; unused links are 0
//! chunk       header | link of a node, or 0 …                                     full ones have 510
//! ```

use crate::data::arena::{Block, Words};
use crate::segment::atomic;
use crate::sys::atomic::{AtomicU64, Ordering};
use shmkit_layouts::containers::{ChunkHeader, DirectoryHeader, LIST_CHUNK_SLOTS};

const HEADER: u64 = size_of::<DirectoryHeader>() as u64;
const CHUNK_HEADER: u64 = size_of::<ChunkHeader>() as u64;

/// Bytes of a chunk.
pub(super) fn chunk_size(slots: u64) -> u64 {
    CHUNK_HEADER + slots * 8
}

/// A directory, its geometry checked against the heap's bounds.
pub(super) struct Directory<'a> {
    pub(super) count: u64,
    links: Words<'a>,
    firsts: Words<'a>,
}

impl<'a> Directory<'a> {
    #[inline]
    pub(super) fn at(block: &Block<'a>) -> Option<Directory<'a>> {
        let header = block.header::<DirectoryHeader>()?;
        // Relaxed: ordered by `read_root`, or by the lock.
        let count = atomic!(header, count).load(Ordering::Relaxed);
        if count > 1 << 40 {
            return None;
        }
        let (links, firsts) = block.words(HEADER, count * 2)?.split(count);
        Some(Directory { count, links, firsts })
    }

    /// The link of a chunk: one of the words that are a list's commit points.
    #[inline]
    pub(super) fn link(&self, number: u64) -> Option<&'a AtomicU64> {
        self.links.get(number)
    }

    /// The index of a chunk's first element.
    #[inline]
    pub(super) fn first(&self, number: u64) -> Option<&'a AtomicU64> {
        self.firsts.get(number)
    }

    /// Whether a chunk is there and `index` is not before it.
    #[inline]
    fn reaches(&self, number: u64, index: u64) -> bool {
        // Acquire pairs with the swing that put the chunk there: its first index is.
        let is_there = self.link(number).is_some_and(|link| link.load(Ordering::Acquire) != 0);
        is_there && self.first(number).is_some_and(|first| first.load(Ordering::Relaxed) <= index)
    }

    /// The number of the chunk that `index` belongs to: the last one that does not start after it.
    #[inline]
    pub(super) fn find(&self, index: u64) -> Option<u64> {
        // Where all chunks are full, it is this one.
        let guess = index / LIST_CHUNK_SLOTS;
        if self.reaches(guess, index) && !self.reaches(guess + 1, index) {
            return Some(guess);
        }
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            if self.reaches(middle, index) { low = middle + 1 } else { high = middle }
        }
        low.checked_sub(1)
    }

    /// Chunks that are there.
    pub(super) fn used(&self) -> u64 {
        self.find(u64::MAX).map_or(0, |last| last + 1)
    }
}

/// The slots of a chunk.
#[inline]
pub(super) fn slots<'a>(block: &Block<'a>) -> Option<Words<'a>> {
    let header = block.header::<ChunkHeader>()?;
    let capacity = atomic!(header, capacity).load(Ordering::Relaxed);
    if capacity > LIST_CHUNK_SLOTS { None } else { block.words(CHUNK_HEADER, capacity) }
}

/// Writes the header of a new chunk and clears its slots.
pub(super) fn build_chunk<'a>(block: &Block<'a>, capacity: u64) -> Option<Words<'a>> {
    let header = block.header::<ChunkHeader>()?;
    atomic!(header, capacity).store(capacity, Ordering::Relaxed);
    let slots = block.words(CHUNK_HEADER, capacity)?;
    slots.clear();
    Some(slots)
}
