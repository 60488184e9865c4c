//! The table of a pool: which worker runs which task, in words that survive both.
//!
//! ```text
//! task     generation:32 | own:12 | st:4
//!          FREE → QUEUED (pool) → RUNNING by me (worker, one CAS: the claim) → ENDED by me (worker, the reply in its hands)
//!               → FREE (pool, with the reply in its hands)
//! cancel   QUEUED → CANCELLED by nobody (pool) → ENDED by me (worker: passed over) → FREE
//!          RUNNING by w → CANCELLED by w (pool: please end) → ENDED by w, if it does; else
//!                         CONDEMNED by w (pool), and only then w is sent a signal: w begins no other task
//! share    generation:32 | end:16 | next:16, one for each word: (g, n, 0) → next+1 (worker, before each element of a chunk of several,
//!          or task of a run) → end-k (pool: k elements that are not begun are another chunk's from now on)
//! run      one for each worker: what came of the tasks of its run (see `run`)
//! death    RUNNING, CANCELLED, CONDEMNED or ENDED by a dead one → LOST (recovery) → FREE (pool: failed, or sent again)
//! ```
//! A message in the queue of tasks names its word and generation. It may be delivered again, when a worker dies between
//! taking it and giving back its block; whoever claims the word runs the task, and nobody else ever does.

use crate::error::{Result, corrupt};
use crate::kinds::Kind;
use crate::segment::object::{BodyId, HEADER, Object, Shared, create, handle_as_value};
use crate::segment::{Attachment, Segment, atomic, fetch};
use shmkit_layouts::kinds::KIND_POOL;
use shmkit_layouts::objects::{PoolBody, PoolRun, PoolWorker};
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
            let mut seen = word.load(Ordering::Acquire);
            // The pool may cancel or condemn the task meanwhile, or free the word, whose next task is another's.
            for _ in 0..MOST_CHANGES {
                let task = Task::unpack(seen);
                let is_held = matches!(task.state, TASK_RUNNING | TASK_CANCELLED | TASK_CONDEMNED | TASK_ENDED);
                if !is_held || task.owner != dead.slot {
                    break;
                }
                let lost = Task { state: TASK_LOST, ..task };
                // AcqRel: pairs with the look of the pool.
                match word.compare_exchange(seen, lost.pack(), Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => break,
                    Err(now) => seen = now,
                }
            }
            failpoint!("pool.lost");
        }
    },
    ..Kind::plain(KIND_POOL)
};

/// How often the pool can change a word under recovery's hands, and some.
const MOST_CHANGES: u32 = 16;

/// A pool's table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    object: Object,
    body: *const PoolBody,
    tasks: *const AtomicU64,
    shares: *const AtomicU64,
    workers: *const PoolWorker,
    runs: *const PoolRun,
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

impl Size {
    fn runs_offset(&self) -> u64 {
        (BODY + u64::from(self.workers) * 64 + u64::from(self.tasks) * 16).next_multiple_of(64)
    }
}

/// The owner of a cancelled task that no worker had begun.
const NO_WORKER: u32 = 0xFFF;

/// What a task was when it was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cancelled {
    /// In the queue: it will be passed over.
    Queued,
    /// Being run: its worker is asked to end it.
    Running,
    /// Ended already.
    TooLate,
}

/// What a worker finds that wants to run a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is this worker's.
    Run,
    /// It was cancelled: the worker says that it has seen that.
    PassOver,
    /// It is another's, or ended.
    Nothing,
}

const BODY: u64 = size_of::<PoolBody>() as u64;
const RUN: u64 = size_of::<PoolRun>() as u64;

impl Shared for Table {
    type Options = Size;

    fn kind() -> u32 {
        KIND_POOL
    }
    fn size(size: &Size) -> Result<u64> {
        Ok(size.runs_offset() + u64::from(size.workers) * RUN)
    }
    fn zeroed(size: &Size) -> u64 {
        // A run is cleared before its worker is started: those that never are take no memory.
        size.runs_offset()
    }
    fn build(size: &Size, start: *mut u8, _: BodyId) -> Result<()> {
        let body = start.cast::<PoolBody>();
        // SAFETY: the body is held by this process alone, zeroed, and has room for the struct.
        unsafe {
            (&raw mut (*body).tasks).write(size.tasks);
            (&raw mut (*body).workers).write(size.workers);
            (&raw mut (*body).workers_offset).write(BODY);
            (&raw mut (*body).tasks_offset).write(BODY + u64::from(size.workers) * 64);
            (&raw mut (*body).shares_offset).write(BODY + u64::from(size.workers) * 64 + u64::from(size.tasks) * 8);
            (&raw mut (*body).runs_offset).write(size.runs_offset());
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
        let shares = object.part(fetch!(body, shares_offset), u64::from(len))?;
        let workers = object.part(fetch!(body, workers_offset), u64::from(rows))?;
        let runs = object.part(fetch!(body, runs_offset), u64::from(rows))?;
        Ok(Table { object, body, tasks, shares, workers, runs, len, rows })
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

handle_as_value!(Table);

impl Table {
    /// The most tasks that can be under way.
    pub(super) const MOST_TASKS: u32 = 1 << 16;
    /// The most elements that a chunk can have.
    pub(super) const MOST_ELEMENTS: usize = 0xFFFF;

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

    fn share(&self, index: u32) -> Option<&AtomicU64> {
        // SAFETY: `attach` checked that `len` words are there.
        (index < self.len).then(|| unsafe { &*self.shares.add(index as usize) })
    }

    fn row(&self, worker: u32) -> Option<*const PoolWorker> {
        (worker < self.rows).then(|| self.workers.wrapping_add(worker as usize))
    }

    /// What a worker has published of its run: see [`super::run`].
    pub(super) fn run(&self, worker: u32) -> Option<*const PoolRun> {
        (worker < self.rows).then(|| self.runs.wrapping_add(worker as usize))
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

    /// Says how many elements the chunk has whose word was just queued; needed only if there are several.
    pub(super) fn share_all(&self, index: u32, generation: u32, elements: u32) {
        if let Some(share) = self.share(index) {
            // Relaxed: the message that names the word is put afterwards.
            share.store(Share { next: 0, end: elements, generation }.pack(), Ordering::Relaxed);
        }
    }

    /// How many elements of a chunk are not begun.
    pub(super) fn left(&self, index: u32, generation: u32) -> u32 {
        // Relaxed: a hint; `split` looks again.
        let share = self.share(index).map(|share| Share::unpack(share.load(Ordering::Relaxed)));
        share.filter(|share| share.generation == generation).map_or(0, |share| share.end.saturating_sub(share.next))
    }

    /// How many elements of a chunk or run are begun.
    pub(super) fn begun(&self, index: u32, generation: u32) -> u32 {
        // Relaxed: its worker is dead, and recovery's change of the word was seen.
        let share = self.share(index).map(|share| Share::unpack(share.load(Ordering::Relaxed)));
        share.filter(|share| share.generation == generation).map_or(0, |share| share.next.min(share.end))
    }

    /// Takes half of the elements that are not begun, and one more if their number is odd, from the end of a chunk; gives how many
    /// the chunk has left, at least one.
    pub(super) fn split(&self, index: u32, generation: u32) -> Option<u32> {
        self.take_back(index, generation, |left| left.div_ceil(2))
    }

    /// As [`Table::split`], all that are not begun.
    pub(super) fn take_rest(&self, index: u32, generation: u32) -> Option<u32> {
        self.take_back(index, generation, |left| left)
    }

    fn take_back(&self, index: u32, generation: u32, part: impl Fn(u32) -> u32) -> Option<u32> {
        let share = self.share(index)?;
        let mut seen = share.load(Ordering::Relaxed);
        loop {
            let found = Share::unpack(seen);
            if found.generation != generation {
                return None;
            }
            let given = part(found.end.saturating_sub(found.next)).min(found.end.saturating_sub(1));
            let kept = found.end - given;
            if kept == found.end {
                return None;
            }
            // Relaxed: whoever changes the word second finds what the first one did; nothing else is read on its account.
            let split = Share { end: kept, ..found };
            match share.compare_exchange_weak(seen, split.pack(), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(kept),
                Err(now) => seen = now,
            }
        }
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
        let ready = atomic!(row, state).load(Ordering::Acquire) != WORKER_STARTING;
        // One that was released before it was ready has not said who it is.
        let token = Token(atomic!(row, token).load(Ordering::Relaxed));
        (ready && token.0 != 0).then_some(token)
    }

    /// Whether a worker asks to be replaced.
    pub(super) fn wants_to_leave(&self, worker: u32) -> bool {
        // Acquire pairs with the release in `leave`.
        self.row(worker).is_some_and(|row| atomic!(row, state).load(Ordering::Acquire) == WORKER_LEAVING)
    }

    /// Lets a worker end after the task it runs.
    pub(super) fn release(&self, worker: u32) {
        if let Some(row) = self.row(worker) {
            // SeqCst: stored before the wake that follows looks for sleepers.
            atomic!(row, state).store(WORKER_RELEASED, Ordering::SeqCst);
        }
    }

    /// What becomes of a task that is not wanted any more.
    pub(super) fn cancel(&self, index: u32, generation: u32) -> Cancelled {
        let Some(word) = self.word(index) else { return Cancelled::TooLate };
        loop {
            let seen = word.load(Ordering::Acquire);
            let task = Task::unpack(seen);
            let (owner, outcome) = match task.state {
                _ if task.generation != generation => return Cancelled::TooLate,
                TASK_QUEUED => (NO_WORKER, Cancelled::Queued),
                TASK_RUNNING => (task.owner, Cancelled::Running),
                _ => return Cancelled::TooLate,
            };
            let cancelled = Task { state: TASK_CANCELLED, owner, generation };
            // AcqRel: pairs with the claim and the end by the worker; whoever is second finds the other's word.
            if word.compare_exchange(seen, cancelled.pack(), Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return outcome;
            }
        }
    }

    /// Takes back a task that no worker has begun; false if one has. Its message will be passed over.
    pub(super) fn withdraw(&self, index: u32, generation: u32) -> bool {
        let queued = Task { state: TASK_QUEUED, owner: 0, generation };
        let cancelled = Task { state: TASK_CANCELLED, owner: NO_WORKER, generation };
        // AcqRel: pairs with the claim by a worker.
        let change = |word: &AtomicU64| {
            word.compare_exchange(queued.pack(), cancelled.pack(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        self.word(index).is_some_and(change)
    }

    /// Takes from a worker that runs a cancelled task the right to begin another one. Gives its slot: it may be killed.
    pub(super) fn condemn(&self, index: u32, generation: u32) -> Option<u32> {
        let word = self.word(index)?;
        let seen = word.load(Ordering::Acquire);
        let task = Task::unpack(seen);
        match task.state {
            _ if task.generation != generation || task.owner == NO_WORKER => None,
            TASK_CONDEMNED => Some(task.owner),
            TASK_CANCELLED => {
                let condemned = Task { state: TASK_CONDEMNED, ..task };
                // AcqRel: pairs with the end by the worker.
                let changed = word.compare_exchange(seen, condemned.pack(), Ordering::AcqRel, Ordering::Relaxed);
                changed.is_ok().then_some(task.owner)
            }
            _ => None,
        }
    }

    /// The task with a deadline that a worker runs: its word, its generation, and its end on the monotonic clock.
    pub(super) fn timed(&self, worker: u32) -> Option<(u32, u32, u64)> {
        let row = self.row(worker)?;
        // Acquire pairs with the release in `begin`: the deadline is this task's or a later one's.
        let current = atomic!(row, current).load(Ordering::Acquire);
        let deadline = atomic!(row, deadline).load(Ordering::Acquire);
        let same = atomic!(row, current).load(Ordering::Relaxed) == current;
        (same && current != 0).then_some(((current as u32).wrapping_sub(1), (current >> 32) as u32, deadline))
    }

    /// Before a worker is started in this row.
    pub(super) fn clear(&self, worker: u32) {
        if let Some(row) = self.row(worker) {
            atomic!(row, token).store(0, Ordering::Relaxed);
            atomic!(row, current).store(0, Ordering::Relaxed);
            self.end_run(worker);
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
            // Release: the token is there before the state. A change, not a store: the pool may have released this worker already.
            let state = atomic!(row, state);
            let _ = state.compare_exchange(WORKER_STARTING, WORKER_READY, Ordering::Release, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Asks to be replaced; false if that was done before.
    pub(super) fn leave(&self, worker: u32) -> bool {
        self.row(worker).is_some_and(|row| {
            // A change, not a store: the pool may have released this worker already.
            let state = atomic!(row, state);
            state.compare_exchange(WORKER_READY, WORKER_LEAVING, Ordering::Release, Ordering::Relaxed).is_ok()
        })
    }

    /// Whether this worker was replaced.
    pub(super) fn is_released(&self, worker: u32) -> bool {
        // SeqCst pairs with `release`, in the last look before a sleep.
        self.row(worker).is_none_or(|row| atomic!(row, state).load(Ordering::SeqCst) == WORKER_RELEASED)
    }

    /// Claims a task.
    pub(super) fn claim(&self, index: u32, generation: u32) -> Result<Claim> {
        let owner = self.attachment().token()?.slot();
        let Some(word) = self.word(index) else { return Ok(Claim::Nothing) };
        let queued = Task { state: TASK_QUEUED, owner: 0, generation };
        let mine = Task { state: TASK_RUNNING, owner, generation };
        // AcqRel: the claim; pairs with recovery's and the pool's looks.
        if word.compare_exchange(queued.pack(), mine.pack(), Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return Ok(Claim::Run);
        }
        let cancelled = Task { state: TASK_CANCELLED, owner: NO_WORKER, generation };
        let ended = Task { state: TASK_ENDED, owner, generation };
        // AcqRel: as above.
        let passed = word.compare_exchange(cancelled.pack(), ended.pack(), Ordering::AcqRel, Ordering::Relaxed);
        Ok(if passed.is_ok() { Claim::PassOver } else { Claim::Nothing })
    }

    /// Says until when the task that this worker begins must have ended.
    pub(super) fn begin(&self, worker: u32, index: u32, generation: u32, deadline: u64) {
        if let Some(row) = self.row(worker) {
            atomic!(row, deadline).store(deadline, Ordering::Release);
            let current = u64::from(generation) << 32 | u64::from(index + 1);
            // Release: the deadline is there before the task's name.
            atomic!(row, current).store(current, Ordering::Release);
        }
    }

    /// Says that the task with a deadline has ended.
    pub(super) fn finish(&self, worker: u32) {
        if let Some(row) = self.row(worker) {
            atomic!(row, current).store(0, Ordering::Release);
        }
    }

    /// Takes the next element of the chunk that this worker runs; false if the rest has been given to others.
    pub(super) fn advance(&self, index: u32, generation: u32) -> bool {
        let Some(share) = self.share(index) else { return false };
        let mut seen = share.load(Ordering::Relaxed);
        loop {
            let found = Share::unpack(seen);
            if found.generation != generation || found.next >= found.end {
                return false;
            }
            // Relaxed: as in `split`.
            let taken = Share { next: found.next + 1, ..found };
            match share.compare_exchange_weak(seen, taken.pack(), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
    }

    /// Ends a task, with the reply in one's hands; false if this worker is condemned: it replies, and begins nothing else.
    pub(super) fn end(&self, index: u32, generation: u32) -> bool {
        let Some(word) = self.word(index) else { return true };
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            let task = Task::unpack(seen);
            if task.generation != generation || task.state == TASK_CONDEMNED {
                return task.generation != generation;
            }
            let ended = Task { state: TASK_ENDED, ..task };
            // AcqRel: pairs with `condemn` of the pool.
            match word.compare_exchange(seen, ended.pack(), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
    }

    /// Whether the task that runs under this word is to end.
    pub(super) fn is_cancelled(&self, index: u32, generation: u32) -> bool {
        self.word(index).is_some_and(|word| {
            // Relaxed: nothing else is read on its account.
            let task = Task::unpack(word.load(Ordering::Relaxed));
            task.generation != generation || matches!(task.state, TASK_CANCELLED | TASK_CONDEMNED)
        })
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
