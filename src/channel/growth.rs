//! The payloads of a queue that grows: chunks of the heap, taken one after the other when no block is free.
//!
//! ```text
//! chunk[C]  u64  where the payloads of blocks c·P to c·P + P - 1 lie, or 0; written once        P blocks a chunk
//!
//! grow      an extent HELD by me; CAS chunk c: 0 → its name: THE COMMIT; commit the extent
//!           who loses the CAS frees his own and uses the other one
//! ```
//! Slots, block words and the names of long messages are there from the beginning, for as many messages as the queue's limit
//! says: 24 bytes each. So everything that is proven of a ring holds for one that grows.
//!
//! # Crash behaviour
//!
//! | a producer is killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | the extent HELD by it, not named | no chunk | recovery's sweep of the heap frees it | nothing |
//! | the extent named, still HELD | a chunk, which they use | recovery commits it before the sweep | nothing |
//! | after that | a chunk | nobody needs to | nothing |
//! | the recoverer, between any two steps | the same | the next one: a committed extent stays committed | nothing |

use super::spec::Spec;
use crate::error::Result;
use crate::segment::Attachment;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// Blocks of a chunk.
pub(super) const CHUNK_BLOCKS: u32 = 256;

/// Where the chunks are, as far as this process has looked.
#[derive(Debug)]
pub(super) struct Growth {
    table: *const AtomicU64,
    /// Blocks of a chunk.
    per: u32,
    /// Bytes of a chunk.
    len: u64,
    /// Where each chunk lies in the mapping, once it was looked at and checked.
    found: Box<[AtomicPtr<u8>]>,
    /// So many chunks from the first on were found: their blocks may be claimed.
    grown: AtomicU32,
}

// SAFETY: the table is in the mapping, which the handle's object keeps, and reached as atomics.
unsafe impl Send for Growth {}
// SAFETY: as above.
unsafe impl Sync for Growth {}

impl Growth {
    /// Of a table of `count` words, which lie inside the object.
    pub(super) fn new(table: *const AtomicU64, count: u32, per: u32, stride: u32) -> Growth {
        let found = (0..count).map(|_| AtomicPtr::default()).collect();
        Growth { table, per, len: u64::from(per) * u64::from(stride), found, grown: AtomicU32::new(0) }
    }

    fn name(&self, chunk: usize) -> &AtomicU64 {
        debug_assert!(chunk < self.found.len());
        // SAFETY: the index is below the count, which was checked; the reference is to an atomic.
        unsafe { &*self.table.add(chunk) }
    }

    /// The names of all chunks there are.
    pub(super) fn names(&self) -> impl Iterator<Item = u64> {
        // Acquire pairs with the release in `grow`.
        (0..self.found.len()).map(|chunk| self.name(chunk).load(Ordering::Acquire)).filter(|&name| name != 0)
    }

    /// Blocks that may be claimed.
    #[inline]
    pub(super) fn blocks(&self) -> u32 {
        // Acquire pairs with the release in `grow`.
        self.grown.load(Ordering::Acquire) * self.per
    }

    /// The payload of a block, or null if its chunk was not looked at.
    #[inline]
    pub(super) fn payload(&self, index: u32, stride: usize) -> *mut u8 {
        // Acquire pairs with the release in `look`.
        let chunk = self.found[(index / self.per) as usize].load(Ordering::Acquire);
        if chunk.is_null() { chunk } else { chunk.wrapping_add((index % self.per) as usize * stride) }
    }

    /// Finds the chunk of a block.
    #[inline]
    pub(super) fn look(&self, attachment: &Attachment, index: u32) -> Result<()> {
        let chunk = (index / self.per) as usize;
        if self.found[chunk].load(Ordering::Acquire).is_null() { self.find(attachment, chunk) } else { Ok(()) }
    }

    #[cold]
    fn find(&self, attachment: &Attachment, chunk: usize) -> Result<()> {
        let name = self.name(chunk).load(Ordering::Acquire);
        let extent = attachment.find_extent(name, "chunk of a queue")?;
        if extent.len < self.len {
            return Err(crate::error::corrupt("chunk of a queue", extent.offset, extent.len));
        }
        let start = attachment.map.base().wrapping_add(extent.offset as usize);
        self.found[chunk].store(start, Ordering::Release);
        Ok(())
    }

    /// Makes the blocks of one more chunk available; false if there can be no more.
    ///
    /// # Errors
    /// `OutOfMemory`; `Corrupt`.
    #[cold]
    pub(super) fn grow(&self, attachment: &Attachment) -> Result<bool> {
        let grown = self.grown.load(Ordering::Acquire);
        let chunk = grown as usize;
        if chunk >= self.found.len() {
            return Ok(false);
        }
        let name = self.name(chunk);
        if name.load(Ordering::Acquire) == 0 {
            let me = attachment.token()?.slot();
            let extent = attachment.allocate(self.len)?;
            failpoint!("queue.chunk_held");
            let reference = extent.reference.pack();
            // Release pairs with the acquire of whoever finds it.
            if name.compare_exchange(0, reference, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                failpoint!("queue.chunk_named");
                attachment.commit_extent(reference, me);
                failpoint!("queue.chunk_committed");
            } else {
                attachment.free_extent(reference);
            }
        }
        self.find(attachment, chunk)?;
        // Another thread may have been quicker; it is never fewer.
        self.grown.fetch_max(grown + 1, Ordering::Release);
        Ok(true)
    }

    /// After the death of the participant in `slot`: what it had named stays.
    pub(super) fn recover(&self, attachment: &Attachment, slot: u32) {
        self.names().for_each(|name| attachment.commit_extent(name, slot));
        failpoint!("queue.recover_chunks");
    }
}

impl Spec {
    /// The same ring, for payloads that are taken from the heap when they are needed. Its blocks are whole chunks.
    pub(super) fn growing(mut self) -> Spec {
        self.blocks = self.blocks.next_multiple_of(CHUNK_BLOCKS);
        self.chunks = self.blocks / CHUNK_BLOCKS;
        self
    }
}
