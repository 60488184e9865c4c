//! Python's multiprocessing, and faster-fifo where it is installed. The interpreter is `$SHMKIT_BENCH_PYTHON`, or `python3`.

use crate::Result;
use crate::contest::Contestant;
use crate::contest::Kind::Peer;
use crate::payload::Payload;
use crate::rows::unpin;
use crate::stage::Stage;
use std::process::{Command, Stdio};

/// What shared dicts are compared with.
pub const MANAGED_DICT: &str = "Python's Manager().dict()";
/// What shared lists are compared with.
pub const MANAGED_LIST: &str = "Python's Manager().list()";

const SCRIPT: &str = include_str!("python.py");

/// Runs one of the script's measurements; it prints its figure.
fn run(stage: &Stage, what: &str) -> Result {
    unpin()?;
    let python = std::env::var("SHMKIT_BENCH_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = format!("/tmp/{}.py", stage.name);
    std::fs::write(&script, SCRIPT)?;
    let output = Command::new(python)
        .args([&script, what, &stage.n.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("python3: {error}"))?;
    std::fs::remove_file(script)?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(said.lines().last().unwrap_or("it failed").to_owned().into());
    }
    stage.publish(String::from_utf8(output.stdout)?.trim().parse()?);
    Ok(())
}

macro_rules! measurements {
    ($($name:ident $what:literal),*) => {$(
        fn $name(stage: &Stage) -> Result {
            run(stage, $what)
        }
    )*};
}
measurements!(queue "queue", fifo "faster_fifo", fifo_many "faster_fifo_many", lock "lock", spawn "spawn", forked "fork", forkserver "forkserver",
              tasks "pool", apply "apply", dict_get "dict_get", dict_set "dict_set", list_get "list_get", list_push "list_push");

/// Python's queues carry bytes of the payload's size, pickled.
pub fn queues<P: Payload>(processes: usize) -> Vec<Contestant> {
    if processes != 2 || size_of::<P>() != 64 {
        return Vec::new();
    }
    vec![
        Contestant::single("Python's Queue", Peer, queue).fixed(5_000),
        Contestant::single("faster-fifo (Python)", Peer, fifo).fixed(20_000),
        Contestant::single("faster-fifo (Python), get_many", Peer, fifo_many).fixed(20_000),
    ]
}

pub fn locks(processes: usize) -> Vec<Contestant> {
    if processes == 1 { vec![Contestant::single("Python's Lock", Peer, lock).fixed(20_000)] } else { Vec::new() }
}

pub fn dicts(writes: bool) -> Vec<Contestant> {
    vec![Contestant::single(MANAGED_DICT, Peer, if writes { dict_set } else { dict_get }).fixed(5_000)]
}

pub fn lists(writes: bool) -> Vec<Contestant> {
    vec![Contestant::single(MANAGED_LIST, Peer, if writes { list_push } else { list_get }).fixed(5_000)]
}

pub fn processes() -> Vec<Contestant> {
    vec![Contestant::single("Python, spawn", Peer, spawn).fixed(3)]
}

pub fn forked_processes() -> Vec<Contestant> {
    vec![
        Contestant::single("Python, fork", Peer, forked).fixed(10),
        Contestant::single("Python, forkserver", Peer, forkserver).fixed(5),
    ]
}

pub fn pools() -> Vec<Contestant> {
    vec![Contestant::single("Python's Pool", Peer, tasks).fixed(10_000)]
}

pub fn pool_apply() -> Vec<Contestant> {
    vec![Contestant::single("Python's Pool", Peer, apply).fixed(500)]
}
