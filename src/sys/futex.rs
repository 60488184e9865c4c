//! `futex(2)`: sleeping on a shared word. Never `FUTEX_PRIVATE`: the word lies in a segment.
//!
//! # References
//! `futex(2)`; `futex_waitv`, since Linux 5.16: `Documentation/userspace-api/futex2.rst` of the kernel.

use rustix::io::Errno;
use rustix::thread::ClockId;
use rustix::thread::futex::{self, Flags, Wait, WaitFlags, WaitPtr, WaitvFlags};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// Sleeps while `word` is `expected`, at most for `timeout`. Why the sleep ended (a wake-up, a signal, the time) nobody needs to
/// know: whoever slept looks again at what he waits for.
pub(crate) fn wait(word: &AtomicU32, expected: u32, timeout: Duration) {
    let timeout = rustix::time::Timespec {
        tv_sec: timeout.as_secs().min(i64::MAX as u64) as i64,
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    let _ = futex::wait(word, Flags::empty(), expected, Some(&timeout));
}

/// Wakes up to `count` sleepers.
pub(crate) fn wake(word: &AtomicU32, count: u32) {
    let _ = futex::wake(word, Flags::empty(), count);
}

/// A word and the value it must have for a sleep to begin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watched {
    word: *const AtomicU32,
    value: u32,
}

impl Watched {
    /// Sleep while `word` is `value`.
    pub(crate) fn new(word: &AtomicU32, value: u32) -> Watched {
        Watched { word: ptr::from_ref(word), value }
    }
}

/// Words that one call can watch.
const MOST: usize = 128;
/// Slice where the kernel does not watch all of them.
const BLIND_SLICE: Duration = Duration::from_millis(2);

/// Sleeps while every word has its value, at most for `timeout`. Nobody but the kernel reads the words.
pub(crate) fn wait_any(words: &[Watched], timeout: Duration) {
    static REFUSED: AtomicBool = AtomicBool::new(false);
    let is_refused = REFUSED.load(Ordering::Relaxed);
    let watched = &words[..words.len().min(MOST)];
    let slice = if is_refused || words.len() > MOST { timeout.min(BLIND_SLICE) } else { timeout };
    if is_refused || watched.is_empty() {
        std::thread::sleep(slice);
        return;
    }
    let waits: Vec<Wait> = watched
        .iter()
        .map(|watched| {
            let mut wait = Wait::new();
            wait.val = u64::from(watched.value);
            wait.uaddr = WaitPtr::new(watched.word.cast_mut().cast());
            wait.flags = WaitFlags::SIZE_U32;
            wait
        })
        .collect();
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    let nanoseconds = now.tv_nsec + i64::from(slice.subsec_nanos());
    let until = rustix::time::Timespec {
        tv_sec: now.tv_sec.saturating_add(slice.as_secs().min(i64::MAX as u64) as i64 + nanoseconds / 1_000_000_000),
        tv_nsec: nanoseconds % 1_000_000_000,
    };
    // An older kernel, or one that filters calls: look often instead.
    if let Err(Errno::NOSYS | Errno::PERM) = futex::waitv(&waits, WaitvFlags::empty(), Some(&until), ClockId::Monotonic)
    {
        REFUSED.store(true, Ordering::Relaxed);
    }
}
