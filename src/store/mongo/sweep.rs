//! What the scheduler's passes do in MongoDB: small indexed batches, safe to run twice and by several at once.

use std::collections::HashSet;

use ::mongodb::bson::{Bson, Document, doc};
use futures_util::TryStreamExt;

use super::{
    Ready,
    doc::{date, id, ids, time, to_json},
    fault::Fault,
    finish::{count, recorded},
    jobs::{QUEUED, RUNNING},
    leases::LeaseDoc,
    told::ToldEnd,
    write::{Change, Sure, call_number},
};
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

const SCHEDULED: i32 = State::Scheduled as i32;

impl Ready {
    pub(super) async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<Waiting>, Fault> {
        let due = doc! { "state": SCHEDULED, "at": { "$lte": date(now) } };
        let found: Vec<_> =
            self.jobs().find(due).sort(doc! { "at": 1 }).limit(limit as i64).await?.try_collect().await?;
        let by = call_number();
        let change = Change {
            of: found.iter().map(super::JobDoc::job_id).collect(),
            // Someone may have given it another time since.
            only_if: doc! { "state": SCHEDULED, "at": { "$lte": date(now) } },
            change: Bson::Document(doc! { "$set": { "state": QUEUED, "at": date(now), "by": by } }),
        };
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let moved = self.apply(Sure::Lazy, by, &[change]).await?;
        found.iter().filter(|d| moved.contains(&d.job_id())).map(|d| d.waiting(now)).collect()
    }

    pub(super) async fn next_due(&self) -> Result<Option<Timestamp>, Fault> {
        let jobs = self.durable.collection::<Document>("jobs");
        let first = jobs
            .find_one(doc! { "state": SCHEDULED })
            .sort(doc! { "state": 1, "at": 1 })
            .projection(doc! { "_id": 0, "at": 1 })
            .hint(::mongodb::options::Hint::Name("scheduled".to_owned()))
            .await?;
        Ok(first.and_then(|d| d.get_datetime("at").ok().map(|at| time(*at))))
    }

    pub(super) async fn void(
        &self,
        which: &Void,
        now: Timestamp,
        crash_limit: u32,
        limit: usize,
        listened: &Listened,
    ) -> Result<Vec<Moved>, Fault> {
        let (filter, leases) = match which {
            Void::Expired(at) => {
                let over = doc! { "$lte": date(*at) };
                (doc! { "state": RUNNING, "lease": over.clone() }, doc! { "until": over })
            }
            Void::NotOwnedBy(alive) => {
                let alive: Vec<_> = alive.iter().map(|w| id(w.0)).collect();
                let others = doc! { "$nin": alive };
                (doc! { "state": RUNNING, "worker": others.clone() }, doc! { "worker": others })
            }
        };
        self.write_out_whole(leases, limit).await?;
        let jobs = self.durable.collection::<Document>("jobs");
        let query = jobs.find(filter).sort(doc! { "lease": 1 }).limit(limit as i64).projection(doc! { "_id": 1 });
        let found: Vec<Document> = query.await?.try_collect().await?;
        let ids: Vec<JobId> = found.iter().filter_map(super::write::job_id).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut told = Vec::new();
        let lose = |_, job: &Job| match lost(which, job, now, crash_limit)? {
            Some((change, moved)) if listened.wants(job, moved.state) => {
                told.push((job.clone(), change, moved));
                Ok(None)
            }
            other => Ok(other),
        };
        let mut moved: Vec<Moved> = self.decide(Sure::Lazy, ids, lose).await?.into_values().collect();
        if !told.is_empty() {
            moved.extend(self.lose_and_tell(told, now).await?);
        }
        moved.sort_by_key(|m| m.job.id);
        Ok(moved)
    }

    async fn lose_and_tell(&self, lost: Vec<(Job, Document, Moved)>, now: Timestamp) -> Result<Vec<Moved>, Fault> {
        let (mut ends, mut all) = (Vec::new(), Vec::new());
        for (job, change, moved) in lost {
            // A renewal since would have changed the lease.
            let only_if = doc! {
                "_id": id(job.id.0), "state": RUNNING, "fence": job.fence as i64, "lease": date(job.at),
            };
            let error = change.get_document("$set").ok().and_then(|set| set.get_str("error").ok());
            let error = error.and_then(|e| serde_json::from_str(e).ok());
            let event = announce::end_of(&job, moved.state, error.as_ref(), now);
            ends.push(ToldEnd::new(only_if, change, moved.state, [&event])?);
            all.push(moved);
        }
        let states = self.tell(ends).await?;
        Ok(all.into_iter().zip(states).filter_map(|(moved, state)| state.map(|_| moved)).collect())
    }

    pub(super) async fn waiting(
        &self,
        queue: &QueueName,
        before: Timestamp,
        after: Option<(Timestamp, JobId)>,
        limit: usize,
    ) -> Result<Vec<Waiting>, Fault> {
        let (mut waiting, mut after) = (Vec::new(), after);
        loop {
            let found = self.queued_since(queue, before, after, limit).await?;
            let leases = self.leases_of(found.iter().map(super::JobDoc::job_id)).await?;
            let leased: HashSet<JobId> = leases.iter().flat_map(LeaseDoc::jobs).collect();
            // Nobody starts what is flagged: whoever was on the way to cancel it has died.
            let flagged: Vec<JobId> = found.iter().filter(|d| d.cancel).map(super::JobDoc::job_id).collect();
            if !flagged.is_empty() {
                self.cancel(&flagged, before).await?;
            }
            for d in found.iter().filter(|d| !d.cancel && !leased.contains(&d.job_id())) {
                waiting.push(d.waiting(time(d.at))?);
            }
            match found.last() {
                // Some of them run: what comes after them is looked at, too.
                Some(last) if found.len() == limit && waiting.len() < limit => {
                    after = Some((time(last.at), last.job_id()))
                }
                _ => break,
            }
        }
        waiting.truncate(limit);
        Ok(waiting)
    }

    async fn queued_since(
        &self,
        queue: &QueueName,
        before: Timestamp,
        after: Option<(Timestamp, JobId)>,
        limit: usize,
    ) -> Result<Vec<super::JobDoc>, Fault> {
        let mut filter = doc! { "state": QUEUED, "queue": queue.as_str(), "at": { "$lt": date(before) } };
        if let Some((at, job)) = after {
            let later = doc! { "at": { "$gt": date(at) } };
            filter.insert("$or", vec![later, doc! { "at": date(at), "_id": { "$gt": id(job.0) } }]);
            filter.insert("at", doc! { "$lt": date(before), "$gte": date(at) });
        }
        let jobs = self.jobs();
        let query = jobs.find(filter).sort(doc! { "at": 1, "_id": 1 }).limit(limit as i64);
        Ok(query.await?.try_collect().await?)
    }

    pub(super) async fn retain(
        &self,
        retention: Retention,
        after: Option<JobId>,
        limit: usize,
    ) -> Result<(u64, Option<JobId>), Fault> {
        let keys = self.lazy.collection::<Document>("idempotency_keys");
        let gone = keys.delete_many(doc! { "expires": { "$lte": date(retention.now) } }).await?.deleted_count;
        if gone > 0 {
            tracing::debug!(keys = gone, "expired idempotency keys removed");
        }
        let jobs = self.lazy.collection::<Document>("jobs");
        let filter = match after {
            Some(job) => doc! { "_id": { "$gt": id(job.0) } },
            None => Document::new(),
        };
        let query = jobs.find(filter).sort(doc! { "_id": 1 }).limit(limit as i64);
        let mut cursor = query.projection(doc! { "state": 1, "at": 1, "created": 1 }).await?;
        // A job ended after it was created, so past the younger of the two limits there is nothing left to find.
        let youngest = retention.finished_before.max(retention.failed_before);
        let (mut seen, mut last, mut failed, mut finished) = (0, None, Vec::new(), Vec::new());
        while let Some(d) = cursor.try_next().await? {
            let created = d.get_datetime("created").map_err(|e| super::fault::corrupt("created", e))?;
            if time(*created) >= youngest {
                break;
            }
            seen += 1;
            last = super::write::job_id(&d);
            let at = time(*d.get_datetime("at").map_err(|e| super::fault::corrupt("at", e))?);
            let state = State::from_number(d.get_i32("state").unwrap_or(-1).into());
            match (state, last) {
                (Some(State::Failed), Some(job)) if at < retention.failed_before => failed.push(job),
                (Some(State::Succeeded | State::Cancelled), Some(job)) if at < retention.finished_before => {
                    finished.push(job);
                }
                _ => {}
            }
        }
        let mut removed = 0;
        let over = [State::Succeeded as i32, State::Cancelled as i32];
        for (of, states, before) in [
            (finished, over.as_slice(), retention.finished_before),
            (failed, [State::Failed as i32].as_slice(), retention.failed_before),
        ] {
            if !of.is_empty() {
                let still = doc! {
                    "_id": { "$in": ids(of) }, "state": { "$in": states.to_vec() }, "at": { "$lt": date(before) },
                };
                removed += jobs.delete_many(still).await?.deleted_count;
            }
        }
        Ok((removed, if seen == limit { last } else { None }))
    }
}

/// What becomes of a job whose worker is gone; none if it is not: it ended, or its lease was renewed.
fn lost(which: &Void, job: &Job, now: Timestamp, crash_limit: u32) -> Result<Option<(Document, Moved)>, Fault> {
    let void = match which {
        Void::Expired(at) => job.at <= *at,
        Void::NotOwnedBy(alive) => !job.worker.is_some_and(|w| alive.contains(&w)),
    };
    if job.state != State::Running || !void {
        return Ok(None);
    }
    let Loss { state, at, crashes, error, attempt } = lose(job, now, crash_limit);
    let mut set = doc! { "state": state as i32, "at": date(at), "crashes": count(crashes)? };
    if let Some(e) = error {
        set.insert("error", to_json("error", &e)?);
    }
    let change = doc! { "$set": set, "$unset": { "lease": "" }, "$push": recorded(&attempt)? };
    let waiting = Waiting { id: job.id, queue: job.queue.clone(), priority: job.priority, since: at };
    Ok(Some((change, Moved { job: waiting, state })))
}
