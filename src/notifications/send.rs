//! Sends notifications: the job kinds of the channels.
//!
//! ```text
//! judge ── skip ──▶ done        ── wait ──▶ postponed, no attempt spent
//!   └──── send ──▶ provider ── taken ──▶ done
//!                     └── fault: retried, retried later, postponed, dead letter; breaker and suppression list are told
//! ```
//! The claim of the job is the record that an attempt has begun, the end of the run that it has ended. A process that dies in
//! between leaves a run that is `lost`: whether the message went out is not known, and it is sent again.

use std::{sync::Arc, time::Duration};

use uuid::Uuid;

use super::{
    breaker::Outcome as Health,
    channels::{Address, Fault, SendError, greylist_wait},
    error::NotificationError,
    judge::{Case, Decision, Judge, Judged},
    model::{Channel, Ended, Payload, Report, Step, To, channel_of},
    refusals::weigh,
    service::Notifications,
    suppressions::{Reason, Suppression, name_of},
};
use crate::{
    base::{backoff::Backoff, failpoint, id::ContactId},
    jobs::{
        authority::KindRight,
        context::JobContext,
        kind::{JobKind, KindOptions, Outcome},
        model::JobError,
        registry::Registry,
    },
    telemetry::metrics as names,
};

/// One attempt and five retries.
const MAX_ATTEMPTS: u32 = 6;
/// Retries after a provider's fault: up to 2 s, 4 s, 8 s, 16 s, 32 s.
const BACKOFF: Backoff = Backoff { base_ms: 2_000, cap_ms: 600_000 };
/// Longest run of one attempt. Channels end sooner by themselves.
const TIMEOUT: Duration = Duration::from_secs(180);
/// How far those are spread that wait for a place in a rate limit or behind a breaker; further with each time in vain.
const CROWD: Backoff = Backoff { base_ms: 250, cap_ms: 60_000 };
/// Soonest that a refusal of our credentials is tried again.
const REFUSED_FOR: Duration = super::breaker::OPEN_FOR;
/// So much later, at least, than those that only wait for the breaker: whoever was refused probes last. Else one recipient whom a
/// relay refuses as if it meant us would be the first to probe each time, and nobody else would get through.
const BEHIND: Duration = Duration::from_secs(5);

/// Sends, for every channel's kind.
#[derive(Clone)]
pub struct Sender {
    judge: Judge,
    notifications: Arc<std::sync::OnceLock<std::sync::Weak<Notifications>>>,
}

impl Sender {
    /// A sender that acts on what `judge` decides.
    #[must_use]
    pub fn new(judge: Judge) -> Self {
        Self { judge, notifications: Arc::default() }
    }

    /// Tells it of the service, which needs the job queue, which needs this kind.
    pub fn serve(&self, service: &Arc<Notifications>) {
        drop(self.notifications.set(Arc::downgrade(service)));
    }

    /// Where the service will be found.
    #[must_use]
    pub fn service(&self) -> Arc<std::sync::OnceLock<std::sync::Weak<Notifications>>> {
        Arc::clone(&self.notifications)
    }

    /// Adds the kind of every channel.
    ///
    /// # Errors
    /// A sentence, if a name is taken.
    pub fn register(&self, registry: &mut Registry) -> Result<(), String> {
        registry.add(Email(self.clone()))?;
        registry.add(Push(self.clone()))?;
        registry.add(Webhook(self.clone()))?;
        registry.add(Console(self.clone()))
    }

    async fn run(&self, ctx: JobContext, channel: Channel, payload: Payload) -> Outcome {
        let case = Case {
            id: ctx.job_id().0,
            payload: &payload,
            channel,
            priority: ctx.priority(),
            accepted_at: ctx.created_at(),
        };
        if let Some(outcome) = self.expanded_before(case, &ctx).await {
            return outcome;
        }
        let Judged { steps, decision } = match self.judge.judge(case, false).await {
            Ok(judged) => judged,
            Err(e) => return Outcome::Retry(JobError::new("store", e.to_string())),
        };
        let count = |outcome: &'static str| {
            metrics::counter!(names::NOTIFICATIONS_ENDED, "channel" => channel.as_str(), "outcome" => outcome)
                .increment(1);
        };
        match decision {
            Decision::Skip(reason) => {
                count("skipped");
                done(Report { reason: Some(reason.to_owned()), ..report(Ended::Skipped, steps) })
            }
            Decision::Wait { code, until } => {
                count("postponed");
                let said = steps.last().map_or_else(String::new, |s| s.detail.clone());
                let wait = until.since(self.judge.clock.now());
                // Of many that wait for one place one gets it: they must not all come back at the same moment.
                let spread = if code == "quiet_hours" { Duration::ZERO } else { CROWD.delay(crowd(ctx.run())) };
                Outcome::Postpone(JobError::new(code, said), wait + spread)
            }
            Decision::Fail { code, message } => {
                count("failed");
                Outcome::Fail(JobError::new(code, message))
            }
            Decision::Expand(endpoints) => {
                count("expanded");
                self.expand(case, &ctx, &endpoints, steps).await
            }
            Decision::Send { message, provider, endpoint } => {
                failpoint::hit("notifications.before_send");
                let sent = self.judge.way_to(&message.to).send(&message).await;
                failpoint::hit("notifications.after_send");
                match sent {
                    Ok(receipt) => {
                        self.judge.breakers.report(&provider, Health::Success, "").await;
                        count("delivered");
                        tracing::debug!(notification = %case.id, provider, answer = receipt.answer, "notification delivered");
                        done(Report {
                            provider: Some(provider),
                            provider_id: receipt.provider_id,
                            answer: Some(receipt.answer),
                            ..report(Ended::Delivered, steps)
                        })
                    }
                    Err(e) => {
                        let outcome = self.failed(case, &message.to, &provider, endpoint, e, ctx.attempt()).await;
                        count(match &outcome {
                            Outcome::Fail(_) => "failed",
                            Outcome::Postpone(..) => "postponed",
                            Outcome::Retry(e) | Outcome::RetryAfter(e, _) if e.code.starts_with("ambiguous") => {
                                "ambiguous"
                            }
                            _ => "retried",
                        });
                        outcome
                    }
                }
            }
        }
    }

    /// What a fault means for the job, its provider and its recipient.
    async fn failed(
        &self,
        case: Case<'_>,
        to: &Address,
        provider: &str,
        endpoint: Option<Uuid>,
        e: SendError,
        attempt: u32,
    ) -> Outcome {
        let e = self.weighed(provider, to, e).await;
        let said = e.to_string();
        let code = match e.fault {
            Fault::Ambiguous => format!("ambiguous_{}", e.code),
            _ => e.code.clone(),
        };
        let error = JobError::new(code, e.message.clone());
        match e.fault {
            Fault::Provider | Fault::Ambiguous => match e.retry_after {
                Some(wait) => Outcome::RetryAfter(error, wait),
                None => Outcome::Retry(error),
            },
            Fault::Later => {
                // Grey-listing needs minutes; push and webhooks say themselves how long.
                let wait = e.retry_after.unwrap_or_else(|| patience(attempt));
                Outcome::RetryAfter(error, wait)
            }
            Fault::Configuration => {
                tracing::error!(
                    provider,
                    code = e.code,
                    error = e.message,
                    "the provider does not let us in: mend the configuration"
                );
                if case.is_overdue(self.judge.clock.now()) {
                    return Outcome::Fail(JobError::new("given_up", format!("not sent within 3 days: {said}")));
                }
                let behind = BEHIND + Duration::from_millis(fastrand::u64(0..2_000));
                Outcome::Postpone(error, e.retry_after.unwrap_or(REFUSED_FOR) + behind)
            }
            Fault::Recipient { suppress } => {
                if suppress {
                    self.suppress(case, to, endpoint, &said).await;
                }
                Outcome::Fail(error)
            }
            Fault::Message => Outcome::Fail(error),
        }
    }

    /// Tells the breaker of a fault. What a refusal is beside those before it may be another fault than it is alone.
    async fn weighed(&self, provider: &str, to: &Address, e: SendError) -> SendError {
        let breakers = &self.judge.breakers;
        let recipient = name_of(to).map(|(_, address)| address);
        match (&e.refusal, recipient) {
            (Some(refusal), Some(recipient)) => {
                let meaning = breakers.refused(provider, refusal, &recipient).await;
                let (fault, message) = weigh(e.fault, refusal, meaning);
                SendError { fault, message: message.unwrap_or(e.message), refusal: None, ..e }
            }
            _ => {
                let health = match e.fault {
                    Fault::Provider | Fault::Ambiguous => Health::Failure,
                    Fault::Configuration => Health::Refusal,
                    Fault::Later => Health::Answered,
                    Fault::Recipient { .. } | Fault::Message => Health::Success,
                };
                breakers.report(provider, health, &e.to_string()).await;
                e
            }
        }
    }

    /// Keeps the address from being tried again. A failure to write that is told, and found out again by the next message.
    async fn suppress(&self, case: Case<'_>, to: &Address, endpoint: Option<Uuid>, said: &str) {
        let Some((channel, address)) = name_of(to) else { return };
        let reason = match channel {
            Channel::Email => Reason::HardBounce,
            Channel::Push => Reason::Unregistered,
            // Its owner enables it again, which takes it off the list.
            Channel::Webhook | Channel::Console => Reason::Gone,
        };
        let detail = Some(format!("notification {}: {said}", case.id));
        let entry = Suppression { channel, address, category: None, reason, detail };
        if let Err(e) = self.judge.suppressions.add(entry).await {
            tracing::warn!(notification = %case.id, error = %e, "address not put on the suppression list");
        }
        let (To::User(user), Some(endpoint)) = (&case.payload.to, endpoint) else { return };
        let dropped = match channel {
            Channel::Push => self.judge.users.drop_push_token(*user, ContactId(endpoint)).await,
            Channel::Webhook => self.judge.users.disable_endpoint(*user, ContactId(endpoint)).await,
            Channel::Email | Channel::Console => Ok(()),
        };
        if let Err(e) = dropped {
            tracing::warn!(notification = %case.id, user = %user, error = %e, "address not taken from its user");
        }
    }

    /// What a run made that died before it could say so. Looked up before anything is judged: the user may have one address
    /// left by now, and would get the message twice.
    async fn expanded_before(&self, case: Case<'_>, ctx: &JobContext) -> Option<Outcome> {
        let splits = matches!(case.channel, Channel::Push | Channel::Webhook) && case.payload.parent.is_none();
        if !splits || ctx.run() <= 1 {
            return None;
        }
        let service = self.notifications.get().and_then(std::sync::Weak::upgrade)?;
        match service.expanded(case.id).await {
            Ok(parts) => parts.map(|parts| done(Report { parts, ..report(Ended::Expanded, Vec::new()) })),
            Err(e) => Some(Outcome::Retry(JobError::new("store", e.to_string()))),
        }
    }

    /// One notification for each address, under the parent's id as key: done again, it makes none.
    async fn expand(&self, case: Case<'_>, ctx: &JobContext, endpoints: &[Uuid], steps: Vec<Step>) -> Outcome {
        let Some(service) = self.notifications.get().and_then(std::sync::Weak::upgrade) else {
            return Outcome::Retry(JobError::new("starting", "the process is starting or ending"));
        };
        let made: Result<Vec<Uuid>, NotificationError> =
            service.expand(case, endpoints, ctx.correlation_id().map(str::to_owned)).await;
        match made {
            Ok(parts) => done(Report { parts, ..report(Ended::Expanded, steps) }),
            Err(e) => Outcome::Retry(JobError::new("expand", e.to_string())),
        }
    }
}

/// How long a relay that asks for patience is left alone, spread by a quarter.
fn patience(attempt: u32) -> Duration {
    let wait = greylist_wait(attempt);
    wait + Duration::from_millis(fastrand::u64(0..=u64::try_from(wait.as_millis() / 4).unwrap_or(0)))
}

/// How often a run that is the `run`-th may have come in vain, as far as it matters.
fn crowd(run: u64) -> u32 {
    u32::try_from(run.saturating_sub(1)).unwrap_or(u32::MAX).min(16)
}

fn report(status: Ended, steps: Vec<Step>) -> Report {
    Report {
        v: Report::VERSION,
        status,
        reason: None,
        provider: None,
        provider_id: None,
        answer: None,
        parts: Vec::new(),
        steps,
    }
}

fn done(report: Report) -> Outcome {
    Outcome::done(&report)
}

macro_rules! kind {
    ($name:ident, $channel:literal, $description:literal, $example:literal) => {
        struct $name(Sender);

        impl JobKind for $name {
            const NAME: &'static str = concat!("notification.", $channel);
            type Payload = Payload;

            fn options(&self) -> KindOptions {
                KindOptions {
                    description: $description,
                    queue: Some($channel),
                    max_attempts: Some(MAX_ATTEMPTS),
                    backoff: Some(BACKOFF),
                    timeout: Some(TIMEOUT),
                    example: $example,
                    internal: true,
                    right: KindRight::Notifications,
                    ..KindOptions::default()
                }
            }

            async fn run(&self, ctx: JobContext, payload: Payload) -> Outcome {
                match channel_of(Self::NAME) {
                    Some(channel) => self.0.run(ctx, channel, payload).await,
                    None => Outcome::Fail(JobError::new("channel", "this kind is no channel's")),
                }
            }
        }
    };
}

kind!(
    Email,
    "email",
    "Sends one mail.",
    r#"{"v":1,"to":{"email":"ada@example.com"},"template":{"code":"welcome","locale":"default","version":1}}"#
);
kind!(
    Push,
    "push",
    "Sends a push message to one device or browser.",
    r#"{"v":1,"to":{"user_id":"0192f0c1-2345-7abc-8def-0123456789ab"},"template":{"code":"welcome","locale":"default","version":1}}"#
);
kind!(
    Webhook,
    "webhook",
    "Calls one webhook.",
    r#"{"v":1,"to":{"user_id":"0192f0c1-2345-7abc-8def-0123456789ab"},"template":{"code":"event","locale":"default","version":0}}"#
);
kind!(
    Console,
    "console",
    "Writes one line to the log.",
    r#"{"v":1,"to":{"console":true},"template":{"code":"event","locale":"default","version":0}}"#
);
