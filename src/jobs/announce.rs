//! Events as jobs: how what happened gets into the queue, and which ends of jobs are told at all.
//!
//! A store writes the job of an event in the transaction that writes the change (see [`crate::events`]). Ends of jobs are
//! the busiest change there is, so they are told only while somebody listens: [`Listened`] says who.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use serde_json::{json, value::RawValue};
use uuid::Uuid;

use super::{
    model::{Job, JobError, Spec},
    service::Jobs,
    state::State,
};
use crate::{
    base::{
        backoff::Backoff,
        clock::Timestamp,
        id::{JobId, KindName, Priority, QueueName},
    },
    broker::{self, WakeUp},
    events::{self, Bell, Event},
};

/// Attempts at an event, spread over about a day: its rules may need a database that is away.
const MAX_ATTEMPTS: u32 = 100;
/// Longest run of an event, in milliseconds.
const TIMEOUT_MS: u64 = 60_000;

/// The job as which `event` waits.
///
/// # Errors
/// A sentence, if the event is no JSON, which is a defect.
pub fn job_of(event: &Event) -> Result<Job, String> {
    let payload = serde_json::to_string(event).and_then(RawValue::from_string).map_err(|e| e.to_string())?;
    Ok(Job {
        id: JobId(event.id),
        kind: KindName::new(events::KIND)?,
        queue: QueueName::new(events::QUEUE)?,
        priority: Priority::MEDIUM,
        spec: Spec {
            v: Spec::VERSION,
            payload,
            max_attempts: MAX_ATTEMPTS,
            timeout_ms: TIMEOUT_MS,
            backoff: Backoff { base_ms: 1_000, cap_ms: 900_000 },
            tags: vec![event.name.clone(), format!("subject:{}", event.subject)],
            correlation_id: event.correlation_id.clone(),
            traceparent: None,
        },
        created_at: event.at,
        state: State::Queued,
        at: event.at,
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
    })
}

/// Which ends of jobs somebody listens to. Clones are the same; whoever knows the rules sets it.
#[derive(Clone, Debug, Default)]
pub struct Listened(Arc<(AtomicBool, AtomicBool)>);

impl Listened {
    /// Says whether anybody listens to `job.finished` and to `job.failed`.
    pub fn set(&self, finished: bool, failed: bool) {
        self.0.0.store(finished, Ordering::Relaxed);
        self.0.1.store(failed, Ordering::Relaxed);
    }

    /// Whether this end of this job is to be told. Jobs that tell of others are not told of themselves: that would never end.
    #[must_use]
    pub fn wants(&self, job: &Job, end: State) -> bool {
        let listened = match end {
            State::Succeeded => self.0.0.load(Ordering::Relaxed),
            State::Failed => self.0.1.load(Ordering::Relaxed),
            _ => false,
        };
        listened && job.kind.as_str() != events::KIND && !job.kind.as_str().starts_with("notification.")
    }
}

/// The event that tells of a job's end. Its id follows from the job's and the run's, so that a write that is repeated
/// tells nothing twice.
#[must_use]
pub fn end_of(job: &Job, end: State, error: Option<&JobError>, at: Timestamp) -> Event {
    let name = if end == State::Succeeded { "job.finished" } else { "job.failed" };
    Event {
        v: Event::VERSION,
        id: derived(job.id.0, &job.fence.to_string(), at),
        name: name.to_owned(),
        at,
        subject: job.id.to_string(),
        data: json!({
            "id": job.id, "kind": job.kind, "queue": job.queue, "tags": job.spec.tags, "state": end.as_str(),
            "error": error,
        }),
        correlation_id: job.spec.correlation_id.clone(),
    }
}

/// An id made at `at` that is always the same for the same words: what is done again under it is done once.
#[must_use]
pub fn derived(from: Uuid, word: &str, at: Timestamp) -> Uuid {
    use sha2::{Digest, Sha256};
    let hash = Sha256::new().chain_update(from.as_bytes()).chain_update(word).finalize();
    let mut random = [0; 10];
    random.iter_mut().zip(hash.iter()).for_each(|(r, h)| *r = *h);
    uuid::Builder::from_unix_timestamp_millis(u64::try_from(at.as_millis()).unwrap_or(0), &random).into_uuid()
}

/// What wakes who delivers an event.
#[must_use]
pub fn wake_up(event: &Event) -> Option<WakeUp> {
    let queue = QueueName::new(events::QUEUE).ok()?;
    Some(broker::wake_up(JobId(event.id), &queue, Priority::MEDIUM))
}

#[async_trait]
impl Bell for Jobs {
    async fn ring(&self, events: &[Event]) {
        let wake_ups: Vec<_> = events.iter().filter_map(wake_up).collect();
        self.wake(&wake_ups).await;
    }
}
