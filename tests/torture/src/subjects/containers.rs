//! Counters, namespaces and dicts of several shards: each change is there whole, or not at all.

use super::states::{Judged, Stateful};
use crate::operation::{Acts, Check, corrupt};
use crate::step::{begin, end};
use shmkit::data::{Counter, Namespace, ShardedDict};
use shmkit::{Segment, ShareableList};
use std::collections::BTreeMap;

pub struct Several {
    counter: Counter,
    names: Namespace,
    shards: ShardedDict<u64, u64>,
    row: ShareableList,
}

/// What is in each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    count: u64,
    names: BTreeMap<String, u64>,
    shards: BTreeMap<u64, u64>,
    row: Vec<i64>,
}

impl Stateful for Several {
    type State = Contents;

    fn create(segment: &Segment) -> shmkit::Result<Self> {
        let several = Several {
            counter: segment.counter("counter").create()?,
            names: segment.namespace("names").create()?,
            shards: segment.sharded_dict("shards").shards(4).create()?,
            row: ShareableList::create(segment, "row", [1i64, 2].map(Into::into))?,
        };
        several.fill()?;
        Ok(several)
    }
    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Several {
            counter: segment.counter("counter").open()?,
            names: segment.namespace("names").open()?,
            shards: segment.sharded_dict("shards").open()?,
            row: ShareableList::open(segment, "row")?,
        })
    }
    fn first() -> Contents {
        Contents {
            count: 5,
            names: [("one".to_owned(), 1)].into(),
            shards: (1..=4).map(|key| (key, key)).collect(),
            row: vec![1, 2],
        }
    }
    fn read(&self) -> Check<Contents> {
        let mut names = BTreeMap::new();
        for name in self.names.names()? {
            let Some(value) = self.names.get(&name)? else { return corrupt(format!("{name} is there and is not")) };
            names.insert(name, value);
        }
        let items = self.shards.items()?;
        let shards: BTreeMap<u64, u64> = items.iter().copied().collect();
        if shards.len() != items.len() || self.shards.len() != items.len() || self.names.len() != names.len() {
            return corrupt(format!("{} elements, and says {}", items.len(), self.shards.len()));
        }
        let mut row = Vec::new();
        for value in self.row.to_vec()? {
            match value {
                shmkit::data::Scalar::Int(value) => row.push(value),
                other => return corrupt(format!("{other:?} is no number")),
            }
        }
        Ok(Contents { count: self.counter.get(), names, shards, row })
    }
    fn reset(&self) -> Check {
        self.counter.take();
        self.names.clear()?;
        self.shards.clear()?;
        self.row.set(0, 1i64)?;
        self.row.set(1, 2i64)?;
        Ok(self.fill()?)
    }
    fn steps(act: &str, id: u64, before: &Contents) -> Vec<Contents> {
        let mut now = before.clone();
        match act {
            "count up" => now.count += id,
            "count down" => now.count -= 1,
            "take count" => now.count = 0,
            "set name" => drop(now.names.insert(format!("name {id}"), id)),
            "remove name" => drop(now.names.remove("one")),
            "update name" => *now.names.entry("one".to_owned()).or_default() += id,
            "insert" => drop(now.shards.insert(id * 10, id)),
            "remove" => drop(now.shards.remove(&2)),
            "update" => *now.shards.entry(3).or_default() += id * 100,
            "pop" => drop(now.shards.remove(&1)),
            "swap" => drop(now.shards.insert(4, id * 1000)),
            "compare and set" if now.shards.get(&4) == Some(&4) => drop(now.shards.insert(4, id * 7)),
            "compare and set" => return Vec::new(),
            "merge" => return subsets(&now, &[id * 10 + 1, id * 10 + 2], |now, key| now.shards.insert(key, id)),
            "clear shards" => {
                let keys: Vec<u64> = now.shards.keys().copied().collect();
                return subsets(&now, &keys, |now, key| now.shards.remove(&key));
            }
            "clear names" => now.names.clear(),
            "set scalar" => now.row[0] = id as i64 * 10,
            _ => return Vec::new(),
        }
        vec![now]
    }
}

/// All that can be there when each of the changes was made or not; the last one is where all were.
fn subsets<R>(before: &Contents, keys: &[u64], change: impl Fn(&mut Contents, u64) -> R) -> Vec<Contents> {
    let of = |set: u32| {
        let mut now = before.clone();
        let chosen = keys.iter().enumerate().filter(|(place, _)| set >> place & 1 == 1);
        for (_, &key) in chosen {
            change(&mut now, key);
        }
        now
    };
    (0..1 << keys.len()).map(of).collect()
}

impl Several {
    fn fill(&self) -> shmkit::Result<()> {
        self.counter.add(5)?;
        self.names.set("one", &1u64)?;
        (1..=4u64).try_for_each(|key| self.shards.insert(&key, &key).map(drop))
    }
}

pub fn acts() -> Acts<Judged<Several>> {
    Acts::<Judged<Several>>::new()
        .act("count up", |actor| {
            let id = actor.scene.id();
            begin();
            actor.counter.add(id)?;
            end();
            Ok(())
        })
        .act("count down", |actor| {
            begin();
            actor.counter.subtract(1)?;
            end();
            Ok(())
        })
        // With others it takes what they have counted so far.
        .act("take count", |actor| {
            begin();
            let taken = actor.counter.take();
            end();
            if taken == 5 { Ok(()) } else { corrupt(format!("{taken} was counted")) }
        })
        .alone()
        .act("set name", |actor| {
            let id = actor.scene.id();
            begin();
            actor.names.set(&format!("name {id}"), &id)?;
            end();
            Ok(())
        })
        .act("remove name", |actor| {
            begin();
            actor.names.remove("one")?;
            end();
            Ok(())
        })
        .act("update name", |actor| {
            let id = actor.scene.id();
            begin();
            actor.names.update("one", |value: &mut Option<u64>| *value.get_or_insert(0) += id)?;
            end();
            Ok(())
        })
        .act("insert", |actor| {
            let id = actor.scene.id();
            begin();
            actor.shards.insert(&(id * 10), &id)?;
            end();
            Ok(())
        })
        .act("remove", |actor| {
            begin();
            actor.shards.remove(&2)?;
            end();
            Ok(())
        })
        .act("update", |actor| {
            let more = actor.scene.id() * 100;
            begin();
            actor.shards.update(&3, |value| *value.get_or_insert(0) += more)?;
            end();
            Ok(())
        })
        .act("pop", |actor| {
            begin();
            actor.shards.pop(&1)?;
            end();
            Ok(())
        })
        .act("swap", |actor| {
            let id = actor.scene.id();
            begin();
            actor.shards.swap(&4, &(id * 1000))?;
            end();
            Ok(())
        })
        .act("compare and set", |actor| {
            let id = actor.scene.id();
            begin();
            actor.shards.compare_and_set(&4, Some(&4), Some(&(id * 7)))?;
            end();
            Ok(())
        })
        .act("merge", |actor| {
            let id = actor.scene.id();
            begin();
            actor.shards.merge([(id * 10 + 1, id), (id * 10 + 2, id)])?;
            end();
            Ok(())
        })
        // In the order of the shards.
        .alone()
        .act("clear shards", |actor| {
            begin();
            actor.shards.clear()?;
            end();
            Ok(())
        })
        // One shard after the other.
        .alone()
        .act("clear names", |actor| {
            begin();
            actor.names.clear()?;
            end();
            Ok(())
        })
        .act("read all", |actor| {
            begin();
            let found = (actor.shards.items()?, actor.names.names()?, actor.row.to_vec()?, actor.counter.get());
            end();
            if found.2.len() == 2 { Ok(()) } else { corrupt("another row") }
        })
        .act("set scalar", |actor| {
            let value = actor.scene.id() as i64 * 10;
            begin();
            actor.row.set(0, value)?;
            end();
            Ok(())
        })
}
