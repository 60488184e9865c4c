//! A process killed at each step of lists: the rows of the crash table of `data::list`.
//!
//! As `crash_dict`: a child runs a script of changes and dies at the n-th passage of a kill point; the survivors find the list
//! after the changes that had returned, or after one more.

mod common;

use serde::{Deserialize, Serialize};
use shmkit::{List, Lock, Segment, failpoint};

roles!(runs_script, repairs, appends_numbers);

#[derive(Serialize, Deserialize)]
struct Content(Vec<u8>, Option<Lock>);

type Model = Vec<(Vec<u8>, bool)>;

#[derive(Debug, Clone, Copy)]
enum Change {
    Push(usize),
    Handle(usize),
    Pop,
    Set(usize, usize),
    Insert(usize, usize),
    Remove(usize),
    /// From, to, how many instead.
    Splice(usize, usize, usize),
    Reverse,
    Sort,
    Clear,
}

fn script(scenario: &str) -> (usize, Vec<Change>) {
    use Change::*;
    match scenario {
        "small" => {
            let mut changes = vec![Push(1), Push(40), Set(0, 9), Insert(1, 3), Handle(0), Handle(2), Remove(1), Pop];
            changes.extend((0..10).map(Push));
            changes.extend([Push(5000), Set(3, 9000), Set(3, 1), Insert(0, 6000), Remove(0), Handle(1), Set(1, 2)]);
            changes.extend([Splice(1, 4, 6), Reverse, Sort, Splice(0, 3, 0), Handle(2), Splice(2, 3, 1), Pop, Pop]);
            changes.extend([Splice(0, 5, 0), Clear, Push(1), Push(2), Handle(1), Remove(0), Splice(0, 2, 0), Push(7)]);
            (0, changes)
        }
        // Around the ends of full chunks and of the directory.
        "large" => {
            let mut changes = vec![Push(1), Push(2), Push(3), Pop, Pop, Pop, Pop, Push(4), Insert(600, 5), Remove(600)];
            changes.extend([
                Insert(5, 6),
                Remove(2039),
                Remove(1),
                Splice(500, 520, 3),
                Reverse,
                Push(1),
                Insert(1, 1),
            ]);
            (2039, changes)
        }
        other => panic!("unknown scenario {other}"),
    }
}

fn bytes(len: usize) -> Vec<u8> {
    vec![len as u8; len]
}

fn apply(segment: &Segment, list: &List<Content>, change: Change) -> shmkit::Result<()> {
    let plain = |len| Content(bytes(len), None);
    match change {
        Change::Push(len) => list.push(&plain(len)),
        Change::Handle(at) => list.insert(at, &Content(vec![8], Some(Lock::new_in(segment)?))),
        Change::Pop => list.pop().map(drop),
        Change::Set(at, len) => list.set(at, &plain(len)),
        Change::Insert(at, len) => list.insert(at, &plain(len)),
        Change::Remove(at) => list.remove(at).map(drop),
        Change::Splice(from, to, count) => list.splice(from..to, (0..count).map(plain)),
        Change::Reverse => list.reverse(),
        Change::Sort => list.sort_by(|a, b| a.0.cmp(&b.0)),
        Change::Clear => list.clear(),
    }
}

fn apply_to_model(model: &mut Model, change: Change) {
    let plain = |len| (bytes(len), false);
    match change {
        Change::Push(len) => model.push(plain(len)),
        Change::Handle(at) => model.insert(at, (vec![8], true)),
        Change::Pop => drop(model.pop()),
        Change::Set(at, len) => model[at] = plain(len),
        Change::Insert(at, len) => model.insert(at, plain(len)),
        Change::Remove(at) => drop(model.remove(at)),
        Change::Splice(from, to, count) => drop(model.splice(from..to, (0..count).map(plain))),
        Change::Reverse => model.reverse(),
        Change::Sort => model.sort_by(|a, b| a.0.cmp(&b.0)),
        Change::Clear => model.clear(),
    }
}

fn runs_script(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let list = segment.list::<Content>("list").open().unwrap();
    let done = segment.value::<u64>("done").open().unwrap();
    let (_, changes) = script(&arguments[1]);
    failpoint::arm(&arguments[2], arguments[3].parse().unwrap());
    for change in changes {
        apply(&segment, &list, change).unwrap();
        done.fetch_add(1);
    }
}

/// Takes the lock of the dead one, and dies repairing.
fn repairs(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let list = segment.list::<Content>("list").open().unwrap();
    failpoint::arm(&arguments[1], arguments[2].parse().unwrap());
    segment.recover();
    // Takes the lock and changes nothing.
    assert!(list.set(usize::MAX, &Content(Vec::new(), None)).is_err());
}

fn content(list: &List<Content>) -> Model {
    list.to_vec().unwrap().into_iter().map(|Content(bytes, lock)| (bytes, lock.is_some())).collect()
}

/// True if the kill point was reached `nth` times.
fn kill(scenario: &str, point: &str, nth: u32, repair: Option<&str>) -> bool {
    let what = || format!("{scenario}: killed at passage {nth} of {point}, repairer at {repair:?}");
    let segment = common::named("crash-list");
    let (first, changes) = script(scenario);
    let list = segment.list::<Content>("list").create().unwrap();
    list.extend((0..first).map(|n| Content(vec![n as u8; 2], None))).unwrap();
    let done = segment.value::<u64>("done").create().unwrap();
    let mut child = common::start("runs_script", &[&segment.name, scenario, point, &nth.to_string()]);
    if child.end().success() {
        return false;
    }
    let done = done.get().unwrap() as usize;
    let mut model: Model = (0..first).map(|n| (vec![n as u8; 2], false)).collect();
    changes[..done].iter().for_each(|&change| apply_to_model(&mut model, change));
    let before = model.clone();
    apply_to_model(&mut model, changes[done]);
    // Readers do not wait for the repair.
    for index in [0, 1, 3, 509, 510, 2038, 2039] {
        let found = list.get(index).unwrap().map(|Content(bytes, lock)| (bytes, lock.is_some()));
        assert!(found.as_ref() == before.get(index) || found.as_ref() == model.get(index), "{}: at {index}", what());
    }
    if let Some(point) = repair {
        let _ = common::start("repairs", &[&segment.name, point, "1"]).end();
    }
    let found = content(&list);
    let expected = if found == before { before } else { model };
    assert_eq!(found, expected, "{}", what());
    segment.verify().unwrap_or_else(|error| panic!("{}: {error}", what()));
    let locks = segment.objects().iter().filter(|object| object.kind == "lock").count();
    assert_eq!(locks, expected.iter().filter(|(_, lock)| *lock).count(), "{}: objects leaked", what());
    // And it goes on.
    let mut model = expected;
    list.clear().unwrap();
    model.clear();
    for change in script("small").1 {
        apply(&segment, &list, change).unwrap();
        apply_to_model(&mut model, change);
    }
    assert_eq!(content(&list), model, "{}", what());
    segment.verify().unwrap_or_else(|error| panic!("{}, then used: {error}", what()));
    true
}

const POINTS: &[&str] = &[
    "arena.locked",
    "arena.noted",
    "arena.popped",
    "arena.carved",
    "arena.taken",
    "arena.registered",
    "arena.bundle",
    "node.filled",
    "node.handle",
    "anchor.named",
    "anchor.released",
    "list.begun",
    "list.larger",
    "list.copied",
    "list.garbage",
    "list.recorded",
    "list.rearranged",
    "list.cleared",
    "arena.journal",
    "arena.ready",
    "arena.swung",
    "arena.unmade",
    "arena.pushing",
    "arena.pushed",
    "arena.large_unnamed",
    "arena.freed",
    "arena.member_freed",
    "arena.bundle_freed",
    "arena.forgotten",
    "arena.finished",
    "arena.before_unlock",
];

const REPAIR_POINTS: &[&str] = &[
    "arena.undone",
    "arena.abandoned",
    "arena.member_freed",
    "arena.bundle_freed",
    "arena.pushing",
    "arena.pushed",
    "arena.freed",
    "arena.settled",
    "anchor.released",
    "recover.swept",
];

#[test]
fn a_list_whose_writer_is_killed_is_the_old_one_or_the_new_one() {
    for (index, point) in POINTS.iter().enumerate() {
        let mut reached = 0;
        let passages = if index % 2 == 0 { [1, 2, 5, 13, 34] } else { [1, 3, 8, 21, 55] };
        for nth in passages {
            let repair = REPAIR_POINTS[(index + reached) % REPAIR_POINTS.len()];
            if !kill("small", point, nth, (reached % 2 == 1).then_some(repair)) {
                break;
            }
            reached += 1;
        }
        assert!(reached > 0, "the kill point {point} was not reached");
    }
}

#[test]
fn a_killed_repairer_is_repaired_too() {
    for repair in REPAIR_POINTS {
        for (point, nth) in [
            ("list.recorded", 1),
            ("list.garbage", 2),
            ("list.rearranged", 1),
            ("list.rearranged", 4),
            ("arena.member_freed", 2),
            ("list.copied", 3),
            ("list.cleared", 1),
        ] {
            assert!(kill("small", point, nth, Some(repair)), "{point}");
        }
    }
}

#[test]
fn chunks_and_directories_are_replaced_as_a_whole() {
    let points = [
        ("list.chunk", &[1][..]),
        ("list.directory", &[1, 2, 3, 4]),
        ("list.copied", &[1, 2, 3, 4, 5]),
        ("list.tidied", &[1]),
        ("arena.swung", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]),
        ("arena.pushed", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ("list.rearranged", &[1, 2]),
        ("arena.member_freed", &[1, 3, 5]),
    ];
    for (point, passages) in points {
        for &nth in passages {
            assert!(kill("large", point, nth, None), "{point} {nth}");
        }
    }
}

// ---- elements that lie in their slots -----------------------------------------------------------------------------------------

/// Appends numbers, and at times does something else, so that the place of the next one is forgotten.
fn append(list: &List<u64>, n: u64) -> shmkit::Result<()> {
    match n % 10 {
        7 => list.pop().map(drop),
        8 => list.remove(0).map(drop),
        9 => list.insert(0, &n),
        _ => list.push(&n),
    }
}

fn append_to_model(model: &mut Vec<u64>, n: u64) {
    match n % 10 {
        7 => drop(model.pop()),
        8 => drop(model.remove(0)),
        9 => model.insert(0, n),
        _ => model.push(n),
    }
}

fn appends_numbers(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let list = segment.list::<u64>("list").open().unwrap();
    let done = segment.value::<u64>("done").open().unwrap();
    failpoint::arm(&arguments[1], arguments[2].parse().unwrap());
    for n in 0..40 {
        append(&list, n).unwrap();
        done.fetch_add(1);
    }
}

#[test]
fn a_number_is_appended_at_once_or_not_at_all() {
    let points = [
        "arena.locked",
        "arena.journal",
        "arena.ready",
        "arena.swung",
        "arena.length",
        "arena.finished",
        "arena.before_unlock",
        "arena.unlocked",
    ];
    for point in points {
        for nth in [1, 2, 3, 8, 12, 13, 30] {
            let what = || format!("killed at passage {nth} of {point}");
            let segment = common::named("crash-append");
            let list = segment.list::<u64>("list").create().unwrap();
            let done = segment.value::<u64>("done").create().unwrap();
            common::start("appends_numbers", &[&segment.name, point, &nth.to_string()]).was_killed();
            let done = done.get().unwrap();
            let mut model = Vec::new();
            (0..done).for_each(|n| append_to_model(&mut model, n));
            let before = model.clone();
            append_to_model(&mut model, done);
            // The next writer repairs.
            list.push(&1000).unwrap();
            let mut found = list.to_vec().unwrap();
            assert_eq!(found.pop(), Some(1000), "{}", what());
            assert!(found == before || found == model, "{}: {found:?}", what());
            segment.verify().unwrap_or_else(|error| panic!("{}: {error}", what()));
            found.push(1000);
            for n in 0..40 {
                append(&list, n).unwrap();
                append_to_model(&mut found, n);
            }
            assert_eq!(list.to_vec().unwrap(), found, "{}", what());
            segment.verify().unwrap_or_else(|error| panic!("{}, then used: {error}", what()));
        }
    }
}
