//! Counts wake-ups for every broker alike: a broker around a broker.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Broker, BrokerError, Consumer, Control, Delivery, Lacks, Listener, SetAside, WakeUp, Want};
use crate::{
    base::{
        id::QueueName,
        probe::{Probe, Unfit},
    },
    telemetry::metrics as names,
};

/// The port again, with its traffic counted.
pub(super) struct Counted(Arc<dyn Broker>);

impl Counted {
    pub(super) fn new(broker: Arc<dyn Broker>) -> Self {
        Self(broker)
    }
}

/// Adds what has gone by to each queue's counter; what belongs together mostly comes together.
fn count<'a>(counter: &'static str, queues: impl Iterator<Item = &'a QueueName>) {
    let mut run: Option<(&QueueName, u64)> = None;
    let add = |run: Option<(&QueueName, u64)>| {
        if let Some((queue, n)) = run {
            metrics::counter!(counter, "queue" => queue.to_string()).increment(n);
        }
    };
    for queue in queues {
        match &mut run {
            Some((of, n)) if *of == queue => *n += 1,
            _ => add(run.replace((queue, 1))),
        }
    }
    add(run);
}

#[async_trait]
impl Probe for Counted {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    async fn check(&self) -> Result<(), String> {
        self.0.check().await
    }

    fn notes(&self) -> Vec<String> {
        self.0.notes()
    }

    async fn inspect(&self) -> Result<Vec<String>, Unfit> {
        self.0.inspect().await
    }
}

#[async_trait]
impl Broker for Counted {
    async fn publish(&self, wake_ups: &[WakeUp]) -> Result<(), BrokerError> {
        let published = self.0.publish(wake_ups).await;
        match &published {
            Ok(()) => count(names::BROKER_PUBLISHED, wake_ups.iter().map(|w| &w.queue)),
            Err(BrokerError::Refused(refused)) => {
                let taken = |w: &&WakeUp| !refused.iter().any(|r| r.queue == w.queue);
                count(names::BROKER_PUBLISHED, wake_ups.iter().filter(taken).map(|w| &w.queue));
            }
            Err(_) => {}
        }
        published
    }

    async fn consumer(&self) -> Result<Box<dyn Consumer>, BrokerError> {
        Ok(Box::new(CountedConsumer(self.0.consumer().await?)))
    }

    async fn examine(&self, queues: &[QueueName]) -> Result<Lacks, BrokerError> {
        self.0.examine(queues).await
    }

    fn set_aside(&self) -> Vec<SetAside> {
        self.0.set_aside()
    }

    async fn depth(&self, queue: &QueueName) -> Result<u64, BrokerError> {
        self.0.depth(queue).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64, BrokerError> {
        self.0.purge(queue).await
    }

    async fn broadcast(&self, control: &Control) -> Result<(), BrokerError> {
        self.0.broadcast(control).await
    }

    async fn listen(&self) -> Result<Box<dyn Listener>, BrokerError> {
        self.0.listen().await
    }
}

struct CountedConsumer(Box<dyn Consumer>);

#[async_trait]
impl Consumer for CountedConsumer {
    async fn next(&mut self, want: &Want) -> Result<Vec<Delivery>, BrokerError> {
        let taken = self.0.next(want).await?;
        count(names::BROKER_CONSUMED, taken.iter().map(|d| &d.wake_up.queue));
        Ok(taken)
    }

    async fn ack(&mut self, tags: &[u64]) -> Result<(), BrokerError> {
        self.0.ack(tags).await
    }

    async fn give_back(&mut self, tags: &[u64]) -> Result<(), BrokerError> {
        self.0.give_back(tags).await
    }
}
