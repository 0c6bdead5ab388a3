//! The broker in a Redis server (7.0 or newer).
//!
//! ```text
//! app:P{QUEUE}:10 … app:P{QUEUE}:1   list for each priority, head first; 17 bytes a wake-up (version, job id)
//! app:P:DB:bell:QUEUE                channel: a list of the queue was empty and is not any more
//! app:P:DB:control                   channel: broadcasts, as JSON
//! ```
//! P is `broker.prefix`, DB the number of the database (channels know none). All keys of a queue have one hash tag, each
//! script touches one queue and names its keys: it may live in a cluster.
//!
//! Publishing appends a batch by one script and rings the bell where it found a list empty. Taking pops exactly what
//! is wanted by one script. A consumer that found a queue empty asks again only when the bell rings, so waiting costs
//! nothing and an idle worker hears of a job at once.
//!
//! What is popped is in the consumer's memory only: acknowledging costs nothing, and a process that is killed between
//! the pop and the claim in the store loses the wake-up. So does a server that loses its memory (`FLUSHALL`, no AOF).
//! That is meant: the store knows the job, and `scheduler::lost` publishes it again.

use std::sync::Arc;

use async_trait::async_trait;
use deadpool_redis::redis::{Cmd, cmd};

use super::{Broker, BrokerError, Consumer, Control, Listener, Options, WakeUp, desk};
use crate::base::{
    id::QueueName,
    probe::{Probe, Unfit},
};

mod consumer;
mod fitness;
mod link;
mod listener;
mod scripts;

use link::Link;
use scripts::{Lists, Scripts};

/// What all parts of one broker share.
struct Inner {
    link: Link,
    scripts: Scripts,
    prefix: String,
}

impl Inner {
    fn lists(&self, queue: &QueueName) -> Lists {
        Lists::new(&self.prefix, queue)
    }

    fn bells(&self) -> String {
        format!("app:{}:{}:bell:", self.prefix, self.link.db)
    }

    fn bell(&self, queue: &QueueName) -> String {
        format!("{}{queue}", self.bells())
    }

    fn control(&self) -> String {
        format!("app:{}:{}:control", self.prefix, self.link.db)
    }

    /// Puts wake-ups into the lists of one queue, behind or before what is there.
    async fn push(&self, queue: &QueueName, wake_ups: &[&WakeUp], end: scripts::End) -> Result<(), BrokerError> {
        let (lists, bell) = (self.lists(queue), self.bell(queue));
        for some in wake_ups.chunks(scripts::BATCH) {
            let jobs = some.iter().map(|w| (w.priority, w.job));
            let push = &self.scripts.push(&lists, &bell, end, jobs);
            self.link.call(|mut c| async move { push.invoke_async::<()>(&mut c).await }).await?;
        }
        Ok(())
    }

    /// Puts wake-ups back where they were, as far as the server answers.
    async fn give_back(&self, wake_ups: &[WakeUp]) -> Result<(), BrokerError> {
        for (queue, mut of_queue) in by_queue(wake_ups) {
            // Each is put before the last one.
            of_queue.reverse();
            self.push(queue, &of_queue, scripts::End::Head).await?;
        }
        Ok(())
    }
}

/// The queues of `wake_ups` in the order in which they first come, each with its own.
fn by_queue(wake_ups: &[WakeUp]) -> Vec<(&QueueName, Vec<&WakeUp>)> {
    let mut queues: Vec<(&QueueName, Vec<&WakeUp>)> = Vec::with_capacity(1);
    for w in wake_ups {
        match queues.iter_mut().find(|(q, _)| **q == w.queue) {
            Some((_, of_queue)) => of_queue.push(w),
            None => queues.push((&w.queue, vec![w])),
        }
    }
    queues
}

/// The [`Broker`] in a Redis server.
pub(super) struct Redis(Arc<Inner>);

impl Redis {
    pub(super) fn new(url: &str, options: &Options) -> Result<Self, BrokerError> {
        let link = Link::new(url).map_err(|e| {
            let url = crate::config::show::mask_url(url);
            BrokerError::Url(format!("broker.url is `{url}`, but that is no URL of a Redis server: {}", e.category()))
        })?;
        Ok(Self(Arc::new(Inner { link, scripts: Scripts::new(), prefix: options.prefix.clone() })))
    }

    async fn command<T: deadpool_redis::redis::FromRedisValue + Send>(&self, command: &Cmd) -> Result<T, BrokerError> {
        self.0.link.call(|mut c| async move { command.query_async(&mut c).await }).await
    }
}

#[async_trait]
impl Probe for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    async fn check(&self) -> Result<(), String> {
        self.command::<()>(&cmd("PING")).await.map_err(|e| e.to_string())
    }

    async fn inspect(&self) -> Result<Vec<String>, Unfit> {
        fitness::inspect(&self.0.link).await
    }
}

#[async_trait]
impl Broker for Redis {
    async fn publish(&self, wake_ups: &[WakeUp]) -> Result<(), BrokerError> {
        super::bounded(async {
            for (queue, of_queue) in by_queue(wake_ups) {
                self.0.push(queue, &of_queue, scripts::End::Tail).await?;
            }
            Ok(())
        })
        .await
    }

    async fn consumer(&self) -> Result<Box<dyn Consumer>, BrokerError> {
        let (handle, end) = desk::desk();
        let connected = async { self.0.link.open_with_pushes().await.map_err(|e| link::unavailable(&e)) };
        let (connection, pushes) = super::bounded(connected).await?;
        tokio::spawn(consumer::run(Arc::clone(&self.0), connection, pushes, end));
        Ok(Box::new(handle))
    }

    async fn depth(&self, queue: &QueueName) -> Result<u64, BrokerError> {
        let mut lengths = deadpool_redis::redis::pipe();
        for list in self.0.lists(queue).keys() {
            lengths.llen(list);
        }
        let lengths = &lengths;
        let found: Vec<u64> = self.0.link.call(|mut c| async move { lengths.query_async(&mut c).await }).await?;
        Ok(found.into_iter().sum())
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64, BrokerError> {
        let purge = &self.0.scripts.purge(&self.0.lists(queue));
        self.0.link.call(|mut c| async move { purge.invoke_async(&mut c).await }).await
    }

    async fn broadcast(&self, control: &Control) -> Result<(), BrokerError> {
        let said = serde_json::to_vec(control).map_err(|e| BrokerError::Unavailable(e.to_string()))?;
        let mut publish = cmd("PUBLISH");
        publish.arg(self.0.control()).arg(said);
        self.command::<()>(&publish).await
    }

    async fn listen(&self) -> Result<Box<dyn Listener>, BrokerError> {
        Ok(Box::new(super::bounded(listener::RedisListener::open(&self.0)).await?))
    }
}
