//! `cargo xtask bench` runs this.

use std::process::ExitCode;

fn main() -> ExitCode {
    shmkit_benches::Suite::standard().main(&std::env::args().skip(1).collect::<Vec<_>>())
}
