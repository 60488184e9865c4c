//! The algorithm of lists.
//!
//! ```text
//! root → directory { first index, chunk } … → chunks { slot … } → nodes
//!
//! append    slot = node (THE COMMIT);  the chunk is full: a new chunk with the node; its link in the directory = chunk (THE COMMIT)
//! set, pop  slot = the new node, or 0 (THE COMMIT)
//! tail      where the next element goes, for as long as nobody does anything but append
//! small     what fits in a slot has no node: wherever a node is said here, the slot may hold the value instead
//! insert, remove   the chunk copied, and the directory with it unless it is the last chunk; link or root = copy (THE COMMIT)
//! bulk      sort, reverse, splices: chunks and directory all new, of the same nodes; root = directory (THE COMMIT)
//! get       read_root { the last chunk that does not start after the index; read_link(chunk) { read_link(slot) { copy } } }
//!           an empty slot: out of range
//! ```
//! No reader needs a length: the slots are the truth. The lock's owner has one, which the journal keeps exact. Model:
//! `list` (`tests/models`).

use super::directory::{Directory, build_chunk, chunk_size, slots};
use crate::data::arena::link::TRIES;
use crate::data::arena::{Arena, Prepared, Seen, View, Words, Writing, read_link, read_loaded, read_root};
use crate::data::node::{Contents, Copied, Node, Value};
use crate::error::{Result, SegmentError, corrupt};
use crate::segment::atomic;
use crate::sys::atomic::{AtomicU64, Ordering};
use shmkit_layouts::containers::{LIST_CHUNK_SLOTS, ListBody};
use shmkit_layouts::words::Small;

/// Slots of a list's first chunk; it is replaced by one of twice the size until that is a full one.
const FIRST_SLOTS: u64 = 6;
/// Chunks of a list's first directory.
const FIRST_CHUNKS: u64 = 4;

/// A list's words and arena.
#[derive(Clone, Copy)]
pub(crate) struct Core<'a> {
    pub(crate) arena: Arena<'a>,
    pub(crate) body: *const ListBody,
}

/// Where an element is; for the lock's owner.
pub(super) struct Place<'a> {
    directory: Directory<'a>,
    /// Its chunk, and the index of that chunk's first element.
    chunk: u64,
    first: u64,
    slots: Words<'a>,
    /// Its slot there.
    slot: u64,
}

impl<'a> Place<'a> {
    fn cell(&self) -> Option<&'a AtomicU64> {
        self.slots.get(self.slot)
    }

    /// Whether no other chunk follows.
    fn is_last(&self) -> bool {
        self.directory.link(self.chunk + 1).is_none_or(|link| link.load(Ordering::Relaxed) == 0)
    }
}

impl<'a> Core<'a> {
    fn root(&self) -> &'a AtomicU64 {
        atomic!(self.body, root)
    }

    // ---- without the lock -------------------------------------------------------------------------------------------

    /// Finds an element. Takes no lock, unless writers spoil one try after the other.
    #[inline]
    pub(super) fn get(self, index: u64, to: &mut Option<Copied>) -> Result<Found> {
        let view = View::new(self.arena.attachment);
        for _ in 0..TRIES {
            let seen = read_root(&view, self.root(), |block| {
                let directory = Directory::at(&block)?;
                let Some(chunk) = directory.find(index) else { return Some(Found::Nothing) };
                let seen = read_link(&view, directory.link(chunk)?, |block| {
                    // Behind the link: another chunk may be put here, which starts elsewhere. Whoever reads its start with the old
                    // chunk finds that one freed.
                    let first = directory.first(chunk)?.load(Ordering::Relaxed);
                    let Some(cell) = slots(&block)?.get(index.checked_sub(first)?) else {
                        return Some(Found::Nothing);
                    };
                    // Acquire pairs with the release in `swing`: what the link names is there. Loaded once: another value may be
                    // put here meanwhile, and no link is to be taken for a value, nor a value for a link.
                    let word = cell.load(Ordering::Acquire);
                    if is_small(word) {
                        return Some(Found::Small(word));
                    }
                    let to = to.get_or_insert_with(Copied::none);
                    match read_loaded(&view, cell, word, |block| Node::copy_value_at(&block, to)) {
                        Seen::Value(copied) => copied.map(|()| Found::Copied),
                        Seen::Nothing => Some(Found::Nothing),
                        Seen::Changed => None,
                    }
                });
                match seen {
                    Seen::Value(found) => found,
                    Seen::Nothing => Some(Found::Nothing),
                    Seen::Changed => None,
                }
            });
            match seen {
                Seen::Value(Some(found)) => return Ok(found),
                Seen::Nothing => return Ok(Found::Nothing),
                Seen::Value(None) | Seen::Changed => view.retry(),
            }
        }
        self.get_locked(index, to)
    }

    #[cold]
    fn get_locked(self, index: u64, to: &mut Option<Copied>) -> Result<Found> {
        let writing = self.lock()?;
        if index >= writing.length() {
            return Ok(Found::Nothing);
        }
        match self.occupant(&writing, &self.place(&writing, index)?)?.0 {
            Element::Small(word) => Ok(Found::Small(word)),
            Element::Node(node) => {
                node.copy_value(to.get_or_insert_with(Copied::none));
                Ok(Found::Copied)
            }
        }
    }

    // ---- with the lock ----------------------------------------------------------------------------------------------

    /// The writers' lock; what a dead owner left is repaired.
    #[inline]
    pub(super) fn lock(&self) -> Result<Writing<'a>> {
        let writing = self.lock_to_append()?;
        self.forget_tail();
        Ok(writing)
    }

    /// The same, for nothing but appending.
    #[inline]
    pub(super) fn lock_to_append(&self) -> Result<Writing<'a>> {
        self.arena.lock(|writing| self.repair(writing))
    }

    /// The chunk of the last element may be replaced from here on.
    #[inline]
    fn forget_tail(&self) {
        // Release here and below: a kill falls between two instructions, and the compiler keeps their order.
        atomic!(self.body, tail_length).store(u64::MAX, Ordering::Release);
    }

    /// Where element `length`, the next one, goes, if the last one who appended left that.
    #[inline]
    fn tail(&self, view: &View<'a>, length: u64) -> Option<&'a AtomicU64> {
        let tail = atomic!(self.body, tail).load(Ordering::Relaxed);
        if atomic!(self.body, tail_length).load(Ordering::Relaxed) != length
            || tail == atomic!(self.body, tail_end).load(Ordering::Relaxed)
        {
            return None;
        }
        view.word(tail).filter(|cell| cell.load(Ordering::Relaxed) == 0)
    }

    /// Element `length`, the next one, goes to `cell`, which is a place in the last chunk.
    #[inline]
    fn leave_place(&self, view: &View<'a>, cell: &AtomicU64, place: &Place<'a>, length: u64) {
        let (offset, left) = (view.offset_of(cell), place.slots.len() - place.slot);
        atomic!(self.body, tail).store(offset, Ordering::Release);
        atomic!(self.body, tail_end).store(offset.wrapping_add(left * 8), Ordering::Release);
        atomic!(self.body, tail_length).store(length, Ordering::Release);
    }

    /// After an append in `cell`.
    #[inline]
    fn leave_tail(&self, view: &View<'a>, cell: &AtomicU64, length: u64) {
        atomic!(self.body, tail).store(view.offset_of(cell).wrapping_add(8), Ordering::Release);
        atomic!(self.body, tail_length).store(length, Ordering::Release);
    }

    /// Appends an element that lies in its slot, if nothing is in the way of that.
    #[inline]
    pub(super) fn push_at_once(&self, word: u64) -> Option<()> {
        let find = |view: &View<'a>, length| Some((self.tail(view, length)?, word, length.wrapping_add(1)));
        self.arena.swing_at_once(find, |view, cell, length| self.leave_tail(view, cell, length))
    }

    /// What a death leaves of a list beside the arena's: the memory of one that was being emptied. Idempotent.
    pub(super) fn repair(&self, writing: &mut Writing<'a>) -> Result<()> {
        self.forget_tail();
        if self.root().load(Ordering::Relaxed) == 0 { writing.reset() } else { Ok(()) }
    }

    fn directory(&self, writing: &Writing<'a>) -> Result<Directory<'a>> {
        let root = self.root().load(Ordering::Relaxed);
        Directory::at(&writing.block(root)?).ok_or_else(|| writing.corrupt(root))
    }

    fn chunk(&self, writing: &Writing<'a>, link: u64) -> Result<Words<'a>> {
        slots(&writing.block(link)?).ok_or_else(|| writing.corrupt(link))
    }

    /// Where element `index` is, or would be appended. The list has a directory.
    fn place(&self, writing: &Writing<'a>, index: u64) -> Result<Place<'a>> {
        let wrong = || writing.corrupt(index);
        let directory = self.directory(writing)?;
        let chunk = directory.find(index).ok_or_else(wrong)?;
        let link = directory.link(chunk).ok_or_else(wrong)?.load(Ordering::Relaxed);
        let first = directory.first(chunk).ok_or_else(wrong)?.load(Ordering::Relaxed);
        let slots = self.chunk(writing, link)?;
        Ok(Place { directory, chunk, first, slots, slot: index.checked_sub(first).ok_or_else(wrong)? })
    }

    /// The element at a place, and the word of its slot.
    #[inline]
    pub(super) fn occupant(&self, writing: &Writing<'a>, place: &Place<'a>) -> Result<(Element<'a>, u64)> {
        let word = place.cell().map_or(0, |cell| cell.load(Ordering::Relaxed));
        self.at(writing, word).map(|element| (element, word))
    }

    /// The element that a slot's word is or names.
    #[inline]
    fn at(&self, writing: &Writing<'a>, word: u64) -> Result<Element<'a>> {
        if is_small(word) {
            return Ok(Element::Small(word));
        }
        Node::at(&writing.block(word)?).map(Element::Node).ok_or_else(|| writing.corrupt(word))
    }

    /// What a slot is to hold for a value: a new node's link, freed unless there is a commit, or the value itself.
    #[inline]
    fn word(&self, writing: &mut Writing<'a>, new: New<'_, 'a>) -> Result<u64> {
        match new {
            New::Small(word) => Ok(word),
            New::Value(value, prepared) => match value.small() {
                Some(word) => Ok(word),
                None => contents(value).place(writing, prepared),
            },
        }
    }

    /// The node of a slot is freed after the commit, if there is one.
    #[inline]
    fn retire(&self, writing: &mut Writing<'a>, word: u64) -> Result<()> {
        if is_small(word) { Ok(()) } else { writing.retire(word) }
    }

    /// Where element `index` is.
    ///
    /// # Errors
    /// `OutOfRange`.
    pub(super) fn element(&self, writing: &Writing<'a>, index: u64) -> Result<Place<'a>> {
        let len = writing.length();
        if index >= len {
            return Err(SegmentError::OutOfRange { index, len }.into());
        }
        self.place(writing, index)
    }

    /// Puts another value in an element's place.
    pub(super) fn set(&self, writing: &mut Writing<'a>, place: &Place<'a>, value: &Value) -> Result<()> {
        let (_, old) = self.occupant(writing, place)?;
        let new = self.word(writing, New::Value(value, None))?;
        let Some(cell) = place.cell() else { return Err(writing.corrupt(place.slot)) };
        self.retire(writing, old)?;
        writing.swing(cell, new, writing.length())
    }

    /// Appends a value.
    #[inline]
    pub(super) fn push(&self, writing: &mut Writing<'a>, new: New<'_, 'a>) -> Result<()> {
        let length = writing.length();
        if let Some(cell) = self.tail(&writing.view, length) {
            let word = self.word(writing, new)?;
            writing.swing(cell, word, length.wrapping_add(1))?;
            self.leave_tail(&writing.view, cell, length.wrapping_add(1));
            return Ok(());
        }
        self.push_slowly(writing, new, length)
    }

    /// The same, where nobody left the place.
    #[inline(never)]
    fn push_slowly(&self, writing: &mut Writing<'a>, new: New<'_, 'a>, length: u64) -> Result<()> {
        self.forget_tail();
        if self.root().load(Ordering::Relaxed) == 0 {
            self.begin(writing)?;
        }
        // Twice at most: a larger chunk or directory, and then there is room.
        for _ in 0..4 {
            let place = self.place(writing, length)?;
            if let Some(cell) = place.cell() {
                let word = self.word(writing, new)?;
                writing.swing(cell, word, length.wrapping_add(1))?;
                self.leave_place(&writing.view, cell, &place, length);
                self.leave_tail(&writing.view, cell, length.wrapping_add(1));
                return Ok(());
            }
            if place.slots.len() == LIST_CHUNK_SLOTS && place.directory.link(place.chunk + 1).is_some() {
                return self.push_chunk(writing, new, &place);
            }
            self.make_room(writing, &place)?;
        }
        Err(writing.corrupt(length))
    }

    /// The first directory and chunk.
    #[cold]
    fn begin(&self, writing: &mut Writing<'a>) -> Result<()> {
        let (_, link, links) = writing.new_bundle(FIRST_CHUNKS, FIRST_CHUNKS * 8)?;
        let Some(first) = links.get(0) else { return Err(writing.corrupt(link)) };
        self.clear_firsts(writing, link)?;
        let (chunk, _) = writing.allocate_in(chunk_size(FIRST_SLOTS), first)?;
        build_chunk(&chunk, FIRST_SLOTS).ok_or_else(|| writing.corrupt(link))?;
        failpoint!("list.begun");
        writing.swing(self.root(), link, writing.length())
    }

    fn clear_firsts(&self, writing: &Writing<'a>, link: u64) -> Result<Directory<'a>> {
        let directory = Directory::at(&writing.block(link)?).ok_or_else(|| writing.corrupt(link))?;
        for number in 0..directory.count {
            if let Some(first) = directory.first(number) {
                first.store(0, Ordering::Relaxed);
            }
        }
        Ok(directory)
    }

    /// A larger chunk in the place of a small one that is full, or else a larger directory. A change of its own.
    #[cold]
    fn make_room(&self, writing: &mut Writing<'a>, place: &Place<'a>) -> Result<()> {
        let capacity = place.slots.len();
        if capacity >= LIST_CHUNK_SLOTS {
            return self.copy_directory(writing, &place.directory);
        }
        let Some(link) = place.directory.link(place.chunk) else { return Err(writing.corrupt(place.chunk)) };
        let (larger, slots) = self.new_chunk(writing, (capacity * 2).clamp(FIRST_SLOTS, LIST_CHUNK_SLOTS))?;
        for (to, from) in slots.iter().zip(place.slots.iter()) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        failpoint!("list.larger");
        writing.retire(link.load(Ordering::Relaxed))?;
        writing.swing(link, larger, writing.length())
    }

    /// Appends to a list whose last chunk is full, and whose directory is not.
    #[cold]
    fn push_chunk(&self, writing: &mut Writing<'a>, new: New<'_, 'a>, place: &Place<'a>) -> Result<()> {
        let length = writing.length();
        let number = place.chunk + 1;
        let word = self.word(writing, new)?;
        let (chunk, slots) = self.new_chunk(writing, LIST_CHUNK_SLOTS)?;
        let (Some(slot), Some(link), Some(first)) =
            (slots.get(0), place.directory.link(number), place.directory.first(number))
        else {
            return Err(writing.corrupt(number));
        };
        slot.store(word, Ordering::Relaxed);
        // Before the link: who sees the chunk sees where it starts.
        first.store(length, Ordering::Relaxed);
        failpoint!("list.chunk");
        writing.swing(link, chunk, length.wrapping_add(1))
    }

    fn new_chunk(&self, writing: &mut Writing<'a>, capacity: u64) -> Result<(u64, Words<'a>)> {
        let (block, link) = writing.allocate(chunk_size(capacity))?;
        let slots = build_chunk(&block, capacity).ok_or_else(|| writing.corrupt(link))?;
        Ok((link, slots))
    }

    /// A directory with room for twice as many chunks, in a change of its own.
    #[cold]
    fn copy_directory(&self, writing: &mut Writing<'a>, old: &Directory<'a>) -> Result<()> {
        let chunks = old.chunks();
        let link = self.new_directory(writing, &chunks)?;
        failpoint!("list.directory");
        writing.retire(self.root().load(Ordering::Relaxed))?;
        writing.swing(self.root(), link, writing.length())
    }

    /// A directory of these chunks, links and first indices, with some room: a block of the journal's.
    fn new_directory(&self, writing: &mut Writing<'a>, chunks: &[(u64, u64)]) -> Result<u64> {
        let count = (chunks.len() as u64 + 1).next_power_of_two().max(FIRST_CHUNKS);
        let (link, directory) = self.plain_directory(writing, count)?;
        for (number, &(chunk, first)) in chunks.iter().enumerate() {
            let number = number as u64;
            let (Some(to), Some(start)) = (directory.link(number), directory.first(number)) else {
                return Err(writing.corrupt(link));
            };
            to.store(chunk, Ordering::Relaxed);
            start.store(first, Ordering::Relaxed);
        }
        Ok(link)
    }

    /// A directory that does not own its chunks yet: freed without them unless there is a commit.
    fn plain_directory(&self, writing: &mut Writing<'a>, count: u64) -> Result<(u64, Directory<'a>)> {
        let (_, link) = writing.plain_bundle(count, count * 8)?;
        let directory = self.clear_firsts(writing, link)?;
        Ok((link, directory))
    }

    /// Takes the last element away.
    pub(super) fn pop(&self, writing: &mut Writing<'a>) -> Result<()> {
        let Some(last) = writing.length().checked_sub(1) else { return Ok(()) };
        let place = self.place(writing, last)?;
        let (_, old) = self.occupant(writing, &place)?;
        let Some(cell) = place.cell() else { return Err(writing.corrupt(last)) };
        self.retire(writing, old)?;
        writing.swing(cell, 0, last)?;
        if place.slot == 0 {
            return self.tidy(writing, 1);
        }
        self.leave_place(&writing.view, cell, &place, last);
        Ok(())
    }

    /// Frees empty chunks at the end, but for `keep`.
    #[cold]
    fn tidy(&self, writing: &mut Writing<'a>, keep: u64) -> Result<()> {
        let length = writing.length();
        loop {
            let directory = self.directory(writing)?;
            let Some(last) = directory.used().checked_sub(1) else { return Ok(()) };
            let starts = |number: u64| directory.first(number).map_or(0, |first| first.load(Ordering::Relaxed));
            // The first chunk stays, whatever is in it.
            let is_empty = last > keep && starts(last - keep) >= length;
            let Some(link) = directory.link(last).filter(|_| is_empty) else { return Ok(()) };
            writing.retire(link.load(Ordering::Relaxed))?;
            writing.swing(link, 0, length)?;
            failpoint!("list.tidied");
        }
    }

    /// Inserts a value before element `index`, which there is.
    pub(super) fn insert(&self, writing: &mut Writing<'a>, index: u64, value: &Value) -> Result<()> {
        self.tidy(writing, 0)?;
        let length = writing.length();
        let place = self.place(writing, index)?;
        let mut nodes = self.nodes(writing, &place)?;
        let new = self.word(writing, New::Value(value, None))?;
        nodes.insert(place.slot as usize, new);
        let split = if nodes.len() as u64 > LIST_CHUNK_SLOTS { nodes.split_off(nodes.len() / 2) } else { Vec::new() };
        self.replace_chunk(writing, &place, &[nodes, split], length.wrapping_add(1))
    }

    /// Removes an element.
    pub(super) fn remove(&self, writing: &mut Writing<'a>, place: Place<'a>) -> Result<()> {
        let length = writing.length();
        if place.first + place.slot + 1 == length {
            return self.pop(writing);
        }
        self.tidy(writing, 0)?;
        // The same element, in what may be another directory.
        let place = self.place(writing, place.first + place.slot)?;
        let mut nodes = self.nodes(writing, &place)?;
        self.retire(writing, nodes.remove(place.slot as usize))?;
        self.replace_chunk(writing, &place, &[nodes, Vec::new()], length.wrapping_sub(1))
    }

    /// The words of a chunk's elements.
    fn nodes(&self, writing: &Writing<'a>, place: &Place<'a>) -> Result<Vec<u64>> {
        let end = match place.is_last() {
            true => writing.length(),
            false => place.directory.first(place.chunk + 1).map_or(0, |first| first.load(Ordering::Relaxed)),
        };
        let count = end.checked_sub(place.first).filter(|&count| count <= place.slots.len() && count > place.slot);
        let Some(count) = count else { return Err(writing.corrupt(end)) };
        Ok(place.slots.iter().take(count as usize).map(|slot| slot.load(Ordering::Relaxed)).collect())
    }

    /// One or two chunks of these nodes in the place of one, or none for no nodes. The list has `length` elements then.
    fn replace_chunk(
        &self,
        writing: &mut Writing<'a>,
        place: &Place<'a>,
        parts: &[Vec<u64>; 2],
        length: u64,
    ) -> Result<()> {
        let mut new = Vec::with_capacity(2);
        for nodes in parts.iter().filter(|nodes| !nodes.is_empty()) {
            let is_small = place.chunk == 0 && place.is_last() && parts[1].is_empty();
            let capacity = if is_small { place.slots.len().max(nodes.len() as u64 * 2) } else { LIST_CHUNK_SLOTS };
            let (link, slots) = self.new_chunk(writing, capacity.min(LIST_CHUNK_SLOTS))?;
            slots.fill(nodes);
            new.push((link, nodes.len() as u64));
        }
        failpoint!("list.copied");
        let Some(cell) = place.directory.link(place.chunk) else { return Err(writing.corrupt(place.chunk)) };
        let old = cell.load(Ordering::Relaxed);
        writing.retire(old)?;
        if let (true, [(link, _)]) = (place.is_last(), &new[..]) {
            return writing.swing(cell, *link, length);
        }
        let mut chunks = place.directory.chunks();
        let after = place.chunk as usize + 1;
        if after > chunks.len() {
            return Err(writing.corrupt(place.chunk));
        }
        let was = chunks.get(after).map_or(0, |&(_, first)| first.wrapping_sub(place.first));
        let now: u64 = new.iter().map(|(_, count)| count).sum();
        for (_, first) in &mut chunks[after..] {
            *first = first.wrapping_sub(was).wrapping_add(now);
        }
        let mut first = place.first;
        let replacement: Vec<_> = new
            .iter()
            .map(|&(link, count)| {
                let chunk = (link, first);
                first = first.wrapping_add(count);
                chunk
            })
            .collect();
        chunks.splice(place.chunk as usize..after, replacement);
        let link = self.new_directory(writing, &chunks)?;
        failpoint!("list.directory");
        writing.retire(self.root().load(Ordering::Relaxed))?;
        writing.swing(self.root(), link, length)
    }

    /// Removes everything.
    pub(super) fn clear(&self, writing: &mut Writing<'a>) -> Result<()> {
        if self.root().load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        writing.swing(self.root(), 0, 0)?;
        failpoint!("list.cleared");
        writing.reset()
    }

    // ---- all of it ------------------------------------------------------------------------------------------------------

    /// The words of all elements, in order.
    pub(super) fn all(&self, writing: &Writing<'a>) -> Result<Vec<u64>> {
        let length = writing.length();
        if length == 0 || self.root().load(Ordering::Relaxed) == 0 {
            return Ok(Vec::new());
        }
        let mut all = Vec::new();
        for (chunk, first) in self.directory(writing)?.chunks() {
            if first != all.len() as u64 && first < length {
                return Err(writing.corrupt(first));
            }
            for slot in self.chunk(writing, chunk)?.iter() {
                match slot.load(Ordering::Relaxed) {
                    0 => break,
                    word => all.push(word),
                }
            }
        }
        if all.len() as u64 == length { Ok(all) } else { Err(writing.corrupt(all.len() as u64)) }
    }

    /// Visits the elements of a range.
    pub(super) fn for_each(
        &self,
        writing: &Writing<'a>,
        range: std::ops::Range<u64>,
        mut visit: impl FnMut(u64, &Element<'a>) -> Result<()>,
    ) -> Result<()> {
        let mut index = range.start;
        while index < range.end {
            let place = self.place(writing, index)?;
            let start = index;
            for slot in place.slots.iter().skip(place.slot as usize).take((range.end - start) as usize) {
                let word = slot.load(Ordering::Relaxed);
                if word == 0 {
                    break;
                }
                visit(index, &self.at(writing, word)?)?;
                index += 1;
            }
            if index == start {
                return Err(writing.corrupt(index));
            }
        }
        Ok(())
    }

    /// The list of these elements instead, in this order: some of the old ones, which are `kept`, and new ones made of `values` at
    /// `at`. The others, `garbage`, are freed. One change.
    pub(super) fn rearrange(
        &self,
        writing: &mut Writing<'a>,
        mut kept: Vec<u64>,
        at: usize,
        values: &[Value],
        mut garbage: Vec<u64>,
    ) -> Result<()> {
        let length = (kept.len() + values.len()) as u64;
        if length == 0 {
            return self.clear(writing);
        }
        if self.root().load(Ordering::Relaxed) == 0 {
            self.begin(writing)?;
        }
        garbage.retain(|&word| !is_small(word));
        if !garbage.is_empty() {
            writing.garbage(garbage.len() as u64)?.fill(&garbage);
            failpoint!("list.garbage");
        }
        if !values.is_empty() {
            let nodes = values.iter().filter(|value| value.small().is_none()).count() as u64;
            let mut notes =
                if nodes > 0 { Some(writing.record(nodes)?) } else { None }.into_iter().flat_map(Words::iter);
            let mut new = Vec::with_capacity(values.len());
            for value in values {
                new.push(match value.small() {
                    Some(word) => word,
                    None => {
                        let note = notes.next().ok_or_else(|| writing.corrupt(nodes))?;
                        contents(value).place_in(writing, note)?
                    }
                });
            }
            failpoint!("list.recorded");
            kept.splice(at..at, new);
        }
        let chunks = kept.chunks(LIST_CHUNK_SLOTS as usize);
        let count = (chunks.len() as u64 + 1).next_power_of_two().max(FIRST_CHUNKS);
        let (_, link, links) = writing.new_bundle(count, count * 8)?;
        let directory = self.clear_firsts(writing, link)?;
        let is_single = chunks.len() == 1;
        for (number, nodes) in chunks.enumerate() {
            let number = number as u64;
            let (Some(to), Some(first)) = (links.get(number), directory.first(number)) else {
                return Err(writing.corrupt(link));
            };
            let capacity = if is_single {
                (nodes.len() as u64 * 2).clamp(FIRST_SLOTS, LIST_CHUNK_SLOTS)
            } else {
                LIST_CHUNK_SLOTS
            };
            let (block, _) = writing.allocate_in(chunk_size(capacity), to)?;
            build_chunk(&block, capacity).ok_or_else(|| writing.corrupt(link))?.fill(nodes);
            first.store(number * LIST_CHUNK_SLOTS, Ordering::Relaxed);
        }
        failpoint!("list.rearranged");
        writing.retire_bundle(self.root().load(Ordering::Relaxed));
        writing.swing(self.root(), link, length)
    }

    /// Checks everything, in a list that nobody is changing.
    pub(super) fn verify(&self) -> Result<()> {
        let writing = self.lock()?;
        let mut census = writing.census()?;
        let root = self.root().load(Ordering::Relaxed);
        if root != 0 {
            census.reach(root)?;
            for (chunk, _) in self.directory(&writing)?.chunks() {
                census.reach(chunk)?;
            }
        }
        let mut count = 0;
        for word in self.all(&writing)? {
            if !is_small(word) {
                census.reach(word)?;
            }
            count += 1;
        }
        if count != writing.length() {
            return Err(corrupt("length of a list", count, writing.length()));
        }
        census.close()
    }
}

/// An element that is to be put there.
pub(super) enum New<'v, 'a> {
    /// It is known to lie in its slot.
    Small(u64),
    /// A value, and its node if that was made before.
    Value(&'v Value, Option<Prepared<'a>>),
}

/// An element as a reader finds it.
pub(super) enum Found {
    /// There is none of that index.
    Nothing,
    /// It lies in its slot, which held this.
    Small(u64),
    /// It has a node, and was copied.
    Copied,
}

/// An element as the lock's owner finds it.
pub(super) enum Element<'a> {
    Small(u64),
    Node(Node<'a>),
}

impl Element<'_> {
    #[inline]
    pub(super) fn copy_to(&self, to: &mut Copied) {
        match self {
            Element::Small(word) => to.copy_small(*word),
            Element::Node(node) => node.copy_value(to),
        }
    }

    pub(super) fn is(&self, value: &Value) -> bool {
        match self {
            Element::Small(word) => {
                let mut copied = Copied::none();
                copied.copy_small(*word);
                copied.is(value)
            }
            Element::Node(node) => node.has_value(value),
        }
    }
}

#[inline]
fn is_small(word: u64) -> bool {
    word & Small::BIT != 0
}

impl Directory<'_> {
    /// Links and first indices of the chunks that are there.
    fn chunks(&self) -> Vec<(u64, u64)> {
        let load = |word: Option<&AtomicU64>| word.map_or(0, |word| word.load(Ordering::Relaxed));
        (0..self.used()).map(|number| (load(self.link(number)), load(self.first(number)))).collect()
    }
}

fn contents(value: &Value) -> Contents<'_> {
    Contents { key: None, value }
}
