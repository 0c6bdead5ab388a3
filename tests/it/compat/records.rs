//! Records, notifications and events as version 0.1.0 stored them.

use app::{
    base::clock::Timestamp,
    events::Event,
    notifications::model::{Payload, Report},
    records::{Committed, Record, Shelf, Write},
    store::{self, Sync},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::support::process::Process;

const RECORDS: &str = include_str!("v0.1.0/records.json");
const NOTIFICATION: &str = include_str!("v0.1.0/notification.json");
const WRITTEN: &str = "2026-11-21T21:10:00Z";

/// The same with a field more in the document and in each object directly below it, as a newer version might write them.
fn with_future(mut body: Value) -> Value {
    for (name, inner) in body.as_object_mut().unwrap() {
        // What is free-form holds words of users, not fields.
        if inner.is_object() && !matches!(name.as_str(), "variables" | "data" | "to") {
            inner["future"] = json!({ "a": 1 });
        }
    }
    body["future"] = json!({ "a": 1 });
    body
}

fn record(fixture: &Value, newer: bool) -> Record {
    let words = |key: &str| serde_json::from_value(fixture[key].clone()).unwrap();
    let at = Timestamp::parse(WRITTEN).unwrap();
    let body = fixture["body"].clone();
    Record {
        shelf: Shelf::ALL.into_iter().find(|s| fixture["shelf"] == s.as_str()).unwrap(),
        id: serde_json::from_value(fixture["id"].clone()).unwrap(),
        version: 1,
        names: words("names"),
        labels: words("labels"),
        created_at: at,
        updated_at: at,
        expires_at: None,
        body: if newer { with_future(body) } else { body },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_0_1_0_are_read() {
    let fixtures: Vec<Value> = serde_json::from_str(RECORDS).unwrap();
    for newer in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        {
            let stores = store::open(&format!("sqlite://{}", dir.path().join("app.db").display()), Sync::Full).unwrap();
            let writes = fixtures.iter().map(|f| Write::Insert(record(f, newer))).collect();
            assert_eq!(stores.records.commit(writes, &[]).await.unwrap(), Committed::Done);
        }
        let process = Process::start(dir.path(), &[]).await;
        let get = async |path: &str| process.get(path).await.unwrap_or_else(|| panic!("{path} is not there"));
        let user = get("/api/v1/users/01a1fff1-c61c-71ae-953e-34034245371a").await;
        assert_eq!((&user["email"], &user["locale"]), (&json!("ada@example.com"), &json!("pt-BR")));
        assert_eq!(user["preferences"]["categories"], json!({"onboarding": {"email": false}}));
        assert_eq!(user["preferences"]["quiet_hours"], json!({"start": "22:00", "end": "07:00"}));
        let tokens = get("/api/v1/users/01a1fff1-c61c-71ae-953e-34034245371a/push-tokens").await;
        assert_eq!(tokens["data"][0]["label"], "phone");
        let endpoints = get("/api/v1/users/01a1fff1-c61c-71ae-953e-34034245371a/webhook-endpoints").await;
        assert_eq!(endpoints["data"][0]["url"], "https://hooks.example.com/a");
        let template = get("/api/v1/templates/welcome").await;
        let channels = json!(["email", "push", "webhook", "console"]);
        assert_eq!((&template["version"], &template["channels"]), (&json!(1), &channels));
        assert_eq!(get("/api/v1/templates/welcome/versions").await["data"][0]["note"], "first");
        let rule = get("/api/v1/rules/01a1fff1-c66e-70cb-b4a0-38aa3956036c").await;
        assert_eq!((&rule["priority"], &rule["recipients"][0]), (&json!(9), &json!({"email": "ops@example.com"})));
        assert_eq!(get("/api/v1/suppressions").await["data"][0]["reason"], "hard_bounce");
        assert_eq!(get("/api/v1/sink?to=ada@example.com").await["data"][0]["content"]["subject"], "Welcome, Ada");
    }
}

/// Reads a shape as it is and with fields of a newer version; what is written again is what was read.
fn holds<T: Serialize + DeserializeOwned>(shape: &Value) {
    let read: T = serde_json::from_value(shape.clone()).unwrap();
    assert_eq!(&serde_json::to_value(&read).unwrap(), shape);
    let newer: T = serde_json::from_value(with_future(shape.clone())).unwrap();
    assert_eq!(&serde_json::to_value(&newer).unwrap(), shape);
}

#[test]
fn notifications_and_events_of_0_1_0_are_read() {
    let shapes: Value = serde_json::from_str(NOTIFICATION).unwrap();
    holds::<Payload>(&shapes["payload"]);
    holds::<Report>(&shapes["report"]);
    holds::<Event>(&shapes["event"]);
}
