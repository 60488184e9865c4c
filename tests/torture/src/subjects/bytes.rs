//! The connection one way, of raw bytes: more of them than lie in a message's block.

use super::connection::Ends;
use super::messages::{self, Channel, Channels};
use crate::operation::{Actor, Acts, Check, corrupt};
use crate::step::{begin, end};
use shmkit::{ChannelError, Error, Segment};
use std::time::Duration;

pub struct Bytes(Ends);

/// Bytes of a message.
const LEN: usize = 320;

fn bytes(value: u64) -> Vec<u8> {
    value.to_le_bytes().repeat(LEN / 8)
}

fn value(bytes: &[u8]) -> shmkit::Result<u64> {
    let mut first = [0; 8];
    first.copy_from_slice(bytes.get(..8).ok_or_else(|| Error::Other(format!("{} bytes", bytes.len())))?);
    let found = u64::from_le_bytes(first);
    if bytes == self::bytes(found) { Ok(found) } else { Err(Error::Other(format!("torn bytes: {bytes:?}"))) }
}

impl Channel for Bytes {
    fn create(segment: &Segment, name: &str, _: usize) -> shmkit::Result<Self> {
        let (receives, sends) = shmkit::channel::pipe_in(segment, false)?;
        Ok(Bytes(Ends::place(segment, name, sends, receives)?))
    }
    fn open(segment: &Segment, name: &str) -> shmkit::Result<Self> {
        Ok(Bytes(Ends::find(segment, name)?))
    }
    fn put(&self, value: u64) -> shmkit::Result<()> {
        self.0.sends.send_bytes(&bytes(value))
    }
    fn get(&self) -> shmkit::Result<u64> {
        value(&self.0.receives.recv_bytes()?)
    }
    fn get_timeout(&self, timeout: Duration) -> shmkit::Result<u64> {
        if self.0.receives.poll(timeout)? { self.get() } else { Err(Error::Other("nothing".to_owned())) }
    }
    fn may_grow() -> bool {
        true
    }
    fn try_get(&self) -> Check<Option<(u64, Option<u32>)>> {
        match self.0.receives.poll(Duration::ZERO) {
            Ok(true) => Ok(Some((self.get()?, None))),
            Ok(false) | Err(Error::Channel(ChannelError::Empty { .. })) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

pub fn acts() -> Acts<Channels<Bytes>> {
    messages::acts()
        .act("get into", |actor: Actor<Channels<Bytes>>| {
            let mut buffer = [0; LEN];
            begin();
            let len = actor.some.0.receives.recv_bytes_into(&mut buffer)?;
            actor.scene.note(u64::from(buffer[0]));
            end();
            if len == LEN { Ok(()) } else { corrupt(format!("{len} bytes")) }
        })
        .act("get at most", |actor| {
            begin();
            let error = actor.some.0.receives.recv_bytes_max(LEN - 1);
            // The message is in the error.
            if let Err(Error::Channel(ChannelError::TooLong { message, .. })) = &error {
                actor.scene.note(u64::from(message[0]));
            }
            end();
            if error.is_err() { Ok(()) } else { corrupt("a message shorter than what was sent") }
        })
        .act("poll", |actor| {
            begin();
            let is_ready = actor.some.0.receives.poll(Duration::from_secs(1))?;
            end();
            if is_ready { Ok(()) } else { corrupt("no message") }
        })
        .alone()
        .act("let go", |actor| {
            let Actor { subject, segment, .. } = actor;
            begin();
            drop(subject);
            end();
            drop(segment);
            Ok(())
        })
}
