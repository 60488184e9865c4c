//! [`Heap`]: blocks in shared memory for data structures of one's own, and the one way to change them.
//!
//! ```text
//! body    header | 16 roots | arena
//! box     block word | links, bytes | link … | value, padded with zeros
//! ```
//! A root and a link of a box are [`Cell`]s: each holds a [`Ptr`], which is what `data::arena` calls a link: a place relative to the
//! segment's start and the generation of what lies there. Everything else is the arena's: [`Heap::change`] is its lock with its
//! journal, [`Change::swing`] its commit, [`Reader::follow`] its read without a lock, for several boxes.
//!
//! # Crash behaviour
//!
//! | a process is killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | in a change, before the swing | the structure as it was | the next changer, or recovery: its new boxes are freed | its change |
//! | after the swing | the change | likewise: retired boxes are freed | nothing |
//! | between two swings of one change | the first of them | likewise | the second |
//! | reading | nothing | nobody needs to | nothing |
//!
//! Readers never wait for a dead or stopped changer, but for one whose tries changers have spoiled 128 times in a row: it takes
//! their lock. Changers wait for a stopped one, and 50 ms at most for a dead one.

mod boxes;
mod change;
mod read;

pub use boxes::{Boxed, Cell, Ptr};
pub use change::Change;
pub use read::{Changed, Reader};

use super::arena::link::TRIES;
use super::arena::recovery::{arena_at, block_generation, destroy, named, recover};
use super::arena::{Arena, Writing};
use super::dict::ContainerOptions;
use crate::error::{Result, SegmentError};
use crate::kinds::Kind;
use crate::segment::object::{BodyId, HEADER, Object, Shared, create, handle_as_value};
use crate::segment::{At, Attachment, Extent, Segment, atomic, session};
use shmkit_layouts::containers::{ArenaBody, HEAP_ROOTS, HeapBody};
use shmkit_layouts::kinds::KIND_HEAP;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes from the start of a heap's own struct to its arena.
const ARENA: u64 = size_of::<HeapBody>() as u64;

/// The roots and the arena in a body.
fn parts_of<'a>(attachment: &'a Attachment, body: &Extent) -> Result<(&'a [AtomicU64], Arena<'a>)> {
    let arena = arena_at(attachment, body, ARENA, (0, 1), "heap")?;
    // It lies before the arena, which was checked.
    let body: *const HeapBody = attachment.pointer(body.offset + HEADER, "heap")?;
    Ok((atomic!(body, roots), arena))
}

/// What recovery does with heaps.
pub(crate) const KIND: Kind = Kind {
    recover: |attachment, body, dead| {
        if let Ok((_, arena)) = parts_of(attachment, body) {
            // A corrupt one stays as it is: whoever uses it is told.
            let _ = recover(arena, dead, |_| Ok(()));
        }
    },
    destroy: |attachment, body| parts_of(attachment, body).is_ok_and(|(_, arena)| destroy(&arena)),
    extents: |attachment, body, visit| {
        if let Ok((_, arena)) = parts_of(attachment, body) {
            named(&arena, visit);
        }
    },
    block_generation: |attachment, body, id| block_generation(&[parts_of(attachment, body).ok()?.1], id),
    verify: |attachment, body| {
        let (roots, arena) = parts_of(attachment, body)?;
        verify(roots, &arena.lock(|_| Ok(()))?)
    },
    ..Kind::plain(KIND_HEAP)
};

/// Checks that every box can be reached, and that there are as many as are counted.
fn verify(roots: &[AtomicU64], writing: &Writing<'_>) -> Result<()> {
    let mut census = writing.census()?;
    let mut found = BTreeSet::new();
    let mut open: Vec<u64> = roots.iter().map(|root| root.load(Ordering::Relaxed)).collect();
    while let Some(link) = open.pop() {
        if link == 0 || !found.insert(link) {
            continue;
        }
        census.reach(link)?;
        let Some((links, _)) = boxes::parts(&writing.block(link)?) else { return Err(writing.corrupt(link)) };
        open.extend(links.iter().map(|link| link.load(Ordering::Relaxed)));
    }
    if found.len() as u64 != writing.length() {
        return Err(writing.corrupt(found.len() as u64));
    }
    census.close()
}

/// Memory in a segment for data structures of one's own: lists, trees, graphs of boxes that name each other.
///
/// A box holds a value of plain data (an [`Element`](crate::Element)) and links. Boxes are never changed, but for their links, one
/// at a time. A change of the structure is made aside, of new boxes, and becomes visible by one [`Change::swing`] of a link or a
/// root: others see all of it or nothing, whoever dies when. What it replaces is freed after that.
///
/// Readers hold nothing: [`Heap::read`] runs the reading again if what it looked at was changed meanwhile. Changers take turns.
///
/// A handle: cloning it is cheap. The memory goes with the last one.
///
/// # Crash behaviour
///
/// A change that was not swung is undone; one that was swung is there. No box leaks that the structure does not lose by itself:
/// [`Segment::verify`] finds boxes that no root leads to.
///
/// # Examples
///
/// A stack:
/// ```
/// use shmkit::heap::{Heap, Ptr};
///
/// fn push(stack: &Heap, value: u64) -> shmkit::Result<()> {
///     let top = stack.root::<u64>(0)?;
///     stack.change(|change| {
///         let new = change.new_box(&value, &[top.ptr()])?;
///         change.swing(top, new)
///     })
/// }
///
/// fn pop(stack: &Heap) -> shmkit::Result<Option<u64>> {
///     let top = stack.root::<u64>(0)?;
///     stack.change(|change| {
///         let Some(first) = change.follow(top)? else { return Ok(None) };
///         let rest = first.link::<u64>(0).map_or(Ptr::NULL, |link| link.ptr());
///         change.retire(first.ptr())?;
///         change.swing(top, rest)?;
///         Ok(Some(first.value()))
///     })
/// }
///
/// fn sum(stack: &Heap) -> shmkit::Result<u64> {
///     let top = stack.root::<u64>(0)?;
///     stack.read(|reader| {
///         let (mut sum, mut next) = (0, Some(top));
///         while let Some(cell) = next
///             && let Some(found) = reader.follow(cell)?
///         {
///             sum += found.value();
///             next = found.link(0);
///         }
///         Ok(sum)
///     })
/// }
///
/// # fn main() -> shmkit::Result<()> {
/// let stack = Heap::new()?;
/// push(&stack, 20)?;
/// push(&stack, 22)?;
/// assert_eq!(sum(&stack)?, 42);
/// assert_eq!(pop(&stack)?, Some(22));
/// assert_eq!(stack.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Heap {
    object: Object,
    body: *const HeapBody,
    arena: *const ArenaBody,
}

// SAFETY: the pointers are into the mapping, which `object` keeps; only atomics are reached through them.
unsafe impl Send for Heap {}
// SAFETY: as above.
unsafe impl Sync for Heap {}

impl Shared for Heap {
    type Options = ContainerOptions;

    fn kind() -> u32 {
        KIND_HEAP
    }
    fn size(_: &ContainerOptions) -> Result<u64> {
        Ok(ARENA + size_of::<ArenaBody>() as u64)
    }
    fn build(options: &ContainerOptions, start: *mut u8, _: BodyId) -> Result<()> {
        // SAFETY: the body has room for roots and arena, zero, and nobody else reaches it yet.
        unsafe { options.build(start.add(ARENA as usize).cast()) };
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let (body, arena) = (object.body()?, object.part(ARENA, 1)?);
        Ok(Heap { object, body, arena })
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

handle_as_value!(Heap);

impl Heap {
    /// Roots that each heap has.
    pub const ROOTS: usize = HEAP_ROOTS as usize;

    /// A new one in the session segment.
    ///
    /// # Errors
    /// `OutOfMemory`, `TooManyObjects`.
    pub fn new() -> Result<Heap> {
        Heap::new_in(&session()?)
    }

    /// A new one in `segment`.
    ///
    /// # Errors
    /// As [`Heap::new`].
    pub fn new_in(segment: &Segment) -> Result<Heap> {
        create(segment, None, &ContainerOptions::default(), false)
    }

    fn arena(&self) -> Arena<'_> {
        let object = self.object.reference.id.index;
        Arena { attachment: self.object.attachment(), body: self.arena, object, part: (0, 1), what: "heap" }
    }

    /// The root of that number, below [`Heap::ROOTS`]: it names a box of `T`, or none at first.
    ///
    /// # Errors
    /// `OutOfRange`.
    pub fn root<T>(&self, number: usize) -> Result<Cell<'_, T>> {
        match atomic!(self.body, roots).get(number) {
            Some(word) => Ok(Cell::root(word, self.arena)),
            None => Err(SegmentError::OutOfRange { index: number as u64, len: HEAP_ROOTS }.into()),
        }
    }

    /// Gives what `read` makes of the boxes it follows. Takes no lock, unless changers spoil one try after the other.
    ///
    /// `read` is run again if anything it followed was changed before it ended: it must do nothing but look, and what it sees before
    /// its end may be anything, of the right types. What it gives is made of whole values, each of which its link named all the
    /// time.
    ///
    /// # Errors
    /// `Corrupt`, also for a box that is not of the type it was taken for; `Deadlock` if this thread is in a change of this heap and
    /// this one has to wait.
    pub fn read<'h, R>(&'h self, mut read: impl FnMut(&Reader<'h>) -> std::result::Result<R, Changed>) -> Result<R> {
        let arena = self.arena();
        let reader = Reader::new(&arena);
        for _ in 0..TRIES {
            if let Ok(value) = read(&reader)
                && reader.is_unchanged()
            {
                return Ok(value);
            }
            reader.again(&arena);
        }
        let mut writing = arena.lock(|_| Ok(()))?;
        reader.again(&arena);
        writing.call(|writing| read(&reader).map_err(|Changed(())| writing.corrupt(0)))
    }

    /// Changes the structure: no other change is made meanwhile. What `change` has not swung when it ends is undone; so is
    /// everything since the last swing if it fails or panics.
    ///
    /// # Errors
    /// What `change` gives; `Deadlock` if this thread is in a change of this heap; `Corrupt`.
    pub fn change<'h, R>(&'h self, change: impl FnOnce(&mut Change<'_, 'h>) -> Result<R>) -> Result<R> {
        let mut writing = self.arena().lock(|_| Ok(()))?;
        writing.call(|writing| change(&mut Change::new(writing)))
    }

    /// Boxes at this instant.
    pub fn len(&self) -> usize {
        self.arena().length() as usize
    }

    /// Whether there are none at this instant.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the segment's memory it has, the part included that is free for more boxes.
    pub fn memory(&self) -> u64 {
        self.arena().bytes().saturating_add(ARENA + size_of::<ArenaBody>() as u64)
    }

    /// The most bytes it may take from now on; 0 for no limit.
    pub fn set_quota(&self, bytes: u64) {
        self.arena().set_quota(bytes);
    }

    /// Its segment.
    pub fn segment(&self) -> Segment {
        self.object.segment()
    }
}

impl fmt::Debug for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heap").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Segment {
    /// The heap `name`.
    pub fn heap<'a>(&'a self, name: &'a str) -> At<'a, Heap> {
        At { segment: self, name, options: ContainerOptions::default() }
    }
}

impl At<'_, Heap> {
    /// The most bytes of the segment's memory it may take; no limit unless told otherwise.
    #[must_use]
    pub fn quota(mut self, bytes: u64) -> Self {
        self.options.quota = bytes;
        self
    }
}
