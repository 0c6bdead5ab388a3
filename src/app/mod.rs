//! Builds the parts of the program and runs a role: the only room that sees adapters.

use crate::config::{Config, Role};

/// Why the program ended other than in good order.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub enum Error {
    /// A setting that only shows to be wrong when it is used.
    Config(String),
    /// Anything else.
    Failed(String),
}

impl Error {
    /// The process's exit code, as `app --help` lists them.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 3,
            Self::Failed(_) => 1,
        }
    }
}

/// Runs `role` until it is told to stop.
///
/// # Errors
/// If it cannot start, or ends by itself.
#[allow(clippy::unused_async, reason = "the seam is asynchronous")]
pub async fn run(_role: Role, _config: Config) -> Result<(), Error> {
    Ok(())
}

/// Brings the store to the newest schema.
///
/// # Errors
/// If the store cannot be opened or changed.
#[allow(clippy::unused_async, reason = "the seam is asynchronous")]
pub async fn migrate(_config: Config) -> Result<(), Error> {
    Ok(())
}

/// The OpenAPI document of the HTTP API.
#[must_use]
pub fn openapi_json() -> String {
    "{}".to_owned()
}
