//! The older paths, in Celery's words; and what jobs keep of the request that made them.

use std::time::Duration;

use serde_json::{json, value::to_raw_value};

use super::{jobs::JOBS, *};
use crate::jobs::{
    model::{JobError, Progress},
    state::Verdict,
};

const PROCESS: &str = "/api/async/process";

#[actix_web::test]
async fn a_task_goes_from_pending_to_success() {
    let t = Under::new().await;
    // To JSON, 4.0 is as whole as 4.
    let made = t.post(PROCESS, json!({"data": "hello", "iterations": 4.0, "priority": 7})).await;
    let id = made.json()["task_id"].as_str().unwrap().to_owned();
    let path = format!("/api/async/status/{id}");
    assert_eq!((made.status, made.json()), (202, json!({"task_id": id, "status": "PENDING"})));
    assert_eq!(made.header("location"), path);
    assert_eq!(t.get(&path).await.json(), json!({"task_id": id, "status": "PENDING"}));
    let job = t.job(&id).await;
    assert_eq!((&job["kind"], &job["priority"]), (&json!("process_heavy_task"), &json!(7)));
    assert_eq!(job["payload"], json!({"data": "hello", "iterations": 4}));

    let job = t.claim(&id).await;
    let nothing_yet = json!({"current": 0, "total": 0, "percent": 0.0});
    assert_eq!(t.get(&path).await.json(), json!({"task_id": id, "status": "PROGRESS", "progress": nothing_yet}));
    let progress = Progress { current: 1, total: 4, message: None, partial: None };
    t.backing.app.stores.jobs.progress(vec![(job.id, job.fence, progress)]).await.unwrap();
    let quarter = json!({"current": 1, "total": 4, "percent": 25.0});
    assert_eq!(t.get(&path).await.json()["progress"], quarter);

    let at = t.state.clock.now().plus(Duration::from_secs(5));
    t.finish(&job, Verdict::Retry { at }, Some(JobError::new("boom", "it broke"))).await;
    let task = t.get(&path).await.json();
    assert_eq!((&task["status"], &task["error"]), (&json!("RETRY"), &json!("it broke")));
    t.command(&format!("/api/v1/jobs/{id}/retry")).await;
    let job = t.claim(&id).await;
    let result = json!({"processed_items": [], "total_processed": 0});
    t.finish(&job, Verdict::Succeed(Some(to_raw_value(&result).unwrap())), None).await;
    let task = t.get(&path).await.json();
    assert_eq!((&task["status"], &task["result"]), (&json!("SUCCESS"), &result));
}

#[actix_web::test]
async fn failed_and_cancelled_tasks_say_so() {
    let t = Under::new().await;
    let payload = json!({"data": "x", "iterations": 1});
    let id = t.dead(json!({"kind": "process_heavy_task", "payload": payload})).await;
    let task = t.get(&format!("/api/async/status/{id}")).await.json();
    assert_eq!(task, json!({"task_id": id, "status": "FAILURE", "error": "it broke"}));
    let id = t.submitted(json!({"kind": "noop", "delay": 9})).await;
    let path = format!("/api/async/status/{id}");
    assert_eq!(t.get(&path).await.json()["status"], "PENDING");
    t.command(&format!("/api/v1/jobs/{id}/cancel")).await;
    assert_eq!(t.get(&path).await.json()["status"], "REVOKED");
    for nobody in ["x", "0192f0c1-2345-7abc-8def-0123456789ab"] {
        let answer = t.get(&format!("/api/async/status/{nobody}")).await;
        assert_eq!(answer.problem(404, "not_found"), ["task_id"]);
    }
}

#[actix_web::test]
async fn wrong_tasks_name_the_field_as_it_was_written() {
    let t = Under::new().await;
    for (body, field) in [
        (json!({}), "data"),
        (json!({"data": "x"}), "iterations"),
        (json!({"data": 7, "iterations": 1}), "data"),
        (json!({"data": "x".repeat(10_001), "iterations": 1}), "data"),
        (json!({"data": "x", "iterations": 0}), "iterations"),
        (json!({"data": "x", "iterations": 10_001}), "iterations"),
        (json!({"data": "x", "iterations": -1}), "iterations"),
        (json!({"data": "x", "iterations": 1.5}), "iterations"),
        (json!({"data": "x", "iterations": 1e300}), "iterations"),
        (json!({"data": "x", "iterations": 1, "priority": "urgent"}), "priority"),
        (json!({"data": "x", "iterations": 1, "queue": "heavy"}), "queue"),
    ] {
        let text = body.to_string();
        assert_eq!(t.post(PROCESS, body).await.problem(400, "invalid_request"), [field], "{text}");
    }
}

#[actix_web::test]
async fn a_trace_is_carried_into_the_job() {
    let t = Under::new().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (sent, kept) in [(trace, Some(trace)), ("nonsense", None)] {
        let request = TestRequest::post().uri(JOBS).insert_header(("content-type", "application/json"));
        let request = request.insert_header(("traceparent", sent)).insert_header(("x-request-id", "mine"));
        let job = t.send(request.set_payload(r#"{"kind":"noop"}"#)).await.json();
        assert_eq!(job["correlation_id"], "mine");
        let stored = t.state.jobs.get(job["id"].as_str().unwrap().parse().unwrap()).await.unwrap();
        assert_eq!(stored.spec.traceparent.as_deref(), kept);
    }
}
