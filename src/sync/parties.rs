//! The table of arrivals that a [`super::Barrier`] is made of: its words and how they change.

use crate::error::{Result, SyncError, corrupt};
use crate::kinds::Kind;
use crate::segment::object::HEADER;
use crate::segment::wait;
use crate::segment::{Attachment, Dead, Extent, atomic, fetch};
use shmkit_layouts::kinds::KIND_BARRIER;
use shmkit_layouts::objects::*;
use shmkit_layouts::words::{Arrival, BarrierState, Token};
use std::sync::atomic::{AtomicU64, Ordering};

/// What recovery does with barriers.
pub(crate) const KIND: Kind = Kind { recover, wake, ..Kind::plain(KIND_BARRIER) };

fn recover(attachment: &Attachment, body: &Extent, dead: Dead) {
    if let Some(parties) = parties(attachment, body) {
        parties.bury(dead.token());
        wait::wake_everybody(atomic!(parties.body, event));
    }
}

fn wake(attachment: &Attachment, body: &Extent) {
    if let Ok(barrier) = attachment.pointer::<BarrierBody>(body.offset + HEADER, "barrier") {
        wait::wake_everybody(atomic!(barrier, event));
    }
}

/// The table of a body that nobody has checked.
fn parties(attachment: &Attachment, body: &Extent) -> Option<Parties> {
    let barrier = attachment.pointer::<BarrierBody>(body.offset + HEADER, "barrier").ok()?;
    let room = (body.len - HEADER).checked_sub(size_of::<BarrierBody>() as u64)? / 8;
    let count = fetch!(barrier, parties);
    (u64::from(count) <= room).then(|| Parties::new(barrier, count, body.offset + HEADER))
}

/// Phase of a state that nobody of ours can have written.
const SCRIBBLED: u32 = u32::MAX;

/// Why a barrier is broken, as its state says.
fn cause(state: BarrierState) -> &'static str {
    match (state.phase, state.owner) {
        (BARRIER_RESETTING, _) => "it was reset",
        (_, BROKEN_TIME_OUT) => "a party did not wait any longer",
        (_, BROKEN_ACTION) => "its action failed",
        (_, BROKEN_DEATH) => "a party died",
        _ => "it was aborted",
    }
}

/// State and arrivals of one barrier.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parties {
    pub(super) body: *const BarrierBody,
    count: u32,
    /// Where the body lies in the segment.
    offset: u64,
}

impl Parties {
    /// The table at `body`, which is followed by `count` arrival words inside the mapping.
    pub(super) fn new(body: *const BarrierBody, count: u32, offset: u64) -> Parties {
        Parties { body, count, offset }
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    fn word(&self) -> &AtomicU64 {
        atomic!(self.body, state)
    }

    fn arrivals(&self) -> &[AtomicU64] {
        // SAFETY: so many words follow the body inside the mapping (`new`); they are atomics.
        unsafe { std::slice::from_raw_parts(self.body.wrapping_add(1).cast(), self.count as usize) }
    }

    fn arrival(&self, index: u32) -> Arrival {
        // SeqCst pairs with the claims: the last of those who arrive sees all the others.
        Arrival::unpack(self.arrivals()[index as usize].load(Ordering::SeqCst))
    }

    pub(super) fn state(&self) -> BarrierState {
        let word = self.word().load(Ordering::SeqCst);
        let state = BarrierState::unpack(word);
        // Bits that nobody sets: no phase at all, or a compare-and-swap from the packed word would never succeed.
        if state.pack() == word { state } else { BarrierState { phase: SCRIBBLED, ..state } }
    }

    /// One step of the state; everybody is told. False if it is not `from` any more.
    pub(super) fn change(&self, from: BarrierState, phase: u32, owner: u32) -> bool {
        let round = if phase == BARRIER_FILLING { from.round.wrapping_add(1) } else { from.round };
        let to = BarrierState { phase, owner, round };
        // SeqCst: before the look at the wait word; pairs with the loads of those who wait.
        let changed = self.word().compare_exchange(from.pack(), to.pack(), Ordering::SeqCst, Ordering::Relaxed).is_ok();
        if changed {
            failpoint!("barrier.changed");
            wait::publish_all(atomic!(self.body, event));
        }
        changed
    }

    pub(super) fn corrupt(&self, found: u64) -> crate::Error {
        corrupt("barrier", self.offset, found)
    }

    /// Whether somebody is inside, in whatever round.
    fn is_occupied(&self) -> bool {
        (0..self.count).any(|index| self.arrival(index).token != 0)
    }

    /// How many have arrived in `round`.
    pub(super) fn arrived(&self, round: u32) -> u32 {
        let is_in = |&index: &u32| {
            let arrival = self.arrival(index);
            arrival.token != 0 && arrival.round == round
        };
        (0..self.count).filter(is_in).count() as u32
    }

    /// Tries to arrive: gives round and index, or `None` if this must wait until those of the round before have left.
    pub(super) fn arrive(&self, token: Token) -> Result<Option<(u32, u32)>> {
        loop {
            let state = self.state();
            match state.phase {
                BARRIER_FILLING => {}
                BARRIER_ACTION => return Ok(None),
                BARRIER_DRAINING | BARRIER_RESETTING if self.settle() => continue,
                BARRIER_DRAINING | BARRIER_RESETTING => return Ok(None),
                BARRIER_BROKEN => return Err(SyncError::BrokenBarrier { cause: cause(state) }.into()),
                _ => return Err(self.corrupt(state.pack())),
            }
            let Some((index, before)) = self.claim(token, state.round) else { return Ok(None) };
            failpoint!("barrier.arrived");
            // A word is claimed once in a round: if the round goes on, or has been passed since, it is with me.
            let now = self.state();
            if now.round == state.round && matches!(now.phase, BARRIER_FILLING | BARRIER_ACTION | BARRIER_DRAINING) {
                return Ok(Some((state.round, index)));
            }
            // The round was over before I was in. The word is as it was, so that it can be claimed in the round that is.
            let mine = Arrival { token: token.0, round: state.round };
            self.swap(index, mine, before);
            failpoint!("barrier.too_late");
            wait::publish_all(atomic!(self.body, event));
            self.settle();
        }
    }

    fn claim(&self, token: Token, round: u32) -> Option<(u32, Arrival)> {
        (0..self.count).find_map(|index| {
            let before = self.arrival(index);
            let mine = Arrival { token: token.0, round };
            let free = before.token == 0 && before.round != round;
            (free && self.swap(index, before, mine)).then_some((index, before))
        })
    }

    fn swap(&self, index: u32, from: Arrival, to: Arrival) -> bool {
        self.arrivals()[index as usize]
            .compare_exchange(from.pack(), to.pack(), Ordering::SeqCst, Ordering::Relaxed)
            .is_ok()
    }

    /// Leaves a round one was in.
    pub(super) fn leave(&self, token: Token, round: u32, index: u32) {
        self.swap(index, Arrival { token: token.0, round }, Arrival { token: 0, round });
        failpoint!("barrier.left");
        self.settle();
    }

    /// Begins the next round once everybody has left the last one. True if it is FILLING now, by whoever.
    pub(super) fn settle(&self) -> bool {
        let state = self.state();
        if matches!(state.phase, BARRIER_DRAINING | BARRIER_RESETTING) && !self.is_occupied() {
            self.change(state, BARRIER_FILLING, 0);
        }
        self.state().phase == BARRIER_FILLING
    }

    /// How `round` has ended, for one who is in it.
    pub(super) fn outcome(&self, round: u32) -> Result<Option<()>> {
        let state = self.state();
        match state.phase {
            // It cannot go on without me.
            _ if state.round != round => Err(self.corrupt(state.pack())),
            BARRIER_FILLING | BARRIER_ACTION => Ok(None),
            BARRIER_DRAINING => Ok(Some(())),
            BARRIER_BROKEN | BARRIER_RESETTING => Err(SyncError::BrokenBarrier { cause: cause(state) }.into()),
            _ => Err(self.corrupt(state.pack())),
        }
    }

    /// Breaks `round`, unless it is over.
    pub(super) fn break_round(&self, round: u32, cause: u32) {
        loop {
            let state = self.state();
            let goes_on = state.round == round && matches!(state.phase, BARRIER_FILLING | BARRIER_ACTION);
            if !goes_on || self.change(state, BARRIER_BROKEN, cause) {
                return;
            }
        }
    }

    /// Recovery: a dead party that is waited with breaks the round; then its words are free.
    fn bury(&self, dead: Token) {
        for index in 0..self.count {
            let arrival = self.arrival(index);
            if arrival.token != dead.0 {
                continue;
            }
            // First the round: who goes on after my death finds the word still.
            self.break_round(arrival.round, BROKEN_DEATH);
            failpoint!("barrier.recover_broken");
            let state = self.state();
            // One that came too late (`arrive`) must not keep the word from the round that is filling now.
            let is_late = state.round != arrival.round && state.phase == BARRIER_FILLING;
            let round = if is_late { state.round.wrapping_sub(1) } else { state.round };
            self.swap(index, arrival, Arrival { token: 0, round });
            failpoint!("barrier.recover_word");
        }
        self.settle();
    }
}
