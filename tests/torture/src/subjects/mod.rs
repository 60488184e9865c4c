//! The families of operations: one file for each kind of object.
//!
//! To add an operation, add a [`crate::operation::Acts::act`] to its family. To add a kind of object, add a file with a
//! [`crate::operation::Subject`] and its acts, and its family to [`all`].

mod event;
mod mutex;
mod semaphore;

use crate::operation::{Deed, Family, family};

/// All families.
pub fn all() -> Vec<Box<dyn Family>> {
    vec![family("mutex", mutex::acts()), family("semaphore", semaphore::acts()), family("event", event::acts())]
}

/// How often the deeds of these acts may have had their effect: at least and at most.
fn effects(deeds: &[Deed], acts: &[&str]) -> (u64, u64) {
    let of_acts = || deeds.iter().filter(|deed| acts.contains(&deed.act));
    (of_acts().filter(|deed| deed.is_done).count() as u64, of_acts().count() as u64)
}
