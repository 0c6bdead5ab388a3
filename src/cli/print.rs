//! Output: JSON for programs, tables for people, and a reader that goes away (`| head`) is no failure.

use std::io::{ErrorKind, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use super::exit::{FAILED, Failure};
use crate::{
    base::clock::{Clock, Timestamp},
    config::units::format_duration,
};

/// Writes a line to stdout.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|e| match e.kind() {
        ErrorKind::BrokenPipe => Failure::new(0, ""),
        _ => Failure::new(FAILED, format!("cannot write to stdout: {e}")),
    })
}

/// Writes a remark to stderr. If nobody can read it, nothing is lost.
pub(super) fn note(text: &str) {
    writeln!(std::io::stderr(), "{}", plain(text)).unwrap_or_default();
}

/// Writes JSON as the API gave it, readable.
pub(super) fn json(value: &Value) -> Result<(), Failure> {
    line(&format!("{value:#}"))
}

/// Writes rows under headings, or `none` if there are no rows.
pub(super) fn table(headings: &[&str], rows: Vec<Vec<String>>, none: &str) -> Result<(), Failure> {
    if rows.is_empty() {
        return line(none);
    }
    line(&render(headings, rows))
}

/// Writes names and values, one pair a line.
pub(super) fn pairs(pairs: Vec<(&str, String)>) -> Result<(), Failure> {
    line(&render(&[], pairs.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect()))
}

fn render(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !headings.is_empty() {
        table.set_header(headings);
    }
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Text without control characters, which could steer the terminal.
pub(super) fn plain(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// The field as a cell: text as it is, nothing for null, else JSON.
pub(super) fn field(value: &Value, key: &str) -> String {
    match value.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// How long ago the time in the field was, or how long until then.
pub(super) fn ago(value: &Value, key: &str) -> String {
    let text = field(value, key);
    let Ok(then) = Timestamp::parse(&text) else { return text };
    let now = Clock::system().now();
    match then > now {
        true => format!("in {}", seconds(then.since(now).as_secs_f64())),
        false => format!("{} ago", seconds(now.since(then).as_secs_f64())),
    }
}

/// Seconds in words, to the precision that people read.
pub(super) fn seconds(s: f64) -> String {
    if !s.is_finite() || s < 0.0 {
        return "?".to_owned();
    }
    let whole = std::time::Duration::from_secs_f64(s.min(1e9)).as_secs();
    let two = |big: u64, big_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    };
    match whole {
        0 => format!("{:.0}ms", s * 1000.0),
        1..10 => format!("{s:.1}s"),
        10..60 => format!("{whole}s"),
        60..3600 => two(whole / 60, "m", whole % 60, "s"),
        3600..86_400 => two(whole / 3600, "h", whole % 3600 / 60, "m"),
        _ => two(whole / 86_400, "d", whole % 86_400 / 3600, "h"),
    }
}

/// The field, which holds seconds, in words.
pub(super) fn seconds_field(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_f64).map(seconds).unwrap_or_default()
}

/// The field, which holds bytes, in words.
pub(super) fn bytes_field(value: &Value, key: &str) -> String {
    let Some(bytes) = value.get(key).and_then(Value::as_u64) else { return String::new() };
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..1_048_576 => format!("{}KiB", bytes / 1024),
        _ => format!("{}MiB", bytes / 1_048_576),
    }
}

/// A time given as a flag: `10m`, or a plain number of seconds.
pub(super) fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(s) if s.is_finite() && s >= 0.0 => Ok(s),
        Ok(_) => Err("a time is 0 or more seconds, or such as `90s`, `10m`, `7d`".to_owned()),
        Err(_) => match crate::config::units::parse_duration(text) {
            Ok(d) => Ok(d.as_secs_f64()),
            Err(_) => Err(format!(
                "a time is a number of seconds, or such as `90s`, `10m`, `{}`",
                format_duration(std::time::Duration::from_secs(7 * 86_400))
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        for (s, text) in [
            (0.0, "0ms"),
            (0.0123, "12ms"),
            (1.26, "1.3s"),
            (59.9, "59s"),
            (60.0, "1m"),
            (61.0, "1m1s"),
            (3660.0, "1h1m"),
            (90_000.0, "1d1h"),
            (f64::NAN, "?"),
            (-1.0, "?"),
        ] {
            assert_eq!(seconds(s), text);
        }
        assert_eq!(parse_seconds("1.5"), Ok(1.5));
        assert_eq!(parse_seconds("10m"), Ok(600.0));
        for bad in ["soon", "-1", "NaN", "inf", ""] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tables_line_up_and_cannot_steer_the_terminal() {
        let rows = vec![vec!["a".to_owned(), "\u{1b}[31mred".to_owned()], vec!["long".to_owned(), "b".to_owned()]];
        let text = render(&["X", "Y"], rows);
        assert_eq!(text, "X     Y\na     \\u{1b}[31mred\nlong  b");
    }

    #[test]
    fn sizes_and_fields() {
        let v = serde_json::json!({"rss": 50_000_000, "none": null, "list": [1]});
        assert_eq!(bytes_field(&v, "rss"), "47MiB");
        assert_eq!(
            (field(&v, "none"), field(&v, "list"), field(&v, "gone")),
            (String::new(), "[1]".into(), String::new())
        );
    }
}
