//! Extractors that name the field at fault: JSON bodies, query strings and path parameters.
//!
//! A good body is parsed once by the fastest way there is. Only a bad one is parsed again, by a slower reader that
//! keeps track of where it is, so that precise errors cost good requests nothing.

use std::{
    fmt,
    future::{Ready, ready},
    marker::PhantomData,
    pin::Pin,
    str::FromStr,
    sync::Arc,
    task::{Context, Poll, ready},
};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    error::PayloadError,
    http::header,
    web::{self, Bytes, BytesMut},
};
use futures_util::Stream;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{
    base::error::FieldError,
    http::{
        HttpState,
        bodies::{Bodies, UnderWay},
        limits::HttpLimits,
        problem::{Problem, ProblemType},
        query,
    },
};

/// A type that may be read from a request's body.
pub trait RequestBody: DeserializeOwned + 'static {
    /// Which of the limits binds a body of this type.
    #[must_use]
    fn limit(limits: &HttpLimits) -> usize {
        limits.max_body
    }
}

/// A JSON body, read and checked.
pub struct Json<T>(pub T);

impl<T: RequestBody> FromRequest for Json<T> {
    type Error = Problem;
    type Future = ReadJson<T>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> ReadJson<T> {
        ReadJson { body: ReadBody::start::<T>(req, payload), of: PhantomData }
    }
}

fn media_type_fault(req: &HttpRequest) -> Option<Problem> {
    let given = match req.headers().get(header::CONTENT_TYPE) {
        None => return Some(unsupported("the request has no Content-Type; send application/json")),
        Some(value) => value.to_str().unwrap_or_default(),
    };
    if let Some(coding) = req.headers().get(header::CONTENT_ENCODING).filter(|c| *c != "identity") {
        let coding = coding.to_str().unwrap_or("unreadable");
        return Some(unsupported(format!("the Content-Encoding is `{coding}`; send the body as it is")));
    }
    let essence = given.split(';').next().unwrap_or_default().trim();
    (!essence.eq_ignore_ascii_case("application/json"))
        .then(|| unsupported(format!("the Content-Type is `{essence}`; send application/json")))
}

fn unsupported(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemType::UnsupportedMediaType, detail)
}

/// Reads a body, then parses it.
pub struct ReadJson<T> {
    body: ReadBody,
    of: PhantomData<fn() -> T>,
}

impl<T: RequestBody> Future for ReadJson<T> {
    type Output = Result<Json<T>, Problem>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let body = ready!(self.get_mut().body.poll_body(cx));
        Poll::Ready(body.and_then(|bytes| parse(&bytes).map(Json).map_err(|fault| Problem::invalid(vec![fault]))))
    }
}

/// Reads the bytes of a JSON body up to its limit.
pub(crate) struct ReadBody {
    payload: Payload,
    /// The first chunk: nearly always the whole body, and then never copied.
    body: Bytes,
    /// First and later chunks together, if there are later ones.
    more: BytesMut,
    limit: usize,
    refused: Option<Problem>,
    bodies: Option<Arc<Bodies>>,
    /// Since the reader had to wait for the rest.
    under_way: Option<UnderWay>,
}

impl ReadBody {
    /// Begins to read the body of `req`, or refuses it for what its headers say.
    pub(crate) fn start<T: RequestBody>(req: &HttpRequest, payload: &mut Payload) -> Self {
        // `HttpState` is always there: `http::app` puts it in. Without it nothing may be read at all.
        let state = req.app_data::<web::Data<HttpState>>();
        let limit = state.map_or(0, |state| T::limit(&state.limits));
        let refused = media_type_fault(req).or_else(|| {
            let length = req.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok()?;
            (length > limit as u64).then(|| Problem::too_large(limit))
        });
        let bodies = state.map(|state| Arc::clone(&state.bodies));
        let (body, more) = (Bytes::new(), BytesMut::new());
        Self { payload: payload.take(), body, more, limit, refused, bodies, under_way: None }
    }

    /// Gives the whole body once it is there.
    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Problem>> {
        if let Some(problem) = self.refused.take() {
            return Poll::Ready(Err(problem));
        }
        loop {
            let Poll::Ready(next) = Pin::new(&mut self.payload).poll_next(cx) else {
                return match self.wait(cx) {
                    Ok(()) => Poll::Pending,
                    Err(problem) => Poll::Ready(Err(problem)),
                };
            };
            match next {
                None if self.more.is_empty() => return Poll::Ready(Ok(std::mem::take(&mut self.body))),
                None => return Poll::Ready(Ok(std::mem::take(&mut self.more).freeze())),
                Some(Err(e)) => return Poll::Ready(Err(unreadable(&e, self.limit))),
                Some(Ok(chunk)) => {
                    if self.body.len().max(self.more.len()).saturating_add(chunk.len()) > self.limit {
                        return Poll::Ready(Err(Problem::too_large(self.limit)));
                    }
                    if let Some(Err(problem)) = self.under_way.as_mut().map(|body| body.grow(chunk.len())) {
                        return Poll::Ready(Err(problem));
                    }
                    if self.body.is_empty() && self.more.is_empty() {
                        self.body = chunk;
                        continue;
                    }
                    if self.more.is_empty() {
                        self.more.extend_from_slice(&self.body);
                    }
                    self.more.extend_from_slice(&chunk);
                }
            }
        }
    }
}

impl ReadBody {
    /// Waits for more of the body, within the bounds of bodies under way.
    fn wait(&mut self, cx: &mut Context<'_>) -> Result<(), Problem> {
        if self.under_way.is_none()
            && let Some(bodies) = &self.bodies
        {
            self.under_way = Some(UnderWay::start(bodies, self.body.len().max(self.more.len()))?);
        }
        self.under_way.as_mut().map_or(Ok(()), |body| body.poll_alarm(cx))
    }
}

fn unreadable(error: &PayloadError, limit: usize) -> Problem {
    match error {
        PayloadError::Overflow => Problem::too_large(limit),
        other => Problem::invalid_field("body", format!("could not be read: {other}")),
    }
}

/// Parses JSON; the error names the field at fault.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, FieldError> {
    serde_json::from_slice(body).map(|Object(value)| value).map_err(|first| {
        if body.is_empty() {
            return FieldError::new("body", "is empty; send a JSON object");
        }
        let mut reader = serde_json::Deserializer::from_slice(body);
        match serde_path_to_error::deserialize::<_, Object<T>>(&mut reader) {
            Err(e) => fault(&e.path().to_string(), e.inner()),
            // Only the end can be wrong then: something follows the value.
            Ok(_) => fault(".", &first),
        }
    })
}

/// A `T` that is written as a JSON object. Left alone, serde would also take an array of the fields' values.
#[derive(Debug)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct OfMap<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        d.deserialize_map(OfMap(PhantomData))
    }
}

/// Tells a field that is null from one that is absent: the former reads as `T`, the latter as the default `None`.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

fn fault(path: &str, error: &serde_json::Error) -> FieldError {
    let text = error.to_string();
    if error.is_data() {
        // Line and column say nothing to a client that has the field's path.
        let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
        data_fault(path, message)
    } else {
        data_fault(path, &format!("is not valid JSON: {text}"))
    }
}

/// Turns the path and message of a serde error into a field and what is wrong with it.
pub(crate) fn data_fault(path: &str, message: &str) -> FieldError {
    // `.` stands for the whole, `?` for a place the reader lost.
    let parent = path.trim_end_matches('?').trim_end_matches('.');
    let named = [("unknown field `", true), ("missing field `", false), ("duplicate field `", false)]
        .iter()
        .find_map(|(start, keep)| Some((message.strip_prefix(start)?.split_once('`')?.0, *start, *keep)));
    let field = match named {
        // An unknown key is already the path's last part, a missing or repeated one may not be.
        Some((name, ..)) if parent == name || parent.ends_with(&format!(".{name}")) => parent.to_owned(),
        Some((name, ..)) if parent.is_empty() => name.to_owned(),
        Some((name, ..)) => format!("{parent}.{name}"),
        None if parent.is_empty() => "body".to_owned(),
        None => parent.to_owned(),
    };
    match named {
        Some((_, start, true)) => FieldError::new(field, message.replacen(start, "is not a known field: `", 1)),
        Some((_, "missing field `", _)) => FieldError::new(field, "is required"),
        Some(_) => FieldError::new(field, "is given more than once"),
        None => FieldError::new(field, message),
    }
}

/// The query string, read and checked; an unknown parameter is an error.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequest for Query<T> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(query::parse(req.query_string()).map(Query).map_err(|fault| Problem::invalid(vec![fault])))
    }
}

/// The first parameter of the path. One that cannot be the name of anything answers 404, as one that names nothing.
pub struct PathParam<T>(pub T);

impl<T: FromStr<Err = String>> FromRequest for PathParam<T> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let (name, value) = req.match_info().iter().next().unwrap_or(("path", ""));
        ready(value.parse().map(PathParam).map_err(|message| Problem::not_found(name, message)))
    }
}

/// The first two parameters of the path, as [`PathParam`].
pub(crate) struct PathPair<A, B>(pub A, pub B);

impl<A: FromStr<Err = String>, B: FromStr<Err = String>> FromRequest for PathPair<A, B> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let mut all = req.match_info().iter();
        let mut next = || all.next().unwrap_or(("path", ""));
        let ((first_name, first), (second_name, second)) = (next(), next());
        let first = first.parse().map_err(|message| Problem::not_found(first_name, message));
        let second = || second.parse().map_err(|message| Problem::not_found(second_name, message));
        ready(first.and_then(|first| Ok(Self(first, second()?))))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::{Map, Value};

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only the errors matter here")]
    struct Outer {
        name: String,
        #[serde(default)]
        inner: Vec<Object<Inner>>,
        #[serde(default)]
        metadata: Map<String, Value>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only the errors matter here")]
    struct Inner {
        n: u32,
    }

    fn fault_of(body: impl AsRef<[u8]>) -> FieldError {
        parse::<Outer>(body.as_ref()).unwrap_err()
    }

    #[test]
    fn the_field_at_fault_is_named_and_the_message_says_why() {
        for (body, field, says) in [
            (r#"{"name":5}"#, "name", "expected a string"),
            (r#"{"name":null}"#, "name", "expected a string"),
            (r#"{}"#, "name", "is required"),
            (r#"{"name":"x","colour":1}"#, "colour", "`colour`, expected one of `name`, `inner`, `metadata`"),
            (r#"{"name":"x","name":"y"}"#, "name", "more than once"),
            (r#"{"name":"x","inner":[{"n":1},{"n":-1}]}"#, "inner[1].n", "expected u32"),
            (r#"{"name":"x","inner":[{"n":1,"m":2}]}"#, "inner[0].m", "not a known field"),
            (r#"{"name":"x","inner":[{}]}"#, "inner[0].n", "is required"),
            (r#"{"name":"x","inner":[[1]]}"#, "inner[0]", "expected a JSON object"),
            (r#"{"name":"x","inner":[{"n":1,"n":1}]}"#, "inner[0].n", "more than once"),
            (r#"{"name":"x","metadata":[]}"#, "metadata", "expected a map"),
            ("[]", "body", "expected a JSON object"),
            (r#"["x"]"#, "body", "expected a JSON object"),
            ("\"text\"", "body", "expected a JSON object"),
            ("", "body", "is empty"),
            ("   ", "body", "not valid JSON"),
            (r#"{"name":"x"} trailing"#, "body", "trailing characters"),
            (r#"{"name":"x""#, "body", "not valid JSON"),
            (r#"{"name":"\ud800"}"#, "name", "not valid JSON"),
            (r#"{"name":"x","metadata":{"a":1e999}}"#, "metadata.a", "number out of range"),
        ] {
            let fault = fault_of(body);
            assert!(fault.message.contains(says), "{body}: {fault:?}");
            assert_eq!(fault.field, field, "{body}: {fault:?}");
        }
    }

    #[test]
    fn hostile_bytes_are_errors_not_panics() {
        assert!(fault_of(b"{\"name\":\"a\0b\"}").message.contains("control character"));
        assert!(fault_of(b"{\"name\":\"\xff\xfe\"}").message.contains("invalid unicode"));
        assert!(fault_of(b"\0").message.contains("not valid JSON"));
        let deep = format!(r#"{{"name":"x","metadata":{{"a":{}}}}}"#, "[".repeat(100_000));
        assert!(fault_of(deep).message.contains("recursion limit"));
    }
}
