//! What a ring is made of, and how it is laid out when it is built.
//!
//! ```text
//! QueueBody | slot[N] | block[B] | extent[B], if messages may be long | chunk[C], if it grows | … | payload[B], if it does not
//! ```

use super::growth::CHUNK_BLOCKS;
use crate::error::{Result, SegmentError};
use shmkit_layouts::objects::{QUEUE_AT_MOST_ONCE, QueueBody};
use shmkit_layouts::words::{BLOCK_FREE, Block};

/// The most blocks a ring can have: what a slot's index can name.
pub(crate) const MAX_BLOCKS: u32 = 1 << 18;
/// The fewest slots.
pub(super) const MIN_RING: u32 = 64;
/// Alignment of payloads in bytes.
pub(crate) const PAYLOAD_ALIGN: u64 = 128;

/// What a ring is built as.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    capacity: u32,
    pub(super) blocks: u32,
    /// Chunks of a queue that grows.
    pub(super) chunks: u32,
    stride: u32,
    extents: bool,
    flags: u32,
}

impl Spec {
    /// A ring for `capacity` messages, with `loans` blocks more, of `stride` bytes each.
    pub(crate) fn new(capacity: u32, loans: u32, stride: u64, extents: bool, at_most_once: bool) -> Result<Spec> {
        let invalid = |what, found, why| Err(SegmentError::InvalidSize { what, found, why }.into());
        let blocks = capacity.saturating_add(loans);
        if capacity == 0 || loans == 0 || blocks >= MAX_BLOCKS {
            let why = "there are at least 1 message and 1 loan, and together fewer than 2^18";
            return invalid("a queue's capacity with its loans", u64::from(blocks), why);
        }
        let Ok(stride) = u32::try_from(stride) else {
            return invalid("an element", stride, "it must be below 4 GiB");
        };
        Ok(Spec {
            capacity,
            blocks,
            chunks: 0,
            stride,
            extents,
            flags: if at_most_once { QUEUE_AT_MOST_ONCE } else { 0 },
        })
    }

    fn ring(&self) -> u32 {
        (self.capacity + 1).next_power_of_two().max(MIN_RING)
    }

    fn slots_offset(&self) -> u64 {
        size_of::<QueueBody>() as u64
    }

    fn words_offset(&self) -> u64 {
        self.slots_offset() + u64::from(self.ring()) * 8
    }

    fn extents_offset(&self) -> u64 {
        self.words_offset() + u64::from(self.blocks) * 8
    }

    fn chunks_offset(&self) -> u64 {
        let extents = if self.extents { u64::from(self.blocks) * 8 } else { 0 };
        self.extents_offset() + extents
    }

    /// Bytes of everything but the payloads. These must be zero before [`Spec::build`].
    pub(crate) fn control(&self) -> u64 {
        (self.chunks_offset() + u64::from(self.chunks) * 8).next_multiple_of(PAYLOAD_ALIGN)
    }

    /// Bytes of the payloads.
    pub(crate) fn payload(&self) -> u64 {
        if self.chunks > 0 {
            return 0;
        }
        (u64::from(self.blocks) * u64::from(self.stride)).next_multiple_of(PAYLOAD_ALIGN)
    }

    /// Builds the ring at `start`, with its payloads `payload` bytes further on.
    ///
    /// # Safety
    /// `start` is aligned to 128 bytes and has room for [`Spec::control`], zero, and nobody else reaches it yet.
    pub(crate) unsafe fn build(&self, start: *mut u8, payload: u64, generation: u32) {
        let body = start.cast::<QueueBody>();
        // SAFETY: the caller gives an aligned place that is ours alone.
        unsafe {
            (&raw mut (*body).capacity).write(self.capacity);
            (&raw mut (*body).ring).write(self.ring());
            (&raw mut (*body).blocks).write(self.blocks);
            (&raw mut (*body).stride).write(self.stride);
            (&raw mut (*body).slots_offset).write(self.slots_offset());
            (&raw mut (*body).words_offset).write(self.words_offset());
            (&raw mut (*body).extents_offset).write(if self.extents { self.extents_offset() } else { 0 });
            (&raw mut (*body).payload_offset).write(if self.chunks > 0 { 0 } else { payload });
            (&raw mut (*body).chunk_blocks).write(if self.chunks > 0 { CHUNK_BLOCKS } else { 0 });
            (&raw mut (*body).chunks_offset).write(if self.chunks > 0 { self.chunks_offset() } else { 0 });
            (&raw mut (*body).flags).write(self.flags);
        }
        // Generations differ from those of the queue that lay in this entry before: a reference cell that names a block of
        // that one stays void.
        let first = generation.wrapping_mul(0x9E37_79B1);
        let words = start.wrapping_add(self.words_offset() as usize).cast::<u64>();
        let word = Block { generation: first, owner: 0, state: BLOCK_FREE, deliveries: 0 }.pack();
        for index in 0..self.blocks {
            // SAFETY: inside `control`, aligned to 8 bytes.
            unsafe { words.wrapping_add(index as usize).write(word) };
        }
    }
}
