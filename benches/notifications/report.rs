//! Collects figures and prints them side by side.

/// A figure by its name.
struct Line {
    name: String,
    values: Vec<f64>,
    /// What it is compared with: a word for it, and its name.
    beside: Vec<(&'static str, String)>,
}

/// Figures in the order in which they first came.
#[derive(Default)]
pub(crate) struct Report(Vec<Line>);

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

impl Report {
    pub(crate) fn add(&mut self, name: &str, value: f64) {
        self.beside(name, value, &[]);
    }

    /// Adds a figure that is to be compared with others.
    pub(crate) fn beside(&mut self, name: &str, value: f64, others: &[(&'static str, String)]) {
        match self.0.iter_mut().find(|l| l.name == name) {
            Some(line) => line.values.push(value),
            None => self.0.push(Line { name: name.to_owned(), values: vec![value], beside: others.to_vec() }),
        }
    }

    pub(crate) fn print(&self) {
        println!("{:<72} {:>9} {:>19}  ratio", "", "median", "range");
        for Line { name, values, beside } in &self.0 {
            let (min, max) = values.iter().fold((f64::MAX, 0.0_f64), |(a, b), v| (a.min(*v), b.max(*v)));
            let mid = median(values);
            let ratio = |(word, other): &(&str, String)| {
                let other = self.0.iter().find(|l| l.name == *other)?;
                Some(format!("{:.0} % of {word}", mid / median(&other.values) * 100.0))
            };
            let ratios: Vec<String> = beside.iter().filter_map(ratio).collect();
            println!("{name:<72} {mid:>9.0} {:>19}  {}", format!("{min:.0} .. {max:.0}"), ratios.join(", "));
        }
    }
}
