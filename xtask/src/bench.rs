//! `cargo xtask bench`: builds the benchmark harness and runs it, with a Python that has its peers.

use crate::{Result, root};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs the harness with the words of the command line.
pub fn run(words: &[&str]) -> Result {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let harness_with = |command: &str, features: &[&str]| {
        let mut harness = Command::new(&cargo);
        harness
            .args([command, "--quiet", "--release", "-p", "shmkit-benches", "--bin", "shmkit-benches"])
            .args(features);
        harness
    };
    // Some of the others need a C compiler and libclang: without them their rows are missing, not the harness.
    let peers = ["--features", "peers"];
    let builds = harness_with("build", &peers).status().is_ok_and(|status| status.success());
    if !builds {
        eprintln!("xtask: the peers do not build here (they need libclang): their rows are left out");
    }
    let mut harness = harness_with("run", if builds { &peers } else { &[] });
    harness.arg("--").args(words);
    if let Some(python) = python() {
        harness.env("SHMKIT_BENCH_PYTHON", python);
    }
    // Not in the workspace's root: paths of files are those of whoever calls.
    let status = harness.status().map_err(|error| format!("cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("the harness ended with {status}")) }
}

/// The interpreter of a virtual environment under `target/`, made at the first use, with faster-fifo in it. Without a network
/// or a compiler it has none, and the harness says so.
fn python() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let venv = target.join("bench-venv");
    let python = venv.join("bin/python");
    let succeeds = |command: &mut Command| command.status().is_ok_and(|status| status.success());
    // Both may be done again: what failed, or was broken off, is tried at the next run.
    let made = has_faster_fifo(&python)
        || succeeds(Command::new("python3").args(["-m", "venv"]).arg(&venv))
            && succeeds(Command::new(&python).args(INSTALL));
    if !made {
        eprintln!("xtask: faster-fifo could not be installed into {}", venv.display());
    }
    python.exists().then_some(python)
}

/// What pip is asked for; without a network it is to say so soon.
const INSTALL: [&str; 9] = [
    "-m",
    "pip",
    "install",
    "--quiet",
    "--disable-pip-version-check",
    "--retries=1",
    "--timeout=10",
    "faster-fifo",
    "setuptools",
];

fn has_faster_fifo(python: &Path) -> bool {
    let output = Command::new(python).args(["-c", "import faster_fifo"]).output();
    output.is_ok_and(|output| output.status.success())
}
