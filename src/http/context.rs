//! What a handler may know of the request beyond its parameters: for now, its id.

use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload};

use crate::http::{problem::Problem, request_id::RequestId};

/// The context of one request, put there by the middleware.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The request's id, which jobs started by it carry on.
    pub request_id: RequestId,
}

impl FromRequest for RequestContext {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let known = req.extensions().get::<RequestId>().cloned();
        ready(Ok(Self { request_id: known.unwrap_or_else(|| RequestId::accept_or_make(req.headers())) }))
    }
}
