//! Data that processes share: single values, arrays, collections, and what never changes.
//!
//! | | reading | writing | after a death inside |
//! |---|---|---|---|
//! | [`Value`] | without a lock, never torn | under its lock, seen whole or not at all | nothing to repair |
//! | [`Value`] of a [`Number`], `fetch_add` and the like | one atomic instruction | the same | nothing to repair |
//! | [`Array`] | under its lock | under its lock | the next taker is told, if elements may be half written |
//! | [`Dict`], [`ShardedDict`], [`Namespace`], [`List`] | without a lock, never torn | under its lock, seen whole or not at all | nothing: the next writer repairs |
//! | [`Counter`] | one atomic load a stripe | one atomic instruction | nothing to repair |
//! | [`FrozenStr`], [`FrozenBytes`], [`FrozenArray`], [`FrozenDict`] | in place | once, before anybody sees it | nothing to repair |
//! | [`SharedMemory`], [`ShareableList`] | as you arrange it; without a lock | as you arrange it; as a [`List`] | nothing to repair |
//! | [`heap::Heap`]: structures of one's own | without a lock, never torn | under its lock, seen whole or not at all | nothing: the next changer repairs |
//! | pointers and raw views of [`Value`] and [`Array`] | as you arrange it | as you arrange it | as you arrange it |

mod arena;
pub(crate) mod array;
mod copies;
pub(crate) mod counter;
pub(crate) mod dict;
pub(crate) mod frozen;
mod frozen_dict;
mod guard;
pub mod heap;
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
