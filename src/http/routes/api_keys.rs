//! `/api/v1/api-keys`: what programs prove with who they are.

use actix_web::{HttpResponse, http::StatusCode, web::Data};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{auth::unkept, users::location};
use crate::{
    base::{clock::Timestamp, id::KeyId, page::Page},
    http::{
        HttpState,
        endpoint::Endpoint,
        extract::{Json, PathParam, Query, RequestBody},
        problem::Problem,
        response::{List, json},
        routes::Routes,
    },
    users::{ApiKey, NewKey, Right, Scope},
};

pub(crate) fn register(routes: &mut Routes<'_>) {
    Endpoint::at("/api/v1/api-keys").get(Right::UsersAdmin, list).post(Right::UsersAdmin, create).register(routes);
    Endpoint::at("/api/v1/api-keys/{id}").delete(Right::UsersAdmin, revoke).register(routes);
}

/// How [`Scope`] is documented.
#[derive(ToSchema)]
#[schema(as = Scope)]
#[allow(dead_code, reason = "documents a type that does not know this API")]
pub(crate) enum ScopeDoc {
    #[schema(rename = "admin")]
    Admin,
    #[schema(rename = "items:read")]
    ItemsRead,
    #[schema(rename = "items:write")]
    ItemsWrite,
    #[schema(rename = "jobs:read")]
    JobsRead,
    #[schema(rename = "jobs:write")]
    JobsWrite,
    #[schema(rename = "queues:control")]
    QueuesControl,
    #[schema(rename = "notifications:read")]
    NotificationsRead,
    #[schema(rename = "notifications:write")]
    NotificationsWrite,
    #[schema(rename = "templates:read")]
    TemplatesRead,
    #[schema(rename = "templates:write")]
    TemplatesWrite,
    #[schema(rename = "users:read")]
    UsersRead,
    #[schema(rename = "users:write")]
    UsersWrite,
}

/// A key.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey, example = json!({
    "id": "0192f0c1-2345-7abc-8def-0123456789ab", "name": "nightly import", "scopes": ["items:read", "items:write"],
    "created_at": "2026-11-21T08:00:00.000Z", "expires_at": null,
}))]
pub(crate) struct KeyBody<'a> {
    /// Names the key.
    #[schema(value_type = String, format = Uuid)]
    id: KeyId,
    /// What people call it.
    name: &'a str,
    /// What it is good for.
    #[schema(value_type = Vec<ScopeDoc>)]
    scopes: &'a [Scope],
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it ends; null is never.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// The key itself, to be sent as `Authorization: Bearer …` or `X-API-Key`. Only when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    key: Option<&'a str>,
}

impl<'a> KeyBody<'a> {
    fn of(key: &'a ApiKey) -> Self {
        let ApiKey { id, name, scopes, created_at, expires_at, .. } = key;
        Self { id: *id, name, scopes, created_at: *created_at, expires_at: *expires_at, key: None }
    }
}

/// A key to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewApiKey, example = json!({"name": "nightly import", "scopes": ["items:read", "items:write"]}))]
pub(crate) struct NewKeyBody {
    /// What people call it: not blank, no control characters.
    #[schema(min_length = 1, max_length = 200, pattern = r"^(?=.*\S)[^\u0000-\u001f\u007f-\u009f]+$")]
    name: String,
    /// What it is good for.
    #[schema(value_type = Vec<ScopeDoc>, min_items = 1)]
    scopes: Vec<Scope>,
    /// When it ends, in the future; never if left out.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

impl RequestBody for NewKeyBody {}

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

/// Makes an API key
///
/// The answer holds the key; it is not shown again.
#[utoipa::path(post, path = "/api/v1/api-keys", tag = "auth", operation_id = "create_api_key", request_body = NewKeyBody,
    responses((status = 201, description = "Made", body = KeyBody<'_>,
        headers(("Location" = String, description = "The key's path")))))]
pub(crate) async fn create(state: Data<HttpState>, Json(body): Json<NewKeyBody>) -> Result<HttpResponse, Problem> {
    let NewKeyBody { name, scopes, expires_at } = body;
    let (key, text) = state.users.create_key(NewKey { name, scopes, expires_at }).await?;
    let shown = KeyBody { key: Some(text.reveal()), ..KeyBody::of(&key) };
    let mut response = unkept(json(StatusCode::CREATED, &shown)?);
    location(&mut response, "/api/v1/api-keys", key.id);
    Ok(response)
}

/// Lists API keys, newest first
#[utoipa::path(get, path = "/api/v1/api-keys", tag = "auth", operation_id = "list_api_keys", params(ListParams),
    responses((status = 200, description = "One page of keys", body = List<KeyBody<'_>>,
        example = json!({"data": [], "meta": {"limit": 50, "next_cursor": null, "has_next": false}}))))]
pub(crate) async fn list(state: Data<HttpState>, Query(query): Query<ListParams>) -> Result<HttpResponse, Problem> {
    let page = state.limits.page(query.limit, query.cursor.as_deref())?;
    let found = state.users.list_keys(page).await?;
    let shown = Page { data: found.data.iter().map(KeyBody::of).collect(), next: found.next };
    json(StatusCode::OK, &List::of(shown, &page, |key| key))
}

/// Revokes an API key
#[utoipa::path(delete, path = "/api/v1/api-keys/{id}", tag = "auth", operation_id = "revoke_api_key",
    params(("id" = Uuid, Path, description = "The key's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    responses((status = 204, description = "It is good for nothing any more")))]
pub(crate) async fn revoke(state: Data<HttpState>, PathParam(id): PathParam<KeyId>) -> Result<HttpResponse, Problem> {
    state.users.revoke_key(id).await?;
    Ok(HttpResponse::NoContent().finish())
}
