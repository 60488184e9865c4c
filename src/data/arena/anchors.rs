//! Anchors: how a block keeps the objects alive whose handles are in it.
//!
//! ```text
//! anchor    generation:24 | place:36, 0 while free; its number is the `id` of the reference cells {BLOCK, this object, id, generation}
//!
//! anchor    under the lock, with the block noted in the journal: block = {…, anchored}; its number beside the contents;
//!           anchor = {the block's generation, its place}; then the cells; then the swing
//! free      anchor = 0 (if it names this place): all those cells are void; the block's word; after the unlock: check
//! ```
//! Generations are the blocks' own: one arena does not give the same one twice for a very long time.

use super::{Block, Writing};
use crate::error::{DataError, Result};
use crate::segment::atomic;
use crate::sys::atomic::{AtomicU64, Ordering};
use shmkit_layouts::containers::{ANCHOR_FIRST, ANCHOR_PAGES, NodeHeader};
use shmkit_layouts::words::{Anchor, Piece};

/// Bytes of a node before the number of its anchor.
const NUMBER: u64 = size_of::<NodeHeader>() as u64;
/// Anchors there can be: the ids a reference cell has room for.
const MOST: u32 = 1 << 18;

/// The page of an anchor and its place there.
pub(super) const fn page_of(id: u32) -> (u32, u32) {
    let page = (id / ANCHOR_FIRST + 1).ilog2();
    (page, id - ANCHOR_FIRST * ((1 << page) - 1))
}

impl<'a> Writing<'a> {
    /// Gives a noted block an anchor: number and generation, for reference cells. The arenas of one object have a range of numbers
    /// each.
    pub(crate) fn anchor(&mut self, block: &Block<'a>) -> Result<(u32, u32)> {
        let hint = atomic!(self.body(), anchor_hint);
        let first = hint.load(Ordering::Relaxed);
        let (id, word) = match self.free_anchor(first)? {
            Some(found) => found,
            None => match self.free_anchor(0)? {
                Some(found) => found,
                None => return Err(DataError::TooManyHandles { maximum: MOST }.into()),
            },
        };
        let piece = Piece::unpack(block.word().load(Ordering::Relaxed));
        let generation = (piece.generation & 0xFF_FFFF) as u32;
        let Some(number) = block.words(NUMBER, 1).and_then(|words| words.get(0)) else {
            return Err(self.corrupt(block.place()));
        };
        number.store(u64::from(id), Ordering::Release);
        block.word().store(Piece { anchored: 1, ..piece }.pack(), Ordering::Release);
        failpoint!("anchor.block");
        // Release pairs with the acquire of who asks whether the cells are valid.
        word.store(Anchor { place: block.place(), generation }.pack(), Ordering::Release);
        failpoint!("anchor.named");
        hint.store(id + 1, Ordering::Relaxed);
        let (part, parts) = self.arena.part;
        Ok((part * (MOST / parts) + id, generation))
    }

    /// The first free anchor from `first` on, in pages that are there or in a new one.
    fn free_anchor(&mut self, first: u32) -> Result<Option<(u32, &'a AtomicU64)>> {
        let mut id = first;
        while id < MOST / self.arena.part.1 {
            let (page, offset) = page_of(id);
            let count = ANCHOR_FIRST << page;
            let Some(cell) = atomic!(self.body(), anchors).get(page as usize) else { return Ok(None) };
            let mut link = cell.load(Ordering::Relaxed);
            if link == 0 {
                let (block, new) = self.allocate(16 + u64::from(count) * 8)?;
                let Some(words) = block.words(8, u64::from(count) + 1) else { return Err(self.corrupt(new)) };
                words.clear();
                failpoint!("anchor.page");
                // A commit of its own, inside the other change: the page is in place, whatever becomes of that.
                cell.store(new, Ordering::Release);
                // Both names of the page are there for an instant: `settle_bundles` knows.
                self.forget_new();
                failpoint!("anchor.page_named");
                link = new;
            }
            let block = self.block(link)?;
            let Some(words) = block.words(16, u64::from(count)) else { return Err(self.corrupt(link)) };
            for offset in offset..count {
                if let Some(word) = words.get(u64::from(offset)).filter(|word| word.load(Ordering::Relaxed) == 0) {
                    return Ok(Some((id - page_of(id).1 + offset, word)));
                }
            }
            id += count - offset;
        }
        Ok(None)
    }

    /// Frees the anchor of a block that is being freed. Idempotent.
    pub(super) fn release_anchor(&mut self, block: &Block<'a>) {
        self.lose_orphans();
        let Some(number) = block.words(NUMBER, 1).and_then(|words| words.get(0)) else { return };
        let id = number.load(Ordering::Relaxed);
        let Ok(id) = u32::try_from(id) else { return };
        if let Some(word) = anchor_word(&self.view, self.body(), id)
            && Anchor::unpack(word.load(Ordering::Relaxed)).place == block.place()
        {
            word.store(0, Ordering::Release);
            let hint = atomic!(self.body(), anchor_hint);
            hint.store(hint.load(Ordering::Relaxed).min(id), Ordering::Relaxed);
        }
        failpoint!("anchor.released");
    }
}

/// The word of an anchor, if its page is there.
fn anchor_word<'a>(
    view: &super::View<'a>,
    body: *const shmkit_layouts::containers::ArenaBody,
    id: u32,
) -> Option<&'a AtomicU64> {
    if id >= MOST {
        return None;
    }
    let (page, offset) = page_of(id);
    let link = atomic!(body, anchors).get(page as usize)?.load(Ordering::Acquire);
    let block = view.block(shmkit_layouts::words::Link::unpack(link).place)?;
    block.words(16, u64::from(ANCHOR_FIRST << page))?.get(u64::from(offset))
}

/// Which of `parts` arenas an anchor's number in a reference cell means, and its number there.
pub(super) fn split(id: u32, parts: u32) -> (u32, u32) {
    let range = MOST / parts.max(1);
    (id / range, id % range)
}

/// The generation of the block that anchor `id` stands for: what makes reference cells valid. Takes no lock.
pub(super) fn generation(arena: &super::Arena<'_>, id: u32) -> Option<u32> {
    let view = super::View::new(arena.attachment);
    let (page, _) = page_of(id.min(MOST));
    let page = atomic!(arena.body, anchors).get(page as usize)?;
    let before = page.load(Ordering::Acquire);
    let word = anchor_word(&view, arena.body, id)?.load(Ordering::Acquire);
    // Pages stay where they are until the container is emptied: then all its blocks are gone.
    (page.load(Ordering::Acquire) == before && word != 0).then(|| Anchor::unpack(word).generation)
}

const _: () = assert!(page_of(MOST - 1).0 < ANCHOR_PAGES, "every id has a page");

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_own_place() {
        let mut expected = (0, 0);
        for id in 0..MOST {
            assert_eq!(page_of(id), expected);
            expected.1 += 1;
            if expected.1 == ANCHOR_FIRST << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
    }
}
