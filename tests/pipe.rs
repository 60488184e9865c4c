//! The pipe: between threads and processes, its ends changing hands, and the death of those who have them.

mod common;

use proptest::prelude::*;
use shmkit::{ChannelError, Error, Queue, Receiver, Segment, SegmentError, Sender, channel_in};
use std::collections::VecDeque;
use std::time::Duration;

roles!(echoes, sends_squares, holds_an_end, receives_from_a_queue, sends_batches, waits_for_the_end);

type Result<T> = shmkit::Result<T>;

fn is(error: &Error, wanted: &ChannelError) -> bool {
    matches!(error, Error::Channel(found) if found == wanted)
}

#[track_caller]
fn fails<T: std::fmt::Debug>(result: Result<T>, wanted: &ChannelError) {
    let error = result.expect_err("it should have failed");
    assert!(is(&error, wanted), "{error:?}, not {wanted:?}");
}

const FULL: ChannelError = ChannelError::Full { what: "pipe" };
const EMPTY: ChannelError = ChannelError::Empty { what: "pipe" };
const CLOSED: ChannelError = ChannelError::Closed { what: "pipe" };

fn pipe<T: shmkit::Element>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    channel_in(&Segment::anonymous().unwrap(), capacity).unwrap()
}

// ---- one process -----------------------------------------------------------------------------------------------------

#[test]
fn elements_come_out_in_the_order_they_went_in() {
    let (sender, receiver) = pipe::<u64>(4);
    for round in 0..10 {
        for i in 0..4 {
            sender.send(round * 10 + i).unwrap();
        }
        assert_eq!((sender.len().unwrap(), receiver.len().unwrap()), (4, 4));
        for i in 0..4 {
            assert_eq!(receiver.recv().unwrap(), round * 10 + i);
        }
        assert!(sender.is_empty().unwrap() && receiver.is_empty().unwrap());
    }
}

#[test]
fn the_capacity_is_a_power_of_two_and_not_exceeded() {
    for (asked, given) in [(1, 1), (2, 2), (3, 4), (5, 8), (1000, 1024)] {
        let (sender, receiver) = pipe::<u8>(asked);
        assert_eq!((sender.capacity(), receiver.capacity()), (given, given));
        for i in 0..given {
            sender.try_send(i as u8).unwrap();
        }
        fails(sender.try_send(0), &FULL);
        fails(sender.send_timeout(0, Duration::from_millis(1)), &FULL);
        assert_eq!(receiver.recv().unwrap(), 0);
        sender.try_send(0).unwrap();
    }
    let segment = Segment::anonymous().unwrap();
    for capacity in [0, usize::MAX, (1 << 31) + 1] {
        let refused = channel_in::<u8>(&segment, capacity);
        assert!(matches!(refused, Err(Error::Segment(SegmentError::InvalidSize { .. }))), "{capacity}");
    }
    assert!(matches!(
        channel_in::<[u64; 1024]>(&segment, 1 << 31),
        Err(Error::Segment(SegmentError::OutOfMemory { .. }))
    ));
}

#[test]
fn an_empty_pipe_gives_nothing_and_says_so() {
    let (sender, receiver) = pipe::<u64>(4);
    fails(receiver.try_recv(), &EMPTY);
    fails(receiver.recv_timeout(Duration::from_millis(1)), &EMPTY);
    assert!(!receiver.poll(Duration::from_millis(1)).unwrap());
    assert!(!receiver.poll(Duration::ZERO).unwrap());
    sender.send(1).unwrap();
    assert!(receiver.poll(Duration::ZERO).unwrap());
    assert_eq!(receiver.recv_timeout(Duration::ZERO).unwrap(), 1);
    fails(receiver.try_recv(), &EMPTY);
}

#[test]
fn a_dropped_sender_is_the_end_of_the_file_after_the_last_element() {
    let (sender, receiver) = pipe::<u64>(4);
    sender.send(1).unwrap();
    sender.send(2).unwrap();
    drop(sender);
    assert!(receiver.poll(Duration::ZERO).unwrap());
    assert_eq!(receiver.recv().unwrap(), 1);
    assert_eq!(receiver.iter().map(|element| element.unwrap()).collect::<Vec<_>>(), [2]);
    fails(receiver.recv(), &ChannelError::EndOfFile);
    fails(receiver.try_recv(), &ChannelError::EndOfFile);
    fails(receiver.recv_timeout(Duration::from_millis(1)), &ChannelError::EndOfFile);
    assert!(receiver.poll(Duration::ZERO).unwrap(), "the end of the file is something to receive");
    assert_eq!(receiver.into_iter().count(), 0);
}

#[test]
fn a_dropped_receiver_breaks_the_pipe_at_once() {
    let (sender, receiver) = pipe::<u64>(4);
    sender.send(1).unwrap();
    drop(receiver);
    fails(sender.send(2), &ChannelError::BrokenPipe);
    fails(sender.send(2), &ChannelError::BrokenPipe);
    fails(sender.try_send(2), &ChannelError::BrokenPipe);
    fails(sender.send_timeout(2, Duration::from_secs(1)), &ChannelError::BrokenPipe);
    fails(sender.send_many(&[2, 3]), &ChannelError::BrokenPipe);
    fails(sender.try_send_many(&[2, 3]), &ChannelError::BrokenPipe);
}

#[test]
fn batches_go_in_and_out_as_wholes() {
    let (sender, receiver) = pipe::<u32>(8);
    sender.send_many(&[1, 2, 3, 4, 5]).unwrap();
    let mut got = [0; 3];
    assert_eq!(receiver.recv_many(&mut got).unwrap(), 3);
    assert_eq!(got, [1, 2, 3]);
    // Over the end of the ring.
    assert_eq!(sender.try_send_many(&[6, 7, 8, 9, 10, 11, 12]).unwrap(), 6);
    assert_eq!(sender.try_send_many(&[13]).unwrap(), 0);
    let mut got = [0; 20];
    assert_eq!(receiver.try_recv_many(&mut got).unwrap(), 8);
    assert_eq!(got[..8], [4, 5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(receiver.try_recv_many(&mut got).unwrap(), 0);
    assert_eq!(receiver.recv_many(&mut []).unwrap(), 0);
    sender.send_many(&[]).unwrap();
    assert_eq!(sender.try_send_many(&[]).unwrap(), 0);
}

#[test]
fn a_batch_longer_than_the_pipe_is_sent_in_parts() {
    let (sender, receiver) = pipe::<u32>(4);
    let all: Vec<u32> = (0..1000).collect();
    let received = std::thread::spawn(move || receiver.iter().collect::<Result<Vec<u32>>>());
    sender.send_many(&all).unwrap();
    drop(sender);
    assert_eq!(received.join().unwrap().unwrap(), all);
}

#[test]
fn an_uncommitted_loan_is_never_received() {
    let (mut sender, receiver) = pipe::<[u64; 16]>(2);
    let mut loan = sender.loan().unwrap();
    loan[0] = 1;
    fails(receiver.try_recv(), &EMPTY);
    drop(loan);
    fails(receiver.try_recv(), &EMPTY);
    let mut loan = sender.loan().unwrap();
    *loan = [2; 16];
    loan.commit().unwrap();
    assert_eq!(receiver.recv().unwrap(), [2; 16]);
    for _ in 0..2 {
        sender.try_loan().unwrap().commit().unwrap();
    }
    assert!(matches!(sender.try_loan(), Err(error) if is(&error, &FULL)));
    assert!(matches!(sender.loan_timeout(Duration::from_millis(1)), Err(error) if is(&error, &FULL)));
}

#[test]
fn a_reference_keeps_the_element_until_it_is_dropped() {
    let (sender, mut receiver) = pipe::<[u64; 16]>(1);
    sender.send([3; 16]).unwrap();
    let element = receiver.recv_ref().unwrap();
    assert_eq!(*element, [3; 16]);
    fails(sender.try_send([4; 16]), &FULL);
    drop(element);
    sender.try_send([4; 16]).unwrap();
    assert_eq!(receiver.recv_ref_timeout(Duration::ZERO).unwrap()[5], 4);
    assert!(matches!(receiver.try_recv_ref(), Err(error) if is(&error, &EMPTY)));
}

#[test]
fn an_element_whose_receiver_panics_is_received_again() {
    let (sender, mut receiver) = pipe::<u64>(4);
    sender.send_many(&[7, 8]).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let element = receiver.recv_ref().unwrap();
        panic!("at {}", *element);
    }));
    assert!(panicked.is_err());
    assert_eq!(receiver.recv().unwrap(), 7);
    assert_eq!(receiver.recv().unwrap(), 8);
}

#[test]
fn threads_wait_for_each_other() {
    let (sender, receiver) = pipe::<u64>(2);
    let (back, answers) = pipe::<u64>(1);
    let echo = std::thread::spawn(move || -> Result<()> {
        for element in &receiver {
            back.send(element? * 2)?;
        }
        Ok(())
    });
    for i in 0..20_000 {
        sender.send(i).unwrap();
        assert_eq!(answers.recv().unwrap(), i * 2);
    }
    drop(sender);
    echo.join().unwrap().unwrap();
    fails(answers.recv(), &ChannelError::EndOfFile);
}

#[test]
fn a_sleeping_receiver_hears_that_the_sender_left() {
    let (sender, receiver) = pipe::<u64>(2);
    let waiting = std::thread::spawn(move || receiver.recv());
    // Whether it sleeps by now or not, it must come to the same end.
    std::thread::yield_now();
    drop(sender);
    fails(waiting.join().unwrap(), &ChannelError::EndOfFile);
}

#[test]
fn a_sleeping_sender_hears_that_the_receiver_left() {
    let (sender, receiver) = pipe::<u64>(1);
    sender.send(1).unwrap();
    let waiting = std::thread::spawn(move || sender.send(2));
    std::thread::yield_now();
    drop(receiver);
    fails(waiting.join().unwrap(), &ChannelError::BrokenPipe);
}

// ---- names and roles -------------------------------------------------------------------------------------------------

#[test]
fn an_end_belongs_to_one_handle_at_a_time() {
    let segment = Segment::anonymous().unwrap();
    let sender = segment.channel::<u64>("wire").capacity(8).create_sender().unwrap();
    let own = std::process::id();
    fails(segment.channel::<u64>("wire").open_sender(), &ChannelError::EndTaken { end: "sending", pid: own });
    sender.send(1).unwrap();
    sender.send(2).unwrap();
    let receiver = segment.channel::<u64>("wire").open_receiver().unwrap();
    fails(segment.channel::<u64>("wire").open_receiver(), &ChannelError::EndTaken { end: "receiving", pid: own });
    assert_eq!(receiver.recv().unwrap(), 1);
    // A free end is taken with all that is in the pipe.
    drop((sender, receiver));
    let receiver = segment.channel::<u64>("wire").open_receiver().unwrap();
    assert_eq!(receiver.recv().unwrap(), 2);
    fails(receiver.recv(), &ChannelError::EndOfFile);
    let sender = segment.channel::<u64>("wire").open_or_create_sender().unwrap();
    sender.send(3).unwrap();
    assert_eq!(receiver.recv().unwrap(), 3);
}

#[test]
fn the_first_to_come_waits_for_the_other() {
    let segment = Segment::anonymous().unwrap();
    let receiver = segment.channel::<u64>("wire").create_receiver().unwrap();
    fails(receiver.recv_timeout(Duration::from_millis(1)), &EMPTY);
    let sender = segment.channel::<u64>("wire").open_sender().unwrap();
    sender.send(5).unwrap();
    drop(sender);
    assert_eq!(receiver.recv().unwrap(), 5);
    fails(receiver.try_recv(), &ChannelError::EndOfFile);

    let sender = segment.channel::<u64>("back").capacity(1).open_or_create_sender().unwrap();
    sender.send(6).unwrap();
    fails(sender.try_send(7), &FULL);
    let receiver = segment.channel::<u64>("back").open_or_create_receiver().unwrap();
    assert_eq!(receiver.recv().unwrap(), 6);
    sender.try_send(7).unwrap();
}

#[test]
fn a_closed_end_stays_closed() {
    let segment = Segment::anonymous().unwrap();
    let (sender, receiver) = segment.channel::<u64>("wire").create().unwrap();
    sender.send(1).unwrap();
    sender.close().unwrap();
    assert_eq!(receiver.recv().unwrap(), 1);
    fails(receiver.recv(), &ChannelError::EndOfFile);
    fails(segment.channel::<u64>("wire").open_sender(), &CLOSED);
    drop(receiver);
    fails(segment.channel::<u64>("wire").open_sender(), &CLOSED);

    let (sender, receiver) = segment.channel::<u64>("other").create().unwrap();
    receiver.close().unwrap();
    fails(sender.send(1), &ChannelError::BrokenPipe);
    fails(segment.channel::<u64>("other").open_receiver(), &CLOSED);
}

#[test]
fn a_pipe_is_found_by_its_name_and_type_only() {
    let segment = Segment::anonymous().unwrap();
    let _ends = segment.channel::<f32>("wire").create().unwrap();
    let wrong = |error| matches!(error, Error::Segment(SegmentError::WrongElement { .. }));
    assert!(wrong(segment.channel::<f64>("wire").open_sender().unwrap_err()));
    assert!(matches!(
        segment.value::<f32>("wire").open(),
        Err(Error::Segment(SegmentError::WrongKind { found: "pipe", wanted: "value", .. }))
    ));
    assert!(matches!(
        segment.channel::<f32>("none").open_sender(),
        Err(Error::Segment(SegmentError::ObjectNotFound { .. }))
    ));
    assert!(matches!(segment.channel::<f32>("wire").create(), Err(Error::Segment(SegmentError::ObjectExists { .. }))));
}

#[test]
fn a_pipe_nobody_holds_is_gone() {
    let segment = Segment::anonymous().unwrap();
    let before = segment.memory().unwrap().0;
    let (sender, receiver) = channel_in::<u64>(&segment, 1024).unwrap();
    assert!(segment.memory().unwrap().0 > before);
    drop(sender);
    assert_eq!(segment.objects().len(), 1);
    drop(receiver);
    assert_eq!(segment.memory().unwrap().0, before);
    segment.verify().unwrap();
}

#[test]
fn an_end_is_no_value_outside_a_send() {
    let (sender, receiver) = pipe::<u64>(4);
    assert_eq!(postcard::to_stdvec(&sender), Err(postcard::Error::SerdeSerCustom));
    assert_eq!(postcard::to_stdvec(&receiver), Err(postcard::Error::SerdeSerCustom));
}

// ---- between processes -----------------------------------------------------------------------------------------------

/// Answers every number with its double, until the end of the file.
fn echoes(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let receiver = segment.channel::<u64>("there").open_receiver().unwrap();
    let sender = segment.channel::<u64>("back").open_sender().unwrap();
    common::say("ready");
    for element in &receiver {
        sender.send(element.unwrap() * 2).unwrap();
    }
}

#[test]
fn two_processes_talk_until_one_hangs_up() {
    let segment = common::named("pipe-echo");
    let sender = segment.channel::<u64>("there").capacity(2).create_sender().unwrap();
    let receiver = segment.channel::<u64>("back").capacity(2).create_receiver().unwrap();
    let mut child = common::start("echoes", &[&segment.name]);
    for i in 0..5000 {
        sender.send(i).unwrap();
        assert_eq!(receiver.recv().unwrap(), i * 2);
    }
    child.expect("ready");
    let pid = child.pid();
    fails(segment.channel::<u64>("back").open_sender(), &ChannelError::EndTaken { end: "sending", pid });
    drop(sender);
    fails(receiver.recv(), &ChannelError::EndOfFile);
    child.succeeded();
}

/// Sends the squares of the first numbers.
fn sends_squares(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let sender = segment.channel::<u64>("wire").open_sender().unwrap();
    for i in 0..arguments[1].parse().unwrap() {
        sender.send(i * i).unwrap();
    }
}

#[test]
fn what_an_ended_process_sent_is_received() {
    let segment = common::named("pipe-ended");
    let receiver = segment.channel::<u64>("wire").capacity(128).create_receiver().unwrap();
    for round in 0..3 {
        common::start("sends_squares", &[&segment.name, "100"]).succeeded();
        let squares: Vec<u64> = receiver.iter().map(|square| square.unwrap()).collect();
        assert_eq!(squares.len(), 100, "round {round}");
        assert!(squares.iter().enumerate().all(|(i, &square)| square == (i as u64).pow(2)));
    }
}

/// Sends numbers in batches of many lengths, each one greater than the last.
fn sends_batches(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let sender = segment.channel::<[u64; 3]>("wire").open_sender().unwrap();
    let total: u64 = arguments[1].parse().unwrap();
    let mut next = 0;
    while next < total {
        let batch: Vec<_> = (next..total.min(next + next % 13 + 1)).map(|number| [number; 3]).collect();
        sender.send_many(&batch).unwrap();
        next += batch.len() as u64;
    }
}

#[test]
fn batches_of_another_process_arrive_whole_and_in_order() {
    let segment = common::named("pipe-batches");
    let receiver = segment.channel::<[u64; 3]>("wire").capacity(16).create_receiver().unwrap();
    let mut child = common::start("sends_batches", &[&segment.name, "100000"]);
    let (mut next, mut batch) = (0, [[0; 3]; 11]);
    loop {
        match receiver.recv_many(&mut batch) {
            Ok(count) => {
                for element in &batch[..count] {
                    assert_eq!(*element, [next; 3]);
                    next += 1;
                }
            }
            Err(error) => {
                assert!(is(&error, &ChannelError::EndOfFile), "{error}");
                break;
            }
        }
    }
    assert_eq!(next, 100_000);
    child.succeeded();
}

/// Takes an end, does something with it, and waits.
fn holds_an_end(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let wire = || segment.channel::<u64>("wire");
    match arguments[1].as_str() {
        "sender" => {
            let mut sender = wire().open_sender().unwrap();
            sender.send(1).unwrap();
            let mut loan = sender.loan().unwrap();
            *loan = 2;
            common::say("held");
            common::listen();
        }
        "receiver" => {
            let mut receiver = wire().open_receiver().unwrap();
            assert_eq!(receiver.recv().unwrap(), 1);
            let element = receiver.recv_ref().unwrap();
            assert_eq!(*element, 2);
            common::say("held");
            common::listen();
        }
        other => panic!("unknown end {other}"),
    }
}

#[test]
fn a_killed_sender_is_the_end_of_the_file_and_its_loan_is_nothing() {
    let segment = common::named("pipe-sender");
    let receiver = segment.channel::<u64>("wire").capacity(4).create_receiver().unwrap();
    let mut child = common::start("holds_an_end", &[&segment.name, "sender"]);
    child.expect("held");
    child.signal(libc::SIGSTOP);
    let taken = ChannelError::EndTaken { end: "sending", pid: child.pid() };
    fails(segment.channel::<u64>("wire").open_sender(), &taken);
    assert_eq!(receiver.recv().unwrap(), 1);
    fails(receiver.recv_timeout(Duration::from_millis(10)), &EMPTY);
    child.kill();
    fails(receiver.recv(), &ChannelError::EndOfFile);
    // The next one to send goes on where the dead one was.
    let sender = segment.channel::<u64>("wire").open_sender().unwrap();
    sender.send(3).unwrap();
    assert_eq!(receiver.recv().unwrap(), 3);
    segment.verify().unwrap();
}

#[test]
fn what_a_killed_receiver_had_not_acknowledged_is_received_again() {
    let segment = common::named("pipe-receiver");
    let sender = segment.channel::<u64>("wire").capacity(4).create_sender().unwrap();
    sender.send_many(&[1, 2, 3]).unwrap();
    let mut child = common::start("holds_an_end", &[&segment.name, "receiver"]);
    child.expect("held");
    child.kill();
    let receiver = segment.channel::<u64>("wire").open_receiver().unwrap();
    assert_eq!(receiver.recv().unwrap(), 2);
    assert_eq!(receiver.recv().unwrap(), 3);
    sender.send(4).unwrap();
    assert_eq!(receiver.recv().unwrap(), 4);
    segment.verify().unwrap();
}

#[test]
fn a_sender_misses_a_killed_receiver_when_the_pipe_is_full() {
    let segment = common::named("pipe-broken");
    let sender = segment.channel::<u64>("wire").capacity(4).create_sender().unwrap();
    sender.send_many(&[1, 2]).unwrap();
    let mut child = common::start("holds_an_end", &[&segment.name, "receiver"]);
    child.expect("held");
    child.kill();
    let error = (0..100).find_map(|i| sender.send(i).err()).expect("nobody is left");
    assert!(is(&error, &ChannelError::BrokenPipe), "{error}");
    // Whoever opens the end now mends the pipe.
    let receiver = segment.channel::<u64>("wire").open_receiver().unwrap();
    assert_eq!(receiver.recv().unwrap(), 2);
    sender.send(9).unwrap();
}

/// Receives until the end of the file, and says how much there was.
fn waits_for_the_end(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let receiver = segment.channel::<u64>("wire").open_receiver().unwrap();
    common::say("ready");
    common::say(&receiver.iter().count().to_string());
}

#[test]
fn a_process_that_waits_hears_that_the_sender_was_killed() {
    let segment = common::named("pipe-waits");
    drop(segment.channel::<u64>("wire").capacity(4).create_sender().unwrap());
    let mut sender = common::start("holds_an_end", &[&segment.name, "sender"]);
    sender.expect("held");
    let mut receiver = common::start("waits_for_the_end", &[&segment.name]);
    receiver.expect("ready");
    sender.kill();
    receiver.expect("1");
    receiver.succeeded();
}

/// Gets ends of pipes in messages, and uses them.
fn receives_from_a_queue(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let senders = segment.queue::<Sender<u64>>("senders").open().unwrap();
    let receivers = segment.queue::<Receiver<u64>>("receivers").open().unwrap();
    let (sender, receiver) = (senders.get().unwrap(), receivers.get().unwrap());
    for element in &receiver {
        sender.send(element.unwrap() + 1).unwrap();
    }
}

#[test]
fn ends_are_messages() {
    let segment = common::named("pipe-messages");
    let senders: Queue<Sender<u64>> = segment.queue("senders").capacity(4).create().unwrap();
    let receivers: Queue<Receiver<u64>> = segment.queue("receivers").capacity(4).create().unwrap();
    let (there, their_end) = channel_in::<u64>(&segment, 2).unwrap();
    let (their_back, back) = channel_in::<u64>(&segment, 2).unwrap();
    // Used before, and then given away.
    there.send(1).unwrap();
    assert_eq!(their_end.recv().unwrap(), 1);
    their_back.send(2).unwrap();
    assert_eq!(back.recv().unwrap(), 2);
    there.send(10).unwrap();
    senders.put(their_back).unwrap();
    receivers.put(their_end).unwrap();
    // On their way the ends are held by the messages.
    fails(back.recv_timeout(Duration::from_millis(1)), &EMPTY);
    there.send(11).unwrap();
    let mut child = common::start("receives_from_a_queue", &[&segment.name]);
    assert_eq!((back.recv().unwrap(), back.recv().unwrap()), (11, 12));
    drop(there);
    fails(back.recv(), &ChannelError::EndOfFile);
    child.succeeded();
    drop((back, senders, receivers));
    segment.verify().unwrap();
}

#[test]
fn an_end_comes_back_to_its_process_in_a_message() {
    let segment = Segment::anonymous().unwrap();
    let queue = Queue::<Sender<u64>>::new_in(&segment).unwrap();
    let (sender, receiver) = channel_in::<u64>(&segment, 2).unwrap();
    sender.send(1).unwrap();
    queue.put(sender).unwrap();
    let sender = queue.get().unwrap();
    sender.send(2).unwrap();
    assert_eq!((receiver.recv().unwrap(), receiver.recv().unwrap()), (1, 2));
    // Thrown away unread, it is the end of the file.
    queue.put(sender).unwrap();
    drop(queue);
    fails(receiver.recv(), &ChannelError::EndOfFile);
}

#[test]
fn a_forked_child_does_not_have_its_parents_end() {
    let segment = Segment::anonymous().unwrap();
    let (mut sender, receiver) = channel_in::<u64>(&segment, 4).unwrap();
    sender.send(1).unwrap();
    assert_eq!(receiver.recv().unwrap(), 1);
    let parent = std::process::id();
    let loan = sender.loan().unwrap();
    // SAFETY: the child uses async-signal-unsafe functions only of this thread's own making: no other thread holds a lock that
    // it needs, or it hangs and the alarm ends it.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: alarm has no preconditions.
        unsafe { libc::alarm(20) };
        let refused =
            |error: Error| matches!(error, Error::Channel(ChannelError::EndTaken { pid, .. }) if pid == parent);
        let ok = loan.commit().is_err_and(refused)
            && sender.send(2).is_err_and(refused)
            && receiver.recv().is_err_and(refused);
        // SAFETY: the child must not run the test harness's end.
        unsafe { libc::_exit(i32::from(!ok)) };
    }
    let mut status = 0;
    // SAFETY: the child is this thread's own, and the status is a place for it.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
    drop(loan);
    sender.send(3).unwrap();
    assert_eq!(receiver.recv().unwrap(), 3);
}

// ---- against a deque ---------------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Step {
    Send(u16),
    SendMany(Vec<u16>),
    Loan(u16, bool),
    Recv,
    RecvRef,
    RecvMany(usize),
    ReopenSender,
    ReopenReceiver,
    Len,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u16>().prop_map(Step::Send),
        2 => proptest::collection::vec(any::<u16>(), 0..12).prop_map(Step::SendMany),
        2 => (any::<u16>(), any::<bool>()).prop_map(|(value, commit)| Step::Loan(value, commit)),
        4 => Just(Step::Recv),
        2 => Just(Step::RecvRef),
        2 => (0usize..12).prop_map(Step::RecvMany),
        1 => Just(Step::ReopenSender),
        1 => Just(Step::ReopenReceiver),
        1 => Just(Step::Len),
    ]
}

proptest! {
    #[test]
    fn a_pipe_does_what_a_deque_does(capacity in 1usize..10, steps in proptest::collection::vec(step(), 0..120)) {
        let segment = Segment::builder().max_size(1 << 20).anonymous("pipe").unwrap();
        let (mut sender, mut receiver) = segment.channel::<u16>("wire").capacity(capacity).create().unwrap();
        let capacity = capacity.next_power_of_two();
        let mut model = VecDeque::new();
        for step in steps {
            match step {
                Step::Send(value) => {
                    let fits = model.len() < capacity;
                    prop_assert_eq!(sender.try_send(value).is_ok(), fits);
                    if fits {
                        model.push_back(value);
                    }
                }
                Step::SendMany(values) => {
                    let fits = values.len().min(capacity - model.len());
                    prop_assert_eq!(sender.try_send_many(&values).unwrap(), fits);
                    model.extend(&values[..fits]);
                }
                Step::Loan(value, commit) => match sender.try_loan() {
                    Ok(mut loan) => {
                        prop_assert!(model.len() < capacity);
                        *loan = value;
                        if commit {
                            loan.commit().unwrap();
                            model.push_back(value);
                        }
                    }
                    Err(error) => prop_assert!(is(&error, &FULL) && model.len() == capacity),
                },
                Step::Recv => prop_assert_eq!(receiver.try_recv().ok(), model.pop_front()),
                Step::RecvRef => prop_assert_eq!(receiver.try_recv_ref().ok().map(|value| *value), model.pop_front()),
                Step::RecvMany(most) => {
                    let mut values = vec![0; most];
                    let count = receiver.try_recv_many(&mut values).unwrap();
                    prop_assert_eq!(count, most.min(model.len()));
                    prop_assert_eq!(&values[..count], &model.drain(..count).collect::<Vec<_>>()[..]);
                }
                Step::ReopenSender => {
                    drop(sender);
                    sender = segment.channel::<u16>("wire").open_sender().unwrap();
                }
                Step::ReopenReceiver => {
                    drop(receiver);
                    receiver = segment.channel::<u16>("wire").open_receiver().unwrap();
                }
                Step::Len => {
                    prop_assert_eq!(sender.len().unwrap(), model.len());
                    prop_assert_eq!(receiver.len().unwrap(), model.len());
                }
            }
        }
    }
}
