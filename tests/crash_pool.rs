//! A worker killed at each step of taking, running and answering a task, and of being replaced, and the pool's process killed in
//! the middle of changing what its workers have: the rows of the crash table of `pool`.

mod common;

use shmkit::pool::is_cancelled;
use shmkit::{Barrier, Error, Event, Pool, Semaphore, TaskError, failpoint};
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

roles!(pool_to_be_killed);

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

// ---- leaving ------------------------------------------------------------------------------------------------------------

/// All of a pool's workers arm the same point: each task waits for the others to have begun.
fn arm_all(pool: &Pool, point: &str, nth: u32) {
    let workers = pool.worker_pids().len();
    let together = Barrier::new(workers as u32).unwrap();
    let arm_together = |together: Barrier, point: String, nth: u32| {
        together.wait().unwrap();
        failpoint::arm(&point, nth);
        std::process::id()
    };
    let armed: Vec<_> =
        (0..workers).map(|_| pool.apply_async(arm_together, (together.clone(), point.to_owned(), nth))).collect();
    let armed: BTreeSet<u32> = armed.into_iter().map(|mut armed| armed.get().unwrap()).collect();
    assert_eq!(armed.len(), workers);
}

/// The pool has these many workers, all of them at work, and nothing of the dead is left.
fn is_whole(pool: Pool, workers: usize) {
    common::until(|| pool.worker_pids().len() == workers);
    assert_eq!(pool.map(square, 0..50).unwrap(), (0..50).map(square).collect::<Vec<_>>());
    drop(pool);
    shmkit::session().unwrap().verify().unwrap();
}

#[test]
fn a_worker_that_dies_when_its_pool_becomes_smaller_was_to_end_anyway() {
    let _alone = alone();
    for point in ["worker.released", "end.before_detach"] {
        let pool = Pool::new(3).unwrap();
        arm_all(&pool, point, 1);
        let before: BTreeSet<u32> = pool.worker_pids().into_iter().collect();
        pool.resize(1).unwrap();
        common::until(|| pool.worker_pids().len() == 1);
        assert!(before.contains(&pool.worker_pids()[0]), "{point}: one was left alone");
        is_whole(pool, 1);
    }
}

#[test]
fn a_worker_that_dies_on_its_last_task_is_replaced_as_any_other() {
    let _alone = alone();
    // Its limit is two tasks: the first arms the point, the second is its last.
    for (point, nth, is_lost) in [
        ("worker.leaving", 1, true),
        ("queue.filled", 2, true),
        ("worker.ended", 2, true),
        ("worker.replied", 2, false),
        ("end.before_detach", 1, false),
    ] {
        let pool = Pool::builder().workers(1).max_tasks_per_worker(2).start().unwrap();
        pool.apply(arm, (point.to_owned(), nth)).unwrap();
        let worker = pool.worker_pids()[0];
        match pool.apply(square, (5,)) {
            Err(Error::Task(TaskError::WorkerDied { pid, .. })) => assert!(is_lost && pid == worker, "{point}"),
            outcome => assert!(!is_lost && outcome.as_ref().is_ok_and(|&value| value == 25), "{point}: {outcome:?}"),
        }
        common::until(|| !pool.worker_pids().contains(&worker));
        is_whole(pool, 1);
    }
}

#[test]
fn a_worker_that_is_replaced_for_its_memory_may_die_before_it_is_told() {
    let _alone = alone();
    let pool = Pool::builder().workers(1).max_rss_per_worker(1).start().unwrap();
    // From its first task on it has too much: it asks to be replaced, and dies when that has been done.
    pool.apply(arm, ("worker.released".to_owned(), 1)).unwrap();
    let worker = pool.worker_pids()[0];
    common::until(|| !pool.worker_pids().contains(&worker));
    is_whole(pool, 1);
}

// ---- cancelled ------------------------------------------------------------------------------------------------------------

#[test]
fn a_worker_may_die_while_it_ends_a_task_that_was_cancelled() {
    let _alone = alone();
    for point in ["in the task", "queue.filled", "worker.ended", "worker.replied"] {
        let pool = Pool::new(1).unwrap();
        let begun = Event::new().unwrap();
        let obedient = |begun: Event, point: String| {
            begun.set();
            while !is_cancelled() {
                std::thread::yield_now();
            }
            if point == "in the task" {
                // SAFETY: raise has no preconditions.
                unsafe { libc::raise(libc::SIGKILL) };
            }
            failpoint::arm(&point, 1);
        };
        let mut task = pool.apply_async(obedient, (begun.clone(), point.to_owned()));
        begun.wait().unwrap();
        let worker = pool.worker_pids()[0];
        task.cancel();
        assert!(matches!(task.get(), Err(Error::Task(TaskError::Cancelled { .. }))), "{point}");
        common::until(|| !pool.worker_pids().contains(&worker));
        is_whole(pool, 1);
    }
}

#[test]
fn a_condemned_worker_that_ends_its_task_nevertheless_begins_no_other() {
    let _alone = alone();
    let pool = Pool::builder().workers(1).grace(Duration::from_millis(5)).start().unwrap();
    let begun = Event::new().unwrap();
    let survivor = |begun: Event| {
        // Goes on until it has been sent SIGTERM, which only the condemned are.
        let mut signal = 0;
        // SAFETY: plain data, and a mask of this thread's own.
        unsafe {
            let mut term: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut term);
            libc::sigaddset(&mut term, libc::SIGTERM);
            libc::sigprocmask(libc::SIG_BLOCK, &term, std::ptr::null_mut());
            begun.set();
            libc::sigwait(&term, &mut signal);
        }
        signal
    };
    let stuck = pool.apply_async(survivor, (begun.clone(),));
    begun.wait().unwrap();
    let worker = pool.worker_pids()[0];
    let mut next: Vec<_> = (0..10).map(|x| pool.apply_async(square, (x,))).collect();
    stuck.cancel();
    for (x, next) in next.iter_mut().enumerate() {
        assert_eq!(next.get().unwrap(), square(x as u64), "another worker ran it");
    }
    common::until(|| !pool.worker_pids().contains(&worker));
    is_whole(pool, 1);
}

// ---- chunks ---------------------------------------------------------------------------------------------------------------

#[test]
fn a_worker_may_die_between_two_elements_of_a_chunk() {
    for nth in [1, 2, 7] {
        let _alone = alone();
        let pool = Pool::builder().workers(1).retries(1).start().unwrap();
        pool.apply(arm, ("worker.advanced".to_owned(), nth)).unwrap();
        let worker = pool.worker_pids();
        let squares = pool.tasks(square, (0..10).map(|x| (x,))).chunk(10).run().unwrap();
        assert_eq!(squares, (0..10).map(square).collect::<Vec<_>>(), "{nth}");
        assert_ne!(pool.worker_pids(), worker, "{nth} was not reached");
        is_whole(pool, 1);
    }
}

// ---- runs -----------------------------------------------------------------------------------------------------------------

/// Kills the only worker at a kill point while it takes tasks of a map by several. Gives what came of the map, and how many tasks
/// were begun and came to their end.
fn killed_in_a_run(point: &str, nth: u32, retries: u32) -> (Result<Vec<String>, Error>, u32) {
    let _alone = alone();
    // How many tasks travel together depends on how short they are seen to be: on a bad day too few do for the point to be reached.
    for _ in 0..100 {
        let pool = Pool::builder().workers(1).retries(retries).start().unwrap();
        let ended = Semaphore::new(0).unwrap();
        pool.apply(arm, (point.to_owned(), nth)).unwrap();
        let worker = pool.worker_pids();
        // What comes of several does not fit what a worker can publish: it has to send it in parts.
        let wide = |ended: Semaphore, x: u32| {
            ended.release().unwrap();
            format!("{x:300}")
        };
        let outcome = pool.tasks(wide, (0..RUN_TASKS).map(|x| (ended.clone(), x))).chunk(1).run();
        if pool.worker_pids() == worker {
            assert_eq!((outcome.unwrap().len(), ended.value()), (RUN_TASKS as usize, RUN_TASKS), "nobody died");
            continue;
        }
        let count = ended.value();
        drop(ended);
        is_whole(pool, 1);
        return (outcome, count);
    }
    panic!("{point} {nth} was not reached");
}

const RUN_TASKS: u32 = 1200;

/// Points in a run, how often they are passed, and whether a task has come to its end of which nobody will be told.
const IN_RUNS: &[(&str, u32, u32)] = &[
    ("worker.claimed", 160, 0),
    ("worker.advanced", 400, 0),
    ("worker.unpublished", 400, 1),
    ("worker.published", 400, 0),
    ("worker.flushed", 3, 1),
    ("worker.ended", 160, 0),
];

#[test]
fn only_the_task_is_run_again_that_the_dead_worker_was_in() {
    for &(point, nth, again) in IN_RUNS {
        let (outcome, count) = killed_in_a_run(point, nth, 1);
        let expected: Vec<_> = (0..RUN_TASKS).map(|x| format!("{x:300}")).collect();
        assert_eq!(outcome.unwrap_or_else(|error| panic!("{point}: {error}")), expected, "{point}");
        assert_eq!(count, RUN_TASKS + again, "{point}: each was run once, but for the one");
    }
}

#[test]
fn what_a_worker_had_published_when_it_died_counts() {
    for &(point, nth, _) in IN_RUNS {
        let (outcome, count) = killed_in_a_run(point, nth, 0);
        match point {
            "worker.advanced" | "worker.unpublished" | "worker.flushed" => {
                let Err(Error::Task(TaskError::WorkerDied { signal, .. })) = outcome else {
                    panic!("{point}: no death was told")
                };
                assert_eq!(signal, Some(libc::SIGKILL), "{point}");
                let is_begun = u32::from(point != "worker.advanced");
                assert_eq!(count, RUN_TASKS - 1 + is_begun, "{point}: the others were run");
            }
            // If the run was of one task, it is in the dead one's hands.
            "worker.claimed" => assert!(count + u32::from(outcome.is_err()) == RUN_TASKS),
            _ => assert_eq!(
                (outcome.unwrap_or_else(|error| panic!("{point}: {error}")).len(), count),
                (1200, RUN_TASKS),
                "{point}"
            ),
        }
    }
}

// ---- the pool's process -----------------------------------------------------------------------------------------------------

/// Has workers that are to be condemned, released, or to share a chunk, and dies at that.
fn pool_to_be_killed(arguments: &[String]) {
    let point = arguments[0].as_str();
    let (never, begun) = (Event::new().unwrap(), Semaphore::new(0).unwrap());
    let pool = Pool::builder().workers(2).grace(Duration::from_millis(1)).start().unwrap();
    common::say(&pool.worker_pids().iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
    failpoint::arm(point, 1);
    let wait = |never: Event, begun: Semaphore, _: u32| {
        begun.release().unwrap();
        never.wait().unwrap();
    };
    let task = pool.tasks(wait, (0..10).map(|x| (never.clone(), begun.clone(), x))).chunk(10).submit();
    begun.acquire().unwrap().forget();
    match point {
        "pool.condemned" => task.cancel(),
        "pool.released" => pool.resize(1).unwrap(),
        _ => {}
    }
    pool.join().unwrap_err();
    never.wait().unwrap();
}

#[test]
fn the_pools_process_may_die_while_it_changes_what_a_worker_has() {
    let _alone = alone();
    for point in ["pool.condemned", "pool.released", "pool.split"] {
        let segment = common::named("pool");
        let mut pool = common::start_with("pool_to_be_killed", &[point], &[("SHMKIT_SESSION", &segment.name)]);
        let workers = pool.hear();
        pool.was_killed();
        let is_gone = |pid: &str| !std::path::Path::new(&format!("/proc/{pid}/exe")).exists();
        common::until(|| workers.split(' ').all(is_gone));
        common::until(|| {
            segment.recover();
            segment.participants() == [std::process::id()]
        });
        segment.verify().unwrap_or_else(|error| panic!("{point}: {error}"));
        assert!(segment.objects().is_empty(), "{point}: {:?}", segment.objects());
    }
}
