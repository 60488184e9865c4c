//! The figures: what shmkit is asked to do, who else does it, and the goals.

mod attach;
mod containers;
mod locks;
mod messages;
mod pipes;
mod processes;

use crate::contest::Figure;
use crate::payload::Payload;

#[cfg(feature = "peers")]
pub use messages::{Numbered, Record};
pub use processes::unpin;
#[cfg(feature = "peers")]
pub use processes::{check_pool, next};

/// All figures, in the order in which they are measured.
pub fn all() -> Vec<Figure> {
    [messages::figures(), locks::figures(), containers::figures(), attach::figures(), processes::figures()]
        .into_iter()
        .flatten()
        .collect()
}

/// The figures for messages of a user's own type.
pub fn of_payload<P: Payload>() -> Vec<Figure> {
    messages::of_payload::<P>()
}
