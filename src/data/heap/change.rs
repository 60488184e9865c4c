//! Changing a structure: new boxes, retired ones, and the swing.

use super::boxes::build;
use super::{Boxed, Cell, Ptr};
use crate::data::arena::{AT_ONCE, Words, Writing};
use crate::element::Element;
use crate::error::{Result, SegmentError};
use shmkit_layouts::words::Link;
use std::fmt;

/// Boxes that need no reservation: the journal's own words, but for one that a reservation takes.
const UNRESERVED: usize = AT_ONCE - 1;

/// A change that is being made: see [`crate::heap::Heap::change`].
pub struct Change<'w, 'h> {
    writing: &'w mut Writing<'h>,
    /// Where boxes are noted that have a place reserved, and how many have one.
    reserved: Option<(Words<'h>, u64)>,
    /// Boxes without.
    noted: usize,
    made: u64,
    retired: Vec<u64>,
}

impl<'w, 'h> Change<'w, 'h> {
    pub(super) fn new(writing: &'w mut Writing<'h>) -> Change<'w, 'h> {
        Change { writing, reserved: None, noted: 0, made: 0, retired: Vec::new() }
    }

    /// The box that a cell of this heap names, or `None` if it names none.
    ///
    /// # Errors
    /// `Gone` if the box with the cell was freed; `Corrupt`, also for a box that is not of type `T`.
    pub fn follow<T: Element>(&self, cell: Cell<'h, T>) -> Result<Option<Boxed<'h, T>>> {
        self.check(&cell)?;
        self.get(cell.ptr())
    }

    /// The box that `ptr` names, or `None` if it names none.
    ///
    /// # Errors
    /// `Gone` if it was freed; `Corrupt` if it is not of type `T`.
    pub fn get<T: Element>(&self, ptr: Ptr<T>) -> Result<Option<Boxed<'h, T>>> {
        let named = Link::unpack(ptr.link);
        if ptr.is_null() {
            return Ok(None);
        }
        let block = match self.writing.view.block(named.place) {
            Some(block) if block.is_of(named.generation) => block,
            _ => return Err(SegmentError::Gone.into()),
        };
        match Boxed::at(block, ptr.link, self.writing.arena.body) {
            Some(found) => Ok(Some(found)),
            None => Err(self.writing.corrupt(ptr.link)),
        }
    }

    /// Makes room for `boxes` new boxes before the next swing. Once, and needed only if there are more than three.
    ///
    /// # Errors
    /// `OutOfMemory`; `InvalidSize` if there was a reservation before.
    pub fn reserve(&mut self, boxes: usize) -> Result<()> {
        if self.reserved.is_some() {
            return Err(too_many(boxes, "reserve once before each swing"));
        }
        if boxes > 0 {
            self.reserved = Some((self.writing.record(boxes as u64)?, 0));
        }
        Ok(())
    }

    /// A new box. It is freed again unless the next swing is made; swing a cell to it or to a box that leads to it.
    ///
    /// # Errors
    /// `OutOfMemory`, `TooLarge`; `InvalidSize` if it is the fourth, or one more than were reserved.
    pub fn new_box<T: Element, U>(&mut self, value: &T, links: &[Ptr<U>]) -> Result<Ptr<T>> {
        let links = links.iter().map(|ptr| ptr.link);
        let link = match &mut self.reserved {
            Some((notes, used)) if *used < notes.len() => {
                let link = build(self.writing, value, links, notes.get(*used))?;
                *used += 1;
                link
            }
            _ if self.noted == UNRESERVED => {
                return Err(too_many(self.made as usize + 1, "reserve room for more first"));
            }
            _ => {
                let link = build(self.writing, value, links, None)?;
                self.noted += 1;
                link
            }
        };
        self.made += 1;
        Ok(Ptr::new(link))
    }

    /// The next swing frees this box: nothing must lead to it then.
    ///
    /// # Errors
    /// `Gone` if it was freed before.
    pub fn retire<T: Element>(&mut self, ptr: Ptr<T>) -> Result<()> {
        if let Some(found) = self.get(ptr)?
            && !self.retired.contains(&found.ptr().link)
        {
            self.retired.push(found.ptr().link);
        }
        Ok(())
    }

    /// The commit: `cell` names `ptr` from now on, for everybody, and the retired boxes are freed. Then another change may begin, still
    /// undisturbed.
    ///
    /// # Errors
    /// `Gone` if the box with the cell, or that of `ptr`, was freed; `OutOfMemory` if many boxes were retired and the list of them
    /// does not fit. Then nothing has changed.
    pub fn swing<T: Element>(&mut self, cell: Cell<'h, T>, ptr: Ptr<T>) -> Result<()> {
        self.check(&cell)?;
        self.get(ptr)?;
        match self.retired.len() {
            0..=AT_ONCE => self.retired.iter().try_for_each(|&link| self.writing.retire(link))?,
            many => self.writing.garbage(many as u64)?.fill(&self.retired),
        }
        failpoint!("heap.retired");
        let length = self.writing.length().wrapping_add(self.made).wrapping_sub(self.retired.len() as u64);
        self.writing.swing(cell.word, ptr.link, length)?;
        (self.reserved, self.noted, self.made) = (None, 0, 0);
        self.retired.clear();
        Ok(())
    }

    /// That a cell is one of this heap's, and that the box it is in is still there.
    fn check<T>(&self, cell: &Cell<'h, T>) -> Result<()> {
        let is_there = cell.owner.is_none_or(|(block, link)| block.is_of(Link::unpack(link).generation));
        if cell.heap == self.writing.arena.body && is_there { Ok(()) } else { Err(SegmentError::Gone.into()) }
    }
}

#[cold]
fn too_many(found: usize, why: &'static str) -> crate::Error {
    SegmentError::InvalidSize { what: "the number of new boxes in one change", found: found as u64, why }.into()
}

impl fmt::Debug for Change<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change").field("new", &self.made).field("retired", &self.retired.len()).finish_non_exhaustive()
    }
}
