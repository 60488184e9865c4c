//! The results of a map while they come in.

use super::Argument;
use super::promise::Promise;
use super::task::Outcomes;
use super::work::Sink;
use crate::error::TaskError;
use crate::segment::locked;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

/// Told how many of how many elements are done.
pub(super) type Progress = Box<dyn Fn(usize, usize) + Send + Sync>;

/// Where the chunks of a map go.
pub(super) struct Gather<R> {
    promise: Arc<Promise<Vec<R>>>,
    state: Mutex<State<R>>,
    progress: Option<Progress>,
}

struct State<R> {
    values: Vec<Option<R>>,
    missing: usize,
    /// The first element that failed.
    error: Option<(usize, TaskError)>,
}

impl<R> Gather<R> {
    /// For `elements` elements, of which there is one at least.
    pub(super) fn new(promise: Arc<Promise<Vec<R>>>, elements: usize, progress: Option<Progress>) -> Gather<R> {
        let values = (0..elements).map(|_| None).collect();
        Gather { promise, state: Mutex::new(State { values, missing: elements, error: None }), progress }
    }
}

impl<R: Argument> Sink<R> for Gather<R> {
    fn take(&self, mut first: usize, mut outcomes: Outcomes<'_, R>) {
        // Of a run each task is told of.
        let piece = if outcomes.is_run() && self.progress.is_some() { 1 } else { usize::MAX };
        loop {
            let before = outcomes.len();
            self.take_piece(first, outcomes.by_ref().take(piece));
            first += before - outcomes.len();
            if outcomes.len() == 0 {
                return;
            }
        }
    }
}

impl<R> Gather<R> {
    fn take_piece(&self, first: usize, outcomes: impl Iterator<Item = Result<R, TaskError>>) {
        let mut state = locked(&self.state);
        for (index, outcome) in (first..).zip(outcomes) {
            state.missing -= 1;
            match outcome {
                Ok(value) => state.values[index] = Some(value),
                Err(error) if state.error.as_ref().is_none_or(|(known, _)| index < *known) => {
                    state.error = Some((index, error));
                }
                Err(_) => {}
            }
        }
        let (missing, all) = (state.missing, state.values.len());
        let result = (missing == 0).then(|| {
            let values = std::mem::take(&mut state.values);
            match state.error.take() {
                Some((_, error)) => Err(error),
                None => Ok(values.into_iter().flatten().collect()),
            }
        });
        drop(state);
        if let Some(progress) = &self.progress {
            // A panic of its own has been told by the hook, and takes no result away.
            let _ = catch_unwind(AssertUnwindSafe(|| progress(all - missing, all)));
        }
        if let Some(result) = result {
            self.promise.fulfil(result);
        }
    }
}
