//! The pool's own side: which tasks are under way, which wait for a free word, and who reads the replies.
//!
//! ```text
//! submit      a batch joins the backlog; whoever finds free words and nobody sending sends: words → QUEUED, messages in
//!             batches, serialised while no lock is held; all others only leave their tasks in the backlog
//! a reply     free the word, complete the task, send from the backlog
//! ```
//! One thread at a time reads replies: the pool's own (`manager`), or, if that has nothing to do, one that waits for a result, so
//! that a call costs no detour through another thread. Who stops reading while tasks are under way wakes the pool's own.

use super::manager::Plan;
use super::sharing::FIRST_LOOK;
use super::state::*;
use super::table::{Cancelled, Table};
use super::task::{Header, NO_TASK, Part, Records, Ticket, part, why_none};
use super::work::Work;
use crate::channel::{Outbox, Queue};
use crate::error::{ChannelError, Error, Result, TaskError};
use crate::process::{ExitStatus, Process};
use crate::segment::interrupt::shielded;
use crate::segment::locked;
use crate::sys::module::Place;
use shmkit_layouts::words::Token;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Tasks for each worker that are sent ahead once some are more urgent than others.
const AHEAD: usize = 2;

/// What the pool, those who wait and the manager share.
pub(super) struct Shared {
    pub plan: Plan,
    pub tasks: Queue<()>,
    pub replies: Queue<()>,
    pub table: Table,
    /// The place in the segment of the process whose pool it is.
    owner: Token,
    state: Mutex<State>,
    outbox: Mutex<Outbox>,
    /// Something is left in the outbox.
    pub unsent: AtomicBool,
    /// Told when the last worker has ended and nothing is under way.
    pub over: Condvar,
    /// Told when there is something to do for the manager.
    pub attention: Condvar,
    pub deaths: Mutex<Vec<(u32, ExitStatus)>>,
    pub has_deaths: AtomicBool,
    /// Held by who tells of a death: until it is free, the pool may have one more owner than it seems.
    pub telling: Arc<Mutex<()>>,
    /// The manager is to look at everything.
    pub poked: AtomicBool,
    /// The process was asked to end: the manager cancels everything.
    pub interrupted: AtomicBool,
    /// The process ends: the manager ends at once, and completes nothing.
    pub abandoned: AtomicBool,
}

impl Shared {
    pub(super) fn new(plan: Plan, tasks: Queue<()>, replies: Queue<()>, table: Table, state: State) -> Result<Shared> {
        let owner = table.attachment().token()?;
        Ok(Shared {
            plan,
            tasks,
            replies,
            table,
            owner,
            state: Mutex::new(state),
            outbox: Mutex::new(Outbox::default()),
            unsent: AtomicBool::new(false),
            over: Condvar::new(),
            attention: Condvar::new(),
            deaths: Mutex::new(Vec::new()),
            has_deaths: AtomicBool::new(false),
            telling: Arc::default(),
            // The first look finds out when the next one is due.
            poked: AtomicBool::new(true),
            interrupted: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        })
    }

    /// Whether the pool is this process's: not one's that this process was forked from, whose threads are not here, and whose
    /// tasks and workers are its own.
    pub(super) fn is_own(&self) -> bool {
        self.table.attachment().token_word().load(Ordering::Relaxed) == self.owner.0
    }

    /// What is said of a pool that is another process's.
    pub(super) fn not_own() -> TaskError {
        TaskError::PoolClosed { state: "another process's" }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Number of workers.
    pub(super) fn workers(&self) -> usize {
        if self.is_own() { self.state().wanted as usize } else { self.plan.workers as usize }
    }

    /// Process ids of the workers.
    pub(super) fn pids(&self) -> Vec<u32> {
        if !self.is_own() {
            return Vec::new();
        }
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
        let refuse = |call, first_id: u64, error: TaskError| {
            for chunk in 0..chunks {
                let id = first_id.wrapping_add(u64::from(chunk));
                let elements = work.elements(chunk);
                let work = Arc::clone(&work);
                let job = Job { call, work, chunk, elements, is_run: false, told: 0, id, options, entry };
                job.complete(Err(error.clone()));
            }
            call
        };
        if !self.is_own() {
            return refuse(u64::MAX, 0, Shared::not_own());
        }
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
            return refuse(call, first_id, error);
        }
        let plan = &self.plan;
        let is_free = options.limit.is_none() && options.priority == 0 && plan.limit == 0 && plan.max_rss == 0;
        let in_runs = is_free && work.pace().is_some();
        state.queue(Waiting { call, work, next: 0, end: chunks, first_id, options, entry, in_runs });
        if options.priority != 0 || state.window < WINDOW as usize {
            self.make_way(&mut state, options.priority);
        }
        let nobody_reads = !state.reading && listener == Listener::Pool;
        self.dispatch(state);
        if options.limit.is_some() {
            self.poke();
        } else if nobody_reads {
            self.attention.notify_one();
        }
        call
    }

    /// Takes back what is less urgent and waits in the queue. From the first time on not much is sent ahead any more.
    fn make_way(&self, state: &mut State, priority: i32) {
        state.window = (AHEAD * state.wanted as usize).clamp(AHEAD, WINDOW as usize);
        let mut withdrawn = Vec::new();
        for word in 0..WINDOW {
            let Use::Task(generation, job) = &state.uses[word as usize] else { continue };
            let generation = *generation;
            if job.options.priority < priority && self.table.withdraw(word, generation) {
                withdrawn.extend(state.take(word, generation));
            }
        }
        withdrawn.sort_unstable_by_key(|job| std::cmp::Reverse(job.id));
        withdrawn.into_iter().for_each(|job| state.again(job.whole(true)));
        // What workers have taken comes before what was still in the queue.
        state.take_rests(&self.table, priority);
    }

    /// Sends what waits, as long as there are free words.
    pub(super) fn dispatch<'s>(&'s self, mut state: MutexGuard<'s, State>) {
        if state.sending {
            return;
        }
        state.sending = true;
        let mut batch = Vec::new();
        // Relaxed: only who sends reads or writes it, and the next one has the lock in between.
        if self.unsent.swap(false, Ordering::Relaxed) {
            drop(state);
            drop(self.send(Vec::new()));
            state = self.state();
        }
        while !self.unsent.load(Ordering::Relaxed) {
            state.next_batch(&self.table, &mut batch);
            if batch.is_empty() {
                break;
            }
            let headers: Vec<_> = batch
                .drain(..)
                .filter_map(|(word, generation)| {
                    // One that was cancelled in the meantime is not there.
                    let Use::Task(_, job) = &state.uses[word as usize] else { return None };
                    let (ticket, is_run) = (Ticket { word, generation }, job.is_run);
                    let header = Header { ticket, entry: job.entry, limit: job.limit(), is_run };
                    Some(Message { header, work: Arc::clone(&job.work), chunk: job.chunk, tasks: job.elements })
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
                    match job {
                        // It may be the fault of one of them.
                        Some(job) if job.elements > 1 && job.is_run => state.again(job.whole(false)),
                        Some(job) => {
                            let task = job.id;
                            ended.push((job, TaskError::Codec { action: "write the arguments", why, task }));
                        }
                        None => {}
                    }
                }
                drop(state);
                complete(ended);
                state = self.state();
            }
        }
        state.sending = false;
        if self.unsent.load(Ordering::Relaxed) {
            // The manager tries again; the lock is held that it looks under before it waits.
            self.poked.store(true, Ordering::SeqCst);
            self.attention.notify_one();
            self.replies.wake();
        }
        if state.phase == Phase::Closed && !state.is_busy() && !self.table.is_stopped() {
            self.table.stop();
            self.tasks.wake();
        }
    }

    /// Writes and sends messages; gives those that could not be, and why.
    fn send(&self, messages: Vec<Message>) -> Vec<(Ticket, String)> {
        let mut failed = Vec::new();
        let mut outbox = locked(&self.outbox);
        let mut sent = Vec::with_capacity(messages.len());
        for Message { header, work, chunk, tasks } in messages {
            let queue = &self.tasks;
            let written = catch_unwind(AssertUnwindSafe(|| match header.is_run {
                true => work.write_run(chunk, tasks, &header, queue, &mut outbox),
                false => work.write(chunk, &header, queue, &mut outbox),
            }));
            match written {
                Ok(Ok(())) => sent.push(header.ticket),
                Ok(Err(Error::Channel(ChannelError::Codec { why, .. }))) => failed.push((header.ticket, why)),
                Ok(Err(error)) => failed.push((header.ticket, error.to_string())),
                Err(_) => failed.push((header.ticket, "it panicked".to_owned())),
            }
        }
        match self.tasks.send(&mut outbox, Some(FULL)) {
            Ok(()) => {}
            // As many messages as words can be in the queue, and there is room for them; but a worker that is stopped in the
            // middle of taking one keeps the next lap from its slot.
            Err(Error::Channel(ChannelError::Full { .. })) => self.unsent.store(true, Ordering::Relaxed),
            Err(error) => {
                let unsent = sent.len().saturating_sub(outbox.len());
                failed.extend(sent.drain(unsent..).map(|ticket| (ticket, error.to_string())));
                self.tasks.discard(&mut outbox);
            }
        }
        failed
    }

    /// Frees a word.
    pub(super) fn free(&self, state: &mut State, word: u32) {
        self.table.free(word);
        state.uses[word as usize] = Use::Free;
        state.free.push(word);
    }

    /// Cancels what has not ended of a call, or of all.
    pub(super) fn cancel(&self, call: Option<u64>) {
        if !self.is_own() {
            return;
        }
        let mut state = self.state();
        let mut ended: Ended = state
            .unqueue(call)
            .into_iter()
            .map(|job| {
                let task = job.id;
                (job, TaskError::Cancelled { task })
            })
            .collect();
        for word in 0..WINDOW {
            let Use::Task(generation, job) = &state.uses[word as usize] else { continue };
            if call.is_none_or(|call| job.call == call) {
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
            let next = after(Instant::now(), self.plan.grace);
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
        state.several = 0;
        state.ladders.clear();
        ended.extend(state.unqueue(None).into_iter().map(|job| (job, error())));
    }

    // ---- replies -----------------------------------------------------------------------------------------------------

    /// Reads the replies that are there, waiting for the first one as long as told or less, and completes their tasks. Only who has the
    /// reader's role may do so.
    pub(super) fn read(&self, timeout: Option<Duration>, is_over: impl Fn() -> bool) -> Result<usize> {
        let left = self.until_look(timeout);
        let read = self.replies.read_many(BATCH, left, is_over, |bytes| self.reply(bytes))?;
        if read > 0 {
            let mut state = self.state();
            state.next_look = FIRST_LOOK;
            self.dispatch(state);
        }
        self.share_out();
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
        let part = part(reply);
        if let Some((said, records)) = part
            && !said.is_last
        {
            // None if it is told of already.
            let heard = state.hear(ticket.word, ticket.generation, said.first, said.count);
            drop(state);
            if let Some((job, news)) = heard {
                job.tell(news, Ok(records));
            }
            return;
        }
        let job = state.take(ticket.word, ticket.generation);
        self.free(&mut state, ticket.word);
        drop(state);
        match job {
            Some(job) if job.is_run => end_run(job, part, reply),
            Some(job) => job.complete(Ok(reply)),
            None => {}
        }
    }

    /// Reads replies, if nobody else does, until `is_done` or the time is up; or until the manager has to read.
    pub(super) fn help(&self, timeout: Option<Duration>, is_done: impl Fn() -> bool) {
        if !self.is_own() {
            return;
        }
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
        if !self.is_own() {
            return;
        }
        let mut state = self.state();
        if state.phase == Phase::Open {
            state.phase = Phase::Closed;
            self.dispatch(state);
            self.poke();
        }
    }

    /// Takes no more tasks, and kills the workers.
    pub(super) fn terminate(&self) {
        if !self.is_own() {
            return;
        }
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

/// What is to be written.
struct Message {
    header: Header,
    work: Arc<dyn Work>,
    chunk: u32,
    /// Of a run.
    tasks: usize,
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

/// Tells what the last reply to a run says.
fn end_run(mut job: Job, part: Option<(Part, Records<'_>)>, reply: &[u8]) {
    let error = match part {
        Some((said, records)) => {
            if let Some(pace) = job.work.pace() {
                pace.note(said.pace);
            }
            let news = job.hear(said.first, said.count);
            job.tell(news, Ok(records));
            let why = "there are fewer than were asked for".to_owned();
            TaskError::Codec { action: "read the result", why, task: job.id }
        }
        None => why_none(reply, job.id),
    };
    // None, unless something is wrong.
    job.complete(Err(error));
}

pub(super) fn kill_all(state: &mut State) {
    for process in state.rows.iter().filter_map(|row| row.process.as_ref()) {
        // One that is dead already is dead enough.
        let _ = process.kill();
    }
}
