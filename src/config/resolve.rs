//! Checks what is written ([`Settings`]) and turns it into what the program uses ([`Config`]).
//!
//! Pure, so that every bound can be tested without files or environment. A fault names its key; [`mod@super::load`] adds
//! the layer that the value came from.

mod channels;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{
    Auth, AuthMode, Broker, Cache, Config, Http, Jobs, JwtKey, Log, LogFormat, LogRequests, Probe, Queue, QueueType,
    Registration, Scheduler, Store, Sync, Time, Worker, WorkerQueues, ZoneSource, settings,
    settings::Settings,
    units::{Size, format_duration, parse_duration},
};
use crate::base::id::QueueName;

/// One key with a wrong value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key, such as `http.bind`.
    pub key: String,
    /// The rest of the sentence that begins with the key: what is wrong and what would be right.
    pub message: String,
}

type Checked<T> = Result<T, Fault>;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// Longest time accepted anywhere: sums of such times with the present never overflow.
const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);
/// Less would not hold a handful of records.
const MIN_CACHE: usize = 64 << 10;
const DEFAULT_PORT: u16 = 8000;

/// Checks every value. `cores` is what the settings mean by "auto".
///
/// # Errors
/// The first key whose value is wrong.
pub fn resolve(s: &Settings, cores: usize) -> Result<Config, Fault> {
    let config = Config {
        store: Store {
            url: url("store.url", &s.store.url, "sqlite://data/app.db")?,
            sync: choice("store.sync", &s.store.sync, &[("full", Sync::Full), ("normal", Sync::Normal)])?,
        },
        broker: broker(&s.broker)?,
        cache: cache(&s.cache)?,
        http: http(&s.http, cores)?,
        probe: Probe {
            bind: match s.probe.bind.as_str() {
                "" => None,
                text => Some(address("probe.bind", text)?),
            },
        },
        auth: auth(&s.auth)?,
        log: log(&s.log)?,
        time: Time {
            zones: choice(
                "time.zones",
                &s.time.zones,
                &[("bundled", ZoneSource::Bundled), ("host", ZoneSource::Host)],
            )?,
        },
        jobs: jobs(&s.jobs)?,
        queues: queues(&s.queues)?,
        worker: worker(&s.worker, cores)?,
        scheduler: scheduler(&s.scheduler)?,
        notifications: channels::notifications(&s.notifications)?,
        email: channels::email(&s.email)?,
        push: channels::push(&s.push)?,
        webhook: channels::webhook(&s.webhook)?,
    };
    relations(&config)?;
    Ok(config)
}

fn cache(s: &settings::Cache) -> Checked<Cache> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if !(1..=64).contains(&s.prefix.len()) || !s.prefix.bytes().all(plain) {
        let message = format!("is \"{}\", but must be 1 to 64 letters, digits, `.`, `_` or `-`", s.prefix);
        return Err(fault("cache.prefix", message));
    }
    let max_bytes = size("cache.max_bytes", &s.max_bytes)?;
    if max_bytes < MIN_CACHE {
        let (is, least) = (Size(max_bytes), Size(MIN_CACHE));
        return Err(fault("cache.max_bytes", format!("is {is}, but must be at least {least}")));
    }
    Ok(Cache {
        url: url("cache.url", &s.url, "memory://")?,
        prefix: s.prefix.clone(),
        ttl: time("cache.ttl", &s.ttl, SECOND)?,
        max_entries: whole("cache.max_entries", s.max_entries, 1, i64::MAX)?,
        max_bytes,
    })
}

fn auth(s: &settings::Auth) -> Checked<Auth> {
    let modes = [("loopback", AuthMode::Loopback), ("open", AuthMode::Open), ("required", AuthMode::Required)];
    let registrations = [("open", Registration::Open), ("admin", Registration::Admin)];
    let jwt_keys: Vec<JwtKey> = s
        .jwt_keys
        .iter()
        .map(|key| JwtKey::parse(key))
        .collect::<Result<_, _>>()
        .map_err(|e| fault("auth.jwt_keys", e))?;
    for (n, key) in jwt_keys.iter().enumerate() {
        if jwt_keys.iter().take(n).any(|earlier| earlier.kid == key.kid) {
            return Err(fault(
                "auth.jwt_keys",
                format!("has two entries `{}`; give each key a name of its own", key.kid),
            ));
        }
    }
    let name = |key: &str, text: &str| match text.len() {
        1..=200 => Ok(text.to_owned()),
        _ => Err(fault(key, "must be a text of 1 to 200 bytes")),
    };
    let header = s.client_header.to_ascii_lowercase();
    if !header.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(fault("auth.client_header", format!("is \"{header}\", but must be a header's name or empty")));
    }
    Ok(Auth {
        mode: choice("auth.mode", &s.mode, &modes)?,
        issuer: name("auth.issuer", &s.issuer)?,
        audience: name("auth.audience", &s.audience)?,
        token_ttl: time("auth.token_ttl", &s.token_ttl, SECOND)?,
        jwt_keys,
        registration: choice("auth.registration", &s.registration, &registrations)?,
        login_burst: whole("auth.login_burst", s.login_burst, 1, 1_000_000)?,
        login_every: time("auth.login_every", &s.login_every, MS)?,
        client_header: header,
    })
}

fn broker(s: &settings::Broker) -> Checked<Broker> {
    let right = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if s.prefix.len() > 64 || !s.prefix.chars().all(right) {
        let message = format!("is \"{}\", but a prefix is at most 64 letters, digits, `-`, `_` and `.`", s.prefix);
        return Err(fault("broker.prefix", message));
    }
    if s.prefix.starts_with("amq.") {
        let message = format!("is \"{}\", but RabbitMQ keeps names that start with `amq.` for itself", s.prefix);
        return Err(fault("broker.prefix", message));
    }
    let types = [("classic", QueueType::Classic), ("quorum", QueueType::Quorum)];
    Ok(Broker {
        url: url("broker.url", &s.url, "embedded://")?,
        prefix: s.prefix.clone(),
        queue_type: choice("broker.queue_type", &s.queue_type, &types)?,
    })
}

fn http(s: &settings::Http, cores: usize) -> Checked<Http> {
    Ok(Http {
        bind: address("http.bind", &s.bind)?,
        workers: match whole("http.workers", s.workers, 0, 1024)? {
            0 => cores.max(1),
            n => n,
        },
        max_body: size("http.max_body", &s.max_body)?,
        max_bulk_body: size("http.max_bulk_body", &s.max_bulk_body)?,
        max_bodies: size("http.max_bodies", &s.max_bodies)?,
        body_timeout: time("http.body_timeout", &s.body_timeout, MS)?,
        hosts: s.hosts.iter().map(|host| host_name(host)).collect::<Checked<_>>()?,
        page_limit_max: whole("http.page_limit_max", s.page_limit_max, 1, 1000)?,
        shutdown_timeout: time("http.shutdown_timeout", &s.shutdown_timeout, Duration::ZERO)?,
        keep_alive: time("http.keep_alive", &s.keep_alive, SECOND)?,
    })
}

/// A host name or an address, as it stands in `Host` and `Origin` without a port.
fn host_name(text: &str) -> Checked<String> {
    let name = text.trim().trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    if is_address || ((1..=253).contains(&name.len()) && name.bytes().all(plain)) {
        return Ok(name);
    }
    let message =
        format!("holds \"{text}\", but must hold host names such as \"app.example.com\", without scheme and port");
    Err(fault("http.hosts", message))
}

fn log(s: &settings::Log) -> Checked<Log> {
    let formats = [("auto", LogFormat::Auto), ("json", LogFormat::Json), ("pretty", LogFormat::Pretty)];
    let requests = [("all", LogRequests::All), ("failed", LogRequests::Failed), ("off", LogRequests::Off)];
    Ok(Log {
        level: s.level.clone(),
        format: choice("log.format", &s.format, &formats)?,
        requests: choice("log.requests", &s.requests, &requests)?,
    })
}

fn jobs(s: &settings::Jobs) -> Checked<Jobs> {
    Ok(Jobs {
        max_payload: size("jobs.max_payload", &s.max_payload)?,
        max_result: size("jobs.max_result", &s.max_result)?,
        bulk_max: whole("jobs.bulk_max", s.bulk_max, 1, 10_000)?,
        max_attempts: whole("jobs.max_attempts", s.max_attempts, 1, 1000)?,
        backoff_base: time("jobs.backoff_base", &s.backoff_base, MS)?,
        backoff_cap: time("jobs.backoff_cap", &s.backoff_cap, MS)?,
        timeout: time("jobs.timeout", &s.timeout, MS)?,
        max_timeout: time("jobs.max_timeout", &s.max_timeout, MS)?,
        crash_limit: whole("jobs.crash_limit", s.crash_limit, 1, 1000)?,
        lease: time("jobs.lease", &s.lease, MS)?,
        renew_every: time("jobs.renew_every", &s.renew_every, MS)?,
        retention: time("jobs.retention", &s.retention, MS)?,
        dead_retention: time("jobs.dead_retention", &s.dead_retention, MS)?,
        idempotency_ttl: time("jobs.idempotency_ttl", &s.idempotency_ttl, MS)?,
        max_tags: whole("jobs.max_tags", s.max_tags, 0, 1000)?,
        max_queues: whole("jobs.max_queues", s.max_queues, 1, 100_000)?,
        max_delay: time("jobs.max_delay", &s.max_delay, SECOND)?,
        depth_limit: whole("jobs.depth_limit", s.depth_limit, 0, i64::MAX)?,
    })
}

fn queues(s: &BTreeMap<String, settings::Queue>) -> Checked<BTreeMap<QueueName, Queue>> {
    s.iter()
        .map(|(name, queue)| {
            let key = format!("queues.{name}");
            let limit = queue.depth_limit.map(|n| whole(&format!("{key}.depth_limit"), n, 0, i64::MAX)).transpose()?;
            let name = QueueName::new(name).map_err(|e| fault(&key, format!("is no queue name: it {e}")))?;
            Ok((name, Queue { depth_limit: limit }))
        })
        .collect()
}

fn worker(s: &settings::Worker, cores: usize) -> Checked<Worker> {
    Ok(Worker {
        queues: WorkerQueues::parse(&s.queues).map_err(|e| fault("worker.queues", e))?,
        concurrency: match whole("worker.concurrency", s.concurrency, 0, 10_000)? {
            0 => cores.saturating_mul(2).max(4),
            n => n,
        },
        strict: s.strict,
        shutdown_grace: time("worker.shutdown_grace", &s.shutdown_grace, Duration::ZERO)?,
        max_jobs: whole("worker.max_jobs", s.max_jobs, 0, i64::MAX)?,
        heartbeat: time("worker.heartbeat", &s.heartbeat, MS)?,
    })
}

fn scheduler(s: &settings::Scheduler) -> Checked<Scheduler> {
    Ok(Scheduler {
        due_every: time("scheduler.due_every", &s.due_every, MS)?,
        expired_every: time("scheduler.expired_every", &s.expired_every, MS)?,
        lost_every: time("scheduler.lost_every", &s.lost_every, MS)?,
        lost_after: time("scheduler.lost_after", &s.lost_after, MS)?,
        retention_every: time("scheduler.retention_every", &s.retention_every, MS)?,
        batch: whole("scheduler.batch", s.batch, 1, 10_000)?,
    })
}

/// What must hold between two values.
fn relations(c: &Config) -> Checked<()> {
    let (lease, renew) = (c.jobs.lease, c.jobs.renew_every);
    if lease < renew.saturating_mul(3) {
        // With less, two renewals that come late in a row would cost a healthy worker its jobs.
        let (lease, renew, right) = (format_duration(lease), format_duration(renew), format_duration(renew * 3));
        return Err(fault(
            "jobs.lease",
            format!(
                "is {lease}, but must be at least three times `jobs.renew_every` ({renew}), so {right} or more, or a \
                 worker loses its jobs to one late renewal"
            ),
        ));
    }
    let at_least = |key, value: Duration, other_key, other: Duration| match value >= other {
        true => Ok(()),
        false => Err(fault(
            key,
            format!(
                "is {}, but must be at least `{other_key}`, which is {}",
                format_duration(value),
                format_duration(other)
            ),
        )),
    };
    at_least("jobs.backoff_cap", c.jobs.backoff_cap, "jobs.backoff_base", c.jobs.backoff_base)?;
    at_least("jobs.max_timeout", c.jobs.max_timeout, "jobs.timeout", c.jobs.timeout)?;
    if c.http.max_bulk_body < c.http.max_body {
        let (bulk, body) = (Size(c.http.max_bulk_body), Size(c.http.max_body));
        let message = format!("is {bulk}, but must be at least `http.max_body`, which is {body}");
        return Err(fault("http.max_bulk_body", message));
    }
    if c.http.max_bodies < c.http.max_bulk_body {
        let (all, bulk) = (Size(c.http.max_bodies), Size(c.http.max_bulk_body));
        let message = format!("is {all}, but must be at least `http.max_bulk_body`, which is {bulk}");
        return Err(fault("http.max_bodies", message));
    }
    if c.queues.len() > c.jobs.max_queues {
        let (n, max) = (c.queues.len(), c.jobs.max_queues);
        return Err(fault(
            "jobs.max_queues",
            format!("is {max}, but {n} queues have sections; raise it to {n} or more"),
        ));
    }
    Ok(())
}

fn fault(key: &str, message: impl Into<String>) -> Fault {
    Fault { key: key.to_owned(), message: message.into() }
}

fn time(key: &str, text: &str, min: Duration) -> Checked<Duration> {
    let d = parse_duration(text).map_err(|e| fault(key, e))?;
    if d < min || d > LONGEST {
        let (min, max) = (format_duration(min), format_duration(LONGEST));
        return Err(fault(key, format!("is \"{text}\", but must be from {min} to {max}")));
    }
    Ok(d)
}

fn size(key: &str, text: &str) -> Checked<usize> {
    // One limit for all: a gibibyte held in memory at once is a mistake in any of these keys.
    const MAX: usize = 1 << 30;
    let Size(n) = text.parse().map_err(|e: String| fault(key, e))?;
    if !(1..=MAX).contains(&n) {
        return Err(fault(key, format!("is \"{text}\", but must be from 1B to {}", Size(MAX))));
    }
    Ok(n)
}

fn whole<T: TryFrom<i64>>(key: &str, n: i64, min: i64, max: i64) -> Checked<T> {
    let wrong = || match max {
        i64::MAX => fault(key, format!("is {n}, but must be {min} or more")),
        _ => fault(key, format!("is {n}, but must be a number from {min} to {max}")),
    };
    if !(min..=max).contains(&n) {
        return Err(wrong());
    }
    T::try_from(n).map_err(|_out_of_range| wrong())
}

fn choice<T: Copy>(key: &str, text: &str, known: &[(&str, T)]) -> Checked<T> {
    known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<String> = known.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        fault(key, format!("is \"{text}\", but must be {}", names.join(" or ")))
    })
}

/// Checks only the shape; which schemes exist is known by the rooms that open them. The value is not quoted in the
/// sentence, as it may hold a password.
fn url(key: &str, text: &str, example: &str) -> Checked<String> {
    let scheme_ok = text.split_once("://").is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    });
    if !scheme_ok || text.contains(char::is_whitespace) {
        return Err(fault(key, format!("is not a URL; write SCHEME://…, such as \"{example}\", without spaces")));
    }
    Ok(text.to_owned())
}

fn address(key: &str, text: &str) -> Checked<SocketAddr> {
    let named = match text.strip_prefix("localhost") {
        Some("") => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_PORT)),
        Some(rest) => format!("{}{rest}", Ipv4Addr::LOCALHOST).parse().ok(),
        None => None,
    };
    let bare = || text.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, DEFAULT_PORT));
    text.parse().ok().or(named).or_else(bare).ok_or_else(|| {
        fault(key, format!("is \"{text}\", but must be an IP address and a port, such as \"127.0.0.1:{DEFAULT_PORT}\""))
    })
}
