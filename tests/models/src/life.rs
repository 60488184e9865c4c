//! What becomes of a process.

use zerocopy::{Immutable, IntoBytes};

/// The life of the process behind a participant slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
pub(crate) enum Life {
    Alive,
    Killed,
    /// Recovery is over: a new process may take the slot.
    Recovered,
}
