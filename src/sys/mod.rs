//! The only files that talk to the operating system.
//!
//! One thin function per call; each returns [`SysError`], which names the call and the `errno`.

/// The atomics of shared words. The files that are tested under loom (`tests/loom`) take them from here.
pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::*;
}
pub(crate) mod clone;
pub(crate) mod fork;
pub(crate) mod futex;
pub(crate) mod lock;
pub(crate) mod map;
pub(crate) mod membarrier;
pub(crate) mod memory;
pub(crate) mod module;
pub(crate) mod pidfd;
pub(crate) mod poll;
pub(crate) mod proc;
pub(crate) mod shm;
pub(crate) mod socket;
pub(crate) mod spawn;
pub(crate) mod watch;

/// A failed system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {}", std::io::Error::from_raw_os_error(*errno))]
pub struct SysError {
    /// The call.
    pub call: &'static str,
    /// Its `errno`.
    pub errno: i32,
}

impl SysError {
    pub(crate) fn new(call: &'static str, errno: rustix::io::Errno) -> SysError {
        SysError { call, errno: errno.raw_os_error() }
    }
    pub(crate) fn last(call: &'static str) -> SysError {
        SysError { call, errno: std::io::Error::last_os_error().raw_os_error().unwrap_or(0) }
    }
}

/// Adds the name of the call to an errno.
pub(crate) trait Call<T> {
    fn call(self, call: &'static str) -> Result<T, SysError>;
}

impl<T> Call<T> for rustix::io::Result<T> {
    fn call(self, call: &'static str) -> Result<T, SysError> {
        self.map_err(|errno| SysError::new(call, errno))
    }
}
