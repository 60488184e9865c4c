//! A heap of a few units, in ordinary memory. It only grows: what is freed here is not given out again.

use super::Attachment;
use crate::error::{Result, SegmentError};
use crate::sys::atomic::AtomicU64;
use shmkit_layouts::containers::SlabHeader;
use shmkit_layouts::segment::UNIT_SIZE;
use shmkit_layouts::words::ExtentRef;
use std::sync::Mutex;

/// Where it seems to start, in bytes from the start of the segment.
pub(super) const START: u64 = 1 << 16;
/// Words after the last unit: a struct of loom's atomics is larger than it says.
const SPARE: usize = 128;

/// The memory, and the extents that were given out.
pub(crate) struct Heap {
    words: Vec<AtomicU64>,
    /// What starts an extent: it has narrower words than the heap, and so lies beside it.
    headers: Vec<SlabHeader>,
    extents: Mutex<Vec<Extent>>,
}

/// Where words lie in truth.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Map(*const AtomicU64);

impl Default for Map {
    fn default() -> Map {
        Map(std::ptr::null())
    }
}

impl Map {
    /// Where the segment would start if its words were of loom's size.
    pub(crate) fn base(&self) -> *const AtomicU64 {
        self.0.wrapping_sub(START as usize / 8)
    }
}

/// A piece of the heap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) reference: ExtentRef,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl std::fmt::Debug for Heap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heap").field("units", &self.headers.len()).finish_non_exhaustive()
    }
}

impl Heap {
    pub(crate) fn new(units: usize) -> Heap {
        let header =
            || SlabHeader { size_class: Default::default(), slot: Default::default(), reserved: Default::default() };
        Heap {
            words: (0..units * UNIT_SIZE as usize / 8 + SPARE).map(|_| AtomicU64::new(0)).collect(),
            headers: (0..units).map(|_| header()).collect(),
            extents: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn map(&self) -> Map {
        Map(self.words.as_ptr())
    }

    pub(super) fn headers(&self) -> Vec<(u64, *const u8)> {
        let header =
            |(unit, header)| (START + unit as u64 * UNIT_SIZE, std::ptr::from_ref::<SlabHeader>(header).cast());
        self.headers.iter().enumerate().map(header).collect()
    }
}

/// What the arenas ask of the segment's heap. Under its lock, and so one after the other.
impl Attachment {
    fn heap(&self) -> &Heap {
        self.heap.as_ref().expect("a segment with a heap")
    }

    pub(crate) fn committed(&self) -> u64 {
        (self.heap().words.len() * 8) as u64 / UNIT_SIZE
    }

    pub(crate) fn allocate(&self, len: u64) -> Result<Extent> {
        let mut extents = self.heap().extents.lock().expect("nobody panics with it");
        let unit = extents.last().map_or(0, |last| (last.offset - START + last.len) / UNIT_SIZE);
        let reference = ExtentRef { unit: unit as u32, generation: 1 };
        let extent = Extent { reference, offset: START + unit * UNIT_SIZE, len: len.next_multiple_of(UNIT_SIZE) };
        let end = unit + extent.len / UNIT_SIZE;
        assert!(end <= self.heap().headers.len() as u64, "the test needs a heap of more units: {end}");
        extents.push(extent);
        Ok(extent)
    }

    pub(crate) fn find_extent(&self, reference: u64, _: &'static str) -> Result<Extent> {
        let extents = self.heap().extents.lock().expect("nobody panics with it");
        let found = extents.iter().find(|extent| extent.reference.pack() == reference);
        found.copied().ok_or_else(|| SegmentError::Gone.into())
    }

    pub(crate) fn commit_extent(&self, _: u64, _: u32) {}

    pub(crate) fn keep_extent(&self, _: u64) {}

    pub(crate) fn hold_extent(&self, _: u64, _: u32) {}

    pub(crate) fn free_extent(&self, _: u64) {}
}
