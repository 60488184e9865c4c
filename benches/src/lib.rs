//! The benchmark harness of shmkit: the limits of the machine, shmkit, and everybody else, in one run.
//!
//! Every figure has contestants; each contestant is a function that all of its processes run ([`Stage::role`] tells them
//! apart). The harness starts them pinned, in new processes for each measurement, all contestants of a figure in turn, again
//! and again, and judges by the median of the ratios of what was measured one after the other. So a drift of the machine, or a
//! run that happened to be placed badly in memory, is nobody's advantage.
//!
//! * [`contest`]: figures, contestants, goals. `rows`: the figures. [`limits`], `peers`: the contestants.
//! * [`drivers`]: the loops that are timed, the same for all. [`payload`]: what is sent.
//! * [`stage`]: what the processes of one measurement share. `runner`: starts them. `statistics`, `report`: what comes out.
//!
//! # Examples
//! Benching a payload of one's own (`benches/examples/own_payload.rs`):
//! ```no_run
//! # use shmkit_benches::{Payload, Suite};
//! # type Reading = shmkit_benches::payload::Bytes64;
//! Suite::standard().payload::<Reading>().main(&std::env::args().skip(1).collect::<Vec<_>>());
//! ```

pub mod contest;
pub mod drivers;
pub mod limits;
pub mod machine;
pub mod payload;
mod peers;
mod report;
mod rows;
mod runner;
pub mod stage;
mod statistics;
mod suite;

pub use payload::Payload;
pub use stage::Stage;
pub use suite::Suite;

/// Whatever went wrong in a contestant, for people.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// What contestants give.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// A process with this variable in its environment ends at the start of `main`: a program that does nothing.
pub(crate) const NOTHING: &str = "SHMKIT_BENCH_NOTHING";

/// Whether this process was started to do nothing: what starting a program costs. Programs that have the harness beside other
/// commands ask this first thing in `main`.
pub fn ends_at_once() -> bool {
    std::env::var_os(NOTHING).is_some()
}
