//! The explorer: every reachable state of a model, breadth first.
//!
//! A model is a set of small processes over a few shared words. The explorer takes each state once, asks the model for
//! everything that can happen next, and checks every state it has not seen before. Memory is sequentially consistent: a
//! model says what one step is, and one step is one load, one store or one compare-and-swap of a shared word.
//! What weak memory may do on top of that is the business of other tests.
//!
//! * States are stored whole, as plain bytes ([`IntoBytes`]): two different states are never taken for one.
//! * Breadth first, so that the trace of a violation is as short as it can be.
//! * A *step* is what a process does by itself. An *event* is what happens to it: a kill, a new process in the place of a
//!   dead one. A state without a step is *at rest*, whatever events could still come: nobody may be left
//!   waiting there.
//! * With [`Explorer::no_livelock`], a state from which no sequence of steps leads to rest is a violation too.

use std::fmt::{self, Debug};

use zerocopy::{Immutable, IntoBytes};

/// What a model says when a rule is broken.
pub type Broken = &'static str;

/// An algorithm, as the explorer sees it.
pub trait Model {
    /// One state of all shared words and of all processes. Plain bytes, so that it can be hashed and compared as such.
    type State: Copy + IntoBytes + Immutable + Debug;

    /// The states in which the system may start.
    fn initial(&self) -> Vec<Self::State>;

    /// Puts everything that can happen in `state` into `next`.
    fn successors(&self, state: &Self::State, next: &mut Successors<Self::State>);

    /// What holds in every state.
    ///
    /// # Errors
    ///
    /// The rule that `state` breaks.
    fn invariant(&self, state: &Self::State) -> Result<(), Broken>;

    /// What holds where nobody can move any more.
    ///
    /// # Errors
    ///
    /// The rule that `state` breaks.
    fn at_rest(&self, state: &Self::State) -> Result<(), Broken>;
}

/// One thing that can happen.
#[derive(Clone, Copy)]
struct Move<S> {
    label: &'static str,
    who: usize,
    is_step: bool,
    state: S,
    broken: Option<Broken>,
}

/// Everything that can happen in one state.
pub struct Successors<S> {
    moves: Vec<Move<S>>,
}

impl<S: Copy> Successors<S> {
    /// Process `who` takes a step: `act` changes a copy of `state` and says whether it could move.
    ///
    /// An error of `act` is a violation in the step itself, such as a message that was delivered twice.
    pub fn step(&mut self, who: usize, state: &S, act: impl FnOnce(&mut S) -> Result<bool, Broken>) {
        self.push("moves", true, who, state, act);
    }

    /// Something happens to process `who`; `label` says what. It does not count as progress.
    pub fn event(
        &mut self,
        label: &'static str,
        who: usize,
        state: &S,
        act: impl FnOnce(&mut S) -> Result<bool, Broken>,
    ) {
        self.push(label, false, who, state, act);
    }

    fn push(
        &mut self,
        label: &'static str,
        is_step: bool,
        who: usize,
        state: &S,
        act: impl FnOnce(&mut S) -> Result<bool, Broken>,
    ) {
        let mut state = *state;
        let broken = match act(&mut state) {
            Ok(true) => None,
            Ok(false) => return,
            Err(broken) => Some(broken),
        };
        self.moves.push(Move { label, who, is_step, state, broken });
    }
}

/// What was seen when no rule was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Different states.
    pub states: usize,
    /// Moves between them, events included.
    pub moves: usize,
    /// States in which nobody could take a step.
    pub at_rest: usize,
}

/// Why the exploration ended early.
pub enum Failure {
    /// A rule was broken.
    Violation {
        /// The rule.
        broken: Broken,
        /// What happened, from the start: one line for each move, with the state after it.
        trace: Vec<String>,
        /// States seen until then.
        states: usize,
    },
    /// There are more states than the limit allows.
    TooManyStates(usize),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation { broken, trace, states } => {
                writeln!(f, "violation: {broken} ({states} states seen)")?;
                trace.iter().try_for_each(|line| writeln!(f, "  {line}"))
            }
            Self::TooManyStates(limit) => write!(f, "more than {limit} states: make the configuration smaller"),
        }
    }
}

impl Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How to explore.
#[derive(Clone, Copy, Debug)]
pub struct Explorer {
    max_states: usize,
    no_livelock: bool,
}

impl Default for Explorer {
    fn default() -> Self {
        Self { max_states: 30_000_000, no_livelock: false }
    }
}

impl Explorer {
    /// Also require that every state can come to rest by steps alone. Costs 8 bytes for each move.
    #[must_use]
    pub fn no_livelock(mut self) -> Self {
        self.no_livelock = true;
        self
    }

    /// Visits every state of `model`.
    ///
    /// # Errors
    ///
    /// [`Failure::Violation`] with the shortest trace to a broken rule, [`Failure::TooManyStates`] when the model is
    /// too big.
    pub fn run<M: Model>(self, model: &M) -> Result<Report, Failure> {
        let mut seen = Seen::new();
        let mut next = Successors { moves: Vec::new() };
        let mut report = Report { states: 0, moves: 0, at_rest: 0 };
        let mut edges = Edges::default();

        for state in model.initial() {
            let (index, _) = seen.insert(state, Seen::<M::State>::ROOT);
            if let Err(broken) = model.invariant(&state) {
                return Err(violation(model, &seen, index, None, broken));
            }
        }
        let mut current = 0;
        while current < seen.len() {
            if seen.len() > self.max_states {
                return Err(Failure::TooManyStates(self.max_states));
            }
            let state = *seen.get(current);
            next.moves.clear();
            model.successors(&state, &mut next);
            let mut rests = true;
            for step in &next.moves {
                rests &= !step.is_step;
                if let Some(broken) = step.broken {
                    return Err(violation(model, &seen, current, Some(step), broken));
                }
                let (index, fresh) = seen.insert(step.state, current);
                if self.no_livelock && step.is_step {
                    edges.list.push((current as u32, index as u32));
                }
                if fresh && let Err(broken) = model.invariant(&step.state) {
                    return Err(violation(model, &seen, index, None, broken));
                }
            }
            report.moves += next.moves.len();
            if rests {
                report.at_rest += 1;
                edges.goals.push(current as u32);
                if let Err(broken) = model.at_rest(&state) {
                    return Err(violation(model, &seen, current, None, broken));
                }
            }
            current += 1;
        }
        report.states = seen.len();
        if self.no_livelock
            && let Some(trap) = edges.trap(seen.len())
        {
            return Err(violation(model, &seen, trap, None, "livelock: this state never comes to rest"));
        }
        Ok(report)
    }
}

/// The moves of an exploration, for the search of traps.
#[derive(Default)]
struct Edges {
    list: Vec<(u32, u32)>,
    goals: Vec<u32>,
}

impl Edges {
    /// The first state from which no goal can be reached.
    fn trap(&self, states: usize) -> Option<usize> {
        // The edges turned round, as one array of sources with the place where each target's sources begin.
        let mut begin = vec![0u32; states + 2];
        self.list.iter().for_each(|&(_, to)| begin[to as usize + 2] += 1);
        for state in 2..begin.len() {
            begin[state] += begin[state - 1];
        }
        let mut sources = vec![0u32; self.list.len()];
        for &(from, to) in &self.list {
            let place = &mut begin[to as usize + 1];
            sources[*place as usize] = from;
            *place += 1;
        }

        let mut reaches = vec![false; states];
        let mut todo = self.goals.clone();
        todo.iter().for_each(|&goal| reaches[goal as usize] = true);
        while let Some(state) = todo.pop() {
            let state = state as usize;
            for &source in &sources[begin[state] as usize..begin[state + 1] as usize] {
                if !std::mem::replace(&mut reaches[source as usize], true) {
                    todo.push(source);
                }
            }
        }
        reaches.iter().position(|&reached| !reached)
    }
}

/// Explores `model` and gives what was seen.
///
/// # Panics
///
/// With the trace, when a rule is broken.
pub fn holds<M: Model>(explorer: Explorer, model: &M) -> Report {
    explorer.run(model).unwrap_or_else(|failure| panic!("{failure}"))
}

/// Explores `model`, which has a seeded bug, and checks that the rule `expected` is found broken.
///
/// # Panics
///
/// When nothing is found, or another rule.
pub fn is_caught<M: Model>(explorer: Explorer, model: &M, expected: Broken) {
    match explorer.run(model) {
        Ok(report) => panic!("the seeded bug was not caught: {report:?}"),
        Err(Failure::Violation { broken, .. }) if broken == expected => {}
        Err(failure) => panic!("expected the violation \"{expected}\", got {failure}"),
    }
}

/// The way to state `index`, and `last` from there.
fn violation<M: Model>(
    model: &M,
    seen: &Seen<M::State>,
    index: usize,
    last: Option<&Move<M::State>>,
    broken: Broken,
) -> Failure {
    let mut path = vec![index];
    while let Some(parent) = seen.parent(path[path.len() - 1]) {
        path.push(parent);
    }
    path.reverse();
    let mut trace = vec![format!("start: {:?}", seen.get(path[0]))];
    let mut next = Successors { moves: Vec::new() };
    for pair in path.windows(2) {
        next.moves.clear();
        model.successors(seen.get(pair[0]), &mut next);
        let after = seen.get(pair[1]);
        let step = next.moves.iter().find(|step| step.state.as_bytes() == after.as_bytes());
        trace.extend(step.map(line));
    }
    trace.extend(last.map(line));
    Failure::Violation { broken, trace, states: seen.len() }
}

fn line<S: Debug>(step: &Move<S>) -> String {
    format!("{} {}: {:?}", step.who, step.label, step.state)
}

/// All states seen so far, in the order in which they were found, with an open-addressing index over them.
struct Seen<S> {
    chunks: Vec<Vec<S>>,
    parents: Vec<u32>,
    /// High half of the hash and number of the state; `EMPTY` where there is none.
    table: Vec<u64>,
}

impl<S: Copy + IntoBytes + Immutable> Seen<S> {
    const ROOT: usize = u32::MAX as usize;
    const CHUNK: usize = 1 << 14;
    const EMPTY: u64 = u64::MAX;

    fn new() -> Self {
        Self { chunks: Vec::new(), parents: Vec::new(), table: vec![Self::EMPTY; 1 << 16] }
    }

    fn len(&self) -> usize {
        self.parents.len()
    }

    fn get(&self, index: usize) -> &S {
        &self.chunks[index / Self::CHUNK][index % Self::CHUNK]
    }

    fn parent(&self, index: usize) -> Option<usize> {
        let parent = self.parents[index] as usize;
        (parent != Self::ROOT).then_some(parent)
    }

    /// The number of `state`, and whether it is new.
    fn insert(&mut self, state: S, parent: usize) -> (usize, bool) {
        if (self.len() + 1) * 10 > self.table.len() * 6 {
            self.grow();
        }
        let hash = hash(state.as_bytes());
        let tag = hash >> 32;
        let mask = self.table.len() - 1;
        let mut place = hash as usize & mask;
        while self.table[place] != Self::EMPTY {
            let entry = self.table[place];
            let index = entry as u32 as usize;
            if entry >> 32 == tag && self.get(index).as_bytes() == state.as_bytes() {
                return (index, false);
            }
            place = (place + 1) & mask;
        }
        let index = self.len();
        self.table[place] = tag << 32 | index as u64;
        if index.is_multiple_of(Self::CHUNK) {
            self.chunks.push(Vec::with_capacity(Self::CHUNK));
        }
        self.chunks[index / Self::CHUNK].push(state);
        self.parents.push(parent as u32);
        (index, true)
    }

    fn grow(&mut self) {
        let mask = self.table.len() * 2 - 1;
        let mut table = vec![Self::EMPTY; mask + 1];
        for (index, state) in self.chunks.iter().flatten().enumerate() {
            let hash = hash(state.as_bytes());
            let mut place = hash as usize & mask;
            while table[place] != Self::EMPTY {
                place = (place + 1) & mask;
            }
            table[place] = hash >> 32 << 32 | index as u64;
        }
        self.table = table;
    }
}

/// Multiply and fold, eight bytes at a time.
fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0x9E37_79B9_7F4A_7C15u64;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let mut eight = [0; 8];
        eight.copy_from_slice(word);
        hash = (hash ^ u64::from_le_bytes(eight)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        hash ^= hash >> 32;
    }
    let rest = words.remainder();
    let mut eight = [0; 8];
    eight[..rest.len()].copy_from_slice(rest);
    hash = (hash ^ u64::from_le_bytes(eight)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    hash ^ hash >> 29
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two counters below `top`; a process adds one to its own, an event takes the first to the pit at 200.
    struct Counters {
        top: u8,
        pit: bool,
        forbidden: [u8; 2],
    }

    impl Model for Counters {
        type State = [u8; 2];

        fn initial(&self) -> Vec<[u8; 2]> {
            vec![[0, 0]]
        }

        fn successors(&self, state: &[u8; 2], next: &mut Successors<[u8; 2]>) {
            for who in 0..2 {
                next.step(who, state, |state| {
                    let spins = state[who] == 200;
                    let moves = state[who] < self.top;
                    state[who] += u8::from(moves);
                    Ok(moves || spins)
                });
            }
            next.event("falls into the pit", 0, state, |state| {
                let falls = self.pit && state[0] == 0;
                state[0] = if falls { 200 } else { state[0] };
                Ok(falls)
            });
        }

        fn invariant(&self, state: &[u8; 2]) -> Result<(), Broken> {
            if *state == self.forbidden { Err("forbidden") } else { Ok(()) }
        }

        fn at_rest(&self, state: &[u8; 2]) -> Result<(), Broken> {
            if *state == [self.top; 2] { Ok(()) } else { Err("rests too early") }
        }
    }

    #[test]
    fn every_state_is_visited_once() {
        let report = holds(Explorer::default(), &Counters { top: 150, pit: false, forbidden: [9, 250] });
        assert_eq!(report, Report { states: 151 * 151, moves: 2 * 150 * 151, at_rest: 1 });
    }

    #[test]
    fn a_broken_invariant_comes_with_the_shortest_trace() {
        let failure = Explorer::default().run(&Counters { top: 9, pit: false, forbidden: [2, 3] });
        let Err(Failure::Violation { broken, trace, .. }) = failure else { panic!("nothing was found") };
        assert_eq!(broken, "forbidden");
        assert_eq!(trace.len(), 1 + 5);
        assert_eq!(trace[5], "1 moves: [2, 3]");
    }

    #[test]
    fn a_trap_is_found_only_when_asked_for() {
        let model = Counters { top: 4, pit: true, forbidden: [9, 9] };
        holds(Explorer::default(), &model);
        is_caught(Explorer::default().no_livelock(), &model, "livelock: this state never comes to rest");
    }

    #[test]
    fn the_limit_of_states_is_kept() {
        let explorer = Explorer { max_states: 100, ..Explorer::default() };
        let failure = explorer.run(&Counters { top: 50, pit: false, forbidden: [99, 99] });
        assert!(matches!(failure, Err(Failure::TooManyStates(100))));
    }

    #[test]
    #[should_panic(expected = "not caught")]
    fn a_bug_that_is_not_caught_fails_the_test() {
        is_caught(Explorer::default(), &Counters { top: 3, pit: false, forbidden: [9, 9] }, "forbidden");
    }
}
