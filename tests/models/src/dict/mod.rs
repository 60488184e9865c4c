//! A dict: CPython's compact dict in the blocks of an arena, with a next table that is built in steps.
//!
//! ```text
//! root   table {generation, page}            page {index slots: 0 or entry + 1, written once; entries: 0, DELETED, or a node}
//! node   {generation, key, value of two words}, written before an entry names it
//! next   a table that is being built: copied entries of the root's table, its own entries in use
//! ```
//!
//! # Steps
//!
//! ```text
//! put new   journal.new = node; fill;  journal.undo = the index slot;  slot = entry + 1;  entry = node (the commit);  used + 1
//! replace   journal.new = node; fill;  journal.old;  entry = the new node (the commit): it keeps its place;  free the old one
//! in place  a value of one word in a node that has one: that word (the commit)
//! delete    journal.old;  entry = DELETED (the commit);  free the old one
//! follow    the entry was copied: the same in the next table
//! go on     with each change: begin a next table when few entries are left; copy an entry to it; all copied:
//!           journal.old = the table;  root = next (the commit);  free the old table;  used;  next = none
//! lookup    r = root;  its generation;  root is r still?  index slots from the hash on;  entry;  the node's generation;  entry is
//!           the same still?  copy;  the node's generation is the same?  …at the end: the root, and then the table's generation, are?
//! ```
//!
//! The arena's own steps are modelled in [`crate::arena`]; taking and freeing a node is one step here. A table and its
//! page are freed one after the other, the page first.
//!
//! # Crash behaviour
//!
//! ```text
//! repair    committed (the journal's cell reads its value): free journal.old;   else: zero the undo slot, free journal.new
//!           next is the root: next = none;   next is another: next = none (a swing), free it;   used = first empty entry
//! ```
//!
//! | killed | what others see | who repairs | what is lost |
//! |---|---|---|---|
//! | before the commit | the old content; perhaps an index slot with an empty entry | the next owner | its change |
//! | after the commit | the new content | the next owner | nothing |
//! | with a next table half built, or between two parts of it | the content | the next owner: it is begun again | nothing |
//!
//! # What is checked
//!
//! The root's table holds what was committed, in the order of insertion, each key reachable through the index; nothing
//! reachable is freed; a lookup gives a value that was current during the lookup, whole, and misses only a key that was
//! missing at some moment of it; at rest no node, table or page leaks, and the next table holds the same as far as it
//! was copied.
//!
//! # Size
//!
//! Two writers, one reader that looks one key up, one more process that only repairs; two keys, four nodes, three
//! tables of two entries and three index slots. At first the table is full: one key and one deleted entry. 470 017 states
//! with one change each and one kill.
//!
//! # Where the seeded bugs come from
//!
//! The bugs of the C++ model that this was ported from, and what they are here:
//!
//! ```text
//! 1 MissNotChecked        2 MismatchBelieved      3 RootNotChecked      4 EntryNotChecked       5 EntryBeforeIndex
//! 6 OldNotNoted           7 TableFreedFirst       8 JournalClearedFirst 9 ReplacedInTwo         10 RepairRollsForward
//! 11 FreeKeepsGeneration  12 RepairForgetsNew     13 TableNotChecked
//! ```
//!
//! RepairForgetsUndo, RepairKeepsNext, NotFollowed, TwoWordsInPlace and InPlaceLate are of this model only.

mod steps;

use zerocopy::{Immutable, IntoBytes};

use crate::explorer::{Broken, Model, Successors};
use steps::{IDLE, Private, READER, Reader};

const WRITERS: usize = 2;
const PROCESSES: usize = WRITERS + 1;
const KEYS: u8 = 2;
const NODES: usize = 4;
const TABLES: usize = 3;
const ENTRIES: usize = 2;
const SLOTS: usize = 3;
/// An entry that was deleted.
const DELETED: u8 = u8::MAX;

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A miss is believed without a look at table and root.
    MissNotChecked,
    /// Another key is believed without a second look at the node.
    MismatchBelieved,
    /// The entry is not looked at again after the node's generation.
    EntryNotChecked,
    /// The root is not looked at again at the end.
    RootNotChecked,
    /// Neither root nor table is looked at again.
    TableNotChecked,
    /// The entry is stored before its index slot.
    EntryBeforeIndex,
    /// The journal does not name the old node.
    OldNotNoted,
    /// The old table is freed before the root changes.
    TableFreedFirst,
    /// The journal is cleared before the old table is freed.
    JournalClearedFirst,
    /// A value is replaced by a deletion and an insertion.
    ReplacedInTwo,
    /// Repair takes every journal for a committed one.
    RepairRollsForward,
    /// Repair does not free the new node.
    RepairForgetsNew,
    /// Repair leaves the index slot of a put that was not committed.
    RepairForgetsUndo,
    /// Repair keeps a next table that is half built.
    RepairKeepsNext,
    /// A freed node keeps its generation.
    FreeKeepsGeneration,
    /// A change is not made in the next table.
    NotFollowed,
    /// A value of two words is put in the place of another.
    TwoWordsInPlace,
    /// A value is put in the place of another after the unlock.
    InPlaceLate,
}

/// The model and its size.
#[derive(Clone, Copy, Debug)]
pub struct Dict {
    /// Changes of each writer.
    pub rounds: u8,
    /// Kills in one history.
    pub kills: u8,
    /// Whether writers may put and delete: one bit for each key, deletions after puts; for each writer.
    pub operations: [u8; WRITERS],
    /// Whether values are of one word: both of a node's are written and read in one step then.
    pub one_word: bool,
    /// The seeded bug.
    pub bug: Option<Bug>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Node {
    used: u8,
    generation: u8,
    key: u8,
    value: [u8; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Table {
    used: u8,
    generation: u8,
    page: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Page {
    used: u8,
    index: [u8; SLOTS],
    entries: [u8; ENTRIES],
}

/// Which word is a change's commit point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum Cell {
    None,
    Entry,
    Root,
    Next,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Journal {
    cell: Cell,
    /// The entry, where that is the cell.
    entry: u8,
    value: u8,
    /// A node, or a table where root or next is the cell.
    new: u8,
    old: u8,
    undo: u8,
    /// Whether `new` and `old` are tables.
    tables: u8,
}

const NO_JOURNAL: Journal = Journal { cell: Cell::None, entry: 0, value: 0, new: 0, old: 0, undo: 0, tables: 0 };

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Process {
    dead: u8,
    rounds: u8,
    private: Private,
}

/// All words and processes; numbers of nodes, tables, pages and processes in words begin at 1.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    nodes: [Node; NODES],
    tables: [Table; TABLES],
    pages: [Page; TABLES],
    root: u8,
    next: u8,
    used: u8,
    copied: u8,
    next_used: u8,
    lock: u8,
    journal: Journal,
    kills: u8,
    /// What was committed: keys in order, and values.
    committed: [[u8; 2]; KEYS as usize],
    committed_len: u8,
    processes: [Process; PROCESSES],
    reader: Reader,
}

impl State {
    fn page(&mut self, table: u8) -> &mut Page {
        let page = self.tables[table as usize - 1].page;
        &mut self.pages[page as usize - 1]
    }

    fn page_of(&self, table: u8) -> &Page {
        &self.pages[self.tables[table as usize - 1].page as usize - 1]
    }

    fn is_named(&self, node: u8) -> bool {
        self.page_of(self.root).entries.contains(&node)
    }

    /// The value of a key, 0 if it is missing.
    fn current(&self, key: u8) -> u8 {
        let items = &self.committed[..self.committed_len as usize];
        items.iter().find(|item| item[0] == key).map_or(0, |item| item[1])
    }

    /// Notes what a commit has done; `value` 0 is a deletion.
    fn commit(&mut self, key: u8, value: u8) {
        let len = self.committed_len as usize;
        let place = self.committed[..len].iter().position(|item| item[0] == key);
        match (place, value) {
            (Some(place), 0) => {
                self.committed.copy_within(place + 1.., place);
                self.committed_len -= 1;
                self.committed[self.committed_len as usize] = [0; 2];
            }
            (Some(place), value) => self.committed[place][1] = value,
            (None, 0) => {}
            (None, value) => {
                self.committed[len] = [key, value];
                self.committed_len += 1;
            }
        }
        if key == 0 {
            self.reader.saw(value);
        }
    }
}

impl Dict {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn kill(&self, state: &mut State, who: usize) -> bool {
        let me = &mut state.processes[who];
        if state.kills >= self.kills || me.dead != 0 || me.private.is_idle() {
            return false;
        }
        me.dead = 1;
        me.private = IDLE;
        state.kills += 1;
        true
    }
}

impl Model for Dict {
    type State = State;

    fn initial(&self) -> Vec<State> {
        let node = Node { used: 0, generation: 0, key: 0, value: [0; 2] };
        let mut state = State {
            nodes: [node; NODES],
            tables: [Table { used: 0, generation: 0, page: 0 }; TABLES],
            pages: [Page { used: 0, index: [0; SLOTS], entries: [0; ENTRIES] }; TABLES],
            root: 1,
            next: 0,
            used: 2,
            copied: 0,
            next_used: 0,
            lock: 0,
            journal: NO_JOURNAL,
            kills: 0,
            committed: [[0; 2]; KEYS as usize],
            committed_len: 0,
            processes: [Process { dead: 0, rounds: 0, private: IDLE }; PROCESSES],
            reader: READER,
        };
        state.nodes[0] = Node { used: 1, value: [1; 2], ..node };
        state.tables[0] = Table { used: 1, generation: 0, page: 1 };
        state.pages[0] = Page { used: 1, index: [1, 2, 0], entries: [1, DELETED] };
        state.commit(0, 1);
        state.reader = READER;
        vec![state]
    }

    fn successors(&self, state: &State, next: &mut Successors<State>) {
        for who in 0..PROCESSES {
            let process = &state.processes[who];
            if process.dead != 0 {
                continue;
            }
            if !process.private.is_idle() {
                next.step(who, state, |state| self.act(state, who));
                continue;
            }
            for operation in 0..2 * KEYS {
                next.step(who, state, |state| Ok(self.begin(state, who, operation)));
            }
        }
        next.step(PROCESSES, state, |state| self.read(state));
        for who in 0..WRITERS {
            next.event("is killed", who, state, |state| Ok(self.kill(state, who)));
        }
    }

    fn invariant(&self, state: &State) -> Result<(), Broken> {
        let inside = |process: &&Process| process.dead == 0 && process.private.is_inside();
        if state.processes.iter().filter(inside).count() > 1 {
            return Err("two processes are inside the lock");
        }
        let table = state.tables[state.root as usize - 1];
        if table.used == 0 || state.pages[table.page as usize - 1].used == 0 {
            return Err("the root's table or its page is free");
        }
        let page = state.page_of(state.root);
        let mut found = 0;
        for (number, &entry) in page.entries.iter().enumerate() {
            if entry == 0 || entry == DELETED {
                continue;
            }
            let node = &state.nodes[entry as usize - 1];
            if node.used == 0 {
                return Err("a reachable node is free");
            }
            let Some(item) = state.committed[..state.committed_len as usize].get(found) else {
                return Err("an entry was never committed");
            };
            if node.key != item[0] || node.value != [item[1]; 2] {
                return Err("content or order differ from what was committed");
            }
            // A key's slots begin at its own number.
            let mut slots = (0..SLOTS).map(|slot| page.index[(slot + node.key as usize) % SLOTS]);
            let reached = slots.by_ref().take_while(|&slot| slot != 0).any(|slot| slot as usize == number + 1);
            if !reached {
                return Err("an entry is not reachable through the index");
            }
            found += 1;
        }
        if found < state.committed_len as usize { Err("a committed key is lost") } else { Ok(()) }
    }

    fn at_rest(&self, state: &State) -> Result<(), Broken> {
        let stuck = |process: &Process| process.dead == 0 && process.rounds < self.rounds;
        if state.processes[..WRITERS].iter().any(stuck) || !state.reader.is_done() {
            return Err("a live process is stuck");
        }
        if state.lock != 0 || state.journal != NO_JOURNAL {
            return Err("a lock or a journal is left over");
        }
        for (node, number) in state.nodes.iter().zip(1..) {
            if (node.used != 0) != state.is_named(number) {
                return Err("a node leaks");
            }
        }
        for (table, number) in state.tables.iter().zip(1..) {
            if (table.used != 0) != (number == state.root || number == state.next) {
                return Err("a table leaks");
            }
        }
        let pages = state.pages.iter().filter(|page| page.used != 0).count();
        if pages != state.tables.iter().filter(|table| table.used != 0).count() {
            return Err("a page leaks");
        }
        let used = state.page_of(state.root).entries.iter().filter(|&&entry| entry != 0).count();
        if used != state.used as usize {
            return Err("the entries in use are counted wrong");
        }
        let slots = state.page_of(state.root).index.iter().filter(|&&slot| slot != 0).count();
        if slots != used { Err("an index slot is left over") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explorer::{Explorer, holds, is_caught};

    const ALL: u8 = 0b1111;
    const PLAIN: Dict = Dict { rounds: 1, kills: 1, operations: [ALL; WRITERS], one_word: false, bug: None };

    fn catches(bug: Bug, expected: Broken) {
        is_caught(Explorer::default(), &Dict { bug: Some(bug), ..PLAIN }, expected);
    }

    /// With two changes of the first writer after another.
    fn catches_in_two(bug: Bug, expected: Broken) {
        is_caught(Explorer::default(), &Dict { rounds: 2, bug: Some(bug), ..PLAIN }, expected);
    }

    #[test]
    fn the_algorithm_has_no_violation() {
        let report = holds(Explorer::default().no_livelock(), &PLAIN);
        assert_eq!((report.states, report.at_rest), (470_017, 453));
    }

    #[test]
    fn the_algorithm_has_no_violation_with_two_kills() {
        let report = holds(Explorer::default(), &Dict { kills: 2, ..PLAIN });
        assert_eq!((report.states, report.at_rest), (936_445, 1_062));
    }

    #[test]
    #[ignore = "4.4 M states"]
    fn the_algorithm_has_no_violation_with_two_changes_each() {
        // The one puts and deletes, the other one replaces.
        let report = holds(Explorer::default(), &Dict { rounds: 2, operations: [0b0111, 0b0001], ..PLAIN });
        assert_eq!((report.states, report.at_rest), (4_448_017, 2_670));
    }

    #[test]
    fn values_of_one_word_are_put_in_place() {
        let report = holds(Explorer::default().no_livelock(), &Dict { one_word: true, ..PLAIN });
        assert_eq!((report.states, report.at_rest), (357_216, 379));
        holds(Explorer::default(), &Dict { rounds: 2, operations: [0b0111, 0b0001], one_word: true, ..PLAIN });
    }

    #[test]
    fn two_words_put_in_place_are_caught() {
        let bug = Some(Bug::TwoWordsInPlace);
        is_caught(Explorer::default(), &Dict { one_word: true, bug, ..PLAIN }, "a lookup gives a torn value");
    }

    #[test]
    fn a_value_put_in_place_after_the_unlock_is_caught() {
        let bug = Some(Bug::InPlaceLate);
        is_caught(Explorer::default(), &Dict { one_word: true, bug, ..PLAIN }, "a committed key is lost");
    }

    #[test]
    fn a_miss_that_is_not_checked_is_caught() {
        catches_in_two(Bug::MissNotChecked, "a lookup misses a key that was there all the time");
    }

    #[test]
    fn a_mismatch_that_is_believed_is_caught() {
        catches_in_two(Bug::MismatchBelieved, "a lookup misses a key that was there all the time");
    }

    #[test]
    fn an_entry_that_is_not_checked_is_caught() {
        catches_in_two(Bug::EntryNotChecked, "a lookup gives a torn value");
    }

    #[test]
    fn a_root_that_is_not_checked_is_caught() {
        catches_in_two(Bug::RootNotChecked, "a lookup misses a key that was there all the time");
    }

    #[test]
    fn a_table_that_is_not_checked_is_caught() {
        catches_in_two(Bug::TableNotChecked, "a lookup misses a key that was there all the time");
    }

    #[test]
    fn an_entry_before_its_index_slot_is_caught() {
        catches_in_two(Bug::EntryBeforeIndex, "an entry is not reachable through the index");
    }

    #[test]
    fn an_old_node_that_is_not_noted_is_caught() {
        catches(Bug::OldNotNoted, "a node leaks");
    }

    #[test]
    fn a_table_freed_first_is_caught() {
        catches(Bug::TableFreedFirst, "the root's table or its page is free");
    }

    #[test]
    fn a_journal_cleared_first_is_caught() {
        catches(Bug::JournalClearedFirst, "a table leaks");
    }

    #[test]
    fn a_value_replaced_in_two_steps_is_caught() {
        catches(Bug::ReplacedInTwo, "a committed key is lost");
    }

    #[test]
    fn a_repair_that_rolls_forward_is_caught() {
        catches(Bug::RepairRollsForward, "a reachable node is freed");
    }

    #[test]
    fn a_repair_that_forgets_the_new_node_is_caught() {
        catches(Bug::RepairForgetsNew, "a node leaks");
    }

    #[test]
    fn a_repair_that_forgets_the_index_slot_is_caught() {
        catches(Bug::RepairForgetsUndo, "an index slot is left over");
    }

    #[test]
    fn a_repair_that_keeps_the_next_table_is_caught() {
        catches_in_two(Bug::RepairKeepsNext, "a reachable node is free");
    }

    #[test]
    fn a_free_that_keeps_the_generation_is_caught() {
        catches_in_two(Bug::FreeKeepsGeneration, "a lookup gives a torn value");
    }

    #[test]
    fn a_change_that_is_not_followed_is_caught() {
        catches_in_two(Bug::NotFollowed, "a reachable node is free");
    }
}
