//! Accepting jobs and reading them back: what every way into the queue goes through.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, RwLock, atomic::AtomicI64},
    time::Duration,
};

use serde_json::{Value, value::RawValue};

use super::{
    authority::Authority,
    error::JobsError,
    meter::Meter,
    model::{Job, Spec},
    registry::Registry,
    state::State,
    store::{Durable, FleetStore, Idempotency, Inserted, JobFilter, JobStore},
};
use crate::{
    base::{
        backoff::Backoff,
        clock::{Clock, Timestamp},
        error::FieldError,
        failpoint,
        id::{JobId, KindName, Priority, QueueName},
        page::{Page, PageRequest},
    },
    broker::{Broker, WakeUp},
};

/// Bounds on what is accepted, from the configuration.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest payload in bytes.
    pub max_payload: usize,
    /// Most jobs in one bulk submit.
    pub bulk_max: usize,
    /// Most tags on a job.
    pub max_tags: usize,
    /// Most queues that may exist.
    pub max_queues: usize,
    /// Furthest a job may be put off.
    pub max_delay: Duration,
    /// Longest time-out a job may ask for.
    pub max_timeout: Duration,
    /// How long an idempotency key is remembered.
    pub idempotency_ttl: Duration,
    /// Most waiting jobs in a queue that is not in `depth_limits`; 0 for no limit.
    pub depth_limit: u64,
    /// Most waiting jobs in these queues; 0 for no limit.
    pub depth_limits: HashMap<QueueName, u64>,
    /// Queues that exist without any job.
    pub queues: Vec<QueueName>,
}

/// Most attempts a job may ask for.
pub const MAX_ATTEMPTS: u32 = 1000;
/// Longest tag in characters.
pub const TAG_MAX: usize = 100;

/// A job as someone asks for it. What is none comes from its kind.
#[derive(Clone, Debug)]
pub struct Submit {
    /// What should run.
    pub kind: KindName,
    /// Its input; `{}` if none.
    pub payload: Option<Box<RawValue>>,
    /// Where it should wait.
    pub queue: Option<QueueName>,
    /// How urgent it is.
    pub priority: Option<Priority>,
    /// Not before this time.
    pub run_at: Option<Timestamp>,
    /// Not before this much time went by.
    pub delay: Option<Duration>,
    /// Attempts it may spend.
    pub max_attempts: Option<u32>,
    /// Longest run.
    pub timeout: Option<Duration>,
    /// Delay between attempts.
    pub backoff: Option<Backoff>,
    /// Labels.
    pub tags: Vec<String>,
}

/// Where a request came from: what its caller may do, and its names in logs and traces.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// What the caller may do with kinds that ask for more than their route.
    pub authority: Authority,
    /// The request's id.
    pub correlation_id: Option<String>,
    /// Its W3C trace context.
    pub traceparent: Option<String>,
}

/// A caller's idempotency key, with a fingerprint of the request it came with.
#[derive(Clone, Debug)]
pub struct Key {
    /// Whose key it is.
    pub scope: String,
    /// The key.
    pub key: String,
    /// SHA-256 of the request.
    pub request: [u8; 32],
}

/// An accepted submit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// What to answer.
    pub answer: Vec<u8>,
    /// It is the answer of an earlier, equal request.
    pub replayed: bool,
}

/// The job queue, as the other rooms use it.
pub struct Jobs {
    pub(super) store: Arc<dyn JobStore>,
    pub(super) fleet: Arc<dyn FleetStore>,
    pub(super) broker: Arc<dyn Broker>,
    /// Until when a broker that did not answer is left alone, in milliseconds.
    pub(super) broker_silent: Arc<AtomicI64>,
    pub(super) registry: Arc<Registry>,
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    pub(super) known: RwLock<HashSet<QueueName>>,
    pub(super) depths: Mutex<Depths>,
    pub(super) refresh: tokio::sync::Mutex<()>,
    meter: Meter,
}

#[derive(Default)]
pub(super) struct Depths {
    pub(super) read_at: Timestamp,
    pub(super) waiting: HashMap<QueueName, u64>,
    /// Admitted, but not stored yet.
    pub(super) on_the_way: HashMap<QueueName, u64>,
}

impl Jobs {
    /// Puts the queue together.
    #[must_use]
    pub fn new(
        store: Arc<dyn JobStore>,
        fleet: Arc<dyn FleetStore>,
        broker: Arc<dyn Broker>,
        registry: Arc<Registry>,
        clock: Clock,
        limits: Limits,
    ) -> Self {
        let known = RwLock::new(limits.queues.iter().cloned().collect());
        Self {
            store,
            fleet,
            broker,
            broker_silent: Arc::default(),
            registry,
            clock,
            limits,
            known,
            depths: Mutex::default(),
            refresh: tokio::sync::Mutex::new(()),
            meter: Meter::default(),
        }
    }

    /// The kinds this process knows.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The limit of waiting jobs in `queue`, if it has one.
    #[must_use]
    pub fn depth_limit(&self, queue: &QueueName) -> Option<u64> {
        let limit = self.limits.depth_limits.get(queue).copied().unwrap_or(self.limits.depth_limit);
        (limit > 0).then_some(limit)
    }

    /// Accepts jobs: all or none. When this returns, they are durable and will run whatever happens to this process.
    ///
    /// `render` makes the answer from the jobs; with a key it is stored with them, and the same request gets it again.
    ///
    /// # Errors
    /// If the request is wrong, a queue is full, the key was used for another request, or the store fails. A broker
    /// that is away is no error: the scheduler wakes the jobs later.
    pub async fn submit(
        &self,
        asked: Vec<Submit>,
        origin: &Origin,
        key: Option<Key>,
        render: impl FnOnce(&[Job]) -> Vec<u8>,
    ) -> Result<Submitted, JobsError> {
        if let Some(k) = &key
            && let Some(before) = self.recall(k).await?
        {
            return Ok(before);
        }
        self.accept(asked, origin, key, render).await
    }

    /// The same for a caller that has asked [`Jobs::recall`] already. A key that was used in between is noticed all the same.
    ///
    /// # Errors
    /// As [`Jobs::submit`].
    pub async fn accept(
        &self,
        asked: Vec<Submit>,
        origin: &Origin,
        key: Option<Key>,
        render: impl FnOnce(&[Job]) -> Vec<u8>,
    ) -> Result<Submitted, JobsError> {
        let now = self.clock.now();
        let jobs = self.build(asked, origin, now)?;
        let places = self.admit(&jobs).await?;
        let (first, count) = (jobs.first().map(|j| j.id), jobs.len());
        let answer = render(&jobs);
        let wake_ups: Vec<WakeUp> = jobs
            .iter()
            .filter(|j| j.state == State::Queued)
            .map(|j| WakeUp { job: j.id, queue: j.queue.clone(), priority: j.priority })
            .collect();
        let counts = Meter::counts(&jobs);
        let key_text = key.as_ref().map(|k| k.key.clone());
        let key = key.map(|k| Idempotency {
            scope: k.scope,
            key: k.key,
            request: k.request,
            answer: answer.clone(),
            expires_at: now.plus(self.limits.idempotency_ttl),
        });
        let durable = match (<[Job; 1]>::try_from(jobs), key) {
            (Ok([only]), None) => self.store.insert_early(only).await?,
            (jobs, key) => {
                let jobs = jobs.map_or_else(|many| many, Vec::from);
                match self.store.insert(jobs, key).await? {
                    Inserted::New => Durable::already(),
                    Inserted::Replay(answer) => return Ok(Submitted { answer, replayed: true }),
                    Inserted::KeyReused => return Err(key_reused(&key_text.unwrap_or_default())),
                }
            }
        };
        drop(places);
        failpoint::hit("submit.after_insert");
        let (durable, ()) = tokio::join!(durable.wait(), self.wake(&wake_ups));
        durable?;
        self.meter.submitted(counts);
        failpoint::hit("submit.after_publish");
        if let Some(job) = first {
            let request_id = origin.correlation_id.as_deref().unwrap_or("-");
            tracing::info!(%job, count, request_id, "job accepted");
        }
        Ok(Submitted { answer, replayed: false })
    }

    /// What was answered under this key before; none if it is new.
    ///
    /// # Errors
    /// If the key was used for another request, or the store fails.
    pub async fn recall(&self, key: &Key) -> Result<Option<Submitted>, JobsError> {
        match self.store.recall(&key.scope, &key.key, self.clock.now()).await? {
            Some((request, answer)) if request == key.request => Ok(Some(Submitted { answer, replayed: true })),
            Some(_) => Err(key_reused(&key.key)),
            None => Ok(None),
        }
    }

    /// Reads one job.
    ///
    /// # Errors
    /// If there is none, or the store fails.
    pub async fn get(&self, id: JobId) -> Result<Job, JobsError> {
        self.store.get(id).await?.ok_or_else(|| JobsError::NotFound(format!("there is no job {id}")))
    }

    /// Reads one job, at the latest when it has ended, `patience` is over, or `hurry` says that the caller must go.
    ///
    /// # Errors
    /// If there is none, or the store fails.
    pub async fn wait(&self, id: JobId, patience: Duration, hurry: impl Fn() -> bool) -> Result<Job, JobsError> {
        let deadline = tokio::time::Instant::now() + patience;
        let mut pause = Duration::from_millis(10);
        loop {
            let job = self.get(id).await?;
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if job.state.is_final() || left.is_zero() || hurry() {
                return Ok(job);
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(Duration::from_millis(250));
        }
    }

    /// Lists jobs, newest first.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn list(&self, filter: &JobFilter, page: PageRequest) -> Result<Page<Job>, JobsError> {
        Ok(self.store.list(filter, page).await?)
    }

    fn build(&self, asked: Vec<Submit>, origin: &Origin, now: Timestamp) -> Result<Vec<Job>, JobsError> {
        if asked.is_empty() || asked.len() > self.limits.bulk_max {
            let message = format!("holds {} jobs, but must hold 1 to {}", asked.len(), self.limits.bulk_max);
            return Err(JobsError::field("jobs", message));
        }
        let bulk = asked.len() > 1;
        let mut jobs = Vec::with_capacity(asked.len());
        let mut faults = Vec::new();
        for (i, submit) in asked.into_iter().enumerate() {
            match self.build_one(submit, origin, now) {
                Ok(job) => jobs.push(job),
                Err(JobsError::Invalid(f)) if bulk => {
                    faults.extend(f.into_iter().map(|e| e.under(&format!("jobs[{i}]"))));
                }
                Err(JobsError::TooLarge { field, size, limit }) if bulk => {
                    return Err(JobsError::TooLarge { field: format!("jobs[{i}].{field}"), size, limit });
                }
                Err(e) => return Err(e),
            }
            if faults.len() >= 20 {
                break;
            }
        }
        if faults.is_empty() { Ok(jobs) } else { Err(JobsError::Invalid(faults)) }
    }

    fn build_one(&self, submit: Submit, origin: &Origin, now: Timestamp) -> Result<Job, JobsError> {
        let Some(kind) = self.registry.get(submit.kind.as_str()) else {
            let known: Vec<_> = self.registry.iter().map(|k| k.name.as_str()).collect();
            let message = format!("`{}` is not a known job kind; known are {}", submit.kind, known.join(", "));
            return Err(JobsError::field("kind", message));
        };
        if kind.internal && !origin.authority.submit_internal {
            let message = format!(
                "`{}` cannot be submitted as a job: send notifications by POST /api/v1/notifications",
                submit.kind
            );
            return Err(JobsError::field("kind", message));
        }
        kind.right.ask(&kind.name, origin.authority)?;
        let mut faults = self.check_limits(&submit);
        let payload = match submit.payload {
            Some(p) => p,
            None => empty_payload()?,
        };
        faults.extend(match kind.internal {
            // Made by this program from the type that will read it: the schema has nothing to add.
            true => {
                self.check_size(&payload)?;
                unfit(kind, &payload).into_iter().collect()
            }
            false => self.check_payload(kind, &payload)?,
        });
        let run_at = match (submit.run_at, submit.delay) {
            (Some(_), Some(_)) => {
                faults.push(FieldError::new("delay", "cannot be given together with run_at"));
                now
            }
            (Some(at), None) if at > now.plus(self.limits.max_delay) => {
                faults.push(FieldError::new("run_at", self.too_far()));
                now
            }
            (Some(at), None) => at,
            (None, Some(d)) if d > self.limits.max_delay => {
                faults.push(FieldError::new("delay", self.too_far()));
                now
            }
            (None, Some(d)) => now.plus(d),
            (None, None) => now,
        };
        if !faults.is_empty() {
            return Err(JobsError::Invalid(faults));
        }
        let timeout = submit.timeout.unwrap_or(kind.timeout).as_millis().max(1);
        let (state, at) = if run_at > now { (State::Scheduled, run_at) } else { (State::Queued, now) };
        Ok(Job {
            id: JobId(self.clock.new_uuid()),
            kind: kind.name.clone(),
            queue: submit.queue.unwrap_or_else(|| kind.queue.clone()),
            priority: submit.priority.unwrap_or(kind.priority),
            spec: Spec {
                v: Spec::VERSION,
                payload,
                max_attempts: submit.max_attempts.unwrap_or(kind.max_attempts),
                timeout_ms: u64::try_from(timeout).unwrap_or(u64::MAX),
                backoff: submit.backoff.unwrap_or(kind.backoff),
                tags: submit.tags,
                correlation_id: origin.correlation_id.clone(),
                traceparent: origin.traceparent.clone(),
            },
            created_at: now,
            state,
            at,
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

    pub(super) fn check_payload(
        &self,
        kind: &super::registry::Kind,
        payload: &RawValue,
    ) -> Result<Vec<FieldError>, JobsError> {
        self.check_size(payload)?;
        // Parsing also refuses nesting deeper than serde_json's limit of 128.
        match serde_json::from_str::<Value>(payload.get()) {
            Ok(value) => {
                let faults = kind.schema.check(&value);
                // A schema cannot say all that a type can: what would fail at its first run is refused here.
                Ok(if faults.is_empty() { unfit(kind, payload).into_iter().collect() } else { faults })
            }
            Err(e) => Ok(vec![FieldError::new("payload", format!("cannot be read: {e}"))]),
        }
    }

    fn check_size(&self, payload: &RawValue) -> Result<(), JobsError> {
        let (size, limit) = (payload.get().len(), self.limits.max_payload);
        if size > limit {
            return Err(JobsError::TooLarge { field: "payload".into(), size, limit });
        }
        Ok(())
    }

    fn check_limits(&self, s: &Submit) -> Vec<FieldError> {
        let mut faults = Vec::new();
        if s.max_attempts.is_some_and(|n| n == 0 || n > MAX_ATTEMPTS) {
            faults.push(FieldError::new("max_attempts", format!("must be 1 to {MAX_ATTEMPTS}")));
        }
        if s.timeout.is_some_and(|t| t.is_zero() || t > self.limits.max_timeout) {
            let max = self.limits.max_timeout.as_secs();
            faults.push(FieldError::new("timeout", format!("must be more than 0 and at most {max} seconds")));
        }
        if s.backoff.is_some_and(|b| b.cap_ms < b.base_ms) {
            faults.push(FieldError::new("backoff.cap", "must not be less than backoff.base"));
        }
        if s.tags.len() > self.limits.max_tags {
            faults.push(FieldError::new("tags", format!("are more than {}", self.limits.max_tags)));
        }
        for (i, tag) in s.tags.iter().enumerate() {
            if tag.is_empty() || tag.chars().count() > TAG_MAX || tag.chars().any(char::is_control) {
                let message = format!("must be 1 to {TAG_MAX} characters without control characters");
                faults.push(FieldError::new(format!("tags[{i}]"), message));
            }
        }
        faults
    }

    fn too_far(&self) -> String {
        format!("is further away than {} days (jobs.max_delay)", self.limits.max_delay.as_secs() / 86_400)
    }
}

/// What keeps the kind from reading this payload.
fn unfit(kind: &super::registry::Kind, payload: &RawValue) -> Option<FieldError> {
    kind.handler.check(payload).err().map(|message| FieldError::new("payload", message))
}

fn key_reused(key: &str) -> JobsError {
    JobsError::Conflict(format!(
        "the key `{key}` (Idempotency-Key or request_id) was used before with another request: use a new key"
    ))
}

fn empty_payload() -> Result<Box<RawValue>, JobsError> {
    RawValue::from_string("{}".to_owned()).map_err(|e| JobsError::field("payload", e.to_string()))
}
