//! Sleeping and waking, for models whose subject is something else.
//!
//! The wait word is the business of [`crate::waiting`]. Elsewhere a look that finds nothing and the sleep after it are one
//! step, and so is a wake; the wake is a step of its own, after the change that it tells of, so that a kill can come in
//! between. The end of a slice may end a sleep only where a kill has cost a wake-up.

use crate::explorer::{Broken, Successors};

/// A step of `who` that wakes one sleeper: one successor for each that it may be, one where nobody sleeps.
pub(crate) fn wake_one<S: Copy>(
    state: &S,
    next: &mut Successors<S>,
    who: usize,
    sleepers: impl Iterator<Item = usize>,
    wake: impl Fn(&mut S, usize),
    go_on: impl Fn(&mut S) -> Result<bool, Broken>,
) {
    let mut anybody = false;
    for sleeper in sleepers {
        anybody = true;
        next.step(who, state, |state| {
            wake(state, sleeper);
            go_on(state)
        });
    }
    if !anybody {
        next.step(who, state, go_on);
    }
}
