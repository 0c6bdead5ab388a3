//! One path and its methods: what every route has in common, said once.
//!
//! Each method is registered with what it needs of its callers, so that none can be forgotten. HEAD is answered wherever GET is, any other method gets 405 with `Allow`, and the path's pattern becomes the label
//! of its metrics.

use actix_web::{FromRequest, Handler, HttpResponse, Resource, Responder, Route, http::Method, web};

use crate::{
    http::{auth::Guard, middleware, problem::Problem, routes::Routes},
    users::Need,
};

/// A path pattern under construction.
pub(crate) struct Endpoint {
    pattern: &'static str,
    resource: Resource,
    allow: Vec<&'static str>,
    needs: Vec<(Method, Need)>,
}

impl Endpoint {
    /// Nothing is allowed at `pattern` yet.
    pub(crate) fn at(pattern: &'static str) -> Self {
        let resource = web::resource(pattern).app_data(middleware::Route(pattern));
        Self { pattern, resource, allow: Vec::new(), needs: Vec::new() }
    }

    /// Answers GET and HEAD.
    pub(crate) fn get<F, Args>(self, need: impl Into<Need>, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        let need = need.into();
        self.on(Method::GET, "GET", need, handler.clone()).on(Method::HEAD, "HEAD", need, handler)
    }

    /// Answers POST.
    pub(crate) fn post<F, Args>(self, need: impl Into<Need>, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::POST, "POST", need.into(), handler)
    }

    /// Answers PUT.
    pub(crate) fn put<F, Args>(self, need: impl Into<Need>, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::PUT, "PUT", need.into(), handler)
    }

    /// Answers PATCH.
    pub(crate) fn patch<F, Args>(self, need: impl Into<Need>, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::PATCH, "PATCH", need.into(), handler)
    }

    /// Answers DELETE.
    pub(crate) fn delete<F, Args>(self, need: impl Into<Need>, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::DELETE, "DELETE", need.into(), handler)
    }

    /// Adds the path to the application.
    pub(crate) fn register(self, routes: &mut Routes<'_>) {
        let (pattern, allow) = (self.pattern, self.allow.join(", "));
        tracing::trace!(pattern, allow, "route");
        routes.note(pattern, &self.needs);
        let resource = self.resource.default_service(web::to(move || {
            let refusal = Problem::method_not_allowed(allow.clone());
            async { Err::<HttpResponse, _>(refusal) }
        }));
        routes.service(resource.wrap(Guard::new(self.needs)));
    }

    fn on<F, Args>(mut self, method: Method, name: &'static str, need: Need, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.allow.push(name);
        self.needs.push((method.clone(), need));
        self.resource = self.resource.route(Route::new().method(method).to(handler));
        self
    }
}
