//! [`Loan`] and [`Received`]: blocks of a [`PodQueue`] that this process owns for a while.

use super::pod::PodQueue;
use super::port::Patience;
use super::ring::Claimed;
use crate::element::Element;
use crate::error::{Error, Result, SegmentError};
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// Room for an element, to be written in place. It goes back unless it is committed.
#[must_use = "a loan that is not committed goes back"]
pub struct Loan<'a, T: Element> {
    queue: &'a PodQueue<T>,
    claimed: Claimed,
    owner: u32,
}

impl<'a, T: Element> Loan<'a, T> {
    pub(super) fn new(queue: &'a PodQueue<T>, claimed: Claimed, owner: u32) -> Loan<'a, T> {
        Loan { queue, claimed, owner }
    }

    fn commit_with(self, patience: Patience) -> std::result::Result<(), (Loan<'a, T>, Error)> {
        failpoint!("queue.filled");
        if !self.queue.port.is_mine(self.owner) {
            return Err((self, SegmentError::Gone.into()));
        }
        match self.queue.port.enqueue(self.claimed, patience) {
            Ok(()) => {
                // The block belongs to the queue now.
                let _ = ManuallyDrop::new(self);
                Ok(())
            }
            Err(error) => Err((self, error)),
        }
    }

    /// Puts the element into the queue, waiting while it is full.
    ///
    /// # Errors
    /// `Closed`; `Gone` in a process that was forked off after the loan was made.
    pub fn commit(self) -> Result<()> {
        self.commit_with(Patience::ENDLESS).map_err(|(_, error)| error)
    }

    /// Puts the element into the queue if there is room at once; else the loan comes back with the reason.
    ///
    /// # Errors
    /// `Full`, and as [`Loan::commit`].
    pub fn try_commit(self) -> std::result::Result<(), (Loan<'a, T>, Error)> {
        self.commit_with(Patience::None)
    }

    /// Puts the element into the queue, waiting at most for `timeout`; else the loan comes back with the reason.
    ///
    /// # Errors
    /// `Full` when the time is up, and as [`Loan::commit`].
    pub fn commit_timeout(self, timeout: Duration) -> std::result::Result<(), (Loan<'a, T>, Error)> {
        self.commit_with(Patience::timeout(timeout))
    }
}

impl<T: Element> Deref for Loan<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the block is this process's until the loan ends; its payload is aligned and any bytes are a `T`.
        unsafe { &*self.queue.port.ring.payload(self.claimed.index).cast::<T>() }
    }
}

impl<T: Element> DerefMut for Loan<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; the loan is borrowed exclusively.
        unsafe { &mut *self.queue.port.ring.payload(self.claimed.index).cast::<T>() }
    }
}

impl<T: Element> Drop for Loan<'_, T> {
    fn drop(&mut self) {
        // In a forked child the block is still the parent's.
        if self.queue.port.is_mine(self.owner) {
            self.queue.port.ring.free(self.claimed);
        }
    }
}

impl<T: Element + std::fmt::Debug> std::fmt::Debug for Loan<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Loan").field(&**self).finish()
    }
}

/// An element that was received, where it lies. Its room goes back when it is dropped.
#[must_use = "the element is gone when it is dropped"]
pub struct Received<'a, T: Element> {
    queue: &'a PodQueue<T>,
    claimed: Claimed,
    owner: u32,
}

impl<'a, T: Element> Received<'a, T> {
    #[inline]
    pub(super) fn new(queue: &'a PodQueue<T>, claimed: Claimed, owner: u32) -> Received<'a, T> {
        Received { queue, claimed, owner }
    }

    /// How often the element was delivered before, to consumers that died holding it. Such an element may have been acted upon.
    pub fn redelivered(&self) -> u32 {
        self.claimed.deliveries()
    }
}

impl<T: Element> Deref for Received<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the block is this process's until this is dropped; its payload is aligned and any bytes are a `T`.
        unsafe { &*self.queue.port.ring.payload(self.claimed.index).cast::<T>() }
    }
}

impl<T: Element> Drop for Received<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // In a forked child the block is still the parent's.
        if self.queue.port.is_mine(self.owner) {
            self.queue.port.ring.free(self.claimed);
        }
    }
}

impl<T: Element + std::fmt::Debug> std::fmt::Debug for Received<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Received").field(&**self).finish()
    }
}
