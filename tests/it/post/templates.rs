//! Templates over the API: versions under contention, what changed, back again; and what several processes cache.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Api, House};
use crate::support::{
    fleet::{Fleet, Via},
    servers,
};

fn text(text: &str) -> Value {
    let parts = json!({"email": {"subject": "Hello {{ name }}", "text": text}});
    json!({"code": "hello", "parts": parts, "variables": [{"name": "name", "example": "Ada"}]})
}

/// Twenty saves at once, at one door or at several.
async fn twenty_saves(doors: &[Api]) {
    let saves = (0..20).map(|n| {
        let (api, body) = (doors[n % doors.len()].clone(), text(&format!("text {n}")));
        async move { api.post("/api/v1/templates", &body).await["version"].as_u64().unwrap() }
    });
    let versions: BTreeSet<u64> = join_all(saves).await.into_iter().collect();
    assert_eq!(versions, (1..=20).collect());
    let api = &doors[0];
    let kept = api.list("/api/v1/templates/hello/versions").await;
    assert_eq!(kept.iter().map(|t| t["version"].as_u64().unwrap()).collect::<BTreeSet<_>>(), versions);
    assert_eq!(api.get("/api/v1/templates/hello").await["version"], 20);
    assert_eq!(api.list("/api/v1/templates").await.len(), 1, "one head");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_saves_at_once_are_versions_one_to_twenty() {
    let house = House::new();
    let (_process, api) = house.start().await;
    twenty_saves(&[api]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_saves_at_two_doors_are_versions_one_to_twenty() {
    let fleet = Fleet::shared(Via::Redis).await;
    let (one, two) = (fleet.serve().await, fleet.serve().await);
    twenty_saves(&[Api::of(&one), Api::of(&two)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_and_back_again() {
    let house = House::new();
    let (_process, api) = house.start().await;
    for n in 1..=2 {
        api.post("/api/v1/templates", &text(&format!("Same.\nText {n}."))).await;
    }
    let diff = api.get("/api/v1/templates/hello/diff?from=1&to=2").await;
    let lines: Vec<&str> = diff["lines"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
    let changed: Vec<&&str> = lines.iter().filter(|l| !l.starts_with(' ')).collect();
    assert_eq!(changed, [&"-parts.email.text: Text 1.", &"+parts.email.text: Text 2."]);
    let preview = async |body: Value| api.post("/api/v1/templates/hello/preview", &body).await["content"].clone();
    let shown = preview(json!({"notification_type": "email"})).await;
    assert_eq!((&shown["subject"], &shown["text"]), (&json!("Hello Ada"), &json!("Same.\nText 2.")));
    let shown = preview(json!({"notification_type": "email", "version": 1, "variables": {"name": "Eve"}})).await;
    assert_eq!((&shown["subject"], &shown["text"]), (&json!("Hello Eve"), &json!("Same.\nText 1.")));
    let back = api.post("/api/v1/templates/hello/rollback", &json!({"version": 1})).await;
    assert_eq!((&back["version"], &back["parts"]["email"]["text"]), (&json!(3), &json!("Same.\nText 1.")));
    assert_eq!(api.get("/api/v1/templates/hello?version=2").await["parts"]["email"]["text"], "Same.\nText 2.");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_is_told_with_its_field_and_line() {
    let house = House::new();
    let (_process, api) = house.start().await;
    for (body, field, says) in [
        (text("one\ntwo\n{% if %}"), "parts.email.text", "line 3"),
        (text("one\n{{ nobody }}"), "parts.email.text", "nobody"),
        (text("{{ name|nope }}"), "parts.email.text", "nope"),
    ] {
        let problem = api.refused("/api/v1/templates", &body, 400).await;
        let text = problem.to_string();
        assert!(text.contains(field) && text.contains(says), "{text}");
    }
    let (status, _) = api.call(Method::GET, "/api/v1/templates/hello", None).await.unwrap();
    assert_eq!(status, 404, "nothing of it was saved");
    api.post("/api/v1/templates", &text("x")).await;
    let missing = json!({
        "notification_type": "email", "template_code": "hello", "recipients": [{"email": "a@example.net"}],
    });
    let problem = api.refused("/api/v1/notifications", &missing, 400).await.to_string();
    assert!(problem.contains("variables.name"), "{problem}");
    let problem = api.refused("/api/v1/templates/hello/preview", &json!({"notification_type": "push"}), 400).await;
    assert!(problem.to_string().contains("parts.push"), "{problem}");
}

/// Two processes over one Redis: what one has written the other never reads as it was before.
#[tokio::test(flavor = "multi_thread")]
async fn users_and_templates_are_cached_and_never_stale() {
    let mut fleet = Fleet::shared(Via::Redis).await;
    fleet.set("APP__CACHE__URL", &servers::redis_url());
    fleet.set("APP__CACHE__PREFIX", &servers::unique());
    let (here, there) = (fleet.serve().await, fleet.serve().await);
    let (here, there) = (Api::of(&here), Api::of(&there));
    let user = here.user("ada", json!({})).await;
    let path = format!("/api/v1/users/{user}");
    for n in 0..25 {
        let (writer, reader) = if n % 2 == 0 { (&here, &there) } else { (&there, &here) };
        // Both hold what was before.
        for api in [writer, reader] {
            api.get(&path).await;
            drop(api.call(Method::GET, "/api/v1/templates/hello", None).await);
        }
        let name = format!("ada {n}");
        writer.patch(&path, &json!({"name": name})).await;
        assert_eq!(reader.get(&path).await["name"], name);
        let version = writer.post("/api/v1/templates", &text(&name)).await["version"].clone();
        let read = reader.get("/api/v1/templates/hello").await;
        assert_eq!((&read["version"], &read["parts"]["email"]["text"]), (&version, &json!(name)));
    }
    for kind in ["users", "templates"] {
        let hits = format!("app_cache_lookups_total{{cache=\"{kind}\",result=\"hit\"}}");
        assert!(here.counter(&hits).await > 0, "{kind} are not read from the cache");
    }
}
