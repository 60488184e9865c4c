//! [`Command`]: any program as a child, attached to the session by its environment.
//!
//! The child is this executable first: it makes itself as the options say, asks to die with its parent if it is a daemon, and
//! then becomes the program. So the same is true of it as of every other child.

use super::builder::{Launch, launch};
use super::child::Process;
use super::method::StartMethod;
use super::options::{Options, option_methods};
use super::record::Work;
use crate::error::Result;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{ChildStderr, ChildStdin, ChildStdout};

/// What a program has as its standard input, output or error.
///
/// Files, sockets, the ends of [`std::io::pipe`] and what [`std::process::Command`] gives of its children can be used as they are.
///
/// # Examples
/// ```
/// use shmkit::Process;
/// use std::io::{Read, Write};
///
/// # fn main() -> shmkit::Result<()> {
/// let ((input, mut to_it), (mut from_it, output)) = (std::io::pipe()?, std::io::pipe()?);
/// let program = Process::command("tr").args(["a-z", "A-Z"]).stdin(input).stdout(output).start()?;
/// to_it.write_all(b"hello")?;
/// drop(to_it);
/// let mut answer = String::new();
/// from_it.read_to_string(&mut answer)?;
/// assert_eq!(answer, "HELLO");
/// program.join()?.check()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
#[non_exhaustive]
pub enum Stdio {
    /// What its parent has; nothing as standard input.
    #[default]
    Usual,
    /// What its parent has, as standard input, too.
    Inherit,
    /// Nothing: `/dev/null`.
    Null,
    /// This file, pipe or socket.
    Fd(OwnedFd),
}

macro_rules! stdio_from {
    ($($what:ty),* $(,)?) => {
        $(impl From<$what> for Stdio {
            fn from(what: $what) -> Stdio {
                Stdio::Fd(what.into())
            }
        })*
    };
}
stdio_from!(File, PipeReader, PipeWriter, UnixStream, ChildStdin, ChildStdout, ChildStderr);

impl From<OwnedFd> for Stdio {
    fn from(fd: OwnedFd) -> Stdio {
        Stdio::Fd(fd)
    }
}

impl Stdio {
    /// The descriptor it is to have as standard input, output or error, unless that is the usual one.
    fn into_fd(self, usual: BorrowedFd<'_>) -> std::io::Result<Option<OwnedFd>> {
        Ok(match self {
            Stdio::Usual => None,
            // Descriptor 0, 1 or 2 as it is when this is called; closed, it is an error.
            Stdio::Inherit => Some(usual.try_clone_to_owned()?),
            Stdio::Null => Some(File::options().read(true).write(true).open("/dev/null")?.into()),
            Stdio::Fd(fd) => Some(fd),
        })
    }
}

/// A program that is not started yet: [`Process::command`].
///
/// # Examples
/// ```
/// use shmkit::Process;
///
/// # fn main() -> shmkit::Result<()> {
/// let program = Process::command("sh").args(["-c", "exit $CODE"]).env("CODE", "3").start()?;
/// assert_eq!(program.join()?.exit_code(), Some(3));
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing runs before `start`"]
pub struct Command {
    program: OsString,
    arguments: Vec<OsString>,
    stdio: [Stdio; 3],
    name: Option<String>,
    daemon: Option<bool>,
    options: Options,
}

impl Process {
    /// A program: a path, or a name that is looked for in `PATH`.
    ///
    /// It finds the session segment through its environment: `SHMKIT_SESSION` names it, or `SHMKIT_SESSION_FD` is the number of
    /// a descriptor of it. A program that uses shmkit attaches with [`crate::session`].
    pub fn command(program: impl Into<OsString>) -> Command {
        let stdio = [Stdio::Usual, Stdio::Usual, Stdio::Usual];
        let (program, arguments, options) = (program.into(), Vec::new(), Options::default());
        Command { program, arguments, stdio, name: None, daemon: None, options }
    }
}

impl Command {
    option_methods!();

    /// One more argument.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// More arguments.
    pub fn args<S: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Its standard input: nothing unless told otherwise.
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdio[0] = stdin.into();
        self
    }

    /// Its standard output.
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdio[1] = stdout.into();
        self
    }

    /// Its standard error.
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.stdio[2] = stderr.into();
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// As [`Builder::start`](super::Builder::start). A program that cannot be executed is exit code 127, with the reason as the
    /// message of [`ExitStatus`](super::ExitStatus).
    pub fn start(self) -> Result<Process> {
        let Command { program, arguments, stdio: [stdin, stdout, stderr], name, daemon, options } = self;
        let stdio = [
            stdin.into_fd(std::io::stdin().as_fd())?,
            stdout.into_fd(std::io::stdout().as_fd())?,
            stderr.into_fd(std::io::stderr().as_fd())?,
        ];
        let prefix = std::path::Path::new(&program).file_name().unwrap_or(&program).to_string_lossy().into_owned();
        let work = Work::Execute { program, arguments };
        launch(Launch {
            prefix: &prefix,
            name,
            daemon,
            origin: StartMethod::Spawn.into(),
            options,
            work,
            serialised: Vec::new(),
            kept: None,
            stdio,
            on_end: None,
        })
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("program", &self.program)
            .field("arguments", &self.arguments)
            .finish_non_exhaustive()
    }
}
