//! A process killed at each step of values and arrays: the rows of the crash tables of `data`.

mod common;

use shmkit::{LockError, Scalar, Segment, ShareableList, failpoint};

roles!(writes_value, writes_array, makes_shareable_list);

const OLD: [u64; 4] = [1; 4];
const NEW: [u64; 4] = [2; 4];

/// Changes the small and the large value in one way, and dies at the kill point.
fn writes_value(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let (small, large) = (segment.value::<u32>("small").open().unwrap(), segment.value("large").open().unwrap());
    failpoint::arm(&arguments[1], 1);
    match arguments[2].as_str() {
        "small set" => small.set(2).unwrap(),
        "small guard" => *small.lock().unwrap() = 2,
        "set" => large.set(NEW).unwrap(),
        "guard" => *large.lock().unwrap() = NEW,
        "update" => large.update(|value| *value = NEW).unwrap(),
        other => panic!("unknown operation {other}"),
    }
}

#[test]
fn a_value_whose_writer_is_killed_is_the_old_one_or_the_new_one() {
    const PUBLISHED: &[&str] = &["value.published", "value.unlocked", "unlock.before", "unlock.after"];
    let set = ["value.locked", "value.marked", "value.half", "value.copied", "value.published", "value.unlocked"];
    let guard = ["lock.after", "value.locked", "value.marked", "value.half", "value.copied", "value.published"];
    let small_set = ["value.locked", "value.published", "value.unlocked"];
    let small_guard = ["lock.before", "lock.after", "value.locked", "value.published", "unlock.before", "unlock.after"];
    let rows = [
        ("set", &set[..]),
        ("guard", &guard[..]),
        ("guard", &["unlock.before", "unlock.after"]),
        ("update", &guard[..]),
        ("small set", &small_set[..]),
        ("small guard", &small_guard[..]),
    ];
    for (operation, points) in rows {
        for point in points {
            let segment = common::named("crash-value");
            let small = segment.value::<u32>("small").initial(1).create().unwrap();
            let large = segment.value("large").initial(OLD).create().unwrap();
            common::start("writes_value", &[&segment.name, point, operation]).was_killed();
            let new = PUBLISHED.contains(point);
            let wanted = if new && !operation.starts_with("small") { NEW } else { OLD };
            // Readers do not wait for the recovery.
            assert_eq!(large.get().unwrap(), wanted, "{operation} killed at {point}");
            assert_eq!(small.get().unwrap(), if new && operation.starts_with("small") { 2 } else { 1 });
            // Writers get the lock, and what they write is right whichever copy the dead one left.
            assert_eq!(*large.lock().unwrap(), wanted, "{operation} killed at {point}");
            for n in 3..6 {
                large.set([n; 4]).unwrap();
                assert_eq!(large.get().unwrap(), [n; 4], "{operation} killed at {point}");
            }
            small.update(|small| *small += 5).unwrap();
            segment.verify().unwrap();
        }
    }
}

#[test]
fn the_next_writers_may_be_killed_in_the_same_place() {
    let segment = common::named("crash-value-again");
    let _small = segment.value::<u32>("small").initial(1).create().unwrap();
    let large = segment.value("large").initial(OLD).create().unwrap();
    for round in 0..4 {
        for point in ["value.half", "value.copied", "value.marked"] {
            common::start("writes_value", &[&segment.name, point, "set"]).was_killed();
            assert_eq!(large.get().unwrap()[0], if round == 0 { 1 } else { 10 + round - 1 });
        }
        large.set([10 + round; 4]).unwrap();
        assert_eq!(large.get().unwrap(), [10 + round; 4]);
    }
}

/// Changes the arrays in one way, and dies at the kill point.
fn writes_array(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let words = segment.array::<u64>("words").open().unwrap();
    let triples = segment.array::<[u64; 3]>("triples").open().unwrap();
    failpoint::arm(&arguments[1], 1);
    match arguments[2].as_str() {
        "get" => drop(words.get(0).unwrap()),
        "set" => words.set(0, 2).unwrap(),
        "add" => drop(words.fetch_add(0, 1).unwrap()),
        "write" => words.write(0, &[2, 2]).unwrap(),
        "fill" => words.fill(2).unwrap(),
        "guard" => words.lock().unwrap().fill(2),
        "read guard" => assert_eq!(words.lock().unwrap().len(), 2),
        "set triple" => triples.set(0, [2; 3]).unwrap(),
        other => panic!("unknown operation {other}"),
    }
}

/// What the survivors are to find.
struct Row {
    operation: &'static str,
    point: &'static str,
    /// Whether they are told that elements may be half written.
    told: bool,
    words: [u64; 2],
    triple: [u64; 3],
}

#[test]
fn an_array_whose_writer_is_killed_says_so_if_elements_may_be_half_written() {
    const OLD: Row = Row { operation: "", point: "", told: false, words: [1, 1], triple: [1; 3] };
    let rows = [
        Row { operation: "get", point: "array.locked", ..OLD },
        Row { operation: "get", point: "array.before_unlock", ..OLD },
        Row { operation: "set", point: "array.locked", ..OLD },
        Row { operation: "set", point: "array.before_unlock", words: [2, 1], ..OLD },
        Row { operation: "add", point: "array.locked", ..OLD },
        Row { operation: "add", point: "array.before_unlock", words: [2, 1], ..OLD },
        Row { operation: "write", point: "array.locked", ..OLD },
        Row { operation: "write", point: "array.dirty", told: true, ..OLD },
        Row { operation: "write", point: "array.half", told: true, words: [2, 1], ..OLD },
        Row { operation: "write", point: "array.written", told: true, words: [2, 2], ..OLD },
        Row { operation: "write", point: "array.before_unlock", words: [2, 2], ..OLD },
        Row { operation: "fill", point: "array.dirty", told: true, ..OLD },
        Row { operation: "fill", point: "array.written", told: true, words: [2, 2], ..OLD },
        Row { operation: "set triple", point: "array.dirty", told: true, ..OLD },
        Row { operation: "set triple", point: "array.written", told: true, triple: [2; 3], ..OLD },
        Row { operation: "set triple", point: "array.before_unlock", triple: [2; 3], ..OLD },
        Row { operation: "guard", point: "lock.after", ..OLD },
        Row { operation: "guard", point: "array.guard_dropped", told: true, words: [2, 2], ..OLD },
        Row { operation: "guard", point: "unlock.before", words: [2, 2], ..OLD },
        Row { operation: "guard", point: "unlock.after", words: [2, 2], ..OLD },
        Row { operation: "read guard", point: "array.guard_dropped", ..OLD },
        Row { operation: "read guard", point: "unlock.before", ..OLD },
    ];
    for row in rows {
        let segment = common::named("crash-array");
        let words = segment.array::<u64>("words").initial(&[1, 1]).create().unwrap();
        let triples = segment.array::<[u64; 3]>("triples").initial(&[[1; 3]]).create().unwrap();
        common::start("writes_array", &[&segment.name, row.point, row.operation]).was_killed();
        let told = if row.operation == "set triple" {
            told(&triples, &[row.triple], &row)
        } else {
            told(&words, &row.words, &row)
        };
        assert_eq!(told, row.told, "{} killed at {}", row.operation, row.point);
        assert_eq!(words.to_vec().unwrap(), row.words, "{} killed at {}", row.operation, row.point);
        assert_eq!(triples.to_vec().unwrap(), [row.triple], "{} killed at {}", row.operation, row.point);
        words.fill(9).unwrap();
        assert_eq!(words.to_vec().unwrap(), [9, 9]);
        segment.verify().unwrap();
    }
}

/// Whether the array's next taker is told that its owner died; it repairs what is there.
fn told<T: shmkit::Element + PartialEq + std::fmt::Debug>(array: &shmkit::Array<T>, wanted: &[T], row: &Row) -> bool {
    let copied = array.to_vec();
    let told = match array.lock() {
        Ok(guard) => {
            assert_eq!(*guard, *wanted, "{} killed at {}", row.operation, row.point);
            false
        }
        Err(LockError::OwnerDied(dead)) => {
            let guard = dead.repair(|guard| assert_eq!(**guard, *wanted));
            assert_eq!(*guard, *wanted, "{} killed at {}", row.operation, row.point);
            true
        }
        Err(LockError::Failed(error)) => panic!("{error}"),
    };
    assert_eq!(copied.is_err(), told, "a copy and a guard say the same");
    told
}

fn makes_shareable_list(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    failpoint::arm(&arguments[1], arguments[2].parse().unwrap());
    ShareableList::create(&segment, "list", values()).unwrap();
}

fn values() -> Vec<Scalar> {
    (0..600).map(|n| if n % 2 == 0 { n.into() } else { "a longer text".into() }).collect()
}

#[test]
fn a_shareable_list_has_all_its_values_or_none() {
    let points =
        [("arena.noted", 9), ("node.filled", 100), ("list.rearranged", 1), ("arena.swung", 1), ("arena.swung", 2)];
    for (point, nth) in points {
        let segment = common::named("crash-shareable");
        common::start("makes_shareable_list", &[&segment.name, point, &nth.to_string()]).was_killed();
        let list = ShareableList::open(&segment, "list").unwrap();
        let found = list.to_vec().unwrap();
        assert!(found.is_empty() || found == values(), "killed at passage {nth} of {point}: {} values", found.len());
        segment.verify().unwrap();
    }
}
