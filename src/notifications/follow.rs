//! Follows events: the job kind that looks up the rules for what happened and sends what they say.

use std::sync::{Arc, OnceLock, Weak};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    error::NotificationError,
    model::To,
    rules::{self, Kept, Rules},
    service::{Notifications, Send, ids, read_ids},
};
use crate::{
    base::error::{FieldError, Kind},
    events::{self, Event},
    jobs::{
        authority::KindRight,
        context::JobContext,
        kind::{JobKind, KindOptions, Outcome},
        model::JobError,
        service::{Key, Origin},
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
            right: KindRight::Notifications,
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

impl Notifications {
    /// Sends what the rules say about an event. Done again, it sends nothing twice. Answers how much was sent.
    ///
    /// # Errors
    /// If a store fails, or a rule cannot be followed.
    pub async fn follow(&self, kept: &Kept, event: &Event) -> Result<usize, NotificationError> {
        let rule = &kept.rule;
        let to: Vec<(To, String)> = rule
            .recipients
            .iter()
            .enumerate()
            .filter_map(|(i, r)| Some((r.of(event)?, format!("rule {}: recipients[{i}]", rule.name))))
            .collect();
        let (to, gone) = self.present(to).await?;
        let sent = if to.is_empty() { 0 } else { self.send_to(kept, event, to).await? };
        // Told after the others were sent to: one who is gone keeps nothing from them.
        if gone.is_empty() { Ok(sent) } else { Err(NotificationError::Invalid(gone)) }
    }

    /// Those who can be sent to, and what to say of users that are gone.
    async fn present(&self, all: Vec<(To, String)>) -> Result<(Vec<(To, String)>, Vec<FieldError>), NotificationError> {
        let (mut there, mut gone) = (Vec::with_capacity(all.len()), Vec::new());
        for (to, field) in all {
            if let To::User(id) = to {
                match self.judge().users.get(id).await {
                    Ok(_) => {}
                    Err(e) if e.kind() == Kind::NotFound => {
                        gone.push(FieldError::new(field, e.to_string()));
                        continue;
                    }
                    Err(e) => return Err(e.into()),
                }
            }
            there.push((to, field));
        }
        Ok((there, gone))
    }

    async fn send_to(&self, kept: &Kept, event: &Event, to: Vec<(To, String)>) -> Result<usize, NotificationError> {
        let rule = &kept.rule;
        let send = Send {
            channel: rule.channel,
            to,
            template_code: rule.template_code.clone(),
            locale: None,
            variables: rules::variables(event),
            category: rule.category.clone(),
            priority: rule.priority,
            send_at: None,
            request_id: None,
        };
        let key = Key {
            scope: "event".to_owned(),
            // A rule of the configuration has no id, and one in the store may have the same name.
            key: format!("{}/{}", event.id, if kept.id.is_nil() { rule.name.clone() } else { kept.id.to_string() }),
            request: Sha256::digest(event.id.as_bytes()).into(),
        };
        let origin = Origin { correlation_id: event.correlation_id.clone(), ..Origin::default() };
        let sent = self.send(&send, &origin, Some(key), ids).await?;
        Ok(read_ids(&sent.answer)?.len())
    }
}
