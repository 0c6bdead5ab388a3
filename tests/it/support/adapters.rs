//! Every adapter that the conformance suites run over, opened afresh and empty.

use std::sync::Arc;

use app::{
    broker::{self, Broker, Options},
    store::{self, Stores, Sync},
};
use async_trait::async_trait;
use tempfile::TempDir;

use super::proxy::Proxy;

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

/// A broker of its own for one test. The same broker, not another one of its kind, is reached by each call.
#[async_trait]
pub(crate) trait BrokerHarness: Send + std::marker::Sync {
    /// One more connection to the broker, as another process would have it.
    async fn connect(&self) -> Arc<dyn Broker>;

    /// The same over connections that can be cut. One that lives in the process has none.
    async fn connect_breakable(&self) -> (Arc<dyn Broker>, Option<Proxy>) {
        (self.connect().await, None)
    }
}

/// The broker inside the process.
pub(crate) struct Embedded(Arc<dyn Broker>);

impl Embedded {
    /// An empty broker.
    #[allow(clippy::unused_async, reason = "an adapter of a server connects here")]
    pub(crate) async fn open_fresh() -> Box<dyn BrokerHarness> {
        Box::new(Self(broker::connect("embedded://", &Options::default()).unwrap()))
    }
}

#[async_trait]
impl BrokerHarness for Embedded {
    async fn connect(&self) -> Arc<dyn Broker> {
        Arc::clone(&self.0)
    }
}

/// A server that tests share, with names of its own for each.
pub(crate) struct BrokerServer {
    url: String,
    options: Options,
}

impl BrokerServer {
    fn open(variable: &str) -> Box<dyn BrokerHarness> {
        let prefix = format!("test-{}-", uuid::Uuid::now_v7().simple());
        let options = Options { prefix, ..Options::default() };
        Box::new(Self { url: server_url(variable), options })
    }

    /// Names of its own on the shared Redis.
    #[allow(clippy::unused_async, reason = "all adapters are opened alike")]
    pub(crate) async fn redis() -> Box<dyn BrokerHarness> {
        Self::open("TEST_REDIS_URL")
    }

    /// Names of its own on the shared RabbitMQ.
    #[allow(clippy::unused_async, reason = "all adapters are opened alike")]
    pub(crate) async fn rabbitmq() -> Box<dyn BrokerHarness> {
        Self::open("TEST_AMQP_URL")
    }
}

/// The URL of a server that tests share.
pub(crate) fn server_url(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} names no server: run `make test`, or `tests/tools/servers COMMAND`"))
}

#[async_trait]
impl BrokerHarness for BrokerServer {
    async fn connect(&self) -> Arc<dyn Broker> {
        broker::connect(&self.url, &self.options).unwrap()
    }

    async fn connect_breakable(&self) -> (Arc<dyn Broker>, Option<Proxy>) {
        let (before, after) = self.url.split_once("127.0.0.1:").expect("the server is on loopback");
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let proxy = Proxy::start(after[..digits].parse().unwrap()).await;
        let url = format!("{before}127.0.0.1:{}{}", proxy.port(), &after[digits..]);
        (broker::connect(&url, &self.options).unwrap(), Some(proxy))
    }
}
