//! One HTTP request and its answer, for every channel that speaks HTTP.
//!
//! Two things are needed that a plain client does not tell. Whether all of the request was sent when it failed: only then may it
//! have been taken, and a repetition is a second message. And an answer of bounded size: a stranger's server may never stop.

use std::{
    convert::Infallible,
    error::Error as _,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use reqwest::{
    Client, Method, Request, Response, StatusCode, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
    redirect::Policy,
};

use tokio::time::Instant;
use url::Host;

use super::{
    Fault, SendError,
    fault::{LONGEST_WAIT, retry_after},
    outgoing::{Guard, PrivateAddress, Resolver, private_address},
};
use crate::base::clock::Timestamp;

/// Most of an answer that is read: enough for any error that a provider explains.
pub(super) const ANSWER_MAX: usize = 4 << 10;
/// A connection unused for this long may be gone without our knowing, and a request on it would be ambiguous.
const IDLE: Duration = Duration::from_secs(20);

/// The time that one send has for all its requests.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    all: Duration,
    until: Instant,
}

impl Limit {
    /// Begins now.
    pub(super) fn new(all: Duration) -> Self {
        Self { all, until: Instant::now() + all }
    }

    /// Waits for what comes before anything is sent.
    pub(super) async fn bound<T>(self, before: impl Future<Output = T>) -> Result<T, SendError> {
        tokio::time::timeout_at(self.until, before).await.map_err(|_elapsed| timed_out(false, self.all))
    }
}

/// An HTTP client of one channel.
pub(super) struct Exchange {
    /// The client, or why there is none: an image without root certificates has none, and that must not keep the rest of
    /// the program from starting.
    client: Result<Client, String>,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// As much of it as was asked for.
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The wait that the answer asks for, if it does, within reason.
    pub(super) fn retry_after(&self, now: Timestamp) -> Option<Duration> {
        let value = self.headers.get("retry-after")?.to_str().ok()?;
        retry_after(value, now).map(|wait| wait.min(LONGEST_WAIT))
    }

    /// The status and the beginning of what was said.
    pub(super) fn sentence(&self) -> String {
        let said = String::from_utf8_lossy(&self.body);
        match said.trim() {
            "" => format!("HTTP {}", self.status.as_u16()),
            said => format!("HTTP {}: {said}", self.status.as_u16()),
        }
    }

    /// `http_STATUS`.
    pub(super) fn code(&self) -> String {
        format!("http_{}", self.status.as_u16())
    }
}

impl Exchange {
    /// A client for an operator's provider, through the proxy of the environment if there is one. No proxy reaches this
    /// host's loopback.
    pub(super) fn trusted(url: &Url) -> Self {
        let loopback = match url.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        Self::build(if loopback { Client::builder().no_proxy() } else { Client::builder() })
    }

    /// A client for URLs that users chose.
    pub(super) fn guarded(guard: Arc<Guard>) -> Self {
        Self::build(Client::builder().no_proxy().dns_resolver(Arc::new(Resolver(guard))))
    }

    fn build(builder: reqwest::ClientBuilder) -> Self {
        // The second call in one process is refused, and the provider is then already there.
        rustls::crypto::ring::default_provider().install_default().unwrap_or_default();
        let builder = builder
            .user_agent(concat!("app/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .pool_idle_timeout(IDLE)
            .tcp_nodelay(true);
        Self { client: builder.build().map_err(|e| chain(&e)) }
    }

    /// Posts `body` and reads at most `max` bytes of the answer.
    pub(super) async fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: impl Into<Bytes>,
        max: usize,
        limit: Limit,
    ) -> Result<Answer, SendError> {
        let client = self.client.as_ref().map_err(|why| {
            SendError::new(Fault::Configuration, "no_http_client", format!("there is no HTTP client: {why}"))
        })?;
        let sent = Arc::new(AtomicBool::new(false));
        let mut request = Request::new(Method::POST, url.clone());
        *request.headers_mut() = headers;
        *request.body_mut() = Some(reqwest::Body::wrap(Watched { rest: Some(body.into()), sent: sent.clone() }));
        let response = match tokio::time::timeout_at(limit.until, client.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(e)) => return Err(broken(&e, sent.load(Ordering::Acquire))),
            Err(_elapsed) => return Err(timed_out(sent.load(Ordering::Acquire), limit.all)),
        };
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Answer { status, headers, body: read(response, max, limit.until).await })
    }
}

/// The beginning of the body. The status has said what matters, so a body that breaks or dawdles is no failure.
async fn read(mut response: Response, max: usize, deadline: Instant) -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() < max {
        match tokio::time::timeout_at(deadline, response.chunk()).await {
            Ok(Ok(Some(chunk))) => body.extend(chunk.iter().take(max - body.len())),
            _ => break,
        }
    }
    body
}

fn timed_out(sent: bool, limit: Duration) -> SendError {
    match sent {
        true => SendError::new(Fault::Ambiguous, "timed_out", format!("no answer within {limit:?}")),
        false => SendError::new(Fault::Provider, "timed_out", format!("no connection within {limit:?}")),
    }
}

fn broken(e: &reqwest::Error, sent: bool) -> SendError {
    let mut source = e.source();
    while let Some(cause) = source {
        if cause.is::<PrivateAddress>() {
            return private_address();
        }
        source = cause.source();
    }
    match (e.is_connect(), sent) {
        (true, _) => SendError::new(Fault::Provider, "connect_failed", chain(e)),
        (false, true) => SendError::new(Fault::Ambiguous, "connection_lost", chain(e)),
        (false, false) => SendError::new(Fault::Provider, "connection_lost", chain(e)),
    }
}

/// What the causes say, without the first, which repeats the URL: its path may be a secret.
fn chain(e: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source = e.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    if text.is_empty() { "the HTTP client failed".to_owned() } else { text }
}

/// Headers from pairs; one that cannot be a header is a defect or an attack, and is left out.
pub(super) fn headers<const N: usize>(pairs: [(&'static str, &str); N]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        if let Ok(value) = HeaderValue::from_str(value) {
            map.insert(HeaderName::from_static(name), value);
        }
    }
    map
}

/// A body that notes when the connection took the last of it.
struct Watched {
    rest: Option<Bytes>,
    sent: Arc<AtomicBool>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let rest = self.rest.take();
        self.sent.store(true, Ordering::Release);
        Poll::Ready(rest.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.as_ref().map_or(0, |b| b.len() as u64))
    }
}
