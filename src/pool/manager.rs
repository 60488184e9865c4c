//! The pool's own thread: it reads replies when nobody else does, and sees to the workers.
//!
//! ```text
//! a death     all replies that were sent before it come first; then, once the dead one's claims are LOST: fail its task or
//!             send it again
//! balance     too few workers that stay: start some; too many: release some; a worker that leaves is released when those
//!             that stay are ready
//! a time      a task's deadline → cancel it; a cancelled task's grace → condemn it, SIGTERM, then SIGKILL; a worker's age
//! ```
//! It is told of a death by the thread that reaps children. With nothing under way it sleeps and wakes for nothing.

use super::ending::{self, Manager};
use super::shared::{Shared, kill_all};
use super::state::{Ended, FULL, Job, Phase, State, Use, WINDOW, after, complete};
use super::table::{Size, Table};
use super::worker::{Initializer, Orders, work};
use crate::channel::Queue;
use crate::error::{Result, TaskError};
use crate::process::{ExitStatus, Process, StartMethod};
use crate::segment::interrupt::shielded;
use crate::segment::{locked, session};
use crate::sys::proc::monotonic;
use std::any::Any;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Workers that die before they are ready, one after the other, after which the pool gives up.
const FAILED_STARTS: u32 = 3;
/// How soon the pool looks again whether the workers that are to stay are ready.
const READY: Duration = Duration::from_millis(20);
/// When the start of a worker is tried again that the system has refused.
const RETRY: Duration = Duration::from_secs(1);

/// How the workers of a pool are to be.
pub(super) struct Plan {
    pub workers: u32,
    pub max_workers: u32,
    pub retries: u32,
    pub limit: u64,
    pub max_rss: u64,
    pub max_age: Option<Duration>,
    pub grace: Duration,
    pub method: StartMethod,
    pub initializer: Option<Initializer>,
    /// Keeps alive what the initializer's arguments name: workers that are started later read them, too.
    pub _kept: Option<Box<dyn Any + Send + Sync>>,
}

impl Plan {
    /// Rows of the table: a worker and the one that takes its place are there at the same time.
    pub(super) fn rows(&self) -> u32 {
        2 * self.max_workers
    }
}

/// How a worker died.
struct Death<'a> {
    pid: u32,
    status: &'a ExitStatus,
    out_of_memory: bool,
}

/// A row of the table, as the pool sees it.
#[derive(Default)]
pub(super) struct Row {
    pub process: Option<Process>,
    /// When its worker is too old.
    old: Option<Instant>,
    /// Its worker does not count any more.
    leaving: bool,
    /// Its worker was told to end.
    released: bool,
    /// Its worker was seen to be ready.
    has_begun: bool,
}

impl Row {
    /// Whether it has a worker that stays.
    pub(super) fn is_at_work(&self) -> bool {
        self.process.is_some() && !self.leaving
    }
}

impl Shared {
    /// Starts the workers and the manager.
    pub(super) fn start(plan: Plan) -> Result<(Arc<Shared>, Manager)> {
        let session = session()?;
        let table = Table::new(&session, Size { tasks: WINDOW, workers: plan.rows() })?;
        let state = State::new(plan.rows(), plan.workers);
        // Messages that are delivered again need room beside those under way, as do workers that call for attention.
        let tasks = Queue::bounded_in(&session, 2 * WINDOW as usize)?;
        let replies = Queue::bounded_in(&session, 2 * WINDOW as usize)?;
        let shared = Arc::new(Shared::new(plan, tasks, replies, table, state)?);
        if let Err(error) = shared.balance() {
            shared.terminate();
            return Err(error);
        }
        let manager = Arc::clone(&shared);
        match std::thread::Builder::new().name("shmkit-pool".to_owned()).spawn(move || shielded(|| manager.manage())) {
            Ok(manager) => {
                let manager = Arc::new(Mutex::new(Some(manager)));
                ending::register(&shared, &manager);
                Ok((shared, manager))
            }
            Err(error) => {
                shared.terminate();
                Err(error.into())
            }
        }
    }

    fn manage(self: Arc<Self>) {
        let mut next_look = None;
        loop {
            // SeqCst: what was reported before is seen after.
            let poked = self.poked.swap(false, Ordering::SeqCst);
            if self.abandoned.load(Ordering::SeqCst) {
                return;
            }
            if self.interrupted.swap(false, Ordering::SeqCst) {
                self.close();
                self.cancel(None);
            }
            if poked || next_look.is_some_and(|next| Instant::now() >= next) {
                next_look = self.look_at_times();
                if self.balance().is_err() {
                    next_look = Some(next_look.unwrap_or(Instant::now() + RETRY).min(Instant::now() + RETRY));
                }
                // A worker that was started before anybody waited for it does not say when it is ready.
                if self.state().expecting {
                    next_look = Some(next_look.unwrap_or(Instant::now() + READY).min(Instant::now() + READY));
                }
            }
            let mut state = self.state();
            if self.is_over(&mut state) {
                return;
            }
            if self.unsent.load(Ordering::Relaxed) {
                self.dispatch(state);
                next_look = Some(next_look.unwrap_or(Instant::now() + FULL).min(Instant::now() + FULL));
                state = self.state();
            }
            let has_deaths = self.has_deaths.load(Ordering::SeqCst);
            let is_called = self.poked.load(Ordering::SeqCst);
            let left = next_look.map(|next| next.saturating_duration_since(Instant::now()));
            if !state.reading && (has_deaths || state.is_busy() || state.expecting) {
                state.reading = true;
                drop(state);
                self.read_as_manager(left);
            } else if !is_called {
                // Told when there are deaths, tasks without a reader, or other things to see to.
                drop(match left {
                    None => self.attention.wait(state).unwrap_or_else(PoisonError::into_inner),
                    Some(left) => self.attention.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                });
            }
        }
    }

    fn read_as_manager(self: &Arc<Self>, timeout: Option<Duration>) {
        // SeqCst pairs with the stores before a wake: replies come first, then deaths.
        let is_over = || self.has_deaths.load(Ordering::SeqCst) || self.poked.load(Ordering::SeqCst);
        // Before the read: a death that is reported later may have come with a reply that the read did not see.
        let known = locked(&self.deaths).len();
        let outcome = self.read(timeout, is_over);
        match outcome {
            Ok(0) if known > 0 => self.bury(known),
            Ok(_) => {}
            // The queue itself is corrupt: no reply can be had any more.
            Err(error) => self.despair(&error.to_string()),
        }
        let mut state = self.state();
        state.reading = false;
    }

    fn despair(self: &Arc<Self>, why: &str) {
        let mut ended = Vec::new();
        self.give_up(&mut self.state(), why, &mut ended);
        complete(ended);
        // The deaths of the workers are all there is to wait for.
        while !self.has_deaths.load(Ordering::SeqCst)
            && !self.abandoned.load(Ordering::SeqCst)
            && self.state().alive > 0
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.bury(usize::MAX);
    }

    // ---- deaths ------------------------------------------------------------------------------------------------------

    /// Deals with the first `known` of the workers that have died. Every reply they had sent has been read.
    fn bury(self: &Arc<Self>, known: usize) {
        let known: Vec<_> = {
            let mut deaths = locked(&self.deaths);
            let known = known.min(deaths.len());
            let known = deaths.drain(..known).collect();
            self.has_deaths.store(!deaths.is_empty(), Ordering::SeqCst);
            known
        };
        let mut ended = Vec::new();
        for (row, status) in known {
            let token = self.table.worker(row);
            if let Some(token) = token {
                self.table.await_recovery(token);
            }
            let mut state = self.state();
            // What it had ended counts.
            let unsent = self.unsent(&mut state, row);
            let pid = state.rows[row as usize].process.take().map_or(0, |process| process.pid());
            state.rows[row as usize] = Row::default();
            let out_of_memory = state.ran_out_of_memory(status.signal());
            if let Some(token) = token {
                for word in self.table.lost(token.slot()) {
                    self.lose(&mut state, word, Death { pid, status: &status, out_of_memory }, &mut ended);
                }
            }
            state.failed_starts =
                if token.is_some() || self.has_another_begun(&mut state) { 0 } else { state.failed_starts };
            state.failed_starts += u32::from(token.is_none());
            state.alive -= 1;
            if state.failed_starts >= FAILED_STARTS && state.broken.is_none() {
                let why = status.message().map_or_else(|| format!("the last one ended with {status}"), str::to_owned);
                self.give_up(&mut state, &why, &mut ended);
            }
            self.dispatch(state);
            if let Some(unsent) = unsent {
                unsent.tell();
            }
        }
        // Who is told of the death finds another worker. One that the system refuses is tried again.
        let _ = self.balance();
        complete(ended);
        self.poked.store(true, Ordering::SeqCst);
    }

    /// Whether a worker has become ready since this was asked last.
    fn has_another_begun(&self, state: &mut State) -> bool {
        let mut has = false;
        for (index, row) in state.rows.iter_mut().enumerate().filter(|(_, row)| row.process.is_some() && !row.has_begun)
        {
            row.has_begun = self.table.worker(index as u32).is_some();
            has |= row.has_begun;
        }
        has
    }

    /// A task whose worker died.
    fn lose(&self, state: &mut State, word: u32, death: Death<'_>, ended: &mut Ended) {
        let Death { pid, status, out_of_memory } = death;
        let generation = match &state.uses[word as usize] {
            Use::Task(generation, _) | Use::Winding(generation) => *generation,
            Use::Free => return,
        };
        let begun = self.table.begun(word, generation);
        let job = state.take(word, generation);
        self.free(state, word);
        let Some(job) = job else { return };
        let Some(mut job) = (if job.is_run { self.lose_run(state, job, begun) } else { Some(job) }) else { return };
        if job.options.retries > 0 && state.phase != Phase::Terminated {
            job.options.retries -= 1;
            state.again(job.whole(false));
            return;
        }
        event!(WARN, "a worker died running a task", pid = pid, task = job.id, how = status.to_string());
        let (signal, task) = (status.signal(), job.id);
        let exit_code = status.exit_code().filter(|_| signal.is_none());
        let peak_rss = status.peak_rss();
        ended.push((job, TaskError::WorkerDied { pid, signal, exit_code, task, peak_rss, out_of_memory }));
    }

    /// A run whose worker died: gives the task that it was in, if it was in one. The others are sent again, one by one: if the run
    /// as a whole kills workers, nobody knows yet which of its tasks does.
    fn lose_run(&self, state: &mut State, job: Job, begun: u32) -> Option<Job> {
        let all = job.elements as u32;
        // A worker publishes what came of a task before it begins the next.
        let begun = match all {
            1 => 1,
            _ => begun.clamp(job.told, all),
        };
        if state.phase != Phase::Terminated {
            state.again(job.part(begun, all, false));
        }
        let (chunk, id) = (job.chunk + job.told, job.id + u64::from(job.told));
        let lost = (begun - job.told) as usize;
        (lost > 0).then(|| Job { chunk, id, elements: lost, told: 0, ..job })
    }

    /// Nothing more will be run.
    fn give_up(&self, state: &mut State, why: &str, ended: &mut Ended) {
        state.broken = Some(why.to_owned());
        self.fail_all(state, ended, || TaskError::BrokenPool { why: why.to_owned() });
        kill_all(state);
    }

    // ---- workers -----------------------------------------------------------------------------------------------------

    /// Changes how many workers there are.
    pub(super) fn resize(&self, workers: u32) {
        self.state().wanted = workers;
        self.poke();
    }

    /// Starts the workers that are missing, and releases those that are too many or have been replaced.
    fn balance(self: &Arc<Self>) -> Result<()> {
        loop {
            let mut state = self.state();
            if state.broken.is_some() || state.phase == Phase::Terminated || self.table.is_stopped() {
                return Ok(());
            }
            let now = Instant::now();
            let (mut staying, mut ready, mut vacant) = (0, 0, None);
            for index in (0..state.rows.len()).rev() {
                let is_surplus = staying == state.wanted;
                let row = &mut state.rows[index];
                if row.process.is_none() {
                    vacant = Some(index as u32);
                    continue;
                }
                row.leaving |=
                    is_surplus || self.table.wants_to_leave(index as u32) || row.old.is_some_and(|old| now >= old);
                if !row.leaving {
                    staying += 1;
                    ready += u32::from(self.table.worker(index as u32).is_some());
                }
            }
            let leaving = state.rows.iter().any(|row| row.leaving && !row.released);
            state.expecting = leaving && ready < state.wanted;
            if staying < state.wanted {
                let Some(row) = vacant else { return Ok(()) };
                drop(state);
                self.start_or_give_up(row, leaving)?;
                continue;
            }
            if leaving && ready == staying {
                for (index, row) in state.rows.iter_mut().enumerate().filter(|(_, row)| row.leaving) {
                    row.released = true;
                    self.table.release(index as u32);
                    failpoint!("pool.released");
                }
                // They end after the task they run.
                state.take_rests(&self.table, i32::MAX);
                self.dispatch(state);
                self.tasks.wake();
            }
            return Ok(());
        }
    }

    fn start_or_give_up(self: &Arc<Self>, row: u32, is_awaited: bool) -> Result<()> {
        let Err(error) = self.start_worker(row, is_awaited) else { return Ok(()) };
        // Fewer workers are better than none.
        let mut ended = Vec::new();
        let mut state = self.state();
        if state.alive == 0 {
            self.give_up(&mut state, &error.to_string(), &mut ended);
        }
        drop(state);
        complete(ended);
        Err(error)
    }

    /// Starts a worker in a row.
    fn start_worker(self: &Arc<Self>, row: u32, is_awaited: bool) -> Result<()> {
        self.table.clear(row);
        let orders = Orders {
            table: self.table.clone(),
            tasks: self.tasks.clone(),
            replies: self.replies.clone(),
            row,
            limit: self.plan.limit,
            max_rss: self.plan.max_rss,
            is_awaited,
            initializer: self.plan.initializer.clone(),
        };
        // Not an owner: the pool ends although its workers are being watched.
        let (shared, telling) = (Arc::downgrade(self), Arc::clone(&self.telling));
        let told = move |status: &ExitStatus| {
            let _telling = locked(&telling);
            let Some(shared) = shared.upgrade() else { return };
            {
                let mut deaths = locked(&shared.deaths);
                deaths.push((row, status.clone()));
                // Under the lock, so that it says whether there are some.
                shared.has_deaths.store(true, Ordering::SeqCst);
            }
            shared.poke();
        };
        // It may be dead before it is entered; its death waits, for only this thread looks at deaths.
        let process = Process::new(work)
            .args((orders,))
            .name(format!("PoolWorker-{}", row + 1))
            .daemon(true)
            .start_method(self.plan.method)
            .on_end(Box::new(told))
            .start()?;
        let mut state = self.state();
        if state.phase == Phase::Terminated || state.broken.is_some() {
            let _ = process.kill();
        }
        let old = self.plan.max_age.and_then(|age| Instant::now().checked_add(age));
        state.rows[row as usize] = Row { process: Some(process), old, ..Row::default() };
        state.alive += 1;
        Ok(())
    }

    // ---- times -------------------------------------------------------------------------------------------------------

    /// Does what is due; gives when to look again.
    fn look_at_times(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        let mut sooner = |time: Instant| next = Some(next.map_or(time, |next| next.min(time)));
        let mut state = self.state();
        let mut ended = Ended::new();
        for row in state.rows.iter().filter(|row| row.process.is_some() && !row.leaving) {
            row.old.map(&mut sooner);
        }
        if state.timed > 0 {
            let clock = monotonic();
            for row in 0..state.rows.len() as u32 {
                let Some((word, generation, deadline)) = self.table.timed(row) else { continue };
                if deadline > clock {
                    sooner(after(now, Duration::from_nanos(deadline - clock)));
                    continue;
                }
                let limit = match state.uses.get(word as usize) {
                    Some(Use::Task(found, job)) if *found == generation => job.options.limit,
                    _ => None,
                };
                // The clock was compared with the deadline of a task that the word still names.
                let Some(limit) = limit else { continue };
                if let Some(job) = self.withdraw(&mut state, word, generation) {
                    let task = job.id;
                    ended.push((job, TaskError::DeadlineExceeded { task, limit }));
                }
            }
            // What begins after this look ends later than its limit from now on.
            let limit = |used: &Use| if let Use::Task(_, Job { options, .. }) = used { options.limit } else { None };
            if let Some(shortest) = state.uses.iter().filter_map(limit).min() {
                sooner(after(now, shortest.max(Duration::from_millis(1))));
            }
        }
        let mut ladders = std::mem::take(&mut state.ladders);
        ladders.retain_mut(|ladder| {
            let is_held =
                matches!(&state.uses[ladder.word as usize], Use::Winding(found) if *found == ladder.generation);
            if is_held && now >= ladder.next {
                // Nothing but this task dies with its worker: once condemned, it begins no other.
                let Some(slot) = self.table.condemn(ladder.word, ladder.generation) else { return false };
                failpoint!("pool.condemned");
                self.signal(&state, slot, ladder.terminated);
                if ladder.terminated {
                    return false;
                }
                ladder.terminated = true;
                ladder.next = after(now, self.plan.grace);
            }
            if is_held {
                sooner(ladder.next);
            }
            is_held
        });
        state.ladders = ladders;
        drop(state);
        complete(ended);
        next
    }

    /// Sends SIGTERM, or SIGKILL, to the worker with this slot.
    fn signal(&self, state: &State, slot: u32, kill: bool) {
        for (index, row) in state.rows.iter().enumerate() {
            if let Some(process) = &row.process
                && self.table.worker(index as u32).is_some_and(|token| token.slot() == slot)
            {
                // One that is dead already is dead enough.
                let _ = if kill { process.kill() } else { process.terminate() };
            }
        }
    }

    fn is_over(&self, state: &mut State) -> bool {
        let over = state.broken.is_some() || state.phase == Phase::Terminated || self.table.is_stopped();
        state.finished = over && state.alive == 0;
        if state.finished {
            self.over.notify_all();
        }
        state.finished
    }
}
