//! The counts of readers that a [`super::RwLock`] is made of, whatever data it guards.

use super::mutex::Held;
use crate::error::{Result, SyncError, corrupt};
use crate::kinds::Kind;
use crate::segment::claim::{self, Acquired};
use crate::segment::object::{HEADER, Object};
use crate::segment::wait::{self, Deadline};
use crate::segment::{Attachment, Dead, Extent, atomic, fetch};
use shmkit_layouts::kinds::KIND_RWLOCK;
use shmkit_layouts::objects::{ReaderCount, RwLockBody};
use shmkit_layouts::segment::{MAX_PARTICIPANTS, SLOT_NOBODY};
use shmkit_layouts::words::{MUTEX_CONTENDED, MUTEX_RECOVER, Token};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// What recovery does with readers and writers.
pub(crate) const KIND: Kind = Kind { recover, wake, ..Kind::plain(KIND_RWLOCK) };

fn recover(attachment: &Attachment, body: &Extent, dead: Dead) {
    let start = body.offset + HEADER;
    let Ok(lock) = attachment.pointer::<RwLockBody>(start, "rwlock") else { return };
    if let Some(count) = count_of(attachment, lock, start, body.offset + body.len, dead.slot) {
        let seen = count.load(Ordering::Relaxed);
        if Count::unpack(seen).token == dead.token().0 {
            let _ = count.compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
    failpoint!("rwlock.recovered_readers");
    claim::recover_word(atomic!(lock, word), |owner| owner == dead.token());
    failpoint!("rwlock.recovered_writer");
    wake(attachment, body);
}

/// The count of `slot`, of a lock at `start` whose fields nobody has checked.
fn count_of(attachment: &Attachment, lock: *const RwLockBody, start: u64, end: u64, slot: u32) -> Option<&AtomicU64> {
    let first = start.checked_add(fetch!(lock, readers_offset))?;
    let offset = first.checked_add(u64::from(slot) * size_of::<ReaderCount>() as u64)?;
    if slot >= fetch!(lock, readers) || offset >= end {
        return None;
    }
    let count = attachment.pointer::<ReaderCount>(offset, "rwlock").ok()?;
    Some(atomic!(count, word))
}

fn wake(attachment: &Attachment, body: &Extent) {
    if let Ok(lock) = attachment.pointer::<RwLockBody>(body.offset + HEADER, "rwlock") {
        wait::wake_everybody(atomic!(lock, released));
        wait::wake_everybody(atomic!(lock, drained));
    }
}

/// How many readers a process has: `token:32 | count:32`.
#[derive(Debug, Clone, Copy)]
struct Count {
    token: u32,
    count: u32,
}

impl Count {
    fn unpack(word: u64) -> Count {
        Count { token: (word >> 32) as u32, count: word as u32 }
    }

    fn pack(self) -> u64 {
        u64::from(self.token) << 32 | u64::from(self.count)
    }
}

/// The lock without its data.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) object: Object,
    body: *const RwLockBody,
    counts: *const ReaderCount,
    slots: u32,
}

/// The right to write. Dropped, it unlocks the word as its [`Held`] says, and tells the readers who wait.
pub(super) struct Writing<'a> {
    pub(super) held: Held<'a>,
    // After `held`: fields are dropped in this order.
    _tell: Tell<'a>,
}

struct Tell<'a>(&'a AtomicU32);

impl Drop for Tell<'_> {
    fn drop(&mut self) {
        failpoint!("rwlock.unlocked");
        wait::publish_all(self.0);
    }
}

/// How a reader got in.
pub(super) enum Entry<'a> {
    /// As one of several; the token is this process's.
    Shared(Token),
    /// With the word of a dead writer in its hands: alone.
    Exclusive(Writing<'a>),
}

const WHAT: &str = "rwlock";

impl Gate {
    /// The gate of an object whose data end `data_end` bytes after the start of its struct.
    pub(super) fn attach(object: Object, data_end: u64) -> Result<Gate> {
        let body = object.body::<RwLockBody>()?;
        let (offset, slots) = (fetch!(body, readers_offset), fetch!(body, readers));
        if slots > MAX_PARTICIPANTS || offset < data_end {
            return Err(corrupt(WHAT, object.offset(), offset));
        }
        let counts = object.part::<ReaderCount>(offset, u64::from(slots))?;
        Ok(Gate { object, body, counts, slots })
    }

    fn attachment(&self) -> &Attachment {
        self.object.attachment()
    }

    pub(super) fn word(&self) -> &AtomicU32 {
        atomic!(self.body, word)
    }

    pub(super) fn released(&self) -> &AtomicU32 {
        atomic!(self.body, released)
    }

    fn drained(&self) -> &AtomicU32 {
        atomic!(self.body, drained)
    }

    /// The count of the process in `slot`.
    fn count(&self, slot: u32) -> Result<&AtomicU64> {
        if slot >= self.slots {
            return Err(corrupt("slots of a rwlock", self.object.offset(), u64::from(self.slots)));
        }
        // Inside the counts, which `attach` checked.
        Ok(atomic!(self.counts.wrapping_add(slot as usize), word))
    }

    // ---- readers ------------------------------------------------------------------------------------------------------

    /// One reader more in this process.
    pub(super) fn enter(&self) -> Result<Token> {
        let token = self.attachment().token()?;
        let count = self.count(token.slot())?;
        let high = atomic!(self.body, high);
        // SeqCst pairs with the one below, by whichever process: its raise of `high` comes before my count in the one order of
        // them all.
        if high.load(Ordering::SeqCst) <= token.slot() {
            high.fetch_max(token.slot() + 1, Ordering::SeqCst);
        }
        let mut seen = count.load(Ordering::Relaxed);
        loop {
            let now = Count::unpack(seen);
            // Another token is of a dead one: the slot is mine now.
            let before = if now.token == token.0 { now.count } else { 0 };
            let Some(more) = before.checked_add(1) else {
                return Err(corrupt("readers of a rwlock", self.object.offset(), seen));
            };
            let next = Count { token: token.0, count: more }.pack();
            // SeqCst: before the look at the word that follows; pairs with the writer's, who takes the word, then counts.
            match count.compare_exchange_weak(seen, next, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => break,
                Err(changed) => seen = changed,
            }
        }
        failpoint!("rwlock.counted");
        Ok(token)
    }

    /// One reader less in this process, if it still is the one that entered.
    pub(super) fn exit(&self, token: Token) {
        // After a fork: the parent's reader, of which the child has a copy.
        if self.attachment().own_slot() != Some(token.slot()) {
            return;
        }
        let Ok(count) = self.count(token.slot()) else { return };
        let mut seen = count.load(Ordering::Relaxed);
        loop {
            let now = Count::unpack(seen);
            if now.token != token.0 || now.count == 0 {
                return;
            }
            let next = Count { count: now.count - 1, ..now }.pack();
            // SeqCst: what was read is read; pairs with the writer's look at the counts.
            match count.compare_exchange_weak(seen, next, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => break,
                Err(changed) => seen = changed,
            }
        }
        failpoint!("rwlock.left");
        wait::publish_one(self.drained());
    }

    /// Enters if that is possible at once. With a dead writer's word the entry is exclusive, but readers may still be inside.
    pub(super) fn try_read(&self) -> Result<Option<Entry<'_>>> {
        // Each new round is a change of the word by somebody else.
        loop {
            // SeqCst throughout: see `enter`. Acquire what the last writer did.
            let mut seen = self.word().load(Ordering::SeqCst);
            if seen == 0 {
                let token = self.enter()?;
                seen = self.word().load(Ordering::SeqCst);
                if seen == 0 {
                    failpoint!("rwlock.read");
                    return Ok(Some(Entry::Shared(token)));
                }
                self.exit(token);
            }
            if seen & !MUTEX_CONTENDED != SLOT_NOBODY | MUTEX_RECOVER {
                return if claim::is_poisoned(seen) { Err(SyncError::Poisoned.into()) } else { Ok(None) };
            }
            match claim::try_lock(self.attachment(), self.word())? {
                Some(Acquired::OwnerDied) => return Ok(Some(Entry::Exclusive(self.writing()))),
                Some(Acquired::Clean) => drop(self.writing()),
                None => {}
            }
        }
    }

    /// Waits for an entry; an exclusive one has nobody else inside.
    pub(super) fn read(&self, deadline: Deadline) -> Result<Entry<'_>> {
        match wait::wait(self.attachment(), self.released(), deadline, || self.try_read())? {
            Some(Entry::Exclusive(writing)) => {
                Ok(Entry::Exclusive(self.drain(writing, Acquired::OwnerDied, deadline)?))
            }
            Some(shared) => Ok(shared),
            None => Err(self.timed_out(claim::owner(self.word()), deadline)),
        }
    }

    /// How many readers there are at this instant.
    pub(super) fn readers(&self) -> u64 {
        self.inside().map(|(_, count)| u64::from(count)).sum()
    }

    /// The living who have readers inside, and how many.
    fn inside(&self) -> impl Iterator<Item = (Token, u32)> {
        // The word was taken by an acquiring compare-and-swap, whose store a weakly ordered machine may still hold back while the
        // counts are loaded. Pairs with the SeqCst accesses of `enter` and `try_read`: a reader's count is seen here, or this
        // writer's word there.
        fence(Ordering::SeqCst);
        let high = atomic!(self.body, high).load(Ordering::SeqCst).min(self.slots);
        (0..high).filter_map(|slot| {
            let now = Count::unpack(self.count(slot).ok()?.load(Ordering::SeqCst));
            let token = Token(now.token);
            // A token of another slot or generation is nobody's.
            let counts = now.count > 0 && token.slot() == slot && !self.attachment().is_recovered(token);
            counts.then_some((token, now.count))
        })
    }

    // ---- writers ------------------------------------------------------------------------------------------------------

    fn writing(&self) -> Writing<'_> {
        Writing { held: Held::taken(&self.object, self.word(), WHAT), _tell: Tell(self.released()) }
    }

    /// Takes the word, then waits for the readers inside to leave.
    pub(super) fn write(&self, deadline: Deadline) -> Result<(Writing<'_>, Acquired)> {
        let how = claim::lock(self.attachment(), self.word(), deadline, WHAT)?;
        failpoint!("rwlock.claimed");
        Ok((self.drain(self.writing(), how, deadline)?, how))
    }

    /// Takes the word if nobody has it and nobody reads.
    pub(super) fn try_write(&self) -> Result<(Writing<'_>, Acquired)> {
        let would_block =
            |holder| SyncError::WouldBlock { what: WHAT, holder: self.attachment().holder(holder) }.into();
        if let Some((reader, _)) = self.inside().next() {
            return Err(would_block(reader));
        }
        let Some(how) = claim::try_lock(self.attachment(), self.word())? else {
            return Err(would_block(claim::owner(self.word())));
        };
        let mut writing = self.writing();
        let reader = self.inside().next();
        match reader {
            None => Ok((writing, how)),
            Some((reader, _)) => {
                writing.held.abandon = how == Acquired::OwnerDied;
                Err(would_block(reader))
            }
        }
    }

    fn drain<'a>(&'a self, mut writing: Writing<'a>, how: Acquired, deadline: Deadline) -> Result<Writing<'a>> {
        let is_empty = || Ok(self.inside().next().is_none().then_some(()));
        let failed = match wait::wait(self.attachment(), self.drained(), deadline, is_empty) {
            Ok(Some(())) => {
                failpoint!("rwlock.drained");
                return Ok(writing);
            }
            Ok(None) => {
                let reader = self.inside().next().map_or(Token(0), |(reader, _)| reader);
                self.timed_out(reader, deadline)
            }
            Err(error) => error,
        };
        // The next one is told what this one was.
        writing.held.abandon = how == Acquired::OwnerDied;
        Err(failed)
    }

    fn timed_out(&self, holder: Token, deadline: Deadline) -> crate::Error {
        let (waited, holder) = (deadline.waited(), self.attachment().holder(holder));
        SyncError::TimedOut { what: WHAT, waited, holder }.into()
    }
}
