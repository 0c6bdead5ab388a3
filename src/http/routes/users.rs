//! `/api/v1/users`: people, and how they want to be told things.

use std::collections::BTreeMap;

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
    web::Data,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::{
    base::{clock::Timestamp, id::UserId, secret::Secret},
    http::{
        HttpState, RequestContext,
        auth::{demand, reach},
        endpoint::Endpoint,
        extract::{Json, PathParam, Query, RequestBody, present},
        problem::Problem,
        response::{List, json},
        routes::Routes,
    },
    users::{Caller, NewUser, Preferences, Right, Role, User, UserPatch},
};

pub(crate) fn register(routes: &mut Routes<'_>) {
    Endpoint::at("/api/v1/users").get(Right::UsersRead, list).post(Right::UsersWrite, create).register(routes);
    Endpoint::at("/api/v1/users/{id}")
        .get(Right::Oneself, read)
        .patch(Right::Oneself, patch)
        .delete(Right::UsersAdmin, remove)
        .register(routes);
    Endpoint::at("/api/v1/users/{id}/password").post(Right::Oneself, change_password).register(routes);
}

/// Somebody.
#[derive(Serialize, ToSchema)]
#[schema(as = User, example = json!({
    "id": "0192f0c1-2345-7abc-8def-0123456789ab", "email": "ada@example.com", "name": "Ada Lovelace", "role": "user",
    "disabled": false, "locale": "en", "time_zone": "Europe/London",
    "preferences": {"email": true, "push": true, "webhook": true, "console": true,
        "categories": {"marketing": {"email": false}}, "quiet_hours": {"start": "22:00", "end": "07:00"}},
    "created_at": "2026-11-21T08:00:00.000Z", "updated_at": "2026-11-21T08:00:00.000Z", "version": 1,
}))]
pub(crate) struct UserBody<'a> {
    /// Names the user.
    #[schema(value_type = String, format = Uuid)]
    id: UserId,
    /// In lower case.
    email: &'a str,
    /// How to address the user.
    name: &'a str,
    /// What the user may do.
    #[schema(value_type = RoleDoc)]
    role: Role,
    /// Whether the user is shut out.
    disabled: bool,
    /// Language tag (BCP 47).
    locale: &'a str,
    /// Name of the time zone (IANA).
    time_zone: &'a str,
    /// How the user wants to be told things.
    #[schema(value_type = PreferencesDoc)]
    preferences: &'a Preferences,
    /// When the user was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// 1 at first, one more with each change.
    #[schema(minimum = 1)]
    version: u64,
}

impl<'a> From<&'a User> for UserBody<'a> {
    fn from(user: &'a User) -> Self {
        let User { id, email, name, role, disabled, locale, time_zone, preferences, created_at, updated_at, .. } = user;
        Self {
            id: *id,
            email,
            name,
            role: *role,
            disabled: *disabled,
            locale,
            time_zone,
            preferences,
            created_at: *created_at,
            updated_at: *updated_at,
            version: user.version,
        }
    }
}

/// How [`Role`] is documented.
#[derive(ToSchema)]
#[schema(as = Role, rename_all = "snake_case")]
#[allow(dead_code, reason = "documents a type that does not know this API")]
pub(crate) enum RoleDoc {
    Admin,
    User,
}

/// By which channels, of which categories and when somebody wants to be told things.
#[derive(Deserialize, ToSchema)]
#[schema(as = Preferences)]
#[allow(dead_code, reason = "documents a type that does not know this API")]
pub(crate) struct PreferencesDoc {
    /// Whether mail is wanted.
    email: bool,
    /// Whether push messages are wanted.
    push: bool,
    /// Whether webhook calls are wanted.
    webhook: bool,
    /// Whether console lines are wanted.
    console: bool,
    /// What holds for single categories instead: by category, then by channel.
    categories: BTreeMap<String, BTreeMap<String, bool>>,
    /// When only urgent messages are wanted, in the user's time zone.
    #[schema(required)]
    quiet_hours: Option<QuietHoursDoc>,
}

/// From `start` to before `end` each day, over midnight if `end` is earlier.
#[derive(Deserialize, ToSchema)]
#[schema(as = QuietHours)]
#[allow(dead_code, reason = "documents a type that does not know this API")]
pub(crate) struct QuietHoursDoc {
    /// When they begin.
    #[schema(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$", example = "22:00")]
    start: String,
    /// When they end.
    #[schema(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$", example = "07:00")]
    end: String,
}

/// A change to preferences (RFC 7396): null brings back what holds if nothing is said.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PreferencesPatch, example = json!({"push": false, "quiet_hours": {"start": "22:00", "end": "07:00"}}))]
#[allow(dead_code, reason = "documents what is merged as plain JSON")]
pub(crate) struct PreferencesPatchDoc {
    /// Whether mail is wanted.
    email: Option<bool>,
    /// Whether push messages are wanted.
    push: Option<bool>,
    /// Whether webhook calls are wanted.
    webhook: Option<bool>,
    /// Whether console lines are wanted.
    console: Option<bool>,
    /// What holds for single categories instead: by category, then by channel, such as `{"billing": {"email": true}}`; null
    /// removes. Names of categories are 1 to 64 characters from a-z, 0-9, `_`, `-` and `.`.
    #[schema(value_type = Option<Object>)]
    categories: Option<Map<String, Value>>,
    /// In the user's time zone.
    quiet_hours: Option<QuietHoursPatchDoc>,
}

/// Quiet hours to set.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = QuietHoursPatch)]
#[allow(dead_code, reason = "documents what is merged as plain JSON")]
pub(crate) struct QuietHoursPatchDoc {
    /// When they begin.
    #[schema(value_type = String, required = false, pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    start: Option<String>,
    /// When they end.
    #[schema(value_type = String, required = false, pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    end: Option<String>,
}

/// A new user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewUser, example = json!({
    "email": "ada@example.com", "name": "Ada Lovelace", "locale": "en", "time_zone": "Europe/London",
    "preferences": {"push": false},
}))]
pub(crate) struct NewUserBody {
    /// An e-mail address that nobody else has here.
    #[schema(min_length = 3, max_length = 254)]
    email: String,
    /// How to address the user: not blank, no control characters.
    #[schema(min_length = 1, max_length = 200, pattern = r"^(?=.*\S)[^\u0000-\u001f\u007f-\u009f]+$")]
    name: String,
    /// At least 8 characters, at most 256 bytes. Without one the user cannot log in.
    #[schema(min_length = 8, max_length = 256)]
    password: Option<String>,
    /// What the user may do; `user` if left out.
    #[schema(value_type = Option<RoleDoc>)]
    role: Option<Role>,
    /// Language tag (BCP 47); `en` if left out.
    #[schema(max_length = 35, pattern = "^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")]
    locale: Option<String>,
    /// Name of a time zone (IANA); `UTC` if left out.
    #[schema(min_length = 1, max_length = 64)]
    time_zone: Option<String>,
    /// How the user wants to be told things; all is on if nothing is said.
    #[schema(value_type = Option<PreferencesPatchDoc>)]
    preferences: Option<Map<String, Value>>,
}

impl RequestBody for NewUserBody {}

/// A change to a user (RFC 7396): what is absent stays, preferences are merged.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserPatch, example = json!({"name": "Ada King", "preferences": {"quiet_hours": null}}))]
pub(crate) struct UserPatchBody {
    /// The new e-mail address. It cannot be removed.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required = false, min_length = 3, max_length = 254)]
    email: Option<String>,
    /// The new name. It cannot be removed.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 200,
        pattern = r"^(?=.*\S)[^\u0000-\u001f\u007f-\u009f]+$")]
    name: Option<String>,
    /// The new language; null is the default.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 35, pattern = "^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")]
    locale: Option<Option<String>>,
    /// The new time zone; null is the default.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64)]
    time_zone: Option<Option<String>>,
    /// Merged into the preferences; null brings back the default.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<PreferencesPatchDoc>)]
    preferences: Option<Option<Map<String, Value>>>,
    /// What the user may do. For administrators.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = RoleDoc, required = false)]
    role: Option<Role>,
    /// Whether the user is shut out. For administrators.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = bool, required = false)]
    disabled: Option<bool>,
}

impl RequestBody for UserPatchBody {}

/// Another password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewPassword, example = json!({"current_password": "correct horse battery", "new_password": "staple battery horse"}))]
pub(crate) struct PasswordBody {
    /// The present one; not wanted from administrators who change somebody else's.
    #[schema(max_length = 256)]
    current_password: Option<String>,
    /// The new one: at least 8 characters, at most 256 bytes.
    #[schema(min_length = 8, max_length = 256)]
    new_password: String,
}

impl RequestBody for PasswordBody {}

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
    /// With this role.
    #[param(inline, value_type = Option<RoleDoc>, example = "user")]
    role: Option<Role>,
}

/// Makes a user
#[utoipa::path(post, path = "/api/v1/users", tag = "users", operation_id = "create_user", request_body = NewUserBody,
    responses((status = 201, description = "Made", body = UserBody<'_>,
            headers(("Location" = String, description = "The user's path"))),
        (status = 409, description = "Another user has this e-mail address")))]
pub(crate) async fn create(
    state: Data<HttpState>,
    context: RequestContext,
    caller: Caller,
    Json(body): Json<NewUserBody>,
) -> Result<HttpResponse, Problem> {
    let NewUserBody { email, name, password, role, locale, time_zone, preferences } = body;
    let role = role.unwrap_or_default();
    if role != Role::User {
        demand(&caller, Right::UsersAdmin, "make administrators")?;
    }
    let password = password.map(Secret::new);
    let new = NewUser { email, name, password, role, locale, time_zone, preferences };
    let user = state.users.create(new, context.into_id()).await?;
    let mut response = json(StatusCode::CREATED, &UserBody::from(&user))?;
    location(&mut response, "/api/v1/users", user.id);
    Ok(response)
}

/// Lists users, newest first
#[utoipa::path(get, path = "/api/v1/users", tag = "users", operation_id = "list_users", params(ListParams),
    responses((status = 200, description = "One page of users", body = List<UserBody<'_>>,
        example = json!({"data": [], "meta": {"limit": 50, "next_cursor": null, "has_next": false}}))))]
pub(crate) async fn list(state: Data<HttpState>, Query(query): Query<ListParams>) -> Result<HttpResponse, Problem> {
    let page = state.limits.page(query.limit, query.cursor.as_deref())?;
    let found = state.users.list(query.role, page).await?;
    let users = found.data;
    let shown = crate::base::page::Page { data: users.iter().map(UserBody::from).collect(), next: found.next };
    json(StatusCode::OK, &List::of(shown, &page, |user| user))
}

/// Reads a user
#[utoipa::path(get, path = "/api/v1/users/{id}", tag = "users", operation_id = "read_user",
    params(("id" = Uuid, Path, description = "The user's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    responses((status = 200, description = "The user", body = UserBody<'_>)))]
pub(crate) async fn read(
    state: Data<HttpState>,
    caller: Caller,
    PathParam(id): PathParam<UserId>,
) -> Result<HttpResponse, Problem> {
    reach(&caller, id, Right::UsersRead)?;
    let user = state.users.get(id).await?;
    json(StatusCode::OK, &UserBody::from(&user))
}

/// Changes parts of a user (JSON Merge Patch)
#[utoipa::path(patch, path = "/api/v1/users/{id}", tag = "users", operation_id = "patch_user",
    params(("id" = Uuid, Path, description = "The user's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    request_body = UserPatchBody,
    responses((status = 200, description = "The user as it is now", body = UserBody<'_>),
        (status = 409, description = "Another user has this e-mail address, or others keep changing this one")))]
pub(crate) async fn patch(
    state: Data<HttpState>,
    caller: Caller,
    PathParam(id): PathParam<UserId>,
    Json(body): Json<UserPatchBody>,
) -> Result<HttpResponse, Problem> {
    reach(&caller, id, Right::UsersWrite)?;
    let UserPatchBody { email, name, locale, time_zone, preferences, role, disabled } = body;
    let patch = UserPatch { email, name, locale, time_zone, preferences, role, disabled };
    if patch.is_privileged() {
        demand(&caller, Right::UsersAdmin, "change roles and shut users out")?;
    }
    let user = state.users.patch(id, &patch).await?;
    json(StatusCode::OK, &UserBody::from(&user))
}

/// Removes a user
#[utoipa::path(delete, path = "/api/v1/users/{id}", tag = "users", operation_id = "delete_user",
    params(("id" = Uuid, Path, description = "The user's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    responses((status = 204, description = "Removed; its tokens end")))]
pub(crate) async fn remove(state: Data<HttpState>, PathParam(id): PathParam<UserId>) -> Result<HttpResponse, Problem> {
    state.users.delete(id).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Changes a user's password
///
/// Tokens that were made before end with the old one.
#[utoipa::path(post, path = "/api/v1/users/{id}/password", tag = "users", operation_id = "change_password",
    params(("id" = Uuid, Path, description = "The user's id", example = "0192f0c1-2345-7abc-8def-0123456789ab")),
    request_body = PasswordBody,
    responses((status = 204, description = "Changed"), (status = 409, description = "Somebody else changed it"),
        (status = 429, description = "Too many attempts")))]
pub(crate) async fn change_password(
    state: Data<HttpState>,
    caller: Caller,
    PathParam(id): PathParam<UserId>,
    Json(body): Json<PasswordBody>,
) -> Result<HttpResponse, Problem> {
    reach(&caller, id, Right::UsersAdmin)?;
    // Even an administrator says the old one to change its own: the token may be a stolen one.
    let trusted = caller.user() != Some(id);
    let (present, new) = (body.current_password.map(Secret::new), Secret::new(body.new_password));
    state.users.change_password(id, present.as_ref(), &new, trusted).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Says where what was made is found.
pub(super) fn location(response: &mut HttpResponse, under: &str, id: impl std::fmt::Display) {
    if let Ok(value) = header::HeaderValue::try_from(format!("{under}/{id}")) {
        response.headers_mut().insert(header::LOCATION, value);
    }
}
