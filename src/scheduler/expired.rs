//! Takes jobs from workers that died or went silent.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Deps, Options, counted, pause};
use crate::{
    base::{failpoint, store::StoreError},
    broker,
    jobs::{
        control::WORKER_FORGOTTEN_AFTER,
        state::State,
        store::{Moved, Void},
    },
};

/// Nobody renews while the store is away, and nobody who was suspended does. So after each of these, and at the start
/// (which may follow either), leases get one renewal's time before they are judged: no job is to be taken from a live worker.
pub(super) async fn run(deps: Arc<Deps>, options: Arc<Options>, stop: CancellationToken) {
    let mut in_doubt = Some("the scheduler starts");
    let (mut looked_at, mut planned) = (deps.clock.now(), Duration::ZERO);
    while !stop.is_cancelled() {
        let now = deps.clock.now();
        if now.since(looked_at) > planned + options.expired_every + options.suspended_after {
            in_doubt = Some("the process was suspended");
        }
        (looked_at, planned) = (now, options.expired_every);
        if let Some(why) = in_doubt {
            match deps.store.next_due().await {
                Ok(_) => {
                    tracing::info!(why, "leases get time to be renewed");
                    in_doubt = None;
                    planned = options.suspended_after;
                }
                Err(e) => {
                    counted("expired", Err(e));
                }
            }
        } else {
            let passed = pass(&deps, &options, &Void::Expired(now)).await;
            if passed.is_err() {
                in_doubt = Some("the store was away");
            }
            if counted("expired", passed) >= options.batch {
                continue;
            }
            forget_workers(&deps).await;
        }
        if !pause(&stop, planned).await {
            return;
        }
    }
}

/// Takes every job that a process before this one was running. To be called once, before this process's worker starts:
/// the file lock proves that no other process has the database, so no waiting for leases is needed.
pub(super) async fn take_from_the_dead(deps: &Deps, options: &Options) -> Result<usize, StoreError> {
    let mut taken = 0;
    loop {
        let n = pass(deps, options, &Void::NotOwnedBy(Vec::new())).await?;
        taken += n;
        if n < options.batch {
            break;
        }
    }
    for w in deps.fleet.workers().await? {
        deps.fleet.forget(w.id).await?;
    }
    Ok(taken)
}

async fn pass(deps: &Deps, options: &Options, which: &Void) -> Result<usize, StoreError> {
    let now = deps.clock.now();
    let moved = deps.store.void(which, now, options.crash_limit, options.batch, &deps.listened).await?;
    failpoint::hit_if("scheduler.expired.after_move", !moved.is_empty());
    for Moved { job, state } in &moved {
        tracing::warn!(job = %job.id, queue = %job.queue, state = state.as_str(), "job taken from a worker that died or went silent");
    }
    let wake_ups: Vec<_> = moved
        .iter()
        .filter(|m| m.state == State::Queued)
        .map(|m| broker::wake_up(m.job.id, &m.job.queue, m.job.priority))
        .collect();
    deps.jobs.wake(&wake_ups).await;
    Ok(moved.len())
}

/// Workers that died without a word disappear from the lists after a day.
async fn forget_workers(deps: &Deps) {
    let now = deps.clock.now();
    let result = async {
        for w in deps.fleet.workers().await? {
            if now.since(w.heartbeat_at) > WORKER_FORGOTTEN_AFTER.max(Duration::from_secs(1)) {
                deps.fleet.forget(w.id).await?;
            }
        }
        Ok::<_, StoreError>(0)
    };
    counted("expired", result.await);
}
