//! The robust mutex: one futex word {owner, contended, recover}.
//!
//! ```text
//! word   {owner, contended, recover}      owner: 0 = free, a participant, or NOBODY (its owner died)
//! ```
//!
//! # Steps
//!
//! ```text
//! lock     CAS free to {me, 0}, or to {me, contended} after any sleep
//!          owner NOBODY:  CAS to {me, contended, recover}; the guard says that the owner died; repair the data
//!          else           v = word; not contended: CAS v to v|contended (else again)
//!                         sleep if the word is still v, in slices; then from the start
//! unlock   swap the word for free;  it was contended: wake one sleeper
//! ```
//!
//! A sleeper cannot know whether others sleep beside it, so it acquires with `contended`: the wake at its unlock may be
//! one too many, never one too few.
//!
//! # Crash behaviour
//!
//! ```text
//! recovery   the owner is proven dead:  CAS {dead, c} to {NOBODY, c, recover};  wake one sleeper
//! ```
//!
//! Anybody may do it: registry recovery at any moment, a sleeper at the end of its slice. The proof and the CAS are two steps.
//! Once no word names it, a new process comes in the dead one's slot, with the next token.
//!
//! | killed | what others see | who repairs | what is lost |
//! |---|---|---|---|
//! | before its CAS | nothing | – | nothing |
//! | as the owner | a dead owner | recovery, then the next owner, who is told | what it left half-done |
//! | between unlock and wake | a free lock beside a sleeper | the sleeper, at the end of its slice | one slice |
//! | woken, before it acquired | the same | the same | one slice |
//!
//! The end of a slice finds a free lock only after a kill that cost a wake-up; in every other history a free lock
//! beside a sleeper is a violation.
//!
//! # What is checked
//!
//! One owner at a time inside; nobody enters data that a dead owner left half-changed without being told; at rest
//! nobody sleeps, nobody is stuck and the lock is free.
//!
//! # Size
//!
//! Three threads, one round each, no kill: 1 584 states, as in the C++ model that this was ported from. With kills the
//! numbers cannot agree: there a sleeper took a dead owner's lock in one step, and a stall after a kill was not told
//! from a stall without one. Two rounds, a kill and a birth: 918 136 states.

use zerocopy::{Immutable, IntoBytes};

use crate::explorer::{Broken, Model, Successors};

const MAX_THREADS: usize = 4;
const NOBODY: u8 = u8::MAX;

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A thread that slept acquires without `contended`: others that still sleep are forgotten.
    ForgetsContended,
    /// Recovery stores "free" for the lock of a dead owner: the next one is not told.
    RecoveryStoresFree,
    /// Recovery frees the word and wakes nobody.
    RecoveryWakesNobody,
    /// A sleeper takes the end of its slice for the death of the owner.
    TimeoutIsProof,
    /// `contended` is stored, not compared and swapped: an owner that is gone comes back.
    ContendedIsStored,
    /// Unlock looks for sleepers before it frees the word, with a load of its own.
    UnlockLooksFirst,
    /// A sleeper goes to sleep whatever the word is.
    SleepsWithoutCompare,
    /// Who proved the owner's death stores NOBODY, whoever owns the lock by now.
    RecoveryIsStored,
    /// A new process has the token of the dead one in whose slot it comes.
    TokenWithoutGeneration,
}

/// The model and its size.
#[derive(Clone, Copy, Debug)]
pub struct Mutex {
    /// Threads, at most 4, each in a process of its own.
    pub threads: usize,
    /// How often each of them locks.
    pub rounds: u8,
    /// Kills in one history.
    pub kills: u8,
    /// Processes that come in the place of dead ones.
    pub births: u8,
    /// The seeded bug.
    pub bug: Option<Bug>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Word {
    owner: u8,
    contended: u8,
    recover: u8,
}

const FREE: Word = Word { owner: 0, contended: 0, recover: 0 };

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum At {
    Outside,
    Acquire,
    LoadWord,
    SetContended,
    Sleep,
    Asleep,
    Repair,
    Inside,
    Unlock,
    Wake,
    /// A sleeper has proven the owner's death.
    Disown,
    /// A sleeper has made the lock of a dead owner NOBODY's and wakes another before it goes on.
    RecoveryWake,
    Dead,
    /// Of [`Bug::UnlockLooksFirst`].
    UnlockAfterLook,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Thread {
    at: At,
    rounds: u8,
    slept: u8,
    seen: Word,
}

/// Registry recovery: one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum Recovery {
    Idle,
    /// The owner's death is proven.
    Disowns,
    /// The word is NOBODY's, and nobody was woken yet.
    Wakes,
}

/// The word and all threads, whose numbers begin at 1.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    word: Word,
    threads: [Thread; MAX_THREADS],
    /// The number is the slot and how often it was used.
    tokens: [u8; MAX_THREADS],
    recovery: Recovery,
    /// What recovery found.
    recovery_seen: Word,
    /// An owner is or was inside and did not finish.
    dirty: u8,
    kills: u8,
    births: u8,
    /// A kill cost a wake-up: the end of a slice has to make up for it.
    wake_lost: u8,
}

impl State {
    fn owner_is_dead(&self) -> bool {
        let owner = self.word.owner;
        let slot = (owner as usize).wrapping_sub(1) % MAX_THREADS;
        owner != 0 && owner != NOBODY && (self.tokens[slot] != owner || self.threads[slot].at == At::Dead)
    }
}

impl Mutex {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// One step of a thread that wakes nobody.
    fn act(&self, state: &mut State, who: usize) -> Result<bool, Broken> {
        let id = state.tokens[who];
        let owner_is_dead = state.owner_is_dead();
        let State { word, threads, dirty, .. } = state;
        let me = &mut threads[who];
        match me.at {
            At::Outside if me.rounds >= self.rounds => return Ok(false),
            At::Outside => {
                me.slept = 0;
                me.at = At::Acquire;
            }
            At::Acquire => {
                let slept = u8::from(me.slept != 0 && !self.has(Bug::ForgetsContended));
                if word.owner == 0 {
                    *word = Word { owner: id, contended: slept | word.contended, recover: 0 };
                    me.at = At::Inside;
                    if *dirty != 0 {
                        return Err("an owner is not told that the one before it died inside");
                    }
                } else if word.owner == NOBODY {
                    *word = Word { owner: id, contended: slept | word.contended, recover: 1 };
                    me.at = At::Repair;
                } else {
                    me.at = At::LoadWord;
                }
            }
            At::LoadWord => {
                me.seen = *word;
                me.at = if word.owner == 0 || word.owner == NOBODY {
                    At::Acquire
                } else if word.contended != 0 {
                    At::Sleep
                } else {
                    At::SetContended
                };
            }
            At::SetContended => {
                if *word == me.seen || self.has(Bug::ContendedIsStored) {
                    me.seen.contended = 1;
                    *word = me.seen;
                    me.at = At::Sleep;
                } else {
                    me.at = At::LoadWord;
                }
            }
            At::Sleep => {
                let sleeps = *word == me.seen || self.has(Bug::SleepsWithoutCompare);
                me.at = if sleeps { At::Asleep } else { At::Acquire };
                me.slept = 1;
                me.seen = FREE;
            }
            At::Asleep if owner_is_dead || self.has(Bug::TimeoutIsProof) => {
                me.seen = *word;
                me.at = At::Disown;
            }
            At::Disown => {
                me.at = if self.disown(word, me.seen) { At::RecoveryWake } else { At::Acquire };
                me.seen = FREE;
            }
            At::Asleep if state.wake_lost != 0 && (word.owner == 0 || word.owner == NOBODY) => me.at = At::Acquire,
            At::Repair => {
                *dirty = 0;
                me.at = At::Inside;
            }
            At::Inside => {
                *dirty = 1;
                me.at = At::Unlock;
            }
            At::Unlock => {
                *dirty = 0;
                if self.has(Bug::UnlockLooksFirst) {
                    me.seen = *word;
                    me.at = At::UnlockAfterLook;
                } else {
                    let contended = word.contended;
                    *word = FREE;
                    self.unlocked(me, contended);
                }
            }
            At::UnlockAfterLook => {
                *word = FREE;
                let contended = me.seen.contended;
                self.unlocked(me, contended);
            }
            At::Asleep | At::Dead => return Ok(false),
            At::Wake => {
                me.at = At::Outside;
                me.rounds += 1;
            }
            At::RecoveryWake => me.at = At::Acquire,
        }
        Ok(true)
    }

    fn unlocked(&self, me: &mut Thread, contended: u8) {
        me.seen = FREE;
        me.at = if contended != 0 { At::Wake } else { At::Outside };
        me.rounds += u8::from(contended == 0);
    }

    /// Recovery's CAS.
    fn disown(&self, word: &mut Word, seen: Word) -> bool {
        let is_free_now = word.owner == 0 || word.owner == NOBODY;
        if *word != seen && (is_free_now || !self.has(Bug::RecoveryIsStored)) {
            return false;
        }
        *word = if self.has(Bug::RecoveryStoresFree) {
            FREE
        } else {
            Word { owner: NOBODY, contended: word.contended, recover: 1 }
        };
        true
    }

    /// Registry recovery: the proof, the CAS of the word, and the wake.
    fn recover(&self, state: &State, next: &mut Successors<State>) {
        let who = self.threads;
        match state.recovery {
            Recovery::Idle if state.owner_is_dead() => next.step(who, state, |state| {
                (state.recovery, state.recovery_seen) = (Recovery::Disowns, state.word);
                Ok(true)
            }),
            Recovery::Idle => {}
            Recovery::Disowns => next.step(who, state, |state| {
                let done = self.disown(&mut state.word, state.recovery_seen);
                let wakes = done && !self.has(Bug::RecoveryWakesNobody);
                state.recovery = if wakes { Recovery::Wakes } else { Recovery::Idle };
                state.recovery_seen = FREE;
                Ok(true)
            }),
            Recovery::Wakes => self.wake_one(state, next, who, |state| {
                state.recovery = Recovery::Idle;
                Ok(true)
            }),
        }
    }

    /// One successor for each sleeper that may be woken, one where nobody sleeps.
    fn wake_one(
        &self,
        state: &State,
        next: &mut Successors<State>,
        who: usize,
        go_on: impl Fn(&mut State) -> Result<bool, Broken>,
    ) {
        let sleepers = (0..self.threads).filter(|&thread| state.threads[thread].at == At::Asleep);
        let mut anybody = false;
        for sleeper in sleepers {
            anybody = true;
            next.step(who, state, |state| {
                state.threads[sleeper].at = At::Acquire;
                go_on(state)
            });
        }
        if !anybody {
            next.step(who, state, go_on);
        }
    }

    fn kill(&self, state: &mut State, who: usize) -> bool {
        let me = &mut state.threads[who];
        if state.kills >= self.kills || matches!(me.at, At::Outside | At::Dead) {
            return false;
        }
        let was_woken = me.slept != 0 && matches!(me.at, At::Acquire | At::LoadWord | At::SetContended | At::Sleep);
        if was_woken || matches!(me.at, At::Wake | At::RecoveryWake) {
            state.wake_lost = 1;
        }
        *me = Thread { at: At::Dead, rounds: 0, slept: 0, seen: FREE };
        state.kills += 1;
        true
    }

    fn kill_recovery(&self, state: &mut State) -> bool {
        if state.kills >= self.kills || state.recovery == Recovery::Idle {
            return false;
        }
        state.wake_lost |= u8::from(state.recovery == Recovery::Wakes);
        (state.recovery, state.recovery_seen) = (Recovery::Idle, FREE);
        state.kills += 1;
        true
    }

    /// A new process in the slot, once recovery is over.
    fn be_born(&self, state: &mut State, who: usize) -> bool {
        let is_over = state.word.owner != state.tokens[who] && state.recovery == Recovery::Idle;
        if state.births >= self.births || state.threads[who].at != At::Dead || !is_over {
            return false;
        }
        if !self.has(Bug::TokenWithoutGeneration) {
            state.tokens[who] += MAX_THREADS as u8;
        }
        state.threads[who].at = At::Outside;
        state.births += 1;
        true
    }
}

impl Model for Mutex {
    type State = State;

    fn initial(&self) -> Vec<State> {
        let thread = Thread { at: At::Outside, rounds: 0, slept: 0, seen: FREE };
        vec![State {
            word: FREE,
            threads: [thread; MAX_THREADS],
            tokens: [1, 2, 3, 4],
            recovery: Recovery::Idle,
            recovery_seen: FREE,
            dirty: 0,
            kills: 0,
            births: 0,
            wake_lost: 0,
        }]
    }

    fn successors(&self, state: &State, next: &mut Successors<State>) {
        for who in 0..self.threads {
            if matches!(state.threads[who].at, At::Wake | At::RecoveryWake) {
                self.wake_one(state, next, who, |state| self.act(state, who));
            } else {
                next.step(who, state, |state| self.act(state, who));
            }
            next.event("is killed", who, state, |state| Ok(self.kill(state, who)));
            next.event("is born", who, state, |state| Ok(self.be_born(state, who)));
        }
        self.recover(state, next);
        next.event("is killed", self.threads, state, |state| Ok(self.kill_recovery(state)));
    }

    fn invariant(&self, state: &State) -> Result<(), Broken> {
        let inside = |thread: &&Thread| matches!(thread.at, At::Repair | At::Inside | At::Unlock);
        if state.threads.iter().filter(inside).count() > 1 { Err("two owners are inside") } else { Ok(()) }
    }

    fn at_rest(&self, state: &State) -> Result<(), Broken> {
        let threads = &state.threads[..self.threads];
        if threads.iter().any(|thread| thread.at == At::Asleep) {
            return Err("a thread sleeps for ever");
        }
        if state.word.owner != 0 && state.word.owner != NOBODY {
            return Err("the lock is never released");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explorer::{Explorer, holds, is_caught};

    const PLAIN: Mutex = Mutex { threads: 3, rounds: 1, kills: 0, births: 0, bug: None };

    fn catches(bug: Bug, kills: u8, expected: Broken) {
        is_caught(Explorer::default(), &Mutex { kills, bug: Some(bug), ..PLAIN }, expected);
    }

    #[test]
    fn the_algorithm_has_no_violation_without_a_kill() {
        let report = holds(Explorer::default().no_livelock(), &PLAIN);
        assert_eq!(report.states, 1_584);
    }

    #[test]
    fn the_algorithm_has_no_violation() {
        let report = holds(Explorer::default().no_livelock(), &Mutex { rounds: 2, kills: 2, ..PLAIN });
        assert!(report.states > 50_000, "{report:?}");
    }

    #[test]
    fn the_algorithm_has_no_violation_when_slots_are_used_again() {
        let report = holds(Explorer::default().no_livelock(), &Mutex { rounds: 2, kills: 1, births: 1, ..PLAIN });
        assert_eq!(report.states, 918_136);
        let report = holds(Explorer::default().no_livelock(), &Mutex { kills: 2, births: 2, ..PLAIN });
        assert_eq!(report.states, 606_717);
    }

    #[test]
    fn the_algorithm_has_no_violation_with_four_threads() {
        let report = holds(Explorer::default(), &Mutex { threads: 4, kills: 2, ..PLAIN });
        assert!(report.states > 50_000, "{report:?}");
    }

    #[test]
    fn a_thread_that_forgets_other_sleepers_is_caught() {
        catches(Bug::ForgetsContended, 0, "a thread sleeps for ever");
    }

    #[test]
    fn a_recovery_that_stores_free_is_caught() {
        catches(Bug::RecoveryStoresFree, 1, "an owner is not told that the one before it died inside");
    }

    #[test]
    fn a_recovery_that_is_stored_is_caught() {
        catches(Bug::RecoveryIsStored, 1, "two owners are inside");
    }

    #[test]
    fn a_token_without_a_generation_is_caught() {
        let model = Mutex { rounds: 2, kills: 1, births: 1, bug: Some(Bug::TokenWithoutGeneration), ..PLAIN };
        is_caught(Explorer::default(), &model, "two owners are inside");
    }

    #[test]
    fn a_recovery_that_wakes_nobody_is_caught() {
        catches(Bug::RecoveryWakesNobody, 1, "a thread sleeps for ever");
    }

    #[test]
    fn a_time_out_taken_for_death_is_caught() {
        catches(Bug::TimeoutIsProof, 0, "two owners are inside");
    }

    #[test]
    fn a_stored_contended_bit_is_caught() {
        catches(Bug::ContendedIsStored, 0, "a thread sleeps for ever");
    }

    #[test]
    fn an_unlock_that_looks_first_is_caught() {
        catches(Bug::UnlockLooksFirst, 0, "a thread sleeps for ever");
    }

    #[test]
    fn a_sleep_without_a_compare_is_caught() {
        catches(Bug::SleepsWithoutCompare, 0, "a thread sleeps for ever");
    }
}
