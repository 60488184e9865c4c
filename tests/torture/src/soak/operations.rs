//! What is done with the objects of a soak: each operation checks what it sees.

use super::ledger::{Ledger, Seat};
use super::objects::{Inside, LONG, Objects, PERMITS, SHORT, Words, tolerated, whole, words};
use crate::chain;
use crate::operation::{Check, Fault, corrupt};
use crate::subjects::repaired;
use shmkit::data::FrozenDict;
use shmkit::sync::wait_any;
use shmkit::{
    ChannelError, Client, Error, Listener, LockError, Mutex, SegmentError, Semaphore, SharedMemory, SyncError,
};
use std::hint::black_box;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The names of the operations.
pub const NAMES: [&str; 40] = [
    "mutex",
    "rwlock write",
    "rwlock read",
    "lock",
    "rlock",
    "permits",
    "semaphore",
    "bounded",
    "event",
    "condition",
    "barrier",
    "value set",
    "value get",
    "array",
    "dict insert",
    "dict remove",
    "dict get",
    "list",
    "counter",
    "names",
    "shards",
    "frozen",
    "frozen dict",
    "shared memory",
    "heap",
    "short",
    "long",
    "growing",
    "pod",
    "loan",
    "tasks",
    "handles",
    "objects",
    "pipe send",
    "pipe receive",
    "once",
    "wait for any",
    "listen",
    "connect",
    "gc",
];

impl Objects {
    /// One of the operations, by whoever has `id` and sits on `seat`.
    pub fn operate(&self, operation: usize, random: u64, id: u64, ledger: &Ledger, seat: &Seat) -> Check {
        let key = random >> 8 & 31;
        match NAMES[operation] {
            "mutex" => count("mutex", &mut *in_time("mutex", self.mutex.lock_timeout(LONG), |data| mend(data))?, id),
            "rwlock write" => {
                let taken = self.rwlock.write_timeout(LONG);
                count("rwlock", &mut *in_time("rwlock", taken, |data| mend(data))?, id)
            }
            "rwlock read" => {
                let guard = match self.rwlock.read_timeout(LONG) {
                    Ok(guard) => guard,
                    Err(LockError::Failed(error)) => return Err(error.into()),
                    Err(dead) => dead.repair(|data| mend(data))?.downgrade()?,
                };
                if guard[0] != 0 || guard[1] != guard[2] {
                    return corrupt(format!("rwlock: read while {:?} is inside", *guard));
                }
                Ok(())
            }
            "lock" => {
                let _guard = in_time("lock", self.lock.lock_timeout(LONG), |_| self.inside[0].store(0))?;
                self.alone(0, id)
            }
            "rlock" => {
                let _outer = in_time("rlock", self.rlock.lock_timeout(LONG), |_| self.inside[1].store(0))?;
                let _inner = self.rlock.lock().map_err(Error::from)?;
                self.alone(1, id)
            }
            "permits" => {
                let permit = self.permits.acquire_timeout(LONG)?;
                if self.permits.value() > PERMITS - 1 {
                    return corrupt(format!("permits: {} are free while one is held", self.permits.value()));
                }
                drop(permit);
                Ok(())
            }
            // Permits without owner die with those who have them: this one is filled up again.
            "semaphore" => match self.semaphore.try_acquire() {
                Ok(permit) => {
                    drop(permit);
                    Ok(())
                }
                Err(_) => Ok(self.semaphore.release()?),
            },
            "bounded" => {
                match self.bounded.try_acquire() {
                    Ok(permit) => permit.forget(),
                    Err(_) => drop(self.bounded.release()),
                }
                match self.bounded.value() {
                    0..=4 => {
                        let _ = self.bounded.release();
                        Ok(())
                    }
                    value => corrupt(format!("bounded: {value} permits of 4")),
                }
            }
            "event" => {
                self.event.set();
                self.event.wait_timeout(SHORT)?;
                self.event.clear();
                Ok(())
            }
            "condition" => {
                let _guard = in_time("condition", self.condition.lock_timeout(LONG), |_| ())?;
                match random >> 8 & 3 {
                    0 => self.condition.notify(1).map(drop)?,
                    1 => self.condition.notify_all().map(drop)?,
                    _ => match self.condition.wait_timeout(SHORT) {
                        Ok(_) | Err(Error::Sync(SyncError::OwnerDied)) => {}
                        Err(error) => return Err(error.into()),
                    },
                }
                Ok(())
            }
            "barrier" => {
                if tolerated(self.barrier.wait_timeout(SHORT))?.is_none() {
                    self.barrier.reset();
                }
                Ok(())
            }
            "value set" => Ok(self.value.set([random; 6])?),
            "value get" => match self.value.get()? {
                found if found == [found[0]; 6] => Ok(()),
                found => corrupt(format!("value: torn: {found:?}")),
            },
            "array" => {
                let mut guard = in_time("array", self.array.lock_timeout(LONG), |guard| guard.fill(0))?;
                if guard.iter().any(|&word| word != guard[0]) {
                    return corrupt(format!("array: half written, and nobody said so: {:?}", &guard[..]));
                }
                guard.fill(random);
                Ok(())
            }
            "dict insert" => Ok(self.dict.insert(&key, &words(random)).map(drop)?),
            "dict remove" => Ok(self.dict.remove(&key).map(drop)?),
            "dict get" => match self.dict.get(&key)? {
                Some(found) => whole("dict", &found).map(drop),
                None => Ok(()),
            },
            "list" => self.change_list(random),
            "counter" => Ok(self.counter.add(1)?),
            "names" => {
                let name = ["one", "two", "three"][key as usize % 3];
                self.names.set(name, &words(random))?;
                self.names.get::<Words>(name)?.map_or(Ok(()), |found| whole("names", &found).map(drop))
            }
            "shards" => {
                self.shards.insert(&key, &words(random))?;
                self.shards.get(&(key ^ 1))?.map_or(Ok(()), |found| whole("shards", &found).map(drop))
            }
            "frozen" => {
                let name = ["ice", "snow", "hail"][key as usize % 3];
                let found = self.segment.frozen_array(name, &words(random)).open_or_create()?;
                whole("frozen", &found)?;
                if random >> 16 & 3 == 0 {
                    self.segment.remove(name)?;
                }
                // It outlives its name.
                whole("frozen", &found).map(drop)
            }
            "frozen dict" => {
                let items = (0..8).map(|n| (n, words(random ^ n)));
                let dict = FrozenDict::<u64, Words>::new_in(&self.segment, items)?;
                match dict.get(&(key & 7))? {
                    Some(found) if found == words(random ^ (key & 7)) => Ok(()),
                    found => corrupt(format!("frozen dict: {found:?}")),
                }
            }
            "shared memory" => self.share_memory(random),
            "heap" => self.change_heap(random),
            "short" => exchange(
                "short",
                random,
                ledger,
                seat,
                |n| self.short.put_timeout((n, !n), SHORT),
                || {
                    let message = self.short.get_message_timeout(SHORT)?;
                    Ok((message.value.0, message.value.1 == !message.value.0, message.redelivered))
                },
            ),
            "growing" => exchange(
                "growing",
                random,
                ledger,
                seat,
                |n| self.growing.try_put((n, !n)),
                || {
                    let message = self.growing.get_message_timeout(Duration::ZERO)?;
                    Ok((message.value.0, message.value.1 == !message.value.0, message.redelivered))
                },
            ),
            "long" => exchange(
                "long",
                random,
                ledger,
                seat,
                |n| self.long.put_timeout(vec![n; 9], SHORT),
                || {
                    let message = self.long.get_message_timeout(SHORT)?;
                    let n = message.value.first().copied().unwrap_or(u64::MAX);
                    Ok((n, message.value == [n; 9], message.redelivered))
                },
            ),
            "pod" => exchange(
                "pod",
                random,
                ledger,
                seat,
                |n| self.pod.put_timeout([n, !n], SHORT),
                || {
                    let received = self.pod.recv_timeout(SHORT)?;
                    Ok((received[0], received[1] == !received[0], received.redelivered()))
                },
            ),
            "loan" => {
                if let Some(mut loan) = tolerated(self.pod.try_loan())? {
                    *loan = [u64::MAX, 0];
                }
                Ok(())
            }
            "tasks" => exchange(
                "tasks",
                random,
                ledger,
                seat,
                |n| self.tasks.put_timeout((n, !n), SHORT),
                || {
                    let task = self.tasks.get_task_timeout(SHORT)?;
                    let found = (task.0, task.1 == !task.0, task.redelivered());
                    task.done()?;
                    Ok(found)
                },
            ),
            "handles" => self.pass_handles(random),
            "objects" => self.make_objects(random),
            "pipe send" => {
                let Some(sender) = taken(self.segment.channel("pipe").open_sender())? else { return Ok(()) };
                let Some(number) = ledger.send() else { return Ok(()) };
                if taken(sender.try_send([number, !number]))?.is_some() {
                    ledger.sent(number);
                }
                Ok(())
            }
            "pipe receive" => {
                let Some(receiver) = taken(self.segment.channel::<[u64; 2]>("pipe").open_receiver())? else {
                    return Ok(());
                };
                seat.receiving.store(1, Ordering::SeqCst);
                if let Some([number, check]) = taken(receiver.try_recv())? {
                    if check != !number {
                        return corrupt("pipe: a torn message");
                    }
                    ledger.received(number, 0, "pipe");
                }
                seat.receiving.store(0, Ordering::SeqCst);
                Ok(())
            }
            "once" => {
                let once = self.segment.once("once").open_or_create()?;
                once.call(|| self.event.set())?;
                if !once.wait_timeout(LONG)? || !once.is_done() {
                    return corrupt("once: it was done, and is not");
                }
                if key == 0 {
                    self.segment.remove("once")?;
                }
                Ok(())
            }
            "wait for any" => Ok(wait_any(&[&self.event, &self.semaphore], Some(SHORT)).map(drop)?),
            "listen" => {
                let listener = Listener::builder("meeting").segment(&self.segment).backlog(4).bind();
                let Some(listener) = taken(listener)? else { return Ok(()) };
                let Some(connection) = taken(listener.accept_timeout(SHORT))? else { return Ok(()) };
                match taken(connection.recv_timeout::<(u64, u64)>(SHORT))? {
                    Some((n, check)) if check != !n => corrupt("listen: a torn message"),
                    _ => Ok(()),
                }
            }
            "connect" => {
                let client = Client::builder("meeting").segment(&self.segment).timeout(SHORT);
                match taken(client.connect())? {
                    Some(connection) => taken(connection.send(&(random, !random))).map(drop),
                    None => Ok(()),
                }
            }
            _ => Ok(shmkit::segment::gc().map(drop)?),
        }
    }

    fn alone(&self, which: usize, id: u64) -> Check {
        match self.inside[which].load() {
            0 => {
                self.inside[which].store(id);
                self.counter.add(1)?;
                self.inside[which].store(0);
                Ok(())
            }
            other => corrupt(format!("the lock {which} is free although {other} is inside")),
        }
    }

    fn change_list(&self, random: u64) -> Check {
        let len = self.list.len();
        match random >> 8 & 7 {
            0 | 1 if len < 40 => self.list.push(&words(random))?,
            2 if len < 40 => drop(tolerated(self.list.insert(len / 2, &words(random)))?),
            3 => drop(tolerated(self.list.set(len / 2, &words(random)))?),
            4 => drop(tolerated(self.list.remove(len / 3))?),
            5 => self.list.reverse()?,
            6 => {
                for found in self.list.to_vec()? {
                    whole("list", &found)?;
                }
            }
            _ => {
                if let Some(found) = self.list.pop()? {
                    whole("list", &found)?;
                }
            }
        }
        Ok(())
    }

    /// A structure of one's own: boxes one behind the other, each whole.
    fn change_heap(&self, random: u64) -> Check {
        match random >> 8 & 3 {
            0 if self.heap.len() < 40 => chain::push::<4>(&self.heap, random)?,
            1 => chain::reverse::<4>(&self.heap)?,
            2 => drop(self.chain()?),
            _ => chain::pop::<4>(&self.heap)?,
        }
        Ok(())
    }

    /// What is in the heap, from the root on.
    pub(super) fn chain(&self) -> Check<Vec<u64>> {
        chain::all::<4>(&self.heap)
    }

    /// Bytes under names of their own, which come and go.
    fn share_memory(&self, random: u64) -> Check {
        const SIZE: usize = 10_000;
        let name = format!("{}-{}", self.segment.name().unwrap_or_default(), ["x", "y"][random as usize >> 8 & 1]);
        let missing = |result: shmkit::Result<SharedMemory>| match result {
            Ok(shared) => Ok(Some(shared)),
            Err(Error::Segment(SegmentError::Exists { .. } | SegmentError::NotFound { .. })) => Ok(None),
            Err(error) => Err(Fault::from(error)),
        };
        let shared = match missing(SharedMemory::open(&name))? {
            Some(shared) => shared,
            None => match missing(SharedMemory::create(Some(&name), SIZE))? {
                Some(shared) => shared,
                // Somebody else was quicker.
                None => return Ok(()),
            },
        };
        let place = random as usize >> 16 & 0x1FFF;
        shared.write(place, &[0xA5; 100])?;
        let found = shared.read(place, 100)?;
        if shared.size() != SIZE || found != [0xA5; 100] {
            return corrupt(format!("shared memory: {} bytes, {found:?}", shared.size()));
        }
        if shared.read(0, SIZE)?.iter().any(|&byte| byte != 0 && byte != 0xA5) {
            return corrupt("shared memory: what nobody has written");
        }
        if random >> 32 & 7 == 0 {
            missing(shared.unlink().map(|()| shared.clone())).map(drop)?;
        }
        Ok(())
    }

    /// Both ends of a connection, one of which travels, with an object that only the message keeps alive.
    fn pass_handles(&self, random: u64) -> Check {
        if random >> 8 & 1 == 0 {
            let (mine, theirs) = shmkit::channel::pipe_in(&self.segment, true)?;
            mine.send(&(random, !random))?;
            let semaphore = Semaphore::new_in(&self.segment, 7)?;
            tolerated(self.handles.put_timeout((theirs, semaphore), Duration::ZERO))?;
        } else if let Some((theirs, semaphore)) = tolerated(self.handles.get_timeout(Duration::ZERO))? {
            let (n, check): (u64, u64) = theirs.recv()?;
            if check != !n || semaphore.value() != 7 {
                return corrupt(format!("handles: {n}, {check}, {}", semaphore.value()));
            }
        }
        Ok(())
    }

    fn make_objects(&self, random: u64) -> Check {
        let name = ["a", "b", "c", "d"][random as usize >> 8 & 3];
        match random >> 16 & 3 {
            0 => drop(self.segment.remove(name)?),
            1 => {
                let large = Mutex::new_in(&self.segment, [random; 200])?;
                if large.lock().map_err(Error::from)?.iter().any(|&word| word != random) {
                    return corrupt("objects: two lie in one place");
                }
            }
            _ => {
                let thing = self.segment.mutex(name).initial([5u64; 8]).open_or_create()?;
                let guard = in_time(name, thing.lock_timeout(LONG), |_| ())?;
                if *guard != [5; 8] {
                    return corrupt(format!("objects: half an object: {:?}", *guard));
                }
            }
        }
        Ok(())
    }
}

/// The same where an end, a name or a peer may be missing.
fn taken<T>(result: shmkit::Result<T>) -> Check<Option<T>> {
    match result {
        Err(Error::Channel(
            ChannelError::EndTaken { .. }
            | ChannelError::NameInUse { .. }
            | ChannelError::Refused { .. }
            | ChannelError::Closed { .. }
            | ChannelError::EndOfFile
            | ChannelError::BrokenPipe,
        )) => Ok(None),
        result => tolerated(result),
    }
}

/// A lock that must come in time.
fn in_time<G>(what: &str, taken: Result<G, LockError<G>>, mend: impl FnOnce(&mut G)) -> Check<G>
where
    G: shmkit::sync::Unlocked,
{
    match repaired(taken, mend) {
        Ok((guard, _)) => Ok(guard),
        Err(fault) => Err(Fault { what: format!("{what}: {}", fault.what), ..fault }),
    }
}

fn mend(data: &mut Inside) {
    let count = data[1].max(data[2]);
    *data = [0, count, count];
}

fn count(what: &str, data: &mut Inside, id: u64) -> Check {
    if data[0] != 0 || data[1] != data[2] {
        return corrupt(format!("{what}: taken while {data:?} is inside, and nobody said that the owner died"));
    }
    data[0] = id;
    black_box(&mut *data)[1] += 1;
    black_box(&mut *data)[2] += 1;
    black_box(&mut *data)[0] = 0;
    Ok(())
}

/// Sends a message, or receives one.
fn exchange(
    what: &str,
    random: u64,
    ledger: &Ledger,
    seat: &Seat,
    put: impl FnOnce(u64) -> shmkit::Result<()>,
    get: impl FnOnce() -> shmkit::Result<(u64, bool, u32)>,
) -> Check {
    if random >> 8 & 1 == 0 {
        let Some(number) = ledger.send() else { return Ok(()) };
        if tolerated(put(number))?.is_some() {
            ledger.sent(number);
        }
        return Ok(());
    }
    seat.receiving.store(1, Ordering::SeqCst);
    if let Some((number, is_whole, redelivered)) = tolerated(get())? {
        if !is_whole {
            return corrupt(format!("{what}: a torn message"));
        }
        ledger.received(number, redelivered, what);
    }
    seat.receiving.store(0, Ordering::SeqCst);
    Ok(())
}
