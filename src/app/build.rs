//! Turns a configuration into stores, a broker, services and a registry.
//!
//! In two steps: a [`Plan`] is read and checked, which opens, connects and makes nothing; then it
//! is built. So `app config check` refuses what a start refuses, in the same words.

use std::sync::Arc;

use super::{
    Error,
    post::{Doorbell, Post, Read, fixed_rules},
};
use crate::{
    base::{backoff::Backoff, clock::Clock, id::QueueName, probe::Probe, zone::Zones},
    broker::{self, Broker},
    cache::{self, Cache, Through},
    config::{self, AuthMode, Config, Role},
    events::Bell,
    http::{AuthRules, PostRooms},
    items::{Items, service::CACHED_SHAPE},
    jobs::{
        announce::Listened,
        registry::{Defaults, Registry},
        retention::Rule,
        service::{Jobs, Limits},
    },
    kinds,
    notifications::{channels::Channels, rules},
    scheduler,
    store::{self, Stores},
    users::{
        Users,
        service::{CACHED_KEY, CACHED_USER},
    },
    worker,
};

/// Everything a role is made of.
pub struct App {
    /// The resolved configuration.
    pub config: Config,
    /// Time.
    pub clock: Clock,
    /// Time zones.
    pub zones: Zones,
    /// The database's ports.
    pub stores: Stores,
    /// Wake-ups.
    pub broker: Arc<dyn Broker>,
    /// Short-lived shared state.
    pub cache: Arc<dyn Cache>,
    /// The job queue.
    pub jobs: Arc<Jobs>,
    /// The items.
    pub items: Arc<Items>,
    /// Users and keys.
    pub users: Arc<Users>,
    /// Notifications, and what belongs to them.
    pub post: PostRooms,
    /// Which ends of jobs are told.
    pub listened: Listened,
    /// The kinds.
    pub registry: Arc<Registry>,
    /// What `/health` asks.
    pub probes: Vec<Arc<dyn Probe>>,
}

/// What a configuration says, checked as far as can be without asking anybody.
pub(super) struct Plan {
    pub(super) target: store::Target,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) cache: Arc<dyn Cache>,
    pub(super) zones: Zones,
    rules: Vec<rules::Rule>,
    channels: Channels,
}

impl Plan {
    /// Reads it.
    ///
    /// # Errors
    /// A sentence that names the key at fault.
    pub(super) fn of(config: &Config, clock: &Clock) -> Result<Self, Error> {
        auth_rules(config)?;
        Ok(Self {
            rules: fixed_rules(config)?,
            zones: open_zones(config)?,
            channels: Channels::open(config).map_err(|e| Error::Config(e.to_string()))?,
            broker: broker::connect(&config.broker.url, &broker_options(config))
                .map_err(|e| Error::Config(e.to_string()))?,
            cache: open_cache(config, clock)?,
            target: store::Target::parse(&config.store.url)?,
        })
    }
}

/// Checks what a start of `role` checks before it opens anything.
///
/// # Errors
/// The sentence with which the start would end.
pub fn check(config: &Config, role: Role) -> Result<(), Error> {
    check_role(config, role)?;
    Plan::of(config, &Clock::system()).map(drop)
}

/// Checks what concerns the role.
pub(super) fn check_role(config: &Config, role: Role) -> Result<(), Error> {
    let wrong = |e: config::Error| Error::Config(e.to_string());
    config.check_role(role).map_err(wrong)?;
    config.check_exposure(role).map_err(wrong)?;
    config.check_keys(role).map_err(wrong)
}

/// Who may call.
pub(super) fn auth_rules(c: &Config) -> Result<AuthRules, Error> {
    let wrong = |e| Error::Config(format!("`auth.client_header` is no header's name: {e}"));
    let client_header = match c.auth.client_header.as_str() {
        "" => None,
        name => Some(name.parse().map_err(wrong)?),
    };
    Ok(AuthRules { required: c.auth.mode == AuthMode::Required, client_header })
}

/// Opens what the configuration names.
///
/// # Errors
/// A sentence, if a backend cannot be opened or a kind is wrong.
pub fn build(config: Config, clock: Clock) -> Result<App, Error> {
    let plan = Plan::of(&config, &clock)?;
    assemble(plan, config, clock)
}

/// Opens what has been read. What is wrong was found before, so it leaves no new database behind.
pub(super) fn assemble(plan: Plan, config: Config, clock: Clock) -> Result<App, Error> {
    let Plan { target, broker, cache, zones, rules, channels } = plan;
    let sync = match config.store.sync {
        config::Sync::Full => store::Sync::Full,
        config::Sync::Normal => store::Sync::Normal,
    };
    let stores = target.open(sync)?;
    let wrong = |e: String| Error::Config(e);
    let mut registry = Registry::new(Defaults {
        queue: QueueName::new("default").map_err(wrong)?,
        max_attempts: config.jobs.max_attempts,
        backoff: Backoff::new(config.jobs.backoff_base, config.jobs.backoff_cap),
        timeout: config.jobs.timeout,
    });
    let retention = rule(&config);
    let deps = kinds::Deps { store: Arc::clone(&stores.jobs), clock: clock.clone(), retention };
    kinds::register(&mut registry, deps).map_err(wrong)?;
    let doorbell = Arc::new(Doorbell::default());
    let bell = Arc::clone(&doorbell) as Arc<dyn Bell>;
    let users = Arc::new(open_users(&config, &stores, &cache, Arc::clone(&bell), &clock, &zones)?);
    let read = Read { channels, rules, zones: zones.clone() };
    let post = Post::open(&config, &stores, &cache, &users, &bell, &clock, read);
    post.register(&mut registry).map_err(wrong)?;
    let registry = Arc::new(registry);
    let jobs = Arc::new(Jobs::new(
        Arc::clone(&stores.jobs),
        Arc::clone(&stores.fleet),
        Arc::clone(&broker),
        Arc::clone(&registry),
        clock.clone(),
        limits(&config, &registry),
    ));
    doorbell.connect(&jobs);
    let post = post.serve(&jobs);
    let mut items = Items::new(Arc::clone(&stores.items), bell, clock.clone());
    // A cache of this process alone must not hold what another may change.
    if cache::is_shared(&config.cache.url) {
        items = items.cached(Through::new(Arc::clone(&cache), "items", CACHED_SHAPE, config.cache.ttl));
    }
    let items = Arc::new(items);
    let broker_probe: Arc<dyn Probe> = Arc::clone(&broker) as Arc<dyn Probe>;
    let cache_probe: Arc<dyn Probe> = Arc::clone(&cache) as Arc<dyn Probe>;
    let probes = vec![Arc::clone(&stores.probe), broker_probe, cache_probe];
    Ok(App {
        config,
        clock,
        zones,
        stores,
        broker,
        cache,
        jobs,
        items,
        users,
        post,
        listened: Listened::default(),
        registry,
        probes,
    })
}

/// The time zones that the configuration asks for.
///
/// # Errors
/// A sentence, if the host has none.
fn open_zones(config: &Config) -> Result<Zones, Error> {
    match config.time.zones {
        config::ZoneSource::Bundled => Ok(Zones::bundled()),
        config::ZoneSource::Host => Zones::host().map_err(|e| {
            let hint = "install them (Debian's tzdata), or set it to \"bundled\"";
            Error::Config(format!("`time.zones` is \"host\", but {e}; {hint}"))
        }),
    }
}

/// The users service, reading through a cache that is shared.
fn open_users(
    config: &Config,
    stores: &Stores,
    cache: &Arc<dyn Cache>,
    bell: Arc<dyn Bell>,
    clock: &Clock,
    zones: &Zones,
) -> Result<Users, Error> {
    let (records, auth) = (Arc::clone(&stores.records), config.auth.clone());
    let users = Users::new(records, Arc::clone(cache), bell, clock.clone(), auth, zones.clone());
    let users = users.map_err(Error::Failed)?;
    if !cache::is_shared(&config.cache.url) {
        return Ok(users);
    }
    let through = |name, shape| Through::new(Arc::clone(cache), name, shape, config.cache.ttl);
    Ok(users.cached(through("users", CACHED_USER), through("api_keys", CACHED_KEY)))
}

fn open_cache(config: &Config, clock: &Clock) -> Result<Arc<dyn Cache>, Error> {
    let c = &config.cache;
    let options = cache::Options {
        prefix: c.prefix.clone(),
        max_entries: c.max_entries,
        max_bytes: c.max_bytes as u64,
        clock: clock.clone(),
    };
    cache::connect(&c.url, options).map_err(|e| Error::Config(e.to_string()))
}

fn broker_options(c: &Config) -> broker::Options {
    let queue_type = match c.broker.queue_type {
        config::QueueType::Classic => broker::QueueType::Classic,
        config::QueueType::Quorum => broker::QueueType::Quorum,
    };
    broker::Options { prefix: c.broker.prefix.clone(), queue_type }
}

fn rule(c: &Config) -> Rule {
    Rule { finished: c.jobs.retention, failed: c.jobs.dead_retention, batch: c.scheduler.batch }
}

fn limits(c: &Config, registry: &Registry) -> Limits {
    let mut queues: Vec<QueueName> = c.queues.keys().cloned().collect();
    queues.extend(c.worker.queues.0.iter().map(|(q, _)| q.clone()));
    queues.extend(registry.iter().map(|k| k.queue.clone()));
    Limits {
        max_payload: c.jobs.max_payload,
        bulk_max: c.jobs.bulk_max,
        max_tags: c.jobs.max_tags,
        max_queues: c.jobs.max_queues,
        max_delay: c.jobs.max_delay,
        max_timeout: c.jobs.max_timeout,
        idempotency_ttl: c.jobs.idempotency_ttl,
        depth_limit: c.jobs.depth_limit,
        depth_limits: c.queues.iter().filter_map(|(q, own)| Some((q.clone(), own.depth_limit?))).collect(),
        queues,
    }
}

impl App {
    /// What the worker role needs.
    #[must_use]
    pub fn worker(&self) -> (worker::Deps, worker::Options) {
        let c = &self.config;
        let deps = worker::Deps {
            store: Arc::clone(&self.stores.jobs),
            fleet: Arc::clone(&self.stores.fleet),
            broker: Arc::clone(&self.broker),
            registry: Arc::clone(&self.registry),
            listened: self.listened.clone(),
            clock: self.clock.clone(),
        };
        let options = worker::Options {
            queues: c.worker.queues.0.clone(),
            strict: c.worker.strict,
            slots: c.worker.concurrency,
            max_jobs: c.worker.max_jobs,
            shutdown_grace: c.worker.shutdown_grace,
            lease: c.jobs.lease,
            renew_every: c.jobs.renew_every,
            heartbeat: c.worker.heartbeat,
            max_result: c.jobs.max_result,
            claim_ahead: c.jobs.crash_limit > 1,
        };
        (deps, options)
    }

    /// What the scheduler role needs.
    #[must_use]
    pub fn scheduler(&self) -> (scheduler::Deps, scheduler::Options) {
        let c = &self.config;
        let deps = scheduler::Deps {
            store: Arc::clone(&self.stores.jobs),
            fleet: Arc::clone(&self.stores.fleet),
            records: Arc::clone(&self.stores.records),
            listened: self.listened.clone(),
            broker: Arc::clone(&self.broker),
            jobs: Arc::clone(&self.jobs),
            clock: self.clock.clone(),
        };
        let options = scheduler::Options {
            due_every: c.scheduler.due_every,
            expired_every: c.scheduler.expired_every,
            suspended_after: c.jobs.renew_every,
            lost_every: c.scheduler.lost_every,
            lost_after: c.scheduler.lost_after,
            retention_every: c.scheduler.retention_every,
            batch: c.scheduler.batch,
            crash_limit: c.jobs.crash_limit,
            retention: c.jobs.retention,
            dead_retention: c.jobs.dead_retention,
        };
        (deps, options)
    }
}
