//! The lock-free code of shmkit under loom: every interleaving of a few threads, and every reordering that C++20 allows.
//!
//! The files under test are those of the library, taken in by their path: the eventcount, the lock word, the queue's ring,
//! both ends of the pipe, the two copies of a value, dicts and lists with the blocks below them. What they stand on is replaced
//! here, by the same names: atomics (`sys::atomic`) and the fields of the shared structs by loom's, the heap by a few units of such
//! words, the futex by a list of sleepers under a mutex, the asymmetric barrier by a word that both sides change, a segment by
//! ordinary memory, the registry by an `Attachment` that knows its own token and that
//! everybody lives. Sleeps have no end of their own: a lost wake-up is a deadlock, which loom reports.
//!
//! Loom takes sequentially consistent accesses for acquiring and releasing ones, and keeps only fences as they are. What
//! `membarrier(2)` does on top is beyond it: `docs/memory-model.md` argues that.
//!
//! Run with `cargo xtask loom`. The tests do nothing without `--cfg loom`.
#![cfg(loom)]
#![allow(dead_code, reason = "the files under test have more than what is tested")]

macro_rules! failpoint {
    ($name:literal) => {};
}

#[path = "../../../src/error.rs"]
mod error;
pub(crate) use error::Error;
mod channel;
mod data;
pub mod element;
mod process;
mod segment;
mod sys;

#[cfg(test)]
mod tests;
