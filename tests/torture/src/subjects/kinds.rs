//! One object of every kind: made under a name, opened, and destroyed with what is in it.

use crate::operation::{Acts, Check, Deed, Subject, corrupt, lost};
use crate::step::{begin, end};
use shmkit::data::{Counter, Namespace};
use shmkit::heap::{Heap, Ptr};
use shmkit::{
    Array, Barrier, BoundedSemaphore, Condition, Dict, Event, FrozenArray, FrozenBytes, FrozenDict, FrozenStr,
    JoinableQueue, List, Lock, Mutex, Once, PermitSemaphore, PodQueue, Queue, RLock, RwLock, Segment, Semaphore,
    ShardedDict, ShareableList, Value,
};

const TEXT: &str = "what never changes";

fn row() -> [shmkit::Scalar; 2] {
    [7i64.into(), "seven".into()]
}

/// The kinds: the act that makes one, what it is, how it is made and how it is opened.
macro_rules! kinds {
    (|$segment:ident, $name:ident| $($act:literal $kind:ty: $make:expr, $open:expr;)*) => {
        /// The act that makes one, and how it is made.
        const ALL: &[(&str, fn(&Segment, &str) -> shmkit::Result<()>)] =
            &[$(($act, |$segment, $name| {
                let made: shmkit::Result<$kind> = $make;
                made.map(drop)
            })),*];

        /// Opens what an act made.
        fn open(act: &str, $segment: &Segment, $name: &str) -> shmkit::Result<()> {
            match act {
                $($act => {
                    let opened: shmkit::Result<$kind> = $open;
                    opened.map(drop)
                })*
                _ => Ok(()),
            }
        }

        fn make_acts(acts: Acts<Kinds>) -> Acts<Kinds> {
            acts$(.act($act, |actor| {
                let name = format!("new{}", actor.scene.id());
                let ($segment, $name) = (&actor.segment, name.as_str());
                begin();
                let made: $kind = $make?;
                end();
                drop(made);
                Ok(())
            }))*
        }
    };
}

kinds! { |segment, name|
    "make mutex" Mutex<[u64; 5]>: segment.mutex(name).initial([1; 5]).create(), segment.mutex(name).open();
    "make lock" Lock: segment.lock(name).create(), segment.lock(name).open();
    "make rlock" RLock: segment.rlock(name).create(), segment.rlock(name).open();
    "make rwlock" RwLock<u64>: segment.rwlock(name).create(), segment.rwlock(name).open();
    "make semaphore" Semaphore: segment.semaphore(name).initial(2).create(), segment.semaphore(name).open();
    "make bounded semaphore" BoundedSemaphore: segment.bounded_semaphore(name).initial(2).create(), segment.bounded_semaphore(name).open();
    "make permits" PermitSemaphore: segment.permit_semaphore(name).permits(2).create(), segment.permit_semaphore(name).open();
    "make event" Event: segment.event(name).create(), segment.event(name).open();
    "make once" Once: segment.once(name).create(), segment.once(name).open();
    "make condition" Condition: segment.condition(name).create(), segment.condition(name).open();
    "make barrier" Barrier: segment.barrier(name).parties(2).create(), segment.barrier(name).open();
    "make value" Value<[u64; 3]>: segment.value(name).create(), segment.value(name).open();
    "make array" Array<u64>: segment.array(name).len(6).create(), segment.array(name).open();
    "make counter" Counter: segment.counter(name).create(), segment.counter(name).open();
    "make dict" Dict<u64, u64>: segment.dict(name).create(), segment.dict(name).open();
    "make sharded dict" ShardedDict<u64, u64>: segment.sharded_dict(name).shards(2).create(), segment.sharded_dict(name).open();
    "make list" List<u64>: segment.list(name).create(), segment.list(name).open();
    "make namespace" Namespace: segment.namespace(name).create(), segment.namespace(name).open();
    "make heap" Heap: segment.heap(name).create(), segment.heap(name).open();
    "make shareable list" ShareableList: ShareableList::create(segment, name, row()), ShareableList::open(segment, name);
    "make frozen text" FrozenStr: segment.frozen_str(name, TEXT).create(), segment.frozen_str(name, "").open();
    "make frozen bytes" FrozenBytes: segment.frozen_bytes(name, &[7; 9]).create(), segment.frozen_bytes(name, &[]).open();
    "make frozen array" FrozenArray<u64>: segment.frozen_array(name, &[1, 2, 3]).create(), segment.frozen_array(name, &[]).open();
    "make frozen dict" FrozenDict<u64, u64>: FrozenDict::create(segment, name, [(1u64, 10u64), (2, 20)]), FrozenDict::open(segment, name);
    "make queue" Queue<u64>: segment.queue(name).capacity(2).create(), segment.queue(name).open();
    "make growing queue" Queue<u64>: segment.queue(name).unbounded(8).create(), segment.queue(name).open();
    "make joinable queue" JoinableQueue<u64>: segment.joinable_queue(name).capacity(2).tasks(2).create(), segment.joinable_queue(name).open();
    "make pod queue" PodQueue<u64>: segment.pod_queue(name).capacity(2).loans(2).create(), segment.pod_queue(name).open();
    "make channel" (shmkit::Sender<u64>, shmkit::Receiver<u64>): segment.channel(name).capacity(2).create(),
        segment.channel(name).open_sender().and_then(|sender| Ok((sender, segment.channel(name).open_receiver()?)));
}

pub struct Kinds {
    frozen: (FrozenStr, FrozenBytes, FrozenArray<u64>, FrozenDict<u64, u64>),
}

/// The name of the one of each kind that is always there.
fn kept(act: &str) -> String {
    act.replacen("make", "kept", 1)
}

impl Subject for Kinds {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        ALL.iter().try_for_each(|(act, make)| make(segment, &kept(act)))?;
        Kinds::open(segment)
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        let frozen = (
            segment.frozen_str("kept frozen text", "").open()?,
            segment.frozen_bytes("kept frozen bytes", &[]).open()?,
            segment.frozen_array("kept frozen array", &[]).open()?,
            FrozenDict::open(segment, "kept frozen dict")?,
        );
        Ok(Kinds { frozen })
    }

    fn audit(&self, segment: &Segment, deeds: &[Deed]) -> Check {
        for deed in deeds.iter().filter(|deed| deed.act.starts_with("make ")) {
            let name = format!("new{}", deed.id);
            let is_there = segment.objects().iter().any(|object| object.name.as_deref() == Some(&name));
            match is_there {
                true => open(deed.act, segment, &name)?,
                false if deed.is_done => return lost(format!("what was made by {:?}", deed.act)),
                false => {}
            }
            if segment.remove(&name)? != is_there {
                return corrupt(format!("{name} is there and is not"));
            }
        }
        for name in segment.objects().into_iter().filter_map(|object| object.name) {
            if name.starts_with("mine") {
                segment.remove(&name)?;
            }
        }
        self.read()
    }

    fn exercise(&self, segment: &Segment) -> Check {
        self.read()?;
        for (act, make) in ALL {
            make(segment, "another")?;
            open(act, segment, "another")?;
            segment.remove("another")?;
        }
        Ok(ALL.iter().try_for_each(|(act, _)| open(act, segment, &kept(act)))?)
    }

    fn may_grow() -> bool {
        // One who opens everything has a cell in each.
        true
    }
}

impl Kinds {
    fn read(&self) -> Check {
        let (text, bytes, array, dict) = &self.frozen;
        let is_whole = &**text == TEXT
            && **bytes == [7; 9]
            && **array == [1, 2, 3]
            && (dict.get(&1)?, dict.get(&2)?, dict.len()) == (Some(10), Some(20), 2);
        if is_whole { Ok(()) } else { corrupt("what never changes has changed") }
    }
}

/// Destroys the only one, with what is in it.
macro_rules! destroys {
    ($acts:ident: $($act:literal |$segment:ident| $make:block)*) => {
        $acts$(.act($act, |actor| {
            let $segment = &actor.segment;
            let made = $make;
            begin();
            drop(made);
            end();
            Ok(())
        }))*
    };
}

pub fn acts() -> Acts<Kinds> {
    let acts = make_acts(Acts::<Kinds>::new())
        .act("open all", |actor| {
            begin();
            let opened = ALL.iter().try_for_each(|(act, _)| open(act, &actor.segment, &kept(act)));
            end();
            Ok(opened?)
        })
        // Ends have one owner.
        .alone()
        .act("read frozen", |actor| {
            begin();
            let read = actor.read();
            end();
            read
        })
        .act("look around", |actor| {
            begin();
            let segment = &actor.segment;
            let seen = (segment.objects().len(), segment.participants().len(), segment.recoveries());
            let verified = segment.verify();
            let memory = segment.memory();
            end();
            verified?;
            if seen.0 < ALL.len() || seen.1 == 0 || memory?.0 == 0 { corrupt(format!("{seen:?}")) } else { Ok(()) }
        })
        // Two who each want to look whether the other is sound.
        .alone();
    destroys! { acts:
        "destroy dict" |segment| {
            let dict = Dict::<u64, Vec<u64>>::new_in(segment)?;
            for key in 0..9 {
                dict.insert(&key, &vec![key; 9])?;
            }
            dict.insert(&9, &vec![9; 200])?;
            dict
        }
        "destroy sharded dict" |segment| {
            let dict = ShardedDict::<u64, Vec<u64>>::new_in(segment)?;
            dict.insert(&1, &vec![1; 9])?;
            dict
        }
        "destroy list" |segment| {
            let list = List::<Vec<u64>>::new_in(segment)?;
            list.extend((0..9).map(|n| vec![n; 9]))?;
            list.push(&vec![9; 200])?;
            list
        }
        "destroy heap" |segment| {
            let heap = Heap::new_in(segment)?;
            let root = heap.root::<u64>(0)?;
            heap.change(|change| {
                let first = change.new_box::<u64, u64>(&1, &[Ptr::NULL])?;
                let second = change.new_box(&2, &[first])?;
                change.swing(root, second)
            })?;
            heap
        }
        "destroy queue" |segment| {
            let queue = Queue::<Vec<u64>>::bounded_in(segment, 4)?;
            for n in 0..4 {
                queue.put(vec![n; 200])?;
            }
            queue
        }
        "destroy queue of handles" |segment| {
            let queue = Queue::<Semaphore>::bounded_in(segment, 2)?;
            for n in 1..=2 {
                queue.put(Semaphore::new_in(segment, n)?)?;
            }
            queue
        }
        "destroy joinable queue" |segment| {
            let queue = JoinableQueue::<u64>::bounded_in(segment, 4)?;
            queue.put(1)?;
            queue
        }
        "destroy connection" |segment| {
            let (first, second) = shmkit::channel::pipe_in(segment, true)?;
            first.send(&vec![1u64; 100])?;
            second.send(&vec![2u64; 100])?;
            (first, second)
        }
        "destroy channel" |segment| {
            let (sender, receiver) = shmkit::channel_in::<u64>(segment, 4)?;
            sender.send(1)?;
            (sender, receiver)
        }
    }
    .act("destroy growing queue", |actor| {
        let name = format!("mine{}", actor.scene.id());
        let queue = actor.segment.queue::<u64>(&name).unbounded(64).create()?;
        (0..40).try_for_each(|n| queue.put(n))?;
        begin();
        actor.segment.remove(&name)?;
        drop(queue);
        end();
        Ok(())
    })
    .act("pair connections", |actor| {
        begin();
        let ends = shmkit::channel::pipe_in(&actor.segment, true)?;
        end();
        drop(ends);
        Ok(())
    })
    .act("give ends", |actor| {
        let queue = Queue::<u64>::bounded_in(&actor.segment, 2)?;
        begin();
        let ends = (queue.producer()?, queue.consumer()?);
        end();
        drop(ends);
        Ok(())
    })
}
