//! `cargo xtask crash-tables`: the crash tables of the modules, gathered into `docs/reliability.md`.
//!
//! A table is written where its algorithm is, in the section `# Crash behaviour` of the module's documentation. A reader who asks
//! what becomes of the whole wants them on one page.

use crate::{Result, root};
use std::fs;
use std::path::Path;

const PAGE: &str = "docs/reliability.md";
const BEGIN: &str = "<!-- crash tables: written by `cargo xtask crash-tables` from the modules' documentation -->\n";
const END: &str = "<!-- end of the crash tables -->\n";

/// What each module's table is about, in the order of the page.
const MODULES: &[(&str, &str)] = &[
    ("segment/mod.rs", "A segment, and who is attached to it"),
    ("segment/object.rs", "Making a named object"),
    ("segment/recovery.rs", "Recovery itself"),
    ("sync/mutex.rs", "`Mutex`, `Lock`"),
    ("sync/rlock.rs", "`RLock`"),
    ("sync/rwlock.rs", "`RwLock`"),
    ("sync/semaphore.rs", "`Semaphore`, `BoundedSemaphore`"),
    ("sync/permits.rs", "`PermitSemaphore`"),
    ("sync/condition.rs", "`Condition`"),
    ("sync/event.rs", "`Event`"),
    ("sync/barrier.rs", "`Barrier`"),
    ("sync/once.rs", "`Once`"),
    ("channel/recovery.rs", "`Queue`, `PodQueue`"),
    ("channel/growth.rs", "Queues that grow"),
    ("channel/ends.rs", "`Producer`, `Consumer`"),
    ("channel/joinable.rs", "`JoinableQueue`"),
    ("channel/pipe.rs", "`channel`"),
    ("channel/connection.rs", "`Connection`"),
    ("channel/listener.rs", "`Listener`, `Client`"),
    ("data/value.rs", "`Value`"),
    ("data/array.rs", "`Array`"),
    ("data/arena/mod.rs", "The memory of a dict or list"),
    ("data/dict/mod.rs", "`Dict`"),
    ("data/list/mod.rs", "`List`"),
    ("data/counter.rs", "`Counter`"),
    ("data/frozen.rs", "Frozen values"),
    ("data/shared_memory.rs", "`SharedMemory`"),
    ("data/heap/mod.rs", "Users' own structures in a `Heap`"),
    ("process/mod.rs", "`Process`"),
    ("process/copied.rs", "Start method `fork`"),
    ("process/forkserver.rs", "Start method `forkserver`"),
    ("pool/mod.rs", "`Pool`"),
];

/// Writes them.
pub fn write() -> Result {
    let path = root().join(PAGE);
    fs::write(&path, page()?).map_err(|error| format!("{PAGE}: {error}"))
}

/// Says whether the page holds them as they are.
pub fn check() -> Result {
    if read(&root().join(PAGE))? == page()? {
        Ok(())
    } else {
        Err(format!("{PAGE} does not hold the modules' crash tables: run `cargo xtask crash-tables`"))
    }
}

/// The page with the tables of the sources.
fn page() -> Result<String> {
    let page = read(&root().join(PAGE))?;
    let missing = || format!("{PAGE} has no place for the crash tables: it lies between\n{BEGIN}and\n{END}");
    let (before, rest) = page.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    let source = root().join("src");
    all_are_listed(&source, &source)?;
    let mut tables = String::new();
    for (module, title) in MODULES {
        let section =
            section(&read(&source.join(module))?).ok_or_else(|| format!("src/{module} has no crash table"))?;
        tables += &format!("\n### {title}\n\n{section}");
    }
    Ok(format!("{before}{BEGIN}{tables}\n{END}{after}"))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// A table that nobody listed would be missing without a word.
fn all_are_listed(directory: &Path, source: &Path) -> Result {
    for entry in fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))? {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.is_dir() {
            all_are_listed(&path, source)?;
        } else if let Some(section) = section(&read(&path)?) {
            let module = path.strip_prefix(source).unwrap_or(&path).to_string_lossy().into_owned();
            if section.contains("\n|") && !MODULES.iter().any(|(listed, _)| *listed == module) {
                return Err(format!("src/{module} has a crash table: list it in xtask/src/crash_tables.rs"));
            }
        }
    }
    Ok(())
}

/// The section of the module's documentation, or else of one of its items that has a table, as Markdown without links into the
/// sources.
fn section(source: &str) -> Option<String> {
    section_of(source, "//!").or_else(|| section_of(source, "///").filter(|section| section.contains("|---")))
}

fn section_of(source: &str, mark: &str) -> Option<String> {
    let heading = format!("{mark} # Crash behaviour");
    let mut lines = source.lines().skip_while(|line| *line != heading);
    lines.next()?;
    let lines = lines.map_while(|line| line.strip_prefix(mark)).map(|line| line.strip_prefix(' ').unwrap_or(line));
    let text: Vec<&str> = lines.take_while(|line| !line.starts_with("# ")).collect();
    let text = text.join("\n").replace("[`super::", "[`").replace("[`", "`").replace("`]", "`");
    Some(format!("{}\n", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_ends_with_the_next_one_or_the_modules_documentation() {
        let source = "//! A thing.\n//!\n//! # Crash behaviour\n//!\n//! | a |\n//! |---|\n//! | [`super::B`] |\n//!\n//! # More\n//! x\n";
        assert_eq!(section(source).as_deref(), Some("| a |\n|---|\n| `B` |\n"));
        assert_eq!(
            section("//! # Crash behaviour\n//! As others.\n\nuse x;\n//! y\n").as_deref(),
            Some("As others.\n")
        );
        let item = "//! A thing.\n\n/// An item.\n/// # Crash behaviour\n/// | a |\n/// |---|\npub struct X;\n";
        assert_eq!(section(item).as_deref(), Some("| a |\n|---|\n"));
        assert_eq!(section("//! A thing.\n\n/// # Crash behaviour\n/// As others.\n"), None);
    }
}
