//! Torture: what the project promises, tried on real processes that are killed wherever it hurts.
//!
//! ```text
//! shmkit-torture kill-grid [--quick | --full] [--seed S] [--jobs J] [--only OPERATION[:n[-m][:seed]]]
//! ```

mod board;
mod grid;
mod operation;
mod step;
mod subjects;

use std::process::ExitCode;

const USAGE: &str = "\
usage: shmkit-torture COMMAND

  kill-grid   kills a participant after every instruction of every operation
              --quick       a sample, some minutes (default)
              --full        every instruction
              --seed S      what the sample follows from
              --jobs J      processes at work; as many as there are CPUs by default
              --only OP[:n[-m][:seed]]   one operation, or its runs at instruction n (to m)
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
