//! A dict's table: the index, the entries, and where they lie.
//!
//! ```text
//! small   header | index slot … | entry …                             one block
//! large   header | page … | page …                                    pages of index slots, then pages of entries
//!
//! index slot   hash | entry + 1, or 0           written once          entry   link | hash
//! ```

use crate::data::arena::{Block, View, Words};
use crate::segment::atomic;
use crate::sys::atomic::{AtomicU64, Ordering};
use shmkit_layouts::containers::{DICT_ENTRY_PAGE, DICT_INDEX_PAGE, DICT_TABLE_INLINE, TableHeader};
use shmkit_layouts::words::Link;

/// Bytes of a page before its contents.
pub(crate) const PAGE_HEADER: u64 = 16;
/// Bytes of a page of either sort.
pub(crate) const PAGE: u64 = DICT_INDEX_PAGE * 8;
const HEADER: u64 = size_of::<TableHeader>() as u64;
/// The most index slots: an entry's number, plus 1, has 32 bits.
pub(crate) const MOST_SLOTS: u64 = 1 << 32;

/// Entries a table with that many index slots has.
pub(crate) const fn capacity_of(slots: u64) -> u64 {
    slots / 3 * 2 + slots % 3 / 2
}

/// Pages of a table with that many index slots: of index slots, and in all.
pub(crate) fn pages_of(slots: u64) -> (u64, u64) {
    if slots <= DICT_TABLE_INLINE {
        return (0, 0);
    }
    let index = slots.div_ceil(DICT_INDEX_PAGE);
    (index, index + capacity_of(slots).div_ceil(DICT_ENTRY_PAGE))
}

/// Bytes after the header and the pages of a table with that many index slots.
pub(crate) fn inline_size(slots: u64) -> u64 {
    if slots <= DICT_TABLE_INLINE { slots * 8 + capacity_of(slots) * 16 } else { 0 }
}

/// An entry of a table.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    words: Words<'a>,
}

impl<'a> Entry<'a> {
    /// The node: what is written here is the commit of every change of the dict.
    #[inline]
    pub(crate) fn link(&self) -> &'a AtomicU64 {
        self.words.get(0).expect("an entry has two words")
    }

    #[inline]
    pub(crate) fn hash(&self) -> &'a AtomicU64 {
        self.words.get(1).expect("an entry has two words")
    }
}

/// A table, its geometry checked against the heap's bounds.
pub(crate) struct Table<'a> {
    pub(crate) slots: u64,
    pub(crate) capacity: u64,
    block: Block<'a>,
}

impl<'a> Table<'a> {
    /// The table in a block, if it can be one.
    #[inline]
    pub(crate) fn at(block: &Block<'a>) -> Option<Table<'a>> {
        let header = block.header::<TableHeader>()?;
        // Relaxed: ordered by `read_link`, or by the lock.
        let slots = atomic!(header, slots).load(Ordering::Relaxed);
        let capacity = atomic!(header, capacity).load(Ordering::Relaxed);
        if !slots.is_power_of_two() || slots > MOST_SLOTS || capacity >= slots {
            return None;
        }
        Some(Table { slots, capacity, block: *block })
    }

    /// Writes the header of a new table, and clears it if it is small.
    pub(crate) fn build(block: &Block<'a>, slots: u64) -> Option<()> {
        let header = block.header::<TableHeader>()?;
        atomic!(header, slots).store(slots, Ordering::Relaxed);
        atomic!(header, capacity).store(capacity_of(slots), Ordering::Relaxed);
        block.words(HEADER, inline_size(slots) / 8)?.clear();
        Some(())
    }

    #[inline]
    fn is_small(&self) -> bool {
        self.slots <= DICT_TABLE_INLINE
    }

    /// Links of its pages.
    pub(crate) fn pages(&self) -> Option<Words<'a>> {
        self.block.words(HEADER, pages_of(self.slots).1)
    }

    #[inline]
    fn page(&self, view: &View<'a>, page: u64) -> Option<Block<'a>> {
        // Acquire pairs with the swing that put the page there.
        let link = self.block.words(HEADER + page * 8, 1)?.get(0)?.load(Ordering::Acquire);
        view.block(Link::unpack(link).place)
    }

    /// An index slot; the number is below `slots`.
    #[inline]
    pub(crate) fn index(&self, view: &View<'a>, slot: u64) -> Option<&'a AtomicU64> {
        debug_assert!(slot < self.slots);
        if self.is_small() {
            return self.block.words(HEADER + slot * 8, 1)?.get(0);
        }
        self.page(view, slot / DICT_INDEX_PAGE)?.words(PAGE_HEADER + slot % DICT_INDEX_PAGE * 8, 1)?.get(0)
    }

    /// An entry, if there is one of that number.
    #[inline]
    pub(crate) fn entry(&self, view: &View<'a>, number: u64) -> Option<Entry<'a>> {
        if number >= self.capacity {
            return None;
        }
        let words = if self.is_small() {
            self.block.words(HEADER + self.slots * 8 + number * 16, 2)?
        } else {
            // More than a page of index slots: the pages of entries follow whole ones.
            let page = self.slots / DICT_INDEX_PAGE + number / DICT_ENTRY_PAGE;
            self.page(view, page)?.words(PAGE_HEADER + number % DICT_ENTRY_PAGE * 16, 2)?
        };
        Some(Entry { words })
    }
}

const _: () = assert!(DICT_TABLE_INLINE < DICT_INDEX_PAGE, "the index of a large table fills whole pages");
const _: () = assert!(DICT_ENTRY_PAGE * 16 == PAGE, "pages of both sorts have the same size");

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_table_always_has_empty_index_slots() {
        for log in 3..=32 {
            let slots = 1 << log;
            let capacity = capacity_of(slots);
            assert!(capacity < slots && capacity * 2 > slots, "{slots}: {capacity}");
        }
    }
}
