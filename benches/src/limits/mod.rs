//! What the machine can do at best: each is the least code that does the job, without names, checks, waiting or safety.

mod locks;
mod processes;
mod rings;
mod trips;

pub(crate) use locks::GAP;
pub use locks::{FutexMutex, Locks, contended, futex_mutex_contended, futex_mutex_uncontended, gap_steps, uncontended};
pub use processes::{command, fork, fork_server, open_and_map, shm_open};
pub use rings::{RingEnd, ring_one_way, ring_one_way_in_batches, ring_round_trip};
pub use trips::{futex, futex_in_slices, line, memcpy};
