//! What is asked of the pool: a call, or a batch of calls in chunks, and where its outcomes go.

use super::Argument;
use super::run::{Pace, write_with_length};
use super::table::Table;
use super::task::{Header, Outcomes, Records};
use crate::channel::{Outbox, Queue};
use crate::error::{Result, TaskError};
use crate::segment::locked;
use serde::ser::{Serialize, SerializeSeq, Serializer};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;

/// A batch of tasks, as the pool sees it: each task is a chunk, known by its number.
pub(super) trait Work: std::marker::Send + Sync {
    /// Writes the message of a chunk.
    fn write(&self, chunk: u32, header: &Header, tasks: &Queue<()>, outbox: &mut Outbox) -> Result<()>;

    /// Writes the message of a run of so many tasks, each of them a chunk of one element.
    fn write_run(
        &self,
        first: u32,
        tasks: usize,
        header: &Header,
        queue: &Queue<()>,
        outbox: &mut Outbox,
    ) -> Result<()>;

    /// How long its tasks take, if there are several and each is one element: they may travel in runs.
    fn pace(&self) -> Option<&Pace>;

    /// Takes outcomes of tasks of a run, or why there are none.
    fn complete_run(&self, first: u32, tasks: usize, records: Result<Records<'_>, TaskError>, task: u64);

    /// Takes the bytes of a chunk's reply, or why there is none.
    fn complete(&self, chunk: u32, reply: Result<&[u8], TaskError>, task: u64);

    /// How many elements a chunk has.
    fn elements(&self, chunk: u32) -> usize;

    /// Leaves a chunk its first `kept` elements. The others are a new chunk, whose number is given; `None` if there are none.
    fn split(&self, chunk: u32, kept: usize) -> Option<u32>;
}

/// Where the outcomes of chunks go.
pub(super) trait Sink<R>: std::marker::Send + Sync {
    /// Takes the outcomes of the chunk whose first element has this number.
    fn take(&self, first: usize, outcomes: Outcomes<'_, R>);
}

/// How a batch is cut into chunks.
#[derive(Debug)]
pub(super) enum Chunks {
    /// Of so many elements each, but for the last one; at most [`Table::MOST_ELEMENTS`].
    Of(usize),
    /// At these ends.
    At(Vec<usize>),
}

/// Chunks of so many parts of a worker's share are taken while many elements are left, smaller ones towards the end.
const SHARES: usize = 8;

impl Chunks {
    /// Chunks that become smaller: each is an eighth of what is left for a worker. So the work is spread evenly to the end, and
    /// no chunk that turns out slow delays the rest by more than an eighth of a worker's share. (Guided self-scheduling,
    /// Polychronopoulos and Kuck 1987.)
    pub(super) fn guided(elements: usize, workers: usize) -> Chunks {
        let (mut ends, mut end) = (Vec::new(), 0);
        while end < elements {
            end += (elements - end).div_ceil(SHARES * workers).min(Table::MOST_ELEMENTS);
            ends.push(end);
        }
        Chunks::At(ends)
    }

    /// Chunks of so many elements each, but for the last one.
    pub(super) fn of(elements: usize) -> Chunks {
        Chunks::Of(elements.clamp(1, Table::MOST_ELEMENTS))
    }

    /// Number of chunks.
    fn len(&self, elements: usize) -> usize {
        match self {
            Chunks::Of(each) => elements.div_ceil(*each),
            Chunks::At(ends) => ends.len(),
        }
    }

    fn range(&self, chunk: u32, elements: usize) -> Range<usize> {
        let chunk = chunk as usize;
        match self {
            Chunks::Of(each) => chunk * each..((chunk + 1) * each).min(elements),
            Chunks::At(ends) => chunk.checked_sub(1).map_or(0, |last| ends[last])..ends[chunk],
        }
    }
}

/// A batch of calls with arguments `A`.
pub(super) struct Batch<A, S> {
    items: Mutex<Items<A>>,
    elements: usize,
    chunks: Chunks,
    pace: Pace,
    pub(super) sink: S,
}

/// The arguments of a batch, and which chunk has which of them.
struct Items<A> {
    /// Each is dropped when its outcome is there.
    arguments: Vec<Option<A>>,
    /// Chunks that were split, or came to be so.
    splits: HashMap<u32, Range<usize>>,
    /// The number of the next chunk that comes to be.
    next: u32,
}

impl<A, S> Batch<A, S> {
    pub(super) fn new(items: Vec<Option<A>>, chunks: Chunks, sink: S) -> Batch<A, S> {
        let elements = items.len();
        let next = chunks.len(elements) as u32;
        let items = Items { arguments: items, splits: HashMap::new(), next };
        Batch { items: Mutex::new(items), elements, chunks, pace: Pace::default(), sink }
    }

    /// The elements of a chunk.
    fn range(&self, items: &Items<A>, chunk: u32) -> Range<usize> {
        let split = if items.splits.is_empty() { None } else { items.splits.get(&chunk) };
        split.cloned().unwrap_or_else(|| self.chunks.range(chunk, self.elements))
    }

    /// Number of chunks.
    pub(super) fn len(&self) -> u32 {
        self.chunks.len(self.elements) as u32
    }
}

/// The result type of a batch's function, beside its arguments.
pub(super) struct Typed<A, R, S>(pub(super) Batch<A, S>, pub(super) std::marker::PhantomData<fn() -> R>);

/// A chunk's arguments, written as the `Vec` that a worker reads.
struct Arguments<'a, A>(&'a [Option<A>]);

impl<A: Serialize> Serialize for Arguments<'_, A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(self.0.len()))?;
        for arguments in self.0 {
            // A chunk that is sent has not been completed.
            let arguments = arguments.as_ref().ok_or_else(|| serde::ser::Error::custom("the arguments are gone"))?;
            sequence.serialize_element(arguments)?;
        }
        sequence.end()
    }
}

/// The arguments of the tasks of a run, each with its length: one that cannot be read does not hide the next.
struct Separately<'a, A>(&'a [Option<A>]);

impl<A: Serialize> Serialize for Separately<'_, A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        use serde::ser::Error;
        let mut bytes = Vec::with_capacity(256);
        for arguments in self.0 {
            let arguments = arguments.as_ref().ok_or_else(|| S::Error::custom("the arguments are gone"))?;
            write_with_length(&mut bytes, arguments).map_err(S::Error::custom)?;
        }
        serializer.serialize_bytes(&bytes)
    }
}

impl<A: Argument, R: Argument, S: Sink<R>> Work for Typed<A, R, S> {
    fn write(&self, chunk: u32, header: &Header, tasks: &Queue<()>, outbox: &mut Outbox) -> Result<()> {
        let items = locked(&self.0.items);
        tasks.write(outbox, &(header, Arguments(&items.arguments[self.0.range(&items, chunk)])))
    }

    fn write_run(
        &self,
        first: u32,
        tasks: usize,
        header: &Header,
        queue: &Queue<()>,
        outbox: &mut Outbox,
    ) -> Result<()> {
        let items = locked(&self.0.items);
        let arguments = &items.arguments[first as usize..first as usize + tasks];
        queue.write(outbox, &(header, tasks as u32, Separately(arguments)))
    }

    fn pace(&self) -> Option<&Pace> {
        (matches!(self.0.chunks, Chunks::Of(1)) && self.0.elements > 1).then_some(&self.0.pace)
    }

    fn complete_run(&self, first: u32, tasks: usize, records: Result<Records<'_>, TaskError>, task: u64) {
        let first = first as usize;
        self.0.sink.take(first, Outcomes::of_run(records, tasks, task));
        let arguments = first..first + tasks;
        if std::mem::needs_drop::<A>() {
            let done: Vec<_> = locked(&self.0.items).arguments[arguments].iter_mut().map(Option::take).collect();
            drop(done);
        }
    }

    fn complete(&self, chunk: u32, reply: Result<&[u8], TaskError>, task: u64) {
        let range = self.0.range(&locked(&self.0.items), chunk);
        self.0.sink.take(range.start, Outcomes::new(reply, range.len(), task));
        if range.len() == 1 {
            let done = locked(&self.0.items).arguments[range.start].take();
            drop(done);
        } else {
            let done: Vec<_> = locked(&self.0.items).arguments[range].iter_mut().map(Option::take).collect();
            drop(done);
        }
    }

    fn elements(&self, chunk: u32) -> usize {
        self.0.range(&locked(&self.0.items), chunk).len()
    }

    fn split(&self, chunk: u32, kept: usize) -> Option<u32> {
        let mut items = locked(&self.0.items);
        let range = self.0.range(&items, chunk);
        let middle = range.start.checked_add(kept).filter(|middle| range.contains(middle))?;
        let new = items.next;
        items.next = new.checked_add(1)?;
        items.splits.insert(chunk, range.start..middle);
        items.splits.insert(new, middle..range.end);
        Some(new)
    }
}
