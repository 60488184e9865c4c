//! A ring with somebody who waits at it: what the queues and the connection share.

use super::ring::{Claimed, Put, Ring, Taken};
use crate::error::{ChannelError, Error, Result};
use crate::segment::Attachment;
use crate::segment::object::Object;
use crate::segment::wait::{self, Deadline};
use shmkit_layouts::objects::ROLE_USER;
use std::sync::atomic::{AtomicU32, Ordering};
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

/// Who is at the other side of a ring.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peers {
    /// Their role.
    pub(super) role: u32,
    /// The bit in the queue's `roles` without which they have not come yet; 0 if they were there from the beginning. Where it
    /// is needed, whoever holds the queue in no special role counts as one of them.
    pub(super) had: u32,
}

/// A ring of an object that this process holds.
#[derive(Debug, Clone)]
pub(super) struct Port {
    pub(super) object: Object,
    pub(super) ring: Ring,
    /// What a reference cell adds to a block's index to mean a block of this ring.
    pub(super) first_id: u32,
    /// Those at the other side; where there are none, the ring is open until it is closed.
    pub(super) peers: Option<Peers>,
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
        if self.ring.is_shut_down() {
            return ChannelError::ShutDown { what: self.what }.into();
        }
        ChannelError::Closed { what: self.what }.into()
    }

    /// Whether nobody is left at the other side.
    #[inline]
    pub(super) fn is_deserted(&self) -> bool {
        self.peers.is_some_and(|peers| match peers.had {
            0 => !self.object.is_held_as(&[peers.role]),
            // Acquire pairs with the release in `enter`.
            had => {
                self.ring.roles().load(Ordering::Acquire) & had != 0
                    && !self.object.is_held_as(&[peers.role, ROLE_USER])
            }
        })
    }

    /// Says that somebody of this role, whose reference this process holds, has come.
    pub(super) fn enter(&self, had: u32) {
        if self.ring.roles().load(Ordering::Relaxed) & had == 0 {
            // Release pairs with the acquire in `is_deserted`: the reference is there before it is missed.
            self.ring.roles().fetch_or(had, Ordering::Release);
        }
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
    pub(super) fn wait<R>(
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
        if let Some(growth) = self.ring.growth() {
            while growth.grow(self.attachment())? {
                if let Some(claimed) = self.ring.claim(me) {
                    return Ok(claimed);
                }
            }
        }
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
        self.take_unless(patience, || self.is_deserted())
    }

    /// The next message, or `EndOfFile` when there is none and `is_over` says that one need not wait.
    #[inline]
    pub(super) fn take_unless(&self, patience: Patience, is_over: impl Fn() -> bool) -> Result<Claimed> {
        let me = self.me()?;
        let claimed = match self.ring.dequeue(me) {
            Taken::Block(claimed) => claimed,
            other => self.wait_to_take(other, patience, is_over, || self.ring.dequeue(me))?,
        };
        if self.ring.is_shut_down() { Err(self.refuse(&[claimed])) } else { Ok(claimed) }
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
            if self.ring.is_shut_down() {
                return Err(self.refuse(&taken));
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
        let mut attempt = |before: Option<Taken>| {
            let taken = match before.unwrap_or_else(&mut dequeue) {
                Taken::Empty if !is_over() => Taken::Empty,
                Taken::Empty | Taken::End => {
                    // Nothing more comes, but for what the dead had in their hands, and what was put before the producers
                    // were gone.
                    self.attachment().recover_dead();
                    match dequeue() {
                        Taken::Empty => Taken::End,
                        other => other,
                    }
                }
                other => other,
            };
            match taken {
                Taken::Block(claimed) => Ok(Some(claimed)),
                Taken::Empty => Ok(None),
                Taken::End if self.ring.is_shut_down() => Err(self.refuse(&[])),
                Taken::End => Err(Error::from(ChannelError::EndOfFile)),
                Taken::Corrupt(what, found) => Err(self.ring.corrupt(what, found)),
            }
        };
        if let Some(claimed) = attempt(Some(first))? {
            return Ok(claimed);
        }
        let Patience::Until(deadline) = patience else { return Err(self.empty()) };
        // One message needs one consumer.
        let (event, more) = (self.ring.not_empty(), || self.ring.has_next());
        let taken = wait::wait_while(self.attachment(), event, deadline, more, || attempt(None))?;
        taken.ok_or_else(|| self.empty())
    }

    /// Whether there is a message, or nobody is left to send one.
    pub(super) fn is_readable(&self) -> bool {
        self.ring.len() > 0 || self.ring.is_closed() || self.is_deserted()
    }

    /// Waits until there is a message, or nobody is left to send one; false when the time is up.
    pub(super) fn poll(&self, patience: Patience) -> Result<bool> {
        let look = || -> Result<_> { Ok(self.is_readable().then_some(())) };
        if look()?.is_some() {
            return Ok(true);
        }
        Ok(self.wait(self.ring.not_empty(), patience, look)?.is_some())
    }
    // ---- the end ------------------------------------------------------------------------------------------------------

    /// Closes it; at once, if asked for: then what is in it is thrown away, and nothing more is got.
    pub(super) fn shut_down(&self, immediate: bool) -> Result<()> {
        if !immediate {
            self.ring.close();
            return Ok(());
        }
        self.ring.shut_down();
        self.discard_all()
    }

    /// The error of who finds it shut down. What he has taken, and what else is in it, is thrown away: whoever did that may have
    /// died over it.
    #[cold]
    fn refuse(&self, taken: &[Claimed]) -> Error {
        taken.iter().for_each(|&claimed| self.discard(claimed));
        self.discard_all().err().unwrap_or_else(|| self.closed())
    }

    /// Throws away what is in it.
    pub(super) fn discard_all(&self) -> Result<()> {
        let me = self.me()?;
        // More than can be in it: a ring that a scribble has made endless comes to an end.
        for _ in 0..=2 * self.ring.blocks() {
            match self.ring.dequeue(me) {
                Taken::Block(claimed) => self.discard(claimed),
                Taken::Corrupt(what, found) => return Err(self.ring.corrupt(what, found)),
                Taken::Empty | Taken::End => break,
            }
            failpoint!("queue.discarded");
        }
        wait::publish_all(self.ring.all_done());
        Ok(())
    }
}
