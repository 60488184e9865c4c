//! What is true of data, whatever its kind: it is in a state that somebody brought about, as if the deeds had been done one
//! after the other, those of the dead as far as they came.

use crate::operation::{Check, Deed, Subject, corrupt, lost};
use shmkit::Segment;
use std::fmt::Debug;

/// Data with states.
pub trait Stateful: Sized + 'static {
    /// A state.
    type State: Clone + PartialEq + Debug;
    /// Makes it, in its first state.
    fn create(segment: &Segment) -> shmkit::Result<Self>;
    /// Opens it.
    fn open(segment: &Segment) -> shmkit::Result<Self>;
    /// Its first state.
    fn first() -> Self::State;
    /// The state it is in; an error if it is in none.
    fn read(&self) -> Check<Self::State>;
    /// Brings it back to its first state.
    fn reset(&self) -> Check;
    /// The states an act leads through, in which its killed author may leave it; none if it changes nothing.
    fn steps(act: &str, id: u64, before: &Self::State) -> Vec<Self::State>;
    /// Reads what can be read without waiting for a writer who is stopped.
    fn peek(&self) -> Check {
        Ok(())
    }
    /// What else there is to use.
    fn use_otherwise(&self) -> Check {
        Ok(())
    }
}

/// Data whose states are judged.
pub struct Judged<D>(pub D);

impl<D> std::ops::Deref for Judged<D> {
    type Target = D;

    fn deref(&self) -> &D {
        &self.0
    }
}

/// All states the deeds may have led to, in any order. With `all_optional`, those that were done may not have been.
fn possible<D: Stateful>(deeds: &[Deed], all_optional: bool) -> Vec<D::State> {
    fn go<D: Stateful>(state: D::State, rest: &[&Deed], all_optional: bool, found: &mut Vec<D::State>) {
        if rest.is_empty() {
            if !found.contains(&state) {
                found.push(state);
            }
            return;
        }
        for (index, deed) in rest.iter().enumerate() {
            let others: Vec<&Deed> = [&rest[..index], &rest[index + 1..]].concat();
            let steps = D::steps(deed.act, deed.id, &state);
            let is_done = deed.is_done && !all_optional;
            let mut after = if is_done { Vec::new() } else { steps.clone() };
            after.push(if is_done { steps.last().unwrap_or(&state).clone() } else { state.clone() });
            after.into_iter().for_each(|state| go::<D>(state, &others, all_optional, found));
        }
    }
    let mut found = Vec::new();
    go::<D>(D::first(), &deeds.iter().collect::<Vec<_>>(), all_optional, &mut found);
    found
}

impl<D: Stateful> Subject for Judged<D> {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        D::create(segment).map(Judged)
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        D::open(segment).map(Judged)
    }

    fn glance(&self, _: &Deed) -> Check {
        self.peek()
    }

    fn audit(&self, _: &Segment, deeds: &[Deed]) -> Check {
        let found = self.read()?;
        if !possible::<D>(deeds, false).contains(&found) {
            let wrong = if possible::<D>(deeds, true).contains(&found) { lost } else { corrupt };
            return wrong(format!("{found:?} after {deeds:?}"));
        }
        self.reset()?;
        match self.read()? {
            state if state == D::first() => Ok(()),
            state => corrupt(format!("{state:?} instead of what was written")),
        }
    }

    fn exercise(&self, _: &Segment) -> Check {
        self.use_otherwise()?;
        self.reset()?;
        if self.read()? == D::first() { Ok(()) } else { corrupt("another state than what was written") }
    }

    fn may_grow() -> bool {
        true
    }
}
