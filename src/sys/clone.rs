//! Copying a process that has one thread, as a child of its parent.
//!
//! # References
//! `clone(2)`, `CLONE_PARENT`, `CLONE_PARENT_SETTID`; `PR_GET_TID_ADDRESS(2const)`.

use super::{SysError, shm};
use memmap2::{MmapOptions, MmapRaw};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// A word that two processes share: the kernel writes the process id of a copy into it before the copy runs and before
/// [`for_parent`] returns. So who is asked for a copy may be killed wherever it is: the other one knows whether there is one.
#[derive(Debug)]
pub(crate) struct Announcement {
    map: MmapRaw,
}

impl Announcement {
    const LEN: usize = size_of::<AtomicI32>();

    /// A new one, and its file for the other process.
    pub(crate) fn new() -> Result<(Announcement, OwnedFd), SysError> {
        let fd = shm::create_memfd("shmkit-copies", Announcement::LEN as u64)?;
        if !shm::back(fd.as_fd(), 0, Announcement::LEN as u64)? {
            return Err(SysError { call: "fallocate", errno: libc::ENOMEM });
        }
        Ok((Announcement::of(&fd)?, fd))
    }

    /// The one behind a descriptor. Copies of this process do not have it.
    pub(crate) fn of(fd: &OwnedFd) -> Result<Announcement, SysError> {
        let failed =
            |error: std::io::Error| SysError { call: "mmap", errno: error.raw_os_error().unwrap_or(libc::ENOMEM) };
        if shm::stat(fd.as_fd())?.st_size < Announcement::LEN as i64 {
            return Err(SysError { call: "mmap", errno: libc::EINVAL });
        }
        let map = MmapOptions::new().len(Announcement::LEN).map_raw(fd).map_err(failed)?;
        let announcement = Announcement { map };
        announcement.map.advise(memmap2::Advice::DontFork).map_err(failed)?;
        // The page is there when the kernel writes, be this process killed at that moment.
        announcement.word().fetch_add(0, Ordering::Relaxed);
        Ok(announcement)
    }

    fn word(&self) -> &AtomicI32 {
        // SAFETY: the mapping is page-aligned and has room for the word, which lives as long as it; the kernel and the other process
        // write it by single stores.
        unsafe { &*self.map.as_mut_ptr().cast::<AtomicI32>() }
    }

    /// Before a copy is asked for.
    pub(crate) fn clear(&self) {
        // Relaxed: the request is sent, and read, by system calls.
        self.word().store(0, Ordering::Relaxed);
    }

    /// The copy that was made since, if who was asked is dead.
    pub(crate) fn copy(&self) -> Option<u32> {
        // Acquire: the kernel's store came before the end of who was asked, which this process has heard of.
        u32::try_from(self.word().load(Ordering::Acquire)).ok().filter(|&pid| pid != 0)
    }
}

/// Copies this process, which must have one thread; the copy is a child of this process's parent, which reaps it. `None` in the
/// copy, its process id in the original, and in the announcement before either of them goes on.
///
/// As `fork(3)` does, the kernel writes the copy's thread id where the C library keeps it. Handlers of `pthread_atfork` do
/// not run: with one thread nothing is locked.
///
/// # Errors
/// Where the kernel does not tell where that is (`CONFIG_CHECKPOINT_RESTORE`), or has no room.
pub(crate) fn for_parent(announcement: &Announcement) -> Result<Option<u32>, SysError> {
    const PR_GET_TID_ADDRESS: i32 = 40;
    let mut place: *mut i32 = std::ptr::null_mut();
    // SAFETY: the call writes one pointer.
    if unsafe { libc::prctl(PR_GET_TID_ADDRESS, &raw mut place) } != 0 {
        return Err(SysError::last("prctl(PR_GET_TID_ADDRESS)"));
    }
    let own = libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID;
    let flags = libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID | own | libc::SIGCHLD;
    let word = announcement.map.as_mut_ptr();
    // SAFETY: without CLONE_VM the copy has its own memory; the stack is the caller's; `word` has room for a process id;
    // `place` is where the C library has the main thread's id, which is this thread's. It is the fourth argument or the fifth, as
    // the architecture has it; the other one is the thread's storage, which the flags do not ask for.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags as libc::c_long, 0, word, place, place) };
    match pid {
        -1 => Err(SysError::last("clone")),
        0 => Ok(None),
        pid => Ok(Some(pid as u32)),
    }
}
