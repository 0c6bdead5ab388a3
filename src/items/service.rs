//! What callers do with items: make, read, list, change and remove them.
//!
//! A change reads the item, computes the new one and writes it by compare-and-set, again if another writer came first.
//! Single items may be read from a cache, which `cache::Through` keeps from being stale; changes start from the store.

use std::sync::Arc;

use crate::{
    base::{
        clock::Clock,
        error::FieldError,
        failpoint,
        id::ItemId,
        page::{Page, PageRequest},
    },
    cache::{Mark, Through},
    events::{Bell, Event},
    items::{
        error::ItemError,
        model::{self, Item, ItemPatch, NewItem},
        store::{ItemFilter, ItemStore},
    },
};

/// How often a change is tried against other writers before it is given up as contended.
const CHANGE_TRIES: u32 = 32;

/// The version of [`Item`]'s shape in the cache, to be raised when its fields change.
pub const CACHED_SHAPE: u8 = 1;

/// The items service. Cheap to share; keeps nothing but its store, cache, bell and clock.
pub struct Items {
    store: Arc<dyn ItemStore>,
    cache: Option<Through>,
    bell: Arc<dyn Bell>,
    clock: Clock,
}

impl Items {
    /// A service over `store`.
    #[must_use]
    pub fn new(store: Arc<dyn ItemStore>, bell: Arc<dyn Bell>, clock: Clock) -> Self {
        Self { store, cache: None, bell, clock }
    }

    /// The same service, reading single items through `cache`. Then every process that writes items must use it.
    #[must_use]
    pub fn cached(self, cache: Through) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// Makes an item. `by` names the request that asked for it; so for every change.
    ///
    /// # Errors
    /// [`ItemError::Invalid`] with every field at fault, or [`ItemError::Store`].
    pub async fn create(&self, new: NewItem, by: Option<String>) -> Result<Item, ItemError> {
        new.check().map_err(ItemError::Invalid)?;
        let now = self.clock.now();
        let item = Item {
            id: ItemId(self.clock.new_uuid()),
            name: new.name,
            description: new.description,
            metadata: new.metadata,
            created_at: now,
            updated_at: now,
            version: 1,
        };
        let event = self.event("item.created", &item, by);
        self.store.insert(item.clone(), &event).await?;
        failpoint::hit("items.after_insert");
        self.bell.ring(&[event]).await;
        Ok(item)
    }

    /// The item with this id.
    ///
    /// # Errors
    /// [`ItemError::NotFound`] or [`ItemError::Store`].
    pub async fn get(&self, id: ItemId) -> Result<Item, ItemError> {
        let found = match &self.cache {
            Some(cache) => cache.read(&id.to_string(), || self.store.get(id)).await?,
            None => self.store.get(id).await?,
        };
        found.ok_or(ItemError::NotFound(id))
    }

    /// One page of the items that match, newest first.
    ///
    /// # Errors
    /// [`ItemError::Invalid`] if the filter's name is longer than a name can be, or [`ItemError::Store`].
    pub async fn list(&self, filter: &ItemFilter, page: PageRequest) -> Result<Page<Item>, ItemError> {
        if filter.name_contains.as_ref().is_some_and(|n| n.chars().count() > model::NAME_MAX) {
            let message = format!("is longer than a name can be ({} characters)", model::NAME_MAX);
            return Err(ItemError::Invalid(vec![FieldError::new("name", message)]));
        }
        Ok(self.store.list(filter, page).await?)
    }

    /// Changes the parts of an item that `patch` names. A patch that changes nothing writes nothing.
    ///
    /// # Errors
    /// [`ItemError::NotFound`], [`ItemError::Invalid`] if the result would be, [`ItemError::Contended`] or
    /// [`ItemError::Store`].
    pub async fn patch(&self, id: ItemId, patch: &ItemPatch, by: Option<String>) -> Result<Item, ItemError> {
        self.change(id, by, |item| patch.applied_to(item)).await
    }

    /// Replaces everything a client may set on an item. A replacement by the same writes nothing.
    ///
    /// # Errors
    /// As [`Self::patch`].
    pub async fn replace(&self, id: ItemId, new: &NewItem, by: Option<String>) -> Result<Item, ItemError> {
        // Checked first, so that an invalid body is told so whether the item exists or not.
        new.check().map_err(ItemError::Invalid)?;
        self.change(id, by, |_| new.clone()).await
    }

    /// Removes an item.
    ///
    /// # Errors
    /// [`ItemError::NotFound`] or [`ItemError::Store`].
    pub async fn delete(&self, id: ItemId, by: Option<String>) -> Result<(), ItemError> {
        let mark = self.begin(id).await;
        let data = serde_json::json!({ "id": id });
        let event = Event::new(&self.clock, "item.deleted", id.to_string(), data).caused_by(by);
        let there = self.store.delete(id, &event).await?;
        if let Some(mark) = mark {
            mark.end(None::<&Item>).await;
        }
        if !there {
            return Err(ItemError::NotFound(id));
        }
        self.bell.ring(&[event]).await;
        Ok(())
    }

    /// What a listener hears of an item: all but its metadata and description, which may be large.
    fn event(&self, name: &'static str, item: &Item, by: Option<String>) -> Event {
        let data = serde_json::json!({
            "id": item.id, "name": item.name, "version": item.version, "category": item.metadata.get("category"),
        });
        Event::new(&self.clock, name, item.id.to_string(), data).caused_by(by)
    }

    async fn begin(&self, id: ItemId) -> Option<Mark> {
        match &self.cache {
            Some(cache) => Some(cache.begin(&id.to_string()).await),
            None => None,
        }
    }

    async fn change(&self, id: ItemId, by: Option<String>, next: impl Fn(&Item) -> NewItem) -> Result<Item, ItemError> {
        let mut mark = None;
        for _ in 0..CHANGE_TRIES {
            let item = self.store.get(id).await?.ok_or(ItemError::NotFound(id))?;
            let new = next(&item);
            if new.name == item.name && new.description == item.description && new.metadata == item.metadata {
                return Ok(item);
            }
            new.check().map_err(ItemError::Invalid)?;
            let expected = item.version;
            let changed = Item {
                name: new.name,
                description: new.description,
                metadata: new.metadata,
                updated_at: self.clock.now().max(item.updated_at),
                version: expected.saturating_add(1),
                ..item
            };
            if mark.is_none() {
                mark = self.begin(id).await;
            }
            let event = self.event("item.updated", &changed, by.clone());
            if self.store.update(id, expected, changed.clone(), &event).await? {
                if let Some(mark) = mark {
                    mark.end(Some(&changed)).await;
                }
                self.bell.ring(&[event]).await;
                return Ok(changed);
            }
        }
        Err(ItemError::Contended(id))
    }
}
