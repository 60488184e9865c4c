//! A tour of shmkit in some sections, each of which does one thing with real processes and checks what came of it.
//!
//! `cargo run --release --example tour`

use serde::{Deserialize, Serialize};
use shmkit::{
    Array, Connection, Dict, Error, Event, List, Lock, Mutex, Pool, Process, Queue, RLock, Run, Semaphore, Value, pipe,
};
use std::time::{Duration, Instant};

type Checked = Result<(), Error>;
type Section = (&'static str, fn() -> Checked);

/// An error unless `holds`.
fn check(holds: bool, what: &str) -> Checked {
    if holds { Ok(()) } else { Err(Error::Other(format!("this does not hold: {what}"))) }
}

// ---- processes -----------------------------------------------------------------------------------------------------

fn greet(name: String, child_pid: Value<u32>) -> shmkit::Result<()> {
    println!("    hello {name}, says process {} (pid {})", shmkit::current_process().name(), std::process::id());
    child_pid.set(std::process::id())
}

fn create_a_process() -> Checked {
    let pid = Value::new(0u32)?;
    let child = Process::new(greet).args(("world".to_owned(), pid.clone())).name("greeter").start()?;
    let status = child.join()?;
    println!("    {:?} ended with {status}", child.name());
    check(status.success() && pid.get()? == child.pid(), "the child ran in a process of its own")
}

/// A process as a type.
#[derive(Serialize, Deserialize)]
struct Countdown {
    from: u32,
    heard: Queue<u32>,
}

impl Run for Countdown {
    type Outcome = shmkit::Result<()>;

    fn run(self) -> shmkit::Result<()> {
        (0..=self.from).rev().try_for_each(|number| self.heard.put(number))
    }
}

fn a_struct_with_a_run_method() -> Checked {
    let heard = Queue::bounded(8)?;
    let child = Process::of(Countdown { from: 3, heard: heard.clone() }).start()?;
    check(child.join()?.success(), "the countdown ended well")?;
    let numbers = heard.get_many(8)?.into_iter().collect::<Result<Vec<_>, _>>()?;
    println!("    {} counted {numbers:?}", child.name());
    check(numbers == [3, 2, 1, 0], "all numbers arrived in order")
}

fn many_processes() -> Checked {
    let start = Instant::now();
    let children =
        (0..16).map(|number| Process::new(|code: i32| code).args((number,)).start()).collect::<Result<Vec<_>, _>>()?;
    for (number, child) in (0..).zip(&children) {
        check(child.join()?.exit_code() == Some(number), "each child has its own exit code")?;
    }
    println!("    {} processes started and joined in {:.0?}", children.len(), start.elapsed());
    check(shmkit::active_children().is_empty(), "nobody is left")
}

// ---- pools ---------------------------------------------------------------------------------------------------------

/// How many steps the Collatz sequence of `n` takes.
fn collatz(mut n: u64) -> u32 {
    let mut steps = 0;
    while n != 1 {
        n = if n.is_multiple_of(2) { n / 2 } else { 3 * n + 1 };
        steps += 1;
    }
    steps
}

fn longest(range: (u64, u64)) -> (u32, u64) {
    (range.0..range.1).map(|n| (collatz(n), n)).max().unwrap_or_default()
}

fn a_pool_serial_and_parallel() -> Checked {
    let ranges: Vec<_> = (0..64).map(|i| (1 + i * 20_000, 1 + (i + 1) * 20_000)).collect();
    let start = Instant::now();
    let alone = ranges.iter().map(|&range| longest(range)).max();
    let serial = start.elapsed();
    let pool = Pool::new(shmkit::cpu_count())?;
    let start = Instant::now();
    let together = pool.map(longest, ranges)?.into_iter().max();
    let parallel = start.elapsed();
    println!(
        "    longest Collatz sequence below 1,280,000: {together:?}; one process {serial:.0?}, {} workers {parallel:.0?}",
        pool.workers()
    );
    check(alone == together, "the pool finds what one process finds")
}

// ---- locks ---------------------------------------------------------------------------------------------------------

fn add_under_lock(lock: Lock, counter: Value<u64>, rounds: u64) -> shmkit::Result<()> {
    for _ in 0..rounds {
        let _guard = lock.lock()?;
        // Read, then write: only the lock makes this right.
        counter.set(counter.get()? + 1)?;
    }
    Ok(())
}

fn locks_and_reentrant_locks() -> Checked {
    let (lock, counter) = (Lock::new()?, Value::new(0u64)?);
    let children = (0..4)
        .map(|_| Process::new(add_under_lock).args((lock.clone(), counter.clone(), 10_000)).start())
        .collect::<Result<Vec<_>, _>>()?;
    for child in children {
        child.join()?.check()?;
    }
    println!("    four processes added one 10,000 times each: {}", counter.get()?);
    check(counter.get()? == 40_000, "no addition was lost")?;
    let again = RLock::new()?;
    let outer = again.lock()?;
    let inner = again.lock()?;
    println!("    a re-entrant lock is held {} times", again.depth()?);
    check(again.depth()? == 2, "its owner may take it again")?;
    drop((inner, outer));
    check(!again.is_locked(), "it is free after as many releases")
}

fn an_event() -> Checked {
    let (go, done) = (Event::new()?, Event::new()?);
    let wait = |go: Event, done: Event| -> shmkit::Result<()> {
        go.wait()?;
        done.set();
        Ok(())
    };
    let child = Process::new(wait).args((go.clone(), done.clone())).start()?;
    check(!done.wait_timeout(Duration::from_millis(20))?, "the child waits")?;
    go.set();
    done.wait()?;
    println!("    the child waited for the event, then answered with another");
    child.join()?.check()
}

fn permits_at_work(permits: Semaphore, log: Queue<u32>) -> shmkit::Result<()> {
    log.put(permits.value())?;
    permits.release()?;
    log.put(permits.value())
}

fn a_semaphore() -> Checked {
    let (permits, log) = (Semaphore::new(3)?, Queue::bounded(8)?);
    let permit = permits.acquire()?;
    log.put(permits.value())?;
    drop(permit);
    log.put(permits.value())?;
    Process::new(permits_at_work).args((permits.clone(), log.clone())).start()?.join()?.check()?;
    let counts = log.get_many(8)?.into_iter().collect::<Result<Vec<_>, _>>()?;
    println!("    permits: {counts:?}");
    check(counts == [2, 3, 3, 4], "the counts are 2 3 3 4")
}

// ---- messages ------------------------------------------------------------------------------------------------------

fn answer(connection: Connection) -> shmkit::Result<()> {
    loop {
        match connection.recv::<String>() {
            Ok(text) => connection.send(&text.chars().rev().collect::<String>())?,
            // The other end is closed.
            Err(Error::Channel(shmkit::ChannelError::EndOfFile)) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn a_pipe_both_ways() -> Checked {
    let (mine, other) = pipe(true)?;
    let child = Process::new(answer).args((other,)).start()?;
    for word in ["drawer", "stressed"] {
        mine.send(word)?;
        let back: String = mine.recv()?;
        println!("    {word} → {back}");
        check(back.chars().rev().eq(word.chars()), "the answer is the word reversed")?;
    }
    drop(mine);
    child.join()?.check()
}

#[derive(Serialize, Deserialize)]
struct Order {
    id: u32,
    item: String,
}

fn produce(orders: Queue<Order>, count: u32) -> shmkit::Result<()> {
    (0..count).try_for_each(|id| orders.put(Order { id, item: format!("item-{}", id % 7) }))
}

fn consume(orders: Queue<Order>, total: Value<u64>) -> shmkit::Result<()> {
    for order in orders.iter() {
        let Order { id, item } = order?;
        check(item.ends_with(&(id % 7).to_string()), "the order is whole")?;
        total.fetch_add(1);
    }
    Ok(())
}

fn a_queue_between_producers_and_consumers() -> Checked {
    let (orders, total) = (Queue::bounded(64)?, Value::new(0u64)?);
    let consumer = Process::new(consume).args((orders.clone(), total.clone())).start()?;
    let producers =
        (0..2).map(|_| Process::new(produce).args((orders.clone(), 5_000)).start()).collect::<Result<Vec<_>, _>>()?;
    for producer in producers {
        producer.join()?.check()?;
    }
    orders.close();
    consumer.join()?.check()?;
    println!("    two producers sent, one consumer received {} orders", total.get()?);
    check(total.get()? == 10_000, "each order was received once")
}

// ---- shared data ---------------------------------------------------------------------------------------------------

fn square_mine(numbers: Array<f64>, from: usize, to: usize, sum: Value<f64>) -> shmkit::Result<()> {
    let squares: Vec<f64> = numbers.read(from..to)?.into_iter().map(|x| x * x).collect();
    numbers.write(from, &squares)?;
    sum.fetch_add(squares.iter().sum());
    Ok(())
}

fn a_shared_value_and_array() -> Checked {
    const LEN: usize = 1000;
    let numbers = Array::from_slice(&(0..LEN).map(|x| x as f64).collect::<Vec<_>>())?;
    let sum = Value::new(0.0)?;
    let children = [(0, LEN / 2), (LEN / 2, LEN)]
        .map(|(from, to)| Process::new(square_mine).args((numbers.clone(), from, to, sum.clone())).start());
    for child in children {
        child?.join()?.check()?;
    }
    let expected = (LEN - 1) * LEN * (2 * LEN - 1) / 6;
    println!("    two processes squared the halves of an array: sum {}", sum.get()?);
    check(numbers.get(31)? == 961.0 && sum.get()? == expected as f64, "the sum of the squares is right")
}

fn visit(ages: Dict<String, u32>, visitors: List<String>, name: String) -> shmkit::Result<()> {
    ages.update(&name, |age| *age.get_or_insert(30) += 1)?;
    visitors.push(&name)
}

fn a_shared_dict_and_list() -> Checked {
    let (ages, visitors) = (Dict::<String, u32>::new()?, List::<String>::new()?);
    ages.insert("Ada", &36)?;
    let children = ["Ada", "Grace", "Ada", "Edsger"]
        .map(|name| Process::new(visit).args((ages.clone(), visitors.clone(), name.to_owned())).start());
    for child in children {
        child?.join()?.check()?;
    }
    visitors.sort()?;
    println!("    four processes left {:?} in a dict and {:?} in a list", ages.items()?, visitors.to_vec()?);
    check(ages.get("Ada")? == Some(38) && ages.get("Edsger")? == Some(31), "no change of the dict was lost")?;
    check(visitors.to_vec()? == ["Ada", "Ada", "Edsger", "Grace"], "everybody is in the list")?;
    // A dict in a dict: the inner one lives as long as it can be reached.
    let rooms = Dict::<String, Dict<String, u32>>::new()?;
    rooms.insert("library", &ages)?;
    drop(ages);
    let ages = rooms.pop("library")?.ok_or_else(|| Error::Other("the dict in the dict is gone".to_owned()))?;
    check(ages.len() == 3, "the handle in the dict kept it alive")
}

fn die_inside(account: Mutex<[i64; 2]>, inside: Event) -> shmkit::Result<()> {
    let mut balances = account.lock()?;
    balances[0] -= 100;
    inside.set();
    // Killed here: the money has left one account and not reached the other.
    loop {
        std::thread::park();
    }
}

fn a_child_killed_while_it_holds_a_lock() -> Checked {
    let (account, inside) = (Mutex::new([500i64, 500])?, Event::new()?);
    let child = Process::new(die_inside).args((account.clone(), inside.clone())).start()?;
    inside.wait()?;
    child.kill()?;
    let status = child.join()?;
    let start = Instant::now();
    let balances = match account.lock() {
        Ok(_) => return Err(Error::Other("nobody said that the owner died".to_owned())),
        Err(dead) => dead.repair(|balances| balances[1] = 1000 - balances[0])?,
    };
    println!(
        "    exit code {:?}; the lock was ours after {:.1?}, repaired: {:?}",
        status.exit_code(),
        start.elapsed(),
        *balances
    );
    check(status.exit_code() == Some(-9) && *balances == [400, 600], "no money is lost")
}

fn a_worker_killed_in_the_middle_of_a_task() -> Checked {
    let pool = Pool::new(2)?;
    let mut results = pool.imap(
        |n: u32| {
            if n == 5 {
                // SAFETY: raise has no preconditions.
                unsafe { libc::raise(libc::SIGKILL) };
            }
            n * n
        },
        0..10,
    );
    let mut failed = Vec::new();
    for n in 0..10 {
        match results.next().expect("as many results as items") {
            Ok(square) => check(square == n * n, "the others have their results")?,
            Err(error) => {
                println!("    {error}");
                failed.push(n);
            }
        }
    }
    check(failed == [5], "only the task of the dead worker failed")
}

#[shmkit::main]
fn main() -> shmkit::Result<()> {
    let sections: &[Section] = &[
        ("creating a process", create_a_process),
        ("a struct with a run method", a_struct_with_a_run_method),
        ("many processes", many_processes),
        ("a pool, serial and parallel", a_pool_serial_and_parallel),
        ("locks and re-entrant locks", locks_and_reentrant_locks),
        ("an event", an_event),
        ("a semaphore", a_semaphore),
        ("a pipe both ways", a_pipe_both_ways),
        ("a queue between producers and a consumer", a_queue_between_producers_and_consumers),
        ("a shared value and a shared array", a_shared_value_and_array),
        ("a shared dict and a shared list", a_shared_dict_and_list),
        ("a child killed while it holds a lock", a_child_killed_while_it_holds_a_lock),
        ("a worker killed in the middle of a task", a_worker_killed_in_the_middle_of_a_task),
    ];
    let start = Instant::now();
    let mut good = 0;
    for (number, (title, section)) in sections.iter().enumerate() {
        println!("{:2}. {title}", number + 1);
        match section() {
            Ok(()) => good += 1,
            Err(error) => println!("    FAILED: {error}"),
        }
    }
    println!("that took {:.1?}", start.elapsed());
    println!("tour: {good} of {} sections ok", sections.len());
    if good == sections.len() { Ok(()) } else { Err(Error::Other("some sections failed".to_owned())) }
}
