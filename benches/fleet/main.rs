//! Measures the fleet over MongoDB and each broker, in one run beside its ceiling, as ratios: `make bench-fleet`.
//!
//! Servers, workers and load share the machine. Workers and the API are real processes of the release binary. A drain
//! begins with a full queue and is timed by what the store says: from the first start to the last end. Each run checks
//! that every job succeeded in exactly one run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a benchmark that cannot go on should say where and stop"
)]

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use mongodb::{
    Client, Collection,
    bson::{DateTime, Document, doc},
};

mod bare;
#[path = "../broker/bare.rs"]
mod brokers;
mod delivery;
mod latency;
mod report;

use report::Report;

/// The program's own, so that what is measured in this process is what the program does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Jobs of a drain.
pub(crate) const JOBS: usize = 100_000;
/// Slots of a worker.
pub(crate) const SLOTS: usize = 64;

/// A process of the fleet; killed when dropped.
struct Role(Child);

impl Drop for Role {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Where one measurement runs: a database and names in the broker of its own.
pub(crate) struct Place {
    pub(crate) store: String,
    pub(crate) broker: String,
    pub(crate) prefix: String,
}

impl Place {
    fn new(server: &str, broker: &str) -> Self {
        let unique = uuid::Uuid::now_v7().simple().to_string();
        let (base, options) = server.split_once('?').unwrap_or((server, ""));
        let store = format!("{}/bench_{unique}?{options}", base.trim_end_matches('/'));
        Self { store, broker: broker.to_owned(), prefix: format!("bench-{unique}-") }
    }

    fn start(&self, role: &str, args: &[&str]) -> Role {
        let mut command = Command::new(env!("CARGO_BIN_EXE_app"));
        command.arg(role).args(args).env("APP__LOG__LEVEL", "warn").env("APP__LOG__REQUESTS", "off");
        command.env("APP__STORE__URL", &self.store).env("APP__BROKER__URL", &self.broker);
        command.env("APP__BROKER__PREFIX", &self.prefix).stdin(Stdio::null()).stdout(Stdio::null());
        Role(command.spawn().unwrap())
    }

    async fn jobs(&self) -> Collection<Document> {
        let client = Client::with_uri_str(&self.store).await.unwrap();
        client.default_database().unwrap().collection("jobs")
    }

    async fn clear(&self) {
        Client::with_uri_str(&self.store).await.unwrap().default_database().unwrap().drop().await.unwrap();
    }
}

/// Submits `JOBS` jobs by HTTP, 1000 a request over 4 connections; answers jobs a second.
async fn bulk(url: &str) -> f64 {
    let one = serde_json::json!({ "kind": "noop" });
    let body = serde_json::json!({ "jobs": vec![one; 1000] }).to_string();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (client, body, url) = (client.clone(), body.clone(), format!("{url}/api/v1/jobs/bulk"));
        tasks.spawn(async move {
            for _ in 0..JOBS / 4 / 1000 {
                let request = client.post(&url).header("content-type", "application/json").body(body.clone());
                let answer = request.send().await.unwrap();
                assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
                answer.bytes().await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    JOBS as f64 / start.elapsed().as_secs_f64()
}

/// Submits jobs one a request over 64 connections; answers jobs a second.
async fn single(url: &str, n: usize) -> f64 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (client, url) = (client.clone(), format!("{url}/api/v1/jobs"));
        tasks.spawn(async move {
            for _ in 0..n / 64 {
                let request = client.post(&url).header("content-type", "application/json").body(r#"{"kind":"noop"}"#);
                assert_eq!(request.send().await.unwrap().status(), 202);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    n as f64 / start.elapsed().as_secs_f64()
}

async fn ready(url: &str) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    loop {
        if client.get(format!("{url}/health/ready")).send().await.is_ok_and(|r| r.status() == 200) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs so many workers until all is done; answers jobs a second and the resident memory of the biggest worker, in MB.
async fn drain(place: &Place, workers: usize) -> (f64, f64) {
    let jobs = place.jobs().await;
    let slots = SLOTS.to_string();
    let args = ["--queues", "default", "--concurrency", slots.as_str()];
    let running: Vec<Role> = (0..workers).map(|_| place.start("worker", &args)).collect();
    // One look at the end of the index, where the last ones to run are: counting what is left, or looking for the first one
    // behind all that are gone, would take the server a good part of a core.
    let last = doc! { "state": -1, "queue": -1, "at": -1, "_id": -1 };
    while jobs.find_one(doc! { "state": 1 }).sort(last.clone()).hint(by_state()).await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    while jobs.count_documents(doc! { "state": 2 }).await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let rss = running.iter().map(|r| peak_rss(r.0.id())).fold(0.0, f64::max);
    drop(running);
    let exact = doc! { "state": 3, "fence": 1, "attempts": { "$exists": false } };
    assert_eq!(jobs.count_documents(exact).await.unwrap(), JOBS as u64, "every job succeeded in exactly one run");
    let first = edge(&jobs, "started", 1).await;
    let last = edge(&jobs, "at", -1).await;
    ((JOBS - 1) as f64 / ((last - first) as f64 / 1000.0), rss)
}

fn by_state() -> mongodb::options::Hint {
    mongodb::options::Hint::Name("queued".to_owned())
}

async fn edge(jobs: &Collection<Document>, field: &str, order: i32) -> i64 {
    let found = jobs.find_one(Document::new()).sort(doc! { field: order }).await.unwrap().unwrap();
    found.get_datetime(field).map(|d: &DateTime| d.timestamp_millis()).unwrap()
}

fn peak_rss(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or_default();
    let kb: f64 = line.split_ascii_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0.0);
    kb / 1024.0
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn drains(report: &mut Report, name: &str, server: &str, broker: &str) {
    for workers in [1, 2] {
        let place = Place::new(server, broker);
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        let api = place.start("serve", &["--port", &port.to_string()]);
        ready(&url).await;
        report.add(&format!("{name}: bulk submit by HTTP, 1000 a request (jobs/s)"), bulk(&url).await);
        report.add(&format!("{name}: peak memory of serve after bulk (MB)"), peak_rss(api.0.id()));
        if workers == 1 {
            drop(api);
        }
        let (rate, rss) = drain(&place, workers).await;
        report.add(&format!("{name}: drain of no-op jobs, {workers} worker(s) (jobs/s)"), rate);
        report.add(&format!("{name}: peak memory of a worker (MB)"), rss);
        if workers == 2 {
            report.add(
                &format!("{name}: submit by HTTP, one a request, 64 clients (jobs/s)"),
                single(&url, 32_000).await,
            );
        }
        place.clear().await;
    }
}

async fn pick_up(report: &mut Report, name: &str, server: &str, broker: &str) {
    let place = Place::new(server, broker);
    let us = tokio::task::block_in_place(|| latency::run(&place));
    report.add_times(&format!("{name}: pick-up at 100 jobs/s"), us);
    place.clear().await;
}

async fn hops(report: &mut Report, server: &str, broker: &str) {
    let place = Place::new(server, broker);
    let (hop, whole) = tokio::task::block_in_place(|| delivery::run(&place));
    report.add_times("bare lapin and mongodb: publish to delivery, at 100/s", hop);
    report.add_times("bare lapin and mongodb: durable insert, publish to delivery, durable insert, at 100/s", whole);
    place.clear().await;
}

fn main() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let reps: usize = std::env::var("BENCH_REPS").ok().and_then(|r| r.parse().ok()).unwrap_or(3);
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only.split(',').any(|p| p == part);
    let url =
        |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} names no server: run `make bench-fleet`"));
    let (mongodb, redis, amqp) = (url("TEST_MONGODB_URL"), url("TEST_REDIS_URL"), url("TEST_AMQP_URL"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut report = Report::default();
    runtime.block_on(async {
        bare::initiate(&mongodb).await;
        for rep in 1..=reps {
            eprintln!("run {rep} of {reps}");
            if wanted("bare") {
                bare::mongodb(&mut report, &Place::new(&mongodb, "")).await;
            }
            if wanted("bare") || wanted("pick-up") {
                bare::two_inserts(&mut report, &Place::new(&mongodb, "")).await;
            }
            if wanted("redis") {
                let (publish, take) = brokers::redis(&redis).await;
                report.add("bare redis: push one by one, pipelined (/s)", publish);
                report.add("bare redis: pop 64 at a time (/s)", take);
                drains(&mut report, "redis + mongodb", &mongodb, &redis).await;
            }
            if wanted("redis") || wanted("pick-up") {
                pick_up(&mut report, "redis + mongodb", &mongodb, &redis).await;
            }
            if wanted("rabbitmq") {
                let (publish, take, _) = brokers::rabbitmq(&amqp).await;
                report.add("bare rabbitmq: publish + confirm, pipelined (/s)", publish);
                report.add("bare rabbitmq: consume + ack (/s)", take);
                let all = 1.0 / (1.0 / publish + 1.0 / take);
                report.add("bare rabbitmq: publish + confirm, then consume + ack (/s)", all);
                drains(&mut report, "rabbitmq + mongodb", &mongodb, &amqp).await;
            }
            if wanted("rabbitmq") || wanted("pick-up") {
                hops(&mut report, &mongodb, &amqp).await;
                pick_up(&mut report, "rabbitmq + mongodb", &mongodb, &amqp).await;
            }
        }
    });
    report.print();
}
