//! What a user is reached by besides a mailbox: devices, browsers, and servers of the user's own.
//!
//! They hold secrets that messages are sent with: these are written to the store and the cache, and shown by nothing else.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::check;
use crate::base::{
    clock::Timestamp,
    error::FieldError,
    id::ContactId,
    secret::{Origin, Secret},
};

/// Most push tokens of one user.
pub const PUSH_TOKENS_MAX: usize = 20;
/// Most webhook endpoints of one user.
pub const ENDPOINTS_MAX: usize = 10;
/// Secrets that an endpoint has at most: the new one, and the old one until the next rotation.
const ENDPOINT_SECRETS_MAX: usize = 2;
/// Random bytes in an endpoint's secret.
const ENDPOINT_SECRET_BYTES: usize = 32;

/// Where one device or browser is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PushToken {
    /// Names it.
    pub id: ContactId,
    /// How it is reached.
    #[serde(flatten)]
    pub kind: PushKind,
    /// What its owner calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// When it was added.
    pub created_at: Timestamp,
}

/// How a device or browser is reached.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PushKind {
    /// By Firebase Cloud Messaging.
    Fcm {
        /// Its registration token.
        #[serde(with = "kept")]
        token: Secret,
    },
    /// By a browser's push service (RFC 8030).
    WebPush {
        /// Where that takes messages.
        endpoint: String,
        /// The browser's public key, base64url without padding.
        p256dh: String,
        /// The browser's authentication secret, base64url without padding.
        #[serde(with = "kept")]
        auth: Secret,
    },
}

/// Whoever knows where a browser is reached can send to it.
impl fmt::Debug for PushKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fcm { token } => f.debug_tuple("Fcm").field(token).finish(),
            Self::WebPush { endpoint, .. } => f.debug_tuple("WebPush").field(&Origin(endpoint)).finish(),
        }
    }
}

impl PushKind {
    /// Its name.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Fcm { .. } => "fcm",
            Self::WebPush { .. } => "web_push",
        }
    }

    /// The same in the one spelling that is kept.
    pub(super) fn checked(self) -> Result<Self, Vec<FieldError>> {
        let fault = |field: &str| {
            let field = field.to_owned();
            move |message: String| vec![FieldError::new(field, message)]
        };
        Ok(match self {
            Self::Fcm { token } => {
                check::fcm_token(token.reveal()).map_err(fault("token"))?;
                Self::Fcm { token }
            }
            Self::WebPush { endpoint, p256dh, auth } => Self::WebPush {
                endpoint: check::url(&endpoint, &["https"]).map_err(fault("endpoint"))?,
                p256dh: check::p256dh(&p256dh).map_err(fault("p256dh"))?,
                auth: Secret::new(check::auth_secret(auth.reveal()).map_err(fault("auth"))?),
            },
        })
    }
}

/// One of the user's own servers.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Names it.
    pub id: ContactId,
    /// Where messages are posted to.
    pub url: String,
    /// What they are signed with (`whsec_…`), the newest first; two while they are rotated.
    #[serde(with = "kept_list")]
    pub secrets: Vec<Secret>,
    /// Whether nothing is sent there until the user says so again.
    #[serde(default)]
    pub disabled: bool,
    /// When it was added.
    pub created_at: Timestamp,
}

/// The URL may hold what lets its caller in.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = Origin(&self.url);
        let mut shown = f.debug_struct("Endpoint");
        shown.field("id", &self.id).field("url", &url).field("disabled", &self.disabled).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// A new secret, written as Standard Webhooks wants it.
    pub(super) fn new_secret() -> Result<Secret, getrandom::Error> {
        let mut bytes = [0; ENDPOINT_SECRET_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Secret::new(format!("whsec_{}", BASE64_STANDARD.encode(bytes))))
    }

    /// Signs with `newest` and, until the next time, with the one that was the newest.
    pub(super) fn rotate(&mut self, newest: Secret) {
        self.secrets.insert(0, newest);
        self.secrets.truncate(ENDPOINT_SECRETS_MAX);
    }
}

/// Writes a secret to the store.
mod kept {
    use super::{Deserialize, Deserializer, Secret, Serializer};

    pub(super) fn serialize<S: Serializer>(secret: &Secret, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(secret.reveal())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Secret, D::Error> {
        String::deserialize(d).map(Secret::new)
    }
}

/// Writes secrets to the store.
mod kept_list {
    use super::{Deserialize, Deserializer, Secret, Serializer};

    pub(super) fn serialize<S: Serializer>(secrets: &[Secret], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(secrets.iter().map(Secret::reveal))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Secret>, D::Error> {
        Ok(Vec::<String>::deserialize(d)?.into_iter().map(Secret::new).collect())
    }
}
