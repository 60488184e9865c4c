//! What messages of errors name.

use std::fmt;

/// How a process is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartMethod;

impl fmt::Display for StartMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("spawn")
    }
}
