//! Things that are done once.

mod common;

use shmkit::{Error, Once, Segment};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

roles!(dies, loads);

#[test]
fn it_is_done_once_and_the_others_wait() {
    let once = Once::new().unwrap();
    assert_eq!(format!("{once:?}"), "Once(new)");
    assert!(!once.wait_timeout(Duration::from_millis(5)).unwrap());
    let (runs, ran) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mine = once
                    .call(|| {
                        assert!(once.is_running());
                        runs.fetch_add(1, Ordering::Relaxed);
                    })
                    .unwrap();
                assert!(once.is_done(), "no call returns before it is done");
                ran.fetch_add(u32::from(mine), Ordering::Relaxed);
            });
        }
        scope.spawn(|| once.wait().unwrap());
    });
    assert_eq!((runs.into_inner(), ran.into_inner()), (1, 1));
    assert_eq!(format!("{once:?}"), "Once(done)");
}

#[test]
fn a_failure_or_a_panic_leaves_it_to_the_next_caller() {
    let once = Once::new().unwrap();
    let failed = once.try_call(|_| Err(Error::Other("not today".to_owned())));
    assert_eq!(failed.unwrap_err().to_string(), "not today");
    let inside = once.clone();
    let panicked = std::thread::spawn(move || {
        inside.try_call(|again| -> shmkit::Result<()> {
            assert!(!again, "a failure leaves nothing half done");
            std::panic::resume_unwind(Box::new("on purpose"))
        })
    });
    assert!(panicked.join().is_err());
    assert!(!once.is_done());
    let mut told = false;
    let ran = once.try_call(|again| {
        told = again;
        Ok::<_, Error>(())
    });
    assert!(ran.unwrap() && told);
}

/// Begins, and waits to be killed.
fn dies(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let _ = segment.once("once").open().unwrap().call(|| {
        common::say("running");
        common::listen();
    });
}

#[test]
fn a_dead_runner_hands_it_on_to_one_who_waits() {
    let segment = common::named("once");
    let once = segment.once("once").create().unwrap();
    let mut child = common::start("dies", &[&segment.name]);
    child.expect("running");
    let told = AtomicU32::new(0);
    let runs = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                once.try_call(|again| {
                    runs.fetch_add(1, Ordering::Relaxed);
                    told.fetch_add(u32::from(again), Ordering::Relaxed);
                    Ok::<_, Error>(())
                })
                .unwrap();
            });
        }
        child.kill();
    });
    assert_eq!((runs.into_inner(), told.into_inner()), (1, 1));
}

fn loads(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    common::say("ready");
    common::listen();
    load(&segment);
}

fn load(segment: &Segment) {
    let counter = segment.mutex::<u64>("counter").open().unwrap();
    segment.once("once").open_or_create().unwrap().call(|| *counter.lock().unwrap() += 1).unwrap();
    assert_eq!(*counter.lock().unwrap(), 1);
}

#[test]
fn several_processes_do_it_once() {
    let segment = common::named("once-many");
    segment.mutex::<u64>("counter").create().unwrap();
    let mut children: Vec<_> = (0..4).map(|_| common::start("loads", &[&segment.name])).collect();
    for child in &mut children {
        child.expect("ready");
    }
    for child in &mut children {
        child.tell("go");
    }
    load(&segment);
    for child in &mut children {
        child.succeeded();
    }
    segment.verify().unwrap();
}
