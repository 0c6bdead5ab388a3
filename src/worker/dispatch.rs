//! The worker's main loop: one owner of the consumer, of the free slots, and of the decision to stop.

use std::{
    pin::Pin,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    time::{Instant, sleep_until},
};

use super::{ABORT_GRACE, Shared, StopReason, finish::Ended, pace, report::read_paused, run as job_run, slots::Slots};
use crate::{
    base::{backoff::Backoff, failpoint, shutdown::Shutdown, store::StoreError},
    broker::{BrokerError, Consumer, Delivery, Want},
    jobs::store::Claim,
};

/// Between attempts to reach a broker or store that is away.
const RECONNECT: Backoff = Backoff { base_ms: 100, cap_ms: 5_000 };

/// Claims under way at once. More than one, so that slots which come free during a claim need not wait for its answer.
const CLAIMS_AT_ONCE: usize = 8;

type Claiming = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What the store said to a claim.
struct Answer {
    deliveries: Vec<Delivery>,
    generation: u64,
    claims: Result<Vec<Claim>, StoreError>,
}

struct Dispatch<'a> {
    shared: &'a Arc<Shared>,
    ended: UnboundedSender<Ended>,
    slots: Slots,
    claiming: FuturesUnordered<Claiming>,
    /// Runs whose end is not settled yet, running ones included.
    unsettled: usize,
    /// Which consumer a delivery came from: the tags of one that broke mean nothing to its successor.
    generation: u64,
    failures: u32,
}

/// Runs until told to stop or `max_jobs` are done, then until nothing runs any more. Answers how many runs it had to
/// leave behind.
pub(super) async fn run(
    shared: &Arc<Shared>,
    ended: UnboundedSender<Ended>,
    mut settled: UnboundedReceiver<usize>,
    shutdown: &Shutdown,
) -> usize {
    let slots = Slots::new(&shared.options.queues, shared.options.strict, shared.options.slots + pace::MOST as usize);
    let claiming = FuturesUnordered::new();
    let mut d = Dispatch { shared, ended, slots, claiming, unsettled: 0, generation: 0, failures: 0 };
    let mut consumer: Option<Box<dyn Consumer>> = None;
    let mut retry_at = Instant::now();
    while !shutdown.drain.is_cancelled() && d.lasts() {
        let waiting = Instant::now() < retry_at;
        if consumer.is_none() && !waiting {
            match shared.deps.broker.consumer().await {
                Ok(c) => {
                    d.generation += 1;
                    consumer = Some(c);
                }
                Err(e) => {
                    retry_at = d.failed("broker", &e);
                    continue;
                }
            }
        }
        let want = if waiting { None } else { d.want() };
        let next = async {
            match (&mut consumer, &want) {
                (Some(c), Some(w)) => c.next(w).await,
                _ => std::future::pending::<Result<Vec<Delivery>, BrokerError>>().await,
            }
        };
        tokio::select! {
            biased;
            () = shutdown.drain.cancelled() => {}
            Some(n) = settled.recv() => d.unsettled = d.unsettled.saturating_sub(n),
            Some(answer) = d.claiming.next(), if !d.claiming.is_empty() => {
                if let Err(e) = d.start(consumer.as_mut(), answer).await {
                    retry_at = d.failed("store", &e);
                }
            }
            () = shared.freed.notified() => {}
            () = shared.paused_changed.notified() => {}
            () = sleep_until(retry_at), if waiting => {}
            got = next => match got {
                Ok(deliveries) => d.claim(want.as_ref(), deliveries),
                // The broker remembers which queues, and has warned; a new consumer goes on without them.
                Err(BrokerError::Refused(_)) => consumer = None,
                Err(e) => {
                    retry_at = d.failed("broker", &e);
                    consumer = None;
                }
            },
        }
    }
    shared.draining.store(true, Ordering::Relaxed);
    // What is being claimed is this worker's already, or will be.
    while let Some(answer) = d.claiming.next().await {
        if let Err(e) = d.start(consumer.as_mut(), answer).await {
            tracing::warn!(error = %e, "a claim failed while stopping");
        }
    }
    // What it still holds goes back to the broker.
    drop(consumer);
    drain(d, settled, shutdown).await
}

/// Lets what runs finish within the grace, then stops it and gives it back.
async fn drain(mut d: Dispatch<'_>, mut settled: UnboundedReceiver<usize>, shutdown: &Shutdown) -> usize {
    let shared = d.shared;
    // Only a worker that was asked to stop is in a hurry; one that has done its `max_jobs` lets the last ones end.
    let asked = async {
        shutdown.drain.cancelled().await;
        tokio::time::sleep(shared.options.shutdown_grace).await;
    };
    let mut patience = std::pin::pin!(asked);
    let mut give_up: Option<Instant> = None;
    if d.unsettled > 0 {
        tracing::info!(running = d.unsettled, "worker drains");
    }
    while d.unsettled > 0 {
        let last = async {
            match give_up {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(n) = settled.recv() => d.unsettled = d.unsettled.saturating_sub(n),
            () = &mut patience, if give_up.is_none() => {
                tracing::warn!(running = d.unsettled, "grace is over, giving running jobs back");
                shared.running.stop_all(StopReason::Abort);
                give_up = Some(Instant::now() + ABORT_GRACE);
            }
            () = shutdown.abort.cancelled(), if give_up.is_none() => {
                shared.running.stop_all(StopReason::Abort);
                give_up = Some(Instant::now() + ABORT_GRACE);
            }
            () = last => {
                // The process ends now, and these threads with it: their leases tell the next worker.
                tracing::error!(running = d.unsettled, "handlers did not stop when told to, leaving them to the lease");
                break;
            }
        }
    }
    d.unsettled
}

impl Dispatch<'_> {
    /// Whether more is to be run.
    fn lasts(&self) -> bool {
        let max = self.shared.options.max_jobs;
        max == 0 || self.shared.ran.load(Ordering::Acquire) < max
    }

    /// How many jobs may still be taken.
    fn left(&self) -> u64 {
        match self.shared.options.max_jobs {
            0 => u64::MAX,
            // One that ends in between is counted twice for a moment, rather than not at all.
            max => max
                .saturating_sub(self.shared.taken.load(Ordering::Acquire) as u64)
                .saturating_sub(self.shared.ran.load(Ordering::Acquire)),
        }
    }

    /// What to ask the broker for: a slot is free as soon as its handler has returned, while its end is still being
    /// written, but no more ends may wait to be written than there is room.
    fn want(&self) -> Option<Want> {
        if self.claiming.len() >= CLAIMS_AT_ONCE {
            return None;
        }
        let room = self.shared.room();
        let taken = self.shared.taken.load(Ordering::Acquire);
        let free = room.saturating_sub(taken).min((2 * room).saturating_sub(self.unsettled));
        let free = free.min(usize::try_from(self.left()).unwrap_or(usize::MAX));
        // The answer of the one under way is only moments away.
        if !self.claiming.is_empty() && free < self.shared.worth_a_call() {
            return None;
        }
        let paused = self.shared.paused.lock().unwrap_or_else(PoisonError::into_inner);
        self.slots.want(free, &paused)
    }

    fn failed(&mut self, what: &str, e: &dyn std::fmt::Display) -> Instant {
        let pause = RECONNECT.delay(self.failures).max(Duration::from_millis(20));
        tracing::warn!(error = %e, retry_in_ms = pause.as_millis() as u64, "{what} is not available, trying again");
        self.failures = self.failures.saturating_add(1);
        Instant::now() + pause
    }

    /// Asks the store for what was delivered; the room is taken from now on.
    fn claim(&mut self, want: Option<&Want>, deliveries: Vec<Delivery>) {
        let n = deliveries.len();
        self.shared.taken.fetch_add(n, Ordering::AcqRel);
        if let Some(want) = want {
            self.slots.took(want, deliveries.iter().map(|d| &d.wake_up.queue));
        }
        let (shared, generation) = (Arc::clone(self.shared), self.generation);
        self.claiming.push(Box::pin(async move {
            let ids: Vec<_> = deliveries.iter().map(|d| d.wake_up.job).collect();
            let at = shared.deps.clock.now();
            let claims = shared.deps.store.claim(&ids, shared.id, at, shared.options.lease).await;
            Answer { deliveries, generation, claims }
        }));
    }

    /// Starts what was won and settles the rest.
    async fn start(&mut self, consumer: Option<&mut Box<dyn Consumer>>, answer: Answer) -> Result<(), StoreError> {
        let Answer { deliveries, generation, claims } = answer;
        let (mut done, mut back, mut claimed) = (Vec::with_capacity(deliveries.len()), Vec::new(), 0);
        let (claims, failure) = match claims {
            Ok(claims) => (claims, None),
            // Nobody knows whether it was written: if so, the lease will tell; if not, the wake-ups come again.
            Err(e) => (vec![Claim::Paused; deliveries.len()], Some(e)),
        };
        if failure.is_none() {
            self.failures = 0;
            failpoint::hit("worker.after_claim");
        }
        for (delivery, claim) in deliveries.into_iter().zip(claims) {
            match claim {
                Claim::Won { job, queued_at } => {
                    self.unsettled += 1;
                    self.shared.pace.size(job.spec.payload.get().len());
                    if job.crashes > 0 {
                        self.shared.pace.hold_back(self.shared.options.slots);
                    }
                    job_run::start(self.shared, *job, queued_at, self.ended.clone());
                    claimed += 1;
                    done.push(delivery.tag);
                }
                Claim::Gone => done.push(delivery.tag),
                Claim::Paused => back.push(delivery.tag),
            }
        }
        let idle = done.len() + back.len() - claimed;
        self.shared.taken.fetch_sub(idle, Ordering::AcqRel);
        if failure.is_none() && !back.is_empty() {
            // Before they are given back, or they would come again at once.
            read_paused(self.shared).await;
        }
        if generation == self.generation {
            // Claimed or gone, it has done what it was for: from the claim on the lease keeps the job, and a broker must not
            // have to remember a delivery for as long as a job may run.
            acknowledge(consumer, &done, &back).await;
        }
        failure.map_or(Ok(()), Err)
    }
}

/// Settles deliveries.
async fn acknowledge(consumer: Option<&mut Box<dyn Consumer>>, done: &[u64], back: &[u64]) {
    let Some(c) = consumer else { return };
    let mut result = Ok(());
    if !done.is_empty() {
        result = c.ack(done).await;
    }
    if !back.is_empty() && result.is_ok() {
        result = c.give_back(back).await;
    }
    if let Err(e) = result {
        // The wake-ups will come again and find nothing to claim.
        tracing::warn!(error = %e, "deliveries not acknowledged");
    }
}
