//! Waiting on several words at once.
//!
//! ```text
//! mark every word; barrier; look at every state; futex_waitv; mark every word AGAIN before the next look
//! ```
//! As in [`super::wait`]. Who leaves wakes one more at each word it slept on: it takes nothing itself, and a wake-up that it ate
//! was for somebody who does.

use super::wait::{Deadline, FIRST_SLICE, LONGEST_SLICE};
use super::{Attachment, interrupt};
use crate::error::Result;
use crate::sys::futex::{self, Watched};
use crate::sys::membarrier;
use shmkit_layouts::words::EVENT_WAITING;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Slice where the kernel refuses the sleeper's barrier.
const SHORT_SLICE: Duration = Duration::from_millis(1);
/// The longest slice where a signal may have to be noticed: a handler with `SA_RESTART` does not end this sleep.
const NOTICING_SLICE: Duration = Duration::from_millis(100);

/// Something that one can wait for with others: its state, and the word whose change tells that the state may have changed.
pub(crate) trait Wakeable: Send + Sync {
    /// The segment it lies in.
    fn attachment(&self) -> &Attachment;

    /// The word.
    fn word(&self) -> &AtomicU32;

    /// Whether there is something to take, or an error to be had, at this instant. Looks with acquire loads.
    ///
    /// # Errors
    /// When that cannot be told.
    fn is_ready(&self) -> Result<bool>;

    /// Marks the word as slept on and gives the value to sleep on; `None` if one has to look again instead.
    fn mark(&self) -> Option<u32> {
        // SeqCst pairs with the load in `publish`: the mark is in place before the look at the state that follows.
        Some(self.word().fetch_or(EVENT_WAITING, Ordering::SeqCst) | EVENT_WAITING)
    }

    /// Wakes one who sleeps on the word: who slept on it himself leaves.
    fn pass_on(&self) {
        futex::wake(self.word(), 1);
    }
}

/// Recovers the dead of the segments that `all` lie in.
pub(crate) fn recover_dead<'a>(all: impl Iterator<Item = &'a dyn Wakeable>) {
    let mut done: Vec<*const Attachment> = Vec::new();
    for one in all {
        let attachment = std::ptr::from_ref(one.attachment());
        if !done.contains(&attachment) {
            one.attachment().recover_dead();
            done.push(attachment);
        }
    }
}

/// How long to sleep at most.
pub(crate) fn slice(longest: Duration) -> Duration {
    if interrupt::is_asked() { longest.min(NOTICING_SLICE) } else { longest }
}

/// Sleeps until `look` gives `true`, which says whether any of `all` is ready; false when the time is up.
pub(crate) fn wait(all: &[&dyn Wakeable], deadline: Deadline, mut look: impl FnMut() -> Result<bool>) -> Result<bool> {
    let mut slept = false;
    let mut longest = FIRST_SLICE;
    let mut looked = Instant::now();
    loop {
        let marked: Option<Vec<Watched>> =
            all.iter().map(|one| one.mark().map(|value| Watched::new(one.word(), value))).collect();
        let longest_now = if membarrier::sleeper() { slice(longest) } else { SHORT_SLICE };
        let left = deadline.left().unwrap_or(longest_now);
        let over = match look() {
            Ok(false) if left.is_zero() => Some(Ok(false)),
            Ok(false) => interrupt::check().err().map(Err),
            ready => Some(ready),
        };
        if let Some(outcome) = over {
            if slept {
                all.iter().for_each(|one| one.pass_on());
            }
            return outcome;
        }
        let Some(marked) = marked else { continue };
        futex::wait_any(&marked, longest_now.min(left));
        slept = true;
        if looked.elapsed() >= longest_now.min(left) {
            recover_dead(all.iter().copied());
            looked = Instant::now();
            longest = (longest * 2).min(LONGEST_SLICE);
        }
    }
}
