//! What a job is, as every store keeps it and every reader sees it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::state::State;
use crate::base::{
    backoff::Backoff,
    clock::Timestamp,
    id::{JobId, KindName, Priority, QueueName, WorkerId},
};

/// A job with everything known of it.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its id; the order of ids is the order of submission.
    pub id: JobId,
    /// What runs.
    pub kind: KindName,
    /// Where it waits.
    pub queue: QueueName,
    /// Its place among the jobs of its queue.
    pub priority: Priority,
    /// What the submitter fixed; changed only by an edit of a dead letter.
    pub spec: Spec,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Where it is in its life.
    pub state: State,
    /// The time that belongs to the state: queued since, scheduled for, lease runs out at, finished at.
    pub at: Timestamp,
    /// Attempts spent: ended in a failure, a time-out or a panic. Snoozes, releases and crashes spend none.
    pub failures: u32,
    /// How often a worker died or went silent while it held this job.
    pub crashes: u32,
    /// How often it was started; also the number that a claim holds against late writers.
    pub fence: u64,
    /// Who runs it, or ran it last.
    pub worker: Option<WorkerId>,
    /// When the present or last run began.
    pub started_at: Option<Timestamp>,
    /// Someone asked the running job to stop.
    pub cancel_requested: bool,
    /// How far the present or last run got.
    pub progress: Option<Progress>,
    /// What it returned, once it succeeded.
    pub result: Option<Box<RawValue>>,
    /// Why it failed last; kept while it waits for a retry.
    pub error: Option<JobError>,
    /// Every run that ended, oldest first; at most [`ATTEMPTS_KEPT`], the oldest are dropped first.
    pub attempts: Vec<Attempt>,
}

/// So many ended runs are kept with a job. A job can be snoozed for ever, its record must not grow for ever.
pub const ATTEMPTS_KEPT: usize = 100;

impl Job {
    /// The attempt it is at or ended with, counted from 1; 0 if it never started.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        match self.state {
            State::Running | State::Succeeded => self.failures + 1,
            _ => self.failures,
        }
    }

    /// When it is or was due to start.
    #[must_use]
    pub fn run_at(&self) -> Option<Timestamp> {
        matches!(self.state, State::Scheduled | State::Queued).then_some(self.at)
    }

    /// When it reached its final state.
    #[must_use]
    pub fn finished_at(&self) -> Option<Timestamp> {
        self.state.is_final().then_some(self.at)
    }

    /// How many ended runs are no longer among [`Job::attempts`].
    #[must_use]
    pub fn attempts_dropped(&self) -> u64 {
        let ended = self.fence - u64::from(self.state == State::Running && self.fence > 0);
        ended.saturating_sub(self.attempts.len() as u64)
    }
}

/// What the submitter fixed. Stored as versioned JSON; `tests/it/compat` holds every shape ever written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Version of this shape: [`Spec::VERSION`].
    pub v: u8,
    /// Input of the handler, as the client wrote it.
    pub payload: Box<RawValue>,
    /// Attempts it may spend before it becomes a dead letter.
    pub max_attempts: u32,
    /// Longest run in milliseconds.
    pub timeout_ms: u64,
    /// Delay between attempts.
    pub backoff: Backoff,
    /// Labels to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The request that submitted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// W3C trace context of the request that submitted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

impl Spec {
    /// The version written today.
    pub const VERSION: u8 = 1;

    /// Longest run.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// How far a run got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub current: u64,
    /// Steps in all.
    pub total: u64,
    /// What it is doing, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What it has found so far, if its kind reports that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<serde_json::Value>,
}

impl Progress {
    /// Steps done in percent of all, 0 to 100, to one decimal.
    #[must_use]
    pub fn percent(&self) -> f64 {
        if self.total == 0 {
            return 0.0;
        }
        // Integer arithmetic up to the last step: a percentage has no use for 2^53 and more.
        let tenths = u128::from(self.current.min(self.total)) * 1000 / u128::from(self.total);
        f64::from(u32::try_from(tenths).unwrap_or(1000)) / 10.0
    }
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// A stable word for programs, such as `timed_out` or what the handler chose.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

impl JobError {
    /// Longest message kept, in bytes; a longer one is cut and says so.
    pub const MESSAGE_MAX: usize = 8 * 1024;

    /// Pairs a code with a sentence.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        if message.len() > Self::MESSAGE_MAX {
            let full = message.len();
            let cut = (0..=Self::MESSAGE_MAX).rev().find(|i| message.is_char_boundary(*i)).unwrap_or(0);
            message.truncate(cut);
            message.push_str(&format!(" … (cut, {full} bytes in all)"));
        }
        Self { code: code.into(), message }
    }
}

/// One run that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number, from 1; equals the fence it held.
    #[serde(rename = "n")]
    pub run: u64,
    /// Who ran it.
    #[serde(rename = "w")]
    pub worker: WorkerId,
    /// When it began.
    #[serde(rename = "s", with = "millis")]
    pub started_at: Timestamp,
    /// When it ended or was given up.
    #[serde(rename = "f", with = "millis")]
    pub finished_at: Timestamp,
    /// How it ended.
    #[serde(rename = "o")]
    pub outcome: AttemptOutcome,
    /// Why, if not well.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub error: Option<JobError>,
    /// When the job is to run again because of it.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none", with = "opt_millis")]
    pub retry_at: Option<Timestamp>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// The handler returned its result.
    Succeeded,
    /// The handler returned an error.
    Failed,
    /// It ran longer than the job's time-out.
    TimedOut,
    /// The handler panicked.
    Panicked,
    /// The handler asked to be run later.
    Snoozed,
    /// It was asked to stop and did, or the handler cancelled the job.
    Cancelled,
    /// The worker gave the job back: it shut down, or no slot came free.
    Released,
    /// The worker died or went silent: its lease ran out.
    Lost,
}

impl AttemptOutcome {
    /// As written in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Panicked => "panicked",
            Self::Snoozed => "snoozed",
            Self::Cancelled => "cancelled",
            Self::Released => "released",
            Self::Lost => "lost",
        }
    }
}

mod millis {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::base::clock::Timestamp;

    pub(super) fn serialize<S: Serializer>(t: &Timestamp, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_i64(t.as_millis())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(d).map(Timestamp::from_millis)
    }
}

mod opt_millis {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::base::clock::Timestamp;

    #[allow(clippy::ref_option, reason = "serde's `with` fixes the signature")]
    pub(super) fn serialize<S: Serializer>(t: &Option<Timestamp>, s: S) -> Result<S::Ok, S::Error> {
        match t {
            Some(t) => s.serialize_some(&t.as_millis()),
            None => s.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<i64>::deserialize(d)?.map(Timestamp::from_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_bounded_and_survives_huge_numbers() {
        let p = |current, total| Progress { current, total, message: None, partial: None }.percent();
        assert_eq!([p(0, 0), p(1, 3), p(3, 3), p(9, 3), p(u64::MAX, u64::MAX)], [0.0, 33.3, 100.0, 100.0, 100.0]);
    }

    #[test]
    fn a_long_message_is_cut_on_a_character_and_says_so() {
        let e = JobError::new("x", "ü".repeat(10_000));
        assert!(e.message.len() < JobError::MESSAGE_MAX + 64);
        assert!(e.message.ends_with("(cut, 20000 bytes in all)"));
    }
}
