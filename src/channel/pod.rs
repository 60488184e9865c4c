//! [`PodQueue`]: elements that are written and read where they lie.

use super::loan::{Loan, Received};
use super::port::{Patience, Port};
use super::recovery::{self, Rings};
use super::ring::{Claimed, Ring};
use super::spec::{PAYLOAD_ALIGN, Spec};
use crate::element::Element;
use crate::error::{ChannelError, Error, Result};
use crate::kinds::Kind;
use crate::segment::object::{BodyId, ElementType, HEADER, Object, Shared, create, handle_as_value};
use crate::segment::{At, Attachment, Extent, Segment, session};
use shmkit_layouts::kinds::KIND_POD_QUEUE;
use std::marker::PhantomData;
use std::time::Duration;

/// What recovery does with the queues that consist of one ring.
pub(crate) const KIND: Kind = recovery::kind::<OneRing>(KIND_POD_QUEUE);

/// An object whose body is one ring.
pub(super) struct OneRing;

impl Rings for OneRing {
    fn rings(attachment: &Attachment, body: &Extent) -> Vec<Ring> {
        Ring::at(attachment, body.offset + HEADER, body.offset + body.len).into_iter().collect()
    }

    fn block(attachment: &Attachment, body: &Extent, id: u32) -> Option<(Ring, u32)> {
        let ring = Ring::at(attachment, body.offset + HEADER, body.offset + body.len).ok()?;
        (id < ring.blocks()).then_some((ring, id))
    }
}

/// A bounded queue of plain-data elements that are never copied: the producer writes an element where the consumer will
/// read it.
///
/// Any number of producers and consumers, in any process. Elements of one producer arrive in order; each is received once.
/// A handle: cloning it is cheap.
///
/// # Crash behaviour
/// A killed producer's committed elements arrive; what it had on loan is free again. A killed consumer's element is
/// delivered to another one, and [`Received::redelivered`] says so; with `at_most_once` it is dropped instead. Nobody waits
/// for the dead.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let frames = shmkit::PodQueue::<[u8; 640]>::new(4)?;
/// let mut frame = frames.loan()?;
/// frame.fill(7);
/// frame.commit()?;
///
/// let frame = frames.recv()?;
/// assert_eq!(frame[639], 7);
/// # Ok(())
/// # }
/// ```
pub struct PodQueue<T: Element> {
    pub(super) port: Port,
    _elements: PhantomData<fn(T) -> T>,
}

/// What a [`PodQueue`] is made of.
#[derive(Debug, Clone, Copy)]
pub struct PodQueueOptions {
    capacity: usize,
    loans: Option<usize>,
    at_most_once: bool,
}

/// Bytes from one element to the next: dense, but no element lies across two cache lines without need.
fn stride<T>() -> u64 {
    let size = size_of::<T>().max(align_of::<T>()).max(8);
    (if size <= 64 { size.next_power_of_two() } else { size.next_multiple_of(64) }) as u64
}

fn spec<T>(options: &PodQueueOptions) -> Result<Spec> {
    const { assert!(align_of::<T>() as u64 <= PAYLOAD_ALIGN, "an element of a queue is aligned to at most 128 bytes") };
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let loans = options.loans.unwrap_or(options.capacity.clamp(2, 16));
    Spec::new(number(options.capacity), number(loans), stride::<T>(), false, options.at_most_once)
}

impl<T: Element> Shared for PodQueue<T> {
    type Options = PodQueueOptions;

    fn kind() -> u32 {
        KIND_POD_QUEUE
    }
    fn element() -> Option<ElementType> {
        Some(ElementType::of::<T>())
    }
    fn size(options: &PodQueueOptions) -> Result<u64> {
        let spec = spec::<T>(options)?;
        Ok(spec.control() + spec.payload())
    }
    fn zeroed(options: &PodQueueOptions) -> u64 {
        spec::<T>(options).map_or(u64::MAX, |spec| spec.control())
    }
    fn build(options: &PodQueueOptions, start: *mut u8, id: BodyId) -> Result<()> {
        let spec = spec::<T>(options)?;
        // SAFETY: a body starts 128 bytes after a multiple of 256; its first `control` bytes are zero.
        unsafe { spec.build(start, spec.control(), id.generation) };
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let ring = Ring::at(object.attachment(), object.offset(), object.end())?;
        if (ring.stride() as u64) < stride::<T>() {
            return Err(ring.corrupt("stride of a queue", ring.stride() as u64));
        }
        Ok(PodQueue { port: Port { object, ring, first_id: 0, peers: None, what: "queue" }, _elements: PhantomData })
    }
    fn object(&self) -> &Object {
        &self.port.object
    }
}

handle_as_value!(PodQueue<T: Element>);

impl<T: Element> PodQueue<T> {
    /// A new one in the session segment, for `capacity` elements.
    ///
    /// # Errors
    /// `InvalidSize` for a capacity of 0 or more than 2^18; `OutOfMemory`; `TooManyObjects`.
    pub fn new(capacity: usize) -> Result<PodQueue<T>> {
        PodQueue::new_in(&session()?, capacity)
    }

    /// A new one in `segment`, for `capacity` elements.
    ///
    /// # Errors
    /// As [`PodQueue::new`].
    pub fn new_in(segment: &Segment, capacity: usize) -> Result<PodQueue<T>> {
        create(segment, None, &PodQueueOptions { capacity, loans: None, at_most_once: false }, false)
    }

    // ---- producers ------------------------------------------------------------------------------------------------------

    fn loan_with(&self, patience: Patience) -> Result<Loan<'_, T>> {
        let owner = self.port.me()?;
        Ok(Loan::new(self, self.port.claim(patience)?, owner))
    }

    /// Borrows room for an element, waiting while every block is in use. It holds the bytes of some earlier element, or any.
    ///
    /// # Errors
    /// `Closed`.
    pub fn loan(&self) -> Result<Loan<'_, T>> {
        self.loan_with(Patience::ENDLESS)
    }

    /// Borrows room for an element if there is some at once.
    ///
    /// # Errors
    /// `Full`, `Closed`.
    pub fn try_loan(&self) -> Result<Loan<'_, T>> {
        self.loan_with(Patience::None)
    }

    /// Borrows room for an element, waiting at most for `timeout`.
    ///
    /// # Errors
    /// `Full` when the time is up; `Closed`.
    pub fn loan_timeout(&self, timeout: Duration) -> Result<Loan<'_, T>> {
        self.loan_with(Patience::timeout(timeout))
    }

    #[inline]
    fn put_with(&self, value: &T, patience: Patience) -> Result<()> {
        self.port.expect_room(patience)?;
        let claimed = self.port.claim(patience)?;
        // SAFETY: the block is this process's; its payload is aligned and as long as a `T`.
        unsafe { self.port.ring.payload(claimed.index).cast::<T>().write(*value) };
        failpoint!("queue.filled");
        self.port.enqueue(claimed, patience).inspect_err(|_| {
            self.port.ring.free(claimed);
        })
    }

    /// Puts a copy of `value` into the queue, waiting while it is full.
    ///
    /// # Errors
    /// `Closed`.
    #[inline]
    pub fn put(&self, value: T) -> Result<()> {
        self.put_with(&value, Patience::ENDLESS)
    }

    /// Puts a copy of `value` into the queue if there is room at once.
    ///
    /// # Errors
    /// `Full`, `Closed`.
    #[inline]
    pub fn try_put(&self, value: T) -> Result<()> {
        self.put_with(&value, Patience::None)
    }

    /// Puts a copy of `value` into the queue, waiting at most for `timeout`.
    ///
    /// # Errors
    /// `Full` when the time is up; `Closed`.
    pub fn put_timeout(&self, value: T, timeout: Duration) -> Result<()> {
        self.put_with(&value, Patience::timeout(timeout))
    }

    /// Puts all `values`, in order, waiting while the queue is full. Faster than one by one. They arrive in order, but others'
    /// may arrive between them.
    ///
    /// # Errors
    /// `Closed`; some of the values may have been put.
    pub fn put_many(&self, values: &[T]) -> Result<()> {
        let mut rest = values;
        while !rest.is_empty() {
            rest = &rest[self.put_some(rest, Patience::ENDLESS)?..];
        }
        Ok(())
    }

    /// Puts as many of `values`, in order, as there is room for at once. Gives how many.
    ///
    /// # Errors
    /// `Full` if there is no room at all; `Closed`.
    pub fn try_put_many(&self, values: &[T]) -> Result<usize> {
        if values.is_empty() { Ok(0) } else { self.put_some(values, Patience::None) }
    }

    /// Puts one to [`BATCH`] of `values`.
    fn put_some(&self, values: &[T], patience: Patience) -> Result<usize> {
        self.port.expect_room(patience)?;
        let (port, me) = (&self.port, self.port.me()?);
        let mut batch = [port.claim(patience)?; BATCH];
        let mut count = 1;
        while count < values.len().min(BATCH) {
            let Some(claimed) = port.ring.claim(me) else { break };
            batch[count] = claimed;
            count += 1;
        }
        for (claimed, value) in batch[..count].iter().zip(values) {
            // SAFETY: as in `put_with`.
            unsafe { port.ring.payload(claimed.index).cast::<T>().write(*value) };
        }
        failpoint!("queue.filled");
        // Nobody waits with more than one block in his hands.
        let mut outcome = port.enqueue_many(&batch[..count], Patience::None);
        if count > 1 && outcome.is_err() {
            port.free_all(&batch[1..count]);
            count = 1;
        }
        if let (Err(Error::Channel(ChannelError::Full { .. })), Patience::Until(_)) = (&outcome, patience) {
            outcome = port.enqueue(batch[0], patience).map(|()| 1);
        }
        port.free_all(&batch[outcome.as_ref().map_or(0, |&done| done)..count]);
        outcome
    }

    // ---- consumers ------------------------------------------------------------------------------------------------------

    #[inline]
    fn recv_with(&self, patience: Patience) -> Result<Received<'_, T>> {
        let owner = self.port.me()?;
        Ok(Received::new(self, self.port.take(patience)?, owner))
    }

    /// The next element, waiting while there is none. It is read where it lies, and its room goes back when it is dropped.
    ///
    /// # Errors
    /// `EndOfFile` when the queue is closed and empty; `ShutDown`.
    #[inline]
    pub fn recv(&self) -> Result<Received<'_, T>> {
        self.recv_with(Patience::ENDLESS)
    }

    /// The next element if there is one at once.
    ///
    /// # Errors
    /// `Empty`, `EndOfFile`.
    #[inline]
    pub fn try_recv(&self) -> Result<Received<'_, T>> {
        self.recv_with(Patience::None)
    }

    /// The next element, waiting at most for `timeout`.
    ///
    /// # Errors
    /// `Empty` when the time is up; `EndOfFile`.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Received<'_, T>> {
        self.recv_with(Patience::timeout(timeout))
    }

    /// A copy of the next element, waiting while there is none.
    ///
    /// # Errors
    /// As [`PodQueue::recv`].
    #[inline]
    pub fn get(&self) -> Result<T> {
        Ok(*self.recv()?)
    }

    /// A copy of the next element if there is one at once.
    ///
    /// # Errors
    /// As [`PodQueue::try_recv`].
    #[inline]
    pub fn try_get(&self) -> Result<T> {
        Ok(*self.try_recv()?)
    }

    /// A copy of the next element, waiting at most for `timeout`.
    ///
    /// # Errors
    /// As [`PodQueue::recv_timeout`].
    pub fn get_timeout(&self, timeout: Duration) -> Result<T> {
        Ok(*self.recv_timeout(timeout)?)
    }

    /// Copies of the next elements, up to `most`: those that are there, waiting only for the first. Faster than one by one.
    ///
    /// # Errors
    /// As [`PodQueue::recv`].
    pub fn get_many(&self, most: usize) -> Result<Vec<T>> {
        let taken = self.port.take_many(most, Patience::ENDLESS)?;
        let copy = |claimed: Claimed| {
            // SAFETY: the block is this process's; its payload is aligned, as long as a `T`, and any bytes are a `T`.
            let value = unsafe { self.port.ring.payload(claimed.index).cast::<T>().read() };
            self.port.ring.free(claimed);
            value
        };
        Ok(taken.into_iter().map(copy).collect())
    }

    /// The elements as they come, until the queue is closed and empty.
    pub fn iter(&self) -> impl Iterator<Item = Result<Received<'_, T>>> {
        std::iter::from_fn(move || match self.recv() {
            Err(Error::Channel(ChannelError::EndOfFile)) => None,
            received => Some(received),
        })
    }

    // ---- state ------------------------------------------------------------------------------------------------------------

    /// How many elements it can hold.
    pub fn capacity(&self) -> usize {
        self.port.ring.capacity()
    }

    /// How many elements are in it at this instant.
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

    /// Closes it for everybody. With `immediate` nothing more is got, either: what is in it is thrown away, and everybody who puts
    /// or gets, or waits to, is told `ShutDown`. Without, it is [`PodQueue::close`].
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn shutdown(&self, immediate: bool) -> Result<()> {
        self.port.shut_down(immediate)
    }

    /// Whether somebody has closed it.
    pub fn is_closed(&self) -> bool {
        self.port.ring.is_closed()
    }
}

/// The most blocks a batch claims at once.
const BATCH: usize = 32;

impl<T: Element> Clone for PodQueue<T> {
    fn clone(&self) -> Self {
        PodQueue { port: self.port.clone(), _elements: PhantomData }
    }
}

impl<T: Element> std::fmt::Debug for PodQueue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PodQueue<{}>({} of {})", T::NAME, self.len(), self.capacity())
    }
}

impl Segment {
    /// The queue `name` of plain-data elements that are not copied; 64 elements unless told otherwise.
    pub fn pod_queue<'a, T: Element>(&'a self, name: &'a str) -> At<'a, PodQueue<T>> {
        At { segment: self, name, options: PodQueueOptions { capacity: 64, loans: None, at_most_once: false } }
    }
}

impl<T: Element> At<'_, PodQueue<T>> {
    /// How many elements it can hold.
    #[must_use]
    pub fn capacity(mut self, elements: usize) -> Self {
        self.options.capacity = elements;
        self
    }

    /// How many elements may be on loan or received and not yet dropped, beside those that are in a full queue. As many as the
    /// capacity, at least 2 and at most 16, unless told otherwise.
    #[must_use]
    pub fn loans(mut self, loans: usize) -> Self {
        self.options.loans = Some(loans);
        self
    }

    /// Drops what a dead consumer held, instead of delivering it again.
    #[must_use]
    pub fn at_most_once(mut self) -> Self {
        self.options.at_most_once = true;
        self
    }
}
