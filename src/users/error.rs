//! What can go wrong with users and with proving who one is, and which [`Kind`] each case is.

use std::time::Duration;

use crate::base::{
    error::{FieldError, Kind},
    store::StoreError,
};

/// Why an operation on users was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// One or more fields are wrong.
    #[error("the request is invalid: {}", .0.first().map(ToString::to_string).unwrap_or_default())]
    Invalid(Vec<FieldError>),
    /// Nothing has this id; the sentence says what was looked for.
    #[error("{0}")]
    NotFound(String),
    /// Another user has this e-mail address.
    #[error("another user has this e-mail address")]
    EmailTaken,
    /// Other writers changed the user each time this one tried.
    #[error("this is being changed by others; try again")]
    Contended,
    /// The user has as many as one may have.
    #[error("the user has {max} {what}, more are not allowed; remove one first")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many one may have.
        max: usize,
    },
    /// Nothing proves who asks: no token or key, or a wrong one.
    #[error("{0}")]
    Unauthorized(Refusal),
    /// Who asks is known, and may not.
    #[error("{0}")]
    Forbidden(&'static str),
    /// Too many attempts.
    #[error("too many attempts; wait and try again")]
    TooMany {
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// More passwords are to be checked than this process can.
    #[error("too many sign-ins at once; try again")]
    Busy,
    /// The store did not answer as it should.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A defect or an environment fault; the text is for the log.
    #[error("{0}")]
    Internal(String),
}

/// Why a caller's proof does not hold. Says no more than a caller may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is none.
    #[error("say who you are: send `Authorization: Bearer …` with a token or an API key, or `X-API-Key`")]
    Missing,
    /// It is not one of ours, or nobody has it any more.
    #[error("the token or API key is not valid")]
    Invalid,
    /// It was right once.
    #[error("the token has expired; log in again")]
    Expired,
    /// Sign-in: which of the two is wrong stays open.
    #[error("the e-mail address or the password is wrong")]
    Credentials,
}

impl UserError {
    /// What sort of failure this is for a caller.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::Invalid,
            Self::NotFound(_) => Kind::NotFound,
            Self::EmailTaken | Self::Contended | Self::Full { .. } => Kind::Conflict,
            Self::Unauthorized(_) => Kind::Unauthorized,
            Self::Forbidden(_) => Kind::Forbidden,
            Self::TooMany { .. } => Kind::TooMany,
            Self::Busy => Kind::Unavailable,
            Self::Store(e) => e.kind(),
            Self::Internal(_) => Kind::Internal,
        }
    }

    /// One field is wrong.
    pub(super) fn field(field: &str, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(field, message)])
    }
}
