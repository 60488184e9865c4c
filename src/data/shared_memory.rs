//! [`SharedMemory`]: named bytes, as Python's `multiprocessing.shared_memory.SharedMemory`.
//!
//! It is a segment of its own with one object, `buf`: an array of bytes of exactly the size that was asked for.
//!
//! # Crash behaviour
//!
//! | killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | creating, before the name is there | nothing | the kernel frees it | the bytes |
//! | creating, with the name there, or opening | the bytes, whole | nobody needs to | nothing |
//! | writing | some bytes old, some new; none torn | who uses them | what was not written |
//! | unlinking | the name, or not | nobody needs to | nothing |
//!
//! The segment stays until it is unlinked, as Python's does, but no attaching process ever unlinks it.

use super::dict::random_word;
use crate::data::Array;
use crate::element::Element;
use crate::error::{Result, SegmentError};
use crate::segment::Segment;
use std::sync::atomic::{AtomicU8, Ordering};

/// Named raw bytes that processes share.
///
/// The size is stored: whoever opens them sees the one that was asked for. Reading and writing take no lock; what several do at
/// once to the same bytes is theirs to arrange.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let shared = shmkit::SharedMemory::create(None, 1000)?;
/// shared.write(10, b"hello")?;
///
/// // Anywhere else:
/// let same = shmkit::SharedMemory::open(shared.name())?;
/// assert_eq!(same.size(), 1000);
/// assert_eq!(same.read(10, 5)?, b"hello");
/// same.unlink()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SharedMemory {
    segment: Segment,
    bytes: Array<u8>,
    name: String,
}

/// The name of the array in its segment.
const BUFFER: &str = "buf";

impl SharedMemory {
    /// Creates `size` bytes, all zero, under a name, or under a new one `psm_…`.
    ///
    /// # Errors
    /// `InvalidSize` for 0 bytes; `Exists`; `InvalidName`; `OutOfMemory`.
    pub fn create(name: Option<&str>, size: usize) -> Result<SharedMemory> {
        if size == 0 {
            let why = "it must be at least 1";
            return Err(SegmentError::InvalidSize { what: "the size of shared memory", found: 0, why }.into());
        }
        // Heap units and their words, the segment's own tables, and a little more.
        let most = (size as u64).saturating_add(size as u64 / 16).saturating_add(1 << 20);
        let builder = Segment::builder().max_size(most.min(1 << 39));
        // 64 random bits: no two of them are the same.
        let name = name.map_or_else(|| format!("psm_{:016x}", random_word()), str::to_owned);
        // The bytes are there before the name: whoever opens it finds them, and a creator that is killed leaves nothing.
        let (segment, bytes) = builder.create_filled(&name, |segment| segment.array(BUFFER).len(size).create())?;
        Ok(SharedMemory { segment, bytes, name })
    }

    /// Opens the bytes of that name.
    ///
    /// # Errors
    /// `NotFound`, and as [`crate::SegmentBuilder::open`].
    pub fn open(name: &str) -> Result<SharedMemory> {
        let segment = Segment::open(name)?;
        let bytes = segment.array(BUFFER).open()?;
        Ok(SharedMemory { segment, bytes, name: name.to_owned() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes, as they were asked for.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes as atomics, for those who arrange who touches what.
    fn range(&self, offset: usize, len: usize) -> Result<&[AtomicU8]> {
        let end = offset.checked_add(len).filter(|&end| end <= self.size());
        if end.is_none() {
            let (index, len) = (offset.saturating_add(len) as u64, self.size() as u64);
            return Err(SegmentError::OutOfRange { index, len }.into());
        }
        // SAFETY: inside the array, which the handle keeps; everybody here reaches the bytes as atomics.
        Ok(unsafe { std::slice::from_raw_parts(self.bytes.as_ptr().cast::<AtomicU8>().add(offset), len) })
    }

    /// A copy of `len` bytes from `offset` on.
    ///
    /// # Errors
    /// `OutOfRange`.
    pub fn read(&self, offset: usize, len: usize) -> Result<Vec<u8>> {
        // Relaxed: whoever shares the bytes orders their uses.
        Ok(self.range(offset, len)?.iter().map(|byte| byte.load(Ordering::Relaxed)).collect())
    }

    /// Stores bytes from `offset` on.
    ///
    /// # Errors
    /// `OutOfRange`.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        for (place, &byte) in self.range(offset, bytes.len())?.iter().zip(bytes) {
            // Relaxed: whoever shares the bytes orders their uses.
            place.store(byte, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A copy of `count` elements, the first of them at `offset` bytes. They may lie anywhere.
    ///
    /// # Errors
    /// `OutOfRange`.
    pub fn read_as<T: Element>(&self, offset: usize, count: usize) -> Result<Vec<T>> {
        let mut elements = vec![T::zeroed(); count.min(self.size())];
        let bytes = bytemuck::cast_slice_mut::<T, u8>(&mut elements);
        let len = count.saturating_mul(size_of::<T>());
        // Relaxed: whoever shares the bytes orders their uses.
        self.range(offset, len)?.iter().zip(bytes).for_each(|(place, byte)| *byte = place.load(Ordering::Relaxed));
        Ok(elements)
    }

    /// Stores elements from `offset` bytes on.
    ///
    /// # Errors
    /// `OutOfRange`.
    pub fn write_as<T: Element>(&self, offset: usize, elements: &[T]) -> Result<()> {
        self.write(offset, bytemuck::cast_slice(elements))
    }

    /// Where they lie in this process: for foreign code. Valid while a handle to them lives.
    pub fn as_ptr(&self) -> *mut u8 {
        self.bytes.as_ptr()
    }

    /// Takes the name away, once for all. Whoever has them open goes on; the memory goes with the last.
    ///
    /// # Errors
    /// `NotFound` if that was done before.
    pub fn unlink(&self) -> Result<()> {
        if Segment::unlink(&self.name)? {
            Ok(())
        } else {
            Err(SegmentError::NotFound { name: self.name.clone() }.into())
        }
    }

    /// The segment they are in: for other objects beside them.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }
}
