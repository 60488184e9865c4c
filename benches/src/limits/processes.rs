//! Starting processes and opening shared memory, by the system calls alone.

use crate::Result;
use crate::stage::Stage;
use std::ffi::CStr;
use std::time::Instant;

/// `fork`, `_exit`, `waitpid`.
///
/// # Errors
/// If it fails.
pub fn fork(stage: &Stage) -> Result {
    let start = Instant::now();
    for _ in 0..stage.n {
        // SAFETY: this process has one thread, and the child does nothing but end.
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => return Err(std::io::Error::last_os_error().into()),
            // SAFETY: ends this copy of the process at once.
            0 => unsafe { libc::_exit(0) },
            _ => {}
        }
        let mut status = -1;
        // SAFETY: the child is ours and the status a local.
        if unsafe { libc::waitpid(pid, &mut status, 0) } != pid || status != 0 {
            return Err("the child did not end as it should".into());
        }
    }
    stage.publish(start.elapsed().as_nanos() as f64 / 1e3 / stage.n as f64);
    Ok(())
}

/// A fork server with nothing but the system calls that shmkit's cannot do without: a request and an answer over a socket, a copy
/// that is the asker's child, two lock bytes taken as the proof of life and the recovery lock are, an orderly exit, and a process
/// descriptor to wait for. Nothing is named, passed on, checked, or recovered.
///
/// # Errors
/// If it fails.
pub fn fork_server(stage: &Stage) -> Result {
    let last = || -> crate::Error { std::io::Error::last_os_error().into() };
    let mut ends = [0; 2];
    // SAFETY: the call writes two descriptors.
    if unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, ends.as_mut_ptr()) } != 0 {
        return Err(last());
    }
    let [mine, other] = ends;
    // SAFETY: this process has one thread.
    let server = match unsafe { libc::fork() } {
        -1 => return Err(last()),
        0 => serve(other, stage.fd()),
        server => server,
    };
    let once = || -> Result {
        let mut pid = 0u64.to_ne_bytes();
        // SAFETY: the buffers are locals of the lengths given; the descriptors are this function's.
        unsafe {
            if libc::send(mine, pid.as_ptr().cast(), 8, libc::MSG_NOSIGNAL) != 8
                || libc::recv(mine, pid.as_mut_ptr().cast(), 8, 0) != 8
            {
                return Err(last());
            }
            let pidfd = libc::syscall(libc::SYS_pidfd_open, u64::from_ne_bytes(pid) as i32, 0) as i32;
            let mut poll = libc::pollfd { fd: pidfd, events: libc::POLLIN, revents: 0 };
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let done = pidfd >= 0
                && libc::poll(&mut poll, 1, -1) == 1
                && libc::waitid(libc::P_PIDFD, pidfd as libc::id_t, &mut info, libc::WEXITED) == 0
                && info.si_status() == 0;
            if done && libc::close(pidfd) == 0 { Ok(()) } else { Err(last()) }
        }
    };
    let measured = once().and_then(|()| {
        let start = Instant::now();
        for _ in 0..stage.n {
            once()?;
        }
        Ok(start.elapsed().as_nanos() as f64 / 1e3 / stage.n as f64)
    });
    // SAFETY: the server is this function's child, the descriptor is its own.
    unsafe {
        libc::close(mine);
        libc::kill(server, libc::SIGKILL);
        libc::waitpid(server, std::ptr::null_mut(), 0);
    }
    stage.publish(measured?);
    Ok(())
}

/// The server of [`fork_server`], and its copies.
fn serve(socket: i32, memory: i32) -> ! {
    let path = crate::stage::c_string(&format!("/proc/self/fd/{memory}"));
    // Takes a lock byte that lives as long as the page it gives.
    let lock = |byte: i64| -> *mut libc::c_void {
        // SAFETY: a string of this function; the descriptor and the page are used here only.
        unsafe {
            let fd = libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
            let page = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, fd, 0);
            let mut wanted: libc::flock = std::mem::zeroed();
            wanted.l_type = libc::F_WRLCK as i16;
            wanted.l_start = byte;
            wanted.l_len = 1;
            let held = page != libc::MAP_FAILED
                && libc::madvise(page, 4096, libc::MADV_DONTFORK) == 0
                && libc::fcntl(fd, libc::F_OFD_SETLK, &wanted) == 0;
            libc::close(fd);
            if !held {
                libc::_exit(1);
            }
            page
        }
    };
    let mut request = [0u8; 8];
    // SAFETY: buffers of this function; a copy made without CLONE_VM has its own memory, and this process has one thread.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        while libc::recv(socket, request.as_mut_ptr().cast(), 8, 0) == 8 {
            let flags = libc::CLONE_PARENT | libc::SIGCHLD;
            let pid = libc::syscall(libc::SYS_clone, flags as libc::c_long, 0, 0, 0, 0);
            if pid == 0 {
                libc::close(socket);
                let alive = lock(1 << 62 | i64::from(std::process::id()));
                libc::munmap(lock(1 << 61), 4096);
                libc::munmap(alive, 4096);
                libc::exit(0);
            }
            libc::send(socket, (pid as u64).to_ne_bytes().as_ptr().cast(), 8, libc::MSG_NOSIGNAL);
        }
        libc::_exit(0)
    }
}

/// `std::process::Command` of this very executable, which returns from `main` at once.
///
/// # Errors
/// If it fails.
pub fn command(stage: &Stage) -> Result {
    let program = std::env::current_exe()?;
    let start = Instant::now();
    for _ in 0..stage.n {
        let status = std::process::Command::new(&program)
            .env(crate::NOTHING, "1")
            .stdin(std::process::Stdio::null())
            .status()?;
        if !status.success() {
            return Err(format!("it ended with {status}").into());
        }
    }
    stage.publish(start.elapsed().as_nanos() as f64 / 1e3 / stage.n as f64);
    Ok(())
}

/// `shm_open`, `fstat`, `mmap`, `munmap` and `close` of the file `path` in `/dev/shm`, of which one word is read, again and again:
/// microseconds for one.
///
/// # Errors
/// If a call fails.
pub fn open_and_map(path: &CStr, times: u64) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..times {
        // SAFETY: the path is a string; the descriptor is this function's; the mapping is as long as the file and not used
        // after it is gone.
        let done = unsafe {
            let fd = libc::shm_open(path.as_ptr(), libc::O_RDWR, 0);
            let mut stat: libc::stat = std::mem::zeroed();
            let mut done = fd >= 0 && libc::fstat(fd, &mut stat) == 0;
            if done {
                let len = stat.st_size as usize;
                let access = libc::PROT_READ | libc::PROT_WRITE;
                let start = libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, fd, 0);
                done = start != libc::MAP_FAILED;
                if done {
                    start.cast::<u64>().read_volatile();
                    done = libc::munmap(start, len) == 0;
                }
            }
            done && libc::close(fd) == 0
        };
        if !done {
            return Err(std::io::Error::last_os_error().into());
        }
    }
    Ok(start.elapsed().as_nanos() as f64 / 1e3 / times as f64)
}

/// [`open_and_map`] of a file of 256 KiB.
///
/// # Errors
/// If it fails.
pub fn shm_open(stage: &Stage) -> Result {
    let path = crate::stage::c_string(&format!("/{}", stage.name));
    // SAFETY: a string of this function, and the descriptor it opens.
    unsafe {
        let made = libc::shm_open(path.as_ptr(), libc::O_CREAT | libc::O_EXCL | libc::O_RDWR, 0o600);
        if made < 0 || libc::ftruncate(made, 256 << 10) != 0 || libc::close(made) != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
    }
    let measured = open_and_map(&path, stage.n);
    // SAFETY: a string of this function.
    unsafe { libc::shm_unlink(path.as_ptr()) };
    stage.publish(measured?);
    Ok(())
}
