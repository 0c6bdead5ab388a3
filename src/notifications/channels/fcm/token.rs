//! Access tokens of a Firebase service account: an assertion signed with its key, exchanged for an hour's access.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::Url;
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;

use super::super::{
    Fault, OpenError, SendError,
    exchange::{Answer, Exchange, Limit, headers},
    keys,
};
use crate::{
    base::{clock::Timestamp, secret::Secret},
    config,
};

const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
const HOUR: Duration = Duration::from_secs(3600);
/// A token is replaced this long before it ends, so that none ends on its way.
const MARGIN: Duration = Duration::from_secs(60);
/// A token may be a few kilobytes long.
const TOKEN_MAX: usize = 64 << 10;

#[derive(Deserialize)]
struct File {
    project_id: String,
    client_email: String,
    private_key: String,
    #[serde(default)]
    private_key_id: String,
    #[serde(default = "google")]
    token_uri: String,
}

fn google() -> String {
    "https://oauth2.googleapis.com/token".to_owned()
}

/// A service account.
pub(super) struct Account {
    pub(super) project: String,
    email: String,
    key: RsaKeyPair,
    key_id: String,
    token_url: Url,
}

impl Account {
    pub(super) fn read(options: &config::Push) -> Result<Self, OpenError> {
        let place = format!("`push.fcm_credentials` names {}, which", options.fcm_credentials.display());
        let text = std::fs::read_to_string(&options.fcm_credentials)
            .map_err(|e| OpenError(format!("{place} cannot be read: {e}")))?;
        // What serde says of a wrong value may repeat it, and that may be the key: only the place is told.
        let file: File = serde_json::from_str(&text).map_err(|e| {
            OpenError(format!("{place} is no key of a service account: see line {}, column {}", e.line(), e.column()))
        })?;
        if file.project_id.is_empty()
            || !file.project_id.bytes().all(|b| b.is_ascii_alphanumeric() || b":.-".contains(&b))
        {
            return Err(OpenError(format!("{place} has a project_id that is none")));
        }
        let key =
            keys::rsa(&file.private_key).map_err(|why| OpenError(format!("{place} has a private_key that {why}")))?;
        let (name, url) = match options.fcm_token_url.as_str() {
            "" => (format!("{place} has a token_uri that"), file.token_uri.as_str()),
            url => ("`push.fcm_token_url`".to_owned(), url),
        };
        let token_url = Url::parse(url).map_err(|e| OpenError(format!("{name} is no URL: {e}")))?;
        Ok(Self { project: file.project_id, email: file.client_email, key, key_id: file.private_key_id, token_url })
    }

    /// A JWT by which the account proves itself.
    fn assertion(&self, now: Timestamp) -> Result<String, SendError> {
        let seconds = now.as_millis().div_euclid(1000);
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": self.key_id});
        let claims = json!({
            "iss": self.email,
            "scope": SCOPE,
            // The audience is what the account's token server calls itself.
            "aud": self.token_url.as_str(),
            "iat": seconds,
            "exp": seconds.saturating_add(3600),
        });
        let encode = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", encode(header), encode(claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input.as_bytes(), &mut signature)
            .map_err(|_unspecified| super::super::webhook::no_randomness())?;
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

struct Access {
    token: Secret,
    until: Timestamp,
}

/// The account's token, fetched by one send while the others wait for it.
pub(super) struct Tokens {
    account: Account,
    current: Mutex<Option<Access>>,
}

impl Tokens {
    pub(super) fn new(account: Account) -> Self {
        Self { account, current: Mutex::default() }
    }

    pub(super) async fn get(&self, exchange: &Exchange, now: Timestamp, limit: Limit) -> Result<Secret, SendError> {
        let mut current = limit.bound(self.current.lock()).await?;
        if let Some(access) = current.as_ref().filter(|a| now < a.until) {
            return Ok(access.token.clone());
        }
        let access = self.fetch(exchange, now, limit).await?;
        Ok(current.insert(access).token.clone())
    }

    /// Drops the token that was refused; not one that another send has fetched since.
    pub(super) async fn forget(&self, refused: &Secret, limit: Limit) -> Result<(), SendError> {
        let mut current = limit.bound(self.current.lock()).await?;
        if current.as_ref().is_some_and(|a| a.token == *refused) {
            *current = None;
        }
        Ok(())
    }

    async fn fetch(&self, exchange: &Exchange, now: Timestamp, limit: Limit) -> Result<Access, SendError> {
        #[derive(Deserialize)]
        struct Granted {
            access_token: String,
            #[serde(default)]
            expires_in: u64,
        }
        let assertion = self.account.assertion(now)?;
        let grant = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
        // Base64url and dots need no escapes.
        let body = format!("grant_type={grant}&assertion={assertion}");
        let headers = headers([("content-type", "application/x-www-form-urlencoded")]);
        let answer = exchange
            .post(&self.account.token_url, headers, body, TOKEN_MAX, limit)
            .await
            .map_err(|e| not_sent(e, &assertion))?;
        if !answer.status.is_success() {
            return Err(refused(&answer, now).without(&[&assertion]));
        }
        let granted: Granted = serde_json::from_slice(&answer.body).map_err(|_may_hold_the_token| {
            SendError::new(Fault::Provider, "fcm_token", "the token server's answer holds no access token")
        })?;
        let lifetime = match granted.expires_in {
            0 => HOUR,
            seconds => Duration::from_secs(seconds).min(HOUR),
        };
        Ok(Access { token: Secret::new(granted.access_token), until: now.plus(lifetime.saturating_sub(MARGIN)) })
    }
}

/// However the request for a token ended, no message was sent.
fn not_sent(e: SendError, assertion: &str) -> SendError {
    let fault = if e.fault == Fault::Ambiguous { Fault::Provider } else { e.fault };
    SendError { fault, message: format!("no access token: {}", e.message), ..e }.without(&[assertion])
}

fn refused(answer: &Answer, now: Timestamp) -> SendError {
    let fault = match answer.status.as_u16() {
        429 | 408 | 500.. => Fault::Provider,
        _ => Fault::Configuration,
    };
    let why = format!("no access token: {}", answer.sentence());
    SendError::new(fault, "fcm_token", why).after(answer.retry_after(now))
}
