//! Publishes with pipelined confirms, on a connection of its own: a memory alarm blocks publishing, not consuming.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use lapin::{
    BasicProperties, Channel, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::sync::{Mutex, Semaphore};

use super::{
    controls::Controls,
    declare::Declarer,
    link::{Link, Names, unavailable},
};
use crate::{
    base::id::QueueName,
    broker::{
        BrokerError, CALL_TIMEOUT, SetAside, WakeUp,
        aside::{Aside, Step},
        wire,
    },
};

/// Most publishes that wait for their confirms at once, and most in one go.
const IN_FLIGHT: u32 = 1000;
const CHUNK: usize = 500;
const PERSISTENT: u8 = 2;
/// Longest wait for one queue that is declared before it is published to: much shorter than `CALL_TIMEOUT`, so that the
/// wake-ups of other queues are still published in time.
const PATIENCE: Duration = Duration::from_secs(2);

/// A channel that confirms, and what was declared since it was opened.
struct Confirming {
    channel: Channel,
    declared: std::sync::Mutex<HashSet<QueueName>>,
}

pub(super) struct Publisher {
    pub(super) link: Arc<Link>,
    names: Names,
    aside: Arc<Aside>,
    pub(super) declarer: Declarer,
    controls: Controls,
    confirming: Mutex<Option<Arc<Confirming>>>,
    room: Semaphore,
}

/// Why a publish failed, as far as it matters for trying again.
enum Failure {
    /// The channel is of no more use.
    Broken(BrokerError),
    Other(BrokerError),
}

impl Confirming {
    fn knows(&self, queue: &QueueName) -> bool {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner).contains(queue)
    }

    fn note(&self, queue: &QueueName, exists: bool) {
        let mut declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        if exists {
            declared.insert(queue.clone());
        } else {
            declared.remove(queue);
        }
    }
}

impl Publisher {
    pub(super) fn new(link: Link, names: Names, aside: Arc<Aside>) -> Self {
        let link = Arc::new(link);
        let declarer = Declarer::new(Arc::clone(&link), names.clone(), Arc::clone(&aside), PATIENCE);
        let room = Semaphore::new(IN_FLIGHT as usize);
        Self { link, names, aside, declarer, controls: Controls::default(), confirming: Mutex::default(), room }
    }

    /// Returns when everything is confirmed, or all but what belongs to queues that the server refuses.
    pub(super) async fn publish(&self, wake_ups: &[WakeUp]) -> Result<(), BrokerError> {
        let publish = async {
            let mut refused = Vec::new();
            for some in wake_ups.chunks(CHUNK) {
                refused.extend(self.twice(some).await?);
            }
            refused.dedup_by(|a, b| a.queue == b.queue);
            if refused.is_empty() { Ok(()) } else { Err(BrokerError::Refused(refused)) }
        };
        self.bounded(publish).await
    }

    /// Tells every listener.
    pub(super) async fn say(&self, said: &[u8]) -> Result<(), BrokerError> {
        self.bounded(self.controls.say(&self.link, &self.names, &self.aside, said)).await
    }

    async fn bounded(&self, publish: impl Future<Output = Result<(), BrokerError>> + Send) -> Result<(), BrokerError> {
        let published = tokio::time::timeout(CALL_TIMEOUT, publish).await;
        if !matches!(published, Ok(Ok(()) | Err(BrokerError::Refused(_)))) && self.link.is_blocked() {
            let why = "RabbitMQ takes no messages for now: it is short of memory or disk space";
            return Err(BrokerError::Unavailable(why.to_owned()));
        }
        if let Ok(published) = published {
            return published;
        }
        // Confirms are open that may never come.
        if let Ok(mut confirming) = self.confirming.try_lock() {
            *confirming = None;
        }
        self.controls.forget();
        self.link.forget();
        Err(BrokerError::Unavailable(format!("rabbitmq: no confirm within {} s", CALL_TIMEOUT.as_secs())))
    }

    /// Tries on a new channel what failed on a broken one: the server may have been restarted since the last call. So a
    /// wake-up may be published twice, which is allowed. Returns the queues that are refused.
    async fn twice(&self, wake_ups: &[WakeUp]) -> Result<Vec<SetAside>, BrokerError> {
        let mut again = true;
        loop {
            let c = self.confirming().await?;
            match self.wake_ups(&c, wake_ups).await {
                Ok(refused) => return Ok(refused),
                Err(Failure::Other(e)) => return Err(e),
                Err(Failure::Broken(e)) => {
                    let mut confirming = self.confirming.lock().await;
                    if confirming.as_ref().is_some_and(|now| Arc::ptr_eq(now, &c)) {
                        *confirming = None;
                    }
                    if !std::mem::take(&mut again) {
                        return Err(e);
                    }
                }
            }
        }
    }

    async fn confirming(&self) -> Result<Arc<Confirming>, BrokerError> {
        let mut confirming = self.confirming.lock().await;
        if let Some(c) = confirming.as_ref().filter(|c| c.channel.status().connected()) {
            return Ok(Arc::clone(c));
        }
        *confirming = None;
        let channel = self.link.channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(|e| unavailable(&e))?;
        let new = Arc::new(Confirming { channel, declared: std::sync::Mutex::default() });
        *confirming = Some(Arc::clone(&new));
        Ok(new)
    }

    async fn wake_ups(&self, c: &Confirming, wake_ups: &[WakeUp]) -> Result<Vec<SetAside>, Failure> {
        let n = u32::try_from(wake_ups.len()).unwrap_or(IN_FLIGHT).min(IN_FLIGHT);
        let closed = |_| Failure::Other(BrokerError::Unavailable("the broker is closed".into()));
        let _room = self.room.acquire_many(n).await.map_err(closed)?;
        let mut refused = Vec::new();
        let all: Vec<&WakeUp> = wake_ups.iter().collect();
        let returned = self.send(c, all, &mut refused).await?;
        if returned.is_empty() {
            return Ok(refused);
        }
        // Their queues were deleted since they were declared.
        for w in &returned {
            c.note(&w.queue, false);
        }
        for w in self.send(c, returned, &mut refused).await? {
            if !refused.iter().any(|r| r.queue == w.queue) {
                let why = format!("RabbitMQ returns messages to its queue `{}`", self.names.queue(&w.queue));
                refused.push(self.aside.refuse(&w.queue, Step::Have, why));
            }
        }
        Ok(refused)
    }

    /// Leaves only wake-ups whose queues are there; the others go to `refused`.
    async fn sort_out(
        &self,
        c: &Confirming,
        wake_ups: &mut Vec<&WakeUp>,
        refused: &mut Vec<SetAside>,
    ) -> Result<(), Failure> {
        let mut unknown: Vec<QueueName> = Vec::new();
        for w in wake_ups.iter() {
            if !c.knows(&w.queue) && !unknown.contains(&w.queue) {
                unknown.push(w.queue.clone());
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let barred = |q: &QueueName| self.aside.step(q) == Some(Step::Have) && self.aside.waits(q).is_some();
        let tried = unknown.iter().filter(|q| !barred(q)).cloned().collect();
        for queue in self.declarer.have(tried).await.map_err(Failure::Other)? {
            c.note(&queue, true);
        }
        unknown.retain(|q| !c.knows(q));
        wake_ups.retain(|w| !unknown.contains(&w.queue));
        refused.extend(unknown.iter().filter_map(|q| self.aside.why(q)));
        Ok(())
    }

    /// Returns what was returned because its queue is not there.
    async fn send<'a>(
        &self,
        c: &Confirming,
        mut wake_ups: Vec<&'a WakeUp>,
        refused: &mut Vec<SetAside>,
    ) -> Result<Vec<&'a WakeUp>, Failure> {
        self.sort_out(c, &mut wake_ups, refused).await?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let bodies: Vec<_> = wake_ups.iter().map(|w| wire::encode(w.job)).collect();
        let sent = wake_ups.iter().zip(&bodies).map(|(w, body)| {
            let properties = BasicProperties::default().with_delivery_mode(PERSISTENT).with_priority(w.priority.get());
            let name = self.names.queue(&w.queue);
            c.channel.basic_publish("".into(), name.as_str().into(), options, body, properties)
        });
        let mut returned = Vec::new();
        // All are on their way before the first confirm is awaited.
        for (w, confirm) in wake_ups.iter().zip(join_all(sent).await) {
            match confirm.map_err(|e| broken(&e))?.await.map_err(|e| broken(&e))? {
                Confirmation::Ack(None) | Confirmation::NotRequested => {}
                Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => returned.push(*w),
                Confirmation::Nack(None) if refused.iter().any(|r| r.queue == w.queue) => {}
                Confirmation::Nack(None) => {
                    let why = format!(
                        "RabbitMQ takes no messages for the queue `{}`: it is full by its own limits or a policy's \
                         (`max-length` with `reject-publish`), or a quorum queue lacks most of its nodes",
                        self.names.queue(&w.queue)
                    );
                    refused.push(self.aside.refuse(&w.queue, Step::Fill, why));
                }
            }
        }
        Ok(returned)
    }
}

fn broken(e: &lapin::Error) -> Failure {
    Failure::Broken(unavailable(e))
}
