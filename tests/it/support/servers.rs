//! The servers that `make test` starts for all tests (see tests/tools/servers), each test with a namespace of its own.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use mongodb::{
    Client,
    bson::{Document, doc},
    options::ClientOptions,
};
use tokio::sync::OnceCell;

use super::eventually;

/// The address that `make test` put into the environment.
pub(crate) fn url(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} names no server: run the tests with `make test`, or `tests/tools/servers cargo test …`")
    })
}

/// A name that no other test and no other run uses.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("t{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The URL of an empty database of its own.
pub(crate) async fn mongodb_database() -> String {
    static READY: OnceCell<()> = OnceCell::const_new();
    let server = url("TEST_MONGODB_URL");
    READY.get_or_init(async || initiate(&server).await).await;
    database_url(&server, &unique())
}

/// `server` with this database.
pub(crate) fn database_url(server: &str, database: &str) -> String {
    let (base, options) = server.split_once('?').unwrap_or((server, ""));
    let (scheme, rest) = base.split_once("://").unwrap();
    let host = rest.split('/').next().unwrap();
    format!("{scheme}://{host}/{database}?{options}")
}

/// Makes a lone server a replica set of one, which transactions need; waits until it takes writes.
pub(crate) async fn initiate(server: &str) {
    let mut options = ClientOptions::parse(server).await.unwrap();
    options.server_selection_timeout = Some(Duration::from_secs(10));
    let host = options.hosts.first().map(ToString::to_string).unwrap();
    let client = Client::with_options(options).unwrap();
    let admin = client.database("admin");
    let set = doc! { "_id": "rs0", "members": [{ "_id": 0, "host": host }] };
    eventually("MongoDB takes writes", async || {
        let hello: Document = admin.run_command(doc! { "hello": 1 }).await.ok()?;
        if hello.get_bool("isWritablePrimary").unwrap_or(false) {
            return Some(());
        }
        // An error says that it has begun to be one, or did not hear: then the next look tells.
        drop(admin.run_command(doc! { "replSetInitiate": set.clone() }).await);
        None
    })
    .await;
}

/// Removes a database, also from a test that failed: the server may be somebody's own.
pub(crate) fn drop_database(url: &str) {
    let name = url.to_owned();
    // A thread of its own, because the test's runtime is busy with dropping.
    let dropped = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let client = Client::with_uri_str(&name).await?;
            client.default_database().expect("the URL names it").drop().await
        })
    });
    if let Err(e) = dropped.join().expect("drops a database") {
        eprintln!("the test database {url} is left behind: {e}");
    }
}

/// A connection to RabbitMQ. Bounded, because one that is made while the server boots may never be answered.
pub(crate) async fn amqp(url: &str) -> Result<lapin::Connection, String> {
    let connecting = lapin::Connection::connect(url, lapin::ConnectionProperties::default());
    match tokio::time::timeout(Duration::from_secs(5), connecting).await {
        Ok(connected) => connected.map_err(|e| e.to_string()),
        Err(_) => Err("RabbitMQ does not answer".to_owned()),
    }
}

/// The Redis server that tests share.
pub(crate) fn redis_url() -> String {
    url("TEST_REDIS_URL")
}
