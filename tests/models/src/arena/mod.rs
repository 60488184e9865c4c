//! The arena: the blocks of one container, whose writers allocate, swing and free under the container's lock.
//!
//! ```text
//! block     {FREE | COMMITTED, generation}, contents of two words; the first of them is the next free block of a FREE one
//! link      block and generation, 0 = none            free list: the first free block        rest: blocks from here on were never used
//! lock      owner                                     journal {cell, value, new, old}
//! ```
//!
//! # Steps
//!
//! ```text
//! take      journal.new = head; free list = head's next; head COMMITTED           rest:  journal.new = block; COMMITTED; rest + 1
//! fill      both words of the contents
//! swing     journal.old = cell's block;  journal.value = link;  journal.cell = the cell;  cell = link (the commit point)
//! after it  old: {FREE, new generation};  its next = free list;  free list = it;  journal.old = 0;  journal.new = 0;  journal.cell = 0
//! read      link = cell;  the block's generation is the link's;  cell is link still?  copy;  the generation is the same still?
//! ```
//!
//! # Crash behaviour
//!
//! ```text
//! lock      the owner is dead: take it and repair
//! repair    the journal's cell reads the journal's value: go on after the commit
//!           else journal.new: it is where the rest starts: leave it;  COMMITTED: free it;  FREE and not the head: put it in the list
//!                journal.new = 0;  journal.old = 0;  journal.cell = 0
//! ```
//!
//! | killed | what others see | who repairs | what is lost |
//! |---|---|---|---|
//! | before the commit | the old value, a block that only the journal names | the next owner | the new value |
//! | after the commit | the new value, an old block that only the journal names | the next owner | nothing |
//! | in repair | a dead owner, the journal still there | the next one, from the start | nothing |
//!
//! # What is checked
//!
//! One process inside the lock; a cell's block is not free and holds the committed value; nothing is freed that is
//! reachable; the free list has no block twice and none that is in use; a reader accepts no torn value and none that was
//! not current during the read; at rest each block is reachable, in the free list, or in the rest, and in one of them.
//!
//! # Size
//!
//! Two writers with two changes each, one reader, one more process that only repairs, three blocks, one cell: 598 437 states
//! with one kill.

mod steps;

use zerocopy::{Immutable, IntoBytes};

use crate::explorer::{Broken, Model, Successors};
use steps::{IDLE, Private, READER, Reader};

const WRITERS: usize = 2;
/// The writers and one that only takes the lock and releases it.
const PROCESSES: usize = WRITERS + 1;
const BLOCKS: usize = 3;

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A block leaves the free list before the journal names it.
    TakenBeforeNote,
    /// The rest moves on before the block that was its start is marked.
    RestBeforeWord,
    /// The journal's cell is written before its value.
    CellBeforeValue,
    /// The journal's cell is cleared before its new block.
    CellClearedFirst,
    /// The journal forgets the old block before that is in the free list.
    OldForgottenFirst,
    /// The old block is freed before the commit.
    FreedBeforeCommit,
    /// The journal does not name the old block.
    OldNotNoted,
    /// Repair puts a FREE block in the list without looking whether it is there.
    RepairPushesBlindly,
    /// Repair does not know where the rest starts.
    RepairIgnoresRest,
    /// Repair takes every journal for a committed one.
    RepairRollsForward,
    /// Whoever takes the lock of a dead owner does not repair.
    TakerDoesNotRepair,
    /// A freed block keeps its generation.
    FreeKeepsGeneration,
    /// The next free block is written before the new generation.
    NextBeforeGeneration,
    /// A reader does not look at the cell again, and links have no generation.
    CellNotChecked,
    /// A reader does not look at the generation after it copied.
    GenerationNotChecked,
}

/// The model and its size.
#[derive(Clone, Copy, Debug)]
pub struct Arena {
    /// Changes of each writer.
    pub rounds: u8,
    /// Kills in one history.
    pub kills: u8,
    /// The seeded bug.
    pub bug: Option<Bug>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Block {
    committed: u8,
    generation: u8,
    /// Contents; the first word is the next free block while this one is free.
    contents: [u8; 2],
}

/// A block and the generation it has; block 0 is none, the others count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Link {
    block: u8,
    generation: u8,
}

const NONE: Link = Link { block: 0, generation: 0 };

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Journal {
    /// Whether it names the cell.
    cell: u8,
    value: Link,
    new: Link,
    old: Link,
}

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Process {
    dead: u8,
    rounds: u8,
    private: Private,
}

/// All words and processes. Numbers of processes and blocks in words begin at 1.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    blocks: [Block; BLOCKS],
    cell: Link,
    /// First free block.
    free: u8,
    /// First block that was never used.
    rest: u8,
    /// Last generation that was given.
    generation: u8,
    lock: u8,
    journal: Journal,
    /// The value that was committed last, to compare with what is found.
    current: u8,
    kills: u8,
    processes: [Process; PROCESSES],
    reader: Reader,
}

impl State {
    fn block(&mut self, number: u8) -> &mut Block {
        &mut self.blocks[number as usize - 1]
    }

    /// The blocks of the free list, or `None` if it has no end.
    fn free_list(&self) -> Option<Vec<u8>> {
        let mut list = Vec::new();
        let mut next = self.free;
        while next != 0 {
            if list.contains(&next) {
                return None;
            }
            list.push(next);
            next = self.blocks[next as usize - 1].contents[0];
        }
        Some(list)
    }
}

impl Arena {
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

impl Model for Arena {
    type State = State;

    fn initial(&self) -> Vec<State> {
        vec![State {
            // Memory that was something else before.
            blocks: [Block { committed: 1, generation: 200, contents: [9; 2] }; BLOCKS],
            cell: NONE,
            free: 0,
            rest: 1,
            generation: 0,
            lock: 0,
            journal: Journal { cell: 0, value: NONE, new: NONE, old: NONE },
            current: 0,
            kills: 0,
            processes: [Process { dead: 0, rounds: 0, private: IDLE }; PROCESSES],
            reader: READER,
        }]
    }

    fn successors(&self, state: &State, next: &mut Successors<State>) {
        for who in 0..PROCESSES {
            if state.processes[who].dead != 0 {
                continue;
            }
            if !state.processes[who].private.is_idle() {
                next.step(who, state, |state| self.act(state, who));
                continue;
            }
            next.step(who, state, |state| Ok(self.begin(state, who, false)));
            next.step(who, state, |state| Ok(self.begin(state, who, true)));
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
        let Some(block) = (state.cell.block as usize).checked_sub(1).map(|block| &state.blocks[block]) else {
            return if state.current == 0 { Ok(()) } else { Err("a committed value is lost") };
        };
        if block.committed == 0 || block.generation != state.cell.generation {
            return Err("a reachable block is free");
        }
        if block.contents != [state.current; 2] {
            return Err("a reachable block does not hold the committed value");
        }
        Ok(())
    }

    fn at_rest(&self, state: &State) -> Result<(), Broken> {
        let stuck = |process: &Process| process.dead == 0 && process.rounds < self.rounds;
        if state.processes[..WRITERS].iter().any(stuck) || !state.reader.is_done() {
            return Err("a live process is stuck");
        }
        if state.lock != 0 || state.journal.cell != 0 || state.journal.new != NONE || state.journal.old != NONE {
            return Err("a lock or a journal is left over");
        }
        let Some(free) = state.free_list() else { return Err("the free list has no end") };
        for number in 1..=BLOCKS as u8 {
            let places = u8::from(state.cell.block == number)
                + u8::from(free.contains(&number))
                + u8::from(number >= state.rest);
            if places > 1 {
                return Err("a block is in two places");
            }
            if places == 0 {
                return Err("a block leaks");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explorer::{Explorer, holds, is_caught};

    const PLAIN: Arena = Arena { rounds: 2, kills: 1, bug: None };

    fn catches(bug: Bug, expected: Broken) {
        is_caught(Explorer::default(), &Arena { bug: Some(bug), ..PLAIN }, expected);
    }

    #[test]
    fn the_algorithm_has_no_violation() {
        let report = holds(Explorer::default(), &PLAIN);
        assert_eq!((report.states, report.at_rest), (598_437, 1_927));
    }

    #[test]
    fn the_algorithm_has_no_violation_with_two_kills() {
        let report = holds(Explorer::default().no_livelock(), &Arena { kills: 2, ..PLAIN });
        assert_eq!((report.states, report.at_rest), (1_214_025, 5_106));
    }

    #[test]
    fn a_block_taken_before_it_is_noted_is_caught() {
        catches(Bug::TakenBeforeNote, "a block leaks");
    }

    #[test]
    fn a_rest_that_moves_on_before_the_word_is_caught() {
        catches(Bug::RestBeforeWord, "a block leaks");
    }

    #[test]
    fn a_cell_before_its_value_is_caught() {
        catches(Bug::CellBeforeValue, "a reachable block is freed");
    }

    #[test]
    fn a_cell_cleared_first_is_caught() {
        catches(Bug::CellClearedFirst, "a reachable block is freed");
    }

    #[test]
    fn an_old_block_forgotten_first_is_caught() {
        catches(Bug::OldForgottenFirst, "a block leaks");
    }

    #[test]
    fn a_block_freed_before_the_commit_is_caught() {
        catches(Bug::FreedBeforeCommit, "a reachable block is freed");
    }

    #[test]
    fn an_old_block_that_is_not_noted_is_caught() {
        catches(Bug::OldNotNoted, "a block leaks");
    }

    #[test]
    fn a_repair_that_pushes_blindly_is_caught() {
        catches(Bug::RepairPushesBlindly, "the free list has no end");
    }

    #[test]
    fn a_repair_that_ignores_the_rest_is_caught() {
        catches(Bug::RepairIgnoresRest, "a block is in two places");
    }

    #[test]
    fn a_repair_that_always_rolls_forward_is_caught() {
        catches(Bug::RepairRollsForward, "a block leaks");
    }

    #[test]
    fn a_taker_that_does_not_repair_is_caught() {
        catches(Bug::TakerDoesNotRepair, "a lock or a journal is left over");
    }

    #[test]
    fn a_free_that_keeps_the_generation_is_caught() {
        catches(Bug::FreeKeepsGeneration, "a reader accepts a torn value");
    }

    #[test]
    fn a_next_before_the_generation_is_caught() {
        catches(Bug::NextBeforeGeneration, "a reader accepts a torn value");
    }

    #[test]
    fn a_cell_that_is_not_checked_is_caught() {
        catches(Bug::CellNotChecked, "a reader accepts a torn value");
    }

    #[test]
    fn a_generation_that_is_not_checked_is_caught() {
        catches(Bug::GenerationNotChecked, "a reader accepts a torn value");
    }
}
