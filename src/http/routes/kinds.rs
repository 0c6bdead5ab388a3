//! `/api/v1/kinds`: what can be submitted, with the schema of each payload and an example that works.

use std::future::{Ready, ready};

use actix_web::{HttpResponse, http::StatusCode, web::Data};
use serde::Serialize;
use serde_json::{Value, value::RawValue};
use utoipa::ToSchema;

use crate::{
    http::{
        HttpState,
        endpoint::Endpoint,
        extract::Query,
        problem::Problem,
        response::{List, PageParams, json, page_by_name},
        routes::Routes,
    },
    jobs::registry::Kind,
    users::Right,
};

pub(crate) fn register(routes: &mut Routes<'_>) {
    Endpoint::at("/api/v1/kinds").get(Right::JobsRead, list).register(routes);
}

/// A kind of job and what holds for its jobs if they do not say otherwise.
#[derive(Serialize, ToSchema)]
#[schema(as = Kind)]
pub(crate) struct KindBody<'a> {
    /// Its name.
    name: &'a str,
    /// One line for people.
    description: &'a str,
    /// Where its jobs wait.
    queue: &'a str,
    /// How urgent they are.
    #[schema(minimum = 1, maximum = 10)]
    priority: u8,
    /// Attempts they may spend.
    max_attempts: u32,
    /// Longest run in seconds.
    timeout: f64,
    /// Delay between attempts.
    backoff: KindBackoff,
    /// JSON Schema of the payload.
    #[schema(value_type = Object)]
    schema: &'a Value,
    /// A payload that works.
    #[schema(value_type = Value)]
    example: &'a RawValue,
    /// Only the program submits such jobs.
    internal: bool,
}

/// A random delay up to `base` after the first failure, twice that after each further one, and never over `cap`.
#[derive(Serialize, ToSchema)]
#[schema(as = Backoff)]
pub(crate) struct KindBackoff {
    /// Upper bound of the first delay in seconds.
    base: f64,
    /// Upper bound of any delay in seconds.
    cap: f64,
}

impl<'a> KindBody<'a> {
    fn of(kind: &'a Kind) -> Self {
        let seconds = |ms: u64| std::time::Duration::from_millis(ms).as_secs_f64();
        Self {
            name: kind.name.as_str(),
            description: &kind.description,
            queue: kind.queue.as_str(),
            priority: kind.priority.get(),
            max_attempts: kind.max_attempts,
            timeout: kind.timeout.as_secs_f64(),
            backoff: KindBackoff { base: seconds(kind.backoff.base_ms), cap: seconds(kind.backoff.cap_ms) },
            schema: kind.schema.document(),
            example: &kind.example,
            internal: kind.internal,
        }
    }
}

/// Lists the kinds of job by name
#[utoipa::path(get, path = "/api/v1/kinds", tag = "jobs", operation_id = "list_kinds", params(PageParams),
    responses(
        (status = 200, description = "One page of kinds", body = List<KindBody<'_>>, example = json!({
            "data": [{
                "name": "noop", "description": "Does nothing.", "queue": "default", "priority": 5, "max_attempts": 5,
                "timeout": 3600.0, "backoff": {"base": 2.0, "cap": 600.0}, "schema": {"type": "object"}, "example": {}, "internal": false,
            }],
            "meta": {"limit": 50, "next_cursor": null, "has_next": false},
        }))))]
pub(crate) fn list(state: Data<HttpState>, Query(query): Query<PageParams>) -> Ready<Result<HttpResponse, Problem>> {
    let kinds: Vec<&Kind> = state.jobs.registry().iter().collect();
    let page = page_by_name(kinds, &query, &state.limits, |k| k.name.to_string(), KindBody::of);
    ready(page.and_then(|page| json(StatusCode::OK, &page)))
}
