//! [`JoinableQueue`]: a queue whose messages are in it until they are done.
//!
//! ```text
//! get        as of a queue, but the block stays in R by me: the message is mine, and still the queue's
//! task_done  block R by me → FREE; the last one tells those who join
//! join       tail settled; the set of blocks that slots name; then each block: R, RQP, RQ and not in the set;
//!            none, and the tail is where it was: every message was done at that instant. Else wait on all_done
//! ```
//! There is no counter that a death could leave wrong: how many messages are not done is how many blocks hold one, and each
//! names its holder. A message moves from a slot to a block and never back, so looking in that order misses none; and what
//! somebody puts before his own message is done has moved the tail.
//!
//! # Crash behaviour
//!
//! Putting and getting as in the tables of [`super::recovery`]. And:
//!
//! | a consumer is killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | with messages it has got and not done | blocks R by it: not done | recovery: → RQ, delivered again, flagged; still not done (at-most-once: done) | nothing |
//! | in `task_done`, before the block is free | the same | the same | nothing: done twice |
//! | in `task_done` of a long message | a block RL: done | recovery finishes the release and wakes who joins | nothing |
//! | in `task_done`, before it tells | nothing left, and a sleeper | recovery wakes all; a sleeper looks again at the end of its slice | at most 1 s |
//! | giving a task back, before the block is in RQ | a block R by it | recovery | nothing |
//! | giving a task back, before the hint | a block RQ that nobody looks for | recovery counts the hint up | nothing |
//! | in `shutdown(true)`, after the mark | everybody is told; messages are left | who gets or joins next throws them away | nothing that could be got |

use super::family::{gets, puts, tells};
use super::message::HeldTask;
use super::pod::OneRing;
use super::port::{Patience, Port};
use super::queue::{DEFAULT_CAPACITY, QueueOptions, port_of};
use super::recovery;
use super::ring::Claimed;
use crate::error::{ChannelError, Holder, Result, SegmentError, SyncError};
use crate::kinds::Kind;
use crate::segment::object::{BodyId, Object, Shared, create, handle_as_value};
use crate::segment::{At, Segment, atomic, locked_unforked, session};
use serde::de::DeserializeOwned;
use shmkit_layouts::kinds::KIND_JOINABLE_QUEUE;
use shmkit_layouts::words::Token;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// What recovery does with joinable queues.
pub(crate) const KIND: Kind = recovery::kind::<OneRing>(KIND_JOINABLE_QUEUE);

/// Messages that may be got and not done at once, unless told otherwise.
const DEFAULT_TASKS: u32 = 1024;

/// A [`Queue`](super::Queue) that knows when all its messages are done: Python's `JoinableQueue`.
///
/// Who gets a message works on it, then calls [`task_done`](JoinableQueue::task_done), or uses a [`Task`], which is safer;
/// [`join`](JoinableQueue::join) waits until every message that was put is done. A message takes room until then: at most
/// 1024 (see [`At::tasks`]) beside those that are in a full queue; then putting waits.
///
/// # Crash behaviour
/// What a killed consumer has got and not done is delivered to another one, flagged as redelivered, and counts as not done
/// until that one is done with it: [`join`](JoinableQueue::join) neither hangs on the dead nor ends too early.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let pages = shmkit::JoinableQueue::<u32>::bounded(16)?;
/// pages.put(1)?;
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         while let Ok(page) = pages.get() {
///             if page < 5 {
///                 // Put before the task is done: nobody who joins can miss it.
///                 pages.put(page + 1).unwrap();
///             }
///             pages.task_done().unwrap();
///         }
///     });
///     pages.join()?;
///     assert_eq!(pages.unfinished(), 0);
///     pages.shutdown(true)
/// })
/// # }
/// ```
pub struct JoinableQueue<T> {
    pub(super) port: Port,
    tasks: Arc<Tasks>,
    _messages: PhantomData<fn(T) -> T>,
}

/// What this process has got from one queue and not done, the oldest first; shared by all its handles.
#[derive(Debug, Default)]
struct Tasks(Mutex<VecDeque<(Token, HeldTask)>>);

/// A queue: its segment, its entry, its generation.
type Identity = ([u64; 2], u32, u32);

/// The tasks of every queue that this process has a handle of.
static TASKS: Mutex<Vec<(Identity, Weak<Tasks>)>> = Mutex::new(Vec::new());

impl Tasks {
    fn of(object: &Object) -> Arc<Tasks> {
        let id = object.reference.id;
        let identity = (object.attachment().geometry.id, id.index, id.generation);
        let mut all = locked_unforked(&TASKS);
        all.retain(|(_, tasks)| tasks.strong_count() > 0);
        if let Some(tasks) = all.iter().find(|(other, _)| *other == identity).and_then(|(_, tasks)| tasks.upgrade()) {
            return tasks;
        }
        let tasks = Arc::new(Tasks::default());
        all.push((identity, Arc::downgrade(&tasks)));
        tasks
    }
}

impl<T> Shared for JoinableQueue<T> {
    type Options = QueueOptions;

    fn kind() -> u32 {
        KIND_JOINABLE_QUEUE
    }
    fn label() -> Option<&'static str> {
        Some(std::any::type_name::<T>())
    }
    fn size(options: &QueueOptions) -> Result<u64> {
        options.size()
    }
    fn zeroed(options: &QueueOptions) -> u64 {
        options.zeroed()
    }
    fn build(options: &QueueOptions, start: *mut u8, id: BodyId) -> Result<()> {
        options.build(start, id)
    }
    fn attach(object: Object) -> Result<Self> {
        let tasks = Tasks::of(&object);
        Ok(JoinableQueue { port: port_of(object)?, tasks, _messages: PhantomData })
    }
    fn object(&self) -> &Object {
        &self.port.object
    }
}

handle_as_value!(JoinableQueue<T>);

impl<T> JoinableQueue<T> {
    /// A new one in the session segment, for 1024 messages.
    ///
    /// # Errors
    /// `OutOfMemory`, `TooManyObjects`.
    pub fn new() -> Result<JoinableQueue<T>> {
        JoinableQueue::bounded(DEFAULT_CAPACITY)
    }

    /// A new one in the session segment, for `capacity` messages.
    ///
    /// # Errors
    /// `InvalidSize` for a capacity of 0 or of about 2^18; `OutOfMemory`; `TooManyObjects`.
    pub fn bounded(capacity: usize) -> Result<JoinableQueue<T>> {
        JoinableQueue::bounded_in(&session()?, capacity)
    }

    /// A new one in `segment`, for `capacity` messages.
    ///
    /// # Errors
    /// As [`JoinableQueue::bounded`].
    pub fn bounded_in(segment: &Segment, capacity: usize) -> Result<JoinableQueue<T>> {
        create(segment, None, &options::<T>(capacity), false)
    }

    /// Says that this process is done with the oldest of the messages it has got and not done.
    ///
    /// # Errors
    /// `TooManyDone` if there is none.
    pub fn task_done(&self) -> Result<()> {
        let token = self.port.attachment().token()?;
        loop {
            let Some((owner, task)) = locked_unforked(&self.tasks.0).pop_front() else {
                return Err(ChannelError::TooManyDone.into());
            };
            // What is left of a parent this process was forked from is still the parent's.
            if owner == token {
                self.port.finish_task(task);
                return Ok(());
            }
        }
    }

    /// How many messages were put and are not done, at this instant.
    pub fn unfinished(&self) -> usize {
        self.port.ring.unreleased().0
    }

    /// Waits until every message that was put is done.
    ///
    /// # Errors
    /// `ShutDown` if the queue was shut down at once while somebody works on a message.
    pub fn join(&self) -> Result<()> {
        self.join_with(Patience::ENDLESS).map(|_| ())
    }

    /// Waits at most for `timeout` until every message that was put is done.
    ///
    /// # Errors
    /// `TimedOut`, with one who works on a message, when the time is up; and as [`JoinableQueue::join`].
    pub fn join_timeout(&self, timeout: Duration) -> Result<()> {
        if self.join_with(Patience::timeout(timeout))? {
            return Ok(());
        }
        Err(SyncError::TimedOut { what: "queue's last task", waited: timeout, holder: self.any_worker() }.into())
    }

    fn join_with(&self, patience: Patience) -> Result<bool> {
        let ring = &self.port.ring;
        let look = || {
            if ring.is_shut_down() {
                self.port.discard_all()?;
                return if ring.unreleased() == (0, true) { Ok(Some(())) } else { Err(self.port.closed()) };
            }
            Ok((ring.len() == 0 && ring.unreleased() == (0, true)).then_some(()))
        };
        Ok(look()?.is_some() || self.port.wait(ring.all_done(), patience, look)?.is_some())
    }

    /// Somebody who has got a message and is not done.
    fn any_worker(&self) -> Option<Holder> {
        let attachment = self.port.attachment();
        let slot = self.port.ring.any_reader().filter(|&slot| slot < attachment.geometry.max_participants)?;
        let generation = atomic!(attachment.participant(slot), generation).load(Ordering::Acquire);
        attachment.holder(Token::new(slot, generation))
    }
}

tells!(JoinableQueue "JoinableQueue", tasks);
puts!(JoinableQueue);
gets!(JoinableQueue);

impl<T: DeserializeOwned> JoinableQueue<T> {
    /// Got, and not done before `task_done`.
    fn receive(&self, claimed: Claimed) -> Result<T> {
        let (value, task) = self.port.receive_task(claimed)?;
        locked_unforked(&self.tasks.0).push_back((self.port.attachment().token()?, task));
        Ok(value)
    }

    fn task_with(&self, patience: Patience) -> Result<Task<'_, T>> {
        let owner = self.port.attachment().token()?;
        let (value, task) = self.port.receive_task(self.port.take(patience)?)?;
        Ok(Task { queue: self, value, task, owner, is_done: false })
    }

    /// The next message as a task, waiting while there is none.
    ///
    /// # Errors
    /// As [`JoinableQueue::get`].
    pub fn get_task(&self) -> Result<Task<'_, T>> {
        self.task_with(Patience::ENDLESS)
    }

    /// The next message as a task if there is one at once.
    ///
    /// # Errors
    /// As [`JoinableQueue::try_get`].
    pub fn try_get_task(&self) -> Result<Task<'_, T>> {
        self.task_with(Patience::None)
    }

    /// The next message as a task, waiting at most for `timeout`.
    ///
    /// # Errors
    /// As [`JoinableQueue::get_timeout`].
    pub fn get_task_timeout(&self, timeout: Duration) -> Result<Task<'_, T>> {
        self.task_with(Patience::timeout(timeout))
    }
}

/// A message that was got and is not done yet. Dropped before it is done, as by a panic, it goes back and is delivered again,
/// as after the death of its process; in a queue that delivers at most once it is gone.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let jobs = shmkit::JoinableQueue::<u32>::bounded(4)?;
/// jobs.put(7)?;
/// drop(jobs.get_task()?);
/// let job = jobs.get_task()?;
/// assert_eq!((*job, job.redelivered()), (7, 1));
/// job.done()?;
/// jobs.join()
/// # }
/// ```
#[must_use = "a task that is dropped is delivered again"]
pub struct Task<'a, T> {
    queue: &'a JoinableQueue<T>,
    value: T,
    task: HeldTask,
    owner: Token,
    is_done: bool,
}

impl<T> Task<'_, T> {
    fn is_mine(&self) -> bool {
        self.queue.port.attachment().token_word().load(Ordering::Relaxed) == self.owner.0
    }

    /// Says that it is done.
    ///
    /// # Errors
    /// `Gone` in a process that was forked off after it was got: it is the parent's.
    pub fn done(mut self) -> Result<()> {
        if !self.is_mine() {
            return Err(SegmentError::Gone.into());
        }
        self.is_done = true;
        self.queue.port.finish_task(self.task);
        Ok(())
    }

    /// How often it was delivered before, to consumers that died or gave it back. It may have been acted upon.
    pub fn redelivered(&self) -> u32 {
        self.task.claimed.deliveries()
    }
}

impl<T> Deref for Task<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Drop for Task<'_, T> {
    fn drop(&mut self) {
        let port = &self.queue.port;
        if self.is_done || !self.is_mine() {
        } else if port.ring.at_most_once || port.ring.is_shut_down() {
            port.finish_task(self.task);
        } else {
            port.ring.put_back(self.task.claimed);
        }
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Task<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Task").field(&self.value).finish()
    }
}

fn options<T>(capacity: usize) -> QueueOptions {
    QueueOptions { loans: DEFAULT_TASKS, ..QueueOptions::new::<T>(capacity) }
}

impl Segment {
    /// The joinable queue `name` of serde values; 1024 messages unless told otherwise.
    pub fn joinable_queue<'a, T>(&'a self, name: &'a str) -> At<'a, JoinableQueue<T>> {
        At { segment: self, name, options: options::<T>(DEFAULT_CAPACITY) }
    }
}

impl<T> At<'_, JoinableQueue<T>> {
    /// How many messages it can hold.
    #[must_use]
    pub fn capacity(mut self, messages: usize) -> Self {
        self.options.capacity = messages;
        self
    }

    /// How many messages may be got and not done at once, beside those that are in a full queue: 1024 unless told otherwise.
    #[must_use]
    pub fn tasks(mut self, tasks: usize) -> Self {
        self.options.loans = u32::try_from(tasks).unwrap_or(u32::MAX);
        self
    }

    /// Bytes of a message up to which it lies in the queue's own memory: 240 unless told otherwise.
    #[must_use]
    pub fn inline(mut self, bytes: usize) -> Self {
        self.options.inline = bytes;
        self
    }

    /// Drops what a dead consumer had not done, instead of delivering it again: it counts as done.
    #[must_use]
    pub fn at_most_once(mut self) -> Self {
        self.options.at_most_once = true;
        self
    }
}
