//! A process killed at each step of being done, of giving a task back, of shutting down, of becoming and ceasing to be a
//! producer: the rows of the crash tables of `channel/joinable.rs` and `channel/ends.rs`.

mod common;

use shmkit::{ChannelError, Error, JoinableQueue, Queue, Segment, failpoint};
use std::thread;

roles!(counts, puts, drops, works, recovers, ends, works_for_ever);

/// Too long for a block.
fn long() -> Vec<u32> {
    (0..1000).collect()
}

fn arm(arguments: &[String]) {
    failpoint::arm(&arguments[1], arguments[2].parse().unwrap());
}

/// Does one thing with the joinable queue, and dies at the kill point.
fn works(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let jobs = segment.joinable_queue::<Vec<u32>>("jobs").open().unwrap();
    common::say("ready");
    common::listen();
    match arguments[3].as_str() {
        "get" => {
            arm(arguments);
            jobs.get().unwrap();
        }
        "task_done" => {
            jobs.get().unwrap();
            arm(arguments);
            jobs.task_done().unwrap();
        }
        "done" => {
            let task = jobs.get_task().unwrap();
            arm(arguments);
            task.done().unwrap();
        }
        "give back" => {
            let task = jobs.get_task().unwrap();
            arm(arguments);
            drop(task);
        }
        "shutdown" => {
            arm(arguments);
            jobs.shutdown(true).unwrap();
        }
        other => panic!("unknown operation {other}"),
    }
}

fn killed(segment: &common::Named, role: &str, point: &str, nth: u32, operation: &str) -> common::Child {
    let mut child = common::start(role, &[&segment.name, point, &nth.to_string(), operation]);
    child.expect("ready");
    child
}

/// Everything can be used again, and nothing but the queue is left in the heap.
fn check(segment: &Segment, jobs: &JoinableQueue<Vec<u32>>, memory: u64, row: &str) {
    segment.verify().unwrap_or_else(|error| panic!("{row}: {error}"));
    assert_eq!(segment.memory().unwrap().0, memory, "{row}: memory leaked");
    assert_eq!((jobs.len(), jobs.unfinished()), (0, 0), "{row}");
    if jobs.is_closed() {
        return;
    }
    for number in 0..200 {
        jobs.put_many((0..4).map(|step| vec![number, step])).unwrap();
        for step in 0..4 {
            assert_eq!(jobs.try_get().unwrap(), [number, step], "{row}");
        }
        (0..4).for_each(|_| jobs.task_done().unwrap());
    }
    jobs.join().unwrap();
}

#[test]
fn a_worker_killed_at_every_step() {
    // Operation, kill point, and whether its message is delivered again.
    let rows = [
        ("get", "queue.before_taken", Some(0)),
        ("get", "queue.taken", Some(1)),
        ("get", "queue.head", Some(1)),
        ("get", "queue.read", Some(1)),
        ("get", "queue.slot_free", Some(1)),
        ("get", "queue.copied", Some(1)),
        ("task_done", "queue.before_free", Some(1)),
        ("task_done", "queue.freed", None),
        ("task_done long", "queue.releasing", None),
        ("task_done long", "queue.extent_freed", None),
        ("task_done long", "queue.extent_cleared", None),
        ("task_done long", "queue.before_free", None),
        ("task_done long", "queue.freed", None),
        ("done", "queue.before_free", Some(1)),
        ("done", "queue.freed", None),
        ("done long", "queue.releasing", None),
        ("give back", "queue.put_back", Some(1)),
        ("give back long", "queue.put_back", Some(1)),
    ];
    for (operation, point, again) in rows {
        let row = format!("{operation} at {point}");
        let segment = common::named("worker");
        let jobs = segment.joinable_queue::<Vec<u32>>("jobs").capacity(4).tasks(3).create().unwrap();
        let memory = segment.memory().unwrap().0;
        let (operation, job) = match operation.strip_suffix(" long") {
            Some(operation) => (operation, long()),
            None => (operation, vec![7]),
        };
        let mut child = killed(&segment, "works", point, 1, operation);
        jobs.put_ref(&job).unwrap();
        // Somebody joins meanwhile: he neither hangs nor ends too early.
        thread::scope(|scope| {
            let joiner = scope.spawn(|| jobs.join());
            child.tell("go");
            child.was_killed();
            segment.recover();
            assert_eq!(jobs.unfinished(), usize::from(again.is_some()), "{row}");
            if let Some(redelivered) = again {
                assert!(!joiner.is_finished(), "{row}: joined too early");
                let task = jobs.get_task().unwrap();
                assert_eq!((&*task, task.redelivered()), (&job, redelivered), "{row}");
                task.done().unwrap();
            }
            joiner.join().unwrap().unwrap();
        });
        check(&segment, &jobs, memory, &row);
    }
}

#[test]
fn what_the_dead_had_not_done_is_done_if_it_is_to_be_delivered_at_most_once() {
    for (job, point) in [(vec![7], "queue.copied"), (long(), "queue.copied"), (long(), "queue.taken")] {
        let segment = common::named("worker-once");
        let jobs = segment.joinable_queue::<Vec<u32>>("jobs").capacity(4).tasks(3).at_most_once().create().unwrap();
        let memory = segment.memory().unwrap().0;
        let mut child = killed(&segment, "works", point, 1, "get");
        jobs.put(job).unwrap();
        thread::scope(|scope| {
            let joiner = scope.spawn(|| jobs.join());
            child.tell("go");
            child.was_killed();
            joiner.join().unwrap().unwrap();
        });
        check(&segment, &jobs, memory, point);
    }
}

/// Recovers the dead, and dies at the kill point.
fn recovers(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    arm(arguments);
    segment.recover();
}

#[test]
fn the_recoverer_of_a_worker_killed_at_every_step() {
    for point in ["queue.recover_scanned", "queue.recover_requeued", "queue.recover_hint"] {
        for death in ["queue.copied", "queue.taken"] {
            let segment = common::named("worker-recoverer");
            let jobs = segment.joinable_queue::<Vec<u32>>("jobs").capacity(4).tasks(3).create().unwrap();
            let memory = segment.memory().unwrap().0;
            let mut child = killed(&segment, "works", death, 1, "get");
            jobs.put(long()).unwrap();
            child.tell("go");
            child.was_killed();
            common::start("recovers", &[&segment.name, point, "1"]).was_killed();
            segment.recover();
            assert_eq!((jobs.len(), jobs.unfinished()), (1, 1), "{point}");
            let task = jobs.get_task().unwrap();
            assert_eq!(task.redelivered(), 1, "{point}");
            task.done().unwrap();
            check(&segment, &jobs, memory, point);
        }
    }
}

#[test]
fn a_shutdown_killed_at_every_step() {
    for (point, nth) in [
        ("queue.closed", 1),
        ("queue.taken", 1),
        ("queue.releasing", 1),
        ("queue.freed", 2),
        ("queue.discarded", 1),
        ("queue.discarded", 2),
        ("queue.ended", 1),
    ] {
        let row = format!("shutdown at {point} {nth}");
        let segment = common::named("shutdown");
        let jobs = segment.joinable_queue::<Vec<u32>>("jobs").capacity(4).tasks(3).create().unwrap();
        let memory = segment.memory().unwrap().0;
        jobs.put_many([long(), vec![1], long(), vec![2]]).unwrap();
        let mut child = killed(&segment, "works", point, nth, "shutdown");
        thread::scope(|scope| {
            // Somebody waits for room, somebody joins: not before the mark, or he would throw away what the dead one is to.
            let putter = scope.spawn(|| jobs.put(vec![3]));
            let early = (point == "queue.closed").then(|| scope.spawn(|| jobs.join()));
            child.tell("go");
            child.was_killed();
            segment.recover();
            let error = putter.join().unwrap().unwrap_err();
            assert!(matches!(error, Error::Channel(ChannelError::ShutDown { .. })), "{row}: {error}");
            // Nothing was left to do when he looked, or the dead one still had something.
            if let Err(error) = early.map_or_else(|| jobs.join(), |joiner| joiner.join().unwrap()) {
                assert!(matches!(error, Error::Channel(ChannelError::ShutDown { .. })), "{row}: {error}");
            }
        });
        let error = jobs.get().unwrap_err();
        assert!(matches!(error, Error::Channel(ChannelError::ShutDown { .. })), "{row}: {error}");
        check(&segment, &jobs, memory, &row);
    }
}

/// Becomes the only producer, or ceases to be, and dies at the kill point.
fn ends(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    common::say("ready");
    common::listen();
    if arguments[3] == "open" {
        arm(arguments);
    }
    let producer = segment.queue::<u32>("numbers").open_producer().unwrap();
    producer.put(1).unwrap();
    if arguments[3] == "drop" {
        arm(arguments);
    }
    drop(producer);
}

#[test]
fn a_producer_killed_at_every_step_of_its_coming_and_going() {
    // What is got, and whether the end comes then: there is none before the first producer.
    let rows = [
        ("open", "reference.cell", 0, false),
        ("open", "queue.end_held", 0, false),
        ("open", "queue.end_entered", 0, true),
        ("open", "queue.before_ready", 0, true),
        ("open", "queue.ready", 1, true),
        ("drop", "drop.before_cell", 1, true),
        ("drop", "drop.cell", 1, true),
    ];
    for (operation, point, expected, ended) in rows {
        let row = format!("{operation} at {point}");
        let segment = common::named("ends");
        drop(segment.queue::<u32>("numbers").create().unwrap());
        let consumer = segment.queue::<u32>("numbers").open_consumer().unwrap();
        let mut child = killed(&segment, "ends", point, 1, operation);
        thread::scope(|scope| {
            let getter = scope.spawn(|| consumer.iter().map(Result::unwrap).collect::<Vec<_>>());
            child.tell("go");
            child.was_killed();
            if !ended {
                segment.recover();
                assert!(!getter.is_finished(), "{row}: an end without a beginning");
                drop(segment.queue::<u32>("numbers").open_producer().unwrap());
            }
            assert_eq!(getter.join().unwrap(), vec![1; expected], "{row}");
        });
        segment.verify().unwrap();
    }
}

#[test]
fn a_producer_that_waits_is_told_when_the_last_consumer_dies() {
    let segment = common::named("last-consumer");
    drop(segment.queue::<u32>("numbers").capacity(1).create().unwrap());
    let producer = segment.queue::<u32>("numbers").open_producer().unwrap();
    producer.put(1).unwrap();
    let mut child = common::start("works_for_ever", &[&segment.name]);
    child.expect("ready");
    producer.put(2).unwrap();
    thread::scope(|scope| {
        let putter = scope.spawn(|| producer.put(3));
        child.kill();
        let error = putter.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::Channel(ChannelError::BrokenPipe)), "{error}");
    });
    let queue: Queue<u32> = segment.queue("numbers").open().unwrap();
    assert_eq!(queue.get().unwrap(), 2, "what was put is there for whoever comes");
}

fn works_for_ever(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let consumer = segment.queue::<u32>("numbers").open_consumer().unwrap();
    consumer.get().unwrap();
    common::say("ready");
    common::listen();
}

/// Puts a message into a queue that must grow for it, and dies at the kill point.
fn puts(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let queue = segment.queue::<Vec<u32>>("many").open().unwrap();
    arm(arguments);
    queue.put(vec![1]).unwrap();
}

#[test]
fn a_producer_killed_at_every_step_of_growing() {
    let recoverers =
        [None, Some("queue.recover_chunks"), Some("queue.recover_scanned"), Some("recover.before_generation")];
    for (point, arrives) in [
        ("queue.chunk_held", false),
        ("queue.chunk_named", false),
        ("queue.chunk_committed", false),
        ("queue.claimed", false),
        ("queue.ready", true),
    ] {
        for recoverer in recoverers {
            let row = format!("{point}, recoverer at {recoverer:?}");
            let segment = common::named("growing");
            let queue = segment.queue::<Vec<u32>>("many").unbounded(1000).create().unwrap();
            common::start("puts", &[&segment.name, point, "1"]).was_killed();
            if let Some(point) = recoverer {
                common::start("recovers", &[&segment.name, point, "1"]).was_killed();
            }
            segment.recover();
            segment.verify().unwrap_or_else(|error| panic!("{row}: {error}"));
            assert_eq!(queue.len(), usize::from(arrives), "{row}");
            queue.put_many((0..999).map(|number| vec![number])).unwrap();
            let got = (0..queue.len()).map(|_| queue.get().unwrap()).skip(usize::from(arrives));
            assert!(got.eq((0..999).map(|number| vec![number])), "{row}");
            segment.remove("many").unwrap();
            drop(queue);
            segment.verify().unwrap_or_else(|error| panic!("{row}: {error}"));
            assert_eq!(segment.memory().unwrap().0, 0, "{row}: memory leaked");
        }
    }
}

/// Is the last to drop a queue that has grown, and dies at the kill point.
fn drops(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let queue = segment.queue::<Vec<u32>>("many").open().unwrap();
    common::say("ready");
    common::listen();
    arm(arguments);
    drop(queue);
}

#[test]
fn who_destroys_a_grown_queue_killed_at_every_step() {
    for (point, nth) in
        [("queue.chunk_freed", 1), ("queue.chunk_freed", 3), ("destroy.contents", 1), ("destroy.freed", 1)]
    {
        let segment = common::named("grown-drop");
        let queue = segment.queue::<Vec<u32>>("many").unbounded(2000).create().unwrap();
        queue.put_many((0..700).map(|number| vec![number])).unwrap();
        queue.put(long()).unwrap();
        let mut child = killed(&segment, "drops", point, nth, "drop");
        segment.remove("many").unwrap();
        drop(queue);
        child.tell("go");
        child.was_killed();
        segment.recover();
        segment.verify().unwrap_or_else(|error| panic!("{point}: {error}"));
        assert_eq!(segment.memory().unwrap().0, 0, "{point}: memory leaked");
    }
}

// ---- random kills --------------------------------------------------------------------------------------------------------

const JOBS: usize = 60;

/// Counts each job it is given, then is done with it, for ever. Every other one it takes apart first.
fn counts(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let jobs = segment.joinable_queue::<(u32, Vec<u8>)>("jobs").open().unwrap();
    let done = segment.array::<u64>("done").open().unwrap();
    loop {
        let task = jobs.get_task().unwrap();
        let number = task.0;
        if number >= JOBS as u32 {
            jobs.put((number - JOBS as u32, vec![1; 700])).unwrap();
        } else {
            done.fetch_add(number as usize, 1).unwrap();
        }
        task.done().unwrap();
    }
}

#[test]
fn random_kills_neither_lose_a_job_nor_end_a_join_too_early() {
    let seed = std::env::var("SHMKIT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64);
    println!("SHMKIT_SEED={seed}");
    let mut state = seed | 1;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let segment = common::named("soak-jobs");
    let jobs = segment.joinable_queue::<(u32, Vec<u8>)>("jobs").capacity(200).create().unwrap();
    let done = segment.array::<u64>("done").len(JOBS).create().unwrap();
    let mut workers: Vec<_> = (0..3).map(|_| common::start("counts", &[&segment.name])).collect();
    let mut deaths = 0;
    for round in 1..=30 {
        jobs.put_many((0..JOBS as u32).map(|number| (number + JOBS as u32 * (number % 2), vec![2; 10]))).unwrap();
        for _ in 0..random(3) {
            // In the middle of its work, or before it has any.
            let left = random(JOBS as u64) as usize;
            while jobs.unfinished() > left {
                thread::yield_now();
            }
            let victim = random(3) as usize;
            workers[victim].kill();
            workers[victim] = common::start("counts", &[&segment.name]);
            deaths += 1;
        }
        jobs.join().unwrap();
        assert_eq!((jobs.len(), jobs.unfinished()), (0, 0), "round {round}");
        let counts: Vec<u64> = (0..JOBS).map(|number| done.get(number).unwrap()).collect();
        assert!(counts.iter().all(|&count| count >= round), "round {round}: joined too early: {counts:?}");
        let more: u64 = counts.iter().map(|count| count - round).sum();
        assert!(more <= deaths, "round {round}: {more} jobs were done again after {deaths} deaths");
    }
    workers.iter_mut().for_each(common::Child::kill);
    segment.recover();
    for name in ["jobs", "done"] {
        segment.remove(name).unwrap();
    }
    drop((jobs, done));
    segment.verify().unwrap();
    assert_eq!(segment.memory().unwrap().0, 0);
}
