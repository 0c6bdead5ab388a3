//! Makes sure that queues are there, many of them side by side, and sets aside those that cannot be had.
//!
//! RabbitMQ closes the channel on which it refuses something, with all that was asked on it. So
//! queues are declared together on one channel, and only those that a refusal took with it are then
//! tried apart, each on a channel of its own.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, future::join_all, stream};
use lapin::{
    Channel,
    options::{BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    types::FieldTable,
};

use super::link::{
    ACCESS_REFUSED, Link, NOT_FOUND, Names, PRECONDITION_FAILED, RESOURCE_LOCKED, close, code, look, unavailable,
};
use crate::{
    base::id::QueueName,
    broker::{
        BrokerError, SetAside,
        aside::{Aside, Step},
        bounded,
    },
};

/// Queues that are declared side by side on one channel. Each has its own time-out, which begins with
/// those beside it, so these must not be too many.
const SIDE_BY_SIDE: usize = 100;
/// Channels that try one queue each at once.
const APART: usize = 16;

/// Declares queues for one connection.
#[derive(Clone)]
pub(super) struct Declarer {
    link: Arc<Link>,
    names: Names,
    aside: Arc<Aside>,
    patience: Duration,
    takes: bool,
}

/// What came of one queue.
enum Outcome {
    Had,
    /// The server says why not.
    Refused(Step, String),
    /// It said nothing in time.
    Late,
    /// The channel broke, perhaps for another queue's sake.
    Broken,
}

impl Declarer {
    /// For whoever publishes; `patience` is the longest wait for one queue.
    pub(super) fn new(link: Arc<Link>, names: Names, aside: Arc<Aside>, patience: Duration) -> Self {
        Self { link, names, aside, patience, takes: false }
    }

    /// For whoever takes from queues: one that was refused to be taken from is not had before it can be.
    pub(super) fn taking(self) -> Self {
        Self { takes: true, ..self }
    }

    /// Returns those of `queues` that are there now; the others are set aside. What was refused
    /// before is tried apart.
    ///
    /// Errs if the server does not answer.
    pub(super) async fn have(&self, queues: Vec<QueueName>) -> Result<Vec<QueueName>, BrokerError> {
        let refused = |q: &QueueName| self.aside.step(q).is_some_and(|step| step != Step::Fill);
        let (mut apart, together): (Vec<_>, Vec<_>) = queues.into_iter().partition(refused);
        let (mut had, mut late) = (Vec::new(), Vec::new());
        for some in together.chunks(SIDE_BY_SIDE) {
            for (queue, outcome) in some.iter().zip(self.together(some).await?) {
                match outcome {
                    Outcome::Had => had.push(queue.clone()),
                    Outcome::Late => late.push(queue.clone()),
                    Outcome::Refused(..) | Outcome::Broken => apart.push(queue.clone()),
                }
            }
        }
        let unread = |q: &QueueName| self.aside.step(q) == Some(Step::Take);
        let tries = apart.into_iter().map(|q| {
            let read = self.takes && unread(&q);
            async move { (self.apart(&q, read).await, q) }
        });
        let mut tries = stream::iter(tries).buffer_unordered(APART);
        let mut refused = false;
        while let Some((outcome, queue)) = tries.next().await {
            match outcome? {
                Outcome::Had => {
                    // Who does not take cannot say that it may be taken from.
                    if self.takes || !unread(&queue) {
                        self.aside.admit(&queue);
                    }
                    had.push(queue);
                }
                Outcome::Refused(step, why) => {
                    self.aside.refuse(&queue, step, why);
                    refused = true;
                }
                Outcome::Late | Outcome::Broken => late.push(queue),
            }
        }
        if had.is_empty() && !refused && !late.is_empty() {
            self.answers().await?;
        }
        for queue in late {
            let (name, waited) = (self.names.queue(&queue), self.patience.as_secs());
            let why = format!(
                "RabbitMQ did not say within {waited} s whether the queue `{name}` is there; a quorum queue needs \
                 most of its nodes"
            );
            self.aside.refuse(&queue, Step::Have, why);
        }
        Ok(had)
    }

    /// Tries to have the queues that there are and to take from each; returns those that are refused.
    pub(super) async fn examine(&self, queues: &[QueueName]) -> Result<Vec<SetAside>, BrokerError> {
        let tries = queues.iter().cloned().map(|q| async move {
            match self.is_missing(&q).await {
                Ok(true) => (Ok(Outcome::Had), q),
                Ok(false) => (self.apart(&q, true).await, q),
                Err(e) => (Err(e), q),
            }
        });
        let mut tries = stream::iter(tries).buffered(APART);
        let mut refused = Vec::new();
        while let Some((outcome, queue)) = tries.next().await {
            let (step, why) = match outcome? {
                Outcome::Had => continue,
                Outcome::Refused(step, why) => (step, why),
                Outcome::Late | Outcome::Broken => {
                    (Step::Have, format!("RabbitMQ does not answer for the queue `{}`", self.names.queue(&queue)))
                }
            };
            refused.push(self.aside.refuse(&queue, step, why));
        }
        Ok(refused)
    }

    /// Whether the server says that there is no such queue; what else it may say is found by trying to have it.
    async fn is_missing(&self, queue: &QueueName) -> Result<bool, BrokerError> {
        let channel = bounded(self.link.channel()).await?;
        let name = self.names.queue(queue);
        match tokio::time::timeout(self.patience, look(&channel, &name)).await {
            Ok(Err(e)) => Ok(code(&e) == Some(NOT_FOUND)),
            Ok(Ok(_)) | Err(_) => {
                close(&channel).await;
                Ok(false)
            }
        }
    }

    /// Errs if it is the server that does not answer, and not a queue.
    async fn answers(&self) -> Result<(), BrokerError> {
        let channel = bounded(self.link.channel()).await?;
        close(&channel).await;
        Ok(())
    }

    /// Declares side by side. Whose channel broke is told as broken, whoever's fault it was.
    async fn together(&self, queues: &[QueueName]) -> Result<Vec<Outcome>, BrokerError> {
        let channel = bounded(self.link.channel()).await?;
        let declares = queues.iter().map(|q| tokio::time::timeout(self.patience, self.declare(&channel, q)));
        let outcomes = join_all(declares).await.into_iter().map(|declared| match declared {
            Ok(Ok(())) => Outcome::Had,
            Ok(Err(_)) => Outcome::Broken,
            Err(_elapsed) => Outcome::Late,
        });
        let outcomes: Vec<Outcome> = outcomes.collect();
        if !outcomes.iter().any(|o| matches!(o, Outcome::Had | Outcome::Broken)) {
            self.answers().await?;
        }
        // Not waited for: a queue that is late would hold the channel's last word back.
        tokio::spawn(async move { close(&channel).await });
        Ok(outcomes)
    }

    /// Declares on a channel of its own, and reads if reading is what is in doubt.
    async fn apart(&self, queue: &QueueName, read: bool) -> Result<Outcome, BrokerError> {
        let channel = bounded(self.link.channel()).await?;
        let tried = async {
            self.declare(&channel, queue).await.map_err(|e| (Step::Have, e))?;
            if read {
                // What comes is not acknowledged: it lies where it was as soon as the channel is closed.
                let consumed = async {
                    channel.basic_qos(1, BasicQosOptions::default()).await?;
                    let (name, options) = (self.names.queue(queue), BasicConsumeOptions::default());
                    channel.basic_consume(name.as_str().into(), "".into(), options, FieldTable::default()).await
                };
                consumed.await.map_err(|e| (Step::Take, e))?;
            }
            close(&channel).await;
            Ok(())
        };
        match tokio::time::timeout(self.patience, tried).await {
            Ok(Ok(())) => Ok(Outcome::Had),
            Ok(Err((step, e))) => match refusal(&self.names.queue(queue), &e) {
                Some(why) => Ok(Outcome::Refused(step, why)),
                None => Err(unavailable(&e)),
            },
            Err(_elapsed) => Ok(Outcome::Late),
        }
    }

    async fn declare(&self, channel: &Channel, queue: &QueueName) -> lapin::Result<()> {
        let (name, options) = (self.names.queue(queue), QueueDeclareOptions::durable());
        channel.queue_declare(name.as_str().into(), options, self.names.arguments()).await.map(drop)
    }
}

/// Why the server refuses the queue that it calls `name`, and what to do; none if `e` is no refusal.
pub(super) fn refusal(name: &str, e: &lapin::Error) -> Option<String> {
    let said = e.to_string();
    Some(match code(e)? {
        PRECONDITION_FAILED if said.contains("inequivalent arg") => format!(
            "the queue `{name}` exists in RabbitMQ with other arguments than this program gives it ({said}); delete it \
             there, and it is made again and filled from the store, or set `broker.queue_type` to what it is"
        ),
        PRECONDITION_FAILED => format!("RabbitMQ does not make the queue `{name}` ({said})"),
        ACCESS_REFUSED => format!(
            "RabbitMQ refuses the queue `{name}` to the user in `broker.url` ({said}); give that user the rights that \
             README lists, or rename the queue if the name is reserved"
        ),
        RESOURCE_LOCKED => format!(
            "the queue `{name}` in RabbitMQ belongs to another connection alone ({said}); end that connection, or use \
             a queue of another name"
        ),
        _ => return None,
    })
}
