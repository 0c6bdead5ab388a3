//! `/api/async/*`: the older way to process a text in the background, in Celery's words.
//!
//! Its tasks are ordinary jobs of the kind `process_heavy_task`; only how they are shown differs.

use std::fmt;

use actix_web::{HttpResponse, http::StatusCode, web::Data};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, Unexpected, Visitor},
};
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;

use super::{
    jobs::is_open,
    submit::{accepted, id_in},
};
use crate::{
    base::{
        error::{FieldError, Kind},
        id::{JobId, KindName, Priority},
    },
    http::{
        HttpState, RequestContext,
        endpoint::Endpoint,
        extract::{PathParam, RequestBody},
        idempotency::Keyed,
        job_body::PriorityDoc,
        problem::Problem,
        response::json,
        routes::Routes,
    },
    jobs::{error::JobsError, model::Job, service::Submit, state::State},
    users::{Caller, Right},
};

pub(crate) fn register(routes: &mut Routes<'_>) {
    Endpoint::at("/api/async/process").post(Right::JobsWrite, process).register(routes);
    Endpoint::at("/api/async/status/{task_id}").get(Right::JobsRead, status).register(routes);
}

/// What runs.
const KIND: &str = "process_heavy_task";

/// A text to process, and how often.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Process, example = json!({"data": "hello", "iterations": 10, "priority": "high"}))]
pub(crate) struct ProcessBody {
    /// Text to process.
    #[schema(max_length = 10000)]
    data: String,
    /// How many times, about a tenth of a second each.
    #[serde(deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 10000)]
    iterations: u64,
    /// How urgent it is.
    #[schema(value_type = Option<PriorityDoc>)]
    priority: Option<Priority>,
}

impl RequestBody for ProcessBody {}

/// Reads a whole number however it is spelled: to JSON Schema, `5.0` is an integer, and some clients write it so.
fn whole<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    struct V;
    impl Visitor<'_> for V {
        type Value = u64;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number")
        }
        fn visit_u64<E: Error>(self, n: u64) -> Result<u64, E> {
            Ok(n)
        }
        fn visit_f64<E: Error>(self, n: f64) -> Result<u64, E> {
            // Up to here each whole number has a float of its own.
            let exact = n.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&n);
            let text = exact.then(|| format!("{n:.0}")).and_then(|text| text.parse().ok());
            text.ok_or_else(|| E::invalid_value(Unexpected::Float(n), &self))
        }
    }
    d.deserialize_u64(V)
}

/// The job's own input.
#[derive(Serialize)]
struct Payload<'a> {
    data: &'a str,
    iterations: u64,
}

/// A task that was accepted.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"task_id": "0192f0c1-2345-7abc-8def-0123456789ab", "status": "PENDING"}))]
pub(crate) struct Task {
    /// Names the task; it is the job's id.
    #[schema(value_type = String, format = Uuid)]
    task_id: JobId,
    /// Always `PENDING`.
    status: TaskStatus,
}

/// How far a task is, in Celery's words.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum TaskStatus {
    Pending,
    Progress,
    Retry,
    Success,
    Failure,
    Revoked,
}

impl TaskStatus {
    fn of(job: &Job) -> Self {
        match job.state {
            State::Scheduled | State::Queued if job.failures > 0 => Self::Retry,
            State::Scheduled | State::Queued => Self::Pending,
            State::Running => Self::Progress,
            State::Succeeded => Self::Success,
            State::Failed => Self::Failure,
            State::Cancelled => Self::Revoked,
        }
    }
}

/// How far a task is, and its result or error.
#[derive(Serialize, ToSchema)]
#[schema(as = TaskState, example = json!({
    "task_id": "0192f0c1-2345-7abc-8def-0123456789ab", "status": "PROGRESS",
    "progress": {"current": 3, "total": 10, "percent": 30.0},
}))]
pub(crate) struct TaskBody<'a> {
    /// Names the task.
    #[schema(value_type = String, format = Uuid)]
    task_id: JobId,
    /// How far it is.
    status: TaskStatus,
    /// How far its present or last run got; always there with `PROGRESS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    progress: Option<TaskProgress>,
    /// What it returned, with `SUCCESS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Value, required = false)]
    result: Option<&'a RawValue>,
    /// Why it failed last, with `FAILURE` and `RETRY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<&'a str>,
}

/// How far a run got.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct TaskProgress {
    /// Steps done.
    current: u64,
    /// Steps in all; 0 if not known yet.
    total: u64,
    /// Steps done in percent of all.
    #[schema(minimum = 0, maximum = 100)]
    percent: f64,
}

impl<'a> TaskBody<'a> {
    fn of(job: &'a Job) -> Self {
        let known =
            job.progress.as_ref().map(|p| TaskProgress { current: p.current, total: p.total, percent: p.percent() });
        let running = job.state == State::Running;
        Self {
            task_id: job.id,
            status: TaskStatus::of(job),
            progress: known.or_else(|| running.then(TaskProgress::default)),
            result: job.result.as_deref(),
            error: job.error.as_ref().map(|e| e.message.as_str()),
        }
    }
}

/// Processes a text in the background
#[utoipa::path(post, path = "/api/async/process", tag = "async", operation_id = "start_task",
    request_body = ProcessBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "The caller's own name for this request",
        min_length = 1, max_length = 255, pattern = "^[!-~]+$", example = "text-4711")),
    responses(
        (status = 202, description = "Accepted", body = Task, headers(
            ("Location" = String, description = "Where its state is told"),
            ("Idempotent-Replayed" = Option<String>, description = "`true` if this was answered before"))),
        (status = 409, description = "The key was used before with another request")))]
pub(crate) async fn process(
    state: Data<HttpState>,
    context: RequestContext,
    Keyed { body, key }: Keyed<ProcessBody>,
) -> Result<HttpResponse, Problem> {
    let internal = |e: String| Problem::hidden(Kind::Internal, e);
    let payload = Payload { data: &body.data, iterations: body.iterations };
    let asked = Submit {
        kind: KindName::new(KIND).map_err(internal)?,
        payload: Some(to_raw_value(&payload).map_err(|e| internal(e.to_string()))?),
        queue: None,
        priority: body.priority,
        run_at: None,
        delay: None,
        max_attempts: None,
        timeout: None,
        backoff: None,
        tags: Vec::new(),
    };
    let render = |jobs: &[Job]| {
        let task = jobs.first().map(|job| Task { task_id: job.id, status: TaskStatus::Pending });
        serde_json::to_vec(&task).unwrap_or_default()
    };
    let done = state.jobs.submit(vec![asked], &context.into_origin(), key, render).await.map_err(without_payload)?;
    let location = id_in(&done.answer).map(|id| format!("/api/async/status/{id}"));
    Ok(accepted(done.answer, location, done.replayed))
}

/// The client never wrote `payload`: its fields are the body's.
fn without_payload(error: JobsError) -> JobsError {
    let shorter = |field: &str| match field.strip_prefix("payload") {
        Some("") => "body".to_owned(),
        Some(rest) => rest.trim_start_matches('.').to_owned(),
        None => field.to_owned(),
    };
    match error {
        JobsError::Invalid(faults) => {
            JobsError::Invalid(faults.into_iter().map(|f| FieldError { field: shorter(&f.field), ..f }).collect())
        }
        JobsError::TooLarge { field, size, limit } => JobsError::TooLarge { field: shorter(&field), size, limit },
        other => other,
    }
}

/// Tells how far a task is
#[utoipa::path(get, path = "/api/async/status/{task_id}", tag = "async", operation_id = "read_task",
    params(("task_id" = Uuid, Path, description = "The task's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    responses((status = 200, description = "The task", body = TaskBody<'_>)))]
pub(crate) async fn status(
    state: Data<HttpState>,
    caller: Caller,
    PathParam(id): PathParam<JobId>,
) -> Result<HttpResponse, Problem> {
    let missing = || Problem::not_found("task_id", format!("there is no task {id}"));
    let job = state.jobs.get(id).await.map_err(|e| match e {
        JobsError::NotFound(_) => missing(),
        other => other.into(),
    })?;
    if !is_open(&state, &caller, &job) {
        return Err(missing());
    }
    json(StatusCode::OK, &TaskBody::of(&job))
}
