//! How much memory there still is.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of a page. Asked of libc: rustix reads the vDSO, which Valgrind hides.
pub(crate) fn page_size() -> u32 {
    // SAFETY: sysconf(3) has no preconditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u32 }
}

/// Where a version of control groups keeps its numbers.
struct Version {
    /// What its line of `/proc/self/cgroup` has between the number and the path.
    line: &'static str,
    root: &'static str,
    limit: &'static str,
    used: &'static str,
    /// Where it says how many processes were killed for want of memory.
    kills: &'static str,
    /// In `memory.stat`: pages of files. The kernel takes them back before it kills anybody. Shared memory is not among them.
    reclaimable: [&'static str; 2],
}

const VERSIONS: [Version; 2] = [
    Version {
        line: "",
        root: "/sys/fs/cgroup",
        limit: "memory.max",
        used: "memory.current",
        kills: "memory.events",
        reclaimable: ["inactive_file", "active_file"],
    },
    Version {
        line: "memory",
        root: "/sys/fs/cgroup/memory",
        limit: "memory.limit_in_bytes",
        used: "memory.usage_in_bytes",
        kills: "memory.oom_control",
        reclaimable: ["total_inactive_file", "total_active_file"],
    },
];

/// Bytes this process may still use by the limits of its memory cgroup and its ancestors; `None` without a limit.
pub(crate) fn cgroup_free() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    VERSIONS.iter().filter_map(|version| version.free(&own)).min()
}

/// How many processes of this process's memory cgroup the kernel has killed for want of memory; of the whole system, where the group
/// does not tell. `None` where nobody does.
pub(crate) fn oom_kills() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of_group = VERSIONS.iter().find_map(|version| version.kills(&own));
    of_group.or_else(|| field(Path::new("/proc/vmstat"), "oom_kill"))
}

/// The number after `name` in a file of lines.
fn field(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

impl Version {
    fn kills(&self, own: &str) -> Option<u64> {
        let relative = own.lines().find_map(|line| self.path_in(line))?.trim_start_matches('/');
        field(&Path::new(self.root).join(relative).join(self.kills), "oom_kill")
    }

    fn free(&self, own: &str) -> Option<u64> {
        let relative = own.lines().find_map(|line| self.path_in(line))?.trim_start_matches('/');
        let root = Path::new(self.root);
        let mut directory: PathBuf = root.join(relative);
        let mut free: Option<u64> = None;
        while directory.starts_with(root) {
            if let (Some(limit), Some(used)) = (number(&directory.join(self.limit)), number(&directory.join(self.used)))
            {
                let here = limit.saturating_sub(used);
                // Only worth a look where it matters, and not once for every page.
                let here = if here < NEAR { here.saturating_add(self.reclaimable_in(&directory)) } else { here };
                free = Some(free.map_or(here, |least| least.min(here)));
            }
            if !directory.pop() {
                break;
            }
        }
        free
    }

    /// `HIERARCHY:CONTROLLERS:PATH`.
    fn path_in<'a>(&self, line: &'a str) -> Option<&'a str> {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|controller| controller == self.line).then_some(path)
    }

    fn reclaimable_in(&self, directory: &Path) -> u64 {
        let stat = fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
        let fields = stat.lines().filter_map(|line| line.split_once(' '));
        fields
            .filter(|(name, _)| self.reclaimable.contains(name))
            .filter_map(|(_, bytes)| bytes.parse::<u64>().ok())
            .sum()
    }
}

/// Less than this is little.
const NEAR: u64 = 1 << 30;

/// Bytes of memory this process has at this instant; 0 where `/proc` is not mounted.
pub(crate) fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * u64::from(page_size())
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_controller() {
        let [second, first] = &VERSIONS;
        assert_eq!(second.path_in("0::/user.slice"), Some("/user.slice"));
        assert_eq!(second.path_in("4:memory:/a"), None);
        assert_eq!(first.path_in("4:memory:/a"), Some("/a"));
        assert_eq!(first.path_in("7:cpu,memory:/b"), Some("/b"));
        assert_eq!(first.path_in("0::/user.slice"), None);
    }
}
