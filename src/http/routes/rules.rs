//! `/api/v1/rules`: what is sent when something happens; and `/api/v1/events`: what happened.

use actix_web::{HttpResponse, http::StatusCode, web::Data};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{Routes, users::location};
use crate::{
    base::{
        clock::Timestamp,
        id::{KindName, Priority, RecordId},
    },
    events::{self, Event},
    http::{
        HttpState,
        endpoint::Endpoint,
        extract::{Json, PathParam, Query, RequestBody},
        job_body::{PriorityDoc, StateDoc},
        notification_body::ChannelDoc,
        problem::{Problem, at_most},
        response::{List, json},
    },
    jobs::{model::Job, state::State, store::JobFilter},
    notifications::{
        model::Channel,
        rules::{Kept, Recipient, Rule},
    },
    users::Right,
};

pub(crate) fn register(routes: &mut Routes<'_>) {
    Endpoint::at("/api/v1/rules").post(Right::TemplatesWrite, create).get(Right::TemplatesRead, list).register(routes);
    Endpoint::at("/api/v1/rules/{id}")
        .get(Right::TemplatesRead, read)
        .put(Right::TemplatesWrite, replace)
        .delete(Right::TemplatesWrite, remove)
        .register(routes);
    Endpoint::at("/api/v1/events").get(Right::NotificationsRead, list_events).register(routes);
}

/// Who gets what a rule sends: exactly one of these.
#[derive(ToSchema)]
#[schema(as = RuleRecipient, example = json!({"email": "ops@example.com"}))]
#[allow(dead_code, reason = "documents a type that does not know this API")]
pub(crate) struct RecipientDoc {
    /// A user.
    #[schema(required = false, format = Uuid)]
    user_id: Option<String>,
    /// A mailbox.
    #[schema(required = false)]
    email: Option<String>,
    /// The log.
    #[schema(required = false)]
    console: Option<bool>,
    /// The user that the event is about (`user.registered`).
    #[schema(required = false)]
    subject: Option<bool>,
}

/// What is sent to whom when something happens.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewRule, example = json!({
    "name": "tell-ops", "on": "item.created", "notification_type": "email", "template_code": "event-mail",
    "recipients": [{"email": "ops@example.com"}],
}))]
pub(crate) struct RuleBody {
    /// Names it.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z0-9_][a-z0-9_.-]*$")]
    name: String,
    /// The event.
    #[schema(example = "item.created", max_length = 64)]
    on: String,
    /// How it is sent.
    #[schema(value_type = ChannelDoc)]
    notification_type: Channel,
    /// What is sent: a template, which is told `event` with `id`, `name`, `at`, `subject` and `data`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z0-9_][a-z0-9_.-]*$")]
    template_code: String,
    /// Who gets it.
    #[schema(value_type = Vec<RecipientDoc>, min_items = 1, max_items = 100)]
    recipients: Vec<Recipient>,
    /// What sort of message it is.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z0-9_][a-z0-9_.-]*$")]
    category: Option<String>,
    /// How urgent it is.
    #[schema(value_type = Option<PriorityDoc>)]
    priority: Option<Priority>,
    /// Whether it is in force.
    #[serde(default = "yes")]
    #[schema(required = false, default = true)]
    enabled: bool,
}

fn yes() -> bool {
    true
}

impl RequestBody for RuleBody {}

impl From<RuleBody> for Rule {
    fn from(b: RuleBody) -> Self {
        Self {
            name: b.name,
            on: b.on,
            channel: b.notification_type,
            template_code: b.template_code,
            recipients: b.recipients,
            category: b.category,
            priority: b.priority,
            enabled: b.enabled,
        }
    }
}

/// A rule.
#[derive(Serialize, ToSchema)]
#[schema(as = Rule, example = json!({
    "id": "0192f0c1-2345-7abc-8def-0123456789ab", "name": "tell-ops", "on": "item.created", "notification_type": "email",
    "template_code": "event-mail", "recipients": [{"email": "ops@example.com"}], "category": null, "priority": null,
    "enabled": true, "created_at": "2026-11-21T08:00:00.000Z", "updated_at": "2026-11-21T08:00:00.000Z",
}))]
pub(crate) struct KeptRuleBody {
    /// Names it.
    #[schema(value_type = String, format = Uuid)]
    id: RecordId,
    /// Its name.
    name: String,
    /// The event.
    on: String,
    /// How it is sent.
    #[schema(value_type = ChannelDoc)]
    notification_type: Channel,
    /// What is sent.
    template_code: String,
    /// Who gets it.
    #[schema(value_type = Vec<RecipientDoc>)]
    recipients: Vec<Recipient>,
    /// What sort of message it is, or null.
    #[schema(required)]
    category: Option<String>,
    /// How urgent it is, or null.
    #[schema(required, value_type = Option<u8>)]
    priority: Option<Priority>,
    /// Whether it is in force.
    enabled: bool,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl From<Kept> for KeptRuleBody {
    fn from(Kept { id, created_at, updated_at, rule: r }: Kept) -> Self {
        Self {
            id: RecordId(id),
            name: r.name,
            on: r.on,
            notification_type: r.channel,
            template_code: r.template_code,
            recipients: r.recipients,
            category: r.category,
            priority: r.priority,
            enabled: r.enabled,
            created_at,
            updated_at,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// At most this many entries; 50 if not given.
    #[param(minimum = 1, maximum = 200, example = 50)]
    limit: Option<u32>,
    /// Where the page starts: `meta.next_cursor` of the page before.
    #[param(pattern = "^c1_[0-9a-f]{32}$")]
    cursor: Option<String>,
}

/// Makes a rule
#[utoipa::path(post, path = "/api/v1/rules", tag = "rules", operation_id = "create_rule", request_body = RuleBody,
    responses((status = 201, description = "Made", body = KeptRuleBody,
            headers(("Location" = String, description = "The rule's path"))),
        (status = 409, description = "Another rule has this name")))]
pub(crate) async fn create(state: Data<HttpState>, Json(body): Json<RuleBody>) -> Result<HttpResponse, Problem> {
    let kept = state.post.rules.create(body.into()).await?;
    let id = kept.id;
    let mut response = json(StatusCode::CREATED, &KeptRuleBody::from(kept))?;
    location(&mut response, "/api/v1/rules", id);
    Ok(response)
}

/// Lists rules, newest first; those of the configuration are not among them
#[utoipa::path(get, path = "/api/v1/rules", tag = "rules", operation_id = "list_rules", params(ListParams),
    responses((status = 200, description = "One page of rules", body = List<KeptRuleBody>,
        example = json!({"data": [], "meta": {"limit": 50, "next_cursor": null, "has_next": false}}))))]
pub(crate) async fn list(state: Data<HttpState>, Query(query): Query<ListParams>) -> Result<HttpResponse, Problem> {
    let page = state.limits.page(query.limit, query.cursor.as_deref())?;
    let found = state.post.rules.list(page).await?;
    json(StatusCode::OK, &List::of(found, &page, KeptRuleBody::from))
}

/// Reads a rule
#[utoipa::path(get, path = "/api/v1/rules/{id}", tag = "rules", operation_id = "read_rule",
    params(("id" = Uuid, Path, description = "The rule's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    responses((status = 200, description = "The rule", body = KeptRuleBody)))]
pub(crate) async fn read(state: Data<HttpState>, PathParam(id): PathParam<RecordId>) -> Result<HttpResponse, Problem> {
    json(StatusCode::OK, &KeptRuleBody::from(state.post.rules.get(id.0).await?))
}

/// Replaces a rule
#[utoipa::path(put, path = "/api/v1/rules/{id}", tag = "rules", operation_id = "replace_rule",
    params(("id" = Uuid, Path, description = "The rule's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    request_body = RuleBody,
    responses((status = 200, description = "The rule as it is now", body = KeptRuleBody),
        (status = 409, description = "Another rule has this name, or others change it")))]
pub(crate) async fn replace(
    state: Data<HttpState>,
    PathParam(id): PathParam<RecordId>,
    Json(body): Json<RuleBody>,
) -> Result<HttpResponse, Problem> {
    json(StatusCode::OK, &KeptRuleBody::from(state.post.rules.replace(id.0, body.into()).await?))
}

/// Removes a rule
#[utoipa::path(delete, path = "/api/v1/rules/{id}", tag = "rules", operation_id = "delete_rule",
    params(("id" = Uuid, Path, description = "The rule's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    responses((status = 204, description = "Removed")))]
pub(crate) async fn remove(
    state: Data<HttpState>,
    PathParam(id): PathParam<RecordId>,
) -> Result<HttpResponse, Problem> {
    state.post.rules.remove(id.0).await?;
    Ok(HttpResponse::NoContent().finish())
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventParams {
    /// At most this many entries; 50 if not given.
    #[param(minimum = 1, maximum = 200, example = 50)]
    limit: Option<u32>,
    /// Where the page starts: `meta.next_cursor` of the page before.
    #[param(pattern = "^c1_[0-9a-f]{32}$")]
    cursor: Option<String>,
    /// Of this name.
    #[param(max_length = 64, example = "item.created")]
    name: Option<String>,
    /// About what has this id.
    #[param(max_length = 200)]
    subject: Option<String>,
}

/// Something that happened, and how far it was told.
#[derive(Serialize, ToSchema)]
#[schema(as = Event, example = json!({
    "id": "0192f0c1-2345-7abc-8def-0123456789ab", "name": "item.created", "at": "2026-11-21T08:00:00.000Z",
    "subject": "0192f0c1-2345-7abc-8def-0123456789ac", "data": {"name": "Desk lamp"}, "state": "succeeded",
    "notifications": 1, "correlation_id": null,
}))]
pub(crate) struct EventBody {
    /// Names it.
    #[schema(value_type = String, format = Uuid)]
    id: RecordId,
    /// What happened.
    name: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Id of what it happened to.
    subject: String,
    /// What it was like then.
    #[schema(value_type = Object)]
    data: Value,
    /// `succeeded` once every rule was followed.
    #[schema(value_type = StateDoc)]
    state: State,
    /// How many notifications the rules made of it; null until then.
    #[schema(required)]
    notifications: Option<u64>,
    /// The request that caused it, or null.
    #[schema(required)]
    correlation_id: Option<String>,
}

impl EventBody {
    fn of(job: &Job) -> Option<Self> {
        let event: Event = serde_json::from_str(job.spec.payload.get()).ok()?;
        let result: Option<Value> = job.result.as_ref().and_then(|r| serde_json::from_str(r.get()).ok());
        Some(Self {
            id: RecordId(event.id),
            name: event.name,
            at: event.at,
            subject: event.subject,
            data: event.data,
            state: job.state,
            notifications: result.and_then(|r| r.get("notifications")?.as_u64()),
            correlation_id: event.correlation_id,
        })
    }
}

/// Lists events, newest first
///
/// A page may be shorter than asked for and still not be the last: `has_next` is the truth.
#[utoipa::path(get, path = "/api/v1/events", tag = "rules", operation_id = "list_events", params(EventParams),
    responses((status = 200, description = "One page of events", body = List<EventBody>,
        example = json!({"data": [], "meta": {"limit": 50, "next_cursor": null, "has_next": false}}))))]
pub(crate) async fn list_events(
    state: Data<HttpState>,
    Query(query): Query<EventParams>,
) -> Result<HttpResponse, Problem> {
    let page = state.limits.page(query.limit, query.cursor.as_deref())?;
    at_most("name", query.name.as_deref(), 64)?;
    at_most("subject", query.subject.as_deref(), 200)?;
    let kind = KindName::new(events::KIND).map_err(|m| Problem::invalid_field("kind", m))?;
    let tags = query.name.into_iter().chain(query.subject.map(|s| format!("subject:{s}"))).collect();
    let filter = JobFilter { kind: Some(kind), tags, ..JobFilter::default() };
    let found = state.jobs.list(&filter, page).await?;
    let data = found.data.iter().filter_map(EventBody::of).collect();
    let found = crate::base::page::Page { data, next: found.next };
    json(StatusCode::OK, &List::of(found, &page, |event| event))
}
