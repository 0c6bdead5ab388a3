//! The ceilings: the same messages through the libraries alone.

use std::time::Instant;

use app::base::id::JobId;
use deadpool_redis::redis;
use futures_util::{StreamExt, future::join_all};
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};

/// Messages published and taken.
pub(crate) const N: usize = 50_000;
pub(crate) const BATCH: usize = 1000;
pub(crate) const SLOTS: usize = 64;

pub(crate) fn job(n: u64) -> JobId {
    JobId(uuid::Uuid::from_u64_pair(0x0192_f0c1_2345_7abc, 0x8000_0000_0000_0000 | n))
}

pub(crate) fn rate(n: usize, since: Instant) -> f64 {
    n as f64 / since.elapsed().as_secs_f64()
}

/// Pipelined `LPUSH` of single values, and `RPOP` of 64: publish and take, a second.
pub(crate) async fn redis(url: &str) -> (f64, f64) {
    let mut c = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let start = Instant::now();
    for batch in 0..N / BATCH {
        let mut pipe = redis::pipe();
        for n in 0..BATCH {
            pipe.lpush("bench:bare", job((batch * BATCH + n) as u64).0.as_bytes()).ignore();
        }
        pipe.query_async::<()>(&mut c).await.unwrap();
    }
    let publish = rate(N, start);
    let (start, mut taken) = (Instant::now(), 0);
    while taken < N {
        let some: Vec<Vec<u8>> = redis::cmd("RPOP").arg("bench:bare").arg(SLOTS).query_async(&mut c).await.unwrap();
        taken += some.len();
    }
    (publish, rate(N, start))
}

/// Pipelined confirms; `basic.consume` with a prefetch of 500, each acknowledged; pipelined `basic.get`.
pub(crate) async fn rabbitmq(url: &str) -> (f64, f64, f64) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-priority".into(), AMQPValue::ShortShortUInt(10));
    channel.queue_declare("bench-bare".into(), QueueDeclareOptions::durable(), arguments).await.unwrap();
    let publish = async || {
        let start = Instant::now();
        for batch in 0..N / BATCH {
            let ids: Vec<_> = (0..BATCH).map(|n| job((batch * BATCH + n) as u64)).collect();
            let sent = ids.iter().map(|id| {
                let properties = BasicProperties::default().with_delivery_mode(2).with_priority(5);
                let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                channel.basic_publish("".into(), "bench-bare".into(), options, id.0.as_bytes(), properties)
            });
            for confirm in join_all(sent).await {
                assert!(confirm.unwrap().await.unwrap().is_ack());
            }
        }
        rate(N, start)
    };
    let published = publish().await;
    let taking = connection.create_channel().await.unwrap();
    taking.basic_qos(500, BasicQosOptions::default()).await.unwrap();
    let start = Instant::now();
    let options = BasicConsumeOptions::default();
    let mut consumer =
        taking.basic_consume("bench-bare".into(), "".into(), options, FieldTable::default()).await.unwrap();
    for _ in 0..N {
        let message = consumer.next().await.unwrap().unwrap();
        assert!(message.ack(BasicAckOptions::default()).await.unwrap());
    }
    let consumed = rate(N, start);
    drop(consumer);
    // Or the server may go on sending to it, and what it sent is never got below.
    taking.close(200, "done".into()).await.unwrap();
    publish().await;
    let getting = connection.create_channel().await.unwrap();
    let (start, mut taken) = (Instant::now(), 0);
    while taken < N {
        let gets = (0..SLOTS).map(|_| getting.basic_get("bench-bare".into(), BasicGetOptions::default()));
        let mut last = 0;
        for got in join_all(gets).await {
            if let Some(message) = got.unwrap() {
                (taken, last) = (taken + 1, message.delivery_tag);
            }
        }
        getting.basic_ack(last, BasicAckOptions { multiple: true }).await.unwrap();
    }
    let got = rate(N, start);
    channel.queue_delete("bench-bare".into(), QueueDeleteOptions::default()).await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
    (published, consumed, got)
}
