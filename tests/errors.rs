//! Errors: one enum for each area, under one, with numbers that stay.

use shmkit::{
    ChannelError, Error, Event, JoinableQueue, Lock, Pool, Process, ProcessError, Queue, Segment, SegmentError,
    SyncError, TaskError, pipe,
};
use std::time::Duration;

/// Errors as they happen, and their numbers.
#[test]
fn numbers_are_the_same_for_ever() {
    let full = Queue::<u8>::bounded(1).unwrap();
    full.put(1).unwrap();
    let empty = Queue::<u8>::bounded(1).unwrap();
    let closed = Queue::<u8>::bounded(1).unwrap();
    closed.close();
    let (near, far) = pipe(false).unwrap();
    let wrong = near.send(&1u8).map(drop);
    drop(far);
    let pool = Pool::new(1).unwrap();
    let child = Process::new(|never: Event| never.wait()).args((Event::new().unwrap(),)).daemon(true).start().unwrap();
    let undone = JoinableQueue::bounded(1).unwrap();
    undone.put(1).unwrap();
    let free = Lock::new().unwrap();
    let errors: [(u32, Result<(), Error>); 16] = [
        (102, Segment::open("no-such-segment").map(drop)),
        (103, Segment::create("a/b").map(drop)),
        (119, Queue::<u8>::bounded(0).map(drop)),
        (201, undone.join_timeout(Duration::ZERO)),
        (205, free.release()),
        (301, full.try_put(2)),
        (302, empty.try_get().map(drop)),
        (303, closed.put(1)),
        (304, closed.get().map(drop)),
        (304, near.recv::<u8>().map(drop)),
        (309, wrong),
        (402, child.clone().close()),
        (404, child.join_timeout(Duration::ZERO).map(drop)),
        (501, pool.apply(|| std::process::abort(), ()).map(|()| ())),
        (502, pool.apply(|| panic!("on purpose"), ()).map(|()| ())),
        (508, pool.join()),
    ];
    for (code, outcome) in errors {
        let error = outcome.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
}

/// Each kind is caught by its own type, as `except BufferTooShort` does.
#[test]
fn each_area_has_its_own_enum() {
    let areas: [(Error, u32); 6] = [
        (SegmentError::Gone.into(), 113),
        (SyncError::Interrupted.into(), 208),
        (ChannelError::BrokenPipe.into(), 305),
        (ProcessError::Closed.into(), 403),
        (TaskError::Taken.into(), 506),
        (Error::Other("anything".to_owned()), 700),
    ];
    for (error, code) in areas {
        assert_eq!(error.code(), code);
        assert!(!error.to_string().is_empty());
    }
    let (near, far) = pipe(true).unwrap();
    far.send_bytes(b"longer than that").unwrap();
    let Err(Error::Channel(ChannelError::TooLong { message, .. })) = near.recv_bytes_max(3) else { panic!("not told") };
    assert_eq!(message, b"longer than that");
}
