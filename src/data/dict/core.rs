//! The algorithm of dicts, on which [`super::Dict`], sharded dicts and namespaces are built: CPython's compact dict.
//!
//! ```text
//! root → table { index: hash → entry number;  entries in the order of insertion → nodes }
//!
//! put new   index slot = entry number (its entry is empty: readers go on);  entry = node (THE COMMIT)
//! replace   entry = the new node (THE COMMIT): it keeps its place            delete   entry = DELETED (THE COMMIT)
//!           a value that is one word, like the old one, of its tag and length: that word of the node (THE COMMIT)
//! resize    a table is built aside, some entries with each change; root = that table (THE COMMIT)
//! lookup    read_root { index slots from the hash on; read_link(entry) { is it the key? copy } }
//!           an empty slot: it is not there; both hold if the table was the dict's all the time
//! ```
//! Index slots are written once, and entries are appended, until the table is replaced: so a reader finds a key whose entry
//! was there before and after. While a table is being built, changes of entries that were copied are made there too. Model:
//! `dict` (`tests/models`).

use super::table::{Entry, MOST_SLOTS, PAGE, PAGE_HEADER, Table, capacity_of, inline_size, pages_of};
use crate::data::arena::link::TRIES;
use crate::data::arena::{Arena, Block, Seen, View, Writing, read_link, read_root};
use crate::data::node::{Contents, Copied, Key, Node, Value};
use crate::error::{DataError, Result, SegmentError, corrupt};
use crate::segment::{atomic, fetch};
use crate::sys::atomic::{AtomicU64, Ordering};
use shmkit_layouts::containers::{DICT_TABLE_INLINE, DictBody};
use shmkit_layouts::words::{IndexSlot, LINK_DELETED, Link};

/// Index slots of a dict's first table.
const FIRST_SLOTS: u64 = 8;
/// Entries that are copied to the next table with each change.
const AT_ONCE: u64 = 32;

/// One dict's words and arena.
#[derive(Clone, Copy)]
pub(crate) struct Core<'a> {
    pub(crate) arena: Arena<'a>,
    pub(crate) body: *const DictBody,
}

/// What a lookup in a table gave.
enum Probe<R> {
    Hit(R),
    Miss,
    /// The table cannot be right: it was replaced meanwhile, or the segment is corrupt.
    Broken,
}

/// Where a key is, or would be; for the lock's owner.
pub(crate) enum Place<'a> {
    Taken { entry: Entry<'a>, number: u64, link: u64, node: Node<'a> },
    Vacant { slot: Option<&'a AtomicU64> },
}

impl Place<'_> {
    /// Copies the value that is there; false if there is none.
    pub(crate) fn copy_value(&self, to: &mut Copied) -> bool {
        match self {
            Place::Taken { node, .. } => {
                node.copy_value(to);
                true
            }
            Place::Vacant { .. } => false,
        }
    }
}

/// How far an iteration has come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cursor {
    /// The table it looked at last.
    root: u64,
    /// The next entry there.
    number: u64,
    /// Elements it gave.
    given: u64,
}

impl<'a> Core<'a> {
    fn root(&self) -> &'a AtomicU64 {
        atomic!(self.body, root)
    }

    pub(crate) fn hash(&self, key: &Key) -> u32 {
        key.hash(fetch!(self.body, seed))
    }

    // ---- without the lock -------------------------------------------------------------------------------------------

    /// What `read` makes of the key's node, or `None`. Takes no lock, unless writers spoil one try after the other.
    #[inline]
    pub(crate) fn find<R>(&self, key: &Key, mut read: impl FnMut(&Node<'a>) -> R) -> Result<Option<R>> {
        let hash = self.hash(key);
        let view = View::new(self.arena.attachment);
        for _ in 0..TRIES {
            match read_root(&view, self.root(), |block| Self::probe(&view, &block, key, hash, &mut read)) {
                Seen::Value(Probe::Hit(found)) => return Ok(Some(found)),
                Seen::Value(Probe::Miss) | Seen::Nothing => return Ok(None),
                Seen::Value(Probe::Broken) | Seen::Changed => view.retry(),
            }
        }
        self.find_locked(key, hash, read)
    }

    #[inline]
    fn probe<R>(
        view: &View<'a>,
        block: &Block<'a>,
        key: &Key,
        hash: u32,
        read: &mut impl FnMut(&Node<'a>) -> R,
    ) -> Probe<R> {
        let Some(table) = Table::at(block) else { return Probe::Broken };
        let mask = table.slots - 1;
        let mut at = u64::from(hash) & mask;
        for _ in 0..table.slots {
            let Some(slot) = table.index(view, at) else { return Probe::Broken };
            // Acquire pairs with the release of a put: the entry is there, be it still empty.
            let Some(slot) = IndexSlot::unpack(slot.load(Ordering::Acquire)) else { return Probe::Miss };
            if slot.hash == hash {
                let Some(entry) = table.entry(view, u64::from(slot.entry)) else { return Probe::Broken };
                let seen = read_link(view, entry.link(), |block| {
                    let node = Node::at(&block)?;
                    Some(node.has_key(key).then(|| read(&node)))
                });
                match seen {
                    Seen::Value(Some(Some(found))) => return Probe::Hit(found),
                    // Another key, deleted, or not there yet.
                    Seen::Value(Some(None)) | Seen::Nothing => {}
                    Seen::Value(None) | Seen::Changed => return Probe::Broken,
                }
            }
            at = (at + 1) & mask;
        }
        Probe::Broken
    }

    #[cold]
    fn find_locked<R>(&self, key: &Key, hash: u32, mut read: impl FnMut(&Node<'a>) -> R) -> Result<Option<R>> {
        let mut writing = self.lock()?;
        let found = match self.place(&writing, key, hash)? {
            Place::Taken { node, .. } => Some(node),
            Place::Vacant { .. } => None,
        };
        // Reading may run code of the user's.
        Ok(found.map(|node| writing.call(|_| read(&node))))
    }

    /// Copies the next element. Takes no lock; false at the end. What is added or removed meanwhile is reported.
    pub(crate) fn next(&self, cursor: &mut Cursor, length: u64, to: &mut (Copied, Copied)) -> Result<bool> {
        let view = View::new(self.arena.attachment);
        for _ in 0..TRIES {
            if self.arena.length() != length {
                return Err(DataError::SizeChanged { what: self.arena.what }.into());
            }
            let root = self.root().load(Ordering::Acquire);
            let mut ahead = *cursor;
            if ahead.root != root {
                // Another table with the same elements in the same order: go past those that were given.
                ahead = Cursor { root, number: 0, given: 0 };
            }
            let seen = read_root(&view, self.root(), |block| Self::step(&view, &block, &mut ahead, cursor.given, to));
            match seen {
                // The end is one only if nothing was added or removed while it was looked for.
                Seen::Nothing | Seen::Value(Some(false)) if self.arena.length() == length => return Ok(false),
                Seen::Value(Some(true)) if self.root().load(Ordering::Acquire) == root => {
                    *cursor = ahead;
                    return Ok(true);
                }
                _ => view.retry(),
            }
        }
        self.next_locked(cursor, length, to)
    }

    /// The element number `given` of a table, looked for from `cursor` on; false if there is none.
    fn step(
        view: &View<'a>,
        block: &Block<'a>,
        cursor: &mut Cursor,
        given: u64,
        to: &mut (Copied, Copied),
    ) -> Option<bool> {
        let table = Table::at(block)?;
        while cursor.number < table.capacity {
            let entry = table.entry(view, cursor.number)?;
            let link = entry.link().load(Ordering::Acquire);
            if link == 0 {
                return Some(false);
            }
            if Link::unpack(link).place == 0 {
                cursor.number += 1;
                continue;
            }
            if cursor.given < given {
                cursor.number += 1;
                cursor.given += 1;
                continue;
            }
            let seen = read_link(view, entry.link(), |block| {
                let node = Node::at(&block)?;
                node.copy_key(&mut to.0);
                node.copy_value(&mut to.1);
                Some(())
            });
            cursor.number += 1;
            cursor.given += 1;
            return matches!(seen, Seen::Value(Some(()))).then_some(true);
        }
        Some(false)
    }

    #[cold]
    fn next_locked(&self, cursor: &mut Cursor, length: u64, to: &mut (Copied, Copied)) -> Result<bool> {
        let writing = self.lock()?;
        if writing.length() != length {
            return Err(DataError::SizeChanged { what: self.arena.what }.into());
        }
        let root = self.root().load(Ordering::Relaxed);
        let mut ahead = if cursor.root == root { *cursor } else { Cursor { root, number: 0, given: 0 } };
        let next = match root {
            0 => Some(false),
            root => Self::step(&writing.view, &writing.block(root)?, &mut ahead, cursor.given, to),
        };
        *cursor = ahead;
        next.ok_or_else(|| writing.corrupt(root))
    }

    // ---- with the lock ----------------------------------------------------------------------------------------------

    /// The writers' lock; what a dead owner left is repaired.
    #[inline]
    pub(crate) fn lock(&self) -> Result<Writing<'a>> {
        self.arena.lock(|writing| self.repair(writing))
    }

    /// What a death leaves of a dict beside the arena's: a table that was being built, and hints. Idempotent.
    pub(crate) fn repair(&self, writing: &mut Writing<'a>) -> Result<()> {
        let (root, next) = (self.root().load(Ordering::Relaxed), atomic!(self.body, next));
        if root == 0 {
            // Emptied, perhaps not to the end; or nothing was ever put.
            self.forget_table();
            return writing.reset();
        }
        if next.load(Ordering::Relaxed) == root {
            next.store(0, Ordering::Release);
        }
        let building = next.load(Ordering::Relaxed);
        if building != 0 {
            // How much of it is there is not known for sure: it is built again.
            writing.retire_bundle(building);
            writing.swing(next, 0, writing.length())?;
        }
        failpoint!("dict.repaired_next");
        self.forget_table();
        let table = self.table(writing, root)?;
        // Entries are used one after the other: the first empty one is found by halving.
        let (mut low, mut high) = (0, table.capacity);
        while low < high {
            let middle = low.midpoint(high);
            let Some(entry) = table.entry(&writing.view, middle) else { return Err(writing.corrupt(middle)) };
            if entry.link().load(Ordering::Relaxed) == 0 { high = middle } else { low = middle + 1 }
        }
        self.set_used(low);
        Ok(())
    }

    fn forget_table(&self) {
        let body = self.body;
        let words = [atomic!(body, copied), atomic!(body, next_used), atomic!(body, next_pages)];
        words.into_iter().for_each(|word| word.store(0, Ordering::Relaxed));
        if self.root().load(Ordering::Relaxed) == 0 {
            atomic!(body, next).store(0, Ordering::Relaxed);
            self.set_used(0);
        }
    }

    fn set_used(&self, used: u64) {
        // Relaxed, as all words of that half: the lock orders them.
        atomic!(self.body, used).store(used, Ordering::Relaxed);
        atomic!(self.body, tail).store(used, Ordering::Relaxed);
    }

    #[inline]
    fn table(&self, writing: &Writing<'a>, link: u64) -> Result<Table<'a>> {
        Table::at(&writing.block(link)?).ok_or_else(|| writing.corrupt(link))
    }

    /// Where a key is, or would be.
    #[inline]
    pub(crate) fn place(&self, writing: &Writing<'a>, key: &Key, hash: u32) -> Result<Place<'a>> {
        match self.root().load(Ordering::Relaxed) {
            0 => Ok(Place::Vacant { slot: None }),
            root => self.place_in(writing, &self.table(writing, root)?, key, hash),
        }
    }

    #[inline]
    fn place_in(&self, writing: &Writing<'a>, table: &Table<'a>, key: &Key, hash: u32) -> Result<Place<'a>> {
        let mask = table.slots - 1;
        let mut at = u64::from(hash) & mask;
        for _ in 0..table.slots {
            let Some(slot) = table.index(&writing.view, at) else { return Err(writing.corrupt(at)) };
            let Some(found) = IndexSlot::unpack(slot.load(Ordering::Relaxed)) else {
                return Ok(Place::Vacant { slot: Some(slot) });
            };
            if found.hash == hash {
                let number = u64::from(found.entry);
                let Some(entry) = table.entry(&writing.view, number) else { return Err(writing.corrupt(number)) };
                let link = entry.link().load(Ordering::Relaxed);
                if Link::unpack(link).place != 0 {
                    let Some(node) = Node::at(&writing.block(link)?) else { return Err(writing.corrupt(link)) };
                    if node.has_key(key) {
                        return Ok(Place::Taken { entry, number, link, node });
                    }
                }
            }
            at = (at + 1) & mask;
        }
        Err(writing.corrupt(table.slots))
    }

    /// Puts a value at a place, which must be of this moment. True if the key was not there.
    #[inline]
    pub(crate) fn put(
        &self,
        writing: &mut Writing<'a>,
        place: Place<'a>,
        hash: u32,
        contents: &Contents<'_>,
        prepared: Option<crate::data::arena::Prepared<'a>>,
    ) -> Result<bool> {
        let length = writing.length();
        match place {
            Place::Taken { entry, number, link, node } => {
                if let Some((cell, word)) = node.only_word(contents.value) {
                    failpoint!("dict.in_place");
                    // Release pairs with the fence in `link::follow`: who reads the value sees what was done before it was put.
                    cell.store(word, Ordering::Release);
                    failpoint!("dict.put_in_place");
                    self.go_on(writing)?;
                    return Ok(false);
                }
                let new = contents.place(writing, prepared)?;
                writing.retire(link)?;
                writing.swing(entry.link(), new, length)?;
                self.follow(writing, number, hash, link, new)?;
                self.go_on(writing)?;
                Ok(false)
            }
            Place::Vacant { slot } => {
                let Some(key) = contents.key else { return Err(writing.corrupt(0)) };
                let slot = self.vacancy(writing, slot, key, hash)?;
                let number = atomic!(self.body, used).load(Ordering::Relaxed);
                let table = self.table(writing, self.root().load(Ordering::Relaxed))?;
                let Some(entry) = table.entry(&writing.view, number) else { return Err(writing.corrupt(number)) };
                let new = contents.place(writing, prepared)?;
                writing.undo(slot);
                failpoint!("dict.undo");
                entry.hash().store(u64::from(hash), Ordering::Relaxed);
                // Release pairs with the acquire in `probe`.
                slot.store(IndexSlot { entry: number as u32, hash }.pack(), Ordering::Release);
                failpoint!("dict.index");
                writing.swing(entry.link(), new, length.wrapping_add(1))?;
                self.set_used(number + 1);
                failpoint!("dict.used");
                self.go_on(writing)?;
                Ok(true)
            }
        }
    }

    /// Puts a value, whatever is there. True if the key was not there.
    #[inline]
    pub(crate) fn insert(&self, key: &Key, value: &Value) -> Result<bool> {
        let contents = Contents { key: Some(key), value };
        let hash = self.hash(key);
        let prepared = contents.prepare(&self.arena)?;
        let mut writing = self.lock()?;
        let place = self.place(&writing, key, hash)?;
        self.put(&mut writing, place, hash, &contents, prepared)
    }

    /// Deletes what is at a place; false if that is vacant.
    pub(crate) fn delete(&self, writing: &mut Writing<'a>, place: &Place<'a>, hash: u32) -> Result<bool> {
        let Place::Taken { entry, number, link, .. } = place else { return Ok(false) };
        writing.retire(*link)?;
        writing.swing(entry.link(), LINK_DELETED, writing.length().saturating_sub(1))?;
        self.follow(writing, *number, hash, *link, LINK_DELETED)?;
        self.go_on(writing)?;
        Ok(true)
    }

    /// The last element's place and hash.
    pub(crate) fn last(&self, writing: &Writing<'a>) -> Result<Option<(Place<'a>, u32)>> {
        let root = self.root().load(Ordering::Relaxed);
        if root == 0 {
            return Ok(None);
        }
        let (table, tail) = (self.table(writing, root)?, atomic!(self.body, tail));
        let mut number = tail.load(Ordering::Relaxed).min(table.capacity);
        while let Some(last) = number.checked_sub(1) {
            let Some(entry) = table.entry(&writing.view, last) else { return Err(writing.corrupt(last)) };
            let link = entry.link().load(Ordering::Relaxed);
            if Link::unpack(link).place != 0 {
                let Some(node) = Node::at(&writing.block(link)?) else { return Err(writing.corrupt(link)) };
                let hash = entry.hash().load(Ordering::Relaxed) as u32;
                return Ok(Some((Place::Taken { entry, number: last, link, node }, hash)));
            }
            number = last;
            tail.store(number, Ordering::Relaxed);
        }
        Ok(None)
    }

    /// Visits every element in order.
    pub(crate) fn for_each(
        &self,
        writing: &Writing<'a>,
        mut visit: impl FnMut(u64, &Entry<'a>, &Node<'a>) -> Result<()>,
    ) -> Result<()> {
        let root = self.root().load(Ordering::Relaxed);
        if root == 0 {
            return Ok(());
        }
        let table = self.table(writing, root)?;
        let used = atomic!(self.body, used).load(Ordering::Relaxed);
        for number in 0..used.min(table.capacity) {
            let Some(entry) = table.entry(&writing.view, number) else { return Err(writing.corrupt(number)) };
            let link = entry.link().load(Ordering::Relaxed);
            if Link::unpack(link).place != 0 {
                let Some(node) = Node::at(&writing.block(link)?) else { return Err(writing.corrupt(link)) };
                visit(link, &entry, &node)?;
            }
        }
        Ok(())
    }

    /// Removes everything.
    pub(crate) fn clear(&self) -> Result<()> {
        let mut writing = self.lock()?;
        if self.root().load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        writing.swing(self.root(), 0, 0)?;
        failpoint!("dict.cleared");
        self.forget_table();
        writing.reset()
    }

    // ---- resizing -----------------------------------------------------------------------------------------------------

    /// An index slot for a key that is not there, in a table with a free entry.
    #[inline]
    fn vacancy(
        &self,
        writing: &mut Writing<'a>,
        slot: Option<&'a AtomicU64>,
        key: &Key,
        hash: u32,
    ) -> Result<&'a AtomicU64> {
        if let Some(slot) = slot {
            let table = self.table(writing, self.root().load(Ordering::Relaxed))?;
            if atomic!(self.body, used).load(Ordering::Relaxed) < table.capacity {
                return Ok(slot);
            }
        }
        self.make_room(writing)?;
        match self.place(writing, key, hash)? {
            Place::Vacant { slot: Some(slot) } => Ok(slot),
            _ => Err(writing.corrupt(u64::from(hash))),
        }
    }

    /// A table with a free entry. Where one is being built, that is brought to its end.
    #[cold]
    fn make_room(&self, writing: &mut Writing<'a>) -> Result<()> {
        let root = self.root().load(Ordering::Relaxed);
        if root == 0 {
            let link = self.new_table(writing, FIRST_SLOTS)?;
            return writing.swing(self.root(), link, writing.length());
        }
        if atomic!(self.body, next).load(Ordering::Relaxed) == 0 {
            self.begin_next(writing)?;
        }
        while atomic!(self.body, next).load(Ordering::Relaxed) != 0 {
            self.build_next(writing)?;
        }
        Ok(())
    }

    /// With each change: begins the next table in time, and builds a part of it.
    #[inline]
    fn go_on(&self, writing: &mut Writing<'a>) -> Result<()> {
        if atomic!(self.body, next).load(Ordering::Relaxed) != 0 {
            return self.go_on_building(writing);
        }
        let used = atomic!(self.body, used).load(Ordering::Relaxed);
        // Small tables are replaced at one go, when they are full.
        if used > capacity_of(DICT_TABLE_INLINE) && used % AT_ONCE == 0 {
            self.begin_in_time(writing, used)
        } else {
            Ok(())
        }
    }

    #[cold]
    fn begin_in_time(&self, writing: &mut Writing<'a>, used: u64) -> Result<()> {
        let table = self.table(writing, self.root().load(Ordering::Relaxed))?;
        if used < table.capacity / 4 * 3 {
            return Ok(());
        }
        // What was asked for is done: that there is no room to grow is for the change that needs it.
        let _ = self.begin_next(writing);
        Ok(())
    }

    #[cold]
    fn go_on_building(&self, writing: &mut Writing<'a>) -> Result<()> {
        match self.build_next(writing) {
            Err(crate::Error::Segment(SegmentError::OutOfMemory { .. })) => Ok(()),
            built => built,
        }
    }

    /// A new table in the journal: to be swung into its place.
    fn new_table(&self, writing: &mut Writing<'a>, slots: u64) -> Result<u64> {
        let (block, link, _) = writing.new_bundle(pages_of(slots).1, inline_size(slots))?;
        Table::build(&block, slots).ok_or_else(|| writing.corrupt(link))?;
        Ok(link)
    }

    fn begin_next(&self, writing: &mut Writing<'a>) -> Result<()> {
        let table = self.table(writing, self.root().load(Ordering::Relaxed))?;
        let used = atomic!(self.body, used).load(Ordering::Relaxed);
        let length = writing.length();
        // Room for twice what is there, and for all that can be added while it is built.
        let coming = length.saturating_add(table.capacity.saturating_sub(used));
        let slots = (length.saturating_mul(3)).max(coming.saturating_mul(2)).clamp(FIRST_SLOTS, MOST_SLOTS);
        let slots = slots.next_power_of_two();
        if capacity_of(slots) <= length {
            let hint = "a dict has at most 2^31 entries: use several, or a sharded one";
            return Err(SegmentError::OutOfMemory { needed: slots * 8, free: 0, hint }.into());
        }
        self.forget_table();
        let link = self.new_table(writing, slots)?;
        writing.swing(atomic!(self.body, next), link, length)?;
        failpoint!("dict.next");
        Ok(())
    }

    /// Copies entries to the next table, or adds a page to it; makes it the dict's when it has all.
    fn build_next(&self, writing: &mut Writing<'a>) -> Result<()> {
        let body = self.body;
        let (root, next) = (self.root(), atomic!(body, next));
        let table = self.table(writing, root.load(Ordering::Relaxed))?;
        let building = self.table(writing, next.load(Ordering::Relaxed))?;
        let next_pages = atomic!(body, next_pages);
        let page = next_pages.load(Ordering::Relaxed);
        if let Some(cell) = building.pages().and_then(|pages| pages.get(page)) {
            let (block, link) = writing.allocate(PAGE_HEADER + PAGE)?;
            block.words(PAGE_HEADER, PAGE / 8).ok_or_else(|| writing.corrupt(link))?.clear();
            failpoint!("dict.page");
            writing.swing(cell, link, writing.length())?;
            next_pages.store(page + 1, Ordering::Relaxed);
            return Ok(());
        }
        let (copied, next_used) = (atomic!(body, copied), atomic!(body, next_used));
        let used = atomic!(body, used).load(Ordering::Relaxed);
        let first = copied.load(Ordering::Relaxed);
        // In time it is done long before the table is full. Begun late, behind a death or for want of memory, it goes faster, so
        // that no change has to do all of it; where the table is full, all that is left comes at once.
        let left = table.capacity.saturating_sub(used);
        let most = AT_ONCE.max(used.saturating_sub(first) / (left / 2 + 1));
        for number in first..used.min(first.saturating_add(most)) {
            let Some(entry) = table.entry(&writing.view, number) else { return Err(writing.corrupt(number)) };
            let link = entry.link().load(Ordering::Relaxed);
            if Link::unpack(link).place != 0 {
                let to = next_used.load(Ordering::Relaxed);
                self.copy(writing, &building, to, link, entry.hash().load(Ordering::Relaxed) as u32)?;
                next_used.store(to + 1, Ordering::Relaxed);
            }
            copied.store(number + 1, Ordering::Relaxed);
            failpoint!("dict.copied");
        }
        if copied.load(Ordering::Relaxed) >= used {
            let used = next_used.load(Ordering::Relaxed);
            writing.retire_bundle(root.load(Ordering::Relaxed));
            writing.swing(root, next.load(Ordering::Relaxed), writing.length())?;
            failpoint!("dict.resized");
            self.set_used(used);
            next.store(0, Ordering::Release);
            self.forget_table();
            failpoint!("dict.next_done");
        }
        Ok(())
    }

    /// An entry of the table that is being built. Nobody reads there yet.
    fn copy(&self, writing: &Writing<'a>, table: &Table<'a>, number: u64, link: u64, hash: u32) -> Result<()> {
        let mask = table.slots - 1;
        let mut at = u64::from(hash) & mask;
        let Some(entry) = table.entry(&writing.view, number) else { return Err(writing.corrupt(number)) };
        for _ in 0..table.slots {
            let Some(slot) = table.index(&writing.view, at) else { return Err(writing.corrupt(at)) };
            if slot.load(Ordering::Relaxed) == 0 {
                entry.link().store(link, Ordering::Relaxed);
                entry.hash().store(u64::from(hash), Ordering::Relaxed);
                slot.store(IndexSlot { entry: number as u32, hash }.pack(), Ordering::Relaxed);
                return Ok(());
            }
            at = (at + 1) & mask;
        }
        Err(writing.corrupt(table.slots))
    }

    /// After an entry was changed: the same in the table that is being built, if it was copied there.
    #[inline]
    fn follow(&self, writing: &Writing<'a>, number: u64, hash: u32, old: u64, new: u64) -> Result<()> {
        let next = atomic!(self.body, next).load(Ordering::Relaxed);
        if next == 0 || number >= atomic!(self.body, copied).load(Ordering::Relaxed) {
            return Ok(());
        }
        self.follow_in(writing, &self.table(writing, next)?, hash, old, new)
    }

    #[cold]
    fn follow_in(&self, writing: &Writing<'a>, table: &Table<'a>, hash: u32, old: u64, new: u64) -> Result<()> {
        failpoint!("dict.follow");
        let mask = table.slots - 1;
        let mut at = u64::from(hash) & mask;
        for _ in 0..table.slots {
            let Some(slot) = table.index(&writing.view, at) else { return Err(writing.corrupt(at)) };
            let Some(found) = IndexSlot::unpack(slot.load(Ordering::Relaxed)) else { break };
            let Some(entry) = table.entry(&writing.view, u64::from(found.entry)) else { break };
            if entry.link().load(Ordering::Relaxed) == old {
                entry.link().store(new, Ordering::Relaxed);
                return Ok(());
            }
            at = (at + 1) & mask;
        }
        Err(writing.corrupt(old))
    }

    // ---- checks -------------------------------------------------------------------------------------------------------

    /// Checks everything, in a dict that nobody is changing.
    pub(crate) fn verify(&self) -> Result<()> {
        let writing = self.lock()?;
        let mut census = writing.census()?;
        let (root, next) = (self.root().load(Ordering::Relaxed), atomic!(self.body, next).load(Ordering::Relaxed));
        for link in [root, next].into_iter().filter(|&link| link != 0) {
            census.reach(link)?;
            let pages = self.table(&writing, link)?.pages().ok_or_else(|| writing.corrupt(link))?;
            for page in pages.iter() {
                let page = page.load(Ordering::Relaxed);
                if page != 0 {
                    census.reach(page)?;
                }
            }
        }
        let mut count = 0;
        let seed = fetch!(self.body, seed);
        self.for_each(&writing, |link, entry, node| {
            census.reach(link)?;
            count += 1;
            let hash = node.hash(seed);
            if entry.hash().load(Ordering::Relaxed) != u64::from(hash) {
                return Err(writing.corrupt(link));
            }
            self.check_index(&writing, entry, hash)
        })?;
        if count != writing.length() {
            return Err(corrupt("length of a dict", count, writing.length()));
        }
        census.close()
    }

    /// The entry is found by its hash.
    fn check_index(&self, writing: &Writing<'a>, entry: &Entry<'a>, hash: u32) -> Result<()> {
        let table = self.table(writing, self.root().load(Ordering::Relaxed))?;
        let mask = table.slots - 1;
        for step in 0..table.slots {
            let slot = table.index(&writing.view, (u64::from(hash) + step) & mask);
            let slot = slot.and_then(|slot| IndexSlot::unpack(slot.load(Ordering::Relaxed)));
            let Some(slot) = slot else { break };
            let found = table.entry(&writing.view, u64::from(slot.entry));
            if slot.hash == hash && found.is_some_and(|found| std::ptr::eq(found.link(), entry.link())) {
                return Ok(());
            }
        }
        Err(writing.corrupt(u64::from(hash)))
    }
}
