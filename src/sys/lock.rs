//! Kernel locks that live exactly as long as an address space can store: the proof of life and the locks of recovery.
//!
//! An [`Anchor`] is a write lock on one byte of a file, taken through an open file description that nothing but a private
//! mapping refers to. The kernel drops it at `munmap`, `exec`, or when the last thread of the last user of the address
//! space is gone; closing descriptors, `fork` and `unshare(CLONE_FILES)` do not.
//!
//! # References
//! `fcntl(2)`, "Open file description locks"; `madvise(2)`, `MADV_DONTFORK`.

use super::{Call, SysError, fork, shm};
use rustix::mm::{self, Advice, MapFlags, ProtFlags};
use std::ffi::c_void;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

const PAGE: usize = 4096;

/// A held lock byte; dropping it releases the byte.
#[derive(Debug)]
pub(crate) struct Anchor {
    page: NonNull<c_void>,
}

// SAFETY: the mapping belongs to the process, not to the thread that made it.
unsafe impl Send for Anchor {}
// SAFETY: nothing is read through the mapping.
unsafe impl Sync for Anchor {}

impl Anchor {
    /// Takes the lock on `byte` of the file behind `fd`; `Ok(None)` if somebody else holds it.
    pub(crate) fn try_new(fd: BorrowedFd<'_>, byte: u64) -> Result<Option<Anchor>, SysError> {
        Ok(Anchor::try_first(fd, [byte])?.map(|(anchor, _)| anchor))
    }

    /// Takes the lock on the first of `bytes` that nobody else holds, and says which; `Ok(None)` if all are held.
    pub(crate) fn try_first(
        fd: BorrowedFd<'_>,
        bytes: impl IntoIterator<Item = u64>,
    ) -> Result<Option<(Anchor, u64)>, SysError> {
        // A fork between open and close would copy the descriptor, and with it the lock, into the child.
        let _no_fork = fork::hold_off();
        let description = shm::reopen(fd)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let page = unsafe {
            mm::mmap(ptr::null_mut(), PAGE, ProtFlags::READ, MapFlags::SHARED, &description, 0).call("mmap")?
        };
        let anchor = Anchor { page: NonNull::new(page).expect("mmap never gives page 0") };
        // SAFETY: the page was just mapped and nobody else knows it.
        unsafe { mm::madvise(page, PAGE, Advice::LinuxDontFork).call("madvise(MADV_DONTFORK)")? };
        for byte in bytes {
            match set_lock(description.as_raw_fd(), byte) {
                Ok(()) => return Ok(Some((anchor, byte))),
                Err(libc::EAGAIN | libc::EACCES) => {}
                Err(errno) => return Err(SysError { call: "fcntl(F_OFD_SETLK)", errno }),
            }
        }
        Ok(None)
    }

    /// Forgets the anchor in a forked child, where the page was never mapped.
    pub(crate) fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        // SAFETY: the page was mapped by `try_first` and is unmapped once.
        let _ = unsafe { mm::munmap(self.page.as_ptr(), PAGE) };
    }
}

fn flock(byte: u64, len: u64) -> libc::flock {
    // SAFETY: flock is plain data; all zeros is a valid value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    lock.l_start = byte as i64;
    lock.l_len = len as i64;
    lock
}

fn set_lock(fd: i32, byte: u64) -> Result<(), i32> {
    let lock = flock(byte, 1);
    // SAFETY: F_OFD_SETLK reads one flock.
    if unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, &lock) } == 0 { Ok(()) } else { Err(SysError::last("fcntl").errno) }
}

/// Whether anybody but the description of `fd` holds one of the `len` bytes from `byte`.
pub(crate) fn is_held(fd: BorrowedFd<'_>, byte: u64, len: u64) -> Result<bool, SysError> {
    let mut lock = flock(byte, len);
    // SAFETY: F_OFD_GETLK reads and writes one flock.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) } != 0 {
        return Err(SysError::last("fcntl(F_OFD_GETLK)"));
    }
    Ok(lock.l_type != libc::F_UNLCK as i16)
}
