//! Copying a process that has one thread, as a child of its parent.
//!
//! # References
//! `clone(2)`, `CLONE_PARENT`; `PR_GET_TID_ADDRESS(2const)`.

use super::SysError;

/// Copies this process, which must have one thread; the copy is a child of this process's parent, which reaps it. `None` in the
/// copy, its process id in the original.
///
/// As `fork(3)` does, the kernel writes the copy's thread id where the C library keeps it. Handlers of `pthread_atfork` do
/// not run: with one thread nothing is locked.
///
/// # Errors
/// Where the kernel does not tell where that is (`CONFIG_CHECKPOINT_RESTORE`), or has no room.
pub(crate) fn for_parent() -> Result<Option<u32>, SysError> {
    const PR_GET_TID_ADDRESS: i32 = 40;
    let mut place: *mut i32 = std::ptr::null_mut();
    // SAFETY: the call writes one pointer.
    if unsafe { libc::prctl(PR_GET_TID_ADDRESS, &raw mut place) } != 0 {
        return Err(SysError::last("prctl(PR_GET_TID_ADDRESS)"));
    }
    let flags = libc::CLONE_PARENT | libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD;
    // SAFETY: without CLONE_VM the copy has its own memory; the stack is the caller's; `place` is where the C library has
    // the main thread's id, which is this thread's.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags as libc::c_long, 0, 0, place, 0) };
    match pid {
        -1 => Err(SysError::last("clone")),
        0 => Ok(None),
        pid => Ok(Some(pid as u32)),
    }
}
