//! A process killed at each step of the locks, semaphores and events: the rows of the crash tables of `sync`.

mod common;

use shmkit::{Segment, failpoint};
use std::os::unix::process::ExitStatusExt;

roles!(operates, waits_among_signals, has_both);

/// Does one thing with the objects of a segment, and dies at the kill point.
fn operates(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let mutex = segment.mutex::<u64>("mutex").open().unwrap();
    let rlock = segment.rlock("rlock").open().unwrap();
    let permits = segment.semaphore("permits").open().unwrap();
    let event = segment.event("event").open().unwrap();
    common::say("ready");
    common::listen();
    failpoint::arm(&arguments[1], 1);
    match arguments[2].as_str() {
        "mutex" => *mutex.lock().unwrap() += 1,
        "rlock" => {
            let _outer = rlock.lock().unwrap();
            let _inner = rlock.lock().unwrap();
        }
        "acquire" => permits.acquire().unwrap().forget(),
        "release" => permits.release().unwrap(),
        "event" => event.set(),
        other => panic!("unknown operation {other}"),
    }
}

/// What the survivors are to find after a death at a kill point.
struct Expected {
    operation: &'static str,
    point: &'static str,
    /// Whether the next owner of the lock is told.
    told: bool,
    value: u64,
    permits: u32,
    set: bool,
}

const BEFORE: Expected = Expected { operation: "", point: "", told: false, value: 0, permits: 2, set: false };

#[test]
fn killed_at_every_step() {
    let rows = [
        Expected { operation: "mutex", point: "lock.before", ..BEFORE },
        Expected { operation: "mutex", point: "lock.after", told: true, ..BEFORE },
        Expected { operation: "mutex", point: "unlock.before", told: true, value: 1, ..BEFORE },
        Expected { operation: "mutex", point: "unlock.after", value: 1, ..BEFORE },
        Expected { operation: "rlock", point: "rlock.claimed", told: true, ..BEFORE },
        Expected { operation: "rlock", point: "rlock.again", told: true, ..BEFORE },
        Expected { operation: "rlock", point: "rlock.cleared", told: true, ..BEFORE },
        Expected { operation: "acquire", point: "semaphore.acquired", permits: 1, ..BEFORE },
        Expected { operation: "release", point: "semaphore.before_release", ..BEFORE },
        Expected { operation: "release", point: "semaphore.released", permits: 3, ..BEFORE },
        Expected { operation: "event", point: "event.before_set", ..BEFORE },
        Expected { operation: "event", point: "event.set", set: true, ..BEFORE },
    ];
    for row in rows {
        let what = format!("{} killed at {}", row.operation, row.point);
        let segment = common::named("crash-sync");
        let mutex = segment.mutex::<u64>("mutex").create().unwrap();
        let rlock = segment.rlock("rlock").create().unwrap();
        let permits = segment.semaphore("permits").initial(2).create().unwrap();
        let event = segment.event("event").create().unwrap();
        let mut child = common::start("operates", &[&segment.name, row.point, row.operation]);
        child.expect("ready");
        // Somebody sleeps on the event while its setter is killed: the wake never comes.
        let sleeper = row.set.then(|| {
            let event = event.clone();
            std::thread::spawn(move || event.wait().unwrap())
        });
        child.tell("go");
        assert_eq!(child.end().signal(), Some(libc::SIGKILL), "{what}: not reached");
        let mut told = false;
        let value = match mutex.lock() {
            Ok(value) => *value,
            Err(dead) => {
                told = true;
                *dead.repair(|_| ()).unwrap()
            }
        };
        match rlock.lock() {
            Ok(_) => {}
            Err(dead) => {
                told = true;
                drop(dead.repair(|_| ()).unwrap());
            }
        }
        assert_eq!((told, value), (row.told, row.value), "{what}");
        assert!(!rlock.is_locked() && rlock.depth().unwrap() == 0, "{what}");
        assert_eq!(permits.value(), row.permits, "{what}");
        assert_eq!(event.is_set(), row.set, "{what}");
        if let Some(sleeper) = sleeper {
            sleeper.join().unwrap();
        }
        // Whoever comes afterwards can use everything.
        let mut fresh = common::start("operates", &[&segment.name, "never", "mutex"]);
        fresh.expect("ready");
        fresh.tell("go");
        fresh.succeeded();
        assert_eq!(*mutex.lock().unwrap(), row.value + 1, "{what}");
        segment.verify().unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

/// Waits for what a dead process has, while signals come faster than a slice of its sleep ends.
fn waits_among_signals(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let mutex = segment.mutex::<u64>("mutex").open().unwrap();
    let messages = segment.pod_queue::<u64>("messages").open().unwrap();
    extern "C" fn nothing(_: i32) {}
    let interval = libc::timeval { tv_sec: 0, tv_usec: 500 };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: the handler does nothing; the timer is initialised.
    unsafe {
        libc::signal(libc::SIGALRM, nothing as *const () as libc::sighandler_t);
        libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut());
    }
    common::say("ready");
    common::listen();
    assert!(mutex.lock().unwrap_err().is_owner_died());
    assert_eq!(messages.recv().unwrap().redelivered(), 1);
}

/// Has the mutex and a message until it is killed.
fn has_both(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let mutex = segment.mutex::<u64>("mutex").open().unwrap();
    let messages = segment.pod_queue::<u64>("messages").open().unwrap();
    let _both = (mutex.lock().unwrap(), messages.recv().unwrap());
    common::say("has");
    common::listen();
}

#[test]
fn who_is_interrupted_again_and_again_notices_a_death_all_the_same() {
    let segment = common::named("crash-signals");
    let _mutex = segment.mutex::<u64>("mutex").create().unwrap();
    let messages = segment.pod_queue::<u64>("messages").create().unwrap();
    messages.put(7).unwrap();
    let mut holder = common::start("has_both", &[&segment.name]);
    holder.expect("has");
    let mut waiter = common::start("waits_among_signals", &[&segment.name]);
    waiter.expect("ready");
    waiter.tell("go");
    holder.kill();
    waiter.succeeded();
}
