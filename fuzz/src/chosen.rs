//! The operations that an input chooses: of containers one at a time, of everything else all that `work` does with them.
//!
//! ```text
//! what   3 bits: whose operation | 5 bits: which, modulo how many there are        how   an index, a key, a length: as the operation takes it
//! ```

use crate::work::{self, Opened};
use shmkit::heap::Heap;
use shmkit::{
    Dict, FrozenArray, FrozenBytes, FrozenDict, FrozenStr, List, Lock, Namespace, Scalar, Segment, ShardedDict,
    ShareableList,
};

/// No container of a fuzzed segment has so many elements.
const MANY: usize = 1 << 20;

/// One operation. Errors are fine, as in [`work::exercise`].
pub fn step(segment: &Segment, opened: &Opened, what: u8, how: u8) {
    let which = what & 0x1F;
    match what >> 5 {
        0 => drop(opened.dict.as_ref().map(|dict| of_dict(dict, which, how))),
        1 => drop(opened.list.as_ref().map(|list| of_list(list, which, how))),
        2 => drop(opened.sharded.as_ref().map(|sharded| of_sharded(sharded, which, how))),
        3 => drop(opened.row.as_ref().map(|row| of_row(row, which, how))),
        4 => drop(opened.space.as_ref().map(|space| of_space(segment, space, which, how))),
        5 => drop(opened.heap.as_ref().map(|heap| of_heap(heap, which, how))),
        6 => drop(of_frozen(segment, opened, which, how)),
        _ => of_the_rest(segment, opened, which),
    }
}

/// An index that is there, is just behind the last one, or never is.
fn index(len: usize, how: u8) -> usize {
    match how {
        0..=199 => how as usize,
        200..=219 => len.wrapping_sub(1),
        220..=239 => len,
        _ => usize::MAX >> (how - 240),
    }
}

/// One of few keys, so that they meet.
fn key(how: u8) -> String {
    (how % 40).to_string()
}

fn bounded<T>(all: Vec<T>) {
    assert!(all.len() < MANY, "more elements than there is room for");
}

fn of_dict(dict: &Dict<String, Vec<u16>>, which: u8, how: u8) -> shmkit::Result<()> {
    let key = key(how);
    let (few, many) = (vec![u16::from(how); how as usize % 7], vec![3; how as usize * 40]);
    match which % 19 {
        0 => drop(dict.get(&key)?),
        1 => drop(dict.contains(&key)?),
        2 => drop(dict.insert(&key, &few)?),
        3 => drop(dict.insert(&key, &many)?),
        4 => drop(dict.remove(&key)?),
        5 => drop(dict.swap(&key, &few)?),
        6 => drop(dict.pop(&key)?),
        7 => drop(dict.set_default(&key, many)?),
        8 => drop(dict.get_or_insert_with(&key, || few)?),
        9 => drop(dict.compare_and_set(&key, Some(&few), (how > 99).then_some(&many))?),
        10 => drop(dict.compare_and_set(&key, None, Some(&few))?),
        11 => dict.merge((0..how % 60).map(|n| (n.to_string(), vec![u16::from(how)])))?,
        12 => dict.update(&key, |value| match value {
            Some(value) if value.len() < 5000 => value.push(1),
            value => *value = how.is_multiple_of(2).then(Vec::new),
        })?,
        13 => bounded(dict.keys()?),
        14 => bounded(dict.values()?),
        15 => bounded(dict.items()?),
        16 => assert!(dict.iter().take(MANY).count() < MANY, "an iteration without an end"),
        17 => drop(dict.pop_item()?),
        _ => dict.clear()?,
    }
    Ok(())
}

fn of_list(list: &List<String>, which: u8, how: u8) -> shmkit::Result<()> {
    let (len, text) = (list.len(), "l".repeat(how as usize % 90));
    let index = index(len, how);
    let range = index.min(len)..index.saturating_add(how as usize % 9);
    match which % 21 {
        0 => drop(list.get(index)?),
        1 => list.set(index, &text)?,
        2 => list.insert(index, &text)?,
        3 => drop(list.remove(index)?),
        4 => list.push(&text)?,
        5 => (0..how).try_for_each(|n| list.push(&n.to_string()))?,
        6 => drop(list.pop()?),
        7 => (0..how).try_for_each(|_| list.pop().map(drop))?,
        8 => drop(list.position(&text)?),
        9 => drop((list.count(&text)?, list.contains(&text)?)),
        10 => assert!(list.iter().take(MANY).count() < MANY, "an iteration without an end"),
        11 => list.reverse()?,
        12 => list.splice(range, (0..how % 50).map(|n| n.to_string()))?,
        13 => list.sort()?,
        14 => list.sort_by(|a, b| b.cmp(a))?,
        15 => list.retain(|value| value.len() != how as usize % 5)?,
        16 => bounded(list.slice(range)?),
        17 => list.remove_range(range)?,
        // More than a chunk has room for.
        18 => list.extend((0..usize::from(how) * 5).map(|n| n.to_string()))?,
        19 => list.update(index, |value| value.push('u'))?,
        _ => list.clear()?,
    }
    Ok(())
}

fn of_sharded(sharded: &ShardedDict<u32, u32>, which: u8, how: u8) -> shmkit::Result<()> {
    let key = u32::from(how % 40);
    match which % 16 {
        0 => drop(sharded.get(&key)?),
        1 => drop(sharded.contains(&key)?),
        2 => drop(sharded.insert(&key, &1)?),
        3 => drop(sharded.remove(&key)?),
        4 => drop(sharded.swap(&key, &2)?),
        5 => drop(sharded.pop(&key)?),
        6 => drop(sharded.set_default(&key, 3)?),
        7 => drop(sharded.get_or_insert_with(&key, || 4)?),
        8 => drop(sharded.compare_and_set(&key, Some(&1), None)?),
        9 => sharded.merge((0..u32::from(how)).map(|n| (n, n)))?,
        10 => sharded.update(&key, |value| *value = value.map_or(Some(1), |n| n.checked_sub(1)))?,
        11 => bounded(sharded.keys()?),
        12 => bounded(sharded.values()?),
        13 => bounded(sharded.items()?),
        14 => drop(sharded.pop_item()?),
        _ => sharded.clear()?,
    }
    Ok(())
}

fn of_row(row: &ShareableList, which: u8, how: u8) -> shmkit::Result<()> {
    let index = index(row.len(), how);
    match which % 7 {
        0 => drop(row.get(index)?),
        1 => row.set(index, i64::from(how))?,
        2 => row.set(index, "t".repeat(how as usize).as_str())?,
        3 => drop(row.position(&i64::from(how).into())?),
        4 => drop(row.count(&Scalar::None)?),
        5 => bounded(row.to_vec()?),
        _ => assert!(row.iter().take(MANY).count() < MANY, "an iteration without an end"),
    }
    Ok(())
}

fn of_space(segment: &Segment, space: &Namespace, which: u8, how: u8) -> shmkit::Result<()> {
    let name = ["lock", "number", "other", "new"][how as usize % 4];
    match which % 9 {
        0 => drop(space.get::<Lock>(name)?),
        1 => drop(space.get::<u8>(name)?),
        2 => drop(space.set(name, &how)?),
        3 => drop(space.set(name, &Lock::new_in(segment)?)?),
        4 => space.update(name, |value: &mut Option<u8>| *value = value.map(|n| n.wrapping_add(how)))?,
        5 => drop(space.remove(name)?),
        6 => bounded(space.names()?),
        7 => drop(space.contains(name)?),
        _ => space.clear()?,
    }
    Ok(())
}

fn of_heap(heap: &Heap, which: u8, how: u8) -> shmkit::Result<()> {
    match which % 4 {
        0 => work::stack(heap, u64::from(how)),
        1 => work::unstack(heap),
        2 => work::replace_large(heap, u64::from(how)),
        _ => work::sum(heap).map(drop),
    }
}

/// What was frozen is looked at as far as was checked when it was opened: a scribbler may have been at the rest.
fn of_frozen(segment: &Segment, opened: &Opened, which: u8, how: u8) -> shmkit::Result<()> {
    let bytes = vec![how; how as usize * 9];
    match which % 8 {
        0 => drop(opened.text.as_ref().map(|text| text.len())),
        1 => drop(opened.bytes.as_ref().map(|bytes| bytes.len())),
        2 => drop(opened.rows_of_frozen.as_ref().map(|rows| rows.len())),
        3 => drop(opened.frozen.as_ref().map(|frozen| frozen.get(&u32::from(how))).transpose()?),
        4 => drop(FrozenBytes::new_in(segment, &bytes)?),
        5 => drop(FrozenArray::<u8>::new_in(segment, &bytes)?),
        6 => drop(FrozenStr::new_in(segment, "new")?),
        _ => drop(FrozenDict::<u8, u8>::new_in(segment, (0..how).map(|n| (n, n)))?),
    }
    Ok(())
}

fn of_the_rest(segment: &Segment, opened: &Opened, which: u8) {
    match which % 10 {
        0 => drop(segment.objects()),
        1 => drop(segment.participants()),
        2 => drop(segment.verify()),
        3 => drop(segment.recover()),
        4 => work::sync(opened),
        5 => work::wait(opened),
        6 => work::data(opened),
        7 => work::channels(opened),
        8 => drop(work::fresh(segment)),
        _ => drop(ShareableList::new_in(segment, (0..9).map(Scalar::from))),
    }
}
