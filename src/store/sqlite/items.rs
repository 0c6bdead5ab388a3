//! The item port on SQLite.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;
use uuid::Uuid;

use super::{Fault, Sqlite, jobs, records, row};
use crate::{
    base::{
        id::ItemId,
        page::{Cursor, Page, PageRequest},
        store::StoreError,
    },
    events::Event,
    items::{Item, ItemFilter, ItemStore},
};

const ITEM: &str = "id, name, description, metadata, created, updated, version";

#[async_trait]
impl ItemStore for Sqlite {
    async fn insert(&self, item: Item, event: &Event) -> Result<(), StoreError> {
        let event = records::event_rows([event])?;
        let metadata = row::to_json("metadata", &item.metadata)?;
        self.write(move |w| {
            w.conn
                .prepare_cached(
                    "INSERT INTO items (id, name, description, metadata, created, updated, version)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute(params![
                    item.id.0.as_bytes(),
                    item.name,
                    item.description,
                    metadata,
                    item.created_at.as_millis(),
                    item.updated_at.as_millis(),
                    item.version as i64
                ])?;
            jobs::insert(w, &event, None)?;
            Ok(())
        })
        .await
    }

    async fn get(&self, id: ItemId) -> Result<Option<Item>, StoreError> {
        self.read(move |c| {
            let mut select = c.prepare_cached(&format!("SELECT {ITEM} FROM items WHERE id = ?1"))?;
            let mut rows = select.query([id.0.as_bytes()])?;
            rows.next()?.map(item).transpose()
        })
        .await
    }

    async fn list(&self, filter: &ItemFilter, page: PageRequest) -> Result<Page<Item>, StoreError> {
        let filter = filter.clone();
        self.read(move |c| list(c, &filter, page)).await
    }

    async fn update(&self, id: ItemId, expected: u64, item: Item, event: &Event) -> Result<bool, StoreError> {
        let event = records::event_rows([event])?;
        let metadata = row::to_json("metadata", &item.metadata)?;
        self.write(move |w| {
            let changed = w
                .conn
                .prepare_cached(
                    "UPDATE items SET name = ?3, description = ?4, metadata = ?5, updated = ?6, version = ?7
                     WHERE id = ?1 AND version = ?2",
                )?
                .execute(params![
                    id.0.as_bytes(),
                    expected as i64,
                    item.name,
                    item.description,
                    metadata,
                    item.updated_at.as_millis(),
                    item.version as i64
                ])?;
            if changed == 1 {
                jobs::insert(w, &event, None)?;
            }
            Ok(changed == 1)
        })
        .await
    }

    async fn delete(&self, id: ItemId, event: &Event) -> Result<bool, StoreError> {
        let event = records::event_rows([event])?;
        self.write(move |w| {
            let gone = w
                .conn
                .prepare_cached("DELETE FROM items WHERE id = ?1 RETURNING 1")?
                .query_row([id.0.as_bytes()], |_| Ok(()))
                .optional()?;
            if gone.is_some() {
                jobs::insert(w, &event, None)?;
            }
            Ok(gone.is_some())
        })
        .await
    }
}

fn item(r: &Row<'_>) -> Result<Item, Fault> {
    let metadata = r.get_ref(3)?.as_str().map_err(|e| row::corrupt("metadata", e))?;
    Ok(Item {
        id: ItemId(row::uuid(r, 0)?),
        name: r.get(1)?,
        description: r.get(2)?,
        metadata: serde_json::from_str(metadata).map_err(|e| row::corrupt("metadata", e))?,
        created_at: row::time(r, 4)?,
        updated_at: row::time(r, 5)?,
        version: r.get::<_, i64>(6)?.try_into().map_err(|e| row::corrupt("version", e))?,
    })
}

/// Walks from the newest on. The conditions are looked at here and not in SQL, whose `lower` knows ASCII only.
fn list(conn: &Connection, filter: &ItemFilter, page: PageRequest) -> Result<Page<Item>, Fault> {
    let before = page.after.map_or(Uuid::max(), |c| c.0);
    let mut select = conn.prepare_cached(&format!("SELECT {ITEM} FROM items WHERE id < ?1 ORDER BY id DESC"))?;
    let mut rows = select.query([before.as_bytes()])?;
    let mut data: Vec<Item> = Vec::new();
    while let Some(r) = rows.next()? {
        let item = item(r)?;
        if !matches(filter, &item) {
            continue;
        }
        if data.len() == page.limit {
            let next = data.last().map(|i| Cursor(i.id.0));
            return Ok(Page { data, next });
        }
        data.push(item);
    }
    Ok(Page { data, next: None })
}

fn matches(f: &ItemFilter, item: &Item) -> bool {
    f.name_contains.as_ref().is_none_or(|text| item.name.to_lowercase().contains(&text.to_lowercase()))
        && f.category.as_ref().is_none_or(|c| item.metadata.get("category").and_then(Value::as_str) == Some(c))
        && f.created_after.is_none_or(|t| item.created_at >= t)
        && f.created_before.is_none_or(|t| item.created_at < t)
}
