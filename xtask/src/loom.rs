//! `cargo xtask loom`: the lock-free code under loom, in every interleaving and reordering.

use crate::{Result, root};
use std::process::{Command, Stdio};

/// Tests of `tests/loom`: fewer would be a configuration that left some out.
const TESTS: usize = 26;

/// Builds the files under test with loom's atomics, and runs the tests.
pub fn run() -> Result {
    // A directory of its own: the flag changes what every crate is compiled to.
    let target = root().join("target/loom");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["test", "--release", "-p", "shmkit-loom", "--lib", "--target-dir"]).arg(target);
    command.env("RUSTFLAGS", "--cfg loom").current_dir(root()).stderr(Stdio::inherit());
    let output = command.output().map_err(|error| format!("cargo: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    if !output.status.success() {
        return Err(format!("loom: {}", output.status));
    }
    match crate::miri::passed(&text) {
        TESTS => Ok(()),
        passed => Err(format!("loom: {passed} tests ran, xtask/src/loom.rs says {TESTS}")),
    }
}
