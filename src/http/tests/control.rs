//! Queues, workers and kinds.

use serde_json::json;

use super::{jobs::JOBS, *};
use crate::{
    base::id::WorkerId,
    jobs::store::{Totals, WorkerReport},
};

fn names(body: &Value, key: &str) -> Vec<String> {
    body["data"].as_array().unwrap().iter().map(|q| q[key].as_str().unwrap().to_owned()).collect()
}

#[actix_web::test]
async fn queues_are_listed_by_name_in_pages() {
    let t = Under::new().await;
    t.submitted(json!({"kind": "noop", "queue": "b.2"})).await;
    t.submitted(json!({"kind": "noop", "queue": "b.2", "delay": 9})).await;
    let all = t.get("/api/v1/queues?limit=200").await.json();
    assert_eq!(
        names(&all, "name"),
        ["b.2", "console", "default", "email", "events", "heavy", "push", "scheduled", "webhook"]
    );
    assert_eq!(all["meta"], json!({"limit": 200, "next_cursor": null, "has_next": false}));
    let queue = &all["data"][0];
    assert_eq!((&queue["queued"], &queue["scheduled"], &queue["running"]), (&json!(1), &json!(1), &json!(0)));
    assert_eq!((&queue["paused"], &queue["depth_limit"]), (&json!(false), &Value::Null));
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = t.get(&format!("/api/v1/queues?limit=3{cursor}")).await.json();
        seen.extend(names(&page, "name"));
        match page["meta"]["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["b.2", "console", "default", "email", "events", "heavy", "push", "scheduled", "webhook"]);
    for list in ["queues", "workers", "kinds"] {
        for (query, field) in
            [("limit=0", "limit"), ("cursor=x", "cursor"), ("cursor=c1_", "cursor"), ("state=x", "state")]
        {
            let answer = t.get(&format!("/api/v1/{list}?{query}")).await;
            assert_eq!(answer.problem(400, "invalid_request"), [field], "{list} {query}");
        }
    }
}

#[actix_web::test]
async fn a_queue_is_paused_resumed_and_purged() {
    let t = Under::new().await;
    let id = t.submitted(json!({"kind": "noop"})).await;
    for (verb, paused) in [("pause", true), ("pause", true), ("resume", false)] {
        let answer = t.command(&format!("/api/v1/queues/default/{verb}")).await;
        assert_eq!((answer.status, &answer.json()["paused"]), (200, &json!(paused)));
        assert_eq!(t.get("/api/v1/queues/default").await.json()["paused"], json!(paused));
    }
    assert_eq!(t.command("/api/v1/queues/default/purge").await.json(), json!({"purged": 1}));
    assert_eq!(t.command("/api/v1/queues/default/purge").await.json(), json!({"purged": 0}));
    assert_eq!(t.job(&id).await["state"], "cancelled");
}

#[actix_web::test]
async fn queues_that_are_not_there_are_404() {
    let t = Under::new().await;
    for name in ["nobody", "No", "a%20b", "%00", &"x".repeat(65)] {
        assert_eq!(t.get(&format!("/api/v1/queues/{name}")).await.problem(404, "not_found"), ["name"], "{name}");
        for verb in ["pause", "resume", "purge"] {
            let answer = t.command(&format!("/api/v1/queues/{name}/{verb}")).await;
            assert_eq!(answer.problem(404, "not_found"), ["name"], "{name} {verb}");
        }
    }
}

#[actix_web::test]
async fn workers_are_shown_as_they_reported() {
    let t = Under::new().await;
    assert_eq!(t.get("/api/v1/workers").await.json()["data"], json!([]));
    let pongs = t.command("/api/v1/workers/ping").await;
    assert_eq!((pongs.status, pongs.json()), (200, json!({"data": [], "meta": {"count": 0, "answered": 0}})));
    let now = t.state.clock.now();
    let report = WorkerReport {
        id: WorkerId(t.state.clock.new_uuid()),
        host: "a".to_owned(),
        pid: 7,
        version: "1".to_owned(),
        started_at: now,
        heartbeat_at: now,
        draining: false,
        queues: vec![("heavy".parse().unwrap(), 2)],
        set_aside: Vec::new(),
        slots: 4,
        busy: 0,
        kinds: vec!["noop".parse().unwrap()],
        active: Vec::new(),
        totals: Totals { started: 9, succeeded: 8, failed: 0, retried: 1 },
        last_minute: vec![("heavy".parse().unwrap(), Totals { started: 3, succeeded: 1, failed: 1, retried: 1 })],
        rss_bytes: 20,
    };
    t.backing.app.stores.fleet.report(report).await.unwrap();
    let worker = &t.get("/api/v1/workers?limit=200").await.json()["data"][0];
    assert_eq!((&worker["state"], &worker["processed"]), (&json!("running"), &json!(9)));
    assert_eq!(worker["queues"], json!([{"name": "heavy", "weight": 2}]));
    let heavy = t.get("/api/v1/queues/heavy").await.json();
    assert_eq!((&heavy["workers"], &heavy["failed_per_minute"]), (&json!(1), &json!(2)));
    let pongs = t.command("/api/v1/workers/ping").await.json();
    assert_eq!((&pongs["data"][0]["answered"], &pongs["data"][0]["ms"]), (&json!(false), &Value::Null));
    t.state.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(t.get("/api/v1/workers").await.json()["data"][0]["state"], "lost");
}

#[actix_web::test]
async fn the_example_of_every_kind_can_be_submitted() {
    let t = Under::new().await;
    let kinds = t.get("/api/v1/kinds").await.json();
    for name in ["process_heavy_task", "batch_process_task", "scheduled_cleanup_task"] {
        assert!(names(&kinds, "name").iter().any(|n| n == name), "{name}");
    }
    for kind in kinds["data"].as_array().unwrap() {
        let answer = t.post(JOBS, json!({"kind": kind["name"], "payload": kind["example"]})).await;
        assert_eq!(answer.status, if kind["internal"] == true { 400 } else { 202 }, "{kind}");
    }
}
