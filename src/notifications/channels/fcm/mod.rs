//! Firebase Cloud Messaging, HTTP v1: one message to one device.
//!
//! An access token is asked for once an hour and shared by all sends; a token that Firebase refuses is replaced once.

mod token;
mod verdict;

use async_trait::async_trait;
use reqwest::{Url, header::HeaderMap};
use serde_json::{Map, Value, json};

use self::token::Tokens;
use super::{
    Address, Channel, Content, Message, OpenError, Receipt, SendError,
    console::wrong_channel,
    exchange::{ANSWER_MAX, Answer, Exchange, Limit, headers},
    fault::provider,
};
use crate::{base::secret::Secret, config};

/// The channel to devices.
pub struct Fcm {
    url: Url,
    project: String,
    tokens: Tokens,
    exchange: Exchange,
    timeout: std::time::Duration,
}

impl Fcm {
    /// Reads the service account's file; connects to nothing. None if the configuration names no file.
    ///
    /// # Errors
    /// One sentence that names the key at fault.
    pub fn open(options: &config::Push) -> Result<Option<Self>, OpenError> {
        if options.fcm_credentials.as_os_str().is_empty() {
            return Ok(None);
        }
        let account = token::Account::read(options)?;
        let base = options.fcm_url.trim_end_matches('/');
        let url = format!("{base}/v1/projects/{}/messages:send", account.project);
        let url = Url::parse(&url).map_err(|e| OpenError(format!("`push.fcm_url` is no URL: {e}")))?;
        let project = account.project.clone();
        let (tokens, exchange) = (Tokens::new(account), Exchange::trusted(&url));
        Ok(Some(Self { url, project, tokens, exchange, timeout: options.timeout }))
    }

    async fn post(&self, body: &str, access: &Secret, limit: Limit) -> Result<Answer, SendError> {
        let bearer = format!("Bearer {}", access.reveal());
        let headers: HeaderMap = headers([("content-type", "application/json"), ("authorization", &bearer)]);
        self.exchange.post(&self.url, headers, body.to_owned(), ANSWER_MAX, limit).await
    }

    async fn deliver(&self, body: &str, message: &Message) -> Result<Receipt, SendError> {
        let limit = Limit::new(self.timeout);
        let mut access = self.tokens.get(&self.exchange, message.now, limit).await?;
        let mut answer = self.post(body, &access, limit).await?;
        if verdict::is_stale_token(&answer) {
            self.tokens.forget(&access, limit).await?;
            access = self.tokens.get(&self.exchange, message.now, limit).await?;
            answer = self.post(body, &access, limit).await?;
        }
        verdict::of(&answer, message.now).map_err(|e| e.without(&[access.reveal()]))
    }
}

#[async_trait]
impl Channel for Fcm {
    fn provider(&self, _: &Address) -> String {
        provider("fcm", &self.project)
    }

    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let (Address::Fcm { token }, Content::Push { title, body, data }) = (&message.to, &message.content) else {
            return Err(wrong_channel("Firebase"));
        };
        let body = document(token, title, body, data, message.urgent).to_string();
        self.deliver(&body, message).await.map_err(|e| e.without(&[token.reveal()]))
    }
}

fn document(token: &Secret, title: &str, body: &str, data: &Map<String, Value>, urgent: bool) -> Value {
    // Firebase takes nothing but text as data.
    let data: Map<String, Value> = data
        .iter()
        .map(|(name, value)| match value {
            Value::String(_) => (name.clone(), value.clone()),
            other => (name.clone(), Value::String(other.to_string())),
        })
        .collect();
    let (android, apns) = if urgent { ("HIGH", "10") } else { ("NORMAL", "5") };
    json!({"message": {
        "token": token.reveal(),
        "notification": {"title": title, "body": body},
        "data": data,
        "android": {"priority": android},
        "apns": {"headers": {"apns-priority": apns}},
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_text_and_priority_follows_urgency() {
        let data = json!({"a": "x", "n": 7, "o": {"k": [1, null]}, "t": true});
        let data = data.as_object().unwrap();
        let m = &document(&Secret::new("t"), "T", "B", data, true)["message"];
        assert_eq!(m["data"], json!({"a": "x", "n": "7", "o": "{\"k\":[1,null]}", "t": "true"}));
        assert_eq!((&m["android"]["priority"], &m["apns"]["headers"]["apns-priority"]), (&json!("HIGH"), &json!("10")));
        let m = &document(&Secret::new("t"), "T", "B", data, false)["message"];
        assert_eq!(
            (&m["android"]["priority"], &m["apns"]["headers"]["apns-priority"]),
            (&json!("NORMAL"), &json!("5"))
        );
    }
}
