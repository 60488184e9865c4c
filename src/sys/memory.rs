//! How much memory there still is.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of a page. Asked of libc: rustix reads the vDSO, which Valgrind hides.
pub(crate) fn page_size() -> u32 {
    // SAFETY: sysconf(3) has no preconditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u32 }
}

/// Bytes this process may still use by the limits of its memory cgroup and its ancestors; `None` without a limit.
pub(crate) fn cgroup_free() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let relative = own.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/').to_owned();
    let root = Path::new("/sys/fs/cgroup");
    let mut directory: PathBuf = root.join(relative);
    let mut free: Option<u64> = None;
    while directory.starts_with(root) {
        if let (Some(maximum), Some(current)) =
            (number(&directory.join("memory.max")), number(&directory.join("memory.current")))
        {
            let here = maximum.saturating_sub(current);
            free = Some(free.map_or(here, |least| least.min(here)));
        }
        if !directory.pop() {
            break;
        }
    }
    free
}

/// Bytes of memory this process has at this instant; 0 where `/proc` is not mounted.
pub(crate) fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * u64::from(page_size())
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
