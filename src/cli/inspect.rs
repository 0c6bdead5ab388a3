//! `app inspect`: what live workers do, as `celery inspect` shows it; and `app health`.

use std::time::Duration;

use clap::Subcommand;
use serde_json::Value;

use super::{
    client::{Client, ServerArgs},
    exit::{FAILED, Failure},
    print::{self, ago, bytes_field, field},
};

/// `app inspect …`
#[derive(Debug, Subcommand)]
pub(super) enum InspectCommand {
    /// Jobs that run now, by worker
    Active,
    /// Kinds of job that each worker can run
    Registered,
    /// Slots, counts and memory of each worker
    Stats,
    /// Ask each worker to answer; fails if none does
    Ping,
}

pub(super) async fn run(server: &ServerArgs, command: InspectCommand) -> Result<(), Failure> {
    let client = Client::new(server)?;
    if matches!(command, InspectCommand::Ping) {
        return ping(&client, server.json).await;
    }
    let page = client.list(&["api", "v1", "workers"], &[], usize::MAX).await?;
    if server.json {
        return print::json(&page);
    }
    let workers: Vec<Value> = page.get("data").and_then(Value::as_array).cloned().unwrap_or_default();
    match command {
        InspectCommand::Active => {
            let rows = workers.iter().flat_map(|w| entries(w, "active").map(move |job| active_row(w, job)));
            print::table(&["WORKER", "JOB", "KIND", "QUEUE", "STARTED"], rows.collect(), "no jobs are running")
        }
        InspectCommand::Registered => {
            let rows = workers.iter().map(|w| vec![name(w), words(w, "kinds")]);
            print::table(&["WORKER", "KINDS"], rows.collect(), "no workers")
        }
        InspectCommand::Stats | InspectCommand::Ping => {
            let rows = workers.iter().map(stats_row);
            print::table(&STATS, rows.collect(), "no workers")
        }
    }
}

const STATS: [&str; 12] = [
    "WORKER",
    "ID",
    "STATE",
    "BUSY",
    "QUEUES",
    "PROCESSED",
    "SUCCEEDED",
    "FAILED",
    "RETRIED",
    "MEMORY",
    "STARTED",
    "HEARTBEAT",
];

fn stats_row(w: &Value) -> Vec<String> {
    let queues = entries(w, "queues").map(|q| match field(q, "weight").as_str() {
        "1" | "" => field(q, "name"),
        weight => format!("{}:{weight}", field(q, "name")),
    });
    vec![
        name(w),
        field(w, "id"),
        field(w, "state"),
        format!("{}/{}", field(w, "busy"), field(w, "slots")),
        queues.collect::<Vec<_>>().join(" "),
        field(w, "processed"),
        field(w, "succeeded"),
        field(w, "failed"),
        field(w, "retried"),
        bytes_field(w, "rss_bytes"),
        ago(w, "started_at"),
        ago(w, "heartbeat_at"),
    ]
}

fn active_row(worker: &Value, job: &Value) -> Vec<String> {
    vec![name(worker), field(job, "job_id"), field(job, "kind"), field(job, "queue"), ago(job, "started_at")]
}

/// How people know a worker: its host and process id.
fn name(worker: &Value) -> String {
    format!("{}:{}", field(worker, "host"), field(worker, "pid"))
}

fn entries<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn words(value: &Value, key: &str) -> String {
    entries(value, key).filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
}

async fn ping(client: &Client, json: bool) -> Result<(), Failure> {
    let reply = client.post(&["api", "v1", "workers", "ping"], None::<&Value>, &[]).await?.body;
    let answered = |w: &Value| w.get("answered").and_then(Value::as_bool).unwrap_or(false);
    if json {
        print::json(&reply)?;
    } else {
        let rows = entries(&reply, "data").map(|w| {
            let ms = w.get("ms").and_then(Value::as_f64).map(|ms| format!("{ms:.1}ms")).unwrap_or_default();
            vec![name(w), field(w, "id"), if answered(w) { "pong" } else { "no answer" }.to_owned(), ms]
        });
        print::table(&["WORKER", "ID", "ANSWER", "AFTER"], rows.collect(), "no workers")?;
    }
    match entries(&reply, "data").any(answered) {
        true => Ok(()),
        false => Err(Failure::new(FAILED, "no worker answered; is `app all` or `app worker` running?")),
    }
}

/// Asks whether the server may take traffic. Every failure is code 1, which is what container checks know.
pub(super) async fn health(server: &ServerArgs) -> Result<(), Failure> {
    let ask = async {
        let reply = Client::new(server)?.get(&["health", "ready"], &[]).await?;
        if server.json { print::json(&reply.body) } else { print::line("ready") }
    };
    match tokio::time::timeout(Duration::from_secs(5), ask).await {
        Ok(result) => result.map_err(|f| Failure::new(f.code.min(FAILED), f.message)),
        Err(_elapsed) => Err(Failure::new(FAILED, "the server did not answer within 5 s")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_worker_fills_its_row() {
        let w = json!({"id": "w", "host": "h", "pid": 7, "state": "running", "slots": 4, "busy": 1,
            "queues": [{"name": "a", "weight": 3}, {"name": "b", "weight": 1}], "kinds": ["x", "y"], "rss_bytes": 2048});
        let row = stats_row(&w);
        assert_eq!(row.len(), STATS.len());
        assert_eq!(row[..5], ["h:7", "w", "running", "1/4", "a:3 b"]);
        assert_eq!(words(&w, "kinds"), "x y");
    }
}
