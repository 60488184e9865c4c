//! The algorithm of lists.

#[path = "../../../../src/data/list/core.rs"]
pub(crate) mod core;
#[path = "../../../../src/data/list/directory.rs"]
mod directory;

#[cfg(test)]
#[path = "../tests/list.rs"]
mod tests;
