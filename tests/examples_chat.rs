//! The chat, as its users run it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Once;

/// The program: `cargo test` builds it beside the tests, `cargo test --test examples_chat` alone does not.
fn program() -> PathBuf {
    static BUILD: Once = Once::new();
    let directory = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples");
    BUILD.call_once(|| {
        if !directory.join("chat").exists() {
            let target = directory.ancestors().nth(2).unwrap();
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--quiet", "--example", "chat", "--target-dir"]).arg(target);
            assert!(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
        }
    });
    directory.join("chat")
}

/// A running one. Killed when dropped.
struct Part {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Part {
    fn start(arguments: &[&str]) -> Part {
        let mut command = Command::new(program());
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Part { child, output }
    }

    fn sees(&mut self, wanted: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), wanted);
    }

    fn says(&mut self, text: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{text}").unwrap();
    }

    /// Ends its input, and waits for its end.
    fn leaves(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A name of this test's own, whose segment is unlinked however the test ends.
struct Name(String);

impl Name {
    fn new(what: &str) -> Name {
        Name(format!("test-chat-{what}-{}", std::process::id()))
    }

    fn file(&self) -> PathBuf {
        Path::new("/dev/shm").join(format!("shmkit.{}", self.0))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = shmkit::Segment::unlink(&self.0);
    }
}

#[test]
fn three_unrelated_processes_chat_by_name() {
    let name = Name::new("three");
    let mut room = Part::start(&["serve", "--name", &name.0]);
    room.sees(&format!("the room {:?} is open", name.0));
    let guest = |nickname: &str| Part::start(&["join", nickname, "--name", &name.0]);
    let mut ada = guest("Ada");
    ada.sees("* welcome; here are: []");
    let mut bob = guest("Bob");
    bob.sees("* welcome; here are: [Ada]");
    ada.sees("* Bob has come");
    let mut cyd = guest("Cyd");
    cyd.sees("* welcome; here are: [Ada, Bob]");
    ada.sees("* Cyd has come");
    bob.sees("* Cyd has come");
    ada.says("hello");
    bob.sees("Ada: hello");
    cyd.sees("Ada: hello");
    let text = "a long story ".repeat(1000);
    bob.says(&text);
    ada.sees(&format!("Bob: {}", text.trim_end()));
    cyd.sees(&format!("Bob: {}", text.trim_end()));
    bob.kill();
    ada.sees("* Bob has left");
    cyd.sees("* Bob has left");
    cyd.leaves();
    ada.sees("* Cyd has left");
    room.kill();
    ada.sees("* the room is closed");
    assert!(ada.child.wait().unwrap().success());
    assert!(!name.file().exists(), "the last one takes the segment along");
}

#[test]
fn who_does_not_know_the_key_stays_outside() {
    let name = Name::new("key");
    let mut room = Part::start(&["serve", "--name", &name.0, "--key", "open sesame"]);
    room.sees(&format!("the room {:?} is open", name.0));
    for arguments in [&["--key", "open sesamf"][..], &[]] {
        let output = Command::new(program()).args(["join", "Eve", "--name", &name.0]).args(arguments).output().unwrap();
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.starts_with("chat: authentication failed: "), "{error}");
    }
    room.sees("somebody was turned away: the client has another key");
    room.sees("somebody was turned away: the client does not use a key");
}

#[test]
fn it_shows_itself() {
    let output = Command::new(program()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().last(), Some("chat: all was said and seen"));
    let name = text.split('"').nth(1).expect("the room's name");
    assert!(!Path::new(&format!("/dev/shm/shmkit.{name}")).exists(), "{name} is left");
}
