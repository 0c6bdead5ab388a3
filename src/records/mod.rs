//! Records: small documents that people write and programs read often (users, keys, templates, rules, suppressions).
//!
//! They all need the same: found by id, by a unique name, or by a label; changed by compare-and-set; several of them and
//! their events in one step. So there is one port for all, and the rooms above give the documents their types. A new sort
//! of record is one more [`Shelf`], and no migration.

use async_trait::async_trait;
use serde_json::Value;
use uuid::Uuid;

pub use crate::base::store::StoreError;
use crate::{
    base::{
        clock::Timestamp,
        page::{Page, PageRequest},
    },
    events::Event,
};

/// Where a sort of record stands. Ids, names and labels of different shelves never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shelf {
    /// People.
    Users,
    /// Keys of programs that call the API.
    ApiKeys,
    /// Versions of templates.
    Templates,
    /// What is to be sent when something happens.
    Rules,
    /// Addresses that nothing is sent to.
    Suppressions,
    /// Messages that would have been sent if a provider were set up.
    Sink,
    /// Keys that this system has drawn for itself.
    Secrets,
}

impl Shelf {
    /// Every shelf.
    pub const ALL: [Self; 7] =
        [Self::Users, Self::ApiKeys, Self::Templates, Self::Rules, Self::Suppressions, Self::Sink, Self::Secrets];

    /// Its name in a store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::ApiKeys => "api_keys",
            Self::Templates => "templates",
            Self::Rules => "rules",
            Self::Suppressions => "suppressions",
            Self::Sink => "sink",
            Self::Secrets => "secrets",
        }
    }
}

/// One document and what it is found by.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Where it stands.
    pub shelf: Shelf,
    /// A UUIDv7: the order of ids is the order of lists.
    pub id: Uuid,
    /// 1 at first, one more with each change.
    pub version: u64,
    /// Names that no other record of the shelf has, such as `email:ada@example.com`.
    pub names: Vec<String>,
    /// Words to list it by, such as `role:admin`. No two are equal.
    pub labels: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// When it may be removed; never if none. It may still be seen for some minutes after that.
    pub expires_at: Option<Timestamp>,
    /// The document, an object.
    pub body: Value,
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A new record.
    Insert(Record),
    /// The record of this shelf and id becomes this, if its stored version is `expected`.
    Replace {
        /// All of it, with its new version.
        record: Record,
        /// The version that it must have.
        expected: u64,
    },
    /// The record goes, if its stored version is `expected`.
    Remove {
        /// Where it stands.
        shelf: Shelf,
        /// Which it is.
        id: Uuid,
        /// The version that it must have; any if none.
        expected: Option<u64>,
    },
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// All of it is done.
    Done,
    /// Nothing was done: another record of the shelf has this name.
    Taken(String),
    /// Nothing was done: this record has another version, or is gone.
    Stale(Uuid),
}

/// Keeps records. What an `Ok` answer says is durable. Proved for each adapter by `tests/it/conformance/records.rs`.
#[async_trait]
pub trait RecordStore: Send + Sync {
    /// Makes all changes, and writes all events, or none. Of several callers that race for one name or one version
    /// exactly one gets [`Committed::Done`].
    ///
    /// # Errors
    /// [`StoreError`]; after one, all or nothing has happened.
    async fn commit(&self, writes: Vec<Write>, events: &[Event]) -> Result<Committed, StoreError>;

    /// The record with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn get(&self, shelf: Shelf, id: Uuid) -> Result<Option<Record>, StoreError>;

    /// The record that has this name.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn find(&self, shelf: Shelf, name: &str) -> Result<Option<Record>, StoreError> {
        Ok(self.find_any(shelf, &[name.to_owned()]).await?.pop())
    }

    /// The records that have any of these names, each once, in no order.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn find_any(&self, shelf: Shelf, names: &[String]) -> Result<Vec<Record>, StoreError>;

    /// One page of the records that have all of these labels, newest first. Cost grows with the matches of the first label.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn list(&self, shelf: Shelf, labels: &[String], page: PageRequest) -> Result<Page<Record>, StoreError>;

    /// Removes up to `limit` records that expired before `now`, and answers how many.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn expire(&self, now: Timestamp, limit: usize) -> Result<u64, StoreError>;
}
