//! Who may call, as checked values: apart from the other sections because one of its values must never be shown.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::units;
use crate::base::secret::Secret;

/// Least bytes of a key that signs tokens: what HS256 needs to be worth its name.
pub(super) const KEY_MIN_BYTES: usize = 32;
/// What stands in the place of a secret.
const MASK: &str = "***";

/// Who may call.
#[derive(Clone, Debug, Serialize)]
pub struct Auth {
    /// The rule.
    pub mode: AuthMode,
    /// Who makes tokens.
    pub issuer: String,
    /// Whom tokens are for.
    pub audience: String,
    /// How long a token is good.
    #[serde(serialize_with = "units::duration")]
    pub token_ttl: Duration,
    /// What tokens are signed with, the newest first. None: each process makes a key for itself.
    pub jwt_keys: Vec<JwtKey>,
    /// Who may make users.
    pub registration: Registration,
    /// Attempts to log in that one e-mail address has at once.
    pub login_burst: u32,
    /// After that, one in this time.
    #[serde(serialize_with = "units::duration")]
    pub login_every: Duration,
    /// The header in which a proxy tells a client's address; none if clients connect directly.
    pub client_header: String,
}

/// A key that signs tokens, and the name by which tokens refer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtKey {
    /// Its name.
    pub kid: String,
    /// The key; [`std::fmt::Debug`] and [`Serialize`] mask it.
    pub secret: Secret,
}

impl Serialize for JwtKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{}:{MASK}", self.kid))
    }
}

impl JwtKey {
    /// Reads `NAME:SECRET`. What is wrong is told without quoting it.
    ///
    /// # Errors
    /// The rest of a sentence that begins with the key of the setting.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (kid, secret) = text.split_once(':').ok_or("must hold entries such as `NAME:SECRET`, the newest first")?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if !(1..=64).contains(&kid.len()) || !kid.bytes().all(plain) {
            return Err("has an entry whose name is not 1 to 64 letters, digits, `.`, `_` or `-`".to_owned());
        }
        if secret.len() < KEY_MIN_BYTES {
            return Err(format!(
                "has an entry `{kid}` whose secret is shorter than {KEY_MIN_BYTES} bytes; make one with \
                 `openssl rand -base64 48`"
            ));
        }
        Ok(Self { kid: kid.to_owned(), secret: Secret::new(secret) })
    }
}

/// Who may call the HTTP API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Anyone on this host; listening on any other address is refused.
    Loopback,
    /// Anyone who reaches the address.
    Open,
    /// Whoever shows a token or an API key.
    Required,
}

/// Who may make users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Everybody, of themselves.
    Open,
    /// Administrators.
    Admin,
}
