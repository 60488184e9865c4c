//! The ends of a queue, which know when nobody is left at the other one. Harness and helper have one kind of end only, the victim
//! the other: with its death the last one is gone.

use super::messages::value;
use crate::operation::{Acts, Check, Deed, Scene, Subject, corrupt, duplicated, hang, lost};
use crate::step::{begin, end};
use shmkit::{ChannelError, Consumer, Error, Event, Producer, Queue, Segment};
use std::time::Duration;

const NAME: &str = "ends";
/// What is in the queue of the producers at first: as much as there is room for.
const FULL: [u64; 2] = [11, 12];

fn queue(segment: &Segment) -> shmkit::Result<Queue<u64>> {
    segment.queue(NAME).open()
}

/// Takes all there is, as one who can do both.
fn drain(segment: &Segment) -> Check<Vec<u64>> {
    let queue = queue(segment)?;
    let mut all = Vec::new();
    loop {
        match queue.try_get() {
            Ok(value) => all.push(value),
            Err(Error::Channel(ChannelError::Empty { .. })) => return Ok(all),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Longer than until the death of the last one at the other end is noticed.
const LONG: Duration = Duration::from_secs(10);

// ---- who produces is killed ----------------------------------------------------------------------------------------

/// Harness and helper are consumers.
pub struct Consumers {
    segment: Segment,
    consumer: Consumer<u64>,
}

/// What is received until nobody is left who could put anything.
fn rest(consumer: &Consumer<u64>) -> Check<Vec<u64>> {
    let mut all = Vec::new();
    loop {
        match consumer.get_timeout(LONG) {
            Ok(value) => all.push(value),
            Err(Error::Channel(ChannelError::EndOfFile)) => return Ok(all),
            Err(Error::Channel(ChannelError::Empty { .. })) => {
                return hang("the last producer has gone, and no end comes");
            }
            Err(error) => return Err(error.into()),
        }
    }
}

impl Consumers {
    fn producer(&self) -> shmkit::Result<Producer<u64>> {
        self.segment.queue(NAME).open_producer()
    }
}

impl Subject for Consumers {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        drop(segment.queue::<u64>(NAME).capacity(4).create()?);
        Consumers::open(segment)
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Consumers { segment: segment.clone(), consumer: segment.queue(NAME).open_consumer()? })
    }

    fn release(&self, _: &[Deed]) -> Check<Option<Deed>> {
        // Where nobody has become a producer, one waits for the first.
        drop(self.producer()?);
        Ok(None)
    }

    fn audit(&self, _: &Segment, deeds: &[Deed]) -> Check {
        let received: Vec<u64> = deeds.iter().flat_map(|deed| deed.notes.iter().copied()).collect();
        drop(self.producer()?);
        let left = rest(&self.consumer)?;
        let there: Vec<u64> = received.iter().chain(&left).copied().collect();
        if let Some(value) = there.iter().find(|value| there.iter().filter(|other| other == value).count() > 1) {
            return duplicated(format!("message {value}: received {received:?}, left {left:?}"));
        }
        for deed in deeds {
            let count = match deed.act {
                "leave" => 2,
                "put" | "put and leave" => 1,
                _ => continue,
            };
            // Those of `leave` were put before it began.
            let is_sure = deed.is_done || deed.act == "leave" && deed.has_begun;
            if is_sure && (1..=count).any(|k| !there.contains(&value(deed.id, k))) {
                return lost(format!("received {received:?}, left {left:?} after {deeds:?}"));
            }
        }
        match there.iter().find(|value| !deeds.iter().any(|deed| deed.id == **value / 100)) {
            Some(value) => corrupt(format!("message {value} of nobody")),
            None => Ok(()),
        }
    }

    fn may_grow() -> bool {
        true
    }

    fn exercise(&self, _: &Segment) -> Check {
        let producer = self.producer()?;
        producer.put(7)?;
        drop(producer);
        match rest(&self.consumer)? {
            found if found == [7] => Ok(()),
            found => corrupt(format!("{found:?} instead of what was put")),
        }
    }
}

/// Receives until the end.
fn until_the_end(ends: &Consumers, scene: &Scene) -> Check {
    loop {
        match ends.consumer.get() {
            Ok(value) => scene.note(value),
            Err(Error::Channel(ChannelError::EndOfFile)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Of who puts.
pub fn producing() -> Acts<Consumers> {
    Acts::<Consumers>::new()
        .act("become a producer", |actor| {
            begin();
            let _producer = actor.producer()?;
            end();
            Ok(())
        })
        .while_waiting(until_the_end)
        .act("put", |actor| {
            let (producer, value) = (actor.producer()?, value(actor.scene.id(), 1));
            begin();
            producer.put(value)?;
            end();
            Ok(())
        })
        .while_waiting(until_the_end)
        .act("put and leave", |actor| {
            let (producer, value) = (actor.producer()?, value(actor.scene.id(), 1));
            begin();
            producer.put(value)?;
            drop(producer);
            end();
            Ok(())
        })
        .while_waiting(until_the_end)
        .act("leave", |actor| {
            let producer = actor.producer()?;
            producer.put(value(actor.scene.id(), 1))?;
            producer.put(value(actor.scene.id(), 2))?;
            begin();
            drop(producer);
            end();
            Ok(())
        })
        .while_waiting(until_the_end)
        // Of several there may be more than there is room for.
        .alone()
}

// ---- who consumes is killed ----------------------------------------------------------------------------------------

/// Harness and helper are producers. The queue is full.
pub struct Producers {
    segment: Segment,
    idle: Event,
    producer: Producer<u64>,
}

impl Producers {
    fn consumer(&self) -> shmkit::Result<Consumer<u64>> {
        self.segment.queue(NAME).open_consumer()
    }

    fn fill(&self) -> Check {
        let queue = queue(&self.segment)?;
        Ok(FULL.into_iter().try_for_each(|value| queue.put(value))?)
    }
}

impl Subject for Producers {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        let queue = segment.queue(NAME).capacity(FULL.len()).create()?;
        FULL.into_iter().try_for_each(|value| queue.put(value))?;
        drop((queue, segment.event("idle").create()?));
        Producers::open(segment)
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        let (producer, idle) = (segment.queue(NAME).open_producer()?, segment.event("idle").open()?);
        Ok(Producers { segment: segment.clone(), idle, producer })
    }

    fn notice(&self) -> Check {
        self.idle.wait_timeout(Duration::from_millis(60))?;
        Ok(())
    }

    fn release(&self, _: &[Deed]) -> Check<Option<Deed>> {
        // Where nobody has become a consumer, one waits for the first.
        drop(self.consumer()?);
        Ok(None)
    }

    fn audit(&self, segment: &Segment, deeds: &[Deed]) -> Check {
        let left = drain(segment)?;
        let received: Vec<u64> =
            deeds.iter().filter(|deed| deed.act == "get").flat_map(|deed| deed.notes.iter().copied()).collect();
        let waiter = deeds.iter().find(|deed| deed.act == "waiter");
        let there: Vec<u64> = received.iter().chain(&left).copied().collect();
        if let Some(value) = there.iter().find(|value| there.iter().filter(|other| other == value).count() > 1) {
            return duplicated(format!("message {value}: received {received:?}, left {left:?}"));
        }
        let was_put = waiter.is_some_and(|waiter| waiter.notes == [1]);
        let mine = waiter.map(|waiter| value(waiter.id, 1));
        let expected = FULL.into_iter().chain(mine.filter(|_| was_put));
        // Who was killed in a `get` may have had one.
        let slack = deeds.iter().filter(|deed| deed.act == "get" && !deed.is_done && deed.notes.is_empty()).count();
        let missing = expected.filter(|value| !there.contains(value)).count();
        if missing > slack {
            return lost(format!("received {received:?}, left {left:?} after {deeds:?}"));
        }
        if let Some(value) = there.iter().find(|value| !FULL.contains(value) && mine != Some(**value)) {
            return corrupt(format!("message {value} of nobody"));
        }
        self.fill()
    }

    fn may_grow() -> bool {
        true
    }

    fn exercise(&self, _: &Segment) -> Check {
        let consumer = self.consumer()?;
        if consumer.get()? != FULL[0] {
            return corrupt("another message than the first");
        }
        self.producer.put(7)?;
        drop(consumer);
        match self.producer.put_timeout(8, LONG) {
            Err(Error::Channel(ChannelError::BrokenPipe)) => {}
            Err(Error::Channel(ChannelError::Full { .. })) => {
                return hang("the last consumer has gone, and no error comes");
            }
            other => return corrupt(format!("{other:?} although nobody is left to receive")),
        }
        match drain(&self.segment)? {
            found if found == [FULL[1], 7] => self.fill(),
            found => corrupt(format!("{found:?} is in the queue")),
        }
    }
}

/// Puts one more, or is told that nobody is left.
fn until_told(ends: &Producers, scene: &Scene) -> Check {
    match ends.producer.put(value(scene.id(), 1)) {
        Ok(()) => scene.note(1),
        Err(Error::Channel(ChannelError::BrokenPipe)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Of who gets.
pub fn consuming() -> Acts<Producers> {
    Acts::<Producers>::new()
        .act("become a consumer", |actor| {
            begin();
            let _consumer = actor.consumer()?;
            end();
            Ok(())
        })
        .while_waiting(until_told)
        .act("get", |actor| {
            let consumer = actor.consumer()?;
            begin();
            let value = consumer.get()?;
            actor.scene.note(value);
            end();
            drop(consumer);
            Ok(())
        })
        .while_waiting(until_told)
        .act("leave", |actor| {
            let consumer = actor.consumer()?;
            begin();
            drop(consumer);
            end();
            Ok(())
        })
        .while_waiting(until_told)
}
