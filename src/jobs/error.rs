//! What can go wrong when someone asks something of the job queue.

use std::time::Duration;

use super::store::StoreError;
use crate::base::{
    error::{FieldError, Kind},
    id::QueueName,
};

/// Why a request to the job queue was not carried out. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// The request is wrong; each fault names its field.
    #[error("{}", join(.0))]
    Invalid(Vec<FieldError>),
    /// The payload is over the limit.
    #[error("{field} is {size} bytes, the limit (jobs.max_payload) is {limit}")]
    TooLarge {
        /// Path of the payload.
        field: String,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The caller may not do this with jobs of this kind.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The present state does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// The queue is at its limit: the load is shed.
    #[error("queue `{queue}` holds {depth} jobs and its limit is {limit}; try again later")]
    QueueFull {
        /// The queue.
        queue: QueueName,
        /// Jobs that wait in it.
        depth: u64,
        /// Its limit.
        limit: u64,
        /// When to try again.
        retry_after: Duration,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker failed.
    #[error(transparent)]
    Broker(#[from] crate::broker::BrokerError),
}

fn join(faults: &[FieldError]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl JobsError {
    /// One wrong field.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(field, message)])
    }

    /// The closed kind of this error.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::Invalid,
            Self::TooLarge { .. } => Kind::TooLarge,
            Self::Forbidden(_) => Kind::Forbidden,
            Self::NotFound(_) => Kind::NotFound,
            Self::Conflict(_) => Kind::Conflict,
            Self::QueueFull { .. } => Kind::Unavailable,
            Self::Store(e) => e.kind(),
            Self::Broker(e) => e.kind(),
        }
    }
}
