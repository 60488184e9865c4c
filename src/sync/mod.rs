//! Locks, semaphores and events: between threads and processes alike, and robust against the death of whoever holds them.
//!
//! All are made of one lock word ([`crate::segment`]'s `claim`) or one count, and wait by one protocol (`wait`).

mod barrier;
mod bounded;
mod condition;
pub(crate) mod event;
pub(crate) mod mutex;
pub(crate) mod once;
pub(crate) mod parties;
pub(crate) mod permits;
pub(crate) mod readers;
pub(crate) mod rlock;
mod rwlock;
pub(crate) mod semaphore;
pub(crate) mod waiters;

pub use crate::segment::interrupt::set_interrupt_check;
pub use barrier::{Barrier, BarrierOptions};
pub use bounded::{BoundedSemaphore, BoundedSemaphoreOptions};
pub use condition::{Condition, ConditionGuard, ConditionOptions};
pub use event::{Event, EventOptions};
pub use mutex::{Lock, LockError, LockGuard, LockOptions, Mutex, MutexGuard, MutexOptions, Recovered, Unlocked};
pub use once::{Once, OnceOptions};
pub use permits::{PermitGuard, PermitSemaphore, PermitSemaphoreOptions};
pub use rlock::{RLock, RLockGuard, RLockOptions};
pub use rwlock::{RwLock, RwLockOptions, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{Semaphore, SemaphoreGuard, SemaphoreOptions};
