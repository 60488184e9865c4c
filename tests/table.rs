//! `docs/multiprocessing.md`: every row of Python's behaviour is there, and the tests it names are.

use std::collections::BTreeSet;
use std::path::Path;

/// Ids and how many there are of each.
const IDS: [(&str, u32); 9] =
    [("P", 35), ("X", 24), ("L", 23), ("V", 12), ("M", 16), ("G", 22), ("Q", 21), ("C", 25), ("O", 31)];

/// The ids, the column for shmkit and the column for tests of every row.
fn rows() -> Vec<(Vec<String>, String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/multiprocessing.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().filter_map(|line| {
        let columns: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split(" | ").map(str::trim).collect();
        let [ids, _, ours, tests] = columns[..] else { return None };
        let ids: Vec<String> = ids.split(", ").map(str::to_owned).collect();
        let is_id = |id: &String| id.len() == 3 && id[1..].bytes().all(|byte| byte.is_ascii_digit());
        ids.iter().all(is_id).then(|| (ids, ours.to_owned(), tests.to_owned()))
    });
    rows.collect()
}

/// The last column of every table's rows.
fn last_columns() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/multiprocessing.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|')?.rsplit(" | ").next());
    rows.map(|column| column.trim().to_owned()).collect()
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Whether `file::function` is a test, or `file` a file of tests.
fn is_test(name: &str) -> bool {
    let (file, function) = name.split_once("::").map_or((name, None), |(file, function)| (file, Some(function)));
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let text = std::fs::read_to_string(tests.join(file).with_extension("rs"));
    let text = text.or_else(|_| std::fs::read_to_string(tests.join(file).join("main.rs"))).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    match function {
        None => !text.is_empty(),
        Some(function) => {
            let head = format!("fn {function}(");
            lines.windows(2).any(|pair| {
                pair[1].starts_with(&head) && (pair[0].starts_with("#[test]") || pair[0].starts_with("#[ignore"))
            })
        }
    }
}

#[test]
fn every_row_is_there_once() {
    let mut seen = BTreeSet::new();
    for (ids, ..) in rows() {
        for id in ids {
            assert!(seen.insert(id.clone()), "{id} is there twice");
        }
    }
    for (letter, count) in IDS {
        for number in 1..=count {
            let id = format!("{letter}{number:02}");
            assert!(seen.contains(&id), "{id} is missing");
        }
    }
}

#[test]
fn every_row_has_a_test_or_a_reason_why_it_needs_none() {
    let mut missing = Vec::new();
    for (ids, ours, tests) in rows() {
        let needs_none = ours.starts_with('–') && ours.len() > "–".len();
        let of_documentation = tests.starts_with("doc test of `");
        let names: Vec<&str> = if of_documentation { Vec::new() } else { quoted(&tests).collect() };
        missing.extend(names.iter().filter(|name| !is_test(name)).map(|name| format!("{ids:?}: there is no {name}")));
        if names.is_empty() && !needs_none && !of_documentation {
            missing.push(format!("{ids:?}: no test"));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_test_that_is_named_is_there() {
    let columns = last_columns();
    let names = columns.iter().filter(|column| !column.starts_with("doc test of `")).flat_map(|column| quoted(column));
    let missing: Vec<&str> = names.filter(|name| !is_test(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
