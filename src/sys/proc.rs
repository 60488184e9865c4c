//! This process as the system knows it: what `/proc` says, its parent, its end.

use super::fork::WipedWords;
use super::{Call, SysError};
use std::io::Read;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::os::linux::fs::MetadataExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Whether the executable has more rights than its user: then the environment is not to be trusted.
pub(crate) fn is_privileged() -> bool {
    // SAFETY: getauxval(3) has no preconditions.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// From now on this process does not notice an interrupt from the terminal.
pub(crate) fn ignore_interrupts() {
    // SAFETY: SIG_IGN is a valid disposition; no handler is installed.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
}

/// Has `handler` called for a signal; system calls it interrupts are repeated where that is possible.
pub(crate) fn handle(signal: i32, handler: extern "C" fn(i32)) -> Result<(), SysError> {
    // SAFETY: the structure is plain data; the handler is a function of this program that does only what a handler may do.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, &action, std::ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(SysError::last("sigaction")) }
}

/// In a handler: has this process die of the signal once the handler returns.
pub(crate) fn die_of(signal: i32) {
    // SAFETY: both calls are allowed in a handler; SIG_DFL is a valid disposition.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// The system's monotonic clock, which all processes share, in nanoseconds.
pub(crate) fn monotonic() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Inode number of this process's PID namespace; 0 where `/proc` is not mounted.
pub(crate) fn pid_namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.st_ino())
}

/// What does not change while this process lives: its PID namespace's inode number and its start time, 0 where they cannot be
/// had. Asked of `/proc` once; a forked child asks again.
pub(crate) fn own_origin() -> (u64, u64) {
    let ask = || (pid_namespace(), start_time(std::process::id()).unwrap_or(0));
    // Not `lock`: in a forked child it may be held by a thread that is not there.
    let Ok(mut known) = ORIGIN.try_lock() else { return ask() };
    if let Some((words, origin)) = &*known
        && words.token().load(Ordering::Relaxed) == 1
    {
        return *origin;
    }
    let origin = ask();
    // Without such a page nothing is remembered.
    *known = WipedWords::new().ok().map(|words| {
        words.token().store(1, Ordering::Relaxed);
        (words, origin)
    });
    origin
}

/// What [`own_origin`] knows. The word reads 1 as long as the rest is this process's own.
static ORIGIN: Mutex<Option<(WipedWords, (u64, u64))>> = Mutex::new(None);

/// The clock that start times are read from, in its ticks.
///
/// # References
/// `proc_pid_stat(5)`, `starttime`: in units of 1/100 s, as `sysconf(_SC_CLK_TCK)` says everywhere.
pub(crate) fn boot_ticks() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec as u64 * 100 + time.tv_nsec as u64 / 10_000_000
}

/// In a copy of this process, of its PID namespace: what [`own_origin`] knew of the original, but for the start time. That is
/// known if it is still the tick `before`, which the original read just before the copy was made; else `/proc` is asked.
pub(crate) fn inherit_origin(before: u64) {
    if let Ok(mut known) = ORIGIN.try_lock()
        && let Some((words, (_, start))) = &mut *known
        && boot_ticks() == before
    {
        *start = before;
        words.token().store(1, Ordering::Relaxed);
    }
}

/// Start time of a process in clock ticks since boot; `None` if there is no such process.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = stat(pid)?;
    // The name may hold spaces and brackets: fields are counted from its closing bracket.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// What a process is doing, as `ps` shows it (`R`, `S`, `T` for stopped, `Z` for a zombie…).
pub(crate) fn state(pid: u32) -> Option<char> {
    stat(pid)?.rsplit_once(") ")?.1.chars().next()
}

/// The line of `/proc/PID/stat`, with one read: a child's start waits for it.
fn stat(pid: u32) -> Option<String> {
    let mut bytes = [0; 1024];
    let len = std::fs::File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes[..len]).into_owned())
}

/// File name of this process's executable.
pub(crate) fn executable_name() -> String {
    static KNOWN: Mutex<Option<String>> = Mutex::new(None);
    let ask = || {
        let path = std::env::current_exe().ok();
        path.and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned())).unwrap_or_default()
    };
    // As in `own_origin`. A fork changes nothing about it.
    match KNOWN.try_lock() {
        Ok(mut known) => known.get_or_insert_with(ask).clone(),
        Err(_) => ask(),
    }
}

/// Process id of the parent; that of whoever adopted this process once its parent is gone.
pub(crate) fn parent() -> u32 {
    rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get() as u32)
}

/// Has this process killed when the thread that started it is gone.
///
/// # References
/// `PR_SET_PDEATHSIG(2const)`.
pub(crate) fn die_with_parent() -> Result<(), SysError> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).call("prctl")
}

/// Sets the name that `ps` and `top` show, of which they keep 15 bytes.
pub(crate) fn set_short_name(name: &std::ffi::CStr) {
    let _ = rustix::thread::set_name(name);
}

/// Keeps a descriptor from the programs this process starts.
pub(crate) fn close_on_exec(fd: BorrowedFd<'_>) -> Result<(), SysError> {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC).call("fcntl(F_SETFD)")
}

/// Lets the program that this process becomes have a descriptor; its number.
pub(crate) fn keep_on_exec(fd: BorrowedFd<'_>) -> Result<i32, SysError> {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).call("fcntl(F_SETFD)")?;
    Ok(std::os::fd::AsRawFd::as_raw_fd(&fd))
}

/// A descriptor this process was started with; `None` if there is none of that number.
pub(crate) fn inherited(number: i32) -> Option<OwnedFd> {
    if number < 3 {
        return None;
    }
    // SAFETY: fcntl(F_GETFD) has no preconditions.
    let open = unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
    // SAFETY: open, and the caller is the only one who was told of it.
    open.then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// Runs `handler` when the process ends by `exit` or by returning from `main`; after the handlers registered later.
pub(crate) fn at_exit(handler: extern "C" fn()) {
    // SAFETY: the handler is a function of this program and does not unwind.
    unsafe { libc::atexit(handler) };
}

/// Ends this process without a word to anybody.
pub(crate) fn exit_at_once(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Sets both limits of a resource.
pub(crate) fn set_limit(limit: crate::process::Limit, value: u64) -> Result<(), SysError> {
    use crate::process::Limit;
    use rustix::process::{Resource, Rlimit, setrlimit};
    let resource = match limit {
        Limit::AddressSpace => Resource::As,
        Limit::CoreSize => Resource::Core,
        Limit::CpuTime => Resource::Cpu,
        Limit::FileSize => Resource::Fsize,
        Limit::OpenFiles => Resource::Nofile,
        Limit::Processes => Resource::Nproc,
        Limit::StackSize => Resource::Stack,
    };
    setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) }).call("setrlimit")
}

/// Sets how willingly this process lets others run.
pub(crate) fn set_nice(nice: i32) -> Result<(), SysError> {
    rustix::process::setpriority_process(None, nice).call("setpriority")
}

/// Sets the CPUs this process may run on.
pub(crate) fn set_cpus(cpus: &[usize]) -> Result<(), SysError> {
    let mut set = rustix::thread::CpuSet::new();
    for &cpu in cpus.iter().filter(|&&cpu| cpu < rustix::thread::CpuSet::MAX_CPU) {
        set.set(cpu);
    }
    rustix::thread::sched_setaffinity(None, &set).call("sched_setaffinity")
}

/// Whether this process is known to have had one thread only so far. False says nothing.
///
/// # References
/// `__libc_single_threaded` of glibc 2.32.
pub(crate) fn is_single_threaded() -> bool {
    static FLAG: AtomicPtr<u8> = AtomicPtr::new(std::ptr::dangling_mut());
    let mut flag = FLAG.load(Ordering::Relaxed);
    if flag == std::ptr::dangling_mut() {
        // SAFETY: a look-up by a valid name.
        flag = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__libc_single_threaded".as_ptr()) }.cast();
        FLAG.store(flag, Ordering::Relaxed);
    }
    // SAFETY: null, or the C library's `char` of that name, which is written by the thread that starts the second one, before
    // it does so.
    !flag.is_null() && unsafe { flag.read_volatile() } != 0
}

/// Number of threads of this process; very many where `/proc` is not mounted.
pub(crate) fn threads() -> usize {
    // Each is a directory, and so a link; two more are the directory itself.
    std::fs::metadata("/proc/self/task").map_or(usize::MAX, |meta| (meta.st_nlink() as usize).saturating_sub(2))
}

/// Number of CPUs of the system that are on line.
pub(crate) fn cpus() -> Option<usize> {
    // SAFETY: sysconf(3) has no preconditions.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }).ok().filter(|&cpus| cpus > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn threads_are_counted() {
        let (all_run, all_seen) = (Barrier::new(4), Barrier::new(4));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    all_run.wait();
                    all_seen.wait();
                });
            }
            all_run.wait();
            let counted = threads();
            let listed = std::fs::read_dir("/proc/self/task").unwrap().count();
            all_seen.wait();
            // Other tests' threads come and go.
            assert!(counted >= 4 && listed >= 4, "{counted} {listed}");
        });
    }

    #[test]
    fn who_has_several_threads_is_not_called_alone() {
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(!is_single_threaded()));
        });
    }

    #[test]
    fn a_copy_knows_when_it_began() {
        let namespace = own_origin().0;
        for _ in 0..50 {
            let before = boot_ticks();
            // SAFETY: the copy reads two files and ends.
            match unsafe { libc::fork() } {
                -1 => panic!("{}", std::io::Error::last_os_error()),
                0 => {
                    inherit_origin(before);
                    let same = own_origin() == (namespace, start_time(std::process::id()).unwrap_or(0));
                    exit_at_once(i32::from(!same));
                }
                child => {
                    let mut status = -1;
                    // SAFETY: the child is ours and the status a local.
                    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                    assert_eq!(status, 0);
                }
            }
        }
    }

    #[test]
    fn this_process_runs_and_has_a_start() {
        assert!(matches!(state(std::process::id()), Some('R' | 'S')));
        assert!(start_time(std::process::id()).unwrap() > 0);
        assert_eq!(start_time(0), None);
    }
}
