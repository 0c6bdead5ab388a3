//! The routes, one file per subject, listed here in the order in which they are tried: the busiest first.

use actix_web::web::ServiceConfig;

pub(crate) mod docs;
pub(crate) mod health;
pub(crate) mod items;
pub(crate) mod metrics;

/// Adds every route to an application.
pub(crate) fn register(cfg: &mut ServiceConfig) {
    items::register(cfg);
    health::register(cfg);
    metrics::register(cfg);
    docs::register(cfg);
}
