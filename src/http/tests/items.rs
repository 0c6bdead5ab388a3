//! The items routes: what they do, and what they say about requests that are wrong.

use serde_json::json;

use super::*;

const ITEMS: &str = "/api/v1/items";
const NOBODY: &str = "/api/v1/items/0192f0c1-2345-7abc-8def-0123456789ab";

impl Under {
    /// Makes an item and gives its path.
    async fn made(&self, body: Value) -> String {
        let answer = self.post(ITEMS, body).await;
        assert_eq!(answer.status, 201, "{}", answer.json());
        answer.header("location").to_owned()
    }
}

#[actix_web::test]
async fn an_item_lives_from_post_to_delete() {
    let t = Under::new().await;
    let made = t.post(ITEMS, json!({"name": "Lamp", "description": "warm", "metadata": {"a": 1}})).await;
    let (item, path) = (made.json(), made.header("location").to_owned());
    assert_eq!((made.status, path.as_str()), (201, format!("{ITEMS}/{}", item["id"].as_str().unwrap()).as_str()));
    let now = "2026-11-21T08:00:00.000Z";
    let expected = json!({"id": item["id"], "name": "Lamp", "description": "warm", "metadata": {"a": 1},
        "created_at": now, "updated_at": now, "version": 1});
    assert_eq!(item, expected);
    assert_eq!(t.get(&path).await.json(), item);

    t.state.clock.advance(std::time::Duration::from_secs(1));
    let patch = json!({"description": null, "metadata": {"a": null, "b": {"c": 2}}});
    let patched = t.body(Method::PATCH, &path, patch.to_string()).await.json();
    assert_eq!(patched["updated_at"], "2026-11-21T08:00:01.000Z");
    assert_eq!((&patched["description"], &patched["metadata"]), (&Value::Null, &json!({"b": {"c": 2}})));
    assert_eq!((&patched["name"], &patched["version"]), (&json!("Lamp"), &json!(2)));

    let put = t.body(Method::PUT, &path, r#"{"name":"Other"}"#).await.json();
    assert_eq!((&put["name"], &put["metadata"], &put["version"]), (&json!("Other"), &json!({}), &json!(3)));
    let again = t.body(Method::PUT, &path, r#"{"name":"Other"}"#).await.json();
    assert_eq!(again["version"], 3, "the same again changes nothing");
    let reset = t.body(Method::PATCH, &path, r#"{"metadata":{"x":1}}"#).await.json();
    assert_eq!(reset["metadata"], json!({"x": 1}));
    let reset = t.body(Method::PATCH, &path, r#"{"metadata":null}"#).await.json();
    assert_eq!(reset["metadata"], json!({}));

    let gone = t.send(TestRequest::delete().uri(&path)).await;
    assert_eq!((gone.status, gone.bytes.len()), (204, 0));
    assert_eq!(t.get(&path).await.problem(404, "not_found"), ["id"]);
    assert_eq!(t.send(TestRequest::delete().uri(&path)).await.problem(404, "not_found"), ["id"]);
}

#[actix_web::test]
async fn lists_are_newest_first_in_pages_and_filtered() {
    let t = Under::new().await;
    for n in 1..=5 {
        t.made(json!({"name": format!("Lamp {n}"), "metadata": {"category": if n % 2 == 0 { "even" } else { "odd" }}}))
            .await;
        t.state.clock.advance(std::time::Duration::from_secs(60));
    }
    let names = |body: &Value| -> Vec<String> {
        body["data"].as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap()[5..].to_owned()).collect()
    };
    let first = t.get("/api/items?limit=2").await.json();
    assert_eq!(names(&first), ["5", "4"]);
    assert_eq!((&first["meta"]["limit"], &first["meta"]["has_next"]), (&json!(2), &json!(true)));
    let next = first["meta"]["next_cursor"].as_str().unwrap();
    let second = t.get(&format!("/api/items?limit=3&cursor={next}")).await.json();
    assert_eq!(names(&second), ["3", "2", "1"]);
    assert_eq!((&second["meta"]["next_cursor"], &second["meta"]["has_next"]), (&Value::Null, &json!(false)));
    for (query, expected) in [
        ("name=lAMP+3", &["3"] as &[_]),
        ("category=even", &["4", "2"]),
        ("created_after=2026-11-21T08:02:00Z&created_before=2026-11-21T08:04:00Z", &["4", "3"]),
        ("category=none", &[]),
    ] {
        assert_eq!(names(&t.get(&format!("{ITEMS}?{query}")).await.json()), expected, "{query}");
    }
    assert_eq!(t.get(ITEMS).await.json()["meta"]["limit"], 50);
}

#[actix_web::test]
async fn wrong_bodies_name_the_field_at_fault() {
    let t = Under::new().await;
    let path = t.made(json!({"name": "Lamp"})).await;
    let long = json!({"name": "x".repeat(201)}).to_string();
    for (body, fields) in [
        ("", vec!["body"]),
        ("{", vec!["body"]),
        ("null", vec!["body"]),
        ("[]", vec!["body"]),
        (r#"["x",null,{}]"#, vec!["body"]),
        ("{}", vec!["name"]),
        (r#"{"name":7}"#, vec!["name"]),
        (r#"{"name":null}"#, vec!["name"]),
        (r#"{"name":" "}"#, vec!["name"]),
        (r#"{"name":"a\u0000b"}"#, vec!["name"]),
        (r#"{"name":"x","description":5}"#, vec!["description"]),
        (r#"{"name":"x","metadata":[]}"#, vec!["metadata"]),
        (r#"{"name":"x","colour":"red"}"#, vec!["colour"]),
        (r#"{"name":"x","name":"y"}"#, vec!["name"]),
        (r#"{"name":"","description":"\u0000"}"#, vec!["name", "description"]),
        (&long, vec!["name"]),
    ] {
        for (method, path) in [(Method::POST, ITEMS), (Method::PUT, &path)] {
            let answer = t.body(method, path, body).await;
            assert_eq!(answer.problem(400, "invalid_request"), fields, "{body}");
        }
    }
    for (body, field) in [
        (r#"{"name":null}"#, "name"),
        (r#"{"name":"\n"}"#, "name"),
        (r#"{"metadata":7}"#, "metadata"),
        (r#"{"version":7}"#, "version"),
        ("[]", "body"),
    ] {
        assert_eq!(t.body(Method::PATCH, &path, body).await.problem(400, "invalid_request"), [field], "{body}");
    }
    assert_eq!(t.get(&path).await.json()["version"], 1);
    assert_eq!(t.body(Method::PUT, NOBODY, r#"{"name":""}"#).await.problem(400, "invalid_request"), ["name"]);
    assert_eq!(t.body(Method::PUT, NOBODY, r#"{"name":"x"}"#).await.problem(404, "not_found"), ["id"]);
    assert_eq!(t.body(Method::PATCH, NOBODY, "{}").await.problem(404, "not_found"), ["id"]);
}

#[actix_web::test]
async fn hostile_bodies_are_refused_and_never_a_500() {
    let t = Under::new().await;
    let deep = |n: usize| format!(r#"{{"name":"x","metadata":{}{}}}"#, "{\"a\":".repeat(n) + "1", "}".repeat(n));
    assert_eq!(t.body(Method::POST, ITEMS, deep(32)).await.status, 201);
    assert_eq!(t.body(Method::POST, ITEMS, deep(33)).await.problem(400, "invalid_request"), ["metadata"]);
    t.body(Method::POST, ITEMS, deep(20_000)).await.problem(400, "invalid_request");
    let big = |n: usize| json!({"name": "x", "metadata": {"a": "x".repeat(n)}}).to_string();
    assert_eq!(t.body(Method::POST, ITEMS, big(70_000)).await.problem(400, "invalid_request"), ["metadata"]);
    t.body(Method::POST, ITEMS, big(LIMITS.max_body)).await.problem(413, "payload_too_large");
    for bytes in [b"{\"name\":\"\xff\"}".to_vec(), b"\0\0\0".to_vec(), vec![b'['; 150_000]] {
        t.body(Method::POST, ITEMS, bytes).await.problem(400, "invalid_request");
    }
}

#[actix_web::test]
async fn only_json_is_a_supported_media_type() {
    let t = Under::new().await;
    let post = || TestRequest::post().uri(ITEMS).set_payload(r#"{"name":"x"}"#);
    t.send(post()).await.problem(415, "unsupported_media_type");
    for wrong in ["text/plain", "application/xml", "application/jsonx", ""] {
        t.send(post().insert_header(("content-type", wrong))).await.problem(415, "unsupported_media_type");
    }
    for right in ["application/json", "Application/JSON; charset=utf-8"] {
        assert_eq!(t.send(post().insert_header(("content-type", right))).await.status, 201, "{right}");
    }
}

#[actix_web::test]
async fn wrong_queries_name_the_parameter_at_fault() {
    let t = Under::new().await;
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("limit=ten", "limit"),
        ("cursor=x", "cursor"),
        ("created_after=yesterday", "created_after"),
        ("colour=red", "colour"),
        ("limit=1&limit=2", "limit"),
        (&format!("name={}", "x".repeat(201)), "name"),
    ] {
        let answer = t.get(&format!("{ITEMS}?{query}")).await;
        assert_eq!(answer.problem(400, "invalid_request"), [field], "{query}");
    }
    t.get(&format!("{ITEMS}?%ff=%fe&&&=")).await.problem(400, "invalid_request");
}

#[actix_web::test]
async fn malformed_ids_name_nothing() {
    let t = Under::new().await;
    for id in ["x", "0", "..%2f..", "%00", "0192f0c123457abc8def0123456789ab", "%F0%9F%92%A9", &"9".repeat(5000)] {
        for method in [Method::GET, Method::DELETE] {
            let answer = t.send(TestRequest::default().method(method).uri(&format!("{ITEMS}/{id}"))).await;
            assert_eq!(answer.problem(404, "not_found"), ["id"], "{id}");
        }
    }
}

#[actix_web::test]
async fn a_change_that_loses_a_race_is_made_again_on_what_the_winner_wrote() {
    let t = Under::new().await;
    let path = t.made(json!({"name": "Lamp"})).await;
    t.store.races.store(3, Ordering::Relaxed);
    let patched = t.body(Method::PATCH, &path, r#"{"metadata":{"mine":1}}"#).await.json();
    assert_eq!((&patched["version"], &patched["metadata"]), (&json!(5), &json!({"mine": 1, "other": 4})));
    t.store.races.store(u32::MAX, Ordering::Relaxed);
    t.body(Method::PATCH, &path, r#"{"name":"x"}"#).await.problem(409, "conflict");
}
