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
//! write out    queued → running, if the fence is as it was before the lease was read, and unless this lease did so before
//!              (`claim`); then take the job out of the lease
//! ```
//! A lease whose process died is written out by the pass that finds it expired, and is then void like any other.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ::mongodb::bson::{self, Bson, DateTime, Document, RawDocumentBuf, doc, rawdoc};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    JobDoc, Ready, changes,
    doc::{date, id, ids, uuid},
    fault::{Fault, corrupt},
    jobs::{QUEUED, RUNNING, fence_is},
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
    left: HashMap<i64, Left>,
    /// Leases that nobody needs any more.
    over: Vec<i64>,
    /// Somebody is about to delete those.
    deleting: bool,
    /// With so many leases it is looked for those that have run out: of runs that were lost nobody tells.
    look_at: usize,
}

struct Left {
    /// How many jobs have not ended.
    jobs: usize,
    until: Instant,
}

impl Books {
    fn one_less(&mut self, lease: i64) {
        if let Some(left) = self.left.get_mut(&lease) {
            left.jobs = left.jobs.saturating_sub(1);
            if left.jobs == 0 {
                self.left.remove(&lease);
                self.over.push(lease);
            }
        }
    }
}

/// How many leases may be noted before it is looked for some that have run out.
const MANY: usize = 1024;

impl Held {
    fn lock(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that jobs were won under a lease that holds until then.
    pub(super) fn won(&self, lease: i64, jobs: &[JobId], until: Instant) {
        if jobs.is_empty() {
            return;
        }
        let mut books = self.lock();
        if books.left.len() > books.look_at {
            let now = Instant::now();
            books.left.retain(|_, left| left.until > now);
            let Books { of, left, .. } = &mut *books;
            of.retain(|_, lease| left.contains_key(lease));
            books.look_at = MANY.max(2 * books.left.len());
        }
        for job in jobs {
            if let Some(former) = books.of.insert(*job, lease) {
                books.one_less(former);
            }
        }
        books.left.insert(lease, Left { jobs: jobs.len(), until });
    }

    /// Which of these jobs are in a lease of this process.
    pub(super) fn among(&self, jobs: impl IntoIterator<Item = JobId>) -> HashMap<JobId, i64> {
        let books = self.lock();
        jobs.into_iter().filter_map(|j| Some((j, *books.of.get(&j)?))).collect()
    }

    /// Forgets jobs that have ended or were written out, unless they are in another lease by now; answers whether the caller must
    /// see to it that leases which are over are deleted.
    fn done(&self, jobs: impl IntoIterator<Item = (JobId, i64)>) -> bool {
        let mut books = self.lock();
        for (job, lease) in jobs {
            if books.of.get(&job) == Some(&lease) {
                books.of.remove(&job);
                books.one_less(lease);
            }
        }
        let start = !books.deleting && !books.over.is_empty();
        books.deleting |= start;
        start
    }

    /// The leases to delete, all that are over by now.
    fn take_over(&self) -> Vec<i64> {
        let mut books = self.lock();
        books.deleting = false;
        std::mem::take(&mut books.over)
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

    /// Every job that a lease names.
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

    /// Jobs that have ended, with the lease they were in. It need not be told of one that succeeded, because that is never
    /// claimed again.
    pub(super) fn let_go(&self, jobs: impl IntoIterator<Item = (JobId, i64)>) {
        if self.held.done(jobs) {
            let this = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(LINGER).await;
                let over = this.held.take_over();
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
        let leases: HashMap<i64, Vec<JobId>> =
            leases.iter().map(|l| (l.id, l.jobs().filter(|j| of.contains(j)).collect())).collect();
        let written = self.write_out_of(&leases).await?;
        let pull = |(lease, jobs): &(i64, Vec<JobId>)| {
            let pull = doc! { "$pull": { "jobs": { "$in": ids(jobs.iter().copied()) } } };
            RawDocumentBuf::try_from(&doc! { "q": { "_id": *lease }, "u": pull })
        };
        let pulls: Vec<RawDocumentBuf> =
            written.iter().map(pull).collect::<Result<_, _>>().map_err(|e| corrupt("lease", e))?;
        if !pulls.is_empty() {
            let sent = changes::run(self, "leases", &pulls, rawdoc! { "w": 1 }).await?;
            sent.failed.into_iter().next().map_or(Ok(()), |(_, e)| Err(e))?;
        }
        self.let_go(written.into_iter().flat_map(|(lease, jobs)| jobs.into_iter().map(move |j| (j, lease))));
        Ok(())
    }

    /// Writes these jobs out of these leases, but does not take them out there; answers what of it was in a lease still. It
    /// may be done twice, and stop anywhere. It is durable: a lease that has let go of a job must not be all that is left.
    async fn write_out_of(&self, leases: &HashMap<i64, Vec<JobId>>) -> Result<Vec<(i64, Vec<JobId>)>, Fault> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let fences = self.queued_fences(leases.values().flatten().copied()).await?;
        // Read after the fences: so what is written is a run of this lease, not of one that came after it.
        let numbers: Vec<i64> = leases.keys().copied().collect();
        let now: Vec<LeaseDoc> = self.leases().find(doc! { "_id": { "$in": numbers } }).await?.try_collect().await?;
        let (mut statements, mut written) = (Vec::new(), Vec::new());
        for lease in &now {
            let named: HashSet<JobId> = lease.jobs().collect();
            let asked = leases.get(&lease.id).into_iter().flatten().copied();
            let jobs: Vec<JobId> = asked.filter(|j| named.contains(j)).collect();
            let mut by_fence: HashMap<i64, Vec<JobId>> = HashMap::new();
            // What is not queued has no fence here and is not changed, nor is what was written out of this lease before.
            for (job, fence) in jobs.iter().filter_map(|j| Some((*j, *fences.get(j)?))) {
                by_fence.entry(fence).or_default().push(job);
            }
            for (fence, of) in by_fence {
                let only_if = doc! { "state": QUEUED, "fence": fence_is(fence), "claim": { "$ne": lease.id } };
                let set = doc! {
                    "state": RUNNING, "lease": lease.until, "worker": lease.worker, "started": lease.started,
                    "claim": lease.id,
                };
                let change = doc! { "$set": set, "$inc": { "fence": 1_i64 }, "$unset": { "progress": "" } };
                let n = of.len();
                statements.push((Change { of, only_if, change: Bson::Document(change) }.statement(), n));
            }
            written.push((lease.id, jobs));
        }
        self.change(Sure::Durable, &statements).await?;
        Ok(written)
    }

    async fn queued_fences(&self, of: impl IntoIterator<Item = JobId>) -> Result<HashMap<JobId, i64>, Fault> {
        let jobs = self.durable.collection::<Document>("jobs");
        let these = doc! { "_id": { "$in": ids(of) }, "state": QUEUED };
        let mut found = jobs.find(these).projection(doc! { "fence": 1 }).await?;
        let mut fences = HashMap::new();
        while let Some(d) = found.try_next().await? {
            fences.extend(super::write::job_id(&d).map(|j| (j, d.get_i64("fence").unwrap_or(0))));
        }
        Ok(fences)
    }

    /// Writes out all jobs of leases that match, and deletes these, `at_once` at a time: until none is left, because all that they
    /// name may have ended.
    pub(super) async fn write_out_whole(&self, which: Document, at_once: usize) -> Result<(), Fault> {
        let all = self.leases();
        loop {
            let some = all.find(which.clone()).limit(at_once as i64);
            let found: Vec<LeaseDoc> = some.await?.try_collect().await?;
            if found.is_empty() {
                return Ok(());
            }
            let last = found.len() < at_once;
            let leases: HashMap<i64, Vec<JobId>> = found.iter().map(|l| (l.id, l.jobs().collect())).collect();
            self.write_out_of(&leases).await?;
            let numbers: Vec<i64> = leases.into_keys().collect();
            self.lazy.collection::<Document>("leases").delete_many(doc! { "_id": { "$in": numbers } }).await?;
            if last {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{Duration, Held, Instant, JobId};

    fn job(n: u128) -> JobId {
        JobId(Uuid::from_u128(n))
    }

    #[test]
    fn a_lease_is_over_with_its_last_job_and_one_of_many_deletes() {
        let (held, until) = (Held::default(), Instant::now() + Duration::from_secs(60));
        held.won(1, &[job(1), job(2)], until);
        held.won(2, &[job(3)], until);
        assert!(!held.done([(job(1), 1)]));
        assert!(!held.done([(job(2), 2)]), "that is not its lease");
        assert!(held.done([(job(2), 1)]));
        assert!(!held.done([(job(3), 2)]), "somebody is about to delete already");
        assert_eq!(held.take_over(), [1, 2]);
        assert!(held.among([job(1), job(2), job(3)]).is_empty());
    }

    /// A run was lost without a word, and its job came again.
    #[test]
    fn a_job_that_is_won_again_leaves_its_former_lease() {
        let (held, until) = (Held::default(), Instant::now() + Duration::from_secs(60));
        held.won(1, &[job(1)], until);
        held.won(2, &[job(1)], until);
        assert!(!held.lock().left.contains_key(&1));
        held.won(3, &[job(2)], until);
        assert!(held.done([(job(2), 3)]), "leases are still deleted");
        assert_eq!(held.take_over(), [1, 3]);
        assert_eq!(held.among([job(1)]).get(&job(1)), Some(&2));
    }

    #[test]
    fn what_has_run_out_is_forgotten() {
        let (held, past) = (Held::default(), Instant::now());
        for n in 0..5000_u32 {
            held.won(n.into(), &[job(n.into())], past);
        }
        assert!(held.lock().left.len() <= super::MANY + 2, "{}", held.lock().left.len());
        assert!(held.lock().of.len() <= super::MANY + 2);
    }
}
