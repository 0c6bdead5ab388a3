//! `/api/v1/suppressions`: addresses that nothing is sent to.

use actix_web::{HttpResponse, http::StatusCode, web::Data};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Routes;
use crate::{
    base::{clock::Timestamp, id::RecordId},
    http::{
        HttpState,
        endpoint::Endpoint,
        extract::{Json, PathParam, Query, RequestBody},
        notification_body::ChannelDoc,
        problem::{Problem, at_most},
        response::{List, json},
    },
    notifications::{
        model::Channel,
        suppressions::{Listed, Meant, Reason, Suppression},
    },
    users::Right,
};

pub(crate) fn register(routes: &mut Routes<'_>) {
    Endpoint::at("/api/v1/suppressions")
        .get(Right::TemplatesRead, list_suppressions)
        .post(Right::TemplatesWrite, add_suppression)
        .delete(Right::TemplatesWrite, remove_suppressions)
        .register(routes);
    Endpoint::at("/api/v1/suppressions/{id}").delete(Right::TemplatesWrite, remove_suppression).register(routes);
}

/// How [`Reason`] is documented.
#[derive(ToSchema)]
#[schema(as = SuppressionReason, rename_all = "snake_case")]
#[allow(dead_code, reason = "documents a type that does not know this API")]
pub(crate) enum ReasonDoc {
    HardBounce,
    Unregistered,
    Gone,
    Unsubscribed,
    Manual,
}

/// An address that nothing is sent to.
#[derive(Serialize, ToSchema)]
#[schema(as = Suppression, example = json!({
    "id": "0192f0c1-2345-7abc-8def-0123456789ab", "notification_type": "email", "address": "gone@example.com",
    "category": null, "reason": "hard_bounce", "detail": "smtp_550: 5.1.1 no such user",
    "created_at": "2026-11-21T08:00:00.000Z",
}))]
pub(crate) struct SuppressionBody {
    /// Names it.
    #[schema(value_type = String, format = Uuid)]
    id: RecordId,
    /// The channel it is for.
    #[schema(value_type = ChannelDoc)]
    notification_type: Channel,
    /// The mailbox, or the fingerprint of a token or endpoint.
    address: String,
    /// Only messages of this category; all if null.
    #[schema(required)]
    category: Option<String>,
    /// Why.
    #[schema(value_type = ReasonDoc)]
    reason: Reason,
    /// What was said, or null.
    #[schema(required)]
    detail: Option<String>,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<Listed> for SuppressionBody {
    fn from(Listed { id, created_at, entry: e }: Listed) -> Self {
        Self {
            id: RecordId(id),
            notification_type: e.channel,
            address: e.address,
            category: e.category,
            reason: e.reason,
            detail: e.detail,
            created_at,
        }
    }
}

/// An address to send nothing to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewSuppression, example = json!({"notification_type": "email", "address": "gone@example.com"}))]
pub(crate) struct NewSuppressionBody {
    /// The channel it is for.
    #[schema(value_type = ChannelDoc)]
    notification_type: Channel,
    /// The mailbox, or the fingerprint of a token or endpoint.
    #[schema(min_length = 1, max_length = 320)]
    address: String,
    /// Only messages of this category.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z0-9_][a-z0-9_.-]*$")]
    category: Option<String>,
    /// Why.
    #[schema(max_length = 1000)]
    detail: Option<String>,
}

impl RequestBody for NewSuppressionBody {}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SuppressionParams {
    /// At most this many entries; 50 if not given.
    #[param(minimum = 1, maximum = 200, example = 50)]
    limit: Option<u32>,
    /// Where the page starts: `meta.next_cursor` of the page before.
    #[param(pattern = "^c1_[0-9a-f]{32}$")]
    cursor: Option<String>,
    /// For this channel.
    #[param(inline, value_type = Option<ChannelDoc>)]
    notification_type: Option<Channel>,
    /// For this address.
    #[param(max_length = 320)]
    address: Option<String>,
}

/// Lists suppressed addresses, newest first
#[utoipa::path(get, path = "/api/v1/suppressions", tag = "suppressions", operation_id = "list_suppressions",
    params(SuppressionParams),
    responses((status = 200, description = "One page of the list", body = List<SuppressionBody>,
        example = json!({"data": [], "meta": {"limit": 50, "next_cursor": null, "has_next": false}}))))]
pub(crate) async fn list_suppressions(
    state: Data<HttpState>,
    Query(query): Query<SuppressionParams>,
) -> Result<HttpResponse, Problem> {
    let page = state.limits.page(query.limit, query.cursor.as_deref())?;
    at_most("address", query.address.as_deref(), 320)?;
    let list = &state.post.notifications.judge().suppressions;
    let found = list.list(query.notification_type, query.address.as_deref(), page).await?;
    json(StatusCode::OK, &List::of(found, &page, SuppressionBody::from))
}

/// Suppresses an address; one that is on the list already stays as it is
#[utoipa::path(post, path = "/api/v1/suppressions", tag = "suppressions", operation_id = "add_suppression",
    request_body = NewSuppressionBody,
    responses((status = 201, description = "On the list", body = SuppressionBody),
        (status = 409, description = "It was removed at the same moment")))]
pub(crate) async fn add_suppression(
    state: Data<HttpState>,
    Json(body): Json<NewSuppressionBody>,
) -> Result<HttpResponse, Problem> {
    if body.detail.as_ref().is_some_and(|d| d.chars().count() > 1000) {
        return Err(Problem::invalid_field("detail", "has more than 1000 characters"));
    }
    let entry = Suppression {
        channel: body.notification_type,
        address: body.address,
        category: body.category,
        reason: Reason::Manual,
        detail: body.detail,
    };
    let listed = state.post.notifications.judge().suppressions.add(entry).await?;
    json(StatusCode::CREATED, &SuppressionBody::from(listed))
}

/// Takes an address off the list
#[utoipa::path(delete, path = "/api/v1/suppressions/{id}", tag = "suppressions", operation_id = "remove_suppression",
    params(("id" = Uuid, Path, description = "The entry's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    responses((status = 204, description = "Off the list")))]
pub(crate) async fn remove_suppression(
    state: Data<HttpState>,
    PathParam(id): PathParam<RecordId>,
) -> Result<HttpResponse, Problem> {
    state.post.notifications.judge().suppressions.remove(id.0).await?;
    Ok(HttpResponse::NoContent().finish())
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RemoveParams {
    /// Put there for this reason; not `unsubscribed`.
    #[param(inline, value_type = ReasonDoc)]
    reason: Reason,
    /// For this channel.
    #[param(inline, value_type = Option<ChannelDoc>)]
    notification_type: Option<Channel>,
    /// Put there at this time or later.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-11-01T00:00:00Z")]
    created_after: Option<Timestamp>,
    /// Put there before this time.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-12-01T00:00:00Z")]
    created_before: Option<Timestamp>,
    /// Only say how many there are.
    #[serde(default)]
    #[param(required = false)]
    dry_run: bool,
}

/// What was taken off the list, or would be.
#[derive(Serialize, ToSchema)]
#[schema(as = RemovedSuppressions, example = json!({"matched": 20, "removed": 0, "dry_run": true}))]
pub(crate) struct RemovedBody {
    /// How many were meant.
    matched: usize,
    /// How many are off the list.
    removed: usize,
    /// Whether nothing was to be changed.
    dry_run: bool,
}

/// Takes all addresses off the list that were put there for a reason and at a time
///
/// For what a relay said in error: mails to them go out again. Messages that were skipped meanwhile are not sent.
#[utoipa::path(delete, path = "/api/v1/suppressions", tag = "suppressions", operation_id = "remove_suppressions",
    params(RemoveParams),
    responses((status = 200, description = "Done, or with `dry_run` what would be done", body = RemovedBody)))]
pub(crate) async fn remove_suppressions(
    state: Data<HttpState>,
    Query(query): Query<RemoveParams>,
) -> Result<HttpResponse, Problem> {
    let RemoveParams { reason, notification_type: channel, created_after, created_before, dry_run } = query;
    if reason == Reason::Unsubscribed {
        let message = "is `unsubscribed`, which is the people's own word: take such entries off one by one";
        return Err(Problem::invalid_field("reason", message));
    }
    let meant = Meant { reason, channel, created_after, created_before };
    let done = state.post.notifications.judge().suppressions.remove_all(&meant, dry_run).await?;
    json(StatusCode::OK, &RemovedBody { matched: done.matched, removed: done.removed, dry_run })
}
