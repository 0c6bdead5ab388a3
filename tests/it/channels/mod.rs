//! The notification channels: against parties that are not ours, against fakes that fail in every way that the tables of
//! the channels name, and in one suite for what all channels share.

mod email;
pub(crate) mod fakes;
mod fcm;
mod guard;
mod mail;
pub(crate) mod parties;
mod shared;
mod webhook;
mod webpush;

use std::time::Duration;

use app::{
    base::{
        clock::{Clock, Timestamp},
        secret::Secret,
    },
    config::{Config, Sources, load},
    notifications::channels::{Address, Channel, Channels, Content, Fault, Message, Receipt, SendError},
};
use serde_json::json;
use uuid::Uuid;

use crate::support::within;

/// What no error and no `Debug` text may ever hold.
const HUSH: &str = "hush-hush-4711";

/// A configuration of defaults and these keys.
fn config(flags: &[(&str, &str)]) -> Config {
    let flags = flags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    load(&Sources { flags, ..Sources::default() }).unwrap()
}

/// The channels of a configuration in which loopback may be called.
fn channels(flags: &[(&str, &str)]) -> Channels {
    let open = [("webhook.allow_http", "true"), ("webhook.allow_private", "true")];
    let all: Vec<_> = open.iter().chain(flags).copied().collect();
    Channels::open(&config(&all)).unwrap()
}

async fn send(channels: &Channels, message: &Message) -> Result<Receipt, SendError> {
    within("the send ends", channel(channels, message).send(message)).await
}

fn channel<'a>(channels: &'a Channels, message: &Message) -> &'a dyn Channel {
    channels.find(&message.to).expect("the channel is set up")
}

/// Sends, and checks what became of it.
#[track_caller]
fn assert_failed(
    result: Result<Receipt, SendError>,
    what: &str,
    fault: Fault,
    code: &str,
    retry_after: Option<u64>,
) -> SendError {
    let e = match result {
        Err(e) => e,
        Ok(receipt) => panic!("{what}: was taken: {receipt:?}"),
    };
    assert_eq!((e.fault, e.code.as_str()), (fault, code), "{what}: {e:?}");
    assert_eq!(e.retry_after, retry_after.map(Duration::from_secs), "{what}: {e:?}");
    assert!(!e.message.is_empty() && !e.message.contains(['\r', '\n']), "{what}: {e:?}");
    assert!(!format!("{e:?} {e}").contains(HUSH), "{what} tells a secret: {e:?}");
    e
}

const GONE: Fault = Fault::Recipient { suppress: true };
const REFUSED: Fault = Fault::Recipient { suppress: false };

fn message(to: Address, content: Content) -> Message {
    let now = Clock::system().now();
    Message {
        id: Uuid::now_v7(),
        accepted_at: Timestamp::parse("2026-11-21T08:00:00Z").unwrap(),
        now,
        to,
        content,
        urgent: false,
        unsubscribe: None,
    }
}

fn mail() -> Message {
    let to = Address::Email { mailbox: "ada@example.net".to_owned(), name: None };
    message(to, Content::Email { subject: "Hello".to_owned(), text: "Hello, Ada.".to_owned(), html: None })
}

fn push(to: Address) -> Message {
    let data = json!({"order": "7"}).as_object().cloned().unwrap();
    message(to, Content::Push { title: "Sent".to_owned(), body: "It is on its way.".to_owned(), data })
}

fn fcm() -> Message {
    push(Address::Fcm { token: Secret::new(format!("device-{HUSH}")) })
}

/// Keys of a browser that nobody has.
fn web_push(endpoint: String) -> Message {
    let p256dh = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4".to_owned();
    push(Address::WebPush { endpoint, p256dh, auth: Secret::new("BTBZMqHH6r4Tts7J_aSIgg") })
}

fn webhook(url: String) -> Message {
    let secret = app::notifications::channels::generate_secret().unwrap();
    message(Address::Webhook { url, secrets: vec![secret] }, Content::Webhook { body: r#"{"test": 1}"#.to_owned() })
}
