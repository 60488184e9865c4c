//! Takes away what a torture leaves in /dev/shm, however it ends: by itself, by Ctrl-C, or killed.

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, setsid};
use std::io::{ErrorKind, PipeWriter, Read, pipe};
use std::os::fd::AsRawFd;
use std::path::Path;

/// A process that waits for the end of this one and of all that it has forked.
#[derive(Debug)]
pub struct Janitor {
    pid: Pid,
    prefix: String,
    /// Everybody has a copy. When the last one is gone, the janitor reads the end of the file.
    _alive: PipeWriter,
}

impl Janitor {
    /// Starts it, for segments whose names begin with `prefix`.
    pub fn start(prefix: &str) -> Janitor {
        let (mut reader, alive) = pipe().expect("a pipe");
        let pid = crate::step::forked(|| {
            // What a terminal sends to all is not for it.
            let _ = setsid();
            // SAFETY: this process's copy of the descriptor, which nobody here uses or closes.
            unsafe { libc::close(alive.as_raw_fd()) };
            while matches!(reader.read(&mut [0]), Err(error) if error.kind() == ErrorKind::Interrupted) {}
            clean(prefix);
            0
        });
        Janitor { pid, prefix: prefix.to_owned(), _alive: alive }
    }

    /// The torture is over.
    pub fn finish(self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
        clean(&self.prefix);
    }
}

/// Takes away the segments of that prefix.
fn clean(prefix: &str) {
    let Ok(directory) = Path::new("/dev/shm").read_dir() else { return };
    for entry in directory.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&format!("shmkit.{prefix}")) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
