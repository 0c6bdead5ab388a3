//! What a notification is: the payload of its job, and what its job's state means to people.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

pub use crate::users::preferences::Channel;
use crate::{
    base::{clock::Timestamp, id::UserId},
    jobs::{
        model::{AttemptOutcome, Job},
        state::State,
    },
};

/// Begins the kind of every job that is a notification.
pub const KIND_PREFIX: &str = "notification.";
/// The tag that every notification has, to be listed by.
pub const TAG: &str = "notification";
/// Longest category, template code or rule name.
pub const NAME_MAX: usize = 64;

/// The kind of a channel's jobs.
#[must_use]
pub fn kind_of(channel: Channel) -> String {
    format!("{KIND_PREFIX}{}", channel.as_str())
}

/// The channel that jobs of this kind go by, if they are notifications.
#[must_use]
pub fn channel_of(kind: &str) -> Option<Channel> {
    let name = kind.strip_prefix(KIND_PREFIX)?;
    Channel::ALL.into_iter().find(|c| c.as_str() == name)
}

/// Who gets a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum To {
    /// A user, at the addresses that are known of them when it is sent.
    #[serde(rename = "user_id")]
    User(#[schemars(with = "String")] UserId),
    /// A mailbox of nobody in particular.
    #[serde(rename = "email")]
    Email(String),
    /// The log.
    #[serde(rename = "console")]
    Console(bool),
}

/// The version of a template that a notification was accepted with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Frozen {
    /// Its code.
    pub code: String,
    /// The language that was found.
    pub locale: String,
    /// Its version in that language; 0 for one that comes with the program.
    pub version: u64,
}

/// The payload of a notification's job. Stored, so versioned; `tests/it/compat` holds every shape ever written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Payload {
    /// Version of this shape: [`Payload::VERSION`].
    pub v: u8,
    /// Who gets it.
    pub to: To,
    /// One of a user's several push tokens or webhook endpoints: then only that one gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub endpoint: Option<Uuid>,
    /// The notification that this one is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub parent: Option<Uuid>,
    /// What it says.
    pub template: Frozen,
    /// The languages that were looked for, in order.
    #[serde(default)]
    pub locales: Vec<String>,
    /// What is put into the template.
    #[serde(default)]
    pub variables: Map<String, Value>,
    /// What sort of message it is, for the recipient's preferences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// The caller's key for the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Not before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub send_at: Option<Timestamp>,
}

impl Payload {
    /// The version written today.
    pub const VERSION: u8 = 1;
}

/// Where a notification is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It will be sent as soon as a worker is free.
    Queued,
    /// It waits for its time.
    Scheduled,
    /// It waits because of quiet hours, a rate limit or an open breaker.
    Postponed,
    /// It failed and will be tried again.
    Retrying,
    /// It is being sent.
    Sending,
    /// The provider has taken it.
    Delivered,
    /// It was split into one notification for each address.
    Expanded,
    /// It was not sent, because the recipient does not want it or cannot have it.
    Skipped,
    /// It will not be sent: see its error.
    Failed,
    /// Someone cancelled it.
    Cancelled,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 10] = [
        Self::Queued,
        Self::Scheduled,
        Self::Postponed,
        Self::Retrying,
        Self::Sending,
        Self::Delivered,
        Self::Expanded,
        Self::Skipped,
        Self::Failed,
        Self::Cancelled,
    ];

    /// As written in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Scheduled => "scheduled",
            Self::Postponed => "postponed",
            Self::Retrying => "retrying",
            Self::Sending => "sending",
            Self::Delivered => "delivered",
            Self::Expanded => "expanded",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// What the state of its job means.
    #[must_use]
    pub fn of(job: &Job, report: Option<&Report>) -> Self {
        match job.state {
            State::Queued => Self::Queued,
            State::Running => Self::Sending,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
            State::Succeeded => report.map_or(Self::Delivered, |r| match r.status {
                Ended::Delivered => Self::Delivered,
                Ended::Skipped => Self::Skipped,
                Ended::Expanded => Self::Expanded,
            }),
            State::Scheduled => match job.attempts.last().map(|a| a.outcome) {
                Some(AttemptOutcome::Snoozed) => Self::Postponed,
                Some(_) => Self::Retrying,
                None => Self::Scheduled,
            },
        }
    }

    /// The state that a job in this status has, for lists.
    #[must_use]
    pub const fn state(self) -> State {
        match self {
            Self::Queued => State::Queued,
            Self::Scheduled | Self::Postponed | Self::Retrying => State::Scheduled,
            Self::Sending => State::Running,
            Self::Delivered | Self::Expanded | Self::Skipped => State::Succeeded,
            Self::Failed => State::Failed,
            Self::Cancelled => State::Cancelled,
        }
    }
}

/// How a notification ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The provider has taken it.
    Delivered,
    /// It was not to be sent.
    Skipped,
    /// It was split.
    Expanded,
}

/// One decision on the way of a notification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What was looked at: `recipient`, `preference`, `suppression`, `quiet_hours`, `template`, `rate_limit`, `breaker`.
    pub step: String,
    /// `pass`, `stop` or `wait`.
    pub outcome: String,
    /// Why, for people.
    pub detail: String,
}

/// The result of a notification's job. Stored, so versioned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this shape: [`Report::VERSION`].
    pub v: u8,
    /// How it ended.
    pub status: Ended,
    /// Why it was not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The provider's id for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// What the provider answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The notifications it was split into.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Uuid>,
    /// The decisions at the last run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

impl Report {
    /// The version written today.
    pub const VERSION: u8 = 1;
}

/// A notification as the service tells of it.
#[derive(Clone, Debug)]
pub struct Notification {
    /// Its job.
    pub job: Job,
    /// Its payload.
    pub payload: Payload,
    /// How it goes by.
    pub channel: Channel,
    /// What came of it.
    pub report: Option<Report>,
}

impl Notification {
    /// The notification that this job is; none if it is no notification.
    #[must_use]
    pub fn of(job: Job) -> Option<Self> {
        let channel = channel_of(job.kind.as_str())?;
        let payload = serde_json::from_str(job.spec.payload.get()).ok()?;
        let report = job.result.as_ref().and_then(|r| serde_json::from_str(r.get()).ok());
        Some(Self { job, payload, channel, report })
    }

    /// Where it is in its life.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::of(&self.job, self.report.as_ref())
    }

    /// When it is to be sent, if that is not now.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        (self.job.state == State::Scheduled).then_some(self.job.at)
    }
}

/// Checks a word that names something: a category, a template, a rule.
///
/// # Errors
/// A sentence that says what is right.
pub fn check_name(name: &str) -> Result<(), String> {
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(ok) || name.starts_with(['-', '.']) {
        return Err(format!(
            "must be 1 to {NAME_MAX} characters from a-z, 0-9, `_`, `-` and `.`, not starting with `-` or `.`"
        ));
    }
    Ok(())
}
