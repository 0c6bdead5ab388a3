//! The queue without HTTP: submit, drain by a real worker, pick-up latency.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use app::{
    app::{App, build},
    base::{clock::Clock, id::KindName, id::QueueName, shutdown::Shutdown},
    config,
    jobs::{
        context::JobContext,
        kind::{JobKind, KindOptions, Outcome},
        registry::{Defaults, Registry},
        service::{Jobs, Limits, Origin, Submit},
    },
    worker,
};

use crate::{JOBS, SLOTS, report::Report, scratch};

fn open(dir: &Path) -> App {
    let env = [
        ("APP__STORE__URL".to_owned(), format!("sqlite://{}", dir.join("app.db").display())),
        ("APP__WORKER__CONCURRENCY".to_owned(), SLOTS.to_string()),
        ("APP__JOBS__MAX_QUEUES".to_owned(), "1000".to_owned()),
    ];
    let sources = config::Sources { env: env.into_iter().collect(), ..config::Sources::default() };
    build(config::load(&sources).unwrap(), Clock::system()).unwrap()
}

fn job(kind: &str) -> Submit {
    Submit {
        kind: KindName::new(kind).unwrap(),
        payload: None,
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

async fn submit(jobs: &Jobs, n: usize) {
    jobs.submit((0..n).map(|_| job("noop")).collect(), &Origin::default(), None, |_| Vec::new()).await.unwrap();
}

/// Submits `jobs` jobs from `tasks` tasks, `batch` at a time; answers jobs a second.
async fn fill(app: &App, jobs: usize, tasks: usize, batch: usize) -> f64 {
    let start = Instant::now();
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        let service = Arc::clone(&app.jobs);
        set.spawn(async move {
            for _ in 0..jobs / tasks / batch {
                submit(&service, batch).await;
            }
        });
    }
    while let Some(done) = set.join_next().await {
        done.unwrap();
    }
    jobs as f64 / start.elapsed().as_secs_f64()
}

/// Runs a worker until `jobs` jobs are done; answers jobs a second.
async fn drain(app: &App, jobs: usize) -> f64 {
    let (deps, mut options) = app.worker();
    options.max_jobs = jobs as u64;
    let start = Instant::now();
    worker::run(deps, options, Shutdown::new()).await;
    let rate = jobs as f64 / start.elapsed().as_secs_f64();
    let left: u64 = app.stores.fleet.queues().await.unwrap().iter().map(|q| q.counts.queued + q.counts.running).sum();
    assert_eq!(left, 0, "the drain left jobs behind");
    rate
}

pub(crate) fn run(report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = scratch();
        let app = open(dir.path());
        report.add("submit in batches of 1000, in process (jobs/s)", fill(&app, JOBS, 4, 1000).await);
        report.add("drain of no-op jobs, 64 slots (jobs/s)", drain(&app, JOBS).await);
        let dir = scratch();
        let app = open(dir.path());
        report.add("submit one by one from 64 tasks, in process (jobs/s)", fill(&app, 64_000, 64, 1).await);
        crate::bare::sync(report).await;
        latency(report).await;
    });
}

/// The same drain when a million finished jobs are in the table.
pub(crate) fn history(report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = scratch();
        let app = open(dir.path());
        for _ in 0..5 {
            fill(&app, JOBS, 4, 1000).await;
            drain(&app, JOBS).await;
        }
        fill(&app, JOBS, 4, 1000).await;
        report.add("drain with 1,000,000 finished jobs in the table (jobs/s)", drain(&app, JOBS).await);
    });
}

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

/// From just before the submit to the first line of the handler: both the durable insert and the durable claim lie
/// between.
async fn latency(report: &mut Report) {
    const N: u64 = 1000;
    let dir = scratch();
    let app = open(dir.path());
    let began = Arc::new(Mutex::new(HashMap::new()));
    let (mut deps, options) = app.worker();
    let (queue, c) = (QueueName::new("default").unwrap(), &app.config.jobs);
    let mut registry = Registry::new(Defaults {
        queue: queue.clone(),
        max_attempts: c.max_attempts,
        backoff: app::base::backoff::Backoff::new(c.backoff_base, c.backoff_cap),
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
        let payload = serde_json::value::to_raw_value(&serde_json::json!({"n": n})).unwrap();
        let one = Submit { payload: Some(payload), ..job("stamp") };
        asked.insert(n, Instant::now());
        jobs.submit(vec![one], &Origin::default(), None, |_| Vec::new()).await.unwrap();
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
    report.add("pick-up at 100 jobs/s, p50 (us)", us[us.len() / 2]);
    report.add("pick-up at 100 jobs/s, p99 (us)", us[us.len() * 99 / 100]);
}
