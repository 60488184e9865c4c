//! `cargo xtask kill-grid` and `cargo xtask soak`: the torture of `tests/torture`, built in release.

use crate::{Result, root};
use std::process::Command;

/// Runs a command of the torture with these words behind it.
pub fn run(words: &[&str]) -> Result {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--release", "-p", "shmkit-torture", "--"])
        .args(words)
        .current_dir(root())
        .status()
        .map_err(|error| format!("cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", words.join(" "))) }
}
