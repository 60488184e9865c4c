//! Values: one that lies in a word, one that does not.

use super::states::{Judged, Stateful};
use crate::operation::{Acts, Check, corrupt};
use crate::step::{begin, end};
use shmkit::{Segment, Value};

type Large = [u64; 6];

pub struct Values {
    small: Value<u64>,
    large: Value<Large>,
}

impl Stateful for Values {
    /// The small one, and what is in every word of the large one.
    type State = (u64, u64);

    fn create(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Values {
            small: segment.value("small").initial(1).create()?,
            large: segment.value("large").initial([1; 6]).create()?,
        })
    }
    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Values { small: segment.value("small").open()?, large: segment.value("large").open()? })
    }
    fn first() -> (u64, u64) {
        (1, 1)
    }
    fn read(&self) -> Check<(u64, u64)> {
        let large = self.large.get()?;
        if large == [large[0]; 6] {
            return Ok((self.small.get()?, large[0]));
        }
        corrupt(format!("a torn value: {large:?}"))
    }
    fn peek(&self) -> Check {
        self.read().map(drop)
    }
    fn reset(&self) -> Check {
        self.small.set(1)?;
        Ok(self.large.set([1; 6])?)
    }
    fn steps(act: &str, id: u64, &(small, large): &(u64, u64)) -> Vec<(u64, u64)> {
        match act {
            "set small" => vec![(id * 10, large)],
            "add" => vec![(small + id, large)],
            "set" => vec![(small, id * 10)],
            "swap" => vec![(if small == 1 { id * 10 } else { small }, large)],
            "guard" => vec![(small, id * 10), (small, id * 10 + 1)],
            "update" => vec![(small, large + id * 100)],
            _ => Vec::new(),
        }
    }
}

pub fn acts() -> Acts<Judged<Values>> {
    Acts::<Judged<Values>>::new()
        .act("set small", |actor| {
            let value = actor.scene.id() * 10;
            begin();
            actor.small.set(value)?;
            end();
            Ok(())
        })
        .act("add", |actor| {
            let value = actor.scene.id();
            begin();
            actor.small.fetch_add(value);
            end();
            Ok(())
        })
        .act("set", |actor| {
            let value = [actor.scene.id() * 10; 6];
            begin();
            actor.large.set(value)?;
            end();
            Ok(())
        })
        .act("update", |actor| {
            let more = actor.scene.id() * 100;
            begin();
            actor.large.update(|value| value.iter_mut().for_each(|word| *word += more))?;
            end();
            Ok(())
        })
        .act("swap", |actor| {
            let value = actor.scene.id() * 10;
            begin();
            let _ = actor.small.compare_exchange(1, value);
            end();
            Ok(())
        })
        .act("guard", |actor| {
            let value = actor.scene.id() * 10;
            begin();
            let mut guard = actor.large.lock()?;
            *guard = [value; 6];
            guard.publish();
            *guard = [value + 1; 6];
            drop(guard);
            end();
            Ok(())
        })
        .act("get", |actor| {
            begin();
            let value = actor.large.get()?;
            end();
            if value == [value[0]; 6] { Ok(()) } else { corrupt(format!("a torn value: {value:?}")) }
        })
}
