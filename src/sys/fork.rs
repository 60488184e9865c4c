//! Keeping `fork` out of the moments in which a descriptor carries a lock, and knowing afterwards that one is a child.

use rustix::mm::{self, Advice, MapFlags, ProtFlags};
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use super::{Call, SysError};

static GATE: Mutex<()> = Mutex::new(());

thread_local! {
    static HELD: Cell<Option<MutexGuard<'static, ()>>> = const { Cell::new(None) };
}

extern "C" fn before_fork() {
    let guard = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = HELD.try_with(|held| held.set(Some(guard)));
}

extern "C" fn after_fork() {
    let _ = HELD.try_with(|held| drop(held.take()));
}

/// While the guard lives, `fork(3)` in another thread waits. A raw `clone(2)` does not.
pub(crate) fn hold_off() -> MutexGuard<'static, ()> {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        // SAFETY: the handlers are functions of this program that neither unwind nor allocate.
        unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork)) };
    });
    GATE.lock().unwrap_or_else(PoisonError::into_inner)
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
