//! [`StartMethod`]: how children come into being.

use crate::error::{ProcessError, Result};
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

/// How a child comes into being.
///
/// Objects work under all methods, mixed, and can be sent from any child to any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartMethod {
    /// A new process of the same executable: nothing is inherited but what is listed in [the module](crate::process).
    Spawn,
    /// A copy of a warm process that has one thread, loaded what [`set_forkserver_preload`](super::set_forkserver_preload) named,
    /// and was started when the first child of this kind was. Faster than `Spawn`, and as safe: no thread is ever copied. The
    /// child has the command line, environment and directory that the server was started with.
    ForkServer,
}

impl StartMethod {
    const ALL: [StartMethod; 2] = [StartMethod::Spawn, StartMethod::ForkServer];
}

impl fmt::Display for StartMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StartMethod::Spawn => "spawn",
            StartMethod::ForkServer => "forkserver",
        })
    }
}

impl std::str::FromStr for StartMethod {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<StartMethod, String> {
        let known = StartMethod::ALL.into_iter().find(|method| method.to_string() == name);
        known.ok_or_else(|| format!("{name:?} is no start method: there are \"spawn\" and \"forkserver\""))
    }
}

/// 0 while nobody has chosen, else the number of the method and 1.
static CHOSEN: AtomicU8 = AtomicU8::new(0);

/// The start methods there are, the default first.
pub fn all_start_methods() -> [StartMethod; 2] {
    StartMethod::ALL
}

/// The method of children whose builder names none: `Spawn`, unless another was set.
pub fn start_method() -> StartMethod {
    // Relaxed: the number is all there is to see.
    let chosen = CHOSEN.load(Ordering::Relaxed);
    StartMethod::ALL.get(usize::from(chosen.saturating_sub(1))).copied().unwrap_or(StartMethod::Spawn)
}

/// Sets the method of children whose builder names none, once for the program.
///
/// # Errors
/// `MethodFixed` if it was set before, to another one.
///
/// # Examples
/// ```
/// use shmkit::process::{StartMethod, set_start_method, start_method};
///
/// # fn main() -> shmkit::Result<()> {
/// assert_eq!(start_method(), StartMethod::Spawn);
/// set_start_method(StartMethod::ForkServer)?;
/// assert!(set_start_method(StartMethod::Spawn).is_err());
/// # Ok(())
/// # }
/// ```
pub fn set_start_method(method: StartMethod) -> Result<()> {
    let chosen = method as u8 + 1;
    match CHOSEN.compare_exchange(0, chosen, Ordering::Relaxed, Ordering::Relaxed) {
        Err(before) if before != chosen => Err(ProcessError::MethodFixed { method: start_method() }.into()),
        _ => Ok(()),
    }
}
