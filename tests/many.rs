//! Many processes: however many come and go, no descriptor, zombie, mapping, object or segment is left.

mod common;

use shmkit::process::{StartMethod, all_start_methods};
use shmkit::{Event, Process, Value, active_children, session};
use std::fs::read_dir;

roles!(runs_many, has_many_objects);

/// How many processes are alive at once.
const AT_ONCE: usize = 25;

/// What this process has that could leak.
#[derive(Debug)]
struct Belongings {
    descriptors: usize,
    mappings: usize,
    objects: usize,
    /// Bytes of the session's heap in use.
    memory: u64,
    participants: Vec<u32>,
}

impl Belongings {
    /// When nothing is opened or closed at the moment: the thread that watches the children has some for an instant.
    fn look() -> Belongings {
        let count = || read_dir("/proc/self/fd").unwrap().count();
        let descriptors = (0..200).map(|_| count()).min().unwrap();
        let mappings = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
        let session = session().unwrap();
        let (objects, memory) = (session.objects().len(), session.memory().unwrap().0);
        Belongings { descriptors, mappings, objects, memory, participants: session.participants() }
    }
}

/// Children of any of this process's threads, and whether they are zombies.
fn children() -> Vec<(u32, bool)> {
    let lists = read_dir("/proc/self/task").unwrap().flatten();
    let lists = lists.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let pids: Vec<u32> =
        lists.flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect();
    let is_zombie = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
    };
    pids.into_iter().map(|pid| (pid, is_zombie(pid))).collect()
}

/// The number's share of the sum; every tenth waits to be killed, every seventh ends with a code of its own.
fn short(number: u64, sum: Value<u64>, never: Event) -> Result<i32, String> {
    if number.is_multiple_of(10) {
        never.wait().map_err(|error| error.to_string())?;
    }
    sum.fetch_add(number);
    Ok(if number.is_multiple_of(7) { 7 } else { 0 })
}

/// Runs so many processes, some at once, of all start methods; then has what it had after the first few.
fn runs_many(arguments: &[String]) {
    let many: u64 = arguments[0].parse().unwrap();
    let (sum, never) = (Value::new(0u64).unwrap(), Event::new().unwrap());
    let run = |numbers: std::ops::Range<u64>| {
        let start = |number: u64| {
            let method = all_start_methods()[number as usize % 2];
            let child = Process::new(short).args((number, sum.clone(), never.clone())).start_method(method);
            (number, child.start().unwrap())
        };
        let mut program = Process::command("true").start().unwrap();
        for (number, mut child) in numbers.map(start).collect::<Vec<_>>() {
            let expected = match number {
                _ if number.is_multiple_of(10) => {
                    child.kill().unwrap();
                    -libc::SIGKILL
                }
                _ if number.is_multiple_of(7) => 7,
                _ => 0,
            };
            assert_eq!(child.join().unwrap().exit_code(), Some(expected), "{number}");
            child.close().unwrap();
        }
        program.join().unwrap().check().unwrap();
        program.close().unwrap();
    };
    // The fork server is there from the first of its children on; an object with many holders has memory for their references.
    assert_eq!(all_start_methods()[1], StartMethod::ForkServer);
    let mut next = 1 + 2 * AT_ONCE as u64;
    run(1..next);
    let server = children();
    assert_eq!(server.len(), 1, "the fork server");
    let before = Belongings::look();
    while next < many {
        let end = many.min(next + AT_ONCE as u64);
        run(next..end);
        next = end;
    }
    // The last child's descriptor may be there for a moment longer.
    let has_less = |after: &Belongings| after.descriptors <= before.descriptors;
    let after = (0..1000).map(|_| Belongings::look()).find(has_less).unwrap_or_else(Belongings::look);
    // The allocator may have mapped something.
    assert!(after.descriptors <= before.descriptors && after.mappings < before.mappings + 10, "{before:?}, {after:?}");
    assert_eq!((after.objects, after.memory, after.participants), (before.objects, before.memory, before.participants));
    assert_eq!(children(), server, "no zombie, and the same server");
    assert!(active_children().is_empty());
    assert_eq!(sum.load(), (1..many).filter(|number| !number.is_multiple_of(10)).sum());
    session().unwrap().verify().unwrap();
    common::say("nothing is left");
}

/// Makes a thousand objects of several kinds.
fn has_many_objects(_: &[String]) {
    let first = (shmkit::Lock::new().unwrap(), Event::new().unwrap());
    let before = Belongings::look();
    let objects: Vec<_> = (0..250)
        .map(|_| {
            let queue = shmkit::Queue::<u8>::bounded(1).unwrap();
            (shmkit::Lock::new().unwrap(), Event::new().unwrap(), Value::new(0u64).unwrap(), queue)
        })
        .collect();
    let after = Belongings::look();
    assert_eq!(after.objects, before.objects + 4 * objects.len());
    assert_eq!(after.descriptors, before.descriptors);
    drop((objects, first));
    assert_eq!(Belongings::look().objects, before.objects - 2);
    common::say("no descriptor");
}

#[test]
fn a_thousand_objects_have_no_descriptor_of_their_own() {
    let mut child = common::start("has_many_objects", &[]);
    child.expect("no descriptor");
    child.succeeded();
}

fn run(many: &str) {
    let name = common::unique("many");
    let mut child = common::start_with("runs_many", &[many], &[("SHMKIT_SESSION", &name)]);
    child.expect("nothing is left");
    child.succeeded();
    let left = read_dir("/dev/shm").unwrap().flatten().any(|entry| entry.file_name().to_string_lossy().contains(&name));
    assert!(!left, "a segment is left");
}

#[test]
fn a_thousand_short_processes_leave_nothing() {
    run("1000");
}

#[test]
#[ignore = "takes half a minute: `cargo test --test many -- --ignored`"]
fn ten_thousand_short_processes_leave_nothing() {
    run("10000");
}
