//! [`Queue`]: values of any serde type and any size.

use super::ends::{Consumer, Producer};
use super::family::{gets, puts, tells};
use super::message::{HEAD, Written};
use super::pod::OneRing;
use super::port::{Patience, Port};
use super::recovery;
use super::ring::{Claimed, Ring};
use super::spec::Spec;
use crate::error::{ChannelError, Error, Result};
use crate::kinds::Kind;
use crate::segment::object::{BodyId, Object, Shared, create, handle_as_value, open};
use crate::segment::{At, Segment, session};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shmkit_layouts::kinds::KIND_QUEUE;
use shmkit_layouts::objects::{ROLE_FIRST, ROLE_SECOND};
use std::marker::PhantomData;
use std::time::Duration;

/// What recovery does with queues.
pub(crate) const KIND: Kind = recovery::kind::<OneRing>(KIND_QUEUE);

/// Messages a queue holds unless told otherwise.
pub(super) const DEFAULT_CAPACITY: usize = 1024;
/// Messages a queue without bounds holds: its ring has 2^17 slots.
const UNBOUNDED: usize = (1 << 17) - 1;
/// Bytes of a message that lie in its block, unless told otherwise, where the type says nothing of its messages' length.
const DEFAULT_INLINE: usize = 256 - HEAD;

/// Bytes of a message of `T` that lie in its block unless told otherwise. A number alone takes 8 bytes. Another small type without
/// a destructor holds no text and no list: what postcard makes of its numbers is at most a quarter longer than they are.
fn default_inline<T>() -> usize {
    let size = size_of::<T>();
    if std::mem::needs_drop::<T>() || size == 0 || size > DEFAULT_INLINE / 2 {
        return DEFAULT_INLINE;
    }
    // The name is a hint: a message that is longer than was thought goes to the heap.
    match std::any::type_name::<T>() {
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" | "f32" | "f64" | "bool" => 8,
        _ => (size + size / 4 + 1).max(8),
    }
}

/// Blocks beside the capacity: for messages that are being written or read at this moment.
const LOANS: u32 = 64;

/// A bounded queue of values: Python's `Queue`, without its feeder thread and its pipe.
///
/// Any number of producers and consumers, in any process. A message has any size; short ones lie in the queue's own blocks,
/// long ones in the segment's heap. Messages of one producer arrive in order; each is received once. Handles of shmkit's
/// objects can be (part of) messages. A handle itself: cloning it is cheap.
///
/// Plain numbers, truth values, text and byte strings can be read by programs in other languages; values of other types
/// by Rust programs that mean the same type.
///
/// # Crash behaviour
/// What a killed producer has put arrives, also if it died in the middle of `put` after the commit; nothing of an unfinished
/// `put` is seen or leaks. What a killed consumer was just taking is delivered to another one, and
/// [`Message::redelivered`] says so; with `at_most_once` it is dropped instead. Nobody waits for the dead. See the tables
/// in the source of `channel/recovery.rs`.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let jobs = shmkit::Queue::<(String, u32)>::bounded(16)?;
/// jobs.put(("resize".to_owned(), 640))?;
/// jobs.put(("crop".to_owned(), 480))?;
/// jobs.close();
/// let all = jobs.iter().collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(all[1], ("crop".to_owned(), 480));
/// # Ok(())
/// # }
/// ```
pub struct Queue<T> {
    pub(super) port: Port,
    _messages: PhantomData<fn(T) -> T>,
}

/// What a [`Queue`] is made of.
#[derive(Debug, Clone, Copy)]
pub struct QueueOptions {
    pub(super) capacity: usize,
    pub(super) inline: usize,
    /// Blocks beside the capacity.
    pub(super) loans: u32,
    pub(super) at_most_once: bool,
    /// Whether payloads are taken from the heap when they are needed.
    pub(super) grows: bool,
}

impl QueueOptions {
    pub(super) fn new<T>(capacity: usize) -> QueueOptions {
        QueueOptions { capacity, inline: default_inline::<T>(), loans: LOANS, at_most_once: false, grows: false }
    }

    fn spec(&self) -> Result<Spec> {
        let size = self.inline.saturating_add(HEAD);
        let stride = size.checked_next_multiple_of(if size <= 64 { 8 } else { 64 }).unwrap_or(usize::MAX);
        let capacity = u32::try_from(self.capacity).unwrap_or(u32::MAX);
        let spec = Spec::new(capacity, self.loans, stride as u64, true, self.at_most_once)?;
        Ok(if self.grows { spec.growing() } else { spec })
    }

    /// Bytes of the body.
    pub(super) fn size(&self) -> Result<u64> {
        let spec = self.spec()?;
        Ok(spec.control() + spec.payload())
    }

    /// Bytes of it that are to be zero.
    pub(super) fn zeroed(&self) -> u64 {
        self.spec().map_or(u64::MAX, |spec| spec.control())
    }

    /// Builds the body.
    pub(super) fn build(&self, start: *mut u8, id: BodyId) -> Result<()> {
        let spec = self.spec()?;
        // SAFETY: a body starts 128 bytes after a multiple of 256; its first `control` bytes are zero.
        unsafe { spec.build(start, spec.control(), id.generation) };
        Ok(())
    }
}

/// The port of a queue of serialised messages.
pub(super) fn port_of(object: Object) -> Result<Port> {
    let ring = Ring::at(object.attachment(), object.offset(), object.end())?;
    if !ring.has_extents() {
        return Err(ring.corrupt("queue without extents", 0));
    }
    Ok(Port { object, ring, first_id: 0, peers: None, what: "queue" })
}

impl<T> Shared for Queue<T> {
    type Options = QueueOptions;

    fn kind() -> u32 {
        KIND_QUEUE
    }
    fn label() -> Option<&'static str> {
        Some(std::any::type_name::<T>())
    }
    fn size(options: &QueueOptions) -> Result<u64> {
        options.size()
    }
    fn zeroed(options: &QueueOptions) -> u64 {
        options.zeroed()
    }
    fn build(options: &QueueOptions, start: *mut u8, id: BodyId) -> Result<()> {
        options.build(start, id)
    }
    fn attach(object: Object) -> Result<Self> {
        Ok(Queue { port: port_of(object)?, _messages: PhantomData })
    }
    fn object(&self) -> &Object {
        &self.port.object
    }
}

handle_as_value!(Queue<T>);

/// A message and what is known of its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<T> {
    /// What was put.
    pub value: T,
    /// How often it was delivered before, to consumers that died taking it. Such a message may have been acted upon.
    pub redelivered: u32,
}

impl<T> Queue<T> {
    /// A new one in the session segment, for 1024 messages.
    ///
    /// # Errors
    /// `OutOfMemory`, `TooManyObjects`.
    pub fn new() -> Result<Queue<T>> {
        Queue::bounded(DEFAULT_CAPACITY)
    }

    /// A new one in `segment`, for 1024 messages.
    ///
    /// # Errors
    /// As [`Queue::new`].
    pub fn new_in(segment: &Segment) -> Result<Queue<T>> {
        Queue::bounded_in(segment, DEFAULT_CAPACITY)
    }

    /// A new one in the session segment, for `capacity` messages.
    ///
    /// # Errors
    /// `InvalidSize` for a capacity of 0 or more than 2^18; `OutOfMemory`; `TooManyObjects`.
    pub fn bounded(capacity: usize) -> Result<Queue<T>> {
        Queue::bounded_in(&session()?, capacity)
    }

    /// A new one in `segment`, for `capacity` messages.
    ///
    /// # Errors
    /// As [`Queue::bounded`].
    pub fn bounded_in(segment: &Segment, capacity: usize) -> Result<Queue<T>> {
        create(segment, None, &QueueOptions::new::<T>(capacity), false)
    }

    /// A new one in the session segment that grows as it is filled, up to 131,071 messages: Python's `Queue()`.
    ///
    /// It takes 3 MiB at once, and memory for its messages as they come, which it keeps until it is gone. Putting waits only
    /// at that limit.
    ///
    /// # Errors
    /// `OutOfMemory`, `TooManyObjects`.
    pub fn unbounded() -> Result<Queue<T>> {
        Queue::unbounded_in(&session()?)
    }

    /// A new one in `segment` that grows as it is filled: see [`Queue::unbounded`].
    ///
    /// # Errors
    /// As [`Queue::unbounded`].
    pub fn unbounded_in(segment: &Segment) -> Result<Queue<T>> {
        create(segment, None, &QueueOptions { grows: true, ..QueueOptions::new::<T>(UNBOUNDED) }, false)
    }

    /// A handle that can only put. When every [`Queue`] and every producer is dropped or dead, the queue is at its end for those
    /// who get with a [`Consumer`].
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn producer(&self) -> Result<Producer<T>> {
        Producer::attach(self.port.object.in_role(ROLE_FIRST)?)
    }

    /// A handle that can only get, and that is told when nobody is left who could put.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn consumer(&self) -> Result<Consumer<T>> {
        Consumer::attach(self.port.object.in_role(ROLE_SECOND)?)
    }
}

tells!(Queue "Queue");
puts!(Queue);
gets!(Queue);

/// Messages that are written and not yet put. Their blocks are this process's: they must be sent or dropped.
#[derive(Default)]
pub(crate) struct Outbox {
    pending: Vec<Written>,
}

impl Outbox {
    /// Number of messages.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }
}

/// For those who build on a queue of messages whose types differ.
impl<T> Queue<T> {
    /// Writes a message for [`Queue::send`], if there is a block for it at once.
    pub(crate) fn write<U: Serialize>(&self, outbox: &mut Outbox, value: &U) -> Result<()> {
        outbox.pending.push(self.port.write(self.port.claim(Patience::None)?, value)?);
        Ok(())
    }

    /// Puts what is in the outbox, in one batch if there is room at once; else waits, at most for `timeout`. What could not be
    /// put stays in it.
    pub(crate) fn send(&self, outbox: &mut Outbox, timeout: Option<Duration>) -> Result<()> {
        let patience = timeout.map_or(Patience::ENDLESS, Patience::timeout);
        let pending = &mut outbox.pending;
        while !pending.is_empty() {
            let claimed: Vec<_> = pending.iter().map(|written| written.claimed).collect();
            let done = self.port.enqueue_many(&claimed, patience)?;
            pending.drain(..done);
        }
        Ok(())
    }

    /// Gives the blocks of an outbox back.
    pub(crate) fn discard(&self, outbox: &mut Outbox) {
        outbox.pending.drain(..).for_each(|written| self.port.abandon(written));
    }

    /// Gives the bytes of the next message to `read`, which runs while the message is still this process's: if it dies in there,
    /// the message is delivered again. `None` when there is nothing left and `is_over` says that one need not wait.
    pub(crate) fn read_with<R>(&self, is_over: impl Fn() -> bool, read: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        match self.port.take_unless(Patience::ENDLESS, is_over) {
            Ok(claimed) => self.port.receive_with(claimed, true, |_, bytes| Ok(read(bytes))).map(Some),
            Err(Error::Channel(ChannelError::EndOfFile)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives the bytes of the messages that are there, up to `most`, to `read`. Waits for the first one at most for `timeout`, and
    /// no longer than `is_over` allows. Gives how many there were.
    pub(crate) fn read_many(
        &self,
        most: usize,
        timeout: Option<Duration>,
        is_over: impl Fn() -> bool,
        mut read: impl FnMut(&[u8]),
    ) -> Result<usize> {
        let patience = timeout.map_or(Patience::ENDLESS, Patience::timeout);
        let taken = match self.port.take_many_unless(most, patience, is_over) {
            Ok(taken) => taken,
            Err(Error::Channel(ChannelError::EndOfFile | ChannelError::Empty { .. })) => return Ok(0),
            Err(error) => return Err(error),
        };
        for &claimed in &taken {
            // One that cannot be is thrown away, and the others are read.
            let _ = self.port.receive_with(claimed, true, |_, bytes| {
                read(bytes);
                Ok(())
            });
        }
        Ok(taken.len())
    }

    /// Lets everybody who waits for a message look at what `is_over` says.
    pub(crate) fn wake(&self) {
        crate::segment::wait::publish_all(self.port.ring.not_empty());
    }
}

impl<T: DeserializeOwned> Queue<T> {
    fn receive(&self, claimed: Claimed) -> Result<T> {
        self.port.receive(claimed)
    }
}

impl Segment {
    /// The queue `name` of serde values; 1024 messages unless told otherwise.
    pub fn queue<'a, T>(&'a self, name: &'a str) -> At<'a, Queue<T>> {
        At { segment: self, name, options: QueueOptions::new::<T>(DEFAULT_CAPACITY) }
    }
}

impl<T> At<'_, Queue<T>> {
    /// Opens it as a producer: see [`Queue::producer`].
    ///
    /// # Errors
    /// As [`At::open`].
    pub fn open_producer(self) -> Result<Producer<T>> {
        open(self.segment, self.name)
    }

    /// Opens it as a consumer: see [`Queue::consumer`]. Before the first producer has come, it waits for one.
    ///
    /// # Errors
    /// As [`At::open`].
    pub fn open_consumer(self) -> Result<Consumer<T>> {
        open(self.segment, self.name)
    }

    /// How many messages it can hold.
    #[must_use]
    pub fn capacity(mut self, messages: usize) -> Self {
        self.options.capacity = messages;
        self
    }

    /// Lets it grow as it is filled, up to `limit` messages, of which there can be some 2^18: 24 bytes of each are taken at once,
    /// the rest as they come.
    #[must_use]
    pub fn unbounded(mut self, limit: usize) -> Self {
        self.options.capacity = limit;
        self.options.grows = true;
        self
    }

    /// Bytes of a message up to which it lies in the queue's own memory. Longer ones cost an allocation in the segment's heap.
    /// Unless told otherwise it is 240; for a small type that holds no text and no list, the most that it takes.
    #[must_use]
    pub fn inline(mut self, bytes: usize) -> Self {
        self.options.inline = bytes;
        self
    }

    /// Drops what a dead consumer was taking, instead of delivering it again.
    #[must_use]
    pub fn at_most_once(mut self) -> Self {
        self.options.at_most_once = true;
        self
    }
}
