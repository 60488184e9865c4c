//! Python's `multiprocessing`, rebuilt on named shared-memory segments: a process may be killed at any instruction, and
//! nobody else hangs, no committed message is lost, nothing is corrupted, nothing leaks.
//!
//! | you want | you use |
//! |---|---|
//! | memory that processes share by name | [`Segment`], or nothing: the session segment is there |
//! | processes | [`Process`], `#[shmkit::main]` |
//! | workers that run functions | [`Pool`] |
//! | mutual exclusion | [`Mutex`], [`Lock`], [`RLock`], [`RwLock`] |
//! | permits | [`Semaphore`], [`BoundedSemaphore`]; [`PermitSemaphore`], whose permits come back from the dead |
//! | to wait for others | [`Event`], [`Condition`], [`Barrier`], [`Once`]; [`sync::wait_any`] for several things at once |
//! | one sender and one receiver of plain data, as fast as the hardware | [`channel()`] |
//! | one value, many values | [`Value`], [`Array`] |
//! | collections | [`Dict`], [`ShardedDict`], [`List`], [`Namespace`], [`Counter`] |
//! | data structures of your own | [`heap::Heap`] |
//! | what never changes, without copies | [`FrozenStr`], [`FrozenBytes`], [`FrozenArray`], [`FrozenDict`] |
//! | messages between processes | [`Queue`]; [`JoinableQueue`] to wait until all are done; [`PodQueue`] for plain data that is not to be copied; [`pipe`] |
//! | a connection to a process that is no relative | [`Listener`], [`Client`] |
//!
//! Every handle is a serde value: it can be an argument of a process and a message in a queue.
//!
//! Linux only, 64 bits, little-endian or big-endian (segments are not exchanged between the two).

#![cfg_attr(docsrs, feature(doc_cfg))]

#[macro_use]
#[doc(hidden)]
pub mod failpoint;
#[macro_use]
mod trace;

pub mod channel;
pub mod data;
pub mod element;
mod error;
pub(crate) mod kinds;
pub mod pool;
pub mod process;
pub mod segment;
pub mod sync;
mod sys;

pub use bytemuck;
pub use channel::{
    Client, Connection, Consumer, JoinableQueue, Listener, Loan, Message, PodQueue, Producer, Queue, Received,
    Receiver, Sender, Task, channel, channel_in, pipe,
};
pub use data::heap;
pub use data::{
    Array, Counter, Dict, FrozenArray, FrozenBytes, FrozenDict, FrozenStr, List, Namespace, Scalar, ShardedDict,
    ShareableList, SharedMemory, Value,
};
pub use element::Element;
pub use error::{ChannelError, DataError, Error, Holder, ProcessError, Result, SegmentError, SyncError, TaskError};
pub use pool::{AsyncResult, Pool};
pub use process::{
    ExitStatus, Outcome, Process, Run, Target, active_children, cpu_count, current_process, parent_process,
};
pub use segment::{Context, LifePolicy, Segment, SegmentBuilder, session, set_spin_time};
pub use shmkit_macros::{Element, main};
pub use sync::{
    Barrier, BoundedSemaphore, Condition, Event, Lock, LockError, Mutex, Once, PermitSemaphore, RLock, RwLock,
    Semaphore,
};
pub use sys::SysError;

/// The snippets of the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
