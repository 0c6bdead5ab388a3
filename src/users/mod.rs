//! Users: who they are, what they may do, and how they want to be told things.
//!
//! People prove who they are with a password and then with a token, programs with an API key; both become a
//! [`Caller`], and [`access`] alone knows what a caller may do. The room does not know HTTP, nor which store holds the
//! records.

pub mod access;
pub mod check;
mod contacts;
mod devices;
pub mod error;
mod key;
mod keys;
pub mod model;
mod password;
pub mod preferences;
mod quiet;
pub mod service;
mod shelf;
mod sign_in;
#[cfg(test)]
mod tests;
mod token;

pub use access::{Caller, Need, Right, Scope};
pub use check::{EMAIL_MAX, FCM_TOKEN_MAX, LOCALE_MAX, NAME_MAX, URL_MAX};
pub use contacts::NewPushToken;
pub use error::{Refusal, UserError};
pub use key::{ApiKey, NewKey};
pub use model::{Endpoint, NewUser, PushKind, PushToken, Role, User, UserPatch};
pub use password::{PASSWORD_MAX_BYTES, PASSWORD_MIN_CHARS};
pub use preferences::{Channel, Preferences, QuietHours, Rule};
pub use service::{AdminMade, Users, check_admin};
pub use sign_in::{Proof, SignedIn};
