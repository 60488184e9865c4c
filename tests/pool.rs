//! Pools: what the workers do, and what becomes of a task whose worker dies.

mod common;

use common::{die, task_error};
use shmkit::pool::{Executor, Here, is_cancelled};
use shmkit::{Error, Event, Mutex, Pool, Queue, Semaphore, TaskError};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

fn square(x: u64) -> u64 {
    x * x
}

fn pid() -> u32 {
    std::process::id()
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
    // The other worker may have been given the end of the chunk, if the machine is slow today.
    let lost: Vec<usize> = (0..100).filter(|&i| outcomes[i].is_none()).collect();
    assert!(lost[0] == 50 && lost.len() <= 10 && lost.iter().enumerate().all(|(n, &i)| i == 50 + n), "{outcomes:?}");
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

/// Runs until it is told to stop, and says so.
fn obedient(begun: Event, heard: Event) {
    begun.set();
    while !is_cancelled() {
        std::thread::yield_now();
    }
    heard.set();
}

/// Does not listen.
fn stubborn(begun: Event) {
    begun.set();
    loop {
        std::thread::park();
    }
}

/// Does not listen, and survives SIGTERM.
fn immortal(begun: Event) {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
    stubborn(begun);
}

/// Waits until `condition`, which another process brings about.
fn eventually(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

#[test]
fn a_cancelled_task_is_told_and_its_worker_lives() {
    let pool = Pool::new(1).unwrap();
    let (begun, heard) = (Event::new().unwrap(), Event::new().unwrap());
    let mut task = pool.apply_async(obedient, (begun.clone(), heard.clone()));
    let worker = pool.worker_pids();
    begun.wait().unwrap();
    task.cancel();
    assert!(matches!(task_error(task.get()), TaskError::Cancelled { .. }));
    heard.wait().unwrap();
    assert_eq!(pool.apply(square, (3,)).unwrap(), 9);
    assert_eq!(pool.worker_pids(), worker);
    assert!(!is_cancelled(), "this is no worker");
}

#[test]
fn a_cancelled_task_that_waits_is_never_run() {
    let pool = Pool::new(1).unwrap();
    let (begun, gate) = (Event::new().unwrap(), Event::new().unwrap());
    let hold = |begun: Event, gate: Event| {
        begun.set();
        gate.wait().unwrap();
    };
    let mut first = pool.apply_async(hold, (begun.clone(), gate.clone()));
    begun.wait().unwrap();
    let ran = Semaphore::new(0).unwrap();
    // More than can be under way at once.
    let mut others: Vec<_> =
        (0..1500).map(|_| pool.apply_async(|ran: Semaphore| ran.release().unwrap(), (ran.clone(),))).collect();
    others.iter().for_each(|task| task.cancel());
    for task in &mut others {
        assert!(matches!(task_error(task.get()), TaskError::Cancelled { .. }));
    }
    gate.set();
    first.get().unwrap();
    first.cancel();
    assert_eq!(pool.map(square, 0..2000).unwrap().len(), 2000);
    assert_eq!(ran.value(), 0);
    pool.close();
    pool.join().unwrap();
}

#[test]
fn a_task_that_does_not_listen_is_terminated_then_killed() {
    for is_immortal in [false, true] {
        let pool = Pool::builder().workers(2).grace(Duration::from_millis(20)).start().unwrap();
        let (begun, gate) = (Event::new().unwrap(), Event::new().unwrap());
        let hold = |gate: Event| gate.wait().map_err(|error| error.to_string());
        let mut neighbour = pool.apply_async(hold, (gate.clone(),));
        let mut stuck = match is_immortal {
            false => pool.apply_async(stubborn, (begun.clone(),)),
            true => pool.apply_async(immortal, (begun.clone(),)),
        };
        begun.wait().unwrap();
        let before: BTreeSet<u32> = pool.worker_pids().into_iter().collect();
        stuck.cancel();
        assert!(matches!(task_error(stuck.get()), TaskError::Cancelled { .. }));
        eventually(|| {
            let now: BTreeSet<u32> = pool.worker_pids().into_iter().collect();
            now.len() == 2 && now.intersection(&before).count() == 1
        });
        gate.set();
        neighbour.get().unwrap().unwrap();
        assert_eq!(pool.map(square, 0..100).unwrap().len(), 100);
    }
}

#[test]
fn a_deadline_counts_from_the_beginning_of_the_task() {
    let pool = Pool::builder().workers(1).grace(Duration::from_millis(10)).start().unwrap();
    let never = Event::new().unwrap();
    let wait = |never: Event| never.wait().unwrap();
    let limit = Duration::from_millis(30);
    let mut stuck = pool.task(wait, (never.clone(),)).deadline(limit).submit();
    // Each waits for the one before, which takes longer than its own limit.
    let mut quick: Vec<_> = (0..3).map(|x| pool.task(square, (x,)).deadline(limit).submit()).collect();
    let error = task_error(stuck.get());
    assert!(matches!(error, TaskError::DeadlineExceeded { limit: told, .. } if told == limit), "{error}");
    for (x, task) in quick.iter_mut().enumerate() {
        // A machine under load may stop the worker in the middle of it.
        assert!(matches!(task.get(), Ok(y) if y == square(x as u64)) || task.is_successful() == Some(false));
    }
    let outcomes: Vec<_> = pool
        .imap(
            |x: u32| {
                if x == 2 {
                    loop {
                        std::thread::park();
                    }
                }
                x
            },
            0..5,
        )
        .deadline(Duration::from_millis(500))
        .map(|outcome| outcome.map_err(|error| task_error::<()>(Err(error))))
        .collect();
    assert!(matches!(outcomes[2], Err(TaskError::DeadlineExceeded { .. })), "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 4, "{outcomes:?}");
}

#[test]
fn a_poison_task_is_set_aside_after_so_many_deaths() {
    let pool = Pool::builder().workers(2).start().unwrap();
    let deaths = Semaphore::new(0).unwrap();
    let poison = |deaths: Semaphore| {
        deaths.release().unwrap();
        die();
    };
    let mut bad = pool.task(poison, (deaths.clone(),)).retries(2).submit();
    let TaskError::WorkerDied { signal, peak_rss, .. } = task_error(bad.get()) else { panic!("another error") };
    assert_eq!((signal, deaths.value()), (Some(libc::SIGKILL), 3));
    assert!(peak_rss.is_some_and(|bytes| bytes > 100_000), "{peak_rss:?}");
    assert_eq!(pool.apply(square, (4,)).unwrap(), 16);
}

#[test]
fn the_peak_of_a_dead_workers_memory_is_told() {
    let pool = Pool::new(1).unwrap();
    let hog = || {
        std::hint::black_box(vec![1u8; 200 << 20]);
        die();
    };
    let TaskError::WorkerDied { peak_rss, .. } = task_error(pool.apply(hog, ())) else { panic!("another error") };
    assert!(peak_rss.is_some_and(|bytes| bytes > 200 << 20), "{peak_rss:?}");
}

#[test]
fn a_worker_with_too_much_memory_is_replaced_without_a_gap() {
    let pool = Pool::builder().workers(1).max_rss_per_worker(64 << 20).start().unwrap();
    let before = pool.worker_pids();
    let hog = || {
        std::mem::forget(std::hint::black_box(vec![1u8; 80 << 20]));
        std::process::id()
    };
    assert_eq!(pool.apply(hog, ()).unwrap(), before[0]);
    // The old one works until the new one is ready, so nobody waits.
    eventually(|| pool.apply(pid, ()).unwrap() != before[0]);
    eventually(|| !pool.worker_pids().contains(&before[0]));
    assert_eq!(pool.worker_pids().len(), 1);
}

#[test]
fn an_old_worker_is_replaced_even_if_the_pool_is_idle() {
    let pool = Pool::builder().workers(2).max_age_per_worker(Duration::from_millis(200)).start().unwrap();
    let before: BTreeSet<u32> = pool.worker_pids().into_iter().collect();
    eventually(|| {
        let now = pool.worker_pids();
        now.len() >= 2 && now.iter().all(|pid| !before.contains(pid))
    });
    assert_eq!(pool.apply(square, (4,)).unwrap(), 16);
}

#[test]
fn a_pool_grows_and_shrinks_while_it_works() {
    let pool = Pool::builder().workers(1).max_workers(6).start().unwrap();
    let mut squares = pool.map_chunked(square, 0..3000, 1);
    pool.resize(6).unwrap();
    eventually(|| pool.worker_pids().len() == 6);
    assert_eq!(pool.workers(), 6);
    pool.resize(2).unwrap();
    eventually(|| pool.worker_pids().len() == 2);
    assert_eq!(squares.get().unwrap(), (0..3000).map(square).collect::<Vec<_>>());
    for workers in [0, 7] {
        assert!(pool.resize(workers).is_err(), "{workers}");
    }
    pool.resize(3).unwrap();
    assert_eq!(pool.map(square, 0..100).unwrap().len(), 100);
    pool.close();
    pool.join().unwrap();
}

#[test]
fn progress_is_told_after_each_chunk() {
    let pool = Pool::new(2).unwrap();
    let (tell, told) = mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let tasks = pool.tasks(square, (0..100).map(|x| (x,))).chunk(10);
    tasks.on_progress(move |done, all| tell.lock().unwrap().send((done, all)).unwrap()).run().unwrap();
    let mut told: Vec<_> = told.try_iter().collect();
    told.sort_unstable();
    // On a machine under load a chunk may have been split for an idle worker.
    assert!((1..=10).all(|chunk| told.contains(&(chunk * 10, 100)) || told.len() > 10), "{told:?}");
    assert_eq!(told.last(), Some(&(100, 100)));
}

#[test]
fn one_slow_item_does_not_delay_the_rest() {
    let pool = Pool::new(2).unwrap();
    let done = Semaphore::new(0).unwrap();
    // The first item ends when nine tenths of the others have: they must not wait in its chunk.
    let items = (0..1000u32).map(|x| (done.clone(), x));
    let wait_for_others = |done: Semaphore, x: u32| {
        if x == 0 {
            (0..900).for_each(|_| done.acquire().unwrap().forget());
        } else {
            done.release().unwrap();
        }
    };
    pool.starmap(wait_for_others, items).unwrap();
}

#[test]
fn what_is_urgent_comes_first() {
    let pool = Pool::new(1).unwrap();
    let (begun, gate) = (Event::new().unwrap(), Event::new().unwrap());
    let order = Queue::<u32>::bounded(2000).unwrap();
    let hold = |begun: Event, gate: Event| {
        begun.set();
        gate.wait().unwrap();
    };
    let note = |order: Queue<u32>, number: u32| order.put(number).map(|()| number).unwrap();
    let mut held = pool.apply_async(hold, (begun.clone(), gate.clone()));
    begun.wait().unwrap();
    // More than can be under way at once, and all of that is in the queue already.
    let submit = |number, priority| pool.task(note, (order.clone(), number)).priority(priority).submit();
    let usual: Vec<_> = (0..1500).map(|number| submit(number, 0)).collect();
    let idle = submit(9000, -5);
    let urgent: Vec<_> = (0..3).map(|number| submit(8000 + number, 7)).collect();
    let less = submit(7000, 3);
    let late = submit(1500, 0);
    gate.set();
    held.get().unwrap();
    for mut task in usual.into_iter().chain(urgent).chain([less, late, idle]) {
        task.get().unwrap();
    }
    let order: Vec<u32> = order.get_many(2000).unwrap().into_iter().map(Result::unwrap).collect();
    let expected: Vec<u32> = [8000, 8001, 8002, 7000].into_iter().chain(0..=1500).chain([9000]).collect();
    assert_eq!(order, expected);
}

/// The first item of a chunk ends when nine tenths of the others have.
fn wait_for_the_others(done: Semaphore, x: u32, most: u32) -> u32 {
    if x == 0 {
        (0..most).for_each(|_| done.acquire().unwrap().forget());
    } else {
        done.release().unwrap();
    }
    x
}

#[test]
fn what_a_slow_chunk_has_not_begun_is_given_to_idle_workers() {
    let pool = Pool::new(3).unwrap();
    for len in [2u32, 3, 10, 1000] {
        let done = Semaphore::new(0).unwrap();
        let items = (0..len).map(|x| (done.clone(), x, len - 1));
        // One chunk: its first item would wait for ever for the others.
        let seen = pool.tasks(wait_for_the_others, items).chunk(1000).run().unwrap();
        assert_eq!(seen, (0..len).collect::<Vec<_>>());
    }
    let done = Semaphore::new(0).unwrap();
    let wait = |(done, x): (Semaphore, u32)| wait_for_the_others(done, x, 49);
    let items: Vec<_> = (0..100).map(|x| (done.clone(), x % 50)).collect();
    let seen: Vec<u32> = pool.imap(wait, items).chunk(50).map(Result::unwrap).collect();
    assert_eq!(seen, (0..100).map(|x| x % 50).collect::<Vec<_>>(), "in order, although chunks came in parts");
}

#[test]
fn a_part_of_a_split_chunk_is_run_again_if_its_worker_dies() {
    let pool = Pool::builder().workers(2).retries(20).start().unwrap();
    let (done, die_once) = (Semaphore::new(0).unwrap(), Semaphore::new(3).unwrap());
    let items = (0..200u32).map(|x| (done.clone(), die_once.clone(), x));
    let fragile = |done: Semaphore, die_once: Semaphore, x: u32| {
        if x == 0 {
            (0..150).for_each(|_| done.acquire().unwrap().forget());
        } else if x % 50 == 49
            && let Ok(permit) = die_once.try_acquire()
        {
            permit.forget();
            die();
        } else {
            done.release().unwrap();
        }
        x
    };
    assert_eq!(pool.tasks(fragile, items).chunk(200).run().unwrap(), (0..200).collect::<Vec<_>>());
    assert_eq!(die_once.value(), 0, "three workers died");
}

#[test]
fn chunks_have_a_limit() {
    let pool = Pool::new(2).unwrap();
    let all: u64 = pool.tasks(square, (0..70_000u64).map(|x| (x,))).chunk(100_000).run().unwrap().iter().sum();
    assert_eq!(all, (0..70_000).map(square).sum());
    let lazily: u64 = pool.imap(square, 0..70_000).chunk(70_000).map(Result::unwrap).sum();
    assert_eq!(lazily, all);
}

#[test]
fn two_hundred_workers_start_work_and_stop() {
    let pool = Pool::new(200).unwrap();
    assert_eq!(pool.worker_pids().len(), 200);
    assert_eq!(pool.map_chunked(square, 0..1000, 1).get().unwrap(), (0..1000).map(square).collect::<Vec<_>>());
    pool.close();
    pool.join().unwrap();
    assert!(pool.worker_pids().is_empty());
}

// ---- tasks that travel together -------------------------------------------------------------------------------------------

/// So many that they do.
const MANY: u32 = 1600;

#[test]
fn progress_is_told_after_each_task_where_a_chunk_is_one() {
    let pool = Pool::new(2).unwrap();
    let (tell, told) = mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let tasks = pool.tasks(square, (0..u64::from(MANY)).map(|x| (x,))).chunk(1);
    tasks.on_progress(move |done, all| tell.lock().unwrap().send((done, all)).unwrap()).run().unwrap();
    let mut told: Vec<_> = told.try_iter().collect();
    told.sort_unstable();
    assert_eq!(told, (1..=MANY as usize).map(|done| (done, MANY as usize)).collect::<Vec<_>>());
    assert_eq!(pool.tasks_done(), u64::from(MANY));
}

#[test]
fn a_slow_task_delays_no_other_and_hides_no_outcome() {
    let pool = Pool::new(2).unwrap();
    for slow in [500, 1000, MANY - 1] {
        let gate = Event::new().unwrap();
        let items = (0..MANY).map(|x| (gate.clone(), x, slow));
        let wait = |gate: Event, x: u32, slow: u32| {
            if x == slow {
                gate.wait().unwrap();
            }
            x
        };
        let open = gate.clone();
        // It ends when all others are told of: those before it in its run, and those behind.
        let tasks = pool.tasks(wait, items).chunk(1).on_progress(move |done, all| {
            if done == all - 1 {
                open.set();
            }
        });
        assert_eq!(tasks.run().unwrap(), (0..MANY).collect::<Vec<_>>());
    }
}

#[test]
fn a_poison_task_among_many_is_the_only_one_that_fails() {
    let pool = Pool::builder().workers(2).start().unwrap();
    for retries in [0, 2] {
        let (ended, deaths) = (Semaphore::new(0).unwrap(), Semaphore::new(0).unwrap());
        let items = (0..MANY).map(|x| (ended.clone(), deaths.clone(), x));
        let poison = |ended: Semaphore, deaths: Semaphore, x: u32| {
            if x == 1200 {
                deaths.release().unwrap();
                die();
            }
            ended.release().unwrap();
        };
        let error = task_error(pool.tasks(poison, items).chunk(1).retries(retries).run());
        assert!(matches!(error, TaskError::WorkerDied { signal: Some(libc::SIGKILL), .. }), "{error}");
        assert_eq!((ended.value(), deaths.value()), (MANY - 1, retries + 1));
    }
}

#[test]
fn a_task_among_many_that_cannot_be_read_or_written_fails_alone() {
    /// Whose argument cannot be written, cannot be read, and whose result cannot be written.
    const BAD: [u32; 3] = [500, 900, 1300];
    struct Number(u32);
    impl serde::Serialize for Number {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if self.0 == BAD[0] { Err(serde::ser::Error::custom("not today")) } else { self.0.serialize(serializer) }
        }
    }
    impl<'de> serde::Deserialize<'de> for Number {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let number = u32::deserialize(deserializer)?;
            if number == BAD[1] { Err(serde::de::Error::custom("not today")) } else { Ok(Number(number)) }
        }
    }
    let pool = Pool::new(1).unwrap();
    for (number, action) in BAD.into_iter().zip(["write the arguments", "read the arguments", "write the result"]) {
        let ended = Semaphore::new(0).unwrap();
        let items = (0..MANY).filter(|x| *x == number || !BAD.contains(x)).map(|x| (ended.clone(), Number(x)));
        let back = |ended: Semaphore, x: Number| {
            ended.release().unwrap();
            if x.0 == BAD[2] { Number(BAD[0]) } else { x }
        };
        let Err(Error::Task(error)) = pool.tasks(back, items).chunk(1).run() else { panic!("no error") };
        assert!(matches!(error, TaskError::Codec { action: told, .. } if told == action), "{error}");
        assert_eq!(ended.value(), MANY - 2 - u32::from(number != BAD[2]), "{action}: all others were run");
    }
}

#[test]
fn results_of_any_size_and_handles_come_back_in_order() {
    let pool = Pool::new(2).unwrap();
    let len = |x: u32| (x as usize * 37 % 400) * usize::from(x % 100 != 7) + (x as usize % 100 / 99) * 5000;
    let text = |len: u64| "x".repeat(len as usize);
    let texts = pool.tasks(text, (0..MANY).map(|x| (len(x) as u64,))).chunk(1).run().unwrap();
    assert!(texts.iter().zip(0..).all(|(text, x)| text.len() == len(x)));
    let gate = Semaphore::new(3).unwrap();
    let maybe = |gate: Semaphore, x: u32| x.is_multiple_of(50).then_some(gate);
    let gates = pool.tasks(maybe, (0..MANY).map(|x| (gate.clone(), x))).chunk(1).run().unwrap();
    assert!(gates.iter().zip(0u32..).all(|(gate, x)| gate.is_some() == x.is_multiple_of(50)));
    gates.into_iter().flatten().for_each(|again| assert_eq!(again.value(), 3));
}

#[test]
fn what_is_urgent_comes_before_what_is_not_begun_of_many() {
    let pool = Pool::new(1).unwrap();
    let order = Queue::<u32>::bounded(2 * MANY as usize).unwrap();
    let (begun, gate) = (Event::new().unwrap(), Event::new().unwrap());
    let note = |order: Queue<u32>, begun: Event, gate: Event, x: u32| {
        order.put(x).unwrap();
        if x == 1000 {
            begun.set();
            gate.wait().unwrap();
        }
    };
    let items: Vec<_> = (0..MANY).map(|x| (order.clone(), begun.clone(), gate.clone(), x)).collect();
    let mut many = pool.tasks(note, items).chunk(1).submit();
    begun.wait().unwrap();
    let mut urgent = pool.task(note, (order.clone(), begun, gate.clone(), 9999)).priority(1).submit();
    gate.set();
    urgent.get().unwrap();
    many.get().unwrap();
    let order: Vec<u32> = order.get_many(2 * MANY as usize).unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(order, (0..=1000).chain([9999]).chain(1001..MANY).collect::<Vec<_>>());
}

#[test]
fn many_tasks_are_cancelled_in_the_middle() {
    let pool = Pool::new(2).unwrap();
    let (ended, half) = (Semaphore::new(0).unwrap(), Semaphore::new(0).unwrap());
    let items = (0..MANY).map(|x| (ended.clone(), half.clone(), x));
    let work = |ended: Semaphore, half: Semaphore, x: u32| {
        if x == MANY / 2 {
            half.release().unwrap();
        }
        // The second half waits to be cancelled.
        while x >= MANY / 2 && !is_cancelled() {
            std::thread::yield_now();
        }
        ended.release().unwrap();
    };
    let mut many = pool.tasks(work, items).chunk(1).submit();
    half.acquire().unwrap().forget();
    many.cancel();
    assert!(matches!(task_error(many.get()), TaskError::Cancelled { .. }));
    assert_eq!(pool.apply(square, (3,)).unwrap(), 9);
    pool.close();
    pool.join().unwrap();
    assert!(ended.value() <= MANY / 2 + 2, "each worker ended the one it was in: {}", ended.value());
}

#[test]
fn threads_share_a_pool() {
    let pool = Pool::new(2).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let pool = &pool;
            scope.spawn(move || {
                for x in 0..200 {
                    assert_eq!(pool.apply(square, (thread * 1000 + x,)).unwrap(), square(thread * 1000 + x));
                }
                let expected: Vec<u64> = (0..500).map(square).collect();
                assert_eq!(pool.map_chunked(square, 0..500, 1).get().unwrap(), expected);
            });
        }
    });
}

#[test]
fn an_array_is_changed_in_place() {
    let pool = Pool::new(2).unwrap();
    for len in [0usize, 1, 15, 16, 17, 100_000] {
        let array = shmkit::Array::<u64>::new(len).unwrap();
        let fill = |first: usize, part: &mut [u64]| {
            for (index, element) in (first..).zip(part) {
                *element += 3 * index as u64;
            }
        };
        // SAFETY: nobody else knows the array.
        unsafe { pool.map_array(&array, fill).unwrap() };
        assert!((0..).zip(array.read(..).unwrap()).all(|(index, element)| element == 3 * index), "{len}");
    }
    let array = shmkit::Array::<u64>::new(10).unwrap();
    // SAFETY: as above.
    let failed = unsafe { pool.map_array(&array, |_: usize, _: &mut [u64]| panic!("on purpose")) };
    assert!(matches!(task_error(failed), TaskError::Panicked { .. }));
}

#[test]
fn a_reduction_keeps_the_order() {
    let pool = Pool::new(3).unwrap();
    for len in [0u32, 1, 2, 23, 24, 25, 1000] {
        let text = pool.map_reduce(|x: u32| x.to_string(), |a: String, b: String| a + &b, 0..len).unwrap();
        let expected: String = (0..len).map(|x| x.to_string()).collect();
        assert_eq!(text.unwrap_or_default(), expected, "{len}");
    }
}

#[test]
fn code_that_asks_for_an_executor_runs_in_a_pool_or_here() {
    fn work(executor: &impl Executor) -> (Vec<u64>, u64, u64) {
        let squares = executor.map(square, (0..50).collect()).unwrap();
        executor.for_each(|_: u64| (), vec![1u64, 2]).unwrap();
        let (a, b) = executor.join_both(square, 3u64, square, 4u64).unwrap();
        (squares, a, b)
    }
    let pool = Pool::new(2).unwrap();
    assert_eq!(work(&pool), work(&Here));
    assert!(pool.for_each(|_: u64| panic!("on purpose"), vec![1u64]).is_err());
}

#[cfg(feature = "indicatif")]
#[test]
fn a_bar_shows_how_many_are_done() {
    let pool = Pool::new(2).unwrap();
    let bar = indicatif::ProgressBar::hidden();
    pool.tasks(square, (0..100).map(|x| (x,))).bar(bar.clone()).run().unwrap();
    assert_eq!((bar.position(), bar.length(), bar.is_finished()), (100, Some(100), true));
}
