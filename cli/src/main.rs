//! The `shmkit` command: looks at shared-memory segments and removes them.
//!
//! Exit codes: 0 done, 1 something was not found or could not be done, 2 wrong arguments.

mod commands;
mod print;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Looks at shared-memory segments and removes them.
#[derive(Parser)]
#[command(name = "shmkit", version, about)]
struct Arguments {
    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the named segments of this user.
    Ls,
    /// Show the objects and the participants of one segment.
    Show {
        /// The segment's name.
        name: String,
    },
    /// Take names away; memory goes with the last process that uses it.
    Rm {
        /// Names of segments.
        #[arg(required = true)]
        names: Vec<String>,
        /// Say nothing of names that are not there.
        #[arg(short, long)]
        force: bool,
    },
    /// Take away the names of segments whose users were all killed. Touches nothing that is in use.
    Gc,
    /// Measure this machine: its limits, shmkit, and others. `shmkit bench --help` lists the options.
    #[cfg(feature = "bench")]
    #[command(disable_help_flag = true)]
    Bench {
        /// Options of the benchmark harness.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Recover what dead participants left in a segment and check that it is sound.
    Verify {
        /// The segment's name.
        name: String,
    },
}

fn main() -> ExitCode {
    #[cfg(feature = "bench")]
    if shmkit_benches::ends_at_once() {
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Ls => commands::ls(arguments.json),
        Command::Show { name } => commands::show(&name, arguments.json),
        Command::Rm { names, force } => commands::rm(&names, force),
        Command::Gc => commands::gc(arguments.json),
        #[cfg(feature = "bench")]
        Command::Bench { options } => return shmkit_benches::Suite::standard().under(&["bench"]).main(&options),
        Command::Verify { name } => commands::verify(&name),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("shmkit: {error}");
            ExitCode::from(1)
        }
    }
}
