//! The half of a consumer that is the same for every broker server.
//!
//! A consumer is two halves. The handle, here, is what a worker holds; its `next` may be dropped at any moment. A task
//! of its own speaks to the server and is never dropped in the middle of an exchange. Between them stands the desk:
//!
//! ```text
//! want   what a waiting `next` asks for; none while nobody waits
//! ready  what the task brought; `next` takes from here first
//! ```
//! Nobody may hold what it does not want: what lies on the desk for [`UNWANTED`] without being taken goes back.

use std::{
    cmp::Reverse,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{
        Notify,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        oneshot,
    },
    time::Instant,
};

use super::{BrokerError, Consumer, Delivery, Want, bounded};

/// After this long on the desk a delivery is given back. Long enough for a worker between two waits, short enough
/// that nobody misses it.
const UNWANTED: Duration = Duration::from_millis(100);

/// What the handle tells the task besides its wants.
pub(super) enum Settle {
    /// These are done with.
    Ack(Vec<u64>),
    /// These go back; the task answers when they are back.
    GiveBack(Vec<u64>, oneshot::Sender<Result<(), BrokerError>>),
}

#[derive(Default)]
struct State {
    want: Option<Want>,
    ready: Vec<Delivery>,
    put_at: Option<Instant>,
    failed: Option<BrokerError>,
}

/// What lies between a consumer's handle and its task.
#[derive(Default)]
pub(super) struct Desk {
    state: Mutex<State>,
    arrived: Notify,
    asked: Notify,
}

/// The task's end of the desk.
pub(super) struct TaskEnd {
    pub(super) desk: Arc<Desk>,
    /// Ends when the handle is dropped.
    pub(super) settle: UnboundedReceiver<Settle>,
}

/// The worker's end of the desk.
pub(super) struct DeskConsumer {
    desk: Arc<Desk>,
    settle: UnboundedSender<Settle>,
}

/// Both ends of a new desk.
pub(super) fn desk() -> (DeskConsumer, TaskEnd) {
    let desk = Arc::<Desk>::default();
    let (tx, rx) = unbounded_channel();
    (DeskConsumer { desk: Arc::clone(&desk), settle: tx }, TaskEnd { desk, settle: rx })
}

impl Drop for TaskEnd {
    /// However the task ended, nobody may wait for it.
    fn drop(&mut self) {
        self.desk.fail(BrokerError::Unavailable("the consumer has ended".into()));
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is asked for right now and not on the desk.
    pub(super) fn want(&self) -> Option<Want> {
        self.lock().want.clone()
    }

    /// Waits until somebody asks.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Lays deliveries on the desk, in their order.
    pub(super) fn put(&self, deliveries: Vec<Delivery>) {
        let mut state = self.lock();
        // Whoever finds nothing suitable among them asks again.
        state.want = None;
        let sorted = state.ready.is_empty();
        state.ready.extend(deliveries);
        if !sorted {
            state.ready.sort_by_key(|d| Reverse(d.wake_up.priority));
        }
        state.put_at = Some(Instant::now());
        drop(state);
        self.arrived.notify_one();
    }

    /// When what lies on the desk must go back; none while it is empty.
    pub(super) fn overdue_at(&self) -> Option<Instant> {
        let state = self.lock();
        state.put_at.filter(|_| !state.ready.is_empty()).map(|at| at + UNWANTED)
    }

    /// Takes from the desk what has lain there for too long.
    pub(super) fn withdraw_overdue(&self) -> Vec<Delivery> {
        let mut state = self.lock();
        match state.put_at {
            Some(at) if at + UNWANTED <= Instant::now() => std::mem::take(&mut state.ready),
            _ => Vec::new(),
        }
    }

    /// Tells the handle that nothing more comes. The first reason stays.
    pub(super) fn fail(&self, why: BrokerError) {
        let mut state = self.lock();
        state.ready.clear();
        state.failed.get_or_insert(why);
        drop(state);
        self.arrived.notify_one();
    }

    /// Takes what is wanted, or leaves word that it is wanted.
    fn take(&self, want: &Want) -> Option<Result<Vec<Delivery>, BrokerError>> {
        let mut state = self.lock();
        if let Some(why) = &state.failed {
            return Some(Err(why.clone()));
        }
        let taken = pick(&mut state.ready, want);
        if !taken.is_empty() {
            return Some(Ok(taken));
        }
        state.want = Some(want.clone());
        drop(state);
        self.asked.notify_one();
        None
    }
}

/// Moves what `want` names out of `ready`.
fn pick(ready: &mut Vec<Delivery>, want: &Want) -> Vec<Delivery> {
    let wanted = |d: &Delivery| want.shares.iter().any(|(q, _)| *q == d.wake_up.queue);
    if ready.len() <= want.max && ready.iter().all(wanted) {
        return std::mem::take(ready);
    }
    let fills = want.shares.iter().map(|(q, _)| (q, want.max));
    let mut taken = Vec::new();
    for (queue, share) in want.shares.iter().map(|(q, n)| (q, *n)).chain(fills) {
        let mut room = share.min(want.max.saturating_sub(taken.len()));
        taken.extend(ready.extract_if(.., |d| {
            let take = room > 0 && d.wake_up.queue == *queue;
            room -= usize::from(take);
            take
        }));
    }
    taken
}

/// Withdraws a want when its wait is over or given up.
struct Asking<'a>(&'a Desk);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.lock().want = None;
    }
}

impl DeskConsumer {
    fn tell(&self, settle: Settle) -> Result<(), BrokerError> {
        let ended = |_| BrokerError::Unavailable("the consumer has ended".into());
        let sent = self.settle.send(settle).map_err(ended);
        self.desk.lock().failed.clone().map_or(sent, Err)
    }
}

#[async_trait]
impl Consumer for DeskConsumer {
    async fn next(&mut self, want: &Want) -> Result<Vec<Delivery>, BrokerError> {
        let _asking = Asking(&self.desk);
        loop {
            if let Some(taken) = self.desk.take(want) {
                return taken;
            }
            // One waiter, and `notify_one` is remembered: what arrives in between is not missed.
            self.desk.arrived.notified().await;
        }
    }

    async fn ack(&mut self, tags: &[u64]) -> Result<(), BrokerError> {
        if tags.is_empty() { Ok(()) } else { self.tell(Settle::Ack(tags.to_vec())) }
    }

    async fn give_back(&mut self, tags: &[u64]) -> Result<(), BrokerError> {
        if tags.is_empty() {
            return Ok(());
        }
        let (done, back) = oneshot::channel();
        self.tell(Settle::GiveBack(tags.to_vec(), done))?;
        let ended = |_| BrokerError::Unavailable("the consumer has ended".into());
        bounded(async { back.await.map_err(ended)? }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::id::{JobId, Priority, QueueName},
        broker::wake_up,
    };

    fn delivery(queue: &str, priority: i64, tag: u64) -> Delivery {
        let (queue, priority) = (QueueName::new(queue).unwrap(), Priority::new(priority).unwrap());
        Delivery { wake_up: wake_up(JobId(uuid::Uuid::nil()), &queue, priority), tag }
    }

    fn want(max: usize, shares: &[(&str, usize)]) -> Want {
        Want { max, shares: shares.iter().map(|(q, n)| (QueueName::new(q).unwrap(), *n)).collect() }
    }

    fn tags(deliveries: &[Delivery]) -> Vec<u64> {
        deliveries.iter().map(|d| d.tag).collect()
    }

    #[tokio::test]
    async fn what_nobody_wants_any_more_is_withdrawn() {
        let (mut handle, task) = desk();
        let wanted = want(2, &[("a", 1), ("b", 1)]);
        assert!(tokio::time::timeout(Duration::from_millis(1), handle.next(&wanted)).await.is_err());
        assert!(task.desk.want().is_none(), "a dropped wait wants nothing");
        task.desk.put(vec![delivery("a", 5, 1), delivery("b", 1, 2), delivery("c", 1, 3)]);
        task.desk.put(vec![delivery("b", 9, 4)]);
        assert_eq!(tags(&handle.next(&wanted).await.unwrap()), [1, 4]);
        assert!(task.desk.withdraw_overdue().is_empty());
        tokio::time::sleep_until(task.desk.overdue_at().unwrap()).await;
        assert_eq!(tags(&task.desk.withdraw_overdue()), [2, 3]);
        assert!(task.desk.overdue_at().is_none());
        drop(task);
        assert!(handle.next(&wanted).await.is_err());
        assert!(handle.ack(&[1]).await.is_err());
    }
}
