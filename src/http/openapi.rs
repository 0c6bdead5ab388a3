//! The OpenAPI document: collected from the handlers, then completed with what every operation has in common.
//!
//! Handlers describe their good answers; which problems an operation can answer follows from its shape (a body, a path
//! parameter, a query), so it is derived here and cannot be forgotten there.

use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use crate::{
    http::{
        problem::{FieldProblem, ProblemBody, ProblemType},
        routes::{
            self, Row, api_keys, asynctasks, auth, contacts, dead_letters, docs, health, items, jobs, kinds, metrics,
            notifications, post, queues, rules, submit, suppressions, templates, users, workers,
        },
    },
    users::Need,
};

/// Canonical paths and the older ones that are served by the same handlers.
const ALIASES: [(&str, &str); 1] = [("/api/v1/items", "/api/items")];

#[derive(OpenApi)]
#[openapi(
    info(title = "app", description = "Items, durable background jobs, users, notifications, and what happens to them.\n\nLook at: \
        [caught mail](/api/v1/sink), [notifications](/api/v1/notifications), [jobs](/api/v1/jobs), [queues](/api/v1/queues), \
        [events](/api/v1/events), [health](/health), [metrics](/metrics)."),
    paths(
        items::create,
        items::list,
        items::read,
        items::patch,
        items::replace,
        items::remove,
        submit::submit,
        submit::submit_bulk,
        jobs::list,
        jobs::read,
        jobs::cancel,
        jobs::retry,
        kinds::list,
        queues::list,
        queues::read,
        queues::pause,
        queues::resume,
        queues::purge,
        notifications::send,
        notifications::explain,
        notifications::list,
        notifications::read,
        notifications::trace,
        notifications::cancel,
        notifications::replay,
        templates::save,
        templates::list,
        templates::read,
        templates::versions,
        templates::preview,
        templates::compare,
        templates::roll_back,
        rules::create,
        rules::list,
        rules::read,
        rules::replace,
        rules::remove,
        rules::list_events,
        suppressions::list_suppressions,
        suppressions::add_suppression,
        suppressions::remove_suppressions,
        suppressions::remove_suppression,
        post::ask,
        post::unsubscribe,
        post::list_breakers,
        post::reset_breaker,
        post::list_sink,
        workers::list,
        workers::ping,
        dead_letters::list,
        dead_letters::replay,
        dead_letters::discard,
        asynctasks::process,
        asynctasks::status,
        auth::sign_up,
        auth::login,
        auth::me,
        users::create,
        users::list,
        users::read,
        users::patch,
        users::remove,
        users::change_password,
        contacts::list_tokens,
        contacts::add_token,
        contacts::remove_token,
        contacts::list_endpoints,
        contacts::add_endpoint,
        contacts::remove_endpoint,
        contacts::rotate_endpoint,
        contacts::enable_endpoint,
        api_keys::create,
        api_keys::list,
        api_keys::revoke,
        health::about,
        health::health,
        health::liveness,
        health::readiness,
        metrics::read,
        docs::read_document,
    ),
    components(schemas(ProblemBody<'_>, FieldProblem<'_>)),
    tags(
        (name = "items", description = "Small named records with free metadata"),
        (name = "jobs", description = "Durable background jobs"),
        (name = "queues", description = "Where jobs wait"),
        (name = "workers", description = "Who runs jobs"),
        (name = "dead letters", description = "Jobs that failed for good"),
        (name = "users", description = "People, and how they want to be told things"),
        (name = "auth", description = "Proving who one is"),
        (name = "async", description = "Background processing at the older paths, in Celery's words"),
        (name = "notifications", description = "Messages to people and programs"),
        (name = "templates", description = "What messages say, in versions and languages"),
        (name = "rules", description = "What is sent when something happens, and what happened"),
        (name = "suppressions", description = "Addresses that nothing is sent to"),
        (name = "breakers", description = "Circuit breakers of providers"),
        (name = "sink", description = "Messages of channels that are not set up: look here for your first mail"),
        (name = "service", description = "The service itself"),
    )
)]
struct Api;

/// The document as JSON.
#[must_use]
pub fn document() -> Value {
    // The derived type always serialises.
    let mut document = serde_json::to_value(Api::openapi()).unwrap_or_default();
    let schemas = document.pointer("/components/schemas").cloned().unwrap_or_default();
    let needs = routes::needs();
    for_each_operation(&mut document, |path, method, operation| {
        let guarded = is_guarded(&needs, path, method);
        if guarded {
            let schemes = json!([{ "bearer": [] }, { "api_key": [] }]);
            operation.insert("security".to_owned(), schemes);
        }
        let derived = possible_problems(path, method, guarded, operation);
        if let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) {
            for problem in derived {
                let description = json!({ "description": problem.title() });
                responses.entry(problem.status().as_str()).or_insert(description);
            }
            complete_problems(responses, path);
        }
        add_examples(operation, &schemas);
        empty_what_is_optional(operation);
    });
    add_aliases(&mut document);
    if let Some(components) = document.get_mut("components").and_then(Value::as_object_mut) {
        components.insert("securitySchemes".to_owned(), security_schemes());
    }
    document
}

/// How callers say who they are, where that is asked (`auth.mode = "required"`).
fn security_schemes() -> Value {
    json!({
        "bearer": {
            "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "A token of POST /api/v1/auth/login, or an API key. Asked if `auth.mode` is `required`.",
        },
        "api_key": {
            "type": "apiKey", "in": "header", "name": "X-API-Key",
            "description": "An API key. Asked if `auth.mode` is `required`.",
        },
    })
}

fn is_guarded(needs: &[Row], path: &str, method: &str) -> bool {
    needs.iter().any(|row| {
        row.path == path && row.method.as_str().eq_ignore_ascii_case(method) && matches!(row.need, Need::Of(_))
    })
}

fn for_each_operation(document: &mut Value, mut change: impl FnMut(&str, &str, &mut Map<String, Value>)) {
    let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) else { return };
    for (path, item) in paths {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            if let Some(operation) = operation.as_object_mut() {
                change(path, method, operation);
            }
        }
    }
}

fn possible_problems(path: &str, method: &str, guarded: bool, operation: &Map<String, Value>) -> Vec<ProblemType> {
    let has = |place: &str| {
        let parameters = operation.get("parameters").and_then(Value::as_array);
        parameters.is_some_and(|all| all.iter().any(|p| p.get("in").and_then(Value::as_str) == Some(place)))
    };
    let body = operation.contains_key("requestBody");
    let mut problems = Vec::new();
    if guarded {
        problems.push(ProblemType::Unauthorized);
    }
    // Pages of other sites may change nothing, whatever needs no proof.
    if guarded || method != "get" {
        problems.push(ProblemType::Forbidden);
    }
    if body || has("query") {
        problems.push(ProblemType::InvalidRequest);
    }
    if has("path") {
        problems.push(ProblemType::NotFound);
    }
    if body {
        problems.extend([ProblemType::RequestTimeout, ProblemType::PayloadTooLarge, ProblemType::UnsupportedMediaType]);
    }
    // Whatever is under /api asks a store.
    if path.starts_with("/api/") {
        problems.extend([ProblemType::Internal, ProblemType::Unavailable]);
    }
    problems
}

/// Gives each error answer that says nothing else about its body the problem document, with an example.
fn complete_problems(responses: &mut Map<String, Value>, path: &str) {
    for problem in ProblemType::ALL {
        let status = problem.status();
        let response = responses.get_mut(status.as_str()).and_then(Value::as_object_mut);
        let Some(response) = response.filter(|r| !r.contains_key("content")) else { continue };
        let example = json!({
            "type": problem.uri(), "title": problem.title(), "status": status.as_u16(), "detail": problem.title(),
            "instance": path, "request_id": "0192f0c1-2345-7abc-8def-0123456789ab", "errors": [],
        });
        let media = json!({ "schema": { "$ref": "#/components/schemas/Problem" }, "example": example });
        response.insert("content".to_owned(), json!({ "application/problem+json": media }));
        if problem == ProblemType::Unauthorized {
            let challenge = json!({ "description": "How to say who you are", "schema": { "type": "string" } });
            response.insert("headers".to_owned(), json!({ "WWW-Authenticate": challenge }));
        }
        if matches!(problem, ProblemType::Unavailable | ProblemType::TooManyRequests) {
            let seconds = json!({ "description": "Seconds to wait", "schema": { "type": "integer" } });
            response.insert("headers".to_owned(), json!({ "Retry-After": seconds }));
        }
    }
}

/// Gives each body the example of its schema if it has none of its own.
fn add_examples(operation: &mut Map<String, Value>, schemas: &Value) {
    let (mut request, mut responses) = (None, None);
    for (key, value) in operation.iter_mut() {
        match key.as_str() {
            "requestBody" => request = value.get_mut("content"),
            "responses" => responses = value.as_object_mut(),
            _ => {}
        }
    }
    let answers = responses.into_iter().flat_map(Map::values_mut).filter_map(|r| r.get_mut("content"));
    for media in request.into_iter().chain(answers).filter_map(Value::as_object_mut).flat_map(Map::values_mut) {
        let name = media.pointer("/schema/$ref").and_then(Value::as_str).and_then(|r| r.rsplit('/').next());
        let example = name.and_then(|name| schemas.get(name)?.get("example")).cloned();
        if let (Some(media), Some(example)) = (media.as_object_mut(), example) {
            media.entry("example").or_insert(example);
        }
    }
}

/// Moves the examples of optional parameters and headers into their descriptions. A page that shows
/// the document fills examples in: whoever only presses *Execute* would ask for one kind, one tag
/// and last month, or submit two different jobs under one key.
fn empty_what_is_optional(operation: &mut Map<String, Value>) {
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    let optional = parameters.into_iter().flatten().filter_map(Value::as_object_mut);
    for parameter in optional.filter(|p| p.get("required") != Some(&Value::Bool(true))) {
        let Some(example) = parameter.remove("example") else { continue };
        let example = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
        if let Some(Value::String(text)) = parameter.get_mut("description")
            && !text.contains(&example)
        {
            let end = if text.ends_with('.') { "" } else { "." };
            text.push_str(&format!("{end} For example `{example}`."));
        }
    }
}

/// Documents the older paths as what they are: the same operations under another name.
fn add_aliases(document: &mut Value) {
    let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) else { return };
    let mut older = Vec::new();
    for (canonical, alias) in ALIASES {
        for (path, item) in paths.iter().filter(|(path, _)| path.starts_with(canonical)) {
            let mut item = item.clone();
            for operation in item.as_object_mut().into_iter().flat_map(Map::values_mut) {
                if let Some(Value::String(id)) = operation.get_mut("operationId") {
                    id.push_str("_at_older_path");
                }
            }
            older.push((path.replacen(canonical, alias, 1), item));
        }
    }
    paths.extend(older);
}
