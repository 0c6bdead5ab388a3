//! How a command ends other than well: one sentence, and a code that scripts can tell apart.

use std::fmt;

/// Failed for a reason that has no code of its own.
pub(super) const FAILED: u8 = 1;
/// Wrong usage; the parser's own code, too.
pub(super) const USAGE: u8 = 2;
/// Wrong configuration.
pub(super) const CONFIG: u8 = 3;
/// The server cannot be reached.
pub(super) const UNREACHABLE: u8 = 4;
/// The server refused the request (4xx).
pub(super) const REFUSED: u8 = 5;
/// The server failed (5xx), or answered what no server of ours answers.
pub(super) const SERVER: u8 = 6;
/// The job that was waited for failed.
pub(super) const JOB_FAILED: u8 = 10;
/// The job that was waited for was cancelled.
pub(super) const JOB_CANCELLED: u8 = 11;

/// Why a command failed.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// The process's exit code, as listed by `app --help`.
    pub code: u8,
    /// What is wrong and what to do; empty if nothing should be said.
    pub message: String,
}

impl Failure {
    pub(super) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Part of the sentence may come from a server or a job; it must not steer the terminal.
        f.write_str(&super::print::plain(&self.message))
    }
}

impl From<crate::config::Error> for Failure {
    fn from(e: crate::config::Error) -> Self {
        Self::new(CONFIG, e.to_string())
    }
}

impl From<crate::app::Error> for Failure {
    fn from(e: crate::app::Error) -> Self {
        Self::new(e.exit_code(), e.to_string())
    }
}
