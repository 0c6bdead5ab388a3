//! Counts accepted jobs by kind and queue.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use super::model::Job;
use crate::{
    base::id::{KindName, QueueName},
    telemetry::metrics as names,
};

/// Counters of accepted jobs: looked up once for each kind and queue, because a look-up costs more than the count.
#[derive(Default)]
pub(super) struct Meter(RwLock<HashMap<(KindName, QueueName), metrics::Counter>>);

impl Meter {
    /// What to count once the jobs are accepted.
    pub(super) fn counts(jobs: &[Job]) -> Vec<((KindName, QueueName), u64)> {
        jobs.chunk_by(|a, b| a.kind == b.kind && a.queue == b.queue)
            .filter_map(|same| same.first().map(|j| ((j.kind.clone(), j.queue.clone()), same.len() as u64)))
            .collect()
    }

    pub(super) fn submitted(&self, counts: Vec<((KindName, QueueName), u64)>) {
        for (key, n) in counts {
            if let Some(counter) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
                counter.increment(n);
                continue;
            }
            let labels = [("kind", key.0.to_string()), ("queue", key.1.to_string())];
            let counter = metrics::counter!(names::JOBS_SUBMITTED, &labels);
            counter.increment(n);
            self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key, counter);
        }
    }
}
