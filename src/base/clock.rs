//! Time: one source for the whole process, cut to UTC milliseconds, that never runs backwards.
//!
//! The system clock may be set back by an operator or by NTP. Leases, delays and ids must not notice, so [`Clock`]
//! advances with the monotonic clock and follows the wall clock forwards only.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::{ContextV7, Uuid};

/// A point in time: milliseconds since 1970-01-01T00:00:00Z. Written as RFC 3339 wherever people or programs read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The latest time accepted from outside: the end of the year 9998, so that adding a delay never overflows RFC 3339.
    pub const MAX: Self = Self(253_370_764_799_999);

    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This time plus `d`, at most [`Timestamp::MAX`].
    #[must_use]
    pub fn plus(self, d: Duration) -> Self {
        let ms = i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(ms).min(Self::MAX.0))
    }

    /// This time minus `d`.
    #[must_use]
    pub fn minus(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Reads RFC 3339 (`2026-11-21T08:00:00Z`, any offset).
    ///
    /// # Errors
    /// A sentence, if `text` is not RFC 3339 or lies outside 1970 to 9998.
    pub fn parse(text: &str) -> Result<Self, String> {
        let t: jiff::Timestamp =
            text.parse().map_err(|e| format!("`{text}` is not an RFC 3339 time such as 2026-11-21T08:00:00Z ({e})"))?;
        let ms = t.as_millisecond();
        if !(0..=Self::MAX.0).contains(&ms) {
            return Err(format!("`{text}` is outside the years 1970 to 9998"));
        }
        Ok(Self(ms))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => write!(f, "{t:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The process's source of time and of time-ordered ids. Cheap to clone; clones agree.
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

struct Inner {
    source: Source,
    ids: Mutex<ContextV7>,
}

enum Source {
    /// `offset` is wall clock minus monotonic clock in milliseconds; it only grows.
    System {
        started: Instant,
        offset: AtomicI64,
    },
    Manual(AtomicI64),
}

impl Clock {
    /// The real clock.
    #[must_use]
    pub fn system() -> Self {
        Self::from_source(Source::System { started: Instant::now(), offset: AtomicI64::new(wall_millis()) })
    }

    /// A clock for tests that stands at `start` until it is moved.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self::from_source(Source::Manual(AtomicI64::new(start.0)))
    }

    fn from_source(source: Source) -> Self {
        Self(Arc::new(Inner { source, ids: Mutex::new(ContextV7::new()) }))
    }

    /// The present time. Never less than an earlier answer.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0.source {
            Source::Manual(ms) => Timestamp(ms.load(Ordering::Relaxed)),
            Source::System { started, offset } => {
                let elapsed = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
                let by_wall = wall_millis().saturating_sub(elapsed);
                Timestamp(offset.fetch_max(by_wall, Ordering::Relaxed).max(by_wall).saturating_add(elapsed))
            }
        }
    }

    /// Moves a manual clock forwards; a system clock is not moved.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(ms) = &self.0.source {
            ms.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
        }
    }

    /// A new `UUIDv7` (RFC 9562): its order is the order in which this process made it.
    #[must_use]
    pub fn new_uuid(&self) -> Uuid {
        let ms = u64::try_from(self.now().0).unwrap_or(0);
        let nanos = u32::try_from(ms % 1000).unwrap_or(0) * 1_000_000;
        let ids = self.0.ids.lock().unwrap_or_else(PoisonError::into_inner);
        Uuid::new_v7(uuid::Timestamp::from_unix(&*ids, ms / 1000, nanos))
    }
}

#[allow(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
fn wall_millis() -> i64 {
    // A clock before 1970 reads as 1970: the process must still start, and leases only need differences.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_to_the_millisecond() {
        let t = Timestamp::parse("2026-11-21T09:00:00.123+01:00").unwrap();
        assert_eq!(t.to_string(), "2026-11-21T08:00:00.123Z");
        assert_eq!(serde_json::to_string(&t).unwrap(), "\"2026-11-21T08:00:00.123Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>("\"2026-11-21T08:00:00.123Z\"").unwrap(), t);
    }

    #[test]
    fn years_that_would_overflow_are_refused() {
        assert!(Timestamp::parse("9999-12-31T23:59:59Z").is_err());
        assert!(Timestamp::parse("1969-12-31T23:59:59Z").is_err());
        assert_eq!(Timestamp::MAX.plus(Duration::MAX), Timestamp::MAX);
        assert!(Timestamp::parse(&Timestamp::MAX.to_string()).is_ok());
    }

    #[test]
    fn ids_are_ordered_as_made_even_within_a_millisecond() {
        let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
        let ids: Vec<_> = (0..1000).map(|_| clock.new_uuid()).collect();
        assert!(ids.windows(2).all(|w| w[0] < w[1]));
    }

    #[test]
    fn a_system_clock_set_back_does_not_move_now_back() {
        let clock = Clock::system();
        let before = clock.now();
        // What a step back of the wall clock looks like: the remembered offset lies ahead of what the wall says.
        if let Source::System { offset, .. } = &clock.0.source {
            offset.fetch_add(3_600_000, Ordering::Relaxed);
        }
        let ahead = clock.now();
        assert!(ahead >= before.plus(Duration::from_secs(3600)));
        assert!(clock.now() >= ahead);
    }
}
