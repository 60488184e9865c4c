//! Arrays. Half-written elements are allowed, if the next taker is told.

use super::repaired;
use super::states::{Judged, Stateful};
use crate::operation::{Acts, Check, corrupt};
use crate::step::{begin, end};
use shmkit::{Array, Segment};

const LEN: usize = 4;

pub struct Arrays {
    words: Array<u64>,
}

/// An element that was half done, mended to this.
const MENDED: u64 = 1;

impl Arrays {
    /// The elements; those of a dead writer are mended if he left them half done.
    fn settle(&self) -> Check<Vec<u64>> {
        let (guard, was_told) = repaired(self.words.lock(), |guard| guard.fill(MENDED))?;
        let all = guard.to_vec();
        drop(guard);
        let copy = self.words.to_vec()?;
        if copy != all {
            return corrupt(format!("{copy:?} and {all:?}, told: {was_told}"));
        }
        Ok(all)
    }
}

impl Stateful for Arrays {
    type State = Vec<u64>;

    fn create(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Arrays { words: segment.array("words").initial(&[1; LEN]).create()? })
    }
    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Arrays { words: segment.array("words").open()? })
    }
    fn first() -> Vec<u64> {
        vec![1; LEN]
    }
    fn read(&self) -> Check<Vec<u64>> {
        self.settle()
    }
    fn reset(&self) -> Check {
        Ok(self.words.fill(1)?)
    }
    fn steps(act: &str, id: u64, before: &Vec<u64>) -> Vec<Vec<u64>> {
        let with = |change: &dyn Fn(&mut Vec<u64>)| {
            let mut after = before.clone();
            change(&mut after);
            after
        };
        // Who dies in the middle of many leaves them to be mended.
        let mended = vec![MENDED; LEN];
        match act {
            "set" => vec![with(&|words| words[1] = id * 10)],
            "add" => vec![with(&|words| words[2] += id)],
            "write" => vec![mended, with(&|words| words[..3].fill(id * 10))],
            "fill" | "guard" => vec![mended, vec![id * 10; LEN]],
            _ => Vec::new(),
        }
    }
}

/// Others' half-done elements are not this one's to judge.
fn mended(actor: &Arrays) -> Check {
    actor.settle().map(drop)
}

pub fn acts() -> Acts<Judged<Arrays>> {
    Acts::<Judged<Arrays>>::new()
        .act("set", |actor| {
            mended(&actor)?;
            let value = actor.scene.id() * 10;
            begin();
            actor.words.set(1, value)?;
            end();
            Ok(())
        })
        .alone()
        .act("add", |actor| {
            let more = actor.scene.id();
            begin();
            actor.words.fetch_add(2, more)?;
            end();
            Ok(())
        })
        .alone()
        .act("write", |actor| {
            let values = [actor.scene.id() * 10; 3];
            begin();
            actor.words.write(0, &values)?;
            end();
            Ok(())
        })
        .alone()
        .act("fill", |actor| {
            let value = actor.scene.id() * 10;
            begin();
            actor.words.fill(value)?;
            end();
            Ok(())
        })
        .alone()
        .act("guard", |actor| {
            let value = actor.scene.id() * 10;
            begin();
            let (mut guard, _) = repaired(actor.words.lock(), |guard| guard.fill(MENDED))?;
            guard.fill(value);
            drop(guard);
            end();
            Ok(())
        })
        .act("read", |actor| {
            begin();
            let guard = repaired(actor.words.lock(), |guard| guard.fill(MENDED))?;
            end();
            drop(guard);
            Ok(())
        })
}
