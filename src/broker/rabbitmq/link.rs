//! Connections and channels, and sentences for what goes wrong with them.

use std::{sync::Arc, time::Duration};

use lapin::{
    Channel, Connection, ConnectionProperties, ErrorKind, Queue,
    options::QueueDeclareOptions,
    protocol::AMQPErrorKind,
    types::{AMQPValue, FieldTable},
    uri::AMQPUri,
};
use tokio::sync::Mutex;

use crate::{
    base::id::QueueName,
    broker::{BrokerError, Options, QueueType},
};

/// Shorter than `CALL_TIMEOUT`, so that the sentence says what was waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// A peer that said nothing for twice this long is gone; a consumer that waits at a dead connection learns it no other way.
/// Seconds; RabbitMQ advises 5 to 20.
const HEARTBEAT: u16 = 5;
/// Longest frame in bytes, unless the URL says otherwise. The library holds 64 frames for each connection, which at the usual
/// 128 KiB is 8 MiB of memory; a wake-up is 17 bytes.
const FRAME_MAX: u32 = 16 * 1024;
/// Priorities are 1 to 10.
const MAX_PRIORITY: u8 = 10;

/// Answers of the server.
pub(super) const ACCESS_REFUSED: u16 = 403;
pub(super) const NOT_FOUND: u16 = 404;
pub(super) const RESOURCE_LOCKED: u16 = 405;
pub(super) const PRECONDITION_FAILED: u16 = 406;

/// One connection, made when it is needed and again after it broke.
pub(super) struct Link {
    uri: AMQPUri,
    purpose: &'static str,
    connection: Mutex<Option<Arc<Connection>>>,
}

/// The server's code, if it was the server that failed a call.
pub(super) fn code(e: &lapin::Error) -> Option<u16> {
    match e.kind() {
        ErrorKind::ProtocolError(e) => Some(match e.kind() {
            AMQPErrorKind::Soft(e) => e.get_id(),
            AMQPErrorKind::Hard(e) => e.get_id(),
        }),
        _ => None,
    }
}

pub(super) fn unavailable(e: &lapin::Error) -> BrokerError {
    BrokerError::Unavailable(format!("rabbitmq: {e}"))
}

impl Link {
    pub(super) fn new(mut uri: AMQPUri, purpose: &'static str) -> Self {
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        uri.query.frame_max.get_or_insert(FRAME_MAX);
        Self { uri, purpose, connection: Mutex::default() }
    }

    /// A connection of its own.
    pub(super) async fn open(&self) -> lapin::Result<Connection> {
        let properties = ConnectionProperties::default().with_connection_name(format!("app {}", self.purpose).into());
        let connecting = Connection::connect_uri(self.uri.clone(), properties);
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected,
            Err(_elapsed) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }

    pub(super) async fn connection(&self) -> lapin::Result<Arc<Connection>> {
        let mut shared = self.connection.lock().await;
        if let Some(connection) = shared.as_ref().filter(|c| c.status().connected()) {
            return Ok(Arc::clone(connection));
        }
        let connection = Arc::new(self.open().await?);
        *shared = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// A new channel on the shared connection.
    pub(super) async fn channel(&self) -> Result<Channel, BrokerError> {
        let channel = async { self.connection().await?.create_channel().await };
        channel.await.map_err(|e| unavailable(&e))
    }

    /// Whether the server refuses publishes for now. Waits for nobody: whoever holds the connection is making a new one.
    pub(super) fn is_blocked(&self) -> bool {
        self.connection.try_lock().is_ok_and(|c| c.as_ref().is_some_and(|c| c.status().blocked()))
    }

    /// The next call makes a new connection: this one does not answer.
    pub(super) fn forget(&self) {
        if let Ok(mut connection) = self.connection.try_lock() {
            *connection = None;
        }
    }
}

/// How queues are named and declared.
#[derive(Clone)]
pub(super) struct Names(Options);

impl Names {
    pub(super) fn new(options: &Options) -> Self {
        Self(options.clone())
    }

    pub(super) fn queue(&self, queue: &QueueName) -> String {
        format!("{}{queue}", self.0.prefix)
    }

    /// The exchange of broadcasts.
    pub(super) fn control(&self) -> String {
        format!("{}app.control", self.0.prefix)
    }

    pub(super) fn arguments(&self) -> FieldTable {
        let mut arguments = FieldTable::default();
        let kind = match self.0.queue_type {
            QueueType::Classic => {
                arguments.insert("x-max-priority".into(), AMQPValue::ShortShortUInt(MAX_PRIORITY));
                "classic"
            }
            // Never with `x-max-priority`: quorum queues refuse it.
            QueueType::Quorum => "quorum",
        };
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        arguments
    }

    /// Does one thing with a queue, on a channel of its own; none if there is no such queue.
    pub(super) async fn with_queue<T, F, Fut>(&self, link: &Link, call: F) -> Result<Option<T>, BrokerError>
    where
        F: FnOnce(Channel) -> Fut + Send,
        Fut: Future<Output = lapin::Result<T>> + Send,
        T: Send,
    {
        let channel = link.channel().await?;
        match call(channel.clone()).await {
            Ok(done) => {
                close(&channel).await;
                Ok(Some(done))
            }
            Err(e) if code(&e) == Some(NOT_FOUND) => Ok(None),
            Err(e) => Err(unavailable(&e)),
        }
    }
}

/// What the server knows about a queue. One that is missing closes the channel.
pub(super) async fn look(channel: &Channel, name: &str) -> lapin::Result<Queue> {
    channel.queue_declare(name.into(), QueueDeclareOptions::default().passive(), FieldTable::default()).await
}

/// Closes a channel that is no longer needed; one that is closed already is fine.
pub(super) async fn close(channel: &Channel) {
    if let Err(e) = channel.close(200, "done".into()).await {
        tracing::debug!(error = %e, "a channel did not close");
    }
}
