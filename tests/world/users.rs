//! Other users: what they may not touch, and what they put in the way.

use crate::common;
use shmkit::segment::{gc, list};
use shmkit::{Error, Segment, SegmentError};
use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

const NOBODY: u32 = 65534;

fn path_of(name: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm/shmkit.{name}"))
}

fn refused<T>(result: shmkit::Result<T>) -> SegmentError {
    match result {
        Err(Error::Segment(error)) => error,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("no error"),
    }
}

/// Becomes nobody for good.
fn become_nobody() -> bool {
    // SAFETY: plain system calls in a process with one thread.
    let done =
        unsafe { libc::setgroups(0, std::ptr::null()) == 0 && libc::setgid(NOBODY) == 0 && libc::setuid(NOBODY) == 0 };
    if done {
        common::say("runs");
    } else {
        common::say(&format!("cannot become another user: {}", std::io::Error::last_os_error()));
    }
    done
}

pub fn as_nobody(arguments: &[String]) {
    if !become_nobody() {
        return;
    }
    let name = &arguments[0];
    let result = match arguments[1].as_str() {
        "open" => Segment::open(name).map(drop),
        "trust" => Segment::builder().trust_owner(true).open(name).and_then(|segment| {
            let lock = segment.lock("lock").open()?;
            lock.acquire()?;
            common::say("locked");
            common::listen();
            Ok(())
        }),
        "unlink" => Segment::unlink(name).map(drop),
        "gc" => gc().map(|report| {
            assert!(!report.removed.contains(name) && !report.kept.contains(name), "{report:?}");
            assert!(!list().unwrap().iter().any(|found| found.name == *name));
        }),
        "own" => Segment::create(name).and_then(|segment| {
            let lock = segment.lock("lock").create()?;
            drop(lock.lock().map_err(|_| SegmentError::Gone)?);
            segment.verify()
        }),
        other => panic!("{other}"),
    };
    common::say(&result.map_or_else(|error| error.to_string(), |()| "no error".to_owned()));
    common::listen();
}

/// What nobody says after doing it; `None` if this test cannot become nobody.
fn nobody(test: &str, name: &str, action: &str) -> Option<(common::Child, String)> {
    let mut child = common::start("as_nobody", &[name, action]);
    if !crate::runs(test, &mut child) {
        return None;
    }
    let said = child.hear();
    Some((child, said))
}

#[test]
fn another_user_can_neither_open_nor_remove_a_segment() {
    const TEST: &str = "another_user_can_neither_open_nor_remove_a_segment";
    let segment = common::named("private");
    let lock = segment.lock("lock").create().unwrap();
    for (action, said) in [("open", "Permission denied"), ("unlink", "not permitted"), ("gc", "no error")] {
        let Some((_child, answer)) = nobody(TEST, &segment.name, action) else { return };
        assert!(answer.contains(said), "{action}: {answer}");
    }
    assert!(path_of(&segment.name).exists());
    drop(lock.lock().unwrap());
}

#[test]
fn two_users_share_a_segment_if_both_want_to() {
    const TEST: &str = "two_users_share_a_segment_if_both_want_to";
    let name = common::unique("shared");
    let segment = Segment::builder().mode(0o666).create(&name).unwrap();
    let lock = segment.lock("lock").create().unwrap();
    let shared = || {
        let (_child, said) = nobody(TEST, &name, "open")?;
        assert!(said.contains("user 0") || said.contains("belongs"), "{said}");
        let (mut child, said) = nobody(TEST, &name, "trust")?;
        assert_eq!(said, "locked");
        child.kill();
        assert!(lock.lock().unwrap_err().is_owner_died());
        segment.recover();
        segment.verify().unwrap();
        Some(())
    };
    shared();
    Segment::unlink(&name).unwrap();
}

#[test]
fn a_process_that_has_given_up_its_rights_makes_segments_of_its_own() {
    const TEST: &str = "a_process_that_has_given_up_its_rights_makes_segments_of_its_own";
    let name = common::unique("own");
    let Some((mut child, said)) = nobody(TEST, &name, "own") else { return };
    assert_eq!(said, "no error");
    assert_eq!(std::fs::metadata(path_of(&name)).unwrap().permissions().mode() & 0o777, 0o600);
    // Even root does not walk into it unasked, nor lists it as its own.
    assert!(matches!(refused(Segment::open(&name)), SegmentError::WrongOwner { found: NOBODY, expected: 0, .. }));
    assert!(!list().unwrap().iter().any(|found| found.name == name));
    child.tell("go");
    child.succeeded();
    std::fs::remove_file(path_of(&name)).unwrap();
}

/// Puts something in the way under a segment's name, and stays.
pub fn squats(arguments: &[String]) {
    if !become_nobody() {
        return;
    }
    let path = path_of(&arguments[0]);
    let name = CString::new(path.to_str().unwrap()).unwrap();
    match arguments[1].as_str() {
        "file" => std::fs::write(&path, vec![0u8; 1 << 16]).unwrap(),
        "symlink" => std::os::unix::fs::symlink("/etc/passwd", &path).unwrap(),
        "dangling" => std::os::unix::fs::symlink("/dev/shm/shmkit.no-such-file", &path).unwrap(),
        // SAFETY: the string ends with NUL.
        "fifo" => assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o666) }, 0),
        "directory" => std::fs::create_dir(&path).unwrap(),
        _ => {
            // A real segment whose lock of life is held for ever.
            let segment =
                Segment::builder().mode(0o666).policy(shmkit::LifePolicy::OnLastDetach).create(&arguments[0]).unwrap();
            hold_life(&path);
            std::mem::forget(segment);
        }
    }
    common::say("squats");
    common::listen();
    let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
}

/// Keeps the lock that every newcomer and collector takes.
fn hold_life(path: &std::path::Path) {
    use std::os::fd::IntoRawFd;
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    // SAFETY: flock is plain data, F_OFD_SETLK reads it; the descriptor is leaked on purpose.
    unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = libc::F_WRLCK as i16;
        lock.l_start = shmkit_layouts::segment::LOCK_LIFE as i64;
        lock.l_len = 1;
        assert_eq!(libc::fcntl(file.into_raw_fd(), libc::F_OFD_SETLK, &lock), 0);
    }
}

#[test]
fn a_squatted_name_is_an_error_and_is_neither_followed_nor_waited_for() {
    const TEST: &str = "a_squatted_name_is_an_error_and_is_neither_followed_nor_waited_for";
    let before = std::fs::read("/etc/passwd").unwrap();
    for what in ["file", "symlink", "dangling", "fifo", "directory", "segment"] {
        let name = common::unique("squat");
        let mut child = common::start("squats", &[&name, what]);
        if !crate::runs(TEST, &mut child) {
            return;
        }
        child.expect("squats");
        assert!(matches!(refused(Segment::create(&name)), SegmentError::Exists { .. }), "{what}");
        for opened in [Segment::open(&name), Segment::open_or_create(&name)] {
            let error = opened.map(drop).unwrap_err();
            let told =
                matches!(&error, Error::Segment(SegmentError::NotASegment { .. } | SegmentError::WrongOwner { .. }));
            assert!(told || error.to_string().contains("Permission denied"), "{what}: {error}");
        }
        // Tools see neither it nor wait for it.
        assert!(!list().unwrap().iter().any(|found| found.name == name), "{what}");
        assert!(!gc().unwrap().removed.contains(&name), "{what}");
        child.tell("go");
        child.succeeded();
        assert!(!path_of(&name).exists() || std::fs::remove_file(path_of(&name)).is_ok());
    }
    assert_eq!(std::fs::read("/etc/passwd").unwrap(), before);
}
