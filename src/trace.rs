//! Events for the `tracing` ecosystem. Without the feature `tracing` they are nothing; the library never installs a subscriber.

/// Tells a subscriber, if there is one: `event!(INFO, "attached", slot = slot)`.
macro_rules! event {
    ($level:ident, $message:literal $(, $field:ident = $value:expr)* $(,)?) => {
        #[cfg(feature = "tracing")]
        tracing::event!(target: "shmkit", tracing::Level::$level, $($field = $value,)* $message);
    };
}
