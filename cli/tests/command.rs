//! The command as a user runs it.

#[path = "../../tests/common/mod.rs"]
mod common;

use shmkit::{LifePolicy, Segment};
use std::process::{Command, Output};

roles!(creates);

fn creates(arguments: &[String]) {
    let _segment = Segment::builder().policy(LifePolicy::OnLastDetach).create(&arguments[0]).unwrap();
    common::say("created");
    common::listen();
}

fn shmkit(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shmkit")).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn segments_are_listed_shown_checked_and_removed() {
    let name = format!("test-cli-{}", std::process::id());
    let segment = Segment::create(&name).unwrap();
    let _lock = segment.lock("gate").create().unwrap();
    let listed = text(&shmkit(&["ls"]));
    assert!(listed.contains(&name) && listed.contains(&std::process::id().to_string()), "{listed}");
    let json: serde_json::Value = serde_json::from_str(&text(&shmkit(&["ls", "--json"]))).unwrap();
    let row = json.as_array().unwrap().iter().find(|row| row["name"] == name.as_str()).unwrap();
    assert_eq!(row["objects"], 1);
    let shown = text(&shmkit(&["show", &name]));
    assert!(shown.contains("gate") && shown.contains("lock"), "{shown}");
    let sound = text(&shmkit(&["verify", &name]));
    assert!(sound.contains("is sound"), "{sound}");
    let removed = shmkit(&["rm", &name]);
    assert!(removed.status.success());
    let again = shmkit(&["rm", &name]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains(&name));
    assert!(shmkit(&["rm", "--force", &name]).status.success());
    assert_eq!(shmkit(&["show", &name]).status.code(), Some(1));
    assert_eq!(shmkit(&["no-such-command"]).status.code(), Some(2));
}

#[test]
fn what_the_killed_left_is_collected() {
    let name = format!("test-cli-gc-{}", std::process::id());
    let mut child = common::start("creates", &[&name]);
    child.expect("created");
    child.kill();
    assert!(text(&shmkit(&["ls"])).contains(&name));
    common::until(|| text(&shmkit(&["gc"])).contains(&format!("removed {name}")));
    assert!(!text(&shmkit(&["ls"])).contains(&name));
}
