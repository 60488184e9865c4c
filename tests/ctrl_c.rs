//! Ctrl-C: a real SIGINT to a process group that has a pool, daemons and other children.

mod common;

use common::start_with;
use shmkit::{Error, Event, Pool, Process, Segment, SegmentError, SyncError, TaskError};
use std::time::Duration;

roles!(family, waits_for_an_event, joins_a_child, computes, has_a_stubborn_child);

/// Becomes the leader of a group, as what a shell starts is, and writes its errors where its parent reads.
fn lead() {
    // SAFETY: no preconditions; both descriptors are open.
    unsafe {
        libc::setpgid(0, 0);
        libc::dup2(1, 2);
    }
}

fn wait_for_ever(never: Event) -> Result<(), String> {
    never.wait().map_err(|error| error.to_string())
}

/// A pool with a task in each worker, a daemon, and another child, all of them waiting.
fn family(arguments: &[String]) {
    lead();
    if arguments[0] == "orderly" {
        shmkit::process::end_on_interrupt(Duration::from_secs(3600)).unwrap();
    }
    let (never, begun) = (Event::new().unwrap(), shmkit::Semaphore::new(0).unwrap());
    let pool = Pool::builder().workers(2).grace(Duration::from_millis(50)).start().unwrap();
    let busy = |never: Event, begun: shmkit::Semaphore| {
        begun.release().unwrap();
        wait_for_ever(never)
    };
    let mut tasks: Vec<_> = (0..2).map(|_| pool.apply_async(busy, (never.clone(), begun.clone()))).collect();
    let daemon = Process::new(busy).args((never.clone(), begun.clone())).daemon(true).start().unwrap();
    let child = Process::new(busy).args((never.clone(), begun.clone())).start().unwrap();
    (0..4).for_each(|_| begun.acquire().unwrap().forget());
    let pids = pool.worker_pids().into_iter().chain([daemon.pid(), child.pid()]);
    common::say(&pids.map(|pid| pid.to_string()).collect::<Vec<_>>().join(" "));
    for task in &mut tasks {
        assert!(matches!(task.get(), Err(Error::Task(TaskError::Cancelled { .. }))));
    }
    // There is time to tidy up: waits are waits again after the one that was ended.
    assert!(matches!(pool.apply(|| (), ()), Err(Error::Task(TaskError::PoolClosed { .. }))));
    let ended = Event::new().unwrap().wait_timeout(Duration::from_secs(3600));
    assert!(matches!(ended, Err(Error::Sync(SyncError::Interrupted))), "{ended:?}");
    assert!(!Event::new().unwrap().wait_timeout(Duration::from_millis(1)).unwrap());
    pool.join().unwrap();
    assert_eq!(child.join().unwrap().signal(), Some(libc::SIGINT));
    common::say("tidied up");
}

fn is_gone(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

/// What a terminal does at Ctrl-C.
fn press_ctrl_c(leader: u32) {
    // SAFETY: kill has no preconditions; the leader is not reaped, so its group is its own.
    assert_eq!(unsafe { libc::kill(-(leader as i32), libc::SIGINT) }, 0);
}

fn session_is_gone(name: &str) -> bool {
    let left = Segment::open(name).map(drop);
    let _ = Segment::unlink(name);
    matches!(left, Err(Error::Segment(SegmentError::NotFound { .. })))
}

#[test]
fn a_program_that_asks_for_it_ends_in_order_and_says_nothing() {
    let name = common::unique("ctrl-c");
    let mut family = start_with("family", &["orderly"], &[("SHMKIT_SESSION", &name)]);
    let pids = family.hear();
    press_ctrl_c(family.pid());
    family.expect("tidied up");
    assert_eq!(family.rest(), "", "no screens of tracebacks");
    family.succeeded();
    assert!(pids.split(' ').count() == 4 && pids.split(' ').all(is_gone), "{pids}");
    assert!(session_is_gone(&name), "it left its segments in order");
}

#[test]
fn one_that_does_not_dies_with_all_it_started_and_says_nothing_either() {
    use std::os::unix::process::ExitStatusExt;
    let mut family = start_with("family", &["sudden"], &[]);
    let pids = family.hear();
    press_ctrl_c(family.pid());
    assert_eq!(family.rest(), "");
    assert_eq!(family.end().signal(), Some(libc::SIGINT));
    common::until(|| pids.split(' ').all(is_gone));
}

fn waits_for_an_event(_: &[String]) {
    lead();
    shmkit::process::end_on_interrupt(Duration::from_secs(3600)).unwrap();
    let never = Event::new().unwrap();
    common::say("ready");
    assert!(matches!(never.wait(), Err(Error::Sync(SyncError::Interrupted))));
    common::say("interrupted");
}

fn joins_a_child(_: &[String]) {
    lead();
    shmkit::process::end_on_interrupt(Duration::MAX).unwrap();
    let child = Process::new(wait_for_ever).args((Event::new().unwrap(),)).daemon(true).start().unwrap();
    common::say("ready");
    assert!(matches!(child.join(), Err(Error::Sync(SyncError::Interrupted))));
    common::say("interrupted");
}

#[test]
fn a_wait_for_an_object_or_for_a_child_is_left() {
    for role in ["waits_for_an_event", "joins_a_child"] {
        let mut child = start_with(role, &[], &[]);
        child.expect("ready");
        // To the process only, as `kill -INT` does: its child has no signal.
        child.signal(libc::SIGINT);
        child.expect("interrupted");
        assert_eq!(child.rest(), "", "{role}");
        child.succeeded();
    }
}

/// Its main thread waits for nothing that a signal could end.
fn computes(arguments: &[String]) {
    lead();
    shmkit::process::end_on_interrupt(Duration::from_millis(arguments[0].parse().unwrap())).unwrap();
    let never = Event::new().unwrap();
    let child = Process::new(wait_for_ever).args((never.clone(),)).start().unwrap();
    let daemon = Process::new(wait_for_ever).args((never.clone(),)).daemon(true).start().unwrap();
    common::say(&format!("{} {}", child.pid(), daemon.pid()));
    std::thread::spawn(move || {
        assert!(never.wait().is_err());
        common::say("heard");
    });
    loop {
        std::hint::spin_loop();
    }
}

#[test]
fn who_does_not_listen_is_ended_when_the_patience_is_over_or_at_the_second_signal() {
    for (patience, presses) in [("100", 1), ("3600000", 2)] {
        let mut computes = start_with("computes", &[patience], &[]);
        let pids = computes.hear();
        computes.signal(libc::SIGINT);
        computes.expect("heard");
        if presses == 2 {
            computes.signal(libc::SIGINT);
        }
        assert_eq!(computes.rest(), "");
        assert_eq!(computes.end().code(), Some(128 + libc::SIGINT));
        common::until(|| pids.split(' ').all(is_gone));
    }
}

/// Is at its end, and waits for a child that does not mind any signal but one.
fn has_a_stubborn_child(_: &[String]) {
    lead();
    shmkit::process::end_on_interrupt(Duration::from_millis(50)).unwrap();
    let stubborn = |begun: Event, never: Event| {
        // SAFETY: SIG_IGN is a valid disposition.
        unsafe {
            libc::signal(libc::SIGINT, libc::SIG_IGN);
            libc::signal(libc::SIGTERM, libc::SIG_IGN);
        }
        begun.set();
        wait_for_ever(never)
    };
    let (begun, never) = (Event::new().unwrap(), Event::new().unwrap());
    let child = Process::new(stubborn).args((begun.clone(), never)).start().unwrap();
    begun.wait().unwrap();
    common::say(&child.pid().to_string());
}

#[test]
fn an_end_that_waits_for_a_stubborn_child_comes_nevertheless() {
    let mut parent = start_with("has_a_stubborn_child", &[], &[]);
    let pid = parent.hear();
    press_ctrl_c(parent.pid());
    assert_eq!(parent.rest(), "");
    parent.end();
    common::until(|| is_gone(&pid));
}
