//! Reading jobs from MongoDB: one by id, or a page of many with bounded work.

use std::collections::HashMap;

use ::mongodb::{
    bson::{Document, doc},
    options::Hint,
};
use futures_util::TryStreamExt;
use uuid::Uuid;

use super::{
    Ready,
    doc::{JobDoc, date, id},
    fault::Fault,
    jobs::QUEUED,
    leases::LeaseDoc,
};
use crate::{
    base::{
        id::JobId,
        page::{Cursor, Page, PageRequest},
    },
    jobs::{model::Job, state::State, store::JobFilter},
};

/// A page looks at no more than so many jobs. Rare matches come on later, shorter pages instead of after a long wait.
const LOOKED_AT: u64 = 20_000;
/// A page ends when its jobs hold this many bytes: payloads and results may be large, and memory is not.
const PAGE_BYTES: usize = 4 << 20;

impl Ready {
    pub(super) async fn get(&self, job: JobId) -> Result<Option<Job>, Fault> {
        let jobs = self.jobs();
        let read = || jobs.find_one(doc! { "_id": id(job.0) });
        let mut found = read().await?;
        // One that seems to wait may run under a lease, or may have done so until a moment ago: so it is read again after that.
        if found.as_ref().is_some_and(|d| d.state == QUEUED) {
            let lease = self.leases_of([job]).await?.pop();
            found = read().await?.map(|d| match &lease {
                Some(lease) if lease.runs(&d) => lease.run(d),
                _ => d,
            });
        }
        found.map(JobDoc::job).transpose()
    }

    pub(super) async fn list(&self, filter: &JobFilter, page: PageRequest) -> Result<Page<Job>, Fault> {
        if filter.state == Some(State::Running) {
            self.write_out(self.leased().await?).await?;
        }
        let before = id(page.after.map_or(Uuid::max(), |c| c.0));
        let (window, index) = window(filter);
        let asked = conditions(filter);
        // Where every job of the window matches, the page's limit bounds the work by itself.
        let end = if asked.is_empty() { None } else { self.end_of_look(&window, index, before).await? };
        let mut range = doc! { "$lt": before };
        if let Some(end) = end {
            range.insert("$gte", id(end.0));
        }
        let mut query = window;
        query.extend(asked);
        query.insert("_id", range);
        let limit = i64::try_from(page.limit).unwrap_or(i64::MAX - 1);
        let mut found = self.jobs().find(query).sort(doc! { "_id": -1 }).limit(limit + 1).hint(hint(index)).await?;
        let (mut docs, mut bytes, mut next) = (Vec::new(), 0, end);
        while let Some(d) = found.try_next().await? {
            if docs.len() == page.limit || bytes > PAGE_BYTES {
                next = docs.last().map(|d: &JobDoc| Cursor(d.job_id().0));
                break;
            }
            bytes += d.bytes();
            docs.push(d);
        }
        // Otherwise everything looked at is shown; more may lie beyond the last one looked at.
        let docs = self.as_they_run(docs).await?;
        let shown = docs.into_iter().filter(|d| filter.state.is_none_or(|s| s as i32 == d.state));
        Ok(Page { data: shown.map(JobDoc::job).collect::<Result<_, _>>()?, next })
    }

    /// Shows jobs that run under a lease as running.
    async fn as_they_run(&self, docs: Vec<JobDoc>) -> Result<Vec<JobDoc>, Fault> {
        let queued = docs.iter().filter(|d| d.state == QUEUED).map(JobDoc::job_id);
        let leases = self.leases_of(queued.collect::<Vec<_>>()).await?;
        let of: HashMap<JobId, &LeaseDoc> = leases.iter().flat_map(|l| l.jobs().map(move |j| (j, l))).collect();
        let run = |d: JobDoc| match of.get(&d.job_id()) {
            Some(lease) if lease.runs(&d) => lease.run(d),
            _ => d,
        };
        Ok(docs.into_iter().map(run).collect())
    }

    /// The last job that a page may look at, if there are more behind it.
    async fn end_of_look(
        &self,
        window: &Document,
        index: &str,
        before: ::mongodb::bson::Uuid,
    ) -> Result<Option<Cursor>, Fault> {
        let mut query = window.clone();
        query.insert("_id", doc! { "$lt": before });
        let jobs = self.durable.collection::<Document>("jobs");
        let last = jobs.find_one(query).sort(doc! { "_id": -1 }).skip(LOOKED_AT - 1).hint(hint(index));
        let last = last.projection(doc! { "_id": 1 }).await?;
        Ok(last.as_ref().and_then(super::write::job_id).map(|j| Cursor(j.0)))
    }
}

/// What a page looks at: an index where one holds the state in order or holds few, else all jobs. The index is named,
/// because the planner would rather walk all jobs in the order of their ids than sort the few that run.
fn window(filter: &JobFilter) -> (Document, &'static str) {
    match filter.state {
        Some(State::Failed) => (doc! { "state": State::Failed as i32 }, "dead"),
        Some(State::Running) => (doc! { "state": State::Running as i32 }, "running"),
        _ => (Document::new(), "_id_"),
    }
}

fn hint(index: &str) -> Hint {
    Hint::Name(index.to_owned())
}

fn conditions(f: &JobFilter) -> Document {
    let mut all = Document::new();
    if let Some(state) = f.state.filter(|s| !matches!(s, State::Failed | State::Running)) {
        // As an expression it chooses no index: those of the live states are not in the order of ids.
        all.insert("$expr", doc! { "$eq": ["$state", state as i32] });
    }
    if let Some(k) = &f.kind {
        all.insert("kind", k.as_str());
    }
    if let Some(q) = &f.queue {
        all.insert("queue", q.as_str());
    }
    if !f.tags.is_empty() {
        all.insert("tags", doc! { "$all": f.tags.clone() });
    }
    let mut created = Document::new();
    if let Some(t) = f.created_after {
        created.insert("$gte", date(t));
    }
    if let Some(t) = f.created_before {
        created.insert("$lt", date(t));
    }
    if !created.is_empty() {
        all.insert("created", created);
    }
    all
}
