//! Everybody else. What needs a crate of its own is behind the feature `peers`; the kernel's own and Python's are always there.
//!
//! A peer whose name ends in "(threads)" works within one process only: it is there to compare with, and is never the best
//! peer. Peers that can be polled are polled without a pause; the kernel's own, and those that are built on them, block: they are
//! in the figures "blocking", too, where nobody spins.

#[cfg(feature = "peers")]
mod cloudtoid;
mod kernel;
mod python;

#[cfg(feature = "peers")]
mod iceoryx;
#[cfg(feature = "peers")]
mod rings;
#[cfg(feature = "peers")]
mod servers;
#[cfg(feature = "peers")]
mod threads;
#[cfg(feature = "peers")]
mod toolkits;

pub use python::{MANAGED_DICT, MANAGED_LIST};

use crate::contest::Contestant;
use crate::payload::{Bytes8, Payload};

/// All of several lists; those behind a semicolon with the feature `peers` only.
macro_rules! lists {
    ($($always:expr),*; $($peer:expr),*) => {{
        #[allow(unused_mut, reason = "without the feature nothing is added")]
        let mut all: Vec<Contestant> = Vec::new();
        $(all.extend($always);)*
        $(#[cfg(feature = "peers")] all.extend($peer);)*
        all
    }};
}

/// What a process that this harness started on a peer's behalf must do first.
pub fn enter() {
    #[cfg(feature = "peers")]
    toolkits::enter();
}

/// Whether those who pass messages by value are asked to carry this one. A larger one would go over the stack several times, and
/// the compiler takes a quarter of an hour for arrays of 64 KiB that do.
#[cfg(feature = "peers")]
const fn by_value<P>() -> bool {
    size_of::<P>() <= 1 << 10
}

/// Messages back and forth.
pub fn round_trips<P: Payload>() -> Vec<Contestant> {
    lists![
        kernel::round_trips::<P>();
        rings::round_trips::<P>(), cloudtoid::round_trips::<P>(), iceoryx::round_trips::<P>(), servers::round_trips::<P>(),
        threads::round_trips::<P>()
    ]
}

/// Numbers back and forth by those who sleep until there is one.
pub fn blocking() -> Vec<Contestant> {
    lists![kernel::round_trips::<Bytes8>(); servers::round_trips::<Bytes8>(), cloudtoid::blocking()]
}

/// Messages one way.
pub fn one_ways<P: Payload>() -> Vec<Contestant> {
    lists![
        kernel::one_ways::<P>();
        rings::one_ways::<P>(), cloudtoid::one_ways::<P>(), iceoryx::one_ways::<P>(), servers::one_ways::<P>(),
        threads::one_ways::<P>()
    ]
}

/// Messages one way, many at once.
#[cfg_attr(not(feature = "peers"), allow(clippy::extra_unused_type_parameters, reason = "then there are none"))]
pub fn batches<P: Payload>() -> Vec<Contestant> {
    lists![; cloudtoid::batches::<P>()]
}

/// Messages handed over where they lie: what is done with them is the payload's affair.
#[cfg_attr(not(feature = "peers"), allow(clippy::extra_unused_type_parameters, reason = "then there are none"))]
pub fn in_place<P: Payload>() -> Vec<Contestant> {
    lists![; iceoryx::round_trips::<P>(), rings::in_place_round_trips::<P>()]
}

/// Queues of so many processes, half of them senders.
pub fn queues<P: Payload>(processes: usize) -> Vec<Contestant> {
    lists![
        python::queues::<P>(processes);
        cloudtoid::queues::<P>(processes), iceoryx::queues::<P>(processes), threads::queues::<P>(processes)
    ]
}

/// Queues of serde records.
pub fn records() -> Vec<Contestant> {
    lists![; servers::records()]
}

/// Locks of so many processes.
pub fn locks(processes: usize) -> Vec<Contestant> {
    lists![kernel::locks(processes), python::locks(processes); toolkits::locks(processes)]
}

/// Reading or writing a dict that processes share.
pub fn dicts(writes: bool) -> Vec<Contestant> {
    python::dicts(writes)
}

/// Reading or appending to a list that processes share.
pub fn lists(writes: bool) -> Vec<Contestant> {
    python::lists(writes)
}

/// Opening shared memory.
pub fn attach() -> Vec<Contestant> {
    lists![; toolkits::attach()]
}

/// Starting processes.
pub fn processes() -> Vec<Contestant> {
    lists![python::processes(); toolkits::processes()]
}

/// Starting processes as copies of another one.
pub fn forked_processes() -> Vec<Contestant> {
    python::forked_processes()
}

/// Many trivial tasks.
pub fn pools() -> Vec<Contestant> {
    lists![python::pools(); threads::pools(), toolkits::pools()]
}

/// One task at a time.
pub fn pool_apply() -> Vec<Contestant> {
    lists![kernel::pool_apply(), python::pool_apply(); toolkits::pool_apply()]
}
