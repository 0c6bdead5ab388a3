//! Follows events: the job kind that looks up the rules for what happened and sends what they say.

use std::sync::{Arc, OnceLock, Weak};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{error::NotificationError, rules::Rules, service::Notifications};
use crate::{
    base::error::Kind,
    events::{self, Event},
    jobs::{
        context::JobContext,
        kind::{JobKind, KindOptions, Outcome},
        model::JobError,
    },
};

/// The handler of events.
pub struct Follower {
    rules: Rules,
    notifications: Arc<OnceLock<Weak<Notifications>>>,
}

/// An event as its job holds it.
#[derive(Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Told(#[schemars(with = "serde_json::Value")] Event);

impl Follower {
    /// A handler that follows `rules` through the service that `notifications` will hold.
    #[must_use]
    pub fn new(rules: Rules, notifications: Arc<OnceLock<Weak<Notifications>>>) -> Self {
        Self { rules, notifications }
    }
}

impl JobKind for Follower {
    const NAME: &'static str = events::KIND;
    type Payload = Told;

    fn options(&self) -> KindOptions {
        KindOptions {
            description: "Tells of something that happened to whom the rules name.",
            queue: Some(events::QUEUE),
            example: r#"{"v":1,"id":"0192f0c1-2345-7abc-8def-0123456789ab","name":"item.created","at":"2026-11-21T08:00:00.000Z","subject":"0192f0c1-2345-7abc-8def-0123456789ac","data":{}}"#,
            internal: true,
            ..KindOptions::default()
        }
    }

    async fn run(&self, ctx: JobContext, Told(event): Told) -> Outcome {
        let Some(service) = self.notifications.get().and_then(Weak::upgrade) else {
            return Outcome::Retry(JobError::new("starting", "the process is starting or ending"));
        };
        let rules = match self.rules.on(&event.name).await {
            Ok(rules) => rules,
            Err(e) => return Outcome::Retry(JobError::new("rules", e.to_string())),
        };
        let (mut sent, mut broken, mut failed) = (0, Vec::new(), None);
        for kept in &rules {
            if ctx.is_cancelled() {
                return Outcome::Retry(JobError::new("stopped", "told to stop between two rules"));
            }
            match service.follow(kept, &event).await {
                Ok(n) => sent += n,
                // The key stands for this event and rule: it was followed before, with other recipients.
                Err(NotificationError::Jobs(e)) if e.kind() == Kind::Conflict => {}
                Err(e) if matches!(e.kind(), Kind::Unavailable | Kind::Internal) => failed = Some(e.to_string()),
                Err(e) => broken.push(format!("{}: {e}", kept.rule.name)),
            }
        }
        if let Some(e) = failed {
            return Outcome::Retry(JobError::new("store", e));
        }
        if !broken.is_empty() {
            // The other rules were followed. This one needs someone to mend it; then it can be replayed.
            return Outcome::Fail(JobError::new("rule", broken.join("; ")));
        }
        Outcome::done(&json!({ "rules": rules.len(), "notifications": sent }))
    }
}
