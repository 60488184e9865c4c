//! A worker killed at each step of taking, running and answering a task: the rows of the crash table of `pool`.

use shmkit::{Error, Pool, TaskError, failpoint};
use std::sync::{Mutex, MutexGuard, PoisonError};

fn square(x: u64) -> u64 {
    x * x
}

/// Lets the worker that runs it die at the next passage of a kill point.
fn arm(point: String, nth: u32) {
    failpoint::arm(&point, nth);
}

/// All pools of this process lie in one segment, which is sound only while nobody is in the middle of something.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills the only worker at a kill point of the task that follows. Gives the task's outcome.
fn killed_at(point: &str, nth: u32, retries: u32) -> Result<u64, Error> {
    let _alone = alone();
    let pool = Pool::builder().workers(1).retries(retries).start().unwrap();
    pool.apply(arm, (point.to_owned(), nth)).unwrap();
    let worker = pool.worker_pids()[0];
    let outcome = pool.apply(square, (5,));
    // The pool goes on, with another worker, and nothing is left over from the dead one.
    assert_eq!(pool.map(square, 0..20).unwrap(), (0..20).map(square).collect::<Vec<_>>(), "{point} {nth}");
    assert_ne!(pool.worker_pids(), [worker], "{point} {nth} was not reached");
    drop(pool);
    shmkit::session().unwrap().verify().unwrap_or_else(|error| panic!("{point} {nth}: {error}"));
    outcome
}

/// Points at which the task is not the worker's yet, or its reply is sent already: nothing is lost.
const HARMLESS: &[(&str, u32)] = &[("worker.before_claim", 1), ("worker.replied", 2)];

/// Points at which the worker dies as the owner of the task.
const FATAL: &[(&str, u32)] =
    &[("worker.claimed", 1), ("queue.decoded", 1), ("worker.took", 1), ("queue.filled", 2), ("worker.ended", 2)];

#[test]
fn nothing_is_lost_where_the_task_is_not_the_dead_ones() {
    for &(point, nth) in HARMLESS {
        let outcome = killed_at(point, nth, 0);
        assert_eq!(outcome.unwrap_or_else(|error| panic!("{point}: {error}")), 25, "{point}");
    }
}

#[test]
fn the_task_of_the_dead_fails_at_once() {
    for &(point, nth) in FATAL {
        let Err(Error::Task(TaskError::WorkerDied { signal, .. })) = killed_at(point, nth, 0) else {
            panic!("{point} {nth}: no death was told")
        };
        assert_eq!(signal, Some(libc::SIGKILL), "{point}");
    }
}

#[test]
fn or_is_run_again() {
    for &(point, nth) in FATAL {
        assert_eq!(killed_at(point, nth, 1).unwrap_or_else(|error| panic!("{point}: {error}")), 25, "{point}");
    }
}

#[test]
fn a_new_worker_that_is_killed_before_it_is_ready_is_replaced() {
    let _alone = alone();
    let pool = Pool::builder()
        .workers(1)
        .max_tasks_per_worker(1)
        .initializer(
            |first: shmkit::Semaphore| {
                if let Ok(permit) = first.try_acquire() {
                    permit.forget();
                    failpoint::arm("worker.ready", 1);
                }
            },
            (shmkit::Semaphore::new(2).unwrap(),),
        )
        .start()
        .unwrap();
    assert_eq!(pool.apply(square, (3,)).unwrap(), 9);
}
