//! `app queues`: list, pause, resume and empty queues.

use clap::Subcommand;
use serde_json::Value;

use super::{
    client::{Client, ServerArgs},
    exit::{Failure, USAGE},
    print::{self, field, seconds_field},
};
use crate::base::id::QueueName;

/// `app queues …`
#[derive(Debug, Subcommand)]
pub(super) enum QueuesCommand {
    /// List queues with their jobs by state
    List,
    /// Let no more jobs of queues start; running ones finish
    Pause {
        /// The queues
        #[arg(required = true)]
        names: Vec<QueueName>,
    },
    /// Let jobs of paused queues start again
    Resume {
        /// The queues
        #[arg(required = true)]
        names: Vec<QueueName>,
    },
    /// Cancel the queued jobs of a queue
    Purge {
        /// The queue
        name: QueueName,
        /// Yes, cancel them
        #[arg(long)]
        yes: bool,
    },
}

pub(super) async fn run(server: &ServerArgs, command: QueuesCommand) -> Result<(), Failure> {
    let client = Client::new(server)?;
    match command {
        QueuesCommand::List => {
            let page = client.list(&["api", "v1", "queues"], &[], usize::MAX).await?;
            if server.json { print::json(&page) } else { table(&page) }
        }
        QueuesCommand::Pause { names } => each(&client, server.json, &names, "pause").await,
        QueuesCommand::Resume { names } => each(&client, server.json, &names, "resume").await,
        QueuesCommand::Purge { name, yes } => {
            if !yes {
                let text = format!("purging cancels every queued job of `{name}`; say --yes if you mean it");
                return Err(Failure::new(USAGE, text));
            }
            let reply = post(&client, &name, "purge").await?;
            if server.json {
                return print::json(&reply);
            }
            print::line(&format!("{} queued jobs of {name} cancelled", field(&reply, "purged")))
        }
    }
}

async fn post(client: &Client, name: &QueueName, verb: &str) -> Result<Value, Failure> {
    let path = ["api", "v1", "queues", name.as_str(), verb];
    Ok(client.post(&path, None::<&Value>, &[]).await?.body)
}

async fn each(client: &Client, json: bool, names: &[QueueName], verb: &str) -> Result<(), Failure> {
    for name in names {
        let queue = post(client, name, verb).await?;
        if json {
            print::json(&queue)?;
        } else {
            let paused = queue.get("paused").and_then(Value::as_bool).unwrap_or(false);
            print::line(&format!("{name} {}", if paused { "paused" } else { "running" }))?;
        }
    }
    Ok(())
}

fn table(page: &Value) -> Result<(), Failure> {
    let queues = || page.get("data").and_then(Value::as_array).into_iter().flatten();
    let refused = |q: &Value| q.get("set_aside").is_some_and(Value::is_string);
    let rows = queues().map(|q| {
        let paused = q.get("paused").and_then(Value::as_bool).unwrap_or(false);
        let status = match (paused, refused(q)) {
            (_, true) => "set aside",
            (true, false) => "paused",
            (false, false) => "running",
        };
        vec![
            field(q, "name"),
            status.to_owned(),
            field(q, "queued"),
            field(q, "scheduled"),
            field(q, "running"),
            field(q, "failed"),
            seconds_field(q, "oldest_age_seconds"),
            field(q, "depth_limit"),
            field(q, "workers"),
        ]
    });
    let headings = ["QUEUE", "STATUS", "QUEUED", "SCHEDULED", "RUNNING", "FAILED", "OLDEST", "LIMIT", "WORKERS"];
    print::table(&headings, rows.collect(), "no queues yet; a queue appears with its first job")?;
    for q in queues().filter(|q| refused(q)) {
        print::line(&format!("{}: {}", field(q, "name"), field(q, "set_aside")))?;
    }
    Ok(())
}
