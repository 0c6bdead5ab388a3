//! Every adapter that the conformance suites run over, opened afresh and empty.

use std::sync::Arc;

use app::{
    broker::{self, Broker},
    store::{self, Stores, Sync},
};
use async_trait::async_trait;
use tempfile::TempDir;

use super::servers;

/// A store of its own for one test.
#[async_trait]
pub(crate) trait StoreHarness: Send + std::marker::Sync {
    /// The ports of the opened store.
    fn stores(&self) -> Stores;

    /// Closes the store as the end of a process would, and opens it again. Every port handed out before is dead.
    async fn reopen(&mut self);
}

/// A SQLite file in a directory of its own.
pub(crate) struct Sqlite {
    stores: Option<Stores>,
    dir: TempDir,
}

impl Sqlite {
    /// An empty database.
    pub(crate) async fn open_fresh() -> Box<dyn StoreHarness> {
        let dir = tempfile::tempdir().unwrap();
        let mut this = Self { stores: None, dir };
        this.reopen().await;
        Box::new(this)
    }
}

#[async_trait]
impl StoreHarness for Sqlite {
    fn stores(&self) -> Stores {
        self.stores.clone().expect("is open")
    }

    async fn reopen(&mut self) {
        self.stores = None;
        let url = format!("sqlite://{}", self.dir.path().join("app.db").display());
        // Whoever still holds a port keeps the file locked, so a test that forgot one hears of it here.
        self.stores = Some(store::open(&url, Sync::Normal).unwrap());
    }
}

/// A database of its own on the MongoDB server that all tests share.
pub(crate) struct Mongodb {
    stores: Option<Stores>,
    url: String,
}

impl Mongodb {
    /// An empty database.
    pub(crate) async fn open_fresh() -> Box<dyn StoreHarness> {
        let mut this = Self { stores: None, url: servers::mongodb_database().await };
        this.reopen().await;
        Box::new(this)
    }
}

#[async_trait]
impl StoreHarness for Mongodb {
    fn stores(&self) -> Stores {
        self.stores.clone().expect("is open")
    }

    async fn reopen(&mut self) {
        self.stores = Some(store::open(&self.url, Sync::Normal).unwrap());
    }
}

impl Drop for Mongodb {
    fn drop(&mut self) {
        servers::drop_database(&self.url);
    }
}

/// A broker of its own for one test. The same broker, not another one of its kind, is reached by each call.
#[async_trait]
pub(crate) trait BrokerHarness: Send + std::marker::Sync {
    /// One more connection to the broker, as another process would have it.
    async fn connect(&self) -> Arc<dyn Broker>;
}

/// The broker inside the process.
pub(crate) struct Embedded(Arc<dyn Broker>);

impl Embedded {
    /// An empty broker.
    #[allow(clippy::unused_async, reason = "an adapter of a server connects here")]
    pub(crate) async fn open_fresh() -> Box<dyn BrokerHarness> {
        Box::new(Self(broker::connect("embedded://").unwrap()))
    }
}

#[async_trait]
impl BrokerHarness for Embedded {
    async fn connect(&self) -> Arc<dyn Broker> {
        Arc::clone(&self.0)
    }
}
