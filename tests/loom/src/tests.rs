//! One module for each structure. A test is a few threads that do one thing each, with two or three preemptions of each.

mod event;
mod lock;
mod ring;

/// Explores what `threads` starts, with at most `preemptions` of a thread that could go on.
pub(crate) fn explore(preemptions: usize, threads: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 100_000;
    builder.check(threads);
}
