//! The directory of a segment against a map in memory: objects by name, their kinds, who keeps them alive.

use proptest::prelude::*;
use shmkit::{Error, Event, Mutex, Segment, SegmentError, Semaphore};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// What is done with one of a few names.
#[derive(Debug, Clone)]
enum Step {
    Create(Kind, u8),
    OpenOrCreate(Kind, u8),
    Open(Kind, u8),
    Remove(u8),
    /// Drops one of the handles.
    Drop(usize),
    CreateUnnamed(Kind),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Semaphore,
    Event,
    Mutex,
}

/// A handle, and which object it must be.
enum Handle {
    Semaphore(Semaphore),
    Event(Event),
    Mutex(Mutex<u64>),
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Semaphore), Just(Kind::Event), Just(Kind::Mutex)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (kind(), 0..5u8).prop_map(|(kind, name)| Step::Create(kind, name)),
        2 => (kind(), 0..5u8).prop_map(|(kind, name)| Step::OpenOrCreate(kind, name)),
        3 => (kind(), 0..5u8).prop_map(|(kind, name)| Step::Open(kind, name)),
        2 => (0..5u8).prop_map(Step::Remove),
        4 => any::<usize>().prop_map(Step::Drop),
        1 => kind().prop_map(Step::CreateUnnamed),
    ]
}

/// Each object is known by a number that it holds.
fn mark(handle: &Handle, number: u64) {
    match handle {
        Handle::Semaphore(semaphore) => (0..number).for_each(|_| semaphore.release().unwrap()),
        Handle::Event(event) => (if number % 2 == 1 { Event::set } else { Event::clear })(event),
        Handle::Mutex(mutex) => *mutex.lock().unwrap() = number,
    }
}

fn is_marked(handle: &Handle, number: u64) -> bool {
    match handle {
        Handle::Semaphore(semaphore) => u64::from(semaphore.value()) == number,
        Handle::Event(event) => event.is_set() == (number % 2 == 1),
        Handle::Mutex(mutex) => *mutex.lock().unwrap() == number,
    }
}

fn create(segment: &Segment, kind: Kind, name: &str) -> Result<Handle, Error> {
    Ok(match kind {
        Kind::Semaphore => Handle::Semaphore(segment.semaphore(name).initial(0).create()?),
        Kind::Event => Handle::Event(segment.event(name).create()?),
        Kind::Mutex => Handle::Mutex(segment.mutex(name).create()?),
    })
}

fn open(segment: &Segment, kind: Kind, name: &str) -> Result<Handle, Error> {
    Ok(match kind {
        Kind::Semaphore => Handle::Semaphore(segment.semaphore(name).open()?),
        Kind::Event => Handle::Event(segment.event(name).open()?),
        Kind::Mutex => Handle::Mutex(segment.mutex(name).open()?),
    })
}

fn open_or_create(segment: &Segment, kind: Kind, name: &str) -> Result<Handle, Error> {
    Ok(match kind {
        Kind::Semaphore => Handle::Semaphore(segment.semaphore(name).initial(0).open_or_create()?),
        Kind::Event => Handle::Event(segment.event(name).open_or_create()?),
        Kind::Mutex => Handle::Mutex(segment.mutex(name).open_or_create()?),
    })
}

fn unnamed(segment: &Segment, kind: Kind) -> Handle {
    match kind {
        Kind::Semaphore => Handle::Semaphore(Semaphore::new_in(segment, 0).unwrap()),
        Kind::Event => Handle::Event(Event::new_in(segment).unwrap()),
        Kind::Mutex => Handle::Mutex(Mutex::new_in(segment, 0).unwrap()),
    }
}

fn segment_error(result: Result<Handle, Error>) -> SegmentError {
    match result {
        Err(Error::Segment(error)) => error,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("no error"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_directory_is_a_map(steps in proptest::collection::vec(step(), 1..60)) {
        let segment = Segment::builder().max_size(1 << 20).anonymous("properties").unwrap();
        // The model: names, and the objects by number with the handles there are.
        let mut names: BTreeMap<u8, (Kind, u64)> = BTreeMap::new();
        let mut handles: Vec<(u64, Handle)> = Vec::new();
        let mut next = 1;
        for step in steps {
            match step {
                Step::Create(kind, name) => {
                    let created = create(&segment, kind, &name.to_string());
                    match names.entry(name) {
                        Entry::Occupied(_) => {
                            let exists = matches!(segment_error(created), SegmentError::ObjectExists { .. });
                            prop_assert!(exists);
                        }
                        Entry::Vacant(place) => {
                            let handle = created.unwrap();
                            mark(&handle, next);
                            place.insert((kind, next));
                            handles.push((next, handle));
                            next += 1;
                        }
                    }
                }
                Step::OpenOrCreate(kind, name) => {
                    let got = open_or_create(&segment, kind, &name.to_string());
                    match names.get(&name) {
                        Some(&(found, number)) if found == kind => handles.push((number, got.unwrap())),
                        Some(_) => {
                            let wrong = matches!(segment_error(got), SegmentError::WrongKind { .. });
                            prop_assert!(wrong);
                        }
                        None => {
                            let handle = got.unwrap();
                            mark(&handle, next);
                            names.insert(name, (kind, next));
                            handles.push((next, handle));
                            next += 1;
                        }
                    }
                }
                Step::Open(kind, name) => {
                    let got = open(&segment, kind, &name.to_string());
                    match names.get(&name) {
                        Some(&(found, number)) if found == kind => handles.push((number, got.unwrap())),
                        Some(_) => {
                            let wrong = matches!(segment_error(got), SegmentError::WrongKind { .. });
                            prop_assert!(wrong);
                        }
                        None => {
                            let gone = matches!(segment_error(got), SegmentError::ObjectNotFound { .. });
                            prop_assert!(gone);
                        }
                    }
                }
                Step::Remove(name) => {
                    prop_assert_eq!(segment.remove(&name.to_string()).unwrap(), names.remove(&name).is_some());
                }
                Step::Drop(which) if !handles.is_empty() => {
                    let which = which % handles.len();
                    drop(handles.swap_remove(which));
                }
                Step::Drop(_) => {}
                Step::CreateUnnamed(kind) => {
                    let handle = unnamed(&segment, kind);
                    mark(&handle, next);
                    handles.push((next, handle));
                    next += 1;
                }
            }
            // What lives is what has a name or a handle; every handle leads to its own object.
            let alive: BTreeSet<u64> =
                names.values().map(|(_, number)| *number).chain(handles.iter().map(|(number, _)| *number)).collect();
            prop_assert_eq!(segment.objects().len(), alive.len());
            for (number, handle) in &handles {
                prop_assert!(is_marked(handle, *number), "object {}", number);
            }
        }
        segment.verify().unwrap();
        let named = names.len();
        drop(handles);
        prop_assert_eq!(segment.objects().len(), named);
        for name in names.keys() {
            segment.remove(&name.to_string()).unwrap();
        }
        prop_assert_eq!(segment.memory().unwrap().0, 0);
        segment.verify().unwrap();
    }
}
