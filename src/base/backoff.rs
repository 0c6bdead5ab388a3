//! How long to wait before trying again: exponential with full jitter.
//!
//! Formula: `random(0, min(cap, base·2^n))` for the n-th failure counted from 0, from the AWS Architecture Blog,
//! "Exponential Backoff And Jitter" (2015): full jitter spreads a crowd of retries best.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A retry delay policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// Upper bound of the first delay, in milliseconds.
    pub base_ms: u64,
    /// Upper bound of any delay, in milliseconds.
    pub cap_ms: u64,
}

impl Backoff {
    /// A policy from durations.
    #[must_use]
    pub fn new(base: Duration, cap: Duration) -> Self {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Self { base_ms: ms(base), cap_ms: ms(cap) }
    }

    /// The longest delay after failure number `n` (0 for the first).
    #[must_use]
    pub fn ceiling(&self, n: u32) -> Duration {
        let factor = 1_u64.checked_shl(n).unwrap_or(u64::MAX);
        Duration::from_millis(self.base_ms.saturating_mul(factor).min(self.cap_ms))
    }

    /// A random delay after failure number `n` (0 for the first): uniform in 0 to [`Self::ceiling`].
    #[must_use]
    pub fn delay(&self, n: u32) -> Duration {
        let ceiling = u64::try_from(self.ceiling(n).as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(fastrand::u64(0..=ceiling))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_cap_and_never_overflows() {
        let b = Backoff { base_ms: 1000, cap_ms: 60_000 };
        let ceilings: Vec<u64> = [0, 1, 2, 5, 6, 63, 64, u32::MAX].map(|n| b.ceiling(n).as_millis() as u64).to_vec();
        assert_eq!(ceilings, [1000, 2000, 4000, 32_000, 60_000, 60_000, 60_000, 60_000]);
    }

    #[test]
    fn jitter_is_full() {
        let b = Backoff { base_ms: 1000, cap_ms: 60_000 };
        let delays: Vec<_> = (0..2000).map(|_| b.delay(3)).collect();
        assert!(delays.iter().all(|d| *d <= Duration::from_secs(8)));
        assert!(delays.iter().any(|d| *d < Duration::from_secs(2)));
        assert!(delays.iter().any(|d| *d > Duration::from_secs(6)));
    }
}
