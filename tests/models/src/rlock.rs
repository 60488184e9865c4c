//! The re-entrant lock: a word that names a process, and beside it the thread and the depth.
//!
//! ```text
//! word      0 = free, or {token of a process}; NOBODY's after a death
//! thread    {token, ordinal} of the owner; ordinals are counted by each process for itself, from 1 on
//! depth     times beyond the first
//! ```
//!
//! # Steps
//!
//! ```text
//! is mine   thread = {my token, my ordinal}?  and the word is my process's?
//! lock      is mine: depth + 1;  else CAS word from free, or from NOBODY, to my token, or wait;  depth = 0;  thread = me
//! release   is mine?  depth > 0: depth - 1;  else depth = 0;  thread = 0;  word = free
//! ```
//!
//! How to wait for the word is [`crate::mutex`]'s. A death takes all threads of a process with it.
//!
//! # Crash behaviour
//!
//! ```text
//! recovery   w = word names a dead one (proof): CAS w to NOBODY.  Thread and depth stay as they are.
//! ```
//!
//! | killed | what others see | who repairs | what is lost |
//! |---|---|---|---|
//! | claimed, `thread` not yet written | a dead owner | recovery; the next owner is told | nothing |
//! | at any depth | the same, and the dead one's thread and depth | the same; the next owner writes both | what was half done |
//! | releasing, `thread` cleared, the word not yet | the same | the same | nothing |
//!
//! Two may recover at a time (the registry's recoverer, and a sleeper at the end of its slice); each may be killed between the
//! proof and the CAS. A new process comes in the dead one's slot, with the next token and with ordinals from 1 on.
//!
//! # What is checked
//!
//! One thread at a time is inside, and knows that the lock is its own; each owner finds the depth that it has made; who comes after
//! one that died inside is told; at rest the lock is free.
//!
//! # Size
//!
//! Two processes, one of them with two threads: two rounds, a kill and a birth: 40 764 states.

use zerocopy::{Immutable, IntoBytes};

use crate::explorer::{Broken, Model, Successors};

const THREADS: usize = 3;
const RECOVERERS: usize = 2;
const NOBODY: u8 = u8::MAX;

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Who releases leaves its name in `thread`.
    KeepsThread,
    /// Who releases clears `thread` after the word.
    ClearsLate,
    /// An owner starts at the depth it finds.
    KeepsDepth,
    /// `thread` has no token: the ordinal alone.
    OrdinalAlone,
    /// Recovery stores "free".
    RecoveryStoresFree,
    /// Who proved the owner's death stores NOBODY, whoever owns the lock by now.
    RecoveryIsStored,
}

/// The model and its size.
#[derive(Clone, Copy, Debug)]
pub struct RLock {
    /// How often each thread takes the lock, to a depth of one beyond the first.
    pub rounds: u8,
    /// Processes that are killed in one history.
    pub kills: u8,
    /// Processes that come in the place of dead ones.
    pub births: u8,
    /// The seeded bug.
    pub bug: Option<Bug>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum At {
    Outside,
    /// "Is mine", in its two looks, before a lock or a release.
    LookThread,
    LookWord,
    Claim,
    SetDepth,
    SetThread,
    Deeper,
    Inside,
    Shallower,
    ClearDepth,
    ClearThread,
    FreeWord,
    /// Of [`Bug::ClearsLate`].
    ClearLate,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Thread {
    at: At,
    rounds: u8,
    /// How often it holds the lock, as it knows itself.
    holds: u8,
    /// The looks are for a release.
    releases: u8,
}

const NEW: Thread = Thread { at: At::Outside, rounds: 0, holds: 0, releases: 0 };

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Name {
    token: u8,
    ordinal: u8,
}

/// The words and all threads: the first two are of one process.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    word: u8,
    thread: Name,
    depth: u8,
    threads: [Thread; THREADS],
    /// Tokens of the two processes.
    tokens: [u8; 2],
    /// The dead owner that each recoverer found; 0 = none.
    recoverers: [u8; RECOVERERS],
    /// One was killed inside, and nobody was told yet.
    dirty: u8,
    kills: u8,
    births: u8,
}

fn process_of(who: usize) -> usize {
    who / 2
}

impl RLock {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn act(&self, state: &mut State, who: usize) -> Result<bool, Broken> {
        let token = state.tokens[process_of(who)];
        let name = Name { token: if self.has(Bug::OrdinalAlone) { 0 } else { token }, ordinal: who as u8 % 2 + 1 };
        let mut me = state.threads[who];
        let not_mine = if me.holds > 0 { Err("an owner does not know its lock") } else { Ok(At::Claim) };
        match me.at {
            At::Outside if me.rounds >= self.rounds => return Ok(false),
            At::Outside => me.at = At::LookThread,
            At::LookThread => me.at = if state.thread == name { At::LookWord } else { not_mine? },
            At::LookWord if state.word != token => me.at = not_mine?,
            At::LookWord if me.holds == 0 => return Err("a thread takes another one's lock for its own"),
            At::LookWord if me.releases == 0 => me.at = At::Deeper,
            At::LookWord => {
                if state.depth + 1 != me.holds {
                    return Err("an owner finds another depth than it has made");
                }
                me.at = if state.depth > 0 { At::Shallower } else { At::ClearDepth };
            }
            At::Claim => {
                if state.word != 0 && state.word != NOBODY {
                    return Ok(false);
                }
                if state.word == 0 && state.dirty != 0 {
                    return Err("an owner is not told that the one before it died inside");
                }
                (state.word, state.dirty) = (token, 0);
                me.at = At::SetDepth;
            }
            At::SetDepth => {
                if !self.has(Bug::KeepsDepth) {
                    state.depth = 0;
                }
                me.at = At::SetThread;
            }
            At::SetThread => {
                state.thread = name;
                (me.holds, me.at) = (1, At::Inside);
            }
            At::Deeper => {
                state.depth += 1;
                (me.holds, me.at) = (me.holds + 1, At::Inside);
            }
            // Once deeper, then out.
            At::Inside => {
                me.releases |= u8::from(me.holds == 2);
                me.at = At::LookThread;
            }
            At::Shallower => {
                state.depth -= 1;
                (me.holds, me.at) = (me.holds - 1, At::LookThread);
            }
            At::ClearDepth => {
                state.depth = 0;
                me.at = match self.bug {
                    Some(Bug::KeepsThread | Bug::ClearsLate) => At::FreeWord,
                    _ => At::ClearThread,
                };
            }
            At::ClearThread => {
                state.thread = Name { token: 0, ordinal: 0 };
                me.at = At::FreeWord;
            }
            At::FreeWord => {
                state.word = 0;
                (me.holds, me.releases, me.rounds) = (0, 0, me.rounds + 1);
                me.at = if self.has(Bug::ClearsLate) { At::ClearLate } else { At::Outside };
            }
            At::ClearLate => {
                state.thread = Name { token: 0, ordinal: 0 };
                me.at = At::Outside;
            }
            At::Dead => return Ok(false),
        }
        state.threads[who] = me;
        Ok(true)
    }

    fn is_dead(state: &State, process: usize) -> bool {
        (0..THREADS).any(|who| process_of(who) == process && state.threads[who].at == At::Dead)
    }

    fn recover(&self, state: &mut State, who: usize) -> bool {
        let found = std::mem::take(&mut state.recoverers[who]);
        if found == 0 {
            let dead = (0..2).find(|&process| Self::is_dead(state, process) && state.word == state.tokens[process]);
            state.recoverers[who] = dead.map_or(0, |process| state.tokens[process]);
            return dead.is_some();
        }
        let is_held = state.word != 0 && state.word != NOBODY;
        if state.word == found || is_held && self.has(Bug::RecoveryIsStored) {
            state.word = if self.has(Bug::RecoveryStoresFree) { 0 } else { NOBODY };
        }
        true
    }

    fn kill_recoverer(&self, state: &mut State, who: usize) -> bool {
        if state.kills >= self.kills || state.recoverers[who] == 0 {
            return false;
        }
        state.recoverers[who] = 0;
        state.kills += 1;
        true
    }

    fn kill(&self, state: &mut State, process: usize) -> bool {
        if state.kills >= self.kills || Self::is_dead(state, process) {
            return false;
        }
        state.dirty |= u8::from(state.word == state.tokens[process]);
        for who in (0..THREADS).filter(|&who| process_of(who) == process) {
            state.threads[who] = Thread { at: At::Dead, ..NEW };
        }
        state.kills += 1;
        true
    }

    /// A new process in the slot, once recovery is over.
    fn be_born(&self, state: &mut State, process: usize) -> bool {
        let is_over = Self::is_dead(state, process) && state.word != state.tokens[process];
        if state.births >= self.births || !is_over {
            return false;
        }
        state.tokens[process] += 2;
        state
            .threads
            .iter_mut()
            .enumerate()
            .filter(|(who, _)| process_of(*who) == process)
            .for_each(|(_, it)| *it = NEW);
        state.births += 1;
        true
    }
}

impl Model for RLock {
    type State = State;

    fn initial(&self) -> Vec<State> {
        vec![State {
            word: 0,
            thread: Name { token: 0, ordinal: 0 },
            depth: 0,
            threads: [NEW; THREADS],
            tokens: [1, 2],
            recoverers: [0; RECOVERERS],
            dirty: 0,
            kills: 0,
            births: 0,
        }]
    }

    fn successors(&self, state: &State, next: &mut Successors<State>) {
        for who in 0..THREADS {
            next.step(who, state, |state| self.act(state, who));
        }
        for process in 0..2 {
            next.event("is killed", process, state, |state| Ok(self.kill(state, process)));
            next.event("is born", process, state, |state| Ok(self.be_born(state, process)));
        }
        for who in 0..RECOVERERS {
            next.step(THREADS + who, state, |state| Ok(self.recover(state, who)));
            next.event("is killed", THREADS + who, state, |state| Ok(self.kill_recoverer(state, who)));
        }
    }

    fn invariant(&self, state: &State) -> Result<(), Broken> {
        let inside = state.threads.iter().filter(|thread| thread.holds > 0 && thread.at != At::Dead).count();
        if inside > 1 { Err("two owners are inside") } else { Ok(()) }
    }

    fn at_rest(&self, state: &State) -> Result<(), Broken> {
        if state.word != 0 && state.word != NOBODY { Err("the lock is never released") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explorer::{Explorer, holds, is_caught};

    const PLAIN: RLock = RLock { rounds: 2, kills: 1, births: 1, bug: None };

    fn catches(bug: Bug, expected: Broken) {
        is_caught(Explorer::default(), &RLock { bug: Some(bug), ..PLAIN }, expected);
    }

    #[test]
    fn the_algorithm_has_no_violation() {
        let report = holds(Explorer::default().no_livelock(), &PLAIN);
        assert_eq!(report.states, 40_764);
        let report = holds(Explorer::default().no_livelock(), &RLock { rounds: 1, kills: 2, births: 2, ..PLAIN });
        assert_eq!(report.states, 41_764);
    }

    #[test]
    fn a_name_that_is_kept_is_caught() {
        catches(Bug::KeepsThread, "a thread takes another one's lock for its own");
    }

    #[test]
    fn a_name_that_is_cleared_late_is_caught() {
        catches(Bug::ClearsLate, "an owner does not know its lock");
    }

    #[test]
    fn a_depth_that_is_inherited_is_caught() {
        catches(Bug::KeepsDepth, "an owner finds another depth than it has made");
    }

    #[test]
    fn an_ordinal_without_a_token_is_caught() {
        catches(Bug::OrdinalAlone, "a thread takes another one's lock for its own");
    }

    #[test]
    fn a_recovery_that_is_stored_is_caught() {
        catches(Bug::RecoveryIsStored, "an owner does not know its lock");
    }

    #[test]
    fn a_recovery_that_stores_free_is_caught() {
        catches(Bug::RecoveryStoresFree, "an owner is not told that the one before it died inside");
    }
}
