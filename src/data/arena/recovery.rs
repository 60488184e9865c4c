//! What recovery, destruction and verification do with arenas, for every kind of container.

use super::{Arena, Block, Words, Writing, anchors, blocks, extents};
use crate::error::{Result, corrupt};
use crate::segment::object::HEADER;
use crate::segment::{Attachment, Dead, Extent, atomic, claim};
use crate::sys::atomic::Ordering;
use shmkit_layouts::containers::{ARENA_LARGE, ArenaBody, SlabHeader};
use shmkit_layouts::segment::SLOT_NOBODY;
use shmkit_layouts::words::{Anchor, Link, PIECE_COMMITTED, PIECE_FREE, Piece};
use std::collections::{BTreeMap, BTreeSet};

/// The arena `offset` bytes behind the header of a body.
pub(crate) fn arena_at<'a>(
    attachment: &'a Attachment,
    body: &Extent,
    offset: u64,
    part: (u32, u32),
    what: &'static str,
) -> Result<Arena<'a>> {
    let offset = HEADER.saturating_add(offset);
    if offset.saturating_add(size_of::<ArenaBody>() as u64) > body.len {
        return Err(corrupt(what, body.offset, body.len));
    }
    // The index matters only to who adds handles, and recovery never does.
    Ok(Arena { attachment, body: attachment.pointer(body.offset + offset, what)?, object: u32::MAX, part, what })
}

/// Visits every extent that an arena names.
pub(crate) fn named(arena: &Arena<'_>, visit: &mut dyn FnMut(u64)) {
    let (attachment, body) = (arena.attachment, arena.body);
    // A list that is replaced meanwhile is replaced by a living owner, who has done all this before.
    for _ in 0..8 {
        let table = atomic!(body, table).load(Ordering::Acquire);
        if table != 0 {
            visit(table);
        }
        let list = extents::list(attachment, table, arena.what).ok().flatten();
        for word in list.into_iter().flat_map(Words::iter) {
            let extent = word.load(Ordering::Acquire);
            if extent != 0 {
                visit(extent);
            }
        }
        if atomic!(body, table).load(Ordering::Acquire) == table {
            return;
        }
    }
}

/// Recovery: commits what the dead one held of the arena, hands its lock on, and repairs if the lock is to be had.
pub(crate) fn recover<'a>(
    arena: Arena<'a>,
    dead: Dead,
    repair: impl FnOnce(&mut Writing<'a>) -> Result<()>,
) -> Result<()> {
    let attachment = arena.attachment;
    named(&arena, &mut |extent| attachment.commit_extent(extent, dead.slot));
    failpoint!("arena.recover_kept");
    let word = atomic!(arena.body, lock);
    claim::recover_word(word, |owner| owner == dead.token());
    failpoint!("arena.recover_lock");
    // A newcomer without a token cannot take it: the next writer repairs. Nobody's lock is waited for.
    if claim::owner(word).slot() == SLOT_NOBODY && attachment.own_slot().is_some() {
        arena.lock_abandoned(repair)?;
    }
    Ok(())
}

/// Frees everything an arena has; true if blocks in it kept objects alive. Idempotent.
pub(crate) fn destroy(arena: &Arena<'_>) -> bool {
    let attachment = arena.attachment;
    let table = atomic!(arena.body, table).load(Ordering::Acquire);
    let list = extents::list(attachment, table, arena.what).ok().flatten();
    for word in list.into_iter().flat_map(Words::iter) {
        attachment.free_extent(word.load(Ordering::Acquire));
    }
    failpoint!("arena.destroyed");
    // Last: who goes on after a death finds the list.
    attachment.free_extent(table);
    atomic!(arena.body, anchors).iter().any(|page| page.load(Ordering::Relaxed) != 0)
}

/// The generation of what reference cells call block `id` of the object with these arenas.
pub(crate) fn block_generation(arenas: &[Arena<'_>], id: u32) -> Option<u32> {
    let (part, id) = anchors::split(id, arenas.len() as u32);
    anchors::generation(arenas.get(part as usize)?, id)
}

/// Every block that is in use, by its place, for a container to cross off what it can reach.
pub(crate) struct Census {
    used: BTreeMap<u64, Piece>,
    what: &'static str,
}

impl Census {
    /// Crosses off a reachable block.
    pub(crate) fn reach(&mut self, link: u64) -> Result<()> {
        let named = Link::unpack(link);
        match self.used.remove(&named.place) {
            Some(piece) if piece.generation & Link::GENERATION == named.generation => Ok(()),
            _ => Err(corrupt(self.what, named.place << 4, link)),
        }
    }

    /// Whether all was reached: what is left has leaked.
    pub(crate) fn close(self) -> Result<()> {
        match self.used.first_key_value() {
            Some((&place, piece)) => Err(corrupt("leaked block of a container", place << 4, piece.pack())),
            None => Ok(()),
        }
    }
}

impl<'a> Writing<'a> {
    /// Checks slabs, free lists, journal and anchors; gives the blocks in use, anchors' pages crossed off already.
    pub(crate) fn census(&self) -> Result<Census> {
        let body = self.body();
        let journal = [atomic!(body, cell), atomic!(body, record), atomic!(body, garbage), atomic!(body, fresh)];
        let bundles = [atomic!(body, new_bundle), atomic!(body, old_bundle), atomic!(body, undo)];
        let blocks = atomic!(body, added).iter().chain(atomic!(body, old));
        for word in journal.into_iter().chain(bundles).chain(blocks) {
            let word = word.load(Ordering::Relaxed);
            if word != 0 {
                return Err(self.corrupt(word));
            }
        }
        let mut free = self.free_places()?;
        let mut census = Census { used: BTreeMap::new(), what: self.arena.what };
        let list = extents::list(self.arena.attachment, atomic!(body, table).load(Ordering::Relaxed), self.arena.what)?;
        for (slot, word) in list.into_iter().flat_map(Words::iter).enumerate() {
            let reference = word.load(Ordering::Relaxed);
            if reference != 0 {
                self.count_extent(slot as u32, reference, &mut free, &mut census)?;
            }
        }
        if let Some(&place) = free.first() {
            return Err(self.corrupt(place));
        }
        let (_, bytes) = self.sums()?;
        if bytes != self.arena.bytes() {
            return Err(self.corrupt(self.arena.bytes()));
        }
        for (page, word) in atomic!(body, anchors).iter().enumerate() {
            let link = word.load(Ordering::Relaxed);
            if link != 0 {
                self.check_anchors(&self.block(link)?, page as u32, &census)?;
                census.reach(link)?;
            }
        }
        Ok(census)
    }

    /// The places in the free lists: each once, each FREE and of its list's class.
    fn free_places(&self) -> Result<BTreeSet<u64>> {
        let mut found = BTreeSet::new();
        for (class, head) in atomic!(self.body(), free).iter().enumerate() {
            let mut place = head.load(Ordering::Relaxed);
            while place != 0 {
                let Some(block) = self.view.block(place) else { return Err(self.corrupt(place)) };
                let piece = Piece::unpack(block.word().load(Ordering::Relaxed));
                if piece.state != PIECE_FREE || piece.class as usize != class || !found.insert(place) {
                    return Err(self.corrupt(place));
                }
                place = block.second().load(Ordering::Relaxed);
            }
        }
        Ok(found)
    }

    fn count_extent(&self, slot: u32, reference: u64, free: &mut BTreeSet<u64>, census: &mut Census) -> Result<()> {
        let attachment = self.arena.attachment;
        let extent = attachment.find_extent(reference, self.arena.what)?;
        let header = attachment.pointer::<SlabHeader>(extent.offset, self.arena.what)?;
        if atomic!(header, slot).load(Ordering::Relaxed) != slot {
            return Err(self.corrupt(reference));
        }
        let class = atomic!(header, size_class).load(Ordering::Relaxed);
        let first = extent.offset + extents::HEADER;
        if class == ARENA_LARGE {
            return match self.view.block(first >> 4) {
                Some(block) => self.count_block(&block, class, free, census),
                None => Err(self.corrupt(reference)),
            };
        }
        let Some(size) = blocks::size_of_class(class) else { return Err(self.corrupt(u64::from(class))) };
        let rest = atomic!(self.body(), rest)[class as usize].load(Ordering::Relaxed) << 4;
        let end = extent.offset + extent.len;
        let is_newest = atomic!(self.body(), rest_end)[class as usize].load(Ordering::Relaxed) << 4 == end;
        let end = if is_newest { rest.min(end) } else { end };
        let mut offset = first;
        while offset + size <= end {
            let Some(block) = self.view.block(offset >> 4) else { return Err(self.corrupt(offset)) };
            self.count_block(&block, class, free, census)?;
            offset += size;
        }
        Ok(())
    }

    fn count_block(&self, block: &Block<'a>, class: u32, free: &mut BTreeSet<u64>, census: &mut Census) -> Result<()> {
        let word = block.word().load(Ordering::Relaxed);
        let piece = Piece::unpack(word);
        let is_right = match piece.state {
            PIECE_FREE => free.remove(&block.place()),
            PIECE_COMMITTED => census.used.insert(block.place(), piece).is_none(),
            _ => false,
        };
        if is_right && piece.class == class { Ok(()) } else { Err(self.corrupt(word)) }
    }

    /// Each anchor stands for an anchored block, whose number it is.
    fn check_anchors(&self, block: &Block<'a>, page: u32, census: &Census) -> Result<()> {
        let count = u64::from(shmkit_layouts::containers::ANCHOR_FIRST) << page;
        let Some(words) = block.words(16, count) else { return Err(self.corrupt(block.place())) };
        for word in words.iter() {
            let word = word.load(Ordering::Relaxed);
            let anchor = Anchor::unpack(word);
            let stands = || {
                let piece = census.used.get(&anchor.place)?;
                (piece.anchored == 1 && piece.generation & 0xFF_FFFF == u64::from(anchor.generation)).then_some(())
            };
            if word != 0 && stands().is_none() {
                return Err(self.corrupt(word));
            }
        }
        Ok(())
    }
}
