//! The steps of writers, of the repair and of the reader.

use zerocopy::{Immutable, IntoBytes};

use super::{Arena, BLOCKS, Block, Bug, Link, NONE, State, WRITERS};
use crate::explorer::Broken;

/// In this order: what is outside the lock, and what is under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, IntoBytes, Immutable)]
#[repr(u8)]
enum At {
    Idle,
    Lock,
    LoadCell,
    Note,
    Pop,
    Begin,
    MoveRest,
    FillFirst,
    FillSecond,
    NoteOld,
    WriteValue,
    WriteCell,
    /// Of [`Bug::FreedBeforeCommit`].
    FreeEarly,
    Swing,
    Unmake,
    WriteNext,
    Push,
    ForgetOld,
    ForgetNew,
    ForgetCell,
    Unlock,
    Repair,
    RepairForward,
    RepairBack,
    BackUnmake,
    BackNext,
    BackPush,
    BackForgetNew,
    BackForgetOld,
    BackForgetCell,
}

/// The private words of a writer.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Private {
    at: At,
    removes: u8,
    value: u8,
    new: Link,
    old: Link,
    /// The new block comes from the rest.
    carves: u8,
    /// Where to go on after the journal is empty again.
    repairs: u8,
}

pub(super) const IDLE: Private =
    Private { at: At::Idle, removes: 0, value: 0, new: NONE, old: NONE, carves: 0, repairs: 0 };

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
    LoadCell,
    LoadGeneration,
    CheckCell,
    CopyFirst,
    CopySecond,
    CheckGeneration,
}

/// The private words of the reader.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Reader {
    at: ReaderAt,
    done: u8,
    link: Link,
    generation: u8,
    copy: [u8; 2],
    /// One bit for each value that was current since this try began.
    current: u8,
}

pub(super) const READER: Reader =
    Reader { at: ReaderAt::LoadCell, done: 0, link: NONE, generation: 0, copy: [0; 2], current: 0 };

impl Reader {
    pub(super) fn is_done(&self) -> bool {
        self.done != 0
    }
}

impl Arena {
    /// An idle writer begins to put a new value, or to remove the current one; the last process only to repair.
    pub(super) fn begin(&self, state: &mut State, who: usize, removes: bool) -> bool {
        let lock_is_dead = state.lock != 0 && state.processes[state.lock as usize - 1].dead != 0;
        let me = &mut state.processes[who];
        if who >= WRITERS {
            // With nobody to repair it would take and release the lock for ever.
            me.private = Private { at: At::Lock, ..IDLE };
            return removes && lock_is_dead;
        }
        if me.rounds >= self.rounds {
            return false;
        }
        let value = 1 + who as u8 * self.rounds + me.rounds;
        me.private = Private { at: At::Lock, removes: removes.into(), value, ..IDLE };
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
                me.at = At::LoadCell;
            }
            At::Lock if state.processes[state.lock as usize - 1].dead != 0 => {
                state.lock = id;
                me.at = if self.has(Bug::TakerDoesNotRepair) { At::LoadCell } else { At::Repair };
            }
            At::Lock => return Ok(false),
            At::LoadCell => {
                me.old = state.cell;
                me.at = match (who >= WRITERS, me.removes != 0) {
                    (true, _) => At::Unlock,
                    (_, true) if me.old == NONE => At::Unlock,
                    (_, true) => At::NoteOld,
                    _ => At::Note,
                };
            }
            At::Note => {
                me.carves = u8::from(state.free == 0);
                let block = if state.free == 0 { state.rest } else { state.free };
                if block as usize > BLOCKS {
                    return Err("there is no block");
                }
                let generation = match me.carves {
                    0 => state.block(block).generation,
                    _ => next_generation(state),
                };
                me.new = Link { block, generation };
                state.journal.new = if self.has(Bug::TakenBeforeNote) { NONE } else { me.new };
                me.at = match me.carves {
                    0 => At::Pop,
                    _ if self.has(Bug::RestBeforeWord) => At::MoveRest,
                    _ => At::Begin,
                };
            }
            At::Pop => {
                state.free = state.block(me.new.block).contents[0];
                me.at = At::Begin;
            }
            At::Begin => {
                let block = state.block(me.new.block);
                (block.committed, block.generation) = (1, me.new.generation);
                if self.has(Bug::TakenBeforeNote) {
                    state.journal.new = me.new;
                }
                me.at = if me.carves != 0 && !self.has(Bug::RestBeforeWord) { At::MoveRest } else { At::FillFirst };
            }
            At::MoveRest => {
                state.rest += 1;
                me.at = if self.has(Bug::RestBeforeWord) { At::Begin } else { At::FillFirst };
            }
            At::FillFirst => {
                state.block(me.new.block).contents[0] = me.value;
                me.at = At::FillSecond;
            }
            At::FillSecond => {
                state.block(me.new.block).contents[1] = me.value;
                me.at = At::NoteOld;
            }
            At::NoteOld => {
                state.journal.old = if self.has(Bug::OldNotNoted) { NONE } else { me.old };
                me.at = if self.has(Bug::CellBeforeValue) { At::WriteCell } else { At::WriteValue };
            }
            At::WriteValue => {
                state.journal.value = me.new;
                me.at = if self.has(Bug::CellBeforeValue) { At::Swing } else { At::WriteCell };
            }
            At::WriteCell => {
                state.journal.cell = 1;
                me.at = match self.bug {
                    Some(Bug::CellBeforeValue) => At::WriteValue,
                    Some(Bug::FreedBeforeCommit) if me.old != NONE => At::FreeEarly,
                    _ => At::Swing,
                };
            }
            At::FreeEarly => {
                self.unmake(state, me.old.block)?;
                me.at = At::Swing;
            }
            At::Swing => {
                state.cell = me.new;
                state.current = if me.removes != 0 { 0 } else { me.value };
                state.reader.current |= 1 << state.current;
                me.at = if me.old == NONE { At::ForgetNew } else { At::Unmake };
            }
            At::Unmake => {
                if self.has(Bug::NextBeforeGeneration) {
                    state.block(me.old.block).contents[0] = state.free;
                } else {
                    self.unmake(state, me.old.block)?;
                }
                me.at = At::WriteNext;
            }
            At::WriteNext => {
                if self.has(Bug::NextBeforeGeneration) {
                    self.unmake(state, me.old.block)?;
                } else {
                    state.block(me.old.block).contents[0] = state.free;
                }
                me.at = if self.has(Bug::OldForgottenFirst) { At::ForgetOld } else { At::Push };
            }
            At::Push => {
                state.free = me.old.block;
                me.at = if self.has(Bug::OldForgottenFirst) { At::ForgetNew } else { At::ForgetOld };
            }
            At::ForgetOld => {
                state.journal.old = NONE;
                me.at = if self.has(Bug::OldForgottenFirst) { At::Push } else { At::ForgetNew };
            }
            At::ForgetNew => {
                if self.has(Bug::CellClearedFirst) {
                    state.journal.cell = 0;
                } else {
                    state.journal.new = NONE;
                }
                me.at = At::ForgetCell;
            }
            At::ForgetCell => {
                state.journal.cell = 0;
                state.journal.new = NONE;
                me.at = if me.repairs != 0 { At::LoadCell } else { At::Unlock };
                me.repairs = 0;
            }
            At::Unlock => {
                state.lock = 0;
                *me = IDLE;
                process.rounds += 1;
            }
            At::Repair => {
                let committed = state.journal.cell != 0 && state.cell == state.journal.value;
                me.repairs = 1;
                me.at = if committed || self.has(Bug::RepairRollsForward) { At::RepairForward } else { At::RepairBack };
            }
            At::RepairForward => {
                me.old = state.journal.old;
                me.at = match self.free_again(state, me.old) {
                    Again::Unmake => At::Unmake,
                    Again::Push => At::WriteNext,
                    Again::Nothing => At::ForgetOld,
                };
            }
            At::RepairBack => {
                me.old = state.journal.new;
                let is_rest = me.old.block == state.rest && !self.has(Bug::RepairIgnoresRest);
                me.at = match self.free_again(state, me.old) {
                    _ if is_rest => At::BackForgetNew,
                    Again::Unmake => At::BackUnmake,
                    Again::Push => At::BackNext,
                    Again::Nothing => At::BackForgetNew,
                };
            }
            At::BackUnmake => {
                self.unmake(state, me.old.block)?;
                me.at = At::BackNext;
            }
            At::BackNext => {
                state.block(me.old.block).contents[0] = state.free;
                me.at = At::BackPush;
            }
            At::BackPush => {
                state.free = me.old.block;
                me.at = At::BackForgetNew;
            }
            At::BackForgetNew => {
                state.journal.new = NONE;
                me.at = At::BackForgetOld;
            }
            At::BackForgetOld => {
                state.journal.old = NONE;
                me.at = At::BackForgetCell;
            }
            At::BackForgetCell => {
                state.journal.cell = 0;
                me.repairs = 0;
                me.at = At::LoadCell;
            }
        }
        state.processes[who] = process;
        Ok(true)
    }

    /// What is left to be done to free a block that the journal of a dead owner names.
    fn free_again(&self, state: &State, link: Link) -> Again {
        let Some(number) = (link.block as usize).checked_sub(1) else { return Again::Nothing };
        let Block { committed, generation, .. } = state.blocks[number];
        if committed != 0 {
            return if generation == link.generation { Again::Unmake } else { Again::Nothing };
        }
        if state.free == link.block && !self.has(Bug::RepairPushesBlindly) { Again::Nothing } else { Again::Push }
    }

    fn unmake(&self, state: &mut State, number: u8) -> Result<(), Broken> {
        if state.cell.block == number {
            return Err("a reachable block is freed");
        }
        if !self.has(Bug::FreeKeepsGeneration) {
            let generation = next_generation(state);
            state.block(number).generation = generation;
        }
        state.block(number).committed = 0;
        Ok(())
    }

    /// One step of the reader, which reads once.
    pub(super) fn read(&self, state: &mut State) -> Result<bool, Broken> {
        let State { reader: me, cell, current, blocks, .. } = state;
        let block = |me: &Reader| blocks[me.link.block as usize - 1];
        match me.at {
            ReaderAt::LoadCell if me.done != 0 => return Ok(false),
            ReaderAt::LoadCell if *cell == NONE => *me = Reader { done: 1, ..READER },
            ReaderAt::LoadCell => {
                me.current = 1 << *current;
                me.link = *cell;
                me.at = ReaderAt::LoadGeneration;
            }
            ReaderAt::LoadGeneration => {
                me.generation = block(me).generation;
                if self.has(Bug::CellNotChecked) {
                    me.at = ReaderAt::CopyFirst;
                } else if me.generation == me.link.generation || self.has(Bug::FreeKeepsGeneration) {
                    me.at = ReaderAt::CheckCell;
                } else {
                    *me = READER;
                }
            }
            ReaderAt::CheckCell if *cell != me.link => *me = READER,
            ReaderAt::CheckCell => me.at = ReaderAt::CopyFirst,
            ReaderAt::CopyFirst => {
                me.copy[0] = block(me).contents[0];
                me.at = ReaderAt::CopySecond;
            }
            ReaderAt::CopySecond => {
                me.copy[1] = block(me).contents[1];
                me.at = ReaderAt::CheckGeneration;
            }
            ReaderAt::CheckGeneration => {
                if block(me).generation != me.generation && !self.has(Bug::GenerationNotChecked) {
                    *me = READER;
                    return Ok(true);
                }
                if me.copy[0] != me.copy[1] {
                    return Err("a reader accepts a torn value");
                }
                if me.current >> me.copy[0] & 1 == 0 {
                    return Err("a reader accepts a value that was not current during the read");
                }
                *me = Reader { done: 1, ..READER };
            }
        }
        Ok(true)
    }
}

/// What a repair still has to do with a block.
enum Again {
    Unmake,
    Push,
    Nothing,
}

fn next_generation(state: &mut State) -> u8 {
    state.generation += 1;
    state.generation
}
