//! What stands around notifications: circuit breakers, the sink, and the link to unsubscribe.

use actix_web::{HttpResponse, http::StatusCode, web::Data};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Routes;
use crate::{
    base::{clock::Timestamp, error::Kind, id::RecordId},
    http::{
        HttpState,
        endpoint::Endpoint,
        extract::{PathParam, Query},
        problem::{Problem, at_most},
        response::{List, Meta, json},
    },
    notifications::{
        breaker::{Position, State},
        channels::Content,
        model::{Channel, To},
        sink::Caught,
        suppressions::{Reason, Suppression},
    },
    users::{Need, Right},
};

pub(crate) fn register(routes: &mut Routes<'_>) {
    Endpoint::at("/api/v1/breakers").get(Right::NotificationsRead, list_breakers).register(routes);
    Endpoint::at("/api/v1/breakers/{provider}/reset").post(Right::QueuesControl, reset_breaker).register(routes);
    Endpoint::at("/api/v1/sink").get(Right::NotificationsRead, list_sink).register(routes);
    Endpoint::at("/api/v1/unsubscribe/{token}").get(Need::Open, ask).post(Need::Open, unsubscribe).register(routes);
}

/// How [`Position`] is documented.
#[derive(ToSchema)]
#[schema(as = BreakerPosition, rename_all = "snake_case")]
#[allow(dead_code, reason = "documents a type that does not know this API")]
pub(crate) enum PositionDoc {
    Closed,
    Open,
    HalfOpen,
}

/// The circuit breaker of a provider.
#[derive(Serialize, ToSchema)]
#[schema(as = Breaker, example = json!({
    "provider": "smtp:mail.example.com:587", "position": "open", "failures": 5, "successes": 0,
    "until": "2026-11-21T08:01:00.000Z", "reason": "refused: connection refused",
}))]
pub(crate) struct BreakerBody {
    /// The provider.
    provider: String,
    /// Which way it stands.
    #[schema(value_type = PositionDoc)]
    position: Position,
    /// Failures in a row.
    failures: u32,
    /// Successes since it was half-open.
    successes: u32,
    /// Until when it is open, or null.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Why it failed last, or null.
    #[schema(required)]
    reason: Option<String>,
}

impl BreakerBody {
    fn of(provider: String, s: State) -> Self {
        let State { position, failures, successes, until, probe_until: _, reason, refusals: _ } = s;
        Self { provider, position, failures, successes, until, reason }
    }
}

/// Lists the circuit breakers of providers that failed in the last day
#[utoipa::path(get, path = "/api/v1/breakers", tag = "breakers", operation_id = "list_breakers",
    responses((status = 200, description = "The breakers", body = List<BreakerBody>,
        example = json!({"data": [], "meta": {"limit": 200, "next_cursor": null, "has_next": false}}))))]
pub(crate) async fn list_breakers(state: Data<HttpState>) -> Result<HttpResponse, Problem> {
    let found = state.post.notifications.judge().breakers.list().await;
    let all = found.map_err(|e| Problem::hidden(Kind::Unavailable, e.to_string()))?;
    let data = all.into_iter().map(|(provider, s)| BreakerBody::of(provider, s)).collect();
    json(StatusCode::OK, &List { data, meta: Meta::whole(200) })
}

/// A provider's name, from the path.
pub(crate) struct Provider(String);

impl std::str::FromStr for Provider {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s.len() {
            1..=200 => Ok(Self(s.to_owned())),
            _ => Err("is not the name of a provider".to_owned()),
        }
    }
}

/// Closes a circuit breaker: messages are sent to the provider again at once
#[utoipa::path(post, path = "/api/v1/breakers/{provider}/reset", tag = "breakers", operation_id = "reset_breaker",
    params(("provider" = String, Path, description = "The provider", example = "smtp:mail.example.com:587")),
    responses((status = 200, description = "The breaker as it is now", body = BreakerBody)))]
pub(crate) async fn reset_breaker(
    state: Data<HttpState>,
    PathParam(Provider(provider)): PathParam<Provider>,
) -> Result<HttpResponse, Problem> {
    let breakers = &state.post.notifications.judge().breakers;
    breakers.reset(&provider).await.map_err(|e| Problem::hidden(Kind::Unavailable, e.to_string()))?;
    let now = breakers.state(&provider).await;
    json(StatusCode::OK, &BreakerBody::of(provider, now))
}

/// A message in the sink.
#[derive(Serialize, ToSchema)]
#[schema(as = CaughtMessage, example = json!({
    "id": "0192f0c1-2345-7abc-8def-0123456789ab", "notification_id": "0192f0c1-2345-7abc-8def-0123456789ac",
    "to": "ada@example.com", "content": {"channel": "email", "subject": "Welcome, Ada", "text": "Hello Ada!"},
    "unsubscribe": null, "at": "2026-11-21T08:00:00.000Z",
}))]
pub(crate) struct CaughtBody {
    /// Names it.
    #[schema(value_type = String, format = Uuid)]
    id: RecordId,
    /// The notification.
    #[schema(value_type = String, format = Uuid)]
    notification_id: RecordId,
    /// Where it would have gone.
    to: String,
    /// The message: `subject`, `text`, `html` (email); `title`, `body`, `data` (push).
    #[schema(value_type = Object)]
    content: Content,
    /// The link to unsubscribe, or null.
    #[schema(required)]
    unsubscribe: Option<String>,
    /// When it was caught.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SinkParams {
    /// At most this many entries; 50 if not given.
    #[param(minimum = 1, maximum = 200, example = 50)]
    limit: Option<u32>,
    /// Where the page starts: `meta.next_cursor` of the page before.
    #[param(pattern = "^c1_[0-9a-f]{32}$")]
    cursor: Option<String>,
    /// To this mailbox.
    #[param(max_length = 320, example = "ada@example.com")]
    to: Option<String>,
}

/// Lists the messages that would have gone out if their provider were set up, newest first; kept for a day
#[utoipa::path(get, path = "/api/v1/sink", tag = "sink", operation_id = "list_sink", params(SinkParams),
    responses((status = 200, description = "One page of the sink", body = List<CaughtBody>,
        example = json!({"data": [], "meta": {"limit": 50, "next_cursor": null, "has_next": false}}))))]
pub(crate) async fn list_sink(
    state: Data<HttpState>,
    Query(query): Query<SinkParams>,
) -> Result<HttpResponse, Problem> {
    let page = state.limits.page(query.limit, query.cursor.as_deref())?;
    at_most("to", query.to.as_deref(), 320)?;
    let found = state.post.notifications.judge().sink.list(query.to.as_deref(), page).await?;
    let body = |(id, c): (uuid::Uuid, Caught)| CaughtBody {
        id: RecordId(id),
        notification_id: RecordId(c.notification_id),
        to: c.to,
        content: c.content,
        unsubscribe: c.unsubscribe,
        at: c.at,
    };
    json(StatusCode::OK, &List::of(found, &page, body))
}

/// A token of a link, from the path.
pub(crate) struct Token(String);

impl std::str::FromStr for Token {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s.len() {
            1..=2048 => Ok(Self(s.to_owned())),
            _ => Err("is not a valid link".to_owned()),
        }
    }
}

/// Asks a recipient who opened the link whether to unsubscribe
///
/// Reading changes nothing, because mail programs open links by themselves.
#[utoipa::path(get, path = "/api/v1/unsubscribe/{token}", tag = "suppressions", operation_id = "ask_unsubscribe",
    params(("token" = String, Path, description = "From the link in the mail", example = "e30.c2lnbmVk")),
    responses((status = 200, description = "A page with one button", content_type = "text/html", body = String,
        example = json!("<!doctype html>…"))))]
pub(crate) async fn ask(
    state: Data<HttpState>,
    PathParam(Token(token)): PathParam<Token>,
) -> Result<HttpResponse, Problem> {
    let claims = state.post.notifications.judge().links.claims(&token).await?;
    let what = claims.category.as_deref().unwrap_or("all messages");
    let body = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Unsubscribe</title>\
         <body style=\"font-family:sans-serif;max-width:32em;margin:4em auto\"><h1>Unsubscribe</h1>\
         <p>You will get no more mail of this kind: <b>{what}</b>.</p>\
         <form method=\"post\"><button>Unsubscribe</button></form></body></html>"
    );
    Ok(html(body))
}

fn html(body: String) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header(("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"))
        .body(body)
}

/// Unsubscribes, in one click (RFC 8058)
///
/// A user's preference for the category is turned off; another recipient's mailbox goes on the suppression list.
#[utoipa::path(post, path = "/api/v1/unsubscribe/{token}", tag = "suppressions", operation_id = "unsubscribe",
    params(("token" = String, Path, description = "From the link in the mail", example = "e30.c2lnbmVk")),
    responses((status = 200, description = "Done", content_type = "text/html", body = String,
        example = json!("<!doctype html>…"))))]
pub(crate) async fn unsubscribe(
    state: Data<HttpState>,
    PathParam(Token(token)): PathParam<Token>,
) -> Result<HttpResponse, Problem> {
    let judge = state.post.notifications.judge();
    let claims = judge.links.claims(&token).await?;
    match claims.to {
        To::User(id) => {
            let preferences = match &claims.category {
                Some(category) => serde_json::json!({ "categories": { category: { "email": false } } }),
                None => serde_json::json!({ "email": false }),
            };
            let patch = crate::users::UserPatch {
                preferences: Some(preferences.as_object().cloned()),
                ..crate::users::UserPatch::default()
            };
            state.users.patch(id, &patch).await?;
        }
        To::Email(address) => {
            let entry = Suppression {
                channel: Channel::Email,
                address,
                category: claims.category,
                reason: Reason::Unsubscribed,
                detail: None,
            };
            judge.suppressions.add(entry).await?;
        }
        To::Console(_) => {}
    }
    Ok(html(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Unsubscribed</title>\
         <body style=\"font-family:sans-serif;max-width:32em;margin:4em auto\"><h1>Done</h1>\
         <p>You will get no more mail of this kind.</p></body></html>"
            .to_owned(),
    ))
}
