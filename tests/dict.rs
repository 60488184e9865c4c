//! Dicts: what they do, compared with `indexmap`'s semantics by a list of pairs, and used by several processes.

mod common;

use proptest::prelude::*;
use shmkit::{DataError, Dict, Error, Segment, SegmentError, SyncError};
use std::collections::HashMap;

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
    dict.segment().verify().unwrap();
}

#[test]
fn a_dict_grows_and_shrinks_and_leaks_nothing() {
    let dict = dict::<u64, u64>();
    for n in 0..100_000u64 {
        assert!(dict.insert(&n, &(n * n)).unwrap());
    }
    assert_eq!(dict.len(), 100_000);
    for n in 0..100_000u64 {
        assert_eq!(dict.get(&n).unwrap(), Some(n * n));
    }
    assert_eq!(dict.get(&100_000).unwrap(), None);
    dict.segment().verify().unwrap();
    for n in (0..100_000u64).filter(|n| n % 10 != 0) {
        assert!(dict.remove(&n).unwrap_or_else(|e| panic!("{n}: {e} {:x?}", dict)));
    }
    assert_eq!(dict.keys().unwrap(), (0..100_000).step_by(10).collect::<Vec<_>>());
    dict.segment().verify().unwrap();
    for n in 0..200_000u64 {
        dict.insert(&n, &n).unwrap();
    }
    for n in 0..200_000u64 {
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
