//! Keeps what this worker runs its own: renews leases in one batch, hears cancels by the way, stores progress.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Shared, StopReason};
use crate::{
    base::{clock::Timestamp, id::JobId},
    jobs::{model::Progress, store::Renewal},
};

/// How often progress is stored, at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Renews every lease each `renew_every`.
pub(super) async fn renew(shared: Arc<Shared>, stop: CancellationToken) {
    let mut renewed_at = shared.deps.clock.now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(shared.options.renew_every) => {}
        }
        let held: Vec<(JobId, u64, Timestamp)> =
            shared.running.lock().iter().map(|(id, r)| (*id, r.fence, r.started_at)).collect();
        let asked_at = shared.deps.clock.now();
        if held.is_empty() {
            renewed_at = asked_at;
            continue;
        }
        let pairs: Vec<(JobId, u64)> = held.iter().map(|(id, fence, _)| (*id, *fence)).collect();
        let renewal = shared.deps.store.renew(&pairs, asked_at.plus(shared.options.lease));
        match tokio::time::timeout(shared.options.renew_every, renewal).await {
            Ok(Ok(answers)) => {
                renewed_at = asked_at;
                for ((id, _), answer) in pairs.iter().zip(answers) {
                    match answer {
                        Renewal::Held { cancel_requested: false } => {}
                        Renewal::Held { cancel_requested: true } => shared.running.stop(*id, StopReason::Cancel),
                        Renewal::Lost => lost(&shared, *id, &held),
                    }
                }
            }
            Ok(Err(e)) => tracing::warn!(error = %e, leases = held.len(), "leases not renewed, trying again"),
            Err(_) => tracing::warn!(leases = held.len(), "leases not renewed: the store does not answer"),
        }
        // Whatever could not be renewed for a whole lease may run elsewhere by now.
        let now = shared.deps.clock.now();
        for (id, _, started_at) in &held {
            if now.since(renewed_at.max(*started_at)) >= shared.options.lease {
                lost(&shared, *id, &held);
            }
        }
    }
}

/// Stops a run whose lease is gone, unless it has just been finished or is a later run of the same job.
fn lost(shared: &Shared, id: JobId, held: &[(JobId, u64, Timestamp)]) {
    let running = shared.running.lock();
    let Some(run) = running.get(&id) else { return };
    if held.iter().any(|(held, fence, _)| *held == id && *fence == run.fence) {
        run.stop.because(StopReason::LeaseLost);
    }
}

/// Stores the latest progress of every run that noted some.
pub(super) async fn progress(shared: Arc<Shared>, stop: CancellationToken) {
    let mut logged = HashMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PROGRESS_EVERY) => {}
        }
        let notes: Vec<_> = shared
            .running
            .lock()
            .iter()
            .filter_map(|(id, r)| Some((*id, r.fence, r.context.take_progress()?)))
            .collect();
        if notes.is_empty() {
            continue;
        }
        log_quarters(&notes, &mut logged);
        if let Err(e) = shared.deps.store.progress(notes).await {
            tracing::warn!(error = %e, "progress not stored");
        }
    }
}

/// Logs a run's progress when it enters another quarter: often enough to follow, too rarely to drown the log.
fn log_quarters(notes: &[(JobId, u64, Progress)], logged: &mut HashMap<(JobId, u64), u8>) {
    for (job, run, p) in notes {
        let quarter = (p.percent() / 25.0) as u8;
        if logged.insert((*job, *run), quarter) != Some(quarter) {
            tracing::info!(%job, run, current = p.current, total = p.total, percent = p.percent(), "job progress");
        }
    }
    // What is not noted any more has ended or is idle; either way it may be logged again.
    if logged.len() > 10_000 {
        logged.retain(|key, _| notes.iter().any(|(job, run, _)| (*job, *run) == *key));
    }
}
