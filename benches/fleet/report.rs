//! Collects figures and prints them side by side.

/// Figures by name, in the order in which they first came.
#[derive(Default)]
pub(crate) struct Report(Vec<(String, Vec<f64>)>);

/// What a figure is measured against and aimed at, by the words its name holds.
const AIMS: &[(&str, Option<&str>, &str)] = &[
    ("redis + mongodb: bulk submit", Some("bare mongodb: insert, batches of 1000 (documents/s)"), ">= 30,000"),
    ("rabbitmq + mongodb: bulk submit", Some("bare rabbitmq: publish + confirm, pipelined (/s)"), ">= 30,000"),
    (
        "redis + mongodb: drain",
        Some("bare mongodb: claim by lease + finish, batches of 256 (jobs/s)"),
        ">= 8,000 and >= 60 %",
    ),
    ("rabbitmq + mongodb: drain", Some("bare rabbitmq: consume + ack (/s)"), ">= 5,000 and >= 60 %"),
    (
        "redis + mongodb: pick-up at 100 jobs/s, p50",
        Some("bare mongodb: two durable inserts, one after the other, at 100/s, p50 (us)"),
        "",
    ),
    (
        "redis + mongodb: pick-up at 100 jobs/s, p99",
        Some("bare mongodb: two durable inserts, one after the other, at 100/s, p99 (us)"),
        "< 5,000",
    ),
    (
        "rabbitmq + mongodb: pick-up at 100 jobs/s, p50",
        Some("bare lapin and mongodb: durable insert, publish to delivery, durable insert, at 100/s, p50 (us)"),
        "",
    ),
    (
        "rabbitmq + mongodb: pick-up at 100 jobs/s, p99",
        Some("bare lapin and mongodb: durable insert, publish to delivery, durable insert, at 100/s, p99 (us)"),
        "< 5,000",
    ),
    ("memory", None, "< 50"),
];

impl Report {
    pub(crate) fn add(&mut self, name: &str, value: f64) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, values)) => values.push(value),
            None => self.0.push((name.to_owned(), vec![value])),
        }
    }

    /// The median and the 99th of a hundred of these times, in microseconds.
    pub(crate) fn add_times(&mut self, name: &str, mut us: Vec<f64>) {
        us.sort_by(f64::total_cmp);
        self.add(&format!("{name}, p50 (us)"), us[us.len() / 2]);
        self.add(&format!("{name}, p99 (us)"), us[us.len() * 99 / 100]);
    }

    fn median(&self, name: &str) -> Option<f64> {
        let mut values = self.0.iter().find(|(n, _)| n == name)?.1.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    pub(crate) fn print(&self) {
        println!("{:<100} {:>9} {:>19} {:>7}  aim", "", "median", "range", "ratio");
        for (name, values) in &self.0 {
            let (min, max) = values.iter().fold((f64::MAX, 0.0_f64), |(a, b), v| (a.min(*v), b.max(*v)));
            let median = self.median(name).unwrap_or(0.0);
            let aim = AIMS.iter().find(|(part, ..)| name.contains(part));
            let ceiling = aim.and_then(|(_, ceiling, _)| self.median((*ceiling)?));
            let ratio = ceiling.map_or(String::new(), |c| format!("{:.0} %", median / c * 100.0));
            let aim = aim.map_or("", |(.., aim)| aim);
            println!("{name:<100} {median:>9.0} {:>19} {ratio:>7}  {aim}", format!("{min:.0} .. {max:.0}"));
        }
    }
}
