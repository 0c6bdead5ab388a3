//! Cases about connections, and about what is held in between.

use std::collections::BTreeSet;

use super::*;

pub(crate) async fn thousands_are_published_at_once(f: &mut BrokerFixture) {
    let all: Vec<WakeUp> = (0..6000).map(|n| wake_up(f, if n % 5 == 0 { "a" } else { "b" }, 1 + n % 10)).collect();
    publish(&*f.connect().await, &all).await;
    // Another connection sees all of them.
    let broker = f.connect().await;
    let depths = (broker.depth(&queue("a")).await.unwrap(), broker.depth(&queue("b")).await.unwrap());
    assert_eq!(depths, (1200, 4800));
    let mut consumer = broker.consumer().await.unwrap();
    let (mut seen, mut last) = (BTreeSet::new(), 10);
    while seen.len() < 4800 {
        let got = within("the rest", consumer.next(&want(64, &[("b", 64)]))).await.unwrap();
        consumer.ack(&tags(&got)).await.unwrap();
        for d in got {
            assert!(d.wake_up.priority.get() <= last, "strict over any number");
            last = d.wake_up.priority.get();
            assert!(seen.insert(d.wake_up.job));
        }
    }
    assert!(all.iter().all(|w| (w.queue == queue("b")) == seen.contains(&w.job)));
    assert_eq!(broker.purge(&queue("a")).await.unwrap(), 1200);
}

pub(crate) async fn wants_may_change(f: &mut BrokerFixture) {
    let broker = f.connect().await;
    let mut consumer = broker.consumer().await.unwrap();
    let (a, b) = (wake_up(f, "a", 5), wake_up(f, "b", 5));
    // It waits for one queue, is told of another, and then waits for both.
    let wanted = want(2, &[("a", 2)]);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(5), consumer.next(&wanted)).await.is_err());
    publish(&*broker, std::slice::from_ref(&b)).await;
    assert_eq!(jobs(&take(&mut *consumer, 1, &[("a", 1), ("b", 1)]).await), [b.job]);
    let wanted = want(2, &[("b", 2), ("a", 0)]);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(5), consumer.next(&wanted)).await.is_err());
    publish(&*broker, std::slice::from_ref(&a)).await;
    assert_eq!(jobs(&take(&mut *consumer, 1, &[("b", 1), ("a", 0)]).await), [a.job]);
}

pub(crate) async fn who_does_not_ask_holds_nothing(f: &mut BrokerFixture) {
    let broker = f.connect().await;
    let mut lazy = f.connect().await.consumer().await.unwrap();
    let wanted = want(4, &[("q", 4)]);
    // It waited, and has given up; or gives up while something comes.
    assert!(tokio::time::timeout(std::time::Duration::from_millis(20), lazy.next(&wanted)).await.is_err());
    let all: Vec<WakeUp> = (0..8).map(|_| wake_up(f, "q", 5)).collect();
    publish(&*broker, &all).await;
    let mut eager = broker.consumer().await.unwrap();
    let seen: BTreeSet<JobId> = jobs(&take(&mut *eager, 8, &[("q", 8)]).await).into_iter().collect();
    assert_eq!(seen, ids(&all).into_iter().collect());
    drop(lazy);
}

pub(crate) async fn every_free_slot_gets_one(f: &mut BrokerFixture) {
    const WORKERS: usize = 3;
    const SLOTS: usize = 4;
    let mut workers = tokio::task::JoinSet::new();
    let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..WORKERS {
        let (mut consumer, tx) = (f.connect().await.consumer().await.unwrap(), tx.clone());
        workers.spawn(async move {
            let mut free = SLOTS;
            // Nothing ends: whoever holds one that it has no slot for keeps it from a free slot elsewhere.
            while free > 0 {
                let got = consumer.next(&want(free, &[("a", free), ("b", free)])).await.unwrap();
                free -= got.len();
                got.iter().for_each(|d| tx.send(d.wake_up.job).unwrap_or_default());
            }
            std::future::pending::<()>().await;
        });
    }
    let all: Vec<WakeUp> = (0..12).map(|n| wake_up(f, if n % 4 == 0 { "b" } else { "a" }, 5)).collect();
    publish(&*f.connect().await, &all).await;
    let mut seen = BTreeSet::new();
    while seen.len() < WORKERS * SLOTS {
        seen.insert(within("all run at once", rx.recv()).await.unwrap());
    }
    assert_eq!(seen, ids(&all).into_iter().collect());
    workers.shutdown().await;
}

pub(crate) async fn a_broken_connection_gives_back_and_is_made_again(f: &mut BrokerFixture) {
    let (broker, proxy) = f.connect_breakable().await;
    let all: Vec<WakeUp> = (0..4).map(|_| wake_up(f, "q", 5)).collect();
    publish(&*broker, &all).await;
    let mut first = broker.consumer().await.unwrap();
    let mut listener = broker.listen().await.unwrap();
    let got = take(&mut *first, 2, &[("q", 2)]).await;
    if let Some(proxy) = proxy {
        proxy.cut();
        // Whoever waits is told.
        within("the consumer errs", first.next(&want(1, &[("silent", 1)]))).await.unwrap_err();
        within("the listener errs", listener.next()).await.unwrap_err();
        assert!(first.ack(&tags(&got)).await.is_err());
        drop(first);
        take_all(&*broker, &all).await;
        return;
    }
    drop(first);
    take_all(&*broker, &all).await;
}

/// The same broker, over new connections, delivers all of them.
async fn take_all(broker: &dyn Broker, all: &[WakeUp]) {
    let mut second = within("a new consumer", broker.consumer()).await.unwrap();
    let (wanted, mut seen): (BTreeSet<JobId>, _) = (ids(all).into_iter().collect(), BTreeSet::new());
    // What was given back while the connection broke may come twice: the answer was lost, not the command.
    while !seen.is_superset(&wanted) {
        seen.extend(jobs(&take(&mut *second, 1, &[("q", 1)]).await));
    }
    assert_eq!(seen, wanted);
    broker.publish(all).await.unwrap();
    broker.broadcast(&app::broker::Control::Ping).await.unwrap();
    // The two that were given back may lie there a second time, even from now on.
    let purged = broker.purge(&queue("q")).await.unwrap();
    assert!((4..=6).contains(&purged), "{purged}");
}
