//! What `/proc` says of this process.

use std::os::linux::fs::MetadataExt;

/// Whether the executable has more rights than its user: then the environment is not to be trusted.
pub(crate) fn is_privileged() -> bool {
    // SAFETY: getauxval(3) has no preconditions.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Inode number of this process's PID namespace; 0 where `/proc` is not mounted.
pub(crate) fn pid_namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.st_ino())
}

/// Start time of a process in clock ticks since boot; `None` if there is no such process.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and brackets: fields are counted from its closing bracket.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// What a process is doing, as `ps` shows it (`R`, `S`, `T` for stopped, `Z` for a zombie…).
pub(crate) fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// File name of this process's executable, cut to 31 bytes.
pub(crate) fn executable_name() -> String {
    std::env::current_exe()
        .ok()
        .and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_default()
}
