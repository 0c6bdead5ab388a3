//! What a consumer has taken and the server waits to hear of.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Instant,
};

use futures_util::future::join_all;
use lapin::{
    Channel,
    message::Delivery as Message,
    options::{BasicAckOptions, BasicNackOptions},
};

use super::link::{Names, look, unavailable};
use crate::{
    base::{
        id::{Priority, QueueName},
        seldom::Seldom,
    },
    broker::{BrokerError, Delivery, WakeUp, wire},
};

/// Wake-ups, and messages that are none: these are never settled, and come again elsewhere.
#[derive(Default)]
pub(super) struct Held {
    /// Queues of wake-ups, by delivery tag.
    ours: BTreeMap<u64, QueueName>,
    /// The tag of the first message that is no wake-up. What is older than one that is acknowledged
    /// "with all before it" would be lost.
    foreign_from: Option<u64>,
    foreign: HashMap<QueueName, Foreign>,
}

/// Messages of one queue that are no wake-ups.
#[derive(Default)]
struct Foreign {
    messages: u64,
    told: u64,
    news: Seldom,
}

impl Foreign {
    /// How many to tell of now, if there is anything new and it was not told just now.
    fn due(&mut self, now: Instant) -> Option<u64> {
        if self.messages == self.told || !self.news.is_due(now) {
            return None;
        }
        self.told = self.messages;
        Some(self.messages)
    }
}

impl Held {
    /// Notes a message as held; none if it is no wake-up that this version can read.
    pub(super) fn note(&mut self, queue: &QueueName, message: &Message) -> Option<Delivery> {
        let Some(job) = wire::decode(&message.data) else {
            self.foreign_from =
                Some(self.foreign_from.map_or(message.delivery_tag, |tag| tag.min(message.delivery_tag)));
            self.foreign.entry(queue.clone()).or_default().messages += 1;
            return None;
        };
        let priority = message.properties.priority().unwrap_or(Priority::MEDIUM.get());
        let priority = Priority::new(i64::from(priority)).unwrap_or(Priority::MEDIUM);
        self.ours.insert(message.delivery_tag, queue.clone());
        Some(Delivery { wake_up: WakeUp { job, queue: queue.clone(), priority }, tag: message.delivery_tag })
    }

    /// Warns of messages that are no wake-ups, once in a while and not of each.
    pub(super) fn tell(&mut self) {
        for (queue, foreign) in &mut self.foreign {
            if let Some(messages) = foreign.due(Instant::now()) {
                tracing::warn!(queue = %queue, messages, "messages that are no wake-ups that this version knows lie in the queue");
            }
        }
    }

    /// Acknowledges with one frame as far as nothing older is unsettled, and the rest one by one.
    pub(super) async fn ack(&mut self, channel: &Channel, mut tags: BTreeSet<u64>) -> Result<(), BrokerError> {
        let (mut up_to, end) = (None, self.foreign_from.unwrap_or(u64::MAX));
        let settled = |tag: &u64| *tag < end && tags.contains(tag);
        while let Some(first) = self.ours.first_entry().filter(|first| settled(first.key())) {
            up_to = Some(first.remove_entry().0);
        }
        tags.retain(|tag| self.ours.remove(tag).is_some());
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
        let back: Vec<(u64, QueueName)> = tags.iter().filter_map(|tag| Some((*tag, self.ours.remove(tag)?))).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_foreign_messages_are_one_warning_in_a_while() {
        let (mut foreign, now) = (Foreign::default(), Instant::now());
        assert_eq!(foreign.due(now), None);
        foreign.messages = 80;
        assert_eq!(foreign.due(now), Some(80));
        foreign.messages = 5_000;
        assert_eq!(foreign.due(now), None);
        assert_eq!(foreign.due(now + crate::base::seldom::PAUSE), Some(5_000));
        assert_eq!(foreign.due(now + 2 * crate::base::seldom::PAUSE), None);
    }
}
