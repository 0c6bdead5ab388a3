//! Messages of released versions, as bytes in the servers.

use app::{
    base::id::QueueName,
    broker::{self, Broker, Control, Options, Want},
};
use deadpool_redis::redis;

use crate::support::{servers, within};

const WAKE_UP: &str = include_str!("v0.1.0/wake-up.hex");
const CONTROLS: &str = include_str!("v0.1.0/controls.jsonl");

/// The wake-up as bytes, and the job that it names.
fn wake_up() -> (Vec<u8>, String) {
    let hex = WAKE_UP.trim();
    let byte = |n: usize| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..hex.len() / 2).map(byte).collect();
    let job = uuid::Uuid::from_slice(&bytes[1..]).unwrap().to_string();
    (bytes, job)
}

/// What every version must understand, first as it was sent, then with what a newer one might add.
fn controls() -> Vec<(String, Option<Control>)> {
    let known = CONTROLS.lines().map(|line| (line.to_owned(), serde_json::from_str(line).ok()));
    let more = known.clone().map(|(line, control)| (line.replacen('{', "{\"future\":[1],", 1), control));
    let unknown = [(r#"{"type":"from_the_future","job":1}"#.to_owned(), None)];
    let all: Vec<_> = known.chain(more).chain(unknown).collect();
    assert_eq!(all.iter().filter(|(_, c)| c.is_some()).count(), 8);
    all
}

fn open(variable: &str) -> (std::sync::Arc<dyn Broker>, String, QueueName) {
    let prefix = format!("compat-{}-", uuid::Uuid::now_v7().simple());
    let options = Options { prefix: prefix.clone(), ..Options::default() };
    (broker::connect(&servers::url(variable), &options).unwrap(), prefix, QueueName::new("default").unwrap())
}

/// Takes one wake-up: the one that this version can read.
async fn takes(broker: &dyn Broker, queue: &QueueName, job: &str) {
    let mut consumer = broker.consumer().await.unwrap();
    let want = Want { max: 1, shares: vec![(queue.clone(), 1)] };
    let taken = within("a wake-up arrives", consumer.next(&want)).await.unwrap();
    assert_eq!(taken[0].wake_up.job.to_string(), job);
    assert_eq!(taken[0].wake_up.priority.get(), 7);
    consumer.ack(&[taken[0].tag]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_0_1_0_says_through_redis_is_understood() {
    let (broker, prefix, queue) = open("TEST_REDIS_URL");
    let client = redis::Client::open(servers::redis_url()).unwrap();
    let mut raw = client.get_multiplexed_async_connection().await.unwrap();
    let (bytes, job) = wake_up();
    let list = format!("app:{prefix}{{default}}:7");
    for said in [vec![9; 40], bytes] {
        redis::cmd("RPUSH").arg(&list).arg(said).query_async::<()>(&mut raw).await.unwrap();
    }
    takes(broker.as_ref(), &queue, &job).await;
    let mut listener = broker.listen().await.unwrap();
    for (said, meant) in controls() {
        let channel = format!("app:{prefix}:0:control");
        redis::cmd("PUBLISH").arg(channel).arg(&said).query_async::<()>(&mut raw).await.unwrap();
        let heard = within("a broadcast arrives", listener.next()).await.unwrap();
        assert_eq!(heard, meant, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_0_1_0_says_through_rabbitmq_is_understood() {
    use lapin::{BasicProperties, options::BasicPublishOptions, types::FieldTable};

    let (broker, prefix, queue) = open("TEST_AMQP_URL");
    // The broker makes its queue when it is first published to, and its exchange with the first listener.
    let other = app::base::id::JobId(uuid::Uuid::now_v7());
    broker.publish(&[broker::wake_up(other, &queue, app::base::id::Priority::new(9).unwrap())]).await.unwrap();
    broker.purge(&queue).await.unwrap();
    let mut listener = broker.listen().await.unwrap();
    let connection = servers::amqp(&servers::url("TEST_AMQP_URL")).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let name = format!("{prefix}default");
    let (bytes, job) = wake_up();
    let mut headers = FieldTable::default();
    headers.insert("future".into(), lapin::types::AMQPValue::Boolean(true));
    let sent = BasicProperties::default().with_priority(7).with_headers(headers).with_type("future".into());
    let options = BasicPublishOptions::default();
    let publish = channel.basic_publish("".into(), name.as_str().into(), options, &bytes, sent.clone());
    publish.await.unwrap().await.unwrap();
    takes(broker.as_ref(), &queue, &job).await;
    let exchange = format!("{prefix}app.control");
    for (said, meant) in controls() {
        let publish =
            channel.basic_publish(exchange.as_str().into(), "".into(), options, said.as_bytes(), sent.clone());
        publish.await.unwrap().await.unwrap();
        let heard = within("a broadcast arrives", listener.next()).await.unwrap();
        assert_eq!(heard, meant, "{said}");
    }
    channel.queue_delete(name.as_str().into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
}
