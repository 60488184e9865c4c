//! Locks, semaphores and events between threads and processes, and what they say.

mod common;

use shmkit::{Error, Event, Lock, LockError, Mutex, RLock, Segment, Semaphore, SyncError};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

roles!(holder, counts, sets, releases, on_one_cpu);

const SHORT: Duration = Duration::from_millis(5);

fn sync_error<T>(result: Result<T, impl Into<Error>>) -> SyncError {
    match result.map_err(Into::into) {
        Err(Error::Sync(error)) => error,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("no error"),
    }
}

/// Takes the mutex, changes half of it, and waits to be killed.
fn holder(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let mutex = segment.mutex::<[u64; 2]>("pair").open().unwrap();
    let mut pair = mutex.lock().unwrap();
    pair[0] += 1;
    common::say("held");
    common::listen();
}

#[test]
fn a_killed_holder_hands_the_mutex_to_the_next_taker() {
    let segment = common::named("mutex");
    let mutex = segment.mutex::<[u64; 2]>("pair").initial([7, 7]).create().unwrap();
    let mut child = common::start("holder", &[&segment.name]);
    child.expect("held");
    assert!(mutex.try_lock().is_err());
    child.kill();
    let Err(dead) = mutex.lock() else { panic!("nobody said that the owner died") };
    assert!(dead.is_owner_died());
    let pair = dead.repair(|pair| pair[1] = pair[0]).unwrap();
    assert_eq!(*pair, [8, 8]);
    drop(pair);
    assert_eq!(*mutex.lock().unwrap(), [8, 8]);
}

#[test]
fn an_unrepaired_mutex_is_poisoned() {
    let segment = common::named("poison");
    let mutex = segment.mutex::<[u64; 2]>("pair").create().unwrap();
    let mut child = common::start("holder", &[&segment.name]);
    child.expect("held");
    child.kill();
    assert!(matches!(mutex.lock(), Err(LockError::OwnerDied(_))));
    assert_eq!(sync_error(mutex.lock()), SyncError::Poisoned);
    assert_eq!(sync_error(mutex.try_lock()), SyncError::Poisoned);
    mutex.clear_poison();
    assert_eq!(*mutex.lock().unwrap(), [1, 0]);
}

#[test]
fn a_sleeper_gets_the_lock_of_a_killed_owner() {
    let segment = common::named("sleeper");
    let mutex = segment.mutex::<[u64; 2]>("pair").create().unwrap();
    let mut child = common::start("holder", &[&segment.name]);
    child.expect("held");
    let sleeper = {
        let mutex = mutex.clone();
        std::thread::spawn(move || mutex.lock().err().is_some_and(|error| error.is_owner_died()))
    };
    child.kill();
    assert!(sleeper.join().unwrap());
}

#[test]
fn a_time_out_names_the_holder() {
    let segment = common::named("names");
    let mutex = segment.mutex::<[u64; 2]>("pair").create().unwrap();
    let mut child = common::start("holder", &[&segment.name]);
    child.expect("held");
    for error in [sync_error(mutex.lock_timeout(SHORT)), sync_error(mutex.try_lock())] {
        let (SyncError::TimedOut { holder, .. } | SyncError::WouldBlock { holder, .. }) = &error else {
            panic!("{error}")
        };
        assert_eq!(holder.as_ref().unwrap().pid, child.pid());
        assert!(error.to_string().contains(&child.pid().to_string()), "{error}");
    }
    child.signal(libc::SIGSTOP);
    // SAFETY: the child is this process's own and not reaped yet.
    unsafe { libc::waitpid(child.pid() as i32, std::ptr::null_mut(), libc::WUNTRACED) };
    let SyncError::TimedOut { holder, .. } = sync_error(mutex.lock_timeout(SHORT)) else { panic!("no time-out") };
    assert_eq!(holder.unwrap().state, "stopped", "a stopped owner is waited for, not robbed");
}

#[test]
fn a_panic_inside_is_told_like_a_death() {
    let mutex = Mutex::new(1u64).unwrap();
    let inside = mutex.clone();
    let panicked = std::thread::spawn(move || {
        let mut value = inside.lock().unwrap();
        *value = 2;
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    assert!(panicked.join().is_err());
    let Err(dead) = mutex.lock() else { panic!("nobody said so") };
    assert_eq!(*dead.repair(|value| **value += 1).unwrap(), 3);
}

/// Adds one to a shared counter, many times, under each kind of lock.
fn counts(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let rounds: u64 = arguments[1].parse().unwrap();
    add(&segment, rounds);
}

fn add(segment: &Segment, rounds: u64) {
    let mutex = segment.mutex::<u64>("mutex").open_or_create().unwrap();
    let lock = segment.lock("lock").open_or_create().unwrap();
    let rlock = segment.rlock("rlock").open_or_create().unwrap();
    let permit = segment.semaphore("permit").open_or_create().unwrap();
    // Three counters that only a lock makes right: read, then write.
    let counters: Vec<_> = ["a", "b", "c"].map(|name| segment.mutex::<u64>(name).open_or_create().unwrap()).into();
    let bump = |index: usize| {
        let seen = *counters[index].lock().unwrap();
        *counters[index].lock().unwrap() = seen + 1;
    };
    for _ in 0..rounds {
        *mutex.lock().unwrap() += 1;
        let guard = lock.lock().unwrap();
        bump(0);
        drop(guard);
        let outer = rlock.lock().unwrap();
        let inner = rlock.lock().unwrap();
        bump(1);
        drop((inner, outer));
        let taken = permit.acquire().unwrap();
        bump(2);
        drop(taken);
    }
}

#[test]
fn threads_of_several_processes_exclude_each_other() {
    const ROUNDS: u64 = 2000;
    let segment = common::named("exclude");
    let mut children: Vec<_> = (0..3).map(|_| common::start("counts", &[&segment.name, &ROUNDS.to_string()])).collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| add(&segment, ROUNDS));
        }
    });
    for child in &mut children {
        child.succeeded();
    }
    for name in ["mutex", "a", "b", "c"] {
        assert_eq!(*segment.mutex::<u64>(name).open().unwrap().lock().unwrap(), 5 * ROUNDS, "{name}");
    }
    segment.verify().unwrap();
}

#[test]
fn a_lock_is_released_by_anybody_and_not_twice() {
    let lock = Lock::new().unwrap();
    lock.acquire().unwrap();
    assert!(lock.is_mine().unwrap());
    assert!(!lock.acquire_timeout(SHORT).unwrap());
    assert!(!lock.acquire_timeout(Duration::ZERO).unwrap());
    let other = lock.clone();
    std::thread::spawn(move || other.release().unwrap()).join().unwrap();
    assert!(!lock.is_locked());
    assert!(matches!(sync_error(lock.release()), SyncError::NotOwner { .. }));
}

fn releases(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    segment.lock("gate").open().unwrap().release().unwrap();
    assert!(segment.rlock("own").open().unwrap().release().is_err());
}

#[test]
fn a_lock_is_released_by_another_process_but_an_rlock_is_not() {
    let segment = common::named("release");
    let lock = segment.lock("gate").create().unwrap();
    let rlock = segment.rlock("own").create().unwrap();
    lock.acquire().unwrap();
    rlock.acquire().unwrap();
    common::start("releases", &[&segment.name]).succeeded();
    assert!(!lock.is_locked());
    assert!(rlock.is_mine().unwrap());
}

#[test]
fn an_rlock_belongs_to_a_thread() {
    let lock = RLock::new().unwrap();
    lock.acquire().unwrap();
    let second = lock.try_lock().unwrap();
    assert_eq!(lock.depth().unwrap(), 2);
    let other = lock.clone();
    std::thread::spawn(move || {
        assert!(!other.is_mine().unwrap());
        assert_eq!(other.depth().unwrap(), 0);
        assert!(matches!(sync_error(other.try_lock()), SyncError::WouldBlock { .. }));
        assert!(matches!(sync_error(other.lock_timeout(SHORT)), SyncError::TimedOut { .. }));
        assert!(matches!(sync_error(other.release()), SyncError::NotOwner { .. }));
    })
    .join()
    .unwrap();
    drop(second);
    assert!(lock.is_mine().unwrap());
    lock.release().unwrap();
    assert!(matches!(sync_error(lock.release()), SyncError::NotOwner { .. }));
    assert!(!lock.is_locked());
}

#[test]
fn a_semaphore_counts_and_a_bounded_one_has_a_limit() {
    let permits = Semaphore::new(2).unwrap();
    let one = permits.acquire().unwrap();
    let two = permits.try_acquire().unwrap();
    assert_eq!(permits.value(), 0);
    assert!(matches!(sync_error(permits.try_acquire()), SyncError::WouldBlock { .. }));
    assert!(matches!(sync_error(permits.acquire_timeout(SHORT)), SyncError::TimedOut { .. }));
    drop(one);
    two.forget();
    assert_eq!(permits.value(), 1);
    permits.release().unwrap();
    permits.release().unwrap();
    assert_eq!(permits.value(), 3, "anybody may give more than was taken");
    let bounded = Semaphore::bounded(1).unwrap();
    assert_eq!(sync_error(bounded.release()), SyncError::TooManyPermits { maximum: 1, asked: 2 });
    assert!(Semaphore::new(u32::MAX).is_err());
}

#[test]
fn each_permit_wakes_one_sleeper() {
    let permits = Semaphore::new(0).unwrap();
    let taken = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                permits.acquire().unwrap().forget();
                taken.fetch_add(1, Ordering::Relaxed);
            });
        }
        for _ in 0..8 {
            permits.release().unwrap();
        }
    });
    assert_eq!(taken.into_inner(), 8);
    assert_eq!(permits.value(), 0);
}

fn sets(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    common::say("ready");
    common::listen();
    segment.event("go").open().unwrap().set();
}

#[test]
fn an_event_wakes_everybody() {
    let segment = common::named("event");
    let event = segment.event("go").create().unwrap();
    let mut child = common::start("sets", &[&segment.name]);
    child.expect("ready");
    assert!(!event.wait_timeout(SHORT).unwrap());
    let woken = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                event.wait().unwrap();
                woken.fetch_add(1, Ordering::Relaxed);
            });
        }
        child.tell("go");
    });
    assert_eq!(woken.into_inner(), 8);
    assert!(event.is_set());
    assert!(event.wait_timeout(Duration::ZERO).unwrap());
    event.clear();
    assert!(!event.is_set());
    assert_eq!(format!("{event:?} {:?}", Event::new().unwrap()), "Event(unset) Event(unset)");
}

#[test]
fn a_handle_is_no_value_outside_a_send() {
    let lock = Lock::new().unwrap();
    let error = postcard::to_stdvec(&lock).unwrap_err();
    assert!(matches!(error, postcard::Error::SerdeSerCustom), "{error}");
}

/// Uses locks where spinning is of no use.
fn on_one_cpu(arguments: &[String]) {
    // SAFETY: the set is plain data, and sched_setaffinity reads it only.
    let pinned = unsafe {
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu() as usize, &mut one);
        libc::sched_setaffinity(0, size_of_val(&one), &one)
    };
    assert_eq!(pinned, 0);
    let segment = shmkit::Segment::open(&arguments[0]).unwrap();
    let own = segment.mutex::<u64>("own").initial(1).create().unwrap();
    *own.lock().unwrap() += 1;
    *segment.mutex::<u64>("shared").open().unwrap().lock().unwrap() += 1;
}

#[test]
fn a_process_on_one_cpu_gets_its_locks_without_a_spin() {
    let segment = common::named("one-cpu");
    let shared = segment.mutex::<u64>("shared").create().unwrap();
    common::start("on_one_cpu", &[&segment.name]).succeeded();
    assert_eq!((*shared.lock().unwrap(), *segment.mutex::<u64>("own").open().unwrap().lock().unwrap()), (1, 2));
}
