//! From just before a submit to the first line of the handler, over the real servers, in one process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use app::{
    app::build,
    base::{backoff::Backoff, clock::Clock, id::KindName, id::QueueName, shutdown::Shutdown},
    config,
    jobs::{
        context::JobContext,
        kind::{JobKind, KindOptions, Outcome},
        registry::{Defaults, Registry},
        service::{Jobs, Limits, Origin, Submit},
    },
    worker,
};

use crate::{Place, SLOTS};

/// Notes when each job's handler began.
struct Stamp(Arc<Mutex<HashMap<u64, Instant>>>);

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct StampPayload {
    n: u64,
}

impl JobKind for Stamp {
    const NAME: &'static str = "stamp";
    type Payload = StampPayload;

    fn options(&self) -> KindOptions {
        KindOptions { example: r#"{"n":1}"#, ..KindOptions::default() }
    }

    async fn run(&self, _ctx: JobContext, payload: StampPayload) -> Outcome {
        self.0.lock().unwrap().insert(payload.n, Instant::now());
        Outcome::Done(None)
    }
}

fn stamp(n: u64) -> Submit {
    Submit {
        kind: KindName::new("stamp").unwrap(),
        payload: Some(serde_json::value::to_raw_value(&serde_json::json!({ "n": n })).unwrap()),
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

/// p50 and p99 in microseconds, of 1000 jobs at 100 a second.
pub(crate) async fn run(place: &Place) -> (f64, f64) {
    const N: u64 = 1000;
    let flags = [
        ("store.url", place.store.clone()),
        ("broker.url", place.broker.clone()),
        ("broker.prefix", place.prefix.clone()),
        ("worker.concurrency", SLOTS.to_string()),
    ];
    let flags = flags.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let app = build(config::load(&config::Sources { flags, ..config::Sources::default() }).unwrap(), Clock::system());
    let app = app.unwrap();
    let began = Arc::new(Mutex::new(HashMap::new()));
    let (mut deps, options) = app.worker();
    let (queue, c) = (QueueName::new("default").unwrap(), &app.config.jobs);
    let mut registry = Registry::new(Defaults {
        queue: queue.clone(),
        max_attempts: c.max_attempts,
        backoff: Backoff::new(c.backoff_base, c.backoff_cap),
        timeout: c.timeout,
    });
    registry.add(Stamp(Arc::clone(&began))).unwrap();
    deps.registry = Arc::new(registry);
    let limits = Limits { queues: vec![queue], ..app.jobs.limits().clone() };
    let (store, fleet) = (Arc::clone(&deps.store), Arc::clone(&deps.fleet));
    let (broker, registry, clock) = (Arc::clone(&deps.broker), Arc::clone(&deps.registry), deps.clock.clone());
    let jobs = Jobs::new(store, fleet, broker, registry, clock, limits);
    let shutdown = Shutdown::new();
    let worker = tokio::spawn(worker::run(deps, options, shutdown.clone()));
    let mut asked = HashMap::new();
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    for n in 0..N + 50 {
        tick.tick().await;
        asked.insert(n, Instant::now());
        jobs.submit(vec![stamp(n)], &Origin::default(), None, |_| Vec::new()).await.unwrap();
    }
    while began.lock().unwrap().len() < asked.len() {
        tick.tick().await;
    }
    shutdown.drain.cancel();
    worker.await.unwrap();
    let began = began.lock().unwrap();
    // The first ones warm up.
    let mut us: Vec<f64> = (50..N + 50).map(|n| (began[&n] - asked[&n]).as_secs_f64() * 1e6).collect();
    us.sort_by(f64::total_cmp);
    (us[us.len() / 2], us[us.len() * 99 / 100])
}
