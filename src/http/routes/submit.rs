//! Submitting jobs: one at `POST /api/v1/jobs`, up to a thousand at `POST /api/v1/jobs/bulk`.
//!
//! These are the busiest routes. A payload is never looked into here: it goes from the body's bytes to the store as it
//! is written, and the answer is written once, into the buffer that is sent.

use std::fmt;

use actix_web::{
    HttpResponse,
    http::{
        StatusCode,
        header::{HeaderName, HeaderValue, LOCATION},
    },
    web::Data,
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::jobs;
use crate::{
    base::{
        backoff::Backoff,
        clock::Timestamp,
        id::{JobId, KindName, Priority, QueueName},
    },
    http::{
        HttpLimits, HttpState, RequestContext,
        endpoint::Endpoint,
        extract::{Object, RequestBody, present},
        idempotency::Keyed,
        job_body::{JobBody, PriorityDoc, StateDoc},
        problem::Problem,
        response::json_bytes,
        routes::Routes,
        seconds::Seconds,
    },
    jobs::{
        error::JobsError,
        model::Job,
        service::{Jobs, Submit},
    },
    users::Right,
};

pub(crate) fn register(routes: &mut Routes<'_>) {
    Endpoint::at("/api/v1/jobs").post(Right::JobsWrite, submit).get(Right::JobsRead, jobs::list).register(routes);
    Endpoint::at("/api/v1/jobs/bulk").post(Right::JobsWrite, submit_bulk).register(routes);
}

/// No configuration allows more jobs in one request: beyond this, reading on would only fill the memory.
const BULK_MAX: usize = 10_000;
/// Says that the answer is that of an earlier, equal request.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// A job to run. What is left out comes from its kind.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewJob, example = json!({
    "kind": "process_heavy_task", "payload": {"data": "hello", "iterations": 10}, "priority": "high", "delay": 1.5,
    "tags": ["nightly"],
}))]
pub(crate) struct SubmitBody {
    /// What to run: one of `GET /api/v1/kinds`.
    #[schema(value_type = String, min_length = 1, max_length = 64, pattern = "^[a-z0-9_][a-z0-9_.-]*$")]
    kind: KindName,
    /// Its input, as its kind's schema wants it; `{}` if left out.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Value, required = false)]
    payload: Option<Box<RawValue>>,
    /// Where it waits.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64, pattern = "^[a-z0-9_][a-z0-9_.-]*$")]
    queue: Option<QueueName>,
    /// How urgent it is among the jobs of its queue.
    #[schema(value_type = Option<PriorityDoc>)]
    priority: Option<Priority>,
    /// Not before this time; a time that is over means now. Not together with `delay`.
    #[schema(value_type = Option<String>, format = DateTime)]
    run_at: Option<Timestamp>,
    /// Not before so many seconds went by.
    #[schema(value_type = Option<f64>, minimum = 0)]
    delay: Option<Seconds>,
    /// Attempts it may spend before it is a dead letter.
    #[schema(minimum = 1, maximum = 1000)]
    max_attempts: Option<u32>,
    /// Longest run in seconds.
    #[schema(value_type = Option<f64>, exclusive_minimum = 0)]
    timeout: Option<Seconds>,
    /// Labels to find it by.
    #[serde(default)]
    #[schema(required = false, max_items = 16)]
    tags: Vec<String>,
    /// How long to wait between attempts.
    #[schema(value_type = Option<BackoffBody>)]
    backoff: Option<Object<BackoffBody>>,
}

/// A random delay up to `base` after the first failure, twice that after each further one, and never over `cap`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewBackoff)]
pub(crate) struct BackoffBody {
    /// Upper bound of the first delay in seconds.
    #[schema(value_type = Option<f64>, minimum = 0)]
    base: Option<Seconds>,
    /// Upper bound of any delay in seconds; not less than `base`.
    #[schema(value_type = Option<f64>, minimum = 0)]
    cap: Option<Seconds>,
}

impl RequestBody for SubmitBody {}

impl SubmitBody {
    fn into_submit(self, jobs: &Jobs) -> Submit {
        let backoff = self.backoff.and_then(|Object(given)| {
            // A kind that is not known is told by the service.
            let of_kind = jobs.registry().get(self.kind.as_str())?.backoff;
            let base_ms = given.base.map_or(of_kind.base_ms, Seconds::as_millis);
            let cap_ms = given.cap.map_or(of_kind.cap_ms, Seconds::as_millis);
            Some(Backoff { base_ms, cap_ms })
        });
        Submit {
            kind: self.kind,
            payload: self.payload,
            queue: self.queue,
            priority: self.priority,
            run_at: self.run_at,
            delay: self.delay.map(|s| s.0),
            max_attempts: self.max_attempts,
            timeout: self.timeout.map(|s| s.0),
            backoff,
            tags: self.tags,
        }
    }
}

/// Many jobs, of which all or none are accepted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewJobs, example = json!({"jobs": [
    {"kind": "noop"}, {"kind": "process_heavy_task", "payload": {"data": "hello", "iterations": 10}},
]}))]
pub(crate) struct BulkBody {
    /// The jobs.
    #[serde(deserialize_with = "up_to_bulk_max")]
    #[schema(value_type = Vec<SubmitBody>, min_items = 1, max_items = 1000)]
    jobs: Vec<Object<SubmitBody>>,
}

impl RequestBody for BulkBody {
    fn limit(limits: &HttpLimits) -> usize {
        limits.max_bulk_body
    }
}

fn up_to_bulk_max<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Object<SubmitBody>>, D::Error> {
    struct V;
    impl<'de> Visitor<'de> for V {
        type Value = Vec<Object<SubmitBody>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of jobs")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut jobs = Vec::new();
            while let Some(job) = seq.next_element()? {
                if jobs.len() == BULK_MAX {
                    return Err(A::Error::custom(format_args!("holds more than {BULK_MAX} jobs")));
                }
                jobs.push(job);
            }
            Ok(jobs)
        }
    }
    d.deserialize_seq(V)
}

/// The jobs that were accepted, in the order of the request.
#[derive(ToSchema)]
#[schema(as = AcceptedJobs, example = json!({
    "data": [{"id": "0192f0c1-2345-7abc-8def-0123456789ab", "state": "queued"}], "meta": {"count": 1},
}))]
#[allow(dead_code, reason = "only documents what `render_bulk` writes")]
pub(crate) struct BulkAnswer {
    /// The jobs.
    data: Vec<AcceptedJob>,
    /// About them.
    meta: BulkMeta,
}

#[derive(ToSchema)]
#[allow(dead_code, reason = "only documents what `render_bulk` writes")]
pub(crate) struct AcceptedJob {
    /// Names the job.
    #[schema(value_type = String, format = Uuid)]
    id: JobId,
    /// `queued`, or `scheduled` if it was put off.
    state: StateDoc,
}

#[derive(ToSchema)]
#[allow(dead_code, reason = "only documents what `render_bulk` writes")]
pub(crate) struct BulkMeta {
    /// How many there are.
    count: usize,
}

/// Submits a job
///
/// The answer comes when the job is stored durably. With an `Idempotency-Key`, the same request gets the same answer
/// again, and no second job is made.
#[utoipa::path(post, path = "/api/v1/jobs", tag = "jobs", operation_id = "submit_job", request_body = SubmitBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "The caller's own name for this request",
        min_length = 1, max_length = 255, pattern = "^[!-~]+$", example = "order-4711")),
    responses(
        (status = 202, description = "Accepted", body = JobBody<'_>, headers(
            ("Location" = String, description = "The job's path"),
            ("Idempotent-Replayed" = Option<String>, description = "`true` if this was answered before"))),
        (status = 409, description = "The key was used before with another request")))]
pub(crate) async fn submit(
    state: Data<HttpState>,
    context: RequestContext,
    Keyed { body, key }: Keyed<SubmitBody>,
) -> Result<HttpResponse, Problem> {
    let asked = body.into_submit(&state.jobs);
    let mut made = None;
    let done = state
        .jobs
        .submit(vec![asked], &context.into_origin(), key, |jobs| {
            made = jobs.first().map(|job| job.id);
            jobs.first().map(render).unwrap_or_default()
        })
        .await?;
    let id = if done.replayed { id_in(&done.answer) } else { made };
    Ok(accepted(done.answer, id.map(|id| format!("/api/v1/jobs/{id}")), done.replayed))
}

/// Submits many jobs: all or none
#[utoipa::path(post, path = "/api/v1/jobs/bulk", tag = "jobs", operation_id = "submit_jobs", request_body = BulkBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "The caller's own name for this request",
        min_length = 1, max_length = 255, pattern = "^[!-~]+$", example = "import-4711")),
    responses(
        (status = 202, description = "Accepted", body = BulkAnswer, headers(
            ("Idempotent-Replayed" = Option<String>, description = "`true` if this was answered before"))),
        (status = 409, description = "The key was used before with another request")))]
pub(crate) async fn submit_bulk(
    state: Data<HttpState>,
    context: RequestContext,
    Keyed { body, key }: Keyed<BulkBody>,
) -> Result<HttpResponse, Problem> {
    let asked: Vec<Submit> = body.jobs.into_iter().map(|Object(job)| job.into_submit(&state.jobs)).collect();
    let alone = asked.len() == 1;
    let done = state.jobs.submit(asked, &context.into_origin(), key, render_bulk).await;
    let done = done.map_err(|e| if alone { under_first(e) } else { e })?;
    Ok(accepted(done.answer, None, done.replayed))
}

/// The service names the fields of a lone job as those of a single submit.
fn under_first(error: JobsError) -> JobsError {
    match error {
        JobsError::Invalid(faults) => JobsError::Invalid(faults.into_iter().map(|f| f.under("jobs[0]")).collect()),
        JobsError::TooLarge { field, size, limit } => {
            JobsError::TooLarge { field: format!("jobs[0].{field}"), size, limit }
        }
        other => other,
    }
}

/// Answers 202 with what was rendered when the jobs were stored.
pub(super) fn accepted(answer: Vec<u8>, location: Option<String>, replayed: bool) -> HttpResponse {
    let mut response = json_bytes(StatusCode::ACCEPTED, answer);
    let headers = response.headers_mut();
    if let Some(value) = location.and_then(|path| HeaderValue::try_from(path).ok()) {
        headers.insert(LOCATION, value);
    }
    if replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

fn render(job: &Job) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(640 + job.spec.payload.get().len());
    // A job always serialises, and a vector takes whatever is written to it.
    match serde_json::to_writer(&mut bytes, &JobBody::of(job)) {
        Ok(()) => bytes,
        Err(_) => Vec::new(),
    }
}

/// Written by hand: with a thousand ids in an answer, this is a part of what a job costs.
fn render_bulk(jobs: &[Job]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + jobs.len() * 72);
    let mut id = uuid::Uuid::encode_buffer();
    out.extend_from_slice(b"{\"data\":[");
    for (i, job) in jobs.iter().enumerate() {
        out.extend_from_slice(if i == 0 { &b"{\"id\":\""[..] } else { &b",{\"id\":\""[..] });
        out.extend_from_slice(job.id.0.hyphenated().encode_lower(&mut id).as_bytes());
        out.extend_from_slice(b"\",\"state\":\"");
        out.extend_from_slice(job.state.as_str().as_bytes());
        out.extend_from_slice(b"\"}");
    }
    out.extend_from_slice(b"],\"meta\":{\"count\":");
    out.extend_from_slice(jobs.len().to_string().as_bytes());
    out.extend_from_slice(b"}}");
    out
}

/// The id in an answer that was stored.
pub(super) fn id_in(answer: &[u8]) -> Option<JobId> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(alias = "task_id")]
        id: JobId,
    }
    serde_json::from_slice::<Named>(answer).ok().map(|named| named.id)
}
