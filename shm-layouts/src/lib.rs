//! Every struct that shmkit puts in shared memory, and nothing else.
//!
//! The types here are the written layout: `#[repr(C)]`, fixed-width, atomics as fields, no padding left to the
//! compiler, every offset asserted at compile time. `SPEC.md` beside this crate says what the words mean and in which order
//! they may change; the C header, `layouts.json` and the tables in `SPEC.md` are generated from [`reflect`].
//!
//! Bytes of a segment may be written by a peer at any moment. Nobody should hold a `&` to anything but the
//! atomics in it, and every value read from it is untrusted until it was checked.
#![no_std]

#[macro_use]
mod layout;

/// The atomics that the fields are: those of `core`, and loom's under `cfg(loom)`, where the project tests its algorithms.
pub mod atomic {
    #[cfg(not(loom))]
    pub use core::sync::atomic::{AtomicU32, AtomicU64};
    #[cfg(loom)]
    pub use loom::sync::atomic::{AtomicU32, AtomicU64};
}

pub mod bits;
pub mod containers;
pub mod kinds;
pub mod objects;
pub mod reflect;
pub mod segment;
pub mod words;
