//! Keeping `fork` out of the moments in which a process is not to be copied, and knowing afterwards that one is a child.
//!
//! Such a moment is one in which a descriptor carries a lock, or a thread is inside one of the process's own mutexes: in the child
//! that thread is not there to leave it.
//!
//! ```text
//! GATE   u32   forking:1 | threads inside:31
//! ```

use rustix::mm::{self, Advice, MapFlags, ProtFlags};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Call, SysError};

const PAGE: usize = 4096;

const FORKING: u32 = 1 << 31;

static GATE: AtomicU32 = AtomicU32::new(0);
/// A thread waits to fork.
static WANTED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// How many [`NoFork`] this thread has.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Whether this thread has closed the gate.
    static CLOSED: Cell<bool> = const { Cell::new(false) };
}

extern "C" fn before_fork() {
    // One that forks inside would wait for itself.
    if DEPTH.try_with(Cell::get).unwrap_or(1) > 0 {
        return;
    }
    WANTED.store(true, Ordering::Relaxed);
    // Acquire pairs with the release of who goes out: what he did inside is done.
    while GATE.compare_exchange_weak(0, FORKING, Ordering::Acquire, Ordering::Relaxed).is_err() {
        std::thread::yield_now();
    }
    WANTED.store(false, Ordering::Relaxed);
    CLOSED.set(true);
}

extern "C" fn after_fork() {
    if CLOSED.try_with(|closed| closed.replace(false)).unwrap_or(false) {
        // Release pairs with the acquire of who comes in.
        GATE.store(0, Ordering::Release);
    }
}

extern "C" fn after_fork_in_child() {
    // The other threads are not there any more: nor is the one that may have wanted to fork next.
    WANTED.store(false, Ordering::Relaxed);
    after_fork();
}

/// While it lives, `fork(3)` in another thread waits. A raw `clone(2)` does not.
#[derive(Debug)]
pub(crate) struct NoFork {
    /// The depth is its thread's.
    _thread: PhantomData<*const ()>,
}

/// Keeps forks off. May be nested.
pub(crate) fn hold_off() -> NoFork {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    // Not a `Once`: a child forked in the middle of one would wait for it for ever.
    if !REGISTERED.swap(true, Ordering::Relaxed) {
        // SAFETY: the handlers are functions of this program that neither unwind nor allocate.
        unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork_in_child)) };
    }
    let is_first = DEPTH.try_with(|depth| depth.replace(depth.get() + 1) == 0).unwrap_or(false);
    if is_first {
        enter();
    }
    NoFork { _thread: PhantomData }
}

fn enter() {
    // Who waits to fork goes first, but not for ever: this thread may have a lock that one inside waits for.
    for _ in 0..100 {
        if !WANTED.load(Ordering::Relaxed) {
            break;
        }
        std::thread::yield_now();
    }
    let mut seen = GATE.load(Ordering::Relaxed);
    loop {
        if seen & FORKING != 0 {
            std::thread::sleep(Duration::from_micros(50));
            seen = GATE.load(Ordering::Relaxed);
            continue;
        }
        match GATE.compare_exchange_weak(seen, seen + 1, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}

impl Drop for NoFork {
    fn drop(&mut self) {
        // A thread at its end, which has no depth any more, did not enter.
        let is_last = DEPTH.try_with(|depth| depth.replace(depth.get() - 1) == 1).unwrap_or(false);
        if is_last {
            // Release pairs with the acquire of who forks.
            GATE.fetch_sub(1, Ordering::Release);
        }
    }
}

/// Words that read 0 in every forked child, however the fork was made.
///
/// They lie on pages that the whole process shares, on a cache line of their own, and are given on.
///
/// # References
/// `madvise(2)`, `MADV_WIPEONFORK`.
#[derive(Debug)]
pub(crate) struct WipedWords {
    line: &'static Line,
}

/// A cache line on such a page, of which two words are used.
#[derive(Debug)]
#[repr(align(64))]
struct Line([AtomicU32; 2]);

/// Lines that nobody uses; their words are 0.
static UNUSED: Mutex<Vec<&'static Line>> = Mutex::new(Vec::new());

impl WipedWords {
    /// New words that are 0.
    pub(crate) fn new() -> Result<WipedWords, SysError> {
        // The lock is not to be copied while it is held.
        let _no_fork = hold_off();
        let mut unused = UNUSED.lock().unwrap_or_else(PoisonError::into_inner);
        if unused.is_empty() {
            // SAFETY: a fresh private mapping at an address of the kernel's choice.
            let page = unsafe {
                mm::mmap_anonymous(ptr::null_mut(), PAGE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
                    .call("mmap")?
            };
            // SAFETY: the page was just mapped and nobody else knows it.
            unsafe { mm::madvise(page, PAGE, Advice::LinuxWipeOnFork).call("madvise(MADV_WIPEONFORK)")? };
            // SAFETY: the page is zeroed, aligned, and never unmapped.
            let lines = unsafe { std::slice::from_raw_parts(page.cast::<Line>(), PAGE / size_of::<Line>()) };
            unused.extend(lines);
        }
        Ok(WipedWords { line: unused.pop().expect("just filled") })
    }

    /// The participant's token.
    #[inline]
    pub(crate) fn token(&self) -> &AtomicU32 {
        &self.line.0[0]
    }

    /// Threads of this process at the segment's own locks: all of them in the high half, those that wait in the low half.
    pub(crate) fn threads(&self) -> &AtomicU32 {
        &self.line.0[1]
    }
}

impl Drop for WipedWords {
    fn drop(&mut self) {
        let _no_fork = hold_off();
        // Relaxed: whoever gets the line next gets it through the lock.
        self.line.0.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        UNUSED.lock().unwrap_or_else(PoisonError::into_inner).push(self.line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_given_on_are_0_and_nobody_elses() {
        let (first, second) = (WipedWords::new().unwrap(), WipedWords::new().unwrap());
        first.token().store(7, Ordering::Relaxed);
        first.threads().store(8, Ordering::Relaxed);
        assert_eq!((second.token().load(Ordering::Relaxed), second.threads().load(Ordering::Relaxed)), (0, 0));
        drop(first);
        for _ in 0..200 {
            let next = WipedWords::new().unwrap();
            assert_eq!((next.token().load(Ordering::Relaxed), next.threads().load(Ordering::Relaxed)), (0, 0));
            // Kept, so that the next ones are others.
            std::mem::forget(next);
        }
    }
}
