//! `/api/v1/queues`: what waits where, and holding, freeing and emptying queues.

use actix_web::{HttpResponse, http::StatusCode, web::Data};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    base::{clock::Timestamp, id::QueueName},
    http::{
        HttpState,
        auth::authority_of,
        endpoint::Endpoint,
        extract::{PathParam, Query},
        problem::Problem,
        response::{List, PageParams, json, page_by_name},
        routes::Routes,
    },
    jobs::{control::QueueView, error::JobsError},
    users::{Caller, Right},
};

pub(crate) fn register(routes: &mut Routes<'_>) {
    Endpoint::at("/api/v1/queues").get(Right::JobsRead, list).register(routes);
    Endpoint::at("/api/v1/queues/{name}").get(Right::JobsRead, read).register(routes);
    Endpoint::at("/api/v1/queues/{name}/pause").post(Right::QueuesControl, pause).register(routes);
    Endpoint::at("/api/v1/queues/{name}/resume").post(Right::QueuesControl, resume).register(routes);
    Endpoint::at("/api/v1/queues/{name}/purge").post(Right::QueuesControl, purge).register(routes);
}

/// A queue, its jobs by state, and its last full minute.
#[derive(Serialize, ToSchema)]
#[schema(as = Queue, example = json!({
    "name": "heavy", "paused": false, "queued": 3, "scheduled": 1, "running": 2, "failed": 0,
    "oldest_age_seconds": 0.8, "depth_limit": null, "started_per_minute": 40, "finished_per_minute": 38,
    "failed_per_minute": 1, "workers": 1, "set_aside": null,
}))]
pub(crate) struct QueueBody {
    /// Its name.
    name: String,
    /// Whether starts are held.
    paused: bool,
    /// Jobs that may start.
    queued: u64,
    /// Jobs that wait for a time.
    scheduled: u64,
    /// Jobs that run.
    running: u64,
    /// Dead letters.
    failed: u64,
    /// How long the longest-waiting queued job waits, in seconds.
    #[schema(required)]
    oldest_age_seconds: Option<f64>,
    /// With so many waiting jobs it takes no more.
    #[schema(required)]
    depth_limit: Option<u64>,
    /// Runs started in the last full minute.
    started_per_minute: u64,
    /// Runs that ended well in the last full minute.
    finished_per_minute: u64,
    /// Runs that failed in the last full minute, whether they are tried again or not.
    failed_per_minute: u64,
    /// Live workers that take from it.
    workers: usize,
    /// Why the broker's server refuses the queue to this process or to a worker, and what to do; null if it does not.
    #[schema(required)]
    set_aside: Option<String>,
}

impl QueueBody {
    fn of(view: QueueView, now: Timestamp) -> Self {
        let QueueView { state, workers, last_minute, depth_limit, set_aside } = view;
        Self {
            name: state.name.to_string(),
            paused: state.paused,
            queued: state.counts.queued,
            scheduled: state.counts.scheduled,
            running: state.counts.running,
            failed: state.counts.failed,
            oldest_age_seconds: state.oldest.map(|since| now.since(since).as_secs_f64()),
            depth_limit,
            started_per_minute: last_minute.started,
            finished_per_minute: last_minute.succeeded,
            failed_per_minute: last_minute.failed + last_minute.retried,
            workers,
            set_aside,
        }
    }
}

/// What a purge did.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"purged": 12}))]
pub(crate) struct Purged {
    /// So many jobs were cancelled.
    purged: u64,
}

/// A queue that is not there is named by the path's `name`.
fn named(error: JobsError) -> Problem {
    match error {
        JobsError::NotFound(message) => Problem::not_found("name", message),
        other => other.into(),
    }
}

/// Lists queues by name
#[utoipa::path(get, path = "/api/v1/queues", tag = "queues", operation_id = "list_queues", params(PageParams),
    responses((status = 200, description = "One page of queues", body = List<QueueBody>,
        example = json!({"data": [], "meta": {"limit": 50, "next_cursor": null, "has_next": false}}))))]
pub(crate) async fn list(state: Data<HttpState>, Query(query): Query<PageParams>) -> Result<HttpResponse, Problem> {
    let (queues, now) = (state.jobs.queues().await?, state.clock.now());
    let name = |q: &QueueView| q.state.name.to_string();
    json(StatusCode::OK, &page_by_name(queues, &query, &state.limits, name, |q| QueueBody::of(q, now))?)
}

/// Reads a queue
#[utoipa::path(get, path = "/api/v1/queues/{name}", tag = "queues", operation_id = "read_queue",
    params(("name" = String, Path, description = "The queue's name", example = "heavy")),
    responses((status = 200, description = "The queue", body = QueueBody)))]
pub(crate) async fn read(
    state: Data<HttpState>,
    PathParam(name): PathParam<QueueName>,
) -> Result<HttpResponse, Problem> {
    let queue = state.jobs.queue(&name).await.map_err(named)?;
    json(StatusCode::OK, &QueueBody::of(queue, state.clock.now()))
}

/// Holds a queue: no more of its jobs start
#[utoipa::path(post, path = "/api/v1/queues/{name}/pause", tag = "queues", operation_id = "pause_queue",
    params(("name" = String, Path, description = "The queue's name", example = "heavy")),
    responses((status = 200, description = "The queue as it is now", body = QueueBody)))]
pub(crate) async fn pause(
    state: Data<HttpState>,
    PathParam(name): PathParam<QueueName>,
) -> Result<HttpResponse, Problem> {
    set_paused(&state, &name, true).await
}

/// Frees a queue
#[utoipa::path(post, path = "/api/v1/queues/{name}/resume", tag = "queues", operation_id = "resume_queue",
    params(("name" = String, Path, description = "The queue's name", example = "heavy")),
    responses((status = 200, description = "The queue as it is now", body = QueueBody)))]
pub(crate) async fn resume(
    state: Data<HttpState>,
    PathParam(name): PathParam<QueueName>,
) -> Result<HttpResponse, Problem> {
    set_paused(&state, &name, false).await
}

async fn set_paused(state: &HttpState, name: &QueueName, paused: bool) -> Result<HttpResponse, Problem> {
    let queue = state.jobs.set_paused(name, paused).await.map_err(named)?;
    json(StatusCode::OK, &QueueBody::of(queue, state.clock.now()))
}

/// Cancels every queued job of a queue
///
/// A queue of notifications is emptied only by callers who may also write these.
#[utoipa::path(post, path = "/api/v1/queues/{name}/purge", tag = "queues", operation_id = "purge_queue",
    params(("name" = String, Path, description = "The queue's name", example = "heavy")),
    responses((status = 200, description = "Done", body = Purged)))]
pub(crate) async fn purge(
    state: Data<HttpState>,
    caller: Caller,
    PathParam(name): PathParam<QueueName>,
) -> Result<HttpResponse, Problem> {
    let purged = state.jobs.purge(&name, authority_of(&caller)).await.map_err(named)?;
    json(StatusCode::OK, &Purged { purged })
}
