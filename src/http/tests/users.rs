//! The users routes: what they do, and what they say about requests that are wrong.

use serde_json::json;

use super::*;

const USERS: &str = "/api/v1/users";
const NOBODY: &str = "/api/v1/users/0192f0c1-2345-7abc-8def-0123456789ab";

impl Under {
    async fn user(&self, email: &str) -> (Value, String) {
        let made = self.post(USERS, json!({"email": email, "name": "Ada"})).await;
        assert_eq!(made.status, 201, "{}", made.json());
        (made.json(), made.header("location").to_owned())
    }
}

#[actix_web::test]
async fn a_user_lives_from_post_to_delete() {
    let t = Under::new().await;
    let body = json!({"email": "Ada@Example.com", "name": "Ada", "locale": "pt-br", "time_zone": "america/sao_paulo",
        "preferences": {"push": false, "quiet_hours": {"start": "22:00", "end": "07:00"}}});
    let made = t.post(USERS, body).await;
    let (user, path) = (made.json(), made.header("location").to_owned());
    assert_eq!((made.status, path.as_str()), (201, format!("{USERS}/{}", user["id"].as_str().unwrap()).as_str()));
    let now = "2026-11-21T08:00:00.000Z";
    let preferences = json!({"email": true, "push": false, "webhook": true, "console": true, "categories": {},
        "quiet_hours": {"start": "22:00", "end": "07:00"}});
    let expected = json!({"id": user["id"], "email": "ada@example.com", "name": "Ada", "role": "user", "disabled": false,
        "locale": "pt-BR", "time_zone": "America/Sao_Paulo", "preferences": preferences, "created_at": now,
        "updated_at": now, "version": 1});
    assert_eq!(user, expected);
    assert_eq!(t.get(&path).await.json(), user);

    t.state.clock.advance(std::time::Duration::from_secs(1));
    let patch = json!({"name": "Ada King", "time_zone": null, "preferences": {"push": true, "quiet_hours": null,
        "categories": {"billing": {"email": false}}}});
    let patched = t.body(Method::PATCH, &path, patch.to_string()).await.json();
    assert_eq!(
        (&patched["name"], &patched["time_zone"], &patched["locale"]),
        (&json!("Ada King"), &json!("UTC"), &json!("pt-BR"))
    );
    assert_eq!(patched["preferences"]["categories"], json!({"billing": {"email": false}}));
    assert_eq!((&patched["version"], &patched["updated_at"]), (&json!(2), &json!("2026-11-21T08:00:01.000Z")));
    let same = t.body(Method::PATCH, &path, r#"{"name":"Ada King"}"#).await.json();
    assert_eq!(same["version"], 2, "what changes nothing is not written");

    let (_, other) = t.user("grace@example.com").await;
    let taken = t.body(Method::PATCH, &other, r#"{"email":"ADA@example.com"}"#).await;
    assert_eq!(taken.problem(409, "conflict"), ["email"]);
    let taken = t.post(USERS, json!({"email": "ada@example.com", "name": "x"})).await;
    assert_eq!(taken.problem(409, "conflict"), ["email"]);
    assert_eq!(t.body(Method::PATCH, &path, r#"{"email":"ada2@example.com"}"#).await.status, 200);
    t.user("ada@example.com").await;

    assert_eq!(t.send(TestRequest::delete().uri(&path)).await.status, 204);
    assert_eq!(t.get(&path).await.problem(404, "not_found"), ["id"]);
    assert_eq!(t.send(TestRequest::delete().uri(&path)).await.problem(404, "not_found"), ["id"]);
}

#[actix_web::test]
async fn lists_are_newest_first_in_pages_and_by_role() {
    let t = Under::new().await;
    for n in 1..=5 {
        t.user(&format!("u{n}@example.com")).await;
    }
    let admin = json!({"email": "root@example.com", "name": "Root", "role": "admin"});
    t.post(USERS, admin).await;
    let emails = |body: &Value| -> Vec<String> {
        body["data"].as_array().unwrap().iter().map(|u| u["email"].as_str().unwrap().to_owned()).collect()
    };
    let first = t.get(&format!("{USERS}?limit=2")).await.json();
    assert_eq!(emails(&first), ["root@example.com", "u5@example.com"]);
    let next = first["meta"]["next_cursor"].as_str().unwrap();
    let second = t.get(&format!("{USERS}?limit=9&cursor={next}")).await.json();
    assert_eq!(emails(&second).len(), 4);
    assert_eq!(emails(&t.get(&format!("{USERS}?role=admin")).await.json()), ["root@example.com"]);
    assert_eq!(t.get(&format!("{USERS}?role=root")).await.problem(400, "invalid_request"), ["role"]);
}

#[actix_web::test]
async fn the_field_at_fault_is_named() {
    let t = Under::new().await;
    let (_, path) = t.user("ada@example.com").await;
    let good = json!({"email": "b@example.com", "name": "B", "password": "correct horse battery"});
    for (field, value) in [
        ("email", json!("nonsense")),
        ("email", json!(5)),
        ("email", Value::Null),
        ("name", json!(" ")),
        ("name", json!("x".repeat(201))),
        ("password", json!("short")),
        ("password", json!("x".repeat(257))),
        ("role", json!("root")),
        ("locale", json!("english!")),
        ("time_zone", json!("Moon/Base")),
        ("colour", json!("red")),
    ] {
        let mut bad = good.clone();
        bad[field] = value.clone();
        assert_eq!(t.post(USERS, bad).await.problem(400, "invalid_request"), [field], "{value}");
    }
    for (patch, field) in [
        (json!({"preferences": {"fax": true}}), "preferences.fax"),
        (json!({"preferences": {"email": "yes"}}), "preferences.email"),
        (json!({"preferences": {"quiet_hours": {"start": "25:00", "end": "07:00"}}}), "preferences.quiet_hours.start"),
        (json!({"name": null}), "name"),
        (json!({"password": "x"}), "password"),
        (json!({"preferences": []}), "preferences"),
    ] {
        let answer = t.body(Method::PATCH, &path, patch.to_string()).await;
        assert_eq!(answer.problem(400, "invalid_request"), [field], "{patch}");
    }
    t.body(Method::PATCH, NOBODY, r#"{"name":"x"}"#).await.problem(404, "not_found");
    t.get("/api/v1/users/nobody").await.problem(404, "not_found");
    let e = t.post(USERS, json!({"email": "b@example.com", "name": "B", "password": "hunter2"})).await;
    assert!(!String::from_utf8_lossy(&e.bytes).contains("hunter2"));
}

#[actix_web::test]
async fn devices_and_servers_are_added_listed_and_forgotten() {
    let t = Under::new().await;
    let (_, user) = t.user("ada@example.com").await;
    let (tokens, hooks) = (format!("{user}/push-tokens"), format!("{user}/webhook-endpoints"));
    let made = t.post(&tokens, json!({"kind": "fcm", "token": "secret-token", "label": "phone"})).await;
    let (token, one) = (made.json(), made.header("location").to_owned());
    assert_eq!((made.status, &token["kind"], &token["label"]), (201, &json!("fcm"), &json!("phone")));
    let listed = t.get(&tokens).await;
    assert_eq!(listed.json()["data"], json!([token]));
    assert!(!String::from_utf8_lossy(&listed.bytes).contains("secret-token"));
    for (body, fields) in [
        (json!({"kind": "fcm"}), vec!["token"]),
        (json!({"kind": "fcm", "token": "a b"}), vec!["token"]),
        (json!({"kind": "fcm", "token": "t", "auth": "x"}), vec!["auth"]),
        (json!({"kind": "web_push"}), vec!["endpoint", "p256dh", "auth"]),
        (json!({"kind": "web_push", "endpoint": "http://h/", "p256dh": "x", "auth": "x"}), vec!["endpoint"]),
        (json!({"kind": "fax"}), vec!["kind"]),
        (json!({"kind": "fcm", "token": "t", "label": ""}), vec!["label"]),
    ] {
        assert_eq!(t.post(&tokens, body.clone()).await.problem(400, "invalid_request"), fields, "{body}");
    }
    assert_eq!(t.send(TestRequest::delete().uri(&one)).await.status, 204);
    t.send(TestRequest::delete().uri(&one)).await.problem(404, "not_found");

    let made = t.post(&hooks, json!({"url": "https://hooks.example.com/in"})).await;
    let (hook, one) = (made.json(), made.header("location").to_owned());
    let secret = hook["secret"].as_str().unwrap();
    assert!(made.status == 201 && secret.starts_with("whsec_") && made.header("cache-control") == "no-store");
    let listed = t.get(&hooks).await.json();
    assert_eq!((&listed["data"][0]["url"], listed["data"][0].get("secret")), (&hook["url"], None));
    let rotated = t.post(&format!("{one}/rotate"), Value::Null).await.json();
    assert_ne!(rotated["secret"], hook["secret"]);
    assert_eq!(t.post(&format!("{one}/enable"), Value::Null).await.json()["disabled"], false);
    for bad in ["", "ftp://h/", "https://u:p@h/", "nonsense"] {
        assert_eq!(t.post(&hooks, json!({"url": bad})).await.problem(400, "invalid_request"), ["url"], "{bad}");
    }
    assert_eq!(t.send(TestRequest::delete().uri(&one)).await.status, 204);
    t.post(&format!("{one}/rotate"), Value::Null).await.problem(404, "not_found");
    t.get(&format!("{NOBODY}/push-tokens")).await.problem(404, "not_found");
}

#[actix_web::test]
async fn a_key_is_shown_once() {
    let t = Under::new().await;
    let made = t.post("/api/v1/api-keys", json!({"name": "ci", "scopes": ["items:write", "items:read"]})).await;
    let (mut key, path) = (made.json(), made.header("location").to_owned());
    assert!(made.status == 201 && key["key"].as_str().unwrap().starts_with("app_"), "{key}");
    key.as_object_mut().unwrap().remove("key");
    assert_eq!(t.get("/api/v1/api-keys").await.json()["data"], json!([key]));
    for (body, field) in [
        (json!({"name": "ci", "scopes": []}), "scopes"),
        (json!({"name": "ci", "scopes": ["root"]}), "scopes[0]"),
        (json!({"name": "", "scopes": ["admin"]}), "name"),
        (json!({"name": "x", "scopes": ["admin"], "expires_at": "2026-01-01T00:00:00Z"}), "expires_at"),
    ] {
        assert_eq!(t.post("/api/v1/api-keys", body.clone()).await.problem(400, "invalid_request"), [field], "{body}");
    }
    assert_eq!(t.send(TestRequest::delete().uri(&path)).await.status, 204);
    t.send(TestRequest::delete().uri(&path)).await.problem(404, "not_found");
}
