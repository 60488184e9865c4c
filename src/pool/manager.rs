//! The pool's own side: which tasks are under way, which wait for a free word, what becomes of the workers.
//!
//! ```text
//! submit      a free word → QUEUED, message; none free → backlog
//! a reply     free the word, complete the task, send from the backlog
//! a death     all replies that were sent before it come first; then, once the dead one's claims are LOST: fail its task or
//!             send it again, start another worker in its row
//! ```
//! One thread of the pool, the manager, does the last two. It is told of a death by the thread that reaps children.

use super::table::{Size, Table};
use super::task::{Header, Ticket};
use super::worker::{Initializer, Orders, work};
use crate::channel::Queue;
use crate::error::{ChannelError, Error, Result, TaskError};
use crate::process::{ExitStatus, Process};
use crate::segment::interrupt::shielded;
use crate::segment::{locked, session};
use crate::sys::module::Place;
use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Tasks that can be under way at once.
const WINDOW: u32 = 1024;
/// Workers that die before they are ready, one after the other, after which the pool gives up.
const FAILED_STARTS: u32 = 3;

/// Writes a task's message.
pub(super) type Send = Box<dyn Fn(&Queue<()>, &Header) -> Result<()> + std::marker::Send>;
/// Takes the bytes of a task's reply, or why there is none.
pub(super) type Complete = Box<dyn FnOnce(Result<&[u8], TaskError>, u64) + std::marker::Send>;

/// A task.
pub(super) struct Job {
    pub entry: Place,
    pub send: Send,
    pub complete: Complete,
    /// How often it may be sent again after a worker died running it.
    pub retries: u32,
    pub id: u64,
}

/// Whether the pool takes tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Closed,
    Terminated,
}

struct Worker {
    process: Option<Process>,
}

struct State {
    phase: Phase,
    broken: Option<String>,
    /// By word: the task under way and its generation.
    under_way: Vec<Option<(u32, Job)>>,
    free: Vec<u32>,
    backlog: VecDeque<Job>,
    workers: Vec<Worker>,
    alive: usize,
    /// The last worker has ended, and no other will come.
    finished: bool,
    failed_starts: u32,
    next_task: u64,
}

/// How the workers of a pool are to be.
pub(super) struct Plan {
    pub workers: u32,
    pub retries: u32,
    pub limit: u64,
    pub initializer: Option<Initializer>,
    /// Keeps alive what the initializer's arguments name: workers that are started later read them, too.
    pub _kept: Option<Box<dyn Any + std::marker::Send + Sync>>,
}

/// What the pool and its manager share.
pub(super) struct Shared {
    pub plan: Plan,
    tasks: Queue<()>,
    replies: Queue<()>,
    table: Table,
    state: Mutex<State>,
    /// Told when the last worker has ended and nothing is under way.
    over: Condvar,
    deaths: Mutex<Vec<(u32, ExitStatus)>>,
    has_deaths: AtomicBool,
}

/// Tasks that ended without a reply: completed when no lock is held.
type Ended = Vec<(Job, TaskError)>;

fn complete(ended: Ended) {
    for (job, error) in ended {
        (job.complete)(Err(error), job.id);
    }
}

impl Shared {
    /// Starts the workers and the manager.
    pub(super) fn start(plan: Plan) -> Result<(Arc<Shared>, JoinHandle<()>)> {
        let session = session()?;
        let table = Table::new(&session, Size { tasks: WINDOW, workers: plan.workers })?;
        let state = State {
            phase: Phase::Open,
            broken: None,
            under_way: (0..WINDOW).map(|_| None).collect(),
            free: (0..WINDOW).rev().collect(),
            backlog: VecDeque::new(),
            workers: (0..plan.workers).map(|_| Worker { process: None }).collect(),
            alive: 0,
            finished: false,
            failed_starts: 0,
            next_task: 0,
        };
        let shared = Arc::new(Shared {
            // Messages that are passed over, because their tasks were lost, need room beside those under way.
            tasks: Queue::bounded_in(&session, 2 * WINDOW as usize)?,
            replies: Queue::bounded_in(&session, WINDOW as usize)?,
            table,
            state: Mutex::new(state),
            over: Condvar::new(),
            deaths: Mutex::new(Vec::new()),
            has_deaths: AtomicBool::new(false),
            plan,
        });
        for row in 0..shared.plan.workers {
            if let Err(error) = shared.start_worker(row) {
                shared.terminate();
                return Err(error);
            }
        }
        let manager = Arc::clone(&shared);
        match std::thread::Builder::new().name("shmkit-pool".to_owned()).spawn(move || shielded(|| manager.manage())) {
            Ok(manager) => Ok((shared, manager)),
            Err(error) => {
                shared.terminate();
                Err(error.into())
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Number of workers.
    pub(super) fn workers(&self) -> usize {
        self.plan.workers as usize
    }

    /// Process ids of the workers.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.state().workers.iter().filter_map(|worker| worker.process.as_ref().map(Process::pid)).collect()
    }

    /// Tasks that workers have ended.
    pub(super) fn done(&self) -> u64 {
        (0..self.plan.workers).map(|row| self.table.done(row)).sum()
    }

    // ---- tasks -----------------------------------------------------------------------------------------------------

    /// Takes a task. What goes wrong with it later is told to `complete`.
    pub(super) fn submit(&self, entry: Place, send: Send, on_end: Complete) {
        let mut state = self.state();
        let id = state.next_task;
        state.next_task += 1;
        let job = Job { entry, send, complete: on_end, retries: self.plan.retries, id };
        let refusal = match (state.phase, &state.broken) {
            (_, Some(why)) => Some(TaskError::BrokenPool { why: why.clone() }),
            (Phase::Closed, _) => Some(TaskError::PoolClosed { state: "closed" }),
            (Phase::Terminated, _) => Some(TaskError::PoolClosed { state: "terminated" }),
            (Phase::Open, None) => None,
        };
        let ended = match refusal {
            Some(error) => vec![(job, error)],
            None => {
                state.backlog.push_back(job);
                self.dispatch(&mut state)
            }
        };
        drop(state);
        complete(ended);
    }

    /// Sends what waits, as long as there are free words.
    fn dispatch(&self, state: &mut State) -> Ended {
        let mut ended = Vec::new();
        while let Some(&word) = state.free.last() {
            let Some(job) = state.backlog.pop_front() else { break };
            let generation = self.table.queue(word);
            let header = Header { ticket: Ticket { word, generation }, entry: job.entry };
            match (job.send)(&self.tasks, &header) {
                Ok(()) => {
                    state.free.pop();
                    state.under_way[word as usize] = Some((generation, job));
                }
                Err(error) => {
                    self.table.free(word);
                    match error {
                        // Passed-over messages still lie in it: the next reply tries again.
                        Error::Channel(ChannelError::Full { .. }) if state.free.len() < WINDOW as usize => {
                            state.backlog.push_front(job);
                            break;
                        }
                        Error::Channel(ChannelError::Codec { why, .. }) => {
                            let task = job.id;
                            ended.push((job, TaskError::Codec { action: "write the arguments", why, task }));
                        }
                        error => {
                            let (task, why) = (job.id, error.to_string());
                            ended.push((job, TaskError::Codec { action: "write the arguments", why, task }));
                        }
                    }
                }
            }
        }
        let is_idle = state.backlog.is_empty() && state.free.len() == WINDOW as usize;
        if is_idle && state.phase == Phase::Closed && !self.table.is_stopped() {
            self.table.stop();
            self.tasks.wake();
        }
        ended
    }

    // ---- the manager -------------------------------------------------------------------------------------------------

    fn manage(self: Arc<Self>) {
        loop {
            // SeqCst pairs with the store in `start_worker`'s hook: replies come first, then deaths.
            let has_deaths = || self.has_deaths.load(Ordering::SeqCst);
            match self.replies.read_with(has_deaths, |bytes| self.reply(bytes)) {
                Ok(Some(())) => {}
                Ok(None) => self.bury(),
                // The queue itself is corrupt: no reply can be had any more.
                Err(error) => self.despair(&error),
            }
            if self.is_over() {
                return;
            }
        }
    }

    fn despair(self: &Arc<Self>, error: &Error) {
        let mut ended = Vec::new();
        self.give_up(&mut self.state(), &error.to_string(), &mut ended);
        complete(ended);
        // The deaths of the workers are all there is to wait for.
        while !self.has_deaths.load(Ordering::SeqCst) && self.state().alive > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.bury();
    }

    fn reply(&self, bytes: &[u8]) {
        let Ok((ticket, reply)) = postcard::take_from_bytes::<Ticket>(bytes) else { return };
        let mut state = self.state();
        let Some(slot) = state.under_way.get_mut(ticket.word as usize) else { return };
        let Some((_, job)) = slot.take_if(|(generation, _)| *generation == ticket.generation) else { return };
        self.table.free(ticket.word);
        state.free.push(ticket.word);
        let ended = self.dispatch(&mut state);
        drop(state);
        (job.complete)(Ok(reply), job.id);
        complete(ended);
    }

    /// Deals with the workers that have died. Every reply they had sent has been read.
    fn bury(self: &Arc<Self>) {
        self.has_deaths.store(false, Ordering::SeqCst);
        let deaths = std::mem::take(&mut *locked(&self.deaths));
        for (row, status) in deaths {
            let token = self.table.worker(row);
            if let Some(token) = token {
                self.table.await_recovery(token);
            }
            let mut ended = Vec::new();
            let mut state = self.state();
            let pid = state.workers[row as usize].process.take().map_or(0, |process| process.pid());
            if let Some(token) = token {
                for word in self.table.lost(token.slot()) {
                    self.lose(&mut state, word, pid, &status, &mut ended);
                }
            }
            state.failed_starts = if token.is_none() { state.failed_starts + 1 } else { 0 };
            state.alive -= 1;
            if state.failed_starts >= FAILED_STARTS && state.broken.is_none() {
                let why = status.message().map_or_else(|| format!("the last one ended with {status}"), str::to_owned);
                self.give_up(&mut state, &why, &mut ended);
            }
            ended.append(&mut self.dispatch(&mut state));
            let replace = state.broken.is_none() && state.phase != Phase::Terminated && !self.table.is_stopped();
            drop(state);
            if replace && let Err(error) = self.start_worker(row) {
                // Fewer workers are better than none.
                let mut state = self.state();
                if state.alive == 0 {
                    self.give_up(&mut state, &error.to_string(), &mut ended);
                }
            }
            complete(ended);
        }
    }

    /// A task whose worker died.
    fn lose(&self, state: &mut State, word: u32, pid: u32, status: &ExitStatus, ended: &mut Ended) {
        self.table.free(word);
        let Some((_, mut job)) = state.under_way[word as usize].take() else { return };
        state.free.push(word);
        if job.retries > 0 && state.phase != Phase::Terminated {
            job.retries -= 1;
            state.backlog.push_front(job);
            return;
        }
        event!(WARN, "a worker died running a task", pid = pid, task = job.id, how = status.to_string());
        let (signal, task) = (status.signal(), job.id);
        let exit_code = status.exit_code().filter(|_| signal.is_none());
        ended.push((job, TaskError::WorkerDied { pid, signal, exit_code, task }));
    }

    /// Nothing more will be run.
    fn give_up(&self, state: &mut State, why: &str, ended: &mut Ended) {
        state.broken = Some(why.to_owned());
        self.fail_all(state, ended, || TaskError::BrokenPool { why: why.to_owned() });
        kill_all(state);
    }

    fn fail_all(&self, state: &mut State, ended: &mut Ended, error: impl Fn() -> TaskError) {
        for word in 0..WINDOW {
            if let Some((_, job)) = state.under_way[word as usize].take() {
                self.table.free(word);
                state.free.push(word);
                ended.push((job, error()));
            }
        }
        ended.extend(state.backlog.drain(..).map(|job| (job, error())));
    }

    /// Starts a worker in its row.
    fn start_worker(self: &Arc<Self>, row: u32) -> Result<()> {
        self.table.clear(row);
        let orders = Orders {
            table: self.table.clone(),
            tasks: self.tasks.clone(),
            replies: self.replies.clone(),
            row,
            limit: self.plan.limit,
            initializer: self.plan.initializer.clone(),
        };
        // Not an owner: the pool ends although its workers are being watched.
        let shared = Arc::downgrade(self);
        let told = move |status: &ExitStatus| {
            let Some(shared) = shared.upgrade() else { return };
            locked(&shared.deaths).push((row, status.clone()));
            shared.has_deaths.store(true, Ordering::SeqCst);
            shared.replies.wake();
        };
        // The lock is held until the process is entered: it may be dead before this thread goes on.
        let mut state = self.state();
        let process = Process::new(work)
            .args((orders,))
            .name(format!("PoolWorker-{}", row + 1))
            .daemon(true)
            .on_end(Box::new(told))
            .start()?;
        state.workers[row as usize].process = Some(process);
        state.alive += 1;
        Ok(())
    }

    // ---- the end -----------------------------------------------------------------------------------------------------

    fn is_over(&self) -> bool {
        let mut state = self.state();
        let over = state.broken.is_some() || state.phase == Phase::Terminated || self.table.is_stopped();
        state.finished = over && state.alive == 0;
        if state.finished {
            self.over.notify_all();
        }
        state.finished
    }

    /// Takes no more tasks; those that were taken are run.
    pub(super) fn close(&self) {
        let mut state = self.state();
        if state.phase == Phase::Open {
            state.phase = Phase::Closed;
            let ended = self.dispatch(&mut state);
            drop(state);
            complete(ended);
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
        // Without a worker that dies nobody would tell the manager.
        self.has_deaths.store(true, Ordering::SeqCst);
        self.replies.wake();
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

fn kill_all(state: &mut State) {
    for process in state.workers.iter().filter_map(|worker| worker.process.as_ref()) {
        // One that is dead already is dead enough.
        let _ = process.kill();
    }
}
