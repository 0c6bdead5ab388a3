//! Text that must not be seen: it has no `Display`, no `Serialize`, and `Debug` shows a mask.

use std::fmt;

use sha2::{Digest, Sha256};

/// A password, key or token in memory.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. Every use of this is a place where a secret may leak.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `other` is the same text, in a time that does not tell how much of it is right: both are hashed first.
    #[must_use]
    pub fn matches(&self, other: &str) -> bool {
        Sha256::digest(&self.0) == Sha256::digest(other)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "***" })
    }
}

/// A URL whose path or query may be somebody's secret: its `Debug` shows no more than where it leads.
pub struct Origin<'a>(pub &'a str);

impl fmt::Debug for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", self.0));
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = host.rsplit_once('@').map_or(host, |(_login, host)| host);
        write!(f, "{scheme}://{host}/***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_shows_only_where_it_leads() {
        for url in ["https://h.org:8/hush?k=hush#hush", "https://hush:hush@h.org:8?hush", "https://h.org:8"] {
            assert_eq!(format!("{:?}", Origin(url)), "https://h.org:8/***");
        }
    }

    #[test]
    fn a_secret_is_not_shown_and_is_compared_whole() {
        let s = Secret::new("hunter2");
        assert_eq!(format!("{s:?}"), "***");
        assert!(s.matches("hunter2") && !s.matches("hunter") && !s.matches(""));
    }
}
