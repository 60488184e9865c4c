//! Connections between processes that know nothing of each other but a name.

mod common;

use shmkit::{ChannelError, Client, Connection, Error, Listener, Segment, SyncError};
use std::path::Path;
use std::thread;
use std::time::Duration;

roles!(listens, connects, binds_and_waits);

const LONG: Duration = Duration::from_secs(60);

fn channel_error<T>(result: shmkit::Result<T>) -> ChannelError {
    match result {
        Err(Error::Channel(error)) => error,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("a success"),
    }
}

fn refused<T>(result: shmkit::Result<T>) -> bool {
    matches!(channel_error(result), ChannelError::Refused { .. })
}

/// Listens as its argument says, and sends what it gets back, once for each of two clients.
fn listens(arguments: &[String]) {
    let listener = Listener::bind(&arguments[0]).unwrap();
    common::say("ready");
    for _ in 0..2 {
        let connection = listener.accept().unwrap();
        let text: String = connection.recv().unwrap();
        let peer = listener.last_accepted().unwrap();
        connection.send(&(text, peer.pid, peer.uid)).unwrap();
    }
}

#[test]
fn unrelated_processes_meet_by_name() {
    let name = common::unique("meet");
    assert!(refused(Client::connect(&name)), "there is not even a segment");
    let mut child = common::start("listens", &[&name]);
    child.expect("ready");
    // SAFETY: geteuid has no preconditions.
    let uid = unsafe { libc::geteuid() };
    for text in ["one", "two"] {
        let connection = Client::connect(&name).unwrap();
        let peers = connection.peers();
        assert_eq!((peers.len(), peers[0].pid, peers[0].uid), (1, child.pid(), uid));
        connection.send(text).unwrap();
        let answer: (String, u32, u32) = connection.recv().unwrap();
        assert_eq!(answer, (text.to_owned(), std::process::id(), uid));
        drop(connection);
    }
    child.succeeded();
    assert!(refused(Client::connect(&name)));
    assert!(!Path::new(&format!("/dev/shm/shmkit.{name}")).exists(), "the segment goes with its last user");
}

/// Connects as its arguments say, and sends its process id.
fn connects(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let connection = Client::builder("meeting").segment(&segment).connect().unwrap();
    connection.send(&std::process::id()).unwrap();
    assert!(matches!(channel_error(connection.recv::<u32>()), ChannelError::EndOfFile));
}

#[test]
fn many_clients_are_accepted_one_after_the_other() {
    let segment = common::named("listener");
    let listener = Listener::builder("meeting").segment(&segment).backlog(2).bind().unwrap();
    let mut children: Vec<_> = (0..6).map(|_| common::start("connects", &[&segment.name])).collect();
    let mut connections: Vec<Connection> = children.iter().map(|_| listener.accept().unwrap()).collect();
    let mut pids: Vec<u32> = connections.iter().map(|connection| connection.recv().unwrap()).collect();
    pids.sort_unstable();
    let mut expected: Vec<u32> = children.iter().map(common::Child::pid).collect();
    expected.sort_unstable();
    assert_eq!(pids, expected);
    connections.clear();
    children.iter_mut().for_each(common::Child::succeeded);
    drop(listener);
    segment.remove("meeting").unwrap();
    segment.verify().unwrap();
    assert_eq!(segment.memory().unwrap().0, 0, "nothing is left of connections");
}

#[test]
fn both_sides_must_know_the_same_key() {
    let segment = Segment::anonymous().unwrap();
    let keys: [Option<&[u8]>; 4] = [None, Some(b""), Some(b"open sesame"), Some(b"open sesamf")];
    for (given, ours) in keys.into_iter().enumerate() {
        let mut builder = Listener::builder("meeting").segment(&segment);
        if let Some(key) = ours {
            builder = builder.authkey(key);
        }
        let listener = builder.bind().unwrap();
        for (asked, theirs) in keys.into_iter().enumerate() {
            let (accepted, connected) = thread::scope(|scope| {
                let client = scope.spawn(|| {
                    let mut builder = Client::builder("meeting").segment(&segment);
                    if let Some(key) = theirs {
                        builder = builder.authkey(key);
                    }
                    builder.connect()
                });
                (listener.accept(), client.join().unwrap())
            });
            if given == asked {
                connected.unwrap().send(&1).unwrap();
                assert_eq!(accepted.unwrap().recv::<i32>().unwrap(), 1);
            } else {
                let row = format!("{ours:?} and {theirs:?}");
                for error in [accepted.unwrap_err(), connected.unwrap_err()] {
                    assert!(matches!(error, Error::Channel(ChannelError::Authentication { .. })), "{row}: {error}");
                    assert_eq!(error.code(), 313);
                }
            }
        }
        assert_eq!(segment.objects().len(), 1, "refused connections are gone");
    }
}

#[test]
fn a_name_has_one_listener() {
    let segment = Segment::anonymous().unwrap();
    let first = Listener::builder("meeting").segment(&segment).bind().unwrap();
    let error = Listener::builder("meeting").segment(&segment).bind().unwrap_err();
    let Error::Channel(ChannelError::NameInUse { name, pid }) = error else { panic!("{error}") };
    assert_eq!((name.as_str(), pid), ("meeting", std::process::id()));
    Listener::builder("another").segment(&segment).bind().unwrap();
    drop(first);
    let second = Listener::builder("meeting").segment(&segment).bind().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| Client::builder("meeting").segment(&segment).connect().unwrap());
        second.accept().unwrap();
    });
}

#[test]
fn a_closed_listener_accepts_nothing() {
    let segment = Segment::anonymous().unwrap();
    let listener = Listener::builder("meeting").segment(&segment).bind().unwrap();
    let waited = Duration::from_millis(1);
    let error = listener.accept_timeout(waited).unwrap_err();
    assert!(matches!(error, Error::Sync(SyncError::TimedOut { .. })), "{error}");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| listener.accept());
        listener.close();
        assert!(matches!(channel_error(waiting.join().unwrap()), ChannelError::Closed { .. }));
    });
    assert!(matches!(channel_error(listener.accept()), ChannelError::Closed { .. }));
    listener.close();
    assert!(refused(Client::builder("meeting").segment(&segment).connect()));
}

#[test]
fn clients_that_wait_are_refused_when_the_listener_closes() {
    let segment = Segment::anonymous().unwrap();
    let listener = Listener::builder("meeting").segment(&segment).backlog(1).bind().unwrap();
    thread::scope(|scope| {
        // One waits to be accepted, the other one for room to ask.
        let clients = [(); 2].map(|()| scope.spawn(|| Client::builder("meeting").segment(&segment).connect()));
        while !format!("{listener:?}").contains("1 waiting") {
            thread::yield_now();
        }
        listener.close();
        for client in clients {
            assert!(refused(client.join().unwrap()));
        }
    });
}

#[test]
fn a_client_waits_no_longer_than_it_wants() {
    let segment = Segment::anonymous().unwrap();
    let _listener = Listener::builder("meeting").segment(&segment).backlog(1).bind().unwrap();
    // The second one finds the backlog full.
    for _ in 0..2 {
        let client = Client::builder("meeting").segment(&segment).timeout(Duration::from_millis(5));
        let error = client.connect().unwrap_err();
        let Error::Sync(SyncError::TimedOut { holder: Some(holder), .. }) = error else { panic!("{error}") };
        assert_eq!(holder.pid, std::process::id(), "the error names who listens");
    }
}

/// Listens, and accepts nobody.
fn binds_and_waits(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let _listener = Listener::builder("meeting").segment(&segment).bind().unwrap();
    common::say("ready");
    common::listen();
}

#[test]
fn a_killed_listeners_clients_are_refused_and_its_name_is_free() {
    let segment = common::named("listener-killed");
    let mut child = common::start("binds_and_waits", &[&segment.name]);
    child.expect("ready");
    let error = Listener::builder("meeting").segment(&segment).bind().unwrap_err();
    assert!(matches!(error, Error::Channel(ChannelError::NameInUse { pid, .. }) if pid == child.pid()), "{error}");
    thread::scope(|scope| {
        let client = scope.spawn(|| Client::builder("meeting").segment(&segment).timeout(LONG).connect());
        while segment.objects().len() < 2 {
            thread::yield_now();
        }
        child.kill();
        assert!(refused(client.join().unwrap()));
    });
    let listener = Listener::builder("meeting").segment(&segment).bind().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| Client::builder("meeting").segment(&segment).connect().unwrap());
        // What the first client had asked for is skipped.
        listener.accept().unwrap();
    });
}

#[test]
fn another_object_of_that_name_is_no_listener() {
    let segment = common::named("listener-kind");
    segment.event("meeting").create().unwrap();
    assert!(matches!(Listener::builder("meeting").segment(&segment).bind(), Err(Error::Segment(_))));
    assert!(matches!(Client::builder("meeting").segment(&segment).connect(), Err(Error::Segment(_))));
}

#[test]
fn a_connection_is_sent_through_a_connection() {
    let segment = common::named("through");
    let listener = Listener::builder("meeting").segment(&segment).bind().unwrap();
    thread::scope(|scope| {
        // Two who know only the one in the middle.
        let alice = scope.spawn(|| {
            let middle = Client::builder("meeting").segment(&segment).connect().unwrap();
            let bob: Connection = middle.recv().unwrap();
            bob.send("hello, Bob").unwrap();
            bob.recv::<String>().unwrap()
        });
        let bob = scope.spawn(|| {
            let middle = Client::builder("meeting").segment(&segment).connect().unwrap();
            let alice: Connection = middle.recv().unwrap();
            alice.send("hello, Alice").unwrap();
            alice.recv::<String>().unwrap()
        });
        let ends = shmkit::channel::pipe_in(&segment, true).unwrap();
        listener.accept().unwrap().send(&ends.0).unwrap();
        listener.accept().unwrap().send(&ends.1).unwrap();
        drop(ends);
        let mut heard = [alice.join().unwrap(), bob.join().unwrap()];
        heard.sort();
        assert_eq!(heard, ["hello, Alice", "hello, Bob"]);
    });
    drop(listener);
    segment.remove("meeting").unwrap();
    assert_eq!(segment.memory().unwrap().0, 0);
}
