//! The families of operations: one file for each kind of object.
//!
//! To add an operation, add a [`crate::operation::Acts::act`] to its family. To add a kind of object, add a file with a
//! [`crate::operation::Subject`] and its acts, and its family to [`all`].

mod array;
mod barrier;
mod bytes;
mod closing;
mod closing_pipe;
mod condition;
mod connection;
mod containers;
mod dict;
mod ends;
mod event;
mod heap;
mod joinable;
mod kinds;
mod list;
mod listener;
mod locks;
mod messages;
mod mutex;
mod objects;
mod once;
mod permits;
mod pipe;
mod pod_queue;
mod poison;
mod pool;
mod process;
mod queue;
mod readiness;
mod rwlock;
mod semaphore;
mod shared_memory;
mod states;
mod value;

use crate::operation::{Check, Deed, Family, family};
use shmkit::LockError;
use shmkit::sync::Unlocked;

/// All families.
pub fn all() -> Vec<Box<dyn Family>> {
    vec![
        family("segment", objects::acts()),
        family("kind", kinds::acts()),
        family("shared-memory", shared_memory::acts()),
        family("mutex", mutex::acts()),
        family("lock", locks::acts()),
        family("rwlock", rwlock::acts()),
        family("poison", poison::acts()),
        family("semaphore", semaphore::acts()),
        family("permits", permits::acts()),
        family("event", event::acts()),
        family("once", once::acts()),
        family("condition", condition::acts()),
        family("barrier", barrier::acts()),
        family("value", value::acts()),
        family("array", array::acts()),
        family("dict", dict::acts()),
        family("list", list::acts::<list::Words>()),
        family("number-list", list::acts::<list::Numbers>()),
        family("containers", containers::acts()),
        family("heap", heap::acts()),
        family("pod-queue", pod_queue::acts()),
        family("queue", queue::acts::<queue::Short>()),
        family("long-queue", queue::acts::<queue::Long>()),
        family("handle-queue", queue::acts::<queue::Carrying>()),
        family("growing-queue", queue::acts::<queue::Growing>()),
        family("fleeting-queue", queue::acts::<queue::Fleeting>()),
        family("producer", ends::producing()),
        family("consumer", ends::consuming()),
        family("joinable-queue", joinable::acts()),
        family("closing-queue", closing::acts::<queue::InSegment<queue::Short>>()),
        family("closing-pod-queue", closing::acts::<shmkit::PodQueue<[u64; 2]>>()),
        family("closing-joinable-queue", closing::acts::<joinable::Tasks>()),
        family("connection", connection::acts()),
        family("bytes", bytes::acts()),
        family("listener", listener::acts()),
        family("pipe", pipe::acts()),
        family("closing-pipe", closing_pipe::acts()),
        family("readiness", readiness::acts()),
        family("process", process::acts()),
        family("pool", pool::acts()),
    ]
}

/// How often the deeds of these acts may have had their effect: at least and at most.
fn effects(deeds: &[Deed], acts: &[&str]) -> (u64, u64) {
    let of_acts = || deeds.iter().filter(|deed| acts.contains(&deed.act));
    (of_acts().filter(|deed| deed.is_done).count() as u64, of_acts().count() as u64)
}

/// Somebody does something and dies.
fn dies(life: impl FnOnce() -> Check) {
    let pid = crate::step::forked(|| {
        let _ = life();
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        0
    });
    let _ = nix::sys::wait::waitpid(pid, None);
}

/// A lock that was taken, repaired if its owner died; and whether he did.
pub fn repaired<G: Unlocked>(taken: Result<G, LockError<G>>, repair: impl FnOnce(&mut G)) -> Check<(G, bool)> {
    match taken {
        Ok(guard) => Ok((guard, false)),
        Err(error) => {
            let was_told = error.is_owner_died();
            Ok((error.repair(repair)?, was_told))
        }
    }
}
