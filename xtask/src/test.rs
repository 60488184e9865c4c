//! `cargo xtask test`: everything a fresh machine must pass.

use crate::steps::{Run, Step, call, command};
use crate::{Result, crash_tables, instructions, layouts, loom};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The steps in their order. Feature `failpoints` is what the crash tests kill processes with.
const STEPS: &[Step] = &[
    call("layouts", layouts::check),
    call("crash tables", crash_tables::check),
    command("layout tests", "cargo test -p shmkit-layouts --lib"),
    // Compiles C and C++. Uncaptured, since it says so where there is no compiler.
    command("C header", "cargo test -p shmkit-layouts --test c_header -- --nocapture"),
    command("models", "cargo test -p shmkit-models"),
    call("loom", loom::run),
    command(
        "tests",
        "cargo test --workspace --exclude shmkit-layouts --exclude shmkit-models \
         --features shmkit/failpoints,shmkit/indicatif,shmkit/tokio --no-fail-fast --lib --bins --tests --examples",
    ),
    // Built by the step before it.
    command(
        "ten thousand processes",
        "cargo test --workspace --exclude shmkit-layouts --exclude shmkit-models \
         --features shmkit/failpoints,shmkit/indicatif,shmkit/tokio --test many -- --ignored",
    ),
    command("doc tests", "cargo test --workspace --features shmkit/failpoints,shmkit/tokio --doc"),
    call("instructions of the hot paths", instructions::check),
    command("fuzz", "cargo run --release -p shmkit-fuzz -- --seconds 10"),
    command("a peer that scribbles", "cargo run --release -p shmkit-fuzz -- --scribble --seconds 10"),
];

/// Runs all of them, then looks at what they left in `/dev/shm`.
pub fn run() -> Result {
    let before = segments()?;
    let mut run = Run::default();
    for step in STEPS {
        run.step(step);
    }
    let name = "nothing left in /dev/shm";
    println!("== {name}");
    let start = Instant::now();
    run.record(name, start, nothing_left(&before));
    run.finish()
}

/// The files in `/dev/shm` that are shmkit's.
fn segments() -> Result<BTreeSet<String>> {
    let directory = std::fs::read_dir("/dev/shm").map_err(|error| format!("/dev/shm: {error}"))?;
    let names = directory.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| name.starts_with("shmkit")).collect())
}

/// Whether a process uses the file: another program of the machine, which is not this run's to judge.
fn is_mapped(name: &str) -> bool {
    let path = format!("/dev/shm/{name}");
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let maps = processes.filter_map(|process| std::fs::read_to_string(process.path().join("maps")).ok());
    maps.into_iter().any(|maps| maps.lines().any(|line| line.ends_with(&path)))
}

fn nothing_left(before: &BTreeSet<String>) -> Result {
    // Orphans of killed processes may still be on their way out.
    const PATIENCE: Duration = Duration::from_secs(5);
    let start = Instant::now();
    loop {
        let left: Vec<String> = segments()?.difference(before).filter(|name| !is_mapped(name)).cloned().collect();
        if left.is_empty() {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            return Err(left.join(", "));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
