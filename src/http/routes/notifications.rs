//! `/api/v1/notifications`: send, look, understand, cancel, replay.

use actix_web::{HttpResponse, http::StatusCode, web::Data};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};

use super::{Routes, submit};
use crate::{
    base::{
        clock::Timestamp,
        error::FieldError,
        id::{JobId, Priority, UserId},
    },
    http::{
        HttpState, RequestContext,
        auth::demand,
        endpoint::Endpoint,
        extract::{PathParam, Query, RequestBody},
        idempotency::Keyed,
        job_body::PriorityDoc,
        notification_body::{ChannelDoc, NotificationBody, OutlookBody, StatusDoc, ToDoc, TraceBody},
        problem::{Problem, at_most},
        response::{List, json},
    },
    jobs::{model::Job, service::Key},
    notifications::{
        model::{Channel, Notification, Status, To},
        service::{Filter, Send},
    },
    users::{Caller, Right},
};

pub(crate) fn register(routes: &mut Routes<'_>) {
    Endpoint::at("/api/v1/notifications").post(Right::Oneself, send).get(Right::Oneself, list).register(routes);
    Endpoint::at("/api/v1/notifications/explain").post(Right::Oneself, explain).register(routes);
    Endpoint::at("/api/v1/notifications/{id}").get(Right::Oneself, read).register(routes);
    Endpoint::at("/api/v1/notifications/{id}/trace").get(Right::Oneself, trace).register(routes);
    Endpoint::at("/api/v1/notifications/{id}/cancel").post(Right::Oneself, cancel).register(routes);
    Endpoint::at("/api/v1/notifications/{id}/replay").post(Right::NotificationsWrite, replay).register(routes);
}

/// A message to send: to one user (`user_id`), or to up to 1000 `recipients`.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewNotification, example = json!({
    "notification_type": "email", "user_id": "0192f0c1-2345-7abc-8def-0123456789ab", "template_code": "welcome",
    "variables": {"name": "Ada"}, "priority": 5,
}))]
pub(crate) struct SendBody {
    /// The channel it goes by.
    #[schema(value_type = ChannelDoc)]
    notification_type: Channel,
    /// Who gets it.
    #[schema(value_type = Option<String>, format = Uuid)]
    user_id: Option<UserId>,
    /// Who get it, one notification each.
    #[schema(value_type = Option<Vec<ToDoc>>, min_items = 1, max_items = 1000)]
    recipients: Option<Vec<To>>,
    /// What it says: the code of a template.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z0-9_][a-z0-9_.-]*$")]
    template_code: String,
    /// In this language instead of each user's own.
    #[schema(max_length = 35, pattern = "^(default|[a-z]{2,3}(-[A-Za-z0-9]{1,8})*)$")]
    locale: Option<String>,
    /// What is put into the template.
    #[serde(default)]
    #[schema(value_type = Object, required = false)]
    variables: Map<String, Value>,
    /// What sort of message it is, for preferences and unsubscribing; without one nobody can unsubscribe.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z0-9_][a-z0-9_.-]*$")]
    category: Option<String>,
    /// How urgent it is; 8 and more are sent in quiet hours, too.
    #[schema(value_type = Option<PriorityDoc>)]
    priority: Option<Priority>,
    /// Not before this time.
    #[schema(value_type = Option<String>, format = DateTime)]
    send_at: Option<Timestamp>,
    /// The caller's own name for this request: the same one again sends nothing twice. As the header `Idempotency-Key`.
    #[schema(min_length = 1, max_length = 255, pattern = "^[!-~]+$")]
    request_id: Option<String>,
}

impl RequestBody for SendBody {}

impl SendBody {
    fn into_send(self, caller: &Caller) -> Result<Send, Problem> {
        let one = |to: To| vec![(to, "user_id".to_owned())];
        let to = match (self.user_id, self.recipients, self.notification_type) {
            (Some(id), None, _) => one(To::User(id)),
            (None, Some(all), _) => {
                all.into_iter().enumerate().map(|(i, to)| (to, format!("recipients[{i}]"))).collect()
            }
            (None, None, Channel::Console) => one(To::Console(true)),
            (None, None, _) => {
                return Err(Problem::invalid_field("user_id", "is required, or `recipients` in its place"));
            }
            (Some(_), Some(_), _) => {
                return Err(Problem::invalid_field("recipients", "cannot be given together with user_id"));
            }
        };
        // Whoever may not send to anybody may send to themselves.
        if !caller.may(Right::NotificationsWrite)
            && let Some((_, field)) =
                to.iter().find(|(to, _)| !matches!(to, To::User(id) if caller.user() == Some(*id)))
        {
            demand(caller, Right::NotificationsWrite, &format!("send to others than themselves ({field})"))?;
        }
        if let Some(id) = &self.request_id
            && !((1..=255).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()))
        {
            let message = "must be 1 to 255 visible ASCII characters without spaces";
            return Err(Problem::invalid(vec![FieldError::new("request_id", message)]));
        }
        Ok(Send {
            channel: self.notification_type,
            to,
            template_code: self.template_code,
            locale: self.locale,
            variables: self.variables,
            category: self.category,
            priority: self.priority,
            send_at: self.send_at,
            request_id: self.request_id,
        })
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
    /// By this channel.
    #[param(inline, value_type = Option<ChannelDoc>)]
    notification_type: Option<Channel>,
    /// In this status.
    #[param(inline, value_type = Option<StatusDoc>)]
    status: Option<Status>,
    /// To this user.
    #[param(value_type = Option<String>, format = Uuid)]
    user_id: Option<UserId>,
    /// From this template.
    #[param(max_length = 64)]
    template_code: Option<String>,
    /// Accepted at this time or later.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-11-01T00:00:00Z")]
    created_after: Option<Timestamp>,
    /// Accepted before this time.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-12-01T00:00:00Z")]
    created_before: Option<Timestamp>,
}

/// The notifications of a request to many, in its order.
#[derive(Serialize, ToSchema)]
#[schema(as = AcceptedNotifications, example = json!({
    "data": [{"id": "0192f0c1-2345-7abc-8def-0123456789ab", "status": "queued"}], "meta": {"count": 1},
}))]
pub(crate) struct ManyBody {
    /// The notifications.
    data: Vec<AcceptedBody>,
    /// About them.
    meta: CountBody,
}

/// One of them.
#[derive(Serialize, ToSchema)]
#[schema(as = AcceptedNotification)]
pub(crate) struct AcceptedBody {
    /// Names it.
    #[schema(value_type = String, format = Uuid)]
    id: JobId,
    /// `queued`, or `scheduled` if it was put off.
    #[schema(value_type = StatusDoc)]
    status: Status,
}

/// How many there are.
#[derive(Serialize, ToSchema)]
#[schema(as = AcceptedCount)]
pub(crate) struct CountBody {
    /// How many there are.
    count: usize,
}

/// What a request made: one notification, or the list of those for its `recipients`.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = SentNotifications, example = json!({
    "data": [{"id": "0192f0c1-2345-7abc-8def-0123456789ab", "status": "queued"}], "meta": {"count": 1},
}))]
#[allow(dead_code, reason = "documents what the two ways to render write")]
pub(crate) enum SentBody {
    /// For `user_id`.
    One(Box<NotificationBody>),
    /// For `recipients`.
    Many(ManyBody),
}

/// Sends a message
///
/// The answer comes when the notification is stored durably. With a `request_id` or an `Idempotency-Key`, the same request
/// gets the same answer again, and nothing is sent twice. With `recipients` the answer lists one notification for each.
#[utoipa::path(post, path = "/api/v1/notifications", tag = "notifications", operation_id = "send_notification",
    request_body = SendBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "The caller's own name for this request",
        min_length = 1, max_length = 255, pattern = "^[!-~]+$", example = "welcome-4711")),
    responses(
        (status = 202, description = "Accepted", body = SentBody, headers(
            ("Location" = Option<String>, description = "The notification's path, if it is one"),
            ("Idempotent-Replayed" = Option<String>, description = "`true` if this was answered before"))),
        (status = 409, description = "The key was used before with another request")))]
pub(crate) async fn send(
    state: Data<HttpState>,
    context: RequestContext,
    caller: Caller,
    Keyed { body, key }: Keyed<SendBody>,
) -> Result<HttpResponse, Problem> {
    let many = body.recipients.is_some();
    let key = match (key, &body.request_id) {
        (None, Some(id)) => Some(Key {
            scope: caller.scope(),
            key: id.clone(),
            request: Sha256::digest(serde_json::to_vec(&body).unwrap_or_default()).into(),
        }),
        (Some(key), Some(id)) if key.key != *id => {
            let message = "differs from the header Idempotency-Key: give one of them, or the same twice";
            return Err(Problem::invalid_field("request_id", message));
        }
        (key, _) => key,
    };
    let send = body.into_send(&caller)?;
    let service = &state.post.notifications;
    let render = |jobs: &[Job]| if many { render_many(jobs) } else { jobs.first().map(render_one).unwrap_or_default() };
    let done = service.send(&send, &context.into_origin(), key, render).await?;
    let id = if many { None } else { submit::id_in(&done.answer) };
    Ok(submit::accepted(done.answer, id.map(|id| format!("/api/v1/notifications/{id}")), done.replayed))
}

fn render_one(job: &Job) -> Vec<u8> {
    let body = Notification::of(job.clone()).map(|n| serde_json::to_vec(&NotificationBody::of(&n)));
    // A body always serialises, and the job is the notification that was just made.
    body.and_then(Result::ok).unwrap_or_default()
}

fn render_many(jobs: &[Job]) -> Vec<u8> {
    let data = jobs.iter().map(|job| AcceptedBody { id: job.id, status: Status::of(job, None) }).collect();
    serde_json::to_vec(&ManyBody { data, meta: CountBody { count: jobs.len() } }).unwrap_or_default()
}

/// Says what would become of a message, and why, without sending it
///
/// The body is that of `POST /api/v1/notifications`; of several recipients the first is looked at.
#[utoipa::path(post, path = "/api/v1/notifications/explain", tag = "notifications", operation_id = "explain_notification",
    request_body = SendBody,
    responses((status = 200, description = "What would become of it", body = OutlookBody)))]
pub(crate) async fn explain(
    state: Data<HttpState>,
    caller: Caller,
    Keyed { body, key: _ }: Keyed<SendBody>,
) -> Result<HttpResponse, Problem> {
    let send = body.into_send(&caller)?;
    let (payload, judged) = state.post.notifications.explain(&send).await?;
    json(StatusCode::OK, &OutlookBody::of(&payload, &judged))
}

/// Lists notifications, newest first
///
/// A page may be shorter than asked for and still not be the last: `has_next` is the truth.
#[utoipa::path(get, path = "/api/v1/notifications", tag = "notifications", operation_id = "list_notifications",
    params(ListParams),
    responses((status = 200, description = "One page of notifications", body = List<NotificationBody>,
        example = json!({"data": [], "meta": {"limit": 50, "next_cursor": null, "has_next": false}}))))]
pub(crate) async fn list(
    state: Data<HttpState>,
    caller: Caller,
    Query(query): Query<ListParams>,
) -> Result<HttpResponse, Problem> {
    let page = state.limits.page(query.limit, query.cursor.as_deref())?;
    at_most("template_code", query.template_code.as_deref(), 64)?;
    let user = match caller.may(Right::NotificationsRead) {
        true => query.user_id,
        false => match (caller.user(), query.user_id) {
            (Some(own), None) => Some(own),
            (Some(own), Some(asked)) if own == asked => Some(own),
            _ => {
                return demand(&caller, Right::NotificationsRead, "list the notifications of others")
                    .and(json(StatusCode::OK, &()));
            }
        },
    };
    let filter = Filter {
        channel: query.notification_type,
        status: query.status,
        user,
        template: query.template_code,
        created_after: query.created_after,
        created_before: query.created_before,
    };
    let found = state.post.notifications.list(&filter, page).await?;
    json(StatusCode::OK, &List::of(found, &page, |n| NotificationBody::of(&n)))
}

/// The notification, if this caller may see it.
async fn visible(state: &HttpState, caller: &Caller, id: JobId, right: Right) -> Result<Notification, Problem> {
    let found = state.post.notifications.get(id).await?;
    let own = matches!(found.payload.to, To::User(user) if caller.user() == Some(user));
    match own || caller.may(right) {
        true => Ok(found),
        false => Err(Problem::not_found("id", format!("there is no notification {id}"))),
    }
}

/// Reads a notification
#[utoipa::path(get, path = "/api/v1/notifications/{id}", tag = "notifications", operation_id = "read_notification",
    params(("id" = Uuid, Path, description = "The notification's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    responses((status = 200, description = "The notification", body = NotificationBody)))]
pub(crate) async fn read(
    state: Data<HttpState>,
    caller: Caller,
    PathParam(id): PathParam<JobId>,
) -> Result<HttpResponse, Problem> {
    let found = visible(&state, &caller, id, Right::NotificationsRead).await?;
    json(StatusCode::OK, &NotificationBody::of(&found))
}

/// Says why a notification is where it is
#[utoipa::path(get, path = "/api/v1/notifications/{id}/trace", tag = "notifications", operation_id = "trace_notification",
    params(("id" = Uuid, Path, description = "The notification's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    responses((status = 200, description = "Its way so far", body = TraceBody)))]
pub(crate) async fn trace(
    state: Data<HttpState>,
    caller: Caller,
    PathParam(id): PathParam<JobId>,
) -> Result<HttpResponse, Problem> {
    let found = visible(&state, &caller, id, Right::NotificationsRead).await?;
    let outlook = state.post.notifications.outlook(&found).await?;
    json(StatusCode::OK, &TraceBody::of(&found, outlook.as_ref()))
}

/// Cancels a notification that has not been sent
///
/// One that is being sent at this moment is asked to stop, and may still go out: its status stays `sending` until then.
#[utoipa::path(post, path = "/api/v1/notifications/{id}/cancel", tag = "notifications", operation_id = "cancel_notification",
    params(("id" = Uuid, Path, description = "The notification's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    responses((status = 200, description = "It is cancelled", body = NotificationBody),
        (status = 202, description = "It is being sent and was asked to stop", body = NotificationBody),
        (status = 409, description = "It had ended")))]
pub(crate) async fn cancel(
    state: Data<HttpState>,
    caller: Caller,
    PathParam(id): PathParam<JobId>,
) -> Result<HttpResponse, Problem> {
    visible(&state, &caller, id, Right::NotificationsWrite).await?;
    let (found, sending) = state.post.notifications.cancel(id).await?;
    let status = if sending { StatusCode::ACCEPTED } else { StatusCode::OK };
    json(status, &NotificationBody::of(&found))
}

/// Sends a notification again that failed or was cancelled, or now one that waits
#[utoipa::path(post, path = "/api/v1/notifications/{id}/replay", tag = "notifications", operation_id = "replay_notification",
    params(("id" = Uuid, Path, description = "The notification's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    responses((status = 202, description = "It is queued", body = NotificationBody),
        (status = 409, description = "Its status does not allow it")))]
pub(crate) async fn replay(state: Data<HttpState>, PathParam(id): PathParam<JobId>) -> Result<HttpResponse, Problem> {
    let found = state.post.notifications.replay(id).await?;
    json(StatusCode::ACCEPTED, &NotificationBody::of(&found))
}
