//! Waiting for many descriptors at once, and a bell that wakes the one who waits.
//!
//! # References
//! `epoll(7)`, `eventfd(2)`.

use super::{Call, SysError};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::{self, Errno};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The key of the bell among the events of a [`Watch`].
pub(crate) const BELL: u64 = 0;

/// Rung from any thread, or from a process that was given its descriptor.
#[derive(Debug)]
pub(crate) struct Bell {
    fd: OwnedFd,
}

impl Bell {
    /// A new one.
    pub(crate) fn new() -> Result<Bell, SysError> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).call("eventfd")?;
        Ok(Bell { fd })
    }

    /// Wakes the thread that waits, now or at its next wait.
    pub(crate) fn ring(&self) {
        ring(self.fd.as_fd());
    }

    /// The descriptor of one that was rung and is not heard: always readable.
    pub(crate) fn rung() -> Result<OwnedFd, SysError> {
        let bell = Bell::new()?;
        bell.ring();
        Ok(bell.fd)
    }

    /// Makes it silent.
    pub(crate) fn silence(&self) {
        let _ = io::read(&self.fd, &mut [0; 8]);
    }

    /// Its descriptor.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Rings the bell behind a descriptor. It fails only when the bell has been rung 2^64 times, and is heard then, too.
pub(crate) fn ring(fd: BorrowedFd<'_>) {
    let _ = io::write(fd, &1u64.to_ne_bytes());
}

/// A set of descriptors to wait for.
#[derive(Debug)]
pub(crate) struct Watch {
    epoll: OwnedFd,
}

impl Watch {
    /// One that waits for `bell`.
    pub(crate) fn new(bell: &Bell) -> Result<Watch, SysError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).call("epoll_create1")?;
        let watch = Watch { epoll };
        watch.add(bell.fd(), BELL)?;
        Ok(watch)
    }

    /// Waits for `fd` to be readable, too; it is told apart by `key`.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, key: u64) -> Result<(), SysError> {
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(key), epoll::EventFlags::IN).call("epoll_ctl")
    }

    /// No longer.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits, at most for `timeout`, and puts the keys of what is readable into `ready`. The bell is silent afterwards.
    pub(crate) fn wait(&self, bell: &Bell, timeout: Option<Duration>, ready: &mut Vec<u64>) -> Result<(), SysError> {
        ready.clear();
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().min(i64::MAX as u64) as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        let mut events = Vec::with_capacity(64);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(SysError::new("epoll_wait", errno)),
        }
        ready.extend(events.iter().map(|event| event.data.u64()));
        if ready.contains(&BELL) {
            bell.silence();
        }
        Ok(())
    }
}
