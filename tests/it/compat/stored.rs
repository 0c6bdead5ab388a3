//! Databases of released versions.

use std::collections::BTreeMap;

use app::{
    base::clock::Timestamp,
    store::{self, Sync},
};
use mongodb::bson::{Bson, Document, doc};
use serde_json::{Value, json};

use crate::support::{
    fleet::{Fleet, Via, in_state},
    process::Process,
};

const SQLITE: &str = include_str!("v0.1.0/sqlite.sql");
const SQLITE_ANSWERS: &str = include_str!("v0.1.0/sqlite.answers.json");
const MONGODB: &str = include_str!("v0.1.0/mongodb.json");
const MONGODB_ANSWERS: &str = include_str!("v0.1.0/mongodb.answers.json");

/// When the databases were written: their idempotency keys still hold.
const WRITTEN: &str = "2026-11-21T18:30:00Z";

/// What a newer version might add. Columns and fields, and members of what is kept as JSON text.
const NEWER_SQLITE: &str = r#"
    ALTER TABLE jobs ADD COLUMN future TEXT;
    ALTER TABLE items ADD COLUMN future TEXT;
    ALTER TABLE workers ADD COLUMN future TEXT;
    CREATE TABLE future (id INTEGER PRIMARY KEY);
    UPDATE jobs SET spec = json_set(spec, '$.future', json('{"a": 1}'));
    UPDATE jobs SET progress = json_set(progress, '$.future', 1) WHERE progress IS NOT NULL;
    UPDATE jobs SET attempts = json_set(attempts, '$.future', 1) WHERE attempts IS NOT NULL;
    UPDATE workers SET report = json_set(report, '$.future', json('{"a": 1}'));
"#;

/// Retention must not remove what is years old by now.
const KEEP: [(&str, &str); 2] = [("APP__JOBS__RETENTION", "36500d"), ("APP__JOBS__DEAD_RETENTION", "36500d")];

fn answers(text: &str) -> BTreeMap<String, Value> {
    serde_json::from_str(text).unwrap()
}

/// Everything that was said must still be said; more may be.
fn says(expected: &Value, actual: &Value, at: &str) {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            for (k, v) in expected {
                says(v, actual.get(k).unwrap_or(&Value::Null), &format!("{at}.{k}"));
            }
        }
        (Value::Array(expected), Value::Array(actual)) if expected.len() == actual.len() => {
            for (n, (e, a)) in expected.iter().zip(actual).enumerate() {
                says(e, a, &format!("{at}[{n}]"));
            }
        }
        _ => assert_eq!(expected, actual, "{at}"),
    }
}

async fn same(process: &Process, name: &str, expected: &Value) {
    let path = if name == "item" { "items" } else { "jobs" };
    let id = expected["id"].as_str().unwrap();
    let actual = process.get(&format!("/api/v1/{path}/{id}")).await;
    says(expected, &actual.unwrap_or_else(|| panic!("{name} is gone")), name);
}

fn sqlite_file(dir: &std::path::Path, newer: bool) -> std::path::PathBuf {
    let file = dir.join("app.db");
    let database = rusqlite::Connection::open(&file).unwrap();
    database.execute_batch(SQLITE).unwrap();
    // Not part of a dump.
    database.execute_batch("PRAGMA application_id = 0x61707071; PRAGMA user_version = 1").unwrap();
    if newer {
        database.execute_batch(NEWER_SQLITE).unwrap();
    }
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_database_of_0_1_0_is_read_and_worked_on() {
    let answers = answers(SQLITE_ANSWERS);
    for newer in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let file = sqlite_file(dir.path(), newer);
        {
            let stores = store::open(&format!("sqlite://{}", file.display()), Sync::Full).unwrap();
            assert_eq!(stores.fleet.workers().await.unwrap().len(), 1);
            let now = Timestamp::parse(WRITTEN).unwrap();
            let key = stores.jobs.recall("anonymous", "fixture-key", now).await.unwrap();
            let answer: Value = serde_json::from_slice(&key.expect("the key holds").1).unwrap();
            assert_eq!(answer["id"], answers["running"]["id"]);
        }
        let process = Process::start(dir.path(), &KEEP).await;
        for (name, expected) in answers.iter().filter(|(name, _)| *name != "running") {
            same(&process, name, expected).await;
        }
        // The process that ran it is gone: it runs again.
        let job = in_state(&process, answers["running"]["id"].as_str().unwrap(), "running").await;
        assert_eq!((&job["runs"], &job["crashes"]), (&json!(2), &json!(1)), "{job}");
        let resumed = process.post("/api/v1/queues/held/resume", &Value::Null).await;
        assert!(resumed.is_some());
    }
}

/// As a newer version might have written it.
fn with_future(mut d: Document) -> Document {
    d.insert("future", doc! { "a": 1 });
    let text = |b: &Bson| match b {
        Bson::String(text) if text.starts_with('{') => {
            let mut value: Value = serde_json::from_str(text).unwrap();
            value["future"] = json!({"a": 1});
            Some(Bson::String(value.to_string()))
        }
        _ => None,
    };
    for field in ["spec", "report", "progress", "error"] {
        if let Some(more) = d.get(field).and_then(text) {
            d.insert(field, more);
        }
    }
    if let Ok(attempts) = d.get_array_mut("attempts") {
        for a in attempts {
            *a = text(a).unwrap();
        }
    }
    d
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mongodb_database_of_0_1_0_is_read_and_worked_on() {
    let answers = answers(MONGODB_ANSWERS);
    for newer in [false, true] {
        let fleet = Fleet::shared(Via::Redis).await;
        // It makes the indexes; versions since then have added collections of their own and changed none of these.
        let serve = fleet.serve().await;
        let url = fleet.setting("APP__STORE__URL");
        let database = mongodb::Client::with_uri_str(url).await.unwrap().default_database().unwrap();
        let written: BTreeMap<String, Vec<Document>> = serde_json::from_str(MONGODB).unwrap();
        let schema = database.collection::<Document>("schema").find_one(doc! {}).await.unwrap();
        let version = |d: Option<&Document>| d.unwrap().get_i64("version").unwrap();
        assert_eq!(
            (version(schema.as_ref()), version(written["schema"].first())),
            (3, 1),
            "a new schema may need fixtures"
        );
        for (collection, documents) in written.into_iter().filter(|(c, _)| c != "schema") {
            let all = documents.into_iter().map(|d| if newer { with_future(d) } else { d });
            database.collection::<Document>(&collection).insert_many(all).await.unwrap();
        }
        for (name, expected) in &answers {
            same(&serve, name, expected).await;
        }
        let workers = serve.get("/api/v1/workers").await.unwrap();
        assert_eq!(workers["data"][0]["id"], answers["running"]["worker"], "{workers}");
        {
            let stores = store::open(url, Sync::Full).unwrap();
            let now = Timestamp::parse(WRITTEN).unwrap();
            let key = stores.jobs.recall("anonymous", "fixture-key", now).await.unwrap();
            let answer: Value = serde_json::from_slice(&key.expect("the key holds").1).unwrap();
            assert_eq!(answer["id"], answers["running"]["id"]);
        }
        // What waited is run, and what ran is taken from its worker, which is long dead.
        let _scheduler = fleet.spawn_with("scheduler", &[], &KEEP);
        let _worker = fleet.worker(&["--queues", "default,later"]).await;
        in_state(&serve, answers["queued"]["id"].as_str().unwrap(), "succeeded").await;
        let id = answers["running"]["id"].as_str().unwrap();
        crate::support::wait_until("it runs again", async || {
            serve.get(&format!("/api/v1/jobs/{id}")).await.is_some_and(|j| j["runs"] == 2 && j["state"] == "running")
        })
        .await;
        same(&serve, "held", &answers["held"]).await;
    }
}
