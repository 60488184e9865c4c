//! Connections: both directions, bytes and values, the end of file, handles, ends in several processes.

mod common;

use shmkit::channel::pipe_in;
use shmkit::sync::{Readiness, wait_any};
use shmkit::{ChannelError, Connection, Error, Event, Queue, Segment, pipe};
use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::time::Duration;

roles!(answers, takes_one_and_waits, sends_and_ends);

fn connection(arguments: &[String]) -> Connection {
    let segment = Segment::open(&arguments[0]).unwrap();
    segment.queue::<Connection>("ends").open().unwrap().get().unwrap()
}

/// Sends back twice what it gets, until the end of file.
fn answers(arguments: &[String]) {
    let end = connection(arguments);
    common::say("here");
    loop {
        match end.recv::<u64>() {
            Ok(number) => end.send(&(2 * number)).unwrap(),
            Err(Error::Channel(ChannelError::EndOfFile)) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Holds its end, takes one message, and waits to be killed.
fn takes_one_and_waits(arguments: &[String]) {
    let end = connection(arguments);
    common::say("here");
    common::say(&end.recv::<String>().unwrap());
    common::listen();
}

/// Sends three messages and ends without a word.
fn sends_and_ends(arguments: &[String]) {
    let end = connection(arguments);
    for number in 0..3 {
        end.send(&number).unwrap();
    }
    common::say("sent");
    common::listen();
}

fn channel_error<T: std::fmt::Debug>(outcome: shmkit::Result<T>) -> ChannelError {
    match outcome {
        Err(Error::Channel(error)) => error,
        other => panic!("{other:?} is no channel error"),
    }
}

/// A segment, one end here, and the other one in a queue for a child to take.
fn parted(what: &str) -> (common::Named, Queue<Connection>, Connection) {
    let segment = common::named(what);
    let ends = segment.queue::<Connection>("ends").create().unwrap();
    let (here, there) = pipe_in(&segment, true).unwrap();
    ends.put(there).unwrap();
    (segment, ends, here)
}

#[test]
fn values_and_bytes_go_both_ways() {
    let (one, other) = pipe(true).unwrap();
    one.send(&("text", vec![1u8, 2])).unwrap();
    one.send_bytes(b"bytes").unwrap();
    other.send("answer").unwrap();
    assert_eq!(other.recv::<(String, Vec<u8>)>().unwrap(), ("text".to_owned(), vec![1, 2]));
    assert_eq!(other.recv_bytes().unwrap(), b"bytes");
    assert_eq!(one.recv::<String>().unwrap(), "answer");
    // Long ones too, and none at all.
    let long: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
    one.send_bytes(&long).unwrap();
    one.send_bytes(b"").unwrap();
    assert_eq!(other.recv_bytes().unwrap(), long);
    assert_eq!(other.recv_bytes().unwrap(), b"");
}

#[test]
fn a_message_that_is_too_long_is_in_the_error() {
    let (one, other) = pipe(true).unwrap();
    for len in [10, 1000] {
        let message = vec![7; len];
        one.send_bytes(&message).unwrap();
        let too_long = channel_error(other.recv_bytes_max(len - 1));
        assert_eq!(too_long, ChannelError::TooLong { message: message.clone(), maximum: len - 1 });
        one.send_bytes(&message).unwrap();
        let too_long = channel_error(other.recv_bytes_into(&mut vec![0; len - 1]));
        assert_eq!(too_long, ChannelError::TooLong { message: message.clone(), maximum: len - 1 });
        one.send_bytes(&message).unwrap();
        let mut buffer = vec![0; len + 1];
        assert_eq!(other.recv_bytes_into(&mut buffer).unwrap(), len);
        assert_eq!(&buffer[..len], message);
    }
}

#[test]
fn a_simplex_pipe_goes_from_the_second_end_to_the_first() {
    let (receives, sends) = pipe(false).unwrap();
    assert!(receives.readable() && !receives.writable());
    assert!(sends.writable() && !sends.readable());
    sends.send(&1).unwrap();
    assert_eq!(receives.recv::<i32>().unwrap(), 1);
    assert!(matches!(channel_error(receives.send(&1)), ChannelError::WrongDirection { can: "receive" }));
    assert!(matches!(channel_error(sends.recv::<i32>()), ChannelError::WrongDirection { can: "send" }));
    assert!(matches!(channel_error(sends.poll(Duration::ZERO)), ChannelError::WrongDirection { .. }));
    drop(sends);
    assert_eq!(channel_error(receives.recv::<i32>()), ChannelError::EndOfFile);
    let (receives, sends) = pipe(false).unwrap();
    drop(receives);
    assert!(sends.is_broken());
    assert_eq!(channel_error(sends.send(&1)), ChannelError::BrokenPipe);
}

#[test]
fn the_end_of_file_comes_after_what_was_sent() {
    let (one, other) = pipe(true).unwrap();
    let another = other.clone();
    other.send(&1).unwrap();
    other.close();
    assert!(!one.is_broken(), "the end has another holder");
    another.send(&2).unwrap();
    drop(another);
    assert!(one.is_broken());
    assert!(one.poll(Duration::ZERO).unwrap());
    assert_eq!(one.recv::<i32>().unwrap(), 1);
    assert_eq!(one.recv::<i32>().unwrap(), 2);
    assert!(one.poll(Duration::ZERO).unwrap(), "the end of file needs no waiting");
    assert_eq!(channel_error(one.recv::<i32>()), ChannelError::EndOfFile);
    assert_eq!(channel_error(one.recv_bytes()), ChannelError::EndOfFile);
    assert_eq!(channel_error(one.send(&1)), ChannelError::BrokenPipe);
}

#[test]
fn polling_tells_whether_there_is_a_message() {
    let (one, other) = pipe(true).unwrap();
    assert!(!one.poll(Duration::ZERO).unwrap());
    assert!(!one.poll(Duration::from_millis(1)).unwrap());
    assert!(matches!(channel_error(one.try_recv::<u8>()), ChannelError::Empty { .. }));
    assert!(matches!(channel_error(one.recv_timeout::<u8>(Duration::from_millis(1))), ChannelError::Empty { .. }));
    std::thread::scope(|scope| {
        scope.spawn(|| other.send(&1u8).unwrap());
        assert!(one.poll(Duration::from_secs(600)).unwrap());
    });
    assert_eq!(one.try_recv::<u8>().unwrap(), 1);
}

#[test]
fn whoever_waits_is_woken_by_the_other_ends_close() {
    let (one, other) = pipe(true).unwrap();
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| one.recv::<u8>());
        drop(other);
        assert_eq!(channel_error(receiver.join().unwrap()), ChannelError::EndOfFile);
    });
    let (one, other) = pipe(true).unwrap();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| (0..).map(|number: u32| one.send(&number)).find(Result::is_err));
        assert_eq!(other.recv::<u32>().unwrap(), 0);
        drop(other);
        assert_eq!(channel_error(sender.join().unwrap().unwrap()), ChannelError::BrokenPipe);
    });
}

#[test]
fn an_end_can_be_sent_to_another_process() {
    let (segment, _ends, here) = parted("answers");
    let mut child = common::start("answers", &[&segment.name]);
    child.expect("here");
    for number in 0..1000u64 {
        here.send(&number).unwrap();
        assert_eq!(here.recv::<u64>().unwrap(), 2 * number);
    }
    drop(here);
    child.succeeded();
    segment.verify().unwrap();
    assert_eq!(segment.objects().len(), 1);
}

#[test]
fn an_end_on_its_way_in_a_message_is_open() {
    let (_segment, ends, here) = parted("on-its-way");
    here.send(&1).unwrap();
    assert!(!here.is_broken());
    let there = ends.get().unwrap();
    assert_eq!(there.recv::<i32>().unwrap(), 1);
    ends.put(there).unwrap();
    assert!(!here.is_broken());
    drop(ends);
    assert!(!here.is_broken(), "the queue lives by its name");
    _segment.remove("ends").unwrap();
    assert_eq!(channel_error(here.recv::<i32>()), ChannelError::EndOfFile);
}

#[test]
fn the_death_of_the_last_holder_is_the_end_of_file() {
    let (segment, ends, here) = parted("death");
    let mut child = common::start("takes_one_and_waits", &[&segment.name]);
    child.expect("here");
    here.send("hello").unwrap();
    child.expect("hello");
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| here.recv::<u8>());
        child.kill();
        assert_eq!(channel_error(receiver.join().unwrap()), ChannelError::EndOfFile);
    });
    assert_eq!(channel_error(here.send(&1)), ChannelError::BrokenPipe);
    drop((here, ends));
    segment.remove("ends").unwrap();
    segment.verify().unwrap();
    assert_eq!(segment.memory().unwrap().0, 0);
}

#[test]
fn what_the_dead_have_sent_is_received() {
    let (segment, _ends, here) = parted("sent");
    let mut child = common::start("sends_and_ends", &[&segment.name]);
    child.expect("sent");
    child.kill();
    assert_eq!((0..3).map(|_| here.recv::<i32>().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(channel_error(here.recv::<i32>()), ChannelError::EndOfFile);
}

#[test]
fn whoever_holds_both_ends_is_not_at_the_end_of_file() {
    let (segment, ends, here) = parted("both");
    let there = ends.get().unwrap();
    ends.put(there.clone()).unwrap();
    let mut child = common::start("takes_one_and_waits", &[&segment.name]);
    child.expect("here");
    child.kill();
    segment.recover();
    assert!(!here.is_broken(), "this process holds the other end, too");
    there.send(&1).unwrap();
    assert_eq!(here.recv::<i32>().unwrap(), 1);
    drop(there);
    assert_eq!(channel_error(here.recv::<i32>()), ChannelError::EndOfFile);
}

#[test]
fn a_handle_goes_through_a_connection() {
    let segment = common::named("handles");
    let (one, other) = pipe_in(&segment, true).unwrap();
    for end in [&one, &other] {
        end.send(&Event::new_in(&segment).unwrap()).unwrap();
    }
    assert_eq!(segment.objects().len(), 3);
    one.recv::<Event>().unwrap().set();
    assert_eq!(segment.objects().len(), 2);
    drop(other.recv::<Event>().unwrap());
    assert_eq!(segment.objects().len(), 1);
    segment.verify().unwrap();
}

#[test]
fn who_does_not_want_to_wait_for_room_need_not() {
    let segment = Segment::anonymous().unwrap();
    let (here, there) = pipe_in(&segment, true).unwrap();
    for number in 0..64 {
        here.try_send(&number).unwrap();
    }
    assert!(matches!(channel_error(here.try_send(&64)), ChannelError::Full { .. }));
    assert!(matches!(channel_error(here.send_timeout(&64, Duration::from_millis(1))), ChannelError::Full { .. }));
    assert_eq!(there.recv::<i32>().unwrap(), 0);
    here.send_timeout(&64, Duration::from_secs(60)).unwrap();
    drop(there);
    assert_eq!(channel_error(here.try_send(&65)), ChannelError::BrokenPipe);
}

#[test]
fn sixteen_mebibytes_are_one_message_both_ways() {
    let segment = Segment::anonymous().unwrap();
    let (here, there) = pipe_in(&segment, true).unwrap();
    let bytes: Vec<u8> = (0..16 << 20).map(|number: u32| (number % 251) as u8).collect();
    here.send_bytes(&bytes).unwrap();
    there.send_bytes(&there.recv_bytes().unwrap()).unwrap();
    assert!(here.recv_bytes().unwrap() == bytes, "it is another one");
}

/// Whether a descriptor is readable now.
fn is_readable(readiness: &Readiness) -> bool {
    let mut fd = libc::pollfd { fd: readiness.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, borrowed for the call.
    unsafe { libc::poll(&mut fd, 1, 0) == 1 }
}

#[test]
fn a_descriptor_says_when_there_is_a_message_or_the_end_of_file() {
    let (near, far) = pipe(true).unwrap();
    let readable = Readiness::new(&near).unwrap();
    assert!(!is_readable(&readable));
    far.send(&1u8).unwrap();
    common::until(|| is_readable(&readable));
    assert_eq!(near.recv::<u8>().unwrap(), 1);
    readable.rearm().unwrap();
    assert!(!is_readable(&readable));
    drop(far);
    common::until(|| is_readable(&readable));
    assert!(matches!(near.recv::<u8>(), Err(Error::Channel(ChannelError::EndOfFile))));
}

#[test]
fn connections_sockets_and_children_are_waited_for_together() {
    use std::io::Write;
    let now = Some(Duration::ZERO);
    let ((one, other_one), (two, other_two)) = (pipe(true).unwrap(), pipe(true).unwrap());
    let (socket, mut other_socket) = std::os::unix::net::UnixStream::pair().unwrap();
    let gate = Event::new().unwrap();
    let child = shmkit::Process::new(|gate: Event| gate.wait()).args((gate.clone(),)).start().unwrap();
    let wait = |timeout| wait_any(&[&one, &two, &socket, &child], timeout).unwrap();
    assert!(wait(now).is_empty());
    assert!(wait(Some(Duration::from_millis(3))).is_empty());
    other_two.send(&"two").unwrap();
    assert_eq!(wait(None), [1]);
    other_socket.write_all(b"x").unwrap();
    assert_eq!(wait(None), [1, 2]);
    assert_eq!(two.recv::<String>().unwrap(), "two");
    // A closed peer is something to be told of.
    drop(other_one);
    assert_eq!(wait(None), [0, 2]);
    assert!(matches!(one.recv::<u8>(), Err(Error::Channel(ChannelError::EndOfFile))));
    gate.set();
    child.join().unwrap().check().unwrap();
    assert_eq!(wait(None), [0, 2, 3]);
}

#[test]
fn several_writers_and_readers_of_one_end_need_no_lock() {
    const EACH: u64 = 500;
    let (near, far) = pipe(false).unwrap();
    let write = |end: Connection, writer: u64| -> shmkit::Result<()> {
        // Long ones and short ones, which must not be mixed up.
        (0..EACH).try_for_each(|number| end.send(&vec![writer * EACH + number; number as usize % 50 + 1]))
    };
    let children: Vec<_> =
        (0..2).map(|writer| shmkit::Process::new(write).args((far.clone(), writer)).start().unwrap()).collect();
    let threads: Vec<_> = (2..4)
        .map(|writer| {
            let far = far.clone();
            std::thread::spawn(move || write(far, writer).unwrap())
        })
        .collect();
    drop(far);
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let near = near.clone();
            std::thread::spawn(move || {
                let mut seen = Vec::new();
                loop {
                    match near.recv::<Vec<u64>>() {
                        Ok(message) => {
                            let first = message[0];
                            assert_eq!(message.len() as u64, first % EACH % 50 + 1);
                            assert!(message.iter().all(|&number| number == first), "{message:?}");
                            seen.push(first);
                        }
                        Err(Error::Channel(ChannelError::EndOfFile)) => return seen,
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    children.iter().for_each(|child| child.join().unwrap().check().unwrap());
    let seen: Vec<u64> = readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect();
    assert_eq!(seen.len() as u64, 4 * EACH);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), (0..4 * EACH).collect());
}

#[test]
fn the_longest_time_out_is_none() {
    let (near, far) = pipe(true).unwrap();
    let (requests, answers) = (Queue::<u32>::bounded(1).unwrap(), Queue::<u32>::bounded(1).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(far.poll(Duration::MAX).unwrap());
            assert_eq!(far.recv_timeout::<u32>(Duration::MAX).unwrap(), 1);
            far.send_timeout(&2, Duration::MAX).unwrap();
            assert_eq!(requests.get_timeout(Duration::MAX).unwrap(), 3);
            answers.put_timeout(4, Duration::MAX).unwrap();
        });
        near.send(&1).unwrap();
        assert_eq!(wait_any(&[&near], Some(Duration::MAX)).unwrap(), [0]);
        assert_eq!(near.recv::<i32>().unwrap(), 2);
        requests.put(3).unwrap();
        assert_eq!(answers.get_timeout(Duration::MAX).unwrap(), 4);
    });
    let segment = Segment::anonymous().unwrap();
    let listener = shmkit::Listener::builder("meeting").segment(&segment).bind().unwrap();
    std::thread::scope(|scope| {
        let client = shmkit::Client::builder("meeting").segment(&segment).timeout(Duration::MAX);
        scope.spawn(|| client.connect().unwrap().send(&5).unwrap());
        assert_eq!(listener.accept_timeout(Duration::MAX).unwrap().recv::<i32>().unwrap(), 5);
    });
}
