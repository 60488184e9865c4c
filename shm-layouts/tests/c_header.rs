//! The generated C header, seen by a C and a C++ compiler.

use shmkit_layouts::reflect::{CONSTANTS, STRUCTS};
use shmkit_layouts::segment::MAGIC;
use shmkit_layouts::words::{BLOCK_READ, Block, CELL_BLOCK, Cell, SLOT_TAKEN, Slot};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The first of `candidates` that can be started.
fn compiler(candidates: &[&'static str]) -> Option<&'static str> {
    let found = candidates.iter().find(|name| Command::new(name).arg("--version").output().is_ok()).copied();
    if found.is_none() {
        println!("skipped: there is none of {}", candidates.join(", "));
    }
    found
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a compiler with all warnings denied.
fn compile(compiler: &str, arguments: &[&str], input: &Path, output: &Path) {
    let result = Command::new(compiler)
        .args(arguments)
        .args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-I"])
        .arg(source("include"))
        .arg(input)
        .arg("-o")
        .arg(output)
        .output()
        .expect("the compiler starts");
    assert!(result.status.success(), "{compiler} {arguments:?}:\n{}", String::from_utf8_lossy(&result.stderr));
}

fn offset_in_rust(layout: &str, field: &str) -> usize {
    // C's names are the Rust names in lower case, with underscores between the words.
    let squeezed = layout.replace('_', "");
    let found = STRUCTS.iter().find(|found| found.name.eq_ignore_ascii_case(&squeezed)).expect("a struct of that name");
    found.fields.iter().find(|found| found.name == field).expect("a field of that name").offset
}

fn size_in_rust(layout: &str) -> usize {
    let squeezed = layout.replace('_', "");
    STRUCTS.iter().find(|found| found.name.eq_ignore_ascii_case(&squeezed)).expect("a struct of that name").size
}

fn value_in_rust(name: &str) -> u64 {
    let mut all = CONSTANTS.iter().copied().flatten();
    all.find(|constant| constant.name == name).expect("a constant of that name").value
}

#[test]
fn a_c_program_sees_the_same_layout() {
    let Some(compiler) = compiler(&["gcc", "cc", "clang"]) else { return };
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("layouts");
    compile(compiler, &["-std=c11"], &source("tests/c/layouts.c"), &program);
    let output = Command::new(&program).output().expect("the program starts");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let mut compared = 0;
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["offset", field, found] => {
                let (layout, field) = field.split_once('.').expect("struct and field");
                assert_eq!(found, offset_in_rust(layout, field).to_string(), "{line}");
            }
            ["size", layout, found] => assert_eq!(found, size_in_rust(layout).to_string(), "{line}"),
            ["value", name, found] => assert_eq!(found, value_in_rust(name).to_string(), "{line}"),
            ["slot", found] => {
                let slot = Slot { lap: 7, state: SLOT_TAKEN, owner: 4093, index: 100 };
                assert_eq!(found, slot.pack().to_string());
            }
            ["block", found] => {
                let block = Block { generation: 9, owner: 5, state: BLOCK_READ, deliveries: 2 };
                assert_eq!(found, block.pack().to_string());
            }
            ["cell", found] => {
                let cell = Cell { kind: CELL_BLOCK, role: 2, object: 3, id: 77, generation: 11 };
                assert_eq!(found, cell.pack().to_string());
            }
            ["magic", text, a, b] => assert_eq!([text, a, b].concat(), format!("SHMKIT{}{}", MAGIC[6], MAGIC[7])),
            _ => panic!("the program printed {line:?}"),
        }
        compared += 1;
    }
    assert_eq!(compared, 28);
}

#[test]
fn the_header_is_c_with_its_atomics_marked_as_such() {
    let Some(compiler) = compiler(&["gcc", "cc", "clang"]) else { return };
    let object = Path::new(env!("CARGO_TARGET_TMPDIR")).join("layouts_atomic.o");
    let arguments = ["-std=c11", "-DSHMKIT_ATOMIC(T)=_Atomic(T)", "-c"];
    compile(compiler, &arguments, &source("tests/c/layouts.c"), &object);
}

#[test]
fn the_header_is_cpp() {
    let Some(compiler) = compiler(&["g++", "c++", "clang++"]) else { return };
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let plain = directory.join("plain.cpp");
    std::fs::write(&plain, "#include \"shmkit_layouts.h\"\n").expect("written");
    compile(compiler, &["-std=c++17", "-c"], &plain, &directory.join("plain.o"));
    let atomic = directory.join("atomic.cpp");
    let text = "#include <atomic>\n#define SHMKIT_ATOMIC(T) std::atomic<T>\n#include \"shmkit_layouts.h\"\n";
    std::fs::write(&atomic, text).expect("written");
    compile(compiler, &["-std=c++17", "-c"], &atomic, &directory.join("atomic.o"));
}
