//! What becomes of the workers when the pool's process ends, however it does.

mod common;

use common::{start, start_with};
use shmkit::{Error, Event, Pool, Segment, SegmentError};

/// A pool whose workers are all busy; says their process ids, then ends as told.
fn owner(arguments: &[String]) {
    let pool = Pool::new(3).unwrap();
    let never = Event::new().unwrap();
    let stuck: Vec<_> =
        (0..3).map(|_| pool.apply_async(|never: Event| never.wait().unwrap(), (never.clone(),))).collect();
    let pids: Vec<String> = pool.worker_pids().iter().map(u32::to_string).collect();
    println!("{}", pids.join(" "));
    match arguments[0].as_str() {
        "exit" => std::process::exit(7),
        "panic" => panic!("on purpose"),
        "return" => {}
        _ => stuck.into_iter().for_each(|mut result| result.get().unwrap()),
    }
}

/// Its session has a name. Ends with a pool that is idle, or has a task, or from within a callback.
fn owner_in_a_named_session(arguments: &[String]) {
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.map(|x: u64| x + 1, 0..20).unwrap().len(), 20);
    let never = Event::new().unwrap();
    match arguments[0].as_str() {
        "idle" => std::process::exit(7),
        "busy" => {
            let _stuck = pool.apply_async(|never: Event| never.wait().unwrap(), (never.clone(),));
            std::process::exit(7)
        }
        _ => {
            pool.apply_async(|x: u64| x, (7,)).callback(|code| std::process::exit(*code as i32)).get().unwrap();
        }
    }
}

roles!(owner, owner_in_a_named_session);

/// Whether a process is there and no zombie.
fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn ends_with(how: &str, signal: Option<i32>) -> std::process::ExitStatus {
    let mut owner = start("owner", &[how]);
    let line = owner.hear();
    let workers: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(workers.len(), 3, "{line}");
    if let Some(signal) = signal {
        owner.signal(signal);
    }
    let status = owner.end();
    // The kernel kills them when their parent is gone.
    while workers.iter().any(|pid| is_running(pid)) {
        std::thread::yield_now();
    }
    status
}

#[test]
fn an_exit_with_a_live_pool_ends_the_workers() {
    assert_eq!(ends_with("exit", None).code(), Some(7));
}

#[test]
fn a_return_with_a_live_pool_ends_the_workers() {
    assert_eq!(ends_with("return", None).code(), Some(0));
}

#[test]
fn a_panic_with_a_live_pool_ends_the_workers() {
    assert!(!ends_with("panic", None).success());
}

#[test]
fn an_interrupt_of_the_owner_leaves_no_worker() {
    use std::os::unix::process::ExitStatusExt;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL] {
        assert_eq!(ends_with("wait", Some(signal)).signal(), Some(signal));
    }
}

#[test]
fn a_callback_may_end_the_process() {
    let name = common::unique("pool-ends");
    let mut owner = start_with("owner_in_a_named_session", &["callback"], &[("SHMKIT_SESSION", &name)]);
    let status = owner.end();
    // If the pool's own thread called it, the main thread was in the middle of waiting.
    let _ = Segment::unlink(&name);
    assert_eq!(status.code(), Some(7));
}

/// A session that has a name is unlinked by the last one who leaves it in order: a process that is killed, or ends in the middle
/// of something, leaves it behind.
#[test]
fn a_process_with_a_live_pool_leaves_its_segments_in_order() {
    for how in ["idle", "busy"] {
        let name = common::unique("pool-ends");
        let mut owner = start_with("owner_in_a_named_session", &[how], &[("SHMKIT_SESSION", &name)]);
        assert_eq!(owner.end().code(), Some(7), "{how}");
        let left = Segment::open(&name).map(drop);
        let _ = Segment::unlink(&name);
        assert!(matches!(left, Err(Error::Segment(SegmentError::NotFound { .. }))), "{how}: {left:?}");
    }
}
