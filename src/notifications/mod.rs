//! Notifications: messages to people and programs, over e-mail, push, webhooks and the console.
//!
//! A notification is a job of kind `notification.<channel>` on its channel's queue, so retries, priorities, dead letters and
//! history exist once. Its way: [`service`] accepts it, [`judge`] decides what becomes of it each time it is to be sent,
//! [`send`] does that, and [`channels`] know the providers.

mod accept;
pub mod breaker;
pub mod channels;
pub mod error;
pub mod follow;
pub mod judge;
pub mod links;
pub mod model;
pub mod refusals;
pub mod rules;
pub mod send;
pub mod service;
pub mod sink;
pub mod suppressions;
pub mod template;
pub mod templates;
