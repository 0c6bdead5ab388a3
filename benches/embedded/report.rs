//! Collects figures and prints them side by side.

use std::collections::BTreeMap;

/// Figures by name, in the order in which they first came.
#[derive(Default)]
pub(crate) struct Report {
    order: Vec<&'static str>,
    values: BTreeMap<&'static str, Vec<f64>>,
}

/// A line of the report: a figure, its ceiling if it has one, and what is aimed at.
const LINES: &[(&str, Option<&str>, &str)] = &[
    ("bare actix-web, same bytes, 64 clients (req/s)", None, ""),
    (
        "HTTP submit, one job a request, 64 clients (jobs/s)",
        Some("bare actix-web, same bytes, 64 clients (req/s)"),
        ">= 30,000 and >= 40 %",
    ),
    ("HTTP bulk submit, 1000 jobs a request, 4 clients (jobs/s)", None, ">= 150,000"),
    ("bare SQLite insert, batches of 1000 (rows/s)", None, ""),
    ("submit in batches of 1000, in process (jobs/s)", Some("bare SQLite insert, batches of 1000 (rows/s)"), ""),
    ("bare SQLite insert, batches of 64 (rows/s)", None, ""),
    ("submit one by one from 64 tasks, in process (jobs/s)", Some("bare SQLite insert, batches of 64 (rows/s)"), ""),
    ("bare SQLite claim + finish, batches of 64 (jobs/s)", None, ""),
    (
        "drain of no-op jobs, 64 slots (jobs/s)",
        Some("bare SQLite claim + finish, batches of 64 (jobs/s)"),
        ">= 50,000 and >= 50 %",
    ),
    (
        "drain with 1,000,000 finished jobs in the table (jobs/s)",
        Some("drain of no-op jobs, 64 slots (jobs/s)"),
        ">= 80 %",
    ),
    ("bare write of 16 KiB + fdatasync at 100/s, p50 (us)", None, ""),
    ("bare write of 16 KiB + fdatasync at 100/s, p99 (us)", None, ""),
    ("pick-up at 100 jobs/s, p50 (us)", None, ""),
    ("pick-up at 100 jobs/s, p99 (us)", None, "< 1,000"),
    ("resident memory, idle (MB)", None, ""),
    ("resident memory, 100,000 jobs waiting (MB)", None, "< 50"),
];

impl Report {
    pub(crate) fn add(&mut self, name: &'static str, value: f64) {
        assert!(LINES.iter().any(|(n, ..)| *n == name), "{name} has no line in the report");
        if !self.order.contains(&name) {
            self.order.push(name);
        }
        self.values.entry(name).or_default().push(value);
    }

    fn median(&self, name: &str) -> Option<f64> {
        let mut v = self.values.get(name)?.clone();
        v.sort_by(f64::total_cmp);
        v.get(v.len() / 2).copied()
    }

    pub(crate) fn print(&self) {
        println!("{:<62} {:>10} {:>23} {:>8}  aim", "", "median", "range", "ratio");
        for (name, ceiling, aim) in LINES {
            let (Some(median), Some(all)) = (self.median(name), self.values.get(name)) else { continue };
            let (min, max) = all.iter().fold((f64::MAX, 0.0_f64), |(a, b), v| (a.min(*v), b.max(*v)));
            let ratio =
                ceiling.and_then(|c| self.median(c)).map_or(String::new(), |c| format!("{:.0} %", median / c * 100.0));
            let range = format!("{} .. {}", thousands(min), thousands(max));
            println!("{name:<62} {:>10} {range:>23} {ratio:>8}  {aim}", thousands(median));
        }
    }
}

fn thousands(v: f64) -> String {
    let digits = format!("{v:.0}");
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(c);
    }
    out
}
