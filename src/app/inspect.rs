//! A look at every backend before the process works with it.
//!
//! A backend that is away may come back, and the process waits for it like for any later fault. One that refuses this program
//! never will: the start ends with its sentence.

use std::time::Duration;

use futures_util::future::join_all;

use super::{App, Error};
use crate::base::probe::Unfit;

/// How long one backend may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks every backend, and logs what puts at risk what this program promises.
///
/// # Errors
/// The sentence of a backend that refuses this program.
pub(super) async fn inspect(app: &App) -> Result<(), Error> {
    let asked = app.probes.iter().map(async |p| (p.name(), tokio::time::timeout(TIMEOUT, p.inspect()).await));
    for (backend, answer) in join_all(asked).await {
        match answer {
            Ok(Ok(warnings)) => warnings.iter().for_each(|warning| tracing::warn!(backend, warning, "backend at risk")),
            Ok(Err(Unfit::Refused(why))) => return Err(Error::Config(why)),
            Ok(Err(Unfit::Unavailable(why))) => tracing::warn!(backend, error = why, "backend is not available yet"),
            Err(_) => {
                tracing::warn!(backend, error = format!("no answer within {TIMEOUT:?}"), "backend is not available yet")
            }
        }
    }
    Ok(())
}
