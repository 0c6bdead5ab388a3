//! The resolved configuration: every value checked and in the unit that the program works with.
//!
//! Each struct is one section, handed to the room that it concerns.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

use super::{Auth, Email, Http, Notifications, Probe, Push, Time, Webhook, show::mask_url, units};
use crate::base::id::QueueName;

/// The whole configuration.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// Where jobs and items are kept.
    pub store: Store,
    /// What wakes workers.
    pub broker: Broker,
    /// Where short-lived state is shared.
    pub cache: Cache,
    /// The HTTP server.
    pub http: Http,
    /// Where roles without an API tell about themselves.
    pub probe: Probe,
    /// Who may call.
    pub auth: Auth,
    /// Logging.
    pub log: Log,
    /// Time.
    pub time: Time,
    /// Jobs: defaults and limits.
    pub jobs: Jobs,
    /// What single queues have of their own.
    pub queues: BTreeMap<QueueName, Queue>,
    /// The worker role.
    pub worker: Worker,
    /// The scheduler role.
    pub scheduler: Scheduler,
    /// Notifications of every channel.
    pub notifications: Notifications,
    /// Mail.
    pub email: Email,
    /// Push messages.
    pub push: Push,
    /// Calls to URLs that users chose.
    pub webhook: Webhook,
}

impl Config {
    /// How many jobs may wait in `queue`, if there is a limit: its own, else that of all queues.
    #[must_use]
    pub fn depth_limit(&self, queue: &QueueName) -> Option<u64> {
        let limit = self.queues.get(queue).and_then(|q| q.depth_limit).unwrap_or(self.jobs.depth_limit);
        (limit > 0).then_some(limit)
    }
}

/// Where jobs and items are kept.
#[derive(Clone, Serialize)]
pub struct Store {
    /// `sqlite://PATH`. May hold a password; [`fmt::Debug`] masks it.
    pub url: String,
    /// What a commit waits for.
    pub sync: Sync,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("url", &mask_url(&self.url)).field("sync", &self.sync).finish()
    }
}

/// What a commit waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// The disk: nothing answered is lost, even on power loss.
    Full,
    /// The operating system: the last commits may be lost on power loss.
    Normal,
}

/// What wakes workers.
#[derive(Clone, Serialize)]
pub struct Broker {
    /// `embedded://`, `redis://…` or `amqp://…`. May hold a password; [`fmt::Debug`] masks it.
    pub url: String,
    /// Stands before every name in the broker server.
    pub prefix: String,
    /// How RabbitMQ keeps queues.
    pub queue_type: QueueType,
}

/// How RabbitMQ keeps queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueType {
    /// On one node, with ten priorities.
    Classic,
    /// On several nodes, by consensus.
    Quorum,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("url", &mask_url(&self.url))
            .field("prefix", &self.prefix)
            .field("queue_type", &self.queue_type)
            .finish()
    }
}

/// Where short-lived state is shared.
#[derive(Clone, Serialize)]
pub struct Cache {
    /// `memory://` or `redis://…`. May hold a password; [`fmt::Debug`] masks it.
    pub url: String,
    /// Begins every key on a shared server.
    pub prefix: String,
    /// How long a record may be served from the cache.
    #[serde(serialize_with = "units::duration")]
    pub ttl: Duration,
    /// Most entries of the in-process cache.
    pub max_entries: u64,
    /// Most memory of the in-process cache, in bytes.
    #[serde(serialize_with = "units::size")]
    pub max_bytes: usize,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, prefix, ttl, max_entries, max_bytes } = self;
        f.debug_struct("Cache")
            .field("url", &mask_url(url))
            .field("prefix", prefix)
            .field("ttl", ttl)
            .field("max_entries", max_entries)
            .field("max_bytes", max_bytes)
            .finish()
    }
}

/// Logging.
#[derive(Clone, Debug, Serialize)]
pub struct Log {
    /// Level, or filter in `EnvFilter` syntax.
    pub level: String,
    /// Shape of a line.
    pub format: LogFormat,
    /// Requests to log.
    pub requests: LogRequests,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, else JSON.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// Requests that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogRequests {
    /// Every one.
    All,
    /// Those answered with 400 or more.
    Failed,
    /// None.
    Off,
}

/// Jobs: defaults and limits.
#[derive(Clone, Debug, Serialize)]
pub struct Jobs {
    /// Largest payload, in bytes of JSON.
    #[serde(serialize_with = "units::size")]
    pub max_payload: usize,
    /// Largest result, in bytes of JSON.
    #[serde(serialize_with = "units::size")]
    pub max_result: usize,
    /// Most jobs in one bulk submission.
    pub bulk_max: usize,
    /// Attempts before a job is a dead letter, unless it says otherwise.
    pub max_attempts: u32,
    /// Upper bound of the first retry's delay.
    #[serde(serialize_with = "units::duration")]
    pub backoff_base: Duration,
    /// Upper bound of any retry's delay.
    #[serde(serialize_with = "units::duration")]
    pub backoff_cap: Duration,
    /// How long one attempt may run, unless the job says otherwise.
    #[serde(serialize_with = "units::duration")]
    pub timeout: Duration,
    /// Longest time-out that a job may ask for.
    #[serde(serialize_with = "units::duration")]
    pub max_timeout: Duration,
    /// Deaths of its worker after which a job is poison.
    pub crash_limit: u32,
    /// How long a claim lasts without renewal.
    #[serde(serialize_with = "units::duration")]
    pub lease: Duration,
    /// How often a worker renews its leases.
    #[serde(serialize_with = "units::duration")]
    pub renew_every: Duration,
    /// How long succeeded and cancelled jobs are kept.
    #[serde(serialize_with = "units::duration")]
    pub retention: Duration,
    /// How long dead letters are kept.
    #[serde(serialize_with = "units::duration")]
    pub dead_retention: Duration,
    /// How long an idempotency key is remembered.
    #[serde(serialize_with = "units::duration")]
    pub idempotency_ttl: Duration,
    /// Most tags on one job.
    pub max_tags: usize,
    /// Most queues that can exist.
    pub max_queues: usize,
    /// Farthest a job may lie in the future.
    #[serde(serialize_with = "units::duration")]
    pub max_delay: Duration,
    /// Waiting jobs at which a queue takes no more, 0 for no limit; [`Config::depth_limit`] answers for one queue.
    pub depth_limit: u64,
}

/// What one queue has of its own.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Queue {
    /// Waiting jobs at which it takes no more, 0 for no limit; as [`Jobs::depth_limit`] if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth_limit: Option<u64>,
}

/// The worker role.
#[derive(Clone, Debug, Serialize)]
pub struct Worker {
    /// Queues to work on.
    pub queues: WorkerQueues,
    /// Jobs run at once; at least 1.
    pub concurrency: usize,
    /// Whether queues are served strictly in the order written instead of by weight.
    pub strict: bool,
    /// How long running jobs may take when the program stops.
    #[serde(serialize_with = "units::duration")]
    pub shutdown_grace: Duration,
    /// Stop after this many jobs; 0 for never.
    pub max_jobs: u64,
    /// How often a worker reports that it lives.
    #[serde(serialize_with = "units::duration")]
    pub heartbeat: Duration,
}

/// The scheduler role.
#[derive(Clone, Debug, Serialize)]
pub struct Scheduler {
    /// Longest sleep between looks for due jobs.
    #[serde(serialize_with = "units::duration")]
    pub due_every: Duration,
    /// How often expired leases are looked for.
    #[serde(serialize_with = "units::duration")]
    pub expired_every: Duration,
    /// How often lost wake-ups are looked for.
    #[serde(serialize_with = "units::duration")]
    pub lost_every: Duration,
    /// Age at which a queued job's wake-up counts as lost.
    #[serde(serialize_with = "units::duration")]
    pub lost_after: Duration,
    /// How often old jobs are deleted.
    #[serde(serialize_with = "units::duration")]
    pub retention_every: Duration,
    /// Most jobs that one pass touches at once.
    pub batch: usize,
}

/// Queues that a worker serves, each with its weight, in the order written. Never empty, and no name twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerQueues(pub Vec<(QueueName, u32)>);

impl WorkerQueues {
    /// Reads entries such as `default` and `heavy:3`.
    ///
    /// # Errors
    /// The rest of a sentence that begins with the key: what is wrong and what would be right.
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, String> {
        let mut queues: Vec<(QueueName, u32)> = Vec::new();
        for entry in entries.iter().map(|e| e.as_ref().trim()) {
            let (name, weight) = match entry.split_once(':') {
                None => (entry, 1),
                Some((name, weight)) => match weight.parse() {
                    Ok(w @ 1..=1000) => (name, w),
                    _ => {
                        return Err(format!(
                            "gives queue `{name}` the weight `{weight}`, but a weight is a number from 1 to 1000"
                        ));
                    }
                },
            };
            let name = QueueName::new(name).map_err(|e| format!("names the queue `{name}`, but a name {e}"))?;
            if queues.iter().any(|(n, _)| *n == name) {
                return Err(format!("names the queue `{name}` twice; name it once, with a weight if it needs one"));
            }
            queues.push((name, weight));
        }
        if queues.is_empty() {
            return Err("is empty, but a worker needs a queue to work on, such as `default`".to_owned());
        }
        Ok(Self(queues))
    }
}

impl Serialize for WorkerQueues {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.0.iter().map(|(name, weight)| match weight {
            1 => name.to_string(),
            w => format!("{name}:{w}"),
        }))
    }
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything in one process.
    All,
    /// The HTTP API.
    Serve,
    /// Running jobs.
    Worker,
    /// Passes over the store.
    Scheduler,
}

impl Role {
    /// The subcommand that starts it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Serve => "serve",
            Self::Worker => "worker",
            Self::Scheduler => "scheduler",
        }
    }

    /// Whether the role listens for HTTP requests.
    #[must_use]
    pub const fn listens(self) -> bool {
        matches!(self, Self::All | Self::Serve)
    }
}
