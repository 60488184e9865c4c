//! A process killed at each step of changes of a heap: the rows of the crash table of `data::heap`.
//!
//! As `crash_dict`: a child runs a script of changes and dies at the n-th passage of a kill point; the survivors find the structure
//! after the changes that had returned, or after one more.

mod common;
#[path = "common/sorted.rs"]
mod sorted;

use shmkit::heap::{Heap, Ptr};
use shmkit::{Segment, failpoint};
use sorted::{Pair, all, double, insert, remove};
use std::collections::BTreeMap;

roles!(runs_script, repairs);

type Model = (BTreeMap<u64, u64>, u64);

#[derive(Debug, Clone, Copy)]
enum Change {
    Insert(u64, u64),
    Remove(u64),
    Double,
    /// A large box in another root.
    Replace(u64),
}

fn script() -> Vec<Change> {
    use Change::*;
    let mut changes = vec![Insert(5, 1), Insert(3, 2), Insert(9, 3), Insert(5, 4), Remove(3), Remove(4), Replace(1)];
    changes.extend([Double, Insert(1, 5), Insert(2, 6), Insert(3, 7), Insert(4, 8), Double, Replace(2), Remove(1)]);
    changes.extend((10..20).map(|key| Insert(key, key)));
    changes.extend([Double, Remove(12), Remove(19), Double, Replace(3), Insert(6, 6)]);
    changes
}

fn replace(heap: &Heap, n: u64) -> shmkit::Result<()> {
    let root = heap.root::<[u64; 1000]>(1)?;
    heap.change(|change| {
        let new = change.new_box(&[n; 1000], &[Ptr::<u8>::NULL; 0])?;
        change.retire(root.ptr())?;
        change.swing(root, new)
    })
}

fn apply(heap: &Heap, change: Change) -> shmkit::Result<()> {
    match change {
        Change::Insert(key, value) => insert(heap, key, value).map(drop),
        Change::Remove(key) => remove(heap, key).map(drop),
        Change::Double => double(heap),
        Change::Replace(n) => replace(heap, n),
    }
}

fn apply_to_model((pairs, large): &mut Model, change: Change) {
    match change {
        Change::Insert(key, value) => drop(pairs.insert(key, value)),
        Change::Remove(key) => drop(pairs.remove(&key)),
        Change::Double => pairs.values_mut().for_each(|value| *value *= 2),
        Change::Replace(n) => *large = n,
    }
}

fn content(heap: &Heap) -> Model {
    let root = heap.root::<[u64; 1000]>(1).unwrap();
    let large = heap.read(|reader| Ok(reader.follow(root)?.map_or([0; 1000], |found| found.value()))).unwrap();
    assert!(large.iter().all(|&n| n == large[0]), "torn");
    (all(heap).into_iter().collect(), large[0])
}

fn runs_script(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let heap = segment.heap("heap").open().unwrap();
    let done = segment.value::<u64>("done").open().unwrap();
    failpoint::arm(&arguments[1], arguments[2].parse().unwrap());
    for change in script() {
        apply(&heap, change).unwrap();
        done.fetch_add(1);
    }
}

/// Takes the lock of the dead one, and dies repairing.
fn repairs(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let heap = segment.heap("heap").open().unwrap();
    failpoint::arm(&arguments[1], arguments[2].parse().unwrap());
    segment.recover();
    heap.change(|_| Ok(())).unwrap();
}

/// True if the kill point was reached `nth` times.
fn kill(point: &str, nth: u32, repair: Option<&str>) -> bool {
    let what = || format!("killed at passage {nth} of {point}, repairer at {repair:?}");
    let segment = common::named("crash-heap");
    let heap = segment.heap("heap").create().unwrap();
    let done = segment.value::<u64>("done").create().unwrap();
    let mut child = common::start("runs_script", &[&segment.name, point, &nth.to_string()]);
    if child.end().success() {
        return false;
    }
    let done = done.get().unwrap() as usize;
    let mut model = Model::default();
    script()[..done].iter().for_each(|&change| apply_to_model(&mut model, change));
    let before = model.clone();
    apply_to_model(&mut model, script()[done]);
    // Readers do not wait for the repair.
    let found = content(&heap);
    assert!(found == before || found == model, "{}: {found:?}", what());
    if let Some(point) = repair {
        let _ = common::start("repairs", &[&segment.name, point, "1"]).end();
    }
    assert_eq!(content(&heap), found, "{}", what());
    // The lock's next owner repairs.
    heap.change(|_| Ok(())).unwrap();
    assert_eq!(content(&heap), found, "{}", what());
    segment.verify().unwrap_or_else(|error| panic!("{}: {error}", what()));
    // And it goes on.
    let mut model = found;
    for change in script() {
        apply(&heap, change).unwrap();
        apply_to_model(&mut model, change);
    }
    assert_eq!(content(&heap), model, "{}", what());
    segment.verify().unwrap_or_else(|error| panic!("{}, then used: {error}", what()));
    true
}

const POINTS: &[&str] = &[
    "arena.locked",
    "arena.noted",
    "arena.popped",
    "arena.carved",
    "arena.taken",
    "arena.bundle",
    "heap.boxed",
    "heap.retired",
    "arena.journal",
    "arena.ready",
    "arena.swung",
    "arena.length",
    "arena.unmade",
    "arena.pushing",
    "arena.pushed",
    "arena.large_held",
    "arena.large_unnamed",
    "arena.freed",
    "arena.member_freed",
    "arena.bundle_freed",
    "arena.forgotten",
    "arena.finished",
    "arena.before_unlock",
    "arena.unlocked",
];

const REPAIR_POINTS: &[&str] = &[
    "arena.recover_kept",
    "arena.recover_lock",
    "arena.untaken",
    "arena.undone",
    "arena.abandoned",
    "arena.member_freed",
    "arena.pushing",
    "arena.freed",
    "arena.settled",
    "arena.repaired",
];

#[test]
fn a_heap_whose_changer_is_killed_is_the_old_one_or_the_new_one() {
    for (index, point) in POINTS.iter().enumerate() {
        let mut reached = 0;
        for nth in [1, 2, 3, 5, 8, 13, 21, 34] {
            let repair = REPAIR_POINTS[(index + reached) % REPAIR_POINTS.len()];
            if !kill(point, nth, (reached % 2 == 1).then_some(repair)) {
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
        for (point, nth) in [("heap.boxed", 7), ("heap.retired", 8), ("arena.swung", 8), ("arena.member_freed", 2)] {
            assert!(kill(point, nth, Some(repair)), "{point}");
        }
    }
}

#[test]
fn what_was_swung_before_the_death_stays() {
    let segment = common::named("crash-heap-two");
    let heap = segment.heap("heap").create().unwrap();
    // The second swing of one change: the first is there.
    insert(&heap, 1, 1).unwrap();
    insert(&heap, 2, 2).unwrap();
    let root = heap.root::<Pair>(0).unwrap();
    heap.change(|change| {
        let first = change.follow(root)?.expect("inserted");
        let second = first.link::<Pair>(0).expect("made with one link");
        let new = change.new_box(&[3, 3], &[Ptr::<Pair>::NULL])?;
        change.retire(second.ptr())?;
        change.swing(second, new)?;
        change.retire(first.ptr())?;
        change.swing(root, new)
    })
    .unwrap();
    assert_eq!(all(&heap), [(3, 3)]);
    segment.verify().unwrap();
}
