//! Waiting for a job: follows it to its end with a progress bar on stderr, so that stdout holds the result alone.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::{
    client::Client,
    exit::{FAILED, Failure, JOB_CANCELLED, JOB_FAILED, SERVER, UNREACHABLE},
    print::{self, field},
};
use crate::base::id::JobId;

/// How long a server may be away, for a restart or an upgrade, before waiting is given up.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// Waits until the job is finished, prints its result (or the whole job as JSON), and fails as the job did.
pub(super) async fn follow_and_print(
    client: &Client,
    json: bool,
    id: JobId,
    timeout: Option<f64>,
) -> Result<(), Failure> {
    // More than a year is no limit, and would overflow an instant.
    let limit = timeout.filter(|s| *s < 3.2e7).map(Duration::from_secs_f64);
    let job = follow(client, id, limit).await?;
    let failure = failure_of(&job);
    if json {
        print::json(&job)?;
    } else if let (None, Some(result)) = (&failure, job.get("result").filter(|r| !r.is_null())) {
        print::json(result)?;
    }
    failure.map_or(Ok(()), Err)
}

async fn follow(client: &Client, id: JobId, limit: Option<Duration>) -> Result<Value, Failure> {
    let bar = Bar::new();
    let begun = Instant::now();
    let mut away_since: Option<Instant> = None;
    let name = id.to_string();
    loop {
        let left = limit.map(|l| l.saturating_sub(begun.elapsed()));
        // The server answers at once when the job ends, and after a second for the bar to move.
        let hold = if left.is_some_and(|l| l < Duration::from_secs(1)) { "0" } else { "1" };
        match client.get(&["api", "v1", "jobs", &name], &[("wait", Some(hold.to_owned()))]).await {
            Ok(reply) if is_finished(&reply.body) => return Ok(reply.body),
            Ok(reply) => {
                away_since = None;
                bar.show(&reply.body);
            }
            Err(f) if matches!(f.code, UNREACHABLE | SERVER) => {
                if away_since.get_or_insert_with(Instant::now).elapsed() > AWAY_MAX {
                    return Err(f);
                }
                bar.say("the server is away, waiting for it to come back");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(f) => return Err(f),
        }
        if left == Some(Duration::ZERO) {
            let message = format!("job {id} was not finished in time; it goes on, see `app jobs show {id}`");
            return Err(Failure::new(FAILED, message));
        }
        if let (Some(left), "0") = (left, hold) {
            tokio::time::sleep(left.min(Duration::from_millis(100))).await;
        }
    }
}

fn is_finished(job: &Value) -> bool {
    matches!(field(job, "state").as_str(), "succeeded" | "failed" | "cancelled")
}

/// The failure that a finished job stands for, if it did not succeed.
fn failure_of(job: &Value) -> Option<Failure> {
    let id = field(job, "id");
    match field(job, "state").as_str() {
        "succeeded" => None,
        "cancelled" => Some(Failure::new(JOB_CANCELLED, format!("job {id} was cancelled"))),
        _ => {
            let error = job.get("error").cloned().unwrap_or_default();
            let (code, message) = (field(&error, "code"), field(&error, "message"));
            let (attempt, advice) = (field(job, "attempt"), format!("`app jobs show {id}` lists its attempts"));
            let text = format!("job {id} failed at attempt {attempt}: {code}: {message}; {advice}");
            Some(Failure::new(JOB_FAILED, text))
        }
    }
}

/// A progress bar that is a spinner until the job tells its total. Hidden where stderr is no terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    fn say(&self, text: &str) {
        self.0.set_message(text.to_owned());
    }

    fn show(&self, job: &Value) {
        let mut said = field(job, "state");
        if let Some(progress) = job.get("progress").filter(|p| !p.is_null()) {
            let number = |key| progress.get(key).and_then(Value::as_f64).unwrap_or(0.0).clamp(0.0, 1e15);
            if number("total") > 0.0 && self.0.length().is_none() {
                let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {percent}% eta {eta} {msg}");
                self.0.set_style(style.unwrap_or_else(|_bad_template| ProgressStyle::default_bar()));
            }
            if number("total") > 0.0 {
                self.0.set_length(whole(number("total")));
                self.0.set_position(whole(number("current")));
            }
            let message = field(progress, "message");
            if !message.is_empty() {
                said = print::plain(&message);
            }
        }
        self.0.set_message(said);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the caller clamps it to 0..1e15")]
fn whole(n: f64) -> u64 {
    n as u64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_end_of_a_job_decides_the_exit_code() {
        assert_eq!(failure_of(&json!({"id": "j", "state": "succeeded"})), None);
        assert_eq!(failure_of(&json!({"id": "j", "state": "cancelled"})).map(|f| f.code), Some(JOB_CANCELLED));
        let job = json!({"id": "j", "state": "failed", "attempt": 5, "error": {"code": "boom", "message": "it broke"}});
        let f = failure_of(&job).unwrap();
        assert_eq!(f.code, JOB_FAILED);
        assert!(f.message.contains("at attempt 5: boom: it broke"), "{f}");
        assert!(!is_finished(&json!({"state": "running"})) && is_finished(&job));
    }
}
