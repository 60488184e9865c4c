//! The robust lock word that every lock is made of: one compare-and-swap that names its owner.
//!
//! ```text
//! u32   contended:1 | recover:1 | generation:18 | slot:12       0 = free
//!
//! lock     CAS 0→me; spin; set contended; sleep in slices; after any sleep the CAS is 0→(me|contended)
//! unlock   CAS from my own token; wake one if contended
//! death    (dead,c)→(NOBODY|recover|c), wake; who finds NOBODY|recover takes it as (me|recover|c) and is told
//! ```
//! Model: `mc_mutex` (`tests/models`).

use super::wait::{self, Deadline, FIRST_SLICE};
use super::{Attachment, interrupt};
use crate::error::{Result, SyncError, corrupt};
use crate::sys::atomic::{AtomicU32, Ordering};
use crate::sys::futex;
use shmkit_layouts::segment::{SLOT_NOBODY, SLOT_POISON};
use shmkit_layouts::words::{MUTEX_CONTENDED, MUTEX_OWNER, MUTEX_RECOVER, Token};
use std::time::Duration;

/// How a lock was obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acquired {
    /// Its last owner released it.
    Clean,
    /// Its last owner died or panicked inside.
    OwnerDied,
}

enum Attempt {
    Got(Acquired),
    Held(u32),
    Poisoned,
}

const NOBODY: u32 = SLOT_NOBODY | MUTEX_RECOVER;
/// The most pauses (of 25 ns) between two looks at a lock that is held.
const MOST_PAUSES: u32 = 7;

fn attempt(word: &AtomicU32, token: Token, contended: u32) -> Attempt {
    // Acquire pairs with the release in `unlock`: the owner's writes are seen by the next one.
    match word.compare_exchange(0, token.0 | contended, Ordering::Acquire, Ordering::Relaxed) {
        Ok(_) => Attempt::Got(Acquired::Clean),
        Err(seen) if seen & !MUTEX_CONTENDED == NOBODY => {
            let mine = token.0 | MUTEX_RECOVER | (seen & MUTEX_CONTENDED) | contended;
            match word.compare_exchange(seen, mine, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => Attempt::Got(Acquired::OwnerDied),
                Err(seen) => Attempt::Held(seen),
            }
        }
        Err(seen) if is_poisoned(seen) => Attempt::Poisoned,
        Err(seen) => Attempt::Held(seen),
    }
}

/// Takes the lock if that is possible at once.
#[inline]
pub(crate) fn try_lock(attachment: &Attachment, word: &AtomicU32) -> Result<Option<Acquired>> {
    match attempt(word, attachment.token()?, 0) {
        Attempt::Got(how) => Ok(Some(how)),
        Attempt::Held(_) => Ok(None),
        Attempt::Poisoned => Err(SyncError::Poisoned.into()),
    }
}

/// Takes the lock if it is free: the way most takers go, short enough to be part of its caller.
#[inline(always)]
pub(crate) fn lock_free(attachment: &Attachment, word: &AtomicU32) -> bool {
    let token = attachment.token_word().load(Ordering::Relaxed);
    // Acquire pairs with the release in `unlock`. A token of 0 is none.
    token != 0 && word.compare_exchange(0, token, Ordering::Acquire, Ordering::Relaxed).is_ok()
}

/// Releases a lock that this process holds and nobody waits for, as [`lock_free`] takes one.
#[inline(always)]
pub(crate) fn unlock_unwaited(attachment: &Attachment, word: &AtomicU32) -> bool {
    let token = attachment.token_word().load(Ordering::Relaxed);
    // Release pairs with the acquire in `lock_free` and `attempt`.
    token != 0 && word.compare_exchange(token, 0, Ordering::Release, Ordering::Relaxed).is_ok()
}

/// Takes the lock; `what` is for the message of a time-out.
#[inline]
pub(crate) fn lock(
    attachment: &Attachment,
    word: &AtomicU32,
    deadline: Deadline,
    what: &'static str,
) -> Result<Acquired> {
    if lock_free(attachment, word) {
        return Ok(Acquired::Clean);
    }
    lock_slow(attachment, word, deadline, what)
}

#[cold]
#[inline(never)]
fn lock_slow(attachment: &Attachment, word: &AtomicU32, deadline: Deadline, what: &'static str) -> Result<Acquired> {
    let mut slept = false;
    loop {
        if let Some(how) = lock_once(attachment, word, slept)? {
            return Ok(how);
        }
        let left = deadline.left().unwrap_or(FIRST_SLICE);
        let failed = if left.is_zero() {
            let holder = attachment.holder(owner(word));
            Some(SyncError::TimedOut { what, waited: deadline.waited(), holder }.into())
        } else {
            interrupt::check().err()
        };
        if let Some(error) = failed {
            // The mark stays: it costs one wake without a sleeper. The wake that came with my last sleep goes on.
            if slept {
                futex::wake(word, 1);
            }
            return Err(error);
        }
        slept |= await_release(attachment, word, FIRST_SLICE.min(left));
    }
}

/// Takes the lock if that is possible at once or, by one who has not `slept` yet, within a short spin.
pub(crate) fn lock_once(attachment: &Attachment, word: &AtomicU32, slept: bool) -> Result<Option<Acquired>> {
    let token = attachment.token()?;
    // Who has slept cannot know whether he was the only one: he leaves the mark for the next.
    let contended = if slept { MUTEX_CONTENDED } else { 0 };
    let once = || match attempt(word, token, contended) {
        Attempt::Got(how) => Ok(Some(how)),
        Attempt::Poisoned => Err(SyncError::Poisoned.into()),
        Attempt::Held(seen) if is_impossible(attachment, seen) => {
            Err(corrupt("lock word", attachment.offset_of(word), u64::from(seen)))
        }
        Attempt::Held(_) => Ok(None),
    };
    // One failed compare-and-swap, the caller's, has taken the line from the owner already.
    let first = if !slept && is_held(attachment, word.load(Ordering::Relaxed)) { None } else { once()? };
    let mut pauses = 0;
    match first {
        None if !slept => wait::watch(&Deadline::NEVER, || match word.load(Ordering::Relaxed) {
            // A look leaves the line with whoever has it; a lock that somebody holds is not worth a compare-and-swap, and the
            // longer it is held the fewer looks: each one costs the owner a way to the line.
            seen if is_held(attachment, seen) => {
                for _ in 0..pauses {
                    std::hint::spin_loop();
                }
                pauses = (2 * pauses + 1).min(MOST_PAUSES);
                Ok(None)
            }
            _ => once(),
        }),
        taken => Ok(taken),
    }
}

/// Whether the word names somebody there can be: it is neither free nor handed on, poisoned or impossible.
#[inline]
fn is_held(attachment: &Attachment, seen: u32) -> bool {
    let owner = seen & MUTEX_OWNER;
    owner != 0 && owner & 0xFFF < attachment.geometry.max_participants
}

/// Whether a word that is not free names nobody there can be.
fn is_impossible(attachment: &Attachment, seen: u32) -> bool {
    let owner = seen & MUTEX_OWNER;
    let handed_on = seen & !MUTEX_CONTENDED == NOBODY;
    seen != 0 && !handed_on && (owner == 0 || owner & 0xFFF >= attachment.geometry.max_participants)
}

/// Marks a held lock as slept on and gives the word to sleep on; `None` if it is free, or has changed.
pub(crate) fn mark(word: &AtomicU32) -> Option<u32> {
    let seen = word.load(Ordering::Relaxed);
    if is_free(seen) {
        return None;
    }
    let marked = seen | MUTEX_CONTENDED;
    let is_marked = seen == marked || word.compare_exchange(seen, marked, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    is_marked.then_some(marked)
}

/// Whether a lock can be taken at once: released, or left by one who died.
pub(crate) fn is_free(seen: u32) -> bool {
    seen == 0 || seen & !MUTEX_CONTENDED == NOBODY
}

/// Sleeps until the lock may be free, at most for `slice`; true if it slept. If it still has the same owner then, be it that the
/// slice is over or that a signal came, the owner's life is probed: a dead one's lock is handed on.
pub(crate) fn await_release(attachment: &Attachment, word: &AtomicU32, slice: Duration) -> bool {
    let Some(marked) = mark(word) else { return false };
    futex::wait(word, marked, slice);
    if word.load(Ordering::Relaxed) == marked {
        attachment.bury(Token(marked & MUTEX_OWNER));
        recover_word(word, |owner| attachment.is_dead(owner));
    }
    true
}

/// Releases a lock that this process holds.
///
/// # Errors
/// `NotOwner` if the word does not name this process: nothing is changed.
#[inline]
pub(crate) fn unlock(attachment: &Attachment, word: &AtomicU32, what: &'static str) -> Result<()> {
    release(word, attachment.token()?, 0, what)
}

/// Leaves a lock that this process holds to the next taker, who is told: what a death does too.
pub(crate) fn abandon(attachment: &Attachment, word: &AtomicU32, what: &'static str) -> Result<()> {
    release(word, attachment.token()?, NOBODY, what)
}

/// Makes a lock that this process holds unusable.
pub(crate) fn poison(attachment: &Attachment, word: &AtomicU32, what: &'static str) -> Result<()> {
    release(word, attachment.token()?, SLOT_POISON, what)
}

/// Whether this process holds the lock.
pub(crate) fn is_mine(attachment: &Attachment, word: &AtomicU32) -> Result<bool> {
    Ok(word.load(Ordering::Relaxed) & MUTEX_OWNER == attachment.token()?.0)
}

/// Whom the word names.
pub(crate) fn owner(word: &AtomicU32) -> Token {
    Token(word.load(Ordering::Relaxed) & MUTEX_OWNER)
}

/// Whether somebody holds the lock at this instant; the dead do until they are recovered, a poisoned lock is held for ever.
pub(crate) fn is_locked(word: &AtomicU32) -> bool {
    let owner = owner(word);
    owner.0 != 0 && owner.0 != SLOT_NOBODY
}

/// Takes the lock away from whoever holds it.
pub(crate) fn force_unlock(word: &AtomicU32) -> bool {
    let seen = word.swap(0, Ordering::AcqRel);
    futex::wake(word, 1);
    seen & MUTEX_OWNER != 0
}

/// Whether a lock word says that the lock is poisoned.
pub(crate) fn is_poisoned(seen: u32) -> bool {
    seen & MUTEX_OWNER == SLOT_POISON
}

/// Makes a poisoned lock usable again.
pub(crate) fn clear_poison(word: &AtomicU32) {
    let seen = word.load(Ordering::Relaxed);
    if seen & MUTEX_OWNER == SLOT_POISON {
        let _ = word.compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

#[inline]
fn release(word: &AtomicU32, token: Token, next: u32, what: &'static str) -> Result<()> {
    // Release pairs with the acquire in `attempt`.
    if word.compare_exchange(token.0, next, Ordering::Release, Ordering::Relaxed).is_ok() {
        return Ok(());
    }
    loop {
        let seen = word.load(Ordering::Relaxed);
        if seen & MUTEX_OWNER != token.0 {
            return Err(SyncError::NotOwner { what, by: "this process" }.into());
        }
        let keep = if next == NOBODY { seen & MUTEX_CONTENDED } else { 0 };
        if word.compare_exchange(seen, next | keep, Ordering::Release, Ordering::Relaxed).is_ok() {
            if seen & MUTEX_CONTENDED != 0 {
                let count = if next == SLOT_POISON { i32::MAX as u32 } else { 1 };
                futex::wake(word, count);
            }
            return Ok(());
        }
    }
}

/// How often recovery looks at a word that changes under its hands: a waiter marks it once.
const LOOKS: u32 = 4;

/// Recovery: a word that names somebody `dead` becomes NOBODY|recover, and a waiter is woken.
pub(crate) fn recover_word(word: &AtomicU32, dead: impl Fn(Token) -> bool) {
    let mut seen = word.load(Ordering::Relaxed);
    for _ in 0..LOOKS {
        let owner = seen & MUTEX_OWNER;
        let slot = owner & 0xFFF;
        if owner == 0 || slot == SLOT_NOBODY || slot == SLOT_POISON || !dead(Token(owner)) {
            return;
        }
        // AcqRel: the dead one's writes, which the kernel has ordered before the proof of death, go on to the next owner.
        let next = NOBODY | (seen & MUTEX_CONTENDED);
        match word.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => {
                futex::wake(word, 1);
                return;
            }
            // Somebody has marked it, to sleep on it: without another look nobody would wake him.
            Err(now) => seen = now,
        }
    }
}
