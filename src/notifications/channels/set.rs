//! All channels that the configuration sets up, found by address.

use super::{Address, Channel, Console, Email, Fcm, OpenError, WebPush, Webhook};
use crate::config::Config;

/// The ways out of the house that there are.
pub struct Channels {
    console: Console,
    email: Option<Email>,
    fcm: Option<Fcm>,
    web_push: Option<WebPush>,
    webhook: Webhook,
}

impl Channels {
    /// Reads keys and certificates; connects to nothing.
    ///
    /// # Errors
    /// One sentence that names the key at fault.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        Ok(Self {
            console: Console,
            email: Email::open(&config.email)?,
            fcm: Fcm::open(&config.push)?,
            web_push: WebPush::open(&config.push, &config.webhook)?,
            webhook: Webhook::new(&config.webhook),
        })
    }

    /// The channel that serves an address; none if it is not set up.
    #[must_use]
    pub fn find(&self, to: &Address) -> Option<&dyn Channel> {
        match to {
            Address::Console => Some(&self.console),
            Address::Email { .. } => self.email.as_ref().map(|c| c as &dyn Channel),
            Address::Fcm { .. } => self.fcm.as_ref().map(|c| c as &dyn Channel),
            Address::WebPush { .. } => self.web_push.as_ref().map(|c| c as &dyn Channel),
            Address::Webhook { .. } => Some(&self.webhook),
        }
    }
}
