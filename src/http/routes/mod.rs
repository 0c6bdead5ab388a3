//! The routes, one file per subject, listed here in the order in which they are tried: the busiest first.

use actix_web::{App, dev::HttpServiceFactory, http::Method, web::ServiceConfig};

use crate::users::Need;

pub(crate) mod api_keys;
pub(crate) mod asynctasks;
pub(crate) mod auth;
pub(crate) mod contacts;
pub(crate) mod dead_letters;
pub(crate) mod docs;
pub(crate) mod health;
pub(crate) mod items;
pub(crate) mod jobs;
pub(crate) mod kinds;
pub(crate) mod metrics;
pub(crate) mod notifications;
pub(crate) mod post;
pub(crate) mod queues;
pub(crate) mod rules;
pub(crate) mod submit;
pub(crate) mod suppressions;
pub(crate) mod templates;
pub(crate) mod users;
pub(crate) mod workers;

/// The application under construction, and what each of its routes needs of its callers.
pub(crate) struct Routes<'a> {
    cfg: &'a mut ServiceConfig,
    rows: Vec<Row>,
}

/// One method of one path.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The pattern.
    pub(crate) path: &'static str,
    /// The method.
    pub(crate) method: Method,
    /// What it needs.
    pub(crate) need: Need,
}

impl<'a> Routes<'a> {
    fn new(cfg: &'a mut ServiceConfig) -> Self {
        Self { cfg, rows: Vec::new() }
    }

    /// Notes what a path's methods need.
    pub(crate) fn note(&mut self, path: &'static str, needs: &[(Method, Need)]) {
        self.rows.extend(needs.iter().map(|(method, need)| Row { path, method: method.clone(), need: *need }));
    }

    /// Adds a service.
    pub(crate) fn service(&mut self, service: impl HttpServiceFactory + 'static) {
        self.cfg.service(service);
    }

    /// Adds what handlers may ask for.
    pub(crate) fn app_data<T: 'static>(&mut self, data: T) {
        self.cfg.app_data(data);
    }
}

/// Adds what tells about a process, without anything that works on items or jobs.
pub(crate) fn register_probes(cfg: &mut ServiceConfig) {
    probes(&mut Routes::new(cfg));
}

/// Adds every route to an application.
pub(crate) fn register(cfg: &mut ServiceConfig) {
    let mut routes = Routes::new(cfg);
    api(&mut routes);
    probes(&mut routes);
    docs::register(&mut routes);
}

/// What every route but those of the documentation needs, which the document itself is made from.
pub(crate) fn needs() -> Vec<Row> {
    let mut rows = Vec::new();
    // Built and thrown away: there is no other way to a list of what is served.
    drop(App::new().configure(|cfg| {
        let mut routes = Routes::new(cfg);
        api(&mut routes);
        probes(&mut routes);
        rows = routes.rows;
    }));
    rows
}

fn probes(routes: &mut Routes<'_>) {
    health::register(routes);
    metrics::register(routes);
}

fn api(routes: &mut Routes<'_>) {
    submit::register(routes);
    jobs::register(routes);
    items::register(routes);
    notifications::register(routes);
    asynctasks::register(routes);
    queues::register(routes);
    workers::register(routes);
    dead_letters::register(routes);
    kinds::register(routes);
    auth::register(routes);
    users::register(routes);
    contacts::register(routes);
    api_keys::register(routes);
    templates::register(routes);
    rules::register(routes);
    post::register(routes);
    suppressions::register(routes);
}
