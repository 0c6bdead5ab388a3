//! The broker inside the process: ten first-in-first-out bands a queue.
//!
//! ```text
//! queues: name → bands[10..1]: VecDeque<job id>     16 bytes for each waiting wake-up
//! taken:  per consumer, tag → wake-up               given back when the consumer is dropped
//! ```
//! It dies with the process. That loses nothing: the store knows every queued job and the scheduler wakes them again.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use futures_util::future::select_all;
use tokio::sync::{Notify, broadcast};

use super::{Broker, BrokerError, Consumer, Control, Delivery, Lacks, Listener, SetAside, WakeUp, Want};
use crate::base::{
    id::{JobId, Priority, QueueName},
    probe::Probe,
};

const BANDS: u8 = 10;
/// A listener that is this many broadcasts behind is told that it missed some.
const BROADCASTS_KEPT: usize = 4096;

#[derive(Default)]
struct Bands {
    bands: [VecDeque<JobId>; BANDS as usize],
    len: usize,
    /// Wakes whoever waits for this queue, and nobody else: a queue that no worker takes from costs none a wake-up.
    arrived: Arc<Notify>,
}

impl Bands {
    fn band(&mut self, p: Priority) -> Option<&mut VecDeque<JobId>> {
        self.bands.get_mut(usize::from(BANDS - p.get()))
    }

    fn push_back(&mut self, p: Priority, job: JobId) {
        if let Some(b) = self.band(p) {
            b.push_back(job);
            self.len += 1;
        }
    }

    fn push_front(&mut self, p: Priority, job: JobId) {
        if let Some(b) = self.band(p) {
            b.push_front(job);
            self.len += 1;
        }
    }

    fn pop(&mut self) -> Option<(JobId, Priority)> {
        for (i, band) in (0_u8..).zip(self.bands.iter_mut()) {
            if let Some(job) = band.pop_front() {
                self.len -= 1;
                // A burst must not pin its memory for ever.
                if band.is_empty() && band.capacity() > 4096 {
                    band.shrink_to(64);
                }
                return Priority::new(i64::from(BANDS - i)).ok().map(|p| (job, p));
            }
        }
        None
    }
}

struct Shared {
    queues: Mutex<HashMap<QueueName, Bands>>,
    controls: broadcast::Sender<Control>,
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, HashMap<QueueName, Bands>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The in-process [`Broker`].
pub(super) struct Embedded(Arc<Shared>);

impl Embedded {
    pub(super) fn new() -> Self {
        let (controls, _) = broadcast::channel(BROADCASTS_KEPT);
        Self(Arc::new(Shared { queues: Mutex::default(), controls }))
    }
}

#[async_trait]
impl Probe for Embedded {
    fn name(&self) -> &'static str {
        "embedded"
    }

    async fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

#[async_trait]
impl Broker for Embedded {
    async fn publish(&self, wake_ups: &[WakeUp]) -> Result<(), BrokerError> {
        let mut arrived: Vec<(&QueueName, Arc<Notify>)> = Vec::with_capacity(1);
        {
            let mut queues = self.0.queues();
            for w in wake_ups {
                let bands = match queues.get_mut(&w.queue) {
                    Some(bands) => bands,
                    None => queues.entry(w.queue.clone()).or_default(),
                };
                bands.push_back(w.priority, w.job);
                if !arrived.iter().any(|(q, _)| *q == &w.queue) {
                    arrived.push((&w.queue, Arc::clone(&bands.arrived)));
                }
            }
        }
        for (_, notify) in arrived {
            notify.notify_waiters();
        }
        Ok(())
    }

    async fn consumer(&self) -> Result<Box<dyn Consumer>, BrokerError> {
        Ok(Box::new(EmbeddedConsumer { shared: Arc::clone(&self.0), taken: HashMap::new(), next_tag: 0 }))
    }

    async fn examine(&self, _queues: &[QueueName]) -> Result<Lacks, BrokerError> {
        Ok(Lacks::default())
    }

    fn set_aside(&self) -> Vec<SetAside> {
        Vec::new()
    }

    async fn depth(&self, queue: &QueueName) -> Result<u64, BrokerError> {
        Ok(self.0.queues().get(queue).map_or(0, |b| b.len as u64))
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64, BrokerError> {
        Ok(self.0.queues().get_mut(queue).map_or(0, |b| {
            b.bands = Default::default();
            std::mem::take(&mut b.len) as u64
        }))
    }

    async fn broadcast(&self, control: &Control) -> Result<(), BrokerError> {
        // An error means that nobody listens, which is no failure of the broadcast.
        drop(self.0.controls.send(control.clone()));
        Ok(())
    }

    async fn listen(&self) -> Result<Box<dyn Listener>, BrokerError> {
        Ok(Box::new(EmbeddedListener(self.0.controls.subscribe())))
    }
}

struct EmbeddedConsumer {
    shared: Arc<Shared>,
    taken: HashMap<u64, WakeUp>,
    next_tag: u64,
}

impl EmbeddedConsumer {
    fn take(&mut self, want: &Want) -> Vec<Delivery> {
        let mut out = Vec::new();
        let mut queues = self.shared.queues();
        let fills = want.shares.iter().map(|(q, _)| (q, want.max));
        for (queue, share) in want.shares.iter().map(|(q, n)| (q, *n)).chain(fills) {
            let Some(bands) = queues.get_mut(queue) else { continue };
            for _ in 0..share.min(want.max.saturating_sub(out.len())) {
                let Some((job, priority)) = bands.pop() else { break };
                let wake_up = WakeUp { job, queue: queue.clone(), priority };
                let tag = self.next_tag;
                self.next_tag += 1;
                self.taken.insert(tag, wake_up.clone());
                out.push(Delivery { wake_up, tag });
            }
        }
        out
    }

    fn put_back(&mut self, tags: &[u64]) {
        let mut queues = self.shared.queues();
        // Backwards, so that several deliveries of one band end in the order they were taken.
        for tag in tags.iter().rev() {
            if let Some(w) = self.taken.remove(tag) {
                let bands = queues.entry(w.queue).or_default();
                bands.push_front(w.priority, w.job);
                bands.arrived.notify_waiters();
            }
        }
    }

    fn arrivals(&self, want: &Want) -> Vec<Arc<Notify>> {
        let mut queues = self.shared.queues();
        let arrived = |(q, _): &(QueueName, usize)| Arc::clone(&queues.entry(q.clone()).or_default().arrived);
        want.shares.iter().map(arrived).collect()
    }
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn next(&mut self, want: &Want) -> Result<Vec<Delivery>, BrokerError> {
        let taken = self.take(want);
        if !taken.is_empty() {
            return Ok(taken);
        }
        let arrivals = self.arrivals(want);
        loop {
            let mut waits: Vec<_> = arrivals.iter().map(|n| Box::pin(n.notified())).collect();
            // Registered before the look, so that what arrives between the look and the wait is not missed.
            for wait in &mut waits {
                wait.as_mut().enable();
            }
            let taken = self.take(want);
            if !taken.is_empty() {
                return Ok(taken);
            }
            if waits.is_empty() {
                std::future::pending::<()>().await;
            }
            select_all(waits).await;
        }
    }

    async fn ack(&mut self, tags: &[u64]) -> Result<(), BrokerError> {
        for tag in tags {
            self.taken.remove(tag);
        }
        Ok(())
    }

    async fn give_back(&mut self, tags: &[u64]) -> Result<(), BrokerError> {
        self.put_back(tags);
        Ok(())
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        let mut tags: Vec<u64> = self.taken.keys().copied().collect();
        tags.sort_unstable();
        self.put_back(&tags);
    }
}

struct EmbeddedListener(broadcast::Receiver<Control>);

#[async_trait]
impl Listener for EmbeddedListener {
    async fn next(&mut self) -> Result<Option<Control>, BrokerError> {
        match self.0.recv().await {
            Ok(c) => Ok(Some(c)),
            Err(broadcast::error::RecvError::Lagged(_)) => Ok(None),
            Err(broadcast::error::RecvError::Closed) => Err(BrokerError::Unavailable("the process is ending".into())),
        }
    }
}
