//! `/api/v1/dead-letters`: failed jobs, and running them again or forgetting them in bulk.

use actix_web::{HttpResponse, http::StatusCode, web::Data};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::jobs::list_of;
use crate::{
    base::{
        clock::Timestamp,
        id::{JobId, KindName, Priority, QueueName},
    },
    http::{
        HttpState,
        auth::authority_of,
        endpoint::Endpoint,
        extract::{Json, Object, Query, RequestBody, present},
        job_body::{JobBody, PriorityDoc},
        problem::Problem,
        response::{List, json},
        routes::Routes,
    },
    jobs::{
        control::{DeadFilter, Replay},
        error::JobsError,
        state::State,
        store::{JobEdit, JobFilter},
    },
    users::{Caller, Right},
};

pub(crate) fn register(routes: &mut Routes<'_>) {
    Endpoint::at("/api/v1/dead-letters").get(Right::JobsRead, list).register(routes);
    Endpoint::at("/api/v1/dead-letters/replay").post(Right::QueuesControl, replay).register(routes);
    Endpoint::at("/api/v1/dead-letters/discard").post(Right::QueuesControl, discard).register(routes);
}

/// Most ids in one filter.
const IDS_MAX: usize = 10_000;
/// Most dead letters moved by one request, and how many if it does not say.
const LIMIT_MAX: u64 = 1_000_000;
const LIMIT_DEFAULT: u64 = 100_000;
/// Highest rate, in jobs a second: beyond it, a rate slows nothing down.
const RATE_MAX: f64 = 100_000.0;

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

/// Which dead letters are meant: those that meet all of these. Without any, all.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DeadLetterFilter)]
pub(crate) struct FilterBody {
    /// These.
    #[schema(value_type = Option<Vec<uuid::Uuid>>, max_items = 10000)]
    ids: Option<Vec<JobId>>,
    /// Of this kind.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64, pattern = "^[a-z0-9_][a-z0-9_.-]*$")]
    kind: Option<KindName>,
    /// In this queue.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64, pattern = "^[a-z0-9_][a-z0-9_.-]*$")]
    queue: Option<QueueName>,
    /// With this tag.
    tag: Option<String>,
    /// Whose last error's code or message holds this text.
    error_contains: Option<String>,
    /// Submitted at this time or later.
    #[schema(value_type = Option<String>, format = DateTime)]
    created_after: Option<Timestamp>,
    /// Submitted before this time.
    #[schema(value_type = Option<String>, format = DateTime)]
    created_before: Option<Timestamp>,
}

impl FilterBody {
    fn checked(self) -> Result<DeadFilter, Problem> {
        if let Some(n) = self.ids.as_ref().map(Vec::len).filter(|n| *n > IDS_MAX) {
            return Err(Problem::invalid_field(
                "filter.ids",
                format!("holds {n} ids, but must hold at most {IDS_MAX}"),
            ));
        }
        let Self { ids, kind, queue, tag, error_contains, created_after, created_before } = self;
        Ok(DeadFilter { ids, kind, queue, tag, error_contains, created_after, created_before })
    }
}

/// What to change in each job before it runs again. What is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = JobEdit)]
pub(crate) struct EditBody {
    /// Another queue.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64, pattern = "^[a-z0-9_][a-z0-9_.-]*$")]
    queue: Option<QueueName>,
    /// Another priority.
    #[schema(value_type = Option<PriorityDoc>)]
    priority: Option<Priority>,
    /// Another input, which must suit the kind of each.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Value, required = false)]
    payload: Option<Box<RawValue>>,
    /// Another limit of attempts.
    #[schema(minimum = 1, maximum = 1000)]
    max_attempts: Option<u32>,
}

impl From<EditBody> for JobEdit {
    fn from(EditBody { queue, priority, payload, max_attempts }: EditBody) -> Self {
        Self { queue, priority, payload, max_attempts }
    }
}

/// A wish to run dead letters again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Replay, example = json!({
    "filter": {"kind": "process_heavy_task", "error_contains": "timed_out"}, "rate": 50, "dry_run": true,
}))]
pub(crate) struct ReplayBody {
    /// Which.
    #[schema(value_type = FilterBody)]
    filter: Object<FilterBody>,
    /// At most so many a second; all at once if left out.
    #[schema(exclusive_minimum = 0, maximum = 100000)]
    rate: Option<f64>,
    /// Only say how many there are.
    #[serde(default)]
    #[schema(required = false)]
    dry_run: bool,
    /// What to change in each.
    #[schema(value_type = Option<EditBody>)]
    edit: Option<Object<EditBody>>,
    /// At most so many; 100000 if left out.
    #[schema(minimum = 1, maximum = 1000000)]
    limit: Option<u64>,
}

impl RequestBody for ReplayBody {}

/// A wish to forget dead letters.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Discard, example = json!({"filter": {"tag": "nightly"}, "dry_run": true}))]
pub(crate) struct DiscardBody {
    /// Which.
    #[schema(value_type = FilterBody)]
    filter: Object<FilterBody>,
    /// Only say how many there are.
    #[serde(default)]
    #[schema(required = false)]
    dry_run: bool,
    /// At most so many; 100000 if left out.
    #[schema(minimum = 1, maximum = 1000000)]
    limit: Option<u64>,
}

impl RequestBody for DiscardBody {}

/// What a replay did, or would do.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "matched": 1, "replayed": 1, "dry_run": false, "ids": ["0192f0c1-2345-7abc-8def-0123456789ab"],
}))]
pub(crate) struct Replayed {
    /// How many the filter met, up to the limit.
    matched: usize,
    /// How many run again.
    replayed: usize,
    /// Whether nothing was to be changed.
    dry_run: bool,
    /// Which were met; the first hundred.
    #[schema(value_type = Vec<uuid::Uuid>)]
    ids: Vec<JobId>,
}

/// What a discard did, or would do.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"matched": 3, "discarded": 0, "dry_run": true}))]
pub(crate) struct Discarded {
    /// How many the filter met, up to the limit.
    matched: usize,
    /// How many are gone.
    discarded: usize,
    /// Whether nothing was to be changed.
    dry_run: bool,
}

fn limit_of(limit: Option<u64>) -> Result<usize, Problem> {
    let n = limit.unwrap_or(LIMIT_DEFAULT);
    let fits = Some(n).filter(|n| (1..=LIMIT_MAX).contains(n)).and_then(|n| usize::try_from(n).ok());
    fits.ok_or_else(|| Problem::invalid_field("limit", format!("is {n}, but must be 1 to {LIMIT_MAX}")))
}

/// Lists dead letters, newest first
#[utoipa::path(get, path = "/api/v1/dead-letters", tag = "dead letters", operation_id = "list_dead_letters",
    params(ListParams),
    responses((status = 200, description = "One page of failed jobs", body = List<JobBody<'_>>,
        example = json!({"data": [], "meta": {"limit": 50, "next_cursor": null, "has_next": false}}))))]
pub(crate) async fn list(
    state: Data<HttpState>,
    caller: Caller,
    Query(query): Query<ListParams>,
) -> Result<HttpResponse, Problem> {
    let ListParams { limit, cursor, kind, queue, tag, created_after, created_before } = query;
    let page = state.limits.page(limit, cursor.as_deref())?;
    let filter = JobFilter {
        state: Some(State::Failed),
        kind,
        queue,
        tags: tag.into_iter().collect(),
        created_after,
        created_before,
    };
    list_of(&state, &caller, &filter, page).await
}

/// Runs dead letters again, all that the filter meets
#[utoipa::path(post, path = "/api/v1/dead-letters/replay", tag = "dead letters",
    operation_id = "replay_dead_letters", request_body = ReplayBody,
    responses((status = 200, description = "Done, or with `dry_run` what would be done", body = Replayed)))]
pub(crate) async fn replay(
    state: Data<HttpState>,
    caller: Caller,
    Json(body): Json<ReplayBody>,
) -> Result<HttpResponse, Problem> {
    let ReplayBody { filter: Object(filter), rate, dry_run, edit, limit } = body;
    if let Some(rate) = rate.filter(|r| !(*r > 0.0 && *r <= RATE_MAX)) {
        let message = format!("is {rate}, but must be more than 0 and at most {RATE_MAX} jobs a second");
        return Err(Problem::invalid_field("rate", message));
    }
    let edit = edit.map(|Object(edit)| edit.into()).unwrap_or_default();
    let wish = Replay { filter: filter.checked()?, rate, dry_run, edit, limit: limit_of(limit)? };
    let done = state.jobs.replay(&wish, authority_of(&caller)).await.map_err(|e| match e {
        // The service checks the payload as it would that of a submit.
        JobsError::TooLarge { field, size, limit } => {
            JobsError::TooLarge { field: format!("edit.{field}"), size, limit }
        }
        other => other,
    })?;
    json(StatusCode::OK, &Replayed { matched: done.matched, replayed: done.changed, dry_run, ids: done.ids })
}

/// Forgets dead letters, all that the filter meets
#[utoipa::path(post, path = "/api/v1/dead-letters/discard", tag = "dead letters",
    operation_id = "discard_dead_letters", request_body = DiscardBody,
    responses((status = 200, description = "Done, or with `dry_run` what would be done", body = Discarded)))]
pub(crate) async fn discard(
    state: Data<HttpState>,
    caller: Caller,
    Json(body): Json<DiscardBody>,
) -> Result<HttpResponse, Problem> {
    let DiscardBody { filter: Object(filter), dry_run, limit } = body;
    let (filter, limit) = (filter.checked()?, limit_of(limit)?);
    let done = state.jobs.discard(&filter, limit, dry_run, authority_of(&caller)).await?;
    json(StatusCode::OK, &Discarded { matched: done.matched, discarded: done.changed, dry_run })
}
