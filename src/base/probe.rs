//! Health of one backend, as `/health` shows it.

use async_trait::async_trait;

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
}
