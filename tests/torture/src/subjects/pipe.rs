//! The pipe: one sender, one receiver. Whoever needs an end opens it for that, and gives it back.

use super::messages::value;
use crate::operation::{Acts, Check, Deed, HARNESS, Scene, Subject, corrupt, duplicated, lost};
use crate::step::{begin, end};
use shmkit::{ChannelError, Error, Event, Receiver, Segment, Sender};
use std::time::Duration;

/// The value and what must go with it.
type Element = [u64; 2];

pub struct Pipe {
    segment: Segment,
    idle: Event,
    /// Of the harness: both ends, used by nobody, so that neither is gone while nobody has the other.
    _ends: Option<(Sender<Element>, Receiver<Element>)>,
}

const FIRST: [u64; 2] = [1, 2];

/// An end has one holder: somebody can be stopped at one of them while somebody else is killed at the other.
const SENDING: &str = "sending";
const RECEIVING: &str = "receiving";

fn element(value: u64) -> Element {
    [value, !value]
}

impl Pipe {
    fn sender(&self) -> shmkit::Result<Sender<Element>> {
        self.segment.channel("pipe").open_sender()
    }

    fn receiver(&self) -> shmkit::Result<Receiver<Element>> {
        self.segment.channel("pipe").open_receiver()
    }

    /// Takes all there is.
    fn drain(&self) -> Check<Vec<u64>> {
        let receiver = self.receiver()?;
        let mut all = Vec::new();
        loop {
            match receiver.try_recv() {
                Ok([value, check]) if check == !value => all.push(value),
                Ok(torn) => return corrupt(format!("a torn element: {torn:?}")),
                Err(Error::Channel(ChannelError::Empty { .. })) => return Ok(all),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn fill(&self) -> Check {
        Ok(self.sender()?.send_many(&FIRST.map(element))?)
    }
}

impl Subject for Pipe {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        let ends = segment.channel("pipe").capacity(8).create()?;
        let pipe = Pipe { segment: segment.clone(), idle: segment.event("idle").create()?, _ends: Some(ends) };
        pipe.sender()?.send_many(&FIRST.map(element))?;
        Ok(pipe)
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Pipe { segment: segment.clone(), idle: segment.event("idle").open()?, _ends: None })
    }

    fn notice(&self) -> Check {
        self.idle.wait_timeout(Duration::from_millis(60))?;
        Ok(())
    }

    fn release(&self, _: &[Deed]) -> Check<Option<Deed>> {
        self.sender()?.send(element(value(HARNESS, 1)))?;
        Ok(Some(Deed::of_harness("release", Vec::new())))
    }

    fn audit(&self, _: &Segment, deeds: &[Deed]) -> Check {
        // One sender, one receiver: everything is in order, and what was received are the first ones.
        let received: Vec<u64> = deeds.iter().flat_map(|deed| deed.notes.iter().copied()).collect();
        let is_unsure = deeds.iter().any(|deed| deed.act.starts_with("receive") && !deed.is_done);
        let mut sent = FIRST.to_vec();
        let mut unsure = Vec::new();
        for deed in deeds {
            let count = match deed.act {
                "send" | "commit" | "release" | "send to a waiter" => 1,
                "send many" => 3,
                _ => 0,
            };
            let values = (1..=count).map(|k| value(deed.id, k));
            if deed.is_done { sent.extend(values) } else { unsure.extend(values) }
        }
        let found = self.drain()?;
        let there: Vec<u64> = received.iter().chain(&found).copied().collect();
        let is_there = |value: &u64| there.contains(value);
        if let Some(value) = there.iter().find(|value| !sent.contains(value) && !unsure.contains(value)) {
            return corrupt(format!("element {value}, which nobody has committed"));
        }
        if let Some(value) = there.iter().find(|value| there.iter().filter(|other| other == value).count() > 1) {
            return duplicated(format!("element {value}: received {received:?}, left {found:?}"));
        }
        let missing = sent.iter().filter(|value| !is_there(value)).count();
        let takes = if deeds.iter().any(|deed| deed.act == "receive many") { 2 } else { 1 };
        if missing > usize::from(is_unsure) * takes {
            return lost(format!("received {received:?}, left {found:?}, sent {sent:?}"));
        }
        if unsure.iter().skip_while(|value| is_there(value)).any(is_there) {
            return corrupt(format!("a later element without the earlier one: {found:?}"));
        }
        self.fill()
    }

    fn may_grow() -> bool {
        // Whoever opens an end beside those that are held has a cell more.
        true
    }

    fn exercise(&self, _: &Segment) -> Check {
        match self.drain()? {
            found if found == FIRST => self.fill(),
            found => corrupt(format!("{found:?} is in the pipe")),
        }
    }
}

pub fn acts() -> Acts<Pipe> {
    Acts::<Pipe>::new()
        .act("open sender", |actor| {
            begin();
            let _sender = actor.sender()?;
            end();
            Ok(())
        })
        .on(SENDING)
        .act("drop sender", |actor| {
            let sender = actor.sender()?;
            begin();
            drop(sender);
            end();
            Ok(())
        })
        .on(SENDING)
        .act("send", |actor| {
            let (sender, element) = (actor.sender()?, element(value(actor.scene.id(), 1)));
            begin();
            sender.send(element)?;
            end();
            Ok(())
        })
        .on(SENDING)
        .act("send many", |actor| {
            let (sender, elements) = (actor.sender()?, [1, 2, 3].map(|k| element(value(actor.scene.id(), k))));
            begin();
            sender.send_many(&elements)?;
            end();
            Ok(())
        })
        .on(SENDING)
        .act("commit", |actor| {
            let mut sender = actor.sender()?;
            let mut loan = sender.loan()?;
            *loan = element(value(actor.scene.id(), 1));
            begin();
            loan.commit()?;
            end();
            Ok(())
        })
        .on(SENDING)
        .act("loan", |actor| {
            let mut sender = actor.sender()?;
            begin();
            let mut loan = sender.loan()?;
            *loan = element(value(actor.scene.id(), 9));
            end();
            drop(loan);
            Ok(())
        })
        .on(SENDING)
        .act("open receiver", |actor| {
            begin();
            let _receiver = actor.receiver()?;
            end();
            Ok(())
        })
        .on(RECEIVING)
        .act("drop receiver", |actor| {
            let receiver = actor.receiver()?;
            begin();
            drop(receiver);
            end();
            Ok(())
        })
        .on(RECEIVING)
        .act("receive", |actor| {
            let receiver = actor.receiver()?;
            begin();
            let [value, _] = receiver.recv()?;
            actor.scene.note(value);
            end();
            Ok(())
        })
        .on(RECEIVING)
        .act("receive many", |actor| {
            let receiver = actor.receiver()?;
            let mut elements = [[0; 2]; 2];
            begin();
            let count = receiver.recv_many(&mut elements)?;
            elements[..count].iter().for_each(|element| actor.scene.note(element[0]));
            end();
            Ok(())
        })
        .on(RECEIVING)
        .act("receive in place", |actor| {
            let mut receiver = actor.receiver()?;
            begin();
            let received = receiver.recv_ref()?;
            let value = received[0];
            drop(received);
            actor.scene.note(value);
            end();
            Ok(())
        })
        .on(RECEIVING)
        .act("send to a waiter", |actor| {
            let (sender, element) = (actor.sender()?, element(value(actor.scene.id(), 1)));
            begin();
            sender.send(element)?;
            end();
            Ok(())
        })
        .while_waiting(three)
        .alone()
}

/// Receives one more than there are at first.
fn three(pipe: &Pipe, scene: &Scene) -> Check {
    let receiver = pipe.receiver()?;
    for _ in 0..3 {
        scene.note(receiver.recv()?[0]);
    }
    Ok(())
}
