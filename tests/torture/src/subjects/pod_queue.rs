//! The queue of plain-data elements.

use super::closing::Closing;
use super::messages::{self, Channel, Channels, value};
use crate::operation::{Actor, Acts, Check, corrupt, leaked};
use crate::step::{begin, end};
use shmkit::{ChannelError, Error, PodQueue, Segment};
use std::time::Duration;

/// The value and what must go with it.
type Element = [u64; 2];

const LOANS: usize = 6;

fn element(value: u64) -> Element {
    [value, !value]
}

fn value_of(element: Element) -> Check<u64> {
    if element[1] == !element[0] { Ok(element[0]) } else { corrupt(format!("a torn message: {element:?}")) }
}

impl Channel for PodQueue<Element> {
    fn create(segment: &Segment, name: &str, capacity: usize) -> shmkit::Result<Self> {
        segment.pod_queue(name).capacity(capacity).loans(LOANS).create()
    }
    fn open(segment: &Segment, name: &str) -> shmkit::Result<Self> {
        segment.pod_queue(name).open()
    }
    fn put(&self, value: u64) -> shmkit::Result<()> {
        PodQueue::put(self, element(value))
    }
    fn get(&self) -> shmkit::Result<u64> {
        Ok(PodQueue::get(self)?[0])
    }
    fn get_timeout(&self, timeout: Duration) -> shmkit::Result<u64> {
        Ok(PodQueue::get_timeout(self, timeout)?[0])
    }
    fn try_get(&self) -> Check<Option<(u64, Option<u32>)>> {
        match self.try_recv() {
            Ok(received) => Ok(Some((value_of(*received)?, Some(received.redelivered())))),
            Err(Error::Channel(ChannelError::Empty { .. })) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
    fn check(&self) -> Check {
        let blocks: Vec<_> = std::iter::from_fn(|| self.try_loan().ok()).collect();
        let all = self.capacity() + LOANS;
        if blocks.len() == all { Ok(()) } else { leaked(format!("{} blocks of {all} are free", blocks.len())) }
    }
}

impl Closing for PodQueue<Element> {
    fn close(&self) {
        PodQueue::close(self);
    }
    fn shut_down(&self) -> shmkit::Result<()> {
        self.shutdown(true)
    }
    fn is_closed(&self) -> bool {
        PodQueue::is_closed(self)
    }
}

pub fn acts() -> Acts<Channels<PodQueue<Element>>> {
    messages::acts()
        .act("put many", |actor: Actor<Channels<PodQueue<Element>>>| {
            let values = [1, 2, 3].map(|k| element(value(actor.scene.id(), k)));
            begin();
            actor.some.put_many(&values)?;
            end();
            Ok(())
        })
        .act("get many", |actor| {
            begin();
            for element in actor.some.get_many(2)? {
                actor.scene.note(element[0]);
            }
            end();
            Ok(())
        })
        .act("loan", |actor| {
            begin();
            let mut loan = actor.some.loan()?;
            *loan = element(value(actor.scene.id(), 9));
            end();
            drop(loan);
            Ok(())
        })
        .act("abandon", |actor| {
            let mut loan = actor.some.loan()?;
            *loan = element(value(actor.scene.id(), 9));
            begin();
            drop(loan);
            end();
            Ok(())
        })
        .act("commit", |actor| {
            let mut loan = actor.some.loan()?;
            *loan = element(value(actor.scene.id(), 1));
            begin();
            loan.commit()?;
            end();
            Ok(())
        })
        .act("receive", |actor| {
            begin();
            let received = actor.some.recv()?;
            actor.scene.note(received[0]);
            end();
            Ok(())
        })
        .act("release", |actor| {
            let received = actor.some.recv()?;
            actor.scene.note(received[0]);
            begin();
            drop(received);
            end();
            Ok(())
        })
}
