//! Publishes again the wake-ups that got lost: with a broker that died, or between an insert and its publish.
//!
//! A queued job has lost its wake-up if the broker holds fewer wake-ups than the store holds queued jobs. The pass
//! then publishes the longest-waiting jobs again, no more than are missing, and goes on from there the next time, so
//! that it neither floods a busy broker nor circles on the same few. One too many is harmless: the claim decides.
//!
//! The comparison can be wrong: wake-ups of jobs that are long gone make up for lost ones, and under load the two counts
//! are never of the same moment. So a few of the longest-waiting are published at each pass whatever the counts say.

use std::{collections::HashMap, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::{Deps, Options, counted, pause};
use crate::{
    base::{
        clock::Timestamp,
        failpoint,
        id::{JobId, QueueName},
        store::StoreError,
    },
    broker,
    jobs::store::QueueState,
};

/// So many of a queue's longest-waiting jobs are woken at each pass even if none seems to be missing.
const ANYWAY: usize = 10;
/// Most batches for one queue in one pass: what a broker lost is back soon, and other queues get their turn.
const BATCHES: usize = 50;

/// Where the pass goes on in each queue.
type Cursors = HashMap<QueueName, (Timestamp, JobId)>;

pub(super) async fn run(deps: Arc<Deps>, options: Arc<Options>, stop: CancellationToken) {
    let mut cursors = Cursors::new();
    loop {
        if !pause(&stop, options.lost_every).await {
            return;
        }
        let before = deps.clock.now().minus(options.lost_after);
        counted("lost", pass(&deps, &options, before, &mut cursors).await);
    }
}

/// Publishes every queued job once: what a process does at start whose broker began empty.
pub(super) async fn wake_all(deps: &Deps, options: &Options) -> Result<usize, StoreError> {
    let before = deps.clock.now().plus(std::time::Duration::from_millis(1));
    let mut woken = 0;
    for queue in deps.fleet.queues().await? {
        let mut after = None;
        loop {
            let (n, last) = publish(deps, &queue.name, before, after, options.batch).await?;
            woken += n;
            after = last;
            if n < options.batch {
                break;
            }
        }
    }
    Ok(woken)
}

async fn pass(deps: &Deps, options: &Options, before: Timestamp, cursors: &mut Cursors) -> Result<usize, StoreError> {
    let mut woken = 0;
    for queue in deps.fleet.queues().await? {
        let Some(missing) = missing(deps, &queue, before).await else {
            cursors.remove(&queue.name);
            continue;
        };
        let (mut left, mut published) = (missing.wanted, 0);
        for _ in 0..BATCHES {
            let after = cursors.get(&queue.name).copied();
            let (n, last) = publish(deps, &queue.name, before, after, left.min(options.batch)).await?;
            match last {
                Some(last) => drop(cursors.insert(queue.name.clone(), last)),
                // The end was reached: begin again with the oldest.
                None => drop(cursors.remove(&queue.name)),
            }
            published += n;
            left -= n.min(left);
            if n == 0 || left == 0 {
                break;
            }
        }
        // What the broker's server refuses is not lost, and the broker has warned of it.
        let refused = || deps.broker.set_aside().iter().any(|r| r.queue == queue.name);
        if published > 0 && missing.lost && !refused() {
            tracing::warn!(queue = %queue.name, jobs = published, "wake-ups were lost and are published again");
        }
        woken += published;
    }
    Ok(woken)
}

/// How many jobs of a queue to wake, and whether that is because wake-ups were lost.
struct Missing {
    wanted: usize,
    lost: bool,
}

/// None if nothing has waited for long, or nobody can tell.
async fn missing(deps: &Deps, queue: &QueueState, before: Timestamp) -> Option<Missing> {
    let queued = queue.counts.queued;
    if queued == 0 || queue.oldest.is_none_or(|at| at >= before) {
        return None;
    }
    match deps.broker.depth(&queue.name).await {
        Ok(depth) if depth < queued => {
            let wanted = usize::try_from(queued - depth).unwrap_or(usize::MAX).max(ANYWAY);
            Some(Missing { wanted, lost: true })
        }
        // A queue that nobody takes from must not gather more and more of them.
        Ok(depth) if depth / 2 <= queued && !queue.paused => Some(Missing { wanted: ANYWAY, lost: false }),
        Ok(_) => None,
        Err(e) => {
            tracing::debug!(queue = %queue.name, error = %e, "depth unknown, looking again later");
            None
        }
    }
}

async fn publish(
    deps: &Deps,
    queue: &QueueName,
    before: Timestamp,
    after: Option<(Timestamp, JobId)>,
    limit: usize,
) -> Result<(usize, Option<(Timestamp, JobId)>), StoreError> {
    let waiting = deps.store.waiting(queue, before, after, limit).await?;
    let wake_ups: Vec<_> = waiting.iter().map(|w| broker::wake_up(w.id, &w.queue, w.priority)).collect();
    deps.jobs.wake(&wake_ups).await;
    failpoint::hit_if("scheduler.lost.after_publish", !waiting.is_empty());
    Ok((waiting.len(), waiting.last().map(|w| (w.since, w.id))))
}
