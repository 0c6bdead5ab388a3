//! `Idempotency-Key`: reads it with the body it belongs to, and fingerprints the request.
//!
//! The fingerprint is taken from the bytes as they came, and only if there is a key: other requests pay nothing.

use std::{
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::header::{HeaderMap, HeaderName},
};
use sha2::{Digest, Sha256};

use crate::{
    http::{
        auth,
        extract::{ReadBody, RequestBody, parse},
        problem::Problem,
    },
    jobs::service::Key,
};

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// The header's name as clients write it.
const NAME: &str = "Idempotency-Key";
/// Longest key in characters.
const LEN_MAX: usize = 255;

/// A JSON body, and the caller's key for this request if it sent one.
pub(crate) struct Keyed<T> {
    pub(crate) body: T,
    pub(crate) key: Option<Key>,
}

impl<T: RequestBody> FromRequest for Keyed<T> {
    type Error = Problem;
    type Future = ReadKeyed<T>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> ReadKeyed<T> {
        let key = key_of(req.headers()).and_then(|key| match key {
            Some(key) => Ok(Some((key, auth::caller(req)?.scope(), started(req)))),
            None => Ok(None),
        });
        ReadKeyed { body: ReadBody::start::<T>(req, payload), key: Some(key), of: PhantomData }
    }
}

/// A key, whose it is, and the fingerprint of what came before the body.
type Started = (String, String, Sha256);

/// The fingerprint of everything but the body.
fn started(req: &HttpRequest) -> Sha256 {
    // A method holds no NUL and a path none either, so the parts cannot run into each other.
    Sha256::new().chain_update(req.method().as_str()).chain_update([0]).chain_update(req.path()).chain_update([0])
}

fn key_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut given = headers.get_all(HEADER);
    let Some(value) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(Problem::invalid_field(NAME, "is given more than once"));
    }
    let bytes = value.as_bytes();
    match std::str::from_utf8(bytes) {
        Ok(text) if (1..=LEN_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic) => {
            Ok(Some(text.to_owned()))
        }
        _ => {
            let message = format!("must be 1 to {LEN_MAX} visible ASCII characters without spaces");
            Err(Problem::invalid_field(NAME, message))
        }
    }
}

/// Reads a body, parses it, and finishes the fingerprint if there is a key.
pub(crate) struct ReadKeyed<T> {
    body: ReadBody,
    key: Option<Result<Option<Started>, Problem>>,
    of: PhantomData<fn() -> T>,
}

impl<T: RequestBody> Future for ReadKeyed<T> {
    type Output = Result<Keyed<T>, Problem>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let bytes = ready!(this.body.poll_body(cx))?;
        let key = this.key.take().transpose()?.flatten().map(|(key, scope, so_far)| Key {
            scope,
            key,
            request: so_far.chain_update(&bytes).finalize().into(),
        });
        let body = parse(&bytes).map_err(|fault| Problem::invalid(vec![fault]))?;
        Poll::Ready(Ok(Keyed { body, key }))
    }
}
