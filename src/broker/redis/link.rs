//! Connections: one that all calls share, made when it is needed and again after it broke.

use std::time::Duration;

use deadpool_redis::redis::{
    AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, ProtocolVersion, PushInfo, RedisError, RedisResult,
    aio::MultiplexedConnection,
};
use tokio::sync::{
    Mutex,
    mpsc::{UnboundedReceiver, unbounded_channel},
};

use crate::broker::{BrokerError, bounded};

/// Both are shorter than `CALL_TIMEOUT`, so that the sentence names what was waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(4);

/// The way to one server.
pub(super) struct Link {
    client: Client,
    pub(super) db: i64,
    shared: Mutex<Shared>,
}

/// The connection that calls share; their commands travel pipelined.
#[derive(Default)]
struct Shared {
    connection: Option<MultiplexedConnection>,
    /// Counts connections, so that a late failure of an old one does not end its successor.
    generation: u64,
}

pub(super) fn unavailable(e: &RedisError) -> BrokerError {
    BrokerError::Unavailable(format!("redis: {e}"))
}

/// Whether the connection, rather than the command, is at fault.
fn is_broken(e: &RedisError) -> bool {
    e.is_io_error() || e.is_connection_dropped() || e.is_timeout() || e.is_unrecoverable_error()
}

impl Link {
    pub(super) fn new(url: &str) -> RedisResult<Self> {
        if url.starts_with("rediss") {
            // An error means that another part of the program was first.
            drop(rustls::crypto::ring::default_provider().install_default());
        }
        let info = url.into_connection_info()?;
        // RESP3, so that bells arrive on the connection that takes.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let db = settings.db();
        let client = Client::open(info.set_redis_settings(settings))?;
        Ok(Self { client, db, shared: Mutex::default() })
    }

    fn config() -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
    }

    /// A connection of its own.
    pub(super) async fn open(&self) -> RedisResult<MultiplexedConnection> {
        self.client.get_multiplexed_async_connection_with_config(&Self::config()).await
    }

    /// A connection of its own, and what is said on the channels it subscribes to.
    pub(super) async fn open_with_pushes(&self) -> RedisResult<(MultiplexedConnection, UnboundedReceiver<PushInfo>)> {
        let (tx, rx) = unbounded_channel();
        let config = Self::config().set_push_sender(tx);
        Ok((self.client.get_multiplexed_async_connection_with_config(&config).await?, rx))
    }

    async fn shared(&self) -> RedisResult<(MultiplexedConnection, u64)> {
        let mut shared = self.shared.lock().await;
        if let Some(connection) = &shared.connection {
            return Ok((connection.clone(), shared.generation));
        }
        let connection = self.open().await?;
        shared.generation += 1;
        shared.connection = Some(connection.clone());
        Ok((connection, shared.generation))
    }

    async fn forget(&self, generation: u64) {
        let mut shared = self.shared.lock().await;
        if shared.generation == generation {
            shared.connection = None;
        }
    }

    /// Makes a call on the shared connection. A connection that turns out to be broken is replaced once: the server
    /// may have been restarted since the last call. So a command may be done twice, which no command here minds.
    pub(super) async fn call<T, Fut>(
        &self,
        call: impl Fn(MultiplexedConnection) -> Fut + Send + Sync,
    ) -> Result<T, BrokerError>
    where
        T: Send,
        Fut: Future<Output = RedisResult<T>> + Send,
    {
        let work = async {
            let mut again = true;
            loop {
                let (connection, generation) = self.shared().await.map_err(|e| unavailable(&e))?;
                match call(connection).await {
                    Ok(done) => return Ok(done),
                    Err(e) if !is_broken(&e) => return Err(unavailable(&e)),
                    Err(e) => {
                        self.forget(generation).await;
                        if e.is_timeout() || !std::mem::take(&mut again) {
                            return Err(unavailable(&e));
                        }
                    }
                }
            }
        };
        bounded(work).await
    }
}

/// Whether the server was reached and refused.
pub(super) fn is_refusal(e: &RedisError) -> bool {
    let text = e.to_string();
    let said = |word: &str| text.contains(word);
    matches!(e.kind(), ErrorKind::AuthenticationFailed | ErrorKind::RESP3NotSupported | ErrorKind::InvalidClientConfig)
        || ["NOAUTH", "WRONGPASS", "NOPERM", "DB index is out of range", "invalid DB index"].iter().any(|w| said(w))
}
