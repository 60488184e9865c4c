//! Starting this executable again, with a few descriptors and nothing else.
//!
//! # References
//! `posix_spawn(3)`, `proc_pid_exe(5)`.

use super::SysError;
use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

/// The first descriptor given to a child.
pub(crate) const FIRST_FD: i32 = 3;

/// A program to start: what a thread needs to start it on another's behalf.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// `argv`.
    pub arguments: Vec<CString>,
    /// `NAME=value`.
    pub environment: Vec<CString>,
    /// Standard input, output and error, where they are not to be nothing, this process's and this process's.
    pub stdio: [Option<OwnedFd>; 3],
}

impl Plan {
    /// The same with one variable more, and without the descriptors.
    pub(crate) fn with(&self, variable: &str, value: &str) -> Result<Plan, SysError> {
        let pair = CString::new(format!("{variable}={value}"));
        let pair = pair.map_err(|_| SysError { call: "posix_spawn", errno: libc::EINVAL })?;
        let environment = self.environment.iter().cloned().chain([pair]).collect();
        Ok(Plan { arguments: self.arguments.clone(), environment, stdio: [const { None }; 3] })
    }
}

/// A descriptor that a child is given.
enum Source {
    Own(i32),
    /// A copy whose number is in nobody's way.
    Copy(OwnedFd),
}

impl Source {
    fn number(&self) -> i32 {
        match self {
            Source::Own(number) => *number,
            Source::Copy(fd) => fd.as_raw_fd(),
        }
    }
}

/// No copy could be made.
fn no_number(errno: rustix::io::Errno) -> SysError {
    // The numbers that are wanted may be above the limit.
    let errno = if errno == rustix::io::Errno::INVAL { libc::EMFILE } else { errno.raw_os_error() };
    SysError { call: "fcntl(F_DUPFD_CLOEXEC)", errno }
}

struct Actions(libc::posix_spawn_file_actions_t);
struct Attributes(libc::posix_spawnattr_t);

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised, and destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised, and destroyed once.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}

fn check(call: &'static str, errno: i32) -> Result<(), SysError> {
    if errno == 0 { Ok(()) } else { Err(SysError { call, errno }) }
}

/// Starts this process's executable again and gives its process id.
///
/// The child's standard input is empty, its output is this process's, `fds` are its descriptors from [`FIRST_FD`] on, and it
/// has no others. No signal is blocked in it.
pub(crate) fn itself(plan: &Plan, fds: &[BorrowedFd<'_>]) -> Result<u32, SysError> {
    // They are copied one after the other: none may have a number that another one gets before its turn.
    let end = FIRST_FD + fds.len() as i32;
    let out_of_the_way = |fd: BorrowedFd<'_>| match fd.as_raw_fd() < end {
        true => rustix::io::fcntl_dupfd_cloexec(fd, end).map(Source::Copy),
        false => Ok(Source::Own(fd.as_raw_fd())),
    };
    let stdio = plan.stdio.iter().map(|fd| fd.as_ref().map(|fd| out_of_the_way(fd.as_fd())).transpose());
    let stdio: Vec<Option<Source>> = stdio.collect::<Result<_, _>>().map_err(no_number)?;
    let fds: Vec<Source> = fds.iter().map(|&fd| out_of_the_way(fd)).collect::<Result<_, _>>().map_err(no_number)?;
    let pointers = |strings: &[CString]| -> Vec<*mut c_char> {
        strings.iter().map(|string| string.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect()
    };
    let (arguments, environment) = (pointers(&plan.arguments), pointers(&plan.environment));
    let mut pid = 0;
    // SAFETY: every object is initialised before it is used and destroyed once; the strings and the descriptors live until
    // the call returns.
    unsafe {
        let mut actions = MaybeUninit::uninit();
        check("posix_spawn_file_actions_init", libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
        let mut actions = Actions(actions.assume_init());
        let add = "posix_spawn_file_actions_add";
        // A number that may not be open in this process is no number to them.
        let too_many = |error| if error == libc::EBADF { libc::EMFILE } else { error };
        check(
            add,
            libc::posix_spawn_file_actions_addopen(&mut actions.0, 0, c"/dev/null".as_ptr(), libc::O_RDONLY, 0),
        )?;
        for (number, fd) in (0..).zip(&stdio) {
            if let Some(fd) = fd {
                check(add, libc::posix_spawn_file_actions_adddup2(&mut actions.0, fd.number(), number))?;
            }
        }
        for (number, fd) in (FIRST_FD..).zip(&fds) {
            check(add, too_many(libc::posix_spawn_file_actions_adddup2(&mut actions.0, fd.number(), number)))?;
        }
        if let Some(add_close_from) = close_from() {
            check(add, add_close_from(&mut actions.0, FIRST_FD + fds.len() as i32))?;
        }
        let mut attributes = MaybeUninit::uninit();
        check("posix_spawnattr_init", libc::posix_spawnattr_init(attributes.as_mut_ptr()))?;
        let mut attributes = Attributes(attributes.assume_init());
        let mut none = MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        check("posix_spawnattr_setsigmask", libc::posix_spawnattr_setsigmask(&mut attributes.0, none.as_ptr()))?;
        let flags = libc::POSIX_SPAWN_SETSIGMASK as i16;
        check("posix_spawnattr_setflags", libc::posix_spawnattr_setflags(&mut attributes.0, flags))?;
        let itself: &CStr = c"/proc/self/exe";
        let failed = libc::posix_spawn(
            &mut pid,
            itself.as_ptr(),
            &actions.0,
            &attributes.0,
            arguments.as_ptr(),
            environment.as_ptr(),
        );
        check("posix_spawn", failed)?;
    }
    Ok(pid as u32)
}

type AddCloseFrom = unsafe extern "C" fn(*mut libc::posix_spawn_file_actions_t, i32) -> i32;

/// `posix_spawn_file_actions_addclosefrom_np`, where the C library has it (glibc 2.34).
fn close_from() -> Option<AddCloseFrom> {
    // SAFETY: a look-up by a valid name.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"posix_spawn_file_actions_addclosefrom_np".as_ptr()) };
    // SAFETY: a function of this name has this type.
    (!found.is_null()).then(|| unsafe { std::mem::transmute::<*mut libc::c_void, AddCloseFrom>(found) })
}

/// Lets this thread, a copy of one that blocks all signals, take them.
pub(crate) fn unblock_signals() {
    let mut none = MaybeUninit::uninit();
    // SAFETY: the set is initialised by the first call.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// Runs `start`, which starts a thread, with all signals blocked: the new thread takes none.
pub(crate) fn without_signals<R>(start: impl FnOnce() -> R) -> R {
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: both sets are initialised by the calls before they are read.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let result = start();
    // SAFETY: `before` was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    result
}
