//! What a handler may know of the request beyond its parameters: its id and the trace it belongs to.

use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload, http::header::HeaderMap};

use crate::{
    http::{auth, problem::Problem, request_id::RequestId},
    jobs::{authority::Authority, service::Origin},
};

/// The context of one request, put there by the middleware.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The request's id, which jobs started by it carry on.
    pub request_id: RequestId,
    /// The caller's W3C trace context, if it sent a well-formed one.
    pub traceparent: Option<String>,
    /// What the caller may do with kinds of job that ask for more than their route.
    pub authority: Authority,
}

impl RequestContext {
    /// Its id, for what the request changes.
    #[must_use]
    pub fn into_id(self) -> Option<String> {
        Some(self.request_id.as_str().to_owned())
    }

    /// The same for the job queue.
    #[must_use]
    pub fn into_origin(self) -> Origin {
        let correlation_id = Some(self.request_id.as_str().to_owned());
        Origin { authority: self.authority, correlation_id, traceparent: self.traceparent }
    }
}

impl FromRequest for RequestContext {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let known = req.extensions().get::<RequestId>().cloned();
        let request_id = known.unwrap_or_else(|| RequestId::accept_or_make(req.headers()));
        ready(Ok(Self { request_id, traceparent: traceparent(req.headers()), authority: auth::authority(req) }))
    }
}

/// The header as W3C Trace Context shapes it; anything else is as good as none, says its section 3.2.
fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let hex = |part: &str, len: usize| {
        part.len() == len && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let some = |part: &str| part.bytes().any(|b| b != b'0');
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let shaped = hex(version, 2) && hex(trace, 32) && hex(parent, 16) && hex(flags, 2) && parts.next().is_none();
    (shaped && version != "ff" && some(trace) && some(parent)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn only_a_well_formed_trace_context_is_taken_over() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static("traceparent"), HeaderValue::from_str(text).unwrap());
            traceparent(&headers)
        };
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(of(good).as_deref(), Some(good));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
