//! Chunks are shared with workers that have nothing to do: one slow chunk does not delay the rest.
//!
//! ```text
//! chunk of 8, a worker at its third:  next=3, end=8   two others idle
//!      half of what is not begun  →   next=3, end=5   and a new chunk of 3; if that is long, it is split in its turn
//! ```
//! The pool takes from the end, the worker from the front, and one word says where both are. Who reads replies looks, when none
//! has come for a moment: the elements of a chunk must take longer than that for it to be worth while.
//!
//! Of a run ([`super::run`]) all that is not begun is taken back, and cut anew; and of what its worker has published, but not sent,
//! is told: a task that takes long delays no other, and hides no outcome.

use super::run::Unsent;
use super::shared::Shared;
use super::state::{News, Phase, State, Told, Use, WINDOW, Waiting};
use super::task::Records;
use std::time::{Duration, Instant};

/// When who reads replies looks for idle workers after the last reply; and again after twice the time if that was in vain,
pub(super) const FIRST_LOOK: Duration = Duration::from_millis(2);
/// up to this time.
const LAST_LOOK: Duration = Duration::from_millis(32);

impl Shared {
    /// How long who reads may wait at most before he has to look.
    pub(super) fn until_look(&self, timeout: Option<Duration>) -> Option<Duration> {
        let state = self.state();
        let look = (state.several > 0).then_some(state.next_look);
        timeout.map_or(look, |timeout| Some(look.unwrap_or(timeout).min(timeout)))
    }

    /// Tells what workers have published of their runs, and splits chunks and runs as long as there are idle workers.
    pub(super) fn share_out(&self) {
        let mut state = self.state();
        let now = Instant::now();
        let is_late = state.shared_out.is_none_or(|last| now.duration_since(last) >= state.next_look);
        if state.several == 0 || !is_late || state.phase == Phase::Terminated {
            return;
        }
        state.shared_out = Some(now);
        state.next_look = (state.next_look * 2).min(LAST_LOOK);
        let unsent: Vec<_> = (0..state.rows.len() as u32).filter_map(|row| self.unsent(&mut state, row)).collect();
        if !unsent.is_empty() {
            state.next_look = FIRST_LOOK;
        }
        if state.backlog.is_empty() {
            let workers = state.rows.iter().filter(|row| row.is_at_work()).count();
            for _ in state.under_way()..workers {
                if self.split_largest(&mut state).is_none() {
                    break;
                }
                state.next_look = FIRST_LOOK;
            }
        }
        self.dispatch(state);
        unsent.into_iter().for_each(Early::tell);
    }

    /// What a worker has published of its run and nobody was told of.
    pub(super) fn unsent(&self, state: &mut State, row: u32) -> Option<Early> {
        state.rows[row as usize].process.as_ref()?;
        let Unsent { word, generation, first, count, records } = self.table.unsent(row)?;
        let (told, news) = state.hear(word, generation, first, count)?;
        (news.count > 0).then_some(Early { told, news, records })
    }

    /// Splits the chunk of which most is not begun.
    fn split_largest(&self, state: &mut State) -> Option<()> {
        let left = |word: u32| match &state.uses[word as usize] {
            Use::Task(generation, job) if job.elements > 1 => Some((self.table.left(word, *generation), word)),
            _ => None,
        };
        let (_, word) = (0..WINDOW).filter_map(left).max().filter(|(left, _)| *left > 0)?;
        let Use::Task(generation, job) = &mut state.uses[word as usize] else { return None };
        if job.is_run {
            let rest = job.give_up_rest(&self.table, word, *generation)?;
            state.several -= usize::from(job.elements == 1);
            state.again(rest);
            return Some(());
        }
        let kept = self.table.split(word, *generation)?;
        failpoint!("pool.split");
        // A word that says anything else is not the pool's fault: the reply will not fit, and says so.
        let chunk = job.work.split(job.chunk, kept as usize)?;
        let (call, work, options, entry) = (job.call, job.work.clone(), job.options, job.entry);
        if kept == 1 {
            state.several -= 1;
        }
        job.elements = kept as usize;
        let id = state.next_task;
        state.next_task += 1;
        let first_id = id.wrapping_sub(u64::from(chunk));
        state.queue(Waiting { call, work, next: chunk, end: chunk + 1, first_id, options, entry, in_runs: false });
        Some(())
    }
}

/// Outcomes of a run that were published and not sent.
pub(super) struct Early {
    told: Told,
    news: News,
    records: Vec<u8>,
}

impl Early {
    /// Tells of them; no lock is held.
    pub(super) fn tell(self) {
        self.told.tell(self.news, Ok(Records { bytes: &self.records, is_alone: false }));
    }
}
