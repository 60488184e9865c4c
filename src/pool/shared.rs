//! The pool's own side: which tasks are under way, which wait for a free word, and who reads the replies.
//!
//! ```text
//! submit      a batch joins the backlog; whoever finds free words and nobody sending sends: words → QUEUED, messages in
//!             batches, serialised while no lock is held; all others only leave their tasks in the backlog
//! a reply     free the word, complete the task, send from the backlog
//! ```
//! One thread at a time reads replies: the pool's own (`manager`), or, if that has nothing to do, one that waits for a result, so
//! that a call costs no detour through another thread. Who stops reading while tasks are under way wakes the pool's own.

use super::manager::{Plan, Row};
use super::table::{Cancelled, Table};
use super::task::{Header, NO_TASK, Ticket};
use super::work::Work;
use crate::channel::{Outbox, Queue};
use crate::error::{ChannelError, Error, Result, TaskError};
use crate::process::{ExitStatus, Process};
use crate::segment::interrupt::shielded;
use crate::segment::locked;
use crate::sys::module::Place;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Tasks that can be under way at once.
pub(super) const WINDOW: u32 = 1024;
/// Messages that are sent, or read, in one go.
const BATCH: usize = 32;

/// What may be asked for a task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    /// How often it may be sent again after a worker died running it.
    pub retries: u32,
    /// How long each element may take.
    pub limit: Option<Duration>,
}

/// Who will read the replies of what is submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listener {
    /// The thread that submits it, at once.
    Caller,
    /// The pool's own thread, unless somebody reads already.
    Pool,
}

/// A task under way.
pub(super) struct Job {
    pub call: u64,
    pub work: Arc<dyn Work>,
    pub chunk: u32,
    pub id: u64,
    pub options: Options,
    pub entry: Place,
}

impl Job {
    /// Tells what became of it. A panic of the user's own code ends here.
    pub(super) fn complete(self, reply: Result<&[u8], TaskError>) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.work.complete(self.chunk, reply, self.id)));
    }

    /// How long it may run; 0 for as long as it wants.
    fn limit(&self) -> u64 {
        self.options.limit.map_or(0, |limit| {
            let all = limit.as_nanos().saturating_mul(self.work.elements(self.chunk) as u128);
            u64::try_from(all).unwrap_or(u64::MAX).max(1)
        })
    }
}

/// What waits for words: the chunks of a batch from `next` on.
struct Waiting {
    call: u64,
    work: Arc<dyn Work>,
    next: u32,
    end: u32,
    /// The id of chunk 0.
    first_id: u64,
    options: Options,
    entry: Place,
}

/// What a word is used for.
pub(super) enum Use {
    Free,
    /// Generation and task.
    Task(u32, Job),
    /// A task of this generation that is told of already; its worker has not ended it, or not seen that it is cancelled.
    Winding(u32),
}

/// Whether the pool takes tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Closed,
    Terminated,
}

/// A cancelled task that a worker still runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ladder {
    pub word: u32,
    pub generation: u32,
    /// When it is asked less politely.
    pub next: Instant,
    /// Whether it has had SIGTERM.
    pub terminated: bool,
}

pub(super) struct State {
    pub phase: Phase,
    pub broken: Option<String>,
    pub uses: Vec<Use>,
    pub free: Vec<u32>,
    backlog: VecDeque<Waiting>,
    /// Somebody sends: he looks at the backlog again before he stops.
    sending: bool,
    /// Somebody reads replies.
    pub reading: bool,
    pub rows: Vec<Row>,
    /// How many workers there are to be.
    pub wanted: u32,
    pub alive: usize,
    /// The last worker has ended, and no other will come.
    pub finished: bool,
    pub failed_starts: u32,
    /// Tasks with a time limit that are under way.
    pub timed: usize,
    pub ladders: Vec<Ladder>,
    /// Workers that leave wait for others to be ready.
    pub expecting: bool,
    next_task: u64,
    next_call: u64,
}

/// What the pool, those who wait and the manager share.
pub(super) struct Shared {
    pub plan: Plan,
    pub tasks: Queue<()>,
    pub replies: Queue<()>,
    pub table: Table,
    state: Mutex<State>,
    outbox: Mutex<Outbox>,
    /// Told when the last worker has ended and nothing is under way.
    pub over: Condvar,
    /// Told when there is something to do for the manager.
    pub attention: Condvar,
    pub deaths: Mutex<Vec<(u32, ExitStatus)>>,
    pub has_deaths: AtomicBool,
    /// The manager is to look at everything.
    pub poked: AtomicBool,
}

/// Tasks that ended without a reply: completed when no lock is held.
pub(super) type Ended = Vec<(Job, TaskError)>;

pub(super) fn complete(ended: Ended) {
    for (job, error) in ended {
        job.complete(Err(error));
    }
}

impl State {
    pub(super) fn new(rows: u32, wanted: u32) -> State {
        State {
            phase: Phase::Open,
            broken: None,
            uses: (0..WINDOW).map(|_| Use::Free).collect(),
            // Words that are used one after the other lie in different lines: two workers claim them at the same time.
            free: (0..WINDOW).map(|index| index % (WINDOW / 8) * 8 + index / (WINDOW / 8)).collect(),
            backlog: VecDeque::new(),
            sending: false,
            reading: false,
            rows: (0..rows).map(|_| Row::default()).collect(),
            wanted,
            alive: 0,
            finished: false,
            failed_starts: 0,
            timed: 0,
            ladders: Vec::new(),
            expecting: false,
            next_task: 0,
            next_call: 0,
        }
    }

    /// Whether replies are to come, or tasks to be sent.
    pub(super) fn is_busy(&self) -> bool {
        self.free.len() < WINDOW as usize || !self.backlog.is_empty()
    }

    /// The next tasks to be sent, with their words and generations; each is under way from now on.
    fn next_batch(&mut self, table: &Table, batch: &mut Vec<(u32, u32)>) {
        while batch.len() < BATCH
            && let Some(waiting) = self.backlog.front_mut()
            && let Some(word) = self.free.pop()
        {
            let generation = table.queue(word);
            let (call, work, options, entry) =
                (waiting.call, Arc::clone(&waiting.work), waiting.options, waiting.entry);
            let (chunk, id) = (waiting.next, waiting.first_id + u64::from(waiting.next));
            waiting.next += 1;
            if waiting.next == waiting.end {
                self.backlog.pop_front();
            }
            self.timed += usize::from(options.limit.is_some());
            self.uses[word as usize] = Use::Task(generation, Job { call, work, chunk, id, options, entry });
            batch.push((word, generation));
        }
    }

    /// Takes the task of a word whose generation is the right one; the word stays in use until it is freed.
    pub(super) fn take(&mut self, word: u32, generation: u32) -> Option<Job> {
        let place = self.uses.get_mut(word as usize)?;
        match std::mem::replace(place, Use::Winding(generation)) {
            Use::Task(found, job) if found == generation => {
                self.timed -= usize::from(job.options.limit.is_some());
                Some(job)
            }
            other => {
                *place = other;
                None
            }
        }
    }

    /// Sends a task again, before all others.
    pub(super) fn again(&mut self, job: Job) {
        let Job { call, work, chunk, id, options, entry } = job;
        let (next, end, first_id) = (chunk, chunk + 1, id - u64::from(chunk));
        self.backlog.push_front(Waiting { call, work, next, end, first_id, options, entry });
    }

    /// Takes every task of a call, or of all, that waits.
    fn unqueue(&mut self, call: Option<u64>) -> Vec<Job> {
        let mut jobs = Vec::new();
        self.backlog.retain_mut(|waiting| {
            let wanted = call.is_none_or(|call| waiting.call == call);
            if wanted {
                let Waiting { call, options, entry, first_id, .. } = *waiting;
                jobs.extend((waiting.next..waiting.end).map(|chunk| Job {
                    call,
                    work: Arc::clone(&waiting.work),
                    chunk,
                    id: first_id + u64::from(chunk),
                    options,
                    entry,
                }));
            }
            !wanted
        });
        jobs
    }
}

impl Shared {
    pub(super) fn new(plan: Plan, tasks: Queue<()>, replies: Queue<()>, table: Table, state: State) -> Shared {
        Shared {
            plan,
            tasks,
            replies,
            table,
            state: Mutex::new(state),
            outbox: Mutex::new(Outbox::default()),
            over: Condvar::new(),
            attention: Condvar::new(),
            deaths: Mutex::new(Vec::new()),
            has_deaths: AtomicBool::new(false),
            // The first look finds out when the next one is due.
            poked: AtomicBool::new(true),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Number of workers.
    pub(super) fn workers(&self) -> usize {
        self.state().wanted as usize
    }

    /// Process ids of the workers.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.state().rows.iter().filter_map(|row| row.process.as_ref().map(Process::pid)).collect()
    }

    /// Tasks that workers have ended.
    pub(super) fn done(&self) -> u64 {
        (0..self.plan.rows()).map(|row| self.table.done(row)).sum()
    }

    /// Has the manager look at everything.
    pub(super) fn poke(&self) {
        // SeqCst pairs with the load of who waits for replies, in the last look before a sleep.
        self.poked.store(true, Ordering::SeqCst);
        // Whoever looks at `poked` before he waits for the condition holds this lock.
        drop(self.state());
        self.attention.notify_one();
        self.replies.wake();
    }

    // ---- tasks -----------------------------------------------------------------------------------------------------

    /// Takes a batch of `chunks` tasks, at least one, and gives its number. What goes wrong with them later is told to `work`.
    pub(super) fn submit(
        &self,
        entry: Place,
        work: Arc<dyn Work>,
        chunks: u32,
        options: Options,
        listener: Listener,
    ) -> u64 {
        let mut state = self.state();
        let (call, first_id) = (state.next_call, state.next_task);
        state.next_call += 1;
        state.next_task += u64::from(chunks);
        let refusal = match (state.phase, &state.broken) {
            (_, Some(why)) => Some(TaskError::BrokenPool { why: why.clone() }),
            (Phase::Closed, _) => Some(TaskError::PoolClosed { state: "closed" }),
            (Phase::Terminated, _) => Some(TaskError::PoolClosed { state: "terminated" }),
            (Phase::Open, None) => None,
        };
        if let Some(error) = refusal {
            drop(state);
            for chunk in 0..chunks {
                let id = first_id + u64::from(chunk);
                Job { call, work: Arc::clone(&work), chunk, id, options, entry }.complete(Err(error.clone()));
            }
            return call;
        }
        state.backlog.push_back(Waiting { call, work, next: 0, end: chunks, first_id, options, entry });
        let nobody_reads = !state.reading && listener == Listener::Pool;
        self.dispatch(state);
        if options.limit.is_some() {
            self.poke();
        } else if nobody_reads {
            self.attention.notify_one();
        }
        call
    }

    /// Sends what waits, as long as there are free words.
    pub(super) fn dispatch<'s>(&'s self, mut state: MutexGuard<'s, State>) {
        if state.sending {
            return;
        }
        state.sending = true;
        let mut batch = Vec::new();
        loop {
            state.next_batch(&self.table, &mut batch);
            if batch.is_empty() {
                break;
            }
            let headers: Vec<_> = batch
                .drain(..)
                .filter_map(|(word, generation)| {
                    // One that was cancelled in the meantime is not there.
                    let Use::Task(_, job) = &state.uses[word as usize] else { return None };
                    let header = Header { ticket: Ticket { word, generation }, entry: job.entry, limit: job.limit() };
                    Some((header, Arc::clone(&job.work), job.chunk))
                })
                .collect();
            drop(state);
            let failed = self.send(headers);
            state = self.state();
            if !failed.is_empty() {
                let mut ended = Ended::new();
                for (ticket, why) in failed {
                    let is_its = match &state.uses[ticket.word as usize] {
                        Use::Task(generation, _) | Use::Winding(generation) => *generation == ticket.generation,
                        Use::Free => false,
                    };
                    if !is_its {
                        continue;
                    }
                    // None if it was cancelled in the meantime.
                    let job = state.take(ticket.word, ticket.generation);
                    self.free(&mut state, ticket.word);
                    ended.extend(job.map(|job| {
                        let task = job.id;
                        (job, TaskError::Codec { action: "write the arguments", why, task })
                    }));
                }
                drop(state);
                complete(ended);
                state = self.state();
            }
        }
        state.sending = false;
        if state.phase == Phase::Closed && !state.is_busy() && !self.table.is_stopped() {
            self.table.stop();
            self.tasks.wake();
        }
    }

    /// Writes and sends messages; gives those that could not be, and why.
    fn send(&self, messages: Vec<(Header, Arc<dyn Work>, u32)>) -> Vec<(Ticket, String)> {
        let mut failed = Vec::new();
        let mut outbox = locked(&self.outbox);
        let mut sent = Vec::with_capacity(messages.len());
        for (header, work, chunk) in messages {
            let written = catch_unwind(AssertUnwindSafe(|| work.write(chunk, &header, &self.tasks, &mut outbox)));
            match written {
                Ok(Ok(())) => sent.push(header.ticket),
                Ok(Err(Error::Channel(ChannelError::Codec { why, .. }))) => failed.push((header.ticket, why)),
                Ok(Err(error)) => failed.push((header.ticket, error.to_string())),
                Err(_) => failed.push((header.ticket, "it panicked".to_owned())),
            }
        }
        // There is room: as many messages as words can be in the queue.
        if let Err(error) = self.tasks.send(&mut outbox) {
            let unsent = sent.len() - outbox.len();
            failed.extend(sent.drain(unsent..).map(|ticket| (ticket, error.to_string())));
            self.tasks.discard(&mut outbox);
        }
        failed
    }

    /// Frees a word.
    pub(super) fn free(&self, state: &mut State, word: u32) {
        self.table.free(word);
        state.uses[word as usize] = Use::Free;
        state.free.push(word);
    }

    /// Cancels what has not ended of a call.
    pub(super) fn cancel(&self, call: u64) {
        let mut state = self.state();
        let mut ended: Ended = state
            .unqueue(Some(call))
            .into_iter()
            .map(|job| {
                let task = job.id;
                (job, TaskError::Cancelled { task })
            })
            .collect();
        for word in 0..WINDOW {
            let Use::Task(generation, job) = &state.uses[word as usize] else { continue };
            if job.call == call {
                let (generation, task) = (*generation, job.id);
                ended.extend(
                    self.withdraw(&mut state, word, generation).map(|job| (job, TaskError::Cancelled { task })),
                );
            }
        }
        drop(state);
        complete(ended);
        self.poke();
    }

    /// Takes back a task under way, if it has not ended: its worker is asked to stop.
    pub(super) fn withdraw(&self, state: &mut State, word: u32, generation: u32) -> Option<Job> {
        let cancelled = self.table.cancel(word, generation);
        if cancelled == Cancelled::TooLate {
            return None;
        }
        if cancelled == Cancelled::Running {
            let next = Instant::now() + self.plan.grace;
            state.ladders.push(Ladder { word, generation, next, terminated: false });
        }
        state.take(word, generation)
    }

    /// Nothing that was taken is run any more.
    pub(super) fn fail_all(&self, state: &mut State, ended: &mut Ended, error: impl Fn() -> TaskError) {
        for word in 0..WINDOW {
            match std::mem::replace(&mut state.uses[word as usize], Use::Free) {
                Use::Free => continue,
                Use::Task(_, job) => ended.push((job, error())),
                Use::Winding(_) => {}
            }
            self.table.free(word);
            state.free.push(word);
        }
        state.timed = 0;
        state.ladders.clear();
        ended.extend(state.unqueue(None).into_iter().map(|job| (job, error())));
    }

    // ---- replies -----------------------------------------------------------------------------------------------------

    /// Reads the replies that are there, waiting for the first one as long as told, and completes their tasks. Only who has the
    /// reader's role may do so.
    pub(super) fn read(&self, timeout: Option<Duration>, is_over: impl Fn() -> bool) -> Result<usize> {
        let read = self.replies.read_many(BATCH, timeout, is_over, |bytes| self.reply(bytes))?;
        if read > 0 {
            self.dispatch(self.state());
        }
        Ok(read)
    }

    fn reply(&self, bytes: &[u8]) {
        let Ok((ticket, reply)) = postcard::take_from_bytes::<Ticket>(bytes) else { return };
        if ticket.word == NO_TASK {
            return self.poke();
        }
        let mut state = self.state();
        match state.uses.get(ticket.word as usize) {
            Some(Use::Task(generation, _) | Use::Winding(generation)) if *generation == ticket.generation => {}
            _ => return,
        }
        let job = state.take(ticket.word, ticket.generation);
        self.free(&mut state, ticket.word);
        drop(state);
        if let Some(job) = job {
            job.complete(Ok(reply));
        }
    }

    /// Reads replies, if nobody else does, until `is_done` or the time is up; or until the manager has to read.
    pub(super) fn help(&self, timeout: Option<Duration>, is_done: impl Fn() -> bool) {
        let start = Instant::now();
        {
            let mut state = self.state();
            if state.reading || state.finished || self.has_deaths.load(Ordering::SeqCst) {
                return;
            }
            state.reading = true;
        }
        let _reading = Reading { shared: self };
        // SeqCst pairs with the store of who reports a death: replies come first, then deaths, and those are the manager's.
        let is_over = || is_done() || self.has_deaths.load(Ordering::SeqCst);
        shielded(|| {
            while !is_over() {
                let left = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
                if left.is_some_and(|left| left.is_zero()) || self.read(left, is_over).is_err() {
                    break;
                }
            }
        });
    }

    /// Gives the reader's role back.
    pub(super) fn stop_reading(&self) {
        let mut state = self.state();
        state.reading = false;
        let is_needed = state.is_busy() || self.has_deaths.load(Ordering::SeqCst);
        drop(state);
        if is_needed {
            self.attention.notify_one();
        }
    }

    // ---- the end -----------------------------------------------------------------------------------------------------

    /// Takes no more tasks; those that were taken are run.
    pub(super) fn close(&self) {
        let mut state = self.state();
        if state.phase == Phase::Open {
            state.phase = Phase::Closed;
            self.dispatch(state);
            self.poke();
        }
    }

    /// Takes no more tasks, and kills the workers.
    pub(super) fn terminate(&self) {
        let mut ended = Vec::new();
        let mut state = self.state();
        state.phase = Phase::Terminated;
        self.fail_all(&mut state, &mut ended, || TaskError::PoolClosed { state: "terminated" });
        kill_all(&mut state);
        drop(state);
        complete(ended);
        self.poke();
    }

    /// Whether tasks are refused.
    pub(super) fn is_open(&self) -> bool {
        let state = self.state();
        state.phase == Phase::Open && state.broken.is_none()
    }

    /// Waits until all workers have ended; false when the time is up.
    pub(super) fn join(&self, timeout: Option<Duration>) -> bool {
        let start = Instant::now();
        let mut state = self.state();
        while !state.finished {
            state = match timeout {
                None => self.over.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(timeout) => {
                    let left = timeout.saturating_sub(start.elapsed());
                    if left.is_zero() {
                        return false;
                    }
                    self.over.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        true
    }
}

/// The reader's role of a thread that waits for a result.
struct Reading<'a> {
    shared: &'a Shared,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.shared.stop_reading();
    }
}

pub(super) fn kill_all(state: &mut State) {
    for process in state.rows.iter().filter_map(|row| row.process.as_ref()) {
        // One that is dead already is dead enough.
        let _ = process.kill();
    }
}
