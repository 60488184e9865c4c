//! Waiting for one of several things, and readiness as a descriptor.

mod common;

use shmkit::channel::{Client, Listener, pipe};
use shmkit::sync::{Readiness, Waitable, wait_any};
use shmkit::{
    BoundedSemaphore, Error, Event, Lock, Mutex, Once, PermitSemaphore, PodQueue, Process, Queue, RLock, Segment,
    Semaphore,
};
use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

roles!(holds, sets, competes, waits);

const NOW: Option<Duration> = Some(Duration::ZERO);
const SHORT: Option<Duration> = Some(Duration::from_millis(5));

fn is_ready(object: &dyn Waitable) -> bool {
    !wait_any(&[object], NOW).unwrap().is_empty()
}

/// Runs `change` while somebody waits for `object`, alone and with others.
fn wakes(object: &(dyn Waitable + Sync), change: impl FnOnce()) {
    assert!(!is_ready(object));
    let never = Event::new().unwrap();
    let (silent, _writer) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(wait_any(&[object], None).unwrap(), [0]));
        scope.spawn(|| assert_eq!(wait_any(&[&never, object], None).unwrap(), [1]));
        scope.spawn(|| assert_eq!(wait_any(&[&never, &silent, object], None).unwrap(), [2]));
        assert!(wait_any(&[&never, &silent, object], SHORT).unwrap().is_empty());
        change();
    });
    assert!(is_ready(object));
}

#[test]
fn every_object_ends_a_wait_when_it_is_ready() {
    let event = Event::new().unwrap();
    wakes(&event, || event.set());
    event.clear();
    assert!(!is_ready(&event));

    let once = Once::new().unwrap();
    wakes(&once, || {
        once.call(|| ()).unwrap();
    });

    let permits = Semaphore::new(0).unwrap();
    wakes(&permits, || permits.release().unwrap());

    let bounded = BoundedSemaphore::new(1).unwrap();
    let permit = bounded.acquire().unwrap();
    wakes(&bounded, || bounded.release().unwrap());
    permit.forget();

    let owned = PermitSemaphore::new(1).unwrap();
    owned.acquire().unwrap().forget();
    wakes(&owned, || owned.release().unwrap());

    let lock = Lock::new().unwrap();
    lock.acquire().unwrap();
    wakes(&lock, || lock.release().unwrap());
    assert!(!lock.is_locked(), "nothing was taken");

    let mutex = Mutex::new(7u64).unwrap();
    let guard = mutex.lock().unwrap();
    wakes(&mutex, || drop(guard));
    assert_eq!(*mutex.try_lock().expect("nothing was taken"), 7);

    let queue = Queue::<String>::bounded(2).unwrap();
    wakes(&queue, || queue.put("hello".to_owned()).unwrap());
    queue.get().unwrap();
    wakes(&queue, || queue.close());

    let frames = PodQueue::<u64>::new(2).unwrap();
    wakes(&frames, || frames.put(1).unwrap());

    let (here, there) = pipe(false).unwrap();
    wakes(&here, || there.send(&1).unwrap());
    here.recv::<i32>().unwrap();
    assert!(!is_ready(&here));
    assert!(wait_any(&[&there], NOW).is_err(), "the sending end receives nothing");
    drop(there);
    assert!(is_ready(&here), "the end of the file");

    let (sender, receiver) = shmkit::channel::channel::<u64>(4).unwrap();
    assert!(!is_ready(&receiver));
    sender.send(3).unwrap();
    assert!(is_ready(&receiver));
    assert_eq!(receiver.recv().unwrap(), 3);
    assert!(!is_ready(&receiver));
    drop(sender);
    assert!(is_ready(&receiver));
}

#[test]
fn a_listener_is_ready_when_a_client_waits_and_when_it_is_closed() {
    let segment = common::named("wait-listener");
    let listener = Listener::builder("listener").segment(&segment).bind().unwrap();
    std::thread::scope(|scope| {
        wakes(&listener, || {
            scope.spawn(|| Client::builder("listener").segment(&segment).connect().unwrap());
        });
        let _connection = listener.accept().unwrap();
        assert!(!is_ready(&listener));
    });
    wakes(&listener, || listener.close());
}

#[test]
fn an_rlock_is_ready_for_its_owner() {
    let lock = RLock::new().unwrap();
    let _guard = lock.lock().unwrap();
    assert!(is_ready(&lock));
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(!is_ready(&lock)));
    });
}

#[test]
fn all_that_are_ready_are_given_in_order() {
    let (first, second) = (Event::new().unwrap(), Event::new().unwrap());
    let (reader, mut writer) = std::io::pipe().unwrap();
    let objects: [&dyn Waitable; 5] = [&second, &reader, &first, &reader.as_fd(), &second];
    assert!(wait_any(&objects, SHORT).unwrap().is_empty());
    second.set();
    assert_eq!(wait_any(&objects, None).unwrap(), [0, 4]);
    writer.write_all(b"x").unwrap();
    assert_eq!(wait_any(&objects, None).unwrap(), [0, 1, 3, 4]);
    drop(writer);
    first.set();
    assert_eq!(wait_any(&objects, None).unwrap(), [0, 1, 2, 3, 4]);
    assert!(wait_any(&[], NOW).unwrap().is_empty());
}

#[test]
fn more_objects_than_the_kernel_watches_at_once() {
    let events: Vec<Event> = (0..300).map(|_| Event::new().unwrap()).collect();
    let (silent, _writer) = std::io::pipe().unwrap();
    let wait = |is_mixed: bool, timeout| {
        let mut objects: Vec<&dyn Waitable> = events.iter().map(|event| event as &dyn Waitable).collect();
        if is_mixed {
            objects.push(&silent);
        }
        wait_any(&objects, timeout).unwrap()
    };
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(wait(false, None), [299]));
        scope.spawn(|| assert_eq!(wait(true, None), [299]));
        assert!(wait(false, SHORT).is_empty());
        events[299].set();
    });
}

fn ends(status: i32) -> i32 {
    status
}

#[test]
fn the_end_of_a_process_is_waited_for_with_messages() {
    let queue = Queue::<u32>::bounded(1).unwrap();
    let mut child = Process::new(ends).args((3,)).start().unwrap();
    assert_eq!(wait_any(&[&queue, &child], None).unwrap(), [1]);
    assert_eq!(child.join().unwrap().exit_code(), Some(3));
    child.close().unwrap();
    assert!(matches!(wait_any(&[&queue, &child], NOW), Err(Error::Process(_))));
}

/// Holds a lock and a permit, and waits to be killed.
fn holds(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    segment.lock("lock").open().unwrap().acquire().unwrap();
    segment.permit_semaphore("permits").open().unwrap().acquire().unwrap().forget();
    common::say("held");
    common::listen();
}

#[test]
fn what_the_dead_held_becomes_ready() {
    let segment = common::named("wait-dead");
    let lock = segment.lock("lock").create().unwrap();
    let permits = segment.permit_semaphore("permits").create().unwrap();
    let (silent, _writer) = std::io::pipe().unwrap();
    let mut child = common::start("holds", &[&segment.name]);
    child.expect("held");
    std::thread::scope(|scope| {
        scope.spawn(|| wait_any(&[&lock], None).unwrap());
        scope.spawn(|| wait_any(&[&permits], None).unwrap());
        scope.spawn(|| wait_any(&[&lock, &silent], None).unwrap());
        scope.spawn(|| wait_any(&[&permits, &silent], None).unwrap());
        assert!(!is_ready(&lock) && !is_ready(&permits));
        child.kill();
    });
    assert!(lock.lock().is_err_and(|dead| dead.is_owner_died()));
    drop(permits.acquire().unwrap());
}

#[test]
fn a_descriptor_is_readable_until_it_is_armed_again() {
    let queue = Queue::<u32>::bounded(4).unwrap();
    let readable = Readiness::new(&queue).unwrap();
    assert!(!is_ready(&readable.as_fd()));
    for round in 0..50 {
        queue.put(round).unwrap();
        assert_eq!(wait_any(&[&readable.as_fd()], None).unwrap(), [0]);
        assert_eq!(queue.get().unwrap(), round);
        assert!(is_ready(&readable), "nobody has armed it again");
        readable.rearm().unwrap();
        assert!(!is_ready(&readable));
    }
    queue.put(1).unwrap();
    wait_any(&[&readable], None).unwrap();
    readable.rearm().unwrap();
    assert!(is_ready(&readable), "there is something still");
}

#[test]
fn a_dropped_readiness_lets_go_of_its_object() {
    let segment = common::named("readiness-drop");
    let event = segment.event("event").create().unwrap();
    segment.remove("event").unwrap();
    let readable = Readiness::new(&event).unwrap();
    drop(event);
    assert_eq!(segment.objects().len(), 1, "held by the readiness");
    drop(readable);
    assert!(segment.objects().is_empty());
}

#[test]
fn the_readiness_of_a_process_is_its_end() {
    let child = Process::new(ends).args((0,)).start().unwrap();
    let ended = Readiness::new(&child).unwrap();
    wait_any(&[&ended], None).unwrap();
    ended.rearm().unwrap();
    assert!(is_ready(&ended), "an end is for ever");
    assert!(child.join().unwrap().success());
}

/// Sets an event when told.
fn sets(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let event = segment.event("event").open().unwrap();
    for _ in 0..20 {
        common::listen();
        event.set();
    }
}

#[test]
fn another_process_makes_a_descriptor_readable() {
    let segment = common::named("readiness-other");
    let event = segment.event("event").create().unwrap();
    let readable = Readiness::new(&event).unwrap();
    let mut child = common::start("sets", &[&segment.name]);
    for _ in 0..20 {
        assert!(!is_ready(&readable));
        child.tell("go");
        wait_any(&[&readable], None).unwrap();
        event.clear();
        readable.rearm().unwrap();
    }
    child.succeeded();
}

/// Takes from two queues whatever comes first, until both are closed.
fn competes(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    compete(&segment, arguments[1] == "mixed");
}

fn compete(segment: &Segment, mixed: bool) {
    let sum = segment.mutex::<u64>("sum").open().unwrap();
    let mut queues: Vec<_> = ["a", "b"].map(|name| segment.queue::<u64>(name).open().unwrap()).into();
    let (silent, _writer) = std::io::pipe().unwrap();
    let mut mine = 0;
    while !queues.is_empty() {
        let mut objects: Vec<&dyn Waitable> = queues.iter().map(|queue| queue as &dyn Waitable).collect();
        if mixed {
            objects.push(&silent);
        }
        let ready = wait_any(&objects, None).unwrap();
        for place in ready.into_iter().rev() {
            match queues[place].try_get() {
                Ok(number) => mine += number,
                Err(Error::Channel(shmkit::ChannelError::Empty { .. })) => {}
                Err(Error::Channel(shmkit::ChannelError::EndOfFile)) => drop(queues.remove(place)),
                Err(other) => panic!("{other}"),
            }
        }
    }
    *sum.lock().unwrap() += mine;
}

#[test]
fn competitors_lose_nothing() {
    const MESSAGES: u64 = 3000;
    let segment = common::named("wait-compete");
    let sum = segment.mutex::<u64>("sum").create().unwrap();
    let queues = ["a", "b"].map(|name| segment.queue::<u64>(name).capacity(16).create().unwrap());
    let mut children: Vec<_> = ["words", "mixed"].map(|how| common::start("competes", &[&segment.name, how])).into();
    std::thread::scope(|scope| {
        scope.spawn(|| compete(&segment, false));
        scope.spawn(|| compete(&segment, true));
        for number in 1..=MESSAGES {
            queues[(number % 3 % 2) as usize].put(number).unwrap();
        }
        queues.iter().for_each(Queue::close);
    });
    for child in &mut children {
        child.succeeded();
    }
    assert_eq!(*sum.lock().unwrap(), MESSAGES * (MESSAGES + 1) / 2);
    segment.verify().unwrap();
}

/// Waits for an event or a descriptor, and is killed there.
fn waits(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let permits = segment.semaphore("permits").open().unwrap();
    let (silent, _writer) = std::io::pipe().unwrap();
    let _readable = Readiness::new(&permits).unwrap();
    common::say("waiting");
    wait_any(&[&permits, &silent], None).unwrap();
    common::say("ready");
    common::listen();
}

#[test]
fn the_death_of_one_who_waits_for_several_harms_nobody() {
    let segment = common::named("wait-death");
    let permits = segment.semaphore("permits").initial(0).create().unwrap();
    let mut children: Vec<_> = (0..3).map(|_| common::start("waits", &[&segment.name])).collect();
    for child in &mut children {
        child.expect("waiting");
    }
    children[0].kill();
    std::thread::scope(|scope| {
        let taker = scope.spawn(|| permits.acquire().unwrap().forget());
        children[1].signal(libc::SIGSTOP);
        permits.release().unwrap();
        taker.join().unwrap();
    });
    permits.release().unwrap();
    children[2].expect("ready");
    assert_eq!(permits.value(), 1, "waiting takes nothing");
    drop(children);
    segment.verify().unwrap();
}
