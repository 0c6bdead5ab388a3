//! Claiming: one lease for all that was delivered, then what its jobs are like.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use ::mongodb::{bson::doc, error::ErrorKind};
use futures_util::future::{join, try_join};
use tokio::time::Instant;

use super::{
    Ready, changes,
    doc::{JobDoc, time},
    fault::{DUPLICATE, Fault, NO_ANSWER},
    jobs::QUEUED,
    leases::LeaseDoc,
    write::call_number,
};
use crate::{
    base::{
        clock::Timestamp,
        id::{JobId, WorkerId},
    },
    jobs::store::Claim,
};

impl Ready {
    /// One document claims them all (see [`super::leases`]); the read after it says which were there to be claimed.
    ///
    /// It is durable before the worker hears of it. A server that died and forgot a claim would give the same job with the
    /// same fence to another worker, and each could end the other's run.
    pub(super) async fn claim(
        &self,
        of: &[JobId],
        worker: WorkerId,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Vec<Claim>, Fault> {
        let mut seen = HashSet::new();
        let each: Vec<JobId> = of.iter().copied().filter(|j| seen.insert(*j)).collect();
        if each.is_empty() {
            return Ok(Vec::new());
        }
        let began = Instant::now();
        let until = began + lease;
        let new = |jobs: &[JobId]| LeaseDoc::new(call_number(), worker, now, lease, jobs);
        let whole = new(&each);
        // Meanwhile, so that the claim need not wait for this as well.
        let (leased, ()) = join(self.lease(&whole), self.look_for_pauses()).await;
        let (leases, mut found) = match leased {
            Ok(found) => (vec![whole], found),
            // Somebody has one of them, or several: each for itself, then.
            Err(e) if e.code() == Some(DUPLICATE) => {
                let leases = self.lease_each(each.iter().map(|j| new(&[*j])).collect()).await?;
                let found = self.read(leases.iter().flat_map(LeaseDoc::jobs)).await?;
                (leases, found)
            }
            Err(e) => return Err(e),
        };
        // Who was suspended for so long may have read the jobs when the lease was gone.
        if began.elapsed() >= lease {
            return Err(Fault::Write(NO_ANSWER, "the claim took longer than its lease".to_owned()));
        }
        // Asked last, so that nothing starts once a pause was answered.
        let paused = self.paused_for_claims().await?;
        let flagged = |lease: &LeaseDoc| {
            let is_flagged = |j: &JobId| found.get(j).is_some_and(|d| lease.runs(d) && d.cancel);
            lease.jobs().filter(is_flagged).collect::<Vec<_>>()
        };
        let flagged: Vec<JobId> = leases.iter().flat_map(flagged).collect();
        if !flagged.is_empty() {
            found.extend(self.end_flagged(flagged, now).await?);
        }
        let mut won = HashMap::new();
        for lease in &leases {
            let free = |d: &JobDoc| lease.runs(d) && !d.cancel && !paused.contains(&d.queue);
            // Whoever found the lease already may have written it out, to cancel the job for one: it runs all the same.
            let (ours, not): (Vec<JobId>, Vec<JobId>) =
                lease.jobs().partition(|j| found.get(j).is_some_and(|d| free(d) || lease.wrote_out(d)));
            self.give_back(lease, &not, ours.is_empty()).await?;
            self.held.won(lease.id, &ours, until);
            for job in ours {
                if let Some(d) = found.remove(&job) {
                    let queued_at = time(d.at);
                    let d = if lease.runs(&d) { lease.run(d) } else { d };
                    won.insert(job, Claim::Won { job: Box::new(d.job()?), queued_at });
                }
            }
        }
        let answer = |job: &JobId| match won.remove(job) {
            Some(claim) => claim,
            None if found.get(job).is_some_and(|d| d.state == QUEUED && !d.cancel) => Claim::Paused,
            None => Claim::Gone,
        };
        Ok(of.iter().map(answer).collect())
    }

    /// Inserts a lease and reads its jobs; of a lone job while the journal is still at work, because an idle worker waits for it.
    async fn lease(&self, lease: &LeaseDoc) -> Result<HashMap<JobId, JobDoc>, Fault> {
        if lease.jobs().count() > 1 {
            self.leases().insert_one(lease).await?;
            return self.read(lease.jobs()).await;
        }
        self.lazy.collection::<LeaseDoc>("leases").insert_one(lease).await?;
        let same = doc! { "q": { "_id": lease.id }, "u": { "$set": { "until": lease.until } } };
        let (found, ()) = try_join(self.read(lease.jobs()), changes::settled(self, "leases", same)).await?;
        Ok(found)
    }

    /// Inserts what can be inserted of leases on one job each.
    async fn lease_each(&self, leases: Vec<LeaseDoc>) -> Result<Vec<LeaseDoc>, Fault> {
        let Err(e) = self.leases().insert_many(&leases).ordered(false).await else { return Ok(leases) };
        let taken: Option<HashSet<usize>> = match e.kind.as_ref() {
            ErrorKind::InsertMany(m) if m.write_concern_error.is_none() => {
                let errors = m.write_errors.iter().flatten();
                errors.map(|e| (e.code == DUPLICATE).then_some(e.index)).collect()
            }
            _ => None,
        };
        let Some(taken) = taken else { return Err(e.into()) };
        Ok(leases.into_iter().enumerate().filter(|(n, _)| !taken.contains(n)).map(|(_, lease)| lease).collect())
    }
}
