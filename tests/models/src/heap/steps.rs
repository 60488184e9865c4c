//! The steps of writers, of recovery and of the reader.

use zerocopy::{Immutable, IntoBytes};

use super::{BlockState, Bug, Heap, Journal, NO_JOURNAL, State, WRITERS, Word};
use crate::explorer::Broken;
use crate::life::Life;

/// In this order: what is outside the lock, what is under it, what is recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, IntoBytes, Immutable)]
#[repr(u8)]
enum At {
    Idle,
    FindBlock,
    ClaimBlock,
    /// Of [`Bug::OwnerAfterClaim`].
    WriteOwner,
    FillFirst,
    FillSecond,
    Lock,
    LoadCell,
    WriteJournal,
    HoldOld,
    Swing,
    CommitNew,
    FreeOld,
    ClearJournal,
    Unlock,
    RepairBegin,
    RepairLook,
    RepairBlock,
    RepairClearJournal,
    RepairEnd,
    RecoverUnlock,
    RecoverContainer,
    SweepLook,
    SweepFree,
    RecoverDone,
}

/// The private words of a writer or the janitor.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Private {
    at: At,
    removes: u8,
    value: u8,
    new: u8,
    old: u8,
    /// The word of the block that is claimed, repaired or swept, as it was looked at.
    seen: Word,
    index: u8,
    dead: u8,
    /// Where to go on after a repair.
    then: At,
}

pub(super) const IDLE: Private =
    Private { at: At::Idle, removes: 0, value: 0, new: 0, old: 0, seen: Word::NONE, index: 0, dead: 0, then: At::Idle };

impl Private {
    pub(super) fn is_idle(&self) -> bool {
        self.at == At::Idle
    }

    /// Whether it is under the lock. With [`Bug::CommitAfterUnlock`] one step comes after it.
    pub(super) fn is_inside(&self, commits_after_unlock: bool) -> bool {
        let outside = commits_after_unlock && self.at == At::CommitNew;
        self.at >= At::LoadCell && self.at <= At::RecoverUnlock && !outside
    }

    pub(super) fn recovers(&self) -> bool {
        self.at >= At::RecoverUnlock || self.then == At::RecoverUnlock
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
    block: u8,
    generation: u8,
    copy: [u8; 2],
    /// One bit for each value that was current since this try began.
    current: u8,
}

pub(super) const READER: Reader =
    Reader { at: ReaderAt::LoadCell, done: 0, block: 0, generation: 0, copy: [0; 2], current: 0 };

impl Reader {
    pub(super) fn is_done(&self) -> bool {
        self.done != 0
    }
}

impl Heap {
    /// An idle writer begins to put a new value, or to remove the current one.
    pub(super) fn begin(&self, state: &mut State, who: usize, removes: bool) -> bool {
        let me = &mut state.processes[who];
        if who >= WRITERS || me.rounds >= self.rounds {
            return false;
        }
        let at = if removes { At::Lock } else { At::FindBlock };
        let value = 1 + who as u8 * self.rounds + me.rounds;
        me.private = Private { at, removes: removes.into(), value, ..IDLE };
        true
    }

    /// An idle process finds a dead one and gets the recovery lock.
    pub(super) fn begin_recovery(&self, state: &mut State, who: usize) -> bool {
        let dead = state.processes.iter().position(|process| process.life == Life::Killed);
        let (Some(dead), 0) = (dead, state.recovery_lock) else { return false };
        state.recovery_lock = who as u8 + 1;
        state.processes[who].private = Private { at: At::RecoverContainer, dead: dead as u8 + 1, ..IDLE };
        true
    }

    pub(super) fn act(&self, state: &mut State, who: usize) -> Result<bool, Broken> {
        let id = who as u8 + 1;
        let mut process = state.processes[who];
        let me = &mut process.private;
        let mut done = false;
        match me.at {
            At::Idle => return Ok(false),
            At::FindBlock => {
                let free = state.blocks.iter().position(|block| block.word.state == BlockState::Free);
                let Some(free) = free else { return Ok(false) };
                me.new = free as u8 + 1;
                me.seen.generation = state.blocks[free].word.generation;
                me.at = At::ClaimBlock;
            }
            At::ClaimBlock => {
                let block = state.block(me.new);
                let late = self.has(Bug::OwnerAfterClaim);
                if block.word.state == BlockState::Free && block.word.generation == me.seen.generation {
                    block.own(BlockState::Held, if late { 0 } else { id });
                    me.at = if late { At::WriteOwner } else { At::FillFirst };
                } else {
                    me.at = At::FindBlock;
                }
            }
            At::WriteOwner => {
                state.block(me.new).word.owner = id;
                me.at = At::FillFirst;
            }
            At::FillFirst => {
                state.block(me.new).value[0] = me.value;
                me.at = At::FillSecond;
            }
            At::FillSecond => {
                state.block(me.new).value[1] = me.value;
                me.at = At::Lock;
            }
            At::Lock if state.lock == 0 => {
                state.lock = id;
                me.at = At::LoadCell;
            }
            At::Lock if state.is_dead(state.lock) => {
                let repairs = !self.has(Bug::TakerDoesNotRepair);
                state.lock = id;
                state.recovering = repairs.into();
                me.at = if repairs { At::RepairBegin } else { At::LoadCell };
                me.then = At::LoadCell;
            }
            At::Lock => return Ok(false),
            At::LoadCell => {
                me.old = state.cell;
                me.at = if me.removes != 0 && me.old == 0 {
                    At::Unlock
                } else if self.has(Bug::HeldBeforeJournal) {
                    At::HoldOld
                } else {
                    At::WriteJournal
                };
            }
            At::WriteJournal => {
                state.journal = Journal { owner: id, new: me.new, old: me.old };
                let held = self.has(Bug::HeldBeforeJournal) || me.old == 0;
                me.at = if held { At::Swing } else { At::HoldOld };
            }
            At::HoldOld => {
                if me.old != 0 && !self.has(Bug::OldNotHeld) {
                    let block = state.block(me.old);
                    if block.word.state != BlockState::Committed {
                        return Err("an old block is not committed");
                    }
                    block.own(BlockState::Held, id);
                }
                me.at = if self.has(Bug::HeldBeforeJournal) { At::WriteJournal } else { At::Swing };
            }
            At::Swing => {
                let removes = me.removes != 0;
                state.cell = if removes { 0 } else { me.new };
                state.current = if removes { 0 } else { me.value };
                state.reader.current |= 1 << state.current;
                me.at = if self.has(Bug::CommitAfterUnlock) { At::FreeOld } else { At::CommitNew };
            }
            At::CommitNew => {
                if me.new != 0 {
                    let block = state.block(me.new);
                    if !block.word.is_held_by(id) {
                        return Err("a new block is not its writer's at the commit");
                    }
                    block.own(BlockState::Committed, 0);
                }
                done = self.has(Bug::CommitAfterUnlock);
                me.at = At::FreeOld;
            }
            At::FreeOld => {
                if me.old != 0 {
                    let holder = if self.has(Bug::OldNotHeld) { None } else { Some(id) };
                    self.free(state, me.old, holder, !self.has(Bug::FreeKeepsGeneration))?;
                }
                me.at = At::ClearJournal;
            }
            At::ClearJournal => {
                state.journal = NO_JOURNAL;
                me.at = At::Unlock;
            }
            At::Unlock => {
                state.lock = 0;
                state.recovering = 0;
                done = !(self.has(Bug::CommitAfterUnlock) && me.new != 0);
                me.at = At::CommitNew;
            }
            At::RepairBegin => {
                if self.has(Bug::RecoveringClearedFirst) {
                    state.recovering = 0;
                }
                me.index = 0;
                me.at = if state.journal.owner == 0 { At::RepairEnd } else { At::RepairLook };
            }
            At::RepairLook => self.look_at_journal(state, me),
            At::RepairBlock => {
                let reachable = state.cell == me.old;
                let block = state.block(me.old);
                if block.word == me.seen {
                    if reachable {
                        block.own(BlockState::Committed, 0);
                    } else {
                        self.free(state, me.old, None, !self.has(Bug::RepairKeepsGeneration))?;
                    }
                }
                if self.has(Bug::RepairIgnoresOwner) && !state.is_dead(me.seen.owner) {
                    return Err("repair frees a block that a live process has allocated");
                }
                me.index += 1;
                me.at = At::RepairLook;
            }
            At::RepairClearJournal => {
                state.journal = NO_JOURNAL;
                me.at = At::RepairEnd;
            }
            At::RepairEnd => {
                state.recovering = 0;
                *me = Private { at: me.then, then: At::Idle, index: 0, old: 0, seen: Word::NONE, ..*me };
            }
            At::RecoverUnlock => {
                state.lock = 0;
                me.at = At::RecoverContainer;
            }
            At::RecoverContainer => {
                if self.has(Bug::SlotReusedEarly) {
                    state.processes[me.dead as usize - 1].life = Life::Recovered;
                }
                let looks = !self.has(Bug::SweepBeforeRepair);
                if looks && state.is_dead(state.lock) {
                    state.lock = id;
                    state.recovering = 1;
                    me.at = At::RepairBegin;
                    me.then = At::RecoverUnlock;
                } else if looks && state.recovering != 0 {
                    return Ok(false);
                } else {
                    me.index = 0;
                    me.at = At::SweepLook;
                }
            }
            At::SweepLook => match state.blocks.get(me.index as usize) {
                None => me.at = At::RecoverDone,
                Some(block) if block.word.is_held_by(me.dead) => {
                    me.seen.generation = block.word.generation;
                    me.at = At::SweepFree;
                }
                Some(_) => me.index += 1,
            },
            At::SweepFree => {
                let word = state.blocks[me.index as usize].word;
                if word.is_held_by(me.dead) && word.generation == me.seen.generation {
                    self.free(state, me.index + 1, Some(me.dead), true)?;
                }
                me.seen.generation = 0;
                me.index += 1;
                me.at = At::SweepLook;
            }
            At::RecoverDone => {
                let dead = &mut state.processes[me.dead as usize - 1].life;
                if *dead == Life::Killed {
                    *dead = Life::Recovered;
                }
                state.recovery_lock = 0;
                *me = IDLE;
            }
        }
        if done {
            process.private = IDLE;
            process.rounds += 1;
        }
        state.processes[who] = process;
        Ok(true)
    }

    /// A step of repair: the new block of the journal, then the old one, then the journal itself.
    fn look_at_journal(&self, state: &mut State, me: &mut Private) {
        let named = match me.index {
            0 => state.journal.new,
            1 => state.journal.old,
            _ => {
                me.at = At::RepairClearJournal;
                return;
            }
        };
        if named == 0 {
            me.index += 1;
            return;
        }
        me.old = named;
        me.seen = state.block(named).word;
        if self.has(Bug::JournalClearedFirst) && me.index == 0 {
            state.journal.owner = 0;
        }
        let any_owner = self.has(Bug::RepairIgnoresOwner) || self.has(Bug::JournalClearedFirst);
        if me.seen.state == BlockState::Held && (me.seen.owner == state.journal.owner || any_owner) {
            me.at = At::RepairBlock;
        } else {
            me.index += 1;
        }
    }

    fn free(&self, state: &mut State, number: u8, holder: Option<u8>, bumps: bool) -> Result<(), Broken> {
        let cell = state.cell;
        let word = &mut state.block(number).word;
        if word.state == BlockState::Free {
            return Err("a block is freed twice");
        }
        if holder.is_some_and(|holder| word.owner != holder) {
            return Err("a block is freed that somebody else holds");
        }
        if cell == number {
            return Err("a reachable block is freed");
        }
        let generations = if self.has(Bug::GenerationWraps) { 2 } else { 64 };
        let generation = (word.generation + u8::from(bumps)) % generations;
        *word = Word { state: BlockState::Free, owner: 0, generation };
        Ok(())
    }

    /// One step of the reader, which reads once.
    pub(super) fn read(&self, state: &mut State) -> Result<bool, Broken> {
        let State { reader: me, cell, current, blocks, .. } = state;
        let block = |me: &Reader| blocks[me.block as usize - 1];
        match me.at {
            ReaderAt::LoadCell if me.done != 0 => return Ok(false),
            ReaderAt::LoadCell if *cell == 0 => *me = Reader { done: 1, ..READER },
            ReaderAt::LoadCell => {
                me.current = 1 << *current;
                me.block = *cell;
                me.at = ReaderAt::LoadGeneration;
            }
            ReaderAt::LoadGeneration => {
                me.generation = block(me).word.generation;
                me.at = if self.has(Bug::CellNotChecked) { ReaderAt::CopyFirst } else { ReaderAt::CheckCell };
            }
            ReaderAt::CheckCell if *cell != me.block => *me = READER,
            ReaderAt::CheckCell => me.at = ReaderAt::CopyFirst,
            ReaderAt::CopyFirst => {
                me.copy[0] = block(me).value[0];
                me.at = ReaderAt::CopySecond;
            }
            ReaderAt::CopySecond => {
                me.copy[1] = block(me).value[1];
                me.at = ReaderAt::CheckGeneration;
            }
            ReaderAt::CheckGeneration => {
                let unchanged = block(me).word.generation == me.generation;
                if !unchanged && !self.has(Bug::GenerationNotChecked) {
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
