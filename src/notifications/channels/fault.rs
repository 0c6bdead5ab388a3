//! Makes the errors of every channel, so that their sentences have one shape: one line, of bounded length, without secrets.

use std::time::Duration;

use jiff::{Timestamp as Instant, fmt::rfc2822};
use url::Url;

use super::{Fault, SendError};
use crate::base::clock::Timestamp;

/// Longest sentence: what a provider answers is kept in a job's history, and it may answer anything.
const LONGEST: usize = 300;
/// How long to wait when a provider asks for patience and does not say how much.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// No provider is believed to mean a longer wait.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

impl SendError {
    pub(super) fn new(fault: Fault, code: impl Into<String>, message: impl AsRef<str>) -> Self {
        Self { fault, code: code.into(), message: one_line(message.as_ref()), retry_after: None, refusal: None }
    }

    pub(super) fn after(self, wait: Option<Duration>) -> Self {
        Self { retry_after: wait, ..self }
    }

    /// Hides where it was sent: whoever knows the path can send there, too, and a provider may repeat it.
    pub(super) fn without_url(self, url: &Url) -> Self {
        let (path, query) = (url.path(), url.query().unwrap_or_default());
        self.without(&[url.as_str(), &format!("{path}?{query}"), path, query])
    }

    /// Hides what a provider may have repeated to us.
    pub(super) fn without(mut self, secrets: &[&str]) -> Self {
        for secret in secrets.iter().filter(|s| s.len() >= 4) {
            self.message = self.message.replace(secret, "***");
            if let Some(refusal) = &mut self.refusal {
                refusal.sentence = refusal.sentence.replace(secret, "***");
                refusal.advice = refusal.advice.replace(secret, "***");
            }
        }
        self
    }
}

/// One line of bounded length.
pub(super) fn one_line(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let plain = plain.trim();
    match plain.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", plain.get(..end).unwrap_or_default()),
        None => plain.to_owned(),
    }
}

/// What stands before a breaker's name and the name, within its limit.
pub(super) fn provider(kind: &str, name: &str) -> String {
    format!("{kind}:{name}").chars().take(200).collect()
}

/// Reads a `Retry-After`: seconds, or a date seen from `now`.
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at: Instant = rfc2822::parse(value).ok()?.timestamp();
    Some(Timestamp::from_millis(at.as_millisecond()).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_in_both_ways() {
        let now = Timestamp::parse("2026-11-21T08:00:00Z").unwrap();
        for (text, wait) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sat, 21 Nov 2026 08:02:00 GMT", Some(120)),
            ("Sat, 21 Nov 2026 07:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(retry_after(text, now), wait.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn a_sentence_is_one_short_line_without_secrets() {
        let e = SendError::new(Fault::Message, "x", format!("a\r\nhunter2 {}", "é".repeat(1000))).without(&["hunter2"]);
        assert!(e.message.starts_with("a  *** é") && e.message.chars().count() <= LONGEST + 1, "{e}");
    }
}
