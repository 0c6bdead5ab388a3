//! HTTP: turns requests into calls of the services and their answers into JSON.
//!
//! The room sees services and ports, never an adapter. [`app`] builds the same application for the server and for
//! tests; what it serves is in `routes`, what every route shares is in the files beside it.

use std::{
    future::{Ready, ready},
    sync::{Arc, atomic::AtomicBool},
};

use actix_web::{
    App, Error, HttpResponse,
    body::BoxBody,
    dev::{ServiceFactory, ServiceRequest, ServiceResponse},
    web,
};

use crate::{
    base::{clock::Clock, probe::Probe},
    items::Items,
    jobs::service::Jobs,
    notifications::{rules::Rules, service::Notifications},
    users::Users,
};

mod auth;
mod bodies;
mod context;
mod endpoint;
mod extract;
mod idempotency;
mod job_body;
mod limits;
mod middleware;
mod notification_body;
mod openapi;
mod origin;
mod problem;
mod query;
mod request_id;
mod response;
mod routes;
mod seconds;
mod serve;
#[cfg(test)]
mod tests;
mod unread;

pub use auth::AuthRules;
pub use bodies::Bodies;
pub use context::RequestContext;
pub use extract::{Json, PathParam, Query, RequestBody};
pub use limits::HttpLimits;
pub use openapi::document;
pub use origin::OriginRules;
pub use problem::{Problem, ProblemType};
pub use request_id::RequestId;
pub use routes::docs::Document;
pub use serve::{ServeOptions, listen, serve};

/// Writes the metrics of the process in the Prometheus text format.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// Which requests get a line in the log. Failures of the server are logged with their cause in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestLog {
    /// None.
    Off,
    /// Those answered with 400 or more.
    #[default]
    Failed,
    /// All.
    All,
}

/// What a process answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Surface {
    /// The whole API.
    #[default]
    Api,
    /// Only `/`, `/health`, `/health/live`, `/health/ready` and `/metrics`.
    Probes,
}

/// Notifications, and what belongs to them.
#[derive(Clone)]
pub struct PostRooms {
    /// Sending and looking.
    pub notifications: Arc<Notifications>,
    /// What is sent when something happens.
    pub rules: Rules,
}

/// Everything the routes need: services, and what they tell about the process.
pub struct HttpState {
    /// The items service.
    pub items: Arc<Items>,
    /// The job queue.
    pub jobs: Arc<Jobs>,
    /// Users and keys.
    pub users: Arc<Users>,
    /// Notifications, and what belongs to them.
    pub post: PostRooms,
    /// Who may call.
    pub auth: AuthRules,
    /// By which names browsers may reach the server.
    pub origins: OriginRules,
    /// The backends in use, for `/health`.
    pub probes: Vec<Arc<dyn Probe>>,
    /// Whether the process may take traffic, for `/health/ready`.
    pub ready: Arc<AtomicBool>,
    /// The program's version.
    pub version: &'static str,
    /// What is answered.
    pub surface: Surface,
    /// Limits on requests.
    pub limits: HttpLimits,
    /// What bodies under way may cost.
    pub bodies: Arc<Bodies>,
    /// The text behind `/metrics`.
    pub metrics: MetricsText,
    /// Which requests are logged.
    pub request_log: RequestLog,
    /// The time, for answers that tell it.
    pub clock: Clock,
    /// The OpenAPI document.
    pub document: Document,
}

/// The application over `state`: every route, the answers to unknown paths, and the middleware.
#[must_use]
pub fn app(
    state: &Arc<HttpState>,
) -> App<
    impl ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse<BoxBody>, Error = Error, InitError = ()>
    + use<>,
> {
    App::new()
        .app_data(web::Data::from(Arc::clone(state)))
        .configure(match state.surface {
            Surface::Api => routes::register,
            Surface::Probes => routes::register_probes,
        })
        .default_service(web::to(unknown_path))
        .wrap(middleware::Observe(Arc::clone(state)))
}

fn unknown_path() -> Ready<Result<HttpResponse, Problem>> {
    ready(Err(Problem::new(ProblemType::NotFound, "there is nothing at this path")))
}
