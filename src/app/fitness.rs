//! Whether the backends may be used: each is looked at when a role starts, and again until it has answered once.
//!
//! One that refuses this program (a wrong password, a version that cannot work) ends the process with one sentence, because
//! waiting mends nothing. One that is away does not: the process starts without it and goes on when it comes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::{
    base::{
        backoff::Backoff,
        id::QueueName,
        probe::{Probe, Unfit},
    },
    broker::{Broker, Lacks},
};

/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between looks at a backend that is away.
const AGAIN: Backoff = Backoff { base_ms: 500, cap_ms: 10_000 };

/// What a look at one backend found.
pub struct Finding {
    /// The backend's name.
    pub name: &'static str,
    /// Where it is, where that is known.
    pub place: Option<String>,
    /// Warnings about its settings, or why it cannot be used.
    pub found: Result<Vec<String>, Unfit>,
}

/// Looks at every backend once, at all of them together.
pub(super) async fn look(probes: &[Arc<dyn Probe>]) -> Vec<Finding> {
    join_all(probes.iter().map(|p| async {
        let found = bounded(p.inspect()).await;
        Finding { name: p.name(), place: None, found }
    }))
    .await
}

/// What the broker's server refuses: a sentence for each queue that is there, and for broadcasts.
pub(super) async fn refusals(broker: &dyn Broker, queues: &[QueueName]) -> Vec<String> {
    match broker.examine(queues).await {
        Ok(Lacks { queues, broadcasts }) => queues.into_iter().map(|q| q.why).chain(broadcasts).collect(),
        Err(e) => vec![e.to_string()],
    }
}

/// Bounds one look.
pub(super) async fn bounded<T>(look: impl Future<Output = Result<T, Unfit>>) -> Result<T, Unfit> {
    match tokio::time::timeout(PATIENCE, look).await {
        Ok(found) => found,
        Err(_) => Err(Unfit::Unavailable(format!("no answer within {PATIENCE:?}"))),
    }
}

/// Backends that have not answered yet. `ready` is set as soon as the first of all, the store, has.
pub(super) struct Fitness {
    waiting: Vec<Arc<dyn Probe>>,
    store: &'static str,
    ready: Arc<AtomicBool>,
}

impl Fitness {
    /// All of them; the store is the first.
    pub(super) fn new(probes: &[Arc<dyn Probe>], ready: Arc<AtomicBool>) -> Self {
        let store = probes.first().map_or("", |p| p.name());
        Self { waiting: probes.to_vec(), store, ready }
    }

    /// Looks at those that have not answered yet; answers whether none is left.
    pub(super) async fn look(&mut self) -> Result<bool, Error> {
        let findings = look(&self.waiting).await;
        let mut still = Vec::new();
        for (probe, Finding { name, found, .. }) in std::mem::take(&mut self.waiting).into_iter().zip(findings) {
            match found {
                Ok(warnings) => {
                    for warning in warnings {
                        tracing::warn!(backend = name, "{warning}");
                    }
                    if name == self.store {
                        self.ready.store(true, Ordering::Relaxed);
                    }
                }
                Err(Unfit::Unavailable(e)) => {
                    tracing::warn!(backend = name, error = e, "backend is away, going on without it until it comes");
                    still.push(probe);
                }
                Err(Unfit::Refused(e)) => return Err(Error::Config(e)),
            }
        }
        self.waiting = still;
        Ok(self.waiting.is_empty())
    }

    /// Looks again until all have answered.
    pub(super) async fn wait(mut self, stop: CancellationToken) -> Result<(), Error> {
        for failures in 0.. {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(AGAIN.delay(failures).max(Duration::from_millis(100))) => {}
            }
            if self.look().await? {
                break;
            }
        }
        Ok(())
    }
}
