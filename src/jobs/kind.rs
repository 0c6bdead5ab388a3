//! How to write a job kind: one payload type, a few constants, one `run`.
//!
//! ```
//! use app::jobs::{context::JobContext, kind::{JobKind, Outcome}};
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! struct Greet { name: String }
//!
//! struct Greeter;
//!
//! impl JobKind for Greeter {
//!     const NAME: &'static str = "greet";
//!     type Payload = Greet;
//!     async fn run(&self, _ctx: JobContext, payload: Greet) -> Outcome {
//!         Outcome::done(&format!("hello, {}", payload.name))
//!     }
//! }
//! ```

use std::{future::Future, time::Duration};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{authority::KindRight, context::JobContext, model::JobError};
use crate::base::{backoff::Backoff, id::Priority};

/// How a handler ended. There are no magic errors: what the handler means is what it returns.
#[derive(Debug)]
pub enum Outcome {
    /// Done, with a result for whoever asks.
    Done(Option<Box<RawValue>>),
    /// It failed; trying again may help. Spends an attempt.
    Retry(JobError),
    /// It failed; trying again cannot help. The job becomes a dead letter.
    Fail(JobError),
    /// It failed; trying again after this long may help: whoever is asked said so. Spends an attempt.
    RetryAfter(JobError, Duration),
    /// Not now: run it again after this long. Spends no attempt.
    Snooze(Duration),
    /// Not now, because of this: run it again after this long. Spends no attempt.
    Postpone(JobError, Duration),
    /// The job should not go on, or was asked to stop and did.
    Cancel,
}

impl Outcome {
    /// Done with `result`; a result that is no JSON fails the job for good.
    pub fn done<T: Serialize + ?Sized>(result: &T) -> Self {
        match serde_json::value::to_raw_value(result) {
            Ok(raw) => Self::Done(Some(raw)),
            Err(e) => Self::Fail(JobError::new("result_not_json", e.to_string())),
        }
    }
}

/// What holds for a kind's jobs unless a job says otherwise. What is none comes from the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct KindOptions {
    /// One line for people.
    pub description: &'static str,
    /// Where its jobs wait; `default` if none.
    pub queue: Option<&'static str>,
    /// How urgent they are; medium if none.
    pub priority: Option<Priority>,
    /// Attempts they may spend.
    pub max_attempts: Option<u32>,
    /// Delay between attempts.
    pub backoff: Option<Backoff>,
    /// Longest run.
    pub timeout: Option<Duration>,
    /// A payload that works, as JSON, for the documentation.
    pub example: &'static str,
    /// Only this program submits such jobs: clients have another way to ask for them.
    pub internal: bool,
    /// What its jobs ask of those who act on them.
    pub right: KindRight,
}

/// Code that runs jobs of one kind.
pub trait JobKind: Send + Sync + 'static {
    /// The kind's name, as in `POST /api/v1/jobs`.
    const NAME: &'static str;

    /// What the payload must look like; its JSON Schema is checked when a job is submitted.
    type Payload: DeserializeOwned + JsonSchema + Send;

    /// What holds for jobs of this kind.
    fn options(&self) -> KindOptions {
        KindOptions::default()
    }

    /// Runs one job. It may run again after a crash at any point: be idempotent, with the job's id as the key.
    fn run(&self, ctx: JobContext, payload: Self::Payload) -> impl Future<Output = Outcome> + Send;
}

/// A kind with its types erased, as the registry and the worker hold it. Kinds that come from the configuration
/// implement it directly.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Whether a payload that fits the schema can be run.
    ///
    /// # Errors
    /// A sentence that says why not.
    fn check(&self, payload: &RawValue) -> Result<(), String>;

    /// Runs one job from its payload as it was submitted.
    async fn run(&self, ctx: JobContext, payload: &RawValue) -> Outcome;
}

/// Erases the types of a [`JobKind`].
pub(super) struct Typed<K>(pub(super) K);

#[async_trait]
impl<K: JobKind> Handler for Typed<K> {
    fn check(&self, payload: &RawValue) -> Result<(), String> {
        serde_json::from_str::<K::Payload>(payload.get()).map(drop).map_err(|e| format!("does not fit: {e}"))
    }

    async fn run(&self, ctx: JobContext, payload: &RawValue) -> Outcome {
        match serde_json::from_str(payload.get()) {
            Ok(p) => self.0.run(ctx, p).await,
            // Checked at submission, so only an older shape in the store or an edit gets here: it cannot mend itself.
            Err(e) => Outcome::Fail(JobError::new("invalid_payload", e.to_string())),
        }
    }
}
