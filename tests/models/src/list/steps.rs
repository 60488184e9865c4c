//! The steps of writers, of the repair and of the reader.

use zerocopy::{Immutable, IntoBytes};

use super::{
    Bug, CHUNKS, Cell, Change, Chunk, DIRECTORIES, Directory, INDEX, Kind, LINKS, List, NAMED, NO_JOURNAL, NODES,
    NOTHING, Named, SLOTS, State, WRITERS,
};
use crate::explorer::Broken;

/// In this order: what is outside the lock, and what is under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, IntoBytes, Immutable)]
#[repr(u8)]
enum At {
    Idle,
    Lock,
    Find,
    TakeNode,
    FillSecond,
    /// Of [`Bug::ShiftsInPlace`].
    Shift,
    TakeChunk,
    FillChunk,
    WriteFirst,
    TakeCopy,
    TakeSecondCopy,
    FillCopies,
    TakeDirectory,
    FillDirectory,
    NoteOld,
    Journal,
    /// Of [`Bug::ChunkFreedFirst`].
    FreeEarly,
    Swing,
    /// Of [`Bug::LinkedBeforeCleared`] and [`Bug::FirstAfterLink`].
    AfterLink,
    FreeOld,
    ClearJournal,
    Unlock,
    Repair,
    RepairFree,
    RepairClear,
}

/// The private words of a writer.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Private {
    at: At,
    change: Change,
    value: u8,
    node: u8,
    chunks: [u8; 2],
    directory: u8,
    old: [Named; NAMED],
    cell: Cell,
    chunk: u8,
    place: u8,
    index: u8,
    /// Comes from a repair: goes on with its own change.
    repairs: u8,
}

pub(super) const IDLE: Private = Private {
    at: At::Idle,
    change: Change::Append,
    value: 0,
    node: 0,
    chunks: [0; 2],
    directory: 0,
    old: [NOTHING; NAMED],
    cell: Cell::None,
    chunk: 0,
    place: 0,
    index: 0,
    repairs: 0,
};

impl Private {
    pub(super) fn is_idle(&self) -> bool {
        self.at == At::Idle
    }

    pub(super) fn is_inside(&self) -> bool {
        self.at > At::Lock
    }

    fn copies(&self) -> bool {
        matches!(self.change, Change::Insert | Change::Remove)
    }

    fn forget(&mut self, named: Named) {
        if let Some(free) = self.old.iter_mut().find(|old| **old == NOTHING) {
            *free = named;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum ReaderAt {
    LoadRoot,
    LoadGeneration,
    CheckRoot,
    Find,
    LoadLink,
    LoadChunk,
    CheckLink,
    LoadFirst,
    LoadSlot,
    LoadNode,
    CheckSlot,
    CopyFirst,
    CopySecond,
    CheckNode,
    CheckChunk,
    CheckRootAgain,
    CheckDirectory,
}

/// The private words of the reader.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Reader {
    at: ReaderAt,
    done: u8,
    root: u8,
    generation: u8,
    /// The chunk's place in the directory.
    place: u8,
    first: u8,
    chunk: u8,
    chunk_generation: u8,
    node: u8,
    node_generation: u8,
    copy: [u8; 2],
    /// One bit for each value that was there since the read began.
    current: u16,
}

pub(super) const READER: Reader = Reader {
    at: ReaderAt::LoadRoot,
    done: 0,
    root: 0,
    generation: 0,
    place: 0,
    first: 0,
    chunk: 0,
    chunk_generation: 0,
    node: 0,
    node_generation: 0,
    copy: [0; 2],
    current: 0,
};

impl Reader {
    pub(super) fn is_done(&self) -> bool {
        self.done != 0
    }

    pub(super) fn saw(&mut self, value: u8) {
        self.current |= 1 << value;
    }
}

impl List {
    /// An idle writer begins a change; the last process only repairs.
    pub(super) fn begin(&self, state: &mut State, who: usize, change: Change) -> bool {
        let lock_is_dead = state.lock != 0 && state.processes[state.lock as usize - 1].dead != 0;
        let me = &mut state.processes[who];
        if who >= WRITERS {
            me.private = Private { at: At::Lock, ..IDLE };
            return change == Change::Append && lock_is_dead;
        }
        if me.rounds >= self.rounds || self.changes[who] >> change as u8 & 1 == 0 {
            return false;
        }
        let value = 3 + who as u8 * self.rounds + me.rounds;
        me.private = Private { at: At::Lock, change, value, ..IDLE };
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
                if !self.has(Bug::RepairedWithoutLock) || who < WRITERS {
                    state.lock = id;
                }
                me.at = if self.has(Bug::TakerDoesNotRepair) { At::Find } else { At::Repair };
            }
            At::Lock => return Ok(false),
            At::Find if who >= WRITERS => me.at = At::Unlock,
            At::Find => self.find(state, me),
            At::TakeNode => {
                let free = state.nodes.iter().position(|node| node.used == 0);
                let Some(free) = free.filter(|&free| free < NODES) else { return Err("there is no node") };
                me.node = free as u8 + 1;
                self.note(state, 0, Kind::Node, me.node);
                let node = &mut state.nodes[free];
                (node.used, node.value[0]) = (1, me.value);
                me.at = At::FillSecond;
            }
            At::FillSecond => {
                state.nodes[me.node as usize - 1].value[1] = me.value;
                me.at = match (me.copies(), me.cell) {
                    (true, _) if self.has(Bug::ShiftsInPlace) && self.has_room(state) => At::Shift,
                    (true, _) => At::TakeCopy,
                    (false, Cell::Link) => At::TakeChunk,
                    _ => At::NoteOld,
                };
            }
            At::Shift => {
                let chunk = state.directory().chunks[0] as usize - 1;
                state.chunks[chunk].slots[1] = state.chunks[chunk].slots[0];
                return Err("the content differs from what was committed");
            }
            At::TakeChunk => {
                me.chunks[0] = self.take_chunk(state, 1)?;
                me.at = if self.has(Bug::LinkedBeforeCleared) { At::NoteOld } else { At::FillChunk };
            }
            At::FillChunk => {
                state.chunks[me.chunks[0] as usize - 1].slots = [me.node, 0];
                me.at = if self.has(Bug::FirstAfterLink) { At::NoteOld } else { At::WriteFirst };
            }
            At::WriteFirst => {
                let first = state.committed_len;
                state.directories[state.root as usize - 1].firsts[me.place as usize] = first;
                me.at = At::NoteOld;
            }
            At::TakeCopy => {
                let (count, _) = self.first_chunk(state, me);
                if count > 0 {
                    me.chunks[0] = self.take_chunk(state, 1)?;
                }
                me.at = if count > SLOTS { At::TakeSecondCopy } else { At::FillCopies };
            }
            At::TakeSecondCopy => {
                me.chunks[1] = self.take_chunk(state, 2)?;
                me.at = At::FillCopies;
            }
            At::FillCopies => {
                let (count, nodes) = self.first_chunk(state, me);
                for (number, &chunk) in me.chunks.iter().enumerate().filter(|(_, chunk)| **chunk != 0) {
                    let rest = &nodes[(number * SLOTS).min(count)..count];
                    let slots = &mut state.chunks[chunk as usize - 1].slots;
                    *slots = [0; SLOTS];
                    rest.iter().zip(slots).for_each(|(node, slot)| *slot = *node);
                }
                me.at = At::TakeDirectory;
            }
            At::TakeDirectory => {
                let free = state.directories.iter().position(|directory| directory.used == 0);
                let Some(free) = free.filter(|&free| free < DIRECTORIES) else { return Err("there is no directory") };
                me.directory = free as u8 + 1;
                self.note(state, 3, Kind::Directory, me.directory);
                state.directories[free].used = 1;
                me.at = At::FillDirectory;
            }
            At::FillDirectory => {
                self.fill_directory(state, me);
                me.at = At::NoteOld;
            }
            At::NoteOld => {
                if !self.has(Bug::OldNotNoted) {
                    state.journal.old = me.old;
                }
                me.at = At::Journal;
            }
            At::Journal => {
                let value = match me.cell {
                    Cell::Link if me.change == Change::Tidy => 0,
                    Cell::Root => me.directory,
                    Cell::Link => me.chunks[0],
                    _ => me.node,
                };
                state.journal =
                    super::Journal { cell: me.cell, chunk: me.chunk, place: me.place, value, ..state.journal };
                me.at = if self.has(Bug::ChunkFreedFirst) && me.copies() { At::FreeEarly } else { At::Swing };
            }
            At::FreeEarly => {
                let chunk = me.old.iter().find(|old| old.kind == Kind::Chunk).copied().unwrap_or(NOTHING);
                self.free(state, chunk)?;
                me.at = At::Swing;
            }
            At::Swing => {
                let value = state.journal.value;
                let place = me.place as usize;
                match me.cell {
                    Cell::Root => state.root = value,
                    Cell::Link => state.directories[state.root as usize - 1].chunks[place] = value,
                    _ => state.chunks[me.chunk as usize - 1].slots[place] = value,
                }
                state.commit(me.change, me.value);
                let late = self.has(Bug::LinkedBeforeCleared) || self.has(Bug::FirstAfterLink);
                me.at = match (me.cell, late, self.has(Bug::JournalClearedFirst)) {
                    (Cell::Link, true, _) => At::AfterLink,
                    (_, _, true) => At::ClearJournal,
                    _ => At::FreeOld,
                };
            }
            At::AfterLink => {
                state.chunks[me.chunks[0] as usize - 1].slots = [me.node, 0];
                let first = state.committed_len - 1;
                state.directories[state.root as usize - 1].firsts[me.place as usize] = first;
                me.at = At::FreeOld;
            }
            At::FreeOld => {
                // The directory first, then what it mapped.
                match me.old.get(me.index as usize) {
                    Some(&named) if named != NOTHING => {
                        self.free(state, named)?;
                        state.journal.old[me.index as usize] = NOTHING;
                        me.index += 1;
                    }
                    _ => {
                        me.index = 0;
                        me.at = if self.has(Bug::JournalClearedFirst) { At::Unlock } else { At::ClearJournal };
                    }
                }
            }
            At::ClearJournal => {
                state.journal = NO_JOURNAL;
                me.at = if self.has(Bug::JournalClearedFirst) { At::FreeOld } else { At::Unlock };
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
                    Cell::Slot => state.chunks[journal.chunk as usize - 1].slots[journal.place as usize],
                    Cell::Link => state.directory().chunks[journal.place as usize],
                    Cell::Root => state.root,
                };
                let committed = journal.cell != Cell::None && cell == journal.value;
                me.old = if committed { journal.old } else { journal.new };
                me.index = 0;
                me.at = At::RepairFree;
            }
            At::RepairFree => match me.old.get(me.index as usize) {
                Some(&named) => {
                    if named != NOTHING && *state.used(named).0 != 0 {
                        self.free(state, named)?;
                    }
                    me.index += 1;
                }
                None => me.at = At::RepairClear,
            },
            At::RepairClear => {
                state.journal = NO_JOURNAL;
                (me.old, me.index) = ([NOTHING; NAMED], 0);
                me.at = At::Find;
            }
        }
        state.processes[who] = process;
        Ok(true)
    }

    fn note(&self, state: &mut State, place: usize, kind: Kind, number: u8) {
        if !self.has(Bug::OnlyDirectoryNoted) || kind != Kind::Chunk {
            state.journal.new[place] = Named { kind, number };
        }
    }

    fn has_room(&self, state: &State) -> bool {
        state.chunks[state.directory().chunks[0] as usize - 1].slots[SLOTS - 1] == 0
    }

    /// What the change concerns, and where its commit will be.
    fn find(&self, state: &State, me: &mut Private) {
        let length = state.committed_len;
        let directory = state.directory();
        me.at = At::TakeNode;
        match me.change {
            Change::Append => {
                let Some(mut place) = state.map(length) else { return };
                let mut slot = (length - directory.firsts[place]) as usize;
                if self.has(Bug::AppendIgnoresDirectory) {
                    let filled = |place: &usize| {
                        let chunk = directory.chunks[*place];
                        chunk != 0 && state.chunks[chunk as usize - 1].slots[0] != 0
                    };
                    if let Some(last) = (0..LINKS).rfind(filled) {
                        place = last;
                        let slots = state.chunks[directory.chunks[place] as usize - 1].slots;
                        slot = slots.iter().take_while(|&&node| node != 0).count();
                    }
                }
                if slot < SLOTS {
                    (me.cell, me.chunk, me.place) = (Cell::Slot, directory.chunks[place], slot as u8);
                } else if let Some(free) = directory.chunks.iter().position(|&chunk| chunk == 0) {
                    (me.cell, me.place) = (Cell::Link, free as u8);
                } else {
                    me.at = At::Unlock;
                }
            }
            Change::Tidy => {
                let last = directory.chunks.iter().rposition(|&chunk| chunk != 0);
                let Some(place) = last.filter(|&place| place > 0 && directory.firsts[place] >= length) else {
                    me.at = At::Unlock;
                    return;
                };
                (me.cell, me.place) = (Cell::Link, place as u8);
                me.forget(Named { kind: Kind::Chunk, number: directory.chunks[place] });
                me.at = At::NoteOld;
            }
            Change::Set | Change::Pop if length == 0 => me.at = At::Unlock,
            Change::Set | Change::Pop => {
                let index = if me.change == Change::Set { 0 } else { length - 1 };
                let Some(place) = state.map(index) else { return };
                let slot = index - directory.firsts[place];
                (me.cell, me.chunk, me.place) = (Cell::Slot, directory.chunks[place], slot);
                me.forget(Named { kind: Kind::Node, number: state.at(index) });
                me.at = if me.change == Change::Set { At::TakeNode } else { At::NoteOld };
            }
            Change::Insert | Change::Remove => {
                let full = !self.has_room(state) && directory.chunks[LINKS - 1] != 0;
                // Where the directory is full, and where nothing is left, the real code has other ways.
                if me.change == Change::Insert && full || length == 0 || state.at(0) == 0 {
                    me.at = At::Unlock;
                    return;
                }
                if me.change == Change::Remove && length == 1 {
                    // The only element: as pop.
                    me.change = Change::Pop;
                    return self.find(state, me);
                }
                me.cell = Cell::Root;
                me.forget(Named { kind: Kind::Directory, number: state.root });
                me.forget(Named { kind: Kind::Chunk, number: directory.chunks[0] });
                if me.change == Change::Remove {
                    me.forget(Named { kind: Kind::Node, number: state.at(0) });
                    me.at = At::TakeCopy;
                }
            }
        }
    }

    /// The nodes of the first chunk as the change leaves them.
    fn first_chunk(&self, state: &State, me: &Private) -> (usize, [u8; SLOTS + 1]) {
        let slots = state.chunks[state.directory().chunks[0] as usize - 1].slots;
        let old = slots.iter().copied().filter(|&node| node != 0);
        let mut nodes = [0; SLOTS + 1];
        let mut count = 0;
        let inserted = (me.change == Change::Insert).then_some(me.node);
        for node in inserted.into_iter().chain(old.skip(usize::from(me.change == Change::Remove))) {
            nodes[count] = node;
            count += 1;
        }
        (count, nodes)
    }

    fn take_chunk(&self, state: &mut State, place: usize) -> Result<u8, Broken> {
        let free = state.chunks.iter().position(|chunk| chunk.used == 0);
        let Some(free) = free.filter(|&free| free < CHUNKS) else { return Err("there is no chunk") };
        self.note(state, place, Kind::Chunk, free as u8 + 1);
        state.chunks[free].used = 1;
        Ok(free as u8 + 1)
    }

    /// The copies, and then the chunks behind the first one, each with its elements; empty ones at the end stay out.
    fn fill_directory(&self, state: &mut State, me: &Private) {
        let old = *state.directory();
        let mut chunks = [0; LINKS];
        let mut firsts = [0; LINKS];
        let behind = old.chunks[1..].iter().copied().take_while(|&chunk| chunk != 0);
        let copies = me.chunks.into_iter().filter(|&chunk| chunk != 0);
        let mut first = 0;
        for (place, chunk) in copies.chain(behind).enumerate().take(LINKS) {
            (chunks[place], firsts[place]) = (chunk, first);
            let slots: [u8; SLOTS] = state.chunks[chunk as usize - 1].slots;
            let count = slots.iter().filter(|&&node| node != 0).count() as u8;
            // An empty chunk begins where the last element ends.
            first += if count == 0 { SLOTS as u8 } else { count };
        }
        let directory: &mut Directory = &mut state.directories[me.directory as usize - 1];
        (directory.chunks, directory.firsts) = (chunks, firsts);
    }

    fn free(&self, state: &mut State, named: Named) -> Result<(), Broken> {
        if state.is_reachable(named) {
            return Err("a reachable block is freed");
        }
        let bumps = u8::from(!(self.has(Bug::FreeKeepsGeneration) && named.kind == Kind::Node));
        let (used, generation) = state.used(named);
        if *used == 0 {
            return Err("a block is freed twice");
        }
        (*used, *generation) = (0, *generation + bumps);
        // Whoever gets a chunk next writes what he likes.
        if named.kind == Kind::Chunk {
            let chunk: &mut Chunk = &mut state.chunks[named.number as usize - 1];
            chunk.slots = [1; SLOTS];
        }
        Ok(())
    }

    /// One step of the reader, which reads once.
    pub(super) fn read(&self, state: &mut State) -> Result<bool, Broken> {
        let mut reader = state.reader;
        let me = &mut reader;
        let directory = |me: &Reader| state.directories[me.root as usize - 1];
        let chunk = |me: &Reader| state.chunks[me.chunk as usize - 1];
        let node = |me: &Reader| state.nodes[me.node as usize - 1];
        let slot = |me: &Reader| {
            let slots = chunk(me).slots;
            slots.get((INDEX - me.first) as usize).copied().unwrap_or(0)
        };
        match me.at {
            ReaderAt::LoadRoot if me.done != 0 => return Ok(false),
            ReaderAt::LoadRoot => {
                me.current = 1 << state.current();
                me.root = state.root;
                me.at = ReaderAt::LoadGeneration;
            }
            ReaderAt::LoadGeneration => {
                me.generation = directory(me).generation;
                me.at = ReaderAt::CheckRoot;
            }
            ReaderAt::CheckRoot if state.root != me.root => *me = READER,
            ReaderAt::CheckRoot => me.at = ReaderAt::Find,
            ReaderAt::Find => {
                let Directory { chunks, firsts, .. } = directory(me);
                let places = (0..LINKS).take_while(|&place| chunks[place] != 0);
                match places.filter(|&place| firsts[place] <= INDEX).last() {
                    Some(place) => {
                        me.place = place as u8;
                        me.at = if self.has(Bug::FirstBeforeLink) { ReaderAt::LoadFirst } else { ReaderAt::LoadLink };
                    }
                    None => me.at = ReaderAt::CheckRootAgain,
                }
            }
            ReaderAt::LoadLink => {
                me.chunk = directory(me).chunks[me.place as usize];
                me.at = if me.chunk == 0 { ReaderAt::CheckRootAgain } else { ReaderAt::LoadChunk };
            }
            ReaderAt::LoadChunk => {
                me.chunk_generation = chunk(me).generation;
                me.at = ReaderAt::CheckLink;
            }
            ReaderAt::CheckLink if directory(me).chunks[me.place as usize] != me.chunk => *me = READER,
            ReaderAt::CheckLink if self.has(Bug::FirstBeforeLink) => me.at = ReaderAt::LoadSlot,
            ReaderAt::CheckLink => me.at = ReaderAt::LoadFirst,
            ReaderAt::LoadFirst => {
                me.first = directory(me).firsts[me.place as usize];
                me.at = if self.has(Bug::FirstBeforeLink) { ReaderAt::LoadLink } else { ReaderAt::LoadSlot };
                if me.first > INDEX {
                    *me = READER;
                }
            }
            ReaderAt::LoadSlot => {
                me.node = slot(me);
                me.at = if me.node == 0 { ReaderAt::CheckChunk } else { ReaderAt::LoadNode };
            }
            ReaderAt::LoadNode => {
                me.node_generation = node(me).generation;
                me.at = if self.has(Bug::SlotNotChecked) { ReaderAt::CopyFirst } else { ReaderAt::CheckSlot };
            }
            ReaderAt::CheckSlot if slot(me) != me.node => *me = READER,
            ReaderAt::CheckSlot => me.at = ReaderAt::CopyFirst,
            ReaderAt::CopyFirst => {
                me.copy[0] = node(me).value[0];
                me.at = ReaderAt::CopySecond;
            }
            ReaderAt::CopySecond => {
                me.copy[1] = node(me).value[1];
                me.at = ReaderAt::CheckNode;
            }
            ReaderAt::CheckNode if node(me).generation != me.node_generation => *me = READER,
            ReaderAt::CheckNode => me.at = ReaderAt::CheckChunk,
            ReaderAt::CheckChunk => {
                let same = chunk(me).generation == me.chunk_generation || self.has(Bug::ChunkNotChecked);
                me.at = ReaderAt::CheckRootAgain;
                if !same {
                    *me = READER;
                }
            }
            ReaderAt::CheckRootAgain => {
                let skips = self.has(Bug::RootNotChecked) || self.has(Bug::ChunkNotChecked);
                me.at = ReaderAt::CheckDirectory;
                if state.root != me.root && !skips {
                    *me = READER;
                }
            }
            // After the root: a root that went and came back is another directory by now.
            ReaderAt::CheckDirectory => {
                let skips = [Bug::RootNotChecked, Bug::ChunkNotChecked, Bug::DirectoryNotChecked];
                let skips = skips.into_iter().any(|bug| self.has(bug));
                if directory(me).generation != me.generation && !skips {
                    *me = READER;
                } else {
                    let value = if me.node == 0 { 0 } else { me.copy[0] };
                    if me.node != 0 && me.copy[0] != me.copy[1] {
                        return Err("a reader gets a torn value");
                    }
                    if me.current >> value & 1 == 0 {
                        return Err(match value {
                            0 => "a reader is told that an index is out of range that was there all the time",
                            _ => "a reader gets a value that was not at that index",
                        });
                    }
                    *me = Reader { done: 1, ..READER };
                }
            }
        }
        state.reader = reader;
        Ok(true)
    }
}
