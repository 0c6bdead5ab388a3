//! A fleet over servers of its own, every part of which can be killed, stopped, suspended and cut off.

use std::{path::PathBuf, time::Duration};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{
    eventually_within,
    fleet::{Fleet, Via},
    process::{Process, Server, free_port},
    proxy::Proxy,
    servers,
};

/// Most that a server takes to start on a busy machine.
const BOOT: Duration = Duration::from_secs(90);

/// What is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    Serve,
    Worker,
    Scheduler,
    Broker,
    Mongod,
}

/// What hits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL; started again a second later.
    Kill,
    /// SIGTERM; started again when it has ended.
    Term,
    /// SIGSTOP for more than two leases, then SIGCONT.
    Stop,
    /// Nothing gets through for more than a lease. Connections that stood stay dead, without a word to either end.
    Cut,
}

pub(super) const FAULTS: [Fault; 4] = [Fault::Kill, Fault::Term, Fault::Stop, Fault::Cut];

/// Lets a fault last. That so much time passes is what is tested: the rest of the fleet works on under load meanwhile. A longer
/// run may change it through the environment.
async fn lasts(variable: &str, default: u64) {
    let seconds = std::env::var(variable).ok().and_then(|s| s.parse().ok()).unwrap_or(default);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// One server on data of its own, and the proxies before it: one for the victim among the processes, one for the rest.
struct Hosted {
    name: &'static str,
    dir: PathBuf,
    port: u16,
    server: Option<Server>,
    own: Proxy,
    rest: Proxy,
}

impl Hosted {
    async fn start(name: &'static str, dir: PathBuf) -> Self {
        let port = free_port();
        let (own, rest) = (Proxy::start(port).await, Proxy::start(port).await);
        let mut this = Self { name, dir, port, server: None, own, rest };
        this.launch();
        this
    }

    fn launch(&mut self) {
        self.server = Some(Server::start(self.name, &self.dir, self.port));
    }

    fn url(&self, port: u16) -> String {
        match self.name {
            "redis" => format!("redis://127.0.0.1:{port}"),
            "rabbitmq" => format!("amqp://guest:guest@127.0.0.1:{port}/%2f"),
            _ => format!("mongodb://127.0.0.1:{port}/app?directConnection=true"),
        }
    }

    async fn up(&self) {
        let client_says = async || match self.name {
            "rabbitmq" => servers::amqp(&self.url(self.port)).await.ok().map(drop),
            _ => tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.ok().map(drop),
        };
        eventually_within(BOOT, self.name, client_says).await;
        if self.name == "mongodb" {
            servers::initiate(&self.url(self.port)).await;
        }
    }
}

/// Everything at once.
pub(super) struct Arena {
    store: Hosted,
    broker: Hosted,
    pub(super) fleet: Fleet,
    pub(super) serves: Vec<Process>,
    pub(super) workers: Vec<Process>,
    pub(super) schedulers: Vec<Process>,
    /// The servers write here until they are gone.
    _dir: TempDir,
}

impl Arena {
    /// Two `serve`, two workers of four slots, two schedulers; the victim, if it is one of them, behind proxies of its own.
    pub(super) async fn start(via: Via, victim: Victim) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let name = if via == Via::Redis { "redis" } else { "rabbitmq" };
        let broker = Hosted::start(name, dir.path().join("broker")).await;
        let store = Hosted::start("mongodb", dir.path().join("store")).await;
        tokio::join!(broker.up(), store.up());
        let fleet = Fleet::over(&store.url(store.rest.port()), &broker.url(broker.rest.port()));
        let none = Vec::new;
        let mut this = Self { store, broker, fleet, serves: none(), workers: none(), schedulers: none(), _dir: dir };
        for n in 0..2 {
            let hit = |role: Victim| n == 0 && role == victim;
            this.serves.push(this.spawn("serve", hit(Victim::Serve)));
            this.workers.push(this.spawn("worker", hit(Victim::Worker)));
            this.schedulers.push(this.spawn("scheduler", hit(Victim::Scheduler)));
        }
        for serve in &mut this.serves {
            serve.ready().await;
        }
        for other in this.workers.iter_mut().chain(&mut this.schedulers) {
            other.said("ready").await;
        }
        this
    }

    fn spawn(&self, role: &str, victim: bool) -> Process {
        let (store, broker) = (self.store.url(self.store.own.port()), self.broker.url(self.broker.own.port()));
        let own = [("APP__STORE__URL", store.as_str()), ("APP__BROKER__URL", broker.as_str())];
        self.fleet.spawn_with(role, &[], if victim { &own } else { &[] })
    }

    /// The database itself, past the proxies.
    pub(super) fn store_url(&self) -> String {
        self.store.url(self.store.port)
    }

    /// The broker itself, past the proxies.
    pub(super) fn broker_url(&self) -> String {
        self.broker.url(self.broker.port)
    }

    /// Hits the victim and heals it; returns at the moment of healing.
    pub(super) async fn hit(&mut self, victim: Victim, fault: Fault) {
        match fault {
            Fault::Kill | Fault::Term => self.restart(victim, fault).await,
            Fault::Stop => {
                self.signal(victim, Signal::STOP);
                lasts("CRASH_STOP_SECS", 7).await;
                self.signal(victim, Signal::CONT);
            }
            Fault::Cut => {
                let lines = |h: &Hosted| match victim {
                    Victim::Broker => h.name != "mongodb",
                    Victim::Mongod => h.name == "mongodb",
                    _ => true,
                };
                let of_all = matches!(victim, Victim::Broker | Victim::Mongod);
                for h in [&self.store, &self.broker].into_iter().filter(|h| lines(h)) {
                    h.own.silence();
                    if of_all {
                        h.rest.silence();
                    }
                }
                lasts("CRASH_CUT_SECS", 5).await;
                for h in [&self.store, &self.broker] {
                    h.own.heal();
                    h.rest.heal();
                }
            }
        }
    }

    async fn restart(&mut self, victim: Victim, fault: Fault) {
        let signal = if fault == Fault::Kill { Signal::KILL } else { Signal::TERM };
        self.signal(victim, signal);
        match victim {
            Victim::Broker | Victim::Mongod => {
                let hosted = if victim == Victim::Broker { &mut self.broker } else { &mut self.store };
                if let Some(server) = &mut hosted.server {
                    server.exit().await;
                }
                lasts("CRASH_AWAY_SECS", 1).await;
                hosted.launch();
                // Healed is who can be used, and servers take their time to start.
                hosted.up().await;
            }
            Victim::Serve | Victim::Worker | Victim::Scheduler => {
                let status = self.processes(victim)[0].exit().await;
                assert!(fault == Fault::Kill || status.success(), "{}", self.processes(victim)[0].log());
                lasts("CRASH_AWAY_SECS", 1).await;
                let role = format!("{victim:?}").to_lowercase();
                let mut new = self.spawn(&role, true);
                if victim == Victim::Serve {
                    new.ready().await;
                }
                self.processes(victim)[0] = new;
            }
        }
    }

    fn signal(&mut self, victim: Victim, signal: Signal) {
        match victim {
            Victim::Broker => self.broker.server.as_ref().unwrap().signal(signal),
            Victim::Mongod => self.store.server.as_ref().unwrap().signal(signal),
            _ => self.processes(victim)[0].signal(signal),
        }
    }

    fn processes(&mut self, victim: Victim) -> &mut Vec<Process> {
        match victim {
            Victim::Serve => &mut self.serves,
            Victim::Worker => &mut self.workers,
            _ => &mut self.schedulers,
        }
    }

    /// Every process must have lived through it without an error that nobody handled.
    pub(super) fn all_live(&mut self) {
        for p in self.serves.iter_mut().chain(&mut self.workers).chain(&mut self.schedulers) {
            assert!(p.is_alive(), "a process ended by itself:\n{}", p.log());
            let log = p.log();
            assert!(!log.contains("ended badly") && !log.contains("panicked at"), "{log}");
        }
    }
}
