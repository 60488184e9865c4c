//! The examples, as a user runs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Once;

/// Where the examples lie: `cargo test` builds them beside the tests, `cargo test --test examples` alone does not.
fn directory() -> PathBuf {
    static BUILD: Once = Once::new();
    let directory = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples");
    BUILD.call_once(|| {
        if !directory.join("tour").exists()
            || !directory.join("wordcount").exists()
            || !directory.join("camera").exists()
        {
            let target = directory.ancestors().nth(2).unwrap();
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--quiet", "--examples", "--target-dir"]).arg(target);
            assert!(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
        }
    });
    directory
}

fn example(name: &str, arguments: &[&str]) -> Output {
    let program = directory().join(name);
    Command::new(&program).args(arguments).output().unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn the_tour_checks_every_section() {
    let text = said(&example("tour", &[]));
    assert_eq!(text.lines().last(), Some("tour: 13 of 13 sections ok"), "{text}");
}

/// Lines, words and bytes as the system's `wc` counts them in the C locale.
fn wc(files: &[PathBuf]) -> Option<[u64; 3]> {
    let output = Command::new("wc").env("LC_ALL", "C").args(files).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.lines().last()?.split_whitespace().map_while(|number| number.parse().ok());
    Some([numbers.next()?, numbers.next()?, numbers.next()?])
}

fn files_under(path: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(path).unwrap().flatten() {
        if entry.path().is_dir() { files_under(&entry.path(), files) } else { files.push(entry.path()) }
    }
}

#[test]
fn wordcount_agrees_with_wc_and_with_itself_whoever_is_killed() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let path = source.to_str().unwrap();
    let alone = said(&example("wordcount", &["--alone", path]));
    let figures = alone.lines().next().unwrap();
    for arguments in [&[path][..], &["--workers", "3", path], &["--kill", path]] {
        let together = said(&example("wordcount", arguments));
        assert!(together.lines().any(|line| line == figures), "{arguments:?}: {together} instead of {figures}");
    }
    let mut files = Vec::new();
    files_under(&source, &mut files);
    if let Some([lines, words, bytes]) = wc(&files) {
        assert_eq!(figures, format!("{lines} {words} {bytes} {}", files.len()));
    }
    assert!(!example("wordcount", &["/no/such/path"]).status.success());
}

#[test]
fn wordcount_counts_each_word_in_a_shared_dict_as_one_process_does() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let path = source.to_str().unwrap();
    // All but the last line, which says how long it took.
    let counts = |arguments: &[&str]| {
        let text = said(&example("wordcount", arguments));
        text.lines().rev().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let alone = counts(&["--dict", "--alone", path]);
    assert_eq!(alone.len(), 12, "ten words and the totals: {alone:?}");
    assert_eq!(alone[0].split(' ').nth(1), alone[1].split_whitespace().next(), "all words were counted: {alone:?}");
    assert_eq!(counts(&["--dict", "--workers", "3", path]), alone);
    assert!(!example("wordcount", &["--dict", "--kill", path]).status.success());
}

#[test]
fn the_camera_copies_nothing() {
    let name = format!("test-camera-{}", std::process::id());
    let text = said(&example("camera", &["--frames", "12", "--name", &name]));
    assert!(text.ends_with("every frame was whole, none was copied\n"), "{text}");
    assert!(!Path::new(&format!("/dev/shm/shmkit.{name}")).exists());
}
