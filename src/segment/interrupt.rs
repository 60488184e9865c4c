//! Leaving a wait because of a signal.
//!
//! A signal ends a sleep, nothing more: who waits looks at what it waits for and sleeps on. Here a program says that it wants
//! to be asked before every sleep whether the wait is to end instead. That is so in two places, `wait::sleep` and
//! `claim::lock_slow` (and `wait_many`, for several words), which pass on a wake-up they may have eaten.

use crate::error::{Result, SyncError};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

static CHECK: RwLock<Option<fn() -> bool>> = RwLock::new(None);
/// Waits may have to end for the end of the process.
static EXPECTED: AtomicBool = AtomicBool::new(false);
/// They have to.
static ENDING: AtomicBool = AtomicBool::new(false);

thread_local! {
    static SHIELDED: Cell<bool> = const { Cell::new(false) };
    /// This thread knows that the process is to end: it waits as it likes.
    static TOLD: Cell<bool> = const { Cell::new(false) };
}

/// From now on [`end_waits`] may be called: who sleeps looks now and then.
pub(crate) fn expect_end() {
    EXPECTED.store(true, Ordering::Relaxed);
}

/// The process was asked to end: the wait that each thread is in, or else its next one, ends.
pub(crate) fn end_waits() {
    ENDING.store(true, Ordering::Relaxed);
}

/// Sets the function that says whether a wait is to end, or takes it away.
///
/// It is called on the waiting thread, before it falls asleep and whenever its sleep ends: because a signal handler ran, a
/// wake-up came, or a slice of its sleep (at most a second) is over. When it gives `true`, the wait leaves with
/// [`SyncError::Interrupted`], and nothing was taken; with `false`, the wait goes on with the time that is left. Locks, semaphores,
/// events, queues and everything else that waits ask it. Threads that shmkit runs itself never do.
///
/// A wait ends at once if the handler was installed without `SA_RESTART` or the wait is for one object; else within a tenth
/// of a second.
///
/// # Examples
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering};
///
/// /// Set by a signal handler.
/// static STOP: AtomicBool = AtomicBool::new(false);
///
/// # fn main() -> shmkit::Result<()> {
/// shmkit::sync::set_interrupt_check(Some(|| STOP.load(Ordering::Relaxed)));
/// let event = shmkit::Event::new()?;
/// STOP.store(true, Ordering::Relaxed);
/// assert_eq!(event.wait().unwrap_err().code(), 208);
/// # Ok(())
/// # }
/// ```
pub fn set_interrupt_check(check: Option<fn() -> bool>) {
    *CHECK.write().unwrap_or_else(PoisonError::into_inner) = check;
}

/// Whether anybody wants to be asked on this thread.
pub(crate) fn is_asked() -> bool {
    !SHIELDED.get() && (EXPECTED.load(Ordering::Relaxed) || is_checked())
}

fn is_checked() -> bool {
    CHECK.read().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// Asked before every sleep.
///
/// # Errors
/// `Interrupted` if the wait is to end.
pub(crate) fn check() -> Result<()> {
    if SHIELDED.get() {
        return Ok(());
    }
    // Relaxed: nothing else is read on its account.
    if ENDING.load(Ordering::Relaxed) && !TOLD.replace(true) {
        return Err(SyncError::Interrupted.into());
    }
    let check = *CHECK.read().unwrap_or_else(PoisonError::into_inner);
    match check {
        Some(is_over) if is_over() => Err(SyncError::Interrupted.into()),
        _ => Ok(()),
    }
}

/// Runs `work`, whose waits nothing interrupts.
pub(crate) fn shielded<R>(work: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            SHIELDED.set(self.0);
        }
    }
    let _restore = Restore(SHIELDED.replace(true));
    work()
}
