//! The world around shmkit, at its worst: no memory, no descriptors, no address space, other namespaces, other users, strange
//! files, and processes that do what processes seldom do. A peer that writes where it likes is in `fuzz`.
//!
//! Where a test needs privileges that are missing it says so on the terminal and passes, and fails with `SHMKIT_NO_SKIPS=1` in the
//! environment. Being root is not enough everywhere: in a container, namespaces may be forbidden and control groups read-only.
//! `tests/liveness.rs` asks the same of the proof of life alone.

#[path = "../common/mod.rs"]
mod common;

mod crowd;
mod files;
mod limits;
mod processes;
mod space;
mod starts;
mod users;

use crowd::of_a_crowd;
use files::{truncated, uses_named};
use limits::{few_descriptors, in_a_control_group, little_address_space, no_descriptor_left};
use processes::{
    closes_and_works, executes_holding, forks_busily, in_a_namespace, isolates, raw_clone_works, stays, vforks_holding,
};
use space::{makes_every_kind, on_a_full_disk, on_a_small_disk, reads_in_the_dark};
use starts::{processes_on_a_small_disk, starts_everything};
use users::{as_nobody, squats};

roles!(
    truncated,
    uses_named,
    few_descriptors,
    in_a_control_group,
    little_address_space,
    no_descriptor_left,
    closes_and_works,
    executes_holding,
    forks_busily,
    in_a_namespace,
    isolates,
    of_a_crowd,
    raw_clone_works,
    stays,
    vforks_holding,
    makes_every_kind,
    on_a_full_disk,
    on_a_small_disk,
    reads_in_the_dark,
    processes_on_a_small_disk,
    starts_everything,
    as_nobody,
    squats,
);

/// What a role that may lack privileges says first: it runs, or why it cannot.
fn runs(test: &str, child: &mut common::Child) -> bool {
    match child.hear().strip_prefix("cannot ") {
        None => true,
        Some(why) => {
            common::skip(test, why);
            child.succeeded();
            false
        }
    }
}

/// In a child: a mount namespace of its own; `None` after saying why there is none.
fn private_mounts() -> Option<()> {
    // SAFETY: plain system calls; the child has no other threads, and the strings end with NUL.
    let failed = unsafe {
        let (user, group) = (libc::geteuid(), libc::getegid());
        libc::unshare(libc::CLONE_NEWNS) != 0 && {
            let failed = libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) != 0;
            let _ = std::fs::write("/proc/self/setgroups", "deny");
            failed
                || std::fs::write("/proc/self/uid_map", format!("0 {user} 1")).is_err()
                || std::fs::write("/proc/self/gid_map", format!("0 {group} 1")).is_err()
        } || libc::mount(
            c"none".as_ptr(),
            c"/".as_ptr(),
            std::ptr::null(),
            libc::MS_REC | libc::MS_PRIVATE,
            std::ptr::null(),
        ) != 0
    };
    if failed {
        common::say(&format!("cannot make a mount namespace: {}", std::io::Error::last_os_error()));
        return None;
    }
    Some(())
}
