//! Workers that the kernel kills because memory ran out: the pool says so, and goes on.
//!
//! It takes a control group with a limit; where none can be made the test says so on the terminal and passes (see [`common::skip`]).

mod common;

use shmkit::{Error, Pool, TaskError};
use std::path::{Path, PathBuf};

roles!(pool_in_a_group);

/// A control group of one's own with a limit of memory, gone when dropped.
struct Group(PathBuf);

impl Group {
    fn new(bytes: u64) -> Result<Group, String> {
        let second = Path::new("/sys/fs/cgroup");
        let (root, file) = if second.join("cgroup.controllers").exists() {
            let _ = std::fs::write(second.join("cgroup.subtree_control"), "+memory");
            (second.to_owned(), "memory.max")
        } else {
            (second.join("memory"), "memory.limit_in_bytes")
        };
        let group = Group(root.join(format!("shmkit-{}", common::unique("memory"))));
        std::fs::create_dir(&group.0).map_err(|error| format!("{}: {error}", group.0.display()))?;
        std::fs::write(group.0.join(file), bytes.to_string()).map_err(|error| format!("{file}: {error}"))?;
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It stays busy until the kernel has let go of its last process.
        for _ in 0..1_000_000 {
            match std::fs::remove_dir(&self.0) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => std::thread::yield_now(),
                _ => return,
            }
        }
    }
}

/// A worker takes more than its group allows, and is killed for that; another one is killed for nothing.
fn pool_in_a_group(_: &[String]) {
    common::say("ready");
    common::listen();
    let pool = Pool::new(1).unwrap();
    // The kernel is to choose the worker, and not the pool's process.
    let hog = || {
        std::fs::write("/proc/self/oom_score_adj", "1000").unwrap();
        std::hint::black_box(vec![1u8; 1 << 30]).len()
    };
    let error = pool.apply(hog, ()).unwrap_err();
    common::say(&error.to_string());
    let Error::Task(TaskError::WorkerDied { signal, out_of_memory, .. }) = error else { panic!("{error}") };
    assert_eq!((signal, out_of_memory), (Some(libc::SIGKILL), true));
    let dies = || {
        // SAFETY: raise has no preconditions.
        unsafe { libc::raise(libc::SIGKILL) };
    };
    let Err(Error::Task(TaskError::WorkerDied { out_of_memory, .. })) = pool.apply(dies, ()) else { panic!("alive") };
    assert!(!out_of_memory, "that was a usual kill");
    assert_eq!(pool.apply(|x: u32| x + 1, (1,)).unwrap(), 2);
}

#[test]
fn a_worker_killed_for_want_of_memory_is_told_of_as_such() {
    let skip = |why: String| common::skip("a_worker_killed_for_want_of_memory_is_told_of_as_such", &why);
    let group = match Group::new(128 << 20) {
        Ok(group) => group,
        Err(why) => return skip(why),
    };
    let mut child = common::start("pool_in_a_group", &[]);
    child.expect("ready");
    if let Err(error) = std::fs::write(group.0.join("cgroup.procs"), child.pid().to_string()) {
        return skip(error.to_string());
    }
    child.tell("go");
    let error = child.hear();
    assert!(error.contains("killed by signal 9: the system ran out of memory"), "{error}");
    child.succeeded();
}
