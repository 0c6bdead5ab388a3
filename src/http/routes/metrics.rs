//! `/metrics`: the process's metrics for Prometheus.
//!
//! How they are collected is the telemetry room's business; this route only asks for the text.

use std::future::{Ready, ready};

use actix_web::{
    HttpResponse,
    http::header::{self, HeaderValue},
    web::Data,
};

use crate::{
    http::{HttpState, endpoint::Endpoint, routes::Routes},
    users::Need,
};

pub(crate) fn register(routes: &mut Routes<'_>) {
    Endpoint::at("/metrics").get(Need::Open, read).register(routes);
}

/// All metrics of this process in the Prometheus text format
#[utoipa::path(get, path = "/metrics", tag = "service", operation_id = "read_metrics", responses(
    (status = 200, description = "The metrics", body = String, content_type = "text/plain",
     example = "app_http_requests_total{method=\"GET\",route=\"/health\",status=\"200\"} 1\n"),
))]
pub(crate) fn read(state: Data<HttpState>) -> Ready<HttpResponse> {
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ready(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, content_type)).body((state.metrics)()))
}
