//! The examples, as a user runs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Once;

/// The examples that are run here.
const EXAMPLES: [&str; 8] = ["camera", "consumer", "logs", "matrix", "producer", "thumbnails", "tour", "wordcount"];

/// Where the examples lie: `cargo test` builds them beside the tests, `cargo test --test examples` alone does not.
fn directory() -> PathBuf {
    static BUILD: Once = Once::new();
    let directory = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples");
    BUILD.call_once(|| {
        if !EXAMPLES.iter().all(|name| directory.join(name).exists()) {
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

/// A folder of its own, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(what: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("shmkit-test-{what}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_thumbnails_of_a_folder_are_whole_and_a_bad_picture_costs_itself_only() {
    let (source, target) = (Folder::new("pictures"), Folder::new("thumbnails"));
    for number in 0..9u8 {
        let picture = image::RgbImage::from_pixel(200, 100 + u32::from(number), image::Rgb([number; 3]));
        picture.save(source.path(&format!("{number}.{}", if number < 5 { "png" } else { "jpg" }))).unwrap();
    }
    std::fs::write(source.path("torn.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    std::fs::write(source.path("notes.txt"), b"no picture").unwrap();
    // Nobody ever writes into it: who opens it waits for ever.
    let endless = std::ffi::CString::new(source.path("endless.png")).unwrap();
    // SAFETY: a path that ends with a NUL.
    assert_eq!(unsafe { libc::mkfifo(endless.as_ptr(), 0o600) }, 0);
    let output = example(
        "thumbnails",
        &["--size", "50", "--workers", "2", "--deadline", "2", &source.path(""), &target.path("")],
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success(), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("endless.png: ") && lines[0].contains("2s"), "{text}");
    assert!(lines[1].starts_with("torn.png: "), "{text}");
    assert!(lines[2].starts_with("9 thumbnails, 2 failed, "), "{text}");
    let mut made: Vec<_> =
        std::fs::read_dir(&target.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    made.sort();
    assert_eq!(made, (0..9).map(|number| format!("{number}.png")).collect::<Vec<_>>());
    for name in made {
        let small = image::open(target.path(&name)).unwrap();
        assert_eq!((small.width(), small.height().abs_diff(25) <= 2), (50, true), "{name}");
    }
    said(&example("thumbnails", &[]));
}

#[test]
fn the_log_is_the_same_whoever_is_killed() {
    let alone = said(&example("logs", &["--alone"]));
    assert!(alone.starts_with("19"), "{alone}");
    assert_eq!(said(&example("logs", &[])), alone);
    let killed = said(&example("logs", &["--kill", "5"]));
    let restarts: Vec<&str> = killed.lines().filter(|line| line.contains("another one goes on")).collect();
    assert_eq!(restarts.len(), 5, "{killed}");
    assert!(killed.ends_with(&alone), "{killed}\ninstead of\n{alone}");
    let folder = Folder::new("log");
    let line = "host - - [01/Nov/2026:00:00:00 +0000] \"GET /only HTTP/1.1\" 200 -\n";
    std::fs::write(folder.path("log"), line.repeat(3)).unwrap();
    let text = said(&example("logs", &[&folder.path("log")]));
    assert_eq!(text, "3 requests, 0 bytes, 0 lines that are none\n  200: 3\n  /only: 3\n");
    assert!(!example("logs", &["/no/such/log"]).status.success());
}

#[test]
fn a_product_of_matrices_is_the_same_in_processes_threads_and_alone() {
    for size in ["1", "7", "96"] {
        let text = said(&example("matrix", &["--size", size, "--workers", "3"]));
        let last = format!("all three agree in every bit of {size} × {size} numbers");
        assert_eq!(text.lines().last(), Some(last.as_str()), "{text}");
    }
}

#[test]
fn a_producers_consumer_is_another_program_and_may_be_killed() {
    let whole = said(&example("producer", &["--count", "5000"]));
    assert!(whole.starts_with("5000 readings, "), "{whole}");
    let killed = said(&example("producer", &["--count", "5000", "--kill"]));
    assert!(killed.starts_with("the consumer ended: killed by SIGKILL"), "{killed}");
    assert!(killed.ends_with(&whole), "{killed}");
    let consumer = directory().join("consumer");
    let named = said(&example("producer", &["--count", "10", consumer.to_str().unwrap()]));
    assert!(named.starts_with("10 readings, "), "{named}");
    assert!(!example("producer", &["--count", "10", "/no/such/program"]).status.success());
}
