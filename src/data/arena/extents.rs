//! The extents of an arena: slabs of blocks, blocks with an extent of their own, and the list of both.
//!
//! ```text
//! add slab   extent HELD by me;  header;  fresh = extent;  list[slot] = extent;  commit;  rest = its blocks;  fresh = 0
//! large      extent HELD by me;  header;  note = the block;  list[slot] = extent;  commit;  block = COMMITTED
//! free it    block = FREE;  extent HELD by me;  list[slot] = 0;  free the extent
//! list full  a larger one, HELD by me, with the same slots;  the old one HELD by me;  table = the new one;  commit;  free
//! ```
//! An extent that is named in the list and HELD by a dead one is committed by recovery; one that is HELD and not named
//! goes with the sweep.

use super::{Block, Words, Writing};
use crate::error::{Result, SegmentError};
use crate::segment::{Attachment, Extent, atomic};
use crate::sys::atomic::{AtomicU64, Ordering};
use shmkit_layouts::containers::{ARENA_LARGE, SlabHeader};
use shmkit_layouts::segment::UNIT_SIZE;
use shmkit_layouts::words::{ExtentRef, Link, PIECE_FREE, Piece};

/// Bytes before the first block of an extent.
pub(super) const HEADER: u64 = size_of::<SlabHeader>() as u64;
/// The largest slab in bytes.
const SLAB: u64 = 64 << 10;

/// A large block that is filled before the lock is taken.
pub(crate) struct Prepared<'a> {
    attachment: &'a Attachment,
    extent: Extent,
    is_taken: bool,
}

impl<'a> Prepared<'a> {
    /// An extent for a block of `size` bytes, or `None` if blocks of that size come from slabs.
    pub(crate) fn new(attachment: &'a Attachment, size: u64) -> Result<Option<Prepared<'a>>> {
        if size <= super::blocks::LARGEST {
            return Ok(None);
        }
        let extent = attachment.allocate(size.saturating_add(HEADER))?;
        failpoint!("arena.prepared");
        Ok(Some(Prepared { attachment, extent, is_taken: false }))
    }

    fn place(&self) -> u64 {
        (self.extent.offset + HEADER) >> 4
    }

    /// The block, to be filled from its second word on.
    pub(crate) fn block(&self) -> Option<Block<'a>> {
        super::View::new(self.attachment).block(self.place())
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        if !self.is_taken {
            self.attachment.free_extent(reference(&self.extent));
        }
    }
}

impl<'a> Writing<'a> {
    fn slab_header(&self, extent: &Extent) -> Result<*const SlabHeader> {
        self.arena.attachment.pointer(extent.offset, self.arena.what)
    }

    /// The list of extents.
    fn list(&self) -> Result<Option<Words<'a>>> {
        list(self.arena.attachment, atomic!(self.body(), table).load(Ordering::Relaxed), self.arena.what)
    }

    /// Whether the quota allows that many bytes more.
    fn check_quota(&self, len: u64) -> Result<()> {
        let quota = atomic!(self.body(), quota).load(Ordering::Relaxed);
        let bytes = atomic!(self.body(), bytes).load(Ordering::Relaxed);
        if quota != 0 && bytes.saturating_add(len) > quota {
            let hint = "the object's quota is reached: raise it, or remove something from the object";
            return Err(SegmentError::OutOfMemory { needed: len, free: quota.saturating_sub(bytes), hint }.into());
        }
        Ok(())
    }

    /// Takes memory from the segment's heap, if the quota allows it.
    fn extent(&self, len: u64) -> Result<Extent> {
        self.check_quota(len)?;
        let extent = self.arena.attachment.allocate(len)?;
        self.view.refresh();
        Ok(extent)
    }

    /// A free place in the list.
    fn free_slot(&self) -> Result<(u32, &'a AtomicU64)> {
        let (cursor, registered) = (atomic!(self.body(), cursor), atomic!(self.body(), registered));
        let mut list = self.list()?;
        let full = |list: &Words<'_>| u64::from(registered.load(Ordering::Relaxed)) * 8 >= list.len() * 7;
        for _ in 0..2 {
            if let Some(list) = list.filter(|list| !full(list)) {
                let first = u64::from(cursor.load(Ordering::Relaxed));
                for step in 0..list.len() {
                    let slot = (first + step) % list.len();
                    if let Some(word) = list.get(slot).filter(|word| word.load(Ordering::Relaxed) == 0) {
                        cursor.store((slot + 1) as u32, Ordering::Relaxed);
                        return Ok((slot as u32, word));
                    }
                }
            }
            list = Some(self.grow_list(list)?);
        }
        Err(self.corrupt(u64::from(registered.load(Ordering::Relaxed))))
    }

    /// A larger list with the same slots.
    #[cold]
    fn grow_list(&self, old: Option<Words<'a>>) -> Result<Words<'a>> {
        let attachment = self.arena.attachment;
        let table = atomic!(self.body(), table);
        let len = old.map_or(UNIT_SIZE, |old| old.len() * 8 * 4);
        let extent = self.extent(len)?;
        let new = reference(&extent);
        let Some(words) = list(attachment, new, self.arena.what)? else { return Err(self.corrupt(new)) };
        for (index, word) in words.iter().enumerate() {
            let value = old.and_then(|old| old.get(index as u64)).map_or(0, |word| word.load(Ordering::Relaxed));
            word.store(value, Ordering::Relaxed);
        }
        let old = table.load(Ordering::Relaxed);
        attachment.hold_extent(old, self.slot());
        failpoint!("arena.list_held");
        // Release: who finds the list finds it filled.
        table.store(new, Ordering::Release);
        failpoint!("arena.list_named");
        attachment.commit_extent(new, self.slot());
        failpoint!("arena.list_committed");
        attachment.free_extent(old);
        self.recount()?;
        Ok(words)
    }

    /// Names an extent in the list: it is the arena's then.
    fn register(&self, extent: &Extent, class: u32) -> Result<()> {
        let (slot, word) = self.free_slot()?;
        let header = self.slab_header(extent)?;
        atomic!(header, size_class).store(class, Ordering::Relaxed);
        atomic!(header, slot).store(slot, Ordering::Relaxed);
        // Release: who finds the extent finds its header.
        word.store(reference(extent), Ordering::Release);
        failpoint!("arena.registered");
        self.arena.attachment.commit_extent(reference(extent), self.slot());
        failpoint!("arena.committed");
        let (registered, bytes) = (atomic!(self.body(), registered), atomic!(self.body(), bytes));
        registered.store(registered.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        bytes.store(bytes.load(Ordering::Relaxed).wrapping_add(extent.len), Ordering::Relaxed);
        Ok(())
    }

    /// The list's entry for an extent, if it is named there.
    fn entry(&self, unit: u64, header: *const SlabHeader) -> Result<Option<&'a AtomicU64>> {
        let slot = u64::from(atomic!(header, slot).load(Ordering::Relaxed));
        let word = self.list()?.and_then(|list| list.get(slot));
        Ok(word.filter(|word| {
            ExtentRef::unpack(word.load(Ordering::Relaxed)).is_some_and(|named| u64::from(named.unit) == unit)
        }))
    }

    /// More blocks of a class.
    pub(super) fn add_slab(&mut self, class: u32, size: u64) -> Result<()> {
        // Small containers stay small; large ones take it in large pieces.
        let bytes = atomic!(self.body(), bytes).load(Ordering::Relaxed);
        let len = (bytes / 8).clamp(HEADER + 4 * size, SLAB.max(HEADER + 4 * size));
        let extent = self.extent(len)?;
        let fresh = atomic!(self.body(), fresh);
        fresh.store(reference(&extent), Ordering::Release);
        failpoint!("arena.fresh");
        if let Err(error) = self.register(&extent, class) {
            fresh.store(0, Ordering::Release);
            self.arena.attachment.free_extent(reference(&extent));
            return Err(error);
        }
        self.use_slab(&extent, class);
        fresh.store(0, Ordering::Release);
        failpoint!("arena.slab");
        Ok(())
    }

    fn use_slab(&self, extent: &Extent, class: u32) {
        let (rest, end) = (atomic!(self.body(), rest), atomic!(self.body(), rest_end));
        if let (Some(rest), Some(end)) = (rest.get(class as usize), end.get(class as usize)) {
            // Never a start in one slab and an end in another that lies behind it.
            rest.store(0, Ordering::Release);
            end.store((extent.offset + extent.len) >> 4, Ordering::Release);
            rest.store((extent.offset + HEADER) >> 4, Ordering::Release);
        }
    }

    /// The slab that a dead owner was adding: it is made usable if the list names it, else given back. Idempotent.
    pub(super) fn finish_slab(&mut self) -> Result<()> {
        let attachment = self.arena.attachment;
        let fresh = atomic!(self.body(), fresh);
        if let Ok(extent) = attachment.find_extent(fresh.load(Ordering::Relaxed), self.arena.what) {
            let header = self.slab_header(&extent)?;
            if self.entry(u64::from(extent.reference.unit), header)?.is_some() {
                self.use_slab(&extent, atomic!(header, size_class).load(Ordering::Relaxed));
            } else {
                attachment.hold_extent(reference(&extent), self.slot());
                attachment.free_extent(reference(&extent));
            }
        }
        failpoint!("arena.slab_finished");
        fresh.store(0, Ordering::Release);
        Ok(())
    }

    /// Whether a block is one of a slab of that class.
    #[cold]
    pub(super) fn is_in_slab(&self, block: &Block<'a>, class: u32) -> Result<bool> {
        let (attachment, start) = (self.arena.attachment, block.place() << 4);
        let Some(size) = super::blocks::size_of_class(class) else { return Ok(false) };
        for word in self.list()?.into_iter().flat_map(Words::iter) {
            let Ok(extent) = attachment.find_extent(word.load(Ordering::Relaxed), self.arena.what) else { continue };
            let first = extent.offset + HEADER;
            if (first..extent.offset + extent.len).contains(&start) {
                let is_of_class = atomic!(self.slab_header(&extent)?, size_class).load(Ordering::Relaxed) == class;
                return Ok(is_of_class && (start - first).is_multiple_of(size));
            }
        }
        Ok(false)
    }

    // ---- large blocks -----------------------------------------------------------------------------------------------

    /// A block with an extent of its own.
    #[cold]
    pub(super) fn take_large(&mut self, size: u64, note: &AtomicU64) -> Result<(Block<'a>, u64)> {
        let extent = self.extent(size.saturating_add(HEADER))?;
        let mut prepared = Prepared { attachment: self.arena.attachment, extent, is_taken: false };
        self.take_prepared_in(&mut prepared, note)
    }

    /// A block that was filled before the lock was taken.
    pub(crate) fn take_prepared(&mut self, mut prepared: Prepared<'a>) -> Result<(Block<'a>, u64)> {
        let Some(note) = atomic!(self.body(), added).get(self.news) else { return Err(self.corrupt(prepared.place())) };
        let taken = self.take_prepared_in(&mut prepared, note)?;
        self.news += 1;
        Ok(taken)
    }

    fn take_prepared_in(&mut self, prepared: &mut Prepared<'a>, note: &AtomicU64) -> Result<(Block<'a>, u64)> {
        let place = prepared.place();
        self.check_quota(prepared.extent.len)?;
        let Some(block) = self.view.block(place) else { return Err(self.corrupt(place)) };
        let generation = self.next_generation();
        let link = Link { place, generation }.pack();
        note.store(link, Ordering::Release);
        failpoint!("arena.noted");
        if let Err(error) = self.register(&prepared.extent, ARENA_LARGE) {
            note.store(0, Ordering::Release);
            return Err(error);
        }
        prepared.is_taken = true;
        Self::begin(&block, ARENA_LARGE, generation);
        Ok((block, link))
    }

    /// The extent of a large block, if the list names it.
    pub(super) fn large_extent(&self, block: &Block<'a>) -> Option<u64> {
        let attachment = self.arena.attachment;
        let start = (block.place() << 4).checked_sub(HEADER + attachment.geometry.heap)?;
        if start % UNIT_SIZE != 0 {
            return None;
        }
        let offset = attachment.geometry.heap + start;
        let header = attachment.pointer::<SlabHeader>(offset, self.arena.what).ok()?;
        if atomic!(header, size_class).load(Ordering::Relaxed) != ARENA_LARGE {
            return None;
        }
        Some(self.entry(start / UNIT_SIZE, header).ok()??.load(Ordering::Relaxed))
    }

    /// Gives a large block back to the heap. Idempotent.
    pub(super) fn free_large(&mut self, block: &Block<'a>, extent: u64) {
        let attachment = self.arena.attachment;
        let generation = self.next_generation();
        let piece = Piece { generation, owner: 0, class: ARENA_LARGE, anchored: 0, state: PIECE_FREE };
        block.word().store(piece.pack(), Ordering::Release);
        attachment.hold_extent(extent, self.slot());
        failpoint!("arena.large_held");
        self.unregister(extent);
        failpoint!("arena.large_unnamed");
        attachment.free_extent(extent);
        failpoint!("arena.large_freed");
    }

    fn unregister(&self, extent: u64) {
        let attachment = self.arena.attachment;
        let Ok(found) = attachment.find_extent(extent, self.arena.what) else { return };
        let Ok(header) = self.slab_header(&found) else { return };
        if let Ok(Some(word)) = self.entry(u64::from(found.reference.unit), header) {
            word.store(0, Ordering::Release);
            let (registered, bytes) = (atomic!(self.body(), registered), atomic!(self.body(), bytes));
            registered.store(registered.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
            bytes.store(bytes.load(Ordering::Relaxed).saturating_sub(found.len), Ordering::Relaxed);
        }
    }

    /// Commits every extent that is named and was HELD by a dead owner.
    pub(super) fn keep_extents(&self) {
        super::recovery::named(&self.arena, &mut |extent| self.arena.attachment.keep_extent(extent));
    }

    /// Gives everything back, when nothing is reachable any more. Idempotent.
    pub(crate) fn reset(&mut self) -> Result<()> {
        let attachment = self.arena.attachment;
        let body = self.body();
        for words in [atomic!(body, free), atomic!(body, rest), atomic!(body, rest_end)] {
            words.iter().for_each(|word| word.store(0, Ordering::Release));
        }
        for page in atomic!(body, anchors) {
            // What the blocks kept alive is looked at after the unlock.
            self.orphans |= page.swap(0, Ordering::AcqRel) != 0;
        }
        failpoint!("arena.reset");
        for word in self.list()?.into_iter().flat_map(Words::iter) {
            let extent = word.load(Ordering::Relaxed);
            if extent != 0 {
                attachment.hold_extent(extent, self.slot());
                word.store(0, Ordering::Release);
                failpoint!("arena.reset_unnamed");
                attachment.free_extent(extent);
            }
        }
        atomic!(body, cursor).store(0, Ordering::Relaxed);
        self.recount()
    }

    /// Counts the extents again: who died between naming one and counting it has left the sums wrong, and another list has another
    /// size.
    #[cold]
    pub(super) fn recount(&self) -> Result<()> {
        let (registered, bytes) = self.sums()?;
        atomic!(self.body(), registered).store(registered, Ordering::Relaxed);
        atomic!(self.body(), bytes).store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Extents in the list, and the bytes of these and of the list.
    pub(super) fn sums(&self) -> Result<(u32, u64)> {
        let (mut registered, mut bytes) = (0, self.len_of(atomic!(self.body(), table).load(Ordering::Relaxed)));
        for word in self.list()?.into_iter().flat_map(Words::iter) {
            let extent = word.load(Ordering::Relaxed);
            if extent != 0 {
                registered += 1;
                bytes = bytes.saturating_add(self.len_of(extent));
            }
        }
        Ok((registered, bytes))
    }

    /// Bytes of an extent; 0 if there is none.
    fn len_of(&self, extent: u64) -> u64 {
        self.arena.attachment.find_extent(extent, self.arena.what).map_or(0, |extent| extent.len)
    }
}

fn reference(extent: &Extent) -> u64 {
    extent.reference.pack()
}

/// The words of a list of extents; `None` if there is none.
pub(super) fn list<'a>(attachment: &'a Attachment, table: u64, what: &'static str) -> Result<Option<Words<'a>>> {
    if table == 0 {
        return Ok(None);
    }
    let extent = attachment.find_extent(table, what)?;
    let words = super::View::new(attachment).block(extent.offset >> 4).and_then(|block| block.words(0, extent.len / 8));
    Ok(words)
}
