//! Jobs as rows and back.

use rusqlite::Row;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Fault;
use crate::{
    base::{
        clock::Timestamp,
        id::{JobId, KindName, Priority, QueueName, WorkerId},
    },
    jobs::{
        model::{ATTEMPTS_KEPT, Attempt, AttemptOutcome, Job},
        state::State,
    },
};

/// The columns of [`job`], in its order.
pub(super) const JOB: &str = "id, state, queue, priority, kind, at, created, failures, crashes, fence, cancel, worker, \
                              started, spec, progress, result, error, attempts";

pub(super) fn corrupt(what: &str, e: impl std::fmt::Display) -> Fault {
    Fault::Corrupt(format!("{what}: {e}"))
}

pub(super) fn uuid(row: &Row<'_>, i: usize) -> Result<Uuid, Fault> {
    let bytes = row.get_ref(i)?.as_blob().map_err(|e| corrupt("id", e))?;
    Uuid::from_slice(bytes).map_err(|e| corrupt("id", e))
}

pub(super) fn queue(row: &Row<'_>, i: usize) -> Result<QueueName, Fault> {
    let text = row.get_ref(i)?.as_str().map_err(|e| corrupt("queue", e))?;
    QueueName::stored(text).map_err(|e| corrupt("queue", e))
}

pub(super) fn state(row: &Row<'_>, i: usize) -> Result<State, Fault> {
    let n: i64 = row.get(i)?;
    State::from_number(n).ok_or_else(|| corrupt("state", n))
}

pub(super) fn time(row: &Row<'_>, i: usize) -> Result<Timestamp, Fault> {
    Ok(Timestamp::from_millis(row.get(i)?))
}

pub(super) fn priority(row: &Row<'_>, i: usize) -> Result<Priority, Fault> {
    Priority::new(row.get(i)?).map_err(|e| corrupt("priority", e))
}

fn text(row: &Row<'_>, i: usize, what: &str) -> Result<String, Fault> {
    Ok(row.get_ref(i)?.as_str().map_err(|e| corrupt(what, e))?.to_owned())
}

fn opt_text(row: &Row<'_>, i: usize, what: &str) -> Result<Option<String>, Fault> {
    Ok(row.get_ref(i)?.as_str_or_null().map_err(|e| corrupt(what, e))?.map(str::to_owned))
}

fn opt_json<T: DeserializeOwned>(text: Option<&str>, what: &str) -> Result<Option<T>, Fault> {
    text.map(|t| serde_json::from_str(t).map_err(|e| corrupt(what, e))).transpose()
}

/// A row of [`JOB`] as it is stored. Taken from a statement at once and made sense of elsewhere: the one thread that
/// writes has better things to do than to parse.
pub(super) struct RawJob {
    pub(super) id: JobId,
    pub(super) state: State,
    pub(super) queue: String,
    priority: Priority,
    kind: String,
    pub(super) at: Timestamp,
    created: Timestamp,
    failures: u32,
    crashes: u32,
    pub(super) fence: i64,
    cancel: bool,
    pub(super) worker: Option<WorkerId>,
    pub(super) started: Option<i64>,
    spec: String,
    pub(super) progress: Option<String>,
    result: Option<String>,
    error: Option<String>,
    attempts: Option<String>,
}

/// Takes a row of [`JOB`].
pub(super) fn raw(row: &Row<'_>) -> Result<RawJob, Fault> {
    let worker = match row.get_ref(11)?.as_blob_or_null().map_err(|e| corrupt("worker", e))? {
        Some(bytes) => Some(WorkerId(Uuid::from_slice(bytes).map_err(|e| corrupt("worker", e))?)),
        None => None,
    };
    Ok(RawJob {
        id: JobId(uuid(row, 0)?),
        state: state(row, 1)?,
        queue: text(row, 2, "queue")?,
        priority: priority(row, 3)?,
        kind: text(row, 4, "kind")?,
        at: time(row, 5)?,
        created: time(row, 6)?,
        failures: row.get(7)?,
        crashes: row.get(8)?,
        fence: row.get(9)?,
        cancel: row.get(10)?,
        worker,
        started: row.get(12)?,
        spec: text(row, 13, "spec")?,
        progress: opt_text(row, 14, "progress")?,
        result: opt_text(row, 15, "result")?,
        error: opt_text(row, 16, "error")?,
        attempts: opt_text(row, 17, "attempts")?,
    })
}

impl RawJob {
    /// How much of it there is.
    pub(super) fn bytes(&self) -> usize {
        let of = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.spec.len() + of(&self.progress) + of(&self.result) + of(&self.error) + of(&self.attempts)
    }

    /// Makes sense of it.
    pub(super) fn job(self) -> Result<Job, Fault> {
        let mut job = Job {
            id: self.id,
            state: self.state,
            queue: QueueName::stored(&self.queue).map_err(|e| corrupt("queue", e))?,
            priority: self.priority,
            kind: KindName::new(&self.kind).map_err(|e| corrupt("kind", e))?,
            at: self.at,
            created_at: self.created,
            failures: self.failures,
            crashes: self.crashes,
            fence: self.fence.try_into().map_err(|e| corrupt("fence", e))?,
            cancel_requested: self.cancel,
            worker: self.worker,
            started_at: self.started.map(Timestamp::from_millis),
            spec: serde_json::from_str(&self.spec).map_err(|e| corrupt("spec", e))?,
            progress: opt_json(self.progress.as_deref(), "progress")?,
            result: self.result.map(RawValue::from_string).transpose().map_err(|e| corrupt("result", e))?,
            error: opt_json(self.error.as_deref(), "error")?,
            attempts: self.attempts.as_deref().map_or(Ok(Vec::new()), attempts)?,
        };
        // A success is not in the history: the row itself says all there is to say of it.
        if let (State::Succeeded, Some(worker), Some(started_at)) = (job.state, job.worker, job.started_at) {
            let (run, finished_at, outcome) = (job.fence, job.at, AttemptOutcome::Succeeded);
            job.attempts.push(Attempt { run, worker, started_at, finished_at, outcome, error: None, retry_at: None });
            let over = job.attempts.len().saturating_sub(ATTEMPTS_KEPT);
            job.attempts.drain(..over);
        }
        Ok(job)
    }
}

/// Reads a job from the columns [`JOB`].
pub(super) fn job(row: &Row<'_>) -> Result<Job, Fault> {
    raw(row)?.job()
}

/// The history is kept as JSON objects with commas between, so that one more is only appended.
pub(super) fn attempts(text: &str) -> Result<Vec<Attempt>, Fault> {
    serde_json::from_str(&format!("[{text}]")).map_err(|e| corrupt("attempts", e))
}

/// The history with one more run, of which `new` is the JSON; the oldest beyond [`ATTEMPTS_KEPT`] are dropped.
pub(super) fn append(history: Option<&str>, run: u64, new: &str) -> Result<String, Fault> {
    match history {
        None => Ok(new.to_owned()),
        // Every run adds at most one, so only a long history needs to be read.
        Some(old) if run <= ATTEMPTS_KEPT as u64 => Ok(format!("{old},{new}")),
        Some(old) => {
            let all = attempts(old)?;
            let over = (all.len() + 1).saturating_sub(ATTEMPTS_KEPT);
            let mut texts = all.iter().skip(over).map(|a| to_json("attempt", a)).collect::<Result<Vec<_>, _>>()?;
            texts.push(new.to_owned());
            Ok(texts.join(","))
        }
    }
}

pub(super) fn to_json<T: serde::Serialize>(what: &str, value: &T) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|e| corrupt(what, e))
}

/// Reads one job.
pub(super) const SELECT_ONE: &str = "SELECT id, state, queue, priority, kind, at, created, failures, crashes, fence, \
                                     cancel, worker, started, spec, progress, result, error, attempts \
                                     FROM jobs WHERE id = ?1";
