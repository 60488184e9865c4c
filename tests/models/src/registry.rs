//! The registry: attach, detach and recovery of one participant slot, with its reuse.
//!
//! ```text
//! slot byte, RECOVERY     locks that the kernel releases when their holder dies
//! state, generation       {FREE | ACTIVE}, and the number that makes a token of the slot
//! claim                   a word of some object: the slot number of its holder, or free
//! cell                    a reference cell of some object: the holder's generation; valid while it is the slot's
//! ```
//!
//! # Steps
//!
//! ```text
//! attach    lock the slot byte;  state not FREE: lock RECOVERY, still not FREE: recover;  generation + 1;  state = ACTIVE;
//!           unlock RECOVERY, if it was locked
//! use       claim = slot;  cell = generation
//! detach    lock RECOVERY;  recover;  unlock RECOVERY;  unlock the slot byte
//! recover   free every claim of the slot;  generation + 1 (its cells are void);  state = FREE
//! ```
//!
//! # Crash behaviour
//!
//! ```text
//! recoverer   lock RECOVERY;  state is ACTIVE?  the slot byte is not locked?  recover;  unlock RECOVERY
//! ```
//!
//! The proof of death is taken under the lock: a claim names only the slot, and a newcomer in the slot looks like the
//! dead one.
//!
//! | killed | what others see | who repairs | what is lost |
//! |---|---|---|---|
//! | attaching, before ACTIVE | a free slot | nobody has to | nothing |
//! | attached, detaching | ACTIVE, the byte unlocked | a recoverer, or the next one who gets the slot | what it held is free |
//! | in recovery | ACTIVE, RECOVERY unlocked | the next recoverer, from the start | nothing |
//!
//! # What is checked
//!
//! No claim of a live participant is freed by another; a newcomer starts without a claim of the dead; no two
//! participants have the same token; at rest the slot is free, and neither a claim nor a valid cell is left.
//!
//! # Size
//!
//! Three participants, two recoverers, two kills: 463 179 states. The C++ model that this was ported from has 138: one
//! newcomer, which cannot die, one kill, recoverers that work once, no detach and no cell. With these limits its
//! reading of an early state could not go wrong; here it does ([`Bug::TrustsEarlyState`]).

use zerocopy::{Immutable, IntoBytes};

use crate::explorer::{Broken, Model, Successors};

const MAX_PARTICIPANTS: usize = 3;
const RECOVERERS: usize = 2;

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A recoverer takes the proof of death before the lock, and does not repeat it.
    ProofBeforeLock,
    /// A newcomer trusts a state that it read before the slot byte was its own.
    TrustsEarlyState,
    /// A newcomer recovers its slot without the recovery lock.
    AttachTakesNoRecoveryLock,
    /// Recovery makes the slot FREE before it frees the claims.
    FreedBeforeRepair,
    /// Recovery leaves the generation: cells of the dead stay valid.
    RecoveryKeepsGeneration,
    /// Attach and recovery leave the generation: a newcomer has the token of the dead.
    NoNewGeneration,
    /// A participant that detaches unlocks its slot byte first.
    DetachUnlocksFirst,
    /// A recoverer does not ask whether the slot byte is locked.
    NoProof,
}

/// The model and its size. There are two recoverers.
#[derive(Clone, Copy, Debug)]
pub struct Registry {
    /// Participants, at most 3, each of which attaches once.
    pub participants: usize,
    /// Kills in one history.
    pub kills: u8,
    /// The seeded bug.
    pub bug: Option<Bug>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum At {
    /// A recoverer with nothing to do.
    Idle,
    /// A participant before it attaches.
    Look,
    LockSlot,
    LockRecovery,
    ReadState,
    ProbeSlot,
    FreeClaim,
    NewGeneration,
    FreeState,
    TakeGeneration,
    Activate,
    UnlockRecovery,
    Claim,
    FillCell,
    Detach,
    UnlockSlot,
    Gone,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum Task {
    Attach,
    Detach,
    Recover,
}

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Process {
    at: At,
    task: Task,
    /// The state seen by [`At::Look`], 0 for FREE.
    early: u8,
    /// The generation of a participant that was ACTIVE, 0 before.
    generation: u8,
}

/// All words and processes: participants first, then recoverers. Process numbers in words begin at 1.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    slot_lock: u8,
    recovery_lock: u8,
    active: u8,
    generation: u8,
    /// Who claimed. Recovery sees only that it is not free: in the segment the word holds the slot number.
    claim: u8,
    cell: u8,
    kills: u8,
    processes: [Process; MAX_PARTICIPANTS + RECOVERERS],
}

impl Registry {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn act(&self, state: &mut State, who: usize) -> Result<bool, Broken> {
        let id = who as u8 + 1;
        let State { slot_lock, recovery_lock, active, generation, claim, cell, processes, .. } = state;
        let mut me = processes[who];
        match me.at {
            At::Idle if *active == 0 || *slot_lock != 0 => return Ok(false),
            At::Idle => me.at = At::LockRecovery,
            At::Look => {
                me.early = *active;
                me.at = At::LockSlot;
            }
            At::LockSlot if *slot_lock != 0 => return Ok(false),
            At::LockSlot => {
                *slot_lock = id;
                me.at = At::ReadState;
            }
            At::LockRecovery if *recovery_lock != 0 => return Ok(false),
            At::LockRecovery => {
                *recovery_lock = id;
                me.at = match me.task {
                    Task::Detach => self.recovery_begins(),
                    Task::Recover if self.has(Bug::ProofBeforeLock) => self.recovery_begins(),
                    Task::Recover | Task::Attach => At::ReadState,
                };
            }
            At::ReadState => {
                let seen = if self.has(Bug::TrustsEarlyState) && me.task == Task::Attach { me.early } else { *active };
                let may_recover = *recovery_lock == id || self.has(Bug::AttachTakesNoRecoveryLock);
                me.at = match me.task {
                    Task::Recover if seen == 0 => At::UnlockRecovery,
                    Task::Recover => At::ProbeSlot,
                    _ if seen == 0 => At::TakeGeneration,
                    _ if may_recover => self.recovery_begins(),
                    _ => At::LockRecovery,
                };
            }
            At::ProbeSlot => {
                let alive = *slot_lock != 0 && !self.has(Bug::NoProof);
                me.at = if alive { At::UnlockRecovery } else { self.recovery_begins() };
            }
            At::FreeClaim => {
                if *claim != 0 && *claim != id && processes[*claim as usize - 1].at != At::Dead {
                    return Err("a claim of a live participant is freed");
                }
                *claim = 0;
                me.at = if self.has(Bug::FreedBeforeRepair) { self.recovery_ends(me.task) } else { At::NewGeneration };
            }
            At::NewGeneration => {
                *generation += u8::from(!self.has(Bug::RecoveryKeepsGeneration) && !self.has(Bug::NoNewGeneration));
                me.at = At::FreeState;
            }
            At::FreeState => {
                *active = 0;
                me.at = if self.has(Bug::FreedBeforeRepair) { At::FreeClaim } else { self.recovery_ends(me.task) };
            }
            At::TakeGeneration => {
                *generation += u8::from(!self.has(Bug::NoNewGeneration));
                me.at = At::Activate;
            }
            At::Activate => {
                *active = 1;
                me.generation = *generation;
                let same_token = |other: &Process| other.generation == *generation;
                if processes.iter().any(same_token) {
                    return Err("two participants have one token");
                }
                if *claim != 0 {
                    return Err("a newcomer inherits a claim of the dead");
                }
                me.at = if *recovery_lock == id { At::UnlockRecovery } else { At::Claim };
            }
            At::UnlockRecovery => {
                *recovery_lock = 0;
                me.at = match me.task {
                    Task::Attach => At::Claim,
                    Task::Detach if self.has(Bug::DetachUnlocksFirst) => At::Gone,
                    Task::Detach => At::UnlockSlot,
                    Task::Recover => At::Idle,
                };
            }
            At::Claim => {
                *claim = id;
                me.at = At::FillCell;
            }
            At::FillCell => {
                *cell = me.generation;
                me.at = At::Detach;
            }
            At::Detach => {
                me.task = Task::Detach;
                me.at = if self.has(Bug::DetachUnlocksFirst) { At::UnlockSlot } else { At::LockRecovery };
            }
            At::UnlockSlot => {
                *slot_lock = 0;
                me.at = if self.has(Bug::DetachUnlocksFirst) { At::LockRecovery } else { At::Gone };
            }
            At::Gone | At::Dead => return Ok(false),
        }
        processes[who] = me;
        Ok(true)
    }

    fn recovery_begins(&self) -> At {
        if self.has(Bug::FreedBeforeRepair) { At::NewGeneration } else { At::FreeClaim }
    }

    fn recovery_ends(&self, task: Task) -> At {
        if task == Task::Attach { At::TakeGeneration } else { At::UnlockRecovery }
    }

    /// A recoverer takes the lock though there seems to be nothing to do.
    fn look_anyway(&self, state: &mut State, who: usize) -> bool {
        let busy = state.recovery_lock != 0 || state.processes[who].at != At::Idle;
        if busy || self.has(Bug::ProofBeforeLock) {
            return false;
        }
        state.recovery_lock = who as u8 + 1;
        state.processes[who].at = At::ReadState;
        true
    }

    fn kill(&self, state: &mut State, who: usize) -> bool {
        let me = &mut state.processes[who];
        let nothing_to_kill = matches!(me.at, At::Idle | At::Look | At::Gone | At::Dead);
        if state.kills >= self.kills || nothing_to_kill {
            return false;
        }
        me.at = if who < self.participants { At::Dead } else { At::Idle };
        for lock in [&mut state.slot_lock, &mut state.recovery_lock] {
            if *lock == who as u8 + 1 {
                *lock = 0;
            }
        }
        state.kills += 1;
        true
    }
}

impl Model for Registry {
    type State = State;

    fn initial(&self) -> Vec<State> {
        let process = |at, task| Process { at, task, early: 0, generation: 0 };
        let mut processes = [process(At::Idle, Task::Recover); MAX_PARTICIPANTS + RECOVERERS];
        processes[..self.participants].fill(process(At::Look, Task::Attach));
        vec![State { slot_lock: 0, recovery_lock: 0, active: 0, generation: 1, claim: 0, cell: 0, kills: 0, processes }]
    }

    fn successors(&self, state: &State, next: &mut Successors<State>) {
        for who in 0..self.participants + RECOVERERS {
            next.step(who, state, |state| self.act(state, who));
            next.event("looks anyway", who, state, |state| Ok(self.look_anyway(state, who)));
            next.event("is killed", who, state, |state| Ok(self.kill(state, who)));
        }
    }

    fn invariant(&self, _: &State) -> Result<(), Broken> {
        Ok(())
    }

    fn at_rest(&self, state: &State) -> Result<(), Broken> {
        if state.processes.iter().any(|process| !matches!(process.at, At::Idle | At::Gone | At::Dead)) {
            return Err("a process is stuck");
        }
        if state.active != 0 || state.slot_lock != 0 || state.recovery_lock != 0 {
            return Err("the slot is never freed");
        }
        if state.claim != 0 {
            return Err("a claim leaks");
        }
        if state.cell == state.generation {
            return Err("a reference of nobody is still valid");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explorer::{Explorer, holds, is_caught};

    const PLAIN: Registry = Registry { participants: 3, kills: 2, bug: None };

    fn catches(bug: Bug, expected: Broken) {
        is_caught(Explorer::default(), &Registry { bug: Some(bug), ..PLAIN }, expected);
    }

    #[test]
    fn the_algorithm_has_no_violation() {
        let report = holds(Explorer::default().no_livelock(), &PLAIN);
        assert_eq!((report.states, report.at_rest), (463_179, 2_301));
    }

    #[test]
    fn a_proof_before_the_lock_is_caught() {
        catches(Bug::ProofBeforeLock, "a claim of a live participant is freed");
    }

    #[test]
    fn an_early_state_that_is_trusted_is_caught() {
        catches(Bug::TrustsEarlyState, "a newcomer inherits a claim of the dead");
    }

    #[test]
    fn an_attach_without_the_recovery_lock_is_caught() {
        catches(Bug::AttachTakesNoRecoveryLock, "a claim of a live participant is freed");
    }

    #[test]
    fn a_slot_freed_before_it_is_repaired_is_caught() {
        catches(Bug::FreedBeforeRepair, "a newcomer inherits a claim of the dead");
    }

    #[test]
    fn a_recovery_that_keeps_the_generation_is_caught() {
        catches(Bug::RecoveryKeepsGeneration, "a reference of nobody is still valid");
    }

    #[test]
    fn a_generation_that_never_changes_is_caught() {
        catches(Bug::NoNewGeneration, "two participants have one token");
    }

    #[test]
    fn a_detach_that_unlocks_first_is_caught() {
        catches(Bug::DetachUnlocksFirst, "a claim of a live participant is freed");
    }

    #[test]
    fn a_recovery_without_proof_is_caught() {
        catches(Bug::NoProof, "a claim of a live participant is freed");
    }
}
