//! What the harness makes of contestants that fail. This program is the harness, with figures whose contestants fail on purpose, and
//! the test that runs it.

use shmkit_benches::contest::{Contestant, Figure, Goal, Kind, Unit};
use shmkit_benches::{Result, Stage, Suite};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Output};

/// The variable that tells contestants where to write what the test wants to know.
const FILE: &str = "SHMKIT_BENCHES_FAILURES";

fn well(stage: &Stage) -> Result {
    stage.publish(1.0);
    Ok(())
}

/// Gives a value a few times, and then finds a wrong result.
fn wrong_later(stage: &Stage) -> Result {
    let measurement: u64 = stage.name.rsplit('-').next().expect("names end in a number").parse()?;
    stage.publish(0.5);
    if measurement < 6 { Ok(()) } else { Err("a wrong result".into()) }
}

/// One process fails; the other one has started a process of its own and waits for it for ever.
fn hangs(stage: &Stage) -> Result {
    if stage.role == 0 {
        stage.barrier()?;
        return Err("one of two failed".into());
    }
    let mut child = Command::new("sleep").arg("1000").spawn()?;
    std::fs::write(std::env::var(FILE)?, child.id().to_string())?;
    stage.barrier()?;
    child.wait()?;
    Ok(())
}

fn suite() -> Suite {
    let limit = Contestant::single("limit", Kind::Limit, well).fixed(1);
    let figure = |name| Figure::new(name, Unit::Nanoseconds).goal(Goal::AtMost(2.0, "limit"));
    Suite::of(vec![
        figure("own").with([Contestant::single("shmkit", Kind::Shmkit, wrong_later).fixed(1), limit.clone()]),
        figure("peer").with([
            Contestant::single("shmkit", Kind::Shmkit, well).fixed(1),
            limit.clone(),
            Contestant::single("fails", Kind::Peer, wrong_later).fixed(1),
        ]),
        figure("hung").with([limit, Contestant::pair("hangs", Kind::Peer, hangs).fixed(1)]),
    ])
}

/// What `--quick` says, and what it writes.
fn bench(figure: &str) -> (Output, serde_json::Value, PathBuf) {
    let place = std::env::temp_dir().join(format!("shmkit-benches-failures-{}-{figure}", std::process::id()));
    let json = place.with_extension("json");
    let output = Command::new(std::env::current_exe().expect("a program has a path"))
        .args(["--quick", "--only", figure, "--json"])
        .arg(&json)
        .env(FILE, &place)
        .output()
        .expect("this program runs");
    let text = std::fs::read_to_string(&json).expect("the run wrote its rows");
    std::fs::remove_file(json).expect("it is there");
    (output, serde_json::from_str(&text).expect("rows are JSON"), place)
}

fn row<'a>(rows: &'a serde_json::Value, name: &str) -> Option<&'a serde_json::Value> {
    rows.as_array().expect("rows are an array").iter().find(|row| row["name"] == name)
}

fn a_wrong_result_takes_the_value_away_and_fails_the_run() {
    let (output, rows, _) = bench("own");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{said}");
    assert!(row(&rows, "own").is_none() && row(&rows, "own / limit").is_some(), "{rows}");
    assert!(said.contains("goal ≤ 2 × limit: cannot be judged"), "{said}");
    assert!(said.contains("FAILED: own / shmkit: a wrong result"), "{said}");
}

fn a_peer_that_fails_has_no_value_and_the_run_goes_on() {
    let (output, rows, _) = bench("peer");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let own = row(&rows, "peer").expect("it did not fail");
    assert!(own["met"] == true && own["best_peer"].is_null() && row(&rows, "peer / fails").is_none(), "{rows}");
}

fn a_hung_contestant_takes_its_own_processes_along() {
    let (output, _, place) = bench("hung");
    assert!(String::from_utf8_lossy(&output.stdout).contains("not measured: one of two failed"));
    let pid = std::fs::read_to_string(&place).expect("the contestant wrote its child's number");
    std::fs::remove_file(place).expect("it is there");
    // It may still be a zombie, until whoever inherited it looks.
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = state.rsplit_once(") ").map(|(_, rest)| rest.to_owned());
    assert!(state.as_ref().is_none_or(|state| state.starts_with(['Z', 'X'])), "{pid}: {state:?}");
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "--quick" || word == "--stage") {
        return suite().main(&words);
    }
    a_wrong_result_takes_the_value_away_and_fails_the_run();
    a_peer_that_fails_has_no_value_and_the_run_goes_on();
    a_hung_contestant_takes_its_own_processes_along();
    println!("3 passed, 0 failed");
    ExitCode::SUCCESS
}
