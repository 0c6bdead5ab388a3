//! Channels: how a rendered message leaves the house, and what the answer of the other side means.
//!
//! One trait, one conformance suite. A channel knows a provider's protocol and nothing of users, templates, breakers or
//! retries: it sends one message to one address once, and says what became of it in the words of [`SendError`]. Who
//! retries, opens breakers and suppresses addresses is `notifications::send`.

mod console;
mod email;
mod exchange;
mod fault;
mod fcm;
mod keys;
mod outgoing;
mod set;
mod webhook;
mod webpush;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::base::{
    clock::Timestamp,
    secret::{Origin, Secret},
};

pub use self::{
    console::Console,
    email::{Email, greylist_wait},
    fcm::Fcm,
    outgoing::Guard,
    set::Channels,
    webhook::{Webhook, check_secret, generate_secret},
    webpush::{VapidKeys, WebPush, generate_vapid},
};

/// What keeps a channel from being set up: one sentence that names the key at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub(crate) String);

/// A message as it is to be sent: rendered, with nothing left to look up.
#[derive(Clone)]
pub struct Message {
    /// The notification's id: the same for every attempt, so that the other side can tell a repetition.
    pub id: Uuid,
    /// When the notification was accepted: the date of a mail, the same for every attempt.
    pub accepted_at: Timestamp,
    /// When this attempt begins.
    pub now: Timestamp,
    /// Where it goes.
    pub to: Address,
    /// What it says.
    pub content: Content,
    /// Urgent: priority 8 and more.
    pub urgent: bool,
    /// A link by which the recipient can stop messages of this category (RFC 8058), if the recipient may.
    pub unsubscribe: Option<String>,
}

/// What it says is between sender and recipient, and whoever has its link can unsubscribe.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("id", &self.id).field("to", &self.to).finish_non_exhaustive()
    }
}

/// What a message says, in the parts of its channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "channel", rename_all = "snake_case")]
pub enum Content {
    /// A mail.
    Email {
        /// One line.
        subject: String,
        /// The body for every reader.
        text: String,
        /// The body for readers that show HTML.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        html: Option<String>,
    },
    /// A push message.
    Push {
        /// One line.
        title: String,
        /// A few lines.
        body: String,
        /// For the application: names to text.
        #[serde(default)]
        data: Map<String, Value>,
    },
    /// A webhook call.
    Webhook {
        /// The JSON document that is posted, to the byte.
        body: String,
    },
    /// A line in the log.
    Console {
        /// The line.
        text: String,
    },
}

/// Where a message goes.
#[derive(Clone, PartialEq)]
pub enum Address {
    /// A mailbox, with the name to show if there is one.
    Email {
        /// `local@domain`.
        mailbox: String,
        /// The recipient's name.
        name: Option<String>,
    },
    /// A device registered with Firebase Cloud Messaging.
    Fcm {
        /// Its registration token.
        token: Secret,
    },
    /// A browser's push subscription (RFC 8030).
    WebPush {
        /// Where its push service takes messages.
        endpoint: String,
        /// Its public key, base64url without padding.
        p256dh: String,
        /// Its authentication secret, base64url without padding.
        auth: Secret,
    },
    /// A URL that wants webhooks.
    Webhook {
        /// Where to post.
        url: String,
        /// Secrets to sign with (`whsec_…`), the newest first; two while they are rotated.
        secrets: Vec<Secret>,
    },
    /// The log.
    Console,
}

/// Whoever knows a token or the URL of an endpoint can send to it, so neither is shown.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Email { mailbox, .. } => f.debug_tuple("Email").field(mailbox).finish(),
            Self::Fcm { token } => f.debug_tuple("Fcm").field(token).finish(),
            Self::WebPush { endpoint, .. } => f.debug_tuple("WebPush").field(&Origin(endpoint)).finish(),
            Self::Webhook { url, .. } => f.debug_tuple("Webhook").field(&Origin(url)).finish(),
            Self::Console => f.write_str("Console"),
        }
    }
}

/// A message that was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The provider's id for it, if it told one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// What the provider answered, in a few words (`250 2.0.0 queued`, `HTTP 201`).
    pub answer: String,
}

/// What a failed attempt means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The provider failed or cannot be reached. Try again; counts for its breaker.
    Provider,
    /// The provider asks for patience (429, a full mailbox, grey-listing). Try again after [`SendError::retry_after`];
    /// does not count for the breaker.
    Later,
    /// It may or may not have been taken: the connection broke after all of it was sent. Try again the same way; counts
    /// for the breaker.
    Ambiguous,
    /// We are not let in (wrong password or key, no right to send). Nothing will go through until someone mends it: opens the
    /// breaker at once, and spends no attempt.
    Configuration,
    /// The address is gone or never was. For good.
    Recipient {
        /// Nothing should be sent there any more.
        suppress: bool,
    },
    /// This message will never be taken, but others may (too large, refused by policy). For good.
    Message,
}

/// Of whom a refusal speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sense {
    /// Of us: whoever is next will be refused, too.
    Ours,
    /// Nobody can tell from one refusal alone.
    Unclear,
    /// Of the mailbox: its provider has looked for it.
    Mailbox,
}

/// How a recipient was refused, to be compared with other refusals of the same provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was said, without what names the recipient: the same for all who are refused for one reason.
    pub sentence: String,
    /// Of whom it speaks.
    pub sense: Sense,
    /// What to look at if it means us all: a sentence for people.
    pub advice: String,
}

/// Why a message was not taken, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct SendError {
    /// What it means.
    pub fault: Fault,
    /// A stable word for programs: `smtp_451`, `fcm_unregistered`, `http_503`, `timed_out`, `private_address`.
    pub code: String,
    /// A sentence for people, without secrets.
    pub message: String,
    /// Not before this time has gone by; the usual back-off if none.
    pub retry_after: Option<Duration>,
    /// How the recipient was refused, if that is what happened and the same words may mean more than this recipient.
    pub refusal: Option<Box<Refusal>>,
}

/// One way out of the house.
#[async_trait]
pub trait Channel: Send + Sync {
    /// Which provider would take a message to `to`: the name of its breaker (`smtp:HOST:PORT`, `fcm:PROJECT`,
    /// `webpush:HOST`, `webhook:HOST`, `console`). At most 200 characters.
    fn provider(&self, to: &Address) -> String;

    /// Sends it once. Ends within the channel's time limit.
    ///
    /// # Errors
    /// What became of it.
    async fn send(&self, message: &Message) -> Result<Receipt, SendError>;
}
