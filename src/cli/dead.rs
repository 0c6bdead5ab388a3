//! `app dead`: look at dead letters, run them again in bulk, or delete them.

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, value::RawValue};

use super::{
    client::{Client, ServerArgs},
    exit::{Failure, USAGE},
    jobs::{self, FilterArgs},
    print::{self, field},
};
use crate::base::{
    clock::Timestamp,
    id::{JobId, KindName, Priority, QueueName},
};

/// `app dead …`
#[derive(Debug, Subcommand)]
pub(super) enum DeadCommand {
    /// List dead letters, newest first
    List(FilterArgs),
    /// Show one dead letter with its attempts
    Show {
        /// The job
        id: JobId,
    },
    /// Queue the dead letters that match again; without a filter every one, and only with --yes
    Replay {
        #[command(flatten)]
        filter: MatchArgs,
        /// At most this many jobs a second
        #[arg(long, value_parser = parse_rate, value_name = "JOBS/S")]
        rate: Option<f64>,
        /// At most this many jobs
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
        limit: Option<u64>,
        /// Only say how many match
        #[arg(long)]
        dry_run: bool,
        /// Confirm a replay without a filter, which takes every dead letter
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        edit: EditArgs,
    },
    /// Delete dead letters, all that match
    Discard {
        #[command(flatten)]
        filter: MatchArgs,
        /// Only say how many match
        #[arg(long)]
        dry_run: bool,
        /// Confirm that they are deleted for good
        #[arg(long)]
        yes: bool,
    },
}

/// Which dead letters; without any, all.
#[derive(Debug, Args, Serialize)]
pub(super) struct MatchArgs {
    /// These jobs only
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ids: Vec<JobId>,
    /// Only of this kind
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<KindName>,
    /// Only of this queue
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<QueueName>,
    /// Only with this tag
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    /// Only those whose error holds this text
    #[arg(long, value_name = "TEXT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    error_contains: Option<String>,
    /// Only those created after this time
    #[arg(long, value_parser = Timestamp::parse, value_name = "RFC3339")]
    #[serde(skip_serializing_if = "Option::is_none")]
    created_after: Option<Timestamp>,
    /// Only those created before this time
    #[arg(long, value_parser = Timestamp::parse, value_name = "RFC3339")]
    #[serde(skip_serializing_if = "Option::is_none")]
    created_before: Option<Timestamp>,
}

impl MatchArgs {
    /// Whether every dead letter matches.
    const fn is_empty(&self) -> bool {
        let Self { ids, kind, queue, tag, error_contains, created_after, created_before } = self;
        ids.is_empty()
            && kind.is_none()
            && queue.is_none()
            && tag.is_none()
            && error_contains.is_none()
            && created_after.is_none()
            && created_before.is_none()
    }
}

/// What to change in the jobs that are run again.
#[derive(Debug, Args)]
pub(super) struct EditArgs {
    /// Move them to this queue
    #[arg(long, value_name = "QUEUE")]
    set_queue: Option<QueueName>,
    /// Give them this priority
    #[arg(long, value_name = "PRIORITY")]
    set_priority: Option<Priority>,
    /// Give them this many attempts
    #[arg(long, value_name = "N")]
    set_max_attempts: Option<u32>,
    /// Give them this payload: JSON, @FILE, or - for stdin
    #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    set_payload: Option<String>,
}

/// The body of a bulk request.
#[derive(Serialize)]
struct Bulk<'a> {
    filter: &'a MatchArgs,
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    edit: Option<Edit<'a>>,
}

#[derive(Serialize)]
struct Edit<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<&'a QueueName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<Priority>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
}

pub(super) async fn run(server: &ServerArgs, command: DeadCommand) -> Result<(), Failure> {
    let client = Client::new(server)?;
    let json = server.json;
    match command {
        DeadCommand::List(filter) => jobs::list(&client, json, "dead-letters", &filter, None).await,
        DeadCommand::Show { id } => jobs::show(&client, json, id).await,
        DeadCommand::Replay { filter, rate, limit, dry_run, yes, edit } => {
            let mut bulk = Bulk { filter: &filter, dry_run, rate, limit, edit: edit_of(&edit)? };
            if !dry_run && !yes && filter.is_empty() {
                bulk.dry_run = true;
                confirm_all(&client, &bulk).await?;
                bulk.dry_run = false;
            }
            act(&client, json, "replay", &bulk, "replayed").await
        }
        DeadCommand::Discard { filter, dry_run, yes } => {
            if !yes && !dry_run {
                let text =
                    "discarding deletes every dead letter that matches for good; look with --dry-run, then say --yes";
                return Err(Failure::new(USAGE, text));
            }
            let bulk = Bulk { filter: &filter, dry_run, rate: None, limit: None, edit: None };
            act(&client, json, "discard", &bulk, "discarded").await
        }
    }
}

fn edit_of(args: &EditArgs) -> Result<Option<Edit<'_>>, Failure> {
    let edit = Edit {
        queue: args.set_queue.as_ref(),
        priority: args.set_priority,
        payload: args.set_payload.as_deref().map(jobs::read_payload).transpose()?,
        max_attempts: args.set_max_attempts,
    };
    let empty =
        edit.queue.is_none() && edit.priority.is_none() && edit.payload.is_none() && edit.max_attempts.is_none();
    Ok((!empty).then_some(edit))
}

/// Refuses to run every dead letter again without a word, and says how many there are.
async fn confirm_all(client: &Client, dry_run: &Bulk<'_>) -> Result<(), Failure> {
    let reply = client.post(&["api", "v1", "dead-letters", "replay"], Some(dry_run), &[]).await?.body;
    match reply.get("matched").and_then(Value::as_u64) {
        Some(0) => Ok(()),
        _ => Err(Failure::new(
            USAGE,
            format!(
                "without a filter this runs all {} dead letters again: confirm with --yes, or choose some by id, --kind, \
                 --queue, --tag, --error-contains, --created-after or --created-before",
                field(&reply, "matched")
            ),
        )),
    }
}

async fn act(client: &Client, json: bool, verb: &str, bulk: &Bulk<'_>, done: &str) -> Result<(), Failure> {
    let reply = client.post(&["api", "v1", "dead-letters", verb], Some(bulk), &[]).await?.body;
    if json {
        return print::json(&reply);
    }
    let matched = field(&reply, "matched");
    if bulk.dry_run {
        return print::line(&format!("{matched} dead letters match; nothing was changed"));
    }
    let number = reply.get(done).map_or_else(|| "0".to_owned(), Value::to_string);
    print::line(&format!("{number} of {matched} matching dead letters {done}"))
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("a rate is a number of jobs a second above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bulk_request_holds_only_what_was_said() {
        let filter = MatchArgs {
            ids: vec![],
            kind: Some("k".parse().unwrap()),
            queue: None,
            tag: None,
            error_contains: None,
            created_after: None,
            created_before: None,
        };
        let edit = EditArgs {
            set_queue: None,
            set_priority: None,
            set_max_attempts: Some(3),
            set_payload: Some("[1]".to_owned()),
        };
        let bulk = Bulk { filter: &filter, dry_run: true, rate: None, limit: None, edit: edit_of(&edit).unwrap() };
        assert_eq!(
            serde_json::to_string(&bulk).unwrap(),
            "{\"filter\":{\"kind\":\"k\"},\"dry_run\":true,\"edit\":{\"payload\":[1],\"max_attempts\":3}}"
        );
    }
}
