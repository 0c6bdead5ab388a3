//! Ground floor: the vocabulary that every room shares and that knows nothing of any of them.
//!
//! Nothing here does I/O but [`shutdown`] (signals), [`zone`] (the host's files, if the configuration wants them) and
//! [`failpoint`] (which exists in test builds only).

pub mod backoff;
pub mod clock;
pub mod error;
pub mod failpoint;
pub mod id;
pub mod merge;
pub mod page;
pub mod probe;
pub mod secret;
pub mod seldom;
pub mod shutdown;
pub mod store;
pub mod zone;
