//! The algorithm of dicts.

#[path = "../../../../src/data/dict/core.rs"]
pub(crate) mod core;
#[path = "../../../../src/data/dict/table.rs"]
mod table;

#[cfg(test)]
#[path = "../tests/dict.rs"]
mod tests;
