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

    #[inline]
    fn wait<R>(
        &self,
        event: &AtomicU32,
        patience: Patience,
        mut attempt: impl FnMut() -> Result<Option<R>>,
    ) -> Result<Option<R>> {
        // Most attempts succeed at once: no clock is read for them.
        match (attempt()?, patience) {
            (Some(got), _) => Ok(Some(got)),
            (None, Patience::None) => Ok(None),
            (None, Patience::Until(deadline)) => wait::wait(self.attachment(), event, deadline, attempt),
        }
    }

    /// A block to write to. Closed queues give none.
    #[inline]
    pub(super) fn claim(&self, patience: Patience) -> Result<Claimed> {
        let me = self.me()?;
        let claimed = self.wait(self.ring.block_free(), patience, || {
            if self.ring.is_closed() { Err(self.closed()) } else { Ok(self.ring.claim(me)) }
        })?;
        claimed.ok_or_else(|| self.full())
    }

    /// Puts what lies in the block into the ring. The block stays the caller's if that fails.
    #[inline]
    pub(super) fn enqueue(&self, claimed: Claimed, patience: Patience) -> Result<()> {
        let done = self.wait(self.ring.not_full(), patience, || match self.ring.enqueue(claimed)? {
            Put::Done => Ok(Some(())),
            Put::Full if self.ring.is_closed() => Err(self.closed()),
            Put::Full => Ok(None),
            Put::Closed => Err(self.closed()),
        })?;
        done.ok_or_else(|| self.full())
    }

    /// Waits until there seems to be room, so that those who wait for it hold no blocks.
    #[inline]
    pub(super) fn expect_room(&self, patience: Patience) -> Result<()> {
        if self.ring.has_room() {
            return Ok(());
        }
        let room = self.wait(self.ring.not_full(), patience, || {
            if self.ring.is_closed() { Err(self.closed()) } else { Ok(self.ring.has_room().then_some(())) }
        })?;
        room.ok_or_else(|| self.full())
    }

    /// Gives blocks back that hold nothing else.
    pub(super) fn free_all(&self, claimed: &[Claimed]) {
        for &claimed in claimed {
            self.ring.free(claimed);
        }
    }

    /// The next message. `is_over` is asked when there is none: whether nobody can put one any more.
    #[inline]
    pub(super) fn take(&self, patience: Patience, is_over: impl Fn() -> bool) -> Result<Claimed> {
        let me = self.me()?;
        self.take_with(patience, is_over, || self.ring.dequeue(me))
    }

    /// The next messages, up to `most`.
    pub(super) fn take_many(&self, most: usize, patience: Patience) -> Result<Vec<Claimed>> {
        let me = self.me()?;
        let mut taken = Vec::new();
        if most > 0 {
            self.take_with(patience, || false, || self.ring.dequeue_many(me, most, &mut taken))?;
        }
        Ok(taken)
    }

    #[inline]
    fn take_with(
        &self,
        patience: Patience,
        is_over: impl Fn() -> bool,
        mut dequeue: impl FnMut() -> Result<Taken>,
    ) -> Result<Claimed> {
        let mut look = || -> Result<Option<Claimed>> {
            match dequeue()? {
                Taken::Block(claimed) => Ok(Some(claimed)),
                Taken::Empty => Ok(None),
                Taken::End => Err(ChannelError::EndOfFile.into()),
            }
        };
        let taken = self.wait(self.ring.not_empty(), patience, || {
            if let Some(claimed) = look()? {
                return Ok(Some(claimed));
            }
            if !is_over() {
                return Ok(None);
            }
            // What was put before they were gone is still received.
            match look()? {
                Some(claimed) => Ok(Some(claimed)),
                None => Err(ChannelError::EndOfFile.into()),
            }
        })?;
        taken.ok_or_else(|| self.empty())
    }
}
