//! The ends of a pipe that are closed, or die: the other one is told, after all that was sent.

use super::messages::value;
use crate::operation::{Acts, Check, Deed, Scene, Subject, corrupt, lost};
use crate::step::{begin, end};
use shmkit::{ChannelError, Error, Event, Receiver, Segment, Sender};

pub struct Pipe {
    segment: Segment,
    /// The victim has made the pipe.
    is_there: Event,
}

const NAME: &str = "pipe";
const CAPACITY: usize = 2;

impl Pipe {
    /// Makes it and has its sending end.
    fn sender(&self) -> shmkit::Result<Sender<u64>> {
        let sender = self.segment.channel(NAME).capacity(CAPACITY).create_sender()?;
        self.is_there.set();
        Ok(sender)
    }

    /// Makes it and has its receiving end.
    fn receiver(&self) -> shmkit::Result<Receiver<u64>> {
        let receiver = self.segment.channel(NAME).capacity(CAPACITY).create_receiver()?;
        self.is_there.set();
        Ok(receiver)
    }
}

impl Subject for Pipe {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Pipe { segment: segment.clone(), is_there: segment.event("there").create()? })
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Pipe { segment: segment.clone(), is_there: segment.event("there").open()? })
    }

    fn audit(&self, segment: &Segment, deeds: &[Deed]) -> Check {
        let waiter = deeds.iter().find(|deed| deed.act == "waiter").map_or(&[][..], |deed| &deed.notes);
        for deed in deeds.iter().filter(|deed| deed.act.contains("sender")) {
            let sent = [value(deed.id, 1), value(deed.id, 2)];
            if !sent.starts_with(waiter) {
                return corrupt(format!("{waiter:?} was received of {sent:?}"));
            }
            if deed.is_done && deeds.iter().any(|deed| deed.act == "waiter") && waiter != sent {
                return lost(format!("{waiter:?} was received of {sent:?} before the end"));
            }
        }
        segment.remove(NAME)?;
        self.is_there.clear();
        Ok(())
    }

    fn may_grow() -> bool {
        true
    }

    fn exercise(&self, _: &Segment) -> Check {
        let (sender, receiver) = self.segment.channel::<u64>(NAME).capacity(CAPACITY).create()?;
        sender.send(7)?;
        sender.close()?;
        if receiver.recv()? != 7 || !matches!(receiver.recv(), Err(Error::Channel(ChannelError::EndOfFile))) {
            return corrupt("it ends in another way");
        }
        drop(receiver);
        if self.segment.remove(NAME)? { Ok(()) } else { corrupt("it has gone by itself") }
    }
}

/// Receives until the end.
fn receives(pipe: &Pipe, scene: &Scene) -> Check {
    pipe.is_there.wait()?;
    let receiver: Receiver<u64> = pipe.segment.channel(NAME).open_receiver()?;
    loop {
        match receiver.recv() {
            Ok(value) => scene.note(value),
            Err(Error::Channel(ChannelError::EndOfFile)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends until nobody is left to receive.
fn sends(pipe: &Pipe, _: &Scene) -> Check {
    pipe.is_there.wait()?;
    let sender: Sender<u64> = pipe.segment.channel(NAME).open_sender()?;
    loop {
        match sender.send(5) {
            Ok(()) => {}
            Err(Error::Channel(ChannelError::BrokenPipe | ChannelError::Closed { .. })) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

pub fn acts() -> Acts<Pipe> {
    Acts::<Pipe>::new()
        .act("close sender", |actor| {
            let (sender, id) = (actor.sender()?, actor.scene.id());
            begin();
            sender.send(value(id, 1))?;
            sender.send(value(id, 2))?;
            sender.close()?;
            end();
            Ok(())
        })
        .while_waiting(receives)
        .alone()
        .act("drop sender", |actor| {
            let (sender, id) = (actor.sender()?, actor.scene.id());
            begin();
            sender.send(value(id, 1))?;
            sender.send(value(id, 2))?;
            drop(sender);
            end();
            Ok(())
        })
        .while_waiting(receives)
        .alone()
        .act("close receiver", |actor| {
            let receiver = actor.receiver()?;
            begin();
            receiver.recv()?;
            receiver.close()?;
            end();
            Ok(())
        })
        .while_waiting(sends)
        .alone()
        .act("drop receiver", |actor| {
            let receiver = actor.receiver()?;
            begin();
            receiver.recv()?;
            drop(receiver);
            end();
            Ok(())
        })
        .while_waiting(sends)
        .alone()
}
