//! `futex(2)`: sleeping on a shared word. Never `FUTEX_PRIVATE`: the word lies in a segment.

use rustix::thread::futex::{self, Flags};
use std::sync::atomic::AtomicU32;
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
