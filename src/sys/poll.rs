//! Waiting until one of a few descriptors is readable.
//!
//! # References
//! `poll(2)`.

use super::SysError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Which of the descriptors can be read without waiting, be it the end of the file or an error; waits at most for `timeout` until
/// there is one. A signal ends the wait.
pub(crate) fn readable(fds: &[BorrowedFd<'_>], timeout: Duration) -> Result<Vec<bool>, SysError> {
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let timeout =
        Timespec { tv_sec: timeout.as_secs().min(i64::MAX as u64) as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(vec![false; fds.len()]),
        Err(errno) => return Err(SysError::new("poll", errno)),
    }
    if polled.iter().any(|fd| fd.revents().contains(PollFlags::NVAL)) {
        return Err(SysError { call: "poll", errno: libc::EBADF });
    }
    Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect())
}
