//! Barriers of threads and processes.

mod common;

use shmkit::{Barrier, Error, Segment, SyncError};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

roles!(arrives, rounds);

const SHORT: Duration = Duration::from_millis(5);

fn is_broken<T>(outcome: shmkit::Result<T>) -> bool {
    match outcome {
        Err(Error::Sync(SyncError::BrokenBarrier { .. })) => true,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => false,
    }
}

/// Waits until `count` parties have arrived.
fn until_waiting(barrier: &Barrier, count: u32) {
    while barrier.n_waiting() < count {
        std::thread::yield_now();
    }
}

#[test]
fn all_pass_together_and_each_gets_its_own_number() {
    const PARTIES: u32 = 5;
    let barrier = Barrier::new(PARTIES).unwrap();
    let arrived = AtomicU32::new(0);
    for round in 1..=50 {
        let places: BTreeSet<u32> = std::thread::scope(|scope| {
            let party = || {
                arrived.fetch_add(1, Ordering::SeqCst);
                let place = barrier.wait().unwrap();
                assert!(arrived.load(Ordering::SeqCst) >= round * PARTIES, "somebody passed too early");
                place
            };
            let parties: Vec<_> = (0..PARTIES).map(|_| scope.spawn(party)).collect();
            parties.into_iter().map(|party| party.join().unwrap()).collect()
        });
        assert_eq!(places, (0..PARTIES).collect());
    }
    assert_eq!((barrier.parties(), barrier.n_waiting(), barrier.is_broken()), (PARTIES, 0, false));
    assert_eq!(format!("{barrier:?}"), "Barrier(0 of 5)");
    for wrong in [0, u32::MAX] {
        assert!(Barrier::new(wrong).is_err());
    }
}

#[test]
fn the_action_is_run_once_a_round_before_anybody_passes() {
    let barrier = Barrier::new(3).unwrap();
    let runs = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for round in 1..=100 {
                    let act = || {
                        runs.fetch_add(1, Ordering::SeqCst);
                        Ok(())
                    };
                    barrier.wait_with(act).unwrap();
                    assert_eq!(runs.load(Ordering::SeqCst), round);
                    barrier.wait().unwrap();
                }
            });
        }
    });
}

#[test]
fn an_action_that_fails_or_panics_breaks_it_for_all() {
    for panics in [false, true] {
        let barrier = Barrier::new(2).unwrap();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| is_broken(barrier.wait()));
            until_waiting(&barrier, 1);
            let mine = scope.spawn(|| {
                barrier.wait_with(|| {
                    if panics {
                        std::panic::resume_unwind(Box::new("on purpose"));
                    }
                    Err(Error::Other("no".to_owned()))
                })
            });
            match mine.join() {
                Ok(failed) => assert_eq!(failed.unwrap_err().to_string(), "no"),
                Err(_) => assert!(panics),
            }
            assert!(other.join().unwrap());
        });
        assert!(barrier.is_broken());
    }
}

#[test]
fn a_time_out_breaks_it_for_all_until_it_is_reset() {
    let barrier = Barrier::new(3).unwrap();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| barrier.wait());
        until_waiting(&barrier, 1);
        assert!(is_broken(barrier.wait_timeout(SHORT)));
        let error = other.join().unwrap().unwrap_err();
        assert!(error.to_string().contains("did not wait any longer"), "{error}");
        assert_eq!(error.code(), 209);
    });
    assert!(barrier.is_broken());
    assert!(is_broken(barrier.wait()));
    barrier.reset();
    assert!(!barrier.is_broken());
    all_pass(&barrier);
}

fn all_pass(barrier: &Barrier) {
    std::thread::scope(|scope| {
        for _ in 0..barrier.parties() {
            scope.spawn(|| barrier.wait().unwrap());
        }
    });
}

#[test]
fn the_time_out_of_the_barrier_holds_for_all() {
    let segment = common::named("barrier-timeout");
    segment.barrier("gate").parties(2).timeout(SHORT).create().unwrap();
    let barrier = segment.barrier("gate").open().unwrap();
    assert!(is_broken(barrier.wait()));
}

#[test]
fn abort_and_reset_send_everybody_away() {
    let barrier = Barrier::new(3).unwrap();
    for resets in [false, true] {
        std::thread::scope(|scope| {
            let parties: Vec<_> = (0..2).map(|_| scope.spawn(|| is_broken(barrier.wait()))).collect();
            until_waiting(&barrier, 2);
            if resets {
                barrier.reset()
            } else {
                barrier.abort()
            }
            for party in parties {
                assert!(party.join().unwrap());
            }
        });
        assert_eq!(barrier.is_broken(), !resets);
        barrier.reset();
        all_pass(&barrier);
        barrier.reset();
        all_pass(&barrier);
    }
}

#[test]
fn more_threads_than_parties_take_turns() {
    const ROUNDS: u32 = 1000;
    let barrier = Barrier::new(2).unwrap();
    let arrivals = AtomicU32::new(0);
    let passed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while arrivals.fetch_add(1, Ordering::Relaxed) < 2 * ROUNDS {
                    passed.fetch_add(1 << (32 * barrier.wait().unwrap()), Ordering::Relaxed);
                }
            });
        }
    });
    let passed = passed.into_inner();
    assert_eq!((passed as u32, (passed >> 32) as u32), (ROUNDS, ROUNDS), "each round has one of each");
}

/// Arrives, and waits to be killed.
fn arrives(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    common::say("arriving");
    let _ = segment.barrier("gate").open().unwrap().wait();
}

#[test]
fn the_death_of_a_party_breaks_it_for_those_who_wait() {
    let segment = common::named("barrier-death");
    let barrier = segment.barrier("gate").parties(4).create().unwrap();
    let mut child = common::start("arrives", &[&segment.name]);
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..2).map(|_| scope.spawn(|| barrier.wait())).collect();
        until_waiting(&barrier, 3);
        child.kill();
        for other in others {
            let error = other.join().unwrap().unwrap_err();
            assert!(error.to_string().contains("died"), "{error}");
        }
    });
    assert!(barrier.is_broken());
    barrier.reset();
    assert_eq!(barrier.n_waiting(), 0);
    all_pass(&barrier);
    segment.verify().unwrap();
}

fn rounds(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    pass(&segment, arguments[1].parse().unwrap());
}

/// In each round everybody adds one, and all see all of it.
fn pass(segment: &Segment, rounds: u64) {
    let barrier = segment.barrier("gate").open().unwrap();
    let sum = segment.mutex::<u64>("sum").open().unwrap();
    let parties = u64::from(barrier.parties());
    for round in 1..=rounds {
        *sum.lock().unwrap() += 1;
        barrier.wait().unwrap();
        assert_eq!(*sum.lock().unwrap(), round * parties);
        barrier.wait().unwrap();
    }
}

#[test]
fn threads_of_several_processes_pass_together() {
    const ROUNDS: u64 = 100;
    let segment = common::named("barrier-rounds");
    segment.barrier("gate").parties(4).create().unwrap();
    segment.mutex::<u64>("sum").create().unwrap();
    let mut children: Vec<_> = (0..2).map(|_| common::start("rounds", &[&segment.name, &ROUNDS.to_string()])).collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| pass(&segment, ROUNDS));
        }
    });
    for child in &mut children {
        child.succeeded();
    }
    segment.verify().unwrap();
}
