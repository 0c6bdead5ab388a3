//! The command line: every role of the program, and a client for each thing that the HTTP API can do.
//!
//! It is the top floor: it turns words into a configuration or a request, and outcomes into tables, sentences and exit
//! codes. What a command does is decided below, so that API, dashboard and command line agree.

mod client;
mod dead;
mod exit;
mod inspect;
mod jobs;
mod print;
mod process;
mod queues;
mod users;
mod vapid;
mod wait;

use clap::{CommandFactory, Parser, Subcommand};

use self::client::ServerArgs;
pub use self::exit::Failure;

const EXIT_CODES: &str = "\
Exit codes:
   0  done                          5  the server refused the request (4xx)
   1  failed                        6  the server failed (5xx)
   2  wrong usage                  10  the job failed (--wait, jobs wait)
   3  wrong configuration          11  the job was cancelled (--wait, jobs wait)
   4  the server cannot be reached

Start everything in one process with `app all`; then try `app jobs submit process_heavy_task --payload \
'{\"data\":[1,2,3],\"iterations\":10}' --wait`.";

/// HTTP items API, durable job queue, workers and scheduler in one program.
#[derive(Debug, Parser)]
#[command(name = "app", version, after_help = EXIT_CODES, arg_required_else_help = true, max_term_width = 120)]
pub struct Cli {
    #[command(flatten)]
    global: process::GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in one process: HTTP API, workers and scheduler
    All {
        #[command(flatten)]
        http: process::HttpArgs,
        #[command(flatten)]
        worker: process::WorkerArgs,
        #[command(flatten)]
        backends: process::BackendArgs,
    },
    /// Run the HTTP API only
    Serve {
        #[command(flatten)]
        http: process::HttpArgs,
        #[command(flatten)]
        backends: process::BackendArgs,
    },
    /// Run a worker only
    Worker {
        #[command(flatten)]
        worker: process::WorkerArgs,
        #[command(flatten)]
        backends: process::BackendArgs,
    },
    /// Run the scheduler only
    Scheduler {
        #[command(flatten)]
        backends: process::BackendArgs,
    },
    /// Submit, watch, cancel and retry jobs
    Jobs {
        #[command(flatten)]
        server: ServerArgs,
        #[command(subcommand)]
        command: jobs::JobsCommand,
    },
    /// Look at queues, pause, resume and empty them
    Queues {
        #[command(flatten)]
        server: ServerArgs,
        #[command(subcommand)]
        command: queues::QueuesCommand,
    },
    /// Look at dead letters, run them again or delete them
    Dead {
        #[command(flatten)]
        server: ServerArgs,
        #[command(subcommand)]
        command: dead::DeadCommand,
    },
    /// Look at live workers
    Inspect {
        #[command(flatten)]
        server: ServerArgs,
        #[command(subcommand)]
        command: inspect::InspectCommand,
    },
    /// Check or show the configuration
    Config {
        #[command(flatten)]
        http: process::HttpArgs,
        #[command(flatten)]
        worker: process::WorkerArgs,
        #[command(flatten)]
        backends: process::BackendArgs,
        #[command(subcommand)]
        command: process::ConfigCommand,
    },
    /// Bring the store to the newest schema
    Migrate {
        #[command(flatten)]
        backends: process::BackendArgs,
    },
    /// Look at every backend: whether it lets this program in, and which of its settings may lose data;
    /// makes and changes nothing
    Doctor {
        #[command(flatten)]
        backends: process::BackendArgs,
    },
    /// Make administrators, directly in the store
    Users {
        #[command(flatten)]
        backends: process::BackendArgs,
        #[command(subcommand)]
        command: users::UsersCommand,
    },
    /// Ask a server whether it may take traffic; needs no configuration and exits with 0 or 1, for container checks
    Health {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Make the keys that web push needs
    Vapid {
        #[command(subcommand)]
        command: vapid::VapidCommand,
    },
    /// Print the OpenAPI document of the HTTP API
    Openapi,
    /// Print a completion script for a shell
    Completions {
        /// The shell to write for
        shell: clap_complete::Shell,
    },
}

/// Runs one command to its end.
///
/// # Errors
/// The sentence to print on stderr and the exit code.
pub fn run(cli: Cli) -> Result<(), Failure> {
    use crate::config::Role;
    let Cli { global, command } = cli;
    match command {
        Command::All { http, worker, backends } => {
            process::run_role(Role::All, &global, &[&http, &worker, &backends], http.port)
        }
        Command::Serve { http, backends } => process::run_role(Role::Serve, &global, &[&http, &backends], http.port),
        Command::Worker { worker, backends } => process::run_role(Role::Worker, &global, &[&worker, &backends], None),
        Command::Scheduler { backends } => process::run_role(Role::Scheduler, &global, &[&backends], None),
        Command::Config { http, worker, backends, command } => {
            process::run_config(&command, &global, &[&http, &worker, &backends], http.port)
        }
        Command::Migrate { backends } => process::run_migrate(&global, &[&backends]),
        Command::Doctor { backends } => process::run_doctor(&global, &[&backends]),
        Command::Users { backends, command } => users::run(command, &global, &[&backends]),
        Command::Jobs { server, command } => client::block_on(jobs::run(&server, command))?,
        Command::Queues { server, command } => client::block_on(queues::run(&server, command))?,
        Command::Dead { server, command } => client::block_on(dead::run(&server, command))?,
        Command::Inspect { server, command } => client::block_on(inspect::run(&server, command))?,
        Command::Health { server } => client::block_on(inspect::health(&server))?,
        Command::Vapid { command } => vapid::run(&command),
        Command::Openapi => print::line(&crate::app::openapi_json()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "app", &mut script);
            print::line(String::from_utf8_lossy(&script).trim_end())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_reads_its_flags() {
        let id = "0192f0c1-2345-7abc-8def-0123456789ab";
        for line in [
            "all --port 0 --queues heavy:1,default:3 --strict --log-level debug --store-url sqlite://x",
            "serve --bind 0.0.0.0:80 --config x.toml",
            "worker --concurrency 3 --max-jobs 10 --shutdown-grace 5s --broker-url redis://h",
            "scheduler --profile prod --log-format json",
            "jobs submit k --payload {} --queue q --priority high --delay 10m --tag a --tag b --wait --json",
            "jobs list --state queued --limit 500 --url http://h:1",
            "jobs list --created-after 2026-01-01T00:00:00Z",
            &format!("jobs wait {id} --timeout 5s"),
            &format!("jobs show {id}"),
            &format!("jobs cancel {id} {id}"),
            "queues purge heavy --yes",
            &format!("dead replay {id} --kind k --dry-run --rate 5"),
            "dead discard --queue q --error-contains x --yes",
            "inspect ping --json",
            "config show",
            "config check --role worker",
            "config check --bind 0.0.0.0:80 --queues a --store-url sqlite://x",
            "config --port 80 show",
            "health --url http://127.0.0.1:1",
            "vapid generate --json",
            "health --url http://127.0.0.1:1 --token t",
            "users create-admin --email a@example.com --name A --password-file f --store-url sqlite://x",
            "completions bash",
        ] {
            Cli::try_parse_from(std::iter::once("app").chain(line.split(' ')))
                .unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn wrong_words_are_usage_errors() {
        let id = "0192f0c1-2345-7abc-8def-0123456789ab";
        for line in [
            "jobs submit Kind",
            "jobs submit k --priority 11",
            "jobs submit k --delay soon",
            "jobs submit k --delay 1s --run-at 2026-01-01T00:00:00Z",
            "jobs show nonsense",
            "jobs list --state done",
            "jobs list --limit 0",
            "queues pause ..",
            "all --port 65536",
            "serve --queues a",
            "dead replay --rate 0",
            &format!("dead show {id} {id}"),
        ] {
            let e = Cli::try_parse_from(std::iter::once("app").chain(line.split(' '))).expect_err(line);
            assert_eq!(e.exit_code(), 2, "{line}");
        }
    }
}
