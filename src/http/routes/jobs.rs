//! `/api/v1/jobs` once they are submitted: list, read (and wait for), cancel, run again.

use std::sync::atomic::Ordering;

use actix_web::{HttpResponse, http::StatusCode, web::Data};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    base::{
        clock::Timestamp,
        id::{JobId, KindName, QueueName},
        page::{Page, PageRequest},
    },
    http::{
        HttpState,
        auth::authority_of,
        endpoint::Endpoint,
        extract::{PathParam, Query},
        job_body::{JobBody, StateDoc},
        problem::Problem,
        response::{List, json},
        routes::Routes,
        seconds::Seconds,
    },
    jobs::{model::Job, state::State, store::JobFilter},
    users::{Caller, Right},
};

pub(crate) fn register(routes: &mut Routes<'_>) {
    Endpoint::at("/api/v1/jobs/{id}").get(Right::JobsRead, read).register(routes);
    Endpoint::at("/api/v1/jobs/{id}/cancel").post(Right::JobsWrite, cancel).register(routes);
    Endpoint::at("/api/v1/jobs/{id}/retry").post(Right::JobsWrite, retry).register(routes);
}

/// Longest wait for a job's end in one request, in seconds.
const WAIT_MAX: f64 = 60.0;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// At most this many entries; 50 if not given.
    #[param(minimum = 1, maximum = 200, example = 50)]
    limit: Option<u32>,
    /// Where the page starts: `meta.next_cursor` of the page before.
    #[param(pattern = "^c1_[0-9a-f]{32}$")]
    cursor: Option<String>,
    /// In this state.
    #[param(inline, value_type = Option<StateDoc>, example = "failed")]
    state: Option<State>,
    /// Of this kind.
    #[param(value_type = Option<String>, min_length = 1, max_length = 64, pattern = "^[a-z0-9_][a-z0-9_.-]*$",
        example = "process_heavy_task")]
    kind: Option<KindName>,
    /// In this queue.
    #[param(value_type = Option<String>, min_length = 1, max_length = 64, pattern = "^[a-z0-9_][a-z0-9_.-]*$",
        example = "heavy")]
    queue: Option<QueueName>,
    /// With this tag.
    #[param(example = "nightly")]
    tag: Option<String>,
    /// Submitted at this time or later.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-11-01T00:00:00Z")]
    created_after: Option<Timestamp>,
    /// Submitted before this time.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-12-01T00:00:00Z")]
    created_before: Option<Timestamp>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReadParams {
    /// Answer when the job has ended, but at the latest after so many seconds.
    #[param(minimum = 0, maximum = 60, example = 0)]
    wait: Option<f64>,
}

/// Lists jobs, newest first
///
/// A page may be shorter than its limit and still have a next one.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs", operation_id = "list_jobs", params(ListParams),
    responses((status = 200, description = "One page of jobs", body = List<JobBody<'_>>,
        example = json!({"data": [], "meta": {"limit": 50, "next_cursor": null, "has_next": false}}))))]
pub(crate) async fn list(
    state: Data<HttpState>,
    caller: Caller,
    Query(query): Query<ListParams>,
) -> Result<HttpResponse, Problem> {
    let ListParams { limit, cursor, state: in_state, kind, queue, tag, created_after, created_before } = query;
    let page = state.limits.page(limit, cursor.as_deref())?;
    let filter =
        JobFilter { state: in_state, kind, queue, tags: tag.into_iter().collect(), created_after, created_before };
    list_of(&state, &caller, &filter, page).await
}

/// Whether this caller may see a job. Those of some kinds hold what is written to others.
pub(super) fn is_open(state: &HttpState, caller: &Caller, job: &Job) -> bool {
    state.jobs.may_read(&job.kind, authority_of(caller))
}

/// The job, if this caller may see it.
async fn visible(state: &HttpState, caller: &Caller, id: JobId) -> Result<Job, Problem> {
    let job = state.jobs.get(id).await?;
    match is_open(state, caller, &job) {
        true => Ok(job),
        false => Err(Problem::not_found("id", format!("there is no job {id}"))),
    }
}

/// Answers one page of the jobs that `filter` meets and this caller may see.
pub(super) async fn list_of(
    state: &HttpState,
    caller: &Caller,
    filter: &JobFilter,
    page: PageRequest,
) -> Result<HttpResponse, Problem> {
    let found = state.jobs.list(filter, page).await?;
    let open = found.data.iter().filter(|job| is_open(state, caller, job));
    let shown = Page { data: open.map(JobBody::of).collect(), next: found.next };
    json(StatusCode::OK, &List::of(shown, &page, |job| job))
}

/// Reads a job, or waits for its end
#[utoipa::path(get, path = "/api/v1/jobs/{id}", tag = "jobs", operation_id = "read_job",
    params(("id" = Uuid, Path, description = "The job's id", example = "0192f0c1-2345-7abc-8def-0123456789ab"),
        ReadParams),
    responses((status = 200, description = "The job", body = JobBody<'_>)))]
pub(crate) async fn read(
    state: Data<HttpState>,
    caller: Caller,
    PathParam(id): PathParam<JobId>,
    Query(ReadParams { wait }): Query<ReadParams>,
) -> Result<HttpResponse, Problem> {
    let now = visible(&state, &caller, id).await?;
    let job = match wait {
        None => now,
        Some(seconds) => {
            let patience = Some(seconds).filter(|s| *s <= WAIT_MAX).and_then(|s| Seconds::new(s).ok());
            let Some(Seconds(patience)) = patience else {
                let message = format!("is {seconds}, but must be 0 to {WAIT_MAX} seconds");
                return Err(Problem::invalid_field("wait", message));
            };
            // A server that drains must not wait for its waiting clients.
            state.jobs.wait(id, patience, || !state.ready.load(Ordering::Relaxed)).await?
        }
    };
    json(StatusCode::OK, &JobBody::of(&job))
}

/// Cancels a job
///
/// A job that waits is cancelled at once. A running one is asked to stop: the answer is 202, and its end shows whether
/// it did.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/cancel", tag = "jobs", operation_id = "cancel_job",
    params(("id" = Uuid, Path, description = "The job's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    responses((status = 200, description = "The cancelled job", body = JobBody<'_>),
        (status = 202, description = "The running job, which is asked to stop", body = JobBody<'_>),
        (status = 409, description = "The job has ended before")))]
pub(crate) async fn cancel(
    state: Data<HttpState>,
    caller: Caller,
    PathParam(id): PathParam<JobId>,
) -> Result<HttpResponse, Problem> {
    let (job, asked) = state.jobs.cancel(id, authority_of(&caller)).await?;
    let status = if asked { StatusCode::ACCEPTED } else { StatusCode::OK };
    json(status, &JobBody::of(&job))
}

/// Runs a failed, cancelled or scheduled job now
#[utoipa::path(post, path = "/api/v1/jobs/{id}/retry", tag = "jobs", operation_id = "retry_job",
    params(("id" = Uuid, Path, description = "The job's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    responses((status = 200, description = "The job, queued", body = JobBody<'_>),
        (status = 409, description = "The job is queued, runs or has succeeded")))]
pub(crate) async fn retry(
    state: Data<HttpState>,
    caller: Caller,
    PathParam(id): PathParam<JobId>,
) -> Result<HttpResponse, Problem> {
    let job = state.jobs.retry(id, authority_of(&caller)).await?;
    json(StatusCode::OK, &JobBody::of(&job))
}
