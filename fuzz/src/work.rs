//! What the fuzzed process does with a segment: everything, and never waiting. What an input chooses comes before: see `chosen`.

use shmkit::heap::{Heap, Ptr};
use shmkit::sync::{Waitable, wait_any};
use shmkit::{
    Array, Barrier, Client, Condition, Connection, Counter, Dict, Event, FrozenArray, FrozenBytes, FrozenDict,
    FrozenStr, JoinableQueue, List, Listener, Lock, Mutex, Namespace, Once, PermitSemaphore, PodQueue, Queue, RLock,
    Receiver, RwLock, Scalar, Segment, Semaphore, Sender, ShardedDict, ShareableList, Value, channel::pipe_in,
};
use std::time::Duration;

/// Time-outs are zero: nobody else is there to wait for.
const NOW: Duration = Duration::ZERO;
/// Longer than what lies in a block of a queue.
const LONG: usize = 700;

/// What could be opened.
#[derive(Default)]
pub struct Opened {
    pub(crate) lock: Option<Lock>,
    pub(crate) rlock: Option<RLock>,
    pub(crate) mutex: Option<Mutex<[u64; 4]>>,
    pub(crate) semaphore: Option<Semaphore>,
    pub(crate) event: Option<Event>,
    pub(crate) permits: Option<PermitSemaphore>,
    pub(crate) once: Option<Once>,
    pub(crate) barrier: Option<Barrier>,
    pub(crate) condition: Option<Condition>,
    pub(crate) shared: Option<Condition>,
    pub(crate) rwlock: Option<RwLock<[u64; 4]>>,
    pub(crate) small: Option<Value<u64>>,
    pub(crate) large: Option<Value<[u64; 6]>>,
    pub(crate) array: Option<Array<u64>>,
    pub(crate) rows: Option<Array<[u64; 3]>>,
    pub(crate) frames: Option<PodQueue<[u64; 8]>>,
    pub(crate) words: Option<Queue<String>>,
    pub(crate) locks: Option<Queue<Lock>>,
    pub(crate) many: Option<Queue<String>>,
    pub(crate) jobs: Option<JoinableQueue<String>>,
    pub(crate) ends: Option<(Connection, Connection)>,
    pub(crate) listener: Option<Listener>,
    pub(crate) sender: Option<Sender<[u64; 3]>>,
    pub(crate) receiver: Option<Receiver<[u64; 3]>>,
    pub(crate) dict: Option<Dict<String, Vec<u16>>>,
    pub(crate) list: Option<List<String>>,
    pub(crate) space: Option<Namespace>,
    pub(crate) sharded: Option<ShardedDict<u32, u32>>,
    pub(crate) counter: Option<Counter>,
    pub(crate) text: Option<FrozenStr>,
    pub(crate) bytes: Option<FrozenBytes>,
    pub(crate) rows_of_frozen: Option<FrozenArray<[u64; 3]>>,
    pub(crate) frozen: Option<FrozenDict<u32, String>>,
    pub(crate) row: Option<ShareableList>,
    pub(crate) heap: Option<Heap>,
}

/// Puts an object of every kind into a sound segment.
pub fn fill(segment: &Segment) -> shmkit::Result<Opened> {
    let rlock = segment.rlock("rlock").create()?;
    let shared = segment.condition("shared").rlock(&rlock).create()?;
    wait_with_many(&shared)?;
    let opened = Opened {
        lock: Some(segment.lock("lock").create()?),
        rlock: Some(rlock),
        mutex: Some(segment.mutex("mutex").create()?),
        semaphore: Some(segment.semaphore("semaphore").initial(3).create()?),
        event: Some(segment.event("event").create()?),
        permits: Some(segment.permit_semaphore("permits").permits(5).create()?),
        once: Some(segment.once("once").create()?),
        barrier: Some(segment.barrier("barrier").parties(2).create()?),
        condition: Some(segment.condition("condition").create()?),
        shared: Some(shared),
        rwlock: Some(segment.rwlock("rwlock").initial([1; 4]).create()?),
        small: Some(segment.value("small").initial(5).create()?),
        large: Some(segment.value("large").initial([7; 6]).create()?),
        array: Some(segment.array("array").len(20).create()?),
        rows: Some(segment.array("rows").len(10).create()?),
        frames: Some(segment.pod_queue("frames").capacity(4).create()?),
        words: Some(segment.queue("words").capacity(8).create()?),
        locks: Some(segment.queue("locks").capacity(4).create()?),
        many: Some(segment.queue("many").unbounded(300).create()?),
        jobs: Some(segment.joinable_queue("jobs").capacity(4).tasks(4).create()?),
        ends: Some(pipe_in(segment, true)?),
        listener: Some(Listener::builder("meeting").segment(segment).backlog(4).bind()?),
        sender: None,
        receiver: None,
        dict: Some(segment.dict("dict").create()?),
        list: Some(segment.list("list").create()?),
        space: Some(segment.namespace("space").create()?),
        sharded: Some(segment.sharded_dict("sharded").shards(2).create()?),
        counter: Some(segment.counter("counter").create()?),
        text: Some(segment.frozen_str("text", "never changed").create()?),
        bytes: Some(segment.frozen_bytes("bytes", b"never changed").create()?),
        rows_of_frozen: Some(segment.frozen_array("frozen rows", &[[5u64; 3]; 20]).create()?),
        row: Some(ShareableList::create(segment, "row", row())?),
        frozen: Some(FrozenDict::create(segment, "frozen", (0..9u32).map(|n| (n, n.to_string())))?),
        heap: Some(segment.heap("heap").create()?),
    };
    let (sender, _receiver) = segment.channel::<[u64; 3]>("wire").capacity(8).create()?;
    (0..3).try_for_each(|n| sender.send([n; 3]))?;
    if let (Some(frames), Some(words), Some(locks)) = (&opened.frames, &opened.words, &opened.locks) {
        // Something of everything is under way: read, half read, written, long, a handle.
        (0..3).try_for_each(|n| frames.put([n; 8]))?;
        let _ = frames.recv()?;
        words.put("short".to_owned())?;
        words.put("l".repeat(LONG))?;
        locks.put(Lock::new_in(segment)?)?;
    }
    if let (Some(dict), Some(list), Some(space)) = (&opened.dict, &opened.list, &opened.space) {
        // Several tables and chunks, deleted and replaced elements, a large one, an anchor.
        (0..30u16).try_for_each(|n| dict.insert(&n.to_string(), &vec![n; n as usize]).map(drop))?;
        dict.insert("3", &vec![3; 3000])?;
        dict.remove("4")?;
        // In their slots, and in nodes.
        list.extend((0..20).map(|n| if n % 2 == 0 { n.to_string() } else { format!("number {n}") }))?;
        list.remove(7)?;
        list.pop()?;
        space.set("lock", &Lock::new_in(segment)?)?;
        space.set("number", &7)?;
    }
    if let Some(heap) = &opened.heap {
        (0..6).try_for_each(|n| stack(heap, n))?;
        unstack(heap)?;
        replace_large(heap, 1)?;
    }
    if let Some(sharded) = &opened.sharded {
        sharded.merge((0..10).map(|n| (n, n)))?;
    }
    if let Some(many) = &opened.many {
        many.put("m".to_owned())?;
    }
    if let Some(jobs) = &opened.jobs {
        // One done, one not, one not got.
        (0..3).try_for_each(|_| jobs.put("j".repeat(LONG)))?;
        let _ = (jobs.get()?, jobs.get()?);
        jobs.task_done()?;
    }
    Ok(opened)
}

/// One of each type of element.
fn row() -> [Scalar; 6] {
    let (text, bytes) = ("a text that has a node".into(), b"bytes\0".as_slice().into());
    [Scalar::None, true.into(), 7.into(), 7.5.into(), text, bytes]
}

/// Puts a box before the others.
pub(crate) fn stack(heap: &Heap, n: u64) -> shmkit::Result<()> {
    let root = heap.root::<u64>(0)?;
    heap.change(|change| {
        let new = change.new_box(&n, &[root.ptr()])?;
        change.swing(root, new)
    })
}

/// Takes it away.
pub(crate) fn unstack(heap: &Heap) -> shmkit::Result<()> {
    let root = heap.root::<u64>(0)?;
    heap.change(|change| {
        let Some(first) = change.follow(root)? else { return Ok(()) };
        change.retire(first.ptr())?;
        change.swing(root, first.link(0).map_or(Ptr::NULL, |rest| rest.ptr()))
    })
}

/// The sum of all boxes.
pub(crate) fn sum(heap: &Heap) -> shmkit::Result<u64> {
    let root = heap.root::<u64>(0)?;
    heap.read(|reader| {
        let (mut sum, mut next) = (0u64, Some(root));
        while let Some(cell) = next
            && let Some(found) = reader.follow(cell)?
        {
            sum = sum.wrapping_add(found.value());
            next = found.link(0);
        }
        Ok(sum)
    })
}

/// Another large box in the place of one.
pub(crate) fn replace_large(heap: &Heap, n: u64) -> shmkit::Result<()> {
    let root = heap.root::<[u64; 700]>(1)?;
    heap.change(|change| {
        let new = change.new_box(&[n; 700], &[Ptr::<u8>::NULL; 3])?;
        change.retire(root.ptr())?;
        change.swing(root, new)
    })
}

/// So many wait at once that the condition adds records.
fn wait_with_many(condition: &Condition) -> shmkit::Result<()> {
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let _guard = condition.lock().expect("a sound lock");
                condition.wait()
            });
        }
        while condition.waiting() < 12 {
            std::thread::yield_now();
        }
        let _guard = condition.lock()?;
        condition.notify_all().map(drop)
    })
}

/// Opens what can be opened.
pub fn open(segment: &Segment) -> Opened {
    Opened {
        lock: segment.lock("lock").open().ok(),
        rlock: segment.rlock("rlock").open().ok(),
        mutex: segment.mutex("mutex").open().ok(),
        semaphore: segment.semaphore("semaphore").open().ok(),
        event: segment.event("event").open().ok(),
        permits: segment.permit_semaphore("permits").open().ok(),
        once: segment.once("once").open().ok(),
        barrier: segment.barrier("barrier").open().ok(),
        condition: segment.condition("condition").open().ok(),
        shared: segment.condition("shared").open().ok(),
        rwlock: segment.rwlock("rwlock").open().ok(),
        small: segment.value("small").open().ok(),
        large: segment.value("large").open().ok(),
        array: segment.array("array").open().ok(),
        rows: segment.array("rows").open().ok(),
        frames: segment.pod_queue("frames").open().ok(),
        words: segment.queue("words").open().ok(),
        locks: segment.queue("locks").open().ok(),
        many: segment.queue("many").open().ok(),
        jobs: segment.joinable_queue("jobs").open().ok(),
        ends: pipe_in(segment, true).ok(),
        listener: Listener::builder("meeting").segment(segment).bind().ok(),
        sender: segment.channel("wire").open_sender().ok(),
        receiver: segment.channel("wire").open_receiver().ok(),
        dict: segment.dict("dict").open().ok(),
        list: segment.list("list").open().ok(),
        space: segment.namespace("space").open().ok(),
        sharded: segment.sharded_dict("sharded").open().ok(),
        counter: segment.counter("counter").open().ok(),
        text: segment.frozen_str("text", "").open().ok(),
        bytes: segment.frozen_bytes("bytes", b"").open().ok(),
        rows_of_frozen: segment.frozen_array("frozen rows", &[]).open().ok(),
        row: ShareableList::open(segment, "row").ok(),
        frozen: FrozenDict::open(segment, "frozen").ok(),
        heap: segment.heap("heap").open().ok(),
    }
}

/// Uses everything. Errors are fine; the values that come out do not matter, but must come out. `is_alone` when nobody writes at
/// the same time.
pub fn exercise(segment: &Segment, opened: &Opened, is_alone: bool) {
    let _ = segment.objects();
    let _ = segment.participants();
    let _ = segment.memory();
    let _ = segment.verify();
    segment.recover();
    sync(opened);
    wait(opened);
    data(opened);
    channels(opened);
    containers(segment, opened);
    let _ = Client::builder("meeting").segment(segment).timeout(NOW).connect();
    if let Some(listener) = &opened.listener {
        let _ = listener.accept_timeout(NOW);
        listener.close();
    }
    let sum = fresh(segment);
    assert!(!is_alone || sum.is_none_or(|sum| sum == 7000), "a fresh object is this process's own");
    let _ = segment.remove("lock");
    let _ = segment.remove("words");
    let _ = segment.remove("no such object");
}

/// One thing to wait for, if it could be opened.
fn waitable<W: Waitable>(object: &Option<W>) -> Option<&dyn Waitable> {
    object.as_ref().map(|object| object as &dyn Waitable)
}

/// Looks at everything that can be waited for.
pub(crate) fn wait(opened: &Opened) {
    let mut all: Vec<&dyn Waitable> = Vec::new();
    all.extend(waitable(&opened.lock));
    all.extend(waitable(&opened.rlock));
    all.extend(waitable(&opened.semaphore));
    all.extend(waitable(&opened.event));
    all.extend(waitable(&opened.permits));
    all.extend(waitable(&opened.once));
    all.extend(waitable(&opened.frames));
    all.extend(waitable(&opened.words));
    all.extend(waitable(&opened.jobs));
    all.extend(waitable(&opened.receiver));
    if let Some((here, there)) = &opened.ends {
        all.push(here);
        all.push(there);
    }
    let ready = wait_any(&all, Some(NOW)).unwrap_or_default();
    assert!(ready.iter().all(|&place| place < all.len()), "an index of nothing");
}

pub(crate) fn sync(opened: &Opened) {
    if let Some(lock) = &opened.lock {
        drop(lock.lock_timeout(NOW));
        let _ = lock.acquire_timeout(NOW);
        let _ = lock.release();
        let _ = format!("{lock:?}");
    }
    if let Some(rlock) = &opened.rlock {
        let outer = rlock.lock_timeout(NOW);
        let _ = rlock.depth();
        drop(rlock.try_lock());
        drop(outer);
        let _ = rlock.release();
    }
    if let Some(mutex) = &opened.mutex {
        match mutex.lock_timeout(NOW) {
            Ok(mut guard) => guard[0] = 1,
            Err(dead) => drop(dead.repair(|guard| guard[0] = 2)),
        }
        mutex.clear_poison();
    }
    if let Some(semaphore) = &opened.semaphore {
        drop(semaphore.acquire_timeout(NOW));
        let _ = semaphore.release();
        assert!(semaphore.value() <= i32::MAX as u32, "more permits than there can be");
    }
    if let Some(event) = &opened.event {
        event.set();
        let _ = event.wait_timeout(NOW);
        event.clear();
    }
    if let Some(permits) = &opened.permits {
        let _ = permits.acquire_timeout(NOW).map(|permit| permit.forget());
        let permit = permits.try_acquire();
        let _ = permits.release();
        assert!(permits.value() <= permits.permits(), "more permits than there are");
        drop(permit);
    }
    if let Some(once) = &opened.once {
        // A call waits for whoever the word names: only one that names nobody alive is run.
        if !once.is_running() {
            let _ = once.call(|| ());
        }
        let _ = once.wait_timeout(NOW);
    }
    if let Some(barrier) = &opened.barrier {
        let _ = barrier.wait_with_timeout(|| Ok(()), NOW);
        assert!(barrier.n_waiting() <= barrier.parties(), "more wait than there are");
        barrier.abort();
        barrier.reset();
        let _ = barrier.wait_timeout(NOW);
    }
    for condition in [&opened.condition, &opened.shared].into_iter().flatten() {
        let _ = condition.acquire_timeout(NOW);
        let _ = condition.wait_timeout(NOW);
        let _ = condition.notify_all();
        let _ = condition.wait_for_timeout(|| false, NOW);
        let _ = condition.release();
        let _ = format!("{condition:?}");
    }
    if let Some(rwlock) = &opened.rwlock {
        let _ = rwlock.try_read().map(|first| first[0].wrapping_add(rwlock.readers()));
        match rwlock.write_timeout(NOW) {
            Ok(guard) => drop(guard.downgrade()),
            Err(dead) => drop(dead.repair(|guard| guard[0] = 2)),
        }
        drop(rwlock.try_write());
        rwlock.clear_poison();
    }
}

pub(crate) fn data(opened: &Opened) {
    if let Some(small) = &opened.small {
        let _ = small.get();
        small.fetch_add(1);
        let _ = small.compare_exchange(6, 7);
    }
    if let Some(large) = &opened.large {
        let _ = large.get();
        if let Ok(mut guard) = large.lock_timeout(NOW) {
            guard[0] = guard[0].wrapping_add(1);
        }
        let _ = large.get();
    }
    if let Some(array) = &opened.array {
        for index in [0, array.len() / 2, array.len().wrapping_sub(1), array.len()] {
            let _ = array.get(index);
            let _ = array.set(index, 3);
        }
        if let Ok(mut guard) = array.lock_timeout(NOW) {
            guard.fill(9);
        }
    }
    if let Some(rows) = &opened.rows {
        drop(rows.try_lock());
        rows.clear_poison();
    }
}

pub(crate) fn channels(opened: &Opened) {
    if let Some(frames) = &opened.frames {
        // Those that the dead have given back count beside a full ring: no more than there are blocks.
        assert!((frames.len() as u64) < crate::SIZE / 64, "more elements than there is room for");
        if let Ok(mut frame) = frames.try_loan() {
            frame[0] = 1;
            drop(frame.try_commit());
        }
        let _ = frames.try_put_many(&[[1; 8], [2; 8]]);
        drop(frames.try_recv());
        // No more than there can be: a ring that never ends would be a loop without an end.
        for _ in 0..=2 * frames.capacity() {
            if frames.try_get().is_err() {
                break;
            }
        }
    }
    for words in opened.words.iter().chain(&opened.many) {
        let _ = words.try_put("w".repeat(LONG));
        let _ = words.try_put("w".to_owned());
        for _ in 0..=2 * words.capacity() {
            if words.try_get().is_err() {
                break;
            }
        }
    }
    if let Some(jobs) = &opened.jobs {
        let _ = jobs.try_put("j".repeat(LONG));
        drop(jobs.try_get_task());
        let _ = jobs.try_get();
        let _ = jobs.unfinished();
        let _ = jobs.join_timeout(NOW);
        let _ = jobs.task_done();
        let _ = jobs.shutdown(true);
        let _ = jobs.join_timeout(NOW);
    }
    if let Some(Ok(lock)) = opened.locks.as_ref().map(Queue::try_get) {
        drop(lock.lock_timeout(NOW));
    }
    if let Some((first, second)) = &opened.ends {
        let _ = first.poll(NOW);
        let _ = second.try_recv::<String>();
    }
    if let Some(sender) = &opened.sender {
        let _ = sender.try_send([5; 3]);
        let _ = sender.try_send_many(&[[6; 3]; 20]);
        let _ = sender.len();
    }
    if let Some(receiver) = &opened.receiver {
        let _ = receiver.poll(NOW);
        for _ in 0..=2 * receiver.capacity() {
            if receiver.try_recv().is_err() {
                break;
            }
        }
        let _ = receiver.try_recv_many(&mut [[0; 3]; 20]);
    }
}

fn containers(segment: &Segment, opened: &Opened) {
    if let Some(dict) = &opened.dict {
        for key in ["1", "3", "4", "29", "new"] {
            let _ = dict.get(key);
            let _ = dict.insert(key, &vec![9; key.len() * 1500]);
            let _ = dict.insert(key, &vec![9]);
            let _ = dict.update(key, |value| value.iter_mut().for_each(|value| value.push(1)));
            let _ = dict.remove(key);
        }
        let _ = dict.iter().take(1000).count();
        let _ = dict.pop_item();
        let _ = dict.items().map(|items| assert!(items.len() < 1 << 20, "more elements than there is room for"));
        (0..20u16).for_each(|n| drop(dict.insert(&n.to_string(), &vec![n])));
        let _ = dict.clear();
        let _ = dict.insert("again", &vec![1]);
    }
    if let Some(list) = &opened.list {
        for index in [0, 5, 18, 19, 1 << 40] {
            let _ = list.get(index);
            let _ = list.set(index, "set");
            let _ = list.insert(index, "inserted");
            let _ = list.remove(index);
        }
        let _ = list.push("pushed");
        let _ = list.pop();
        let _ = list.position("11");
        let _ = list.iter().take(1000).count();
        let _ = list.reverse();
        let _ = list.splice(1..3, ["a", "b", "c"].map(str::to_owned));
        let _ = list.sort();
        let _ = list.clear();
    }
    if let Some(space) = &opened.space {
        if let Ok(Some(lock)) = space.get::<Lock>("lock") {
            drop(lock.lock_timeout(NOW));
        }
        let _ = space.get::<u8>("number");
        let _ = Lock::new_in(segment).and_then(|lock| space.set("other", &lock));
        let _ = space.remove("lock");
        let _ = space.names();
        let _ = space.clear();
    }
    if let Some(sharded) = &opened.sharded {
        (0..20).for_each(|n| drop(sharded.insert(&n, &1).and_then(|_| sharded.get(&n))));
        let _ = sharded.items();
        let _ = sharded.len();
    }
    if let Some(counter) = &opened.counter {
        let _ = counter.add(1);
        let _ = counter.get();
    }
    if let Some(text) = &opened.text {
        // Its length is what was checked; what a scribbler made of it is not looked at.
        let _ = text.len();
    }
    if let (Some(bytes), Some(rows)) = (&opened.bytes, &opened.rows_of_frozen) {
        let _ = (bytes.len(), rows.len());
    }
    if let Some(row) = &opened.row {
        for index in [0, row.len().wrapping_sub(1), row.len(), usize::MAX] {
            let _ = row.get(index);
            let _ = row.set(index, "set");
        }
        let _ = row.position(&7.into());
        let _ = row.to_vec();
    }
    if let Some(heap) = &opened.heap {
        let _ = sum(heap);
        for n in 0..9 {
            let _ = stack(heap, n);
            let _ = replace_large(heap, n);
            let _ = unstack(heap);
        }
    }
    if let Some(frozen) = &opened.frozen {
        (0..12).for_each(|n| drop(frozen.get(&n)));
        let _ = frozen.iter().take(1000).count();
    }
}

/// New objects beside the old ones, and their end.
pub(crate) fn fresh(segment: &Segment) -> Option<u64> {
    let lock = Lock::new_in(segment).ok()?;
    drop(lock.lock_timeout(NOW).ok()?);
    let big = Mutex::new_in(segment, [7u64; 1000]).ok()?;
    let guard = big.lock_timeout(NOW).ok()?;
    Some(guard.iter().fold(0, |sum, word| sum.wrapping_add(*word)))
}
