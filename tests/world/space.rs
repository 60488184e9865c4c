//! No memory left in `/dev/shm`, at every allocation there is.

use crate::{common, private_mounts, runs};
use shmkit::channel::pipe_in;
use shmkit::heap::Heap;
use shmkit::{Array, Error, FrozenDict, Listener, Scalar, Segment, SegmentError, ShareableList, SharedMemory};
use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::os::fd::AsRawFd;

const PAGE: u64 = 4096;
/// What takes the other pages.
pub const FILLER: &str = "/dev/shm/filler";
/// Of a dict, a list and a queue that grow.
const ELEMENTS: u32 = 200;

/// In a child: a `/dev/shm` of its own.
pub fn small_disk(pages: u64) -> Option<()> {
    private_mounts()?;
    let options = CString::new(format!("size={},mode=1777", pages * PAGE)).unwrap();
    let (kind, place) = (c"tmpfs".as_ptr(), c"/dev/shm".as_ptr());
    // SAFETY: the strings end with NUL.
    if unsafe { libc::mount(kind, place, kind, 0, options.as_ptr().cast()) } != 0 {
        common::say(&format!("cannot mount a tmpfs: {}", std::io::Error::last_os_error()));
        return None;
    }
    common::say("runs");
    Some(())
}

/// Pages that are left.
pub fn pages_left() -> u64 {
    // SAFETY: statvfs is plain data; the string ends with NUL.
    unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        assert_eq!(libc::statvfs(c"/dev/shm".as_ptr(), &mut found), 0);
        found.f_bavail
    }
}

/// Takes all pages but `left`.
pub fn fill(left: u64) {
    let file = std::fs::File::create(FILLER).unwrap();
    let pages = pages_left() - left;
    if pages > 0 {
        // SAFETY: the descriptor is the file's.
        assert_eq!(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, (pages * PAGE) as i64) }, 0);
    }
    assert_eq!(pages_left(), left);
}

/// Does things until they are done: what is refused for want of something must have changed nothing, and is done again when
/// there is enough of it.
pub struct Patience {
    segment: RefCell<Option<Segment>>,
    refused: Cell<Option<&'static str>>,
    /// Panics unless that is the error there must be.
    expect: fn(&'static str, &Error),
    /// Whether it may be refused now.
    is_near: fn() -> bool,
    /// Makes enough of it.
    relieve: fn(),
}

impl Patience {
    pub fn new(expect: fn(&'static str, &Error), is_near: fn() -> bool, relieve: fn()) -> Patience {
        Patience { segment: RefCell::new(None), refused: Cell::new(None), expect, is_near, relieve }
    }

    /// The segment that is looked at when something was refused.
    pub fn watch(&self, segment: &Segment) {
        *self.segment.borrow_mut() = Some(segment.clone());
    }

    /// What was refused.
    pub fn refused(&self) -> Option<&'static str> {
        self.refused.get()
    }

    pub fn must<R>(&self, what: &'static str, action: impl Fn() -> shmkit::Result<R>) -> R {
        let used = || self.segment.borrow().as_ref().map(|segment| segment.memory().unwrap().0);
        // Counting takes its time: only where a refusal may be near.
        let may_be_refused = self.refused.get().is_none() && (self.is_near)();
        let before = if may_be_refused { used() } else { None };
        let error = match action() {
            Ok(done) => return done,
            Err(error) => error,
        };
        assert!(may_be_refused, "{what} was refused although there is enough: {error}");
        self.refused.set(Some(what));
        (self.expect)(what, &error);
        if let Some(segment) = &*self.segment.borrow() {
            segment.verify().unwrap_or_else(|wrong| panic!("{what} was refused and left {wrong}"));
        }
        // A container may keep a slab that it got: the next element lies in it.
        let keeps = ["key of", "name in", "element of", "box of"].iter().any(|kind| what.contains(kind));
        assert!(keeps || used() == before, "{what} was refused and kept memory: {before:?}, {:?}", used());
        (self.relieve)();
        action().unwrap_or_else(|error| panic!("{what}, with enough again: {error}"))
    }
}

pub fn expect_a_full_disk(what: &'static str, error: &Error) {
    let Error::Segment(SegmentError::OutOfMemory { needed, hint, .. }) = error else {
        panic!("{what}: another error: {error}")
    };
    assert!(*needed > 0 && hint.contains("/dev/shm is full"), "{what}: {error}");
}

/// Allocates in every way there is; gives what was refused.
fn allocate_everything(name: &str) -> Option<&'static str> {
    let patience = Patience::new(expect_a_full_disk, || pages_left() < 150, || std::fs::remove_file(FILLER).unwrap());
    let must = |what, action: &dyn Fn() -> shmkit::Result<()>| patience.must(what, action);
    let segment = patience.must("the segment", || Segment::builder().max_size(64 << 20).create(name));
    patience.watch(&segment);
    let lock = patience.must("a lock", || segment.lock("lock").create());
    let rlock = patience.must("an rlock", || segment.rlock("rlock").create());
    let mutex = patience.must("a mutex", || segment.mutex("mutex").initial([1u64; 400]).create());
    let rwlock = patience.must("an rwlock", || segment.rwlock("rwlock").initial([1u64; 400]).create());
    let semaphore = patience.must("a semaphore", || segment.semaphore("semaphore").initial(3).create());
    let permits = patience.must("a permit semaphore", || segment.permit_semaphore("permits").permits(3000).create());
    let event = patience.must("an event", || segment.event("event").create());
    let once = patience.must("a once", || segment.once("once").create());
    let barrier = patience.must("a barrier", || segment.barrier("barrier").parties(500).create());
    let condition = patience.must("a condition", || segment.condition("condition").create());
    let small = patience.must("a value", || segment.value("small").initial(5u64).create());
    let large = patience.must("a large value", || segment.value("large").initial([7u64; 400]).create());
    let array = patience.must("an array", || segment.array::<u64>("array").len(4000).create());
    let frames = patience.must("a zero-copy queue", || segment.pod_queue::<[u64; 64]>("frames").capacity(16).create());
    let words = patience.must("a queue", || segment.queue::<String>("words").capacity(16).create());
    let many = patience.must("an unbounded queue", || segment.queue::<String>("many").unbounded(5000).create());
    let jobs =
        patience.must("a joinable queue", || segment.joinable_queue::<String>("jobs").capacity(16).tasks(64).create());
    let (here, there) = patience.must("a pipe", || pipe_in(&segment, true));
    let (sender, receiver) = patience.must("a channel", || segment.channel::<[u64; 8]>("wire").capacity(64).create());
    let listener = patience.must("a listener", || Listener::builder("meeting").segment(&segment).backlog(4).bind());
    let dict = patience.must("a dict", || segment.dict::<u32, String>("dict").create());
    let list = patience.must("a list", || segment.list::<String>("list").create());
    let bounded = patience.must("a bounded semaphore", || segment.bounded_semaphore("bounded").initial(3).create());
    let counter = patience.must("a counter", || segment.counter("counter").create());
    let names = patience.must("a namespace", || segment.namespace("names").create());
    let sharded = patience.must("a sharded dict", || segment.sharded_dict::<u32, String>("sharded").create());
    let heap = patience.must("a heap", || segment.heap("heap").create());
    let bytes = patience.must("frozen bytes", || segment.frozen_bytes("bytes", &[3; 5000]).create());
    let text = patience.must("frozen text", || segment.frozen_str("text", &"t".repeat(5000)).create());
    let numbers = patience.must("a frozen array", || segment.frozen_array("numbers", &[9u64; 600]).create());
    let pairs = || (0..ELEMENTS).map(|n| (n, "f".repeat(n as usize % 70)));
    let frozen = patience.must("a frozen dict", || FrozenDict::<u32, String>::create(&segment, "frozen", pairs()));
    let scalars = || (0..40).map(|n| Scalar::from("s".repeat(100 + n)));
    let fixed = patience.must("a shareable list", || ShareableList::create(&segment, "fixed", scalars()));
    let other = format!("{name}-bytes");
    let memory = patience.must("shared memory", || SharedMemory::create(Some(&other), 10_000));
    // More objects than the table has room for at first.
    let more: Vec<_> =
        (0..40).map(|_| patience.must("one of many objects", || shmkit::Event::new_in(&segment))).collect();

    for round in 0..6u64 {
        must("a long message", &|| words.put("w".repeat(3000 + round as usize)));
        must("a long job", &|| jobs.put("j".repeat(3000)));
        must("a long message in a pipe", &|| here.send(&"p".repeat(3000)));
        must("a frame", &|| frames.put([round; 64]));
        must("a message in a channel", &|| sender.send([round; 8]));
        assert_eq!(there.recv::<String>().unwrap().len(), 3000);
    }
    for n in 0..ELEMENTS {
        must("a message in a queue that grows", &|| many.put(format!("{n}")));
        must("a key of a dict", &|| dict.insert(&n, &"v".repeat(n as usize % 700)).map(drop));
        must("an element of a list", &|| list.push(&"e".repeat(n as usize % 700)));
        must("a name in a namespace", &|| names.set(&format!("{n}"), &"n".repeat(n as usize % 700)).map(drop));
        must("a key of a sharded dict", &|| sharded.insert(&n, &"v".repeat(n as usize % 700)).map(drop));
        must("a box of a heap", &|| push(&heap, u64::from(n)));
        must("an element of a shareable list", &|| fixed.set(n as usize % 40, "x".repeat(n as usize % 700)));
        counter.add(1).unwrap();
    }
    // Only while there may be too little: it takes its time.
    if patience.refused().is_none() {
        crowd(&condition);
    }

    // Nothing was lost.
    assert_eq!((dict.len(), list.len(), many.len()), (ELEMENTS as usize, ELEMENTS as usize, ELEMENTS as usize));
    for n in 0..ELEMENTS {
        assert_eq!(dict.get(&n).unwrap().unwrap().len(), n as usize % 700);
        assert_eq!(list.get(n as usize).unwrap().unwrap().len(), n as usize % 700);
        assert_eq!(many.get().unwrap(), format!("{n}"));
        assert_eq!(names.get::<String>(&format!("{n}")).unwrap().unwrap().len(), n as usize % 700);
        assert_eq!(sharded.get(&n).unwrap().unwrap().len(), n as usize % 700);
        assert_eq!(frozen.get(&n).unwrap().unwrap().len(), n as usize % 70);
    }
    for n in ELEMENTS - 40..ELEMENTS {
        assert_eq!(fixed.get(n as usize % 40).unwrap(), Some("x".repeat(n as usize % 700).into()));
    }
    assert_eq!((heap.len(), sum(&heap)), (ELEMENTS as usize, u64::from(ELEMENTS * (ELEMENTS - 1) / 2)));
    assert_eq!((counter.get(), bounded.value()), (u64::from(ELEMENTS), 3));
    assert_eq!((&*bytes, text.len(), &*numbers), (&[3u8; 5000][..], 5000, &[9u64; 600][..]));
    memory.write(9_995, b"bytes").unwrap();
    assert_eq!(memory.read(9_994, 6).unwrap(), b"\0bytes");
    memory.unlink().unwrap();
    for round in 0..6u64 {
        assert_eq!(words.get().unwrap().len(), 3000 + round as usize);
        assert_eq!(jobs.get().unwrap().len(), 3000);
        assert_eq!((frames.get().unwrap(), receiver.recv().unwrap()), ([round; 64], [round; 8]));
    }
    drop((lock.lock().unwrap(), rlock.lock().unwrap(), mutex.lock().unwrap(), rwlock.read().unwrap()));
    drop((semaphore.acquire().unwrap(), permits.acquire().unwrap()));
    assert!(once.call(|| ()).unwrap());
    assert_eq!((barrier.parties(), event.is_set(), more.len()), (500, false, 40));
    assert_eq!((small.get().unwrap(), large.get().unwrap()[399], array.get(3999).unwrap()), (5, 7, 0));
    drop(listener);
    segment.verify().unwrap();
    patience.refused()
}

fn push(stack: &Heap, value: u64) -> shmkit::Result<()> {
    let top = stack.root::<[u64; 20]>(0)?;
    stack.change(|change| {
        let new = change.new_box(&[value; 20], &[top.ptr()])?;
        change.swing(top, new)
    })
}

fn sum(stack: &Heap) -> u64 {
    let top = stack.root::<[u64; 20]>(0).unwrap();
    let summed = stack.read(|reader| {
        let (mut sum, mut next) = (0, Some(top));
        while let Some(cell) = next
            && let Some(found) = reader.follow(cell)?
        {
            sum += found.value()[19];
            next = found.link(0);
        }
        Ok(sum)
    });
    summed.unwrap()
}

/// So many wait at once that the condition takes memory for them.
fn crowd(condition: &shmkit::Condition) {
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let _guard = condition.lock().unwrap();
                patience_of_a_waiter(condition)
            });
        }
        common::until(|| condition.waiting() == 12);
        let _guard = condition.lock().unwrap();
        assert_eq!(condition.notify_all().unwrap(), 12);
    });
}

/// Waits; one for whose record there is no memory waits again when there is.
fn patience_of_a_waiter(condition: &shmkit::Condition) {
    while let Err(error) = condition.wait() {
        assert!(matches!(error, Error::Segment(SegmentError::OutOfMemory { .. })), "{error}");
        let _ = std::fs::remove_file(FILLER);
    }
}

pub fn on_a_small_disk(arguments: &[String]) {
    let Some(()) = small_disk(2048) else { return };
    let name = &arguments[0];
    let all = pages_left();
    // Without a filler: how many pages it takes.
    assert_eq!(allocate_everything(name), None);
    let most = all - pages_left();
    Segment::unlink(name).unwrap();
    let mut refused = std::collections::BTreeSet::new();
    for left in 0..=most {
        fill(left);
        refused.extend(allocate_everything(name));
        let _ = std::fs::remove_file(FILLER);
        assert!(Segment::unlink(name).unwrap());
        assert_eq!(pages_left(), all, "with {left} pages left at first, some stayed taken");
    }
    common::say(&format!("{} {}", refused.len(), refused.into_iter().collect::<Vec<_>>().join(", ")));
}

#[test]
fn a_full_dev_shm_is_an_error_at_every_allocation_and_loses_nothing() {
    let mut child = common::start("on_a_small_disk", &[&common::unique("space")]);
    if !runs("a_full_dev_shm_is_an_error_at_every_allocation_and_loses_nothing", &mut child) {
        return;
    }
    let refused = child.hear();
    child.succeeded();
    println!("refused: {refused}");
    let (count, _) = refused.split_once(' ').unwrap();
    assert!(count.parse::<u32>().unwrap() >= 25, "{refused}");
    for one in [
        "the segment",
        "a key of a dict",
        "an element of a list",
        "a message in a queue that grows",
        "a long message",
        "a sharded dict",
        "a box of a heap",
        "a frozen dict",
        "a shareable list",
        "shared memory",
    ] {
        assert!(refused.contains(one), "{one} was never refused: {refused}");
    }
}

/// Makes an object in a segment.
type Make = fn(&Segment) -> shmkit::Result<()>;

/// Every kind of object.
const KINDS: &[(&str, Make)] = &[
    ("lock", |segment| segment.lock("new").create().map(drop)),
    ("rlock", |segment| segment.rlock("new").create().map(drop)),
    ("mutex", |segment| segment.mutex("new").initial(1u64).create().map(drop)),
    ("rwlock", |segment| segment.rwlock("new").initial(1u64).create().map(drop)),
    ("semaphore", |segment| segment.semaphore("new").create().map(drop)),
    ("bounded semaphore", |segment| segment.bounded_semaphore("new").create().map(drop)),
    ("permit semaphore", |segment| segment.permit_semaphore("new").create().map(drop)),
    ("event", |segment| segment.event("new").create().map(drop)),
    ("once", |segment| segment.once("new").create().map(drop)),
    ("barrier", |segment| segment.barrier("new").create().map(drop)),
    ("condition", |segment| segment.condition("new").create().map(drop)),
    ("value", |segment| segment.value("new").initial(1u64).create().map(drop)),
    ("array", |segment| segment.array::<u64>("new").len(1).create().map(drop)),
    ("zero-copy queue", |segment| segment.pod_queue::<u64>("new").create().map(drop)),
    ("queue", |segment| segment.queue::<u64>("new").create().map(drop)),
    ("unbounded queue", |segment| segment.queue::<u64>("new").unbounded(100).create().map(drop)),
    ("joinable queue", |segment| segment.joinable_queue::<u64>("new").create().map(drop)),
    ("pipe", |segment| pipe_in(segment, true).map(drop)),
    ("channel", |segment| segment.channel::<u64>("new").create().map(drop)),
    ("listener", |segment| Listener::builder("new").segment(segment).bind().map(drop)),
    ("dict", |segment| segment.dict::<u32, u32>("new").create().map(drop)),
    ("sharded dict", |segment| segment.sharded_dict::<u32, u32>("new").create().map(drop)),
    ("list", |segment| segment.list::<u32>("new").create().map(drop)),
    ("shareable list", |segment| ShareableList::create(segment, "new", [1i64.into()]).map(drop)),
    ("namespace", |segment| segment.namespace("new").create().map(drop)),
    ("heap", |segment| segment.heap("new").create().map(drop)),
    ("counter", |segment| segment.counter("new").create().map(drop)),
    ("frozen bytes", |segment| segment.frozen_bytes("new", b"1").create().map(drop)),
    ("frozen text", |segment| segment.frozen_str("new", "1").create().map(drop)),
    ("frozen array", |segment| segment.frozen_array("new", &[1u64]).create().map(drop)),
    ("frozen dict", |segment| FrozenDict::<u32, u32>::create(segment, "new", [(1, 1)]).map(drop)),
];

pub fn makes_every_kind(arguments: &[String]) {
    let Some(()) = small_disk(1024) else { return };
    let segment = Segment::create(&arguments[0]).unwrap();
    fill(0);
    // All that is backed, in ever smaller pieces.
    let mut hoard = Vec::new();
    for length in (0..16).rev().map(|power| 1 << power) {
        while let Ok(array) = Array::<u8>::new_in(&segment, length) {
            hoard.push(array);
        }
    }
    let used = segment.memory().unwrap().0;
    for (kind, make) in KINDS {
        let Err(error) = make(&segment) else { panic!("there was room for a {kind}") };
        expect_a_full_disk(kind, &error);
        assert_eq!(segment.memory().unwrap().0, used, "a {kind} was refused and kept memory");
        segment.verify().unwrap_or_else(|wrong| panic!("a {kind} was refused and left {wrong}"));
    }
    std::fs::remove_file(FILLER).unwrap();
    for (kind, make) in KINDS {
        make(&segment).unwrap_or_else(|error| panic!("a {kind}, with enough again: {error}"));
        segment.remove("new").unwrap();
    }
    drop(hoard);
    segment.verify().unwrap();
    assert_eq!(segment.memory().unwrap().0, 0);
    common::say("done");
}

#[test]
fn every_kind_of_object_is_refused_where_no_byte_is_left() {
    let mut child = common::start("makes_every_kind", &[&common::unique("kinds")]);
    if runs("every_kind_of_object_is_refused_where_no_byte_is_left", &mut child) {
        child.expect("done");
        child.succeeded();
    }
}

/// What needs no memory works in a segment whose file system is full, in a process that comes now, too.
pub fn on_a_full_disk(arguments: &[String]) {
    let Some(()) = small_disk(1024) else { return };
    let name = &arguments[0];
    let segment = Segment::create(name).unwrap();
    let words = segment.queue::<String>("words").capacity(8).create().unwrap();
    let lock = segment.lock("lock").create().unwrap();
    let dict = segment.dict::<u32, String>("dict").create().unwrap();
    dict.insert(&1, "one").unwrap();
    fill(0);
    for n in 0..100 {
        words.put(format!("{n}")).unwrap();
        assert_eq!(words.get().unwrap(), format!("{n}"));
        drop(lock.lock().unwrap());
        assert_eq!(dict.get(&1).unwrap().as_deref(), Some("one"));
    }
    words.put("hello".to_owned()).unwrap();
    let mut other = common::start("reads_in_the_dark", &[name]);
    other.expect("hello");
    other.expect("locked");
    other.kill();
    common::until(|| segment.recover() == 1);
    assert!(matches!(lock.acquire(), Err(Error::Sync(shmkit::SyncError::OwnerDied)) | Ok(())));
    lock.release().unwrap();
    segment.verify().unwrap();
    // Not even a name can be made: the error says what to do.
    let refused = Segment::create(&format!("{name}-more")).unwrap_err();
    assert!(refused.to_string().contains("/dev/shm is full"), "{refused}");
    common::say("done");
}

pub fn reads_in_the_dark(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    common::say(&segment.queue::<String>("words").open().unwrap().get().unwrap());
    let lock = segment.lock("lock").open().unwrap();
    lock.acquire().unwrap();
    common::say("locked");
    common::listen();
}

#[test]
fn what_needs_no_memory_goes_on_in_a_full_dev_shm() {
    let mut child = common::start("on_a_full_disk", &[&common::unique("full")]);
    if runs("what_needs_no_memory_goes_on_in_a_full_dev_shm", &mut child) {
        child.expect("done");
        child.succeeded();
    }
}
