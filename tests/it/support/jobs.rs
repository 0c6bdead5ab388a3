//! Jobs, names and records to test with.

use app::{
    base::{
        backoff::Backoff,
        clock::{Clock, Timestamp},
        id::{JobId, KindName, Priority, QueueName, WorkerId},
    },
    jobs::{
        model::{Attempt, AttemptOutcome, Job, JobError, Spec},
        state::State,
        store::{Finish, WorkerReport},
    },
};
use serde_json::value::RawValue;

/// When the manual clocks of the tests start.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

pub(crate) fn queue(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

pub(crate) fn kind(name: &str) -> KindName {
    KindName::new(name).unwrap()
}

pub(crate) fn priority(n: i64) -> Priority {
    Priority::new(n).unwrap()
}

pub(crate) fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

pub(crate) fn worker(clock: &Clock) -> WorkerId {
    WorkerId(clock.new_uuid())
}

/// A job as it is before it is stored: queued now in `default`.
pub(crate) fn new_job(clock: &Clock) -> Job {
    let now = clock.now();
    Job {
        id: JobId(clock.new_uuid()),
        kind: kind("noop"),
        queue: queue("default"),
        priority: Priority::MEDIUM,
        spec: Spec {
            v: Spec::VERSION,
            payload: raw("{\"a\": 1}"),
            max_attempts: 3,
            timeout_ms: 60_000,
            backoff: Backoff { base_ms: 1000, cap_ms: 60_000 },
            tags: Vec::new(),
            correlation_id: None,
            traceparent: None,
        },
        created_at: now,
        state: State::Queued,
        at: now,
        failures: 0,
        crashes: 0,
        fence: 0,
        worker: None,
        started_at: None,
        cancel_requested: false,
        progress: None,
        result: None,
        error: None,
        attempts: Vec::new(),
    }
}

/// The record of the present run of `job`, ended at `now`.
pub(crate) fn attempt(job: &Job, now: Timestamp, outcome: AttemptOutcome, error: Option<JobError>) -> Attempt {
    Attempt {
        run: job.fence,
        worker: job.worker.expect("was claimed"),
        started_at: job.started_at.expect("was claimed"),
        finished_at: now,
        outcome,
        error,
        retry_at: None,
    }
}

/// Everything of a job that a store keeps, as text that can be compared and read.
pub(crate) fn text(job: &Job) -> String {
    format!("{job:#?}")
}

/// What a worker of these queues says of itself.
pub(crate) fn report(id: WorkerId, now: Timestamp) -> WorkerReport {
    WorkerReport {
        id,
        host: "host-ü".to_owned(),
        pid: 4_000_000,
        version: "0.0.0".to_owned(),
        started_at: now,
        heartbeat_at: now,
        draining: false,
        queues: vec![(queue("b"), 3), (queue("a"), 1)],
        set_aside: Vec::new(),
        slots: 8,
        busy: 1,
        kinds: vec![kind("noop"), kind("process_heavy_task")],
        active: Vec::new(),
        totals: app::jobs::store::Totals { started: 4, succeeded: 3, failed: 2, retried: 1 },
        last_minute: Vec::new(),
        rss_bytes: 1 << 40,
    }
}

/// A finish of the present run of `job`.
pub(crate) fn finish(job: &Job, verdict: app::jobs::state::Verdict, attempt: Attempt) -> Finish {
    Finish { id: job.id, fence: job.fence, verdict, attempt, event: None }
}
