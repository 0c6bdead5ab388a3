//! What every store port can answer when it fails, whatever server stands behind it.
//!
//! One type for all rooms, so that an adapter translates its server's errors in one place and callers decide by kind.

use crate::base::error::Kind;

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store is away, overloaded or shutting down; the same call may succeed later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// What is stored cannot be read as what it should be.
    #[error("stored data is corrupt: {0}")]
    Corrupt(String),
    /// The store refused for a reason that neither the caller nor time can mend.
    #[error("the store failed: {0}")]
    Internal(String),
}

impl StoreError {
    /// What sort of failure this is for a caller.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Unavailable(_) => Kind::Unavailable,
            Self::Corrupt(_) | Self::Internal(_) => Kind::Internal,
        }
    }
}
