//! `cargo xtask miri`: what is process-local and makes no system call, run by Miri.
//!
//! Miri knows neither shared mappings nor futexes, so most of shmkit is beyond it. What is left is named here, test by test: a
//! filter that matches nothing passes, and proves nothing.

use crate::{Result, root};
use std::process::{Command, Stdio};

/// Tests of one target.
struct Target {
    name: &'static str,
    /// Which target, for cargo.
    arguments: &'static [&'static str],
    tests: &'static [&'static str],
}

const TARGETS: &[Target] = &[
    Target {
        name: "packed words",
        arguments: &["-p", "shmkit-layouts", "--lib"],
        tests: &[
            "bits::tests::fields_do_not_overlap_and_fit_their_word",
            "bits::tests::the_table_says_what_pack_does",
            "bits::tests::the_table_is_complete",
            "bits::tests::what_is_packed_unpacks_to_the_same",
        ],
    },
    Target {
        name: "messages, keys and arithmetic of blocks",
        arguments: &["-p", "shmkit", "--lib"],
        tests: &[
            "channel::codec::tests::plain_values_have_plain_tags",
            "channel::codec::tests::everything_else_is_postcards",
            "channel::codec::tests::what_others_send_is_read_where_it_makes_sense",
            "data::node::tests::bytes_spill_where_they_are_too_many",
            "data::node::tests::what_is_written_in_another_type_is_another_key",
        ],
    },
    Target {
        name: "element types",
        arguments: &["-p", "shmkit", "--test", "element"],
        tests: &[
            "the_name_is_the_structs_or_the_given_one",
            "the_format_is_what_numpy_reads",
            "the_hash_tells_structures_apart_and_not_names",
            "padding_is_in_the_format",
            "a_parameter_makes_types_of_their_own",
        ],
    },
];

/// Runs all of them. Each must have been found.
pub fn run() -> Result {
    if !is_installed() {
        return Err("there is no Miri here: rustup toolchain install nightly --component miri".to_owned());
    }
    for Target { name, arguments, tests } in TARGETS {
        println!("== {name}: {} tests", tests.len());

        let mut command = nightly(&["miri", "test"]);
        command.args(*arguments).args(["--", "--exact"]).args(*tests);
        let output = command.stderr(Stdio::inherit()).output().map_err(|error| format!("rustup: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        print!("{text}");
        if !output.status.success() {
            return Err(format!("{name}: {}", output.status));
        }
        let passed = passed(&text);
        if passed != tests.len() {
            return Err(format!("{name}: {passed} tests ran, {} are listed in xtask/src/miri.rs", tests.len()));
        }
    }
    Ok(())
}

fn nightly(arguments: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    // The cargo that runs this program has set these for its own toolchain.
    command.env_remove("CARGO").env_remove("RUSTC").env_remove("RUSTDOC");
    command.args(["run", "nightly", "cargo"]).args(arguments).current_dir(root());
    command
}

fn is_installed() -> bool {
    let mut command = nightly(&["miri", "--version"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// How many tests libtest says have passed.
pub fn passed(output: &str) -> usize {
    let results = output.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    results.filter_map(|line| line.split(' ').next()?.parse::<usize>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_tests_are_counted_over_all_binaries() {
        let output = "test result: ok. 3 passed; 0 failed;\n\ntest result: ok. 2 passed; 0 failed;\n";
        assert_eq!(passed(output), 5);
        assert_eq!(passed("running 0 tests\n"), 0);
    }
}
