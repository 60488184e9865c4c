//! [`Builder`]: a process that is not started yet.

use super::child::{ExitStatus, Process};
use super::current;
use super::entry;
use super::method::{StartMethod, start_method};
use super::options::{Options, option_methods};
use super::record::{Record, Task, Work};
use super::spawner::{self, Origin, Request};
use super::target::{Outcome, Run, Target, Trampoline, assert_no_captures, explain, trampoline};
use crate::error::{Error, ProcessError, Result};
use crate::segment::object::{Carrier, sending};
use crate::segment::session;
use crate::sys::module;
use crate::sys::spawn::Plan;
use serde::{Serialize, de::DeserializeOwned};
use std::any::Any;
use std::ffi::{CString, OsString};
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;

/// A process to be started: [`Process::new`].
#[must_use = "nothing runs before `start`"]
pub struct Builder<F, A = ()> {
    target: F,
    arguments: A,
    prefix: &'static str,
    name: Option<String>,
    daemon: Option<bool>,
    method: Option<StartMethod>,
    options: Options,
    on_end: Option<OnEnd>,
}

/// What is told of a child's end.
pub(crate) type OnEnd = Box<dyn FnOnce(&ExitStatus) + Send>;

impl Process {
    /// A process that will run `target`: a function, or a closure that captures nothing. What it needs is given with
    /// [`Builder::args`].
    ///
    /// A target that captures something, or a `fn` pointer, is refused when the program is compiled.
    ///
    /// # Examples
    /// ```
    /// use shmkit::Process;
    ///
    /// # fn main() -> shmkit::Result<()> {
    /// let child = Process::new(|a: u32, b: u32| assert_eq!(a + b, 5)).args((2, 3)).start()?;
    /// assert!(child.join()?.success());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// ```compile_fail
    /// let n = 5;
    /// shmkit::Process::new(move || println!("{n}")).start();
    /// ```
    #[allow(clippy::new_ret_no_self, reason = "reads as what it makes: `Process::new(f).args((…)).start()`")]
    pub fn new<F: Copy + Send + 'static>(target: F) -> Builder<F> {
        const { assert_no_captures::<F>() };
        Builder {
            target,
            arguments: (),
            prefix: "Process",
            name: None,
            daemon: None,
            method: None,
            options: Options::default(),
            on_end: None,
        }
    }

    /// A process that will call `worker.run()`: see [`Run`].
    pub fn of<W: Run>(worker: W) -> Builder<impl Target<(W,), Outcome = W::Outcome>, (W,)> {
        let path = std::any::type_name::<W>();
        let path = path.split('<').next().unwrap_or(path);
        let prefix = path.rsplit("::").next().unwrap_or(path);
        Builder { prefix, ..Process::new(W::run) }.args((worker,))
    }
}

impl<F, A> Builder<F, A> {
    /// The arguments, as a tuple: serde values and shmkit handles. They travel through the session segment.
    pub fn args<B>(self, arguments: B) -> Builder<F, B>
    where
        F: Target<B>,
    {
        let Builder { target, prefix, name, daemon, method, options, on_end, .. } = self;
        Builder { target, arguments, prefix, name, daemon, method, options, on_end }
    }

    option_methods!();

    /// How it comes into being; by default as [`start_method`](super::start_method) says.
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.method = Some(method);
        self
    }

    /// Has `told` called at the child's end, after it was reaped and what it left was repaired, by the thread that does so:
    /// it must not block and not start processes.
    pub(crate) fn on_end(mut self, told: OnEnd) -> Self {
        self.on_end = Some(told);
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// `Start`: the arguments cannot be serialised, the system refuses another process, or this program does not enter its
    /// children (see [the module](crate::process)); the errors of [`session`] and of making an object in it.
    pub fn start(self) -> Result<Process>
    where
        F: Target<A, Outcome: Outcome>,
        A: Serialize + DeserializeOwned + Send + 'static,
    {
        let Builder { arguments, prefix, name, daemon, method, options, on_end, .. } = self;
        let run: Trampoline = trampoline::<F, A>;
        let (serialised, _) = sending(Carrier::Sender, || postcard::to_stdvec(&arguments));
        let refused = |why: String| ProcessError::Start { name: name.clone().unwrap_or(prefix.to_owned()), why };
        let entry = module::place_of(run as usize).ok_or_else(|| refused("its function is in no module".to_owned()))?;
        let serialised =
            serialised.map_err(|error| refused(format!("cannot write the arguments: {}", explain(error))))?;
        launch(Launch {
            prefix,
            name,
            daemon,
            origin: method.unwrap_or_else(start_method).into(),
            options,
            work: Work::Call(entry),
            serialised,
            kept: std::mem::needs_drop::<A>().then(|| Box::new(arguments) as Box<dyn Any + Send>),
            stdio: [const { None }; 3],
            on_end,
        })
    }
}

/// A child to be launched, whatever it does.
pub(super) struct Launch<'a> {
    pub prefix: &'a str,
    pub name: Option<String>,
    pub daemon: Option<bool>,
    pub origin: Origin,
    pub options: Options,
    pub work: Work,
    /// The arguments as bytes.
    pub serialised: Vec<u8>,
    /// The arguments, which keep alive what they name until the child has references of its own; `None` if they name nothing:
    /// what can be forgotten without a word.
    pub kept: Option<Box<dyn Any + Send>>,
    pub stdio: [Option<OwnedFd>; 3],
    pub on_end: Option<OnEnd>,
}

/// Names the child, writes its record, and has it started.
pub(super) fn launch(launch: Launch<'_>) -> Result<Process> {
    let Launch { prefix, name, daemon, origin, options, work, serialised, kept, stdio, on_end } = launch;
    let identity = current::next_child();
    let name = name.unwrap_or_else(|| format!("{prefix}-{identity}"));
    let refused = |why: String| Error::from(ProcessError::Start { name: name.clone(), why });
    entry::check().map_err(|why| refused(why.to_owned()))?;
    if name.contains('\0') {
        return Err(refused("its name holds a NUL".to_owned()));
    }
    options.check().map_err(refused)?;
    let session = session()?;
    let daemon = daemon.unwrap_or_else(|| current::current_process().is_daemon());
    let parent = current::current_process().name().to_owned();
    let task = Task { work, options, parent, is_awaited: kept.is_some() };
    let record = Record::new(&session, &task, &serialised)?;
    failpoint!("spawn.recorded");
    let greeting = entry::Greeting {
        record: record.id(),
        parent: std::process::id(),
        daemon,
        session: session.name().unwrap_or_default().to_owned(),
        identity,
        name: name.clone(),
    };
    let options = task.options;
    let request = Request { name, daemon, greeting, options, stdio, session, record, arguments: kept, on_end };
    spawner::start(request, origin)
}

/// This program's own arguments and environment.
pub(super) fn plan() -> Result<Plan, &'static str> {
    let c_string = |string: OsString| CString::new(string.into_vec()).map_err(|_| "a NUL in the environment");
    let arguments = std::env::args_os().map(c_string).collect::<Result<Vec<_>, _>>()?;
    let mut environment = Vec::new();
    for (name, value) in std::env::vars_os().filter(|(name, _)| name != entry::VARIABLE) {
        let mut pair = name;
        pair.push("=");
        pair.push(value);
        environment.push(c_string(pair)?);
    }
    Ok(Plan { arguments, environment, ..Plan::default() })
}

impl<F, A> fmt::Debug for Builder<F, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("name", &self.name).field("daemon", &self.daemon).finish_non_exhaustive()
    }
}
