//! `test.script` (test builds only): a job that does what its payload says, run by run.

use std::{io::Write, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::jobs::{
    context::JobContext,
    kind::{JobKind, KindOptions, Outcome},
    model::JobError,
};

pub(super) struct Scripted;

/// The steps of each run; the last entry also stands for all later runs.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Script {
    #[serde(default)]
    runs: Vec<Vec<Step>>,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    /// Ends well with this result.
    Ok(Value),
    /// Ends with an error that may be retried.
    Error(String),
    /// Ends with an error that may not.
    Permanent(String),
    /// Panics.
    Panic(String),
    /// Asks to be run again after this many milliseconds.
    Snooze(u64),
    /// Ends with an error that may be retried after this many milliseconds.
    ErrorUntil(String, u64),
    /// Asks to be run again after this many milliseconds, and says why.
    Postpone(String, u64),
    /// Cancels itself.
    Cancel,
    /// Sleeps this many milliseconds.
    Sleep(u64),
    /// Burns a blocking thread for this many milliseconds unless told to stop.
    Spin(u64),
    /// Burns a blocking thread for this many milliseconds, deaf to being told to stop.
    Deaf(u64),
    /// Waits until this file exists.
    Await(PathBuf),
    /// Waits until told to stop, then ends as asked.
    AwaitStop,
    /// Notes progress.
    Progress(u64, u64),
    /// Appends a line `JOB RUN` to this file.
    Append(PathBuf),
    /// Ends well with a text of this many bytes.
    Big(usize),
}

impl JobKind for Scripted {
    const NAME: &'static str = "test.script";
    type Payload = Script;

    fn options(&self) -> KindOptions {
        KindOptions {
            description: "Does what its payload says.",
            example: r#"{"runs":[[{"ok":1}]]}"#,
            ..KindOptions::default()
        }
    }

    async fn run(&self, ctx: JobContext, payload: Script) -> Outcome {
        let at = usize::try_from(ctx.run() - 1).unwrap_or(usize::MAX).min(payload.runs.len().saturating_sub(1));
        for step in payload.runs.get(at).into_iter().flatten() {
            if let Some(outcome) = step.act(&ctx).await {
                return outcome;
            }
        }
        Outcome::Done(None)
    }
}

impl Step {
    #[allow(clippy::panic, reason = "panicking is what one step is for")]
    async fn act(&self, ctx: &JobContext) -> Option<Outcome> {
        match self.clone() {
            Self::Ok(value) => return Some(Outcome::done(&value)),
            Self::Error(m) => return Some(Outcome::Retry(JobError::new("scripted", m))),
            Self::Permanent(m) => return Some(Outcome::Fail(JobError::new("scripted", m))),
            Self::Panic(m) => panic!("{m}"),
            Self::Snooze(ms) => return Some(Outcome::Snooze(Duration::from_millis(ms))),
            Self::ErrorUntil(m, ms) => {
                return Some(Outcome::RetryAfter(JobError::new("scripted", m), Duration::from_millis(ms)));
            }
            Self::Postpone(m, ms) => {
                return Some(Outcome::Postpone(JobError::new("scripted", m), Duration::from_millis(ms)));
            }
            Self::Cancel => return Some(Outcome::Cancel),
            Self::Sleep(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            Self::Spin(ms) => {
                if !spin(ctx, ms, true).await {
                    return Some(Outcome::Cancel);
                }
            }
            Self::Deaf(ms) => drop(spin(ctx, ms, false).await),
            Self::Await(path) => {
                while !path.exists() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
            Self::AwaitStop => {
                ctx.cancelled().await;
                return Some(Outcome::Cancel);
            }
            Self::Progress(current, total) => ctx.progress(current, total),
            Self::Append(path) => {
                let line = format!("{} {}\n", ctx.job_id(), ctx.run());
                let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
                if let Err(e) = file.and_then(|mut f| f.write_all(line.as_bytes())) {
                    return Some(Outcome::Retry(JobError::new("append", e.to_string())));
                }
            }
            Self::Big(bytes) => return Some(Outcome::done(&"x".repeat(bytes))),
        }
        None
    }
}

/// Whether it ran to the end.
async fn spin(ctx: &JobContext, ms: u64, listen: bool) -> bool {
    ctx.blocking(move |ctx| {
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(ms) {
            if listen && ctx.is_cancelled() {
                return false;
            }
            std::hint::spin_loop();
        }
        true
    })
    .await
}
