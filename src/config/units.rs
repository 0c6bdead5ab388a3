//! Times and sizes as people write them: `15s`, `7d`, `256KiB`.
//!
//! A bare number would leave the unit to be guessed, so times always carry one; what is printed can be read back.

use std::time::Duration;

use serde::Serializer;

/// Reads a time such as `200ms`, `15s` or `1h 30m`.
///
/// # Errors
/// The rest of a sentence that begins with the key.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bare = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if bare && text != "0" {
        return Err(format!("is \"{text}\", but a time needs a unit, such as \"{text}s\""));
    }
    humantime_serde::re::humantime::parse_duration(text)
        .map_err(|e| format!("is \"{text}\", but a time is written like \"200ms\", \"15s\", \"10m\" or \"7d\" ({e})"))
}

/// Writes a time in the largest unit that divides it, so that [`parse_duration`] reads the same time.
#[must_use]
pub fn format_duration(d: Duration) -> String {
    let nanos = d.as_nanos();
    let units: [(u128, &str); 7] = [
        (86_400_000_000_000, "d"),
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1000, "us"),
        (1, "ns"),
    ];
    match units.iter().find(|(n, _)| nanos > 0 && nanos.is_multiple_of(*n)) {
        Some((n, unit)) => format!("{}{unit}", nanos / n),
        None => "0s".to_owned(),
    }
}

const SIZES: [(usize, &str); 4] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")];

/// A size in bytes, read from text such as `256KiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub usize);

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("is \"{text}\", but a size is a whole number with B, KiB, MiB or GiB, such as \"256KiB\"");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
        let unit = if unit.is_empty() { "B" } else { unit.trim() };
        let (factor, _) = SIZES.iter().find(|(_, name)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?;
        number.parse::<usize>().ok().and_then(|n| n.checked_mul(*factor)).map(Self).ok_or_else(wrong)
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match SIZES.iter().find(|(n, _)| self.0 > 0 && self.0.is_multiple_of(*n)) {
            Some((n, unit)) => write!(f, "{}{unit}", self.0 / n),
            None => f.write_str("0B"),
        }
    }
}

pub(super) fn duration<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&format_duration(*d))
}

pub(super) fn size<S: Serializer>(bytes: &usize, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(&Size(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_round_trip_and_refuse_what_is_no_size() {
        for (text, bytes) in [("256KiB", 262_144), ("1MiB", 1 << 20), ("7B", 7), ("0B", 0), ("2GiB", 2 << 30)] {
            assert_eq!(text.parse(), Ok(Size(bytes)));
            assert_eq!(Size(bytes).to_string(), text);
        }
        assert_eq!("1024".parse(), Ok(Size(1024)));
        assert_eq!("1 mib".parse(), Ok(Size(1 << 20)));
        for bad in ["", "KiB", "1MB", "1.5MiB", "-1B", "99999999999999GiB", "1ü"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn times_round_trip_and_need_a_unit() {
        for text in ["200ms", "15s", "10m", "1h", "7d", "3650d", "90s", "0s"] {
            let d = parse_duration(text).unwrap();
            assert_eq!(parse_duration(&format_duration(d)).unwrap(), d);
        }
        assert_eq!(format_duration(Duration::from_secs(86_400)), "1d");
        assert!(parse_duration("15").unwrap_err().contains("\"15s\""));
        assert!(parse_duration("soon").is_err());
        assert!(parse_duration("").is_err());
    }
}
