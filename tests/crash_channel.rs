//! A process killed at each step of putting, getting, loaning, closing and recovering: the rows of the crash tables of
//! `channel`. After each death nobody hangs, what was committed arrives, and blocks and memory are all there again.

mod common;

use shmkit::{ChannelError, Error, Event, PodQueue, Queue, Segment, failpoint};
use std::collections::BTreeMap;

roles!(operates, dies_and_leaves, recovers, produces_messages, consumes_messages, produces_elements, consumes_elements,);

const CAPACITY: usize = 4;
const LOANS: usize = 3;

type Messages = Queue<Vec<u32>>;

/// The queues of a test, made by it and opened by its children.
struct Queues {
    messages: Messages,
    once: Messages,
    elements: PodQueue<u64>,
    handles: Queue<Event>,
}

impl Queues {
    fn create(segment: &Segment) -> Queues {
        Queues {
            messages: segment.queue("messages").capacity(CAPACITY).create().unwrap(),
            once: segment.queue("once").capacity(CAPACITY).at_most_once().create().unwrap(),
            elements: segment.pod_queue("elements").capacity(CAPACITY).loans(LOANS).create().unwrap(),
            handles: segment.queue("handles").capacity(CAPACITY).create().unwrap(),
        }
    }

    fn open(segment: &Segment) -> Queues {
        Queues {
            messages: segment.queue("messages").open().unwrap(),
            once: segment.queue("once").open().unwrap(),
            elements: segment.pod_queue("elements").open().unwrap(),
            handles: segment.queue("handles").open().unwrap(),
        }
    }

    /// Every block of every queue can be had, and nothing is left in the heap but the queues.
    fn check(&self, segment: &Segment, memory: u64, row: &str) {
        segment.verify().unwrap_or_else(|error| panic!("{row}: {error}"));
        let objects = segment.objects().into_iter().filter(|object| object.name.is_none()).count();
        assert_eq!(objects, 0, "{row}: an object nobody holds");
        assert_eq!(segment.memory().unwrap().0, memory, "{row}: memory leaked");
        if self.messages.is_closed() {
            return;
        }
        let loans: Vec<_> = (0..CAPACITY + LOANS).map(|_| self.elements.try_loan()).collect();
        assert!(loans.iter().all(Result::is_ok), "{row}: a block leaked");
        drop(loans);
        // Twice round the ring, full.
        for number in 0..200 {
            for step in 0..CAPACITY as u32 {
                self.messages.try_put(vec![number, step]).unwrap_or_else(|error| panic!("{row}: {error}"));
                self.elements.try_put(u64::from(step)).unwrap_or_else(|error| panic!("{row}: {error}"));
            }
            assert!(self.messages.try_put(vec![]).is_err() && self.elements.try_put(0).is_err(), "{row}: too large");
            for step in 0..CAPACITY as u32 {
                assert_eq!(self.messages.try_get().unwrap(), [number, step], "{row}");
                assert_eq!(self.elements.try_get().unwrap(), u64::from(step), "{row}");
            }
            assert!(self.messages.is_empty() && self.elements.is_empty(), "{row}: too many");
        }
    }
}

/// Too long for a block.
fn long() -> Vec<u32> {
    (0..1000).collect()
}

/// A value that refuses to be written after its first half.
struct Unwilling;

impl serde::Serialize for Unwilling {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeTuple;
        serializer.serialize_tuple(2)?.serialize_element(&vec![0u8; 5000])?;
        Err(serde::ser::Error::custom("not today"))
    }
}

fn arm(arguments: &[String]) {
    failpoint::arm(&arguments[1], arguments[2].parse().unwrap());
}

fn operate(segment: &Segment, queues: &Queues, operation: &str) {
    let Queues { messages, once, elements, handles } = queues;
    match operation {
        "put" => messages.put(vec![1]).unwrap(),
        "put long" => messages.put(long()).unwrap(),
        "put many" => messages.put_many([vec![1], vec![2], vec![3]]).unwrap(),
        "put unwilling" => {
            let unwilling = segment.queue::<Unwilling>("messages").open().unwrap();
            unwilling.put(Unwilling).unwrap_err();
        }
        "put handle" => {
            let event = Event::new_in(segment).unwrap();
            event.set();
            handles.put(event).unwrap();
        }
        "put element" => elements.put(1).unwrap(),
        "put elements" => elements.put_many(&[1, 2, 3]).unwrap(),
        "commit" => {
            let mut loan = elements.loan().unwrap();
            *loan = 1;
            loan.commit().unwrap();
        }
        "drop loan" => drop(elements.loan().unwrap()),
        "get" => drop(messages.get().unwrap()),
        "get many" => drop(messages.get_many(2).unwrap()),
        "get once" => drop(once.get().unwrap()),
        "get handle" => drop(handles.get().unwrap()),
        "get bytes" => drop(messages.get()),
        "recv" => drop(elements.recv().unwrap()),
        "get elements" => drop(elements.get_many(2).unwrap()),
        "close" => messages.close(),
        "get end" => drop(messages.get().unwrap_err()),
        other => panic!("unknown operation {other}"),
    }
}

/// Does one thing when told to, and dies at the kill point.
fn operates(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let queues = Queues::open(&segment);
    common::say("ready");
    common::listen();
    arm(arguments);
    operate(&segment, &queues, &arguments[3]);
}

fn killed(segment: &common::Named, point: &str, nth: u32, operation: &str) -> common::Child {
    let mut child = common::start("operates", &[&segment.name, point, &nth.to_string(), operation]);
    child.expect("ready");
    child
}

/// What the survivors get, and how often it was delivered before.
type Got = Vec<(Vec<u32>, u32)>;

/// Gets until `last` comes.
fn get_until(messages: &Messages, last: &[u32]) -> Got {
    let mut got = Got::new();
    loop {
        let message = messages.get_message().unwrap();
        if message.value == last {
            return got;
        }
        got.push((message.value, message.redelivered));
    }
}

#[test]
fn a_producer_killed_at_every_step() {
    let short = |count: u32| (1..=count).map(|number| (vec![number], 0)).collect::<Got>();
    let rows: [(&str, &str, u32, Got); 27] = [
        ("put", "queue.before_claim", 1, vec![]),
        ("put", "queue.claimed", 1, vec![]),
        ("put", "queue.filled", 1, vec![]),
        ("put", "queue.before_ready", 1, vec![]),
        ("put", "queue.ready", 1, short(1)),
        ("put", "queue.tail", 1, short(1)),
        ("put long", "queue.claimed", 1, vec![]),
        ("put long", "heap.held", 1, vec![]),
        ("put long", "queue.extent_allocated", 1, vec![]),
        ("put long", "queue.extent_filled", 1, vec![]),
        ("put long", "queue.extent_named", 1, vec![]),
        ("put long", "queue.extent_committed", 1, vec![]),
        ("put long", "queue.filled", 1, vec![]),
        ("put long", "queue.before_ready", 1, vec![]),
        ("put long", "queue.ready", 1, vec![(long(), 0)]),
        ("put long", "queue.tail", 1, vec![(long(), 0)]),
        ("put many", "queue.claimed", 1, vec![]),
        ("put many", "queue.claimed", 2, vec![]),
        ("put many", "queue.filled", 3, vec![]),
        ("put many", "queue.batch_ready", 1, short(1)),
        ("put many", "queue.batch_ready", 2, short(2)),
        ("put many", "queue.batch_ready", 3, short(3)),
        ("put many", "queue.batch_tail", 1, short(3)),
        ("put unwilling", "queue.claimed", 1, vec![]),
        ("put unwilling", "queue.before_free", 1, vec![]),
        ("put unwilling", "queue.freed", 1, vec![]),
        ("drop loan", "queue.claimed", 1, vec![]),
    ];
    for (operation, point, nth, expected) in rows {
        let row = format!("{operation} at {point} {nth}");
        let segment = common::named("producer");
        let queues = Queues::create(&segment);
        let memory = segment.memory().unwrap().0;
        let mut child = killed(&segment, point, nth, operation);
        // Somebody waits for the message when it comes, or does not come.
        let got = std::thread::scope(|scope| {
            let getter = scope.spawn(|| get_until(&queues.messages, &[99]));
            child.tell("go");
            child.was_killed();
            queues.messages.put(vec![99]).unwrap();
            getter.join().unwrap()
        });
        assert_eq!(got, expected, "{row}");
        queues.check(&segment, memory, &row);
    }
}

#[test]
fn a_producer_of_elements_killed_at_every_step() {
    let rows = [
        ("put element", "queue.claimed", 1, 0),
        ("put element", "queue.filled", 1, 0),
        ("put element", "queue.ready", 1, 1),
        ("commit", "queue.claimed", 1, 0),
        ("commit", "queue.filled", 1, 0),
        ("commit", "queue.before_ready", 1, 0),
        ("commit", "queue.ready", 1, 1),
        ("commit", "queue.tail", 1, 1),
        ("put elements", "queue.claimed", 2, 0),
        ("put elements", "queue.filled", 1, 0),
        ("put elements", "queue.batch_ready", 2, 2),
        ("put elements", "queue.batch_tail", 1, 3),
        ("drop loan", "queue.before_free", 1, 0),
        ("drop loan", "queue.freed", 1, 0),
    ];
    for (operation, point, nth, expected) in rows {
        let row = format!("{operation} at {point} {nth}");
        let segment = common::named("element-producer");
        let queues = Queues::create(&segment);
        let memory = segment.memory().unwrap().0;
        let mut child = killed(&segment, point, nth, operation);
        let got = std::thread::scope(|scope| {
            let getter = scope.spawn(|| {
                queues.elements.iter().map(|element| *element.unwrap()).take_while(|&element| element != 99).count()
            });
            child.tell("go");
            child.was_killed();
            queues.elements.put(99).unwrap();
            getter.join().unwrap()
        });
        assert_eq!(got, expected, "{row}");
        queues.check(&segment, memory, &row);
    }
}

#[test]
fn a_consumer_killed_at_every_step() {
    // What becomes of the message or the two messages that it was taking: how often each was delivered before, or nothing
    // if it was received.
    let rows: [(&str, &str, u32, &[u32]); 29] = [
        ("get", "queue.before_taken", 1, &[0, 0]),
        ("get", "queue.taken", 1, &[1, 0]),
        ("get", "queue.head", 1, &[1, 0]),
        ("get", "queue.read", 1, &[1, 0]),
        ("get", "queue.slot_free", 1, &[1, 0]),
        ("get", "queue.copied", 1, &[1, 0]),
        ("get", "queue.before_free", 1, &[1, 0]),
        ("get", "queue.freed", 1, &[0]),
        ("get long", "queue.taken", 1, &[1, 0]),
        ("get long", "queue.read", 1, &[1, 0]),
        ("get long", "queue.copied", 1, &[1, 0]),
        ("get long", "queue.releasing", 1, &[0]),
        ("get long", "queue.extent_freed", 1, &[0]),
        ("get long", "queue.extent_cleared", 1, &[0]),
        ("get long", "queue.before_free", 1, &[0]),
        ("get long", "queue.freed", 1, &[0]),
        ("get many", "queue.batch_taken", 1, &[1, 0]),
        ("get many", "queue.batch_taken", 2, &[1, 1]),
        ("get many", "queue.batch_head", 1, &[1, 1]),
        ("get many", "queue.batch_read", 1, &[1, 1]),
        ("get many", "queue.batch_slot_free", 1, &[1, 1]),
        ("get many", "queue.batch_read", 2, &[1, 1]),
        ("get many", "queue.batch_slot_free", 2, &[1, 1]),
        ("get many", "queue.copied", 1, &[1, 1]),
        ("get many", "queue.freed", 1, &[1]),
        ("get many", "queue.copied", 2, &[1]),
        ("get many", "queue.freed", 2, &[]),
        ("get many long", "queue.releasing", 1, &[1]),
        ("get many long", "queue.extent_cleared", 2, &[]),
    ];
    for (operation, point, nth, expected) in rows {
        let row = format!("{operation} at {point} {nth}");
        let segment = common::named("consumer");
        let queues = Queues::create(&segment);
        let memory = segment.memory().unwrap().0;
        let (operation, is_long) = match operation.strip_suffix(" long") {
            Some(operation) => (operation, true),
            None => (operation, false),
        };
        let pair = if is_long { [long(), long()] } else { [vec![7], vec![7]] };
        let mut child = killed(&segment, point, nth, operation);
        for message in &pair {
            queues.messages.put_ref(message).unwrap();
        }
        queues.messages.put_many([vec![8], vec![8]]).unwrap();
        assert!(queues.messages.is_full());
        // Somebody waits for room.
        let got = std::thread::scope(|scope| {
            scope.spawn(|| queues.messages.put(vec![99]).unwrap());
            child.tell("go");
            child.was_killed();
            segment.recover();
            get_until(&queues.messages, &[99])
        });
        let theirs: Vec<_> = got.iter().filter(|(message, _)| *message == pair[0]).map(|&(_, times)| times).collect();
        assert_eq!(theirs, expected, "{row}");
        let others: Vec<_> = got.iter().filter(|(message, _)| *message != pair[0]).collect();
        assert_eq!(others, [&(vec![8], 0), &(vec![8], 0)], "{row}");
        queues.check(&segment, memory, &row);
    }
}

#[test]
fn a_consumer_of_elements_killed_at_every_step() {
    let rows: [(&str, &str, u32, &[u32]); 9] = [
        ("recv", "queue.taken", 1, &[1, 0]),
        ("recv", "queue.read", 1, &[1, 0]),
        ("recv", "queue.slot_free", 1, &[1, 0]),
        ("recv", "queue.before_free", 1, &[1, 0]),
        ("recv", "queue.freed", 1, &[0]),
        ("get elements", "queue.batch_taken", 2, &[1, 1]),
        ("get elements", "queue.batch_slot_free", 1, &[1, 1]),
        ("get elements", "queue.freed", 1, &[1]),
        ("get elements", "queue.before_free", 2, &[1]),
    ];
    for (operation, point, nth, expected) in rows {
        let row = format!("{operation} at {point} {nth}");
        let segment = common::named("element-consumer");
        let queues = Queues::create(&segment);
        let memory = segment.memory().unwrap().0;
        let mut child = killed(&segment, point, nth, operation);
        queues.elements.put_many(&[7, 7]).unwrap();
        child.tell("go");
        child.was_killed();
        segment.recover();
        assert_eq!(queues.elements.len(), expected.len(), "{row}");
        let got: Vec<_> = expected.iter().map(|_| queues.elements.try_recv().unwrap().redelivered()).collect();
        assert_eq!(got, expected, "{row}");
        queues.check(&segment, memory, &row);
    }
}

#[test]
fn what_a_dead_consumer_held_is_dropped_if_that_was_asked_for() {
    for message in [vec![7], long()] {
        for point in ["queue.taken", "queue.read", "queue.slot_free", "queue.copied"] {
            let segment = common::named("once");
            let queues = Queues::create(&segment);
            let memory = segment.memory().unwrap().0;
            let mut child = killed(&segment, point, 1, "get once");
            queues.once.put_ref(&message).unwrap();
            child.tell("go");
            child.was_killed();
            segment.recover();
            assert!(queues.once.is_empty(), "{point}");
            queues.check(&segment, memory, point);
        }
    }
}

#[test]
fn a_message_with_a_handle_and_a_kill_at_every_step() {
    for point in ["queue.claimed", "reference.cell", "reference.version", "queue.filled", "queue.ready", "queue.tail"] {
        let segment = common::named("handle-put");
        let queues = Queues::create(&segment);
        let memory = segment.memory().unwrap().0;
        let mut child = killed(&segment, point, 1, "put handle");
        child.tell("go");
        child.was_killed();
        segment.recover();
        let arrives = ["queue.ready", "queue.tail"].contains(&point);
        assert_eq!(queues.handles.len(), usize::from(arrives), "{point}");
        if arrives {
            assert!(queues.handles.get().unwrap().is_set());
        }
        queues.check(&segment, memory, point);
    }
    let received = ["queue.freed", "queue.before_check"];
    let again = ["queue.taken", "queue.read", "queue.copied", "reference.cell", "queue.decoded", "queue.before_free"];
    for point in received.into_iter().chain(again) {
        let segment = common::named("handle-get");
        let queues = Queues::create(&segment);
        let memory = segment.memory().unwrap().0;
        let mut child = killed(&segment, point, 1, "get handle");
        let event = Event::new_in(&segment).unwrap();
        event.set();
        queues.handles.put(event).unwrap();
        child.tell("go");
        child.was_killed();
        segment.recover();
        assert_eq!(queues.handles.len(), usize::from(again.contains(&point)), "{point}");
        if again.contains(&point) {
            assert!(queues.handles.get().unwrap().is_set());
        }
        queues.check(&segment, memory, point);
    }
}

#[test]
fn a_message_that_kills_its_consumers_says_how_often() {
    let segment = common::named("poison");
    let queues = Queues::create(&segment);
    let memory = segment.memory().unwrap().0;
    queues.messages.put(vec![7]).unwrap();
    for point in ["queue.copied", "queue.adopted", "queue.copied", "queue.adopted"] {
        let mut child = killed(&segment, point, 1, "get");
        child.tell("go");
        child.was_killed();
        segment.recover();
    }
    assert_eq!(queues.messages.get_message().unwrap().redelivered, 4);
    queues.check(&segment, memory, "poison");
}

#[test]
fn closing_killed_at_every_step() {
    let segment = common::named("close");
    let queues = Queues::create(&segment);
    let memory = segment.memory().unwrap().0;
    queues.messages.put(vec![7]).unwrap();
    let mut child = killed(&segment, "queue.closed", 1, "close");
    std::thread::scope(|scope| {
        let getter = scope.spawn(|| queues.messages.iter().count());
        child.tell("go");
        child.was_killed();
        assert_eq!(getter.join().unwrap(), 1);
    });
    queues.check(&segment, memory, "close");
    let segment = common::named("end");
    let queues = Queues::create(&segment);
    queues.messages.close();
    let mut child = killed(&segment, "queue.ended", 1, "get end");
    child.tell("go");
    child.was_killed();
    assert!(matches!(queues.messages.get(), Err(Error::Channel(ChannelError::EndOfFile))));
    queues.check(&segment, memory, "end");
}

/// Dies at its kill point, and leaves what the recoverer is to be killed at.
fn dies_and_leaves(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let queues = Queues::open(&segment);
    arm(arguments);
    operate(&segment, &queues, &arguments[3]);
}

/// Recovers the dead, and dies at the kill point.
fn recovers(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    arm(arguments);
    segment.recover();
}

#[test]
fn the_recoverer_killed_at_every_step() {
    // How a consumer or producer died, where its recoverer dies, and what is got in the end.
    let taken: &[(&str, u32)] = &[
        ("queue.recover_pending", 1),
        ("queue.recover_slot", 1),
        ("queue.recover_scanned", 1),
        ("queue.recover_requeued", 1),
        ("queue.recover_hint", 1),
    ];
    let held: &[(&str, u32)] =
        &[("queue.recover_scanned", 1), ("queue.recover_requeued", 1), ("queue.recover_hint", 1)];
    let freed: &[(&str, u32)] = &[
        ("queue.recover_scanned", 1),
        ("queue.extent_freed", 1),
        ("queue.extent_cleared", 1),
        ("queue.recover_freed", 1),
        ("queue.recover_hint", 1),
    ];
    type Row<'a> = (&'a str, &'a str, u32, &'a [(&'a str, u32)], usize);
    let rows: [Row; 10] = [
        ("get", "queue.taken", 1, taken, 1),
        ("get", "queue.head", 1, taken, 1),
        ("get", "queue.read", 1, taken, 1),
        ("get", "queue.copied", 1, held, 1),
        ("get many", "queue.batch_read", 1, taken, 2),
        ("get", "queue.releasing", 1, freed, 0),
        ("get", "queue.extent_freed", 1, freed, 0),
        ("put long", "queue.extent_named", 1, freed, 0),
        ("put long", "queue.extent_committed", 1, freed, 0),
        ("get once", "queue.read", 1, freed, 0),
    ];
    for (operation, death, nth, points, expected) in rows {
        for &(point, passage) in points {
            let row = format!("{operation} at {death} {nth}, recoverer at {point}");
            let segment = common::named("recoverer");
            let queues = Queues::create(&segment);
            let memory = segment.memory().unwrap().0;
            match operation {
                "get" | "get many" => queues.messages.put_many([long(), long()][..expected.max(1)].to_vec()).unwrap(),
                "get once" => queues.once.put(long()).unwrap(),
                _ => {}
            }
            common::start("dies_and_leaves", &[&segment.name, death, &nth.to_string(), operation]).was_killed();
            common::start("recovers", &[&segment.name, point, &passage.to_string()]).was_killed();
            segment.recover();
            assert_eq!(queues.messages.len(), expected, "{row}");
            for _ in 0..expected {
                let message = queues.messages.get_message().unwrap();
                assert_eq!((message.value, message.redelivered), (long(), 1), "{row}");
            }
            assert!(queues.once.is_empty(), "{row}");
            queues.check(&segment, memory, &row);
        }
    }
}

// ---- random kills --------------------------------------------------------------------------------------------------------

/// Numbers of one producer's life.
const SPAN: u64 = 1 << 32;

fn first(arguments: &[String]) -> u64 {
    arguments[1].parse::<u64>().unwrap() * SPAN
}

/// Puts numbers that count up, in messages of many lengths, for ever.
fn produces_messages(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let messages = segment.queue::<(u64, Vec<u8>)>("messages").open().unwrap();
    let message = |number: u64| {
        let len = if number.is_multiple_of(3) { 1000 } else { number % 100 };
        (number, vec![number as u8; len as usize])
    };
    for number in (first(arguments)..).step_by(4) {
        messages.put(message(number)).unwrap();
        messages.put_many((number + 1..number + 4).map(message)).unwrap();
    }
}

/// Passes on what it gets to the test, for ever.
fn consumes_messages(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let messages = segment.queue::<(u64, Vec<u8>)>("messages").open().unwrap();
    let seen = segment.queue::<(u64, u32)>("seen").open().unwrap();
    loop {
        let message = messages.get_message().unwrap();
        let (number, bytes) = message.value;
        assert!(bytes.iter().all(|&byte| byte == number as u8), "torn");
        seen.put((number, message.redelivered)).unwrap();
    }
}

/// Puts numbers that count up, for ever.
fn produces_elements(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let elements = segment.pod_queue::<u64>("elements").open().unwrap();
    for number in (first(arguments)..).step_by(4) {
        elements.put(number).unwrap();
        elements.put_many(&[number + 1, number + 2, number + 3]).unwrap();
    }
}

/// Passes on what it gets to the test, for ever; it holds each element until it was passed on.
fn consumes_elements(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    let elements = segment.pod_queue::<u64>("elements").open().unwrap();
    let seen = segment.queue::<(u64, u32)>("seen").open().unwrap();
    loop {
        let element = elements.recv().unwrap();
        seen.put((*element, element.redelivered())).unwrap();
    }
}

/// What was received: each number, how often it came, and how often that was said to be again.
#[derive(Default)]
struct Seen(BTreeMap<u64, (u32, u32)>);

impl Seen {
    fn add(&mut self, number: u64, redelivered: u32) {
        let entry = self.0.entry(number).or_default();
        entry.0 += 1;
        entry.1 += u32::from(redelivered > 0);
    }

    /// Checks that nothing came twice without a word, and gives how many numbers are missing before each producer's last.
    fn gaps(&self) -> usize {
        let mut last = BTreeMap::new();
        for (&number, &(times, again)) in &self.0 {
            assert!(times <= 1 + again, "{number:#x} came {times} times, {again} of them flagged");
            last.insert(number / SPAN, number % SPAN + 1);
        }
        last.values().sum::<u64>() as usize - self.0.len()
    }
}

/// Lets two producers and two consumers work while one after the other is killed and replaced. Gives what was received, what was
/// passed on and not yet looked at included, and how many consumers died.
fn soak(segment: &common::Named, produces: &str, consumes: &str) -> (Seen, usize) {
    let seed = std::env::var("SHMKIT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64);
    println!("SHMKIT_SEED={seed}");
    let mut state = seed | 1;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let passed_on = segment.queue::<(u64, u32)>("seen").capacity(1000).create().unwrap();
    let mut lives = 0;
    let mut birth = |role: &str| {
        lives += 1;
        common::start(role, &[&segment.name, &lives.to_string()])
    };
    let roles = [produces, produces, consumes, consumes];
    let mut children: Vec<_> = roles.iter().map(|role| birth(role)).collect();
    let (mut seen, mut deaths) = (Seen::default(), 2);
    for _ in 0..80 {
        for _ in 0..=random(60) {
            let (number, redelivered) = passed_on.get().unwrap();
            seen.add(number, redelivered);
        }
        let victim = random(4) as usize;
        children[victim].kill();
        children[victim] = birth(roles[victim]);
        deaths += victim / 2;
    }
    children.iter_mut().for_each(common::Child::kill);
    segment.recover();
    while let Ok((number, redelivered)) = passed_on.try_get() {
        seen.add(number, redelivered);
    }
    segment.remove("seen").unwrap();
    (seen, deaths)
}

#[test]
fn random_kills_lose_no_message() {
    let segment = common::named("soak-messages");
    let messages = segment.queue::<(u64, Vec<u8>)>("messages").capacity(10).create().unwrap();
    let (mut seen, deaths) = soak(&segment, "produces_messages", "consumes_messages");
    while let Ok(message) = messages.try_get() {
        seen.add(message.0, 0);
    }
    // A consumer that was killed may have received a message and not passed it on.
    assert!(seen.gaps() <= deaths, "{} messages lost, {deaths} consumers died", seen.gaps());
    segment.remove("messages").unwrap();
    drop(messages);
    segment.verify().unwrap();
    assert_eq!(segment.memory().unwrap().0, 0);
}

#[test]
fn random_kills_lose_no_element() {
    let segment = common::named("soak-elements");
    let elements = segment.pod_queue::<u64>("elements").capacity(10).create().unwrap();
    let (mut seen, _) = soak(&segment, "produces_elements", "consumes_elements");
    while let Ok(element) = elements.try_recv() {
        seen.add(*element, element.redelivered());
    }
    assert_eq!(seen.gaps(), 0, "elements lost");
    segment.remove("elements").unwrap();
    drop(elements);
    segment.verify().unwrap();
    assert_eq!(segment.memory().unwrap().0, 0);
}
