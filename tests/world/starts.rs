//! Processes and pools whose session has no memory left: their records, tasks and results lie in it.

use crate::common;
use crate::runs;
use crate::space::{FILLER, Patience, expect_a_full_disk, fill, pages_left, small_disk};
use shmkit::{Pool, Process, Queue, Segment};
use std::collections::BTreeSet;

/// A program whose session is a file of the small `/dev/shm`: gives what was refused.
pub fn starts_everything(arguments: &[String]) {
    let name = &arguments[0];
    let patience = Patience::new(expect_a_full_disk, || true, || std::fs::remove_file(FILLER).unwrap());
    let session = patience.must("the session", shmkit::session);
    patience.watch(&session);
    let words = patience.must("a queue", || Queue::<String>::bounded(4));
    let say = |words: Queue<String>, text: String| words.put(text).unwrap();
    // What was refused to others: they say so, and nobody waits for them.
    let mut refused = None;
    for length in [10, 9000] {
        let text = "t".repeat(length);
        let start = || Process::new(say).args((words.clone(), text.clone())).start();
        let ended = patience.must("a process", start).join().unwrap();
        if !ended.success() {
            expect_a_reason(ended.message().unwrap_or_default());
            refused = Some("a started process's message");
            start().unwrap().join().unwrap().check().unwrap();
        }
        assert_eq!(words.get().unwrap().len(), length);
    }
    let pool = patience.must("a pool", || Pool::new(1));
    for length in [10, 100_000] {
        let text = "t".repeat(length);
        let measure = |text: String| text.len();
        let measured = pool.apply(measure, (text.clone(),)).or_else(|error| {
            expect_a_reason(&error.to_string());
            refused = Some("a task");
            pool.apply(measure, (text.clone(),))
        });
        assert_eq!(measured.unwrap(), length);
    }
    let make = |length: usize| "r".repeat(length);
    let made = pool.apply(make, (300_000,)).or_else(|error| {
        expect_a_reason(&error.to_string());
        refused = Some("a task's result");
        pool.apply(make, (300_000,))
    });
    assert_eq!(made.unwrap().len(), 300_000);
    drop((words, pool));
    // A pool that is dropped waits some seconds at most for workers it has killed: on a busy machine it goes a little later.
    common::until(|| {
        session.recover();
        session.participants().len() == 1 && session.memory().unwrap().0 == 0
    });
    session.verify().unwrap();
    drop(session);
    assert!(Segment::unlink(name).unwrap());
    common::say(patience.refused().or(refused).unwrap_or("nothing"));
}

/// And makes room.
fn expect_a_reason(why: &str) {
    assert!(why.contains("/dev/shm is full"), "{why}");
    std::fs::remove_file(FILLER).unwrap();
}

/// Runs [`starts_everything`] anew for every number of free pages.
pub fn processes_on_a_small_disk(arguments: &[String]) {
    let Some(()) = small_disk(2048) else { return };
    let name = &arguments[0];
    let all = pages_left();
    let mut refused = BTreeSet::new();
    for left in 0.. {
        fill(left);
        let mut child = common::start_with("starts_everything", &[name], &[("SHMKIT_SESSION", name)]);
        let this = child.hear();
        child.succeeded();
        let was_needed = std::fs::remove_file(FILLER).is_err();
        assert_eq!(pages_left(), all, "with {left} pages left at first, some stayed taken");
        if !was_needed {
            break;
        }
        refused.insert(this);
    }
    common::say(&refused.into_iter().collect::<Vec<_>>().join(", "));
}

#[test]
fn processes_and_pools_in_a_full_dev_shm_are_refused_or_end_with_a_reason() {
    let mut child = common::start("processes_on_a_small_disk", &[&common::unique("starts")]);
    if !runs("processes_and_pools_in_a_full_dev_shm_are_refused_or_end_with_a_reason", &mut child) {
        return;
    }
    let refused = child.hear();
    child.succeeded();
    println!("refused: {refused}");
    for one in ["the session", "a process", "a pool", "a task", "a task's result"] {
        assert!(refused.contains(one), "{one} was never refused: {refused}");
    }
}
