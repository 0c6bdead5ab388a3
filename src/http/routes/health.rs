//! What the process says about itself: its name and links, its health, and whether it may take traffic.
//!
//! `/health` asks every backend at once and waits for none longer than the bound below, so that one that hangs is told
//! as disconnected within two seconds and the others are still told as they are.

use std::{
    collections::BTreeMap,
    future::{Ready, ready},
    sync::atomic::Ordering,
    time::Duration,
};

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
    web::Data,
};
use futures_util::future::join_all;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    base::{clock::Timestamp, probe::Probe},
    http::{HttpState, Surface, endpoint::Endpoint, problem::Problem, response::json, routes::Routes},
    users::Need,
};

/// How long one backend may take to prove that it works.
const PROBE_TIMEOUT: Duration = Duration::from_millis(1500);

pub(crate) fn register(routes: &mut Routes<'_>) {
    Endpoint::at("/health").get(Need::Open, health).register(routes);
    Endpoint::at("/health/live").get(Need::Open, liveness).register(routes);
    Endpoint::at("/health/ready").get(Need::Open, readiness).register(routes);
    Endpoint::at("/").get(Need::Open, about).register(routes);
}

/// The service, its version and where to go from here.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"service": "app", "version": "0.1.0", "links": {"docs": "/docs", "health": "/health"}}))]
pub(crate) struct About {
    /// The program's name.
    service: &'static str,
    /// The program's version.
    version: &'static str,
    /// Paths by what they lead to.
    #[schema(value_type = BTreeMap<String, String>)]
    links: BTreeMap<&'static str, &'static str>,
}

const LINKS: [(&str, &str); 11] = [
    ("docs", "/docs"),
    ("openapi", "/openapi.json"),
    ("health", "/health"),
    ("metrics", "/metrics"),
    ("items", "/api/v1/items"),
    ("users", "/api/v1/users"),
    ("jobs", "/api/v1/jobs"),
    ("queues", "/api/v1/queues"),
    ("workers", "/api/v1/workers"),
    ("kinds", "/api/v1/kinds"),
    ("dead_letters", "/api/v1/dead-letters"),
];

/// Names the service, its version and links
#[utoipa::path(get, path = "/", tag = "service", operation_id = "read_about", responses(
    (status = 200, description = "About this service", body = About),
))]
pub(crate) fn about(state: Data<HttpState>) -> Ready<Result<HttpResponse, Problem>> {
    let about = About { service: env!("CARGO_PKG_NAME"), version: state.version, links: links(state.surface) };
    ready(json(StatusCode::OK, &about))
}

fn links(surface: Surface) -> BTreeMap<&'static str, &'static str> {
    let shown = |(name, _): &(&str, &str)| surface == Surface::Api || ["health", "metrics"].contains(name);
    LINKS.into_iter().filter(shown).collect()
}

/// Health of the process and of each backend it uses.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "status": "healthy", "timestamp": "2026-11-21T08:00:00.000Z",
    "services": {"sqlite": "connected", "embedded": "connected", "memory": "connected"},
}))]
pub(crate) struct Health {
    /// `healthy` exactly if every backend is connected.
    status: HealthStatus,
    /// When it was found out.
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    /// Each backend in use.
    #[schema(value_type = BTreeMap<String, Connection>)]
    services: BTreeMap<&'static str, Connection>,
    /// What works only in part, by backend. It makes nobody unhealthy; it is left out if there is nothing to tell.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, Vec<String>>, required = false)]
    degraded: BTreeMap<&'static str, Vec<String>>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HealthStatus {
    Healthy,
    Unhealthy,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Connection {
    Connected,
    Disconnected,
}

/// Asks every backend whether it works
#[utoipa::path(get, path = "/health", tag = "service", operation_id = "read_health", responses(
    (status = 200, description = "Every backend works", body = Health),
    (status = 503, description = "A backend is away; the process serves what it still can", body = Health,
     example = json!({"status": "unhealthy", "timestamp": "2026-11-21T08:00:00.000Z",
        "services": {"sqlite": "connected", "redis": "disconnected"}})),
))]
pub(crate) async fn health(state: Data<HttpState>) -> Result<HttpResponse, Problem> {
    let mut services = BTreeMap::new();
    for (name, found) in join_all(state.probes.iter().map(|p| ask(p.as_ref()))).await {
        // One server in two uses is one entry: connected if it is in both.
        let connection = services.entry(name).or_insert(found);
        if found == Connection::Disconnected {
            *connection = found;
        }
    }
    let well = services.values().all(|c| *c == Connection::Connected);
    let status = if well { HealthStatus::Healthy } else { HealthStatus::Unhealthy };
    let code = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut degraded = BTreeMap::<&'static str, Vec<String>>::new();
    for probe in &state.probes {
        let notes = probe.notes();
        if !notes.is_empty() {
            degraded.entry(probe.name()).or_default().extend(notes);
        }
    }
    json(code, &Health { status, timestamp: state.clock.now(), services, degraded })
}

async fn ask(probe: &dyn Probe) -> (&'static str, Connection) {
    let name = probe.name();
    let answer = tokio::time::timeout(PROBE_TIMEOUT, probe.check()).await;
    let fault = match answer {
        Ok(Ok(())) => return (name, Connection::Connected),
        Ok(Err(e)) => e,
        Err(_) => format!("no answer within {PROBE_TIMEOUT:?}"),
    };
    tracing::warn!(backend = name, error = fault, "backend is unhealthy");
    (name, Connection::Disconnected)
}

/// Whether the process is up, or may take traffic.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"status": "ready"}))]
pub(crate) struct Liveness {
    /// `live`; `ready` or `not_ready`.
    status: LivenessStatus,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LivenessStatus {
    Live,
    Ready,
    NotReady,
}

/// Says that the process is up
#[utoipa::path(get, path = "/health/live", tag = "service", operation_id = "read_live", responses(
    (status = 200, description = "The process is up", body = Liveness, example = json!({"status": "live"})),
))]
pub(crate) fn liveness() -> Ready<Result<HttpResponse, Problem>> {
    ready(json(StatusCode::OK, &Liveness { status: LivenessStatus::Live }))
}

/// Says whether the process may take traffic: not while it starts, migrates or stops
#[utoipa::path(get, path = "/health/ready", tag = "service", operation_id = "read_ready", responses(
    (status = 200, description = "It may take traffic", body = Liveness, example = json!({"status": "ready"})),
    (status = 503, description = "It starts, migrates or stops", body = Liveness,
     headers(("Retry-After" = u32, description = "Seconds to wait")), example = json!({"status": "not_ready"})),
))]
pub(crate) fn readiness(state: Data<HttpState>) -> Ready<Result<HttpResponse, Problem>> {
    let answer = if state.ready.load(Ordering::Relaxed) {
        json(StatusCode::OK, &Liveness { status: LivenessStatus::Ready })
    } else {
        json(StatusCode::SERVICE_UNAVAILABLE, &Liveness { status: LivenessStatus::NotReady }).map(|mut response| {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
            response
        })
    };
    ready(answer)
}
