//! Counts what a worker does: for `/metrics`, for its report, and how long it took.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use metrics::{Counter, Gauge, Histogram};

use crate::{
    base::{
        clock::{Clock, Timestamp},
        id::{KindName, QueueName},
    },
    jobs::{
        model::{AttemptOutcome, Job},
        state::Verdict,
        store::Totals,
    },
    telemetry::metrics as names,
};

/// The worker's counts.
pub(crate) struct Meter {
    clock: Clock,
    state: Mutex<State>,
    busy: Gauge,
    lost: Counter,
}

#[derive(Default)]
struct State {
    totals: Totals,
    minute: i64,
    this_minute: HashMap<QueueName, Totals>,
    last_minute: HashMap<QueueName, Totals>,
    handles: HashMap<(KindName, QueueName), Arc<Handles>>,
}

/// Metric handles of one kind in one queue: looked up once, because a look-up costs more than the count.
pub(crate) struct Handles {
    kind: KindName,
    queue: QueueName,
    started: Counter,
    duration: Histogram,
    wait: Histogram,
    succeeded: Counter,
}

impl State {
    fn roll(&mut self, now: Timestamp) {
        let minute = now.as_millis() / 60_000;
        // The time is read before the table is locked; in the first moments of a minute it may still be the one before.
        if minute > self.minute {
            let full = std::mem::take(&mut self.this_minute);
            self.last_minute = if minute == self.minute + 1 { full } else { HashMap::new() };
            self.minute = minute;
        }
    }

    fn count(&mut self, queue: &QueueName, f: impl Fn(&mut Totals)) {
        f(&mut self.totals);
        match self.this_minute.get_mut(queue) {
            Some(t) => f(t),
            None => f(self.this_minute.entry(queue.clone()).or_default()),
        }
    }
}

impl Meter {
    pub(crate) fn new(clock: Clock, slots: usize) -> Self {
        metrics::gauge!(names::WORKER_SLOTS).set(slots as f64);
        let busy = metrics::gauge!(names::WORKER_BUSY_SLOTS);
        Self { clock, state: Mutex::default(), busy, lost: metrics::counter!(names::LEASES_LOST) }
    }

    /// Notes the start of a job that was queued at `queued_at`.
    pub(crate) fn started(&self, job: &Job, queued_at: Timestamp) -> Arc<Handles> {
        let now = self.clock.now();
        let mut s = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        s.roll(now);
        s.count(&job.queue, |t| t.started += 1);
        let key = (job.kind.clone(), job.queue.clone());
        let handles = Arc::clone(s.handles.entry(key).or_insert_with(|| Arc::new(handles(job))));
        drop(s);
        handles.started.increment(1);
        handles.wait.record(now.since(queued_at).as_secs_f64());
        self.busy.increment(1);
        handles
    }

    /// Notes that a handler has ended.
    pub(crate) fn left(&self) {
        self.busy.decrement(1);
    }

    /// Notes that an end was written.
    pub(crate) fn ended(&self, h: &Handles, verdict: &Verdict, outcome: AttemptOutcome, seconds: f64) {
        h.duration.record(seconds);
        if outcome == AttemptOutcome::Succeeded {
            h.succeeded.increment(1);
        } else {
            let labels = [
                ("kind", h.kind.to_string()),
                ("queue", h.queue.to_string()),
                ("outcome", outcome.as_str().to_owned()),
            ];
            metrics::counter!(names::JOBS_FINISHED, &labels).increment(1);
        }
        let mut s = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        s.roll(self.clock.now());
        s.count(&h.queue, |t| match verdict {
            Verdict::Succeed(_) => t.succeeded += 1,
            Verdict::Fail => t.failed += 1,
            Verdict::Retry { .. } => t.retried += 1,
            Verdict::Snooze { .. } | Verdict::Cancel | Verdict::Release => {}
        });
    }

    /// Notes a job that was taken away.
    pub(crate) fn lost(&self) {
        self.lost.increment(1);
    }

    pub(crate) fn totals(&self) -> Totals {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).totals
    }

    pub(crate) fn last_minute(&self) -> Vec<(QueueName, Totals)> {
        let mut s = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        s.roll(self.clock.now());
        s.last_minute.iter().map(|(q, t)| (q.clone(), *t)).collect()
    }
}

fn handles(job: &Job) -> Handles {
    let (kind, queue) = (job.kind.to_string(), job.queue.to_string());
    let labels = [("kind", kind), ("queue", queue.clone())];
    let mut with_outcome = labels.to_vec();
    with_outcome.push(("outcome", AttemptOutcome::Succeeded.as_str().to_owned()));
    Handles {
        kind: job.kind.clone(),
        queue: job.queue.clone(),
        started: metrics::counter!(names::JOBS_STARTED, &labels),
        duration: metrics::histogram!(names::JOB_DURATION, &labels),
        wait: metrics::histogram!(names::JOB_WAIT, "queue" => queue),
        succeeded: metrics::counter!(names::JOBS_FINISHED, &with_outcome),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_start_does_not_forget_the_last_minute() {
        let queue = QueueName::new("default").unwrap();
        let at = |ms| Timestamp::from_millis(ms);
        let mut s = State::default();
        s.roll(at(60_000));
        for _ in 0..5 {
            s.count(&queue, |t| t.started += 1);
        }
        for ms in [120_000, 119_999, 120_001] {
            s.roll(at(ms));
            s.count(&queue, |t| t.started += 1);
        }
        assert_eq!((s.last_minute[&queue].started, s.this_minute[&queue].started), (5, 3));
        s.roll(at(240_000));
        assert!(s.last_minute.is_empty(), "a minute without anything lies between");
    }
}
