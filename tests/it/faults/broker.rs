//! Broker servers that die, hang and forget: nobody hangs with them, and everybody comes back by himself.

use std::{sync::Arc, time::Duration};

use app::{
    base::{id::JobId, probe::Unfit},
    broker::{self, Broker, BrokerError, Consumer, Options, WakeUp, Want},
};
use rustix::process::Signal;

use crate::support::{
    eventually,
    jobs::{priority, queue},
    server::Server,
    servers, wait_until, within,
};

/// Far longer than a call to a broker may take; whoever is still waiting then hangs.
const HANGS: Duration = Duration::from_secs(20);

fn wake_up() -> WakeUp {
    WakeUp { job: JobId(uuid::Uuid::now_v7()), queue: queue("q"), priority: priority(5) }
}

fn want() -> Want {
    Want { max: 4, shares: vec![(queue("q"), 4)] }
}

fn url(server: &Server) -> String {
    match server.kind() {
        "redis" => format!("redis://127.0.0.1:{}", server.port),
        _ => format!("amqp://guest:guest@127.0.0.1:{}/%2f", server.port),
    }
}

async fn up(kind: &'static str) -> (Server, Arc<dyn Broker>) {
    let server = Server::start(kind);
    let broker = broker::connect(&url(&server), &Options::default()).unwrap();
    ready(&*broker).await;
    (server, broker)
}

async fn ready(broker: &dyn Broker) {
    wait_until("the server answers", async || broker.check().await.is_ok()).await;
}

/// A call that fails as it should, and does not hang.
async fn fails<T>(what: &str, call: impl Future<Output = Result<T, BrokerError>>) {
    match tokio::time::timeout(HANGS, call).await {
        Ok(Err(BrokerError::Unavailable(_))) => {}
        Ok(Err(e)) => panic!("{what}: {e}"),
        Ok(Ok(_)) => panic!("{what} works without a server"),
        Err(_) => panic!("{what} hangs"),
    }
}

async fn every_call_fails(broker: &dyn Broker) {
    let w = wake_up();
    tokio::join!(
        fails("publish", broker.publish(std::slice::from_ref(&w))),
        fails("depth", broker.depth(&w.queue)),
        fails("purge", broker.purge(&w.queue)),
        fails("broadcast", broker.broadcast(&broker::Control::Ping)),
        fails("consumer", async { broker.consumer().await?.next(&want()).await }),
        fails("listen", async { broker.listen().await?.next().await }),
    );
}

/// Takes until this one comes. Others may come before it: what was held when a server died comes again.
async fn takes(consumer: &mut dyn Consumer, w: &WakeUp) {
    loop {
        let got = within("a delivery", consumer.next(&want())).await.unwrap();
        consumer.ack(&got.iter().map(|d| d.tag).collect::<Vec<_>>()).await.unwrap();
        if got.iter().any(|d| d.wake_up.job == w.job) {
            return;
        }
    }
}

/// What is published now is delivered, to a consumer made now. More than one try: a server that hung does late what it
/// was told before (a purge, a take for somebody who has gone).
async fn works(broker: &dyn Broker) {
    eventually("a wake-up is published and delivered", async || {
        let w = wake_up();
        broker.publish(std::slice::from_ref(&w)).await.ok()?;
        let mut consumer = broker.consumer().await.ok()?;
        tokio::time::timeout(Duration::from_secs(3), takes(&mut *consumer, &w)).await.ok()
    })
    .await;
}

async fn a_killed_server(kind: &'static str) {
    let (mut server, broker) = up(kind).await;
    let mut consumer = broker.consumer().await.unwrap();
    let mut listener = broker.listen().await.unwrap();
    let w = wake_up();
    broker.publish(std::slice::from_ref(&w)).await.unwrap();
    takes(&mut *consumer, &w).await;
    server.kill();
    fails("waiting", consumer.next(&want())).await;
    fails("listening", listener.next()).await;
    every_call_fails(&*broker).await;
    server.restart();
    ready(&*broker).await;
    works(&*broker).await;
}

async fn a_hanging_server(kind: &'static str) {
    let (server, broker) = up(kind).await;
    works(&*broker).await;
    server.signal(Signal::STOP);
    every_call_fails(&*broker).await;
    server.signal(Signal::CONT);
    works(&*broker).await;
}

/// Nothing is contacted before the first call.
async fn a_server_that_comes_later(kind: &'static str) {
    let mut server = Server::start(kind);
    server.kill();
    let broker = broker::connect(&url(&server), &Options::default()).unwrap();
    every_call_fails(&*broker).await;
    assert!(matches!(broker.inspect().await, Err(Unfit::Unavailable(_))));
    server.restart();
    ready(&*broker).await;
    works(&*broker).await;
    assert_eq!(broker.inspect().await, Ok(Vec::new()));
}

macro_rules! faults {
    ($kind:ident: [$($case:ident),*]) => {
        mod $kind {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(stringify!($kind)).await;
                }
            )*
        }
    };
}

faults!(redis: [a_killed_server, a_hanging_server, a_server_that_comes_later]);
faults!(rabbitmq: [a_killed_server, a_hanging_server, a_server_that_comes_later]);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_forgets_everything() {
    use deadpool_redis::redis;
    let (server, broker) = up("redis").await;
    let mut consumer = broker.consumer().await.unwrap();
    works(&*broker).await;
    let w = wake_up();
    broker.publish(std::slice::from_ref(&w)).await.unwrap();
    let mut admin = redis::Client::open(url(&server)).unwrap().get_multiplexed_async_connection().await.unwrap();
    redis::cmd("FLUSHALL").query_async::<()>(&mut admin).await.unwrap();
    redis::cmd("SCRIPT").arg("FLUSH").query_async::<()>(&mut admin).await.unwrap();
    assert_eq!(broker.depth(&queue("q")).await.unwrap(), 0);
    // The same connections go on.
    let w = wake_up();
    broker.publish(std::slice::from_ref(&w)).await.unwrap();
    takes(&mut *consumer, &w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rabbitmq_whose_queues_are_deleted() {
    let (server, broker) = up("rabbitmq").await;
    works(&*broker).await;
    let mut consumer = broker.consumer().await.unwrap();
    let wanted = want();
    let mut waiting = Box::pin(consumer.next(&wanted));
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.is_err(), "nothing is there");
    let admin = servers::amqp(&url(&server)).await.unwrap();
    let channel = admin.create_channel().await.unwrap();
    // Until it is noticed: the consumer may not have got to the queue yet.
    let told = async {
        loop {
            channel.queue_delete("q".into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
            if let Ok(told) = tokio::time::timeout(Duration::from_millis(100), &mut waiting).await {
                return told;
            }
        }
    };
    within("the waiting consumer is told", told).await.unwrap_err();
    drop(waiting);
    // The publisher does not know of it yet: the message is returned, and the queue is made again.
    let w = wake_up();
    broker.publish(std::slice::from_ref(&w)).await.unwrap();
    assert_eq!(broker.depth(&queue("q")).await.unwrap(), 1);
    takes(&mut *broker.consumer().await.unwrap(), &w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rabbitmq_with_another_kind_of_queue_and_wrong_users() {
    let (server, broker) = up("rabbitmq").await;
    broker.publish(&[wake_up()]).await.unwrap();
    let quorum = Options { queue_type: broker::QueueType::Quorum, ..Options::default() };
    let other = broker::connect(&url(&server), &quorum).unwrap();
    let why = other.publish(&[wake_up()]).await.unwrap_err().to_string();
    assert!(why.contains("the queue `q` exists in RabbitMQ with other arguments"), "{why}");
    // The other one is not harmed, and quorum queues of their own work.
    works(&*broker).await;
    let own = Options { prefix: "own-".into(), ..quorum };
    works(&*broker::connect(&url(&server), &own).unwrap()).await;
    for (wrong, place) in [("guest:s3cret@", "guest:guest@"), ("/nowhere", "/%2f")] {
        let url = url(&server).replace(place, wrong);
        let Err(Unfit::Refused(why)) = broker::connect(&url, &Options::default()).unwrap().inspect().await else {
            panic!("{url} is let in");
        };
        assert!(why.starts_with("RabbitMQ refuses user `guest`") && !why.contains("s3cret"), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_refuses() {
    let (server, _broker) = up("redis").await;
    let port = server.port;
    for url in [format!("redis://nobody:s3cret@127.0.0.1:{port}"), format!("redis://127.0.0.1:{port}/4711")] {
        let Err(Unfit::Refused(why)) = broker::connect(&url, &Options::default()).unwrap().inspect().await else {
            panic!("{url} is let in");
        };
        assert!(why.starts_with("Redis refuses this program") && !why.contains("s3cret"), "{why}");
    }
}
