//! The nursery: a process with one thread that forks those who work and are nobody's children in the library's eyes.

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::os::unix::net::UnixDatagram;

/// The director's end. It ends with the director.
#[derive(Debug)]
pub struct Nursery {
    pid: Pid,
    socket: UnixDatagram,
}

impl Nursery {
    /// Forks it, by a process that has one thread and is attached to nothing.
    pub fn fork() -> Nursery {
        let (socket, theirs) = UnixDatagram::pair().expect("a pair of sockets");
        let pid = crate::step::forked(|| {
            let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            // Its children are nobody's zombies.
            // SAFETY: the action is one of the two constants.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
            let mut seed = [0; 8];
            while theirs.recv(&mut seed).is_ok_and(|len| len == 8) {
                crate::step::forked(|| {
                    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
                    i32::from(super::worker::live(u64::from_le_bytes(seed)).is_err())
                });
            }
            0
        });
        Nursery { pid, socket }
    }

    /// One more who works.
    pub fn bear(&self, seed: u64) {
        let _ = self.socket.send(&seed.to_le_bytes());
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.pid, Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(self.pid, None);
    }
}
