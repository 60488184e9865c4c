//! The steps of the recoverer.

use zerocopy::{Immutable, IntoBytes};

use super::{BlockState, BlockWord, Bug, NONE, Queue, Recovery, SLOTS, Slot, SlotState, State};
use crate::life::Life;

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum At {
    Idle,
    LookAtSlot,
    LoadBlock,
    BlockPending,
    FreeSlot,
    CollectSlot,
    LookAtBlock,
    /// Is the block in the ring? If not, it is freed (W) or requeued (RQP).
    SearchRing,
    FreeBlock,
    Requeue,
    Done,
}

/// The private words of the recoverer.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Recoverer {
    at: At,
    /// The number of the dead process.
    dead: u8,
    /// The slot or block that is looked at.
    index: u8,
    slot: Slot,
    block: u8,
    word: BlockWord,
    /// One bit for each block that was seen in the ring.
    in_ring: u8,
}

impl Recoverer {
    pub(super) const START: Self =
        Self { at: At::Idle, dead: 0, index: 0, slot: Slot::free(0), block: NONE, word: BlockWord::NONE, in_ring: 0 };

    pub(super) fn is_idle(&self) -> bool {
        self.at == At::Idle
    }

    /// The place of the dead process in the registry.
    pub(super) fn dead(&self) -> usize {
        self.dead as usize - 1
    }

    fn next(&mut self, at: At) {
        self.index += 1;
        self.at = at;
    }
}

impl Queue {
    /// One step of recovery; false if there is nothing to do.
    pub(super) fn recover(&self, state: &mut State) -> bool {
        let State { recoverer: me, slots, blocks, life, .. } = state;
        let index = me.index as usize;
        match me.at {
            At::Idle => {
                let Some(dead) = life.iter().position(|&life| life == Life::Killed) else { return false };
                me.dead = dead as u8 + 1;
                me.index = 0;
                let scan_first = self.has(Bug::RingScannedBeforeSlotsFreed);
                me.at = if scan_first { At::CollectSlot } else { At::LookAtSlot };
            }
            At::LookAtSlot if index >= SLOTS => {
                me.index = 0;
                if self.has(Bug::SlotReusedEarly) {
                    life[me.dead()] = Life::Recovered;
                }
                me.at = match self.recovery {
                    Recovery::RingForEachBlock => At::LookAtBlock,
                    Recovery::OnePass if self.has(Bug::RingScannedBeforeSlotsFreed) => At::LookAtBlock,
                    Recovery::OnePass => At::CollectSlot,
                };
            }
            At::LookAtSlot => {
                me.slot = slots[index];
                if me.slot.state == SlotState::Taken && me.slot.owner == me.dead {
                    me.block = me.slot.block;
                    me.at = At::LoadBlock;
                } else {
                    me.index += 1;
                }
            }
            At::LoadBlock => {
                me.word = blocks[me.block as usize].word;
                me.at = At::BlockPending;
            }
            At::BlockPending => {
                let block = &mut blocks[me.block as usize];
                let undelivered =
                    me.word.state == BlockState::Write || me.word.state == BlockState::Read && me.word.owner == me.dead;
                if undelivered && block.word == me.word {
                    let early = self.has(Bug::RequeuedWhileInSlot);
                    block.own(0, if early { BlockState::Requeued } else { BlockState::RequeuePending });
                }
                me.at = At::FreeSlot;
            }
            At::FreeSlot => {
                if slots[index] == me.slot {
                    slots[index] = Slot::free(me.slot.lap + 1);
                }
                me.next(At::LookAtSlot);
            }
            At::CollectSlot if index >= SLOTS => {
                me.index = 0;
                let scan_first = self.has(Bug::RingScannedBeforeSlotsFreed);
                me.at = if scan_first { At::LookAtSlot } else { At::LookAtBlock };
            }
            At::CollectSlot => {
                let slot = slots[index];
                if slot.state != SlotState::Free {
                    me.in_ring |= 1 << slot.block;
                }
                me.index += 1;
            }
            At::LookAtBlock if index >= self.blocks => me.at = At::Done,
            At::LookAtBlock => {
                me.word = blocks[index].word;
                self.judge(me);
            }
            At::SearchRing if me.block as usize >= SLOTS => {
                me.at = if me.word.state == BlockState::Write { At::FreeBlock } else { At::Requeue };
            }
            At::SearchRing => {
                if slots[me.block as usize].names(me.index) {
                    me.block = NONE;
                    me.next(At::LookAtBlock);
                } else {
                    me.block += 1;
                }
            }
            At::FreeBlock => {
                if blocks[index].word == me.word {
                    blocks[index].release();
                }
                me.block = NONE;
                me.next(At::LookAtBlock);
            }
            At::Requeue => {
                if blocks[index].word == me.word {
                    blocks[index].own(0, BlockState::Requeued);
                }
                me.next(At::LookAtBlock);
            }
            At::Done => {
                life[me.dead()] = Life::Recovered;
                *me = Recoverer::START;
            }
        }
        true
    }

    /// What becomes of the block whose word was just loaded.
    fn judge(&self, me: &mut Recoverer) {
        let mine = me.word.owner == me.dead;
        let in_ring = me.in_ring >> me.index & 1 != 0;
        match me.word.state {
            BlockState::Read if mine => me.at = At::Requeue,
            BlockState::Write if mine && self.has(Bug::WrittenFreedWithoutScan) => me.at = At::FreeBlock,
            BlockState::Write if mine && self.has(Bug::WrittenRequeued) => me.at = At::Requeue,
            BlockState::RequeuePending if self.has(Bug::PendingRequeuedWithoutScan) => me.at = At::Requeue,
            BlockState::Write | BlockState::RequeuePending if in_ring => me.next(At::LookAtBlock),
            BlockState::Write if !mine => me.next(At::LookAtBlock),
            BlockState::Write | BlockState::RequeuePending if self.recovery == Recovery::RingForEachBlock => {
                me.block = 0;
                me.at = At::SearchRing;
            }
            BlockState::Write => me.at = At::FreeBlock,
            BlockState::RequeuePending => me.at = At::Requeue,
            _ => me.next(At::LookAtBlock),
        }
    }
}
