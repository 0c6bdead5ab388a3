//! Writes how runs ended: what ends while a write is under way goes together in the next one.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    time::{Instant, sleep_until},
};

use super::{Shared, meter::Handles, run::UNKNOWN_KIND};
use crate::{
    base::{backoff::Backoff, failpoint},
    broker::{self, BrokerError, WakeUp},
    events::Event,
    jobs::{
        announce,
        context::JobContext,
        model::{Attempt, AttemptOutcome, Job},
        state::{State, Verdict},
        store::{Finish, Finished},
    },
};

/// Between attempts to write an end. A result is not thrown away because the store is restarting.
const RETRY: Backoff = Backoff { base_ms: 50, cap_ms: 2_000 };
/// Most ends in one write.
const BATCH: usize = 512;

/// A run that ended; nothing is written for one whose job was taken away (`end` is none).
pub(super) struct Ended {
    pub(super) job: Job,
    pub(super) end: Option<(Verdict, Attempt)>,
    /// What is told of it, if somebody listens.
    pub(super) event: Option<Event>,
    pub(super) context: JobContext,
    /// None if its handler never began.
    pub(super) ran: Option<Ran>,
}

/// What is counted of a handler that ran.
pub(super) struct Ran {
    pub(super) handles: Arc<Handles>,
    pub(super) took: Duration,
}

/// Writes under way at once. More than one, so that what ends during a write need not wait for its answer: stores
/// gather what comes together.
const WRITES_AT_ONCE: usize = 8;

/// While a write is under way, the next one waits for [`Shared::worth_a_call`] ends, but not for longer than this.
const PATIENCE: Duration = Duration::from_millis(5);

/// Runs until every sender of ends is gone and all is written.
pub(super) async fn run(shared: Arc<Shared>, mut ended: UnboundedReceiver<Ended>, settled: UnboundedSender<usize>) {
    let mut batch = Vec::new();
    let mut writing = FuturesUnordered::new();
    let mut since = Instant::now();
    let mut open = true;
    while open || !batch.is_empty() || !writing.is_empty() {
        let full = batch.len() >= shared.worth_a_call() || writing.is_empty() || !open;
        if !batch.is_empty() && writing.len() < WRITES_AT_ONCE && (full || since.elapsed() >= PATIENCE) {
            writing.push(end(&shared, std::mem::take(&mut batch)));
        }
        let room = BATCH - batch.len();
        tokio::select! {
            biased;
            Some(over) = writing.next(), if !writing.is_empty() => {
                // A closed channel means that the worker has stopped waiting for these.
                settled.send(over).ok();
            }
            n = ended.recv_many(&mut batch, room), if open && room > 0 => {
                open = n > 0;
                if batch.len() == n {
                    since = Instant::now();
                }
            }
            () = sleep_until(since + PATIENCE), if !batch.is_empty() && writing.len() < WRITES_AT_ONCE => {}
        }
    }
}

/// Writes a batch of ends and takes them out of the table of runs; answers how many there were.
async fn end(shared: &Shared, ends: Vec<Ended>) -> usize {
    note_progress(shared, &ends).await;
    let finishes: Vec<Finish> = ends
        .iter()
        .filter_map(|e| {
            let (verdict, attempt) = e.end.clone()?;
            Some(Finish { id: e.job.id, fence: e.job.fence, verdict, attempt, event: e.event.clone() })
        })
        .collect();
    let mut written = write(shared, finishes).await.into_iter();
    failpoint::hit("worker.after_finish");
    {
        let mut running = shared.running.lock();
        for e in &ends {
            // A successor of a lost run may already be in the table under the same job.
            if running.get(&e.job.id).is_some_and(|r| r.fence == e.job.fence) {
                running.remove(&e.job.id);
            }
        }
    }
    let mut queued = Vec::new();
    for e in &ends {
        let result = if e.end.is_some() { written.next() } else { None };
        if let (Some(Finished::Now(_)), Some(event)) = (result, &e.event) {
            queued.extend(announce::wake_up(event));
        }
        if settle(shared, e, result) {
            queued.push(broker::wake_up(e.job.id, &e.job.queue, e.job.priority));
        }
    }
    wake(shared, &queued).await;
    ends.len()
}

/// Wakes jobs that were given back. If that fails, `scheduler::lost` finds them.
async fn wake(shared: &Shared, queued: &[WakeUp]) {
    if queued.is_empty() {
        return;
    }
    let published = tokio::time::timeout(broker::CALL_TIMEOUT, shared.deps.broker.publish(queued)).await;
    if !matches!(published, Ok(Ok(()) | Err(BrokerError::Refused(_)))) {
        tracing::warn!(
            jobs = queued.len(),
            "wake-ups of jobs given back not published, the scheduler will repeat them"
        );
    }
}

/// The last progress of runs that ended without a result is worth keeping.
async fn note_progress(shared: &Shared, batch: &[Ended]) {
    let notes: Vec<_> =
        batch.iter().filter_map(|e| Some((e.job.id, e.job.fence, e.context.take_progress()?))).collect();
    if !notes.is_empty()
        && let Err(e) = shared.deps.store.progress(notes).await
    {
        tracing::warn!(error = %e, "progress not stored");
    }
}

async fn write(shared: &Shared, finishes: Vec<Finish>) -> Vec<Finished> {
    if finishes.is_empty() {
        return Vec::new();
    }
    let mut failures = 0;
    loop {
        match shared.deps.store.finish(finishes.clone()).await {
            Ok(written) => return written,
            Err(e) => {
                let pause = RETRY.delay(failures).max(std::time::Duration::from_millis(10));
                tracing::error!(error = %e, jobs = finishes.len(), retry_in_ms = pause.as_millis() as u64, "ends of jobs not stored, trying again");
                failures = failures.saturating_add(1);
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Counts and logs one end; answers whether the job is queued again and must be woken.
fn settle(shared: &Shared, e: &Ended, written: Option<Finished>) -> bool {
    let job = &e.job;
    let (Some((verdict, attempt)), Some(Finished::Now(state))) = (&e.end, written) else {
        shared.meter.lost();
        tracing::warn!(job = %job.id, kind = %job.kind, run = job.fence, code = "lease_lost", "job was taken from this worker, its outcome is not written");
        return false;
    };
    // Not since the claim: it may have waited for its slot.
    let took = e.ran.as_ref().map(|ran| ran.took).unwrap_or_default();
    if let Some(ran) = &e.ran {
        shared.meter.ended(&ran.handles, verdict, attempt.outcome, took.as_secs_f64());
    }
    let ms = took.as_millis() as u64;
    let error = attempt.error.as_ref().map(|e| e.message.as_str());
    let request_id = job.spec.correlation_id.as_deref().unwrap_or("-");
    match (state, attempt.retry_at) {
        // Of this there is one warning in a while, however many jobs are put off.
        (State::Scheduled, Some(_)) if attempt.error.as_ref().is_some_and(|e| e.code == UNKNOWN_KIND) => {
            tracing::debug!(job = %job.id, kind = %job.kind, request_id, "job of an unknown kind put off");
        }
        (State::Scheduled, Some(at)) => {
            let delay_ms = at.since(attempt.finished_at).as_millis() as u64;
            tracing::warn!(job = %job.id, kind = %job.kind, attempt = job.attempt(), outcome = attempt.outcome.as_str(), error, ms, delay_ms, request_id, "job will run again");
        }
        (State::Failed, _) => {
            tracing::error!(job = %job.id, kind = %job.kind, attempt = job.attempt(), outcome = attempt.outcome.as_str(), error, ms, request_id, "job failed for good, it is a dead letter now");
        }
        (State::Queued, _) => {
            tracing::info!(job = %job.id, kind = %job.kind, run = job.fence, ms, request_id, "job given back");
        }
        _ => {
            tracing::info!(job = %job.id, kind = %job.kind, attempt = job.attempt(), state = state.as_str(), ms, request_id, "job finished");
        }
    }
    debug_assert!(attempt.outcome != AttemptOutcome::Succeeded || state == State::Succeeded, "a success is final");
    state == State::Queued
}
