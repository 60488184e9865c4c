//! Boxes of a heap one behind the other, from its first root on, each with one number `N` times.

use crate::operation::{Check, corrupt};
use shmkit::heap::{Heap, Ptr};

/// The numbers, the first one first. None is torn.
pub fn all<const N: usize>(heap: &Heap) -> Check<Vec<u64>> {
    let root = heap.root::<[u64; N]>(0)?;
    let all = heap.read(|reader| {
        let (mut all, mut next) = (Vec::new(), Some(root));
        while let Some(cell) = next
            && let Some(found) = reader.follow(cell)?
        {
            all.push(found.value());
            next = found.link(0);
        }
        Ok(all)
    })?;
    let whole = |words: &[u64; N]| match words {
        found if *found == [found[0]; N] => Ok(found[0]),
        torn => corrupt(format!("heap: a torn box: {torn:?}")),
    };
    all.iter().map(whole).collect()
}

/// Puts a box before the others.
pub fn push<const N: usize>(heap: &Heap, value: u64) -> shmkit::Result<()> {
    let root = heap.root::<[u64; N]>(0)?;
    heap.change(|change| {
        let new = change.new_box(&[value; N], &[root.ptr()])?;
        change.swing(root, new)
    })
}

/// Takes the first box away, if there is one.
pub fn pop<const N: usize>(heap: &Heap) -> shmkit::Result<()> {
    let root = heap.root::<[u64; N]>(0)?;
    heap.change(|change| {
        let Some(first) = change.follow(root)? else { return Ok(()) };
        change.retire(first.ptr())?;
        change.swing(root, first.link(0).map_or(Ptr::NULL, |link| link.ptr()))
    })
}

/// All boxes anew, the other way round.
pub fn reverse<const N: usize>(heap: &Heap) -> shmkit::Result<()> {
    let root = heap.root::<[u64; N]>(0)?;
    heap.change(|change| {
        change.reserve(heap.len())?;
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
