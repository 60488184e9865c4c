//! [`Imap`]: results as they come, from items that are taken as room becomes free.

use super::shared::Shared;
use super::state::{Listener, Options};
use super::task::Outcomes;
use super::work::{Batch, Chunks, Sink};
use super::{Argument, Pool, Target};
use crate::error::{Result, TaskError};
use crate::segment::locked;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Number of a chunk, and the outcomes of its elements.
type Done<R> = (usize, Vec<Result<R, TaskError>>);

/// Where what is done is put.
struct Mailbox<R> {
    done: Mutex<VecDeque<Done<R>>>,
    arrived: Condvar,
    /// Chunks that have arrived since the beginning: a hint that spares the lock.
    count: AtomicUsize,
}

/// A chunk's way to the mailbox: it may come in parts, if it was split.
struct Letter<R> {
    number: usize,
    parts: Mutex<Parts<R>>,
    mailbox: Arc<Mailbox<R>>,
}

/// The outcomes that are there, and how many are missing.
struct Parts<R> {
    outcomes: Vec<Option<Result<R, TaskError>>>,
    missing: usize,
}

impl<R> Letter<R> {
    fn new(number: usize, elements: usize, mailbox: Arc<Mailbox<R>>) -> Letter<R> {
        let outcomes = (0..elements).map(|_| None).collect();
        Letter { number, parts: Mutex::new(Parts { outcomes, missing: elements }), mailbox }
    }
}

impl<R: Argument> Sink<R> for Letter<R> {
    fn take(&self, first: usize, outcomes: Outcomes<'_, R>) {
        let mut parts = locked(&self.parts);
        for (index, outcome) in (first..).zip(outcomes) {
            parts.outcomes[index] = Some(outcome);
            parts.missing -= 1;
        }
        if parts.missing > 0 {
            return;
        }
        let outcomes = std::mem::take(&mut parts.outcomes).into_iter().flatten().collect();
        drop(parts);
        locked(&self.mailbox.done).push_back((self.number, outcomes));
        // Release pairs with the acquire of who waits.
        self.mailbox.count.fetch_add(1, Ordering::Release);
        self.mailbox.arrived.notify_one();
    }
}

/// The results of [`Pool::imap`] and [`Pool::imap_unordered`].
///
/// Each is a value, or the error of that one item (of its whole chunk, if the worker died). The other items are not affected.
#[must_use = "items are sent only as results are asked for"]
pub struct Imap<'p, F, A, I>
where
    F: Target<A, Outcome: Argument>,
{
    pool: &'p Pool,
    items: I,
    ordered: bool,
    chunk: usize,
    window: usize,
    options: Options,
    mailbox: Arc<Mailbox<F::Outcome>>,
    /// Chunks that were sent, and chunks whose results were taken.
    sent: usize,
    taken: usize,
    exhausted: bool,
    ready: VecDeque<Result<F::Outcome, TaskError>>,
    _calls: PhantomData<fn(A)>,
}

impl<'p, F, T, I> Imap<'p, F, (T,), I>
where
    F: Target<(T,), Outcome: Argument>,
    (T,): Argument,
    I: Iterator<Item = T>,
{
    pub(super) fn new(pool: &'p Pool, items: I, ordered: bool) -> Self {
        let mailbox = Arc::new(Mailbox {
            done: Mutex::new(VecDeque::new()),
            arrived: Condvar::new(),
            count: AtomicUsize::new(0),
        });
        let options = pool.options();
        let window = 4 * pool.workers();
        let (sent, taken, exhausted, ready) = (0, 0, false, VecDeque::new());
        Imap {
            pool,
            items,
            ordered,
            chunk: 1,
            window,
            options,
            mailbox,
            sent,
            taken,
            exhausted,
            ready,
            _calls: PhantomData,
        }
    }

    /// Items that a worker takes at once: 1 unless told otherwise. What it has not begun of them is given to workers that have
    /// nothing to do.
    pub fn chunk(mut self, items: usize) -> Self {
        self.chunk = items.max(1);
        self
    }

    /// Chunks that are under way at once, four for each worker unless told otherwise: no more items are taken ahead.
    pub fn window(mut self, chunks: usize) -> Self {
        self.window = chunks.max(1);
        self
    }

    /// How long each item may take: see [`Call::deadline`](super::Call::deadline). A chunk has that time for each of its items.
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.options.limit = Some(limit);
        self
    }

    /// See [`Call::priority`](super::Call::priority): what has a higher number comes first, whenever it was submitted; 0 unless told otherwise.
    pub fn priority(mut self, priority: i32) -> Self {
        self.options.priority = priority;
        self
    }

    /// How often an item is sent again whose worker died: see [`PoolBuilder::retries`](super::PoolBuilder::retries).
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    /// The next result, waiting at most for `timeout`; `None` when all were given.
    ///
    /// # Errors
    /// Inside: `TimedOut`, after which it can be asked again; the error of the item.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Result<F::Outcome>> {
        self.next_within(Some(timeout))
    }

    fn send(&mut self) {
        while !self.exhausted && self.sent - self.taken < self.window {
            let chunk: Vec<Option<(T,)>> = self.items.by_ref().take(self.chunk).map(|item| Some((item,))).collect();
            // A short chunk is the last one: the iterator is not asked again after its end.
            self.exhausted = chunk.len() < self.chunk;
            if chunk.is_empty() {
                return;
            }
            let letter = Letter::new(self.sent, chunk.len(), Arc::clone(&self.mailbox));
            self.sent += 1;
            let chunks = Chunks::of(chunk.len());
            self.pool.submit::<F, (T,), _>(Batch::new(chunk, chunks, letter), self.options, Listener::Pool);
        }
    }

    fn next_within(&mut self, timeout: Option<Duration>) -> Option<Result<F::Outcome>> {
        if let Some(result) = self.ready.pop_front() {
            return Some(result.map_err(Into::into));
        }
        self.send();
        if self.sent == self.taken {
            return None;
        }
        match self.await_chunk(timeout) {
            Some(outcomes) => self.ready.extend(outcomes),
            None => return Some(Err(TaskError::TimedOut { waited: timeout.unwrap_or_default() }.into())),
        }
        self.taken += 1;
        self.send();
        self.next_within(timeout)
    }

    /// The next chunk's outcomes; `None` when the time is up.
    fn await_chunk(&mut self, timeout: Option<Duration>) -> Option<Vec<Result<F::Outcome, TaskError>>> {
        let start = Instant::now();
        loop {
            let seen = self.mailbox.count.load(Ordering::Acquire);
            let mut done = locked(&self.mailbox.done);
            let wanted = match self.ordered {
                true => done.iter().position(|(number, ..)| *number == self.taken),
                false => (!done.is_empty()).then_some(0),
            };
            if let Some((_, outcomes)) = wanted.and_then(|place| done.remove(place)) {
                return Some(outcomes);
            }
            drop(done);
            let left = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                return None;
            }
            if !self.pool.shared.is_own() {
                return Some(vec![Err(Shared::not_own())]);
            }
            // Acquire pairs with the release in `Letter::take`.
            let has_come = || self.mailbox.count.load(Ordering::Acquire) != seen;
            self.pool.shared.help(left, has_come);
            let done = locked(&self.mailbox.done);
            if has_come() {
                continue;
            }
            let left =
                timeout.map(|timeout| timeout.saturating_sub(start.elapsed())).unwrap_or(Duration::from_secs(3600));
            drop(self.mailbox.arrived.wait_timeout(done, left).unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl<F, T, I> Iterator for Imap<'_, F, (T,), I>
where
    F: Target<(T,), Outcome: Argument>,
    (T,): Argument,
    I: Iterator<Item = T>,
{
    type Item = Result<F::Outcome>;

    fn next(&mut self) -> Option<Result<F::Outcome>> {
        self.next_within(None)
    }
}
