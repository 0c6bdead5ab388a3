//! The stores: one adapter for each database, all behind the ports that the domain rooms declare.
//!
//! Only `app` imports this room; everyone else sees the ports.

use std::sync::Arc;

use crate::{
    base::{probe::Probe, store::StoreError},
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

/// Opens the database that `url` names, migrated to the present version.
///
/// # Errors
/// A sentence: an unknown scheme, a path that cannot be used, a database of a newer version, one in use elsewhere.
pub fn open(url: &str, sync: Sync) -> Result<Stores, OpenError> {
    match url.split_once("://") {
        Some(("sqlite", path)) if !path.is_empty() => {
            let db = sqlite::Sqlite::open(std::path::Path::new(path), sync)?;
            let (jobs, fleet, items, records) = (db.clone(), db.clone(), db.clone(), db.clone());
            Ok(Stores { jobs, fleet, items, records, probe: db, exclusive: true })
        }
        Some(("sqlite", _)) => Err(OpenError::Url("store.url names no file: write sqlite://data/app.db".into())),
        Some(("mongodb" | "mongodb+srv", _)) => {
            let db = mongo::Mongo::open(url)?;
            let (jobs, fleet, items, records) = (db.clone(), db.clone(), db.clone(), db.clone());
            Ok(Stores { jobs, fleet, items, records, probe: db, exclusive: false })
        }
        _ => {
            let url = crate::config::show::mask_url(url);
            Err(OpenError::Url(format!(
                "store.url is `{url}`, but its scheme must be one of: sqlite, mongodb, mongodb+srv"
            )))
        }
    }
}
