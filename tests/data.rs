//! Values and arrays: between threads and processes.

mod common;

use proptest::prelude::*;
use shmkit::{Array, Error, LockError, Segment, SegmentError, SyncError, Value};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

roles!(counter, storer, holds_value, holds_array, adds_to_array, squares, waits_for_value);

fn code(error: impl Into<Error>) -> u32 {
    error.into().code()
}

/// A guard's error, whatever the guard.
macro_rules! failed {
    ($result:expr) => {
        match $result {
            Ok(_) => panic!("it should have failed"),
            Err(error) => Error::from(error).code(),
        }
    };
}

fn deadlock() -> u32 {
    code(SyncError::Deadlock)
}

// ---- Value -----------------------------------------------------------------------------------------------------------

#[test]
fn a_value_of_any_size_gives_what_was_stored() {
    fn check<T: shmkit::Element + PartialEq + std::fmt::Debug>(segment: &Segment, first: T, second: T) {
        let name = format!("{}-{}", T::NAME, size_of::<T>());
        let value = segment.value::<T>(&name).initial(first).create().unwrap();
        assert_eq!(value.get().unwrap(), first);
        value.set(second).unwrap();
        let other = segment.value::<T>(&name).open().unwrap();
        assert_eq!(other.get().unwrap(), second);
        other.update(|value| *value = first).unwrap();
        assert_eq!(value.get().unwrap(), first);
        *value.lock().unwrap() = second;
        assert_eq!(*other.lock().unwrap(), second);
        assert_eq!(other.get().unwrap(), second);
        let zero = Value::<T>::new_in(segment, T::zeroed()).unwrap();
        assert_eq!(zero.get().unwrap(), T::zeroed());
    }
    let segment = common::named("value-sizes");
    check(&segment, 1u8, 255);
    check(&segment, -1i16, 300);
    check(&segment, 1.5f32, -2.5);
    check(&segment, u64::MAX, 1);
    check(&segment, [0u8; 0], []);
    check(&segment, [1u8, 2, 3], [4, 5, 6]);
    check(&segment, [1u16, 2, 3], [4, 5, 6]);
    check(&segment, [7u8; 7], [8; 7]);
    check(&segment, [9u8; 9], [10; 9]);
    check(&segment, [1.0f64; 2], [-1.0, 2.0]);
    check(&segment, [[3u16; 5]; 5], [[4; 5]; 5]);
    check(&segment, [1u64; 1000], [2; 1000]);
}

#[test]
fn a_value_is_found_by_its_name_and_type_only() {
    let segment = common::named("value-names");
    let _hits = segment.value::<u64>("hits").initial(7).create().unwrap();
    assert_eq!(segment.value::<u64>("hits").initial(9).open_or_create().unwrap().get().unwrap(), 7);
    assert!(matches!(
        segment.value::<u32>("hits").open(),
        Err(Error::Segment(SegmentError::WrongElement { ref found, ref wanted, .. })) if found.contains("u64") && wanted.contains("u32")
    ));
    assert!(matches!(
        segment.array::<u64>("hits").open(),
        Err(Error::Segment(SegmentError::WrongKind { found: "value", wanted: "array", .. }))
    ));
    assert!(matches!(segment.value::<u64>("hits").create(), Err(Error::Segment(SegmentError::ObjectExists { .. }))));
    assert!(matches!(segment.value::<u64>("none").open(), Err(Error::Segment(SegmentError::ObjectNotFound { .. }))));
}

#[test]
fn numbers_are_changed_by_one_instruction() {
    let segment = Segment::anonymous().unwrap();
    let value = Value::new_in(&segment, 250u8).unwrap();
    assert_eq!(value.fetch_add(10), 250);
    assert_eq!(value.load(), 4);
    assert_eq!(value.fetch_sub(5), 4);
    assert_eq!(value.get().unwrap(), 255);
    assert_eq!(value.fetch_and(0x0F), 255);
    assert_eq!(value.fetch_or(0x30), 0x0F);
    assert_eq!(value.fetch_xor(0xFF), 0x3F);
    assert_eq!(value.swap(9), 0xC0);
    assert_eq!(value.compare_exchange(9, 10), Ok(9));
    assert_eq!(value.compare_exchange(9, 11), Err(10));
    assert_eq!(value.fetch_max(3), 10);
    assert_eq!(value.fetch_min(3), 10);
    value.store(77);
    assert_eq!(value.load(), 77);

    let signed = Value::new_in(&segment, i64::MIN).unwrap();
    assert_eq!(signed.fetch_sub(1), i64::MIN);
    assert_eq!(signed.load(), i64::MAX);
    assert_eq!(signed.fetch_min(-1), i64::MAX);
    assert_eq!(signed.load(), -1);

    let float = Value::new_in(&segment, 1.5f64).unwrap();
    assert_eq!(float.fetch_add(2.0), 1.5);
    assert_eq!(float.fetch_max(9.0), 3.5);
    assert_eq!(float.fetch_sub(0.5), 9.0);
    assert_eq!(float.compare_exchange(8.5, -0.0), Ok(8.5));
    assert_eq!(float.compare_exchange(0.0, 1.0), Err(-0.0), "compared bit by bit");
    assert_eq!(float.swap(1.0), 0.0);
}

#[test]
fn a_value_lies_where_its_pointer_says() {
    let segment = Segment::anonymous().unwrap();
    let value = Value::new_in(&segment, 5u32).unwrap();
    // SAFETY: the value lives, and everybody uses atomics.
    let word = unsafe { std::sync::atomic::AtomicU32::from_ptr(value.as_ptr()) };
    word.fetch_add(1, Ordering::Relaxed);
    assert_eq!(value.get().unwrap(), 6);
}

/// Adds `n` in one of the ways.
fn counter(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let n: u64 = arguments[2].parse().unwrap();
    let (word, large) =
        (segment.value::<u64>("word").open().unwrap(), segment.value::<[u64; 5]>("large").open().unwrap());
    common::say("ready");
    common::listen();
    for _ in 0..n {
        match arguments[1].as_str() {
            "atomic" => drop(word.fetch_add(1)),
            "guard" => *word.lock().unwrap() += 1,
            "large" => large.lock().unwrap()[4] += 1,
            _ => large.update(|large| large[4] += 1).unwrap(),
        }
    }
}

#[test]
fn no_addition_of_two_processes_is_lost() {
    let segment = common::named("value-count");
    let word = segment.value::<u64>("word").create().unwrap();
    let large = segment.value::<[u64; 5]>("large").create().unwrap();
    const N: u64 = 5000;
    for how in ["atomic", "guard", "large", "update"] {
        let mut children: Vec<_> =
            (0..2).map(|_| common::start("counter", &[&segment.name, how, &N.to_string()])).collect();
        children.iter_mut().for_each(|child| child.expect("ready"));
        children.iter_mut().for_each(|child| child.tell("go"));
        children.iter_mut().for_each(common::Child::succeeded);
    }
    assert_eq!(word.get().unwrap(), 4 * N);
    assert_eq!(large.get().unwrap(), [0, 0, 0, 0, 4 * N]);
}

/// Stores values whose words are all the same, one greater than the other, until it is told to stop.
fn storer(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let value = segment.value::<[u64; 8]>("v").open().unwrap();
    let stop = segment.value::<u32>("stop").open().unwrap();
    let mut n = 1;
    while stop.load() == 0 {
        value.set([n; 8]).unwrap();
        n += 1;
    }
    common::say(&n.to_string());
}

#[test]
fn a_reader_never_sees_parts_of_two_values() {
    let segment = common::named("value-torn");
    let value = segment.value::<[u64; 8]>("v").create().unwrap();
    let stop = segment.value::<u32>("stop").create().unwrap();
    let mut writer = common::start("storer", &[&segment.name]);
    // It goes on until values of the writer were seen often enough, however the two are scheduled.
    let (mut last, mut changes, mut reads) = (0, 0, 0u64);
    while reads < 2_000_000 || changes < 100 {
        let seen = value.get().unwrap();
        assert!(seen.iter().all(|&word| word == seen[0]), "torn: {seen:?}");
        assert!(seen[0] >= last, "older than one read before: {} after {last}", seen[0]);
        changes += u64::from(seen[0] != last);
        last = seen[0];
        reads += 1;
    }
    stop.store(1);
    let stored: u64 = writer.hear().parse().unwrap();
    assert!(stored > last);
    writer.succeeded();
    println!("{reads} reads saw {changes} changes of {stored} values");
}

#[test]
fn a_guard_publishes_at_its_end_and_all_at_once() {
    let segment = Segment::anonymous().unwrap();
    let value = Value::new_in(&segment, [1u64; 4]).unwrap();
    let mut guard = value.lock().unwrap();
    guard[0] = 2;
    assert_eq!(value.get().unwrap(), [1; 4], "not yet");
    guard.publish();
    assert_eq!(value.get().unwrap(), [2, 1, 1, 1]);
    guard[1] = 2;
    drop(guard);
    assert_eq!(value.get().unwrap(), [2, 2, 1, 1]);
}

#[test]
fn a_panic_leaves_the_old_value_and_a_free_lock() {
    let segment = Segment::anonymous().unwrap();
    let value = Value::new_in(&segment, [1u64; 4]).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        value.update(|value| {
            value[0] = 9;
            panic!("in the middle");
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(value.get().unwrap(), [1; 4]);
    value.set([3; 4]).unwrap();
    assert_eq!(value.get().unwrap(), [3; 4]);
}

#[test]
fn a_guard_used_while_a_panic_unwinds_still_publishes() {
    struct AddOne(Value<u64>);
    impl Drop for AddOne {
        fn drop(&mut self) {
            *self.0.lock().unwrap() += 1;
        }
    }
    let segment = Segment::anonymous().unwrap();
    let value = Value::new_in(&segment, 1u64).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _add = AddOne(value.clone());
        panic!("elsewhere");
    }));
    assert!(panicked.is_err());
    assert_eq!(value.get().unwrap(), 2);
    *value.lock().unwrap() += 1;
    assert_eq!(value.get().unwrap(), 3);
}

#[test]
fn a_thread_that_would_wait_for_itself_is_told() {
    let segment = Segment::anonymous().unwrap();
    let value = Value::new_in(&segment, 1u64).unwrap();
    let array = Array::from_slice_in(&segment, &[1u64, 2]).unwrap();
    let (in_value, in_array) = (value.lock().unwrap(), array.lock().unwrap());
    assert_eq!(failed!(value.set(2)), deadlock());
    assert_eq!(failed!(value.lock()), deadlock());
    assert_eq!(failed!(array.get(0)), deadlock());
    assert_eq!(failed!(array.lock()), deadlock());
    assert_eq!(value.get().unwrap(), 1, "reading takes no lock");
    assert_eq!(failed!(value.try_lock()), code(SyncError::WouldBlock { what: "value", holder: None }));
    drop((in_value, in_array));
    value.set(2).unwrap();
    array.set(0, 2).unwrap();
    // Another thread of the process waits as usual.
    let guard = value.lock().unwrap();
    let waited = std::thread::scope(|scope| {
        scope.spawn(|| failed!(value.lock_timeout(Duration::from_millis(1)))).join().unwrap()
    });
    let timed_out = SyncError::TimedOut { what: "value", waited: Duration::ZERO, holder: None };
    assert_eq!(waited, code(timed_out));
    drop(guard);
}

/// Takes the value's lock, changes the copy, and waits to be killed.
fn holds_value(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let value = segment.value::<[u64; 2]>("v").open().unwrap();
    let mut guard = value.lock().unwrap();
    guard[0] = 99;
    common::say("held");
    common::listen();
}

#[test]
fn readers_go_on_beside_a_stopped_or_dead_writer() {
    let segment = common::named("value-dead");
    let value = segment.value::<[u64; 2]>("v").initial([1, 2]).create().unwrap();
    let mut child = common::start("holds_value", &[&segment.name]);
    child.expect("held");
    child.signal(libc::SIGSTOP);
    assert_eq!(value.get().unwrap(), [1, 2]);
    let Err(Error::Sync(SyncError::WouldBlock { holder: Some(holder), .. })) = value.try_lock() else {
        panic!("the lock is held")
    };
    assert_eq!(holder.pid, child.pid());
    child.kill();
    value.set([3, 4]).unwrap();
    assert_eq!(*value.lock().unwrap(), [3, 4]);
}

/// Waits until the value reads what it is told, without a lock.
fn waits_for_value(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let value = segment.value::<[u64; 2]>("v").open().unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&[5, 5]) {
        let now = value.get().unwrap();
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        std::thread::yield_now();
    }
    common::say(&seen.len().to_string());
}

#[test]
fn what_is_set_is_seen_in_another_process() {
    let segment = common::named("value-seen");
    let value = segment.value::<[u64; 2]>("v").create().unwrap();
    let mut child = common::start("waits_for_value", &[&segment.name]);
    value.set([5, 5]).unwrap();
    let changes: u32 = child.hear().parse().unwrap();
    assert!((1..=2).contains(&changes));
    child.succeeded();
}

// ---- Array -----------------------------------------------------------------------------------------------------------

#[test]
fn an_array_is_read_and_written_in_parts_and_as_a_whole() {
    let segment = common::named("array");
    let array = segment.array::<f64>("xs").len(6).create().unwrap();
    assert_eq!(array.len(), 6);
    assert_eq!(array.to_vec().unwrap(), [0.0; 6]);
    array.set(5, 5.5).unwrap();
    array.write(1, &[1.0, 2.0]).unwrap();
    let other = segment.array::<f64>("xs").open().unwrap();
    assert_eq!(other.read(..).unwrap(), [0.0, 1.0, 2.0, 0.0, 0.0, 5.5]);
    assert_eq!(other.read(1..=2).unwrap(), [1.0, 2.0]);
    assert_eq!(other.read(6..).unwrap(), [0.0; 0]);
    let mut part = [0.0; 2];
    other.read_into(4, &mut part).unwrap();
    assert_eq!(part, [0.0, 5.5]);
    other.lock().unwrap().reverse();
    assert_eq!(array.get(0).unwrap(), 5.5);
    assert_eq!(array.iter().unwrap().sum::<f64>(), 8.5);
    array.fill(7.0).unwrap();
    assert_eq!(other.lock().unwrap().len(), 6);
    assert_eq!(*other.lock().unwrap(), [7.0; 6]);
    let copied = segment.array::<u8>("bytes").initial(b"abc").create().unwrap();
    assert_eq!(copied.to_vec().unwrap(), b"abc");
    assert!(Array::<u64>::new_in(&segment, 0).unwrap().is_empty());
}

#[test]
fn an_index_out_of_range_is_an_error_that_says_both_numbers() {
    let segment = Segment::anonymous().unwrap();
    let array = Array::from_slice_in(&segment, &[1u32, 2, 3]).unwrap();
    let index = |error: Error| match error {
        Error::Segment(SegmentError::OutOfRange { index, len: 3 }) => index,
        other => panic!("{other}"),
    };
    assert_eq!(index(array.get(3).unwrap_err()), 3);
    assert_eq!(index(array.set(usize::MAX, 1).unwrap_err()), u64::MAX);
    assert_eq!(index(array.read(1..5).unwrap_err()), 5);
    assert_eq!(index(array.read(..=3).unwrap_err()), 3);
    assert_eq!(index(array.read(..=usize::MAX).unwrap_err()), u64::MAX);
    #[allow(clippy::reversed_empty_ranges, reason = "that is what is tested")]
    let reversed = array.read(2..1);
    assert_eq!(index(reversed.unwrap_err()), 2);
    assert_eq!(index(array.write(2, &[1, 2]).unwrap_err()), 4);
    assert_eq!(index(array.write(usize::MAX, &[1, 2]).unwrap_err()), u64::MAX);
    assert_eq!(index(array.fetch_add(7, 1).unwrap_err()), 7);
    // SAFETY: nobody else uses the array.
    assert_eq!(index(unsafe { array.range(0..4) }.unwrap_err()), 4);
    // SAFETY: likewise.
    assert_eq!(index(unsafe { array.atomics() }.get(3).unwrap_err()), 3);
    assert_eq!(array.to_vec().unwrap(), [1, 2, 3], "nothing was written");
    let text = array.get(3).unwrap_err().to_string();
    assert!(text.contains('3') && text.contains("3 elements"), "{text}");
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    #[derive(Clone, Copy, shmkit::bytemuck::Pod, shmkit::bytemuck::Zeroable)]
    #[bytemuck(crate = "shmkit::bytemuck")]
    #[repr(C, align(128))]
    struct Wide([u64; 16]);
    // SAFETY: the format is that of 16 integers, the hash is this type's own.
    unsafe impl shmkit::Element for Wide {
        const NAME: &'static str = "Wide";
        const FORMAT: shmkit::element::Format = <[u64; 16] as shmkit::Element>::FORMAT;
        const HASH: u64 = 128;
    }
    let segment = Segment::anonymous().unwrap();
    let invalid = |error: Error| matches!(error, Error::Segment(SegmentError::InvalidSize { .. }));
    assert!(invalid(Array::<Wide>::new_in(&segment, 1).unwrap_err()));
    assert!(invalid(Array::<u64>::new_in(&segment, usize::MAX).unwrap_err()));
    assert!(matches!(
        Array::<u8>::new_in(&segment, 1 << 50),
        Err(Error::Segment(SegmentError::OutOfMemory { .. } | SegmentError::InvalidSize { .. }))
    ));
    let value = Value::new_in(&segment, Wide([3; 16])).unwrap();
    assert_eq!(value.get().unwrap().0, [3; 16], "a value is copied, wherever it lies");
}

#[test]
fn elements_of_a_number_are_changed_atomically() {
    let segment = Segment::anonymous().unwrap();
    let array = Array::from_slice_in(&segment, &[10i16, 20, 30]).unwrap();
    assert_eq!(array.fetch_add(1, i16::MAX).unwrap(), 20);
    assert_eq!(array.get(1).unwrap(), 20i16.wrapping_add(i16::MAX));
    assert_eq!(array.fetch_sub(0, 11).unwrap(), 10);
    assert_eq!(array.fetch_max(0, 4).unwrap(), -1);
    assert_eq!(array.fetch_min(0, 3).unwrap(), 4);
    assert_eq!(array.swap(2, 8).unwrap(), 30);
    assert_eq!(array.fetch_or(2, 3).unwrap(), 8);
    assert_eq!(array.fetch_and(2, 9).unwrap(), 11);
    assert_eq!(array.fetch_xor(2, 1).unwrap(), 9);
    assert_eq!(array.compare_exchange(2, 8, 7).unwrap(), Ok(8));
    assert_eq!(array.compare_exchange(2, 8, 7).unwrap(), Err(7));
    // SAFETY: nobody uses the array in another way meanwhile.
    let atomics = unsafe { array.atomics() };
    assert_eq!(atomics.fetch_add(2, 1).unwrap(), 7);
    assert_eq!(atomics.swap(2, 1).unwrap(), 8);
    atomics.set(0, -5).unwrap();
    assert_eq!(atomics.get(0).unwrap(), -5);
    let floats = Array::from_slice_in(&segment, &[0.5f32]).unwrap();
    assert_eq!(floats.fetch_add(0, 1.0).unwrap(), 0.5);
    assert_eq!(floats.get(0).unwrap(), 1.5);
}

/// Adds one to every element, again and again.
fn adds_to_array(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let array = segment.array::<[u32; 3]>("triples").open().unwrap();
    let counts = segment.array::<u32>("counts").open().unwrap();
    common::say("ready");
    common::listen();
    for round in 0..1000 {
        for triple in array.lock().unwrap().iter_mut() {
            *triple = triple.map(|number| number + 1);
        }
        counts.fetch_add(round % 4, 1).unwrap();
    }
}

#[test]
fn no_change_under_the_lock_is_lost() {
    let segment = common::named("array-count");
    let array = segment.array::<[u32; 3]>("triples").len(5).create().unwrap();
    let counts = segment.array::<u32>("counts").len(4).create().unwrap();
    let mut children: Vec<_> = (0..2).map(|_| common::start("adds_to_array", &[&segment.name])).collect();
    children.iter_mut().for_each(|child| child.expect("ready"));
    children.iter_mut().for_each(|child| child.tell("go"));
    // A reader between the writers sees every element of one instant the same.
    for _ in 0..1000 {
        let seen = array.to_vec().unwrap();
        assert!(seen.iter().flatten().all(|&number| number == seen[0][0]), "{seen:?}");
    }
    children.iter_mut().for_each(common::Child::succeeded);
    assert_eq!(array.to_vec().unwrap(), [[2000; 3]; 5]);
    assert_eq!(counts.to_vec().unwrap(), [500; 4]);
}

/// Writes the squares of its own range in place.
fn squares(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let array = segment.array::<u64>("squares").open().unwrap();
    let (start, end): (usize, usize) = (arguments[1].parse().unwrap(), arguments[2].parse().unwrap());
    // SAFETY: each worker has its own range, and the array is read after all have ended.
    let mut mine = unsafe { array.range(start..end) }.unwrap();
    for (i, square) in mine.iter_mut().enumerate() {
        *square = ((start + i) as u64).pow(2);
    }
}

#[test]
fn workers_write_their_own_ranges_in_place() {
    let segment = common::named("array-ranges");
    let array = segment.array::<u64>("squares").len(1000).create().unwrap();
    let mut children: Vec<_> = (0..4usize)
        .map(|i| common::start("squares", &[&segment.name, &(i * 250).to_string(), &((i + 1) * 250).to_string()]))
        .collect();
    children.iter_mut().for_each(common::Child::succeeded);
    assert!(array.iter().unwrap().enumerate().all(|(i, square)| square == (i as u64).pow(2)));
}

/// Takes the array's lock, changes half of it if it is told so, and waits to be killed.
fn holds_array(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let array = segment.array::<u64>("pair").open().unwrap();
    let mut guard = array.lock().unwrap();
    if arguments[1] == "writes" {
        guard[0] += 1;
    } else {
        assert_eq!(guard[0], guard[1]);
    }
    common::say("held");
    common::listen();
}

#[test]
fn a_dead_writer_is_told_to_everybody_until_the_array_is_repaired() {
    let segment = common::named("array-dead");
    let array = segment.array::<u64>("pair").initial(&[7, 7]).create().unwrap();
    let mut child = common::start("holds_array", &[&segment.name, "writes"]);
    child.expect("held");
    child.kill();
    let owner_died = code(SyncError::OwnerDied);
    assert_eq!(code(array.get(0).unwrap_err()), owner_died);
    assert_eq!(code(array.set(0, 1).unwrap_err()), owner_died);
    assert_eq!(code(array.to_vec().unwrap_err()), owner_died);
    let Err(dead) = array.lock() else { panic!("nobody said that the owner died") };
    assert!(dead.is_owner_died());
    let guard = dead.repair(|pair| pair[1] = pair[0]).unwrap();
    assert_eq!(*guard, [8, 8]);
    drop(guard);
    assert_eq!(array.to_vec().unwrap(), [8, 8]);
    assert_eq!(*array.lock().unwrap(), [8, 8]);
}

#[test]
fn a_dead_reader_is_not_told() {
    let segment = common::named("array-reader");
    let array = segment.array::<u64>("pair").initial(&[7, 7]).create().unwrap();
    for _ in 0..2 {
        let mut child = common::start("holds_array", &[&segment.name, "reads"]);
        child.expect("held");
        assert_eq!(failed!(array.try_lock()), code(SyncError::WouldBlock { what: "array", holder: None }));
        child.kill();
        assert_eq!(array.get(0).unwrap(), 7);
    }
    let mut child = common::start("holds_array", &[&segment.name, "reads"]);
    child.expect("held");
    child.kill();
    assert_eq!(*array.lock().unwrap(), [7, 7]);
}

#[test]
fn an_unrepaired_array_is_poisoned() {
    let segment = Segment::anonymous().unwrap();
    let array = Array::from_slice_in(&segment, &[1u64, 1]).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        array.lock().unwrap()[0] = 2;
    }));
    assert!(panicked.is_ok());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut guard = array.lock().unwrap();
        guard[0] = 3;
        panic!("in the middle");
    }));
    assert!(panicked.is_err());
    assert!(matches!(array.lock(), Err(LockError::OwnerDied(_))), "dropped without a repair");
    assert_eq!(failed!(array.lock()), code(SyncError::Poisoned));
    assert_eq!(code(array.get(0).unwrap_err()), code(SyncError::Poisoned));
    array.clear_poison();
    assert_eq!(array.to_vec().unwrap(), [3, 1]);
    // The mark of the past does not blame a later owner.
    assert_eq!(*array.lock().unwrap(), [3, 1]);
}

#[test]
fn an_array_of_a_panicked_reader_is_as_good_as_before() {
    let segment = Segment::anonymous().unwrap();
    let array = Array::from_slice_in(&segment, &[1u64, 1]).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let guard = array.lock().unwrap();
        panic!("after a look at {}", guard[0]);
    }));
    assert!(panicked.is_err());
    assert_eq!(*array.lock().unwrap(), [1, 1]);
}

#[test]
fn handles_outside_of_a_message_are_not_serialised() {
    let segment = Segment::anonymous().unwrap();
    let value = Value::new_in(&segment, 1u64).unwrap();
    let error = postcard::to_stdvec(&value).unwrap_err();
    assert_eq!(error, postcard::Error::SerdeSerCustom);
}

#[test]
fn threads_share_one_handle() {
    let segment = Segment::anonymous().unwrap();
    let (value, array) = (Value::new_in(&segment, [0u32; 5]).unwrap(), Array::<u16>::new_in(&segment, 3).unwrap());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let seen = value.get().unwrap();
                assert!(seen.iter().all(|&number| number == seen[0]), "{seen:?}");
            }
        });
        let writers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        value.update(|value| *value = value.map(|number| number + 1)).unwrap();
                        array.fetch_add(1, 1).unwrap();
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    assert_eq!(value.get().unwrap(), [4000; 5]);
    assert_eq!(array.to_vec().unwrap(), [0, 4000, 0]);
}

// ---- Array against a vector ------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Step {
    Get(usize),
    Set(usize, u32),
    Read(usize, usize),
    Write(usize, Vec<u32>),
    Fill(u32),
    Add(usize, u32),
    Sort,
}

fn step() -> impl Strategy<Value = Step> {
    let index = 0usize..10;
    prop_oneof![
        index.clone().prop_map(Step::Get),
        (index.clone(), any::<u32>()).prop_map(|(i, v)| Step::Set(i, v)),
        (index.clone(), index.clone()).prop_map(|(a, b)| Step::Read(a, b)),
        (index.clone(), proptest::collection::vec(any::<u32>(), 0..6)).prop_map(|(i, v)| Step::Write(i, v)),
        any::<u32>().prop_map(Step::Fill),
        (index, any::<u32>()).prop_map(|(i, v)| Step::Add(i, v)),
        Just(Step::Sort),
    ]
}

proptest! {
    #[test]
    fn an_array_does_what_a_vector_does(len in 0usize..8, steps in proptest::collection::vec(step(), 0..40)) {
        let segment = Segment::builder().max_size(1 << 20).anonymous("array").unwrap();
        let array = Array::<u32>::new_in(&segment, len).unwrap();
        let mut model = vec![0u32; len];
        for step in steps {
            match step {
                Step::Get(i) => prop_assert_eq!(array.get(i).ok(), model.get(i).copied()),
                Step::Set(i, v) => {
                    let set = model.get_mut(i).map(|element| *element = v);
                    prop_assert_eq!(array.set(i, v).ok(), set);
                }
                Step::Read(a, b) => prop_assert_eq!(array.read(a..b).ok(), model.get(a..b).map(<[u32]>::to_vec)),
                Step::Write(i, v) => {
                    let written = model.get_mut(i..i + v.len()).map(|part| part.copy_from_slice(&v));
                    prop_assert_eq!(array.write(i, &v).ok(), written);
                }
                Step::Fill(v) => {
                    array.fill(v).unwrap();
                    model.fill(v);
                }
                Step::Add(i, v) => {
                    let before = model.get_mut(i).map(|element| {
                        let before = *element;
                        *element = before.wrapping_add(v);
                        before
                    });
                    prop_assert_eq!(array.fetch_add(i, v).ok(), before);
                }
                Step::Sort => {
                    array.lock().unwrap().sort_unstable();
                    model.sort_unstable();
                }
            }
            prop_assert_eq!(&array.to_vec().unwrap(), &model);
        }
    }
}
