//! Locks between threads and processes, and the death of those who hold them.

mod common;

use shmkit::LockError;

roles!(holder);

/// Takes the mutex, changes half of it, and waits to be killed.
fn holder(arguments: &[String]) {
    let segment = shmkit::Segment::open(&arguments[0]).unwrap();
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
    let Err(LockError::Failed(error)) = mutex.lock() else { panic!("not poisoned") };
    assert_eq!(error.code(), shmkit::Error::from(shmkit::SyncError::Poisoned).code());
    mutex.clear_poison();
    assert_eq!(*mutex.lock().unwrap(), [1, 0]);
}
