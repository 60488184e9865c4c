//! Lists: what they do, compared with `Vec`, and used by several processes at once.

mod common;

use proptest::prelude::*;
use shmkit::{DataError, Error, List, Segment, SegmentError, SyncError};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

roles!(appends, changes_until_told, reads);

fn segment() -> Segment {
    Segment::anonymous().unwrap()
}

fn list<T>() -> List<T> {
    List::new_in(&segment()).unwrap()
}

#[test]
fn elements_are_appended_found_replaced_and_taken() {
    let list = list::<String>();
    assert!(list.is_empty());
    assert_eq!(list.get(0).unwrap(), None);
    assert_eq!(list.pop().unwrap(), None);
    list.push("a").unwrap();
    list.push("b").unwrap();
    list.set(0, "A").unwrap();
    assert_eq!(list.to_vec().unwrap(), ["A", "b"]);
    assert_eq!(list.get(1).unwrap().as_deref(), Some("b"));
    assert_eq!(list.get(2).unwrap(), None);
    assert!(matches!(list.set(2, "c"), Err(Error::Segment(SegmentError::OutOfRange { index: 2, len: 2 }))));
    list.insert(2, "c").unwrap();
    list.insert(0, "0").unwrap();
    assert!(matches!(list.insert(5, "x"), Err(Error::Segment(SegmentError::OutOfRange { .. }))));
    assert_eq!(list.to_vec().unwrap(), ["0", "A", "b", "c"]);
    assert_eq!(list.remove(1).unwrap(), "A");
    assert_eq!(list.pop().unwrap().as_deref(), Some("c"));
    assert_eq!(list.remove(1).unwrap(), "b");
    assert!(list.remove(1).is_err());
    assert_eq!(list.to_vec().unwrap(), ["0"]);
    list.segment().verify().unwrap();
}

#[test]
fn the_other_operations_do_what_pythons_do() {
    let list = list::<i32>();
    list.extend([3, 1, 2, 3]).unwrap();
    assert_eq!(list.position(&3).unwrap(), Some(0));
    assert_eq!(list.position(&9).unwrap(), None);
    assert_eq!(list.count(&3).unwrap(), 2);
    assert!(list.contains(&2).unwrap() && !list.contains(&4).unwrap());
    list.sort().unwrap();
    assert_eq!(list.to_vec().unwrap(), [1, 2, 3, 3]);
    list.reverse().unwrap();
    assert_eq!(list.slice(1..3).unwrap(), [3, 2]);
    assert_eq!(list.slice(..=0).unwrap(), [3]);
    assert!(list.slice(3..5).is_err());
    list.splice(1..3, [10, 20, 30]).unwrap();
    assert_eq!(list.to_vec().unwrap(), [3, 10, 20, 30, 1]);
    list.splice(5.., [40]).unwrap();
    list.remove_range(..2).unwrap();
    assert_eq!(list.to_vec().unwrap(), [20, 30, 1, 40]);
    list.retain(|n| n % 20 == 0).unwrap();
    assert_eq!(list.update(1, |n| std::mem::replace(n, 41)).unwrap(), 40);
    assert_eq!(list.iter().map(Result::unwrap).collect::<Vec<_>>(), [20, 41]);
    list.clear().unwrap();
    assert_eq!(list.to_vec().unwrap(), [] as [i32; 0]);
    list.reverse().unwrap();
    list.sort().unwrap();
    list.remove_range(..).unwrap();
    list.segment().verify().unwrap();
}

#[test]
fn a_list_grows_and_shrinks_and_leaks_nothing() {
    let list = list::<u64>();
    let count = 5000;
    for n in 0..count {
        list.push(&n).unwrap();
        if n % 500 == 0 {
            list.segment().verify().unwrap();
        }
    }
    for n in 0..count {
        assert_eq!(list.get(n as usize).unwrap(), Some(n));
    }
    assert_eq!(list.get(count as usize).unwrap(), None);
    let full = list.memory();
    for _ in 0..3 {
        for n in (1000..count).rev() {
            assert_eq!(list.pop().unwrap(), Some(n));
        }
        list.segment().verify().unwrap();
        for n in 1000..count {
            list.push(&n).unwrap();
        }
        list.segment().verify().unwrap();
    }
    assert!(list.memory() <= full + full / 4, "{} bytes, {full} at first", list.memory());
    assert_eq!(list.to_vec().unwrap(), (0..count).collect::<Vec<_>>());
    for n in 0..600 {
        list.insert((n * 7) as usize, &(count + n)).unwrap();
        list.remove((n * 11 % 4000) as usize).unwrap();
    }
    list.segment().verify().unwrap();
    while !list.is_empty() {
        list.remove(0).unwrap();
        if list.len() > 4000 {
            list.remove_range(..100).unwrap();
        } else if list.len() > 1000 {
            list.remove_range(500..900).unwrap();
        }
    }
    list.segment().verify().unwrap();
    list.clear().unwrap();
    assert!(list.memory() < 4096);
}

#[test]
fn closures_under_the_lock_cannot_lock_again_and_a_panic_changes_nothing() {
    let list = list::<u32>();
    list.extend([1, 2, 3]).unwrap();
    list.update(0, |_| assert!(matches!(list.push(&1), Err(Error::Sync(SyncError::Deadlock))))).unwrap();
    let panicked = std::panic::catch_unwind(|| list.sort_by(|_, _| panic!("on purpose")));
    assert!(panicked.is_err());
    assert_eq!(list.to_vec().unwrap(), [1, 2, 3]);
    list.push(&4).unwrap();
    list.segment().verify().unwrap();
}

#[test]
fn a_full_segment_or_quota_is_a_clear_error_and_changes_nothing() {
    let segment = segment();
    let list = segment.list::<Vec<u8>>("limited").quota(300_000).create().unwrap();
    let error = loop {
        if let Err(error) = list.push(&vec![1; 500]) {
            break error;
        }
    };
    assert!(matches!(error, Error::Segment(SegmentError::OutOfMemory { .. })), "{error}");
    let len = list.len();
    assert!(len > 200);
    let copy = list.to_vec().unwrap();
    assert!(list.splice(1..2, (0..1000).map(|_| vec![2; 500])).is_err());
    assert!(list.insert(0, &vec![0; 1_000_000]).is_err());
    assert_eq!(list.to_vec().unwrap(), copy);
    segment.verify().unwrap();
    list.pop().unwrap();
    list.set(0, &vec![1; 500]).unwrap();
    segment.verify().unwrap();
}

#[test]
fn a_full_list_is_thinned_by_popping_or_clearing() {
    let segment = segment();
    let list = segment.list::<u64>("limited").quota(300_000).create().unwrap();
    let is_full = |result: shmkit::Result<()>| {
        let is_full = matches!(result, Err(Error::Segment(SegmentError::OutOfMemory { .. })));
        assert!(is_full || result.is_ok(), "{result:?}");
        is_full
    };
    let mut len = 0;
    while !is_full(list.push(&len)) {
        len += 1;
    }
    assert!(is_full(list.remove(0).map(drop)));
    assert!(is_full(list.remove_range(..1)));
    assert!(is_full(list.retain(|n| n % 2 == 0)));
    assert!(is_full(list.sort()) && is_full(list.reverse()));
    assert_eq!(list.to_vec().unwrap(), (0..len).collect::<Vec<_>>());
    segment.verify().unwrap();
    while is_full(list.remove(0).map(drop)) {
        list.pop().unwrap();
    }
    assert!(list.len() as u64 > len / 2, "few are in the way");
    list.clear().unwrap();
    list.push(&1).unwrap();
    segment.verify().unwrap();
}

#[test]
fn elements_keep_what_they_name_alive() {
    let segment = segment();
    let outer = List::<List<u32>>::new_in(&segment).unwrap();
    let before = segment.objects().len();
    for n in 0..100 {
        let inner = List::new_in(&segment).unwrap();
        inner.push(&n).unwrap();
        outer.push(&inner).unwrap();
    }
    assert_eq!(segment.objects().len(), before + 100);
    segment.verify().unwrap();
    outer.reverse().unwrap();
    outer.insert(50, &outer.get(0).unwrap().unwrap()).unwrap();
    assert_eq!(outer.get(50).unwrap().unwrap().get(0).unwrap(), Some(99));
    outer.remove_range(..50).unwrap();
    segment.verify().unwrap();
    assert_eq!(segment.objects().len(), before + 51, "one is there twice");
    outer.splice(1..=10, [outer.get(0).unwrap().unwrap()]).unwrap();
    assert_eq!(segment.objects().len(), before + 41);
    let last = outer.pop().unwrap().unwrap();
    drop(outer);
    assert_eq!(segment.objects().len(), before, "the list is gone, and all but the one we hold");
    assert_eq!(last.get(0).unwrap(), Some(0));
    drop(last);
    assert_eq!(segment.objects().len(), before - 1);
    segment.verify().unwrap();
}

#[test]
fn elements_of_the_wrong_type_are_an_error_and_stay() {
    let segment = segment();
    let texts = segment.list::<String>("l").create().unwrap();
    texts.push("no number").unwrap();
    let numbers = segment.list::<u8>("l").open().unwrap();
    assert!(matches!(numbers.get(0), Err(Error::Data(DataError::Codec { action: "read the value", .. }))));
    assert!(numbers.pop().is_err() && numbers.to_vec().is_err() && numbers.sort().is_err());
    assert_eq!(texts.to_vec().unwrap(), ["no number"]);
    segment.verify().unwrap();
}

// ---- compared with a model --------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Operation {
    Push(i64),
    Extend(Vec<i64>),
    Pop,
    Insert(prop::sample::Index, i64),
    Remove(prop::sample::Index),
    Set(prop::sample::Index, i64),
    Splice(prop::sample::Index, prop::sample::Index, Vec<i64>),
    Sort,
    Reverse,
    Retain(i64),
    Clear,
    Slice(prop::sample::Index, prop::sample::Index),
    RemoveRange(prop::sample::Index, prop::sample::Index),
    Update(prop::sample::Index, i64),
    Look(i64),
}

/// Some lie in their slot, others have a node.
fn element() -> impl Strategy<Value = i64> {
    prop_oneof![2 => 0..100i64, 1 => any::<i64>()]
}

fn operation() -> impl Strategy<Value = Operation> {
    let index = any::<prop::sample::Index>;
    let values = |most: usize| proptest::collection::vec(element(), 0..most);
    prop_oneof![
        6 => element().prop_map(Operation::Push),
        3 => values(700).prop_map(Operation::Extend),
        5 => Just(Operation::Pop),
        5 => (index(), element()).prop_map(|(index, value)| Operation::Insert(index, value)),
        5 => index().prop_map(Operation::Remove),
        4 => (index(), element()).prop_map(|(index, value)| Operation::Set(index, value)),
        2 => (index(), index(), values(30)).prop_map(|(a, b, values)| Operation::Splice(a, b, values)),
        1 => Just(Operation::Sort),
        1 => Just(Operation::Reverse),
        1 => (2..100i64).prop_map(Operation::Retain),
        1 => Just(Operation::Clear),
        2 => (index(), index()).prop_map(|(a, b)| Operation::Slice(a, b)),
        2 => (index(), index()).prop_map(|(a, b)| Operation::RemoveRange(a, b)),
        3 => (index(), element()).prop_map(|(index, more)| Operation::Update(index, more)),
        3 => element().prop_map(Operation::Look),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_list_does_what_a_vec_does(operations in proptest::collection::vec(operation(), 0..60)) {
        let list = list::<i64>();
        let mut model = Vec::<i64>::new();
        for operation in operations {
            let len = model.len();
            match operation {
                Operation::Push(value) => {
                    list.push(&value).unwrap();
                    model.push(value);
                }
                Operation::Extend(values) => {
                    list.extend(values.iter().copied()).unwrap();
                    model.extend(values);
                }
                Operation::Pop => prop_assert_eq!(list.pop().unwrap(), model.pop()),
                Operation::Insert(index, value) => {
                    let index = index.index(len + 1);
                    list.insert(index, &value).unwrap();
                    model.insert(index, value);
                }
                Operation::Remove(index) if len > 0 => {
                    let index = index.index(len);
                    prop_assert_eq!(list.remove(index).unwrap(), model.remove(index));
                }
                Operation::Set(index, value) if len > 0 => {
                    let index = index.index(len);
                    list.set(index, &value).unwrap();
                    model[index] = value;
                }
                Operation::Update(index, more) if len > 0 => {
                    let index = index.index(len);
                    let new = list.update(index, |value| {
                        *value = value.wrapping_add(more);
                        *value
                    });
                    model[index] = model[index].wrapping_add(more);
                    prop_assert_eq!(new.unwrap(), model[index]);
                }
                Operation::Remove(_) | Operation::Set(..) | Operation::Update(..) => {}
                Operation::Slice(a, b) => {
                    let (a, b) = (a.index(len + 1), b.index(len + 1));
                    prop_assert_eq!(list.slice(a.min(b)..a.max(b)).unwrap(), &model[a.min(b)..a.max(b)]);
                }
                Operation::RemoveRange(a, b) => {
                    let (a, b) = (a.index(len + 1), b.index(len + 1));
                    list.remove_range(a.min(b)..a.max(b)).unwrap();
                    model.drain(a.min(b)..a.max(b));
                }
                Operation::Look(value) => {
                    // One that is there, or hardly ever is.
                    for value in [value, model.last().copied().unwrap_or(0)] {
                        prop_assert_eq!(list.position(&value).unwrap(), model.iter().position(|other| *other == value));
                        prop_assert_eq!(list.count(&value).unwrap(), model.iter().filter(|other| **other == value).count());
                        prop_assert_eq!(list.contains(&value).unwrap(), model.contains(&value));
                    }
                }
                Operation::Splice(a, b, values) => {
                    let (a, b) = (a.index(len + 1), b.index(len + 1));
                    let range = a.min(b)..a.max(b);
                    list.splice(range.clone(), values.iter().copied()).unwrap();
                    model.splice(range, values);
                }
                Operation::Sort => {
                    list.sort().unwrap();
                    model.sort();
                }
                Operation::Reverse => {
                    list.reverse().unwrap();
                    model.reverse();
                }
                Operation::Retain(n) => {
                    list.retain(|value| value % n != 0).unwrap();
                    model.retain(|value| value % n != 0);
                }
                Operation::Clear => {
                    list.clear().unwrap();
                    model.clear();
                }
            }
            prop_assert_eq!(list.len(), model.len());
            prop_assert_eq!(list.get(model.len()).unwrap(), None);
            for index in (0..model.len()).step_by(97).chain(model.len().checked_sub(1)) {
                prop_assert_eq!(list.get(index).unwrap(), Some(model[index]));
            }
        }
        prop_assert_eq!(list.to_vec().unwrap(), model);
        list.segment().verify().unwrap();
    }
}

// ---- several at once ------------------------------------------------------------------------------------------------------

fn appends(arguments: &[String]) {
    let list = Segment::open(&arguments[0]).unwrap().list::<(u32, u32)>("list").open().unwrap();
    let me = std::process::id();
    (0..1000).for_each(|n| list.push(&(me, n)).unwrap());
}

#[test]
fn what_several_processes_append_is_all_there_and_in_order() {
    let segment = common::named("list-appends");
    let list = segment.list::<(u32, u32)>("list").create().unwrap();
    let mut children: Vec<_> = (0..3).map(|_| common::start("appends", &[&segment.name])).collect();
    children.iter_mut().for_each(common::Child::succeeded);
    let all = list.to_vec().unwrap();
    for child in &children {
        let own: Vec<u32> = all.iter().filter(|(pid, _)| *pid == child.pid()).map(|&(_, n)| n).collect();
        assert_eq!(own, (0..1000).collect::<Vec<_>>());
    }
    segment.verify().unwrap();
}

/// Elements that are always there, and the most there are.
const LEAST: usize = 600;
const MOST: usize = 1400;

/// An element that tells its index, and that it is whole.
fn telling(index: usize, n: u64) -> Vec<u64> {
    let mut value = vec![n; 2 + (n % 25) as usize];
    value[0] = index as u64;
    value
}

/// Whether it is whole, and has been at that index: those behind an insertion are one further until the removal after it.
fn assert_told(value: &[u64], index: usize) {
    let n = value[1];
    assert!(value.len() as u64 == 2 + n % 25 && value[1..].iter().all(|&word| word == n), "torn: {value:?}");
    let told = value[0] as usize;
    assert!(told == index || told + 1 == index, "the element of index {told} at index {index}");
}

/// Replaces elements, shifts them by an insertion and a removal, which split chunks, takes elements away and appends others, so
/// that chunks go and come in the same place, and has all of it laid out anew at times. Element i tells that it is i.
fn changes_until_told(arguments: &[String]) {
    let list = Segment::open(&arguments[0]).unwrap().list::<Vec<u64>>("list").open().unwrap();
    common::say("ready");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            common::listen();
            stop.store(true, Ordering::Relaxed);
        });
        let mut n = 0;
        while !stop.load(Ordering::Relaxed) {
            let round = n as usize;
            let mut next = |index| {
                n += 1;
                telling(index, n)
            };
            while list.len() < MOST {
                list.push(&next(list.len())).unwrap();
            }
            for place in [0, round * 7 % LEAST, round * 13 % MOST, round * 17 % MOST] {
                list.set(place, &next(place)).unwrap();
                list.insert(place, &next(place)).unwrap();
                list.remove(place + 1).unwrap();
            }
            if round.is_multiple_of(5) {
                list.sort_by(|a, b| a[0].cmp(&b[0])).unwrap();
            }
            if round.is_multiple_of(3) {
                list.remove_range(LEAST + round % 300..).unwrap();
            }
            while list.len() > LEAST + round * 11 % 300 {
                list.pop().unwrap();
            }
            list.insert(0, &next(0)).unwrap();
            list.remove(1).unwrap();
        }
    });
}

fn reads(arguments: &[String]) {
    let list = Segment::open(&arguments[0]).unwrap().list::<Vec<u64>>("list").open().unwrap();
    for n in 0..arguments[1].parse::<usize>().unwrap() {
        let index = n * 31 % MOST;
        match list.get(index).unwrap() {
            Some(value) => assert_told(&value, index),
            None => assert!(index >= LEAST, "the first {LEAST} are always there: {index}"),
        }
    }
}

/// Two processes read so many elements each, while another one writes, and is stopped again and again.
fn torn_reads(reads: u64) {
    let segment = common::named("list-torn");
    let list = segment.list::<Vec<u64>>("list").create().unwrap();
    list.extend((0..LEAST).map(|n| telling(n, 0))).unwrap();
    let mut writer = common::start("changes_until_told", &[&segment.name]);
    writer.expect("ready");
    let mut readers: Vec<_> = (0..2).map(|_| common::start("reads", &[&segment.name, &reads.to_string()])).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            readers.iter_mut().for_each(common::Child::succeeded);
            done.store(true, Ordering::Relaxed);
        });
        let first = || list.get(0).unwrap().expect("it is always there")[1];
        let mut stops = 0;
        while stops < 50 || !done.load(Ordering::Relaxed) {
            writer.signal(libc::SIGSTOP);
            for index in (0..LEAST).step_by(7) {
                assert_told(&list.get(index).unwrap().expect("it is always there"), index);
            }
            let before = first();
            writer.signal(libc::SIGCONT);
            // It gets somewhere until it is stopped again.
            while first() == before {
                std::thread::yield_now();
            }
            stops += 1;
        }
    });
    writer.tell("stop");
    writer.succeeded();
    segment.verify().unwrap();
}

#[test]
fn readers_of_a_busy_list_see_whole_elements_and_never_miss_one() {
    torn_reads(60_000);
}

#[test]
#[ignore = "minutes, with --release"]
fn a_hundred_million_reads_of_a_busy_list_find_none_torn() {
    torn_reads(50_000_000);
}

/// Rounds of which the reader has been told to stand still, and those whose changes are made.
static STANDING: AtomicU64 = AtomicU64::new(0);
static CHANGED: AtomicU64 = AtomicU64::new(0);

/// A handler: stands still until the changes of this round are made.
extern "C" fn stand_still(_: libc::c_int) {
    let round = STANDING.fetch_add(1, Ordering::SeqCst);
    while CHANGED.load(Ordering::SeqCst) <= round {
        // SAFETY: no preconditions; it may be called in a handler.
        unsafe { libc::sched_yield() };
    }
}

/// Once a round the reader is stopped wherever it is. Meanwhile the second of two chunks is popped empty and unlinked, the first one
/// filled, and another chunk linked in the place of the second, which starts elsewhere: the directory stays the same.
#[test]
fn a_reader_that_stands_still_anywhere_finds_the_element_of_its_index() {
    let list = list::<u64>();
    let push_to = |len: usize| (list.len()..len).for_each(|n| list.push(&(n as u64)).unwrap());
    let handler = stand_still as extern "C" fn(libc::c_int);
    // SAFETY: the handler stores to atomics and yields, nothing else.
    unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
    push_to(520);
    let (tell, told) = std::sync::mpsc::channel();
    let done = AtomicBool::new(false);
    let wrong = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            // SAFETY: no preconditions.
            tell.send(unsafe { libc::pthread_self() }).unwrap();
            let mut wrong = None;
            for index in (255..263).cycle() {
                let found = list.get(index).unwrap();
                // Those behind an insertion are one further until the removal after it.
                let is_wrong = |&told: &u64| told != index as u64 && told + 1 != index as u64;
                wrong = wrong.or(found.filter(is_wrong).map(|told| (index, told)));
                if done.load(Ordering::SeqCst) {
                    return wrong;
                }
            }
            unreachable!("a cycle has no end");
        });
        let thread = told.recv().unwrap();
        for round in 1..=1000 {
            // The full chunk is split: the reader's elements are in the second half.
            list.insert(0, &0).unwrap();
            list.remove(1).unwrap();
            while list.len() > 270 {
                list.pop().unwrap();
            }
            // SAFETY: the thread runs until it is told that all is done.
            unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
            common::until(|| STANDING.load(Ordering::SeqCst) == round);
            while list.len() > 250 {
                list.pop().unwrap();
            }
            list.remove(1).unwrap();
            list.insert(1, &1).unwrap();
            push_to(520);
            CHANGED.store(round, Ordering::SeqCst);
        }
        done.store(true, Ordering::SeqCst);
        reader.join().unwrap()
    });
    assert_eq!(wrong, None, "index and element");
    list.segment().verify().unwrap();
}

#[test]
fn what_serde_cannot_write_is_an_error() {
    struct Unwritable;
    impl serde::Serialize for Unwritable {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("not today"))
        }
    }
    let refused = list::<Unwritable>().push(&Unwritable).unwrap_err();
    assert!(matches!(&refused, Error::Data(DataError::Codec { action: "write the value", .. })), "{refused}");
}
