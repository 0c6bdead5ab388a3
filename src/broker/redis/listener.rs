//! Hears broadcasts over a connection of its own.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use deadpool_redis::redis::{PushInfo, PushKind, Value, aio::MultiplexedConnection, cmd};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::{Inner, unavailable};
use crate::broker::{BrokerError, Control, Listener, aside::Part};

/// A server that went away without a word is noticed by asking it this often.
const PING_EVERY: Duration = Duration::from_secs(10);

pub(super) struct RedisListener {
    inner: Arc<Inner>,
    connection: MultiplexedConnection,
    pushes: UnboundedReceiver<PushInfo>,
    pings: tokio::time::Interval,
    /// See [`crate::redis::Link::moves`].
    moves: u64,
}

impl RedisListener {
    pub(super) async fn open(inner: &Arc<Inner>) -> Result<Self, BrokerError> {
        let moves = inner.link.moves();
        let (mut connection, pushes) = inner.link.open_with_pushes().await.map_err(|e| unavailable(&e))?;
        connection.subscribe(inner.control()).await.map_err(|e| inner.part_failed(Part::Hearing, &e))?;
        inner.aside.admit_part(Part::Hearing);
        let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { inner: Arc::clone(inner), connection, pushes, pings, moves })
    }
}

#[async_trait]
impl Listener for RedisListener {
    async fn next(&mut self) -> Result<Option<Control>, BrokerError> {
        loop {
            tokio::select! {
                biased;
                push = self.pushes.recv() => match push {
                    None | Some(PushInfo { kind: PushKind::Disconnection, .. }) => {
                        return Err(BrokerError::Unavailable("redis: the connection was closed".into()));
                    }
                    Some(PushInfo { kind: PushKind::Message, data }) => {
                        // What a newer version says may be unknown here; the store tells what it was about.
                        let said = data.last().and_then(|v| match v {
                            Value::BulkString(said) => serde_json::from_slice(said).ok(),
                            _ => None,
                        });
                        return Ok(said);
                    }
                    Some(_) => {}
                },
                _ = self.pings.tick() => {
                    if self.inner.link.moves() != self.moves {
                        let why = "redis: another server took over, and broadcasts are heard there";
                        return Err(BrokerError::Unavailable(why.into()));
                    }
                    cmd("PING").query_async::<()>(&mut self.connection).await.map_err(|e| unavailable(&e))?;
                }
            }
        }
    }
}
