//! What people do to jobs in MongoDB: cancel, purge, run again, forget.

use std::collections::{HashMap, HashSet};

use ::mongodb::bson::{Bson, Document, doc};
use futures_util::TryStreamExt;

use super::{
    Ready,
    doc::{JobDoc, date, ids, to_json},
    fault::Fault,
    finish::count,
    jobs::QUEUED,
    write::{Change, Sure, call_number, job_id},
};
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

impl Ready {
    pub(super) async fn cancel(&self, of: &[JobId], now: Timestamp) -> Result<Vec<Cancelled>, Fault> {
        let (mut done, mut final_already) = (HashMap::new(), HashMap::new());
        let mut left: Vec<JobId> = of.to_vec();
        while !left.is_empty() {
            let flagged = self.flag(&left).await?;
            let mut queued_since = Vec::new();
            let cancel = |job_id, job: &Job| {
                Ok(match job.state {
                    // Asked once is asked for good.
                    State::Running => Some((doc! { "$set": { "cancel": true } }, Cancelled::Requested)),
                    // Whoever claims it now does not see that it must not.
                    State::Queued if !job.cancel_requested => {
                        queued_since.push(job_id);
                        None
                    }
                    state if next(state, Event::Cancel).is_some() => {
                        let set = doc! { "state": State::Cancelled as i32, "at": date(now), "cancel": true };
                        Some((doc! { "$set": set }, Cancelled::Now))
                    }
                    state => {
                        // Whoever claimed it meanwhile has seen our flag, and ended it.
                        let ours = state == State::Cancelled && flagged.contains(&job_id);
                        let answer = if ours { Cancelled::Now } else { Cancelled::AlreadyFinal(state) };
                        final_already.insert(job_id, answer);
                        None
                    }
                })
            };
            done.extend(self.decide(Sure::Durable, left, cancel).await?);
            left = queued_since;
        }
        done.extend(final_already);
        let mut answer = |job: &JobId| {
            let first = done.get(job).copied().unwrap_or(Cancelled::NotFound);
            if first == Cancelled::Now {
                // Named again, it has ended already.
                done.insert(*job, Cancelled::AlreadyFinal(State::Cancelled));
            }
            first
        };
        Ok(of.iter().map(&mut answer).collect())
    }

    /// Makes sure that nobody starts these jobs: from now on a claim sees the flag, and what was claimed before is written out
    /// as running. Answers which were flagged by this.
    async fn flag(&self, of: &[JobId]) -> Result<HashSet<JobId>, Fault> {
        let by = call_number();
        let flag = Change {
            of: of.to_vec(),
            only_if: doc! { "state": QUEUED, "cancel": { "$ne": true } },
            change: Bson::Document(doc! { "$set": { "cancel": true, "by": by } }),
        };
        let flagged = self.apply(Sure::Lazy, by, &[flag]).await?;
        self.write_out(of.iter().copied()).await?;
        Ok(flagged)
    }

    /// Ends flagged jobs that are in a lease of the caller, and reads them again: whoever flagged one may have been quicker,
    /// and have written it out.
    pub(super) async fn end_flagged(&self, of: Vec<JobId>, now: Timestamp) -> Result<HashMap<JobId, JobDoc>, Fault> {
        let change = Change {
            of: of.clone(),
            only_if: doc! { "state": QUEUED, "cancel": true },
            change: Bson::Document(doc! { "$set": { "state": State::Cancelled as i32, "at": date(now) } }),
        };
        self.change(Sure::Durable, &[(change.statement(), of.len())]).await?;
        self.read(of).await
    }

    pub(super) async fn purge(&self, queue: &QueueName, now: Timestamp, limit: usize) -> Result<u64, Fault> {
        let jobs = self.durable.collection::<Document>("jobs");
        let these = doc! {
            "state": QUEUED, "queue": queue.as_str(), "_id": { "$nin": ids(self.leased().await?) },
        };
        let query = jobs.find(these).sort(doc! { "at": 1 }).limit(limit as i64);
        let found: Vec<Document> = query.projection(doc! { "_id": 1 }).await?.try_collect().await?;
        if found.is_empty() {
            return Ok(0);
        }
        let by = call_number();
        let set = doc! { "state": State::Cancelled as i32, "at": date(now), "by": by };
        let change = Change {
            of: found.iter().filter_map(job_id).collect(),
            only_if: doc! { "state": QUEUED, "queue": queue.as_str(), "cancel": true },
            change: Bson::Document(doc! { "$set": set }),
        };
        self.flag(&change.of).await?;
        Ok(self.apply(Sure::Durable, by, &[change]).await?.len() as u64)
    }

    pub(super) async fn run_again(
        &self,
        jobs: &[Again],
        edit: &JobEdit,
        now: Timestamp,
    ) -> Result<Vec<RanAgain>, Fault> {
        let wishes: HashMap<JobId, &Again> = jobs.iter().rev().map(|a| (a.id, a)).collect();
        // Whoever is refused is told of the state.
        self.write_out(wishes.keys().copied()).await?;
        let mut refused = HashMap::new();
        let again = |id, job: &Job| {
            let Some(wish) = wishes.get(&id) else { return Ok(None) };
            match again(wish, job, edit, now)? {
                Ok(change) => Ok(Some(change)),
                Err(state) => {
                    refused.insert(id, RanAgain::Refused(state));
                    Ok(None)
                }
            }
        };
        let mut done = self.decide(Sure::Durable, wishes.keys().copied().collect(), again).await?;
        done.extend(refused);
        let mut answer = |a: &Again| {
            let first = done.get(&a.id).cloned().unwrap_or(RanAgain::NotFound);
            // Named twice, it was moved by the first.
            match first {
                RanAgain::Queued(_) => drop(done.insert(a.id, RanAgain::Refused(State::Queued))),
                RanAgain::Scheduled => drop(done.insert(a.id, RanAgain::Refused(State::Scheduled))),
                RanAgain::Refused(_) | RanAgain::NotFound => {}
            }
            first
        };
        Ok(jobs.iter().map(&mut answer).collect())
    }

    pub(super) async fn discard(&self, of: &[JobId]) -> Result<u64, Fault> {
        let dead = doc! { "_id": { "$in": ids(of.iter().copied()) }, "state": State::Failed as i32 };
        Ok(self.durable.collection::<Document>("jobs").delete_many(dead).await?.deleted_count)
    }
}

/// A change to a job and what the caller is told.
type Told = (Document, RanAgain);

/// How a job runs again, or the state that forbids it.
fn again(wish: &Again, job: &Job, edit: &JobEdit, now: Timestamp) -> Result<Result<Told, State>, Fault> {
    let event = if wish.at.is_some_and(|at| at > now) { Event::Postpone } else { Event::RunAgain };
    let Some(state) = next(job.state, event) else { return Ok(Err(job.state)) };
    let at = wish.at.filter(|_| state == State::Scheduled).unwrap_or(now);
    let queue = edit.queue.clone().unwrap_or_else(|| job.queue.clone());
    let priority = edit.priority.unwrap_or(job.priority);
    let spec = Spec {
        max_attempts: edit.max_attempts.unwrap_or(job.spec.max_attempts),
        payload: edit.payload.clone().unwrap_or_else(|| job.spec.payload.clone()),
        ..job.spec.clone()
    };
    let set = doc! {
        "state": state as i32, "at": date(at), "queue": queue.as_str(), "priority": i32::from(priority.get()),
        "spec": to_json("spec", &spec)?, "failures": count(0)?, "crashes": count(0)?, "cancel": false,
    };
    let change = doc! { "$set": set, "$unset": { "progress": "", "result": "" } };
    let outcome = match state {
        State::Scheduled => RanAgain::Scheduled,
        _ => RanAgain::Queued(Waiting { id: job.id, queue, priority, since: now }),
    };
    Ok(Ok((change, outcome)))
}
