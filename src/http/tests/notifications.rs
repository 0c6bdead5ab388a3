//! The routes around notifications: what they say about requests that are wrong, and who may ask for what.

use serde_json::json;

use super::*;
use crate::users::{Role, Scope};

const SEND: &str = "/api/v1/notifications";

impl Under {
    async fn template(&self, code: &str, parts: Value, variables: Value) {
        let body = json!({"code": code, "parts": parts, "variables": variables});
        let made = self.post("/api/v1/templates", body).await;
        assert_eq!(made.status, 201, "{}", made.json());
    }

    async fn recipient(&self) -> String {
        let made = self.post("/api/v1/users", json!({"email": "ada@example.com", "name": "Ada"})).await.json();
        made["id"].as_str().unwrap().to_owned()
    }

    async fn welcome(&self) {
        let parts = json!({"email": {"subject": "Hi {{ name }}", "text": "t"}, "console": "{{ name }}"});
        self.template("welcome", parts, json!([{"name": "name"}])).await;
    }
}

fn with(base: &Value, more: Value) -> Value {
    let mut body = base.clone();
    for (key, value) in more.as_object().unwrap() {
        match value {
            Value::Null => drop(body.as_object_mut().unwrap().remove(key)),
            other => body[key] = other.clone(),
        }
    }
    body
}

#[actix_web::test]
async fn a_wrong_request_names_its_field_and_sends_nothing() {
    let t = Under::new().await;
    t.welcome().await;
    let id = t.recipient().await;
    let good =
        json!({"notification_type": "email", "user_id": id, "template_code": "welcome", "variables": {"name": "Ada"}});
    let nobody = "0192f0c1-2345-7abc-8def-0123456789ab";
    for (more, field) in [
        (json!({"user_id": null}), "user_id"),
        (json!({"user_id": nobody}), "user_id"),
        (json!({"recipients": [{"user_id": id}]}), "recipients"),
        (json!({"user_id": null, "recipients": []}), "recipients"),
        (json!({"user_id": null, "recipients": [{"user_id": id}, {"user_id": nobody}]}), "recipients[1]"),
        (json!({"user_id": null, "recipients": [{"email": "nobody"}]}), "recipients[0]"),
        (json!({"user_id": null, "recipients": [{"console": true}]}), "recipients[0]"),
        (json!({"template_code": "unknown"}), "template_code"),
        (json!({"notification_type": "push"}), "template_code"),
        (json!({"variables": {}}), "variables.name"),
        (json!({"variables": {"name": null}}), "variables.name"),
        (json!({"locale": "Klingon!"}), "locale"),
        (json!({"category": "No Such Category"}), "category"),
        (json!({"request_id": "with space"}), "request_id"),
        (json!({"send_at": "9999-01-01T00:00:00Z"}), "send_at"),
        (json!({"colour": 1}), "colour"),
    ] {
        let answer = t.post(SEND, with(&good, more.clone())).await;
        assert_eq!(answer.problem(400, "invalid_request"), [field], "{more}: {}", answer.json());
        let explained = t.post(&format!("{SEND}/explain"), with(&good, more.clone())).await;
        assert!(explained.status == 400 || more["send_at"].is_string(), "{more}");
    }
    assert_eq!(t.get(SEND).await.json()["data"], json!([]));
    let sent = t.post(SEND, good.clone()).await;
    assert_eq!((sent.status, &sent.json()["status"]), (202, &json!("queued")));
    let wrong =
        with(&good, json!({"user_id": null, "recipients": [{"user_id": id}, {"user_id": id}], "variables": {}}));
    assert_eq!(t.post(SEND, wrong).await.problem(400, "invalid_request"), ["variables.name"], "once for all");
    let large = with(&good, json!({"variables": {"name": "x", "y": "y".repeat(150_000)}}));
    let many: Vec<_> = (0..300).map(|n| json!({"email": format!("a{n}@example.com")})).collect();
    let answer = t.post(SEND, with(&large, json!({"user_id": null, "recipients": many}))).await;
    assert_eq!(answer.problem(400, "invalid_request"), ["variables"], "{}", answer.json());
    assert_eq!(t.get(SEND).await.json()["data"].as_array().map(Vec::len), Some(1));
}

#[actix_web::test]
async fn many_recipients_are_answered_as_a_list() {
    let t = Under::new().await;
    t.welcome().await;
    let body = json!({"notification_type": "email", "template_code": "welcome", "variables": {"name": "x"},
        "recipients": [{"email": "a@example.com"}, {"email": "b@example.com"}], "request_id": "r"});
    let first = t.post(SEND, body.clone()).await;
    assert_eq!((first.status, &first.json()["meta"]), (202, &json!({"count": 2})));
    let again = t.post(SEND, body.clone()).await;
    assert_eq!((again.json(), again.header("idempotent-replayed")), (first.json(), "true"));
    t.post(SEND, with(&body, json!({"priority": "high"}))).await.problem(409, "conflict");
    let id = first.json()["data"][1]["id"].as_str().unwrap().to_owned();
    let read = t.get(&format!("{SEND}/{id}")).await.json();
    assert_eq!((&read["to"], &read["request_id"]), (&json!({"email": "b@example.com"}), &json!("r")));
    let cancelled = t.post(&format!("{SEND}/{id}/cancel"), json!({})).await;
    assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")));
    t.post(&format!("{SEND}/{id}/cancel"), json!({})).await.problem(409, "conflict");
    assert_eq!(t.post(&format!("{SEND}/{id}/replay"), json!({})).await.json()["status"], "queued");
    let job = t.submitted(json!({"kind": "noop"})).await;
    t.get(&format!("{SEND}/{job}")).await.problem(404, "not_found");
    t.post("/api/v1/jobs", json!({"kind": "notification.email", "payload": {}})).await.problem(400, "invalid_request");
    t.post("/api/v1/jobs", json!({"kind": "event", "payload": {}})).await.problem(400, "invalid_request");
}

#[actix_web::test]
async fn people_send_to_themselves_and_see_what_is_theirs() {
    let t = Under::required().await;
    let (ada, token) = t.signed_in("ada@example.com", Role::User).await;
    let (grace, _) = t.signed_in("grace@example.com", Role::User).await;
    let (_, admin) = t.signed_in("root@example.com", Role::Admin).await;
    let template = json!({"code": "note", "parts": {"console": "x"}});
    assert_eq!(t.call(Method::POST, "/api/v1/templates", &admin, template.clone()).await.status, 201);
    t.call(Method::POST, "/api/v1/templates", &token, template).await.problem(403, "forbidden");
    let to = |id: &dyn std::fmt::Display| json!({"notification_type": "console", "user_id": id.to_string(), "template_code": "note"});
    let own = t.call(Method::POST, SEND, &token, to(&ada.id)).await.json();
    t.call(Method::POST, SEND, &token, to(&grace.id)).await.problem(403, "forbidden");
    let other = t.call(Method::POST, SEND, &admin, to(&grace.id)).await.json();
    let path = |n: &Value| format!("{SEND}/{}", n["id"].as_str().unwrap());
    assert_eq!(t.call(Method::GET, &path(&own), &token, Value::Null).await.status, 200);
    for rest in ["", "/trace"] {
        let hidden = format!("{}{rest}", path(&other));
        t.call(Method::GET, &hidden, &token, Value::Null).await.problem(404, "not_found");
        assert_eq!(t.call(Method::GET, &hidden, &admin, Value::Null).await.status, 200);
    }
    t.call(Method::POST, &format!("{}/cancel", path(&other)), &token, json!({})).await.problem(404, "not_found");
    let listed = t.call(Method::GET, SEND, &token, Value::Null).await.json();
    assert_eq!(
        listed["data"].as_array().unwrap().iter().map(|n| n["id"].clone()).collect::<Vec<_>>(),
        [own["id"].clone()]
    );
    let asked = format!("{SEND}?user_id={}", grace.id);
    t.call(Method::GET, &asked, &token, Value::Null).await.problem(403, "forbidden");
    // The job that a notification is shows only to who may read notifications.
    let reader = format!("Bearer {}", t.key(&[Scope::JobsRead, Scope::JobsWrite]).await);
    let job = format!("/api/v1/jobs/{}", other["id"].as_str().unwrap());
    t.call(Method::GET, &job, &reader, Value::Null).await.problem(404, "not_found");
    t.call(Method::POST, &format!("{job}/cancel"), &reader, Value::Null).await.problem(404, "not_found");
    assert_eq!(t.call(Method::GET, "/api/v1/jobs", &reader, Value::Null).await.json()["data"], json!([]));
    let task = format!("/api/async/status/{}", other["id"].as_str().unwrap());
    t.call(Method::GET, &task, &reader, Value::Null).await.problem(404, "not_found");
    assert_eq!(t.call(Method::GET, &job, &admin, Value::Null).await.status, 200);
}

#[actix_web::test]
async fn rules_suppressions_and_links_say_what_is_wrong() {
    let t = Under::new().await;
    let rule = json!({"name": "r", "on": "item.created", "notification_type": "console", "template_code": "event",
        "recipients": [{"console": true}]});
    for (more, field) in [
        (json!({"on": "item.eaten"}), "on"),
        (json!({"name": "No"}), "name"),
        (json!({"recipients": []}), "recipients"),
        (json!({"recipients": [{"subject": true}]}), "recipients[0]"),
        (json!({"notification_type": "email"}), "recipients[0]"),
        (json!({"priority": 11}), "priority"),
    ] {
        let answer = t.post("/api/v1/rules", with(&rule, more.clone())).await;
        assert_eq!(answer.problem(400, "invalid_request"), [field], "{more}: {}", answer.json());
    }
    let made = t.post("/api/v1/rules", rule.clone()).await;
    let path = made.header("location").to_owned();
    assert_eq!(made.status, 201);
    t.post("/api/v1/rules", rule.clone()).await.problem(409, "conflict");
    let off = t.body(Method::PUT, &path, with(&rule, json!({"enabled": false})).to_string()).await.json();
    assert_eq!((&off["enabled"], &off["name"]), (&json!(false), &json!("r")));
    assert_eq!(t.get("/api/v1/rules").await.json()["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(t.send(TestRequest::delete().uri(&path)).await.status, 204);
    t.get(&path).await.problem(404, "not_found");

    let entry = json!({"notification_type": "email", "address": "Gone@Example.com"});
    let first = t.post("/api/v1/suppressions", entry.clone()).await;
    let again = t.post("/api/v1/suppressions", entry).await;
    assert_eq!((first.status, again.json()), (201, first.json()), "once is enough");
    let found = t.get("/api/v1/suppressions?address=gone@example.com&notification_type=email").await.json();
    assert_eq!(found["data"], json!([first.json()]));
    let path = format!("/api/v1/suppressions/{}", first.json()["id"].as_str().unwrap());
    assert_eq!(t.send(TestRequest::delete().uri(&path)).await.status, 204);
    t.send(TestRequest::delete().uri(&path)).await.problem(404, "not_found");
    for (query, field) in [
        ("", "reason"),
        ("?reason=rain", "reason"),
        ("?reason=manual&created_after=noon", "created_after"),
        ("?reason=manual&dry_run=perhaps", "dry_run"),
        ("?reason=manual&address=a@example.com", "address"),
    ] {
        let answer = t.send(TestRequest::delete().uri(&format!("/api/v1/suppressions{query}"))).await;
        assert_eq!(answer.problem(400, "invalid_request"), [field], "{query}: {}", answer.json());
    }

    for token in ["x", "e30.e30", "eyJ0Ijp7ImNvbnNvbGUiOnRydWV9fQ.AAAA", "a.b.c"] {
        t.get(&format!("/api/v1/unsubscribe/{token}")).await.problem(404, "not_found");
        t.post(&format!("/api/v1/unsubscribe/{token}"), json!({})).await.problem(404, "not_found");
    }
    let breaker = t.post("/api/v1/breakers/smtp:mail.example.com:25/reset", json!({})).await;
    assert_eq!((breaker.status, &breaker.json()["position"]), (200, &json!("closed")));
}
