//! The algorithms of shmkit as explicit-state models: every interleaving, with a kill at every step.
//!
//! Each lock-free structure was designed as a model before it was code. A module here is one structure: its
//! documentation is the algorithm step by step, with the repair of what a dead process leaves; its `Bug` lists what can
//! be done wrong. The tests visit all states of the algorithm, and check that each seeded bug is found: a model that
//! cannot see a bug proves nothing.
//!
//! | Module | Algorithm |
//! |---|---|
//! | [`fences`] | who pays for the order between a change and the look at the wait word, with store buffers |
//! | [`waiting`] | the eventcount: publish, wait, relay, leave |
//! | [`mutex`] | the robust mutex, with owner-death recovery |
//! | [`pipe`] | the ring between two ends that change hands, and the end of the file |
//! | [`barrier`] | arrivals that are claimed once in a round, resets, time-outs |
//! | [`condition`] | records of waiters, and notifications that no death swallows |
//! | [`permits`] | the permit semaphore |
//! | [`pool`] | task words, and the order of replies and deaths |
//! | [`runs`] | tasks that a worker takes together: outcomes published one by one, and taken back what is not begun |
//! | [`queue`] | the index ring over owned blocks, with reuse of participant slots and one-pass recovery |
//! | [`registry`] | attach, detach and recovery of a participant slot |
//! | [`read_link`] | reads of a published block without a lock |
//! | [`value`] | values of more than eight bytes: two copies and a sequence |
//! | [`references`] | what keeps an object alive, without a count |
//! | [`directory`] | create-or-open and remove by name |
//! | [`segment_file`] | the life of a segment's file |
//! | [`extents`] | slabs and big blocks |
//! | [`heap`] | blocks, and the SWING of a published word |
//! | [`dict`] | the compact dict: lookups without a lock, tables built in steps |
//! | [`list`] | the list: directory, chunks, nodes |
//! | [`arena`] | the same, with the allocation inside the container's lock |
//!
//! Memory is sequentially consistent here, and hints (bitmaps of free blocks, requeue hints) are left out: an algorithm
//! must be right without them.
//!
//! Run the tests with `cargo test -p shmkit-models`; `-- --ignored` adds the larger configurations. A module's "Size"
//! gives the number of states; the tests assert it, so that a model that lost a step is noticed.

pub mod arena;
pub mod barrier;
pub mod condition;
pub mod dict;
pub mod directory;
pub mod explorer;
pub mod extents;
pub mod fences;
pub mod heap;
mod life;
pub mod list;
pub mod mutex;
pub mod permits;
pub mod pipe;
pub mod pool;
pub mod queue;
pub mod read_link;
pub mod references;
pub mod registry;
pub mod rlock;
pub mod runs;
pub mod segment_file;
mod sleepers;
pub mod value;
pub mod waiting;
