//! A process killed at each step of the objects of `sync` that more than two take part in: the rows of their crash tables.

mod common;

use shmkit::{Segment, failpoint};

roles!(barrier, buries, judges, notifies, once, permits, recovers, rwlock, waits);

/// In a child: the segment, and once the parent says so, the kill point that is to be armed.
fn prepare(arguments: &[String]) -> Segment {
    let segment = Segment::open(&arguments[0]).unwrap();
    common::say("ready");
    common::listen();
    failpoint::arm(&arguments[1], arguments[2].parse().unwrap());
    segment
}

/// Recovers whoever is dead, and dies at the kill point itself.
fn recovers(arguments: &[String]) {
    prepare(arguments).recover();
    panic!("the kill point was not reached");
}

/// Starts a child in `role` that dies at the `nth` passage of `point`, and waits for its death.
fn kill(role: &str, segment: &common::Named, point: &str, nth: u32, more: &[&str]) {
    let nth = nth.to_string();
    let mut child = common::start(role, &[&[segment.name.as_str(), point, &nth], more].concat());
    child.expect("ready");
    child.tell("go");
    child.was_killed();
}

fn permits(arguments: &[String]) {
    let segment = prepare(arguments);
    let permits = segment.permit_semaphore("permits").open().unwrap();
    let first = permits.acquire().unwrap();
    permits.acquire().unwrap().forget();
    drop(first);
}

#[test]
fn permits_come_back_wherever_their_holder_dies() {
    for (point, nth) in [
        ("permits.before_take", 1),
        ("permits.taken", 1),
        ("permits.taken", 2),
        ("permits.before_release", 1),
        ("permits.released", 1),
    ] {
        let segment = common::named("crash-permits");
        let permits = segment.permit_semaphore("permits").permits(3).create().unwrap();
        let mine = permits.acquire().unwrap();
        kill("permits", &segment, point, nth, &[]);
        let others = (permits.acquire().unwrap(), permits.acquire().unwrap());
        assert_eq!(permits.value(), 0, "{point}");
        drop((mine, others));
        assert_eq!(permits.value(), 3, "{point}");
        segment.verify().unwrap();
    }
}

#[test]
fn permits_come_back_although_their_recoverer_dies() {
    for nth in 1..=3 {
        let segment = common::named("crash-permits-recovery");
        let permits = segment.permit_semaphore("permits").permits(3).create().unwrap();
        kill("permits", &segment, "permits.released", 1, &[]);
        kill("recovers", &segment, "permits.recovered", nth, &[]);
        let all = (permits.acquire().unwrap(), permits.acquire().unwrap(), permits.acquire().unwrap());
        drop(all);
        assert_eq!(permits.value(), 3, "{nth}");
        segment.verify().unwrap();
    }
}

/// Reads, writes, and becomes a reader again.
fn rwlock(arguments: &[String]) {
    let segment = prepare(arguments);
    let lock = segment.rwlock::<[u64; 2]>("pair").open().unwrap();
    drop(lock.read().unwrap());
    let mut pair = lock.write().unwrap();
    *pair = [1, 1];
    drop(pair.downgrade().unwrap());
}

#[test]
fn an_rwlock_goes_on_wherever_its_holder_dies() {
    for (point, nth, told, value) in [
        ("rwlock.counted", 1, false, 0),
        ("rwlock.read", 1, false, 0),
        ("rwlock.left", 1, false, 0),
        ("rwlock.claimed", 1, true, 0),
        ("rwlock.drained", 1, true, 0),
        ("rwlock.counted", 2, true, 1),
        ("rwlock.downgraded", 1, true, 1),
        ("rwlock.unlocked", 1, false, 1),
        ("rwlock.left", 2, false, 1),
    ] {
        for by_reader in [true, false] {
            let segment = common::named("crash-rwlock");
            let lock = segment.rwlock::<[u64; 2]>("pair").create().unwrap();
            kill("rwlock", &segment, point, nth, &[]);
            let mut was_told = false;
            let pair = if by_reader {
                let reader = lock.read().or_else(|dead| {
                    was_told = true;
                    dead.repair(|_| ()).unwrap().downgrade()
                });
                *reader.unwrap()
            } else {
                let writer = lock.write().or_else(|dead| {
                    was_told = true;
                    dead.repair(|_| ())
                });
                *writer.unwrap()
            };
            assert_eq!((was_told, pair), (told, [value; 2]), "{point} {nth}, found by a reader: {by_reader}");
            drop(lock.write().unwrap());
            drop((lock.read().unwrap(), lock.try_read().unwrap()));
            assert_eq!(lock.readers(), 0, "{point}");
            segment.verify().unwrap();
        }
    }
}

/// Somebody sleeps while the one it waits for is killed before the wake.
#[test]
fn who_sleeps_at_an_rwlock_is_not_forgotten() {
    let segment = common::named("crash-rwlock-sleeper");
    let lock = segment.rwlock::<[u64; 2]>("pair").create().unwrap();
    for (point, nth) in [("rwlock.left", 1), ("rwlock.unlocked", 1)] {
        let mut child = common::start("rwlock", &[&segment.name, point, &nth.to_string()]);
        child.expect("ready");
        std::thread::scope(|scope| {
            let held = lock.read().unwrap();
            scope.spawn(|| drop(lock.write().unwrap()));
            while !lock.is_write_locked() {
                std::thread::yield_now();
            }
            scope.spawn(|| drop(lock.read().unwrap()));
            child.tell("go");
            drop(held);
        });
        child.was_killed();
    }
    drop(lock.write().unwrap());
    assert_eq!(lock.readers(), 0);
    segment.verify().unwrap();
}

#[test]
fn an_rwlock_goes_on_although_its_recoverer_dies() {
    for point in ["rwlock.recovered_readers", "rwlock.recovered_writer"] {
        let segment = common::named("crash-rwlock-recovery");
        let lock = segment.rwlock::<[u64; 2]>("pair").create().unwrap();
        kill("rwlock", &segment, "rwlock.downgraded", 1, &[]);
        kill("recovers", &segment, point, 1, &[]);
        drop(lock.write().expect_err("told").repair(|_| ()).unwrap());
        assert_eq!((lock.readers(), *lock.write().unwrap()), (0, [1, 1]), "{point}");
        segment.verify().unwrap();
    }
}

fn once(arguments: &[String]) {
    let segment = prepare(arguments);
    segment.once("once").open().unwrap().call(|| ()).unwrap();
}

#[test]
fn it_is_done_wherever_the_runner_dies() {
    for (point, done, told) in [
        ("once.claimed", false, true),
        ("once.run", false, true),
        ("once.done", true, false),
        ("once.unlocked", true, false),
    ] {
        let segment = common::named("crash-once");
        let once = segment.once("once").create().unwrap();
        std::thread::scope(|scope| {
            // Sleeps while the wake never comes.
            scope.spawn(|| once.wait().unwrap());
            kill("once", &segment, point, 1, &[]);
            assert_eq!(once.is_done(), done, "{point}");
            let mut was_told = false;
            let ran = once.try_call(|again| {
                was_told = again;
                Ok::<_, shmkit::Error>(())
            });
            assert_eq!((ran.unwrap(), was_told), (!done, told), "{point}");
        });
        drop(once);
        segment.verify().unwrap();
    }
}

fn barrier(arguments: &[String]) {
    let segment = prepare(arguments);
    let barrier = segment.barrier("gate").open().unwrap();
    if arguments[3] == "reset" {
        barrier.reset();
    } else {
        let _ = barrier.wait_with(|| Ok(()));
    }
}

/// Waits until `count` parties have arrived.
fn until_waiting(barrier: &shmkit::Barrier, count: u32) {
    while barrier.n_waiting() < count {
        std::thread::yield_now();
    }
}

/// It can be used by two fresh parties, whatever happened.
fn passes(segment: &common::Named, barrier: &shmkit::Barrier, what: &str) {
    barrier.reset();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| barrier.wait().unwrap_or_else(|error| panic!("{what}: {error}")));
        }
    });
    assert_eq!((barrier.n_waiting(), barrier.is_broken()), (0, false), "{what}");
    segment.verify().unwrap_or_else(|error| panic!("{what}: {error}"));
}

#[test]
fn a_barrier_breaks_or_is_passed_wherever_a_party_dies() {
    // The child comes last, to a party that waits.
    for (point, nth, passed) in [
        ("barrier.arrived", 1, false),
        ("barrier.complete", 1, false),
        ("barrier.changed", 1, false),
        ("barrier.action", 1, false),
        ("barrier.acted", 1, false),
        ("barrier.changed", 2, true),
        ("barrier.passed", 1, true),
        ("barrier.left", 1, true),
    ] {
        let what = format!("{point} {nth}");
        let segment = common::named("crash-barrier");
        let barrier = segment.barrier("gate").parties(2).create().unwrap();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| barrier.wait());
            until_waiting(&barrier, 1);
            kill("barrier", &segment, point, nth, &["wait"]);
            assert_eq!(other.join().unwrap().is_ok(), passed, "{what}");
        });
        assert_eq!(barrier.is_broken(), !passed, "{what}");
        passes(&segment, &barrier, &what);
    }
}

#[test]
fn a_barrier_is_whole_again_wherever_its_resetter_dies() {
    for (point, nth) in [("barrier.changed", 1), ("barrier.reset", 1), ("barrier.changed", 2)] {
        for is_broken in [true, false] {
            // Only a broken one with nobody inside becomes whole in the resetter's own hands.
            if nth == 2 && !is_broken {
                continue;
            }
            let what = format!("{point} {nth}, broken: {is_broken}");
            let segment = common::named("crash-barrier-reset");
            let barrier = segment.barrier("gate").parties(2).create().unwrap();
            std::thread::scope(|scope| {
                let other = scope.spawn(|| barrier.wait());
                until_waiting(&barrier, 1);
                if is_broken {
                    barrier.abort();
                    assert!(other.join().unwrap().is_err());
                    kill("barrier", &segment, point, nth, &["reset"]);
                } else {
                    kill("barrier", &segment, point, nth, &["reset"]);
                    assert!(other.join().unwrap().is_err());
                }
            });
            assert!(!barrier.is_broken(), "{what}");
            passes(&segment, &barrier, &what);
        }
    }
}

#[test]
fn a_barrier_breaks_although_its_recoverer_dies() {
    for point in ["barrier.recover_broken", "barrier.recover_word"] {
        let segment = common::named("crash-barrier-recovery");
        let barrier = segment.barrier("gate").parties(2).create().unwrap();
        kill("barrier", &segment, "barrier.arrived", 1, &["wait"]);
        kill("recovers", &segment, point, 1, &[]);
        assert!(barrier.is_broken());
        assert!(barrier.wait().is_err());
        passes(&segment, &barrier, point);
    }
}

fn waits(arguments: &[String]) {
    let condition = prepare(arguments).condition("ready").open().unwrap();
    let _guard = condition.lock().unwrap();
    condition.wait().unwrap();
}

fn notifies(arguments: &[String]) {
    let condition = prepare(arguments).condition("ready").open().unwrap();
    let _guard = condition.lock().unwrap();
    condition.notify(2).unwrap();
}

fn until_waiting_at(condition: &shmkit::Condition, count: usize) {
    while condition.waiting() < count {
        std::thread::yield_now();
    }
}

/// Waits at the condition; true if it was told that somebody died holding the lock.
fn wait_at(condition: &shmkit::Condition) -> bool {
    let _guard = condition.lock().or_else(|dead| dead.repair(|_| ())).unwrap();
    match condition.wait() {
        Ok(()) => false,
        Err(shmkit::Error::Sync(shmkit::SyncError::OwnerDied)) => true,
        Err(other) => panic!("{other}"),
    }
}

/// Takes the lock; true if it was told that somebody died holding it.
fn lock_at(condition: &shmkit::Condition) -> (shmkit::sync::ConditionGuard<'_>, bool) {
    let mut told = false;
    let guard = condition.lock().or_else(|dead| {
        told = true;
        dead.repair(|_| ())
    });
    (guard.unwrap(), told)
}

/// One waits and one notifies, whatever happened.
fn goes_on(segment: &common::Named, condition: &shmkit::Condition, what: &str) {
    segment.recover();
    assert_eq!(condition.waiting(), 0, "{what}");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| wait_at(condition));
        until_waiting_at(condition, 1);
        let (guard, _) = lock_at(condition);
        assert_eq!(condition.notify(3).unwrap(), 1, "{what}");
        drop(guard);
        assert!(!waiter.join().unwrap(), "{what}");
    });
    assert_eq!(condition.waiting(), 0, "{what}");
    segment.verify().unwrap_or_else(|error| panic!("{what}: {error}"));
}

#[test]
fn a_condition_goes_on_wherever_one_who_waits_dies() {
    for (point, told) in [("condition.claimed", true), ("condition.ticket", true), ("condition.released", false)] {
        let segment = common::named("crash-condition");
        let condition = segment.condition("ready").create().unwrap();
        kill("waits", &segment, point, 1, &[]);
        let (guard, was_told) = lock_at(&condition);
        assert_eq!((was_told, condition.notify(1).unwrap()), (told, 0), "{point}");
        drop(guard);
        goes_on(&segment, &condition, point);
    }
}

#[test]
fn a_notification_is_passed_on_unless_it_was_used() {
    for (point, told, passed_on) in
        [("condition.awake", false, true), ("condition.resumed", true, true), ("condition.freed", true, false)]
    {
        let segment = common::named("crash-condition-notified");
        let condition = segment.condition("ready").create().unwrap();
        let mut child = common::start("waits", &[&segment.name, point, "1"]);
        child.expect("ready");
        child.tell("go");
        until_waiting_at(&condition, 1);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| wait_at(&condition));
            until_waiting_at(&condition, 2);
            let guard = condition.lock().unwrap();
            assert_eq!(condition.notify(1).unwrap(), 1);
            drop(guard);
            child.was_killed();
            if !passed_on {
                let (guard, was_told) = lock_at(&condition);
                assert_eq!((was_told, condition.notify(1).unwrap()), (told, 1), "{point}");
                drop(guard);
            }
            assert_eq!(other.join().unwrap(), told && passed_on, "{point}");
        });
        goes_on(&segment, &condition, point);
    }
}

#[test]
fn those_who_were_notified_go_on_wherever_the_notifier_dies() {
    for (point, nth, woken) in [("condition.marked", 1, 1), ("condition.marked", 2, 2), ("condition.notified", 1, 2)] {
        let what = format!("{point} {nth}");
        let segment = common::named("crash-condition-notifier");
        let condition = segment.condition("ready").create().unwrap();
        std::thread::scope(|scope| {
            let waiters = [scope.spawn(|| wait_at(&condition)), scope.spawn(|| wait_at(&condition))];
            until_waiting_at(&condition, 2);
            kill("notifies", &segment, point, nth, &[]);
            assert_eq!(condition.waiting(), 2 - woken, "{what}");
            segment.recover();
            while waiters.iter().filter(|waiter| waiter.is_finished()).count() < woken {
                std::thread::yield_now();
            }
            let guard = condition.lock().unwrap();
            assert_eq!(condition.notify_all().unwrap(), 2 - woken, "{what}");
            drop(guard);
            let told = waiters.map(|waiter| waiter.join().unwrap());
            assert_eq!(told.iter().filter(|told| **told).count(), 1, "{what}: the first one who has the lock is told");
        });
        goes_on(&segment, &condition, &what);
    }
}

/// Notifies one, and stops when it has seen him alive.
fn judges(arguments: &[String]) {
    let condition = Segment::open(&arguments[0]).unwrap().condition("ready").open().unwrap();
    let _guard = condition.lock().unwrap();
    failpoint::stop("condition.judged", 1);
    assert_eq!(condition.notify(1).unwrap(), 1);
    common::say("notified");
    common::listen();
}

/// Recovers, and stops when it has looked at the first record of the dead one.
fn buries(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    failpoint::stop("condition.recover_seen", 1);
    assert_eq!(segment.recover(), 1);
}

#[test]
fn a_notification_is_passed_on_that_comes_while_its_receiver_is_recovered() {
    let segment = common::named("crash-condition-late");
    let condition = segment.condition("ready").create().unwrap();
    let mut waiters = [1, 2].map(|count| {
        let mut child = common::start("waits", &[&segment.name, "nowhere", "1"]);
        child.expect("ready");
        child.tell("go");
        until_waiting_at(&condition, count);
        // It has released the lock, too.
        drop(condition.lock().unwrap());
        child
    });
    let [first, second] = &mut waiters;
    // So that nobody recovers but who is told to.
    second.signal(libc::SIGSTOP);
    second.was_stopped();
    let mut notifier = common::start("judges", &[&segment.name]);
    notifier.was_stopped();
    first.kill();
    let mut recoverer = common::start("buries", &[&segment.name]);
    recoverer.was_stopped();

    notifier.signal(libc::SIGCONT);
    notifier.expect("notified");
    recoverer.signal(libc::SIGCONT);
    recoverer.succeeded();
    notifier.tell("end");
    notifier.succeeded();
    assert_eq!(condition.waiting(), 0);
    second.signal(libc::SIGCONT);
    second.succeeded();
    goes_on(&segment, &condition, "notified late");
}

#[test]
fn records_that_were_being_added_neither_leak_nor_vanish() {
    for point in ["condition.chunk_made", "condition.chunk_linked"] {
        let segment = common::named("crash-condition-chunk");
        let condition = segment.condition("ready").create().unwrap();
        std::thread::scope(|scope| {
            let waiters: Vec<_> = (0..8).map(|_| scope.spawn(|| wait_at(&condition))).collect();
            until_waiting_at(&condition, 8);
            kill("waits", &segment, point, 1, &[]);
            let (guard, was_told) = lock_at(&condition);
            assert!(was_told, "{point}");
            assert_eq!(condition.notify_all().unwrap(), 8, "{point}");
            drop(guard);
            for waiter in waiters {
                assert!(!waiter.join().unwrap());
            }
        });
        goes_on(&segment, &condition, point);
    }
}

#[test]
fn a_notification_is_passed_on_although_the_recoverer_dies() {
    for point in ["condition.recover_lock", "condition.recover_passed_on", "condition.recover_freed"] {
        let segment = common::named("crash-condition-recovery");
        let condition = segment.condition("ready").create().unwrap();
        let mut first = common::start("waits", &[&segment.name, "condition.awake", "1"]);
        let mut second = common::start("waits", &[&segment.name, "never", "1"]);
        for (count, child) in [(1, &mut first), (2, &mut second)] {
            child.expect("ready");
            child.tell("go");
            until_waiting_at(&condition, count);
        }
        // Stopped, so that it does not recover anybody itself.
        second.signal(libc::SIGSTOP);
        // SAFETY: the child is this process's own and not reaped yet.
        unsafe { libc::waitpid(second.pid() as i32, std::ptr::null_mut(), libc::WUNTRACED) };
        let guard = condition.lock().unwrap();
        assert_eq!(condition.notify(1).unwrap(), 1);
        drop(guard);
        first.was_killed();
        kill("recovers", &segment, point, 1, &[]);
        second.signal(libc::SIGCONT);
        second.succeeded();
        goes_on(&segment, &condition, point);
    }
}
