//! [`Queue`]: values of any serde type and any size.

use super::message::{HEAD, Written};
use super::pod::OneRing;
use super::port::{Patience, Port};
use super::recovery;
use super::ring::Ring;
use super::spec::Spec;
use crate::error::{ChannelError, Error, Result};
use crate::kinds::Kind;
use crate::segment::object::{BodyId, Object, Shared, create, handle_as_value};
use crate::segment::{At, Segment, session};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shmkit_layouts::kinds::KIND_QUEUE;
use std::marker::PhantomData;
use std::time::Duration;

/// What recovery does with queues.
pub(crate) const KIND: Kind = recovery::kind::<OneRing>(KIND_QUEUE);

/// Messages a queue holds unless told otherwise.
const DEFAULT_CAPACITY: usize = 1024;
/// Bytes of a message that lie in its block, unless told otherwise, where the type says nothing of its messages' length.
const DEFAULT_INLINE: usize = 256 - HEAD;

/// Bytes of a message of `T` that lie in its block unless told otherwise. A small type without a destructor holds no text and no
/// list: what postcard makes of its numbers is at most a quarter longer than they are, and a number alone takes 8 bytes.
const fn default_inline<T>() -> usize {
    let size = size_of::<T>();
    if std::mem::needs_drop::<T>() || size == 0 || size > DEFAULT_INLINE / 2 {
        return DEFAULT_INLINE;
    }
    let most = size + size / 4 + 1;
    if most < 8 { 8 } else { most }
}

/// Blocks beside the capacity: for messages that are being written or read at this moment.
const LOANS: u32 = 64;
/// The most blocks a batch claims at once.
const BATCH: usize = 32;

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
    port: Port,
    _messages: PhantomData<fn(T) -> T>,
}

/// What a [`Queue`] is made of.
#[derive(Debug, Clone, Copy)]
pub struct QueueOptions {
    capacity: usize,
    inline: usize,
    at_most_once: bool,
}

impl QueueOptions {
    const fn new<T>(capacity: usize) -> QueueOptions {
        QueueOptions { capacity, inline: default_inline::<T>(), at_most_once: false }
    }

    fn spec(&self) -> Result<Spec> {
        let size = self.inline.saturating_add(HEAD);
        let stride = size.checked_next_multiple_of(if size <= 64 { 8 } else { 64 }).unwrap_or(usize::MAX);
        Spec::new(u32::try_from(self.capacity).unwrap_or(u32::MAX), LOANS, stride as u64, true, self.at_most_once)
    }
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
        let spec = options.spec()?;
        Ok(spec.control() + spec.payload())
    }
    fn zeroed(options: &QueueOptions) -> u64 {
        options.spec().map_or(u64::MAX, |spec| spec.control())
    }
    fn build(options: &QueueOptions, start: *mut u8, id: BodyId) -> Result<()> {
        let spec = options.spec()?;
        // SAFETY: a body starts 128 bytes after a multiple of 256; its first `control` bytes are zero.
        unsafe { spec.build(start, spec.control(), id.generation) };
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let ring = Ring::at(object.attachment(), object.offset(), object.end())?;
        if !ring.has_extents() {
            return Err(ring.corrupt("queue without extents", 0));
        }
        Ok(Queue { port: Port { object, ring, first_id: 0, peer: None, what: "queue" }, _messages: PhantomData })
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

    /// How many messages it can hold.
    pub fn capacity(&self) -> usize {
        self.port.ring.capacity()
    }

    /// How many messages are in it at this instant: Python's `qsize`.
    pub fn len(&self) -> usize {
        self.port.ring.len()
    }

    /// Whether there is nothing in it at this instant.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is full at this instant.
    pub fn is_full(&self) -> bool {
        !self.port.ring.has_room()
    }

    /// Closes it for everybody: nothing more is put; what is in it is still received, then comes the end.
    pub fn close(&self) {
        self.port.ring.close();
    }

    /// Whether somebody has closed it.
    pub fn is_closed(&self) -> bool {
        self.port.ring.is_closed()
    }
}

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
            Ok(claimed) => self.port.receive_with(claimed, true, |_, bytes| read(bytes)).map(Some),
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
            let _ = self.port.receive_with(claimed, true, |_, bytes| read(bytes));
        }
        Ok(taken.len())
    }

    /// Lets everybody who waits for a message look at what `is_over` says.
    pub(crate) fn wake(&self) {
        crate::segment::wait::publish_all(self.port.ring.not_empty());
    }
}

impl<T: Serialize> Queue<T> {
    fn put_with(&self, value: &T, patience: Patience) -> Result<()> {
        self.port.expect_room(patience)?;
        let written = self.port.write(self.port.claim(patience)?, value)?;
        self.port.enqueue(written.claimed, patience).inspect_err(|_| self.port.abandon(written))
    }

    /// Puts `value` into the queue, waiting while it is full.
    ///
    /// # Errors
    /// `Closed`; `Codec` if the value cannot be serialised; `OutOfMemory`, `TooLarge` for a long message.
    pub fn put(&self, value: T) -> Result<()> {
        self.put_with(&value, Patience::ENDLESS)
    }

    /// Puts `value` into the queue if there is room at once.
    ///
    /// # Errors
    /// `Full`, and as [`Queue::put`].
    pub fn try_put(&self, value: T) -> Result<()> {
        self.put_with(&value, Patience::None)
    }

    /// Puts `value` into the queue, waiting at most for `timeout`.
    ///
    /// # Errors
    /// `Full` when the time is up, and as [`Queue::put`].
    pub fn put_timeout(&self, value: T, timeout: Duration) -> Result<()> {
        self.put_with(&value, Patience::timeout(timeout))
    }

    /// As [`Queue::put`], of a value that the caller keeps.
    ///
    /// # Errors
    /// As [`Queue::put`].
    pub fn put_ref(&self, value: &T) -> Result<()> {
        self.put_with(value, Patience::ENDLESS)
    }

    /// As [`Queue::try_put`], of a value that the caller keeps.
    ///
    /// # Errors
    /// As [`Queue::try_put`].
    pub fn try_put_ref(&self, value: &T) -> Result<()> {
        self.put_with(value, Patience::None)
    }

    /// As [`Queue::put_timeout`], of a value that the caller keeps.
    ///
    /// # Errors
    /// As [`Queue::put_timeout`].
    pub fn put_ref_timeout(&self, value: &T, timeout: Duration) -> Result<()> {
        self.put_with(value, Patience::timeout(timeout))
    }

    /// Puts all `values`, in order, waiting while the queue is full. Faster than one by one. They arrive in order, but others'
    /// may arrive between them.
    ///
    /// # Errors
    /// As [`Queue::put`]; some of the values may have been put.
    pub fn put_many(&self, values: impl IntoIterator<Item = T>) -> Result<()> {
        let (port, me) = (&self.port, self.port.me()?);
        let mut pending: Vec<Written> = Vec::with_capacity(BATCH);
        for value in values {
            // Nobody waits for a block with others in his hands.
            let at_once = if pending.len() < BATCH { port.ring.claim(me) } else { None };
            let claimed = match at_once {
                Some(claimed) => claimed,
                None => {
                    self.flush(&mut pending)?;
                    port.claim(Patience::ENDLESS)?
                }
            };
            match port.write(claimed, &value) {
                Ok(written) => pending.push(written),
                Err(error) => {
                    self.flush(&mut pending)?;
                    return Err(error);
                }
            }
        }
        self.flush(&mut pending)
    }

    fn flush(&self, pending: &mut Vec<Written>) -> Result<()> {
        while !pending.is_empty() {
            let claimed: Vec<_> = pending.iter().map(|written| written.claimed).collect();
            match self.port.enqueue_many(&claimed, Patience::ENDLESS) {
                Ok(done) => drop(pending.drain(..done)),
                Err(error) => {
                    pending.drain(..).for_each(|written| self.port.abandon(written));
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

impl<T: DeserializeOwned> Queue<T> {
    fn get_with(&self, patience: Patience) -> Result<Message<T>> {
        let claimed = self.port.take(patience)?;
        Ok(Message { value: self.port.receive(claimed)?, redelivered: claimed.deliveries() })
    }

    /// The next message, waiting while there is none.
    ///
    /// # Errors
    /// `EndOfFile` when the queue is closed and empty; `Codec` if the message is no `T`: it is gone then.
    pub fn get(&self) -> Result<T> {
        Ok(self.get_with(Patience::ENDLESS)?.value)
    }

    /// The next message if there is one at once.
    ///
    /// # Errors
    /// `Empty`, and as [`Queue::get`].
    pub fn try_get(&self) -> Result<T> {
        Ok(self.get_with(Patience::None)?.value)
    }

    /// The next message, waiting at most for `timeout`.
    ///
    /// # Errors
    /// `Empty` when the time is up, and as [`Queue::get`].
    pub fn get_timeout(&self, timeout: Duration) -> Result<T> {
        Ok(self.get_with(Patience::timeout(timeout))?.value)
    }

    /// The next message and what is known of its way, waiting while there is none.
    ///
    /// # Errors
    /// As [`Queue::get`].
    pub fn get_message(&self) -> Result<Message<T>> {
        self.get_with(Patience::ENDLESS)
    }

    /// The next message and what is known of its way, waiting at most for `timeout`.
    ///
    /// # Errors
    /// As [`Queue::get_timeout`].
    pub fn get_message_timeout(&self, timeout: Duration) -> Result<Message<T>> {
        self.get_with(Patience::timeout(timeout))
    }

    /// The next messages, up to `most`: those that are there, waiting only for the first. Each has its own outcome, since each
    /// may be no `T`. Faster than one by one.
    ///
    /// # Errors
    /// `EndOfFile` when the queue is closed and empty.
    pub fn get_many(&self, most: usize) -> Result<Vec<Result<T>>> {
        let taken = self.port.take_many(most, Patience::ENDLESS)?;
        Ok(taken.into_iter().map(|claimed| self.port.receive(claimed)).collect())
    }

    /// The messages as they come, until the queue is closed and empty.
    pub fn iter(&self) -> impl Iterator<Item = Result<T>> {
        std::iter::from_fn(move || match self.get() {
            Err(Error::Channel(ChannelError::EndOfFile)) => None,
            got => Some(got),
        })
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Queue { port: self.port.clone(), _messages: PhantomData }
    }
}

impl<T> std::fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({} of {})", self.len(), self.capacity())
    }
}

impl Segment {
    /// The queue `name` of serde values; 1024 messages unless told otherwise.
    pub fn queue<'a, T>(&'a self, name: &'a str) -> At<'a, Queue<T>> {
        At { segment: self, name, options: QueueOptions::new::<T>(DEFAULT_CAPACITY) }
    }
}

impl<T> At<'_, Queue<T>> {
    /// How many messages it can hold.
    #[must_use]
    pub fn capacity(mut self, messages: usize) -> Self {
        self.options.capacity = messages;
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
