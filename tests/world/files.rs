//! What happens to the file under a segment, and what strange segments say.

use crate::common;
use shmkit::{Error, Lock, Segment, SegmentError};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

fn path_of(name: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm/shmkit.{name}"))
}

fn refused<T: std::fmt::Debug>(result: shmkit::Result<T>) -> SegmentError {
    match result {
        Err(Error::Segment(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// Uses the segment it has opened and what else bears its name now.
pub fn uses_named(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let queue = segment.queue::<u32>("queue").open().unwrap();
    common::say("open");
    common::listen();
    queue.put(queue.get().unwrap() + 1).unwrap();
    segment.event("new").create().unwrap();
    let now = match Segment::open(&arguments[0]) {
        Ok(other) if other.queue::<u32>("queue").open().is_ok() => "the same".to_owned(),
        Ok(_) => "another".to_owned(),
        Err(error) => error.to_string(),
    };
    common::say(&now);
}

#[test]
fn users_of_an_unlinked_segment_go_on_and_nobody_joins_them() {
    let segment = common::named("unlinked");
    let queue = segment.queue::<u32>("queue").capacity(4).create().unwrap();
    let mut child = common::start("uses_named", &[&segment.name]);
    child.expect("open");
    queue.put(1).unwrap();
    assert!(Segment::unlink(&segment.name).unwrap());
    child.tell("go");
    let said = child.hear();
    assert!(said.contains(&segment.name), "{said}");
    child.succeeded();
    assert_eq!(queue.get().unwrap(), 2);
    assert!(segment.event("new").open().is_ok());
    segment.verify().unwrap();
}

#[test]
fn users_of_a_replaced_segment_keep_theirs() {
    let segment = common::named("replaced");
    let queue = segment.queue::<u32>("queue").capacity(4).create().unwrap();
    let other = common::named("replacing");
    let mut child = common::start("uses_named", &[&segment.name]);
    child.expect("open");
    queue.put(1).unwrap();
    std::fs::rename(path_of(&other.name), path_of(&segment.name)).unwrap();
    child.tell("go");
    child.expect("another");
    child.succeeded();
    assert_eq!(queue.get().unwrap(), 2);
    assert!(matches!(refused(other.event("new").open()), SegmentError::ObjectNotFound { .. }));
    // A dead one is noticed although the name leads elsewhere.
    let lock = segment.lock("lock").create().unwrap();
    lock.acquire().unwrap();
    segment.verify().unwrap();
    other.verify().unwrap();
}

#[test]
fn a_handle_to_a_replaced_segment_is_an_error_and_not_another_lock() {
    let (post, segment, other) = (common::named("post"), common::named("handled"), common::named("instead"));
    let handles = post.queue::<Lock>("handles").capacity(4).create().unwrap();
    handles.put(segment.lock("lock").create().unwrap()).unwrap();
    other.lock("lock").create().unwrap();
    std::fs::rename(path_of(&other.name), path_of(&segment.name)).unwrap();
    // This process knows the segment by itself: a newcomer does not.
    let mut child = common::start("truncated", &[&post.name, "receive"]);
    let said = child.hear();
    assert!(said.contains("gone") || said.contains("exist"), "{said}");
    child.succeeded();
}

/// Does one thing with a segment whose file is cut.
pub fn truncated(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    if arguments[1] == "receive" {
        let error = segment.queue::<Lock>("handles").open().unwrap().get().map(drop).unwrap_err();
        return common::say(&error.to_string());
    }
    let lock = segment.lock("lock").open().unwrap();
    common::say("open");
    common::listen();
    let said = match arguments[1].as_str() {
        "verify" => segment.verify().unwrap_err().to_string(),
        "create" => segment.event("new").create().unwrap_err().to_string(),
        "open" => segment.lock("lock").open().unwrap_err().to_string(),
        "reopen" => Segment::open(&arguments[0]).unwrap_err().to_string(),
        "grow" => shmkit::Array::<u64>::new_in(&segment, 1 << 20).unwrap_err().to_string(),
        _ => {
            drop(lock.lock());
            "no error".to_owned()
        }
    };
    common::say(&said);
    // Leaving would touch what is not there.
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(0) };
}

#[test]
fn a_truncated_segment_is_an_error_where_something_is_opened_made_or_checked() {
    for action in ["verify", "create", "open", "reopen", "grow"] {
        let name = common::unique("cut");
        let segment = Segment::builder().max_size(64 << 20).create(&name).unwrap();
        segment.lock("lock").create().unwrap();
        let mut child = common::start("truncated", &[&name, action]);
        child.expect("open");
        // This process must not touch it any more, not even to leave it.
        std::mem::forget(segment);
        std::fs::File::options().write(true).open(path_of(&name)).unwrap().set_len(0).unwrap();
        child.tell("go");
        let said = child.hear();
        assert!(said.contains("truncated") || said.contains("too short"), "{action}: {said}");
        child.succeeded();
        Segment::unlink(&name).unwrap();
    }
}

/// What cannot be helped: a lock is taken by one instruction, and the kernel has no page for it. `SECURITY.md` says so.
#[test]
fn a_user_of_a_truncated_segment_is_killed_by_the_kernel_and_hurts_nobody_else() {
    let name = common::unique("sigbus");
    let segment = Segment::create(&name).unwrap();
    segment.lock("lock").create().unwrap();
    let mut child = common::start("truncated", &[&name, "use"]);
    child.expect("open");
    std::mem::forget(segment);
    std::fs::File::options().write(true).open(path_of(&name)).unwrap().set_len(0).unwrap();
    child.tell("go");
    assert_eq!(child.end().signal(), Some(libc::SIGBUS));
    Segment::unlink(&name).unwrap();
    drop(Segment::create(&name).unwrap());
    Segment::unlink(&name).unwrap();
}

#[test]
fn nobody_can_cut_an_anonymous_segment() {
    let segment = Segment::anonymous().unwrap();
    let lock = segment.lock("lock").create().unwrap();
    for len in [0, 4096, 1 << 40] {
        // SAFETY: the descriptor is the segment's.
        assert_eq!(unsafe { libc::ftruncate(segment.as_fd().as_raw_fd(), len) }, -1);
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EPERM));
    }
    drop(lock.lock().unwrap());
}

/// Writes into a segment's file and says what opening it gives.
fn opened_with(bytes: &[(u64, &[u8])]) -> shmkit::Result<()> {
    let name = common::unique("strange");
    let segment = Segment::builder().max_size(1 << 20).create(&name).unwrap();
    segment.lock("lock").create().unwrap();
    drop(segment);
    let file = std::fs::File::options().write(true).open(path_of(&name)).unwrap();
    bytes.iter().for_each(|(offset, bytes)| file.write_all_at(bytes, *offset).unwrap());
    let opened = Segment::open(&name).and_then(|segment| segment.lock("lock").open()?.acquire());
    Segment::unlink(&name).unwrap();
    opened
}

#[test]
fn a_segment_of_the_other_byte_order_says_so() {
    let name = common::unique("order");
    drop(Segment::builder().max_size(1 << 20).create(&name).unwrap());
    let file = std::fs::File::options().read(true).write(true).open(path_of(&name)).unwrap();
    // As such a machine would have written it: the magic is bytes, every number is turned round.
    let mut header = [0u8; 64];
    file.read_exact_at(&mut header, 0).unwrap();
    for (offset, size) in [(8, 4), (12, 2), (14, 2), (16, 4), (20, 4), (24, 8), (32, 4), (36, 4)] {
        header[offset..offset + size].reverse();
    }
    file.write_all_at(&header, 0).unwrap();
    let error = refused(Segment::open(&name));
    assert!(matches!(error, SegmentError::NotASegment { why, .. } if why.contains("byte order")), "{error}");
    Segment::unlink(&name).unwrap();
}

#[test]
fn a_future_version_says_so_and_a_future_minor_one_is_used() {
    let major = refused(opened_with(&[(12, &[2, 0])]));
    assert!(matches!(&major, SegmentError::NewerLayout { found: 2, supported: 1, .. }), "{major}");
    opened_with(&[(14, &[9, 0])]).unwrap();
}

#[test]
fn an_object_of_a_future_kind_is_left_alone() {
    let segment = common::named("future");
    segment.event("unknown").create().unwrap();
    let lock = segment.lock("lock").create().unwrap();
    // The entry's kind becomes one that there is not yet.
    let file = std::fs::File::from(segment.as_fd().try_clone_to_owned().unwrap());
    let mut bytes = vec![0; 256 << 10];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let at = bytes.windows(7).position(|window| window == b"unknown").unwrap() as u64 & !127;
    let kind = bytes[at as usize..][..128]
        .chunks(4)
        .position(|word| u32::from_le_bytes(word.try_into().unwrap()) == shmkit_layouts::kinds::KIND_EVENT)
        .unwrap() as u64;
    file.write_all_at(&999u32.to_le_bytes(), at + kind * 4).unwrap();
    let error = refused(segment.event("unknown").open());
    assert!(error.to_string().contains("unknown"), "{error}");
    drop(lock.lock().unwrap());
    assert_eq!(segment.objects().len(), 2);
    // Whoever dies is recovered as far as this version can; what it does not know keeps the slot, and nothing else.
    let mut child = common::start("stays", &[&segment.name, "lock"]);
    child.expect("holds");
    child.kill();
    assert!(lock.lock().unwrap_err().is_owner_died());
}
