//! The table of a pool: which worker runs which task, in words that survive both.
//!
//! ```text
//! task     generation:32 | own:12 | st:4
//!          FREE → QUEUED (pool) → RUNNING by me (worker, one CAS: the claim) → FREE (pool, with the result in its hands)
//!                                 RUNNING by a dead one → LOST (recovery) → FREE (pool: the task failed, or is sent again)
//! ```
//! A message in the queue of tasks names its word and generation. It may be delivered again, when a worker dies between
//! taking it and giving back its block; whoever claims the word runs the task, and nobody else ever does.

use crate::error::{Result, corrupt};
use crate::kinds::Kind;
use crate::segment::object::{BodyId, HEADER, Object, Shared, create, handle_as_value};
use crate::segment::{Attachment, Segment, atomic, fetch};
use shmkit_layouts::kinds::KIND_POOL;
use shmkit_layouts::objects::{PoolBody, PoolWorker};
use shmkit_layouts::words::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What recovery does with pools: what the dead worker ran is lost.
pub(crate) const KIND: Kind = Kind {
    recover: |attachment, body, dead| {
        let start = body.offset + HEADER;
        let Ok(pool) = attachment.pointer::<PoolBody>(start, "pool") else { return };
        let (tasks, offset) = (fetch!(pool, tasks), fetch!(pool, tasks_offset));
        if tasks > Table::MOST_TASKS {
            return;
        }
        for index in 0..u64::from(tasks) {
            let Some(place) = start.checked_add(offset).and_then(|place| place.checked_add(index * 8)) else { return };
            // Inside the segment is enough: the body's own end was checked by those who opened it.
            let Ok(word) = attachment.pointer::<AtomicU64>(place, "task") else { return };
            // SAFETY: `pointer` checked the place; the reference is to an atomic.
            let word = unsafe { &*word };
            let seen = word.load(Ordering::Acquire);
            let task = Task::unpack(seen);
            if task.state == TASK_RUNNING && task.owner == dead.slot {
                let lost = Task { state: TASK_LOST, ..task };
                // AcqRel: pairs with the look of the pool.
                let _ = word.compare_exchange(seen, lost.pack(), Ordering::AcqRel, Ordering::Relaxed);
                failpoint!("pool.lost");
            }
        }
    },
    ..Kind::plain(KIND_POOL)
};

/// A pool's table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    object: Object,
    body: *const PoolBody,
    tasks: *const AtomicU64,
    workers: *const PoolWorker,
    /// Task words.
    pub(super) len: u32,
    /// Rows of workers.
    rows: u32,
}

// SAFETY: the pointers are into the mapping, which `object` keeps; only atomics are reached through them.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

/// How large a table is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) tasks: u32,
    pub(super) workers: u32,
}

const BODY: u64 = size_of::<PoolBody>() as u64;

impl Shared for Table {
    type Options = Size;

    fn kind() -> u32 {
        KIND_POOL
    }
    fn size(size: &Size) -> Result<u64> {
        Ok(BODY + u64::from(size.workers) * 64 + u64::from(size.tasks) * 8)
    }
    fn build(size: &Size, start: *mut u8, _: BodyId) -> Result<()> {
        let body = start.cast::<PoolBody>();
        // SAFETY: the body is held by this process alone, zeroed, and has room for the struct.
        unsafe {
            (&raw mut (*body).tasks).write(size.tasks);
            (&raw mut (*body).workers).write(size.workers);
            (&raw mut (*body).workers_offset).write(BODY);
            (&raw mut (*body).tasks_offset).write(BODY + u64::from(size.workers) * 64);
        }
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let body = object.body::<PoolBody>()?;
        let (len, rows) = (fetch!(body, tasks), fetch!(body, workers));
        if len > Table::MOST_TASKS {
            return Err(corrupt("pool's tasks", object.offset(), u64::from(len)));
        }
        let tasks = object.part(fetch!(body, tasks_offset), u64::from(len))?;
        let workers = object.part(fetch!(body, workers_offset), u64::from(rows))?;
        Ok(Table { object, body, tasks, workers, len, rows })
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

handle_as_value!(Table);

impl Table {
    /// The most tasks that can be under way.
    pub(super) const MOST_TASKS: u32 = 1 << 16;

    pub(super) fn new(segment: &Segment, size: Size) -> Result<Table> {
        create(segment, None, &size, false)
    }

    pub(super) fn attachment(&self) -> &Attachment {
        self.object.attachment()
    }

    fn word(&self, index: u32) -> Option<&AtomicU64> {
        // SAFETY: `attach` checked that `len` words are there.
        (index < self.len).then(|| unsafe { &*self.tasks.add(index as usize) })
    }

    fn row(&self, worker: u32) -> Option<*const PoolWorker> {
        (worker < self.rows).then(|| self.workers.wrapping_add(worker as usize))
    }

    // ---- the pool ------------------------------------------------------------------------------------------------

    /// The next generation of a FREE word, which becomes QUEUED.
    pub(super) fn queue(&self, index: u32) -> u32 {
        let Some(word) = self.word(index) else { return 0 };
        let generation = Task::unpack(word.load(Ordering::Relaxed)).generation.wrapping_add(1);
        // Release: the message that names it is put afterwards.
        word.store(Task { state: TASK_QUEUED, owner: 0, generation }.pack(), Ordering::Release);
        generation
    }

    /// Frees a word whose result, or loss, has been seen.
    pub(super) fn free(&self, index: u32) {
        if let Some(word) = self.word(index) {
            let task = Task::unpack(word.load(Ordering::Acquire));
            word.store(Task { state: TASK_FREE, owner: 0, ..task }.pack(), Ordering::Release);
        }
    }

    /// The words of the tasks that the dead worker with this token ran.
    pub(super) fn lost(&self, slot: u32) -> Vec<u32> {
        let is_lost = |&index: &u32| {
            // Acquire pairs with recovery's change.
            let task = self.word(index).map(|word| Task::unpack(word.load(Ordering::Acquire)));
            task.is_some_and(|task| task.state == TASK_LOST && task.owner == slot)
        };
        (0..self.len).filter(is_lost).collect()
    }

    /// The token of a worker; `None` if it never said that it is ready.
    pub(super) fn worker(&self, worker: u32) -> Option<Token> {
        let row = self.row(worker)?;
        // Acquire pairs with the release in `announce`.
        let ready = atomic!(row, state).load(Ordering::Acquire) == WORKER_READY;
        ready.then(|| Token(atomic!(row, token).load(Ordering::Relaxed)))
    }

    /// Before a worker is started in this row.
    pub(super) fn clear(&self, worker: u32) {
        if let Some(row) = self.row(worker) {
            atomic!(row, token).store(0, Ordering::Relaxed);
            atomic!(row, state).store(WORKER_STARTING, Ordering::Release);
        }
    }

    /// Waits until what the dead participant left is repaired, by whomever.
    pub(super) fn await_recovery(&self, token: Token) {
        let attachment = self.attachment();
        while token.0 != 0 && !attachment.is_recovered(token) {
            attachment.bury(token);
            if !attachment.is_recovered(token) {
                // Somebody else holds the recovery lock.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Tasks that a worker has ended.
    pub(super) fn done(&self, worker: u32) -> u64 {
        self.row(worker).map_or(0, |row| atomic!(row, done).load(Ordering::Relaxed))
    }

    /// Tells the workers to end once they find nothing to do.
    pub(super) fn stop(&self) {
        // SeqCst: stored before the wake that follows looks for sleepers.
        atomic!(self.body, stop).store(1, Ordering::SeqCst);
    }

    pub(super) fn is_stopped(&self) -> bool {
        atomic!(self.body, stop).load(Ordering::SeqCst) != 0
    }

    // ---- a worker ------------------------------------------------------------------------------------------------

    /// Says who runs in this row, and that it is ready.
    pub(super) fn announce(&self, worker: u32) -> Result<()> {
        let token = self.attachment().token()?;
        if let Some(row) = self.row(worker) {
            atomic!(row, token).store(token.0, Ordering::Relaxed);
            // Release: the token is there before the state.
            atomic!(row, state).store(WORKER_READY, Ordering::Release);
        }
        Ok(())
    }

    /// Claims a task; false if it is not there to be claimed any more.
    pub(super) fn claim(&self, index: u32, generation: u32) -> Result<bool> {
        let owner = self.attachment().token()?.slot();
        let Some(word) = self.word(index) else { return Ok(false) };
        let queued = Task { state: TASK_QUEUED, owner: 0, generation };
        let mine = Task { state: TASK_RUNNING, owner, generation };
        // AcqRel: the claim; pairs with recovery's and the pool's looks.
        Ok(word.compare_exchange(queued.pack(), mine.pack(), Ordering::AcqRel, Ordering::Relaxed).is_ok())
    }

    /// One more task is ended.
    pub(super) fn count(&self, worker: u32) -> u64 {
        self.row(worker).map_or(0, |row| {
            let done = atomic!(row, done);
            let now = done.load(Ordering::Relaxed) + 1;
            done.store(now, Ordering::Relaxed);
            now
        })
    }
}
