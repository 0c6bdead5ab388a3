//! A queue or a right that a broker's server refuses costs only itself, is told, and is had as soon as it can be.

use std::sync::Arc;

use app::{
    base::id::{JobId, QueueName},
    broker::{self, Broker, BrokerError, Consumer, Delivery, Lacks, Options, WakeUp, Want},
};

use crate::support::{
    eventually,
    jobs::{priority, queue},
    within,
};

mod rabbitmq;
mod redis;

fn connect(url: &str, prefix: &str) -> Arc<dyn Broker> {
    broker::connect(url, &Options { prefix: prefix.to_owned(), ..Options::default() }).unwrap()
}

fn wake_up(q: &str, p: i64) -> WakeUp {
    WakeUp { job: JobId(uuid::Uuid::now_v7()), queue: queue(q), priority: priority(p) }
}

fn want(queues: &[&str]) -> Want {
    Want { max: 8, shares: queues.iter().map(|q| (queue(q), 8)).collect() }
}

/// Publishes, and returns what is said of the one queue that is refused.
async fn refused(broker: &dyn Broker, wake_ups: &[WakeUp], q: &str) -> String {
    match within("an answer", broker.publish(wake_ups)).await {
        Err(BrokerError::Refused(refused)) => {
            assert!(refused.iter().all(|r| r.queue == queue(q)), "{refused:?}");
            refused[0].why.clone()
        }
        other => panic!("{other:?}"),
    }
}

/// Takes from these queues until all of `jobs` have come. A consumer that a refusal has ended is replaced, as a worker does.
async fn takes(broker: &dyn Broker, queues: &[&str], jobs: &[&WakeUp]) {
    let mut missing: Vec<JobId> = jobs.iter().map(|w| w.job).collect();
    let mut consumer: Option<Box<dyn Consumer>> = None;
    let wanted = want(queues);
    while !missing.is_empty() {
        let c = match &mut consumer {
            Some(c) => c,
            None => consumer.insert(within("a consumer", broker.consumer()).await.unwrap()),
        };
        match within("a delivery", c.next(&wanted)).await {
            Ok(got) => {
                c.ack(&tags(&got)).await.unwrap();
                missing.retain(|job| !got.iter().any(|d| d.wake_up.job == *job));
            }
            Err(BrokerError::Refused(_)) => consumer = None,
            Err(e) => panic!("the consumer ended: {e}"),
        }
    }
}

fn tags(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|d| d.tag).collect()
}

/// What is told of a queue that is set aside: to whoever asks for queues, and, without why, to everybody.
fn told(broker: &dyn Broker, q: &str) -> String {
    let all = broker.set_aside();
    assert_eq!(all.iter().map(|s| s.queue.clone()).collect::<Vec<_>>(), [queue(q)]);
    let note = format!("the queue `{q}` is set aside");
    assert!(broker.notes().iter().any(|n| n.contains(&note)), "{:?}", broker.notes());
    all[0].why.clone()
}

/// Publishes to a queue that can be had by now, until that is found out; takes what was published.
async fn is_served_again(broker: &dyn Broker, q: &str) {
    let w = wake_up(q, 5);
    eventually("it is published to again", async || broker.publish(std::slice::from_ref(&w)).await.ok()).await;
    takes(broker, &[q], &[&w]).await;
    eventually("nothing is set aside", async || broker.set_aside().is_empty().then_some(())).await;
    assert_eq!(broker.notes(), [""; 0]);
}

/// Says something that a listener hears.
async fn broadcasts_work(broker: &dyn Broker) {
    let mut listener = broker.listen().await.unwrap();
    broker.broadcast(&broker::Control::Ping).await.unwrap();
    assert_eq!(within("a broadcast", listener.next()).await.unwrap(), Some(broker::Control::Ping));
}

/// Whoever looks for faults finds none, and nobody hears of the look.
async fn a_look_finds_nothing_and_tells_nobody(broker: &dyn Broker) {
    let mut listener = broker.listen().await.unwrap();
    assert_eq!(broker.examine(&["q", "r"].map(queue)).await.unwrap(), Lacks::default());
    broker.broadcast(&broker::Control::Ping).await.unwrap();
    assert_eq!(within("a broadcast", listener.next()).await.unwrap(), Some(broker::Control::Ping));
}

/// Broadcasts are refused, again and again, and nothing else is.
async fn broadcasts_are_off(broker: &dyn Broker) {
    for _ in 0..2 {
        let said = broker.broadcast(&broker::Control::Ping).await;
        assert!(matches!(&said, Err(BrokerError::NoBroadcasts(why)) if why.contains("give the user")), "{said:?}");
        let Err(BrokerError::NoBroadcasts(_)) = broker.listen().await else { panic!("they are heard") };
        let (a, b) = (wake_up("q", 5), wake_up("q", 9));
        broker.publish(&[a.clone(), b.clone()]).await.unwrap();
        takes(broker, &["q"], &[&a, &b]).await;
    }
    let found = broker.examine(&[]).await.unwrap().broadcasts;
    assert!(!found.is_empty() && found.iter().all(|why| why.contains("give the user")), "{found:?}");
    let notes = broker.notes().join("\n");
    assert!(notes.contains("broadcasts cannot be sent") && notes.contains("broadcasts are not heard"), "{notes}");
}
