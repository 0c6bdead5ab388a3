//! The closed list of what can go wrong, seen from a caller.
//!
//! Each room has its own error type and maps it to one [`Kind`]; only `http::problem` turns a kind into a status.

/// What sort of failure an error is; decides status codes, exit codes and whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is wrong and stays wrong; the message names the field.
    Invalid,
    /// The thing named does not exist.
    NotFound,
    /// The request contradicts the present state of the thing named.
    Conflict,
    /// The request, payload or result is over a limit.
    TooLarge,
    /// It is not known who asks, or what proves it is wrong.
    Unauthorized,
    /// Who asks is known, and may not.
    Forbidden,
    /// Whoever asks does so too often; after a pause the same request may succeed.
    TooMany,
    /// The system sheds load or a backend is away; the same request may succeed later.
    Unavailable,
    /// A defect or an environment fault that the caller cannot mend.
    Internal,
}

/// One field of a request that is wrong, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Path of the field as the client wrote it, such as `jobs[3].priority`.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub message: String,
}

impl FieldError {
    /// Pairs a field with what is wrong with it.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }

    /// The same fault seen from an enclosing object: `priority` becomes `jobs[3].priority`.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        self.field = match self.field.as_str() {
            "" => prefix.to_owned(),
            f if f.starts_with('[') => format!("{prefix}{f}"),
            f => format!("{prefix}.{f}"),
        };
        self
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.field.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.field, self.message) }
    }
}
