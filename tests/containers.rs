//! Namespaces, counters, sharded dicts, frozen values, shared memory and shareable lists.

mod common;

use indexmap::IndexMap;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use shmkit::{
    Counter, DataError, Dict, Error, Event, FrozenArray, FrozenBytes, FrozenDict, FrozenStr, List, Lock, Namespace,
    Process, Queue, Scalar, Segment, SegmentError, ShardedDict, ShareableList, SharedMemory,
};
use std::collections::{BTreeMap, BTreeSet};

roles!(counts, uses_namespace, reads_frozen, writes_shards, uses_shared_memory, takes_all, has_a_list);

fn segment() -> Segment {
    Segment::anonymous().unwrap()
}

// ---- namespace ----------------------------------------------------------------------------------------------------------

fn uses_namespace(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let space = segment.namespace("space").open().unwrap();
    assert_eq!(space.get::<String>("text").unwrap().as_deref(), Some("hello"));
    space.set("answer", &42.5).unwrap();
    space.get::<Event>("ready").unwrap().unwrap().set();
}

#[test]
fn a_namespace_holds_values_of_any_types() {
    let segment = common::named("namespace");
    let space = segment.namespace("space").create().unwrap();
    assert!(space.set("text", "hello").unwrap());
    let ready = Event::new_in(&segment).unwrap();
    space.set("ready", &ready).unwrap();
    space.set("answer", &1u8).unwrap();
    common::start("uses_namespace", &[&segment.name]).succeeded();
    ready.wait().unwrap();
    assert_eq!(space.get::<f64>("answer").unwrap(), Some(42.5));
    assert!(matches!(space.get::<String>("answer"), Err(Error::Data(DataError::Codec { .. }))));
    assert_eq!(space.get::<u8>("nothing").unwrap(), None);
    space.update("n", |n: &mut Option<u32>| *n = Some(n.unwrap_or(0) + 1)).unwrap();
    assert_eq!(space.names().unwrap(), ["text", "ready", "answer", "n"]);
    assert!(space.remove("text").unwrap() && !space.contains("text").unwrap());
    assert_eq!(space.len(), 3);
    let objects = segment.objects().len();
    drop(ready);
    assert_eq!(segment.objects().len(), objects, "the namespace keeps it");
    segment.verify().unwrap();
    space.clear().unwrap();
    assert_eq!(segment.objects().len(), objects - 1);
    assert!(segment.dict::<String, u8>("space").open().is_err(), "it is no dict");
    segment.verify().unwrap();
}

// ---- counter --------------------------------------------------------------------------------------------------------------

fn counts(arguments: &[String]) {
    let counter = Segment::open(&arguments[0]).unwrap().counter("counter").open().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..1000).for_each(|_| counter.add(2).unwrap()));
        }
    });
    counter.subtract(1).unwrap();
    common::say("done");
    common::listen();
}

#[test]
fn what_all_count_adds_up_and_stays_after_a_kill() {
    let segment = common::named("counter");
    let counter = segment.counter("counter").create().unwrap();
    let mut children: Vec<_> = (0..3).map(|_| common::start("counts", &[&segment.name])).collect();
    for child in &mut children {
        child.expect("done");
        child.kill();
    }
    segment.recover();
    assert_eq!(counter.get(), 3 * 5999);
    counter.subtract(3 * 5999 + 1).unwrap();
    assert_eq!(counter.get() as i64, -1);
    assert_eq!(counter.take() as i64, -1);
    assert_eq!(counter.get(), 0);
    segment.verify().unwrap();
    assert_eq!(Counter::new().unwrap().get(), 0);
}

// ---- sharded dict -----------------------------------------------------------------------------------------------------------

fn writes_shards(arguments: &[String]) {
    let dict = Segment::open(&arguments[0]).unwrap().sharded_dict::<String, u64>("dict").open().unwrap();
    for n in 0..2000u64 {
        dict.update(&format!("key {}", n % 50), |count| *count.get_or_insert(0) += 1).unwrap();
    }
}

#[test]
fn a_sharded_dict_has_all_that_its_writers_put() {
    let segment = common::named("sharded");
    let dict = segment.sharded_dict::<String, u64>("dict").shards(4).create().unwrap();
    let mut children: Vec<_> = (0..3).map(|_| common::start("writes_shards", &[&segment.name])).collect();
    children.iter_mut().for_each(common::Child::succeeded);
    assert_eq!(dict.len(), 50);
    assert!(dict.values().unwrap().iter().all(|&count| count == 120));
    let keys: BTreeSet<String> = dict.keys().unwrap().into_iter().collect();
    assert_eq!(keys, (0..50).map(|n| format!("key {n}")).collect());
    segment.verify().unwrap();
    dict.clear().unwrap();
    assert!(dict.is_empty());
    segment.verify().unwrap();
    assert!(segment.sharded_dict::<u8, u8>("three").shards(3).create().is_err());
}

#[test]
fn a_sharded_dict_gives_its_elements_one_by_one_until_there_are_none() {
    let dict = ShardedDict::<u32, u32>::new_in(&segment()).unwrap();
    assert_eq!(dict.set_default(&1, 10).unwrap(), 10);
    assert_eq!(dict.set_default(&1, 11).unwrap(), 10);
    dict.merge((2..100).map(|n| (n, n * 10))).unwrap();
    let mut taken = BTreeMap::new();
    while let Some((key, value)) = dict.pop_item().unwrap() {
        assert_eq!(taken.insert(key, value), None);
    }
    assert_eq!(taken, (1..100).map(|n| (n, n * 10)).collect());
    assert!(dict.is_empty());
    dict.segment().verify().unwrap();
}

#[test]
fn quotas_bound_sharded_dicts_and_namespaces_and_usage_is_seen() {
    let segment = segment();
    let shards = segment.sharded_dict::<u32, Vec<u8>>("shards").shards(4).quota(400_000).create().unwrap();
    let space = segment.namespace("space").quota(100_000).create().unwrap();
    let full = |error: Error| assert!(matches!(error, Error::Segment(SegmentError::OutOfMemory { .. })), "{error}");
    // Each key that is refused leaves all as it was.
    let mut there = Vec::new();
    for n in 0..1000 {
        match shards.insert(&n, &vec![1; 1000]) {
            Ok(is_new) => {
                assert!(is_new);
                there.push(n);
            }
            Err(error) => full(error),
        }
    }
    assert!((100..400).contains(&there.len()), "{}", there.len());
    assert_eq!(shards.keys().unwrap().into_iter().collect::<BTreeSet<_>>(), there.iter().copied().collect());
    let mut names = 0;
    let error = loop {
        match space.set(&names.to_string(), &vec![1; 1000]) {
            Ok(_) => names += 1,
            Err(error) => break error,
        }
    };
    full(error);
    assert_eq!(space.len(), names);
    // What each has is seen: by itself, and in the table of objects, with all that it holds.
    let size = |name: &str| {
        let objects = segment.objects();
        objects.iter().find(|object| object.name.as_deref() == Some(name)).expect("created").size
    };
    assert!((50_000..=104_096).contains(&space.memory()), "{}", space.memory());
    assert!((100_000..=420_000).contains(&shards.memory()), "{}", shards.memory());
    for (name, memory) in [("space", space.memory()), ("shards", shards.memory())] {
        assert!(size(name) >= memory && size(name) <= memory + 8192, "{name}: {} of {memory}", size(name));
    }
    segment.verify().unwrap();
    shards.set_quota(0);
    space.set_quota(0);
    shards.merge((0..1000).map(|n| (n, vec![1; 1000]))).unwrap();
    assert_eq!(shards.len(), 1000);
    space.set("more", &vec![1; 200_000]).unwrap();
    assert!(size("space") > 200_000);
    space.clear().unwrap();
    assert!(size("space") < 8192, "{}", size("space"));
    segment.verify().unwrap();
}

#[test]
fn a_sharded_dict_keeps_what_its_values_name_alive() {
    let segment = segment();
    let dict = ShardedDict::<u32, (u32, Lock)>::new_in(&segment).unwrap();
    let before = segment.objects().len();
    for n in 0..500 {
        dict.insert(&n, &(n, Lock::new_in(&segment).unwrap())).unwrap();
    }
    segment.verify().unwrap();
    assert_eq!(segment.objects().len(), before + 500);
    for n in 0..250 {
        assert_eq!(dict.pop(&n).unwrap().unwrap().0, n);
    }
    segment.verify().unwrap();
    assert_eq!(segment.objects().len(), before + 250);
    let one = dict.get(&300).unwrap().unwrap().1;
    drop(dict);
    assert_eq!(segment.objects().len(), before, "all but the one we hold, and the dict");
    drop(one.lock().unwrap());
    segment.verify().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_sharded_dict_does_what_a_map_does(
        operations in proptest::collection::vec((0..6u8, 0..60u16, any::<u32>()), 0..200)
    ) {
        let dict = ShardedDict::<u16, u32>::new_in(&segment()).unwrap();
        let mut model = BTreeMap::<u16, u32>::new();
        for (operation, key, value) in operations {
            match operation {
                0 | 1 => prop_assert_eq!(dict.insert(&key, &value).unwrap(), model.insert(key, value).is_none()),
                2 => prop_assert_eq!(dict.remove(&key).unwrap(), model.remove(&key).is_some()),
                3 => prop_assert_eq!(dict.swap(&key, &value).unwrap(), model.insert(key, value)),
                4 => {
                    let made = *model.entry(key).or_insert(value);
                    prop_assert_eq!(dict.get_or_insert_with(&key, || value).unwrap(), made);
                }
                _ => {
                    let expected = model.get(&key).copied();
                    prop_assert!(dict.compare_and_set(&key, expected.as_ref(), Some(&value)).unwrap());
                    model.insert(key, value);
                }
            }
            prop_assert_eq!(dict.get(&key).unwrap(), model.get(&key).copied());
        }
        prop_assert_eq!(dict.len(), model.len());
        prop_assert_eq!(dict.items().unwrap().into_iter().collect::<BTreeMap<_, _>>(), model);
        dict.segment().verify().unwrap();
    }
}

// ---- frozen -----------------------------------------------------------------------------------------------------------------

fn reads_frozen(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let handles = segment.namespace("handles").open().unwrap();
    let text = handles.get::<FrozenStr>("text").unwrap().unwrap();
    assert_eq!(&*text, "grün");
    let primes = segment.frozen_array::<u32>("primes", &[]).open().unwrap();
    assert_eq!(primes[3], 7);
    let dict = handles.get::<FrozenDict<String, Vec<u8>>>("dict").unwrap().unwrap();
    assert_eq!(dict.get("two").unwrap(), Some(vec![2, 2]));
}

#[test]
fn frozen_values_are_read_in_place_by_everybody() {
    let segment = common::named("frozen");
    let handles = segment.namespace("handles").create().unwrap();
    let text = FrozenStr::new_in(&segment, "grün").unwrap();
    handles.set("text", &text).unwrap();
    let primes = segment.frozen_array("primes", &[2u32, 3, 5, 7]).create().unwrap();
    let dict = FrozenDict::<String, Vec<u8>>::new_in(&segment, [("one", vec![1u8]), ("two", vec![2, 2])]).unwrap();
    handles.set("dict", &dict).unwrap();
    common::start("reads_frozen", &[&segment.name]).succeeded();
    assert_eq!(&*primes, [2, 3, 5, 7]);
    assert_eq!(primes.as_ptr() as usize % 64, 0);
    let bytes = segment.frozen_bytes("bytes", b"").create().unwrap();
    assert!(bytes.is_empty());
    assert!(segment.frozen_str("bytes", "").open().is_err(), "bytes are no text");
    assert!(segment.frozen_array::<u16>("primes", &[]).open().is_err(), "other elements");
    assert!(segment.frozen_bytes("primes", &[]).open().is_err());
    drop((text, dict));
    segment.verify().unwrap();
    handles.clear().unwrap();
    segment.verify().unwrap();
    assert_eq!(segment.objects().len(), 3);
    assert_eq!(FrozenBytes::new(&[1, 2]).unwrap().len(), 2);
    assert_eq!(FrozenArray::new(&[[1.5f64; 3]; 2]).unwrap()[1][2], 1.5);
}

#[test]
fn a_frozen_dict_has_text_and_bytes_in_place() {
    let segment = segment();
    let dict = FrozenDict::<u32, String>::create(&segment, "dict", (0..1000u32).map(|n| (n, n.to_string()))).unwrap();
    let same = FrozenDict::<u32, String>::open(&segment, "dict").unwrap();
    let (a, b) = (dict.get_str(&77).unwrap().unwrap(), same.get_str(&77).unwrap().unwrap());
    assert_eq!((a, a.as_ptr()), ("77", b.as_ptr()), "no copy");
    assert_eq!(same.get_str(&1000).unwrap(), None);
    assert!(matches!(
        FrozenDict::<u8, u8>::new_in(&segment, [(1, 2)]).unwrap().get_bytes(&1),
        Err(Error::Data(DataError::Codec { .. }))
    ));
    let refused = FrozenDict::<u8, Lock>::new_in(&segment, [(1, Lock::new_in(&segment).unwrap())]).unwrap_err();
    assert!(matches!(refused, Error::Segment(SegmentError::HandleOutsideSend)), "{refused}");
    assert!(FrozenDict::<u8, u8>::new_in(&segment, Vec::<(u8, u8)>::new()).unwrap().is_empty());
}

#[test]
fn keys_that_differ_in_their_length_only_are_different_ones() {
    let segment = segment();
    let items = ["a", "a\0", "a", "a\0\0", "a\0"].iter().zip(1u8..);
    let dict = FrozenDict::<String, u8>::new_in(&segment, items.clone()).unwrap();
    let all: Vec<_> = dict.iter().map(Result::unwrap).collect();
    assert_eq!(all, [("a".to_owned(), 3), ("a\0".to_owned(), 5), ("a\0\0".to_owned(), 4)]);
    assert_eq!((dict.len(), dict.get("a\0").unwrap(), dict.get("a\0\0").unwrap()), (3, Some(5), Some(4)));
    let dict = Dict::<String, u8>::new_in(&segment).unwrap();
    dict.merge(items.map(|(key, value)| ((*key).to_owned(), value))).unwrap();
    assert_eq!(dict.items().unwrap(), all);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_frozen_dict_does_what_an_index_map_does(items in proptest::collection::vec((".{0,12}", any::<Vec<u16>>()), 0..100)) {
        let dict = FrozenDict::<String, Vec<u16>>::new_in(&segment(), items.iter().cloned()).unwrap();
        let model: IndexMap<String, Vec<u16>> = items.into_iter().collect();
        prop_assert_eq!(dict.len(), model.len());
        for (key, value) in &model {
            prop_assert_eq!(dict.get(key).unwrap(), Some(value.clone()));
        }
        prop_assert!(!dict.contains("a text that is longer than those").unwrap());
        prop_assert_eq!(dict.iter().map(Result::unwrap).collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
    }
}

// ---- shared memory and shareable lists -----------------------------------------------------------------------------------------

fn uses_shared_memory(arguments: &[String]) {
    let shared = SharedMemory::open(&arguments[0]).unwrap();
    assert_eq!(shared.size(), 5000);
    assert_eq!(shared.read(0, 5).unwrap(), b"hello");
    shared.write(4995, b"world").unwrap();
}

#[test]
fn shared_memory_is_raw_bytes_of_the_size_that_was_asked_for() {
    let shared = SharedMemory::create(None, 5000).unwrap();
    assert!(shared.name().starts_with("psm_"));
    assert!(shared.read(0, 5000).unwrap().iter().all(|&byte| byte == 0));
    shared.write(0, b"hello").unwrap();
    common::start("uses_shared_memory", &[shared.name()]).succeeded();
    assert_eq!(shared.read(4995, 5).unwrap(), b"world", "its end unlinked nothing");
    assert!(matches!(shared.read(4996, 5), Err(Error::Segment(SegmentError::OutOfRange { index: 5001, len: 5000 }))));
    assert!(shared.write(usize::MAX, b"x").is_err());
    assert!(matches!(SharedMemory::create(Some(shared.name()), 10), Err(Error::Segment(SegmentError::Exists { .. }))));
    let second = SharedMemory::open(shared.name()).unwrap();
    shared.unlink().unwrap();
    assert!(matches!(shared.unlink(), Err(Error::Segment(SegmentError::NotFound { .. }))));
    assert!(SharedMemory::open(shared.name()).is_err());
    drop(shared);
    assert_eq!(second.read(0, 5).unwrap(), b"hello", "it stays for those who have it");
    let refused = SharedMemory::create(None, 0).unwrap_err();
    assert!(matches!(refused, Error::Segment(SegmentError::InvalidSize { found: 0, .. })), "{refused}");
    let refused = SharedMemory::create(Some("with\0nul"), 10).unwrap_err();
    assert!(matches!(refused, Error::Segment(SegmentError::InvalidName { .. })), "{refused}");
    // Elements lie anywhere in it, and stay while any handle lives.
    second.write_as(4001, &[1.5f64, -2.5]).unwrap();
    let third = second.clone();
    drop(second);
    assert_eq!(third.read_as::<f64>(4001, 2).unwrap(), [1.5, -2.5]);
    assert!(matches!(third.read_as::<u64>(4993, 1), Err(Error::Segment(SegmentError::OutOfRange { .. }))));
    assert!(third.read_as::<u64>(0, usize::MAX).is_err());
    // A large one fits its segment.
    let large = SharedMemory::create(None, 3 << 20).unwrap();
    large.write((3 << 20) - 1, &[1]).unwrap();
    large.unlink().unwrap();
}

#[test]
fn a_shareable_list_gives_back_what_was_put() {
    let segment = segment();
    let values = [Scalar::None, true.into(), (-7i64).into(), 2.5.into(), "grün\0".into(), vec![0u8, 0].into()];
    let list = ShareableList::create(&segment, "list", values.clone()).unwrap();
    let same = ShareableList::open(&segment, "list").unwrap();
    assert_eq!(same.to_vec().unwrap(), values);
    assert_eq!(same.len(), 6);
    same.set(0, "now a text, and a longer one than there was room for").unwrap();
    same.set(4, Scalar::None).unwrap();
    assert_eq!(list.get(4).unwrap(), Some(Scalar::None));
    assert_eq!(list.get(6).unwrap(), None);
    assert!(matches!(list.set(6, 1), Err(Error::Segment(SegmentError::OutOfRange { .. }))));
    assert_eq!(list.position(&2.5.into()).unwrap(), Some(3));
    assert_eq!(list.count(&9.into()).unwrap(), 0);
    assert_eq!(list.iter().count(), 6);
    segment.verify().unwrap();
    // A handle is a value: in a queue, and as an argument of a process.
    let queue = Queue::bounded_in(&segment, 2).unwrap();
    queue.put(list.clone()).unwrap();
    drop(list);
    let received = queue.get().unwrap();
    let child = Process::new(|list: ShareableList| list.set(1, "from the child")).args((received.clone(),)).start();
    child.unwrap().join().unwrap().check().unwrap();
    assert_eq!(same.get(1).unwrap(), Some("from the child".into()));
}

// ---- everything in everything ---------------------------------------------------------------------------------------------------

#[test]
fn containers_hold_containers() {
    let segment = segment();
    let before = segment.objects().len();
    let root = Namespace::new_in(&segment).unwrap();
    let list = List::<Dict<String, Queue<u32>>>::new_in(&segment).unwrap();
    for n in 0..3u32 {
        let dict = Dict::new_in(&segment).unwrap();
        let queue = Queue::bounded_in(&segment, 4).unwrap();
        queue.put(n).unwrap();
        dict.insert("jobs", &queue).unwrap();
        list.push(&dict).unwrap();
    }
    root.set("list", &list).unwrap();
    root.set("lengths", &vec![1, 2, 3]).unwrap();
    drop(list);
    let jobs = {
        let list = root.get::<List<Dict<String, Queue<u32>>>>("list").unwrap().unwrap();
        list.get(1).unwrap().unwrap().get("jobs").unwrap().unwrap()
    };
    assert_eq!(segment.objects().len(), before + 8);
    segment.verify().unwrap();
    // A message that holds a container that holds the queue it is in: sent, received, dropped.
    let wrapped = Dict::<String, Queue<u32>>::new_in(&segment).unwrap();
    wrapped.insert("jobs", &jobs).unwrap();
    let messages = Queue::<Dict<String, Queue<u32>>>::bounded_in(&segment, 2).unwrap();
    messages.put(wrapped).unwrap();
    drop(root);
    segment.verify().unwrap();
    drop(jobs);
    assert_eq!(messages.get().unwrap().get("jobs").unwrap().unwrap().get().unwrap(), 1);
    drop(messages);
    assert_eq!(segment.objects().len(), before);
    segment.verify().unwrap();
}

/// One of each that a dict or list may hold.
#[derive(Serialize, Deserialize)]
struct Nested(Dict<u32, u32>, List<u32>, Queue<u32>, Lock);

fn nested(segment: &Segment, n: u32) -> Nested {
    let (dict, list) = (Dict::new_in(segment).unwrap(), List::new_in(segment).unwrap());
    let (queue, lock) = (Queue::bounded_in(segment, 4).unwrap(), Lock::new_in(segment).unwrap());
    dict.insert(&n, &n).unwrap();
    list.push(&n).unwrap();
    queue.put(n).unwrap();
    Nested(dict, list, queue, lock)
}

/// Gets a handle of each out of the dict and the list, takes them out of there, and uses what they name, until it is killed.
fn takes_all(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let Nested(dict, ..) = segment.dict::<u32, Nested>("dict").open().unwrap().pop(&1).unwrap().unwrap();
    let Nested(_, list, queue, lock) = segment.list::<Nested>("list").open().unwrap().pop().unwrap().unwrap();
    assert_eq!((dict.get(&1).unwrap(), list.get(0).unwrap()), (Some(1), Some(2)));
    let _guard = lock.lock().unwrap();
    common::say("has them");
    common::listen();
    // All of it is still there, though nothing in the segment leads to it.
    dict.insert(&7, &7).unwrap();
    list.push(&7).unwrap();
    assert_eq!((list.len(), queue.get().unwrap()), (2, 2));
    common::say("used them");
    common::listen();
}

#[test]
fn what_a_dict_or_list_held_lives_with_the_last_handle_and_goes_when_its_process_is_killed() {
    let segment = common::named("nested");
    let dict = segment.dict::<u32, Nested>("dict").create().unwrap();
    let list = segment.list::<Nested>("list").create().unwrap();
    let before = segment.objects().len();
    for _ in 0..3 {
        dict.insert(&1, &nested(&segment, 1)).unwrap();
        list.push(&nested(&segment, 2)).unwrap();
        assert_eq!(segment.objects().len(), before + 8, "only the containers have handles");
        let mut child = common::start("takes_all", &[&segment.name]);
        child.expect("has them");
        assert!(dict.is_empty() && list.is_empty());
        assert_eq!(segment.objects().len(), before + 4, "a dict, a list, a queue and a lock that the child has");
        child.tell("use them");
        child.expect("used them");
        child.kill();
        segment.recover();
        assert_eq!(segment.objects().len(), before, "the last handles died with their process");
        segment.verify().unwrap();
    }
    // The other way round: the containers are the last to have them, and their process is killed.
    let mut child = common::start("has_a_list", &[&segment.name]);
    child.expect("has it");
    assert_eq!(segment.objects().len(), before + 5);
    child.kill();
    segment.recover();
    assert_eq!(segment.objects().len(), before, "a list without a name goes, and what it held with it");
    segment.verify().unwrap();
}

fn has_a_list(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let list = List::<Nested>::new_in(&segment).unwrap();
    list.push(&nested(&segment, 3)).unwrap();
    common::say("has it");
    common::listen();
}
