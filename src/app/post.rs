//! Puts the notifications room together.
//!
//! Its kinds belong to the registry, which the job queue needs, which the room needs to accept messages: so it is opened
//! before the queue and served after it.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::{
    base::{clock::Clock, zone::Zones},
    cache::{self, Cache, Rate, Through},
    config::Config,
    events::{Bell, Event},
    http::PostRooms,
    jobs::{announce::Listened, registry::Registry, service::Jobs},
    notifications::{
        breaker::Breakers,
        channels::Channels,
        error::NotificationError,
        follow::Follower,
        judge::{Judge, Rates},
        links::Links,
        rules::{Rule, Rules},
        send::Sender,
        service::Notifications,
        sink::Sink,
        suppressions::Suppressions,
        templates::{CACHED_SHAPE, Templates},
    },
    store::Stores,
    users::Users,
};

/// Rings at the job queue once there is one.
#[derive(Default)]
pub(super) struct Doorbell(OnceLock<Weak<Jobs>>);

impl Doorbell {
    pub(super) fn connect(&self, jobs: &Arc<Jobs>) {
        // Called once; a second time changes nothing.
        drop(self.0.set(Arc::downgrade(jobs)));
    }
}

#[async_trait]
impl Bell for Doorbell {
    async fn ring(&self, events: &[Event]) {
        if let Some(jobs) = self.0.get().and_then(Weak::upgrade) {
            jobs.ring(events).await;
        }
    }
}

/// The room before there is a job queue.
pub(super) struct Post {
    judge: Judge,
    rules: Rules,
    sender: Sender,
}

/// What the configuration says and was read before anything was opened.
pub(super) struct Read {
    /// The ways out.
    pub(super) channels: Channels,
    /// Rules besides those made by the API.
    pub(super) rules: Vec<Rule>,
    /// Time zones.
    pub(super) zones: Zones,
}

/// The rules of the configuration.
///
/// # Errors
/// A sentence, if one is wrong.
pub(super) fn fixed_rules(config: &Config) -> Result<Vec<Rule>, Error> {
    let rule = |text: &String| {
        Rule::parse(text).map_err(|e| Error::Config(format!("`notifications.rules` has the entry \"{text}\", {e}")))
    };
    config.notifications.rules.iter().map(rule).collect()
}

impl Post {
    pub(super) fn open(
        config: &Config,
        stores: &Stores,
        cache: &Arc<dyn Cache>,
        users: &Arc<Users>,
        bell: &Arc<dyn Bell>,
        clock: &Clock,
        Read { channels, rules: fixed, zones }: Read,
    ) -> Self {
        let c = &config.notifications;
        let records = || Arc::clone(&stores.records);
        let mut templates = Templates::new(records(), clock.clone(), zones.clone());
        if cache::is_shared(&config.cache.url) {
            templates = templates.cached(Through::new(Arc::clone(cache), "templates", CACHED_SHAPE, config.cache.ttl));
        }
        let public_url = match c.public_url.as_str() {
            "" => format!("http://{}", config.http.bind),
            url => url.to_owned(),
        };
        let judge = Judge {
            users: Arc::clone(users),
            templates,
            suppressions: Suppressions::new(records(), clock.clone()),
            breakers: Breakers::new(Arc::clone(cache), records(), Arc::clone(bell), clock.clone()),
            channels: Arc::new(channels),
            sink: Sink::new(records(), clock.clone()),
            links: Links::new(records(), public_url, clock.clone()),
            cache: Arc::clone(cache),
            rates: Rates {
                email: per_minute(c.email_per_minute),
                push: per_minute(c.push_per_minute),
                webhook: per_minute(c.webhook_per_minute),
            },
            clock: clock.clone(),
            zones,
        };
        let rules = Rules::new(records(), fixed, clock.clone());
        let sender = Sender::new(judge.clone());
        Self { judge, rules, sender }
    }

    pub(super) fn register(&self, registry: &mut Registry) -> Result<(), String> {
        self.sender.register(registry)?;
        registry.add(Follower::new(self.rules.clone(), self.sender.service()))
    }

    pub(super) fn serve(self, jobs: &Arc<Jobs>) -> PostRooms {
        let notifications = Arc::new(Notifications::new(Arc::clone(jobs), self.judge));
        self.sender.serve(&notifications);
        PostRooms { notifications, rules: self.rules }
    }
}

/// So many in a minute, evenly; a second's worth of them at once.
fn per_minute(n: u32) -> Option<Rate> {
    let every = Duration::from_secs(60).checked_div(n)?.max(Duration::from_millis(1));
    Some(Rate { burst: (n / 60).max(1), every })
}

/// How often a process looks whether somebody listens to ends of jobs.
const LISTEN_EVERY: Duration = Duration::from_secs(1);

/// Looks once whether somebody listens to ends of jobs.
///
/// # Errors
/// If the store fails; what was known last holds on.
pub(super) async fn look(rules: &Rules, listened: &Listened) -> Result<(), NotificationError> {
    let (finished, failed) = (rules.on("job.finished").await?, rules.on("job.failed").await?);
    listened.set(!finished.is_empty(), !failed.is_empty());
    Ok(())
}

/// Keeps `listened` as the rules are, until `stop`; says so in `known` when it has looked for the first time. No end of a job
/// may be written before that, or nobody would hear of it.
pub(super) async fn follow_rules(
    rules: Rules,
    listened: Listened,
    known: watch::Sender<bool>,
    stop: CancellationToken,
) {
    loop {
        match look(&rules, &listened).await {
            Ok(()) => drop(known.send_replace(true)),
            Err(e) => tracing::debug!(error = %e, "rules not read"),
        }
        if stop.run_until_cancelled(tokio::time::sleep(LISTEN_EVERY)).await.is_none() {
            return;
        }
    }
}
