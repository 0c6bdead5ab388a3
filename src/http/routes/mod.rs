//! The routes, one file per subject, listed here in the order in which they are tried: the busiest first.

use actix_web::web::ServiceConfig;

pub(crate) mod asynctasks;
pub(crate) mod dead_letters;
pub(crate) mod docs;
pub(crate) mod health;
pub(crate) mod items;
pub(crate) mod jobs;
pub(crate) mod kinds;
pub(crate) mod metrics;
pub(crate) mod queues;
pub(crate) mod submit;
pub(crate) mod workers;

/// Adds what tells about a process, without anything that works on items or jobs.
pub(crate) fn register_probes(cfg: &mut ServiceConfig) {
    health::register(cfg);
    metrics::register(cfg);
}

/// Adds every route to an application.
pub(crate) fn register(cfg: &mut ServiceConfig) {
    submit::register(cfg);
    jobs::register(cfg);
    asynctasks::register(cfg);
    items::register(cfg);
    queues::register(cfg);
    workers::register(cfg);
    dead_letters::register(cfg);
    kinds::register(cfg);
    health::register(cfg);
    metrics::register(cfg);
    docs::register(cfg);
}
