//! The end of a channel: closed, what is in it is still received; shut down, it is thrown away. Who waits is told.

use super::messages::Channel;
use crate::operation::{Acts, Check, Deed, Subject, corrupt, lost};
use crate::step::{begin, end};
use shmkit::{ChannelError, Error, Segment};

/// A channel that can be closed.
pub trait Closing: Channel {
    /// Nothing more is put.
    fn close(&self);
    /// Nothing more is got, either.
    fn shut_down(&self) -> shmkit::Result<()>;
    /// Whether one of them was done.
    fn is_closed(&self) -> bool;
}

/// One with messages, and one without at which somebody waits.
pub struct Ends<C> {
    segment: Segment,
    some: C,
    empty: C,
}

const SOME: [u64; 2] = [1, 2];

/// What is received until it ends, and whether that is by a shutdown.
fn rest<C: Channel>(channel: &C) -> Check<(Vec<u64>, bool)> {
    let mut all = Vec::new();
    loop {
        match channel.get() {
            Ok(value) => all.push(value),
            Err(Error::Channel(ChannelError::EndOfFile)) => return Ok((all, false)),
            Err(Error::Channel(ChannelError::ShutDown { .. })) => return Ok((all, true)),
            Err(error) => return Err(error.into()),
        }
    }
}

impl<C: Closing> Ends<C> {
    fn open_one(segment: &Segment, name: &str) -> shmkit::Result<C> {
        C::open(segment, name)
    }

    fn anew(&self) -> Check {
        for name in ["some", "empty"] {
            self.segment.remove(name)?;
        }
        Ends::<C>::create(&self.segment)?;
        Ok(())
    }
}

impl<C: Closing> Subject for Ends<C> {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        let (some, empty) = (C::create(segment, "some", 4)?, C::create(segment, "empty", 4)?);
        SOME.into_iter().try_for_each(|value| some.put(value))?;
        Ok(Ends { segment: segment.clone(), some, empty })
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        let open = |name| Ends::<C>::open_one(segment, name);
        Ok(Ends { segment: segment.clone(), some: open("some")?, empty: open("empty")? })
    }

    fn release(&self, _: &[Deed]) -> Check<Option<Deed>> {
        self.empty.close();
        Ok(None)
    }

    fn audit(&self, _: &Segment, deeds: &[Deed]) -> Check {
        let done = |act: &str| deeds.iter().any(|deed| deed.act == act && deed.is_done);
        let tried = |act: &str| deeds.iter().any(|deed| deed.act == act);
        if (done("close") || done("shut down")) && !self.some.is_closed() {
            return lost("it was closed");
        }
        if done("close empty") && !self.empty.is_closed() {
            return lost("it was closed");
        }
        if !tried("close") && !tried("shut down") && self.some.is_closed() {
            return corrupt("nobody has closed it");
        }
        // Who died in it may have thrown away some.
        self.some.close();
        let (got, is_shut) = rest(&self.some)?;
        if is_shut != done("shut down") && !tried("shut down") {
            return corrupt("nobody has shut it down");
        }
        if done("shut down") && (!is_shut || !got.is_empty()) {
            return lost(format!("it was shut down, and gives {got:?}"));
        }
        if !tried("shut down") && got != SOME {
            return lost(format!("{got:?} of {SOME:?}"));
        }
        self.some.shut_down()?;
        self.empty.shut_down()?;
        // The harness's handles keep these two; the next ones have their names.
        self.anew()
    }

    fn may_grow() -> bool {
        true
    }

    fn exercise(&self, segment: &Segment) -> Check {
        let (some, empty) = (Ends::<C>::open_one(segment, "some")?, Ends::<C>::open_one(segment, "empty")?);
        if some.is_closed() || empty.is_closed() {
            return corrupt("a new one is closed");
        }
        some.close();
        empty.shut_down()?;
        if rest(&some)? != (SOME.to_vec(), false) || rest(&empty)? != (Vec::new(), true) {
            return corrupt("it ends in another way");
        }
        self.anew()
    }
}

pub fn acts<C: Closing>() -> Acts<Ends<C>> {
    Acts::<Ends<C>>::new()
        .act("close", |actor| {
            begin();
            actor.some.close();
            end();
            Ok(())
        })
        .act("shut down", |actor| {
            begin();
            actor.some.shut_down()?;
            end();
            Ok(())
        })
        .act("close empty", |actor| {
            begin();
            actor.empty.close();
            end();
            Ok(())
        })
        .while_waiting(|ends, _| match rest(&ends.empty)? {
            (got, _) if got.is_empty() => Ok(()),
            (got, _) => corrupt(format!("{got:?} of nobody")),
        })
}
