//! The dict: what a dead writer began is there whole, or not at all.

use super::states::{Judged, Stateful};
use crate::operation::{Acts, Check, corrupt};
use crate::step::{begin, end};
use shmkit::{DataError, Dict, Error, Segment};
use std::collections::BTreeMap;

/// A value that says whether it is whole. The longer ones lie in blocks of their own.
type Words = Vec<u64>;

pub struct Table {
    dict: Dict<u64, Words>,
    /// Its values are put in the place of one another.
    numbers: Dict<u64, u64>,
}

fn words(value: u64) -> Words {
    // More than one word, however small the numbers are: what is one word is put in place, which "replace number" does.
    vec![value; 9]
}

fn whole(key: u64, value: &Words) -> Check {
    match value.first() {
        Some(&first) if *value == words(first) => Ok(()),
        _ => corrupt(format!("a torn value of {key}: {value:?}")),
    }
}

const KEYS: [u64; 3] = [1, 2, 3];
/// What the state calls the number.
const NUMBER: u64 = 0;

impl Stateful for Table {
    type State = BTreeMap<u64, u64>;

    fn create(segment: &Segment) -> shmkit::Result<Self> {
        let (dict, numbers) = (segment.dict("dict").create()?, segment.dict("numbers").create()?);
        KEYS.iter().try_for_each(|key| dict.insert(key, &words(*key)).map(drop))?;
        numbers.insert(&NUMBER, &1)?;
        Ok(Table { dict, numbers })
    }
    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Table { dict: segment.dict("dict").open()?, numbers: segment.dict("numbers").open()? })
    }
    fn first() -> BTreeMap<u64, u64> {
        KEYS.iter().map(|&key| (key, key)).chain([(NUMBER, 1)]).collect()
    }
    fn read(&self) -> Check<BTreeMap<u64, u64>> {
        let items = self.dict.items()?;
        let mut state = BTreeMap::new();
        for (key, value) in &items {
            whole(*key, value)?;
            if state.insert(*key, value[0]).is_some() {
                return corrupt(format!("{key} is there twice: {items:?}"));
            }
            if self.dict.get(key)?.as_ref() != Some(value) {
                return corrupt(format!("{key} is there and is not found"));
            }
        }
        let Some(number) = self.numbers.get(&NUMBER)? else { return corrupt("the number is missing") };
        state.insert(NUMBER, number);
        if self.dict.len() != items.len() {
            return corrupt(format!("{} elements, and says {}", items.len(), self.dict.len()));
        }
        Ok(state)
    }
    fn peek(&self) -> Check {
        for item in self.dict.iter() {
            let (key, value) = item?;
            whole(key, &value)?;
        }
        KEYS.into_iter().try_for_each(|key| self.dict.get(&key)?.map_or(Ok(()), |value| whole(key, &value)))
    }
    fn reset(&self) -> Check {
        self.dict.clear()?;
        self.numbers.insert(&NUMBER, &1)?;
        Ok(KEYS.iter().try_for_each(|key| self.dict.insert(key, &words(*key)).map(drop))?)
    }
    fn steps(act: &str, id: u64, before: &BTreeMap<u64, u64>) -> Vec<BTreeMap<u64, u64>> {
        let mut now = before.clone();
        match act {
            "insert" => drop(now.insert(id * 10, id)),
            "replace" => drop(now.insert(1, id)),
            "replace number" => drop(now.insert(NUMBER, id)),
            "remove" => drop(now.remove(&2)),
            "pop" => drop(now.remove(&1)),
            "pop item" => drop(now.pop_last()),
            "swap" => drop(now.insert(2, id * 1000)),
            "set default" => drop(now.entry(id * 10 + 1).or_insert(id)),
            "merge" => {
                return [(id * 10 + 2, 5), (3, id * 11)]
                    .map(|(key, value)| {
                        now.insert(key, value);
                        now.clone()
                    })
                    .to_vec();
            }
            "compare and set" if now.get(&3) == Some(&3) => drop(now.insert(3, id * 7)),
            "compare and set" => return Vec::new(),
            "get or insert" => drop(now.entry(id * 10 + 3).or_insert(id)),
            "update" => *now.entry(3).or_default() += id * 100,
            "clear" => now.retain(|&key, _| key == NUMBER),
            "grow" => {
                let grown = (0..12).map(|k| {
                    now.insert(id * 100 + k, k);
                    now.clone()
                });
                return grown.collect();
            }
            _ => return Vec::new(),
        }
        vec![now]
    }
    fn use_otherwise(&self) -> Check {
        self.dict.insert(&77, &words(77))?;
        if self.dict.pop(&77)? == Some(words(77)) { Ok(()) } else { corrupt("another value than what was stored") }
    }
}

pub fn acts() -> Acts<Judged<Table>> {
    Acts::<Judged<Table>>::new()
        .act("insert", |actor| {
            let (key, value) = (actor.scene.id() * 10, words(actor.scene.id()));
            begin();
            actor.dict.insert(&key, &value)?;
            end();
            Ok(())
        })
        .act("replace", |actor| {
            let value = words(actor.scene.id());
            begin();
            actor.dict.insert(&1, &value)?;
            end();
            Ok(())
        })
        .act("replace number", |actor| {
            let number = actor.scene.id();
            begin();
            actor.numbers.insert(&NUMBER, &number)?;
            end();
            Ok(())
        })
        .act("remove", |actor| {
            begin();
            actor.dict.remove(&2)?;
            end();
            Ok(())
        })
        .act("update", |actor| {
            let more = actor.scene.id() * 100;
            begin();
            actor
                .dict
                .update(&3, |value| value.get_or_insert_with(|| words(0)).iter_mut().for_each(|word| *word += more))?;
            end();
            Ok(())
        })
        .act("pop", |actor| {
            begin();
            actor.dict.pop(&1)?;
            end();
            Ok(())
        })
        .act("pop item", |actor| {
            begin();
            actor.dict.pop_item()?;
            end();
            Ok(())
        })
        .alone()
        .act("swap", |actor| {
            let value = words(actor.scene.id() * 1000);
            begin();
            actor.dict.swap(&2, &value)?;
            end();
            Ok(())
        })
        .act("set default", |actor| {
            let id = actor.scene.id();
            begin();
            actor.dict.set_default(&(id * 10 + 1), words(id))?;
            end();
            Ok(())
        })
        .act("merge", |actor| {
            let id = actor.scene.id();
            let items = [(id * 10 + 2, words(5)), (3, words(id * 11))];
            begin();
            actor.dict.merge(items)?;
            end();
            Ok(())
        })
        .alone()
        .act("compare and set", |actor| {
            let value = words(actor.scene.id() * 7);
            begin();
            actor.dict.compare_and_set(&3, Some(&words(3)), Some(&value))?;
            end();
            Ok(())
        })
        .act("get or insert", |actor| {
            let id = actor.scene.id();
            begin();
            actor.dict.get_or_insert_with(&(id * 10 + 3), || words(id))?;
            end();
            Ok(())
        })
        .act("set quota", |actor| {
            begin();
            actor.dict.set_quota(1 << 18);
            end();
            Ok(())
        })
        .act("contains", |actor| {
            begin();
            let found = (actor.dict.contains(&3)?, actor.dict.contains(&99)?);
            end();
            if found.1 { corrupt("a key of nobody") } else { Ok(()) }
        })
        .act("keys and values", |actor| {
            begin();
            let found = (actor.dict.keys()?, actor.dict.values()?);
            end();
            found.1.iter().try_for_each(|value| whole(value.first().copied().unwrap_or(0), value))
        })
        .act("iterate", |actor| {
            begin();
            for item in actor.dict.iter() {
                match item {
                    Ok((key, value)) => whole(key, &value)?,
                    // Somebody put or removed something meanwhile.
                    Err(Error::Data(DataError::SizeChanged { .. })) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            end();
            Ok(())
        })
        .act("get", |actor| {
            begin();
            let value = actor.dict.get(&1)?;
            end();
            value.map_or(Ok(()), |value| whole(1, &value))
        })
        .act("clear", |actor| {
            begin();
            actor.dict.clear()?;
            end();
            Ok(())
        })
        .act("grow", |actor| {
            let id = actor.scene.id();
            begin();
            for k in 0..12 {
                actor.dict.insert(&(id * 100 + k), &words(k))?;
            }
            end();
            Ok(())
        })
        .alone()
}
