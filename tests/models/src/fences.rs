//! Fences: who pays for the order between a publisher's change and its look at the wait word. With store buffers.
//!
//! ```text
//! items         what is waited for, as memory has it; each producer has stores of its own that memory does not have yet
//! word          {sequence, proven, fenced, waiting}
//! ```
//!
//! # Steps
//!
//! ```text
//! publish  items + 1, into the buffer;  v = word
//!          v.waiting: CAS v to {seq+1, proven and fenced as they were, 0} (else again with what it is);  wake one sleeper
//!          v.fenced: CAS v to {seq, 0, 0, 0} (else again with what it is)
//!          neither: done
//! wait     take an item?                                                                               else
//!          v = word |= waiting, fenced;  not v.proven: membarrier: all buffers are empty;  CAS v to v|proven, or not
//!          take an item?  else  sleep if the word is still v;  after every sleep: again from the mark
//! relay    a consumer that slept and took wakes one sleeper
//! ```
//! Memory takes a store out of a buffer whenever it likes: this is x86's order (TSO). A load sees the word at once; a
//! compare-and-swap, whether it fails or not, leaves an empty buffer: it is the fence that `fenced` asks for.
//!
//! Why `proven` may be believed: it is set behind a barrier, on a word that was fenced from before the barrier until then. A
//! publisher that looked before the barrier had its store out when the barrier was over; one that looks later sees `fenced`, or a word
//! from which both were taken: then `waiting`, had it been set before, is seen with them.
//!
//! # Crash behaviour
//!
//! | killed | what others see | who repairs | what is lost |
//! |---|---|---|---|
//! | sleeper, between the mark and `proven` | a word that is fenced | the next publisher that finds nobody asleep | a fence each |
//! | publisher, before its wake | as in [`waiting`](crate::waiting) | the sleeper, at the end of its slice | one slice |
//!
//! # What is checked
//!
//! At rest no consumer sleeps while an item is there. A word that is proven is fenced.

use zerocopy::{Immutable, IntoBytes};

use crate::explorer::{Broken, Model, Successors};

const MAX_PRODUCERS: usize = 2;
const MAX_CONSUMERS: usize = 2;

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A sleeper has no barrier at all.
    NoBarrier,
    /// A sleeper needs no barrier where the word was only fenced.
    BelievesFenced,
    /// The mark sets `proven`, before the barrier.
    ProvenTooEarly,
    /// `proven` is set whatever has become of the word.
    ProvesAnyWord,
    /// A publisher does nothing where it sees `fenced` only.
    NoFence,
    /// A publisher whose compare-and-swap fails takes the change for another publisher's.
    NoSecondLook,
    /// Who takes `fenced` away leaves `proven`.
    LeavesProven,
}

/// The model and its size.
#[derive(Clone, Copy, Debug)]
pub struct Fences {
    /// Producers, at most 2.
    pub producers: usize,
    /// Items of each producer.
    pub items: u8,
    /// Consumers, at most 2.
    pub consumers: usize,
    /// Items that a consumer takes, one after the other, before it has enough to do for ever.
    pub takes: u8,
    /// Kills in one history.
    pub kills: u8,
    /// The seeded bug.
    pub bug: Option<Bug>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Word {
    sequence: u8,
    proven: u8,
    fenced: u8,
    waiting: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum ProducerAt {
    Publish,
    Look,
    Change,
    Wake,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Producer {
    at: ProducerAt,
    published: u8,
    buffered: u8,
    seen: Word,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum ConsumerAt {
    Take,
    Mark,
    Barrier,
    Prove,
    TakeOrSleep,
    Sleep,
    Asleep,
    Relay,
    Working,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Consumer {
    at: ConsumerAt,
    slept: u8,
    taken: u8,
    seen: Word,
}

/// All words and processes.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    items: u8,
    word: Word,
    producers: [Producer; MAX_PRODUCERS],
    consumers: [Consumer; MAX_CONSUMERS],
    kills: u8,
}

impl State {
    fn sleeps(&self, consumer: usize) -> bool {
        self.consumers[consumer].at == ConsumerAt::Asleep
    }

    fn wake(&mut self, consumer: usize) {
        let me = &mut self.consumers[consumer];
        *me = Consumer { at: ConsumerAt::Mark, slept: 1, seen: Word::default(), ..*me };
    }

    /// Memory takes one store of a producer.
    fn drain(&mut self, producer: usize) -> bool {
        let buffered = &mut self.producers[producer].buffered;
        if *buffered == 0 {
            return false;
        }
        *buffered -= 1;
        self.items += 1;
        true
    }

    fn drain_all(&mut self, producer: usize) {
        while self.drain(producer) {}
    }
}

impl Fences {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn look(&self, me: &mut Producer, word: Word) {
        let is_quiet = word.waiting == 0 && (word.fenced == 0 || self.has(Bug::NoFence));
        me.seen = if is_quiet { Word::default() } else { word };
        me.at = if is_quiet { ProducerAt::Publish } else { ProducerAt::Change };
    }

    fn produce(&self, state: &mut State, who: usize) -> bool {
        let word = state.word;
        let me = &mut state.producers[who];
        match me.at {
            ProducerAt::Publish if me.published >= self.items => return false,
            ProducerAt::Publish => {
                me.published += 1;
                me.buffered += 1;
                me.at = ProducerAt::Look;
            }
            ProducerAt::Look => self.look(me, word),
            ProducerAt::Change => {
                let seen = std::mem::take(&mut me.seen);
                if word == seen {
                    me.at = if seen.waiting == 0 { ProducerAt::Publish } else { ProducerAt::Wake };
                    let proven = if self.has(Bug::LeavesProven) { seen.proven } else { 0 };
                    state.word = match seen.waiting {
                        0 => Word { proven, fenced: 0, ..seen },
                        _ => Word { waiting: 0, sequence: (seen.sequence + 1) % 16, ..seen },
                    };
                } else if self.has(Bug::NoSecondLook) {
                    me.at = ProducerAt::Publish;
                } else {
                    self.look(me, word);
                }
                state.drain_all(who);
            }
            ProducerAt::Wake => me.at = ProducerAt::Publish,
            ProducerAt::Dead => return false,
        }
        true
    }

    fn after(&self, taken: u8) -> ConsumerAt {
        if taken < self.takes { ConsumerAt::Take } else { ConsumerAt::Working }
    }

    fn consume(&self, state: &mut State, who: usize) -> bool {
        let State { items, word, consumers, .. } = state;
        let me = &mut consumers[who];
        match me.at {
            ConsumerAt::Take | ConsumerAt::TakeOrSleep if *items > 0 => {
                *items -= 1;
                let taken = me.taken + 1;
                let at = if me.slept != 0 { ConsumerAt::Relay } else { self.after(taken) };
                *me = Consumer { at, slept: 0, taken, seen: Word::default() };
            }
            ConsumerAt::Take => me.at = ConsumerAt::Mark,
            ConsumerAt::TakeOrSleep => me.at = ConsumerAt::Sleep,
            ConsumerAt::Mark => {
                let before = *word;
                *word = Word { waiting: 1, fenced: 1, ..before };
                if self.has(Bug::ProvenTooEarly) {
                    word.proven = 1;
                }
                me.seen = *word;
                let is_ordered = before.proven != 0
                    || self.has(Bug::NoBarrier)
                    || self.has(Bug::BelievesFenced) && before.fenced != 0;
                me.at = if is_ordered { ConsumerAt::TakeOrSleep } else { ConsumerAt::Barrier };
            }
            ConsumerAt::Barrier => {
                me.at = ConsumerAt::Prove;
                (0..MAX_PRODUCERS).for_each(|producer| state.drain_all(producer));
            }
            ConsumerAt::Prove => {
                if *word == me.seen {
                    word.proven = 1;
                    me.seen.proven = 1;
                } else if self.has(Bug::ProvesAnyWord) {
                    word.proven = 1;
                }
                me.at = ConsumerAt::TakeOrSleep;
            }
            ConsumerAt::Sleep => {
                let at = if *word == me.seen { ConsumerAt::Asleep } else { ConsumerAt::Mark };
                *me = Consumer { at, seen: Word::default(), ..*me };
                if at == ConsumerAt::Mark {
                    // The kernel did not let it sleep; the code does not know, and takes it for a sleep.
                    me.slept = 1;
                }
            }
            ConsumerAt::Relay => me.at = self.after(me.taken),
            ConsumerAt::Asleep if state.kills > 0 && *items > 0 => state.wake(who), // the end of a slice
            ConsumerAt::Asleep | ConsumerAt::Working | ConsumerAt::Dead => return false,
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

    fn kill(&self, state: &mut State, who: usize) -> bool {
        if state.kills >= self.kills {
            return false;
        }
        match who.checked_sub(self.producers) {
            None => {
                let me = &mut state.producers[who];
                if me.at == ProducerAt::Dead || me.published >= self.items && me.at == ProducerAt::Publish {
                    return false;
                }
                // What it has stored is on its way: memory takes it all the same.
                *me = Producer { at: ProducerAt::Dead, seen: Word::default(), ..*me };
            }
            Some(consumer) => {
                let me = &mut state.consumers[consumer];
                if matches!(me.at, ConsumerAt::Working | ConsumerAt::Dead) {
                    return false;
                }
                *me = Consumer { at: ConsumerAt::Dead, slept: 0, taken: 0, seen: Word::default() };
            }
        }
        state.kills += 1;
        true
    }
}

impl Model for Fences {
    type State = State;

    fn initial(&self) -> Vec<State> {
        let producer = Producer { at: ProducerAt::Publish, published: 0, buffered: 0, seen: Word::default() };
        let consumer = Consumer { at: ConsumerAt::Take, slept: 0, taken: 0, seen: Word::default() };
        vec![State {
            items: 0,
            word: Word::default(),
            producers: [producer; MAX_PRODUCERS],
            consumers: [consumer; MAX_CONSUMERS],
            kills: 0,
        }]
    }

    fn successors(&self, state: &State, next: &mut Successors<State>) {
        for who in 0..self.producers {
            next.step(who, state, |state| Ok(state.drain(who)));
            if state.producers[who].at == ProducerAt::Wake {
                self.wake_one(state, next, who, |state| self.produce(state, who));
            } else {
                next.step(who, state, |state| Ok(self.produce(state, who)));
            }
        }
        for consumer in 0..self.consumers {
            let who = self.producers + consumer;
            if state.consumers[consumer].at == ConsumerAt::Relay {
                self.wake_one(state, next, who, |state| self.consume(state, consumer));
            } else {
                next.step(who, state, |state| Ok(self.consume(state, consumer)));
            }
        }
        for who in 0..self.producers + self.consumers {
            next.event("is killed", who, state, |state| Ok(self.kill(state, who)));
        }
    }

    fn invariant(&self, state: &State) -> Result<(), Broken> {
        if state.word.proven != 0 && state.word.fenced == 0 {
            return Err("a word is proven and not fenced");
        }
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
    const PLAIN: Fences = Fences { producers: 2, items: 2, consumers: 2, takes: 2, kills: 0, bug: None };

    fn catches(bug: Bug, rule: Broken) {
        is_caught(Explorer::default(), &Fences { bug: Some(bug), ..PLAIN }, rule);
    }

    #[test]
    fn the_algorithm_has_no_violation() {
        let report = holds(Explorer::default().no_livelock(), &PLAIN);
        assert!(report.states > 50_000, "{report:?}");
    }

    #[test]
    fn the_algorithm_has_no_violation_with_a_kill() {
        let report = holds(Explorer::default().no_livelock(), &Fences { items: 1, kills: 1, ..PLAIN });
        assert!(report.states > 5_000, "{report:?}");
    }

    #[test]
    fn one_producer_and_one_consumer_sleep_and_wake_again_and_again() {
        holds(Explorer::default().no_livelock(), &Fences { producers: 1, items: 6, consumers: 1, takes: 6, ..PLAIN });
    }

    #[test]
    fn a_sleep_without_a_barrier_is_caught() {
        catches(Bug::NoBarrier, LOST);
    }

    #[test]
    fn who_believes_a_word_that_is_only_fenced_is_caught() {
        catches(Bug::BelievesFenced, LOST);
    }

    #[test]
    fn a_proof_before_the_barrier_is_caught() {
        catches(Bug::ProvenTooEarly, LOST);
    }

    #[test]
    fn a_proof_of_a_word_that_has_changed_is_caught() {
        catches(Bug::ProvesAnyWord, "a word is proven and not fenced");
    }

    #[test]
    fn a_second_look_without_a_fence_is_caught() {
        catches(Bug::NoFence, LOST);
    }

    #[test]
    fn a_fence_without_a_second_look_is_caught() {
        catches(Bug::NoSecondLook, LOST);
    }

    #[test]
    fn a_proof_that_outlives_the_fences_is_caught() {
        catches(Bug::LeavesProven, "a word is proven and not fenced");
    }
}
