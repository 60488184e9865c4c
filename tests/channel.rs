//! Queues between threads and processes: order, capacity, waiting, closing, long messages, handles, batches.

mod common;

use serde::{Deserialize, Serialize};
use shmkit::{ChannelError, Error, Event, PodQueue, Queue, Segment, SegmentError, Semaphore};
use std::time::Duration;

roles!(produces, consumes, echoes, sends_a_handle);

/// Puts the numbers `first..first + count`, paired with its own name.
fn produces(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let queue = segment.queue::<(String, u64)>("jobs").open().unwrap();
    for number in 0..arguments[2].parse().unwrap() {
        queue.put((arguments[1].clone(), number)).unwrap();
    }
}

/// Gets until the end and says how many there were; each producer's are in order.
fn consumes(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let queue = segment.queue::<(String, u64)>("jobs").open().unwrap();
    let mut last = std::collections::HashMap::new();
    let (mut count, mut sum) = (0u64, 0u64);
    for message in queue.iter() {
        let (name, number) = message.unwrap();
        if let Some(before) = last.insert(name, number) {
            assert!(before < number, "out of order");
        }
        count += 1;
        sum += number;
    }
    common::say(&format!("{count} {sum}"));
}

/// Sends back what it gets.
fn echoes(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let there = segment.queue::<Vec<u64>>("there").open().unwrap();
    let back = segment.queue::<Vec<u64>>("back").open().unwrap();
    for message in there.iter() {
        back.put(message.unwrap()).unwrap();
    }
}

/// Makes an event, sends it, and ends.
fn sends_a_handle(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let handles = segment.queue::<(u8, Event)>("handles").open().unwrap();
    let event = Event::new_in(&segment).unwrap();
    event.set();
    handles.put((7, event)).unwrap();
}

fn channel_error<T: std::fmt::Debug>(outcome: shmkit::Result<T>) -> ChannelError {
    match outcome {
        Err(Error::Channel(error)) => error,
        other => panic!("{other:?} is no channel error"),
    }
}

#[test]
fn messages_arrive_in_order() {
    let queue = Queue::new().unwrap();
    for number in 0..100u64 {
        queue.put(number).unwrap();
    }
    assert_eq!(queue.len(), 100);
    for number in 0..100 {
        assert_eq!(queue.get().unwrap(), number);
    }
    assert!(queue.is_empty());
}

#[test]
fn a_queue_holds_exactly_its_capacity() {
    for capacity in [1, 2, 3, 63, 64, 65, 1000] {
        let queue = Queue::bounded(capacity).unwrap();
        let elements = PodQueue::<u32>::new(capacity).unwrap();
        // More than one lap, with the queue full all the way.
        for number in 0..capacity as u32 {
            queue.try_put(number).unwrap();
            elements.try_put(number).unwrap();
        }
        for number in 0..200 {
            assert!(queue.is_full() && elements.is_full());
            assert_eq!(queue.len(), capacity);
            assert_eq!(channel_error(queue.try_put(0)), ChannelError::Full { what: "queue" });
            assert_eq!(channel_error(elements.try_put(0)), ChannelError::Full { what: "queue" });
            assert_eq!(queue.try_get().unwrap(), number);
            assert_eq!(elements.try_get().unwrap(), number);
            assert!(!queue.is_full());
            queue.try_put(number + capacity as u32).unwrap();
            elements.try_put(number + capacity as u32).unwrap();
        }
        assert_eq!(queue.get_many(usize::MAX).unwrap().len(), capacity);
        assert_eq!(elements.get_many(usize::MAX).unwrap().len(), capacity);
        assert!(matches!(channel_error(queue.try_get()), ChannelError::Empty { .. }));
        assert!(matches!(channel_error(elements.try_get()), ChannelError::Empty { .. }));
    }
}

#[test]
fn a_capacity_that_cannot_be_is_refused() {
    for capacity in [0, 1 << 18, usize::MAX] {
        let refused = Queue::<u8>::bounded(capacity);
        assert!(matches!(refused, Err(Error::Segment(SegmentError::InvalidSize { .. }))), "{refused:?}");
    }
}

#[test]
fn waiting_ends_when_the_time_is_up() {
    let queue = Queue::bounded(1).unwrap();
    let short = Duration::from_millis(2);
    assert!(matches!(channel_error(queue.get_timeout(short)), ChannelError::Empty { .. }));
    queue.put(1u8).unwrap();
    assert!(matches!(channel_error(queue.put_timeout(2, short)), ChannelError::Full { .. }));
    assert_eq!(queue.get_timeout(short).unwrap(), 1);
}

#[test]
fn a_put_waits_for_a_get_and_a_get_for_a_put() {
    let queue = Queue::bounded(1).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..1000u32 {
                queue.put(number).unwrap();
            }
        });
        for number in 0..1000 {
            assert_eq!(queue.get().unwrap(), number);
        }
    });
}

#[test]
fn many_processes_share_a_queue_and_each_message_arrives_once() {
    let segment = common::named("many");
    let queue = segment.queue::<(String, u64)>("jobs").capacity(50).create().unwrap();
    let mut consumers: Vec<_> = (0..3).map(|_| common::start("consumes", &[&segment.name])).collect();
    let mut producers: Vec<_> =
        (0..3).map(|number| common::start("produces", &[&segment.name, &number.to_string(), "2000"])).collect();
    producers.iter_mut().for_each(common::Child::succeeded);
    queue.close();
    let (mut count, mut sum) = (0, 0);
    for consumer in &mut consumers {
        let words = consumer.hear();
        let (of_count, of_sum) = words.split_once(' ').unwrap();
        count += of_count.parse::<u64>().unwrap();
        sum += of_sum.parse::<u64>().unwrap();
        consumer.succeeded();
    }
    assert_eq!((count, sum), (6000, 3 * (1999 * 2000 / 2)));
    segment.verify().unwrap();
}

#[test]
fn a_closed_queue_is_drained_and_then_ends() {
    let queue = Queue::bounded(4).unwrap();
    queue.put(1u8).unwrap();
    queue.put(2).unwrap();
    queue.close();
    assert!(queue.is_closed());
    assert!(matches!(channel_error(queue.put(3)), ChannelError::Closed { .. }));
    assert_eq!(queue.iter().collect::<shmkit::Result<Vec<_>>>().unwrap(), [1, 2]);
    assert_eq!(channel_error(queue.get()), ChannelError::EndOfFile);
    assert_eq!(channel_error(queue.try_get()), ChannelError::EndOfFile);
    assert_eq!(channel_error(queue.put_many([1])), ChannelError::Closed { what: "queue" });
}

#[test]
fn closing_wakes_those_who_wait() {
    let queue = Queue::<u8>::bounded(1).unwrap();
    std::thread::scope(|scope| {
        let getter = scope.spawn(|| queue.get());
        queue.close();
        assert_eq!(channel_error(getter.join().unwrap()), ChannelError::EndOfFile);
    });
    let queue = Queue::<u8>::bounded(1).unwrap();
    queue.put(0).unwrap();
    std::thread::scope(|scope| {
        let putter = scope.spawn(|| queue.put(1));
        queue.close();
        assert!(matches!(channel_error(putter.join().unwrap()), ChannelError::Closed { .. }));
    });
}

#[test]
fn what_is_put_while_it_closes_arrives_or_is_refused() {
    for _ in 0..200 {
        let queue = Queue::<u32>::bounded(8).unwrap();
        std::thread::scope(|scope| {
            let putter = scope.spawn(|| (0..).take_while(|&number| queue.put(number).is_ok()).count());
            let getter = scope.spawn(|| queue.iter().map(Result::unwrap).count());
            std::thread::yield_now();
            queue.close();
            assert_eq!(putter.join().unwrap(), getter.join().unwrap());
        });
    }
}

#[test]
fn messages_of_any_size_arrive_and_leave_nothing_behind() {
    let segment = common::named("sizes");
    let there = segment.queue::<Vec<u64>>("there").capacity(3).create().unwrap();
    let back = segment.queue::<Vec<u64>>("back").capacity(3).create().unwrap();
    let mut child = common::start("echoes", &[&segment.name]);
    let message = |len: usize| (0..len as u64).map(|number| number << 40).collect::<Vec<_>>();
    // Around the size of a block, of a heap unit, and of several pages.
    let lengths: Vec<usize> = (0..100).chain([1000, 10_000, 300_000]).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| lengths.iter().for_each(|&len| there.put(message(len)).unwrap()));
        for &len in &lengths {
            assert_eq!(back.get().unwrap(), message(len));
        }
    });
    there.close();
    child.succeeded();
    segment.verify().unwrap();
    let (empty, _) = segment.memory().unwrap();
    there.clone().put(vec![]).unwrap_err();
    back.put(message(5000)).unwrap();
    assert!(segment.memory().unwrap().0 > empty);
    back.get().unwrap();
    assert_eq!(segment.memory().unwrap().0, empty);
    back.put(message(5000)).unwrap();
    drop(back);
    segment.remove("back").unwrap();
    segment.remove("there").unwrap();
    drop(there);
    segment.verify().unwrap();
    assert_eq!(segment.memory().unwrap().0, 0);
}

#[test]
fn a_long_message_that_does_not_fit_the_segment_is_refused_and_leaves_nothing() {
    let segment = Segment::builder().max_size(1 << 20).anonymous("small").unwrap();
    let queue = Queue::<Vec<u32>>::bounded_in(&segment, 4).unwrap();
    let before = segment.memory().unwrap().0;
    let refused = queue.put(vec![u32::MAX; 1 << 18]).unwrap_err();
    assert!(
        matches!(refused, Error::Segment(SegmentError::OutOfMemory { .. }))
            || matches!(refused, Error::Channel(ChannelError::TooLarge { .. })),
        "{refused}"
    );
    assert_eq!(segment.memory().unwrap().0, before);
    for _ in 0..1000 {
        queue.put(vec![1; 100]).unwrap();
        queue.get().unwrap();
    }
    segment.verify().unwrap();
}

#[test]
fn a_handle_in_a_message_keeps_its_object_alive() {
    let segment = common::named("handles");
    let handles = segment.queue::<(u8, Event)>("handles").create().unwrap();
    let before = segment.objects().len();
    common::start("sends_a_handle", &[&segment.name]).succeeded();
    segment.verify().unwrap();
    assert_eq!(segment.objects().len(), before + 1);
    let (number, event) = handles.get().unwrap();
    assert_eq!(number, 7);
    assert!(event.is_set());
    segment.verify().unwrap();
    drop(event);
    assert_eq!(segment.objects().len(), before);
    segment.verify().unwrap();
}

#[test]
fn an_object_nobody_receives_goes_with_the_queue() {
    let segment = common::named("unreceived");
    let handles = Queue::<Vec<Semaphore>>::bounded_in(&segment, 4).unwrap();
    // A long message with many handles, and a short one.
    handles.put((0..40).map(|_| Semaphore::new_in(&segment, 1).unwrap()).collect()).unwrap();
    handles.put(vec![Semaphore::new_in(&segment, 1).unwrap()]).unwrap();
    assert_eq!(segment.objects().len(), 42);
    segment.verify().unwrap();
    drop(handles);
    assert_eq!(segment.objects().len(), 0);
    segment.verify().unwrap();
    assert_eq!(segment.memory().unwrap().0, 0);
}

#[test]
fn a_message_of_another_type_is_an_error_and_gone() {
    let segment = common::named("types");
    let texts = segment.queue::<String>("queue").create().unwrap();
    let numbers = segment.queue::<u32>("queue").open().unwrap();
    texts.put("seven".to_owned()).unwrap();
    texts.put("eight".to_owned()).unwrap();
    assert!(matches!(channel_error(numbers.get()), ChannelError::Codec { action: "read", .. }));
    assert_eq!(texts.get().unwrap(), "eight");
    // A message that holds handles and is not understood lets go of them.
    let handles = segment.queue::<Event>("queue").open().unwrap();
    handles.put(Event::new_in(&segment).unwrap()).unwrap();
    assert!(matches!(channel_error(numbers.get()), ChannelError::Codec { .. }));
    assert_eq!(segment.objects().len(), 1);
}

/// Serialises its first field and then refuses.
struct Unwilling(Event);

impl Serialize for Unwilling {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeTuple;
        let mut tuple = serializer.serialize_tuple(2)?;
        tuple.serialize_element(&self.0)?;
        Err(serde::ser::Error::custom("not today"))
    }
}

#[test]
fn a_value_that_cannot_be_written_takes_no_room() {
    let segment = common::named("unwilling");
    let queue = Queue::<Unwilling>::bounded_in(&segment, 1).unwrap();
    for _ in 0..200 {
        let event = Event::new_in(&segment).unwrap();
        assert!(matches!(channel_error(queue.put(Unwilling(event))), ChannelError::Codec { action: "write", .. }));
    }
    assert!(queue.is_empty());
    assert_eq!(segment.objects().len(), 1);
    segment.verify().unwrap();
}

/// Panics when it is written, or when it is read.
struct Panicky(bool);

impl Serialize for Panicky {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 { std::panic::resume_unwind(Box::new("write")) } else { serializer.serialize_i64(7) }
    }
}

impl<'de> Deserialize<'de> for Panicky {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        std::panic::resume_unwind(Box::new("read"))
    }
}

#[test]
fn a_panic_while_a_value_is_written_or_read_takes_no_room() {
    let segment = common::named("panic");
    let queue = Queue::<Panicky>::bounded_in(&segment, 1).unwrap();
    let panics = |work: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err();
    for _ in 0..200 {
        assert!(panics(&|| queue.put(Panicky(true)).unwrap()));
        queue.try_put(Panicky(false)).unwrap();
        assert!(panics(&|| drop(queue.get())));
    }
    assert!(queue.is_empty());
    segment.verify().unwrap();
}

#[test]
fn batches_keep_the_order() {
    let queue = Queue::bounded(100).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            queue.put_many((0..10_000u32).map(|number| (number, "x".repeat(number as usize % 400)))).unwrap()
        });
        let mut next = 0;
        while next < 10_000 {
            for message in queue.get_many(70).unwrap() {
                let (number, text) = message.unwrap();
                assert_eq!((number, text.len()), (next, next as usize % 400));
                next += 1;
            }
        }
    });
    let elements = PodQueue::<u32>::new(100).unwrap();
    let numbers: Vec<u32> = (0..10_000).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| elements.put_many(&numbers).unwrap());
        let mut got = Vec::new();
        while got.len() < numbers.len() {
            got.extend(elements.get_many(70).unwrap());
        }
        assert_eq!(got, numbers);
    });
    assert_eq!(elements.try_put_many(&numbers).unwrap(), 32);
}

#[test]
fn an_element_is_written_and_read_in_place() {
    let frames = PodQueue::<[u64; 1000]>::new(2).unwrap();
    let mut frame = frames.loan().unwrap();
    frame[999] = 9;
    let written: *const u64 = &frame[999];
    frame.commit().unwrap();
    let frame = frames.recv().unwrap();
    assert_eq!(&frame[999] as *const u64, written);
    assert_eq!((frame[999], frame.redelivered()), (9, 0));
}

#[test]
fn loans_go_back_and_are_as_many_as_were_asked_for() {
    let segment = common::named("loans");
    let queue = segment.pod_queue::<u64>("queue").capacity(3).loans(2).create().unwrap();
    for _ in 0..100 {
        let loans: Vec<_> = (0..5).map(|_| queue.try_loan().unwrap()).collect();
        assert!(matches!(channel_error(queue.try_loan()), ChannelError::Full { .. }));
        drop(loans);
    }
    let mut loans: Vec<_> = (0..5).map(|_| queue.try_loan().unwrap()).collect();
    for loan in loans.drain(..3) {
        loan.commit().unwrap();
    }
    let (loan, error) = loans.pop().unwrap().try_commit().unwrap_err();
    assert_eq!(error.code(), Error::from(ChannelError::Full { what: "" }).code());
    let first = queue.recv().unwrap();
    loan.try_commit().unwrap();
    assert!(queue.try_loan().is_err(), "a received element still has its block");
    drop(first);
    assert!(queue.try_loan().is_ok());
}

#[test]
fn a_loan_waits_for_a_block() {
    let segment = common::named("loan-waits");
    let queue = segment.pod_queue::<u64>("queue").capacity(1).loans(1).create().unwrap();
    let (one, other) = (queue.loan().unwrap(), queue.loan().unwrap());
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| queue.loan().map(drop));
        drop(other);
        waiter.join().unwrap().unwrap();
    });
    drop(one);
}

#[test]
fn a_queue_of_other_elements_is_not_opened() {
    let segment = common::named("elements");
    let _queue = segment.pod_queue::<u64>("queue").create().unwrap();
    let wrong = segment.pod_queue::<i64>("queue").open().map(drop);
    assert!(matches!(wrong, Err(Error::Segment(SegmentError::WrongElement { .. }))));
    let wrong = segment.queue::<u64>("queue").open().map(drop);
    assert!(matches!(wrong, Err(Error::Segment(SegmentError::WrongKind { .. }))));
}

#[test]
fn a_forked_child_leaves_its_parents_loans_alone() {
    let segment = common::named("fork");
    let queue = segment.pod_queue::<u64>("queue").capacity(2).loans(1).create().unwrap();
    queue.put(1).unwrap();
    let mut loan = queue.loan().unwrap();
    *loan = 2;
    let received = queue.recv().unwrap();
    // SAFETY: the child uses only this library and ends without running its parent's destructors.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let sound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            drop(received);
            assert!(loan.commit().is_err());
            queue.put(3).unwrap();
        }));
        // SAFETY: ends the process.
        unsafe { libc::_exit(i32::from(sound.is_err())) };
    }
    let mut status = 0;
    // SAFETY: the child is this process's, and the status is a local.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!(status, 0);
    assert_eq!(*received, 1);
    loan.commit().unwrap();
    drop(received);
    assert_eq!([queue.get().unwrap(), queue.get().unwrap()], [3, 2]);
    segment.verify().unwrap();
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
enum Job {
    Stop,
    Resize { name: String, width: u32 },
    Nested(Vec<Option<Job>>),
}

#[test]
fn any_serde_type_can_be_a_message() {
    let queue = Queue::new().unwrap();
    let resize = Job::Resize { name: "a".into(), width: 3 };
    let jobs = [Job::Stop, resize.clone(), Job::Nested(vec![None, Some(resize), Some(Job::Stop)])];
    for job in &jobs {
        queue.put_ref(job).unwrap();
    }
    for job in jobs {
        assert_eq!(queue.get().unwrap(), job);
    }
}
