//! The worker's main loop: one owner of the consumer, of the free slots, and of the decision to stop.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    time::{Instant, sleep_until},
};

use super::{
    ABORT_GRACE, Shared, StopReason,
    finish::{Ended, Settled},
    run::{self as job_run, Origin},
    slots::Slots,
};
use crate::{
    base::{backoff::Backoff, failpoint, id::QueueName, shutdown::Shutdown},
    broker::{BrokerError, Consumer, Delivery},
    jobs::store::Claim,
};

/// Between attempts to reach a broker or store that is away.
const RECONNECT: Backoff = Backoff { base_ms: 100, cap_ms: 5_000 };

struct Dispatch<'a> {
    shared: &'a Arc<Shared>,
    ended: UnboundedSender<Ended>,
    slots: Slots,
    busy: usize,
    taken: u64,
    /// Which consumer a delivery came from: the tags of one that broke mean nothing to its successor.
    generation: u64,
    failures: u32,
}

/// Runs until told to stop or `max_jobs` are done, then until nothing runs any more.
pub(super) async fn run(
    shared: &Arc<Shared>,
    ended: UnboundedSender<Ended>,
    mut settled: UnboundedReceiver<Vec<Settled>>,
    shutdown: &Shutdown,
) {
    let slots = Slots::new(&shared.options.queues, shared.options.strict);
    let mut d = Dispatch { shared, ended, slots, busy: 0, taken: 0, generation: 0, failures: 0 };
    let mut consumer: Option<Box<dyn Consumer>> = None;
    let mut retry_at = Instant::now();
    while !shutdown.drain.is_cancelled() && d.left() > 0 {
        if consumer.is_none() && Instant::now() >= retry_at {
            match shared.deps.broker.consumer().await {
                Ok(c) => {
                    d.generation += 1;
                    consumer = Some(c);
                }
                Err(e) => retry_at = d.failed("broker", &e),
            }
        }
        let want = d.want();
        let away = consumer.is_none();
        let next = async {
            match (&mut consumer, &want) {
                (Some(c), Some(w)) => c.next(w).await,
                _ => std::future::pending::<Result<Vec<Delivery>, BrokerError>>().await,
            }
        };
        tokio::select! {
            biased;
            () = shutdown.drain.cancelled() => {}
            Some(batch) = settled.recv() => d.settle(consumer.as_mut(), batch).await,
            () = shared.paused_changed.notified() => {}
            () = sleep_until(retry_at), if away => {}
            got = next => match got {
                Ok(deliveries) => {
                    if let Some(c) = &mut consumer && let Err(e) = d.start(c.as_mut(), deliveries).await {
                        retry_at = d.failed("store", &e);
                        // Its deliveries go back to the broker with it.
                        consumer = None;
                    }
                }
                Err(e) => {
                    retry_at = d.failed("broker", &e);
                    consumer = None;
                }
            },
        }
    }
    shared.draining.store(true, Ordering::Relaxed);
    drain(d, consumer, settled, shutdown).await;
}

/// Lets what runs finish within the grace, then stops it and gives it back.
async fn drain(
    mut d: Dispatch<'_>,
    mut consumer: Option<Box<dyn Consumer>>,
    mut settled: UnboundedReceiver<Vec<Settled>>,
    shutdown: &Shutdown,
) {
    let shared = d.shared;
    // Only a worker that was asked to stop is in a hurry; one that has done its `max_jobs` lets the last ones end.
    let asked = async {
        shutdown.drain.cancelled().await;
        tokio::time::sleep(shared.options.shutdown_grace).await;
    };
    let mut patience = std::pin::pin!(asked);
    let mut give_up: Option<Instant> = None;
    if d.busy > 0 {
        tracing::info!(running = d.busy, "worker drains");
    }
    while d.busy > 0 {
        let last = async {
            match give_up {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(batch) = settled.recv() => d.settle(consumer.as_mut(), batch).await,
            () = &mut patience, if give_up.is_none() => {
                tracing::warn!(running = d.busy, "grace is over, giving running jobs back");
                shared.running.stop_all(StopReason::Abort);
                give_up = Some(Instant::now() + ABORT_GRACE);
            }
            () = shutdown.abort.cancelled(), if give_up.is_none() => {
                shared.running.stop_all(StopReason::Abort);
                give_up = Some(Instant::now() + ABORT_GRACE);
            }
            () = last => {
                // The process ends now, and these threads with it: their leases tell the next worker.
                tracing::error!(running = d.busy, "handlers did not stop when told to, leaving them to the lease");
                break;
            }
        }
    }
}

impl Dispatch<'_> {
    /// How many jobs may still be started.
    fn left(&self) -> u64 {
        match self.shared.options.max_jobs {
            0 => u64::MAX,
            max => max.saturating_sub(self.taken),
        }
    }

    fn want(&self) -> Option<crate::broker::Want> {
        let free = self.shared.options.slots.saturating_sub(self.busy);
        let free = free.min(usize::try_from(self.left()).unwrap_or(usize::MAX));
        let paused = self.shared.paused.lock().unwrap_or_else(PoisonError::into_inner);
        self.slots.want(free, &paused)
    }

    fn failed(&mut self, what: &str, e: &dyn std::fmt::Display) -> Instant {
        let pause = RECONNECT.delay(self.failures).max(Duration::from_millis(20));
        tracing::warn!(error = %e, retry_in_ms = pause.as_millis() as u64, "{what} is not available, trying again");
        self.failures = self.failures.saturating_add(1);
        Instant::now() + pause
    }

    /// Claims what was delivered and starts what was won.
    async fn start(
        &mut self,
        consumer: &mut dyn Consumer,
        deliveries: Vec<Delivery>,
    ) -> Result<(), crate::base::store::StoreError> {
        let deps = &self.shared.deps;
        let ids: Vec<_> = deliveries.iter().map(|d| d.wake_up.job).collect();
        let now = deps.clock.now();
        let claims = deps.store.claim(&ids, self.shared.id, now, self.shared.options.lease).await?;
        self.failures = 0;
        failpoint::hit("worker.after_claim");
        let (mut gone, mut back) = (Vec::new(), Vec::new());
        let mut paused: HashSet<QueueName> = HashSet::new();
        for (delivery, claim) in deliveries.into_iter().zip(claims) {
            match claim {
                Claim::Won { job, queued_at } => {
                    self.busy += 1;
                    self.taken += 1;
                    self.slots.took(&job.queue);
                    let handles = self.shared.meter.started(&job, queued_at, now);
                    let origin = Origin { tag: delivery.tag, generation: self.generation, handles };
                    job_run::start(self.shared, *job, origin, self.ended.clone());
                }
                Claim::Gone => gone.push(delivery.tag),
                Claim::Paused => {
                    paused.insert(delivery.wake_up.queue);
                    back.push(delivery.tag);
                }
            }
        }
        self.shared.paused.lock().unwrap_or_else(PoisonError::into_inner).extend(paused);
        self.acknowledge(Some(consumer), &gone, &back).await;
        Ok(())
    }

    /// Acknowledges what was finished and frees its slots.
    async fn settle(&mut self, consumer: Option<&mut Box<dyn Consumer>>, batch: Vec<Settled>) {
        let (mut done, mut back) = (Vec::new(), Vec::new());
        for s in batch {
            self.busy = self.busy.saturating_sub(1);
            if s.generation == self.generation {
                if s.give_back { back.push(s.tag) } else { done.push(s.tag) }
            }
        }
        self.acknowledge(consumer.map(|c| &mut **c as &mut dyn Consumer), &done, &back).await;
    }

    async fn acknowledge(&self, consumer: Option<&mut dyn Consumer>, done: &[u64], back: &[u64]) {
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
}
