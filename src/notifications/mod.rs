//! Notifications: messages to people and programs, over e-mail, push, webhooks and the console.
//!
//! A notification is a job of kind `notification.<channel>` on its channel's queue, so retries, priorities, dead letters and
//! history exist once.

pub mod channels;
pub mod template;
