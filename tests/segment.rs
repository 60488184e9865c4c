//! Segments by name: who makes, finds, owns and removes them, and what they say when something is wrong.

mod common;

use shmkit::segment::{gc, list};
use shmkit::{Array, Error, LifePolicy, Lock, Segment, SegmentError, Semaphore};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

roles!(attaches, owns, creates_objects, opens_or_creates);

fn path_of(name: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm/shmkit.{name}"))
}

fn segment_error<T>(result: shmkit::Result<T>) -> SegmentError {
    match result {
        Err(Error::Segment(error)) => error,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("no error"),
    }
}

fn attaches(arguments: &[String]) {
    match Segment::open(&arguments[0]) {
        Ok(_segment) => {
            common::say("attached");
            common::listen();
        }
        Err(error) => common::say(&error.to_string()),
    }
}

fn owns(arguments: &[String]) {
    let policy = if arguments[1] == "last" { LifePolicy::OnLastDetach } else { LifePolicy::OnOwnerExit };
    let _segment = Segment::builder().policy(policy).create(&arguments[0]).unwrap();
    common::say("created");
    common::listen();
}

#[test]
fn a_segment_is_created_once_and_opened_by_name() {
    let segment = common::named("basic");
    assert_eq!(segment.name(), Some(segment.name.as_str()));
    let exists = segment_error(Segment::create(&segment.name));
    assert_eq!(exists, SegmentError::Exists { name: segment.name.clone() });
    let again = Segment::open(&segment.name).unwrap();
    assert_eq!(again.participants(), [std::process::id()], "one process is one participant, however often it opens");
    let mut child = common::start("attaches", &[&segment.name]);
    child.expect("attached");
    let mut participants = segment.participants();
    participants.sort_unstable();
    let mut both = [std::process::id(), child.pid()];
    both.sort_unstable();
    assert_eq!(participants, both);
    child.tell("go");
    child.succeeded();
    assert_eq!(segment.participants(), [std::process::id()]);
    assert!(Segment::unlink(&segment.name).unwrap());
    assert!(!Segment::unlink(&segment.name).unwrap());
    assert_eq!(segment_error(Segment::open(&segment.name)), SegmentError::NotFound { name: segment.name.clone() });
    segment.verify().unwrap();
}

#[test]
fn names_that_cannot_be_are_refused() {
    for name in ["", "a/b", ".hidden", "nul\0", &"x".repeat(64)] {
        assert!(matches!(segment_error(Segment::create(name)), SegmentError::InvalidName { .. }), "{name:?}");
        assert!(matches!(segment_error(Segment::open(name)), SegmentError::InvalidName { .. }), "{name:?}");
    }
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let too_small = Segment::builder().max_size(4096).anonymous("tiny");
    assert!(matches!(segment_error(too_small), SegmentError::InvalidSize { what: "max_size", .. }));
    for participants in [0, 4094] {
        let refused = Segment::builder().max_participants(participants).anonymous("crowd");
        assert!(matches!(segment_error(refused), SegmentError::InvalidSize { what: "max_participants", .. }));
    }
    Segment::builder().max_participants(4093).anonymous("crowd").unwrap();
}

#[test]
fn strangers_files_are_told_apart() {
    let name = common::unique("stranger");
    let path = path_of(&name);
    std::fs::write(&path, b"hello").unwrap();
    assert!(matches!(segment_error(Segment::open(&name)), SegmentError::NotASegment { .. }));
    std::fs::write(&path, vec![7u8; 1 << 16]).unwrap();
    assert!(matches!(segment_error(Segment::open(&name)), SegmentError::NotASegment { .. }));
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(segment_error(Segment::open(&name)), SegmentError::NotASegment { .. }));
    assert!(matches!(segment_error(Segment::create(&name)), SegmentError::Exists { .. }));
    std::fs::remove_dir(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    assert!(matches!(
        segment_error(Segment::open(&name)),
        SegmentError::NotASegment { why: "it is a symbolic link", .. }
    ));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_segment_everybody_may_write_to_is_not_trusted() {
    let name = common::unique("mode");
    let segment = Segment::builder().mode(0o622).create(&name).unwrap();
    assert_eq!(
        std::fs::metadata(path_of(&name)).unwrap().permissions().mode() & 0o777,
        0o622,
        "the umask does not matter"
    );
    assert_eq!(segment_error(Segment::open(&name)), SegmentError::WrongMode { name: name.clone(), found: 0o622 });
    Segment::builder().trust_owner(true).open(&name).unwrap();
    drop(segment);
    Segment::unlink(&name).unwrap();
}

#[test]
fn a_segment_of_another_user_is_not_trusted() {
    let segment = common::named("owner");
    let path = path_of(&segment.name);
    if std::os::unix::fs::chown(&path, Some(1), None).is_err() {
        return; // Only root can give a file away.
    }
    let me = std::fs::metadata("/proc/self").map(|_| 0).unwrap();
    let wrong = SegmentError::WrongOwner { name: segment.name.clone(), found: 1, expected: me };
    assert_eq!(segment_error(Segment::open(&segment.name)), wrong);
    assert_eq!(wrong.to_string().matches("user").count(), 3, "{wrong}");
}

#[test]
fn a_header_with_any_wrong_field_is_an_error() {
    // Offsets of the fields that are checked, each with a value that cannot be.
    let wrong: &[(u64, &[u8])] = &[
        (0, b"X"),
        (8, &[9]),
        (12, &[2]),
        (16, &[0, 0]),
        (20, &[0, 0, 0, 0]),
        (20, &[0xFF, 0xFF]),
        (24, &[1]),
        (36, &[3]),
        (56, &[1]),
        (64, &[0xFF; 8]),
        (72, &[0xFF; 4]),
        (80, &[0xFF; 7]),
        (88, &[0xFF; 7]),
        (96, &[0xFF; 8]),
        (104, &[9]),
    ];
    for (offset, bytes) in wrong {
        let name = common::unique("header");
        drop(Segment::builder().max_size(1 << 20).create(&name).unwrap());
        let file = std::fs::File::options().write(true).open(path_of(&name)).unwrap();
        file.write_all_at(bytes, *offset).unwrap();
        let error = segment_error(Segment::open(&name));
        assert!(
            matches!(
                error,
                SegmentError::Corrupt { .. } | SegmentError::NotASegment { .. } | SegmentError::NewerLayout { .. }
            ),
            "byte {offset}: {error}"
        );
        Segment::unlink(&name).unwrap();
    }
}

#[test]
fn a_truncated_segment_is_an_error() {
    let name = common::unique("short");
    drop(Segment::builder().max_size(1 << 20).create(&name).unwrap());
    let file = std::fs::File::options().write(true).open(path_of(&name)).unwrap();
    for len in [1 << 19, 4096, 100, 0] {
        file.set_len(len).unwrap();
        assert!(Segment::open(&name).is_err(), "{len} bytes");
    }
    Segment::unlink(&name).unwrap();
}

#[test]
fn an_object_is_created_once_and_opened_by_name_and_kind() {
    let segment = common::named("objects");
    let lock = segment.lock("gate").create().unwrap();
    assert!(matches!(segment_error(segment.lock("gate").create()), SegmentError::ObjectExists { .. }));
    let same = segment.lock("gate").open().unwrap();
    let guard = lock.lock().unwrap();
    assert!(same.is_locked());
    drop(guard);
    let kind = segment_error(segment.semaphore("gate").open());
    assert_eq!(kind, SegmentError::WrongKind { name: "gate".into(), found: "lock", wanted: "semaphore" });
    assert!(matches!(segment_error(segment.lock("gone").open()), SegmentError::ObjectNotFound { .. }));
    segment.mutex::<u64>("count").initial(3).create().unwrap();
    let element = segment_error(segment.mutex::<f64>("count").open());
    let SegmentError::WrongElement { found, wanted, .. } = element else { panic!("{element}") };
    assert!(found.contains("u64") && wanted.contains("f64"), "{found} {wanted}");
    assert_eq!(*segment.mutex::<u64>("count").open_or_create().unwrap().lock().unwrap(), 3);
    let names: Vec<_> = segment.objects().into_iter().filter_map(|object| object.name).collect();
    assert_eq!(names, ["gate", "count"]);
    segment.verify().unwrap();
}

fn creates_objects(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    segment.semaphore("left behind").initial(5).create().unwrap();
    common::say("created");
    common::listen();
}

#[test]
fn a_named_object_outlives_its_creator_and_goes_with_its_name() {
    let segment = common::named("outlives");
    let (before, _) = segment.memory().unwrap();
    let mut child = common::start("creates_objects", &[&segment.name]);
    child.expect("created");
    child.kill();
    common::until(|| segment.participants() == [std::process::id()]);
    segment.recover();
    let permits = segment.semaphore("left behind").open().unwrap();
    assert_eq!(permits.value(), 5);
    assert!(segment.remove("left behind").unwrap());
    assert!(!segment.remove("left behind").unwrap());
    assert_eq!(permits.value(), 5, "whoever holds it goes on");
    assert!(segment_error(segment.semaphore("left behind").open()).to_string().contains("left behind"));
    drop(permits);
    assert_eq!(segment.memory().unwrap().0, before, "its memory is free again");
    segment.verify().unwrap();
}

#[test]
fn an_unnamed_object_goes_with_its_last_handle() {
    let segment = Segment::anonymous().unwrap();
    let (before, _) = segment.memory().unwrap();
    let handles: Vec<_> = (0..100).map(|_| Semaphore::new_in(&segment, 1).unwrap()).collect();
    let copies = handles.clone();
    assert_eq!(segment.objects().len(), 100);
    drop(handles);
    assert_eq!(segment.objects().len(), 100);
    drop(copies);
    assert_eq!(segment.objects().len(), 0);
    assert_eq!(segment.memory().unwrap().0, before);
    segment.verify().unwrap();
}

fn opens_or_creates(arguments: &[String]) {
    let segment = Segment::open_or_create(&arguments[0]).unwrap();
    common::say("ready");
    common::listen();
    let permits = segment.semaphore("count").initial(0).open_or_create().unwrap();
    permits.release().unwrap();
    common::say("done");
    common::listen();
}

#[test]
fn of_many_who_open_or_create_one_creates() {
    let name = common::unique("race");
    let mut children: Vec<_> = (0..8).map(|_| common::start("opens_or_creates", &[&name])).collect();
    for child in &mut children {
        child.expect("ready");
    }
    for child in &mut children {
        child.tell("go");
    }
    for child in &mut children {
        child.expect("done");
    }
    let segment = Segment::open(&name).unwrap();
    assert_eq!(segment.semaphore("count").open().unwrap().value(), 8);
    for child in &mut children {
        child.tell("end");
        child.succeeded();
    }
    segment.verify().unwrap();
    Segment::unlink(&name).unwrap();
}

#[test]
fn the_last_to_detach_takes_the_name_away() {
    let name = common::unique("last");
    let segment = Segment::builder().policy(LifePolicy::OnLastDetach).create(&name).unwrap();
    let mut child = common::start("attaches", &[&name]);
    child.expect("attached");
    drop(segment);
    assert!(path_of(&name).exists(), "the child is attached");
    child.tell("go");
    child.succeeded();
    assert!(!path_of(&name).exists());
}

#[test]
fn a_name_whose_users_were_all_killed_is_collected() {
    let name = common::unique("killed");
    let mut child = common::start("owns", &[&name, "last"]);
    child.expect("created");
    assert!(gc().unwrap().kept.contains(&name), "in use");
    child.kill();
    common::until(|| is_deserted(&name));
    // Whoever comes first takes it away: another test's collection, or this one.
    gc().unwrap();
    assert!(!path_of(&name).exists());
}

#[test]
fn an_opener_does_not_join_a_segment_whose_users_were_all_killed() {
    let name = common::unique("stale");
    let mut child = common::start("owns", &[&name, "last"]);
    child.expect("created");
    child.kill();
    common::until(|| is_deserted(&name));
    assert_eq!(segment_error(Segment::open(&name)), SegmentError::NotFound { name });
}

/// Whether nobody lives in the segment, or another test's collection has taken its name away.
fn is_deserted(name: &str) -> bool {
    list().unwrap().iter().all(|info| info.name != name || info.participants.is_empty())
}

#[test]
fn a_name_goes_with_its_owner() {
    let name = common::unique("owned");
    let mut child = common::start("owns", &[&name, "owner"]);
    child.expect("created");
    let segment = Segment::open(&name).unwrap();
    child.kill();
    common::until(|| segment.participants() == [std::process::id()]);
    drop(segment);
    assert!(!path_of(&name).exists(), "the next who leaves takes it away");
}

#[test]
fn too_many_participants_is_an_error_that_says_so() {
    let name = common::unique("crowd");
    let segment = Segment::builder().max_participants(2).create(&name).unwrap();
    let mut child = common::start("attaches", &[&name]);
    child.expect("attached");
    let mut third = common::start("attaches", &[&name]);
    assert_eq!(third.hear(), SegmentError::TooManyParticipants { max: 2 }.to_string());
    child.kill();
    common::until(|| segment.participants() == [std::process::id()]);
    let mut fourth = common::start("attaches", &[&name]);
    fourth.expect("attached");
    drop(segment);
    Segment::unlink(&name).unwrap();
}

#[test]
fn a_full_segment_is_an_error_and_changes_nothing() {
    let segment = Segment::builder().max_size(1 << 20).anonymous("small").unwrap();
    let mut locks = Vec::new();
    let full = loop {
        match Lock::new_in(&segment) {
            Ok(lock) => locks.push(lock),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(full, Error::Segment(SegmentError::OutOfMemory { .. } | SegmentError::TooManyObjects { .. })),
        "{full}"
    );
    segment.verify().unwrap();
    let count = locks.len();
    assert!(count > 100, "{count}");
    locks.pop();
    locks.push(Lock::new_in(&segment).unwrap());
    for lock in &locks {
        drop(lock.lock().unwrap());
    }
    drop(locks);
    assert_eq!(segment.memory().unwrap().0, 0);
    segment.verify().unwrap();
}

/// Bytes of memory behind the file of a segment.
fn backed(segment: &Segment) -> u64 {
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&segment.as_fd()));
    std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path).unwrap()) * 512
}

#[test]
fn a_trim_gives_free_memory_back_and_it_can_be_used_again() {
    let segment = Segment::anonymous().unwrap();
    assert!(segment.trim().unwrap() < 1 << 20, "there is little yet");
    let (first, kept, last) = {
        let filled = || Array::from_slice_in(&segment, &vec![7u8; 2 << 20]).unwrap();
        (filled(), filled(), filled())
    };
    drop((first, last));
    let before = backed(&segment);
    let given = segment.trim().unwrap();
    assert!(given >= 4 << 20, "{given}");
    assert!(backed(&segment) + (4 << 20) <= before);
    assert_eq!(segment.trim().unwrap(), given, "the same pages again");
    segment.verify().unwrap();
    assert!(kept.to_vec().unwrap().iter().all(|&byte| byte == 7));
    let again = Array::from_slice_in(&segment, &vec![9u8; 3 << 20]).unwrap();
    assert!(backed(&segment) >= 5 << 20, "backed before it is touched");
    assert!(again.to_vec().unwrap().iter().all(|&byte| byte == 9));
    segment.verify().unwrap();
}

#[test]
fn an_anonymous_segment_is_passed_by_descriptor() {
    let segment = Segment::anonymous().unwrap();
    assert_eq!(segment.name(), None);
    let lock = segment.lock("gate").create().unwrap();
    let _guard = lock.lock().unwrap();
    let same = Segment::from_fd(segment.as_fd().try_clone_to_owned().unwrap()).unwrap();
    assert!(same.lock("gate").open().unwrap().is_locked());
}

#[test]
fn threads_that_open_at_once_are_one_participant() {
    let name = common::unique("threads");
    let segment = Segment::create(&name).unwrap();
    let mut child = common::start("attaches", &[&name]);
    child.expect("attached");
    drop(segment);
    let opened = std::sync::Barrier::new(8);
    let counts: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    opened.wait();
                    let mine = Segment::open(&name).unwrap();
                    opened.wait();
                    mine.participants().len()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    Segment::unlink(&name).unwrap();
    assert_eq!(counts, [2; 8]);
}

#[test]
fn a_copy_of_a_segment_is_another_segment() {
    let name = common::unique("original");
    let segment = Segment::builder().max_size(1 << 20).create(&name).unwrap();
    let lock = segment.lock("gate").create().unwrap();
    let copy = common::unique("copy");
    std::fs::copy(path_of(&name), path_of(&copy)).unwrap();
    let copied = Segment::open(&copy).unwrap();
    let _guard = lock.lock().unwrap();
    assert!(!copied.lock("gate").open().unwrap().is_locked());
    Segment::unlink(&copy).unwrap();
    Segment::unlink(&name).unwrap();
}
