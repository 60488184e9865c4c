//! What the fuzzed process does with a segment: everything, and never waiting.

use shmkit::{Event, Lock, Mutex, Once, PermitSemaphore, RLock, RwLock, Segment, Semaphore};
use std::time::Duration;

/// Time-outs are zero: nobody else is there to wait for.
const NOW: Duration = Duration::ZERO;

/// What could be opened.
#[derive(Default)]
pub struct Opened {
    lock: Option<Lock>,
    rlock: Option<RLock>,
    mutex: Option<Mutex<[u64; 4]>>,
    semaphore: Option<Semaphore>,
    event: Option<Event>,
    permits: Option<PermitSemaphore>,
    once: Option<Once>,
    rwlock: Option<RwLock<[u64; 4]>>,
}

/// Puts an object of every kind into a sound segment.
pub fn fill(segment: &Segment) -> shmkit::Result<Opened> {
    Ok(Opened {
        lock: Some(segment.lock("lock").create()?),
        rlock: Some(segment.rlock("rlock").create()?),
        mutex: Some(segment.mutex("mutex").create()?),
        semaphore: Some(segment.semaphore("semaphore").initial(3).create()?),
        event: Some(segment.event("event").create()?),
        permits: Some(segment.permit_semaphore("permits").permits(5).create()?),
        once: Some(segment.once("once").create()?),
        rwlock: Some(segment.rwlock("rwlock").initial([1; 4]).create()?),
    })
}

/// Opens what can be opened.
pub fn open(segment: &Segment) -> Opened {
    Opened {
        lock: segment.lock("lock").open().ok(),
        rlock: segment.rlock("rlock").open().ok(),
        mutex: segment.mutex("mutex").open().ok(),
        semaphore: segment.semaphore("semaphore").open().ok(),
        event: segment.event("event").open().ok(),
        permits: segment.permit_semaphore("permits").open().ok(),
        once: segment.once("once").open().ok(),
        rwlock: segment.rwlock("rwlock").open().ok(),
    }
}

/// Uses everything. Errors are fine; the values that come out do not matter, but must come out.
pub fn exercise(segment: &Segment, opened: &Opened) {
    let _ = segment.objects();
    let _ = segment.participants();
    let _ = segment.memory();
    let _ = segment.verify();
    segment.recover();
    sync(opened);
    let _ = fresh(segment);
    let _ = segment.remove("lock");
    let _ = segment.remove("no such object");
}

fn sync(opened: &Opened) {
    if let Some(lock) = &opened.lock {
        drop(lock.lock_timeout(NOW));
        let _ = lock.acquire_timeout(NOW);
        let _ = lock.release();
        let _ = format!("{lock:?}");
    }
    if let Some(rlock) = &opened.rlock {
        let outer = rlock.lock_timeout(NOW);
        let _ = rlock.depth();
        drop(rlock.try_lock());
        drop(outer);
        let _ = rlock.release();
    }
    if let Some(mutex) = &opened.mutex {
        match mutex.lock_timeout(NOW) {
            Ok(mut guard) => guard[0] = 1,
            Err(dead) => drop(dead.repair(|guard| guard[0] = 2)),
        }
        mutex.clear_poison();
    }
    if let Some(semaphore) = &opened.semaphore {
        drop(semaphore.acquire_timeout(NOW));
        let _ = semaphore.release();
        assert!(semaphore.value() <= i32::MAX as u32, "more permits than there can be");
    }
    if let Some(event) = &opened.event {
        event.set();
        let _ = event.wait_timeout(NOW);
        event.clear();
    }
    if let Some(permits) = &opened.permits {
        let _ = permits.acquire_timeout(NOW).map(|permit| permit.forget());
        let permit = permits.try_acquire();
        let _ = permits.release();
        assert!(permits.value() <= permits.permits(), "more permits than there are");
        drop(permit);
    }
    if let Some(once) = &opened.once {
        // A call waits for whoever the word names: only one that names nobody alive is run.
        if !once.is_running() {
            let _ = once.call(|| ());
        }
        let _ = once.wait_timeout(NOW);
    }
    if let Some(rwlock) = &opened.rwlock {
        let _ = rwlock.try_read().map(|first| first[0] + rwlock.readers());
        match rwlock.write_timeout(NOW) {
            Ok(guard) => drop(guard.downgrade()),
            Err(dead) => drop(dead.repair(|guard| guard[0] = 2)),
        }
        drop(rwlock.try_write());
        rwlock.clear_poison();
    }
}

/// New objects beside the old ones, and their end.
fn fresh(segment: &Segment) -> shmkit::Result<()> {
    let lock = Lock::new_in(segment)?;
    drop(lock.lock()?);
    let big = Mutex::new_in(segment, [7u64; 1000])?;
    assert_eq!(big.lock()?.iter().sum::<u64>(), 7000, "a fresh object is this process's own");
    Ok(())
}
