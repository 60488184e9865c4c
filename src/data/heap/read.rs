//! Reading several boxes without a lock.
//!
//! ```text
//! follow   link = cell;  the block's word has the link's generation;  cell = link still         else the reading begins again
//! accept   acquire fence;  for each cell that was followed: cell = link still, then the block's generation still
//! ```
//! This is `data::arena::link`'s way to read, with the looks at the end put off until all was read: so a box may be left for the
//! one it links to. Generations do not come back, so each box was there from when it was followed to the end.

use super::{Boxed, Cell};
use crate::data::arena::{Arena, Block, View};
use crate::element::Element;
use shmkit_layouts::containers::ArenaBody;
use shmkit_layouts::words::Link;
use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Somebody changed what was being read: it is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed(pub(super) ());

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it was changed while it was read")
    }
}

impl std::error::Error for Changed {}

/// One that was followed.
struct Seen<'h> {
    cell: &'h AtomicU64,
    link: u64,
    /// None if the cell named none.
    block: Option<Block<'h>>,
}

/// What a reading follows links with: see [`crate::heap::Heap::read`].
pub struct Reader<'h> {
    view: View<'h>,
    heap: *const ArenaBody,
    tries: RefCell<Try<'h>>,
}

/// One run of a reading.
struct Try<'h> {
    seen: Vec<Seen<'h>>,
    /// How many links may be followed: what is stale may go round in a circle.
    most: usize,
}

impl<'h> Reader<'h> {
    pub(super) fn new(arena: &Arena<'h>) -> Reader<'h> {
        let reader = Reader {
            view: View::new(arena.attachment),
            heap: arena.body,
            tries: RefCell::new(Try { seen: Vec::new(), most: 0 }),
        };
        reader.limit(arena);
        reader
    }

    /// Several passes over all boxes there are, and then some.
    fn limit(&self, arena: &Arena<'h>) {
        self.tries.borrow_mut().most = (arena.length().min(1 << 32) as usize).saturating_mul(16) + 1024;
    }

    /// Begins again.
    pub(super) fn again(&self, arena: &Arena<'h>) {
        self.tries.borrow_mut().seen.clear();
        self.limit(arena);
        self.view.retry();
    }

    /// Whether all that was followed was there all the time.
    pub(super) fn is_unchanged(&self) -> bool {
        // Pairs with the release fences behind a new generation and behind a swing, as in `arena::link`.
        fence(Ordering::Acquire);
        // Acquire: the link first, and the block after that.
        self.tries.borrow().seen.iter().all(|seen| {
            let is_there = |block: Block<'_>| is_named(&block, seen.link);
            seen.cell.load(Ordering::Acquire) == seen.link && seen.block.is_none_or(is_there)
        })
    }

    /// The box that a cell of this heap names, or `None` if it names none.
    ///
    /// # Errors
    /// `Changed`: hand it on with `?`, and the reading begins again.
    pub fn follow<T: Element>(&self, cell: Cell<'h, T>) -> Result<Option<Boxed<'h, T>>, Changed> {
        // Acquire pairs with the release in `swing`: the box is there.
        let link = cell.word.load(Ordering::Acquire);
        if cell.heap != self.heap {
            return Err(Changed(()));
        }
        if link == 0 {
            // Unless it is a word of something else by now.
            if cell.owner.is_some_and(|(block, link)| !is_named(&block, link)) {
                return Err(Changed(()));
            }
            self.note(Seen { cell: cell.word, link, block: None })?;
            return Ok(None);
        }
        let block = self.view.block(Link::unpack(link).place).ok_or(Changed(()))?;
        // The second look at the link: the block may have been freed and filled again before its word was read.
        if !is_named(&block, link) || cell.word.load(Ordering::Acquire) != link {
            return Err(Changed(()));
        }
        self.note(Seen { cell: cell.word, link, block: Some(block) })?;
        Boxed::at(block, link, self.heap).map(Some).ok_or(Changed(()))
    }
}

impl<'h> Reader<'h> {
    fn note(&self, seen: Seen<'h>) -> Result<(), Changed> {
        let mut run = self.tries.borrow_mut();
        if run.seen.len() >= run.most {
            return Err(Changed(()));
        }
        run.seen.push(seen);
        Ok(())
    }
}

/// Whether the block is the one that the link means.
fn is_named(block: &Block<'_>, link: u64) -> bool {
    block.is_of(Link::unpack(link).generation)
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}
