//! The pool: task words that worker, pool and recovery change, messages that may come twice, and the order of replies and deaths.
//!
//! ```text
//! word[t]      {generation, state, owner}; the owner is a slot, which the next worker in its row has, too
//! messages     what the queue of tasks holds: {task, generation}; TAKEN by a worker until it gives the block back
//! replies      what the queue of replies holds: {task, generation}
//! deaths       reported by the thread that reaps, some time after the death
//! ```
//!
//! # Steps
//!
//! ```text
//! submit     word = {generation + 1, QUEUED};  put the message
//! worker     take a message;  CAS QUEUED to RUNNING by me, or CANCELLED by nobody to ENDED by me, else pass it over;
//!            give the message back;  run;  CAS to ENDED by me, unless CONDEMNED;  put the reply;  condemned: end
//! manager    known = deaths reported so far;  read replies: complete the task, word = FREE;
//!            no reply, and known deaths: for each, await its recovery;  its LOST words: fail the task or submit it again,
//!            word = FREE;  start a worker in its place
//! cancel     CAS QUEUED to CANCELLED by nobody, or RUNNING to CANCELLED by its worker: the task is told of
//! condemn    CAS CANCELLED by w to CONDEMNED by w;  only then w is sent SIGKILL
//! ```
//!
//! # Crash behaviour
//!
//! ```text
//! recovery of w    words RUNNING, CANCELLED, CONDEMNED or ENDED by w: CAS to LOST;  messages TAKEN by w come again;  w is
//!                  recovered
//! ```
//!
//! Anybody may recover at any moment after the death, and be killed after each step. A worker's death is reported at any
//! moment after it, too.
//!
//! | killed | what others see | who repairs | what is lost |
//! |---|---|---|---|
//! | with a message, before the claim | the message comes again | recovery | nothing |
//! | from the claim to the end of the task | its word, and perhaps the message again | recovery: LOST | the run |
//! | ended, before the reply is put | the same | the same | the same |
//! | after the reply is put | the reply, read before the death is looked at | nobody needs to | nothing |
//!
//! # What is checked
//!
//! A task of one generation is begun once; each task has one outcome; a result that was sent is not told as a death; a signal
//! hits no worker that has begun another task; at rest every task has its outcome, and no word, message or reply is left.
//!
//! # Size
//!
//! Two tasks, two workers, a retry, one kill: 10 284 states; two kills: 90 414. A kill and a cancel: 81 430.

use zerocopy::{Immutable, IntoBytes};

use crate::explorer::{Broken, Model, Successors};
use crate::life::Life;

const TASKS: usize = 2;
const WORKERS: usize = 2;
const MESSAGES: usize = 4;
const NOBODY: u8 = u8::MAX;
/// Numbers of the actors behind the workers.
const MANAGER: usize = WORKERS;
const RECOVERER: usize = WORKERS + 1;
const REAPER: usize = WORKERS + 2;

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The manager looks at the deaths after it has read the replies.
    DeathsAfterReplies,
    /// It deals with deaths that were reported after it had begun to read.
    DealsWithNews,
    /// It does not await the recovery of the dead.
    AwaitsNoRecovery,
    /// A worker stores its claim instead of comparing and swapping.
    ClaimIsStored,
    /// Recovery leaves ENDED words.
    RecoveryLeavesEnded,
    /// A worker that runs a cancelled task is sent the signal without being condemned.
    SignalsUncondemned,
    /// A worker looks whether its task is condemned before it ends it, not in one step.
    EndIsStored,
    /// A word is queued again in the generation it had.
    KeepsGeneration,
}

/// The model and its size.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    /// Kills in one history, of workers and recoverers.
    pub kills: u8,
    /// How often a task whose worker died is sent again, in one history.
    pub retries: u8,
    /// Tasks that are cancelled in one history.
    pub cancels: u8,
    /// The seeded bug.
    pub bug: Option<Bug>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum Task {
    Free,
    Queued,
    Running,
    Cancelled,
    Condemned,
    Ended,
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Word {
    state: Task,
    owner: u8,
    generation: u8,
}

/// A message of either queue. Generation 0: there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Message {
    task: u8,
    generation: u8,
    /// The worker that has taken it, from 1 on; 0 while it lies in the queue.
    taken_by: u8,
}

const NONE: Message = Message { task: 0, generation: 0, taken_by: 0 };

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum At {
    Idle,
    Claim,
    GiveBack,
    Run,
    End,
    /// Of [`Bug::EndIsStored`].
    EndAfterLook,
    Reply,
}

/// What a worker does with the message it gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum Claim {
    Nothing,
    Run,
    PassOver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Worker {
    life: Life,
    at: At,
    task: u8,
    generation: u8,
    claim: Claim,
    condemned: u8,
    /// 1: its death is reported to the manager; 2: and dealt with before its recovery, a bug.
    reported: u8,
}

impl Worker {
    const NEW: Self = Self {
        life: Life::Alive,
        at: At::Idle,
        task: 0,
        generation: 0,
        claim: Claim::Nothing,
        condemned: 0,
        reported: 0,
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum Use {
    /// To be sent, or told of and freed.
    Free,
    /// The word is queued, the message is not put yet.
    Queued,
    Task,
    Winding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum Outcome {
    Pending,
    Done,
    Died,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum ManagerAt {
    Look,
    Read,
    /// Of [`Bug::DeathsAfterReplies`].
    LookLate,
    Bury,
    /// A worker was condemned: now the signal.
    Signal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Manager {
    at: ManagerAt,
    /// Workers whose death it knows of, a bit for each.
    known: u8,
    /// Whom to signal, and on account of which task and generation.
    victim: u8,
    task: u8,
    generation: u8,
}

/// All words and processes.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    words: [Word; TASKS],
    messages: [Message; MESSAGES],
    replies: [Message; MESSAGES],
    workers: [Worker; WORKERS],
    manager: Manager,
    uses: [Use; TASKS],
    outcomes: [Outcome; TASKS],
    /// Generations that were begun, a bit for each.
    begun: [u8; TASKS],
    /// Whom the recoverer recovers, from 1 on, and its next step.
    recovers: u8,
    recovery_at: u8,
    kills: u8,
    retries: u8,
    cancels: u8,
}

impl Message {
    fn put(list: &mut [Message; MESSAGES], task: u8, generation: u8) -> Result<(), Broken> {
        let place =
            list.iter_mut().find(|message| **message == NONE).ok_or("a queue is full: the model is too small")?;
        *place = Message { task, generation, taken_by: 0 };
        // Their order is left out.
        list.sort_unstable_by_key(|message| (message.task, message.generation, message.taken_by));
        Ok(())
    }
}

impl Pool {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// A step of a worker; `choice` is the message it takes.
    fn work(&self, state: &mut State, who: usize, choice: usize) -> Result<bool, Broken> {
        let id = who as u8 + 1;
        let mut me = state.workers[who];
        if me.life != Life::Alive || me.at != At::Idle && choice > 0 {
            return Ok(false);
        }
        let word = &mut state.words[me.task as usize];
        match me.at {
            At::Idle => {
                let message = &mut state.messages[choice];
                if message.generation == 0 || message.taken_by != 0 {
                    return Ok(false);
                }
                message.taken_by = id;
                (me.task, me.generation, me.at) = (message.task, message.generation, At::Claim);
            }
            At::Claim => {
                let is_mine = word.generation == me.generation;
                me.claim = match word.state {
                    Task::Queued if is_mine => Claim::Run,
                    _ if self.has(Bug::ClaimIsStored) && is_mine => Claim::Run,
                    Task::Cancelled if is_mine && word.owner == NOBODY => Claim::PassOver,
                    _ => Claim::Nothing,
                };
                let next = if me.claim == Claim::Run { Task::Running } else { Task::Ended };
                if me.claim != Claim::Nothing {
                    *word = Word { state: next, owner: id, generation: me.generation };
                }
                let begun = &mut state.begun[me.task as usize];
                if me.claim == Claim::Run && *begun & (1 << me.generation) != 0 {
                    return Err("a task is begun twice");
                }
                *begun |= u8::from(me.claim == Claim::Run) << me.generation;
                me.at = At::GiveBack;
            }
            At::GiveBack => {
                state.messages.iter_mut().filter(|message| message.taken_by == id).for_each(|message| *message = NONE);
                state.messages.sort_unstable_by_key(|message| (message.task, message.generation, message.taken_by));
                me.at = match me.claim {
                    Claim::Nothing => At::Idle,
                    Claim::Run => At::Run,
                    Claim::PassOver => At::End,
                };
                me.claim = Claim::Nothing;
            }
            At::Run => me.at = At::End,
            At::End if self.has(Bug::EndIsStored) => {
                me.condemned = u8::from(word.state == Task::Condemned);
                me.at = if me.condemned != 0 { At::Reply } else { At::EndAfterLook };
            }
            At::End => {
                if word.generation == me.generation {
                    if word.state == Task::Condemned {
                        me.condemned = 1;
                    } else {
                        word.state = Task::Ended;
                    }
                }
                me.at = At::Reply;
            }
            At::EndAfterLook => {
                word.state = Task::Ended;
                me.at = At::Reply;
            }
            At::Reply => {
                Message::put(&mut state.replies, me.task, me.generation)?;
                if me.condemned != 0 {
                    me = Worker { life: Life::Killed, ..Worker::NEW };
                } else {
                    me = Worker::NEW;
                }
            }
        }
        if me.at == At::Idle && me.life == Life::Alive {
            me = Worker::NEW;
        }
        state.workers[who] = me;
        Ok(true)
    }

    /// Submits what waits, before anything else.
    fn submit(&self, state: &mut State) -> Result<bool, Broken> {
        for task in 0..TASKS {
            match state.uses[task] {
                Use::Free if state.outcomes[task] == Outcome::Pending => {
                    let generation = state.words[task].generation + u8::from(!self.has(Bug::KeepsGeneration));
                    let generation = generation.max(1);
                    state.words[task] = Word { state: Task::Queued, owner: 0, generation };
                    state.uses[task] = Use::Queued;
                }
                Use::Queued => {
                    Message::put(&mut state.messages, task as u8, state.words[task].generation)?;
                    state.uses[task] = Use::Task;
                }
                _ => continue,
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn manage(&self, state: &mut State) -> Result<bool, Broken> {
        if self.submit(state)? {
            return Ok(true);
        }
        let deaths = (0..WORKERS).filter(|&who| state.workers[who].reported == 1).fold(0, |all, who| all | 1 << who);
        match state.manager.at {
            ManagerAt::Look => {
                state.manager.known = deaths;
                state.manager.at = ManagerAt::Read;
            }
            ManagerAt::Read => match state.replies.iter_mut().find(|reply| reply.generation != 0) {
                Some(reply) => {
                    let Message { task, generation, .. } = std::mem::replace(reply, NONE);
                    state.replies.sort_unstable_by_key(|reply| (reply.task, reply.generation));
                    self.complete(state, task as usize, generation)?;
                    (state.manager.at, state.manager.known) = (ManagerAt::Look, 0);
                }
                None if self.has(Bug::DeathsAfterReplies) => state.manager.at = ManagerAt::LookLate,
                None if state.manager.known != 0 => state.manager.at = ManagerAt::Bury,
                None if deaths != 0 => state.manager.at = ManagerAt::Look,
                // It sleeps.
                None => return Ok(false),
            },
            ManagerAt::LookLate => {
                state.manager.known = deaths;
                state.manager.at = if deaths != 0 { ManagerAt::Bury } else { ManagerAt::Look };
            }
            ManagerAt::Bury => {
                if self.has(Bug::DealsWithNews) {
                    state.manager.known |= deaths;
                }
                return self.bury(state);
            }
            ManagerAt::Signal => {
                let victim = &mut state.workers[state.manager.victim as usize - 1];
                let is_its = victim.task == state.manager.task && victim.generation == state.manager.generation;
                if victim.life == Life::Alive {
                    if victim.at != At::Idle && !is_its {
                        return Err("a signal hits a worker that has begun another task");
                    }
                    *victim = Worker { life: Life::Killed, ..Worker::NEW };
                }
                state.manager = Manager { at: ManagerAt::Look, known: 0, victim: 0, task: 0, generation: 0 };
            }
        }
        Ok(true)
    }

    /// A reply was read.
    fn complete(&self, state: &mut State, task: usize, generation: u8) -> Result<(), Broken> {
        if state.words[task].generation != generation || !matches!(state.uses[task], Use::Task | Use::Winding) {
            return Ok(());
        }
        if state.uses[task] == Use::Task {
            if state.outcomes[task] != Outcome::Pending {
                return Err("a task has two outcomes");
            }
            state.outcomes[task] = Outcome::Done;
        }
        self.free(state, task);
        Ok(())
    }

    fn free(&self, state: &mut State, task: usize) {
        state.words[task] = Word { state: Task::Free, owner: 0, ..state.words[task] };
        state.uses[task] = Use::Free;
    }

    /// One step of dealing with the deaths it knows of.
    fn bury(&self, state: &mut State) -> Result<bool, Broken> {
        let who = state.manager.known.trailing_zeros() as usize;
        if state.workers[who].life != Life::Recovered && !self.has(Bug::AwaitsNoRecovery) {
            return Ok(false);
        }
        let id = who as u8 + 1;
        let lost = |word: &Word| word.state == Task::Lost && word.owner == id;
        if let Some(task) = state.words.iter().position(lost) {
            if state.uses[task] == Use::Task {
                let generation = state.words[task].generation;
                let sent = |reply: &Message| reply.task as usize == task && reply.generation == generation;
                if state.replies.iter().any(|reply| reply.generation != 0 && sent(reply)) {
                    return Err("a result that was sent is told as a death");
                }
                if state.retries < self.retries {
                    state.retries += 1;
                } else {
                    state.outcomes[task] = Outcome::Died;
                }
            }
            self.free(state, task);
            return Ok(true);
        }
        // The next worker in its row, in the same slot.
        state.workers[who] = if state.workers[who].life == Life::Recovered {
            Worker::NEW
        } else {
            Worker { reported: 2, ..state.workers[who] }
        };
        state.manager.known &= !(1 << who);
        if state.manager.known == 0 {
            state.manager.at = ManagerAt::Look;
        }
        Ok(true)
    }

    fn cancel(&self, state: &mut State, task: usize) -> bool {
        if state.cancels >= self.cancels || state.uses[task] != Use::Task {
            return false;
        }
        let word = &mut state.words[task];
        match word.state {
            Task::Queued => word.owner = NOBODY,
            Task::Running => {}
            _ => return false,
        }
        word.state = Task::Cancelled;
        state.cancels += 1;
        state.uses[task] = Use::Winding;
        state.outcomes[task] = Outcome::Cancelled;
        true
    }

    /// The patience with a cancelled task is over. The manager does it between two other steps.
    fn condemn(&self, state: &mut State, task: usize) -> bool {
        let word = &mut state.words[task];
        let can = matches!(state.manager.at, ManagerAt::Look | ManagerAt::Read)
            && state.uses[task] == Use::Winding
            && word.state == Task::Cancelled
            && word.owner != NOBODY;
        if can {
            if !self.has(Bug::SignalsUncondemned) {
                word.state = Task::Condemned;
            }
            let (victim, generation) = (word.owner, word.generation);
            state.manager = Manager { at: ManagerAt::Signal, known: 0, victim, task: task as u8, generation };
        }
        can
    }

    fn recover(&self, state: &mut State) -> bool {
        if state.recovers == 0 {
            let Some(who) = state.workers.iter().position(|worker| worker.life == Life::Killed) else { return false };
            (state.recovers, state.recovery_at) = (who as u8 + 1, 0);
        }
        let id = state.recovers;
        match state.recovery_at as usize {
            task if task < TASKS => {
                let word = &mut state.words[task];
                let is_held = match word.state {
                    Task::Running | Task::Cancelled | Task::Condemned => true,
                    Task::Ended => !self.has(Bug::RecoveryLeavesEnded),
                    _ => false,
                };
                if is_held && word.owner == id {
                    word.state = Task::Lost;
                }
            }
            TASKS => {
                for message in state.messages.iter_mut().filter(|message| message.taken_by == id) {
                    message.taken_by = 0;
                }
                state.messages.sort_unstable_by_key(|message| (message.task, message.generation, message.taken_by));
            }
            _ => {
                state.workers[id as usize - 1].life = Life::Recovered;
                (state.recovers, state.recovery_at) = (0, 0);
                return true;
            }
        }
        state.recovery_at += 1;
        true
    }

    fn kill(&self, state: &mut State, who: usize) -> bool {
        if state.kills >= self.kills {
            return false;
        }
        if who == RECOVERER {
            if state.recovers == 0 {
                return false;
            }
            (state.recovers, state.recovery_at) = (0, 0);
        } else {
            if state.workers[who].life != Life::Alive {
                return false;
            }
            state.workers[who] = Worker { life: Life::Killed, ..Worker::NEW };
        }
        state.kills += 1;
        true
    }
}

impl Model for Pool {
    type State = State;

    fn initial(&self) -> Vec<State> {
        vec![State {
            words: [Word { state: Task::Free, owner: 0, generation: 0 }; TASKS],
            messages: [NONE; MESSAGES],
            replies: [NONE; MESSAGES],
            workers: [Worker::NEW; WORKERS],
            manager: Manager { at: ManagerAt::Look, known: 0, victim: 0, task: 0, generation: 0 },
            uses: [Use::Free; TASKS],
            outcomes: [Outcome::Pending; TASKS],
            begun: [0; TASKS],
            recovers: 0,
            recovery_at: 0,
            kills: 0,
            retries: 0,
            cancels: 0,
        }]
    }

    fn successors(&self, state: &State, next: &mut Successors<State>) {
        for who in 0..WORKERS {
            for choice in 0..MESSAGES {
                next.step(who, state, |state| self.work(state, who, choice));
            }
            next.event("is killed", who, state, |state| Ok(self.kill(state, who)));
            next.step(REAPER, state, |state| {
                let worker = &mut state.workers[who];
                let is_news = worker.life != Life::Alive && worker.reported == 0;
                worker.reported |= u8::from(is_news);
                Ok(is_news)
            });
        }
        next.step(MANAGER, state, |state| self.manage(state));
        next.step(RECOVERER, state, |state| Ok(self.recover(state)));
        next.event("is killed", RECOVERER, state, |state| Ok(self.kill(state, RECOVERER)));
        for task in 0..TASKS {
            next.event("cancels", MANAGER, state, |state| Ok(self.cancel(state, task)));
            next.event("condemns", MANAGER, state, |state| Ok(self.condemn(state, task)));
        }
    }

    fn invariant(&self, _: &State) -> Result<(), Broken> {
        Ok(())
    }

    fn at_rest(&self, state: &State) -> Result<(), Broken> {
        if state.outcomes.contains(&Outcome::Pending) {
            return Err("a task is never told of");
        }
        if state.uses != [Use::Free; TASKS] || state.words.iter().any(|word| word.state != Task::Free) {
            return Err("a word is never freed");
        }
        if state.messages != [NONE; MESSAGES] || state.replies != [NONE; MESSAGES] {
            return Err("a message is left");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explorer::{Explorer, holds, is_caught};

    const PLAIN: Pool = Pool { kills: 1, retries: 1, cancels: 0, bug: None };

    fn catches(bug: Bug, model: Pool, expected: Broken) {
        is_caught(Explorer::default(), &Pool { bug: Some(bug), ..model }, expected);
    }

    #[test]
    fn the_algorithm_has_no_violation() {
        let report = holds(Explorer::default().no_livelock(), &PLAIN);
        assert_eq!(report.states, 10_284);
    }

    #[test]
    fn the_algorithm_has_no_violation_with_two_kills() {
        let report = holds(Explorer::default(), &Pool { kills: 2, ..PLAIN });
        assert_eq!(report.states, 90_414);
    }

    #[test]
    fn the_algorithm_has_no_violation_when_tasks_are_cancelled() {
        let report = holds(Explorer::default(), &Pool { retries: 0, cancels: 1, ..PLAIN });
        assert_eq!(report.states, 81_430);
    }

    #[test]
    fn deaths_that_are_looked_at_after_the_replies_are_caught() {
        catches(Bug::DeathsAfterReplies, PLAIN, "a result that was sent is told as a death");
    }

    #[test]
    fn deaths_that_are_reported_during_the_read_are_caught() {
        catches(Bug::DealsWithNews, Pool { kills: 2, ..PLAIN }, "a result that was sent is told as a death");
    }

    #[test]
    fn a_burial_before_the_recovery_is_caught() {
        catches(Bug::AwaitsNoRecovery, PLAIN, "a task is never told of");
    }

    #[test]
    fn a_claim_without_a_compare_is_caught() {
        catches(Bug::ClaimIsStored, PLAIN, "a task is begun twice");
    }

    #[test]
    fn a_recovery_that_leaves_ended_words_is_caught() {
        catches(Bug::RecoveryLeavesEnded, PLAIN, "a task is never told of");
    }

    #[test]
    fn a_signal_without_a_condemnation_is_caught() {
        let model = Pool { kills: 0, cancels: 1, ..PLAIN };
        catches(Bug::SignalsUncondemned, model, "a signal hits a worker that has begun another task");
    }

    #[test]
    fn an_end_that_is_stored_is_caught() {
        let model = Pool { kills: 0, cancels: 1, ..PLAIN };
        catches(Bug::EndIsStored, model, "a signal hits a worker that has begun another task");
    }

    #[test]
    fn a_word_that_keeps_its_generation_is_caught() {
        catches(Bug::KeepsGeneration, PLAIN, "a task is begun twice");
    }
}
