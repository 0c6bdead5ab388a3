//! What happened: facts that other parts of the system may want to hear of.
//!
//! An event is written in one atomic step with the change that it tells of, as a job of kind [`KIND`] in the queue
//! [`QUEUE`]. So there is no event without its change and no change without its event, and from then on the job queue does
//! what it does for every job: wakes it through the broker, repeats a lost wake-up, runs it at least once, and keeps its
//! history. There is no second relay. Who makes events knows nothing of who hears them.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::base::clock::{Clock, Timestamp};

/// The job kind as which events travel.
pub const KIND: &str = "event";
/// The queue in which they wait.
pub const QUEUE: &str = "events";

/// Every name that an event can have. Rules are checked against it.
pub const NAMES: [&str; 8] = [
    "item.created",
    "item.updated",
    "item.deleted",
    "job.finished",
    "job.failed",
    "user.registered",
    "breaker.opened",
    "breaker.closed",
];

/// Something that happened. Stored as the payload of its job, versioned; `tests/it/compat` holds every shape ever written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Version of this shape: [`Event::VERSION`].
    pub v: u8,
    /// Its id, and that of its job.
    pub id: Uuid,
    /// What happened; one of [`NAMES`].
    pub name: String,
    /// When.
    pub at: Timestamp,
    /// Id of what it happened to.
    pub subject: String,
    /// What a listener may want to know of it, as it was then. No secrets.
    pub data: Value,
    /// The request that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
}

impl Event {
    /// The version written today.
    pub const VERSION: u8 = 1;

    /// An event that happens now.
    #[must_use]
    pub fn new(clock: &Clock, name: &'static str, subject: impl Into<String>, data: Value) -> Self {
        let (id, at) = (clock.new_uuid(), clock.now());
        Self { v: Self::VERSION, id, name: name.to_owned(), at, subject: subject.into(), data, correlation_id: None }
    }

    /// The same, caused by this request.
    #[must_use]
    pub fn caused_by(mut self, correlation_id: Option<String>) -> Self {
        self.correlation_id = correlation_id;
        self
    }
}

/// Says that events were written, so that they are looked at now and not at the next pass of the scheduler.
#[async_trait]
pub trait Bell: Send + Sync {
    /// Wakes who delivers these events. Never fails: what is not woken is found by the scheduler.
    async fn ring(&self, events: &[Event]);
}
