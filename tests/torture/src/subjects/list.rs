//! The list: what a dead writer began is there whole, or not at all.

use super::states::{Judged, Stateful};
use crate::operation::{Acts, Check, corrupt};
use crate::step::{begin, end};
use shmkit::{List, Segment};

type Words = Vec<u64>;

pub struct Row {
    list: List<Words>,
}

fn words(value: u64) -> Words {
    vec![value; 4]
}

fn whole(value: &Words) -> Check<u64> {
    match value.first() {
        Some(&first) if *value == words(first) => Ok(first),
        _ => corrupt(format!("a torn element: {value:?}")),
    }
}

const FIRST: [u64; 3] = [1, 2, 3];

impl Stateful for Row {
    type State = Vec<u64>;

    fn create(segment: &Segment) -> shmkit::Result<Self> {
        let list = segment.list("list").create()?;
        FIRST.iter().try_for_each(|&value| list.push(&words(value)))?;
        Ok(Row { list })
    }
    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Row { list: segment.list("list").open()? })
    }
    fn first() -> Vec<u64> {
        FIRST.to_vec()
    }
    fn read(&self) -> Check<Vec<u64>> {
        let all = self.list.to_vec()?;
        if all.len() != self.list.len() {
            return corrupt(format!("{} elements, and says {}", all.len(), self.list.len()));
        }
        all.iter().map(whole).collect()
    }
    fn peek(&self) -> Check {
        self.list.iter().try_for_each(|value| whole(&value?).map(drop))
    }
    fn reset(&self) -> Check {
        self.list.clear()?;
        Ok(FIRST.iter().try_for_each(|&value| self.list.push(&words(value)))?)
    }
    fn steps(act: &str, id: u64, before: &Vec<u64>) -> Vec<Vec<u64>> {
        let mut now = before.clone();
        match act {
            "push" => now.push(id * 10),
            "pop" => drop(now.pop()),
            "insert" => now.insert(0, id * 10),
            "set" => match now.first_mut() {
                Some(first) => *first = id * 10,
                None => return Vec::new(),
            },
            "remove" if now.is_empty() => return Vec::new(),
            "remove" => drop(now.remove(0)),
            "clear" => now.clear(),
            "reverse" => now.reverse(),
            "sort" => now.sort_by(|left, right| right.cmp(left)),
            "retain" => now.retain(|value| value % 2 == 1),
            "remove range" if now.len() < 2 => return Vec::new(),
            "remove range" => drop(now.drain(..2)),
            "splice" if now.len() < 2 => return Vec::new(),
            "splice" => drop(now.splice(1..2, [id * 10, id * 10 + 1])),
            "update" => match now.first_mut() {
                Some(first) => *first += id * 1000,
                None => return Vec::new(),
            },
            "extend" => {
                let grown = (0..9).map(|k| {
                    now.push(id * 100 + k);
                    now.clone()
                });
                return grown.collect();
            }
            _ => return Vec::new(),
        }
        vec![now]
    }
    fn use_otherwise(&self) -> Check {
        self.list.push(&words(77))?;
        if self.list.pop()? == Some(words(77)) { Ok(()) } else { corrupt("another element than what was appended") }
    }
}

pub fn acts() -> Acts<Judged<Row>> {
    Acts::<Judged<Row>>::new()
        .act("push", |actor| {
            let value = words(actor.scene.id() * 10);
            begin();
            actor.list.push(&value)?;
            end();
            Ok(())
        })
        .act("pop", |actor| {
            begin();
            actor.list.pop()?;
            end();
            Ok(())
        })
        .act("insert", |actor| {
            let value = words(actor.scene.id() * 10);
            begin();
            actor.list.insert(0, &value)?;
            end();
            Ok(())
        })
        .act("set", |actor| {
            let value = words(actor.scene.id() * 10);
            begin();
            let _ = actor.list.set(0, &value);
            end();
            Ok(())
        })
        .act("remove", |actor| {
            begin();
            let _ = actor.list.remove(0);
            end();
            Ok(())
        })
        .act("get", |actor| {
            begin();
            let value = actor.list.get(0)?;
            end();
            value.map_or(Ok(()), |value| whole(&value).map(drop))
        })
        .act("sort", |actor| {
            begin();
            actor.list.sort_by(|left, right| right.cmp(left))?;
            end();
            Ok(())
        })
        .act("retain", |actor| {
            begin();
            actor.list.retain(|value| value[0] % 2 == 1)?;
            end();
            Ok(())
        })
        .act("remove range", |actor| {
            begin();
            let _ = actor.list.remove_range(..2);
            end();
            Ok(())
        })
        .act("splice", |actor| {
            let values = [words(actor.scene.id() * 10), words(actor.scene.id() * 10 + 1)];
            begin();
            let _ = actor.list.splice(1..2, values);
            end();
            Ok(())
        })
        .alone()
        .act("update", |actor| {
            let more = actor.scene.id() * 1000;
            begin();
            let _ = actor.list.update(0, |value| value.iter_mut().for_each(|word| *word += more));
            end();
            Ok(())
        })
        .act("slice", |actor| {
            begin();
            let some = actor.list.slice(..)?;
            end();
            some.iter().try_for_each(|value| whole(value).map(drop))
        })
        .act("reverse", |actor| {
            begin();
            actor.list.reverse()?;
            end();
            Ok(())
        })
        .act("clear", |actor| {
            begin();
            actor.list.clear()?;
            end();
            Ok(())
        })
        .act("extend", |actor| {
            let id = actor.scene.id();
            let values: Vec<Words> = (0..9).map(|k| words(id * 100 + k)).collect();
            begin();
            actor.list.extend(values)?;
            end();
            Ok(())
        })
        .alone()
}
