//! What people do to jobs: cancel, purge, run again, forget.

use rusqlite::{OptionalExtension, params};

use super::{Fault, row, writer::Writing};
use crate::{
    base::{
        clock::Timestamp,
        id::{JobId, QueueName},
    },
    jobs::{
        model::{Job, Spec},
        state::{Event, State, next},
        store::{Again, Cancelled, JobEdit, RanAgain, Waiting},
    },
};

fn find(w: &Writing<'_>, id: JobId) -> Result<Option<(State, QueueName)>, Fault> {
    let mut select = w.conn.prepare_cached("SELECT state, queue FROM jobs WHERE id = ?1")?;
    let mut rows = select.query([id.0.as_bytes()])?;
    match rows.next()? {
        Some(r) => Ok(Some((row::state(r, 0)?, row::queue(r, 1)?))),
        None => Ok(None),
    }
}

pub(super) fn cancel(w: &mut Writing<'_>, id: JobId, now: Timestamp) -> Result<Cancelled, Fault> {
    let Some((state, queue)) = find(w, id)? else { return Ok(Cancelled::NotFound) };
    if state == State::Running {
        w.conn.prepare_cached("UPDATE jobs SET cancel = 1 WHERE id = ?1")?.execute([id.0.as_bytes()])?;
        return Ok(Cancelled::Requested);
    }
    if next(state, Event::Cancel).is_none() {
        return Ok(Cancelled::AlreadyFinal(state));
    }
    end(w, id, now)?;
    w.moved(&queue, Some(state), Some(State::Cancelled));
    Ok(Cancelled::Now)
}

fn end(w: &Writing<'_>, id: JobId, now: Timestamp) -> Result<(), Fault> {
    w.conn
        .prepare_cached("UPDATE jobs SET state = 5, at = ?2, cancel = 1 WHERE id = ?1")?
        .execute(params![id.0.as_bytes(), now.as_millis()])?;
    Ok(())
}

pub(super) fn purge(w: &mut Writing<'_>, queue: &QueueName, now: Timestamp, limit: usize) -> Result<u64, Fault> {
    let ids = {
        let mut select = w.conn.prepare_cached(
            "SELECT id FROM jobs INDEXED BY jobs_queued WHERE state = 1 AND queue = ?1 ORDER BY at LIMIT ?2",
        )?;
        let mut rows = select.query(params![queue.as_str(), limit as i64])?;
        let mut ids = Vec::new();
        while let Some(r) = rows.next()? {
            ids.push(JobId(row::uuid(r, 0)?));
        }
        ids
    };
    for id in &ids {
        end(w, *id, now)?;
        w.moved(queue, Some(State::Queued), Some(State::Cancelled));
    }
    Ok(ids.len() as u64)
}

pub(super) fn run_again(w: &mut Writing<'_>, again: &Again, edit: &JobEdit, now: Timestamp) -> Result<RanAgain, Fault> {
    let found = {
        let mut select = w.conn.prepare_cached(row::SELECT_ONE)?;
        let mut rows = select.query([again.id.0.as_bytes()])?;
        rows.next()?.map(row::job).transpose()?
    };
    let Some(job) = found else { return Ok(RanAgain::NotFound) };
    let event = if again.at.is_some_and(|at| at > now) { Event::Postpone } else { Event::RunAgain };
    let Some(state) = next(job.state, event) else { return Ok(RanAgain::Refused(job.state)) };
    let at = again.at.filter(|_| state == State::Scheduled).unwrap_or(now);
    let (from, old_queue) = (job.state, job.queue.clone());
    let Job { spec, queue, priority, .. } = job;
    let queue = edit.queue.clone().unwrap_or(queue);
    let priority = edit.priority.unwrap_or(priority);
    let spec = Spec {
        max_attempts: edit.max_attempts.unwrap_or(spec.max_attempts),
        payload: edit.payload.clone().unwrap_or(spec.payload),
        ..spec
    };
    w.conn
        .prepare_cached(
            "UPDATE jobs SET state = ?2, at = ?3, failures = 0, crashes = 0, cancel = 0, queue = ?4, priority = ?5,
             spec = ?6, progress = NULL, result = NULL WHERE id = ?1",
        )?
        .execute(params![
            again.id.0.as_bytes(),
            state as i64,
            at.as_millis(),
            queue.as_str(),
            priority.get(),
            row::to_json("spec", &spec)?
        ])?;
    w.moved(&old_queue, Some(from), None);
    w.moved(&queue, None, Some(state));
    Ok(match state {
        State::Scheduled => RanAgain::Scheduled,
        _ => RanAgain::Queued(Waiting { id: again.id, queue, priority, since: now }),
    })
}

/// Removes a job if it is in `state`.
pub(super) fn forget(w: &mut Writing<'_>, id: JobId, state: State) -> Result<bool, Fault> {
    let queue: Option<String> = w
        .conn
        .prepare_cached("DELETE FROM jobs WHERE id = ?1 AND state = ?2 RETURNING queue")?
        .query_row(params![id.0.as_bytes(), state as i64], |r| r.get(0))
        .optional()?;
    let Some(queue) = queue else { return Ok(false) };
    let queue = QueueName::stored(&queue).map_err(|e| row::corrupt("queue", e))?;
    w.moved(&queue, Some(state), None);
    Ok(true)
}
