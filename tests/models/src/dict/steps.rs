//! The steps of writers, of the repair and of the reader.

use zerocopy::{Immutable, IntoBytes};

use super::{Bug, Cell, DELETED, Dict, ENTRIES, KEYS, NO_JOURNAL, Page, SLOTS, State, WRITERS};
use crate::explorer::Broken;

/// In this order: what is outside the lock, and what is under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, IntoBytes, Immutable)]
#[repr(u8)]
enum At {
    Idle,
    /// Of [`Bug::InPlaceLate`].
    InPlaceLate,
    Lock,
    Find,
    InPlace,
    /// Of [`Bug::ReplacedInTwo`].
    DeleteFirst,
    TakeNode,
    FillSecond,
    NoteOld,
    Undo,
    WriteSlot,
    Journal,
    Swing,
    FreeOld,
    ClearJournal,
    CountUsed,
    Follow,
    GoOn,
    TakeTable,
    SwingNext,
    ForgetTable,
    Copy,
    JournalRoot,
    /// Of [`Bug::TableFreedFirst`].
    FreeEarly,
    SwingRoot,
    FreePage,
    FreeTable,
    ClearRoot,
    ForgetNext,
    Unlock,
    Repair,
    RepairUndo,
    RepairNew,
    RepairOld,
    RepairPage,
    RepairTable,
    RepairClear,
    RepairNext,
    RepairSwing,
    RepairUsed,
}

/// The private words of a writer.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Private {
    at: At,
    deletes: u8,
    key: u8,
    value: u8,
    new: u8,
    old: u8,
    /// The entry, and the index slot plus 1 of a new key.
    entry: u8,
    slot: u8,
    /// Builds the next table until a put has room.
    makes_room: u8,
    /// Comes from a repair: goes on with its own change.
    repairs: u8,
}

pub(super) const IDLE: Private = Private {
    at: At::Idle,
    deletes: 0,
    key: 0,
    value: 0,
    new: 0,
    old: 0,
    entry: 0,
    slot: 0,
    makes_room: 0,
    repairs: 0,
};

impl Private {
    pub(super) fn is_idle(&self) -> bool {
        self.at == At::Idle
    }

    pub(super) fn is_inside(&self) -> bool {
        self.at > At::Lock
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum ReaderAt {
    LoadRoot,
    LoadGeneration,
    CheckRoot,
    LoadSlot,
    LoadEntry,
    LoadNode,
    CheckEntry,
    CopyFirst,
    CopySecond,
    CheckNode,
    CheckRootAgain,
    CheckTable,
}

/// The private words of the reader, which looks key 0 up, whose index slots begin at 0.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Reader {
    at: ReaderAt,
    done: u8,
    root: u8,
    generation: u8,
    slot: u8,
    entry: u8,
    node: u8,
    node_generation: u8,
    copy: [u8; 2],
    /// Whether the node has the key.
    is_hit: u8,
    /// One bit for each value that was current since the lookup began.
    current: u8,
}

pub(super) const READER: Reader = Reader {
    at: ReaderAt::LoadRoot,
    done: 0,
    root: 0,
    generation: 0,
    slot: 0,
    entry: 0,
    node: 0,
    node_generation: 0,
    copy: [0; 2],
    is_hit: 0,
    current: 0,
};

impl Reader {
    pub(super) fn is_done(&self) -> bool {
        self.done != 0
    }

    pub(super) fn saw(&mut self, value: u8) {
        self.current |= 1 << value;
    }

    fn again(&mut self) {
        *self = Reader { current: 0, ..READER };
    }
}

impl Dict {
    /// An idle writer begins a put or a deletion; the last process only repairs.
    pub(super) fn begin(&self, state: &mut State, who: usize, operation: u8) -> bool {
        let lock_is_dead = state.lock != 0 && state.processes[state.lock as usize - 1].dead != 0;
        let me = &mut state.processes[who];
        if who >= WRITERS {
            me.private = Private { at: At::Lock, ..IDLE };
            return operation == 0 && lock_is_dead;
        }
        if me.rounds >= self.rounds || self.operations[who] >> operation & 1 == 0 {
            return false;
        }
        // A value is its writer's and its round's: no two are the same.
        let value = 2 + who as u8 * self.rounds + me.rounds;
        let deletes = u8::from(operation >= KEYS);
        me.private = Private { at: At::Lock, deletes, key: operation % KEYS, value, ..IDLE };
        true
    }

    pub(super) fn act(&self, state: &mut State, who: usize) -> Result<bool, Broken> {
        let id = who as u8 + 1;
        let mut process = state.processes[who];
        let me = &mut process.private;
        match me.at {
            At::Idle => return Ok(false),
            At::Lock if state.lock == 0 => {
                state.lock = id;
                me.at = At::Find;
            }
            At::Lock if state.processes[state.lock as usize - 1].dead != 0 => {
                state.lock = id;
                me.at = At::Repair;
            }
            At::Lock => return Ok(false),
            At::Find => {
                if who >= WRITERS {
                    me.at = At::Unlock;
                } else {
                    self.find(state, me)?;
                }
            }
            At::InPlace if self.has(Bug::InPlaceLate) => {
                state.lock = 0;
                me.at = At::InPlaceLate;
            }
            At::InPlace | At::InPlaceLate => {
                state.nodes[me.old as usize - 1].value = [me.value; 2];
                state.commit(me.key, me.value);
                if me.at == At::InPlaceLate {
                    *me = IDLE;
                    process.rounds += 1;
                } else {
                    me.at = At::GoOn;
                }
            }
            At::DeleteFirst => {
                state.page(state.root).entries[me.entry as usize] = DELETED;
                state.commit(me.key, 0);
                return Err("a committed key is lost");
            }
            At::TakeNode => {
                let free = state.nodes.iter().position(|node| node.used == 0);
                let Some(free) = free else { return Err("there is no node") };
                me.new = free as u8 + 1;
                state.journal.new = me.new;
                let node = &mut state.nodes[free];
                (node.used, node.key, node.value[0]) = (1, me.key, me.value);
                me.at = At::FillSecond;
            }
            At::FillSecond => {
                state.nodes[me.new as usize - 1].value[1] = me.value;
                me.at = match (me.old != 0, self.has(Bug::EntryBeforeIndex)) {
                    (true, _) => At::NoteOld,
                    (_, true) => At::Journal,
                    _ => At::Undo,
                };
            }
            At::NoteOld => {
                state.journal.old = if self.has(Bug::OldNotNoted) { 0 } else { me.old };
                me.at = At::Journal;
            }
            At::Undo => {
                state.journal.undo = me.slot;
                me.at = At::WriteSlot;
            }
            At::WriteSlot => {
                state.page(state.root).index[me.slot as usize - 1] = me.entry + 1;
                me.at = if self.has(Bug::EntryBeforeIndex) { At::FreeOld } else { At::Journal };
            }
            At::Journal => {
                let value = if me.deletes != 0 { DELETED } else { me.new };
                (state.journal.entry, state.journal.value) = (me.entry, value);
                state.journal.cell = Cell::Entry;
                me.at = At::Swing;
            }
            At::Swing => {
                let deletes = me.deletes != 0;
                state.page(state.root).entries[me.entry as usize] = if deletes { DELETED } else { me.new };
                state.commit(me.key, if deletes { 0 } else { me.value });
                let late = self.has(Bug::EntryBeforeIndex) && me.slot != 0;
                me.at = if late { At::WriteSlot } else { At::FreeOld };
            }
            At::FreeOld => {
                if me.old != 0 {
                    self.free_node(state, me.old)?;
                    state.journal.old = 0;
                }
                me.at = At::ClearJournal;
            }
            At::ClearJournal => {
                state.journal = NO_JOURNAL;
                me.at = if me.slot != 0 { At::CountUsed } else { At::Follow };
            }
            At::CountUsed => {
                state.used = me.entry + 1;
                me.at = At::GoOn;
            }
            At::Follow => {
                if state.next != 0 && me.entry < state.copied && !self.has(Bug::NotFollowed) {
                    let new = if me.deletes != 0 { DELETED } else { me.new };
                    let old = me.old;
                    let entries = &mut state.page(state.next).entries;
                    entries.iter_mut().filter(|entry| **entry == old).for_each(|entry| *entry = new);
                }
                me.at = At::GoOn;
            }
            At::GoOn => {
                me.at = match (state.next != 0, state.used as usize == ENTRIES) {
                    (true, _) => At::Copy,
                    (false, true) => At::TakeTable,
                    _ => At::Unlock,
                };
            }
            At::TakeTable => {
                let table = state.tables.iter().position(|table| table.used == 0);
                let page = state.pages.iter().position(|page| page.used == 0);
                let (Some(table), Some(page)) = (table, page) else { return Err("there is no table") };
                (state.copied, state.next_used) = (0, 0);
                state.pages[page] = Page { used: 1, index: [0; SLOTS], entries: [0; ENTRIES] };
                (state.tables[table].used, state.tables[table].page) = (1, page as u8 + 1);
                state.journal.tables = 1;
                state.journal.new = table as u8 + 1;
                state.journal.value = state.journal.new;
                state.journal.cell = Cell::Next;
                me.at = At::SwingNext;
            }
            At::SwingNext => {
                state.next = state.journal.value;
                me.at = At::ForgetTable;
            }
            At::ForgetTable => {
                state.journal = NO_JOURNAL;
                me.at = if me.makes_room != 0 { At::Copy } else { At::Unlock };
            }
            At::Copy => {
                if state.copied < state.used {
                    let copied = state.copied as usize;
                    let entry = state.page(state.root).entries[copied];
                    if entry != DELETED {
                        self.copy(state, entry)?;
                    }
                    state.copied += 1;
                }
                me.at = match (state.copied >= state.used, me.makes_room != 0) {
                    (true, _) => At::JournalRoot,
                    (false, true) => At::Copy,
                    _ => At::Unlock,
                };
            }
            At::JournalRoot => {
                me.old = state.root;
                state.journal.tables = 1;
                state.journal.old = me.old;
                state.journal.value = state.next;
                state.journal.cell = Cell::Root;
                me.at = if self.has(Bug::TableFreedFirst) { At::FreeEarly } else { At::SwingRoot };
            }
            At::FreeEarly => {
                self.free_page(state, me.old);
                me.at = At::SwingRoot;
            }
            At::SwingRoot => {
                state.root = state.next;
                me.at = if self.has(Bug::JournalClearedFirst) { At::ClearRoot } else { At::FreePage };
            }
            At::FreePage => {
                self.free_page(state, me.old);
                me.at = At::FreeTable;
            }
            At::FreeTable => {
                self.free_table(state, me.old)?;
                me.at = if self.has(Bug::JournalClearedFirst) { At::ForgetNext } else { At::ClearRoot };
            }
            At::ClearRoot => {
                state.journal = NO_JOURNAL;
                me.at = if self.has(Bug::JournalClearedFirst) { At::FreePage } else { At::ForgetNext };
            }
            At::ForgetNext => {
                (state.used, state.next, state.copied, state.next_used) = (state.next_used, 0, 0, 0);
                me.at = if me.makes_room != 0 { At::Find } else { At::Unlock };
                me.makes_room = 0;
            }
            At::Unlock => {
                state.lock = 0;
                *me = IDLE;
                process.rounds += 1;
            }
            At::Repair => {
                let journal = state.journal;
                let cell = match journal.cell {
                    Cell::None => 0,
                    Cell::Entry => state.page(state.root).entries[journal.entry as usize],
                    Cell::Root => state.root,
                    Cell::Next => state.next,
                };
                let committed = journal.cell != Cell::None && cell == journal.value;
                me.old = if committed || self.has(Bug::RepairRollsForward) { journal.old } else { 0 };
                me.at = match (committed || self.has(Bug::RepairRollsForward), journal.tables != 0) {
                    (true, true) => At::RepairPage,
                    (true, false) => At::RepairOld,
                    (false, _) => At::RepairUndo,
                };
            }
            At::RepairUndo => {
                if state.journal.undo != 0 && !self.has(Bug::RepairForgetsUndo) {
                    let undo = state.journal.undo as usize - 1;
                    state.page(state.root).index[undo] = 0;
                }
                me.at = At::RepairNew;
            }
            At::RepairNew => {
                let new = state.journal.new;
                if new != 0 && !self.has(Bug::RepairForgetsNew) {
                    if state.journal.tables != 0 {
                        self.free_page(state, new);
                        self.free_table(state, new)?;
                    } else if state.nodes[new as usize - 1].used != 0 {
                        self.free_node(state, new)?;
                    }
                }
                me.at = At::RepairClear;
            }
            At::RepairOld => {
                if me.old != 0 && state.nodes[me.old as usize - 1].used != 0 {
                    self.free_node(state, me.old)?;
                }
                me.at = At::RepairClear;
            }
            At::RepairPage => {
                if me.old != 0 {
                    self.free_page(state, me.old);
                }
                me.at = At::RepairTable;
            }
            At::RepairTable => {
                if me.old != 0 && state.tables[me.old as usize - 1].used != 0 {
                    self.free_table(state, me.old)?;
                }
                me.at = At::RepairClear;
            }
            At::RepairClear => {
                state.journal = NO_JOURNAL;
                me.at = At::RepairNext;
            }
            At::RepairNext => {
                me.old = 0;
                me.at = At::RepairUsed;
                if state.next == state.root {
                    state.next = 0;
                } else if state.next != 0 && !self.has(Bug::RepairKeepsNext) {
                    me.old = state.next;
                    state.journal.tables = 1;
                    state.journal.old = state.next;
                    state.journal.value = 0;
                    state.journal.cell = Cell::Next;
                    me.at = At::RepairSwing;
                }
            }
            At::RepairSwing => {
                state.next = 0;
                me.at = At::RepairPage;
            }
            At::RepairUsed => {
                if state.next == 0 {
                    (state.copied, state.next_used) = (0, 0);
                }
                state.used = state.page(state.root).entries.iter().filter(|&&entry| entry != 0).count() as u8;
                me.old = 0;
                me.at = At::Find;
            }
        }
        state.processes[who] = process;
        Ok(true)
    }

    /// Where the key is, or would be; what has to be done first.
    fn find(&self, state: &mut State, me: &mut Private) -> Result<(), Broken> {
        let page = *state.page(state.root);
        (me.old, me.slot) = (0, 0);
        for slot in 0..SLOTS {
            // Key 0 hashes to slot 0, key 1 to slot 1.
            let at = (slot + me.key as usize) % SLOTS;
            let Some(entry) = page.index[at].checked_sub(1) else {
                me.slot = at as u8 + 1;
                break;
            };
            let named = page.entries[entry as usize];
            if named != 0 && named != DELETED && state.nodes[named as usize - 1].key == me.key {
                (me.entry, me.old) = (entry, named);
                break;
            }
        }
        me.at = match (me.old != 0, me.deletes != 0) {
            (true, true) => At::NoteOld,
            (true, false) if self.has(Bug::ReplacedInTwo) => At::DeleteFirst,
            (true, false) if self.one_word => At::InPlace,
            (true, false) => At::TakeNode,
            (false, true) => At::GoOn,
            (false, false) if state.used as usize == ENTRIES => {
                me.makes_room = 1;
                if state.next != 0 { At::Copy } else { At::TakeTable }
            }
            (false, false) if me.slot == 0 => return Err("the index has no empty slot"),
            (false, false) => {
                me.entry = state.used;
                At::TakeNode
            }
        };
        Ok(())
    }

    /// An entry for the next table, which nobody reads yet.
    fn copy(&self, state: &mut State, node: u8) -> Result<(), Broken> {
        let key = state.nodes[node as usize - 1].key as usize;
        let number = state.next_used;
        let page = state.page(state.next);
        let slot = (0..SLOTS).map(|slot| (slot + key) % SLOTS).find(|&slot| page.index[slot] == 0);
        let (Some(slot), true) = (slot, (number as usize) < ENTRIES) else {
            return Err("the next table is full");
        };
        page.entries[number as usize] = node;
        page.index[slot] = number + 1;
        state.next_used += 1;
        Ok(())
    }

    fn free_node(&self, state: &mut State, number: u8) -> Result<(), Broken> {
        if state.is_named(number) {
            return Err("a reachable node is freed");
        }
        let node = &mut state.nodes[number as usize - 1];
        if node.used == 0 {
            return Err("a node is freed twice");
        }
        node.used = 0;
        node.generation += u8::from(!self.has(Bug::FreeKeepsGeneration));
        Ok(())
    }

    /// Whoever gets the page next writes what he likes.
    fn free_page(&self, state: &mut State, table: u8) {
        let page = state.tables[table as usize - 1].page;
        let shared = state
            .tables
            .iter()
            .zip(1..)
            .any(|(other, number)| number != table && other.used != 0 && other.page == page);
        if !shared {
            state.pages[page as usize - 1] = Page { used: 0, index: [0; SLOTS], entries: [0; ENTRIES] };
        }
    }

    fn free_table(&self, state: &mut State, number: u8) -> Result<(), Broken> {
        if state.root == number {
            return Err("the root's table is freed");
        }
        let table = &mut state.tables[number as usize - 1];
        (table.used, table.generation) = (0, table.generation + 1);
        Ok(())
    }

    /// One step of the reader, which looks up once.
    pub(super) fn read(&self, state: &mut State) -> Result<bool, Broken> {
        let mut reader = state.reader;
        let me = &mut reader;
        let table = |me: &Reader| state.tables[me.root as usize - 1];
        let page = |me: &Reader| &state.pages[table(me).page as usize - 1];
        let node = |me: &Reader| state.nodes[me.node as usize - 1];
        match me.at {
            ReaderAt::LoadRoot if me.done != 0 => return Ok(false),
            ReaderAt::LoadRoot => {
                me.current = 1 << state.current(0);
                me.root = state.root;
                me.at = ReaderAt::LoadGeneration;
            }
            ReaderAt::LoadGeneration => {
                me.generation = table(me).generation;
                me.at = ReaderAt::CheckRoot;
            }
            ReaderAt::CheckRoot if state.root != me.root => me.again(),
            ReaderAt::CheckRoot => me.at = ReaderAt::LoadSlot,
            ReaderAt::LoadSlot => {
                let slot = page(me).index.get(me.slot as usize).copied().unwrap_or(0);
                me.slot += 1;
                me.entry = slot;
                if slot != 0 {
                    me.at = ReaderAt::LoadEntry;
                } else {
                    (me.is_hit, me.node) = (0, 0);
                    me.at = ReaderAt::CheckRootAgain;
                    if self.has(Bug::MissNotChecked) {
                        self.accept(me)?;
                    }
                }
            }
            ReaderAt::LoadEntry => {
                me.node = page(me).entries[me.entry as usize - 1];
                me.at = if me.node == 0 || me.node == DELETED { ReaderAt::LoadSlot } else { ReaderAt::LoadNode };
            }
            ReaderAt::LoadNode => {
                me.node_generation = node(me).generation;
                me.at = if self.has(Bug::EntryNotChecked) { ReaderAt::CopyFirst } else { ReaderAt::CheckEntry };
            }
            ReaderAt::CheckEntry if page(me).entries[me.entry as usize - 1] != me.node => me.at = ReaderAt::LoadEntry,
            ReaderAt::CheckEntry => me.at = ReaderAt::CopyFirst,
            ReaderAt::CopyFirst => {
                me.is_hit = u8::from(node(me).key == 0);
                me.copy[0] = node(me).value[0];
                me.at = match me.is_hit {
                    0 if self.has(Bug::MismatchBelieved) => ReaderAt::LoadSlot,
                    0 => ReaderAt::CheckNode,
                    _ if self.one_word && !self.has(Bug::TwoWordsInPlace) => {
                        me.copy[1] = node(me).value[1];
                        ReaderAt::CheckNode
                    }
                    _ => ReaderAt::CopySecond,
                };
            }
            ReaderAt::CopySecond => {
                me.copy[1] = node(me).value[1];
                me.at = ReaderAt::CheckNode;
            }
            ReaderAt::CheckNode if node(me).generation != me.node_generation => me.again(),
            ReaderAt::CheckNode if me.is_hit == 0 => me.at = ReaderAt::LoadSlot,
            ReaderAt::CheckNode => me.at = ReaderAt::CheckRootAgain,
            ReaderAt::CheckRootAgain => {
                let skips = self.has(Bug::RootNotChecked) || self.has(Bug::TableNotChecked);
                me.at = ReaderAt::CheckTable;
                if state.root != me.root && !skips {
                    me.again();
                }
            }
            // After the root: a root that went and came back is another table by now.
            ReaderAt::CheckTable if table(me).generation != me.generation && !self.has(Bug::TableNotChecked) => {
                me.again()
            }
            ReaderAt::CheckTable => self.accept(me)?,
        }
        state.reader = reader;
        Ok(true)
    }

    fn accept(&self, me: &mut Reader) -> Result<(), Broken> {
        let value = if me.is_hit != 0 { me.copy[0] } else { 0 };
        if me.is_hit != 0 && me.copy[0] != me.copy[1] {
            return Err("a lookup gives a torn value");
        }
        if me.current >> value & 1 == 0 {
            return Err(match value {
                0 => "a lookup misses a key that was there all the time",
                _ => "a lookup gives a value that was not current",
            });
        }
        *me = Reader { done: 1, ..READER };
        Ok(())
    }
}
