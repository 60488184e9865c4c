//! The receiving end: single elements, batches, and references into the pipe.

use super::end::{End, Watch};
use super::{Claims, is_waited_on};
use crate::element::Element;
use crate::error::{ChannelError, Error, Result};
use crate::segment::atomic;
use crate::segment::wait::{self, Deadline};
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

/// The receiving end of a pipe: see [`crate::channel()`]. It can be sent to another thread, and, as an argument or in a message, to
/// another process; it belongs to one at a time.
///
/// Crash behaviour: see the table at the head of the module `channel::pipe` in the sources and in `docs/reliability.md`.
pub struct Receiver<T: Element> {
    pub(super) end: End<T, false>,
}

impl<T: Element> Claims for Receiver<T> {
    fn claim(&self) -> Result<()> {
        self.end.claim()
    }
}

impl<T: Element> Receiver<T> {
    /// Receives an element. Waits while there is none.
    ///
    /// A large element is copied less often by [`Receiver::recv_many`] with `std::slice::from_mut`, and not at all by
    /// [`Receiver::recv_ref`].
    ///
    /// # Errors
    /// `EndOfFile` if nothing is left and there was a sender and there is none any more, or if it closed its end. `EndTaken`,
    /// `Closed`, `Corrupt`.
    #[inline]
    pub fn recv(&self) -> Result<T> {
        if !self.is_ready() {
            self.wait_for_element(Deadline::NEVER)?;
        }
        Ok(self.take())
    }

    /// As [`Receiver::recv`], waiting at most for `timeout`.
    ///
    /// # Errors
    /// As [`Receiver::recv`], and `Empty`.
    #[inline]
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T> {
        if !self.is_ready() {
            self.wait_for_element(Deadline::after(timeout))?;
        }
        Ok(self.take())
    }

    /// As [`Receiver::recv`], if there is an element at once.
    ///
    /// # Errors
    /// As [`Receiver::recv`], and `Empty`.
    #[inline]
    pub fn try_recv(&self) -> Result<T> {
        if !self.is_ready() {
            self.find_element()?;
        }
        Ok(self.take())
    }

    /// Fills the front of `values` with what is there, and gives how many. Waits while there is none. They are acknowledged at
    /// once, with one wake-up.
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    pub fn recv_many(&self, values: &mut [T]) -> Result<usize> {
        if values.is_empty() {
            return Ok(0);
        }
        if !self.is_ready() {
            self.wait_for_element(Deadline::NEVER)?;
        }
        self.take_many(values)
    }

    /// As [`Receiver::recv_many`], if there is an element at once; 0 if there is none.
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    pub fn try_recv_many(&self, values: &mut [T]) -> Result<usize> {
        match self.find_element() {
            Ok(()) => self.take_many(values),
            Err(Error::Channel(ChannelError::Empty { .. })) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// The next element where it lies in the pipe, without a copy. Waits while there is none. It is acknowledged when the guard
    /// is dropped; if this process is killed before, or the guard is dropped by a panic, it is received again.
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    pub fn recv_ref(&mut self) -> Result<RecvRef<'_, T>> {
        if !self.is_ready() {
            self.wait_for_element(Deadline::NEVER)?;
        }
        Ok(self.hold())
    }

    /// As [`Receiver::recv_ref`], waiting at most for `timeout`.
    ///
    /// # Errors
    /// As [`Receiver::recv`], and `Empty`.
    pub fn recv_ref_timeout(&mut self, timeout: Duration) -> Result<RecvRef<'_, T>> {
        self.wait_for_element(Deadline::after(timeout))?;
        Ok(self.hold())
    }

    /// As [`Receiver::recv_ref`], if there is an element at once.
    ///
    /// # Errors
    /// As [`Receiver::recv`], and `Empty`.
    pub fn try_recv_ref(&mut self) -> Result<RecvRef<'_, T>> {
        self.find_element()?;
        Ok(self.hold())
    }

    fn hold(&mut self) -> RecvRef<'_, T> {
        failpoint!("pipe.held");
        let element = self.end.slot(self.end.mine.get());
        RecvRef { element, panicking: std::thread::panicking(), receiver: self }
    }

    /// Waits until there is something to receive, be it the end of the file, at most for `timeout`: false when the time is up.
    ///
    /// # Errors
    /// `EndTaken`, `Closed`, `Corrupt`.
    pub fn poll(&self, timeout: Duration) -> Result<bool> {
        if self.is_ready() {
            return Ok(true);
        }
        match self.wait_for_element(Deadline::after(timeout)) {
            Ok(()) | Err(Error::Channel(ChannelError::EndOfFile)) => Ok(true),
            Err(Error::Channel(ChannelError::Empty { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Elements that are sent and not yet received.
    ///
    /// # Errors
    /// `EndTaken`, `Closed`, `Corrupt`.
    pub fn len(&self) -> Result<usize> {
        self.end.claim()?;
        Ok(self.end.refresh()? as usize)
    }

    /// Whether there is nothing to receive at this instant.
    ///
    /// # Errors
    /// As [`Receiver::len`].
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Receives until the end of the file.
    pub fn iter(&self) -> Elements<'_, T> {
        Elements { receiver: self }
    }

    /// For those who wait for it with others.
    pub(in crate::channel) fn watch(&self) -> Watch {
        self.end.watch()
    }

    /// Closes the end for good: the sender gets `BrokenPipe`, and nobody can open it again.
    ///
    /// # Errors
    /// `EndTaken`, `Closed`, `Corrupt`.
    pub fn close(self) -> Result<()> {
        self.end.close()
    }

    /// Whether the end is this handle's, and an element is known to be there.
    #[inline]
    fn is_ready(&self) -> bool {
        self.end.is_claimed() && self.end.known() != 0
    }

    #[inline]
    fn take(&self) -> T {
        // SAFETY: inside the body and aligned (`attach`); any bytes are a T (`Pod`); between `head` and `tail` the receiver's
        // alone.
        let value = unsafe { self.end.slot(self.end.mine.get()).read() };
        self.acknowledge(1);
        value
    }

    fn take_many(&self, values: &mut [T]) -> Result<usize> {
        let known = self.end.known();
        let known = if values.len() as u64 > known { self.end.refresh()? } else { known };
        let count = known.min(values.len() as u64) as usize;
        if count == 0 {
            return Ok(0);
        }
        let first = self.end.mine.get();
        let straight = count.min((self.end.capacity() - (first & (self.end.capacity() - 1))) as usize);
        // SAFETY: as in `take`, for `count` elements, of which `straight` lie before the end of the ring.
        unsafe {
            self.end.slot(first).copy_to_nonoverlapping(values.as_mut_ptr(), straight);
            self.end.slot(0).copy_to_nonoverlapping(values.as_mut_ptr().add(straight), count - straight);
        }
        self.acknowledge(count as u64);
        Ok(count)
    }

    #[inline]
    fn acknowledge(&self, count: u64) {
        failpoint!("pipe.read");
        self.end.advance(count);
        failpoint!("pipe.acknowledged");
        wait::publish_all(atomic!(self.end.body, not_full));
    }

    /// Whether there is an element; looks at the other end if it has to.
    fn look(&self, closely: bool) -> Result<Option<()>> {
        if self.end.known() != 0 || self.end.refresh()? != 0 {
            return Ok(Some(()));
        }
        if closely && self.end.is_peer_gone() {
            // It may have sent between the two looks.
            if self.end.refresh()? != 0 {
                return Ok(Some(()));
            }
            return Err(ChannelError::EndOfFile.into());
        }
        Ok(None)
    }

    /// An element at once.
    fn find_element(&self) -> Result<()> {
        self.end.claim()?;
        match self.look(true)? {
            Some(()) => Ok(()),
            None => Err(ChannelError::Empty { what: "pipe" }.into()),
        }
    }

    #[cold]
    #[inline(never)]
    fn wait_for_element(&self, deadline: Deadline) -> Result<()> {
        self.end.claim()?;
        let event = atomic!(self.end.body, not_empty);
        let attempt = || self.look(is_waited_on(event));
        // Whoever publishes wakes all: those who watch for others, too. Nobody needs to pass it on.
        match wait::wait_while(self.end.object.attachment(), event, deadline, || false, attempt)? {
            Some(()) => Ok(()),
            None => self.find_element(),
        }
    }
}

/// An element where it lies in the pipe: [`Receiver::recv_ref`]. Acknowledged when dropped, unless by a panic.
pub struct RecvRef<'a, T: Element> {
    receiver: &'a mut Receiver<T>,
    element: *const T,
    /// Whether the thread was unwinding already when it was received.
    panicking: bool,
}

impl<T: Element> Deref for RecvRef<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: inside the body and aligned (`attach`); any bytes are a T (`Pod`); the receiver's alone until `head` goes up.
        unsafe { &*self.element }
    }
}

impl<T: Element> Drop for RecvRef<'_, T> {
    fn drop(&mut self) {
        // In a forked child the element is its parent's.
        if self.receiver.end.is_claimed() && std::thread::panicking() == self.panicking {
            self.receiver.acknowledge(1);
        }
    }
}

impl<T: Element + fmt::Debug> fmt::Debug for RecvRef<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Receives until the end of the file: [`Receiver::iter`].
#[derive(Debug)]
pub struct Elements<'a, T: Element> {
    receiver: &'a Receiver<T>,
}

impl<T: Element> Iterator for Elements<'_, T> {
    type Item = Result<T>;

    #[inline]
    fn next(&mut self) -> Option<Result<T>> {
        match self.receiver.recv() {
            Err(Error::Channel(ChannelError::EndOfFile)) => None,
            received => Some(received),
        }
    }
}

/// Receives until the end of the file, and owns the end.
#[derive(Debug)]
pub struct IntoElements<T: Element> {
    receiver: Receiver<T>,
}

impl<T: Element> Iterator for IntoElements<T> {
    type Item = Result<T>;

    #[inline]
    fn next(&mut self) -> Option<Result<T>> {
        self.receiver.iter().next()
    }
}

impl<T: Element> IntoIterator for Receiver<T> {
    type Item = Result<T>;
    type IntoIter = IntoElements<T>;

    fn into_iter(self) -> IntoElements<T> {
        IntoElements { receiver: self }
    }
}

impl<'a, T: Element> IntoIterator for &'a Receiver<T> {
    type Item = Result<T>;
    type IntoIter = Elements<'a, T>;

    fn into_iter(self) -> Elements<'a, T> {
        self.iter()
    }
}
