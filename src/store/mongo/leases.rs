//! Leases on many jobs at once: what a claim writes, so that a job which succeeds is updated once in its life.
//!
//! A claim inserts one document that names its jobs, which costs the server a fraction of updating each of them. The unique
//! index on `jobs` makes it exclusive: a job is in one lease at most. While it is there its document still says `queued`,
//! and it *runs*. Only two things know this form: the claim, and the success, which takes `queued` to `succeeded` in one
//! update. Everything else (renewal, progress, other ends, cancel, passes) first *writes the lease out*: the job's document
//! becomes `running` with worker, lease and fence, and the lease lets go of it. So only jobs in their first seconds are here.
//!
//! ```text
//! claim        insert the lease, then read the jobs: those that are still queued, and not flagged, are won
//! cancel       flag the queued job, then look for a lease: whoever claims it later sees the flag, whoever did before is found;
//!              a flag whose writer died is seen by the pass that looks for lost wake-ups, which cancels the job
//! write out    queued → running, unless this lease did so before (`claim`); then take the job out of the lease
//! ```
//! A lease whose process died is written out by the pass that finds it expired, and is then void like any other.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ::mongodb::bson::{self, Bson, DateTime, Document, doc};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::{
    JobDoc, Ready,
    doc::{date, id, ids, uuid},
    fault::Fault,
    jobs::{QUEUED, RUNNING},
    write::{Change, Sure},
};
use crate::base::{
    clock::Timestamp,
    id::{JobId, WorkerId},
};

/// How long leases whose jobs have all ended may lie about before they are deleted, many at once.
const LINGER: Duration = Duration::from_millis(100);

/// A lease as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LeaseDoc {
    /// The number of the claim.
    #[serde(rename = "_id")]
    pub(super) id: i64,
    pub(super) worker: bson::Uuid,
    pub(super) started: DateTime,
    pub(super) until: DateTime,
    /// Ids of jobs; and the number of the claim, so that the list is never empty, of which a unique index knows only one.
    jobs: Vec<Bson>,
}

impl LeaseDoc {
    pub(super) fn new(number: i64, worker: WorkerId, now: Timestamp, lease: Duration, jobs: &[JobId]) -> Self {
        let named = jobs.iter().map(|j| Bson::from(id(j.0))).chain([Bson::Int64(number)]).collect();
        let (started, until) = (date(now), date(now.plus(lease)));
        Self { id: number, worker: id(worker.0), started, until, jobs: named }
    }

    pub(super) fn jobs(&self) -> impl Iterator<Item = JobId> {
        let of = |b: &Bson| match b {
            Bson::Binary(b) => b.to_uuid().ok().map(|u| JobId(uuid(u))),
            _ => None,
        };
        self.jobs.iter().filter_map(of)
    }

    /// Whether a job that is named here runs under this lease: it is queued, and was not written out before.
    pub(super) fn runs(&self, job: &JobDoc) -> bool {
        job.state == QUEUED && job.claim != Some(self.id)
    }

    /// Whether a job runs because it was written out of this lease.
    pub(super) fn wrote_out(&self, job: &JobDoc) -> bool {
        job.state == RUNNING && job.claim == Some(self.id)
    }

    /// The job as it runs under this lease.
    pub(super) fn run(&self, job: JobDoc) -> JobDoc {
        job.running(self.worker, self.started, self.until)
    }
}

/// The leases that this process claimed and has not let go of.
#[derive(Clone, Default)]
pub(super) struct Held(Arc<Mutex<Books>>);

#[derive(Default)]
struct Books {
    /// Which lease a job is in.
    of: HashMap<JobId, i64>,
    /// How many jobs of a lease have not ended.
    left: HashMap<i64, usize>,
    /// Leases that nobody needs any more.
    over: Vec<i64>,
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that jobs were won under a lease.
    pub(super) fn won(&self, lease: i64, jobs: &[JobId]) {
        let mut books = self.lock();
        books.of.extend(jobs.iter().map(|j| (*j, lease)));
        books.left.insert(lease, jobs.len());
    }

    /// Which of these jobs are in a lease of this process.
    pub(super) fn among(&self, jobs: impl IntoIterator<Item = JobId>) -> HashMap<JobId, i64> {
        let books = self.lock();
        jobs.into_iter().filter_map(|j| Some((j, *books.of.get(&j)?))).collect()
    }

    /// Forgets jobs that have ended or were written out; answers whether the first lease is over now.
    fn done(&self, jobs: impl IntoIterator<Item = JobId>) -> bool {
        let mut books = self.lock();
        let none_was_over = books.over.is_empty();
        for job in jobs {
            let Some(lease) = books.of.remove(&job) else { continue };
            if let Some(left) = books.left.get_mut(&lease) {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    books.left.remove(&lease);
                    books.over.push(lease);
                }
            }
        }
        none_was_over && !books.over.is_empty()
    }
}

impl Ready {
    pub(super) fn leases(&self) -> ::mongodb::Collection<LeaseDoc> {
        self.durable.collection("leases")
    }

    /// The leases that name any of these jobs.
    pub(super) async fn leases_of(&self, of: impl IntoIterator<Item = JobId>) -> Result<Vec<LeaseDoc>, Fault> {
        let of = ids(of);
        if of.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.leases().find(doc! { "jobs": { "$in": of } }).await?.try_collect().await?)
    }

    /// Every job that a lease names, by lease.
    pub(super) async fn leased(&self) -> Result<HashSet<JobId>, Fault> {
        let all: Vec<LeaseDoc> = self.leases().find(Document::new()).await?.try_collect().await?;
        Ok(all.iter().flat_map(LeaseDoc::jobs).collect())
    }

    /// Takes jobs out of a lease that could not be won; the lease as well, if nothing is left in it.
    pub(super) async fn give_back(&self, lease: &LeaseDoc, not: &[JobId], empty: bool) -> Result<(), Fault> {
        let leases = self.lazy.collection::<Document>("leases");
        if empty {
            leases.delete_one(doc! { "_id": lease.id }).await?;
        } else if !not.is_empty() {
            let pull = doc! { "$pull": { "jobs": { "$in": ids(not.iter().copied()) } } };
            leases.update_one(doc! { "_id": lease.id }, pull).await?;
        }
        Ok(())
    }

    /// Jobs that succeeded straight from their lease. It need not be told of them: no job that succeeded is claimed again.
    pub(super) fn let_go(&self, jobs: impl IntoIterator<Item = JobId>) {
        if self.held.done(jobs) {
            let this = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(LINGER).await;
                let over = std::mem::take(&mut this.held.lock().over);
                let leases = this.lazy.collection::<Document>("leases");
                // They expire, and are deleted then, if this fails.
                if let Err(e) = leases.delete_many(doc! { "_id": { "$in": over } }).await {
                    tracing::debug!(error = %Fault::from(e), "leases not deleted");
                }
            });
        }
    }

    /// Writes out those of these jobs that are in a lease, whoever holds it.
    pub(super) async fn write_out(&self, of: impl IntoIterator<Item = JobId>) -> Result<(), Fault> {
        let of: HashSet<JobId> = of.into_iter().collect();
        let leases = self.leases_of(of.iter().copied()).await?;
        let some = |lease: LeaseDoc| {
            let jobs = lease.jobs().filter(|j| of.contains(j)).collect();
            (lease, jobs)
        };
        self.write_out_of(leases.into_iter().map(some).collect()).await
    }

    /// Writes these jobs out of their leases. It may be done twice, and stop anywhere.
    pub(super) async fn write_out_of(&self, leases: Vec<(LeaseDoc, Vec<JobId>)>) -> Result<(), Fault> {
        if leases.is_empty() {
            return Ok(());
        }
        let statement = |(lease, jobs): &(LeaseDoc, Vec<JobId>)| {
            // A run that was written out before may have ended since, and the job be queued again.
            let only_if = doc! { "state": QUEUED, "claim": { "$ne": lease.id } };
            let set = doc! {
                "state": RUNNING, "lease": lease.until, "worker": lease.worker, "started": lease.started,
                "claim": lease.id,
            };
            let change = doc! { "$set": set, "$inc": { "fence": 1_i64 }, "$unset": { "progress": "" } };
            let change = Change { of: jobs.clone(), only_if, change: Bson::Document(change) };
            (change.statement(), jobs.len())
        };
        let statements: Vec<_> = leases.iter().map(statement).collect();
        self.change(Sure::Lazy, &statements).await?;
        let lazy = self.lazy.collection::<Document>("leases");
        for (lease, jobs) in leases {
            lazy.update_one(doc! { "_id": lease.id }, doc! { "$pull": { "jobs": { "$in": ids(jobs.clone()) } } })
                .await?;
            self.let_go(jobs);
        }
        Ok(())
    }

    /// Writes out all jobs of leases that match, and deletes these.
    pub(super) async fn write_out_whole(&self, which: Document, limit: usize) -> Result<(), Fault> {
        let found: Vec<LeaseDoc> = self.leases().find(which.clone()).limit(limit as i64).await?.try_collect().await?;
        if found.is_empty() {
            return Ok(());
        }
        let numbers: Vec<i64> = found.iter().map(|l| l.id).collect();
        let all = |lease: LeaseDoc| {
            let jobs = lease.jobs().collect();
            (lease, jobs)
        };
        self.write_out_of(found.into_iter().map(all).collect()).await?;
        self.lazy.collection::<Document>("leases").delete_many(doc! { "_id": { "$in": numbers } }).await?;
        Ok(())
    }
}
