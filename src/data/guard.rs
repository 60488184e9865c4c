//! The lock of a value or an array: taking it, and noticing that this very thread has it already.
//!
//! Both have operations that take the lock by themselves. Called by a thread that has a guard they would wait for ever; the
//! lock word knows only processes, so each thread keeps a list of what it has.

use crate::error::{Error, Result, SyncError};
use crate::segment::Attachment;
use crate::segment::claim::{self, Acquired};
use crate::segment::object::Object;
use crate::segment::wait::Deadline;
use crate::sync::mutex::Held;
use std::cell::RefCell;
use std::sync::atomic::AtomicU32;

thread_local! {
    /// The lock words this thread has guards of, by address.
    static MINE: RefCell<Vec<*const AtomicU32>> = const { RefCell::new(Vec::new()) };
}

/// `Deadlock` if this thread has the lock.
#[inline]
pub(super) fn refuse_deadlock(attachment: &Attachment, word: &AtomicU32) -> Result<()> {
    let listed = || MINE.try_with(|mine| mine.borrow().contains(&std::ptr::from_ref(word))).unwrap_or(false);
    // The word is looked at too: a forked child inherits the list, but not the locks.
    if claim::is_mine(attachment, word)? && listed() {
        return Err(SyncError::Deadlock.into());
    }
    Ok(())
}

/// As long as this lives, its thread is known to have the lock.
pub(super) struct Listed {
    word: *const AtomicU32,
}

impl Listed {
    pub(super) fn new(word: &AtomicU32) -> Listed {
        let word = std::ptr::from_ref(word);
        let _ = MINE.try_with(|mine| mine.borrow_mut().push(word));
        Listed { word }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let _ = MINE.try_with(|mine| mine.borrow_mut().retain(|&other| other != self.word));
    }
}

/// A lock for the length of one operation that runs no code of the user's.
pub(super) fn enter(object: &Object, word: &AtomicU32, what: &'static str) -> Result<Acquired> {
    refuse_deadlock(object.attachment(), word)?;
    claim::lock(object.attachment(), word, Deadline::NEVER, what)
}

/// The lock inside a guard.
pub(super) struct Locked<'a> {
    held: Held<'a>,
    _listed: Listed,
}

impl<'a> Locked<'a> {
    /// Waits for the lock.
    pub(super) fn lock(
        object: &'a Object,
        word: &'a AtomicU32,
        what: &'static str,
        deadline: Deadline,
    ) -> Result<(Self, Acquired)> {
        refuse_deadlock(object.attachment(), word)?;
        Ok(Locked::new(word, Held::lock(object, word, what, deadline)?))
    }

    /// Takes the lock if nobody has it.
    pub(super) fn try_lock(
        object: &'a Object,
        word: &'a AtomicU32,
        what: &'static str,
    ) -> Result<(Self, Acquired), Error> {
        Ok(Locked::new(word, Held::try_lock(object, word, what)?))
    }

    fn new(word: &'a AtomicU32, (held, how): (Held<'a>, Acquired)) -> (Self, Acquired) {
        (Locked { held, _listed: Listed::new(word) }, how)
    }

    /// Leaves the lock poisoned instead of free.
    pub(super) fn poison(&mut self) {
        self.held.poison = true;
    }

    /// Whether it will be left poisoned.
    pub(super) fn is_poison(&self) -> bool {
        self.held.poison
    }
}
