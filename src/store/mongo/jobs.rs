//! The job port on MongoDB: renewing and noting progress; the rest is in the files beside it.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use ::mongodb::bson::{Bson, Document, doc};
use async_trait::async_trait;
use futures_util::TryStreamExt;

use super::{
    Mongo, Ready,
    changes::Met,
    doc::{JobDoc, date, id, ids, to_json},
    fault::Fault,
    write::{Change, Sure, call_number},
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
        state::State,
        store::{
            Again, Cancelled, Claim, Durable, Finish, Finished, Idempotency, Inserted, JobEdit, JobFilter, JobStore,
            Moved, RanAgain, Renewal, Retention, StoreError, Void, Waiting,
        },
    },
};

pub(super) const QUEUED: i32 = State::Queued as i32;
pub(super) const RUNNING: i32 = State::Running as i32;

#[async_trait]
impl JobStore for Mongo {
    async fn insert(&self, jobs: Vec<Job>, key: Option<Idempotency>) -> Result<Inserted, StoreError> {
        let Some(first) = jobs.first() else { return Ok(Inserted::New) };
        // The first job's creation time is "now" of this request.
        let now = first.created_at;
        let mut docs = jobs.iter().map(JobDoc::new).collect::<Result<Vec<_>, Fault>>()?;
        if key.is_none() && docs.len() == 1 {
            let ready = self.call(self.database()).await?;
            if let Some(only) = docs.pop() {
                self.inserts.insert(ready, only).await?.wait().await?;
            }
            return Ok(Inserted::New);
        }
        self.call(async { self.database().await?.insert_together(&docs, key.as_ref(), now).await }).await
    }

    async fn insert_early(&self, job: Job) -> Result<Durable, StoreError> {
        let job = JobDoc::new(&job)?;
        let ready = self.call(self.database()).await?;
        self.inserts.insert(ready, job).await
    }

    async fn recall(&self, scope: &str, key: &str, now: Timestamp) -> Result<Option<([u8; 32], Vec<u8>)>, StoreError> {
        self.call(async { self.database().await?.recall(scope, key, now).await }).await
    }

    async fn get(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.call(async { self.database().await?.get(id).await }).await
    }

    async fn list(&self, filter: &JobFilter, page: PageRequest) -> Result<Page<Job>, StoreError> {
        self.call(async { self.database().await?.list(filter, page).await }).await
    }

    async fn claim(
        &self,
        ids: &[JobId],
        worker: WorkerId,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Vec<Claim>, StoreError> {
        self.call(async { self.database().await?.claim(ids, worker, now, lease).await }).await
    }

    async fn renew(&self, held: &[(JobId, u64)], until: Timestamp) -> Result<Vec<Renewal>, StoreError> {
        self.call(async { self.database().await?.renew(held, until).await }).await
    }

    async fn progress(&self, of: Vec<(JobId, u64, Progress)>) -> Result<(), StoreError> {
        self.call(async { self.database().await?.progress(&of).await }).await
    }

    async fn finish(&self, runs: Vec<Finish>) -> Result<Vec<Finished>, StoreError> {
        self.call(async { self.database().await?.finish(&runs).await }).await
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<Waiting>, StoreError> {
        self.call(async { self.database().await?.due(now, limit).await }).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.call(async { self.database().await?.next_due().await }).await
    }

    async fn void(
        &self,
        which: &Void,
        now: Timestamp,
        crash_limit: u32,
        limit: usize,
        listened: &Listened,
    ) -> Result<Vec<Moved>, StoreError> {
        self.call(async { self.database().await?.void(which, now, crash_limit, limit, listened).await }).await
    }

    async fn waiting(
        &self,
        queue: &QueueName,
        before: Timestamp,
        after: Option<(Timestamp, JobId)>,
        limit: usize,
    ) -> Result<Vec<Waiting>, StoreError> {
        self.call(async { self.database().await?.waiting(queue, before, after, limit).await }).await
    }

    async fn cancel(&self, ids: &[JobId], now: Timestamp) -> Result<Vec<Cancelled>, StoreError> {
        self.call(async { self.database().await?.cancel(ids, now).await }).await
    }

    async fn purge(&self, queue: &QueueName, now: Timestamp, limit: usize) -> Result<u64, StoreError> {
        self.call(async { self.database().await?.purge(queue, now, limit).await }).await
    }

    async fn run_again(&self, jobs: &[Again], edit: &JobEdit, now: Timestamp) -> Result<Vec<RanAgain>, StoreError> {
        self.call(async { self.database().await?.run_again(jobs, edit, now).await }).await
    }

    async fn discard(&self, ids: &[JobId]) -> Result<u64, StoreError> {
        self.call(async { self.database().await?.discard(ids).await }).await
    }

    async fn retain(
        &self,
        retention: Retention,
        after: Option<JobId>,
        limit: usize,
    ) -> Result<(u64, Option<JobId>), StoreError> {
        self.call(async { self.database().await?.retain(retention, after, limit).await }).await
    }
}

impl Ready {
    /// The documents of these jobs, by id.
    pub(super) async fn read(&self, of: impl IntoIterator<Item = JobId>) -> Result<HashMap<JobId, JobDoc>, Fault> {
        let ids: Vec<_> = ids(of);
        // In one answer: the server would send the first hundred and wait to be asked for the rest. One more than there can be, or it
        // would not know that there are no more.
        let size = u32::try_from(ids.len()).unwrap_or(u32::MAX).saturating_add(1);
        let mut cursor = self.jobs().find(doc! { "_id": { "$in": ids } }).batch_size(size).await?;
        let mut found = HashMap::new();
        while let Some(d) = cursor.try_next().await? {
            found.insert(d.job_id(), d);
        }
        Ok(found)
    }

    /// A lease that is renewed is written out: whatever runs for that long runs for long.
    async fn renew(&self, held: &[(JobId, u64)], until: Timestamp) -> Result<Vec<Renewal>, Fault> {
        let mine = self.held.among(held.iter().map(|(j, _)| *j));
        let (short, long): (Vec<(JobId, u64)>, Vec<_>) = held.iter().partition(|(j, _)| mine.contains_key(j));
        let mut running = self.renew_written(&long, until).await?;
        if !short.is_empty() {
            self.write_out(short.iter().map(|(j, _)| *j)).await?;
            running.extend(self.renew_written(&short, until).await?);
        }
        let missing: Vec<(JobId, u64)> = held.iter().filter(|h| !running.contains_key(*h)).copied().collect();
        if !missing.is_empty() {
            // Claimed through another connection, or lost.
            self.write_out(missing.iter().map(|(j, _)| *j)).await?;
            running.extend(self.renew_written(&missing, until).await?);
        }
        let answer = |h: &(JobId, u64)| match running.get(h) {
            Some(cancel) => Renewal::Held { cancel_requested: *cancel },
            None => Renewal::Lost,
        };
        let lost: HashSet<JobId> = held.iter().filter(|h| !running.contains_key(*h)).map(|(j, _)| *j).collect();
        self.let_go(mine.into_iter().filter(|(j, _)| lost.contains(j)));
        Ok(held.iter().map(answer).collect())
    }

    /// Renews leases that are written out; answers which there were, and whether they should stop.
    async fn renew_written(
        &self,
        held: &[(JobId, u64)],
        until: Timestamp,
    ) -> Result<HashMap<(JobId, u64), bool>, Fault> {
        if held.is_empty() {
            return Ok(HashMap::new());
        }
        let mut by_fence: HashMap<u64, Vec<JobId>> = HashMap::new();
        for (job, fence) in held {
            by_fence.entry(*fence).or_default().push(*job);
        }
        let statements: Vec<_> = by_fence
            .iter()
            .map(|(fence, of)| {
                let q = doc! { "_id": { "$in": ids(of.iter().copied()) }, "state": RUNNING, "fence": *fence as i64 };
                (doc! { "q": q, "u": { "$set": { "lease": date(until) } }, "multi": true }, of.len())
            })
            .collect();
        self.change(Sure::Lazy, &statements).await?;
        let jobs = self.durable.collection::<Document>("jobs");
        let filter = doc! { "_id": { "$in": ids(held.iter().map(|(j, _)| *j)) }, "state": RUNNING };
        let mut cursor = jobs.find(filter).projection(doc! { "fence": 1, "cancel": 1 }).await?;
        let mut running = HashMap::new();
        while let Some(d) = cursor.try_next().await? {
            if let Some(job) = super::write::job_id(&d) {
                let fence = u64::try_from(d.get_i64("fence").unwrap_or(0)).unwrap_or(0);
                running.insert((job, fence), d.get_bool("cancel").unwrap_or(false));
            }
        }
        Ok(running)
    }

    async fn progress(&self, of: &[(JobId, u64, Progress)]) -> Result<(), Fault> {
        self.write_out(self.held.among(of.iter().map(|(job, ..)| *job)).into_keys()).await?;
        if self.note(of).await? == Met::NotAll {
            // Claimed through another connection, or lost.
            self.write_out(of.iter().map(|(job, ..)| *job)).await?;
            self.note(of).await?;
        }
        Ok(())
    }

    /// Notes progress of runs that are written out.
    async fn note(&self, of: &[(JobId, u64, Progress)]) -> Result<Met, Fault> {
        let mut statements = Vec::with_capacity(of.len());
        for (job, fence, p) in of {
            let q = doc! { "_id": id(job.0), "state": RUNNING, "fence": *fence as i64 };
            statements.push((doc! { "q": q, "u": { "$set": { "progress": to_json("progress", p)? } } }, 1));
        }
        self.change(Sure::Lazy, &statements).await
    }

    /// Reads jobs, lets `decide` say what becomes of each, and writes that if the job is still as it was read. Whatever
    /// changed in between is read and decided again. Answers what was decided for each that was written.
    pub(super) async fn decide<T>(
        &self,
        sure: Sure,
        of: Vec<JobId>,
        mut decide: impl FnMut(JobId, &Job) -> Result<Option<(Document, T)>, Fault> + Send,
    ) -> Result<HashMap<JobId, T>, Fault> {
        let mut decided = HashMap::new();
        let mut left: HashSet<JobId> = of.into_iter().collect();
        while !left.is_empty() {
            let by = call_number();
            let (mut changes, mut outcomes) = (Vec::new(), Vec::new());
            for (job_id, found) in self.read(left.iter().copied()).await? {
                let seen = doc! {
                    "state": found.state, "fence": fence_is(found.fence), "at": found.at,
                    "lease": found.lease.map_or(Bson::Null, Bson::DateTime), "cancel": flag_is(found.cancel),
                };
                let job = found.job()?;
                let Some((mut change, outcome)) = decide(job_id, &job)? else { continue };
                change.entry("$set".to_owned()).or_insert_with(|| Bson::Document(Document::new()));
                if let Some(Bson::Document(set)) = change.get_mut("$set") {
                    set.insert("by", by);
                }
                changes.push(Change { of: vec![job_id], only_if: seen, change: Bson::Document(change) });
                outcomes.push((job_id, outcome));
            }
            let applied = self.apply(sure, by, &changes).await?;
            left.clear();
            for (job_id, outcome) in outcomes {
                if applied.contains(&job_id) {
                    decided.insert(job_id, outcome);
                } else {
                    left.insert(job_id);
                }
            }
        }
        Ok(decided)
    }
}

/// Matches a fence as it is stored: absent means 0.
pub(super) fn fence_is(n: i64) -> Bson {
    if n == 0 { Bson::Null } else { Bson::Int64(n) }
}

/// Matches a flag as it is stored: absent means false.
fn flag_is(flag: bool) -> Bson {
    if flag { Bson::Boolean(true) } else { Bson::Document(doc! { "$ne": true }) }
}
