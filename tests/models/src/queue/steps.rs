//! The steps of producers and consumers.

use zerocopy::{Immutable, IntoBytes};

use super::{Block, BlockState, BlockWord, Bug, MAX_PRODUCERS, NONE, Queue, SLOTS, Slot, SlotState, State};
use crate::explorer::Broken;
use crate::life::Life;

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum ProducerAt {
    FindBlock,
    Claim,
    WriteOwner,
    FillHalf,
    FillRest,
    LoadTail,
    LoadSlot,
    Commit,
    Advance,
    Help,
}

/// The private words of a producer.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Producer {
    at: ProducerAt,
    /// Messages that are committed, or were given up with a killed predecessor.
    pub(super) sent: u8,
    block: u8,
    word: BlockWord,
    ticket: u8,
    slot: Slot,
}

impl Producer {
    pub(super) const START: Self =
        Self { at: ProducerAt::FindBlock, sent: 0, block: NONE, word: BlockWord::NONE, ticket: 0, slot: Slot::free(0) };

    /// What is left for a successor: it does not send a committed message again.
    pub(super) fn killed(&mut self) {
        let sent = self.sent + u8::from(self.at == ProducerAt::Advance);
        *self = Self { sent, ..Self::START };
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum ConsumerAt {
    Look,
    LoadSlot,
    Take,
    Help,
    Advance,
    OwnBlock,
    FreeSlot,
    Deliver,
    Release,
    Adopt,
    DeliverAgain,
}

/// The private words of a consumer.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Consumer {
    at: ConsumerAt,
    block: u8,
    word: BlockWord,
    ticket: u8,
    slot: Slot,
}

impl Consumer {
    pub(super) const START: Self =
        Self { at: ConsumerAt::Look, block: NONE, word: BlockWord::NONE, ticket: 0, slot: Slot::free(0) };
}

/// The slot of a ticket.
fn place(ticket: u8) -> usize {
    ticket as usize % SLOTS
}

/// The lap of a ticket.
fn lap(ticket: u8) -> u8 {
    ticket / SLOTS as u8
}

impl Queue {
    /// One step of a producer; false if it cannot move.
    pub(super) fn produce(&self, state: &mut State, who: usize) -> bool {
        let id = who as u8 + 1;
        let State { producers, blocks, slots, tail, messages, .. } = state;
        let me = &mut producers[who];
        let message = self.message(who, me.sent);
        match me.at {
            ProducerAt::FindBlock => {
                let free = |block: &Block| block.word.state == BlockState::Free;
                let Some(found) = blocks[..self.blocks].iter().position(free) else { return false };
                if me.sent >= self.messages {
                    return false;
                }
                me.block = found as u8;
                me.word = blocks[found].word;
                me.at = ProducerAt::Claim;
            }
            ProducerAt::Claim => {
                let block = &mut blocks[me.block as usize];
                if block.word == me.word {
                    let two_steps = self.has(Bug::LoanInTwoSteps);
                    block.own(if two_steps { 0 } else { id }, BlockState::Write);
                    block.word.generation += 1;
                    me.at = if two_steps { ProducerAt::WriteOwner } else { ProducerAt::FillHalf };
                } else {
                    me.at = ProducerAt::FindBlock;
                }
            }
            ProducerAt::WriteOwner => {
                blocks[me.block as usize].word.owner = id;
                me.at = ProducerAt::FillHalf;
            }
            ProducerAt::FillHalf => {
                blocks[me.block as usize].payload = 1 + 2 * message;
                me.at = ProducerAt::FillRest;
            }
            ProducerAt::FillRest => {
                blocks[me.block as usize].payload = 2 + 2 * message;
                me.at = ProducerAt::LoadTail;
            }
            ProducerAt::LoadTail => {
                me.ticket = *tail;
                me.at = ProducerAt::LoadSlot;
            }
            ProducerAt::LoadSlot => {
                me.slot = slots[place(me.ticket)];
                me.at = if me.slot.lap == lap(me.ticket) && me.slot.state == SlotState::Free {
                    ProducerAt::Commit
                } else if me.slot.lap >= lap(me.ticket) {
                    ProducerAt::Help
                } else {
                    ProducerAt::LoadTail
                };
            }
            ProducerAt::Commit => {
                let slot = &mut slots[place(me.ticket)];
                if *slot == me.slot {
                    *slot = Slot { lap: me.slot.lap, state: SlotState::Ready, owner: 0, block: me.block };
                    messages[message as usize].committed = 1;
                    me.at = ProducerAt::Advance;
                } else {
                    me.at = ProducerAt::LoadTail;
                }
            }
            ProducerAt::Advance => {
                *tail += u8::from(*tail == me.ticket);
                *me = Producer { sent: me.sent + 1, ..Producer::START };
            }
            ProducerAt::Help => {
                *tail += u8::from(*tail == me.ticket);
                me.at = ProducerAt::LoadTail;
            }
        }
        true
    }

    /// One step of a consumer.
    ///
    /// # Errors
    ///
    /// What is wrong with a message that it delivers.
    pub(super) fn consume(&self, state: &mut State, consumer: usize) -> Result<bool, Broken> {
        let id = (self.producers + consumer + 1) as u8;
        let State { consumers, blocks, slots, head, .. } = state;
        let me = &mut consumers[consumer];
        match me.at {
            ConsumerAt::Look => {
                let requeued = |block: &Block| block.word.state == BlockState::Requeued;
                if let Some(found) = blocks[..self.blocks].iter().position(requeued) {
                    me.block = found as u8;
                    me.word = blocks[found].word;
                    me.at = ConsumerAt::Adopt;
                    return Ok(true);
                }
                let slot = slots[place(*head)];
                if slot.lap < lap(*head) || slot.lap == lap(*head) && slot.state == SlotState::Free {
                    return Ok(false);
                }
                me.ticket = *head;
                me.at = ConsumerAt::LoadSlot;
            }
            ConsumerAt::LoadSlot => {
                me.slot = slots[place(me.ticket)];
                let same_lap = me.slot.lap == lap(me.ticket);
                me.at = if same_lap && me.slot.state == SlotState::Ready {
                    ConsumerAt::Take
                } else if me.slot.lap > lap(me.ticket) || same_lap && me.slot.state == SlotState::Taken {
                    ConsumerAt::Help
                } else {
                    ConsumerAt::Look
                };
            }
            ConsumerAt::Take => {
                let slot = &mut slots[place(me.ticket)];
                if *slot == me.slot {
                    *slot = Slot { state: SlotState::Taken, owner: id, ..me.slot };
                    me.block = me.slot.block;
                    me.at = ConsumerAt::Advance;
                } else {
                    me.at = ConsumerAt::Look;
                }
            }
            ConsumerAt::Help => {
                *head += u8::from(*head == me.ticket);
                me.at = ConsumerAt::Look;
            }
            ConsumerAt::Advance => {
                *head += u8::from(*head == me.ticket);
                me.at = match self.bug {
                    Some(Bug::SlotFreedBeforeBlockOwned | Bug::BlockNotOwned) => ConsumerAt::FreeSlot,
                    _ => ConsumerAt::OwnBlock,
                };
            }
            ConsumerAt::OwnBlock => {
                blocks[me.block as usize].own(id, BlockState::Read);
                let slot_is_free = self.has(Bug::SlotFreedBeforeBlockOwned);
                me.at = if slot_is_free { ConsumerAt::Deliver } else { ConsumerAt::FreeSlot };
            }
            ConsumerAt::FreeSlot => {
                slots[place(me.ticket)] = Slot::free(me.slot.lap + 1);
                let block_is_not_mine = self.has(Bug::SlotFreedBeforeBlockOwned);
                me.at = if block_is_not_mine { ConsumerAt::OwnBlock } else { ConsumerAt::Deliver };
            }
            ConsumerAt::Deliver | ConsumerAt::DeliverAgain => {
                let again = me.at == ConsumerAt::DeliverAgain;
                me.at = ConsumerAt::Release;
                let payload = blocks[me.block as usize].payload;
                self.deliver(state, consumer, payload, again)?;
            }
            ConsumerAt::Release => {
                blocks[me.block as usize].release();
                *me = Consumer::START;
            }
            ConsumerAt::Adopt => {
                let block = &mut blocks[me.block as usize];
                if block.word == me.word {
                    block.own(id, BlockState::Read);
                    me.at = ConsumerAt::DeliverAgain;
                } else {
                    me.block = NONE;
                    me.at = ConsumerAt::Look;
                }
            }
        }
        Ok(true)
    }

    fn deliver(&self, state: &mut State, consumer: usize, payload: u8, again: bool) -> Result<(), Broken> {
        let Some(complete) = payload.checked_sub(2).filter(|payload| payload % 2 == 0) else {
            return Err("an incomplete payload is delivered");
        };
        let message = complete / 2;
        let State { messages, life, last, .. } = state;
        let seen = &mut messages[message as usize];
        if seen.committed == 0 {
            return Err("a message is delivered that was never committed");
        }
        if seen.receiver != 0 && seen.receiver != NONE && life[seen.receiver as usize - 1] == Life::Alive {
            return Err("a message is delivered twice, though its first receiver lives");
        }
        seen.receiver = (self.producers + consumer + 1) as u8;
        if !again {
            let last: &mut [u8; MAX_PRODUCERS] = &mut last[consumer];
            let last = &mut last[(message / self.messages) as usize];
            let nth = message % self.messages + 1;
            if *last >= nth {
                return Err("the messages of one producer come out of order");
            }
            *last = nth;
        }
        Ok(())
    }
}
