//! The notification as clients see it: alone, in lists, and with the way it went.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    base::{clock::Timestamp, id::JobId},
    jobs::model::{Attempt, AttemptOutcome},
    notifications::{
        judge::{Decision, Judged},
        model::{Channel, Notification, Payload, Status, Step, To},
    },
};

/// How [`Channel`] is documented.
#[derive(ToSchema)]
#[schema(as = Channel, rename_all = "snake_case")]
#[allow(dead_code, reason = "documents a type that does not know this API")]
pub(crate) enum ChannelDoc {
    Email,
    Push,
    Webhook,
    Console,
}

/// How [`Status`] is documented.
#[derive(ToSchema)]
#[schema(as = NotificationStatus, rename_all = "snake_case")]
#[allow(dead_code, reason = "documents a type that does not know this API")]
pub(crate) enum StatusDoc {
    Queued,
    Scheduled,
    Postponed,
    Retrying,
    Sending,
    Delivered,
    Expanded,
    Skipped,
    Failed,
    Cancelled,
}

/// Who gets a message: exactly one of these.
#[derive(ToSchema)]
#[schema(as = Recipient, example = json!({"user_id": "0192f0c1-2345-7abc-8def-0123456789ab"}))]
#[allow(dead_code, reason = "documents a type that does not know this API")]
pub(crate) struct ToDoc {
    /// A user, at the addresses that are known when it is sent.
    #[schema(required = false, format = Uuid)]
    user_id: Option<String>,
    /// A mailbox of nobody in particular.
    #[schema(required = false)]
    email: Option<String>,
    /// The log.
    #[schema(required = false)]
    console: Option<bool>,
}

/// The version of a template that a notification was accepted with.
#[derive(Serialize, ToSchema)]
#[schema(as = FrozenTemplate)]
pub(crate) struct FrozenBody {
    /// Its code.
    code: String,
    /// The language that was found.
    locale: String,
    /// Its version in that language; 0 for one that comes with the program.
    version: u64,
}

/// A notification.
#[derive(Serialize, ToSchema)]
#[schema(as = Notification, example = json!({
    "id": "0192f0c1-2345-7abc-8def-0123456789ab", "status": "queued", "notification_type": "email",
    "to": {"user_id": "0192f0c1-2345-7abc-8def-0123456789ac"},
    "template": {"code": "welcome", "locale": "default", "version": 1}, "variables": {"name": "Ada"},
    "category": "onboarding", "priority": 5, "request_id": null, "parent_id": null, "parts": [],
    "created_at": "2026-11-21T08:00:00.000Z", "due_at": null, "finished_at": null, "reason": null, "error": null,
    "provider": null, "provider_id": null, "answer": null, "attempts": [], "correlation_id": null,
}))]
pub(crate) struct NotificationBody {
    /// Names it; later ones have greater ids.
    #[schema(value_type = String, format = Uuid)]
    id: JobId,
    /// Where it is in its life.
    #[schema(value_type = StatusDoc)]
    status: Status,
    /// The channel it goes by.
    #[schema(value_type = ChannelDoc)]
    notification_type: Channel,
    /// Who gets it.
    #[schema(value_type = ToDoc)]
    to: To,
    /// What it says.
    template: FrozenBody,
    /// What was put into the template.
    #[schema(value_type = Object)]
    variables: Map<String, Value>,
    /// What sort of message it is, or null.
    #[schema(required)]
    category: Option<String>,
    /// 10 is sent first, 1 last.
    #[schema(minimum = 1, maximum = 10)]
    priority: u8,
    /// The caller's key for the request, or null.
    #[schema(required)]
    request_id: Option<String>,
    /// The notification that this one is a part of, or null.
    #[schema(required, value_type = Option<String>, format = Uuid)]
    parent_id: Option<Uuid>,
    /// The notifications that it was split into, one for each address.
    #[schema(value_type = Vec<String>)]
    parts: Vec<Uuid>,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it is to be sent, if that is later; else null.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    due_at: Option<Timestamp>,
    /// When it ended, or null.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
    /// Why it was skipped: `preference`, `suppressed`, `no_address`, `user_disabled`; else null.
    #[schema(required)]
    reason: Option<String>,
    /// Why it failed last, or null.
    #[schema(required)]
    error: Option<SendErrorBody>,
    /// Who took it, or null.
    #[schema(required)]
    provider: Option<String>,
    /// The provider's id for it, or null.
    #[schema(required)]
    provider_id: Option<String>,
    /// What the provider answered, or null.
    #[schema(required)]
    answer: Option<String>,
    /// Every run that ended, oldest first.
    attempts: Vec<SendAttemptBody>,
    /// The request that made it, or null.
    #[schema(required)]
    correlation_id: Option<String>,
}

/// Why a run did not send.
#[derive(Serialize, ToSchema)]
#[schema(as = SendError)]
pub(crate) struct SendErrorBody {
    /// A stable word for programs, such as `smtp_451` or `quiet_hours`.
    code: String,
    /// A sentence for people.
    message: String,
}

/// A run that ended.
#[derive(Serialize, ToSchema)]
#[schema(as = SendAttempt)]
pub(crate) struct SendAttemptBody {
    /// Its number, from 1.
    run: u64,
    /// When it began, before anything was sent.
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// When it ended or was given up.
    #[schema(value_type = String, format = DateTime)]
    finished_at: Timestamp,
    /// How it ended: `succeeded`, `failed`, `snoozed` (put off), `lost` (the process died), and so on.
    outcome: &'static str,
    /// Nobody knows whether the message went out: the process died, or the provider's answer was lost.
    ambiguous: bool,
    /// Why, if not well.
    #[schema(required)]
    error: Option<SendErrorBody>,
    /// When it was to be tried again because of it.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    retry_at: Option<Timestamp>,
}

impl SendAttemptBody {
    fn of(a: &Attempt) -> Self {
        let told_so = a.error.as_ref().is_some_and(|e| e.code.starts_with("ambiguous"));
        Self {
            run: a.run,
            started_at: a.started_at,
            finished_at: a.finished_at,
            outcome: a.outcome.as_str(),
            ambiguous: told_so || matches!(a.outcome, AttemptOutcome::Lost | AttemptOutcome::TimedOut),
            error: a.error.as_ref().map(|e| SendErrorBody { code: e.code.clone(), message: e.message.clone() }),
            retry_at: a.retry_at,
        }
    }
}

impl NotificationBody {
    /// The notification as the client sees it.
    pub(crate) fn of(n: &Notification) -> Self {
        let (job, payload, report) = (&n.job, &n.payload, n.report.as_ref());
        Self {
            id: job.id,
            status: n.status(),
            notification_type: n.channel,
            to: payload.to.clone(),
            template: frozen(payload),
            variables: payload.variables.clone(),
            category: payload.category.clone(),
            priority: job.priority.get(),
            request_id: payload.request_id.clone(),
            parent_id: payload.parent,
            parts: report.map(|r| r.parts.clone()).unwrap_or_default(),
            created_at: job.created_at,
            due_at: n.due_at(),
            finished_at: job.finished_at(),
            reason: report.and_then(|r| r.reason.clone()),
            error: job.error.as_ref().map(|e| SendErrorBody { code: e.code.clone(), message: e.message.clone() }),
            provider: report.and_then(|r| r.provider.clone()),
            provider_id: report.and_then(|r| r.provider_id.clone()),
            answer: report.and_then(|r| r.answer.clone()),
            attempts: job.attempts.iter().map(SendAttemptBody::of).collect(),
            correlation_id: job.spec.correlation_id.clone(),
        }
    }
}

fn frozen(payload: &Payload) -> FrozenBody {
    let t = payload.template.clone();
    FrozenBody { code: t.code, locale: t.locale, version: t.version }
}

/// One decision on the way.
#[derive(Serialize, ToSchema)]
#[schema(as = TraceStep)]
pub(crate) struct StepBody {
    /// What was looked at: `recipient`, `preference`, `suppression`, `quiet_hours`, `template`, `rate_limit`, `breaker`.
    step: String,
    /// `pass`, `wait` or `stop`.
    outcome: String,
    /// Why, for people.
    detail: String,
}

impl StepBody {
    fn all(steps: &[Step]) -> Vec<Self> {
        let body = |s: &Step| Self { step: s.step.clone(), outcome: s.outcome.clone(), detail: s.detail.clone() };
        steps.iter().map(body).collect()
    }
}

/// What would become of a notification now.
#[derive(Serialize, ToSchema)]
#[schema(as = Outlook, example = json!({
    "decision": "send", "reason": null, "until": null, "template": {"code": "welcome", "locale": "default", "version": 1},
    "locales": ["pt-BR", "pt", "default"],
    "steps": [{"step": "preference", "outcome": "pass", "detail": "decided by default"}],
}))]
pub(crate) struct OutlookBody {
    /// `send`, `expand` (one for each address), `wait`, `skip` or `fail`.
    decision: &'static str,
    /// Why it would be skipped, put off or fail, or null.
    #[schema(required)]
    reason: Option<String>,
    /// Until when it would wait, or null.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// The template that was found.
    template: FrozenBody,
    /// The languages that were looked for, in order.
    locales: Vec<String>,
    /// The way to the decision.
    steps: Vec<StepBody>,
}

impl OutlookBody {
    /// The outlook as the client sees it.
    pub(crate) fn of(payload: &Payload, judged: &Judged) -> Self {
        let (reason, until) = match &judged.decision {
            Decision::Send { .. } | Decision::Expand(_) => (None, None),
            Decision::Skip(reason) => (Some((*reason).to_owned()), None),
            Decision::Wait { code, until } => (Some((*code).to_owned()), Some(*until)),
            Decision::Fail { code, .. } => (Some((*code).to_owned()), None),
        };
        Self {
            decision: judged.decision.as_str(),
            reason,
            until,
            template: frozen(payload),
            locales: payload.locales.clone(),
            steps: StepBody::all(&judged.steps),
        }
    }
}

/// Why a notification is where it is.
#[derive(Serialize, ToSchema)]
#[schema(as = NotificationTrace, example = json!({
    "id": "0192f0c1-2345-7abc-8def-0123456789ab", "status": "delivered", "request_id": "welcome-4711",
    "template": {"code": "welcome", "locale": "default", "version": 1}, "locales": ["pt-BR", "pt", "default"],
    "steps": [{"step": "preference", "outcome": "pass", "detail": "decided by preferences.channel"}], "outlook": null,
    "attempts": [{"run": 1, "started_at": "2026-11-21T08:00:00.000Z", "finished_at": "2026-11-21T08:00:00.100Z",
        "outcome": "succeeded", "ambiguous": false, "error": null, "retry_at": null}],
    "next_attempt_at": null,
}))]
pub(crate) struct TraceBody {
    /// Names the notification.
    #[schema(value_type = String, format = Uuid)]
    id: JobId,
    /// Where it is in its life.
    #[schema(value_type = StatusDoc)]
    status: Status,
    /// The key under which the same request would get the same notification, or null.
    #[schema(required)]
    request_id: Option<String>,
    /// The template that was found when it was accepted.
    template: FrozenBody,
    /// The languages that were looked for, in order.
    locales: Vec<String>,
    /// The decisions at its last run, if it has ended well.
    steps: Vec<StepBody>,
    /// What would become of it now, if it has not ended; else null.
    #[schema(required)]
    outlook: Option<OutlookBody>,
    /// Every run that ended, oldest first.
    attempts: Vec<SendAttemptBody>,
    /// When it is tried next, or null.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<Timestamp>,
}

impl TraceBody {
    /// The trace as the client sees it.
    pub(crate) fn of(n: &Notification, outlook: Option<&Judged>) -> Self {
        Self {
            id: n.job.id,
            status: n.status(),
            request_id: n.payload.request_id.clone(),
            template: frozen(&n.payload),
            locales: n.payload.locales.clone(),
            steps: n.report.as_ref().map(|r| StepBody::all(&r.steps)).unwrap_or_default(),
            outlook: outlook.map(|judged| OutlookBody::of(&n.payload, judged)),
            attempts: n.job.attempts.iter().map(SendAttemptBody::of).collect(),
            next_attempt_at: n.due_at(),
        }
    }
}
