//! Other sides that fail on demand: a mail relay and an HTTP server, each a few lines over TCP.

mod http;
mod smtp;

pub(crate) use self::{
    http::{HttpFake, Reply, Request},
    smtp::{Act, SmtpFake},
};

/// A port of loopback where nobody listens.
pub(crate) fn nobody() -> u16 {
    crate::support::process::free_port()
}
