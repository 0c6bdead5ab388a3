//! Every adapter that the conformance suites run over, opened afresh and empty.

use std::{sync::Arc, time::Duration};

use app::{
    base::clock::Clock,
    broker::{self, Broker, Options},
    cache::{self, Cache},
    store::{self, Stores, Sync},
};
use async_trait::async_trait;
use tempfile::TempDir;

use super::{jobs::START, proxy::Proxy, servers};

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

/// A cache of its own for one test. The same cache is reached by each call.
pub(crate) trait CacheHarness: Send + std::marker::Sync {
    /// One more connection to the cache, as another process would have it.
    fn connect(&self) -> Arc<dyn Cache>;

    /// Moves the cache's clock, if it is ours to move.
    fn pass(&self, time: Duration);
}

/// The cache inside the process.
pub(crate) struct Memory {
    cache: Arc<dyn Cache>,
    clock: Clock,
}

impl Memory {
    /// An empty cache.
    #[allow(clippy::unused_async, reason = "the suite awaits every adapter")]
    pub(crate) async fn open_fresh() -> Box<dyn CacheHarness> {
        let clock = Clock::manual(START);
        let cache = cache::connect("memory://", cache_options("unused", &clock)).unwrap();
        Box::new(Self { cache, clock })
    }
}

impl CacheHarness for Memory {
    fn connect(&self) -> Arc<dyn Cache> {
        Arc::clone(&self.cache)
    }

    fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }
}

/// A prefix of its own on the server that all tests share.
pub(crate) struct RedisCache {
    prefix: String,
}

impl RedisCache {
    /// An empty cache.
    #[allow(clippy::unused_async, reason = "the suite awaits every adapter")]
    pub(crate) async fn open_fresh() -> Box<dyn CacheHarness> {
        Box::new(Self { prefix: Clock::system().new_uuid().to_string() })
    }
}

impl CacheHarness for RedisCache {
    fn connect(&self) -> Arc<dyn Cache> {
        cache::connect(&servers::redis_url(), cache_options(&self.prefix, &Clock::system())).unwrap()
    }

    fn pass(&self, _time: Duration) {}
}

/// What a test opens a cache with.
pub(crate) fn cache_options(prefix: &str, clock: &Clock) -> cache::Options {
    cache::Options { prefix: prefix.to_owned(), max_entries: 1000, max_bytes: 8 << 20, clock: clock.clone() }
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
        Box::new(Self { url: servers::url(variable), options })
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
