//! Webhooks by the Standard Webhooks specification, 1.0: a signed POST to a URL that a user chose.
//!
//! What an answer means follows the specification and what senders of its makers do: 2xx is taken, anything else is tried
//! again, but for 410 (the receiver wants no more) and redirects, which are not followed. A breaker is named after the URL's
//! host, so that a receiver that refuses everything holds up nobody but itself; that is why even most 4xx count for it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use url::Url;

use super::{
    Address, Channel, Content, Fault, Message, Receipt, SendError,
    console::wrong_channel,
    exchange::{ANSWER_MAX, Answer, Exchange, Limit, headers},
    fault::{PATIENCE, provider},
    outgoing::Guard,
};
use crate::{base::secret::Secret, config};

/// Begins every secret.
const PREFIX: &str = "whsec_";
/// What a secret may have, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// A receiver does not put us off for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The channel to users' URLs.
pub struct Webhook {
    guard: Arc<Guard>,
    exchange: Exchange,
    timeout: Duration,
}

impl Webhook {
    /// Needs nothing but its limits: where to post is each recipient's.
    #[must_use]
    pub fn new(options: &config::Webhook) -> Self {
        let guard = Arc::new(Guard::new(options));
        Self { exchange: Exchange::guarded(guard.clone()), guard, timeout: options.timeout }
    }
}

#[async_trait]
impl Channel for Webhook {
    fn provider(&self, to: &Address) -> String {
        let host = match to {
            Address::Webhook { url, .. } => host(url),
            _ => None,
        };
        provider("webhook", host.as_deref().unwrap_or("?"))
    }

    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let (Address::Webhook { url, secrets }, Content::Webhook { body }) = (&message.to, &message.content) else {
            return Err(wrong_channel("webhook"));
        };
        let url = self.guard.check(url)?;
        let (id, seconds) = (message.id.to_string(), message.now.as_millis().div_euclid(1000));
        let signature = signatures(secrets, &id, seconds, body.as_bytes())?;
        let headers = headers([
            ("content-type", "application/json"),
            ("webhook-id", &id),
            ("webhook-timestamp", &seconds.to_string()),
            ("webhook-signature", &signature),
        ]);
        let answer = self.exchange.post(&url, headers, body.clone(), ANSWER_MAX, Limit::new(self.timeout)).await;
        judge(answer.map_err(repeatable)?, message).map_err(|e| e.without_url(&url))
    }
}

/// A receiver that dawdles is as good as one that fails: it knows a repetition by its `webhook-id`.
fn repeatable(e: SendError) -> SendError {
    match e.code.as_str() {
        "timed_out" => SendError { fault: Fault::Provider, ..e },
        _ => e,
    }
}

fn judge(answer: Answer, message: &Message) -> Result<Receipt, SendError> {
    let failed = |fault| SendError::new(fault, answer.code(), answer.sentence());
    Err(match answer.status.as_u16() {
        200..=299 => {
            return Ok(Receipt { provider_id: None, answer: format!("HTTP {}", answer.status.as_u16()) });
        }
        300..=399 => redirected(&answer),
        410 => failed(Fault::Recipient { suppress: true }),
        429 => {
            let wait = answer.retry_after(message.now).unwrap_or(PATIENCE).min(LONGEST_WAIT);
            failed(Fault::Later).after(Some(wait))
        }
        _ => {
            let wait = answer.retry_after(message.now).map(|wait| wait.min(LONGEST_WAIT));
            failed(Fault::Provider).after(wait)
        }
    })
}

/// Following it would send the message where nobody asked for it, perhaps behind the guard.
pub(super) fn redirected(answer: &Answer) -> SendError {
    let why =
        format!("the URL redirects (HTTP {}), which is not followed: register the new one", answer.status.as_u16());
    SendError::new(Fault::Recipient { suppress: false }, "redirected", why)
}

/// The host of a URL, for the name of its breaker.
pub(super) fn host(url: &str) -> Option<String> {
    Url::parse(url).ok()?.host_str().map(str::to_owned)
}

/// One signature for each secret, so that a receiver that still has the old one of two is served.
fn signatures(secrets: &[Secret], id: &str, seconds: i64, body: &[u8]) -> Result<String, SendError> {
    let wrong = |why: String| SendError::new(Fault::Recipient { suppress: false }, "bad_secret", why);
    let mut signed = Vec::with_capacity(secrets.len());
    for secret in secrets {
        let key = decode_secret(secret.reveal()).map_err(|e| wrong(format!("a signing secret {e}")))?;
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key));
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        signed.push(format!("v1,{}", STANDARD.encode(mac.sign())));
    }
    match signed.is_empty() {
        true => Err(wrong("there is no secret to sign with".to_owned())),
        false => Ok(signed.join(" ")),
    }
}

fn decode_secret(text: &str) -> Result<Vec<u8>, String> {
    let shape = "must be `whsec_` and the base64 of 24 to 64 bytes";
    let key = text.strip_prefix(PREFIX).and_then(|rest| STANDARD.decode(rest).ok()).ok_or(shape)?;
    if SECRET_BYTES.contains(&key.len()) { Ok(key) } else { Err(format!("{shape}, but has {}", key.len())) }
}

/// Whether `text` can be a signing secret.
///
/// # Errors
/// The rest of a sentence that begins with the field's name. The secret is not in it.
pub fn check_secret(text: &str) -> Result<(), String> {
    decode_secret(text).map(drop)
}

/// Makes a signing secret of 32 random bytes.
///
/// # Errors
/// If the system has no randomness.
pub fn generate_secret() -> Result<Secret, SendError> {
    let mut key = [0; 32];
    SystemRandom::new().fill(&mut key).map_err(|_unspecified| no_randomness())?;
    Ok(Secret::new(format!("{PREFIX}{}", STANDARD.encode(key))))
}

pub(super) fn no_randomness() -> SendError {
    SendError::new(Fault::Configuration, "no_randomness", "the system has no randomness")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification's own example.
    #[test]
    fn the_signature_is_that_of_the_specification() {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let sign = |secrets: &[Secret]| {
            signatures(secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b"{\"test\": 2432232314}")
        };
        assert_eq!(sign(std::slice::from_ref(&secret)).unwrap(), expected);
        let two = sign(&[generate_secret().unwrap(), secret]).unwrap();
        assert!(two.split(' ').count() == 2 && two.ends_with(expected), "{two}");
        assert_eq!(sign(&[]).unwrap_err().code, "bad_secret");
    }

    #[test]
    fn a_secret_has_one_shape() {
        for _ in 0..8 {
            check_secret(generate_secret().unwrap().reveal()).unwrap();
        }
        let of = |n: usize| format!("whsec_{}", STANDARD.encode(vec![1; n]));
        check_secret(&of(24)).and(check_secret(&of(64))).unwrap();
        for bad in [of(23), of(65), String::new(), "whsec_".to_owned(), "whsec_!".to_owned(), STANDARD.encode([1; 32])]
        {
            let e = check_secret(&bad).unwrap_err();
            assert!(e.starts_with("must be `whsec_`") && !e.contains(bad.get(6..12).unwrap_or("?")), "{e}");
        }
    }
}
