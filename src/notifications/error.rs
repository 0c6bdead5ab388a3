//! What can go wrong when someone asks something of notifications.

use crate::{
    base::{
        error::{FieldError, Kind},
        store::StoreError,
    },
    jobs::error::JobsError,
    users::error::UserError,
};

/// Why a request was not carried out. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum NotificationError {
    /// The request is wrong; each fault names its field.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<FieldError>),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The present state does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// The job queue refused.
    #[error(transparent)]
    Jobs(#[from] JobsError),
    /// The users room refused.
    #[error(transparent)]
    Users(#[from] UserError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl NotificationError {
    /// One wrong field.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(field, message)])
    }

    /// The closed kind of this error.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::Invalid,
            Self::NotFound(_) => Kind::NotFound,
            Self::Conflict(_) => Kind::Conflict,
            Self::Jobs(e) => e.kind(),
            Self::Users(e) => e.kind(),
            Self::Store(e) => e.kind(),
        }
    }
}
