//! Time: one source for the whole process, cut to UTC milliseconds.
//!
//! The system clock may be set back by an operator or by NTP. Leases, delays and ids must not notice, so [`Clock`]
//! advances with the monotonic clock and follows the wall clock forwards only.
//!
//! Hosts disagree about the time, and a lease that one of them wrote is judged by another. So a process of a fleet makes
//! its clock [follow](Clock::follow) one that all of them can read; its own wall clock then only tells it that it was
//! suspended. Only a measured correction ever moves [`Clock::now`] backwards.

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
        followed: Mutex<Option<Followed>>,
    },
    Manual(AtomicI64),
}

/// What is known of the clock that is followed. Both in milliseconds.
#[derive(Clone, Copy)]
struct Followed {
    /// That clock minus the monotonic one.
    offset: i64,
    /// The wall clock minus the monotonic one at that moment.
    wall: i64,
}

impl Followed {
    /// How far the wall clock has leapt ahead of the monotonic one since: the process was suspended, or the clock was set.
    fn leap(self, by_wall: i64) -> i64 {
        let ahead = by_wall.saturating_sub(self.wall);
        if ahead >= LEAP { ahead } else { 0 }
    }
}

/// Wall and monotonic clock drift apart by less than this between two measurements, in milliseconds.
const LEAP: i64 = 1000;
/// Corrections up to this much more than the doubt of a measurement are noise, in milliseconds.
const NOISE: i64 = 50;

impl Clock {
    /// The real clock.
    #[must_use]
    pub fn system() -> Self {
        let offset = AtomicI64::new(wall_millis());
        Self::from_source(Source::System { started: Instant::now(), offset, followed: Mutex::default() })
    }

    /// A clock for tests that stands at `start` until it is moved.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self::from_source(Source::Manual(AtomicI64::new(start.0)))
    }

    fn from_source(source: Source) -> Self {
        Self(Arc::new(Inner { source, ids: Mutex::new(ContextV7::new()) }))
    }

    /// The present time. Never less than an earlier answer, unless a correction lies between them.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0.source {
            Source::Manual(ms) => Timestamp(ms.load(Ordering::Relaxed)),
            Source::System { started, offset, followed } => {
                let (elapsed, by_wall) = elapsed(*started);
                if let Some(f) = *followed.lock().unwrap_or_else(PoisonError::into_inner) {
                    return Timestamp(f.offset.saturating_add(f.leap(by_wall)).saturating_add(elapsed));
                }
                Timestamp(offset.fetch_max(by_wall, Ordering::Relaxed).max(by_wall).saturating_add(elapsed))
            }
        }
    }

    /// Goes by another clock from now on, which read `reference` at some moment of the last `doubt`. Answers by how many
    /// milliseconds that corrects this one; a manual clock is not corrected.
    pub fn follow(&self, reference: Timestamp, doubt: Duration) -> i64 {
        let Source::System { started, followed, .. } = &self.0.source else { return 0 };
        let before = self.now();
        let half = i64::try_from(doubt.as_millis() / 2).unwrap_or(i64::MAX);
        let now = reference.0.saturating_add(half);
        let (elapsed, wall) = elapsed(*started);
        let mut followed = followed.lock().unwrap_or_else(PoisonError::into_inner);
        let correction = now.saturating_sub(before.0);
        let noise = correction.saturating_abs() <= half.saturating_add(NOISE);
        let offset = match *followed {
            Some(f) if noise => f.offset.saturating_add(f.leap(wall)),
            _ => now.saturating_sub(elapsed),
        };
        *followed = Some(Followed { offset, wall });
        correction
    }

    /// Whether [`Clock::now`] is a guess since the process was suspended or the wall clock was set: a clock that is
    /// followed should be asked again.
    #[must_use]
    pub fn leapt(&self) -> bool {
        let Source::System { started, followed, .. } = &self.0.source else { return false };
        let (_, wall) = elapsed(*started);
        followed.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|f| f.leap(wall) > 0)
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

/// Milliseconds by the monotonic clock, and how far the wall clock is ahead of it.
fn elapsed(started: Instant) -> (i64, i64) {
    let elapsed = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
    (elapsed, wall_millis().saturating_sub(elapsed))
}

#[allow(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
fn wall_millis() -> i64 {
    // A clock before 1970 reads as 1970: the process must still start, and leases only need differences.
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    wall.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)).saturating_add(skew())
}

/// `APP_TEST_CLOCK_OFFSET_MS`: by how much this host's clock is wrong (test builds only).
#[cfg(feature = "testing")]
fn skew() -> i64 {
    static SKEW: std::sync::LazyLock<i64> = std::sync::LazyLock::new(|| {
        std::env::var("APP_TEST_CLOCK_OFFSET_MS").ok().and_then(|ms| ms.parse().ok()).unwrap_or(0)
    });
    *SKEW
}

#[cfg(not(feature = "testing"))]
const fn skew() -> i64 {
    0
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
    #[test]
    fn a_clock_that_follows_goes_by_the_other_one() {
        let clock = Clock::system();
        let wrong_by = 30_000;
        for ahead in [wrong_by, -wrong_by] {
            let other = Timestamp(clock.now().0 + ahead);
            let correction = clock.follow(other, Duration::ZERO);
            assert!((correction - ahead).abs() < 1000, "{correction}");
            assert!((clock.now().0 - other.0).abs() < 1000);
        }
    }

    #[test]
    fn corrections_within_the_doubt_do_not_move_a_clock() {
        let clock = Clock::system();
        clock.follow(clock.now(), Duration::ZERO);
        let before = clock.now();
        clock.follow(Timestamp(before.0 - 1000), Duration::from_secs(4));
        assert!(clock.now() >= before);
    }

    #[test]
    fn a_leap_of_the_wall_clock_moves_a_following_clock_until_it_is_corrected() {
        let clock = Clock::system();
        clock.follow(clock.now(), Duration::ZERO);
        let before = clock.now();
        // What a suspension looks like: the wall went on, the monotonic clock did not.
        let Source::System { followed, .. } = &clock.0.source else { unreachable!() };
        if let Some(f) = followed.lock().unwrap().as_mut() {
            f.wall -= 60_000;
        }
        assert!(clock.leapt() && clock.now() >= before.plus(Duration::from_secs(60)));
        clock.follow(before, Duration::ZERO);
        assert!(!clock.leapt() && clock.now() < before.plus(Duration::from_secs(30)));
    }
}
