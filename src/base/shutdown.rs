//! Orderly end of the process: the first signal asks, the second insists.

use tokio_util::sync::CancellationToken;

/// Tells every part of the process that it should stop. Passed down, never global, so that tests can run several.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Cancelled when the process should finish what it does and take nothing new.
    pub drain: CancellationToken,
    /// Cancelled when running work must be given back at once.
    pub abort: CancellationToken,
}

impl Shutdown {
    /// Nothing requested yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Turns SIGTERM and SIGINT into requests for as long as the process lives: first drain, then abort.
    ///
    /// # Errors
    /// If the operating system refuses to install a signal handler.
    pub fn listen(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let this = self.clone();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! { _ = term.recv() => "SIGTERM", _ = int.recv() => "SIGINT" };
                if this.drain.is_cancelled() {
                    tracing::warn!(signal = name, "second signal: giving running jobs back at once");
                    this.abort.cancel();
                } else {
                    tracing::info!(
                        signal = name,
                        "shutting down: running jobs may finish, send the signal again to stop at once"
                    );
                    this.drain.cancel();
                }
            }
        });
        Ok(())
    }
}
