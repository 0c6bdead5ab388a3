//! Says when it is time to say something again that would otherwise be said all the time.

use std::time::{Duration, Instant};

/// Between two times.
pub const PAUSE: Duration = Duration::from_secs(60);

/// Remembers when something was last said.
#[derive(Debug, Default)]
pub struct Seldom {
    last: Option<Instant>,
}

impl Seldom {
    /// Whether it is time; then it is taken as said.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
        if due {
            self.last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_at_first_and_after_the_pause() {
        let (mut seldom, now) = (Seldom::default(), Instant::now());
        assert!(seldom.is_due(now) && !seldom.is_due(now));
        assert!(!seldom.is_due(now + PAUSE / 2) && seldom.is_due(now + PAUSE));
        assert!(!seldom.is_due(now + PAUSE));
    }
}
