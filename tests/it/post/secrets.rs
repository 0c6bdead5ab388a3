//! What must not be seen is not seen: not in the log, nor in a trace, an error or the configuration, whatever goes wrong.

use reqwest::Method;
use serde_json::{Value, json};

use super::{House, LOOPBACK, Relay, id_of};
use crate::{
    channels::{
        fakes::{Act, HttpFake, Reply},
        parties,
    },
    cli::run::run_in,
    support::wait_until,
};

const RELAY_PASSWORD: &str = "hush-relay-4711";
const USER_PASSWORD: &str = "hush-user-4711-battery";
const DEVICE: &str = "hush-device-4711-0123456789-0123456789";
const ACCESS: &str = "hush-access-4711";
const PATH: &str = "hush-path-4711";
const QUERY: &str = "hush-query-4711";

/// Everything a process says of what went on, but what only its owner may read.
const LOOKED_AT: [&str; 8] = [
    "/api/v1/notifications?limit=200",
    "/api/v1/jobs?limit=200",
    "/api/v1/events?limit=200",
    "/api/v1/dead-letters?limit=200",
    "/api/v1/suppressions",
    "/api/v1/breakers",
    "/api/v1/users",
    "/api/v1/sink",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_told_whatever_fails() {
    let relay = Relay::start();
    let receiver = HttpFake::start(|r, n| match n {
        0 => Reply::with(503, &["retry-after: 3600"], format!("{} {}", r.line, r.header("webhook-signature"))),
        1 => Reply::with(302, &["location: /elsewhere"], ""),
        2 => Reply::Drop,
        _ => Reply::status(410),
    })
    .await;
    let firebase = HttpFake::saying(Reply::with(500, &[], format!("{DEVICE} {ACCESS}"))).await;
    let tokens = HttpFake::saying(Reply::with(200, &[], json!({"access_token": ACCESS, "expires_in": 3599}))).await;
    let mut house = House::with(&relay);
    for (name, value) in LOOPBACK {
        house.set(name, value);
    }
    let key = parties::check("account", json!({})).await;
    let account = json!({
        "type": "service_account", "project_id": "shop-7", "private_key_id": "k", "private_key": key["private"],
        "client_email": "app@shop-7.iam.gserviceaccount.com", "token_uri": tokens.url("/token"),
    });
    let file = house.dir.path().join("account.json");
    std::fs::write(&file, account.to_string()).unwrap();
    house.set("APP__PUSH__FCM_CREDENTIALS", file.to_str().unwrap());
    house.set("APP__PUSH__FCM_URL", &firebase.url(""));
    house.set("APP__EMAIL__USERNAME", "shop");
    house.set("APP__EMAIL__PASSWORD", RELAY_PASSWORD);
    house.set("APP__LOG__LEVEL", "debug");
    house.set("APP__AUTH__REGISTRATION", "open");
    let (process, api) = house.start().await;
    api.note().await;

    let new = json!({"email": "ada@example.net", "name": "Ada", "password": USER_PASSWORD});
    let (status, _) = api.call(Method::POST, "/api/v1/auth/register", Some(&new)).await.unwrap();
    assert_eq!(status, 201);
    let login = json!({"email": "ada@example.net", "password": USER_PASSWORD});
    let session = api.post("/api/v1/auth/login", &login).await["access_token"].as_str().unwrap().to_owned();
    let wrong = json!({"email": "ada@example.net", "password": format!("{USER_PASSWORD}x")});
    let (_, told) = api.call(Method::POST, "/api/v1/auth/login", Some(&wrong)).await.unwrap();
    assert!(!told.to_string().contains("hush"), "{told}");
    let user = id_of(&api.list("/api/v1/users").await[0]);
    let made = api.post("/api/v1/api-keys", &json!({"name": "ci", "scopes": ["items:read"]})).await;
    let api_key = made["key"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    let url = receiver.url(&format!("/{PATH}?k={QUERY}"));
    let server = api.post(&format!("/api/v1/users/{user}/webhook-endpoints"), &json!({"url": url})).await;
    let signing = server["secret"].as_str().unwrap().to_owned();
    api.post(&format!("/api/v1/users/{user}/push-tokens"), &json!({"kind": "fcm", "token": DEVICE})).await;

    // Fails in every way.
    relay.next("AUTH", Act::Say("535 5.7.8 hush-relay-4711 is wrong"));
    let mail = api.send("email", &user, json!({"category": "news"})).await;
    api.reaches(&mail, "postponed").await;
    let pushed = api.send("push", &user, json!({})).await;
    wait_until("the push fails", async || {
        !api.get(&format!("/api/v1/notifications/{pushed}")).await["attempts"].as_array().unwrap().is_empty()
    })
    .await;
    let mut ids = vec![mail, pushed];
    for n in 1..=4 {
        let id = api.send("webhook", &user, json!({})).await;
        wait_until("it is called", async || receiver.requests().len() >= n).await;
        wait_until("it fails", async || {
            !api.get(&format!("/api/v1/notifications/{id}")).await["attempts"].as_array().unwrap().is_empty()
        })
        .await;
        api.call(Method::POST, &format!("/api/v1/notifications/{id}/cancel"), Some(&json!({}))).await.unwrap();
        ids.push(id);
    }

    let mut hidden = vec!["hush", signing.trim_start_matches("whsec_"), api_key.as_str(), session.as_str()];
    let private = key["private"].as_str().unwrap().to_owned();
    hidden.push(private.lines().nth(2).unwrap());
    let silent = |what: &str, text: &str| {
        for secret in &hidden {
            if let Some(at) = text.find(secret) {
                let from = text.floor_char_boundary(at.saturating_sub(300));
                panic!("{what} tells a secret: …{}", &text[from..text.floor_char_boundary(at + 60)]);
            }
        }
    };
    for path in LOOKED_AT {
        silent(path, &api.get(path).await.to_string());
    }
    for id in &ids {
        silent("a trace", &api.trace(id).await.to_string());
        silent("a job", &api.get(&format!("/api/v1/jobs/{id}")).await.to_string());
    }
    let (_, page) = api.call(Method::GET, "/metrics", None).await.unwrap();
    silent("/metrics", page.as_str().unwrap());
    let devices: Value = api.get(&format!("/api/v1/users/{user}/push-tokens")).await;
    silent("a list of devices", &devices.to_string());
    silent("the log", &process.log());
    let env: Vec<(&str, &str)> = house.env.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let shown = run_in(house.dir.path(), &["config", "show"], &env, "").await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    silent("config show", &(shown.out + &shown.err));
}
