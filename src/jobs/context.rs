//! What a running handler sees of its job and of the world: identity, progress, cancellation, deadline.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::model::Progress;
use crate::base::{
    clock::Timestamp,
    id::{JobId, Priority, WorkerId},
};

/// A handler's view of its run. Cheap to clone; clones are the same run.
#[derive(Clone, Debug)]
pub struct JobContext(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    job: JobId,
    attempt: u32,
    run: u64,
    priority: Priority,
    created_at: Timestamp,
    worker: WorkerId,
    correlation_id: Option<String>,
    stop: CancellationToken,
    progress: Mutex<Option<Progress>>,
    dirty: AtomicBool,
    threads: AtomicUsize,
    thread_ended: Notify,
}

impl JobContext {
    /// The context of one run; `stop` is cancelled when the run should end early.
    #[must_use]
    pub fn new(job: &super::model::Job, worker: WorkerId, stop: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            job: job.id,
            attempt: job.attempt(),
            run: job.fence,
            priority: job.priority,
            created_at: job.created_at,
            worker,
            correlation_id: job.spec.correlation_id.clone(),
            stop,
            progress: Mutex::new(None),
            dirty: AtomicBool::new(false),
            threads: AtomicUsize::new(0),
            thread_ended: Notify::new(),
        }))
    }

    /// The job's id: the right idempotency key for whatever the handler does elsewhere.
    #[must_use]
    pub fn job_id(&self) -> JobId {
        self.0.job
    }

    /// Which attempt this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// Which run this is, from 1; counts runs that spent no attempt, too.
    #[must_use]
    pub fn run(&self) -> u64 {
        self.0.run
    }

    /// How urgent it is.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.0.priority
    }

    /// When the job was accepted.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.0.created_at
    }

    /// The worker that runs it.
    #[must_use]
    pub fn worker(&self) -> WorkerId {
        self.0.worker
    }

    /// The request that submitted the job, as the client named it.
    #[must_use]
    pub fn correlation_id(&self) -> Option<&str> {
        self.0.correlation_id.as_deref()
    }

    /// Notes how far the run got. Cheap: only the latest note is stored, a few times a second.
    pub fn progress(&self, current: u64, total: u64) {
        self.note(Progress { current, total, message: None, partial: None });
    }

    /// Notes how far the run got, with words or partial results.
    pub fn note(&self, progress: Progress) {
        *self.0.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
        self.0.dirty.store(true, Ordering::Release);
    }

    /// Takes the latest progress if it was not taken before.
    #[must_use]
    pub fn take_progress(&self) -> Option<Progress> {
        if !self.0.dirty.swap(false, Ordering::AcqRel) {
            return None;
        }
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the run should end early: cancelled, timed out, lease lost, or the worker stops at once. Long loops ask
    /// this often.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.stop.is_cancelled()
    }

    /// Waits until the run should end early.
    pub async fn cancelled(&self) {
        self.0.stop.cancelled().await;
    }

    /// Runs CPU-bound work on a blocking thread. The run does not count as ended before the thread has: a job is never
    /// started again while an earlier run of it still burns a core.
    ///
    /// # Errors
    /// The panic message, if `work` panicked.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> T + Send + 'static) -> T {
        let guard = ThreadGuard::new(self.clone());
        let handle = tokio::task::spawn_blocking(move || work(&guard.0));
        match handle.await {
            Ok(value) => value,
            // The panic goes on in the handler, where the worker isolates it.
            Err(e) => match e.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a runtime that shuts down cancels blocking tasks; the run is abandoned with it.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Waits until no blocking thread of this run is left.
    pub async fn threads_ended(&self) {
        loop {
            let mut ended = std::pin::pin!(self.0.thread_ended.notified());
            ended.as_mut().enable();
            if self.0.threads.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }
}

struct ThreadGuard(JobContext);

impl ThreadGuard {
    fn new(ctx: JobContext) -> Self {
        ctx.0.threads.fetch_add(1, Ordering::AcqRel);
        Self(ctx)
    }
}

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        if self.0.0.threads.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.0.thread_ended.notify_waiters();
        }
    }
}
