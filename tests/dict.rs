//! Dicts: what they do, compared with `IndexMap`, and used by several threads and processes at once.

mod common;

use indexmap::IndexMap;
use proptest::prelude::*;
use shmkit::{DataError, Dict, Error, Queue, Segment, SegmentError, SyncError};
use std::sync::atomic::{AtomicBool, Ordering};

roles!(counts_words, writes_until_told, reads_so_many);

fn segment() -> Segment {
    Segment::anonymous().unwrap()
}

fn dict<K, V>() -> Dict<K, V> {
    Dict::new_in(&segment()).unwrap()
}

#[test]
fn elements_are_put_found_replaced_and_removed() {
    let dict = dict::<String, u64>();
    assert!(dict.is_empty());
    assert_eq!(dict.get("one").unwrap(), None);
    assert!(!dict.remove("one").unwrap());
    assert!(dict.insert("one", &1).unwrap());
    assert!(dict.insert("two", &2).unwrap());
    assert!(!dict.insert("one", &11).unwrap(), "replaced");
    assert_eq!(dict.get("one").unwrap(), Some(11));
    assert_eq!(dict.len(), 2);
    assert!(dict.contains("two").unwrap() && !dict.contains("three").unwrap());
    assert_eq!(dict.items().unwrap(), [("one".to_owned(), 11), ("two".to_owned(), 2)], "it keeps its place");
    assert!(dict.remove("one").unwrap());
    assert!(!dict.remove("one").unwrap());
    assert!(dict.insert("one", &1).unwrap());
    assert_eq!(dict.keys().unwrap(), ["two", "one"], "put again, it is the last");
    assert_eq!(dict.values().unwrap(), [2, 1]);
    dict.segment().verify().unwrap();
}

#[test]
fn the_other_operations_do_what_pythons_do() {
    let dict = dict::<u32, String>();
    assert_eq!(dict.set_default(&1, "one".to_owned()).unwrap(), "one");
    assert_eq!(dict.set_default(&1, "other".to_owned()).unwrap(), "one");
    assert_eq!(dict.get_or_insert_with(&2, || "two".to_owned()).unwrap(), "two");
    assert_eq!(dict.get_or_insert_with(&2, || unreachable!()).unwrap(), "two");
    assert_eq!(dict.swap(&2, "zwei").unwrap().as_deref(), Some("two"));
    assert_eq!(dict.swap(&3, "drei").unwrap(), None);
    assert_eq!(dict.pop(&2).unwrap().as_deref(), Some("zwei"));
    assert_eq!(dict.pop(&2).unwrap(), None);
    assert_eq!(dict.pop_item().unwrap(), Some((3, "drei".to_owned())));
    dict.merge([(1, "eins".to_owned()), (5, "fünf".to_owned())]).unwrap();
    assert_eq!(dict.items().unwrap(), [(1, "eins".to_owned()), (5, "fünf".to_owned())]);
    assert_eq!(dict.pop_item().unwrap(), Some((5, "fünf".to_owned())));
    assert_eq!(dict.pop_item().unwrap(), Some((1, "eins".to_owned())));
    assert_eq!(dict.pop_item().unwrap(), None);
    dict.clear().unwrap();
    dict.segment().verify().unwrap();
}

#[test]
fn a_dict_of_nothing_is_a_set() {
    let set = dict::<String, ()>();
    assert!(set.insert("a", &()).unwrap());
    assert!(!set.insert("a", &()).unwrap(), "it was there");
    set.merge(["b", "c"].map(|key| (key.to_owned(), ()))).unwrap();
    assert!(set.remove("b").unwrap() && !set.contains("b").unwrap());
    assert_eq!(set.keys().unwrap(), ["a", "c"]);
    set.segment().verify().unwrap();
}

#[test]
fn compare_and_set_changes_only_what_it_expects() {
    let dict = dict::<String, f64>();
    let set =
        |expected: Option<f64>, new: Option<f64>| dict.compare_and_set("x", expected.as_ref(), new.as_ref()).unwrap();
    assert!(!set(Some(1.0), Some(2.0)), "there is none");
    assert!(set(None, Some(1.0)));
    assert!(!set(None, Some(2.0)));
    assert!(!set(Some(1.5), Some(2.0)));
    assert!(set(Some(1.0), Some(2.0)));
    assert_eq!(dict.get("x").unwrap(), Some(2.0));
    assert!(set(Some(2.0), None));
    assert_eq!(dict.len(), 0);
    assert!(set(None, None), "there is none, and none is put");
}

#[test]
fn update_runs_under_the_lock() {
    let dict = dict::<String, u64>();
    dict.update("n", |n| assert_eq!(n.replace(1), None)).unwrap();
    let outcome = dict.update("n", |n| {
        *n = Some(2);
        assert!(matches!(dict.insert("m", &1), Err(Error::Sync(SyncError::Deadlock))));
        assert_eq!(dict.get("n").unwrap(), Some(1), "reading takes no lock");
        "given back"
    });
    assert_eq!(outcome.unwrap(), "given back");
    assert_eq!(dict.get("n").unwrap(), Some(2));
    let panicked = std::panic::catch_unwind(|| {
        let _ = dict.update("n", |n| {
            *n = Some(3);
            panic!("on purpose");
        });
    });
    assert!(panicked.is_err());
    assert_eq!(dict.get("n").unwrap(), Some(2), "a panic changes nothing");
    dict.update("n", |n| *n = None).unwrap();
    assert!(dict.is_empty());
    dict.segment().verify().unwrap();
}

#[test]
fn keys_and_values_have_any_size() {
    let dict = dict::<Vec<u8>, Vec<u64>>();
    for len in [0, 1, 30, 31, 32, 33, 1000, 4000, 4100, 70_000, 300_000] {
        let (key, value) = (vec![7u8; len], vec![len as u64; len]);
        dict.insert(&key, &value).unwrap();
        assert_eq!(dict.get(&key).unwrap(), Some(value));
    }
    dict.segment().verify().unwrap();
    for len in [0, 1, 31, 4000, 70_000, 300_000] {
        dict.insert(&vec![7u8; len], &Vec::new()).unwrap();
    }
    assert_eq!(dict.len(), 11);
    dict.segment().verify().unwrap();
    let too_long = vec![0u8; 1 << 24];
    let refused = dict.insert(&too_long, &Vec::new()).unwrap_err();
    assert!(matches!(refused, Error::Data(DataError::TooLarge { what: "key", .. })), "{refused}");
}

#[test]
fn a_dict_grows_and_shrinks_and_leaks_nothing() {
    let dict = dict::<u64, u64>();
    let count = 8_000;
    for n in 0..count {
        assert!(dict.insert(&n, &(n * n)).unwrap());
        if n % 1997 == 0 {
            dict.segment().verify().unwrap();
        }
    }
    assert_eq!(dict.len() as u64, count);
    for n in 0..count {
        assert_eq!(dict.get(&n).unwrap(), Some(n * n));
    }
    assert_eq!(dict.get(&count).unwrap(), None);
    for n in (0..count).filter(|n| n % 10 != 0) {
        assert!(dict.remove(&n).unwrap());
    }
    assert_eq!(dict.keys().unwrap(), (0..count).step_by(10).collect::<Vec<_>>());
    dict.segment().verify().unwrap();
    for n in 0..2 * count {
        dict.insert(&n, &n).unwrap();
        if n % 4003 == 0 {
            dict.segment().verify().unwrap();
        }
    }
    for n in 0..2 * count {
        assert_eq!(dict.get(&n).unwrap(), Some(n));
    }
    dict.segment().verify().unwrap();
    let (before, _) = dict.segment().memory().unwrap();
    dict.clear().unwrap();
    assert!(dict.is_empty() && dict.keys().unwrap().is_empty());
    let (after, _) = dict.segment().memory().unwrap();
    assert!(after < before / 100, "{after} of {before} bytes are left");
    dict.segment().verify().unwrap();
    dict.insert(&7, &7).unwrap();
    assert_eq!(dict.items().unwrap(), [(7, 7)]);
}

#[test]
fn elements_that_come_and_go_take_no_more_and_more_memory() {
    let dict = dict::<u64, String>();
    let mut most = 0;
    for round in 0..20_000u64 {
        dict.insert(&round, &"x".repeat((round % 300) as usize)).unwrap();
        if round >= 100 {
            assert!(dict.remove(&(round - 100)).unwrap());
        }
        if round == 5_000 {
            most = dict.memory();
        }
    }
    assert!(dict.memory() <= most * 2, "{} bytes, {most} after the first part", dict.memory());
    dict.segment().verify().unwrap();
}

#[test]
fn iterating_reports_a_change_of_size() {
    let dict = dict::<u32, u32>();
    dict.merge((0..100).map(|n| (n, n))).unwrap();
    let mut iter = dict.iter();
    for n in 0..50 {
        assert_eq!(iter.next().unwrap().unwrap(), (n, n));
    }
    dict.insert(&60, &0).unwrap();
    assert_eq!(iter.by_ref().nth(10).unwrap().unwrap(), (60, 0), "a value that changes is no change of size");
    dict.insert(&100, &100).unwrap();
    assert!(matches!(iter.next(), Some(Err(Error::Data(DataError::SizeChanged { what: "dict" })))));
    assert!(iter.next().is_none());
    assert_eq!(dict.iter().count(), 101);
    assert_eq!(self::dict::<u8, u8>().iter().count(), 0);
}

#[test]
fn an_iteration_goes_on_in_the_next_table() {
    let dict = dict::<u32, u32>();
    let full = 5461;
    dict.merge((0..full).map(|n| (n, n))).unwrap();
    let mut seen = Vec::new();
    for (step, element) in dict.iter().enumerate() {
        seen.push(element.unwrap().0);
        if step % 2 == 0 {
            // Every change builds a part of the next table; one that is replaced leaves the size as it is.
            dict.insert(&(step as u32), &7).unwrap();
        }
    }
    assert_eq!(seen, (0..full).collect::<Vec<_>>());
}

#[test]
fn a_full_segment_or_quota_is_a_clear_error_and_changes_nothing() {
    let small = Segment::builder().max_size(1 << 20).anonymous("small").unwrap();
    let by_size = Dict::<u32, Vec<u8>>::new_in(&small).unwrap();
    let other = segment();
    let by_quota = other.dict::<u32, Vec<u8>>("limited").quota(100_000).create().unwrap();
    for dict in [by_size, by_quota] {
        let mut last = 0;
        let error = loop {
            match dict.insert(&last, &vec![1; 1000]) {
                Ok(_) => last += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Segment(SegmentError::OutOfMemory { .. })), "{error}");
        assert!(last > 50, "{last}");
        assert_eq!(dict.len() as u32, last);
        assert_eq!(dict.keys().unwrap(), (0..last).collect::<Vec<_>>());
        assert!(dict.insert(&last, &vec![1; 2_000_000]).is_err());
        dict.segment().verify().unwrap();
        assert!(dict.remove(&0).unwrap());
        dict.insert(&last, &vec![1; 1000]).unwrap();
        dict.segment().verify().unwrap();
    }
}

#[test]
fn values_of_the_wrong_type_are_an_error_and_stay() {
    let segment = segment();
    let texts = segment.dict::<String, String>("d").create().unwrap();
    texts.insert("n", "no number").unwrap();
    let numbers = segment.dict::<String, u64>("d").open().unwrap();
    assert!(matches!(numbers.get("n"), Err(Error::Data(DataError::Codec { .. }))));
    assert!(numbers.pop("n").is_err());
    assert_eq!(texts.get("n").unwrap().unwrap(), "no number");
    assert!(segment.queue::<u8>("d").open().is_err());
}

// ---- compared with a model --------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Operation {
    Insert(u16, Vec<u8>),
    Remove(u16),
    Swap(u16, Vec<u8>),
    PopItem,
    Update(u16),
    Default(u16),
    Clear,
    Merge(Vec<(u16, Vec<u8>)>),
    CompareAndSet(u16, Option<Vec<u8>>, Option<Vec<u8>>),
    Pop(u16),
    GetOrInsertWith(u16, Vec<u8>),
    IterateAndReplace(usize, u16, Vec<u8>),
    IterateAndInsert(usize, u16),
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        9 => proptest::collection::vec(any::<u8>(), 0..40),
        // Of one word: put in the place of one another.
        4 => any::<[u8; 3]>().prop_map(Vec::from),
        1 => (3000..10_000usize).prop_map(|len| vec![3; len]),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let key = || 0..40u16;
    prop_oneof![
        8 => (key(), value()).prop_map(|(key, value)| Operation::Insert(key, value)),
        4 => key().prop_map(Operation::Remove),
        2 => (key(), value()).prop_map(|(key, value)| Operation::Swap(key, value)),
        2 => Just(Operation::PopItem),
        2 => key().prop_map(Operation::Update),
        2 => key().prop_map(Operation::Default),
        1 => Just(Operation::Clear),
        1 => proptest::collection::vec((0..1000u16, value()), 0..50).prop_map(Operation::Merge),
        2 => (key(), proptest::option::of(value()), proptest::option::of(value()))
            .prop_map(|(key, expected, new)| Operation::CompareAndSet(key, expected, new)),
        2 => key().prop_map(Operation::Pop),
        2 => (key(), value()).prop_map(|(key, value)| Operation::GetOrInsertWith(key, value)),
        1 => (0..60usize, key(), value()).prop_map(|(steps, key, value)| Operation::IterateAndReplace(steps, key, value)),
        1 => (0..60usize, 1000..2000u16).prop_map(|(steps, key)| Operation::IterateAndInsert(steps, key)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_dict_does_what_an_index_map_does(operations in proptest::collection::vec(operation(), 0..200)) {
        let dict = dict::<u16, Vec<u8>>();
        let mut model = IndexMap::<u16, Vec<u8>>::new();
        for operation in operations {
            match operation {
                Operation::Insert(key, value) => {
                    prop_assert_eq!(dict.insert(&key, &value).unwrap(), model.insert(key, value).is_none());
                }
                Operation::Remove(key) => {
                    prop_assert_eq!(dict.remove(&key).unwrap(), model.shift_remove(&key).is_some());
                }
                Operation::Swap(key, value) => {
                    prop_assert_eq!(dict.swap(&key, &value).unwrap(), model.insert(key, value));
                }
                Operation::PopItem => prop_assert_eq!(dict.pop_item().unwrap(), model.pop()),
                Operation::Update(key) => {
                    let before = dict.update(&key, |value| {
                        let before = value.clone();
                        match value {
                            Some(value) if value.len() % 2 == 0 => value.push(1),
                            value => *value = None,
                        }
                        before
                    });
                    prop_assert_eq!(before.unwrap(), model.get(&key).cloned());
                    match model.get_mut(&key) {
                        Some(value) if value.len() % 2 == 0 => value.push(1),
                        _ => drop(model.shift_remove(&key)),
                    }
                }
                Operation::Default(key) => {
                    let there = model.entry(key).or_insert_with(|| vec![9]).clone();
                    prop_assert_eq!(dict.set_default(&key, vec![9]).unwrap(), there);
                }
                Operation::Clear => {
                    dict.clear().unwrap();
                    model.clear();
                }
                Operation::Merge(items) => {
                    dict.merge(items.iter().cloned()).unwrap();
                    model.extend(items);
                }
                Operation::CompareAndSet(key, expected, new) => {
                    let is_expected = model.get(&key) == expected.as_ref();
                    let did = dict.compare_and_set(&key, expected.as_ref(), new.as_ref()).unwrap();
                    prop_assert_eq!(did, is_expected);
                    if is_expected {
                        match new {
                            Some(new) => drop(model.insert(key, new)),
                            None => drop(model.shift_remove(&key)),
                        }
                    }
                }
                Operation::Pop(key) => prop_assert_eq!(dict.pop(&key).unwrap(), model.shift_remove(&key)),
                Operation::GetOrInsertWith(key, value) => {
                    let there = model.entry(key).or_insert_with(|| value.clone()).clone();
                    prop_assert_eq!(dict.get_or_insert_with(&key, || value).unwrap(), there);
                }
                Operation::IterateAndReplace(steps, key, value) => {
                    // Another value, in the same place: the iteration gives it if it has not been there.
                    let mut iteration = dict.iter();
                    let mut given: Vec<_> = iteration.by_ref().take(steps).map(Result::unwrap).collect();
                    let mut expected: Vec<_> = model.clone().into_iter().take(steps).collect();
                    if let Some(old) = model.get_mut(&key) {
                        dict.insert(&key, &value).unwrap();
                        *old = value;
                    }
                    given.extend(iteration.map(Result::unwrap));
                    expected.extend(model.clone().into_iter().skip(steps));
                    prop_assert_eq!(given, expected);
                }
                Operation::IterateAndInsert(steps, key) => {
                    // Another size is an error, and the end.
                    let is_new = !model.contains_key(&key);
                    let mut iteration = dict.iter();
                    let given: Vec<_> = iteration.by_ref().take(steps).map(Result::unwrap).collect();
                    prop_assert_eq!(given, model.clone().into_iter().take(steps).collect::<Vec<_>>());
                    // One that is over looks at nothing any more.
                    let is_over = steps > model.len();
                    dict.insert(&key, &vec![1]).unwrap();
                    model.insert(key, vec![1]);
                    if is_new && !is_over {
                        let error = iteration.next();
                        prop_assert!(matches!(error, Some(Err(Error::Data(DataError::SizeChanged { .. })))), "{error:?}");
                        prop_assert!(iteration.next().is_none());
                    }
                }
            }
            prop_assert_eq!(dict.len(), model.len());
            for key in 0..40 {
                prop_assert_eq!(dict.get(&key).unwrap(), model.get(&key).cloned());
            }
        }
        prop_assert_eq!(dict.items().unwrap(), model.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(dict.iter().map(Result::unwrap).collect::<Vec<_>>(), dict.items().unwrap());
        dict.segment().verify().unwrap();
    }
}

// ---- handles as values --------------------------------------------------------------------------------------------------

#[test]
fn a_value_keeps_what_it_names_alive() {
    let segment = segment();
    let outer = Dict::<String, Dict<String, u64>>::new_in(&segment).unwrap();
    let before = segment.objects().len();
    let inner = Dict::new_in(&segment).unwrap();
    inner.insert("x", &1).unwrap();
    outer.insert("inner", &inner).unwrap();
    drop(inner);
    segment.verify().unwrap();
    assert_eq!(segment.objects().len(), before + 1);
    let again = outer.get("inner").unwrap().unwrap();
    assert_eq!(again.get("x").unwrap(), Some(1));
    outer.insert("too", &again).unwrap();
    outer.remove("inner").unwrap();
    drop(again);
    assert_eq!(outer.get("too").unwrap().unwrap().get("x").unwrap(), Some(1));
    outer.update("too", |value| *value = Some(value.take().unwrap())).unwrap();
    segment.verify().unwrap();
    outer.remove("too").unwrap();
    assert_eq!(segment.objects().len(), before, "the last one frees it");
    segment.verify().unwrap();
}

#[test]
fn an_iteration_reads_a_value_again_whose_objects_went_while_it_was_read() {
    let segment = segment();
    let dict = Dict::<u32, (u32, shmkit::Lock)>::new_in(&segment).unwrap();
    let put = |n: u32| dict.insert(&(n % 3), &(n, shmkit::Lock::new_in(&segment).unwrap())).map(drop).unwrap();
    (0..3).for_each(put);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (3..3000).for_each(put);
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let all: Vec<_> = dict.iter().map(Result::unwrap).collect();
            assert_eq!(all.iter().map(|(key, (n, _))| n % 3 - key).collect::<Vec<_>>(), [0; 3]);
        }
    });
    assert_eq!(dict.iter().map(Result::unwrap).map(|(_, (n, _))| n).collect::<Vec<_>>(), [2997, 2998, 2999]);
    segment.verify().unwrap();
}

#[test]
fn nested_objects_go_with_the_dict_they_are_in() {
    let segment = segment();
    let before = segment.objects().len();
    let outer = Dict::<u32, Vec<Dict<u32, Queue<u32>>>>::new_in(&segment).unwrap();
    for n in 0..70 {
        let inners: Vec<_> = (0..3).map(|_| Dict::new_in(&segment).unwrap()).collect();
        let queue = Queue::bounded_in(&segment, 4).unwrap();
        queue.put(n).unwrap();
        inners[1].insert(&n, &queue).unwrap();
        outer.insert(&n, &inners).unwrap();
    }
    segment.verify().unwrap();
    assert_eq!(segment.objects().len(), before + 1 + 70 * 4);
    let queue = outer.get(&33).unwrap().unwrap()[1].get(&33).unwrap().unwrap();
    assert_eq!(queue.get().unwrap(), 33);
    outer.clear().unwrap();
    segment.verify().unwrap();
    assert_eq!(segment.objects().len(), before + 2, "the dict and the queue we hold");
    let inner = Dict::new_in(&segment).unwrap();
    inner.insert(&1, &queue).unwrap();
    outer.insert(&1, &vec![inner]).unwrap();
    drop((outer, queue));
    assert_eq!(segment.objects().len(), before);
    segment.verify().unwrap();
}

#[test]
fn keys_are_no_handles() {
    let segment = segment();
    let dict = Dict::<(u32, shmkit::Lock), u32>::new_in(&segment).unwrap();
    let refused = dict.insert(&(1, shmkit::Lock::new_in(&segment).unwrap()), &1).unwrap_err();
    assert!(matches!(refused, Error::Segment(SegmentError::HandleOutsideSend)), "{refused}");
}

// ---- several at once ------------------------------------------------------------------------------------------------------

/// Adds each word it is told to a dict, by `update`.
fn counts_words(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let counts = segment.dict::<String, u64>("counts").open().unwrap();
    for round in 0..arguments[1].parse::<u64>().unwrap() {
        counts.update(&format!("word {}", round % 10), |count| *count.get_or_insert(0) += 1).unwrap();
    }
}

#[test]
fn updates_of_several_processes_add_up() {
    let segment = common::named("dict-counts");
    let counts = segment.dict::<String, u64>("counts").create().unwrap();
    let mut children: Vec<_> = (0..3).map(|_| common::start("counts_words", &[&segment.name, "2000"])).collect();
    children.iter_mut().for_each(common::Child::succeeded);
    assert_eq!(counts.len(), 10);
    assert!(counts.values().unwrap().iter().all(|&count| count == 600), "{:?}", counts.items().unwrap());
    segment.verify().unwrap();
}

/// Puts values made of one number, in a few keys that come and go.
fn writes_until_told(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let dict = segment.dict::<u64, Vec<u64>>("dict").open().unwrap();
    common::say("ready");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            common::listen();
            stop.store(true, Ordering::Relaxed);
        });
        let mut n = 0u64;
        while !stop.load(Ordering::Relaxed) {
            n += 1;
            dict.insert(&0, &vec![n; 16]).unwrap();
            dict.insert(&(1 + n % 3), &vec![n; 1 + (n % 30) as usize]).unwrap();
            dict.insert(&(4 + n % 5000), &vec![n; 3]).unwrap();
            if n.is_multiple_of(7) {
                dict.remove(&(1 + n % 3)).unwrap();
                dict.remove(&(4 + (n * 13) % 5000)).unwrap();
            }
        }
    });
}

/// Reads what the other one writes, which tells its key; says how much.
fn reads_so_many(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let dict = segment.dict::<u64, Vec<u64>>("dict").open().unwrap();
    let mut reads = 0u64;
    let mut last = 0;
    for _ in 0..arguments[1].parse::<u64>().unwrap() {
        let value = dict.get(&0).unwrap().expect("it is always there");
        assert!(value.len() == 16 && value.iter().all(|&n| n == value[0]), "torn: {value:?}");
        assert!(value[0] >= last, "older than what was read before: {} {last}", value[0]);
        last = value[0];
        for key in 1..4 {
            if let Some(value) = dict.get(&key).unwrap() {
                assert!(value.len() as u64 == 1 + value[0] % 30 && value.iter().all(|&n| n == value[0]), "{value:?}");
                assert_eq!(1 + value[0] % 3, key, "another key's value");
            }
        }
        let key = 4 + reads % 5000;
        if let Some(value) = dict.get(&key).unwrap() {
            assert!(value.len() == 3 && value.iter().all(|&n| n == value[0]), "{value:?}");
            assert_eq!(4 + value[0] % 5000, key, "another key's value");
        }
        reads += 5;
    }
    common::say(&reads.to_string());
}

/// Two processes read five elements so many times each, while another one writes.
fn torn_reads(rounds: u64) {
    let segment = common::named("dict-torn");
    let dict = segment.dict::<u64, Vec<u64>>("dict").create().unwrap();
    dict.insert(&0, &vec![0; 16]).unwrap();
    let mut writer = common::start("writes_until_told", &[&segment.name]);
    writer.expect("ready");
    let start = || common::start("reads_so_many", &[&segment.name, &rounds.to_string()]);
    let mut readers = [start(), start()];
    for reader in &mut readers {
        reader.expect(&(5 * rounds).to_string());
        reader.succeeded();
    }
    writer.tell("stop");
    writer.succeeded();
    segment.verify().unwrap();
}

#[test]
fn readers_of_a_busy_dict_see_whole_values_and_never_miss_one() {
    torn_reads(5000);
}

#[test]
#[ignore = "minutes, with --release"]
fn a_hundred_million_reads_of_a_busy_dict_find_none_torn() {
    torn_reads(10_000_000);
}

#[test]
fn a_stopped_writer_stops_no_reader() {
    let segment = common::named("dict-stopped");
    let dict = segment.dict::<u64, Vec<u64>>("dict").create().unwrap();
    dict.insert(&0, &vec![0; 16]).unwrap();
    let mut writer = common::start("writes_until_told", &[&segment.name]);
    writer.expect("ready");
    for _ in 0..50 {
        writer.signal(libc::SIGSTOP);
        for _ in 0..100 {
            assert_eq!(dict.get(&0).unwrap().unwrap().len(), 16);
        }
        writer.signal(libc::SIGCONT);
    }
    writer.tell("stop");
    writer.succeeded();
    segment.verify().unwrap();
}
