//! Opens a segment whose header, registry, directory, heap words and object bodies hold arbitrary bytes, and uses all
//! there is in it. Whatever the bytes: an error or a working object, never a crash and never an endless loop.
//!
//! An input is a list of operations, a list of changes to the image of a sound segment, and when those are made: before the
//! segment is opened (a hostile file), or while it is in use (a peer that scribbles). After the chosen operations come all there
//! are, in one order. A segment without changes must be a sound one at the end.
//!
//! ```text
//! input   when: u8 (% 4) | steps: u8 | step … | change …
//! when    0 before it is opened | 1 before the steps | 2 amid the steps | 3 after them
//! step    what: u8 | how: u8                                          see `chosen`
//! change  offset: u24 little-endian | len: u8 (% 16, + 1) | bytes
//! ```

mod chosen;
pub mod peer;
mod work;

use shmkit::Segment;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// Bytes of the segments: small, so that the offsets of an input reach all of it.
pub const SIZE: u64 = 1 << 20;

/// The changes of an input.
struct Changes<'a>(&'a [u8]);

impl<'a> Iterator for Changes<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<(u64, &'a [u8])> {
        let [a, b, c, len, rest @ ..] = self.0 else { return None };
        let offset = u64::from(u32::from_le_bytes([*a, *b, *c, 0]));
        let len = (usize::from(*len) % 16 + 1).min(rest.len());
        let (bytes, rest) = rest.split_at(len);
        self.0 = rest;
        Some((offset, bytes))
    }
}

/// What a sound segment looks like: the offsets of its pieces and their bytes, holes left out.
pub struct Template {
    /// Offset and bytes of every page that is not zero.
    pub pages: Vec<(u64, Vec<u8>)>,
}

/// The template: made once, with an object of every kind.
pub fn template() -> &'static Template {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let segment = Segment::builder().max_size(SIZE).max_participants(16).anonymous("fuzz").expect("a segment");
        let kept = work::fill(&segment).expect("a sound segment");
        let file = File::from(segment.as_fd().try_clone_to_owned().expect("a descriptor"));
        let mut pages = Vec::new();
        for offset in (0..SIZE).step_by(4096) {
            let mut page = vec![0; 4096];
            file.read_exact_at(&mut page, offset).expect("a page");
            if page.iter().any(|&byte| byte != 0) {
                pages.push((offset, page));
            }
        }
        drop(kept);
        Template { pages }
    })
}

/// A file of its own with the template's bytes.
fn image() -> File {
    let segment = Segment::builder().max_size(SIZE).max_participants(16).anonymous("fuzz").expect("a segment");
    let fd: OwnedFd = segment.as_fd().try_clone_to_owned().expect("a descriptor");
    drop(segment);
    let file = File::from(fd);
    for (offset, page) in &template().pages {
        file.write_all_at(page, *offset).expect("a page");
    }
    file
}

/// Runs one input.
///
/// # Panics
/// When an object gives what it must not give: that is a finding.
pub fn run(data: &[u8]) {
    let [when, steps, rest @ ..] = data else { return };
    let (steps, changes) = rest.split_at((2 * usize::from(*steps)).min(rest.len()));
    let when = when % 4;
    let file = image();
    let scribble = || {
        for (offset, bytes) in Changes(changes) {
            if offset < SIZE {
                let len = bytes.len().min((SIZE - offset) as usize);
                file.write_all_at(&bytes[..len], offset).expect("inside the file");
            }
        }
    };
    if when == 0 {
        scribble();
    }
    let Ok(segment) = Segment::from_fd(file.as_fd().try_clone_to_owned().expect("a descriptor")) else { return };
    let opened = work::open(&segment);
    let steps: Vec<_> = steps.chunks_exact(2).collect();
    let (before, after) = steps.split_at([0, 0, steps.len() / 2, steps.len()][when as usize]);
    let run = |steps: &[&[u8]]| steps.iter().for_each(|step| chosen::step(&segment, &opened, step[0], step[1]));
    run(before);
    if when > 0 {
        scribble();
    }
    run(after);
    work::exercise(&segment, &opened, true);
    drop(opened);
    work::exercise(&segment, &work::open(&segment), true);
    if changes.is_empty() {
        segment.verify().expect("a segment that only its own objects have written to");
    }
}
