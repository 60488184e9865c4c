//! `hot-paths NAME COUNT` runs one hot path so many times: `cargo xtask instructions` counts its instructions.
//!
//! Both sides are this process and its one thread, so that the count is the same in every run.

use serde::{Deserialize, Serialize};
use shmkit::{Dict, Event, List, Mutex, PodQueue, Queue, Segment, Semaphore, Value};
use std::hint::black_box;
use std::process::ExitCode;

/// A small message.
#[derive(Clone, Serialize, Deserialize)]
struct Job {
    id: u32,
    weight: f64,
    place: (u16, u16),
}

/// What runs a path so many times.
type Path = fn(u64) -> shmkit::Result<()>;

/// Names and what they run.
const PATHS: &[(&str, Path)] = &[
    ("mutex lock+unlock", |count| {
        let mutex = Mutex::new_in(&segment()?, 0u64)?;
        for _ in 0..count {
            *mutex.lock()? += 1;
        }
        Ok(())
    }),
    ("pod queue put+get", |count| {
        let queue = PodQueue::<[u64; 8]>::new_in(&segment()?, 64)?;
        for number in 0..count {
            queue.put([number; 8])?;
            black_box(queue.get()?);
        }
        Ok(())
    }),
    ("queue put+get of a small struct", |count| {
        let queue = Queue::<Job>::bounded_in(&segment()?, 64)?;
        let job = Job { id: 70_000, weight: 0.5, place: (3, 400) };
        for _ in 0..count {
            queue.put_ref(&job)?;
            black_box(queue.get()?);
        }
        Ok(())
    }),
    ("queue put+get of a u64", |count| {
        let queue = Queue::<u64>::bounded_in(&segment()?, 64)?;
        for number in 0..count {
            queue.put(number)?;
            black_box(queue.get()?);
        }
        Ok(())
    }),
    ("pipe send+recv", |count| {
        let (sender, receiver) = shmkit::channel_in::<u64>(&segment()?, 64)?;
        for number in 0..count {
            sender.send(number)?;
            black_box(receiver.recv()?);
        }
        Ok(())
    }),
    ("value get", |count| {
        let value = Value::new_in(&segment()?, 7u64)?;
        for _ in 0..count {
            black_box(value.get()?);
        }
        Ok(())
    }),
    ("value set", |count| {
        let value = Value::new_in(&segment()?, 7u64)?;
        for number in 0..count {
            value.set(number)?;
        }
        Ok(())
    }),
    ("value get of 64 bytes", |count| {
        let value = Value::new_in(&segment()?, [7u64; 8])?;
        for _ in 0..count {
            black_box(value.get()?);
        }
        Ok(())
    }),
    ("dict get of a u64", |count| {
        let dict = Dict::<u64, u64>::new_in(&segment()?)?;
        (0..100).try_for_each(|key| dict.insert(&key, &key).map(drop))?;
        for number in 0..count {
            black_box(dict.get(&(number % 100))?);
        }
        Ok(())
    }),
    ("dict set of a u64", |count| {
        let dict = Dict::<u64, u64>::new_in(&segment()?)?;
        for number in 0..count {
            dict.insert(&(number % 100), &number)?;
        }
        Ok(())
    }),
    ("dict get of a text", |count| {
        let dict = Dict::<String, String>::new_in(&segment()?)?;
        dict.insert("a key of a dict", "and thirty-two bytes of a value!")?;
        for _ in 0..count {
            black_box(dict.get("a key of a dict")?);
        }
        Ok(())
    }),
    ("dict set of a text", |count| {
        let dict = Dict::<String, String>::new_in(&segment()?)?;
        for _ in 0..count {
            dict.insert("a key of a dict", "and thirty-two bytes of a value!")?;
        }
        Ok(())
    }),
    ("list get of a u64", |count| {
        let list = List::<u64>::new_in(&segment()?)?;
        list.extend(0..100)?;
        for number in 0..count {
            black_box(list.get((number % 100) as usize)?);
        }
        Ok(())
    }),
    ("list push+pop of a u64", |count| {
        let list = List::<u64>::new_in(&segment()?)?;
        list.extend(0..100)?;
        for number in 0..count {
            list.push(&number)?;
            black_box(list.pop()?);
        }
        Ok(())
    }),
    ("event is_set", |count| {
        let event = Event::new_in(&segment()?)?;
        for _ in 0..count {
            black_box(event.is_set());
        }
        Ok(())
    }),
    ("semaphore acquire+release", |count| {
        let semaphore = Semaphore::new_in(&segment()?, 1)?;
        for _ in 0..count {
            drop(semaphore.acquire()?);
        }
        Ok(())
    }),
];

fn segment() -> shmkit::Result<Segment> {
    Segment::builder().max_size(16 << 20).max_participants(8).anonymous("hot-paths")
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, count] = &words[..] else {
        for (name, _) in PATHS {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    };
    let (Some((_, run)), Ok(count)) = (PATHS.iter().find(|(known, _)| known == name), count.parse()) else {
        eprintln!("hot-paths [NAME COUNT]");
        return ExitCode::from(2);
    };
    match run(count) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
