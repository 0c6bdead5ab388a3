//! Configuration: from five layers of text to one checked value.
//!
//! It is plain data, so that every room can take its own section without knowing the others. [`settings`] is what
//! people write, [`resolve`] turns it into the [`Config`] that the program uses, [`mod@load`] stacks the layers, and
//! [`show`] prints the outcome without its secrets. Every fault is one sentence that names the layer, the key and what
//! would be right, because it is read by someone whose server does not start.

mod auth;
pub mod channels;
mod http;
mod keys;
pub mod load;
pub mod model;
pub mod resolve;
mod rules;
pub mod settings;
pub mod show;
mod time;
pub mod units;

pub use auth::{Auth, AuthMode, JwtKey, Registration};
pub use channels::{Email, Network, Notifications, Push, SmtpTls, Webhook};
pub use http::{Http, Probe};
pub use load::{Sources, load};
pub use model::*;
pub use time::{Time, ZoneSource};

/// What is wrong with the configuration, in one sentence for the person who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub(crate) String);

/// The bottom layer: every key with its default, as shipped.
pub const DEFAULT_TOML: &str = include_str!("../../config/default.toml");
