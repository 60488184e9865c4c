//! Values of more than 8 bytes, dicts and lists.

#[path = "../../../../src/data/arena/mod.rs"]
pub(crate) mod arena;
#[path = "../../../../src/data/copies.rs"]
pub(crate) mod copies;
pub(crate) mod dict;
pub(crate) mod guard;
pub(crate) mod list;
#[path = "../../../../src/data/node.rs"]
pub(crate) mod node;
#[path = "../../../../src/data/words.rs"]
pub(crate) mod words;

#[cfg(test)]
#[path = "../tests/memory.rs"]
pub(crate) mod memory;
#[cfg(test)]
#[path = "../tests/value.rs"]
mod tests;
