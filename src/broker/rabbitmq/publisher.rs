//! Publishes with pipelined confirms, on a connection of its own: a memory alarm blocks publishing, not consuming.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
};

use futures_util::future::join_all;
use lapin::{
    BasicProperties, Channel, Confirmation, ExchangeKind,
    options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions},
    types::FieldTable,
};
use tokio::sync::{Mutex, Semaphore};

use super::link::{Link, Names, unavailable};
use crate::{
    base::id::QueueName,
    broker::{BrokerError, CALL_TIMEOUT, WakeUp, wire},
};

/// Most publishes that wait for their confirms at once, and most in one go.
const IN_FLIGHT: u32 = 1000;
const CHUNK: usize = 500;
const PERSISTENT: u8 = 2;

/// A channel that confirms, and what was declared since it was opened.
struct Confirming {
    channel: Channel,
    declared: std::sync::Mutex<HashSet<QueueName>>,
}

pub(super) struct Publisher {
    pub(super) link: Link,
    names: Names,
    confirming: Mutex<Option<Arc<Confirming>>>,
    room: Semaphore,
}

/// What is published.
pub(super) enum Said<'a> {
    WakeUps(&'a [WakeUp]),
    Control(&'a [u8]),
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
    pub(super) fn new(link: Link, names: Names) -> Self {
        Self { link, names, confirming: Mutex::default(), room: Semaphore::new(IN_FLIGHT as usize) }
    }

    /// Answers when everything is confirmed.
    pub(super) async fn publish(&self, said: Said<'_>) -> Result<(), BrokerError> {
        let publish = async {
            match said {
                Said::WakeUps(wake_ups) => {
                    for some in wake_ups.chunks(CHUNK) {
                        self.twice(&Said::WakeUps(some)).await?;
                    }
                    Ok(())
                }
                Said::Control(_) => self.twice(&said).await,
            }
        };
        let published = tokio::time::timeout(CALL_TIMEOUT, publish).await;
        if !matches!(published, Ok(Ok(()))) && self.link.is_blocked() {
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
        self.link.forget();
        Err(BrokerError::Unavailable(format!("rabbitmq: no confirm within {} s", CALL_TIMEOUT.as_secs())))
    }

    /// Tries on a new channel what failed on a broken one: the server may have been restarted since the last call. So a
    /// wake-up may be published twice, which is allowed.
    async fn twice(&self, said: &Said<'_>) -> Result<(), BrokerError> {
        let mut again = true;
        loop {
            let c = self.confirming().await?;
            let published = match said {
                Said::WakeUps(wake_ups) => self.wake_ups(&c, wake_ups).await,
                Said::Control(said) => self.control(&c, said).await,
            };
            match published {
                Ok(()) => return Ok(()),
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

    /// Publishes to every listener's queue; that nobody listens is no failure.
    async fn control(&self, c: &Confirming, said: &[u8]) -> Result<(), Failure> {
        let (exchange, options) = (self.names.control(), BasicPublishOptions::default());
        let properties = BasicProperties::default();
        let sent = c.channel.basic_publish(exchange.as_str().into(), "".into(), options, said, properties);
        sent.await.map_err(|e| broken(&e))?.await.map_err(|e| broken(&e))?;
        Ok(())
    }

    async fn confirming(&self) -> Result<Arc<Confirming>, BrokerError> {
        let mut confirming = self.confirming.lock().await;
        if let Some(c) = confirming.as_ref().filter(|c| c.channel.status().connected()) {
            return Ok(Arc::clone(c));
        }
        *confirming = None;
        let channel = self.link.channel().await?;
        let prepare = async {
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            declare_control(&channel, &self.names).await
        };
        prepare.await.map_err(|e| unavailable(&e))?;
        let new = Arc::new(Confirming { channel, declared: std::sync::Mutex::default() });
        *confirming = Some(Arc::clone(&new));
        Ok(new)
    }

    async fn wake_ups(&self, c: &Confirming, wake_ups: &[WakeUp]) -> Result<(), Failure> {
        let n = u32::try_from(wake_ups.len()).unwrap_or(IN_FLIGHT).min(IN_FLIGHT);
        let closed = |_| Failure::Other(BrokerError::Unavailable("the broker is closed".into()));
        let _room = self.room.acquire_many(n).await.map_err(closed)?;
        let all: Vec<&WakeUp> = wake_ups.iter().collect();
        let returned = self.send(c, &all).await?;
        if returned.is_empty() {
            return Ok(());
        }
        // Their queues were deleted since they were declared.
        for w in &returned {
            c.note(&w.queue, false);
        }
        match self.send(c, &returned).await?.first() {
            None => Ok(()),
            Some(w) => {
                let name = self.names.queue(&w.queue);
                Err(Failure::Other(BrokerError::Unavailable(format!(
                    "RabbitMQ returns messages to its queue `{name}`"
                ))))
            }
        }
    }

    /// Answers with what was returned because its queue is not there.
    async fn send<'a>(&self, c: &Confirming, wake_ups: &[&'a WakeUp]) -> Result<Vec<&'a WakeUp>, Failure> {
        for w in wake_ups {
            if !c.knows(&w.queue) {
                self.names.declare(&self.link, &w.queue).await.map_err(Failure::Other)?;
                c.note(&w.queue, true);
            }
        }
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
                Confirmation::Nack(None) => {
                    return Err(Failure::Other(BrokerError::Unavailable("RabbitMQ did not take a message".into())));
                }
            }
        }
        Ok(returned)
    }
}

fn broken(e: &lapin::Error) -> Failure {
    Failure::Broken(unavailable(e))
}

/// Makes sure that the exchange of broadcasts exists.
pub(super) async fn declare_control(channel: &Channel, names: &Names) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel
        .exchange_declare(names.control().as_str().into(), ExchangeKind::Fanout, options, FieldTable::default())
        .await
}
