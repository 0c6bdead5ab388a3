//! API keys: how programs prove who they are.
//!
//! A key is `app_`, its id, and 256 random bits. Such a secret cannot be guessed, so one SHA-256 of it is enough to know it
//! again, and that is all that is kept.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{access::Scope, check, error::UserError};
use crate::base::{clock::Timestamp, error::FieldError, id::KeyId, secret::Secret};

/// Begins every key, so that people and scanners know one when they see it.
pub(super) const PREFIX: &str = "app_";
/// Random bytes of a key.
const SECRET_BYTES: usize = 32;
/// Characters of the id in a key.
const ID_LEN: usize = 32;

/// A key as it is kept: without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Names the key.
    pub id: KeyId,
    /// What people call it.
    pub name: String,
    /// What it is good for; sorted, no two equal.
    pub scopes: Vec<Scope>,
    /// SHA-256 of the secret in hexadecimal.
    pub(super) digest: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; never if none.
    pub expires_at: Option<Timestamp>,
}

/// What is said to make a key.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// See [`ApiKey::name`].
    pub name: String,
    /// See [`ApiKey::scopes`]; at least one.
    pub scopes: Vec<Scope>,
    /// See [`ApiKey::expires_at`].
    pub expires_at: Option<Timestamp>,
}

impl NewKey {
    /// The key that this makes, and the text that its owner sends, which is known only now.
    pub(super) fn build(mut self, id: Uuid, now: Timestamp) -> Result<(ApiKey, Secret), UserError> {
        let mut faults = Vec::new();
        if let Err(message) = check::name(&self.name) {
            faults.push(FieldError::new("name", message));
        }
        if self.scopes.is_empty() {
            faults.push(FieldError::new("scopes", "must name at least one scope"));
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            faults.push(FieldError::new("expires_at", "must lie in the future"));
        }
        if !faults.is_empty() {
            return Err(UserError::Invalid(faults));
        }
        self.scopes.sort_unstable();
        self.scopes.dedup();
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes).map_err(|e| UserError::Internal(format!("no random bytes: {e}")))?;
        let secret = BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let text = Secret::new(format!("{PREFIX}{}_{secret}", id.simple()));
        let Self { name, scopes, expires_at } = self;
        Ok((ApiKey { id: KeyId(id), name, scopes, digest: digest(&secret), created_at: now, expires_at }, text))
    }
}

/// The id and the secret in a key's text.
pub(super) fn parse(text: &str) -> Option<(KeyId, &str)> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_at_checked(ID_LEN)?;
    Some((KeyId(Uuid::try_parse(id).ok()?), secret.strip_prefix('_').filter(|s| s.len() < 100)?))
}

impl ApiKey {
    /// Whether `secret` is this key's, and it is good at this time.
    pub(super) fn holds(&self, secret: &str, now: Timestamp) -> bool {
        Secret::new(self.digest.as_str()).matches(&digest(secret)) && self.expires_at.is_none_or(|at| now < at)
    }
}

fn digest(secret: &str) -> String {
    Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(expires_at: Option<Timestamp>) -> NewKey {
        NewKey { name: "ci".to_owned(), scopes: vec![Scope::JobsRead, Scope::ItemsRead, Scope::JobsRead], expires_at }
    }

    #[test]
    fn a_key_is_known_by_its_digest_until_it_ends() {
        let (now, end) = (Timestamp::from_millis(1000), Timestamp::from_millis(2000));
        let (key, text) = new(Some(end)).build(Uuid::from_u128(7), now).unwrap();
        assert_eq!(key.scopes, [Scope::ItemsRead, Scope::JobsRead]);
        let (id, secret) = parse(text.reveal()).unwrap();
        assert!(id == key.id && secret.len() == 43 && !format!("{key:?}").contains(secret));
        assert!(key.holds(secret, now) && !key.holds(secret, end));
        assert!(!key.holds("x", now) && !key.holds("", now) && !key.holds(&key.digest, now));
        let (other, _) = new(None).build(Uuid::from_u128(7), now).unwrap();
        assert!(!other.holds(secret, now));
    }

    #[test]
    fn what_is_no_key_is_not_read_as_one() {
        for bad in ["", "app_", "app_x", "app_ü0000000000000000000000000000000_x", &format!("app_{}", "0".repeat(32))]
        {
            assert!(parse(bad).is_none(), "{bad}");
        }
        let now = Timestamp::from_millis(1000);
        let bad = NewKey { name: String::new(), scopes: Vec::new(), expires_at: Some(now) };
        let Err(UserError::Invalid(faults)) = bad.build(Uuid::nil(), now) else { panic!("was made") };
        assert_eq!(faults.iter().map(|f| f.field.as_str()).collect::<Vec<_>>(), ["name", "scopes", "expires_at"]);
    }
}
