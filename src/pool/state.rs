//! What the pool keeps of its tasks, under one lock: which words are in use for which, and what waits for one.

use super::manager::Row;
use super::sharing::FIRST_LOOK;
use super::table::Table;
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
    /// How many elements the chunk has.
    pub elements: usize,
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
    pub(super) fn limit(&self) -> u64 {
        self.options.limit.map_or(0, |limit| {
            let all = limit.as_nanos().saturating_mul(self.elements as u128);
            u64::try_from(all).unwrap_or(u64::MAX).max(1)
        })
    }
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
        while batch.len() < BATCH
            && self.under_way() < self.window
            && let Some(waiting) = self.backlog.front_mut()
            && let Some(word) = self.free.pop()
        {
            let generation = table.queue(word);
            let (call, work, options, entry) =
                (waiting.call, Arc::clone(&waiting.work), waiting.options, waiting.entry);
            let (chunk, id) = (waiting.next, waiting.first_id.wrapping_add(u64::from(waiting.next)));
            waiting.next += 1;
            if waiting.next == waiting.end {
                self.backlog.pop_front();
            }
            let elements = work.elements(chunk);
            if elements > 1 {
                table.share_all(word, generation, elements as u32);
            }
            self.timed += usize::from(options.limit.is_some());
            self.several += usize::from(elements > 1);
            self.uses[word as usize] = Use::Task(generation, Job { call, work, chunk, elements, id, options, entry });
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

    /// Has a batch wait, after all that is as urgent.
    pub(super) fn queue(&mut self, waiting: Waiting) {
        let place = self.backlog.partition_point(|other| other.options.priority >= waiting.options.priority);
        self.backlog.insert(place, waiting);
    }

    /// Sends a task again, before all that is as urgent.
    pub(super) fn again(&mut self, job: Job) {
        let Job { call, work, chunk, id, options, entry, .. } = job;
        let (next, end, first_id) = (chunk, chunk + 1, id.wrapping_sub(u64::from(chunk)));
        let place = self.backlog.partition_point(|other| other.options.priority > options.priority);
        self.backlog.insert(place, Waiting { call, work, next, end, first_id, options, entry });
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
