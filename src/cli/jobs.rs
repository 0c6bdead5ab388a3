//! `app jobs`: submit, list, show, wait for, cancel and retry jobs.

use std::io::Read;

use clap::{Args, Subcommand, ValueEnum};
use reqwest::header::HeaderName;
use serde::Serialize;
use serde_json::{Value, value::RawValue};

use super::{
    client::{Client, ServerArgs},
    exit::{FAILED, Failure, USAGE},
    print::{self, ago, field, seconds_field},
    wait,
};
use crate::base::{
    clock::Timestamp,
    id::{JobId, KindName, Priority, QueueName},
};

/// `app jobs …`
#[derive(Debug, Subcommand)]
pub(super) enum JobsCommand {
    /// Submit a job and print its id
    Submit(SubmitArgs),
    /// List jobs, newest first
    List(ListArgs),
    /// Show one job with its attempts
    #[command(alias = "get")]
    Show {
        /// The job
        id: JobId,
    },
    /// Wait until a job is finished, and print its result
    Wait {
        /// The job
        id: JobId,
        /// Give up after this time, with exit code 1
        #[arg(long, value_parser = print::parse_seconds, value_name = "TIME")]
        timeout: Option<f64>,
    },
    /// Cancel jobs; running ones are asked to stop
    Cancel {
        /// The jobs
        #[arg(required = true)]
        ids: Vec<JobId>,
    },
    /// Queue failed, cancelled or scheduled jobs now
    Retry {
        /// The jobs
        #[arg(required = true)]
        ids: Vec<JobId>,
    },
}

/// A new job.
#[derive(Debug, Args)]
pub(super) struct SubmitArgs {
    /// What to run, such as `process_heavy_task`
    kind: KindName,
    /// The payload as JSON, @FILE to read it from a file, or - to read it from stdin
    #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    payload: Option<String>,
    /// Queue; the kind's own if none
    #[arg(long)]
    queue: Option<QueueName>,
    /// 1 (last) to 10 (first), or high, medium, low
    #[arg(long)]
    priority: Option<Priority>,
    /// Run after this time: 90s, 10m, or a number of seconds
    #[arg(long, value_parser = print::parse_seconds, value_name = "TIME", conflicts_with = "run_at")]
    delay: Option<f64>,
    /// Run at this time, such as 2026-11-21T08:00:00Z
    #[arg(long, value_parser = Timestamp::parse, value_name = "RFC3339")]
    run_at: Option<Timestamp>,
    /// Attempts before the job is a dead letter
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// How long one attempt may run: 90s, 10m, or a number of seconds
    #[arg(long, value_parser = print::parse_seconds, value_name = "TIME")]
    timeout: Option<f64>,
    /// A tag to find the job by; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Submitting again under the same key gives the first job instead of a second one
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Wait until the job is finished, and print its result
    #[arg(long)]
    wait: bool,
}

/// Which jobs to list.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only jobs in this state
    #[arg(long, value_enum)]
    state: Option<State>,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Filters that lists of jobs and of dead letters share.
#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Only jobs of this kind
    #[arg(long)]
    pub(super) kind: Option<KindName>,
    /// Only jobs of this queue
    #[arg(long)]
    pub(super) queue: Option<QueueName>,
    /// Only jobs with this tag
    #[arg(long)]
    pub(super) tag: Option<String>,
    /// Only jobs created after this time
    #[arg(long, value_parser = Timestamp::parse, value_name = "RFC3339")]
    pub(super) created_after: Option<Timestamp>,
    /// Only jobs created before this time
    #[arg(long, value_parser = Timestamp::parse, value_name = "RFC3339")]
    pub(super) created_before: Option<Timestamp>,
    /// At most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    limit: u32,
    /// Go on after an earlier list, with the cursor that it printed
    #[arg(long)]
    cursor: Option<String>,
}

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    Scheduled,
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

/// The body of a submission.
#[derive(Serialize)]
struct Submission<'a> {
    kind: &'a KindName,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<&'a QueueName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<Priority>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<f64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    tags: &'a [String],
}

pub(super) async fn run(server: &ServerArgs, command: JobsCommand) -> Result<(), Failure> {
    let client = Client::new(server)?;
    match command {
        JobsCommand::Submit(args) => submit(&client, server.json, &args).await,
        JobsCommand::List(args) => {
            let state = args.state.and_then(|s| s.to_possible_value()).map(|v| v.get_name().to_owned());
            list(&client, server.json, "jobs", &args.filter, state).await
        }
        JobsCommand::Show { id } => show(&client, server.json, id).await,
        JobsCommand::Wait { id, timeout } => wait::follow_and_print(&client, server.json, id, timeout).await,
        JobsCommand::Cancel { ids } => each(&client, server.json, &ids, "cancel").await,
        JobsCommand::Retry { ids } => each(&client, server.json, &ids, "retry").await,
    }
}

async fn submit(client: &Client, json: bool, args: &SubmitArgs) -> Result<(), Failure> {
    let submission = Submission {
        kind: &args.kind,
        payload: args.payload.as_deref().map(read_payload).transpose()?,
        queue: args.queue.as_ref(),
        priority: args.priority,
        delay: args.delay,
        run_at: args.run_at,
        max_attempts: args.max_attempts,
        timeout: args.timeout,
        tags: &args.tags,
    };
    let key = args.idempotency_key.iter().map(|k| (HeaderName::from_static("idempotency-key"), k.clone()));
    let reply = client.post(&["api", "v1", "jobs"], Some(&submission), &key.collect::<Vec<_>>()).await?;
    if reply.headers.contains_key("idempotent-replayed") {
        print::note("this Idempotency-Key was used before; this is the job made then");
    }
    let id = field(&reply.body, "id");
    if !args.wait {
        return if json { print::json(&reply.body) } else { print::line(&id) };
    }
    print::note(&format!("job {id}"));
    let id =
        id.parse().map_err(|_not_an_id| Failure::new(super::exit::SERVER, "the server answered without a job id"))?;
    wait::follow_and_print(client, json, id, None).await
}

/// The payload as written, unchanged, once it is known to be JSON.
pub(super) fn read_payload(text: &str) -> Result<Box<RawValue>, Failure> {
    let (json, from) = if text == "-" {
        let mut json = String::new();
        std::io::stdin()
            .read_to_string(&mut json)
            .map_err(|e| Failure::new(FAILED, format!("cannot read the payload from stdin: {e}")))?;
        (json, "on stdin".to_owned())
    } else if let Some(path) = text.strip_prefix('@') {
        let json = std::fs::read_to_string(path)
            .map_err(|e| Failure::new(FAILED, format!("cannot read the payload from {path}: {e}")))?;
        (json, format!("in {path}"))
    } else {
        (text.to_owned(), "after --payload".to_owned())
    };
    let trimmed = json.trim().to_owned();
    RawValue::from_string(trimmed).map_err(|e| {
        let hint =
            if text.starts_with(['@', '-', '{', '[']) { "" } else { "; put text in double quotes inside the quotes" };
        Failure::new(USAGE, format!("the payload {from} is not JSON: {e}{hint}"))
    })
}

pub(super) async fn list(
    client: &Client,
    json: bool,
    room: &str,
    args: &FilterArgs,
    state: Option<String>,
) -> Result<(), Failure> {
    let query = [
        ("state", state),
        ("kind", args.kind.as_ref().map(ToString::to_string)),
        ("queue", args.queue.as_ref().map(ToString::to_string)),
        ("tag", args.tag.clone()),
        ("created_after", args.created_after.map(|t| t.to_string())),
        ("created_before", args.created_before.map(|t| t.to_string())),
        ("cursor", args.cursor.clone()),
    ];
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let page = client.list(&["api", "v1", room], &query, limit).await?;
    if json {
        return print::json(&page);
    }
    let jobs = page.get("data").and_then(Value::as_array).into_iter().flatten();
    let rows = jobs.map(|job| {
        vec![
            field(job, "id"),
            field(job, "kind"),
            field(job, "queue"),
            field(job, "priority"),
            field(job, "state"),
            format!("{}/{}", field(job, "attempt"), field(job, "max_attempts")),
            ago(job, "created_at"),
            error_of(job),
        ]
    });
    let headings = ["ID", "KIND", "QUEUE", "PRIORITY", "STATE", "ATTEMPT", "CREATED", "ERROR"];
    print::table(&headings, rows.collect(), "no jobs")?;
    if let Some(cursor) = page.pointer("/meta/next_cursor").and_then(Value::as_str) {
        print::note(&format!("there are more: --cursor {cursor}"));
    }
    Ok(())
}

/// The job's last error as `code: message`, cut to what fits a line.
fn error_of(job: &Value) -> String {
    let Some(error) = job.get("error").filter(|e| !e.is_null()) else { return String::new() };
    let text = format!("{}: {}", field(error, "code"), field(error, "message"));
    match text.char_indices().nth(80) {
        Some((cut, _)) => format!("{}…", text.get(..cut).unwrap_or_default()),
        None => text,
    }
}

pub(super) async fn show(client: &Client, json: bool, id: JobId) -> Result<(), Failure> {
    let job = client.get(&["api", "v1", "jobs", &id.to_string()], &[]).await?.body;
    if json {
        return print::json(&job);
    }
    let mut pairs = Vec::new();
    for key in ["id", "kind", "queue", "priority", "state", "attempt", "max_attempts", "crashes", "worker"] {
        pairs.push((key, field(&job, key)));
    }
    pairs.push(("timeout", seconds_field(&job, "timeout")));
    for key in ["created_at", "run_at", "started_at", "finished_at", "correlation_id", "tags"] {
        pairs.push((key, field(&job, key)));
    }
    for key in ["cancel_requested", "progress", "payload", "result", "error"] {
        pairs.push((key, field(&job, key)));
    }
    pairs.retain(|(_, value)| !matches!(value.as_str(), "" | "[]" | "false"));
    print::pairs(pairs)?;
    let attempts = job.get("attempts").and_then(Value::as_array).into_iter().flatten();
    let rows: Vec<_> = attempts
        .map(|a| {
            let mut row: Vec<_> =
                ["run", "outcome", "worker", "started_at", "finished_at", "retry_at"].map(|key| field(a, key)).into();
            row.push(error_of(a));
            row
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    print::line("")?;
    print::table(&["RUN", "OUTCOME", "WORKER", "STARTED", "FINISHED", "RETRY AT", "ERROR"], rows, "")
}

/// Cancels or retries several jobs; the first that cannot be ends the command, and those before it stay done.
async fn each(client: &Client, json: bool, ids: &[JobId], verb: &str) -> Result<(), Failure> {
    for id in ids {
        let reply = client.post(&["api", "v1", "jobs", &id.to_string(), verb], None::<&Value>, &[]).await;
        let job = reply.map_err(|f| Failure::new(f.code, format!("job {id}: {}", f.message)))?.body;
        if json {
            print::json(&job)?;
        } else {
            let asked = job.get("cancel_requested").and_then(Value::as_bool).unwrap_or(false);
            let note = if asked && field(&job, "state") == "running" { ", asked to stop" } else { "" };
            print::line(&format!("{id} {}{note}", field(&job, "state")))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_json_from_anywhere_and_are_not_changed() {
        assert_eq!(read_payload(" {\"n\":12345678901234567890123} ").unwrap().get(), "{\"n\":12345678901234567890123}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[1]\n").unwrap();
        assert_eq!(read_payload(&format!("@{}", file.path().display())).unwrap().get(), "[1]");
        let f = read_payload("hello").unwrap_err();
        assert_eq!(f.code, USAGE);
        assert!(f.message.contains("is not JSON") && f.message.contains("double quotes"), "{f}");
        assert_eq!(read_payload("@/nonexistent").unwrap_err().code, FAILED);
    }

    #[test]
    fn a_submission_leaves_out_what_was_not_said() {
        let kind = "k".parse().unwrap();
        let s = Submission {
            kind: &kind,
            payload: None,
            queue: None,
            priority: None,
            delay: None,
            run_at: None,
            max_attempts: None,
            timeout: None,
            tags: &[],
        };
        assert_eq!(serde_json::to_string(&s).unwrap(), "{\"kind\":\"k\"}");
    }

    #[test]
    fn long_errors_are_cut_at_a_character() {
        let job = serde_json::json!({"error": {"code": "x", "message": "ü".repeat(200)}});
        assert_eq!(error_of(&job).chars().count(), 81);
        assert_eq!(error_of(&serde_json::json!({"error": null})), "");
    }
}
