//! What both ends of a pipe have in common: the checked body, the claim of the role, the positions.

use super::{ELEMENTS, Pipe};
use crate::element::Element;
use crate::error::{ChannelError, Result, corrupt};
use crate::segment::object::Object;
use crate::segment::wait_many::Wakeable;
use crate::segment::{Attachment, atomic, fetch};
use crate::sys::atomic::{AtomicU32, AtomicU64, Ordering};
use shmkit_layouts::objects::{END_CLOSED, END_NEW, END_USED, PipeBody, ROLE_FIRST, ROLE_SECOND};
use shmkit_layouts::words::Token;
use std::cell::Cell;

/// No token: those have 30 bits.
const UNCLAIMED: u32 = u32::MAX;

/// One end of a pipe in this process: the sending one if `SENDS`.
pub(super) struct End<T: Element, const SENDS: bool> {
    pub(super) object: Object,
    pub(super) body: *const PipeBody,
    elements: *mut T,
    mask: u64,
    /// Where this process's token stands: see [`crate::segment::Attachment::token_word`].
    token: *const AtomicU32,
    /// The token with which this handle has claimed the role.
    claimed: Cell<u32>,
    /// How far this end has got. The shared word says the same; it is not read again, lest a peer's scribble counts.
    pub(super) mine: Cell<u64>,
    /// How far the other end had got when it was last looked at.
    pub(super) peer: Cell<u64>,
}

impl<T: Element, const SENDS: bool> End<T, SENDS> {
    /// Checks the body, once.
    pub(super) fn attach(object: Object) -> Result<Self> {
        if object.reference.role != Self::ROLE {
            let can = if SENDS { "receive" } else { "send" };
            return Err(ChannelError::WrongDirection { can }.into());
        }
        let body = object.body::<PipeBody>()?;
        let (capacity, stride) = (fetch!(body, capacity), fetch!(body, stride));
        let offset = fetch!(body, elements_offset);
        if !capacity.is_power_of_two() {
            return Err(corrupt("pipe's capacity", object.offset(), u64::from(capacity)));
        }
        if stride as usize != size_of::<T>() {
            return Err(corrupt("pipe's stride", object.offset(), u64::from(stride)));
        }
        if offset < ELEMENTS {
            return Err(corrupt("pipe's elements", object.offset(), offset));
        }
        let elements = object.part::<T>(offset, u64::from(capacity))?.cast_mut();
        let token = std::ptr::from_ref(object.attachment().token_word());
        let (mine, peer, claimed) = (Cell::new(0), Cell::new(0), Cell::new(UNCLAIMED));
        Ok(End { object, body, elements, mask: u64::from(capacity) - 1, token, claimed, mine, peer })
    }

    pub(super) const ROLE: u32 = if SENDS { ROLE_FIRST } else { ROLE_SECOND };
    const PEER: u32 = if SENDS { ROLE_SECOND } else { ROLE_FIRST };
    const NAME: &'static str = if SENDS { "sending" } else { "receiving" };

    pub(super) fn capacity(&self) -> u64 {
        self.mask + 1
    }

    /// The place of the element at `position`.
    #[inline]
    pub(super) fn slot(&self, position: u64) -> *mut T {
        self.elements.wrapping_add((position & self.mask) as usize)
    }

    // ---- the role -----------------------------------------------------------------------------------------------------

    fn owner(&self) -> &AtomicU32 {
        if SENDS { atomic!(self.body, sender) } else { atomic!(self.body, receiver) }
    }

    pub(super) fn state(&self) -> &AtomicU32 {
        if SENDS { atomic!(self.body, sender_state) } else { atomic!(self.body, receiver_state) }
    }

    fn peer_state(&self) -> &AtomicU32 {
        if SENDS { atomic!(self.body, receiver_state) } else { atomic!(self.body, sender_state) }
    }

    /// Whether this handle has the role: false in a forked child, whatever its parent has.
    #[inline]
    pub(super) fn is_claimed(&self) -> bool {
        // SAFETY: the word lives as long as the attachment, which `object` keeps.
        unsafe { &*self.token }.load(Ordering::Relaxed) == self.claimed.get()
    }

    /// Claims the role, if this handle does not have it.
    ///
    /// # Errors
    /// `EndTaken` if another handle has it; `Closed`; `Corrupt`.
    #[cold]
    pub(super) fn claim(&self) -> Result<()> {
        let attachment = self.object.attachment();
        let me = attachment.token()?;
        if self.is_claimed() {
            return Ok(());
        }
        if self.state().load(Ordering::Acquire) == END_CLOSED {
            return Err(ChannelError::Closed { what: "pipe" }.into());
        }
        loop {
            let seen = self.owner().load(Ordering::Relaxed);
            let owner = Token(seen);
            if seen != 0 && owner.slot() >= attachment.geometry.max_participants {
                return Err(corrupt("pipe's owner", self.object.offset(), u64::from(seen)));
            }
            // Another handle of this process counts as alive, too.
            if seen != 0 && !attachment.is_dead(owner) {
                return Err(self.taken(owner));
            }
            failpoint!("pipe.before_claim");
            // Acquire pairs with the release in `release`, or with the kernel's proof of death: the positions are the last
            // owner's last. From a dead one straight to me: there is no moment in which it is nobody's.
            if self.owner().compare_exchange(seen, me.0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                break;
            }
        }
        failpoint!("pipe.claimed");
        self.claimed.set(me.0);
        let (mine, peer) = (self.position().load(Ordering::Acquire), self.peer_position().load(Ordering::Acquire));
        self.mine.set(mine);
        if let Err(error) = self.see_peer(peer) {
            self.release();
            return Err(error);
        }
        let _ = self.state().compare_exchange(END_NEW, END_USED, Ordering::AcqRel, Ordering::Relaxed);
        failpoint!("pipe.used");
        Ok(())
    }

    /// The error that names who has the role.
    fn taken(&self, owner: Token) -> crate::Error {
        let pid = self.object.attachment().holder(owner).map_or(0, |holder| holder.pid);
        ChannelError::EndTaken { end: Self::NAME, pid }.into()
    }

    /// The error of a loan that was copied by a fork.
    pub(super) fn not_mine(&self) -> crate::Error {
        self.taken(Token(self.owner().load(Ordering::Relaxed)))
    }

    /// Gives the role back, if this handle has it.
    pub(super) fn release(&self) {
        let claimed = self.claimed.get();
        if self.is_claimed() {
            // Release pairs with the acquire in `claim`.
            let _ = self.owner().compare_exchange(claimed, 0, Ordering::Release, Ordering::Relaxed);
        }
        self.claimed.set(UNCLAIMED);
    }

    /// Closes the end for good.
    pub(super) fn close(&self) -> Result<()> {
        self.claim()?;
        // Release pairs with the acquire in `is_peer_gone`: what was sent before is seen.
        self.state().store(END_CLOSED, Ordering::Release);
        failpoint!("pipe.closed");
        Pipe(self.body).wake();
        Ok(())
    }

    /// Whether the other end is closed, or there was somebody who had it and nobody has it now.
    pub(super) fn is_peer_gone(&self) -> bool {
        is_gone(self.peer_state(), &self.object, Self::PEER)
    }

    // ---- positions ------------------------------------------------------------------------------------------------------

    #[inline]
    pub(super) fn position(&self) -> &AtomicU64 {
        if SENDS { atomic!(self.body, tail) } else { atomic!(self.body, head) }
    }

    #[inline]
    fn peer_position(&self) -> &AtomicU64 {
        if SENDS { atomic!(self.body, head) } else { atomic!(self.body, tail) }
    }

    /// Elements in the ring, as far as this end has seen.
    #[inline]
    pub(super) fn known(&self) -> u64 {
        let (mine, peer) = (self.mine.get(), self.peer.get());
        if SENDS { mine.wrapping_sub(peer) } else { peer.wrapping_sub(mine) }
    }

    /// Looks how far the other end has got. Gives the elements in the ring.
    #[inline]
    pub(super) fn refresh(&self) -> Result<u64> {
        // Acquire pairs with the release in `advance`: the elements up to there are written, or read.
        self.see_peer(self.peer_position().load(Ordering::Acquire))
    }

    #[inline]
    fn see_peer(&self, peer: u64) -> Result<u64> {
        let before = self.peer.replace(peer);
        let known = self.known();
        if known > self.capacity() {
            self.peer.set(before);
            return Err(corrupt("pipe's position", self.object.offset(), peer));
        }
        Ok(known)
    }

    /// Goes on by `count` elements: the commit of who sends, the acknowledgement of who receives.
    #[inline]
    pub(super) fn advance(&self, count: u64) {
        let next = self.mine.get().wrapping_add(count);
        self.mine.set(next);
        // Release pairs with the acquire in `refresh`.
        self.position().store(next, Ordering::Release);
    }
}

impl<T: Element, const SENDS: bool> Drop for End<T, SENDS> {
    fn drop(&mut self) {
        self.release();
        failpoint!("pipe.released");
        // The reference goes with the fields; its going wakes the other end.
    }
}

/// Whether an end is closed, or there was somebody who had it and nobody has it now.
fn is_gone(state: &AtomicU32, object: &Object, role: u32) -> bool {
    // Acquire pairs with the release in `close`; the looks at the reference cells acquire, too: all that the other end has sent is
    // seen by the look at its position that follows.
    match state.load(Ordering::Acquire) {
        END_CLOSED => true,
        END_NEW => false,
        _ => !object.is_held_as(&[role]),
    }
}

/// A pipe as one sees it who waits until there is something to receive, whichever handle has the end.
pub(in crate::channel) struct Watch {
    object: Object,
    body: *const PipeBody,
}

// SAFETY: the pointer is into the mapping, which `object` keeps; only atomics are reached through it.
unsafe impl Send for Watch {}
// SAFETY: as above.
unsafe impl Sync for Watch {}

impl<T: Element> End<T, false> {
    /// For those who wait for it with others.
    pub(super) fn watch(&self) -> Watch {
        Watch { object: self.object.clone(), body: self.body }
    }
}

impl Wakeable for Watch {
    fn attachment(&self) -> &Attachment {
        self.object.attachment()
    }
    fn word(&self) -> &AtomicU32 {
        atomic!(self.body, not_empty)
    }
    fn is_ready(&self) -> Result<bool> {
        // Acquire pairs with the release in `advance`.
        let sent = atomic!(self.body, tail).load(Ordering::Acquire);
        let is_empty = sent == atomic!(self.body, head).load(Ordering::Acquire);
        Ok(!is_empty || is_gone(atomic!(self.body, sender_state), &self.object, ROLE_FIRST))
    }
}
