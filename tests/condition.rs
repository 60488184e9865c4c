//! Conditions: waiting for a notification, with the lock given up meanwhile.

mod common;

use shmkit::{Condition, Error, Lock, Process, Queue, RLock, Segment, SyncError};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

roles!(waits, notifies, holds, plays);

const SHORT: Duration = Duration::from_millis(5);

fn sync_error<T>(result: shmkit::Result<T>) -> SyncError {
    match result {
        Err(Error::Sync(error)) => error,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("no error"),
    }
}

/// Waits until `count` wait and are not notified.
fn until_waiting(condition: &Condition, count: usize) {
    while condition.waiting() < count {
        std::thread::yield_now();
    }
}

#[test]
fn waiting_and_notifying_need_the_lock() {
    let condition = Condition::new().unwrap();
    for error in [
        sync_error(condition.wait()),
        sync_error(condition.wait_for(|| true)),
        sync_error(condition.notify(1).map(drop)),
        sync_error(condition.notify_all().map(drop)),
        sync_error(condition.release()),
    ] {
        assert!(matches!(error, SyncError::NotOwner { .. }), "{error}");
    }
    condition.acquire().unwrap();
    assert!(condition.is_mine().unwrap());
    assert_eq!(condition.notify_all().unwrap(), 0, "nobody waits, and nothing is remembered");
    assert!(!condition.wait_timeout(SHORT).unwrap());
    assert!(condition.is_mine().unwrap(), "it has the lock again");
    condition.release().unwrap();
    assert_eq!(format!("{condition:?}"), "Condition(own lock, 0 waiting)");
}

#[test]
fn a_wait_gives_up_every_level_of_the_lock_and_takes_them_again() {
    let rlock = RLock::new().unwrap();
    let condition = Condition::with_rlock(&rlock).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let levels = (rlock.lock().unwrap(), condition.lock().unwrap(), rlock.lock().unwrap());
            assert_eq!(rlock.depth().unwrap(), 3);
            condition.wait().unwrap();
            assert_eq!(rlock.depth().unwrap(), 3);
            drop(levels);
            assert!(!rlock.is_mine().unwrap());
        });
        until_waiting(&condition, 1);
        let _guard = condition.lock().unwrap();
        assert_eq!(rlock.depth().unwrap(), 1);
        assert_eq!(condition.notify(5).unwrap(), 1);
    });
    assert!(!rlock.is_locked());
}

#[test]
fn several_conditions_share_a_lock() {
    let lock = Lock::new().unwrap();
    let (full, empty) = (Condition::with_lock(&lock).unwrap(), Condition::with_lock(&lock).unwrap());
    let buffer = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for producer in 0..2 {
            let (lock, full, empty, buffer) = (&lock, &full, &empty, &buffer);
            scope.spawn(move || {
                for n in 0..300 {
                    let _guard = lock.lock().unwrap();
                    full.wait_for(|| buffer.lock().unwrap().len() < 3).unwrap();
                    buffer.lock().unwrap().push(2 * n + producer);
                    empty.notify(1).unwrap();
                }
            });
        }
        let mut got = Vec::new();
        while got.len() < 600 {
            let _guard = lock.lock().unwrap();
            empty.wait_for(|| !buffer.lock().unwrap().is_empty()).unwrap();
            got.push(buffer.lock().unwrap().remove(0));
            full.notify(1).unwrap();
        }
        got.sort_unstable();
        assert_eq!(got, (0..600).collect::<Vec<_>>());
    });
}

#[test]
fn just_as_many_go_on_as_are_notified_first_come_first() {
    const THREADS: u32 = 20; // more than fit into the condition itself
    let condition = Condition::new().unwrap();
    let order = Mutex::new(Vec::new());
    let left = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for number in 0..THREADS {
            let (condition, order, left) = (&condition, &order, &left);
            scope.spawn(move || {
                let _guard = condition.lock().unwrap();
                order.lock().unwrap().push(number);
                condition.wait().unwrap();
                left.fetch_add(1, Ordering::SeqCst);
            });
        }
        until_waiting(&condition, THREADS as usize);
        let mut notified = 0;
        for count in [1, 0, 3, 7] {
            let guard = condition.lock().unwrap();
            assert_eq!(condition.notify(count).unwrap(), count);
            drop(guard);
            notified += count as u32;
            while left.load(Ordering::SeqCst) < notified {
                std::thread::yield_now();
            }
            assert_eq!(condition.waiting(), (THREADS - notified) as usize);
        }
        let _guard = condition.lock().unwrap();
        assert_eq!(condition.notify_all().unwrap(), (THREADS - notified) as usize);
    });
    assert_eq!(left.into_inner(), THREADS);
}

#[test]
fn wait_for_gives_the_last_answer() {
    let condition = Condition::new().unwrap();
    let _guard = condition.lock().unwrap();
    let mut asked = 0;
    let answer = condition.wait_for_timeout(
        || {
            asked += 1;
            false
        },
        SHORT,
    );
    assert!(!answer.unwrap() && asked >= 1);
    assert!(condition.wait_for_timeout(|| true, Duration::ZERO).unwrap());
}

#[test]
fn a_condition_and_its_lock_lie_in_one_segment() {
    let segment = common::named("condition-elsewhere");
    let elsewhere = Lock::new().unwrap();
    let error = segment.condition("ready").lock(&elsewhere).create().unwrap_err();
    assert!(matches!(error, Error::Sync(SyncError::OtherSegment)), "{error}");
}

#[test]
fn a_named_condition_finds_its_lock_again() {
    let segment = common::named("condition-named");
    let lock = segment.lock("lock").create().unwrap();
    segment.condition("ready").lock(&lock).create().unwrap();
    let ready = segment.condition("ready").open().unwrap();
    let _guard = ready.lock().unwrap();
    assert!(lock.is_locked());
    assert_eq!(format!("{ready:?}"), "Condition(Lock, 0 waiting)");
    // The condition's name alone keeps no lock alive.
    let unnamed = RLock::new_in(&segment).unwrap();
    segment.condition("lost").rlock(&unnamed).create().unwrap();
    drop(unnamed);
    assert!(segment.condition("lost").open().is_err());
}

fn answers(condition: Condition, calls: Queue<u32>) {
    let _guard = condition.lock().unwrap();
    calls.put(1).unwrap();
    condition.notify_all().unwrap();
    condition.wait_for(|| calls.is_empty()).unwrap();
}

#[test]
fn a_handle_takes_its_lock_along() {
    let lock = Lock::new().unwrap();
    let condition = Condition::with_lock(&lock).unwrap();
    let calls = Queue::<u32>::bounded(4).unwrap();
    let guard = lock.lock().unwrap();
    let child = Process::new(answers).args((condition.clone(), calls.clone())).start().unwrap();
    condition.wait_for(|| !calls.is_empty()).unwrap();
    assert_eq!(calls.get().unwrap(), 1);
    condition.notify_all().unwrap();
    drop(guard);
    assert!(child.join().unwrap().success());
    // Also when nobody else holds the lock any more.
    let handles = Queue::<Condition>::bounded(1).unwrap();
    handles.put_ref(&condition).unwrap();
    drop((condition, lock));
    let condition = handles.get().unwrap();
    let _guard = condition.lock().unwrap();
    assert_eq!(condition.notify(1).unwrap(), 0);
}

/// Waits at the condition, and says when it is awake.
fn waits(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let condition = segment.condition("ready").open().unwrap();
    let _guard = condition.lock().unwrap();
    condition.wait().unwrap();
    common::say("awake");
    common::listen();
}

#[test]
fn the_dead_are_passed_over() {
    let segment = common::named("condition-dead");
    let condition = segment.condition("ready").create().unwrap();
    let mut children: Vec<_> = (1..=3)
        .map(|count| {
            let child = common::start("waits", &[&segment.name]);
            until_waiting(&condition, count);
            child
        })
        .collect();
    children[0].kill();
    let guard = condition.lock().unwrap();
    assert_eq!(condition.notify(1).unwrap(), 1, "never the dead one, although it came first");
    drop(guard);
    children[1].expect("awake");
    // With the lock in its hands.
    children[1].kill();
    assert!(condition.lock().is_err_and(|dead| dead.repair(|_| ()).is_ok()));
    let guard = condition.lock().unwrap();
    assert_eq!(condition.notify_all().unwrap(), 1);
    drop(guard);
    children[2].expect("awake");
    children[2].tell("go");
    children[2].succeeded();
    assert_eq!(condition.waiting(), 0);
    segment.verify().unwrap();
}

#[test]
fn a_notification_of_one_who_is_stopped_or_dies_is_not_lost() {
    let segment = common::named("condition-passed-on");
    let condition = segment.condition("ready").create().unwrap();
    let mut first = common::start("waits", &[&segment.name]);
    until_waiting(&condition, 1);
    let mut second = common::start("waits", &[&segment.name]);
    until_waiting(&condition, 2);
    first.signal(libc::SIGSTOP);
    // SAFETY: the child is this process's own and not reaped yet.
    unsafe { libc::waitpid(first.pid() as i32, std::ptr::null_mut(), libc::WUNTRACED) };
    let guard = condition.lock().unwrap();
    assert_eq!(condition.notify(1).unwrap(), 1, "to the first, who is stopped: notifying does not wait for it");
    drop(guard);
    assert_eq!(condition.waiting(), 1);
    first.kill();
    second.expect("awake");
    second.tell("go");
    second.succeeded();
    segment.verify().unwrap();
}

/// Holds the lock and waits to be killed.
fn holds(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let _guard = segment.condition("ready").open().unwrap().acquire();
    common::say("held");
    common::listen();
}

#[test]
fn who_wakes_after_the_death_of_the_owner_is_told_and_has_the_lock() {
    let segment = common::named("condition-owner");
    let condition = segment.condition("ready").create().unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let guard = condition.lock().unwrap();
            let woken = condition.wait();
            assert!(condition.is_mine().unwrap());
            drop(guard);
            woken
        });
        until_waiting(&condition, 1);
        let mut child = common::start("notifies", &[&segment.name]);
        child.expect("notified");
        child.kill();
        assert_eq!(sync_error(waiter.join().unwrap()), SyncError::OwnerDied);
    });
    assert!(condition.lock().is_ok());
}

/// Notifies, keeps the lock, and waits to be killed.
fn notifies(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let condition = segment.condition("ready").open().unwrap();
    condition.acquire().unwrap();
    assert_eq!(condition.notify(1).unwrap(), 1);
    common::say("notified");
    common::listen();
}

#[test]
fn a_holder_who_dies_lets_the_waiter_give_up_and_come_back() {
    let segment = common::named("condition-holder");
    let condition = segment.condition("ready").create().unwrap();
    let inside = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _guard = condition.lock().unwrap();
            inside.store(true, Ordering::SeqCst);
            let woken = condition.wait_timeout(Duration::from_millis(50));
            assert!(matches!(woken, Ok(false) | Err(Error::Sync(SyncError::OwnerDied))), "{woken:?}");
            assert!(condition.is_mine().unwrap());
        });
        while !inside.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let mut child = common::start("holds", &[&segment.name]);
        child.expect("held");
        child.kill();
    });
    assert_eq!(condition.waiting(), 0);
}

/// One of those who pass a ball around: waits for its number, passes it to the next.
fn plays(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    play(&segment, arguments[1].parse().unwrap(), arguments[2].parse().unwrap(), arguments[3].parse().unwrap());
}

fn play(segment: &Segment, player: u64, players: u64, rounds: u64) {
    let condition = segment.condition("ready").open().unwrap();
    let ball = segment.value::<u64>("ball").open().unwrap();
    for round in 0..rounds {
        let _guard = condition.lock().unwrap();
        condition.wait_for(|| ball.get().unwrap() == round * players + player).unwrap();
        ball.set(round * players + player + 1).unwrap();
        condition.notify_all().unwrap();
    }
}

#[test]
fn threads_of_several_processes_take_turns() {
    const PLAYERS: u64 = 4;
    const ROUNDS: u64 = 200;
    let segment = common::named("condition-turns");
    segment.condition("ready").create().unwrap();
    let ball = segment.value::<u64>("ball").create().unwrap();
    let mut children: Vec<_> = (0..2)
        .map(|player| {
            let player = player.to_string();
            common::start("plays", &[&segment.name, &player, &PLAYERS.to_string(), &ROUNDS.to_string()])
        })
        .collect();
    std::thread::scope(|scope| {
        for player in 2..PLAYERS {
            let segment = &segment;
            scope.spawn(move || play(segment, player, PLAYERS, ROUNDS));
        }
    });
    for child in &mut children {
        child.succeeded();
    }
    assert_eq!(ball.get().unwrap(), PLAYERS * ROUNDS);
    segment.verify().unwrap();
}
