//! The steps of a process: what it may begin, and how it goes on.

use zerocopy::{Immutable, IntoBytes};

use super::{Block, BlockState, Bug, Directory, EntryState, State, WORKERS, Word};
use crate::explorer::Broken;
use crate::life::Life;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, IntoBytes, Immutable)]
#[repr(u8)]
enum At {
    Idle,
    LookUpWord,
    LookUpName,
    LookUpObject,
    LookUpCheck,
    Lock,
    Scan,
    WriteName,
    MarkBuild,
    UnlockToBuild,
    UnlockToOpen,
    TakeOver,
    UnlockToWait,
    Wait,
    UnlockToRetry,
    ClaimBlock,
    FillFirst,
    FillSecond,
    WriteObject,
    Publish,
    Commit,
    UnlockToEnd,
    RemoveHoldBlock,
    RemoveEntry,
    RemoveBlock,
    RecoverLock,
    RecoverEntry,
    RecoverBuild,
    RecoverLook,
    RecoverCommit,
    RecoverBlock,
    RecoverDone,
}

/// The private words of a process.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Private {
    at: At,
    name: u8,
    removes: u8,
    entry: u8,
    /// The block that is built.
    block: u8,
    /// The block that an entry names.
    object: u8,
    index: u8,
    dead: u8,
    generation: u8,
    word: Word,
}

pub(super) const IDLE: Private = Private {
    at: At::Idle,
    name: 0,
    removes: 0,
    entry: 0,
    block: 0,
    object: 0,
    index: 0,
    dead: 0,
    generation: 0,
    word: Word::NONE,
};

impl Private {
    pub(super) fn is_idle(&self) -> bool {
        self.at == At::Idle
    }

    pub(super) fn recovers(&self) -> bool {
        self.at >= At::RecoverLock
    }

    pub(super) fn name(&self) -> u8 {
        self.name
    }

    fn next(&mut self, at: At) {
        self.index += 1;
        self.at = at;
    }
}

impl Directory {
    /// An idle process begins to create-or-open a name, or to remove it.
    pub(super) fn begin(&self, state: &mut State, who: usize, name: u8, removes: bool) -> bool {
        let me = &mut state.processes[who];
        if who >= WORKERS || me.rounds >= self.rounds {
            return false;
        }
        let at = if removes { At::Lock } else { At::LookUpWord };
        me.private = Private { at, name, removes: removes.into(), ..IDLE };
        true
    }

    /// An idle process finds a dead one and gets the recovery lock.
    pub(super) fn begin_recovery(&self, state: &mut State, who: usize) -> bool {
        let dead = state.processes.iter().position(|process| process.life == Life::Killed);
        let (Some(dead), 0) = (dead, state.recovery_lock) else { return false };
        state.recovery_lock = who as u8 + 1;
        state.processes[who].private = Private { at: At::RecoverLock, dead: dead as u8 + 1, ..IDLE };
        true
    }

    pub(super) fn act(&self, state: &mut State, who: usize) -> Result<bool, Broken> {
        let id = who as u8 + 1;
        let mut process = state.processes[who];
        let me = &mut process.private;
        let mut done = false;
        let index = me.index as usize;
        match me.at {
            At::Idle => return Ok(false),
            At::LookUpWord => match state.entries.get(index) {
                None => {
                    me.index = 0;
                    me.at = At::Lock;
                }
                Some(entry) => {
                    me.word = entry.word;
                    if me.word.state == EntryState::Ready {
                        me.at = At::LookUpName;
                    } else {
                        me.index += 1;
                    }
                }
            },
            At::LookUpName if state.entries[index].name == me.name => me.at = At::LookUpObject,
            At::LookUpName => me.next(At::LookUpWord),
            At::LookUpObject => {
                me.object = state.entries[index].object;
                me.at = At::LookUpCheck;
            }
            At::LookUpCheck => {
                if state.entries[index].word == me.word || self.has(Bug::LookUpNotChecked) {
                    opened(state, me)?;
                    done = true;
                } else {
                    *me = Private { at: At::LookUpWord, index: 0, object: 0, word: Word::NONE, ..*me };
                }
            }
            At::Lock if state.lock != 0 && !state.is_dead(state.lock) => return Ok(false),
            At::Lock => {
                state.lock = id;
                me.word = Word::NONE;
                me.index = 0;
                let blind = self.has(Bug::NoScanUnderLock) && me.removes == 0;
                me.at = if blind { At::WriteName } else { At::Scan };
            }
            At::Scan => self.scan(state, me),
            At::WriteName => {
                let free = state.entries.iter_mut().position(|entry| entry.word.state == EntryState::Free);
                match free {
                    None => me.at = At::UnlockToEnd,
                    Some(free) => {
                        me.entry = free as u8;
                        me.at = At::MarkBuild;
                        let entry = &mut state.entries[free];
                        if self.has(Bug::BuildBeforeName) {
                            entry.word = entry.word.next(EntryState::Build, id);
                        } else {
                            entry.name = me.name;
                        }
                    }
                }
            }
            At::MarkBuild => {
                let entry = &mut state.entries[me.entry as usize];
                if self.has(Bug::BuildBeforeName) {
                    entry.name = me.name;
                } else {
                    entry.word = entry.word.next(EntryState::Build, id);
                }
                me.at = At::UnlockToBuild;
            }
            At::UnlockToBuild => {
                state.lock = 0;
                me.word = state.entries[me.entry as usize].word;
                me.at = At::ClaimBlock;
            }
            At::UnlockToOpen => {
                state.lock = 0;
                opened(state, me)?;
                done = true;
            }
            At::TakeOver => {
                let word = &mut state.entries[me.entry as usize].word;
                if *word == me.word {
                    *word = word.next(EntryState::Build, id);
                    me.at = At::UnlockToBuild;
                } else {
                    me.at = At::UnlockToRetry;
                }
            }
            At::UnlockToWait => {
                state.lock = 0;
                me.at = At::Wait;
            }
            At::Wait => {
                let owner_is_dead = state.is_dead(me.word.owner) && !self.has(Bug::DeadBuilderIgnored);
                if state.entries[me.entry as usize].word == me.word && !owner_is_dead {
                    return Ok(false);
                }
                *me = Private { at: At::LookUpWord, index: 0, entry: 0, word: Word::NONE, ..*me };
            }
            At::UnlockToRetry => {
                state.lock = 0;
                *me = Private { at: At::LookUpWord, index: 0, entry: 0, object: 0, word: Word::NONE, ..*me };
            }
            At::ClaimBlock => {
                let free = state.blocks.iter().position(|block| block.state == BlockState::Free);
                let Some(free) = free else { return Ok(false) };
                state.blocks[free].own(id, BlockState::Held);
                me.block = free as u8 + 1;
                me.at = if self.has(Bug::ReadyBeforeInit) { At::FillSecond } else { At::FillFirst };
            }
            At::FillFirst => {
                my_block(state, me).object[0] = me.name;
                me.at = At::FillSecond;
            }
            At::FillSecond => {
                if !self.has(Bug::ReadyBeforeInit) {
                    my_block(state, me).object[1] = me.name;
                }
                me.at = At::WriteObject;
            }
            At::WriteObject => {
                state.entries[me.entry as usize].object = me.block;
                me.at = At::Publish;
            }
            At::Publish => {
                let word = &mut state.entries[me.entry as usize].word;
                if word.state != EntryState::Build || word.owner != id {
                    return Err("a live builder lost its entry");
                }
                *word = word.next(EntryState::Ready, 0);
                me.at = At::Commit;
            }
            At::Commit => {
                let block = my_block(state, me);
                if self.has(Bug::ReadyBeforeInit) {
                    block.object = [me.name; 2];
                }
                // A compare-and-swap: somebody who removes the name may be faster.
                if block.is_held_by(id) {
                    block.own(0, BlockState::Committed);
                }
                done = true;
            }
            At::UnlockToEnd => {
                state.lock = 0;
                done = true;
            }
            At::RemoveHoldBlock => {
                let block = &mut state.blocks[me.object as usize - 1];
                if self.has(Bug::RemoveFreesBlockFirst) {
                    block.own(0, BlockState::Free);
                    block.generation += 1;
                } else {
                    block.own(id, BlockState::Held);
                }
                me.at = At::RemoveEntry;
            }
            At::RemoveEntry => {
                let word = &mut state.entries[me.entry as usize].word;
                *word = word.next(EntryState::Free, word.owner);
                let block_is_free = self.has(Bug::RemoveFreesBlockFirst);
                me.at = if block_is_free { At::UnlockToEnd } else { At::RemoveBlock };
            }
            At::RemoveBlock => {
                free_block(state, me.object, id)?;
                me.at = At::UnlockToEnd;
            }
            At::RecoverLock => {
                state.lock = if state.lock == me.dead { 0 } else { state.lock };
                me.index = 0;
                me.at = At::RecoverEntry;
            }
            At::RecoverEntry => match state.entries.get(index) {
                None => {
                    me.index = 0;
                    me.word = Word::NONE;
                    me.at = At::RecoverBlock;
                }
                Some(entry) => {
                    me.word = entry.word;
                    let half_built = me.word.state == EntryState::Build && me.word.owner == me.dead;
                    if half_built && !self.has(Bug::DeadBuilderIgnored) {
                        me.at = At::RecoverBuild;
                    } else if me.word.state == EntryState::Ready && !self.has(Bug::NoCommitPass) {
                        me.at = At::RecoverLook;
                    } else {
                        me.index += 1;
                    }
                }
            },
            At::RecoverBuild => {
                let word = &mut state.entries[index].word;
                if *word == me.word || self.has(Bug::RecoveryStoresFree) {
                    *word = word.next(EntryState::Free, 0);
                }
                me.next(At::RecoverEntry);
            }
            At::RecoverLook => {
                let object = state.entries[index].object;
                match state.block(object).filter(|block| block.is_held_by(me.dead)) {
                    None => me.next(At::RecoverEntry),
                    Some(block) => {
                        me.object = object;
                        me.generation = block.generation;
                        me.at = At::RecoverCommit;
                    }
                }
            }
            At::RecoverCommit => {
                let block = &mut state.blocks[me.object as usize - 1];
                if block.is_held_by(me.dead) && block.generation == me.generation {
                    block.own(0, BlockState::Committed);
                }
                me.object = 0;
                me.generation = 0;
                me.next(At::RecoverEntry);
            }
            At::RecoverBlock => match state.blocks.get(index) {
                None => me.at = At::RecoverDone,
                Some(block) => {
                    if block.is_held_by(me.dead) {
                        free_block(state, me.index + 1, me.dead)?;
                    }
                    me.index += 1;
                }
            },
            At::RecoverDone => {
                state.processes[me.dead as usize - 1].life = Life::Recovered;
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

    /// Under the lock an entry changes only by its builder (BUILD to READY) and by the recovery of a dead one.
    fn scan(&self, state: &State, me: &mut Private) {
        let Some(entry) = state.entries.get(me.index as usize) else {
            me.at = if me.removes != 0 { At::UnlockToEnd } else { At::WriteName };
            return;
        };
        let overlooked = entry.word.state == EntryState::Build && self.has(Bug::ScanIgnoresBuild);
        if entry.word.state == EntryState::Free || entry.name != me.name || overlooked {
            me.index += 1;
            return;
        }
        me.word = entry.word;
        me.entry = me.index;
        let owner_is_dead = state.is_dead(entry.word.owner) && !self.has(Bug::DeadBuilderIgnored);
        me.at = if entry.word.state == EntryState::Ready {
            me.object = entry.object;
            if me.removes != 0 { At::RemoveHoldBlock } else { At::UnlockToOpen }
        } else if me.removes != 0 {
            At::UnlockToEnd
        } else if owner_is_dead || self.has(Bug::BuilderNotProvenDead) {
            At::TakeOver
        } else {
            At::UnlockToWait
        };
    }
}

fn my_block<'a>(state: &'a mut State, me: &Private) -> &'a mut Block {
    &mut state.blocks[me.block as usize - 1]
}

fn opened(state: &State, me: &Private) -> Result<(), Broken> {
    match state.block(me.object) {
        Some(block) if block.is_complete(me.name) => Ok(()),
        _ => Err("an object is opened that is not complete, or of another name"),
    }
}

fn free_block(state: &mut State, number: u8, owner: u8) -> Result<(), Broken> {
    let named = |entry: &super::Entry| entry.word.state == EntryState::Ready && entry.object == number;
    if state.entries.iter().any(named) {
        return Err("the block of a READY entry is freed");
    }
    let block = &mut state.blocks[number as usize - 1];
    if block.state == BlockState::Free {
        return Err("a block is freed twice");
    }
    if block.owner != owner {
        return Err("a block of another process is freed");
    }
    block.own(0, BlockState::Free);
    block.generation += 1;
    Ok(())
}
