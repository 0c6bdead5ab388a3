//! The section about time: whose rules of time zones hold.

use serde::Serialize;

/// Time.
#[derive(Clone, Debug, Serialize)]
pub struct Time {
    /// Where the rules of time zones come from.
    pub zones: ZoneSource,
}

/// Whose time zones are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ZoneSource {
    /// Those that are compiled in.
    Bundled,
    /// The host's files.
    Host,
}
