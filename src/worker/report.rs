//! Says that the worker lives, and hears what is broadcast to all.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{Shared, StopReason, running::Phase};
use crate::{
    base::{backoff::Backoff, clock::Timestamp},
    broker::{BrokerError, Control, SetAside},
    jobs::store::{ActiveJob, WorkerReport},
    telemetry::metrics::resident_memory,
};

/// Most running jobs a report names; the count of busy slots is always right.
const ACTIVE_SHOWN: usize = 200;
/// Between tries to hear broadcasts that the server refuses.
const REFUSED: Duration = Duration::from_secs(30);

/// Reports every `heartbeat`, and reads which queues are paused.
pub(super) async fn heartbeat(shared: Arc<Shared>, stop: CancellationToken) {
    let started_at = shared.deps.clock.now();
    loop {
        report(&shared, started_at).await;
        read_paused(&shared).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(shared.options.heartbeat) => {}
        }
    }
}

async fn report(shared: &Shared, started_at: Timestamp) {
    let mut active: Vec<ActiveJob> = shared
        .running
        .lock()
        .iter()
        .filter(|(_, r)| r.phase == Phase::Runs)
        .map(|(id, r)| ActiveJob {
            job_id: *id,
            kind: r.kind.clone(),
            queue: r.queue.clone(),
            started_at: r.started_at,
        })
        .collect();
    active.sort_by_key(|a| (a.started_at, a.job_id));
    let busy = u32::try_from(active.len()).unwrap_or(u32::MAX);
    active.truncate(ACTIVE_SHOWN);
    let report = WorkerReport {
        id: shared.id,
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at,
        heartbeat_at: shared.deps.clock.now(),
        draining: shared.draining.load(Ordering::Relaxed),
        queues: shared.options.queues.clone(),
        set_aside: set_aside(shared),
        slots: u32::try_from(shared.options.slots).unwrap_or(u32::MAX),
        busy,
        kinds: shared.deps.registry.iter().map(|k| k.name.clone()).collect(),
        active,
        totals: shared.meter.totals(),
        last_minute: shared.meter.last_minute(),
        rss_bytes: resident_memory().unwrap_or(0),
    };
    if let Err(e) = shared.deps.fleet.report(report).await {
        tracing::warn!(error = %e, "worker report not stored");
    }
}

/// The worker's queues that the broker's server refuses to it.
fn set_aside(shared: &Shared) -> Vec<SetAside> {
    let mut all = shared.deps.broker.set_aside();
    all.retain(|refused| shared.options.queues.iter().any(|(queue, _)| *queue == refused.queue));
    all
}

/// Reads which queues are paused; true in the store, quick by broadcast.
pub(super) async fn read_paused(shared: &Shared) {
    // One at a time: an older reading must not overwrite a newer one.
    let _turn = shared.reading_paused.lock().await;
    match shared.deps.fleet.queues().await {
        Ok(queues) => {
            let now = queues.into_iter().filter(|q| q.paused).map(|q| q.name).collect();
            let mut paused = shared.paused.lock().unwrap_or_else(PoisonError::into_inner);
            if *paused != now {
                *paused = now;
                drop(paused);
                shared.paused_changed.notify_one();
            }
        }
        Err(e) => tracing::warn!(error = %e, "cannot read which queues are paused"),
    }
}

/// Hears broadcasts for as long as the worker lives; listens again whenever the line breaks.
pub(super) async fn control(shared: Arc<Shared>, stop: CancellationToken) {
    let started_at = shared.deps.clock.now();
    let again = Backoff { base_ms: 100, cap_ms: 5_000 };
    let mut failures = 0;
    loop {
        let heard = async {
            let mut listener = shared.deps.broker.listen().await?;
            loop {
                match listener.next().await? {
                    Some(Control::Cancel { job }) => shared.running.stop(job, StopReason::Cancel),
                    Some(Control::Ping) => {
                        report(&shared, started_at).await;
                        match shared.deps.broker.broadcast(&Control::Pong { worker: shared.id }).await {
                            // Who hears may lack the right to say.
                            Err(BrokerError::NoBroadcasts(_)) | Ok(()) => {}
                            Err(e) => return Err(e),
                        }
                    }
                    // `None`: something was missed; cancels come with the next renewal.
                    Some(Control::QueuesChanged) | None => read_paused(&shared).await,
                    Some(Control::Pong { .. }) => {}
                }
            }
        };
        let broken: Result<std::convert::Infallible, BrokerError> = tokio::select! {
            () = stop.cancelled() => return,
            broken = heard => broken,
        };
        let Err(e) = broken;
        let pause = if matches!(e, BrokerError::NoBroadcasts(_)) {
            // The broker has said so once.
            tracing::debug!(error = %e, "broadcasts are refused, listening again later");
            REFUSED
        } else {
            tracing::warn!(error = %e, "broadcasts are not heard, listening again");
            let pause = again.delay(failures).max(Duration::from_millis(50));
            failures = failures.saturating_add(1);
            pause
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
