//! Heaps: boxes, links and swings, used for structures of one's own, by several processes at once.

mod common;
#[path = "common/sorted.rs"]
mod sorted;

use proptest::prelude::*;
use shmkit::heap::{Heap, Ptr};
use shmkit::{Error, Process, Segment, SegmentError, SyncError};
use sorted::{Pair, all, double, insert, pairs, remove};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

roles!(replaces_until_told, reads_pairs, pushes);

fn heap() -> Heap {
    Heap::new_in(&Segment::anonymous().unwrap()).unwrap()
}

#[derive(Debug, Clone)]
enum Operation {
    Insert(u64, u64),
    Remove(u64),
    Double,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        5 => (0..40u64, any::<u64>()).prop_map(|(key, value)| Operation::Insert(key, value)),
        3 => (0..40u64).prop_map(Operation::Remove),
        1 => Just(Operation::Double),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    #[test]
    fn a_structure_of_ones_own_does_what_its_model_does(operations in proptest::collection::vec(operation(), 0..80)) {
        let heap = heap();
        let mut model = BTreeMap::new();
        for operation in operations {
            match operation {
                Operation::Insert(key, value) => {
                    prop_assert_eq!(insert(&heap, key, value).unwrap(), model.insert(key, value));
                }
                Operation::Remove(key) => prop_assert_eq!(remove(&heap, key).unwrap(), model.remove(&key)),
                Operation::Double => {
                    double(&heap).unwrap();
                    model.values_mut().for_each(|value| *value = value.wrapping_mul(2));
                }
            }
            prop_assert_eq!(all(&heap), model.iter().map(|(&key, &value)| (key, value)).collect::<Vec<_>>());
            prop_assert_eq!(heap.len(), model.len());
            heap.segment().verify().unwrap();
        }
    }
}

// ---- one by one -------------------------------------------------------------------------------------------------------------

#[test]
fn boxes_have_values_of_any_size_and_links_of_any_number() {
    let heap = heap();
    let root = heap.root::<[u8; 3]>(15).unwrap();
    assert!(matches!(heap.root::<u8>(16), Err(Error::Segment(SegmentError::OutOfRange { index: 16, len: 16 }))));
    assert!(root.ptr().is_null());
    heap.change(|change| {
        let large = change.new_box(&[7u64; 1000], &[Ptr::<u8>::NULL; 0])?;
        let empty = change.new_box(&[0u64; 0], &[Ptr::<u8>::NULL; 0])?;
        let small = change.new_box(&[1u8, 2, 3], &[large.cast::<()>(), empty.cast(), Ptr::NULL])?;
        change.swing(root, small)
    })
    .unwrap();
    let found = heap
        .read(|reader| {
            let small = reader.follow(root)?.expect("just swung");
            let large = reader.follow(small.link::<[u64; 1000]>(0).expect("of three"))?.expect("linked");
            let empty = reader.follow(small.link::<[u64; 0]>(1).expect("of three"))?.is_some();
            let none = reader.follow(small.link::<u8>(2).expect("of three"))?.is_none();
            Ok((small.value(), large.value()[999], empty, none, small.link::<u8>(3).is_none(), small.links()))
        })
        .unwrap();
    assert_eq!(found, ([1, 2, 3], 7, true, true, true, 3));
    assert_eq!(heap.len(), 3);
    // Of another type than it was made with.
    let wrong = heap.root::<u64>(15).unwrap();
    assert!(matches!(
        heap.read(|reader| reader.follow(wrong).map(drop)),
        Err(Error::Segment(SegmentError::Corrupt { .. }))
    ));
    assert!(heap.change(|change| change.follow(wrong).map(drop)).is_err());
    heap.segment().verify().unwrap();
}

#[test]
fn what_was_not_swung_is_undone() {
    let heap = heap();
    insert(&heap, 1, 10).unwrap();
    let root = heap.root::<Pair>(0).unwrap();
    let forgotten = heap.change(|change| change.new_box(&[9u64, 9], &[root.ptr()])).unwrap();
    assert!(matches!(heap.change(|change| change.get(forgotten).map(drop)), Err(Error::Segment(SegmentError::Gone))));
    let failed = heap.change(|change| {
        change.reserve(10)?;
        (0..10).try_for_each(|n| change.new_box(&[n, n], &[root.ptr()]).map(drop))?;
        change.retire(root.ptr())?;
        Err::<(), _>(Error::Other("no".to_owned()))
    });
    assert_eq!(failed.unwrap_err().to_string(), "no");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        heap.change(|change| {
            let new = change.new_box(&[2u64, 2], &[root.ptr()])?;
            change.swing(root, new)?;
            change.new_box(&[3u64, 3], &[root.ptr()])?;
            panic!("in the middle");
            #[allow(unreachable_code)]
            Ok(())
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(all(&heap), [(2, 2), (1, 10)], "what was swung before the panic stays");
    heap.segment().verify().unwrap();
}

#[test]
fn mistakes_are_told_and_change_nothing() {
    let (heap, other) = (heap(), heap());
    insert(&heap, 1, 10).unwrap();
    insert(&other, 1, 10).unwrap();
    let (root, foreign) = (heap.root::<Pair>(0).unwrap(), other.root::<Pair>(0).unwrap());
    let gone = |result: shmkit::Result<()>| assert!(matches!(result, Err(Error::Segment(SegmentError::Gone))));
    // A cell of another heap, a box that was freed, a link of a box that was freed.
    gone(heap.change(|change| change.swing(foreign, Ptr::NULL)));
    let (old, inside) = heap
        .change(|change| {
            let old = change.follow(root)?.expect("inserted");
            Ok((old.ptr(), old.link::<Pair>(0).expect("made with one link")))
        })
        .unwrap();
    insert(&heap, 1, 11).unwrap();
    gone(heap.change(|change| change.swing(root, old)));
    gone(heap.change(|change| change.retire(old)));
    gone(heap.change(|change| change.swing(inside, Ptr::NULL)));
    // Retired twice is retired once.
    heap.change(|change| {
        change.retire(root.ptr())?;
        change.retire(root.ptr())?;
        change.swing(root, Ptr::NULL)
    })
    .unwrap();
    assert!(heap.is_empty());
    let many = heap.change(|change| (0..4).try_for_each(|n: u64| change.new_box(&n, &[Ptr::<u64>::NULL; 0]).map(drop)));
    assert!(matches!(many, Err(Error::Segment(SegmentError::InvalidSize { found: 4, .. }))));
    let again = heap.change(|change| change.reserve(1).and_then(|()| change.reserve(1)));
    assert!(matches!(again, Err(Error::Segment(SegmentError::InvalidSize { .. }))));
    let inner = heap.change(|_| heap.change(|_| Ok(())));
    assert!(matches!(inner, Err(Error::Sync(SyncError::Deadlock))));
    let lost = heap.change(|change| {
        let new = change.new_box(&[1u64, 1], &[Ptr::<Pair>::NULL])?;
        change.swing(root, new)?;
        change.swing(root, Ptr::NULL)
    });
    lost.unwrap();
    assert!(heap.segment().verify().is_err(), "nothing leads to a box that was not retired");
}

#[test]
fn a_full_heap_is_a_clear_error_and_changes_nothing() {
    let segment = Segment::anonymous().unwrap();
    let heap = segment.heap("heap").quota(200_000).create().unwrap();
    let mut key = 0;
    let error = loop {
        match insert(&heap, key, key) {
            Ok(_) => key += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Segment(SegmentError::OutOfMemory { .. })), "{error}");
    assert!(heap.memory() <= 200_000 + 4096 && key > 100);
    assert_eq!(all(&heap), (0..key).map(|key| (key, key)).collect::<Vec<_>>());
    assert!(double(&heap).is_err());
    segment.verify().unwrap();
    assert_eq!(remove(&heap, 5).unwrap(), Some(5));
    insert(&heap, 5, 6).unwrap();
    heap.set_quota(0);
    double(&heap).unwrap();
    assert_eq!(all(&heap)[5], (5, 12));
    segment.verify().unwrap();
}

// ---- several at once --------------------------------------------------------------------------------------------------------

/// Two boxes below a third have the same number.
fn replace(heap: &Heap, n: u64) -> shmkit::Result<()> {
    let root = heap.root::<u64>(1)?;
    heap.change(|change| {
        let numbers =
            [change.new_box(&[n; 6], &[Ptr::<u8>::NULL; 0])?, change.new_box(&[n; 6], &[Ptr::<u8>::NULL; 0])?];
        let both = change.new_box(&n, &numbers)?;
        if let Some(old) = change.follow(root)? {
            for number in 0..2 {
                change.retire(old.link::<[u64; 6]>(number).expect("made with two links").ptr())?;
            }
            change.retire(old.ptr())?;
        }
        change.swing(root, both)
    })
}

fn replaces_until_told(arguments: &[String]) {
    let heap = Segment::open(&arguments[0]).unwrap().heap("heap").open().unwrap();
    common::say("ready");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            common::listen();
            stop.store(true, Ordering::Relaxed);
        });
        let mut n = 1;
        while !stop.load(Ordering::Relaxed) {
            replace(&heap, n).unwrap();
            insert(&heap, n % 20, n).unwrap();
            remove(&heap, n * 7 % 20).unwrap();
            n += 1;
        }
    });
}

fn reads_pairs(arguments: &[String]) {
    let heap = Segment::open(&arguments[0]).unwrap().heap("heap").open().unwrap();
    let (root, list) = (heap.root::<u64>(1).unwrap(), heap.root::<Pair>(0).unwrap());
    let mut last = 0;
    for _ in 0..arguments[1].parse::<u64>().unwrap() {
        let (n, a, b) = heap
            .read(|reader| {
                let both = reader.follow(root)?.expect("always there");
                let numbers = |number| both.link::<[u64; 6]>(number).expect("made with two links");
                let read = |number| Ok(reader.follow(numbers(number))?.expect("both are linked").value());
                Ok((both.value(), read(0)?, read(1)?))
            })
            .unwrap();
        assert!(a == [n; 6] && b == [n; 6], "torn: {n} {a:?} {b:?}");
        assert!(n >= last, "older than what was read before");
        last = n;
        let all = heap.read(|reader| pairs(reader, list)).unwrap();
        assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0), "{all:?}");
        assert!(all.iter().all(|&(key, value)| value % 20 == key), "{all:?}");
    }
}

#[test]
fn readers_of_a_busy_heap_see_whole_structures() {
    let segment = common::named("heap-busy");
    let heap = segment.heap("heap").create().unwrap();
    replace(&heap, 0).unwrap();
    let mut writer = common::start("replaces_until_told", &[&segment.name]);
    writer.expect("ready");
    let mut readers: Vec<_> = (0..2).map(|_| common::start("reads_pairs", &[&segment.name, "5000"])).collect();
    readers.iter_mut().for_each(common::Child::succeeded);
    let root = heap.root::<u64>(1).unwrap();
    for _ in 0..20 {
        writer.signal(libc::SIGSTOP);
        assert!(heap.read(|reader| Ok(reader.follow(root)?.is_some())).unwrap());
        writer.signal(libc::SIGCONT);
    }
    writer.tell("stop");
    writer.succeeded();
    segment.verify().unwrap();
}

fn pushes(arguments: &[String]) {
    let heap = Segment::open(&arguments[0]).unwrap().heap("heap").open().unwrap();
    let first: u64 = arguments[1].parse().unwrap();
    (first..first + 200).for_each(|key| assert_eq!(insert(&heap, key, key).unwrap(), None));
}

#[test]
fn what_several_processes_insert_is_all_there() {
    let segment = common::named("heap-inserts");
    let heap = segment.heap("heap").create().unwrap();
    let mut children: Vec<_> = ["0", "200", "400"].map(|first| common::start("pushes", &[&segment.name, first])).into();
    children.iter_mut().for_each(common::Child::succeeded);
    assert_eq!(all(&heap), (0..600).map(|key| (key, key)).collect::<Vec<_>>());
    segment.verify().unwrap();
}

#[test]
fn a_handle_can_be_sent_and_the_last_one_frees_it() {
    let segment = Segment::anonymous().unwrap();
    let before = segment.objects().len();
    let heap = Heap::new_in(&segment).unwrap();
    let child = Process::new(|heap: Heap| insert(&heap, 1, 2).map(drop)).args((heap.clone(),)).start().unwrap();
    child.join().unwrap().check().unwrap();
    assert_eq!(all(&heap), [(1, 2)]);
    drop(heap);
    assert_eq!(segment.objects().len(), before);
    segment.verify().unwrap();
}
