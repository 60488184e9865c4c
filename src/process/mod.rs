//! Processes: what this one is called and what its environment says.

use std::sync::{Mutex, PoisonError};

static NAME: Mutex<Option<String>> = Mutex::new(None);

/// The name this process has in registries and messages: the one it was started with, or its executable's.
pub(crate) fn own_name() -> String {
    let name = NAME.lock().unwrap_or_else(PoisonError::into_inner);
    name.clone().unwrap_or_else(crate::sys::proc::executable_name)
}

/// A variable of the environment; none where the executable has more rights than its user.
pub(crate) fn environment(variable: &str) -> Option<String> {
    if crate::sys::proc::is_privileged() { None } else { std::env::var(variable).ok() }
}
