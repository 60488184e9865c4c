//! The helper: a process that lives through many runs. In each it attaches before anybody dies, may wait in the object while
//! the victim is killed, uses what the survivors have, leaves, and comes back as somebody new.

use crate::board::Ledger;
use crate::operation::{Check, Family, Fault, Role, Scene, WRONGS, World, hang};
use nix::unistd::Pid;
use shmkit::Segment;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// What it is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Attach and open everything.
    Join = b'j' as isize,
    /// Wait as the act says, and answer when that is over.
    Wait = b'w' as isize,
    /// Use the objects, leave, come back, use them again, leave.
    Finish = b'f' as isize,
}

/// The harness's end of it. It is killed when this is dropped.
pub struct Helper {
    pid: Pid,
    socket: UnixDatagram,
}

impl Helper {
    /// Forks it, by a process that is not attached to anything.
    pub fn fork(families: &[Box<dyn Family>], ledger: &'static Ledger) -> Helper {
        let (socket, theirs) = UnixDatagram::pair().expect("a pair of sockets");
        let pid = crate::step::forked(|| {
            let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
            serve(&theirs, families, ledger);
            0
        });
        Helper { pid, socket }
    }

    /// Asks, and does not wait for the answer.
    pub fn ask(&self, ask: Ask, family: usize, act: usize, name: &str) -> Check {
        let mut message = vec![ask as u8, family as u8, act as u8];
        message.extend_from_slice(name.as_bytes());
        let sent = self.socket.send(&message);
        if sent.is_ok() { Ok(()) } else { crate::operation::corrupt("the helper is gone") }
    }

    /// The answer to what was asked last.
    pub fn answer(&self, patience: Duration, waits_for: &str) -> Check {
        let until = Instant::now() + patience;
        let mut buffer = [0; 1024];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return hang(format!("a survivor hangs in {waits_for}"));
            }
            let _ = self.socket.set_read_timeout(Some(left));
            match self.socket.recv(&mut buffer) {
                Ok(len) if len > 0 => {
                    let kind = usize::from(buffer[0]);
                    let text = String::from_utf8_lossy(&buffer[1..len]).into_owned();
                    return match WRONGS.get(kind) {
                        Some(&(wrong, _)) => Err(Fault { wrong, what: format!("a survivor: {text}") }),
                        None => Ok(()),
                    };
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return crate::operation::corrupt(format!("the helper is gone: {error}")),
            }
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.pid, nix::sys::signal::Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(self.pid, None);
    }
}

/// The helper's life.
fn serve(socket: &UnixDatagram, families: &[Box<dyn Family>], ledger: &'static Ledger) {
    let mut world: Option<(Box<dyn World>, Segment)> = None;
    let mut buffer = [0; 1024];
    while let Ok(len @ 3..) = socket.recv(&mut buffer) {
        let (family, act) = (&families[usize::from(buffer[1])], usize::from(buffer[2]));
        let name = String::from_utf8_lossy(&buffer[3..len]).into_owned();
        let mut done = || -> Check {
            match buffer[0] {
                b'j' => {
                    world = None;
                    let segment = Segment::open(&name)?;
                    world = Some((family.open(&segment)?, segment));
                }
                b'w' => {
                    let scene = Scene { name: name.clone(), role: Role::Waiter, ledger };
                    if let Some((world, _)) = &world {
                        family.wait(act, &**world, &scene)?;
                    }
                }
                b'f' => {
                    if let Some((world, segment)) = &world {
                        world.exercise(segment)?;
                    }
                    world = None;
                    let segment = Segment::open(&name)?;
                    family.open(&segment)?.exercise(&segment)?;
                }
                _ => world = None,
            }
            Ok(())
        };
        let mut answer = vec![WRONGS.len() as u8];
        if let Err(fault) = done() {
            answer[0] = WRONGS.iter().position(|&(wrong, _)| wrong == fault.wrong).unwrap_or(0) as u8;
            answer.extend_from_slice(fault.what.as_bytes());
            answer.truncate(1000);
        }
        if socket.send(&answer).is_err() {
            return;
        }
    }
}
