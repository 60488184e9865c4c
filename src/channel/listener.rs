//! [`Listener`] and [`Client`]: connections between processes that know nothing of each other but a name.
//!
//! ```text
//! body      ListenerBody { owner: token of who listens, or 0 } | ring of connections' second ends
//!
//! bind      create or open the object of that name; CAS owner: 0, or a dead one's token → mine
//! connect   owner lives; make a connection; put its second end into the ring; drop it here: the message keeps it alive
//! accept    take an end; the handshake (see `handshake`); it is the caller's
//! close     CAS owner: mine → 0; take and drop what is in the ring
//! ```
//! The object stays: who listens next takes over its name by one compare-and-swap, from whoever died or closed. A client
//! waits as long as that word names the one it has asked, and that one lives.
//!
//! # Crash behaviour
//!
//! | a listener is killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | before it is the owner | nobody listens | nobody needs to | nothing |
//! | when it is the owner | a dead owner: clients are refused, waiting ones at the end of a slice of their sleep, at most 1 s | the next who binds takes over | nothing |
//! | taking a request, or in the handshake | the end of file on its connection, or the request again in the ring | recovery | nothing: the client is refused |
//! | with accepted connections | their end of file | recovery voids its references | what it had not sent |
//! | closing, before the ring is empty | no owner; requests of clients that have gone | the next listener skips them | nothing |
//!
//! | a client is killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | before its request is in the ring | nothing | recovery destroys its connection | nothing |
//! | after that, before the handshake is over | the end of file, or a broken pipe, in `accept` | `accept` drops it and goes on to the next | nothing |
//! | after the handshake | a connection that ends | nobody needs to | nothing |

use super::connection::{Connection, pipe_in};
use super::handshake;
use super::port::{Patience, Port};
use super::recovery::{self, Rings};
use super::ring::Ring;
use super::spec::Spec;
use crate::error::{ChannelError, Error, Result, SegmentError, SyncError, corrupt};
use crate::kinds::Kind;
use crate::segment::object::{BodyId, HEADER, Object, Shared, create, open};
use crate::segment::wait::Deadline;
use crate::segment::wait_many::Wakeable;
use crate::segment::{Attachment, Extent, LifePolicy, Peer, Segment, atomic, fetch, locked};
use crate::sync::wait_any::{Source, Waits};
use shmkit_layouts::kinds::KIND_LISTENER;
use shmkit_layouts::objects::ListenerBody;
use shmkit_layouts::words::Token;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// What recovery does with listeners.
pub(crate) const KIND: Kind = recovery::kind::<Requests>(KIND_LISTENER);

/// Clients that may wait to be accepted, unless told otherwise.
const BACKLOG: usize = 64;
/// Blocks beside them.
const LOANS: u32 = 32;
/// Bytes of a request: a handle, and the name of a segment in it.
const STRIDE: u64 = 256;
/// Where the ring lies in the body.
const QUEUE: u64 = 128;
/// How long a client may take for its part of the handshake. One that is stopped in it must not keep others out.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often a client that waits for room looks whether the listener lives.
const LOOK: Duration = Duration::from_millis(100);

struct Requests;

impl Requests {
    fn ring(attachment: &Attachment, body: &Extent) -> Option<Ring> {
        let start = body.offset + HEADER;
        let own = attachment.pointer::<ListenerBody>(start, "listener").ok()?;
        Ring::at(attachment, start.checked_add(fetch!(own, queue))?, body.offset + body.len).ok()
    }
}

impl Rings for Requests {
    fn rings(attachment: &Attachment, body: &Extent) -> Vec<Ring> {
        Requests::ring(attachment, body).into_iter().collect()
    }

    fn block(attachment: &Attachment, body: &Extent, id: u32) -> Option<(Ring, u32)> {
        let ring = Requests::ring(attachment, body)?;
        (id < ring.blocks()).then_some((ring, id))
    }
}

/// The object in which listener and clients meet.
#[derive(Clone)]
struct Meeting {
    port: Port,
    body: *const ListenerBody,
}

// SAFETY: the pointer is into the mapping, which the port's object keeps; what it points to is reached as atomics.
unsafe impl Send for Meeting {}
// SAFETY: as above.
unsafe impl Sync for Meeting {}

fn spec(backlog: usize) -> Result<Spec> {
    Spec::new(u32::try_from(backlog).unwrap_or(u32::MAX), LOANS, STRIDE, true, false)
}

impl Shared for Meeting {
    /// The backlog.
    type Options = usize;

    fn kind() -> u32 {
        KIND_LISTENER
    }
    fn size(backlog: &usize) -> Result<u64> {
        let spec = spec(*backlog)?;
        Ok(QUEUE + spec.control() + spec.payload())
    }
    fn zeroed(backlog: &usize) -> u64 {
        spec(*backlog).map_or(u64::MAX, |spec| QUEUE + spec.control())
    }
    fn build(backlog: &usize, start: *mut u8, id: BodyId) -> Result<()> {
        let spec = spec(*backlog)?;
        // SAFETY: a body starts 128 bytes after a multiple of 256, is long enough, zero before the payloads, and nobody else
        // reaches it yet.
        unsafe {
            (&raw mut (*start.cast::<ListenerBody>()).queue).write(QUEUE);
            spec.build(start.wrapping_add(QUEUE as usize), spec.control(), id.generation);
        }
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let body = object.body::<ListenerBody>()?;
        let queue = fetch!(body, queue);
        let wrong = || corrupt("listener", object.offset(), queue);
        let start = object.offset().checked_add(queue).ok_or_else(wrong)?;
        let ring = Ring::at(object.attachment(), start, object.end())?;
        if !ring.has_extents() {
            return Err(wrong());
        }
        Ok(Meeting { port: Port { object, ring, first_id: 0, peers: None, what: "listener" }, body })
    }
    fn object(&self) -> &Object {
        &self.port.object
    }
}

impl Meeting {
    fn owner(&self) -> &AtomicU32 {
        atomic!(self.body, owner)
    }

    /// Whether the name is this process's, which claimed it by that token: not a child's that was forked off, and nobody has taken it.
    fn is_mine(&self, token: Token) -> bool {
        // Acquire pairs with the release of who has claimed it or given it up since.
        self.port.attachment().token_word().load(Ordering::Relaxed) == token.0
            && self.owner().load(Ordering::Acquire) == token.0
    }

    /// Who listens, if he lives.
    fn living_owner(&self) -> Option<Token> {
        // Acquire pairs with the release of the claim.
        let owner = Token(self.owner().load(Ordering::Acquire));
        (owner.0 != 0 && !self.port.attachment().is_dead(owner)).then_some(owner)
    }
}

/// Accepts connections under a name.
///
/// The name is that of a segment, which is created if need be and goes when its last user does; or of an object in a
/// segment of the caller's choice. Who may open the segment may connect; with an
/// [`authkey`](ListenerBuilder::authkey), only who knows it, and both sides prove that they do.
///
/// # Crash behaviour
/// A client that dies while it is accepted is skipped; one that is stopped for 10 s in that moment, too. When a listener
/// dies, clients that wait for it are refused, and the name is free for the next one. Accepted connections are as others.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// # let name = &format!("doc-listener-{}", std::process::id());
/// use shmkit::{Client, Listener};
///
/// let listener = Listener::builder(name).authkey("open sesame").bind()?;
/// # std::thread::scope(|scope| -> shmkit::Result<()> {
/// # scope.spawn(|| -> shmkit::Result<()> {
/// // In another process:
/// let connection = Client::builder(name).authkey("open sesame").connect()?;
/// connection.send("hello")?;
/// # Ok(()) });
/// let connection = listener.accept()?;
/// assert_eq!(connection.recv::<String>()?, "hello");
/// # Ok(()) })
/// # }
/// ```
pub struct Listener {
    meeting: Meeting,
    name: String,
    key: Option<Vec<u8>>,
    /// The token with which it has claimed the name.
    token: Token,
    closed: AtomicBool,
    last: Mutex<Option<Peer>>,
    /// The segment named like the listener, if it was not given.
    _segment: Segment,
}

/// How a [`Listener`] is made.
#[derive(Debug, Clone)]
#[must_use = "it listens only when it is bound"]
pub struct ListenerBuilder<'a> {
    name: &'a str,
    segment: Option<&'a Segment>,
    key: Option<Vec<u8>>,
    backlog: usize,
}

impl<'a> ListenerBuilder<'a> {
    /// The segment in which the name is. Unless it is given, it is the segment of that name.
    pub fn segment(mut self, segment: &'a Segment) -> Self {
        self.segment = Some(segment);
        self
    }

    /// What clients must know. An empty key is a key.
    pub fn authkey(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(key.as_ref().to_vec());
        self
    }

    /// How many clients may wait to be accepted: 64 unless told otherwise. Whoever has made the object has chosen.
    pub fn backlog(mut self, clients: usize) -> Self {
        self.backlog = clients;
        self
    }

    /// Begins to listen.
    ///
    /// # Errors
    /// `NameInUse` if somebody who lives listens under that name; `InvalidName`; `WrongKind`; `OutOfMemory`.
    pub fn bind(self) -> Result<Listener> {
        let segment = match self.segment {
            Some(segment) => segment.clone(),
            None => Segment::builder().policy(LifePolicy::OnLastDetach).open_or_create(self.name)?,
        };
        let meeting: Meeting = create(&segment, Some(self.name), &self.backlog, true)?;
        let token = meeting.port.attachment().token()?;
        loop {
            let seen = meeting.owner().load(Ordering::Acquire);
            if let Some(owner) = meeting.living_owner().filter(|owner| owner.0 == seen) {
                let pid = meeting.port.attachment().holder(owner).map_or(0, |holder| holder.pid);
                return Err(ChannelError::NameInUse { name: self.name.to_owned(), pid }.into());
            }
            failpoint!("listener.before_claim");
            // From a dead one straight to me: of two who bind at once, one gets it. Release pairs with `living_owner`.
            if meeting.owner().compare_exchange(seen, token.0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                break;
            }
        }
        failpoint!("listener.claimed");
        Ok(Listener {
            meeting,
            name: self.name.to_owned(),
            key: self.key,
            token,
            closed: AtomicBool::new(false),
            last: Mutex::new(None),
            _segment: segment,
        })
    }
}

impl Listener {
    /// Listens as `name`, in the segment of that name, without a key.
    ///
    /// # Errors
    /// As [`ListenerBuilder::bind`].
    pub fn bind(name: &str) -> Result<Listener> {
        Listener::builder(name).bind()
    }

    /// A listener as `name`, with more to choose.
    pub fn builder(name: &str) -> ListenerBuilder<'_> {
        ListenerBuilder { name, segment: None, key: None, backlog: BACKLOG }
    }

    /// The name it listens under.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn is_open(&self) -> bool {
        // Acquire pairs with the release in `close`.
        !self.closed.load(Ordering::Acquire) && self.meeting.is_mine(self.token)
    }

    /// The next connection, waiting while nobody connects.
    ///
    /// # Errors
    /// `Closed`; `Authentication` if a client has not the right key: the listener goes on.
    pub fn accept(&self) -> Result<Connection> {
        self.accept_with(Patience::ENDLESS).unwrap_or_else(|| Err(self.meeting.port.empty()))
    }

    /// The next connection, waiting at most for `timeout`.
    ///
    /// # Errors
    /// `TimedOut`, and as [`Listener::accept`].
    pub fn accept_timeout(&self, timeout: Duration) -> Result<Connection> {
        let timed_out = || SyncError::TimedOut { what: "client", waited: timeout, holder: None }.into();
        self.accept_with(Patience::timeout(timeout)).unwrap_or_else(|| Err(timed_out()))
    }

    /// `None` when the time is up.
    fn accept_with(&self, patience: Patience) -> Option<Result<Connection>> {
        let port = &self.meeting.port;
        let closed = || Some(Err(ChannelError::Closed { what: "listener" }.into()));
        loop {
            if !self.is_open() {
                return closed();
            }
            let claimed = match port.take_unless(patience, || !self.is_open()) {
                Ok(claimed) => claimed,
                Err(Error::Channel(ChannelError::Empty { .. })) => return None,
                Err(Error::Channel(ChannelError::EndOfFile)) => return closed(),
                Err(error) => return Some(Err(error)),
            };
            // One that is nothing, or not alive any more, is of a client that has gone.
            let Ok(connection) = port.receive::<Connection>(claimed) else { continue };
            failpoint!("listener.accepted");
            let peer = connection.peers().into_iter().next();
            let patience = Patience::Until(Deadline::after(HANDSHAKE));
            match handshake::welcome(&connection, self.key.as_deref(), patience) {
                Ok(()) => {
                    *locked(&self.last) = peer;
                    return Some(Ok(connection));
                }
                Err(Error::Channel(error @ ChannelError::Authentication { .. })) => return Some(Err(error.into())),
                Err(Error::Sync(error @ SyncError::Interrupted)) => return Some(Err(error.into())),
                Err(_) => {}
            }
        }
    }

    /// Who was accepted last.
    pub fn last_accepted(&self) -> Option<Peer> {
        locked(&self.last).clone()
    }

    /// Listens no more; clients that wait are refused. Also when it is dropped.
    pub fn close(&self) {
        let port = &self.meeting.port;
        let was_mine = self.meeting.is_mine(self.token);
        // Release pairs with the acquire in `is_open`.
        self.closed.store(true, Ordering::Release);
        if !was_mine
            || self.meeting.owner().compare_exchange(self.token.0, 0, Ordering::AcqRel, Ordering::Relaxed).is_err()
        {
            return;
        }
        failpoint!("listener.closed");
        // Their ends are dropped, and that wakes those who wait at the others. No more of them than there can be.
        for _ in 0..=2 * port.ring.blocks() {
            let Ok(claimed) = port.take(Patience::None) else { break };
            drop(port.receive::<Connection>(claimed));
        }
        // Who waits in `accept`.
        crate::segment::wait::publish_all(port.ring.not_empty());
    }
}

/// A listener as [`crate::sync::wait_any`] sees it.
struct Awaited {
    meeting: Meeting,
    token: Token,
}

impl Wakeable for Awaited {
    fn attachment(&self) -> &Attachment {
        self.meeting.port.attachment()
    }
    fn word(&self) -> &AtomicU32 {
        self.meeting.port.ring.not_empty()
    }
    fn is_ready(&self) -> Result<bool> {
        // `close` gives the name up, and wakes afterwards.
        Ok(self.meeting.port.is_readable() || !self.meeting.is_mine(self.token))
    }
}

impl Waits for Listener {
    fn source(&self) -> Result<Source<'_>> {
        Ok(Source::word(Awaited { meeting: self.meeting.clone(), token: self.token }))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({:?}, {} waiting)", self.name, self.meeting.port.ring.len())
    }
}

/// Connects to a [`Listener`].
#[derive(Debug)]
pub struct Client;

impl Client {
    /// A connection to who listens as `name`, in the segment of that name, without a key. It is there when it is accepted.
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub fn connect(name: &str) -> Result<Connection> {
        Client::builder(name).connect()
    }

    /// A connection to who listens as `name`, with more to choose.
    pub fn builder(name: &str) -> ClientBuilder<'_> {
        ClientBuilder { name, segment: None, key: None, timeout: None }
    }
}

/// How a [`Client`] connects.
#[derive(Debug, Clone)]
#[must_use = "it connects only when told to"]
pub struct ClientBuilder<'a> {
    name: &'a str,
    segment: Option<&'a Segment>,
    key: Option<Vec<u8>>,
    timeout: Option<Duration>,
}

impl<'a> ClientBuilder<'a> {
    /// The segment in which the name is. Unless it is given, it is the segment of that name.
    pub fn segment(mut self, segment: &'a Segment) -> Self {
        self.segment = Some(segment);
        self
    }

    /// What the listener must know, too. An empty key is a key.
    pub fn authkey(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(key.as_ref().to_vec());
        self
    }

    /// How long to wait at most until it is accepted.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Connects, waiting until the listener accepts.
    ///
    /// # Errors
    /// `Refused` if nobody listens, or who did has closed or died; `Authentication` if the keys differ, or one side has
    /// none; `TimedOut`, with who listens; `OutOfMemory`; `WrongKind`.
    pub fn connect(self) -> Result<Connection> {
        let refused = || ChannelError::Refused { name: self.name.to_owned() }.into();
        let found = match self.segment {
            Some(segment) => Ok(segment.clone()),
            None => Segment::open(self.name),
        };
        let found = found.and_then(|segment| Ok((open::<Meeting>(&segment, self.name)?, segment)));
        let (meeting, segment) = match found {
            Err(Error::Segment(SegmentError::NotFound { .. } | SegmentError::ObjectNotFound { .. })) => {
                return Err(refused());
            }
            found => found?,
        };
        let Some(owner) = meeting.living_owner() else { return Err(refused()) };
        let is_over = || meeting.living_owner() != Some(owner);
        let deadline = self.timeout.map_or(Deadline::NEVER, Deadline::after);
        let timed_out = || -> Error {
            let holder = meeting.port.attachment().holder(owner);
            SyncError::TimedOut { what: "listener", waited: deadline.waited(), holder }.into()
        };
        let (mine, theirs) = pipe_in(&segment, true)?;
        loop {
            let look = deadline.left().map_or(LOOK, |left| left.min(LOOK));
            match meeting.port.put(&theirs, Patience::timeout(look)) {
                Ok(()) => break,
                Err(Error::Channel(ChannelError::Full { .. })) if is_over() => return Err(refused()),
                Err(Error::Channel(ChannelError::Full { .. })) if deadline.is_over() => return Err(timed_out()),
                Err(Error::Channel(ChannelError::Full { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        drop(theirs);
        failpoint!("client.asked");
        match handshake::introduce(&mine, self.key.as_deref(), Patience::Until(deadline), is_over) {
            Ok(()) => Ok(mine),
            Err(Error::Channel(ChannelError::EndOfFile | ChannelError::BrokenPipe)) => Err(refused()),
            Err(Error::Channel(ChannelError::Empty { .. })) => Err(timed_out()),
            Err(error) => Err(error),
        }
    }
}
