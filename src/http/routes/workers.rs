//! `/api/v1/workers`: who is at work on what, as `celery inspect` shows it.

use std::time::Duration;

use actix_web::{HttpResponse, http::StatusCode, web::Data};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    base::{
        clock::Timestamp,
        id::{JobId, KindName, QueueName, WorkerId},
    },
    http::{
        HttpState,
        endpoint::Endpoint,
        extract::Query,
        problem::Problem,
        response::{List, PageParams, json, page_by_name},
        routes::Routes,
    },
    jobs::{
        control::Pong,
        store::{ActiveJob, WorkerReport},
    },
    users::Right,
};

pub(crate) fn register(routes: &mut Routes<'_>) {
    Endpoint::at("/api/v1/workers").get(Right::JobsRead, list).register(routes);
    Endpoint::at("/api/v1/workers/ping").post(Right::QueuesControl, ping).register(routes);
}

/// How long workers have to answer a ping.
const PING_PATIENCE: Duration = Duration::from_secs(1);

/// A worker process as it last reported.
#[derive(Serialize, ToSchema)]
#[schema(as = Worker)]
pub(crate) struct WorkerBody {
    /// Names the process: new at each start.
    #[schema(value_type = String, format = Uuid)]
    id: WorkerId,
    /// Host it runs on.
    host: String,
    /// Process there.
    pid: u32,
    /// Version of the program.
    version: String,
    /// When it started.
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// When it last reported.
    #[schema(value_type = String, format = DateTime)]
    heartbeat_at: Timestamp,
    /// `lost` if it has not reported for a while.
    state: WorkerState,
    /// What it takes from.
    queues: Vec<WeightedQueue>,
    /// Those of them that the broker's server refuses to it.
    set_aside: Vec<SetAsideBody>,
    /// How many jobs it runs at once.
    slots: u32,
    /// How many it is running.
    busy: u32,
    /// What it can run.
    #[schema(value_type = Vec<String>)]
    kinds: Vec<KindName>,
    /// What it is running.
    active: Vec<ActiveBody>,
    /// Runs started since it started.
    processed: u64,
    /// Runs that ended well.
    succeeded: u64,
    /// Runs that ended as dead letters.
    failed: u64,
    /// Runs that failed and are tried again.
    retried: u64,
    /// Resident memory in bytes.
    rss_bytes: u64,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WorkerState {
    Running,
    Draining,
    Lost,
}

/// A queue that a worker takes from.
#[derive(Serialize, ToSchema)]
#[schema(as = WorkerQueue)]
pub(crate) struct WeightedQueue {
    /// Its name.
    #[schema(value_type = String)]
    name: QueueName,
    /// Its share of the slots while all are busy.
    weight: u32,
}

/// A queue that the broker's server refuses to a worker.
#[derive(Serialize, ToSchema)]
#[schema(as = SetAside)]
pub(crate) struct SetAsideBody {
    /// The queue.
    #[schema(value_type = String)]
    queue: QueueName,
    /// Why, and what to do.
    why: String,
}

/// A job that a worker is running.
#[derive(Serialize, ToSchema)]
#[schema(as = ActiveJob)]
pub(crate) struct ActiveBody {
    /// The job.
    #[schema(value_type = String, format = Uuid)]
    job_id: JobId,
    /// Its kind.
    #[schema(value_type = String)]
    kind: KindName,
    /// Its queue.
    #[schema(value_type = String)]
    queue: QueueName,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
}

impl WorkerBody {
    fn of(w: WorkerReport, live: bool) -> Self {
        let state = match (live, w.draining) {
            (false, _) => WorkerState::Lost,
            (true, true) => WorkerState::Draining,
            (true, false) => WorkerState::Running,
        };
        let shown = |ActiveJob { job_id, kind, queue, started_at }| ActiveBody { job_id, kind, queue, started_at };
        Self {
            id: w.id,
            host: w.host,
            pid: w.pid,
            version: w.version,
            started_at: w.started_at,
            heartbeat_at: w.heartbeat_at,
            state,
            queues: w.queues.into_iter().map(|(name, weight)| WeightedQueue { name, weight }).collect(),
            set_aside: w.set_aside.into_iter().map(|s| SetAsideBody { queue: s.queue, why: s.why }).collect(),
            slots: w.slots,
            busy: w.busy,
            kinds: w.kinds,
            active: w.active.into_iter().map(shown).collect(),
            processed: w.totals.started,
            succeeded: w.totals.succeeded,
            failed: w.totals.failed,
            retried: w.totals.retried,
            rss_bytes: w.rss_bytes,
        }
    }
}

/// Which workers answered.
#[derive(Serialize, ToSchema)]
#[schema(as = Pongs, example = json!({
    "data": [{"id": "0192f0c1-2345-7abc-8def-0123456789ab", "host": "a", "pid": 7, "answered": true, "ms": 0.4}],
    "meta": {"count": 1, "answered": 1},
}))]
pub(crate) struct PongsBody {
    /// Each live worker.
    data: Vec<PongBody>,
    /// About them.
    meta: PongsMeta,
}

/// One worker's answer.
#[derive(Serialize, ToSchema)]
#[schema(as = Pong)]
pub(crate) struct PongBody {
    /// The worker.
    #[schema(value_type = String, format = Uuid)]
    id: WorkerId,
    /// Host it runs on.
    host: String,
    /// Process there.
    pid: u32,
    /// Whether it answered in time.
    answered: bool,
    /// After how many milliseconds.
    #[schema(required)]
    ms: Option<f64>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct PongsMeta {
    /// How many were asked.
    count: usize,
    /// How many answered.
    answered: usize,
}

impl From<Pong> for PongBody {
    fn from(Pong { worker, after }: Pong) -> Self {
        let ms = after.map(|d| d.as_secs_f64() * 1000.0);
        Self { id: worker.id, host: worker.host, pid: worker.pid, answered: after.is_some(), ms }
    }
}

/// Lists workers, longest running first
#[utoipa::path(get, path = "/api/v1/workers", tag = "workers", operation_id = "list_workers", params(PageParams),
    responses((status = 200, description = "One page of workers", body = List<WorkerBody>, example = json!({
        "data": [{
            "id": "0192f0c1-2345-7abc-8def-0123456789ab", "host": "a", "pid": 7, "version": "0.1.0",
            "started_at": "2026-11-21T08:00:00.000Z", "heartbeat_at": "2026-11-21T08:05:00.000Z", "state": "running",
            "queues": [{"name": "heavy", "weight": 1}], "set_aside": [],
            "slots": 4, "busy": 0, "kinds": ["noop"], "active": [],
            "processed": 9, "succeeded": 8, "failed": 0, "retried": 1, "rss_bytes": 20_000_000,
        }],
        "meta": {"limit": 50, "next_cursor": null, "has_next": false},
    }))))]
pub(crate) async fn list(state: Data<HttpState>, Query(query): Query<PageParams>) -> Result<HttpResponse, Problem> {
    let workers = state.jobs.workers().await?;
    let shown = |w: WorkerReport| {
        let live = state.jobs.is_live(&w);
        WorkerBody::of(w, live)
    };
    json(StatusCode::OK, &page_by_name(workers, &query, &state.limits, |w| w.id.to_string(), shown)?)
}

/// Asks every live worker to answer now
#[utoipa::path(post, path = "/api/v1/workers/ping", tag = "workers", operation_id = "ping_workers",
    responses((status = 200, description = "Who answered within a second", body = PongsBody)))]
pub(crate) async fn ping(state: Data<HttpState>) -> Result<HttpResponse, Problem> {
    let data: Vec<PongBody> = state.jobs.ping(PING_PATIENCE).await?.into_iter().map(PongBody::from).collect();
    let meta = PongsMeta { count: data.len(), answered: data.iter().filter(|p| p.answered).count() };
    json(StatusCode::OK, &PongsBody { data, meta })
}
