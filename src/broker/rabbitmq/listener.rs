//! Hears broadcasts through a queue of its own, which dies with its connection.

use async_trait::async_trait;
use futures_util::StreamExt;
use lapin::{
    Channel, Consumer,
    options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};

use super::{
    controls,
    link::{Link, Names, unavailable},
};
use crate::broker::{
    BrokerError, Control, Listener,
    aside::{Aside, Part},
};

pub(super) struct RabbitMqListener {
    consumer: Consumer,
    /// Closed when the last handle to it is dropped.
    _channel: Channel,
}

impl RabbitMqListener {
    pub(super) async fn open(link: &Link, names: &Names, aside: &Aside) -> Result<Self, BrokerError> {
        let open = async {
            let channel = controls::open(link, names).await?;
            let options = QueueDeclareOptions::exclusive().auto_delete();
            let queue = channel.queue_declare("".into(), options, FieldTable::default()).await?.name().clone();
            let exchange = names.control().as_str().into();
            let bind = QueueBindOptions::default();
            channel.queue_bind(queue.clone(), exchange, "".into(), bind, FieldTable::default()).await?;
            let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
            Ok((channel.basic_consume(queue, "".into(), options, FieldTable::default()).await?, channel))
        };
        let opened: lapin::Result<(Consumer, Channel)> = open.await;
        let (consumer, channel) = opened.map_err(|e| controls::refused(&e, names, aside, Part::Hearing))?;
        aside.admit_part(Part::Hearing);
        Ok(Self { consumer, _channel: channel })
    }
}

#[async_trait]
impl Listener for RabbitMqListener {
    async fn next(&mut self) -> Result<Option<Control>, BrokerError> {
        match self.consumer.next().await {
            // What a newer version says may be unknown here; the store tells what it was about.
            Some(Ok(said)) => Ok(serde_json::from_slice(&said.data).ok()),
            Some(Err(e)) => Err(unavailable(&e)),
            None => Err(BrokerError::Unavailable("rabbitmq: the queue of a listener was closed".into())),
        }
    }
}
