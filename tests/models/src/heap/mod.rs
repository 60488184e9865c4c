//! The heap: blocks, and the one primitive of every container: SWING a published word under the container's robust
//! mutex.
//!
//! ```text
//! block     word {FREE | HELD | COMMITTED, owner, generation};  a value of two words
//! cell      the published word: the block of the current value, or none
//! lock      {owner, recovering};   journal {owner (0 = none), new, old} beside it
//! ```
//!
//! The journal also names the cell; the model has one.
//!
//! This is the design that [`crate::arena`] comes from. The library's containers, its heap among them, run on the
//! arena's: there a block belongs to its container and no process holds one.
//!
//! # Steps
//!
//! ```text
//! alloc   CAS a FREE block {g} to {g, HELD, me};  fill it
//! swing   lock;  old = cell;  journal = {me, new, old};  old HELD by me;  cell = new (the commit point)
//!         new COMMITTED;  old FREE, generation + 1;  journal = none;  unlock
//! read    b = cell;  g = generation of b;  cell is b still?  copy;  generation of b is g still?      no lock
//! ```
//!
//! # Crash behaviour
//!
//! ```text
//! lock        the owner is dead: CAS to {me, recovering};  repair;  go on
//! repair      journal: for new, then old: HELD by the journal's owner?  cell names it: COMMITTED, else FREE, generation + 1
//!             journal = none;  recovering = 0
//! recover d   the container's owner is dead: take over, repair, unlock;  a live owner still repairs: wait
//!             then every block HELD by d: FREE, generation + 1;  then the slot may be reused
//! ```
//!
//! | killed | what others see | who repairs | what is lost |
//! |---|---|---|---|
//! | before the journal | a HELD block that nobody names | recovery, after all containers | the new value |
//! | after the journal, before the cell | a journal of the dead, the old value | the next owner, or recovery | the new value |
//! | after the cell | a journal of the dead, the new value | the next owner, or recovery | nothing |
//! | in repair | a dead owner, the journal still there | the next one, from the start | nothing |
//!
//! # What is checked
//!
//! One process inside the lock; the cell names a block that is in use and holds the committed value; nothing reachable
//! is freed, nothing freed twice, nothing freed that somebody else holds; a reader accepts no torn value and none that
//! was not current during the read; at rest no block leaks, every reachable one is COMMITTED, and nobody is stuck.
//!
//! # Size
//!
//! Two writers with two actions each, one reader, a janitor, three blocks: 2 820 894 states with one kill, 9 457 801
//! with two; one action each and two kills 74 379: as in the C++ model that this was ported from.

mod steps;

use zerocopy::{Immutable, IntoBytes};

use crate::explorer::{Broken, Model, Successors};
use crate::life::Life;
use steps::{IDLE, Private, READER, Reader};

const WRITERS: usize = 2;
/// The writers and a janitor that only recovers.
const PROCESSES: usize = WRITERS + 1;
const BLOCKS: usize = 3;

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The old block is not HELD before the cell leaves it: a kill makes it an orphan.
    OldNotHeld,
    /// Recovery frees the blocks of the dead before its containers were repaired.
    SweepBeforeRepair,
    /// The new block becomes COMMITTED after the unlock.
    CommitAfterUnlock,
    /// Repair does not ask whether the journal's owner holds the block.
    RepairIgnoresOwner,
    /// A freed block keeps its generation.
    FreeKeepsGeneration,
    /// A reader does not look at the cell again before it copies.
    CellNotChecked,
    /// A reader does not look at the generation after it copied.
    GenerationNotChecked,
    /// The generation has one bit.
    GenerationWraps,
    /// The journal is cleared before its repair is done.
    JournalClearedFirst,
    /// `recovering` is cleared before the repair is done.
    RecoveringClearedFirst,
    /// Repair frees a block with the same generation.
    RepairKeepsGeneration,
    /// Whoever takes the lock of a dead owner does not repair.
    TakerDoesNotRepair,
    /// The old block is HELD before the journal says why.
    HeldBeforeJournal,
    /// A block is claimed first and its owner written afterwards.
    OwnerAfterClaim,
    /// The slot of the dead is reused before its blocks are free.
    SlotReusedEarly,
}

/// The model and its size: two writers, a janitor, one reader that reads once, three blocks, one cell.
#[derive(Clone, Copy, Debug)]
pub struct Heap {
    /// Actions of each writer, over all processes that follow each other in its slot.
    pub rounds: u8,
    /// Kills in one history.
    pub kills: u8,
    /// The seeded bug.
    pub bug: Option<Bug>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum BlockState {
    Free,
    Held,
    Committed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Word {
    state: BlockState,
    owner: u8,
    generation: u8,
}

impl Word {
    const NONE: Self = Self { state: BlockState::Free, owner: 0, generation: 0 };

    fn is_held_by(self, owner: u8) -> bool {
        self.state == BlockState::Held && self.owner == owner
    }
}

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Block {
    word: Word,
    value: [u8; 2],
}

impl Block {
    fn own(&mut self, state: BlockState, owner: u8) {
        self.word = Word { state, owner, ..self.word };
    }
}

/// Block numbers begin at 1, 0 is none.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Journal {
    owner: u8,
    new: u8,
    old: u8,
}

const NO_JOURNAL: Journal = Journal { owner: 0, new: 0, old: 0 };

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Process {
    life: Life,
    rounds: u8,
    private: Private,
}

/// All words and processes. Numbers of processes and blocks in words begin at 1.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    blocks: [Block; BLOCKS],
    cell: u8,
    /// The value that was committed last, to compare with what is found.
    current: u8,
    lock: u8,
    recovering: u8,
    journal: Journal,
    recovery_lock: u8,
    kills: u8,
    processes: [Process; PROCESSES],
    reader: Reader,
}

impl State {
    fn is_dead(&self, id: u8) -> bool {
        id > 0 && self.processes[id as usize - 1].life != Life::Alive
    }

    fn block(&mut self, number: u8) -> &mut Block {
        &mut self.blocks[number as usize - 1]
    }
}

impl Heap {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn replace(&self, state: &mut State, who: usize) -> bool {
        let me = &mut state.processes[who];
        if me.life != Life::Recovered || me.rounds >= self.rounds {
            return false;
        }
        me.life = Life::Alive;
        true
    }

    fn kill(&self, state: &mut State, who: usize) -> bool {
        let me = &mut state.processes[who];
        if state.kills >= self.kills || me.life != Life::Alive || me.private.is_idle() {
            return false;
        }
        let rounds = me.rounds + u8::from(!me.private.recovers());
        *me = Process { life: Life::Killed, rounds, private: IDLE };
        if state.recovery_lock == who as u8 + 1 {
            state.recovery_lock = 0;
        }
        state.kills += 1;
        true
    }
}

impl Model for Heap {
    type State = State;

    fn initial(&self) -> Vec<State> {
        vec![State {
            blocks: [Block { word: Word::NONE, value: [0; 2] }; BLOCKS],
            cell: 0,
            current: 0,
            lock: 0,
            recovering: 0,
            journal: NO_JOURNAL,
            recovery_lock: 0,
            kills: 0,
            processes: [Process { life: Life::Alive, rounds: 0, private: IDLE }; PROCESSES],
            reader: READER,
        }]
    }

    fn successors(&self, state: &State, next: &mut Successors<State>) {
        for who in 0..PROCESSES {
            let process = &state.processes[who];
            if process.life != Life::Alive {
                next.step(who, state, |state| Ok(self.replace(state, who)));
            } else if !process.private.is_idle() {
                next.step(who, state, |state| self.act(state, who));
            } else {
                next.step(who, state, |state| Ok(self.begin(state, who, false)));
                next.step(who, state, |state| Ok(self.begin(state, who, true)));
                next.step(who, state, |state| Ok(self.begin_recovery(state, who)));
            }
        }
        next.step(PROCESSES, state, |state| self.read(state));
        for who in 0..WRITERS {
            next.event("is killed", who, state, |state| Ok(self.kill(state, who)));
        }
    }

    fn invariant(&self, state: &State) -> Result<(), Broken> {
        let inside = |process: &&Process| {
            process.life == Life::Alive && process.private.is_inside(self.has(Bug::CommitAfterUnlock))
        };
        if state.processes.iter().filter(inside).count() > 1 {
            return Err("two processes are inside the lock");
        }
        let Some(block) = (state.cell as usize).checked_sub(1).map(|cell| &state.blocks[cell]) else {
            return if state.current == 0 { Ok(()) } else { Err("a committed value is lost") };
        };
        if block.word.state == BlockState::Free {
            return Err("a reachable block is FREE");
        }
        if block.value != [state.current; 2] {
            return Err("a reachable block does not hold the committed value");
        }
        Ok(())
    }

    fn at_rest(&self, state: &State) -> Result<(), Broken> {
        if state.processes.iter().any(|process| process.life == Life::Killed) {
            return Err("a death is not recovered");
        }
        let stuck = |process: &Process| process.life == Life::Alive && process.rounds < self.rounds;
        if state.processes[..WRITERS].iter().any(stuck) || !state.reader.is_done() {
            return Err("a live process is stuck");
        }
        if state.lock != 0 || state.journal.owner != 0 {
            return Err("a lock or a journal is left over");
        }
        for (block, number) in state.blocks.iter().zip(1..) {
            let due = if state.cell == number { BlockState::Committed } else { BlockState::Free };
            if block.word.state != due {
                return Err("a block leaks, or is not committed");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explorer::{Explorer, holds, is_caught};

    const PLAIN: Heap = Heap { rounds: 2, kills: 1, bug: None };

    fn catches(bug: Bug, expected: Broken) {
        is_caught(Explorer::default(), &Heap { bug: Some(bug), ..PLAIN }, expected);
    }

    #[test]
    fn the_algorithm_has_no_violation() {
        let report = holds(Explorer::default(), &PLAIN);
        assert_eq!((report.states, report.at_rest), (2_820_894, 3_529));
    }

    #[test]
    fn the_algorithm_has_no_violation_with_two_kills() {
        let report = holds(Explorer::default().no_livelock(), &Heap { rounds: 1, kills: 2, ..PLAIN });
        assert_eq!((report.states, report.at_rest), (74_379, 193));
    }

    #[test]
    #[ignore = "9.5 M states, 1.3 GB"]
    fn the_algorithm_has_no_violation_with_two_kills_and_two_actions() {
        let report = holds(Explorer::default(), &Heap { kills: 2, ..PLAIN });
        assert_eq!((report.states, report.at_rest), (9_457_801, 10_245));
    }

    #[test]
    fn an_old_block_that_is_not_held_is_caught() {
        catches(Bug::OldNotHeld, "a block leaks, or is not committed");
    }

    #[test]
    fn a_sweep_before_the_repair_is_caught() {
        catches(Bug::SweepBeforeRepair, "a reachable block is freed");
    }

    #[test]
    fn a_commit_after_the_unlock_is_caught() {
        catches(Bug::CommitAfterUnlock, "an old block is not committed");
    }

    #[test]
    fn a_repair_that_ignores_the_owner_is_caught() {
        catches(Bug::RepairIgnoresOwner, "repair frees a block that a live process has allocated");
    }

    #[test]
    fn a_free_that_keeps_the_generation_is_caught() {
        catches(Bug::FreeKeepsGeneration, "a reader accepts a torn value");
    }

    #[test]
    fn a_cell_that_is_not_checked_is_caught() {
        catches(Bug::CellNotChecked, "a reader accepts a torn value");
    }

    #[test]
    fn a_generation_that_is_not_checked_is_caught() {
        catches(Bug::GenerationNotChecked, "a reader accepts a torn value");
    }

    #[test]
    fn a_generation_that_wraps_is_caught() {
        catches(Bug::GenerationWraps, "a reader accepts a torn value");
    }

    #[test]
    fn a_journal_cleared_first_is_caught() {
        catches(Bug::JournalClearedFirst, "a reachable block is FREE");
    }

    #[test]
    fn a_repair_that_is_over_too_early_is_caught() {
        catches(Bug::RecoveringClearedFirst, "a reachable block is freed");
    }

    #[test]
    fn a_repair_that_keeps_the_generation_is_caught() {
        catches(Bug::RepairKeepsGeneration, "a reader accepts a torn value");
    }

    #[test]
    fn a_taker_that_does_not_repair_is_caught() {
        catches(Bug::TakerDoesNotRepair, "an old block is not committed");
    }

    #[test]
    fn an_old_block_held_before_the_journal_is_caught() {
        catches(Bug::HeldBeforeJournal, "an old block is not committed");
    }

    #[test]
    fn an_owner_written_after_the_claim_is_caught() {
        catches(Bug::OwnerAfterClaim, "a block leaks, or is not committed");
    }

    #[test]
    fn a_slot_reused_early_is_caught() {
        catches(Bug::SlotReusedEarly, "two processes are inside the lock");
    }
}
