//! Health of one backend, as `/health` shows it, and its fitness at the start.

use async_trait::async_trait;

/// Why a backend was not looked at, or must not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It does not answer; it may later.
    Unavailable(String),
    /// It refuses this program (credentials, rights, version), or this program refuses it. Time mends nothing.
    Refused(String),
}

/// Something that can be asked whether it works right now.
#[async_trait]
pub trait Probe: Send + Sync {
    /// The backend's name in `/health`: `sqlite`, `embedded`, `mongodb` …
    fn name(&self) -> &'static str;

    /// Does the smallest thing that proves the backend works. The caller bounds the time.
    ///
    /// # Errors
    /// A sentence that says what does not work.
    async fn check(&self) -> Result<(), String>;

    /// What works only in part, although the backend is there: a sentence each, fit for everybody's eyes. Asks nobody.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Looks at the backend once at the start: whether it lets this program in, and which of its settings put at risk
    /// what this program promises. Each warning is a sentence that names the setting and what to do. The caller bounds
    /// the time.
    ///
    /// # Errors
    /// [`Unfit`].
    async fn inspect(&self) -> Result<Vec<String>, Unfit> {
        Ok(Vec::new())
    }
}
