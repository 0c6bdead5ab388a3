//! Admission: full queues shed load, and names do not multiply without bound.
//!
//! Counts are read from the store at most once a second and carried forward by what this process accepts; nobody is
//! refused on an old count.

use std::{sync::PoisonError, time::Duration};

use super::{error::JobsError, model::Job, service::Jobs};
use crate::{base::id::QueueName, telemetry::metrics as names};

/// How long counts are believed before the store is asked again.
const COUNTS_FRESH: Duration = Duration::from_secs(1);
/// What a shed caller is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(5);

impl Jobs {
    /// Refuses jobs for queues that are full, and new queues over the limit.
    pub(super) async fn admit(&self, jobs: &[Job]) -> Result<(), JobsError> {
        let mut wanted: Vec<(&QueueName, u64)> = Vec::new();
        for j in jobs {
            match wanted.iter_mut().find(|(q, _)| *q == &j.queue) {
                Some((_, n)) => *n += 1,
                None => wanted.push((&j.queue, 1)),
            }
        }
        let unknown = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            wanted.iter().any(|(q, _)| !known.contains(*q))
        };
        let limited: Vec<_> = wanted.iter().filter_map(|(q, n)| self.depth_limit(q).map(|l| (*q, *n, l))).collect();
        if unknown {
            self.refresh().await?;
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            for (q, _) in &wanted {
                if !known.contains(*q) && known.len() >= self.limits.max_queues {
                    let max = self.limits.max_queues;
                    return Err(JobsError::field(
                        "queue",
                        format!("`{q}` would be queue number {}, the limit (jobs.max_queues) is {max}", max + 1),
                    ));
                }
                known.insert((*q).clone());
            }
        }
        if limited.is_empty() || self.reserve(&limited, true).is_ok() {
            return Ok(());
        }
        // Counted as full, or counted too long ago: ask the store before anybody is refused.
        self.refresh().await?;
        self.reserve(&limited, false).inspect_err(|e| {
            if let JobsError::QueueFull { queue, .. } = e {
                metrics::counter!(names::JOBS_SHED, "queue" => queue.to_string()).increment(1);
            }
        })
    }

    fn reserve(&self, limited: &[(&QueueName, u64, u64)], only_if_fresh: bool) -> Result<(), JobsError> {
        let mut depths = self.depths.lock().unwrap_or_else(PoisonError::into_inner);
        let stale = only_if_fresh && self.clock.now().since(depths.read_at) > COUNTS_FRESH;
        for (queue, n, limit) in limited {
            let depth = depths.waiting.get(*queue).copied().unwrap_or(0);
            if stale || depth + n > *limit {
                let (queue, limit) = ((*queue).clone(), *limit);
                return Err(JobsError::QueueFull { queue, depth, limit, retry_after: RETRY_AFTER });
            }
        }
        for (queue, n, _) in limited {
            match depths.waiting.get_mut(*queue) {
                Some(depth) => *depth += n,
                None => drop(depths.waiting.insert((*queue).clone(), *n)),
            }
        }
        Ok(())
    }

    /// Reads the counts of all queues; callers that come together share one reading.
    async fn refresh(&self) -> Result<(), JobsError> {
        let _one_at_a_time = self.refresh.lock().await;
        let queues = self.fleet.queues().await?;
        self.known.write().unwrap_or_else(PoisonError::into_inner).extend(queues.iter().map(|q| q.name.clone()));
        let mut depths = self.depths.lock().unwrap_or_else(PoisonError::into_inner);
        depths.read_at = self.clock.now();
        depths.waiting = queues.into_iter().map(|q| (q.name, q.counts.queued + q.counts.scheduled)).collect();
        Ok(())
    }
}
