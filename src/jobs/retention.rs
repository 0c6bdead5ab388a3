//! Forgets what is past its retention: used by the scheduler's pass and by the clean-up kind.

use std::time::Duration;

use super::store::{JobStore, Retention};
use crate::base::{clock::Clock, failpoint, store::StoreError};

/// How long jobs are kept after they ended.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Succeeded and cancelled ones.
    pub finished: Duration,
    /// Dead letters.
    pub failed: Duration,
    /// Most jobs looked at in one write.
    pub batch: usize,
}

/// Goes once through all jobs old enough, batch by batch, so that it never holds the store for long.
///
/// # Errors
/// If the store fails; what was removed until then stays removed.
pub async fn sweep(
    store: &dyn JobStore,
    clock: &Clock,
    rule: &Rule,
    stopped: impl Fn() -> bool,
) -> Result<u64, StoreError> {
    let now = clock.now();
    let retention = Retention { finished_before: now.minus(rule.finished), failed_before: now.minus(rule.failed), now };
    let (mut removed, mut after) = (0, None);
    loop {
        let (n, next) = store.retain(retention, after, rule.batch).await?;
        failpoint::hit_if("scheduler.retention.after_delete", n > 0);
        removed += n;
        after = next;
        if after.is_none() || stopped() {
            break;
        }
    }
    if removed > 0 {
        tracing::info!(removed, "jobs past their retention removed");
    }
    Ok(removed)
}
