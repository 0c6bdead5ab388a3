//! The way to a Redis server, for the broker and the cache alike: one connection that calls share.
//!
//! It is made when a call needs it, and made again after it broke. It also ends when the server behind
//! it says that it takes no writes ([`is_moved`]): after a fail-over behind one address the old
//! connection still leads to the old master, and only a new one finds the new master.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use deadpool_redis::redis::{
    AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, ProtocolVersion, PushInfo, RedisError, RedisResult,
    ServerErrorKind, aio::MultiplexedConnection,
};
use tokio::sync::{
    Mutex,
    mpsc::{UnboundedReceiver, unbounded_channel},
};

use crate::base::seldom::Seldom;

/// A connection younger than this is not replaced because its server takes no writes: where no other
/// server is behind the address, callers must not make a new connection for each call.
const YOUNG: Duration = Duration::from_millis(100);

/// How connections are made.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Longest wait for a connection.
    pub connect: Duration,
    /// Longest wait for an answer.
    pub response: Duration,
    /// Whether the server may push messages on the connection (RESP3).
    pub pushes: bool,
}

/// The way to one server.
pub struct Link {
    client: Client,
    db: i64,
    settings: Settings,
    shared: Mutex<Shared<MultiplexedConnection>>,
    moves: AtomicU64,
}

/// The connection that calls share; their commands travel pipelined.
struct Shared<C> {
    connection: Option<(C, Instant)>,
    /// Counts connections, so that a late failure of an old one does not end its successor.
    generation: u64,
    /// When it was last told that the server takes no writes.
    told: Seldom,
}

/// What becomes of the shared connection after a failure.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It stays: another one would lead nowhere else.
    Kept,
    /// Another call that met the same failure has given it up.
    Gone,
    /// It is given up; whether that is worth telling.
    GivenUp { tell: bool },
}

impl<C> Default for Shared<C> {
    fn default() -> Self {
        Self { connection: None, generation: 0, told: Seldom::default() }
    }
}

impl<C> Shared<C> {
    /// Gives up a connection that broke, or that leads to a server that takes no writes.
    fn give_up(&mut self, generation: u64, broken: bool, now: Instant) -> Fate {
        let Some((_, made)) = self.connection.as_ref().filter(|_| self.generation == generation) else {
            return Fate::Gone;
        };
        if !broken && now.saturating_duration_since(*made) < YOUNG {
            return Fate::Kept;
        }
        self.connection = None;
        // As long as nobody takes over, it happens to one connection after the other.
        Fate::GivenUp { tell: !broken && self.told.is_due(now) }
    }
}

/// Whether the server says that it takes no writes: it is a replica now, has lost its master, or is
/// still loading its data.
#[must_use]
pub fn is_moved(e: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, MasterDown, ReadOnly};
    matches!(e.kind(), ErrorKind::Server(ReadOnly | MasterDown | BusyLoading))
}

/// Whether the connection, rather than the command, is at fault.
fn is_broken(e: &RedisError) -> bool {
    e.is_io_error() || e.is_connection_dropped() || e.is_timeout() || e.is_unrecoverable_error()
}

/// Whether the user lacks the right to a command, key or channel.
#[must_use]
pub fn is_no_right(e: &RedisError) -> bool {
    // Within a script the code is `ERR`: the first text is of 7.0, the second of later versions.
    let script =
        |text: &str| text.contains("The user executing the script can't") || text.contains("ACL failure in script");
    e.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) || script(&e.to_string())
}

/// Whether a key is of another type than the command needs.
#[must_use]
pub fn is_wrong_type(e: &RedisError) -> bool {
    // Of a pipeline the error has no code of its own.
    e.code() == Some("WRONGTYPE") || e.to_string().contains("WRONGTYPE")
}

/// Whether the server was reached and lets this program not in: user, password, database, protocol.
#[must_use]
pub fn is_refusal(e: &RedisError) -> bool {
    let kinds = [ErrorKind::AuthenticationFailed, ErrorKind::RESP3NotSupported, ErrorKind::InvalidClientConfig];
    let text = e.to_string();
    let said = ["DB index is out of range", "invalid DB index", "NOAUTH", "WRONGPASS"];
    kinds.contains(&e.kind()) || is_no_right(e) || said.iter().any(|s| text.contains(s))
}

impl Link {
    /// Contacts nobody.
    ///
    /// # Errors
    /// If `url` is no URL of a Redis server.
    pub fn new(url: &str, settings: Settings) -> RedisResult<Self> {
        if url.starts_with("rediss") {
            // An error means that another part of the program was first.
            drop(rustls::crypto::ring::default_provider().install_default());
        }
        let info = url.into_connection_info()?;
        let protocol = if settings.pushes { ProtocolVersion::RESP3 } else { ProtocolVersion::RESP2 };
        let redis = info.redis_settings().clone().set_protocol(protocol);
        let db = redis.db();
        let client = Client::open(info.set_redis_settings(redis))?;
        Ok(Self { client, db, settings, shared: Mutex::default(), moves: AtomicU64::new(0) })
    }

    /// The number of the database.
    #[must_use]
    pub fn db(&self) -> i64 {
        self.db
    }

    /// How often the shared connection was given up because its server took no writes. Who holds a
    /// connection of its own learns from a change that it may lead to the wrong server.
    pub fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    /// Notes that a connection of its own leads to a server that takes no writes: so may all others.
    pub fn moved(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
        self.reset();
    }

    fn config(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.settings.connect))
            .set_response_timeout(Some(self.settings.response))
    }

    /// A connection of its own.
    ///
    /// # Errors
    /// If the server cannot be reached or does not let this program in.
    pub async fn open(&self) -> RedisResult<MultiplexedConnection> {
        self.client.get_multiplexed_async_connection_with_config(&self.config()).await
    }

    /// A connection of its own, and what is said on the channels it subscribes to.
    ///
    /// # Errors
    /// As [`Link::open`].
    pub async fn open_with_pushes(&self) -> RedisResult<(MultiplexedConnection, UnboundedReceiver<PushInfo>)> {
        let (tx, rx) = unbounded_channel();
        let config = self.config().set_push_sender(tx);
        Ok((self.client.get_multiplexed_async_connection_with_config(&config).await?, rx))
    }

    async fn shared(&self) -> RedisResult<(MultiplexedConnection, u64)> {
        let mut shared = self.shared.lock().await;
        if let Some((connection, _)) = &shared.connection {
            return Ok((connection.clone(), shared.generation));
        }
        let connection = self.open().await?;
        shared.generation += 1;
        shared.connection = Some((connection.clone(), Instant::now()));
        Ok((connection, shared.generation))
    }

    /// Gives the shared connection up after `e`, unless a newer one has taken its place; returns
    /// whether another one is worth a try.
    async fn forget(&self, generation: u64, e: &RedisError) -> bool {
        let broken = is_broken(e);
        let fate = self.shared.lock().await.give_up(generation, broken, Instant::now());
        if let Fate::GivenUp { tell } = fate
            && !broken
        {
            self.moves.fetch_add(1, Ordering::Relaxed);
            if tell {
                tracing::warn!(error = %e, "Redis takes no writes, looking for the server that does at the same address");
            }
        }
        fate != Fate::Kept
    }

    /// The next call makes a new connection: this one does not answer. Waits for nobody, because
    /// whoever holds it is making a new one.
    pub fn reset(&self) {
        if let Ok(mut shared) = self.shared.try_lock() {
            shared.connection = None;
        }
    }

    /// Makes a call on the shared connection, and once more on a new one if that is broken or leads to
    /// a server that takes no writes. So a command may be done twice, which no command here minds.
    ///
    /// # Errors
    /// What the second try, or the connecting, said.
    pub async fn call<T, Fut>(&self, call: impl Fn(MultiplexedConnection) -> Fut + Send + Sync) -> RedisResult<T>
    where
        T: Send,
        Fut: Future<Output = RedisResult<T>> + Send,
    {
        let mut again = true;
        loop {
            let (connection, generation) = self.shared().await?;
            match call(connection).await {
                Err(e) if is_broken(&e) || is_moved(&e) => {
                    let replaced = self.forget(generation, &e).await;
                    if !replaced || e.is_timeout() || !std::mem::take(&mut again) {
                        return Err(e);
                    }
                }
                done => return done,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many calls meet the failure of one connection, and a server that stays as it is fails each.
    #[test]
    fn a_connection_is_given_up_once_and_told_once_in_a_while() {
        let (mut shared, start) = (Shared::default(), Instant::now());
        shared.connection = Some(((), start));
        assert_eq!(shared.give_up(0, false, start), Fate::Kept);
        assert_eq!(shared.give_up(0, false, start + YOUNG), Fate::GivenUp { tell: true });
        assert_eq!(shared.give_up(0, false, start + YOUNG), Fate::Gone);
        (shared.connection, shared.generation) = (Some(((), start)), 1);
        assert_eq!(shared.give_up(0, false, start + YOUNG), Fate::Gone);
        assert_eq!(shared.give_up(1, false, start + 2 * YOUNG), Fate::GivenUp { tell: false });
        shared.connection = Some(((), start));
        assert_eq!(shared.give_up(1, true, start), Fate::GivenUp { tell: false });
        shared.connection = Some(((), start));
        let later = start + YOUNG + crate::base::seldom::PAUSE;
        assert_eq!(shared.give_up(1, false, later), Fate::GivenUp { tell: true });
    }

    #[test]
    fn what_servers_say_is_understood() {
        let said = |line: &str| {
            let parsed = deadpool_redis::redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
            parsed.and_then(deadpool_redis::redis::Value::extract_error).expect_err("an error")
        };
        for moved in ["READONLY You can't write against a read only replica.", "MASTERDOWN Link", "LOADING Redis is"] {
            assert!(is_moved(&said(moved)), "{moved}");
        }
        for right in [
            "NOPERM this user has no permissions to access one of the keys used as arguments",
            "ERR The user executing the script can't publish to the channel mentioned in the command",
            "ERR ACL failure in script: User app has no permissions to access one of the channels",
        ] {
            assert!(is_no_right(&said(right)) && is_refusal(&said(right)) && !is_moved(&said(right)), "{right}");
        }
        let wrong = said("WRONGTYPE Operation against a key holding the wrong kind of value");
        assert!(is_wrong_type(&wrong) && !is_no_right(&wrong) && !is_refusal(&wrong));
        assert!(is_refusal(&said("ERR DB index is out of range")) && !is_refusal(&said("ERR unknown command")));
    }
}
