//! `#[shmkit::main]`, in a program whose `main` it is: this one has no test harness, and runs itself for each case.

use shmkit::{Process, current_process, parent_process};
use std::process::{Command, ExitCode, Output};

/// The result of the guarded `main`: an outcome of shmkit's.
#[shmkit::main]
fn main() -> Result<(), String> {
    match std::env::args().nth(1).as_deref() {
        Some("ok") => Ok(()),
        Some("error") => Err("a text, not its debug form".to_owned()),
        Some("panic") => panic!("in main"),
        Some("children") => children(),
        // Asked of a test program by those who list and filter tests.
        Some("--list") => Ok(()),
        _ => check_all(),
    }
}

/// Leaves a daemon and another child to the end of `main`.
fn children() -> Result<(), String> {
    assert!(parent_process().is_none());
    let daemon = Process::new(|| {
        loop {
            std::thread::park()
        }
    })
    .daemon(true)
    .start()
    .map_err(|error| error.to_string())?;
    let other = Process::new(say).args(("from the child".to_owned(),)).start().map_err(|error| error.to_string())?;
    println!("{} {}", daemon.name(), other.name());
    Ok(())
}

fn say(what: String) {
    assert_eq!(current_process().name(), "Process-2");
    println!("{what}");
}

fn run(case: &str) -> Output {
    Command::new(std::env::current_exe().expect("this program")).arg(case).output().expect("a child")
}

fn check_all() -> Result<(), String> {
    let output = run("ok");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");

    let output = run("error");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "Error: a text, not its debug form\n");

    let output = run("panic");
    assert_eq!(output.status.code(), Some(101));
    assert!(String::from_utf8_lossy(&output.stderr).contains("in main"));

    // Its output ends only when both children are gone.
    let output = run("children");
    assert!(output.status.success(), "{output:?}");
    // Who of the two speaks first is open.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["Process-1 Process-2", "from the child"]);

    returns::check();
    println!("main_guard: all checks passed");
    Ok(())
}

/// Other results that a `main` may have: each of these is expanded as `main` would be.
mod returns {
    use super::ExitCode;

    mod unit {
        #[shmkit::main]
        pub fn main() {}
    }
    mod termination {
        #[shmkit::main]
        pub fn main() -> super::ExitCode {
            super::ExitCode::from(9)
        }
    }
    mod debug_only {
        #[derive(Debug)]
        pub struct NoText;
        #[shmkit::main]
        pub fn main() -> Result<(), NoText> {
            Ok(())
        }
    }
    mod boxed {
        #[shmkit::main]
        pub fn main() -> Result<(), Box<dyn std::error::Error>> {
            Ok(())
        }
    }

    /// They compile, and give the exit code that Rust would.
    pub fn check() {
        let mains: [(fn() -> ExitCode, u8); 4] =
            [(unit::main, 0), (termination::main, 9), (debug_only::main, 0), (boxed::main, 0)];
        for (main, code) in mains {
            assert_eq!(format!("{:?}", main()), format!("{:?}", ExitCode::from(code)));
        }
    }
}
