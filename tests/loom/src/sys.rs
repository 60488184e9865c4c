//! The operating system, as far as the files under test ask for it.

/// A failed system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{call}")]
pub struct SysError {
    /// The call.
    pub call: &'static str,
    /// What it said.
    pub errno: i32,
}

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::*;
}

pub(crate) mod fork {
    pub(crate) fn hold_off() {}
}

pub(crate) mod proc {
    pub(crate) fn cpus() -> Option<usize> {
        Some(1)
    }
}

/// The asymmetric barrier: of a publisher and a sleeper, one sees what the other did before. One word that both change stands for
/// it. Fences would do, too, but a publisher's would order its other accesses as well, and hide a release that lacks.
pub(crate) mod membarrier {
    use super::atomic::{AtomicU32, Ordering};

    loom::lazy_static! {
        static ref BARRIER: AtomicU32 = AtomicU32::new(0);
    }

    pub(crate) fn publisher() {
        BARRIER.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn sleeper() -> bool {
        publisher();
        true
    }
}

/// `futex(2)`: the compare and the sleep are one step against every wake, as by the kernel's lock of the word's bucket. A wake
/// orders what comes before it with the sleeper's compare, as the kernel's barriers do.
pub(crate) mod futex {
    use super::atomic::{AtomicU32, Ordering, fence};
    use loom::sync::{Condvar, Mutex};
    use std::ptr;
    use std::time::Duration;

    /// Who sleeps on which word, in the order in which they came.
    #[derive(Default)]
    struct Bucket {
        sleepers: Vec<(usize, u64)>,
        next: u64,
    }

    loom::lazy_static! {
        static ref BUCKET: Mutex<Bucket> = Mutex::new(Bucket::default());
        static ref WOKEN: Condvar = Condvar::new();
    }

    fn address(word: &AtomicU32) -> usize {
        ptr::from_ref(word) as usize
    }

    /// Sleeps while `word` is `expected`, until it is woken.
    pub(crate) fn wait(word: &AtomicU32, expected: u32, _: Duration) {
        let mut bucket = BUCKET.lock().unwrap();
        fence(Ordering::SeqCst);
        if word.load(Ordering::Relaxed) != expected {
            return;
        }
        let me = (address(word), bucket.next);
        bucket.next += 1;
        bucket.sleepers.push(me);
        while bucket.sleepers.contains(&me) {
            bucket = WOKEN.wait(bucket).unwrap();
        }
    }

    /// Wakes up to `count` sleepers, the longest asleep first.
    pub(crate) fn wake(word: &AtomicU32, count: u32) {
        fence(Ordering::SeqCst);
        let mut bucket = BUCKET.lock().unwrap();
        let (word, mut left) = (address(word), count);
        let before = bucket.sleepers.len();
        bucket.sleepers.retain(|&(on, _)| {
            let wakes = on == word && left > 0;
            left -= u32::from(wakes);
            !wakes
        });
        if bucket.sleepers.len() < before {
            WOKEN.notify_all();
        }
    }
}
