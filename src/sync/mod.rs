//! Locks, semaphores and all that waits: between threads and processes alike, and robust against the death of any of them.
//!
//! | | | when somebody dies |
//! |---|---|---|
//! | [`Mutex`], [`Lock`] | one at a time, with or without data | the next owner is told |
//! | [`RLock`] | one thread, as often as it likes | the next owner is told |
//! | [`RwLock`] | many readers or one writer, with data | readers vanish; after a writer the next one, reader or writer, is told |
//! | [`Semaphore`], [`BoundedSemaphore`] | permits that anybody gives back | a permit it had is lost, as in Python |
//! | [`PermitSemaphore`] | permits that have owners | its permits come back |
//! | [`Event`] | a flag | – |
//! | [`Condition`] | waiting for a notification, the lock given up meanwhile | its notification goes to another one |
//! | [`Barrier`] | all wait for all | broken for those who wait |
//! | [`Once`] | done once | another one does it |
//!
//! [`wait_any`] waits for several of them, and for processes and descriptors; [`Readiness`] is a descriptor for an event loop, and
//! `Async` (feature `tokio`) lets tasks wait. [`set_interrupt_check`] lets a signal end any wait.
//!
//! All are made of one lock word ([`crate::segment`]'s `claim`), words that name their owners, or one count, and wait by one
//! protocol (`wait`, for several words `wait_many`).

#[cfg(feature = "tokio")]
pub(crate) mod asynchronous;
mod barrier;
mod bounded;
mod bridge;
mod condition;
pub(crate) mod event;
pub(crate) mod mutex;
pub(crate) mod once;
pub(crate) mod parties;
pub(crate) mod permits;
pub(crate) mod readers;
mod readiness;
pub(crate) mod rlock;
mod rwlock;
pub(crate) mod semaphore;
pub(crate) mod wait_any;
mod waitable;
pub(crate) mod waiters;

pub use crate::segment::interrupt::set_interrupt_check;
#[cfg(feature = "tokio")]
pub use asynchronous::Async;
pub use barrier::{Barrier, BarrierOptions};
pub use bounded::{BoundedSemaphore, BoundedSemaphoreOptions};
pub(crate) use bridge::{has_bridge, stop_bridge};
pub use condition::{Condition, ConditionGuard, ConditionOptions};
pub use event::{Event, EventOptions};
pub use mutex::{Lock, LockError, LockGuard, LockOptions, Mutex, MutexGuard, MutexOptions, Recovered, Unlocked};
pub use once::{Once, OnceOptions};
pub use permits::{PermitGuard, PermitSemaphore, PermitSemaphoreOptions};
pub use readiness::Readiness;
pub use rlock::{RLock, RLockGuard, RLockOptions};
pub use rwlock::{RwLock, RwLockOptions, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{Semaphore, SemaphoreGuard, SemaphoreOptions};
pub use wait_any::{Waitable, wait_any};
