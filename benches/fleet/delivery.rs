//! What a pick-up over RabbitMQ is made of: a durable insert, a publish, and a durable insert by whoever it is delivered to,
//! through the bare driver and bare `lapin`.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};

use crate::{Place, SLOTS, bare};

/// Messages that are looked at.
const PACED: usize = 1000;
/// Messages before those.
const WARM_UP: usize = 50;

const QUEUE: &str = "bench-delivery";

/// Microseconds between these moments, without those of the warm-up.
fn took(from: &[Instant], to: &[Instant]) -> Vec<f64> {
    from.iter().zip(to).map(|(a, b)| (*b - *a).as_secs_f64() * 1e6).skip(WARM_UP).collect()
}

async fn open(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-priority".into(), AMQPValue::ShortShortUInt(10));
    channel.queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), arguments).await.unwrap();
    (connection, channel)
}

/// When each was begun, and when it was stored.
async fn publish(place: &Place) -> (Vec<Instant>, Vec<Instant>) {
    let (connection, channel) = open(&place.broker).await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let jobs = bare::durable_jobs(place).await;
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let (mut asked, mut stored) = (Vec::new(), Vec::new());
    for _ in 0..WARM_UP + PACED {
        tick.tick().await;
        asked.push(Instant::now());
        let id = bare::new_id();
        jobs.insert_one(bare::job(id)).await.unwrap();
        stored.push(Instant::now());
        let properties = BasicProperties::default().with_delivery_mode(2).with_priority(5);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent = channel.basic_publish("".into(), QUEUE.into(), options, &id.bytes(), properties).await;
        assert!(sent.unwrap().await.unwrap().is_ack());
    }
    connection.close(200, "done".into()).await.unwrap();
    (asked, stored)
}

/// When each came, and when what was made of it was stored.
async fn consume(place: &Place, stands: std::sync::mpsc::Sender<()>) -> (Vec<Instant>, Vec<Instant>) {
    let (connection, channel) = open(&place.broker).await;
    channel.basic_qos(SLOTS as u16, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    let mut consumer = channel.basic_consume(QUEUE.into(), "".into(), options, FieldTable::default()).await.unwrap();
    let jobs = bare::durable_jobs(place).await;
    stands.send(()).unwrap();
    let (mut came, mut stored) = (Vec::new(), Vec::new());
    for _ in 0..WARM_UP + PACED {
        let message = consumer.next().await.unwrap().unwrap();
        came.push(Instant::now());
        jobs.insert_one(bare::job(bare::new_id())).await.unwrap();
        stored.push(Instant::now());
        assert!(message.ack(BasicAckOptions::default()).await.unwrap());
    }
    channel.queue_delete(QUEUE.into(), QueueDeleteOptions::default()).await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
    (came, stored)
}

/// A hundred a second: from just before the publish to the delivery, and the whole. The two sides are threads of their own with
/// connections of their own, as the two processes are.
pub(crate) fn run(place: &Place) -> (Vec<f64>, Vec<f64>) {
    std::thread::scope(|threads| {
        let (stands, standing) = std::sync::mpsc::channel();
        let consumer = threads.spawn(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(consume(place, stands))
        });
        standing.recv().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (asked, published) = runtime.block_on(publish(place));
        let (came, stored) = consumer.join().unwrap();
        (took(&published, &came), took(&asked, &stored))
    })
}
