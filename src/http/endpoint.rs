//! One path and its methods: what every route has in common, said once.
//!
//! HEAD is answered wherever GET is, any other method gets 405 with `Allow`, and the path's pattern becomes the label
//! of its metrics.

use actix_web::{
    FromRequest, Handler, HttpResponse, Resource, Responder, Route,
    http::Method,
    web::{self, ServiceConfig},
};

use crate::http::{middleware, problem::Problem};

/// A path pattern under construction.
pub(crate) struct Endpoint {
    pattern: &'static str,
    resource: Resource,
    allow: Vec<&'static str>,
}

impl Endpoint {
    /// Nothing is allowed at `pattern` yet.
    pub(crate) fn at(pattern: &'static str) -> Self {
        let resource = web::resource(pattern).app_data(middleware::Route(pattern));
        Self { pattern, resource, allow: Vec::new() }
    }

    /// Answers GET and HEAD.
    pub(crate) fn get<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::GET, "GET", handler.clone()).on(Method::HEAD, "HEAD", handler)
    }

    /// Answers POST.
    pub(crate) fn post<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::POST, "POST", handler)
    }

    /// Answers PUT.
    pub(crate) fn put<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::PUT, "PUT", handler)
    }

    /// Answers PATCH.
    pub(crate) fn patch<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::PATCH, "PATCH", handler)
    }

    /// Answers DELETE.
    pub(crate) fn delete<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::DELETE, "DELETE", handler)
    }

    /// Adds the path to the application.
    pub(crate) fn register(self, cfg: &mut ServiceConfig) {
        let (pattern, allow) = (self.pattern, self.allow.join(", "));
        tracing::trace!(pattern, allow, "route");
        cfg.service(self.resource.default_service(web::to(move || {
            let refusal = Problem::method_not_allowed(allow.clone());
            async { Err::<HttpResponse, _>(refusal) }
        })));
    }

    fn on<F, Args>(mut self, method: Method, name: &'static str, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.allow.push(name);
        self.resource = self.resource.route(Route::new().method(method).to(handler));
        self
    }
}
