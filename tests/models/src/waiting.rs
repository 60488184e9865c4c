//! Waiting: one futex word {sequence, waiting} with wake-one, for several publishers and waiters.
//!
//! ```text
//! items         what is waited for: a producer puts one, a consumer takes one
//! word          {sequence, waiting}
//! ```
//!
//! # Steps
//!
//! ```text
//! publish  items + 1;  v = word;  v.waiting:  CAS v to {seq+1, 0} (else again);  wake one sleeper
//! wait     take an item?                                                         else
//!          v = word;  not waiting: CAS v to v|waiting (else again);  take an item?   else
//!          sleep if the word is still v|waiting
//!          after every sleep: word |= waiting, then from the start                the re-arm
//! relay    a consumer that slept and took, if more is there: wake one sleeper, unconditionally
//! leave    a consumer that slept and gives up (time-out, signal, cancel): wake one sleeper, unconditionally
//! recover  somebody is dead:  v = word;  v.waiting:  CAS v to {seq+1, 0} (else again);  wake all sleepers, marked or not;
//!          the dead one's slot is free: a new process may take it
//! ```
//!
//! The re-arm is what makes wake-one right: the publisher cleared `waiting` for one sleeper, but others may sleep on.
//! The relay is needed where two publishers put two items and the second found `waiting` cleared; the wake of the one
//! who leaves, where it was woken for an item that it does not take.
//!
//! # Crash behaviour
//!
//! | killed | what others see | who repairs | what is lost |
//! |---|---|---|---|
//! | publisher, before the CAS of the word | an item, `waiting` set | the sleeper, at the end of its slice | one slice |
//! | publisher, before its wake | a new sequence, `waiting` clear | the sleeper, at the end of its slice | one slice |
//! | consumer, woken, before it took or relayed | nothing | the next sleeper, at the end of its slice | one slice |
//!
//! | recoverer, before the slot is free | a dead one | the next recoverer, from the start | nothing |
//!
//! Slices end by themselves only in the model's histories with a kill and without a recoverer: elsewhere, a sleeper beside an item is
//! a lost wake-up. A slice that finds nothing is left out. With [`Waiting::recovers`] it is recovery alone that makes good what the
//! dead have left undone; the recoverer may be killed at each step like everybody, and slots are used again.
//!
//! # What is checked
//!
//! At rest no consumer sleeps while an item is there; every producer is through; every consumer works, sleeps or has
//! left.
//!
//! # Size
//!
//! Two producers with two items each, three consumers that take one item and then work for ever: 403 770 states, 9 of
//! them at rest, as in the C++ model that this was ported from. That one had neither leaving nor kills. With recovery, two kills
//! and two consumers, one item of each producer: 667 715 states; 21 833 109 with three
//! consumers.

use zerocopy::{Immutable, IntoBytes};

use crate::explorer::{Broken, Model, Successors};

const MAX_PRODUCERS: usize = 2;
const MAX_CONSUMERS: usize = 3;

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A woken consumer does not set `waiting` again.
    NoRearm,
    /// A consumer goes to sleep without a second look after it set `waiting`.
    NoRecheck,
    /// A consumer that was woken and took an item wakes nobody, though there is more.
    NoRelay,
    /// A consumer that was woken looks whether there is more before it marks the word again, not after it has taken.
    LooksBeforeTaking,
    /// A consumer that was woken and gives up wakes nobody.
    LeavesSilently,
    /// A publisher looks at `waiting` before it publishes.
    LooksBeforePublishing,
    /// A publisher clears `waiting` and leaves the sequence, so that it does not show who had looked before.
    NoNewSequence,
    /// A sleeper asks the kernel to sleep whatever the word is.
    SleepsWithoutCompare,
    /// Recovery frees the slot of the dead before it wakes.
    RecovererFreesFirst,
    /// Recovery wakes sleepers and leaves the word: who is about to sleep does not notice.
    RecovererLeavesWord,
    /// Recovery wakes only where it finds `waiting`, which the dead one may have taken away.
    RecovererTrustsMark,
}

/// The model and its size.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// Producers, at most 2.
    pub producers: usize,
    /// Items of each producer.
    pub items: u8,
    /// Consumers, at most 3.
    pub consumers: usize,
    /// Whether who took an item after a sleep wakes another one without a look whether there is more: `wait`, not
    /// `wait_while`.
    pub always_relays: bool,
    /// How many of the consumers, from the first, may give up after a sleep.
    pub leavers: usize,
    /// Kills in one history.
    pub kills: u8,
    /// Whether the dead are recovered; if not, slices end.
    pub recovers: bool,
    /// The seeded bug.
    pub bug: Option<Bug>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Word {
    sequence: u8,
    waiting: u8,
}

impl Word {
    fn bumped(self) -> Self {
        Self { sequence: (self.sequence + 1) % 16, waiting: 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum ProducerAt {
    Publish,
    LoadWord,
    Clear,
    Wake,
    Dead,
    /// Nobody's slot.
    Free,
    /// Of [`Bug::LooksBeforePublishing`].
    LookFirst,
    /// Of [`Bug::LooksBeforePublishing`], when nobody was waiting.
    PublishQuietly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Producer {
    at: ProducerAt,
    published: u8,
    seen: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum ConsumerAt {
    Take,
    LoadWord,
    SetWaiting,
    Recheck,
    Sleep,
    Asleep,
    Rearm,
    Relay,
    RelayWake,
    LeaveWake,
    /// A long task: it never comes back.
    Working,
    Left,
    Dead,
    /// Nobody's slot.
    Free,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Consumer {
    at: ConsumerAt,
    seen: u8,
    slept: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum RecovererAt {
    Idle,
    LoadWord,
    Clear,
    Wake,
    Free,
    /// Of [`Bug::RecovererFreesFirst`].
    FreeFirst,
}

/// Any survivor that has found a dead one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Recoverer {
    at: RecovererAt,
    dead: u8,
    seen: u8,
}

const IDLE: Recoverer = Recoverer { at: RecovererAt::Idle, dead: 0, seen: 0 };

/// All words and processes.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    items: u8,
    word: Word,
    producers: [Producer; MAX_PRODUCERS],
    consumers: [Consumer; MAX_CONSUMERS],
    recoverer: Recoverer,
    kills: u8,
}

impl State {
    fn sleeps(&self, consumer: usize) -> bool {
        self.consumers[consumer].at == ConsumerAt::Asleep
    }

    fn wake(&mut self, consumer: usize) {
        let consumer = &mut self.consumers[consumer];
        consumer.at = ConsumerAt::Rearm;
        consumer.slept = 1;
    }
}

impl Waiting {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn first_step(&self) -> ProducerAt {
        if self.has(Bug::LooksBeforePublishing) { ProducerAt::LookFirst } else { ProducerAt::Publish }
    }

    fn produce(&self, state: &mut State, who: usize) -> bool {
        let State { items, word, producers, .. } = state;
        let me = &mut producers[who];
        match me.at {
            ProducerAt::Publish | ProducerAt::LookFirst if me.published >= self.items => return false,
            ProducerAt::Publish => {
                *items += 1;
                me.published += 1;
                me.at = if self.has(Bug::LooksBeforePublishing) { ProducerAt::Clear } else { ProducerAt::LoadWord };
            }
            ProducerAt::LookFirst => {
                me.seen = word.sequence;
                me.at = if word.waiting == 0 { ProducerAt::PublishQuietly } else { ProducerAt::Publish };
            }
            ProducerAt::PublishQuietly => {
                *items += 1;
                *me = Producer { at: self.first_step(), published: me.published + 1, seen: 0 };
            }
            ProducerAt::LoadWord => {
                if word.waiting == 0 {
                    me.at = self.first_step();
                } else {
                    me.seen = word.sequence;
                    me.at = ProducerAt::Clear;
                }
            }
            ProducerAt::Clear => {
                if *word == (Word { sequence: me.seen, waiting: 1 }) {
                    *word = Word { waiting: 0, ..if self.has(Bug::NoNewSequence) { *word } else { word.bumped() } };
                    me.at = ProducerAt::Wake;
                } else {
                    me.at = ProducerAt::LoadWord;
                }
                me.seen = 0;
            }
            ProducerAt::Wake => me.at = self.first_step(),
            ProducerAt::Dead | ProducerAt::Free => return false,
        }
        true
    }

    fn consume(&self, state: &mut State, who: usize) -> bool {
        let State { items, word, consumers, .. } = state;
        let me = &mut consumers[who];
        match me.at {
            ConsumerAt::Take => {
                if *items > 0 {
                    *items -= 1;
                    me.at = if me.slept != 0 { ConsumerAt::Relay } else { ConsumerAt::Working };
                    me.seen = if self.has(Bug::LooksBeforeTaking) { me.slept } else { 0 };
                    me.slept = 0;
                } else {
                    me.at = ConsumerAt::LoadWord;
                }
            }
            ConsumerAt::LoadWord => {
                me.seen = word.sequence;
                me.at = if word.waiting != 0 { ConsumerAt::Recheck } else { ConsumerAt::SetWaiting };
            }
            ConsumerAt::SetWaiting => {
                if *word == (Word { sequence: me.seen, waiting: 0 }) {
                    word.waiting = 1;
                    me.at = ConsumerAt::Recheck;
                } else {
                    me.at = ConsumerAt::LoadWord;
                }
            }
            ConsumerAt::Recheck => {
                if *items > 0 && !self.has(Bug::NoRecheck) {
                    me.at = ConsumerAt::Take;
                    me.seen = 0;
                } else {
                    me.at = ConsumerAt::Sleep;
                }
            }
            ConsumerAt::Sleep => {
                let unchanged = *word == Word { sequence: me.seen, waiting: 1 };
                let sleeps = unchanged || self.has(Bug::SleepsWithoutCompare);
                me.at = if sleeps { ConsumerAt::Asleep } else { ConsumerAt::Take };
                me.seen = 0;
            }
            ConsumerAt::Rearm => {
                if self.has(Bug::LooksBeforeTaking) && me.slept == 1 {
                    me.slept = 2 + u8::from(*items > 1);
                    return true;
                }
                if !self.has(Bug::NoRearm) {
                    word.waiting = 1;
                }
                me.at = ConsumerAt::Take;
            }
            ConsumerAt::Relay => {
                let more = match self.bug {
                    Some(Bug::LooksBeforeTaking) => me.seen == 3,
                    _ => *items > 0,
                };
                me.seen = 0;
                let more = (more || self.always_relays) && !self.has(Bug::NoRelay);
                me.at = if more { ConsumerAt::RelayWake } else { ConsumerAt::Working };
            }
            ConsumerAt::RelayWake => me.at = ConsumerAt::Working,
            ConsumerAt::LeaveWake => me.at = ConsumerAt::Left,
            // The end of a slice.
            ConsumerAt::Asleep if state.kills > 0 && !self.recovers && *items > 0 => state.wake(who),
            ConsumerAt::Asleep | ConsumerAt::Working | ConsumerAt::Left | ConsumerAt::Dead | ConsumerAt::Free => {
                return false;
            }
        }
        true
    }

    /// Steps that wake one sleeper: one successor for each that it may be, one where nobody sleeps.
    fn wake_one(
        &self,
        state: &State,
        next: &mut Successors<State>,
        who: usize,
        mut go_on: impl FnMut(&mut State) -> bool,
    ) {
        let mut anybody = false;
        for sleeper in (0..self.consumers).filter(|&sleeper| state.sleeps(sleeper)) {
            anybody = true;
            next.step(who, state, |state| {
                state.wake(sleeper);
                Ok(go_on(state))
            });
        }
        if !anybody {
            next.step(who, state, |state| Ok(go_on(state)));
        }
    }

    /// A consumer gives up: its time is over while it sleeps, or it finds so when it was woken.
    fn leave(&self, state: &mut State, who: usize) -> bool {
        let me = &mut state.consumers[who];
        if who >= self.leavers || !matches!(me.at, ConsumerAt::Asleep | ConsumerAt::Rearm) {
            return false;
        }
        me.slept = 0;
        me.at = if self.has(Bug::LeavesSilently) { ConsumerAt::Left } else { ConsumerAt::LeaveWake };
        true
    }

    fn is_dead(&self, state: &State, who: usize) -> bool {
        match who.checked_sub(self.producers) {
            None => state.producers[who].at == ProducerAt::Dead,
            Some(who) => state.consumers[who].at == ConsumerAt::Dead,
        }
    }

    fn free(&self, state: &mut State, who: usize) {
        match who.checked_sub(self.producers) {
            None => state.producers[who].at = ProducerAt::Free,
            Some(who) => state.consumers[who].at = ConsumerAt::Free,
        }
    }

    /// A step of whoever has found a dead one.
    fn recover(&self, state: &mut State) -> bool {
        let Recoverer { at, dead, seen } = state.recoverer;
        match at {
            RecovererAt::Idle => {
                let dead = (0..self.producers + self.consumers).find(|&who| self.is_dead(state, who));
                let Some(dead) = dead.filter(|_| self.recovers) else { return false };
                let first =
                    if self.has(Bug::RecovererFreesFirst) { RecovererAt::FreeFirst } else { RecovererAt::LoadWord };
                state.recoverer = Recoverer { at: first, dead: dead as u8, seen: 0 };
            }
            RecovererAt::FreeFirst => {
                self.free(state, dead.into());
                state.recoverer.at = RecovererAt::LoadWord;
            }
            RecovererAt::LoadWord => {
                state.recoverer.at = match state.word.waiting {
                    0 if self.has(Bug::RecovererTrustsMark) => RecovererAt::Free,
                    1 if !self.has(Bug::RecovererLeavesWord) => RecovererAt::Clear,
                    _ => RecovererAt::Wake,
                };
                state.recoverer.seen = state.word.sequence;
            }
            RecovererAt::Clear => {
                if state.word == (Word { sequence: seen, waiting: 1 }) {
                    state.word = state.word.bumped();
                    state.recoverer.at = RecovererAt::Wake;
                } else {
                    state.recoverer.at = RecovererAt::LoadWord;
                }
            }
            RecovererAt::Wake => {
                for sleeper in 0..self.consumers {
                    if state.sleeps(sleeper) {
                        state.wake(sleeper);
                    }
                }
                state.recoverer.at = RecovererAt::Free;
            }
            RecovererAt::Free => {
                // What was freed first may be somebody else's by now.
                if !self.has(Bug::RecovererFreesFirst) {
                    self.free(state, dead.into());
                }
                state.recoverer = IDLE;
            }
        }
        true
    }

    /// A new process takes a free slot.
    fn join(&self, state: &mut State, who: usize) -> bool {
        match who.checked_sub(self.producers) {
            None if state.producers[who].at == ProducerAt::Free => state.producers[who].at = self.first_step(),
            Some(who) if state.consumers[who].at == ConsumerAt::Free => state.consumers[who].at = ConsumerAt::Take,
            _ => return false,
        }
        true
    }

    fn kill(&self, state: &mut State, who: usize) -> bool {
        if state.kills >= self.kills {
            return false;
        }
        if who == self.producers + self.consumers {
            if state.recoverer == IDLE {
                return false;
            }
            // It had nothing but what it was about to do. Another survivor finds the dead one.
            state.recoverer = IDLE;
            state.kills += 1;
            return true;
        }
        match who.checked_sub(self.producers) {
            None => {
                let me = &mut state.producers[who];
                if matches!(me.at, ProducerAt::Dead | ProducerAt::Free)
                    || me.published >= self.items && me.at == self.first_step()
                {
                    return false;
                }
                *me = Producer { at: ProducerAt::Dead, published: me.published, seen: 0 };
            }
            Some(who) => {
                let me = &mut state.consumers[who];
                if matches!(me.at, ConsumerAt::Working | ConsumerAt::Left | ConsumerAt::Dead | ConsumerAt::Free) {
                    return false;
                }
                *me = Consumer { at: ConsumerAt::Dead, seen: 0, slept: 0 };
            }
        }
        state.kills += 1;
        true
    }
}

impl Model for Waiting {
    type State = State;

    fn initial(&self) -> Vec<State> {
        vec![State {
            items: 0,
            word: Word { sequence: 0, waiting: 0 },
            producers: [Producer { at: self.first_step(), published: 0, seen: 0 }; MAX_PRODUCERS],
            consumers: [Consumer { at: ConsumerAt::Take, seen: 0, slept: 0 }; MAX_CONSUMERS],
            recoverer: IDLE,
            kills: 0,
        }]
    }

    fn successors(&self, state: &State, next: &mut Successors<State>) {
        for who in 0..self.producers {
            if state.producers[who].at == ProducerAt::Wake {
                self.wake_one(state, next, who, |state| self.produce(state, who));
            } else {
                next.step(who, state, |state| Ok(self.produce(state, who)));
            }
        }
        for consumer in 0..self.consumers {
            let who = self.producers + consumer;
            if matches!(state.consumers[consumer].at, ConsumerAt::RelayWake | ConsumerAt::LeaveWake) {
                self.wake_one(state, next, who, |state| self.consume(state, consumer));
            } else {
                next.step(who, state, |state| Ok(self.consume(state, consumer)));
            }
            next.event("gives up", who, state, |state| Ok(self.leave(state, consumer)));
        }
        let recoverer = self.producers + self.consumers;
        next.step(recoverer, state, |state| Ok(self.recover(state)));
        for who in 0..=recoverer {
            next.event("is killed", who, state, |state| Ok(self.kill(state, who)));
        }
        for who in 0..recoverer {
            next.event("takes the slot", who, state, |state| Ok(self.join(state, who)));
        }
    }

    fn invariant(&self, _: &State) -> Result<(), Broken> {
        Ok(())
    }

    fn at_rest(&self, state: &State) -> Result<(), Broken> {
        if state.items > 0 && (0..self.consumers).any(|consumer| state.sleeps(consumer)) {
            return Err("a wake-up is lost: an item is there and a consumer sleeps");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explorer::{Explorer, holds, is_caught};

    const LOST: Broken = "a wake-up is lost: an item is there and a consumer sleeps";
    const PLAIN: Waiting = Waiting {
        producers: 2,
        items: 2,
        consumers: 3,
        always_relays: false,
        leavers: 0,
        kills: 0,
        recovers: false,
        bug: None,
    };
    /// The second kill may be the recoverer's, or that of who came to the first one's slot.
    const RECOVERED: Waiting = Waiting { items: 1, consumers: 2, kills: 2, recovers: true, ..PLAIN };

    fn catches(bug: Bug) {
        let model = Waiting { items: 1, leavers: 1, bug: Some(bug), ..PLAIN };
        is_caught(Explorer::default(), &model, LOST);
    }

    #[test]
    fn the_algorithm_has_no_violation() {
        let report = holds(Explorer::default().no_livelock(), &PLAIN);
        assert_eq!((report.states, report.at_rest), (403_770, 9));
    }

    #[test]
    fn the_algorithm_has_no_violation_when_waiters_leave() {
        let report = holds(Explorer::default().no_livelock(), &Waiting { items: 1, leavers: 2, ..PLAIN });
        assert!(report.states > 20_000, "{report:?}");
    }

    #[test]
    fn the_algorithm_has_no_violation_when_everybody_relays() {
        let model = Waiting { items: 1, always_relays: true, leavers: 1, kills: 1, ..PLAIN };
        let report = holds(Explorer::default().no_livelock(), &model);
        assert!(report.states > 20_000, "{report:?}");
    }

    #[test]
    fn a_relay_by_a_look_before_the_item_is_taken_is_caught() {
        catches(Bug::LooksBeforeTaking);
    }

    #[test]
    fn the_algorithm_has_no_violation_with_a_kill() {
        let report = holds(Explorer::default().no_livelock(), &Waiting { items: 1, leavers: 1, kills: 1, ..PLAIN });
        assert!(report.states > 20_000, "{report:?}");
    }

    #[test]
    fn recovery_alone_makes_good_what_the_dead_left_undone_whoever_is_killed_in_it() {
        let report = holds(Explorer::default().no_livelock(), &RECOVERED);
        assert_eq!((report.states, report.at_rest), (667_715, 447));
    }

    #[test]
    #[ignore = "larger: for `-- --ignored`"]
    fn recovery_alone_makes_good_what_the_dead_left_undone_to_three_consumers() {
        let report = holds(Explorer::default().no_livelock(), &Waiting { consumers: 3, ..RECOVERED });
        assert_eq!((report.states, report.at_rest), (21_833_109, 1264));
    }

    #[test]
    fn recovery_alone_is_enough_when_waiters_leave_and_everybody_relays() {
        let model = Waiting { leavers: 2, always_relays: true, ..RECOVERED };
        let report = holds(Explorer::default().no_livelock(), &model);
        assert_eq!((report.states, report.at_rest), (855_657, 861));
    }

    #[test]
    fn a_recoverer_that_frees_the_slot_before_it_wakes_is_caught() {
        is_caught(Explorer::default(), &Waiting { bug: Some(Bug::RecovererFreesFirst), ..RECOVERED }, LOST);
    }

    #[test]
    fn a_recoverer_that_leaves_the_word_as_it_is_is_caught() {
        is_caught(Explorer::default(), &Waiting { bug: Some(Bug::RecovererLeavesWord), ..RECOVERED }, LOST);
    }

    #[test]
    fn a_recoverer_that_wakes_only_where_there_is_a_mark_is_caught() {
        is_caught(Explorer::default(), &Waiting { bug: Some(Bug::RecovererTrustsMark), ..RECOVERED }, LOST);
    }

    #[test]
    fn a_woken_waiter_that_does_not_rearm_is_caught() {
        catches(Bug::NoRearm);
    }

    #[test]
    fn a_sleep_without_a_second_look_is_caught() {
        catches(Bug::NoRecheck);
    }

    #[test]
    fn a_missing_relay_is_caught() {
        catches(Bug::NoRelay);
    }

    #[test]
    fn a_waiter_that_leaves_silently_is_caught() {
        catches(Bug::LeavesSilently);
    }

    #[test]
    fn a_publisher_that_looks_before_it_publishes_is_caught() {
        catches(Bug::LooksBeforePublishing);
    }

    #[test]
    fn a_sequence_that_stays_is_caught() {
        catches(Bug::NoNewSequence);
    }

    #[test]
    fn a_sleep_without_a_compare_is_caught() {
        catches(Bug::SleepsWithoutCompare);
    }
}
