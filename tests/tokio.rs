//! Waiting in tokio's tasks.

mod common;

use shmkit::channel::{channel, pipe};
use shmkit::sync::Async;
use shmkit::{ChannelError, Error, Event, Once, PermitSemaphore, PodQueue, Process, Queue, Segment, Semaphore};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

roles!(produces);

fn run<R>(task: impl Future<Output = R>) -> R {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(task)
}

/// What a thread does while a task waits.
fn later(work: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
    std::thread::spawn(work)
}

#[test]
fn every_object_is_waited_for() {
    run(async {
        let event = Event::new().unwrap();
        let waiting = Async::new(event.clone()).unwrap();
        let thread = later(move || event.set());
        waiting.wait().await.unwrap();
        waiting.ready().await.unwrap();
        thread.join().unwrap();

        let once = Once::new().unwrap();
        let waiting = Async::new(once.clone()).unwrap();
        let thread = later(move || assert!(once.call(|| ()).unwrap()));
        waiting.wait().await.unwrap();
        thread.join().unwrap();

        let permits = Semaphore::new(0).unwrap();
        let waiting = Async::new(permits.clone()).unwrap();
        let thread = later(move || permits.release().unwrap());
        let permit = waiting.acquire().await.unwrap();
        assert_eq!(waiting.value(), 0);
        drop(permit);
        assert_eq!(waiting.into_inner().value(), 1);
        thread.join().unwrap();

        let owned = PermitSemaphore::new(1).unwrap();
        let waiting = Async::new(owned.clone()).unwrap();
        owned.acquire().unwrap().forget();
        let thread = later(move || owned.release().unwrap());
        drop(waiting.acquire().await.unwrap());
        thread.join().unwrap();

        let frames = PodQueue::<u64>::new(4).unwrap();
        let waiting = Async::new(frames.clone()).unwrap();
        let thread = later(move || (1..=2).for_each(|n| frames.put(n).unwrap()));
        assert_eq!((*waiting.recv().await.unwrap(), waiting.get().await.unwrap()), (1, 2));
        thread.join().unwrap();

        let (here, there) = pipe(true).unwrap();
        let waiting = Async::new(here).unwrap();
        let thread = later(move || {
            there.send(&"hello").unwrap();
            there.send_bytes(b"bytes").unwrap();
        });
        assert_eq!(waiting.recv::<String>().await.unwrap(), "hello");
        assert_eq!(waiting.recv_bytes().await.unwrap(), b"bytes");
        assert!(matches!(waiting.recv::<String>().await, Err(Error::Channel(ChannelError::EndOfFile))));
        thread.join().unwrap();

        let (sender, receiver) = channel::<u64>(4).unwrap();
        let waiting = Async::new(receiver).unwrap();
        let thread = later(move || (0..100).for_each(|n| sender.send(n).unwrap()));
        for n in 0..100 {
            assert_eq!(waiting.recv().await.unwrap(), n);
        }
        assert!(waiting.recv().await.is_err());
        thread.join().unwrap();
    });
}

fn ends(status: i32) -> i32 {
    status
}

#[test]
fn processes_are_joined() {
    run(async {
        let children = (0..3).map(|status| Process::new(ends).args((status,)).start().unwrap());
        for (status, child) in children.collect::<Vec<_>>().into_iter().enumerate() {
            let child = Async::new(child).unwrap();
            assert_eq!(child.join().await.unwrap().exit_code(), Some(status as i32));
            assert_eq!(child.join().await.unwrap().exit_code(), Some(status as i32), "again");
        }
    });
}

/// Puts numbers into a queue.
fn produces(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let jobs = segment.queue::<u64>("jobs").open().unwrap();
    (0..1000).for_each(|n| jobs.put(n).unwrap());
}

#[test]
fn many_tasks_receive_everything_once() {
    let segment = common::named("tokio-tasks");
    let jobs = segment.queue::<u64>("jobs").capacity(8).create().unwrap();
    let mut children: Vec<_> = (0..2).map(|_| common::start("produces", &[&segment.name])).collect();
    let sum: u64 = run(async {
        let waiting = Arc::new(Async::new(jobs.clone()).unwrap());
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let waiting = Arc::clone(&waiting);
                tokio::spawn(async move {
                    let mut sum = 0;
                    for _ in 0..250 {
                        sum += waiting.recv().await.unwrap();
                    }
                    sum
                })
            })
            .collect();
        let mut sum = 0;
        for task in tasks {
            sum += task.await.unwrap();
        }
        sum
    });
    assert_eq!(sum, 2 * (0..1000).sum::<u64>());
    for child in &mut children {
        child.succeeded();
    }
    assert!(jobs.is_empty());
    segment.verify().unwrap();
}

#[test]
fn a_wait_that_is_dropped_takes_nothing() {
    run(async {
        let jobs = Queue::<u32>::bounded(4).unwrap();
        let waiting = Async::new(jobs.clone()).unwrap();
        for round in 0..20 {
            let given_up = tokio::time::timeout(Duration::from_millis(1), waiting.recv()).await;
            assert!(given_up.is_err());
            jobs.put(round).unwrap();
            assert_eq!(waiting.recv().await.unwrap(), round);
        }
        assert!(jobs.is_empty());
    });
}
