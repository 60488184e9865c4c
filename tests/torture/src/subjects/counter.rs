//! The counter: what was added is added once.

use super::states::{Judged, Stateful};
use crate::operation::{Acts, Check};
use crate::step::{begin, end};
use shmkit::{Counter, Segment};

pub struct Sum {
    counter: Counter,
}

impl Stateful for Sum {
    type State = u64;

    fn create(segment: &Segment) -> shmkit::Result<Self> {
        let sum = Sum { counter: segment.counter("counter").create()? };
        sum.counter.add(100)?;
        Ok(sum)
    }
    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Sum { counter: segment.counter("counter").open()? })
    }
    fn first() -> u64 {
        100
    }
    fn read(&self) -> Check<u64> {
        Ok(self.counter.get())
    }
    fn peek(&self) -> Check {
        Ok(())
    }
    fn reset(&self) -> Check {
        self.counter.take();
        Ok(self.counter.add(100)?)
    }
    fn steps(act: &str, id: u64, before: &u64) -> Vec<u64> {
        match act {
            "add" => vec![before + id],
            "subtract" => vec![before - id],
            _ => Vec::new(),
        }
    }
    fn use_otherwise(&self) -> Check {
        self.counter.add(7)?;
        Ok(self.counter.subtract(7)?)
    }
}

pub fn acts() -> Acts<Judged<Sum>> {
    Acts::<Judged<Sum>>::new()
        .act("add", |actor| {
            let n = actor.scene.id();
            begin();
            actor.counter.add(n)?;
            end();
            Ok(())
        })
        .act("subtract", |actor| {
            let n = actor.scene.id();
            begin();
            actor.counter.subtract(n)?;
            end();
            Ok(())
        })
        .alone()
}
