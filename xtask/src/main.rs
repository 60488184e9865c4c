//! The project's own commands. `cargo xtask` lists them.

mod asan;
mod bench;
mod crash_tables;
mod instructions;
mod layouts;
mod lint;
mod loom;
mod miri;
mod seeded;
mod steps;
mod test;
mod torture;

use std::path::PathBuf;
use std::process::ExitCode;

/// What a command gives: an error is a message for people.
type Result<T = ()> = std::result::Result<T, String>;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  layouts [--check]   write the C header, layouts.json and the tables of SPEC.md from the types;
                      with --check only tell which of them differ
  crash-tables [--check]
                      gather the modules' crash tables into docs/reliability.md; with --check only compare
  test                everything a fresh machine must pass; leaves nothing in /dev/shm
  bench [OPTIONS]     limits of the machine, shmkit and others, in one run; --help lists the options
  instructions [--check]
                      count the instructions of the hot paths and write them to benches/instructions.json;
                      with --check only compare
  lint                formatting, clippy and rustdoc, warnings denied
  loom                the lock-free code under loom: every interleaving, every reordering
  asan                the fuzzer, a peer that scribbles and tests of the objects, under AddressSanitizer
  miri                what is process-local, under Miri (nightly, with the component miri)
  kill-grid [--quick | --news | --full] [--seconds T] [--seed S] [--from OPERATION] [--only OPERATION [--n N[-M]]]
                      kills a process after every instruction of every operation, and looks at what survivors find
  kill-grid --seeded [--seed S | --fault NAME]
                      shows that the grid catches faults: a copy of the sources with some in it is built and tried
  soak [--minutes M] [--seed S]
                      a dozen processes at random work, killed, stopped and started; then what recovery takes
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["layouts"] => layouts::write(),
        ["layouts", "--check"] => layouts::check(),
        ["crash-tables"] => crash_tables::write(),
        ["crash-tables", "--check"] => crash_tables::check(),
        ["test"] => test::run(),
        ["lint"] => lint::run(),
        ["miri"] => miri::run(),
        ["loom"] => loom::run(),
        ["asan"] => asan::run(),
        ["kill-grid", "--seeded", ref words @ ..] => seeded::run(words),
        ["kill-grid" | "soak", ..] => torture::run(&words),
        ["bench", ref options @ ..] => bench::run(options),
        ["instructions"] => instructions::write(),
        ["instructions", "--check"] => instructions::check(),
        [] | ["help" | "-h" | "--help"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => Err(format!("{:?} is no command\n\n{USAGE}", words.join(" "))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {}", message.trim_end());
            ExitCode::FAILURE
        }
    }
}

/// The workspace's directory.
fn root() -> PathBuf {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    xtask.parent().map_or_else(|| xtask.clone(), PathBuf::from)
}
