//! The MongoDB store: jobs, items, queues and workers as documents, every change of a job by compare-and-set.
//!
//! ```text
//! jobs              _id, state, queue, priority, kind, at, created, spec (JSON), …   four partial indexes on live states
//! leases            _id (number of the claim), worker, started, until, jobs          unique index on jobs
//! idempotency_keys  _id {scope, key}, request, answer, expires
//! items             _id, name, …, version
//! queues            _id (name), paused
//! workers           _id, report (JSON)
//! records           _id (shelf/id), names, labels, body (JSON)    unique index on names
//! schema            _id "version", version
//! ```
//! What a client is told, and a claim, because its worker outlives the server, is written with `{w: "majority", j: true}`;
//! renewals, progress and passes with `{w: 1}`, because they may be undone together with all that they led to. Each field
//! that an index holds is paid at every transition, and an update costs the server several inserts: so a job that succeeds
//! costs one insert, its share of one more for the lease of its batch, and one update.
//!
//! Nothing is asked of the server before the first call: [`Mongo::database`] connects and migrates once, and tries again
//! with the next call if that failed. So a process starts, and lives on, without its database.

use std::{sync::Arc, time::Duration};

use ::mongodb::{
    Client, Collection, Database,
    bson::{Document, doc},
    options::{Acknowledgment, ClientOptions, ConnectionString, DatabaseOptions, WriteConcern},
};
use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::{Close, Found, OpenError};
use crate::base::{
    probe::{Probe, Unfit},
    store::StoreError,
};

mod changes;
mod claim;
mod control;
mod doc;
mod fault;
mod finish;
mod fleet;
mod gather;
mod insert;
mod items;
mod jobs;
mod leases;
mod migrate;
mod pauses;
mod read;
mod records;
mod sweep;
mod together;
mod told;
mod write;

use changes::Changes;
use doc::JobDoc;
use fault::Fault;
use leases::Held;
use pauses::Pauses;

/// The backend's name in `/health`.
pub(super) const NAME: &str = "mongodb";
/// How long one call may take in all. A server that is stopped, or that cannot reach its majority, never answers by itself.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to look for a server that can be written to, unless the URL says otherwise: callers get their 503 soon.
const SELECTION_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections at once, unless the URL says otherwise.
const POOL: u32 = 32;
/// Database name, unless the URL has one.
const DATABASE: &str = "app";

/// One database of a MongoDB server; implements every store port.
pub(super) struct Mongo {
    target: ConnectionString,
    database: OnceCell<Ready>,
    inserts: gather::Inserts,
}

/// A connected client and the two ways to write.
#[derive(Clone)]
struct Ready {
    /// Majority and journal.
    durable: Database,
    /// The primary's memory.
    lazy: Database,
    /// Whether the server can do transactions; a single server without a replica set cannot.
    transactions: bool,
    changes: Changes,
    held: Held,
    pauses: Pauses,
}

/// A connected client, of whose database nothing is known yet.
struct Link {
    durable: Database,
    lazy: Database,
    transactions: bool,
}

fn durable() -> WriteConcern {
    let mut w = WriteConcern::majority();
    w.journal = Some(true);
    w
}

fn lazy() -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Nodes(1)).build()
}

impl Ready {
    fn jobs(&self) -> Collection<JobDoc> {
        self.durable.collection("jobs")
    }
}

impl Mongo {
    pub(super) fn open(url: &str) -> Result<Arc<Self>, OpenError> {
        let mut target = ConnectionString::parse(url).map_err(|e| {
            let url = crate::config::show::mask_url(url);
            OpenError::Url(format!("store.url is `{url}`, which MongoDB cannot use: {}", fault::sentence(&e)))
        })?;
        // A claim must not miss a job that is queued, nor run one that is cancelled, because another node has not heard of it.
        if target.read_preference.take().is_some() | target.read_concern.take().is_some() {
            tracing::warn!(
                "readPreference and readConcernLevel of store.url are left aside: every read asks the primary"
            );
        }
        Ok(Arc::new(Self { target, database: OnceCell::new(), inserts: gather::Inserts::default() }))
    }

    /// The database, connected and migrated.
    async fn database(&self) -> Result<&Ready, Fault> {
        self.database.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Ready, Fault> {
        let Link { durable, lazy, transactions } = self.link().await?;
        migrate::run(&durable).await?;
        Ok(Ready {
            durable,
            lazy,
            transactions,
            changes: Changes::default(),
            held: Held::default(),
            pauses: Pauses::default(),
        })
    }

    async fn link(&self) -> Result<Link, Fault> {
        let mut options = ClientOptions::parse(self.target.clone()).await?;
        options.app_name.get_or_insert_with(|| "app".to_owned());
        options.server_selection_timeout.get_or_insert(SELECTION_TIMEOUT);
        options.connect_timeout.get_or_insert(SELECTION_TIMEOUT);
        options.max_pool_size.get_or_insert(POOL);
        let name = options.default_database.clone().unwrap_or_else(|| DATABASE.to_owned());
        let client = Client::with_options(options)?;
        let with = |w| client.database_with_options(&name, DatabaseOptions::builder().write_concern(w).build());
        let (durable, lazy) = (with(durable()), with(lazy()));
        let hello = durable.run_command(doc! { "hello": 1 }).await?;
        let transactions = hello.contains_key("setName") || hello.get_str("msg").is_ok_and(|m| m == "isdbgrid");
        Ok(Link { durable, lazy, transactions })
    }

    /// The masked URL, with the name of the database where the URL itself has none.
    pub(super) fn named(&self, url: &str) -> String {
        match self.target.default_database {
            Some(_) => url.to_owned(),
            None => format!("{url} (database `{DATABASE}`)"),
        }
    }

    /// Looks at the server and whether the database is there. The look makes and migrates nothing.
    pub(super) async fn look(&self) -> Result<Found, Unfit> {
        let look = async {
            let seen = async {
                let Link { durable, transactions, .. } = self.link().await?;
                let exists = migrate::version(&durable).await?.is_some();
                let info: Document = durable.run_command(doc! { "buildInfo": 1 }).await?;
                Ok::<_, Fault>(Found { exists, warnings: warnings(&info, transactions) })
            };
            match seen.await {
                Err(e) if e.is_refusal() => Ok(Err(Unfit::Refused(e.to_string()))),
                seen => seen.map(Ok),
            }
        };
        self.call(look).await.map_err(|e| Unfit::Unavailable(e.to_string()))?
    }

    /// Bounds one call and translates its faults.
    async fn call<T>(&self, work: impl Future<Output = Result<T, Fault>> + Send) -> Result<T, StoreError> {
        match tokio::time::timeout(CALL_TIMEOUT, work).await {
            Ok(result) => result.map_err(StoreError::from),
            Err(_) => Err(StoreError::Unavailable(format!("MongoDB did not answer within {CALL_TIMEOUT:?}"))),
        }
    }
}

#[async_trait]
impl Probe for Mongo {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn check(&self) -> Result<(), String> {
        let look = async {
            // Only a primary takes writes, and a write that a majority has is what the service cannot do without.
            self.database().await?.durable.run_command(doc! { "ping": 1 }).await?;
            Ok(())
        };
        self.call(look).await.map_err(|e| e.to_string())
    }

    async fn inspect(&self) -> Result<Vec<String>, Unfit> {
        let look = async {
            let ready = match self.database().await {
                Ok(ready) => ready,
                Err(e) if e.is_refusal() => return Ok(Err(Unfit::Refused(e.to_string()))),
                Err(e) => return Err(e),
            };
            let info: Document = ready.durable.run_command(doc! { "buildInfo": 1 }).await?;
            Ok(Ok(warnings(&info, ready.transactions)))
        };
        self.call(look).await.map_err(|e| Unfit::Unavailable(e.to_string()))?
    }
}

#[async_trait]
impl Close for Mongo {
    /// What a server has answered it keeps; a connection that breaks off costs nothing.
    async fn close(self: Arc<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What a server of this make puts at risk.
fn warnings(build: &Document, transactions: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if !transactions {
        warnings.push(
            "MongoDB (store.url) is a single server without a replica set: nothing outlives its disk, and submissions in \
             bulk or with an Idempotency-Key, items and users are refused, because they need transactions; start it with \
             --replSet"
                .to_owned(),
        );
    }
    let version = build.get_str("version").unwrap_or("unknown");
    let major: u32 = version.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    if major < 6 {
        warnings.push(format!(
            "MongoDB (store.url) is version {version}, but 6.0 or newer is what this program is tested with"
        ));
    }
    warnings
}
