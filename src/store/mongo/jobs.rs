//! The job port on MongoDB: claiming, renewing and noting progress; the rest is in the files beside it.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use ::mongodb::{
    bson::{Bson, Document, doc},
    options::ReturnDocument,
};
use async_trait::async_trait;
use futures_util::TryStreamExt;

use super::{
    Mongo, Ready,
    doc::{JobDoc, date, id, ids, time, to_json},
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
        let mut cursor = self.jobs().find(doc! { "_id": { "$in": ids(of) } }).await?;
        let mut found = HashMap::new();
        while let Some(d) = cursor.try_next().await? {
            found.insert(d.job_id(), d);
        }
        Ok(found)
    }

    /// One update claims them all; the read after it says which were still there to be claimed.
    ///
    /// It is durable before the worker hears of it. A server that died and forgot a claim would give the same job with the
    /// same fence to another worker, and each could end the other's run.
    async fn claim(
        &self,
        of: &[JobId],
        worker: WorkerId,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Vec<Claim>, Fault> {
        if of.is_empty() {
            return Ok(Vec::new());
        }
        let paused = self.paused_for_claims().await?;
        let by = call_number();
        let mut q = doc! { "_id": { "$in": ids(of.iter().copied()) }, "state": QUEUED };
        if !paused.is_empty() {
            q.insert("queue", doc! { "$nin": paused.clone() });
        }
        let set = doc! {
            "state": RUNNING, "lease": date(now.plus(lease)), "worker": id(worker.0), "started": date(now), "claim": by,
        };
        let u = doc! { "$set": set, "$inc": { "fence": 1_i64 }, "$unset": { "progress": "" } };
        let mut found = match of {
            // What an idle worker waits for: one trip instead of two.
            [one] => self.claim_one(*one, q, u, by).await?,
            _ => {
                let statement = [(doc! { "q": q, "u": u, "multi": true }, of.len())];
                match self.change(Sure::Durable, &statement).await {
                    // Whatever the first one did no longer matches.
                    Err(e) if e.is_unknown() => drop(self.change(Sure::Durable, &statement).await?),
                    met => drop(met?),
                }
                self.read(of.iter().copied()).await?
            }
        };
        let mut claims = Vec::with_capacity(of.len());
        for job in of {
            let is_paused = |d: &JobDoc| d.state == QUEUED && paused.contains(&d.queue);
            if found.get(job).is_some_and(is_paused) {
                claims.push(Claim::Paused);
                continue;
            }
            // Removed, so that an id named twice is won once.
            claims.push(match found.remove(job) {
                Some(d) if d.state == RUNNING && d.claim == Some(by) => {
                    let queued_at = time(d.at);
                    Claim::Won { job: Box::new(d.job()?), queued_at }
                }
                _ => Claim::Gone,
            });
        }
        Ok(claims)
    }

    /// The same for a lone job. If it was not claimed, or nobody knows, its document says why.
    async fn claim_one(&self, job: JobId, q: Document, u: Document, by: i64) -> Result<HashMap<JobId, JobDoc>, Fault> {
        let jobs = self.jobs();
        let claim = || jobs.find_one_and_update(q.clone(), u.clone()).return_document(ReturnDocument::After);
        let claimed = match claim().await.map_err(Fault::from) {
            Err(e) if e.is_unknown() => claim().await?,
            done => done?,
        };
        match claimed.filter(|d| d.claim == Some(by)) {
            Some(d) => Ok(HashMap::from([(job, d)])),
            None => self.read([job]).await,
        }
    }

    async fn renew(&self, held: &[(JobId, u64)], until: Timestamp) -> Result<Vec<Renewal>, Fault> {
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
                running.insert((job, d.get_i64("fence").unwrap_or(0)), d.get_bool("cancel").unwrap_or(false));
            }
        }
        let answer = |(job, fence): &(JobId, u64)| match running.get(&(*job, *fence as i64)) {
            Some(cancel) => Renewal::Held { cancel_requested: *cancel },
            None => Renewal::Lost,
        };
        Ok(held.iter().map(answer).collect())
    }

    async fn progress(&self, of: &[(JobId, u64, Progress)]) -> Result<(), Fault> {
        let mut statements = Vec::with_capacity(of.len());
        for (job, fence, p) in of {
            let q = doc! { "_id": id(job.0), "state": RUNNING, "fence": *fence as i64 };
            statements.push((doc! { "q": q, "u": { "$set": { "progress": to_json("progress", p)? } } }, 1));
        }
        self.change(Sure::Lazy, &statements).await?;
        Ok(())
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
fn fence_is(n: i64) -> Bson {
    if n == 0 { Bson::Null } else { Bson::Int64(n) }
}

/// Matches a flag as it is stored: absent means false.
fn flag_is(flag: bool) -> Bson {
    if flag { Bson::Boolean(true) } else { Bson::Document(doc! { "$ne": true }) }
}
