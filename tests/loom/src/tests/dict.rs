//! Dicts: `src/data/dict/core.rs`, and the blocks below it, `src/data/arena`.
//!
//! Values are texts of one letter, so long that they take several words: parts of two values are seen. Tables with pages are too large
//! for loom.

use super::core::Core;
use crate::data::memory::Memory;
use crate::data::node::{Copied, Key, Value};
use crate::segment::Attachment;
use crate::sys::atomic::{AtomicU64, Ordering};
use crate::tests::explore;
use shmkit_layouts::containers::DictBody;
use std::sync::Arc;

type Dict = Memory<DictBody>;

/// Units of a dict of a few elements and its list of extents, and some to spare.
const UNITS: usize = 9;

fn dict(units: usize) -> Arc<Dict> {
    let body = DictBody {
        root: Default::default(),
        seed: 7,
        reserved0: Default::default(),
        used: Default::default(),
        tail: Default::default(),
        next: Default::default(),
        copied: Default::default(),
        next_used: Default::default(),
        next_pages: Default::default(),
        reserved1: Default::default(),
    };
    Memory::new(body, units)
}

impl Dict {
    fn core<'a>(&'a self, attachment: &'a Attachment) -> Core<'a> {
        Core { arena: self.arena(attachment), body: &raw const self.body }
    }

    fn insert(&self, attachment: &Attachment, key: u64, letter: char) {
        let value = Value::of(attachment, &text(letter)[..]).unwrap();
        self.core(attachment).insert(&Key::of(&key).unwrap(), &value).unwrap();
    }

    fn put_number(&self, attachment: &Attachment, key: u64, number: u64) {
        let value = Value::of(attachment, &number).unwrap();
        self.core(attachment).insert(&Key::of(&key).unwrap(), &value).unwrap();
    }

    fn number(&self, attachment: &Attachment, key: u64) -> Option<u64> {
        let mut copied = Copied::none();
        let found = self.core(attachment).find(&Key::of(&key).unwrap(), |node| node.copy_value(&mut copied)).unwrap();
        found.map(|()| copied.to_value().unwrap())
    }

    fn remove(&self, attachment: &Attachment, key: u64) {
        let (core, key) = (self.core(attachment), Key::of(&key).unwrap());
        let (mut writing, hash) = (core.lock().unwrap(), core.hash(&key));
        let place = core.place(&writing, &key, hash).unwrap();
        assert!(core.delete(&mut writing, &place, hash).unwrap());
    }

    /// The letter of a key's value, which must be whole.
    fn get(&self, attachment: &Attachment, key: u64) -> Option<char> {
        let mut copied = Copied::none();
        let found = self.core(attachment).find(&Key::of(&key).unwrap(), |node| node.copy_value(&mut copied)).unwrap();
        found.map(|()| whole(&copied))
    }
}

fn text(letter: char) -> String {
    String::from_iter([letter; 16])
}

fn whole(copied: &Copied) -> char {
    let value: String = copied.to_value().unwrap();
    let letter = value.chars().next().unwrap();
    assert_eq!(value, text(letter), "parts of two values");
    letter
}

/// A value is replaced twice: the second time, the new one lies where the first one was. A reader sees one of them, whole, and
/// never an older one after a newer one.
#[test]
fn a_value_that_is_replaced_is_read_whole_and_never_missed() {
    explore(2, || {
        let dict = dict(UNITS);
        let reader = dict.attach(0);
        dict.insert(&reader, 1, 'a');
        let writer = dict.writer(|dict, writer| {
            dict.insert(writer, 1, 'b');
            dict.insert(writer, 1, 'c');
        });
        let first = dict.get(&reader, 1).expect("it is always there");
        let second = dict.get(&reader, 1).expect("it is always there");
        assert!(first <= second, "older than what was read before: {first} {second}");
        writer.join().unwrap();
        assert_eq!(dict.get(&reader, 1), Some('c'));
    });
}

/// A number is put where another one was, and then its node is another key's: who reads the number sees what was done before it was
/// put, and nobody takes the other key's for it.
#[test]
fn a_number_put_in_the_place_of_another_is_published() {
    explore(3, || {
        let (dict, told) = (dict(UNITS), Arc::new(AtomicU64::new(0)));
        let reader = dict.attach(0);
        dict.put_number(&reader, 1, 5);
        let tells = told.clone();
        let writer = dict.writer(move |dict, writer| {
            tells.store(1, Ordering::Relaxed);
            dict.put_number(writer, 1, 6);
            dict.remove(writer, 1);
            dict.put_number(writer, 2, 7);
        });
        match dict.number(&reader, 1) {
            Some(6) => assert_eq!(told.load(Ordering::Relaxed), 1, "the number came before what it tells of"),
            other => assert!(matches!(other, None | Some(5)), "{other:?}"),
        }
        writer.join().unwrap();
        assert_eq!((dict.number(&reader, 1), dict.number(&reader, 2)), (None, Some(7)));
    });
}

/// A key goes and another one takes its block: nobody finds the other one's value under the first key, and the key that stays is
/// always found.
#[test]
fn a_key_that_goes_and_one_that_comes_in_its_block_are_not_mixed_up() {
    explore(3, || {
        let dict = dict(UNITS);
        let reader = dict.attach(0);
        dict.insert(&reader, 1, 'a');
        let writer = dict.writer(|dict, writer| {
            dict.remove(writer, 1);
            dict.insert(writer, 2, 'b');
        });
        let (other, key) = (dict.get(&reader, 2), dict.get(&reader, 1));
        assert!(matches!(key, None | Some('a')), "{key:?}");
        assert!(matches!(other, None | Some('b')), "{other:?}");
        assert!(other.is_none() || key.is_none(), "the first one was gone before the other one came");
        writer.join().unwrap();
        assert_eq!((dict.get(&reader, 1), dict.get(&reader, 2)), (None, Some('b')));
    });
}

/// The table is full and another one takes its place: what is in both is never missed.
#[test]
fn a_key_is_found_while_the_table_is_replaced() {
    explore(3, || {
        let dict = dict(16);
        let reader = dict.attach(0);
        (1..=5).for_each(|key| dict.insert(&reader, key, 'a'));
        let writer = dict.writer(|dict, writer| {
            dict.insert(writer, 6, 'b');
        });
        assert_eq!(dict.get(&reader, 3), Some('a'));
        assert!(matches!(dict.get(&reader, 6), None | Some('b')));
        writer.join().unwrap();
        assert_eq!((dict.get(&reader, 5), dict.get(&reader, 6)), (Some('a'), Some('b')));
    });
}

/// Two writers take turns: neither loses the other one's change.
#[test]
fn changes_of_two_writers_are_both_there() {
    explore(3, || {
        let dict = dict(UNITS);
        let main = dict.attach(0);
        dict.insert(&main, 1, 'a');
        let other = dict.writer(|dict, writer| dict.insert(writer, 2, 'b'));
        dict.insert(&main, 3, 'c');
        other.join().unwrap();
        assert_eq!([1, 2, 3].map(|key| dict.get(&main, key)), [Some('a'), Some('b'), Some('c')]);
    });
}
