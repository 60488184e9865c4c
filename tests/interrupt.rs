//! Waits that a signal handler ends.

use shmkit::sync::{set_interrupt_check, wait_any};
use shmkit::{
    Barrier, Condition, Error, Event, Lock, Once as SharedOnce, PermitSemaphore, Queue, RLock, Result, RwLock,
    Semaphore, SyncError,
};
use std::cell::RefCell;
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Once};
use std::thread::JoinHandle;

thread_local! {
    /// What ends the waits of this thread.
    static FLAG: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Signals that were handled.
static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn handle(_: i32) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

fn prepare() {
    static PREPARED: Once = Once::new();
    PREPARED.call_once(|| {
        // SAFETY: the structure is plain data, and the handler does nothing that a handler must not do.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handle as *const () as usize;
            libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut());
        }
        set_interrupt_check(Some(|| {
            FLAG.with_borrow(|flag| flag.as_ref().is_some_and(|flag| flag.load(Ordering::SeqCst)))
        }));
    });
}

/// A thread that waits for something until its flag ends the wait.
struct Waiter<R> {
    thread: JoinHandle<Result<R>>,
    flag: Arc<AtomicBool>,
}

impl<R: Send + 'static> Waiter<R> {
    fn start(wait: impl FnOnce() -> Result<R> + Send + 'static) -> Waiter<R> {
        prepare();
        let flag = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&flag);
        let (begin, begun) = channel();
        let thread = std::thread::spawn(move || {
            FLAG.set(Some(seen));
            begin.send(()).unwrap();
            wait()
        });
        begun.recv().unwrap();
        Waiter { thread, flag }
    }

    /// Runs the handler in the thread once, unless it has ended.
    fn signal(&self) {
        let before = HANDLED.load(Ordering::SeqCst);
        // SAFETY: the thread is not joined yet.
        unsafe { libc::pthread_kill(self.thread.as_pthread_t(), libc::SIGUSR1) };
        while HANDLED.load(Ordering::SeqCst) == before && !self.thread.is_finished() {
            std::thread::yield_now();
        }
    }
}

/// Runs `wait` in a thread, signals it a few times for nothing, then ends the wait.
fn interrupted<R: Send + 'static>(wait: impl FnOnce() -> Result<R> + Send + 'static) -> Result<R> {
    let waiter = Waiter::start(wait);
    for _ in 0..10 {
        waiter.signal();
    }
    assert!(!waiter.thread.is_finished(), "a handler alone ends no wait");
    waiter.flag.store(true, Ordering::SeqCst);
    waiter.signal();
    waiter.thread.join().unwrap()
}

fn is_interrupted<R>(outcome: Result<R>) -> bool {
    matches!(outcome, Err(error @ Error::Sync(SyncError::Interrupted)) if error.code() == 208)
}

#[test]
fn every_wait_can_be_left_and_nothing_is_taken() {
    let event = Event::new().unwrap();
    let waits = event.clone();
    assert!(is_interrupted(interrupted(move || waits.wait())));

    let permits = Semaphore::new(0).unwrap();
    let waits = permits.clone();
    assert!(is_interrupted(interrupted(move || waits.acquire().map(|permit| permit.forget()))));
    permits.release().unwrap();
    assert_eq!(permits.value(), 1, "nobody took it");

    let lock = Lock::new().unwrap();
    let held = lock.lock().unwrap();
    let waits = lock.clone();
    assert!(is_interrupted(interrupted(move || waits.acquire())));
    drop(held);
    assert!(!lock.is_locked());

    let rlock = RLock::new().unwrap();
    let held = rlock.lock().unwrap();
    let waits = rlock.clone();
    assert!(is_interrupted(interrupted(move || waits.acquire_timeout(std::time::Duration::from_secs(600)))));
    drop(held);

    let queue = Queue::<u32>::bounded(1).unwrap();
    let waits = queue.clone();
    assert!(is_interrupted(interrupted(move || waits.get())));
    queue.put(1).unwrap();
    let waits = queue.clone();
    assert!(is_interrupted(interrupted(move || waits.put(2))));
    assert_eq!(queue.get().unwrap(), 1);
    assert!(queue.is_empty());
}

#[test]
fn a_wait_at_a_lock_for_readers_and_writers_is_left_as_it_was_found() {
    let lock = RwLock::new(7u64).unwrap();
    let reads = lock.read().unwrap();
    let waits = lock.clone();
    assert!(is_interrupted(interrupted(move || waits.write().map(drop).map_err(Error::from))));
    assert!(!lock.is_write_locked());
    drop(reads);
    let writes = lock.write().unwrap();
    let waits = lock.clone();
    assert!(is_interrupted(interrupted(move || waits.read().map(|value| *value).map_err(Error::from))));
    drop(writes);
    assert_eq!(lock.readers(), 0);
    assert_eq!(*lock.read().unwrap(), 7);
}

#[test]
fn a_wait_for_a_permit_for_the_end_of_something_or_for_an_element_is_left() {
    let permits = PermitSemaphore::new(1).unwrap();
    let held = permits.acquire().unwrap();
    let waits = permits.clone();
    assert!(is_interrupted(interrupted(move || waits.acquire().map(|permit| permit.forget()))));
    drop(held);
    assert_eq!(permits.value(), 1, "nobody took it");

    let once = SharedOnce::new().unwrap();
    let waits = once.clone();
    assert!(is_interrupted(interrupted(move || waits.wait())));
    once.call(|| ()).unwrap();
    once.wait().unwrap();

    let (sender, receiver) = shmkit::channel::channel::<u64>(2).unwrap();
    let outcome = interrupted(move || receiver.recv());
    assert!(is_interrupted(outcome));
    drop(sender);
}

#[test]
fn a_wait_for_several_things_can_be_left() {
    let (event, permits) = (Event::new().unwrap(), Semaphore::new(0).unwrap());
    let waits = (event.clone(), permits.clone());
    assert!(is_interrupted(interrupted(move || wait_any(&[&waits.0, &waits.1], None))));
    let waits = (event.clone(), permits.clone());
    let (silent, _writer) = std::io::pipe().unwrap();
    assert!(is_interrupted(interrupted(move || wait_any(&[&waits.0, &silent, &waits.1], None))));
    let (silent, _writer) = std::io::pipe().unwrap();
    assert!(is_interrupted(interrupted(move || wait_any(&[&silent], None))));
}

#[test]
fn a_wait_at_a_condition_is_left_with_the_lock() {
    let condition = Condition::new().unwrap();
    let waits = condition.clone();
    let outcome = interrupted(move || {
        let _guard = waits.lock().map_err(Error::from)?;
        let outcome = waits.wait();
        assert!(waits.is_mine()?);
        outcome
    });
    assert!(is_interrupted(outcome));
    assert_eq!(condition.waiting(), 0);
}

#[test]
fn an_interrupt_at_a_barrier_breaks_it() {
    let barrier = Barrier::new(3).unwrap();
    let (waits, other) = (barrier.clone(), barrier.clone());
    let other = std::thread::spawn(move || other.wait());
    assert!(is_interrupted(interrupted(move || waits.wait())));
    assert!(matches!(other.join().unwrap(), Err(Error::Sync(SyncError::BrokenBarrier { .. }))));
}

#[test]
fn a_permit_that_meets_an_interrupt_is_taken_once_or_left_to_the_other_sleeper() {
    for _ in 0..50 {
        let permits = Semaphore::new(0).unwrap();
        let (stays, leaves) = (permits.clone(), permits.clone());
        let stays = Waiter::start(move || stays.acquire().map(|permit| permit.forget()));
        let leaves = Waiter::start(move || leaves.acquire().map(|permit| permit.forget()));
        leaves.flag.store(true, Ordering::SeqCst);
        permits.release().unwrap();
        leaves.signal();
        match leaves.thread.join().unwrap() {
            Ok(()) => permits.release().unwrap(),
            left => assert!(is_interrupted(left)),
        }
        stays.thread.join().unwrap().unwrap();
        assert_eq!(permits.value(), 0);
    }
}
