//! Torture: what the project promises, tried on real processes that are killed wherever it hurts.
//!
//! ```text
//! shmkit-torture soak [--minutes M] [--seed S] [--workers W] [--rounds R]
//! shmkit-torture kill-grid [--quick | --news | --full] [--seconds T] [--seed S] [--jobs J] [--from OPERATION]
//!                          [--only OPERATION [--n N[-M]]]
//! ```

mod board;
mod chain;
mod grid;
mod janitor;
mod operation;
mod random;
mod soak;
mod step;
mod subjects;

use std::process::ExitCode;

const USAGE: &str = "\
usage: shmkit-torture COMMAND

  kill-grid   kills a participant after every instruction of every operation
              --quick       a sample, five minutes (default)
              --news        every instruction behind which others can see something new, and a sample of pairs
              --full        every instruction
              --until-fault as --news, and the first fault ends it
              --seconds T   what --quick may take
              --seed S      what the sample follows from
              --jobs J      processes at work; as many as there are CPUs by default
              --from OP     that operation and those behind it
              --only OP     one operation or a family, `recover/` before it or not; may be given several times
              --n N[-M]     with --only: its runs at instruction N, or N to M

  soak        a dozen processes at random work, killed, stopped and started at random; then what recovery takes
              --minutes M   of work (default 1)
              --seed S      what the work follows from
              --workers W   processes at work (default 12)
              --rounds R    deaths of each kind whose recovery is measured (default 400; 0: none)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.split_first() {
        Some((&"kill-grid", rest)) => grid::main(rest),
        Some((&"soak", rest)) => soak::main(rest),
        Some((&soak::AGAIN, rest)) => soak::again(rest),
        _ => Err(USAGE.to_owned()),
    };
    outcome.unwrap_or_else(|message| {
        eprintln!("shmkit-torture: {}", message.trim_end());
        ExitCode::FAILURE
    })
}
