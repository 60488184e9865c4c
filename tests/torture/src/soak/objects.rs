//! The objects of a soak, and what must be there when everybody has left.

use super::ledger::Ledger;
use crate::operation::{Check, Fault, Wrong, corrupt};
use shmkit::data::{Counter, Namespace, ShardedDict};
use shmkit::heap::Heap;
use shmkit::{
    Array, Barrier, BoundedSemaphore, ChannelError, Condition, Connection, DataError, Dict, Error, Event,
    JoinableQueue, List, Lock, Mutex, PermitSemaphore, PodQueue, Queue, RLock, Receiver, RwLock, Segment, SegmentError,
    Semaphore, Sender, SyncError, Value,
};
use std::time::Duration;

/// Longer than anybody is stopped, many times over.
pub(super) const LONG: Duration = Duration::from_secs(10);
pub(super) const SHORT: Duration = Duration::from_millis(2);
/// What a lock with data guards: who is inside, and two counts.
pub(super) type Inside = [u64; 3];
pub(super) type Words = Vec<u64>;
type Pipe = (Sender<[u64; 2]>, Receiver<[u64; 2]>);

/// Everything, open.
pub struct Objects {
    pub segment: Segment,
    pub(super) mutex: Mutex<Inside>,
    pub(super) rwlock: RwLock<Inside>,
    pub(super) lock: Lock,
    pub(super) rlock: RLock,
    /// Who is inside of the locks without data.
    pub(super) inside: [Value<u64>; 2],
    pub(super) permits: PermitSemaphore,
    pub(super) semaphore: Semaphore,
    pub(super) bounded: BoundedSemaphore,
    pub(super) event: Event,
    pub(super) condition: Condition,
    pub(super) barrier: Barrier,
    pub(super) value: Value<[u64; 6]>,
    pub(super) array: Array<u64>,
    pub(super) dict: Dict<u64, Words>,
    pub(super) list: List<Words>,
    pub(super) counter: Counter,
    pub(super) names: Namespace,
    pub(super) shards: ShardedDict<u64, Words>,
    pub(super) heap: Heap,
    pub(super) short: Queue<(u64, u64)>,
    pub(super) long: Queue<Words>,
    pub(super) growing: Queue<(u64, u64)>,
    pub(super) pod: PodQueue<[u64; 2]>,
    pub(super) tasks: JoinableQueue<(u64, u64)>,
    pub(super) handles: Queue<(Connection, Semaphore)>,
    /// The director's: neither end is gone while nobody has the other.
    _pipe: Option<Pipe>,
}

/// How many permits there are.
pub(super) const PERMITS: u32 = 3;

macro_rules! objects {
    ($segment:expr, $finish:ident) => {{
        let segment = $segment;
        Ok(Objects {
            mutex: segment.mutex("mutex").$finish()?,
            rwlock: segment.rwlock("rwlock").$finish()?,
            lock: segment.lock("lock").$finish()?,
            rlock: segment.rlock("rlock").$finish()?,
            inside: [segment.value("inside").$finish()?, segment.value("inside too").$finish()?],
            permits: segment.permit_semaphore("permits").permits(PERMITS).$finish()?,
            semaphore: segment.semaphore("semaphore").initial(4).$finish()?,
            bounded: segment.bounded_semaphore("bounded").initial(4).$finish()?,
            event: segment.event("event").$finish()?,
            condition: segment.condition("condition").$finish()?,
            barrier: segment.barrier("barrier").parties(2).$finish()?,
            value: segment.value("value").$finish()?,
            array: segment.array("array").len(16).$finish()?,
            dict: segment.dict("dict").$finish()?,
            list: segment.list("list").$finish()?,
            counter: segment.counter("counter").$finish()?,
            names: segment.namespace("names").$finish()?,
            shards: segment.sharded_dict("shards").shards(4).$finish()?,
            heap: segment.heap("heap").$finish()?,
            short: segment.queue("short").capacity(64).$finish()?,
            long: segment.queue("long").capacity(64).inline(16).$finish()?,
            growing: segment.queue("growing").unbounded(64).$finish()?,
            pod: segment.pod_queue("pod").capacity(64).loans(128).$finish()?,
            tasks: segment.joinable_queue("tasks").capacity(64).tasks(128).$finish()?,
            handles: segment.queue("handles").capacity(16).$finish()?,
            _pipe: None,
            segment,
        })
    }};
}

/// Words that say whether they are whole.
pub(super) fn words(value: u64) -> Words {
    vec![value; 1 + value as usize % 12]
}

pub(super) fn whole(what: &str, found: &[u64]) -> Check<u64> {
    match found.first() {
        Some(&first) if found == words(first) => Ok(first),
        _ => corrupt(format!("{what}: torn: {found:?}")),
    }
}

/// Refusals that are part of the game.
pub(super) fn tolerated<T>(result: shmkit::Result<T>) -> Check<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(
            Error::Channel(ChannelError::Empty { .. } | ChannelError::Full { .. })
            | Error::Sync(SyncError::WouldBlock { .. } | SyncError::TimedOut { .. } | SyncError::BrokenBarrier { .. })
            | Error::Data(DataError::SizeChanged { .. })
            | Error::Segment(SegmentError::ObjectNotFound { .. } | SegmentError::OutOfRange { .. }),
        ) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Objects {
    /// Makes them.
    pub fn create(segment: Segment) -> shmkit::Result<Objects> {
        let pipe = segment.channel("pipe").capacity(64).create()?;
        let objects: shmkit::Result<Objects> = objects!(segment, create);
        Ok(Objects { _pipe: Some(pipe), ..objects? })
    }

    /// Opens them.
    pub fn open(segment: Segment) -> shmkit::Result<Objects> {
        objects!(segment, open)
    }

    /// Receives all that is left, and looks whether everything has come back. Nobody else is there.
    pub fn audit(&self, ledger: &Ledger) -> Check {
        let drained = |what: &str, get: &dyn Fn() -> shmkit::Result<(u64, bool, u32)>| -> Check {
            while let Some((n, is_whole, redelivered)) = tolerated(get())? {
                if !is_whole {
                    return corrupt(format!("{what}: a torn message"));
                }
                ledger.received(n, redelivered, what);
            }
            Ok(())
        };
        for (name, queue) in [("short", &self.short), ("growing", &self.growing)] {
            drained(name, &|| {
                let message = queue.get_message_timeout(Duration::ZERO)?;
                Ok((message.value.0, message.value.1 == !message.value.0, message.redelivered))
            })?;
        }
        drained("long", &|| {
            let message = self.long.get_message_timeout(Duration::ZERO)?;
            let n = message.value.first().copied().unwrap_or(u64::MAX);
            Ok((n, message.value == [n; 9], message.redelivered))
        })?;
        drained("pod", &|| {
            let received = self.pod.try_recv()?;
            Ok((received[0], received[1] == !received[0], received.redelivered()))
        })?;
        drained("tasks", &|| {
            let task = self.tasks.try_get_task()?;
            let found = (task.0, task.1 == !task.0, task.redelivered());
            task.done()?;
            Ok(found)
        })?;
        while tolerated(self.handles.get_timeout(Duration::ZERO))?.is_some() {}
        let receiver = self.segment.channel::<[u64; 2]>("pipe").open_receiver()?;
        drained("pipe", &|| receiver.try_recv().map(|[number, check]| (number, check == !number, 0)))?;
        self.tasks.join_timeout(LONG)?;
        let leaked = |what: String| Err(Fault { wrong: Wrong::Leaked, what });
        if self.permits.value() != PERMITS {
            return leaked(format!("{} permits of {PERMITS}", self.permits.value()));
        }
        let blocks = std::iter::from_fn(|| self.pod.try_loan().ok()).collect::<Vec<_>>().len();
        if blocks != 64 + 128 {
            return leaked(format!("{blocks} blocks of {} are free", 64 + 128));
        }
        if self.rwlock.readers() != 0 || self.condition.waiting() != 0 {
            return leaked(format!("{} readers, {} waiters", self.rwlock.readers(), self.condition.waiting()));
        }
        for value in self.dict.values()?.iter().chain(&self.list.to_vec()?).chain(&self.shards.values()?) {
            whole("what is left", value)?;
        }
        // The lock's next owner repairs: after that the count is right, too.
        self.heap.change(|_| Ok(()))?;
        let left = self.chain()?;
        if left.len() != self.heap.len() {
            return leaked(format!("{} boxes of a heap, of which {} are linked", self.heap.len(), left.len()));
        }
        Ok(())
    }
}
