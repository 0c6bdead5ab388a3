//! Idempotency: the same request again gives the same answer and sends nothing twice.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{Api, House, Relay, note_to};
use crate::support::fleet::{Fleet, Via};

/// Posts with a key in the header; answers status, body and whether it was answered before.
async fn keyed(api: &Api, key: &str, body: &Value) -> (u16, Value, bool) {
    let request = api.http.post(format!("{}/api/v1/notifications", api.url)).header("idempotency-key", key);
    let answer = request.json(body).send().await.unwrap();
    let replayed = answer.headers().get("idempotent-replayed").is_some_and(|v| v == "true");
    (answer.status().as_u16(), answer.json().await.unwrap(), replayed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_equal_requests_at_once_send_one_message() {
    let relay = Relay::start();
    let house = House::with(&relay);
    let (_process, api) = house.start().await;
    api.note().await;
    let user = api.user("ada", json!({})).await;
    let body = note_to("email", &user, json!({"request_id": "once"}));
    let answers = join_all((0..100).map(|_| api.post("/api/v1/notifications", &body))).await;
    assert!(answers.iter().all(|a| *a == answers[0]), "{answers:?}");
    let id = super::id_of(&answers[0]);
    api.reaches(&id, "delivered").await;
    assert_eq!(api.list("/api/v1/notifications").await.len(), 1);
    assert_eq!((relay.mails_of(&id).len(), relay.fake.mails().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_belongs_to_one_request() {
    let house = House::new();
    let (_process, api) = house.start().await;
    api.note().await;
    let user = api.user("ada", json!({})).await;
    // In the body.
    let body = note_to("email", &user, json!({"request_id": "k1"}));
    let first = api.post("/api/v1/notifications", &body).await;
    let other = note_to("email", &user, json!({"request_id": "k1", "variables": {"word": "other"}}));
    api.refused("/api/v1/notifications", &other, 409).await;
    assert_eq!(api.post("/api/v1/notifications", &body).await, first);
    // In the header.
    let body = note_to("email", &user, json!({}));
    let (status, first, replayed) = keyed(&api, "k2", &body).await;
    assert_eq!((status, replayed), (202, false));
    assert_eq!(keyed(&api, "k2", &body).await, (202, first.clone(), true));
    let other = note_to("email", &user, json!({"priority": 9}));
    assert_eq!(keyed(&api, "k2", &other).await.0, 409);
    // In both, if they are the same; a field in the body that differs from the header is no key at all.
    let both = note_to("email", &user, json!({"request_id": "k3"}));
    let (status, third, _) = keyed(&api, "k3", &both).await;
    assert_eq!(status, 202);
    assert_eq!(keyed(&api, "k3", &both).await, (202, third, true));
    assert_eq!(keyed(&api, "k4", &both).await.0, 400);
    assert_eq!(api.list("/api/v1/notifications").await.len(), 3);

    // What was accepted once is answered again, even if it could not be accepted now.
    api.delete(&format!("/api/v1/users/{user}")).await;
    assert_eq!(keyed(&api, "k2", &note_to("email", &user, json!({}))).await, (202, first, true));
    assert_eq!(keyed(&api, "k5", &note_to("email", &user, json!({}))).await.0, 400);
}

/// The same over two processes that share nothing but the database.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_equal_requests_at_two_doors_send_one_message() {
    let fleet = Fleet::shared(Via::Rabbitmq).await;
    let (one, two) = (fleet.serve().await, fleet.serve().await);
    let (_worker, _scheduler) = (fleet.worker(&[]).await, fleet.scheduler().await);
    let doors = [Api::of(&one), Api::of(&two)];
    doors[0].note().await;
    let user = doors[0].user("ada", json!({})).await;
    let body = note_to("email", &user, json!({"request_id": "once"}));
    let answers = join_all((0..100).map(|n| doors[n % 2].post("/api/v1/notifications", &body))).await;
    assert!(answers.iter().all(|a| *a == answers[0]), "{answers:?}");
    doors[1].reaches(&super::id_of(&answers[0]), "delivered").await;
    assert_eq!(doors[0].list("/api/v1/notifications").await.len(), 1);
    assert_eq!(doors[0].list("/api/v1/sink").await.len(), 1);
}
