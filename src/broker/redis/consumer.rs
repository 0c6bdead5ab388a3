//! The task behind a consumer: hears bells and pops what is wanted, over a connection of its own.

use std::{collections::HashMap, sync::Arc, time::Duration};

use deadpool_redis::redis::{PushInfo, PushKind, RedisResult, Value, aio::MultiplexedConnection};
use futures_util::future::{join_all, pending};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, sleep_until},
};

use super::{Inner, Popped, scripts::Lists, unavailable};
use crate::{
    base::id::{Priority, QueueName},
    broker::{
        BrokerError, Delivery, WakeUp, Want,
        aside::Step,
        desk::{Settle, TaskEnd},
        wire,
    },
    redis::{is_moved, is_no_right},
};

/// While waiting, queues are looked at this often although no bell rang. It finds out that the server is gone, and
/// bounds what a bell that was lost on a fail-over can cost.
const LOOK_EVERY: Duration = Duration::from_secs(1);

struct Queue {
    lists: Lists,
    /// It was seen empty, and its bell has not rung since.
    quiet: bool,
}

struct Task {
    inner: Arc<Inner>,
    connection: MultiplexedConnection,
    pushes: UnboundedReceiver<PushInfo>,
    queues: HashMap<QueueName, Queue>,
    held: HashMap<u64, WakeUp>,
    next_tag: u64,
    look_at: Instant,
}

/// Serves one consumer until its handle is dropped or the connection breaks, then gives back what it holds.
pub(super) async fn run(
    inner: Arc<Inner>,
    connection: MultiplexedConnection,
    pushes: UnboundedReceiver<PushInfo>,
    mut end: TaskEnd,
) {
    let (queues, held) = (HashMap::new(), HashMap::new());
    let mut task = Task { inner, connection, pushes, queues, held, next_tag: 0, look_at: Instant::now() };
    if let Err(e) = task.serve(&mut end).await {
        end.desk.fail(e);
    }
    let mut held: Vec<(u64, WakeUp)> = task.held.into_iter().collect();
    held.sort_unstable_by_key(|(tag, _)| *tag);
    let held: Vec<WakeUp> = held.into_iter().map(|(_, w)| w).collect();
    if let Err(e) = task.inner.give_back(&held).await {
        tracing::warn!(error = %e, wake_ups = held.len(), "not given back, the scheduler will publish again what is still needed");
    }
}

impl Task {
    /// Ok when the handle was dropped.
    async fn serve(&mut self, end: &mut TaskEnd) -> Result<(), BrokerError> {
        loop {
            if Instant::now() >= self.look_at {
                self.queues.values_mut().for_each(|q| q.quiet = false);
                self.look_at = Instant::now() + LOOK_EVERY;
            }
            let mut waits = false;
            if let Some(want) = end.desk.want() {
                let taken = self.take(&want).await?;
                waits = taken.is_empty();
                if !waits {
                    end.desk.put(taken);
                }
            }
            let (overdue_at, look_at) = (end.desk.overdue_at(), self.look_at);
            let overdue = async {
                match overdue_at {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                settle = end.settle.recv() => match settle {
                    None => return Ok(()),
                    Some(settle) => self.settle(settle).await,
                },
                push = self.pushes.recv() => self.hear(push)?,
                () = end.desk.asked() => {}
                () = overdue => {
                    let back = end.desk.withdraw_overdue();
                    self.give_back(back.iter().map(|d| d.tag)).await?;
                }
                () = sleep_until(look_at), if waits => {}
            }
        }
    }

    async fn settle(&mut self, settle: Settle) {
        match settle {
            Settle::Ack(tags) => {
                for tag in tags {
                    self.held.remove(&tag);
                }
            }
            Settle::GiveBack(tags, done) => {
                let back = self.give_back(tags.into_iter()).await;
                // Whoever asked may have gone.
                done.send(back).unwrap_or_default();
            }
        }
    }

    async fn give_back(&mut self, tags: impl Iterator<Item = u64>) -> Result<(), BrokerError> {
        let back: Vec<WakeUp> = tags.filter_map(|tag| self.held.remove(&tag)).collect();
        self.inner.give_back(&back).await
    }

    /// Notes that a bell rang.
    fn hear(&mut self, push: Option<PushInfo>) -> Result<(), BrokerError> {
        let gone = || BrokerError::Unavailable("redis: the connection was closed".into());
        let PushInfo { kind, data } = push.ok_or_else(gone)?;
        match (kind, data.first()) {
            (PushKind::Disconnection, _) => Err(gone()),
            (PushKind::Message, Some(Value::BulkString(channel))) => {
                let queue = std::str::from_utf8(channel).ok().and_then(|c| c.strip_prefix(&self.inner.bells()));
                if let Some(queue) = queue.and_then(|q| self.queues.get_mut(q)) {
                    queue.quiet = false;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Subscribes to the bells of queues that were never wanted before. Who may not hear them looks all the same.
    async fn learn(&mut self, want: &Want) -> Result<(), BrokerError> {
        let new: Vec<&QueueName> =
            want.shares.iter().map(|(q, _)| q).filter(|q| !self.queues.contains_key(*q)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let bells: Vec<String> = new.iter().map(|q| self.inner.bell(q)).collect();
        match self.connection.subscribe(&bells).await {
            Ok(()) => self.inner.note_bell(Some("")),
            Err(e) if is_no_right(&e) => {
                self.inner.note_bell(Some(&e.to_string()));
                // One that is refused takes the others with it.
                for bell in bells.iter().filter(|_| bells.len() > 1) {
                    let heard = self.connection.subscribe(bell).await;
                    heard.or_else(|e| if is_no_right(&e) { Ok(()) } else { Err(unavailable(&e)) })?;
                }
            }
            Err(e) => return Err(unavailable(&e)),
        }
        for queue in new {
            self.queues.insert(queue.clone(), Queue { lists: self.inner.lists(queue), quiet: false });
        }
        Ok(())
    }

    /// How many to pop from which queue: the shares, and what they leave over goes to the first that may have more.
    fn plan<'a>(&self, shares: &'a [(QueueName, usize)], room: usize) -> Vec<(&'a QueueName, usize)> {
        let live = shares.iter().filter(|(q, _)| self.queues.get(q).is_some_and(|known| !known.quiet));
        let mut left = room;
        let mut plan: Vec<(&QueueName, usize)> = Vec::new();
        for (queue, share) in live {
            let n = left.min(*share);
            left -= n;
            plan.push((queue, n));
        }
        if let Some((_, n)) = plan.first_mut() {
            *n += left;
        }
        plan.retain(|(_, n)| *n > 0);
        plan
    }

    /// Pops what is wanted, as far as it is there.
    async fn take(&mut self, want: &Want) -> Result<Vec<Delivery>, BrokerError> {
        self.learn(want).await?;
        let mut taken = Vec::new();
        // After the first round shares are used up: the rest is filled in their order.
        let fills: Vec<(QueueName, usize)> = want.shares.iter().map(|(q, _)| (q.clone(), 0)).collect();
        let mut shares = &want.shares;
        while taken.len() < want.max {
            while let Ok(push) = self.pushes.try_recv() {
                self.hear(Some(push))?;
            }
            let plan = self.plan(shares, want.max - taken.len());
            if plan.is_empty() {
                break;
            }
            for (queue, _) in &plan {
                // Before the question: a bell that rings after the answer must not be taken for an older one.
                if let Some(known) = self.queues.get_mut(*queue) {
                    known.quiet = true;
                }
            }
            let answers = join_all(plan.iter().map(|(queue, n)| self.pop(queue, *n))).await;
            let mut failed = None;
            for ((queue, asked), answer) in plan.into_iter().zip(answers) {
                let popped = match answer {
                    Ok(popped) => popped,
                    // It costs only itself, and is looked at again in a while.
                    Err(e) if is_no_right(&e) => {
                        drop(self.inner.failed(queue, Step::Take, &e));
                        continue;
                    }
                    // What the others brought is held first, so that it is given back.
                    Err(e) => {
                        failed.get_or_insert(e);
                        continue;
                    }
                };
                let n: usize = popped.iter().filter(|(list, _)| *list > 0).map(|(_, jobs)| jobs.len()).sum();
                self.note(queue, &popped, n < asked);
                if n == asked
                    && let Some(known) = self.queues.get_mut(queue)
                {
                    known.quiet = false;
                }
                self.hold(queue, popped, &mut taken);
            }
            if let Some(e) = failed {
                if is_moved(&e) {
                    self.inner.link.moved();
                }
                return Err(unavailable(&e));
            }
            shares = &fills;
        }
        Ok(taken)
    }

    /// Notes whether the lists of a queue are as they should be; `all` of them were looked at.
    fn note(&self, queue: &QueueName, popped: &Popped, all: bool) {
        match self.inner.told(queue, popped) {
            Some(why) => drop(self.inner.aside.refuse(queue, Step::Take, why)),
            None if all => self.inner.aside.admit(queue),
            None => {}
        }
    }

    async fn pop(&self, queue: &QueueName, n: usize) -> RedisResult<Popped> {
        let Some(known) = self.queues.get(queue) else { return Ok(Vec::new()) };
        self.inner.scripts.pop(&known.lists, n).invoke_async(&mut self.connection.clone()).await
    }

    fn hold(&mut self, queue: &QueueName, popped: Popped, taken: &mut Vec<Delivery>) {
        for (list, bytes) in popped.into_iter().filter(|(list, _)| *list > 0) {
            let priority = Lists::priority(list).unwrap_or(Priority::MIN);
            for job in bytes {
                let Some(job) = wire::decode(&job) else {
                    tracing::warn!(queue = %queue, "a wake-up that this version cannot read is dropped");
                    continue;
                };
                let wake_up = WakeUp { job, queue: queue.clone(), priority };
                let tag = self.next_tag;
                self.next_tag += 1;
                self.held.insert(tag, wake_up.clone());
                taken.push(Delivery { wake_up, tag });
            }
        }
    }
}
