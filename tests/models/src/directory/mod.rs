//! The directory: create-or-open and remove by name.
//!
//! ```text
//! entry    word {FREE | BUILD | READY, owner, version};  name, object: plain fields, read between two loads of the word
//! block    {FREE | HELD | COMMITTED, owner, generation};  the object, of two words
//! lock     a robust mutex that protects no data: the words of the entries do
//! ```
//!
//! # Steps
//!
//! ```text
//! look up   w = word, READY;  name == n?;  object;  word == w?                                   open, without a lock
//! create    lock (of the dead: taken over);  scan:  READY n: open
//!                                              BUILD n, owner alive: unlock, wait for the word, in slices; again
//!                                              BUILD n, owner dead: CAS {BUILD, d} to {BUILD, me}, unlock, build
//!           none: name = n;  THEN word = {BUILD, me, ver+1};  unlock
//!           build: a block HELD by me, filled;  object = block;  word = {READY, 0, ver+1} (the commit point);  block COMMITTED
//! remove    lock;  READY n: block HELD by me;  word = {FREE, 0, ver+1} (the commit point);  block FREE;  unlock
//! ```
//!
//! # Crash behaviour
//!
//! ```text
//! recover d   the lock of d: free;  entries: BUILD by d: CAS to FREE;  READY, its block HELD by d: CAS to COMMITTED
//!             then every block still HELD by d: FREE
//! ```
//!
//! | killed | what others see | who repairs | what is lost |
//! |---|---|---|---|
//! | holding the lock | a dead owner | whoever wants the lock, or recovery | nothing |
//! | building | BUILD by the dead | the next creator of that name, or recovery | the half-built object |
//! | after READY, before COMMITTED | an entry that can be opened | recovery commits the block | nothing |
//! | removing, before FREE | an entry that can be opened | recovery commits the block again | the removal |
//! | removing, after FREE | a HELD block that no entry names | recovery frees it | nothing |
//!
//! # What is checked
//!
//! Whoever opens a name gets a complete object of that name; one name has one entry; an entry stands under its own name
//! from its first moment; at rest nothing is half-built, no block leaks and nobody waits.
//!
//! # Size
//!
//! Two processes that create-or-open or remove twice, and a janitor; one name, two entries, three blocks: 55 630 states
//! with one kill, 301 276 with two. The C++ model that this was ported from has 62 190 and 332 889: its processes
//! remember the name and the object with a word, and nobody looks at them. Without that it has exactly the numbers of
//! this one.

mod steps;

use zerocopy::{Immutable, IntoBytes};

use crate::explorer::{Broken, Model, Successors};
use crate::life::Life;
use steps::{IDLE, Private};

const WORKERS: usize = 2;
/// The workers and a janitor that only recovers.
const PROCESSES: usize = WORKERS + 1;
const ENTRIES: usize = 2;
const BLOCKS: usize = 3;

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A creator does not look again once it has the lock.
    NoScanUnderLock,
    /// An entry is marked BUILD before its name is written.
    BuildBeforeName,
    /// An entry is READY before its object is complete.
    ReadyBeforeInit,
    /// The entry of a dead builder is neither taken over nor recovered.
    DeadBuilderIgnored,
    /// The entry of a builder is taken over without proof that it is dead.
    BuilderNotProvenDead,
    /// Recovery frees the blocks of the dead without looking which entries name them.
    NoCommitPass,
    /// A look-up does not look at the word again.
    LookUpNotChecked,
    /// The scan takes entries that are being built for free ones.
    ScanIgnoresBuild,
    /// Recovery stores FREE in an entry that may have a new builder.
    RecoveryStoresFree,
    /// A removal frees the block before the entry.
    RemoveFreesBlockFirst,
}

/// The model and its size: two workers and a janitor, two entries, three blocks.
#[derive(Clone, Copy, Debug)]
pub struct Directory {
    /// Names in use, 1 or 2.
    pub names: u8,
    /// Actions of each worker, over all processes that follow each other in its slot.
    pub rounds: u8,
    /// Kills in one history.
    pub kills: u8,
    /// The seeded bug.
    pub bug: Option<Bug>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum EntryState {
    Free,
    Build,
    Ready,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Word {
    state: EntryState,
    owner: u8,
    version: u8,
}

impl Word {
    const NONE: Self = Self { state: EntryState::Free, owner: 0, version: 0 };

    fn next(self, state: EntryState, owner: u8) -> Self {
        Self { state, owner, version: self.version + 1 }
    }
}

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Entry {
    word: Word,
    name: u8,
    /// The number of a block, from 1; 0 where there never was one.
    object: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum BlockState {
    Free,
    Held,
    Committed,
}

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Block {
    generation: u8,
    owner: u8,
    state: BlockState,
    /// The object: twice the name it was built for.
    object: [u8; 2],
}

impl Block {
    fn own(&mut self, owner: u8, state: BlockState) {
        self.owner = owner;
        self.state = state;
    }

    fn is_held_by(&self, owner: u8) -> bool {
        self.state == BlockState::Held && self.owner == owner
    }

    fn is_complete(&self, name: u8) -> bool {
        self.state != BlockState::Free && self.object == [name; 2]
    }
}

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Process {
    life: Life,
    rounds: u8,
    private: Private,
}

/// All words and processes. Process numbers in words begin at 1.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    entries: [Entry; ENTRIES],
    blocks: [Block; BLOCKS],
    lock: u8,
    recovery_lock: u8,
    kills: u8,
    processes: [Process; PROCESSES],
}

impl State {
    fn is_dead(&self, id: u8) -> bool {
        id > 0 && self.processes[id as usize - 1].life != Life::Alive
    }

    fn block(&self, number: u8) -> Option<&Block> {
        self.blocks.get((number as usize).checked_sub(1)?)
    }
}

impl Directory {
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

impl Model for Directory {
    type State = State;

    fn initial(&self) -> Vec<State> {
        let block = Block { generation: 0, owner: 0, state: BlockState::Free, object: [0; 2] };
        vec![State {
            entries: [Entry { word: Word::NONE, name: 0, object: 0 }; ENTRIES],
            blocks: [block; BLOCKS],
            lock: 0,
            recovery_lock: 0,
            kills: 0,
            processes: [Process { life: Life::Alive, rounds: 0, private: IDLE }; PROCESSES],
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
                next.step(who, state, |state| Ok(self.begin_recovery(state, who)));
                for name in 1..=self.names {
                    next.step(who, state, |state| Ok(self.begin(state, who, name, false)));
                    next.step(who, state, |state| Ok(self.begin(state, who, name, true)));
                }
            }
        }
        for who in 0..WORKERS {
            next.event("is killed", who, state, |state| Ok(self.kill(state, who)));
        }
    }

    fn invariant(&self, state: &State) -> Result<(), Broken> {
        let used = |entry: &&Entry| entry.word.state != EntryState::Free;
        for name in 1..=self.names {
            if state.entries.iter().filter(used).filter(|entry| entry.name == name).count() > 1 {
                return Err("one name has two entries");
            }
        }
        for entry in state.entries.iter().filter(used) {
            if entry.word.state == EntryState::Ready {
                if !state.block(entry.object).is_some_and(|block| block.is_complete(entry.name)) {
                    return Err("a READY entry has an incomplete object");
                }
            } else {
                let builder = state.processes[entry.word.owner as usize - 1].private.name();
                if builder != 0 && builder != entry.name {
                    return Err("an entry stands under a name that is not its own");
                }
            }
        }
        Ok(())
    }

    fn at_rest(&self, state: &State) -> Result<(), Broken> {
        if state.processes.iter().any(|process| process.life == Life::Killed) {
            return Err("a death is not recovered");
        }
        let stuck = |process: &Process| {
            process.life == Life::Alive && (process.rounds < self.rounds || !process.private.is_idle())
        };
        if state.processes[..WORKERS].iter().any(stuck) {
            return Err("a live process is stuck");
        }
        if state.lock != 0 {
            return Err("the lock is never released");
        }
        if state.entries.iter().any(|entry| entry.word.state == EntryState::Build) {
            return Err("an entry stays half-built");
        }
        for (block, number) in state.blocks.iter().zip(1..) {
            let names = |entry: &Entry| entry.word.state == EntryState::Ready && entry.object == number;
            let due = if state.entries.iter().any(names) { BlockState::Committed } else { BlockState::Free };
            if block.state != due {
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

    const PLAIN: Directory = Directory { names: 1, rounds: 2, kills: 1, bug: None };

    fn catches(bug: Bug, expected: Broken) {
        is_caught(Explorer::default(), &Directory { bug: Some(bug), ..PLAIN }, expected);
    }

    #[test]
    fn the_algorithm_has_no_violation() {
        let report = holds(Explorer::default().no_livelock(), &PLAIN);
        assert_eq!((report.states, report.at_rest), (55_630, 122));
    }

    #[test]
    fn the_algorithm_has_no_violation_with_two_kills() {
        let report = holds(Explorer::default().no_livelock(), &Directory { kills: 2, ..PLAIN });
        assert_eq!((report.states, report.at_rest), (301_276, 629));
    }

    #[test]
    fn the_algorithm_has_no_violation_with_two_names() {
        let report = holds(Explorer::default(), &Directory { names: 2, ..PLAIN });
        assert_eq!((report.states, report.at_rest), (736_463, 1_680));
    }

    #[test]
    fn a_creator_that_does_not_scan_under_the_lock_is_caught() {
        catches(Bug::NoScanUnderLock, "one name has two entries");
    }

    #[test]
    fn an_entry_built_before_it_is_named_is_caught() {
        catches(Bug::BuildBeforeName, "an entry stands under a name that is not its own");
    }

    #[test]
    fn an_entry_ready_before_its_object_is_caught() {
        catches(Bug::ReadyBeforeInit, "a READY entry has an incomplete object");
    }

    #[test]
    fn a_dead_builder_that_is_ignored_is_caught() {
        catches(Bug::DeadBuilderIgnored, "a live process is stuck");
    }

    #[test]
    fn a_builder_taken_for_dead_is_caught() {
        catches(Bug::BuilderNotProvenDead, "a live builder lost its entry");
    }

    #[test]
    fn a_sweep_without_a_commit_pass_is_caught() {
        catches(Bug::NoCommitPass, "the block of a READY entry is freed");
    }

    #[test]
    fn a_look_up_that_does_not_look_again_is_caught() {
        catches(Bug::LookUpNotChecked, "an object is opened that is not complete, or of another name");
    }

    #[test]
    fn a_scan_that_ignores_builders_is_caught() {
        catches(Bug::ScanIgnoresBuild, "one name has two entries");
    }

    #[test]
    fn a_recovery_that_stores_free_is_caught() {
        catches(Bug::RecoveryStoresFree, "a live builder lost its entry");
    }

    #[test]
    fn a_removal_that_frees_the_block_first_is_caught() {
        catches(Bug::RemoveFreesBlockFirst, "a READY entry has an incomplete object");
    }
}
