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

use crate::{
    base::store::StoreError,
    store::{OpenError, Place, Stores},
};

/// Why the program ended other than in good order. The text is one sentence for whoever started it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub enum Error {
    /// A setting that only shows to be wrong when it is used.
    Config(String),
    /// Anything else.
    Failed(String),
}

impl From<OpenError> for Error {
    fn from(e: OpenError) -> Self {
        match e {
            OpenError::Url(why) => Self::Config(why),
            OpenError::Store(e) => Self::Failed(e.to_string()),
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

/// Closes the database after what was done with it.
///
/// # Errors
/// The first there was: that of what was done, else that of the close.
async fn close<T>(stores: &Stores, done: Result<T, Error>) -> Result<T, Error> {
    let closed = stores.close().await;
    first_error(done, closed, &stores.place)
}

fn first_error<T>(done: Result<T, Error>, closed: Result<(), StoreError>, place: &Place) -> Result<T, Error> {
    let Err(e) = closed else { return done };
    tracing::error!(error = %e, store = %place, "the database was not closed in good order");
    done.and_then(|_| Err(Error::Failed(format!("{place} was not closed in good order: {e}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_the_one_that_is_told() {
        let place = Place::File("/x/app.db".into());
        let wrong = || Err(Error::Config("the password is too short".into()));
        let broken = || Err(StoreError::Internal("the disk is full".into()));
        let unclosed =
            Error::Failed("/x/app.db was not closed in good order: the store failed: the disk is full".into());
        for (done, closed, told) in [
            (Ok(1), Ok(()), Ok(1)),
            (wrong(), Ok(()), wrong()),
            (wrong(), broken(), wrong()),
            (Ok(1), broken(), Err(unclosed)),
        ] {
            assert_eq!(first_error(done, closed, &place), told);
        }
    }
}
