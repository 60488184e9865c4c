//! The arena: the blocks of one container, the lock of its writers, and the one way a container changes.
//!
//! ```text
//! block    generation | own | class | anchored | st {FREE, HELD, COMMITTED}, then its contents
//! link     generation (low bits) | place                                      how a block is named in a word
//!
//! write    lock (a dead owner: repair first)
//!          allocate   journal.new += block;  off the free list (or the rest of the slab);  block = COMMITTED;  fill
//!          retire     journal.old += block
//!          swing      journal.value, length, …, cell (last);  cell = value (THE COMMIT);  length;
//!                     each old block: block = {new generation, FREE}, on the free list, journal.old -= block;
//!                     journal.new = 0;  journal.cell = 0 (last)
//!          unlock
//! repair   the journal's cell holds the journal's value: go on after the commit.
//!          Else: zero the undo word, free the new blocks, forget the old ones.   Both are idempotent, step by step.
//! read     link::read_link: no lock, no registration
//! ```
//! Every block word, free list and journal word is written by the owner of the container's lock only: the lock word is the
//! claim, and it names its owner. So nothing has to be searched for after a death: the journal names every block that is on
//! its way, and the place of each in the free list is known from the list's head.
//!
//! Slabs and large blocks are extents of the segment's heap, HELD until the arena's list of extents names them. An arena
//! gives all its extents back when the container is destroyed: nobody has to walk what lies in them.
//!
//! This is `mc_heap` with the allocation inside the lock: the journal then is the only witness, and HELD is left to blocks that
//! processes keep outside the lock. Model: `arena` (`tests/models`); the extents are `mc_extent`'s.
//!
//! # Crash behaviour
//!
//! | a writer is killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | before the swing: allocating, filling, writing the journal | the container as it was | the next writer, or recovery: new blocks are freed | its change |
//! | after the swing, before the unlock | the change | likewise: old blocks are freed | nothing |
//! | adding a slab or a large block, before the list of extents names it | an extent HELD by it | recovery's sweep of the heap | nothing |
//! | after the list names it | the extent HELD or COMMITTED, not in the sum of bytes | recovery commits it; the repair makes the slab usable, frees the block, sums up again | nothing |
//! | moving the list of extents | either list; the other one HELD | recovery commits the named one and sweeps the other | nothing |
//! | freeing a large block | its extent HELD, named or not | the repair goes on; recovery sweeps it | nothing |
//! | in the repair | as before the repair | the next one starts again | nothing |
//! | emptying the container, after its root is 0 | an empty container | the next writer, or recovery, goes on freeing | nothing |

mod anchors;
mod blocks;
mod extents;
pub(crate) mod link;
pub(crate) mod recovery;

pub(crate) use extents::Prepared;
pub(crate) use link::{Block, Seen, View, Words, read_link, read_loaded, read_root};

use super::guard::{Listed, refuse_deadlock};
use crate::error::{Result, corrupt};
use crate::segment::claim::{self, Acquired};
use crate::segment::wait::Deadline;
use crate::segment::{Attachment, atomic};
use crate::sys::atomic::{AtomicU64, Ordering, fence};
use shmkit_layouts::containers::ArenaBody;
use shmkit_layouts::words::Link;

/// Blocks and retired blocks a change can name in the journal itself.
pub(crate) const AT_ONCE: usize = 4;

/// One container's blocks and the lock of its writers.
#[derive(Clone, Copy)]
pub(crate) struct Arena<'a> {
    pub(crate) attachment: &'a Attachment,
    pub(crate) body: *const ArenaBody,
    /// Index of the object: what reference cells call the container.
    pub(crate) object: u32,
    /// Which of the object's arenas this is, and how many there are.
    pub(crate) part: (u32, u32),
    /// The container's kind, for messages.
    pub(crate) what: &'static str,
}

/// The writers' lock of an arena, and the change that is being made. Dropped, it undoes what was not committed and unlocks;
/// dropped by a panic, or unrepaired, it leaves both to the next owner, as a death does.
pub(crate) struct Writing<'a> {
    pub(crate) arena: Arena<'a>,
    pub(crate) view: View<'a>,
    news: usize,
    olds: usize,
    /// The journal has more than `news` and `olds` say.
    is_more: bool,
    /// The last owner died, and the container has not been repaired yet.
    is_broken: bool,
    /// Objects may have lost the block that kept them alive.
    orphans: bool,
    panicking: bool,
}

impl<'a> Arena<'a> {
    /// Elements of the container at this instant.
    #[inline]
    pub(crate) fn length(&self) -> u64 {
        // Acquire pairs with the release in `finish`.
        atomic!(self.body, length).load(Ordering::Acquire)
    }

    /// Bytes of the segment's memory it has beside its body, what is free for more included.
    pub(crate) fn bytes(&self) -> u64 {
        // Relaxed: a statistic.
        atomic!(self.body, bytes).load(Ordering::Relaxed)
    }

    /// The most bytes it may take from now on; 0 for no limit.
    pub(crate) fn set_quota(&self, bytes: u64) {
        // Relaxed: a change that is on its way is judged by the old one or the new one.
        atomic!(self.body, quota).store(bytes, Ordering::Relaxed);
    }

    /// Takes the lock. What a dead owner left in the arena is repaired; `repair` does the same for the container.
    #[inline]
    pub(crate) fn lock(self, repair: impl FnOnce(&mut Writing<'a>) -> Result<()>) -> Result<Writing<'a>> {
        // A free lock is nobody's, this thread's neither.
        let how = match claim::lock_free(self.attachment, atomic!(self.body, lock)) {
            true => Acquired::Clean,
            false => self.wait()?,
        };
        failpoint!("arena.locked");
        let mut writing = Writing::new(self, how);
        if writing.is_broken {
            writing.recover(repair)?;
        }
        Ok(writing)
    }

    /// A whole change, lock and all, that stores one word and has no blocks: `find` gives the cell, what it becomes, and the length
    /// after that; `after` is run behind the commit. `None`, and nothing has changed, if the lock is not free or `find` finds none.
    ///
    /// Neither may fail otherwise: the steps are those of [`Writing::swing`], without anything that could be left to undo.
    #[inline]
    pub(crate) fn swing_at_once(
        self,
        find: impl FnOnce(&View<'a>, u64) -> Option<(&'a AtomicU64, u64, u64)>,
        after: impl FnOnce(&View<'a>, &AtomicU64, u64),
    ) -> Option<()> {
        let (attachment, body) = (self.attachment, self.body);
        let lock = atomic!(body, lock);
        if !claim::lock_free(attachment, lock) {
            return None;
        }
        failpoint!("arena.locked");
        let view = View::new(attachment);
        // Relaxed: the lock has ordered it behind its last owner.
        let found = find(&view, atomic!(body, length).load(Ordering::Relaxed));
        if let Some((cell, value, length)) = found {
            atomic!(body, value).store(value, Ordering::Release);
            atomic!(body, next_length).store(length, Ordering::Release);
            failpoint!("arena.journal");
            atomic!(body, cell).store(view.offset_of(cell), Ordering::Release);
            failpoint!("arena.ready");
            // Release pairs with the acquire in `read_link`, and of who reads the word itself.
            cell.store(value, Ordering::Release);
            failpoint!("arena.swung");
            atomic!(body, length).store(length, Ordering::Release);
            failpoint!("arena.length");
            atomic!(body, cell).store(0, Ordering::Release);
            failpoint!("arena.finished");
            after(&view, cell, length);
        }
        failpoint!("arena.before_unlock");
        if !claim::unlock_unwaited(attachment, lock) {
            let _ = claim::unlock(attachment, lock, self.what);
        }
        failpoint!("arena.unlocked");
        found.map(|_| ())
    }

    #[inline(never)]
    fn wait(self) -> Result<Acquired> {
        let word = atomic!(self.body, lock);
        refuse_deadlock(self.attachment, word)?;
        claim::lock(self.attachment, word, Deadline::NEVER, self.what)
    }

    /// Recovery: takes a lock that a dead owner left, if it is there for the taking, and repairs.
    pub(super) fn lock_abandoned(self, repair: impl FnOnce(&mut Writing<'a>) -> Result<()>) -> Result<()> {
        if let Some(how) = claim::try_lock(self.attachment, atomic!(self.body, lock))? {
            let mut writing = Writing::new(self, how);
            if writing.is_broken {
                writing.recover(repair)?;
            }
            // Recovery looks at every object afterwards.
            writing.orphans = false;
        }
        Ok(())
    }
}

impl<'a> Writing<'a> {
    #[inline]
    fn new(arena: Arena<'a>, how: Acquired) -> Writing<'a> {
        Writing {
            arena,
            view: View::new(arena.attachment),
            news: 0,
            olds: 0,
            is_more: false,
            is_broken: how == Acquired::OwnerDied,
            orphans: false,
            panicking: std::thread::panicking(),
        }
    }

    /// This process's slot: the lock names it.
    #[cold]
    fn slot(&self) -> u32 {
        claim::owner(atomic!(self.body(), lock)).slot()
    }

    #[cold]
    fn recover(&mut self, repair: impl FnOnce(&mut Writing<'a>) -> Result<()>) -> Result<()> {
        self.keep_extents();
        self.finish_slab()?;
        self.settle()?;
        self.recount()?;
        failpoint!("arena.settled");
        repair(self)?;
        failpoint!("arena.repaired");
        self.is_broken = false;
        Ok(())
    }

    #[inline]
    pub(super) fn body(&self) -> *const ArenaBody {
        self.arena.body
    }

    /// Elements of the container.
    #[inline]
    pub(crate) fn length(&self) -> u64 {
        // Relaxed: the lock has ordered it behind its last owner.
        atomic!(self.body(), length).load(Ordering::Relaxed)
    }

    /// An error that names a place in the arena's segment.
    #[cold]
    pub(crate) fn corrupt(&self, found: u64) -> crate::Error {
        corrupt(self.arena.what, self.arena.attachment.offset_of_pointer(self.body().cast()), found)
    }

    /// The block that a word reached by the lock's owner names: it is there, or the segment is corrupt.
    #[inline]
    pub(crate) fn block(&self, link: u64) -> Result<Block<'a>> {
        let named = Link::unpack(link);
        match self.view.block(named.place) {
            Some(block) if block.is_of(named.generation) => Ok(block),
            _ => Err(self.corrupt(link)),
        }
    }

    /// Runs code of the user's with the lock held: if it comes back to this container, it is told instead of waiting for ever.
    pub(crate) fn call<R>(&mut self, code: impl FnOnce(&mut Self) -> R) -> R {
        let _listed = Listed::new(atomic!(self.body(), lock));
        code(self)
    }

    // ---- the journal ------------------------------------------------------------------------------------------------

    /// A block that is freed after the commit.
    #[inline]
    pub(crate) fn retire(&mut self, link: u64) -> Result<()> {
        let Some(word) = atomic!(self.body(), old).get(self.olds) else { return Err(self.corrupt(link)) };
        // Release throughout the journal: a kill falls between two instructions, and the compiler keeps their order.
        word.store(link, Ordering::Release);
        self.olds += 1;
        Ok(())
    }

    /// A bundle that is freed with its members after the commit.
    pub(crate) fn retire_bundle(&mut self, link: u64) {
        self.is_more = true;
        atomic!(self.body(), old_bundle).store(link, Ordering::Release);
    }

    /// A word that is made zero again unless there is a commit. Before it is written.
    #[inline]
    pub(crate) fn undo(&mut self, word: &AtomicU64) {
        let offset = self.view.offset_of(word);
        atomic!(self.body(), undo).store(offset, Ordering::Release);
    }

    /// The commit: stores `value` in `cell`. The container has `length` elements then.
    #[inline]
    pub(crate) fn swing(&mut self, cell: &AtomicU64, value: u64, length: u64) -> Result<()> {
        let body = self.body();
        let offset = self.view.offset_of(cell);
        atomic!(body, value).store(value, Ordering::Release);
        atomic!(body, next_length).store(length, Ordering::Release);
        failpoint!("arena.journal");
        // Last: from here on the cell says whether there was a commit.
        atomic!(body, cell).store(offset, Ordering::Release);
        failpoint!("arena.ready");
        // Release pairs with the acquire in `read_link`: who sees the link sees the block's contents.
        cell.store(value, Ordering::Release);
        // Pairs with the fence in `link::follow`: what is freed or changed from here on is not read by who does not see the new
        // link.
        fence(Ordering::Release);
        failpoint!("arena.swung");
        self.finish()
    }

    /// After the commit: the length, the old blocks, an empty journal. Idempotent.
    #[inline]
    fn finish(&mut self) -> Result<()> {
        let body = self.body();
        let length = atomic!(body, next_length).load(Ordering::Relaxed);
        atomic!(body, length).store(length, Ordering::Release);
        failpoint!("arena.length");
        for word in &atomic!(body, old)[..self.olds] {
            let link = word.load(Ordering::Relaxed);
            if link != 0 {
                self.free(link)?;
                word.store(0, Ordering::Release);
            }
        }
        failpoint!("arena.freed");
        if self.is_more {
            self.free_bundle(atomic!(body, record), false)?;
            self.free_bundle(atomic!(body, old_bundle), true)?;
            self.free_bundle(atomic!(body, garbage), true)?;
            atomic!(body, new_bundle).store(0, Ordering::Release);
            self.is_more = false;
        }
        for word in &atomic!(body, added)[..self.news] {
            word.store(0, Ordering::Release);
        }
        atomic!(body, undo).store(0, Ordering::Release);
        failpoint!("arena.forgotten");
        // Last: without it the new blocks would be taken for uncommitted ones.
        atomic!(body, cell).store(0, Ordering::Release);
        failpoint!("arena.finished");
        self.news = 0;
        self.olds = 0;
        Ok(())
    }

    /// Without a commit: everything as before. Idempotent.
    #[cold]
    fn abandon(&mut self) -> Result<()> {
        let body = self.body();
        self.settle_bundles();
        self.forget_untaken()?;
        failpoint!("arena.untaken");
        let undo = atomic!(body, undo);
        let offset = undo.load(Ordering::Relaxed);
        if offset != 0 {
            self.journalled(offset)?.store(0, Ordering::Release);
            undo.store(0, Ordering::Release);
        }
        failpoint!("arena.undone");
        self.free_bundle(atomic!(body, record), true)?;
        self.free_bundle(atomic!(body, new_bundle), true)?;
        self.free_bundle(atomic!(body, garbage), false)?;
        atomic!(body, old_bundle).store(0, Ordering::Release);
        for word in atomic!(body, added) {
            let link = word.load(Ordering::Relaxed);
            if link != 0 {
                self.free_taken(link)?;
                word.store(0, Ordering::Release);
                failpoint!("arena.abandoned");
            }
        }
        for word in atomic!(body, old) {
            word.store(0, Ordering::Release);
        }
        // What was put there was never committed: the cell does not hold the value.
        atomic!(body, cell).store(0, Ordering::Release);
        (self.news, self.olds, self.is_more) = (0, 0, false);
        Ok(())
    }

    /// Brings a change that was left in the middle to its end, or back to its beginning. Idempotent.
    #[cold]
    fn settle(&mut self) -> Result<()> {
        let body = self.body();
        let offset = atomic!(body, cell).load(Ordering::Relaxed);
        let value = atomic!(body, value).load(Ordering::Relaxed);
        if offset != 0 && self.journalled(offset)?.load(Ordering::Acquire) == value {
            (self.news, self.olds, self.is_more) = (AT_ONCE, AT_ONCE, true);
            self.finish()
        } else {
            self.abandon()
        }
    }

    /// A word that the journal names.
    fn journalled(&self, offset: u64) -> Result<&'a AtomicU64> {
        let word = self.arena.attachment.pointer::<AtomicU64>(offset, "journal of a container")?;
        let heap = self.arena.attachment.geometry.heap;
        if offset < heap || offset + 8 > self.view.end() {
            return Err(self.corrupt(offset));
        }
        // SAFETY: inside the mapping and aligned (`pointer`), and backed; the reference is to an atomic only.
        Ok(unsafe { &*word })
    }

    /// Objects lose what kept them alive: they are looked at after the unlock.
    fn lose_orphans(&mut self) {
        self.orphans = true;
    }
}

impl Drop for Writing<'_> {
    #[inline]
    fn drop(&mut self) {
        let Arena { attachment, body, what, .. } = self.arena;
        let word = atomic!(body, lock);
        if self.is_broken || (std::thread::panicking() && !self.panicking) {
            // The next owner is told, and repairs.
            let _ = claim::abandon(attachment, word, what);
            return;
        }
        if (self.news > 0 || self.olds > 0 || self.is_more) && self.settle().is_err() {
            let _ = claim::abandon(attachment, word, what);
            return;
        }
        failpoint!("arena.before_unlock");
        let orphans = self.orphans.then(|| self.slot());
        if !claim::unlock_unwaited(attachment, word) {
            let _ = claim::unlock(attachment, word, what);
        }
        failpoint!("arena.unlocked");
        if let Some(slot) = orphans {
            attachment.check_all(slot);
        }
    }
}

/// A release fence between a block's word and its contents: who reads a word of the new contents sees the new generation.
#[inline]
fn fence_contents() {
    // Pairs with the acquire fence in `link::follow`.
    fence(Ordering::Release);
}
