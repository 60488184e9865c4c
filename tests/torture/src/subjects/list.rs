//! The list: what a dead writer began is there whole, or not at all.

use super::states::{Judged, Stateful};
use crate::operation::{Acts, Check, corrupt};
use crate::step::{begin, end};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shmkit::{List, Segment};
use std::fmt::Debug;

/// What the elements are.
pub trait Shape: 'static {
    /// Their type.
    type Element: Serialize + DeserializeOwned + PartialEq + Debug;

    /// The element that stands for a number.
    fn of(value: u64) -> Self::Element;
    /// The number it stands for, if it is one.
    fn whole(element: &Self::Element) -> Check<u64>;
}

/// Elements with a node each.
pub struct Words;

impl Shape for Words {
    type Element = Vec<u64>;

    fn of(value: u64) -> Vec<u64> {
        vec![value; 4]
    }
    fn whole(element: &Vec<u64>) -> Check<u64> {
        match element.first() {
            Some(&first) if *element == Words::of(first) => Ok(first),
            _ => corrupt(format!("a torn element: {element:?}")),
        }
    }
}

/// Elements that lie in their slots.
pub struct Numbers;

impl Shape for Numbers {
    type Element = u64;

    fn of(value: u64) -> u64 {
        value << 32 | value
    }
    fn whole(element: &u64) -> Check<u64> {
        if Numbers::of(element >> 32) == *element { Ok(element >> 32) } else { corrupt(format!("torn: {element:#x}")) }
    }
}

pub struct Row<E: Shape> {
    list: List<E::Element>,
}

const FIRST: [u64; 3] = [1, 2, 3];

impl<E: Shape> Stateful for Row<E> {
    type State = Vec<u64>;

    fn create(segment: &Segment) -> shmkit::Result<Self> {
        let list = segment.list("list").create()?;
        FIRST.iter().try_for_each(|&value| list.push(&E::of(value)))?;
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
        all.iter().map(E::whole).collect()
    }
    fn peek(&self) -> Check {
        self.list.iter().try_for_each(|value| E::whole(&value?).map(drop))
    }
    fn reset(&self) -> Check {
        self.list.clear()?;
        Ok(FIRST.iter().try_for_each(|&value| self.list.push(&E::of(value)))?)
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
        self.list.push(&E::of(77))?;
        if self.list.pop()? == Some(E::of(77)) { Ok(()) } else { corrupt("another element than what was appended") }
    }
}

/// The number of an element; one that is torn is found by whoever reads it.
fn number<E: Shape>(element: &E::Element) -> u64 {
    E::whole(element).unwrap_or(0)
}

pub fn acts<E: Shape>() -> Acts<Judged<Row<E>>> {
    Acts::<Judged<Row<E>>>::new()
        .act("push", |actor| {
            let value = E::of(actor.scene.id() * 10);
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
            let value = E::of(actor.scene.id() * 10);
            begin();
            actor.list.insert(0, &value)?;
            end();
            Ok(())
        })
        .act("set", |actor| {
            let value = E::of(actor.scene.id() * 10);
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
            value.map_or(Ok(()), |value| E::whole(&value).map(drop))
        })
        .act("sort", |actor| {
            begin();
            actor.list.sort_by(|left, right| number::<E>(right).cmp(&number::<E>(left)))?;
            end();
            Ok(())
        })
        .act("retain", |actor| {
            begin();
            actor.list.retain(|value| number::<E>(value) % 2 == 1)?;
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
            let values = [E::of(actor.scene.id() * 10), E::of(actor.scene.id() * 10 + 1)];
            begin();
            let _ = actor.list.splice(1..2, values);
            end();
            Ok(())
        })
        .alone()
        .act("update", |actor| {
            let more = actor.scene.id() * 1000;
            begin();
            let _ = actor.list.update(0, |value| *value = E::of(number::<E>(value) + more));
            end();
            Ok(())
        })
        .act("set quota", |actor| {
            begin();
            actor.list.set_quota(1 << 18);
            end();
            Ok(())
        })
        .act("position", |actor| {
            begin();
            let found = (actor.list.position(&E::of(3))?, actor.list.count(&E::of(99))?);
            end();
            if found.1 == 0 { Ok(()) } else { corrupt("an element of nobody") }
        })
        .act("slice", |actor| {
            begin();
            let some = actor.list.slice(..)?;
            end();
            some.iter().try_for_each(|value| E::whole(value).map(drop))
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
            let values: Vec<_> = (0..9).map(|k| E::of(id * 100 + k)).collect();
            begin();
            actor.list.extend(values)?;
            end();
            Ok(())
        })
        .alone()
}
