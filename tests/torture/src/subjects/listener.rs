//! Whoever listens under a name, and whoever connects to it: either may die, the other is told.

use crate::operation::{Acts, Check, Deed, Scene, Subject, corrupt, lost};
use crate::step::{begin, end};
use shmkit::{ChannelError, Client, Connection, Error, Event, Listener, Segment};
use std::time::Duration;

pub struct Meeting {
    segment: Segment,
    /// Somebody listens.
    is_bound: Event,
    /// Nobody will come any more.
    is_over: Event,
}

const NAME: &str = "meeting";
const KEY: &[u8] = b"secret";
const SHORT: Duration = Duration::from_millis(2);

impl Meeting {
    fn bind(&self) -> shmkit::Result<Listener> {
        Listener::builder(NAME).segment(&self.segment).authkey(KEY).backlog(2).bind()
    }

    /// `None` if nobody is there, or who was has died.
    fn connect(&self) -> Check<Option<Connection>> {
        match Client::builder(NAME).segment(&self.segment).authkey(KEY).connect() {
            Ok(connection) => Ok(Some(connection)),
            Err(Error::Channel(ChannelError::Refused { .. } | ChannelError::EndOfFile | ChannelError::BrokenPipe)) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// One process as both.
    fn meet(&self) -> Check {
        let listener = self.bind()?;
        std::thread::scope(|scope| {
            let client = scope.spawn(|| -> Check {
                let Some(connection) = self.connect()? else { return corrupt("refused, although somebody listens") };
                Ok(connection.send(&7u64)?)
            });
            let got: u64 = listener.accept_timeout(Duration::from_secs(10))?.recv()?;
            match client.join() {
                Ok(done) => done?,
                Err(_) => return corrupt("the client panicked"),
            }
            if got == 7 { Ok(()) } else { corrupt("another message than what was sent") }
        })
    }
}

impl Subject for Meeting {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Meeting {
            segment: segment.clone(),
            is_bound: segment.event("bound").create()?,
            is_over: segment.event("over").create()?,
        })
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Meeting {
            segment: segment.clone(),
            is_bound: segment.event("bound").open()?,
            is_over: segment.event("over").open()?,
        })
    }

    fn release(&self, _: &[Deed]) -> Check<Option<Deed>> {
        self.is_over.set();
        Ok(None)
    }

    fn audit(&self, _: &Segment, deeds: &[Deed]) -> Check {
        let waiter = deeds.iter().find(|deed| deed.act == "waiter");
        let met = deeds.iter().any(|deed| ["connect", "accept"].contains(&deed.act) && deed.is_done);
        if met && waiter.is_some_and(|waiter| waiter.notes != [1]) {
            return lost("one has met the other, who knows nothing of it");
        }
        self.is_bound.clear();
        self.is_over.clear();
        self.meet()
    }

    fn may_grow() -> bool {
        // The place of the meeting stays.
        true
    }

    fn exercise(&self, _: &Segment) -> Check {
        self.meet()
    }
}

/// Connects as soon as somebody listens, and tries again until it is over.
fn comes(meeting: &Meeting, scene: &Scene) -> Check {
    loop {
        if let Some(connection) = meeting.connect()? {
            scene.note(1);
            drop(connection);
            return Ok(());
        }
        if meeting.is_over.wait_timeout(SHORT)? {
            return Ok(());
        }
    }
}

/// Listens until somebody has come, or it is over.
fn hosts(meeting: &Meeting, scene: &Scene) -> Check {
    let listener = meeting.bind()?;
    meeting.is_bound.set();
    loop {
        match listener.accept_timeout(SHORT) {
            Ok(_connection) => {
                scene.note(1);
                return Ok(());
            }
            Err(Error::Sync(_)) if meeting.is_over.is_set() => return Ok(()),
            Err(Error::Sync(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

pub fn acts() -> Acts<Meeting> {
    Acts::<Meeting>::new()
        .act("bind", |actor| {
            begin();
            let _listener = actor.bind()?;
            end();
            Ok(())
        })
        .alone()
        .act("close", |actor| {
            let listener = actor.bind()?;
            begin();
            drop(listener);
            end();
            Ok(())
        })
        .alone()
        .act("accept", |actor| {
            let listener = actor.bind()?;
            begin();
            let _connection = listener.accept()?;
            end();
            Ok(())
        })
        .while_waiting(comes)
        .alone()
        .act("connect", |actor| {
            // In vain where nobody is to come.
            actor.is_bound.wait_timeout(Duration::from_secs(1))?;
            begin();
            let _connection = actor.connect()?;
            end();
            Ok(())
        })
        .while_waiting(hosts)
        .alone()
}
