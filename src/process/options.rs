//! What a child is to be like before its function, or its program, runs: applied by the child itself at its entry, so that it
//! is the same whatever started it.

use crate::sys::proc;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A limit of the system on what a process may use.
///
/// # References
/// `getrlimit(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Limit {
    /// Bytes of address space.
    AddressSpace,
    /// Bytes of a core dump.
    CoreSize,
    /// Seconds of CPU time.
    CpuTime,
    /// Bytes of a file that it writes.
    FileSize,
    /// Open descriptors.
    OpenFiles,
    /// Processes of its user.
    Processes,
    /// Bytes of the main thread's stack.
    StackSize,
}

/// The options of a child.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Options {
    pub directory: Option<PathBuf>,
    /// Variables that are set, or taken away.
    pub environment: Vec<(OsString, Option<OsString>)>,
    pub nice: Option<i32>,
    pub cpus: Option<Vec<usize>>,
    pub limits: Vec<(Limit, u64)>,
}

impl Options {
    /// Why they cannot be, if they cannot be.
    pub(super) fn check(&self) -> Result<(), String> {
        for (name, value) in &self.environment {
            let bytes = name.as_bytes();
            if bytes.is_empty() || bytes.contains(&b'=') || bytes.contains(&0) {
                return Err(format!("{name:?} cannot be the name of a variable"));
            }
            if value.as_ref().is_some_and(|value| value.as_bytes().contains(&0)) {
                return Err(format!("the value of {name:?} holds a NUL"));
            }
        }
        Ok(())
    }

    /// The child: makes itself like that.
    pub(super) fn apply(&self) -> Result<(), String> {
        for (limit, value) in &self.limits {
            proc::set_limit(*limit, *value).map_err(|error| format!("cannot set the limit {limit:?}: {error}"))?;
        }
        if let Some(nice) = self.nice {
            proc::set_nice(nice).map_err(|error| format!("cannot become as nice as {nice}: {error}"))?;
        }
        if let Some(cpus) = &self.cpus {
            proc::set_cpus(cpus).map_err(|error| format!("cannot run on the CPUs {cpus:?}: {error}"))?;
        }
        if let Some(directory) = &self.directory {
            std::env::set_current_dir(directory)
                .map_err(|error| format!("cannot enter {}: {error}", directory.display()))?;
        }
        for (name, value) in &self.environment {
            // SAFETY: the child has one thread at its entry.
            unsafe {
                match value {
                    Some(value) => std::env::set_var(name, value),
                    None => std::env::remove_var(name),
                }
            }
        }
        Ok(())
    }
}

/// The methods of a builder with `options`.
macro_rules! option_methods {
    () => {
        /// The directory it works in; its parent's by default.
        pub fn current_dir(mut self, directory: impl Into<std::path::PathBuf>) -> Self {
            self.options.directory = Some(directory.into());
            self
        }

        /// Sets a variable of its environment, which otherwise is its parent's.
        pub fn env(mut self, name: impl Into<std::ffi::OsString>, value: impl Into<std::ffi::OsString>) -> Self {
            self.options.environment.push((name.into(), Some(value.into())));
            self
        }

        /// Takes a variable out of its environment.
        pub fn env_remove(mut self, name: impl Into<std::ffi::OsString>) -> Self {
            self.options.environment.push((name.into(), None));
            self
        }

        /// How willingly it lets others run: −20 to 19. Less than the parent's needs a privilege.
        pub fn nice(mut self, nice: i32) -> Self {
            self.options.nice = Some(nice);
            self
        }

        /// The CPUs it may run on.
        pub fn cpu_affinity(mut self, cpus: impl IntoIterator<Item = usize>) -> Self {
            self.options.cpus = Some(cpus.into_iter().collect());
            self
        }

        /// The most it may use of something; cannot be raised again.
        pub fn limit(mut self, limit: $crate::process::Limit, value: u64) -> Self {
            self.options.limits.push((limit, value));
            self
        }

        /// Whether it is terminated when this process ends, instead of waited for; as this process is, by default. A daemon dies
        /// with its parent even when that is killed.
        pub fn daemon(mut self, daemon: bool) -> Self {
            self.daemon = Some(daemon);
            self
        }

        /// The name it is shown with.
        pub fn name(mut self, name: impl Into<String>) -> Self {
            self.name = Some(name.into());
            self
        }
    };
}
pub(super) use option_methods;
