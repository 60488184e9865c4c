//! Extents: slabs and big blocks, without an intent record.
//!
//! ```text
//! head[u]      one word for each unit: {FREE | HELD, owner, length}
//!              only words reached by the walk 0, head[0].length, … are heads; a word inside an extent is stale and FREE
//! committed    the units that the file has so far
//! lock         a robust mutex; its holder leaves nothing to repair
//! ```
//!
//! # Steps
//!
//! ```text
//! alloc n   lock;  walk:  two FREE neighbours: ONE store head[i].length = a + b
//!                         it fits: head[i+n] = {FREE, rest} (invisible still);  THEN head[i] = {HELD, me, n} (the commit point)
//!                  none:  grow the file: head[committed] = {FREE, growth};  THEN committed += growth;  walk again
//!           unlock
//! free      punch the pages while the extent is HELD;  THEN ONE store head[i] = {FREE, n};  no lock
//! ```
//!
//! # Crash behaviour
//!
//! ```text
//! recover d   the lock of d: free (before a process with the number of d comes);  each word HELD by d: FREE; no lock, no walk
//! ```
//!
//! | killed | what others see | who repairs | what is lost |
//! |---|---|---|---|
//! | holding the lock | extents that tile the heap, as always | whoever wants the lock, or recovery | nothing |
//! | after HELD | an extent of the dead | recovery | its contents |
//! | growing | a head behind `committed` | the next one who grows stores it again | nothing |
//! | freeing | HELD by the dead, or FREE | recovery | nothing |
//!
//! # What is checked
//!
//! The extents tile the heap and only heads are HELD; an owner keeps its extent and what it wrote there; at rest every
//! word is FREE and nobody is stuck.
//!
//! # Size
//!
//! Two processes that allocate, use and free one or two units twice, and a janitor, five units: 230 531 states with one
//! kill, 828 065 with two: as in the C++ model that this was ported from.

use zerocopy::{Immutable, IntoBytes};

use crate::explorer::{Broken, Model, Successors};
use crate::life::Life;

const WORKERS: usize = 2;
/// The workers and a janitor that only recovers.
const PROCESSES: usize = WORKERS + 1;
const UNITS: usize = 5;
/// The units by which the heap grows, and with which it starts.
const GROWTH: u8 = 2;

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// An extent is cut before its remainder has a head.
    HeadBeforeRest,
    /// The neighbour is cleared before the two are one.
    NeighbourClearedFirst,
    /// The heap grows before the new units have a head.
    GrownBeforeHead,
    /// An extent is punched after it was freed.
    PunchedAfterFree,
    /// The slot of the dead is reused before its extents are free.
    SlotReusedEarly,
    /// Whoever frees joins the extent with its neighbour, without the lock.
    FreeJoinsWithoutLock,
    /// The lock of the dead is not taken from it before its slot is reused.
    LockOfDeadKept,
}

/// The model and its size: two workers and a janitor, five units.
#[derive(Clone, Copy, Debug)]
pub struct Extents {
    /// Allocations of each worker, over all processes that follow each other in its slot.
    pub rounds: u8,
    /// Kills in one history.
    pub kills: u8,
    /// The seeded bug.
    pub bug: Option<Bug>,
}

/// A word of the heap; owner 0 is FREE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Head {
    owner: u8,
    length: u8,
}

impl Head {
    fn free(length: u8) -> Self {
        Self { owner: 0, length }
    }

    fn is_free(self) -> bool {
        self.owner == 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, IntoBytes, Immutable)]
#[repr(u8)]
enum At {
    Idle,
    Lock,
    Walk,
    LookAtNeighbour,
    /// Of [`Bug::NeighbourClearedFirst`].
    ClearNeighbour,
    Join,
    Fit,
    WriteRest,
    Claim,
    GrowFirst,
    GrowSecond,
    OutOfMemory,
    Unlock,
    Write,
    Check,
    Punch,
    Free,
    /// Of [`Bug::FreeJoinsWithoutLock`].
    FreeLook,
    /// Of [`Bug::FreeJoinsWithoutLock`].
    FreeJoin,
    End,
    RecoverLock,
    RecoverLook,
    RecoverFree,
    RecoverDone,
}

/// The private words of a process.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Private {
    at: At,
    wanted: u8,
    index: u8,
    length: u8,
    neighbour: u8,
    /// The head of its own extent, from 1.
    mine: u8,
    dead: u8,
    /// The unit of an extent or of the heap that it is at.
    unit: u8,
}

const IDLE: Private = Private { at: At::Idle, wanted: 0, index: 0, length: 0, neighbour: 0, mine: 0, dead: 0, unit: 0 };

impl Private {
    /// Goes on to `at` once every unit of the extent is done.
    fn next_unit(&mut self, at: At) {
        self.unit += 1;
        if self.unit == self.wanted {
            self.unit = 0;
            self.at = at;
        }
    }
}

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Process {
    life: Life,
    rounds: u8,
    private: Private,
}

/// All words and processes. Process numbers in words begin at 1.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    heads: [Head; UNITS],
    /// Who wrote to a unit last; 0 is a punched page.
    data: [u8; UNITS],
    committed: u8,
    lock: u8,
    recovery_lock: u8,
    kills: u8,
    processes: [Process; PROCESSES],
}

impl Extents {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn begin(&self, state: &mut State, who: usize, wanted: u8) -> bool {
        let me = &mut state.processes[who];
        if who >= WORKERS || me.rounds >= self.rounds {
            return false;
        }
        me.private = Private { at: At::Lock, wanted, ..IDLE };
        true
    }

    fn begin_recovery(&self, state: &mut State, who: usize) -> bool {
        let dead = state.processes.iter().position(|process| process.life == Life::Killed);
        let (Some(dead), 0) = (dead, state.recovery_lock) else { return false };
        state.recovery_lock = who as u8 + 1;
        state.processes[who].private = Private { at: At::RecoverLock, dead: dead as u8 + 1, ..IDLE };
        true
    }

    fn act(&self, state: &mut State, who: usize) -> Result<bool, Broken> {
        let id = who as u8 + 1;
        let mut process = state.processes[who];
        let me = &mut process.private;
        let index = me.index as usize;
        match me.at {
            At::Idle => return Ok(false),
            At::Lock => {
                if state.lock != 0 && state.processes[state.lock as usize - 1].life == Life::Alive {
                    return Ok(false);
                }
                state.lock = id;
                me.index = 0;
                me.at = At::Walk;
            }
            At::Walk if me.index == state.committed => {
                let room = (state.committed + GROWTH) as usize <= UNITS;
                me.at = if room { At::GrowFirst } else { At::OutOfMemory };
            }
            At::Walk if me.index > state.committed => return Err("a walk leaves the heap"),
            At::Walk => {
                let head = state.heads[index];
                if head.length == 0 {
                    return Err("a walk does not end");
                }
                if head.is_free() {
                    me.length = head.length;
                    let last = me.index + head.length >= state.committed;
                    me.at = if last { At::Fit } else { At::LookAtNeighbour };
                } else {
                    me.index += head.length;
                }
            }
            At::LookAtNeighbour => {
                let neighbour = state.heads[index + me.length as usize];
                me.at = At::Fit;
                if neighbour.is_free() {
                    me.neighbour = neighbour.length;
                    let clears = self.has(Bug::NeighbourClearedFirst);
                    me.at = if clears { At::ClearNeighbour } else { At::Join };
                }
            }
            At::ClearNeighbour => {
                state.heads[index + me.length as usize] = Head::free(0);
                me.at = At::Join;
            }
            At::Join => {
                state.heads[index].length = me.length + me.neighbour;
                me.neighbour = 0;
                me.at = At::Walk;
            }
            At::Fit if me.length < me.wanted => {
                me.index += me.length;
                me.at = At::Walk;
            }
            At::Fit => {
                let exact = me.length == me.wanted || self.has(Bug::HeadBeforeRest);
                me.at = if exact { At::Claim } else { At::WriteRest };
            }
            At::WriteRest => {
                state.heads[index + me.wanted as usize] = Head::free(me.length - me.wanted);
                me.at = if self.has(Bug::HeadBeforeRest) { At::Unlock } else { At::Claim };
            }
            At::Claim => {
                if !state.heads[index].is_free() {
                    return Err("an extent is claimed that is not free");
                }
                state.heads[index] = Head { owner: id, length: me.wanted };
                me.mine = me.index + 1;
                let rest_is_missing = self.has(Bug::HeadBeforeRest) && me.length > me.wanted;
                me.at = if rest_is_missing { At::WriteRest } else { At::Unlock };
            }
            At::GrowFirst | At::GrowSecond => {
                let first = me.at == At::GrowFirst;
                if first == self.has(Bug::GrownBeforeHead) {
                    state.committed += GROWTH;
                } else {
                    let grown = if first { 0 } else { GROWTH };
                    state.heads[(state.committed - grown) as usize] = Head::free(GROWTH);
                }
                me.index = if first { me.index } else { 0 };
                me.at = if first { At::GrowSecond } else { At::Walk };
            }
            At::OutOfMemory => {
                state.lock = 0;
                process.private = IDLE;
                process.rounds += 1;
            }
            At::Unlock => {
                state.lock = 0;
                *me = Private { at: At::Write, wanted: me.wanted, mine: me.mine, ..IDLE };
            }
            At::Write => {
                *my_unit(state, me) = id;
                me.next_unit(At::Check);
            }
            At::Check => {
                if *my_unit(state, me) != id {
                    return Err("an extent is overwritten by another process");
                }
                me.next_unit(if self.has(Bug::PunchedAfterFree) { At::Free } else { At::Punch });
            }
            At::Punch => {
                *my_unit(state, me) = 0;
                me.next_unit(if self.has(Bug::PunchedAfterFree) { At::End } else { At::Free });
            }
            At::Free => {
                let head = &mut state.heads[me.mine as usize - 1];
                if *head != (Head { owner: id, length: me.wanted }) {
                    return Err("the word of an extent changed under its owner");
                }
                *head = Head::free(me.wanted);
                me.at = match self.bug {
                    Some(Bug::PunchedAfterFree) => At::Punch,
                    Some(Bug::FreeJoinsWithoutLock) => At::FreeLook,
                    _ => At::End,
                };
            }
            At::FreeLook => {
                let next = (me.mine - 1 + me.wanted) as usize;
                me.at = At::End;
                if next < state.committed as usize && state.heads[next].is_free() {
                    me.neighbour = state.heads[next].length;
                    me.at = At::FreeJoin;
                }
            }
            At::FreeJoin => {
                state.heads[me.mine as usize - 1] = Head::free(me.wanted + me.neighbour);
                me.at = At::End;
            }
            At::End => {
                process.private = IDLE;
                process.rounds += 1;
            }
            At::RecoverLock => {
                if self.has(Bug::SlotReusedEarly) {
                    state.processes[me.dead as usize - 1].life = Life::Recovered;
                }
                if state.lock == me.dead && !self.has(Bug::LockOfDeadKept) {
                    state.lock = 0;
                }
                me.unit = 0;
                me.at = At::RecoverLook;
            }
            At::RecoverLook => match state.heads.get(me.unit as usize) {
                None => me.at = At::RecoverDone,
                Some(head) if head.owner == me.dead => {
                    me.length = head.length;
                    me.at = At::RecoverFree;
                }
                Some(_) => me.unit += 1,
            },
            At::RecoverFree => {
                let head = &mut state.heads[me.unit as usize];
                if *head == (Head { owner: me.dead, length: me.length }) {
                    *head = Head::free(me.length);
                }
                me.length = 0;
                me.unit += 1;
                me.at = At::RecoverLook;
            }
            At::RecoverDone => {
                if !self.has(Bug::SlotReusedEarly) {
                    state.processes[me.dead as usize - 1].life = Life::Recovered;
                }
                state.recovery_lock = 0;
                process.private = IDLE;
            }
        }
        state.processes[who] = process;
        Ok(true)
    }

    fn replace(&self, state: &mut State, who: usize) -> bool {
        let me = &mut state.processes[who];
        if me.life != Life::Recovered || me.rounds >= self.rounds {
            return false;
        }
        me.life = Life::Alive;
        true
    }

    fn kill(&self, state: &mut State, who: usize) -> bool {
        let me = &mut state.processes[who];
        if state.kills >= self.kills || me.life != Life::Alive || me.private.at == At::Idle {
            return false;
        }
        let rounds = me.rounds + u8::from(me.private.at < At::RecoverLock);
        *me = Process { life: Life::Killed, rounds, private: IDLE };
        if state.recovery_lock == who as u8 + 1 {
            state.recovery_lock = 0;
        }
        state.kills += 1;
        true
    }
}

fn my_unit<'a>(state: &'a mut State, me: &Private) -> &'a mut u8 {
    &mut state.data[(me.mine - 1 + me.unit) as usize]
}

impl Model for Extents {
    type State = State;

    fn initial(&self) -> Vec<State> {
        let mut heads = [Head::free(0); UNITS];
        heads[0] = Head::free(GROWTH);
        vec![State {
            heads,
            data: [0; UNITS],
            committed: GROWTH,
            lock: 0,
            recovery_lock: 0,
            kills: 0,
            processes: [Process { life: Life::Alive, rounds: 0, private: IDLE }; PROCESSES],
        }]
    }

    fn successors(&self, state: &State, next: &mut Successors<State>) {
        for who in 0..PROCESSES {
            let process = &state.processes[who];
            if process.life != Life::Alive {
                next.step(who, state, |state| Ok(self.replace(state, who)));
            } else if process.private.at != At::Idle {
                next.step(who, state, |state| self.act(state, who));
            } else {
                for wanted in 1..=2 {
                    next.step(who, state, |state| Ok(self.begin(state, who, wanted)));
                }
                next.step(who, state, |state| Ok(self.begin_recovery(state, who)));
            }
        }
        for who in 0..WORKERS {
            next.event("is killed", who, state, |state| Ok(self.kill(state, who)));
        }
    }

    fn invariant(&self, state: &State) -> Result<(), Broken> {
        let mut is_head = [false; UNITS];
        let mut unit = 0;
        while unit < state.committed as usize {
            is_head[unit] = true;
            if state.heads[unit].length == 0 {
                return Err("a head has no length");
            }
            unit += state.heads[unit].length as usize;
        }
        if unit != state.committed as usize {
            return Err("the extents do not tile the heap");
        }
        if state.heads.iter().zip(is_head).any(|(head, is_head)| !is_head && !head.is_free()) {
            return Err("a HELD word is no head");
        }
        for (process, id) in state.processes.iter().zip(1..) {
            let me = &process.private;
            let owns = process.life == Life::Alive && me.at >= At::Unlock && me.at <= At::Free && me.mine != 0;
            let kept = || state.heads[me.mine as usize - 1] == Head { owner: id, length: me.wanted };
            if owns && !self.has(Bug::PunchedAfterFree) && !kept() {
                return Err("an owner loses its extent");
            }
        }
        Ok(())
    }

    fn at_rest(&self, state: &State) -> Result<(), Broken> {
        if state.heads.iter().any(|head| !head.is_free()) {
            return Err("an extent leaks");
        }
        if state.processes.iter().any(|process| process.life == Life::Killed) {
            return Err("a death is not recovered");
        }
        let stuck = |process: &Process| process.life == Life::Alive && process.rounds < self.rounds;
        if state.processes[..WORKERS].iter().any(stuck) {
            return Err("a live process is stuck");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explorer::{Explorer, holds, is_caught};

    const PLAIN: Extents = Extents { rounds: 2, kills: 1, bug: None };

    fn catches(bug: Bug, expected: Broken) {
        is_caught(Explorer::default(), &Extents { bug: Some(bug), ..PLAIN }, expected);
    }

    #[test]
    fn the_algorithm_has_no_violation() {
        let report = holds(Explorer::default().no_livelock(), &PLAIN);
        assert_eq!((report.states, report.at_rest), (230_531, 395));
    }

    #[test]
    fn the_algorithm_has_no_violation_with_two_kills() {
        let report = holds(Explorer::default(), &Extents { kills: 2, ..PLAIN });
        assert_eq!((report.states, report.at_rest), (828_065, 2_130));
    }

    #[test]
    fn a_head_before_its_rest_is_caught() {
        catches(Bug::HeadBeforeRest, "a head has no length");
    }

    #[test]
    fn a_neighbour_cleared_first_is_caught() {
        catches(Bug::NeighbourClearedFirst, "a head has no length");
    }

    #[test]
    fn a_heap_grown_before_its_head_is_caught() {
        catches(Bug::GrownBeforeHead, "a head has no length");
    }

    #[test]
    fn a_page_punched_after_free_is_caught() {
        catches(Bug::PunchedAfterFree, "an extent is overwritten by another process");
    }

    #[test]
    fn a_slot_reused_early_is_caught() {
        catches(Bug::SlotReusedEarly, "an owner loses its extent");
    }

    #[test]
    fn a_join_without_the_lock_is_caught() {
        catches(Bug::FreeJoinsWithoutLock, "a HELD word is no head");
    }

    #[test]
    fn a_lock_left_to_the_dead_is_caught() {
        catches(Bug::LockOfDeadKept, "a live process is stuck");
    }
}
