//! Another Redis takes over behind the same address: nobody stays with the one that takes no writes any more.

use std::time::Duration;

use app::{
    base::{clock::Clock, id::JobId},
    broker::{self, Options, WakeUp, Want},
    cache::{self, Admission, Rate},
};
use deadpool_redis::redis::{self, aio::MultiplexedConnection};

use crate::support::{
    adapters::cache_options,
    eventually,
    jobs::{priority, queue},
    proxy::Proxy,
    server::Server,
    within,
};

const HOUR: Duration = Duration::from_secs(3600);

async fn up() -> (Server, MultiplexedConnection) {
    let server = Server::start("redis");
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port)).unwrap();
    let admin = eventually("Redis answers", async || client.get_multiplexed_async_connection().await.ok()).await;
    (server, admin)
}

/// B is the master from now on, also for whoever connects anew; connections to A stand.
async fn fail_over(proxy: &Proxy, a: &mut MultiplexedConnection, b: u16) {
    proxy.lead_to(b);
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(b).query_async::<()>(a).await.unwrap();
    eventually("A follows B", async || {
        let info: String = redis::cmd("INFO").arg("replication").query_async(a).await.ok()?;
        info.contains("master_link_status:up").then_some(())
    })
    .await;
}

fn wake_up() -> WakeUp {
    WakeUp { job: JobId(uuid::Uuid::now_v7()), queue: queue("q"), priority: priority(5) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_goes_to_the_new_master() {
    let ((a, mut admin), (b, _)) = (up().await, up().await);
    let proxy = Proxy::start(a.port).await;
    let broker = broker::connect(&format!("redis://127.0.0.1:{}", proxy.port()), &Options::default()).unwrap();
    let wanted = Want { max: 4, shares: vec![(queue("q"), 4)] };
    let w = wake_up();
    broker.publish(std::slice::from_ref(&w)).await.unwrap();
    let mut waiting = broker.consumer().await.unwrap();
    let got = within("a delivery", waiting.next(&wanted)).await.unwrap();
    assert_eq!(got[0].wake_up.job, w.job);
    waiting.ack(&[got[0].tag]).await.unwrap();
    fail_over(&proxy, &mut admin, b.port).await;

    // The call itself is made once more: nobody is told that anything failed.
    let w = wake_up();
    within("an answer", broker.publish(std::slice::from_ref(&w))).await.unwrap();
    assert_eq!(broker.depth(&queue("q")).await.unwrap(), 1);
    let mut direct = redis::Client::open(format!("redis://127.0.0.1:{}", b.port)).unwrap();
    assert_eq!(redis::cmd("LLEN").arg("app:{q}:5").query::<u64>(&mut direct).unwrap(), 1, "it is in the new master");
    // Who waited at the old one is told, and a new consumer takes from the new one.
    within("the consumer errs", waiting.next(&wanted)).await.unwrap_err();
    let mut consumer = broker.consumer().await.unwrap();
    assert_eq!(within("a delivery", consumer.next(&wanted)).await.unwrap()[0].wake_up.job, w.job);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_goes_to_the_new_master() {
    let ((a, mut admin), (b, _)) = (up().await, up().await);
    let proxy = Proxy::start(a.port).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let cache = cache::connect(&url, cache_options("c", &Clock::system())).unwrap();
    cache.set("k", b"old", HOUR).await.unwrap();
    fail_over(&proxy, &mut admin, b.port).await;
    cache.set("k", b"new", HOUR).await.unwrap();
    assert_eq!(cache.get("k").await.unwrap().unwrap().value, b"new");
    let rate = Rate { burst: 1, every: HOUR };
    assert_eq!(cache.admit("l", rate).await.unwrap(), Admission::Allowed);
    assert!(matches!(cache.admit("l", rate).await.unwrap(), Admission::RetryAfter(_)), "limits hold again");
}

/// Where nobody takes over it says so, and everything goes on when the server takes writes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_no_writes_is_no_loop() {
    let ((a, mut admin), (b, _)) = (up().await, up().await);
    let broker = broker::connect(&format!("redis://127.0.0.1:{}", a.port), &Options::default()).unwrap();
    let w = wake_up();
    broker.publish(std::slice::from_ref(&w)).await.unwrap();
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(b.port).query_async::<()>(&mut admin).await.unwrap();
    for _ in 0..100 {
        let why = within("an answer", broker.publish(std::slice::from_ref(&w))).await.unwrap_err().to_string();
        assert!(why.contains("ReadOnly") || why.contains("READONLY"), "{why}");
    }
    let info: String = redis::cmd("INFO").arg("stats").query_async(&mut admin).await.unwrap();
    let made = info.lines().find_map(|l| l.strip_prefix("total_connections_received:")).unwrap();
    assert!(made.trim().parse::<u32>().unwrap() < 100, "a connection for each call: {made}");
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").query_async::<()>(&mut admin).await.unwrap();
    eventually("it takes writes again", async || broker.publish(std::slice::from_ref(&w)).await.ok()).await;
}
