//! The barrier: arrival words that are claimed once in a round, and a state word.
//!
//! ```text
//! state        {round, phase, owner}: FILLING, ACTION by owner, DRAINING, RESETTING, BROKEN
//! arrival[2]   {round, token}; token 0: left, or never claimed, in that round
//! ```
//!
//! # Steps
//!
//! ```text
//! arrive    s = state;  FILLING: look at the arrivals for {0, not s.round}, CAS to {s.round, me}; none: sleep;
//!           state is still of that round, and not broken? else CAS back to what it was, wake all, settle, again
//!           DRAINING, RESETTING: settle, then again, or sleep;  ACTION: sleep;  BROKEN: an error
//! trip      all arrivals are of the round: CAS {FILLING, round} to DRAINING, or to ACTION by me, and that to DRAINING
//! outcome   DRAINING: passed;  BROKEN, RESETTING: broken;  else sleep
//! leave     arrival to {round, 0};  settle
//! settle    s = state;  DRAINING or RESETTING, and no token in any arrival:  CAS s to {s.round + 1, FILLING}
//! break     CAS {round, FILLING or ACTION} to BROKEN, unless the round is over
//! reset     CAS FILLING with arrivals, ACTION or BROKEN to RESETTING;  settle
//! ```
//!
//! Every change of the state wakes everybody, in a step after it.
//!
//! # Crash behaviour
//!
//! ```text
//! recovery   each arrival of the dead one: break its round;  then the word to {the round that is, 0}, or, if it came too late
//!            for its round and the next one is filling, to {the round before, 0};  settle;  wake everybody
//! ```
//!
//! | killed | what others see | who repairs | what is lost |
//! |---|---|---|---|
//! | waiting, tripping, in the action | its arrival | recovery breaks the round | the round |
//! | having passed | its arrival: newcomers wait | recovery frees it and begins the next round | nothing |
//! | too late, before it put the arrival back | an arrival of an old round | recovery makes it claimable | nothing |
//! | after a change, before the wake | sleepers | the end of a slice, or recovery | one slice |
//!
//! The recoverer may be killed after each step. Slots are used again: a new process comes with the next token.
//!
//! # What is checked
//!
//! A round is passed by those who arrived in it, and those are as many as there are parties; nobody finds broken what another
//! one passes; no two in a round have the same number; nobody sleeps for ever but for parties that did not come.
//!
//! # Size
//!
//! Two processes, two waits, two kills, one birth: 109 997 states. The larger configurations have up to 396 290.

use zerocopy::{Immutable, IntoBytes};

use crate::explorer::{Broken, Model, Successors};

const PARTIES: usize = 2;
const MAX_PEOPLE: usize = 3;
/// Rounds that can be told apart.
const ROUNDS: usize = 8;
/// Numbers of the actors behind the people.
const RECOVERER: usize = MAX_PEOPLE;
const RESETTER: usize = MAX_PEOPLE + 1;
const ACTORS: usize = MAX_PEOPLE + 2;

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// An arrival is claimed again in the round in which it was left.
    ClaimsAgain,
    /// Who has claimed an arrival does not look at the state again.
    NoSecondLook,
    /// The state is stored by who trips it.
    TripIsStored,
    /// Who leaves does not look whether he was the last.
    NoSettle,
    /// Recovery frees the arrival before it breaks the round.
    FreesBeforeBreaking,
    /// Recovery takes an arrival that came too late for one of the round that is filling.
    ForgetsLate,
    /// Recovery breaks no round.
    BreaksNothing,
}

/// The model and its size.
#[derive(Clone, Copy, Debug)]
pub struct Barrier {
    /// Processes, at most 3, of which two are needed.
    pub people: usize,
    /// How often each waits.
    pub waits: u8,
    /// Whether there is an action.
    pub has_action: bool,
    /// Kills in one history.
    pub kills: u8,
    /// Processes that come in the place of dead ones.
    pub births: u8,
    /// Whether it begins where the first has claimed an arrival in round 1, which was reset meanwhile.
    pub begins_late: bool,
    /// Resets in one history.
    pub resets: u8,
    /// Waits that end by their time-out.
    pub time_outs: u8,
    /// The seeded bug.
    pub bug: Option<Bug>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum Phase {
    Filling,
    Action,
    Draining,
    Resetting,
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Word {
    round: u8,
    phase: Phase,
    owner: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Arrival {
    round: u8,
    token: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum At {
    /// Begins an attempt to arrive: a publisher from here on is noticed.
    Arrive,
    ArriveState,
    ClaimLook,
    Claim,
    SecondLook,
    PutBack,
    PutBackWake,
    Count,
    Trip,
    Act,
    /// Begins to wait for the outcome.
    Await,
    Outcome,
    BreakLook,
    Break,
    Leave,
    SettleLook,
    SettleScan,
    Settle,
    Settled,
    /// Wakes all after a change.
    Wake,
    /// Sleeps, if nobody has published since the attempt began.
    Sleep,
    Asleep,
    Between,
    Dead,
    Buried,
    // Of the recoverer.
    BuryLook,
    BuryState,
    BuryWord,
    BuryWake,
    // Of who resets.
    ResetLook,
    Reset,
    Idle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Actor {
    at: At,
    /// Where it goes on after a wake, after settling, after breaking, and after a sleep.
    after_wake: At,
    after_settling: At,
    after_breaking: At,
    after_sleep: At,
    token: u8,
    waits: u8,
    seen: Word,
    /// What its arrival was before.
    before: Arrival,
    round: u8,
    index: u8,
    notified: u8,
    /// Whether it is in a round: what it has by its arrival.
    is_member: u8,
}

impl Actor {
    fn new(at: At, token: u8) -> Self {
        let seen = Word { round: 0, phase: Phase::Filling, owner: 0 };
        let before = Arrival { round: 0, token: 0 };
        let idle = At::Idle;
        Self {
            at,
            after_wake: idle,
            after_settling: idle,
            after_breaking: idle,
            after_sleep: idle,
            token,
            waits: 0,
            seen,
            before,
            round: 0,
            index: 0,
            notified: 0,
            is_member: 0,
        }
    }
}

impl Actor {
    /// Without what will not be looked at any more: the same states are the same bytes.
    fn tidied(self) -> Self {
        let mut new = Self { waits: self.waits, is_member: self.is_member, ..Self::new(self.at, self.token) };
        let mut at = self.at;
        if at == At::Wake {
            (new.after_wake, at) = (self.after_wake, self.after_wake);
        }
        let settles = matches!(at, At::SettleLook | At::SettleScan | At::Settle | At::Settled);
        if settles {
            new.after_settling = self.after_settling;
        }
        let breaks = matches!(at, At::BreakLook | At::Break);
        if breaks {
            new.after_breaking = self.after_breaking;
        }
        if matches!(at, At::Sleep | At::Asleep) {
            new.after_sleep = self.after_sleep;
        }
        let tries = matches!(at, At::ArriveState | At::ClaimLook | At::Claim | At::Outcome | At::Sleep);
        if tries || settles && self.after_settling == At::Arrive {
            new.notified = self.notified;
        }
        if matches!(at, At::ClaimLook | At::Claim | At::Break | At::SettleScan | At::Settle | At::BuryWord | At::Reset)
        {
            new.seen = self.seen;
        }
        let buries = matches!(at, At::BuryState | At::BuryWord) || breaks && self.after_breaking == At::BuryState;
        if buries || matches!(at, At::Claim | At::SecondLook | At::PutBack) {
            new.before = self.before;
        }
        if buries || breaks || self.is_member != 0 || matches!(at, At::SecondLook | At::PutBack) {
            new.round = self.round;
        }
        let claims = matches!(at, At::ClaimLook | At::Claim | At::SecondLook | At::PutBack);
        if claims || buries || breaks || self.is_member != 0 || matches!(at, At::SettleScan | At::BuryLook) {
            new.index = self.index;
        }
        new
    }
}

/// All words and actors.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    word: Word,
    arrivals: [Arrival; PARTIES],
    actors: [Actor; ACTORS],
    /// Who arrived in a round, passed it, found it broken: counts, by round.
    joined: [u8; ROUNDS],
    passed: [u8; ROUNDS],
    broken: [u8; ROUNDS],
    kills: u8,
    births: u8,
    resets: u8,
    time_outs: u8,
    wake_lost: u8,
}

impl State {
    /// A CAS of the state; the wake is the actor's next step.
    fn change(&mut self, from: Word, phase: Phase, owner: u8) -> bool {
        let is_same = self.word == from;
        if is_same {
            let round = if phase == Phase::Filling { from.round + 1 } else { from.round };
            self.word = Word { round, phase, owner };
        }
        is_same
    }

    fn wake_all(&mut self) {
        for actor in &mut self.actors {
            let mut told = *actor;
            told.notified = 1;
            *actor = told.tidied();
            if actor.at == At::Asleep {
                actor.at = actor.after_sleep;
            }
        }
    }
}

impl Barrier {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn act(&self, state: &mut State, who: usize) -> Result<bool, Broken> {
        let mut me = state.actors[who];
        match me.at {
            At::Between if me.waits < self.waits => {
                let (token, waits) = (me.token, me.waits + 1);
                me = Actor { waits, ..Actor::new(At::Arrive, token) };
            }
            At::Between | At::Dead | At::Buried | At::Idle => return Ok(false),
            At::Arrive => {
                me.notified = 0;
                me.at = At::ArriveState;
            }
            At::ArriveState => {
                me.seen = state.word;
                me.at = match me.seen.phase {
                    Phase::Filling => {
                        me.index = 0;
                        At::ClaimLook
                    }
                    Phase::Action => Self::sleep(&mut me, At::Arrive),
                    Phase::Draining | Phase::Resetting => Self::settle(&mut me, At::Arrive),
                    Phase::Broken => At::Between,
                };
            }
            At::ClaimLook if me.index as usize == PARTIES => me.at = Self::sleep(&mut me, At::Arrive),
            At::ClaimLook => {
                me.before = state.arrivals[me.index as usize];
                let is_old = me.before.round != me.seen.round || self.has(Bug::ClaimsAgain);
                if me.before.token == 0 && is_old {
                    me.at = At::Claim;
                } else {
                    me.index += 1;
                }
            }
            At::Claim => {
                let word = &mut state.arrivals[me.index as usize];
                if *word == me.before {
                    *word = Arrival { round: me.seen.round, token: me.token };
                    state.joined[me.seen.round as usize] += 1;
                    me.round = me.seen.round;
                    me.at = At::SecondLook;
                } else {
                    me.index += 1;
                    me.at = At::ClaimLook;
                }
            }
            At::SecondLook => {
                let is_in = state.word.round == me.round && state.word.phase as u8 <= Phase::Draining as u8;
                if is_in || self.has(Bug::NoSecondLook) {
                    me.is_member = 1;
                    me.before = Arrival { round: 0, token: 0 };
                    me.at = At::Count;
                } else {
                    me.at = At::PutBack;
                }
            }
            At::PutBack => {
                let word = &mut state.arrivals[me.index as usize];
                if *word == (Arrival { round: me.round, token: me.token }) {
                    *word = me.before;
                    state.joined[me.round as usize] -= 1;
                }
                me.at = At::PutBackWake;
            }
            At::PutBackWake => {
                state.wake_all();
                me.at = Self::settle(&mut me, At::PutBack);
            }
            At::Count => {
                // All that is needed of the count is whether it is complete: the scan is one step.
                let is_in = |arrival: &Arrival| arrival.token != 0 && arrival.round == me.round;
                me.at = if state.arrivals.iter().all(is_in) { At::Trip } else { At::Await };
            }
            At::Trip => {
                let from = Word { round: me.round, phase: Phase::Filling, owner: 0 };
                let (phase, owner) = if self.has_action { (Phase::Action, me.token) } else { (Phase::Draining, 0) };
                if self.has(Bug::TripIsStored) {
                    state.word = from;
                }
                me.after_wake = if self.has_action { At::Act } else { At::Await };
                me.at = if state.change(from, phase, owner) { At::Wake } else { At::Await };
            }
            At::Act => {
                let from = Word { round: me.round, phase: Phase::Action, owner: me.token };
                me.after_wake = At::Await;
                me.at = if state.change(from, Phase::Draining, 0) { At::Wake } else { At::Await };
            }
            At::Await => {
                me.notified = 0;
                me.at = At::Outcome;
            }
            At::Outcome => {
                if state.word.round != me.round {
                    return Err("a round goes on without one who is in it");
                }
                let round = me.round as usize;
                me.at = match state.word.phase {
                    Phase::Filling | Phase::Action => Self::sleep(&mut me, At::Await),
                    Phase::Draining => {
                        state.passed[round] += 1;
                        At::Leave
                    }
                    Phase::Broken | Phase::Resetting => {
                        state.broken[round] += 1;
                        At::Leave
                    }
                };
                if state.passed[round] > 0 && state.broken[round] > 0 {
                    return Err("one passes a round that another one finds broken");
                }
                if state.passed[round] > 0 && state.joined[round] as usize != PARTIES {
                    return Err("a round is passed by more, or by fewer, than there are parties");
                }
            }
            At::BreakLook => {
                me.seen = state.word;
                let goes_on = me.seen.round == me.round && (me.seen.phase as u8) < Phase::Draining as u8;
                me.at = if goes_on { At::Break } else { me.after_breaking };
            }
            At::Break => {
                me.after_wake = me.after_breaking;
                me.at = if state.change(me.seen, Phase::Broken, 1) { At::Wake } else { At::BreakLook };
            }
            At::Leave => {
                let word = &mut state.arrivals[me.index as usize];
                if *word == (Arrival { round: me.round, token: me.token }) {
                    word.token = 0;
                }
                me.is_member = 0;
                me.at = if self.has(Bug::NoSettle) { At::Between } else { Self::settle(&mut me, At::Between) };
            }
            At::SettleLook => {
                me.seen = state.word;
                let is_over = matches!(me.seen.phase, Phase::Draining | Phase::Resetting);
                me.index = 0;
                me.at = if is_over { At::SettleScan } else { At::Settled };
            }
            At::SettleScan => {
                me.at = match state.arrivals[me.index as usize].token {
                    0 if me.index as usize + 1 == PARTIES => At::Settle,
                    0 => {
                        me.index += 1;
                        At::SettleScan
                    }
                    _ => At::Settled,
                };
            }
            At::Settle => {
                me.after_wake = At::Settled;
                me.at = if state.change(me.seen, Phase::Filling, 0) { At::Wake } else { At::Settled };
            }
            At::Settled => {
                let is_filling = state.word.phase == Phase::Filling;
                me.at = match me.after_settling {
                    At::Arrive if !is_filling => Self::sleep(&mut me, At::Arrive),
                    // Who came too late tries again, whatever it is now.
                    At::PutBack => At::Arrive,
                    after => after,
                };
            }
            At::Wake => {
                state.wake_all();
                me.at = me.after_wake;
                me.after_wake = At::Idle;
            }
            At::Sleep => me.at = if me.notified != 0 { me.after_sleep } else { At::Asleep },
            At::Asleep => return Ok(false),
            At::BuryLook if me.index as usize == PARTIES => me.at = Self::settle(&mut me, At::BuryWake),
            At::BuryLook => {
                me.before = state.arrivals[me.index as usize];
                if me.before.token == me.token {
                    // The index is needed again after breaking, which does not change it.
                    me.round = me.before.round;
                    me.after_breaking = At::BuryState;
                    me.at = match self.bug {
                        Some(Bug::FreesBeforeBreaking) => At::BuryState,
                        Some(Bug::BreaksNothing) => At::BuryState,
                        _ => At::BreakLook,
                    };
                } else {
                    me.index += 1;
                }
            }
            At::BuryState => {
                me.seen = state.word;
                me.at = At::BuryWord;
            }
            At::BuryWord => {
                let is_late = me.seen.round != me.round && me.seen.phase == Phase::Filling;
                let forgets = self.has(Bug::ForgetsLate);
                let round = if is_late && !forgets { me.seen.round - 1 } else { me.seen.round };
                let word = &mut state.arrivals[me.index as usize];
                if *word == me.before {
                    *word = Arrival { round, token: 0 };
                }
                me.index += 1;
                me.after_breaking = At::BuryLook;
                me.at = if self.has(Bug::FreesBeforeBreaking) { At::BreakLook } else { At::BuryLook };
            }
            At::BuryWake => {
                state.wake_all();
                let dead = state.actors[..self.people].iter_mut().find(|actor| actor.token == me.token);
                dead.ok_or("a living one is buried")?.at = At::Buried;
                me = Actor::new(At::Idle, 0);
            }
            At::ResetLook => {
                me.seen = state.word;
                let is_in = |arrival: &Arrival| arrival.token != 0 && arrival.round == me.seen.round;
                let is_used = match me.seen.phase {
                    Phase::Filling => state.arrivals.iter().any(is_in),
                    Phase::Action | Phase::Broken => true,
                    _ => false,
                };
                me.at = if is_used { At::Reset } else { At::Idle };
            }
            At::Reset => {
                me.after_wake = Self::settle(&mut me, At::Idle);
                me.at = if state.change(me.seen, Phase::Resetting, 0) { At::Wake } else { At::ResetLook };
            }
        }
        state.actors[who] = me.tidied();
        // Rounds that nobody can be in any more.
        for round in 0..state.word.round {
            if state.actors.iter().all(|actor| actor.round != round) {
                let round = round as usize;
                (state.joined[round], state.passed[round], state.broken[round]) = (0, 0, 0);
            }
        }
        Ok(true)
    }

    fn sleep(me: &mut Actor, after: At) -> At {
        me.after_sleep = after;
        At::Sleep
    }

    fn settle(me: &mut Actor, after: At) -> At {
        me.after_settling = after;
        At::SettleLook
    }

    /// The time of one who waits for the outcome is up.
    fn give_up(&self, state: &mut State, who: usize) -> bool {
        let me = &mut state.actors[who];
        let can = state.time_outs < self.time_outs && me.at == At::Asleep && me.after_sleep == At::Await;
        if can {
            me.after_breaking = At::Await;
            me.at = At::BreakLook;
            *me = me.tidied();
            state.time_outs += 1;
        }
        can
    }

    fn begin_recovery(&self, state: &mut State) -> bool {
        let dead = state.actors[..self.people].iter().find(|actor| actor.at == At::Dead).map(|actor| actor.token);
        let Some(token) = dead.filter(|_| state.actors[RECOVERER].at == At::Idle) else { return false };
        state.actors[RECOVERER] = Actor::new(At::BuryLook, token);
        true
    }

    fn kill(&self, state: &mut State, who: usize) -> bool {
        let me = &mut state.actors[who];
        if state.kills >= self.kills || matches!(me.at, At::Idle | At::Between | At::Dead | At::Buried) {
            return false;
        }
        if matches!(me.at, At::Wake | At::PutBackWake | At::BuryWake) {
            state.wake_lost = 1;
        }
        let (at, token) = if who == RECOVERER { (At::Idle, 0) } else { (At::Dead, me.token) };
        *me = Actor::new(at, token);
        state.kills += 1;
        true
    }

    /// A new process, with the next token of the slot.
    fn be_born(&self, state: &mut State, who: usize) -> bool {
        let me = &mut state.actors[who];
        let can = state.births < self.births && me.at == At::Buried;
        if can {
            *me = Actor::new(At::Between, me.token + MAX_PEOPLE as u8);
            state.births += 1;
        }
        can
    }

    fn begin_reset(&self, state: &mut State) -> bool {
        let me = &mut state.actors[RESETTER];
        let can = state.resets < self.resets && me.at == At::Idle;
        if can {
            *me = Actor::new(At::ResetLook, 0);
            state.resets += 1;
        }
        can
    }
}

impl Model for Barrier {
    type State = State;

    fn initial(&self) -> Vec<State> {
        let mut actors = [Actor::new(At::Idle, 0); ACTORS];
        for (who, actor) in actors[..self.people].iter_mut().enumerate() {
            *actor = Actor::new(At::Between, who as u8 + 1);
        }
        let (mut round, mut joined, mut arrivals) = (1, [0; ROUNDS], [Arrival { round: 0, token: 0 }; PARTIES]);
        if self.begins_late {
            actors[0] = Actor { waits: 1, round, ..Actor::new(At::SecondLook, 1) };
            arrivals[0] = Arrival { round, token: 1 };
            joined[round as usize] = 1;
            round += 1;
        }
        vec![State {
            word: Word { round, phase: Phase::Filling, owner: 0 },
            arrivals,
            actors,
            joined,
            passed: [0; ROUNDS],
            broken: [0; ROUNDS],
            kills: 0,
            births: 0,
            resets: 0,
            time_outs: 0,
            wake_lost: 0,
        }]
    }

    fn successors(&self, state: &State, next: &mut Successors<State>) {
        for who in (0..self.people).chain([RECOVERER, RESETTER]) {
            next.step(who, state, |state| self.act(state, who));
        }
        for who in (0..self.people).chain([RECOVERER]) {
            next.event("is killed", who, state, |state| Ok(self.kill(state, who)));
        }
        for who in 0..self.people {
            next.event("gives up", who, state, |state| Ok(self.give_up(state, who)));
            next.event("is born", who, state, |state| Ok(self.be_born(state, who)));
        }
        next.step(RECOVERER, state, |state| Ok(self.begin_recovery(state)));
        if state.wake_lost != 0 {
            next.event("slices end", RECOVERER, state, |state| {
                state.wake_all();
                state.wake_lost = 0;
                Ok(true)
            });
        }
        next.event("resets", RESETTER, state, |state| Ok(self.begin_reset(state)));
    }

    fn invariant(&self, state: &State) -> Result<(), Broken> {
        let members = || state.actors.iter().filter(|actor| actor.is_member != 0);
        let has_twin =
            |one: &Actor| members().filter(|two| two.round == one.round && two.index == one.index).count() > 1;
        // The index is used otherwise by who breaks or settles; members do not settle, and breaking leaves it.
        if members().any(has_twin) { Err("two of a round have the same number") } else { Ok(()) }
    }

    fn at_rest(&self, state: &State) -> Result<(), Broken> {
        if state.wake_lost != 0 {
            return Ok(());
        }
        for actor in state.actors.iter().filter(|actor| actor.at == At::Asleep) {
            let others = state.actors.iter().filter(|other| other.is_member != 0 && other.round == actor.round).count();
            if actor.after_sleep != At::Await {
                return Err("one who wants to arrive sleeps for ever");
            }
            if state.word.phase != Phase::Filling || state.joined[actor.round as usize] as usize != others {
                return Err("one who has arrived sleeps for ever");
            }
            if others == PARTIES {
                return Err("all have arrived, and sleep");
            }
        }
        let is_in =
            |arrival: &Arrival| state.actors.iter().any(|actor| actor.is_member != 0 && actor.token == arrival.token);
        if state.arrivals.iter().any(|arrival| arrival.token != 0 && !is_in(arrival)) {
            return Err("an arrival is left");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explorer::{Explorer, holds, is_caught};

    const PLAIN: Barrier = Barrier {
        people: 2,
        waits: 2,
        has_action: false,
        kills: 0,
        births: 0,
        begins_late: false,
        resets: 0,
        time_outs: 0,
        bug: None,
    };

    fn catches(bug: Bug, model: Barrier, expected: Broken) {
        is_caught(Explorer::default(), &Barrier { bug: Some(bug), ..model }, expected);
    }

    fn states(model: Barrier) -> usize {
        holds(Explorer::default().no_livelock(), &model).states
    }

    #[test]
    fn the_algorithm_has_no_violation() {
        assert_eq!(states(PLAIN), 2_055);
        assert_eq!(states(Barrier { has_action: true, ..PLAIN }), 2_319);
        assert_eq!(states(Barrier { people: 3, waits: 1, ..PLAIN }), 23_039);
    }

    #[test]
    fn the_algorithm_has_no_violation_with_kills() {
        assert_eq!(states(Barrier { kills: 2, births: 1, ..PLAIN }), 109_997);
        assert_eq!(states(Barrier { kills: 2, has_action: true, waits: 1, births: 1, ..PLAIN }), 39_846);
    }

    #[test]
    fn the_algorithm_has_no_violation_with_resets_and_time_outs() {
        assert_eq!(states(Barrier { waits: 1, resets: 1, time_outs: 1, ..PLAIN }), 59_001);
        assert_eq!(states(Barrier { waits: 1, resets: 1, kills: 1, births: 1, ..PLAIN }), 396_290);
        assert_eq!(states(Barrier { people: 3, waits: 1, begins_late: true, kills: 1, ..PLAIN }), 275_459);
    }

    #[test]
    fn an_arrival_that_is_claimed_twice_in_a_round_is_caught() {
        let model = Barrier { people: 3, waits: 1, ..PLAIN };
        catches(Bug::ClaimsAgain, model, "a round is passed by more, or by fewer, than there are parties");
    }

    #[test]
    fn a_claim_without_a_second_look_is_caught() {
        let model = Barrier { people: 3, waits: 1, resets: 1, ..PLAIN };
        catches(Bug::NoSecondLook, model, "a round goes on without one who is in it");
    }

    #[test]
    fn a_trip_that_is_stored_is_caught() {
        let model = Barrier { time_outs: 1, ..PLAIN };
        catches(Bug::TripIsStored, model, "one passes a round that another one finds broken");
    }

    #[test]
    fn a_leaver_that_does_not_settle_is_caught() {
        catches(Bug::NoSettle, Barrier { people: 3, waits: 1, ..PLAIN }, "one who wants to arrive sleeps for ever");
    }

    #[test]
    fn a_recovery_that_frees_before_it_breaks_is_caught() {
        let model = Barrier { kills: 2, waits: 1, ..PLAIN };
        catches(Bug::FreesBeforeBreaking, model, "one who has arrived sleeps for ever");
    }

    #[test]
    fn a_recovery_that_breaks_nothing_is_caught() {
        catches(Bug::BreaksNothing, Barrier { kills: 1, waits: 1, ..PLAIN }, "one who has arrived sleeps for ever");
    }

    #[test]
    fn a_recovery_that_forgets_late_arrivals_is_caught() {
        let model = Barrier { people: 3, waits: 1, begins_late: true, kills: 1, ..PLAIN };
        catches(Bug::ForgetsLate, model, "one who wants to arrive sleeps for ever");
    }
}
