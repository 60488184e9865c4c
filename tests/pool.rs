//! Pools: what the workers do, and what becomes of a task whose worker dies.

use shmkit::{Error, Event, Mutex, Pool, Queue, Semaphore, TaskError};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

fn task_error<T>(result: Result<T, Error>) -> TaskError {
    match result {
        Err(Error::Task(error)) => error,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("no error"),
    }
}

fn square(x: u64) -> u64 {
    x * x
}

fn pid() -> u32 {
    std::process::id()
}

/// Kills this worker.
fn die() {
    // SAFETY: raise has no preconditions.
    unsafe { libc::raise(libc::SIGKILL) };
}

#[test]
fn apply_runs_a_function_in_a_worker() {
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.apply(square, (7,)).unwrap(), 49);
    assert_eq!(pool.apply(|a: String, b: u32| a.repeat(b as usize), ("ab".to_owned(), 3)).unwrap(), "ababab");
    let worker = pool.apply(pid, ()).unwrap();
    assert!(pool.worker_pids().contains(&worker));
    assert_ne!(worker, std::process::id());
}

#[test]
fn map_gives_the_results_in_order() {
    let pool = Pool::new(3).unwrap();
    for len in [0, 1, 2, 11, 12, 13, 1000] {
        let expected: Vec<u64> = (0..len).map(square).collect();
        assert_eq!(pool.map(square, 0..len).unwrap(), expected, "{len}");
    }
    assert_eq!(pool.map_chunked(square, 0..5000, 1).get().unwrap(), (0..5000).map(square).collect::<Vec<_>>());
    assert_eq!(pool.starmap(|a: u32, b: u32| a - b, [(3, 1), (9, 4)]).unwrap(), [2, 5]);
    let mut empty = pool.map_async(square, []);
    assert!(empty.is_ready());
    assert_eq!(empty.get().unwrap(), []);
    assert_eq!(task_error(empty.get()), TaskError::Taken);
}

#[test]
fn imap_is_lazy() {
    let pool = Pool::new(2).unwrap();
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let items = (0u64..).inspect(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let mut squares = pool.imap(square, items).chunk(3).window(4);
    for expected in 0..30 {
        assert_eq!(squares.next().unwrap().unwrap(), square(expected));
    }
    // What was given, and four chunks of three.
    assert!(taken.load(Ordering::Relaxed) <= 30 + 12 + 3, "{taken:?}");
    let all: BTreeSet<u64> = pool.imap_unordered(square, 0..100).map(Result::unwrap).collect();
    assert_eq!(all, (0..100).map(square).collect());
    assert!(pool.imap(square, []).next().is_none());
}

#[test]
fn imap_waits_no_longer_than_told() {
    let pool = Pool::new(1).unwrap();
    let gate = Event::new().unwrap();
    let mut results = pool.imap(
        |gate: Event| {
            gate.wait().unwrap();
            1u8
        },
        [gate.clone()],
    );
    assert!(matches!(task_error(results.next_timeout(Duration::from_millis(5)).unwrap()), TaskError::TimedOut { .. }));
    gate.set();
    assert_eq!(results.next().unwrap().unwrap(), 1);
    assert!(results.next().is_none());
}

#[test]
fn a_result_can_be_waited_for_with_a_limit() {
    let pool = Pool::new(1).unwrap();
    let gate = Event::new().unwrap();
    let mut result = pool.apply_async(|gate: Event| gate.wait().unwrap(), (gate.clone(),));
    assert!(!result.is_ready());
    assert_eq!(result.is_successful(), None);
    assert!(matches!(task_error(result.get_timeout(Duration::from_millis(5))), TaskError::TimedOut { .. }));
    gate.set();
    result.get().unwrap();
}

#[test]
fn callbacks_come_before_the_result() {
    let pool = Pool::new(1).unwrap();
    let (told, heard) = mpsc::channel();
    let tell = told.clone();
    let mut good = pool.apply_async(square, (3,)).callback(move |value| tell.send(format!("{value}")).unwrap());
    assert_eq!(good.get().unwrap(), 9);
    assert_eq!(heard.try_recv().unwrap(), "9");
    let mut bad = pool
        .apply_async(|| panic!("on purpose"), ())
        .error_callback(move |error| told.send(error.to_string()).unwrap())
        .callback(|(): &()| unreachable!("it failed"));
    assert!(bad.get().is_err());
    assert!(heard.try_recv().unwrap().contains("on purpose"));
}

#[test]
fn a_panic_fails_its_task_only() {
    let pool = Pool::new(2).unwrap();
    let fail = |x: u32| if x == 3 { panic!("three is not allowed") } else { x };
    let TaskError::Panicked { message, .. } = task_error(pool.map(fail, 0..10)) else { panic!("another error") };
    assert!(message.contains("three is not allowed") && message.contains("pool.rs"), "{message}");
    let outcomes: Vec<_> = pool.imap(fail, 0..6).map(|outcome| outcome.ok()).collect();
    assert_eq!(outcomes, [Some(0), Some(1), Some(2), None, Some(4), Some(5)]);
}

#[test]
fn a_killed_worker_fails_its_task_and_is_replaced() {
    let pool = Pool::new(2).unwrap();
    let before: BTreeSet<u32> = pool.worker_pids().into_iter().collect();
    let TaskError::WorkerDied { pid, signal, exit_code, .. } = task_error(pool.apply(die, ())) else {
        panic!("another error")
    };
    assert!(before.contains(&pid));
    assert_eq!((signal, exit_code), (Some(libc::SIGKILL), None));
    assert_eq!(pool.map(square, 0..100).unwrap(), (0..100).map(square).collect::<Vec<_>>());
    assert!(!pool.worker_pids().contains(&pid));
    assert_eq!(pool.worker_pids().len(), 2);
}

#[test]
fn an_exit_in_a_task_is_a_death() {
    let pool = Pool::new(1).unwrap();
    let error = task_error(pool.apply(|code: i32| -> u8 { std::process::exit(code) }, (7,)));
    assert!(matches!(error, TaskError::WorkerDied { signal: None, exit_code: Some(7), .. }), "{error}");
    assert!(error.to_string().contains("exit code 7"), "{error}");
}

#[test]
fn only_the_chunk_of_the_dead_worker_fails() {
    let pool = Pool::new(2).unwrap();
    let fragile = |x: u32| {
        if x == 50 {
            die();
        }
        x
    };
    let outcomes: Vec<_> = pool.imap(fragile, 0..100).chunk(10).map(|outcome| outcome.ok()).collect();
    assert_eq!(outcomes.len(), 100);
    assert!(outcomes.iter().enumerate().all(|(i, outcome)| outcome.is_none() == (50..60).contains(&i)), "{outcomes:?}");
}

#[test]
fn a_lost_task_is_run_again_if_asked_for() {
    let pool = Pool::builder().workers(2).retries(1).start().unwrap();
    let once = Semaphore::new(1).unwrap();
    let dies_once = |once: Semaphore, x: u32| {
        if let Ok(permit) = once.try_acquire() {
            permit.forget();
            die();
        }
        x
    };
    assert_eq!(pool.apply(dies_once, (once, 5)).unwrap(), 5);
    assert!(matches!(task_error(pool.apply(die, ())), TaskError::WorkerDied { .. }), "it died twice");
}

#[test]
fn an_idle_worker_that_is_killed_hurts_nobody() {
    let pool = Pool::new(2).unwrap();
    pool.map(square, 0..10).unwrap();
    for _ in 0..5 {
        for pid in pool.worker_pids() {
            // SAFETY: kill has no preconditions.
            unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        }
        // A task may be caught in the death of its worker; the pool goes on.
        while pool.apply(square, (4,)).is_err() {}
    }
    assert_eq!(pool.map(square, 0..10).unwrap(), (0..10).map(square).collect::<Vec<_>>());
}

#[test]
fn handles_go_in_and_come_out() {
    let pool = Pool::new(2).unwrap();
    let total = Mutex::new(0u64).unwrap();
    let add = |total: Mutex<u64>, x: u64| *total.lock().unwrap() += x;
    pool.starmap(add, (1..=100).map(|x| (total.clone(), x))).unwrap();
    assert_eq!(*total.lock().unwrap(), 5050);
    let made: Queue<u32> = pool
        .apply(
            || {
                let queue = Queue::bounded(4).unwrap();
                queue.put(11u32).unwrap();
                queue
            },
            (),
        )
        .unwrap();
    assert_eq!(made.get().unwrap(), 11);
}

#[test]
fn what_cannot_be_serialised_is_an_error_and_the_pool_goes_on() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Stubborn;
    mod stubborn {
        pub fn serialize<S: serde::Serializer>(_: &u8, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("not today"))
        }
    }
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Unwritable(#[serde(serialize_with = "stubborn::serialize")] u8);

    let pool = Pool::new(1).unwrap();
    let _ = Stubborn;
    let error = task_error(pool.apply(|_: Unwritable| (), (Unwritable(1),)));
    assert!(matches!(error, TaskError::Codec { action: "write the arguments", .. }), "{error}");
    let Err(Error::Task(error)) = pool.apply(|| Unwritable(1), ()) else { panic!("no error") };
    assert!(matches!(error, TaskError::Codec { action: "write the result", .. }), "{error}");
    assert_eq!(pool.apply(square, (2,)).unwrap(), 4);
}

#[test]
fn long_arguments_and_results_travel_whole() {
    let pool = Pool::new(2).unwrap();
    let long = "x".repeat(3 << 20);
    let twice = pool.apply(|text: String| text.clone() + &text, (long.clone(),)).unwrap();
    assert_eq!(twice.len(), 2 * long.len());
}

#[test]
fn close_finishes_what_was_taken() {
    let pool = Pool::new(2).unwrap();
    assert_eq!(task_error(pool.join()), TaskError::PoolOpen);
    let mut results: Vec<_> = (0..3000).map(|x| pool.apply_async(square, (x,))).collect();
    pool.close();
    assert_eq!(task_error(pool.apply(square, (1,))), TaskError::PoolClosed { state: "closed" });
    pool.join().unwrap();
    for (x, result) in results.iter_mut().enumerate() {
        assert_eq!(result.get().unwrap(), square(x as u64));
    }
    assert!(pool.worker_pids().is_empty());
}

#[test]
fn close_survives_the_death_of_a_worker() {
    let pool = Pool::builder().workers(2).retries(1).start().unwrap();
    let once = Semaphore::new(1).unwrap();
    let fragile = |once: Semaphore, x: u64| {
        if x == 20
            && let Ok(permit) = once.try_acquire()
        {
            permit.forget();
            die();
        }
        x
    };
    let mut results: Vec<_> = (0..100).map(|x| pool.apply_async(fragile, (once.clone(), x))).collect();
    pool.close();
    pool.join().unwrap();
    assert!(results.iter_mut().enumerate().all(|(x, result)| result.get().unwrap() == x as u64));
}

#[test]
fn terminate_kills_and_says_so() {
    let pool = Pool::new(2).unwrap();
    let never = Event::new().unwrap();
    let mut stuck: Vec<_> =
        (0..5).map(|_| pool.apply_async(|never: Event| never.wait().unwrap(), (never.clone(),))).collect();
    let pids = pool.worker_pids();
    pool.terminate();
    pool.join().unwrap();
    for result in &mut stuck {
        assert_eq!(task_error(result.get()), TaskError::PoolClosed { state: "terminated" });
    }
    assert!(pids.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}/exe")).exists()), "they are gone");
    assert_eq!(task_error(pool.apply(square, (1,))), TaskError::PoolClosed { state: "terminated" });
}

#[test]
fn workers_are_initialised_once_and_replaced_after_their_tasks() {
    let started = Semaphore::new(0).unwrap();
    let pool = Pool::builder()
        .workers(2)
        .max_tasks_per_worker(5)
        .initializer(|started: Semaphore| started.release().map_err(|error| error.to_string()), (started.clone(),))
        .start()
        .unwrap();
    let mut pids = BTreeSet::new();
    for _ in 0..40 {
        pids.insert(pool.apply(pid, ()).unwrap());
    }
    assert!(pids.len() >= 40 / 5, "{pids:?}");
    pool.close();
    pool.join().unwrap();
    assert!(started.value() as usize >= pids.len());
}

#[test]
fn a_failing_initializer_breaks_the_pool_with_its_reason() {
    for panics in [false, true] {
        let pool = Pool::builder()
            .workers(1)
            .initializer(
                |panics: bool| if panics { panic!("no licence") } else { Err::<(), _>("no licence".to_owned()) },
                (panics,),
            )
            .start()
            .unwrap();
        let error = task_error(pool.apply(square, (1,)));
        assert!(matches!(&error, TaskError::BrokenPool { why } if why.contains("no licence")), "{error}");
        assert!(matches!(task_error(pool.apply(square, (1,))), TaskError::BrokenPool { .. }));
        pool.join().unwrap();
    }
}

#[test]
fn a_pool_in_a_pool() {
    let pool = Pool::new(2).unwrap();
    let inner = |n: u64| Pool::new(2).unwrap().map(square, 0..n).unwrap().iter().sum::<u64>();
    let expected: Vec<u64> = [3u64, 10].iter().map(|&n| (0..n).map(square).sum()).collect();
    assert_eq!(pool.map(inner, [3, 10]).unwrap(), expected);
}

#[test]
fn a_pool_cannot_have_any_number_of_workers() {
    for workers in [0, 1001] {
        assert!(Pool::new(workers).unwrap_err().to_string().contains("1 to 1000"));
    }
}

#[test]
fn a_dropped_pool_leaves_no_process() {
    let pool = Pool::new(3).unwrap();
    let pids = pool.worker_pids();
    assert_eq!(pids.len(), 3);
    drop(pool);
    assert!(pids.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()));
}
