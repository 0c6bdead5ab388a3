//! One run of one job: its slot, then its handler under a time-out, deaf neither to a cancel nor to its own panic.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use super::{
    STOP_GRACE, Shared, StopReason,
    finish::{Ended, Ran},
    meter::Handles,
    pace,
    running::{Phase, Run, Stop},
    turns::Turn,
};
use crate::{
    base::{backoff::Backoff, clock::Timestamp, id::KindName},
    events::Event,
    jobs::{
        announce,
        context::JobContext,
        kind::{Handler, Outcome},
        model::{Attempt, Job, JobError},
        state::{RunEnd, State, Verdict, judge},
    },
};

/// The code of the error with which a job of a kind that the worker does not know is put off.
pub(super) const UNKNOWN_KIND: &str = "unknown_kind";
/// How long such a job is left to other workers, at first and at most. During a rolling update there are some that know it.
const LEFT_TO_OTHERS: Backoff = Backoff { base_ms: 2_000, cap_ms: 60_000 };

/// Starts a claimed job as soon as there is a slot for it; its end goes to `ended`. It was queued at `queued_at`.
pub(super) fn start(shared: &Arc<Shared>, job: Job, queued_at: Timestamp, ended: UnboundedSender<Ended>) {
    let stop = Stop::default();
    let context = JobContext::new(&job, shared.id, stop.token());
    let run = Run {
        fence: job.fence,
        kind: job.kind.clone(),
        queue: job.queue.clone(),
        started_at: job.started_at.unwrap_or_else(|| shared.deps.clock.now()),
        context: context.clone(),
        stop: stop.clone(),
        phase: Phase::Waits,
    };
    let before = shared.running.lock().insert(job.id, run);
    if let Some(before) = before {
        // This worker lost the job and won it again before its renewal told it: the table no longer knows the old run.
        before.stop.because(StopReason::LeaseLost);
    }
    // Here and not in the task, or they would wait in the order in which their tasks happen to begin.
    let asked = shared.turns.ask(&job.queue, job.priority);
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let turn = turn(&shared, &job, &stop, asked).await;
        let (mut end, mut ran) = (end_of(None, stop.reason(), 0), None);
        let handler = shared.deps.registry.get(job.kind.as_str()).map(|kind| Arc::clone(&kind.handler));
        if turn.is_some() && handler.is_none() {
            end = Some(left_to_others(&shared, &job));
        } else if turn.is_some()
            && let Some(handler) = handler
        {
            let handles = begin(&shared, &job, queued_at);
            let begun = Instant::now();
            end = supervise(&shared, &job, handler, &context, &stop).await;
            crate::base::failpoint::hit("worker.after_run");
            let took = begun.elapsed();
            note(&shared, &job, took, end.as_ref());
            ran = Some(Ran { handles, took });
        }
        let end = end.map(|end| judge(&job, end, shared.deps.clock.now()));
        let event = end.as_ref().and_then(|(verdict, attempt)| told(&shared, &job, verdict, attempt));
        // The slot is free now: the next job's claim may share a commit with this one's end.
        drop(turn);
        shared.taken.fetch_sub(1, Ordering::AcqRel);
        shared.freed.notify_one();
        // A closed channel means that the worker is gone, and with it whoever could write this.
        drop(ended.send(Ended { job, end, event, context, ran }));
    });
}

/// Waits for a slot; none if the job is not to be run here.
async fn turn(shared: &Shared, job: &Job, stop: &Stop, asked: Result<Turn, oneshot::Receiver<Turn>>) -> Option<Turn> {
    let turn = match asked {
        Ok(turn) => turn,
        Err(place) => {
            let since = Instant::now();
            let stopped = stop.token();
            let turn = tokio::select! {
                biased;
                () = stopped.cancelled() => return None,
                turn = place => turn.ok(),
                () = tokio::time::sleep(pace::HOLD) => None,
            };
            // A process that was suspended holds a job for longer than it knows.
            match turn.filter(|_| since.elapsed() <= pace::HOLD) {
                Some(turn) => turn,
                None => {
                    shared.pace.hold_back(shared.options.slots);
                    return None;
                }
            }
        }
    };
    // What was claimed before its queue was paused, and did not begin, does not begin any more.
    let paused = shared.paused.lock().unwrap_or_else(PoisonError::into_inner).contains(&job.queue);
    (!paused && stop.reason().is_none()).then_some(turn)
}

/// Notes that a job's handler runs from now on.
fn begin(shared: &Shared, job: &Job, queued_at: Timestamp) -> Arc<Handles> {
    shared.running.enters(job.id, job.fence, Phase::Runs);
    tracing::info!(
        job = %job.id, kind = %job.kind, queue = %job.queue, attempt = job.attempt(), run = job.fence,
        request_id = job.spec.correlation_id.as_deref().unwrap_or("-"), "job started"
    );
    shared.meter.started(job, queued_at)
}

/// Notes that it has ended.
fn note(shared: &Shared, job: &Job, took: Duration, end: Option<&RunEnd>) {
    shared.running.enters(job.id, job.fence, Phase::Ends);
    shared.meter.left();
    shared.pace.ran(took);
    if let Some(RunEnd::Done(Some(result))) = end {
        shared.pace.size(result.get().len());
    }
    shared.ran.fetch_add(1, Ordering::AcqRel);
}

/// What is told of this end, if somebody listens to such.
fn told(shared: &Shared, job: &Job, verdict: &Verdict, attempt: &Attempt) -> Option<Event> {
    let state = match verdict {
        Verdict::Succeed(_) => State::Succeeded,
        Verdict::Fail => State::Failed,
        _ => return None,
    };
    let wanted = shared.deps.listened.wants(job, state);
    wanted.then(|| announce::end_of(job, state, attempt.error.as_ref(), attempt.finished_at))
}

/// Runs the handler to its end; none if the job was taken from this worker.
async fn supervise(
    shared: &Shared,
    job: &Job,
    handler: Arc<dyn Handler>,
    context: &JobContext,
    stop: &Stop,
) -> Option<RunEnd> {
    let mut run =
        Box::pin(AssertUnwindSafe(async { handler.run(context.clone(), &job.spec.payload).await }).catch_unwind());
    let timeout = async {
        tokio::time::sleep(job.spec.timeout()).await;
        stop.because(StopReason::TimedOut);
    };
    let stopped = stop.token();
    let outcome = tokio::select! {
        biased;
        outcome = &mut run => Some(outcome),
        () = stopped.cancelled() => None,
        () = timeout => None,
    };
    let outcome = match outcome {
        Some(o) => Some(o),
        // Told to stop: it may end by itself for a while, then its future is dropped.
        None => tokio::time::timeout(STOP_GRACE, &mut run).await.ok(),
    };
    drop(run);
    // A thread cannot be dropped. Until it ends, the run has not ended, and the job must not run elsewhere.
    if context.threads_ended().now_or_never().is_none() {
        tracing::warn!(job = %job.id, kind = %job.kind, "handler was told to stop and its thread still runs: it should ask is_cancelled()");
        context.threads_ended().await;
    }
    end_of(outcome, stop.reason(), shared.options.max_result)
}

/// Puts a job off whose kind this worker does not know: a newer worker may. It costs the job no attempt.
fn left_to_others(shared: &Shared, job: &Job) -> RunEnd {
    let error =
        format!("worker {} (version {}) knows no job kind `{}`", shared.id, env!("CARGO_PKG_VERSION"), job.kind);
    let before = job.attempts.iter().rev().take_while(|a| a.error.as_ref().is_some_and(|e| e.code == UNKNOWN_KIND));
    let delay = LEFT_TO_OTHERS.ceiling(u32::try_from(before.count()).unwrap_or(u32::MAX));
    if shared.unknown.first_in_a_while(&job.kind) {
        tracing::warn!(
            kind = %job.kind, job = %job.id, delay_ms = delay.as_millis() as u64,
            "this worker does not know the kind, its jobs are put off for others; update it, or let other workers take from \
             the queue"
        );
    }
    RunEnd::Snooze(delay, Some(JobError::new(UNKNOWN_KIND, error)))
}

/// The kinds that were asked for in vain, so that nobody is told of each job.
#[derive(Default)]
pub(crate) struct Unknown(Mutex<HashMap<KindName, Instant>>);

impl Unknown {
    /// Between two warnings of one kind.
    const QUIET: Duration = Duration::from_secs(60);
    /// Most kinds that are remembered.
    const MOST: usize = 1000;

    fn first_in_a_while(&self, kind: &KindName) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(kind).is_some_and(|at| at.elapsed() < Self::QUIET) {
            return false;
        }
        if told.len() >= Self::MOST {
            told.clear();
        }
        told.insert(kind.clone(), Instant::now());
        true
    }
}

type Caught = Result<Outcome, Box<dyn std::any::Any + Send>>;

fn end_of(outcome: Option<Caught>, reason: Option<StopReason>, max_result: usize) -> Option<RunEnd> {
    if reason == Some(StopReason::LeaseLost) {
        return None;
    }
    // A handler that got done all the same has done its work, whatever it was told.
    if let Some(Ok(Outcome::Done(result))) = outcome {
        let size = result.as_ref().map_or(0, |r| r.get().len());
        if size > max_result {
            let message = format!("the result is {size} bytes, the limit (jobs.max_result) is {max_result}");
            return Some(RunEnd::Permanent(JobError::new("result_too_large", message)));
        }
        return Some(RunEnd::Done(result));
    }
    Some(match (reason, outcome) {
        (Some(StopReason::Cancel), _) => RunEnd::Cancelled,
        (Some(StopReason::TimedOut), _) => RunEnd::TimedOut,
        (Some(StopReason::Abort), _) => RunEnd::Released,
        (_, Some(Ok(Outcome::Retry(e)))) => RunEnd::Error(e),
        (_, Some(Ok(Outcome::Fail(e)))) => RunEnd::Permanent(e),
        (_, Some(Ok(Outcome::RetryAfter(e, d)))) => RunEnd::ErrorUntil(e, d),
        (_, Some(Ok(Outcome::Snooze(d)))) => RunEnd::Snooze(d.max(Duration::from_millis(1)), None),
        (_, Some(Ok(Outcome::Postpone(why, d)))) => RunEnd::Snooze(d.max(Duration::from_millis(1)), Some(why)),
        (_, Some(Ok(Outcome::Cancel))) => RunEnd::Cancelled,
        (_, Some(Ok(Outcome::Done(result)))) => RunEnd::Done(result),
        (_, Some(Err(panic))) => RunEnd::Panicked(panic_message(panic.as_ref())),
        // No slot came free for it.
        (_, None) => RunEnd::Released,
    })
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the handler panicked: {}", text.unwrap_or("no message"))
}
