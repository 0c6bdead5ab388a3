//! The store ports of the job queue, and the contract that every adapter keeps.
//!
//! Proved for each adapter by `tests/it/conformance/jobs.rs`. In short:
//! - Each call is atomic for each job it names. When it returns, it survives the death of any process. What a caller is
//!   told (inserts, finishes, cancels, replays, pauses, items) also survives the loss of power. Claims, renewals,
//!   progress and passes may be undone by a loss of power, but only from the latest backwards, and then all that they
//!   led to is undone, too: the job is where it was, and runs again. A claim may be undone only together with its worker:
//!   in a server that workers outlive it must not, or one fence would name two runs.
//! - Transitions are those of [`state::next`](super::state::next), enforced by compare-and-set: of two callers that race, one wins.
//! - `claim`, `renew`, `progress` and `finish` take batches, so that an adapter may store them in its cheapest shape.
//! - What a worker writes carries the fence of its claim; a stale fence writes nothing.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    announce::Listened,
    model::{Attempt, Job, Progress},
    state::{State, Verdict},
};
pub use crate::base::store::StoreError;
use crate::base::{
    clock::Timestamp,
    id::{JobId, KindName, Priority, QueueName, WorkerId},
    page::{Page, PageRequest},
};
use crate::{broker::SetAside, events::Event};

/// A caller's key for one request, and the answer that the same request gets again.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// Whose key it is; keys of different scopes never meet.
    pub scope: String,
    /// The key.
    pub key: String,
    /// Fingerprint of the request: another one under the same key is a mistake.
    pub request: [u8; 32],
    /// What was answered.
    pub answer: Vec<u8>,
    /// When the key is forgotten.
    pub expires_at: Timestamp,
}

/// What became of an insert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The jobs are stored.
    New,
    /// The key was used before by the same request: nothing was stored, this was answered then.
    Replay(Vec<u8>),
    /// The key was used before by another request: nothing was stored.
    KeyReused,
}

/// The rest of an insert whose job can be claimed already.
#[must_use = "nobody may be told of a job before it is durable"]
pub struct Durable(Option<BoxFuture<'static, Result<(), StoreError>>>);

impl Durable {
    /// Nothing is left to wait for.
    pub fn already() -> Self {
        Self(None)
    }

    /// Durable when this is done.
    pub fn when(done: impl Future<Output = Result<(), StoreError>> + Send + 'static) -> Self {
        Self(Some(Box::pin(done)))
    }

    /// Waits until it survives the loss of power.
    ///
    /// # Errors
    /// If the store fails: nobody knows whether the job is there.
    pub async fn wait(self) -> Result<(), StoreError> {
        match self.0 {
            Some(done) => done.await,
            None => Ok(()),
        }
    }
}

/// A job that should be woken through the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The job.
    pub id: JobId,
    /// Its queue.
    pub queue: QueueName,
    /// Its priority.
    pub priority: Priority,
    /// Queued since.
    pub since: Timestamp,
}

/// What became of one job in a claim.
#[derive(Clone, Debug)]
pub enum Claim {
    /// It is running now and this worker holds its lease.
    Won {
        /// The job as claimed.
        job: Box<Job>,
        /// Since when it was queued.
        queued_at: Timestamp,
    },
    /// Its queue is paused; it stays queued.
    Paused,
    /// It is not queued (any more), or does not exist.
    Gone,
}

/// What became of one lease in a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It holds.
    Held {
        /// Someone asked the job to stop. Repeated at every renewal.
        cancel_requested: bool,
    },
    /// The job is no longer this worker's: stop working on it, nothing it writes counts.
    Lost,
}

/// A run that ended, to be written.
#[derive(Clone, Debug)]
pub struct Finish {
    /// The job.
    pub id: JobId,
    /// Fence of the claim.
    pub fence: u64,
    /// The transition.
    pub verdict: Verdict,
    /// The record of the run, by the worker and from the time that the claim wrote; its error becomes the job's, unless it
    /// only put the job off.
    pub attempt: Attempt,
    /// What is kept in the same step if this succeeds or fails the job for good; none if nobody listens.
    pub event: Option<Event>,
}

/// What became of one finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// Written; the job is in this state now. It is `Cancelled` instead of scheduled or queued where a cancel was asked for.
    Now(State),
    /// The lease was lost: nothing was written.
    LeaseLost,
}

/// Which leases are void.
#[derive(Clone, Debug)]
pub enum Void {
    /// Those that ran out at or before this time.
    Expired(Timestamp),
    /// Those of every worker but these: the caller knows that all others are dead.
    NotOwnedBy(Vec<WorkerId>),
}

/// A job that lost its worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The job, and where it waits if it is queued.
    pub job: Waiting,
    /// Where it is now: queued, scheduled (not its first crash), failed (crash limit) or cancelled (was asked for).
    pub state: State,
}

/// What became of one job in a cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It was waiting and is cancelled.
    Now,
    /// It runs; its worker is told to stop it.
    Requested,
    /// It had ended before.
    AlreadyFinal(State),
    /// There is no such job.
    NotFound,
}

/// Changes to a dead letter before it runs again. What is none stays.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobEdit {
    /// Another queue.
    pub queue: Option<QueueName>,
    /// Another priority.
    pub priority: Option<Priority>,
    /// Another input.
    pub payload: Option<Box<RawValue>>,
    /// Another limit of attempts.
    pub max_attempts: Option<u32>,
}

/// A job to run again.
#[derive(Clone, Debug)]
pub struct Again {
    /// The job.
    pub id: JobId,
    /// When; queued at once if none.
    pub at: Option<Timestamp>,
}

/// What became of one job that should run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RanAgain {
    /// It is queued, with its failures and crashes forgiven.
    Queued(Waiting),
    /// It is scheduled, with its failures and crashes forgiven.
    Scheduled,
    /// Its state does not allow it.
    Refused(State),
    /// There is no such job.
    NotFound,
}

/// Which jobs a list shows. What is none does not matter.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// In this state.
    pub state: Option<State>,
    /// Of this kind.
    pub kind: Option<KindName>,
    /// In this queue.
    pub queue: Option<QueueName>,
    /// With all of these tags.
    pub tags: Vec<String>,
    /// Accepted at or after.
    pub created_after: Option<Timestamp>,
    /// Accepted before.
    pub created_before: Option<Timestamp>,
}

/// How many jobs a queue has in each state that is not forgotten on success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Waiting for a time.
    pub scheduled: u64,
    /// Ready to start.
    pub queued: u64,
    /// Running.
    pub running: u64,
    /// Dead letters.
    pub failed: u64,
}

/// One queue as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// Its name.
    pub name: QueueName,
    /// Its jobs.
    pub counts: QueueCounts,
    /// Since when its longest-waiting queued job waits.
    pub oldest: Option<Timestamp>,
    /// Whether starts are held.
    pub paused: bool,
}

/// How old things must be to be removed.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Succeeded and cancelled jobs that ended before this.
    pub finished_before: Timestamp,
    /// Dead letters that ended before this.
    pub failed_before: Timestamp,
    /// Idempotency keys that expired before this.
    pub now: Timestamp,
}

/// Everything the queue keeps of jobs.
#[async_trait]
pub trait JobStore: Send + Sync {
    /// Stores new jobs (scheduled or queued), all or none, together with the key if there is one.
    async fn insert(&self, jobs: Vec<Job>, key: Option<Idempotency>) -> Result<Inserted, StoreError>;

    /// Stores one new job, and answers as soon as it can be claimed: its wake-up may go out while the disk is still at work.
    /// A claim is durable, so whoever runs the job has it in any case; but a client may be told of it only when what this
    /// answers is done. A store that has no earlier moment answers late.
    async fn insert_early(&self, job: Job) -> Result<Durable, StoreError> {
        self.insert(vec![job], None).await?;
        Ok(Durable::already())
    }

    /// What was answered under this key, if it has not expired: the fingerprint and the answer.
    async fn recall(&self, scope: &str, key: &str, now: Timestamp) -> Result<Option<([u8; 32], Vec<u8>)>, StoreError>;

    /// Reads one job.
    async fn get(&self, id: JobId) -> Result<Option<Job>, StoreError>;

    /// Lists jobs, newest first. A page may be shorter than asked for and still not be the last: the work for one page
    /// is bounded, however rare the matches are.
    async fn list(&self, filter: &JobFilter, page: PageRequest) -> Result<Page<Job>, StoreError>;

    /// Queued → running for those still queued in a queue that is not paused, with a lease until `now + lease`.
    /// Answers in the order of `ids`.
    async fn claim(
        &self,
        ids: &[JobId],
        worker: WorkerId,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Vec<Claim>, StoreError>;

    /// Extends leases to `until`. Answers in the order given.
    async fn renew(&self, held: &[(JobId, u64)], until: Timestamp) -> Result<Vec<Renewal>, StoreError>;

    /// Notes how far runs got; silently nothing for a stale fence.
    async fn progress(&self, of: Vec<(JobId, u64, Progress)>) -> Result<(), StoreError>;

    /// Ends runs. Answers in the order given.
    async fn finish(&self, runs: Vec<Finish>) -> Result<Vec<Finished>, StoreError>;

    /// Scheduled → queued for up to `limit` jobs that are due at `now`, earliest first.
    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<Waiting>, StoreError>;

    /// When the next scheduled job is due.
    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Takes up to `limit` running jobs from workers whose lease is void: → queued with a crash counted, → scheduled
    /// [`apart`](super::state::apart) from others if it is not its first, → failed with code `crash_limit` at the
    /// `crash_limit`-th, → cancelled where that was asked for. `listened` says whether the events of failures are kept
    /// in the same step.
    async fn void(
        &self,
        which: &Void,
        now: Timestamp,
        crash_limit: u32,
        limit: usize,
        listened: &Listened,
    ) -> Result<Vec<Moved>, StoreError>;

    /// Up to `limit` jobs of `queue` that are queued since before `before`, longest waiting first, starting after `after`.
    async fn waiting(
        &self,
        queue: &QueueName,
        before: Timestamp,
        after: Option<(Timestamp, JobId)>,
        limit: usize,
    ) -> Result<Vec<Waiting>, StoreError>;

    /// Ends waiting jobs and asks running ones to stop. Answers in the order of `ids`.
    async fn cancel(&self, ids: &[JobId], now: Timestamp) -> Result<Vec<Cancelled>, StoreError>;

    /// Cancels up to `limit` queued jobs of one queue and answers how many.
    async fn purge(&self, queue: &QueueName, now: Timestamp, limit: usize) -> Result<u64, StoreError>;

    /// Failed, cancelled or scheduled → queued (or scheduled at a time) with `edit` applied. Answers in the order given.
    async fn run_again(&self, jobs: &[Again], edit: &JobEdit, now: Timestamp) -> Result<Vec<RanAgain>, StoreError>;

    /// Forgets dead letters; others are left alone. Answers how many.
    async fn discard(&self, ids: &[JobId]) -> Result<u64, StoreError>;

    /// Looks at up to `limit` jobs from the oldest on, starting after `after`, and forgets those that are past their
    /// retention. Answers how many and where to go on; none at the end.
    async fn retain(
        &self,
        retention: Retention,
        after: Option<JobId>,
        limit: usize,
    ) -> Result<(u64, Option<JobId>), StoreError>;
}

/// A worker as it describes itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Its id, new at each start.
    pub id: WorkerId,
    /// Host it runs on.
    pub host: String,
    /// Process there.
    pub pid: u32,
    /// Version of the program.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it last reported.
    pub heartbeat_at: Timestamp,
    /// Takes no new jobs.
    pub draining: bool,
    /// Queues with their weights, in order.
    #[serde(deserialize_with = "QueueName::deserialize_stored_pairs")]
    pub queues: Vec<(QueueName, u32)>,
    /// Those of them that the broker's server refuses to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<SetAside>,
    /// How many jobs it runs at once.
    pub slots: u32,
    /// How many it is running.
    pub busy: u32,
    /// What it can run.
    pub kinds: Vec<KindName>,
    /// What it is running.
    pub active: Vec<ActiveJob>,
    /// Totals since it started.
    pub totals: Totals,
    /// Per queue, in the last full minute.
    #[serde(deserialize_with = "QueueName::deserialize_stored_pairs")]
    pub last_minute: Vec<(QueueName, Totals)>,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
}

/// A job that a worker is running.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActiveJob {
    /// The job.
    pub job_id: JobId,
    /// Its kind.
    pub kind: KindName,
    /// Its queue.
    #[serde(deserialize_with = "QueueName::deserialize_stored")]
    pub queue: QueueName,
    /// Since when.
    pub started_at: Timestamp,
}

/// Counts of runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Started.
    pub started: u64,
    /// Ended well.
    pub succeeded: u64,
    /// Ended as dead letters.
    pub failed: u64,
    /// Failed and to be tried again.
    pub retried: u64,
}

/// Queues and workers as the whole fleet sees them.
#[async_trait]
pub trait FleetStore: Send + Sync {
    /// Every queue that has jobs that are not over, dead letters, or is paused.
    async fn queues(&self) -> Result<Vec<QueueState>, StoreError>;

    /// Holds or frees the starts of a queue.
    async fn set_paused(&self, queue: &QueueName, paused: bool) -> Result<(), StoreError>;

    /// Notes a worker's report.
    async fn report(&self, worker: WorkerReport) -> Result<(), StoreError>;

    /// The workers that reported and did not leave.
    async fn workers(&self) -> Result<Vec<WorkerReport>, StoreError>;

    /// A worker left; or was gone too long.
    async fn forget(&self, worker: WorkerId) -> Result<(), StoreError>;

    /// The time by the database server's clock, which every process of a fleet goes by; none without a server.
    async fn clock(&self) -> Result<Option<Timestamp>, StoreError>;
}
