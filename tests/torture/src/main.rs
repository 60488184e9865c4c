//! Torture: what the project promises, tried on real processes that are killed wherever it hurts.
//!
//! ```text
//! shmkit-torture kill-grid [--quick | --full] [--seconds T] [--seed S] [--jobs J] [--only OPERATION [--n N[-M]]]
//! ```

mod board;
mod grid;
mod janitor;
mod operation;
mod step;
mod subjects;

use std::process::ExitCode;

const USAGE: &str = "\
usage: shmkit-torture COMMAND

  kill-grid   kills a participant after every instruction of every operation
              --quick       a sample, five minutes (default)
              --full        every instruction
              --seconds T   no further pass over the operations begins after that time
              --seed S      what the sample follows from
              --jobs J      processes at work; as many as there are CPUs by default
              --only OP     one operation, or those that begin so
              --n N[-M]     with --only: its runs at instruction N, or N to M
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.split_first() {
        Some((&"kill-grid", rest)) => grid::main(rest),
        _ => Err(USAGE.to_owned()),
    };
    outcome.unwrap_or_else(|message| {
        eprintln!("shmkit-torture: {}", message.trim_end());
        ExitCode::FAILURE
    })
}
