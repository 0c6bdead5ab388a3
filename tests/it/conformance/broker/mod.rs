//! The suite of [`Broker`](app::broker::Broker): every sentence of its contract in `src/broker/mod.rs`.

macro_rules! conformance_broker {
    ($adapter:ident, $open:path) => {
        crate::conformance::suite!($adapter, $open, broker, fixture::broker, {
            order: [
                the_highest_priority_comes_first,
                equal_priorities_come_in_the_order_of_publishing,
                shares_come_first_and_the_rest_fills,
                a_queue_that_is_not_wanted_is_not_touched,
                strict_shares_empty_the_first_queue_first,
            ],
            delivery: [
                next_waits_for_what_is_published,
                a_dropped_next_takes_nothing,
                each_is_delivered_to_one_consumer,
                acknowledged_ones_do_not_come_again,
                given_back_ones_come_first_in_their_order,
                a_dropped_consumer_gives_back,
                depth_counts_what_waits,
                purge_empties_one_queue,
                a_job_may_be_woken_twice,
                nothing_is_lost_among_many_publishers,
            ],
            held: [
                thousands_are_published_at_once,
                wants_may_change,
                who_does_not_ask_holds_nothing,
                every_free_slot_gets_one,
                a_broken_connection_gives_back_and_is_made_again,
            ],
            broadcast: [all_listeners_hear, what_was_said_before_is_not_heard, a_dropped_wait_misses_nothing],
        });
    };
}

pub(crate) mod held;

conformance_broker!(embedded, crate::support::adapters::Embedded::open_fresh);
conformance_broker!(redis, crate::support::adapters::BrokerServer::redis);
conformance_broker!(rabbitmq, crate::support::adapters::BrokerServer::rabbitmq);

use app::{
    base::id::JobId,
    broker::{Broker, Consumer, Delivery, WakeUp, Want},
};

use super::fixture::BrokerFixture;
use crate::support::{
    jobs::{priority, queue},
    wait_until, within,
};

fn wake_up(f: &BrokerFixture, q: &str, p: i64) -> WakeUp {
    WakeUp { job: JobId(f.clock.new_uuid()), queue: queue(q), priority: priority(p) }
}

fn want(max: usize, shares: &[(&str, usize)]) -> Want {
    Want { max, shares: shares.iter().map(|(q, n)| (queue(q), *n)).collect() }
}

async fn publish(broker: &dyn Broker, wake_ups: &[WakeUp]) {
    broker.publish(wake_ups).await.unwrap();
}

/// Takes until `n` have come.
async fn take(consumer: &mut dyn Consumer, n: usize, of: &[(&str, usize)]) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < n {
        let wanted = want(n - taken.len(), of);
        let got = within("a delivery", consumer.next(&wanted)).await.unwrap();
        assert!(!got.is_empty() && got.len() <= wanted.max, "{} for {}", got.len(), wanted.max);
        taken.extend(got);
    }
    taken
}

fn jobs(deliveries: &[Delivery]) -> Vec<JobId> {
    deliveries.iter().map(|d| d.wake_up.job).collect()
}

fn tags(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|d| d.tag).collect()
}

fn ids(wake_ups: &[WakeUp]) -> Vec<JobId> {
    wake_ups.iter().map(|w| w.job).collect()
}

/// Nothing is there to be taken from this queue: a marker of the lowest priority, published last, is what comes.
async fn nothing_left(f: &BrokerFixture, broker: &dyn Broker, consumer: &mut dyn Consumer, q: &str) {
    let marker = wake_up(f, q, 1);
    publish(broker, std::slice::from_ref(&marker)).await;
    let got = take(consumer, 1, &[(q, 1)]).await;
    assert_eq!(jobs(&got), [marker.job], "something was left");
    consumer.ack(&tags(&got)).await.unwrap();
    assert_eq!(broker.depth(&queue(q)).await.unwrap(), 0);
}

pub(crate) mod order {
    use super::*;

    pub(crate) async fn the_highest_priority_comes_first(f: &mut BrokerFixture) {
        let broker = f.connect().await;
        let mixed: Vec<WakeUp> = [3, 10, 1, 7, 5, 2, 9, 4, 8, 6].map(|p| wake_up(f, "q", p)).to_vec();
        publish(&*broker, &mixed).await;
        let mut consumer = broker.consumer().await.unwrap();
        let mut got = Vec::new();
        // One at a time and several at a time.
        for n in [1, 1, 3, 5] {
            got.extend(take(&mut *consumer, n, &[("q", n)]).await);
        }
        let priorities: Vec<u8> = got.iter().map(|d| d.wake_up.priority.get()).collect();
        assert_eq!(priorities, [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
        for d in got {
            assert!(mixed.contains(&d.wake_up), "what comes is what was published");
        }
        // A high one that comes late overtakes.
        let (low, high) = (wake_up(f, "q", 1), wake_up(f, "q", 10));
        publish(&*broker, std::slice::from_ref(&low)).await;
        publish(&*broker, std::slice::from_ref(&high)).await;
        assert_eq!(jobs(&take(&mut *consumer, 2, &[("q", 2)]).await), [high.job, low.job]);
    }

    pub(crate) async fn equal_priorities_come_in_the_order_of_publishing(f: &mut BrokerFixture) {
        let broker = f.connect().await;
        let many: Vec<WakeUp> = (0..30).map(|_| wake_up(f, "q", 5)).collect();
        for batch in many.chunks(7) {
            publish(&*broker, batch).await;
        }
        let mut consumer = broker.consumer().await.unwrap();
        assert_eq!(jobs(&take(&mut *consumer, 30, &[("q", 30)]).await), ids(&many));
    }

    pub(crate) async fn shares_come_first_and_the_rest_fills(f: &mut BrokerFixture) {
        let broker = f.connect().await;
        let a: Vec<WakeUp> = (0..10).map(|_| wake_up(f, "a", 5)).collect();
        let b: Vec<WakeUp> = (0..2).map(|_| wake_up(f, "b", 5)).collect();
        publish(&*broker, &a).await;
        publish(&*broker, &b).await;
        let mut consumer = broker.consumer().await.unwrap();
        let count = |got: &[Delivery], q: &str| got.iter().filter(|d| d.wake_up.queue == queue(q)).count();
        let got = within("shares", consumer.next(&want(4, &[("b", 1), ("a", 3)]))).await.unwrap();
        assert_eq!((got.len(), count(&got, "a"), count(&got, "b")), (4, 3, 1));
        // `b` has one left of its three: `a` fills.
        let got = within("fill", consumer.next(&want(6, &[("b", 3), ("a", 3)]))).await.unwrap();
        assert_eq!((got.len(), count(&got, "a"), count(&got, "b")), (6, 5, 1));
        // A queue without a share fills, too; never more than asked for.
        let got = within("rest", consumer.next(&want(1, &[("b", 1), ("a", 0)]))).await.unwrap();
        assert_eq!((got.len(), count(&got, "a")), (1, 1));
        assert_eq!(broker.depth(&queue("a")).await.unwrap(), 1);
    }

    pub(crate) async fn a_queue_that_is_not_wanted_is_not_touched(f: &mut BrokerFixture) {
        let broker = f.connect().await;
        publish(&*broker, &[wake_up(f, "other", 10), wake_up(f, "mine", 1), wake_up(f, "other", 10)]).await;
        let mut consumer = broker.consumer().await.unwrap();
        let got = within("mine", consumer.next(&want(10, &[("mine", 10)]))).await.unwrap();
        assert_eq!(got.iter().map(|d| d.wake_up.queue.as_str()).collect::<Vec<_>>(), ["mine"]);
        assert_eq!(broker.depth(&queue("other")).await.unwrap(), 2);
    }

    pub(crate) async fn strict_shares_empty_the_first_queue_first(f: &mut BrokerFixture) {
        let broker = f.connect().await;
        let mut all = Vec::new();
        for q in ["low", "high", "low", "high", "high"] {
            all.push(wake_up(f, q, 5));
        }
        publish(&*broker, &all).await;
        let mut consumer = broker.consumer().await.unwrap();
        let mut queues = Vec::new();
        for n in [1, 3, 1] {
            let got = within("strict", consumer.next(&want(n, &[("high", n), ("low", n)]))).await.unwrap();
            queues.extend(got.into_iter().map(|d| d.wake_up.queue.to_string()));
        }
        assert_eq!(queues, ["high", "high", "high", "low", "low"]);
    }
}

pub(crate) mod delivery {
    use std::collections::BTreeSet;

    use super::*;

    pub(crate) async fn next_waits_for_what_is_published(f: &mut BrokerFixture) {
        let broker = f.connect().await;
        let mut consumer = broker.consumer().await.unwrap();
        for _ in 0..50 {
            let w = wake_up(f, "q", 5);
            let wanted = want(3, &[("q", 3)]);
            let next = consumer.next(&wanted);
            let said = async {
                // The consumer is polled first and waits by now.
                tokio::task::yield_now().await;
                publish(&*broker, std::slice::from_ref(&w)).await;
            };
            let (got, ()) = within("a wake-up", async { tokio::join!(biased; next, said) }).await;
            let got = got.unwrap();
            assert_eq!(jobs(&got), [w.job]);
            consumer.ack(&tags(&got)).await.unwrap();
        }
    }

    pub(crate) async fn a_dropped_next_takes_nothing(f: &mut BrokerFixture) {
        let broker = f.connect().await;
        let mut consumer = broker.consumer().await.unwrap();
        let mut published = Vec::new();
        let mut got = Vec::new();
        // Waits that are given up at every stage of an arrival.
        for n in 0..200 {
            let w = wake_up(f, "q", 5);
            published.push(w.job);
            let publisher = std::sync::Arc::clone(&broker);
            let said = tokio::spawn(async move { publish(&*publisher, &[w]).await });
            let patience = std::time::Duration::from_micros(n % 40);
            if let Ok(d) = tokio::time::timeout(patience, consumer.next(&want(2, &[("q", 2)]))).await {
                got.extend(d.unwrap());
            }
            said.await.unwrap();
        }
        let missing = published.len() - got.len();
        if missing > 0 {
            got.extend(take(&mut *consumer, missing, &[("q", missing)]).await);
        }
        assert_eq!(jobs(&got).into_iter().collect::<BTreeSet<_>>(), published.into_iter().collect());
        nothing_left(f, &*broker, &mut *consumer, "q").await;
    }

    pub(crate) async fn each_is_delivered_to_one_consumer(f: &mut BrokerFixture) {
        let broker = f.connect().await;
        let all: Vec<WakeUp> = (0..60).map(|n| wake_up(f, "q", 1 + n % 10)).collect();
        let mut consumers = tokio::task::JoinSet::new();
        let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..4 {
            let (mut consumer, tx) = (f.connect().await.consumer().await.unwrap(), tx.clone());
            consumers.spawn(async move {
                loop {
                    let got = consumer.next(&want(3, &[("q", 3)])).await.unwrap();
                    consumer.ack(&tags(&got)).await.unwrap();
                    got.iter().for_each(|d| tx.send(d.wake_up.job).unwrap_or_default());
                }
            });
        }
        publish(&*broker, &all).await;
        let mut seen = Vec::new();
        while seen.len() < all.len() {
            seen.push(within("all deliveries", rx.recv()).await.unwrap());
        }
        consumers.shutdown().await;
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), ids(&all).into_iter().collect());
        nothing_left(f, &*broker, &mut *broker.consumer().await.unwrap(), "q").await;
    }

    pub(crate) async fn acknowledged_ones_do_not_come_again(f: &mut BrokerFixture) {
        let broker = f.connect().await;
        publish(&*broker, &[wake_up(f, "q", 5), wake_up(f, "q", 5)]).await;
        let mut consumer = broker.consumer().await.unwrap();
        let got = take(&mut *consumer, 2, &[("q", 2)]).await;
        consumer.ack(&tags(&got)).await.unwrap();
        // Tags that mean nothing (any more) do no harm.
        consumer.ack(&tags(&got)).await.unwrap();
        consumer.give_back(&tags(&got)).await.unwrap();
        consumer.ack(&[]).await.unwrap();
        drop(consumer);
        nothing_left(f, &*broker, &mut *broker.consumer().await.unwrap(), "q").await;
    }

    pub(crate) async fn given_back_ones_come_first_in_their_order(f: &mut BrokerFixture) {
        let broker = f.connect().await;
        let all: Vec<WakeUp> = (0..5).map(|_| wake_up(f, "q", 5)).collect();
        publish(&*broker, &all).await;
        let mut consumer = broker.consumer().await.unwrap();
        let got = take(&mut *consumer, 3, &[("q", 3)]).await;
        consumer.give_back(&tags(&got)).await.unwrap();
        wait_until("all lie in the queue again", async || broker.depth(&queue("q")).await.unwrap() == 5).await;
        let high = wake_up(f, "q", 6);
        publish(&*broker, std::slice::from_ref(&high)).await;
        let mut expected = vec![high.job];
        expected.extend(ids(&all));
        assert_eq!(jobs(&take(&mut *consumer, 6, &[("q", 6)]).await), expected);
    }

    pub(crate) async fn a_dropped_consumer_gives_back(f: &mut BrokerFixture) {
        let broker = f.connect().await;
        let all: Vec<WakeUp> = [5, 5, 9].map(|p| wake_up(f, "q", p)).to_vec();
        publish(&*broker, &all).await;
        let mut first = f.connect().await.consumer().await.unwrap();
        let got = take(&mut *first, 3, &[("q", 3)]).await;
        first.ack(&[got[1].tag]).await.unwrap();
        let (acked, mut second) = (got[1].wake_up.job, broker.consumer().await.unwrap());
        let waiting = tokio::spawn(async move {
            let got = take(&mut *second, 2, &[("q", 2)]).await;
            second.ack(&tags(&got)).await.unwrap();
            jobs(&got)
        });
        drop(first);
        let again: BTreeSet<JobId> = within("redelivery", waiting).await.unwrap().into_iter().collect();
        let expected = ids(&all).into_iter().filter(|j| *j != acked).collect();
        assert_eq!(again, expected);
        nothing_left(f, &*broker, &mut *broker.consumer().await.unwrap(), "q").await;
    }

    pub(crate) async fn depth_counts_what_waits(f: &mut BrokerFixture) {
        let broker = f.connect().await;
        let depth = async |q: &str| broker.depth(&queue(q)).await.unwrap();
        assert_eq!(depth("q").await, 0);
        publish(&*broker, &[]).await;
        assert_eq!(depth("q").await, 0);
        let all: Vec<WakeUp> = (1..=10).map(|p| wake_up(f, "q", p)).collect();
        publish(&*broker, &all).await;
        publish(&*broker, &[wake_up(f, "other", 5)]).await;
        assert_eq!((depth("q").await, depth("other").await), (10, 1));
        let mut consumer = broker.consumer().await.unwrap();
        let got = take(&mut *consumer, 4, &[("q", 4)]).await;
        assert_eq!(depth("q").await, 6, "what consumers hold does not wait");
        consumer.ack(&tags(&got)[..2]).await.unwrap();
        consumer.give_back(&tags(&got)[2..]).await.unwrap();
        wait_until("those given back count again", async || depth("q").await == 8).await;
    }

    pub(crate) async fn purge_empties_one_queue(f: &mut BrokerFixture) {
        let broker = f.connect().await;
        assert_eq!(broker.purge(&queue("q")).await.unwrap(), 0);
        let all: Vec<WakeUp> = (1..=10).map(|p| wake_up(f, "q", p)).collect();
        publish(&*broker, &all).await;
        publish(&*broker, &[wake_up(f, "other", 5)]).await;
        let mut consumer = broker.consumer().await.unwrap();
        let held = take(&mut *consumer, 1, &[("q", 1)]).await;
        assert_eq!(broker.purge(&queue("q")).await.unwrap(), 9);
        assert_eq!(broker.depth(&queue("q")).await.unwrap(), 0);
        assert_eq!(broker.depth(&queue("other")).await.unwrap(), 1);
        // What a consumer holds is not purged, and the queue goes on.
        consumer.give_back(&tags(&held)).await.unwrap();
        let got = take(&mut *consumer, 1, &[("q", 1)]).await;
        assert_eq!(jobs(&got), jobs(&held));
        consumer.ack(&tags(&got)).await.unwrap();
        nothing_left(f, &*broker, &mut *consumer, "q").await;
    }

    pub(crate) async fn a_job_may_be_woken_twice(f: &mut BrokerFixture) {
        let broker = f.connect().await;
        let w = wake_up(f, "q", 5);
        publish(&*broker, &[w.clone(), w.clone()]).await;
        let mut consumer = broker.consumer().await.unwrap();
        let got = take(&mut *consumer, 2, &[("q", 2)]).await;
        assert_eq!(jobs(&got), [w.job, w.job]);
        // Each delivery is settled on its own.
        consumer.ack(&tags(&got)[..1]).await.unwrap();
        consumer.give_back(&tags(&got)[1..]).await.unwrap();
        assert_eq!(jobs(&take(&mut *consumer, 1, &[("q", 1)]).await), [w.job]);
    }

    pub(crate) async fn nothing_is_lost_among_many_publishers(f: &mut BrokerFixture) {
        let broker = f.connect().await;
        let mut all = BTreeSet::new();
        let mut publishers = tokio::task::JoinSet::new();
        for n in 0..8 {
            let batch: Vec<WakeUp> = (0..100).map(|i| wake_up(f, if i % 3 == 0 { "a" } else { "b" }, 1 + n)).collect();
            all.extend(ids(&batch));
            let publisher = f.connect().await;
            publishers.spawn(async move {
                for some in batch.chunks(3) {
                    publish(&*publisher, some).await;
                }
            });
        }
        let mut consumer = broker.consumer().await.unwrap();
        let mut seen = BTreeSet::new();
        while seen.len() < all.len() {
            let wanted = want(16, &[("a", 4), ("b", 12)]);
            let got = within("the rest", consumer.next(&wanted)).await.unwrap();
            consumer.ack(&tags(&got)).await.unwrap();
            for job in jobs(&got) {
                assert!(seen.insert(job), "delivered twice though acknowledged");
            }
        }
        publishers.join_all().await;
        assert_eq!(seen, all);
        nothing_left(f, &*broker, &mut *consumer, "a").await;
        nothing_left(f, &*broker, &mut *consumer, "b").await;
    }
}

pub(crate) mod broadcast {
    use app::{base::id::WorkerId, broker::Control};

    use super::*;

    pub(crate) async fn all_listeners_hear(f: &mut BrokerFixture) {
        let broker = f.connect().await;
        // Nobody listening is no failure.
        broker.broadcast(&Control::Ping).await.unwrap();
        let mut listeners = Vec::new();
        for _ in 0..3 {
            listeners.push(f.connect().await.listen().await.unwrap());
        }
        let said = [
            Control::Cancel { job: JobId(f.clock.new_uuid()) },
            Control::QueuesChanged,
            Control::Ping,
            Control::Pong { worker: WorkerId(f.clock.new_uuid()) },
            Control::Cancel { job: JobId(f.clock.new_uuid()) },
        ];
        for control in &said {
            broker.broadcast(control).await.unwrap();
        }
        for listener in &mut listeners {
            for control in &said {
                let heard = within("a broadcast", listener.next()).await.unwrap();
                assert_eq!(heard.as_ref(), Some(control));
            }
        }
    }

    pub(crate) async fn what_was_said_before_is_not_heard(f: &mut BrokerFixture) {
        let broker = f.connect().await;
        broker.broadcast(&Control::Ping).await.unwrap();
        let mut listener = broker.listen().await.unwrap();
        broker.broadcast(&Control::QueuesChanged).await.unwrap();
        assert_eq!(within("a broadcast", listener.next()).await.unwrap(), Some(Control::QueuesChanged));
    }

    pub(crate) async fn a_dropped_wait_misses_nothing(f: &mut BrokerFixture) {
        let broker = f.connect().await;
        let mut listener = broker.listen().await.unwrap();
        let mut heard = Vec::new();
        let mut said = Vec::new();
        for n in 0..100 {
            let job = JobId(f.clock.new_uuid());
            said.push(job);
            let speaker = std::sync::Arc::clone(&broker);
            let speech = tokio::spawn(async move { speaker.broadcast(&Control::Cancel { job }).await.unwrap() });
            let patience = std::time::Duration::from_micros(n % 20);
            if let Ok(Ok(Some(Control::Cancel { job }))) = tokio::time::timeout(patience, listener.next()).await {
                heard.push(job);
            }
            speech.await.unwrap();
        }
        while heard.len() < said.len() {
            match within("the rest", listener.next()).await.unwrap() {
                Some(Control::Cancel { job }) => heard.push(job),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(heard, said);
    }
}
