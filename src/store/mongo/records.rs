//! The record port on MongoDB.
//!
//! All shelves are one collection, `records`: ids, names and labels begin with the shelf, so that one unique index and one
//! for labels serve them all, and the order of ids is the order of lists within a shelf.

use ::mongodb::{
    ClientSession, Collection,
    bson::{DateTime, Document, doc},
};
use async_trait::async_trait;
use futures_util::{TryStreamExt, future::ready};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Mongo, Ready,
    doc::{JobDoc, date, time, to_json},
    fault::{DUPLICATE, Fault, corrupt},
    together::Together,
};
use crate::{
    base::{
        clock::Timestamp,
        page::{Cursor, Page, PageRequest},
        store::StoreError,
    },
    events::Event,
    jobs::announce,
    records::{Committed, Record, RecordStore, Shelf, Write},
};

/// A record as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct RecordDoc {
    #[serde(rename = "_id")]
    id: String,
    version: i64,
    /// Absent if empty, so that the unique index does not see it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
    created: DateTime,
    updated: DateTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<DateTime>,
    /// The JSON as text: its keys may be what no field of a document may be called.
    body: String,
}

fn on(shelf: Shelf, word: &str) -> String {
    format!("{}/{word}", shelf.as_str())
}

fn id_of(shelf: Shelf, id: Uuid) -> String {
    on(shelf, &id.to_string())
}

impl RecordDoc {
    fn new(r: &Record) -> Result<Self, Fault> {
        Ok(Self {
            id: id_of(r.shelf, r.id),
            version: r.version.try_into().map_err(|e| corrupt("version", e))?,
            names: r.names.iter().map(|n| on(r.shelf, n)).collect(),
            labels: r.labels.iter().map(|l| on(r.shelf, l)).collect(),
            created: date(r.created_at),
            updated: date(r.updated_at),
            expires: r.expires_at.map(date),
            body: to_json("body", &r.body)?,
        })
    }

    fn record(self, shelf: Shelf) -> Result<Record, Fault> {
        let prefix = on(shelf, "");
        let bare = |all: Vec<String>| all.iter().filter_map(|w| w.strip_prefix(&prefix)).map(str::to_owned).collect();
        let id = self.id.strip_prefix(&prefix).unwrap_or_default();
        Ok(Record {
            shelf,
            id: Uuid::try_parse(id).map_err(|e| corrupt("record id", e))?,
            version: self.version.try_into().map_err(|e| corrupt("version", e))?,
            names: bare(self.names),
            labels: bare(self.labels),
            created_at: time(self.created),
            updated_at: time(self.updated),
            expires_at: self.expires.map(time),
            body: serde_json::from_str(&self.body).map_err(|e| corrupt("body", e))?,
        })
    }
}

#[async_trait]
impl RecordStore for Mongo {
    async fn commit(&self, writes: Vec<Write>, events: &[Event]) -> Result<Committed, StoreError> {
        let events = event_docs(events)?;
        self.call(async { self.database().await?.commit_records(&writes, &events).await }).await
    }

    async fn get(&self, shelf: Shelf, id: Uuid) -> Result<Option<Record>, StoreError> {
        self.call(async { self.database().await?.record(shelf, id).await }).await
    }

    async fn find_any(&self, shelf: Shelf, names: &[String]) -> Result<Vec<Record>, StoreError> {
        let names: Vec<String> = names.iter().map(|n| on(shelf, n)).collect();
        self.call(async {
            let found = self.database().await?.records().find(doc! { "names": { "$in": names } }).await?;
            found.map_err(Fault::from).and_then(|d| ready(d.record(shelf))).try_collect().await
        })
        .await
    }

    async fn list(&self, shelf: Shelf, labels: &[String], page: PageRequest) -> Result<Page<Record>, StoreError> {
        self.call(async { self.database().await?.list_records(shelf, labels, page).await }).await
    }

    async fn expire(&self, now: Timestamp, limit: usize) -> Result<u64, StoreError> {
        self.call(async { self.database().await?.expire_records(now, limit).await }).await
    }
}

/// The jobs of events as documents.
pub(super) fn event_docs<'a>(events: impl IntoIterator<Item = &'a Event>) -> Result<Vec<JobDoc>, Fault> {
    events.into_iter().map(|e| JobDoc::new(&announce::job_of(e).map_err(|e| corrupt("event", e))?)).collect()
}

/// Changes of records, and the events that tell of them.
struct Changes<'a> {
    writes: &'a [Write],
    events: &'a [JobDoc],
}

#[async_trait]
impl Together for Changes<'_> {
    type Done = Committed;

    async fn write(&self, ready: &Ready, session: &mut ClientSession) -> Result<(Committed, bool), Fault> {
        for write in self.writes {
            match ready.write_record(write, Some(&mut *session)).await? {
                Committed::Done => {}
                refused => return Ok((refused, false)),
            }
        }
        if !self.events.is_empty() {
            ready.jobs().insert_many(self.events).session(session).await?;
        }
        Ok((Committed::Done, true))
    }
}

impl Ready {
    fn records(&self) -> Collection<RecordDoc> {
        self.durable.collection("records")
    }

    async fn record(&self, shelf: Shelf, id: Uuid) -> Result<Option<Record>, Fault> {
        self.records().find_one(doc! { "_id": id_of(shelf, id) }).await?.map(|d| d.record(shelf)).transpose()
    }

    async fn list_records(&self, shelf: Shelf, labels: &[String], page: PageRequest) -> Result<Page<Record>, Fault> {
        let before = id_of(shelf, page.after.map_or(Uuid::max(), |c| c.0));
        let mut filter = doc! { "_id": { "$gte": on(shelf, ""), "$lt": before } };
        let labels: Vec<String> = labels.iter().map(|l| on(shelf, l)).collect();
        if !labels.is_empty() {
            filter.insert("labels", doc! { "$all": labels });
        }
        let limit = i64::try_from(page.limit).unwrap_or(i64::MAX - 1);
        let found = self.records().find(filter).sort(doc! { "_id": -1 }).limit(limit + 1).await?;
        let found: Vec<RecordDoc> = found.try_collect().await?;
        let mut data: Vec<Record> = found.into_iter().map(|d| d.record(shelf)).collect::<Result<_, _>>()?;
        let more = data.len() > page.limit;
        data.truncate(page.limit);
        let next = data.last().filter(|_| more).map(|r| Cursor(r.id));
        Ok(Page { data, next })
    }

    async fn expire_records(&self, now: Timestamp, limit: usize) -> Result<u64, Fault> {
        let records = self.lazy.collection::<Document>("records");
        let query = records.find(doc! { "expires": { "$lt": date(now) } }).projection(doc! { "_id": 1 });
        let over: Vec<Document> = query.limit(limit as i64).await?.try_collect().await?;
        let ids: Vec<_> = over.iter().filter_map(|d| d.get("_id").cloned()).collect();
        if ids.is_empty() {
            return Ok(0);
        }
        Ok(records.delete_many(doc! { "_id": { "$in": ids }, "expires": { "$lt": date(now) } }).await?.deleted_count)
    }

    async fn commit_records(&self, writes: &[Write], events: &[JobDoc]) -> Result<Committed, Fault> {
        let done = match writes {
            [only] if events.is_empty() => self.write_record(only, None).await,
            _ => self.together(&Changes { writes, events }).await,
        };
        match done {
            Err(e) if e.code() == Some(DUPLICATE) => self.what_was_taken(writes, e).await,
            done => done,
        }
    }

    async fn write_record(&self, write: &Write, session: Option<&mut ClientSession>) -> Result<Committed, Fault> {
        let records = self.records();
        let (id, met) = match write {
            Write::Insert(r) => {
                let insert = records.insert_one(RecordDoc::new(r)?);
                match session {
                    Some(s) => insert.session(s).await?,
                    None => insert.await?,
                };
                (r.id, 1)
            }
            Write::Replace { record: r, expected } => {
                let expected = i64::try_from(*expected).map_err(|e| corrupt("version", e))?;
                let filter = doc! { "_id": id_of(r.shelf, r.id), "version": expected };
                let replace = records.replace_one(filter, RecordDoc::new(r)?);
                let done = match session {
                    Some(s) => replace.session(s).await?,
                    None => replace.await?,
                };
                (r.id, done.matched_count)
            }
            Write::Remove { shelf, id, expected } => {
                let mut filter = doc! { "_id": id_of(*shelf, *id) };
                if let Some(expected) = expected {
                    filter.insert("version", i64::try_from(*expected).map_err(|e| corrupt("version", e))?);
                }
                let remove = records.delete_one(filter);
                let done = match session {
                    Some(s) => remove.session(s).await?,
                    None => remove.await?,
                };
                (*id, done.deleted_count)
            }
        };
        Ok(if met == 1 { Committed::Done } else { Committed::Stale(id) })
    }

    /// Which name made a write fail: one that another record has. The server says so in words only.
    async fn what_was_taken(&self, writes: &[Write], fault: Fault) -> Result<Committed, Fault> {
        for write in writes {
            let (Write::Insert(r) | Write::Replace { record: r, .. }) = write else { continue };
            for name in &r.names {
                let other = doc! { "names": on(r.shelf, name), "_id": { "$ne": id_of(r.shelf, r.id) } };
                if self.records().find_one(other).await?.is_some() {
                    return Ok(Committed::Taken(name.clone()));
                }
            }
            if matches!(write, Write::Insert(_))
                && self.records().find_one(doc! { "_id": id_of(r.shelf, r.id) }).await?.is_some()
            {
                return Ok(Committed::Stale(r.id));
            }
        }
        // Two writes of this very commit, or whoever had the name has given it back since.
        Err(fault)
    }
}
