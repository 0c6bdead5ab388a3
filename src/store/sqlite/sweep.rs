//! What the scheduler's passes do in the store: small indexed batches, safe to run twice.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Fault, control, records::event_rows, row, writer::Writing};
use crate::{
    base::{
        clock::Timestamp,
        id::{JobId, QueueName},
    },
    jobs::{
        announce::{self, Listened},
        model::Job,
        state::{Loss, State, lose},
        store::{Moved, Retention, Void, Waiting},
    },
};

pub(super) fn due(w: &mut Writing<'_>, now: Timestamp, limit: usize) -> Result<Vec<Waiting>, Fault> {
    let due = {
        let mut select = w.conn.prepare_cached(
            "SELECT id, queue FROM jobs INDEXED BY jobs_timed WHERE state = 0 AND at <= ?1 ORDER BY at LIMIT ?2",
        )?;
        let mut rows = select.query(params![now.as_millis(), limit as i64])?;
        let mut due = Vec::new();
        while let Some(r) = rows.next()? {
            due.push((JobId(row::uuid(r, 0)?), row::queue(r, 1)?));
        }
        due
    };
    let mut out = Vec::with_capacity(due.len());
    for (id, queue) in due {
        let priority = w
            .conn
            .prepare_cached("UPDATE jobs SET state = 1, at = ?2 WHERE id = ?1 AND state = 0 RETURNING priority")?
            .query_row(params![id.0.as_bytes(), now.as_millis()], |r| Ok(row::priority(r, 0)))??;
        w.moved(&queue, Some(State::Scheduled), Some(State::Queued));
        out.push(Waiting { id, queue, priority, since: now });
    }
    Ok(out)
}

pub(super) fn next_due(conn: &Connection) -> Result<Option<Timestamp>, Fault> {
    let at: Option<i64> = conn
        .prepare_cached("SELECT at FROM jobs INDEXED BY jobs_timed WHERE state = 0 ORDER BY at LIMIT 1")?
        .query_row([], |r| r.get(0))
        .optional()?;
    Ok(at.map(Timestamp::from_millis))
}

pub(super) fn void(
    w: &mut Writing<'_>,
    which: &Void,
    now: Timestamp,
    crash_limit: u32,
    limit: usize,
    listened: &Listened,
) -> Result<Vec<Moved>, Fault> {
    let lost = {
        let latest = match which {
            Void::Expired(at) => *at,
            Void::NotOwnedBy(_) => Timestamp::from_millis(i64::MAX),
        };
        let mut select = w.conn.prepare_cached(&format!(
            "SELECT {} FROM jobs INDEXED BY jobs_timed WHERE state = 2 AND at <= ?1 ORDER BY at",
            row::JOB
        ))?;
        let mut rows = select.query(params![latest.as_millis()])?;
        let mut lost = Vec::new();
        while let Some(r) = rows.next()? {
            let job = row::job(r)?;
            let spared = matches!(which, Void::NotOwnedBy(alive) if job.worker.is_some_and(|w| alive.contains(&w)));
            if !spared {
                lost.push(job);
            }
            if lost.len() == limit {
                break;
            }
        }
        lost
    };
    lost.into_iter().map(|job| take(w, job, now, crash_limit, listened)).collect()
}

fn take(w: &mut Writing<'_>, job: Job, now: Timestamp, crash_limit: u32, listened: &Listened) -> Result<Moved, Fault> {
    let Loss { state, at, crashes, error, attempt } = lose(&job, now, crash_limit);
    if listened.wants(&job, state) {
        super::jobs::insert(w, &event_rows([&announce::end_of(&job, state, error.as_ref(), now)])?, None)?;
    }
    let old = job.attempts.iter().map(|a| row::to_json("attempt", a)).collect::<Result<Vec<_>, _>>()?;
    let old = (!old.is_empty()).then(|| old.join(","));
    let history = row::append(old.as_deref(), attempt.run, &row::to_json("attempt", &attempt)?)?;
    let error = error.map(|e| row::to_json("error", &e)).transpose()?;
    w.conn
        .prepare_cached(
            "UPDATE jobs SET state = ?2, at = ?3, crashes = ?4, attempts = ?5, error = coalesce(?6, error) WHERE id = ?1",
        )?
        .execute(params![job.id.0.as_bytes(), state as i64, at.as_millis(), crashes, history, error])?;
    w.moved(&job.queue, Some(State::Running), Some(state));
    let job = Waiting { id: job.id, queue: job.queue, priority: job.priority, since: at };
    Ok(Moved { job, state })
}

pub(super) fn waiting(
    conn: &Connection,
    queue: &QueueName,
    before: Timestamp,
    after: Option<(Timestamp, JobId)>,
    limit: usize,
) -> Result<Vec<Waiting>, Fault> {
    let (at, id) = after.map_or((i64::MIN, uuid::Uuid::nil()), |(at, id)| (at.as_millis(), id.0));
    let mut select = conn.prepare_cached(
        "SELECT id, priority, at FROM jobs INDEXED BY jobs_queued
         WHERE state = 1 AND queue = ?1 AND at < ?2 AND (at, id) > (?3, ?4) ORDER BY at, id LIMIT ?5",
    )?;
    let mut rows = select.query(params![queue.as_str(), before.as_millis(), at, id.as_bytes(), limit as i64])?;
    let mut out = Vec::new();
    while let Some(r) = rows.next()? {
        let (id, priority, since) = (JobId(row::uuid(r, 0)?), row::priority(r, 1)?, row::time(r, 2)?);
        out.push(Waiting { id, queue: queue.clone(), priority, since });
    }
    Ok(out)
}

pub(super) fn retain(
    w: &mut Writing<'_>,
    retention: Retention,
    after: Option<JobId>,
    limit: usize,
) -> Result<(u64, Option<JobId>), Fault> {
    let keys = w
        .conn
        .prepare_cached("DELETE FROM idempotency_keys WHERE expires <= ?1")?
        .execute([retention.now.as_millis()])?;
    if keys > 0 {
        tracing::debug!(keys, "expired idempotency keys removed");
    }
    let after = after.map_or(uuid::Uuid::nil(), |id| id.0);
    // A job ended after it was created, so past the younger of the two limits there is nothing left to find.
    let youngest = retention.finished_before.max(retention.failed_before);
    let (seen, old, last) = {
        let mut select =
            w.conn.prepare_cached("SELECT id, state, at, created FROM jobs WHERE id > ?1 ORDER BY id LIMIT ?2")?;
        let mut rows = select.query(params![after.as_bytes(), limit as i64])?;
        let (mut seen, mut old, mut last) = (0, Vec::new(), None);
        while let Some(r) = rows.next()? {
            if row::time(r, 3)? >= youngest {
                break;
            }
            let (id, state, at) = (JobId(row::uuid(r, 0)?), row::state(r, 1)?, row::time(r, 2)?);
            let limit = if state == State::Failed { retention.failed_before } else { retention.finished_before };
            if state.is_final() && at < limit {
                old.push((id, state));
            }
            seen += 1;
            last = Some(id);
        }
        (seen, old, last)
    };
    let mut removed = 0;
    for (id, state) in old {
        removed += u64::from(control::forget(w, id, state)?);
    }
    Ok((removed, if seen == limit { last } else { None }))
}
