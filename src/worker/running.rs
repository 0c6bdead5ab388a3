//! The table of runs under way: what the lease renews, what a cancel reaches, what a report shows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use crate::{
    base::{
        clock::Timestamp,
        id::{JobId, KindName, QueueName},
    },
    jobs::context::JobContext,
};

/// Why a run should end early. The first reason given is the one that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// Someone asked the job to stop.
    Cancel,
    /// It ran longer than its time-out.
    TimedOut,
    /// The job is no longer this worker's.
    LeaseLost,
    /// The worker stops now.
    Abort,
}

/// One run, as the rest of the worker sees it.
pub(crate) struct Run {
    pub(crate) fence: u64,
    pub(crate) kind: KindName,
    pub(crate) queue: QueueName,
    pub(crate) started_at: Timestamp,
    pub(crate) context: JobContext,
    pub(crate) stop: Stop,
    pub(crate) phase: Phase,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its job is claimed and waits for a slot.
    Waits,
    /// Its handler runs.
    Runs,
    /// Its end is being written.
    Ends,
}

/// Ends a run early, once.
#[derive(Clone, Default)]
pub(crate) struct Stop {
    token: CancellationToken,
    reason: Arc<Mutex<Option<StopReason>>>,
}

impl Stop {
    pub(crate) fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    pub(crate) fn because(&self, reason: StopReason) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.token.cancel();
    }

    pub(crate) fn reason(&self) -> Option<StopReason> {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every run under way, by job.
#[derive(Default)]
pub(crate) struct Running(Mutex<HashMap<JobId, Run>>);

impl Running {
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Run>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how far a run is, unless the table knows a later one of its job.
    pub(crate) fn enters(&self, job: JobId, fence: u64, phase: Phase) {
        if let Some(run) = self.lock().get_mut(&job).filter(|run| run.fence == fence) {
            run.phase = phase;
        }
    }

    pub(crate) fn stop(&self, job: JobId, reason: StopReason) {
        if let Some(run) = self.lock().get(&job) {
            run.stop.because(reason);
        }
    }

    pub(crate) fn stop_all(&self, reason: StopReason) {
        for run in self.lock().values() {
            run.stop.because(reason);
        }
    }
}
