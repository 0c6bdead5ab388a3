//! Queues the jobs whose time has come: delayed ones, and retries.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Deps, Options, counted, pause};
use crate::{
    base::{failpoint, store::StoreError},
    broker,
};

pub(super) async fn run(deps: Arc<Deps>, options: Arc<Options>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let moved = counted("due", pass(&deps, &options).await);
        // A full batch: more may be due right now.
        if moved < options.batch && !pause(&stop, nap(&deps, &options).await).await {
            return;
        }
    }
}

async fn pass(deps: &Deps, options: &Options) -> Result<usize, StoreError> {
    // A look first: writing nothing would still cost a synced commit.
    let now = deps.clock.now();
    if deps.store.next_due().await?.is_none_or(|at| at > now) {
        return Ok(0);
    }
    let due = deps.store.due(now, options.batch).await?;
    failpoint::hit("scheduler.due.after_move");
    let wake_ups: Vec<_> = due.iter().map(|w| broker::wake_up(w.id, &w.queue, w.priority)).collect();
    deps.jobs.wake(&wake_ups).await;
    Ok(due.len())
}

/// Until the next job is due, but not longer than `due_every`: a new one may be due earlier.
async fn nap(deps: &Deps, options: &Options) -> Duration {
    let next = deps.store.next_due().await.ok().flatten();
    let until = next.map_or(options.due_every, |at| at.since(deps.clock.now()));
    until.clamp(Duration::from_millis(1), options.due_every)
}
