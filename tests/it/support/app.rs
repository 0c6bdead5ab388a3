//! A whole app in a directory of its own, with workers and a scheduler that a test starts and stops as it likes.

use std::{path::PathBuf, time::Duration};

use app::{
    app::{App, build},
    base::{clock::Clock, id::JobId, shutdown::Shutdown},
    config::{Sources, load},
    jobs::{
        model::Job,
        service::{Origin, Submit},
        state::State,
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    eventually,
    jobs::{kind, priority, queue, raw},
    within,
};

/// Settings of every test app: as usual, but with nothing that waits for long.
const QUICK: &[(&str, &str)] = &[
    ("store.sync", "normal"),
    ("jobs.backoff_base", "10ms"),
    ("jobs.backoff_cap", "50ms"),
    ("jobs.lease", "10s"),
    ("jobs.renew_every", "100ms"),
    ("worker.queues", "default,a,b"),
    ("worker.concurrency", "2"),
    ("worker.heartbeat", "50ms"),
    ("worker.shutdown_grace", "1h"),
    ("scheduler.due_every", "10ms"),
    ("scheduler.expired_every", "20ms"),
    ("scheduler.lost_every", "20ms"),
];

/// An app without any role running yet.
pub(crate) struct TestApp {
    pub(crate) app: App,
    dir: TempDir,
    stop: CancellationToken,
    schedulers: Vec<JoinHandle<()>>,
}

/// A worker under way.
pub(crate) struct TestWorker {
    pub(crate) shutdown: Shutdown,
    task: JoinHandle<()>,
}

impl TestApp {
    /// An app with these settings besides [`QUICK`].
    pub(crate) fn new(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("app.db").display());
        let mut flags: Vec<(String, String)> = vec![("store.url".to_owned(), url)];
        for (key, value) in QUICK.iter().chain(settings) {
            flags.retain(|(k, _)| k != key);
            flags.push(((*key).to_owned(), (*value).to_owned()));
        }
        let config = load(&Sources { flags, ..Sources::default() }).unwrap();
        let app = build(config, Clock::system()).unwrap();
        Self { app, dir, stop: CancellationToken::new(), schedulers: Vec::new() }
    }

    /// An app with a worker and a scheduler.
    pub(crate) fn running(settings: &[(&str, &str)]) -> (Self, TestWorker) {
        let mut this = Self::new(settings);
        this.start_scheduler();
        let worker = this.start_worker();
        (this, worker)
    }

    pub(crate) fn start_worker(&self) -> TestWorker {
        let (deps, options) = self.app.worker();
        let shutdown = Shutdown::new();
        let task = tokio::spawn(app::worker::run(deps, options, shutdown.clone()));
        TestWorker { shutdown, task }
    }

    pub(crate) fn start_scheduler(&mut self) {
        let (deps, options) = self.app.scheduler();
        self.schedulers.push(tokio::spawn(app::scheduler::run(deps, options, self.stop.clone())));
    }

    /// A file of this test's own, for steps that wait for one or write to one.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Lets every step that waits for this file go on.
    pub(crate) fn touch(&self, name: &str) {
        std::fs::write(self.file(name), "").unwrap();
    }

    /// The jobs that appended themselves to this file, in order.
    pub(crate) fn appended(&self, name: &str) -> Vec<JobId> {
        let text = std::fs::read_to_string(self.file(name)).unwrap_or_default();
        text.lines().map(|l| l.split(' ').next().unwrap().parse().unwrap()).collect()
    }

    /// Submits a `test.script` job with these runs.
    pub(crate) async fn submit(&self, runs: Value) -> JobId {
        self.submit_with(runs, |_| {}).await
    }

    pub(crate) async fn submit_to(&self, q: &str, runs: Value) -> JobId {
        self.submit_with(runs, |s| s.queue = Some(queue(q))).await
    }

    pub(crate) async fn submit_with(&self, runs: Value, change: impl FnOnce(&mut Submit)) -> JobId {
        let mut submit = Submit {
            kind: kind("test.script"),
            payload: Some(raw(&json!({ "runs": runs }).to_string())),
            queue: None,
            priority: Some(priority(5)),
            run_at: None,
            delay: None,
            max_attempts: None,
            timeout: None,
            backoff: None,
            tags: Vec::new(),
        };
        change(&mut submit);
        let answer = |jobs: &[Job]| jobs[0].id.to_string().into_bytes();
        let submitted = self.app.jobs.submit(vec![submit], &Origin::default(), None, answer).await.unwrap();
        String::from_utf8(submitted.answer).unwrap().parse().unwrap()
    }

    pub(crate) async fn get(&self, id: JobId) -> Job {
        self.app.jobs.get(id).await.unwrap()
    }

    /// Waits until the job is in `state`, and no longer if it ends otherwise.
    pub(crate) async fn reaches(&self, id: JobId, state: State) -> Job {
        let job = eventually(&format!("job {id} is {}", state.as_str()), async || {
            let job = self.get(id).await;
            (job.state == state || job.state.is_final()).then_some(job)
        })
        .await;
        assert_eq!(job.state, state, "{job:#?}");
        job
    }

    /// Waits until the job's run number `run` is under way.
    pub(crate) async fn runs(&self, id: JobId, run: u64) -> Job {
        eventually(&format!("run {run} of job {id}"), async || {
            let job = self.get(id).await;
            (job.state == State::Running && job.fence == run).then_some(job)
        })
        .await
    }

    /// Ends the scheduler and the worker in good order.
    pub(crate) async fn stop(self, worker: TestWorker) {
        worker.drained().await;
        self.stop.cancel();
        for task in self.schedulers {
            within("the scheduler stops", task).await.unwrap();
        }
    }
}

impl TestWorker {
    /// Asks it to stop and waits until it has.
    pub(crate) async fn drained(self) {
        self.shutdown.drain.cancel();
        self.ended().await;
    }

    /// Waits until it has stopped.
    pub(crate) async fn ended(self) {
        within("the worker stops", self.task).await.unwrap();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }
}

/// A time that no test lives to see.
pub(crate) const FAR: Duration = Duration::from_secs(3600);
