//! `cargo xtask layouts`: what is generated from the types of `shmkit-layouts`.
//!
//! ```text
//! shmkit_layouts::reflect ──┬─ include/shmkit_layouts.h
//!                           ├─ layouts.json
//!                           └─ SPEC.md, between its markers
//! ```

mod c_header;
mod json;
mod spec;
mod text;

use crate::{Result, root};
use std::fs;
use std::path::PathBuf;

/// A generated file: its path from the workspace's root, and what it should hold.
struct Generated {
    path: &'static str,
    content: String,
}

impl Generated {
    fn absolute(&self) -> PathBuf {
        root().join(self.path)
    }

    fn is_current(&self) -> bool {
        fs::read_to_string(self.absolute()).is_ok_and(|found| found == self.content)
    }
}

fn generate() -> Result<Vec<Generated>> {
    const SPEC: &str = "shm-layouts/SPEC.md";
    let spec = fs::read_to_string(root().join(SPEC)).map_err(|error| format!("{SPEC}: {error}"))?;
    Ok(vec![
        Generated { path: "shm-layouts/include/shmkit_layouts.h", content: c_header::generate() },
        Generated { path: "shm-layouts/layouts.json", content: json::generate() },
        Generated { path: SPEC, content: spec::fill(&spec).map_err(|error| format!("{SPEC}: {error}"))? },
    ])
}

/// Writes the files that differ.
pub fn write() -> Result {
    for file in generate()? {
        if !file.is_current() {
            fs::write(file.absolute(), &file.content).map_err(|error| format!("{}: {error}", file.path))?;
            println!("wrote {}", file.path);
        }
    }
    Ok(())
}

/// Fails, naming them, if files differ from what the types say.
pub fn check() -> Result {
    let drifted: Vec<&str> = generate()?.iter().filter(|file| !file.is_current()).map(|file| file.path).collect();
    if drifted.is_empty() {
        return Ok(());
    }
    Err(format!("not what the types say: {}. Run `cargo xtask layouts` and commit the result", drifted.join(", ")))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_files_are_what_the_types_say() {
        super::check().unwrap();
    }
}
