//! Quiet hours: when a user wants to be left alone.
//!
//! They are clock times where the user lives, and clocks are changed twice a year: a time may come twice or not at all. What
//! is promised is silence, so a period begins at the first moment that its start may mean and ends at the last that its end
//! may mean.

use std::{fmt, str::FromStr};

use jiff::{
    ToSpan,
    civil::{Date, Time},
    tz::{AmbiguousOffset, TimeZone},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base::clock::Timestamp;

/// From `start` to before `end`, each day, over midnight if `end` is the earlier of the two. If both are the same there is
/// no such period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuietHours {
    /// When it begins.
    pub start: WallTime,
    /// When it ends.
    pub end: WallTime,
}

/// A time of the day to the minute, as a clock on the wall shows it: `22:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(Time);

impl FromStr for WallTime {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || format!("is `{s}`, but must be a time such as 22:00");
        let two = |part: &str| (part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse().ok());
        let (hour, minute) = s.split_once(':').ok_or_else(wrong)?;
        let (Some(Some(hour)), Some(Some(minute))) = (two(hour), two(minute)) else { return Err(wrong()) };
        Time::new(hour, minute, 0, 0).map(Self).map_err(|_out_of_range| wrong())
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0.hour(), self.0.minute())
    }
}

impl Serialize for WallTime {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WallTime {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Periods that may follow one another without a pause, where a whole day was left out of the calendar.
const CHAIN_MAX: usize = 4;
/// Days around today on which a period that holds now may have begun.
const DAYS_AROUND: [i64; 4] = [-2, -1, 0, 1];

impl QuietHours {
    /// The end of the period that `now` lies in, for a user who lives by `zone`.
    pub(super) fn until(self, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let start = jiff::Timestamp::from_millisecond(now.as_millis()).ok()?;
        let mut at = start;
        for _ in 0..CHAIN_MAX {
            match self.end_of_period_at(at, zone) {
                Some(end) => at = end,
                None => break,
            }
        }
        // Zones change their clocks at whole milliseconds, so nothing is cut off here.
        (at > start).then(|| Timestamp::from_millis(at.as_millisecond()))
    }

    fn end_of_period_at(self, at: jiff::Timestamp, zone: &TimeZone) -> Option<jiff::Timestamp> {
        let today = zone.to_datetime(at).date();
        let periods = DAYS_AROUND.iter().filter_map(|days| self.period(today.checked_add(days.days()).ok()?, zone));
        periods.filter(|(begin, end)| *begin <= at && at < *end).map(|(_, end)| end).max()
    }

    /// The period that begins on `day`.
    fn period(self, day: Date, zone: &TimeZone) -> Option<(jiff::Timestamp, jiff::Timestamp)> {
        let last = match self.start.cmp(&self.end) {
            std::cmp::Ordering::Less => day,
            std::cmp::Ordering::Equal => return None,
            std::cmp::Ordering::Greater => day.tomorrow().ok()?,
        };
        Some((first_moment(day, self.start, zone)?, last_moment(last, self.end, zone)?))
    }
}

/// When the clock shows `time` for the first time on `day`, or jumps over it.
fn first_moment(day: Date, time: WallTime, zone: &TimeZone) -> Option<jiff::Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(day.to_datetime(time.0));
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok(),
        AmbiguousOffset::Gap { .. } => jump_before(ambiguous.later().ok()?, zone),
    }
}

/// When the clock shows `time` for the last time on `day`, or jumps over it.
fn last_moment(day: Date, time: WallTime, zone: &TimeZone) -> Option<jiff::Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(day.to_datetime(time.0));
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => ambiguous.later().ok(),
        AmbiguousOffset::Gap { .. } => jump_before(ambiguous.later().ok()?, zone),
    }
}

/// The change of the clocks at this moment, or the last one before it.
fn jump_before(moment: jiff::Timestamp, zone: &TimeZone) -> Option<jiff::Timestamp> {
    let after = moment.checked_add(1.nanosecond()).ok()?;
    Some(zone.preceding(after).next()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::zone::Zones;

    fn hours(start: &str, end: &str) -> QuietHours {
        QuietHours { start: start.parse().unwrap(), end: end.parse().unwrap() }
    }

    /// The end of the quiet period at `now` as the clock in `zone` shows it, with its offset.
    fn until(zone: &str, hours: QuietHours, now: &str) -> Option<String> {
        let tz = Zones::bundled().get(zone).unwrap();
        let end = hours.until(Timestamp::parse(now).unwrap(), &tz)?;
        let end = jiff::Timestamp::from_millisecond(end.as_millis()).unwrap().to_zoned(tz);
        Some(end.strftime("%Y-%m-%d %H:%M %:z").to_string())
    }

    #[test]
    fn quiet_hours_go_over_midnight_and_have_edges() {
        let night = hours("22:00", "07:00");
        for (now, end) in [
            ("2026-11-21T20:59:59Z", None),
            ("2026-11-21T21:00:00Z", Some("2026-11-22 07:00 +01:00")),
            ("2026-11-21T23:30:00Z", Some("2026-11-22 07:00 +01:00")),
            ("2026-11-22T05:59:59Z", Some("2026-11-22 07:00 +01:00")),
            ("2026-11-22T06:00:00Z", None),
        ] {
            assert_eq!(until("Europe/Berlin", night, now).as_deref(), end, "{now}");
        }
        let lunch = hours("12:00", "13:00");
        assert_eq!(until("UTC", lunch, "2026-11-21T12:30:00Z").as_deref(), Some("2026-11-21 13:00 +00:00"));
        assert_eq!(until("UTC", lunch, "2026-11-21T13:00:00Z"), None);
        for now in ["2026-11-21T12:00:00Z", "2026-11-21T11:59:59Z", "2026-11-21T00:00:00Z"] {
            assert_eq!(until("UTC", hours("12:00", "12:00"), now), None, "{now}: equal times are no period");
        }
        let to_midnight = hours("22:00", "00:00");
        assert_eq!(until("UTC", to_midnight, "2026-11-21T23:00:00Z").as_deref(), Some("2026-11-22 00:00 +00:00"));
        assert_eq!(until("UTC", to_midnight, "2026-11-22T00:00:00Z"), None);
    }

    #[test]
    fn a_change_of_the_clocks_inside_the_night_moves_nothing() {
        let night = hours("22:00", "07:00");
        // Spring: the night of 29 March 2026 has eight hours; autumn: that of 25 October has ten.
        let spring = until("Europe/Berlin", night, "2026-03-28T22:00:00Z");
        assert_eq!(spring.as_deref(), Some("2026-03-29 07:00 +02:00"));
        assert_eq!(until("Europe/Berlin", night, "2026-03-29T05:00:00Z"), None);
        let autumn = until("Europe/Berlin", night, "2026-10-24T20:30:00Z");
        assert_eq!(autumn.as_deref(), Some("2026-10-25 07:00 +01:00"));
        assert_eq!(until("Europe/Berlin", night, "2026-10-25T05:30:00Z").as_deref(), Some("2026-10-25 07:00 +01:00"));
        assert_eq!(
            until("America/New_York", night, "2026-03-08T06:30:00Z").as_deref(),
            Some("2026-03-08 07:00 -04:00")
        );
        assert_eq!(
            until("America/New_York", night, "2026-11-01T06:30:00Z").as_deref(),
            Some("2026-11-01 07:00 -05:00")
        );
    }

    #[test]
    fn times_that_the_clock_jumps_over_mean_the_jump() {
        // 02:00 to 03:00 does not exist in Berlin on 29 March 2026; the jump is at 01:00 UTC.
        let from_gap = hours("02:30", "07:00");
        assert_eq!(until("Europe/Berlin", from_gap, "2026-03-29T00:59:59Z"), None);
        assert_eq!(
            until("Europe/Berlin", from_gap, "2026-03-29T01:00:00Z").as_deref(),
            Some("2026-03-29 07:00 +02:00")
        );
        let to_gap = hours("22:00", "02:30");
        assert_eq!(until("Europe/Berlin", to_gap, "2026-03-29T00:59:59Z").as_deref(), Some("2026-03-29 03:00 +02:00"));
        assert_eq!(until("Europe/Berlin", to_gap, "2026-03-29T01:00:00Z"), None);
        let edge = hours("22:00", "02:00");
        assert_eq!(until("Europe/Berlin", edge, "2026-03-29T00:30:00Z").as_deref(), Some("2026-03-29 03:00 +02:00"));
        let within = hours("02:10", "02:50");
        for now in ["2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z", "2026-03-29T01:20:00Z"] {
            assert_eq!(until("Europe/Berlin", within, now), None, "{now}: the period does not exist that day");
        }
        assert_eq!(
            until("America/New_York", to_gap, "2026-03-08T06:59:00Z").as_deref(),
            Some("2026-03-08 03:00 -04:00")
        );
    }

    #[test]
    fn times_that_come_twice_keep_the_silence_longest() {
        // 02:30 comes twice in Berlin on 25 October 2026: at 00:30 and at 01:30 UTC.
        let from_fold = hours("02:30", "07:00");
        assert_eq!(until("Europe/Berlin", from_fold, "2026-10-25T00:29:59Z"), None);
        for now in ["2026-10-25T00:30:00Z", "2026-10-25T01:10:00Z"] {
            assert_eq!(until("Europe/Berlin", from_fold, now).as_deref(), Some("2026-10-25 07:00 +01:00"), "{now}");
        }
        let to_fold = hours("22:00", "02:30");
        for now in ["2026-10-25T00:29:59Z", "2026-10-25T00:45:00Z", "2026-10-25T01:29:59Z"] {
            assert_eq!(until("Europe/Berlin", to_fold, now).as_deref(), Some("2026-10-25 02:30 +01:00"), "{now}");
        }
        assert_eq!(until("Europe/Berlin", to_fold, "2026-10-25T01:30:00Z"), None);
        let new_york = hours("01:30", "05:00");
        assert_eq!(until("America/New_York", new_york, "2026-11-01T05:29:00Z"), None);
        assert_eq!(
            until("America/New_York", new_york, "2026-11-01T05:31:00Z").as_deref(),
            Some("2026-11-01 05:00 -05:00")
        );
    }

    #[test]
    fn a_day_that_was_left_out_joins_two_nights() {
        // Samoa had no 30 December 2011: at 10:00 UTC its clocks went from the end of the 29th to the 31st.
        let night = hours("22:00", "07:00");
        let end = Some("2011-12-31 07:00 +14:00");
        for now in ["2011-12-30T08:00:00Z", "2011-12-30T09:59:59Z", "2011-12-30T10:00:00Z", "2011-12-30T16:59:59Z"] {
            assert_eq!(until("Pacific/Apia", night, now).as_deref(), end, "{now}");
        }
        assert_eq!(until("Pacific/Apia", night, "2011-12-30T07:59:59Z"), None);
        assert_eq!(until("Pacific/Apia", night, "2011-12-30T17:00:00Z"), None);
        let noon = hours("12:00", "13:00");
        assert_eq!(until("Pacific/Apia", noon, "2011-12-30T10:00:00Z"), None);
        assert_eq!(until("Pacific/Apia", noon, "2011-12-30T22:30:00Z").as_deref(), Some("2011-12-31 13:00 +14:00"));
    }

    #[test]
    fn every_quiet_moment_ends_in_a_moment_that_is_not_quiet() {
        for zone in ["Europe/Berlin", "America/New_York", "Pacific/Apia", "Australia/Lord_Howe", "Africa/Casablanca"] {
            let tz = Zones::bundled().get(zone).unwrap();
            for hours in
                [hours("22:00", "07:00"), hours("02:10", "02:50"), hours("01:30", "03:30"), hours("07:00", "06:59")]
            {
                for step in 0..(366 * 96) {
                    let now = Timestamp::from_millis(1_767_225_600_000 + step * 900_000);
                    let Some(end) = hours.until(now, &tz) else { continue };
                    assert!(end > now && hours.until(end, &tz).is_none(), "{zone} {hours:?} {now} {end}");
                }
            }
        }
    }
}
