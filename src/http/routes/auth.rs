//! `/api/v1/auth`: making a user of oneself, logging in, and finding out who one is.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web::Data,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::users::{PreferencesPatchDoc, UserBody, location};
use crate::{
    base::secret::Secret,
    config::Registration,
    http::{
        HttpLimits, HttpState, RequestContext,
        auth::{Client, proof},
        endpoint::Endpoint,
        extract::{Json, RequestBody},
        problem::{Problem, ProblemType},
        response::json,
        routes::Routes,
    },
    users::{Need, NewUser, Refusal, Role, UserError},
};

pub(crate) fn register(routes: &mut Routes<'_>) {
    Endpoint::at("/api/v1/auth/register").post(Need::Open, sign_up).register(routes);
    Endpoint::at("/api/v1/auth/login").post(Need::Open, login).register(routes);
    // Open for the guard, because it tells who one is even where nobody has to say so; it asks for itself.
    Endpoint::at("/api/v1/auth/me").get(Need::Open, me).register(routes);
}

/// Somebody new.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Registration, example = json!({
    "email": "ada@example.com", "name": "Ada Lovelace", "password": "correct horse battery", "locale": "en",
    "time_zone": "Europe/London",
}))]
pub(crate) struct RegisterBody {
    /// An e-mail address that nobody else has here.
    #[schema(min_length = 3, max_length = 254)]
    email: String,
    /// How to address the user: not blank, no control characters.
    #[schema(min_length = 1, max_length = 200, pattern = r"^(?=.*\S)[^\u0000-\u001f\u007f-\u009f]+$")]
    name: String,
    /// At least 8 characters, at most 256 bytes.
    #[schema(min_length = 8, max_length = 256)]
    password: String,
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

impl RequestBody for RegisterBody {
    fn limit(limits: &HttpLimits) -> usize {
        limits.credentials()
    }
}

/// Makes a user of whoever asks
///
/// Each network address has a limited number of attempts.
#[utoipa::path(post, path = "/api/v1/auth/register", tag = "auth", operation_id = "register",
    request_body = RegisterBody,
    responses((status = 201, description = "The new user", body = UserBody<'_>,
            headers(("Location" = String, description = "The user's path"))),
        (status = 403, description = "Only administrators make users here"),
        (status = 409, description = "Another user has this e-mail address"),
        (status = 429, description = "Too many attempts")))]
pub(crate) async fn sign_up(
    state: Data<HttpState>,
    context: RequestContext,
    Client(client): Client,
    Json(body): Json<RegisterBody>,
) -> Result<HttpResponse, Problem> {
    if state.users.registration() == Registration::Admin {
        let message = "only administrators make users here, at POST /api/v1/users";
        return Err(Problem::new(ProblemType::Forbidden, message));
    }
    if state.auth.required {
        state.users.admit_client(&client).await?;
    }
    let RegisterBody { email, name, password, locale, time_zone, preferences } = body;
    let password = Some(Secret::new(password));
    let new = NewUser { email, name, password, role: Role::User, locale, time_zone, preferences };
    let user = state.users.create(new, context.into_id()).await?;
    let mut response = json(StatusCode::CREATED, &UserBody::from(&user))?;
    location(&mut response, "/api/v1/users", user.id);
    Ok(response)
}

/// Who one says to be, and what proves it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Credentials, example = json!({"email": "ada@example.com", "password": "correct horse battery"}))]
pub(crate) struct LoginBody {
    /// The user's e-mail address.
    #[schema(max_length = 254)]
    email: String,
    /// The user's password.
    #[schema(max_length = 256)]
    password: String,
}

impl RequestBody for LoginBody {
    fn limit(limits: &HttpLimits) -> usize {
        limits.credentials()
    }
}

/// A token.
#[derive(Serialize, ToSchema)]
#[schema(as = Token, example = json!({
    "access_token": "eyJhbGciOiJIUzI1NiIsImtpZCI6ImEiLCJ0eXAiOiJKV1QifQ.e30.c2lnbmF0dXJl", "token_type": "Bearer",
    "expires_in": 3600,
}))]
pub(crate) struct TokenBody<'a> {
    /// What to send as `Authorization: Bearer …`.
    access_token: &'a str,
    /// Always `Bearer`.
    token_type: &'static str,
    /// Seconds for which it is good.
    expires_in: u64,
}

/// Gives a token to whoever knows the password
///
/// Each e-mail address and each network address has a limited number of attempts.
#[utoipa::path(post, path = "/api/v1/auth/login", tag = "auth", operation_id = "login", request_body = LoginBody,
    responses((status = 200, description = "A token", body = TokenBody<'_>),
        (status = 401, description = "The e-mail address or the password is wrong"),
        (status = 429, description = "Too many attempts")))]
pub(crate) async fn login(
    state: Data<HttpState>,
    Client(client): Client,
    Json(body): Json<LoginBody>,
) -> Result<HttpResponse, Problem> {
    if body.email.chars().count() > crate::users::EMAIL_MAX {
        return Err(Problem::invalid_field("email", "is longer than an e-mail address can be"));
    }
    let password = Secret::new(body.password);
    let signed_in = state.users.login(&body.email, &password, &client).await?;
    let token = TokenBody {
        access_token: signed_in.token.reveal(),
        token_type: "Bearer",
        expires_in: signed_in.expires_in.as_secs(),
    };
    Ok(unkept(json(StatusCode::OK, &token)?))
}

/// Tells who the token belongs to
#[utoipa::path(get, path = "/api/v1/auth/me", tag = "auth", operation_id = "read_me",
    responses((status = 200, description = "The user", body = UserBody<'_>),
        (status = 401, description = "No token, or a wrong one"),
        (status = 403, description = "An API key is no user")),
    security(("bearer" = [])))]
pub(crate) async fn me(req: HttpRequest, state: Data<HttpState>) -> Result<HttpResponse, Problem> {
    let caller = state.users.authenticate(proof(req.headers())).await?;
    let id = caller.user().ok_or(UserError::Forbidden("an API key is no user"))?;
    let user = state.users.get(id).await.map_err(|e| match e {
        UserError::NotFound(_) => UserError::Unauthorized(Refusal::Invalid),
        other => other,
    })?;
    json(StatusCode::OK, &UserBody::from(&user))
}

/// An answer that holds a secret and must not be kept on its way.
pub(super) fn unkept(mut response: HttpResponse) -> HttpResponse {
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}
