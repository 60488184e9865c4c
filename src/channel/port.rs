//! A ring with somebody who waits at it: what the queues and the connection share.

use super::ring::{Claimed, Put, Ring, Taken};
use crate::error::{ChannelError, Error, Result};
use crate::segment::Attachment;
use crate::segment::object::Object;
use crate::segment::wait::{self, Deadline};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// How long to wait for something.
#[derive(Debug, Clone, Copy)]
pub(super) enum Patience {
    /// Not at all.
    None,
    /// Until then.
    Until(Deadline),
}

impl Patience {
    pub(super) const ENDLESS: Patience = Patience::Until(Deadline::NEVER);

    pub(super) fn timeout(timeout: Duration) -> Patience {
        if timeout.is_zero() { Patience::None } else { Patience::Until(Deadline::after(timeout)) }
    }
}

/// A ring of an object that this process holds.
#[derive(Debug, Clone)]
pub(super) struct Port {
    pub(super) object: Object,
    pub(super) ring: Ring,
    /// What a reference cell adds to a block's index to mean a block of this ring.
    pub(super) first_id: u32,
    /// The role of those at the other side; where there is none, the ring is open until it is closed.
    pub(super) peer: Option<u32>,
    /// What it is called in messages.
    pub(super) what: &'static str,
}

impl Port {
    pub(super) fn attachment(&self) -> &Attachment {
        self.object.attachment()
    }

    /// This process's slot in the registry.
    #[inline]
    pub(super) fn me(&self) -> Result<u32> {
        Ok(self.attachment().token()?.slot())
    }

    /// Whether the block was claimed by this very process, and not by the parent it was forked from.
    #[inline]
    pub(super) fn is_mine(&self, owner: u32) -> bool {
        self.attachment().own_slot() == Some(owner)
    }

    pub(super) fn full(&self) -> Error {
        ChannelError::Full { what: self.what }.into()
    }

    pub(super) fn empty(&self) -> Error {
        ChannelError::Empty { what: self.what }.into()
    }

    pub(super) fn closed(&self) -> Error {
        ChannelError::Closed { what: self.what }.into()
    }

    /// Whether nobody is left at the other side.
    #[inline]
    pub(super) fn is_deserted(&self) -> bool {
        self.peer.is_some_and(|role| !self.object.is_held_as(role))
    }

    /// Whether messages are still taken, and somebody is there to take them.
    #[inline]
    pub(super) fn check_open(&self) -> Result<()> {
        if self.ring.is_closed() {
            return Err(self.closed());
        }
        if self.is_deserted() { Err(ChannelError::BrokenPipe.into()) } else { Ok(()) }
    }

    /// Waits as long as `patience` says; `attempt` has failed already.
    #[cold]
    fn wait<R>(
        &self,
        event: &AtomicU32,
        patience: Patience,
        attempt: impl FnMut() -> Result<Option<R>>,
    ) -> Result<Option<R>> {
        match patience {
            Patience::None => Ok(None),
            Patience::Until(deadline) => wait::wait(self.attachment(), event, deadline, attempt),
        }
    }

    // Most attempts succeed at once: for them no clock is read, and no error is handed about.

    /// A block to write to. Closed queues give none.
    #[inline]
    pub(super) fn claim(&self, patience: Patience) -> Result<Claimed> {
        let me = self.me()?;
        self.check_open()?;
        match self.ring.claim(me) {
            Some(claimed) => Ok(claimed),
            None => self.wait_for_block(me, patience),
        }
    }

    #[cold]
    fn wait_for_block(&self, me: u32, patience: Patience) -> Result<Claimed> {
        let claimed = self.wait(self.ring.block_free(), patience, || {
            self.check_open()?;
            Ok(self.ring.claim(me))
        })?;
        claimed.ok_or_else(|| self.full())
    }

    /// Puts what lies in the block into the ring. The block stays the caller's if that fails.
    #[inline]
    pub(super) fn enqueue(&self, claimed: Claimed, patience: Patience) -> Result<()> {
        if self.ring.is_closed() {
            return Err(self.closed());
        }
        match self.ring.enqueue(claimed) {
            Put::Done => Ok(()),
            other => self.wait_to_enqueue(claimed, other, patience),
        }
    }

    #[cold]
    fn wait_to_enqueue(&self, claimed: Claimed, first: Put, patience: Patience) -> Result<()> {
        let judge = |put: Put| match put {
            Put::Done => Ok(Some(())),
            Put::Full => self.check_open().map(|()| None),
            Put::Closed => Err(self.closed()),
            Put::Corrupt(found) => Err(self.ring.corrupt("queue slot", found)),
        };
        judge(first)?;
        let done = self.wait(self.ring.not_full(), patience, || judge(self.ring.enqueue(claimed)))?;
        done.ok_or_else(|| self.full())
    }

    /// Waits until there seems to be room, so that those who wait for it hold no blocks.
    #[inline]
    pub(super) fn expect_room(&self, patience: Patience) -> Result<()> {
        if self.ring.has_room() { Ok(()) } else { self.wait_for_room(patience) }
    }

    #[cold]
    fn wait_for_room(&self, patience: Patience) -> Result<()> {
        self.check_open()?;
        let room = self.wait(self.ring.not_full(), patience, || {
            self.check_open()?;
            Ok(self.ring.has_room().then_some(()))
        })?;
        room.ok_or_else(|| self.full())
    }

    /// Puts as many as there is room for at once, and at least one, into the ring; gives how many. The others stay the caller's.
    pub(super) fn enqueue_many(&self, claimed: &[Claimed], patience: Patience) -> Result<usize> {
        if self.ring.is_closed() {
            return Err(self.closed());
        }
        match self.ring.enqueue_many(claimed) {
            0 => self.enqueue(claimed[0], patience).map(|()| 1),
            done => Ok(done),
        }
    }

    /// Gives blocks back that hold nothing else.
    pub(super) fn free_all(&self, claimed: &[Claimed]) {
        for &claimed in claimed {
            self.ring.free(claimed);
        }
    }

    /// The next message.
    #[inline]
    pub(super) fn take(&self, patience: Patience) -> Result<Claimed> {
        let me = self.me()?;
        match self.ring.dequeue(me) {
            Taken::Block(claimed) => Ok(claimed),
            other => self.wait_to_take(other, patience, || self.is_deserted(), || self.ring.dequeue(me)),
        }
    }

    /// The next message, or `EndOfFile` when there is none and `is_over` says that one need not wait.
    pub(super) fn take_unless(&self, patience: Patience, is_over: impl Fn() -> bool) -> Result<Claimed> {
        let me = self.me()?;
        match self.ring.dequeue(me) {
            Taken::Block(claimed) => Ok(claimed),
            other => self.wait_to_take(other, patience, is_over, || self.ring.dequeue(me)),
        }
    }

    /// The next messages, up to `most`.
    pub(super) fn take_many(&self, most: usize, patience: Patience) -> Result<Vec<Claimed>> {
        self.take_many_unless(most, patience, || self.is_deserted())
    }

    /// The next messages, up to `most`, or `EndOfFile` when there are none and `is_over` says that one need not wait.
    pub(super) fn take_many_unless(
        &self,
        most: usize,
        patience: Patience,
        is_over: impl Fn() -> bool,
    ) -> Result<Vec<Claimed>> {
        let me = self.me()?;
        let mut taken = Vec::new();
        if most > 0 {
            match self.ring.dequeue_many(me, most, &mut taken) {
                Taken::Block(_) => {}
                other => {
                    let dequeue = || self.ring.dequeue_many(me, most, &mut taken);
                    self.wait_to_take(other, patience, is_over, dequeue)?;
                }
            }
        }
        Ok(taken)
    }

    #[cold]
    fn wait_to_take(
        &self,
        first: Taken,
        patience: Patience,
        is_over: impl Fn() -> bool,
        mut dequeue: impl FnMut() -> Taken,
    ) -> Result<Claimed> {
        let judge = |taken: Taken| match taken {
            Taken::Block(claimed) => Ok(Some(claimed)),
            Taken::Empty => Ok(None),
            Taken::End => Err(Error::from(ChannelError::EndOfFile)),
            Taken::Corrupt(what, found) => Err(self.ring.corrupt(what, found)),
        };
        let mut look_again = |taken: Taken| match judge(taken)? {
            None if is_over() => match judge(dequeue())? {
                // What was put before they were gone is still received.
                Some(claimed) => Ok(Some(claimed)),
                None => Err(ChannelError::EndOfFile.into()),
            },
            None => judge(dequeue()),
            taken => Ok(taken),
        };
        if let Some(claimed) = look_again(first)? {
            return Ok(claimed);
        }
        let Patience::Until(deadline) = patience else { return Err(self.empty()) };
        // One message needs one consumer.
        let (event, more) = (self.ring.not_empty(), || self.ring.has_next());
        let taken = wait::wait_while(self.attachment(), event, deadline, more, || look_again(Taken::Empty))?;
        taken.ok_or_else(|| self.empty())
    }

    /// Waits until there is a message, or nobody is left to send one; false when the time is up.
    pub(super) fn poll(&self, patience: Patience) -> Result<bool> {
        let look =
            || -> Result<_> { Ok((self.ring.len() > 0 || self.ring.is_closed() || self.is_deserted()).then_some(())) };
        if look()?.is_some() {
            return Ok(true);
        }
        Ok(self.wait(self.ring.not_empty(), patience, look)?.is_some())
    }
}
