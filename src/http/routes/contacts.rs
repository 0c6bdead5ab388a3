//! `/api/v1/users/{id}/push-tokens` and `…/webhook-endpoints`: where a user is reached besides by mail.
//!
//! Tokens of devices are written and never shown again; the secret of an endpoint is shown when it is made and when it is
//! rotated.

use actix_web::{HttpResponse, http::StatusCode, web::Data};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{auth::unkept, users::location};
use crate::{
    base::{
        clock::Timestamp,
        error::FieldError,
        id::{ContactId, UserId},
        secret::Secret,
    },
    http::{
        HttpState,
        auth::reach,
        endpoint::Endpoint,
        extract::{Json, PathPair, PathParam, Query, RequestBody},
        problem::Problem,
        response::{List, PageParams, json, page_by_name},
        routes::Routes,
    },
    users::{self, Caller, NewPushToken, PushKind, PushToken, Right},
};

pub(crate) fn register(routes: &mut Routes<'_>) {
    Endpoint::at("/api/v1/users/{id}/push-tokens")
        .get(Right::Oneself, list_tokens)
        .post(Right::Oneself, add_token)
        .register(routes);
    Endpoint::at("/api/v1/users/{id}/push-tokens/{token_id}").delete(Right::Oneself, remove_token).register(routes);
    Endpoint::at("/api/v1/users/{id}/webhook-endpoints")
        .get(Right::Oneself, list_endpoints)
        .post(Right::Oneself, add_endpoint)
        .register(routes);
    let one = "/api/v1/users/{id}/webhook-endpoints/{endpoint_id}";
    Endpoint::at(one).delete(Right::Oneself, remove_endpoint).register(routes);
    Endpoint::at("/api/v1/users/{id}/webhook-endpoints/{endpoint_id}/rotate")
        .post(Right::Oneself, rotate_endpoint)
        .register(routes);
    Endpoint::at("/api/v1/users/{id}/webhook-endpoints/{endpoint_id}/enable")
        .post(Right::Oneself, enable_endpoint)
        .register(routes);
}

/// A device or browser.
#[derive(Serialize, ToSchema)]
#[schema(as = PushToken, example = json!({
    "id": "0192f0c1-2345-7abc-8def-0123456789ab", "kind": "fcm", "label": "phone", "created_at": "2026-11-21T08:00:00.000Z",
}))]
pub(crate) struct PushTokenBody<'a> {
    /// Names it.
    #[schema(value_type = String, format = Uuid)]
    id: ContactId,
    /// How it is reached.
    #[schema(value_type = PushKindDoc)]
    kind: &'static str,
    /// What its owner calls it, or null.
    #[schema(required)]
    label: Option<&'a str>,
    /// When it was added.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl<'a> From<&'a PushToken> for PushTokenBody<'a> {
    fn from(token: &'a PushToken) -> Self {
        let PushToken { id, kind, label, created_at } = token;
        Self { id: *id, kind: kind.as_str(), label: label.as_deref(), created_at: *created_at }
    }
}

/// How a device or browser is reached: by Firebase Cloud Messaging, or by a browser's push service (RFC 8030).
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = PushKind)]
pub(crate) enum PushKindDoc {
    Fcm,
    WebPush,
}

/// A device (`kind` `fcm`, with `token`) or browser (`kind` `web_push`, with `endpoint`, `p256dh` and `auth`) to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewPushToken, example = json!({"kind": "fcm", "token": "fGx1:APA91bHun4MxP5egoKMwt2KZFBaFUH", "label": "phone"}))]
pub(crate) struct NewPushTokenBody {
    /// How it is reached.
    kind: PushKindDoc,
    /// The device's registration token.
    #[schema(min_length = 1, max_length = 4096)]
    token: Option<String>,
    /// Where the browser's push service takes messages: an https URL.
    #[schema(min_length = 1, max_length = 2048)]
    endpoint: Option<String>,
    /// The browser's public key, base64url.
    #[schema(min_length = 1, max_length = 256)]
    p256dh: Option<String>,
    /// The browser's authentication secret, base64url.
    #[schema(min_length = 1, max_length = 256)]
    auth: Option<String>,
    /// What its owner calls it.
    #[schema(min_length = 1, max_length = 200)]
    label: Option<String>,
}

impl RequestBody for NewPushTokenBody {}

impl NewPushTokenBody {
    fn into_new(self) -> Result<NewPushToken, Problem> {
        let Self { kind, token, endpoint, p256dh, auth, label } = self;
        let mut faults = Vec::new();
        let mut of = |name: &str, value: Option<String>, wanted: bool| match (value, wanted) {
            (Some(value), true) => value,
            (None, false) => String::new(),
            (Some(_), false) => {
                faults.push(FieldError::new(name, "does not belong to a push token of this kind"));
                String::new()
            }
            (None, true) => {
                faults.push(FieldError::new(name, "is required for a push token of this kind"));
                String::new()
            }
        };
        let fcm = matches!(kind, PushKindDoc::Fcm);
        let token = of("token", token, fcm);
        let (endpoint, p256dh) = (of("endpoint", endpoint, !fcm), of("p256dh", p256dh, !fcm));
        let auth = of("auth", auth, !fcm);
        if !faults.is_empty() {
            return Err(Problem::invalid(faults));
        }
        let kind = match kind {
            PushKindDoc::Fcm => PushKind::Fcm { token: Secret::new(token) },
            PushKindDoc::WebPush => PushKind::WebPush { endpoint, p256dh, auth: Secret::new(auth) },
        };
        Ok(NewPushToken { kind, label })
    }
}

/// One of the user's own servers.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookEndpoint, example = json!({
    "id": "0192f0c1-2345-7abc-8def-0123456789ab", "url": "https://hooks.example.com/in", "disabled": false,
    "created_at": "2026-11-21T08:00:00.000Z",
}))]
pub(crate) struct EndpointBody<'a> {
    /// Names it.
    #[schema(value_type = String, format = Uuid)]
    id: ContactId,
    /// Where messages are posted to.
    url: &'a str,
    /// Whether nothing is sent there until it is enabled again.
    disabled: bool,
    /// When it was added.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// What messages are signed with (Standard Webhooks). Only when it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    secret: Option<&'a str>,
}

impl<'a> EndpointBody<'a> {
    fn of(endpoint: &'a users::Endpoint) -> Self {
        let users::Endpoint { id, url, disabled, created_at, .. } = endpoint;
        Self { id: *id, url, disabled: *disabled, created_at: *created_at, secret: None }
    }

    fn with_secret(endpoint: &'a users::Endpoint) -> Self {
        Self { secret: endpoint.secrets.first().map(Secret::reveal), ..Self::of(endpoint) }
    }
}

/// A server to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewWebhookEndpoint, example = json!({"url": "https://hooks.example.com/in"}))]
pub(crate) struct NewEndpointBody {
    /// Where messages are to be posted to: http or https, without user or fragment.
    #[schema(min_length = 1, max_length = 2048)]
    url: String,
}

impl RequestBody for NewEndpointBody {}

/// Lists a user's devices and browsers
#[utoipa::path(get, path = "/api/v1/users/{id}/push-tokens", tag = "users", operation_id = "list_push_tokens",
    params(("id" = Uuid, Path, description = "The user's id", example = "0192f0c1-2345-7abc-8def-0123456789ab"), PageParams),
    responses((status = 200, description = "One page of push tokens", body = List<PushTokenBody<'_>>,
        example = json!({"data": [], "meta": {"limit": 50, "next_cursor": null, "has_next": false}}))))]
pub(crate) async fn list_tokens(
    state: Data<HttpState>,
    caller: Caller,
    PathParam(id): PathParam<UserId>,
    Query(query): Query<PageParams>,
) -> Result<HttpResponse, Problem> {
    reach(&caller, id, Right::UsersRead)?;
    let user = state.users.get(id).await?;
    let tokens: Vec<&PushToken> = user.push_tokens.iter().collect();
    let page = page_by_name(tokens, &query, &state.limits, |t| t.id.to_string(), PushTokenBody::from)?;
    json(StatusCode::OK, &page)
}

/// Adds a device or browser
///
/// One that is there already stays, with the new label. A user has at most 20.
#[utoipa::path(post, path = "/api/v1/users/{id}/push-tokens", tag = "users", operation_id = "add_push_token",
    params(("id" = Uuid, Path, description = "The user's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    request_body = NewPushTokenBody,
    responses((status = 201, description = "It is there", body = PushTokenBody<'_>,
            headers(("Location" = String, description = "Its path"))),
        (status = 409, description = "The user has 20 already")))]
pub(crate) async fn add_token(
    state: Data<HttpState>,
    caller: Caller,
    PathParam(id): PathParam<UserId>,
    Json(body): Json<NewPushTokenBody>,
) -> Result<HttpResponse, Problem> {
    reach(&caller, id, Right::UsersWrite)?;
    let token = state.users.add_push_token(id, body.into_new()?).await?;
    let mut response = json(StatusCode::CREATED, &PushTokenBody::from(&token))?;
    location(&mut response, &format!("/api/v1/users/{id}/push-tokens"), token.id);
    Ok(response)
}

/// Forgets a device or browser
#[utoipa::path(delete, path = "/api/v1/users/{id}/push-tokens/{token_id}", tag = "users", operation_id = "delete_push_token",
    params(("id" = Uuid, Path, description = "The user's id", example = "0192f0c1-2345-7abc-8def-0123456789ab"),
        ("token_id" = Uuid, Path, description = "The token's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    responses((status = 204, description = "Forgotten")))]
pub(crate) async fn remove_token(
    state: Data<HttpState>,
    caller: Caller,
    PathPair(id, token): PathPair<UserId, ContactId>,
) -> Result<HttpResponse, Problem> {
    reach(&caller, id, Right::UsersWrite)?;
    state.users.remove_push_token(id, token).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Lists a user's webhook endpoints
#[utoipa::path(get, path = "/api/v1/users/{id}/webhook-endpoints", tag = "users", operation_id = "list_webhook_endpoints",
    params(("id" = Uuid, Path, description = "The user's id", example = "0192f0c1-2345-7abc-8def-0123456789ab"), PageParams),
    responses((status = 200, description = "One page of endpoints", body = List<EndpointBody<'_>>,
        example = json!({"data": [], "meta": {"limit": 50, "next_cursor": null, "has_next": false}}))))]
pub(crate) async fn list_endpoints(
    state: Data<HttpState>,
    caller: Caller,
    PathParam(id): PathParam<UserId>,
    Query(query): Query<PageParams>,
) -> Result<HttpResponse, Problem> {
    reach(&caller, id, Right::UsersRead)?;
    let user = state.users.get(id).await?;
    let endpoints: Vec<&users::Endpoint> = user.endpoints.iter().collect();
    let page = page_by_name(endpoints, &query, &state.limits, |e| e.id.to_string(), EndpointBody::of)?;
    json(StatusCode::OK, &page)
}

/// Adds a webhook endpoint
///
/// The answer holds the secret that messages are signed with; it is not shown again. A user has at most 10.
#[utoipa::path(post, path = "/api/v1/users/{id}/webhook-endpoints", tag = "users", operation_id = "add_webhook_endpoint",
    params(("id" = Uuid, Path, description = "The user's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    request_body = NewEndpointBody,
    responses((status = 201, description = "Made", body = EndpointBody<'_>,
            headers(("Location" = String, description = "Its path"))),
        (status = 409, description = "The user has 10 already")))]
pub(crate) async fn add_endpoint(
    state: Data<HttpState>,
    caller: Caller,
    PathParam(id): PathParam<UserId>,
    Json(body): Json<NewEndpointBody>,
) -> Result<HttpResponse, Problem> {
    reach(&caller, id, Right::UsersWrite)?;
    let endpoint = state.users.add_endpoint(id, &body.url).await?;
    let mut response = unkept(json(StatusCode::CREATED, &EndpointBody::with_secret(&endpoint))?);
    location(&mut response, &format!("/api/v1/users/{id}/webhook-endpoints"), endpoint.id);
    Ok(response)
}

/// Forgets a webhook endpoint
#[utoipa::path(delete, path = "/api/v1/users/{id}/webhook-endpoints/{endpoint_id}", tag = "users",
    operation_id = "delete_webhook_endpoint",
    params(("id" = Uuid, Path, description = "The user's id", example = "0192f0c1-2345-7abc-8def-0123456789ab"),
        ("endpoint_id" = Uuid, Path, description = "Its id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    responses((status = 204, description = "Forgotten")))]
pub(crate) async fn remove_endpoint(
    state: Data<HttpState>,
    caller: Caller,
    PathPair(id, endpoint): PathPair<UserId, ContactId>,
) -> Result<HttpResponse, Problem> {
    reach(&caller, id, Right::UsersWrite)?;
    state.users.remove_endpoint(id, endpoint).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Gives a webhook endpoint a new secret
///
/// Messages are signed with the new and the old one until the next rotation.
#[utoipa::path(post, path = "/api/v1/users/{id}/webhook-endpoints/{endpoint_id}/rotate", tag = "users",
    operation_id = "rotate_webhook_endpoint",
    params(("id" = Uuid, Path, description = "The user's id", example = "0192f0c1-2345-7abc-8def-0123456789ab"),
        ("endpoint_id" = Uuid, Path, description = "Its id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    responses((status = 200, description = "With its new secret", body = EndpointBody<'_>)))]
pub(crate) async fn rotate_endpoint(
    state: Data<HttpState>,
    caller: Caller,
    PathPair(id, endpoint): PathPair<UserId, ContactId>,
) -> Result<HttpResponse, Problem> {
    reach(&caller, id, Right::UsersWrite)?;
    let endpoint = state.users.rotate_endpoint(id, endpoint).await?;
    Ok(unkept(json(StatusCode::OK, &EndpointBody::with_secret(&endpoint))?))
}

/// Sends messages to a webhook endpoint again
#[utoipa::path(post, path = "/api/v1/users/{id}/webhook-endpoints/{endpoint_id}/enable", tag = "users",
    operation_id = "enable_webhook_endpoint",
    params(("id" = Uuid, Path, description = "The user's id", example = "0192f0c1-2345-7abc-8def-0123456789ab"),
        ("endpoint_id" = Uuid, Path, description = "Its id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    responses((status = 200, description = "As it is now", body = EndpointBody<'_>)))]
pub(crate) async fn enable_endpoint(
    state: Data<HttpState>,
    caller: Caller,
    PathPair(id, endpoint): PathPair<UserId, ContactId>,
) -> Result<HttpResponse, Problem> {
    reach(&caller, id, Right::UsersWrite)?;
    let endpoint = state.users.enable_endpoint(id, endpoint).await?;
    state.post.notifications.judge().suppressions.lift_webhook(&endpoint.url).await?;
    json(StatusCode::OK, &EndpointBody::of(&endpoint))
}
