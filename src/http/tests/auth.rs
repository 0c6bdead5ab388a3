//! Who may call what: every path needs something, and nobody gets through without it.

use std::time::Duration;

use serde_json::{Map, json};

use super::*;
use crate::{
    base::secret::Secret,
    http::{document, routes},
    users::{Caller, Need, NewKey, NewUser, Right, Role, Scope, User},
};

const REQUIRED: &[(&str, &str)] = &[("auth.mode", "required")];
const REGISTERING: &[(&str, &str)] = &[("auth.mode", "required"), ("auth.registration", "open")];
const PASSWORD: &str = "correct horse battery";
const ID: &str = "0192f0c1-2345-7abc-8def-0123456789ab";

impl Under {
    pub(super) async fn required() -> Self {
        Self::configured(REQUIRED, |_| {}).await
    }

    /// Makes a user and logs it in.
    pub(super) async fn signed_in(&self, email: &str, role: Role) -> (User, String) {
        let password = Some(Secret::new(PASSWORD));
        let new = NewUser { email: email.to_owned(), name: "Ada".to_owned(), password, role, ..NewUser::default() };
        let user = self.state.users.create(new, None).await.unwrap();
        let body = json!({"email": email, "password": PASSWORD});
        let token = self.post("/api/v1/auth/login", body).await.json();
        (user, format!("Bearer {}", token["access_token"].as_str().unwrap()))
    }

    pub(super) async fn key(&self, scopes: &[Scope]) -> String {
        let new = NewKey { name: "k".to_owned(), scopes: scopes.to_vec(), expires_at: None };
        self.state.users.create_key(new).await.unwrap().1.reveal().to_owned()
    }

    pub(super) async fn call(&self, method: Method, path: &str, auth: &str, body: Value) -> Answer {
        let mut request = TestRequest::default().method(method).uri(path);
        if !auth.is_empty() {
            request = request.insert_header(("authorization", auth));
        }
        if !body.is_null() {
            request = request.insert_header(("content-type", "application/json")).set_payload(body.to_string());
        }
        self.send(request).await
    }
}

fn path_of(pattern: &str) -> String {
    ["{id}", "{task_id}", "{token_id}", "{endpoint_id}", "{code}", "{provider}"]
        .iter()
        .fold(pattern.replace("{name}", "default"), |path, part| path.replace(part, ID))
}

#[test]
fn every_path_below_api_needs_a_right_and_the_document_says_so() {
    let open: Vec<_> = routes::needs()
        .into_iter()
        .filter(|row| row.path.starts_with("/api/") && row.need == Need::Open && row.method != Method::HEAD)
        .map(|row| row.path)
        .collect();
    // The link in a mail is its own proof.
    let link = "/api/v1/unsubscribe/{token}";
    assert_eq!(open, ["/api/v1/auth/register", "/api/v1/auth/login", "/api/v1/auth/me", link, link]);
    let (document, needs) = (document(), routes::needs());
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(p, item)| item.as_object().unwrap().iter().map(move |(m, op)| (p, m, op)));
    let mut guarded = 0;
    for (path, method, operation) in operations {
        let row = needs.iter().find(|r| r.path == path && r.method.as_str().eq_ignore_ascii_case(method));
        let needs_right = row.is_some_and(|r| r.need != Need::Open);
        assert!(row.is_some() || path == "/openapi.json", "{method} {path} is not registered");
        let responses = operation["responses"].as_object().unwrap();
        if needs_right {
            guarded += 1;
            assert_eq!(operation["security"], json!([{"bearer": []}, {"api_key": []}]), "{method} {path}");
            assert!(responses.contains_key("401") && responses.contains_key("403"), "{method} {path}");
        } else if path != "/api/v1/auth/me" {
            assert!(operation.get("security").is_none(), "{method} {path}");
        }
    }
    assert!(guarded >= 45, "{guarded}");
    let schemes = document["components"]["securitySchemes"].as_object().map(Map::len);
    assert_eq!(schemes, Some(2));
}

#[actix_web::test]
async fn nobody_gets_through_without_saying_who_it_is() {
    let t = Under::required().await;
    for row in routes::needs() {
        let path = path_of(row.path);
        let answer = t.call(row.method.clone(), &path, "", Value::Null).await;
        if row.need == Need::Open {
            assert!(answer.status != 401 || path.ends_with("/me"), "{} {path}: {}", row.method, answer.status);
            continue;
        }
        assert_eq!(answer.status, 401, "{} {path}", row.method);
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"app\"");
        if row.method != Method::HEAD {
            answer.problem(401, "unauthorized");
        }
        let slashed = t.call(row.method.clone(), &format!("{path}/"), "", Value::Null).await;
        assert_eq!(slashed.status, 401, "{} {path}/", row.method);
        for wrong in ["Bearer x.y.z", "Bearer app_x", "Basic dTpw", "Bearer"] {
            let answer = t.call(row.method.clone(), &path, wrong, Value::Null).await;
            assert_eq!(answer.status, 401, "{} {path} {wrong}", row.method);
            assert!(answer.header("www-authenticate").contains("invalid_token"));
        }
    }
    assert_eq!(t.get("/openapi.json").await.status, 200);
    t.get("/api/v1/nothing").await.problem(404, "not_found");
    t.call(Method::PUT, "/api/v1/items", "", Value::Null).await.problem(405, "method_not_allowed");
}

#[actix_web::test]
async fn each_right_opens_its_paths_and_no_others() {
    let t = Under::required().await;
    let (_, user) = t.signed_in("ada@example.com", Role::User).await;
    let (_, admin) = t.signed_in("root@example.com", Role::Admin).await;
    let reader = format!("Bearer {}", t.key(&[Scope::ItemsRead]).await);
    let whole = format!("Bearer {}", t.key(&[Scope::Admin]).await);
    let id = crate::base::id::UserId(uuid::Uuid::nil());
    let as_user = Caller::User { id, role: Role::User };
    for row in routes::needs() {
        let Need::Of(right) = row.need else { continue };
        let path = path_of(row.path);
        let status = async |auth: &str| t.call(row.method.clone(), &path, auth, Value::Null).await.status;
        let place = format!("{} {path}", row.method);
        assert_eq!(status(&user).await == 403, !as_user.may(right), "{place} by a user");
        // A key is nobody, so nothing is its own: the list of its own notifications is refused by what it lists.
        if row.path != "/api/v1/notifications" {
            assert_eq!(
                status(&reader).await == 403,
                !matches!(right, Right::ItemsRead | Right::Oneself),
                "{place} by a key"
            );
        }
        for all in [&admin, &whole] {
            assert!(!matches!(status(all).await, 401 | 403), "{place} by {all}");
        }
    }
    let refused = t.call(Method::GET, "/api/v1/users", &user, Value::Null).await;
    refused.problem(403, "forbidden");
    let by_header = TestRequest::get().uri("/api/v1/items").insert_header(("x-api-key", &reader[7..]));
    assert_eq!(t.send(by_header).await.status, 200);
}

#[actix_web::test]
async fn what_is_somebody_elses_does_not_exist() {
    let t = Under::required().await;
    let (ada, token) = t.signed_in("ada@example.com", Role::User).await;
    let (grace, _) = t.signed_in("grace@example.com", Role::User).await;
    let (_, admin) = t.signed_in("root@example.com", Role::Admin).await;
    let key = format!("Bearer {}", t.key(&[Scope::ItemsRead]).await);
    let patch = json!({"name": "x"});
    let password = json!({"current_password": PASSWORD, "new_password": "another password"});
    let fcm = json!({"kind": "fcm", "token": "t"});
    let hook = json!({"url": "https://h/"});
    for (method, path, body) in [
        (Method::GET, String::new(), Value::Null),
        (Method::PATCH, String::new(), patch),
        (Method::GET, "/push-tokens".to_owned(), Value::Null),
        (Method::POST, "/push-tokens".to_owned(), fcm),
        (Method::GET, "/webhook-endpoints".to_owned(), Value::Null),
        (Method::POST, "/webhook-endpoints".to_owned(), hook),
        (Method::POST, "/password".to_owned(), password),
    ] {
        let of = |id| format!("/api/v1/users/{id}{path}");
        t.call(method.clone(), &of(grace.id), &token, body.clone()).await.problem(404, "not_found");
        t.call(method.clone(), &of(ada.id), &key, body.clone()).await.problem(404, "not_found");
        let own = t.call(method.clone(), &of(ada.id), &token, body.clone()).await;
        assert!(own.status < 300, "{method} {path}: {}", own.status);
        if path != "/password" {
            assert!(t.call(method, &of(grace.id), &admin, body).await.status < 300);
        }
    }
    // The password is another one now, so the token ended with the old one.
    let me = format!("/api/v1/users/{}", ada.id);
    t.call(Method::GET, &me, &token, Value::Null).await.problem(401, "unauthorized");
}

#[actix_web::test]
async fn rights_are_given_by_administrators_alone() {
    let t = Under::required().await;
    let (ada, token) = t.signed_in("ada@example.com", Role::User).await;
    let me = format!("/api/v1/users/{}", ada.id);
    for body in [json!({"role": "admin"}), json!({"disabled": false})] {
        t.call(Method::PATCH, &me, &token, body).await.problem(403, "forbidden");
    }
    let writer = format!("Bearer {}", t.key(&[Scope::UsersWrite]).await);
    t.call(Method::PATCH, &me, &writer, json!({"role": "admin"})).await.problem(403, "forbidden");
    let password = json!({"new_password": "another password"});
    t.call(Method::POST, &format!("{me}/password"), &writer, password).await.problem(404, "not_found");
    let new = json!({"email": "eve@example.com", "name": "Eve", "role": "admin"});
    t.call(Method::POST, "/api/v1/users", &writer, new).await.problem(403, "forbidden");
    assert_eq!(t.call(Method::PATCH, &me, &writer, json!({"name": "Ada K."})).await.status, 200);
    t.call(Method::POST, "/api/v1/api-keys", &writer, json!({"name": "k", "scopes": ["admin"]}))
        .await
        .problem(403, "forbidden");

    let (_, admin) = t.signed_in("root@example.com", Role::Admin).await;
    assert_eq!(t.call(Method::PATCH, &me, &admin, json!({"role": "admin"})).await.json()["role"], "admin");
    assert_eq!(
        t.call(Method::GET, "/api/v1/users", &token, Value::Null).await.status,
        200,
        "the old token, the new role"
    );
    assert_eq!(t.call(Method::PATCH, &me, &admin, json!({"disabled": true})).await.status, 200);
    t.call(Method::GET, "/api/v1/items", &token, Value::Null).await.problem(401, "unauthorized");
    assert_eq!(t.call(Method::DELETE, &me, &admin, Value::Null).await.status, 204);
}

#[actix_web::test]
async fn tokens_are_given_told_and_end() {
    let t = Under::configured(REGISTERING, |_| {}).await;
    let registered =
        t.post("/api/v1/auth/register", json!({"email": "Ada@Example.com", "name": "Ada", "password": PASSWORD})).await;
    let user = registered.json();
    assert_eq!((registered.status, &user["email"], &user["role"]), (201, &json!("ada@example.com"), &json!("user")));
    let answer = t.post("/api/v1/auth/login", json!({"email": "ada@example.com", "password": PASSWORD})).await;
    let login = answer.json();
    assert_eq!((&login["token_type"], &login["expires_in"]), (&json!("Bearer"), &json!(3600)));
    assert_eq!(answer.header("cache-control"), "no-store");
    let token = format!("Bearer {}", login["access_token"].as_str().unwrap());
    let me = async || t.call(Method::GET, "/api/v1/auth/me", &token, Value::Null).await;
    assert_eq!(me().await.json(), user);
    assert_eq!(t.call(Method::GET, registered.header("location"), &token, Value::Null).await.json(), user);
    t.get("/api/v1/auth/me").await.problem(401, "unauthorized");
    let key = format!("Bearer {}", t.key(&[Scope::Admin]).await);
    t.call(Method::GET, "/api/v1/auth/me", &key, Value::Null).await.problem(403, "forbidden");
    t.state.clock.advance(Duration::from_secs(3600));
    me().await.problem(401, "unauthorized");
    let wrong = t.post("/api/v1/auth/login", json!({"email": "ada@example.com", "password": "wrong"})).await;
    wrong.problem(401, "unauthorized");
    assert_eq!(wrong.header("www-authenticate"), "Bearer realm=\"app\"");
}

#[actix_web::test]
async fn attempts_to_log_in_run_out_by_address_and_by_client() {
    let t = Under::configured(REGISTERING, |_| {}).await;
    let login = async |email: &str, client: &str| {
        let body = json!({"email": email, "password": "wrong horse battery"}).to_string();
        let request = TestRequest::post().uri("/api/v1/auth/login").insert_header(("x-real-ip", client));
        t.send(request.insert_header(("content-type", "application/json")).set_payload(body)).await
    };
    for _ in 0..5 {
        login("ada@example.com", "192.0.2.1").await.problem(401, "unauthorized");
    }
    let refused = login("ada@example.com", "192.0.2.2").await;
    refused.problem(429, "too_many_requests");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((50..=61).contains(&wait), "{wait}");
    for n in 0..15 {
        login(&format!("u{n}@example.com"), "192.0.2.1").await.problem(401, "unauthorized");
    }
    login("other@example.com", "192.0.2.1").await.problem(429, "too_many_requests");
    let register = json!({"email": "new@example.com", "name": "N", "password": PASSWORD}).to_string();
    let request = TestRequest::post().uri("/api/v1/auth/register").insert_header(("x-real-ip", "192.0.2.1"));
    let request = request.insert_header(("content-type", "application/json")).set_payload(register);
    t.send(request).await.problem(429, "too_many_requests");
    login("other@example.com", "192.0.2.3").await.problem(401, "unauthorized");
}

#[actix_web::test]
async fn registration_is_closed_unless_it_is_opened() {
    let t = Under::required().await;
    let new = json!({"email": "a@example.com", "name": "A", "password": PASSWORD});
    t.post("/api/v1/auth/register", new.clone()).await.problem(403, "forbidden");
    let (_, admin) = t.signed_in("root@example.com", Role::Admin).await;
    assert_eq!(t.call(Method::POST, "/api/v1/users", &admin, new).await.status, 201);
}

#[actix_web::test]
async fn idempotency_keys_of_different_callers_never_meet() {
    let t = Under::required().await;
    let ada = format!("Bearer {}", t.key(&[Scope::JobsWrite]).await);
    let grace = format!("Bearer {}", t.key(&[Scope::JobsWrite]).await);
    let submit = async |auth: &str| {
        let request = TestRequest::post().uri("/api/v1/jobs").insert_header(("authorization", auth));
        let request =
            request.insert_header(("content-type", "application/json")).insert_header(("idempotency-key", "k"));
        let answer = t.send(request.set_payload(r#"{"kind":"noop"}"#)).await;
        assert_eq!(answer.status, 202, "{}", answer.json());
        (answer.json()["id"].clone(), answer.header("idempotent-replayed").to_owned())
    };
    let (first, _) = submit(&ada).await;
    assert_eq!(submit(&ada).await, (first.clone(), "true".to_owned()));
    let (other, replayed) = submit(&grace).await;
    assert!(other != first && replayed != "true");
}

#[actix_web::test]
async fn where_nobody_is_asked_everybody_may_and_tokens_still_tell_who_one_is() {
    let t = Under::new().await;
    let new = json!({"email": "root@example.com", "name": "R", "password": PASSWORD, "role": "admin"});
    assert_eq!(t.post("/api/v1/users", new).await.status, 201);
    assert_eq!(t.get("/api/v1/users").await.json()["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(t.call(Method::GET, "/api/v1/items", "Bearer nonsense", Value::Null).await.status, 200);
    let login = t.post("/api/v1/auth/login", json!({"email": "root@example.com", "password": PASSWORD})).await.json();
    let token = format!("Bearer {}", login["access_token"].as_str().unwrap());
    let me = t.call(Method::GET, "/api/v1/auth/me", &token, Value::Null).await.json();
    assert_eq!(me["role"], "admin");
    t.get("/api/v1/auth/me").await.problem(401, "unauthorized");
}
