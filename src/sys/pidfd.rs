//! Process descriptors: a process that cannot be mistaken for another, however often its number is given on.
//!
//! # References
//! `pidfd_open(2)`, `pidfd_send_signal(2)`, `waitid(2)`.

use super::{Call, SysError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this code.
    Exit(i32),
    /// Killed by this signal.
    Signal(i32),
    /// Somebody else has reaped it.
    Unknown,
}

/// A descriptor of process `pid`, which is this process's child or parent.
pub(crate) fn open(pid: u32) -> Result<OwnedFd, SysError> {
    let pid = Pid::from_raw(pid as i32).ok_or(SysError { call: "pidfd_open", errno: libc::ESRCH })?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).call("pidfd_open")
}

/// Whether the process has ended; waits for that, at most for `timeout`.
pub(crate) fn has_ended(pidfd: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<bool, SysError> {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: timeout.as_secs().min(i64::MAX as u64) as i64,
        tv_nsec: i64::from(timeout.subsec_nanos()),
    });
    match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], timeout.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(SysError::new("poll", errno)),
    }
}

/// Sends a signal. A process that has ended takes it in silence.
pub(crate) fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), SysError> {
    let signal = Signal::from_named_raw(signal).ok_or(SysError { call: "pidfd_send_signal", errno: libc::EINVAL })?;
    match rustix::process::pidfd_send_signal(pidfd, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(SysError::new("pidfd_send_signal", errno)),
    }
}

/// The most memory a child had that has ended and was not reaped, or a child of its own, in bytes. Since a child begins as a
/// picture of its parent, what that had then counts, too.
///
/// # References
/// `waitid(2)`, the fifth argument of the system call; `getrusage(2)`.
pub(crate) fn peak_rss(pidfd: BorrowedFd<'_>) -> Option<u64> {
    // SAFETY: zeros are a valid value of both plain structs.
    let (mut info, mut usage) = unsafe { (std::mem::zeroed::<libc::siginfo_t>(), std::mem::zeroed::<libc::rusage>()) };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    let fd = pidfd.as_raw_fd();
    // SAFETY: both structs are there to be written to.
    let ended =
        unsafe { libc::syscall(libc::SYS_waitid, libc::P_PIDFD, fd, &raw mut info, options, &raw mut usage) == 0 };
    (ended && usage.ru_maxrss > 0).then_some(usage.ru_maxrss as u64 * 1024)
}

/// Reaps a child that has ended; `None` if it has not.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> Option<Ended> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(status)) => {
                return Some(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Ended::Exit(code),
                    (None, Some(signal)) => Ended::Signal(signal),
                    (None, None) => Ended::Unknown,
                });
            }
            Ok(None) => return None,
            Err(Errno::INTR) => {}
            Err(_) => return Some(Ended::Unknown),
        }
    }
}

/// `SIGKILL` for 9.
pub(crate) fn signal_name(signal: i32) -> Option<&'static str> {
    nix::sys::signal::Signal::try_from(signal).ok().map(|signal| signal.as_str())
}

/// Kills and reaps the child `pid`, which nobody else knows of.
pub(crate) fn abandon(pid: u32) {
    let Some(pid) = Pid::from_raw(pid as i32) else { return };
    let _ = rustix::process::kill_process(pid, Signal::KILL);
    while let Err(Errno::INTR) = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()) {}
}
