//! The algorithms of shmkit as explicit-state models: every interleaving, with a kill at every step.
//!
//! Each lock-free structure was designed as a model before it was code. A module here is one structure: its documentation is the algorithm step by
//! step, with the repair of what a dead process leaves; its `Bug` lists what can be done wrong. The tests visit all states of the algorithm, and
//! check that each seeded bug is found: a model that cannot see a bug proves nothing.
//!
//! Run them with `cargo test -p shmkit-models`; `-- --ignored` adds the larger configurations.

pub mod directory;
pub mod explorer;
pub mod extents;
pub mod heap;
mod life;
pub mod mutex;
pub mod queue;
pub mod read_link;
pub mod references;
pub mod registry;
pub mod segment_file;
pub mod waiting;
