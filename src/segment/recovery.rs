//! Recovery: repairing what a dead participant left.
//!
//! ```text
//! recover   lock RECOVERY; state ≠ ACTIVE or the slot is locked → nothing; state = RECOVERING;
//!           the segment's own locks; each object's steps; half-built and half-destroyed objects; the sweep of the heap;
//!           generation + 1 (its reference cells are void); recoveries + 1; check every object; state = FREE; unlock
//! ```
//! Every step is idempotent and made of single compare-and-swaps, so the recoverer may die anywhere too. The proof of
//! death is repeated under the lock. Models: `mc_reg`, `mcq_onepass`.
//!
//! # Crash behaviour
//!
//! | the recoverer is killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | before `RECOVERING` | the dead one is still ACTIVE | the next who probes | nothing |
//! | between any two steps | RECOVERING, lock free | the next who probes starts again; finished steps find nothing to do | nothing |
//! | after the generation went up | RECOVERING, cells void | the next one checks the objects again | nothing |
//! | after `FREE` | a free slot | nobody needs to | nothing |

use super::attachment::{Attachment, atomic};
use super::{claim, wait};
use shmkit_layouts::segment::{STATE_ACTIVE, STATE_FREE, STATE_RECOVERING};
use shmkit_layouts::words::Token;
use std::sync::atomic::Ordering;

/// A participant that is proven dead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dead {
    /// Its slot.
    pub slot: u32,
    /// The slot's generation while it lived.
    pub generation: u32,
}

impl Dead {
    /// Its token.
    pub(crate) fn token(self) -> Token {
        Token::new(self.slot, self.generation)
    }
}

impl Attachment {
    /// Recovers every dead participant, unless somebody else is doing it. Gives how many.
    pub(crate) fn recover_dead(&self) -> usize {
        if self.token().is_err() {
            return 0;
        }
        (0..self.geometry.max_participants).filter(|&slot| self.is_recoverable(slot) && self.recover(slot)).count()
    }

    /// Recovers every dead participant, after whoever else is doing it. Gives how many. A killed recoverer's lock, too, may be
    /// held a moment longer: by a child that was just started and has the descriptor until it executes.
    pub(crate) fn recover_dead_now(&self) -> usize {
        if self.token().is_err() {
            return 0;
        }
        let recover = |&slot: &u32| {
            self.is_recoverable(slot)
                && self.lock_recovery().is_ok_and(|_lock| self.is_recoverable(slot) && self.recover_locked(slot))
        };
        (0..self.geometry.max_participants).filter(recover).count()
    }

    /// Recovers the participant a token names, if it is proven dead.
    pub(crate) fn bury(&self, token: Token) {
        let slot = token.slot();
        if slot < self.geometry.max_participants && self.is_recoverable(slot) {
            self.recover(slot);
        }
    }

    /// Recovers the participant that was process `pid`, which has ended: a hint of where to look, its lock is the proof. False
    /// if it is still there, because somebody holds the recovery lock or the kernel has not let go of its memory.
    pub(crate) fn recover_process(&self, pid: u32) -> bool {
        if self.token().is_err() {
            return true;
        }
        let namespace = crate::sys::proc::own_origin().0;
        let mut done = true;
        for slot in 0..self.geometry.max_participants {
            let participant = self.participant(slot);
            if atomic!(participant, pid).load(Ordering::Relaxed) == pid
                && atomic!(participant, state).load(Ordering::Acquire) != STATE_FREE
                && atomic!(participant, pid_namespace).load(Ordering::Relaxed) == namespace
            {
                done &= self.is_slot_dead(slot) && self.recover(slot);
            }
        }
        done
    }

    fn is_recoverable(&self, slot: u32) -> bool {
        atomic!(self.participant(slot), state).load(Ordering::Acquire) != STATE_FREE && self.is_slot_dead(slot)
    }

    fn recover(&self, slot: u32) -> bool {
        match self.try_lock_recovery() {
            // The proof is repeated under the lock: a newcomer may have taken the slot since.
            Ok(Some(_lock)) => self.is_recoverable(slot) && self.recover_locked(slot),
            _ => false,
        }
    }

    /// The walk. Under the recovery lock, for a slot whose holder is dead, or is this very process on its way out or in.
    /// False if an object could not be recovered: the slot stays RECOVERING.
    pub(crate) fn recover_locked(&self, slot: u32) -> bool {
        let participant = self.participant(slot);
        let generation = atomic!(participant, generation).load(Ordering::Acquire);
        let dead = Dead { slot, generation };
        // A newcomer has no token yet, but he holds the lock of this very slot: what he begins is repaired as the slot's.
        let by = self.own_slot().unwrap_or(slot);
        let state = atomic!(participant, state);
        let _ = state.compare_exchange(STATE_ACTIVE, STATE_RECOVERING, Ordering::AcqRel, Ordering::Relaxed);
        failpoint!("recover.started");
        let is_dead = |owner| owner == dead.token();
        claim::recover_word(atomic!(self.header(), heap_lock), is_dead);
        claim::recover_word(atomic!(self.header(), directory_lock), is_dead);
        failpoint!("recover.locks");
        if !self.recover_objects(slot, generation, by) {
            return false;
        }
        self.sweep(slot);
        failpoint!("recover.before_generation");
        self.next_generation(slot);
        failpoint!("recover.generation");
        // Between voiding the cells and clearing them, for who looks at several of them (`is_held_as`). Release pairs with that look,
        // as does everything that follows.
        atomic!(self.header(), recoveries).fetch_add(1, Ordering::Release);
        failpoint!("recover.counted");
        self.check_holdings(slot, by);
        event!(DEBUG, "recovered", segment = self.label(), slot = slot, generation = generation);
        failpoint!("recover.before_free");
        // Release pairs with the acquire of who takes the slot next.
        state.store(STATE_FREE, Ordering::Release);
        wait::wake_everybody(atomic!(self.header(), directory_event));
        true
    }
}
