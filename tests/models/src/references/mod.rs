//! References: what keeps a shared object alive, without a count.
//!
//! ```text
//! object   word {FREE | BUILD | LIVE | DYING, owner, version};  generation (the identity in a handle);  cells[]
//! cell     {PROCESS, slot, generation of the slot}     valid while the registry's slot has that generation
//!          {BLOCK, block, generation of the block}     valid while the message's block has that generation
//!          anything else is a free cell
//! ```
//!
//! So the death of a holder, or the end of a message, voids its cells by one store that happens anyway.
//!
//! # Steps
//!
//! ```text
//! add      CAS a free cell to mine, or to my block's;  THEN CAS the object {LIVE, ver} to {LIVE, ver+1};
//!          only THEN may the reference go away that it was copied from
//! check    w = object;  LIVE and no valid cell:  CAS w to {DYING, me, ver} (fails if anybody added);  destroy;  {FREE, ver+1}
//! create   CAS FREE to {BUILD, me, ver+1};  generation;  a cell;  build;  {LIVE, ver+1}
//! open     add, without holding a reference: if the object is not LIVE at the CAS, free the cell again and check
//! send     block W by me;  payload = handle;  add {BLOCK, block};  enqueue
//! receive  block R by me;  add {PROCESS, me};  block generation + 1, FREE;  check
//! drop     cell free;  check
//! ```
//!
//! # Crash behaviour
//!
//! ```text
//! recover d   blocks W by d: FREE, generation + 1;  blocks R by d: queued again;  object BUILD or DYING by d: destroy, FREE
//!             registry[d].generation + 1;  check the object;  then the slot is free
//! ```
//!
//! | killed | what others see | who repairs | what is lost |
//! |---|---|---|---|
//! | holding | valid cells of the dead | recovery: the new generation voids them | nothing; the last one gone destroys |
//! | adding | a cell of the dead | the same | nothing |
//! | creating, destroying | BUILD or DYING by the dead | recovery finishes it | the object |
//! | sending | a block W by the dead | recovery frees it, which voids its cell | the message |
//! | receiving | a block R by the dead | recovery queues it again, its cell still valid | nothing |
//!
//! # What is checked
//!
//! A live process that holds a handle, and a message in the queue, name an object that is LIVE, built and the same one;
//! at rest no block leaks, and no object is left that nobody names.
//!
//! # Size
//!
//! Two processes with two actions each and a janitor, two blocks, five cells: 169 733 states with one kill, 737 035
//! with two, 3 174 666 with three actions and one kill: as in the C++ model that this was ported from.

mod steps;

use zerocopy::{Immutable, IntoBytes};

use crate::explorer::{Broken, Model, Successors};
use crate::life::Life;

const WORKERS: usize = 2;
/// The workers and a janitor that only recovers.
const PROCESSES: usize = WORKERS + 1;
const BLOCKS: usize = 2;
const CELLS: usize = WORKERS + BLOCKS + 1;
/// How often the object may be created.
const CREATIONS: u8 = 2;

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// An add leaves the version: a check that has scanned the cells does not notice it.
    AddKeepsVersion,
    /// An add counts up the version before it takes its cell.
    VersionBeforeCell,
    /// A receiver frees the block before it has a cell of its own.
    ReceiveFreesFirst,
    /// A message is enqueued before its cell is there.
    SendEnqueuesFirst,
    /// Recovery does not check the objects.
    RecoveryDoesNotCheck,
    /// A receiver does not check after it freed the block.
    ReceiveDoesNotCheck,
    /// Open by name does not look whether the object is LIVE.
    OpenDoesNotLook,
    /// A slot is reused with the same generation: the cells of the dead stay valid.
    SlotKeepsGeneration,
    /// What the dead was building or destroying stays as it is.
    DyingNotFinished,
    /// A block is freed with the same generation: the cell of its message stays valid.
    BlockKeepsGeneration,
    /// A drop checks before it frees its cell.
    DropChecksFirst,
    /// Recovery checks the objects while the cells of the dead are valid still.
    RecoveryChecksFirst,
    /// Open by name frees its cell again and does not check.
    UndoDoesNotCheck,
}

/// The model and its size: two workers and a janitor.
#[derive(Clone, Copy, Debug)]
pub struct References {
    /// Actions of each worker, over all processes that follow each other in its slot.
    pub actions: u8,
    /// Kills in one history.
    pub kills: u8,
    /// The seeded bug.
    pub bug: Option<Bug>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum ObjectState {
    Free,
    Build,
    Live,
    Dying,
}

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Object {
    state: ObjectState,
    owner: u8,
    version: u8,
    generation: u8,
    /// Whether its contents exist.
    built: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum Holder {
    Nobody,
    Process,
    Block,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Cell {
    holder: Holder,
    id: u8,
    generation: u8,
}

const EMPTY: Cell = Cell { holder: Holder::Nobody, id: 0, generation: 0 };

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum BlockState {
    Free,
    Write,
    Queued,
    Read,
}

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Block {
    generation: u8,
    state: BlockState,
    owner: u8,
    /// The generation of the object that the message names.
    payload: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum At {
    Idle,
    CreateClaim,
    CreateName,
    CreateFindCell,
    CreateTakeCell,
    CreateBuild,
    CreatePublish,
    AddFindCell,
    AddTakeCell,
    AddLoadObject,
    AddBump,
    OpenUndo,
    SendFill,
    SendEnqueue,
    ReceiveLoad,
    Keep,
    ReceiveFree,
    DropCell,
    /// Of [`Bug::DropChecksFirst`].
    DropCellLate,
    CheckLoad,
    CheckCell,
    CheckClaim,
    CheckDestroy,
    CheckFree,
    RecoverBlock,
    RecoverObject,
    RecoverDestroy,
    RecoverFree,
    RecoverGeneration,
    /// Of [`Bug::RecoveryChecksFirst`].
    RecoverCheck,
    RecoverDone,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum Action {
    Create,
    Open,
    Send,
    Receive,
    Drop,
    Recover,
    /// Take a message and throw the handle away.
    Discard,
}

const ACTIONS: [Action; 7] =
    [Action::Create, Action::Open, Action::Send, Action::Receive, Action::Drop, Action::Recover, Action::Discard];

/// The private words of a process.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Private {
    at: At,
    action: Action,
    block: u8,
    index: u8,
    version: u8,
    seen: ObjectState,
    /// The generation in the message that is received.
    generation: u8,
    dead: u8,
    /// Where to go on after an add or a check.
    then: At,
    old: Cell,
    new: Cell,
}

const IDLE: Private = Private {
    at: At::Idle,
    action: Action::Create,
    block: 0,
    index: 0,
    version: 0,
    seen: ObjectState::Free,
    generation: 0,
    dead: 0,
    then: At::Idle,
    old: EMPTY,
    new: EMPTY,
};

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Process {
    life: Life,
    actions: u8,
    /// Whether it holds a handle, of which generation, with which cell.
    holds: u8,
    held: u8,
    cell: u8,
    private: Private,
}

/// All words and processes.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    object: Object,
    creations: u8,
    recovery_lock: u8,
    kills: u8,
    cells: [Cell; CELLS],
    /// The registry's generation of each slot.
    slots: [u8; PROCESSES],
    blocks: [Block; BLOCKS],
    processes: [Process; PROCESSES],
}

impl State {
    fn valid(&self, cell: Cell) -> bool {
        match cell.holder {
            Holder::Nobody => false,
            Holder::Process => self.slots[cell.id as usize] == cell.generation,
            Holder::Block => self.blocks[cell.id as usize].generation == cell.generation,
        }
    }

    fn cell_of_process(&self, who: usize) -> Cell {
        Cell { holder: Holder::Process, id: who as u8, generation: self.slots[who] }
    }

    /// Whether `generation` names an object that is alive and complete.
    fn names_the_object(&self, generation: u8) -> bool {
        let object = &self.object;
        object.state == ObjectState::Live && object.generation == generation && object.built != 0
    }
}

impl References {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn replace(&self, state: &mut State, who: usize) -> bool {
        let me = &mut state.processes[who];
        if me.life != Life::Recovered || me.actions >= self.actions {
            return false;
        }
        me.life = Life::Alive;
        true
    }

    fn kill(&self, state: &mut State, who: usize) -> bool {
        let me = &mut state.processes[who];
        let nothing_to_kill = me.private.at == At::Idle && me.holds == 0;
        if state.kills >= self.kills || me.life != Life::Alive || nothing_to_kill {
            return false;
        }
        *me = Process { life: Life::Killed, actions: me.actions, holds: 0, held: 0, cell: 0, private: IDLE };
        if state.recovery_lock == who as u8 + 1 {
            state.recovery_lock = 0;
        }
        state.kills += 1;
        true
    }
}

impl Model for References {
    type State = State;

    fn initial(&self) -> Vec<State> {
        let process = Process { life: Life::Alive, actions: 0, holds: 0, held: 0, cell: 0, private: IDLE };
        vec![State {
            object: Object { state: ObjectState::Free, owner: 0, version: 0, generation: 0, built: 0 },
            creations: 0,
            recovery_lock: 0,
            kills: 0,
            cells: [EMPTY; CELLS],
            slots: [0; PROCESSES],
            blocks: [Block { generation: 0, state: BlockState::Free, owner: 0, payload: 0 }; BLOCKS],
            processes: [process; PROCESSES],
        }]
    }

    fn successors(&self, state: &State, next: &mut Successors<State>) {
        for who in 0..PROCESSES {
            let process = &state.processes[who];
            if process.life != Life::Alive {
                next.step(who, state, |state| Ok(self.replace(state, who)));
            } else if process.private.at != At::Idle {
                next.step(who, state, |state| self.act(state, who));
            } else {
                for action in ACTIONS {
                    next.step(who, state, |state| Ok(self.choose(state, who, action)));
                }
            }
        }
        for who in 0..WORKERS {
            next.event("is killed", who, state, |state| Ok(self.kill(state, who)));
        }
    }

    fn invariant(&self, state: &State) -> Result<(), Broken> {
        let mut holders = state.processes.iter().filter(|process| process.life == Life::Alive && process.holds != 0);
        if !holders.all(|process| state.names_the_object(process.held)) {
            return Err("a live process holds a handle to a freed object");
        }
        let receives = |who: u8| {
            let process = &state.processes[who as usize];
            process.life == Life::Alive && process.private.at != At::Idle
        };
        let mut messages = state.blocks.iter().filter(|block| match block.state {
            BlockState::Queued => true,
            BlockState::Read => receives(block.owner),
            _ => false,
        });
        if !messages.all(|block| state.names_the_object(block.payload)) {
            return Err("a message names a freed object");
        }
        Ok(())
    }

    fn at_rest(&self, state: &State) -> Result<(), Broken> {
        if state.blocks.iter().any(|block| !matches!(block.state, BlockState::Free | BlockState::Queued)) {
            return Err("a block leaks");
        }
        if state.processes.iter().any(|process| process.life == Life::Killed) {
            return Err("a death is not recovered");
        }
        let stuck = |process: &Process| process.holds != 0 || process.private.at != At::Idle;
        if state.processes.iter().any(|process| process.life == Life::Alive && stuck(process)) {
            return Err("a live process is stuck");
        }
        let named = state.blocks.iter().any(|block| block.state == BlockState::Queued);
        if !named && (state.object.state != ObjectState::Free || state.object.built != 0) {
            return Err("the object leaks: nobody refers to it");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explorer::{Explorer, holds, is_caught};

    const PLAIN: References = References { actions: 2, kills: 1, bug: None };

    fn catches(bug: Bug, expected: Broken) {
        is_caught(Explorer::default(), &References { bug: Some(bug), ..PLAIN }, expected);
    }

    #[test]
    fn the_algorithm_has_no_violation() {
        let report = holds(Explorer::default().no_livelock(), &PLAIN);
        assert_eq!((report.states, report.at_rest), (169_733, 641));
    }

    #[test]
    fn the_algorithm_has_no_violation_with_two_kills() {
        let report = holds(Explorer::default(), &References { kills: 2, ..PLAIN });
        assert_eq!((report.states, report.at_rest), (737_035, 3_815));
    }

    #[test]
    fn the_algorithm_has_no_violation_with_three_actions() {
        let report = holds(Explorer::default(), &References { actions: 3, ..PLAIN });
        assert_eq!((report.states, report.at_rest), (3_174_666, 8_540));
    }

    #[test]
    fn an_add_that_keeps_the_version_is_caught() {
        catches(Bug::AddKeepsVersion, "a live process holds a handle to a freed object");
    }

    #[test]
    fn a_version_counted_up_before_the_cell_is_caught() {
        catches(Bug::VersionBeforeCell, "a live process holds a handle to a freed object");
    }

    #[test]
    fn a_receiver_that_frees_first_is_caught() {
        catches(Bug::ReceiveFreesFirst, "an object is gone although a reference was held");
    }

    #[test]
    fn a_sender_that_enqueues_first_is_caught() {
        catches(Bug::SendEnqueuesFirst, "a message names a freed object");
    }

    #[test]
    fn a_recovery_that_does_not_check_is_caught() {
        catches(Bug::RecoveryDoesNotCheck, "the object leaks: nobody refers to it");
    }

    #[test]
    fn a_receiver_that_does_not_check_is_caught() {
        catches(Bug::ReceiveDoesNotCheck, "the object leaks: nobody refers to it");
    }

    #[test]
    fn an_open_that_does_not_look_is_caught() {
        catches(Bug::OpenDoesNotLook, "a live process holds a handle to a freed object");
    }

    #[test]
    fn a_slot_that_keeps_its_generation_is_caught() {
        catches(Bug::SlotKeepsGeneration, "the object leaks: nobody refers to it");
    }

    #[test]
    fn a_dying_object_that_is_not_finished_is_caught() {
        catches(Bug::DyingNotFinished, "the object leaks: nobody refers to it");
    }

    #[test]
    fn a_block_that_keeps_its_generation_is_caught() {
        catches(Bug::BlockKeepsGeneration, "the object leaks: nobody refers to it");
    }

    #[test]
    fn a_drop_that_checks_first_is_caught() {
        catches(Bug::DropChecksFirst, "the object leaks: nobody refers to it");
    }

    #[test]
    fn a_recovery_that_checks_first_is_caught() {
        catches(Bug::RecoveryChecksFirst, "the object leaks: nobody refers to it");
    }

    #[test]
    fn an_undo_that_does_not_check_is_caught() {
        catches(Bug::UndoDoesNotCheck, "the object leaks: nobody refers to it");
    }
}
