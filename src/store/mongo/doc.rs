//! Jobs as documents and back.
//!
//! A field that has its default is absent: most jobs never fail, and what is not written costs nothing. Times are BSON
//! dates, ids binary UUIDs, free JSON is kept as the text that the client wrote.

use ::mongodb::bson::{self, DateTime};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::fault::{Fault, corrupt};
use crate::{
    base::{
        clock::Timestamp,
        id::{JobId, KindName, Priority, QueueName, WorkerId},
    },
    jobs::{
        model::{ATTEMPTS_KEPT, Attempt, AttemptOutcome, Job},
        state::State,
        store::Waiting,
    },
};

pub(super) fn id(id: Uuid) -> bson::Uuid {
    bson::Uuid::from_bytes(id.into_bytes())
}

pub(super) fn ids(ids: impl IntoIterator<Item = JobId>) -> Vec<bson::Uuid> {
    ids.into_iter().map(|i| id(i.0)).collect()
}

pub(super) fn uuid(id: bson::Uuid) -> Uuid {
    Uuid::from_bytes(id.bytes())
}

pub(super) fn date(t: Timestamp) -> DateTime {
    DateTime::from_millis(t.as_millis())
}

pub(super) fn time(d: DateTime) -> Timestamp {
    Timestamp::from_millis(d.timestamp_millis())
}

pub(super) fn to_json<T: Serialize>(what: &str, value: &T) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|e| corrupt(what, e))
}

fn from_json<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|e| corrupt(what, e))
}

pub(super) fn queue(name: &str) -> Result<QueueName, Fault> {
    QueueName::stored(name).map_err(|e| corrupt("queue", e))
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// A job as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct JobDoc {
    #[serde(rename = "_id")]
    pub(super) id: bson::Uuid,
    /// [`State`] as its number.
    pub(super) state: i32,
    pub(super) queue: String,
    priority: i32,
    kind: String,
    /// The time that belongs to the state; of a running job, since when it was queued.
    pub(super) at: DateTime,
    pub(super) created: DateTime,
    spec: String,
    /// The tags in `spec`, to be found by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    failures: i32,
    #[serde(default, skip_serializing_if = "is_zero")]
    crashes: i32,
    #[serde(default, skip_serializing_if = "is_zero_i64")]
    pub(super) fence: i64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) cancel: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    worker: Option<bson::Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started: Option<DateTime>,
    /// Of a running job: when its lease runs out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lease: Option<DateTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    progress: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// JSON of each ended run, but not of the one that succeeded: the other fields say all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<String>,
    /// Which call changed it last (see [`super::write`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) by: Option<i64>,
    /// Which call claimed it last. A field of its own, because a cancel may change the job before the claimer reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) claim: Option<i64>,
}

fn is_zero_i64(n: &i64) -> bool {
    *n == 0
}

impl JobDoc {
    pub(super) fn new(job: &Job) -> Result<Self, Fault> {
        let attempts = job.attempts.iter().map(|a| to_json("attempt", a)).collect::<Result<_, _>>()?;
        Ok(Self {
            id: id(job.id.0),
            state: job.state as i32,
            queue: job.queue.to_string(),
            priority: i32::from(job.priority.get()),
            kind: job.kind.to_string(),
            at: date(job.at),
            created: date(job.created_at),
            spec: to_json("spec", &job.spec)?,
            tags: job.spec.tags.clone(),
            failures: job.failures.try_into().map_err(|e| corrupt("failures", e))?,
            crashes: job.crashes.try_into().map_err(|e| corrupt("crashes", e))?,
            fence: job.fence.try_into().map_err(|e| corrupt("fence", e))?,
            cancel: job.cancel_requested,
            worker: job.worker.map(|w| id(w.0)),
            started: job.started_at.map(date),
            lease: None,
            progress: job.progress.as_ref().map(|p| to_json("progress", p)).transpose()?,
            result: job.result.as_ref().map(|r| r.get().to_owned()),
            error: job.error.as_ref().map(|e| to_json("error", e)).transpose()?,
            attempts,
            by: None,
            claim: None,
        })
    }

    pub(super) fn job_id(&self) -> JobId {
        JobId(uuid(self.id))
    }

    pub(super) fn state(&self) -> Result<State, Fault> {
        State::from_number(self.state.into()).ok_or_else(|| corrupt("state", self.state))
    }

    /// A queued job as it runs under a lease that is still to be written out.
    pub(super) fn running(mut self, worker: bson::Uuid, started: DateTime, until: DateTime) -> Self {
        self.state = State::Running as i32;
        self.fence += 1;
        (self.worker, self.started, self.lease, self.progress) = (Some(worker), Some(started), Some(until), None);
        self
    }

    /// How much of it there is, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let of = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let attempts: usize = self.attempts.iter().map(String::len).sum();
        self.spec.len() + of(&self.progress) + of(&self.result) + of(&self.error) + attempts
    }

    /// What the scheduler tells the broker of it.
    pub(super) fn waiting(&self, since: Timestamp) -> Result<Waiting, Fault> {
        let priority = Priority::new(self.priority.into()).map_err(|e| corrupt("priority", e))?;
        Ok(Waiting { id: self.job_id(), queue: queue(&self.queue)?, priority, since })
    }

    /// Makes sense of it.
    pub(super) fn job(self) -> Result<Job, Fault> {
        let state = self.state()?;
        let at = match (state, self.lease) {
            (State::Running, Some(until)) => until,
            _ => self.at,
        };
        let mut job = Job {
            id: self.job_id(),
            state,
            queue: queue(&self.queue)?,
            priority: Priority::new(self.priority.into()).map_err(|e| corrupt("priority", e))?,
            kind: KindName::new(&self.kind).map_err(|e| corrupt("kind", e))?,
            at: time(at),
            created_at: time(self.created),
            failures: self.failures.try_into().map_err(|e| corrupt("failures", e))?,
            crashes: self.crashes.try_into().map_err(|e| corrupt("crashes", e))?,
            fence: self.fence.try_into().map_err(|e| corrupt("fence", e))?,
            cancel_requested: self.cancel,
            worker: self.worker.map(|w| WorkerId(uuid(w))),
            started_at: self.started.map(time),
            spec: from_json("spec", &self.spec)?,
            progress: self.progress.as_deref().map(|p| from_json("progress", p)).transpose()?,
            result: self.result.map(RawValue::from_string).transpose().map_err(|e| corrupt("result", e))?,
            error: self.error.as_deref().map(|e| from_json("error", e)).transpose()?,
            attempts: self.attempts.iter().map(|a| from_json("attempt", a)).collect::<Result<_, _>>()?,
        };
        if let (State::Succeeded, Some(worker), Some(started_at)) = (job.state, job.worker, job.started_at) {
            let (run, finished_at, outcome) = (job.fence, job.at, AttemptOutcome::Succeeded);
            job.attempts.push(Attempt { run, worker, started_at, finished_at, outcome, error: None, retry_at: None });
            let over = job.attempts.len().saturating_sub(ATTEMPTS_KEPT);
            job.attempts.drain(..over);
        }
        Ok(job)
    }
}
