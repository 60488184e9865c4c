//! A process killed at each step of the objects of `sync` that more than two take part in: the rows of their crash tables.

mod common;

use shmkit::{Segment, failpoint};

roles!(permits, recovers);

/// In a child: the segment, and once the parent says so, the kill point that is to be armed.
fn prepare(arguments: &[String]) -> Segment {
    let segment = Segment::open(&arguments[0]).unwrap();
    common::say("ready");
    common::listen();
    failpoint::arm(&arguments[1], arguments[2].parse().unwrap());
    segment
}

/// Recovers whoever is dead, and dies at the kill point itself.
fn recovers(arguments: &[String]) {
    prepare(arguments).recover();
    panic!("the kill point was not reached");
}

/// Starts a child in `role` that dies at the `nth` passage of `point`, and waits for its death.
fn kill(role: &str, segment: &common::Named, point: &str, nth: u32, more: &[&str]) {
    let nth = nth.to_string();
    let mut child = common::start(role, &[&[segment.name.as_str(), point, &nth], more].concat());
    child.expect("ready");
    child.tell("go");
    child.was_killed();
}

fn permits(arguments: &[String]) {
    let segment = prepare(arguments);
    let permits = segment.permit_semaphore("permits").open().unwrap();
    let first = permits.acquire().unwrap();
    permits.acquire().unwrap().forget();
    drop(first);
}

#[test]
fn permits_come_back_wherever_their_holder_dies() {
    for (point, nth) in [
        ("permits.before_take", 1),
        ("permits.taken", 1),
        ("permits.taken", 2),
        ("permits.before_release", 1),
        ("permits.released", 1),
    ] {
        let segment = common::named("crash-permits");
        let permits = segment.permit_semaphore("permits").permits(3).create().unwrap();
        let mine = permits.acquire().unwrap();
        kill("permits", &segment, point, nth, &[]);
        let others = (permits.acquire().unwrap(), permits.acquire().unwrap());
        assert_eq!(permits.value(), 0, "{point}");
        drop((mine, others));
        assert_eq!(permits.value(), 3, "{point}");
        segment.verify().unwrap();
    }
}

#[test]
fn permits_come_back_although_their_recoverer_dies() {
    for nth in 1..=3 {
        let segment = common::named("crash-permits-recovery");
        let permits = segment.permit_semaphore("permits").permits(3).create().unwrap();
        kill("permits", &segment, "permits.released", 1, &[]);
        kill("recovers", &segment, "permits.recovered", nth, &[]);
        let all = (permits.acquire().unwrap(), permits.acquire().unwrap(), permits.acquire().unwrap());
        drop(all);
        assert_eq!(permits.value(), 3, "{nth}");
        segment.verify().unwrap();
    }
}
