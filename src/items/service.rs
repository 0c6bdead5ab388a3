//! What callers do with items: make, read, list, change and remove them.
//!
//! A change reads the item, computes the new one and writes it by compare-and-set, again if another writer came first.

use std::sync::Arc;

use crate::{
    base::{
        clock::Clock,
        error::FieldError,
        id::ItemId,
        page::{Page, PageRequest},
    },
    items::{
        error::ItemError,
        model::{self, Item, ItemPatch, NewItem},
        store::{ItemFilter, ItemStore},
    },
};

/// How often a change is tried against other writers before it is given up as contended.
const CHANGE_TRIES: u32 = 32;

/// The items service. Cheap to share; keeps nothing but its store and clock.
pub struct Items {
    store: Arc<dyn ItemStore>,
    clock: Clock,
}

impl Items {
    /// A service over `store`.
    #[must_use]
    pub fn new(store: Arc<dyn ItemStore>, clock: Clock) -> Self {
        Self { store, clock }
    }

    /// Makes an item.
    ///
    /// # Errors
    /// [`ItemError::Invalid`] with every field at fault, or [`ItemError::Store`].
    pub async fn create(&self, new: NewItem) -> Result<Item, ItemError> {
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
        self.store.insert(item.clone()).await?;
        Ok(item)
    }

    /// The item with this id.
    ///
    /// # Errors
    /// [`ItemError::NotFound`] or [`ItemError::Store`].
    pub async fn get(&self, id: ItemId) -> Result<Item, ItemError> {
        self.store.get(id).await?.ok_or(ItemError::NotFound(id))
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
    pub async fn patch(&self, id: ItemId, patch: &ItemPatch) -> Result<Item, ItemError> {
        self.change(id, |item| patch.applied_to(item)).await
    }

    /// Replaces everything a client may set on an item. A replacement by the same writes nothing.
    ///
    /// # Errors
    /// As [`Self::patch`].
    pub async fn replace(&self, id: ItemId, new: &NewItem) -> Result<Item, ItemError> {
        // Checked first, so that an invalid body is told so whether the item exists or not.
        new.check().map_err(ItemError::Invalid)?;
        self.change(id, |_| new.clone()).await
    }

    /// Removes an item.
    ///
    /// # Errors
    /// [`ItemError::NotFound`] or [`ItemError::Store`].
    pub async fn delete(&self, id: ItemId) -> Result<(), ItemError> {
        if self.store.delete(id).await? { Ok(()) } else { Err(ItemError::NotFound(id)) }
    }

    async fn change(&self, id: ItemId, next: impl Fn(&Item) -> NewItem) -> Result<Item, ItemError> {
        for _ in 0..CHANGE_TRIES {
            let item = self.get(id).await?;
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
            if self.store.update(id, expected, changed.clone()).await? {
                return Ok(changed);
            }
        }
        Err(ItemError::Contended(id))
    }
}
