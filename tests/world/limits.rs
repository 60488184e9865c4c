//! Few descriptors, little address space, and a control group's limit of memory.

use crate::common;
use crate::space::Patience;
use shmkit::sync::Readiness;
use shmkit::{Error, Lock, Process, Segment, SegmentError};
use std::path::{Path, PathBuf};

fn limit(resource: libc::__rlimit_resource_t, soft: u64) {
    // SAFETY: rlimit is plain data.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        assert_eq!(libc::getrlimit(resource, &mut limit), 0);
        limit.rlim_cur = soft.min(limit.rlim_max);
        assert_eq!(libc::setrlimit(resource, &limit), 0);
    }
}

/// The lowest descriptor that is not in use, and so the limit with which there is none left.
fn descriptors_in_use() -> u64 {
    // SAFETY: duplicates standard input to the lowest free number, and closes that.
    unsafe {
        let lowest = libc::dup(0);
        libc::close(lowest);
        lowest as u64
    }
}

fn more_descriptors() {
    limit(libc::RLIMIT_NOFILE, 1024);
}

fn expect_no_descriptors(what: &'static str, error: &Error) {
    let text = error.to_string();
    assert!(text.contains("Too many open files"), "{what}: {text}");
}

/// Everything that needs a descriptor; gives what was refused.
fn open_everything(name: &str) -> Option<&'static str> {
    let patience = Patience::new(expect_no_descriptors, || true, more_descriptors);
    let segment = patience.must("creating a segment", || Segment::create(name));
    patience.watch(&segment);
    let queue = patience.must("an object", || segment.queue::<u32>("queue").create());
    let private = patience.must("an anonymous segment", Segment::anonymous);
    let same = patience.must("opening a segment", || Segment::open(name));
    // Two: the first one finds what opening the segment needed for a moment.
    let [readiness, _another] = [(); 2].map(|()| patience.must("a descriptor for epoll", || Readiness::new(&queue)));
    queue.put(1).unwrap();
    shmkit::sync::wait_any(&[&readiness], None).unwrap();
    let process = patience.must("a process", || Process::command("true").start());
    assert!(process.join().unwrap().success());
    drop(private);
    assert_eq!(same.queue::<u32>("queue").open().unwrap().get().unwrap(), 1);
    segment.verify().unwrap();
    patience.refused()
}

pub fn few_descriptors(arguments: &[String]) {
    let mut refused = std::collections::BTreeSet::new();
    for left in 0.. {
        let name = format!("{}-{left}", arguments[0]);
        limit(libc::RLIMIT_NOFILE, descriptors_in_use() + left);
        let this = open_everything(&name);
        more_descriptors();
        Segment::unlink(&name).unwrap();
        match this {
            Some(what) => refused.insert(what),
            None => break,
        };
    }
    common::say(&refused.into_iter().collect::<Vec<_>>().join(", "));
}

#[test]
fn too_few_descriptors_are_an_error_everywhere_and_lose_nothing() {
    let mut child = common::start("few_descriptors", &[&common::unique("nofile")]);
    let refused = child.hear();
    child.succeeded();
    for one in ["creating a segment", "a descriptor for epoll", "a process"] {
        assert!(refused.contains(one), "{one} was never refused: {refused}");
    }
}

/// One without a descriptor to spare notices a death and goes on.
pub fn no_descriptor_left(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let lock = segment.lock("lock").open().unwrap();
    let queue = segment.queue::<String>("queue").open().unwrap();
    limit(libc::RLIMIT_NOFILE, descriptors_in_use());
    common::say("ready");
    drop(lock.lock().unwrap_err().repair(|_| common::say("told")).unwrap());
    queue.put("from one without descriptors".to_owned()).unwrap();
    common::listen();
    drop(lock.lock().unwrap());
    // Leaving needs one, too, for the lock of recovery: without it others do that when this one is gone.
}

#[test]
fn a_waiter_without_a_descriptor_to_spare_gets_a_dead_ones_lock() {
    let segment = common::named("nofile-lock");
    segment.lock("lock").create().unwrap();
    let queue = segment.queue::<String>("queue").capacity(4).create().unwrap();
    let mut holder = common::start("stays", &[&segment.name, "lock"]);
    holder.expect("holds");
    let mut waiter = common::start("no_descriptor_left", &[&segment.name]);
    waiter.expect("ready");
    holder.kill();
    waiter.expect("told");
    assert_eq!(queue.get().unwrap(), "from one without descriptors");
    waiter.tell("go");
    waiter.succeeded();
    common::until(|| segment.participants().len() == 1);
    segment.recover();
    segment.verify().unwrap();
}

fn address_space_in_use() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

pub fn little_address_space(arguments: &[String]) {
    let name = &arguments[0];
    limit(libc::RLIMIT_AS, address_space_in_use() + (64 << 20));
    // The default asks for what the limit allows.
    let private = Segment::anonymous().unwrap();
    private.lock("lock").create().unwrap().acquire().unwrap();
    for refused in [Segment::open(name), Segment::builder().max_size(1 << 30).anonymous("large")] {
        let Err(Error::Segment(SegmentError::AddressSpace { needed })) = refused else { panic!("{refused:?}") };
        assert!(needed >= 1 << 30);
    }
    // Room for ever less: an error or a segment, and what there is goes on.
    let mut made = 0;
    for mebibytes in (0..32).rev() {
        limit(libc::RLIMIT_AS, address_space_in_use() + (mebibytes << 20));
        match Segment::builder().max_size(8 << 20).anonymous("small") {
            Ok(small) => {
                made += 1;
                small.event("event").create().unwrap().set();
            }
            Err(Error::Segment(SegmentError::AddressSpace { needed })) => assert_eq!(needed, 8 << 20),
            Err(other) => assert!(other.to_string().contains("Cannot allocate memory"), "{other}"),
        }
        drop(private.lock("lock").open().unwrap());
    }
    assert!(made > 0 && made < 32, "{made} of 32 fitted");
    limit(libc::RLIMIT_AS, u64::MAX);
    assert!(Segment::open(name).unwrap().lock("lock").open().is_ok());
    private.verify().unwrap();
    common::say("done");
}

#[test]
fn too_little_address_space_is_an_error_that_says_how_much() {
    let segment = common::named("as");
    segment.lock("lock").create().unwrap();
    let mut child = common::start("little_address_space", &[&segment.name]);
    child.expect("done");
    child.succeeded();
    segment.verify().unwrap();
}

/// A control group of one's own with a limit of memory; gone when dropped.
struct Group(PathBuf);

impl Group {
    /// Of version 2 if its memory controller is there, else of version 1.
    fn new(name: &str, bytes: u64) -> Result<Group, String> {
        let (root, file) = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            let root = Path::new("/sys/fs/cgroup");
            let _ = std::fs::write(root.join("cgroup.subtree_control"), "+memory");
            (root.to_owned(), "memory.max")
        } else {
            let groups = std::fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
            let own = groups.lines().find_map(|line| line.split_once(":memory:")).map(|(_, path)| path);
            let own = own.ok_or("there is no memory controller")?.trim_start_matches('/');
            let mut root = Path::new("/sys/fs/cgroup/memory").join(own);
            if !root.exists() {
                root = "/sys/fs/cgroup/memory".into();
            }
            (root, "memory.limit_in_bytes")
        };
        let group = Group(root.join(name));
        std::fs::create_dir(&group.0).map_err(|error| format!("{}: {error}", group.0.display()))?;
        std::fs::write(group.0.join(file), bytes.to_string()).map_err(|error| format!("{file}: {error}"))?;
        Ok(group)
    }

    fn enter(&self, pid: u32) -> Result<(), String> {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).map_err(|error| format!("cgroup.procs: {error}"))
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

/// Fills what the group allows, and is told instead of killed.
pub fn in_a_control_group(arguments: &[String]) {
    common::say("ready");
    common::listen();
    // Pages of files that were read count as used, and can be taken back at any time.
    let path = std::env::temp_dir().join(&arguments[0]);
    std::fs::write(&path, vec![1u8; 64 << 20]).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    file.sync_all().unwrap();
    let read = std::io::copy(&mut &file, &mut std::io::sink()).unwrap();
    assert_eq!(read, 64 << 20);
    std::fs::remove_file(&path).unwrap();

    let segment = Segment::builder().max_size(1 << 30).anonymous("group").unwrap();
    let lock = Lock::new_in(&segment).unwrap();
    let mut kept = Vec::new();
    let refused = loop {
        match shmkit::Array::<u8>::new_in(&segment, 1 << 20) {
            Ok(array) => kept.push(array),
            Err(error) => break error,
        }
        assert!(kept.len() < 256, "more than the group allows");
    };
    let Error::Segment(SegmentError::OutOfMemory { hint, .. }) = &refused else { panic!("{refused}") };
    assert!(hint.contains("control group"), "{refused}");
    drop(file);
    let many = kept.len();
    drop(lock.lock().unwrap());
    kept.clear();
    segment.verify().unwrap();
    // What was freed is used again.
    for _ in 0..many / 2 {
        kept.push(shmkit::Array::<u8>::new_in(&segment, 1 << 20).unwrap());
    }
    common::say(&many.to_string());
}

#[test]
fn the_limit_of_a_control_group_is_an_error_and_no_death() {
    const TEST: &str = "the_limit_of_a_control_group_is_an_error_and_no_death";
    let name = common::unique("group");
    let group = match Group::new(&format!("shmkit-{name}"), 96 << 20) {
        Ok(group) => group,
        Err(why) => return common::skip(TEST, &why),
    };
    let mut child = common::start("in_a_control_group", &[&name]);
    child.expect("ready");
    if let Err(why) = group.enter(child.pid()) {
        return common::skip(TEST, &why);
    }
    child.tell("go");
    let many: u64 = child.hear().parse().unwrap();
    child.succeeded();
    // 64 of the 96 MiB were taken by pages that the kernel gives back.
    assert!(many >= 48, "refused after {many} MiB of 96");
}
