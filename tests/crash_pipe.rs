//! A process killed at each step of the pipe: the rows of the crash table of `channel::pipe`.

mod common;

use shmkit::{ChannelError, Error, Segment, failpoint};
use std::time::Duration;

roles!(sends, receives, looks, comes, has);

fn is(error: &Error, wanted: &ChannelError) -> bool {
    matches!(error, Error::Channel(found) if found == wanted)
}

/// Opens the sending end and uses it in one way, and dies at the kill point.
fn sends(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let wire = || segment.channel::<[u64; 2]>("wire");
    let arm = || failpoint::arm(&arguments[1], 1);
    if arguments[2] == "open" {
        arm();
        drop(wire().open_sender().unwrap());
        return;
    }
    let mut sender = wire().open_sender().unwrap();
    for i in 0..arguments[3].parse().unwrap() {
        sender.send([i; 2]).unwrap();
    }
    common::say("ready");
    common::listen();
    arm();
    match arguments[2].as_str() {
        "send" => sender.send([5; 2]).unwrap(),
        "batch" => sender.send_many(&[[5; 2], [6; 2], [7; 2]]).unwrap(),
        "loan" => {
            let mut loan = sender.loan().unwrap();
            *loan = [5; 2];
            loan.commit().unwrap();
        }
        "close" => sender.close().unwrap(),
        "drop" => drop(sender),
        other => panic!("unknown operation {other}"),
    }
}

#[test]
fn a_killed_senders_elements_are_received_if_they_were_committed() {
    let rows: &[(&str, &str, &[u64])] = &[
        ("open", "pipe.before_claim", &[]),
        ("open", "pipe.claimed", &[]),
        ("open", "pipe.used", &[]),
        ("open", "pipe.released", &[]),
        ("send", "pipe.before_write", &[]),
        ("send", "pipe.written", &[]),
        ("send", "pipe.committed", &[5]),
        ("batch", "pipe.half_batch", &[]),
        ("batch", "pipe.written", &[]),
        ("batch", "pipe.committed", &[5, 6, 7]),
        ("loan", "pipe.loaned", &[]),
        ("loan", "pipe.written", &[]),
        ("loan", "pipe.committed", &[5]),
        ("drop", "pipe.released", &[]),
        ("drop", "drop.before_cell", &[]),
        ("drop", "drop.cell", &[]),
        ("close", "pipe.closed", &[]),
    ];
    for &(operation, point, committed) in rows {
        // Elements sent before, so that a batch goes over the end of the ring.
        for before in [0, 2] {
            let segment = common::named("crash-sender");
            let wire = || segment.channel::<[u64; 2]>("wire").capacity(4);
            let receiver = if operation == "open" {
                wire().create().unwrap().1
            } else {
                // The first sender is waited for.
                wire().create_receiver().unwrap()
            };
            let mut child = common::start("sends", &[&segment.name, point, operation, &before.to_string()]);
            if operation != "open" {
                child.expect("ready");
                (0..before).for_each(|i| assert_eq!(receiver.recv().unwrap(), [i; 2]));
                child.tell("go");
            }
            // It sleeps, most likely, when the other one dies.
            let waiting = std::thread::spawn(move || {
                let received: Vec<_> = receiver.iter().map(|element| element.unwrap()).collect();
                (receiver, received)
            });
            child.was_killed();
            let (receiver, received) = waiting.join().unwrap();
            let at = format!("{operation} killed at {point}");
            let wanted: Vec<_> = committed.iter().map(|&i| [i; 2]).collect();
            assert_eq!(received, wanted, "{at}");
            if operation == "close" {
                assert!(is(&wire().open_sender().unwrap_err(), &ChannelError::Closed { what: "pipe" }), "{at}");
            } else {
                // The next sender goes on in the same place.
                let sender = wire().open_sender().unwrap();
                for i in 10..20 {
                    sender.send([i; 2]).unwrap();
                    assert_eq!(receiver.recv().unwrap(), [i; 2], "{at}");
                }
            }
            segment.verify().unwrap();
        }
    }
}

/// Opens the receiving end and uses it in one way, and dies at the kill point.
fn receives(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let wire = || segment.channel::<[u64; 2]>("wire");
    failpoint::arm(&arguments[1], 1);
    let mut receiver = wire().open_receiver().unwrap();
    match arguments[2].as_str() {
        "recv" => drop(receiver.recv().unwrap()),
        "batch" => drop(receiver.recv_many(&mut [[0; 2]; 3]).unwrap()),
        "reference" => drop(receiver.recv_ref().unwrap()),
        "close" => receiver.close().unwrap(),
        "drop" => drop(receiver),
        other => panic!("unknown operation {other}"),
    }
}

#[test]
fn what_a_killed_receiver_had_not_acknowledged_is_still_there() {
    let all = [1, 2, 3, 4];
    let rows = [
        ("recv", "pipe.before_claim", 0),
        ("recv", "pipe.claimed", 0),
        ("recv", "pipe.used", 0),
        ("recv", "pipe.read", 0),
        ("recv", "pipe.acknowledged", 1),
        ("batch", "pipe.read", 0),
        ("batch", "pipe.acknowledged", 3),
        ("reference", "pipe.held", 0),
        ("reference", "pipe.read", 0),
        ("reference", "pipe.acknowledged", 1),
        ("drop", "pipe.released", 0),
        ("drop", "drop.before_cell", 0),
        ("drop", "drop.cell", 0),
        ("close", "pipe.closed", 0),
    ];
    for (operation, point, gone) in rows {
        let segment = common::named("crash-receiver");
        let wire = || segment.channel::<[u64; 2]>("wire").capacity(4);
        let sender = wire().create_sender().unwrap();
        sender.send_many(&all.map(|i| [i; 2])).unwrap();
        let at = format!("{operation} killed at {point}");
        // Full: it waits for room, and for news of the receiver.
        let waiting = std::thread::spawn(move || {
            let sent = sender.send([9; 2]);
            (sender, sent)
        });
        common::start("receives", &[&segment.name, point, operation]).was_killed();
        if operation == "close" {
            let (_sender, sent) = waiting.join().unwrap();
            assert!(is(&sent.unwrap_err(), &ChannelError::BrokenPipe), "{at}");
            assert!(is(&wire().open_receiver().unwrap_err(), &ChannelError::Closed { what: "pipe" }), "{at}");
        } else if gone > 0 {
            // There was room and nobody left: both are right, whichever is seen first.
            let (sender, sent) = waiting.join().unwrap();
            let receiver = wire().open_receiver().unwrap();
            for &i in &all[gone..] {
                assert_eq!(receiver.recv().unwrap(), [i; 2], "{at}");
            }
            match sent {
                Ok(()) => assert_eq!(receiver.recv().unwrap(), [9; 2], "{at}"),
                Err(error) => assert!(is(&error, &ChannelError::BrokenPipe), "{at}: {error}"),
            }
            drop(sender);
            assert!(is(&receiver.recv().unwrap_err(), &ChannelError::EndOfFile), "{at}");
        } else {
            // Nobody is left, unless somebody comes: both are right, whichever is first.
            let receiver = wire().open_receiver().unwrap();
            for i in all {
                assert_eq!(receiver.recv().unwrap(), [i; 2], "{at}");
            }
            let (sender, sent) = waiting.join().unwrap();
            match sent {
                Ok(()) => assert_eq!(receiver.recv().unwrap(), [9; 2], "{at}"),
                Err(error) => assert!(is(&error, &ChannelError::BrokenPipe), "{at}: {error}"),
            }
            sender.send([10; 2]).unwrap();
            assert_eq!(receiver.recv_timeout(Duration::from_secs(60)).unwrap(), [10; 2], "{at}");
        }
        segment.verify().unwrap();
    }
}

/// Holds the sending end until it is killed.
fn has(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let _sender = segment.channel::<u64>("wire").open_sender().unwrap();
    common::say("ready");
    common::listen();
}

/// Looks whether there is something to receive, and stops when it has looked at four reference cells.
fn looks(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let receiver = segment.channel::<u64>("wire").open_receiver().unwrap();
    common::say("ready");
    common::listen();
    failpoint::stop("reference.looked", 4);
    let first = receiver.try_recv();
    common::say(&format!("{first:?}"));
    common::say(&format!("{:?}", receiver.recv().unwrap()));
}

/// Opens the sending end, and stops when it has added its reference and not yet changed the version.
fn comes(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    failpoint::stop("reference.cell", 1);
    let sender = segment.channel::<u64>("wire").open_sender().unwrap();
    sender.send(7).unwrap();
    common::listen();
}

#[test]
fn the_end_of_the_file_is_not_told_while_the_end_goes_from_a_killed_one_to_the_next() {
    let segment = common::named("crash-handing-on");
    let wire = || segment.channel::<u64>("wire").capacity(4);
    // Four cells in the entry: this process's sender, the name, this process's receiver, the one who looks. The owner's lies
    // in a chunk behind them.
    let (sender, receiver) = wire().create().unwrap();
    let mut looker = common::start("looks", &[&segment.name]);
    looker.expect("ready");
    let mut owner = common::start("has", &[&segment.name]);
    owner.expect("ready");
    drop((sender, receiver));

    looker.tell("look");
    looker.was_stopped();
    // Adds its cell in front, where the other one has looked.
    let mut next = common::start("comes", &[&segment.name]);
    next.was_stopped();
    owner.kill();
    segment.recover();
    looker.signal(libc::SIGCONT);
    looker.expect("Err(Channel(Empty { what: \"pipe\" }))");

    next.signal(libc::SIGCONT);
    looker.expect("7");
    next.tell("end");
    next.succeeded();
    looker.succeeded();
    segment.verify().unwrap();
}
