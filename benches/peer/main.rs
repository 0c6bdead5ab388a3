//! This system as one more entrant of a harness that measures job queues (`benches/peer/peers.py` drives it):
//!
//! ```text
//! peer produce single|bulk|steady noop|tiny N     prints {"n":…,"secs":…}
//! peer work                                       runs until SIGTERM
//! ```
//! `STORE`, `BROKER` and `PREFIX` say where, `LOG` is the directory of the records: 16 bytes for each start of a handler (job
//! number, `CLOCK_MONOTONIC` in ns), and with `SLEEP_MS` for each end, whose number has its top bit set.
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
    fs::{File, OpenOptions},
    io::Write,
    sync::{Arc, OnceLock},
    time::Duration,
};

use app::{
    app::{App, build},
    base::{backoff::Backoff, clock::Clock, id::KindName, id::QueueName, shutdown::Shutdown},
    config,
    jobs::{
        context::JobContext,
        kind::{JobKind, KindOptions, Outcome},
        registry::{Defaults, Registry},
        service::{Jobs, Origin, Submit},
    },
    scheduler, worker,
};
use tokio_util::sync::CancellationToken;

fn now() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

fn record(name: &str, n: u64) {
    static FILE: OnceLock<File> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        let path = format!("{}/{name}{}.bin", std::env::var("LOG").unwrap(), std::process::id());
        OpenOptions::new().create(true).append(true).open(path).unwrap()
    });
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    bytes[8..].copy_from_slice(&now().to_le_bytes());
    (&*file).write_all(&bytes).unwrap();
}

struct Noop;
struct Tiny;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct NoopPayload {}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct TinyPayload {
    n: u64,
}

impl JobKind for Noop {
    const NAME: &'static str = "peer.noop";
    type Payload = NoopPayload;

    async fn run(&self, _ctx: JobContext, _: NoopPayload) -> Outcome {
        record("w", 0);
        Outcome::Done(None)
    }
}

impl JobKind for Tiny {
    const NAME: &'static str = "peer.tiny";
    type Payload = TinyPayload;

    fn options(&self) -> KindOptions {
        KindOptions { example: r#"{"n":1}"#, ..KindOptions::default() }
    }

    async fn run(&self, _ctx: JobContext, payload: TinyPayload) -> Outcome {
        record("w", payload.n);
        let ms: u64 = std::env::var("SLEEP_MS").ok().and_then(|v| v.parse().ok()).unwrap_or(0);
        if ms > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            record("w", payload.n | 1 << 63);
        }
        Outcome::Done(None)
    }
}

fn open() -> (App, Arc<Registry>) {
    let set = |key: &str, value: String| (key.to_owned(), value);
    let flags = vec![
        set("store.url", std::env::var("STORE").unwrap()),
        set("broker.url", std::env::var("BROKER").unwrap()),
        set("broker.prefix", std::env::var("PREFIX").unwrap_or_else(|_| "peer-".to_owned())),
        set("worker.concurrency", std::env::var("SLOTS").unwrap_or_else(|_| "64".to_owned())),
        set("worker.queues", "default".to_owned()),
    ];
    let app = build(config::load(&config::Sources { flags, ..config::Sources::default() }).unwrap(), Clock::system());
    let app = app.unwrap();
    let c = &app.config.jobs;
    let mut registry = Registry::new(Defaults {
        queue: QueueName::new("default").unwrap(),
        max_attempts: c.max_attempts,
        backoff: Backoff::new(c.backoff_base, c.backoff_cap),
        timeout: c.timeout,
    });
    registry.add(Noop).unwrap();
    registry.add(Tiny).unwrap();
    (app, Arc::new(registry))
}

fn job(kind: &str, n: u64) -> Submit {
    let payload = match kind {
        "noop" => "{}".to_owned(),
        _ => format!("{{\"n\":{n}}}"),
    };
    Submit {
        kind: KindName::new(&format!("peer.{kind}")).unwrap(),
        payload: Some(serde_json::value::RawValue::from_string(payload).unwrap()),
        queue: None,
        priority: None,
        run_at: None,
        delay: None,
        max_attempts: None,
        timeout: None,
        backoff: None,
        tags: Vec::new(),
    }
}

async fn produce(mode: &str, kind: &str, n: u64) {
    let (app, registry) = open();
    let (store, fleet, broker) = (Arc::clone(&app.stores.jobs), Arc::clone(&app.stores.fleet), Arc::clone(&app.broker));
    let jobs = Jobs::new(store, fleet, broker, registry, app.clock.clone(), app.jobs.limits().clone());
    let submit = async |some: Vec<Submit>| {
        jobs.submit(some, &Origin::default(), None, |_| Vec::new()).await.unwrap();
    };
    // Connections are not what is measured.
    jobs.queues().await.unwrap();
    let start = now();
    match mode {
        "bulk" => {
            for from in (0..n).step_by(1000) {
                submit((from..n.min(from + 1000)).map(|i| job(kind, i)).collect()).await;
            }
        }
        "steady" => {
            for i in 0..n {
                let due = start + i * 10_000_000;
                tokio::time::sleep(Duration::from_nanos(due.saturating_sub(now()))).await;
                record("enq", i);
                submit(vec![job(kind, i)]).await;
            }
        }
        _ => {
            for i in 0..n {
                submit(vec![job(kind, i)]).await;
            }
        }
    }
    println!("{{\"n\":{n},\"secs\":{}}}", (now() - start) as f64 / 1e9);
}

async fn work() {
    let (app, registry) = open();
    let (mut deps, options) = app.worker();
    deps.registry = registry;
    let shutdown = Shutdown::new();
    shutdown.listen().unwrap();
    let (scheduler_deps, scheduler_options) = app.scheduler();
    let stop = CancellationToken::new();
    let scheduler = tokio::spawn(scheduler::run(scheduler_deps, scheduler_options, stop.clone()));
    worker::run(deps, options, shutdown).await;
    stop.cancel();
    scheduler.await.unwrap();
}

#[tokio::main]
async fn main() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["produce", mode, kind, n] => produce(mode, kind, n.parse().unwrap()).await,
        ["work"] => work().await,
        // `cargo bench` runs every benchmark: this one needs its harness.
        _ => println!("usage: peer produce single|bulk|steady noop|tiny N, or peer work"),
    }
}
