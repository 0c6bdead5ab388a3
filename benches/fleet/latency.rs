//! From just before a submit to the first line of the handler, over the real servers, in one process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use app::{
    app::{App, build},
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

/// The queue and a registry that knows the one kind.
fn registry(kind: Stamp, jobs: &config::Jobs) -> (QueueName, Arc<Registry>) {
    let queue = QueueName::new("default").unwrap();
    let mut registry = Registry::new(Defaults {
        queue: queue.clone(),
        max_attempts: jobs.max_attempts,
        backoff: Backoff::new(jobs.backoff_base, jobs.backoff_cap),
        timeout: jobs.timeout,
    });
    registry.add(kind).unwrap();
    (queue, Arc::new(registry))
}

/// Submits as a thread of `serve` does; answers when each was asked for.
async fn submit(app: App, kind: Stamp, n: u64) -> HashMap<u64, Instant> {
    let deps = app.worker().0;
    let (queue, registry) = registry(kind, &app.config.jobs);
    let limits = Limits { queues: vec![queue], ..app.jobs.limits().clone() };
    let jobs = Jobs::new(deps.store, deps.fleet, deps.broker, registry, deps.clock, limits);
    let mut asked = HashMap::new();
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    for n in 0..n {
        tick.tick().await;
        asked.insert(n, Instant::now());
        jobs.submit(vec![stamp(n)], &Origin::default(), None, |_| Vec::new()).await.unwrap();
    }
    asked
}

/// Microseconds that each of 1000 jobs took, at 100 a second. The two sides are threads of their own with clients of their own, as
/// the two processes are.
pub(crate) fn run(place: &Place) -> Vec<f64> {
    const N: u64 = 1000;
    const WARM_UP: u64 = 50;
    let flags = [
        ("store.url", place.store.clone()),
        ("broker.url", place.broker.clone()),
        ("broker.prefix", place.prefix.clone()),
        ("worker.concurrency", SLOTS.to_string()),
    ];
    let flags = flags.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let sources = config::Sources { flags, ..config::Sources::default() };
    let app = || build(config::load(&sources).unwrap(), Clock::system()).unwrap();
    let began = Arc::new(Mutex::new(HashMap::new()));
    let shutdown = Shutdown::new();
    let asked = std::thread::scope(|threads| {
        let worker = threads.spawn(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let app = app();
                let (mut deps, options) = app.worker();
                deps.registry = registry(Stamp(Arc::clone(&began)), &app.config.jobs).1;
                // A task, as in the program: the runtime wakes those sooner than what it was made for.
                tokio::spawn(worker::run(deps, options, shutdown.clone())).await.unwrap();
            });
        });
        let submit = threads.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(submit(app(), Stamp(Arc::clone(&began)), N + WARM_UP))
        });
        let asked = submit.join().unwrap();
        while began.lock().unwrap().len() < asked.len() {
            std::thread::sleep(Duration::from_millis(10));
        }
        shutdown.drain.cancel();
        worker.join().unwrap();
        asked
    });
    let began = began.lock().unwrap();
    (WARM_UP..N + WARM_UP).map(|n| (began[&n] - asked[&n]).as_secs_f64() * 1e6).collect()
}
