//! What can go wrong with MongoDB, and what it means to a caller.

use ::mongodb::error::{Error, ErrorKind, WriteFailure};

use super::CALL_TIMEOUT;
use crate::base::store::StoreError;

/// Why a command or what it read is no good.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Mongo(Box<Error>),
    /// A command was answered, but parts of it failed: code and text of the first.
    Write(i32, String),
    Corrupt(String),
    /// This database or server must not be used, or cannot do what was asked; waiting does not help.
    Unfit(String),
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Self::Mongo(Box::new(e))
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mongo(e) => f.write_str(&sentence(e)),
            Self::Write(code, message) => write!(f, "MongoDB: {message} ({code})"),
            Self::Corrupt(what) | Self::Unfit(what) => f.write_str(what),
        }
    }
}

pub(super) fn corrupt(what: &str, e: impl std::fmt::Display) -> Fault {
    Fault::Corrupt(format!("{what}: {e}"))
}

/// The error as one sentence, without the driver's debug output. It names servers, never credentials.
pub(super) fn sentence(e: &Error) -> String {
    match e.kind.as_ref() {
        ErrorKind::Authentication { .. } => "MongoDB refuses the user name or password of store.url".to_owned(),
        ErrorKind::ServerSelection { .. } => {
            "MongoDB cannot be reached: no server that takes writes was found".to_owned()
        }
        ErrorKind::Command(c) => format!("MongoDB: {} ({} {})", c.message, c.code, c.code_name),
        ErrorKind::Io(e) => format!("the connection to MongoDB failed: {e}"),
        ErrorKind::InvalidArgument { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

/// `DuplicateKey`.
pub(super) const DUPLICATE: i32 = 11_000;
/// `MaxTimeMSExpired`: what was done is not known.
pub(super) const NO_ANSWER: i32 = 50;
/// `AuthenticationFailed`, `Unauthorized`.
const REFUSED: [i32; 2] = [18, 13];
/// Server states that pass: elections, shut-downs, lost members, time limits, a full disk.
const PASSING: [i32; 23] = [
    6, 7, 50, 64, 79, 89, 91, 100, 112, 133, 134, 189, 251, 262, 317, 358, 9001, 10_058, 10_107, 11_600, 11_602,
    13_435, 13_436,
];
const FULL: [i32; 2] = [14_031, 39];

impl Fault {
    pub(super) fn code(&self) -> Option<i32> {
        match self {
            Self::Write(code, _) => Some(*code),
            Self::Corrupt(_) | Self::Unfit(_) => None,
            Self::Mongo(e) => match e.kind.as_ref() {
                ErrorKind::Command(c) => Some(c.code),
                ErrorKind::Write(WriteFailure::WriteError(w)) => Some(w.code),
                ErrorKind::Write(WriteFailure::WriteConcernError(w)) => Some(w.code),
                ErrorKind::InsertMany(m) => m
                    .write_errors
                    .as_ref()
                    .and_then(|all| all.first())
                    .map(|w| w.code)
                    .or(m.write_concern_error.as_ref().map(|w| w.code)),
                _ => None,
            },
        }
    }

    /// Whether the server does not let this program in, or this program must not use it.
    pub(super) fn is_refusal(&self) -> bool {
        let authentication =
            matches!(self, Self::Mongo(e) if matches!(e.kind.as_ref(), ErrorKind::Authentication { .. }));
        authentication || matches!(self, Self::Unfit(_)) || self.code().is_some_and(|c| REFUSED.contains(&c))
    }

    /// Whether a transaction that ended so may be tried again as a whole.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Mongo(e) if e.contains_label("TransientTransactionError"))
    }

    /// Whether nobody knows if the command was done.
    pub(super) fn is_unknown(&self) -> bool {
        match self {
            Self::Mongo(e) => {
                e.contains_label("UnknownTransactionCommitResult")
                    || matches!(e.kind.as_ref(), ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. })
                    || self.code().is_some_and(|c| PASSING.contains(&c))
            }
            Self::Write(code, _) => PASSING.contains(code),
            Self::Corrupt(_) | Self::Unfit(_) => false,
        }
    }

    fn passes(&self) -> bool {
        if self.code().is_some_and(|c| PASSING.contains(&c) || REFUSED.contains(&c)) || self.is_transient() {
            return true;
        }
        matches!(self, Self::Mongo(e) if matches!(
            e.kind.as_ref(),
            ErrorKind::Io(_)
                | ErrorKind::ServerSelection { .. }
                | ErrorKind::ConnectionPoolCleared { .. }
                | ErrorKind::DnsResolve { .. }
                | ErrorKind::Authentication { .. }
                | ErrorKind::Shutdown
        ))
    }
}

impl From<Fault> for StoreError {
    fn from(f: Fault) -> Self {
        let text = f.to_string();
        if f.code().is_some_and(|c| FULL.contains(&c)) {
            return Self::Unavailable("the disk of MongoDB is full: free some space".into());
        }
        match f {
            Fault::Corrupt(what) => Self::Corrupt(what),
            Fault::Mongo(e)
                if matches!(e.kind.as_ref(), ErrorKind::BsonDeserialization(_) | ErrorKind::InvalidResponse { .. }) =>
            {
                Self::Corrupt(text)
            }
            f if f.passes() => Self::Unavailable(text),
            _ => Self::Internal(text),
        }
    }
}

/// Bounds one command. Nobody knows what one did that was not answered in time.
pub(super) async fn bounded<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    match tokio::time::timeout(CALL_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => Err(Fault::Write(NO_ANSWER, format!("no answer within {CALL_TIMEOUT:?}"))),
    }
}
