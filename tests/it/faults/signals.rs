//! Signals: the first lets running jobs finish, the second gives them back at once.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{process::Process, wait_until};

async fn submit(process: &Process, steps: Value) -> String {
    let job =
        process.post("/api/v1/jobs", &json!({"kind": "test.script", "payload": {"runs": [steps]}})).await.unwrap();
    job["id"].as_str().unwrap().to_owned()
}

async fn state(process: &Process, id: &str) -> Value {
    process.get(&format!("/api/v1/jobs/{id}")).await.unwrap()
}

async fn runs(process: &Process, id: &str) {
    wait_until("the job runs", async || state(process, id).await["state"] == "running").await;
}

async fn start(dir: &Path) -> Process {
    Process::start(dir, &[("APP__WORKER__SHUTDOWN_GRACE", "60s")]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_running_jobs_finish() {
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    let mut process = start(dir.path()).await;
    let id = submit(&process, json!([{"await": gate}, {"ok": "done"}])).await;
    runs(&process, &id).await;
    process.signal(Signal::TERM);
    wait_until("the worker drains", async || process.log().contains("worker drains")).await;
    std::fs::write(&gate, "").unwrap();
    assert_eq!(process.exit().await.code(), Some(0));
    let process = start(dir.path()).await;
    let job = state(&process, &id).await;
    assert_eq!((&job["state"], &job["result"], &job["runs"]), (&json!("succeeded"), &json!("done"), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_gives_running_jobs_back_without_spending_an_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = start(dir.path()).await;
    let id = submit(&process, json!(["await_stop"])).await;
    runs(&process, &id).await;
    process.signal(Signal::TERM);
    wait_until("the worker drains", async || process.log().contains("worker drains")).await;
    process.signal(Signal::TERM);
    assert_eq!(process.exit().await.code(), Some(0));
    let process = start(dir.path()).await;
    runs(&process, &id).await;
    let job = state(&process, &id).await;
    assert_eq!((&job["attempt"], &job["runs"], &job["crashes"]), (&json!(1), &json!(2), &json!(0)));
    assert_eq!(job["attempts"][0]["outcome"], "released");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_suspended_past_its_leases_keeps_its_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    let env = [("APP__JOBS__LEASE", "3s"), ("APP__JOBS__RENEW_EVERY", "1s")];
    let process = Process::start(dir.path(), &env).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(submit(&process, json!([{"await": gate}])).await);
    }
    for id in &ids {
        runs(&process, id).await;
    }
    process.signal(Signal::STOP);
    // No condition to wait for: what is tested is that this much time passes without the process.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    process.signal(Signal::CONT);
    wait_until("the process has noticed", async || process.log().contains("the process was suspended")).await;
    std::fs::write(&gate, "").unwrap();
    for id in &ids {
        wait_until("the job ends", async || state(&process, id).await["state"] == "succeeded").await;
        let job = state(&process, id).await;
        assert_eq!((&job["runs"], &job["crashes"]), (&json!(1), &json!(0)), "{job}");
    }
}
