//! A pair of sockets that keeps message boundaries.
//!
//! # References
//! `unix(7)`, `SOCK_SEQPACKET`.

use super::SysError;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Two ends, closed on exec.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), SysError> {
    let mut ends = [0; 2];
    // SAFETY: the call writes two descriptors.
    let made =
        unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()) };
    if made != 0 {
        return Err(SysError::last("socketpair"));
    }
    // SAFETY: both were just made and are nobody else's.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Sends one message; an end whose other one is gone is an error, not a signal.
pub(crate) fn send(end: BorrowedFd<'_>, message: &[u8]) -> Result<(), SysError> {
    loop {
        // SAFETY: reads `message` only.
        let sent = unsafe { libc::send(end.as_raw_fd(), message.as_ptr().cast(), message.len(), libc::MSG_NOSIGNAL) };
        match sent {
            -1 if SysError::last("send").errno == libc::EINTR => {}
            -1 => return Err(SysError::last("send")),
            _ => return Ok(()),
        }
    }
}

/// Receives one message into `buffer`; 0 when the other end is gone.
pub(crate) fn receive(end: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, SysError> {
    loop {
        // SAFETY: writes to `buffer` only.
        let got = unsafe { libc::recv(end.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        match got {
            -1 if SysError::last("recv").errno == libc::EINTR => {}
            -1 => return Err(SysError::last("recv")),
            got => return Ok(got as usize),
        }
    }
}
