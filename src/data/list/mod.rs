//! [`List`]: a list that processes share, read without a lock.
//!
//! * `core`: the algorithm. `directory`: the directory and the chunks.
//! * The blocks and the journal are [`super::arena`]'s, the values `super::node`'s.
//!
//! # Crash behaviour
//!
//! | a writer is killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | waiting for the lock, or serialising | nothing; a large value's extent HELD | the sweep of the heap | its change |
//! | with the lock, before its store to slot, link or root | the list as it was | the next writer, or recovery: new blocks are freed | its change |
//! | after that store | the change, whole | likewise: old blocks are freed | nothing |
//! | in a closure of the user's, in `update` or `sort_by` | the list as it was | nobody needs to; the lock passes on | its change |
//! | in `extend` | the elements appended so far | as above | the rest |
//! | in `sort`, `reverse`, `splice`, `retain` | all of it or nothing | as above | likewise |
//! | in `clear`, after the root was stored | an empty list | likewise: its memory is freed | nothing |
//! | a reader, anywhere | nothing | nobody needs to | nothing |
//!
//! Readers never wait for a dead or stopped writer, but for one whose tries writers have spoiled 128 times in a row: it takes their
//! lock. Writers wait for a stopped one, and 50 ms at most for a dead one.

pub(crate) mod core;
mod directory;

use self::core::{Core, Element, Found, New};
use super::arena::link::HANDLE_TRIES;
use super::arena::recovery::{arena_at, block_generation, destroy, named, recover};
use super::arena::{Arena, Writing};
use super::dict::ContainerOptions;
use super::node::{Contents, Copied, Value, decode_small, small_of};
use crate::Error;
use crate::error::{Result, SegmentError};
use crate::kinds::Kind;
use crate::segment::object::{BodyId, HEADER, Object, Shared, create, handle_as_value};
use crate::segment::{At, Attachment, Extent, Segment, session};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shmkit_layouts::containers::{ArenaBody, ListBody};
use shmkit_layouts::kinds::KIND_LIST;
use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, Range, RangeBounds};

/// Bytes from the start of a list's own struct to its arena.
const ARENA: u64 = size_of::<ListBody>() as u64;

fn core_of<'a>(attachment: &'a Attachment, body: &Extent) -> Result<Core<'a>> {
    let arena = arena_at(attachment, body, ARENA, (0, 1), "list")?;
    // It lies before the arena, which was checked.
    Ok(Core { arena, body: attachment.pointer(body.offset + HEADER, "list")? })
}

/// What recovery does with lists.
pub(crate) const KIND: Kind = Kind {
    recover: |attachment, body, dead| {
        if let Ok(core) = core_of(attachment, body) {
            // A corrupt one stays as it is: whoever uses it is told.
            let _ = recover(core.arena, dead, |writing| core.repair(writing));
        }
    },
    destroy: |attachment, body| core_of(attachment, body).is_ok_and(|core| destroy(&core.arena)),
    extents: |attachment, body, visit| {
        if let Ok(core) = core_of(attachment, body) {
            named(&core.arena, visit);
        }
    },
    block_generation: |attachment, body, id| block_generation(&[core_of(attachment, body).ok()?.arena], id),
    verify: |attachment, body| core_of(attachment, body)?.verify(),
    ..Kind::plain(KIND_LIST)
};

/// A list shared by threads and processes: Python's `Manager().list()`, without the manager.
///
/// Elements are serde values of any size, as a [`crate::Dict`]'s values; they may hold handles of other shared objects, which live
/// as long as the element does. Reading takes no lock and never waits for a stopped or dead writer, unless writers have spoiled 128
/// tries in a row: then it takes their lock. Writers take turns. Appending, replacing and taking away the last element cost the same
/// however long the list is; inserting and removing elsewhere cost a little more the longer it is.
///
/// Removing an element that is not the last one, `retain`, `remove_range`, sorting and reversing need new memory before they free
/// any: a list that has no more is thinned by [`List::pop`] or [`List::clear`].
///
/// A handle: cloning it is cheap.
///
/// Crash behaviour: see the table at the head of the module `data::list` in the sources and in `docs/reliability.md`.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let names = shmkit::List::<String>::new()?;
/// names.push("Grace")?;
/// names.push("Ada")?;
/// names.insert(1, "Edsger")?;
/// names.sort()?;
/// assert_eq!(names.to_vec()?, ["Ada", "Edsger", "Grace"]);
/// assert_eq!(names.get(2)?.as_deref(), Some("Grace"));
/// assert_eq!(names.position("Edsger")?, Some(1));
/// assert_eq!(names.pop()?.as_deref(), Some("Grace"));
/// # Ok(())
/// # }
/// ```
pub struct List<T> {
    object: Object,
    body: *const ListBody,
    arena: *const ArenaBody,
    _elements: PhantomData<fn(T) -> T>,
}

// SAFETY: the pointers are into the mapping, which `object` keeps; only atomics are reached through them.
unsafe impl<T> Send for List<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for List<T> {}

impl<T> Shared for List<T> {
    type Options = ContainerOptions;

    fn kind() -> u32 {
        KIND_LIST
    }
    fn label() -> Option<&'static str> {
        Some(std::any::type_name::<T>())
    }
    fn size(_: &ContainerOptions) -> Result<u64> {
        Ok(ARENA + size_of::<ArenaBody>() as u64)
    }
    fn build(options: &ContainerOptions, start: *mut u8, _: BodyId) -> Result<()> {
        // SAFETY: the body has room for list and arena, zero, and nobody else reaches it yet.
        unsafe { options.build(start.add(ARENA as usize).cast()) };
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let (body, arena) = (object.body()?, object.part(ARENA, 1)?);
        Ok(List { object, body, arena, _elements: PhantomData })
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

handle_as_value!(List<T>);

impl<T> List<T> {
    /// A new one in the session segment.
    ///
    /// # Errors
    /// `OutOfMemory`, `TooManyObjects`.
    pub fn new() -> Result<List<T>> {
        List::new_in(&session()?)
    }

    /// A new one in `segment`.
    ///
    /// # Errors
    /// As [`List::new`].
    pub fn new_in(segment: &Segment) -> Result<List<T>> {
        create(segment, None, &ContainerOptions::default(), false)
    }

    #[inline]
    fn core(&self) -> Core<'_> {
        let object = self.object.reference.id.index;
        let arena =
            Arena { attachment: self.object.attachment(), body: self.arena, object, part: (0, 1), what: "list" };
        Core { arena, body: self.body }
    }

    /// Elements at this instant.
    pub fn len(&self) -> usize {
        self.core().arena.length() as usize
    }

    /// Whether there are none at this instant.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes everything.
    ///
    /// # Errors
    /// As [`List::push`].
    pub fn clear(&self) -> Result<()> {
        let core = self.core();
        core.clear(&mut core.lock()?)
    }

    /// Reverses the order.
    ///
    /// # Errors
    /// As [`List::push`].
    pub fn reverse(&self) -> Result<()> {
        let core = self.core();
        let mut writing = core.lock()?;
        let mut all = core.all(&writing)?;
        all.reverse();
        core.rearrange(&mut writing, all, 0, &[], Vec::new())
    }

    /// Removes the elements of `range`.
    ///
    /// # Errors
    /// `OutOfRange` and as [`List::push`].
    pub fn remove_range(&self, range: impl RangeBounds<usize>) -> Result<()> {
        self.replace(range, &[])
    }

    fn replace(&self, range: impl RangeBounds<usize>, values: &[Value]) -> Result<()> {
        let core = self.core();
        let mut writing = core.lock()?;
        let mut all = core.all(&writing)?;
        // Not `length`: a peer may have written another one since.
        let range = bounds(&range, all.len() as u64)?;
        let garbage: Vec<u64> = all.drain(range.start as usize..range.end as usize).collect();
        core.rearrange(&mut writing, all, range.start as usize, values, garbage)
    }

    /// Bytes of the segment's memory it has, the part included that is free for more elements.
    pub fn memory(&self) -> u64 {
        self.core().arena.bytes().saturating_add(ARENA + size_of::<ArenaBody>() as u64)
    }

    /// The most bytes it may take from now on; 0 for no limit.
    pub fn set_quota(&self, bytes: u64) {
        self.core().arena.set_quota(bytes);
    }

    /// Its segment.
    pub fn segment(&self) -> Segment {
        self.object.segment()
    }
}

/// A range of indices, checked against the length.
fn bounds(range: &impl RangeBounds<usize>, len: u64) -> Result<Range<u64>> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start as u64,
        Bound::Excluded(&before) => (before as u64).saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => (last as u64).saturating_add(1),
        Bound::Excluded(&end) => end as u64,
        Bound::Unbounded => len,
    };
    if start > end || end > len {
        return Err(SegmentError::OutOfRange { index: start.max(end), len }.into());
    }
    Ok(start..end)
}

/// Decodes an element, under the lock: its objects do not go away meanwhile.
fn decoded<T: DeserializeOwned>(writing: &mut Writing<'_>, element: &Element<'_>) -> Result<T> {
    let mut value = Copied::none();
    element.copy_to(&mut value);
    writing.call(|_| value.to_value())
}

impl<T> List<T> {
    /// Appends an element.
    ///
    /// # Errors
    /// `Codec` if serde cannot write it; `TooLarge`; `OutOfMemory`, and then nothing has changed; `Deadlock` if this thread is in a
    /// closure under the list's lock; `Corrupt`.
    pub fn push<W: Serialize + ?Sized>(&self, value: &W) -> Result<()>
    where
        T: Borrow<W>,
    {
        let core = self.core();
        if let Some(word) = small_of(value) {
            return match core.push_at_once(word) {
                Some(()) => Ok(()),
                None => core.push(&mut core.lock_to_append()?, New::Small(word)),
            };
        }
        let mut written = Value::none();
        written.write(core.arena.attachment, value)?;
        let prepared = Contents { key: None, value: &written }.prepare(&core.arena)?;
        core.push(&mut core.lock_to_append()?, New::Value(&written, prepared))
    }

    /// Inserts an element before the one of that index, or at the end.
    ///
    /// # Errors
    /// `OutOfRange` and as [`List::push`].
    pub fn insert<W: Serialize + ?Sized>(&self, index: usize, value: &W) -> Result<()>
    where
        T: Borrow<W>,
    {
        let core = self.core();
        let written = Value::of(core.arena.attachment, value)?;
        let mut writing = core.lock()?;
        let len = writing.length();
        match (index as u64).cmp(&len) {
            std::cmp::Ordering::Less => core.insert(&mut writing, index as u64, &written),
            std::cmp::Ordering::Equal => core.push(&mut writing, New::Value(&written, None)),
            std::cmp::Ordering::Greater => Err(SegmentError::OutOfRange { index: index as u64, len }.into()),
        }
    }

    /// Replaces an element.
    ///
    /// # Errors
    /// `OutOfRange` and as [`List::push`].
    pub fn set<W: Serialize + ?Sized>(&self, index: usize, value: &W) -> Result<()>
    where
        T: Borrow<W>,
    {
        let core = self.core();
        let mut written = Value::none();
        written.write(core.arena.attachment, value)?;
        let mut writing = core.lock()?;
        let place = core.element(&writing, index as u64)?;
        core.set(&mut writing, &place, &written)
    }

    /// The index of the first element that is `value`, compared as it is serialised. Takes the lock.
    ///
    /// # Errors
    /// As [`List::push`].
    pub fn position<W: Serialize + ?Sized>(&self, value: &W) -> Result<Option<usize>>
    where
        T: Borrow<W>,
    {
        let mut found = None;
        self.compare(value, |index| found = found.or(Some(index)))?;
        Ok(found)
    }

    /// How many elements are `value`, compared as they are serialised. Takes the lock.
    ///
    /// # Errors
    /// As [`List::push`].
    pub fn count<W: Serialize + ?Sized>(&self, value: &W) -> Result<usize>
    where
        T: Borrow<W>,
    {
        let mut count = 0;
        self.compare(value, |_| count += 1)?;
        Ok(count)
    }

    /// Whether an element is `value`, compared as it is serialised. Takes the lock.
    ///
    /// # Errors
    /// As [`List::push`].
    pub fn contains<W: Serialize + ?Sized>(&self, value: &W) -> Result<bool>
    where
        T: Borrow<W>,
    {
        Ok(self.position(value)?.is_some())
    }

    fn compare<W: Serialize + ?Sized>(&self, value: &W, mut equal: impl FnMut(usize)) -> Result<()> {
        let core = self.core();
        let written = Value::of(core.arena.attachment, value)?;
        let writing = core.lock()?;
        core.for_each(&writing, 0..writing.length(), |index, element| {
            if element.is(&written) {
                equal(index as usize);
            }
            Ok(())
        })
    }

    /// Appends all of `values`, one after the other, and nobody's between them.
    ///
    /// # Errors
    /// As [`List::push`]; those before the one that failed are there.
    pub fn extend<W: Serialize>(&self, values: impl IntoIterator<Item = W>) -> Result<()>
    where
        T: Borrow<W>,
    {
        let core = self.core();
        // Before the lock: iterators and `Serialize` may run anything.
        let written = values.into_iter().map(|value| Value::of(core.arena.attachment, &value));
        let written: Vec<Value> = written.collect::<Result<_>>()?;
        let mut writing = core.lock()?;
        written.iter().try_for_each(|value| core.push(&mut writing, New::Value(value, None)))
    }

    /// Puts `values` in the place of the elements of `range`: Python's assignment to a slice. One change.
    ///
    /// # Errors
    /// `OutOfRange` and as [`List::push`].
    pub fn splice<W: Serialize>(
        &self,
        range: impl RangeBounds<usize>,
        values: impl IntoIterator<Item = W>,
    ) -> Result<()>
    where
        T: Borrow<W>,
    {
        let attachment = self.object.attachment();
        let written = values.into_iter().map(|value| Value::of(attachment, &value)).collect::<Result<Vec<_>>>()?;
        self.replace(range, &written)
    }
}

impl<T: DeserializeOwned> List<T> {
    /// The element of that index, or `None`. Takes no lock.
    ///
    /// # Errors
    /// `Codec` if serde cannot read it; `Corrupt`. Only if writers spoil one try after the other, so that this reader has to ask
    /// for their lock: as [`List::push`].
    #[inline]
    pub fn get(&self, index: usize) -> Result<Option<T>> {
        let mut copied = None;
        match (self.core().get(index as u64, &mut copied)?, &copied) {
            (Found::Small(word), _) => decode_small(word).map(Some),
            (Found::Copied, Some(value)) if !value.has_handles => value.to_value().map(Some),
            (Found::Copied, _) => self.get_handles(index as u64, copied),
            (Found::Nothing, _) => Ok(None),
        }
    }

    /// A value with handles: between the copy and the decoding its node, and with it the objects, may have gone.
    #[cold]
    fn get_handles(&self, index: u64, mut copied: Option<Copied>) -> Result<Option<T>> {
        let core = self.core();
        for _ in 0..HANDLE_TRIES {
            match copied.as_ref().map(Copied::to_value) {
                Some(Err(Error::Segment(SegmentError::Gone))) => {}
                decoded => return decoded.transpose(),
            }
            match core.get(index, &mut copied)? {
                Found::Nothing => return Ok(None),
                Found::Small(word) => return decode_small(word).map(Some),
                Found::Copied => {}
            }
        }
        let mut writing = core.lock()?;
        if index >= writing.length() {
            return Ok(None);
        }
        let place = core.element(&writing, index)?;
        let (element, _) = core.occupant(&writing, &place)?;
        decoded(&mut writing, &element).map(Some)
    }

    /// Takes the last element away and gives it.
    ///
    /// # Errors
    /// As [`List::push`] and [`List::get`].
    pub fn pop(&self) -> Result<Option<T>> {
        let core = self.core();
        let mut writing = core.lock()?;
        let Some(last) = writing.length().checked_sub(1) else { return Ok(None) };
        let place = core.element(&writing, last)?;
        let (element, _) = core.occupant(&writing, &place)?;
        let value = decoded(&mut writing, &element)?;
        core.pop(&mut writing)?;
        Ok(Some(value))
    }

    /// Takes the element of that index away and gives it.
    ///
    /// # Errors
    /// `OutOfRange` and as [`List::pop`].
    pub fn remove(&self, index: usize) -> Result<T> {
        let core = self.core();
        let mut writing = core.lock()?;
        let place = core.element(&writing, index as u64)?;
        let (element, _) = core.occupant(&writing, &place)?;
        let value = decoded(&mut writing, &element)?;
        core.remove(&mut writing, place)?;
        Ok(value)
    }

    /// Changes an element under the list's lock. Gives what `change` gives. If `change` panics, nothing has changed.
    ///
    /// # Errors
    /// `OutOfRange` and as [`List::pop`]; `change` gets `Deadlock` from operations of this list that take the lock.
    pub fn update<R>(&self, index: usize, change: impl FnOnce(&mut T) -> R) -> Result<R>
    where
        T: Serialize,
    {
        let core = self.core();
        let mut writing = core.lock()?;
        let place = core.element(&writing, index as u64)?;
        let (element, _) = core.occupant(&writing, &place)?;
        let mut value = decoded(&mut writing, &element)?;
        let (result, written) = writing.call(|writing| {
            let result = change(&mut value);
            Value::of(writing.arena.attachment, &value).map(|written| (result, written))
        })?;
        core.set(&mut writing, &place, &written)?;
        Ok(result)
    }

    /// The elements of `range` at one instant. Takes the lock.
    ///
    /// # Errors
    /// `OutOfRange` and as [`List::pop`].
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Result<Vec<T>> {
        let core = self.core();
        let mut writing = core.lock()?;
        let range = bounds(&range, writing.length())?;
        let mut all = Vec::with_capacity(((range.end - range.start) as usize).min(1 << 20));
        let mut value = Copied::none();
        writing.call(|writing| {
            core.for_each(writing, range, |_, element| {
                element.copy_to(&mut value);
                all.push(value.to_value()?);
                Ok(())
            })
        })?;
        Ok(all)
    }

    /// All elements at one instant: to iterate over a snapshot. Takes the lock.
    ///
    /// # Errors
    /// As [`List::pop`].
    pub fn to_vec(&self) -> Result<Vec<T>> {
        self.slice(..)
    }

    /// The elements as they are when one gets to them, by index: as Python's iteration, it goes on while the list grows. Takes no
    /// lock.
    pub fn iter(&self) -> ListIter<'_, T> {
        ListIter { list: self, index: 0 }
    }

    /// Sorts by `compare`, which runs under the list's lock. Equal elements keep their order. One change.
    ///
    /// # Errors
    /// As [`List::update`].
    pub fn sort_by(&self, mut compare: impl FnMut(&T, &T) -> std::cmp::Ordering) -> Result<()> {
        let core = self.core();
        let mut writing = core.lock()?;
        let mut all = Vec::new();
        let links = core.all(&writing)?;
        // Not the list's word for it: a peer may have written another one since.
        let length = links.len() as u64;
        let mut value = Copied::none();
        writing.call(|writing| {
            core.for_each(writing, 0..length, |index, element| {
                element.copy_to(&mut value);
                all.push((value.to_value::<T>()?, links[index as usize]));
                Ok(())
            })?;
            all.sort_by(|(a, _), (b, _)| compare(a, b));
            Ok::<_, Error>(())
        })?;
        let links = all.iter().map(|&(_, link)| link).collect();
        core.rearrange(&mut writing, links, 0, &[], Vec::new())
    }

    /// Sorts. Equal elements keep their order. One change.
    ///
    /// # Errors
    /// As [`List::push`] and [`List::get`].
    pub fn sort(&self) -> Result<()>
    where
        T: Ord,
    {
        self.sort_by(T::cmp)
    }

    /// Removes the elements for which `keep`, which runs under the list's lock, is false. One change.
    ///
    /// # Errors
    /// As [`List::update`].
    pub fn retain(&self, mut keep: impl FnMut(&T) -> bool) -> Result<()> {
        let core = self.core();
        let mut writing = core.lock()?;
        let links = core.all(&writing)?;
        let length = links.len() as u64; // as above
        let (mut kept, mut garbage, mut value) = (Vec::new(), Vec::new(), Copied::none());
        writing.call(|writing| {
            core.for_each(writing, 0..length, |index, element| {
                element.copy_to(&mut value);
                let link = links[index as usize];
                if keep(&value.to_value()?) {
                    kept.push(link)
                } else {
                    garbage.push(link)
                }
                Ok(())
            })
        })?;
        if garbage.is_empty() { Ok(()) } else { core.rearrange(&mut writing, kept, 0, &[], garbage) }
    }
}

/// The elements of a [`List`] as they are when one gets to them.
pub struct ListIter<'a, T> {
    list: &'a List<T>,
    index: usize,
}

impl<T: DeserializeOwned> Iterator for ListIter<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        let element = self.list.get(self.index).transpose()?;
        self.index += 1;
        Some(element)
    }
}

impl<'a, T: DeserializeOwned> IntoIterator for &'a List<T> {
    type Item = Result<T>;
    type IntoIter = ListIter<'a, T>;

    fn into_iter(self) -> ListIter<'a, T> {
        self.iter()
    }
}

impl<T> Clone for List<T> {
    fn clone(&self) -> Self {
        List { object: self.object.clone(), body: self.body, arena: self.arena, _elements: PhantomData }
    }
}

impl<T> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Segment {
    /// The list `name`.
    pub fn list<'a, T>(&'a self, name: &'a str) -> At<'a, List<T>> {
        At { segment: self, name, options: ContainerOptions::default() }
    }
}

impl<T> At<'_, List<T>> {
    /// The most bytes of the segment's memory it may take; no limit unless told otherwise.
    #[must_use]
    pub fn quota(mut self, bytes: u64) -> Self {
        self.options.quota = bytes;
        self
    }
}
