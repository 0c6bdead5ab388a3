//! The stores: one adapter for each database, all behind the ports that the domain rooms declare.
//!
//! Only `app` imports this room; everyone else sees the ports.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;

use crate::{
    base::{
        probe::{Probe, Unfit},
        store::StoreError,
    },
    config::show::mask_url,
    items::store::ItemStore,
    jobs::store::{FleetStore, JobStore},
    records::RecordStore,
};

mod mongo;
mod sqlite;

/// Every port of one opened database.
#[derive(Clone)]
pub struct Stores {
    /// Jobs.
    pub jobs: Arc<dyn JobStore>,
    /// Queues and workers.
    pub fleet: Arc<dyn FleetStore>,
    /// Items.
    pub items: Arc<dyn ItemStore>,
    /// Records.
    pub records: Arc<dyn RecordStore>,
    /// Its health.
    pub probe: Arc<dyn Probe>,
    /// Whether no other process can have it open: whatever was running before this one opened it runs no more.
    pub exclusive: bool,
    /// Where it is.
    pub place: Place,
    database: Arc<dyn Close>,
}

impl Stores {
    /// Lets writes under way end, and closes the database. Every port is dead after it. A SQLite
    /// database is then one file, which holds all there is.
    ///
    /// # Errors
    /// If it was not closed in good order; then nothing is lost, but it may be in several files.
    pub async fn close(&self) -> Result<(), StoreError> {
        Arc::clone(&self.database).close().await
    }
}

/// An opened database that can be closed.
#[async_trait]
trait Close: Send + std::marker::Sync {
    async fn close(self: Arc<Self>) -> Result<(), StoreError>;
}

/// Where a database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file, by its absolute path.
    File(PathBuf),
    /// A database on a server, by its URL without secrets.
    Server(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Server(url) => f.write_str(url),
        }
    }
}

/// What a look at a place found: nothing that keeps it from being opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Whether there is a database; if not, whoever opens the place makes one.
    pub exists: bool,
    /// Warnings about it and its server, each with what to do.
    pub warnings: Vec<String>,
}

/// How sure a write must be before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Synced to disk: survives the loss of power.
    Full,
    /// Handed to the operating system: survives a crash of the process, the last moments may be lost with the power.
    Normal,
}

/// Why a database cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The URL is wrong.
    #[error("{0}")]
    Url(String),
    /// The database that it names cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The database that a URL names, read and checked. Nothing has been opened, nor made.
pub struct Target {
    place: Place,
    adapter: Adapter,
}

enum Adapter {
    Sqlite(PathBuf),
    Mongo(Arc<mongo::Mongo>),
}

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    /// A sentence: an unknown scheme, no path, an option that MongoDB does not know.
    pub fn parse(url: &str) -> Result<Self, OpenError> {
        match url.split_once("://") {
            Some(("sqlite", path)) if !path.is_empty() => {
                // A name that means something else to SQLite, such as `:memory:`, is a file's here.
                let path = std::path::absolute(Path::new(path)).map_err(|e| {
                    OpenError::Url(format!("store.url is `{url}`, but the working directory cannot be read: {e}"))
                })?;
                let path = sqlite::resolved(path);
                Ok(Self { place: Place::File(path.clone()), adapter: Adapter::Sqlite(path) })
            }
            Some(("sqlite", _)) => Err(OpenError::Url("store.url names no file: write sqlite://data/app.db".into())),
            Some(("mongodb" | "mongodb+srv", _)) => {
                let mongo = mongo::Mongo::open(url)?;
                let place = Place::Server(mongo.named(&mask_url(url)));
                Ok(Self { place, adapter: Adapter::Mongo(mongo) })
            }
            _ => Err(OpenError::Url(format!(
                "store.url is `{}`, but its scheme must be one of: sqlite, mongodb, mongodb+srv",
                mask_url(url)
            ))),
        }
    }

    /// Where it is.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// The backend's name in `/health`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self.adapter {
            Adapter::Sqlite(_) => sqlite::NAME,
            Adapter::Mongo(_) => mongo::NAME,
        }
    }

    /// Looks what is there, and whether it can be opened. The look makes and changes nothing.
    ///
    /// # Errors
    /// [`Unfit`].
    pub async fn look(&self) -> Result<Found, Unfit> {
        match &self.adapter {
            Adapter::Sqlite(path) => sqlite::look(path),
            Adapter::Mongo(mongo) => mongo.look().await,
        }
    }

    /// Opens it, migrated to the present version.
    ///
    /// # Errors
    /// A sentence: a path that cannot be used, a database of a newer version, one in use elsewhere.
    pub fn open(self, sync: Sync) -> Result<Stores, OpenError> {
        let place = self.place;
        match self.adapter {
            Adapter::Sqlite(path) => {
                let db = sqlite::Sqlite::open(&path, sync)?;
                let (jobs, fleet, items, records) = (db.clone(), db.clone(), db.clone(), db.clone());
                let probe = db.clone();
                Ok(Stores { jobs, fleet, items, records, probe, exclusive: true, place, database: db })
            }
            Adapter::Mongo(db) => {
                let (jobs, fleet, items, records) = (db.clone(), db.clone(), db.clone(), db.clone());
                let probe = db.clone();
                Ok(Stores { jobs, fleet, items, records, probe, exclusive: false, place, database: db })
            }
        }
    }
}

/// Opens the database that `url` names, migrated to the present version.
///
/// # Errors
/// As [`Target::parse`] and [`Target::open`].
pub fn open(url: &str, sync: Sync) -> Result<Stores, OpenError> {
    Target::parse(url)?.open(sync)
}
