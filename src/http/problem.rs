//! Errors as RFC 9457 problem documents: one shape, one table of types, one place where a [`Kind`] becomes a status.
//!
//! Handlers and extractors return a [`Problem`]; the middleware writes it out, because only there the request's path
//! and id are at hand for every error alike.

use std::fmt;

use actix_web::{
    HttpResponse, ResponseError,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    base::{
        error::{FieldError, Kind},
        store::StoreError,
    },
    http::request_id::RequestId,
    items::ItemError,
    jobs::error::JobsError,
    notifications::error::NotificationError,
    users::{Refusal, UserError},
};

/// After how many seconds a client should try again when a backend is away and nothing better is known.
const RETRY_AFTER_SECONDS: u64 = 1;
/// How callers say who they are.
const CHALLENGE: &str = "Bearer realm=\"app\"";
/// The same, for those who said it wrong (RFC 6750, section 3.1).
const CHALLENGE_AGAIN: &str = "Bearer realm=\"app\", error=\"invalid_token\"";

/// The closed list of problem types; a type's slug is part of the contract and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemType {
    /// The request is wrong; `errors` names the fields.
    InvalidRequest,
    /// It is not known who asks.
    Unauthorized,
    /// Who asks may not.
    Forbidden,
    /// Nothing is at this path, or nothing has this id.
    NotFound,
    /// Something is at this path, but not for this method.
    MethodNotAllowed,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The request contradicts the present state.
    Conflict,
    /// The body is over its limit.
    PayloadTooLarge,
    /// The body is not `application/json`.
    UnsupportedMediaType,
    /// Whoever asks does so too often.
    TooManyRequests,
    /// A backend is away or load is shed.
    Unavailable,
    /// A defect or an environment fault.
    Internal,
}

impl From<Kind> for ProblemType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Invalid => Self::InvalidRequest,
            Kind::Unauthorized => Self::Unauthorized,
            Kind::Forbidden => Self::Forbidden,
            Kind::TooMany => Self::TooManyRequests,
            Kind::NotFound => Self::NotFound,
            Kind::Conflict => Self::Conflict,
            Kind::TooLarge => Self::PayloadTooLarge,
            Kind::Unavailable => Self::Unavailable,
            Kind::Internal => Self::Internal,
        }
    }
}

impl ProblemType {
    /// Every type.
    pub const ALL: [Self; 12] = [
        Self::InvalidRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::Conflict,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::TooManyRequests,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict => StatusCode::CONFLICT,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The stable `type` URI.
    #[must_use]
    pub const fn uri(self) -> &'static str {
        match self {
            Self::InvalidRequest => "/problems/invalid_request",
            Self::Unauthorized => "/problems/unauthorized",
            Self::Forbidden => "/problems/forbidden",
            Self::NotFound => "/problems/not_found",
            Self::MethodNotAllowed => "/problems/method_not_allowed",
            Self::RequestTimeout => "/problems/request_timeout",
            Self::Conflict => "/problems/conflict",
            Self::PayloadTooLarge => "/problems/payload_too_large",
            Self::UnsupportedMediaType => "/problems/unsupported_media_type",
            Self::TooManyRequests => "/problems/too_many_requests",
            Self::Unavailable => "/problems/unavailable",
            Self::Internal => "/problems/internal",
        }
    }

    /// The short summary that is the same for every occurrence.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::InvalidRequest => "The request is invalid",
            Self::Unauthorized => "It is not known who asks",
            Self::Forbidden => "Not allowed",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "The method is not allowed here",
            Self::RequestTimeout => "The body did not arrive in time",
            Self::Conflict => "The request conflicts with the present state",
            Self::PayloadTooLarge => "The body is too large",
            Self::UnsupportedMediaType => "The media type is not supported",
            Self::TooManyRequests => "Too many requests",
            Self::Unavailable => "Temporarily unavailable",
            Self::Internal => "Internal error",
        }
    }
}

/// One error answer, before it knows which request it answers. Boxed, so that good answers do not carry its size.
#[derive(Debug)]
pub struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    kind: ProblemType,
    detail: String,
    errors: Vec<FieldError>,
    allow: Option<String>,
    /// After how many seconds a client should try again, where that is known.
    retry_after: Option<u64>,
    /// How the caller may say who it is.
    challenge: Option<&'static str>,
    /// What really happened, for the log; never shown to the client.
    cause: Option<String>,
    request_id: Option<RequestId>,
}

impl Problem {
    /// A problem with a sentence about this occurrence.
    pub fn new(kind: impl Into<ProblemType>, detail: impl Into<String>) -> Self {
        let (kind, detail) = (kind.into(), detail.into());
        let (allow, retry_after, challenge, cause, request_id) = (None, None, None, None, None);
        Self(Box::new(Parts { kind, detail, errors: Vec::new(), allow, retry_after, challenge, cause, request_id }))
    }

    /// 400 that names every field at fault.
    #[must_use]
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Self::new(ProblemType::InvalidRequest, detail).naming(errors)
    }

    /// 400 that names one field at fault.
    pub fn invalid_field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError::new(field, message)])
    }

    /// 404 for something that a path parameter names: the parameter is the field at fault.
    pub fn not_found(field: impl Into<String>, message: impl Into<String>) -> Self {
        let message = message.into();
        let errors = vec![FieldError::new(field, message.clone())];
        Self::new(ProblemType::NotFound, message).naming(errors)
    }

    /// 405 with the methods that are allowed, as the `Allow` header spells them.
    #[must_use]
    pub fn method_not_allowed(allow: String) -> Self {
        let mut problem = Self::new(ProblemType::MethodNotAllowed, format!("this path allows {allow}"));
        problem.0.allow = Some(allow);
        problem
    }

    /// 413 that names the limit.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        Self::new(ProblemType::PayloadTooLarge, format!("the body is larger than the {limit} bytes allowed here"))
    }

    /// A failure of `kind` whose cause is for the log only.
    pub fn hidden(kind: Kind, cause: impl Into<String>) -> Self {
        let kind = ProblemType::from(kind);
        let detail = match kind {
            ProblemType::Unavailable => "a backend is unavailable; try again",
            ProblemType::Internal => "something went wrong here; the request id finds it in the log",
            other => other.title(),
        };
        let mut problem = Self::new(kind, detail);
        problem.0.cause = Some(cause.into());
        problem
    }

    /// The same problem, naming these fields.
    #[must_use]
    pub fn naming(mut self, errors: Vec<FieldError>) -> Self {
        self.0.errors = errors;
        self
    }

    /// What sort of problem this is.
    #[must_use]
    pub const fn kind(&self) -> ProblemType {
        self.0.kind
    }

    /// What really happened, for the log.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// The same problem, naming its request even where the middleware cannot complete it.
    pub(crate) fn with_request_id(mut self, id: RequestId) -> Self {
        self.0.request_id = Some(id);
        self
    }

    /// Stands in for an error of the framework that no handler of ours made.
    pub(crate) fn from_framework(error: &actix_web::Error) -> Self {
        let status = error.as_response_error().status_code();
        let kind = match status {
            StatusCode::NOT_FOUND => ProblemType::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => ProblemType::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => ProblemType::PayloadTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => ProblemType::UnsupportedMediaType,
            s if s.is_client_error() => ProblemType::InvalidRequest,
            _ => return Self::hidden(Kind::Internal, error.to_string()),
        };
        Self::new(kind, error.to_string())
    }

    /// Writes the problem as the answer to a request.
    #[must_use]
    pub(crate) fn response(&self, instance: Option<&str>, request_id: Option<&RequestId>) -> HttpResponse {
        let body = ProblemBody {
            r#type: self.0.kind.uri(),
            title: self.0.kind.title(),
            status: self.0.kind.status().as_u16(),
            detail: &self.0.detail,
            instance,
            request_id: request_id.map(RequestId::as_str),
            errors: self.0.errors.iter().map(|e| FieldProblem { field: &e.field, message: &e.message }).collect(),
        };
        let mut response = HttpResponse::build(self.0.kind.status());
        response.insert_header((header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json")));
        if let Some(allow) = &self.0.allow {
            response.insert_header((header::ALLOW, allow.as_str()));
        }
        if self.0.kind == ProblemType::Unauthorized {
            let challenge = HeaderValue::from_static(self.0.challenge.unwrap_or(CHALLENGE));
            response.insert_header((header::WWW_AUTHENTICATE, challenge));
        }
        if self.0.kind == ProblemType::RequestTimeout {
            // The rest of the body may still come, and would be read as the next request.
            response.force_close();
        }
        if matches!(self.0.kind, ProblemType::Unavailable | ProblemType::TooManyRequests) {
            response.insert_header((
                header::RETRY_AFTER,
                HeaderValue::from(self.0.retry_after.unwrap_or(RETRY_AFTER_SECONDS)),
            ));
        }
        // Strings and numbers always serialise; an empty body still carries the status.
        response.body(serde_json::to_vec(&body).unwrap_or_default())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.0.kind.status()
    }

    fn error_response(&self) -> HttpResponse {
        match &self.0.request_id {
            Some(id) => {
                let mut response = self.response(None, Some(id));
                response.headers_mut().insert(RequestId::HEADER, id.header_value());
                response
            }
            // The middleware writes the body; writing it here as well would be done for nothing.
            None => HttpResponse::new(self.0.kind.status()),
        }
    }
}

impl From<ItemError> for Problem {
    fn from(error: ItemError) -> Self {
        match error {
            ItemError::Invalid(fields) => Self::invalid(fields),
            ItemError::NotFound(id) => Self::not_found("id", format!("there is no item {id}")),
            ItemError::Contended(_) => Self::new(error.kind(), error.to_string()),
            ItemError::Store(e) => e.into(),
        }
    }
}

impl From<JobsError> for Problem {
    fn from(error: JobsError) -> Self {
        let (kind, text) = (error.kind(), error.to_string());
        match error {
            JobsError::Invalid(fields) => Self::invalid(fields),
            JobsError::TooLarge { field, size, limit } => {
                let message = format!("is {size} bytes, but must be at most {limit} (jobs.max_payload)");
                Self::new(kind, text).naming(vec![FieldError::new(field, message)])
            }
            JobsError::NotFound(message) => Self::not_found("id", message),
            JobsError::Conflict(_) | JobsError::Forbidden(_) => Self::new(kind, text),
            JobsError::QueueFull { retry_after, .. } => {
                let mut problem = Self::new(kind, text);
                problem.0.retry_after = Some(retry_after.as_secs().max(1));
                problem
            }
            JobsError::Store(e) => e.into(),
            JobsError::Broker(e) => Self::hidden(e.kind(), e.to_string()),
        }
    }
}

impl From<UserError> for Problem {
    fn from(error: UserError) -> Self {
        let (kind, text) = (error.kind(), error.to_string());
        match error {
            UserError::Invalid(fields) => Self::invalid(fields),
            UserError::NotFound(message) => Self::not_found("id", message),
            UserError::EmailTaken => Self::new(kind, text.clone()).naming(vec![FieldError::new("email", text)]),
            UserError::Contended | UserError::Full { .. } | UserError::Forbidden(_) | UserError::Busy => {
                Self::new(kind, text)
            }
            UserError::Unauthorized(refusal) => {
                let mut problem = Self::new(kind, text);
                problem.0.challenge = Some(match refusal {
                    Refusal::Missing | Refusal::Credentials => CHALLENGE,
                    Refusal::Invalid | Refusal::Expired => CHALLENGE_AGAIN,
                });
                problem
            }
            UserError::TooMany { retry_after } => {
                let mut problem = Self::new(kind, text);
                problem.0.retry_after = Some(retry_after.as_secs().saturating_add(1));
                problem
            }
            UserError::Store(e) => e.into(),
            UserError::Internal(cause) => Self::hidden(kind, cause),
        }
    }
}

impl From<NotificationError> for Problem {
    fn from(error: NotificationError) -> Self {
        let (kind, text) = (error.kind(), error.to_string());
        match error {
            NotificationError::Invalid(fields) => Self::invalid(fields),
            NotificationError::NotFound(message) => Self::not_found("id", message),
            NotificationError::Conflict(_) => Self::new(kind, text),
            NotificationError::Jobs(e) => e.into(),
            NotificationError::Users(e) => e.into(),
            NotificationError::Store(e) => e.into(),
        }
    }
}

/// Refuses a parameter of a query that is longer than what it is compared with can be.
///
/// # Errors
/// 400, naming the parameter.
pub(crate) fn at_most(name: &'static str, value: Option<&str>, characters: usize) -> Result<(), Problem> {
    match value.map_or(0, |text| text.chars().count()) {
        n if n > characters => {
            Err(Problem::invalid_field(name, format!("has {n} characters, at most {characters} are allowed")))
        }
        _ => Ok(()),
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::hidden(error.kind(), error.to_string())
    }
}

/// An error answer (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'a> {
    /// What sort of problem it is: stable, made for programs.
    #[schema(example = "/problems/invalid_request")]
    r#type: &'a str,
    /// The same for every problem of this type.
    title: &'a str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong this time.
    detail: &'a str,
    /// The path that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    instance: Option<&'a str>,
    /// Finds the request in the log; the same as the header `X-Request-ID`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request_id: Option<&'a str>,
    /// The fields at fault; empty if the problem is not about fields.
    errors: Vec<FieldProblem<'a>>,
}

/// One field at fault.
#[derive(Serialize, ToSchema)]
#[schema(as = FieldProblem)]
pub(crate) struct FieldProblem<'a> {
    /// Path of the field in the body, or the name of the parameter; `body` for the body as a whole.
    field: &'a str,
    /// What is wrong with it and what would be right.
    message: &'a str,
}
