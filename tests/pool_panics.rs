//! A user's own code may panic wherever a pool runs it: whoever waits is told.

mod common;

use common::task_error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shmkit::{Pool, TaskError};
use std::sync::mpsc;

fn fails() -> u64 {
    panic!("the task's")
}

fn square(x: u64) -> u64 {
    x * x
}

/// Panics when it is read in the process that made the pool, or in another one, or when it is written there.
struct Touchy {
    /// Whose turn it is to panic.
    reader: bool,
    home: u32,
}

impl Serialize for Touchy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.reader || std::process::id() == self.home, "it does not want to be written");
        (self.reader, self.home).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Touchy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Touchy, D::Error> {
        let (reader, home): (bool, u32) = Deserialize::deserialize(deserializer)?;
        assert!(!reader || std::process::id() != home, "it does not want to be read");
        Ok(Touchy { reader, home })
    }
}

#[test]
fn a_panic_in_reading_a_result_is_an_error_of_that_result() {
    let pool = Pool::new(2).unwrap();
    let home = std::process::id();
    let make = |home: u32| Touchy { reader: true, home };
    let error = task_error(pool.apply(make, (home,)));
    assert!(matches!(&error, TaskError::Codec { action: "read the result", .. }), "{error}");
    assert!(error.to_string().contains("it does not want to be read"), "{error}");
    assert!(matches!(task_error(pool.map(make, [home; 20])), TaskError::Codec { .. }));
    let mut outcomes = pool.imap(make, [home; 5]).chunk(2);
    assert!((0..5).all(|_| matches!(task_error(outcomes.next().unwrap()), TaskError::Codec { .. })));
    assert!(outcomes.next().is_none());
    assert_eq!(pool.map(square, 0..100).unwrap().len(), 100);
}

#[test]
fn a_panic_in_writing_a_result_is_an_error_of_that_result() {
    let pool = Pool::new(1).unwrap();
    let worker = pool.worker_pids();
    let error = task_error(pool.apply(|| Touchy { reader: false, home: 0 }, ()));
    assert!(error.to_string().contains("it does not want to be written"), "{error}");
    assert_eq!((pool.apply(square, (3,)).unwrap(), pool.worker_pids()), (9, worker));
}

/// Panics when it is read anywhere.
#[derive(Serialize)]
struct Unreadable;

impl<'de> Deserialize<'de> for Unreadable {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Unreadable, D::Error> {
        panic!("never")
    }
}

#[test]
fn a_panic_in_reading_arguments_is_an_error_of_that_call() {
    let pool = Pool::new(1).unwrap();
    let worker = pool.worker_pids();
    let error = task_error(pool.apply(|_: Unreadable| 1u8, (Unreadable,)));
    assert!(!error.to_string().is_empty());
    assert_eq!((pool.apply(square, (3,)).unwrap(), pool.worker_pids()), (9, worker), "its worker goes on");
}

#[test]
fn a_panic_in_writing_arguments_is_an_error_of_that_call() {
    let pool = Pool::new(1).unwrap();
    let error = task_error(pool.apply(|_: Touchy| 1u8, (Touchy { reader: false, home: 0 },)));
    assert!(matches!(error, TaskError::Codec { action: "write the arguments", .. }), "{error}");
    assert_eq!(pool.apply(square, (3,)).unwrap(), 9);
}

#[test]
fn a_panic_in_a_callback_takes_no_result_away() {
    let pool = Pool::new(1).unwrap();
    let (tell, told) = mpsc::channel();
    let after = tell.clone();
    let mut good = pool
        .apply_async(square, (3,))
        .callback(|_| panic!("a callback's"))
        .callback(move |value| after.send(*value).unwrap());
    assert_eq!(good.get().unwrap(), 9);
    assert_eq!(told.try_recv(), Ok(9), "the next one is called nevertheless");
    let mut bad = pool.apply_async(fails, ()).error_callback(|_| panic!("a callback's"));
    assert!(matches!(task_error(bad.get()), TaskError::Panicked { .. }));
    let progress = pool.tasks(square, (0..100).map(|x| (x,))).chunk(10).on_progress(|_, _| panic!("the progress's"));
    assert_eq!(progress.run().unwrap().len(), 100);
    let late = pool.apply_async(square, (4,));
    late.wait();
    assert_eq!(late.callback(|_| panic!("a late one's")).get().unwrap(), 16);
    assert_eq!(pool.apply(square, (5,)).unwrap(), 25);
}

/// Panics when it is dropped in the process that made it.
#[derive(Serialize, Deserialize)]
struct Bomb {
    home: u32,
}

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::process::id() != self.home || std::thread::panicking(), "an argument's");
    }
}

#[test]
fn a_panic_in_dropping_arguments_takes_no_result_away() {
    let pool = Pool::new(2).unwrap();
    let home = std::process::id();
    assert_eq!(pool.apply(|_: Bomb| 5u8, (Bomb { home },)).unwrap(), 5);
    let lengths = pool.tasks(|_: Bomb| 5u8, (0..20).map(|_| (Bomb { home },))).chunk(3).run().unwrap();
    assert_eq!(lengths, [5; 20]);
    assert_eq!(pool.apply(square, (5,)).unwrap(), 25);
}
