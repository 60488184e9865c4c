//! Runs of a pool's tasks: outcomes that a worker publishes one by one and sends in parts, and a pool that looks at them meanwhile.
//!
//! ```text
//! share        {next, end}: the worker begins tasks at the front, the pool takes them back from the end
//! slab         name (the run's generation), published {first, count}, records[2]; one for each worker, used by run after run
//! replies      parts: {generation, first, records, is_last}, in order
//! ```
//!
//! # Steps
//!
//! ```text
//! send         word = {generation + 1, QUEUED};  share = {0, all}
//! worker       claim;  name = 0;  published = {0, 0};  name = generation
//!              next < end: next + 1, and run the task, else the end
//!              no room: put a part, published = {first + count, 0};  records[count] = outcome;  count + 1
//!              at the end: put the last part
//! pool, look   load name;  load published;  copy;  published has the same first, and name is the same: tell what is new
//! pool, take   end = next, or 1, if that is more;  the rest waits again
//! pool, bury   all replies are read: tell what the dead one published;  what it began beyond that has died;  the rest waits
//! ```
//!
//! # Crash behaviour
//!
//! | killed | what others see | who repairs | what is lost |
//! |---|---|---|---|
//! | worker, before it begins a task | a share whose next is 0 | the pool sends the run again | nothing |
//! | in a task, or before its outcome is published | next is one more than what is published | the pool | that task |
//! | after that | as many outcomes as were begun | the pool | nothing |
//!
//! # What is checked
//!
//! A task is begun once, and has one outcome, which is its own; a death costs one task at most, and none whose outcome was
//! published; at rest every task has its outcome.
//!
//! # Size
//!
//! Four tasks, two kills: 16 590 states.

use zerocopy::{Immutable, IntoBytes};

use crate::explorer::{Broken, Model, Successors};

const TASKS: usize = 4;
const ROOM: usize = 2;
const REPLIES: usize = 4;

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The pool believes what it copied without another look.
    NoSecondLook,
    /// The count goes up before the record is written.
    CountsFirst,
    /// The pool does not look at what the dead one published.
    IgnoresPublished,
    /// The pool deals with the death before it has read all replies.
    DeathBeforeReplies,
    /// The worker begins the next task before it publishes the last one's outcome.
    BeginsEarly,
    /// The pool takes back tasks that are begun and not told of.
    TakesBegun,
}

/// The model and its size.
#[derive(Clone, Copy, Debug)]
pub struct Runs {
    /// Kills of the worker in one history.
    pub kills: u8,
    /// The seeded bug.
    pub bug: Option<Bug>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum At {
    Idle,
    Unname,
    Clear,
    Name,
    Advance,
    Record,
    Count,
    Flushed,
    End,
    Dead,
}

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Worker {
    at: At,
    base: u8,
    generation: u8,
    /// The task it is in, plus 1; 0 for none.
    task: u8,
    /// Outcomes sent, and published since.
    first: u8,
    count: u8,
}

const IDLE: Worker = Worker { at: At::Idle, base: 0, generation: 0, task: 0, first: 0, count: 0 };

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Slab {
    name: u8,
    first: u8,
    count: u8,
    records: [u8; ROOM],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Part {
    /// 0: there is none.
    generation: u8,
    first: u8,
    count: u8,
    records: [u8; ROOM],
    is_last: u8,
}

const NONE: Part = Part { generation: 0, first: 0, count: 0, records: [0; ROOM], is_last: 0 };

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum LookAt {
    Nothing,
    Published,
    Copy,
    Again,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum Word {
    Free,
    Queued,
    Running,
}

/// The pool, its worker, and all words.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    word: Word,
    generation: u8,
    next: u8,
    end: u8,
    slab: Slab,
    worker: Worker,
    replies: [Part; REPLIES],
    /// The run under way: its first task, how many are told of; tasks from `waits` on are not sent.
    base: u8,
    told: u8,
    waits: u8,
    singly: u8,
    look: LookAt,
    seen: Slab,
    begun: [u8; TASKS],
    published: [u8; TASKS],
    outcomes: [u8; TASKS],
    kills: u8,
}

impl State {
    /// Outcomes of the run under way have come.
    fn hear(&mut self, first: u8, count: u8, records: [u8; ROOM]) -> Result<(), Broken> {
        for index in first..first + count {
            if index != self.told {
                // Told of already, or behind a gap.
                continue;
            }
            let task = self.base + index;
            if records[usize::from(index - first)] != task + 1 {
                return Err("an outcome is told that is another's, or none");
            }
            self.conclude(task)?;
            self.told += 1;
        }
        Ok(())
    }

    fn conclude(&mut self, task: u8) -> Result<(), Broken> {
        let outcomes = &mut self.outcomes[usize::from(task)];
        *outcomes += 1;
        if *outcomes > 1 { Err("a task has two outcomes") } else { Ok(()) }
    }

    fn put(&mut self, is_last: bool) -> Result<(), Broken> {
        let Worker { generation, first, count, .. } = self.worker;
        let place = self.replies.iter_mut().find(|reply| **reply == NONE).ok_or("the model is too small")?;
        *place = Part { generation, first, count, records: self.slab.records, is_last: u8::from(is_last) };
        Ok(())
    }
}

impl Runs {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn work(&self, state: &mut State) -> Result<bool, Broken> {
        let mut me = state.worker;
        match me.at {
            At::Idle if state.word == Word::Queued => {
                state.word = Word::Running;
                me = Worker { at: At::Unname, base: state.base, generation: state.generation, ..IDLE };
            }
            At::Idle | At::Dead => return Ok(false),
            At::Unname => (state.slab.name, me.at) = (0, At::Clear),
            At::Clear => {
                (state.slab.first, state.slab.count) = (0, 0);
                me.at = At::Name;
            }
            At::Name => (state.slab.name, me.at) = (me.generation, At::Advance),
            At::Advance if state.next < state.end => {
                let begun = &mut state.begun[usize::from(me.base + state.next)];
                *begun += 1;
                if *begun > 1 {
                    return Err("a task is begun twice");
                }
                state.next += 1;
                if self.has(Bug::BeginsEarly) && me.task == 0 && state.next < state.end {
                    state.begun[usize::from(me.base + state.next)] += 1;
                    state.next += 1;
                }
                me.task = me.base + me.first + me.count + 1;
                me.at = At::Record;
            }
            At::Advance => me.at = At::End,
            At::Record if usize::from(me.count) == ROOM => {
                state.put(false)?;
                me.at = At::Flushed;
            }
            At::Record => {
                if self.has(Bug::CountsFirst) {
                    state.slab.count = me.count + 1;
                } else {
                    state.slab.records[usize::from(me.count)] = me.task;
                }
                me.at = At::Count;
            }
            At::Count => {
                state.slab.records[usize::from(me.count)] = me.task;
                me.count += 1;
                state.slab.count = me.count;
                state.published[usize::from(me.task) - 1] = 1;
                let again = me.base + me.first + me.count < me.base + state.next;
                (me.task, me.at) = if again { (me.task + 1, At::Record) } else { (0, At::Advance) };
            }
            At::Flushed => {
                me = Worker { first: me.first + me.count, count: 0, at: At::Record, ..me };
                (state.slab.first, state.slab.count) = (me.first, 0);
            }
            At::End => {
                state.put(true)?;
                me = IDLE;
            }
        }
        state.worker = me;
        Ok(true)
    }

    /// One step of the pool; `choice` says of what, where it may choose.
    fn pool(&self, state: &mut State, choice: usize) -> Result<bool, Broken> {
        match (state.look, choice) {
            (LookAt::Nothing, 0) => self.send(state),
            (LookAt::Nothing, 1) => self.read(state),
            (LookAt::Nothing, 2) => self.take_rest(state),
            (LookAt::Nothing, 3) => self.bury(state),
            (LookAt::Nothing, 4) if state.word == Word::Running && state.slab.name == state.generation => {
                state.seen.name = state.slab.name;
                state.look = LookAt::Published;
                Ok(true)
            }
            (LookAt::Published, 0) => {
                (state.seen.first, state.seen.count) = (state.slab.first, state.slab.count);
                state.look = LookAt::Copy;
                Ok(true)
            }
            (LookAt::Copy, 0) => {
                state.seen.records = state.slab.records;
                state.look = LookAt::Again;
                Ok(true)
            }
            (LookAt::Again, 0) => {
                let Slab { name, first, count, records } = state.seen;
                let is_same = state.slab.first == first && state.slab.count >= count && state.slab.name == name;
                (state.look, state.seen) = (LookAt::Nothing, Slab { name: 0, first: 0, count: 0, records: [0; ROOM] });
                if is_same || self.has(Bug::NoSecondLook) {
                    state.hear(first, count, records)?;
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn send(&self, state: &mut State) -> Result<bool, Broken> {
        let left = TASKS as u8 - state.waits;
        if state.word != Word::Free || left == 0 {
            return Ok(false);
        }
        let count = if state.singly != 0 { 1 } else { left };
        state.word = Word::Queued;
        state.generation += 1;
        (state.next, state.end) = (0, count);
        (state.base, state.told) = (state.waits, 0);
        state.waits += count;
        Ok(true)
    }

    fn read(&self, state: &mut State) -> Result<bool, Broken> {
        let part = state.replies[0];
        if part == NONE {
            return Ok(false);
        }
        state.replies.rotate_left(1);
        state.replies[REPLIES - 1] = NONE;
        if part.generation != state.generation || state.word == Word::Free {
            return Ok(true);
        }
        state.hear(part.first, part.count, part.records)?;
        if part.is_last != 0 {
            if state.told != state.end {
                return Err("a run ends with fewer outcomes than tasks");
            }
            state.word = Word::Free;
        }
        Ok(true)
    }

    fn take_rest(&self, state: &mut State) -> Result<bool, Broken> {
        let begun = if self.has(Bug::TakesBegun) { state.told } else { state.next };
        let kept = begun.max(1);
        if state.word == Word::Free || kept >= state.end {
            return Ok(false);
        }
        state.waits -= state.end - kept;
        state.end = kept;
        Ok(true)
    }

    fn bury(&self, state: &mut State) -> Result<bool, Broken> {
        let are_read = state.replies[0] == NONE || self.has(Bug::DeathBeforeReplies);
        if state.worker.at != At::Dead || !are_read {
            return Ok(false);
        }
        state.worker = IDLE;
        let Slab { name, first, count, records } = state.slab;
        state.slab = Slab { name: 0, first: 0, count: 0, records: [0; ROOM] };
        if state.word != Word::Running {
            return Ok(true);
        }
        if name == state.generation && !self.has(Bug::IgnoresPublished) {
            state.hear(first, count, records)?;
        }
        // One alone is lost from its claim on.
        let begun = if state.end == 1 { 1 } else { state.next };
        if begun > state.told + 1 {
            return Err("a death costs more than a task");
        }
        for index in state.told..begun {
            let task = state.base + index;
            if state.published[usize::from(task)] != 0 {
                return Err("a task whose outcome was published is told as a death");
            }
            state.conclude(task)?;
        }
        state.waits -= state.end - begun;
        state.word = Word::Free;
        state.singly = 1;
        Ok(true)
    }

    fn kill(&self, state: &mut State) -> bool {
        let can = state.kills < self.kills && state.worker.at != At::Dead;
        if can {
            state.worker = Worker { at: At::Dead, ..IDLE };
            state.kills += 1;
        }
        can
    }
}

impl Model for Runs {
    type State = State;

    fn initial(&self) -> Vec<State> {
        let slab = Slab { name: 0, first: 0, count: 0, records: [0; ROOM] };
        vec![State {
            word: Word::Free,
            generation: 0,
            next: 0,
            end: 0,
            slab,
            worker: IDLE,
            replies: [NONE; REPLIES],
            base: 0,
            told: 0,
            waits: 0,
            singly: 0,
            look: LookAt::Nothing,
            seen: slab,
            begun: [0; TASKS],
            published: [0; TASKS],
            outcomes: [0; TASKS],
            kills: 0,
        }]
    }

    fn successors(&self, state: &State, next: &mut Successors<State>) {
        next.step(0, state, |state| self.work(state));
        for choice in 0..5 {
            next.step(1, state, |state| self.pool(state, choice));
        }
        next.event("is killed", 0, state, |state| Ok(self.kill(state)));
    }

    fn invariant(&self, _: &State) -> Result<(), Broken> {
        Ok(())
    }

    fn at_rest(&self, state: &State) -> Result<(), Broken> {
        if state.outcomes == [1; TASKS] { Ok(()) } else { Err("a task has no outcome") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explorer::{Explorer, holds, is_caught};

    const PLAIN: Runs = Runs { kills: 2, bug: None };

    fn catches(bug: Bug, expected: Broken) {
        is_caught(Explorer::default(), &Runs { bug: Some(bug), ..PLAIN }, expected);
    }

    #[test]
    fn the_algorithm_has_no_violation() {
        let report = holds(Explorer::default(), &PLAIN);
        assert_eq!(report.states, 16_590);
    }

    #[test]
    fn a_copy_that_is_believed_at_once_is_caught() {
        catches(Bug::NoSecondLook, "an outcome is told that is another's, or none");
    }

    #[test]
    fn a_count_before_its_record_is_caught() {
        catches(Bug::CountsFirst, "an outcome is told that is another's, or none");
    }

    #[test]
    fn published_outcomes_that_nobody_looks_at_are_caught() {
        catches(Bug::IgnoresPublished, "a task whose outcome was published is told as a death");
    }

    #[test]
    fn a_death_before_the_replies_is_caught() {
        catches(Bug::DeathBeforeReplies, "a death costs more than a task");
    }

    #[test]
    fn a_task_that_is_begun_early_is_caught() {
        catches(Bug::BeginsEarly, "a death costs more than a task");
    }

    #[test]
    fn a_task_that_is_taken_back_though_begun_is_caught() {
        catches(Bug::TakesBegun, "a run ends with fewer outcomes than tasks");
    }
}
