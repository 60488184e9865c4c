//! Running commands one after the other, with their names and durations.

use crate::{Result, root};
use std::process::Command;
use std::time::{Duration, Instant};

/// Something that passes or fails.
pub struct Step {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub action: Action,
}

/// What a step does.
pub enum Action {
    /// A command line in the workspace's root, split at its spaces. Words of the form `NAME="a b"` before it are its environment.
    Command(&'static str),
    /// Something this program does itself.
    Call(fn() -> Result),
}

/// A step that runs a command.
pub const fn command(name: &'static str, command: &'static str) -> Step {
    Step { name, action: Action::Command(command) }
}

/// A step of this program.
pub const fn call(name: &'static str, call: fn() -> Result) -> Step {
    Step { name, action: Action::Call(call) }
}

struct Outcome {
    name: &'static str,
    passed: bool,
    took: Duration,
}

/// The steps that ran, and how they ended.
#[derive(Default)]
pub struct Run {
    outcomes: Vec<Outcome>,
}

impl Run {
    /// Runs a step, whatever became of those before it.
    pub fn step(&mut self, step: &Step) {
        let what = match step.action {
            Action::Command(line) => format!(": {line}"),
            Action::Call(_) => String::new(),
        };
        println!("== {}{what}", step.name);
        let start = Instant::now();
        let result = match step.action {
            Action::Command(line) => execute(line),
            Action::Call(call) => call(),
        };
        self.record(step.name, start, result);
    }

    /// Records what a step of the caller's own gave.
    pub fn record(&mut self, name: &'static str, start: Instant, result: Result) {
        let took = start.elapsed();
        match &result {
            Ok(()) => println!("-- {name}: passed in {:.1} s", took.as_secs_f64()),
            Err(why) => println!("-- {name}: FAILED in {:.1} s: {why}", took.as_secs_f64()),
        }
        self.outcomes.push(Outcome { name, passed: result.is_ok(), took });
    }

    /// Prints what passed and what failed; the last line is `N passed, N failed`.
    pub fn finish(self) -> Result {
        println!();
        for Outcome { name, passed, took } in &self.outcomes {
            println!("{:>8.1} s  {}  {name}", took.as_secs_f64(), if *passed { "passed" } else { "FAILED" });
        }
        let failed: Vec<&str> = self.outcomes.iter().filter(|step| !step.passed).map(|step| step.name).collect();
        println!("{} passed, {} failed", self.outcomes.len() - failed.len(), failed.len());
        if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
    }
}

fn execute(line: &str) -> Result {
    let mut environment = Vec::new();
    let mut rest = line;
    while let Some((name, value, after)) = leading_variable(rest) {
        environment.push((name, value));
        rest = after;
    }
    let mut words = rest.split_whitespace();
    let program = words.next().ok_or("there is no command")?;
    // The cargo that runs this program, whichever toolchain it is of.
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let status = Command::new(if program == "cargo" { &cargo } else { program })
        .args(words)
        .envs(environment)
        .current_dir(root())
        .status()
        .map_err(|error| format!("{program}: {error}"))?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

/// `NAME="a b" rest` taken apart.
fn leading_variable(line: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = line.split_once("=\"")?;
    if name.contains(' ') {
        return None;
    }
    let (value, rest) = rest.split_once('"')?;
    Some((name, value, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_may_begin_with_its_environment() {
        assert_eq!(leading_variable("A=\"b c\" d e"), Some(("A", "b c", "d e")));
        assert_eq!(leading_variable("d --x=\"y\""), None);
        assert_eq!(execute("ANSWER=\"4 2\" printenv ANSWER"), Ok(()));
        assert!(execute("printenv SHMKIT_THERE_IS_NO_SUCH_VARIABLE").is_err());
    }

    #[test]
    fn a_failed_step_does_not_stop_the_others_and_fails_the_run() {
        let mut run = Run::default();
        run.step(&command("wrong", "false"));
        run.step(&command("right", "true"));
        run.step(&call("own", || Ok(())));
        assert_eq!(run.outcomes.iter().map(|step| step.passed).collect::<Vec<_>>(), [false, true, true]);
        assert_eq!(run.finish(), Err("failed: wrong".to_owned()));
    }
}
