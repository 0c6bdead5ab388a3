//! Reading jobs: one by id, or a page of many with bounded work.

use rusqlite::{Connection, params_from_iter, types::Value};
use uuid::Uuid;

use super::{Fault, row};
use crate::{
    base::{
        id::JobId,
        page::{Cursor, Page, PageRequest},
    },
    jobs::{model::Job, state::State, store::JobFilter},
};

/// A page looks at no more than so many jobs. Rare matches come on later, shorter pages instead of after a long wait.
const LOOKED_AT: i64 = 20_000;
/// A page ends when its jobs hold this many bytes: payloads and results may be large, and memory is not.
const PAGE_BYTES: usize = 4 << 20;

pub(super) fn get(conn: &Connection, id: JobId) -> Result<Option<Job>, Fault> {
    let mut select = conn.prepare_cached(row::SELECT_ONE)?;
    let mut rows = select.query([id.0.as_bytes()])?;
    rows.next()?.map(row::job).transpose()
}

pub(super) fn list(conn: &Connection, filter: &JobFilter, page: PageRequest) -> Result<Page<Job>, Fault> {
    let before = page.after.map_or(Uuid::max(), |c| c.0);
    let window = window(filter);
    let (filters, mut values) = filters(filter);
    values.insert(0, Value::Blob(before.as_bytes().to_vec()));
    let limit = i64::try_from(page.limit).unwrap_or(i64::MAX - 1);
    let sql = format!(
        "SELECT {} FROM (SELECT * FROM {window} ORDER BY id DESC LIMIT {LOOKED_AT}) WHERE true{filters} LIMIT {}",
        row::JOB,
        limit + 1
    );
    let mut select = conn.prepare_cached(&sql)?;
    let mut rows = select.query(params_from_iter(values))?;
    let mut data = Vec::new();
    let mut bytes = 0;
    while let Some(r) = rows.next()? {
        if data.len() == page.limit || bytes > PAGE_BYTES {
            let next = data.last().map(|j: &Job| Cursor(j.id.0));
            return Ok(Page { data, next });
        }
        let raw = row::raw(r)?;
        bytes += raw.bytes();
        data.push(raw.job()?);
    }
    // Everything looked at is shown; more may lie beyond the last one looked at.
    let sql = format!("SELECT id FROM {window} ORDER BY id DESC LIMIT 1 OFFSET {}", LOOKED_AT - 1);
    let mut select = conn.prepare_cached(&sql)?;
    let mut rows = select.query([before.as_bytes()])?;
    let next = rows.next()?.map(|r| row::uuid(r, 0)).transpose()?.map(Cursor);
    Ok(Page { data, next })
}

/// What a page looks at: an index where one holds the state in order or holds few, else all jobs.
fn window(filter: &JobFilter) -> &'static str {
    match filter.state {
        Some(State::Failed) => "jobs INDEXED BY jobs_dead WHERE state = 4 AND id < ?1",
        Some(State::Running) => "jobs INDEXED BY jobs_timed WHERE state = 2 AND id < ?1",
        _ => "jobs WHERE id < ?1",
    }
}

fn filters(f: &JobFilter) -> (String, Vec<Value>) {
    let mut sql = String::new();
    let mut values = Vec::new();
    let mut add = |clause: &str, value: Value| {
        values.push(value);
        sql.push_str(" AND ");
        sql.push_str(&clause.replace('?', &format!("?{}", values.len() + 1)));
    };
    if let Some(s) = f.state {
        add("state = ?", Value::Integer(s as i64));
    }
    if let Some(k) = &f.kind {
        add("kind = ?", Value::Text(k.to_string()));
    }
    if let Some(q) = &f.queue {
        add("queue = ?", Value::Text(q.to_string()));
    }
    if let Some(t) = f.created_after {
        add("created >= ?", Value::Integer(t.as_millis()));
    }
    if let Some(t) = f.created_before {
        add("created < ?", Value::Integer(t.as_millis()));
    }
    for t in &f.tags {
        add("EXISTS (SELECT 1 FROM json_each(spec, '$.tags') WHERE value = ?)", Value::Text(t.clone()));
    }
    (sql, values)
}
