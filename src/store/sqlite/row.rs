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
        model::{Attempt, Job},
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
    QueueName::new(text).map_err(|e| corrupt("queue", e))
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

fn small(row: &Row<'_>, i: usize) -> Result<u32, Fault> {
    Ok(row.get(i)?)
}

/// A column of JSON.
fn json<T: DeserializeOwned>(row: &Row<'_>, i: usize, what: &str) -> Result<T, Fault> {
    let text = row.get_ref(i)?.as_str().map_err(|e| corrupt(what, e))?;
    serde_json::from_str(text).map_err(|e| corrupt(what, e))
}

fn opt_json<T: DeserializeOwned>(row: &Row<'_>, i: usize, what: &str) -> Result<Option<T>, Fault> {
    match row.get_ref(i)?.as_str_or_null().map_err(|e| corrupt(what, e))? {
        Some(text) => serde_json::from_str(text).map(Some).map_err(|e| corrupt(what, e)),
        None => Ok(None),
    }
}

/// Reads a job from the columns [`JOB`].
pub(super) fn job(row: &Row<'_>) -> Result<Job, Fault> {
    let kind = row.get_ref(4)?.as_str().map_err(|e| corrupt("kind", e))?;
    let worker = match row.get_ref(11)?.as_blob_or_null().map_err(|e| corrupt("worker", e))? {
        Some(bytes) => Some(WorkerId(Uuid::from_slice(bytes).map_err(|e| corrupt("worker", e))?)),
        None => None,
    };
    let attempts = match row.get_ref(17)?.as_str_or_null().map_err(|e| corrupt("attempts", e))? {
        Some(text) => attempts(text)?,
        None => Vec::new(),
    };
    let result: Option<Box<RawValue>> = opt_json(row, 15, "result")?;
    Ok(Job {
        id: JobId(uuid(row, 0)?),
        state: state(row, 1)?,
        queue: queue(row, 2)?,
        priority: priority(row, 3)?,
        kind: KindName::new(kind).map_err(|e| corrupt("kind", e))?,
        at: time(row, 5)?,
        created_at: time(row, 6)?,
        failures: small(row, 7)?,
        crashes: small(row, 8)?,
        fence: row.get::<_, i64>(9)?.try_into().map_err(|e| corrupt("fence", e))?,
        cancel_requested: row.get(10)?,
        worker,
        started_at: row.get::<_, Option<i64>>(12)?.map(Timestamp::from_millis),
        spec: json(row, 13, "spec")?,
        progress: opt_json(row, 14, "progress")?,
        result,
        error: opt_json(row, 16, "error")?,
        attempts,
    })
}

/// The history is kept as JSON objects with commas between, so that one more is only appended.
pub(super) fn attempts(text: &str) -> Result<Vec<Attempt>, Fault> {
    serde_json::from_str(&format!("[{text}]")).map_err(|e| corrupt("attempts", e))
}

/// The history with one more run; the oldest beyond `kept` are dropped.
pub(super) fn append(history: Option<&str>, attempt: &Attempt, kept: usize) -> Result<String, Fault> {
    let new = to_json("attempt", attempt)?;
    match history {
        None => Ok(new),
        // Every kept run has a number below its successor's, so only a long history needs to be read.
        Some(old) if attempt.run <= kept as u64 => Ok(format!("{old},{new}")),
        Some(old) => {
            let mut all = attempts(old)?;
            all.push(attempt.clone());
            let drop = all.len().saturating_sub(kept);
            let texts: Result<Vec<String>, Fault> = all.iter().skip(drop).map(|a| to_json("attempt", a)).collect();
            Ok(texts?.join(","))
        }
    }
}

pub(super) fn to_json<T: serde::Serialize>(what: &str, value: &T) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|e| corrupt(what, e))
}
