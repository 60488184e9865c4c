//! The steps of a process: what it may begin, and how it goes on.

use super::{
    Action, At, Block, BlockState, Bug, CREATIONS, Cell, EMPTY, Holder, IDLE, Object, ObjectState, Private, References,
    State, WORKERS,
};
use crate::explorer::Broken;
use crate::life::Life;

impl References {
    /// The first step of an add.
    fn add(&self) -> At {
        if self.has(Bug::VersionBeforeCell) { At::AddLoadObject } else { At::AddFindCell }
    }

    /// A process that does nothing chooses an action.
    pub(super) fn choose(&self, state: &mut State, who: usize, action: Action) -> bool {
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

    pub(super) fn act(&self, state: &mut State, who: usize) -> Result<bool, Broken> {
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
