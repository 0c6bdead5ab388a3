//! What a provider's refusal means: retried soon, retried in minutes, sent again, given up, never again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use app::base::clock::Timestamp;
use serde_json::{Value, json};

use super::{Api, House, LOOPBACK, Relay, id_of};
use crate::{
    channels::{
        fakes::{Act, HttpFake, Reply, Request},
        parties,
    },
    support::wait_until,
};

fn time(value: &Value) -> Timestamp {
    Timestamp::parse(value.as_str().unwrap_or_else(|| panic!("no time: {value}"))).unwrap()
}

async fn replay(api: &Api, id: &str) {
    api.post(&format!("/api/v1/notifications/{id}/replay"), &json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_wants_patience_is_asked_again_in_minutes() {
    let relay = Relay::start();
    let house = House::with(&relay);
    let (_process, api) = house.start().await;
    api.note().await;
    let user = api.user("ada", json!({})).await;
    relay.next("RCPT", Act::Say("451 4.7.1 greylisted, come back later"));
    let id = api.send("email", &user, json!({})).await;
    let waits = api.reaches(&id, "retrying").await;
    let first = &waits["attempts"][0];
    assert_eq!((&first["outcome"], &first["error"]["code"]), (&json!("failed"), &json!("smtp_451")), "{waits}");
    let wait = time(&first["retry_at"]).since(time(&first["finished_at"]));
    assert!(wait >= Duration::from_secs(30) && wait <= Duration::from_secs(120), "{wait:?}: {waits}");
    assert_eq!(waits["due_at"], first["retry_at"]);
    assert_eq!(api.trace(&id).await["outlook"]["decision"], "send");
    replay(&api, &id).await;
    let done = api.reaches(&id, "delivered").await;
    assert_eq!(done["attempts"].as_array().unwrap().len(), 2, "{done}");
    assert_eq!(relay.mails_of(&id).len(), 1);
    let breakers = api.list("/api/v1/breakers").await;
    assert!(breakers.iter().all(|b| b["failures"] == 0), "patience is no failure: {breakers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_does_not_exist_is_never_tried_again() {
    let relay = Relay::start();
    let house = House::with(&relay);
    let (_process, api) = house.start().await;
    api.note().await;
    let user = api.user("ada", json!({})).await;
    relay.next("RCPT", Act::Say("550 5.1.1 no such user"));
    let id = api.send("email", &user, json!({})).await;
    let failed = api.reaches(&id, "failed").await;
    assert_eq!(failed["error"]["code"], "smtp_550", "{failed}");
    assert_eq!(failed["attempts"].as_array().unwrap().len(), 1, "{failed}");
    let list = api.list("/api/v1/suppressions?notification_type=email").await;
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!((&list[0]["address"], &list[0]["reason"]), (&json!("ada@example.net"), &json!("hard_bounce")));
    assert!(list[0]["detail"].as_str().unwrap().contains("no such user"), "{list:?}");
    let id = api.send("email", &user, json!({})).await;
    assert_eq!(api.reaches(&id, "skipped").await["reason"], "suppressed");
    api.delete(&format!("/api/v1/suppressions/{}", id_of(&list[0]))).await;
    let id = api.send("email", &user, json!({})).await;
    api.reaches(&id, "delivered").await;
    // Refused by policy: for good, but the mailbox is there.
    relay.next("RCPT", Act::Say("550 5.7.1 we do not like you"));
    let id = api.send("email", &user, json!({})).await;
    api.reaches(&id, "failed").await;
    assert!(api.list("/api/v1/suppressions").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_whose_answer_is_lost_is_sent_again_as_the_same_mail() {
    let relay = Relay::start();
    let house = House::with(&relay);
    let (_process, api) = house.start().await;
    api.note().await;
    let user = api.user("ada", json!({})).await;
    relay.next(".", Act::Drop);
    let id = api.send("email", &user, json!({})).await;
    let done = api.reaches(&id, "delivered").await;
    let first = &done["attempts"][0];
    assert_eq!((&first["ambiguous"], &first["outcome"]), (&json!(true), &json!("failed")), "{done}");
    assert!(first["error"]["code"].as_str().unwrap().starts_with("ambiguous"), "{done}");
    assert_eq!(done["attempts"][1]["ambiguous"], false);
    assert_eq!(api.trace(&id).await["attempts"], done["attempts"]);
    let mails = relay.mails_of(&id);
    assert_eq!(mails.len(), 2);
    assert_eq!(mails[0], mails[1], "the same mail to the byte");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_holds_its_whole_history_and_is_sent_again() {
    let works = Arc::new(AtomicBool::new(false));
    let script = works.clone();
    let receiver = HttpFake::start(move |r, _| match script.load(Ordering::SeqCst) || r.line.contains("/other") {
        false => Reply::with(503, &["retry-after: 1"], "busy"),
        true => Reply::status(204),
    })
    .await;
    let mut house = House::new();
    for (name, value) in LOOPBACK {
        house.set(name, value);
    }
    let (_process, api) = house.start().await;
    api.note().await;
    let mut users = Vec::new();
    for name in ["ada", "other"] {
        let user = api.user(name, json!({})).await;
        let server = json!({"url": receiver.url(&format!("/{name}"))});
        api.post(&format!("/api/v1/users/{user}/webhook-endpoints"), &server).await;
        users.push(user);
    }
    let id = api.send("webhook", &users[0], json!({})).await;
    // Six attempts are more than the breaker bears in a row: others that are sent meanwhile keep it closed.
    let fails = async |before: usize| {
        api.post("/api/v1/breakers/webhook:127.0.0.1/reset", &json!({})).await;
        wait_until("it has failed three times", async || {
            let n = api.get(&format!("/api/v1/notifications/{id}")).await;
            n["attempts"].as_array().unwrap().len() >= before + 3
        })
        .await;
        let other = api.send("webhook", &users[1], json!({})).await;
        api.reaches(&other, "delivered").await;
        api.reaches(&id, "failed").await
    };
    let failed = fails(0).await;
    assert_eq!(failed["error"]["code"], "http_503");
    let attempts = failed["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 6, "{failed}");
    for a in &attempts[..5] {
        let wait = time(&a["retry_at"]).since(time(&a["finished_at"]));
        assert!(wait >= Duration::from_secs(1), "Retry-After is kept: {a}");
    }
    assert_eq!(attempts[5]["retry_at"], Value::Null);
    // From the notification.
    replay(&api, &id).await;
    let failed = fails(6).await;
    assert_eq!(failed["attempts"].as_array().unwrap().len(), 12, "nothing is forgotten: {failed}");
    // From the dead letters.
    let dead = api.list("/api/v1/dead-letters?kind=notification.webhook").await;
    assert_eq!((dead.len(), &dead[0]["id"]), (1, &json!(id)));
    assert_eq!(dead[0]["attempts"].as_array().unwrap().len(), 12);
    works.store(true, Ordering::SeqCst);
    api.post("/api/v1/dead-letters/replay", &json!({"filter": {"ids": [id]}})).await;
    let done = api.reaches(&id, "delivered").await;
    assert_eq!(done["attempts"].as_array().unwrap().len(), 13, "{done}");
    let of_it = |r: &&Request| r.line.contains("/ada");
    let requests = receiver.requests();
    assert_eq!(requests.iter().filter(of_it).count(), 13);
    assert!(requests.iter().filter(of_it).all(|r| r.header("webhook-id") == id), "the same id at every attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_is_not_called_until_its_owner_says_so() {
    let receiver = HttpFake::start(|_, n| Reply::status(if n == 0 { 410 } else { 204 })).await;
    let mut house = House::new();
    for (name, value) in LOOPBACK {
        house.set(name, value);
    }
    let (_process, api) = house.start().await;
    api.note().await;
    let user = api.user("ada", json!({})).await;
    let servers = format!("/api/v1/users/{user}/webhook-endpoints");
    let server = id_of(&api.post(&servers, &json!({"url": receiver.url("/in")})).await);
    let id = api.send("webhook", &user, json!({})).await;
    assert_eq!(api.reaches(&id, "failed").await["error"]["code"], "http_410");
    assert_eq!(api.list(&servers).await[0]["disabled"], true);
    let listed = api.list("/api/v1/suppressions?notification_type=webhook").await;
    assert_eq!(listed.iter().map(|s| &s["reason"]).collect::<Vec<_>>(), ["gone"]);
    let id = api.send("webhook", &user, json!({})).await;
    assert_eq!(api.reaches(&id, "skipped").await["reason"], "no_address");
    api.post(&format!("{servers}/{server}/enable"), &json!({})).await;
    assert!(api.list("/api/v1/suppressions?notification_type=webhook").await.is_empty());
    let id = api.send("webhook", &user, json!({})).await;
    api.reaches(&id, "delivered").await;
    assert_eq!(receiver.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_gone_is_forgotten() {
    let gone = json!({"error": {"code": 404, "message": "not there", "status": "NOT_FOUND", "details": [
        {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "UNREGISTERED"}]}});
    let firebase = HttpFake::start(move |r, _| match r.text().contains("gone-device") {
        true => Reply::with(404, &[], &gone),
        false => Reply::with(200, &[], json!({"name": "projects/shop-7/messages/1"})),
    })
    .await;
    let tokens = HttpFake::saying(Reply::with(200, &[], json!({"access_token": "t", "expires_in": 3599}))).await;
    let mut house = House::new();
    let key = parties::check("account", json!({})).await;
    let account = json!({
        "type": "service_account", "project_id": "shop-7", "private_key_id": "k", "private_key": key["private"],
        "client_email": "app@shop-7.iam.gserviceaccount.com", "token_uri": tokens.url("/token"),
    });
    let file = house.dir.path().join("account.json");
    std::fs::write(&file, account.to_string()).unwrap();
    house.set("APP__PUSH__FCM_CREDENTIALS", file.to_str().unwrap());
    house.set("APP__PUSH__FCM_URL", &firebase.url(""));
    let (_process, api) = house.start().await;
    api.note().await;
    let user = api.user("ada", json!({})).await;
    let devices = format!("/api/v1/users/{user}/push-tokens");
    for name in ["gone-device", "good-device"] {
        let token = json!({"kind": "fcm", "token": format!("{name}-{}", "x".repeat(40)), "label": name});
        api.post(&devices, &token).await;
    }
    let id = api.send("push", &user, json!({})).await;
    let mut ends = Vec::new();
    for part in api.reaches(&id, "expanded").await["parts"].as_array().unwrap() {
        let path = format!("/api/v1/notifications/{}", part.as_str().unwrap());
        wait_until("the part ends", async || !api.get(&path).await["finished_at"].is_null()).await;
        let part = api.get(&path).await;
        ends.push((part["status"].as_str().unwrap().to_owned(), part["error"]["code"].as_str().map(str::to_owned)));
    }
    ends.sort();
    assert_eq!(ends, [("delivered".to_owned(), None), ("failed".to_owned(), Some("fcm_unregistered".to_owned()))]);
    let left = api.list(&devices).await;
    assert_eq!((left.len(), &left[0]["label"]), (1, &json!("good-device")));
    let list = api.list("/api/v1/suppressions?notification_type=push").await;
    assert_eq!((list.len(), &list[0]["reason"]), (1, &json!("unregistered")));
    assert!(!list[0].to_string().contains("gone-device"), "{list:?}");
    let id = api.send("push", &user, json!({})).await;
    api.reaches(&id, "delivered").await;
    assert_eq!(firebase.requests().len(), 3);
    assert_eq!(api.list("/api/v1/breakers").await.len(), 0, "the provider did nothing wrong");
}

/// Three days, in milliseconds.
const PATIENCE_MS: i64 = 3 * 86_400 * 1000;

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_nobody_mends_are_waited_for_and_then_given_up() {
    let relay = Relay::start();
    let mut house = House::with(&relay);
    house.set("APP__EMAIL__USERNAME", "shop");
    house.set("APP__EMAIL__PASSWORD", "wrong-password");
    relay.always("AUTH", Act::Say("535 5.7.8 no"));
    let (mut process, api) = house.start().await;
    api.note().await;
    let user = api.user("ada", json!({})).await;
    let first = api.send("email", &user, json!({})).await;
    let waits = api.reaches(&first, "postponed").await;
    assert_eq!(waits["attempts"][0]["outcome"], "snoozed", "{waits}");
    assert_eq!(api.get(&format!("/api/v1/jobs/{first}")).await["attempt"], 0, "spends no attempt");
    let breaker = &api.list("/api/v1/breakers").await[0];
    assert_eq!((&breaker["position"], &breaker["provider"]), (&json!("open"), &json!(relay.provider())));
    let second = api.send("email", &user, json!({})).await;
    assert_eq!(api.reaches(&second, "postponed").await["attempts"][0]["error"]["code"], "breaker_open");
    process.kill();
    let later = (PATIENCE_MS + 60_000).to_string();
    let (_process, api) = house.start_with(&[("APP_TEST_CLOCK_OFFSET_MS", &later)]).await;
    for id in [&first, &second] {
        let failed = api.reaches(id, "failed").await;
        assert_eq!(failed["error"]["code"], "given_up", "{failed}");
        assert!(failed["error"]["message"].as_str().unwrap().contains("within 3 days"), "{failed}");
    }
    assert_eq!(api.list("/api/v1/dead-letters?kind=notification.email").await.len(), 2);
    // Mended: what was given up can still be sent.
    relay.works();
    api.post(&format!("/api/v1/breakers/{}/reset", relay.provider()), &json!({})).await;
    for id in [&first, &second] {
        replay(&api, id).await;
        api.reaches(id, "delivered").await;
    }
}
