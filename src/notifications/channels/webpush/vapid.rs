//! How a push service knows who sends (RFC 8292): a JWT for its origin, signed with the installation's own key.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use p256::{
    SecretKey,
    ecdsa::{Signature, SigningKey, signature::Signer},
    elliptic_curve::{Generate, sec1::ToSec1Point},
};
use reqwest::Url;
use serde_json::json;

use super::{
    super::{OpenError, SendError, webhook::no_randomness},
    decode,
};
use crate::{
    base::{clock::Timestamp, secret::Secret},
    config,
};

/// The standard allows a day; half of it forgives a clock that is off.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// A pair of keys, each base64url without padding, as every web push library writes them.
#[derive(Clone, Debug)]
pub struct VapidKeys {
    /// For the configuration (`push.vapid_private_key`).
    pub private: Secret,
    /// For browsers (`applicationServerKey`).
    pub public: String,
}

/// Makes a pair of keys.
///
/// # Errors
/// If the system has no randomness.
pub fn generate_vapid() -> Result<VapidKeys, SendError> {
    let key = SecretKey::try_generate().map_err(|_no_entropy| no_randomness())?;
    Ok(VapidKeys { private: Secret::new(URL_SAFE_NO_PAD.encode(key.to_bytes())), public: public(&key) })
}

fn public(key: &SecretKey) -> String {
    URL_SAFE_NO_PAD.encode(key.public_key().to_sec1_point(false).as_bytes())
}

/// The installation's key.
pub(super) struct Key {
    signer: SigningKey,
    public: String,
    subject: String,
}

impl Key {
    pub(super) fn read(options: &config::Push) -> Result<Self, OpenError> {
        let bytes = decode(options.vapid_private_key.reveal()).filter(|b| b.len() == 32);
        let key = bytes.and_then(|b| SecretKey::from_slice(&b).ok()).ok_or_else(|| {
            OpenError("`push.vapid_private_key` is no private key; make one with `app vapid generate`".to_owned())
        })?;
        Ok(Self { public: public(&key), signer: SigningKey::from(&key), subject: options.vapid_subject.clone() })
    }

    pub(super) fn public(&self) -> &str {
        &self.public
    }

    /// The value of `Authorization` for a push service.
    pub(super) fn authorization(&self, endpoint: &Url, now: Timestamp) -> String {
        let claims = json!({
            "aud": endpoint.origin().ascii_serialization(),
            "exp": now.plus(LIFETIME).as_millis().div_euclid(1000),
            "sub": self.subject,
        });
        let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
        let input =
            format!("{}.{}", encode(json!({"typ": "JWT", "alg": "ES256"}).to_string()), encode(claims.to_string()));
        let signature: Signature = self.signer.sign(input.as_bytes());
        format!("vapid t={input}.{}, k={}", URL_SAFE_NO_PAD.encode(signature.to_bytes()), self.public)
    }
}
