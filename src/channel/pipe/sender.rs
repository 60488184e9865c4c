//! The sending end: single elements, batches, and loans.

use super::end::End;
use super::{Claims, is_waited_on};
use crate::element::Element;
use crate::error::{ChannelError, Error, Result};
use crate::segment::atomic;
use crate::segment::wait::{self, Deadline};
use crate::sys::atomic::Ordering;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// The sending end of a pipe: see [`crate::channel()`]. It can be sent to another thread, and, as an argument or in a message, to another
/// process; it belongs to one at a time.
///
/// Dropped, its process killed or its last handle gone, the receiver gets what is left and then the end of the file; a named
/// pipe's end can be opened again by others.
///
/// Crash behaviour: see the table at the head of the module `channel::pipe` in the sources and in `docs/reliability.md`.
pub struct Sender<T: Element> {
    pub(super) end: End<T, true>,
}

impl<T: Element> Claims for Sender<T> {
    fn claim(&self) -> Result<()> {
        self.end.claim()
    }
}

impl<T: Element> Sender<T> {
    /// Sends an element. Waits while the pipe is full.
    ///
    /// A large element is copied less often by [`Sender::send_many`] with `std::slice::from_ref`, and not at all by
    /// [`Sender::loan`].
    ///
    /// # Errors
    /// `BrokenPipe` if there was a receiver and there is none any more, or if it closed its end. One that was killed is missed
    /// when the pipe is full, at the latest. `EndTaken`, `Closed`, `Corrupt`.
    #[inline]
    pub fn send(&self, value: T) -> Result<()> {
        if !self.is_ready() {
            self.wait_for_room(Deadline::NEVER)?;
        }
        self.put(value);
        Ok(())
    }

    /// As [`Sender::send`], waiting at most for `timeout`.
    ///
    /// # Errors
    /// As [`Sender::send`], and `Full`.
    #[inline]
    pub fn send_timeout(&self, value: T, timeout: Duration) -> Result<()> {
        if !self.is_ready() {
            self.wait_for_room(Deadline::after(timeout))?;
        }
        self.put(value);
        Ok(())
    }

    /// As [`Sender::send`], if there is room at once.
    ///
    /// # Errors
    /// As [`Sender::send`], and `Full`.
    #[inline]
    pub fn try_send(&self, value: T) -> Result<()> {
        if !self.is_ready() {
            self.find_room()?;
        }
        self.put(value);
        Ok(())
    }

    /// Sends all of `values`, in order. Waits while the pipe is full. As many as fit are committed at once, with one wake-up.
    ///
    /// # Errors
    /// As [`Sender::send`]. The values before the error were sent.
    pub fn send_many(&self, values: &[T]) -> Result<()> {
        let mut left = values;
        while !left.is_empty() {
            if !self.is_ready() {
                self.wait_for_room(Deadline::NEVER)?;
            }
            left = &left[self.put_many(left)?..];
        }
        Ok(())
    }

    /// Sends as many of the first `values` as there is room for. Gives how many; 0 if the pipe is full.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub fn try_send_many(&self, values: &[T]) -> Result<usize> {
        match self.find_room() {
            Ok(()) => self.put_many(values),
            Err(Error::Channel(ChannelError::Full { .. })) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// A place in the pipe to write an element in, without a copy. Waits while the pipe is full. The element holds what was there
    /// before; it is sent by [`SendLoan::commit`], and dropped without it nothing is.
    ///
    /// # Errors
    /// As [`Sender::send`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> shmkit::Result<()> {
    /// let (mut sender, mut receiver) = shmkit::channel::<[u8; 4096]>(4)?;
    /// let mut page = sender.loan()?;
    /// page.fill(7);
    /// page.commit()?;
    ///
    /// let page = receiver.recv_ref()?;
    /// assert!(page.iter().all(|&byte| byte == 7));
    /// # Ok(())
    /// # }
    /// ```
    pub fn loan(&mut self) -> Result<SendLoan<'_, T>> {
        if !self.is_ready() {
            self.wait_for_room(Deadline::NEVER)?;
        }
        Ok(self.lend())
    }

    /// As [`Sender::loan`], waiting at most for `timeout`.
    ///
    /// # Errors
    /// As [`Sender::loan`], and `Full`.
    pub fn loan_timeout(&mut self, timeout: Duration) -> Result<SendLoan<'_, T>> {
        self.wait_for_room(Deadline::after(timeout))?;
        Ok(self.lend())
    }

    /// As [`Sender::loan`], if there is room at once.
    ///
    /// # Errors
    /// As [`Sender::loan`], and `Full`.
    pub fn try_loan(&mut self) -> Result<SendLoan<'_, T>> {
        self.find_room()?;
        Ok(self.lend())
    }

    fn lend(&mut self) -> SendLoan<'_, T> {
        failpoint!("pipe.loaned");
        SendLoan { slot: self.end.slot(self.end.mine.get()), sender: self }
    }

    /// Elements that are sent and not yet received.
    ///
    /// # Errors
    /// `EndTaken`, `Closed`, `Corrupt`.
    pub fn len(&self) -> Result<usize> {
        self.end.claim()?;
        Ok(self.end.refresh()? as usize)
    }

    /// Whether everything that was sent has been received.
    ///
    /// # Errors
    /// As [`Sender::len`].
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Closes the end for good: the receiver gets what is left and then the end of the file, and nobody can open it again.
    ///
    /// # Errors
    /// `EndTaken`, `Closed`, `Corrupt`.
    pub fn close(self) -> Result<()> {
        self.end.close()
    }

    /// Whether the end is this handle's, nobody left at the other end, and there is room as far as is known.
    #[inline]
    fn is_ready(&self) -> bool {
        // Relaxed: a hint that it is time to look.
        let left = atomic!(self.end.body, receiver_left).load(Ordering::Relaxed);
        self.end.is_claimed() && self.end.known() < self.end.capacity() && left == 0
    }

    #[inline]
    fn put(&self, value: T) {
        failpoint!("pipe.before_write");
        // SAFETY: inside the body and aligned (`attach`); between `tail` and `head + capacity` the sender's alone.
        unsafe { self.end.slot(self.end.mine.get()).write(value) };
        self.commit(1);
    }

    fn put_many(&self, values: &[T]) -> Result<usize> {
        // A wish for more than is known to be free is worth a look.
        let known = self.end.known();
        let known = if values.len() as u64 > self.end.capacity() - known { self.end.refresh()? } else { known };
        let count = (self.end.capacity() - known).min(values.len() as u64) as usize;
        if count == 0 {
            return Ok(0);
        }
        let first = self.end.mine.get();
        let straight = count.min((self.end.capacity() - (first & (self.end.capacity() - 1))) as usize);
        // SAFETY: as in `put`, for `count` elements, of which `straight` lie before the end of the ring.
        unsafe {
            self.end.slot(first).copy_from_nonoverlapping(values.as_ptr(), straight);
            failpoint!("pipe.half_batch");
            self.end.slot(0).copy_from_nonoverlapping(values.as_ptr().add(straight), count - straight);
        }
        self.commit(count as u64);
        Ok(count)
    }

    #[inline]
    fn commit(&self, count: u64) {
        failpoint!("pipe.written");
        self.end.advance(count);
        failpoint!("pipe.committed");
        wait::publish_all(atomic!(self.end.body, not_empty));
    }

    /// Whether there is room; looks at the other end if it has to.
    fn look(&self, closely: bool) -> Result<Option<()>> {
        let left = atomic!(self.end.body, receiver_left);
        if (closely || left.load(Ordering::Relaxed) != 0) && {
            // Cleared before the look: who leaves after the look sets it again. A swap, so that it pairs with the store in
            // `Pipe::wake`: who had left before is seen to have left.
            left.swap(0, Ordering::AcqRel);
            self.end.is_peer_gone()
        } {
            // The next send is to look, too.
            left.store(1, Ordering::Relaxed);
            return Err(ChannelError::BrokenPipe.into());
        }
        Ok((self.end.known() < self.end.capacity() || self.end.refresh()? < self.end.capacity()).then_some(()))
    }

    /// Room at once.
    fn find_room(&self) -> Result<()> {
        self.end.claim()?;
        if self.look(false)?.is_some() || self.look(true)?.is_some() {
            return Ok(());
        }
        Err(ChannelError::Full { what: "pipe" }.into())
    }

    #[cold]
    #[inline(never)]
    fn wait_for_room(&self, deadline: Deadline) -> Result<()> {
        self.end.claim()?;
        let event = atomic!(self.end.body, not_full);
        let attempt = || self.look(is_waited_on(event));
        // Whoever publishes wakes all: those who watch for others, too. Nobody needs to pass it on.
        match wait::wait_while(self.end.object.attachment(), event, deadline, || false, attempt)? {
            Some(()) => Ok(()),
            None => self.find_room(),
        }
    }
}

/// A place in the pipe that its sender writes an element in: [`Sender::loan`]. Dropped without [`SendLoan::commit`], nothing is sent.
#[must_use = "an element is sent by `commit` only"]
pub struct SendLoan<'a, T: Element> {
    sender: &'a mut Sender<T>,
    slot: *mut T,
}

impl<T: Element> SendLoan<'_, T> {
    /// Sends the element.
    ///
    /// # Errors
    /// `EndTaken` in a forked child: the end is its parent's.
    pub fn commit(self) -> Result<()> {
        if !self.sender.end.is_claimed() {
            return Err(self.sender.end.not_mine());
        }
        self.sender.commit(1);
        Ok(())
    }
}

impl<T: Element> Deref for SendLoan<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: inside the body and aligned (`attach`); any bytes are a T (`Pod`); the sender's alone until `tail` goes up.
        unsafe { &*self.slot }
    }
}

impl<T: Element> DerefMut for SendLoan<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; `self.sender` is borrowed exclusively.
        unsafe { &mut *self.slot }
    }
}

impl<T: Element + fmt::Debug> fmt::Debug for SendLoan<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
