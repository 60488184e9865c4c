//! Children for tests: this test program again, entered in a function of the test file before its `main`.
//!
//! A file lists its roles with [`roles!`], starts one with [`start`], and talks with it by lines of text.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const ROLE: &str = "SHMKIT_TEST_ROLE";
const ARGUMENTS: &str = "SHMKIT_TEST_ARGUMENTS";

/// Lists the functions a child may be entered in: `roles!(holder, taker);`, each `fn(&[String])`.
#[macro_export]
macro_rules! roles {
    ($($role:ident),* $(,)?) => {
        #[used]
        #[unsafe(link_section = ".init_array")]
        static ENTER: extern "C" fn() = {
            extern "C" fn enter() {
                $crate::common::enter(&[$((stringify!($role), $role as fn(&[String]))),*]);
            }
            enter
        };
    };
}

/// Name and function of a role.
pub type Role = (&'static str, fn(&[String]));

/// Runs the role the environment names, and ends the process.
pub fn enter(roles: &[Role]) {
    let Ok(wanted) = std::env::var(ROLE) else { return };
    let arguments: Vec<String> =
        std::env::var(ARGUMENTS).unwrap_or_default().split('\u{1f}').map(str::to_owned).collect();
    let (_, role) = roles.iter().find(|(name, _)| *name == wanted).expect("a role of this file");
    // What the child starts itself is not in a role.
    // SAFETY: no other thread runs yet.
    unsafe { std::env::remove_var(ROLE) };
    // A panic must not run into the C code that calls this.
    let ended = std::panic::catch_unwind(|| role(&arguments));
    std::process::exit(if ended.is_ok() { 0 } else { 101 });
}

/// A child in a role. Killed and reaped when dropped.
pub struct Child {
    child: std::process::Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    reaped: bool,
}

/// Starts this program in a role.
pub fn start(role: &str, arguments: &[&str]) -> Child {
    start_with(role, arguments, &[])
}

/// Starts this program in a role, with more in its environment.
pub fn start_with(role: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Child {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .env(ROLE, role)
        .env(ARGUMENTS, arguments.join("\u{1f}"))
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let input = child.stdin.take();
    let output = BufReader::new(child.stdout.take().expect("piped"));
    Child { child, input, output, reaped: false }
}

impl Child {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line the child says.
    ///
    /// # Panics
    /// When it ended without saying anything.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a pipe");
        assert!(line.ends_with('\n'), "the child ended without a word");
        line.truncate(line.len() - 1);
        line
    }

    /// All that is still said, until the last process that could say something is gone.
    pub fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("a pipe");
        rest
    }

    /// Waits until the child says `word`.
    pub fn expect(&mut self, word: &str) {
        assert_eq!(self.hear(), word);
    }

    /// Tells the child something.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.input.as_mut().expect("open"), "{line}").expect("a living child");
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill has no preconditions; the child is not reaped, so its pid is its own.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Kills it with SIGKILL and waits until the kernel has let go of it.
    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        assert_eq!(self.end().signal(), Some(libc::SIGKILL));
    }

    /// Waits for its end.
    pub fn end(&mut self) -> ExitStatus {
        drop(self.input.take());
        let status = self.child.wait().expect("a child");
        self.reaped = true;
        status
    }

    /// Waits until the child has stopped itself at an armed point.
    pub fn was_stopped(&mut self) {
        let mut status = 0;
        // SAFETY: waitpid with a child of this process and a place for its status; WUNTRACED reaps only if it has ended.
        unsafe { libc::waitpid(self.child.id() as i32, &raw mut status, libc::WUNTRACED) };
        assert!(libc::WIFSTOPPED(status), "the child has ended and not stopped: {status}");
    }

    /// Waits until the child has died by its armed kill point.
    pub fn was_killed(&mut self) {
        assert_eq!(self.end().signal(), Some(libc::SIGKILL), "the kill point was not reached");
    }

    /// Waits for its end, which must be a good one.
    pub fn succeeded(&mut self) {
        let status = self.end();
        assert!(status.success(), "the child failed: {status}");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// In a child: says a line to the parent.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("a parent that listens");
}

/// In a child: waits for a line from the parent; ends quietly if he is gone.
pub fn listen() -> String {
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line).unwrap_or(0) == 0 {
        std::process::exit(0);
    }
    line.trim_end().to_owned()
}

/// Waits until something is so. A process is dead to the others only once nobody in the system uses its memory any more: whoever
/// looks into its `/proc`, as `ps` does, holds that up for a moment.
pub fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        std::thread::yield_now();
    }
}

/// Whether the process, or this process's thread, of this id sleeps: in a system call that waits for something.
pub fn is_asleep(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// Says on the terminal, past libtest's capture, why a test was not run. Fails it where none may be missing: with `SHMKIT_NO_SKIPS` in
/// the environment.
pub fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped {test}: {why}");
    assert!(std::env::var_os("SHMKIT_NO_SKIPS").is_none(), "skipped: {why}");
}

/// A name for a segment that no other test has.
pub fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A named segment that is unlinked when dropped, however the test ends.
pub struct Named {
    pub segment: shmkit::Segment,
    pub name: String,
}

/// Creates one.
pub fn named(what: &str) -> Named {
    named_with(what, shmkit::LifePolicy::Manual)
}

/// As [`named`], with a policy.
pub fn named_with(what: &str, policy: shmkit::LifePolicy) -> Named {
    let name = unique(what);
    Named { segment: shmkit::Segment::builder().policy(policy).create(&name).expect("a segment"), name }
}

impl std::ops::Deref for Named {
    type Target = shmkit::Segment;

    fn deref(&self) -> &shmkit::Segment {
        &self.segment
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = shmkit::Segment::unlink(&self.name);
    }
}

// ---- pools ----------------------------------------------------------------------------------------------------------------

/// Why a task failed.
pub fn task_error<T>(result: Result<T, shmkit::Error>) -> shmkit::TaskError {
    match result {
        Err(shmkit::Error::Task(error)) => error,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("no error"),
    }
}

/// Kills this worker.
pub fn die() {
    // SAFETY: raise has no preconditions.
    unsafe { libc::raise(libc::SIGKILL) };
}
