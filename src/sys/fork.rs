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
use std::time::Duration;

use super::{Call, SysError};

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
/// # References
/// `madvise(2)`, `MADV_WIPEONFORK`.
#[derive(Debug)]
pub(crate) struct WipedWords {
    words: &'static [AtomicU32; 2],
}

impl WipedWords {
    /// New words that are 0.
    pub(crate) fn new() -> Result<WipedWords, SysError> {
        // SAFETY: a fresh private mapping at an address of the kernel's choice.
        let page = unsafe {
            mm::mmap_anonymous(ptr::null_mut(), 4096, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
                .call("mmap")?
        };
        // SAFETY: the page was just mapped and nobody else knows it.
        unsafe { mm::madvise(page, 4096, Advice::LinuxWipeOnFork).call("madvise(MADV_WIPEONFORK)")? };
        // SAFETY: the page is zeroed, aligned, and unmapped only by `drop`, after which no copy of the reference is left:
        // the methods hand it out for the lifetime of `self` only.
        Ok(WipedWords { words: unsafe { &*page.cast() } })
    }

    /// The participant's token.
    #[inline]
    pub(crate) fn token(&self) -> &AtomicU32 {
        &self.words[0]
    }

    /// Threads of this process at the segment's own locks: all of them in the high half, those that wait in the low half.
    pub(crate) fn threads(&self) -> &AtomicU32 {
        &self.words[1]
    }
}

impl Drop for WipedWords {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, unmapped once.
        let _ = unsafe { mm::munmap(ptr::from_ref(self.words).cast_mut().cast(), 4096) };
    }
}
