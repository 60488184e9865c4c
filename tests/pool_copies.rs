//! Copies of a pool's process: a pool belongs to the process that made it.

mod common;

use shmkit::{Error, Event, Pool, Process, TaskError};
use std::sync::Arc;

roles!(copies_itself);

fn square(x: u64) -> u64 {
    x * x
}

/// Uses its pool while a copy of it tries to.
fn copies_itself(_: &[String]) {
    let pool = Arc::new(Pool::new(3).unwrap());
    let pids = pool.worker_pids();
    let gate = Event::new().unwrap();
    let wait = |gate: Event, x: u64| gate.wait().map(|()| x).map_err(|error| error.to_string());
    let mut waits = pool.apply_async(wait, (gate.clone(), 7));
    let mut under_way = pool.apply_async(wait, (gate.clone(), 8));
    let theirs = Arc::clone(&pool);
    let body = move || -> Result<(), String> {
        let is_refused =
            |outcome: Result<u64, Error>| matches!(outcome, Err(Error::Task(TaskError::PoolClosed { .. })));
        let mut failed = Vec::new();
        for x in 0..50 {
            if !is_refused(theirs.apply(square, (x,))) {
                failed.push(x);
            }
        }
        let mut squares = theirs.imap(square, 0..3);
        failed.extend((0..3).filter(|_| !is_refused(squares.next().unwrap())));
        under_way.cancel();
        match under_way.get() {
            Err(Error::Task(TaskError::PoolClosed { .. })) => {}
            other => return Err(format!("{other:?}")),
        }
        if theirs.join().is_ok() || theirs.resize(1).is_ok() || !theirs.worker_pids().is_empty() {
            return Err("it has a pool".to_owned());
        }
        theirs.terminate();
        drop(theirs);
        if failed.is_empty() { Ok(()) } else { Err(format!("{failed:?}")) }
    };
    // SAFETY: the pool's own thread sleeps, and the copy does not need it.
    let copy = unsafe { Process::fork(body).allow_threads().start().unwrap() };
    for round in 0..200 {
        assert_eq!(pool.apply(square, (round,)).unwrap(), square(round));
    }
    copy.join().unwrap().check().unwrap();
    gate.set();
    assert_eq!(waits.get().unwrap(), Ok(7));
    assert_eq!(pool.map(square, 0..1000).unwrap(), (0..1000).map(square).collect::<Vec<_>>());
    assert_eq!(pool.worker_pids(), pids, "nobody was killed");
    common::say("whole");
}

#[test]
fn a_copy_of_its_process_has_no_pool_and_does_not_disturb_it() {
    let mut child = common::start("copies_itself", &[]);
    child.expect("whole");
    child.succeeded();
}
