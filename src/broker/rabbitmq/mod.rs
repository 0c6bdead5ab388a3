//! The broker in RabbitMQ (3.10 to 4.4).
//!
//! ```text
//! queue PQUEUE            durable; classic with x-max-priority 10, or quorum; persistent messages of 17 bytes
//!                         (version, job id) with their priority, published through the default exchange
//! exchange Papp.control   fanout: broadcasts, as JSON
//! a queue per listener    exclusive, bound to it
//! ```
//! P is `broker.prefix`, empty unless set: queues have the names that users give them.
//!
//! Publishing pipelines confirms. Messages are `mandatory`, so a queue that was deleted is noticed, and made again.
//! Broadcasts go through a channel of their own.
//!
//! RabbitMQ may refuse a queue (406 other arguments, 403 no right, 405 exclusive to somebody) and then closes the channel
//! on which it was asked for. `declare` keeps that apart from the others, `aside` remembers it: consumers and publishers go on
//! without this queue, and it is tried again after 1 s, 2 s … 30 s.
//!
//! Taking is exact: a consumer fetches (`basic.get`, pipelined) as many as are wanted. Prefetching would be cheaper for
//! the server but keeps deliveries of several queues at workers that are busy with others. While a consumer waits, a
//! *bell* stands at each wanted queue that was found empty: `basic.consume` with a prefetch of one, which the
//! first message rings and which is then taken down. So waiting costs next to nothing (every 10 s bells are hung anew) and
//! an idle worker hears at once.
//!
//! What is taken stays unacknowledged in the server until it is settled, and comes again when the connection breaks. The
//! time-out that closes channels with deliveries older than 30 minutes does no harm: the consumer is made again,
//! what comes twice finds nothing to claim. What the server loses (a queue deleted or purged) the store knows, and
//! `scheduler::lost` publishes it again; so does a quorum queue's delivery limit.
//!
//! Priorities in quorum queues: none before 4.0; two bands (5 and more before 4 and less) before 4.3; then all ten.

use std::{str::FromStr, sync::Arc};

use async_trait::async_trait;
use lapin::{options::QueuePurgeOptions, uri::AMQPUri};

use super::{
    Broker, BrokerError, CALL_TIMEOUT, Consumer, Control, Lacks, Listener, Options, SetAside, WakeUp, aside::Aside,
    bounded, desk,
};
use crate::base::{
    id::QueueName,
    probe::{Probe, Unfit},
};

mod consumer;
mod controls;
mod declare;
mod fitness;
mod held;
mod link;
mod listener;
mod publisher;

use declare::Declarer;
use link::{Link, Names, unavailable};
use publisher::Publisher;

/// The [`Broker`] in RabbitMQ.
pub(super) struct RabbitMq {
    uri: AMQPUri,
    names: Names,
    aside: Arc<Aside>,
    publisher: Publisher,
    /// The connection of consumers and listeners.
    consuming: Arc<Link>,
}

impl RabbitMq {
    pub(super) fn new(url: &str, options: &Options) -> Result<Self, BrokerError> {
        let uri = AMQPUri::from_str(url).map_err(|e| {
            let url = crate::config::show::mask_url(url);
            BrokerError::Url(format!("broker.url is `{url}`, but that is no URL of a RabbitMQ server: {e}"))
        })?;
        if url.starts_with("amqps") {
            // An error means that another part of the program was first.
            drop(rustls::crypto::ring::default_provider().install_default());
        }
        let names = Names::new(options);
        let aside = Arc::<Aside>::default();
        let publisher = Publisher::new(Link::new(uri.clone(), "publishes"), names.clone(), Arc::clone(&aside));
        let consuming = Arc::new(Link::new(uri.clone(), "consumes"));
        Ok(Self { uri, names, aside, publisher, consuming })
    }

    /// Bounds a call on the consuming connection; one that does not answer is not used again.
    async fn consuming<T>(&self, call: impl Future<Output = Result<T, BrokerError>> + Send) -> Result<T, BrokerError> {
        let done = bounded(call).await;
        if matches!(done, Err(BrokerError::Unavailable(_))) {
            self.consuming.forget();
        }
        done
    }
}

#[async_trait]
impl Probe for RabbitMq {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    async fn check(&self) -> Result<(), String> {
        let check = async {
            let channel = self.publisher.link.channel().await?;
            channel.close(200, "checked".into()).await.map_err(|e| unavailable(&e))
        };
        check.await.map_err(|e| e.to_string())
    }

    fn notes(&self) -> Vec<String> {
        self.aside.notes()
    }

    async fn inspect(&self) -> Result<Vec<String>, Unfit> {
        fitness::inspect(&self.uri).await
    }
}

#[async_trait]
impl Broker for RabbitMq {
    async fn publish(&self, wake_ups: &[WakeUp]) -> Result<(), BrokerError> {
        self.publisher.publish(wake_ups).await
    }

    async fn consumer(&self) -> Result<Box<dyn Consumer>, BrokerError> {
        let (handle, end) = desk::desk();
        let channel = self.consuming(self.consuming.channel()).await?;
        let (link, names, aside) = (Arc::clone(&self.consuming), self.names.clone(), Arc::clone(&self.aside));
        let declarer = Declarer::new(Arc::clone(&link), names.clone(), Arc::clone(&aside), CALL_TIMEOUT).taking();
        tokio::spawn(consumer::run(consumer::Task::new(link, names, aside, declarer, channel), end));
        Ok(Box::new(handle))
    }

    async fn examine(&self, queues: &[QueueName]) -> Result<Lacks, BrokerError> {
        let queues = self.publisher.declarer.examine(queues).await?;
        let mut lacks = Lacks { queues, broadcasts: Vec::new() };
        let link = &self.consuming;
        if self.consuming(controls::is_there(link, &self.names)).await? {
            lacks.note(self.consuming(controls::can_say(link, &self.names, &self.aside)).await)?;
            // Its queue ends with it.
            lacks.note(self.listen().await.map(drop))?;
        }
        Ok(lacks)
    }

    fn set_aside(&self) -> Vec<SetAside> {
        self.aside.list()
    }

    async fn depth(&self, queue: &QueueName) -> Result<u64, BrokerError> {
        let name = self.names.queue(queue);
        let look = async |channel: lapin::Channel| link::look(&channel, &name).await;
        let found = bounded(self.names.with_queue(&self.publisher.link, look)).await?;
        Ok(found.map_or(0, |queue| u64::from(queue.message_count())))
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64, BrokerError> {
        let name = self.names.queue(queue);
        let purge = async |channel: lapin::Channel| {
            channel.queue_purge(name.as_str().into(), QueuePurgeOptions::default()).await
        };
        let purged = bounded(self.names.with_queue(&self.publisher.link, purge)).await?;
        Ok(purged.map_or(0, u64::from))
    }

    async fn broadcast(&self, control: &Control) -> Result<(), BrokerError> {
        let said = serde_json::to_vec(control).map_err(|e| BrokerError::Unavailable(e.to_string()))?;
        self.publisher.say(&said).await
    }

    async fn listen(&self) -> Result<Box<dyn Listener>, BrokerError> {
        let open = listener::RabbitMqListener::open(&self.consuming, &self.names, &self.aside);
        Ok(Box::new(self.consuming(open).await?))
    }
}
