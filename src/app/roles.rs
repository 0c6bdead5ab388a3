//! Runs roles: starts the parts in an order in which each finds what it needs, and ends them the other way round.

use std::{
    net::TcpListener,
    num::NonZeroUsize,
    sync::{Arc, atomic::AtomicBool},
};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    App, Error,
    build::{auth_rules, build, check_role},
    close,
    fitness::Fitness,
    timekeeper::Timekeeper,
};
use crate::{
    base::{clock::Clock, shutdown::Shutdown},
    config::{AuthMode, Config, LogRequests, Role},
    http::{self, Bodies, HttpLimits, HttpState, OriginRules, RequestLog, ServeOptions, Surface},
    scheduler, telemetry, worker,
};

/// Runs `role` until a signal ends it.
///
/// # Errors
/// If it cannot start, or a part of it ends badly.
pub async fn run(role: Role, config: Config) -> Result<(), Error> {
    let shutdown = Shutdown::new();
    shutdown.listen().map_err(|e| Error::Failed(format!("cannot install signal handlers: {e}")))?;
    run_until(role, config, shutdown).await
}

/// Runs `role` until `shutdown`, for callers that own the signals.
///
/// # Errors
/// If it cannot start, or a part of it ends badly.
pub async fn run_until(role: Role, config: Config, shutdown: Shutdown) -> Result<(), Error> {
    let started = std::time::Instant::now();
    check_role(&config, role)?;
    // The port first: a second start by mistake must not touch anything.
    let bind = if role.listens() { Some(config.http.bind) } else { config.probe.bind };
    let listener = bind.map(http::listen).transpose().map_err(Error::Failed)?;
    let metrics = telemetry::metrics::install();
    let app = build(config, Clock::system())?;
    let ended = live(role, &app, Door { listener, metrics }, started, &shutdown).await;
    // Last, whatever happened before: only after this is the one file the whole database.
    close(&app.stores, ended).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Where a role is spoken to.
struct Door {
    listener: Option<TcpListener>,
    metrics: PrometheusHandle,
}

/// From the opened backends to the end of the last part.
async fn live(
    role: Role,
    app: &App,
    door: Door,
    started: std::time::Instant,
    shutdown: &Shutdown,
) -> Result<(), Error> {
    let Door { listener, metrics } = door;
    let surface = if role.listens() { Surface::Api } else { Surface::Probes };
    let ready = Arc::new(AtomicBool::new(false));
    let stop_last = CancellationToken::new();
    let upkeep = tokio::spawn(telemetry::metrics::upkeep(metrics.clone(), stop_last.clone()));
    let server = listener.map(|l| serve(app, surface, l, metrics, Arc::clone(&ready), shutdown.clone())).transpose()?;

    let (fitness, (scheduler, worker)) = match begin(role, app, ready, &stop_last, shutdown).await {
        Ok(begun) => begun,
        Err(e) => {
            shutdown.drain.cancel();
            stop_last.cancel();
            joined_server(server).await;
            return Err(e);
        }
    };
    tracing::info!(
        role = role.name(),
        version = env!("CARGO_PKG_VERSION"),
        time_zones = %app.zones,
        store = %app.stores.place,
        ms = started.elapsed().as_millis() as u64,
        "ready"
    );

    shutdown.drain.cancelled().await;
    let ended_well = join("worker", worker).await & joined_server(server).await;
    stop_last.cancel();
    let ended_well = join("scheduler", scheduler).await & join("metrics", Some(upkeep)).await & ended_well;
    if let Some(Ok(Err(e))) = join_some(fitness).await {
        return Err(e);
    }
    match ended_well {
        true => Ok(()),
        false => Err(Error::Failed("a part of the process ended badly, see the log".into())),
    }
}

type Part = Option<JoinHandle<()>>;
/// Waits for backends that have not answered yet.
type Waiting = Option<JoinHandle<Result<(), Error>>>;

/// Looks at the backends, and starts the parts of `role`.
async fn begin(
    role: Role,
    app: &App,
    ready: Arc<AtomicBool>,
    stop_last: &CancellationToken,
    shutdown: &Shutdown,
) -> Result<(Waiting, (Part, Part)), Error> {
    let mut fitness = Fitness::new(&app.probes, ready);
    let waiting = (!fitness.look().await?).then(|| {
        let (stop, shutdown) = (stop_last.clone(), shutdown.clone());
        tokio::spawn(async move {
            let ended = fitness.wait(stop).await;
            if ended.is_err() {
                shutdown.drain.cancel();
            }
            ended
        })
    });
    Ok((waiting, start_parts(role, app, stop_last, shutdown).await?))
}

/// Starts the scheduler and the worker, as far as they are part of `role`.
async fn start_parts(
    role: Role,
    app: &App,
    stop_last: &CancellationToken,
    shutdown: &Shutdown,
) -> Result<(Part, Part), Error> {
    let (deps, options) = app.scheduler();
    let (rules, listened) = (app.post.rules.clone(), app.listened.clone());
    let time = if app.stores.exclusive {
        // Before the look below, which ends jobs that crashed too often.
        super::post::look(&rules, &listened).await.map_err(|e| Error::Failed(e.to_string()))?;
        // Whatever was running when this process's predecessor ended runs no more.
        scheduler::recover(&deps, &options).await.map_err(|e| Error::Failed(e.to_string()))?;
        Timekeeper::alone()
    } else {
        Timekeeper::start(app.clock.clone(), Arc::clone(&app.stores.fleet), stop_last.clone()).await
    };
    let (known, heard) = watch::channel(false);
    if role != Role::Serve {
        tokio::spawn(super::post::follow_rules(rules, listened, known, stop_last.clone()));
    }
    let ready = |mut time: Timekeeper, mut heard: watch::Receiver<bool>| async move {
        time.known().await;
        // Its sender is gone only when the process stops.
        drop(heard.wait_for(|known| *known).await);
    };
    let scheduler = matches!(role, Role::All | Role::Scheduler).then(|| {
        let (ready, stop) = (ready(time.clone(), heard.clone()), stop_last.clone());
        tokio::spawn(async move {
            if stop.run_until_cancelled(ready).await.is_some() {
                scheduler::run(deps, options, stop).await;
            }
        })
    });
    let worker = matches!(role, Role::All | Role::Worker).then(|| {
        let (deps, options) = app.worker();
        let (ready, shutdown) = (ready(time.clone(), heard.clone()), shutdown.clone());
        tokio::spawn(async move {
            if shutdown.drain.run_until_cancelled(ready).await.is_some() {
                worker::run(deps, options, shutdown.clone()).await;
            }
            // Told to stop, or done with its `max_jobs`: either way the process is to be replaced.
            shutdown.drain.cancel();
        })
    });
    Ok((scheduler, worker))
}

fn serve(
    app: &App,
    surface: Surface,
    listener: TcpListener,
    metrics: PrometheusHandle,
    ready: Arc<AtomicBool>,
    shutdown: Shutdown,
) -> Result<JoinHandle<std::io::Result<()>>, Error> {
    let c = &app.config;
    if c.auth.mode == AuthMode::Required && c.auth.jwt_keys.is_empty() {
        tracing::warn!("auth.jwt_keys is empty, tokens end when this process does");
    }
    let state = Arc::new(HttpState {
        items: Arc::clone(&app.items),
        jobs: Arc::clone(&app.jobs),
        users: Arc::clone(&app.users),
        post: app.post.clone(),
        auth: auth_rules(c)?,
        origins: OriginRules {
            // Probes are asked by whatever watches the host, by whatever name.
            own_hosts_only: c.auth.mode == AuthMode::Loopback && surface == Surface::Api,
            hosts: c.http.hosts.clone(),
        },
        probes: app.probes.clone(),
        ready,
        surface,
        version: env!("CARGO_PKG_VERSION"),
        limits: HttpLimits {
            max_body: c.http.max_body,
            max_bulk_body: c.http.max_bulk_body,
            page_limit_max: c.http.page_limit_max,
        },
        bodies: Bodies::new(c.http.max_bodies, c.http.body_timeout),
        metrics: Arc::new(move || metrics.render()),
        request_log: match c.log.requests {
            LogRequests::All => RequestLog::All,
            LogRequests::Failed => RequestLog::Failed,
            LogRequests::Off => RequestLog::Off,
        },
        clock: app.clock.clone(),
        document: http::Document::default(),
    });
    let workers = NonZeroUsize::new(c.http.workers)
        .ok_or_else(|| Error::Config("http.workers is 0 after resolving, but must be at least 1".into()))?;
    let options = ServeOptions { workers, shutdown_timeout: c.http.shutdown_timeout, keep_alive: c.http.keep_alive };
    Ok(tokio::spawn(async move {
        let ended = http::serve(state, listener, options, shutdown.clone()).await;
        // A server that ends by itself takes the process with it: someone has to notice.
        shutdown.drain.cancel();
        ended
    }))
}

async fn join(part: &'static str, task: Part) -> bool {
    let Some(task) = task else { return true };
    match task.await {
        Ok(()) => true,
        Err(e) => {
            tracing::error!(part, error = %e, "a part of the process ended badly");
            false
        }
    }
}

/// The end of a task, if there is one.
async fn join_some<T>(task: Option<JoinHandle<T>>) -> Option<Result<T, tokio::task::JoinError>> {
    Some(task?.await)
}

async fn joined_server(task: Option<JoinHandle<std::io::Result<()>>>) -> bool {
    let Some(task) = task else { return true };
    let error = match task.await {
        Ok(Ok(())) => return true,
        Ok(Err(e)) => e.to_string(),
        Err(e) => e.to_string(),
    };
    tracing::error!(part = "http", error, "a part of the process ended badly");
    false
}
