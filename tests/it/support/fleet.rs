//! Separate roles as real processes over the servers that all tests share, with names of their own.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{eventually, process::Process, servers, wait_until};

/// Which broker a fleet talks through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    Redis,
    Rabbitmq,
}

/// Settings of every test fleet: as usual, but with nothing that waits for long.
const QUICK: [(&str, &str); 11] = [
    ("APP__JOBS__BACKOFF_BASE", "10ms"),
    ("APP__JOBS__BACKOFF_CAP", "50ms"),
    ("APP__JOBS__LEASE", "3s"),
    ("APP__JOBS__RENEW_EVERY", "500ms"),
    ("APP__JOBS__CRASH_LIMIT", "1000"),
    ("APP__WORKER__CONCURRENCY", "4"),
    ("APP__WORKER__HEARTBEAT", "200ms"),
    ("APP__WORKER__SHUTDOWN_GRACE", "5s"),
    ("APP__SCHEDULER__EXPIRED_EVERY", "200ms"),
    ("APP__SCHEDULER__LOST_EVERY", "500ms"),
    ("APP__SCHEDULER__LOST_AFTER", "2s"),
];

/// What its processes share.
pub(crate) struct Fleet {
    dir: TempDir,
    env: Vec<(String, String)>,
    /// Set if the database is one of many on a shared server.
    database: Option<String>,
    started: AtomicUsize,
}

impl Fleet {
    /// Over the servers of `make test`, with a database and names in the broker of its own.
    pub(crate) async fn shared(via: Via) -> Self {
        let store = servers::mongodb_database().await;
        let broker = servers::url(match via {
            Via::Redis => "TEST_REDIS_URL",
            Via::Rabbitmq => "TEST_AMQP_URL",
        });
        let mut this = Self::over(&store, &broker);
        this.set("APP__BROKER__PREFIX", &format!("{}-", servers::unique()));
        this.database = Some(store);
        this
    }

    /// Over these servers.
    pub(crate) fn over(store: &str, broker: &str) -> Self {
        let mut this = Self {
            dir: tempfile::tempdir().unwrap(),
            env: QUICK.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            database: None,
            started: AtomicUsize::new(0),
        };
        this.set("APP__STORE__URL", store);
        this.set("APP__BROKER__URL", broker);
        this
    }

    /// Changes a setting of the processes to come.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.env.retain(|(n, _)| n != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn setting(&self, name: &str) -> &str {
        self.env.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    /// A file of this fleet's own.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a process, without waiting for it.
    pub(crate) fn spawn(&self, role: &str, args: &[&str]) -> Process {
        self.spawn_with(role, args, &[])
    }

    /// Starts a process with settings of its own.
    pub(crate) fn spawn_with(&self, role: &str, args: &[&str], own: &[(&str, &str)]) -> Process {
        let log = self.file(&format!("{role}-{}.log", self.started.fetch_add(1, Ordering::Relaxed)));
        let mut env: Vec<(&str, &str)> = self.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        env.extend_from_slice(own);
        Process::launch(role, &log, args, &env)
    }

    pub(crate) async fn serve(&self) -> Process {
        let mut p = self.spawn("serve", &[]);
        p.ready().await;
        p
    }

    pub(crate) async fn worker(&self, args: &[&str]) -> Process {
        let mut p = self.spawn("worker", args);
        p.said("ready").await;
        p
    }

    pub(crate) async fn scheduler(&self) -> Process {
        let mut p = self.spawn("scheduler", &[]);
        p.said("ready").await;
        p
    }

    /// The lines `JOB RUN` that jobs appended to a file.
    pub(crate) fn appended(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.file(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Some(url) = &self.database {
            servers::drop_database(url);
        }
    }
}

/// Submits one `test.script` job; answers its id.
pub(crate) async fn submit(to: &Process, runs: Value, more: Value) -> String {
    let mut body = json!({ "kind": "test.script", "payload": { "runs": runs } });
    for (k, v) in more.as_object().into_iter().flatten() {
        body[k] = v.clone();
    }
    let job = eventually("a job is accepted", async || to.post("/api/v1/jobs", &body).await).await;
    job["id"].as_str().unwrap().to_owned()
}

/// Waits until a job is in this state; answers the job.
pub(crate) async fn in_state(at: &Process, id: &str, state: &str) -> Value {
    eventually(&format!("job {id} is {state}"), async || {
        at.get(&format!("/api/v1/jobs/{id}")).await.filter(|j| j["state"] == state)
    })
    .await
}

/// Waits until so many workers are shown as live.
pub(crate) async fn live_workers(at: &Process, n: usize) {
    wait_until(&format!("{n} workers report"), async || {
        let Some(list) = at.get("/api/v1/workers").await else { return false };
        list["data"].as_array().is_some_and(|all| all.iter().filter(|w| w["state"] == "running").count() == n)
    })
    .await;
}
