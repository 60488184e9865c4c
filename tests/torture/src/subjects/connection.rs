//! The connection: both its ends are held by all who take part.

use super::messages::{self, Channel, Channels};
use crate::operation::{Actor, Acts, Check, corrupt};
use crate::step::{begin, end};
use shmkit::{ChannelError, Connection, Error, Queue, Segment};
use std::time::Duration;

pub struct Ends {
    pub sends: Connection,
    pub receives: Connection,
    /// Where whoever comes finds them.
    _place: Queue<(Connection, Connection)>,
}

impl Ends {
    /// Puts both where [`Ends::find`] finds them.
    pub fn place(segment: &Segment, name: &str, sends: Connection, receives: Connection) -> shmkit::Result<Self> {
        let place = segment.queue(name).capacity(1).create()?;
        place.put((sends.clone(), receives.clone()))?;
        Ok(Ends { sends, receives, _place: place })
    }

    pub fn find(segment: &Segment, name: &str) -> shmkit::Result<Self> {
        let place: Queue<(Connection, Connection)> = segment.queue(name).open()?;
        let (sends, receives) = place.get()?;
        place.put((sends.clone(), receives.clone()))?;
        Ok(Ends { sends, receives, _place: place })
    }
}

type Message = (u64, u64);

impl Channel for Ends {
    fn create(segment: &Segment, name: &str, _: usize) -> shmkit::Result<Self> {
        let (sends, receives) = shmkit::channel::pipe_in(segment, true)?;
        Ends::place(segment, name, sends, receives)
    }
    fn open(segment: &Segment, name: &str) -> shmkit::Result<Self> {
        Ends::find(segment, name)
    }
    fn put(&self, value: u64) -> shmkit::Result<()> {
        self.sends.send(&(value, !value))
    }
    fn get(&self) -> shmkit::Result<u64> {
        Ok(self.receives.recv::<Message>()?.0)
    }
    fn get_timeout(&self, timeout: Duration) -> shmkit::Result<u64> {
        Ok(self.receives.recv_timeout::<Message>(timeout)?.0)
    }
    fn may_grow() -> bool {
        true
    }
    fn try_get(&self) -> Check<Option<(u64, Option<u32>)>> {
        match self.receives.try_recv::<Message>() {
            Ok((value, check)) if check == !value => Ok(Some((value, None))),
            Ok(torn) => corrupt(format!("a torn message: {torn:?}")),
            Err(Error::Channel(ChannelError::Empty { .. })) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

pub fn acts() -> Acts<Channels<Ends>> {
    messages::acts().act("let go", |actor: Actor<Channels<Ends>>| {
        let Actor { subject, segment, .. } = actor;
        begin();
        drop(subject);
        end();
        drop(segment);
        Ok(())
    })
}
