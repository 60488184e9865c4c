//! Values of more than 8 bytes.

#[path = "../../../src/data/copies.rs"]
pub(crate) mod copies;
#[path = "../../../src/data/words.rs"]
pub(crate) mod words;

#[cfg(test)]
#[path = "tests/value.rs"]
mod tests;
