//! Processes: starting them with a function and its arguments, watching them, and learning how they ended.
//!
//! ```text
//! parent                                             child: the same executable
//! start()  record {function, arguments} in the session segment
//!          the spawner thread starts /proc/self/exe ───▶ entered before `main`; dies with its parent if it is a daemon;
//!          keeps the arguments alive                     joins the session, reads its record
//!          drops them                     ◀─── bell ──── has its own references
//!                                                        calls the function
//!          reaps, repairs, reads the end  ◀─ descriptor ─ writes its message, leaves the segments, ends
//! join()   ExitStatus
//! ```
//! A function is found again in the child as an offset in its module, whose build id and shape are compared. The child has
//! standard output and error of its parent, an empty standard input, its environment and command line, and no other
//! descriptors.
//!
//! Every program can have children, a test or a doc test, too. `#[shmkit::main]` on `fn main` adds that an `Err` ends the
//! program with its text instead of its debug form, that children are waited for and segments left while `main` still
//! stands, and that it works where functions before `main` are not given their arguments (musl). A child's function runs
//! before `main`: constructors that other crates run before `main` may not have run yet, its thread has no name, and an
//! overflow of its stack is a plain SIGSEGV.
//!
//! A panic ends a child with exit code 1; with SIGABRT in a program that is compiled with `panic = "abort"`. Its message and
//! place reach `join` in both cases.
//!
//! At a normal end of a process (return from `main`, `std::process::exit`), its daemons are terminated and joined, killed if
//! they take more than five seconds, and its other children are waited for.
//!
//! Ctrl-C sends SIGINT to every process of the terminal's group. A program that does not ask for more dies of it, silently, with
//! all that it started; the segments are repaired by whoever is left, as after any death. [`end_on_interrupt`] makes that an orderly
//! end: waits end, pools cancel what they have, `main` comes back and may tidy up.
//!
//! # Crash behaviour
//!
//! | killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | parent, before the child is started | a spawn record of a dead holder | recovery frees the record and the arguments' references | the child |
//! | parent, after the child is started, a daemon | the child is killed by the kernel, or ends at its entry | nobody needs to | the child |
//! | the same, not a daemon | the child runs on if it has read its record in time, else it fails with a message | recovery | arguments that nobody else holds |
//! | child, before it has read its arguments | exit code −9, the arguments alive | the parent, at once | nothing |
//! | child, after that | exit code −9 | the parent, at once: locks go on, messages are delivered again | what it had not committed |
//! | child, while it writes its message | exit code −9, no message | the parent frees the record | the message |
//! | both | the record of two dead holders | recovery | nothing of others |

#[cfg(feature = "tokio")]
mod asynchronous;
mod builder;
mod child;
mod command;
mod copied;
mod current;
#[doc(hidden)]
pub mod entry;
mod forkserver;
mod interrupts;
mod method;
mod options;
mod record;
mod spawner;
mod target;

pub use builder::Builder;
pub use child::{ExitStatus, Process};
pub use command::{Command, Stdio};
pub use copied::Fork;
pub use current::{CurrentProcess, ParentProcess, active_children, cpu_count, current_process, parent_process};
pub(crate) use entry::{before_end, describe as describe_panic, text as panic_text};
pub use forkserver::set_forkserver_preload;
pub use interrupts::end_on_interrupt;
pub(crate) use interrupts::on_interrupt;
pub use method::{StartMethod, all_start_methods, set_start_method, start_method};
pub use options::Limit;
pub(crate) use record::KIND;
pub(crate) use target::assert_no_captures;
pub use target::{Outcome, Run, Target};

use std::fmt;
use std::str::FromStr;

/// The name this process has in registries and messages: the one it was started with, or its executable's.
pub(crate) fn own_name() -> String {
    current::given_name().map_or_else(crate::sys::proc::executable_name, str::to_owned)
}

/// A variable of the environment; none where the executable has more rights than its user.
pub(crate) fn environment(variable: &str) -> Option<String> {
    if crate::sys::proc::is_privileged() { None } else { std::env::var(variable).ok() }
}

/// Which child of which child of the main process: `1:2`. The main process has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Identity(Vec<u32>);

impl Identity {
    /// The identity of child `number` of this process.
    fn child(mut self, number: u32) -> Identity {
        self.0.push(number);
        self
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, number) in self.0.iter().enumerate() {
            write!(f, "{}{number}", if i > 0 { ":" } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for Identity {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Identity, Self::Err> {
        text.split(':').map(str::parse).collect::<Result<_, _>>().map(Identity)
    }
}
