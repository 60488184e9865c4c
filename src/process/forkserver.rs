//! The fork server: a warm child with one thread, which copies itself for each child that is to be started.
//!
//! ```text
//! any thread of the parent                server: this executable, entered like a child, attached to the session
//! greeting ──────── socket pair ────────▶ clone(CLONE_PARENT): the copy is a child of the parent's, of the spawner's thread,
//! process id ◀──────────────────────────  which made the server; it arrives with that greeting as any other child does
//! ```
//! The socket has no name: nobody else can ask. The kernel announces each copy in a word that both share, before the copy runs. A
//! server that has died is started again with the next child.
//!
//! # Crash behaviour
//!
//! | killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | the server, idle | a broken socket at the next start | who starts has another one started | nothing |
//! | the server, asked, before the copy | a broken socket, no announcement | another one is asked | nothing |
//! | the server, after the copy, before its answer | a broken socket, and the copy's number in the announcement | nobody needs to: the copy is the child that was asked for | nothing |
//! | the parent | end of file on the socket, and the kernel's signal | the server ends | nothing |

use super::entry::{self, BELL_FD};
use crate::segment::Segment;
use crate::sys::clone::{self, Announcement};
use crate::sys::spawn::{self, Plan};
use crate::sys::{SysError, module, pidfd, proc, shm, socket};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a greeting to a server begins with.
const MARK: &str = "forkserver/";

/// The place of the function that a server calls before its first copy.
static PRELOAD: Mutex<Option<module::Place>> = Mutex::new(None);

/// Has `preload` called by fork servers started from now on, before they copy themselves: what it loads, every child of the
/// kind [`StartMethod::ForkServer`](super::StartMethod::ForkServer) has. It must leave no thread running, and not panic: the next
/// start is an error that says so, then.
///
/// # Examples
/// ```
/// use shmkit::Process;
/// use shmkit::process::{StartMethod, set_forkserver_preload};
/// use std::sync::OnceLock;
///
/// static TABLE: OnceLock<Vec<u64>> = OnceLock::new();
///
/// fn table() -> &'static [u64] {
///     TABLE.get_or_init(|| (0..1_000_000).map(|number| number * number).collect())
/// }
///
/// # fn main() -> shmkit::Result<()> {
/// // Made once, in the server; the children have it from the start.
/// set_forkserver_preload(|| assert!(!table().is_empty()));
/// let child = Process::new(|| assert_eq!(table()[7], 49)).start_method(StartMethod::ForkServer).start()?;
/// child.join()?.check()?;
/// # Ok(())
/// # }
/// ```
pub fn set_forkserver_preload(preload: fn()) {
    *crate::segment::locked(&PRELOAD) = module::place_of(preload as usize);
}

/// A running server, as the spawner sees it.
#[derive(Debug)]
pub(super) struct Server {
    pid: u32,
    socket: OwnedFd,
    announcement: Announcement,
}

/// Why there is no child.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server is dead, and has not made it.
    Gone,
    /// The server lives, and could not.
    Refused(SysError),
}

impl Server {
    /// Starts one. `plan` has the environment and command line of its children, too.
    pub(super) fn start(plan: &Plan, session: &Segment, bell: BorrowedFd<'_>) -> Result<Server, SysError> {
        let (socket, other) = socket::pair()?;
        let (announcement, shared) = Announcement::new()?;
        let preload = crate::segment::locked(&PRELOAD).unwrap_or(module::Place { module: 0, offset: 0 });
        let name = session.name().unwrap_or_default();
        let greeting = format!("{MARK}{}/{}/{}/{name}", std::process::id(), preload.module, preload.offset);
        let fds = [session.as_fd(), bell, other.as_fd(), shared.as_fd()];
        let pid = spawn::itself(&plan.with(entry::VARIABLE, &greeting)?, &fds)?;
        Ok(Server { pid, socket, announcement })
    }

    /// Its process id. It has ended once this handle is dropped.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Has a child started; its process id.
    pub(super) fn copy(&self, greeting: &str) -> Result<u32, Failure> {
        self.announcement.clear();
        let mut answer = [0; 8];
        let heard = socket::send(self.socket.as_fd(), greeting.as_bytes())
            .and_then(|()| socket::receive(self.socket.as_fd(), &mut answer));
        match heard {
            Ok(8) => {}
            // It was killed, perhaps after it made the copy, which is this process's child and nobody else's to reap.
            Ok(_) | Err(SysError { errno: libc::EPIPE | libc::ECONNRESET, .. }) => {
                return self.announcement.copy().ok_or(Failure::Gone);
            }
            Err(error) => return Err(Failure::Refused(error)),
        }
        let [pid, errno] =
            [&answer[..4], &answer[4..]].map(|part| u32::from_ne_bytes(part.try_into().expect("4 bytes")));
        if errno == 0 { Ok(pid) } else { Err(Failure::Refused(SysError { call: "clone", errno: errno as i32 })) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Killed, not only told: it may be stopped.
        pidfd::abandon(self.pid);
    }
}

/// When this copy of a server was made, in ticks; 0 where it is none.
static COPIED: AtomicU64 = AtomicU64::new(0);

/// If this process is a copy that a server made: the tick in which it did, or the one before.
pub(super) fn copied_at() -> Option<u64> {
    Some(COPIED.load(Ordering::Relaxed)).filter(|&ticks| ticks > 0)
}

/// If this process was started as a server: serves, and comes back in each copy with the copy's own greeting. The server never
/// comes back.
pub(super) fn serve(greeting: &str) -> Option<Result<String, String>> {
    let text = greeting.strip_prefix(MARK)?;
    Some(begin(text).and_then(|(socket, announcement)| copies(&socket, announcement)))
}

fn begin(text: &str) -> Result<(OwnedFd, Announcement), String> {
    let mut fields = text.splitn(4, '/');
    let mut number = || fields.next().and_then(|field| field.parse::<u64>().ok());
    let (Some(parent), Some(module), Some(offset)) = (number(), number(), number()) else {
        return Err(format!("{} is not what a parent writes", entry::VARIABLE));
    };
    let name = fields.next().unwrap_or_default();
    proc::die_with_parent().map_err(|error| error.to_string())?;
    if u64::from(proc::parent()) != parent {
        std::process::exit(0);
    }
    proc::set_short_name(&CString::from(c"shmkit-forks"));
    let socket = proc::inherited(spawn::FIRST_FD + 2).ok_or("the socket's descriptor is missing")?;
    proc::close_on_exec(socket.as_fd()).map_err(|error| error.to_string())?;
    let shared = proc::inherited(spawn::FIRST_FD + 3).ok_or("the announcement's descriptor is missing")?;
    let announcement = Announcement::of(&shared).map_err(|error| error.to_string())?;
    drop(shared);
    #[cfg(feature = "failpoints")]
    crate::failpoint::arm_by("SHMKIT_SERVER_FAILPOINT");
    let session = proc::inherited(spawn::FIRST_FD).ok_or("the session's descriptor is missing")?;
    // The copies find the bell where the children of the spawner do: that number stays open.
    let bell = proc::inherited(BELL_FD).ok_or("the bell's descriptor is missing")?;
    for fd in [session.as_fd(), bell.as_fd()] {
        proc::close_on_exec(fd).map_err(|error| error.to_string())?;
    }
    std::mem::forget(bell);
    let segment = if name.is_empty() { Segment::from_fd(session) } else { Segment::open(name) };
    let segment = segment.map_err(|error| format!("cannot join the session segment: {error}"))?;
    shm::set_original(segment.as_fd());
    crate::segment::inherit(segment);
    if module != 0 {
        let place = module::Place { module, offset };
        let address = module::address_of(place).map_err(|_| "the preload function is not in this program")?;
        // SAFETY: the parent took the place of a `fn()`; the module's hash says that the same code lies there.
        let preload = unsafe { std::mem::transmute::<*const (), fn()>(address as *const ()) };
        if let Err(payload) = catch_unwind(preload) {
            return Err(format!("what the fork server was to load panicked: {}", entry::text(&*payload)));
        }
    }
    // Found and made here, and so for every copy.
    module::main_module();
    let _ = std::thread::current();
    if proc::is_single_threaded() {
        module::give_code_to_copies();
    }
    Ok((socket, announcement))
}

/// Copies this process as often as it is asked to.
fn copies(socket: &OwnedFd, announcement: Announcement) -> Result<String, String> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let len = match socket::receive(socket.as_fd(), &mut buffer) {
            // The parent is gone.
            Ok(0) | Err(_) => proc::exit_at_once(0),
            Ok(len) => len,
        };
        let greeting = String::from_utf8_lossy(&buffer[..len]).into_owned();
        failpoint!("server.asked");
        let is_alone = proc::is_single_threaded() || proc::threads() <= 1;
        let busy = SysError { call: "clone", errno: libc::EBUSY };
        let before = proc::boot_ticks();
        let copied = if is_alone { clone::for_parent(&announcement) } else { Err(busy) };
        let (pid, errno) = match copied {
            Ok(None) => {
                COPIED.store(before, Ordering::Relaxed);
                // Its mapping is not here: nothing must be unmapped in its place.
                std::mem::forget(announcement);
                // To free it would be to write to it, and so to copy it.
                std::mem::forget(buffer);
                return Ok(greeting);
            }
            Ok(Some(pid)) => {
                failpoint!("server.copied");
                (pid, 0)
            }
            Err(error) => (0, error.errno as u32),
        };
        let mut answer = [0; 8];
        answer[..4].copy_from_slice(&pid.to_ne_bytes());
        answer[4..].copy_from_slice(&errno.to_ne_bytes());
        if socket::send(socket.as_fd(), &answer).is_err() {
            proc::exit_at_once(0);
        }
    }
}
