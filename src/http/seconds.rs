//! Spans of time as clients write them: a number of seconds, with or without a fraction.

use std::{fmt, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

/// Far more than any limit in the configuration, and far less than what overflows.
const MAX: f64 = 1e9;

/// A span of time that was given in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) Duration);

impl Seconds {
    /// Checks a number of seconds.
    pub(crate) fn new(seconds: f64) -> Result<Self, String> {
        // The conversion refuses what is negative or not a number.
        let span = Some(seconds).filter(|s| *s <= MAX).and_then(|s| Duration::try_from_secs_f64(s).ok());
        span.map(Self).ok_or_else(|| format!("is {seconds}, but must be a number of seconds from 0 to {MAX:.0}"))
    }

    /// The same in milliseconds.
    pub(crate) fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Seconds;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of seconds")
            }
            fn visit_f64<E: Error>(self, n: f64) -> Result<Seconds, E> {
                Seconds::new(n).map_err(E::custom)
            }
            #[allow(clippy::cast_precision_loss, reason = "what loses precision is far over the limit")]
            fn visit_u64<E: Error>(self, n: u64) -> Result<Seconds, E> {
                self.visit_f64(n as f64)
            }
            #[allow(clippy::cast_precision_loss, reason = "what loses precision is far below 0")]
            fn visit_i64<E: Error>(self, n: i64) -> Result<Seconds, E> {
                self.visit_f64(n as f64)
            }
        }
        d.deserialize_f64(V)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_is_a_span_or_an_error_and_never_a_panic() {
        let of = |text: &str| serde_json::from_str::<Seconds>(text).map(|s| s.0).map_err(|e| e.to_string());
        assert_eq!(of("0"), Ok(Duration::ZERO));
        assert_eq!(of("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(of("1e9"), Ok(Duration::from_secs(1_000_000_000)));
        for bad in ["-1", "-0.001", "1e10", "1e300", "18446744073709551615", "-9223372036854775808", "\"5\"", "null"] {
            assert!(of(bad).unwrap_err().contains("seconds"), "{bad}");
        }
        assert!(Seconds::new(f64::NAN).is_err() && Seconds::new(f64::INFINITY).is_err());
    }
}
