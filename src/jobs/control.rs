//! Steering what was accepted: cancel, run again, pause, purge, replay dead letters, and who is at work.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use serde::Deserialize;

use super::{
    authority::Authority,
    error::JobsError,
    model::Job,
    service::{Jobs, MAX_ATTEMPTS},
    state::State,
    store::{Again, Cancelled, JobEdit, JobFilter, QueueState, RanAgain, Totals, Waiting, WorkerReport},
};
use crate::{
    base::{
        clock::Timestamp,
        id::{JobId, KindName, QueueName, WorkerId},
        page::PageRequest,
    },
    broker::{BrokerError, CALL_TIMEOUT, Control, WakeUp},
};

/// How many jobs are moved by one call to the store.
const BATCH: usize = 500;
/// A worker that has not reported for this long is shown as lost.
pub const WORKER_LOST_AFTER: Duration = Duration::from_secs(15);
/// A worker that has not reported for this long is forgotten.
pub const WORKER_FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Which dead letters are meant. What is none does not matter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadFilter {
    /// These.
    pub ids: Option<Vec<JobId>>,
    /// Of this kind.
    pub kind: Option<KindName>,
    /// In this queue.
    pub queue: Option<QueueName>,
    /// With this tag.
    pub tag: Option<String>,
    /// Whose last error holds this text.
    pub error_contains: Option<String>,
    /// Accepted at or after.
    pub created_after: Option<Timestamp>,
    /// Accepted before.
    pub created_before: Option<Timestamp>,
}

impl DeadFilter {
    fn matches(&self, job: &Job) -> bool {
        let is = |wanted: Option<&str>, have: &str| wanted.is_none_or(|w| w == have);
        job.state == State::Failed
            && is(self.kind.as_ref().map(KindName::as_str), job.kind.as_str())
            && is(self.queue.as_ref().map(QueueName::as_str), job.queue.as_str())
            && self.tag.as_ref().is_none_or(|t| job.spec.tags.contains(t))
            && self.created_after.is_none_or(|t| job.created_at >= t)
            && self.created_before.is_none_or(|t| job.created_at < t)
            && self.error_contains.as_ref().is_none_or(|text| {
                job.error.as_ref().is_some_and(|e| e.message.contains(text.as_str()) || e.code.contains(text.as_str()))
            })
    }
}

/// A wish to run dead letters again.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    /// Which.
    pub filter: DeadFilter,
    /// At most so many a second; all at once if none.
    pub rate: Option<f64>,
    /// Only say how many there are.
    pub dry_run: bool,
    /// What to change in each.
    pub edit: JobEdit,
    /// At most so many.
    pub limit: usize,
}

/// What a bulk operation on dead letters did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BulkDone {
    /// How many the filter met, up to the limit.
    pub matched: usize,
    /// How many were changed.
    pub changed: usize,
    /// Which were met; the first hundred.
    pub ids: Vec<JobId>,
}

/// A queue with what its workers say.
#[derive(Clone, Debug)]
pub struct QueueView {
    /// What the store says.
    pub state: QueueState,
    /// Live workers that take from it.
    pub workers: usize,
    /// Runs in the last full minute.
    pub last_minute: Totals,
    /// Its limit of waiting jobs.
    pub depth_limit: Option<u64>,
    /// Why the broker's server refuses it, to this process or to a live worker that should take from it.
    pub set_aside: Option<String>,
}

/// A worker's answer to a ping.
#[derive(Clone, Debug)]
pub struct Pong {
    /// Who.
    pub worker: WorkerReport,
    /// How long it took; none if there was no answer in time.
    pub after: Option<Duration>,
}

impl Jobs {
    /// Cancels a job; a running one is asked to stop. Answers the job and whether it is still running.
    ///
    /// # Errors
    /// If there is none, its kind asks for more than the caller may, it had ended, or the store fails.
    pub async fn cancel(&self, id: JobId, by: Authority) -> Result<(Job, bool), JobsError> {
        self.authorize_job(id, by).await?;
        let requested = match self.store.cancel(&[id], self.clock.now()).await?.first() {
            Some(Cancelled::Now) => false,
            Some(Cancelled::Requested) => true,
            Some(Cancelled::AlreadyFinal(s)) => {
                return Err(JobsError::Conflict(format!("job {id} has already {}", ended(*s))));
            }
            Some(Cancelled::NotFound) | None => return Err(JobsError::NotFound(format!("there is no job {id}"))),
        };
        if requested {
            self.tell(Control::Cancel { job: id }).await;
        }
        Ok((self.get(id).await?, requested))
    }

    /// Runs a failed, cancelled or scheduled job now.
    ///
    /// # Errors
    /// If there is none, its kind asks for more than the caller may, its state does not allow it, or the store fails.
    pub async fn retry(&self, id: JobId, by: Authority) -> Result<Job, JobsError> {
        self.authorize_job(id, by).await?;
        let again = [Again { id, at: None }];
        match self.store.run_again(&again, &JobEdit::default(), self.clock.now()).await?.into_iter().next() {
            Some(RanAgain::Queued(w)) => self.wake(&[wake_up(w)]).await,
            Some(RanAgain::Scheduled) => {}
            Some(RanAgain::Refused(s)) => {
                let message =
                    format!("job {id} is {}: only failed, cancelled or scheduled jobs are run again", s.as_str());
                return Err(JobsError::Conflict(message));
            }
            Some(RanAgain::NotFound) | None => return Err(JobsError::NotFound(format!("there is no job {id}"))),
        }
        self.get(id).await
    }

    /// Every queue: those in the configuration, those with jobs, those that workers take from.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn queues(&self) -> Result<Vec<QueueView>, JobsError> {
        let now = self.clock.now();
        let workers: Vec<_> = self.fleet.workers().await?.into_iter().filter(|w| is_live(w, now)).collect();
        let mut names: BTreeSet<QueueName> = self.limits.queues.iter().cloned().collect();
        names.extend(workers.iter().flat_map(|w| w.queues.iter().map(|(q, _)| q.clone())));
        let mut states: BTreeMap<QueueName, QueueState> =
            self.fleet.queues().await?.into_iter().map(|q| (q.name.clone(), q)).collect();
        for name in names {
            let empty = QueueState { name: name.clone(), counts: Default::default(), oldest: None, paused: false };
            states.entry(name).or_insert(empty);
        }
        let here = self.broker.set_aside();
        let views = states.into_values().map(|state| {
            let refused = here.iter().chain(workers.iter().flat_map(|w| &w.set_aside));
            let set_aside = refused.filter(|r| r.queue == state.name).map(|r| r.why.clone()).next();
            let mine = |w: &&WorkerReport| w.queues.iter().any(|(q, _)| *q == state.name);
            let mut last_minute = Totals::default();
            for (_, t) in workers.iter().flat_map(|w| w.last_minute.iter()).filter(|(q, _)| *q == state.name) {
                last_minute.started += t.started;
                last_minute.succeeded += t.succeeded;
                last_minute.failed += t.failed;
                last_minute.retried += t.retried;
            }
            let (workers, depth_limit) = (workers.iter().filter(mine).count(), self.depth_limit(&state.name));
            QueueView { state, workers, last_minute, depth_limit, set_aside }
        });
        Ok(views.collect())
    }

    /// One queue.
    ///
    /// # Errors
    /// If it does not exist, or the store fails.
    pub async fn queue(&self, name: &QueueName) -> Result<QueueView, JobsError> {
        let found = self.queues().await?.into_iter().find(|q| q.state.name == *name);
        found.ok_or_else(|| JobsError::NotFound(format!("there is no queue `{name}`")))
    }

    /// Holds or frees the starts of a queue. Running jobs are not touched.
    ///
    /// # Errors
    /// If there is no such queue, or the store fails.
    pub async fn set_paused(&self, name: &QueueName, paused: bool) -> Result<QueueView, JobsError> {
        self.queue(name).await?;
        self.fleet.set_paused(name, paused).await?;
        tracing::info!(queue = %name, paused, "queue switched");
        self.tell(Control::QueuesChanged).await;
        self.queue(name).await
    }

    /// Cancels every queued job of a queue and answers how many.
    ///
    /// # Errors
    /// If there is no such queue, it is that of a kind which asks for more than the caller may, or the store fails; jobs
    /// cancelled until then stay cancelled.
    pub async fn purge(&self, name: &QueueName, by: Authority) -> Result<u64, JobsError> {
        self.queue(name).await?;
        for kind in self.registry.iter().filter(|kind| kind.queue == *name) {
            self.authorize(&kind.name, by)?;
        }
        // The broker first: whatever is submitted from now on keeps its wake-up. Wake-ups that stay behind wake nothing,
        // because their jobs can no longer be claimed.
        if let Err(e) = self.broker.purge(name).await {
            tracing::warn!(queue = %name, error = %e, "wake-ups of a purged queue were not removed");
        }
        let mut purged = 0;
        loop {
            let n = self.store.purge(name, self.clock.now(), BATCH).await?;
            purged += n;
            if n < BATCH as u64 {
                break;
            }
        }
        tracing::info!(queue = %name, purged, "queue purged");
        Ok(purged)
    }

    /// Runs dead letters again, of those that the caller may act on (see, for a dry run).
    ///
    /// # Errors
    /// If the filter names a kind or a job that the caller may not act on, if the edit is wrong for one of them (nothing is
    /// changed then), or the store fails.
    pub async fn replay(&self, wish: &Replay, by: Authority) -> Result<BulkDone, JobsError> {
        self.check_edit(&wish.edit)?;
        if let Some(queue) = &wish.edit.queue {
            self.admit_names(&[queue], "edit.queue").await?;
        }
        let met = self.dead_letters(&wish.filter, wish.limit, wish.dry_run, by).await?;
        self.check_edit_kinds(&wish.edit, &met)?;
        let ids: Vec<JobId> = met.into_iter().map(|(id, _)| id).collect();
        let mut done = BulkDone { matched: ids.len(), changed: 0, ids: ids.iter().take(100).copied().collect() };
        if wish.dry_run {
            return Ok(done);
        }
        let start = self.clock.now();
        let last = wish.rate.map_or(0.0, |r| done.matched as f64 / r);
        if last > self.limits.max_delay.as_secs_f64() {
            let message = format!("would start the last of {} jobs later than jobs.max_delay allows", done.matched);
            return Err(JobsError::field("rate", message));
        }
        let mut nth = 0_u32;
        for batch in ids.chunks(BATCH) {
            let again: Vec<Again> = batch
                .iter()
                .map(|id| {
                    let offset = wish.rate.map(|r| f64::from(nth) / r).filter(|s| *s > 0.0);
                    nth += 1;
                    Again {
                        id: *id,
                        at: offset.map(|s| start.plus(Duration::try_from_secs_f64(s).unwrap_or(Duration::MAX))),
                    }
                })
                .collect();
            let moved = self.store.run_again(&again, &wish.edit, self.clock.now()).await?;
            let mut wake_ups = Vec::new();
            for m in moved {
                match m {
                    RanAgain::Queued(w) => {
                        done.changed += 1;
                        wake_ups.push(wake_up(w));
                    }
                    RanAgain::Scheduled => done.changed += 1,
                    // Somebody else was quicker.
                    RanAgain::Refused(_) | RanAgain::NotFound => {}
                }
            }
            self.wake(&wake_ups).await;
        }
        tracing::info!(matched = done.matched, replayed = done.changed, "dead letters replayed");
        Ok(done)
    }

    /// Forgets dead letters, of those that the caller may act on (see, for a dry run).
    ///
    /// # Errors
    /// If the filter names a kind or a job that the caller may not act on, or the store fails; those forgotten until then
    /// stay forgotten.
    pub async fn discard(
        &self,
        filter: &DeadFilter,
        limit: usize,
        dry_run: bool,
        by: Authority,
    ) -> Result<BulkDone, JobsError> {
        let met = self.dead_letters(filter, limit, dry_run, by).await?;
        let ids: Vec<JobId> = met.into_iter().map(|(id, _)| id).collect();
        let mut done = BulkDone { matched: ids.len(), changed: 0, ids: ids.iter().take(100).copied().collect() };
        if !dry_run {
            for batch in ids.chunks(BATCH) {
                done.changed += usize::try_from(self.store.discard(batch).await?).unwrap_or(usize::MAX);
            }
            tracing::info!(matched = done.matched, discarded = done.changed, "dead letters discarded");
        }
        Ok(done)
    }

    /// The workers that reported lately, lost ones included.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn workers(&self) -> Result<Vec<WorkerReport>, JobsError> {
        Ok(self.fleet.workers().await?)
    }

    /// Whether a worker reported lately enough to be alive.
    #[must_use]
    pub fn is_live(&self, worker: &WorkerReport) -> bool {
        is_live(worker, self.clock.now())
    }

    /// Asks every worker to answer now and waits up to `patience`.
    ///
    /// # Errors
    /// If the store or the broker fails.
    pub async fn ping(&self, patience: Duration) -> Result<Vec<Pong>, JobsError> {
        let mut listener = self.broker.listen().await?;
        let asked = tokio::time::Instant::now();
        let now = self.clock.now();
        let workers: Vec<_> = self.fleet.workers().await?.into_iter().filter(|w| is_live(w, now)).collect();
        let mut silent: HashSet<WorkerId> = workers.iter().map(|w| w.id).collect();
        let mut pongs: BTreeMap<WorkerId, Duration> = BTreeMap::new();
        self.broker.broadcast(&Control::Ping).await?;
        while !silent.is_empty() {
            match tokio::time::timeout_at(asked + patience, listener.next()).await {
                Ok(Ok(Some(Control::Pong { worker }))) if silent.remove(&worker) => {
                    pongs.insert(worker, asked.elapsed());
                }
                Ok(Ok(_)) => {}
                Ok(Err(e)) => return Err(e.into()),
                Err(_) => break,
            }
        }
        Ok(workers.into_iter().map(|w| Pong { after: pongs.get(&w.id).copied(), worker: w }).collect())
    }

    /// Broadcasts; a failure is logged, because the store holds the truth and workers read it again soon.
    async fn tell(&self, control: Control) {
        match tokio::time::timeout(CALL_TIMEOUT, self.broker.broadcast(&control)).await {
            Ok(Ok(())) => {}
            // The broker has said so once; that there are none is known.
            Ok(Err(BrokerError::NoBroadcasts(_))) => {
                tracing::debug!(?control, "broadcasts are off, workers will read it from the store");
            }
            _ => tracing::warn!(?control, "broadcast failed, workers will read it from the store"),
        }
    }

    fn check_edit(&self, edit: &JobEdit) -> Result<(), JobsError> {
        if edit.max_attempts.is_some_and(|n| n == 0 || n > MAX_ATTEMPTS) {
            return Err(JobsError::field("edit.max_attempts", format!("must be 1 to {MAX_ATTEMPTS}")));
        }
        Ok(())
    }

    fn check_edit_kinds(&self, edit: &JobEdit, met: &[(JobId, KindName)]) -> Result<(), JobsError> {
        let Some(payload) = &edit.payload else { return Ok(()) };
        let kinds: BTreeSet<&KindName> = met.iter().map(|(_, k)| k).collect();
        for kind in kinds {
            let Some(kind) = self.registry.get(kind.as_str()) else { continue };
            if kind.internal {
                let message =
                    format!("payloads of `{}` are made by the program and never edited: send anew", kind.name);
                return Err(JobsError::field("edit.payload", message));
            }
            let faults = self.check_payload(kind, payload)?;
            if !faults.is_empty() {
                return Err(JobsError::Invalid(faults.into_iter().map(|f| f.under("edit")).collect()));
            }
        }
        Ok(())
    }

    /// The dead letters that a filter meets and the caller may see, and act on unless `only_look`.
    async fn dead_letters(
        &self,
        filter: &DeadFilter,
        limit: usize,
        only_look: bool,
        by: Authority,
    ) -> Result<Vec<(JobId, KindName)>, JobsError> {
        let may = |kind: &KindName| {
            let right = self.right_of(kind);
            by.may_read(right) && (only_look || by.may_act(right))
        };
        if let Some(kind) = filter.kind.as_ref().filter(|kind| !may(kind)) {
            let scopes = match only_look {
                true => "notifications:read",
                false => "notifications:read` and `notifications:write",
            };
            return Err(JobsError::Forbidden(format!(
                "dead letters of the kind `{kind}` need an administrator, or an API key with `{scopes}`"
            )));
        }
        let mut met = Vec::new();
        if let Some(ids) = &filter.ids {
            for id in ids.iter().take(limit) {
                if let Some(job) = self.store.get(*id).await?
                    && filter.matches(&job)
                    && self.may_read(&job.kind, by)
                {
                    // The caller named it and sees it: leaving it out would be no answer.
                    if !only_look {
                        self.authorize(&job.kind, by)?;
                    }
                    met.push((job.id, job.kind));
                }
            }
            return Ok(met);
        }
        let list = JobFilter {
            state: Some(State::Failed),
            kind: filter.kind.clone(),
            queue: filter.queue.clone(),
            tags: filter.tag.iter().cloned().collect(),
            created_after: filter.created_after,
            created_before: filter.created_before,
        };
        let mut after = None;
        loop {
            let page = self.store.list(&list, PageRequest { limit: BATCH, after }).await?;
            for job in page.data {
                if met.len() == limit {
                    return Ok(met);
                }
                if filter.matches(&job) && may(&job.kind) {
                    met.push((job.id, job.kind));
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(met),
            }
        }
    }
}

fn is_live(w: &WorkerReport, now: Timestamp) -> bool {
    now.since(w.heartbeat_at) < WORKER_LOST_AFTER
}

fn wake_up(w: Waiting) -> WakeUp {
    WakeUp { job: w.id, queue: w.queue, priority: w.priority }
}

fn ended(s: State) -> &'static str {
    match s {
        State::Succeeded => "succeeded",
        State::Failed => "failed",
        State::Cancelled => "been cancelled",
        State::Scheduled | State::Queued | State::Running => "moved on",
    }
}
