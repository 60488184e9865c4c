//! A listener and a client killed at each step of binding, accepting, closing and connecting: the rows of the crash tables of
//! `channel/listener.rs`.

mod common;

use shmkit::{ChannelError, Client, Error, Listener, Segment, failpoint};
use std::thread;

roles!(listens, connects, closes);

const KEY: &str = "open sesame";

fn bind(segment: &Segment) -> shmkit::Result<Listener> {
    Listener::builder("meeting").segment(segment).authkey(KEY).bind()
}

fn connect(segment: &Segment) -> shmkit::Result<shmkit::Connection> {
    Client::builder("meeting").segment(segment).authkey(KEY).connect()
}

/// Listens and accepts one, and dies at the kill point.
fn listens(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    failpoint::arm(&arguments[1], arguments[2].parse().unwrap());
    let listener = bind(&segment).unwrap();
    common::say("ready");
    let connection = listener.accept().unwrap();
    connection.send(&1).unwrap();
}

/// Connects, and dies at the kill point.
fn connects(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    failpoint::arm(&arguments[1], arguments[2].parse().unwrap());
    let connection = connect(&segment).unwrap();
    connection.send(&1).unwrap();
}

/// Closes while a client waits, and dies at the kill point.
fn closes(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let listener = bind(&segment).unwrap();
    common::say("ready");
    common::listen();
    failpoint::arm(&arguments[1], arguments[2].parse().unwrap());
    listener.close();
}

/// The name can be listened under, and a client is accepted; then nothing is left.
fn check(segment: &common::Named, row: &str) {
    let listener = bind(segment).unwrap_or_else(|error| panic!("{row}: {error}"));
    thread::scope(|scope| {
        let client = scope.spawn(|| connect(segment).unwrap());
        let connection = listener.accept().unwrap_or_else(|error| panic!("{row}: {error}"));
        connection.send(&7).unwrap();
        assert_eq!(client.join().unwrap().recv::<i32>().unwrap(), 7, "{row}");
    });
    drop(listener);
    segment.recover();
    segment.remove("meeting").unwrap();
    segment.verify().unwrap_or_else(|error| panic!("{row}: {error}"));
    assert_eq!(segment.memory().unwrap().0, 0, "{row}: memory leaked");
}

#[test]
fn a_listener_killed_while_it_binds() {
    for point in ["object.live", "listener.before_claim", "listener.claimed"] {
        let segment = common::named("bind");
        common::start("listens", &[&segment.name, point, "1"]).was_killed();
        let error = connect(&segment).unwrap_err();
        assert!(matches!(error, Error::Channel(ChannelError::Refused { .. })), "{point}: {error}");
        check(&segment, point);
    }
}

#[test]
fn a_listener_killed_while_it_accepts() {
    let points = [
        ("queue.taken", 1),
        ("queue.read", 1),
        ("queue.decoded", 1),
        ("listener.accepted", 1),
        ("queue.ready", 1),
        ("listener.challenged", 1),
        ("listener.welcomed", 1),
    ];
    for (point, nth) in points {
        let row = format!("{point} {nth}");
        let segment = common::named("accept");
        let mut child = common::start("listens", &[&segment.name, point, &nth.to_string()]);
        child.expect("ready");
        match connect(&segment) {
            Err(error) => assert!(matches!(error, Error::Channel(ChannelError::Refused { .. })), "{row}: {error}"),
            // It died after its last word: the connection is there, and at its end.
            Ok(connection) => {
                assert_eq!(point, "listener.welcomed");
                let error = connection.recv::<i32>().unwrap_err();
                assert!(matches!(error, Error::Channel(ChannelError::EndOfFile)), "{row}: {error}");
            }
        }
        child.was_killed();
        check(&segment, &row);
    }
}

#[test]
fn a_client_killed_while_it_connects() {
    let points = [
        ("object.live", 1),
        ("queue.claimed", 1),
        ("queue.ready", 1),
        ("client.asked", 1),
        ("queue.ready", 2),
        ("client.answered", 1),
        ("queue.ready", 3),
    ];
    for (point, nth) in points {
        let row = format!("{point} {nth}");
        let segment = common::named("connect");
        let listener = bind(&segment).unwrap();
        thread::scope(|scope| {
            let accepted = scope.spawn(|| listener.accept());
            common::start("connects", &[&segment.name, point, &nth.to_string()]).was_killed();
            if (point, nth) == ("queue.ready", 3) {
                // It had agreed: the connection is one that ends.
                assert!(accepted.join().unwrap().unwrap().recv::<i32>().is_err());
                return;
            }
            // The next one is accepted, as if nothing had been.
            let connection = connect(&segment).unwrap();
            accepted.join().unwrap().unwrap().send(&5).unwrap();
            assert_eq!(connection.recv::<i32>().unwrap(), 5, "{row}");
        });
        drop(listener);
        check(&segment, &row);
    }
}

#[test]
fn a_listener_killed_while_it_closes() {
    for point in ["listener.closed", "queue.taken", "queue.decoded", "queue.freed"] {
        let segment = common::named("close");
        let mut child = common::start("closes", &[&segment.name, point, "1"]);
        child.expect("ready");
        thread::scope(|scope| {
            let client = scope.spawn(|| connect(&segment));
            while segment.objects().len() < 2 {
                thread::yield_now();
            }
            child.tell("close");
            let ended = child.end();
            let error = client.join().unwrap().unwrap_err();
            assert!(matches!(error, Error::Channel(ChannelError::Refused { .. })), "{point}: {error}");
            // If the client had not asked yet, there was nothing to take.
            assert!(ended.success() || std::os::unix::process::ExitStatusExt::signal(&ended) == Some(libc::SIGKILL));
        });
        check(&segment, point);
    }
}
