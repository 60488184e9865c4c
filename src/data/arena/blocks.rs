//! Blocks: classes of sizes, free lists, and bundles of blocks.
//!
//! ```text
//! take   journal.new = block; free list = the block's next (or rest += size); block = {generation, COMMITTED}; release fence
//! free   block = {new generation, FREE}; release fence; next = free list; free list = block; (the caller:) journal -= block
//! ```
//! A kill leaves at most one block between two of these steps, and it is the head of its free list or the start of its
//! class's rest, or it is not in there: so the repair knows whether it still has to be put there. A change that is undone may
//! have taken several blocks of a class: which of them has not left its list yet is asked before the first is put back.

use super::{Block, Words, Writing, fence_contents};
use crate::error::Result;
use crate::segment::atomic;
use crate::sys::atomic::{AtomicU64, Ordering};
use shmkit_layouts::containers::BundleHeader;
use shmkit_layouts::words::{Link, PIECE_COMMITTED, PIECE_FREE, Piece};

/// Sizes of blocks in bytes: at most a quarter more than was asked for.
const SIZES: [u16; 27] = [
    32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048,
    2560, 3072, 3584, 4096,
];

/// The class of a block of 16 · n bytes.
const CLASS_OF: [u8; 257] = {
    let mut table = [0; 257];
    let (mut sixteenths, mut class) = (0, 0);
    while sixteenths <= 256 {
        if sixteenths * 16 > SIZES[class] as usize {
            class += 1;
        }
        table[sixteenths] = class as u8;
        sixteenths += 1;
    }
    table
};

/// The largest block that comes from a slab.
pub(super) const LARGEST: u64 = 4096;

/// Bytes of a block of that class, which is below the number of classes.
pub(super) fn size_of_class(class: u32) -> Option<u64> {
    SIZES.get(class as usize).map(|&size| u64::from(size))
}

/// The class for `size` bytes; `None` for more than a slab's block has.
#[inline]
fn class_for(size: u64) -> Option<u32> {
    (size <= LARGEST).then(|| u32::from(CLASS_OF[size.div_ceil(16) as usize]))
}

impl<'a> Writing<'a> {
    /// A new generation: none that any block of this arena had for a very long time.
    #[inline]
    pub(super) fn next_generation(&self) -> u64 {
        let word = atomic!(self.body(), generation);
        let next = word.load(Ordering::Relaxed).wrapping_add(1);
        word.store(next, Ordering::Relaxed);
        next & 0xFF_FFFF_FFFF
    }

    /// A block of at least `size` bytes with any contents, and its link. Freed unless there is a commit.
    #[inline]
    pub(crate) fn allocate(&mut self, size: u64) -> Result<(Block<'a>, u64)> {
        let Some(note) = atomic!(self.body(), added).get(self.news) else { return Err(self.corrupt(size)) };
        let taken = self.allocate_in(size, note)?;
        self.news += 1;
        Ok(taken)
    }

    /// As [`Writing::allocate`]; what names the block until the commit is `note`: a link of a new bundle or of the record.
    #[inline]
    pub(crate) fn allocate_in(&mut self, size: u64, note: &AtomicU64) -> Result<(Block<'a>, u64)> {
        match class_for(size) {
            Some(class) => self.take(class, note),
            None => self.take_large(size, note),
        }
    }

    #[inline]
    fn take(&mut self, class: u32, note: &AtomicU64) -> Result<(Block<'a>, u64)> {
        let free = &atomic!(self.body(), free)[class as usize];
        let head = free.load(Ordering::Relaxed);
        if head == 0 {
            return self.carve(class, note);
        }
        let Some(block) = self.view.block(head) else { return Err(self.corrupt(head)) };
        let seen = block.word().load(Ordering::Relaxed);
        let piece = Piece::unpack(seen);
        if piece.state != PIECE_FREE || piece.class != class {
            return Err(self.corrupt(seen));
        }
        let link = Link { place: head, generation: piece.generation }.pack();
        // Release throughout: a kill falls between two instructions, and the compiler keeps their order.
        note.store(link, Ordering::Release);
        failpoint!("arena.noted");
        free.store(block.second().load(Ordering::Relaxed), Ordering::Release);
        failpoint!("arena.popped");
        Self::begin(&block, class, piece.generation);
        Ok((block, link))
    }

    /// A block from the unused rest of the class's newest slab.
    #[inline(never)]
    fn carve(&mut self, class: u32, note: &AtomicU64) -> Result<(Block<'a>, u64)> {
        let Some(size) = size_of_class(class) else { return Err(self.corrupt(u64::from(class))) };
        let (rest, end) =
            (&atomic!(self.body(), rest)[class as usize], &atomic!(self.body(), rest_end)[class as usize]);
        let mut place = rest.load(Ordering::Relaxed);
        if place == 0 || place.saturating_add(size >> 4) > end.load(Ordering::Relaxed) {
            self.add_slab(class, size)?;
            place = rest.load(Ordering::Relaxed);
        }
        let Some(block) = self.view.block(place) else { return Err(self.corrupt(place)) };
        let generation = self.next_generation();
        let link = Link { place, generation }.pack();
        note.store(link, Ordering::Release);
        failpoint!("arena.noted");
        // The word first: once the rest has moved on, a repair must see what this is.
        Self::begin(&block, class, generation);
        rest.store(place + (size >> 4), Ordering::Release);
        failpoint!("arena.carved");
        Ok((block, link))
    }

    #[inline]
    pub(super) fn begin(block: &Block<'a>, class: u32, generation: u64) {
        let piece = Piece { generation, owner: 0, class, anchored: 0, state: PIECE_COMMITTED };
        block.word().store(piece.pack(), Ordering::Release);
        fence_contents();
        failpoint!("arena.taken");
    }

    /// Frees a block that nothing names any more. Idempotent while the journal names it.
    #[inline]
    pub(super) fn free(&mut self, link: u64) -> Result<()> {
        let named = Link::unpack(link);
        let Some(block) = self.view.block(named.place) else { return Err(self.corrupt(link)) };
        let seen = block.word().load(Ordering::Relaxed);
        let piece = Piece::unpack(seen);
        if piece.state != PIECE_COMMITTED
            || piece.anchored != 0
            || piece.generation & Link::GENERATION != named.generation
            || size_of_class(piece.class).is_none()
        {
            return self.free_unusual(link, &block);
        }
        self.make_free(&block, piece.class);
        Ok(())
    }

    /// A block with an extent or an anchor of its own, or one that a dead owner has been freeing or taking.
    #[cold]
    fn free_unusual(&mut self, link: u64, block: &Block<'a>) -> Result<()> {
        let named = Link::unpack(link);
        let piece = Piece::unpack(block.word().load(Ordering::Relaxed));
        let is_meant = piece.generation & Link::GENERATION == named.generation;
        if is_meant && piece.anchored != 0 && piece.state == PIECE_COMMITTED {
            self.release_anchor(block);
        }
        if let Some(extent) = self.large_extent(block) {
            self.free_large(block, extent);
            return Ok(());
        }
        let Some(free) = atomic!(self.body(), free).get(piece.class as usize) else {
            // A large block that is gone: its place is somebody else's.
            return Ok(());
        };
        match piece.state {
            PIECE_COMMITTED if is_meant => self.make_free(block, piece.class),
            // Freed before or never begun: back to where it belongs, unless it is there. A large block that was never begun, or is gone,
            // lies in no slab: its place may be somebody else's, whatever is read there.
            PIECE_FREE if free.load(Ordering::Relaxed) != named.place && self.is_in_slab(block, piece.class)? => {
                self.push_free(block, piece.class);
            }
            _ => {}
        }
        Ok(())
    }

    /// Frees a block that was taken without a commit: it may be any number of steps on its way out of the free list or the rest.
    #[cold]
    pub(super) fn free_taken(&mut self, link: u64) -> Result<()> {
        let place = Link::unpack(link).place;
        if atomic!(self.body(), rest).iter().any(|rest| rest.load(Ordering::Relaxed) == place) {
            return Ok(());
        }
        self.free(link)
    }

    #[inline]
    fn make_free(&mut self, block: &Block<'a>, class: u32) {
        let piece = Piece { generation: self.next_generation(), owner: 0, class, anchored: 0, state: PIECE_FREE };
        block.word().store(piece.pack(), Ordering::Relaxed);
        fence_contents();
        failpoint!("arena.unmade");
        self.push_free(block, class);
    }

    #[inline]
    fn push_free(&mut self, block: &Block<'a>, class: u32) {
        let Some(free) = atomic!(self.body(), free).get(class as usize) else { return };
        block.second().store(free.load(Ordering::Relaxed), Ordering::Release);
        failpoint!("arena.pushing");
        free.store(block.place(), Ordering::Release);
        failpoint!("arena.pushed");
    }

    // ---- bundles ----------------------------------------------------------------------------------------------------

    /// A block with room for `count` links, all 0, and `extra` bytes after them: a block like any other until it is retired as a
    /// bundle.
    pub(crate) fn plain_bundle(&mut self, count: u64, extra: u64) -> Result<(Block<'a>, u64)> {
        let header = size_of::<BundleHeader>() as u64;
        let Some(size) = count.checked_mul(8).and_then(|size| size.checked_add(header + extra)) else {
            return Err(self.corrupt(count));
        };
        let (block, link) = self.allocate(size)?;
        let (Some(bundle), Some(links)) = (block.header::<BundleHeader>(), block.words(header, count)) else {
            return Err(self.corrupt(link));
        };
        atomic!(bundle, count).store(count, Ordering::Relaxed);
        atomic!(bundle, freed).store(0, Ordering::Relaxed);
        atomic!(bundle, reserved).iter().for_each(|word| word.store(0, Ordering::Relaxed));
        links.clear();
        Ok((block, link))
    }

    /// Such a block as what `word` of the journal names.
    fn begin_bundle(&mut self, word: &AtomicU64, count: u64, extra: u64) -> Result<(Block<'a>, Words<'a>)> {
        let (block, link) = self.plain_bundle(count, extra)?;
        let links = self.links(&block)?;
        self.is_more = true;
        // Release: it is a bundle before it is taken for one.
        word.store(link, Ordering::Release);
        failpoint!("arena.bundle");
        self.forget_new();
        Ok((block, links))
    }

    /// The links of a bundle.
    pub(crate) fn links(&self, bundle: &Block<'a>) -> Result<Words<'a>> {
        let size = size_of::<BundleHeader>() as u64;
        let header = bundle.header::<BundleHeader>();
        let count = header.map(|header| atomic!(header, count).load(Ordering::Relaxed));
        count.and_then(|count| bundle.words(size, count)).ok_or_else(|| self.corrupt(bundle.place()))
    }

    /// A bundle that stays after the commit. Freed with its members unless there is a commit: allocate them in its links.
    pub(crate) fn new_bundle(&mut self, count: u64, extra: u64) -> Result<(Block<'a>, u64, Words<'a>)> {
        let (block, links) = self.begin_bundle(atomic!(self.body(), new_bundle), count, extra)?;
        Ok((block, atomic!(self.body(), new_bundle).load(Ordering::Relaxed), links))
    }

    /// Links to allocate new blocks in, where the journal's own words are too few.
    pub(crate) fn record(&mut self, count: u64) -> Result<Words<'a>> {
        Ok(self.begin_bundle(atomic!(self.body(), record), count, 0)?.1)
    }

    /// Links to be filled with the blocks that are freed after the commit, where the journal's own words are too few.
    pub(crate) fn garbage(&mut self, count: u64) -> Result<Words<'a>> {
        Ok(self.begin_bundle(atomic!(self.body(), garbage), count, 0)?.1)
    }

    /// The newest block has a place where it stays, whatever becomes of the change.
    pub(super) fn forget_new(&mut self) {
        self.news -= 1;
        atomic!(self.body(), added)[self.news].store(0, Ordering::Release);
    }

    /// Where both the journal's words for new blocks and another word name the same block: the latter counts.
    #[cold]
    pub(super) fn settle_bundles(&mut self) {
        let body = self.body();
        let bundles = [atomic!(body, record), atomic!(body, new_bundle), atomic!(body, garbage)];
        // Pages of anchors stay, too.
        for bundle in bundles.into_iter().chain(atomic!(body, anchors)) {
            let bundle = bundle.load(Ordering::Relaxed);
            for new in atomic!(body, added) {
                if bundle != 0 && new.load(Ordering::Relaxed) == bundle {
                    new.store(0, Ordering::Release);
                }
            }
        }
    }

    /// The block that was noted last may not have left its free list yet: the journal forgets it. Before anything is freed: the head
    /// of the list is what tells.
    #[cold]
    pub(super) fn forget_untaken(&mut self) -> Result<()> {
        let body = self.body();
        for word in atomic!(body, added) {
            self.forget_if_head(word);
        }
        for bundle in [atomic!(body, record), atomic!(body, new_bundle)] {
            let link = bundle.load(Ordering::Relaxed);
            if link != 0
                && let Ok(block) = self.block(link)
            {
                self.links(&block)?.iter().for_each(|word| self.forget_if_head(word));
            }
        }
        Ok(())
    }

    fn forget_if_head(&self, word: &AtomicU64) {
        let place = Link::unpack(word.load(Ordering::Relaxed)).place;
        if place != 0 && atomic!(self.body(), free).iter().any(|head| head.load(Ordering::Relaxed) == place) {
            word.store(0, Ordering::Release);
        }
    }

    /// Frees the bundle that a word of the journal names, with or without its members, and clears the word. Idempotent.
    pub(super) fn free_bundle(&mut self, word: &AtomicU64, members: bool) -> Result<()> {
        let link = word.load(Ordering::Relaxed);
        if link == 0 {
            return Ok(());
        }
        // A bundle whose own freeing has begun has no members left.
        if let (true, Ok(block)) = (members, self.block(link)) {
            let links = self.links(&block)?;
            let Some(header) = block.header::<BundleHeader>() else { return Err(self.corrupt(link)) };
            let freed = atomic!(header, freed);
            while let Some(member) = links.get(freed.load(Ordering::Relaxed)) {
                let member = member.load(Ordering::Relaxed);
                if member != 0 {
                    self.free_taken(member)?;
                }
                failpoint!("arena.member_freed");
                freed.store(freed.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
            }
        }
        self.free(link)?;
        word.store(0, Ordering::Release);
        failpoint!("arena.bundle_freed");
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_the_smallest_that_fits() {
        for size in 1..=LARGEST {
            let class = class_for(size).unwrap();
            assert!(size_of_class(class).unwrap() >= size);
            assert!(class == 0 || size_of_class(class - 1).unwrap() < size, "{size}");
        }
        assert_eq!(class_for(LARGEST + 1), None);
        assert!(SIZES.iter().all(|size| size % 16 == 0));
    }
}
