//! A list: a directory of chunks of slots, in the blocks of an arena.
//!
//! ```text
//! root        the directory {generation; for each chunk: first index and the chunk, 0 = none}
//! chunk       {generation; slots, each a node or 0}              node {generation, value of two words}, never changed
//! ```
//!
//! # Steps
//!
//! ```text
//! append      slot = node (the commit)               the chunk is full: a new chunk with the node; its first index; its link (the commit)
//! set, pop    journal.old; slot = the new node, or 0 (the commit); free the old one
//! insert      before the first: a copy of the chunk, or two; a copy of the directory; journal.old; root = it (the commit)
//! remove      the first: likewise; the node is freed, too
//! tidy        the last chunk is empty and not the first: journal.old; its link = 0 (the commit); free it: a later append puts
//!             another one there, which begins at another index
//! get         r = root; its generation; root is r still?  the place of the last chunk that does not start after the index;
//!             its link; the chunk's generation; the link is the same still?  only now its first index;
//!             slot; the node's generation; slot is the same still?  copy;
//!             at the end: node and chunk have their generations, the root is r, and then the directory has its generation
//! ```
//!
//! The arena's own steps are modelled in [`crate::arena`]: here taking a block, and freeing one, is one step. So is
//! finding a place in the directory. The list tidies before insertions and removals, and after what it pops; here that
//! is a change of its own.
//!
//! # Crash behaviour
//!
//! ```text
//! repair   committed (the journal's cell reads its value): free the old blocks it names;  else free the new ones
//! ```
//!
//! | killed | what others see | who repairs | what is lost |
//! |---|---|---|---|
//! | before the commit | the list as it was | the next owner | its change |
//! | after the commit | the change | the next owner | nothing |
//!
//! # What is checked
//!
//! The slots that the directory maps hold what was committed, no more and no less; nothing reachable is freed; a reader
//! gets a value that was at its index during the read, whole, and "out of range" only if there was none at some moment
//! of it; at rest nothing leaks.
//!
//! # Size
//!
//! Two writers, one reader of index 1, one more process that only repairs; chunks of two slots, directories of three
//! chunks; at first two elements in one chunk. 673 409 states with one change each and one kill.
//!
//! # Where the seeded bugs come from
//!
//! The bugs of the C++ model that this was ported from, and what they are here:
//!
//! ```text
//! 1 OnlyDirectoryNoted     2 ChunkFreedFirst          3 OldNotNoted           4 SlotNotChecked          5 RootNotChecked
//! 6 DirectoryNotChecked    7 ShiftsInPlace            8 JournalClearedFirst   9 AppendIgnoresDirectory
//! 10 TakerDoesNotRepair    11 FreeKeepsGeneration     12 RepairedWithoutLock  13 LinkedBeforeCleared
//! ```
//!
//! There 12 is a sweep that does not wait for the lock. Here nothing is swept: recovery takes the lock and repairs.
//! ChunkNotChecked, FirstAfterLink and FirstBeforeLink are of this model only.

mod steps;

use zerocopy::{Immutable, IntoBytes};

use crate::explorer::{Broken, Model, Successors};
use steps::{IDLE, Private, READER, Reader};

const WRITERS: usize = 2;
const PROCESSES: usize = WRITERS + 1;
const NODES: usize = 6;
const CHUNKS: usize = 5;
const DIRECTORIES: usize = 3;
/// Slots of a chunk.
const SLOTS: usize = 2;
/// Chunks of a directory.
const LINKS: usize = 3;
/// Elements the list can have in a run.
const MOST: usize = 8;
/// The index that is read.
const INDEX: u8 = 1;
/// Blocks a change can name in the journal.
const NAMED: usize = 4;

/// What a writer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
pub enum Change {
    /// Append a value.
    Append,
    /// Replace the first one.
    Set,
    /// Take the last one away.
    Pop,
    /// Insert before the first one.
    Insert,
    /// Remove the first one.
    Remove,
    /// Unlink the last chunk, which is empty, in place.
    Tidy,
}

const CHANGES: [Change; 6] = [Change::Append, Change::Set, Change::Pop, Change::Insert, Change::Remove, Change::Tidy];

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The journal names the new directory only.
    OnlyDirectoryNoted,
    /// The old chunk is freed before the root changes.
    ChunkFreedFirst,
    /// The journal does not name the old blocks.
    OldNotNoted,
    /// A reader does not look at the slot again, and slots have no generation.
    SlotNotChecked,
    /// A reader does not look at root and directory again.
    RootNotChecked,
    /// A reader looks at the root again, but not at the directory.
    DirectoryNotChecked,
    /// A reader does not look at the chunk again.
    ChunkNotChecked,
    /// A reader loads a chunk's first index before its link: it may be that of the chunk that was there before.
    FirstBeforeLink,
    /// An insertion shifts the slots of a chunk in place.
    ShiftsInPlace,
    /// The journal is cleared before the old blocks are freed.
    JournalClearedFirst,
    /// An append goes to the last chunk with an element, whatever the directory says.
    AppendIgnoresDirectory,
    /// Whoever takes the lock of a dead owner does not repair.
    TakerDoesNotRepair,
    /// Recovery repairs what a dead owner left without taking its lock.
    RepairedWithoutLock,
    /// A freed node keeps its generation.
    FreeKeepsGeneration,
    /// A new chunk is linked before it is cleared.
    LinkedBeforeCleared,
    /// The first index of a new chunk is written after its link.
    FirstAfterLink,
}

/// The model and its size.
#[derive(Clone, Copy, Debug)]
pub struct List {
    /// Changes of each writer.
    pub rounds: u8,
    /// Kills in one history.
    pub kills: u8,
    /// One bit for each kind of change a writer may do.
    pub changes: [u8; WRITERS],
    /// Whether the two elements are in a chunk each at first.
    pub apart: bool,
    /// The seeded bug.
    pub bug: Option<Bug>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Node {
    used: u8,
    generation: u8,
    value: [u8; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Chunk {
    used: u8,
    generation: u8,
    slots: [u8; SLOTS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Directory {
    used: u8,
    generation: u8,
    firsts: [u8; LINKS],
    chunks: [u8; LINKS],
}

/// A block that the journal names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Named {
    kind: Kind,
    number: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum Kind {
    Node,
    Chunk,
    Directory,
}

const NOTHING: Named = Named { kind: Kind::Node, number: 0 };

/// Which word is a change's commit point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum Cell {
    None,
    Slot,
    Link,
    Root,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Journal {
    cell: Cell,
    /// The chunk and its slot, or the place in the directory.
    chunk: u8,
    place: u8,
    value: u8,
    new: [Named; NAMED],
    old: [Named; NAMED],
}

const NO_JOURNAL: Journal =
    Journal { cell: Cell::None, chunk: 0, place: 0, value: 0, new: [NOTHING; NAMED], old: [NOTHING; NAMED] };

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Process {
    dead: u8,
    rounds: u8,
    private: Private,
}

/// All words and processes; numbers of blocks and processes in words begin at 1.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    nodes: [Node; NODES],
    chunks: [Chunk; CHUNKS],
    directories: [Directory; DIRECTORIES],
    root: u8,
    lock: u8,
    journal: Journal,
    kills: u8,
    committed: [u8; MOST],
    committed_len: u8,
    processes: [Process; PROCESSES],
    reader: Reader,
}

impl State {
    fn directory(&self) -> &Directory {
        &self.directories[self.root as usize - 1]
    }

    /// The chunk that the directory maps an index to, by its place there.
    fn map(&self, index: u8) -> Option<usize> {
        let Directory { firsts, chunks, .. } = self.directory();
        (0..LINKS).take_while(|&place| chunks[place] != 0).filter(|&place| firsts[place] <= index).last()
    }

    /// The node at an index, or 0.
    fn at(&self, index: u8) -> u8 {
        let Some(place) = self.map(index) else { return 0 };
        let Directory { firsts, chunks, .. } = self.directory();
        let slots = &self.chunks[chunks[place] as usize - 1].slots;
        slots.get((index - firsts[place]) as usize).copied().unwrap_or(0)
    }

    fn is_reachable(&self, named: Named) -> bool {
        let chunks = &self.directory().chunks;
        match named.kind {
            Kind::Directory => self.root == named.number,
            Kind::Chunk => chunks.contains(&named.number),
            Kind::Node => chunks
                .iter()
                .filter_map(|&chunk| self.chunks.get((chunk as usize).wrapping_sub(1)))
                .any(|chunk| chunk.slots.contains(&named.number)),
        }
    }

    fn used(&mut self, named: Named) -> (&mut u8, &mut u8) {
        let index = named.number as usize - 1;
        match named.kind {
            Kind::Node => (&mut self.nodes[index].used, &mut self.nodes[index].generation),
            Kind::Chunk => (&mut self.chunks[index].used, &mut self.chunks[index].generation),
            Kind::Directory => (&mut self.directories[index].used, &mut self.directories[index].generation),
        }
    }

    fn current(&self) -> u8 {
        if INDEX < self.committed_len { self.committed[INDEX as usize] } else { 0 }
    }

    /// Notes what a commit has done.
    fn commit(&mut self, change: Change, value: u8) {
        let len = self.committed_len as usize;
        match change {
            Change::Append => {
                self.committed[len] = value;
                self.committed_len += 1;
            }
            Change::Set => self.committed[0] = value,
            Change::Pop => {
                self.committed[len - 1] = 0;
                self.committed_len -= 1;
            }
            Change::Insert => {
                self.committed.copy_within(..len, 1);
                self.committed[0] = value;
                self.committed_len += 1;
            }
            Change::Remove => {
                self.committed.copy_within(1.., 0);
                self.committed_len -= 1;
                self.committed[len - 1] = 0;
            }
            Change::Tidy => {}
        }
        let current = self.current();
        self.reader.saw(current);
    }
}

impl List {
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

impl Model for List {
    type State = State;

    fn initial(&self) -> Vec<State> {
        // Memory that was something else before: full of garbage.
        let mut state = State {
            nodes: [Node { used: 0, generation: 0, value: [0; 2] }; NODES],
            chunks: [Chunk { used: 0, generation: 0, slots: [1; SLOTS] }; CHUNKS],
            directories: [Directory { used: 0, generation: 0, firsts: [0; LINKS], chunks: [1; LINKS] }; DIRECTORIES],
            root: 1,
            lock: 0,
            journal: NO_JOURNAL,
            kills: 0,
            committed: [0; MOST],
            committed_len: 0,
            processes: [Process { dead: 0, rounds: 0, private: IDLE }; PROCESSES],
            reader: READER,
        };
        for number in 1..=2 {
            state.nodes[number as usize - 1] = Node { used: 1, generation: 0, value: [number; 2] };
            state.commit(Change::Append, number);
        }
        state.chunks[0] = Chunk { used: 1, generation: 0, slots: [1, 2] };
        state.directories[0] = Directory { used: 1, generation: 0, firsts: [0; LINKS], chunks: [1, 0, 0] };
        if self.apart {
            state.chunks[0].slots = [1, 0];
            state.chunks[1] = Chunk { used: 1, generation: 0, slots: [2, 0] };
            state.directories[0] = Directory { used: 1, generation: 0, firsts: [0, 1, 0], chunks: [1, 2, 0] };
        }
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
            for change in CHANGES {
                next.step(who, state, |state| Ok(self.begin(state, who, change)));
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
        let directory = state.directory();
        if directory.used == 0 {
            return Err("the directory is free");
        }
        let chunks = directory.chunks.iter().take_while(|&&chunk| chunk != 0);
        if chunks.clone().any(|&chunk| state.chunks[chunk as usize - 1].used == 0) {
            return Err("a reachable chunk is free");
        }
        if directory.chunks.iter().filter(|&&chunk| chunk != 0).count() != chunks.count() {
            return Err("the directory has a hole");
        }
        for index in 0..state.committed_len {
            let Some(node) = (state.at(index) as usize).checked_sub(1).map(|node| state.nodes[node]) else {
                return Err("a committed element is lost");
            };
            if node.used == 0 {
                return Err("a reachable node is free");
            }
            if node.value != [state.committed[index as usize]; 2] {
                return Err("the content differs from what was committed");
            }
        }
        if state.at(state.committed_len) != 0 { Err("an element is behind the committed end") } else { Ok(()) }
    }

    fn at_rest(&self, state: &State) -> Result<(), Broken> {
        let stuck = |process: &Process| process.dead == 0 && process.rounds < self.rounds;
        if state.processes[..WRITERS].iter().any(stuck) || !state.reader.is_done() {
            return Err("a live process is stuck");
        }
        if state.lock != 0 || state.journal != NO_JOURNAL {
            return Err("a lock or a journal is left over");
        }
        let leaks = |kind: Kind, used: &[u8]| {
            used.iter().zip(1..).any(|(&used, number)| (used != 0) != state.is_reachable(Named { kind, number }))
        };
        if leaks(Kind::Directory, &state.directories.map(|directory| directory.used)) {
            return Err("a directory leaks");
        }
        if leaks(Kind::Chunk, &state.chunks.map(|chunk| chunk.used)) {
            return Err("a chunk leaks");
        }
        if leaks(Kind::Node, &state.nodes.map(|node| node.used)) { Err("a node leaks") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explorer::{Explorer, holds, is_caught};

    const ALL: u8 = 0b11111;
    const PLAIN: List = List { rounds: 1, kills: 1, changes: [ALL; WRITERS], apart: false, bug: None };
    /// A chunk is popped empty, unlinked where it is, and another one linked there, which begins at another index.
    const TIDIED: List = List { rounds: 2, changes: [0b100100, 0b000001], apart: true, ..PLAIN };
    /// The root goes and comes back as another directory, with another element in a chunk that both have.
    const ROOT_COMES_BACK: List = List { rounds: 2, kills: 0, changes: [0b01000, 0b00101], apart: true, ..PLAIN };

    fn catches(bug: Bug, expected: Broken) {
        is_caught(Explorer::default(), &List { bug: Some(bug), ..PLAIN }, expected);
    }

    /// With two changes of each writer, of some kinds.
    fn catches_in_two(bug: Bug, changes: u8, expected: Broken) {
        let model = List { rounds: 2, changes: [changes; WRITERS], bug: Some(bug), ..PLAIN };
        is_caught(Explorer::default(), &model, expected);
    }

    #[test]
    fn the_algorithm_has_no_violation() {
        let report = holds(Explorer::default().no_livelock(), &PLAIN);
        assert_eq!((report.states, report.at_rest), (673_409, 948));
    }

    #[test]
    fn the_algorithm_has_no_violation_with_two_kills() {
        let report = holds(Explorer::default(), &List { kills: 2, ..PLAIN });
        assert_eq!((report.states, report.at_rest), (1_354_391, 2_003));
    }

    #[test]
    #[ignore = "2.8 M states"]
    fn the_algorithm_has_no_violation_with_two_changes_each() {
        // The one appends, pops, inserts and removes, the other one replaces.
        let report = holds(Explorer::default(), &List { rounds: 2, changes: [0b11101, 0b00010], ..PLAIN });
        assert_eq!((report.states, report.at_rest), (2_810_897, 2_593));
    }

    #[test]
    fn the_algorithm_has_no_violation_where_a_chunk_takes_the_place_of_another() {
        let report = holds(Explorer::default(), &TIDIED);
        assert_eq!((report.states, report.at_rest), (290_116, 392));
    }

    #[test]
    fn the_algorithm_has_no_violation_where_the_root_comes_back() {
        let report = holds(Explorer::default(), &ROOT_COMES_BACK);
        assert_eq!((report.states, report.at_rest), (62_067, 75));
    }

    #[test]
    fn a_first_index_loaded_before_its_link_is_caught() {
        let model = List { bug: Some(Bug::FirstBeforeLink), ..TIDIED };
        is_caught(Explorer::default(), &model, "a reader gets a value that was not at that index");
    }

    #[test]
    fn a_directory_that_is_not_checked_is_caught() {
        let model = List { bug: Some(Bug::DirectoryNotChecked), ..ROOT_COMES_BACK };
        let expected = "a reader is told that an index is out of range that was there all the time";
        is_caught(Explorer::default(), &model, expected);
    }

    #[test]
    fn a_repair_without_the_lock_is_caught() {
        catches(Bug::RepairedWithoutLock, "two processes are inside the lock");
    }

    #[test]
    fn a_journal_that_names_the_directory_only_is_caught() {
        catches(Bug::OnlyDirectoryNoted, "a chunk leaks");
    }

    #[test]
    fn a_chunk_freed_first_is_caught() {
        catches(Bug::ChunkFreedFirst, "a reachable block is freed");
    }

    #[test]
    fn old_blocks_that_are_not_noted_are_caught() {
        catches(Bug::OldNotNoted, "a node leaks");
    }

    #[test]
    fn a_slot_that_is_not_checked_is_caught() {
        catches_in_two(Bug::SlotNotChecked, 0b00101, "a reader gets a torn value");
    }

    #[test]
    fn a_root_that_is_not_checked_is_caught() {
        catches_in_two(Bug::RootNotChecked, 0b11000, "a reader gets a value that was not at that index");
    }

    #[test]
    fn a_chunk_that_is_not_checked_is_caught() {
        catches_in_two(Bug::ChunkNotChecked, 0b11000, "a reader gets a value that was not at that index");
    }

    #[test]
    fn an_insertion_in_place_is_caught() {
        catches_in_two(Bug::ShiftsInPlace, 0b01100, "the content differs from what was committed");
    }

    #[test]
    fn a_journal_cleared_first_is_caught() {
        catches(Bug::JournalClearedFirst, "a node leaks");
    }

    #[test]
    fn an_append_that_ignores_the_directory_is_caught() {
        catches_in_two(Bug::AppendIgnoresDirectory, 0b01101, "a committed element is lost");
    }

    #[test]
    fn a_taker_that_does_not_repair_is_caught() {
        catches(Bug::TakerDoesNotRepair, "a node leaks");
    }

    #[test]
    fn a_free_that_keeps_the_generation_is_caught() {
        catches_in_two(Bug::FreeKeepsGeneration, 0b00101, "a reader gets a torn value");
    }

    #[test]
    fn a_chunk_linked_before_it_is_cleared_is_caught() {
        catches(Bug::LinkedBeforeCleared, "the content differs from what was committed");
    }

    #[test]
    fn a_first_index_after_the_link_is_caught() {
        catches(Bug::FirstAfterLink, "the content differs from what was committed");
    }
}
