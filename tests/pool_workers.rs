//! The workers of pools: how they come into being, how they are replaced, and how they are ended.

mod common;

use common::{die, task_error};
use rayon::prelude::*;
use shmkit::pool::{Argument, Executor, is_cancelled};
use shmkit::process::{StartMethod, Target, all_start_methods};
use shmkit::{Error, Event, Pool, Queue, Semaphore, TaskError};
use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

roles!(is_warm, is_large);

fn square(x: u64) -> u64 {
    x * x
}

// ---- how they come into being --------------------------------------------------------------------------------------------

#[test]
fn workers_of_every_method_work_die_and_are_replaced() {
    for method in all_start_methods() {
        let pool = Pool::builder().workers(2).start_method(method).start().unwrap();
        let before: BTreeSet<u32> = pool.worker_pids().into_iter().collect();
        assert_eq!(pool.map(square, 0..200).unwrap(), (0..200).map(square).collect::<Vec<_>>(), "{method}");
        let TaskError::WorkerDied { pid, signal: Some(libc::SIGKILL), .. } = task_error(pool.apply(die, ())) else {
            panic!("{method}: another error");
        };
        assert!(before.contains(&pid), "{method}");
        assert_eq!(pool.map(square, 0..200).unwrap().len(), 200);
        assert!(!pool.worker_pids().contains(&pid) && pool.worker_pids().len() == 2, "{method}");
        pool.close();
        pool.join().unwrap();
    }
}

static LOADED: AtomicU32 = AtomicU32::new(0);

/// A process of its own, since the preload is the program's.
fn is_warm(_: &[String]) {
    shmkit::process::set_forkserver_preload(|| LOADED.store(5, Ordering::Relaxed));
    let pool = Pool::builder().workers(1).start_method(StartMethod::ForkServer).start().unwrap();
    let look = || LOADED.load(Ordering::Relaxed);
    assert_eq!(pool.apply(look, ()).unwrap(), 5);
    assert!(pool.apply(die, ()).is_err());
    assert_eq!(pool.apply(look, ()).unwrap(), 5, "who takes its place, too");
    common::say("warm");
}

#[test]
fn workers_of_a_fork_server_have_what_it_has_loaded() {
    let mut child = common::start("is_warm", &[]);
    child.expect("warm");
    child.succeeded();
}

// ---- initializers --------------------------------------------------------------------------------------------------------

/// Two fail, the third one begins to work, and so on.
fn one_of_three(count: Semaphore) -> Result<(), String> {
    count.release().map_err(|error| error.to_string())?;
    if count.value().is_multiple_of(3) { Ok(()) } else { Err(format!("number {} may not", count.value())) }
}

#[test]
fn an_initializer_that_fails_now_and_then_does_not_break_the_pool() {
    let count = Semaphore::new(0).unwrap();
    let pool = Pool::builder().workers(1).initializer(one_of_three, (count.clone(),)).start().unwrap();
    for workers in 1..=4 {
        pool.resize(workers).unwrap();
        // Each task waits until all workers have one: so many of them have begun to work.
        let (here, gate) = (Semaphore::new(0).unwrap(), Event::new().unwrap());
        let meet = |here: Semaphore, gate: Event| {
            here.release().unwrap();
            gate.wait().unwrap();
        };
        let all: Vec<_> = (0..workers).map(|_| pool.apply_async(meet, (here.clone(), gate.clone()))).collect();
        (0..workers).for_each(|_| here.acquire().unwrap().forget());
        gate.set();
        all.into_iter().for_each(|mut task| task.get().unwrap());
    }
    assert_eq!(count.value(), 12, "eight of them failed");
}

/// Only the first two have a licence.
fn two_licences(licences: Semaphore) -> Result<(), String> {
    match licences.try_acquire() {
        Ok(licence) => {
            licence.forget();
            Ok(())
        }
        Err(_) => Err("no licence is left".to_owned()),
    }
}

#[test]
fn an_initializer_that_goes_on_failing_breaks_a_pool_that_has_worked() {
    let licences = Semaphore::new(2).unwrap();
    let pool = Pool::builder().workers(1).initializer(two_licences, (licences,)).start().unwrap();
    for _ in 0..2 {
        assert_eq!(pool.apply(square, (3,)).unwrap(), 9);
        assert!(matches!(task_error(pool.apply(die, ())), TaskError::WorkerDied { .. }));
    }
    let error = task_error(pool.apply(square, (3,)));
    assert!(matches!(&error, TaskError::BrokenPool { why } if why.contains("no licence is left")), "{error}");
    pool.join().unwrap();
}

// ---- replacement ---------------------------------------------------------------------------------------------------------

#[test]
fn a_worker_that_is_to_be_replaced_works_until_the_next_one_is_ready() {
    let gate = Event::new().unwrap();
    let started = Semaphore::new(0).unwrap();
    let wait_unless_first = |gate: Event, started: Semaphore| {
        started.release().unwrap();
        if started.value() > 1 {
            gate.wait().unwrap();
        }
    };
    let builder = Pool::builder().workers(1).max_rss_per_worker(64 << 20);
    let pool = builder.initializer(wait_unless_first, (gate.clone(), started.clone())).start().unwrap();
    let hog = || {
        std::mem::forget(std::hint::black_box(vec![1u8; 80 << 20]));
        std::process::id()
    };
    let first = pool.apply(hog, ()).unwrap();
    common::until(|| started.value() == 2);
    // The other one is there and not ready: nobody waits for it.
    for _ in 0..50 {
        assert_eq!(pool.apply(std::process::id, ()).unwrap(), first);
    }
    gate.set();
    common::until(|| pool.apply(std::process::id, ()).unwrap() != first);
    common::until(|| pool.worker_pids().len() == 1 && pool.worker_pids()[0] != first);
    assert_eq!(started.value(), 2);
}

#[test]
fn a_worker_ends_after_exactly_so_many_tasks() {
    let pool = Pool::builder().workers(1).max_tasks_per_worker(3).start().unwrap();
    let pids: Vec<u32> = (0..12).map(|_| pool.apply(std::process::id, ()).unwrap()).collect();
    let mut runs: Vec<usize> = Vec::new();
    for index in 0..pids.len() {
        if index > 0 && pids[index] == pids[index - 1] { *runs.last_mut().unwrap() += 1 } else { runs.push(1) }
    }
    assert_eq!(runs, [3, 3, 3, 3], "{pids:?}");
    assert_eq!(pids.iter().collect::<BTreeSet<_>>().len(), 4);
}

// ---- the ends of tasks ---------------------------------------------------------------------------------------------------

static TERMINATED: OnceLock<Event> = OnceLock::new();

extern "C" fn note_termination(_: i32) {
    TERMINATED.get().unwrap().set();
}

/// Sees the flag, hears SIGTERM, and goes on nevertheless.
fn notes_all_and_goes_on(begun: Event, flag: Event, termination: Event) {
    TERMINATED.set(termination).unwrap();
    // SAFETY: the handler sets an event, which is a store and a system call.
    unsafe { libc::signal(libc::SIGTERM, note_termination as *const () as usize) };
    begun.set();
    loop {
        if is_cancelled() {
            flag.set();
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_task_is_asked_then_terminated_then_killed_in_that_order() {
    let pool = Pool::builder().workers(1).grace(Duration::from_millis(300)).start().unwrap();
    let [begun, flag, termination] = std::array::from_fn(|_| Event::new().unwrap());
    let worker = pool.worker_pids()[0];
    let mut task = pool.apply_async(notes_all_and_goes_on, (begun.clone(), flag.clone(), termination.clone()));
    begun.wait().unwrap();
    task.cancel();
    assert!(matches!(task_error(task.get()), TaskError::Cancelled { .. }));
    flag.wait().unwrap();
    // A worker that is killed without having had SIGTERM never says so, and this waits for ever.
    termination.wait().unwrap();
    common::until(|| !pool.worker_pids().contains(&worker));
    assert_eq!(pool.apply(square, (3,)).unwrap(), 9);
}

#[test]
fn all_calls_of_a_map_are_cancelled_together_and_no_others() {
    let pool = Pool::builder().workers(2).grace(Duration::from_millis(20)).start().unwrap();
    let (begun, gate) = (Semaphore::new(0).unwrap(), Event::new().unwrap());
    let wait = |begun: Semaphore, gate: Event| {
        begun.release().unwrap();
        gate.wait().unwrap();
    };
    let mut other = pool.apply_async(wait, (begun.clone(), gate.clone()));
    begun.acquire().unwrap().forget();
    let never = Event::new().unwrap();
    let items = (0..5000).map(|_| (begun.clone(), never.clone()));
    let mut map = pool.tasks(wait, items).chunk(1).submit();
    begun.acquire().unwrap().forget();
    map.cancel();
    assert!(matches!(task_error(map.get()), TaskError::Cancelled { .. }));
    gate.set();
    other.get().unwrap();
    assert_eq!(pool.map(square, 0..100).unwrap().len(), 100);
}

#[test]
fn what_is_known_of_a_death_is_all_in_the_error() {
    let pool = Pool::new(1).unwrap();
    let mut tasks = BTreeSet::new();
    for signal in [libc::SIGKILL, libc::SIGSEGV, libc::SIGABRT, libc::SIGTERM] {
        let worker = pool.worker_pids()[0];
        let raise = |signal: i32| {
            // SAFETY: raise and setrlimit have no preconditions; no core is wanted.
            unsafe {
                libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 });
                libc::signal(signal, libc::SIG_DFL);
                libc::raise(signal);
            }
        };
        let error = task_error(pool.apply(raise, (signal,)));
        let TaskError::WorkerDied { pid, signal: told, exit_code, task, peak_rss, out_of_memory } = error else {
            panic!("another error: {error}")
        };
        assert_eq!((pid, told, exit_code, out_of_memory), (worker, Some(signal), None, false));
        assert!(tasks.insert(task), "each task has a number of its own");
        assert!(peak_rss.is_some_and(|bytes| bytes > 100_000), "{peak_rss:?}");
    }
}

/// A process with much memory: what its workers have had is another thing.
fn is_large(_: &[String]) {
    let much = std::hint::black_box(vec![1u8; 400 << 20]);
    let hog = || {
        std::hint::black_box(vec![1u8; 100 << 20]);
        die();
    };
    let pool = Pool::builder().workers(1).start_method(StartMethod::ForkServer).start().unwrap();
    let TaskError::WorkerDied { peak_rss: Some(peak), .. } = task_error(pool.apply(hog, ())) else {
        panic!("another error")
    };
    drop(much);
    common::say(&(peak >> 20).to_string());
}

#[test]
fn the_memory_of_a_fork_servers_worker_is_told_without_its_parents() {
    let mut child = common::start("is_large", &[]);
    let peak: u64 = child.hear().parse().unwrap();
    assert!((100..300).contains(&peak), "{peak} MiB");
    child.succeeded();
}

#[test]
fn times_without_an_end_are_times() {
    let pool = Pool::builder().workers(1).grace(Duration::MAX).max_age_per_worker(Duration::MAX).start().unwrap();
    assert_eq!(pool.task(square, (3,)).deadline(Duration::MAX).run().unwrap(), 9);
    assert_eq!(pool.tasks(square, (0..10).map(|x| (x,))).deadline(Duration::MAX).run().unwrap().len(), 10);
    let mut squares = pool.imap(square, [4]).deadline(Duration::MAX);
    assert_eq!(squares.next_timeout(Duration::MAX).unwrap().unwrap(), 16);
    let [begun, flag] = std::array::from_fn(|_| Event::new().unwrap());
    let listens = |begun: Event, flag: Event| {
        begun.set();
        while !is_cancelled() {
            std::thread::yield_now();
        }
        flag.set();
    };
    let mut task = pool.apply_async(listens, (begun.clone(), flag.clone()));
    begun.wait().unwrap();
    task.cancel();
    assert!(matches!(task_error(task.get_timeout(Duration::MAX)), TaskError::Cancelled { .. }));
    flag.wait().unwrap();
    let worker = pool.worker_pids();
    assert_eq!((pool.apply(square, (5,)).unwrap(), pool.worker_pids()), (25, worker));
    // Nothing is too short, either.
    let late = pool.task(square, (6,)).deadline(Duration::ZERO).run();
    assert!(matches!(late, Ok(36) | Err(Error::Task(TaskError::DeadlineExceeded { .. }))), "{late:?}");
    pool.close();
    pool.join().unwrap();
}

#[test]
fn two_hundred_workers_of_a_fork_server_start_work_and_stop() {
    let pool = Pool::builder().workers(200).start_method(StartMethod::ForkServer).start().unwrap();
    assert_eq!(pool.worker_pids().into_iter().collect::<BTreeSet<_>>().len(), 200);
    assert_eq!(pool.map(square, 0..2000).unwrap(), (0..2000).map(square).collect::<Vec<_>>());
    pool.close();
    pool.join().unwrap();
    assert!(pool.worker_pids().is_empty());
}

// ---- nested pools --------------------------------------------------------------------------------------------------------

#[test]
fn a_pool_in_a_pool_in_a_pool() {
    let deepest = |n: u64| Pool::new(1).unwrap().map(square, 0..n).unwrap().iter().sum::<u64>();
    let middle = move |n: u64| Pool::new(1).unwrap().apply(deepest, (n,)).unwrap();
    assert_eq!(Pool::new(2).unwrap().map(middle, [3, 4, 5]).unwrap(), [5, 14, 30]);
}

#[test]
fn a_cancelled_task_takes_its_own_pool_along() {
    let pool = Pool::builder().workers(1).grace(Duration::from_millis(20)).start().unwrap();
    let pids = Queue::<u32>::bounded(4).unwrap();
    let inner = |pids: Queue<u32>| {
        let pool = Pool::new(2).unwrap();
        pool.worker_pids().into_iter().for_each(|pid| pids.put(pid).unwrap());
        pool.apply(|never: Event| never.wait().unwrap(), (Event::new().unwrap(),)).unwrap();
    };
    let mut task = pool.apply_async(inner, (pids.clone(),));
    let inner: Vec<u32> = (0..2).map(|_| pids.get().unwrap()).collect();
    task.cancel();
    assert!(matches!(task_error(task.get()), TaskError::Cancelled { .. }));
    let is_gone = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
    };
    common::until(|| inner.iter().all(is_gone));
}

// ---- other executors -----------------------------------------------------------------------------------------------------

/// Rayon's threads.
struct Threads;

impl Executor for Threads {
    fn map<F, T>(&self, function: F, items: Vec<T>) -> shmkit::Result<Vec<F::Outcome>>
    where
        F: Target<(T,), Outcome: Argument>,
        T: Argument,
    {
        let calls: Vec<(F, T)> = items.into_iter().map(|item| (function, item)).collect();
        Ok(calls.into_par_iter().map(|(function, item)| function.call((item,))).collect())
    }

    fn join_both<F, T, G, U>(&self, first: F, with: T, second: G, and: U) -> shmkit::Result<(F::Outcome, G::Outcome)>
    where
        F: Target<(T,), Outcome: Argument>,
        T: Argument,
        G: Target<(U,), Outcome: Argument>,
        U: Argument,
    {
        Ok(rayon::join(move || first.call((with,)), move || second.call((and,))))
    }
}

/// A program's code, which knows nothing of pools.
fn sums_of_squares(executor: &impl Executor) -> (u64, u64) {
    let squares = executor.map(square, (0..100).collect()).unwrap();
    let (low, high) = squares.split_at(50);
    let sum = |part: Vec<u64>| part.iter().sum::<u64>();
    executor.join_both(sum, low.to_vec(), sum, high.to_vec()).unwrap()
}

#[test]
fn the_same_code_runs_on_rayons_threads_and_in_a_pool() {
    assert_eq!(sums_of_squares(&Threads), sums_of_squares(&Pool::new(2).unwrap()));
}
