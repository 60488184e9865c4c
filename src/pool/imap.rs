//! [`Imap`]: results as they come, from items that are taken as room becomes free.

use super::{Argument, Pool, Target};
use crate::error::{Result, TaskError};
use crate::segment::locked;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

type Chunk<R> = Result<Vec<Result<R, TaskError>>, TaskError>;

/// Where the pool's thread puts what is done: number and length of the chunk, and what came of it.
struct Mailbox<R> {
    done: Mutex<VecDeque<(usize, usize, Chunk<R>)>>,
    arrived: Condvar,
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
        let mailbox = Arc::new(Mailbox { done: Mutex::new(VecDeque::new()), arrived: Condvar::new() });
        let window = 4 * pool.workers();
        let (sent, taken, exhausted, ready) = (0, 0, false, VecDeque::new());
        Imap { pool, items, ordered, chunk: 1, window, mailbox, sent, taken, exhausted, ready, _calls: PhantomData }
    }

    /// Items that a worker takes at once: 1 unless told otherwise.
    pub fn chunk(mut self, items: usize) -> Self {
        self.chunk = items.max(1);
        self
    }

    /// Chunks that are under way at once, four for each worker unless told otherwise: no more items are taken ahead.
    pub fn window(mut self, chunks: usize) -> Self {
        self.window = chunks.max(1);
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
            let chunk: Vec<(T,)> = self.items.by_ref().take(self.chunk).map(|item| (item,)).collect();
            // A short chunk is the last one: the iterator is not asked again after its end.
            self.exhausted = chunk.len() < self.chunk;
            if chunk.is_empty() {
                return;
            }
            let (number, len, mailbox) = (self.sent, chunk.len(), Arc::clone(&self.mailbox));
            self.sent += 1;
            self.pool.submit::<F, (T,)>(chunk, move |outcome| {
                locked(&mailbox.done).push_back((number, len, outcome));
                mailbox.arrived.notify_one();
            });
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
            Some((len, Ok(outcomes))) => {
                debug_assert_eq!(outcomes.len(), len);
                self.ready.extend(outcomes);
            }
            // What happened to the chunk happened to each of its items.
            Some((len, Err(error))) => self.ready.extend((0..len).map(|_| Err(error.clone()))),
            None => return Some(Err(TaskError::TimedOut { waited: timeout.unwrap_or_default() }.into())),
        }
        self.taken += 1;
        self.send();
        self.next_within(timeout)
    }

    /// The next chunk's length and outcome; `None` when the time is up.
    fn await_chunk(&mut self, timeout: Option<Duration>) -> Option<(usize, Chunk<F::Outcome>)> {
        let start = Instant::now();
        let mut done = locked(&self.mailbox.done);
        loop {
            let wanted = match self.ordered {
                true => done.iter().position(|(number, ..)| *number == self.taken),
                false => (!done.is_empty()).then_some(0),
            };
            if let Some((_, len, outcome)) = wanted.and_then(|place| done.remove(place)) {
                return Some((len, outcome));
            }
            done = match timeout {
                None => self.mailbox.arrived.wait(done).unwrap_or_else(PoisonError::into_inner),
                Some(timeout) => {
                    let left = timeout.saturating_sub(start.elapsed());
                    if left.is_zero() {
                        return None;
                    }
                    self.mailbox.arrived.wait_timeout(done, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
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
