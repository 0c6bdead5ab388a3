//! The scheduler role: small passes over the store that move on what no request and no worker would.
//!
//! Each pass is one indexed batch at a time, safe to run twice and by several schedulers at once: the store's
//! compare-and-set decides who moved a job. A pass that fails is logged, counted, and runs again.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    base::{clock::Clock, store::StoreError},
    broker::Broker,
    jobs::{
        announce::Listened,
        service::Jobs,
        store::{FleetStore, JobStore},
    },
    records::RecordStore,
    telemetry::metrics as names,
};

mod due;
mod expired;
mod gauges;
mod lost;
mod retention;

/// What the passes need from the rest of the process.
#[derive(Clone)]
pub struct Deps {
    /// Jobs.
    pub store: Arc<dyn JobStore>,
    /// Queues and workers.
    pub fleet: Arc<dyn FleetStore>,
    /// Records that expire.
    pub records: Arc<dyn RecordStore>,
    /// Which ends of jobs are told.
    pub listened: Listened,
    /// Depths.
    pub broker: Arc<dyn Broker>,
    /// Wakes jobs.
    pub jobs: Arc<Jobs>,
    /// Time.
    pub clock: Clock,
}

/// When passes run and how much they do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Longest sleep between looks for due jobs.
    pub due_every: Duration,
    /// Between looks for leases that ran out.
    pub expired_every: Duration,
    /// A pass that comes this much later than it should was suspended together with workers near it, which then get as
    /// long to renew: the time between two renewals, which is at most half of what a lease has left at any moment.
    pub suspended_after: Duration,
    /// Between looks for lost wake-ups.
    pub lost_every: Duration,
    /// A job queued for this long may have lost its wake-up.
    pub lost_after: Duration,
    /// Between removals of what is past its retention.
    pub retention_every: Duration,
    /// Most jobs in one batch.
    pub batch: usize,
    /// Crashes after which a job is a dead letter.
    pub crash_limit: u32,
    /// How long finished jobs are kept.
    pub retention: Duration,
    /// How long dead letters are kept.
    pub dead_retention: Duration,
}

/// Runs the passes until `stop`.
pub async fn run(deps: Deps, options: Options, stop: CancellationToken) {
    let deps = Arc::new(deps);
    let options = Arc::new(options);
    tracing::info!("scheduler started");
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(due::run(Arc::clone(&deps), Arc::clone(&options), stop.clone()));
    tasks.spawn(expired::run(Arc::clone(&deps), Arc::clone(&options), stop.clone()));
    tasks.spawn(lost::run(Arc::clone(&deps), Arc::clone(&options), stop.clone()));
    tasks.spawn(retention::run(Arc::clone(&deps), Arc::clone(&options), stop.clone()));
    tasks.spawn(gauges::run(Arc::clone(&deps), stop.clone()));
    while let Some(ended) = tasks.join_next().await {
        if let Err(e) = ended {
            tracing::error!(error = %e, "a scheduler pass ended badly");
        }
    }
    tracing::info!("scheduler stopped");
}

/// Counts what a pass did, or that it failed; answers how much it moved.
fn counted(pass: &'static str, result: Result<usize, StoreError>) -> usize {
    match result {
        Ok(0) => 0,
        Ok(n) => {
            metrics::counter!(names::SCHEDULER_MOVED, "pass" => pass).increment(n as u64);
            n
        }
        Err(e) => {
            metrics::counter!(names::SCHEDULER_ERRORS, "pass" => pass).increment(1);
            tracing::warn!(pass, error = %e, "scheduler pass failed, it will run again");
            0
        }
    }
}

/// Sleeps; false if told to stop.
async fn pause(stop: &CancellationToken, d: Duration) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(d) => true,
    }
}

/// Puts right what a process before this one left behind: running jobs go back to their queues, and every queued job
/// is woken. Only for a process that owns its database, before its worker starts.
///
/// # Errors
/// If the store fails.
pub async fn recover(deps: &Deps, options: &Options) -> Result<(), StoreError> {
    let taken = expired::take_from_the_dead(deps, options).await?;
    let woken = lost::wake_all(deps, options).await?;
    if taken + woken > 0 {
        tracing::info!(interrupted = taken, waiting = woken, "recovered the jobs of the process before this one");
    }
    Ok(())
}
