//! Dead letters: listing them, running them again, forgetting them.

use serde_json::json;

use super::*;

const REPLAY: &str = "/api/v1/dead-letters/replay";
const DISCARD: &str = "/api/v1/dead-letters/discard";

#[actix_web::test]
async fn dead_letters_are_listed_and_nothing_else_is() {
    let t = Under::new().await;
    t.submitted(json!({"kind": "noop"})).await;
    let id = t.dead(json!({"kind": "noop", "queue": "mine", "tags": ["x"]})).await;
    for query in ["", "?queue=mine", "?tag=x", "?kind=noop&limit=1"] {
        let page = t.get(&format!("/api/v1/dead-letters{query}")).await.json();
        assert_eq!(page["data"].as_array().unwrap().len(), 1, "{query}");
        assert_eq!((&page["data"][0]["id"], &page["data"][0]["error"]["code"]), (&json!(id), &json!("boom")));
    }
    assert_eq!(t.get("/api/v1/dead-letters?queue=default").await.json()["data"], json!([]));
    assert_eq!(t.get("/api/v1/dead-letters?state=failed").await.problem(400, "invalid_request"), ["state"]);
}

#[actix_web::test]
async fn a_replay_can_be_tried_edited_and_slowed() {
    let t = Under::new().await;
    let id = t.dead(json!({"kind": "noop", "tags": ["x"]})).await;
    let other = t.dead(json!({"kind": "noop"})).await;
    let dry = t.post(REPLAY, json!({"filter": {"tag": "x"}, "dry_run": true})).await.json();
    assert_eq!(dry, json!({"matched": 1, "replayed": 0, "dry_run": true, "ids": [id]}));
    assert_eq!(t.job(&id).await["state"], "failed");
    let edit = json!({"queue": "elsewhere", "priority": "low", "payload": {"n": 2}, "max_attempts": 9});
    let done = t.post(REPLAY, json!({"filter": {"ids": [id], "error_contains": "broke"}, "edit": edit})).await.json();
    assert_eq!((&done["matched"], &done["replayed"]), (&json!(1), &json!(1)));
    let job = t.job(&id).await;
    assert_eq!((&job["state"], &job["queue"], &job["priority"]), (&json!("queued"), &json!("elsewhere"), &json!(1)));
    assert_eq!((&job["payload"], &job["max_attempts"]), (&json!({"n": 2}), &json!(9)));
    assert_eq!(t.job(&other).await["state"], "failed");
    let third = t.dead(json!({"kind": "noop"})).await;
    let slow = t.post(REPLAY, json!({"filter": {}, "rate": 0.5})).await.json();
    assert_eq!(slow["replayed"], 2);
    let mut states = [t.job(&other).await["state"].clone(), t.job(&third).await["state"].clone()];
    states.sort_by_key(Value::to_string);
    assert_eq!(states, ["queued", "scheduled"]);
}

#[actix_web::test]
async fn dead_letters_are_forgotten_on_request() {
    let t = Under::new().await;
    let id = t.dead(json!({"kind": "noop"})).await;
    let dry = t.post(DISCARD, json!({"filter": {}, "dry_run": true})).await.json();
    assert_eq!(dry, json!({"matched": 1, "discarded": 0, "dry_run": true}));
    let done = t.post(DISCARD, json!({"filter": {"kind": "noop"}})).await.json();
    assert_eq!(done, json!({"matched": 1, "discarded": 1, "dry_run": false}));
    assert_eq!(t.get(&format!("/api/v1/jobs/{id}")).await.problem(404, "not_found"), ["id"]);
}

#[actix_web::test]
async fn wrong_wishes_name_the_field_at_fault() {
    let t = Under::new().await;
    t.dead(json!({"kind": "process_heavy_task", "payload": {"data": "x", "iterations": 1}})).await;
    let many = vec!["0192f0c1-2345-7abc-8def-0123456789ab"; 4_000];
    for (body, field) in [
        (json!({}), "filter"),
        (json!({"filter": []}), "filter"),
        (json!({"filter": {"colour": 1}}), "filter.colour"),
        (json!({"filter": {"ids": ["x"]}}), "filter.ids[0]"),
        (json!({"filter": {"kind": "No"}}), "filter.kind"),
        (json!({"filter": {"created_after": "9999-12-31T23:59:59Z"}}), "filter.created_after"),
        (json!({"filter": {}, "rate": 0}), "rate"),
        (json!({"filter": {}, "rate": -1}), "rate"),
        (json!({"filter": {}, "rate": 100_001}), "rate"),
        (json!({"filter": {}, "limit": 0}), "limit"),
        (json!({"filter": {}, "limit": 1_000_001}), "limit"),
        (json!({"filter": {}, "edit": {"priority": 11}}), "edit.priority"),
        (json!({"filter": {}, "edit": {"max_attempts": 0}}), "edit.max_attempts"),
        (json!({"filter": {}, "edit": {"colour": 0}}), "edit.colour"),
        (json!({"filter": {}, "edit": {"payload": {"data": "x", "iterations": 0}}}), "edit.payload.iterations"),
    ] {
        let text = body.to_string();
        assert_eq!(t.post(REPLAY, body).await.problem(400, "invalid_request"), [field], "{text}");
    }
    assert_eq!(t.post(DISCARD, json!({"filter": {}, "limit": 0})).await.problem(400, "invalid_request"), ["limit"]);
    assert_eq!(t.post(DISCARD, json!({"filter": {"ids": many}})).await.json()["matched"], 0);
    let big = Under::with(|s| s.limits.max_body = 1 << 20).await;
    let more = vec!["0192f0c1-2345-7abc-8def-0123456789ab"; 10_001];
    let answer = big.post(DISCARD, json!({"filter": {"ids": more}})).await;
    assert_eq!(answer.problem(400, "invalid_request"), ["filter.ids"]);
}
