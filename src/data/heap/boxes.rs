//! Boxes, and what names them: [`Ptr`], [`Cell`], [`Boxed`].

use crate::data::arena::{Block, Words, Writing};
use crate::element::Element;
use crate::error::{DataError, Result};
use crate::segment::atomic;
use shmkit_layouts::containers::{ArenaBody, BoxHeader};
use shmkit_layouts::words::Link;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

const HEADER: u64 = size_of::<BoxHeader>() as u64;
/// Bytes of a box's value there can be.
const MOST: u64 = 1 << 30;
/// Links of a box there can be.
const MOST_LINKS: u64 = 1 << 16;

/// Names a box of `T` in its heap, in every process: a place relative to the segment's start, and which of the boxes that were ever
/// there is meant. One that was freed is never taken for another.
#[repr(transparent)]
pub struct Ptr<T> {
    pub(super) link: u64,
    _box: PhantomData<fn(T) -> T>,
}

impl<T> Ptr<T> {
    /// Names no box.
    pub const NULL: Ptr<T> = Ptr { link: 0, _box: PhantomData };

    pub(super) fn new(link: u64) -> Ptr<T> {
        Ptr { link, _box: PhantomData }
    }

    /// Whether it names no box.
    pub fn is_null(self) -> bool {
        self.link == 0
    }

    /// The same, of a box of another type: for boxes with links to boxes of several types.
    pub fn cast<U>(self) -> Ptr<U> {
        Ptr::new(self.link)
    }
}

impl<T> Clone for Ptr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ptr<T> {}

impl<T> PartialEq for Ptr<T> {
    fn eq(&self, other: &Self) -> bool {
        self.link == other.link
    }
}

impl<T> Eq for Ptr<T> {}

impl<T> Hash for Ptr<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.link.hash(state);
    }
}

impl<T> fmt::Debug for Ptr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Link { place, generation } = Link::unpack(self.link);
        write!(f, "Ptr({:#x}, generation {generation})", place << 4)
    }
}

/// A word that holds a [`Ptr`]: a root of a heap, or a link of a box.
pub struct Cell<'h, T> {
    pub(super) word: &'h AtomicU64,
    /// The box it is in, and that box's link.
    pub(super) owner: Option<(Block<'h>, u64)>,
    pub(super) heap: *const ArenaBody,
    _box: PhantomData<fn(T) -> T>,
}

impl<'h, T> Cell<'h, T> {
    pub(super) fn root(word: &'h AtomicU64, heap: *const ArenaBody) -> Cell<'h, T> {
        Cell { word, owner: None, heap, _box: PhantomData }
    }

    /// What it holds at this instant. In a [`crate::heap::Reader`]'s hands that is good for nothing but being followed.
    pub fn ptr(&self) -> Ptr<T> {
        // Acquire pairs with the release in `swing`: what it names is there.
        Ptr::new(self.word.load(Ordering::Acquire))
    }
}

impl<T> Clone for Cell<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Cell<'_, T> {}

impl<T> fmt::Debug for Cell<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cell").field(&self.ptr()).finish()
    }
}

/// A box that was followed.
pub struct Boxed<'h, T> {
    block: Block<'h>,
    link: u64,
    links: Words<'h>,
    value: Words<'h>,
    heap: *const ArenaBody,
    _box: PhantomData<fn(T) -> T>,
}

/// The links and the value of what is said to be a box.
pub(super) fn parts<'h>(block: &Block<'h>) -> Option<(Words<'h>, (Words<'h>, u64))> {
    let header = block.header::<BoxHeader>()?;
    // Relaxed: ordered by the looks at the block's word.
    let links = u64::from(atomic!(header, links).load(Ordering::Relaxed));
    let len = u64::from(atomic!(header, len).load(Ordering::Relaxed));
    let value = block.words(HEADER + 8 * links, len.div_ceil(8))?;
    Some((block.words(HEADER, links)?, (value, len)))
}

impl<'h, T> Boxed<'h, T> {
    /// The box at a block that `link` names, if it may be one of `T`.
    pub(super) fn at(block: Block<'h>, link: u64, heap: *const ArenaBody) -> Option<Boxed<'h, T>> {
        let (links, (value, len)) = parts(&block)?;
        (len == size_of::<T>() as u64).then_some(Boxed { block, link, links, value, heap, _box: PhantomData })
    }

    /// What names it.
    pub fn ptr(&self) -> Ptr<T> {
        Ptr::new(self.link)
    }

    /// How many links it has.
    pub fn links(&self) -> usize {
        self.links.len() as usize
    }

    /// The link of that number, which names a box of `U` or none; `None` if it has no such link.
    pub fn link<U>(&self, number: usize) -> Option<Cell<'h, U>> {
        let word = self.links.get(number as u64)?;
        Some(Cell { word, owner: Some((self.block, self.link)), heap: self.heap, _box: PhantomData })
    }
}

impl<T: Element> Boxed<'_, T> {
    /// A copy of its value.
    pub fn value(&self) -> T {
        let mut value = T::zeroed();
        for (to, from) in bytemuck::bytes_of_mut(&mut value).chunks_mut(8).zip(self.value.iter()) {
            // Relaxed: ordered by the looks at the block's word.
            to.copy_from_slice(&from.load(Ordering::Relaxed).to_ne_bytes()[..to.len()]);
        }
        value
    }
}

impl<T> Clone for Boxed<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Boxed<'_, T> {}

impl<T: Element + fmt::Debug> fmt::Debug for Boxed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Boxed").field("value", &self.value()).field("links", &self.links()).finish()
    }
}

/// Allocates and fills a new box; what names it until the commit is `note`, or else a word of the journal's.
pub(super) fn build<T: Element>(
    writing: &mut Writing<'_>,
    value: &T,
    links: impl ExactSizeIterator<Item = u64>,
    note: Option<&AtomicU64>,
) -> Result<u64> {
    let (len, count) = (size_of::<T>() as u64, links.len() as u64);
    for (what, size, maximum) in [("value", len, MOST), ("row of links", count, MOST_LINKS)] {
        if size > maximum {
            return Err(DataError::TooLarge { what, size, maximum }.into());
        }
    }
    let size = HEADER + 8 * count + len.next_multiple_of(8);
    let (block, link) = match note {
        Some(note) => writing.allocate_in(size, note)?,
        None => writing.allocate(size)?,
    };
    let Some(header) = block.header::<BoxHeader>() else { return Err(writing.corrupt(link)) };
    // Relaxed, all of it: published by the swing.
    atomic!(header, links).store(count as u32, Ordering::Relaxed);
    atomic!(header, len).store(len as u32, Ordering::Relaxed);
    let Some((to, (words, _))) = parts(&block) else { return Err(writing.corrupt(link)) };
    for (to, from) in to.iter().zip(links) {
        to.store(from, Ordering::Relaxed);
    }
    for (to, from) in words.iter().zip(bytemuck::bytes_of(value).chunks(8)) {
        let mut word = [0; 8];
        word[..from.len()].copy_from_slice(from);
        to.store(u64::from_ne_bytes(word), Ordering::Relaxed);
    }
    failpoint!("heap.boxed");
    Ok(link)
}
