//! `cargo xtask kill-grid --seeded`: shows that the grid catches faults. A copy of the sources gets every fault of the list, each
//! behind a switch, is built, and the operations in which it must show are run with it. One that is not caught is a failure.
//!
//! The project's own sources know nothing of it. A fault whose place is not found any more has to be brought up to date here.

use crate::{Result, root};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// A fault.
struct Fault {
    /// Its name.
    name: &'static str,
    /// Where it is: several places where more than one thing stands between the fault and others.
    places: &'static [Place],
    /// The operations in which it shows, as `--only` takes them.
    shows_in: &'static [&'static str],
}

/// A place of a fault.
struct Place {
    file: &'static str,
    /// The code that is right.
    right: &'static str,
    /// The code instead of it, which asks `crate::seeded` for the fault's name.
    wrong: &'static str,
}

/// The switch in the library: the name of one fault in the environment, read before anything else. The instructions that look
/// at it are the same in every run.
const SWITCH: &str = r#"
/// Whether the seeded fault `name` is wanted.
pub(crate) fn seeded(name: &str) -> bool {
    static WANTED: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| std::env::var("SHMKIT_SEEDED").unwrap_or_default());
    *WANTED == name
}
"#;

const FAULTS: &[Fault] = &[
    Fault {
        name: "element published before it is written",
        places: &[Place {
            file: "src/channel/pipe/sender.rs",
            right: "        unsafe { self.end.slot(self.end.mine.get()).write(value) };
        self.commit(1);",
            wrong: "        let place = self.end.slot(self.end.mine.get());
        if crate::seeded(\"element published before it is written\") {
            self.commit(1);
            unsafe { place.write_volatile(value) };
            return;
        }
        unsafe { place.write(value) };
        self.commit(1);",
        }],
        shows_in: &["pipe/send"],
    },
    Fault {
        name: "value published before it is copied",
        places: &[Place {
            file: "src/data/copies.rs",
            right: "        // SAFETY: as in `read`.
        unsafe { words::copy_in(self.copy::<T>(sequence.wrapping_add(1)), value) };",
            wrong: "        if crate::seeded(\"value published before it is copied\") {
            self.word.store(marked.wrapping_add(1), Ordering::Release);
        }
        unsafe { words::copy_in(self.copy::<T>(sequence.wrapping_add(1)), value) };",
        }],
        shows_in: &["value/set"],
    },
    Fault {
        name: "permits of the dead stay theirs",
        places: &[Place {
            file: "src/sync/permits.rs",
            right: "    for owner in owners {
        let _ = owner.compare_exchange(dead.token().0, 0, Ordering::AcqRel, Ordering::Relaxed);",
            wrong: "    for owner in owners {
        if crate::seeded(\"permits of the dead stay theirs\") {
            continue;
        }
        let _ = owner.compare_exchange(dead.token().0, 0, Ordering::AcqRel, Ordering::Relaxed);",
        }],
        shows_in: &["permits/acquire"],
    },
    Fault {
        name: "recovery takes a living holder's permit",
        places: &[Place {
            file: "src/sync/permits.rs",
            right: "        let _ = owner.compare_exchange(dead.token().0, 0, Ordering::AcqRel, Ordering::Relaxed);
        failpoint!(\"permits.recovered\");",
            wrong: "        let anybody = crate::seeded(\"recovery takes a living holder's permit\");
        let taken = if anybody { owner.load(Ordering::Relaxed) } else { dead.token().0 };
        let _ = owner.compare_exchange(taken, 0, Ordering::AcqRel, Ordering::Relaxed);
        failpoint!(\"permits.recovered\");",
        }],
        shows_in: &["permits/acquire", "permits/release"],
    },
    Fault {
        name: "recovery takes a living reader's count",
        places: &[Place {
            file: "src/sync/readers.rs",
            right: "    failpoint!(\"rwlock.recovered_readers\");",
            wrong: "    if crate::seeded(\"recovery takes a living reader's count\") {
        let end = body.offset + body.len;
        for slot in 0..attachment.geometry.max_participants {
            if let Some(count) = count_of(attachment, lock, start, end, slot) {
                count.store(0, Ordering::Release);
            }
        }
    }
    failpoint!(\"rwlock.recovered_readers\");",
        }],
        shows_in: &["rwlock/read", "rwlock/unread", "rwlock/downgrade"],
    },
    Fault {
        name: "recovery takes a living one's end of a pipe",
        places: &[Place {
            file: "src/channel/pipe.rs",
            right: "                let _ = owner.compare_exchange(dead.token().0, 0, Ordering::AcqRel, Ordering::Relaxed);",
            wrong: "                let anybody = crate::seeded(\"recovery takes a living one's end of a pipe\");
                let taken = if anybody { owner.load(Ordering::Relaxed) } else { dead.token().0 };
                let _ = owner.compare_exchange(taken, 0, Ordering::AcqRel, Ordering::Relaxed);",
        }],
        shows_in: &["pipe/send", "pipe/receive"],
    },
    Fault {
        name: "recovery takes a living writer's value",
        places: &[Place {
            file: "src/data/value.rs",
            right: "            claim::recover_word(atomic!(value, lock), |owner| owner == dead.token());",
            wrong: "            let anybody = crate::seeded(\"recovery takes a living writer's value\");
            claim::recover_word(atomic!(value, lock), |owner| anybody || owner == dead.token());",
        }],
        shows_in: &["value/guard", "value/set"],
    },
    Fault {
        name: "recovery takes a living owner's lock",
        places: &[Place {
            file: "src/sync/mutex.rs",
            right: "        claim::recover_word(atomic!(lock, word), |owner| owner == dead.token());",
            wrong: "        let anybody = crate::seeded(\"recovery takes a living owner's lock\");
        claim::recover_word(atomic!(lock, word), |owner| anybody || owner == dead.token());",
        }],
        shows_in: &["mutex/lock", "mutex/count", "mutex/unlock", "mutex/try-lock", "lock/count"],
    },
    Fault {
        name: "lock claimed before its owner is named",
        places: &[Place {
            file: "src/segment/claim.rs",
            right: "    token != 0 && word.compare_exchange(0, token, Ordering::Acquire, Ordering::Relaxed).is_ok()
}",
            wrong: "    if crate::seeded(\"lock claimed before its owner is named\") {
        // A living participant's token, that of slot 0, stands for \"somebody\".
        let anonymous = Token::new(0, 1).0;
        return token != 0
            && word.compare_exchange(0, anonymous, Ordering::Acquire, Ordering::Relaxed).is_ok()
            && word.swap(token, Ordering::Acquire) == anonymous;
    }
    token != 0 && word.compare_exchange(0, token, Ordering::Acquire, Ordering::Relaxed).is_ok()
}",
        }],
        shows_in: &["mutex/lock", "mutex/try-lock"],
    },
    Fault {
        name: "heap's hint stored before the piece is divided",
        places: &[Place {
            file: "src/segment/heap.rs",
            right:
                "            let mine = Unit { state: UNIT_HELD, owner: slot, len: units, generation: head.generation };
            word.store(mine.pack(), Ordering::Release);",
            wrong:
                "            let mine = Unit { state: UNIT_HELD, owner: slot, len: units, generation: head.generation };
            if head.len > units && crate::seeded(\"heap's hint stored before the piece is divided\") {
                hint.store((at + u64::from(units)) as u32, Ordering::Release);
            }
            word.store(mine.pack(), Ordering::Release);",
        }],
        shows_in: &["segment/reuse-memory", "segment/create"],
    },
    Fault {
        name: "message of a dead consumer freed",
        places: &[Place {
            file: "src/channel/recovery.rs",
            right: "            BLOCK_READ => (is_his && ring.at_most_once, is_his),",
            wrong: "            BLOCK_READ if crate::seeded(\"message of a dead consumer freed\") => (is_his, false),
            BLOCK_READ => (is_his && ring.at_most_once, is_his),",
        }],
        shows_in: &["pod-queue/receive"],
    },
    Fault {
        name: "slot freed before the block is read",
        places: &[Place {
            file: "src/channel/ring.rs",
            right: "                    let outcome = self.read(found.index, me);
                    failpoint!(\"queue.read\");",
            wrong: "                    if crate::seeded(\"slot freed before the block is read\") {
                        slot.store(Slot { lap: lap.wrapping_add(1), ..FREE }.pack(), Ordering::Release);
                    }
                    let outcome = self.read(found.index, me);
                    failpoint!(\"queue.read\");",
        }],
        shows_in: &["pod-queue/receive", "queue/get"],
    },
    Fault {
        name: "dead producer's blocks stay",
        places: &[Place {
            file: "src/channel/recovery.rs",
            right: "            BLOCK_WRITE => (is_his && !is_named, false),",
            wrong: "            BLOCK_WRITE if crate::seeded(\"dead producer's blocks stay\") => (false, false),
            BLOCK_WRITE => (is_his && !is_named, false),",
        }],
        shows_in: &["pod-queue/put", "pod-queue/loan"],
    },
    Fault {
        name: "structure changed before its journal",
        places: &[Place {
            file: "src/data/arena/mod.rs",
            right: "        // Last: from here on the cell says whether there was a commit.
        atomic!(body, cell).store(offset, Ordering::Release);",
            wrong: "        if crate::seeded(\"structure changed before its journal\") {
            cell.store(value, Ordering::Release);
        }
        // Last: from here on the cell says whether there was a commit.
        atomic!(body, cell).store(offset, Ordering::Release);",
        }],
        shows_in: &["dict/replace", "dict/insert", "list/insert"],
    },
    Fault {
        name: "references of the dead stay valid",
        places: &[
            Place {
                file: "src/segment/recovery.rs",
                right: "        self.next_generation(slot);
        failpoint!(\"recover.generation\");",
                wrong: "        if !crate::seeded(\"references of the dead stay valid\") {
            self.next_generation(slot);
        }
        failpoint!(\"recover.generation\");",
            },
            Place {
                file: "src/segment/objects.rs",
                right: "                    atomic!(holder, state).load(Ordering::Acquire) != STATE_FREE",
                wrong: "                    (crate::seeded(\"references of the dead stay valid\")
                        || atomic!(holder, state).load(Ordering::Acquire) != STATE_FREE)",
            },
        ],
        shows_in: &["kind/make-mutex", "segment/create-and-drop"],
    },
    Fault {
        name: "recovery frees the slot before it repairs",
        places: &[Place {
            file: "src/segment/recovery.rs",
            right: "        failpoint!(\"recover.started\");",
            wrong: "        if crate::seeded(\"recovery frees the slot before it repairs\") {
            state.store(STATE_FREE, Ordering::Release);
        }
        failpoint!(\"recover.started\");",
        }],
        shows_in: &["recover/mutex/lock", "recover/permits/acquire"],
    },
    Fault {
        name: "object alive before it is built",
        places: &[Place {
            file: "src/segment/objects.rs",
            right: "        let (id, body) = match self.build_object(index, wanted.is_some(), kind, role, len, build) {",
            wrong: "        let building = if crate::seeded(\"object alive before it is built\") {
            let body = self.allocate(len)?;
            atomic!(self.entry(index), body).store(body.reference.pack(), Ordering::Release);
            let name = Cell { kind: CELL_NAME, role: 0, object: 0, id: 0, generation: 0 };
            atomic!(self.entry(index), cells)[1].store(name.pack(), Ordering::Release);
            let live = building.next(ENTRY_LIVE, 0);
            self.change(index, building, live);
            self.commit_extent(body.reference.pack(), slot);
            self.free_extent(body.reference.pack());
            self.change(index, live, live.next(ENTRY_BUILD, slot));
            self.state(index)
        } else {
            building
        };
        let (id, body) = match self.build_object(index, wanted.is_some(), kind, role, len, build) {",
        }],
        shows_in: &["segment/create", "kind/make-mutex"],
    },
    Fault {
        name: "dead party is waited for",
        places: &[Place {
            file: "src/sync/parties.rs",
            right: "            if arrival.token != dead.0 {",
            wrong: "            if arrival.token != dead.0 || crate::seeded(\"dead party is waited for\") {",
        }],
        shows_in: &["barrier/pass"],
    },
    Fault {
        name: "dead reader is waited for",
        places: &[
            Place {
                file: "src/sync/readers.rs",
                right: "            let counts = now.count > 0 && token.slot() == slot && !self.attachment().is_recovered(token);",
                wrong: "            let stays = crate::seeded(\"dead reader is waited for\");
            let counts =
                now.count > 0 && token.slot() == slot && (stays || !self.attachment().is_recovered(token));",
            },
            Place {
                file: "src/sync/readers.rs",
                right: "        if Count::unpack(seen).token == dead.token().0 {",
                wrong: "        if Count::unpack(seen).token == dead.token().0 && !crate::seeded(\"dead reader is waited for\") {",
            },
        ],
        shows_in: &["rwlock/read", "rwlock/unread"],
    },
    Fault {
        name: "dead waiter's notification is lost",
        places: &[Place {
            file: "src/sync/waiters.rs",
            right: "            if seen.state == WAITER_NOTIFIED {",
            wrong: "            if seen.state == WAITER_NOTIFIED && !crate::seeded(\"dead waiter's notification is lost\") {",
        }],
        shows_in: &["condition/be-notified"],
    },
    Fault {
        name: "dead worker's task stays running",
        places: &[Place {
            file: "src/pool/table.rs",
            right: "                if !is_held || task.owner != dead.slot {",
            wrong: "                if !is_held || task.owner != dead.slot || crate::seeded(\"dead worker's task stays running\") {",
        }],
        shows_in: &["pool/worker"],
    },
];

/// What is not copied: it is large, or the copy has its own.
const LEFT_OUT: [&str; 3] = ["target", ".git", "docs"];

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if LEFT_OUT.iter().any(|&left_out| name == left_out) {
            continue;
        }
        let target = to.join(&name);
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            let text = fs::read(entry.path())?;
            // What has not changed keeps its time, so that it is not built again.
            if fs::read(&target).ok().as_ref() != Some(&text) {
                fs::write(&target, text)?;
            }
        }
    }
    Ok(())
}

/// All places, with the names of their faults.
fn places() -> impl Iterator<Item = (&'static str, &'static Place)> {
    FAULTS.iter().flat_map(|fault| fault.places.iter().map(|place| (fault.name, place)))
}

/// The text of a file with all its faults.
fn with_faults(file: &str, text: String) -> Result<String> {
    let mut text = text;
    for (name, place) in places().filter(|(_, place)| place.file == file) {
        if text.matches(place.right).count() != 1 {
            return Err(format!("{file} has no single place for {name:?}: xtask/src/seeded.rs is out of date"));
        }
        text = text.replace(place.right, place.wrong);
    }
    Ok(text)
}

/// Builds the copy with the faults, and runs the operations. With a word, only the faults whose names have it.
pub fn run(words: &[&str]) -> Result {
    let (seed, wanted) = match words {
        [] => ("1", None),
        ["--seed", seed] => (*seed, None),
        ["--fault", name] => ("1", Some(*name)),
        _ => return Err("kill-grid --seeded takes --seed S or --fault NAME".to_owned()),
    };
    let home = root().join("target/seeded");
    let source = home.join("source");
    let failed = |error: std::io::Error| format!("{}: {error}", source.display());
    copy(&root(), &source).map_err(failed)?;
    let mut files: Vec<&str> = places().map(|(_, place)| place.file).chain(["src/lib.rs"]).collect();
    files.sort_unstable();
    files.dedup();
    for file in files {
        let text = fs::read_to_string(root().join(file)).map_err(failed)?;
        let mut text = with_faults(file, text)?;
        if file == "src/lib.rs" {
            text += SWITCH;
        }
        fs::write(source.join(file), text).map_err(failed)?;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--release", "-p", "shmkit-torture", "--target-dir"])
        .arg(home.join("built"))
        // The faults have no comments on their safety.
        .env("RUSTFLAGS", "--cap-lints allow")
        .current_dir(&source)
        .status()
        .map_err(|error| format!("cargo: {error}"))?;
    if !built.success() {
        return Err(format!("the copy with the faults: {built}"));
    }
    let torture = home.join("built/release/shmkit-torture");
    let mut missed = Vec::new();
    let is_wanted = |fault: &&Fault| wanted.is_none_or(|part| fault.name.contains(part));
    let chosen: Vec<&Fault> = FAULTS.iter().filter(is_wanted).collect();
    for fault in &chosen {
        match caught_by(&torture, fault, seed)? {
            Some(how) => println!("caught  {:50} {how}", fault.name),
            None => {
                println!("MISSED  {:50} {}", fault.name, fault.shows_in.join(", "));
                missed.push(fault.name);
            }
        }
    }
    // Without a fault the same operations are sound.
    for operation in chosen.iter().flat_map(|fault| fault.shows_in).take(if wanted.is_some() { 0 } else { usize::MAX })
    {
        if let Some(how) = faults_of(&torture, operation, "", seed)? {
            return Err(format!("{operation} has a fault that nobody has seeded: {how}"));
        }
    }
    println!("kill-grid --seeded: {} faults, {} caught, seed {seed}", chosen.len(), chosen.len() - missed.len());
    if missed.is_empty() { Ok(()) } else { Err(format!("not caught: {}", missed.join("; "))) }
}

/// What the grid finds with a fault.
fn caught_by(torture: &Path, fault: &Fault, seed: &str) -> Result<Option<String>> {
    for operation in fault.shows_in {
        if let Some(how) = faults_of(torture, operation, fault.name, seed)? {
            return Ok(Some(how));
        }
    }
    Ok(None)
}

/// The last line of a grid of one operation, if it has found something.
fn faults_of(torture: &Path, operation: &str, fault: &str, seed: &str) -> Result<Option<String>> {
    let mut command = Command::new(torture);
    command.args(["kill-grid", "--until-fault", "--seed", seed, "--only", operation]).env("SHMKIT_SEEDED", fault);
    let output = command.stderr(Stdio::null()).output().map_err(|error| format!("{}: {error}", torture.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().last().unwrap_or_default();
    let counts = last.strip_prefix("kill-grid: ").ok_or_else(|| format!("{operation}: {last}"))?;
    Ok((!output.status.success()).then(|| format!("in {operation}: {counts}")))
}
