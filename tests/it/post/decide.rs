//! What becomes of a notification: every decision, and that `explain` told it before.

use app::base::clock::{Clock, Timestamp};
use serde_json::{Value, json};

use super::{Api, House, id_of, note_to, steps, tomorrow};

/// Asks what would become of a note, sends it, and checks that this is what became of it. Answers the notification.
async fn as_explained(api: &Api, channel: &str, user: &str, more: Value) -> Value {
    let body = note_to(channel, user, more);
    let told = api.post("/api/v1/notifications/explain", &body).await;
    let id = id_of(&api.post("/api/v1/notifications", &body).await);
    let status = match told["decision"].as_str().unwrap() {
        "send" => "delivered",
        "skip" => "skipped",
        "wait" => "postponed",
        other => panic!("{other}: {told}"),
    };
    let ended = api.reaches(&id, status).await;
    let trace = api.trace(&id).await;
    assert_eq!(trace["locales"], told["locales"]);
    assert_eq!(trace["template"], told["template"]);
    if status == "postponed" {
        assert_eq!(steps(&trace["outlook"]), steps(&told), "{trace}");
        assert_eq!(ended["attempts"][0]["error"]["code"], told["reason"], "{ended}");
        assert_eq!(ended["attempts"][0]["outcome"], "snoozed");
    } else {
        assert_eq!(trace["steps"], told["steps"], "{trace}");
        assert_eq!(ended["reason"], told["reason"], "{ended}");
    }
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn preferences_hold_by_channel_and_by_category() {
    let house = House::new();
    let (_process, api) = house.start().await;
    api.note().await;
    let preferences =
        json!({"preferences": {"push": false, "categories": {"news": {"email": false, "console": false}}}});
    let user = api.user("ada", preferences).await;
    for (channel, category, skipped) in [
        ("email", Value::Null, false),
        ("email", json!("news"), true),
        ("email", json!("bills"), false),
        ("console", json!("news"), true),
        ("console", Value::Null, false),
    ] {
        let ended = as_explained(&api, channel, &user, json!({"category": category})).await;
        let expected = if skipped { json!("preference") } else { Value::Null };
        assert_eq!(ended["reason"], expected, "{channel} {category}: {ended}");
    }
    // What counts is what holds when it is sent.
    let later = json!({"category": "bills", "send_at": tomorrow()});
    let id = api.send("email", &user, later).await;
    api.patch(&format!("/api/v1/users/{user}"), &json!({"preferences": {"email": false}})).await;
    api.post(&format!("/api/v1/notifications/{id}/replay"), &json!({})).await;
    assert_eq!(api.reaches(&id, "skipped").await["reason"], "preference");
    let token = json!({"kind": "fcm", "token": "t".repeat(40)});
    api.post(&format!("/api/v1/users/{user}/push-tokens"), &token).await;
    assert_eq!(as_explained(&api, "push", &user, json!({})).await["reason"], "preference");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_to_the_suppressed_the_disabled_and_the_unreachable() {
    let house = House::new();
    let (_process, api) = house.start().await;
    api.note().await;
    let user = api.user("ada", json!({})).await;
    assert_eq!(as_explained(&api, "push", &user, json!({})).await["reason"], "no_address");
    assert_eq!(as_explained(&api, "webhook", &user, json!({})).await["reason"], "no_address");
    let entry = json!({"notification_type": "email", "address": "Ada@Example.net"});
    let entry = id_of(&api.post("/api/v1/suppressions", &entry).await);
    assert_eq!(as_explained(&api, "email", &user, json!({})).await["reason"], "suppressed");
    api.delete(&format!("/api/v1/suppressions/{entry}")).await;
    assert_eq!(as_explained(&api, "email", &user, json!({})).await["status"], "delivered");
    let entry = json!({"notification_type": "email", "address": "ada@example.net", "category": "news"});
    api.post("/api/v1/suppressions", &entry).await;
    assert_eq!(as_explained(&api, "email", &user, json!({"category": "news"})).await["reason"], "suppressed");
    assert_eq!(as_explained(&api, "email", &user, json!({"category": "bills"})).await["status"], "delivered");
    api.patch(&format!("/api/v1/users/{user}"), &json!({"disabled": true})).await;
    assert_eq!(as_explained(&api, "email", &user, json!({})).await["reason"], "user_disabled");
    assert_eq!(api.list("/api/v1/sink").await.len(), 2);

    // Gone between accept and send: failed, and not for the breaker.
    let gone = api.user("bob", json!({})).await;
    let id = api.send("email", &gone, json!({"send_at": tomorrow()})).await;
    api.delete(&format!("/api/v1/users/{gone}")).await;
    api.post(&format!("/api/v1/notifications/{id}/replay"), &json!({})).await;
    assert_eq!(api.reaches(&id, "failed").await["error"]["code"], "recipient_gone");
    let refused = api.refused("/api/v1/notifications", &note_to("email", &gone, json!({})), 400).await;
    assert!(refused.to_string().contains("user_id"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_hours_postpone_what_is_not_urgent() {
    let house = House::new();
    let (_process, api) = house.start().await;
    api.note().await;
    let now = Clock::system().now();
    let hour = |by: i64| Timestamp::from_millis((now.as_millis().div_euclid(3_600_000) + by) * 3_600_000);
    let wall = |t: Timestamp| t.to_string()[11..16].to_owned();
    let quiet = json!({"start": wall(hour(-1)), "end": wall(hour(3))});
    let user = api.user("ada", json!({"time_zone": "UTC", "preferences": {"quiet_hours": quiet}})).await;
    let body = note_to("email", &user, json!({}));
    let told = api.post("/api/v1/notifications/explain", &body).await;
    assert_eq!(told["until"], hour(3).to_string(), "{told}");
    let waits = as_explained(&api, "email", &user, json!({"priority": 7})).await;
    let due = Timestamp::parse(waits["due_at"].as_str().unwrap()).unwrap();
    assert!(due >= hour(3), "is sent in quiet hours: {waits}");
    let job = api.get(&format!("/api/v1/jobs/{}", id_of(&waits))).await;
    assert_eq!(job["attempt"], 0, "waiting spends no attempt: {job}");
    let urgent = as_explained(&api, "email", &user, json!({"priority": 8})).await;
    assert_eq!(urgent["status"], "delivered");
    // Machines have no nights.
    assert_eq!(as_explained(&api, "console", &user, json!({})).await["status"], "delivered");
    api.patch(&format!("/api/v1/users/{user}"), &json!({"preferences": {"quiet_hours": null}})).await;
    api.post(&format!("/api/v1/notifications/{}/replay", id_of(&waits)), &json!({})).await;
    api.reaches(&id_of(&waits), "delivered").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_recipient_gets_the_nearest_language_and_the_version_of_the_time() {
    let house = House::new();
    let (_process, api) = house.start().await;
    let save = async |locale: &str, text: &str| {
        let parts = json!({"email": {"subject": "s", "text": text}});
        api.post("/api/v1/templates", &json!({"code": "note", "locale": locale, "parts": parts, "variables": []})).await
    };
    for locale in ["default", "pt", "de"] {
        save(locale, &format!("in {locale}")).await;
    }
    for (name, locale, found, looked) in [
        ("ada", "pt-BR", "pt", json!(["pt-BR", "pt"])),
        ("bob", "de", "de", json!(["de"])),
        ("eve", "fr", "default", json!(["fr", "default"])),
    ] {
        let user = api.user(name, json!({"locale": locale})).await;
        let done = as_explained(&api, "email", &user, json!({"variables": {}})).await;
        assert_eq!(done["template"], json!({"code": "note", "locale": found, "version": 1}));
        assert_eq!(api.trace(&id_of(&done)).await["locales"], looked);
        let sink = api.list(&format!("/api/v1/sink?to={name}@example.net")).await;
        assert_eq!(sink[0]["content"]["text"], format!("in {found}"));
    }
    let user = api.user("kim", json!({"locale": "de"})).await;
    let later = json!({"variables": {}, "send_at": tomorrow()});
    let id = api.send("email", &user, later).await;
    assert_eq!(save("de", "newer").await["version"], 2);
    api.post(&format!("/api/v1/notifications/{id}/replay"), &json!({})).await;
    assert_eq!(api.reaches(&id, "delivered").await["template"]["version"], 1);
    assert_eq!(api.list("/api/v1/sink?to=kim@example.net").await[0]["content"]["text"], "in de");
    let id = api.send("email", &user, json!({"variables": {}, "locale": "pt"})).await;
    assert_eq!(api.reaches(&id, "delivered").await["template"]["locale"], "pt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_delays_and_drops_nothing() {
    let mut house = House::new();
    house.set("APP__NOTIFICATIONS__EMAIL_PER_MINUTE", "60");
    let (_process, api) = house.start().await;
    api.note().await;
    let user = api.user("ada", json!({})).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(api.send("email", &user, json!({})).await);
    }
    let mut delayed = 0;
    for id in &ids {
        let done = api.reaches(id, "delivered").await;
        let attempts = done["attempts"].as_array().unwrap();
        let (last, before) = attempts.split_last().unwrap();
        assert_eq!(last["outcome"], "succeeded");
        assert!(before.iter().all(|a| a["error"]["code"] == "rate_limited" && a["outcome"] == "snoozed"), "{done}");
        delayed += usize::from(!before.is_empty());
        let job = api.get(&format!("/api/v1/jobs/{id}")).await;
        assert_eq!(job["attempt"], 1, "{job}");
    }
    assert!(delayed >= 1, "nothing was delayed");
    assert_eq!(api.list("/api/v1/sink").await.len(), ids.len());
}
