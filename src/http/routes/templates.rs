//! `/api/v1/templates`: save, read, preview, compare and roll back what messages say.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, http::StatusCode, web::Data};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::{Routes, users::location};
use crate::{
    base::clock::Timestamp,
    http::{
        HttpState,
        endpoint::Endpoint,
        extract::{Json, Object, PathParam, Query, RequestBody},
        notification_body::ChannelDoc,
        problem::{Problem, at_most},
        response::{List, json},
    },
    notifications::{
        channels::Content,
        error::NotificationError,
        model::{Channel, Frozen, check_name},
        template::model::{DEFAULT_LOCALE, EmailParts, Parts, PushParts, Variable, check_locale},
        templates::{NewTemplate, Saved, Templates, diff},
    },
    users::Right,
};

pub(crate) fn register(routes: &mut Routes<'_>) {
    Endpoint::at("/api/v1/templates")
        .post(Right::TemplatesWrite, save)
        .get(Right::TemplatesRead, list)
        .register(routes);
    Endpoint::at("/api/v1/templates/{code}").get(Right::TemplatesRead, read).register(routes);
    Endpoint::at("/api/v1/templates/{code}/versions").get(Right::TemplatesRead, versions).register(routes);
    Endpoint::at("/api/v1/templates/{code}/preview").post(Right::TemplatesRead, preview).register(routes);
    Endpoint::at("/api/v1/templates/{code}/diff").get(Right::TemplatesRead, compare).register(routes);
    Endpoint::at("/api/v1/templates/{code}/rollback").post(Right::TemplatesWrite, roll_back).register(routes);
}

/// The code of a template, from the path.
pub(crate) struct Code(String);

impl std::str::FromStr for Code {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        check_name(s).map(|()| Self(s.to_owned()))
    }
}

/// What a template says, by channel: Jinja's output, `if` and `for`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TemplateParts)]
pub(crate) struct PartsBody {
    /// A mail.
    #[serde(default)]
    #[schema(value_type = Option<EmailPartsBody>)]
    email: Option<Object<EmailPartsBody>>,
    /// A push message.
    #[serde(default)]
    #[schema(value_type = Option<PushPartsBody>)]
    push: Option<Object<PushPartsBody>>,
    /// The JSON document of a webhook; values are written as JSON, quotes included.
    #[serde(default)]
    #[schema(max_length = 65536)]
    webhook: Option<String>,
    /// A line for the log.
    #[serde(default)]
    #[schema(max_length = 65536)]
    console: Option<String>,
}

/// Parts of a mail.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EmailParts)]
pub(crate) struct EmailPartsBody {
    /// One line.
    #[schema(max_length = 65536)]
    subject: String,
    /// The plain text.
    #[schema(max_length = 65536)]
    text: String,
    /// The HTML; values are escaped.
    #[serde(default)]
    #[schema(max_length = 65536)]
    html: Option<String>,
}

/// Parts of a push message.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PushParts)]
pub(crate) struct PushPartsBody {
    /// One line.
    #[schema(max_length = 65536)]
    title: String,
    /// A few lines.
    #[schema(max_length = 65536)]
    body: String,
    /// For the application.
    #[serde(default)]
    #[schema(required = false)]
    data: BTreeMap<String, String>,
}

impl From<PartsBody> for Parts {
    fn from(p: PartsBody) -> Self {
        Self {
            email: p.email.map(|Object(EmailPartsBody { subject, text, html })| EmailParts { subject, text, html }),
            push: p.push.map(|Object(PushPartsBody { title, body, data })| PushParts { title, body, data }),
            webhook: p.webhook,
            console: p.console,
        }
    }
}

/// What a template needs to be told.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TemplateVariable, example = json!({"name": "name", "required": true, "example": "Ada"}))]
pub(crate) struct VariableBody {
    /// Its name.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z_][A-Za-z0-9_]*$")]
    name: String,
    /// Whether a notification must give it; else it is none.
    #[serde(default = "yes")]
    #[schema(required = false, default = true)]
    required: bool,
    /// A value that works, for previews and for the check at save; a text if left out.
    #[serde(default)]
    #[schema(value_type = Value, required = false)]
    example: Option<Value>,
}

fn yes() -> bool {
    true
}

/// A template to save: the first of its code and language, or the next version of it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewTemplate, example = json!({
    "code": "welcome", "locale": "default",
    "parts": {"email": {"subject": "Welcome, {{ name }}", "text": "Hello {{ name }}!", "html": "<p>Hello {{ name }}!</p>"}},
    "variables": [{"name": "name", "example": "Ada"}],
}))]
pub(crate) struct NewTemplateBody {
    /// Names it in all languages.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z0-9_][a-z0-9_.-]*$")]
    code: String,
    /// `default`, or a language such as `pt` or `pt-BR`.
    #[schema(max_length = 35, pattern = "^(default|[a-z]{2,3}(-[A-Za-z0-9]{1,8})*)$")]
    locale: Option<String>,
    /// What it says.
    #[schema(value_type = PartsBody)]
    parts: Object<PartsBody>,
    /// What it needs to be told.
    #[serde(default)]
    #[schema(value_type = Vec<VariableBody>, required = false, max_items = 100)]
    variables: Vec<Object<VariableBody>>,
    /// Why this version is made.
    #[schema(max_length = 1000)]
    note: Option<String>,
}

impl RequestBody for NewTemplateBody {}

/// A version of a template.
#[derive(Serialize, ToSchema)]
#[schema(as = Template, example = json!({
    "code": "welcome", "locale": "default", "version": 1, "channels": ["email"],
    "parts": {"email": {"subject": "Welcome, {{ name }}", "text": "Hello {{ name }}!"}},
    "variables": [{"name": "name", "required": true, "example": "Ada"}], "note": null,
    "created_at": "2026-11-21T08:00:00.000Z",
}))]
pub(crate) struct TemplateBody {
    /// Names it in all languages.
    code: String,
    /// Its language.
    locale: String,
    /// 1 at first, one more with each change; 0 for one that comes with the program.
    version: u64,
    /// The channels it has parts for.
    #[schema(value_type = Vec<ChannelDoc>)]
    channels: Vec<Channel>,
    /// What it says.
    #[schema(value_type = PartsBody)]
    parts: Parts,
    /// What it needs to be told.
    variables: Vec<VariableBody>,
    /// Why this version was made, or null.
    #[schema(required)]
    note: Option<String>,
    /// When this version was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<Saved> for TemplateBody {
    fn from(Saved { template: t, created_at }: Saved) -> Self {
        let variable = |v: Variable| VariableBody { name: v.name, required: v.required, example: v.example };
        Self {
            channels: t.channels(),
            code: t.code,
            locale: t.locale,
            version: t.version,
            parts: t.parts,
            variables: t.variables.into_iter().map(variable).collect(),
            note: t.note,
            created_at,
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
    /// Of this template, in every language.
    #[param(max_length = 64)]
    code: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReadParams {
    /// The language; what is found for it by `pt-BR`, `pt`, `default` is shown. `default` if left out.
    #[param(max_length = 35)]
    locale: Option<String>,
    /// This version of exactly that language instead of the latest.
    #[param(minimum = 0)]
    version: Option<u64>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct VersionsParams {
    /// At most this many entries; 50 if not given.
    #[param(minimum = 1, maximum = 200, example = 50)]
    limit: Option<u32>,
    /// Where the page starts: `meta.next_cursor` of the page before.
    #[param(pattern = "^c1_[0-9a-f]{32}$")]
    cursor: Option<String>,
    /// The language; `default` if left out.
    #[param(max_length = 35)]
    locale: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DiffParams {
    /// The language; `default` if left out.
    #[param(max_length = 35)]
    locale: Option<String>,
    /// The older version.
    #[param(minimum = 0, example = 1)]
    from: u64,
    /// The newer version; the latest if left out.
    #[param(minimum = 0)]
    to: Option<u64>,
}

fn templates(state: &HttpState) -> &Templates {
    &state.post.notifications.judge().templates
}

fn language(locale: Option<String>) -> Result<String, Problem> {
    let locale = locale.unwrap_or_else(|| DEFAULT_LOCALE.to_owned());
    check_locale(&locale).map_err(|m| Problem::invalid_field("locale", m))?;
    Ok(locale)
}

/// Saves a template
///
/// Every part is checked and rendered with the examples: what would fail at the first message is refused here.
#[utoipa::path(post, path = "/api/v1/templates", tag = "templates", operation_id = "save_template",
    request_body = NewTemplateBody,
    responses((status = 201, description = "Saved as this version", body = TemplateBody,
            headers(("Location" = String, description = "The template's path"))),
        (status = 409, description = "Others keep saving it")))]
pub(crate) async fn save(state: Data<HttpState>, Json(body): Json<NewTemplateBody>) -> Result<HttpResponse, Problem> {
    let variable =
        |Object(v): Object<VariableBody>| Variable { name: v.name, required: v.required, example: v.example };
    if body.note.as_ref().is_some_and(|n| n.chars().count() > 1000) {
        return Err(Problem::invalid_field("note", "has more than 1000 characters"));
    }
    let new = NewTemplate {
        code: body.code,
        locale: body.locale.unwrap_or_else(|| DEFAULT_LOCALE.to_owned()),
        parts: body.parts.0.into(),
        variables: body.variables.into_iter().map(variable).collect(),
        note: body.note,
    };
    let saved = templates(&state).save(new).await?;
    let code = saved.template.code.clone();
    let mut response = json(StatusCode::CREATED, &TemplateBody::from(saved))?;
    location(&mut response, "/api/v1/templates", code);
    Ok(response)
}

/// Lists the latest version of every template and language, newest template first
#[utoipa::path(get, path = "/api/v1/templates", tag = "templates", operation_id = "list_templates", params(ListParams),
    responses((status = 200, description = "One page of templates", body = List<TemplateBody>,
        example = json!({"data": [], "meta": {"limit": 50, "next_cursor": null, "has_next": false}}))))]
pub(crate) async fn list(state: Data<HttpState>, Query(query): Query<ListParams>) -> Result<HttpResponse, Problem> {
    let page = state.limits.page(query.limit, query.cursor.as_deref())?;
    at_most("code", query.code.as_deref(), 64)?;
    let found = templates(&state).list(query.code.as_deref(), page).await?;
    json(StatusCode::OK, &List::of(found, &page, |(_, saved)| TemplateBody::from(saved)))
}

/// Reads a template
#[utoipa::path(get, path = "/api/v1/templates/{code}", tag = "templates", operation_id = "read_template",
    params(("code" = String, Path, description = "The template's code", example = "welcome"), ReadParams),
    responses((status = 200, description = "The template", body = TemplateBody)))]
pub(crate) async fn read(
    state: Data<HttpState>,
    PathParam(Code(code)): PathParam<Code>,
    Query(query): Query<ReadParams>,
) -> Result<HttpResponse, Problem> {
    let locale = language(query.locale)?;
    let saved = match query.version {
        None => templates(&state).resolve(&code, &locale).await?.0,
        Some(version) => one_version(&state, code, locale, version).await?,
    };
    json(StatusCode::OK, &TemplateBody::from(saved))
}

async fn one_version(state: &HttpState, code: String, locale: String, version: u64) -> Result<Saved, Problem> {
    Ok(templates(state).saved_version(&Frozen { code, locale, version }).await?)
}

/// Lists the versions of a template in one language, newest first
#[utoipa::path(get, path = "/api/v1/templates/{code}/versions", tag = "templates", operation_id = "list_template_versions",
    params(("code" = String, Path, description = "The template's code", example = "welcome"), VersionsParams),
    responses((status = 200, description = "One page of versions", body = List<TemplateBody>,
        example = json!({"data": [], "meta": {"limit": 50, "next_cursor": null, "has_next": false}}))))]
pub(crate) async fn versions(
    state: Data<HttpState>,
    PathParam(Code(code)): PathParam<Code>,
    Query(query): Query<VersionsParams>,
) -> Result<HttpResponse, Problem> {
    let page = state.limits.page(query.limit, query.cursor.as_deref())?;
    let found = templates(&state).versions(&code, &language(query.locale)?, page).await?;
    json(StatusCode::OK, &List::of(found, &page, |(_, saved)| TemplateBody::from(saved)))
}

/// What to show a template with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PreviewRequest, example = json!({"notification_type": "email", "variables": {"name": "Ada"}}))]
pub(crate) struct PreviewBody {
    /// The channel.
    #[schema(value_type = ChannelDoc)]
    notification_type: Channel,
    /// The language; `default` if left out.
    #[schema(max_length = 35)]
    locale: Option<String>,
    /// This version of exactly that language instead of the latest.
    version: Option<u64>,
    /// What is put into it; its examples if left out.
    #[schema(value_type = Option<Object>)]
    variables: Option<Map<String, Value>>,
}

impl RequestBody for PreviewBody {}

/// What a template says with some variables.
#[derive(Serialize, ToSchema)]
#[schema(as = Preview, example = json!({
    "code": "welcome", "locale": "default", "version": 1,
    "content": {"channel": "email", "subject": "Welcome, Ada", "text": "Hello Ada!", "html": "<p>Hello Ada!</p>"},
}))]
pub(crate) struct PreviewAnswer {
    /// The template's code.
    code: String,
    /// The language that was found.
    locale: String,
    /// The version.
    version: u64,
    /// The message: `subject`, `text`, `html` (email); `title`, `body`, `data` (push); `body` (webhook); `text` (console).
    #[schema(value_type = Object)]
    content: Content,
}

/// Shows what a template says
#[utoipa::path(post, path = "/api/v1/templates/{code}/preview", tag = "templates", operation_id = "preview_template",
    params(("code" = String, Path, description = "The template's code", example = "welcome")),
    request_body = PreviewBody,
    responses((status = 200, description = "The message", body = PreviewAnswer)))]
pub(crate) async fn preview(
    state: Data<HttpState>,
    PathParam(Code(code)): PathParam<Code>,
    Json(body): Json<PreviewBody>,
) -> Result<HttpResponse, Problem> {
    let locale = language(body.locale)?;
    let saved = match body.version {
        None => templates(&state).resolve(&code, &locale).await?.0,
        Some(version) => one_version(&state, code, locale, version).await?,
    };
    let t = saved.template;
    if let Some(given) = &body.variables
        && let Some(name) = t.missing(given).next()
    {
        return Err(Problem::invalid_field(format!("variables.{name}"), "is required by the template"));
    }
    let content = templates(&state).preview(&t, body.notification_type, body.variables.as_ref())?;
    json(StatusCode::OK, &PreviewAnswer { code: t.code, locale: t.locale, version: t.version, content })
}

/// What two versions say differently.
#[derive(Serialize, ToSchema)]
#[schema(as = TemplateDiff, example = json!({
    "from": 1, "to": 2, "lines": ["-parts.email.subject: Hi", "+parts.email.subject: Hello", " parts.email.text: x"],
}))]
pub(crate) struct DiffAnswer {
    /// The older version.
    from: u64,
    /// The newer version.
    to: u64,
    /// Line by line: `-` was, `+` is, a blank is the same.
    lines: Vec<String>,
}

/// Compares two versions of a template
#[utoipa::path(get, path = "/api/v1/templates/{code}/diff", tag = "templates", operation_id = "diff_template",
    params(("code" = String, Path, description = "The template's code", example = "welcome"), DiffParams),
    responses((status = 200, description = "The differences", body = DiffAnswer)))]
pub(crate) async fn compare(
    state: Data<HttpState>,
    PathParam(Code(code)): PathParam<Code>,
    Query(query): Query<DiffParams>,
) -> Result<HttpResponse, Problem> {
    let locale = language(query.locale)?;
    let old = one_version(&state, code.clone(), locale.clone(), query.from).await?.template;
    let new = match query.to {
        Some(version) => one_version(&state, code, locale, version).await?.template,
        None => {
            let missing = || NotificationError::NotFound(format!("there is no template `{code}` in `{locale}`"));
            templates(&state).head(&code, &locale).await?.ok_or_else(missing)?.template
        }
    };
    json(StatusCode::OK, &DiffAnswer { from: old.version, to: new.version, lines: diff(&old, &new) })
}

/// Which version to bring back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RollBack, example = json!({"version": 1}))]
pub(crate) struct RollBackBody {
    /// The version.
    #[schema(minimum = 1)]
    version: u64,
    /// Its language; `default` if left out.
    #[schema(max_length = 35)]
    locale: Option<String>,
}

impl RequestBody for RollBackBody {}

/// Saves an older version again, as the newest
#[utoipa::path(post, path = "/api/v1/templates/{code}/rollback", tag = "templates", operation_id = "roll_back_template",
    params(("code" = String, Path, description = "The template's code", example = "welcome")),
    request_body = RollBackBody,
    responses((status = 201, description = "Saved as this version", body = TemplateBody),
        (status = 409, description = "Others keep saving it")))]
pub(crate) async fn roll_back(
    state: Data<HttpState>,
    PathParam(Code(code)): PathParam<Code>,
    Json(body): Json<RollBackBody>,
) -> Result<HttpResponse, Problem> {
    let saved = templates(&state).roll_back(&code, &language(body.locale)?, body.version).await?;
    json(StatusCode::CREATED, &TemplateBody::from(saved))
}
