//! Joining processes in tokio's tasks.

use super::{ExitStatus, Process};
use crate::error::{Error, ProcessError, Result};
use crate::sync::Async;
use std::time::Duration;

impl Async<Process> {
    /// Waits until it has ended. When this returns, what it left in the segments is repaired.
    ///
    /// # Errors
    /// As [`Process::join`], and as [`Async::ready`].
    pub async fn join(&self) -> Result<ExitStatus> {
        self.take(|process| match process.join_timeout(Duration::ZERO) {
            Ok(status) => Ok(Some(status)),
            Err(Error::Process(ProcessError::TimedOut { .. })) => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }
}
