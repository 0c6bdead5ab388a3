//! The worker role: takes deliveries for its slots, claims the jobs, runs their handlers, writes how they ended.
//!
//! ```text
//!  broker ─▶ dispatch ──claim, acknowledge──▶ run (a task per job) ──▶ finish
//!               ▲ control: pause, cancel, ping      lease: renew, cancel, progress     report: heartbeat
//! ```
//! Nothing is taken without a slot that is free or soon will be ([`pace`]), so no worker hoards what another could start.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use crate::{
    base::{
        clock::Clock,
        id::{QueueName, WorkerId},
        shutdown::Shutdown,
    },
    broker::Broker,
    jobs::{
        announce::Listened,
        registry::Registry,
        store::{FleetStore, JobStore},
    },
};

mod dispatch;
mod finish;
mod lease;
mod meter;
mod pace;
mod report;
mod run;
mod running;
mod slots;
mod turns;

use running::{Running, StopReason};

/// What a worker needs from the rest of the process.
#[derive(Clone)]
pub struct Deps {
    /// Jobs.
    pub store: Arc<dyn JobStore>,
    /// Queues and workers.
    pub fleet: Arc<dyn FleetStore>,
    /// Wake-ups and broadcasts.
    pub broker: Arc<dyn Broker>,
    /// What it can run.
    pub registry: Arc<Registry>,
    /// Which ends of jobs are told.
    pub listened: Listened,
    /// Time.
    pub clock: Clock,
}

/// How a worker works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Queues with their weights, in order.
    pub queues: Vec<(QueueName, u32)>,
    /// Take from the queues strictly in order instead of by weight.
    pub strict: bool,
    /// Jobs at once.
    pub slots: usize,
    /// Stop after so many jobs; 0 for no limit.
    pub max_jobs: u64,
    /// How long running jobs may go on after the worker was asked to stop.
    pub shutdown_grace: Duration,
    /// How long a claim lasts without renewal.
    pub lease: Duration,
    /// How often claims are renewed.
    pub renew_every: Duration,
    /// How often the worker reports itself.
    pub heartbeat: Duration,
    /// Largest result in bytes.
    pub max_result: usize,
    /// Whether claims may run ahead of free slots. Not where the first crash makes a dead letter: a job that was claimed ahead when
    /// its worker died never ran.
    pub claim_ahead: bool,
}

/// How long a handler that was told to stop may take before its future is dropped.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long a worker that stops waits for handlers it has told to stop.
const ABORT_GRACE: Duration = Duration::from_secs(5);

/// What the worker's tasks share.
pub(crate) struct Shared {
    pub(crate) id: WorkerId,
    pub(crate) deps: Deps,
    pub(crate) options: Options,
    pub(crate) running: Running,
    /// Kinds that it does not know.
    pub(crate) unknown: run::Unknown,
    pub(crate) meter: meter::Meter,
    pub(crate) paused: std::sync::Mutex<std::collections::HashSet<QueueName>>,
    pub(crate) paused_changed: tokio::sync::Notify,
    pub(crate) reading_paused: tokio::sync::Mutex<()>,
    /// The slots; a handler runs with one.
    pub(crate) turns: turns::Turns,
    /// How far claims run ahead of them.
    pub(crate) pace: pace::Pace,
    /// Handlers running, jobs waiting for a slot and jobs being claimed.
    pub(crate) taken: std::sync::atomic::AtomicUsize,
    /// Handlers that have ended.
    pub(crate) ran: std::sync::atomic::AtomicU64,
    /// `taken` became less.
    pub(crate) freed: tokio::sync::Notify,
    pub(crate) draining: std::sync::atomic::AtomicBool,
}

impl Shared {
    /// How many jobs the worker may have taken at once.
    fn room(&self) -> usize {
        let ahead = if self.options.claim_ahead { self.pace.ahead(self.options.slots) } else { 0 };
        self.options.slots + ahead
    }

    /// How many jobs are worth a call to the store while another is under way: a call for a few costs a store nearly as much as one
    /// for many. Half of the room; ARCHITECTURE.md, *Choices worth knowing*, says what else was tried.
    fn worth_a_call(&self) -> usize {
        self.room() / 2
    }
}

/// Runs a worker until it is told to stop or has done its `max_jobs`; returns when its last job has ended or was given
/// back.
pub async fn run(deps: Deps, options: Options, shutdown: Shutdown) {
    let id = WorkerId(deps.clock.new_uuid());
    let slots = options.slots;
    let turns = turns::Turns::new(slots, &options.queues, options.strict);
    let meter = meter::Meter::new(deps.clock.clone(), slots);
    let shared = Arc::new(Shared {
        id,
        deps,
        options,
        running: Running::default(),
        unknown: run::Unknown::default(),
        meter,
        paused: std::sync::Mutex::default(),
        paused_changed: tokio::sync::Notify::new(),
        reading_paused: tokio::sync::Mutex::new(()),
        turns,
        pace: pace::Pace::default(),
        taken: std::sync::atomic::AtomicUsize::new(0),
        ran: std::sync::atomic::AtomicU64::new(0),
        freed: tokio::sync::Notify::new(),
        draining: std::sync::atomic::AtomicBool::new(false),
    });
    let queues: Vec<String> = shared.options.queues.iter().map(|(q, w)| format!("{q}:{w}")).collect();
    tracing::info!(worker = %id, slots, queues = queues.join(","), "worker started");

    let stop_side = tokio_util::sync::CancellationToken::new();
    let side = [
        tokio::spawn(lease::renew(Arc::clone(&shared), stop_side.clone())),
        tokio::spawn(lease::progress(Arc::clone(&shared), stop_side.clone())),
        tokio::spawn(report::heartbeat(Arc::clone(&shared), stop_side.clone())),
        tokio::spawn(report::control(Arc::clone(&shared), stop_side.clone())),
    ];
    let (ended_tx, ended_rx) = mpsc::unbounded_channel();
    let (settled_tx, settled_rx) = mpsc::unbounded_channel();
    let finisher = tokio::spawn(finish::run(Arc::clone(&shared), ended_rx, settled_tx));
    let left_behind = dispatch::run(&shared, ended_tx, settled_rx, &shutdown).await;
    if left_behind > 0 {
        // It would wait for their ends.
        finisher.abort();
    } else if let Err(e) = finisher.await {
        tracing::error!(error = %e, "the finisher ended badly");
    }
    stop_side.cancel();
    for task in side {
        if let Err(e) = task.await {
            tracing::error!(error = %e, "a worker task ended badly");
        }
    }
    if let Err(e) = shared.deps.fleet.forget(id).await {
        tracing::warn!(error = %e, "could not sign off, the worker will be shown as lost for a while");
    }
    tracing::info!(worker = %id, jobs = shared.meter.totals().started, "worker stopped");
}
