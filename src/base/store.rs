//! What any store port can answer when it cannot do what it was asked.

use crate::base::error::Kind;

/// Why a store did not do what it was asked; nothing was written unless the port's contract says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or is shutting down; the same call may succeed later.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// Something stored cannot be read back.
    #[error("the store holds something unreadable: {0}")]
    Corrupt(String),
    /// Any other failure of the store itself.
    #[error("the store failed: {0}")]
    Internal(String),
}

impl StoreError {
    /// The closed kind of this error.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unavailable(_) => Kind::Unavailable,
            Self::Corrupt(_) | Self::Internal(_) => Kind::Internal,
        }
    }
}
