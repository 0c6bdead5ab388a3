//! The way of a mail from the first user to the sink, as somebody who tries the program goes it.

use serde_json::{Value, json};

use super::{Api, House, steps};
use crate::support::fleet::{Fleet, Via};

async fn walk(api: &Api) {
    let user = api.user("ada", json!({"locale": "pt-BR"})).await;
    let template = json!({
        "code": "welcome", "parts": {"email": {"subject": "Welcome, {{ name }}", "text": "Hello {{ name }}!"}},
        "variables": [{"name": "name", "example": "Ada"}],
    });
    assert_eq!(api.post("/api/v1/templates", &template).await["version"], 1);
    let body = json!({
        "notification_type": "email", "user_id": user, "template_code": "welcome", "variables": {"name": "Ada"},
        "category": "onboarding", "priority": 7, "request_id": "welcome-1",
    });
    let sent = api.post("/api/v1/notifications", &body).await;
    assert_eq!((&sent["status"], &sent["request_id"]), (&json!("queued"), &json!("welcome-1")));
    let id = super::id_of(&sent);
    let done = api.reaches(&id, "delivered").await;
    assert_eq!((&done["provider"], &done["attempts"][0]["outcome"]), (&json!("sink"), &json!("succeeded")), "{done}");
    let sink = api.list("/api/v1/sink?to=Ada@example.net").await;
    assert_eq!(sink.len(), 1, "{sink:?}");
    assert_eq!(sink[0]["notification_id"], id);
    assert_eq!(sink[0]["content"]["subject"], "Welcome, Ada");
    assert_eq!(sink[0]["content"]["text"], "Hello Ada!");
    let trace = api.trace(&id).await;
    assert_eq!(
        steps(&trace),
        ["recipient pass", "preference pass", "suppression pass", "quiet_hours pass", "template pass", "breaker pass"]
    );
    assert_eq!((&trace["outlook"], &trace["locales"]), (&Value::Null, &json!(["pt-BR", "pt", "default"])));
    let found = api.list(&format!("/api/v1/notifications?user_id={user}&status=delivered&template_code=welcome")).await;
    assert_eq!(found, [done]);
    assert!(api.list("/api/v1/notifications?status=failed").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn walk_embedded() {
    let house = House::new();
    let (_process, api) = house.start().await;
    walk(&api).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn walk_fleet() {
    for via in [Via::Redis, Via::Rabbitmq] {
        let fleet = Fleet::shared(via).await;
        let (serve, _worker, _scheduler) = (fleet.serve().await, fleet.worker(&[]).await, fleet.scheduler().await);
        walk(&Api::of(&serve)).await;
    }
}
