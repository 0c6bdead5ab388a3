//! Web push (RFC 8030): one encrypted message to one browser, by the push service that the browser chose.
//!
//! The push service's URL comes from a user's browser, so it is called through the same guard as a webhook.

mod encrypt;
mod vapid;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::header::LOCATION;
use serde_json::json;

use self::encrypt::Subscription;
pub use self::vapid::{VapidKeys, generate_vapid};
use super::{
    Address, Channel, Content, Fault, Message, OpenError, Receipt, SendError,
    console::wrong_channel,
    exchange::{ANSWER_MAX, Answer, Exchange, Limit, headers},
    fault::{PATIENCE, provider},
    outgoing::Guard,
    webhook::{host, redirected},
};
use crate::config;

/// The channel to browsers.
pub struct WebPush {
    guard: Arc<Guard>,
    exchange: Exchange,
    key: vapid::Key,
    ttl: Duration,
    timeout: Duration,
}

impl WebPush {
    /// Reads the key; connects to nothing. None if the configuration holds no key.
    ///
    /// # Errors
    /// One sentence that names the key at fault.
    pub fn open(options: &config::Push, outgoing: &config::Webhook) -> Result<Option<Self>, OpenError> {
        if options.vapid_private_key.is_empty() {
            return Ok(None);
        }
        let guard = Arc::new(Guard::new(outgoing));
        Ok(Some(Self {
            exchange: Exchange::guarded(guard.clone()),
            guard,
            key: vapid::Key::read(options)?,
            ttl: options.ttl,
            timeout: options.timeout,
        }))
    }

    /// What browsers need to subscribe (`applicationServerKey`), base64url without padding.
    #[must_use]
    pub fn public_key(&self) -> &str {
        self.key.public()
    }
}

#[async_trait]
impl Channel for WebPush {
    fn provider(&self, to: &Address) -> String {
        let host = match to {
            Address::WebPush { endpoint, .. } => host(endpoint),
            _ => None,
        };
        provider("webpush", host.as_deref().unwrap_or("?"))
    }

    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let (Address::WebPush { endpoint, p256dh, auth }, Content::Push { title, body, data }) =
            (&message.to, &message.content)
        else {
            return Err(wrong_channel("web push"));
        };
        let url = self.guard.check(endpoint)?;
        let plain = json!({"title": title, "body": body, "data": data}).to_string();
        if plain.len() > encrypt::PLAIN_MAX {
            let why = format!("the message is {} bytes, but at most {} fit", plain.len(), encrypt::PLAIN_MAX);
            return Err(SendError::new(Fault::Message, "too_large", why));
        }
        let subscription = Subscription::read(p256dh, auth.reveal()).map_err(|why| {
            let why = format!("the subscription {why}");
            SendError::new(Fault::Recipient { suppress: true }, "bad_subscription", why)
        })?;
        let sealed = subscription.seal(plain.as_bytes())?;
        let headers = headers([
            ("content-type", "application/octet-stream"),
            ("content-encoding", "aes128gcm"),
            ("ttl", &self.ttl.as_secs().to_string()),
            ("urgency", if message.urgent { "high" } else { "normal" }),
            ("authorization", &self.key.authorization(&url, message.now)),
        ]);
        let answer = self.exchange.post(&url, headers, sealed, ANSWER_MAX, Limit::new(self.timeout)).await?;
        judge(&answer, message).map_err(|e| e.without(&[auth.reveal(), endpoint]).without_url(&url))
    }
}

fn judge(answer: &Answer, message: &Message) -> Result<Receipt, SendError> {
    let failed = |fault| SendError::new(fault, answer.code(), answer.sentence());
    let wait = answer.retry_after(message.now);
    Err(match answer.status.as_u16() {
        200..=299 => {
            let id = answer.headers.get(LOCATION).and_then(|v| v.to_str().ok());
            let answer = format!("HTTP {}", answer.status.as_u16());
            return Ok(Receipt { provider_id: id.map(str::to_owned), answer });
        }
        300..=399 => redirected(answer),
        404 | 410 => failed(Fault::Recipient { suppress: true }),
        401 | 403 => failed(Fault::Configuration),
        429 => failed(Fault::Later).after(Some(wait.unwrap_or(PATIENCE))),
        408 | 500.. => failed(Fault::Provider).after(wait),
        _ => failed(Fault::Message),
    })
}

fn decode(text: &str) -> Option<Vec<u8>> {
    // Some browsers' libraries pad, and some write the other alphabet.
    let plain = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
    URL_SAFE_NO_PAD.decode(plain).ok()
}
