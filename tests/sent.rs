//! Objects of every kind, sent through a queue to children of every start method, and on from one to the other.

mod common;

use serde::{Deserialize, Serialize};
use shmkit::process::{StartMethod, all_start_methods};
use shmkit::{
    Array, Barrier, BoundedSemaphore, Condition, Connection, Counter, Dict, Event, FrozenStr, JoinableQueue, List,
    Lock, Mutex, Namespace, Once, PermitSemaphore, Process, Producer, Queue, RLock, RwLock, Semaphore, ShardedDict,
    Value, pipe,
};

roles!(relay);

/// One of each kind.
#[derive(Serialize, Deserialize)]
struct All {
    lock: Lock,
    rlock: RLock,
    mutex: Mutex<u64>,
    rwlock: RwLock<u64>,
    semaphore: Semaphore,
    bounded: BoundedSemaphore,
    permits: PermitSemaphore,
    event: Event,
    condition: Condition,
    barrier: Barrier,
    once: Once,
    queue: Queue<u64>,
    joinable: JoinableQueue<u64>,
    producer: Producer<u64>,
    connection: Connection,
    value: Value<u64>,
    array: Array<u64>,
    dict: Dict<String, u64>,
    sharded: ShardedDict<u64, u64>,
    list: List<u64>,
    namespace: Namespace,
    counter: Counter,
    text: FrozenStr,
}

/// Uses everything, as one that has never seen it.
fn use_all(all: &All) -> shmkit::Result<()> {
    drop(all.lock.lock()?);
    drop(all.rlock.lock()?);
    *all.mutex.lock()? += 1;
    *all.rwlock.write()? += 1;
    all.semaphore.release()?;
    all.bounded.acquire()?.forget();
    all.permits.acquire()?.forget();
    all.permits.release()?;
    assert!(all.event.is_set());
    drop(all.condition.lock()?);
    assert_eq!(all.barrier.parties(), 3);
    all.once.call(|| ())?;
    all.queue.put(1)?;
    all.joinable.put(1)?;
    all.producer.put(1)?;
    all.connection.send(&1u64)?;
    all.value.fetch_add(1);
    all.array.set(1, all.array.get(1)? + 1)?;
    all.dict.update("key", |count| *count = Some(count.unwrap_or_default() + 1))?;
    all.sharded.insert(&u64::from(std::process::id()), &1)?;
    all.list.push(&1)?;
    all.namespace.update("count", |count: &mut Option<u64>| *count = Some(count.unwrap_or_default() + 1))?;
    all.counter.add(1)?;
    assert_eq!(&*all.text, "the same for all");
    Ok(())
}

/// Takes what comes, uses it, and passes it on.
fn pass(baton: Queue<All>) -> shmkit::Result<()> {
    let all = baton.get()?;
    use_all(&all)?;
    baton.put(all)
}

/// How a child comes into being; a process with one thread can be copied, too.
#[derive(Debug, Clone, Copy)]
enum How {
    Method(StartMethod),
    Fork,
}

/// A process of its own, since copies want one thread.
fn relay(_: &[String]) {
    let baton = Queue::<All>::bounded(1).unwrap();
    let produced = Queue::<u64>::bounded(64).unwrap();
    let (near, far) = pipe(true).unwrap();
    let all = All {
        lock: Lock::new().unwrap(),
        rlock: RLock::new().unwrap(),
        mutex: Mutex::new(0).unwrap(),
        rwlock: RwLock::new(0).unwrap(),
        semaphore: Semaphore::new(0).unwrap(),
        bounded: BoundedSemaphore::new(50).unwrap(),
        permits: PermitSemaphore::new(1).unwrap(),
        event: Event::new().unwrap(),
        condition: Condition::new().unwrap(),
        barrier: Barrier::new(3).unwrap(),
        once: Once::new().unwrap(),
        queue: Queue::unbounded().unwrap(),
        joinable: JoinableQueue::bounded(64).unwrap(),
        producer: produced.producer().unwrap(),
        connection: far,
        value: Value::new(0).unwrap(),
        array: Array::new(3).unwrap(),
        dict: Dict::new().unwrap(),
        sharded: ShardedDict::new().unwrap(),
        list: List::new().unwrap(),
        namespace: Namespace::new().unwrap(),
        counter: Counter::new().unwrap(),
        text: FrozenStr::new("the same for all").unwrap(),
    };
    all.event.set();
    let before = shmkit::session().unwrap().objects().len();
    baton.put(all).unwrap();
    let [spawn, server] = all_start_methods().map(How::Method);
    let order = [spawn, server, How::Fork, spawn, How::Fork, server, spawn, How::Fork, How::Fork];
    for how in order {
        let child = match how {
            How::Method(method) => Process::new(pass).args((baton.clone(),)).start_method(method).start().unwrap(),
            How::Fork => {
                let baton = baton.clone();
                // SAFETY: this process has one thread beside shmkit's own.
                unsafe { Process::fork(move || pass(baton)).start().unwrap() }
            }
        };
        let status = child.join().unwrap();
        assert!(status.success(), "{how:?}: {status}");
    }
    let all = baton.get().unwrap();
    let many = order.len();
    assert_eq!((*all.mutex.lock().unwrap(), *all.rwlock.read().unwrap()), (9, 9));
    assert_eq!((all.semaphore.value(), all.bounded.value(), all.permits.value()), (9, 41, 1));
    assert_eq!((all.queue.len(), all.joinable.unfinished(), produced.len(), all.list.len()), (many, many, many, many));
    assert_eq!((0..many).map(|_| near.recv::<u64>().unwrap()).sum::<u64>(), 9);
    assert_eq!((all.value.load(), all.array.get(1).unwrap(), all.counter.get()), (9, 9, 9));
    assert_eq!((all.dict.get("key").unwrap(), all.sharded.len()), (Some(9), many));
    assert_eq!((all.namespace.get("count").unwrap(), all.once.is_done()), (Some(9u64), true));
    assert_eq!(shmkit::session().unwrap().objects().len(), before, "nothing was made anew");
    drop((all, near, produced, baton));
    assert_eq!(shmkit::session().unwrap().objects().len(), 0, "and nothing is kept");
    shmkit::session().unwrap().verify().unwrap();
    common::say("passed on");
}

#[test]
fn every_object_is_sent_from_child_to_child_whatever_started_them() {
    let mut child = common::start("relay", &[]);
    child.expect("passed on");
    child.succeeded();
}
