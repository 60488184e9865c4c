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
//! A live process that holds a handle, and a message in the queue, name an object that is LIVE, built and the same one; at rest no block leaks, and
//! no object is left that nobody names.
//!
//! # Size
//!
//! Two processes with two actions each and a janitor, two blocks, five cells: 169 733 states with one kill, 737 035 with two, 3 174 666 with three
//! actions and one kill: as in the C++ model that this was ported from.

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

    /// The first step of an add.
    fn add(&self) -> At {
        if self.has(Bug::VersionBeforeCell) { At::AddLoadObject } else { At::AddFindCell }
    }

    /// A process that does nothing chooses an action.
    fn choose(&self, state: &mut State, who: usize, action: Action) -> bool {
        let mut me = state.processes[who];
        if action == Action::Recover {
            let dead = state.processes.iter().position(|process| process.life == Life::Killed);
            let (Some(dead), 0) = (dead, state.recovery_lock) else { return false };
            state.recovery_lock = who as u8 + 1;
            me.private = Private { at: At::RecoverBlock, dead: dead as u8, ..IDLE };
            state.processes[who] = me;
            return true;
        }
        let holds = me.holds != 0;
        let may_act = me.actions < self.actions;
        if who >= WORKERS || !(may_act || action == Action::Drop) {
            return false;
        }
        let block = |wanted| state.blocks.iter().position(|block| block.state == wanted);
        me.private.action = action;
        match action {
            Action::Create => {
                if holds || state.object.state != ObjectState::Free || state.creations >= CREATIONS {
                    return false;
                }
                me.private.version = state.object.version;
                me.private.at = At::CreateClaim;
            }
            Action::Open => {
                if holds || state.object.state != ObjectState::Live {
                    return false;
                }
                me.private.new = state.cell_of_process(who);
                me.private.at = self.add();
                me.private.then = At::Keep;
            }
            Action::Send => {
                let (true, Some(block)) = (holds, block(BlockState::Free)) else { return false };
                let words = &mut state.blocks[block];
                *words = Block { state: BlockState::Write, owner: who as u8, payload: 0, ..*words };
                me.private.block = block as u8;
                me.private.at = At::SendFill;
            }
            Action::Receive | Action::Discard => {
                let keeps = action == Action::Receive;
                let Some(block) = block(BlockState::Queued).filter(|_| !(keeps && holds)) else { return false };
                let words = &mut state.blocks[block];
                *words = Block { state: BlockState::Read, owner: who as u8, ..*words };
                me.private.block = block as u8;
                let adds = keeps && !self.has(Bug::ReceiveFreesFirst);
                me.private.at = if adds { At::ReceiveLoad } else { At::ReceiveFree };
            }
            Action::Drop => {
                if !holds {
                    return false;
                }
                me.private = IDLE;
                me.private.at = At::DropCell;
                if self.has(Bug::DropChecksFirst) {
                    me.private.at = At::CheckLoad;
                    me.private.then = At::DropCellLate;
                }
            }
            Action::Recover => return false,
        }
        me.actions += u8::from(may_act);
        state.processes[who] = me;
        true
    }

    fn act(&self, state: &mut State, who: usize) -> Result<bool, Broken> {
        let mut process = state.processes[who];
        let me = &mut process.private;
        let index = me.index as usize;
        match me.at {
            At::Idle => return Ok(false),
            At::CreateClaim => {
                let object = &mut state.object;
                if object.state == ObjectState::Free && object.version == me.version {
                    object.state = ObjectState::Build;
                    object.owner = who as u8;
                    object.version += 1;
                    state.creations += 1;
                    me.at = At::CreateName;
                } else {
                    *me = IDLE;
                }
            }
            At::CreateName => {
                state.object.generation = state.object.version;
                me.new = state.cell_of_process(who);
                me.index = 0;
                me.at = At::CreateFindCell;
            }
            At::CreateFindCell | At::AddFindCell => {
                let Some(&cell) = state.cells.get(index) else { return Err("there is no free cell") };
                if state.valid(cell) {
                    me.index += 1;
                } else {
                    me.old = cell;
                    me.at = if me.at == At::AddFindCell { At::AddTakeCell } else { At::CreateTakeCell };
                }
            }
            At::CreateTakeCell | At::AddTakeCell => {
                let adds = me.at == At::AddTakeCell;
                if state.cells[index] == me.old {
                    state.cells[index] = me.new;
                    me.old = EMPTY;
                    me.new = EMPTY;
                    me.version = if adds { me.version } else { 0 };
                    me.at = if adds { self.cell_is_mine(me) } else { At::CreateBuild };
                } else {
                    me.at = if adds { At::AddFindCell } else { At::CreateFindCell };
                }
            }
            At::CreateBuild => {
                state.object.built = 1;
                me.at = At::CreatePublish;
            }
            At::CreatePublish => {
                let object = &mut state.object;
                object.state = ObjectState::Live;
                object.version += 1;
                object.owner = 0;
                process.holds = 1;
                process.held = object.generation;
                process.cell = me.index;
                *me = IDLE;
            }
            At::AddLoadObject => {
                me.seen = state.object.state;
                me.version = state.object.version;
                me.at = match me.action {
                    _ if me.seen == ObjectState::Live => At::AddBump,
                    Action::Open if self.has(Bug::VersionBeforeCell) => At::End,
                    Action::Open => At::OpenUndo,
                    _ => return Err("an object is gone although a reference was held"),
                };
            }
            At::AddBump => {
                let object = &mut state.object;
                if object.state == me.seen && object.version == me.version {
                    object.version += 1;
                    me.at = if self.has(Bug::VersionBeforeCell) { At::AddFindCell } else { me.then };
                } else {
                    me.at = At::AddLoadObject;
                }
                me.seen = ObjectState::Free;
                me.version = 0;
            }
            At::OpenUndo => {
                state.cells[index] = EMPTY;
                me.at = At::CheckLoad;
                me.then = At::End;
                if self.has(Bug::UndoDoesNotCheck) {
                    *me = IDLE;
                }
            }
            At::SendFill => {
                let block = &mut state.blocks[me.block as usize];
                block.payload = process.held;
                me.new = Cell { holder: Holder::Block, id: me.block, generation: block.generation };
                me.index = 0;
                let enqueues = self.has(Bug::SendEnqueuesFirst);
                me.at = if enqueues { At::SendEnqueue } else { self.add() };
                me.then = if enqueues { At::End } else { At::SendEnqueue };
            }
            At::SendEnqueue => {
                let block = &mut state.blocks[me.block as usize];
                if block.state != BlockState::Write || block.owner != who as u8 {
                    return Err("a sender lost its block");
                }
                block.state = BlockState::Queued;
                me.at = At::AddFindCell;
                if !self.has(Bug::SendEnqueuesFirst) {
                    *me = IDLE;
                }
            }
            At::ReceiveLoad => {
                me.generation = state.blocks[me.block as usize].payload;
                me.new = state.cell_of_process(who);
                me.index = 0;
                me.at = self.add();
                me.then = At::Keep;
            }
            At::Keep => {
                process.holds = 1;
                process.held = state.object.generation;
                process.cell = me.index;
                if me.action == Action::Receive && process.held != me.generation {
                    return Err("the object of a message was replaced by another");
                }
                me.at = At::ReceiveFree;
                if me.action == Action::Open || self.has(Bug::ReceiveFreesFirst) {
                    *me = IDLE;
                }
            }
            At::ReceiveFree => {
                let block = &mut state.blocks[me.block as usize];
                me.index = 0;
                if self.has(Bug::ReceiveFreesFirst) && me.action == Action::Receive {
                    me.generation = block.payload;
                    me.new = Cell { holder: Holder::Process, id: who as u8, generation: state.slots[who] };
                    me.at = At::AddFindCell;
                    me.then = At::Keep;
                } else {
                    me.at = At::CheckLoad;
                    me.then = At::End;
                }
                self.free_block(block);
                if self.has(Bug::ReceiveDoesNotCheck) {
                    *me = IDLE;
                }
            }
            At::DropCell | At::DropCellLate => {
                state.cells[process.cell as usize] = EMPTY;
                process.holds = 0;
                process.held = 0;
                process.cell = 0;
                let checks = me.at == At::DropCell;
                *me = IDLE;
                if checks {
                    me.at = At::CheckLoad;
                    me.then = At::End;
                }
            }
            At::CheckLoad => {
                me.seen = state.object.state;
                me.version = state.object.version;
                me.index = 0;
                me.at = At::CheckCell;
                if me.seen != ObjectState::Live {
                    checked(me);
                }
            }
            At::CheckCell => match state.cells.get(index) {
                None => {
                    me.index = 0;
                    me.at = At::CheckClaim;
                }
                Some(&cell) if state.valid(cell) => checked(me),
                Some(_) => me.index += 1,
            },
            At::CheckClaim => {
                let object = &mut state.object;
                let same_version = object.version == me.version || self.has(Bug::AddKeepsVersion);
                if object.state == me.seen && same_version {
                    object.state = ObjectState::Dying;
                    object.owner = who as u8;
                    me.at = At::CheckDestroy;
                } else {
                    me.at = At::CheckLoad;
                }
            }
            At::CheckDestroy => {
                state.object.built = 0;
                me.at = At::CheckFree;
            }
            At::CheckFree => {
                if state.object.state != ObjectState::Dying || state.object.owner != who as u8 {
                    return Err("a dying object changed hands");
                }
                free_object(&mut state.object);
                checked(me);
            }
            At::RecoverBlock => match state.blocks.get_mut(index) {
                None => me.at = At::RecoverObject,
                Some(block) => {
                    if block.owner == me.dead && block.state == BlockState::Write {
                        self.free_block(block);
                    } else if block.owner == me.dead && block.state == BlockState::Read {
                        block.state = BlockState::Queued;
                    }
                    me.index += 1;
                }
            },
            At::RecoverObject => {
                let unfinished = matches!(state.object.state, ObjectState::Build | ObjectState::Dying)
                    && state.object.owner == me.dead
                    && !self.has(Bug::DyingNotFinished);
                me.at = if unfinished { At::RecoverDestroy } else { self.object_recovered() };
            }
            At::RecoverDestroy => {
                state.object.built = 0;
                me.at = At::RecoverFree;
            }
            At::RecoverFree => {
                free_object(&mut state.object);
                me.at = self.object_recovered();
            }
            At::RecoverGeneration => {
                state.slots[me.dead as usize] += u8::from(!self.has(Bug::SlotKeepsGeneration));
                let checks = !self.has(Bug::RecoveryDoesNotCheck) && !self.has(Bug::RecoveryChecksFirst);
                me.at = if checks { At::CheckLoad } else { At::RecoverDone };
                me.then = At::RecoverDone;
            }
            At::RecoverCheck => {
                me.at = At::CheckLoad;
                me.then = At::RecoverGeneration;
            }
            At::RecoverDone => {
                state.processes[me.dead as usize].life = Life::Recovered;
                state.recovery_lock = 0;
                *me = IDLE;
            }
            At::End => *me = IDLE,
        }
        state.processes[who] = process;
        Ok(true)
    }

    /// Where an add goes on when the cell is taken.
    fn cell_is_mine(&self, me: &Private) -> At {
        match self.bug {
            Some(Bug::AddKeepsVersion | Bug::VersionBeforeCell) => me.then,
            Some(Bug::OpenDoesNotLook) if me.action == Action::Open => me.then,
            _ => At::AddLoadObject,
        }
    }

    fn object_recovered(&self) -> At {
        if self.has(Bug::RecoveryChecksFirst) { At::RecoverCheck } else { At::RecoverGeneration }
    }

    fn free_block(&self, block: &mut Block) {
        block.state = BlockState::Free;
        block.generation += u8::from(!self.has(Bug::BlockKeepsGeneration));
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

/// The end of a check.
fn checked(me: &mut Private) {
    me.at = me.then;
    me.seen = ObjectState::Free;
    me.version = 0;
    me.index = 0;
    if me.at == At::End {
        *me = IDLE;
    }
}

fn free_object(object: &mut Object) {
    object.state = ObjectState::Free;
    object.version += 1;
    object.owner = 0;
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
