//! Objects as such: made, found, let go, taken away; the memory they lie in; and whoever comes to a segment and leaves it.

use crate::operation::{Actor, Acts, Check, Deed, Scene, Subject, corrupt, lost};
use crate::step::{begin, end};
use shmkit::segment::gc;
use shmkit::{Error, LifePolicy, Mutex, Segment, SegmentError, Semaphore};
use std::path::PathBuf;

pub struct Objects {
    shared: Semaphore,
}

/// What `shared` holds.
const PERMITS: u32 = 3;
/// An object larger than what is backed at first.
type Large = [u64; 1500];

fn path_of(name: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm/shmkit.{name}"))
}

fn is_missing<T>(found: &shmkit::Result<T>) -> bool {
    found.as_ref().is_err_and(says_missing)
}

fn says_missing(error: &Error) -> bool {
    matches!(error, Error::Segment(SegmentError::ObjectNotFound { .. } | SegmentError::NotFound { .. }))
}

/// Makes and drops objects of several sizes.
fn churn(segment: &Segment) -> Check {
    let small = [7u64, 8, 9].map(|n| Mutex::new_in(segment, [n; 3]));
    let large = Mutex::new_in(segment, [5u64; 300])?;
    for (n, mutex) in (7..).zip(small) {
        if *mutex?.lock().map_err(Error::from)? != [n; 3] {
            return corrupt("two objects lie in one place");
        }
    }
    match large.lock().map_err(Error::from)?.iter().all(|&word| word == 5) {
        true => Ok(()),
        false => corrupt("two objects lie in one place"),
    }
}

impl Subject for Objects {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Objects { shared: segment.semaphore("shared").initial(PERMITS).create()? })
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        // Another one may have taken its name away.
        Ok(Objects { shared: segment.semaphore("shared").initial(PERMITS).open_or_create()? })
    }

    fn audit(&self, segment: &Segment, deeds: &[Deed]) -> Check {
        if self.shared.value() != PERMITS {
            return corrupt(format!("{} permits of an object that was not used", self.shared.value()));
        }
        for deed in deeds {
            let found = segment.mutex::<[u64; 40]>("thing").open();
            match (deed.act, found) {
                ("create" | "open or create", found) if deed.is_done && found.is_err() => {
                    return lost("it was created");
                }
                ("create" | "open or create", Ok(thing)) if *thing.lock().map_err(Error::from)? != [6; 40] => {
                    return corrupt("half an object");
                }
                (_, Err(error)) if !says_missing(&error) => return Err(error.into()),
                _ => {}
            }
        }
        segment.remove("thing")?;
        if !is_missing(&segment.mutex::<[u64; 40]>("thing").open()) {
            return corrupt("it was taken away");
        }
        churn(segment)?;
        let other = format!("{}-other", segment.name().unwrap_or_default());
        for deed in deeds {
            match deed.act {
                "create segment" if deed.is_done && !path_of(&other).exists() => return lost("the other segment"),
                "gc" | "unlink" if deed.is_done && path_of(&other).exists() => return corrupt("it was collected"),
                _ => {}
            }
        }
        // Nobody is in it any more, so that it is whole, or not there.
        gc()?;
        match Segment::open(&other) {
            found if is_missing(&found) => {}
            Ok(found) => {
                churn(&found)?;
                found.verify()?;
            }
            Err(error) => return Err(error.into()),
        }
        // Where its name was taken away, this is another one.
        drop(segment.semaphore("shared").initial(PERMITS).open_or_create()?);
        Ok(())
    }

    fn exercise(&self, segment: &Segment) -> Check {
        churn(segment)?;
        match segment.semaphore("shared").open()?.value() {
            PERMITS => Ok(()),
            permits => corrupt(format!("{permits} permits of an object that was not used")),
        }
    }

    fn may_grow() -> bool {
        // `shared` lives on beside its successor while the harness has it.
        true
    }
}

fn large(actor: &Actor<Objects>) -> Check {
    begin();
    let _large = Mutex::<Large>::new_in(&actor.segment, [0; 1500])?;
    end();
    Ok(())
}

/// A segment of the other name whose only user was killed.
fn deserted(scene: &Scene) {
    let name = scene.other_name();
    super::dies(|| {
        let builder = Segment::builder().max_size(1 << 20).policy(LifePolicy::OnLastDetach);
        std::mem::forget(builder.create(&name));
        Ok(())
    });
}

pub fn acts() -> Acts<Objects> {
    Acts::<Objects>::new()
        .bare("attach", |scene| {
            begin();
            let _segment = Segment::open(&scene.name)?;
            end();
            Ok(())
        })
        .act("detach", |actor| {
            let Actor { segment, subject, .. } = actor;
            begin();
            drop((subject, segment));
            end();
            Ok(())
        })
        .bare("attach by descriptor", |scene| {
            let file = std::fs::File::options().read(true).write(true).open(path_of(&scene.name));
            let Ok(file) = file else { return corrupt("the segment has no name") };
            begin();
            let _segment = Segment::from_fd(file.into())?;
            end();
            Ok(())
        })
        .bare("make anonymous", |_| {
            begin();
            let _segment = Segment::builder().max_size(1 << 20).anonymous("torture")?;
            end();
            Ok(())
        })
        .bare("unlink", |scene| {
            deserted(&scene);
            begin();
            Segment::unlink(&scene.other_name())?;
            end();
            Ok(())
        })
        .alone()
        .bare("create segment", |scene| {
            begin();
            let _segment = Segment::builder().max_size(1 << 20).create(&scene.other_name())?;
            end();
            Ok(())
        })
        .alone()
        .bare("create owned segment", |scene| {
            begin();
            let builder = Segment::builder().max_size(1 << 20).policy(LifePolicy::OnOwnerExit);
            drop(builder.create(&scene.other_name())?);
            end();
            Ok(())
        })
        .alone()
        .bare("make a context", |_| {
            begin();
            let context = shmkit::Context::new()?;
            end();
            drop(context);
            Ok(())
        })
        .bare("create segment for a time", |scene| {
            begin();
            let builder = Segment::builder().max_size(1 << 20).policy(LifePolicy::OnLastDetach);
            drop(builder.open_or_create(&scene.other_name())?);
            end();
            Ok(())
        })
        .alone()
        .bare("open deserted", |scene| {
            deserted(&scene);
            begin();
            let found = Segment::open(&scene.other_name());
            end();
            if is_missing(&found) { Ok(()) } else { corrupt("nobody is in it") }
        })
        .alone()
        .bare("gc", |scene| {
            deserted(&scene);
            begin();
            gc()?;
            end();
            Ok(())
        })
        .alone()
        .act("create", |actor| {
            begin();
            let _thing = actor.segment.mutex("thing").initial([6u64; 40]).create()?;
            end();
            Ok(())
        })
        .alone()
        .act("open or create", |actor| {
            begin();
            let _thing = actor.segment.mutex("thing").initial([6u64; 40]).open_or_create()?;
            end();
            Ok(())
        })
        .act("create and drop", |actor| {
            begin();
            drop(Semaphore::new_in(&actor.segment, 1)?);
            end();
            Ok(())
        })
        .act("drop", |actor| {
            let mine = Semaphore::new_in(&actor.segment, 1)?;
            begin();
            drop(mine);
            end();
            Ok(())
        })
        .act("open", |actor| {
            let Actor { segment, subject, .. } = actor;
            drop(subject);
            begin();
            let _shared = segment.semaphore("shared").initial(PERMITS).open_or_create()?;
            end();
            Ok(())
        })
        .act("remove", |actor| {
            begin();
            actor.segment.remove("shared")?;
            end();
            Ok(())
        })
        .act("grow", |actor| large(&actor))
        .act("trim", |actor| {
            drop(Mutex::<Large>::new_in(&actor.segment, [0; 1500])?);
            begin();
            actor.segment.trim()?;
            end();
            Ok(())
        })
        .act("reuse memory", |actor| {
            // Neighbours are freed and joined, the result is divided again.
            let small = [1u64, 2, 3, 4].map(|n| Mutex::new_in(&actor.segment, [n; 40]));
            drop(small);
            begin();
            let _all = (Mutex::new_in(&actor.segment, [0u64; 100])?, Mutex::new_in(&actor.segment, [0u64; 60])?);
            end();
            Ok(())
        })
}
