//! The broker port: wake-ups that say "look now", and a broadcast line to the workers.
//!
//! The store owns every job; a [`WakeUp`] only names one. That is why a broker needs so little here and why losing
//! one loses no job: `scheduler::lost` publishes again what was lost.
//!
//! Contract, proved for each adapter by `tests/it/conformance/broker/`:
//! - [`Broker::publish`] answers `Ok` only when the broker has taken every wake-up.
//! - Within a queue the highest priority is delivered first, and equal priorities in the order of publishing.
//! - A delivery that is neither acknowledged nor given back when its [`Consumer`] is dropped is delivered again.
//! - A wake-up may be delivered more than once, also after its job ended: the claim in the store decides.
//! - [`Broker::broadcast`] reaches every listener that listens at that moment, and is never relied on alone.
//!
//! And for each server, by `tests/it/faults/refusals/`:
//! - A queue that the server refuses costs only itself: what is asked of other queues is done, a consumer goes on with
//!   the others, and [`Broker::set_aside`] tells of it until it is found to be served again.
//! - A server that refuses broadcasts costs only these.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::base::{
    error::Kind,
    id::{JobId, Priority, QueueName},
    probe::Probe,
};

mod aside;
mod counted;
mod desk;
mod embedded;
mod rabbitmq;
mod redis;
pub mod wire;

pub use wire::{Control, WakeUp};

/// Why a broker did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The broker cannot be reached; the same call may succeed later.
    #[error("the broker is not available: {0}")]
    Unavailable(String),
    /// The server refuses these queues to this program. What was asked of other queues is done.
    #[error("{}", sentence(.0))]
    Refused(Vec<SetAside>),
    /// The server refuses broadcasts to this program, which needs them for nothing else.
    #[error("broadcasts are off: {0}")]
    NoBroadcasts(String),
    /// The broker's URL cannot be used.
    #[error("{0}")]
    Url(String),
}

impl BrokerError {
    /// The closed kind of this error.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unavailable(_) | Self::Refused(_) | Self::NoBroadcasts(_) => Kind::Unavailable,
            Self::Url(_) => Kind::Invalid,
        }
    }
}

/// A queue that the broker's server refuses to this program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// Which.
    #[serde(deserialize_with = "QueueName::deserialize_stored")]
    pub queue: QueueName,
    /// Why, and what to do about it.
    pub why: String,
}

/// What the broker's server refuses to this program, as far as a look shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lacks {
    /// Queues.
    pub queues: Vec<SetAside>,
    /// Why broadcasts cannot be said or heard; empty if both can be, as far as is known.
    pub broadcasts: Vec<String>,
}

impl Lacks {
    /// Notes what a try to say or hear something showed.
    ///
    /// # Errors
    /// If it did not come to that.
    fn note(&mut self, tried: Result<(), BrokerError>) -> Result<(), BrokerError> {
        match tried {
            Err(BrokerError::NoBroadcasts(why)) => {
                if !self.broadcasts.contains(&why) {
                    self.broadcasts.push(why);
                }
                Ok(())
            }
            tried => tried,
        }
    }
}

fn sentence(refused: &[SetAside]) -> String {
    refused.iter().map(|r| r.why.as_str()).collect::<Vec<_>>().join("; ")
}

/// A wake-up in a consumer's hands, to be acknowledged or given back by its tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// What was published.
    pub wake_up: WakeUp,
    /// Names this delivery to the consumer that took it.
    pub tag: u64,
}

/// How many deliveries a consumer can take now, and from where.
#[derive(Clone, Debug)]
pub struct Want {
    /// At most this many in all.
    pub max: usize,
    /// Up to so many from each queue, in this order; what is then still free is filled from any of these queues in
    /// this order. A queue that is not named is not touched.
    pub shares: Vec<(QueueName, usize)>,
}

/// Messages to and from workers.
#[async_trait]
pub trait Broker: Probe {
    /// Hands wake-ups over.
    ///
    /// # Errors
    /// If the broker did not take all of them; some may have been taken. [`BrokerError::Refused`]: only those of the
    /// queues that it names may not have been.
    async fn publish(&self, wake_ups: &[WakeUp]) -> Result<(), BrokerError>;

    /// A new consumer, able to take from any queue.
    ///
    /// # Errors
    /// If the broker cannot be reached.
    async fn consumer(&self) -> Result<Box<dyn Consumer>, BrokerError>;

    /// Looks whether these queues can be published to and taken from, and broadcasts said and heard, by what can be
    /// tried without taking or saying anything. Makes nothing: of what is not there yet nothing is known.
    ///
    /// # Errors
    /// If the broker cannot be reached.
    async fn examine(&self, queues: &[QueueName]) -> Result<Lacks, BrokerError>;

    /// The queues that the server refuses to this process, as far as it has tried of late.
    fn set_aside(&self) -> Vec<SetAside>;

    /// How many wake-ups wait in `queue`, without those in consumers' hands. What was given back just now may be missing for a
    /// moment.
    ///
    /// # Errors
    /// If the broker cannot be reached.
    async fn depth(&self, queue: &QueueName) -> Result<u64, BrokerError>;

    /// Drops every wake-up that waits in `queue` and answers how many there were.
    ///
    /// # Errors
    /// If the broker cannot be reached.
    async fn purge(&self, queue: &QueueName) -> Result<u64, BrokerError>;

    /// Tells every listener.
    ///
    /// # Errors
    /// If the broker cannot be reached, or [`BrokerError::NoBroadcasts`].
    async fn broadcast(&self, control: &Control) -> Result<(), BrokerError>;

    /// Starts to listen to broadcasts.
    ///
    /// # Errors
    /// If the broker cannot be reached, or [`BrokerError::NoBroadcasts`].
    async fn listen(&self) -> Result<Box<dyn Listener>, BrokerError>;
}

/// Takes deliveries from queues.
#[async_trait]
pub trait Consumer: Send {
    /// Waits until at least one wanted delivery is there and takes what is wanted. Cancel-safe: a dropped call takes
    /// nothing. A queue that the server refuses is set aside and tried again by and by.
    ///
    /// # Errors
    /// If the broker went away; the consumer is then of no more use. [`BrokerError::Refused`]: the same, but a new one
    /// can be made at once and goes on without these queues.
    async fn next(&mut self, want: &Want) -> Result<Vec<Delivery>, BrokerError>;

    /// Ends deliveries for good.
    ///
    /// # Errors
    /// If the broker went away; the deliveries will come again.
    async fn ack(&mut self, tags: &[u64]) -> Result<(), BrokerError>;

    /// Puts deliveries back where they were: first of their priority.
    ///
    /// # Errors
    /// If the broker went away; the deliveries will come again.
    async fn give_back(&mut self, tags: &[u64]) -> Result<(), BrokerError>;
}

/// Hears broadcasts.
#[async_trait]
pub trait Listener: Send {
    /// Waits for the next broadcast. Cancel-safe. `Ok(None)`: some may have been missed, look at the store.
    ///
    /// # Errors
    /// If the broker went away; listen again.
    async fn next(&mut self) -> Result<Option<Control>, BrokerError>;
}

/// What of a broker server is left to choose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Stands before every name in the server, so that several installations can share one. Empty: queues in RabbitMQ
    /// are named exactly as the user's.
    pub prefix: String,
    /// How RabbitMQ keeps queues.
    pub queue_type: QueueType,
}

/// How RabbitMQ keeps queues. It cannot be changed for a queue that exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueType {
    /// On one node, with ten priorities.
    #[default]
    Classic,
    /// On several nodes, by consensus. How far priorities are kept depends on the version: see `broker::rabbitmq`.
    Quorum,
}

/// Opens the broker that `url` names. No server is contacted before the first call.
///
/// # Errors
/// A sentence, if the scheme is unknown or the URL cannot be read.
pub fn connect(url: &str, options: &Options) -> Result<Arc<dyn Broker>, BrokerError> {
    let broker: Arc<dyn Broker> = match url.split_once("://") {
        Some(("embedded", "")) => Arc::new(embedded::Embedded::new()),
        Some(("embedded", rest)) => {
            return Err(BrokerError::Url(format!(
                "broker.url is `embedded://{rest}`, but nothing may follow `embedded://`"
            )));
        }
        Some(("redis" | "rediss", _)) => Arc::new(redis::Redis::new(url, options)?),
        Some(("amqp" | "amqps", _)) => Arc::new(rabbitmq::RabbitMq::new(url, options)?),
        _ => {
            let url = crate::config::show::mask_url(url);
            return Err(BrokerError::Url(format!(
                "broker.url is `{url}`, but its scheme must be one of: embedded, redis, rediss, amqp, amqps"
            )));
        }
    };
    Ok(Arc::new(counted::Counted::new(broker)))
}

/// After this long a call to a broker server has failed with [`BrokerError::Unavailable`]. Callers bound their own
/// waits by the same time.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A wake-up for one job.
#[must_use]
pub fn wake_up(job: JobId, queue: &QueueName, priority: Priority) -> WakeUp {
    WakeUp { job, queue: queue.clone(), priority }
}

/// Bounds one call to a server.
async fn bounded<T>(call: impl Future<Output = Result<T, BrokerError>> + Send) -> Result<T, BrokerError> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(done) => done,
        Err(_elapsed) => Err(BrokerError::Unavailable(format!("no answer within {} s", CALL_TIMEOUT.as_secs()))),
    }
}
