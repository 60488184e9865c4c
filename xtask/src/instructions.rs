//! `cargo xtask instructions`: how many instructions the hot paths take, counted by callgrind.
//!
//! A count needs no quiet machine and no clock, and it is the same in every run: a slow-down is seen where times are noise.
//! Each path runs twice, for a different number of times; what is divided by the difference is free of start and end.

use crate::{Result, root};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the counts are kept.
const FILE: &str = "benches/instructions.json";
/// A path may take so much more than is written down.
const MARGIN: f64 = 1.05;
/// How often a path runs.
const COUNTS: [u64; 2] = [1000, 3000];

type Counts = BTreeMap<String, f64>;

/// What is written down: the counts, and the compiler whose code was counted.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Record {
    rustc: String,
    instructions: Counts,
}

/// The compiler's name and version, without its date.
fn rustc() -> Result<String> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = Command::new(rustc).arg("--version").output().map_err(|error| format!("rustc: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).split(' ').take(2).collect::<Vec<_>>().join(" "))
}

/// Counts, and writes the file.
pub fn write() -> Result {
    let Some(counts) = count()? else { return Err("valgrind is missing".to_owned()) };
    print(&counts, &read().unwrap_or_default().instructions);
    let record = Record { rustc: rustc()?, instructions: counts };
    let text = serde_json::to_string_pretty(&record).map_err(|error| error.to_string())?;
    std::fs::write(root().join(FILE), text + "\n").map_err(|error| format!("{FILE}: {error}"))
}

/// Counts, and compares with the file. Without valgrind, with another compiler, or on another architecture, it says so and
/// passes.
pub fn check() -> Result {
    if std::env::consts::ARCH != "x86_64" {
        println!("skipped: the counts in {FILE} are those of x86_64");
        return Ok(());
    }
    let Some(counts) = count()? else {
        println!("skipped: valgrind is missing, which counts the instructions of the hot paths");
        return Ok(());
    };
    let Record { rustc: compiler, instructions: known } = read()?;
    print(&counts, &known);
    let own = rustc()?;
    if own != compiler {
        println!("not compared: {FILE} was written with {compiler}, and this is {own}");
        return Ok(());
    }
    let wrong = differences(&counts, &known);
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(format!("{} (`cargo xtask instructions` writes the counts down)", wrong.join("; "))),
    }
}

/// What is slower than it was written down, and what is on one side only: a path that nobody counts any more is not checked.
fn differences(now: &Counts, known: &Counts) -> Vec<String> {
    let counted = now.iter().filter_map(|(name, &now)| match known.get(name) {
        Some(&before) if now > before * MARGIN => Some(format!("{name}: {now:.0} instead of {before:.0}")),
        Some(_) => None,
        None => Some(format!("{name} is not in {FILE}")),
    });
    let gone = known.keys().filter(|name| !now.contains_key(*name));
    counted.chain(gone.map(|name| format!("{name} is in {FILE}, and no path of that name is counted"))).collect()
}

fn print(counts: &Counts, known: &Counts) {
    println!("{:<36} {:>12} {:>12}", "instructions", "now", "written down");
    for (name, now) in counts {
        let before = known.get(name).map_or("–".to_owned(), |before| format!("{before:.0}"));
        println!("{name:<36} {now:>12.0} {before:>12}");
    }
}

fn read() -> Result<Record> {
    let text = std::fs::read_to_string(root().join(FILE)).map_err(|error| format!("{FILE}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("{FILE}: {error}"))
}

/// Instructions of each path; nothing if valgrind is missing.
fn count() -> Result<Option<Counts>> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return Ok(None);
    }
    let program = build()?;
    let run = |words: &[&str]| Command::new(&program).args(words).output().map_err(|error| error.to_string());
    let names = String::from_utf8_lossy(&run(&[])?.stdout).into_owned();
    let mut counts = Counts::new();
    for name in names.lines() {
        let [few, many] = [collected(&program, name, COUNTS[0])?, collected(&program, name, COUNTS[1])?];
        counts.insert(name.to_owned(), (many - few) / (COUNTS[1] - COUNTS[0]) as f64);
    }
    Ok(Some(counts))
}

/// Builds the program, without the peers of the benches.
fn build() -> Result<PathBuf> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let words = "build --release -p shmkit-benches --no-default-features --bin hot-paths --message-format=json";
    let output = Command::new(cargo)
        .args(words.split(' '))
        .current_dir(root())
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let made = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let program = made.rev().find_map(|message| message["executable"].as_str().map(PathBuf::from));
    match (output.status.success(), program) {
        (true, Some(program)) => Ok(program),
        _ => Err("the hot paths could not be built".to_owned()),
    }
}

fn collected(program: &Path, name: &str, count: u64) -> Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([name, &count.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let number = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match (output.status.success(), number) {
        (true, Some(number)) => Ok(number),
        _ => Err(format!("{name} under valgrind: {}", said.lines().last().unwrap_or("it failed"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(all: &[(&str, f64)]) -> Counts {
        all.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
    }

    #[test]
    fn a_slower_path_a_new_one_and_one_that_is_gone_are_told() {
        let known = counts(&[("fast", 100.0), ("gone", 10.0), ("slow", 100.0)]);
        let now = counts(&[("fast", 104.0), ("new", 1.0), ("slow", 106.0)]);
        let told = differences(&now, &known);
        assert_eq!(told.len(), 3, "{told:?}");
        for (text, start) in told.iter().zip(["new is not in", "slow: 106 instead of 100", "gone is in"]) {
            assert!(text.starts_with(start), "{text}");
        }
        assert!(differences(&known, &known).is_empty());
    }
}
