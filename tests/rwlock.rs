//! Locks for many readers or one writer.

mod common;

use shmkit::{Error, LockError, Process, RwLock, Segment, SyncError};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

roles!(reads, writes, races);

const SHORT: Duration = Duration::from_millis(5);

type Pair = [u64; 2];

fn sync_error<T>(result: Result<T, impl Into<Error>>) -> SyncError {
    match result.map_err(Into::into) {
        Err(Error::Sync(error)) => error,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("no error"),
    }
}

#[test]
fn many_read_or_one_writes() {
    let lock = RwLock::new([1u64, 2]).unwrap();
    let first = lock.read().unwrap();
    let second = lock.try_read().unwrap();
    assert_eq!((lock.readers(), first[0] + second[1]), (2, 3));
    let SyncError::TimedOut { holder, .. } = sync_error(lock.write_timeout(SHORT)) else { panic!("no time-out") };
    assert_eq!(holder.unwrap().pid, std::process::id());
    assert!(matches!(sync_error(lock.try_write()), SyncError::WouldBlock { holder: Some(_), .. }));
    assert!(!lock.is_write_locked(), "who gave up has let go of the word");
    drop((first, second));
    let mut writer = lock.write().unwrap();
    writer[1] = 5;
    assert!(lock.is_write_locked());
    assert!(matches!(sync_error(lock.try_read()), SyncError::WouldBlock { holder: Some(_), .. }));
    assert!(matches!(sync_error(lock.read_timeout(SHORT)), SyncError::TimedOut { holder: Some(_), .. }));
    assert!(matches!(sync_error(lock.try_write()), SyncError::WouldBlock { .. }));
    let reader = writer.downgrade().unwrap();
    assert_eq!((reader[1], lock.readers()), (5, 1));
    assert!(lock.try_read().is_ok() && lock.try_write().is_err());
    drop(reader);
    assert_eq!(lock.readers(), 0);
    assert_eq!(format!("{lock:?}"), "RwLock { readers: 0, write_locked: false, .. }");
}

#[test]
fn new_readers_wait_for_a_writer_that_waits() {
    let lock = RwLock::new(0u64).unwrap();
    let reader = lock.read().unwrap();
    let wrote = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            *lock.write().unwrap() = 1;
            wrote.store(true, Ordering::SeqCst);
        });
        while !lock.is_write_locked() {
            std::thread::yield_now();
        }
        assert!(lock.try_read().is_err() && !wrote.load(Ordering::SeqCst));
        let late = scope.spawn(|| *lock.read().unwrap());
        drop(reader);
        writer.join().unwrap();
        assert_eq!(late.join().unwrap(), 1);
    });
}

/// Reads, and waits to be killed.
fn reads(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let lock = segment.rwlock::<Pair>("pair").open().unwrap();
    let guards = (lock.read().unwrap(), lock.read().unwrap());
    common::say("inside");
    common::listen();
    drop(guards);
}

#[test]
fn the_death_of_a_reader_lets_the_writer_in() {
    let segment = common::named("reader-dies");
    let lock = segment.rwlock::<Pair>("pair").initial([3, 3]).create().unwrap();
    let mut child = common::start("reads", &[&segment.name]);
    child.expect("inside");
    let SyncError::TimedOut { holder, .. } = sync_error(lock.write_timeout(SHORT)) else { panic!("no time-out") };
    assert_eq!(holder.unwrap().pid, child.pid());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| lock.write().map(|mut pair| pair[0] = 4).unwrap());
        while !lock.is_write_locked() {
            std::thread::yield_now();
        }
        child.kill();
        writer.join().unwrap();
    });
    assert_eq!(*lock.read().unwrap(), [4, 3]);
}

#[test]
fn a_stopped_reader_is_waited_for() {
    let segment = common::named("reader-stops");
    let lock = segment.rwlock::<Pair>("pair").create().unwrap();
    let mut child = common::start("reads", &[&segment.name]);
    child.expect("inside");
    child.signal(libc::SIGSTOP);
    // SAFETY: the child is this process's own and not reaped yet.
    unsafe { libc::waitpid(child.pid() as i32, std::ptr::null_mut(), libc::WUNTRACED) };
    let error = sync_error(lock.write_timeout(Duration::from_millis(120)));
    let SyncError::TimedOut { holder, .. } = error else { panic!("{error}") };
    assert_eq!(holder.unwrap().state, "stopped");
    child.signal(libc::SIGCONT);
    child.tell("go");
    child.succeeded();
    lock.write().unwrap();
}

/// Writes half, and waits to be killed.
fn writes(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let lock = segment.rwlock::<Pair>("pair").open().unwrap();
    let mut pair = lock.write().unwrap();
    pair[0] += 1;
    common::say("inside");
    common::listen();
}

fn with_dead_writer(what: &str) -> (common::Named, RwLock<Pair>) {
    let segment = common::named(what);
    let lock = segment.rwlock::<Pair>("pair").create().unwrap();
    let mut child = common::start("writes", &[&segment.name]);
    child.expect("inside");
    child.kill();
    (segment, lock)
}

#[test]
fn a_reader_that_finds_a_dead_writer_is_told_and_repairs() {
    let (_segment, lock) = with_dead_writer("writer-dies");
    let Err(dead) = lock.read() else { panic!("nobody said that the writer died") };
    assert!(dead.is_owner_died());
    let repaired = dead.repair(|pair| pair[1] = pair[0]).unwrap();
    let reader = repaired.downgrade().unwrap();
    assert_eq!(*reader, [1, 1]);
    assert_eq!(*lock.read().unwrap(), [1, 1]);
}

#[test]
fn a_writer_that_finds_a_dead_writer_is_told() {
    let (_segment, lock) = with_dead_writer("writer-dies-writer");
    match lock.write_timeout(Duration::from_secs(600)) {
        Err(dead @ LockError::OwnerDied(_)) => drop(dead.repair(|pair| **pair = [9, 9]).unwrap()),
        _ => panic!("nobody said that the writer died"),
    }
    assert_eq!(*lock.read().unwrap(), [9, 9]);
}

#[test]
fn unrepaired_data_are_refused_to_all() {
    let (_segment, lock) = with_dead_writer("writer-poison");
    assert_eq!(sync_error(lock.read()), SyncError::OwnerDied);
    assert_eq!(sync_error(lock.read()), SyncError::Poisoned);
    assert_eq!(sync_error(lock.try_read()), SyncError::Poisoned);
    assert_eq!(sync_error(lock.write()), SyncError::Poisoned);
    assert_eq!(sync_error(lock.try_write()), SyncError::Poisoned);
    lock.clear_poison();
    assert_eq!(*lock.read().unwrap(), [1, 0]);
}

#[test]
fn readers_inside_are_waited_for_before_the_repair() {
    let segment = common::named("writer-dies-waiting");
    let lock = segment.rwlock::<Pair>("pair").create().unwrap();
    let reader = lock.read().unwrap();
    let mut child = common::start("writes", &[&segment.name]);
    while !lock.is_write_locked() {
        std::thread::yield_now();
    }
    child.kill();
    segment.recover();
    assert!(matches!(sync_error(lock.try_read()), SyncError::WouldBlock { .. }), "one reader is inside still");
    assert!(matches!(sync_error(lock.write_timeout(SHORT)), SyncError::TimedOut { .. }));
    drop(reader);
    assert!(lock.read().is_err_and(|dead| dead.is_owner_died()), "those who gave up left the news to the next one");
}

#[test]
fn a_panic_of_a_writer_is_told_like_a_death() {
    let lock = RwLock::new(1u64).unwrap();
    let inside = lock.clone();
    let panicked = std::thread::spawn(move || {
        let mut value = inside.write().unwrap();
        *value = 2;
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    assert!(panicked.join().is_err());
    let Err(dead) = lock.read() else { panic!("nobody said so") };
    assert_eq!(*dead.repair(|value| **value += 1).unwrap(), 3);
}

fn races(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    race(&segment.rwlock::<[u64; 16]>("race").open().unwrap(), arguments[1].parse().unwrap(), 1);
}

/// Writers keep all elements equal; readers must never see them differ.
fn race(lock: &RwLock<[u64; 16]>, rounds: u64, seed: u64) {
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for _ in 0..rounds {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if random.is_multiple_of(8) {
            for element in &mut *lock.write().unwrap() {
                *element += 1;
            }
        } else {
            let seen = lock.read().unwrap();
            assert!(seen.iter().all(|element| *element == seen[0]), "torn: {:?}", *seen);
        }
    }
}

#[test]
fn readers_never_see_half_a_change() {
    const ROUNDS: u64 = 4000;
    let segment = common::named("rwlock-race");
    let lock = segment.rwlock::<[u64; 16]>("race").create().unwrap();
    let mut children: Vec<_> = (0..2).map(|_| common::start("races", &[&segment.name, &ROUNDS.to_string()])).collect();
    let seeds = AtomicU64::new(2);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| race(&lock, ROUNDS, seeds.fetch_add(1, Ordering::Relaxed)));
        }
    });
    for child in &mut children {
        child.succeeded();
    }
    assert_eq!(lock.readers(), 0);
    drop(lock.write().unwrap());
    segment.verify().unwrap();
}

fn looks(lock: RwLock<u64>) -> i32 {
    *lock.read().unwrap() as i32
}

#[test]
fn a_handle_is_an_argument() {
    let lock = RwLock::new(7u64).unwrap();
    let mine = lock.read().unwrap();
    let child = Process::new(looks).args((lock.clone(),)).start().unwrap();
    assert_eq!(child.join().unwrap().exit_code(), Some(7));
    drop(mine);
}
