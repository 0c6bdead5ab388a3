//! The sections about HTTP: the server, and where roles without an API are asked how they are.

use std::{net::SocketAddr, time::Duration};

use serde::Serialize;

use super::units;

/// The HTTP server.
#[derive(Clone, Debug, Serialize)]
pub struct Http {
    /// Address and port to listen on.
    pub bind: SocketAddr,
    /// Threads that serve requests; at least 1.
    pub workers: usize,
    /// Largest request body, in bytes.
    #[serde(serialize_with = "units::size")]
    pub max_body: usize,
    /// Largest request body of bulk submissions, in bytes.
    #[serde(serialize_with = "units::size")]
    pub max_bulk_body: usize,
    /// Bytes that all bodies under way may hold together.
    #[serde(serialize_with = "units::size")]
    pub max_bodies: usize,
    /// How long a body may make no progress.
    #[serde(serialize_with = "units::duration")]
    pub body_timeout: Duration,
    /// Further host names by which browsers reach this server; lower case, without ports.
    pub hosts: Vec<String>,
    /// Most entries on one page.
    pub page_limit_max: usize,
    /// How long requests under way may take when the program stops.
    #[serde(serialize_with = "units::duration")]
    pub shutdown_timeout: Duration,
    /// How long an idle connection stays open.
    #[serde(serialize_with = "units::duration")]
    pub keep_alive: Duration,
}

/// Where `app worker` and `app scheduler` tell about themselves.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Probe {
    /// Address and port of `/health…` and `/metrics`; none for nowhere.
    #[serde(serialize_with = "address_or_empty")]
    pub bind: Option<SocketAddr>,
}

#[allow(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde fixes the signature")]
fn address_or_empty<S: serde::Serializer>(bind: &Option<SocketAddr>, s: S) -> Result<S::Ok, S::Error> {
    match bind {
        Some(bind) => s.collect_str(bind),
        None => s.serialize_str(""),
    }
}
