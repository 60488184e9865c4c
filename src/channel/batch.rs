//! Several messages in one go: one step of the cursor and one wake for all.
//!
//! ```text
//! put    each slot from the tail on is committed as a single message's is, then the tail moves once
//! get    each slot from the head on is TAKEN, then the head moves once, then each block is R and its slot FREE
//! ```
//! Every state in between is one that single messages leave, too: others help the cursors, and recovery knows it.

use super::ring::{Claimed, FREE, Ring, Taken};
use crate::segment::wait;
use shmkit_layouts::words::{SLOT_READY, SLOT_TAKEN, Slot};
use std::sync::atomic::{AtomicU64, Ordering};

impl Ring {
    /// Puts several messages in one go, as many as there is room for; gives how many. 0 if it must be looked at closer, with
    /// [`Ring::enqueue`]. One wake for all: who takes one wakes the next.
    pub(crate) fn enqueue_many(&self, claimed: &[Claimed]) -> usize {
        let t = self.tail().load(Ordering::Acquire);
        let mut done = 0;
        while done < claimed.len() {
            let position = t.wrapping_add(done as u64);
            let slot = self.slot(position);
            let seen = slot.load(Ordering::Acquire);
            let lap = self.lap(position);
            if seen != (Slot { lap, ..FREE }).pack() || !self.has_room_at(position) {
                break;
            }
            let ready = Slot { lap, state: SLOT_READY, owner: 0, index: claimed[done].index };
            // SYNC POINT: as in `enqueue`. Positions before this one are filled: by me, or by whoever moved the tail to `t`.
            if slot.compare_exchange(seen, ready.pack(), Ordering::AcqRel, Ordering::Relaxed).is_err() {
                break;
            }
            failpoint!("queue.batch_ready");
            done += 1;
        }
        if done > 0 {
            advance(self.tail(), t.wrapping_add(done as u64));
            failpoint!("queue.batch_tail");
            wait::publish_one(self.not_empty());
        }
        done
    }

    /// Takes up to `most` messages into `taken`, with one step of the head; none if there are none at once.
    pub(crate) fn dequeue_many(&self, me: u32, most: usize, taken: &mut Vec<Claimed>) -> Taken {
        let h = self.head().load(Ordering::Acquire);
        let most = most.min(self.capacity());
        let is_due = self.has_left_over();
        let mut count = 0;
        while !is_due && count < most {
            let position = h.wrapping_add(count as u64);
            let slot = self.slot(position);
            // SYNC POINT: as in `dequeue`.
            let seen = slot.load(Ordering::Acquire);
            let found = Slot::unpack(seen);
            if found.lap != self.lap(position) || found.state != SLOT_READY {
                break;
            }
            let mine = Slot { state: SLOT_TAKEN, owner: me, ..found };
            if slot.compare_exchange(seen, mine.pack(), Ordering::AcqRel, Ordering::Relaxed).is_err() {
                break;
            }
            failpoint!("queue.batch_taken");
            count += 1;
        }
        if count == 0 {
            let one = self.dequeue(me);
            if let Taken::Block(claimed) = one {
                taken.push(claimed);
            }
            return one;
        }
        advance(self.head(), h.wrapping_add(count as u64));
        failpoint!("queue.batch_head");
        let mut outcome = Taken::Empty;
        for step in 0..count as u64 {
            let position = h.wrapping_add(step);
            let slot = self.slot(position);
            let index = Slot::unpack(slot.load(Ordering::Relaxed)).index;
            match self.read(index, me) {
                Taken::Block(claimed) => taken.push(claimed),
                corrupt => outcome = corrupt,
            }
            failpoint!("queue.batch_read");
            // Release: as in `dequeue`.
            slot.store(Slot { lap: self.lap(position).wrapping_add(1), ..FREE }.pack(), Ordering::Release);
            failpoint!("queue.batch_slot_free");
        }
        // Room for several: who finds some wakes the next.
        wait::publish_one(self.not_full());
        taken.last().map_or(outcome, |&last| Taken::Block(last))
    }
}

/// Moves a cursor forward to `to`, unless others have moved it further.
fn advance(cursor: &AtomicU64, to: u64) {
    let mut seen = cursor.load(Ordering::Relaxed);
    while (to.wrapping_sub(seen) as i64) > 0 {
        match cursor.compare_exchange(seen, to, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}
