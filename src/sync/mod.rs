//! Locks, semaphores and events: between threads and processes alike, and robust against the death of whoever holds them.
//!
//! All are made of one lock word ([`crate::segment`]'s `claim`) or one count, and wait by one protocol (`wait`).

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
