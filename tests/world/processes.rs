//! Processes that do what processes seldom do, and many of them at once.

use crate::common;
use shmkit::{Array, Event, Lock, Segment, Value};
use std::time::Duration;

/// Adds one as two steps, which only mutual exclusion keeps together.
fn add_one(count: &Value<u64>) {
    let place = count.as_ptr();
    // SAFETY: the value lives as long as its handle; the lock that the caller holds makes this the only access.
    unsafe { place.write_volatile(place.read_volatile() + 1) };
}

/// Waits in the kernel for its end.
fn pause_for_ever() -> ! {
    loop {
        // SAFETY: pause has no preconditions.
        unsafe { libc::pause() };
    }
}

fn reap(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the child is this process's own and not reaped yet.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    status
}

/// Holds a lock or a permit until it is told to go.
pub fn stays(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let lock = segment.lock("lock");
    if arguments[1] == "lock" {
        lock.open().unwrap().acquire().unwrap();
    } else {
        segment.permit_semaphore("permits").open().unwrap().acquire().unwrap().forget();
    }
    common::say("holds");
    common::listen();
}

#[test]
fn unreaped_zombies_give_everything_back() {
    let segment = common::named("zombies");
    let lock = segment.lock("lock").create().unwrap();
    let permits = segment.permit_semaphore("permits").permits(12).create().unwrap();
    let children: Vec<_> = (0..12).map(|_| common::start("stays", &[&segment.name, "permit"])).collect();
    let mut holder = common::start("stays", &[&segment.name, "lock"]);
    let mut children = children;
    children.iter_mut().for_each(|child| child.expect("holds"));
    holder.expect("holds");
    assert_eq!(permits.value(), 0);
    holder.signal(libc::SIGKILL);
    children.iter().for_each(|child| child.signal(libc::SIGKILL));
    assert!(lock.lock().unwrap_err().is_owner_died());
    let taken: Vec<_> = (0..12).map(|_| permits.acquire().unwrap()).collect();
    for child in &children {
        assert!(std::path::Path::new(&format!("/proc/{}", child.pid())).exists(), "still a zombie");
    }
    drop(taken);
    common::until(|| segment.participants().len() == 1);
    segment.recover();
    segment.verify().unwrap();
}

/// Closes every descriptor behind the library's back, opens others under their numbers, and works on.
pub fn closes_and_works(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let queue = segment.queue::<String>("queue").open().unwrap();
    let lock = segment.lock("lock").open().unwrap();
    let work = move || {
        // SAFETY: closes every descriptor but the standard ones.
        assert_eq!(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) }, 0);
        let strangers: Vec<_> = (0..32).map(|_| tempfile()).collect();
        common::say("closed");
        // Notices the death of the lock's holder, takes memory, makes and opens objects, recovers the dead.
        assert!(lock.lock().unwrap_err().is_owner_died());
        let array = segment.array::<u64>("array").len(1 << 20).create().unwrap();
        array.set((1 << 20) - 1, 7).unwrap();
        drop(Event::new_in(&segment).unwrap());
        queue.put("l".repeat(100_000)).unwrap();
        common::until(|| segment.recover() == 0 && segment.participants().len() == 2);
        segment.verify().unwrap();
        for stranger in &strangers {
            let found = stranger.metadata().unwrap();
            use std::os::unix::fs::MetadataExt;
            assert_eq!((found.len(), found.blocks()), (0, 0), "a stranger's file was written to");
        }
        drop((queue, lock, array, segment));
        // Nobody closed the strangers' descriptors either.
        strangers.iter().for_each(|stranger| assert!(stranger.metadata().is_ok()));
    };
    if arguments[1] == "thread" {
        std::thread::spawn(|| {
            // SAFETY: unshare has no preconditions; this thread keeps its own table of descriptors from here on.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
            work();
        })
        .join()
        .unwrap();
    } else {
        work();
    }
    common::say("done");
}

/// A file without a name.
fn tempfile() -> std::fs::File {
    use std::os::unix::fs::OpenOptionsExt;
    let options = std::fs::File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).to_owned();
    options.open("/dev/shm").unwrap()
}

fn works_without_descriptors(how: &str) {
    let segment = common::named("closed");
    segment.queue::<String>("queue").capacity(4).create().unwrap();
    segment.lock("lock").create().unwrap();
    let mut holder = common::start("stays", &[&segment.name, "lock"]);
    holder.expect("holds");
    let mut child = common::start("closes_and_works", &[&segment.name, how]);
    child.expect("closed");
    holder.kill();
    child.expect("done");
    child.succeeded();
    assert_eq!(segment.queue::<String>("queue").open().unwrap().get().unwrap().len(), 100_000);
    assert_eq!(segment.array::<u64>("array").open().unwrap().get((1 << 20) - 1).unwrap(), 7);
    assert_eq!(segment.participants().len(), 1);
    segment.verify().unwrap();
}

#[test]
fn one_whose_descriptors_were_all_closed_works_on_and_touches_no_other_file() {
    works_without_descriptors("process");
}

#[test]
fn a_thread_with_a_private_table_of_descriptors_may_close_them_all() {
    works_without_descriptors("thread");
}

/// Becomes another program while it holds a lock.
pub fn executes_holding(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    segment.lock("lock").open().unwrap().acquire().unwrap();
    common::say("holds");
    common::listen();
    std::mem::forget(segment);
    let error = std::os::unix::process::CommandExt::exec(&mut std::process::Command::new("cat"));
    panic!("{error}");
}

#[test]
fn a_program_that_replaces_an_attached_process_does_not_keep_its_lock() {
    let segment = common::named("exec");
    let lock = segment.lock("lock").create().unwrap();
    let mut child = common::start("executes_holding", &[&segment.name]);
    child.expect("holds");
    assert!(!lock.acquire_timeout(Duration::from_millis(1)).unwrap());
    child.tell("go");
    drop(lock.lock().unwrap_err().repair(|_| ()).unwrap());
    child.tell("still the same process");
    child.expect("still the same process");
    common::until(|| segment.participants().len() == 1);
    segment.recover();
    segment.verify().unwrap();
}

/// A copy made by a raw system call is a participant of its own.
pub fn raw_clone_works(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let lock = segment.lock("lock").open().unwrap();
    let queue = segment.queue::<String>("queue").open().unwrap();
    lock.acquire().unwrap();
    // SAFETY: without CLONE_VM the child gets its own copy of everything; this process has one thread.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD as libc::c_long, 0, 0, 0, 0) };
    if child == 0 {
        assert!(!lock.is_mine().unwrap());
        queue.put(format!("{}", std::process::id())).unwrap();
        let died = lock.lock().unwrap_err();
        assert!(died.is_owner_died());
        drop(died.repair(|_| ()).unwrap());
        queue.put("clone".to_owned()).unwrap();
        drop((lock, queue, segment));
        std::process::exit(0);
    }
    pause_for_ever();
}

#[test]
fn a_raw_clone_is_a_participant_of_its_own() {
    let segment = common::named("clone");
    segment.lock("lock").create().unwrap();
    let queue = segment.queue::<String>("queue").capacity(4).create().unwrap();
    let mut child = common::start("raw_clone_works", &[&segment.name]);
    let clone: u32 = queue.get().unwrap().parse().unwrap();
    let participants = segment.participants();
    assert!(participants.contains(&clone) && participants.contains(&child.pid()), "{participants:?}");
    child.kill();
    assert_eq!(queue.get().unwrap(), "clone");
    common::until(|| segment.participants().len() == 1);
    segment.recover();
    segment.verify().unwrap();
}

/// Its child shares its memory: it holds the lock as long as that one lives.
pub fn vforks_holding(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    segment.lock("lock").open().unwrap().acquire().unwrap();
    // SAFETY: CLONE_VFORK | CLONE_VM: the child shares this memory and the stack, on which it only makes system calls.
    unsafe {
        let flags = (libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD) as libc::c_long;
        if libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) == 0 {
            common::say(&format!("{}", libc::syscall(libc::SYS_getpid)));
            pause_for_ever();
        }
    }
}

#[test]
fn a_lock_stays_with_a_vforked_child_of_the_dead() {
    let segment = common::named("vfork");
    let lock = segment.lock("lock").create().unwrap();
    let mut child = common::start("vforks_holding", &[&segment.name]);
    let vforked: i32 = child.hear().parse().unwrap();
    child.signal(libc::SIGKILL);
    assert!(!lock.acquire_timeout(Duration::from_millis(300)).unwrap(), "whoever shares the memory could still store");
    // SAFETY: kill has no preconditions.
    assert_eq!(unsafe { libc::kill(vforked, libc::SIGKILL) }, 0);
    assert!(lock.lock().unwrap_err().is_owner_died());
}

/// Forks, again and again, while its threads are in the middle of everything. The children work and do not execute anything.
pub fn forks_busily(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for n in 0..6 {
            let (segment, over) = (&segment, &over);
            scope.spawn(move || {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    work_a_little(segment, n);
                }
            });
        }
        for n in 0..60 {
            // SAFETY: the child uses what the library says is usable in one; malloc is, with the GNU C library.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // Whoever hangs is ended.
                // SAFETY: alarm has no preconditions.
                unsafe { libc::alarm(30) };
                let worked = std::panic::catch_unwind(|| work_a_little(&segment, n));
                // SAFETY: ends the process without the parent's handlers.
                unsafe { libc::_exit(if worked.is_ok() { 0 } else { 1 }) };
            }
            let status = reap(child);
            assert_eq!(status, 0, "child {n} failed or hung");
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    common::say("done");
}

/// Opens, makes, uses and drops.
fn work_a_little(segment: &Segment, n: u32) {
    let lock = segment.lock("lock").open().unwrap();
    let count = segment.value::<u64>("count").open().unwrap();
    let queue = segment.queue::<u64>("queue").open().unwrap();
    for _ in 0..20 {
        // A killed child may have been the lock's owner: this test kills none.
        let guard = lock.lock().unwrap();
        add_one(&count);
        drop(guard);
        queue.put(u64::from(n)).unwrap();
        queue.get().unwrap();
    }
    let mine = Lock::new_in(segment).unwrap();
    drop(mine.clone().lock().unwrap());
    let array = Array::<u64>::new_in(segment, 1000).unwrap();
    array.set(999, 1).unwrap();
    let again = Segment::open(segment.name().unwrap()).unwrap();
    drop(again.event("event").open_or_create().unwrap());
}

#[test]
fn forks_without_exec_while_threads_run_find_working_objects() {
    let segment = common::named("forks");
    segment.lock("lock").create().unwrap();
    let count = segment.value::<u64>("count").create().unwrap();
    segment.queue::<u64>("queue").capacity(64).create().unwrap();
    let mut child = common::start("forks_busily", &[&segment.name]);
    child.expect("done");
    child.succeeded();
    let counted = count.get().unwrap();
    assert!(counted >= 60 * 20 && counted.is_multiple_of(20), "{counted}");
    common::until(|| segment.participants().len() == 1);
    segment.recover();
    segment.verify().unwrap();
}

/// Goes into a PID namespace of its own and starts [`in_a_namespace`] there, as process 1.
pub fn isolates(arguments: &[String]) {
    // SAFETY: plain system calls in a process with one thread.
    unsafe {
        if libc::unshare(libc::CLONE_NEWPID) != 0 && libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID) != 0 {
            common::say(&format!("cannot make a PID namespace: {}", std::io::Error::last_os_error()));
            return;
        }
        let mut gate = [0; 2];
        assert_eq!(libc::pipe(gate.as_mut_ptr()), 0);
        let child = libc::fork();
        if child == 0 {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // Its number is said first.
            assert_eq!(libc::read(gate[0], [0u8; 1].as_mut_ptr().cast(), 1), 1);
            in_a_namespace(arguments);
            std::process::exit(0);
        }
        common::say(&format!("runs {child}"));
        assert_eq!(libc::write(gate[1], [0u8; 1].as_ptr().cast(), 1), 1);
        let status = reap(child);
        std::process::exit(if status == 0 { 0 } else { 1 });
    }
}

pub fn in_a_namespace(arguments: &[String]) {
    assert_eq!(std::process::id(), 1);
    if arguments[1] == "own proc" && crate::private_mounts().is_some() {
        // SAFETY: the strings end with NUL.
        unsafe { libc::mount(c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr(), 0, std::ptr::null()) };
    }
    let segment = Segment::open(&arguments[0]).unwrap();
    let lock = segment.lock("lock").open().unwrap();
    let rlock = segment.rlock("rlock").open().unwrap();
    let (count, deep) = (segment.value::<u64>("count").open().unwrap(), segment.value::<u64>("deep").open().unwrap());
    segment.barrier("start").open().unwrap().wait().unwrap();
    for _ in 0..3000 {
        let guard = lock.lock().unwrap();
        add_one(&count);
        drop(guard);
        let outer = rlock.lock().unwrap();
        let inner = rlock.lock().unwrap();
        add_one(&deep);
        drop((inner, outer));
    }
    common::say("counted");
    loop {
        match common::listen().as_str() {
            "lock" => {
                lock.acquire().unwrap();
                rlock.acquire().unwrap();
                common::say("locked");
            }
            "try" => {
                assert!(!lock.is_mine().unwrap() && !rlock.is_mine().unwrap());
                assert!(rlock.try_lock().is_err());
                let refused = lock.lock_timeout(Duration::from_millis(5)).unwrap_err();
                common::say(&refused.to_string());
            }
            _ => {
                let died = (lock.lock().unwrap_err().is_owner_died(), rlock.lock().unwrap_err().is_owner_died());
                common::say(&format!("{died:?}"));
            }
        }
    }
}

#[test]
fn equal_pids_and_tids_in_two_pid_namespaces_are_two_participants() {
    let segment = common::named("namespaces");
    segment.lock("lock").create().unwrap();
    segment.rlock("rlock").create().unwrap();
    let count = segment.value::<u64>("count").create().unwrap();
    let deep = segment.value::<u64>("deep").create().unwrap();
    segment.barrier("start").parties(2).create().unwrap();
    let mut children = ["own proc", "the host's proc"].map(|proc| common::start("isolates", &[&segment.name, proc]));
    let mut inner = [0; 2];
    for (child, pid) in children.iter_mut().zip(&mut inner) {
        let said = child.hear();
        if let Some(why) = said.strip_prefix("cannot ") {
            return common::skip("equal_pids_and_tids_in_two_pid_namespaces_are_two_participants", why);
        }
        *pid = said.strip_prefix("runs ").unwrap().parse().unwrap();
    }
    let [first, second] = &mut children;
    first.expect("counted");
    second.expect("counted");
    assert_eq!((count.get().unwrap(), deep.get().unwrap()), (6000, 6000), "mutual exclusion");
    assert_eq!(segment.participants().iter().filter(|&&pid| pid == 1).count(), 2);
    first.tell("lock");
    first.expect("locked");
    second.tell("try");
    let refused = second.hear();
    assert!(refused.contains("process 1"), "{refused}");
    // The other process 1 is stopped: it keeps what it has.
    // SAFETY: kill has no preconditions.
    unsafe { libc::kill(inner[0], libc::SIGSTOP) };
    second.tell("try");
    second.hear();
    // SAFETY: as above.
    unsafe { libc::kill(inner[0], libc::SIGKILL) };
    second.tell("take");
    second.expect("(true, true)");
    // SAFETY: as above.
    unsafe { libc::kill(inner[1], libc::SIGKILL) };
    common::until(|| segment.participants().len() == 1);
    segment.recover();
    segment.verify().unwrap();
}
