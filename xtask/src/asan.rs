//! `cargo xtask asan`: what hostile bytes could make read or write past an end, under AddressSanitizer.
//!
//! The sanitizer's flag is not stable, so the compiler is told to allow it. Everything is built into a directory of its own: the
//! flags are other ones.
//!
//! | flag | why |
//! |---|---|
//! | `-Zsanitizer=address` | what this is for |
//! | `-Cdebug-assertions`, `-Coverflow-checks` | a sum of hostile numbers that overflows is a panic in somebody's build |
//! | `--target` | else build scripts and macros would get the flags, too |
//! | `detect_leaks=0` | processes are killed and end in the middle; leaks of segments are counted by `verify` |

use crate::Result;
use crate::steps::{Run, Step, command};

macro_rules! sanitized {
    ($command:literal) => {
        concat!(
            "RUSTC_BOOTSTRAP=\"1\" ",
            "RUSTFLAGS=\"-Zsanitizer=address -Cdebug-assertions=on -Coverflow-checks=on\" ",
            "ASAN_OPTIONS=\"detect_leaks=0\" ",
            "CARGO_TARGET_DIR=\"target/asan\" ",
            "cargo ",
            $command
        )
    };
}

const STEPS: &[Step] = &[
    command("fuzz", sanitized!("run --release --target x86_64-unknown-linux-gnu -p shmkit-fuzz -- --seconds 30")),
    command(
        "a peer that scribbles",
        sanitized!("run --release --target x86_64-unknown-linux-gnu -p shmkit-fuzz -- --scribble --seconds 60"),
    ),
    command(
        "tests of the objects",
        sanitized!(
            "test --release --target x86_64-unknown-linux-gnu -p shmkit --test segment --test liveness --test sync --test wait_any \
             --test queues --test data --test dict --test list"
        ),
    ),
];

/// Runs all of them.
pub fn run() -> Result {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu")) {
        return Err("it is set up for x86_64-unknown-linux-gnu only".to_owned());
    }
    let mut run = Run::default();
    for step in STEPS {
        run.step(step);
    }
    run.finish()
}
