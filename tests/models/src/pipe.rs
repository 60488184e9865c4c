//! The pipe: a ring between one sender and one receiver, whose ends are claimed and change hands.
//!
//! ```text
//! tail, head      how far sender and receiver have got; each written by the owner of its end only
//! owner[end]      0 = free, or a participant
//! cell[2]         references to the sending end: a participant, or none; void when its generation has gone up
//! version         goes up with every reference that is added
//! slot            ACTIVE, RECOVERING or FREE, and a generation, for each sender
//! recoveries      goes up with every death that voids cells
//! ```
//!
//! # Steps
//!
//! ```text
//! claim    w = owner: free, or a dead one (proof): CAS w to me; then read both positions
//! send     tail - head = capacity: read head again, else wait;  element = value;  tail + 1: the commit
//! receive  head = tail: read tail again; still none: is the sender gone? read tail once more, else wait
//!          value = element;  head + 1: the acknowledgement
//! hand on  (sending end) owner = free; the next holder adds its cell, then version + 1; only then my cell = none
//! gone     r = recoveries;  v = version;  no cell that counts, looked at one after the other;  version is still v;
//!          recoveries is still r.  A cell of a participant counts while its generation is the slot's, and while the slot is
//!          RECOVERING
//! recover  slot = RECOVERING;  its ends free;  generation + 1;  recoveries + 1;  its cells = none;  slot = FREE
//! ```
//!
//! A reference goes from a cell not yet looked at to one that was, if it is handed on meanwhile. Its old cell is dropped by
//! its holder after the version went up, or voided by its holder's death. That voids it *before* `recoveries` goes up, so until
//! the slot is FREE, or the cell cleared, it still counts for who looks whether anybody is there.
//!
//! # Crash behaviour
//!
//! | killed | what others see | who repairs | what is lost |
//! |---|---|---|---|
//! | before `tail + 1` | nothing | the next sender writes over it | what was not committed |
//! | before `head + 1` | the element, still there | the next receiver gets it | nothing |
//! | with an end | a dead owner | the next one claims it in one CAS | nothing |
//! | handing on | the next one's cell, or none | nobody needs to | nothing |
//! | adding its cell | a cell of a dead one | recovery clears it | nothing |
//! | the recoverer | RECOVERING | the next recoverer, from the start | nothing: the end of the file is told later |
//!
//! Recovery may come at any moment after a death, and the recoverer may be killed after each of its steps. A new process comes in
//! a slot that is FREE, with the next generation.
//!
//! # What is checked
//!
//! Elements are received in order and acknowledged once; nobody reads an element that is being written; the end of the file
//! comes after the last committed element and never while a living sender holds the end, or is about to hold it by a cell that
//! it added while another's was valid; two never have an end; from every state all come to rest, and then nobody waits whose
//! peer has gone.
//!
//! # Size
//!
//! Four elements, one kill: 48 129 states, 406 967 where the end is handed on, 648 455 with a birth; three elements, handed on, two
//! kills: 2 065 154.

use zerocopy::{Immutable, IntoBytes};

use crate::explorer::{Broken, Model, Successors};

/// Participants: 1 and 2 may send, 3 and 4 may receive.
const PEOPLE: usize = 4;
const CAPACITY: u8 = 2;
/// An element somebody is writing.
const TORN: u8 = u8::MAX;

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The position goes up before the element is written, or read.
    MovesFirst,
    /// A claim of a dead one's end keeps the positions that this participant remembers: those of the start.
    ForgetsPositions,
    /// An end is taken from whoever has it.
    ClaimsFromTheLiving,
    /// The end of the file is told without another look at the tail.
    NoSecondLook,
    /// "Gone" does not look at the version again.
    IgnoresVersion,
    /// "Gone" does not look at `recoveries` again.
    IgnoresRecoveries,
    /// "Gone" takes a cell for void as soon as its generation has gone up.
    IgnoresRecovering,
    /// Recovery raises `recoveries` when it has done everything else.
    CountsLast,
    /// The old cell is cleared before the new one is written.
    DropsBeforeAdding,
    /// A new process has the generation of the dead one in whose slot it comes.
    SameGeneration,
}

/// The model and its size.
#[derive(Clone, Copy, Debug)]
pub struct Pipe {
    /// Elements to be sent, by all senders together.
    pub elements: u8,
    /// Kills in one history.
    pub kills: u8,
    /// Processes that come in the slots of dead ones.
    pub births: u8,
    /// Whether the first sender hands its end on after its first element.
    pub hands_on: bool,
    /// The seeded bug.
    pub bug: Option<Bug>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum At {
    /// Is not there yet: a sender that was not given a reference, a receiver before its first look.
    Idle,
    Claim,
    /// Has seen who the owner is: nobody, or a dead one.
    ClaimCas,
    ReadMine,
    ReadPeer,
    Ready,
    Refresh,
    /// The element is being written, or read.
    Touch,
    Touched,
    Advance,
    Recoveries,
    Version,
    Cell,
    Generation,
    Slot,
    VersionAgain,
    RecoveriesAgain,
    LookAgain,
    Handing,
    AddCell,
    RaiseVersion,
    DropCell,
    /// Of the bugs that move the position first: the element has been touched.
    Finish,
    GiveBack,
    Done,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Person {
    at: At,
    mine: u8,
    peer: u8,
    version: u8,
    recoveries: u8,
    /// Which cell it looks at.
    cell: u8,
    /// An element, or whom a cell names.
    value: u8,
    /// Its cell was added while another one was valid, or before the present look at the cells: it must not be missed.
    is_expected: u8,
}

impl Person {
    const fn new(at: At) -> Self {
        Self { at, mine: 0, peer: 0, version: 0, recoveries: 0, cell: 0, value: 0, is_expected: 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum Slot {
    Active,
    Recovering,
    Free,
}

/// Steps of a recoverer, in their order.
const RECOVERY: u8 = 8;

/// The shared words and everybody.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    tail: u8,
    head: u8,
    elements: [u8; CAPACITY as usize],
    owner: [u8; 2],
    /// Of the sending end.
    cells: [u8; 2],
    version: u8,
    recoveries: u8,
    slots: [Slot; PEOPLE],
    generations: [u8; PEOPLE],
    /// Slot and generation of who is there, in one number.
    tokens: [u8; PEOPLE],
    people: [Person; PEOPLE],
    /// Whom the recoverer recovers, and its next step: 0 if there is nobody.
    recovers: u8,
    recovery_at: u8,
    /// Elements received by somebody.
    received: u8,
    kills: u8,
    births: u8,
}

fn end_of(who: usize) -> usize {
    who / 2
}

/// The slot of a token.
fn slot_of(token: u8) -> usize {
    (token as usize - 1) % PEOPLE
}

/// The generation of a token.
fn generation_of(token: u8) -> u8 {
    (token - 1) / PEOPLE as u8
}

impl State {
    fn is_dead(&self, id: u8) -> bool {
        id != 0 && (self.tokens[slot_of(id)] != id || self.people[slot_of(id)].at == At::Dead)
    }

    /// Whether a cell names a participant in its generation.
    fn is_valid(&self, cell: usize) -> bool {
        let id = self.cells[cell];
        id != 0 && self.generations[slot_of(id)] == generation_of(id)
    }
}

impl Pipe {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn act(&self, state: &mut State, who: usize) -> Result<bool, Broken> {
        let (id, end) = (state.tokens[who], end_of(who));
        let owner = state.owner[end];
        let can_claim = owner == 0 || state.is_dead(owner) || self.has(Bug::ClaimsFromTheLiving);
        let mut me = state.people[who];
        match me.at {
            // A second receiver comes when the first has died.
            At::Idle if end == 1 => me.at = At::Claim,
            At::Idle if who == 1 && state.people[0].at == At::Handing => me.at = At::AddCell,
            // Asks again after the end of the file.
            At::Done if end == 1 && state.tail != me.mine => me.at = At::Ready,
            At::Idle | At::Done | At::Dead => return Ok(false),
            At::Claim => {
                // A sender that died with the end leaves it to who holds a reference.
                if !can_claim || owner == id {
                    return Ok(false);
                }
                (me.value, me.at) = (owner, At::ClaimCas);
            }
            At::ClaimCas if owner != me.value => (me.value, me.at) = (0, At::Claim),
            At::ClaimCas => {
                (me.value, state.owner[end]) = (0, id);
                me.at = if self.has(Bug::ForgetsPositions) { At::Ready } else { At::ReadMine };
            }
            At::ReadMine => {
                me.mine = [state.tail, state.head][end];
                me.at = At::ReadPeer;
            }
            At::ReadPeer => {
                me.peer = [state.head, state.tail][end];
                me.at = At::Ready;
            }
            At::Ready if end == 0 && me.mine >= self.elements => me.at = At::DropCell,
            At::Ready => {
                let is_ready = if end == 0 { me.mine - me.peer < CAPACITY } else { me.peer > me.mine };
                me.at = if is_ready { self.first_touch() } else { At::Refresh };
            }
            At::Refresh => {
                let peer = [state.head, state.tail][end];
                if end == 0 {
                    // Waits until it changes.
                    if peer == me.peer {
                        return Ok(false);
                    }
                    me.at = At::Ready;
                } else {
                    me.at = if peer == me.mine { At::Recoveries } else { At::Ready };
                }
                me.peer = peer;
            }
            At::Touch if end == 0 => {
                state.elements[(me.mine % CAPACITY) as usize] = TORN;
                me.at = At::Touched;
            }
            At::Touch => {
                me.value = state.elements[(me.mine % CAPACITY) as usize];
                if me.value == TORN {
                    return Err("an element is read while it is written");
                }
                me.at = self.after_touch();
            }
            At::Touched => {
                state.elements[(me.mine % CAPACITY) as usize] = me.mine + 1;
                me.at = self.after_touch();
            }
            At::Advance => {
                let position = if end == 0 { &mut state.tail } else { &mut state.head };
                *position = me.mine + 1;
                if self.first_touch() == At::Advance {
                    me.at = At::Touch;
                } else {
                    me.mine += 1;
                    me.at = self.advanced(state, &mut me, who)?;
                }
            }
            At::Finish => {
                me.mine += 1;
                me.at = self.advanced(state, &mut me, who)?;
            }
            At::Recoveries => {
                // A cell that is there before the look is seen by it.
                let next = &mut state.people[1];
                next.is_expected |= u8::from(state.cells.contains(&state.tokens[1]));
                me.recoveries = state.recoveries;
                me.at = At::Version;
            }
            At::Version => {
                (me.version, me.cell) = (state.version, 0);
                me.at = At::Cell;
            }
            At::Cell => {
                me.value = state.cells[me.cell as usize];
                me.at = if me.value == 0 { Self::next_cell(&mut me) } else { At::Generation };
            }
            At::Generation => {
                let is_old = state.generations[slot_of(me.value)] != generation_of(me.value);
                me.at = match is_old {
                    true if self.has(Bug::IgnoresRecovering) => Self::next_cell(&mut me),
                    true => At::Slot,
                    false => Self::is_held(&mut me),
                };
            }
            At::Slot => {
                let is_recovering = state.slots[slot_of(me.value)] == Slot::Recovering;
                me.at = if is_recovering { Self::is_held(&mut me) } else { Self::next_cell(&mut me) };
            }
            At::VersionAgain => {
                let changed = me.version != state.version && !self.has(Bug::IgnoresVersion);
                me.at = if changed { Self::is_held(&mut me) } else { At::RecoveriesAgain };
            }
            At::RecoveriesAgain => {
                let changed = me.recoveries != state.recoveries && !self.has(Bug::IgnoresRecoveries);
                me.at = if changed { Self::is_held(&mut me) } else { At::LookAgain };
            }
            At::LookAgain => {
                let peer = if self.has(Bug::NoSecondLook) { me.mine } else { state.tail };
                (me.version, me.recoveries, me.cell) = (0, 0, 0);
                if peer == me.mine {
                    self.end_of_file(state, me.mine)?;
                    me.at = At::Done;
                } else {
                    me.peer = peer;
                    me.at = At::Ready;
                }
            }
            At::Handing => {
                state.owner[end] = if owner == id { 0 } else { owner };
                let has_added = !matches!(state.people[1].at, At::Idle | At::AddCell | At::RaiseVersion);
                if !has_added && !self.has(Bug::DropsBeforeAdding) {
                    return Ok(owner == id && {
                        state.people[who] = me;
                        true
                    });
                }
                me.at = At::DropCell;
            }
            At::AddCell => {
                me.is_expected = u8::from(state.is_valid(1));
                // Into the place that a look comes to first.
                state.cells[0] = id;
                me.at = At::RaiseVersion;
            }
            At::RaiseVersion => {
                state.version += 1;
                me.at = At::Claim;
            }
            At::DropCell => {
                state.cells.iter_mut().filter(|cell| **cell == id).for_each(|cell| *cell = 0);
                me.at = At::GiveBack;
            }
            At::GiveBack => {
                state.owner[end] = if state.owner[end] == id { 0 } else { state.owner[end] };
                me.at = At::Done;
            }
        }
        state.people[who] = me;
        Ok(true)
    }

    /// After a cell that does not count.
    fn next_cell(me: &mut Person) -> At {
        (me.value, me.cell) = (0, me.cell + 1);
        if me.cell == 2 { At::VersionAgain } else { At::Cell }
    }

    /// Somebody is there, or may be: looks at the tail again.
    fn is_held(me: &mut Person) -> At {
        (me.value, me.cell, me.version, me.recoveries) = (0, 0, 0, 0);
        At::Refresh
    }

    fn first_touch(&self) -> At {
        match self.bug {
            Some(Bug::MovesFirst) => At::Advance,
            _ => At::Touch,
        }
    }

    fn after_touch(&self) -> At {
        if self.has(Bug::MovesFirst) { At::Finish } else { At::Advance }
    }

    /// What comes after an element.
    fn advanced(&self, state: &mut State, me: &mut Person, who: usize) -> Result<At, Broken> {
        if end_of(who) == 1 {
            let (value, expected) = (std::mem::take(&mut me.value), state.received + 1);
            if value == expected {
                state.received += 1;
            } else {
                return Err("an element is lost, comes twice, or out of order");
            }
            return Ok(At::Ready);
        }
        let hands_on = self.hands_on && who == 0 && me.mine == 1 && self.elements > 1;
        Ok(if hands_on { At::Handing } else { At::Ready })
    }

    fn end_of_file(&self, state: &State, head: u8) -> Result<(), Broken> {
        let sends = |person: &Person| match person.at {
            At::Idle | At::AddCell | At::GiveBack | At::Done | At::Dead => false,
            // Of the second sender, which may come when the first has been buried.
            _ => person.is_expected != 0,
        };
        if state.people[..2].iter().any(sends) {
            return Err("the end of the file is told while somebody sends");
        }
        if state.tail != head { Err("the end of the file is told before the last element") } else { Ok(()) }
    }

    fn kill(&self, state: &mut State, who: usize) -> bool {
        let me = &mut state.people[who];
        if state.kills >= self.kills || matches!(me.at, At::Idle | At::Done | At::Dead) {
            return false;
        }
        // What it had read may not have been acknowledged.
        *me = Person::new(At::Dead);
        state.kills += 1;
        true
    }

    /// Recovery, each step one word.
    fn recover(&self, state: &mut State) -> bool {
        if state.recovers == 0 {
            let who = (0..PEOPLE).find(|&who| state.people[who].at == At::Dead && state.slots[who] != Slot::Free);
            let Some(who) = who else { return false };
            (state.recovers, state.recovery_at) = (who as u8 + 1, 0);
        }
        let who = state.recovers as usize - 1;
        let id = state.tokens[who];
        let mut step = state.recovery_at;
        if self.has(Bug::CountsLast) {
            // The count is the last one but FREE.
            step = [0, 1, 2, 3, 5, 6, 4, 7][step as usize];
        }
        match step {
            0 => state.slots[who] = Slot::Recovering,
            1 | 2 => {
                let owner = &mut state.owner[step as usize - 1];
                *owner = if *owner == id { 0 } else { *owner };
            }
            3 => state.generations[who] = generation_of(id) + 1,
            4 => state.recoveries += 1,
            5 | 6 => {
                let cell = &mut state.cells[step as usize - 5];
                *cell = if *cell == id { 0 } else { *cell };
            }
            _ => state.slots[who] = Slot::Free,
        }
        state.recovery_at += 1;
        if state.recovery_at == RECOVERY {
            (state.recovers, state.recovery_at) = (0, 0);
        }
        true
    }

    fn kill_recoverer(&self, state: &mut State) -> bool {
        let can_die = state.kills < self.kills && state.recovers != 0;
        if can_die {
            (state.recovers, state.recovery_at) = (0, 0);
            state.kills += 1;
        }
        can_die
    }
}

impl Pipe {
    /// A new process in a slot that is free again.
    fn be_born(&self, state: &mut State, who: usize) -> bool {
        let is_free = state.people[who].at == At::Dead && state.slots[who] == Slot::Free;
        if state.births >= self.births || !is_free {
            return false;
        }
        if self.has(Bug::SameGeneration) {
            state.generations[who] = 0;
        } else {
            state.tokens[who] = who as u8 + 1 + PEOPLE as u8 * state.generations[who];
        }
        (state.people[who], state.slots[who]) = (Person::new(At::Idle), Slot::Active);
        state.births += 1;
        true
    }
}

impl Model for Pipe {
    type State = State;

    fn initial(&self) -> Vec<State> {
        let mut people = [Person::new(At::Idle); PEOPLE];
        people[0].at = At::Claim;
        people[0].is_expected = 1;
        vec![State {
            tail: 0,
            head: 0,
            elements: [0; CAPACITY as usize],
            owner: [0; 2],
            cells: [0, 1],
            version: 0,
            recoveries: 0,
            slots: [Slot::Active; PEOPLE],
            generations: [0; PEOPLE],
            tokens: [1, 2, 3, 4],
            people,
            recovers: 0,
            recovery_at: 0,
            received: 0,
            kills: 0,
            births: 0,
        }]
    }

    fn successors(&self, state: &State, next: &mut Successors<State>) {
        for who in 0..PEOPLE {
            next.step(who, state, |state| self.act(state, who));
            next.event("is killed", who, state, |state| Ok(self.kill(state, who)));
            next.event("is born", who, state, |state| Ok(self.be_born(state, who)));
        }
        next.step(PEOPLE, state, |state| Ok(self.recover(state)));
        next.event("is killed", PEOPLE, state, |state| Ok(self.kill_recoverer(state)));
    }

    fn invariant(&self, state: &State) -> Result<(), Broken> {
        let has_no_end = [
            At::Idle,
            At::AddCell,
            At::RaiseVersion,
            At::Claim,
            At::ClaimCas,
            At::Handing,
            At::DropCell,
            At::GiveBack,
            At::Done,
            At::Dead,
        ];
        let robbed =
            |who: usize| !has_no_end.contains(&state.people[who].at) && state.owner[end_of(who)] != state.tokens[who];
        if (0..PEOPLE).any(robbed) {
            return Err("two have an end");
        }
        if state.tail < state.head || state.tail - state.head > CAPACITY {
            return Err("the positions are impossible");
        }
        Ok(())
    }

    fn at_rest(&self, state: &State) -> Result<(), Broken> {
        let receivers = &state.people[2..];
        let all_dead = receivers.iter().all(|person| person.at == At::Dead);
        if !all_dead && receivers.iter().all(|person| person.at != At::Done) {
            return Err("a receiver waits for ever");
        }
        if !all_dead && state.received != state.tail {
            return Err("a committed element is never received");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explorer::{Explorer, holds, is_caught};

    const PLAIN: Pipe = Pipe { elements: 4, kills: 0, births: 0, hands_on: false, bug: None };
    const EARLY: Broken = "the end of the file is told while somebody sends";

    fn catches(bug: Bug, kills: u8, hands_on: bool, expected: Broken) {
        is_caught(Explorer::default(), &Pipe { kills, hands_on, bug: Some(bug), ..PLAIN }, expected);
    }

    #[test]
    fn the_algorithm_has_no_violation() {
        let states = [(0, false), (0, true), (1, false), (1, true)].map(|(kills, hands_on)| {
            holds(Explorer::default().no_livelock(), &Pipe { kills, hands_on, ..PLAIN }).states
        });
        assert_eq!(states, [4_242, 19_857, 48_129, 406_967]);
    }

    #[test]
    fn the_algorithm_has_no_violation_with_two_kills() {
        let report = holds(Explorer::default(), &Pipe { elements: 3, kills: 2, hands_on: true, ..PLAIN });
        assert_eq!(report.states, 2_065_154);
    }

    #[test]
    fn the_algorithm_has_no_violation_when_slots_are_used_again() {
        let model = Pipe { kills: 1, births: 1, hands_on: true, ..PLAIN };
        let states = holds(Explorer::default().no_livelock(), &model).states;
        let two_kills = holds(Explorer::default(), &Pipe { elements: 2, kills: 2, ..model }).states;
        assert_eq!((states, two_kills), (648_455, 3_946_462));
    }

    #[test]
    fn a_generation_that_stays_is_caught() {
        let model = Pipe { kills: 1, births: 1, bug: Some(Bug::SameGeneration), ..PLAIN };
        is_caught(Explorer::default(), &model, "two have an end");
    }

    #[test]
    fn a_position_that_moves_before_the_element_is_caught() {
        catches(Bug::MovesFirst, 0, false, "an element is read while it is written");
    }

    #[test]
    fn a_claim_with_old_positions_is_caught() {
        catches(Bug::ForgetsPositions, 1, false, "an element is lost, comes twice, or out of order");
    }

    #[test]
    fn an_end_taken_from_the_living_is_caught() {
        catches(Bug::ClaimsFromTheLiving, 0, true, "two have an end");
    }

    #[test]
    fn an_end_of_file_without_a_second_look_is_caught() {
        catches(Bug::NoSecondLook, 0, false, "the end of the file is told before the last element");
    }

    #[test]
    fn a_look_at_cells_of_two_versions_is_caught() {
        catches(Bug::IgnoresVersion, 0, true, EARLY);
    }

    #[test]
    fn a_reference_dropped_before_the_next_is_added_is_caught() {
        catches(Bug::DropsBeforeAdding, 0, true, EARLY);
    }

    #[test]
    fn a_look_at_cells_across_a_recovery_is_caught() {
        catches(Bug::IgnoresRecoveries, 1, true, EARLY);
    }

    #[test]
    fn a_cell_that_is_void_before_the_recovery_counts_is_caught() {
        catches(Bug::IgnoresRecovering, 1, true, EARLY);
    }

    #[test]
    fn a_recovery_that_counts_after_its_cells_are_clear_is_caught() {
        catches(Bug::CountsLast, 1, true, EARLY);
    }
}
