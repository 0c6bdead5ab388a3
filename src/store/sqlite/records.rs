//! The record port on SQLite.

use std::collections::BTreeSet;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::{Fault, Sqlite, jobs, row, writer::Writing};
use crate::{
    base::{
        clock::Timestamp,
        page::{Cursor, Page, PageRequest},
        store::StoreError,
    },
    events::Event,
    jobs::{announce, model::Job},
    records::{Committed, Record, RecordStore, Shelf, Write},
};

const RECORD: &str = "id, version, names, labels, created, updated, expires, body";

/// An event's job, serialised for the writer.
pub(super) type EventRow = (Job, String);

/// The jobs of events, serialised before the writer is asked.
pub(super) fn event_rows<'a>(events: impl IntoIterator<Item = &'a Event>) -> Result<Vec<EventRow>, Fault> {
    let row = |e| {
        let job = announce::job_of(e).map_err(|e| row::corrupt("event", e))?;
        let spec = row::to_json("spec", &job.spec)?;
        Ok((job, spec))
    };
    events.into_iter().map(row).collect()
}

#[async_trait]
impl RecordStore for Sqlite {
    async fn commit(&self, writes: Vec<Write>, events: &[Event]) -> Result<Committed, StoreError> {
        let events = event_rows(events)?;
        self.write(move |w| commit(w, &writes, &events)).await
    }

    async fn get(&self, shelf: Shelf, id: Uuid) -> Result<Option<Record>, StoreError> {
        self.read(move |c| get(c, shelf, id)).await
    }

    async fn find_any(&self, shelf: Shelf, names: &[String]) -> Result<Vec<Record>, StoreError> {
        let names = names.to_vec();
        self.read(move |c| {
            let mut ids = BTreeSet::new();
            for name in &names {
                ids.extend(holder(c, shelf, name)?);
            }
            ids.into_iter().filter_map(|id| get(c, shelf, id).transpose()).collect()
        })
        .await
    }

    async fn list(&self, shelf: Shelf, labels: &[String], page: PageRequest) -> Result<Page<Record>, StoreError> {
        let labels = labels.to_vec();
        self.read(move |c| list(c, shelf, &labels, page)).await
    }

    async fn expire(&self, now: Timestamp, limit: usize) -> Result<u64, StoreError> {
        self.write_lazily(move |w| expire(w, now, limit)).await
    }
}

/// Looks first and writes then: there is one writer, so nothing comes between.
fn commit(w: &mut Writing<'_>, writes: &[Write], events: &[EventRow]) -> Result<Committed, Fault> {
    for write in writes {
        if let Some(refused) = refusal(w.conn, write)? {
            return Ok(refused);
        }
    }
    for write in writes {
        match write {
            Write::Insert(r) => insert(w.conn, r)?,
            Write::Replace { record, .. } => {
                remove(w.conn, record.shelf, record.id)?;
                insert(w.conn, record)?;
            }
            Write::Remove { shelf, id, .. } => remove(w.conn, *shelf, *id)?,
        }
    }
    jobs::insert(w, events, None)?;
    Ok(Committed::Done)
}

fn refusal(conn: &Connection, write: &Write) -> Result<Option<Committed>, Fault> {
    let (new, shelf, id, expected) = match write {
        Write::Insert(r) => (Some(r), r.shelf, r.id, None),
        Write::Replace { record: r, expected } => (Some(r), r.shelf, r.id, Some(*expected)),
        Write::Remove { shelf, id, expected } => (None, *shelf, *id, *expected),
    };
    let version: Option<i64> = conn
        .prepare_cached("SELECT version FROM records WHERE shelf = ?1 AND id = ?2")?
        .query_row(params![shelf.as_str(), id.as_bytes()], |r| r.get(0))
        .optional()?;
    let fits = match (write, version, expected) {
        (Write::Insert(_), there, _) => there.is_none(),
        (_, Some(v), Some(e)) => u64::try_from(v).ok() == Some(e),
        (_, there, None) => there.is_some(),
        (_, None, Some(_)) => false,
    };
    if !fits {
        return Ok(Some(Committed::Stale(id)));
    }
    for name in new.into_iter().flat_map(|r| &r.names) {
        if holder(conn, shelf, name)?.is_some_and(|h| h != id) {
            return Ok(Some(Committed::Taken(name.clone())));
        }
    }
    Ok(None)
}

fn holder(conn: &Connection, shelf: Shelf, name: &str) -> Result<Option<Uuid>, Fault> {
    let mut select = conn.prepare_cached("SELECT id FROM record_names WHERE shelf = ?1 AND name = ?2")?;
    let mut rows = select.query(params![shelf.as_str(), name])?;
    rows.next()?.map(|r| row::uuid(r, 0)).transpose()
}

fn insert(conn: &Connection, r: &Record) -> Result<(), Fault> {
    conn.prepare_cached(
        "INSERT INTO records (shelf, id, version, names, labels, created, updated, expires, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        r.shelf.as_str(),
        r.id.as_bytes(),
        r.version as i64,
        row::to_json("names", &r.names)?,
        row::to_json("labels", &r.labels)?,
        r.created_at.as_millis(),
        r.updated_at.as_millis(),
        r.expires_at.map(Timestamp::as_millis),
        row::to_json("body", &r.body)?
    ])?;
    let mut name = conn.prepare_cached("INSERT INTO record_names (shelf, name, id) VALUES (?1, ?2, ?3)")?;
    for n in &r.names {
        name.execute(params![r.shelf.as_str(), n, r.id.as_bytes()])?;
    }
    let mut label = conn.prepare_cached("INSERT INTO record_labels (shelf, label, id) VALUES (?1, ?2, ?3)")?;
    for l in &r.labels {
        label.execute(params![r.shelf.as_str(), l, r.id.as_bytes()])?;
    }
    Ok(())
}

fn remove(conn: &Connection, shelf: Shelf, id: Uuid) -> Result<(), Fault> {
    let Some(r) = get(conn, shelf, id)? else { return Ok(()) };
    let mut name = conn.prepare_cached("DELETE FROM record_names WHERE shelf = ?1 AND name = ?2")?;
    for n in &r.names {
        name.execute(params![shelf.as_str(), n])?;
    }
    let mut label = conn.prepare_cached("DELETE FROM record_labels WHERE shelf = ?1 AND label = ?2 AND id = ?3")?;
    for l in &r.labels {
        label.execute(params![shelf.as_str(), l, id.as_bytes()])?;
    }
    conn.prepare_cached("DELETE FROM records WHERE shelf = ?1 AND id = ?2")?
        .execute(params![shelf.as_str(), id.as_bytes()])?;
    Ok(())
}

fn get(conn: &Connection, shelf: Shelf, id: Uuid) -> Result<Option<Record>, Fault> {
    let mut select = conn.prepare_cached(&format!("SELECT {RECORD} FROM records WHERE shelf = ?1 AND id = ?2"))?;
    let mut rows = select.query(params![shelf.as_str(), id.as_bytes()])?;
    rows.next()?.map(|r| record(shelf, r)).transpose()
}

fn record(shelf: Shelf, r: &Row<'_>) -> Result<Record, Fault> {
    let words = |i, what| -> Result<Vec<String>, Fault> {
        let text = r.get_ref(i)?.as_str().map_err(|e| row::corrupt(what, e))?;
        serde_json::from_str(text).map_err(|e| row::corrupt(what, e))
    };
    let body = r.get_ref(7)?.as_str().map_err(|e| row::corrupt("body", e))?;
    Ok(Record {
        shelf,
        id: row::uuid(r, 0)?,
        version: r.get::<_, i64>(1)?.try_into().map_err(|e| row::corrupt("version", e))?,
        names: words(2, "names")?,
        labels: words(3, "labels")?,
        created_at: row::time(r, 4)?,
        updated_at: row::time(r, 5)?,
        expires_at: r.get::<_, Option<i64>>(6)?.map(Timestamp::from_millis),
        body: serde_json::from_str(body).map_err(|e| row::corrupt("body", e))?,
    })
}

fn list(conn: &Connection, shelf: Shelf, labels: &[String], page: PageRequest) -> Result<Page<Record>, Fault> {
    let before = page.after.map_or(Uuid::max(), |c| c.0);
    let sql = match labels {
        [] => format!("SELECT {RECORD} FROM records WHERE shelf = ?1 AND id < ?2 AND ?3 IS NOT NULL ORDER BY id DESC"),
        _ => "SELECT r.id, version, names, labels, created, updated, expires, body
              FROM record_labels l JOIN records r ON r.shelf = l.shelf AND r.id = l.id
              WHERE l.shelf = ?1 AND l.id < ?2 AND l.label = ?3 ORDER BY l.id DESC"
            .to_owned(),
    };
    let mut select = conn.prepare_cached(&sql)?;
    let first = labels.first().map_or("", String::as_str);
    let mut rows = select.query(params![shelf.as_str(), before.as_bytes(), first])?;
    let mut data: Vec<Record> = Vec::new();
    while let Some(r) = rows.next()? {
        let record = record(shelf, r)?;
        if !labels.iter().all(|l| record.labels.contains(l)) {
            continue;
        }
        if data.len() == page.limit {
            let next = data.last().map(|r| Cursor(r.id));
            return Ok(Page { data, next });
        }
        data.push(record);
    }
    Ok(Page { data, next: None })
}

fn expire(w: &mut Writing<'_>, now: Timestamp, limit: usize) -> Result<u64, Fault> {
    let over: Vec<(Shelf, Uuid)> = {
        let mut select = w.conn.prepare_cached("SELECT shelf, id FROM records WHERE expires < ?1 LIMIT ?2")?;
        let mut rows = select.query(params![now.as_millis(), limit as i64])?;
        let mut over = Vec::new();
        while let Some(r) = rows.next()? {
            let name = r.get_ref(0)?.as_str().map_err(|e| row::corrupt("shelf", e))?;
            // A shelf of a newer version is its business.
            if let Some(shelf) = Shelf::ALL.into_iter().find(|s| s.as_str() == name) {
                over.push((shelf, row::uuid(r, 1)?));
            }
        }
        over
    };
    for (shelf, id) in &over {
        remove(w.conn, *shelf, *id)?;
    }
    Ok(over.len() as u64)
}
