//! What a consumer has taken and the server waits to hear of.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use lapin::{
    Channel,
    message::Delivery as Message,
    options::{BasicAckOptions, BasicNackOptions},
};

use super::link::{Names, look, unavailable};
use crate::{
    base::id::{Priority, QueueName},
    broker::{BrokerError, Delivery, WakeUp, wire},
};

/// By delivery tag.
#[derive(Default)]
pub(super) struct Held(BTreeMap<u64, QueueName>);

impl Held {
    /// Notes a message as held; none if this version cannot read it: it is never settled, and comes again elsewhere.
    pub(super) fn note(&mut self, queue: &QueueName, message: &Message) -> Option<Delivery> {
        let Some(job) = wire::decode(&message.data) else {
            tracing::warn!(queue = %queue, "a message that is no wake-up that this version knows lies in the queue");
            return None;
        };
        let priority = message.properties.priority().unwrap_or(Priority::MEDIUM.get());
        let priority = Priority::new(i64::from(priority)).unwrap_or(Priority::MEDIUM);
        self.0.insert(message.delivery_tag, queue.clone());
        Some(Delivery { wake_up: WakeUp { job, queue: queue.clone(), priority }, tag: message.delivery_tag })
    }

    /// Acknowledges with one frame as far as nothing older is unsettled, and the rest one by one.
    pub(super) async fn ack(&mut self, channel: &Channel, mut tags: BTreeSet<u64>) -> Result<(), BrokerError> {
        let mut up_to = None;
        while let Some(first) = self.0.first_entry().filter(|first| tags.contains(first.key())) {
            up_to = Some(first.remove_entry().0);
        }
        tags.retain(|tag| self.0.remove(tag).is_some());
        let multiple = up_to.map(|tag| (tag, BasicAckOptions { multiple: true }));
        let single = tags.into_iter().map(|tag| (tag, BasicAckOptions::default()));
        let acks = multiple.into_iter().chain(single).map(|(tag, options)| channel.basic_ack(tag, options));
        for acked in join_all(acks).await {
            acked.map_err(|e| unavailable(&e))?;
        }
        Ok(())
    }

    /// Returns when they are back in their queues, with how many messages each of these may hold now.
    pub(super) async fn give_back(
        &mut self,
        channel: &Channel,
        names: &Names,
        tags: &[u64],
    ) -> Result<Vec<(QueueName, usize)>, BrokerError> {
        let back: Vec<(u64, QueueName)> = tags.iter().filter_map(|tag| Some((*tag, self.0.remove(tag)?))).collect();
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        for nacked in join_all(back.iter().map(|(tag, _)| channel.basic_nack(*tag, options))).await {
            nacked.map_err(|e| unavailable(&e))?;
        }
        // Nobody answers a `nack`. This answer comes when it lies before the queue, so no later `get` misses them. The count may be of
        // before: a queue serves those who ask for it first (`prioritise_call` in RabbitMQ's `rabbit_amqqueue_process`).
        let queues: BTreeSet<QueueName> = back.into_iter().map(|(_, queue)| queue).collect();
        let mut left = Vec::new();
        for queue in queues {
            let seen = look(channel, &names.queue(&queue)).await.map_err(|e| unavailable(&e))?;
            left.push((queue, seen.message_count() as usize));
        }
        Ok(left)
    }
}
