//! Plain data that processes share: one [`Value`], or an [`Array`] of many.
//!
//! | | reading | writing | after a death inside |
//! |---|---|---|---|
//! | [`Value`] | without a lock, never torn | under its lock, seen whole or not at all | nothing to repair |
//! | [`Value`] of a [`Number`], `fetch_add` and the like | one atomic instruction | the same | nothing to repair |
//! | [`Array`] | under its lock | under its lock | the next taker is told, if elements may be half written |
//! | pointers and raw views of both | as you arrange it | as you arrange it | as you arrange it |

mod arena;
pub(crate) mod array;
pub(crate) mod counter;
pub(crate) mod dict;
pub(crate) mod frozen;
mod frozen_dict;
mod guard;
pub(crate) mod list;
pub(crate) mod namespace;
mod node;
mod number;
pub(crate) mod sharded;
mod shareable_list;
mod shared_memory;
pub(crate) mod value;
mod views;
mod words;

pub use array::{Array, ArrayGuard, ArrayOptions};
pub use counter::{Counter, CounterOptions};
pub use dict::{ContainerOptions, Dict, DictIter};
pub use frozen::{FrozenArray, FrozenBytes, FrozenOptions, FrozenStr};
pub use frozen_dict::FrozenDict;
pub use list::{List, ListIter};
pub use namespace::Namespace;
pub use number::{Integer, Number};
pub use sharded::{ShardedDict, ShardedOptions};
pub use shareable_list::{Scalar, ShareableList};
pub use shared_memory::SharedMemory;
pub use value::{Value, ValueGuard, ValueOptions};
pub use views::{Atomics, RawRange};
