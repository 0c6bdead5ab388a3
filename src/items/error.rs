//! What can go wrong with items, and which [`Kind`] each case is.

use crate::base::{
    error::{FieldError, Kind},
    id::ItemId,
    store::StoreError,
};

/// Why an operation on items was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum ItemError {
    /// One or more fields are wrong.
    #[error("the item is invalid: {}", .0.first().map(ToString::to_string).unwrap_or_default())]
    Invalid(Vec<FieldError>),
    /// No item has this id.
    #[error("there is no item {0}")]
    NotFound(ItemId),
    /// Other writers changed the item each time this one tried.
    #[error("item {0} is being changed by others; try again")]
    Contended(ItemId),
    /// The store did not answer as it should.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ItemError {
    /// What sort of failure this is for a caller.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::Invalid,
            Self::NotFound(_) => Kind::NotFound,
            Self::Contended(_) => Kind::Conflict,
            Self::Store(e) => e.kind(),
        }
    }
}
