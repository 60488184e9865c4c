//! A structure of a user's in a heap: what a dead changer began is there whole, or not at all.

use super::states::{Judged, Stateful};
use crate::operation::{Acts, Check, corrupt};
use crate::step::{begin, end};
use shmkit::Segment;
use shmkit::heap::{Cell, Changed, Heap, Ptr, Reader};

/// The value of a box: a number several times.
type Words = [u64; 3];

/// Boxes one behind the other.
pub struct Chain {
    heap: Heap,
}

const FIRST: [u64; 3] = [1, 2, 3];

fn chain<'h>(reader: &Reader<'h>, root: Cell<'h, Words>) -> Result<Vec<Words>, Changed> {
    let (mut all, mut next) = (Vec::new(), Some(root));
    while let Some(cell) = next
        && let Some(found) = reader.follow(cell)?
    {
        all.push(found.value());
        next = found.link(0);
    }
    Ok(all)
}

impl Chain {
    fn all(&self) -> Check<Vec<u64>> {
        let root = self.heap.root(0)?;
        let all = self.heap.read(|reader| chain(reader, root))?;
        let whole = |words: &Words| match words {
            [a, b, c] if a == b && b == c => Ok(*a),
            torn => corrupt(format!("a torn box: {torn:?}")),
        };
        all.iter().map(whole).collect()
    }

    fn push(&self, value: u64) -> shmkit::Result<()> {
        let root = self.heap.root::<Words>(0)?;
        self.heap.change(|change| {
            let new = change.new_box(&[value; 3], &[root.ptr()])?;
            change.swing(root, new)
        })
    }

    fn pop(&self) -> shmkit::Result<()> {
        let root = self.heap.root::<Words>(0)?;
        self.heap.change(|change| {
            let Some(first) = change.follow(root)? else { return Ok(()) };
            change.retire(first.ptr())?;
            change.swing(root, first.link(0).map_or(Ptr::NULL, |link| link.ptr()))
        })
    }

    /// All boxes anew, the other way round.
    fn reverse(&self) -> shmkit::Result<()> {
        let root = self.heap.root::<Words>(0)?;
        self.heap.change(|change| {
            change.reserve(self.heap.len())?;
            let (mut new, mut next) = (Ptr::NULL, Some(root));
            while let Some(cell) = next
                && let Some(found) = change.follow(cell)?
            {
                new = change.new_box(&found.value(), &[new])?;
                change.retire(found.ptr())?;
                next = found.link(0);
            }
            change.swing(root, new)
        })
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
