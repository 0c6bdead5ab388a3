//! Links by which recipients unsubscribe: signed, so that nobody can unsubscribe another, and without a log-in (RFC 8058).
//!
//! A token is `base64url(claims).base64url(HMAC-SHA256(claims))`. The key is drawn once and kept in the store, so every
//! process signs and checks with the same one and a restart breaks no link.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::Sha256;
use tokio::sync::OnceCell;

use super::{
    error::NotificationError,
    model::To,
    templates::{corrupt, defect},
};
use crate::{
    base::{clock::Clock, store::StoreError},
    records::{Committed, Record, RecordStore, Shelf, Write},
};

/// What the key is called in the store.
const KEY_NAME: &str = "unsubscribe-links";
/// What stands in front of a token.
pub const PATH: &str = "/api/v1/unsubscribe/";

/// Who no longer wants what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who.
    #[serde(rename = "t")]
    pub to: To,
    /// Messages of this category; all mails if none.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
}

/// Makes and checks links.
#[derive(Clone)]
pub struct Links {
    store: Arc<dyn RecordStore>,
    clock: Clock,
    key: Arc<OnceCell<Vec<u8>>>,
    public_url: String,
}

impl Links {
    /// Links below `public_url`, where recipients reach this service.
    #[must_use]
    pub fn new(store: Arc<dyn RecordStore>, public_url: String, clock: Clock) -> Self {
        Self { store, clock, key: Arc::default(), public_url }
    }

    /// The link by which `claims` come true.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn link(&self, claims: &Claims) -> Result<String, NotificationError> {
        let text = serde_json::to_vec(claims).map_err(defect)?;
        let signature = self.mac(&text).await?.finalize().into_bytes();
        let (text, signature) = (BASE64_URL_SAFE_NO_PAD.encode(text), BASE64_URL_SAFE_NO_PAD.encode(signature));
        Ok(format!("{}{PATH}{text}.{signature}", self.public_url.trim_end_matches('/')))
    }

    /// What a token says, if this service has signed it.
    ///
    /// # Errors
    /// If it has not, or the store fails.
    pub async fn claims(&self, token: &str) -> Result<Claims, NotificationError> {
        let wrong = || NotificationError::NotFound("this link is not valid: it may have been cut".to_owned());
        let (text, signature) = token.split_once('.').ok_or_else(wrong)?;
        let decode = |t: &str| BASE64_URL_SAFE_NO_PAD.decode(t).map_err(|_not_base64| wrong());
        let (text, signature) = (decode(text)?, decode(signature)?);
        // Compares in constant time.
        self.mac(&text).await?.verify_slice(&signature).map_err(|_not_ours| wrong())?;
        serde_json::from_slice(&text).map_err(|_another_version| wrong())
    }

    async fn mac(&self, text: &[u8]) -> Result<Hmac<Sha256>, NotificationError> {
        let key = self.key.get_or_try_init(|| self.load()).await?;
        let mac = Hmac::<Sha256>::new_from_slice(key);
        Ok(mac.map_err(|e| StoreError::Corrupt(format!("key of links: {e}")))?.chain_update(text))
    }

    async fn load(&self) -> Result<Vec<u8>, NotificationError> {
        loop {
            if let Some(found) = self.store.find(Shelf::Secrets, KEY_NAME).await? {
                let text: String = serde_json::from_value(found.body.get("key").cloned().unwrap_or_default())
                    .map_err(|e| corrupt("key of links", &e))?;
                let key = BASE64_URL_SAFE_NO_PAD.decode(text);
                return key.map_err(|e| StoreError::Corrupt(format!("key of links: {e}")).into());
            }
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(|e| StoreError::Internal(format!("no random numbers: {e}")))?;
            let now = self.clock.now();
            let record = Record {
                shelf: Shelf::Secrets,
                id: self.clock.new_uuid(),
                version: 1,
                names: vec![KEY_NAME.to_owned()],
                labels: Vec::new(),
                created_at: now,
                updated_at: now,
                expires_at: None,
                body: json!({ "key": BASE64_URL_SAFE_NO_PAD.encode(key) }),
            };
            // Whoever comes second reads what the first has written.
            if self.store.commit(vec![Write::Insert(record)], &[]).await? == Committed::Done {
                return Ok(key.to_vec());
            }
        }
    }
}
