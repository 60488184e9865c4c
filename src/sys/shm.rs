//! Files of shared memory: named ones in `/dev/shm`, anonymous ones by `memfd_create`.

use super::{Call, SysError};
use rustix::fs::{self, AtFlags, CWD, FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags, SeekFrom, Stat};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where named segments live.
pub(crate) const DIRECTORY: &str = "/dev/shm";
const PREFIX: &str = "shmkit.";

/// The file of the segment `name`.
pub(crate) fn path_of(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{PREFIX}{name}"))
}

/// The names of all segments in `/dev/shm`.
pub(crate) fn names() -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(DIRECTORY)? {
        if let Some(name) = entry?.file_name().to_str().and_then(|name| name.strip_prefix(PREFIX)) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// A file without a name in `/dev/shm`; the kernel frees it if its creator dies before [`link`].
pub(crate) fn create_unnamed(mode: u32) -> Result<OwnedFd, SysError> {
    fs::open(DIRECTORY, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))
        .and_then(|fd| fs::fchmod(&fd, Mode::from_raw_mode(mode)).map(|()| fd))
        .call("open(/dev/shm, O_TMPFILE)")
}

/// Gives an unnamed file its name; `Ok(false)` if the name is taken.
pub(crate) fn link(fd: BorrowedFd<'_>, path: &Path) -> Result<bool, SysError> {
    match fs::linkat(CWD, own_path(fd), CWD, path, AtFlags::SYMLINK_FOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(SysError::new("linkat", errno)),
    }
}

/// Opens the file at `path`; `None` if there is none.
pub(crate) fn open(path: &Path) -> Result<Option<OwnedFd>, SysError> {
    match fs::open(path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(SysError::new("open", errno)),
    }
}

/// A second open file description of the file behind `fd`.
pub(crate) fn reopen(fd: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
    let again = |path: &str| fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let original = ORIGINAL.load(Ordering::Relaxed);
    if original != 0 && original as u32 == fd.as_raw_fd() as u32 {
        let found = again(&format!("/proc/{}/fd/{}", original >> 32, original as u32));
        let same = |found: &OwnedFd| {
            let (found, expected) = (stat(found.as_fd()), stat(fd));
            found.is_ok_and(|found| {
                expected.is_ok_and(|stat| (found.st_dev, found.st_ino) == (stat.st_dev, stat.st_ino))
            })
        };
        if let Some(found) = found.ok().filter(same) {
            return Ok(found);
        }
    }
    again(&own_path(fd)).call("open(/proc/self/fd)")
}

/// Process id << 32 | descriptor: see [`set_original`].
static ORIGINAL: AtomicU64 = AtomicU64::new(0);

/// From now on, in all copies of this process, too, the file behind `fd` is looked for among this process's own first: what the
/// system knows of a new process under `/proc` it has to make first.
pub(crate) fn set_original(fd: BorrowedFd<'_>) {
    ORIGINAL.store(u64::from(std::process::id()) << 32 | fd.as_raw_fd() as u64, Ordering::Relaxed);
}

/// An anonymous file that cannot be shrunk or grown by anybody once it has `size` bytes.
pub(crate) fn create_memfd(label: &str, size: u64) -> Result<OwnedFd, SysError> {
    let fd = fs::memfd_create(label, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).call("memfd_create")?;
    set_len(fd.as_fd(), size)?;
    fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).call("fcntl(F_ADD_SEALS)")?;
    Ok(fd)
}

/// Sets the length of the file; its pages stay holes.
pub(crate) fn set_len(fd: BorrowedFd<'_>, size: u64) -> Result<(), SysError> {
    fs::ftruncate(fd, size).call("ftruncate")
}

/// Backs `len` bytes from `offset` with memory; `Ok(false)` if there is none.
pub(crate) fn back(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<bool, SysError> {
    loop {
        match fs::fallocate(fd, FallocateFlags::KEEP_SIZE, offset, len) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(Errno::NOSPC | Errno::NOMEM) => return Ok(false),
            Err(errno) => return Err(SysError::new("fallocate", errno)),
        }
    }
}

/// Takes the memory behind `len` bytes from `offset` away: they read as zeros, and the next access needs new memory.
pub(crate) fn punch(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<(), SysError> {
    loop {
        match fs::fallocate(fd, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(SysError::new("fallocate(FALLOC_FL_PUNCH_HOLE)", errno)),
        }
    }
}

/// Whether any of the bytes from `start` to `end` has no memory behind it.
pub(crate) fn has_hole(fd: BorrowedFd<'_>, start: u64, end: u64) -> Result<bool, SysError> {
    // The description's position moves: nobody reads or writes through it.
    match fs::seek(fd, SeekFrom::Hole(start)) {
        Ok(hole) => Ok(hole < end),
        Err(errno) => Err(SysError::new("lseek(SEEK_HOLE)", errno)),
    }
}

/// Length, mode, owner and inode of the file.
pub(crate) fn stat(fd: BorrowedFd<'_>) -> Result<Stat, SysError> {
    fs::fstat(fd).call("fstat")
}

/// Whether `path` names the inode of `stat`.
pub(crate) fn names_inode(path: &Path, stat: &Stat) -> bool {
    fs::lstat(path).is_ok_and(|found| found.st_ino == stat.st_ino && found.st_dev == stat.st_dev)
}

/// Takes the name away; `Ok(false)` if there was none.
pub(crate) fn unlink(path: &Path) -> Result<bool, SysError> {
    match fs::unlink(path) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(SysError::new("unlink", errno)),
    }
}

/// Bytes the file system of `fd` can still back; `None` where it has no limit of its own.
pub(crate) fn free_space(fd: BorrowedFd<'_>) -> Option<u64> {
    let stat = fs::fstatvfs(fd).ok()?;
    (stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn own_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
