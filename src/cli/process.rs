//! Commands that run in this process: the roles, the migration, and a look at the configuration that they would use.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

use super::{
    exit::{CONFIG, FAILED, Failure},
    print,
};
use crate::{
    app,
    base::probe::Unfit,
    config::{self, Config, Role, Sources},
    telemetry::logs,
};

/// Flags that every command takes; those that only talk to a server ignore them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Configuration")]
pub(super) struct GlobalArgs {
    /// A TOML file whose settings win over the profile's
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Use config/NAME.toml
    #[arg(long, global = true, env = "APP_PROFILE", value_name = "NAME")]
    profile: Option<String>,
    /// Least severe level logged: trace, debug, info, warn, error, off, or a filter
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Shape of log lines: auto, json, pretty
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
}

/// Flags of roles that listen. Global, as those below, so that `app config check` takes them behind its last word, too.
#[derive(Debug, Args)]
pub(super) struct HttpArgs {
    /// Address and port to listen on
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    bind: Option<String>,
    /// Port to listen on; 0 takes a free one
    #[arg(long, global = true)]
    pub(super) port: Option<u16>,
}

/// Flags of roles that run jobs.
#[derive(Debug, Args)]
pub(super) struct WorkerArgs {
    /// Queues to work on, with weights: heavy:1,default:3
    #[arg(long, global = true, value_name = "NAME[:WEIGHT],…")]
    queues: Option<String>,
    /// Jobs run at once; 0 for two per core
    #[arg(long, global = true, value_name = "N")]
    concurrency: Option<u32>,
    /// Serve queues strictly in the order written
    #[arg(long, global = true)]
    strict: bool,
    /// Stop after this many jobs
    #[arg(long, global = true, value_name = "N")]
    max_jobs: Option<u32>,
    /// How long running jobs may take when told to stop, such as 30s
    #[arg(long, global = true, value_name = "TIME")]
    shutdown_grace: Option<String>,
}

/// Flags that choose backends.
#[derive(Debug, Args)]
pub(super) struct BackendArgs {
    /// Where jobs and items are kept
    #[arg(long, global = true, value_name = "URL")]
    store_url: Option<String>,
    /// What wakes workers
    #[arg(long, global = true, value_name = "URL")]
    broker_url: Option<String>,
    /// Where short-lived state is shared
    #[arg(long, global = true, value_name = "URL")]
    cache_url: Option<String>,
}

/// Flags that stand for settings.
pub(super) trait Overrides {
    /// The settings that were given, as key and value.
    fn given(&self) -> Vec<(&'static str, Option<String>)>;
}

impl Overrides for GlobalArgs {
    fn given(&self) -> Vec<(&'static str, Option<String>)> {
        vec![("log.level", self.log_level.clone()), ("log.format", self.log_format.clone())]
    }
}

impl Overrides for HttpArgs {
    fn given(&self) -> Vec<(&'static str, Option<String>)> {
        // The port is not here: it changes one half of a setting, which must be read first.
        vec![("http.bind", self.bind.clone())]
    }
}

impl Overrides for WorkerArgs {
    fn given(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("worker.queues", self.queues.clone()),
            ("worker.concurrency", self.concurrency.map(|n| n.to_string())),
            ("worker.strict", self.strict.then(|| "true".to_owned())),
            ("worker.max_jobs", self.max_jobs.map(|n| n.to_string())),
            ("worker.shutdown_grace", self.shutdown_grace.clone()),
        ]
    }
}

impl Overrides for BackendArgs {
    fn given(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("store.url", self.store_url.clone()),
            ("broker.url", self.broker_url.clone()),
            ("cache.url", self.cache_url.clone()),
        ]
    }
}

/// `app config …`
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say whether a start would take the configuration; asks no server, makes nothing
    Check {
        /// The role that is to run with it
        #[arg(long, value_enum, default_value_t = RoleArg::All)]
        role: RoleArg,
    },
    /// Print the configuration that results from all layers, as TOML, with secrets masked
    Show,
}

/// A role by its name.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum RoleArg {
    All,
    Serve,
    Worker,
    Scheduler,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::All => Self::All,
            RoleArg::Serve => Self::Serve,
            RoleArg::Worker => Self::Worker,
            RoleArg::Scheduler => Self::Scheduler,
        }
    }
}

/// Runs a role until it is told to stop.
pub(super) fn run_role(
    role: Role,
    global: &GlobalArgs,
    flags: &[&dyn Overrides],
    port: Option<u16>,
) -> Result<(), Failure> {
    let config = load(global, flags, port)?;
    block_on(&config.clone(), app::run(role, config))
}

/// Brings the store to the newest schema.
pub(super) fn run_migrate(global: &GlobalArgs, flags: &[&dyn Overrides]) -> Result<(), Failure> {
    let config = load(global, flags, None)?;
    block_on(&config, app::migrate(&config))
}

/// Looks at every backend and says what it found.
pub(super) fn run_doctor(global: &GlobalArgs, flags: &[&dyn Overrides]) -> Result<(), Failure> {
    let config = load(global, flags, None)?;
    block_on(&config, async {
        let mut faults = 0;
        let app::Report { zones, findings } = app::inspect(&config).await?;
        let said = |line: &str| print::line(line).map_err(|e| app::Error::Failed(e.to_string()));
        said(&format!("time zones: {zones}"))?;
        for app::Finding { name, place, found } in findings {
            let (state, sentences) = match found {
                Ok(warnings) if warnings.is_empty() => ("ok", Vec::new()),
                Ok(warnings) => ("warning", warnings),
                Err(Unfit::Unavailable(e)) => ("away", vec![e]),
                Err(Unfit::Refused(e)) => ("refused", vec![e]),
            };
            faults += usize::from(state != "ok");
            let place = place.map(|p| format!(" ({p})")).unwrap_or_default();
            let first = format!("{name}: {state}{place}");
            let lines = std::iter::once(first).chain(sentences.iter().map(|s| format!("  {s}")));
            for line in lines {
                said(&line)?;
            }
        }
        match faults {
            0 => Ok(()),
            1 => Err(app::Error::Failed("one of the backends needs attention".to_owned())),
            n => Err(app::Error::Failed(format!("{n} of the backends need attention"))),
        }
    })
}

/// Checks or shows the configuration.
pub(super) fn run_config(
    command: &ConfigCommand,
    global: &GlobalArgs,
    flags: &[&dyn Overrides],
    port: Option<u16>,
) -> Result<(), Failure> {
    let config = load(global, flags, port)?;
    match command {
        ConfigCommand::Check { role } => {
            let role = Role::from(*role);
            // In the runtime in which a start does the same.
            block_on(&config, async { app::check(&config, role) })?;
            print::line(&format!("the configuration is right for `app {}`", role.name()))
        }
        ConfigCommand::Show => {
            let place = match app::place(&config) {
                Ok(place) => format!("# The database is {place}"),
                Err(e) => format!("# {e}"),
            };
            print::line(&format!("{place}\n\n{}", config::show::toml(&config)?.trim_end()))
        }
    }
}

pub(super) fn load(global: &GlobalArgs, flags: &[&dyn Overrides], port: Option<u16>) -> Result<Config, Failure> {
    let given = flags.iter().flat_map(|f| f.given()).chain(global.given());
    let mut config = config::load(&Sources {
        // An empty APP_PROFILE is what a compose file passes for a variable that is not set.
        profile: global.profile.clone().filter(|p| !p.is_empty()),
        file: global.config.clone(),
        env: environment(),
        flags: given.filter_map(|(key, value)| Some((key.to_owned(), value?))).collect(),
        ..Sources::default()
    })?;
    if let Some(port) = port {
        config.http.bind.set_port(port);
    }
    logs::check(&config.log.level).map_err(|e| Failure::new(CONFIG, e))?;
    Ok(config)
}

/// The environment; a value that is not UTF-8 keeps what is readable of it, and fails where it is used.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect()
}

pub(super) fn block_on(config: &Config, future: impl Future<Output = Result<(), app::Error>>) -> Result<(), Failure> {
    logs::init(&config.log).map_err(|e| Failure::new(CONFIG, e))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(FAILED, format!("cannot start the runtime: {e}")))?;
    let result = runtime.block_on(future);
    // The role has given back or finished its jobs; a blocking thread that never returns must not hold the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(result?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        global: GlobalArgs,
        #[command(flatten)]
        http: HttpArgs,
        #[command(flatten)]
        worker: WorkerArgs,
        #[command(flatten)]
        backends: BackendArgs,
    }

    fn config(line: &str) -> Result<Config, Failure> {
        let l = Line::parse_from(std::iter::once("app").chain(line.split_ascii_whitespace()));
        load(&l.global, &[&l.http, &l.worker, &l.backends], l.http.port)
    }

    #[test]
    fn every_flag_reaches_its_setting() {
        let c = config(
            "--bind 127.0.0.1:1 --port 2 --queues heavy:3,b --concurrency 7 --strict --max-jobs 9 --shutdown-grace 5s \
             --store-url sqlite://x --broker-url embedded://y --cache-url redis://z --log-level warn --log-format json",
        )
        .unwrap();
        assert_eq!(c.http.bind.to_string(), "127.0.0.1:2");
        let queues: Vec<_> = c.worker.queues.0.iter().map(|(n, w)| (n.as_str(), *w)).collect();
        assert_eq!(queues, [("heavy", 3), ("b", 1)]);
        assert_eq!((c.worker.concurrency, c.worker.strict, c.worker.max_jobs), (7, true, 9));
        assert_eq!(c.worker.shutdown_grace, Duration::from_secs(5));
        let urls = (c.store.url.as_str(), c.broker.url.as_str(), c.cache.url.as_str());
        assert_eq!(urls, ("sqlite://x", "embedded://y", "redis://z"));
        assert_eq!((c.log.level.as_str(), c.log.format), ("warn", config::LogFormat::Json));
    }

    #[test]
    fn wrong_settings_end_with_their_own_code() {
        for line in ["--queues a:0", "--log-level inof", "--store-url x", "--config /nonexistent.toml"] {
            assert_eq!(config(line).err().map(|f| f.code), Some(CONFIG), "{line}");
        }
    }
}
