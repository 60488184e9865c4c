//! The mapping of a segment: address space reserved once, at a place that never changes.

use super::SysError;
use memmap2::{MmapOptions, MmapRaw};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A mapped file of shared memory.
///
/// The program may close its descriptor behind our back (`close_range(2)`) and open another file under its number: nothing but
/// the number of the inode tells whose it is.
#[derive(Debug)]
pub(crate) struct Mapping {
    map: MmapRaw,
    fd: ManuallyDrop<OwnedFd>,
    inode: (u64, u64),
}

impl Mapping {
    /// Maps `len` bytes of `fd`, whose device and inode are `inode`, readable and writable.
    pub(crate) fn new(fd: OwnedFd, len: u64, inode: (u64, u64)) -> Result<Mapping, SysError> {
        let len = usize::try_from(len).map_err(|_| SysError { call: "mmap", errno: libc::ENOMEM })?;
        let map = MmapOptions::new()
            .len(len)
            .no_reserve_swap()
            .map_raw(&fd)
            .map_err(|error| SysError { call: "mmap", errno: error.raw_os_error().unwrap_or(libc::ENOMEM) })?;
        let _ = map.advise(memmap2::Advice::DontDump);
        Ok(Mapping { map, fd: ManuallyDrop::new(fd), inode })
    }

    /// The first byte.
    #[inline]
    pub(crate) fn base(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// The descriptor it was mapped with, whatever is behind it now: for questions that no other file can answer wrongly.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The file and its length, if the descriptor is still its own.
    pub(crate) fn file(&self) -> Option<(BorrowedFd<'_>, u64)> {
        let stat = super::shm::stat(self.fd()).ok()?;
        ((stat.st_dev, stat.st_ino) == self.inode).then(|| (self.fd(), stat.st_size as u64))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.file().is_some() {
            // SAFETY: dropped once, here; the descriptor is ours.
            unsafe { ManuallyDrop::drop(&mut self.fd) };
        }
    }
}
