//! The job as clients see it: one shape for reading, listing and dead letters.
//!
//! It borrows from the job, so that an answer is written with one pass and one buffer, payload and result untouched.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type},
    },
};

use crate::{
    base::{
        clock::Timestamp,
        id::{JobId, WorkerId},
    },
    jobs::{
        model::{Attempt, Job, JobError, Progress},
        state::State,
    },
};

/// A job with everything known of it.
#[derive(Serialize, ToSchema)]
#[schema(as = Job, example = json!({
    "id": "0192f0c1-2345-7abc-8def-0123456789ab", "kind": "process_heavy_task", "queue": "heavy", "priority": 5,
    "state": "queued", "payload": {"data": "hello", "iterations": 10}, "tags": ["nightly"], "attempt": 0,
    "max_attempts": 5, "timeout": 3600.0, "created_at": "2026-11-21T08:00:00.000Z",
    "run_at": "2026-11-21T08:00:00.000Z", "started_at": null, "finished_at": null, "cancel_requested": false,
    "progress": null, "result": null, "error": null, "worker": null, "crashes": 0, "runs": 0,
    "correlation_id": "0192f0c1-2345-7abc-8def-0123456789ac", "attempts": [], "attempts_dropped": 0,
}))]
pub(crate) struct JobBody<'a> {
    /// Names the job; later jobs have greater ids.
    #[schema(value_type = String, format = Uuid)]
    id: JobId,
    /// What runs.
    kind: &'a str,
    /// Where it waits.
    queue: &'a str,
    /// 10 starts first, 1 last.
    #[schema(minimum = 1, maximum = 10)]
    priority: u8,
    /// Where it is in its life.
    #[schema(value_type = StateDoc)]
    state: State,
    /// Its input, as it was submitted.
    #[schema(value_type = Value)]
    payload: &'a RawValue,
    /// Labels to find it by.
    tags: &'a [String],
    /// The attempt it is at or ended with, from 1; 0 if none was spent.
    attempt: u32,
    /// Attempts it may spend before it is a dead letter.
    max_attempts: u32,
    /// Longest run in seconds.
    timeout: f64,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it is due, or since when it waits to be started; null once it runs.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    run_at: Option<Timestamp>,
    /// When its present or last run began.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
    /// It runs and was asked to stop.
    cancel_requested: bool,
    /// How far its present or last run got.
    #[schema(required)]
    progress: Option<ProgressBody<'a>>,
    /// What it returned, once it succeeded.
    #[schema(required, value_type = Value)]
    result: Option<&'a RawValue>,
    /// Why it failed last.
    #[schema(required)]
    error: Option<ErrorBody<'a>>,
    /// Who runs it, or ran it last.
    #[schema(required, value_type = Option<String>, format = Uuid)]
    worker: Option<WorkerId>,
    /// How often a worker died with it.
    crashes: u32,
    /// How often it was started.
    runs: u64,
    /// The request that submitted it.
    #[schema(required)]
    correlation_id: Option<&'a str>,
    /// Its ended runs, oldest first.
    attempts: Vec<AttemptBody<'a>>,
    /// How many of the oldest runs are no longer listed.
    attempts_dropped: u64,
}

impl<'a> JobBody<'a> {
    /// The job as the client sees it.
    pub(crate) fn of(job: &'a Job) -> Self {
        Self {
            id: job.id,
            kind: job.kind.as_str(),
            queue: job.queue.as_str(),
            priority: job.priority.get(),
            state: job.state,
            payload: &job.spec.payload,
            tags: &job.spec.tags,
            attempt: job.attempt(),
            max_attempts: job.spec.max_attempts,
            timeout: job.spec.timeout().as_secs_f64(),
            created_at: job.created_at,
            run_at: job.run_at(),
            started_at: job.started_at,
            finished_at: job.finished_at(),
            cancel_requested: job.cancel_requested,
            progress: job.progress.as_ref().map(ProgressBody::of),
            result: job.result.as_deref(),
            error: job.error.as_ref().map(ErrorBody::of),
            worker: job.worker,
            crashes: job.crashes,
            runs: job.fence,
            correlation_id: job.spec.correlation_id.as_deref(),
            attempts: job.attempts.iter().map(AttemptBody::of).collect(),
            attempts_dropped: job.attempts_dropped(),
        }
    }
}

/// How far a run got.
#[derive(Serialize, ToSchema)]
#[schema(as = JobProgress)]
pub(crate) struct ProgressBody<'a> {
    /// Steps done.
    current: u64,
    /// Steps in all.
    total: u64,
    /// Steps done in percent of all.
    #[schema(minimum = 0, maximum = 100)]
    percent: f64,
    /// What it is doing, for people.
    #[schema(required)]
    message: Option<&'a str>,
    /// What it has found so far, if its kind tells that.
    #[schema(required, value_type = Value)]
    partial: Option<&'a serde_json::Value>,
}

impl<'a> ProgressBody<'a> {
    fn of(p: &'a Progress) -> Self {
        let (message, partial) = (p.message.as_deref(), p.partial.as_ref());
        Self { current: p.current, total: p.total, percent: p.percent(), message, partial }
    }
}

/// Why a run failed.
#[derive(Serialize, ToSchema)]
#[schema(as = JobError)]
pub(crate) struct ErrorBody<'a> {
    /// A stable word for programs.
    code: &'a str,
    /// A sentence for people.
    message: &'a str,
}

impl<'a> ErrorBody<'a> {
    fn of(e: &'a JobError) -> Self {
        Self { code: &e.code, message: &e.message }
    }
}

/// One run that ended.
#[derive(Serialize, ToSchema)]
#[schema(as = JobAttempt)]
pub(crate) struct AttemptBody<'a> {
    /// Its number, from 1.
    run: u64,
    /// Who ran it.
    #[schema(value_type = String, format = Uuid)]
    worker: WorkerId,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// When it ended or was given up.
    #[schema(value_type = String, format = DateTime)]
    finished_at: Timestamp,
    /// How it ended.
    #[schema(value_type = OutcomeDoc)]
    outcome: &'static str,
    /// Why, if not well.
    #[schema(required)]
    error: Option<ErrorBody<'a>>,
    /// When the job was to run again because of it.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    retry_at: Option<Timestamp>,
}

impl<'a> AttemptBody<'a> {
    fn of(a: &'a Attempt) -> Self {
        Self {
            run: a.run,
            worker: a.worker,
            started_at: a.started_at,
            finished_at: a.finished_at,
            outcome: a.outcome.as_str(),
            error: a.error.as_ref().map(ErrorBody::of),
            retry_at: a.retry_at,
        }
    }
}

fn words(all: impl IntoIterator<Item = &'static str>) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(all))
}

/// Documents [`State`], which knows nothing of OpenAPI.
pub(crate) struct StateDoc;

impl PartialSchema for StateDoc {
    fn schema() -> RefOr<Schema> {
        words(State::ALL.map(State::as_str)).into()
    }
}

impl ToSchema for StateDoc {
    fn name() -> Cow<'static, str> {
        "JobState".into()
    }
}

/// Documents [`AttemptOutcome`](crate::jobs::model::AttemptOutcome).
pub(crate) struct OutcomeDoc;

impl PartialSchema for OutcomeDoc {
    fn schema() -> RefOr<Schema> {
        words(["succeeded", "failed", "timed_out", "panicked", "snoozed", "cancelled", "released", "lost"]).into()
    }
}

impl ToSchema for OutcomeDoc {
    fn name() -> Cow<'static, str> {
        "AttemptOutcome".into()
    }
}

/// Documents [`Priority`](crate::base::id::Priority): a number, or a word for one.
pub(crate) struct PriorityDoc;

impl PartialSchema for PriorityDoc {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::Integer))
            .minimum(Some(1))
            .maximum(Some(10))
            .description(Some("10 starts first, 1 last"));
        let word = words(["high", "medium", "low"]).description(Some("9, 5 and 1"));
        OneOfBuilder::new().item(number).item(word).into()
    }
}

impl ToSchema for PriorityDoc {
    fn name() -> Cow<'static, str> {
        "Priority".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::model::AttemptOutcome as O;

    #[test]
    fn every_outcome_is_documented() {
        let all = [O::Succeeded, O::Failed, O::TimedOut, O::Panicked, O::Snoozed, O::Cancelled, O::Released, O::Lost];
        let documented = serde_json::to_value(OutcomeDoc::schema()).unwrap();
        assert_eq!(documented["enum"], serde_json::json!(all.map(O::as_str)));
    }
}
