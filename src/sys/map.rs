//! The mapping of a segment: address space reserved once, at a place that never changes.

use super::SysError;
use memmap2::{MmapOptions, MmapRaw};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A mapped file of shared memory.
#[derive(Debug)]
pub(crate) struct Mapping {
    map: MmapRaw,
    fd: OwnedFd,
}

impl Mapping {
    /// Maps `len` bytes of `fd`, readable and writable.
    pub(crate) fn new(fd: OwnedFd, len: u64) -> Result<Mapping, SysError> {
        let len = usize::try_from(len).map_err(|_| SysError { call: "mmap", errno: libc::ENOMEM })?;
        let map = MmapOptions::new()
            .len(len)
            .no_reserve_swap()
            .map_raw(&fd)
            .map_err(|error| SysError { call: "mmap", errno: error.raw_os_error().unwrap_or(libc::ENOMEM) })?;
        let _ = map.advise(memmap2::Advice::DontDump);
        Ok(Mapping { map, fd })
    }

    /// The first byte.
    #[inline]
    pub(crate) fn base(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// The file. Somebody may have closed the descriptor and opened another file under its number.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
