//! The OpenAPI document and the pages that show it.

use std::collections::BTreeSet;

use serde_json::Map;

use super::*;
use crate::http::document;

fn operations(document: &Value) -> Vec<(String, String, &Map<String, Value>)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            let item = item.as_object().unwrap();
            item.iter().map(move |(method, op)| (method.to_uppercase(), path.clone(), op.as_object().unwrap()))
        })
        .collect()
}

#[actix_web::test]
async fn every_documented_operation_is_served() {
    let t = Under::new().await;
    for (method, path, _) in operations(&document()) {
        let id = "0192f0c1-2345-7abc-8def-0123456789ab";
        let uri = ["{id}", "{task_id}", "{token_id}", "{endpoint_id}"]
            .iter()
            .fold(path.clone(), |p, part| p.replace(part, id));
        let uri = uri.replace("{name}", "default");
        let request = TestRequest::default().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(&uri);
        let answer = t.send(request).await;
        assert_ne!(answer.status, 405, "{method} {path}");
        assert!(answer.status != 404 || path.contains('{'), "{method} {path}");
    }
}

#[test]
fn every_operation_has_an_id_of_its_own_a_summary_and_examples() {
    let document = document();
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let place = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{place}");
        assert!(!operation["summary"].as_str().unwrap().is_empty(), "{place}");
        let responses = operation["responses"].as_object().unwrap();
        let bodies = responses.iter().chain(operation.get_key_value("requestBody"));
        for (name, body) in bodies {
            let Some(content) = body.get("content") else {
                assert_eq!(name, "204", "{place} {name} has no content");
                continue;
            };
            for media in content.as_object().unwrap().values() {
                assert!(media.get("example").is_some(), "{place} {name} has no example");
            }
        }
    }
    assert!(ids.len() >= 57, "{ids:?}");
}

/// Pages fill in what the document proposes: then *Execute* would ask for something nobody chose.
#[test]
fn nothing_is_proposed_that_changes_an_answer() {
    let document = document();
    let mut described = 0;
    for (method, path, operation) in operations(&document) {
        let parameters = operation.get("parameters").and_then(Value::as_array).cloned().unwrap_or_default();
        for parameter in parameters.iter().filter(|p| p["required"] != true) {
            let place = format!("{method} {path} {}", parameter["name"]);
            described += usize::from(parameter["description"].as_str().unwrap().contains("For example `"));
            for key in ["example", "examples"] {
                assert!(parameter.get(key).is_none(), "{place}: {key}");
            }
            let mut schema = parameter["schema"].clone();
            if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
                schema = document.pointer(reference.trim_start_matches('#')).unwrap().clone();
            }
            let text = schema.to_string();
            for key in ["\"example\":", "\"examples\":", "\"default\":", "\"const\":"] {
                assert!(!text.contains(key), "{place}: {text}");
            }
        }
        // A request's name for itself answers the second, different request with 409.
        let media = operation.get("requestBody").map(|b| &b["content"]["application/json"]["example"]);
        let example = media.cloned().unwrap_or_default();
        assert!(example.get("request_id").is_none(), "{method} {path}: {example}");
    }
    assert!(described >= 25, "the examples are lost instead of in the words: {described}");
}

#[test]
fn problems_follow_from_the_shape_of_the_operation() {
    let document = document();
    let statuses = |method: &str, path: &str| -> Vec<String> {
        let responses = &document["paths"][path][method]["responses"];
        let mut statuses: Vec<_> = responses.as_object().unwrap().keys().cloned().collect();
        statuses.sort();
        statuses
    };
    assert_eq!(statuses("post", "/api/v1/items"), ["201", "400", "401", "403", "408", "413", "415", "500", "503"]);
    assert_eq!(statuses("get", "/api/v1/items"), ["200", "400", "401", "403", "500", "503"]);
    assert_eq!(statuses("get", "/api/items/{id}"), ["200", "401", "403", "404", "500", "503"]);
    assert_eq!(
        statuses("put", "/api/items/{id}"),
        ["200", "400", "401", "403", "404", "408", "409", "413", "415", "500", "503"]
    );
    assert_eq!(statuses("delete", "/api/items/{id}"), ["204", "401", "403", "404", "500", "503"]);
    let submit = ["202", "400", "401", "403", "408", "409", "413", "415", "500", "503"];
    for path in ["/api/v1/jobs", "/api/v1/jobs/bulk", "/api/async/process"] {
        assert_eq!(statuses("post", path), submit, "{path}");
    }
    assert_eq!(statuses("get", "/api/v1/jobs/{id}"), ["200", "400", "401", "403", "404", "500", "503"]);
    assert_eq!(statuses("post", "/api/v1/jobs/{id}/cancel"), ["200", "202", "401", "403", "404", "409", "500", "503"]);
    assert_eq!(statuses("post", "/api/v1/queues/{name}/purge"), ["200", "401", "403", "404", "500", "503"]);
    assert_eq!(statuses("get", "/health"), ["200", "503"]);
    // Nobody has to prove anything there, but pages of other sites are kept out.
    assert_eq!(
        statuses("post", "/api/v1/auth/login"),
        ["200", "400", "401", "403", "408", "413", "415", "429", "500", "503"]
    );
    let media = &document["paths"]["/api/v1/items"]["post"]["responses"]["400"]["content"]["application/problem+json"];
    assert_eq!(media["schema"]["$ref"], "#/components/schemas/Problem");
}

#[test]
fn references_lead_somewhere_and_bodies_refuse_unknown_fields() {
    let document = document();
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
    for (method, path, operation) in operations(&document) {
        if let Some(schema) = operation.get("requestBody").map(|b| &b["content"]["application/json"]["schema"]["$ref"])
        {
            let schema = document.pointer(schema.as_str().unwrap().trim_start_matches('#')).unwrap();
            assert_eq!(schema["additionalProperties"], false, "{method} {path}");
        }
    }
}

#[test]
fn examples_and_answers_conform_to_their_schemas() {
    let document = document();
    for (method, path, operation) in operations(&document) {
        let responses = operation["responses"].as_object().unwrap();
        for body in responses.values().chain(operation.get("requestBody")) {
            for media in body.get("content").and_then(Value::as_object).into_iter().flat_map(Map::values) {
                let mut schema = media["schema"].clone();
                schema["components"] = document["components"].clone();
                let faults: Vec<_> = jsonschema::validator_for(&schema)
                    .unwrap()
                    .iter_errors(&media["example"])
                    .map(|e| e.to_string())
                    .collect();
                assert!(faults.is_empty(), "{method} {path}: {faults:?}");
            }
        }
    }
}

#[actix_web::test]
async fn the_pages_need_nothing_from_outside() {
    let t = Under::new().await;
    let moved = t.get("/docs").await;
    assert_eq!((moved.status, moved.header("location")), (308, "/docs/"));
    let page = t.get("/docs/").await;
    let html = String::from_utf8(page.bytes.clone()).unwrap();
    assert_eq!(page.status, 200);
    assert!(!html.contains("http://") && !html.contains("https://"), "{html}");
    for link in html.split(&['"', '\''][..]).filter(|s| s.starts_with("./")) {
        assert_eq!(t.get(&format!("/docs/{}", &link[2..])).await.status, 200, "{link}");
    }
    let script = String::from_utf8(t.get("/docs/swagger-initializer.js").await.bytes).unwrap();
    assert!(script.contains("/openapi.json") && script.contains("\"validatorUrl\": \"none\""), "{script}");
    let served = t.get("/openapi.json").await;
    assert_eq!((served.status, served.json()), (200, document()));
}
