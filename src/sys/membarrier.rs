//! `membarrier(2)`: the expensive half of the asymmetric barrier between publishers and sleepers.

use std::sync::atomic::{AtomicU8, Ordering, compiler_fence, fence};

const QUERY: i32 = 0;
const GLOBAL_EXPEDITED: i32 = 1 << 1;
const REGISTER_GLOBAL_EXPEDITED: i32 = 1 << 2;

const UNKNOWN: u8 = 0;
const YES: u8 = 1;
const NO: u8 = 2;
static REGISTERED: AtomicU8 = AtomicU8::new(UNKNOWN);

fn membarrier(command: i32) -> i32 {
    // SAFETY: membarrier(2) takes three integers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) as i32 }
}

/// Registers this process as a publisher that needs no fence; false where the kernel does not offer it.
/// A forked child keeps the registration with the copied address space; `exec` drops it.
pub(crate) fn register() -> bool {
    match REGISTERED.load(Ordering::Relaxed) {
        YES => true,
        NO => false,
        _ => {
            let offered = membarrier(QUERY);
            let ok = offered > 0
                && offered & (GLOBAL_EXPEDITED | REGISTER_GLOBAL_EXPEDITED)
                    == GLOBAL_EXPEDITED | REGISTER_GLOBAL_EXPEDITED
                && membarrier(REGISTER_GLOBAL_EXPEDITED) == 0;
            REGISTERED.store(if ok { YES } else { NO }, Ordering::Relaxed);
            ok
        }
    }
}

/// Orders a publisher's store before its look at the wait word.
#[inline]
pub(crate) fn publisher() {
    if REGISTERED.load(Ordering::Relaxed) == YES {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// Orders a sleeper's mark in the wait word before its last look at the state, against every publisher of the machine.
/// False if the kernel refused: the sleep must be short.
pub(crate) fn sleeper() -> bool {
    fence(Ordering::SeqCst);
    membarrier(GLOBAL_EXPEDITED) == 0
}
