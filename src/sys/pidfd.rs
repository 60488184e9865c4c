//! Process descriptors: a process that cannot be mistaken for another, however often its number is given on.
//!
//! # References
//! `pidfd_open(2)`, `pidfd_send_signal(2)`, `waitid(2)`.

use super::{Call, SysError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
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

/// Reaps a child that has ended; `None` if it has not. With how it ended comes the most memory that it had, or a child of its own,
/// in bytes, if the system says so. Since a child begins as a picture of its parent, what that had then counts, too.
///
/// # References
/// `waitid(2)`, the fifth argument of the system call; `getrusage(2)`.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> Option<(Ended, Option<u64>)> {
    loop {
        // SAFETY: zeros are a valid value of both plain structs.
        let (mut info, mut usage) =
            unsafe { (std::mem::zeroed::<libc::siginfo_t>(), std::mem::zeroed::<libc::rusage>()) };
        let (fd, options) = (pidfd.as_raw_fd(), libc::WEXITED | libc::WNOHANG);
        // SAFETY: both structs are there to be written to.
        let done =
            unsafe { libc::syscall(libc::SYS_waitid, libc::P_PIDFD, fd, &raw mut info, options, &raw mut usage) };
        if done != 0 {
            match SysError::last("waitid").errno {
                libc::EINTR => continue,
                _ => return Some((Ended::Unknown, None)),
            }
        }
        // SAFETY: filled by the call; where no child has ended both are 0.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        let ended = match info.si_code {
            _ if pid == 0 => return None,
            libc::CLD_EXITED => Ended::Exit(status),
            libc::CLD_KILLED | libc::CLD_DUMPED => Ended::Signal(status),
            _ => Ended::Unknown,
        };
        return Some((ended, (usage.ru_maxrss > 0).then_some(usage.ru_maxrss as u64 * 1024)));
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
