//! The condition: records of those who wait, and notifications that no death swallows.
//!
//! ```text
//! lock        free, a participant, or NOBODY's, whose next owner is told
//! record[r]   {token, WAITING or NOTIFIED, ticket}, or free; a wait word of its own
//! items       what is waited for; changed with the lock only
//! ```
//!
//! # Steps
//!
//! ```text
//! wait      with the lock: CAS a free record to {WAITING, me};  take a ticket;  free the lock;
//!           look: NOTIFIED? else sleep on the record;  lock again;  record = free
//! time out  CAS WAITING to free;  who fails was notified
//! notify    with the lock: of the records WAITING of the living, the one with the lowest ticket: CAS to NOTIFIED;  wake it
//! ```
//!
//! A consumer takes an item with the lock, or waits and looks again. A producer adds one with the lock, and notifies one.
//!
//! # Crash behaviour
//!
//! ```text
//! recovery   the lock of the dead one: to NOBODY;  each record of the dead one, in order: NOTIFIED: notify another one, then
//!            free;  WAITING: free;  again, if it has changed meanwhile;  then wake everybody
//! ```
//!
//! | killed | what others see | who repairs | what is lost |
//! |---|---|---|---|
//! | waiting | a record of a dead one, which `notify` passes over | recovery frees it | nothing |
//! | notified, before it has freed its record | NOTIFIED of a dead one | recovery notifies another one | nothing |
//! | notifying, before the wake | NOTIFIED, asleep | recovery wakes all, or the end of its slice | one slice |
//! | with the lock | a dead owner | recovery; the next owner is told | what was half done, and notifications not yet given |
//! | the recoverer, after the new notification | two for one | the next recoverer notifies once more | nothing: one wakes for nothing |
//!
//! A new process comes in the dead one's slot with the next token.
//!
//! # What is checked
//!
//! One at a time has the lock; at rest nobody sleeps while there is an item, and the lock and the records of those who do not
//! wait are free. Who is killed with the lock is excepted: a producer between its item and its notification, a consumer that was
//! notified and has freed its record, before it takes the item. The next owner of the lock is told.
//!
//! # Size
//!
//! Two consumers and a producer: two items, a kill, a birth and a time-out: 47 772 states; one item, three kills, two births:
//! 574 427.

use zerocopy::{Immutable, IntoBytes};

use crate::explorer::{Broken, Model, Successors};

const RECORDS: usize = 3;
const MAX_PEOPLE: usize = 3;
const RECOVERER: usize = MAX_PEOPLE;
const NOBODY: u8 = u8::MAX;

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Recovery passes no notification on.
    PassesNothingOn,
    /// Recovery frees the record before it passes its notification on.
    FreesBeforePassingOn,
    /// A waiter frees its record before it has the lock again.
    FreesBeforeLock,
    /// A waiter gives the lock up before it has a record.
    UnlocksFirst,
    /// Who runs out of time frees its record whatever is in it.
    TimeOutIsStored,
    /// A waiter sleeps without a look at its record.
    SleepsWithoutLook,
    /// Recovery goes on when the record of the dead one changes under its hands: somebody who had seen him alive notifies him.
    RecoversOnce,
    /// The lock is taken again without waiting for it.
    WakesWithoutLock,
    /// `notify` takes the record with the highest ticket, of the living or not, and recovery passes nothing on.
    NotifiesTheDead,
}

/// The model and its size.
#[derive(Clone, Copy, Debug)]
pub struct Condition {
    /// Consumers; one producer comes with them. At most 2.
    pub consumers: usize,
    /// Items, each with a notification.
    pub items: u8,
    /// Consumers, from the first, that may run out of time.
    pub leavers: usize,
    /// Kills in one history.
    pub kills: u8,
    /// Consumers that come in the place of dead ones.
    pub births: u8,
    /// The seeded bug.
    pub bug: Option<Bug>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum Waits {
    Free,
    Waiting,
    Notified,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Record {
    token: u8,
    waits: Waits,
    ticket: u8,
}

const FREE: Record = Record { token: 0, waits: Waits::Free, ticket: 0 };

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum At {
    Lock,
    /// With the lock: an item? Else it waits.
    Check,
    Enter,
    Ticket,
    Unlock,
    Look,
    /// Of [`Bug::SleepsWithoutLook`].
    SleepBlindly,
    Asleep,
    Withdraw,
    Resume,
    FreeRecord,
    /// Of the producer.
    Put,
    /// Looks for the record to notify, changes it, wakes it.
    Notify,
    Mark,
    Wake,
    Leave,
    Done,
    Dead,
    Buried,
    // Of the recoverer.
    Idle,
    BuryLock,
    BuryRecord,
    BuryFree,
    BuryWake,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Person {
    at: At,
    token: u8,
    /// Its record, the one it notifies, or the one it recovers.
    record: u8,
    /// The one the recoverer notifies.
    other: u8,
    seen: Record,
    /// The record that the recoverer frees was NOTIFIED.
    was_notified: u8,
    /// Its time is up.
    leaves: u8,
    left: u8,
}

impl Person {
    const fn new(at: At, token: u8) -> Self {
        Self { at, token, record: 0, other: 0, seen: FREE, was_notified: 0, leaves: 0, left: 0 }
    }
}

/// All words and processes: the consumers, then the producer, then the recoverer.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    lock: u8,
    tickets: u8,
    items: u8,
    records: [Record; RECORDS],
    people: [Person; MAX_PEOPLE + 1],
    kills: u8,
    births: u8,
    wake_lost: u8,
    /// A producer was killed between its item and its notification, or a consumer with the lock that it was notified for.
    excused: u8,
}

impl State {
    fn is_dead(&self, token: u8) -> bool {
        let lives = |person: &Person| person.token == token && !matches!(person.at, At::Dead | At::Buried);
        !self.people[..MAX_PEOPLE].iter().any(lives)
    }

    /// Wakes whoever sleeps on a record.
    fn wake(&mut self, record: u8) {
        let waits = |person: &&mut Person| matches!(person.at, At::Look | At::Asleep) && person.record == record;
        for person in self.people[..MAX_PEOPLE].iter_mut().filter(waits) {
            person.at = At::Look;
        }
    }
}

impl Condition {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn act(&self, state: &mut State, who: usize) -> Result<bool, Broken> {
        let mut me = state.people[who];
        match me.at {
            At::Lock | At::Resume => {
                let is_free = state.lock == 0 || state.lock == NOBODY;
                let takes_anyway = self.has(Bug::WakesWithoutLock) && me.at == At::Resume;
                if !is_free && !takes_anyway {
                    return Ok(false);
                }
                state.lock = me.token;
                let is_producer = who == self.consumers;
                me.at = match me.at {
                    At::Resume if self.has(Bug::FreesBeforeLock) => At::Check,
                    At::Resume if me.leaves != 0 => At::Leave,
                    At::Resume => At::FreeRecord,
                    _ if is_producer => At::Put,
                    _ => At::Check,
                };
            }
            At::Check if state.items > 0 => {
                state.items -= 1;
                me.at = At::Leave;
            }
            At::Check => me.at = if self.has(Bug::UnlocksFirst) { At::Unlock } else { At::Enter },
            At::Enter => {
                let free = state.records.iter().position(|record| *record == FREE).ok_or("there is no free record")?;
                state.records[free] = Record { token: me.token, waits: Waits::Waiting, ticket: 0 };
                (me.record, me.at) = (free as u8, At::Ticket);
            }
            At::Ticket => {
                state.tickets += 1;
                state.records[me.record as usize].ticket = state.tickets;
                me.at = if self.has(Bug::UnlocksFirst) { At::Look } else { At::Unlock };
            }
            At::Unlock => {
                self.unlock(state, &me)?;
                me.at = match self.bug {
                    Some(Bug::UnlocksFirst) => At::Enter,
                    Some(Bug::SleepsWithoutLook) => At::SleepBlindly,
                    _ => At::Look,
                };
            }
            At::Look => {
                let is_notified = state.records[me.record as usize].waits == Waits::Notified;
                me.at = match is_notified {
                    true if self.has(Bug::FreesBeforeLock) => At::FreeRecord,
                    true => At::Resume,
                    false => At::Asleep,
                };
            }
            At::SleepBlindly => me.at = At::Asleep,
            At::Withdraw => {
                let record = &mut state.records[me.record as usize];
                if record.waits == Waits::Waiting || self.has(Bug::TimeOutIsStored) {
                    *record = FREE;
                    (me.leaves, me.record) = (1, 0);
                }
                me.at = At::Resume;
            }
            At::FreeRecord => {
                state.records[me.record as usize] = FREE;
                me.record = 0;
                me.at = if self.has(Bug::FreesBeforeLock) { At::Resume } else { At::Check };
            }
            At::Put => {
                state.items += 1;
                me.at = At::Notify;
            }
            At::Notify => {
                let waiting = |record: &&Record| {
                    record.waits == Waits::Waiting && (self.has(Bug::NotifiesTheDead) || !state.is_dead(record.token))
                };
                let first = state.records.iter().filter(waiting).min_by_key(|record| record.ticket).copied();
                me.at = match first {
                    Some(record) => {
                        me.other = state.records.iter().position(|other| *other == record).unwrap_or(0) as u8;
                        me.seen = record;
                        At::Mark
                    }
                    None => self.notified(&mut me, who),
                };
            }
            At::Mark => {
                let record = &mut state.records[me.other as usize];
                // The ticket is not part of the word that is compared.
                if record.token == me.seen.token && record.waits == me.seen.waits {
                    record.waits = Waits::Notified;
                    me.at = At::Wake;
                } else {
                    me.at = At::Notify;
                }
                me.seen = FREE;
            }
            At::Wake => {
                state.wake(me.other);
                me.at = self.notified(&mut me, who);
            }
            At::Leave => {
                self.unlock(state, &me)?;
                let is_through = who != self.consumers || {
                    me.left -= 1;
                    me.left == 0
                };
                me = Person { left: me.left, ..Person::new(if is_through { At::Done } else { At::Lock }, me.token) };
            }
            At::BuryLock => {
                if state.lock == me.token {
                    state.lock = NOBODY;
                }
                me.at = At::BuryRecord;
            }
            At::BuryRecord if me.record as usize == RECORDS => me.at = At::BuryWake,
            At::BuryRecord => {
                let record = state.records[me.record as usize];
                let silent = matches!(self.bug, Some(Bug::PassesNothingOn | Bug::NotifiesTheDead));
                match record.waits {
                    _ if record.token != me.token => me.record += 1,
                    Waits::Notified if self.has(Bug::FreesBeforePassingOn) => {
                        state.records[me.record as usize] = FREE;
                        me.at = At::Notify;
                    }
                    Waits::Notified if !silent => (me.was_notified, me.at) = (1, At::Notify),
                    waits => (me.was_notified, me.at) = (u8::from(waits == Waits::Notified), At::BuryFree),
                }
            }
            At::BuryFree => {
                let record = &mut state.records[me.record as usize];
                let is_same = record.token == me.token && u8::from(record.waits == Waits::Notified) == me.was_notified;
                if is_same {
                    *record = FREE;
                }
                // Else it is looked at again.
                me.record += u8::from(is_same || self.has(Bug::RecoversOnce));
                (me.was_notified, me.at) = (0, At::BuryRecord);
            }
            At::BuryWake => {
                (0..RECORDS as u8).for_each(|record| state.wake(record));
                for person in state.people[..MAX_PEOPLE].iter_mut() {
                    if person.token == me.token && person.at == At::Dead {
                        person.at = At::Buried;
                    }
                }
                me = Person::new(At::Idle, 0);
            }
            At::Asleep | At::Done | At::Dead | At::Buried | At::Idle => return Ok(false),
        }
        state.people[who] = me;
        Ok(true)
    }

    fn unlock(&self, state: &mut State, me: &Person) -> Result<(), Broken> {
        if state.lock != me.token {
            return Err("two have the lock");
        }
        state.lock = 0;
        Ok(())
    }

    /// After a notification, or when there is nobody to notify.
    fn notified(&self, me: &mut Person, who: usize) -> At {
        (me.other, me.seen) = (0, FREE);
        if who == RECOVERER { At::BuryFree } else { At::Leave }
    }

    fn begin_recovery(&self, state: &mut State) -> bool {
        let dead = state.people.iter().find(|person| person.at == At::Dead).map(|person| person.token);
        let Some(token) = dead.filter(|_| state.people[RECOVERER].at == At::Idle) else { return false };
        state.people[RECOVERER] = Person::new(At::BuryLock, token);
        true
    }

    fn kill(&self, state: &mut State, who: usize) -> bool {
        let is_producer = who == self.consumers;
        let me = &mut state.people[who];
        if state.kills >= self.kills || matches!(me.at, At::Done | At::Dead | At::Buried | At::Idle) {
            return false;
        }
        if who == RECOVERER {
            *me = Person::new(At::Idle, 0);
        } else {
            // Killed with the lock: its next owner is told.
            let owes = is_producer && matches!(me.at, At::Notify | At::Mark) || me.at == At::Check;
            state.excused |= u8::from(owes);
            *me = Person::new(At::Dead, me.token);
        }
        state.wake_lost = 1;
        state.kills += 1;
        true
    }
}

impl Model for Condition {
    type State = State;

    fn initial(&self) -> Vec<State> {
        let mut people = [Person::new(At::Done, 0); MAX_PEOPLE + 1];
        people[RECOVERER] = Person::new(At::Idle, 0);
        for (who, person) in people[..=self.consumers].iter_mut().enumerate() {
            *person = Person::new(At::Lock, who as u8 + 1);
        }
        people[self.consumers].left = self.items;
        vec![State {
            lock: 0,
            tickets: 0,
            items: 0,
            records: [FREE; RECORDS],
            people,
            kills: 0,
            births: 0,
            wake_lost: 0,
            excused: 0,
        }]
    }

    fn successors(&self, state: &State, next: &mut Successors<State>) {
        for who in (0..=self.consumers).chain([RECOVERER]) {
            next.step(who, state, |state| self.act(state, who));
            next.event("is killed", who, state, |state| Ok(self.kill(state, who)));
        }
        for who in 0..self.consumers {
            next.event("is out of time", who, state, |state| {
                let me = &mut state.people[who];
                let can = who < self.leavers && matches!(me.at, At::Asleep | At::Look);
                me.at = if can { At::Withdraw } else { me.at };
                Ok(can)
            });
            next.event("is born", who, state, |state| {
                let me = &mut state.people[who];
                let can = state.births < self.births && me.at == At::Buried;
                if can {
                    *me = Person::new(At::Lock, me.token + MAX_PEOPLE as u8);
                    state.births += 1;
                }
                Ok(can)
            });
        }
        next.step(RECOVERER, state, |state| Ok(self.begin_recovery(state)));
        if state.wake_lost != 0 {
            next.step(RECOVERER, state, |state| {
                state.wake_lost = 0;
                (0..RECORDS as u8).for_each(|record| state.wake(record));
                Ok(true)
            });
        }
    }

    fn invariant(&self, state: &State) -> Result<(), Broken> {
        let with_lock = |person: &&Person| {
            matches!(person.at, At::Check | At::Put | At::Leave | At::FreeRecord | At::Enter | At::Ticket)
                && !matches!(self.bug, Some(Bug::UnlocksFirst | Bug::FreesBeforeLock))
        };
        if state.people[..MAX_PEOPLE].iter().filter(with_lock).any(|person| state.lock != person.token) {
            return Err("two have the lock");
        }
        Ok(())
    }

    fn at_rest(&self, state: &State) -> Result<(), Broken> {
        let sleeps = |person: &&Person| person.at == At::Asleep;
        if state.items > 0 && state.excused == 0 && state.people.iter().any(|person| sleeps(&person)) {
            return Err("one sleeps while there is what it waits for");
        }
        if state.lock != 0 && state.lock != NOBODY {
            return Err("the lock is never released");
        }
        let is_used = |record: &Record| state.people.iter().filter(sleeps).any(|person| person.token == record.token);
        if state.records.iter().any(|record| *record != FREE && !is_used(record)) {
            return Err("a record is left");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explorer::{Explorer, holds, is_caught};

    const PLAIN: Condition = Condition { consumers: 2, items: 2, leavers: 0, kills: 0, births: 0, bug: None };
    const SLEEPS: Broken = "one sleeps while there is what it waits for";

    fn catches(bug: Bug, model: Condition, expected: Broken) {
        is_caught(Explorer::default(), &Condition { bug: Some(bug), ..model }, expected);
    }

    fn states(model: Condition) -> usize {
        holds(Explorer::default().no_livelock(), &model).states
    }

    #[test]
    fn the_algorithm_has_no_violation() {
        assert_eq!(states(PLAIN), 430);
        assert_eq!(states(Condition { leavers: 1, ..PLAIN }), 787);
        assert_eq!(states(Condition { kills: 1, births: 1, leavers: 1, ..PLAIN }), 47_772);
        assert_eq!(states(Condition { items: 1, kills: 3, births: 2, ..PLAIN }), 574_427);
    }

    #[test]
    fn a_notification_that_dies_with_its_receiver_is_caught() {
        catches(Bug::PassesNothingOn, Condition { items: 1, kills: 1, ..PLAIN }, SLEEPS);
    }

    #[test]
    fn a_record_freed_before_its_notification_is_passed_on_is_caught() {
        catches(Bug::FreesBeforePassingOn, Condition { items: 1, kills: 2, ..PLAIN }, SLEEPS);
    }

    #[test]
    fn a_record_freed_before_the_lock_is_taken_is_caught() {
        catches(Bug::FreesBeforeLock, Condition { items: 1, kills: 1, ..PLAIN }, SLEEPS);
    }

    #[test]
    fn a_lock_given_up_before_the_record_is_there_is_caught() {
        catches(Bug::UnlocksFirst, PLAIN, SLEEPS);
    }

    #[test]
    fn a_time_out_that_overwrites_a_notification_is_caught() {
        catches(Bug::TimeOutIsStored, Condition { items: 1, leavers: 1, ..PLAIN }, SLEEPS);
    }

    #[test]
    fn a_sleep_without_a_look_is_caught() {
        catches(Bug::SleepsWithoutLook, PLAIN, SLEEPS);
    }

    #[test]
    fn a_notification_of_one_who_is_being_recovered_is_caught() {
        catches(Bug::RecoversOnce, Condition { items: 1, kills: 1, ..PLAIN }, "a record is left");
    }

    #[test]
    fn a_return_without_the_lock_is_caught() {
        catches(Bug::WakesWithoutLock, PLAIN, "two have the lock");
    }

    #[test]
    fn a_notification_of_the_dead_that_nobody_passes_on_is_caught() {
        catches(Bug::NotifiesTheDead, Condition { items: 1, kills: 1, ..PLAIN }, SLEEPS);
    }
}
