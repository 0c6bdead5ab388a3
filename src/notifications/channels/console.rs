//! The console: writes a message to the log, for development and for installations without providers.

use async_trait::async_trait;

use super::{Address, Channel, Content, Fault, Message, Receipt, SendError};

/// The channel that always works.
#[derive(Clone, Copy, Debug, Default)]
pub struct Console;

#[async_trait]
impl Channel for Console {
    fn provider(&self, _: &Address) -> String {
        "console".to_owned()
    }

    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let Content::Console { text } = &message.content else {
            return Err(wrong_channel("console"));
        };
        tracing::info!(notification_id = %message.id, text = %text, "console notification");
        Ok(Receipt { provider_id: None, answer: "logged".to_owned() })
    }
}

/// A message whose address or content belongs to another channel: a defect of the caller, and no attempt mends it.
pub(super) fn wrong_channel(channel: &str) -> SendError {
    SendError::new(Fault::Message, "wrong_channel", format!("this is no {channel} message"))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use uuid::Uuid;

    use super::*;
    use crate::base::clock::Timestamp;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_message_is_one_line_with_its_id() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
        let guard = tracing::subscriber::set_default(subscriber);
        let at = Timestamp::from_millis(0);
        let message = Message {
            id: Uuid::nil(),
            accepted_at: at,
            now: at,
            to: Address::Console,
            content: Content::Console { text: "hello\nworld".to_owned() },
            urgent: false,
            unsubscribe: None,
        };
        assert_eq!(Console.send(&message).await.unwrap().answer, "logged");
        drop(guard);
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["level"], &line["fields"]["text"]), (&"INFO".into(), &"hello\nworld".into()));
        assert_eq!(line["fields"]["notification_id"], Uuid::nil().to_string());
    }
}
