//! The joinable queue: messages are in it until they are done.

use super::closing::Closing;
use super::messages::{self, Channel, Channels, value};
use crate::operation::{Actor, Acts, Check, corrupt};
use crate::step::{begin, end};
use shmkit::{ChannelError, Error, JoinableQueue, Segment};
use std::time::Duration;

type Message = (u64, u64);

pub struct Tasks(JoinableQueue<Message>);

impl Channel for Tasks {
    fn create(segment: &Segment, name: &str, capacity: usize) -> shmkit::Result<Self> {
        segment.joinable_queue(name).capacity(capacity).tasks(6).create().map(Tasks)
    }
    fn open(segment: &Segment, name: &str) -> shmkit::Result<Self> {
        segment.joinable_queue(name).open().map(Tasks)
    }
    fn put(&self, value: u64) -> shmkit::Result<()> {
        self.0.put((value, !value))
    }
    fn get(&self) -> shmkit::Result<u64> {
        let task = self.0.get_task()?;
        let value = task.0;
        task.done()?;
        Ok(value)
    }
    fn get_timeout(&self, timeout: Duration) -> shmkit::Result<u64> {
        let task = self.0.get_task_timeout(timeout)?;
        let value = task.0;
        task.done()?;
        Ok(value)
    }
    fn try_get(&self) -> Check<Option<(u64, Option<u32>)>> {
        match self.0.try_get_task() {
            Ok(task) if task.1 == !task.0 => {
                let found = (task.0, Some(task.redelivered()));
                task.done()?;
                Ok(Some(found))
            }
            Ok(torn) => corrupt(format!("a torn message: {:?}", *torn)),
            Err(Error::Channel(ChannelError::Empty { .. })) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
    fn check(&self) -> Check {
        // Nobody is left who could have anything to do.
        self.0.join_timeout(Duration::from_secs(10))?;
        match self.0.unfinished() {
            0 => Ok(()),
            tasks => corrupt(format!("{tasks} tasks of an empty queue are not done")),
        }
    }
}

impl Closing for Tasks {
    fn close(&self) {
        self.0.close();
    }
    fn shut_down(&self) -> shmkit::Result<()> {
        self.0.shutdown(true)
    }
    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

pub fn acts() -> Acts<Channels<Tasks>> {
    messages::acts()
        .act("receive", |actor: Actor<Channels<Tasks>>| {
            begin();
            let task = actor.some.0.get_task()?;
            actor.scene.note(task.0);
            end();
            Ok(())
        })
        .act("release", |actor| {
            let task = actor.some.0.get_task()?;
            actor.scene.note(task.0);
            begin();
            task.done()?;
            end();
            Ok(())
        })
        .act("task done", |actor| {
            begin();
            let (value, _) = actor.some.0.get()?;
            actor.scene.note(value);
            actor.some.0.task_done()?;
            end();
            Ok(())
        })
        .act("give back", |actor| {
            let task = actor.some.0.get_task()?;
            begin();
            drop(task);
            end();
            Ok(())
        })
        .act("finish", |actor| {
            actor.empty.0.put((value(actor.scene.id(), 1), !value(actor.scene.id(), 1)))?;
            let task = actor.empty.0.get_task()?;
            actor.scene.note(task.0);
            begin();
            task.done()?;
            end();
            Ok(())
        })
        .while_waiting(|channels, _| Ok(channels.empty.0.join()?))
        // What others do in the same queue is not done.
        .alone()
        .act("join in vain", |actor| {
            begin();
            let joined = actor.some.0.join_timeout(Duration::from_micros(300));
            end();
            if joined.is_err() { Ok(()) } else { corrupt("three tasks are not done") }
        })
        .alone()
}
