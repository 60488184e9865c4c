//! What the pool keeps of its tasks, under one lock: which words are in use for which, and what waits for one.

use super::manager::Row;
use super::sharing::FIRST_LOOK;
use super::table::Table;
use super::task::Records;
use super::work::Work;
use crate::error::{Result, TaskError};
use crate::sys::memory;
use crate::sys::module::Place;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tasks that can be under way at once.
pub(super) const WINDOW: u32 = 1024;
/// Messages that are sent, or read, in one go.
pub(super) const BATCH: usize = 32;
/// How long one waits for room in the queue before others have a turn; and after how long one tries again.
pub(super) const FULL: Duration = Duration::from_millis(5);

/// `duration` after `start`; a day that nobody lives to see, if there is no such time.
pub(super) fn after(start: Instant, duration: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
    start.checked_add(duration).unwrap_or_else(|| start + CENTURY)
}

/// What may be asked for a task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    /// How often it may be sent again after a worker died running it.
    pub retries: u32,
    /// How long each element may take.
    pub limit: Option<Duration>,
    /// What has more of it comes first.
    pub priority: i32,
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
    /// How many elements the chunk has; how many tasks the run.
    pub elements: usize,
    /// It is several tasks, or may have been: chunks of one element each, from `chunk` on.
    pub is_run: bool,
    /// Tasks of the run that are told of.
    pub told: u32,
    pub id: u64,
    pub options: Options,
    pub entry: Place,
}

impl Job {
    /// Tells what became of it. A panic of the user's own code ends here.
    pub(super) fn complete(self, reply: Result<&[u8], TaskError>) {
        match reply {
            Err(error) if self.is_run => {
                let news = News { from: self.told, count: self.left(), skip: 0 };
                self.tell(news, Err(error));
            }
            reply => {
                let _ = catch_unwind(AssertUnwindSafe(|| self.work.complete(self.chunk, reply, self.id)));
            }
        }
    }

    /// Tells what became of some tasks of the run.
    pub(super) fn tell(&self, news: News, records: Result<Records<'_>, TaskError>) {
        Told { work: Arc::clone(&self.work), chunk: self.chunk, id: self.id }.tell(news, records);
    }

    /// The task, or the run of which nothing is told, to be sent again.
    pub(super) fn whole(&self, in_runs: bool) -> Waiting {
        let chunks = if self.is_run { self.elements as u32 } else { 1 };
        self.part(0, chunks, in_runs && self.is_run)
    }

    /// Tasks of the run that are not told of.
    pub(super) fn left(&self) -> u32 {
        (self.elements as u32).saturating_sub(self.told)
    }

    /// Notes that the outcomes of `count` tasks of the run are known, from `first` on; gives which of them nobody was told of.
    pub(super) fn hear(&mut self, first: u32, count: u32) -> News {
        let from = self.told;
        // What begins behind a gap cannot be: outcomes come in order.
        let end = if first > from { from } else { first.saturating_add(count).min(self.elements as u32).max(from) };
        self.told = end;
        News { from, count: end - from, skip: from.saturating_sub(first) }
    }

    /// Takes back what is not begun of a run.
    pub(super) fn give_up_rest(&mut self, table: &Table, word: u32, generation: u32) -> Option<Waiting> {
        let had = self.elements as u32;
        // What is told of is begun; a word that says otherwise is not believed.
        let kept = table.take_rest(word, generation).filter(|kept| (self.told.max(1)..had).contains(kept))?;
        self.elements = kept as usize;
        Some(self.part(kept, had, true))
    }

    /// Tasks of the run, to be sent again: those between these two.
    pub(super) fn part(&self, from: u32, end: u32, in_runs: bool) -> Waiting {
        let first_id = self.id.wrapping_sub(u64::from(self.chunk));
        let (next, end) = (self.chunk + from, self.chunk + end);
        let (call, work, options, entry) = (self.call, Arc::clone(&self.work), self.options, self.entry);
        Waiting { call, work, next, end, first_id, options, entry, in_runs }
    }

    /// How long it may run; 0 for as long as it wants.
    pub(super) fn limit(&self) -> u64 {
        self.options.limit.map_or(0, |limit| {
            let all = limit.as_nanos().saturating_mul(self.elements as u128);
            u64::try_from(all).unwrap_or(u64::MAX).max(1)
        })
    }
}

/// A run of which something is told.
pub(super) struct Told {
    work: Arc<dyn Work>,
    chunk: u32,
    id: u64,
}

impl Told {
    /// Tells what became of some of its tasks. A panic of the user's own code ends here.
    pub(super) fn tell(&self, news: News, records: Result<Records<'_>, TaskError>) {
        if news.count > 0 {
            let records = records.map(|records| records.skip(news.skip));
            let (chunk, id) = (self.chunk + news.from, self.id + u64::from(news.from));
            let tell = || self.work.complete_run(chunk, news.count as usize, records, id);
            let _ = catch_unwind(AssertUnwindSafe(tell));
        }
    }
}

/// Tasks of a run whose outcomes have come: those that are new, and how many others come before them.
#[derive(Debug, Clone, Copy)]
pub(super) struct News {
    pub from: u32,
    pub count: u32,
    pub skip: u32,
}

/// What waits for words: the chunks of a batch from `next` on.
pub(super) struct Waiting {
    pub call: u64,
    pub work: Arc<dyn Work>,
    pub next: u32,
    pub end: u32,
    /// The id of chunk 0.
    pub first_id: u64,
    pub options: Options,
    pub entry: Place,
    /// Several may travel together.
    pub in_runs: bool,
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
    /// What is urgent first, and in order among its like.
    pub backlog: VecDeque<Waiting>,
    /// Words that may be in use at once.
    pub window: usize,
    /// Somebody sends: he looks at the backlog again before he stops.
    pub sending: bool,
    /// Somebody reads replies.
    pub reading: bool,
    pub rows: Vec<Row>,
    /// How many workers there are to be.
    pub wanted: u32,
    pub alive: usize,
    /// The last worker has ended, and no other will come.
    pub finished: bool,
    pub failed_starts: u32,
    /// Deaths for want of memory that have been told.
    pub oom_kills: u64,
    /// Tasks with a time limit that are under way.
    pub timed: usize,
    /// Chunks of several elements that are under way.
    pub several: usize,
    /// When idle workers were last looked for.
    pub shared_out: Option<Instant>,
    /// How long after that they are looked for again.
    pub next_look: Duration,
    pub ladders: Vec<Ladder>,
    /// Workers that leave wait for others to be ready.
    pub expecting: bool,
    pub next_task: u64,
    pub next_call: u64,
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
            window: WINDOW as usize,
            sending: false,
            reading: false,
            rows: (0..rows).map(|_| Row::default()).collect(),
            wanted,
            alive: 0,
            finished: false,
            failed_starts: 0,
            oom_kills: memory::oom_kills().unwrap_or(0),
            timed: 0,
            several: 0,
            shared_out: None,
            next_look: FIRST_LOOK,
            ladders: Vec::new(),
            expecting: false,
            next_task: 0,
            next_call: 0,
        }
    }

    /// Number of words in use.
    pub(super) fn under_way(&self) -> usize {
        WINDOW as usize - self.free.len()
    }

    /// Whether replies are to come, or tasks to be sent.
    pub(super) fn is_busy(&self) -> bool {
        self.under_way() > 0 || !self.backlog.is_empty()
    }

    /// The next tasks to be sent, with their words and generations; each is under way from now on.
    pub(super) fn next_batch(&mut self, table: &Table, batch: &mut Vec<(u32, u32)>) {
        // Once some tasks are more urgent than others, each is sent alone: what is begun is not interrupted.
        let (workers, singly) = (self.wanted, self.window < WINDOW as usize);
        while batch.len() < BATCH
            && self.under_way() < self.window
            && let under_way = self.under_way()
            && let Some(waiting) = self.backlog.front_mut()
        {
            let is_run = waiting.in_runs && !singly;
            let run = if is_run { waiting.next_run(workers, under_way) } else { Some(1) };
            let Some(chunks) = run else { break };
            let Some(word) = self.free.pop() else { break };
            let generation = table.queue(word);
            let (call, work, options, entry) =
                (waiting.call, Arc::clone(&waiting.work), waiting.options, waiting.entry);
            let (chunk, id) = (waiting.next, waiting.first_id.wrapping_add(u64::from(waiting.next)));
            waiting.next += chunks;
            if waiting.next == waiting.end {
                self.backlog.pop_front();
            }
            let elements = if is_run { chunks as usize } else { work.elements(chunk) };
            if is_run || elements > 1 {
                table.share_all(word, generation, elements as u32);
            }
            self.timed += usize::from(options.limit.is_some());
            self.several += usize::from(elements > 1);
            let job = Job { call, work, chunk, elements, is_run, told: 0, id, options, entry };
            self.uses[word as usize] = Use::Task(generation, job);
            batch.push((word, generation));
        }
    }

    /// Takes the task of a word whose generation is the right one; the word stays in use until it is freed.
    pub(super) fn take(&mut self, word: u32, generation: u32) -> Option<Job> {
        let place = self.uses.get_mut(word as usize)?;
        match std::mem::replace(place, Use::Winding(generation)) {
            Use::Task(found, job) if found == generation => {
                self.timed -= usize::from(job.options.limit.is_some());
                self.several -= usize::from(job.elements > 1);
                Some(job)
            }
            other => {
                *place = other;
                None
            }
        }
    }

    /// Notes that outcomes of a run's tasks have come: see [`Job::hear`]. `None` if it is told of already.
    pub(super) fn hear(&mut self, word: u32, generation: u32, first: u32, count: u32) -> Option<(Told, News)> {
        match self.uses.get_mut(word as usize) {
            Some(Use::Task(found, job)) if *found == generation && job.is_run => {
                let news = job.hear(first, count);
                Some((Told { work: Arc::clone(&job.work), chunk: job.chunk, id: job.id }, news))
            }
            _ => None,
        }
    }

    /// Has a batch wait, after all that is as urgent.
    pub(super) fn queue(&mut self, waiting: Waiting) {
        let place = self.backlog.partition_point(|other| other.options.priority >= waiting.options.priority);
        self.backlog.insert(place, waiting);
    }

    /// Sends a task, or what is left of a run, again, before all that is as urgent.
    pub(super) fn again(&mut self, waiting: Waiting) {
        if waiting.next < waiting.end {
            let place = self.backlog.partition_point(|other| other.options.priority > waiting.options.priority);
            self.backlog.insert(place, waiting);
        }
    }

    /// Takes back what the workers have not begun of their runs, as far as it is less urgent than `priority`; in order.
    pub(super) fn take_rests(&mut self, table: &Table, priority: i32) {
        let mut rests = Vec::new();
        for (word, used) in (0..).zip(&mut self.uses) {
            if let Use::Task(generation, job) = used
                && job.is_run
                && job.options.priority < priority
                && let Some(rest) = job.give_up_rest(table, word, *generation)
            {
                self.several -= usize::from(job.elements == 1);
                rests.push(rest);
            }
        }
        rests.sort_unstable_by_key(|rest| std::cmp::Reverse((rest.first_id, rest.next)));
        rests.into_iter().for_each(|rest| self.again(rest));
    }

    /// Whether a worker that was killed just now was killed for want of memory: one of the deaths that nobody was told of yet.
    pub(super) fn ran_out_of_memory(&mut self, signal: Option<i32>) -> bool {
        let has = signal == Some(libc::SIGKILL) && memory::oom_kills().is_some_and(|kills| kills > self.oom_kills);
        self.oom_kills += u64::from(has);
        has
    }

    /// Takes every task of a call, or of all, that waits.
    pub(super) fn unqueue(&mut self, call: Option<u64>) -> Vec<Job> {
        let mut jobs = Vec::new();
        self.backlog.retain_mut(|waiting| {
            let wanted = call.is_none_or(|call| waiting.call == call);
            if wanted {
                let Waiting { call, options, entry, first_id, .. } = *waiting;
                jobs.extend((waiting.next..waiting.end).map(|chunk| Job {
                    call,
                    work: Arc::clone(&waiting.work),
                    chunk,
                    elements: waiting.work.elements(chunk),
                    is_run: false,
                    told: 0,
                    id: first_id.wrapping_add(u64::from(chunk)),
                    options,
                    entry,
                }));
            }
            !wanted
        });
        jobs
    }
}
