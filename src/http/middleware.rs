//! The one middleware: request id, trailing slash, pages of other sites, log line, metrics, problem documents, and
//! panics turned into 500.
//!
//! One instead of six, because each layer costs every request; it allocates nothing of its own for a good answer but
//! the request id.

use std::{
    cell::RefCell,
    collections::HashMap,
    future::{Ready, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use actix_web::{
    Error, HttpMessage,
    body::BoxBody,
    dev::{Service, ServiceRequest, ServiceResponse, Transform, Url, forward_ready},
    http::{
        Method, Uri,
        header::{self, HeaderValue},
        uri::PathAndQuery,
    },
};
use metrics::{Counter, Histogram, counter, histogram};
use tracing::Span;

use crate::{
    base::error::Kind,
    http::{HttpState, RequestLog, problem::Problem, request_id::RequestId, unread::Chunked},
    telemetry::metrics::{HTTP_REQUEST_DURATION, HTTP_REQUESTS},
};

/// The pattern a request matched, as the metrics label it; resources carry it as their data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route(pub(crate) &'static str);

const UNMATCHED: Route = Route("unmatched");

/// Observes and completes every request and answer.
pub(crate) struct Observe(pub(crate) Arc<HttpState>);

impl<S> Transform<S, ServiceRequest> for Observe
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error>,
    S::Future: Unpin,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Transform = ObserveService<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(ObserveService { service, state: Arc::clone(&self.0), meters: Rc::default() }))
    }
}

/// [`Observe`] on one worker thread.
pub(crate) struct ObserveService<S> {
    service: S,
    state: Arc<HttpState>,
    meters: Rc<RefCell<Meters>>,
}

impl<S> Service<ServiceRequest> for ObserveService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error>,
    S::Future: Unpin,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Future = Observed<S::Future>;

    forward_ready!(service);

    fn call(&self, mut req: ServiceRequest) -> Self::Future {
        let started = Instant::now();
        trim_trailing_slash(&mut req);
        let id = RequestId::accept_or_make(req.headers());
        let log = self.state.request_log;
        let span = match log {
            RequestLog::Off => Span::none(),
            RequestLog::Failed | RequestLog::All => {
                let (method, path, request_id) = (req.method().as_str(), req.path(), id.as_str());
                tracing::info_span!("request", method, path, request_id)
            }
        };
        req.extensions_mut().insert(id.clone());
        let method = Verb::of(req.method());
        let chunked = Chunked::share(&mut req);
        let answer = match self.state.origins.refusal(req.method(), req.headers()) {
            None => Answer::UnderWay(span.in_scope(|| self.service.call(req))),
            Some(problem) => Answer::Refused(Some(req.error_response(problem))),
        };
        Observed { answer, chunked, id, method, span, started, log, meters: Rc::clone(&self.meters) }
    }
}

/// Who answers a request.
enum Answer<F> {
    /// A handler.
    UnderWay(F),
    /// The middleware itself; none once it is given.
    Refused(Option<ServiceResponse<BoxBody>>),
}

impl<F: Future<Output = Result<ServiceResponse<BoxBody>, Error>> + Unpin> Future for Answer<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::UnderWay(answer) => Pin::new(answer).poll(cx),
            Self::Refused(response) => response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(response))),
        }
    }
}

/// The answer to one request, on its way.
pub(crate) struct Observed<F> {
    answer: Answer<F>,
    chunked: Option<Chunked>,
    id: RequestId,
    method: Verb,
    span: Span,
    started: Instant,
    log: RequestLog,
    meters: Rc<RefCell<Meters>>,
}

impl<F> Future for Observed<F>
where
    F: Future<Output = Result<ServiceResponse<BoxBody>, Error>> + Unpin,
{
    type Output = Result<ServiceResponse<BoxBody>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let _in_span = this.span.enter();
        // After a panic the answer is never polled again, so nothing half-changed in it can be seen.
        match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.answer).poll(cx))) {
            Ok(polled) => {
                let response = this.complete(ready!(polled)?);
                Poll::Ready(Ok(match this.chunked.take() {
                    Some(body) => body.hold_until_sent(response),
                    None => response,
                }))
            }
            Err(panic) => {
                // The request died with the handler, so route and path are known to the span only.
                let problem = Problem::hidden(Kind::Internal, panic_message(panic.as_ref()));
                log_cause(&problem, &this.id);
                this.record(UNMATCHED, 500);
                Poll::Ready(Err(problem.with_request_id(this.id.clone()).into()))
            }
        }
    }
}

impl<F> Observed<F> {
    fn complete(&self, mut response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
        if let Some(error) = response.response().error() {
            let made;
            let problem = match error.as_error::<Problem>() {
                Some(problem) => problem,
                None => {
                    made = Problem::from_framework(error);
                    &made
                }
            };
            log_cause(problem, &self.id);
            let body = problem.response(Some(response.request().path()), Some(&self.id));
            response = response.into_response(body);
        }
        let headers = response.headers_mut();
        headers.insert(RequestId::HEADER, self.id.header_value());
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let route = response.request().app_data::<Route>().copied().unwrap_or(UNMATCHED);
        self.record(route, response.status().as_u16());
        response
    }

    fn record(&self, route: Route, status: u16) {
        let took = self.started.elapsed();
        self.meters.borrow_mut().record(route, self.method, status, took);
        let logged = match self.log {
            RequestLog::Off => false,
            RequestLog::Failed => status >= 400,
            RequestLog::All => true,
        };
        if logged {
            // To the microsecond: more digits are noise.
            let ms = f64::from(u32::try_from(took.as_micros()).unwrap_or(u32::MAX)) / 1000.0;
            tracing::info!(route = route.0, status, ms, "request");
        }
    }
}

/// Logs what the client is not told. The span, where there is one, adds method and path.
fn log_cause(problem: &Problem, id: &RequestId) {
    let (Some(cause), request_id) = (problem.cause(), id.as_str()) else { return };
    match problem.kind().status().as_u16() {
        503 => tracing::warn!(request_id, cause, "request refused: a backend is unavailable"),
        _ => tracing::error!(request_id, cause, "request failed"),
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the handler panicked: {}", text.unwrap_or("no message"))
}

/// `/api/items/` names what `/api/items` names. The documentation is left alone: its pages link relative to a slash.
fn trim_trailing_slash(req: &mut ServiceRequest) {
    let path = req.path();
    if path.len() < 2 || !path.ends_with('/') || path.starts_with("/docs/") {
        return;
    }
    let trimmed = match path.trim_end_matches('/') {
        "" => "/",
        rest => rest,
    };
    let target = match req.uri().query() {
        Some(query) => format!("{trimmed}?{query}"),
        None => trimmed.to_owned(),
    };
    let mut parts = req.uri().clone().into_parts();
    // A part of a legal target is legal; if not, the request goes on as it came and finds nothing.
    let Ok(target) = PathAndQuery::from_maybe_shared(target) else { return };
    parts.path_and_query = Some(target);
    let Ok(uri) = Uri::from_parts(parts) else { return };
    req.match_info_mut().set(Url::new(uri.clone()));
    req.head_mut().uri = uri;
}

/// A method as a metrics label: a closed list, because clients may send any word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Verb {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Other,
}

impl Verb {
    fn of(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::POST => Self::Post,
            Method::PUT => Self::Put,
            Method::PATCH => Self::Patch,
            Method::DELETE => Self::Delete,
            _ => Self::Other,
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Other => "OTHER",
        }
    }
}

/// One worker thread's metric handles: looking a handle up by its labels costs more than a small request.
#[derive(Default)]
struct Meters(HashMap<(*const u8, Verb, u16), (Counter, Histogram)>);

impl Meters {
    fn record(&mut self, route: Route, method: Verb, status: u16, took: Duration) {
        // Routes are static texts, so the address is as good a key as the text and quicker to hash.
        let (requests, seconds) = self.0.entry((route.0.as_ptr(), method, status)).or_insert_with(|| {
            let (method, route) = (method.label(), route.0);
            let requests =
                counter!(HTTP_REQUESTS, "method" => method, "route" => route, "status" => status.to_string());
            (requests, histogram!(HTTP_REQUEST_DURATION, "method" => method, "route" => route))
        });
        requests.increment(1);
        seconds.record(took);
    }
}
