//! The queue of serde values: short ones in their blocks, long ones in the heap, and ones that carry a handle.

use super::closing::Closing;
use super::messages::{self, Channel, Channels, value};
use crate::operation::{Actor, Acts, Check, corrupt};
use crate::step::{begin, end};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shmkit::{ChannelError, Error, Queue, Segment, Semaphore};
use std::time::Duration;

/// A message that carries a number.
pub trait Message: Serialize + DeserializeOwned + 'static {
    /// Bytes that lie in a block: enough for it, or not.
    const INLINE: usize = 48;
    /// Whether the queue takes memory as it is filled.
    const GROWS: bool = false;
    /// Whether a death loses what the dead one was receiving.
    const ONCE: bool = false;
    /// One with that number.
    fn of(segment: &Segment, value: u64) -> shmkit::Result<Self>;
    /// Its number, if it is whole.
    fn value(&self) -> Check<u64>;
}

/// A message that fits a block.
pub type Short = (u64, u64);

impl Message for Short {
    fn of(_: &Segment, value: u64) -> shmkit::Result<Self> {
        Ok((value, !value))
    }
    fn value(&self) -> Check<u64> {
        if self.1 == !self.0 { Ok(self.0) } else { corrupt(format!("a torn message: {self:?}")) }
    }
}

/// A message that does not.
pub type Long = Vec<u64>;

impl Message for Long {
    fn of(_: &Segment, value: u64) -> shmkit::Result<Self> {
        Ok(vec![value | 1 << 60; 9])
    }
    fn value(&self) -> Check<u64> {
        match self[..] {
            [first, ref rest @ ..] if rest.len() == 8 && rest.iter().all(|&word| word == first) => {
                Ok(first & !(1 << 60))
            }
            _ => corrupt(format!("a torn message: {self:?}")),
        }
    }
}

/// A message of a queue that takes memory as it is filled.
pub type Growing = (u64, u64, u8);

impl Message for Growing {
    const GROWS: bool = true;
    fn of(_: &Segment, value: u64) -> shmkit::Result<Self> {
        Ok((value, !value, 7))
    }
    fn value(&self) -> Check<u64> {
        if self.1 == !self.0 && self.2 == 7 { Ok(self.0) } else { corrupt(format!("a torn message: {self:?}")) }
    }
}

/// A message that nobody gets again.
pub type Fleeting = (u64, u64, u16);

impl Message for Fleeting {
    const ONCE: bool = true;
    fn of(_: &Segment, value: u64) -> shmkit::Result<Self> {
        Ok((value, !value, 5))
    }
    fn value(&self) -> Check<u64> {
        if self.1 == !self.0 && self.2 == 5 { Ok(self.0) } else { corrupt(format!("a torn message: {self:?}")) }
    }
}

/// A message with an object that only it keeps alive.
pub type Carrying = (u64, Semaphore);

impl Message for Carrying {
    const INLINE: usize = 16;
    fn of(segment: &Segment, value: u64) -> shmkit::Result<Self> {
        Ok((value, Semaphore::new_in(segment, value as u32)?))
    }
    fn value(&self) -> Check<u64> {
        let found = self.1.value();
        if u64::from(found) == self.0 {
            Ok(self.0)
        } else {
            corrupt(format!("another object: {found}, not {}", self.0))
        }
    }
}

/// A queue and where it lies.
pub struct InSegment<M> {
    queue: Queue<M>,
    segment: Segment,
}

impl<M: Message> InSegment<M> {
    fn value(message: shmkit::Result<M>) -> shmkit::Result<u64> {
        message?.value().map_err(|fault| Error::Other(fault.what))
    }
}

impl<M: Message> Channel for InSegment<M> {
    fn create(segment: &Segment, name: &str, capacity: usize) -> shmkit::Result<Self> {
        let at = segment.queue(name).inline(M::INLINE);
        let at = if M::ONCE { at.at_most_once() } else { at };
        let queue = if M::GROWS { at.unbounded(capacity) } else { at.capacity(capacity) }.create()?;
        Ok(InSegment { queue, segment: segment.clone() })
    }
    fn open(segment: &Segment, name: &str) -> shmkit::Result<Self> {
        Ok(InSegment { queue: segment.queue(name).open()?, segment: segment.clone() })
    }
    fn may_grow() -> bool {
        M::GROWS
    }
    fn put(&self, value: u64) -> shmkit::Result<()> {
        self.queue.put(M::of(&self.segment, value)?)
    }
    fn get(&self) -> shmkit::Result<u64> {
        InSegment::value(self.queue.get())
    }
    fn get_timeout(&self, timeout: Duration) -> shmkit::Result<u64> {
        InSegment::value(self.queue.get_timeout(timeout))
    }
    fn try_get(&self) -> Check<Option<(u64, Option<u32>)>> {
        match self.queue.get_message_timeout(Duration::ZERO) {
            Ok(message) if M::ONCE && message.redelivered > 0 => corrupt("a message comes again"),
            Ok(message) => Ok(Some((message.value.value()?, Some(message.redelivered)))),
            Err(Error::Channel(ChannelError::Empty { .. })) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl<M: Message> Closing for InSegment<M> {
    fn close(&self) {
        self.queue.close();
    }
    fn shut_down(&self) -> shmkit::Result<()> {
        self.queue.shutdown(true)
    }
    fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }
}

pub fn acts<M: Message>() -> Acts<Channels<InSegment<M>>> {
    messages::acts()
        .act("put many", |actor: Actor<Channels<InSegment<M>>>| {
            let message = |k| M::of(&actor.segment, value(actor.scene.id(), k));
            let messages = [message(1)?, message(2)?, message(3)?];
            begin();
            actor.some.queue.put_many(messages)?;
            end();
            Ok(())
        })
        .act("get many", |actor| {
            begin();
            for message in actor.some.queue.get_many(2)? {
                actor.scene.note(message?.value()?);
            }
            end();
            Ok(())
        })
}
