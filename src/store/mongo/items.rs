//! The item port on MongoDB.

use ::mongodb::{
    ClientSession, Collection,
    bson::{self, DateTime, Document, doc},
};
use async_trait::async_trait;
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{
    Mongo, Ready,
    doc::{JobDoc, date, id, time, to_json, uuid},
    fault::{Fault, corrupt},
    records::event_docs,
    together::Together,
};
use crate::{
    base::{
        id::ItemId,
        page::{Cursor, Page, PageRequest},
        store::StoreError,
    },
    events::Event,
    items::{Item, ItemFilter, ItemStore},
};

/// An item as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ItemDoc {
    #[serde(rename = "_id")]
    id: bson::Uuid,
    name: String,
    /// The name as it is searched: MongoDB's own lower case knows ASCII only.
    name_lower: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// The JSON as text: its keys may be what no field of a document may be called.
    metadata: String,
    /// `metadata.category` if that is a string, to be found by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    category: Option<String>,
    created: DateTime,
    updated: DateTime,
    version: i64,
}

impl ItemDoc {
    fn new(item: Item) -> Result<Self, Fault> {
        Ok(Self {
            id: id(item.id.0),
            name_lower: item.name.to_lowercase(),
            name: item.name,
            description: item.description,
            metadata: to_json("metadata", &item.metadata)?,
            category: item.metadata.get("category").and_then(Value::as_str).map(str::to_owned),
            created: date(item.created_at),
            updated: date(item.updated_at),
            version: item.version.try_into().map_err(|e| corrupt("version", e))?,
        })
    }

    fn item(self) -> Result<Item, Fault> {
        Ok(Item {
            id: ItemId(uuid(self.id)),
            name: self.name,
            description: self.description,
            metadata: serde_json::from_str(&self.metadata).map_err(|e| corrupt("metadata", e))?,
            created_at: time(self.created),
            updated_at: time(self.updated),
            version: self.version.try_into().map_err(|e| corrupt("version", e))?,
        })
    }
}

impl Ready {
    fn items(&self) -> Collection<ItemDoc> {
        self.durable.collection("items")
    }
}

#[async_trait]
impl ItemStore for Mongo {
    async fn insert(&self, item: Item, event: &Event) -> Result<(), StoreError> {
        let change = Change::Insert(ItemDoc::new(item)?);
        self.change(change, event).await.map(drop)
    }

    async fn get(&self, item: ItemId) -> Result<Option<Item>, StoreError> {
        let get = async {
            let found = self.database().await?.items().find_one(doc! { "_id": id(item.0) }).await?;
            found.map(ItemDoc::item).transpose()
        };
        self.call(get).await
    }

    async fn list(&self, filter: &ItemFilter, page: PageRequest) -> Result<Page<Item>, StoreError> {
        self.call(async { list(self.database().await?, filter, page).await }).await
    }

    async fn update(&self, item: ItemId, expected: u64, new: Item, event: &Event) -> Result<bool, StoreError> {
        let expected = i64::try_from(expected).map_err(|e| corrupt("version", e))?;
        let only_if = doc! { "_id": id(item.0), "version": expected };
        self.change(Change::Replace(only_if, ItemDoc::new(new)?), event).await
    }

    async fn delete(&self, item: ItemId, event: &Event) -> Result<bool, StoreError> {
        self.change(Change::Remove(doc! { "_id": id(item.0) }), event).await
    }
}

enum Change {
    Insert(ItemDoc),
    Replace(Document, ItemDoc),
    Remove(Document),
}

/// A change of an item, and the event that tells of it.
struct Told {
    change: Change,
    event: Vec<JobDoc>,
}

#[async_trait]
impl Together for Told {
    type Done = bool;

    async fn write(&self, ready: &Ready, session: &mut ClientSession) -> Result<(bool, bool), Fault> {
        let items = ready.items();
        let met = match &self.change {
            Change::Insert(new) => items.insert_one(new).session(&mut *session).await.map(|_| 1)?,
            Change::Replace(only_if, new) => {
                items.replace_one(only_if.clone(), new).session(&mut *session).await?.matched_count
            }
            Change::Remove(only_if) => items.delete_one(only_if.clone()).session(&mut *session).await?.deleted_count,
        };
        if met == 1 {
            ready.jobs().insert_many(&self.event).session(session).await?;
        }
        Ok((met == 1, met == 1))
    }
}

impl Mongo {
    async fn change(&self, change: Change, event: &Event) -> Result<bool, StoreError> {
        let told = Told { change, event: event_docs([event])? };
        self.call(async { self.database().await?.together(&told).await }).await
    }
}

async fn list(ready: &Ready, f: &ItemFilter, page: PageRequest) -> Result<Page<Item>, Fault> {
    let mut query = doc! { "_id": { "$lt": id(page.after.map_or(Uuid::max(), |c| c.0)) } };
    if let Some(text) = &f.name_contains {
        // Byte offsets find a text as it is, with no character of it special.
        query.insert(
            "$expr",
            doc! { "$gte": [{ "$indexOfBytes": ["$name_lower", { "$literal": text.to_lowercase() }] }, 0] },
        );
    }
    if let Some(c) = &f.category {
        query.insert("category", c);
    }
    let mut created = Document::new();
    if let Some(t) = f.created_after {
        created.insert("$gte", date(t));
    }
    if let Some(t) = f.created_before {
        created.insert("$lt", date(t));
    }
    if !created.is_empty() {
        query.insert("created", created);
    }
    let limit = i64::try_from(page.limit).unwrap_or(i64::MAX - 1);
    let found = ready.items().find(query).sort(doc! { "_id": -1 }).limit(limit + 1).await?;
    let mut data: Vec<Item> =
        found.try_collect::<Vec<_>>().await?.into_iter().map(ItemDoc::item).collect::<Result<_, _>>()?;
    let more = data.len() > page.limit;
    data.truncate(page.limit);
    let next = data.last().filter(|_| more).map(|i| Cursor(i.id.0));
    Ok(Page { data, next })
}
