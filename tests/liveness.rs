//! The proof of life: what keeps a participant alive in the eyes of the others, and what does not.
//!
//! The facts behind it were found with a C program; here they are asked of the real code.

mod common;

use shmkit::Segment;
use std::sync::atomic::{AtomicU32, Ordering};

roles!(attached, closes_everything, raw_clones, vforks, executes, unshares, reads_late, forks);

/// Waits in the kernel for its end, without a thing to wake for.
fn pause_for_ever() -> ! {
    loop {
        // SAFETY: pause has no preconditions.
        unsafe { libc::pause() };
    }
}

/// A raw system call that makes a child with a copy of the memory, past every handler of the C library.
fn raw_clone() -> i64 {
    // SAFETY: without CLONE_VM the child gets its own copy of everything; it only calls async-signal-safe functions.
    unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD as libc::c_long, 0, 0, 0, 0) }
}

fn open(arguments: &[String]) -> Segment {
    let segment = Segment::open(&arguments[0]).unwrap();
    common::say("attached");
    common::listen();
    segment
}

fn attached(arguments: &[String]) {
    let _segment = open(arguments);
}

fn closes_everything(arguments: &[String]) {
    let segment = open(arguments);
    let kept = segment.lock("kept").open_or_create().unwrap();
    let guard = kept.lock().unwrap();
    // SAFETY: closes every descriptor but the standard ones; nothing of ours is used through one afterwards.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    common::say("closed");
    common::listen();
    drop(guard);
    common::say("released");
    common::listen();
}

fn raw_clones(arguments: &[String]) {
    let _segment = open(arguments);
    let child = raw_clone();
    if child == 0 {
        pause_for_ever();
    }
    common::say(&child.to_string());
    pause_for_ever();
}

fn vforks(arguments: &[String]) {
    let _segment = open(arguments);
    static CHILD: AtomicU32 = AtomicU32::new(0);
    std::thread::spawn(|| {
        while CHILD.load(Ordering::Acquire) == 0 {
            std::hint::spin_loop();
        }
        common::say(&CHILD.load(Ordering::Acquire).to_string());
    });
    // SAFETY: CLONE_VFORK | CLONE_VM: the child shares this memory; it writes one atomic and pauses.
    let child = unsafe {
        libc::syscall(libc::SYS_clone, (libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD) as libc::c_long, 0, 0, 0, 0)
    };
    if child == 0 {
        // SAFETY: gettid has no preconditions.
        CHILD.store(unsafe { libc::syscall(libc::SYS_gettid) } as u32, Ordering::Release);
        pause_for_ever();
    }
}

fn executes(arguments: &[String]) {
    let segment = open(arguments);
    std::mem::forget(segment);
    let error = std::os::unix::process::CommandExt::exec(&mut std::process::Command::new("cat"));
    panic!("{error}");
}

fn unshares(arguments: &[String]) {
    let segment = open(arguments);
    std::thread::spawn(move || {
        // SAFETY: unshare has no preconditions; this thread keeps its own table of descriptors from here on.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
        common::say("unshared");
        common::listen();
        drop(segment);
    })
    .join()
    .unwrap();
}

/// A thread is inside one long `read(2)` into the segment when the process is killed.
fn reads_late(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let (offset, len): (usize, usize) = (arguments[1].parse().unwrap(), arguments[2].parse().unwrap());
    use std::os::fd::{AsFd, AsRawFd};
    // SAFETY: a fresh mapping of the whole segment, as another library might make one.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            offset + len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            segment.as_fd().as_raw_fd(),
            0,
        )
    };
    assert_ne!(base, libc::MAP_FAILED);
    let zeros = std::fs::File::open("/dev/zero").unwrap();
    let source = zeros.as_fd().as_raw_fd();
    let target = base as usize + offset;
    common::say("reading");
    loop {
        // SAFETY: the range lies inside the mapping; the parent looks at the bytes only after this process is dead.
        unsafe { libc::read(source, target as *mut libc::c_void, len) };
    }
}

fn forks(arguments: &[String]) {
    let segment = open(arguments);
    let lock = segment.lock("forked").create().unwrap();
    let held = lock.lock().unwrap();
    // SAFETY: no other thread runs in this process.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // The guard is the parent's: the child is another participant and does not own it.
        std::mem::forget(held);
        let mine = lock.is_mine().unwrap();
        common::say(if mine { "owner" } else { "not the owner" });
        let timed_out = !lock.acquire_timeout(std::time::Duration::from_millis(1)).unwrap();
        common::say(if timed_out { "locked" } else { "free" });
        lock.acquire().unwrap();
        lock.release().unwrap();
        std::process::exit(0);
    }
    common::listen();
    drop(held);
    let mut status = 0;
    // SAFETY: the child is this process's own and not reaped yet.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
}

/// Starts a child that has attached.
fn begin(role: &str, segment: &common::Named) -> common::Child {
    let mut child = common::start(role, &[&segment.name]);
    child.expect("attached");
    assert!(segment.participants().contains(&child.pid()));
    child
}

fn lives(segment: &Segment, pid: u32) -> bool {
    segment.participants().contains(&pid)
}

/// Waits until the participant is proven dead, however long the kernel takes to let go of its memory.
fn await_death(segment: &Segment, pid: u32) {
    common::until(|| !lives(segment, pid));
}

#[test]
fn a_killed_process_is_dead_and_a_stopped_one_is_not() {
    let segment = common::named("live-kill");
    let mut child = begin("attached", &segment);
    child.signal(libc::SIGSTOP);
    let mut status = 0;
    // SAFETY: the child is this process's own and not reaped yet.
    unsafe { libc::waitpid(child.pid() as i32, &mut status, libc::WUNTRACED) };
    assert!(libc::WIFSTOPPED(status));
    assert!(lives(&segment, child.pid()), "a stopped process is alive");
    assert_eq!(segment.recover(), 0);
    child.kill();
    await_death(&segment, child.pid());
    assert_eq!(segment.recover(), 1);
    segment.verify().unwrap();
}

#[test]
fn an_unreaped_zombie_is_dead() {
    let segment = common::named("live-zombie");
    let child = begin("attached", &segment);
    child.signal(libc::SIGKILL);
    await_death(&segment, child.pid());
    assert!(std::path::Path::new(&format!("/proc/{}", child.pid())).exists(), "still a zombie");
}

#[test]
fn a_process_that_closes_every_descriptor_lives() {
    let segment = common::named("live-close");
    let mut child = begin("closes_everything", &segment);
    child.tell("go");
    child.expect("closed");
    assert!(lives(&segment, child.pid()));
    let kept = segment.lock("kept").open().unwrap();
    assert_eq!(segment.recover(), 0);
    assert!(kept.is_locked(), "it was not robbed");
    child.tell("go");
    child.expect("released");
    assert!(!kept.is_locked());
    child.kill();
    await_death(&segment, child.pid());
}

#[test]
fn a_raw_clone_does_not_keep_its_parent_alive() {
    let segment = common::named("live-clone");
    let mut child = begin("raw_clones", &segment);
    child.tell("go");
    let clone: i32 = child.hear().parse().unwrap();
    child.kill();
    await_death(&segment, child.pid());
    // SAFETY: kill has no preconditions.
    assert_eq!(unsafe { libc::kill(clone, libc::SIGKILL) }, 0, "the clone outlived its parent");
}

#[test]
fn whoever_shares_the_memory_keeps_it_alive() {
    let segment = common::named("live-vfork");
    let mut child = begin("vforks", &segment);
    child.tell("go");
    let clone: i32 = child.hear().parse().unwrap();
    child.signal(libc::SIGKILL);
    for _ in 0..1000 {
        std::thread::yield_now();
        assert!(lives(&segment, child.pid()), "its child can still write to the segment");
    }
    // SAFETY: kill has no preconditions.
    assert_eq!(unsafe { libc::kill(clone, libc::SIGKILL) }, 0);
    await_death(&segment, child.pid());
}

#[test]
fn exec_ends_a_participant() {
    let segment = common::named("live-exec");
    let mut child = begin("executes", &segment);
    child.tell("go");
    await_death(&segment, child.pid());
    child.tell("still here");
    child.expect("still here");
    assert_eq!(segment.recover(), 1);
}

#[test]
fn a_private_table_of_descriptors_changes_nothing() {
    let segment = common::named("live-unshare");
    let mut child = begin("unshares", &segment);
    child.tell("go");
    child.expect("unshared");
    assert!(lives(&segment, child.pid()));
    child.signal(libc::SIGKILL);
    await_death(&segment, child.pid());
}

#[test]
fn nothing_is_written_after_the_proof_of_death() {
    const OFFSET: usize = 512 << 20;
    const LEN: usize = 64 << 20;
    let segment = common::named("live-late");
    use std::os::fd::AsRawFd;
    // SAFETY: backs a range of the file that the heap does not reach in this test; the mapping is this test's own.
    let bytes = unsafe {
        assert_eq!(libc::fallocate(segment.as_fd().as_raw_fd(), 1, OFFSET as i64, LEN as i64), 0);
        let fd = segment.as_fd().as_raw_fd();
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(std::ptr::null_mut(), LEN, prot, libc::MAP_SHARED, fd, OFFSET as i64).cast::<u8>()
    };
    assert_ne!(bytes.cast(), libc::MAP_FAILED);
    for _ in 0..5 {
        let mut child = common::start("reads_late", &[&segment.name, &OFFSET.to_string(), &LEN.to_string()]);
        child.expect("reading");
        child.signal(libc::SIGKILL);
        await_death(&segment, child.pid());
        // SAFETY: the only writer is dead: these bytes are this test's alone.
        let bytes = unsafe { std::slice::from_raw_parts_mut(bytes, LEN) };
        bytes.fill(0xAA);
        for _ in 0..20 {
            std::thread::yield_now();
        }
        assert!(bytes.iter().all(|&byte| byte == 0xAA), "the dead one wrote");
    }
    // SAFETY: mapped above, not used any more.
    unsafe { libc::munmap(bytes.cast(), LEN) };
}

#[test]
fn a_forked_child_is_a_participant_of_its_own() {
    let segment = common::named("live-fork");
    let mut child = begin("forks", &segment);
    child.tell("go");
    child.expect("not the owner");
    child.expect("locked");
    child.tell("release");
    child.succeeded();
    segment.verify().unwrap();
}
