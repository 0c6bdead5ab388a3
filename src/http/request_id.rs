//! The request id: taken from the client or made, returned, logged, and carried into the jobs a request starts.
//!
//! It is held as a header value, so that returning it copies a reference and not the text.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

const LEN_MAX: usize = 128;

/// Names one request across logs, answers and jobs: 1 to 128 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The header that is always in the answer.
    pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
    /// The other header in which clients may send it.
    pub const OTHER_HEADER: HeaderName = HeaderName::from_static("x-correlation-id");

    /// The id the client sent, if it sent an acceptable one; otherwise a new one.
    #[must_use]
    pub fn accept_or_make(headers: &HeaderMap) -> Self {
        [Self::HEADER, Self::OTHER_HEADER]
            .iter()
            .filter_map(|name| headers.get(name))
            .find(|value| acceptable(value.as_bytes()))
            .map_or_else(Self::make, |value| Self(value.clone()))
    }

    fn make() -> Self {
        let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
        let mut text = uuid::Uuid::encode_buffer();
        let text = id.hyphenated().encode_lower(&mut text);
        // A UUID is always a legal header value; the alternative is never taken.
        Self(HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("unknown")))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// As the value of a header.
    #[must_use]
    pub fn header_value(&self) -> HeaderValue {
        self.0.clone()
    }
}

fn acceptable(bytes: &[u8]) -> bool {
    (1..=LEN_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        RequestId::accept_or_make(&headers).as_str().to_owned()
    }

    #[test]
    fn an_acceptable_id_is_kept_and_any_other_is_replaced() {
        assert_eq!(of(&[("x-request-id", "abc-1")]), "abc-1");
        assert_eq!(of(&[("x-correlation-id", "xyz")]), "xyz");
        assert_eq!(of(&[("x-request-id", "a"), ("x-correlation-id", "b")]), "a");
        assert_eq!(of(&[("x-request-id", ""), ("x-correlation-id", "b")]), "b");
        let long = "x".repeat(129);
        for bad in ["", "has space", "ü", "tab\there", long.as_str()] {
            let made = of(&[("x-request-id", bad)]);
            assert!(uuid::Uuid::try_parse(&made).is_ok(), "{bad:?} gave {made:?}");
        }
        assert_ne!(of(&[]), of(&[]));
    }
}
