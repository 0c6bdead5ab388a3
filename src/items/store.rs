//! The port behind which items are kept: five operations on whole items, each change with its event.
//!
//! Changes are compare-and-set on the version, so that two writers never overwrite each other unseen and no adapter
//! needs a transaction that spans a read and a write.

use async_trait::async_trait;

use crate::{
    base::{
        clock::Timestamp,
        id::ItemId,
        page::{Page, PageRequest},
        store::StoreError,
    },
    events::Event,
    items::model::Item,
};

/// Which items a list shows. Conditions are joined by "and"; none shows all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ItemFilter {
    /// The name, in lower case ([`str::to_lowercase`]), contains this text in lower case.
    pub name_contains: Option<String>,
    /// `metadata.category` is exactly this string.
    pub category: Option<String>,
    /// Created at this time or later.
    pub created_after: Option<Timestamp>,
    /// Created before this time.
    pub created_before: Option<Timestamp>,
}

/// Keeps items. What an `Ok` answer says is durable: it survives the death of the process and of the store's server.
#[async_trait]
pub trait ItemStore: Send + Sync {
    /// Keeps a new item, and the event that tells of it. Its id is new: the service made it.
    ///
    /// # Errors
    /// [`StoreError`]; after one, both may be there or neither.
    async fn insert(&self, item: Item, event: &Event) -> Result<(), StoreError>;

    /// The item with this id, as last written; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn get(&self, id: ItemId) -> Result<Option<Item>, StoreError>;

    /// One page of the items that match, newest first: by id, descending. A page is shorter than its limit only at the
    /// end of the list, and `next` is set exactly if more items match.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn list(&self, filter: &ItemFilter, page: PageRequest) -> Result<Page<Item>, StoreError>;

    /// Replaces the item `id` by `item`, and keeps the event, if its stored version is `expected`. `false`, and nothing changed, if it has
    /// another version or is gone. Of several callers that expect the same version exactly one gets `true`.
    ///
    /// # Errors
    /// [`StoreError`]; after one, the change may or may not have happened.
    async fn update(&self, id: ItemId, expected: u64, item: Item, event: &Event) -> Result<bool, StoreError>;

    /// Removes the item `id`, and keeps the event. `false`, and no event, if there is none. Of several callers exactly one
    /// gets `true`.
    ///
    /// # Errors
    /// [`StoreError`]; after one, the item may or may not be there.
    async fn delete(&self, id: ItemId, event: &Event) -> Result<bool, StoreError>;
}
