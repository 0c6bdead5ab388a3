//! `/api/v1/items`, and the same at `/api/items`.
//!
//! The types here are what clients see; they are turned into the items room's own at once, so that the room stays free
//! of JSON and of this API's version.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web::Data,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::{
    base::{clock::Timestamp, id::ItemId},
    http::{
        HttpState,
        context::RequestContext,
        endpoint::Endpoint,
        extract::{Json, PathParam, Query, RequestBody, present},
        problem::Problem,
        response::{List, json},
        routes::Routes,
    },
    items::{Item, ItemFilter, ItemPatch, NewItem},
    users::Right,
};

pub(crate) fn register(routes: &mut Routes<'_>) {
    for (all, one) in [("/api/v1/items", "/api/v1/items/{id}"), ("/api/items", "/api/items/{id}")] {
        Endpoint::at(all).get(Right::ItemsRead, list).post(Right::ItemsWrite, create).register(routes);
        Endpoint::at(one)
            .get(Right::ItemsRead, read)
            .patch(Right::ItemsWrite, patch)
            .put(Right::ItemsWrite, replace)
            .delete(Right::ItemsWrite, remove)
            .register(routes);
    }
}

/// An item.
#[derive(Serialize, ToSchema)]
#[schema(as = Item, example = json!({
    "id": "0192f0c1-2345-7abc-8def-0123456789ab", "name": "Desk lamp", "description": "Warm light, dimmable",
    "metadata": {"category": "lighting", "watts": 7}, "created_at": "2026-11-21T08:00:00.000Z",
    "updated_at": "2026-11-21T08:00:00.000Z", "version": 1,
}))]
pub(crate) struct ItemBody {
    /// Names the item.
    #[schema(value_type = String, format = Uuid)]
    id: ItemId,
    /// Its name.
    name: String,
    /// More about it, or null.
    #[schema(required)]
    description: Option<String>,
    /// Whatever the client keeps with it.
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// 1 at first, one more with each change.
    #[schema(minimum = 1)]
    version: u64,
}

impl From<Item> for ItemBody {
    fn from(item: Item) -> Self {
        let Item { id, name, description, metadata, created_at, updated_at, version } = item;
        Self { id, name, description, metadata, created_at, updated_at, version }
    }
}

/// A new item, or all of an item that is to be replaced.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewItem, example = json!({
    "name": "Desk lamp", "description": "Warm light, dimmable", "metadata": {"category": "lighting", "watts": 7},
}))]
pub(crate) struct NewItemBody {
    /// Its name: not blank, no control characters.
    #[schema(min_length = 1, max_length = 200, pattern = r"^(?=.*\S)[^\u0000-\u001f\u007f-\u009f]+$")]
    name: String,
    /// More about it.
    #[schema(max_length = 10000, pattern = r"^[^\u0000]*$")]
    description: Option<String>,
    /// Anything, up to 64 KiB as JSON and 32 levels deep.
    #[serde(default)]
    #[schema(value_type = Object, required = false)]
    metadata: Map<String, Value>,
}

impl RequestBody for NewItemBody {}

impl From<NewItemBody> for NewItem {
    fn from(NewItemBody { name, description, metadata }: NewItemBody) -> Self {
        Self { name, description, metadata }
    }
}

/// A change to an item (RFC 7396): what is absent stays, null removes, metadata is merged.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ItemPatch, example = json!({"description": null, "metadata": {"watts": 9, "category": null}}))]
pub(crate) struct ItemPatchBody {
    /// The new name. It cannot be removed.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 200,
        pattern = r"^(?=.*\S)[^\u0000-\u001f\u007f-\u009f]+$")]
    name: Option<String>,
    /// The new description; null removes it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 10000, pattern = r"^[^\u0000]*$")]
    description: Option<Option<String>>,
    /// Merged into the metadata: null members are removed; null empties it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Option<Map<String, Value>>>,
}

impl RequestBody for ItemPatchBody {}

impl From<ItemPatchBody> for ItemPatch {
    fn from(ItemPatchBody { name, description, metadata }: ItemPatchBody) -> Self {
        Self { name, description, metadata }
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
    /// The name contains this, in either case.
    #[param(max_length = 200, example = "lamp")]
    name: Option<String>,
    /// `metadata.category` is this.
    #[param(example = "lighting")]
    category: Option<String>,
    /// Created at this time or later.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-11-01T00:00:00Z")]
    created_after: Option<Timestamp>,
    /// Created before this time.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-12-01T00:00:00Z")]
    created_before: Option<Timestamp>,
}

/// Makes an item
#[utoipa::path(post, path = "/api/v1/items", tag = "items", operation_id = "create_item", request_body = NewItemBody,
    responses((status = 201, description = "Made", body = ItemBody,
        headers(("Location" = String, description = "The item's path")))))]
pub(crate) async fn create(
    req: HttpRequest,
    state: Data<HttpState>,
    context: RequestContext,
    Json(body): Json<NewItemBody>,
) -> Result<HttpResponse, Problem> {
    let item = state.items.create(body.into(), context.into_id()).await?;
    let location = format!("{}/{}", req.path(), item.id);
    let mut response = json(StatusCode::CREATED, &ItemBody::from(item))?;
    if let Ok(value) = header::HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    Ok(response)
}

/// Lists items, newest first
#[utoipa::path(get, path = "/api/v1/items", tag = "items", operation_id = "list_items", params(ListParams),
    responses((status = 200, description = "One page of items", body = List<ItemBody>, example = json!({
        "data": [{
            "id": "0192f0c1-2345-7abc-8def-0123456789ab", "name": "Desk lamp", "description": null,
            "metadata": {"category": "lighting"}, "created_at": "2026-11-21T08:00:00.000Z",
            "updated_at": "2026-11-21T08:00:00.000Z", "version": 1,
        }],
        "meta": {"limit": 50, "next_cursor": null, "has_next": false},
    }))))]
pub(crate) async fn list(state: Data<HttpState>, Query(query): Query<ListParams>) -> Result<HttpResponse, Problem> {
    let ListParams { limit, cursor, name, category, created_after, created_before } = query;
    let page = state.limits.page(limit, cursor.as_deref())?;
    let filter = ItemFilter { name_contains: name, category, created_after, created_before };
    let found = state.items.list(&filter, page).await?;
    json(StatusCode::OK, &List::of(found, &page, ItemBody::from))
}

/// Reads an item
#[utoipa::path(get, path = "/api/v1/items/{id}", tag = "items", operation_id = "read_item",
    params(("id" = Uuid, Path, description = "The item's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    responses((status = 200, description = "The item", body = ItemBody)))]
pub(crate) async fn read(state: Data<HttpState>, PathParam(id): PathParam<ItemId>) -> Result<HttpResponse, Problem> {
    let item = state.items.get(id).await?;
    json(StatusCode::OK, &ItemBody::from(item))
}

/// Changes parts of an item (JSON Merge Patch)
#[utoipa::path(patch, path = "/api/v1/items/{id}", tag = "items", operation_id = "patch_item",
    params(("id" = Uuid, Path, description = "The item's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    request_body = ItemPatchBody,
    responses((status = 200, description = "The item as it is now", body = ItemBody),
        (status = 409, description = "Others keep changing it")))]
pub(crate) async fn patch(
    state: Data<HttpState>,
    PathParam(id): PathParam<ItemId>,
    context: RequestContext,
    Json(body): Json<ItemPatchBody>,
) -> Result<HttpResponse, Problem> {
    let item = state.items.patch(id, &body.into(), context.into_id()).await?;
    json(StatusCode::OK, &ItemBody::from(item))
}

/// Replaces an item: what the body leaves out is gone
#[utoipa::path(put, path = "/api/v1/items/{id}", tag = "items", operation_id = "replace_item",
    params(("id" = Uuid, Path, description = "The item's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    request_body = NewItemBody,
    responses((status = 200, description = "The item as it is now", body = ItemBody),
        (status = 409, description = "Others keep changing it")))]
pub(crate) async fn replace(
    state: Data<HttpState>,
    PathParam(id): PathParam<ItemId>,
    context: RequestContext,
    Json(body): Json<NewItemBody>,
) -> Result<HttpResponse, Problem> {
    let item = state.items.replace(id, &body.into(), context.into_id()).await?;
    json(StatusCode::OK, &ItemBody::from(item))
}

/// Removes an item
#[utoipa::path(delete, path = "/api/v1/items/{id}", tag = "items", operation_id = "delete_item",
    params(("id" = Uuid, Path, description = "The item's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    responses((status = 204, description = "Removed")))]
pub(crate) async fn remove(
    state: Data<HttpState>,
    PathParam(id): PathParam<ItemId>,
    context: RequestContext,
) -> Result<HttpResponse, Problem> {
    state.items.delete(id, context.into_id()).await?;
    Ok(HttpResponse::NoContent().finish())
}
