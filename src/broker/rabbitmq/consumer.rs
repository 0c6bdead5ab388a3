//! The task behind a consumer: fetches what is wanted and listens at empty queues, over a channel of its own.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    StreamExt,
    future::{BoxFuture, join_all, pending, ready},
    stream::FuturesUnordered,
};
use lapin::{
    Channel,
    message::Delivery as Message,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
};
use tokio::time::{Instant, sleep_until};

use super::{
    declare::Declarer,
    held::Held,
    link::{Link, Names, close, unavailable},
};
use crate::{
    base::id::QueueName,
    broker::{
        BrokerError, Delivery, Want,
        aside::Aside,
        bounded,
        desk::{Settle, TaskEnd},
    },
};

mod take;

/// A consumer that was asked for nothing for this long takes its bells down: others may want what would ring them.
const UNASKED: Duration = Duration::from_millis(100);
/// How long a bell is relied on. RabbitMQ 4.3 can delete a queue without a word to its consumers: while the server is still starting it
/// takes the queue's process for dead and forgets it ("Forcing queue deletion" in its log), and the bell stands at that process for ever.
const BELL: Duration = Duration::from_secs(10);
/// Most queues that are begun to be declared at once.
const AT_ONCE: usize = 1000;
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

/// Queues that are being declared; then those that are there.
type Declaring = BoxFuture<'static, Result<Vec<QueueName>, BrokerError>>;

pub(super) struct Task {
    link: Arc<Link>,
    names: Names,
    aside: Arc<Aside>,
    declarer: Declarer,
    channel: Channel,
    /// Those that are there.
    queues: HashMap<QueueName, Queue>,
    /// At most one at a time, beside everything else: a worker must not wait for all of its queues to begin with one.
    declaring: Option<Declaring>,
    bells: FuturesUnordered<BoxFuture<'static, Rung>>,
    held: Held,
    /// The last take left a queue before it was empty or what is wanted was there.
    unread: bool,
    asked_at: Instant,
    /// Since when a bell has been standing; no later than the oldest.
    hung_at: Option<Instant>,
}

/// Serves one consumer until its handle is dropped or the channel breaks. The server gives back what it holds.
pub(super) async fn run(mut task: Task, mut end: TaskEnd) {
    let served = task.serve(&mut end).await;
    if let Err(e) = served {
        let refused = matches!(e, BrokerError::Refused(_));
        end.desk.fail(e);
        if !refused {
            // It may be the connection that does not answer. Others on it make a new one, too.
            task.link.forget();
        }
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
    pub(super) fn new(link: Arc<Link>, names: Names, aside: Arc<Aside>, declarer: Declarer, channel: Channel) -> Self {
        Self {
            link,
            names,
            aside,
            declarer,
            channel,
            queues: HashMap::new(),
            declaring: None,
            bells: FuturesUnordered::new(),
            held: Held::default(),
            unread: false,
            asked_at: Instant::now(),
            hung_at: None,
        }
    }

    /// Ok when the handle was dropped.
    async fn serve(&mut self, end: &mut TaskEnd) -> Result<(), BrokerError> {
        // For each bell of its own.
        let qos = async { self.channel.basic_qos(1, BasicQosOptions::default()).await.map_err(|e| unavailable(&e)) };
        bounded(qos).await?;
        loop {
            let (mut retry_at, mut again) = (None, false);
            if let Some(want) = end.desk.want() {
                self.asked_at = Instant::now();
                retry_at = self.declare(&want);
                let taken = bounded(self.take(&want)).await?;
                again = self.unread && taken.is_empty();
                if !taken.is_empty() {
                    end.desk.put(taken);
                }
            }
            self.held.tell();
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
                had = declared(&mut self.declaring) => {
                    self.declaring = None;
                    self.queues.extend(had?.into_iter().map(|queue| (queue, Queue::default())));
                }
                () = end.desk.asked() => {}
                () = at(retry_at) => {}
                () = at(end.desk.overdue_at()) => {
                    let tags: Vec<u64> = end.desk.withdraw_overdue().iter().map(|d| d.tag).collect();
                    bounded(self.give_back(&tags)).await?;
                }
                () = at(down_at) => bounded(self.silence()).await?,
                () = ready(()), if again => {}
            }
        }
    }

    /// Begins to declare wanted queues that are not there yet. Returns when one that is set aside may be tried again.
    fn declare(&mut self, want: &Want) -> Option<Instant> {
        if self.declaring.is_some() {
            return None;
        }
        let missing = want.shares.iter().map(|(q, _)| q).filter(|q| !self.queues.contains_key(*q));
        let (mut now, mut later) = (Vec::new(), None::<Instant>);
        for queue in missing {
            match self.aside.waits(queue) {
                None if now.len() < AT_ONCE => now.push(queue.clone()),
                None => {}
                Some(at) => later = Some(later.map_or(at, |l| l.min(at))),
            }
        }
        if now.is_empty() {
            return later;
        }
        let declarer = self.declarer.clone();
        self.declaring = Some(Box::pin(async move { declarer.have(now).await }));
        None
    }

    /// Hangs bells at these queues, at all of them together.
    async fn hang_bells(&mut self, queues: Vec<QueueName>) -> Result<(), BrokerError> {
        let names: Vec<String> = queues.iter().map(|q| self.names.queue(q)).collect();
        let consumes = names.iter().map(|name| {
            let options = BasicConsumeOptions::default();
            self.channel.basic_consume(name.as_str().into(), "".into(), options, FieldTable::default())
        });
        let hung = join_all(consumes).await;
        for (queue, consumer) in queues.iter().zip(hung) {
            let mut consumer = match consumer {
                Ok(consumer) => consumer,
                Err(e) => {
                    // All that were still to be answered fail with it; the server says which one it refused.
                    let said = e.to_string();
                    let named = queues.iter().zip(&names).find(|(_, name)| said.contains(&format!("'{name}'")));
                    return Err(self.failed(named.map_or(queue, |(queue, _)| queue), &e));
                }
            };
            let (queue, tag) = (queue.clone(), consumer.tag());
            if let Some(known) = self.queues.get_mut(&queue) {
                known.bell = Some(tag.clone());
            }
            self.hung_at.get_or_insert_with(Instant::now);
            self.bells.push(Box::pin(async move {
                let rung = consumer.next().await;
                (queue, tag, rung)
            }));
        }
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
                Ok(self.held.note(&queue, &message))
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
        let tags = self.queues.values_mut().filter_map(|known| known.bell.take());
        let cancels = tags.map(|tag| self.channel.basic_cancel(tag, BasicCancelOptions::default()));
        for cancelled in join_all(cancels).await {
            cancelled.map_err(|e| unavailable(&e))?;
        }
        Ok(())
    }

    async fn settle(&mut self, all: Vec<Settle>) -> Result<(), BrokerError> {
        let mut acked = BTreeSet::new();
        for settle in all {
            match settle {
                Settle::Ack(tags) => acked.extend(tags),
                Settle::GiveBack(tags, done) => {
                    self.held.ack(&self.channel, std::mem::take(&mut acked)).await?;
                    let back = self.give_back(&tags).await;
                    let failed = back.clone();
                    // Whoever asked may have gone.
                    done.send(back).unwrap_or_default();
                    failed?;
                }
            }
        }
        self.held.ack(&self.channel, acked).await
    }

    /// Returns when they are back in their queues.
    async fn give_back(&mut self, tags: &[u64]) -> Result<(), BrokerError> {
        for (queue, left) in self.held.give_back(&self.channel, &self.names, tags).await? {
            if let Some(known) = self.queues.get_mut(&queue) {
                known.left = left;
            }
        }
        Ok(())
    }
}

/// What came of the declaring that is under way; never, if none is.
async fn declared(declaring: &mut Option<Declaring>) -> Result<Vec<QueueName>, BrokerError> {
    match declaring {
        Some(declaring) => declaring.await,
        None => pending().await,
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => pending().await,
    }
}
