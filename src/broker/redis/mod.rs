//! The broker in a Redis server (7.0 or newer).
//!
//! ```text
//! app:P{QUEUE}:10 … app:P{QUEUE}:1   list for each priority, head first; 17 bytes a wake-up (version, job id)
//! app:P:DB:bell:QUEUE                channel: a list of the queue was empty and is not any more
//! app:P:DB:control                   channel: broadcasts, as JSON
//! ```
//! P is `broker.prefix`, DB the number of the database (channels know none). All keys of a queue have one hash tag, each
//! script touches one queue and names its keys: it may live in a cluster.
//!
//! Publishing appends a batch by one script and rings the bell where it found a list empty. Taking pops exactly what
//! is wanted by one script. A consumer that found a queue empty asks again only when the bell rings, so waiting costs
//! nothing and an idle worker hears of a job at once.
//!
//! What is popped is in the consumer's memory only: acknowledging costs nothing, and a process that is killed between
//! the pop and the claim in the store loses the wake-up. So does a server that loses its memory (`FLUSHALL`, no AOF).
//! That is meant: the store knows the job, and `scheduler::lost` publishes it again.
//!
//! A key that is no list, or a queue that the user has no right to, costs only itself: the scripts go on with the other
//! lists, the consumer with the other queues. Who has no right to channels (a user has none unless they are given) does
//! without bells and looks once a second.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use deadpool_redis::redis::{Cmd, FromRedisValue, RedisError, RedisResult, aio::MultiplexedConnection, cmd};
use futures_util::future::join_all;

use super::{
    Broker, BrokerError, Consumer, Control, Lacks, Listener, Options, SetAside, WakeUp,
    aside::{Aside, Part, Step},
    bounded, desk,
};
use crate::{
    base::{
        id::QueueName,
        probe::{Probe, Unfit},
    },
    redis::{Link, Settings, is_no_right, is_wrong_type},
};

mod consumer;
mod fitness;
mod listener;
mod scripts;

use scripts::{Lists, Scripts};

/// Both waits are shorter than `CALL_TIMEOUT`, so that the sentence names what was waited for. RESP3, so that bells arrive
/// on the connection that takes.
const SETTINGS: Settings = Settings { connect: Duration::from_secs(3), response: Duration::from_secs(4), pushes: true };

/// What all parts of one broker share.
struct Inner {
    link: Link,
    scripts: Scripts,
    prefix: String,
    aside: Aside,
}

fn unavailable(e: &RedisError) -> BrokerError {
    BrokerError::Unavailable(format!("redis: {e}"))
}

impl Inner {
    fn lists(&self, queue: &QueueName) -> Lists {
        Lists::new(&self.prefix, queue)
    }

    fn bells(&self) -> String {
        format!("app:{}:{}:bell:", self.prefix, self.link.db())
    }

    fn bell(&self, queue: &QueueName) -> String {
        format!("{}{queue}", self.bells())
    }

    fn control(&self) -> String {
        format!("app:{}:{}:control", self.prefix, self.link.db())
    }

    /// A call on the shared connection, bounded.
    async fn call<T, Fut>(
        &self,
        call: impl Fn(MultiplexedConnection) -> Fut + Send + Sync,
        failed: impl Fn(&RedisError) -> BrokerError + Send + Sync,
    ) -> Result<T, BrokerError>
    where
        T: Send,
        Fut: Future<Output = RedisResult<T>> + Send,
    {
        bounded(async { self.link.call(call).await.map_err(|e| failed(&e)) }).await
    }

    /// What a failure to use a queue means; a refusal sets it aside.
    fn failed(&self, queue: &QueueName, step: Step, e: &RedisError) -> BrokerError {
        match self.refusal(queue, e) {
            Some(why) => BrokerError::Refused(vec![self.aside.refuse(queue, step, why)]),
            None => unavailable(e),
        }
    }

    /// Why the server refuses a queue, and what to do; none if `e` is no refusal.
    fn refusal(&self, queue: &QueueName, e: &RedisError) -> Option<String> {
        let keys = self.lists(queue).pattern();
        if is_wrong_type(e) {
            return Some(format!(
                "a key of the queue `{queue}` in Redis (`{keys}`) is no list of this program's ({e}); delete or rename \
                 the key that is none, and the queue is filled from the store"
            ));
        }
        is_no_right(e).then(|| {
            format!(
                "Redis refuses the queue `{queue}` to the user in `broker.url` ({e}); give that user the rights that \
                 README lists for the keys `{keys}`"
            )
        })
    }

    /// What a failure to say or hear something means.
    fn part_failed(&self, part: Part, e: &RedisError) -> BrokerError {
        if !is_no_right(e) {
            return unavailable(e);
        }
        let why = format!("Redis refuses them ({e}); give the user in `broker.url` the channels `&app:*`");
        self.aside.refuse_part(part, why)
    }

    /// Notes whether the server let a bell ring or be heard (`Some("")`), or what it said. That it did not costs nothing
    /// but time.
    fn note_bell(&self, rung: Option<&str>) {
        match rung {
            None => {}
            Some("") => self.aside.admit_part(Part::Bells),
            Some(said) => {
                let why =
                    format!("Redis refuses channels ({said}); give the user in `broker.url` the channels `&app:*`");
                drop(self.aside.refuse_part(Part::Bells, why));
            }
        }
    }

    /// Puts wake-ups into the lists of one queue, behind or before what is there.
    async fn push(&self, queue: &QueueName, wake_ups: &[&WakeUp], end: scripts::End) -> Result<(), BrokerError> {
        let (lists, bell) = (self.lists(queue), self.bell(queue));
        let mut refused = None;
        for some in wake_ups.chunks(scripts::BATCH) {
            let jobs = some.iter().map(|w| (w.priority, w.job));
            let push = &self.scripts.push(&lists, &bell, end, jobs);
            let call = |mut c: MultiplexedConnection| async move { push.invoke_async::<Option<String>>(&mut c).await };
            match self.call(call, |e| self.failed(queue, Step::Have, e)).await {
                Ok(bell) => self.note_bell(bell.as_deref()),
                // The lists that are well took theirs.
                Err(e @ BrokerError::Refused(_)) => refused = Some(e),
                Err(e) => return Err(e),
            }
        }
        match refused {
            Some(e) => Err(e),
            None => {
                if self.aside.step(queue) == Some(Step::Have) && self.look(queue).await.is_ok() {
                    self.aside.admit(queue);
                }
                Ok(())
            }
        }
    }

    /// How many wake-ups wait in a queue.
    async fn look(&self, queue: &QueueName) -> Result<u64, BrokerError> {
        let mut lengths = deadpool_redis::redis::pipe();
        for list in self.lists(queue).keys() {
            lengths.llen(list);
        }
        let lengths = &lengths;
        let call = |mut c: MultiplexedConnection| async move { lengths.query_async::<Vec<u64>>(&mut c).await };
        let refused = |e: &RedisError| match self.refusal(queue, e) {
            Some(why) => BrokerError::Refused(vec![SetAside { queue: queue.clone(), why }]),
            None => unavailable(e),
        };
        Ok(self.call(call, refused).await?.into_iter().sum())
    }

    /// Hands wake-ups over, queue by queue: one that is refused is told after the others were served.
    async fn push_all(&self, wake_ups: &[WakeUp], end: scripts::End) -> Result<(), BrokerError> {
        let pushes = by_queue(wake_ups).into_iter().map(|(queue, mut of_queue)| {
            if matches!(end, scripts::End::Head) {
                // Each is put before the last one.
                of_queue.reverse();
            }
            async move { self.push(queue, &of_queue, end).await }
        });
        let mut refused = Vec::new();
        for pushed in join_all(pushes).await {
            match pushed {
                Err(BrokerError::Refused(some)) => refused.extend(some),
                pushed => pushed?,
            }
        }
        if refused.is_empty() { Ok(()) } else { Err(BrokerError::Refused(refused)) }
    }

    /// Puts wake-ups back where they were, as far as the server answers.
    async fn give_back(&self, wake_ups: &[WakeUp]) -> Result<(), BrokerError> {
        self.push_all(wake_ups, scripts::End::Head).await
    }

    /// Tries to take nothing from a queue; returns it if it is refused.
    async fn examine(&self, queue: &QueueName) -> Result<Option<SetAside>, BrokerError> {
        let pop = &self.scripts.pop(&self.lists(queue), 0);
        let call = |mut c: MultiplexedConnection| async move { pop.invoke_async::<Popped>(&mut c).await };
        let popped = match self.call(call, |e| self.failed(queue, Step::Take, e)).await {
            Err(BrokerError::Refused(refused)) => return Ok(refused.into_iter().next()),
            popped => popped?,
        };
        let refused = self.told(queue, &popped).map(|why| self.aside.refuse(queue, Step::Take, why));
        if refused.is_none() {
            self.aside.admit(queue);
        }
        Ok(refused)
    }

    /// What is wrong with a list of a queue, if a pop met one that is of another type.
    fn told(&self, queue: &QueueName, popped: &Popped) -> Option<String> {
        let (list, said) = popped.iter().find(|(list, _)| *list < 0)?;
        let key = Lists::priority(-list).and_then(|p| self.lists(queue).of(p).cloned()).unwrap_or_default();
        let said = said.first().map(|s| String::from_utf8_lossy(s).into_owned()).unwrap_or_default();
        Some(format!(
            "the key `{key}` of the queue `{queue}` in Redis is no list of this program's ({said}); delete or rename it, \
             and the queue is filled from the store"
        ))
    }
}

/// What the script that pops returns.
type Popped = Vec<(i64, Vec<Vec<u8>>)>;

/// The queues of `wake_ups` in the order in which they first come, each with its own.
fn by_queue(wake_ups: &[WakeUp]) -> Vec<(&QueueName, Vec<&WakeUp>)> {
    let mut queues: Vec<(&QueueName, Vec<&WakeUp>)> = Vec::with_capacity(1);
    for w in wake_ups {
        match queues.iter_mut().find(|(q, _)| **q == w.queue) {
            Some((_, of_queue)) => of_queue.push(w),
            None => queues.push((&w.queue, vec![w])),
        }
    }
    queues
}

/// The [`Broker`] in a Redis server.
pub(super) struct Redis(Arc<Inner>);

impl Redis {
    pub(super) fn new(url: &str, options: &Options) -> Result<Self, BrokerError> {
        let link = Link::new(url, SETTINGS).map_err(|e| {
            let url = crate::config::show::mask_url(url);
            BrokerError::Url(format!("broker.url is `{url}`, but that is no URL of a Redis server: {}", e.category()))
        })?;
        let (scripts, prefix) = (Scripts::new(), options.prefix.clone());
        Ok(Self(Arc::new(Inner { link, scripts, prefix, aside: Aside::default() })))
    }

    async fn command<T: FromRedisValue + Send>(
        &self,
        command: &Cmd,
        failed: impl Fn(&RedisError) -> BrokerError + Send + Sync,
    ) -> Result<T, BrokerError> {
        self.0.call(|mut c| async move { command.query_async(&mut c).await }, failed).await
    }
}

#[async_trait]
impl Probe for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    async fn check(&self) -> Result<(), String> {
        self.command::<()>(&cmd("PING"), unavailable).await.map_err(|e| e.to_string())
    }

    fn notes(&self) -> Vec<String> {
        self.0.aside.notes()
    }

    async fn inspect(&self) -> Result<Vec<String>, Unfit> {
        fitness::inspect(&self.0).await
    }
}

#[async_trait]
impl Broker for Redis {
    async fn publish(&self, wake_ups: &[WakeUp]) -> Result<(), BrokerError> {
        bounded(self.0.push_all(wake_ups, scripts::End::Tail)).await
    }

    async fn consumer(&self) -> Result<Box<dyn Consumer>, BrokerError> {
        let (handle, end) = desk::desk();
        let connected = async { self.0.link.open_with_pushes().await.map_err(|e| unavailable(&e)) };
        let (connection, pushes) = bounded(connected).await?;
        tokio::spawn(consumer::run(Arc::clone(&self.0), connection, pushes, end));
        Ok(Box::new(handle))
    }

    async fn examine(&self, queues: &[QueueName]) -> Result<Lacks, BrokerError> {
        let mut lacks = Lacks::default();
        for examined in join_all(queues.iter().map(|q| self.0.examine(q))).await {
            lacks.queues.extend(examined?);
        }
        let heard = self.listen().await.map(drop);
        lacks.note(fitness::can_say(&self.0, &heard).await)?;
        lacks.note(heard)?;
        Ok(lacks)
    }

    fn set_aside(&self) -> Vec<SetAside> {
        self.0.aside.list()
    }

    async fn depth(&self, queue: &QueueName) -> Result<u64, BrokerError> {
        self.0.look(queue).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64, BrokerError> {
        let purge = &self.0.scripts.purge(&self.0.lists(queue));
        self.0.call(|mut c| async move { purge.invoke_async(&mut c).await }, unavailable).await
    }

    async fn broadcast(&self, control: &Control) -> Result<(), BrokerError> {
        let said = serde_json::to_vec(control).map_err(|e| BrokerError::Unavailable(e.to_string()))?;
        let mut publish = cmd("PUBLISH");
        publish.arg(self.0.control()).arg(said);
        self.command::<()>(&publish, |e| self.0.part_failed(Part::Saying, e)).await?;
        self.0.aside.admit_part(Part::Saying);
        Ok(())
    }

    async fn listen(&self) -> Result<Box<dyn Listener>, BrokerError> {
        Ok(Box::new(bounded(listener::RedisListener::open(&self.0)).await?))
    }
}
