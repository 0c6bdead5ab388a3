//! The hop in a pick-up that is RabbitMQ's: publish to delivery through `lapin` alone.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};

use crate::{SLOTS, brokers::job};

/// Messages published.
const PACED: usize = 1000;

/// From just before a publish to the delivery, a hundred messages a second, to a consumer that stands there: p50 and p99 in
/// microseconds. The two sides are threads of their own with connections of their own.
pub(crate) fn run(url: &str) -> (f64, f64) {
    const QUEUE: &str = "bench-delivery";
    let open = async || {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-priority".into(), AMQPValue::ShortShortUInt(10));
        channel.queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), arguments).await.unwrap();
        (connection, channel)
    };
    let publish = async || {
        let (connection, channel) = open().await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        let mut asked = Vec::with_capacity(PACED);
        for n in 0..PACED {
            tick.tick().await;
            asked.push(Instant::now());
            let properties = BasicProperties::default().with_delivery_mode(2).with_priority(5);
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let id = job(n as u64).0;
            let sent = channel.basic_publish("".into(), QUEUE.into(), options, id.as_bytes(), properties).await;
            assert!(sent.unwrap().await.unwrap().is_ack());
        }
        connection.close(200, "done".into()).await.unwrap();
        asked
    };
    let consume = async |stands: std::sync::mpsc::Sender<()>| {
        let (connection, channel) = open().await;
        channel.basic_qos(SLOTS as u16, BasicQosOptions::default()).await.unwrap();
        let options = BasicConsumeOptions::default();
        let mut consumer =
            channel.basic_consume(QUEUE.into(), "".into(), options, FieldTable::default()).await.unwrap();
        stands.send(()).unwrap();
        let mut came = Vec::with_capacity(PACED);
        while came.len() < PACED {
            let message = consumer.next().await.unwrap().unwrap();
            came.push(Instant::now());
            assert!(message.ack(BasicAckOptions::default()).await.unwrap());
        }
        channel.queue_delete(QUEUE.into(), QueueDeleteOptions::default()).await.unwrap();
        connection.close(200, "done".into()).await.unwrap();
        came
    };
    let (asked, came) = std::thread::scope(|threads| {
        let (stands, standing) = std::sync::mpsc::channel();
        let consumer = threads.spawn(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(consume(stands))
        });
        standing.recv().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let asked = runtime.block_on(publish());
        (asked, consumer.join().unwrap())
    });
    let mut us: Vec<f64> =
        asked.iter().zip(&came).map(|(a, c)| (*c - *a).as_secs_f64() * 1e6).skip(PACED / 20).collect();
    us.sort_by(f64::total_cmp);
    (us[us.len() / 2], us[us.len() * 99 / 100])
}
