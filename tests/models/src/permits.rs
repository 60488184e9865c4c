//! The permit semaphore: a word for each permit, and one wait word.
//!
//! ```text
//! owner[p]     0 = free, or the token of who holds that permit
//! waiting      the mark of the wait word
//! ```
//!
//! # Steps
//!
//! ```text
//! acquire   waiting = 1;  look at the owners one after the other, CAS a free one to me;  none: sleep, then again
//!           taken after a sleep: wake one, whatever else is free                     the relay
//! release   CAS owner to free;  waiting: waiting = 0, wake one
//! leave     a sleeper that gives up: wake one
//! ```
//!
//! The wait word's own steps are [`crate::waiting`]'s: here the mark and the first look are one step, and who publishes finds
//! everybody who has marked and not yet slept on his way to another look.
//!
//! # Crash behaviour
//!
//! ```text
//! recovery   each owner that is the dead one: CAS to free;  wake everybody
//! ```
//!
//! | killed | what others see | who repairs | what is lost |
//! |---|---|---|---|
//! | holding a permit | a dead owner | recovery | nothing: the permit comes back |
//! | released, before the wake | a free permit and a sleeper | recovery wakes all, or the sleeper looks at the end of its slice | one slice |
//! | woken, before it took or relayed | the same | the same | the same |
//! | the recoverer | some permits free | the next recoverer, from the start | nothing |
//!
//! A new process comes in the dead one's slot with the next token.
//!
//! # What is checked
//!
//! Who holds a permit is its owner until he gives it back; at rest nobody sleeps beside a free permit, and every permit is free.
//!
//! # Size
//!
//! Two permits. Four processes, one of which may give up: 33 068 states; three with a kill and a birth that want both: 462 194.

use zerocopy::{Immutable, IntoBytes};

use crate::explorer::{Broken, Model, Successors};
use crate::sleepers::wake_one;

const PERMITS: usize = 2;
const MAX_PEOPLE: usize = 4;
const RECOVERER: usize = MAX_PEOPLE;

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A permit is taken by a store, after a look that found it free.
    TakenByStore,
    /// Who took a permit after a sleep wakes nobody.
    NoRelay,
    /// Who gives up after a sleep wakes nobody.
    LeavesSilently,
    /// The wake comes before the permit is free.
    WakesFirst,
    /// Recovery wakes nobody.
    RecoveryWakesNobody,
    /// Recovery wakes one only.
    RecoveryWakesOne,
    /// Recovery leaves the permits after the first that was the dead one's.
    RecoversOne,
    /// Recovery asks for the slot alone, and frees what the newcomer in it holds.
    NewcomerBeforeRecovery,
}

/// The model and its size.
#[derive(Clone, Copy, Debug)]
pub struct Permits {
    /// Processes, at most 4.
    pub people: usize,
    /// How many permits each takes, one after the other, before it gives them back.
    pub wants: u8,
    /// Processes, from the first, that may give up when they sleep.
    pub leavers: usize,
    /// Processes, from the last, that never give back what they have.
    pub keepers: usize,
    /// Kills in one history.
    pub kills: u8,
    /// Processes that come in the place of dead ones.
    pub births: u8,
    /// The seeded bug.
    pub bug: Option<Bug>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum At {
    Begin,
    Look,
    Take,
    Asleep,
    Relay,
    Holds,
    /// Works on with what it has, for ever.
    Keeps,
    Release,
    Wake,
    LeaveWake,
    Done,
    Dead,
    Buried,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Person {
    at: At,
    token: u8,
    /// The permit it looks at.
    index: u8,
    /// What it holds, a bit for each permit.
    holds: u8,
    slept: u8,
    notified: u8,
}

impl Person {
    const fn new(at: At, token: u8) -> Self {
        Self { at, token, index: 0, holds: 0, slept: 0, notified: 0 }
    }
}

/// All words and processes.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    owners: [u8; PERMITS],
    waiting: u8,
    people: [Person; MAX_PEOPLE],
    /// Whom the recoverer recovers, and its next step.
    recovers: u8,
    recovery_at: u8,
    kills: u8,
    births: u8,
    wake_lost: u8,
}

impl State {
    fn wake(&mut self, who: usize) {
        let person = &mut self.people[who];
        (person.at, person.slept) = (At::Begin, 1);
    }

    fn wake_all(&mut self) {
        self.waiting = 0;
        for who in 0..MAX_PEOPLE {
            self.notify(who);
            if self.people[who].at == At::Asleep {
                self.wake(who);
            }
        }
    }

    /// The word has changed since this one marked it.
    fn notify(&mut self, who: usize) {
        let person = &mut self.people[who];
        person.notified |= u8::from(matches!(person.at, At::Look | At::Take));
    }
}

impl Permits {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// A step that wakes nobody.
    fn act(&self, state: &mut State, who: usize) -> Result<bool, Broken> {
        let mut me = state.people[who];
        match me.at {
            At::Begin => {
                state.waiting = 1;
                (me.index, me.notified, me.at) = (0, 0, At::Look);
            }
            At::Look if me.index as usize == PERMITS => {
                me.at = if me.notified != 0 { At::Begin } else { At::Asleep };
                (me.index, me.notified) = (0, 0);
            }
            At::Look if state.owners[me.index as usize] == 0 => me.at = At::Take,
            At::Look => me.index += 1,
            At::Take => {
                let owner = &mut state.owners[me.index as usize];
                if *owner == 0 || self.has(Bug::TakenByStore) {
                    *owner = me.token;
                    me.holds |= 1 << me.index;
                    me.at = if me.slept != 0 && !self.has(Bug::NoRelay) { At::Relay } else { self.taken(&mut me) };
                    (me.index, me.notified) = (0, 0);
                } else {
                    (me.index, me.at) = (me.index + 1, At::Look);
                }
            }
            At::Relay => me.at = self.taken(&mut me),
            At::Holds if who + self.keepers >= self.people => me.at = At::Keeps,
            At::Holds => me.at = if self.has(Bug::WakesFirst) { At::Wake } else { At::Release },
            At::Release => {
                let index = me.holds.trailing_zeros();
                state.owners[index as usize] = 0;
                me.holds &= !(1 << index);
                me.at = if self.has(Bug::WakesFirst) { Self::released(&me) } else { At::Wake };
            }
            At::Wake => me.at = if self.has(Bug::WakesFirst) { At::Release } else { Self::released(&me) },
            At::LeaveWake => me.at = At::Done,
            At::Asleep | At::Keeps | At::Done | At::Dead | At::Buried => return Ok(false),
        }
        state.people[who] = me;
        Ok(true)
    }

    /// After a permit was taken: another one, or all are given back.
    fn taken(&self, me: &mut Person) -> At {
        me.slept = 0;
        if me.holds.count_ones() < u32::from(self.wants) { At::Begin } else { At::Holds }
    }

    fn released(me: &Person) -> At {
        if me.holds == 0 { At::Done } else { At::Holds }
    }

    fn recover(&self, state: &mut State) -> bool {
        if state.recovers == 0 {
            let Some(dead) = state.people.iter().find(|person| person.at == At::Dead) else { return false };
            (state.recovers, state.recovery_at) = (dead.token, 0);
        }
        let token = state.recovers;
        let step = state.recovery_at as usize;
        state.recovery_at += 1;
        if step < PERMITS {
            let slot = (token - 1) % MAX_PEOPLE as u8;
            let owner = &mut state.owners[step];
            let is_its = match self.bug {
                Some(Bug::NewcomerBeforeRecovery) => *owner != 0 && (*owner - 1) % MAX_PEOPLE as u8 == slot,
                _ => *owner == token,
            };
            if is_its {
                *owner = 0;
                if self.has(Bug::RecoversOne) {
                    state.recovery_at = PERMITS as u8;
                }
            }
        } else if step == PERMITS {
            match self.bug {
                Some(Bug::RecoveryWakesNobody) => {}
                Some(Bug::RecoveryWakesOne) => {
                    if let Some(who) = state.people.iter().position(|person| person.at == At::Asleep) {
                        state.wake(who);
                    }
                }
                _ => state.wake_all(),
            }
        } else {
            for person in state.people.iter_mut().filter(|person| person.token == token && person.at == At::Dead) {
                person.at = At::Buried;
            }
            (state.recovers, state.recovery_at) = (0, 0);
        }
        true
    }

    fn kill(&self, state: &mut State, who: usize) -> bool {
        if state.kills >= self.kills {
            return false;
        }
        if who == RECOVERER {
            if state.recovers == 0 {
                return false;
            }
            (state.recovers, state.recovery_at) = (0, 0);
        } else {
            let me = &mut state.people[who];
            if matches!(me.at, At::Done | At::Dead | At::Buried) {
                return false;
            }
            state.wake_lost |= u8::from(me.slept != 0 || matches!(me.at, At::Wake | At::LeaveWake));
            *me = Person::new(At::Dead, me.token);
        }
        state.kills += 1;
        true
    }

    /// A newcomer takes the slot.
    fn be_born(&self, state: &mut State, who: usize) -> bool {
        let me = &mut state.people[who];
        let is_free = me.at == At::Buried || self.has(Bug::NewcomerBeforeRecovery) && me.at == At::Dead;
        let can = state.births < self.births && is_free;
        if can {
            *me = Person::new(At::Begin, me.token + MAX_PEOPLE as u8);
            state.births += 1;
        }
        can
    }
}

impl Model for Permits {
    type State = State;

    fn initial(&self) -> Vec<State> {
        let mut people = [Person::new(At::Done, 0); MAX_PEOPLE];
        for (who, person) in people[..self.people].iter_mut().enumerate() {
            *person = Person::new(At::Begin, who as u8 + 1);
        }
        vec![State {
            owners: [0; PERMITS],
            waiting: 0,
            people,
            recovers: 0,
            recovery_at: 0,
            kills: 0,
            births: 0,
            wake_lost: 0,
        }]
    }

    fn successors(&self, state: &State, next: &mut Successors<State>) {
        let sleepers = || (0..self.people).filter(|&who| state.people[who].at == At::Asleep);
        for who in 0..self.people {
            match state.people[who].at {
                At::Wake if state.waiting != 0 => wake_one(state, next, who, sleepers(), State::wake, |state| {
                    state.waiting = 0;
                    (0..self.people).for_each(|other| state.notify(other));
                    self.act(state, who)
                }),
                At::Relay | At::LeaveWake => {
                    wake_one(state, next, who, sleepers(), State::wake, |state| self.act(state, who));
                }
                _ => next.step(who, state, |state| self.act(state, who)),
            }
            next.event("is killed", who, state, |state| Ok(self.kill(state, who)));
            next.event("is born", who, state, |state| Ok(self.be_born(state, who)));
            next.event("gives up", who, state, |state| {
                let me = &mut state.people[who];
                let can =
                    who < self.leavers && me.holds == 0 && (me.at == At::Asleep || me.at == At::Begin && me.slept != 0);
                if can {
                    let at = if self.has(Bug::LeavesSilently) { At::Done } else { At::LeaveWake };
                    *me = Person { slept: 1, ..Person::new(at, me.token) };
                }
                Ok(can)
            });
        }
        next.step(RECOVERER, state, |state| Ok(self.recover(state)));
        next.event("is killed", RECOVERER, state, |state| Ok(self.kill(state, RECOVERER)));
        if state.wake_lost != 0 {
            next.step(RECOVERER, state, |state| {
                state.wake_lost = 0;
                state.wake_all();
                Ok(true)
            });
        }
    }

    fn invariant(&self, state: &State) -> Result<(), Broken> {
        let is_robbed = |person: &Person| {
            (0..PERMITS).any(|index| person.holds & (1 << index) != 0 && state.owners[index] != person.token)
        };
        if state.people.iter().any(is_robbed) { Err("a permit is taken from one who lives") } else { Ok(()) }
    }

    fn at_rest(&self, state: &State) -> Result<(), Broken> {
        let sleeps = state.people.iter().any(|person| person.at == At::Asleep);
        if sleeps && state.owners.contains(&0) {
            return Err("one sleeps beside a free permit");
        }
        // With two wants each, two can keep one each for ever: a deadlock of the users.
        let keeps = |owner: &u8| state.people.iter().any(|person| person.at == At::Keeps && person.token == *owner);
        if !sleeps && state.owners.iter().any(|owner| *owner != 0 && !keeps(owner)) {
            return Err("a permit never comes back");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explorer::{Explorer, holds, is_caught};

    const PLAIN: Permits = Permits { people: 4, wants: 1, leavers: 0, keepers: 0, kills: 0, births: 0, bug: None };
    const SLEEPS: Broken = "one sleeps beside a free permit";

    fn catches(bug: Bug, model: Permits, expected: Broken) {
        is_caught(Explorer::default(), &Permits { bug: Some(bug), ..model }, expected);
    }

    fn states(model: Permits) -> usize {
        holds(Explorer::default().no_livelock(), &model).states
    }

    #[test]
    fn the_algorithm_has_no_violation() {
        assert_eq!(states(Permits { leavers: 1, ..PLAIN }), 33_068);
        assert_eq!(states(Permits { keepers: 2, leavers: 1, ..PLAIN }), 14_082);
        assert_eq!(states(Permits { people: 3, wants: 2, kills: 1, births: 1, ..PLAIN }), 462_194);
        assert_eq!(states(Permits { people: 3, leavers: 1, kills: 2, births: 1, ..PLAIN }), 151_610);
    }

    #[test]
    fn a_permit_taken_by_a_store_is_caught() {
        catches(Bug::TakenByStore, PLAIN, "a permit is taken from one who lives");
    }

    #[test]
    fn a_missing_relay_is_caught() {
        catches(Bug::NoRelay, Permits { keepers: 2, ..PLAIN }, SLEEPS);
    }

    #[test]
    fn a_waiter_that_leaves_silently_is_caught() {
        catches(Bug::LeavesSilently, Permits { leavers: 1, ..PLAIN }, SLEEPS);
    }

    #[test]
    fn a_wake_before_the_release_is_caught() {
        catches(Bug::WakesFirst, PLAIN, SLEEPS);
    }

    #[test]
    fn a_recovery_that_wakes_nobody_is_caught() {
        catches(Bug::RecoveryWakesNobody, Permits { people: 3, keepers: 1, kills: 1, ..PLAIN }, SLEEPS);
    }

    #[test]
    fn a_recovery_that_wakes_one_is_caught() {
        catches(Bug::RecoveryWakesOne, Permits { people: 3, wants: 2, kills: 2, ..PLAIN }, SLEEPS);
    }

    #[test]
    fn a_recovery_that_frees_one_permit_is_caught() {
        let model = Permits { people: 2, wants: 2, kills: 1, ..PLAIN };
        catches(Bug::RecoversOne, model, "a permit never comes back");
    }

    #[test]
    fn a_newcomer_before_the_recovery_is_caught() {
        let model = Permits { people: 2, kills: 2, births: 1, ..PLAIN };
        catches(Bug::NewcomerBeforeRecovery, model, "a permit is taken from one who lives");
    }
}
