//! The end of a process that has pools: their threads end first.
//!
//! A process leaves its segments in order only if no other thread may be in the middle of something. A pool's own thread can be told
//! to stop; the workers are daemons and end as all daemons do. Nothing is completed and no callback is called any more.

use super::shared::Shared;
use crate::segment::locked;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Once, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The thread of a pool, until somebody has joined it.
pub(super) type Manager = Arc<Mutex<Option<JoinHandle<()>>>>;

/// How long the end of the process waits for a pool's thread: it may be in a callback that does not return.
const PATIENCE: Duration = Duration::from_secs(1);
/// How soon it looks again.
const LOOK: Duration = Duration::from_micros(100);

/// A pool of the process `owner`: a forked child has copies of its parent's, without their threads.
struct Known {
    owner: u32,
    shared: Weak<Shared>,
    manager: Manager,
}

static POOLS: Mutex<Vec<Known>> = Mutex::new(Vec::new());

/// Makes a pool known that has just begun.
pub(super) fn register(shared: &Arc<Shared>, manager: &Manager) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        crate::process::before_end(stop_all);
        crate::process::on_interrupt(interrupt_all);
    });
    let mut pools = locked(&POOLS);
    pools.retain(|pool| pool.shared.strong_count() > 0);
    pools.push(Known { owner: std::process::id(), shared: Arc::downgrade(shared), manager: Arc::clone(manager) });
}

/// Waits for the thread of a pool that has ended; not if that is this thread: a callback may drop the pool.
pub(super) fn join(manager: &Manager) {
    let running = locked(manager).take_if(|running| running.thread().id() != thread::current().id());
    // A panic of its own has been told already.
    let _ = running.map(JoinHandle::join);
}

/// Whether the thread ends within [`PATIENCE`]. A callback that ends the process does not wait for itself.
fn ends_soon(manager: &Manager) -> bool {
    let begin = Instant::now();
    while let Some(running) = &*locked(manager) {
        if running.is_finished() {
            break;
        }
        if running.thread().id() == thread::current().id() || begin.elapsed() >= PATIENCE {
            return false;
        }
        thread::sleep(LOOK);
    }
    true
}

/// The process was asked to end: every pool cancels what it has, and takes no more. Callbacks are its own thread's to call.
fn interrupt_all() {
    let owner = std::process::id();
    let pools = locked(&POOLS);
    let own: Vec<_> =
        pools.iter().filter(|pool| pool.owner == owner).filter_map(|pool| pool.shared.upgrade()).collect();
    drop(pools);
    for shared in own {
        // SeqCst: before the poke, after which it is looked at.
        shared.interrupted.store(true, Ordering::SeqCst);
        shared.poke();
    }
}

/// Ends the threads of all pools of this process.
fn stop_all() {
    let pools = std::mem::take(&mut *locked(&POOLS));
    for Known { owner, shared, manager } in pools {
        let Some(shared) = shared.upgrade().filter(|_| owner == std::process::id()) else { continue };
        // SeqCst: before the poke, after which it is looked at.
        shared.abandoned.store(true, Ordering::SeqCst);
        shared.poke();
        if ends_soon(&manager) {
            join(&manager);
        }
        // Whoever drops it last would take its objects along; the process leaves them all together.
        std::mem::forget(shared);
    }
}
