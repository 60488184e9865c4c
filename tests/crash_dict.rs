//! A process killed at each step of dicts and of the arena below them: the rows of the crash tables of `data::dict` and
//! `data::arena`.
//!
//! A child runs a script of changes and dies at the n-th passage of a kill point. What the survivors find must be the dict after
//! the changes that had returned, or after one more; nothing may have leaked. Then a second child is killed in the middle of the
//! repair of the first.

mod common;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use shmkit::{Dict, Lock, Segment, failpoint};

roles!(runs_script, repairs, puts_numbers);

/// A value, perhaps with a handle in it.
#[derive(Serialize, Deserialize)]
struct Content(Vec<u8>, Option<Lock>);

type Model = IndexMap<u32, (Vec<u8>, bool)>;

#[derive(Debug, Clone, Copy)]
enum Change {
    Insert(u32, usize),
    /// With a handle.
    Handle(u32),
    Remove(u32),
    Update(u32),
    PopItem,
    Clear,
}

/// Elements that are there at first, and the changes.
fn script(scenario: &str) -> (u32, Vec<Change>) {
    use Change::*;
    match scenario {
        // A small dict that grows from nothing, with everything there is.
        "small" => {
            let mut changes = vec![Insert(1, 3), Insert(1, 40), Insert(2, 0), Remove(1), Insert(1, 9)];
            changes.extend([Handle(3), Handle(4), Handle(3), Insert(4, 8), Remove(3), Update(2), Update(99)]);
            changes.extend([Insert(5, 5000), Insert(5, 6000), Insert(6, 70_000), Remove(5), Update(6), PopItem]);
            changes.extend((10..22).map(|key| Insert(key, key as usize)));
            changes.extend([Handle(7), Clear, Insert(1, 1), Handle(2), Clear, Insert(8, 300)]);
            (0, changes)
        }
        // The last step of a table without pages to one with pages, at one go.
        "full" => (2728, (5000..5006).flat_map(|key| [Insert(key, 8), Remove(key - 5000), Insert(7, 3)]).collect()),
        // A large table, built beside the old one, with changes of both parts of it.
        "large" => {
            let change = |n: u32| match n % 4 {
                0 => Insert(10_000 + n, 4),
                1 => Insert(n * 31 % 4000, 5),
                2 => Remove(n * 17 % 4000),
                _ => Insert(20_000 + n, 4),
            };
            (4090, (0..300).map(change).collect())
        }
        other => panic!("unknown scenario {other}"),
    }
}

fn bytes(key: u32, len: usize) -> Vec<u8> {
    vec![key as u8; len]
}

fn apply(segment: &Segment, dict: &Dict<u32, Content>, change: Change) -> shmkit::Result<()> {
    match change {
        Change::Insert(key, len) => drop(dict.insert(&key, &Content(bytes(key, len), None))?),
        Change::Handle(key) => drop(dict.insert(&key, &Content(bytes(key, 2), Some(Lock::new_in(segment)?)))?),
        Change::Remove(key) => drop(dict.remove(&key)?),
        Change::Update(key) => dict.update(&key, |value| match value {
            Some(Content(bytes, _)) => bytes.push(7),
            None => *value = Some(Content(vec![1], None)),
        })?,
        Change::PopItem => drop(dict.pop_item()?),
        Change::Clear => dict.clear()?,
    }
    Ok(())
}

fn apply_to_model(model: &mut Model, change: Change) {
    match change {
        Change::Insert(key, len) => drop(model.insert(key, (bytes(key, len), false))),
        Change::Handle(key) => drop(model.insert(key, (bytes(key, 2), true))),
        Change::Remove(key) => drop(model.shift_remove(&key)),
        Change::Update(key) => match model.get_mut(&key) {
            Some((bytes, _)) => bytes.push(7),
            None => drop(model.insert(key, (vec![1], false))),
        },
        Change::PopItem => drop(model.pop()),
        Change::Clear => model.clear(),
    }
}

fn runs_script(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let dict = segment.dict::<u32, Content>("dict").open().unwrap();
    let done = segment.value::<u64>("done").open().unwrap();
    let (_, changes) = script(&arguments[1]);
    failpoint::arm(&arguments[2], arguments[3].parse().unwrap());
    for change in changes {
        apply(&segment, &dict, change).unwrap();
        done.fetch_add(1);
    }
}

/// Takes the lock of the dead one, and dies repairing.
fn repairs(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let dict = segment.dict::<u32, Content>("dict").open().unwrap();
    failpoint::arm(&arguments[1], arguments[2].parse().unwrap());
    segment.recover();
    // Without an element of that key this changes nothing.
    dict.remove(&u32::MAX).unwrap();
}

fn content(dict: &Dict<u32, Content>) -> Model {
    dict.items().unwrap().into_iter().map(|(key, Content(bytes, lock))| (key, (bytes, lock.is_some()))).collect()
}

/// True if the kill point was reached `nth` times.
fn kill(scenario: &str, point: &str, nth: u32, repair: Option<(&str, u32)>) -> bool {
    let what = || format!("{scenario}: killed at passage {nth} of {point}, repairer at {repair:?}");
    let segment = common::named("crash-dict");
    let (first, changes) = script(scenario);
    let dict = segment.dict::<u32, Content>("dict").create().unwrap();
    dict.merge((0..first).map(|key| (key, Content(bytes(key, 4), None)))).unwrap();
    let done = segment.value::<u64>("done").create().unwrap();
    let mut child = common::start("runs_script", &[&segment.name, scenario, point, &nth.to_string()]);
    if child.end().success() {
        return false;
    }
    let done = done.get().unwrap() as usize;
    let mut model: Model = (0..first).map(|key| (key, (bytes(key, 4), false))).collect();
    changes[..done].iter().for_each(|&change| apply_to_model(&mut model, change));
    let before = model.clone();
    apply_to_model(&mut model, changes[done]);
    // Readers do not wait for the repair.
    for key in [1, 2, 5, 6, 7, 100, 4089, 10_008] {
        let found = dict.get(&key).unwrap().map(|Content(bytes, lock)| (bytes, lock.is_some()));
        assert!(found.as_ref() == before.get(&key) || found.as_ref() == model.get(&key), "{}: key {key}", what());
    }
    if let Some((point, nth)) = repair {
        let mut repairer = common::start("repairs", &[&segment.name, point, &nth.to_string()]);
        let _ = repairer.end();
    }
    let found = content(&dict);
    let expected = if found == before { before } else { model };
    assert_eq!(found, expected, "{}", what());
    segment.verify().unwrap_or_else(|error| panic!("{}: {error}", what()));
    let locks = segment.objects().iter().filter(|object| object.kind == "lock").count();
    assert_eq!(locks, expected.values().filter(|(_, lock)| *lock).count(), "{}: objects leaked", what());
    // And it goes on.
    let mut model = expected;
    for change in script("small").1 {
        apply(&segment, &dict, change).unwrap();
        apply_to_model(&mut model, change);
    }
    assert_eq!(content(&dict), model, "{}", what());
    segment.verify().unwrap_or_else(|error| panic!("{}, then used: {error}", what()));
    true
}

const POINTS: &[&str] = &[
    "arena.locked",
    "arena.noted",
    "arena.popped",
    "arena.carved",
    "arena.taken",
    "arena.fresh",
    "arena.registered",
    "arena.committed",
    "arena.slab",
    "arena.list_held",
    "arena.list_named",
    "arena.list_committed",
    "arena.prepared",
    "arena.bundle",
    "node.filled",
    "node.handle",
    "anchor.page",
    "anchor.page_named",
    "anchor.block",
    "anchor.named",
    "anchor.released",
    "dict.undo",
    "dict.index",
    "arena.journal",
    "arena.ready",
    "arena.swung",
    "arena.length",
    "arena.unmade",
    "arena.pushing",
    "arena.pushed",
    "arena.large_held",
    "arena.large_unnamed",
    "arena.large_freed",
    "arena.freed",
    "arena.bundle_freed",
    "arena.forgotten",
    "arena.finished",
    "dict.used",
    "arena.reset",
    "arena.reset_unnamed",
    "dict.cleared",
    "arena.before_unlock",
    "arena.unlocked",
    "reference.cell",
    "reference.version",
    "object.live",
    "drop.cell",
    "destroy.dying",
];

const REPAIR_POINTS: &[&str] = &[
    "arena.recover_kept",
    "arena.recover_lock",
    "arena.slab_finished",
    "arena.undone",
    "arena.abandoned",
    "arena.unmade",
    "arena.pushing",
    "arena.pushed",
    "arena.freed",
    "arena.settled",
    "dict.repaired_next",
    "arena.repaired",
    "anchor.released",
    "recover.swept",
    "recover.before_generation",
];

#[test]
fn a_dict_whose_writer_is_killed_is_the_old_one_or_the_new_one() {
    for (index, point) in POINTS.iter().enumerate() {
        let mut reached = 0;
        let passages = if index % 2 == 0 { [1, 2, 5, 13, 34] } else { [1, 3, 8, 21, 55] };
        for nth in passages {
            let repair = REPAIR_POINTS[(index + reached) % REPAIR_POINTS.len()];
            if !kill("small", point, nth, (reached % 2 == 1).then_some((repair, 1))) {
                break;
            }
            reached += 1;
        }
        assert!(reached > 0, "the kill point {point} was not reached");
    }
}

#[test]
fn a_killed_repairer_is_repaired_too() {
    for (index, repair) in REPAIR_POINTS.iter().enumerate() {
        for (point, nth) in [
            ("arena.taken", 9),
            ("dict.index", 7),
            ("arena.swung", 12),
            ("anchor.named", 2),
            ("arena.registered", 4),
            ("arena.large_held", 1),
            ("dict.cleared", 1),
        ] {
            assert!(kill("small", point, nth, Some((repair, 1 + index as u32 % 2))), "{point}");
        }
    }
}

#[test]
fn a_table_is_replaced_at_one_go_or_not_at_all() {
    let points = [
        ("dict.next", &[1][..]),
        ("dict.page", &[1, 2]),
        ("dict.copied", &[1, 1000, 2728]),
        ("arena.swung", &[4, 5, 6, 7, 8]),
        ("dict.resized", &[1]),
        ("dict.next_done", &[1]),
        ("arena.bundle", &[1]),
        ("arena.bundle_freed", &[1]),
    ];
    for (point, passages) in points {
        for &nth in passages {
            assert!(kill("full", point, nth, None), "{point}");
            assert!(kill("full", point, nth, Some(("dict.repaired_next", 1))), "{point}");
        }
    }
}

#[test]
fn a_table_that_is_being_built_is_begun_again() {
    let points = [
        ("dict.next", &[1][..]),
        ("dict.page", &[1, 3]),
        ("dict.copied", &[1, 100, 2000]),
        ("dict.follow", &[1, 10]),
        ("arena.swung", &[3, 40, 200]),
        ("dict.resized", &[1]),
        ("dict.next_done", &[1]),
        ("arena.member_freed", &[1, 2]),
        ("arena.large_unnamed", &[1, 2, 3]),
    ];
    for (point, passages) in points {
        for &nth in passages {
            assert!(kill("large", point, nth, None), "{point}");
        }
    }
}

/// Puts numbers where numbers are, and dies at one of them.
fn puts_numbers(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let dict = segment.dict::<u64, u64>("numbers").open().unwrap();
    failpoint::arm(&arguments[1], arguments[2].parse().unwrap());
    for number in 1..10 {
        dict.insert(&7, &number).unwrap();
    }
}

#[test]
fn a_number_put_in_the_place_of_another_is_there_or_not() {
    for (point, is_put) in [("dict.in_place", false), ("dict.put_in_place", true), ("arena.before_unlock", true)] {
        for nth in [1, 4] {
            let segment = common::named("crash-numbers");
            let dict = segment.dict::<u64, u64>("numbers").create().unwrap();
            dict.insert(&7, &0).unwrap();
            let memory = dict.memory();
            assert!(!common::start("puts_numbers", &[&segment.name, point, &nth.to_string()]).end().success());
            let expected = if is_put { nth } else { nth - 1 };
            assert_eq!(dict.get(&7).unwrap(), Some(expected), "{point}, passage {nth}");
            assert!(!dict.insert(&7, &99).unwrap());
            assert_eq!((dict.get(&7).unwrap(), dict.len(), dict.memory()), (Some(99), 1, memory));
            segment.verify().unwrap();
        }
    }
}
