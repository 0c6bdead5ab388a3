//! What Firebase's answer means, by its error code and not by its status alone.
//!
//! | error code | means |
//! |---|---|
//! | `UNREGISTERED`, or status `NOT_FOUND` in Firebase's own form | the device is gone: never again |
//! | `SENDER_ID_MISMATCH`, `INVALID_ARGUMENT` about the token | the token is not ours, or none: never again |
//! | other `INVALID_ARGUMENT` | this message is refused, for good |
//! | `THIRD_PARTY_AUTH_ERROR`, other 401 and 403 | we are not let in |
//! | `QUOTA_EXCEEDED`, 429 | later: after `Retry-After`, or a minute |
//! | `UNAVAILABLE`, `INTERNAL`, other 5xx | Firebase is away |
//!
//! A 404 that is not in Firebase's form comes from a wrong URL, and must not cost every device its token.

use serde_json::Value;

use super::super::{Fault, Receipt, SendError, exchange::Answer, fault::PATIENCE};
use crate::base::clock::Timestamp;

/// Whether a fresh access token may help.
pub(super) fn is_stale_token(answer: &Answer) -> bool {
    answer.status.as_u16() == 401 && Explained::of(&answer.body).code != "THIRD_PARTY_AUTH_ERROR"
}

/// What Firebase says of an error.
#[derive(Default)]
struct Explained {
    /// Firebase's own code.
    code: String,
    /// Google's general one.
    status: String,
    message: String,
    about_token: bool,
}

impl Explained {
    fn of(body: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let Some(error) = value.get("error").filter(|e| e.is_object()) else {
            return Self::default();
        };
        let details: Vec<&Value> = error.get("details").and_then(Value::as_array).into_iter().flatten().collect();
        let message = text(error, "message");
        let violated = |d: &Value| {
            let all = d.get("fieldViolations").and_then(Value::as_array).into_iter().flatten();
            all.into_iter().any(|v| matches!(text(v, "field").as_str(), "token" | "message.token"))
        };
        Self {
            code: details.iter().map(|d| text(d, "errorCode")).find(|c| !c.is_empty()).unwrap_or_default(),
            status: text(error, "status"),
            about_token: details.iter().any(|d| violated(d)) || message.contains("registration token"),
            message,
        }
    }
}

/// Judges an answer.
pub(super) fn of(answer: &Answer, now: Timestamp) -> Result<Receipt, SendError> {
    if answer.status.is_success() {
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let provider_id = said.get("name").and_then(Value::as_str).map(str::to_owned);
        return Ok(Receipt { provider_id, answer: format!("HTTP {}", answer.status.as_u16()) });
    }
    let why = Explained::of(&answer.body);
    let gone = Fault::Recipient { suppress: true };
    let wait = answer.retry_after(now);
    let (fault, wait) = match (why.code.as_str(), answer.status.as_u16()) {
        ("UNREGISTERED" | "SENDER_ID_MISMATCH", _) => (gone, None),
        ("THIRD_PARTY_AUTH_ERROR", _) => (Fault::Configuration, None),
        ("QUOTA_EXCEEDED", _) | (_, 429) => (Fault::Later, Some(wait.unwrap_or(PATIENCE))),
        ("UNAVAILABLE" | "INTERNAL", _) | (_, 408 | 500..) => (Fault::Provider, wait),
        ("INVALID_ARGUMENT", _) | (_, 400) => (if why.about_token { gone } else { Fault::Message }, None),
        (_, 404) if why.status == "NOT_FOUND" => (gone, None),
        (_, 401 | 403 | 404) => (Fault::Configuration, None),
        // What nobody foresaw (redirects among it) lies between us and Firebase and not in the message.
        _ => (Fault::Provider, wait),
    };
    let code = match (why.code.as_str(), fault) {
        ("", Fault::Recipient { .. }) if answer.status.as_u16() == 404 => "fcm_unregistered".to_owned(),
        ("", _) => answer.code(),
        (code, _) => format!("fcm_{}", code.to_ascii_lowercase()),
    };
    let sentence = match why.message.as_str() {
        "" => answer.sentence(),
        text => format!("HTTP {}: {text}", answer.status.as_u16()),
    };
    Err(SendError::new(fault, code, sentence).after(wait))
}
