//! What queues know of their messages and of each other's users: done or not, shut down, nobody left.

mod common;

use shmkit::{ChannelError, Error, Event, JoinableQueue, PodQueue, Queue, Segment, SyncError};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

roles!(gets_all, grows, crawls, produces_and_waits, waits_to_get, waits_to_put, gets_and_keeps);

const NOW: Duration = Duration::ZERO;

fn is_end<T>(result: shmkit::Result<T>) -> bool {
    matches!(result, Err(Error::Channel(ChannelError::EndOfFile)))
}

fn is_shut<T>(result: shmkit::Result<T>) -> bool {
    matches!(result, Err(Error::Channel(ChannelError::ShutDown { .. })))
}

fn is_closed<T>(result: shmkit::Result<T>) -> bool {
    matches!(result, Err(Error::Channel(ChannelError::Closed { .. })))
}

// ---- joinable ------------------------------------------------------------------------------------------------------------

#[test]
fn a_message_is_unfinished_until_it_is_done() {
    let segment = Segment::anonymous().unwrap();
    let queue = JoinableQueue::<u32>::bounded_in(&segment, 4).unwrap();
    queue.join().unwrap();
    queue.put_many([1, 2, 3]).unwrap();
    assert_eq!((queue.len(), queue.unfinished()), (3, 3));
    assert_eq!(queue.get().unwrap(), 1);
    assert_eq!((queue.len(), queue.unfinished()), (2, 3));
    let all: Vec<_> = queue.get_many(2).unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(all, [2, 3]);
    assert_eq!((queue.len(), queue.unfinished()), (0, 3));
    for left in [2, 1, 0] {
        let waiting = queue.join_timeout(Duration::from_millis(1)).unwrap_err();
        let Error::Sync(SyncError::TimedOut { holder: Some(holder), .. }) = waiting else { panic!("{waiting}") };
        assert_eq!(holder.pid, std::process::id(), "the error names who works");
        // Another handle of this process does as well.
        queue.clone().task_done().unwrap();
        assert_eq!(queue.unfinished(), left);
    }
    queue.join_timeout(NOW).unwrap();
    let error = queue.task_done().unwrap_err();
    assert!(matches!(error, Error::Channel(ChannelError::TooManyDone)), "{error}");
    assert_eq!(error.code(), 312);
}

#[test]
fn a_handle_opened_again_is_the_same_consumer() {
    let segment = common::named("joinable-again");
    let queue = segment.joinable_queue::<String>("jobs").create().unwrap();
    queue.put("long ".repeat(100)).unwrap();
    assert_eq!(queue.get().unwrap().len(), 500);
    let again = segment.joinable_queue::<String>("jobs").open().unwrap();
    again.task_done().unwrap();
    queue.join().unwrap();
    assert!(queue.task_done().is_err());
    assert!(
        segment.queue::<String>("jobs").open().is_err(),
        "it is no plain queue: its messages would be done at once"
    );
}

#[test]
fn a_task_that_is_dropped_is_delivered_again() {
    let segment = Segment::anonymous().unwrap();
    let queue = JoinableQueue::<u32>::bounded_in(&segment, 4).unwrap();
    queue.put(7).unwrap();
    let panicked = thread::scope(|scope| {
        let queue = &queue;
        scope
            .spawn(move || {
                let _task = queue.get_task().unwrap();
                std::panic::resume_unwind(Box::new("a worker's"));
            })
            .join()
    });
    assert!(panicked.is_err());
    assert_eq!((queue.len(), queue.unfinished()), (1, 1));
    let task = queue.try_get_task().unwrap();
    assert_eq!((*task, task.redelivered()), (7, 1));
    assert_eq!((queue.len(), queue.unfinished()), (0, 1));
    task.done().unwrap();
    queue.join().unwrap();
    assert!(queue.task_done().is_err(), "a task is not done twice");
    let missing = queue.get_task_timeout(Duration::from_millis(1));
    assert!(matches!(missing, Err(Error::Channel(ChannelError::Empty { .. }))));
}

#[test]
fn as_many_tasks_as_allowed_are_out_and_then_putting_waits() {
    let segment = common::named("joinable-tasks");
    let queue = segment.joinable_queue::<u32>("jobs").capacity(2).tasks(3).create().unwrap();
    for number in 0..5 {
        queue.try_put(number).unwrap();
        if number < 3 {
            queue.get().unwrap();
        }
    }
    assert!(queue.is_full());
    queue.get().unwrap();
    assert!(matches!(queue.try_put(9), Err(Error::Channel(ChannelError::Full { .. }))), "every block is in use");
    queue.task_done().unwrap();
    queue.try_put(9).unwrap();
}

#[test]
fn a_message_with_a_handle_is_held_until_it_is_done() {
    let segment = Segment::anonymous().unwrap();
    let queue = JoinableQueue::<Event>::bounded_in(&segment, 4).unwrap();
    let event = Event::new_in(&segment).unwrap();
    event.set();
    queue.put(event).unwrap();
    drop(queue.get().unwrap());
    assert_eq!(segment.objects().len(), 2, "the message still names it");
    queue.task_done().unwrap();
    assert_eq!(segment.objects().len(), 1, "nobody does any more");
}

#[test]
fn a_message_that_cannot_be_read_is_done() {
    let segment = common::named("joinable-codec");
    let texts = segment.joinable_queue::<String>("jobs").create().unwrap();
    let numbers = segment.joinable_queue::<u32>("jobs").open().unwrap();
    texts.put("no number".to_owned()).unwrap();
    assert!(matches!(numbers.get(), Err(Error::Channel(ChannelError::Codec { .. }))));
    numbers.join().unwrap();
}

/// Works on numbers: each one puts its two halves before it is done.
fn crawls(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let jobs = segment.joinable_queue::<u32>("jobs").open().unwrap();
    let done = segment.value::<u64>("done").open().unwrap();
    for job in jobs.iter() {
        let job = job.unwrap();
        if job > 1 {
            jobs.put(job / 2).unwrap();
            jobs.put(job - job / 2).unwrap();
        } else {
            done.fetch_add(1);
        }
        jobs.task_done().unwrap();
    }
}

#[test]
fn who_joins_misses_nothing_that_tasks_put() {
    let segment = common::named("joinable-crawl");
    let jobs = segment.joinable_queue::<u32>("jobs").capacity(4096).create().unwrap();
    let done = segment.value::<u64>("done").initial(0).create().unwrap();
    let mut children: Vec<_> = (0..3).map(|_| common::start("crawls", &[&segment.name])).collect();
    for round in 1..=20 {
        jobs.put(100).unwrap();
        jobs.join().unwrap();
        assert_eq!(done.get().unwrap(), round * 100, "join came too early");
        assert_eq!((jobs.len(), jobs.unfinished()), (0, 0));
    }
    jobs.close();
    children.iter_mut().for_each(common::Child::succeeded);
}

/// Gets what there is, says so, and never is done.
fn gets_and_keeps(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let jobs = segment.joinable_queue::<u32>("jobs").open().unwrap();
    for _ in 0..3 {
        jobs.get().unwrap();
    }
    jobs.task_done().unwrap();
    common::say("has");
    common::listen();
}

#[test]
fn what_a_killed_consumer_had_not_done_is_delivered_again_and_joined_for() {
    let segment = common::named("joinable-killed");
    let jobs = segment.joinable_queue::<u32>("jobs").create().unwrap();
    jobs.put_many([1, 2, 3, 4]).unwrap();
    let mut child = common::start("gets_and_keeps", &[&segment.name]);
    child.expect("has");
    assert_eq!((jobs.len(), jobs.unfinished()), (1, 3));
    let Err(Error::Sync(SyncError::TimedOut { holder: Some(holder), .. })) =
        jobs.join_timeout(Duration::from_millis(1))
    else {
        panic!("joined too early");
    };
    assert_eq!(holder.pid, child.pid());
    thread::scope(|scope| {
        let joiner = scope.spawn(|| jobs.join());
        child.kill();
        let mut got: Vec<_> = (0..3).map(|_| jobs.get_message().unwrap()).map(|m| (m.value, m.redelivered)).collect();
        got.sort_unstable();
        // The oldest one was done before the death.
        assert_eq!(got, [(2, 1), (3, 1), (4, 0)]);
        assert_eq!(jobs.unfinished(), 3);
        (0..3).for_each(|_| jobs.task_done().unwrap());
        joiner.join().unwrap().unwrap();
    });
}

// ---- shutdown --------------------------------------------------------------------------------------------------------------

#[test]
fn a_queue_that_is_shut_down_at_once_gives_and_takes_nothing() {
    let segment = Segment::anonymous().unwrap();
    let queue = Queue::<Event>::bounded_in(&segment, 4).unwrap();
    let memory = segment.memory().unwrap().0;
    queue.put_many((0..4).map(|_| Event::new_in(&segment).unwrap())).unwrap();
    queue.shutdown(true).unwrap();
    assert!(is_shut(queue.get()) && is_shut(queue.try_get()) && is_shut(queue.get_timeout(NOW)));
    assert!(is_shut(queue.get_many(3)) && is_shut(queue.put(Event::new_in(&segment).unwrap())));
    assert!(queue.is_empty() && queue.is_closed());
    assert_eq!(queue.try_get().unwrap_err().code(), 311);
    assert_eq!(segment.memory().unwrap().0, memory, "what was thrown away is freed, and what it named");
    // Again, and later orderly: it stays as it is.
    queue.shutdown(true).unwrap();
    queue.shutdown(false).unwrap();
    assert!(is_shut(queue.get()));
}

#[test]
fn an_orderly_shutdown_is_a_close() {
    let segment = Segment::anonymous().unwrap();
    let queue = Queue::<u32>::bounded_in(&segment, 4).unwrap();
    queue.put_many([1, 2]).unwrap();
    queue.shutdown(false).unwrap();
    assert!(is_closed(queue.put(3)));
    assert_eq!(queue.iter().map(Result::unwrap).collect::<Vec<_>>(), [1, 2]);
    assert!(is_end(queue.get()));
    queue.shutdown(true).unwrap();
    assert!(is_shut(queue.get()) && is_shut(queue.put(3)));
}

#[test]
fn elements_are_shut_down_too() {
    let segment = Segment::anonymous().unwrap();
    let elements = PodQueue::<u64>::new_in(&segment, 4).unwrap();
    elements.put_many(&[1, 2]).unwrap();
    let loan = elements.loan().unwrap();
    let received = elements.recv().unwrap();
    elements.shutdown(true).unwrap();
    assert!(is_shut(loan.commit()), "what was on loan is not put any more");
    assert_eq!(*received, 1, "what was received stays its receiver's");
    assert!(
        is_shut(elements.recv())
            && is_shut(elements.get_many(2))
            && is_shut(elements.loan())
            && is_shut(elements.put(3))
    );
    assert!(elements.is_empty());
}

fn waits_to_get(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let queue = segment.queue::<u32>("empty").open().unwrap();
    common::say("ready");
    assert!(is_shut(queue.get()));
}

fn waits_to_put(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let queue = segment.queue::<u32>("full").open().unwrap();
    common::say("ready");
    assert!(is_shut(queue.put(1)));
}

#[test]
fn whoever_waits_is_told_of_a_shutdown() {
    let segment = common::named("shutdown");
    let empty = segment.queue::<u32>("empty").create().unwrap();
    let full = segment.queue::<u32>("full").capacity(1).create().unwrap();
    full.put(0).unwrap();
    let mut children: Vec<_> = ["waits_to_get", "waits_to_get", "waits_to_put", "waits_to_put"]
        .map(|role| common::start(role, &[&segment.name]))
        .into();
    children.iter_mut().for_each(|child| child.expect("ready"));
    common::until(|| children.iter().all(|child| common::is_asleep(child.pid())));
    empty.shutdown(true).unwrap();
    full.shutdown(true).unwrap();
    children.iter_mut().for_each(common::Child::succeeded);
}

#[test]
fn who_joins_is_told_of_a_shutdown_if_somebody_still_works() {
    let segment = Segment::anonymous().unwrap();
    let queue = JoinableQueue::<u32>::bounded_in(&segment, 8).unwrap();
    queue.put_many([1, 2, 3]).unwrap();
    let task = queue.get_task().unwrap();
    thread::scope(|scope| {
        let joiner = scope.spawn(|| queue.join());
        queue.shutdown(true).unwrap();
        assert!(is_shut(joiner.join().unwrap()));
    });
    assert_eq!(queue.unfinished(), 1, "what nobody had got is thrown away");
    drop(task);
    assert_eq!(queue.unfinished(), 0, "what comes back now is thrown away, too");
    queue.join().unwrap();
}

#[test]
fn producers_and_consumers_race_with_a_shutdown() {
    for round in 0..50 {
        let segment = Segment::anonymous().unwrap();
        let queue = Queue::<Vec<u8>>::bounded_in(&segment, 3).unwrap();
        let memory = segment.memory().unwrap().0;
        let got = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| while queue.put(vec![0; 400]).is_ok() {});
                scope.spawn(|| {
                    while queue.get().is_ok() {
                        got.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            while got.load(Ordering::Relaxed) < round {
                thread::yield_now();
            }
            queue.shutdown(true).unwrap();
        });
        assert!(queue.is_empty());
        assert_eq!(segment.memory().unwrap().0, memory, "round {round}");
    }
}

// ---- roles -----------------------------------------------------------------------------------------------------------------

#[test]
fn the_end_comes_when_the_last_producer_is_dropped() {
    let segment = Segment::anonymous().unwrap();
    let queue = Queue::<u32>::bounded_in(&segment, 4).unwrap();
    let (producer, consumer) = (queue.producer().unwrap(), queue.consumer().unwrap());
    let second = producer.clone();
    producer.put(1).unwrap();
    drop(producer);
    assert_eq!(consumer.get().unwrap(), 1);
    drop(queue);
    assert!(matches!(consumer.try_get(), Err(Error::Channel(ChannelError::Empty { .. }))), "one is left");
    second.put(2).unwrap();
    thread::scope(|scope| {
        let getter = scope.spawn(|| consumer.iter().map(Result::unwrap).collect::<Vec<_>>());
        drop(second);
        assert_eq!(getter.join().unwrap(), [2]);
    });
    assert!(is_end(consumer.get()) && is_end(consumer.get_many(2)));
}

#[test]
fn a_queue_itself_counts_as_a_producer_and_as_a_consumer() {
    let segment = Segment::anonymous().unwrap();
    let queue = Queue::<u32>::bounded_in(&segment, 4).unwrap();
    let consumer = queue.consumer().unwrap();
    drop(queue.producer().unwrap());
    assert!(matches!(consumer.try_get(), Err(Error::Channel(ChannelError::Empty { .. }))));
    let producer = queue.producer().unwrap();
    drop(consumer);
    producer.put(1).unwrap();
    assert_eq!(queue.get().unwrap(), 1);
    drop(queue);
    assert!(producer.is_broken());
    assert!(matches!(producer.put(2), Err(Error::Channel(ChannelError::BrokenPipe))));
}

#[test]
fn a_consumer_waits_for_the_first_producer() {
    let segment = common::named("first-producer");
    drop(segment.queue::<u32>("numbers").create().unwrap());
    let consumer = segment.queue::<u32>("numbers").open_consumer().unwrap();
    assert!(matches!(consumer.try_get(), Err(Error::Channel(ChannelError::Empty { .. }))), "nobody has come yet");
    let producer = segment.queue::<u32>("numbers").open_producer().unwrap();
    producer.put(5).unwrap();
    drop(producer);
    assert_eq!(consumer.get().unwrap(), 5);
    assert!(is_end(consumer.get()));
    // Another one opens it again.
    let late = segment.queue::<u32>("numbers").open_producer().unwrap();
    late.put(6).unwrap();
    assert_eq!(consumer.get().unwrap(), 6);
}

#[test]
fn ends_are_handles_that_can_be_sent() {
    let segment = Segment::anonymous().unwrap();
    let numbers = Queue::<u32>::bounded_in(&segment, 4).unwrap();
    let producers = Queue::<shmkit::Producer<u32>>::bounded_in(&segment, 4).unwrap();
    let consumer = numbers.consumer().unwrap();
    producers.put(numbers.producer().unwrap()).unwrap();
    drop(numbers);
    assert!(matches!(consumer.try_get(), Err(Error::Channel(ChannelError::Empty { .. }))), "one is under way");
    producers.get().unwrap().put(1).unwrap();
    assert_eq!(consumer.get().unwrap(), 1);
    assert!(is_end(consumer.get()));
}

fn produces_and_waits(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let producer = segment.queue::<u32>("numbers").open_producer().unwrap();
    producer.put(1).unwrap();
    common::say("put");
    common::listen();
}

#[test]
fn the_end_comes_when_the_last_producer_is_killed() {
    let segment = common::named("producer-killed");
    drop(segment.queue::<u32>("numbers").create().unwrap());
    let consumer = segment.queue::<u32>("numbers").open_consumer().unwrap();
    let mut children = [(); 2].map(|()| common::start("produces_and_waits", &[&segment.name]));
    children.iter_mut().for_each(|child| child.expect("put"));
    thread::scope(|scope| {
        let getter = scope.spawn(|| consumer.iter().map(Result::unwrap).collect::<Vec<_>>());
        children.iter_mut().for_each(common::Child::kill);
        assert_eq!(getter.join().unwrap(), [1, 1]);
    });
}

// ---- length ----------------------------------------------------------------------------------------------------------------

#[test]
fn the_length_is_never_more_than_there_can_be_nor_less() {
    let segment = Segment::anonymous().unwrap();
    let queue = Queue::<u32>::bounded_in(&segment, 64).unwrap();
    // Ten stay in it for ever; one more comes and goes.
    queue.put_many(0..10).unwrap();
    let stop = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while stop.load(Ordering::Relaxed) == 0 {
                queue.put(0).unwrap();
                queue.get().unwrap();
            }
        });
        for _ in 0..20_000 {
            let len = queue.len();
            assert!((10..=11).contains(&len), "{len}");
        }
        stop.store(1, Ordering::Relaxed);
    });
    assert_eq!(queue.len(), 10);
}

// ---- queues that grow --------------------------------------------------------------------------------------------------------

/// Gets numbers until the end, and says how many there were.
fn gets_all(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let queue = segment.queue::<(u32, Vec<u8>)>("many").open().unwrap();
    let mut count = 0;
    for message in queue.iter() {
        let (number, bytes) = message.unwrap();
        assert_eq!((number, bytes.len()), (count, count as usize % 400));
        count += 1;
    }
    common::say(&count.to_string());
}

#[test]
fn an_unbounded_queue_grows_with_what_is_put() {
    let segment = common::named("unbounded");
    let queue = segment.queue::<(u32, Vec<u8>)>("many").unbounded(20_000).create().unwrap();
    let empty = segment.memory().unwrap().0;
    for number in 0..5000 {
        queue.put((number, vec![7; number as usize % 400])).unwrap();
    }
    assert_eq!(queue.len(), 5000);
    let full = segment.memory().unwrap().0;
    assert!(full > empty + 5000 * 256, "it has grown by what is in it");
    segment.verify().unwrap();
    // Another process, which has seen none of it grow.
    queue.close();
    let mut child = common::start("gets_all", &[&segment.name]);
    child.expect("5000");
    child.succeeded();
    assert!(queue.is_empty());
    segment.verify().unwrap();
    segment.remove("many").unwrap();
    drop(queue);
    assert_eq!(segment.memory().unwrap().0, 0, "all it had goes with it");
}

#[test]
fn a_queue_that_grows_reuses_what_it_has() {
    let segment = Segment::anonymous().unwrap();
    let queue = Queue::<u32>::unbounded_in(&segment).unwrap();
    assert_eq!(queue.capacity(), 131_071);
    queue.put_many(0..100).unwrap();
    let memory = segment.memory().unwrap().0;
    for number in 100..100_000 {
        queue.put(number).unwrap();
        assert_eq!(queue.get().unwrap(), number - 100);
    }
    assert_eq!(segment.memory().unwrap().0, memory);
    assert_eq!(queue.len(), 100);
}

#[test]
fn a_queue_that_grows_has_a_limit() {
    let segment = common::named("limit");
    let queue = segment.queue::<u32>("few").unbounded(1000).create().unwrap();
    queue.put_many(0..1000).unwrap();
    assert!(queue.is_full());
    assert!(matches!(queue.try_put(1000), Err(Error::Channel(ChannelError::Full { .. }))));
    assert_eq!(
        queue.get_many(1000).unwrap().into_iter().map(Result::unwrap).collect::<Vec<_>>(),
        Vec::from_iter(0..1000)
    );
    // The segment's own limit comes first.
    let small = Segment::builder().max_size(4 << 20).anonymous("small").unwrap();
    let queue = small.queue::<Vec<u8>>("many").unbounded(10_000).create().unwrap();
    let error = (0..10_000).find_map(|_| queue.put(vec![0; 1000]).err()).unwrap();
    assert!(matches!(error, Error::Segment(shmkit::SegmentError::OutOfMemory { .. })), "{error}");
    let len = queue.len();
    assert!(len > 1000);
    assert!((0..len).all(|_| queue.get().is_ok()));
    queue.put(vec![0; 1000]).unwrap();
}

/// Puts five hundred numbers.
fn grows(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let queue = segment.queue::<u32>("many").open().unwrap();
    common::say("ready");
    common::listen();
    (0..500).for_each(|number| queue.put(number).unwrap());
}

#[test]
fn processes_that_grow_a_queue_at_once_share_what_it_grows_by() {
    let segment = common::named("grow-together");
    let queue = segment.queue::<u32>("many").inline(240).unbounded(4000).create().unwrap();
    let empty = segment.memory().unwrap().0;
    let mut children: Vec<_> = (0..4).map(|_| common::start("grows", &[&segment.name])).collect();
    children.iter_mut().for_each(|child| child.expect("ready"));
    children.iter_mut().for_each(|child| child.tell("go"));
    children.iter_mut().for_each(common::Child::succeeded);
    assert_eq!(queue.len(), 2000);
    segment.verify().unwrap();
    // 2000 messages are in 8 chunks of 256; one more may have been begun by who saw the last one full.
    let chunks = (segment.memory().unwrap().0 - empty) / (256 * 256);
    assert!((8..=12).contains(&chunks), "{chunks}");
    assert_eq!((0..2000).map(|_| u64::from(queue.get().unwrap())).sum::<u64>(), 4 * (0..500).sum::<u64>());
}
