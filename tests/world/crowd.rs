//! Two hundred threads in a few processes on every lock there is, in an order of their own.
//!
//! What is counted inside of a lock is counted twice: in two steps, which only exclusion keeps together, and in one. A victim may die
//! between both, so that each death may cost each lock one; nothing else may. Of what has no owner to come back from (a permit of
//! Python's semaphores, an event that is cleared and not set) victims keep off, and they are not among those counted as inside.

use crate::common;
use shmkit::{
    Barrier, BoundedSemaphore, Condition, Event, Lock, Mutex, Once, PermitSemaphore, RLock, RwLock, Semaphore,
};
use shmkit::{Error, Segment, SyncError, Value};
use std::time::Duration;

const THREADS: u32 = 40;
const PROCESSES: u32 = 5;
const ROUNDS: u32 = 50;
const PERMITS: u32 = 3;
const ONCES: u64 = 16;

/// Turns in a lock.
struct Turns {
    in_steps: Value<u64>,
    in_one: Value<u64>,
}

impl Turns {
    fn open(segment: &Segment, name: &str) -> Turns {
        let value = |part: &str| segment.value::<u64>(&format!("{name}-{part}")).open_or_create().unwrap();
        Turns { in_steps: value("in-steps"), in_one: value("in-one") }
    }

    /// By who has the lock.
    fn count(&self) {
        let before = self.in_steps.get().unwrap();
        let_others_run();
        self.in_steps.set(before + 1).unwrap();
        self.in_one.fetch_add(1);
    }

    fn check(&self, what: &str, victims: u32) {
        let counted = (self.in_steps.get().unwrap(), self.in_one.get().unwrap());
        check(what, counted, victims);
    }
}

/// Whoever could come in now would.
fn let_others_run() {
    std::thread::yield_now();
}

/// Every death may have come between the two.
fn check(what: &str, (in_steps, in_one): (u64, u64), victims: u32) {
    assert!(in_one > 0, "{what}: nobody came");
    let most = in_one + u64::from(victims);
    assert!((in_one..=most).contains(&in_steps), "{what}: {in_steps} turns in steps, {in_one} in one");
}

/// How many have a permit.
struct Inside(Value<u32>);

impl Inside {
    fn open(segment: &Segment, name: &str) -> Inside {
        Inside(segment.value(&format!("{name}-inside")).open_or_create().unwrap())
    }

    /// By who has a permit.
    fn come_and_go(&self) {
        let before = self.0.fetch_add(1);
        assert!(before < PERMITS, "{} with {PERMITS} permits", before + 1);
        let_others_run();
        self.0.fetch_sub(1);
    }
}

/// All of them, and what is counted in them.
struct Crowd {
    is_victim: bool,
    start: Barrier,
    end: Barrier,
    lock: Lock,
    locked: Turns,
    rlock: RLock,
    reentered: Turns,
    mutex: Mutex<[u64; 2]>,
    guarded: Value<u64>,
    rwlock: RwLock<[u64; 2]>,
    written: Value<u64>,
    semaphore: Semaphore,
    with_semaphore: Inside,
    bounded: BoundedSemaphore,
    with_bounded: Inside,
    permits: PermitSemaphore,
    with_permit: Inside,
    condition: Condition,
    met: Turns,
    gate: Lock,
    event: Event,
    passed: Turns,
    onces: Vec<(Once, Value<u64>)>,
    rounds: Value<u64>,
}

impl Crowd {
    fn open(segment: &Segment, is_victim: bool) -> Crowd {
        let value = |name: &str| segment.value::<u64>(name).open_or_create().unwrap();
        let (turns, inside) = (|name| Turns::open(segment, name), |name| Inside::open(segment, name));
        let once = |number: u64| {
            let name = format!("once-{number}");
            (segment.once(&name).open_or_create().unwrap(), value(&format!("{name}-runs")))
        };
        Crowd {
            is_victim,
            start: segment.barrier("start").parties(THREADS * PROCESSES).open_or_create().unwrap(),
            end: segment.barrier("end").parties(THREADS * PROCESSES).open_or_create().unwrap(),
            lock: segment.lock("lock").open_or_create().unwrap(),
            locked: turns("lock"),
            rlock: segment.rlock("rlock").open_or_create().unwrap(),
            reentered: turns("rlock"),
            mutex: segment.mutex("mutex").open_or_create().unwrap(),
            guarded: value("guarded"),
            rwlock: segment.rwlock("rwlock").open_or_create().unwrap(),
            written: value("written"),
            semaphore: segment.semaphore("semaphore").initial(PERMITS).open_or_create().unwrap(),
            with_semaphore: inside("semaphore"),
            bounded: segment.bounded_semaphore("bounded").initial(PERMITS).open_or_create().unwrap(),
            with_bounded: inside("bounded"),
            permits: segment.permit_semaphore("permits").permits(PERMITS).open_or_create().unwrap(),
            with_permit: inside("permits"),
            condition: segment.condition("condition").open_or_create().unwrap(),
            met: turns("condition"),
            gate: segment.lock("gate").open_or_create().unwrap(),
            event: segment.event("event").open_or_create().unwrap(),
            passed: turns("gate"),
            onces: (0..ONCES).map(once).collect(),
            rounds: value("rounds"),
        }
    }

    /// Uses one of them. Whatever a dead one left in the middle is repaired.
    fn round(&self, which: u64) {
        match which {
            0 => {
                let guard = self.lock.lock().or_else(|dead| dead.repair(|_| ())).unwrap();
                self.locked.count();
                drop(guard);
            }
            1 => {
                let outer = self.rlock.lock().or_else(|dead| dead.repair(|_| ())).unwrap();
                let inner = self.rlock.lock().unwrap();
                self.reentered.count();
                drop((inner, outer));
            }
            2 => {
                let mut pair = self.mutex.lock().or_else(|dead| dead.repair(|pair| pair[1] = pair[0])).unwrap();
                assert_eq!(pair[0], pair[1]);
                pair[0] += 1;
                let_others_run();
                pair[1] += 1;
                self.guarded.fetch_add(1);
            }
            3 => {
                let repaired = |dead: shmkit::sync::LockError<_>| dead.repair(|pair: &mut _| mend(pair));
                let mut pair = self.rwlock.write().or_else(repaired).unwrap();
                assert_eq!(pair[0], pair[1]);
                pair[0] += 1;
                let_others_run();
                pair[1] += 1;
                self.written.fetch_add(1);
            }
            4 => match self.rwlock.read() {
                Ok(pair) => assert_eq!(pair[0], pair[1]),
                Err(dead) => drop(dead.repair(|pair| mend(pair)).unwrap()),
            },
            5 if !self.is_victim => {
                let permit = self.semaphore.acquire().unwrap();
                self.with_semaphore.come_and_go();
                drop(permit);
            }
            6 if !self.is_victim => {
                let permit = self.bounded.acquire().unwrap();
                self.with_bounded.come_and_go();
                drop(permit);
            }
            7 => {
                let permit = self.permits.acquire().unwrap();
                assert!(self.permits.value() < PERMITS);
                if !self.is_victim {
                    self.with_permit.come_and_go();
                }
                drop(permit);
            }
            8 => self.meet(),
            9 if !self.is_victim => {
                // Cleared by one at a time, which sets it before it goes: so whoever waits comes through.
                let guard = self.gate.lock().unwrap();
                self.event.clear();
                assert!(!self.event.is_set());
                self.passed.count();
                self.event.set();
                assert!(self.event.is_set());
                drop(guard);
            }
            10 => self.event.wait().unwrap(),
            _ => {
                // All run for the same one.
                if let Some((once, runs)) = self.onces.iter().find(|(once, _)| !once.is_done()) {
                    once.call(|| _ = runs.fetch_add(1)).unwrap();
                    assert!(once.is_done() && runs.get().unwrap() > 0);
                }
            }
        }
        self.rounds.fetch_add(1);
    }

    /// Whoever finds others waiting wakes one and goes; whoever finds none waits a moment for such a one.
    fn meet(&self) {
        let guard = self.condition.lock().or_else(|dead| dead.repair(|_| ())).unwrap();
        self.met.count();
        if self.condition.waiting() > 0 {
            self.condition.notify(1).unwrap();
        } else {
            match self.condition.wait_timeout(Duration::from_millis(1)) {
                // The lock is held again in both cases; what it guards needs no repair.
                Ok(_) | Err(Error::Sync(SyncError::OwnerDied)) => self.met.count(),
                Err(error) => panic!("{error}"),
            }
        }
        drop(guard);
    }

    /// When everybody has gone.
    fn check(&self, victims: u32) {
        assert!(self.rounds.get().unwrap() >= u64::from(THREADS * PROCESSES * ROUNDS));
        self.locked.check("lock", victims);
        self.reentered.check("rlock", victims);
        self.met.check("condition", victims);
        self.passed.check("event", 0);
        let pair = *self.mutex.lock().or_else(|dead| dead.repair(|pair| pair[1] = pair[0])).unwrap();
        check("mutex", (pair[0], self.guarded.get().unwrap()), victims);
        let pair = *self.rwlock.write().or_else(|dead| dead.repair(|pair| mend(pair))).unwrap();
        check("rwlock", (pair[0], self.written.get().unwrap()), victims);
        for inside in [&self.with_semaphore, &self.with_bounded, &self.with_permit] {
            assert_eq!(inside.0.get().unwrap(), 0);
        }
        assert_eq!((self.semaphore.value(), self.bounded.value(), self.permits.value()), (PERMITS, PERMITS, PERMITS));
        assert!(self.bounded.release().is_err(), "a permit more than there are");
        for (once, runs) in &self.onces {
            once.call(|| _ = runs.fetch_add(1)).unwrap();
            let runs = runs.get().unwrap();
            // Who died in it, or just behind it, has it run again.
            assert!((1..=1 + u64::from(victims)).contains(&runs), "run {runs} times with {victims} deaths");
        }
    }
}

fn mend(pair: &mut shmkit::sync::RwLockWriteGuard<'_, [u64; 2]>) {
    pair[1] = pair[0];
}

/// Forty threads of one process.
pub fn of_a_crowd(arguments: &[String]) {
    // One that panics leaves nobody waiting for it.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        hook(panic);
        std::process::abort();
    }));
    let segment = Segment::open(&arguments[0]).unwrap();
    let (seed, is_victim): (u64, bool) = (arguments[1].parse().unwrap(), arguments[2] == "victim");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let segment = &segment;
            scope.spawn(move || {
                let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(thread + 1) << 17 | 1;
                let crowd = Crowd::open(segment, is_victim);
                if !is_victim {
                    crowd.start.wait().unwrap();
                }
                let mut round = 0;
                while is_victim || round < ROUNDS {
                    if is_victim && thread == 0 && round == 3 {
                        common::say("busy");
                    }
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    crowd.round(random % 12);
                    round += 1;
                }
                if !is_victim {
                    crowd.end.wait().unwrap();
                }
            });
        }
    });
    common::say("done");
}

fn crowded(victims: u32) {
    let segment = common::named("crowd");
    let crowd = Crowd::open(&segment, false);
    crowd.event.set();
    let seed = u64::from(std::process::id()) << 8 | u64::from(victims);
    println!("seed {seed}");
    let start =
        |n: u32, role: &str| common::start("of_a_crowd", &[&segment.name, &(seed + u64::from(n)).to_string(), role]);
    let mut children: Vec<_> = (0..PROCESSES).map(|n| start(n, "survivor")).collect();
    for n in 0..victims {
        let mut victim = start(100 + n, "victim");
        victim.expect("busy");
        victim.kill();
    }
    for child in &mut children {
        child.expect("done");
        child.succeeded();
    }
    common::until(|| segment.participants().len() == 1);
    segment.recover();
    crowd.check(victims);
    segment.verify().unwrap();
}

#[test]
fn two_hundred_threads_in_five_processes_share_every_lock() {
    crowded(0);
}

#[test]
fn two_hundred_threads_go_on_when_others_among_them_are_killed() {
    crowded(4);
}
