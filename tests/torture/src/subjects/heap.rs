//! A structure of a user's in a heap: what a dead changer began is there whole, or not at all.

use super::states::{Judged, Stateful};
use crate::chain;
use crate::operation::{Acts, Check, corrupt};
use crate::step::{begin, end};
use shmkit::Segment;
use shmkit::heap::Heap;

/// How often a box has its number.
const WORDS: usize = 3;

/// Boxes one behind the other.
pub struct Chain {
    heap: Heap,
}

const FIRST: [u64; 3] = [1, 2, 3];

impl Chain {
    fn all(&self) -> Check<Vec<u64>> {
        chain::all::<WORDS>(&self.heap)
    }

    fn push(&self, value: u64) -> shmkit::Result<()> {
        chain::push::<WORDS>(&self.heap, value)
    }

    fn pop(&self) -> shmkit::Result<()> {
        chain::pop::<WORDS>(&self.heap)
    }

    fn reverse(&self) -> shmkit::Result<()> {
        chain::reverse::<WORDS>(&self.heap)
    }
}

impl Stateful for Chain {
    type State = Vec<u64>;

    fn create(segment: &Segment) -> shmkit::Result<Self> {
        let chain = Chain { heap: segment.heap("heap").create()? };
        FIRST.iter().try_for_each(|&value| chain.push(value))?;
        Ok(chain)
    }
    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Chain { heap: segment.heap("heap").open()? })
    }
    fn first() -> Vec<u64> {
        FIRST.iter().rev().copied().collect()
    }
    fn read(&self) -> Check<Vec<u64>> {
        // The lock's next owner repairs: after that the count is right, too.
        self.heap.change(|_| Ok(()))?;
        let all = self.all()?;
        if all.len() == self.heap.len() {
            Ok(all)
        } else {
            corrupt(format!("{} boxes, and says {}", all.len(), self.heap.len()))
        }
    }
    fn peek(&self) -> Check {
        self.all().map(drop)
    }
    fn reset(&self) -> Check {
        while !self.all()?.is_empty() {
            self.pop()?;
        }
        Ok(FIRST.iter().try_for_each(|&value| self.push(value))?)
    }
    fn steps(act: &str, id: u64, before: &Vec<u64>) -> Vec<Vec<u64>> {
        let mut now = before.clone();
        match act {
            "push" => now.insert(0, id * 10),
            "pop" if now.is_empty() => return Vec::new(),
            "pop" => drop(now.remove(0)),
            "reverse" => now.reverse(),
            _ => return Vec::new(),
        }
        vec![now]
    }
    fn use_otherwise(&self) -> Check {
        self.push(77)?;
        Ok(self.pop()?)
    }
}

pub fn acts() -> Acts<Judged<Chain>> {
    Acts::<Judged<Chain>>::new()
        .act("push", |actor| {
            let value = actor.scene.id() * 10;
            begin();
            actor.push(value)?;
            end();
            Ok(())
        })
        .act("pop", |actor| {
            begin();
            actor.pop()?;
            end();
            Ok(())
        })
        .act("reverse", |actor| {
            begin();
            actor.reverse()?;
            end();
            Ok(())
        })
        .act("read", |actor| {
            begin();
            let all = actor.all();
            end();
            all.map(drop)
        })
        .alone()
}
