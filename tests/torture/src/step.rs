//! A child process under a tracer's hands: forked, run to a marker, driven instruction by instruction, killed.
//!
//! ```text
//! child    traceme; SIGSTOP; …its set-up… SIGUSR2 (begin)  …the operation…  SIGUSR1 (end)
//! tracer   ready ─────────► at the start ─────────────────► single steps ─────► done, or killed before
//! ```
//! Both run on one CPU: handing a step over costs a quarter then. System calls are one step; so is each iteration of a
//! repeated string instruction. A step is 20 µs, so that getting to instruction n of a long operation, for every n, would cost
//! hours: with a trace of the whole operation, the child runs freely to a breakpoint at an address shortly before n that it
//! comes by seldom, and is stepped from there. Where other threads would come by it, too, or the code is that of a program that
//! was executed, it is a breakpoint of the processor's, which is one thread's own.
//!
//! A child can be stopped as a shell stops it, by SIGSTOP: the tracer lets go of it then, and the marker behind the operation
//! ends it. Where the operation is another program's beginning, the tracer follows the child to the process that it starts.
//!
//! # References
//! `ptrace(2)`, "Signal-delivery-stop", "Single-stepping".

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The child is about to begin the operation.
const BEGIN: Signal = Signal::SIGUSR2;
/// The operation is over.
const END: Signal = Signal::SIGUSR1;

/// In a child: from here on every instruction counts.
pub fn begin() {
    let _ = nix::sys::signal::raise(BEGIN);
}

/// In a process that is no child of the tracer's: waits until it is traced.
pub fn until_traced() {
    while !is_traced(std::process::id()) {
        std::thread::yield_now();
    }
}

/// Whether a process is traced.
pub fn is_traced(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
}

/// In a child: the operation is over. What it holds it has still when it is killed, or ends here. Whom nobody traces any more
/// is ended by the marker.
pub fn end() {
    let _ = nix::sys::signal::raise(END);
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(0) };
}

/// Why a child that ran came to a stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// One instruction further, or at a breakpoint.
    Step,
    /// At the marker before the operation.
    Begin,
    /// At the marker behind the operation.
    End,
    /// It ended by itself, which no child should.
    Gone(String),
    /// The time was up: it waits for something, and runs on.
    Overdue,
}

/// A child that is traced. It is killed when this is dropped.
#[derive(Debug)]
pub struct Tracee {
    pid: Pid,
    is_gone: bool,
    /// It was overdue, and has not stopped since.
    is_running: bool,
    /// It does one instruction.
    is_stepping: bool,
    /// Where it is to stop, and the code that belongs there.
    breakpoint: Option<(u64, i64)>,
    /// Nobody traces it any more.
    is_free: bool,
    /// It is a child of somebody else, who sees its end.
    is_others: bool,
}

/// What a process does: the letter of `ps`; none if there is none of that number.
pub fn state(pid: Pid) -> Option<char> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may have any letter in it.
    text.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Forks a child that runs `life` and never returns. Only for a process with a single thread.
pub fn forked(life: impl FnOnce() -> i32) -> Pid {
    // SAFETY: this process has one thread, so that the child may do whatever it could.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => child,
        Ok(ForkResult::Child) => {
            let code = catch_unwind(AssertUnwindSafe(life)).unwrap_or(101);
            // SAFETY: _exit has no preconditions; what the parent would do at its end is not this process's.
            unsafe { libc::_exit(code) }
        }
        Err(errno) => panic!("fork: {errno}"),
    }
}

impl Tracee {
    /// A child that will run `life` once it is let go.
    pub fn fork(life: impl FnOnce() -> i32) -> Tracee {
        let pid = forked(|| {
            // With whoever forked it, even if it is not traced then.
            let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            ptrace::traceme().expect("not traced yet");
            nix::sys::signal::raise(Signal::SIGSTOP).expect("a process that may stop");
            life()
        });
        let tracee = Tracee::of(pid);
        let stop = loop {
            match waitpid(pid, None) {
                // The ticking of `Ticks`.
                Err(Errno::EINTR) => {}
                stop => break stop,
            }
        };
        assert_eq!(stop, Ok(WaitStatus::Stopped(pid, Signal::SIGSTOP)), "a traced child stops first");
        // It dies with its tracer.
        ptrace::setoptions(pid, ptrace::Options::PTRACE_O_EXITKILL).expect("a stopped child");
        tracee
    }

    fn of_others(pid: Pid) -> Tracee {
        let mut tracee = Tracee::of(pid);
        tracee.is_others = true;
        tracee
    }

    fn of(pid: Pid) -> Tracee {
        Tracee {
            pid,
            is_gone: false,
            is_running: false,
            is_stepping: false,
            breakpoint: None,
            is_free: false,
            is_others: false,
        }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw() as u32
    }

    /// Waits for the next stop.
    fn wait(&mut self, until: Instant) -> Stop {
        self.is_running = false;
        loop {
            match waitpid(self.pid, None) {
                Ok(WaitStatus::Stopped(_, Signal::SIGTRAP)) => return Stop::Step,
                Ok(WaitStatus::Stopped(_, BEGIN)) => return Stop::Begin,
                Ok(WaitStatus::Stopped(_, END)) => return Stop::End,
                // A child of its own ended, or somebody stops processes on this machine or lets them on: it was to go on.
                Ok(WaitStatus::Stopped(_, Signal::SIGSTOP | Signal::SIGCHLD | Signal::SIGCONT)) => {
                    let _ = if self.is_stepping { ptrace::step(self.pid, None) } else { ptrace::cont(self.pid, None) };
                }
                Ok(WaitStatus::Stopped(_, signal)) => {
                    // A fault of its own would come again for ever.
                    let place = self.place().map_or_else(String::new, |place| format!(" at {place:#x}"));
                    self.kill();
                    return Stop::Gone(format!("stopped by {signal}{place}"));
                }
                Ok(other) => {
                    self.is_gone = true;
                    return Stop::Gone(format!("{other:?}"));
                }
                // The ticking of `Ticks`.
                Err(Errno::EINTR) if Instant::now() >= until => {
                    self.is_running = true;
                    return Stop::Overdue;
                }
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    self.is_gone = true;
                    return Stop::Gone(errno.to_string());
                }
            }
        }
    }

    /// Lets it run until it comes to a marker or to its breakpoint.
    pub fn run(&mut self, until: Instant) -> Stop {
        if !self.is_running {
            self.is_stepping = false;
            if let Err(errno) = ptrace::cont(self.pid, None) {
                return Stop::Gone(errno.to_string());
            }
        }
        match self.wait(until) {
            Stop::Step if !self.lift_breakpoint() => Stop::Gone("trapped where no breakpoint is".into()),
            stop => stop,
        }
    }

    /// Lets it run to its marker, whatever breakpoint it was to stop at before.
    pub fn finish(&mut self, until: Instant) -> Stop {
        while !self.is_free {
            match self.run(until) {
                Stop::Step => {}
                stop => return stop,
            }
        }
        if self.is_others {
            loop {
                match state(self.pid) {
                    None | Some('Z' | 'X') => {
                        self.is_gone = true;
                        return Stop::End;
                    }
                    Some(_) if Instant::now() >= until => return Stop::Overdue,
                    Some(_) => std::thread::yield_now(),
                }
            }
        }
        loop {
            match waitpid(self.pid, None) {
                Err(Errno::EINTR) if Instant::now() >= until => return Stop::Overdue,
                Err(Errno::EINTR) => {}
                Ok(WaitStatus::Signaled(_, END, _)) => {
                    self.is_gone = true;
                    return Stop::End;
                }
                other => {
                    self.is_gone = true;
                    return Stop::Gone(format!("{other:?}"));
                }
            }
        }
    }

    /// Stops it where it is, as a shell does, and lets go of it. It ends at its marker once it is let on.
    pub fn halt(&mut self, until: Instant) -> Result<(), Stop> {
        if self.is_running {
            // It waits in the kernel.
            let _ = nix::sys::signal::kill(self.pid, Signal::SIGSTOP);
            loop {
                match waitpid(self.pid, None) {
                    Ok(WaitStatus::Stopped(_, Signal::SIGSTOP)) => break,
                    Ok(WaitStatus::Stopped(_, END)) => {
                        self.is_running = false;
                        return Err(Stop::End);
                    }
                    Ok(WaitStatus::Stopped(..)) => {
                        let _ = ptrace::cont(self.pid, None);
                    }
                    Err(Errno::EINTR) if Instant::now() >= until => return Err(Stop::Overdue),
                    Err(Errno::EINTR) => {}
                    other => {
                        self.is_gone = true;
                        return Err(Stop::Gone(format!("{other:?}")));
                    }
                }
            }
            self.is_running = false;
        }
        if let Some((address, word)) = self.breakpoint.take() {
            let _ = ptrace::write(self.pid, address as ptrace::AddressType, word);
        }
        match ptrace::detach(self.pid, Signal::SIGSTOP) {
            Ok(()) => self.is_free = true,
            Err(errno) => return Err(Stop::Gone(errno.to_string())),
        }
        if self.is_others {
            loop {
                match state(self.pid) {
                    Some('T') => return Ok(()),
                    None | Some('Z' | 'X') => return Err(Stop::End),
                    Some(_) if Instant::now() >= until => return Err(Stop::Overdue),
                    Some(_) => std::thread::yield_now(),
                }
            }
        }
        loop {
            match waitpid(self.pid, Some(WaitPidFlag::WUNTRACED)) {
                Ok(WaitStatus::Stopped(..)) => return Ok(()),
                Err(Errno::EINTR) if Instant::now() >= until => return Err(Stop::Overdue),
                Err(Errno::EINTR) => {}
                other => {
                    self.is_gone = true;
                    return Err(Stop::Gone(format!("{other:?}")));
                }
            }
        }
    }

    /// Lets it on after [`Tracee::halt`].
    pub fn go_on(&self) {
        let _ = nix::sys::signal::kill(self.pid, Signal::SIGCONT);
    }

    /// Lets it run until a process that it starts, by whichever of its threads, has become a program anew; or, of a copy, until
    /// there is one. That one is traced from there; this one is let go.
    pub fn follow(&mut self, wants_copy: bool, until: Instant) -> Result<Tracee, Stop> {
        use ptrace::{Event, Options};
        let all = Options::PTRACE_O_EXITKILL
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEEXEC;
        let failed = |errno: Errno| Stop::Gone(errno.to_string());
        ptrace::setoptions(self.pid, all).map_err(failed)?;
        let mut newest = self.pid;
        let mut is_copy = false;
        ptrace::cont(newest, None).map_err(failed)?;
        loop {
            match waitpid(newest, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::PtraceEvent(_, _, event)) if event == Event::PTRACE_EVENT_EXEC as i32 => {
                    ptrace::setoptions(newest, Options::PTRACE_O_EXITKILL).map_err(failed)?;
                    return Ok(Tracee::of_others(newest));
                }
                Ok(WaitStatus::PtraceEvent(_, _, event)) => {
                    let started = ptrace::getevent(newest).map_err(failed)?;
                    ptrace::detach(newest, None).map_err(failed)?;
                    self.is_free = true;
                    newest = Pid::from_raw(started as i32);
                    is_copy = wants_copy && event == Event::PTRACE_EVENT_FORK as i32;
                }
                // The new one's first stop.
                Ok(WaitStatus::Stopped(_, Signal::SIGSTOP | Signal::SIGTRAP)) if is_copy => {
                    ptrace::setoptions(newest, Options::PTRACE_O_EXITKILL).map_err(failed)?;
                    return Ok(Tracee::of_others(newest));
                }
                // The same, among others.
                Ok(WaitStatus::Stopped(_, signal)) => {
                    let signal = (signal != Signal::SIGSTOP && signal != Signal::SIGTRAP).then_some(signal);
                    ptrace::cont(newest, signal).map_err(failed)?;
                }
                Err(Errno::EINTR) if Instant::now() >= until => return Err(Stop::Overdue),
                Err(Errno::EINTR) => {}
                other => {
                    self.is_gone = newest == self.pid;
                    return Err(Stop::Gone(format!("{other:?}")));
                }
            }
        }
    }

    /// Lets it run, untraced.
    pub fn let_go(&mut self) -> Result<(), Stop> {
        ptrace::detach(self.pid, None).map_err(|errno| Stop::Gone(errno.to_string()))?;
        self.is_free = true;
        Ok(())
    }

    /// Traces a process that is no child of this one.
    pub fn attach(pid: u32, until: Instant) -> Result<Tracee, Stop> {
        let pid = Pid::from_raw(pid as i32);
        let failed = |errno: Errno| Stop::Gone(errno.to_string());
        ptrace::attach(pid).map_err(failed)?;
        loop {
            match waitpid(pid, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Stopped(_, Signal::SIGSTOP)) => break,
                Ok(WaitStatus::Stopped(_, signal)) => ptrace::cont(pid, signal).map_err(failed)?,
                Err(Errno::EINTR) if Instant::now() >= until => return Err(Stop::Overdue),
                Err(Errno::EINTR) => {}
                other => return Err(Stop::Gone(format!("{other:?}"))),
            }
        }
        ptrace::setoptions(pid, ptrace::Options::PTRACE_O_EXITKILL).map_err(failed)?;
        Ok(Tracee::of_others(pid))
    }

    /// It is no business of the tracer's any more.
    pub fn forget(mut self) {
        self.is_gone = true;
    }

    /// One instruction.
    pub fn step(&mut self, until: Instant) -> Stop {
        if self.is_running {
            return Stop::Overdue;
        }
        self.is_stepping = true;
        match ptrace::step(self.pid, None) {
            Ok(()) => self.wait(until),
            Err(errno) => Stop::Gone(errno.to_string()),
        }
    }

    /// Drives it `count` instructions on, from the start of the operation; with its trace, most of the way at full speed.
    pub fn advance(&mut self, count: u32, trace: Option<&Trace>, until: Instant) -> Stop {
        let mut done = 0;
        if let Some((address, before, index)) = trace.and_then(|trace| trace.anchor(count)) {
            let is_hard = trace.is_some_and(|trace| trace.is_hard);
            let mut stop = self.run_to(address, is_hard, until);
            for _ in 0..before {
                if stop == Stop::Step {
                    stop = self.step(until);
                }
                if stop == Stop::Step {
                    stop = self.run_to(address, is_hard, until);
                }
            }
            match stop {
                Stop::Step => done = index,
                stop => return stop,
            }
        }
        for _ in done..count {
            match self.step(until) {
                Stop::Step => {}
                stop => return stop,
            }
        }
        Stop::Step
    }

    /// Steps through the whole operation and writes down every address, and behind which instructions there is something new to
    /// be seen, as `is_new` finds it for the address of the last one.
    pub fn trace(&mut self, limit: u32, until: Instant, mut is_new: impl FnMut(u64) -> bool) -> (Way, Stop) {
        let mut way = Way::default();
        while way.places.len() < limit as usize {
            let place = self.place().unwrap_or(0);
            way.places.push(place);
            match self.step(until) {
                Stop::Step if is_new(place) => way.news.push(way.places.len() as u32),
                Stop::Step => {}
                stop => return (way, stop),
            }
        }
        (way, Stop::Overdue)
    }

    /// Kills it, and waits until the kernel has let go of all it had.
    pub fn kill(&mut self) {
        if self.is_gone {
            return;
        }
        let _ = nix::sys::signal::kill(self.pid, Signal::SIGKILL);
        while !matches!(
            waitpid(self.pid, None),
            Ok(WaitStatus::Signaled(..) | WaitStatus::Exited(..)) | Err(Errno::ECHILD)
        ) {}
        self.is_gone = true;
    }

    #[cfg(target_arch = "x86_64")]
    fn place(&self) -> Option<u64> {
        ptrace::getregs(self.pid).ok().map(|registers| registers.rip)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn place(&self) -> Option<u64> {
        None
    }

    /// Runs to an address by a breakpoint in this child's own copy of the code, or one of the processor's.
    #[cfg(target_arch = "x86_64")]
    fn run_to(&mut self, address: u64, is_hard: bool, until: Instant) -> Stop {
        const BREAKPOINT: i64 = 0xCC;
        if self.place() == Some(address) {
            return Stop::Step;
        }
        if is_hard {
            return self.run_to_hard(address, until);
        }
        let pointer = address as ptrace::AddressType;
        let Ok(word) = ptrace::read(self.pid, pointer) else { return Stop::Gone("its code cannot be read".into()) };
        let _ = ptrace::write(self.pid, pointer, word & !0xFF | BREAKPOINT);
        self.breakpoint = Some((address, word));
        self.run(until)
    }

    /// Takes the breakpoint away when it was hit: it is as if the child had been stopped before that instruction.
    #[cfg(target_arch = "x86_64")]
    fn lift_breakpoint(&mut self) -> bool {
        let Some((address, word)) = self.breakpoint else { return false };
        match ptrace::getregs(self.pid) {
            Ok(mut registers) if registers.rip == address + 1 => {
                let _ = ptrace::write(self.pid, address as ptrace::AddressType, word);
                self.breakpoint = None;
                registers.rip = address;
                ptrace::setregs(self.pid, registers).is_ok()
            }
            _ => false,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn lift_breakpoint(&mut self) -> bool {
        false
    }

    /// Runs to an address by a breakpoint of the processor's: this thread stops there, no other one does.
    #[cfg(target_arch = "x86_64")]
    fn run_to_hard(&mut self, address: u64, until: Instant) -> Stop {
        // The first breakpoint, on execution, of one thread.
        const ENABLED: i64 = 1;
        let register = |number: usize| {
            (std::mem::offset_of!(libc::user, u_debugreg) + number * size_of::<u64>()) as ptrace::AddressType
        };
        let set = ptrace::write_user(self.pid, register(0), address as i64)
            .and_then(|()| ptrace::write_user(self.pid, register(7), ENABLED));
        if let Err(errno) = set {
            return Stop::Gone(format!("no breakpoint: {errno}"));
        }
        self.is_stepping = false;
        if let Err(errno) = ptrace::cont(self.pid, None) {
            return Stop::Gone(errno.to_string());
        }
        let stop = self.wait(until);
        if !self.is_gone && !self.is_running {
            let _ = ptrace::write_user(self.pid, register(7), 0);
        }
        stop
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn run_to(&mut self, _: u64, _: bool, _: Instant) -> Stop {
        unreachable!("without traces there are no anchors")
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An operation, step by step.
#[derive(Debug, Default)]
pub struct Way {
    /// The address of each instruction.
    pub places: Vec<u64>,
    /// After how many of them others can see something new.
    pub news: Vec<u32>,
    /// Where breakpoints can be set.
    pub code: Range<u64>,
}

/// One whole operation.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// How many instructions it has.
    pub len: u32,
    /// After how many of them others can see something that they could not see before; the beginning and the end among them.
    /// Who is killed between two of these leaves what he leaves at the first of them.
    pub news: Rc<[u32]>,
    /// The address of each, and how often it was executed before; 0 where no breakpoint can be set.
    places: Rc<[(u64, u32)]>,
    /// Whether breakpoints must be the processor's.
    is_hard: bool,
}

/// What coming to a breakpoint once more costs, in single steps.
const HIT: u32 = 4;

impl Trace {
    /// Of the way. `is_hard` if others come by the same code.
    pub fn new(way: &Way, is_hard: bool) -> Trace {
        let mut counts: HashMap<u64, u32> = HashMap::new();
        let mut counted = |&place: &u64| {
            let count = counts.entry(place).or_default();
            *count += 1;
            (if way.code.contains(&place) { place } else { 0 }, *count - 1)
        };
        let len = way.places.len() as u32;
        let mut news: Vec<u32> = [0].into_iter().chain(way.news.iter().copied()).chain([len]).collect();
        news.dedup();
        Trace { len, news: news.into(), places: way.places.iter().map(&mut counted).collect(), is_hard }
    }

    /// The cheapest way to instruction `count`: an address, how often to pass it first, and which instruction that is.
    fn anchor(&self, count: u32) -> Option<(u64, u32, u32)> {
        let mut best = (count, None);
        for index in (0..=count.min(self.len.saturating_sub(1))).rev() {
            let rest = count - index;
            if rest >= best.0 {
                break;
            }
            let (address, before) = self.places[index as usize];
            let cost = (before + 1).saturating_mul(HIT) + rest;
            if address != 0 && cost < best.0 {
                best = (cost, Some((address, before, index)));
            }
        }
        best.1
    }
}

/// All code of a process that can be read: of the file of that name, if one is given.
fn code_of(pid: u32, file: Option<&str>) -> Vec<Range<u64>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let ranges = maps.lines().filter_map(|line| {
        let (start, rest) = line.split_once('-')?;
        let (end, rest) = rest.split_once(' ')?;
        let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
        let is_meant = file.is_none_or(|file| rest.trim_end().ends_with(file));
        (rest.starts_with('r') && rest[2..].starts_with('x') && is_meant).then_some(range)
    });
    ranges.collect()
}

/// All code of this process.
pub fn all_code() -> Vec<Range<u64>> {
    code_of(std::process::id(), None)
}

/// The code of a process's own program.
pub fn program_of(pid: u32) -> Range<u64> {
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    code_of(pid, program.to_str()).into_iter().next().unwrap_or(0..0)
}

/// What this process starts lies at the same addresses each time.
pub fn without_random_addresses() {
    // SAFETY: the call changes a flag of this process, which its children inherit.
    unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) };
}

/// While it lives, this process's waiting in the kernel is interrupted every few milliseconds, so that it can look at the
/// clock.
pub struct Ticks {}

const TICK: Duration = Duration::from_millis(10);

impl Ticks {
    /// Starts them.
    pub fn start() -> Ticks {
        extern "C" fn tick(_: i32) {}
        // SAFETY: the action is initialised; the handler does nothing; without SA_RESTART calls are interrupted.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = tick as *const () as usize;
            libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut());
        }
        set_timer(TICK);
        Ticks {}
    }
}

impl Drop for Ticks {
    fn drop(&mut self) {
        set_timer(Duration::ZERO);
    }
}

fn set_timer(interval: Duration) {
    let time = libc::timeval { tv_sec: 0, tv_usec: i64::from(interval.subsec_micros()) };
    let timer = libc::itimerval { it_interval: time, it_value: time };
    // SAFETY: the timer is initialised; the old one is not asked for.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
}
