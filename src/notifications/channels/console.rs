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
