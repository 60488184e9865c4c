//! [`Connection`]: messages both ways between two ends, each of which several processes may hold.
//!
//! ```text
//! body    ConnectionBody | ring second → first | ring first → second, if duplex | payloads | payloads
//! ```
//! An end is open while somebody, in any process, holds a reference in its role: the death of its last holder closes it, by
//! the same store that voids all references of the dead. Both directions are rings of messages ([`super::ring`]), so the
//! crash tables of [`super::recovery`] hold for each.
//!
//! # Crash behaviour
//!
//! | killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | a sender, before the commit | nothing of the message | recovery frees its block and its extent | the message |
//! | a sender, after the commit | the message, then the end of file if it was the last holder of its end | nobody needs to | nothing |
//! | a receiver, taking a message | another holder of its end gets the message again, or nobody is left and it goes with the connection | recovery | nothing that somebody waits for |
//! | the last holder of an end | end of file after what was sent; `BrokenPipe` for senders | who waits: at the end of a slice of its sleep, at most 1 s | nothing |
//! | the last holder of the last end | nothing | recovery destroys the connection and what is in it | the messages nobody can receive |

use super::message::HEAD;
use super::port::{Patience, Peers, Port};
use super::recovery::{self, Rings};
use super::ring::Ring;
use super::spec::Spec;
use crate::error::{ChannelError, Result, corrupt};
use crate::kinds::Kind;
use crate::segment::object::{BodyId, HEADER, Object, Shared, create, handle_as_value};
use crate::segment::{Attachment, Extent, Peer, Segment, fetch, session};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shmkit_layouts::kinds::KIND_CONNECTION;
use shmkit_layouts::objects::{ConnectionBody, ROLE_FIRST, ROLE_SECOND};
use std::time::Duration;

/// What recovery does with connections.
pub(crate) const KIND: Kind = recovery::kind::<BothWays>(KIND_CONNECTION);

/// Messages under way in each direction.
const CAPACITY: u32 = 64;
/// Blocks beside them, for messages that are being written or read at this moment.
const LOANS: u32 = 32;
/// Bytes of a message that lie in its block.
const INLINE: usize = 256 - HEAD;
/// In a reference cell, this and the index mean a block of the ring from the first end to the second.
const FIRST_ID: u32 = 1 << 17;

struct BothWays;

impl BothWays {
    fn ring(attachment: &Attachment, body: &Extent, is_first: bool) -> Option<Ring> {
        let start = body.offset + HEADER;
        let own = attachment.pointer::<ConnectionBody>(start, "connection").ok()?;
        let offset = if is_first { fetch!(own, first) } else { fetch!(own, second) };
        if offset == 0 {
            return None;
        }
        Ring::at(attachment, start.checked_add(offset)?, body.offset + body.len).ok()
    }
}

impl Rings for BothWays {
    fn rings(attachment: &Attachment, body: &Extent) -> Vec<Ring> {
        [false, true].into_iter().filter_map(|is_first| BothWays::ring(attachment, body, is_first)).collect()
    }

    fn block(attachment: &Attachment, body: &Extent, id: u32) -> Option<(Ring, u32)> {
        let ring = BothWays::ring(attachment, body, id >= FIRST_ID)?;
        let index = id % FIRST_ID;
        (index < ring.blocks()).then_some((ring, index))
    }
}

/// One end of a connection: Python's `Connection`, what `Pipe()` gives.
///
/// Messages have any size and are whole: serde values ([`Connection::send`]) or bytes ([`Connection::send_bytes`]). Several
/// processes and threads may hold the same end (clone it, send it, give it to a process); each message is received by one of
/// them, and those of one sender arrive in order.
///
/// # Crash behaviour
/// When every holder of the other end has dropped it or is dead, what was sent is still received, then comes the end of
/// file; sending is a broken pipe. A message is seen whole or not at all. A receiver that is killed while it takes a
/// message leaves it to the other holders of its end.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let (here, there) = shmkit::pipe(true)?;
/// here.send(&("add", 2, 3))?;
/// let (what, left, right): (String, i32, i32) = there.recv()?;
/// assert_eq!(what, "add");
/// there.send(&(left + right))?;
/// assert_eq!(here.recv::<i32>()?, 5);
/// drop(there);
/// assert!(here.recv::<i32>().is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Connection {
    object: Object,
    sends: Option<Port>,
    receives: Option<Port>,
}

/// What a connection is made of.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionOptions {
    duplex: bool,
}

/// Where its parts lie, from the start of the struct.
struct Plan {
    spec: Spec,
    second: u64,
    first: u64,
    payload: u64,
    end: u64,
}

impl Plan {
    fn new(options: &ConnectionOptions) -> Result<Plan> {
        let spec = Spec::new(CAPACITY, LOANS, (HEAD + INLINE) as u64, true, false)?;
        let rings = if options.duplex { 2 } else { 1 };
        let second = 128;
        let payload = second + rings * spec.control();
        let first = if options.duplex { second + spec.control() } else { 0 };
        Ok(Plan { spec, second, first, payload, end: payload + rings * spec.payload() })
    }
}

impl Shared for Connection {
    type Options = ConnectionOptions;

    fn kind() -> u32 {
        KIND_CONNECTION
    }
    fn role() -> u32 {
        ROLE_FIRST
    }
    fn size(options: &ConnectionOptions) -> Result<u64> {
        Ok(Plan::new(options)?.end)
    }
    fn zeroed(options: &ConnectionOptions) -> u64 {
        Plan::new(options).map_or(u64::MAX, |plan| plan.payload)
    }
    fn build(options: &ConnectionOptions, start: *mut u8, id: BodyId) -> Result<()> {
        let plan = Plan::new(options)?;
        let body = start.cast::<ConnectionBody>();
        // SAFETY: a body starts 128 bytes after a multiple of 256, has `plan.end` bytes, of which those before the payloads
        // are zero, and nobody else reaches it yet.
        unsafe {
            (&raw mut (*body).first).write(plan.first);
            (&raw mut (*body).second).write(plan.second);
            (&raw mut (*body).duplex).write(u32::from(options.duplex));
            plan.spec.build(start.wrapping_add(plan.second as usize), plan.payload - plan.second, id.generation);
            if options.duplex {
                let payload = plan.payload + plan.spec.payload();
                plan.spec.build(start.wrapping_add(plan.first as usize), payload - plan.first, id.generation);
            }
        }
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let body = object.body::<ConnectionBody>()?;
        let (first, second, duplex) = (fetch!(body, first), fetch!(body, second), fetch!(body, duplex));
        let role = object.reference.role;
        let peer = match role {
            ROLE_FIRST => ROLE_SECOND,
            ROLE_SECOND => ROLE_FIRST,
            _ => return Err(corrupt("role at a connection", object.offset(), u64::from(role))),
        };
        if duplex > 1 || (duplex == 1) != (first != 0) || second == 0 {
            return Err(corrupt("connection", object.offset(), first));
        }
        let port = |at: u64, first_id: u32| -> Result<Option<Port>> {
            if at == 0 {
                return Ok(None);
            }
            let wrong = || corrupt("connection", object.offset(), at);
            let start = object.offset().checked_add(at).ok_or_else(wrong)?;
            let ring = Ring::at(object.attachment(), start, object.end())?;
            if !ring.has_extents() || ring.blocks() > FIRST_ID {
                return Err(wrong());
            }
            Ok(Some(Port {
                object: object.clone(),
                ring,
                first_id,
                peers: Some(Peers { role: peer, had: 0 }),
                what: "connection",
            }))
        };
        let (first, second) = (port(first, FIRST_ID)?, port(second, 0)?);
        let (sends, receives) = if role == ROLE_FIRST { (first, second) } else { (second, first) };
        Ok(Connection { object, sends, receives })
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

handle_as_value!(Connection);

/// Two connected ends in the session segment. With `duplex` both send and receive; without it, the first only receives and
/// the second only sends, as in Python.
///
/// # Errors
/// `OutOfMemory`, `TooManyObjects`.
pub fn pipe(duplex: bool) -> Result<(Connection, Connection)> {
    pipe_in(&session()?, duplex)
}

/// Two connected ends in `segment`.
///
/// # Errors
/// As [`pipe`].
pub fn pipe_in(segment: &Segment, duplex: bool) -> Result<(Connection, Connection)> {
    let first: Connection = create(segment, None, &ConnectionOptions { duplex }, false)?;
    let second = Connection::attach(first.object.in_role(ROLE_SECOND)?)?;
    Ok((first, second))
}

impl Connection {
    fn sender(&self) -> Result<&Port> {
        let port = self.sends.as_ref().ok_or(ChannelError::WrongDirection { can: "receive" })?;
        port.check_open()?;
        Ok(port)
    }

    pub(super) fn receiver(&self) -> Result<&Port> {
        Ok(self.receives.as_ref().ok_or(ChannelError::WrongDirection { can: "send" })?)
    }

    /// Whether this end can send.
    pub fn writable(&self) -> bool {
        self.sends.is_some()
    }

    /// Whether this end can receive.
    pub fn readable(&self) -> bool {
        self.receives.is_some()
    }

    /// Whether nobody holds the other end any more: there is nothing to receive but what was sent already.
    pub fn is_broken(&self) -> bool {
        self.sends.as_ref().or(self.receives.as_ref()).is_some_and(Port::is_deserted)
    }

    /// Who holds the other end. Nobody at this instant if it is under way in a message.
    pub fn peers(&self) -> Vec<Peer> {
        let peer = if self.object.reference.role == ROLE_FIRST { ROLE_SECOND } else { ROLE_FIRST };
        self.object.reference.peers(peer)
    }

    /// The next message, or `EndOfFile` as soon as `is_over` says that none will come.
    pub(super) fn recv_unless<T: DeserializeOwned>(&self, patience: Patience, is_over: impl Fn() -> bool) -> Result<T> {
        let port = self.receiver()?;
        port.receive(port.take_unless(patience, || port.is_deserted() || is_over())?)
    }

    /// Drops this handle. The end is closed when nobody holds it any more, in any process.
    pub fn close(self) {}

    // ---- sending ------------------------------------------------------------------------------------------------------

    /// Sends a value, waiting while 64 messages are under way.
    ///
    /// # Errors
    /// `BrokenPipe` when nobody holds the other end; `WrongDirection`; `Codec` if the value cannot be serialised;
    /// `OutOfMemory`, `TooLarge` for a long message.
    pub fn send<T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        self.sender()?.put(value, Patience::ENDLESS)
    }

    /// Sends a value if there is room at once.
    ///
    /// # Errors
    /// `Full`, and as [`Connection::send`].
    pub fn try_send<T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        self.sender()?.put(value, Patience::None)
    }

    /// Sends a value, waiting at most for `timeout` while 64 messages are under way.
    ///
    /// # Errors
    /// `Full` when the time is up, and as [`Connection::send`].
    pub fn send_timeout<T: Serialize + ?Sized>(&self, value: &T, timeout: Duration) -> Result<()> {
        self.sender()?.put(value, Patience::timeout(timeout))
    }

    /// Sends bytes as one message, waiting while 64 messages are under way.
    ///
    /// # Errors
    /// As [`Connection::send`].
    pub fn send_bytes(&self, bytes: &[u8]) -> Result<()> {
        let port = self.sender()?;
        port.expect_room(Patience::ENDLESS)?;
        let written = port.write_bytes(port.claim(Patience::ENDLESS)?, bytes)?;
        port.enqueue(written.claimed, Patience::ENDLESS).inspect_err(|_| port.abandon(written))
    }

    // ---- receiving ----------------------------------------------------------------------------------------------------

    /// The next message as a value, waiting while there is none.
    ///
    /// # Errors
    /// `EndOfFile` when nothing is left and nobody holds the other end; `WrongDirection`; `Codec` if the message is no `T`: it is
    /// gone then.
    pub fn recv<T: DeserializeOwned>(&self) -> Result<T> {
        let port = self.receiver()?;
        port.receive(port.take(Patience::ENDLESS)?)
    }

    /// The next message as a value if there is one at once.
    ///
    /// # Errors
    /// `Empty`, and as [`Connection::recv`].
    pub fn try_recv<T: DeserializeOwned>(&self) -> Result<T> {
        let port = self.receiver()?;
        port.receive(port.take(Patience::None)?)
    }

    /// The next message as a value, waiting at most for `timeout`.
    ///
    /// # Errors
    /// `Empty` when the time is up, and as [`Connection::recv`].
    pub fn recv_timeout<T: DeserializeOwned>(&self, timeout: Duration) -> Result<T> {
        let port = self.receiver()?;
        port.receive(port.take(Patience::timeout(timeout))?)
    }

    /// The bytes of the next message, waiting while there is none.
    ///
    /// # Errors
    /// `EndOfFile`, `WrongDirection`.
    pub fn recv_bytes(&self) -> Result<Vec<u8>> {
        let port = self.receiver()?;
        port.receive_bytes(port.take(Patience::ENDLESS)?)
    }

    /// The bytes of the next message, of which there may be at most `maximum`.
    ///
    /// # Errors
    /// `TooLong`, with the message in it, if there are more; and as [`Connection::recv_bytes`].
    pub fn recv_bytes_max(&self, maximum: usize) -> Result<Vec<u8>> {
        let message = self.recv_bytes()?;
        if message.len() <= maximum { Ok(message) } else { Err(ChannelError::TooLong { message, maximum }.into()) }
    }

    /// The bytes of the next message, into `buffer`. Gives how many there are.
    ///
    /// # Errors
    /// `TooLong`, with the message in it, if they do not fit; and as [`Connection::recv_bytes`].
    pub fn recv_bytes_into(&self, buffer: &mut [u8]) -> Result<usize> {
        let port = self.receiver()?;
        port.receive_bytes_into(port.take(Patience::ENDLESS)?, buffer)
    }

    /// Waits at most for `timeout` until [`Connection::recv`] would not wait: because there is a message, or the end of file.
    /// Another holder of this end may take the message first.
    ///
    /// # Errors
    /// `WrongDirection`.
    pub fn poll(&self, timeout: Duration) -> Result<bool> {
        self.receiver()?.poll(Patience::timeout(timeout))
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = if self.object.reference.role == ROLE_FIRST { "first" } else { "second" };
        write!(f, "Connection({end} end)")
    }
}
