//! Following links: places in the heap, checked, and the one function that reads without a lock.

use crate::segment::Attachment;
use crate::sys::atomic::{AtomicU64, Ordering, fence};
use shmkit_layouts::segment::UNIT_SIZE;
use shmkit_layouts::words::Link;
use std::cell::Cell;
use std::marker::PhantomData;

/// The backed part of the heap, as one operation sees it.
pub(crate) struct View<'a> {
    attachment: &'a Attachment,
    /// Where the segment starts. Words are counted from there, not bytes: under loom they are of another size.
    base: *const AtomicU64,
    start: u64,
    end: Cell<u64>,
}

impl<'a> View<'a> {
    #[inline]
    pub(crate) fn new(attachment: &'a Attachment) -> View<'a> {
        let (base, start) = (attachment.map.base().cast(), attachment.geometry.heap);
        View { attachment, base, start, end: Cell::new(View::backed(attachment)) }
    }

    #[inline]
    fn backed(attachment: &Attachment) -> u64 {
        attachment.geometry.heap + attachment.committed() * UNIT_SIZE
    }

    /// How far a word lies from the start of the segment.
    #[inline]
    pub(crate) fn offset_of(&self, word: &AtomicU64) -> u64 {
        let bytes = (std::ptr::from_ref(word) as usize).wrapping_sub(self.base as usize);
        (bytes / size_of::<AtomicU64>()) as u64 * 8
    }

    /// Where the backed heap ends, in bytes from the start of the segment.
    pub(crate) fn end(&self) -> u64 {
        self.end.get()
    }

    /// The block at a place, if that is in the heap.
    #[inline]
    pub(crate) fn block(&self, place: u64) -> Option<Block<'a>> {
        // 36 bits, whatever a free list says: no overflow.
        let offset = (place & Link::PLACE) << 4;
        if offset + 16 > self.end.get() && !self.has_grown(offset) {
            return None;
        }
        if offset < self.start {
            return None;
        }
        let start = self.base.wrapping_add(offset as usize / 8);
        Some(Block { start, offset, room: self.end.get() - offset, _heap: PhantomData })
    }

    /// The word at an offset from the start of the segment, if it is in the heap.
    #[inline]
    pub(crate) fn word(&self, offset: u64) -> Option<&'a AtomicU64> {
        if offset < self.start || offset.checked_add(8)? > self.end.get() || !offset.is_multiple_of(8) {
            return None;
        }
        // SAFETY: in the heap, which is backed and mapped for as long as the attachment lives; the reference is to an atomic only.
        Some(unsafe { &*self.base.wrapping_add(offset as usize / 8) })
    }

    /// Before another look at what changed meanwhile, which may lie in memory that was added.
    #[inline]
    pub(crate) fn retry(&self) {
        std::hint::spin_loop();
        self.refresh();
    }

    /// After memory was added to the heap.
    #[inline]
    pub(crate) fn refresh(&self) {
        // The call is given no pointer to this view: it stays in registers.
        self.end.set(View::backed_now(self.attachment));
    }

    #[cold]
    #[inline(never)]
    fn backed_now(attachment: &Attachment) -> u64 {
        View::backed(attachment)
    }

    #[inline]
    fn has_grown(&self, offset: u64) -> bool {
        self.refresh();
        offset + 16 <= self.end.get()
    }
}

/// A block: its word, and its contents as far as they may reach.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a> {
    start: *const AtomicU64,
    offset: u64,
    /// Bytes from the block's start to the end of the backed heap.
    room: u64,
    _heap: PhantomData<&'a Attachment>,
}

impl<'a> Block<'a> {
    /// Its place, as links have it.
    pub(crate) fn place(&self) -> u64 {
        self.offset >> 4
    }

    /// Its [`shmkit_layouts::words::Piece`].
    #[inline]
    pub(crate) fn word(&self) -> &'a AtomicU64 {
        // SAFETY: `View::block` checked that 16 bytes are there, at a multiple of 16; the mapping outlives `'a`.
        unsafe { &*self.start }
    }

    /// Its second word.
    #[inline]
    pub(crate) fn second(&self) -> &'a AtomicU64 {
        // SAFETY: as above.
        unsafe { &*self.start.wrapping_add(1) }
    }

    /// Whether it is, at this instant, the incarnation a link with that generation means.
    #[inline]
    pub(crate) fn is_of(&self, generation: u64) -> bool {
        // Acquire: the contents are read after it.
        (self.word().load(Ordering::Acquire) >> 24) & Link::GENERATION == generation
    }

    /// `count` words from byte `offset` (a multiple of 8) on, if they are in the heap.
    #[inline]
    pub(crate) fn words(&self, offset: u64, count: u64) -> Option<Words<'a>> {
        debug_assert!(offset.is_multiple_of(8));
        // A heap has less than 2^48 bytes: no overflow.
        if (offset | count) >> 56 != 0 || offset + count * 8 > self.room {
            return None;
        }
        let start = self.start.wrapping_add(offset as usize / 8);
        Some(Words { start, count, _heap: PhantomData })
    }

    /// A pointer to a struct at the block's start, if it is in the heap.
    #[inline]
    pub(crate) fn header<T>(&self) -> Option<*const T> {
        (size_of::<T>() as u64 <= self.room).then_some(self.start.cast())
    }
}

/// A run of atomic words in the heap.
#[derive(Clone, Copy)]
pub(crate) struct Words<'a> {
    start: *const AtomicU64,
    count: u64,
    _heap: PhantomData<&'a Attachment>,
}

impl<'a> Words<'a> {
    #[inline]
    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    #[inline]
    pub(crate) fn get(&self, index: u64) -> Option<&'a AtomicU64> {
        // SAFETY: inside what was checked when this was made; the reference is to an atomic.
        (index < self.count).then(|| unsafe { &*self.start.wrapping_add(index as usize) })
    }

    /// The first `count` words, of which there are as many, and the others.
    #[inline]
    pub(crate) fn split(self, count: u64) -> (Words<'a>, Words<'a>) {
        debug_assert!(count <= self.count);
        let start = self.start.wrapping_add(count as usize);
        (Words { count, ..self }, Words { start, count: self.count - count, ..self })
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = &'a AtomicU64> {
        (0..self.count).filter_map(move |index| self.get(index))
    }

    /// Makes every word zero.
    pub(crate) fn clear(&self) {
        // Relaxed: published later, by a swing.
        self.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// Stores `words`, as many as there are.
    #[inline]
    pub(crate) fn fill(&self, words: &[u64]) {
        debug_assert!(words.len() as u64 <= self.count);
        for (index, &word) in words.iter().enumerate().take(self.count as usize) {
            // Relaxed: published later, by a swing. SAFETY: `index` is below `count`.
            unsafe { (*self.start.wrapping_add(index)).store(word, Ordering::Relaxed) };
        }
    }

    /// Copies `count` words, or all there are, to `to`, which has room for them.
    #[inline]
    pub(crate) fn copy_to(&self, to: *mut u64, count: usize) {
        debug_assert!(count as u64 <= self.count);
        for index in 0..count.min(self.count as usize) {
            // Relaxed: ordered by the fence in `read_link`. SAFETY: `index` is below `count`; the caller vouches for `to`.
            unsafe { to.add(index).write((*self.start.wrapping_add(index)).load(Ordering::Relaxed)) };
        }
    }

    /// Whether they are `words`, as many as those are.
    #[inline]
    pub(crate) fn are(&self, words: &[u64]) -> bool {
        words.len() as u64 <= self.count
            && words.iter().enumerate().all(|(index, &word)| {
                // Relaxed: ordered by the fence in `read_link`. SAFETY: `index` is below `count`.
                unsafe { (*self.start.wrapping_add(index)).load(Ordering::Relaxed) == word }
            })
    }
}

/// What a look at a link gave.
pub(crate) enum Seen<R> {
    /// The link names no block.
    Nothing,
    /// Somebody changed it meanwhile: look again.
    Changed,
    /// What `read` gave: the block was the one the link named from before to after.
    Value(R),
}

/// THE way to read without a lock: follows the link in `cell` and gives what `read` makes of the block, if that was the very
/// incarnation of the block that the link named, all the time.
///
/// The link is looked at a second time after the block's word: without that, a block that was freed and filled again
/// between the two looks is believed. `read` may be given anything: it checks, bounds its loops, and copies in relaxed words. Model:
/// `read_link`.
#[inline]
pub(crate) fn read_link<'a, R>(view: &View<'a>, cell: &AtomicU64, read: impl FnOnce(Block<'a>) -> R) -> Seen<R> {
    // Acquire pairs with the release in `swing`: the block's contents are there.
    follow::<false, R>(view, cell, cell.load(Ordering::Acquire), read)
}

/// As [`read_link`], of a cell that held `link` at an acquire load.
#[inline]
pub(crate) fn read_loaded<'a, R>(
    view: &View<'a>,
    cell: &AtomicU64,
    link: u64,
    read: impl FnOnce(Block<'a>) -> R,
) -> Seen<R> {
    follow::<false, R>(view, cell, link, read)
}

/// As [`read_link`], for a block whose parts are blocks that are freed together with it: the link must be the same at the end,
/// too. It is changed before the first of them is freed.
#[inline]
pub(crate) fn read_root<'a, R>(view: &View<'a>, cell: &AtomicU64, read: impl FnOnce(Block<'a>) -> R) -> Seen<R> {
    // Acquire: as above.
    follow::<true, R>(view, cell, cell.load(Ordering::Acquire), read)
}

#[inline(always)]
fn follow<'a, const ROOT: bool, R>(
    view: &View<'a>,
    cell: &AtomicU64,
    link: u64,
    read: impl FnOnce(Block<'a>) -> R,
) -> Seen<R> {
    let named = Link::unpack(link);
    if named.place == 0 {
        return Seen::Nothing;
    }
    let Some(block) = view.block(named.place) else { return Seen::Changed };
    // Acquire: the second look at the link, and the contents, come after it.
    let before = block.word().load(Ordering::Acquire);
    if (before >> 24) & Link::GENERATION != named.generation || cell.load(Ordering::Acquire) != link {
        return Seen::Changed;
    }
    let value = read(block);
    // Pairs with the release fences behind a new generation and behind a swing: if a word of later contents was read, of this block
    // or of one that was freed after the swing, the looks below see that.
    fence(Ordering::Acquire);
    // The link first: that it was the same then, and the block after that, leaves no room for a link that went and came back.
    // Acquire: in this order.
    let is_named = !ROOT || cell.load(Ordering::Acquire) == link;
    let is_same = block.word().load(Ordering::Relaxed) >> 24 == before >> 24;
    if is_named && is_same { Seen::Value(value) } else { Seen::Changed }
}

/// How often a reader tries before it asks the writers to wait.
pub(crate) const TRIES: u32 = 128;
/// How often a value with handles is read whose objects are gone, before the writers are asked to wait.
pub(crate) const HANDLE_TRIES: u32 = 16;
