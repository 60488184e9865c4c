//! What becomes of the workers when the pool's process ends, however it does.

mod common;

use common::start;
use shmkit::{Event, Pool};

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

roles!(owner);

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
