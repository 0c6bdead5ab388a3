//! The job port on SQLite: accepting, claiming, renewing and finishing; the rest is in the files beside it.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{OptionalExtension, params};

use super::{
    Fault, Sqlite, control, read,
    records::{EventRow, event_rows},
    row, sweep,
    writer::Writing,
};
use crate::{
    base::{
        clock::Timestamp,
        id::{JobId, QueueName, WorkerId},
        page::{Page, PageRequest},
    },
    jobs::{
        announce::Listened,
        model::{Job, Progress},
        state::{Event, State, Verdict, next},
        store::{
            Again, Cancelled, Claim, Finish, Finished, Idempotency, Inserted, JobEdit, JobFilter, JobStore, Moved,
            RanAgain, Renewal, Retention, StoreError, Void, Waiting,
        },
    },
};

#[async_trait]
impl JobStore for Sqlite {
    async fn insert(&self, jobs: Vec<Job>, key: Option<Idempotency>) -> Result<Inserted, StoreError> {
        // Serialised before the writer is asked, so that its one thread only writes.
        let mut rows = Vec::with_capacity(jobs.len());
        for job in jobs {
            let spec = row::to_json("spec", &job.spec)?;
            rows.push((job, spec));
        }
        self.write(move |w| insert(w, &rows, key.as_ref())).await
    }

    async fn recall(&self, scope: &str, key: &str, now: Timestamp) -> Result<Option<([u8; 32], Vec<u8>)>, StoreError> {
        let (scope, key) = (scope.to_owned(), key.to_owned());
        self.read(move |c| recall(c, &scope, &key, now)).await
    }

    async fn get(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.read(move |c| read::get(c, id)).await
    }

    async fn list(&self, filter: &JobFilter, page: PageRequest) -> Result<Page<Job>, StoreError> {
        let filter = filter.clone();
        self.read(move |c| read::list(c, &filter, page)).await
    }

    async fn claim(
        &self,
        ids: &[JobId],
        worker: WorkerId,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Vec<Claim>, StoreError> {
        let ids = ids.to_vec();
        let claims: Vec<RawClaim> = self
            .write_lazily(move |w| {
                let any_paused = any_paused(w)?;
                ids.iter().map(|id| claim(w, *id, worker, now, lease, any_paused)).collect()
            })
            .await?;
        let sense = |raw| match raw {
            RawClaim::Won { job, queued_at } => Ok(Claim::Won { job: Box::new(job.job()?), queued_at }),
            RawClaim::Paused => Ok(Claim::Paused),
            RawClaim::Gone => Ok(Claim::Gone),
        };
        claims.into_iter().map(sense).collect::<Result<_, Fault>>().map_err(StoreError::from)
    }

    async fn renew(&self, held: &[(JobId, u64)], until: Timestamp) -> Result<Vec<Renewal>, StoreError> {
        let held = held.to_vec();
        self.write_lazily(move |w| held.iter().map(|(id, fence)| renew(w, *id, *fence, until)).collect()).await
    }

    async fn progress(&self, of: Vec<(JobId, u64, Progress)>) -> Result<(), StoreError> {
        self.write_lazily(move |w| {
            for (id, fence, p) in &of {
                w.conn
                    .prepare_cached("UPDATE jobs SET progress = ?3 WHERE id = ?1 AND state = 2 AND fence = ?2")?
                    .execute(params![id.0.as_bytes(), *fence as i64, row::to_json("progress", p)?])?;
            }
            Ok(())
        })
        .await
    }

    async fn finish(&self, runs: Vec<Finish>) -> Result<Vec<Finished>, StoreError> {
        let mut ends = Vec::with_capacity(runs.len());
        for run in runs {
            ends.push(End::of(run)?);
        }
        self.write(move |w| ends.iter().map(|end| finish_and_tell(w, end)).collect()).await
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<Waiting>, StoreError> {
        self.write_lazily(move |w| sweep::due(w, now, limit)).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.read(sweep::next_due).await
    }

    async fn void(
        &self,
        which: &Void,
        now: Timestamp,
        crash_limit: u32,
        limit: usize,
        listened: &Listened,
    ) -> Result<Vec<Moved>, StoreError> {
        let (which, listened) = (which.clone(), listened.clone());
        self.write_lazily(move |w| sweep::void(w, &which, now, crash_limit, limit, &listened)).await
    }

    async fn waiting(
        &self,
        queue: &QueueName,
        before: Timestamp,
        after: Option<(Timestamp, JobId)>,
        limit: usize,
    ) -> Result<Vec<Waiting>, StoreError> {
        let queue = queue.clone();
        self.read(move |c| sweep::waiting(c, &queue, before, after, limit)).await
    }

    async fn cancel(&self, ids: &[JobId], now: Timestamp) -> Result<Vec<Cancelled>, StoreError> {
        let ids = ids.to_vec();
        self.write(move |w| ids.iter().map(|id| control::cancel(w, *id, now)).collect()).await
    }

    async fn purge(&self, queue: &QueueName, now: Timestamp, limit: usize) -> Result<u64, StoreError> {
        let queue = queue.clone();
        self.write(move |w| control::purge(w, &queue, now, limit)).await
    }

    async fn run_again(&self, jobs: &[Again], edit: &JobEdit, now: Timestamp) -> Result<Vec<RanAgain>, StoreError> {
        let (jobs, edit) = (jobs.to_vec(), edit.clone());
        self.write(move |w| jobs.iter().map(|again| control::run_again(w, again, &edit, now)).collect()).await
    }

    async fn discard(&self, ids: &[JobId]) -> Result<u64, StoreError> {
        let ids = ids.to_vec();
        self.write(move |w| ids.iter().try_fold(0, |n, id| Ok(n + u64::from(control::forget(w, *id, State::Failed)?))))
            .await
    }

    async fn retain(
        &self,
        retention: Retention,
        after: Option<JobId>,
        limit: usize,
    ) -> Result<(u64, Option<JobId>), StoreError> {
        self.write_lazily(move |w| sweep::retain(w, retention, after, limit)).await
    }
}

pub(super) fn insert(
    w: &mut Writing<'_>,
    rows: &[(Job, String)],
    key: Option<&Idempotency>,
) -> Result<Inserted, Fault> {
    if let Some(k) = key {
        // The first job's creation time is "now" of this request.
        let now = rows.first().map_or(k.expires_at, |(j, _)| j.created_at);
        if let Some((request, answer)) = recall(w.conn, &k.scope, &k.key, now)? {
            return Ok(if request == k.request { Inserted::Replay(answer) } else { Inserted::KeyReused });
        }
        w.conn
            .prepare_cached(
                "INSERT OR REPLACE INTO idempotency_keys (scope, key, request, answer, expires) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![k.scope, k.key, k.request.as_slice(), k.answer, k.expires_at.as_millis()])?;
    }
    let mut statement = w.conn.prepare_cached(
        "INSERT INTO jobs (id, state, queue, priority, kind, at, created, failures, crashes, fence, cancel, spec)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0, 0, 0, ?8)",
    )?;
    for (job, spec) in rows {
        statement.execute(params![
            job.id.0.as_bytes(),
            job.state as i64,
            job.queue.as_str(),
            job.priority.get(),
            job.kind.as_str(),
            job.at.as_millis(),
            job.created_at.as_millis(),
            spec,
        ])?;
        w.moved(&job.queue, None, Some(job.state));
    }
    Ok(Inserted::New)
}

/// The fingerprint of the request that a key was used for, and what was answered.
type Recalled = ([u8; 32], Vec<u8>);

fn recall(conn: &rusqlite::Connection, scope: &str, key: &str, now: Timestamp) -> Result<Option<Recalled>, Fault> {
    let found = conn
        .prepare_cached("SELECT request, answer FROM idempotency_keys WHERE scope = ?1 AND key = ?2 AND expires > ?3")?
        .query_row(params![scope, key, now.as_millis()], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?;
    Ok(found)
}

pub(super) fn any_paused(w: &Writing<'_>) -> Result<bool, Fault> {
    Ok(w.conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM queues WHERE paused = 1)")?.query_row([], |r| r.get(0))?)
}

fn is_paused(w: &Writing<'_>, queue: &QueueName) -> Result<bool, Fault> {
    let sql = "SELECT EXISTS (SELECT 1 FROM queues WHERE name = ?1 AND paused = 1)";
    Ok(w.conn.prepare_cached(sql)?.query_row([queue.as_str()], |r| r.get(0))?)
}

enum RawClaim {
    Won { job: Box<row::RawJob>, queued_at: Timestamp },
    Paused,
    Gone,
}

fn claim(
    w: &mut Writing<'_>,
    id: JobId,
    worker: WorkerId,
    now: Timestamp,
    lease: Duration,
    any_paused: bool,
) -> Result<RawClaim, Fault> {
    let mut job = {
        let mut select = w.conn.prepare_cached(row::SELECT_ONE)?;
        let mut rows = select.query([id.0.as_bytes()])?;
        match rows.next()? {
            Some(r) if row::state(r, 1)? == State::Queued => Box::new(row::raw(r)?),
            _ => return Ok(RawClaim::Gone),
        }
    };
    let queue = w.queue(&job.queue)?;
    if any_paused && is_paused(w, &queue)? {
        return Ok(RawClaim::Paused);
    }
    let queued_at = job.at;
    job.state = State::Running;
    job.at = now.plus(lease);
    job.fence += 1;
    job.worker = Some(worker);
    job.started = Some(now.as_millis());
    job.progress = None;
    w.conn
        .prepare_cached(
            "UPDATE jobs SET state = 2, at = ?2, fence = ?3, worker = ?4, started = ?5, progress = NULL WHERE id = ?1",
        )?
        .execute(params![id.0.as_bytes(), job.at.as_millis(), job.fence, worker.0.as_bytes(), job.started])?;
    w.moved(&queue, Some(State::Queued), Some(State::Running));
    w.running.insert(id, queue);
    Ok(RawClaim::Won { job, queued_at })
}

fn renew(w: &mut Writing<'_>, id: JobId, fence: u64, until: Timestamp) -> Result<Renewal, Fault> {
    let held = w
        .conn
        .prepare_cached("UPDATE jobs SET at = ?3 WHERE id = ?1 AND state = 2 AND fence = ?2 RETURNING cancel")?
        .query_row(params![id.0.as_bytes(), fence as i64, until.as_millis()], |r| r.get(0))
        .optional()?;
    Ok(held.map_or(Renewal::Lost, |cancel_requested| Renewal::Held { cancel_requested }))
}

/// A finish with everything serialised that the writer will need.
struct End {
    run: Finish,
    attempt: String,
    error: Option<String>,
    event: Vec<EventRow>,
}

impl End {
    fn of(run: Finish) -> Result<Self, Fault> {
        // A success is told by its row (see `row::RawJob::job`).
        let attempt = match run.verdict {
            Verdict::Succeed(_) => String::new(),
            _ => row::to_json("attempt", &run.attempt)?,
        };
        // What put a job off is no failure of it: it stands in the history only.
        let error = run.attempt.error.as_ref().filter(|_| !matches!(run.verdict, Verdict::Snooze { .. }));
        let error = error.map(|e| row::to_json("error", e)).transpose()?;
        let event = event_rows(&run.event)?;
        Ok(Self { run, attempt, error, event })
    }
}

fn finish_and_tell(w: &mut Writing<'_>, end: &End) -> Result<Finished, Fault> {
    let finished = finish(w, end)?;
    if matches!(finished, Finished::Now(State::Succeeded | State::Failed)) && !end.event.is_empty() {
        insert(w, &end.event, None)?;
    }
    Ok(finished)
}

fn finish(w: &mut Writing<'_>, end: &End) -> Result<Finished, Fault> {
    let run = &end.run;
    if let Verdict::Succeed(result) = &run.verdict
        && let Some(queue) = w.running.get(&run.id).cloned()
    {
        return succeed(w, run, result.as_deref(), &queue);
    }
    let (queue, cancel, failures, history) = {
        let mut select = w.conn.prepare_cached(
            "SELECT queue, cancel, failures, attempts FROM jobs WHERE id = ?1 AND state = 2 AND fence = ?2",
        )?;
        let mut rows = select.query(params![run.id.0.as_bytes(), run.fence as i64])?;
        let Some(r) = rows.next()? else { return Ok(Finished::LeaseLost) };
        let queue = w.queue(r.get_ref(0)?.as_str().map_err(|e| row::corrupt("queue", e))?)?;
        let history = match run.verdict {
            Verdict::Succeed(_) => None,
            _ => {
                let old = r.get_ref(3)?.as_str_or_null().map_err(|e| row::corrupt("attempts", e))?;
                Some(row::append(old, run.fence, &end.attempt)?)
            }
        };
        (queue, r.get::<_, bool>(1)?, r.get::<_, u32>(2)?, history)
    };
    let cancelled = run.verdict.event_if(cancel);
    let Some(state) = next(State::Running, cancelled) else {
        return Err(row::corrupt("verdict", format!("{cancelled:?} does not end a run")));
    };
    let spent = u32::from(matches!(cancelled, Event::Retry | Event::Fail));
    let (id, ended_at) = (run.id.0.as_bytes(), run.attempt.finished_at.as_millis());
    match &run.verdict {
        Verdict::Succeed(result) => return succeed(w, run, result.as_deref(), &queue),
        verdict => {
            let at = match verdict {
                Verdict::Retry { at } | Verdict::Snooze { at } if state == State::Scheduled => at.as_millis(),
                _ => ended_at,
            };
            // A snooze or release says nothing about why the job failed before.
            w.conn
                .prepare_cached(
                    "UPDATE jobs SET state = ?2, at = ?3, failures = ?4, attempts = ?5, error = coalesce(?6, error)
                     WHERE id = ?1",
                )?
                .execute(params![id, state as i64, at, failures + spent, history, end.error])?;
        }
    }
    w.running.remove(&run.id);
    w.moved(&queue, Some(State::Running), Some(state));
    Ok(Finished::Now(state))
}

/// The way of nearly every job: one statement.
fn succeed(
    w: &mut Writing<'_>,
    run: &Finish,
    result: Option<&serde_json::value::RawValue>,
    queue: &QueueName,
) -> Result<Finished, Fault> {
    let changed = w
        .conn
        .prepare_cached(
            "UPDATE jobs SET state = 3, at = ?3, result = ?4, error = NULL WHERE id = ?1 AND state = 2 AND fence = ?2",
        )?
        .execute(params![
            run.id.0.as_bytes(),
            run.fence as i64,
            run.attempt.finished_at.as_millis(),
            result.map(serde_json::value::RawValue::get)
        ])?;
    if changed == 0 {
        return Ok(Finished::LeaseLost);
    }
    w.running.remove(&run.id);
    w.moved(queue, Some(State::Running), Some(State::Succeeded));
    Ok(Finished::Now(State::Succeeded))
}
