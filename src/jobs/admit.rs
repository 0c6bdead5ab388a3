//! Admission: full queues shed load, and names do not multiply without bound.
//!
//! Counts are read from the store at most once a second and carried forward by what this process accepts; nobody is
//! refused on an old count.

use std::{sync::PoisonError, time::Duration};

use super::{
    error::JobsError,
    model::Job,
    service::{Depths, Jobs},
};
use crate::{base::id::QueueName, telemetry::metrics as names};

/// How long counts are believed before the store is asked again.
const COUNTS_FRESH: Duration = Duration::from_secs(1);
/// What a shed caller is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(5);

impl Jobs {
    /// Refuses jobs for queues that are full, and new queues over the limit.
    /// The answer is held until the jobs are stored: until then they count as waiting.
    pub(super) async fn admit(&self, jobs: &[Job]) -> Result<Reservation<'_>, JobsError> {
        let mut wanted: Vec<(&QueueName, u64)> = Vec::new();
        for j in jobs {
            match wanted.iter_mut().find(|(q, _)| *q == &j.queue) {
                Some((_, n)) => *n += 1,
                None => wanted.push((&j.queue, 1)),
            }
        }
        let names: Vec<&QueueName> = wanted.iter().map(|(q, _)| *q).collect();
        self.admit_names(&names, "queue").await?;
        let limited: Vec<_> = wanted.iter().filter_map(|(q, n)| self.depth_limit(q).map(|l| (*q, *n, l))).collect();
        if let Some((queue, n, limit)) = limited.iter().find(|(_, n, limit)| n > limit) {
            let message = format!("holds {n} jobs for queue `{queue}`, whose limit is {limit}: send fewer at once");
            return Err(JobsError::field("jobs", message));
        }
        let reserved = || Reservation { jobs: self, of: limited.iter().map(|(q, n, _)| ((*q).clone(), *n)).collect() };
        if limited.is_empty() || self.reserve(&limited, true).is_ok() {
            return Ok(reserved());
        }
        // Counted as full, or counted too long ago: ask the store before anybody is refused.
        let refused = match self.refresh().await {
            Ok(()) => self.reserve(&limited, false).err(),
            Err(e) => Some(e),
        };
        let Some(e) = refused else { return Ok(reserved()) };
        if let JobsError::QueueFull { queue, .. } = &e {
            let n = wanted.iter().find(|(q, _)| *q == queue).map_or(1, |(_, n)| *n);
            metrics::counter!(names::JOBS_SHED, "queue" => queue.to_string()).increment(n);
        }
        Err(e)
    }

    /// Refuses names that would make more queues than may exist; `field` is where they stand in the request.
    pub(super) async fn admit_names(&self, names: &[&QueueName], field: &str) -> Result<(), JobsError> {
        let is_known = || {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            names.iter().all(|q| known.contains(*q))
        };
        if is_known() {
            return Ok(());
        }
        self.refresh().await?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<_> = names.iter().filter(|q| !known.contains(**q)).collect();
        let max = self.limits.max_queues;
        if let Some(first) = new.get(max.saturating_sub(known.len())) {
            let message = format!("`{first}` would be one queue more than the {max} that may exist (jobs.max_queues)");
            return Err(JobsError::field(field, message));
        }
        known.extend(new.into_iter().map(|q| (*q).clone()));
        Ok(())
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
            *depths.waiting.entry((*queue).clone()).or_default() += n;
            *depths.on_the_way.entry((*queue).clone()).or_default() += n;
        }
        Ok(())
    }

    /// Reads the counts of all queues; callers that come together share one reading.
    async fn refresh(&self) -> Result<(), JobsError> {
        let _one_at_a_time = self.refresh.lock().await;
        let queues = self.fleet.queues().await?;
        let names = queues.iter().map(|q| &q.name).chain(&self.limits.queues).cloned().collect();
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = names;
        let mut depths = self.depths.lock().unwrap_or_else(PoisonError::into_inner);
        depths.read_at = self.clock.now();
        depths.waiting = queues.into_iter().map(|q| (q.name, q.counts.queued + q.counts.scheduled)).collect();
        // Those on their way may or may not be among the counted: rather refuse one too early than take one too many.
        let Depths { waiting, on_the_way, .. } = &mut *depths;
        for (queue, n) in on_the_way.iter().filter(|(_, n)| **n > 0) {
            *waiting.entry(queue.clone()).or_default() += n;
        }
        Ok(())
    }
}

/// Places of jobs that are being stored.
pub(super) struct Reservation<'a> {
    jobs: &'a Jobs,
    of: Vec<(QueueName, u64)>,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.of.is_empty() {
            return;
        }
        let mut depths = self.jobs.depths.lock().unwrap_or_else(PoisonError::into_inner);
        for (queue, n) in &self.of {
            if let Some(on_the_way) = depths.on_the_way.get_mut(queue) {
                *on_the_way = on_the_way.saturating_sub(*n);
            }
        }
    }
}
