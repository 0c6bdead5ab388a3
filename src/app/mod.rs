//! The whole of the program put together: from a configuration to running roles.
//!
//! The only room that sees adapters; everyone else sees ports.

mod build;
mod direct;
mod fitness;
mod post;
mod roles;
mod timekeeper;

pub use build::{App, build, check};
pub use direct::{Report, create_admin, inspect, migrate, openapi_json, place};
pub use fitness::Finding;
pub use roles::{run, run_until};

/// Why the program ended other than in good order. The text is one sentence for whoever started it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub enum Error {
    /// A setting that only shows to be wrong when it is used.
    Config(String),
    /// Anything else.
    Failed(String),
}

impl From<crate::store::OpenError> for Error {
    fn from(e: crate::store::OpenError) -> Self {
        match e {
            crate::store::OpenError::Url(why) => Self::Config(why),
            crate::store::OpenError::Store(e) => Self::Failed(e.to_string()),
        }
    }
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
