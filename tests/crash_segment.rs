//! A process killed at each step of attaching, building, holding, dropping, recovering: the rows of the crash tables of
//! `segment`. After each death the others go on, the segment is sound, and no memory has leaked.

mod common;

use shmkit::segment::{gc, list};
use shmkit::{Array, LifePolicy, Mutex, Segment, Semaphore, SharedMemory, failpoint};

roles!(creates, makes_bytes, operates, holds, dies_with_much, recovers, collects);

/// Attaches to a segment whose name goes with the last participant.
const LAST: &str = "attach, the last one unlinks";

fn arm(arguments: &[String]) {
    failpoint::arm(&arguments[1], arguments[2].parse().unwrap());
}

/// Creates the segment.
fn creates(arguments: &[String]) {
    arm(arguments);
    let _segment = Segment::builder().policy(LifePolicy::OnLastDetach).create(&arguments[0]).unwrap();
}

/// Creates named bytes.
fn makes_bytes(arguments: &[String]) {
    arm(arguments);
    SharedMemory::create(Some(&arguments[0]), 1000).unwrap().unlink().unwrap();
}

/// Does one thing in a segment.
fn operates(arguments: &[String]) {
    let attaches = ["attach", LAST].contains(&arguments[3].as_str());
    if attaches {
        arm(arguments);
    }
    let segment = Segment::open(&arguments[0]).unwrap();
    match arguments[3].as_str() {
        _ if attaches => {}
        "detach" => {
            arm(arguments);
            drop(segment);
        }
        "create object" => {
            arm(arguments);
            segment.mutex::<[u64; 1000]>("thing").create().unwrap();
        }
        "drop object" => {
            let permits = Semaphore::new_in(&segment, 1).unwrap();
            arm(arguments);
            drop(permits);
        }
        "open object" => {
            arm(arguments);
            segment.semaphore("shared").open().unwrap();
        }
        "remove object" => {
            arm(arguments);
            segment.remove("shared").unwrap();
        }
        "reuse memory" => {
            // Two neighbours are freed and joined, the result is split again.
            let keep: Vec<_> = (0..3).map(|_| Mutex::new_in(&segment, [0u64; 100]).unwrap()).collect();
            drop(keep);
            let filled: Vec<_> = (0..40).map(|_| Mutex::new_in(&segment, [0u64; 1]).unwrap()).collect();
            arm(arguments);
            drop(filled);
            let _big = Mutex::new_in(&segment, [0u64; 1000]).unwrap();
        }
        "trim" => {
            drop(Array::<u8>::new_in(&segment, 1 << 20).unwrap());
            let kept = Semaphore::new_in(&segment, 1).unwrap();
            drop(Array::<u8>::new_in(&segment, 4 << 20).unwrap());
            arm(arguments);
            segment.trim().unwrap();
            drop(kept);
            // In pages that have no memory.
            let _big = Array::<u8>::new_in(&segment, 1 << 20).unwrap();
        }
        other => panic!("unknown operation {other}"),
    }
}

fn holds(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let _permits = segment.semaphore("shared").open().unwrap();
    common::say("held");
    common::listen();
}

/// Waits until the kernel has let go of a child that has ended: this process is the only one in the segment, if it is in it.
fn settle(name: &str) {
    let alone = |pids: &[u32]| {
        pids.iter().all(|&pid| pid == std::process::id() || std::path::Path::new(&format!("/proc/{pid}")).exists())
    };
    common::until(|| list().unwrap().iter().all(|info| info.name != name || alone(&info.participants)));
}

/// Kills a child at the `nth` passage of a kill point, for 1, 2, …, until it is not reached any more; gives how often.
fn kill_at_every(role: &str, point: &str, arguments: &[&str], mut after: impl FnMut(u32)) -> u32 {
    for nth in 1.. {
        let number = nth.to_string();
        let mut all = vec![arguments[0], point, &number];
        all.extend(&arguments[1..]);
        let status = common::start(role, &all).end();
        settle(arguments[0]);
        after(nth);
        if status.success() {
            return nth - 1;
        }
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{role} {point} {nth}");
    }
    unreachable!("the number of passages is finite")
}

#[test]
fn killed_while_creating_a_segment() {
    for point in ["create.sized", "create.built", "create.linked"] {
        let name = common::unique("crash-create");
        let killed = kill_at_every("creates", point, &[&name], |_| {
            gc().unwrap();
            assert!(!std::path::Path::new(&format!("/dev/shm/shmkit.{name}")).exists(), "{point}");
        });
        assert_eq!(killed, 1, "{point}");
    }
}

#[test]
fn bytes_whose_creator_was_killed_on_the_way_can_be_created_again() {
    for point in ["create.built", "object.before_live", "object.committed", "create.filled"] {
        let name = common::unique("crash-bytes");
        let killed = kill_at_every("makes_bytes", point, &[&name], |_| {
            assert!(!std::path::Path::new(&format!("/dev/shm/shmkit.{name}")).exists(), "{point}");
            let again = SharedMemory::create(Some(&name), 1000).unwrap();
            assert!(SharedMemory::create(Some(&name), 1000).is_err(), "{point}");
            again.unlink().unwrap();
        });
        assert_eq!(killed, 1, "{point}");
        let _ = Segment::unlink(&name);
    }
}

/// Kills a child at every passage of the points in the middle of an operation. The segment is sound afterwards, has the
/// memory it had before, and the operation can be done by somebody else.
fn killed_at(operation: &str, points: &[&str]) {
    for point in points {
        let policy = if operation == LAST { LifePolicy::OnLastDetach } else { LifePolicy::Manual };
        let segment = common::named_with("crash-op", policy);
        let shared = segment.semaphore("shared").initial(2).create().unwrap();
        // What grows on the way is there before: the rest must be given back.
        let mut once = common::start("operates", &[&segment.name, "never", "1", operation]);
        once.succeeded();
        segment.remove("thing").unwrap();
        if operation == "remove object" {
            segment.semaphore("shared").initial(2).open_or_create().unwrap();
        }
        let (before, _) = segment.memory().unwrap();
        let killed = kill_at_every("operates", point, &[&segment.name, operation], |nth| {
            segment.verify().unwrap_or_else(|error| panic!("{operation} killed at {point} {nth}: {error}"));
            segment.remove("thing").unwrap();
            segment.semaphore("shared").initial(2).open_or_create().unwrap();
            // What is given out now lies in nobody else's memory: from where the dead one left off, and from the start.
            let more: Vec<_> = (0..20).map(|n| Mutex::new_in(&segment, [n; 4]).unwrap()).collect();
            let large = Mutex::new_in(&segment, [0u64; 1000]).unwrap();
            segment.verify().unwrap_or_else(|error| panic!("after {operation} killed at {point} {nth}: {error}"));
            assert!((0..).zip(&more).all(|(n, one)| *one.lock().unwrap() == [n; 4]));
            drop((more, large));
            let (after, _) = segment.memory().unwrap();
            // A name that was taken away leaves the object with its holder: this test, which holds two then.
            let removed = operation == "remove object";
            assert!(after == before || removed, "{operation} killed at {point} {nth}: {before} → {after} bytes");
            assert_eq!(segment.participants(), [std::process::id()], "{operation} killed at {point} {nth}");
        });
        assert!(killed > 0, "{operation} never passes {point}");
        assert_eq!(shared.value(), 2);
    }
}

#[test]
fn killed_while_attaching() {
    killed_at(
        "attach",
        &["attach.before_slot_lock", "attach.slot_locked", "attach.generation", "attach.active", "open.joined"],
    );
    killed_at(
        LAST,
        &[
            "open.life",
            "attach.before_slot_lock",
            "attach.slot_locked",
            "attach.generation",
            "attach.active",
            "open.joined",
        ],
    );
}

#[test]
fn killed_while_detaching() {
    killed_at(
        "detach",
        &[
            "detach.before_recovery",
            "recover.started",
            "recover.locks",
            "recover.before_generation",
            "recover.generation",
            "recover.counted",
            "recover.before_free",
            "detach.recovered",
        ],
    );
}

#[test]
fn killed_while_creating_an_object() {
    killed_at(
        "create object",
        &[
            "object.entry_found",
            "object.claimed",
            "heap.split",
            "heap.held",
            "heap.hinted",
            "object.allocated",
            "object.built",
            "object.before_live",
            "object.live",
            "object.committed",
        ],
    );
}

#[test]
fn killed_while_opening_an_object() {
    killed_at("open object", &["reference.cell", "reference.version", "drop.before_cell", "drop.cell"]);
}

#[test]
fn killed_while_dropping_an_object() {
    killed_at("drop object", &["drop.before_cell", "drop.cell", "destroy.dying", "destroy.contents", "destroy.freed"]);
}

#[test]
fn killed_while_removing_a_name() {
    killed_at("remove object", &["remove.name"]);
}

#[test]
fn killed_while_joining_free_memory() {
    killed_at("reuse memory", &["heap.joined", "heap.split", "heap.held", "heap.hinted"]);
}

#[test]
fn killed_while_trimming() {
    killed_at("trim", &["heap.trimming", "heap.trimmed"]);
}

#[test]
fn killed_while_growing_the_heap() {
    for point in ["heap.backed", "heap.grown"] {
        let segment = common::named("crash-grow");
        let killed = kill_at_every("operates", point, &[&segment.name, "create object"], |nth| {
            segment.verify().unwrap_or_else(|error| panic!("{point} {nth}: {error}"));
            segment.remove("thing").unwrap();
            assert_eq!(segment.memory().unwrap().0, 0, "{point} {nth}");
        });
        assert!(killed > 0, "{point}");
    }
}

/// A segment with an object whose references need a chunk: the name, this process and children fill the entry's own cells.
fn crowded() -> (common::Named, Semaphore, Vec<common::Child>) {
    let segment = common::named("crash-chunk");
    let shared = segment.semaphore("shared").initial(2).create().unwrap();
    let mut holders: Vec<_> = (0..2).map(|_| common::start("holds", &[&segment.name])).collect();
    for holder in &mut holders {
        holder.expect("held");
    }
    (segment, shared, holders)
}

#[test]
fn killed_while_adding_a_chunk_of_references() {
    let (segment, shared, mut holders) = crowded();
    let killed = kill_at_every("operates", "reference.chunk", &[&segment.name, "open object"], |nth| {
        segment.verify().unwrap_or_else(|error| panic!("reference.chunk {nth}: {error}"));
    });
    assert_eq!(killed, 1);
    for holder in &mut holders {
        holder.kill();
    }
    common::until(|| segment.participants() == [std::process::id()]);
    segment.remove("shared").unwrap();
    drop(shared);
    segment.verify().unwrap();
    assert_eq!(segment.memory().unwrap().0, 0);
}

#[test]
fn killed_while_destroying_chunks_of_references() {
    for point in ["destroy.chunk_held", "destroy.chunk_cut"] {
        let (segment, shared, mut holders) = crowded();
        common::start("operates", &[&segment.name, "never", "1", "open object"]).succeeded();
        for holder in &mut holders {
            holder.kill();
        }
        common::until(|| segment.participants() == [std::process::id()]);
        segment.recover();
        drop(shared);
        // Only its name keeps it alive now: whoever removes that destroys it.
        common::start("operates", &[&segment.name, point, "1", "remove object"]).was_killed();
        segment.verify().unwrap_or_else(|error| panic!("{point}: {error}"));
        assert_eq!(segment.memory().unwrap().0, 0, "{point}");
    }
}

/// Leaves everything that recovery knows: a held mutex, unnamed objects, a half-built one.
fn dies_with_much(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let mutex = segment.mutex::<u64>("counter").open().unwrap();
    let _mine = Semaphore::new_in(&segment, 1).unwrap();
    let mut guard = mutex.lock().unwrap();
    *guard += 1;
    failpoint::arm("object.built", 1);
    let _half = Semaphore::new_in(&segment, 1);
}

/// Recovers, and dies on the way.
fn recovers(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    arm(arguments);
    segment.recover();
}

#[test]
fn killed_while_recovering() {
    for point in [
        "recover.started",
        "recover.locks",
        "recover.committed",
        "recover.object",
        "recover.build",
        "recover.swept",
        "recover.before_generation",
        "recover.generation",
        "recover.counted",
        "destroy.dying",
        "destroy.contents",
        "destroy.freed",
        "recover.before_free",
    ] {
        for nth in 1.. {
            let segment = common::named("crash-recover");
            let mutex = segment.mutex::<u64>("counter").create().unwrap();
            let (before, _) = segment.memory().unwrap();
            common::start("dies_with_much", &[&segment.name]).was_killed();
            let reached = !common::start("recovers", &[&segment.name, point, &nth.to_string()]).end().success();
            match mutex.lock() {
                Err(dead) => assert_eq!(*dead.repair(|_| ()).unwrap(), 1, "{point} {nth}"),
                Ok(_) => panic!("{point} {nth}: nobody said that the owner died"),
            }
            segment.verify().unwrap_or_else(|error| panic!("recovery killed at {point} {nth}: {error}"));
            assert_eq!(segment.memory().unwrap().0, before, "{point} {nth}");
            assert_eq!(segment.participants(), [std::process::id()]);
            if !reached {
                assert!(nth > 1, "recovery never passes {point}");
                break;
            }
        }
    }
}

fn collects(arguments: &[String]) {
    arm(arguments);
    gc().unwrap();
}

#[test]
fn killed_while_collecting_names() {
    for point in ["gc.life", "gc.unlinked"] {
        let name = common::unique("crash-gc");
        common::start("creates", &[&name, "create.linked", "1"]).was_killed();
        // Other tests may collect it first: then the kill point is not reached, and the name is gone all the same.
        let _ = common::start("collects", &["", point, "1"]).end();
        gc().unwrap();
        assert!(!std::path::Path::new(&format!("/dev/shm/shmkit.{name}")).exists(), "{point}");
    }
}
