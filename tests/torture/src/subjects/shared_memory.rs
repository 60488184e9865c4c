//! Named bytes: a segment of its own each.

use crate::operation::{Acts, Check, Deed, Scene, Subject, corrupt, lost};
use crate::step::{begin, end};
use shmkit::{Error, Segment, SegmentError, SharedMemory};

/// Nothing: everything is in the other segment.
pub struct Bytes;

const SIZE: usize = 100;

fn is_missing<T>(found: &shmkit::Result<T>) -> bool {
    matches!(found, Err(Error::Segment(SegmentError::NotFound { .. })))
}

/// One that is there, with ones in it.
fn made(scene: &Scene) -> shmkit::Result<SharedMemory> {
    let memory = SharedMemory::create(Some(&scene.other_name()), SIZE)?;
    memory.write(0, &[1; SIZE])?;
    Ok(memory)
}

impl Subject for Bytes {
    fn create(_: &Segment) -> shmkit::Result<Self> {
        Ok(Bytes)
    }

    fn open(_: &Segment) -> shmkit::Result<Self> {
        Ok(Bytes)
    }

    fn audit(&self, segment: &Segment, deeds: &[Deed]) -> Check {
        let name = format!("{}-other", segment.name().unwrap_or_default());
        let done = |act: &str| deeds.iter().any(|deed| deed.act == act && deed.is_done);
        let has = |act: &str| deeds.iter().any(|deed| deed.act == act);
        match SharedMemory::open(&name) {
            found if is_missing(&found) => {
                let was_made = !has("create") || done("create");
                if was_made && !has("unlink") {
                    return lost("the bytes of a name that nobody has taken away");
                }
            }
            Err(error) => return Err(error.into()),
            Ok(_) if done("unlink") => return corrupt("it was unlinked"),
            Ok(found) => {
                let bytes = found.read(0, SIZE)?;
                let (old, new) = if has("create") {
                    (0, 0)
                } else if has("write") {
                    (1, 2)
                } else {
                    (1, 1)
                };
                let is_sound = bytes.iter().all(|&byte| byte == old || byte == new);
                if found.size() != SIZE || !is_sound || done("write") && bytes != [2; SIZE] {
                    return corrupt(format!("{} bytes: {bytes:?}", found.size()));
                }
                found.segment().recover();
                found.segment().verify()?;
                found.unlink()?;
            }
        }
        if is_missing(&SharedMemory::open(&name)) { Ok(()) } else { corrupt("it was taken away") }
    }

    fn exercise(&self, segment: &Segment) -> Check {
        let name = format!("{}-other", segment.name().unwrap_or_default());
        let memory = SharedMemory::create(Some(&name), SIZE)?;
        memory.write(7, &[3, 4])?;
        let same = SharedMemory::open(&name)?.read(6, 4)? == [0, 3, 4, 0];
        memory.unlink()?;
        if same { Ok(()) } else { corrupt("other bytes than what was written") }
    }
}

pub fn acts() -> Acts<Bytes> {
    Acts::<Bytes>::new()
        .bare("create", |scene| {
            begin();
            let _memory = SharedMemory::create(Some(&scene.other_name()), SIZE)?;
            end();
            Ok(())
        })
        .alone()
        .bare("open", |scene| {
            drop(made(&scene)?);
            begin();
            let _memory = SharedMemory::open(&scene.other_name())?;
            end();
            Ok(())
        })
        .alone()
        .bare("write", |scene| {
            let memory = made(&scene)?;
            begin();
            memory.write(0, &[2; SIZE])?;
            end();
            Ok(())
        })
        .alone()
        .bare("read", |scene| {
            let memory = made(&scene)?;
            begin();
            let bytes = memory.read(0, SIZE)?;
            end();
            if bytes == [1; SIZE] { Ok(()) } else { corrupt("other bytes than what was written") }
        })
        .alone()
        .bare("unlink", |scene| {
            let memory = made(&scene)?;
            begin();
            memory.unlink()?;
            end();
            Ok(())
        })
        .alone()
}
