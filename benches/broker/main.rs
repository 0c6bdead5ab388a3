//! Measures each broker beside the bare library on the same server, in one run, as ratios: `make bench-broker`.
//!
//! Publish in batches of 1000, then drain by one consumer with 64 slots (take and acknowledge, no store). Every figure
//! is the median of `BENCH_REPS` (3) runs, and each run checks that exactly what was published came.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark that cannot go on should say where and stop"
)]

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use app::{
    base::id::{Priority, QueueName},
    broker::{self, Broker, Options, WakeUp, Want},
};

mod bare;

use bare::{BATCH, N, SLOTS, job, rate};

/// Figures by broker and name, in the order in which they came.
#[derive(Default)]
struct Report(BTreeMap<(usize, String), Vec<f64>>, Vec<String>);

impl Report {
    fn add(&mut self, name: &str, value: f64) {
        let at = self.1.iter().position(|n| n == name).unwrap_or_else(|| {
            self.1.push(name.to_owned());
            self.1.len() - 1
        });
        self.0.entry((at, name.to_owned())).or_default().push(value);
    }

    fn median(&self, name: &str) -> Option<f64> {
        let at = self.1.iter().position(|n| n == name)?;
        let mut values = self.0[&(at, name.to_owned())].clone();
        values.sort_by(f64::total_cmp);
        Some(values[values.len() / 2])
    }

    fn print(&self) {
        println!("{:<60} {:>12} {:>25} {:>10}", "", "median", "range", "of bare");
        for ((_, name), values) in &self.0 {
            let (min, max) = values.iter().fold((f64::MAX, 0.0_f64), |(a, b), v| (a.min(*v), b.max(*v)));
            let median = self.median(name).unwrap();
            let bare = self.median(&format!("bare {name}"));
            let ratio = bare.map_or(String::new(), |b| format!("{:.0} %", median / b * 100.0));
            println!("{name:<60} {median:>12.0} {:>25} {ratio:>10}", format!("{min:.0} .. {max:.0}"));
        }
    }
}

fn wake_up(n: usize, queue: &QueueName) -> WakeUp {
    broker::wake_up(job(n as u64), queue, Priority::MEDIUM)
}

async fn fill(broker: &dyn Broker, queue: &QueueName, n: usize) -> f64 {
    let all: Vec<WakeUp> = (0..n).map(|i| wake_up(i, queue)).collect();
    let start = Instant::now();
    for batch in all.chunks(BATCH) {
        broker.publish(batch).await.unwrap();
    }
    rate(n, start)
}

/// Takes and acknowledges all. `step`: how many slots come free at a time.
async fn drain(broker: &dyn Broker, queues: &[QueueName], n: usize, step: usize) -> f64 {
    let mut consumer = broker.consumer().await.unwrap();
    let mut seen = HashSet::with_capacity(n);
    let mut busy: std::collections::VecDeque<u64> = std::collections::VecDeque::new();
    let start = Instant::now();
    while seen.len() < n {
        let free = (SLOTS - busy.len()).max(1);
        let share = free.div_ceil(queues.len());
        let want = Want { max: free, shares: queues.iter().map(|q| (q.clone(), share)).collect() };
        let got = consumer.next(&want).await.unwrap();
        for d in &got {
            assert!(seen.insert(d.wake_up.job), "delivered twice");
            busy.push_back(d.tag);
        }
        let done: Vec<u64> = busy.drain(..step.min(busy.len())).collect();
        consumer.ack(&done).await.unwrap();
    }
    let rate = rate(n, start);
    let rest: Vec<u64> = busy.into_iter().collect();
    consumer.ack(&rest).await.unwrap();
    drop(consumer);
    assert_eq!(broker.depth(&queues[0]).await.unwrap(), 0);
    rate
}

/// From just before a publish to its delivery, at 100 a second; p50 and p99 in microseconds.
async fn latency(broker: Arc<dyn Broker>, queues: &[QueueName]) -> (f64, f64) {
    const ROUNDS: usize = 500;
    let mut consumer = broker.consumer().await.unwrap();
    let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
    let shares: Vec<_> = queues.iter().map(|q| (q.clone(), SLOTS)).collect();
    let taking = tokio::spawn(async move {
        loop {
            let got = consumer.next(&Want { max: SLOTS, shares: shares.clone() }).await.unwrap();
            for d in got {
                consumer.ack(&[d.tag]).await.unwrap();
                tx.send((d.wake_up.job, Instant::now())).unwrap();
            }
        }
    });
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let mut us = Vec::new();
    for n in 0..ROUNDS + 20 {
        tick.tick().await;
        let start = Instant::now();
        broker.publish(&[wake_up(n, &queues[0])]).await.unwrap();
        let (job, at) = rx.recv().await.unwrap();
        assert_eq!(job, self::job(n as u64));
        if n >= 20 {
            us.push((at - start).as_secs_f64() * 1e6);
        }
    }
    taking.abort();
    us.sort_by(f64::total_cmp);
    (us[us.len() / 2], us[us.len() * 99 / 100])
}

async fn run(report: &mut Report, name: &str, url: &str) {
    let prefix = format!("bench-{}-", uuid::Uuid::now_v7().simple());
    let broker = broker::connect(url, &Options { prefix: prefix.clone(), ..Options::default() }).unwrap();
    let one = [QueueName::new("default").unwrap()];
    let three = ["default", "heavy", "scheduled"].map(|q| QueueName::new(q).unwrap());
    report.add(&format!("{name}: publish, batches of 1000 (/s)"), fill(&*broker, &one[0], N).await);
    report.add(&format!("{name}: take + ack, 64 slots (/s)"), drain(&*broker, &one, N, SLOTS).await);
    fill(&*broker, &three[0], N).await;
    report.add(&format!("{name}: take + ack, 3 queues, 8 slots at a time (/s)"), drain(&*broker, &three, N, 8).await);
    let (p50, p99) = latency(Arc::clone(&broker), &three).await;
    report.add(&format!("{name}: publish to delivery at 100/s, p50 (us)"), p50);
    report.add(&format!("{name}: publish to delivery at 100/s, p99 (us)"), p99);
}

#[allow(clippy::print_stderr, reason = "progress of a run of minutes")]
fn main() {
    let reps: usize = std::env::var("BENCH_REPS").ok().and_then(|r| r.parse().ok()).unwrap_or(3);
    let url =
        |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} names no server: run `make bench-broker`"));
    let (redis, amqp) = (url("TEST_REDIS_URL"), url("TEST_AMQP_URL"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut report = Report::default();
    for rep in 1..=reps {
        eprintln!("run {rep} of {reps}");
        runtime.block_on(async {
            run(&mut report, "embedded", "embedded://").await;
            let (publish, take) = bare::redis(&redis).await;
            report.add("bare redis: publish, batches of 1000 (/s)", publish);
            report.add("bare redis: take + ack, 64 slots (/s)", take);
            run(&mut report, "redis", &redis).await;
            let (publish, take, get) = bare::rabbitmq(&amqp).await;
            report.add("bare rabbitmq: publish, batches of 1000 (/s)", publish);
            report.add("bare rabbitmq: take + ack, 64 slots (/s)", take);
            report.add("bare rabbitmq: pipelined get of 64, one ack (/s)", get);
            run(&mut report, "rabbitmq", &amqp).await;
        });
    }
    report.print();
}
