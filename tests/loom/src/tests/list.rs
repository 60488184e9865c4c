//! Lists: `src/data/list/core.rs`.

use super::core::{Core, Found, New};
use crate::data::memory::Memory;
use crate::data::node::{Copied, Value, decode_small, small_of};
use crate::segment::Attachment;
use crate::tests::explore;
use shmkit_layouts::containers::ListBody;
use std::sync::Arc;

type List = Memory<ListBody>;

/// Units of a list of a few elements and its list of extents, and some to spare.
const UNITS: usize = 20;

fn list() -> Arc<List> {
    let body = ListBody {
        root: Default::default(),
        reserved0: Default::default(),
        tail: Default::default(),
        tail_end: Default::default(),
        tail_length: Default::default(),
        reserved1: Default::default(),
    };
    Memory::new(body, UNITS)
}

/// An element that has a node, of several words.
fn text(letter: char) -> String {
    String::from_iter([letter; 16])
}

impl List {
    fn core<'a>(&'a self, attachment: &'a Attachment) -> Core<'a> {
        Core { arena: self.arena(attachment), body: &raw const self.body }
    }

    fn push(&self, attachment: &Attachment, letter: char) {
        let (core, value) = (self.core(attachment), Value::of(attachment, &text(letter)[..]).unwrap());
        core.push(&mut core.lock_to_append().unwrap(), New::Value(&value, None)).unwrap();
    }

    /// Appends an element that lies in its slot.
    fn push_small(&self, attachment: &Attachment, letter: char) {
        let (core, word) = (self.core(attachment), small_of(&letter.to_string()[..]).unwrap());
        if core.push_at_once(word).is_none() {
            core.push(&mut core.lock_to_append().unwrap(), New::Small(word)).unwrap();
        }
    }

    fn set(&self, attachment: &Attachment, index: u64, value: &str) {
        let (core, value) = (self.core(attachment), Value::of(attachment, value).unwrap());
        let mut writing = core.lock().unwrap();
        let place = core.element(&writing, index).unwrap();
        core.set(&mut writing, &place, &value).unwrap();
    }

    fn insert(&self, attachment: &Attachment, index: u64, letter: char) {
        let (core, value) = (self.core(attachment), Value::of(attachment, &text(letter)[..]).unwrap());
        core.insert(&mut core.lock().unwrap(), index, &value).unwrap();
    }

    fn pop(&self, attachment: &Attachment) {
        let core = self.core(attachment);
        core.pop(&mut core.lock().unwrap()).unwrap();
    }

    /// The letter of an element, which must be whole.
    fn get(&self, attachment: &Attachment, index: u64) -> Option<char> {
        let mut copied = None;
        let value: String = match self.core(attachment).get(index, &mut copied).unwrap() {
            Found::Nothing => return None,
            Found::Small(word) => decode_small(word).unwrap(),
            Found::Copied => copied.as_ref().map(Copied::to_value).unwrap().unwrap(),
        };
        let letter = value.chars().next().unwrap();
        assert!(value == text(letter) || value.len() == 1, "parts of two values: {value}");
        Some(letter)
    }
}

/// An element becomes one in its slot, and one in a node again, where the first one was.
#[test]
fn an_element_is_read_whole_whether_it_lies_in_its_slot_or_in_a_node() {
    explore(3, || {
        let list = list();
        let reader = list.attach(0);
        list.push(&reader, 'a');
        let writer = list.writer(|list, writer| {
            list.set(writer, 0, "b");
            list.set(writer, 0, &text('c'));
        });
        let first = list.get(&reader, 0).expect("it is always there");
        let second = list.get(&reader, 0).expect("it is always there");
        assert!(first <= second, "older than what was read before: {first} {second}");
        writer.join().unwrap();
        assert_eq!(list.get(&reader, 0), Some('c'));
    });
}

/// Who sees an element sees all that were appended before it, however they were appended.
#[test]
fn what_is_appended_is_seen_in_order() {
    explore(3, || {
        let list = list();
        let reader = list.attach(0);
        list.push_small(&reader, 'a');
        let writer = list.writer(|list, writer| {
            list.push_small(writer, 'b');
            list.push(writer, 'c');
        });
        let last = list.get(&reader, 2);
        let middle = list.get(&reader, 1);
        assert!(matches!(last, None | Some('c')) && matches!(middle, None | Some('b')), "{last:?} {middle:?}");
        assert!(last.is_none() || middle.is_some(), "the last one is there, and one before it is not");
        writer.join().unwrap();
        assert_eq!([0, 1, 2, 3].map(|index| list.get(&reader, index)), [Some('a'), Some('b'), Some('c'), None]);
    });
}

/// An insertion replaces the chunk: others see each element at the old place or at the new one.
#[test]
fn a_chunk_that_is_replaced_is_the_old_one_or_the_new_one() {
    explore(3, || {
        let list = list();
        let reader = list.attach(0);
        list.push(&reader, 'a');
        list.push(&reader, 'b');
        let writer = list.writer(|list, writer| {
            list.insert(writer, 0, 'x');
            list.pop(writer);
        });
        let first = list.get(&reader, 1);
        let second = list.get(&reader, 1);
        assert!(
            matches!((first, second), (Some('b'), Some('a' | 'b')) | (Some('a'), Some('a'))),
            "{first:?} {second:?}"
        );
        writer.join().unwrap();
        assert_eq!([0, 1, 2].map(|index| list.get(&reader, index)), [Some('x'), Some('a'), None]);
    });
}

/// All chunks and the directory are replaced: a reader sees the order before or the one after.
#[test]
fn a_list_that_is_reversed_is_the_old_one_or_the_new_one() {
    explore(3, || {
        let list = list();
        let reader = list.attach(0);
        list.push(&reader, 'a');
        list.push_small(&reader, 'b');
        let writer = list.writer(|list, writer| {
            let core = list.core(writer);
            let mut writing = core.lock().unwrap();
            let mut all = core.all(&writing).unwrap();
            all.reverse();
            core.rearrange(&mut writing, all, 0, &[], Vec::new()).unwrap();
        });
        let first = list.get(&reader, 0);
        let second = list.get(&reader, 1);
        assert!(
            matches!((first, second), (Some('a'), Some('a' | 'b')) | (Some('b'), Some('a'))),
            "{first:?} {second:?}"
        );
        writer.join().unwrap();
        assert_eq!([0, 1, 2].map(|index| list.get(&reader, index)), [Some('b'), Some('a'), None]);
    });
}
