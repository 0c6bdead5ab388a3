//! How far claims run ahead of free slots.
//!
//! A claim takes a store some milliseconds. Handlers that are done in less would leave their slots empty for most of that time, and
//! a store serves one claim of hundreds at a fraction of the price of many claims of a few. So a worker whose handlers are quick claims
//! more jobs than it has free slots: as many as its slots can start within [`WAIT`]. The rest wait their turn inside the worker. Where
//! the guess was wrong, because a long job came after many short ones, a job goes back to its queue after [`HOLD`]: nobody
//! hoards what another worker could start.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// How long a job may be expected to wait for a slot after it was claimed.
const WAIT: Duration = Duration::from_millis(5);

/// How long a job really waits for a slot before it is given back. With the 100 ms that its wake-up may lie between the broker and
/// the worker, nobody holds it for longer than a quarter of a second.
pub(super) const HOLD: Duration = Duration::from_millis(150);

/// Most jobs claimed beyond the slots. Of 64, 128 and 256 each was faster than the one before, 512 not always; a worker that
/// dies leaves this many to the lease.
pub(super) const MOST: u64 = 256;

/// Most payload that may wait for a slot, and most results for being written, in bytes: memory that a worker needs for nothing but
/// being quick. By the largest of late, so the first large ones after many small ones may take more.
const MEMORY: u64 = 4 << 20;

/// What the worker's runs were like of late.
pub(crate) struct Pace {
    /// How long handlers took, in nanoseconds.
    time: Lately,
    /// How large payloads and results were, in bytes.
    size: Lately,
}

impl Default for Pace {
    fn default() -> Self {
        // Before the first run has ended nobody knows how long one takes.
        Self { time: Lately(AtomicU64::new(u64::MAX)), size: Lately(AtomicU64::new(0)) }
    }
}

impl Pace {
    /// Notes the size of a payload or a result.
    pub(super) fn size(&self, bytes: usize) {
        self.size.note(bytes as u64);
    }

    /// Notes how long a run took.
    pub(super) fn ran(&self, time: Duration) {
        self.time.note(nanos(time));
    }

    /// Claims no more ahead until many quick runs have ended: no slot came free for a job within [`HOLD`], or one may be what
    /// killed its worker, and others that are claimed with it would share its fate.
    pub(super) fn hold_back(&self, slots: usize) {
        self.time.raise(nanos(WAIT).saturating_mul(slots as u64).saturating_add(1));
    }

    /// How many jobs `slots` slots can start within [`WAIT`], beyond those that they run.
    pub(super) fn ahead(&self, slots: usize) -> usize {
        let by_time = nanos(WAIT).saturating_mul(slots as u64) / self.time.get().max(1);
        let by_memory = MEMORY / self.size.get().max(1);
        usize::try_from(by_time.min(by_memory).min(MOST)).unwrap_or(0)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The largest value of late, nearly: a larger one counts at once, a smaller one brings it down by a sixteenth of the difference. One long
/// run in hundreds is enough to keep a worker from claiming ahead.
struct Lately(AtomicU64);

impl Lately {
    fn note(&self, value: u64) {
        let next = match self.get() {
            u64::MAX => value,
            now if value >= now => value,
            now => now - (now - value) / 16,
        };
        // Of two notes at once one may be forgotten: more will come.
        self.0.store(next, Ordering::Relaxed);
    }

    fn raise(&self, value: u64) {
        // Also where nothing is known yet, or the first quick run would have the last word.
        let next = Some(self.get()).filter(|now| *now != u64::MAX).map_or(value, |now| now.max(value));
        self.0.store(next, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(20);

    #[test]
    fn nobody_claims_ahead_before_a_run_has_ended() {
        assert_eq!(Pace::default().ahead(64), 0);
    }

    #[test]
    fn the_shorter_the_runs_the_further_ahead() {
        for (took, slots, ahead) in [
            (SHORT, 4, 256),
            (Duration::ZERO, 1, 256),
            (Duration::from_millis(1), 4, 20),
            (Duration::from_millis(5), 4, 4),
            (Duration::from_millis(50), 4, 0),
            (Duration::from_millis(50), 64, 6),
            (Duration::from_secs(6), 64, 0),
        ] {
            let pace = Pace::default();
            pace.ran(took);
            assert_eq!(pace.ahead(slots), ahead, "{took:?} with {slots} slots");
        }
    }

    #[test]
    fn what_waits_fits_in_memory() {
        let pace = Pace::default();
        pace.ran(SHORT);
        pace.size(256 << 10);
        assert_eq!(pace.ahead(64), 16);
        pace.size(100 << 20);
        assert_eq!(pace.ahead(64), 0);
    }

    #[test]
    fn a_long_run_counts_at_once_and_is_forgotten_by_and_by() {
        let pace = Pace::default();
        pace.ran(SHORT);
        pace.ran(Duration::from_secs(1));
        assert_eq!(pace.ahead(4), 0);
        let runs = (1..).find(|_| {
            pace.ran(SHORT);
            pace.ahead(4) == 256
        });
        assert!(runs.is_some_and(|runs| (100..300).contains(&runs)), "{runs:?}");
    }

    #[test]
    fn who_holds_back_claims_nothing_ahead_until_runs_end() {
        for slots in [1, 4, 64, 10_000] {
            for took in [SHORT, Duration::from_secs(6)] {
                let pace = Pace::default();
                pace.hold_back(slots);
                assert_eq!(pace.ahead(slots), 0, "nothing is known yet");
                pace.ran(took);
                assert!(pace.ahead(slots) <= 1, "one quick run after a restart proves little");
                // However often it happens.
                for _ in 0..300 {
                    pace.hold_back(slots);
                    assert_eq!(pace.ahead(slots), 0, "{slots} slots, {took:?}");
                }
                pace.ran(Duration::from_secs(100));
                pace.hold_back(slots);
                assert_eq!(pace.ahead(64), 0, "a longer run is not forgotten");
            }
        }
    }
}
