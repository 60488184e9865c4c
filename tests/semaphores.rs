//! Semaphores with a limit, and those whose permits have owners.

mod common;

use shmkit::{BoundedSemaphore, Error, PermitSemaphore, Segment, SegmentError, SyncError};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

roles!(takes, takes_and_stops, competes);

const SHORT: Duration = Duration::from_millis(5);

fn sync_error<T>(result: shmkit::Result<T>) -> SyncError {
    match result {
        Err(Error::Sync(error)) => error,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("no error"),
    }
}

#[test]
fn a_bounded_semaphore_notices_one_release_too_many() {
    let permits = BoundedSemaphore::new(2).unwrap();
    assert_eq!(sync_error(permits.release()), SyncError::TooManyPermits { maximum: 2, asked: 3 });
    permits.acquire().unwrap().forget();
    assert_eq!((permits.value(), permits.maximum()), (1, 2));
    assert_eq!(format!("{permits:?}"), "BoundedSemaphore(value=1/2)");
    permits.release().unwrap();
    assert!(permits.release().is_err());
    assert!(BoundedSemaphore::new(i32::MAX as u32).is_err());
}

#[test]
fn a_bounded_semaphore_is_a_semaphore_with_a_limit() {
    let segment = common::named("bounded");
    let bounded = segment.bounded_semaphore("bounded").initial(3).create().unwrap();
    segment.semaphore("free").create().unwrap();
    assert_eq!(segment.semaphore("bounded").open().unwrap().maximum(), 3);
    assert_eq!(segment.bounded_semaphore("bounded").open().unwrap().value(), bounded.value());
    let error = segment.bounded_semaphore("free").open().unwrap_err();
    assert!(matches!(error, Error::Segment(SegmentError::WrongKind { .. })), "{error}");
}

#[test]
fn permits_are_counted_and_given_back_by_their_holder() {
    let permits = PermitSemaphore::new(2).unwrap();
    let first = permits.acquire().unwrap();
    let second = permits.try_acquire().unwrap();
    assert_eq!((permits.value(), permits.permits()), (0, 2));
    for error in [sync_error(permits.try_acquire()), sync_error(permits.acquire_timeout(SHORT))] {
        let (SyncError::WouldBlock { holder, .. } | SyncError::TimedOut { holder, .. }) = error else {
            panic!("{error}")
        };
        assert_eq!(holder.unwrap().pid, std::process::id());
    }
    drop(first);
    second.forget();
    assert_eq!(permits.value(), 1);
    permits.release().unwrap();
    assert_eq!(permits.value(), 2);
    assert!(matches!(sync_error(permits.release()), SyncError::NotOwner { .. }));
    for wrong in [0, u32::MAX] {
        assert!(PermitSemaphore::new(wrong).is_err());
    }
}

#[test]
fn a_release_without_a_guard_frees_just_one_permit() {
    let permits = PermitSemaphore::new(3).unwrap();
    let guards = [permits.acquire().unwrap(), permits.acquire().unwrap()];
    permits.release().unwrap();
    assert_eq!(permits.value(), 2);
    let other = permits.acquire().unwrap();
    drop(guards);
    assert_eq!(permits.value(), 3, "two were taken by guards, one was given back by hand, one was taken again");
    drop(other);
    assert_eq!(permits.value(), 3);
}

/// Takes permits and waits to be killed.
fn takes(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let permits = segment.permit_semaphore("permits").open().unwrap();
    for _ in 0..arguments[1].parse().unwrap() {
        permits.acquire().unwrap().forget();
    }
    common::say("taken");
    common::listen();
}

#[test]
fn the_permits_of_the_dead_come_back() {
    let segment = common::named("permits");
    let permits = segment.permit_semaphore("permits").permits(3).create().unwrap();
    let mine = permits.acquire().unwrap();
    let mut child = common::start("takes", &[&segment.name, "2"]);
    child.expect("taken");
    assert_eq!(permits.value(), 0);
    let sleeper = {
        let permits = permits.clone();
        std::thread::spawn(move || permits.acquire().unwrap().forget())
    };
    child.kill();
    sleeper.join().unwrap();
    drop(permits.acquire().unwrap());
    assert_eq!(permits.value(), 1);
    permits.release().unwrap();
    drop(mine);
    assert_eq!(permits.value(), 3);
}

/// Takes a permit, stops, goes on, and gives it back.
fn takes_and_stops(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let permits = segment.permit_semaphore("permits").open().unwrap();
    let permit = permits.acquire().unwrap();
    common::say("taken");
    common::listen();
    drop(permit);
    assert_eq!(permits.value(), 1);
}

#[test]
fn a_stopped_process_keeps_its_permit() {
    let segment = common::named("stopped");
    let permits = segment.permit_semaphore("permits").create().unwrap();
    let mut child = common::start("takes_and_stops", &[&segment.name]);
    child.expect("taken");
    child.signal(libc::SIGSTOP);
    // SAFETY: the child is this process's own and not reaped yet.
    unsafe { libc::waitpid(child.pid() as i32, std::ptr::null_mut(), libc::WUNTRACED) };
    let SyncError::TimedOut { holder, .. } = sync_error(permits.acquire_timeout(Duration::from_millis(120))) else {
        panic!("no time-out")
    };
    let holder = holder.unwrap();
    assert_eq!((holder.pid, holder.state), (child.pid(), "stopped"));
    child.signal(libc::SIGCONT);
    child.tell("go");
    child.succeeded();
}

/// Never more holders at once than there are permits.
fn competes(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    compete(&segment, arguments[1].parse().unwrap());
}

fn compete(segment: &Segment, rounds: u32) {
    let permits = segment.permit_semaphore("permits").open().unwrap();
    let inside = segment.permit_semaphore("inside").open().unwrap();
    for _ in 0..rounds {
        let permit = permits.acquire().unwrap();
        // As many as there are permits: who finds none has found too many holders.
        drop(inside.try_acquire().expect("no more holders than permits"));
        drop(permit);
    }
}

#[test]
fn no_more_holders_than_permits() {
    const ROUNDS: u32 = 3000;
    let segment = common::named("compete");
    let permits = segment.permit_semaphore("permits").permits(2).create().unwrap();
    segment.permit_semaphore("inside").permits(2).create().unwrap();
    let mut children: Vec<_> =
        (0..2).map(|_| common::start("competes", &[&segment.name, &ROUNDS.to_string()])).collect();
    let done = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                compete(&segment, ROUNDS);
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    for child in &mut children {
        child.succeeded();
    }
    assert_eq!((done.into_inner(), permits.value()), (3, 2));
    segment.verify().unwrap();
}
