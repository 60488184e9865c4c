//! The records of those who wait at a [`super::Condition`].
//!
//! ```text
//! record   word u64: ordinal:32 | st:2 {FREE, WAITING, NOTIFIED} | token:30 ; ticket ; event, a wait word of its own
//! ```
//! They follow the condition's body, and lie in chunks when there are more. A chunk stays as long as the condition does.

use crate::error::{Result, corrupt};
use crate::kinds::Kind;
use crate::segment::object::HEADER;
use crate::segment::wait;
use crate::segment::{Attachment, Dead, Extent, atomic, claim, fetch};
use shmkit_layouts::kinds::KIND_CONDITION;
use shmkit_layouts::objects::{ConditionBody, ConditionChunk, ConditionWaiter};
use shmkit_layouts::words::{Token, WAITER_NOTIFIED, WAITER_WAITING, Waiter};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What recovery does with conditions.
pub(crate) const KIND: Kind = Kind { recover, destroy, extents, wake, ..Kind::plain(KIND_CONDITION) };

/// Records in the condition itself: with the body they fill two heap units.
pub(super) const INLINE: u32 = 8;
/// Records of a chunk, which is a heap unit.
const CHUNK: u32 = 7;
/// A chain of more chunks than this is a loop somebody scribbled.
const MOST_CHUNKS: u32 = 1 << 12;

/// How often a record can change under recovery's hands, and some.
const MOST_CHANGES: u32 = 4;

fn recover(attachment: &Attachment, body: &Extent, dead: Dead) {
    let Some(waiters) = waiters(attachment, body) else { return };
    // What the chain names is committed before the sweep takes what the dead one held.
    waiters.chunks(|chunk, _| {
        attachment.commit_extent(chunk, dead.slot);
        false
    });
    claim::recover_word(atomic!(waiters.body, word), |owner| owner == dead.token());
    failpoint!("condition.recover_lock");
    waiters.each(|record| {
        // Somebody who has seen the dead one alive may notify him between the look and the change.
        for _ in 0..MOST_CHANGES {
            let seen = record.load();
            if seen.token != dead.token().0 {
                break;
            }
            failpoint!("condition.recover_seen");
            if seen.state == WAITER_NOTIFIED {
                // First this: who goes on after my death notifies one too many, which is better than one too few.
                waiters.notify(1);
                failpoint!("condition.recover_passed_on");
            }
            if record.change(seen, FREE) {
                failpoint!("condition.recover_freed");
                break;
            }
        }
        false
    });
    wake(attachment, body);
}

fn wake(attachment: &Attachment, body: &Extent) {
    let Some(waiters) = waiters(attachment, body) else { return };
    waiters.each(|record| {
        if record.load() != FREE {
            wait::wake_everybody(record.event());
        }
        false
    });
}

/// Frees the chunks, the last one first: who goes on after my death finds the rest in the chain.
fn destroy(attachment: &Attachment, body: &Extent) -> bool {
    let mut chunks = Vec::new();
    extents(attachment, body, &mut |chunk| chunks.push(chunk));
    for chunk in chunks.into_iter().rev() {
        attachment.free_extent(chunk);
    }
    false
}

fn extents(attachment: &Attachment, body: &Extent, visit: &mut dyn FnMut(u64)) {
    if let Some(waiters) = waiters(attachment, body) {
        waiters.chunks(|chunk, _| {
            visit(chunk);
            false
        });
    }
}

/// The records of a body that nobody has checked.
fn waiters<'a>(attachment: &'a Attachment, body: &Extent) -> Option<Waiters<'a>> {
    let condition = attachment.pointer::<ConditionBody>(body.offset + HEADER, "condition").ok()?;
    let room = (body.len - HEADER).checked_sub(size_of::<ConditionBody>() as u64)?;
    let inline = fetch!(condition, waiters);
    let fits = u64::from(inline) <= room / size_of::<ConditionWaiter>() as u64;
    fits.then_some(Waiters { attachment, body: condition, inline })
}

/// A free record.
const FREE: Waiter = Waiter { token: 0, state: 0, ordinal: 0 };

/// The records of one condition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiters<'a> {
    attachment: &'a Attachment,
    body: *const ConditionBody,
    inline: u32,
}

/// One record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    attachment: &'a Attachment,
    waiter: *const ConditionWaiter,
}

/// A record of one who waits.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    record: Record<'a>,
    me: Waiter,
}

impl<'a> Waiters<'a> {
    /// The records at `body`, which is followed by `inline` of them inside the mapping.
    pub(super) fn new(attachment: &'a Attachment, body: *const ConditionBody, inline: u32) -> Waiters<'a> {
        Waiters { attachment, body, inline }
    }

    /// Visits the chunks, by reference. Stops when `visit` says so.
    fn chunks(&self, mut visit: impl FnMut(u64, *const ConditionChunk) -> bool) -> bool {
        // Acquire pairs with the release in `add_chunk`: the chunk's records are zero, or in use.
        let mut more = atomic!(self.body, more).load(Ordering::Acquire);
        for _ in 0..MOST_CHUNKS {
            let Ok(extent) = self.attachment.find_extent(more, "condition chunk") else { return false };
            let needed = size_of::<ConditionChunk>() + CHUNK as usize * size_of::<ConditionWaiter>();
            let Ok(chunk) = self.attachment.pointer::<ConditionChunk>(extent.offset, "condition chunk") else {
                return false;
            };
            if extent.len < needed as u64 {
                return false;
            }
            if visit(more, chunk) {
                return true;
            }
            more = atomic!(chunk, more).load(Ordering::Acquire);
        }
        false
    }

    /// Visits the records. Stops when `visit` says so.
    fn each(&self, mut visit: impl FnMut(Record<'a>) -> bool) -> bool {
        let attachment = self.attachment;
        let mut all = |first: *const ConditionWaiter, count: u32| {
            (0..count as usize).any(|index| visit(Record { attachment, waiter: first.wrapping_add(index) }))
        };
        all(self.body.wrapping_add(1).cast(), self.inline)
            || self.chunks(|_, chunk| all(chunk.wrapping_add(1).cast(), CHUNK))
    }

    /// Begins to wait. Under the condition's lock.
    pub(super) fn enter(&self, ordinal: u32) -> Result<Waiting<'a>> {
        let me = Waiter { token: self.attachment.token()?.0, state: WAITER_WAITING, ordinal };
        loop {
            let mut mine = None;
            self.each(|record| {
                if record.load() == FREE && record.change(FREE, me) {
                    mine = Some(record);
                }
                mine.is_some()
            });
            if let Some(record) = mine {
                failpoint!("condition.claimed");
                // The lock's owner alone gives tickets, and looks at them; recovery takes whatever it finds.
                let ticket = atomic!(self.body, tickets).fetch_add(1, Ordering::Relaxed);
                record.ticket().store(ticket, Ordering::Relaxed);
                return Ok(Waiting { record, me });
            }
            self.add_chunk()?;
        }
    }

    fn add_chunk(&self) -> Result<()> {
        let attachment = self.attachment;
        let len = size_of::<ConditionChunk>() as u64 + u64::from(CHUNK) * size_of::<ConditionWaiter>() as u64;
        let extent = attachment.allocate(len)?;
        let start = attachment.map.base().wrapping_add(extent.offset as usize);
        // SAFETY: the extent is held by this process alone and lies inside the mapping.
        unsafe { std::ptr::write_bytes(start, 0, extent.len as usize) };
        let chunk = attachment.pointer::<ConditionChunk>(extent.offset, "condition chunk")?;
        failpoint!("condition.chunk_made");
        let first = atomic!(self.body, more);
        let mut next = first.load(Ordering::Relaxed);
        loop {
            atomic!(chunk, more).store(next, Ordering::Relaxed);
            // Release: the chunk's records are zero before anybody finds it.
            match first.compare_exchange(next, extent.reference.pack(), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => next = now,
            }
        }
        failpoint!("condition.chunk_linked");
        attachment.commit_extent(extent.reference.pack(), attachment.token()?.slot());
        Ok(())
    }

    /// Notifies up to `most` of those who wait and live, the ones who have waited longest. Gives how many. Never waits.
    pub(super) fn notify(&self, most: usize) -> usize {
        let mut waiting = Vec::new();
        self.each(|record| {
            if record.load().state == WAITER_WAITING {
                waiting.push((record.ticket().load(Ordering::Relaxed), record));
            }
            false
        });
        waiting.sort_unstable_by_key(|&(ticket, _)| ticket);
        let mut notified = 0;
        for (_, record) in waiting {
            if notified == most {
                break;
            }
            let seen = record.load();
            // A dead one would have to hand it on: better to whom it matters at once.
            if seen.state != WAITER_WAITING || self.attachment.is_dead(Token(seen.token)) {
                continue;
            }
            failpoint!("condition.judged");
            if record.change(seen, Waiter { state: WAITER_NOTIFIED, ..seen }) {
                failpoint!("condition.marked");
                wait::publish_one(record.event());
                notified += 1;
            }
        }
        notified
    }

    /// How many wait at this instant, not yet notified.
    pub(super) fn waiting(&self) -> usize {
        let mut count = 0;
        self.each(|record| {
            count += usize::from(record.load().state == WAITER_WAITING);
            false
        });
        count
    }
}

impl<'a> Record<'a> {
    fn word(&self) -> &'a AtomicU64 {
        atomic!(self.waiter, word)
    }

    fn ticket(&self) -> &'a AtomicU64 {
        atomic!(self.waiter, ticket)
    }

    fn event(&self) -> &'a AtomicU32 {
        atomic!(self.waiter, event)
    }

    fn load(&self) -> Waiter {
        // Acquire pairs with `change`.
        Waiter::unpack(self.word().load(Ordering::Acquire))
    }

    fn change(&self, from: Waiter, to: Waiter) -> bool {
        // SeqCst: a notification is there before the look at the wait word.
        self.word().compare_exchange(from.pack(), to.pack(), Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }
}

impl<'a> Waiting<'a> {
    /// Its wait word.
    pub(super) fn event(&self) -> &'a AtomicU32 {
        self.record.event()
    }

    fn notified(&self) -> Waiter {
        Waiter { state: WAITER_NOTIFIED, ..self.me }
    }

    /// Whether it was notified.
    pub(super) fn look(&self) -> Result<Option<()>> {
        let seen = self.record.load();
        if seen == self.me {
            return Ok(None);
        }
        if seen == self.notified() {
            return Ok(Some(()));
        }
        let offset = self.record.attachment.offset_of(self.event());
        Err(corrupt("waiter record", offset, seen.pack()))
    }

    /// Stops waiting; false if it was notified meanwhile.
    pub(super) fn withdraw(&self) -> bool {
        self.record.change(self.me, FREE)
    }

    /// The end of a wait that was notified.
    pub(super) fn free(self) {
        self.record.change(self.notified(), FREE);
    }
}
