//! The fork server: what it loads may fail, it may die, and it leaves nobody behind.

mod common;

use shmkit::process::{StartMethod, set_forkserver_preload};
use shmkit::{Event, Process, Queue};
use std::collections::BTreeSet;

roles!(
    loads_what_panics,
    loads_what_leaves_a_thread,
    is_killed_with_its_server,
    has_its_server_killed,
    has_low_numbers_free
);

fn start(code: i32) -> shmkit::Result<Process> {
    Process::new(|code: i32| code).args((code,)).start_method(StartMethod::ForkServer).start()
}

fn code(code: i32) -> Option<i32> {
    start(code).unwrap().join().unwrap().exit_code()
}

/// Process ids of this process's children.
fn children() -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect()
}

/// Starts children while so many of the lowest descriptors are free, and those that the launcher keeps are above them.
fn has_low_numbers_free(arguments: &[String]) {
    let mut held: Vec<_> = (0..12).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    let event = Event::new().unwrap();
    let start = |method| {
        let child = Process::new(|event: Event| event.set()).args((event.clone(),)).start_method(method);
        child.start().unwrap().join().unwrap().check().unwrap();
        assert!(event.is_set());
        event.clear();
    };
    start(StartMethod::Spawn);
    held.drain(..arguments[0].parse::<usize>().unwrap());
    start(StartMethod::ForkServer);
    start(StartMethod::Spawn);
}

#[test]
fn descriptors_come_to_a_child_whatever_their_numbers() {
    for free in 0..8 {
        common::start("has_low_numbers_free", &[&free.to_string()]).succeeded();
    }
}

fn loads_what_panics(_: &[String]) {
    // SAFETY: both are open.
    unsafe { libc::dup2(1, 2) };
    set_forkserver_preload(|| panic!("the library is not there"));
    let error = start(3).unwrap_err().to_string();
    common::say(&error);
    set_forkserver_preload(|| ());
    assert_eq!(code(3), Some(3), "another server");
    common::say("goes on");
}

#[test]
fn a_preload_that_panics_is_an_error_of_start_that_says_so() {
    let mut child = common::start("loads_what_panics", &[]);
    let said =
        std::iter::repeat_with(|| child.hear()).take_while(|line| line != "goes on").collect::<Vec<_>>().join("\n");
    assert!(said.contains("the library is not there"), "{said}");
    let error = said.lines().last().unwrap();
    assert!(error.contains("fork server"), "{error}");
    child.succeeded();
}

fn loads_what_leaves_a_thread(_: &[String]) {
    set_forkserver_preload(|| {
        std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
    });
    common::say(&start(3).unwrap_err().to_string());
}

#[test]
fn a_preload_that_leaves_a_thread_running_is_an_error_of_start_that_says_so() {
    let mut child = common::start("loads_what_leaves_a_thread", &[]);
    let error = child.hear();
    assert!(error.contains("fork server") && error.contains("thread"), "{error}");
    child.succeeded();
}

fn is_killed_with_its_server(_: &[String]) {
    assert_eq!(code(4), Some(4));
    let server = children();
    assert_eq!(server.len(), 1, "{server:?}");
    common::say(&server[0].to_string());
    common::listen();
}

#[test]
fn the_server_dies_with_its_killed_parent() {
    let mut parent = common::start("is_killed_with_its_server", &[]);
    let server = parent.hear();
    parent.kill();
    common::until(|| {
        let stat = std::fs::read_to_string(format!("/proc/{server}/stat")).unwrap_or_default();
        stat.is_empty() || stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
    });
}

/// Its server is killed again and again while threads have it start children.
fn has_its_server_killed(_: &[String]) {
    let pids = Queue::<u32>::bounded(1000).unwrap();
    let tell = |pids: Queue<u32>| pids.put(std::process::id());
    let started: Vec<u32> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let pids = pids.clone();
                scope.spawn(move || {
                    let one = |_| {
                        let child = Process::new(tell).args((pids.clone(),)).start_method(StartMethod::ForkServer);
                        // Two servers that die one after the other, before they have made the copy, cost that start.
                        let child = child.start().ok()?;
                        let status = child.join().unwrap();
                        // A copy is called as the server for a moment, and may be hit in its place.
                        (status.signal() != Some(libc::SIGKILL)).then(|| {
                            status.check().unwrap();
                            child.pid()
                        })
                    };
                    (0..40).filter_map(one).collect::<Vec<u32>>()
                })
            })
            .collect();
        while !threads.iter().all(|thread| thread.is_finished()) {
            for pid in children() {
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                if name.trim_end() == "shmkit-forks" {
                    // SAFETY: kill has no preconditions.
                    unsafe { libc::kill(pid, libc::SIGKILL) };
                }
            }
            std::thread::yield_now();
        }
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(code(5), Some(5), "it is started again whenever it is wanted");
    let told: BTreeSet<u32> = (0..pids.len()).map(|_| pids.get().unwrap()).collect();
    assert!(started.iter().all(|pid| told.contains(pid)), "every child that was started has run");
    common::say(&format!("{} of 120", started.len()));
    common::until(|| children().len() == 1);
    common::say("no zombie");
    drop(pids);
    shmkit::session().unwrap().verify().unwrap();
    common::say("well");
}

#[test]
fn servers_that_are_killed_again_and_again_leave_nothing() {
    let mut child = common::start("has_its_server_killed", &[]);
    println!("{}", child.hear());
    child.expect("no zombie");
    child.expect("well");
    child.succeeded();
}

#[test]
fn children_of_a_server_go_on_when_it_is_killed() {
    let (gate, here) = (Event::new().unwrap(), Event::new().unwrap());
    let wait = |here: Event, gate: Event| -> shmkit::Result<i32> {
        here.set();
        gate.wait()?;
        Ok(6)
    };
    let arguments = (here.clone(), gate.clone());
    let child = Process::new(wait).args(arguments).start_method(StartMethod::ForkServer).start().unwrap();
    here.wait().unwrap();
    for pid in children() {
        if std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end() == "shmkit-forks" {
            // SAFETY: kill has no preconditions.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
    assert_eq!(code(7), Some(7));
    gate.set();
    assert_eq!(child.join().unwrap().exit_code(), Some(6));
}
