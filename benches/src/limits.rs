//! What the machine can do at best: each is the least code that does the job, without names, checks, waiting or safety.

use crate::Result;
use crate::drivers::{BATCH, Rx, Side, Tx, latencies, one_way, round_trip};
use crate::payload::{Payload, capacity};
use crate::stage::{Line, Stage};
use std::ffi::CStr;
use std::hint::spin_loop;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

// ---- one cache line ---------------------------------------------------------------------------------------------------

/// A number that goes from one CPU to the other and back, each way in a cache line of its own.
///
/// # Errors
/// None but the stage's.
pub fn line(stage: &Stage) -> Result {
    // SAFETY: scratch memory, zeroed, aligned, and used as this by both roles.
    let lines = unsafe { &*stage.scratch().cast::<[Line<AtomicU64>; 2]>() };
    let (there, back) = (&lines[0].0, &lines[1].0);
    let n = stage.n + 100;
    stage.barrier()?;
    if stage.role == 1 {
        for number in 1..=2 * n {
            while there.load(Ordering::Acquire) != number {}
            back.store(number, Ordering::Release);
        }
        return stage.barrier();
    }
    let trip = |number| {
        there.store(number, Ordering::Release);
        while back.load(Ordering::Acquire) != number {}
    };
    (1..=100).for_each(trip);
    let start = Instant::now();
    (101..=n).for_each(trip);
    stage.publish(start.elapsed().as_nanos() as f64 / stage.n as f64);
    let mut histogram = latencies();
    for number in n + 1..=2 * n {
        let start = Instant::now();
        trip(number);
        let _ = histogram.record(start.elapsed().as_nanos() as u64);
    }
    stage.publish_latencies(&histogram);
    stage.barrier()
}

// ---- futex ------------------------------------------------------------------------------------------------------------

fn futex_wait(word: &AtomicU32, expected: u32) {
    // SAFETY: the word is shared memory; no time-out is given.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, 0) };
}

/// As [`futex_wait`], for 50 ms at most.
fn futex_wait_in_slices(word: &AtomicU32, expected: u32) {
    let slice = libc::timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    // SAFETY: the word is shared memory; the time-out is this function's.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, &raw const slice) };
}

fn futex_wake(word: &AtomicU32) {
    // SAFETY: the word is shared memory.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}

/// Two processes that sleep for each other in turn, on two CPUs.
///
/// # Errors
/// None but the stage's.
pub fn futex(stage: &Stage) -> Result {
    sleep_in_turn(stage, futex_wait)
}

fn sleep_in_turn(stage: &Stage, wait: fn(&AtomicU32, u32)) -> Result {
    // SAFETY: scratch memory, zeroed, aligned, and used as this by both roles.
    let words = unsafe { &*stage.scratch().cast::<[Line<AtomicU32>; 2]>() };
    let (mine, other) = (&words[stage.role].0, &words[1 - stage.role].0);
    let await_number = |number| {
        loop {
            let seen = mine.load(Ordering::Acquire);
            if seen == number {
                return;
            }
            wait(mine, seen);
        }
    };
    let send = |number| {
        other.store(number, Ordering::SeqCst);
        futex_wake(other);
    };
    let n = stage.n as u32;
    stage.barrier()?;
    if stage.role == 1 {
        for number in 1..=2 * n {
            await_number(number);
            send(number);
        }
        return stage.barrier();
    }
    let start = Instant::now();
    for number in 1..=n {
        send(number);
        await_number(number);
    }
    stage.publish(start.elapsed().as_nanos() as f64 / stage.n as f64);
    let mut histogram = latencies();
    for number in n + 1..=2 * n {
        let start = Instant::now();
        send(number);
        await_number(number);
        let _ = histogram.record(start.elapsed().as_nanos() as u64);
    }
    stage.publish_latencies(&histogram);
    stage.barrier()
}

/// As [`futex`], both on one CPU.
///
/// # Errors
/// None but the stage's.
pub fn futex_one_cpu(stage: &Stage) -> Result {
    crate::stage::pin(0)?;
    futex(stage)
}

/// As [`futex_one_cpu`], with sleeps that end after 50 ms: what whoever must find out about deaths does.
///
/// # Errors
/// None but the stage's.
pub fn futex_in_slices_one_cpu(stage: &Stage) -> Result {
    crate::stage::pin(0)?;
    sleep_in_turn(stage, futex_wait_in_slices)
}

// ---- the minimal ring ---------------------------------------------------------------------------------------------------

#[repr(C)]
struct Ring {
    tail: Line<AtomicU64>,
    head: Line<AtomicU64>,
}

/// One end of a ring of one sender and one receiver, which spin: a position of its own, and the other's as last seen.
pub struct RingEnd<P> {
    ring: *const Ring,
    payloads: *mut P,
    mask: u64,
    position: u64,
    seen: u64,
    _payload: PhantomData<P>,
}

/// Bytes from one ring in the scratch memory to the next.
const RING: usize = 24 << 20;

impl<P: Payload> RingEnd<P> {
    /// One end of the ring number `number` in the scratch memory.
    pub fn new(stage: &Stage, number: usize) -> RingEnd<P> {
        let room = capacity::<P>().next_power_of_two();
        assert!(size_of::<Ring>() + room * size_of::<P>() <= RING);
        let start = stage.scratch().wrapping_add(number * RING);
        let payloads = start.wrapping_add(size_of::<Ring>()).cast();
        RingEnd { ring: start.cast(), payloads, mask: room as u64 - 1, position: 0, seen: 0, _payload: PhantomData }
    }

    #[inline]
    fn ring(&self) -> &Ring {
        // SAFETY: scratch memory, zeroed, aligned, mapped while the stage lives, which is longer than its drivers run.
        unsafe { &*self.ring }
    }

    #[inline]
    fn payload(&self) -> *mut P {
        self.payloads.wrapping_add((self.position & self.mask) as usize)
    }
}

impl<P: Payload> Tx<P> for RingEnd<P> {
    #[inline]
    fn send(&mut self, sequence: u64) -> Result {
        while self.position - self.seen > self.mask {
            self.seen = self.ring().head.0.load(Ordering::Acquire);
            if self.position - self.seen > self.mask {
                spin_loop();
            }
        }
        // SAFETY: the place is the sender's until the tail goes up.
        unsafe { &mut *self.payload() }.fill(sequence);
        self.position += 1;
        self.ring().tail.0.store(self.position, Ordering::Release);
        Ok(())
    }
}

impl<P: Payload> Rx<P> for RingEnd<P> {
    #[inline]
    fn recv(&mut self) -> Result<u64> {
        while self.position == self.seen {
            self.seen = self.ring().tail.0.load(Ordering::Acquire);
            if self.position == self.seen {
                spin_loop();
            }
        }
        // SAFETY: the place is the receiver's until the head goes up.
        let digest = unsafe { &*self.payload() }.digest();
        self.position += 1;
        self.ring().head.0.store(self.position, Ordering::Release);
        Ok(digest)
    }
}

/// Round trips over two minimal rings.
///
/// # Errors
/// If a message arrives otherwise than it was sent.
pub fn ring_round_trip<P: Payload>(stage: &Stage) -> Result {
    let (mut tx, mut rx) = (RingEnd::<P>::new(stage, stage.role), RingEnd::<P>::new(stage, 1 - stage.role));
    round_trip::<P>(stage, &mut tx, &mut rx)
}

/// One way over a minimal ring.
///
/// # Errors
/// If a message arrives otherwise than it was sent.
pub fn ring_one_way<P: Payload>(stage: &Stage) -> Result {
    let end = RingEnd::<P>::new(stage, 0);
    one_way::<P, _, _>(stage, if stage.role == 0 { Side::Sends(end) } else { Side::Receives(end) })
}

/// An end of a minimal ring that moves its position once a batch, which is copied to or from a buffer of its own: a copy of many
/// elements writes whole cache lines, and has several of them under way.
struct RingBatches<P> {
    end: RingEnd<P>,
    batch: Vec<P>,
}

impl<P: Payload> RingBatches<P> {
    fn new(end: RingEnd<P>) -> RingBatches<P> {
        RingBatches { end, batch: vec![P::zeroed(); BATCH] }
    }

    /// Places in a row of the ring from its position on, of `count` that are wanted.
    fn in_a_row(&self, count: usize) -> usize {
        count.min((self.end.mask + 1 - (self.end.position & self.end.mask)) as usize)
    }
}

impl<P: Payload> Tx<P> for RingBatches<P> {
    fn send(&mut self, sequence: u64) -> Result {
        self.send_all(sequence..sequence + 1)
    }

    fn send_all(&mut self, mut numbers: Range<u64>) -> Result {
        while !numbers.is_empty() {
            let count = BATCH.min((numbers.end - numbers.start) as usize);
            for (element, sequence) in self.batch.iter_mut().zip(numbers.by_ref().take(count)) {
                element.fill(sequence);
            }
            let mut sent = 0;
            while sent < count {
                let run = self.in_a_row(count - sent);
                while self.end.position + run as u64 - self.end.seen > self.end.mask + 1 {
                    spin_loop();
                    self.end.seen = self.end.ring().head.0.load(Ordering::Acquire);
                }
                // SAFETY: these places are in a row, and the sender's until the tail goes up.
                unsafe { self.end.payload().copy_from_nonoverlapping(self.batch[sent..].as_ptr(), run) };
                self.end.position += run as u64;
                self.end.ring().tail.0.store(self.end.position, Ordering::Release);
                sent += run;
            }
        }
        Ok(())
    }
}

impl<P: Payload> Rx<P> for RingBatches<P> {
    fn recv(&mut self) -> Result<u64> {
        self.recv_all(1)
    }

    fn recv_all(&mut self, mut count: u64) -> Result<u64> {
        let mut sum = 0u64;
        while count > 0 {
            while self.end.position == self.end.seen {
                spin_loop();
                self.end.seen = self.end.ring().tail.0.load(Ordering::Acquire);
            }
            let ready = (self.end.seen - self.end.position).min(BATCH as u64).min(count);
            let got = self.in_a_row(ready as usize);
            // SAFETY: these places are in a row, and the receiver's until the head goes up.
            unsafe { self.end.payload().copy_to_nonoverlapping(self.batch.as_mut_ptr(), got) };
            self.end.position += got as u64;
            self.end.ring().head.0.store(self.end.position, Ordering::Release);
            sum = self.batch[..got].iter().fold(sum, |sum, element| sum.wrapping_add(element.digest()));
            count -= got as u64;
        }
        Ok(sum)
    }
}

/// One way over a minimal ring, in batches.
///
/// # Errors
/// If a message arrives otherwise than it was sent.
pub fn ring_one_way_in_batches<P: Payload>(stage: &Stage) -> Result {
    let end = RingBatches::new(RingEnd::<P>::new(stage, 0));
    one_way::<P, _, _>(stage, if stage.role == 0 { Side::Sends(end) } else { Side::Receives(end) })
}

// ---- memory -------------------------------------------------------------------------------------------------------------

/// Copies of one buffer to another in one process, which lie in its cache where they fit: publishes gigabytes a second.
///
/// # Errors
/// If the copy differs.
pub fn memcpy<P: Payload>(stage: &Stage) -> Result {
    let mut source = crate::payload::zeroed::<P>();
    let mut target = crate::payload::zeroed::<P>();
    source.fill(7);
    let start = Instant::now();
    for _ in 0..stage.n {
        // The compiler is to know neither what is copied nor that nobody looks.
        std::hint::black_box(&mut *target).clone_from(std::hint::black_box(&*source));
    }
    let elapsed = start.elapsed();
    if target.digest() != P::expected(7) {
        return Err("the copy differs".into());
    }
    stage.publish((stage.n as usize * size_of::<P>()) as f64 / elapsed.as_nanos() as f64);
    Ok(())
}

// ---- locks ----------------------------------------------------------------------------------------------------------------

/// What is locked and unlocked: by a minimal futex mutex (Drepper's second one), shmkit's, or anybody's.
pub trait Locks {
    /// Runs `inside` with the lock held.
    ///
    /// # Errors
    /// The contestant's own.
    fn with(&self, inside: impl FnOnce()) -> Result;
}

/// 0 free, 1 held, 2 held and waited for.
pub struct FutexMutex<'a>(pub &'a AtomicU32);

impl Locks for FutexMutex<'_> {
    #[inline]
    fn with(&self, inside: impl FnOnce()) -> Result {
        if self.0.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.lock_slow();
        }
        inside();
        if self.0.swap(0, Ordering::Release) == 2 {
            futex_wake(self.0);
        }
        Ok(())
    }
}

impl FutexMutex<'_> {
    #[cold]
    fn lock_slow(&self) {
        for _ in 0..100 {
            if self.0.load(Ordering::Relaxed) == 0
                && self.0.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return;
            }
            spin_loop();
        }
        while self.0.swap(2, Ordering::Acquire) != 0 {
            futex_wait(self.0, 2);
        }
    }
}

/// The counter that locks guard: a plain number on a cache line of its own, so that a lock that does not lock is found out.
fn counter(stage: &Stage) -> *mut u64 {
    stage.scratch().wrapping_add(4096).cast()
}

/// Locks and unlocks without a rival: nanoseconds for both.
///
/// # Errors
/// The contestant's.
pub fn uncontended(stage: &Stage, lock: &impl Locks) -> Result {
    let counter = counter(stage);
    // SAFETY: scratch memory, under the lock.
    let inside = || unsafe { counter.write_volatile(counter.read_volatile() + 1) };
    for _ in 0..1000 {
        lock.with(inside)?;
    }
    let start = Instant::now();
    for _ in 0..stage.n {
        lock.with(inside)?;
    }
    stage.publish(start.elapsed().as_nanos() as f64 / stage.n as f64);
    // SAFETY: as above.
    if unsafe { counter.read_volatile() } != stage.n + 1000 {
        return Err("the lock did not lock".into());
    }
    Ok(())
}

/// The variable that tells the processes of a measurement how long the gap is: the same for all contestants of a run.
pub(crate) const GAP: &str = "SHMKIT_BENCH_GAP";

/// What a process does between two uses of a lock: so many steps, without a clock.
#[inline]
fn gap(steps: u64) {
    for step in 0..steps {
        std::hint::black_box(step);
    }
}

/// How many steps of the gap take 100 ns on this machine, by the clock. The fastest of many trials counts: what disturbs one makes
/// it slower.
pub fn gap_steps() -> u64 {
    const STEPS: u64 = 10_000;
    let trial = || {
        let start = Instant::now();
        gap(std::hint::black_box(STEPS));
        start.elapsed().as_nanos() as f64
    };
    let least = (0..500).map(|_| trial()).fold(f64::INFINITY, f64::min).max(1.0);
    (100.0 * STEPS as f64 / least).round() as u64
}

/// Both processes lock, count and unlock, with a gap of work in between: millions of locks a second, of both together.
///
/// # Errors
/// The contestant's, and if the count is wrong.
pub fn contended(stage: &Stage, lock: &impl Locks) -> Result {
    let counter = counter(stage);
    let steps = std::env::var(GAP).ok().and_then(|steps| steps.parse().ok()).unwrap_or_else(gap_steps);
    // SAFETY: scratch memory, under the lock.
    let inside = || unsafe { counter.write_volatile(counter.read_volatile() + 1) };
    for count in [1000, stage.n] {
        stage.barrier()?;
        let start = Instant::now();
        for _ in 0..count {
            lock.with(inside)?;
            gap(steps);
        }
        stage.barrier()?;
        let elapsed = start.elapsed();
        // SAFETY: behind the barrier nobody writes.
        if stage.role == 0 {
            stage.publish((stage.roles as u64 * count) as f64 / elapsed.as_secs_f64() / 1e6);
        }
    }
    // SAFETY: behind the barrier nobody writes.
    let found = unsafe { counter.read_volatile() };
    let expected = stage.roles as u64 * (1000 + stage.n);
    if found != expected {
        return Err(format!("the lock did not lock: counted {found} instead of {expected}").into());
    }
    stage.barrier()
}

fn futex_mutex(stage: &Stage) -> FutexMutex<'_> {
    // SAFETY: scratch memory, zeroed and aligned.
    FutexMutex(unsafe { &*stage.scratch().cast::<AtomicU32>() })
}

/// The minimal futex mutex without a rival.
///
/// # Errors
/// None but the stage's.
pub fn futex_mutex_uncontended(stage: &Stage) -> Result {
    uncontended(stage, &futex_mutex(stage))
}

/// The minimal futex mutex, two processes.
///
/// # Errors
/// None but the stage's.
pub fn futex_mutex_contended(stage: &Stage) -> Result {
    contended(stage, &futex_mutex(stage))
}

// ---- processes ------------------------------------------------------------------------------------------------------------

/// `fork`, `_exit`, `waitpid`.
///
/// # Errors
/// If it fails.
pub fn fork(stage: &Stage) -> Result {
    let start = Instant::now();
    for _ in 0..stage.n {
        // SAFETY: this process has one thread, and the child does nothing but end.
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => return Err(std::io::Error::last_os_error().into()),
            // SAFETY: ends this copy of the process at once.
            0 => unsafe { libc::_exit(0) },
            _ => {}
        }
        let mut status = -1;
        // SAFETY: the child is ours and the status a local.
        if unsafe { libc::waitpid(pid, &mut status, 0) } != pid || status != 0 {
            return Err("the child did not end as it should".into());
        }
    }
    stage.publish(start.elapsed().as_nanos() as f64 / 1e3 / stage.n as f64);
    Ok(())
}

/// A fork server with nothing but the system calls that shmkit's cannot do without: a request and an answer over a socket, a copy
/// that is the asker's child, two lock bytes taken as the proof of life and the recovery lock are, an orderly exit, and a process
/// descriptor to wait for. Nothing is named, passed on, checked, or recovered.
///
/// # Errors
/// If it fails.
pub fn fork_server(stage: &Stage) -> Result {
    let last = || -> crate::Error { std::io::Error::last_os_error().into() };
    let mut ends = [0; 2];
    // SAFETY: the call writes two descriptors.
    if unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, ends.as_mut_ptr()) } != 0 {
        return Err(last());
    }
    let [mine, other] = ends;
    // SAFETY: this process has one thread.
    let server = match unsafe { libc::fork() } {
        -1 => return Err(last()),
        0 => serve(other, stage.fd()),
        server => server,
    };
    let once = || -> Result {
        let mut pid = 0u64.to_ne_bytes();
        // SAFETY: the buffers are locals of the lengths given; the descriptors are this function's.
        unsafe {
            if libc::send(mine, pid.as_ptr().cast(), 8, libc::MSG_NOSIGNAL) != 8
                || libc::recv(mine, pid.as_mut_ptr().cast(), 8, 0) != 8
            {
                return Err(last());
            }
            let pidfd = libc::syscall(libc::SYS_pidfd_open, u64::from_ne_bytes(pid) as i32, 0) as i32;
            let mut poll = libc::pollfd { fd: pidfd, events: libc::POLLIN, revents: 0 };
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let done = pidfd >= 0
                && libc::poll(&mut poll, 1, -1) == 1
                && libc::waitid(libc::P_PIDFD, pidfd as libc::id_t, &mut info, libc::WEXITED) == 0
                && info.si_status() == 0;
            if done && libc::close(pidfd) == 0 { Ok(()) } else { Err(last()) }
        }
    };
    let measured = once().and_then(|()| {
        let start = Instant::now();
        for _ in 0..stage.n {
            once()?;
        }
        Ok(start.elapsed().as_nanos() as f64 / 1e3 / stage.n as f64)
    });
    // SAFETY: the server is this function's child, the descriptor is its own.
    unsafe {
        libc::close(mine);
        libc::kill(server, libc::SIGKILL);
        libc::waitpid(server, std::ptr::null_mut(), 0);
    }
    stage.publish(measured?);
    Ok(())
}

/// The server of [`fork_server`], and its copies.
fn serve(socket: i32, memory: i32) -> ! {
    let path = crate::stage::c_string(&format!("/proc/self/fd/{memory}"));
    // Takes a lock byte that lives as long as the page it gives.
    let lock = |byte: i64| -> *mut libc::c_void {
        // SAFETY: a string of this function; the descriptor and the page are used here only.
        unsafe {
            let fd = libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
            let page = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, fd, 0);
            let mut wanted: libc::flock = std::mem::zeroed();
            wanted.l_type = libc::F_WRLCK as i16;
            wanted.l_start = byte;
            wanted.l_len = 1;
            let held = page != libc::MAP_FAILED
                && libc::madvise(page, 4096, libc::MADV_DONTFORK) == 0
                && libc::fcntl(fd, libc::F_OFD_SETLK, &wanted) == 0;
            libc::close(fd);
            if !held {
                libc::_exit(1);
            }
            page
        }
    };
    let mut request = [0u8; 8];
    // SAFETY: buffers of this function; a copy made without CLONE_VM has its own memory, and this process has one thread.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        while libc::recv(socket, request.as_mut_ptr().cast(), 8, 0) == 8 {
            let flags = libc::CLONE_PARENT | libc::SIGCHLD;
            let pid = libc::syscall(libc::SYS_clone, flags as libc::c_long, 0, 0, 0, 0);
            if pid == 0 {
                libc::close(socket);
                let alive = lock(1 << 62 | i64::from(std::process::id()));
                libc::munmap(lock(1 << 61), 4096);
                libc::munmap(alive, 4096);
                libc::exit(0);
            }
            libc::send(socket, (pid as u64).to_ne_bytes().as_ptr().cast(), 8, libc::MSG_NOSIGNAL);
        }
        libc::_exit(0)
    }
}

/// `std::process::Command` of this very executable, which returns from `main` at once.
///
/// # Errors
/// If it fails.
pub fn command(stage: &Stage) -> Result {
    let program = std::env::current_exe()?;
    let start = Instant::now();
    for _ in 0..stage.n {
        let status = std::process::Command::new(&program)
            .env(crate::NOTHING, "1")
            .stdin(std::process::Stdio::null())
            .status()?;
        if !status.success() {
            return Err(format!("it ended with {status}").into());
        }
    }
    stage.publish(start.elapsed().as_nanos() as f64 / 1e3 / stage.n as f64);
    Ok(())
}

/// `shm_open`, `fstat`, `mmap`, `munmap` and `close` of the file `path` in `/dev/shm`, of which one word is read, again and again:
/// microseconds for one.
///
/// # Errors
/// If a call fails.
pub fn open_and_map(path: &CStr, times: u64) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..times {
        // SAFETY: the path is a string; the descriptor is this function's; the mapping is as long as the file and not used
        // after it is gone.
        let done = unsafe {
            let fd = libc::shm_open(path.as_ptr(), libc::O_RDWR, 0);
            let mut stat: libc::stat = std::mem::zeroed();
            let mut done = fd >= 0 && libc::fstat(fd, &mut stat) == 0;
            if done {
                let len = stat.st_size as usize;
                let access = libc::PROT_READ | libc::PROT_WRITE;
                let start = libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, fd, 0);
                done = start != libc::MAP_FAILED;
                if done {
                    start.cast::<u64>().read_volatile();
                    done = libc::munmap(start, len) == 0;
                }
            }
            done && libc::close(fd) == 0
        };
        if !done {
            return Err(std::io::Error::last_os_error().into());
        }
    }
    Ok(start.elapsed().as_nanos() as f64 / 1e3 / times as f64)
}

/// [`open_and_map`] of a file of 256 KiB.
///
/// # Errors
/// If it fails.
pub fn shm_open(stage: &Stage) -> Result {
    let path = crate::stage::c_string(&format!("/{}", stage.name));
    // SAFETY: a string of this function, and the descriptor it opens.
    unsafe {
        let made = libc::shm_open(path.as_ptr(), libc::O_CREAT | libc::O_EXCL | libc::O_RDWR, 0o600);
        if made < 0 || libc::ftruncate(made, 256 << 10) != 0 || libc::close(made) != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
    }
    let measured = open_and_map(&path, stage.n);
    // SAFETY: a string of this function.
    unsafe { libc::shm_unlink(path.as_ptr()) };
    stage.publish(measured?);
    Ok(())
}
