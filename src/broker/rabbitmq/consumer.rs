//! The task behind a consumer: fetches what is wanted and listens at empty queues, over a channel of its own.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    StreamExt,
    future::{BoxFuture, join_all, pending},
    stream::FuturesUnordered,
};
use lapin::{
    Channel,
    message::Delivery as Message,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicQosOptions,
    },
    types::{FieldTable, ShortString},
};
use tokio::time::{Instant, sleep_until};

use super::link::{Link, Names, close, look, unavailable};
use crate::{
    base::id::{Priority, QueueName},
    broker::{
        BrokerError, Delivery, WakeUp, Want, bounded,
        desk::{Settle, TaskEnd},
        wire,
    },
};

/// A consumer that was asked for nothing for this long takes its bells down: others may want what would ring them.
const UNASKED: Duration = Duration::from_millis(100);
/// How long a bell is relied on. RabbitMQ 4.3 can delete a queue without a word to its consumers: while the server is still starting it
/// takes the queue's process for dead and forgets it ("Forcing queue deletion" in its log), and the bell stands at that process for ever.
const BELL: Duration = Duration::from_secs(10);

/// What is known of a queue.
#[derive(Default)]
struct Queue {
    /// Stands only at a queue that was found empty, and is taken down by the first message.
    bell: Option<ShortString>,
    /// How many were left at the last look.
    left: usize,
}

/// The queue and tag of a bell, and what came of it: a message, an error, or its end.
type Rung = (QueueName, ShortString, Option<lapin::Result<Message>>);

struct Task {
    link: Arc<Link>,
    names: Names,
    channel: Channel,
    queues: HashMap<QueueName, Queue>,
    bells: FuturesUnordered<BoxFuture<'static, Rung>>,
    /// What the server waits to hear of, by delivery tag.
    held: BTreeMap<u64, QueueName>,
    asked_at: Instant,
    /// Since when a bell has been standing; no later than the oldest.
    hung_at: Option<Instant>,
}

/// Serves one consumer until its handle is dropped or the channel breaks. The server gives back what it holds.
pub(super) async fn run(link: Arc<Link>, names: Names, channel: Channel, mut end: TaskEnd) {
    let mut task = Task {
        link,
        names,
        channel,
        queues: HashMap::new(),
        bells: FuturesUnordered::new(),
        held: BTreeMap::new(),
        asked_at: Instant::now(),
        hung_at: None,
    };
    let served = task.serve(&mut end).await;
    if let Err(e) = served {
        end.desk.fail(e);
        // It may be the connection that does not answer. Others on it make a new one, too.
        task.link.forget();
    }
    let closed = async {
        close(&task.channel).await;
        Ok(())
    };
    if let Err(e) = bounded(closed).await {
        tracing::debug!(error = %e, "a consumer's channel did not close");
    }
}

impl Task {
    /// Ok when the handle was dropped.
    async fn serve(&mut self, end: &mut TaskEnd) -> Result<(), BrokerError> {
        // For each bell of its own.
        let qos = async { self.channel.basic_qos(1, BasicQosOptions::default()).await.map_err(|e| unavailable(&e)) };
        bounded(qos).await?;
        loop {
            if let Some(want) = end.desk.want() {
                self.asked_at = Instant::now();
                let taken = bounded(self.take(&want)).await?;
                if !taken.is_empty() {
                    end.desk.put(taken);
                }
            }
            let unasked_at = (!self.bells.is_empty() && end.desk.want().is_none()).then(|| self.asked_at + UNASKED);
            // After the second whoever still waits has the queues looked at above, and bells hung anew.
            let down_at = unasked_at.into_iter().chain(self.hung_at.map(|at| at + BELL)).min();
            tokio::select! {
                biased;
                settle = end.settle.recv() => match settle {
                    None => return Ok(()),
                    Some(settle) => {
                        let mut all = vec![settle];
                        while let Ok(settle) = end.settle.try_recv() {
                            all.push(settle);
                        }
                        bounded(self.settle(all)).await?;
                    }
                },
                Some(rung) = self.bells.next(), if !self.bells.is_empty() => {
                    if let Some(delivery) = bounded(self.ring(rung)).await? {
                        end.desk.put(vec![delivery]);
                    }
                }
                () = end.desk.asked() => {}
                () = at(end.desk.overdue_at()) => {
                    let tags: Vec<u64> = end.desk.withdraw_overdue().iter().map(|d| d.tag).collect();
                    bounded(self.give_back(&tags)).await?;
                }
                () = at(down_at) => bounded(self.silence()).await?,
            }
        }
    }

    /// Fetches what is wanted, as far as it is there. If nothing is there, bells stand at all wanted queues afterwards.
    async fn take(&mut self, want: &Want) -> Result<Vec<Delivery>, BrokerError> {
        for (queue, _) in &want.shares {
            if !self.queues.contains_key(queue) {
                self.names.declare(&self.link, queue).await?;
                self.queues.insert(queue.clone(), Queue::default());
            }
        }
        let mut taken = Vec::new();
        // What was found empty, and whether something came from it before.
        let mut empty = BTreeMap::new();
        let fills = want.shares.iter().map(|(q, _)| (q, want.max));
        for (queue, share) in want.shares.iter().map(|(q, n)| (q, *n)).chain(fills) {
            let n = share.min(want.max.saturating_sub(taken.len()));
            let has_bell = self.queues.get(queue).is_some_and(|q| q.bell.is_some());
            let before = taken.len();
            if n > 0 && !has_bell && !empty.contains_key(queue) && self.fetch(queue, n, &mut taken).await? {
                empty.insert(queue, taken.len() > before);
            }
        }
        // A queue that gave something is likely to have more soon: it gets a bell only if there is nothing else to do.
        let waits = taken.is_empty();
        for (queue, gave) in empty {
            if waits || !gave {
                self.hang_bell(queue).await?;
            }
        }
        Ok(taken)
    }

    /// Fetches up to `n`, no more at once than there may be; answers whether the queue is empty now.
    async fn fetch(&mut self, queue: &QueueName, n: usize, taken: &mut Vec<Delivery>) -> Result<bool, BrokerError> {
        let name = self.names.queue(queue);
        let Some(known) = self.queues.get_mut(queue) else { return Ok(true) };
        let mut room = n;
        while room > 0 {
            let asked = room.min(known.left.max(1));
            let gets = (0..asked).map(|_| self.channel.basic_get(name.as_str().into(), BasicGetOptions::default()));
            let mut empty = false;
            for got in join_all(gets).await {
                match got.map_err(|e| unavailable(&e))? {
                    Some(message) => {
                        known.left = message.message_count as usize;
                        if let Some(delivery) = held(&mut self.held, queue, &message.delivery) {
                            taken.push(delivery);
                        }
                    }
                    None => empty = true,
                }
            }
            if empty || known.left == 0 {
                known.left = 0;
                return Ok(true);
            }
            room -= asked;
        }
        Ok(false)
    }

    async fn hang_bell(&mut self, queue: &QueueName) -> Result<(), BrokerError> {
        let (name, options) = (self.names.queue(queue), BasicConsumeOptions::default());
        let consume = self.channel.basic_consume(name.as_str().into(), "".into(), options, FieldTable::default());
        let mut consumer = consume.await.map_err(|e| unavailable(&e))?;
        let tag = consumer.tag();
        if let Some(known) = self.queues.get_mut(queue) {
            known.bell = Some(tag.clone());
        }
        self.hung_at.get_or_insert_with(Instant::now);
        let queue = queue.clone();
        self.bells.push(Box::pin(async move {
            let rung = consumer.next().await;
            (queue, tag, rung)
        }));
        Ok(())
    }

    /// Takes the bell down that rang, and answers with what rang it.
    async fn ring(&mut self, (queue, tag, rung): Rung) -> Result<Option<Delivery>, BrokerError> {
        let known = self.queues.get_mut(&queue);
        let stands = known.as_ref().is_some_and(|k| k.bell.as_ref() == Some(&tag));
        if let Some(known) = known.filter(|_| stands) {
            known.bell = None;
        }
        match rung {
            Some(Ok(message)) => {
                if stands {
                    // Before the message is acknowledged, which would let the next one come.
                    let cancel = self.channel.basic_cancel(tag, BasicCancelOptions { nowait: true });
                    cancel.await.map_err(|e| unavailable(&e))?;
                }
                Ok(held(&mut self.held, &queue, &message))
            }
            Some(Err(e)) => Err(unavailable(&e)),
            None if stands => {
                let name = self.names.queue(&queue);
                Err(BrokerError::Unavailable(format!(
                    "rabbitmq: the queue `{name}` was deleted, or moved to another node"
                )))
            }
            None => Ok(None),
        }
    }

    /// Takes all bells down. One that rang in the meantime is heard of later.
    async fn silence(&mut self) -> Result<(), BrokerError> {
        self.hung_at = None;
        for known in self.queues.values_mut() {
            if let Some(tag) = known.bell.take() {
                self.channel.basic_cancel(tag, BasicCancelOptions::default()).await.map_err(|e| unavailable(&e))?;
            }
        }
        Ok(())
    }

    async fn settle(&mut self, all: Vec<Settle>) -> Result<(), BrokerError> {
        let mut acked = BTreeSet::new();
        for settle in all {
            match settle {
                Settle::Ack(tags) => acked.extend(tags),
                Settle::GiveBack(tags, done) => {
                    self.ack(std::mem::take(&mut acked)).await?;
                    let back = self.give_back(&tags).await;
                    let failed = back.clone();
                    // Whoever asked may have gone.
                    done.send(back).unwrap_or_default();
                    failed?;
                }
            }
        }
        self.ack(acked).await
    }

    /// Acknowledges with one frame as far as nothing older is unsettled, and the rest one by one.
    async fn ack(&mut self, mut tags: BTreeSet<u64>) -> Result<(), BrokerError> {
        let mut up_to = None;
        while let Some(first) = self.held.first_entry().filter(|first| tags.contains(first.key())) {
            up_to = Some(first.remove_entry().0);
        }
        tags.retain(|tag| self.held.remove(tag).is_some());
        let multiple = up_to.map(|tag| (tag, BasicAckOptions { multiple: true }));
        let single = tags.into_iter().map(|tag| (tag, BasicAckOptions::default()));
        let acks = multiple.into_iter().chain(single).map(|(tag, options)| self.channel.basic_ack(tag, options));
        for acked in join_all(acks).await {
            acked.map_err(|e| unavailable(&e))?;
        }
        Ok(())
    }

    /// Answers when they are back in their queues.
    async fn give_back(&mut self, tags: &[u64]) -> Result<(), BrokerError> {
        let mut queues = BTreeSet::new();
        let back: Vec<u64> = tags
            .iter()
            .copied()
            .filter(|tag| match self.held.remove(tag) {
                Some(queue) => {
                    queues.insert(queue);
                    true
                }
                None => false,
            })
            .collect();
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        for nacked in join_all(back.into_iter().map(|tag| self.channel.basic_nack(tag, options))).await {
            nacked.map_err(|e| unavailable(&e))?;
        }
        // Nobody answers a `nack`. This answer comes when it lies before the queue, so no later `get` misses them. The count may be of
        // before: a queue serves those who ask for it first (`prioritise_call` in RabbitMQ's `rabbit_amqqueue_process`).
        for queue in queues {
            let seen = look(&self.channel, &self.names.queue(&queue)).await.map_err(|e| unavailable(&e))?;
            if let Some(known) = self.queues.get_mut(&queue) {
                known.left = seen.message_count() as usize;
            }
        }
        Ok(())
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => pending().await,
    }
}

/// Notes a message as held, or none if this version cannot read it: it is never settled, and comes again elsewhere.
fn held(all: &mut BTreeMap<u64, QueueName>, queue: &QueueName, message: &Message) -> Option<Delivery> {
    let Some(job) = wire::decode(&message.data) else {
        tracing::warn!(queue = %queue, "a message that is no wake-up that this version knows lies in the queue");
        return None;
    };
    let priority = message.properties.priority().unwrap_or(Priority::MEDIUM.get());
    let priority = Priority::new(i64::from(priority)).unwrap_or(Priority::MEDIUM);
    all.insert(message.delivery_tag, queue.clone());
    Some(Delivery { wake_up: WakeUp { job, queue: queue.clone(), priority }, tag: message.delivery_tag })
}
