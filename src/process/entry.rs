//! Where a child begins, and how every process ends.
//!
//! A child is the same executable again. It is entered by a function in `.init_array`, after the constructors of C and before
//! `main`, so that any program can have children: one with `#[shmkit::main]` or without, a test, a doc test, a bench. Where
//! the C library does not hand its arguments to such functions (everywhere but with glibc), `#[shmkit::main]` enters it.

use super::current::{self, Child, Known};
use super::record::{Record, Task, Work};
use super::target::{Outcome, Report, Trampoline};
use super::{Identity, environment, forkserver, interrupts, spawner};
use crate::segment::{Segment, known, locked};
use crate::sys::{module, proc, spawn, watch};
use std::ffi::OsString;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::process::{ExitCode, Termination};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, OnceLock};
use std::time::{Duration, Instant};

/// The environment variable that makes a process a child.
pub(super) const VARIABLE: &str = "SHMKIT_SPAWN";

/// The descriptor of the parent's bell in a child.
pub(super) const BELL_FD: i32 = spawn::FIRST_FD + 1;

/// How long a daemon may take to end when its parent does.
const GRACE: Duration = Duration::from_secs(5);

/// How long the kernel may count a thread that was joined.
const LINGERING: Duration = Duration::from_millis(20);

/// What a child must know to find its record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    /// Index and generation of the record.
    pub record: (u32, u32),
    /// The parent's process id.
    pub parent: u32,
    pub daemon: bool,
    pub identity: Identity,
    /// Name of the session segment; empty if it is anonymous.
    pub session: String,
    pub name: String,
}

impl fmt::Display for Greeting {
    /// No name of a segment holds a slash; the process's name comes last, for it may.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Greeting { record: (index, generation), parent, daemon, identity, session, name } = self;
        write!(f, "{index}/{generation}/{parent}/{daemon}/{identity}/{session}/{name}")
    }
}

impl Greeting {
    fn parse(text: &str) -> Option<Greeting> {
        let mut fields = text.splitn(7, '/');
        let mut next = || fields.next();
        Some(Greeting {
            record: (next()?.parse().ok()?, next()?.parse().ok()?),
            parent: next()?.parse().ok()?,
            daemon: next()?.parse().ok()?,
            identity: next()?.parse().ok()?,
            session: next()?.to_owned(),
            name: next()?.to_owned(),
        })
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static HOOK: extern "C" fn() = {
    extern "C" fn hook() {
        end_orderly();
        if cfg!(target_env = "gnu") {
            enter();
        }
    }
    hook
};

/// Whether this process may start children; if not, why.
pub(super) fn check() -> Result<(), &'static str> {
    if proc::is_privileged() {
        return Err("this program has more rights than its user, so its children would not trust their environment");
    }
    if std::env::var_os(VARIABLE).is_some() {
        return Err("this process is a child itself that was not entered: put `#[shmkit::main]` on `fn main`");
    }
    if ENDING.load(Ordering::Relaxed) {
        return Err("this process is ending");
    }
    Ok(())
}

// ---- a child ---------------------------------------------------------------------------------------------------------

static RECORD: Known<Record> = Known::nothing();
/// What the last panic of the thread that runs the target said.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Runs the child, if this process is one, and ends it.
fn enter() {
    let Some(greeting) = environment(VARIABLE) else { return };
    // What the child starts itself is not that child.
    // SAFETY: before `main`, or at its very beginning: nobody else reads or writes the environment.
    unsafe { std::env::remove_var(VARIABLE) };
    // A fork server comes back from `serve` in each of its copies, which is a child like any other.
    let greeting = forkserver::serve(&greeting).unwrap_or(Ok(greeting));
    end_with(match greeting.and_then(|greeting| arrive(&greeting)) {
        Ok(Arrived::Call(call)) => run(call),
        Ok(Arrived::Execute(program)) => program.execute(),
        Err(message) => Report { code: 1, message: Some(message) },
    })
}

/// A copy of the parent: calls `body` and ends.
pub(super) fn run_copied(record: &Record, body: impl FnOnce() -> Report) -> ! {
    ENDING.store(false, Ordering::Relaxed);
    RECORD.set(record.clone());
    record.say_read();
    end_with(caught(body))
}

/// Says why this process ends, and ends it.
fn end_with(report: Report) -> ! {
    if let Some(message) = &report.message {
        complain(message);
    }
    if let Some(record) = RECORD.get() {
        record.say(report.message.as_deref());
    }
    std::process::exit(report.code);
}

fn complain(message: &str) {
    use std::io::Write;
    let me = current::current_process();
    let _ = writeln!(std::io::stderr(), "process {:?} (pid {}): {message}", me.name(), me.pid());
}

/// What is left to do once the child knows who it is.
enum Arrived {
    Call(Call),
    Execute(Program),
}

/// A function to be called.
struct Call {
    run: Trampoline,
    arguments: Vec<u8>,
    bell: Option<OwnedFd>,
}

/// A program to become.
struct Program {
    program: OsString,
    arguments: Vec<OsString>,
    session: Segment,
}

impl Program {
    /// Becomes the program; comes back only if that fails.
    fn execute(self) -> Report {
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.arguments);
        match self.session.name() {
            Some(name) => command.env("SHMKIT_SESSION", name),
            // The descriptor was closed on exec until now, for all that this process might have started itself.
            None => match proc::keep_on_exec(self.session.as_fd()) {
                Ok(number) => command.env("SHMKIT_SESSION_FD", number.to_string()),
                Err(_) => &mut command,
            },
        };
        let error = command.exec();
        Report { code: 127, message: Some(format!("cannot execute {}: {error}", self.program.to_string_lossy())) }
    }
}

fn arrive(greeting: &str) -> Result<Arrived, String> {
    let greeting = Greeting::parse(greeting).ok_or_else(|| format!("{VARIABLE} is not what a parent writes"))?;
    let Greeting { record: (index, generation), parent, daemon, identity, session, name } = greeting;
    #[cfg(feature = "failpoints")]
    crate::failpoint::arm_by("SHMKIT_CHILD_FAILPOINT");
    failpoint!("child.arrived");
    if daemon {
        proc::die_with_parent().map_err(|error| error.to_string())?;
    }
    let copied = forkserver::copied_at();
    // Behind the request for the signal: if this is still the parent's number, the signal will come.
    match (proc::parent() == parent, copied) {
        (true, Some(before)) => proc::inherit_origin(before),
        (false, _) if daemon => std::process::exit(1),
        _ => {}
    }
    if let Ok(name) = std::ffi::CString::new(name.as_str()) {
        proc::set_short_name(&name);
    }
    current::set_child(Child { name, identity, daemon });
    let find_bell = || proc::inherited(BELL_FD).ok_or("the bell's descriptor is missing");
    failpoint!("child.before_join");
    let failed = |error: crate::Error| format!("cannot join the session segment: {error}");
    let session = if copied.is_some() {
        // The server's, whose mapping the copy has; its place in it is its own.
        let session = crate::segment::session().map_err(failed)?;
        session.attachment().token().map_err(failed)?;
        session
    } else {
        let session_fd = proc::inherited(spawn::FIRST_FD).ok_or("the session's descriptor is missing")?;
        let bell = find_bell()?;
        for fd in [session_fd.as_fd(), bell.as_fd()] {
            proc::close_on_exec(fd).map_err(|error| error.to_string())?;
        }
        std::mem::forget(bell);
        let session = if session.is_empty() { Segment::from_fd(session_fd) } else { Segment::open(&session) };
        let session = session.map_err(failed)?;
        crate::segment::inherit(session.clone());
        session
    };
    failpoint!("child.joined");
    let record = Record::open(&session, index, generation).map_err(failed)?;
    failpoint!("child.record");
    let record = RECORD.set(record);
    let bytes = record.bytes().map_err(failed)?;
    let (task, arguments) = postcard::take_from_bytes::<Task>(&bytes).map_err(|error| error.to_string())?;
    current::set_parent(parent, task.parent);
    task.options.apply()?;
    let bell = Some(find_bell()?).filter(|_| task.is_awaited);
    let entry = match task.work {
        Work::Call(entry) => entry,
        Work::Copied => return Err("it is no copy of its parent".to_owned()),
        Work::Execute { program, arguments } => {
            record.say_read();
            return Ok(Arrived::Execute(Program { program, arguments, session }));
        }
    };
    let entry = module::address_of(entry).map_err(|lost| match lost {
        module::Lost::NoSuchModule => {
            "its function is not in this program: the executable was replaced, or the library that holds the function is loaded later"
        }
        module::Lost::NotCode => "its function's place is not in the program's code",
    })?;
    // SAFETY: the parent took the place of a function of this type; the module's hash says that the same code lies there.
    let run = unsafe { std::mem::transmute::<*const (), Trampoline>(entry as *const ()) };
    Ok(Arrived::Call(Call { run, arguments: arguments.to_vec(), bell }))
}

fn run(call: Call) -> Report {
    let Call { run, arguments, mut bell } = call;
    failpoint!("child.before_read");
    let mut have_read = || {
        failpoint!("child.read");
        if let Some(record) = RECORD.get() {
            record.say_read();
        }
        failpoint!("child.said_read");
        if let Some(bell) = bell.take() {
            watch::ring(bell.as_fd());
        }
        failpoint!("child.rung");
    };
    caught(|| run(&arguments, &mut have_read))
}

/// What `body` reports; a panic is printed, written into the record, and ends this process.
fn caught(body: impl FnOnce() -> Report) -> Report {
    let (default, thread) = (std::panic::take_hook(), std::thread::current().id());
    std::panic::set_hook(Box::new(move |info| {
        complain("a panic:");
        default(info);
        if std::thread::current().id() == thread {
            let message = describe(info);
            if let (true, Some(record)) = (cfg!(panic = "abort"), RECORD.get()) {
                record.say(Some(&message));
            }
            *locked(&PANIC) = Some(message);
        }
    }));
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(report) => report,
        Err(payload) => {
            let said = locked(&PANIC).take().unwrap_or_else(|| format!("panicked: {}", text(&*payload)));
            // The default hook has printed it.
            if let Some(record) = RECORD.get() {
                record.say(Some(&said));
            }
            std::process::exit(1);
        }
    }
}

/// What a panic said, and where.
pub(crate) fn describe(info: &PanicHookInfo<'_>) -> String {
    let message = text(info.payload());
    info.location().map_or_else(|| format!("panicked: {message}"), |place| format!("panicked at {place}: {message}"))
}

/// What a panic said.
pub(crate) fn text(payload: &(dyn std::any::Any + Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "(something that is not text)",
    }
}

// ---- the end ---------------------------------------------------------------------------------------------------------

static ENDING: AtomicBool = AtomicBool::new(false);

/// Whether this process is at its orderly end.
pub(super) fn is_ending() -> bool {
    ENDING.load(Ordering::Relaxed)
}

/// Sees to the orderly end of this process. For those that start children before the hook has run.
pub(super) fn end_orderly() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| proc::at_exit(at_exit));
}

/// What ends the library's other threads, before the children are waited for.
static BEFORE_END: OnceLock<fn()> = OnceLock::new();

/// Has `stop` called at the orderly end of this process, before its children are waited for.
pub(crate) fn before_end(stop: fn()) {
    let _ = BEFORE_END.set(stop);
}

/// Whether this is the last thread but for the spawner. One that was joined is counted for a moment longer by the kernel.
fn is_alone(was_joined: bool) -> bool {
    if proc::is_single_threaded() {
        return true;
    }
    let begin = Instant::now();
    loop {
        let alone = proc::threads() <= 1 + spawner::own_threads();
        if alone || !was_joined || begin.elapsed() > LINGERING {
            return alone;
        }
        std::thread::yield_now();
    }
}

extern "C" fn at_exit() {
    let _ = catch_unwind(end);
}

/// The orderly end: pools are left, daemons are terminated, all children are joined, the segments are left.
fn end() {
    failpoint!("end.begun");
    ENDING.store(true, Ordering::Relaxed);
    let stop_pools = BEFORE_END.get();
    if let Some(stop) = stop_pools {
        stop();
    }
    let (daemons, others): (Vec<_>, Vec<_>) = spawner::children().into_iter().partition(|child| child.is_daemon());
    for daemon in &daemons {
        let _ = daemon.terminate();
    }
    for daemon in &daemons {
        // It would die with this process anyway.
        if daemon.inner.wait(Some(GRACE)).is_none() {
            let _ = daemon.kill();
            daemon.inner.wait(None);
        }
    }
    for child in &others {
        child.inner.wait(None);
    }
    spawner::end_server();
    interrupts::leave_segments();
    let was_joined = stop_pools.is_some() || crate::sync::has_bridge();
    crate::sync::stop_bridge();
    let attachments = known::all();
    // Another thread may be in the middle of something: then the kernel ends both at once, and the parent, or whoever
    // waits, repairs what is left.
    if !attachments.is_empty() && is_alone(was_joined) {
        failpoint!("end.before_detach");
        for attachment in attachments {
            attachment.detach();
        }
        failpoint!("end.detached");
    }
}

// ---- #[shmkit::main] ---------------------------------------------------------------------------------------------------

/// What `#[shmkit::main]` expands to.
#[doc(hidden)]
pub mod main_guard {
    use super::*;

    /// Enters the child, if this process is one that was not entered yet.
    pub fn begin() {
        enter();
    }

    /// What the user's `main` returned.
    #[allow(missing_debug_implementations)]
    pub struct Returned<R>(pub std::cell::Cell<Option<R>>);

    /// The end of a `main` whose result is an [`Outcome`]: an error's text goes to stderr.
    pub trait ViaOutcome {
        /// Ends the program.
        fn end(&self) -> ExitCode;
    }

    /// The end of any other `main`, as Rust does it.
    pub trait ViaTermination {
        /// Ends the program.
        fn end(&self) -> ExitCode;
    }

    impl<R: Outcome> ViaOutcome for Returned<R> {
        fn end(&self) -> ExitCode {
            let Some(Report { code, message }) = self.0.take().map(Outcome::report) else { return ExitCode::FAILURE };
            if let Some(message) = message {
                eprintln!("Error: {message}");
            }
            // One that was asked to end says so.
            let code = interrupts::exit_code().filter(|_| code != 0).unwrap_or(code);
            super::end();
            ExitCode::from(code as u8)
        }
    }

    impl<R: Termination> ViaTermination for &Returned<R> {
        fn end(&self) -> ExitCode {
            let Some(code) = self.0.take().map(Termination::report) else { return ExitCode::FAILURE };
            super::end();
            code
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_read_as_it_was_written() {
        let greeting = Greeting {
            record: (7, u32::MAX),
            parent: 4242,
            daemon: true,
            identity: Identity::default().child(1).child(12),
            session: "my session".to_owned(),
            name: "a/b c/".to_owned(),
        };
        assert_eq!(Greeting::parse(&greeting.to_string()), Some(greeting));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "1", "1/2/3/true/1/s", "1/2/3/maybe/1/s/n", "1/2/3/true/1:x/s/n", "-1/2/3/true/1/s/n"] {
            assert_eq!(Greeting::parse(text), None, "{text:?}");
        }
    }
}
