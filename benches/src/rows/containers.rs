//! Dicts and lists: alone, beside what one process has for it, and read by two processes while a third one writes.

use super::messages::segment;
use crate::Result;
use crate::contest::Kind::{Limit, Reference, Shmkit};
use crate::contest::{Contestant, Figure, Goal, Unit};
use crate::peers;
use crate::stage::Stage;
use parking_lot::Mutex;
use shmkit::{Dict, List};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Elements there are.
const ELEMENTS: u64 = 1000;
/// A list is emptied when it has so many.
const LONG: u64 = 100_000;
/// Bytes of a text's value.
const TEXT: usize = 32;
/// What two readers beside a writer are compared with: a second reader must not take away from the first.
const ONE_READER: &str = "shmkit, one reader and a writer";

/// Who runs where.
const MANAGED: &str = "Python's client and manager are not pinned.";

/// The element of operation `n`: all of them, in no order.
#[inline]
fn element(n: u64) -> u64 {
    (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % ELEMENTS
}

/// Runs `operation` as often as it is timed; each gives what `expected` says.
fn run(stage: &Stage, mut operation: impl FnMut(u64) -> Result<u64>, expected: impl Fn(u64) -> u64) -> Result {
    for n in 0..2000 {
        if operation(n)? != expected(n) {
            return Err("an element is not what was put there".into());
        }
    }
    let mut sum = 0u64;
    let start = Instant::now();
    for n in 0..stage.n {
        sum = sum.wrapping_add(operation(n)?);
    }
    stage.publish(stage.n as f64 / start.elapsed().as_secs_f64() / 1e6);
    if sum != (0..stage.n).fold(0u64, |sum, n| sum.wrapping_add(expected(n))) {
        return Err("the elements read are not those that were put there".into());
    }
    Ok(())
}

// ---- numbers to numbers ------------------------------------------------------------------------------------------------------

fn numbers(stage: &Stage) -> Result<Dict<u64, u64>> {
    let dict = Dict::new_in(&segment(stage)?)?;
    (0..ELEMENTS).try_for_each(|key| dict.insert(&key, &(key * 3)).map(drop))?;
    Ok(dict)
}

fn local_numbers() -> Mutex<HashMap<u64, u64>> {
    Mutex::new((0..ELEMENTS).map(|key| (key, key * 3)).collect())
}

fn get_number(stage: &Stage) -> Result {
    let dict = numbers(stage)?;
    run(stage, |n| Ok(dict.get(&element(n))?.unwrap_or(u64::MAX)), |n| element(n) * 3)
}

fn get_number_locally(stage: &Stage) -> Result {
    let map = local_numbers();
    run(stage, |n| Ok(map.lock().get(&element(n)).copied().unwrap_or(u64::MAX)), |n| element(n) * 3)
}

fn set_number(stage: &Stage) -> Result {
    let dict = numbers(stage)?;
    run(stage, |n| Ok(u64::from(dict.insert(&element(n), &n)?)), |_| 0)
}

fn set_number_locally(stage: &Stage) -> Result {
    let map = local_numbers();
    run(stage, |n| Ok(u64::from(map.lock().insert(element(n), n).is_none())), |_| 0)
}

// ---- text to text ------------------------------------------------------------------------------------------------------------

fn keys() -> Vec<String> {
    (0..ELEMENTS).map(|key| format!("key number {key}")).collect()
}

fn texts(stage: &Stage, keys: &[String]) -> Result<Dict<String, String>> {
    let dict = Dict::new_in(&segment(stage)?)?;
    keys.iter().try_for_each(|key| dict.insert(key.as_str(), "x".repeat(TEXT).as_str()).map(drop))?;
    Ok(dict)
}

fn local_texts(keys: &[String]) -> Mutex<HashMap<String, String>> {
    Mutex::new(keys.iter().map(|key| (key.clone(), "x".repeat(TEXT))).collect())
}

fn get_text(stage: &Stage) -> Result {
    let keys = keys();
    let dict = texts(stage, &keys)?;
    let get = |n| Ok(dict.get(keys[element(n) as usize].as_str())?.map_or(0, |text| text.len() as u64));
    run(stage, get, |_| TEXT as u64)
}

fn get_text_locally(stage: &Stage) -> Result {
    let keys = keys();
    let map = local_texts(&keys);
    let get = |n| {
        // As from the dict: a copy of its own.
        let text = map.lock().get(keys[element(n) as usize].as_str()).cloned();
        Ok(text.map_or(0, |text| text.len() as u64))
    };
    run(stage, get, |_| TEXT as u64)
}

fn set_text(stage: &Stage) -> Result {
    let (keys, value) = (keys(), "y".repeat(TEXT));
    let dict = texts(stage, &keys)?;
    run(stage, |n| Ok(u64::from(dict.insert(keys[element(n) as usize].as_str(), value.as_str())?)), |_| 0)
}

fn set_text_locally(stage: &Stage) -> Result {
    let (keys, value) = (keys(), "y".repeat(TEXT));
    let map = local_texts(&keys);
    let set = |n| {
        let (key, value) = (keys[element(n) as usize].clone(), value.clone());
        Ok(u64::from(map.lock().insert(key, value).is_none()))
    };
    run(stage, set, |_| 0)
}

// ---- lists -------------------------------------------------------------------------------------------------------------------

fn get_element(stage: &Stage) -> Result {
    let list = List::<u64>::new_in(&segment(stage)?)?;
    list.extend((0..ELEMENTS).map(|n| n * 3))?;
    run(stage, |n| Ok(list.get(element(n) as usize)?.unwrap_or(u64::MAX)), |n| element(n) * 3)
}

fn get_element_locally(stage: &Stage) -> Result {
    let list = Mutex::new((0..ELEMENTS).map(|n| n * 3).collect::<Vec<_>>());
    run(stage, |n| Ok(list.lock().get(element(n) as usize).copied().unwrap_or(u64::MAX)), |n| element(n) * 3)
}

fn push(stage: &Stage) -> Result {
    let list = List::<u64>::new_in(&segment(stage)?)?;
    let push = |n| {
        if list.len() as u64 >= LONG {
            list.clear()?;
        }
        list.push(&n)?;
        Ok(0)
    };
    run(stage, push, |_| 0)
}

fn push_locally(stage: &Stage) -> Result {
    let list = Mutex::new(Vec::new());
    let push = |n| {
        let mut list = list.lock();
        if list.len() as u64 >= LONG {
            list.clear();
        }
        list.push(n);
        Ok(0)
    };
    run(stage, push, |_| 0)
}

// ---- several processes -------------------------------------------------------------------------------------------------------

/// The first `READERS` processes read, and one more, if there is one, writes: millions of reads a second, the readers' own rates added.
fn read_beside<const READERS: usize>(stage: &Stage) -> Result {
    let segment = segment(stage)?;
    let dict = segment.dict::<u64, u64>("dict").open_or_create()?;
    (0..ELEMENTS).try_for_each(|key| dict.insert(&key, &(key * 3)).map(drop))?;
    // SAFETY: scratch memory, zero at first, used for nothing else.
    let done = unsafe { AtomicU64::from_ptr(stage.scratch().wrapping_add(4096).cast()) };
    stage.barrier()?;
    if stage.role < READERS {
        let start = Instant::now();
        for n in 0..stage.n {
            if dict.get(&element(n))? != Some(element(n) * 3) {
                return Err("an element is not what was put there".into());
            }
        }
        stage.add((stage.n as f64 / start.elapsed().as_secs_f64()) as u64);
        done.fetch_add(1, Ordering::Relaxed);
    } else {
        let mut n = 0;
        // Relaxed: it is only a sign to stop.
        while done.load(Ordering::Relaxed) < READERS as u64 {
            let key = element(n);
            dict.insert(&key, &(key * 3))?;
            n += 1;
        }
    }
    stage.barrier()?;
    if stage.role == 0 {
        stage.publish(stage.take_sum() as f64 / 1e6);
    }
    Ok(())
}

/// The longest insertion of all, in microseconds, while a dict grows from nothing.
fn longest_insertion(stage: &Stage) -> Result {
    let segment = segment(stage)?;
    let dict = Dict::<u64, u64>::new_in(&segment)?;
    let mut longest = 0;
    for key in 0..stage.n {
        let start = Instant::now();
        dict.insert(&key, &key)?;
        longest = longest.max(start.elapsed().as_nanos());
    }
    stage.publish(longest as f64 / 1e3);
    if dict.len() as u64 == stage.n && dict.get(&(stage.n / 2))? == Some(stage.n / 2) {
        Ok(())
    } else {
        Err("not all that was put there is there".into())
    }
}

/// The longest read of all, in microseconds, while another process lets the dict grow.
fn longest_read(stage: &Stage) -> Result {
    let segment = segment(stage)?;
    let dict = segment.dict::<u64, u64>("dict").open_or_create()?;
    if stage.role == 0 {
        dict.insert(&u64::MAX, &7)?;
    }
    stage.barrier()?;
    if stage.role == 1 {
        (0..stage.n).try_for_each(|key| dict.insert(&key, &key).map(drop))?;
    } else {
        let mut longest = 0;
        while (dict.len() as u64) <= stage.n {
            let start = Instant::now();
            if dict.get(&u64::MAX)? != Some(7) {
                return Err("an element is not there that was put there first".into());
            }
            longest = longest.max(start.elapsed().as_nanos());
        }
        stage.publish(longest as f64 / 1e3);
    }
    stage.barrier()
}

pub fn figures() -> Vec<Figure> {
    let (map, vec) =
        ("HashMap behind a parking_lot mutex (one process)", "Vec behind a parking_lot mutex (one process)");
    let figure = |name: &str, ratio, limit: &'static str, run, locally| {
        Figure::new(name, Unit::Millions)
            .goal(Goal::AtLeast(ratio, limit))
            .with([Contestant::single("shmkit", Shmkit, run), Contestant::single(limit, Limit, locally)])
    };
    vec![
        figure("dict get, number to number", 0.25, map, get_number, get_number_locally)
            .about(MANAGED)
            .goal(Goal::AtLeast(500.0, peers::MANAGED_DICT))
            .with(peers::dicts(false)),
        figure("dict set, number to number", 0.15, map, set_number, set_number_locally)
            .about(MANAGED)
            .goal(Goal::AtLeast(500.0, peers::MANAGED_DICT))
            .with(peers::dicts(true)),
        figure("dict get, text to 32 bytes", 0.5, map, get_text, get_text_locally),
        figure("dict set, text to 32 bytes", 0.3, map, set_text, set_text_locally),
        figure("list get, number", 0.25, vec, get_element, get_element_locally)
            .about(MANAGED)
            .goal(Goal::AtLeast(500.0, peers::MANAGED_LIST))
            .with(peers::lists(false)),
        figure("list push, number", 0.15, vec, push, push_locally)
            .about(MANAGED)
            .goal(Goal::AtLeast(500.0, peers::MANAGED_LIST))
            .with(peers::lists(true)),
        Figure::new("dict get, two readers and a writer", Unit::Millions).goal(Goal::AtLeast(1.0, ONE_READER)).with([
            Contestant::single("shmkit", Shmkit, read_beside::<2>).of(3),
            Contestant::single(ONE_READER, Reference, read_beside::<1>).of(2),
            Contestant::single("shmkit, two readers alone", Reference, read_beside::<2>).of(2),
        ]),
        Figure::new("dict of a million, the longest insertion", Unit::Microseconds)
            .goal(Goal::Below(1000.0))
            .with([Contestant::single("shmkit", Shmkit, longest_insertion).fixed(1_000_000)]),
        Figure::new("dict of a million, the longest read meanwhile", Unit::Microseconds)
            .goal(Goal::Below(1000.0))
            .with([Contestant::pair("shmkit", Shmkit, longest_read).fixed(1_000_000)]),
    ]
}
