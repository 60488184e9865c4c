//! What the processes of one measurement share: a barrier, room for their result, and room for rings of their own.
//!
//! ```text
//! memfd   failed | arrived | sum | published, value | histogram | text | scratch (sparse)
//! ```
//! All processes of a contestant run the same function; [`Stage::role`] says which of them this one is. Role `r` is pinned to
//! the `r`-th CPU the harness may use, modulo their number. Where a contestant works between threads only,
//! [`Stage::threads`] runs the roles as threads of one process, each pinned in the same way.

use crate::Result;
use hdrhistogram::Histogram;
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes of scratch memory for contestants that bring only a protocol: 64 MiB, of which they touch what they need.
pub const SCRATCH: usize = 64 << 20;
/// Pairs (latency, count) that are handed on.
const PAIRS: usize = 8192;
const TEXT: usize = 2048;
/// After this long at a barrier the other side is not coming.
const PATIENCE: Duration = Duration::from_secs(60);

/// A value on cache lines of its own: two, because of the prefetcher for neighbouring lines.
#[repr(C, align(128))]
pub struct Line<T>(pub T);

#[repr(C)]
struct Control {
    failed: Line<AtomicU32>,
    arrived: Line<AtomicU64>,
    sum: Line<AtomicU64>,
    published: AtomicU32,
    /// Bits of an f64.
    value: AtomicU64,
    pairs: AtomicU32,
    histogram: [[AtomicU64; 2]; PAIRS],
    text_len: AtomicU32,
    text: [AtomicU32; TEXT / 4],
    scratch: Line<[u8; SCRATCH]>,
}

/// What one thread of a contestant does.
pub type Role<'a> = Box<dyn FnOnce(&Stage) -> Result + Send + 'a>;

/// The shared memory of one measurement, and this process's part in it.
pub struct Stage {
    control: *const Control,
    fd: RawFd,
    /// Which of the contestant's processes (or threads) this is.
    pub role: usize,
    /// How many there are.
    pub roles: usize,
    /// Operations to time.
    pub n: u64,
    /// A name that no other measurement has: for segments, sockets, services.
    pub name: String,
    phase: std::cell::Cell<u64>,
    unmap: bool,
}

// SAFETY: the pointer is to a shared mapping of atomics and scratch memory, whose users see to it themselves.
unsafe impl Send for Stage {}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.unmap {
            // SAFETY: mapped by `new` or `attach`, and no borrow outlives the stage.
            unsafe { libc::munmap(self.control.cast_mut().cast(), size_of::<Control>()) };
        }
    }
}

fn map(fd: RawFd) -> Result<*const Control> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, of a file that is as long.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Control>(), access, libc::MAP_SHARED, fd, 0) };
    if start == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(start.cast_const().cast())
}

/// A memfd that children inherit, as long as the stage's memory.
pub fn memory() -> Result<OwnedFd> {
    // SAFETY: memfd_create(2) with a string of this function; the descriptor it gives is owned by nobody else.
    let fd = unsafe {
        let fd = libc::memfd_create(c"shmkit-bench".as_ptr(), 0);
        if fd < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: no preconditions.
    if unsafe { libc::ftruncate(fd.as_raw_fd(), size_of::<Control>() as i64) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(fd)
}

impl Stage {
    /// The stage behind an inherited descriptor.
    pub fn attach(fd: RawFd, role: usize, roles: usize, n: u64, name: String) -> Result<Stage> {
        Ok(Stage { control: map(fd)?, fd, role, roles, n, name, phase: std::cell::Cell::new(0), unmap: true })
    }

    fn control(&self) -> &Control {
        // SAFETY: mapped while the stage lives; shared words are atomics.
        unsafe { &*self.control }
    }

    /// Zeroed memory that all roles share, aligned to 128 bytes.
    pub fn scratch(&self) -> *mut u8 {
        // SAFETY: inside the mapping.
        unsafe { (&raw const (*self.control).scratch).cast::<u8>().cast_mut() }
    }

    /// The descriptor of the shared memory.
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// Waits until all roles are here.
    ///
    /// # Errors
    /// If another role has failed or does not come.
    pub fn barrier(&self) -> Result {
        let control = self.control();
        let phase = self.phase.get() + 1;
        self.phase.set(phase);
        let all = phase * self.roles as u64;
        // AcqRel on every arrival: what was done before the barrier is seen behind it.
        control.arrived.0.fetch_add(1, Ordering::AcqRel);
        let start = Instant::now();
        let mut looks = 0u32;
        while control.arrived.0.load(Ordering::Acquire) < all {
            if control.failed.0.load(Ordering::Acquire) != 0 {
                return Err("another process of this measurement failed".into());
            }
            looks += 1;
            // With two roles on two CPUs a short spin is enough; with more roles than CPUs the others need this one.
            if looks > 2000 || self.roles > 2 {
                std::thread::yield_now();
                if looks.is_multiple_of(1024) && start.elapsed() > PATIENCE {
                    return Err("the other side did not come to the barrier".into());
                }
            }
        }
        Ok(())
    }

    /// Role 0 makes something, then the others open it.
    ///
    /// # Errors
    /// Those of the two functions and of the barriers.
    pub fn in_turn<T>(&self, make: impl FnOnce() -> Result<T>, open: impl FnOnce() -> Result<T>) -> Result<T> {
        let mine = if self.role == 0 {
            let made = make()?;
            self.barrier()?;
            made
        } else {
            self.barrier()?;
            open()?
        };
        self.barrier()?;
        Ok(mine)
    }

    /// Adds to a sum of all roles: what receivers saw.
    pub fn add(&self, sum: u64) {
        self.control().sum.0.fetch_add(sum, Ordering::AcqRel);
    }

    /// Takes the sum of all roles.
    pub fn take_sum(&self) -> u64 {
        self.control().sum.0.swap(0, Ordering::AcqRel)
    }

    /// Hands on the figure of this measurement, in the unit of its figure.
    pub fn publish(&self, value: f64) {
        let control = self.control();
        control.value.store(value.to_bits(), Ordering::Relaxed);
        control.published.store(1, Ordering::Release);
    }

    /// Hands on latencies in nanoseconds.
    pub fn publish_latencies(&self, latencies: &Histogram<u64>) {
        let control = self.control();
        let mut count = 0;
        for (pair, place) in latencies.iter_recorded().zip(&control.histogram) {
            place[0].store(pair.value_iterated_to(), Ordering::Relaxed);
            place[1].store(pair.count_at_value(), Ordering::Relaxed);
            count += 1;
        }
        control.pairs.store(count, Ordering::Release);
    }

    /// Says why this role failed; the first to say so is heard.
    pub fn fail(&self, why: &str) {
        let control = self.control();
        if control.failed.0.load(Ordering::Acquire) == 0 {
            let bytes = &why.as_bytes()[..why.len().min(TEXT)];
            for (word, chunk) in control.text.iter().zip(bytes.chunks(4)) {
                let mut four = [0; 4];
                four[..chunk.len()].copy_from_slice(chunk);
                word.store(u32::from_ne_bytes(four), Ordering::Relaxed);
            }
            control.text_len.store(bytes.len() as u32, Ordering::Relaxed);
            control.failed.0.store(1, Ordering::Release);
        }
    }

    /// What the roles handed on: the value and the latencies, or why they failed.
    pub fn outcome(&self) -> std::result::Result<(f64, Vec<(u64, u64)>), String> {
        let control = self.control();
        if control.failed.0.load(Ordering::Acquire) != 0 {
            let len = control.text_len.load(Ordering::Relaxed) as usize;
            let words = control.text.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
            let bytes: Vec<u8> = words.take(len.min(TEXT)).collect();
            return Err(String::from_utf8_lossy(&bytes).into_owned());
        }
        if control.published.load(Ordering::Acquire) == 0 {
            return Err("it gave no figure".to_owned());
        }
        let count = (control.pairs.load(Ordering::Acquire) as usize).min(PAIRS);
        let pairs = control.histogram[..count].iter();
        let pairs = pairs.map(|pair| (pair[0].load(Ordering::Relaxed), pair[1].load(Ordering::Relaxed))).collect();
        Ok((f64::from_bits(control.value.load(Ordering::Relaxed)), pairs))
    }

    /// Runs each of `roles` in a thread of this process, pinned like the process of that role would be.
    ///
    /// # Errors
    /// The first error of a thread.
    pub fn threads(&self, roles: Vec<Role<'_>>) -> Result {
        let count = roles.len();
        std::thread::scope(|scope| {
            let running: Vec<_> = roles
                .into_iter()
                .enumerate()
                .map(|(role, run)| {
                    let stage = Stage {
                        control: self.control,
                        fd: self.fd,
                        role,
                        roles: count,
                        n: self.n,
                        name: self.name.clone(),
                        phase: std::cell::Cell::new(0),
                        unmap: false,
                    };
                    scope.spawn(move || {
                        pin(role)?;
                        run(&stage).inspect_err(|error| stage.fail(&error.to_string()))
                    })
                })
                .collect();
            running.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
        })
    }
}

/// The CPUs the harness was started on.
pub fn cpus() -> Vec<usize> {
    // The children are pinned to one: they are told of all by the harness.
    if let Some(told) = std::env::var("SHMKIT_BENCH_CPUS").ok().filter(|told| !told.is_empty()) {
        return told.split(',').filter_map(|cpu| cpu.parse().ok()).collect();
    }
    // SAFETY: the set is plain data, filled by the call.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of_val(&set), &mut set);
        set
    };
    // SAFETY: the number is below the size of the set.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// Pins this thread to the CPU of a role.
///
/// # Errors
/// If the kernel refuses.
pub fn pin(role: usize) -> Result {
    let cpus = cpus();
    let cpu = cpus[role % cpus.len()];
    // SAFETY: the set is plain data; the number is one the kernel gave.
    let outcome = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set)
    };
    if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}

/// A C string of a path or name.
pub fn c_string(text: &str) -> CString {
    CString::new(text).expect("names have no zero bytes")
}
