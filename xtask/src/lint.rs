//! `cargo xtask lint`: formatting, lints and documentation, warnings denied.

use crate::Result;
use crate::steps::{Run, Step, command};

const STEPS: &[Step] = &[
    command("format", "cargo fmt --all --check"),
    // The peers of the benchmarks need libclang: they are not what CI is for.
    command("clippy", "cargo clippy --workspace --exclude shmkit-benches --all-targets --all-features -- -D warnings"),
    command("clippy of the benchmarks", "cargo clippy -p shmkit-benches --all-targets -- -D warnings"),
    command("rustdoc", "RUSTDOCFLAGS=\"-D warnings\" cargo doc --no-deps --workspace"),
];

/// Runs all of them.
pub fn run() -> Result {
    let mut run = Run::default();
    for step in STEPS {
        run.step(step);
    }
    run.finish()
}
