//! A sorted list of pairs in a heap, as somebody might write it.

use shmkit::heap::{Boxed, Cell, Change, Changed, Heap, Ptr, Reader};

pub type Pair = [u64; 2];

/// The link that names the pair with this key or the next larger one, and that pair.
fn find<'h>(
    change: &Change<'_, 'h>,
    root: Cell<'h, Pair>,
    key: u64,
) -> shmkit::Result<(Cell<'h, Pair>, Option<Boxed<'h, Pair>>)> {
    let mut at = root;
    loop {
        match change.follow(at)? {
            Some(pair) if pair.value()[0] < key => at = pair.link(0).expect("made with one link"),
            found => return Ok((at, found)),
        }
    }
}

pub fn insert(heap: &Heap, key: u64, value: u64) -> shmkit::Result<Option<u64>> {
    let root = heap.root(0)?;
    heap.change(|change| {
        let (at, found) = find(change, root, key)?;
        let same = found.filter(|pair| pair.value()[0] == key);
        let rest = same.map_or(at, |pair| pair.link(0).expect("made with one link")).ptr();
        let new = change.new_box(&[key, value], &[rest])?;
        if let Some(old) = same {
            change.retire(old.ptr())?;
        }
        let before = same.map(|pair| pair.value()[1]);
        change.swing(at, new)?;
        Ok(before)
    })
}

pub fn remove(heap: &Heap, key: u64) -> shmkit::Result<Option<u64>> {
    let root = heap.root(0)?;
    heap.change(|change| {
        let (at, Some(pair)) = find(change, root, key)? else { return Ok(None) };
        if pair.value()[0] != key {
            return Ok(None);
        }
        change.retire(pair.ptr())?;
        let value = pair.value()[1];
        change.swing(at, pair.link(0).expect("made with one link").ptr())?;
        Ok(Some(value))
    })
}

/// All pairs made anew, with twice the value.
pub fn double(heap: &Heap) -> shmkit::Result<()> {
    let root = heap.root::<Pair>(0)?;
    heap.change(|change| {
        let (mut pairs, mut next) = (Vec::new(), root);
        while let Some(pair) = change.follow(next)? {
            pairs.push(pair);
            next = pair.link(0).expect("made with one link");
        }
        change.reserve(pairs.len())?;
        let mut first = Ptr::NULL;
        for pair in pairs.iter().rev() {
            let [key, value] = pair.value();
            first = change.new_box(&[key, value.wrapping_mul(2)], &[first])?;
            change.retire(pair.ptr())?;
        }
        change.swing(root, first)
    })
}

pub fn pairs<'h>(reader: &Reader<'h>, root: Cell<'h, Pair>) -> Result<Vec<(u64, u64)>, Changed> {
    let (mut all, mut next) = (Vec::new(), Some(root));
    while let Some(cell) = next
        && let Some(pair) = reader.follow(cell)?
    {
        let [key, value] = pair.value();
        all.push((key, value));
        next = pair.link(0);
    }
    Ok(all)
}

pub fn all(heap: &Heap) -> Vec<(u64, u64)> {
    let root = heap.root(0).unwrap();
    heap.read(|reader| pairs(reader, root)).unwrap()
}
